# Approvals: a task that waits for a person holds nothing; what was approved is
# what runs, once; what was not is told to the model.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# As boss, who may decide.
sub boss { return sql("SET ROLE boss; $_[0]"); }

# Submit a script to an agent, and wait until its task waits; the task.
sub ask
{
	my ($agent, $turns, $more) = @_;
	my $task = $node->submit($node->script(@$turns) . ", '$agent'" . ($more // ''));

	$node->wait_task($task, 'waiting');
	return $task;
}

# The approval of a step.
sub id_of
{
	my ($task, $step) = @_;
	return sql("SELECT approval_id FROM prometheus.approval WHERE task_id = $task AND step = $step");
}

sub notes { return sql(q{SELECT string_agg(words, ',' ORDER BY id) FROM note}); }

# The verdicts of a step, in order.
sub verdicts
{
	my ($task, $step) = @_;
	return sql("SELECT string_agg(concat_ws(' ', effect, approved, reasoning), ', ' ORDER BY judged_at) FROM prometheus.verdict WHERE task_id = $task AND step = $step"
	);
}

sub attempts
{
	return sql("SELECT string_agg(attempt || ' ' || coalesce(outcome, 'open'), ', ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $_[0]"
	);
}

$node->init;
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE boss;
GRANT prometheus_agent_admin TO boss;
CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY, words text);
CREATE FUNCTION write(words text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO note (words) VALUES (words) RETURNING id';
CREATE FUNCTION wipe(words text) RETURNS text LANGUAGE sql AS
	$$INSERT INTO note (words) VALUES ('wiped ' || words) RETURNING note.words$$;
SELECT prometheus_set_tool('write(text)', tier => 'write'), prometheus_set_tool('wipe(text)', tier => 'destructive');
SELECT prometheus_set_agent('a', 'scripted', tools => '{write,wipe}');
SELECT prometheus_set_agent('hasty', 'scripted', tools => '{write,wipe}', options => '{"approval_timeout": "3s"}');
EOSQL
my $write = [ 'write', { words => 'x' } ];
my $why = 'Escalation: what cannot be undone is for a person to decide.';

# It waits, and holds nothing.
my $task = ask('a', [ [ $write, [ 'wipe', '{"words":   "a\u0062"}' ] ], [$write], 'end' ], q{, concurrency_key => 'k', timeout => '30 days'});
my $id = id_of($task, 3);
is($node->steps($task), '1 chat scripted ok, 2 tool write ok', 'waits: the other call of the turn was made');
is(attempts($task), '1 waiting', 'waits: no attempt is open');
is( sql("SELECT concat_ws('|', status, why, due_at) FROM prometheus.queue WHERE task_id = $task"),
	sql("SELECT concat_ws('|', 'waiting', 'waits for a person to decide (prometheus.approval), or for a task that it delegated', expires_at) FROM prometheus.approval WHERE approval_id = $id"),
	'waits: the queue says for what and until when');
like(sql("SELECT prometheus_why($task)"), qr/^waiting: waits for a person to decide/, 'waits: prometheus_why()');
is(sql("SELECT coalesce(prometheus_result($task), 'none')"), 'none', 'waits: there is no result');
is(sql(q{SELECT coalesce(sum(in_flight), 0) FROM prometheus.worker}), 0, 'waits: it is in no worker');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^prometheus' AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)}),
	0, 'waits: no transaction is open');
my $other = $node->submit($node->script('other') . q{, 'a', concurrency_key => 'k'});
$node->wait_task($other, 'completed');
pass('waits: its key is free');
is( sql("SELECT concat_ws('|', tool, arguments, policy, approvers, reasoning, decision, expires_at - requested_at) FROM prometheus.approval WHERE approval_id = $id"
	),
	qq(wipe|{"words": "ab"}|justica.escalation|prometheus_agent_admin|$why|7 days), 'waits: what is to be decided');
is( sql("SELECT v.target_hash = a.target_hash FROM prometheus.verdict v JOIN prometheus.approval a USING (task_id, step) WHERE task_id = $task"),
	't', 'waits: of what was judged');
is( sql("SELECT data ->> 'approval_id' FROM prometheus.event WHERE task_id = $task AND type = 'approval.requested'"),
	$id, 'waits: the event');

# Over a restart; then it runs once, as it was approved.
$node->restart;
$node->wait_for('it is in the queue again', "SELECT status FROM prometheus.queue WHERE task_id = $task", 'waiting');
is(attempts($task), '1 waiting', 'restart: it did not try');
is($node->error_of("SELECT prometheus_approve($id)")->{state}, '42501', 'restart: the submitter may not approve');
boss("SELECT prometheus_approve($id, 'Go on.')");
$node->wait_task($task, 'completed');
is( $node->steps($task),
	'1 chat scripted ok, 2 tool write ok, 3 tool wipe ok, 4 chat scripted ok, 5 tool write ok, 6 chat scripted ok',
	'approved: it went on');
is(notes(), 'x,wiped ab,x', 'approved: each call was made once, with those arguments');
is(($node->told($task, 4))[1], 'wiped ab', 'approved: the model is told what came of it');
is(verdicts($task, 3), "escalate f $why, allow t approved by boss: Go on.", 'approved: the verdicts say who');
is( sql("SELECT count(DISTINCT target_hash) FROM prometheus.verdict WHERE task_id = $task AND step = 3"),
	1, 'approved: both are of the same');
is(attempts($task), '1 waiting, 2 completed', 'approved: the attempts');
is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $task"), 1, 'approved: waiting uses up no attempt');
is($node->error_of("SET ROLE boss; SELECT prometheus_reject($id)")->{message}, 'the approval was approved already', 'approved: once');
is( sql("SELECT data - '{approval_id}'::text[] FROM prometheus.event WHERE task_id = $task AND type = 'approval.decided'"),
	'{"note": "Go on.", "tool": "wipe", "decision": "approved", "decided_by": "boss"}',
	'approved: the event');

# The same call in a later turn is another one.
$task = ask('a', [ [ [ 'wipe', { words => '1' } ] ], [ [ 'wipe', { words => '1' } ] ], 'end' ]);
boss('SELECT prometheus_approve(' . id_of($task, 2) . ')');
$node->wait_for('the second asks, too', "SELECT count(*) FROM prometheus.approval WHERE task_id = $task", '2');
$node->wait_task($task, 'waiting');
boss('SELECT prometheus_reject(' . id_of($task, 4) . q{, 'Once is enough.')});
$node->wait_task($task, 'completed');
is($node->steps($task), '1 chat scripted ok, 2 tool wipe ok, 3 chat scripted ok, 4 tool wipe vetoed, 5 chat scripted ok',
	'the same call again must be approved again');
