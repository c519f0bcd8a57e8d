# What the workers of one database do: submits and transactions, order, time,
# cancel, waiting, hints, and rest when there is nothing to do.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub scans
{
	my ($count) = $node->health('scans of the task table') =~ /^ok\|(\d+)\|/;
	return $count;
}

# One place for tasks and a short ring, so that order and overflow can be seen.
$node->init(conf => "prometheus.max_in_flight = 1\nprometheus.ring_size = 64\n"
	  . "prometheus.rescan_interval = '1h'\nmax_prepared_transactions = 5\n");
$node->start;
$node->create_extension;
$node->fake_agent($llm, $_) foreach qw(fake-echo fake-hang-before-headers fake-500);
is(sql(q{CALL prometheus_ask('hello')}), 'hello', 'a first ask answers');
is(scans(), 1, 'the table was read once, at the start');

# A task is as its transaction is.
sql(<<'EOSQL');
BEGIN; SELECT prometheus_submit('rolled back'); ROLLBACK;
BEGIN;
SELECT prometheus_submit('kept: before');
SAVEPOINT a;
SELECT prometheus_submit('undone: a');
SAVEPOINT b;
SELECT prometheus_submit('undone: b, released');
RELEASE b;
ROLLBACK TO a;
SELECT prometheus_submit('kept: after a');
SAVEPOINT c;
SELECT prometheus_submit('kept: c');
SAVEPOINT d;
SELECT prometheus_submit('kept: d');
RELEASE d;
SAVEPOINT e;
SELECT prometheus_submit('undone: e');
ROLLBACK TO e;
RELEASE c;
DO $$ BEGIN
	PERFORM prometheus_submit('undone: block');
	RAISE EXCEPTION 'no';
EXCEPTION WHEN raise_exception THEN
	PERFORM prometheus_submit('kept: handler');
END $$;
COMMIT;
EOSQL
my $sent = sql(q{SELECT prometheus_submit('last of them')});
$node->wait_task($sent, 'completed');
is( sql(q{SELECT string_agg(request, ', ' ORDER BY task_id) FROM prometheus.task}),
	'hello, kept: before, kept: after a, kept: c, kept: d, kept: handler, last of them',
	'commit, rollback, savepoints');
$node->wait_for('all that was kept has run',
	q{SELECT count(*) FROM prometheus.task WHERE status = 'completed'}, '7');

# A task is not seen before the commit, and cannot be awaited there.
is( $node->error_of(
		q{BEGIN; SELECT prometheus_wait(prometheus_submit('mine'))})->{state},
	'55000',
	'waiting for a task of the own transaction is an error');

# An order that can be seen: nothing else runs while one request hangs.
my $blocker = $node->submit("'block', 'fake-hang-before-headers'");
$llm->wait_requests(1);
my @low = map { $node->submit("'low $_', 'fake-echo', priority => -100") } 1 .. 2;
my @high =
  map { $node->submit("'high $_', 'fake-echo', priority => 1000") } 1 .. 2;
my @none = map { $node->submit("'none $_', 'fake-echo'") } 1 .. 2;
$node->wait_for('all are in the queue',
	'SELECT count(*) FROM prometheus.queue', '7');
is( sql(q{SELECT string_agg(format('%s %s %s', status, agent, priority), ', ' ORDER BY task_id) FROM prometheus.queue}),
	join(', ',
		'running fake-hang-before-headers 0',
		('queued fake-echo -100') x 2,
		('queued fake-echo 1000') x 2,
		('queued fake-echo 0') x 2),
	'the queue shows who runs and who waits');
is( sql(qq{SELECT why FROM prometheus.queue WHERE task_id = $low[0]}),
	'waits for a free place (prometheus.max_in_flight)',
	'and why');
is( sql(q{SELECT string_agg(format('%s %s', role, in_flight), ', ' ORDER BY role) FROM prometheus.worker}),
	'caller 1, launcher 0, publisher 0, scheduler 1',
	'the workers');
is( sql(q{SELECT count(*) FROM prometheus.worker w JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'prometheus ' || w.role}),
	4, 'with their process ids');
$node->wait_for('no transaction is open while a request is on the network',
	q{SELECT count(backend_xmin) + count(backend_xid) + count(xact_start) FROM pg_stat_activity WHERE backend_type ~ '^prometheus'},
	0);
is($llm->stats->{dropped}, 0, 'it still is');
like($node->health('tasks in flight'), qr/^ok\|1 of 1\|/, 'health agrees');

