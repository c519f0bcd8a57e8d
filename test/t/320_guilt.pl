# Who crashed the server: a task whose reply kills the caller each time is
# quarantined, one that does so once goes on, and nobody else is blamed.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What a task's attempts came to, in order.
sub outcomes
{
	return sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $_[0]");
}

sub strikes
{
	return sql("SELECT count(*) FROM prometheus._strike WHERE task_id = $_[0]");
}

# Tasks whose replies come piece by piece, so that the server crashes while
# they are in flight; the ids.
sub submit_bystanders
{
	return split /,/, sql(<<'EOSQL');
SELECT string_agg(id::text, ',') FROM (
	SELECT prometheus_submit('echo ' || n, 'fake-echo') FROM generate_series(1, 5) n
	UNION ALL
	SELECT prometheus_submit('a b c d e f g h', 'fake-tokens-100') FROM generate_series(1, 20)
	UNION ALL
	SELECT prometheus_submit('slow ' || n, 'fake-slow-500') FROM generate_series(1, 10) n) x(id)
EOSQL
}

# Set a fault for a task that is not there yet, and return its id: it is the
# next one.  Until the caller has read the setting, others are submitted.
sub announce_culprit
{
	my ($fault) = @_;
	my $id = sql('SELECT last_value + 10000 FROM prometheus._task_id');

	$node->set_fault(sprintf($fault, $id), seen_by_caller => 1);
	sql("SELECT setval('prometheus._task_id', $id, false)");
	return $id;
}

# What a session that submits is told; or, of a server that has crashed before it
# was, what it would have been: the task's end shows that it is there.
sub told
{
	my ($expected, $query) = @_;
	my ($rc, $told) = $node->psql('postgres', $query);

	return $rc == 0 ? $told : $expected;
}

# A task with a fault that is for it alone.
sub submit_culprit
{
	my ($fault) = @_;
	my $id = announce_culprit($fault);

	is(told($id, q{SELECT prometheus_submit('poison', 'fake-echo')}),
		$id, "$fault: the task that it is for");
	return $id;
}

sub check_bystanders
{
	my ($what, @tasks) = @_;
	my $tasks = join(',', @tasks);
	$node->wait_for("$what: the others complete",
		"SELECT count(*) FROM prometheus.task WHERE task_id IN ($tasks) AND status <> 'completed'",
		'0');
	is( sql("SELECT count(*) FROM prometheus._strike WHERE task_id IN ($tasks)"),
		0, "$what: the others have no strike");
	return;
}

$node->init(restart_after_crash => 1);
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
$node->fake_agent($llm, $_) foreach qw(fake-echo fake-tokens-100 fake-slow-500);

# Each time.
my $log = $node->log_end;
my @others = submit_bystanders();
my $id = submit_culprit('reply-half-read:die:0:%d');
my $quarantined = $id;
$node->wait_task($id, 'quarantined');
check_bystanders('each time', @others);
is(outcomes($id), 'lost quarantined', 'each time: two attempts');
is(strikes($id), 2, 'each time: two strikes');
is( sql("SELECT string_agg(attempt::text, ' ' ORDER BY struck_at) FROM prometheus._strike WHERE task_id = $id"
	),
	'1 2',
	'each time: one an attempt');
is($node->log_count(qr/reinitializing/, $log), 2, 'each time: two crashes');
is($node->log_count(qr/WARNING:  task $id crashed the server/, $log),
	2, 'each time: the log names the task');
is( sql("SELECT error_type, error FROM prometheus.task WHERE task_id = $id"),
	'Crashed|the server crashed 2 times while it worked on this task',
	'each time: the error says how often');
is($node->error_of("SELECT prometheus_result($id)")->{state},
	'PM004', 'each time: the result raises');
is( sql("SELECT string_agg(type || coalesce(' ' || (data ->> 'error_type'), ''), ', ' ORDER BY created_at) FROM prometheus.event WHERE task_id = $id"
	),
	'task.received, task.quarantined Crashed',
	'each time: the events');
is( sql("SELECT string_agg(DISTINCT status, ' ') FROM prometheus.call WHERE task_id = $id"
	),
	'ambiguous', 'each time: its calls are ambiguous');
$node->check_invariants('each time: invariants', tasks => [ $id, @others ],
	all_ended => 1);

# Once.
@others = submit_bystanders();
$id = submit_culprit('reply-half-read:die:1:%d');
$node->wait_task($id, 'completed');
check_bystanders('once', @others);
is(outcomes($id), 'lost completed', 'once: the next attempt completes it');
is(strikes($id), 1, 'once: one strike');
ok($node->fault_fired, 'once: the fault was met');

# Retried by hand, a task's strikes count anew.
$node->set_fault("reply-half-read:die:1:$quarantined", seen_by_caller => 1);
is(told('t', "SELECT prometheus_retry($quarantined)"),
	't', 'a quarantined task is retried');
$node->wait_task($quarantined, 'completed');
ok($node->fault_fired, 'and crashes the server once more');
is(strikes($quarantined), 3, 'its old strikes stay');

# By building the request, by recording the reply; and by a lower limit.
sql('ALTER SYSTEM SET prometheus.max_crashes = 1');
$node->reload;
foreach my $point (qw(before-send reply-read before-record record-before-commit))
{
	$id = submit_culprit("$point:die:1:%d");
	$node->wait_task($id, 'quarantined');
	is( sql("SELECT error FROM prometheus.task WHERE task_id = $id"),
		'the server crashed once while it worked on this task',
		"$point: one crash is enough");
}
$id = submit_culprit('begin-before-commit:die:1:%d');
$node->wait_task($id, 'quarantined');
is(outcomes($id), 'quarantined', 'its attempt was not committed yet');
$node->check_invariants('one: invariants', all_ended => 1, retried => [$quarantined]);

# By loading it, which many tasks are together.
$id = announce_culprit('begin-loaded:die:1:%d');
@others = split /,/, told(join(',', $id .. $id + 19), <<'EOSQL');
SELECT string_agg(prometheus_submit('loaded ' || n, 'fake-echo')::text, ',' ORDER BY n)
  FROM generate_series(1, 20) n
EOSQL
is(shift @others, $id, 'loading: the first of twenty is the culprit');
$node->wait_task($id, 'quarantined');
check_bystanders('loading', @others);
is(outcomes($id), 'quarantined', 'loading: it was not begun');
is(strikes($id), 1, 'loading: one strike');

# No fault of the task: the server is stopped, or another process crashes,
# while its reply is read.
$id = submit_culprit('reply-half-read:stop:1:%d');
$node->wait_stopped;
$node->start;
$node->wait_task($id, 'completed');
is(strikes($id), 0, 'an immediate stop is no strike');

# A crash while the strike is written, before and after its commit: it is
# written, and once.
sql('ALTER SYSTEM SET prometheus.max_crashes = 2');
$node->reload;
foreach my $point (qw(strike-before-commit strike-after-commit))
{
	foreach my $action (qw(die error stop))
	{
		$id = submit_culprit("reply-half-read:die:1:%d, $point:$action");
		if ($action eq 'stop')
		{
			$node->wait_stopped;
			$node->start;
		}
		$node->wait_task($id, 'completed');
		is(strikes($id), 1, "$point, $action: one strike");
		ok($node->fault_fired($point), "$point, $action: the fault was met");
	}
}
$node->check_invariants('at last: invariants', all_ended => 1, retried => [$quarantined]);
is($node->log_count(qr/PANIC/), 0, 'no panic in the log');
$node->stop;
$llm->stop;
done_testing();
