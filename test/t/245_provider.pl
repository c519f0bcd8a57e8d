# Each format that a model may speak: an answer, a conversation of ten turns with
# tools, errors, and a task that goes on in another format.  The server is as strict
# as the real ones: it refuses a turn that does not come back as it was sent.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP qw(decode_json);
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
	is( sql("SELECT concat_ws(' ', tokens_in > 4, tokens_out > 4, cached_tokens, coalesce(reasoning_tokens::text, '-'), cost = tokens_in) FROM prometheus.step WHERE task_id = $task AND kind = 'chat'"),
		't t 0 ' . ($api eq 'anthropic' ? '-' : 1) . ' t',
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

# What a model adds to each request, beside what we write; and what cached tokens cost.
my %extras = (
	'openai' => [ '{"seed": 7, "a\"": [1, {"b": null}]}', sub { "$_[0]{seed} $_[0]{'a\"'}[0]" }, '7 1' ],
	'openai-responses' => [ '{"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}}', sub { "$_[0]{reasoning}{effort} $_[0]{text}{verbosity} $_[0]{text}{format}{type}" }, 'low low json_schema' ],
	'anthropic' => [ '{"top_p": 0.5, "output_config": {"effort": "low"}}', sub { "$_[0]{top_p} $_[0]{output_config}{effort} $_[0]{output_config}{format}{type}" }, '0.5 low json_schema' ],
	'gemini' => [ '{"safetySettings": [], "generationConfig": {"topK": 4}}', sub { scalar(@{ $_[0]{safetySettings} }) . " $_[0]{generationConfig}{topK} $_[0]{generationConfig}{responseMimeType}" }, '0 4 application/json' ]);
foreach my $api (sort keys %extras)
{
	my ($extra, $get, $want) = @{ $extras{$api} };

	set_model("$api extra", $api, 'fake-echo', qq({"extra_body": $extra}));
	$node->wait_task($node->submit("'7', '$api extra', output_schema => '{\"type\": \"integer\"}'"), 'completed');
	my $body = $llm->requests->[-1]{body};
	is($get->(ref $body ? $body : decode_json($body)), $want, "$api: extra_body");
}
sql(<<'EOSQL');
CREATE FUNCTION cached(request jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT '{"choices": [{"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
		"usage": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}}'::jsonb $$;
SELECT prometheus_set_model(name, 'function', handler => 'cached(jsonb)', options => prices::jsonb), prometheus_set_agent(name, name)
  FROM (VALUES ('cheap', '{"price_in": 2, "price_cached": 0.5, "price_out": 1}'), ('plain', '{"price_in": 2, "price_out": 1}'),
	('free', '{"price_in": 2, "price_cached": 0}'), ('only', '{"price_cached": 3}')) v (name, prices);
EOSQL
my %costs = (cheap => '0.00015', plain => '0.00021', free => '0.00012', only => '0.00012');
my %asked = map { $_ => $node->submit("'Well?', '$_'") } keys %costs;
foreach my $name (sort keys %costs)
{
	$node->wait_task($asked{$name}, 'completed');
	is(sql("SELECT cost FROM prometheus.step WHERE task_id = $asked{$name} AND kind = 'chat'"), $costs{$name}, "$name: the cost of cached tokens");
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

# What can be seen while a reply comes: the text so far, of each format.
my $said = 'All that was said until now is seen by who asked for it: ' . "\x{c3}\x{a4} \"quoted\" " x 20;
my %halting = map {
	my $api = $_;
	set_model("$api halts", $api, 'fake-falter', '{"stream": true}');
	$api => $node->submit("'$said STOP and so on', '$api halts'")
} keys %formats;
sub seen
{
	my ($task, $what) = @_;
	return "SELECT $what FROM prometheus_progress($task)";
}
foreach my $api (sort keys %formats)
{
	$node->wait_for("$api: text is seen", seen($halting{$api}, 'length(text) > 100'));
	is( sql(seen($halting{$api}, "concat_ws(' ', step, kind, starts_with('$said', rtrim(text)), tokens_out BETWEEN octet_length(text) / 4 AND octet_length(text), elapsed > '0')")),
		'1 chat t t t', "$api: the step, the text so far, about its tokens, since when");
}
sql(q{CREATE ROLE other LOGIN; GRANT prometheus_agent_user TO other});
is($node->error_of("SET ROLE other; SELECT prometheus_progress($halting{openai})")->{state}, '42704', 'it is not seen by others');
sql("SELECT prometheus_cancel($halting{$_})") foreach keys %formats;
foreach my $api (sort keys %formats)
{
	$node->wait_task($halting{$api}, 'cancelled');
	is(sql(seen($halting{$api}, 'count(*)')), 0, "$api: nothing is seen of what has ended");
}

# Of a long text the end, from a whole character on; and if more speak than are
# listened to, who is asked for is heard again.
my $word = "\x{c3}\x{a4}\x{e2}\x{82}\x{ac} ";
my $long = sub { "'\$' || repeat('$word', $_[0]) || 'STOP', 'openai halts'" };
my $task = $node->submit($long->(5000));
$node->wait_for('the end of a long text is seen, and all its tokens', seen($task, 'octet_length(text) BETWEEN 8180 AND 8192 AND tokens_out > 9000'));
is(sql(seen($task, "text ~ '^(\x{e2}\x{82}\x{ac})? ?($word)+\$'")), 't', 'whole characters');
my @crowd = map { $node->submit($long->(100)) } 1 .. 80;
my @asked = ($task, @crowd);
$node->wait_for('all of them speak', sprintf(q{SELECT count(*) FROM unnest('{%s}'::bigint[]) t, prometheus_progress(t)}, join(',', @asked)), scalar @asked);
cmp_ok(sql(sprintf q{SELECT count(text) FROM unnest('{%s}'::bigint[]) t, prometheus_progress(t)}, join(',', @asked)), '<=', 64, 'so many are listened to');
sql(sprintf q{SELECT prometheus_cancel(t) FROM unnest('{%s}'::bigint[]) t}, join(',', @asked));
$node->wait_task($_, 'cancelled') foreach @asked;

# Who does not stream, and what is no reply, show what they are at.
set_model('silent', 'openai', 'fake-hang-before-headers', '{}');
$task = $node->submit(q{'Say nothing.', 'silent'});
$node->wait_for('it is at its reply', seen($task, q{concat_ws(' ', step, kind, text IS NULL, tokens_out IS NULL)}), '1 chat t t');
sql("SELECT prometheus_cancel($task)");
$node->wait_task($task, 'cancelled');
sql(q{CREATE FUNCTION waits() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT pg_advisory_xact_lock_shared(245); SELECT 'waited' $$;
	SELECT prometheus_set_tool('waits()', tier => 'write');
	SELECT prometheus_set_agent('openai true', tools => '{waits}')});
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(245)');
$task = $node->submit($node->script([ [ waits => {} ] ], 'done') . ", 'openai true'");
$node->wait_for('it is at its tool', seen($task, q{concat_ws(' ', step, kind, text IS NULL)}), '2 tool t');
$holder->quit;
$node->wait_task($task, 'completed');

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