# Cancel: in the queue, on the network, twice, at the end.
is(sql("SELECT prometheus_cancel($low[1], 'too many')"), 't', 'cancel: queued');
is(sql("SELECT prometheus_cancel($blocker, 'enough')"),
	't', 'cancel: on the network');
$node->wait_task($blocker, 'cancelled');
$node->wait_task($_, 'completed') foreach $low[0], @high, @none;
$node->wait_task($low[1], 'cancelled');
is_deeply(
	[ map { $_->{body}{messages}[-1]{content} } @{ $llm->requests } ],
	[ 'block', 'high 1', 'high 2', 'none 1', 'none 2', 'low 1' ],
	'the higher priority first, then the older; the cancelled one was not sent'
);
is($llm->stats->{dropped}, 1, 'cancel: the connection was dropped');
is( sql("SELECT status FROM prometheus.call WHERE task_id = $blocker"),
	'ambiguous',
	'cancel: nobody knows what became of the call');
is( sql("SELECT status || ' ' || error FROM prometheus.task WHERE task_id = $blocker"),
	'cancelled enough',
	'cancel: the reason is kept');
is( sql("SELECT data->>'reason' FROM prometheus.event WHERE type = 'task.cancelled' AND task_id = $low[1]"),
	'too many',
	'cancel: the event has it too');
is(sql("SELECT prometheus_cancel($blocker)"), 'f', 'cancel: of an ended task');
is(sql("SELECT prometheus_cancel($high[0])"),
	'f', 'cancel: of a completed task');
is($node->error_of("SELECT prometheus_result($blocker)")->{state},
	'PM003', 'a cancelled task has no result');
is($node->error_of('SELECT prometheus_cancel(999999)')->{state},
	'42704', 'cancel: of no task');
is($node->error_of('SELECT prometheus_wait(999999)')->{state},
	'42704', 'wait: for no task');

my $twice = $node->submit("'twice', run_at => now() + interval '1 hour'");
is(sql("SELECT prometheus_cancel($twice, 'first'), prometheus_cancel($twice, 'second')"),
	't|t', 'cancel: twice');
$node->wait_task($twice, 'cancelled');
is( sql("SELECT count(*), min(error) FROM prometheus.attempt WHERE task_id = $twice"),
	'1|first',
	'cancel: twice, but one end, with the first reason');
my $undone = $node->submit("'undone', run_at => now() + interval '1 hour'");
sql("BEGIN; SELECT prometheus_cancel($undone); ROLLBACK");
sql(q{CALL prometheus_ask('after it')});
is(sql("SELECT status FROM prometheus.task WHERE task_id = $undone"),
	'queued', 'cancel: rolled back');
is( sql("SELECT status, why FROM prometheus.queue WHERE task_id = $undone"),
	'queued|is not due yet',
	'the queue shows what is not due');

# Time: later, too late in the queue, too late on the network.
my $later = $node->submit("'later', run_at => clock_timestamp() + interval '1.5 s'");
my $sooner = $node->submit("'sooner', run_at => clock_timestamp() + interval '0.5 s'");
my $late = $node->submit(
	"'late', run_at => now() + interval '0.2 s', timeout => interval '1 us'");
my $slow = $node->submit(
	"'slow', 'fake-hang-before-headers', timeout => interval '0.5 s'");
is(sql("SELECT prometheus_wait($_)"), 'completed', 'run_at: completed')
  foreach $later, $sooner;
is(sql("SELECT prometheus_wait($_)"), 'failed', 'deadline: failed')
  foreach $late, $slow;
is( sql(
		"SELECT bool_and(a.started_at >= t.run_at) FROM prometheus._task t JOIN prometheus.attempt a USING (task_id) WHERE task_id IN ($later, $sooner)"
	),
	't',
	'run_at: not before');
is( sql("SELECT error_type, attempts FROM prometheus.task WHERE task_id = $late"),
	'DeadlineExceeded|0',
	'deadline: passed in the queue');
is( sql("SELECT error_type, attempts FROM prometheus.task WHERE task_id = $slow"),
	'DeadlineExceeded|1',
	'deadline: passed on the network');
is($llm->stats->{dropped}, 2, 'deadline: the connection was dropped');
is($node->error_of("SELECT prometheus_result($slow)")->{state},
	'PM001', 'deadline: no result');
my $between = $node->submit(
	"'between', 'fake-500', max_attempts => 100, timeout => interval '0.6 s'");
$node->wait_task($between, 'failed');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $between"),
	'DeadlineExceeded', 'deadline: passed between two attempts');

