# Each format that a model may speak: an answer, a conversation of ten turns with
# tools, errors, and a task that goes on in another format.  The server is as strict
# as the real ones: it refuses a turn that does not come back as it was sent.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

my %formats = (
	'openai' => [ '/v1', '/v1/chat/completions', '/v1/chat/completions', 'authorization', 'Bearer test-key' ],
	'openai-responses' => [ '/v1', '/v1/responses', '/v1/responses', 'authorization', 'Bearer test-key' ],
	'anthropic' => [ '/v1', '/v1/messages', '/v1/messages', 'x-api-key', 'test-key' ],
	'gemini' => [
		'/v1beta', '/v1beta/models/NAME:generateContent', '/v1beta/models/NAME:streamGenerateContent?alt=sse',
		'x-goog-api-key', 'test-key' ]);

$ENV{PROM_TEST_KEY} = 'test-key';
$node->init(conf => "prometheus.executors = 2\n");
$node->start;
$node->keep_sessions;
$node->create_extension;
sql(<<'EOSQL');
CREATE TABLE effect (who text, turn int, PRIMARY KEY (who, turn));
CREATE FUNCTION add(who text, turn int) RETURNS text LANGUAGE sql AS
	'INSERT INTO effect VALUES (who, turn) RETURNING ''added '' || turn';
CREATE FUNCTION fails() RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''not today''; END';
SELECT prometheus_set_tool('add(text, int)', tier => 'write');
SELECT prometheus_set_tool('fails()');
EOSQL

# A model of a format and its agent of the same name.
sub set_model
{
	my ($name, $api, $model, $options) = @_;
	my $endpoint = $llm->url($formats{$api}[0]);
	sql(qq{SELECT prometheus_set_model('$name', '$api', '$endpoint', '$model', 'env:PROM_TEST_KEY', options => '$options');
		SELECT prometheus_set_agent('$name', '$name', instructions => 'Be brief.', tools => '{add,fails}')});
}

sub test_format
{
	my ($api, $stream) = @_;
	my $name = "$api $stream";
	my $path = $formats{$api}[ $stream eq 'true' ? 2 : 1 ] =~ s/NAME/fake-tools/r;
	my (undef, undef, undef, $header, $key) = @{ $formats{$api} };
	my ($task, $request);

	set_model($name, $api, 'fake-echo', qq({"stream": $stream, "price_in": 1000000, "price_out": 0}));
	$task = $node->submit("'What is \"7\" of \x{c3}\x{a4}?', '$name'");
	$node->wait_task($task, 'completed');
	is(sql("SELECT prometheus_result($task)"), "What is \"7\" of \x{c3}\x{a4}?", "$name: an answer");
	is( sql("SELECT concat_ws(' ', tokens_in > 4, tokens_out > 4, cached_tokens, cost = tokens_in) FROM prometheus.step WHERE task_id = $task AND kind = 'chat'"),
		't t 0 t',
		"$name: what it used");

	set_model($name, $api, 'fake-tools', qq({"stream": $stream}));
	$task = $node->submit($node->script((map { [ "Turn $_.", [ add => { who => $name, turn => $_ } ], ($_ % 3 ? () : [ fails => {} ]) ] } 1 .. 10), 'the end') . ", '$name'");
	$node->wait_task($task, 'completed');
	is(sql("SELECT prometheus_result($task)"), 'the end', "$name: ten turns");
	is(sql("SELECT string_agg(turn::text, ' ' ORDER BY turn) FROM effect WHERE who = '$name'"), '1 2 3 4 5 6 7 8 9 10', "$name: what its tools did");
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'tool' AND status = 'error'"), 3, "$name: tools that fail");
	$request = $llm->requests->[-1];
	is($request->{path}, $path, "$name: the path");
	is($request->{headers}{$header}, $key, "$name: the header of the key");
	is(sql("SELECT count(*) FROM prometheus.span WHERE attributes ->> 'url.full' LIKE '%/v1%' AND kind = 'client' AND attributes::text LIKE '%PROM_TEST_KEY%'"),
		0, "$name: no name of a key in spans");
	return;
}

foreach my $api (sort keys %formats)
{
	test_format($api, $_) foreach qw(true false);
}

# Errors are those of every format.
my @errors = (
	[ 'fake-401', 'ConfigurationError' ],
	[ 'fake-length', 'ModelLength' ],
	[ 'fake-filter', 'ModelFiltered' ],
	[ 'fake-400', 'ModelRejected' ],
	[ 'fake-500', 'ModelUnavailable' ],
	[ 'fake-cut-midway', 'ModelUnreadable' ],
	[ 'fake-empty', 'ModelUnreadable' ]);
foreach my $api (sort keys %formats)
{
	my @tasks;

	foreach my $error (@errors)
	{
		set_model("$api $error->[0]", $api, $error->[0], '{}');
		push @tasks, $node->submit("'Hello', '$api $error->[0]', max_attempts => 1");
	}
	set_model("$api slow", $api, 'fake-429-then-ok', '{}');
	my $waits = $node->submit("'Hello of $api', '$api slow', max_attempts => 1");
	foreach my $i (0 .. $#errors)
	{
		$node->wait_task($tasks[$i], 'failed');
		is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $tasks[$i]"), $errors[$i][1], "$api: $errors[$i][0]");
	}
	$node->wait_task($waits, 'completed');
	is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $waits"), 1, "$api: HTTP 429 uses up no attempt");
}
unlike(slurp_file($node->logfile), qr/test-key/, 'no key in the log');

# A task goes on where another format left it: each model gives up after some
# turns, and the next one of its chain gets what was said until then.
my %chains = (
	first => [ [ 'openai-responses', 2 ], [ 'openai', 4 ], [ 'anthropic', 6 ], [ 'gemini', 12 ] ],
	second => [ [ 'gemini', 3 ], [ 'anthropic', 6 ], [ 'openai-responses', 12 ] ]);
my %task;
foreach my $chain (sort keys %chains)
{
	my @links = @{ $chains{$chain} };
	my @names = map { "$chain $_" } 1 .. @links;

	set_model($names[$_], $links[$_][0], "fake-tools-fail-$links[$_][1]", '{}') foreach 0 .. $#links;
	sql(sprintf q{SELECT prometheus_set_model('%s', options => '{"fallback": [%s]}')}, $names[0], join(', ', map { qq("$_") } @names[ 1 .. $#names ]));
	$task{$chain} = $node->submit($node->script((map { [ [ add => { who => $chain, turn => $_ } ], ($_ % 2 ? [ fails => {} ] : ()) ] } 1 .. 11), 'the end') . ", '$names[0]', max_attempts => 6");
}
foreach my $chain (sort keys %chains)
{
	$node->wait_task($task{$chain}, 'completed');
	is(sql("SELECT prometheus_result($task{$chain})"), 'the end', "$chain chain: the answer");
	is(sql("SELECT string_agg(turn::text, ' ' ORDER BY turn) FROM effect WHERE who = '$chain'"), join(' ', 1 .. 11), "$chain chain: what its tools did");
	is(sql("SELECT count(DISTINCT model) FROM prometheus.step WHERE task_id = $task{$chain} AND kind = 'chat' AND status = 'ok'"),
		scalar @{ $chains{$chain} }, "$chain chain: each model did its part");
}

$llm->stop;
$node->stop;
done_testing();