is(($node->told($task, 5))[1],
	'Vetoed: rejected by boss: Once is enough. Wait for the decision, or go a way that can be undone.',
	'rejected: the model is told, with the note');
is(verdicts($task, 4), "escalate f $why, deny f rejected by boss: Once is enough.", 'rejected: the verdicts');

# Two of one turn, decided one after the other, the last one first.
sql('TRUNCATE note');
$task = ask('a', [ [ [ 'wipe', { words => '1' } ], [ 'wipe', { words => '2' } ], [ 'wipe', { words => '3' } ] ], 'end' ]);
is(sql("SELECT count(*) FROM prometheus.approval WHERE task_id = $task AND decision IS NULL"), 3, 'three: all are asked at once');
boss('SELECT prometheus_approve(' . id_of($task, 4) . ')');
$node->wait_for('the third has run', 'SELECT count(*) FROM note', '1');
$node->wait_task($task, 'waiting');
is($node->steps($task), '1 chat scripted ok, 4 tool wipe ok', 'three: the one that was approved runs, and the others wait');
boss('SELECT prometheus_reject(' . id_of($task, 2) . ')');
$node->wait_for('the first is told', "SELECT count(*) FROM prometheus.step WHERE task_id = $task AND status = 'vetoed'", '1');
$node->wait_task($task, 'waiting');
boss('SELECT prometheus_approve(' . id_of($task, 3) . ')');
$node->wait_task($task, 'completed');
is(notes(), 'wiped 3,wiped 2', 'three: what was approved ran, once');
is_deeply([ map { s/ Wait for.*//r } $node->told($task, 5) ], [ 'Vetoed: rejected by boss', 'wiped 2', 'wiped 3' ],
	'three: the model is told in its order');

# Two decisions in one transaction; and one that is taken back.
sql('TRUNCATE note');
$task = ask('a', [ [ [ 'wipe', { words => '1' } ], [ 'wipe', { words => '2' } ] ], 'end' ]);
boss("BEGIN; SELECT prometheus_reject(approval_id) FROM prometheus.approval WHERE task_id = $task; ROLLBACK");
is(sql("SELECT count(decision) FROM prometheus.approval WHERE task_id = $task"), 0, 'rolled back: nothing is decided');
boss("SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task");
$node->wait_task($task, 'completed');
is(sql(q{SELECT string_agg(words, ',' ORDER BY words) FROM note}), 'wiped 1,wiped 2', 'both at once: both ran');

# Nobody decides in time.
sql('TRUNCATE note');
$task = ask('hasty', [ [ [ 'wipe', { words => 'x' } ] ], [$write], 'end' ]);
$id = id_of($task, 2);
$node->wait_task($task, 'completed');
is($node->steps($task), '1 chat scripted ok, 2 tool wipe vetoed, 3 chat scripted ok, 4 tool write ok, 5 chat scripted ok',
	'expired: it went another way');
like(($node->told($task, 3))[0], qr/^Vetoed: nobody approved it in time /, 'expired: the model is told');
is(verdicts($task, 2), "escalate f $why, deny f nobody approved it in time", 'expired: the verdicts');
is( sql("SELECT concat_ws('|', decision, decided_by, note) FROM prometheus.approval WHERE approval_id = $id"),
	'expired', 'expired: is on record');
is( sql("SELECT data - '{approval_id}'::text[] FROM prometheus.event WHERE task_id = $task AND type = 'approval.decided'"),
	'{"note": null, "tool": "wipe", "decision": "expired", "decided_by": null}', 'expired: the event');
is($node->error_of("SET ROLE boss; SELECT prometheus_approve($id)")->{state}, '55000', 'expired: it is too late');
is(notes(), 'x', 'expired: it did not run');

# A person who decides just then, and takes his time: as long as his transaction
# is open the task waits for it, and holds up nobody.
foreach my $end ('COMMIT', 'ROLLBACK')
{
	sql('TRUNCATE note');
	my $session = $node->background_psql('postgres'); # before there is haste
	$task = ask('hasty', [ [ [ 'wipe', { words => 'x' } ] ], 'end' ]);
	$session->query_safe('SET ROLE boss; BEGIN; SELECT prometheus_approve(' . id_of($task, 2) . ')');
	foreach my $time ('is looked at again, later', 'and once more')
	{
		my $due = sql("SELECT due_at FROM prometheus.queue WHERE task_id = $task");
		$node->wait_for("$end: $time",
			"SELECT q.status = 'waiting' AND q.due_at > greatest('$due', a.expires_at) FROM prometheus.queue q JOIN prometheus.approval a USING (task_id) WHERE task_id = $task");
	}
	my $free = $node->submit($node->script([$write], 'end') . q{, 'a'});
	$node->wait_task($free, 'completed');
	is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^prometheus' AND wait_event_type = 'Lock'}), 0, "$end: no worker waits for it");
	is(sql("SELECT count(*) FROM prometheus.attempt WHERE task_id = $task"), 1, "$end: that is no attempt");
	sql('TRUNCATE note');
	$session->query_safe($end);
	$session->quit;
	$node->wait_task($task, 'completed');
	my $approved = $end eq 'COMMIT';
	is( sql("SELECT decision FROM prometheus.approval WHERE task_id = $task"),
		$approved ? 'approved' : 'expired', "approved as it expires, $end: the decision");
	is($node->steps($task), '1 chat scripted ok, 2 tool wipe ' . ($approved ? 'ok' : 'vetoed') . ', 3 chat scripted ok',
		"approved as it expires, $end: the steps");
	is(notes(), $approved ? 'wiped x' : '', "approved as it expires, $end: it ran if it was approved");
}

# The task ends while it waits.
sql('TRUNCATE note');
$task = ask('a', [ [ [ 'wipe', { words => 'x' } ] ], 'end' ]);
is(sql("SELECT prometheus_cancel($task, 'No more.')"), 't', 'cancel: of a task that waits');
$node->wait_task($task, 'cancelled');
my $late = ask('a', [ [ [ 'wipe', { words => 'x' } ] ], 'end' ], q{, timeout => '2 s'});
$node->wait_task($late, 'failed');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $late"), 'DeadlineExceeded', 'deadline: of a task that waits');
is(sql("SELECT a.expires_at <= t.submitted_at + interval '2 s' FROM prometheus.approval a JOIN prometheus.task t USING (task_id) WHERE task_id = $late"),
	't', 'deadline: it can be decided until then');
is(sql("SELECT decision FROM prometheus.approval WHERE task_id = $task"), 'ended', 'cancel: the approval is not open');
foreach my $ended ($task, $late)
{
	$id = id_of($ended, 2);
	is($node->error_of("SET ROLE boss; SELECT prometheus_$_($id)")->{message}, 'the approval is of a task that has ended',
		"ended: $_") foreach qw(approve reject);
}
is(notes(), '', 'ended: nothing ran');

# Policies of the moment count: what is denied meanwhile does not run, although
# it was approved; what is off does without, once it was decided.
$task = ask('a', [ [ [ 'wipe', { words => 'x' } ] ], 'end' ]);
sql(q{SELECT prometheus_set_policy('stop', 'tool', 'deny', match => '{"tool": "wipe"}', reason => 'Stop.')});
boss('SELECT prometheus_approve(' . id_of($task, 2) . ')');
$node->wait_task($task, 'completed');
is(($node->told($task, 3))[0], 'Vetoed: Stop.', 'approved, and denied since: does not run');
sql(q{SELECT prometheus_set_policy('stop', effect => 'off')});
is(notes(), '', 'approved, and denied since: nothing ran');

# Rejections are vetoes, up to the limit.
sql(q{SELECT prometheus_set_agent('strict', 'scripted', tools => '{wipe}', options => '{"max_vetoes": 0}')});
$task = ask('strict', [ [ [ 'wipe', { words => 'x' } ] ], 'end' ]);
boss('SELECT prometheus_reject(' . id_of($task, 2) . q{, 'Never.')});
$node->wait_task($task, 'vetoed');
like(sql("SELECT error FROM prometheus.task WHERE task_id = $task"), qr/rejected by boss: Never\./, 'rejected: ends the task in the end');

# The approvers of a policy, and none else.
sql(<<'EOSQL');
CREATE ROLE board;
CREATE ROLE member IN ROLE board;
GRANT prometheus_agent_user TO board;
SELECT prometheus_set_policy('board', 'tool', 'escalate', match => '{"tool": "write"}', approvers => 'board', reason => 'Money.');
EOSQL
$task = ask('a', [ [$write], 'end' ]);
$id = id_of($task, 2);
is($node->error_of("SET ROLE boss; SELECT prometheus_approve($id)")->{state}, '42501', 'approvers: not an administrator');
is(sql("SET ROLE member; SELECT reasoning FROM prometheus.approval WHERE decision IS NULL"), 'Money.', 'approvers: see it');
sql("SET ROLE member; SELECT prometheus_approve($id)");
$node->wait_task($task, 'completed');
is(notes(), 'x', 'approvers: approve');

# Each policy asks its own.
sql('TRUNCATE note');
sql(q{SELECT prometheus_set_policy('auditors', 'tool', 'escalate', match => '{"tool": "write"}', reason => 'Books.')});
$task = ask('a', [ [$write], 'end' ]);
is(sql("SELECT policy FROM prometheus.approval WHERE task_id = $task"), 'auditors', 'two policies: one is first');
boss('SELECT prometheus_approve(' . id_of($task, 2) . ')');
$node->wait_for('the other is asked, too',
	"SELECT policy || ' ' || reasoning FROM prometheus.approval WHERE task_id = $task AND decision IS NULL", 'board Money.');
$node->wait_task($task, 'waiting');
is(notes(), '', 'two policies: one is not enough');
sql("SET ROLE member; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task AND decision IS NULL");
$node->wait_task($task, 'completed');
is(notes(), 'x', 'two policies: it runs when both have approved');
sql(q{SELECT prometheus_set_policy('auditors', effect => 'off')});

# An approval is by those whom the policy names now.
sql('TRUNCATE note');
$task = ask('a', [ [$write], 'end' ]);
sql(q{SELECT prometheus_set_policy('board', approvers => 'prometheus_agent_admin')});
sql('SET ROLE member; SELECT prometheus_approve(' . id_of($task, 2) . ')');
$node->wait_for('the new ones are asked', "SELECT approvers FROM prometheus.approval WHERE task_id = $task AND decision IS NULL", 'prometheus_agent_admin');
$node->wait_task($task, 'waiting');
is(notes(), '', 'other approvers: what the former ones said is not enough');
boss("SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task AND decision IS NULL");
$node->wait_task($task, 'completed');
is(notes(), 'x', 'other approvers: they approve');

# What a person rejected stays rejected.
sql('TRUNCATE note');
$task = ask('a', [ [$write], 'end' ]);
sql('SELECT prometheus_pause()');
boss('SELECT prometheus_reject(' . id_of($task, 2) . ')');
sql(q{SELECT prometheus_set_policy('board', effect => 'off')});
sql('SELECT prometheus_resume()');
$node->wait_task($task, 'completed');
is($node->steps($task), '1 chat scripted ok, 2 tool write vetoed, 3 chat scripted ok', 'rejected: whatever the policies say since');
is(notes(), '', 'rejected: it did not run');

# A server that crashes: what waits, waits; what was approved runs.
sql('TRUNCATE note');
$task = ask('a', [ [ [ 'wipe', { words => 'x' } ] ], 'end' ]);
$other = ask('a', [ [ [ 'wipe', { words => 'y' } ] ], 'end' ]);
sql(q{SELECT prometheus_pause()});
boss('SELECT prometheus_approve(' . id_of($task, 2) . ')');
$node->stop('immediate');
$node->start;
sql(q{SELECT prometheus_resume()});
$node->wait_task($task, 'completed');
is(notes(), 'wiped x', 'crash: what was approved runs');
is(sql("SELECT status FROM prometheus.task WHERE task_id = $other"), 'waiting', 'crash: what was not waits');
boss('SELECT prometheus_approve(' . id_of($other, 2) . ')');
$node->wait_task($other, 'completed');
is(notes(), 'wiped x,wiped y', 'crash: and runs when it is');

$node->check_invariants('approvals', all_ended => 1);
$node->stop;
done_testing();
