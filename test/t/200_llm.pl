# Answers of models: what is sent, what is kept of what came, whatever form the
# reply has.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my $secrets = PostgreSQL::Test::Utils::tempdir_short;

my $request = q{What is "6 times 7", \ and comment ça va?};
my $fixed = 'The answer is 42.';
my $lost = "\xEF\xBF\xBD";
my $smile = "\xF0\x9F\x98\x80";

# Behaviour, whether it is streamed (1), sent whole (0) or both ways, the answer.
my @answers = (
	[ 'fake-echo', 0, $request ],
	[ 'fake-echo', 1, $request ],
	[ 'anything', 0, $request ],
	[ 'fake-fixed', 0, $fixed ],
	[ 'fake-fixed', 1, $fixed ],
	[ 'fake-slow-50', 0, $request ],
	[ 'fake-tokens-10', 1, $request ],
	[ 'fake-gzip', 0, $request ],
	[ 'fake-dribble', 0, $request ],
	[ 'fake-late-headers-100', 0, $fixed ],
	[ 'fake-late-headers-100', 1, $fixed ],
	[ 'fake-bom', 0, $fixed ],
	[ 'fake-array-content', 0, $fixed ],
	[ 'fake-close-after', 0, $request ],
	[ 'fake-finish-eos', 0, $fixed ],
	[ 'fake-nul', 0, "a${lost}b" ],
	[ 'fake-nul', 1, "a${lost}b" ],
	[ 'fake-surrogate', 0, "a${lost}b $smile" ],
	[ 'fake-surrogate', 1, "a${lost}b $smile" ],
	[ 'fake-bad-utf8', 0, "a$lost$lost(b$lost$lost$lost caf\xC3\xA9" ],
	[ 'fake-bad-utf8', 1, "a$lost$lost(b$lost$lost$lost caf\xC3\xA9" ],
	[ 'fake-control', 0, "a\tb\x01c" ],
	[ 'fake-control', 1, "a\tb\x01c" ],
	[ 'fake-bigint', 0, 'ok' ],
	[ 'fake-bigint', 1, 'ok' ],
	[ 'fake-deep', 0, 'ok' ],
	[ 'fake-reasoning', 0, 'ok' ],
	[ 'fake-reasoning', 1, 'ok' ],
	[ 'fake-stream-crlf', 1, $request ],
	[ 'fake-stream-cr', 1, $request ],
	[ 'fake-stream-bytes', 1, $request ],
	[ 'fake-stream-comments', 1, $request ],
	[ 'fake-stream-no-usage', 1, $request ],
	[ 'fake-stream-no-done', 1, $request ],
	[ 'fake-stream-no-space', 1, $request ],
	[ 'fake-stream-bom', 1, $request ],
	[ 'fake-stream-pair', 1, "a${smile}b" ],
	[ 'fake-stream-split', 1, "caf\xC3\xA9 $smile" ],
	[ 'fake-stream-json', 1, $request ],
	[ 'fake-stream-text-plain', 1, $request ],
	[ 'fake-stream-gzip', 1, $request ],
	[ 'fake-stream-reasoning', 1, 'ok' ],
	[ 'fake-stream-cut-after-finish', 1, $request ],
	[ 'fake-stream-hang-after-done', 1, $request ]);

# Parts of the turn that must be kept as they came.
my %raw = (
	'fake-reasoning 0' => '"I think \"so\" \/ \u00e9"',
	'fake-reasoning 1' => '"x":{"y":[1,2.50,null]}',
	'fake-bigint 0' => '"id":18446744073709551616,"price":0.10,"far":1e400,"n":-9223372036854775809',
	'fake-bigint 1' => '"id":18446744073709551616,"price":0.10,"far":1e400,"n":-9223372036854775809',
	'fake-nul 0' => 'a\u0000b',
	'fake-surrogate 1' => 'a\ud800b \ud83d\ude00',
	'fake-bad-utf8 0' => $lost,
	'fake-stream-reasoning 1' => '"big":18446744073709551616,"x":{"y":"ab","z":1.50}');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub write_secret
{
	my ($name, $text) = @_;
	open(my $fh, '>', "$secrets/$name") or die "$name: $!";
	print $fh $text;
	close($fh);
	chmod(0600, "$secrets/$name") or die "$name: $!";
	return;
}

