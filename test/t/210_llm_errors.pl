# What goes wrong with models: what becomes of the task, how often it is tried,
# and what nobody may ever read in an error.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX qw(mkfifo);
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my $secrets = PostgreSQL::Test::Utils::tempdir_short;

# Behaviour, kind of error, tried again (2 attempts are allowed), part of the
# error; only for streams, or only without.
my @failures = (
	[ 'fake-400', 'ModelRejected', 0, 'HTTP 400: error 400 as asked for' ],
	[ 'fake-401', 'ConfigurationError', 0, '[redacted]' ],
	[ 'fake-403', 'ConfigurationError', 0, 'HTTP 403' ],
	[ 'fake-404', 'ModelRejected', 0, 'HTTP 404' ],
	[ 'fake-408', 'ModelUnavailable', 1, 'HTTP 408' ],
	[ 'fake-409', 'ModelUnavailable', 1, 'HTTP 409' ],
	[ 'fake-413-html', 'ModelRejected', 0, 'HTTP 413' ],
	[ 'fake-422', 'ModelRejected', 0, 'HTTP 422' ],
	[ 'fake-500', 'ModelUnavailable', 1, 'HTTP 500' ],
	[ 'fake-501', 'ModelUnavailable', 1, 'HTTP 501' ],
	[ 'fake-502', 'ModelUnavailable', 1, 'HTTP 502' ],
	[ 'fake-503', 'ModelUnavailable', 1, 'HTTP 503' ],
	[ 'fake-504', 'ModelUnavailable', 1, 'HTTP 504' ],
	[ 'fake-529', 'ModelUnavailable', 1, 'HTTP 529' ],
	[ 'fake-filter-400', 'ModelFiltered', 0, 'HTTP 400' ],
	[ 'fake-retry-true-400', 'ModelRejected', 1, 'try again' ],
	[ 'fake-retry-false-500', 'ModelUnavailable', 0, 'do not try again' ],
	[ 'fake-cut-error', 'ModelUnavailable', 1, 'HTTP 500' ],
	[ 'fake-vllm-error', 'ModelRejected', 0, 'vLLM says no' ],
	[ 'fake-string-error', 'ModelRejected', 0, 'just a string' ],
	[ 'fake-detail-error', 'ModelRejected', 0, 'just a detail' ],
	[ 'fake-array-error', 'ModelRejected', 0, 'in an array' ],
	[ 'fake-int-code', 'ModelRejected', 0, 'llama.cpp says no' ],
	[ 'fake-error-200', 'ModelUnavailable', 1, 'inner trouble' ],
	[ 'fake-redirect', 'ConfigurationError', 0, 'redirect' ],
	[ 'fake-html-200', 'ModelUnreadable', 1, 'text/html' ],
	[ 'fake-not-json', 'ModelUnreadable', 1, 'not JSON' ],
	[ 'fake-no-choices', 'ModelUnreadable', 1, 'choice' ],
	[ 'fake-no-finish', 'ModelUnreadable', 1, 'why the turn ended' ],
	[ 'fake-no-body', 'ModelUnreadable', 1, 'empty' ],
	[ 'fake-cut-midway', 'ModelUnreadable', 1, 'cut off' ],
	[ 'fake-cut-json', 'ModelUnreadable', 1, 'not JSON' ],
	[ 'fake-cut-stream', 'ModelUnreadable', 1, 'cut off', 1 ],
	[ 'fake-huge-3', 'ModelUnreadable', 0, 'max_reply' ],
	[ 'fake-gzip-bomb', 'ModelUnreadable', 0, 'max_reply', 0 ],
	[ 'fake-deeper', 'ModelUnreadable', 0, 'max_reply', 0 ],
	[ 'fake-empty', 'ModelUnreadable', 1, 'empty' ],
	[ 'fake-refusal', 'ModelRefused', 0, 'I cannot help with that.' ],
	[ 'fake-filter', 'ModelFiltered', 0, 'content filter' ],
	[ 'fake-length', 'ModelLength', 0, 'limit of tokens' ],
	[ 'fake-toolcall', 'ModelUnreadable', 1, 'tool' ],
	[ 'fake-tool-stop', 'ModelUnreadable', 1, 'tool' ],
	[ 'fake-tool-text', 'ModelUnreadable', 1, 'tool' ],
	[ 'fake-finish-abort', 'ModelUnavailable', 1, 'abort' ],
	[ 'fake-reset', 'ModelUnavailable', 1, '' ],
	[ 'fake-close', 'ModelUnavailable', 1, 'without a reply' ],
	[ 'fake-garbage', 'ModelUnreadable', 1, 'not HTTP' ],
	[ 'fake-long-header', 'ModelUnreadable', 0, '' ],
	[ 'fake-stream-error', 'ModelUnavailable', 1, 'overloaded', 1 ],
	[ 'fake-stream-error-first', 'ModelUnavailable', 1, 'overloaded', 1 ],
	[ 'fake-stream-no-finish', 'ModelUnreadable', 1, 'end', 1 ],
	[ 'fake-stream-bad-json', 'ModelUnreadable', 1, 'JSON', 1 ],
	[ 'fake-stream-long-line', 'ModelUnreadable', 0, '', 1 ],
	[ 'fake-stream-toolcall', 'ModelUnreadable', 1, 'tool', 1 ],
	[ 'fake-stream-nothing', 'ModelRejected', 0, 'HTTP 404', 1 ]);