# Attempts.
foreach my $max (1, 2)
{
	my $id = $node->submit("'attempts $max', 'fake-500', max_attempts => $max");
	$node->wait_task($id, 'failed');
	is( sql("SELECT attempts, error_type FROM prometheus.task WHERE task_id = $id"),
		"$max|ModelUnavailable",
		"max_attempts $max");
	is( scalar(grep { $_->{body}{messages}[-1]{content} eq "attempts $max" }
			  @{ $llm->requests }),
		$max,
		"max_attempts $max: so many requests");
	is( sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $id"),
		join(' ', ('retry') x ($max - 1), 'failed'),
		"max_attempts $max: outcomes");
}

# Versions are pinned at the first attempt.
$node->fake_agent($llm, 'fake-500-then-ok', name => 'pinned',
	instructions => 'old');
my $pinned = $node->submit("'pinned', 'pinned'");
$node->wait_task($pinned, [ 'retrying', 'running', 'completed' ]);
$node->fake_agent($llm, 'fake-fixed', name => 'pinned', instructions => 'new');
is(sql("SELECT prometheus_wait($pinned)"), 'completed', 'pinned: completed');
is_deeply(
	[
		map { "$_->{body}{model} $_->{body}{messages}[0]{content}" }
		grep { $_->{body}{messages}[-1]{content} eq 'pinned' }
		  @{ $llm->requests }
	],
	[ ('fake-500-then-ok old') x 2 ],
	'pinned: both attempts with the agent and the model of the first');
is( sql("SELECT string_agg(input->'messages'->0->>'content', ' ') FROM prometheus.step WHERE task_id = $pinned"),
	'old old',
	'pinned: the steps say what was sent');
is(sql(q{CALL prometheus_ask('pinned', 'pinned')}),
	'The answer is 42.', 'pinned: a new task has the new ones');

# Waiting.
my $hang = $node->submit("'hang', 'fake-hang-before-headers'");
$node->wait_task($hang, 'running');
is(sql("SELECT prometheus_wait($hang, '10 ms')"),
	'running', 'wait: the status at the time-out');
is(sql("SELECT prometheus_wait($hang, '0')"),
	'running', 'wait: no time is enough to look');
is(sql("SELECT prometheus_result($hang) IS NULL"), 't', 'no result yet');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM prometheus.task');
my $waiting = $node->background_psql('postgres', on_error_stop => 0);
$waiting->query_until(qr/begun/, "\\echo begun\nSELECT prometheus_wait($hang);\n");
$node->wait_for('somebody waits',
	q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT prometheus_wait' AND wait_event_type = 'Extension'},
	'1');
sql("SELECT prometheus_cancel($hang)");
is($session->query_safe("SELECT prometheus_wait($hang)"),
	'cancelled', 'wait: sees the end in REPEATABLE READ');
is($session->query_safe("SELECT status FROM prometheus.task WHERE task_id = $hang"),
	'running', 'wait: the transaction goes on in its snapshot');
$session->quit;
like($waiting->query('SELECT 1'), qr/^cancelled$/m, 'wait: ends with the task');
$waiting->quit;

# Asking.
is(sql(q{CALL prometheus_ask('what?', 'fake-echo')}), 'what?', 'ask: an answer');
my $error = $node->error_of(q{CALL prometheus_ask('x', 'gone')});
is($error->{state}, '42704', 'ask: no such agent');
$node->fake_agent($llm, 'fake-400');
$error = $node->error_of(q{CALL prometheus_ask('x', 'fake-400')});
is($error->{state}, 'PM001', 'ask: raises what failed the task');
like($error->{message}, qr/HTTP 400/, 'ask: with its error');
like($error->{detail}, qr/ModelRejected/, 'ask: and its kind');
is($node->error_of(q{BEGIN; CALL prometheus_ask('x')})->{state},
	'25000', 'ask: not in a transaction');
$error = $node->error_of(
	q{CALL prometheus_ask('slow ask', 'fake-hang-before-headers', '100 ms')});
