# What may not run at the same time: concurrency keys, conversations, and tasks
# that depend on others; also when a process ends in the middle of it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\nprometheus.rescan_interval = '1s'\n",
	restart_after_crash => 1);
$node->start;
$node->create_extension;
$node->fake_agent($llm, $_) foreach 'fake-slow-40', 'fake-400', 'fake-503-then-ok', 'fake-hang-before-headers';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub all_ended
{
	$node->wait_for('all have ended',
		q{SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')}, 0);
	return;
}

# Pairs of attempts that were open at the same time, among tasks of a condition.
sub overlaps
{
	my ($condition) = @_;
	return sql(qq{WITH a AS (SELECT a.* FROM prometheus.attempt a JOIN prometheus._task t USING (task_id) WHERE $condition)
		SELECT count(*) FROM a x JOIN a y ON x.task_id < y.task_id AND x.started_at < y.ended_at AND y.started_at < x.ended_at});
}

# A key: one at a time; others are not held up by it.
sql(q{SELECT count(prometheus_submit('k' || i, 'fake-slow-40', concurrency_key => 'one')) FROM generate_series(1, 15) i;
	SELECT count(prometheus_submit('o' || i, 'fake-slow-40', concurrency_key => 'key ' || i)) FROM generate_series(1, 15) i});
all_ended();
is(sql(q{SELECT string_agg(DISTINCT status, ' ') FROM prometheus.task}), 'completed', 'all completed');
is(overlaps(q{concurrency_key = 'one'}), 0, 'one key: one at a time');
cmp_ok(overlaps(q{concurrency_key <> 'one'}), '>', 0, 'other keys: at the same time');
is(sql(q{SELECT count(*) FROM (SELECT task_id, lag(task_id) OVER (ORDER BY a.started_at) AS before
		FROM prometheus.attempt a JOIN prometheus._task t USING (task_id) WHERE concurrency_key = 'one') o WHERE before > task_id}),
	0, 'in their order');

# Who has a key and who waits for it.
my $holder = $node->submit(q{'hold', 'fake-hang-before-headers', concurrency_key => 'held'});
$node->wait_task($holder, 'running');
my $behind = $node->submit(q{'behind', concurrency_key => 'held'});
$node->wait_for('it waits', "SELECT why FROM prometheus.queue WHERE task_id = $behind",
	"task $holder with the same concurrency_key has not ended");
like(sql("SELECT prometheus_why($behind)"),
	qr/^queued: task $holder with the same concurrency_key has not ended; since \d/, 'prometheus_why says so');
like(sql("SELECT prometheus_why($holder)"), qr/^running: runs; since /, 'and who runs');

# The scheduler ends: the next one knows who holds the key.
my $pid = $node->worker_pid('scheduler');
$node->signal_worker('TERM', 'scheduler');
$node->worker_pid('scheduler', other_than => $pid);
my $third = $node->submit(q{'third', concurrency_key => 'held'});
my $free = $node->submit(q{'free'});
$node->wait_task($free, 'completed');
$node->wait_for('both wait', "SELECT count(*) FROM prometheus.queue WHERE task_id IN ($behind, $third) AND why ~ 'task $holder with the same'", 2);

# The caller ends: its task is first again.
$pid = $node->worker_pid('caller');
$node->signal_worker('TERM', 'caller');
$node->worker_pid('caller', other_than => $pid);
$node->wait_for('it is tried again', "SELECT string_agg(coalesce(outcome, 'open'), ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $holder", 'lost open');
$node->wait_for('the others wait', "SELECT count(*) FROM prometheus.task WHERE task_id IN ($behind, $third) AND status = 'queued'", 2);
sql("SELECT prometheus_cancel($holder)");
$node->wait_task($_, 'completed') foreach $behind, $third;
is(overlaps(q{concurrency_key = 'held'}), 0, 'one at a time through all of it');

# A conversation goes on in its order, also over a task that is tried again.
sql(q{SELECT count(prometheus_submit('turn ' || i, 'fake-503-then-ok', conversation => 'talk')) FROM generate_series(1, 4) i;
	SELECT prometheus_submit('other', 'fake-slow-40', conversation => 'talk')});
all_ended();
is(sql(q{SELECT string_agg(request, ', ' ORDER BY ended_at) FROM prometheus.task t WHERE t.conversation = 'talk' AND t.agent = 'fake-503-then-ok'}),
	'turn 1, turn 2, turn 3, turn 4', 'turns end in their order');
is(sql(q{SELECT count(*) FROM prometheus.task x JOIN prometheus._task a USING (task_id), prometheus.task y JOIN prometheus._task b USING (task_id)
		WHERE a.conversation = 'talk' AND b.conversation = 'talk' AND a.agent = b.agent AND x.task_id < y.task_id AND y.started_at < x.ended_at}),
	0, 'and none begins before the one before it has ended, though each was tried twice');

# Dependencies: after all of them, also of the same transaction.
my @ids = split /\|/, sql(q{
	BEGIN;
	CREATE TEMP TABLE made AS SELECT prometheus_submit('a', 'fake-slow-40') AS a, prometheus_submit('b', run_at => clock_timestamp() + interval '300 ms') AS b;
	ALTER TABLE made ADD c bigint, ADD d bigint;
	UPDATE made SET c = prometheus_submit('c', depends_on => ARRAY[a, b]);
	UPDATE made SET d = prometheus_submit('d', depends_on => ARRAY[c]);
	COMMIT;
	TABLE made});
$node->wait_task($ids[3], 'completed');
is(sql(qq{SELECT bool_and(c.started_at >= p.ended_at) FROM prometheus.task c, prometheus.task p
		WHERE c.task_id = $ids[2] AND p.task_id IN ($ids[0], $ids[1]) OR c.task_id = $ids[3] AND p.task_id = $ids[2]}),
	't', 'each begins after those that it depends on');
my $after = $node->submit("'e', depends_on => ARRAY[$ids[0], $ids[0]]");
$node->wait_task($after, 'completed');
pass('what has ended already holds up nobody');

# What waits says for whom, and survives the end of any process.
my $parent = $node->submit(q{'parent', 'fake-hang-before-headers'});
my $child = $node->submit("'child', depends_on => ARRAY[$parent]");
my $both = $node->submit("'both', depends_on => ARRAY[$parent, $child]");
$node->wait_for('it waits', "SELECT why FROM prometheus.queue WHERE task_id = $child", "depends on task $parent, which has not ended");
$node->wait_for('for several', "SELECT why FROM prometheus.queue WHERE task_id = $both", 'depends on 2 tasks that have not ended');
$pid = $node->worker_pid('scheduler');
$node->signal_worker('KILL', 'scheduler');
$node->wait_for('the server is back and the child waits', "SELECT why FROM prometheus.queue WHERE task_id = $child", "depends on task $parent, which has not ended");
$node->wait_task($parent, 'running');

# A parent that does not end well.
my $anyway = $node->submit(qq{'anyway', depends_on => ARRAY[$parent, $child], metadata => '{"on_failure": "run"}'});
my $grandchild = $node->submit("'grandchild', depends_on => ARRAY[$child]");
$node->wait_for('it is blocked', "SELECT count(*) FROM prometheus.queue WHERE task_id IN ($anyway, $grandchild) AND why ~ '^depends on'", 2);
sql("SELECT prometheus_cancel($parent, 'enough')");
$node->wait_task($_, 'cancelled') foreach $child, $both, $grandchild;
$node->wait_task($anyway, 'completed');
pass('who is to run anyway does');
is(sql("SELECT error_type || ': ' || error FROM prometheus.task WHERE task_id = $child"),
	"DependencyFailed: task $parent, which it depends on, was cancelled", 'the reason');
is(sql("SELECT error FROM prometheus.task WHERE task_id = $grandchild"),
	"task $child, which it depends on, was cancelled", 'and its');
is($node->error_of("SELECT prometheus_result($child)")->{state}, 'PM003', 'the result is an error');
my $late = $node->submit("'late', depends_on => ARRAY[$parent]");
$node->wait_task($late, 'cancelled');
pass('a parent that ended badly before');

# Retried by hand: the parent first, then the child.
$node->fake_agent($llm, 'fake-echo', name => 'fake-hang-before-headers');
is(sql("SELECT prometheus_retry($parent), prometheus_retry($child)"), 't|t', 'both are tried again');
$node->wait_task($_, 'completed') foreach $parent, $child;
pass('and complete');

# A failed one.
my $fails = $node->submit(q{'f', 'fake-400'});
my $of_failed = $node->submit("'g', depends_on => ARRAY[$fails]");
$node->wait_task($of_failed, 'cancelled');
is(sql("SELECT error FROM prometheus.task WHERE task_id = $of_failed"), "task $fails, which it depends on, failed", 'a failed one');

# The deadline of one that waits.
my $endless = $node->submit(q{'endless', run_at => clock_timestamp() + interval '1 day', timeout => '1 day'});
my $hurry = $node->submit("'hurry', depends_on => ARRAY[$endless], timeout => '300 ms'");
$node->wait_task($hurry, 'failed');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $hurry"), 'DeadlineExceeded', 'one that waits too long');

# Prepared transactions give no hint; both are found later.
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5");
$node->restart;
sql(qq{BEGIN; SELECT prometheus_submit('prepared', depends_on => ARRAY[prometheus_submit('its parent')]); PREPARE TRANSACTION 'p'});
sql(q{COMMIT PREPARED 'p'});
$node->wait_for('it has run', q{SELECT status FROM prometheus.task WHERE request = 'prepared'}, 'completed');
pass('a prepared transaction');

foreach my $bad (
	[ 'ARRAY[-1]', '42704' ], [ "ARRAY[NULL::bigint]", '22004' ],
	[ '(SELECT array_agg(i) FROM generate_series(1, 1001) i)', '54000' ])
{
	is($node->error_of("SELECT prometheus_submit('x', depends_on => $bad->[0])")->{state}, $bad->[1], "depends_on $bad->[0]");
}

$node->stop;
done_testing();