# Behaviour, the requests that it takes, the attempts used up, and between which
# bounds (ms) the second attempt is put off after the first.
my @recoveries = (
	[ 'fake-429-seconds-then-ok', 2, 1, 300, 300 ],
	[ 'fake-429-whole-then-ok', 2, 1, 1000, 1000 ],
	[ 'fake-429-date-then-ok', 2, 1, 1000, 2000 ],
	[ 'fake-429-past-then-ok', 2, 1, 1000, 1000 ],
	[ 'fake-429-ms-then-ok', 2, 1, 200, 200 ],
	[ 'fake-429-nonsense-then-ok', 2, 1, 1000, 1000 ],
	[ 'fake-429-none-then-ok', 2, 1, 1000, 1000 ],
	[ 'fake-429-ms-then-ok-4', 5, 1, 200, 200 ],
	[ 'fake-500-then-ok', 2, 2, 375, 500 ],
	[ 'fake-503-then-ok-2', 3, 3, 375, 500 ]);

# Behaviour, options, part of the error.
my @timeouts = (
	[ 'fake-hang-before-headers', '"first_byte_timeout": "300 ms"',
		'first_byte_timeout' ],
	[ 'fake-hang-after-headers',
		'"first_byte_timeout": "200 ms", "idle_timeout": "300 ms"',
		'idle_timeout' ],
	[ 'fake-hang-mid-body', '"idle_timeout": 0.3', 'idle_timeout' ],
	[ 'fake-tokens-100', '"total_timeout": "300 ms"', 'total_timeout' ],
	[ 'fake-slow-60000', '"total_timeout": "300 ms"', 'total_timeout' ]);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# SQL that makes a model and an agent, and submits to it.
sub task
{
	my ($name, $behaviour, %params) = @_;
	my $secret = defined $params{secret} ? "'$params{secret}'" : 'NULL';
	return sprintf
	  "SELECT prometheus_set_model('%s', 'openai', '%s', '%s', %s, options => '{%s}');\n"
	  . "SELECT prometheus_set_agent('%s', '%s');\n"
	  . "SELECT prometheus_submit('%s', '%s', max_attempts => %d);\n", $name,
	  $params{url} // $llm->url('/v1'), $behaviour, $secret,
	  $params{options} // '', $name, $name, $params{request} // "ask $name",
	  $name, $params{max_attempts} // 1;
}

# Run them, and return what each agent's task has become.
my %task;

