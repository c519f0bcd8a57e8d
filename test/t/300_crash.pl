# Processes that end in the middle of everything: by signal 9, by the
# administrator, with the server.  Whatever it was, no task is lost, none ends
# twice, and what was cut short says so.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;
my $llm = FakeLLM->new;
my @everyone = qw(launcher scheduler caller publisher);

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Sets of tasks that keep everyone busy while processes end; all of them are in
# one transaction, so they are there or not.
sub submit_load
{
	my ($name) = @_;
	my $ids = sql(<<"EOSQL");
SELECT string_agg(id::text, ',') FROM (
	SELECT prometheus_submit('$name echo ' || n) FROM generate_series(1, 50) n
	UNION ALL
	SELECT prometheus_submit('$name slow ' || n, 'fake-slow-300') FROM generate_series(1, 150) n
	UNION ALL
	SELECT prometheus_submit('$name again ' || n, 'fake-500-then-ok', max_attempts => 9) FROM generate_series(1, 50) n
	UNION ALL
	SELECT prometheus_submit('$name wait ' || n, 'fake-429-ms-then-ok-2') FROM generate_series(1, 10) n
	UNION ALL
	SELECT prometheus_submit('$name later ' || n, 'fake-echo', run_at => clock_timestamp() + n * interval '20 ms') FROM generate_series(1, 50) n
) x(id)
EOSQL
	return split /,/, $ids;
}

# The same, and return when many requests are in flight: nobody answers until
# answers_again().
sub load_in_flight
{
	my ($name) = @_;
	kill('STOP', $llm->pid);
	my @tasks = submit_load($name);
	$node->wait_for("$name: requests are in flight",
		q{SELECT in_flight > 50 FROM prometheus.worker WHERE role = 'caller'});
	return @tasks;
}

sub answers_again
{
	kill('CONT', $llm->pid);
	return;
}

# Everything has come to its one end.
sub check
{
	my ($what, @tasks) = @_;
	$node->wait_for("$what: all have ended",
		q{SELECT count(*) FROM prometheus.task WHERE status NOT IN ('completed', 'cancelled')},
		'0');
	$node->check_invariants("$what: invariants", tasks => \@tasks,
		all_ended => 1);
	is( sql(q{SELECT count(*) FROM prometheus._attempt a WHERE NOT EXISTS (SELECT FROM prometheus._outcome o WHERE o.task_id = a.task_id AND o.attempt = a.attempt)}
		),
		0, "$what: no attempt is open");
	is( sql(q{SELECT string_agg(DISTINCT outcome, ' ' ORDER BY outcome) FROM prometheus._outcome WHERE outcome NOT IN ('lost', 'retry', 'cancelled')}
		),
		'completed', "$what: every task completed");
	is( sql(q{SELECT count(*) FROM prometheus._outcome o LEFT JOIN prometheus._step s USING (task_id, attempt) WHERE (o.outcome IN ('completed', 'retry')) <> (s.step IS NOT NULL)}
		),
		0, "$what: an attempt has a step unless it was lost");
	is( sql(q{SELECT count(*) FROM prometheus.call WHERE status = 'open'}),
		0, "$what: no call is open");
	is( sql(q{SELECT count(*) FROM prometheus.call c JOIN prometheus.attempt a USING (task_id, attempt) WHERE (a.outcome IN ('lost', 'cancelled')) <> (c.status = 'ambiguous')}
		),
		0, "$what: a call that was cut short is ambiguous");
	is( sql(q{SELECT count(*) FROM prometheus.task t WHERE status = 'completed' AND result <> request}
		),
		0, "$what: each has its own answer");
	is( sql(<<'EOSQL'), 0, "$what: the events of every task are complete");
SELECT count(*) FROM prometheus.task t
  JOIN (SELECT task_id,
               count(*) FILTER (WHERE type = 'task.received') AS received,
               count(*) FILTER (WHERE type = 'step.executed') AS steps,
               count(*) FILTER (WHERE type = 'task.retried') AS retried,
               count(*) FILTER (WHERE type = 'task.completed') AS completed,
               count(DISTINCT event_id) = count(*) AS distinct_ids
          FROM prometheus.event GROUP BY task_id) e USING (task_id)
 WHERE t.status = 'completed'
   AND (received <> 1 OR completed <> 1 OR steps <> 1 + retried OR NOT distinct_ids)
EOSQL
	is( sql('SELECT count(*) FROM prometheus.task WHERE attempts <> 1 + (SELECT count(*) FROM prometheus.step s WHERE s.task_id = task.task_id AND s.name = $$fake-500-then-ok$$ AND s.status = $$error$$) AND status = $$completed$$'
		),
		0, "$what: what was lost used up no attempt");
	is(sql("CALL prometheus_ask('$what')"), $what, "$what: a new task runs");
	$node->wait_for("$what: the queue is empty",
		'SELECT count(*) FROM prometheus.queue', '0');
	return;
}

# The pid of the server.
sub postmaster
{
	my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	return $pid;
}

