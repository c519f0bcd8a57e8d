# Tasks that a model gives to other agents: the parent waits and holds nothing,
# the child's end is the call's, whatever ends meanwhile.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Submit a task of agent parent whose model delegates these requests in one turn.
sub delegate
{
	my ($agent, @requests) = @_;
	my $script = $node->script([ map { [ 'delegate', { agent => $agent, request => $_ } ] } @requests ],
		'end');

	return $node->submit("$script, 'parent'");
}

sub child_of
{
	my ($what, $parent) = @_;

	$node->wait_for("$what: the child is there",
		"SELECT count(*) FROM prometheus.task WHERE parent_id = $parent", 1);
	return sql("SELECT task_id FROM prometheus.task WHERE parent_id = $parent");
}

sub results
{
	my ($task) = @_;

	return sql("SELECT string_agg(coalesce(output ->> 'content', 'Error: ' || (output ->> 'error')), ', ' ORDER BY step)
		FROM prometheus.step WHERE task_id = $task AND kind = 'tool'");
}

$node->init(conf => "prometheus.executors = 2\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(q{SELECT prometheus_set_agent('parent', 'scripted', tools => '{delegate}')});
sql(q{SELECT prometheus_set_agent('child', 'echo')});

# Two children of one turn, in the order of the calls.
my $task = delegate('child', 'one', 'two');
$node->wait_task($task, 'completed');
is(results($task), 'one, two', 'their answers are the results, in order');
is( sql("SELECT count(*), count(DISTINCT trace_id) FROM prometheus.task WHERE $task IN (task_id, parent_id)"),
	'3|1',
	'parent and children are in one trace');
is( sql("SELECT DISTINCT submitter FROM prometheus.task WHERE parent_id = $task"),
	sql('SELECT current_user'),
	'children belong to who submitted the parent');
is( sql("SELECT DISTINCT e.caused_by = p.event_id, c.causes FROM prometheus.event e JOIN prometheus._task c USING (task_id), prometheus._task p WHERE c.parent_id = $task AND p.task_id = $task"),
	't|0', 'and their events are caused by its first one');

# It waits, and holds nothing; it is woken by the child's end.
$node->pause('agent:child');
$task = delegate('child', 'late');
$node->wait_task($task, 'waiting');
my $child = child_of('waiting', $task);
is( sql("SELECT outcome FROM prometheus.attempt WHERE task_id = $task"),
	'waiting', 'no attempt is open');
$node->wait_for('it has no place', q{SELECT in_flight FROM prometheus.worker WHERE role = 'scheduler'}, 0);
is(sql("SELECT status FROM prometheus.queue WHERE task_id = $task"), 'waiting', 'the queue says so too');
like(sql("SELECT prometheus_why($task)"), qr/delegated/, 'why');
sql(q{SELECT prometheus_resume('agent:child')});
$node->wait_task($task, 'completed');
is(results($task), 'late', 'the result of a child that took its time');
is( sql("SELECT count(*) FROM prometheus.task WHERE parent_id = $task"),
	1, 'there is one child');

# The server is stopped while it waits.
$node->pause('agent:child');
$task = delegate('child', 'over a restart');
$node->wait_task($task, 'waiting');
$node->restart;
sql(q{SELECT prometheus_resume('agent:child')});
$node->wait_task($task, 'completed');
is(results($task), 'over a restart', 'a restart between');

# A child that fails is an error for the model, and no end for the parent.
sql(q{SELECT prometheus_set_policy('no cats', 'task', 'deny', match => '{"agent": "child", "text": "cat"}', reason => 'No cats.')});
$task = delegate('child', 'a cat');
$node->wait_task($task, 'completed');
like(results($task), qr/^Error: task \d+, to which it was delegated, ended as vetoed: No cats\./, 'a vetoed child');
$task = delegate('nobody', 'x');
$node->wait_task($task, 'completed');
like(results($task), qr/^Error: agent "nobody" does not exist/, 'an unknown agent');

# Cancel goes down the tree, and so does the deadline.
$node->pause('agent:child');
$task = delegate('child', 'cancelled');
$node->wait_task($task, 'waiting');
$child = child_of('cancel', $task);
is(sql("SELECT prometheus_cancel($task, 'no need')"), 't', 'cancel of the parent');
$node->wait_task($task, 'cancelled');
$node->wait_task($child, 'cancelled');
is(sql("SELECT error FROM prometheus.task WHERE task_id = $child"), 'no need', 'the child has its reason');
$task = sql(sprintf q{SELECT prometheus_submit(%s, 'parent', timeout => '2 s')},
	$node->script([ [ 'delegate', { agent => 'child', request => 'overdue' } ] ], 'end'));
$node->wait_task($task, 'failed');
$child = child_of('deadline', $task);
$node->wait_for('the child ends by the deadline of its parent',
	"SELECT status IN ('failed', 'cancelled') FROM prometheus.task WHERE task_id = $child", 't');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $task"), 'DeadlineExceeded', 'the parent is too late');

# A child that is cancelled by hand lets its parent go on.
$task = delegate('child', 'alone');
$node->wait_task($task, 'waiting');
$child = child_of('the child only', $task);
sql("SELECT prometheus_cancel($child)");
$node->wait_task($task, 'completed');
like(results($task), qr/ended as cancelled/, 'only the child was cancelled');
sql(q{SELECT prometheus_resume('agent:child')});

# Levels.
sql(q{SELECT prometheus_set_agent('parent', 'scripted', options => '{"max_depth": 1}')});
my $inner = sql(sprintf 'SELECT %s', $node->script([ [ 'delegate', { agent => 'child', request => 'deep' } ] ], 'end'));
$task = delegate('parent', $inner);
$node->wait_task($task, 'completed');
$child = child_of('levels', $task);
like(results($child), qr/^Error: tasks are delegated too deeply/, 'max_depth');

$node->check_invariants('in the end', all_ended => 1);
$node->stop;
done_testing();