my ($asked) = ($error->{hint} // '') =~ /(\d+)/;
is($error->{state}, '57014', 'ask: time-out');
is( sql("SELECT request || ' ' || status FROM prometheus.task WHERE task_id = $asked"),
	'slow ask running',
	'ask: the hint has the task, which goes on');
sql("SELECT prometheus_cancel($asked)");
$node->wait_task($asked, 'cancelled');
my $asking = $node->background_psql('postgres', on_error_stop => 0);
$asking->query_until(qr/begun/,
	"\\echo begun\nCALL prometheus_ask('held', 'fake-hang-before-headers');\n");
$node->wait_for('an ask waits',
	q{SELECT count(*) FROM prometheus.task WHERE request = 'held' AND status = 'running'},
	'1');
$node->wait_for('ask: holds no snapshot while it waits',
	q{SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE query ~ '^CALL prometheus_ask' AND wait_event_type = 'Extension'});
sql(q{SELECT prometheus_cancel(task_id) FROM prometheus.task WHERE request = 'held'});
$asking->query('SELECT 1');
like($asking->{stderr}, qr/ERROR/, 'ask: raises when the task is cancelled');
$asking->quit;
is($node->error_of(q{SET statement_timeout = '100ms'; CALL prometheus_ask('bounded', 'fake-hang-before-headers')})->{state},
	'57014', 'ask: obeys statement_timeout');
sql(q{SELECT prometheus_cancel(task_id) FROM prometheus.task WHERE request = 'bounded'});
is(scans(), 1, 'nothing of all this made anyone read the table again');

# A listener gets hints; no content.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN prometheus_events');
$node->wait_task($node->submit("'heard'"), 'completed');
my $heard = '';
my $patience = time + $PostgreSQL::Test::Utils::timeout_default;
$heard .= $listener->query('SELECT 1')
  until $heard =~ /notification/ || time > $patience;
like($heard,
	qr/Asynchronous notification "prometheus_events" received from server/,
	'a hint, without payload');
is($node->worker_pid('publisher'), ($heard =~ /PID (\d+)/)[0],
	'it comes from the publisher');
$listener->quit;

# More than the ring can hold, in one transaction.
my $log = $node->log_end;
sql(q{SELECT count(prometheus_submit('many ' || n)) FROM generate_series(1, 3000) n});
$node->wait_for('all have run',
	q{SELECT count(*) FROM prometheus.task WHERE request ~ '^many' AND status = 'completed'},
	'3000');
cmp_ok(scans(), '>', 1, 'the ring overflowed: the table was read');

# COMMIT PREPARED gives no hint: found by reading the table.
sql(q{BEGIN; SELECT prometheus_submit('prepared'); PREPARE TRANSACTION 'p'});
sql(q{BEGIN; SELECT prometheus_submit('prepared and undone'); PREPARE TRANSACTION 'q'});
$node->append_conf('postgresql.conf', "prometheus.rescan_interval = '200ms'\n");
$node->reload;
sql(q{CALL prometheus_ask('meanwhile')});
sql(q{ROLLBACK PREPARED 'q'});
sql(q{COMMIT PREPARED 'p'});
$node->wait_for('a prepared task runs',
	q{SELECT status FROM prometheus.task WHERE request = 'prepared'},
	'completed');
is(sql(q{SELECT count(*) FROM prometheus.task WHERE request = 'prepared and undone'}),
	0, 'a prepared task that was undone is none');

# At rest: no statement, whatever happens in other databases.  Who watches does
# so from there.
sub watch { return $node->safe_psql('template1', $_[0]); }

$node->append_conf('postgresql.conf',
	"prometheus.rescan_interval = '1h'\nautovacuum = off\n");
$node->reload;
sql("SELECT prometheus_cancel($undone)");
$node->wait_task($undone, 'cancelled');
$node->wait_for('the first checkpoint is written',
	'SELECT count(*) > 0 FROM prometheus._checkpoint');
$node->wait_for('nobody is in the database',
	q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND backend_type !~ '^prometheus' OR backend_type ~ '^prometheus' AND state <> 'idle'},
	'0', dbname => 'template1');
# Statistics of the last transaction may be sent 10 s after it; and an executor
# ends when it had nothing to do for a minute, which is no statement.
$node->wait_for('all have been at rest, and their statistics are sent',
	q{SELECT max(state_change) < clock_timestamp() - interval '11 s' FROM pg_stat_activity WHERE backend_type ~ '^prometheus'},
	't', dbname => 'template1');
my $rest = q{SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'};
my $since = watch('SELECT clock_timestamp()');
my $before = watch($rest);
my $end = watch(q{SELECT now() + interval '1.5 s'});
$node->wait_for('a while has passed, and transactions elsewhere',
	"SELECT txid_current() > 0 AND now() > '$end'",
	't', dbname => 'template1');
is(watch("SELECT string_agg(backend_type, ', ') FROM pg_stat_activity WHERE backend_type ~ '^prometheus' AND state_change > '$since'"),
	'', 'no worker runs a statement while nothing is to do');
is(watch($rest), $before, 'nor does anything else in its database');

$node->check_invariants('invariants', all_ended => 1);
is($node->log_count(qr/ (WARNING|FATAL|PANIC): /), 0, 'nothing to warn of');
$node->stop;
$llm->stop;
done_testing();