# Every process of ours is there, and none of those.
sub wait_for_workers
{
	my ($what, @gone) = @_;
	my $gone = join(',', 0, @gone);
	$node->wait_for("$what: everyone is back",
		qq{SELECT count(*) FROM prometheus.worker w JOIN pg_stat_activity a USING (pid) WHERE pid NOT IN ($gone) AND a.backend_type = 'prometheus ' || w.role},
		'4');
	return;
}

$node->init(
	restart_after_crash => 1,
	conf => "max_connections = 30\nprometheus.max_in_flight = 200\n");
$node->start;
$node->create_extension;
$node->fake_agent($llm, $_)
  foreach qw(fake-echo fake-slow-300 fake-429-ms-then-ok-2
  fake-hang-before-headers);
# Each of its tasks fails once: that must not close its gate for a minute.
$node->fake_agent($llm, 'fake-500-then-ok', options => '{"breaker_failures": 1000}');

# Signal 9: the server resets itself.
foreach my $role (@everyone)
{
	my @tasks = load_in_flight("kill $role");
	my $postmaster = postmaster();
	my $log = $node->log_end;
	my $pid = $node->signal_worker('KILL', $role);
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$log);
	answers_again();
	wait_for_workers("kill $role", $pid);
	is(postmaster(), $postmaster, "kill $role: the same postmaster");
	check("kill $role", @tasks);
}
cmp_ok(sql(q{SELECT count(*) FROM prometheus._outcome WHERE outcome = 'lost'}),
	'>', 0, 'there were attempts that were lost');

# Ended by the administrator: nobody else notices.
my @tasks = submit_load('terminate');
my $session = $node->background_psql('postgres');
my $log = $node->log_end;
foreach my $round (1, 2)
{
	foreach my $role (@everyone)
	{
		my $pid = $node->worker_pid($role);
		is(sql("SELECT pg_terminate_backend($pid, 10000)"),
			't', "terminate $role, round $round: it ends");
		$node->worker_pid($role, other_than => $pid);
	}
}
wait_for_workers('terminate');
is($session->query_safe('SELECT 1'), '1', 'terminate: other sessions live on');
$session->quit;
check('terminate', @tasks);
is($node->log_count(qr/reinitializing|PANIC/, $log), 0,
	'terminate: the server went on');

# One of them alone: the others carry on and take over what it had.
foreach my $role (qw(scheduler caller publisher))
{
	@tasks = load_in_flight("only $role");
	my @before = map { $node->worker_pid($_) } grep { $_ ne $role } @everyone;
	my $pid = $node->worker_pid($role);
	sql("SELECT pg_terminate_backend($pid)");
	$node->worker_pid($role, other_than => $pid);
	answers_again();
	check("only $role", @tasks);
	is_deeply(
		[ map { $node->worker_pid($_) } grep { $_ ne $role } @everyone ],
		\@before, "only $role: nobody else ended");
}

# Without a launcher the others go on, and it finds them again.
my $launcher = $node->worker_pid('launcher');
my @others = map { $node->worker_pid($_) } qw(scheduler caller publisher);
sql("SELECT pg_terminate_backend($launcher)");
is(sql(q{CALL prometheus_ask('alone')}), 'alone', 'no launcher: tasks run');
$node->worker_pid('launcher', other_than => $launcher);
is_deeply([ map { $node->worker_pid($_) } qw(scheduler caller publisher) ],
	\@others, 'a new launcher keeps the workers that it finds');
sql("SELECT pg_terminate_backend($others[1])");
is(sql(q{CALL prometheus_ask('adopted')}),
	'adopted', 'a new launcher replaces a worker that it did not start');

# A cancel that nobody heard of.
my $hanging = $node->submit("'hang', 'fake-hang-before-headers'");
$node->wait_task($hanging, 'running');
my $stopped = $node->signal_worker('STOP', 'scheduler');
sql("SELECT prometheus_cancel($hanging)");
$log = $node->log_end;
$node->signal_worker('KILL', 'caller');
$node->wait_for_log(qr/terminating any other active server processes/, $log);
kill('CONT', $stopped);
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
$node->wait_task($hanging, 'cancelled');
is( sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $hanging"
	),
	'cancelled', 'a cancel that nobody heard of takes effect after a crash');

# The whole server.
@tasks = load_in_flight('immediate');
$node->stop('immediate');
answers_again();
$node->start;
check('immediate', @tasks);

# What was begun, and has been forbidden since.
my $forbidden = $node->submit("'forbidden', 'fake-hang-before-headers'");
$node->wait_task($forbidden, 'running');
sql(q{SELECT prometheus_set_policy('stop', 'task', 'deny', match => '{"text": "^forbidden$"}')});
$log = $node->log_end;
$node->signal_worker('KILL', 'caller');
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
$node->wait_task($forbidden, 'vetoed');
is( sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $forbidden"),
	'lost vetoed', 'one that is forbidden meanwhile is lost, and ends');

is($node->log_count(qr/ (ERROR|PANIC): /), 0, 'no error in the log');
$node->stop;
$llm->stop;
done_testing();