write_secret('key', "test-key\n");
write_secret('other', 'sk-secret-of-the-file');
{
	local $ENV{PROM_TEST_KEY} = 'secret-of-the-environment';
	$node->init(conf => "prometheus.secrets_dir = '$secrets'\n"
		  . "log_statement = none\nlog_min_messages = debug1\n");
	$node->start;
}
$node->create_extension;

# Every form of an answer, all at once.
my $script = '';
foreach my $case (@answers)
{
	my ($behaviour, $stream) = @$case;
	my $name = "$behaviour $stream";
	my $options = $stream ? '{}' : '{"stream": false}';
	$script .= sprintf
	  "SELECT prometheus_set_model('%s', 'openai', '%s', '%s', options => '%s');\n"
	  . "SELECT prometheus_set_agent('%s', '%s');\n"
	  . "SELECT prometheus_submit('%s', '%s');\n",
	  $name, $llm->url('/v1'), $behaviour, $options, $name, $name, $request,
	  $name;
}
sql($script);
$node->wait_for('every form of an answer has come',
	q{SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')},
	'0');
my $answers = sql(
	q{SELECT agent || '|' || status || '|' || coalesce(error, '') || '|' || coalesce(result, '-') FROM prometheus.task});
my %answer = map { my ($agent, $rest) = split /\|/, $_, 2; ($agent => $rest) }
  split /\n/, $answers;
is($answer{"$_->[0] $_->[1]"}, "completed||$_->[2]",
	"$_->[0], " . ($_->[1] ? 'streamed' : 'whole'))
  foreach @answers;
foreach my $name (sort keys %raw)
{
	my $raw = sql(
		"SELECT s.raw FROM prometheus._step s JOIN prometheus._task t USING (task_id) WHERE t.agent = '$name'"
	);
	ok(index($raw, $raw{$name}) >= 0, "$name: kept as it came") or diag($raw);
}
is(scalar @{ $llm->requests }, scalar @answers, 'one request each');
is(sql(q{SELECT coalesce(string_agg(t.agent, ', '), '') FROM prometheus.attempt x JOIN prometheus.task t USING (task_id) WHERE x.attempt > 1}),
	'', 'one attempt each');
is(sql(q{SELECT string_agg(DISTINCT status, ' ') FROM prometheus.call}),
	'done', 'every call is done');
is( sql(q{SELECT count(*) FROM prometheus.step WHERE (tokens_in IS NULL) <> (name IN ('fake-stream-no-usage 1', 'fake-stream-cut-after-finish 1'))}),
	0, 'tokens are as reported, or null');
is( sql(q{SELECT max(finish_reason) FROM prometheus.step WHERE name = 'fake-finish-eos 0'}),
	'eos', q{the finish reason is the provider's own word});

# What is sent.
sub ask
{
	my ($text, $agent) = @_;
	my $answer = sql("CALL prometheus_ask('$text', '$agent')");
	return ($answer, $llm->requests->[-1]);
}

$node->fake_agent(
	$llm, 'fake-fixed',
	name => 'bare');
my (undef, $sent) = ask('twelve bytes', 'bare');
is($sent->{method} . ' ' . $sent->{path}, 'POST /v1/chat/completions', 'path');
is_deeply(
	$sent->{body},
	{
		model => 'fake-fixed',
		messages => [ { role => 'user', content => 'twelve bytes' } ],
		stream => JSON::PP::true,
		stream_options => { include_usage => JSON::PP::true }
	},
	'body: as little as needed');
like($sent->{headers}{'content-type'}, qr{^application/json}, 'content type');
ok(!exists $sent->{headers}{authorization}, 'no key, no header');
is( sql('SELECT tokens_in, tokens_out, cached_tokens, cost IS NULL, finish_reason, http_status, model FROM prometheus.step JOIN prometheus.call USING (task_id, attempt) ORDER BY task_id DESC LIMIT 1'
	),
	'4|5|0|t|stop|200|fake-fixed',
	'step: tokens, finish reason, status, model; no price, no cost');
is( sql('SELECT request_id FROM prometheus.call ORDER BY task_id DESC LIMIT 1'),
	"req-$sent->{n}",
	q{the provider's id of the request});

$node->fake_agent(
	$llm, 'fake-fixed',
	name => 'full',
	instructions => 'Be "brief" – please.',
	options => '{"stream": false, "max_tokens": 77, "temperature": 0.7, "price_in": 0.15, "price_out": 600}'
);
(undef, $sent) = ask('twelve bytes', 'full');
is_deeply(
	$sent->{body},
	{
		model => 'fake-fixed',
		messages => [
			{ role => 'system', content => "Be \"brief\" \x{2013} please." },
			{ role => 'user', content => 'twelve bytes' }
		],
		stream => JSON::PP::false,
		max_tokens => 77,
		temperature => 0.7
	},
	'body: all there is');
is( sql('SELECT tokens_in, tokens_out, cost FROM prometheus.task ORDER BY task_id DESC LIMIT 1'
	),
	'9|5|0.00300135',
	'cost: tokens times prices per million');
is( sql(q{SELECT input = '{"messages": [{"role": "system", "content": "Be \"brief\" – please."}, {"role": "user", "content": "twelve bytes"}]}', output FROM prometheus.step ORDER BY task_id DESC LIMIT 1}
	),
	't|{"content": "The answer is 42."}',
	'step: what went in and what came out');
is( sql(q{SELECT string_agg(type, ' ' ORDER BY created_at, event_id) FROM prometheus.event WHERE task_id = (SELECT max(task_id) FROM prometheus.task)}
	),
	'task.received step.executed task.completed',
	'events');

# Keys.
foreach my $case (
	[ 'key', 'fake-auth', 'test-key' ],
	[ 'other', 'fake-echo', 'sk-secret-of-the-file' ],
	[ 'env:PROM_TEST_KEY', 'fake-echo', 'secret-of-the-environment' ])
{
	my ($secret, $behaviour, $key) = @$case;
	$node->fake_agent($llm, $behaviour, name => "with $secret",
		secret => $secret);
	my ($answer, $seen) = ask('let me in', "with $secret");
	is($answer, $behaviour eq 'fake-auth' ? 'authorized' : 'let me in',
		"$secret: answers");
	is($seen->{headers}{authorization}, "Bearer $key", "$secret: sent");
}
write_secret('other', "sk-secret-of-a-new-file\r\n");
(undef, $sent) = ask('again', 'with other');
is($sent->{headers}{authorization}, 'Bearer sk-secret-of-a-new-file',
	'a changed key is used at once');

# A conversation of one keeps its connection.
my $requests = @{ $llm->requests };
ask("turn $_", 'bare') foreach 1 .. 10;
my %connections =
  map { ($_->{connection} => 1) } @{ $llm->requests }[ $requests .. $requests + 9 ];
is(scalar keys %connections, 1, 'ten in a row on one connection');

# Many at once: none waits for another.
$node->fake_agent($llm, 'fake-hang-before-headers', secret => 'other');
sql(q{SELECT count(prometheus_submit('n' || n, 'fake-hang-before-headers')) FROM generate_series(1, 300) n}
);
$llm->wait_requests($requests + 10 + 300);
is(sql(q{SELECT in_flight FROM prometheus.worker WHERE role = 'caller'}),
	300, '300 in flight');
cmp_ok($llm->stats->{open}, '>=', 300, '300 connections');
is( sql(q{SELECT count(*) FROM pg_stat_activity WHERE query ~ 'secret-of' AND pid <> pg_backend_pid()}
	),
	0, 'no key in pg_stat_activity');
sql(q{SELECT count(prometheus_cancel(task_id)) FROM prometheus.task WHERE status = 'running'});
$node->wait_for('all 300 are cancelled',
	q{SELECT count(*) FROM prometheus.task WHERE status = 'cancelled'}, '300');

$node->check_invariants('invariants', all_ended => 1);
my ($dump) = run_command(
	[ 'pg_dump', '-p', $node->port, '-h', $node->host, 'postgres' ]);
unlike($dump, qr/secret-of|test-key/, 'no key in any row');
unlike(slurp_file($node->logfile), qr/secret-of|test-key/, 'no key in the log');
is($node->log_count(qr/ (ERROR|WARNING|FATAL|PANIC): /), 0, 'no error in the log');
$node->stop;
$llm->stop;
done_testing();