sub run_tasks
{
	my ($what, @tasks) = @_;
	sql(join('', @tasks));
	$node->wait_for($what,
		q{SELECT coalesce(string_agg(agent, ', '), '') FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')},
		'');
	my $rows = sql(
		q{SELECT agent, status, attempts, coalesce(error_type, ''), (SELECT count(*) FROM prometheus._call c WHERE c.task_id = t.task_id), replace(coalesce(error, ''), '|', '/') FROM prometheus.task t}
	);
	foreach (split /\n/, $rows)
	{
		my ($agent, @rest) = split /\|/, $_, 6;
		@{ $task{$agent} }{qw(status attempts error_type calls error)} = @rest;
	}
	return;
}

# The requests that a server has got with a message.
sub seen
{
	my ($message, $server) = @_;
	return scalar grep { $_->{body}{messages}[-1]{content} eq $message }
	  @{ $server->requests };
}

sub write_secret
{
	my ($name, $mode, $text) = @_;
	open(my $fh, '>', "$secrets/$name") or die "$name: $!";
	print $fh $text;
	close($fh);
	chmod($mode, "$secrets/$name") or die "$name: $!";
	return;
}

$node->init(conf => "prometheus.secrets_dir = '$secrets'\n");
$node->start;
$node->create_extension;

# Replies.  First those that break a connection: none is warm yet.
my (@breaking, @tasks, @names);
foreach my $case (@failures)
{
	my ($behaviour, $type, $again, $part, $only) = @$case;
	foreach my $stream (defined $only ? $only : (0, 1))
	{
		my $name = $behaviour . ($stream ? ' streamed' : '');
		push @names, [ $name, $type, $again, $part ];
		push @{ $behaviour =~ /^fake-(close|reset)$/ ? \@breaking : \@tasks },
		  task($name, $behaviour, max_attempts => 2,
			options => '"max_reply": "1 MB"' . ($stream ? '' : ', "stream": false'));
	}
}
run_tasks('every connection has broken', @breaking);
run_tasks('every failure has come to its end', @tasks);
my %requests;
$requests{ $_->{body}{messages}[-1]{content} }++ foreach @{ $llm->requests };
foreach my $case (@names)
{
	my ($name, $type, $again, $part) = @$case;
	my $task = $task{$name};
	is( join(' ', @$task{qw(status error_type attempts calls)},
			$requests{"ask $name"}),
		join(' ', 'failed', $type, (1 + $again) x 3),
		"$name: status, kind, attempts, calls, requests");
	ok(index($task->{error}, $part) >= 0, "$name: its error")
	  or diag($task->{error});
}
is($llm->stats->{elsewhere}, 0, 'no redirect is followed');

# Waiting and trying again.
run_tasks('every model has recovered',
	map { task($_->[0], $_->[0],
		max_attempts => $_->[0] =~ /429/ ? 1 : 3) } @recoveries);
foreach my $case (@recoveries)
{
	my ($name, $calls, $attempts, $min, $max) = @$case;
	is( join(' ', @{ $task{$name} }{qw(status attempts calls)}),
		"completed $attempts $calls",
		"$name: status, attempts, calls");
	my $wait = sql(
		"SELECT extract(epoch FROM a.next_run_at - a.ended_at) * 1000 FROM prometheus.attempt a JOIN prometheus.task t USING (task_id) WHERE t.agent = '$name' AND attempt = 1"
	);
	ok($wait >= $min && $wait <= $max, "$name: put off by $wait ms");
}
is( sql(q{SELECT count(*) FROM prometheus.attempt a JOIN prometheus.attempt b ON b.task_id = a.task_id AND b.attempt = a.attempt + 1 WHERE b.started_at < a.next_run_at}
	),
	0, 'no attempt before its time');
is( sql(q{SELECT string_agg(type, ' ' ORDER BY created_at, event_id) FROM prometheus.event JOIN prometheus.task t USING (task_id) WHERE t.agent = 'fake-500-then-ok'}
	),
	'task.received step.executed task.retried step.executed task.completed',
	'events of a task that was tried again');

# A request is sent once for each call, also when a connection that was kept
# turns out to be closed; and that uses up no attempt.
my $keeping = FakeLLM->new;
my @kept = (url => $keeping->url('/v1'), request => 'ask kept');
run_tasks('connections are kept',
	map { task("keep $_", 'fake-slow-1500', @kept) } 1 .. 5);
is($keeping->stats->{open}, 6, 'five of them, and the one that asks');
run_tasks(
	'tasks have got over their end',
	map { task("kept $_", 'fake-stale', @kept, request => "ask kept $_") }
	  1 .. 5);
my %sent;
$sent{ $_->{body}{messages}[-1]{content} }++ foreach @{ $keeping->requests };
foreach my $name (map { "kept $_" } 1 .. 5)
{
	my $task = $task{$name};
	is("@$task{qw(status attempts)}", 'completed 1', "$name: status, attempts");
	is($sent{"ask $name"}, $task->{calls}, "$name: one request a call");
}
is( sql(q{SELECT string_agg(DISTINCT format('%s %s', outcome, c.status), ', ') FROM prometheus.attempt a JOIN prometheus.task t USING (task_id) JOIN prometheus.call c USING (task_id, attempt) WHERE t.agent ~ '^kept '}
	),
	'completed done, retry ambiguous',
	'kept connections: what was sent in vain is ambiguous');
run_tasks('a connection was closed', task('idle', 'fake-close-after', @kept));
run_tasks('another one is made', task('after idle', 'fake-echo', @kept));
is("@{ $task{$_} }{qw(status attempts calls)}",
	'completed 1 1', "$_: closed while idle, nothing is tried again")
  foreach 'idle', 'after idle';

# What makes the peer close is not sent in vain for ever: after the first time
# on a new connection, though others have opened warm ones meanwhile, long
# after what is remembered of the first.  What was made within two seconds of a
# closed connection is not used again.
$node->wait_for('the last closed connection was long ago',
	q{SELECT max(ended_at) < clock_timestamp() - interval '3 s' FROM prometheus.attempt},
	't');
run_tasks('connections are kept anew',
	map { task("keep $_", 'fake-slow-300', @kept) } 1 .. 5);
my $count = $keeping->stats->{requests};
sql(task('poison', 'fake-poison-1000', @kept, request => 'POISON',
		max_attempts => 2));
$keeping->wait_requests($count + 1);
sql(q{SELECT prometheus_pause('agent:poison')});
my $poison = sql(q{SELECT task_id FROM prometheus.task WHERE agent = 'poison'});
$node->wait_for('the first attempt was long ago',
	"SELECT ended_at < clock_timestamp() - interval '3 s' FROM prometheus.attempt WHERE task_id = $poison AND attempt = 1",
	't');
my @more = map { "keep more $_" } 1 .. 5;
sql(join('', map { task($_, 'fake-slow-300', @kept) } @more));
$node->wait_for('others have opened connections',
	q{SELECT count(*) FROM prometheus.task WHERE agent ~ '^keep more' AND status = 'completed'},
	scalar @more);
sql(q{SELECT prometheus_resume('agent:poison')});
run_tasks('the poison has failed');
is("@{ $task{poison} }{qw(status error_type attempts calls)}",
	'failed ModelUnavailable 2 3',
	'poison: status, kind, attempts, calls');
is(seen('POISON', $keeping), 3, 'poison: one request a call');
is( sql("SELECT string_agg(CASE WHEN connect_ms = 0 THEN 'warm' ELSE 'new' END, ' ' ORDER BY attempt) FROM prometheus._step WHERE task_id = $poison"
	),
	'warm new new',
	'poison: all but the first on new connections');
$keeping->stop;

# Time-outs; and peers that cannot be reached.
my $hang =
  JSON::PP::decode_json($llm->{http}->post($llm->url('/hang'))->{content});
my $tls_dir = PostgreSQL::Test::Utils::tempdir_short;
PostgreSQL::Test::Utils::system_or_bail(
	'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
	'-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1',
	'-keyout', "$tls_dir/key", '-out', "$tls_dir/cert");
my $tls = FakeLLM->new('--tls', "$tls_dir/cert", "$tls_dir/key");
my $closed = PostgreSQL::Test::Cluster::get_free_port();
write_secret('good', 0600, 'sk-key-that-must-not-leak-4711');
run_tasks(
	'every silence has ended',
	(
		map { task("time $_->[0] $_->[2]", $_->[0], options => $_->[1],
			request => 'a b c d e f g h i j k l m n o p') } @timeouts),
	task('time connect', 'fake-echo',
		url => "http://127.0.0.1:$hang->{full}/v1",
		options => '"connect_timeout": "300 ms"'),
	task('time accept', 'fake-echo',
		url => "http://127.0.0.1:$hang->{port}/v1",
		options => '"first_byte_timeout": "300 ms"'),
	task('refused', 'fake-echo', url => "http://127.0.0.1:$closed/v1"),
	task('unresolvable', 'fake-echo',
		url => 'https://no-such-host.invalid/v1',
		options => '"connect_timeout": "40 s"'),
	task('tls', 'fake-echo', url => 'https://127.0.0.1:' . $tls->port . '/v1',
		secret => 'good'),
	task('plain where tls is', 'fake-echo',
		url => 'http://127.0.0.1:' . $tls->port . '/v1'),
	task('time tls', 'fake-echo',
		url => 'https://127.0.0.1:' . $llm->port . '/v1',
		secret => 'good', options => '"connect_timeout": "300 ms"'));
foreach my $case (@timeouts, [ 'connect', '', 'connect_timeout' ],
	[ 'accept', '', 'first_byte_timeout' ], [ 'tls', '', 'connect_timeout' ])
{
	my ($behaviour, undef, $part) = @$case;
	my $task = $task{"time $behaviour $part"} // $task{"time $behaviour"};
	is("@$task{qw(status error_type)}", 'failed ModelTimeout',
		"$behaviour: $part");
	ok(index($task->{error}, $part) >= 0, "$behaviour: which it was")
	  or diag($task->{error});
}
foreach my $case (
	[ 'refused', 'could not connect' ],
	[ 'unresolvable', 'could not resolve' ],
	[ 'tls', 'could not set up TLS' ])
{
	my ($name, $part) = @$case;
	is("@{ $task{$name} }{qw(status error_type)}", 'failed ModelUnavailable',
		"$name: status, kind");
	ok(index($task{$name}{error}, $part) >= 0, "$name: its error")
	  or diag($task{$name}{error});
}
is($task{'plain where tls is'}{status}, 'failed', 'plain where tls is: failed');
is( sql(q{SELECT count(*) FROM prometheus.call c JOIN prometheus.task t USING (task_id) WHERE t.agent IN ('refused', 'unresolvable', 'tls', 'time connect') AND c.status <> 'failed'}
	),
	0, 'what was never sent is not ambiguous');
is( sql(q{SELECT count(*) FROM prometheus.call c JOIN prometheus.task t USING (task_id) WHERE t.agent ~ '^time fake-' AND c.status <> 'ambiguous'}
	),
	0, 'what was sent and never answered is');

# Keys that cannot be used: nothing is sent.
write_secret('readable', 0640, 'sk-key-that-must-not-leak-4711');
write_secret('world', 0604, 'sk-key-that-must-not-leak-4711');
write_secret('empty', 0600, "\n");
write_secret('twolines', 0600, "sk-key-that-must\nX-Evil: not-leak-4711");
symlink("$secrets/good", "$secrets/link") or die "symlink: $!";
mkfifo("$secrets/fifo", 0600) or die "fifo: $!";
mkdir("$secrets/directory", 0700) or die "directory: $!";
my @bad = qw(missing readable world empty twolines link fifo directory
  env:PROM_TEST_NOT_SET);
my $before = $llm->stats->{requests};
run_tasks('every wrong key is refused',
	map { task("secret $_", 'fake-echo', secret => $_, max_attempts => 3) }
	  @bad);
is( "@{ $task{\"secret $_\"} }{qw(status error_type attempts)}",
	'failed ConfigurationError 1',
	"secret $_: refused")
  foreach @bad;
is($llm->stats->{requests}, $before, 'no request without its key');

# What an error may not say.
my $prompt = 'The patient Erika Mustermann, born 12.08.1964, has a heart condition.';
run_tasks(
	'every leak has been tried',
	task('quote key', 'fake-quote-key', secret => 'good'),
	task('wrong key', 'fake-auth', secret => 'good'),
	task('forward key', 'fake-redirect', secret => 'good'),
	task('quote prompt', 'fake-quote-prompt', request => $prompt));
is($task{'quote key'}{error_type}, 'ModelRejected', 'a quoted key');
is($task{'wrong key'}{error_type}, 'ConfigurationError', 'a wrong key');
is($llm->stats->{elsewhere}, 0, 'a key is not forwarded');
unlike($task{$_}{error}, qr/sk-key|leak/, "$_: not in the error")
  foreach 'quote key', 'wrong key', 'forward key';
unlike($task{'quote prompt'}{error}, qr/Erika|1964|heart/,
	'the prompt is not in the error');
like($task{'quote prompt'}{error}, qr/HTTP 400/, 'but the rest is');

# An error is never an answer.
is( sql(q{SELECT count(*) FROM prometheus.task WHERE status = 'failed' AND result IS NOT NULL}
	),
	0, 'a failed task has no result');
is( sql(q{SELECT count(*) FROM prometheus._step WHERE (status = 'ok') <> (answer IS NOT NULL) OR (status = 'ok') = (error IS NOT NULL)}
	),
	0, 'a failed step has no answer');
sql(<<'EOSQL');
DO $$
DECLARE
	failed record;
	answer text;
BEGIN
	FOR failed IN SELECT task_id, error FROM prometheus.task WHERE status = 'failed'
	LOOP
		BEGIN
			answer := prometheus_result(failed.task_id);
			RAISE EXCEPTION 'task % has a result', failed.task_id;
		EXCEPTION WHEN SQLSTATE 'PM001' THEN
			ASSERT SQLERRM = failed.error;
		END;
	END LOOP;
END $$;
EOSQL
pass('prometheus_result() raises the error of each failed task');

$node->check_invariants('invariants', all_ended => 1);
my ($dump) = run_command(
	[ 'pg_dump', '-p', $node->port, '-h', $node->host, 'postgres' ]);
unlike($dump, qr/must-not-leak/, 'no key in any row');
my $log = slurp_file($node->logfile);
unlike($log, qr/must-not-leak/, 'no key in the log');
unlike($log, qr/Erika/, 'no prompt in the log');
is($node->log_count(qr/ (WARNING|ERROR|FATAL|PANIC): /), 0, 'no error in the log');
$node->stop;
$llm->stop;
$tls->stop;
done_testing();
