# Executors: they come when there is work, no more than may be; and whatever ends
# while a tool runs, its effect is there exactly once, or not at all if the task
# was stopped.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Tools wait at the door, after they have written, until it is open.
sub shut { return sql('UPDATE door SET is_open = false'); }
sub unbar { return sql('UPDATE door SET is_open = true, opened_at = clock_timestamp()'); }

# The processes in which tools stand at the door.
my $standing = q{pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND granted};

sub wait_at_door
{
	my ($what, $count, @but) = @_;
	my $but = join(',', 0, @but);
	$node->wait_for("$what: $count at the door",
		"SELECT count(*) FROM $standing AND pid NOT IN ($but)", $count);
	return split /\n/, sql("SELECT pid FROM $standing AND pid NOT IN ($but) ORDER BY pid");
}

# Submit a task that calls a tool so many times in one turn.
sub submit_calls
{
	my ($what, $count, %params) = @_;
	my $tool = $params{tool} // 'enter';
	my $script = $node->script([ map { [ $tool, { words => "$what $_" } ] } 1 .. $count ], 'end');
	return $node->submit("$script, 'a'" . ($params{more} // ''));
}

# The same, and return when as many as there are executors stand at the door:
# the task and their processes.
sub hold
{
	my ($what, $count, %params) = @_;
	shut();
	my $task = submit_calls($what, $count, %params);
	return ($task, wait_at_door($what, $count < 2 ? $count : 2));
}

# A task has called tools, each exactly once.
sub check_done
{
	my ($what, $task, $count) = @_;
	$node->wait_task($task, 'completed');
	is( sql("SELECT string_agg(words, ', ' ORDER BY words) FROM effect WHERE words LIKE '$what %'"),
		join(', ', map { "$what $_" } 1 .. $count),
		"$what: each effect is there once");
	is( sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"),
		join(', ', 'chat ok', ('tool ok') x $count, 'chat ok'),
		"$what: the steps");
	return;
}

sub check_nothing
{
	my ($what) = @_;
	return is(sql("SELECT count(*) FROM effect WHERE words LIKE '$what %'"),
		0, "$what: no effect is there");
}

sub outcomes
{
	return sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $_[0]");
}

sub strikes { return sql("SELECT count(*) FROM prometheus._strike WHERE task_id = $_[0]"); }

sub create
{
	$node->create_extension;
	$node->create_scripted_model;
	sql(<<'EOSQL');
SELECT prometheus_set_tool(f::regprocedure, tier => 'write') FROM unnest(ARRAY['enter(text)', 'push(text)']) f;
SELECT prometheus_set_tool('look(text)', tier => 'read');
SELECT prometheus_set_agent('a', 'scripted', tools => '{enter,push,look}', options => '{"tool_timeout": "1h"}');
EOSQL
	return;
}

$node->keep_sessions;
$node->init(restart_after_crash => 1);
$node->start;
sql(<<'EOSQL');
CREATE TABLE door (is_open boolean, opened_at timestamptz);
INSERT INTO door VALUES (true);
CREATE TABLE effect (words text, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION enter(words text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect VALUES (words);
	PERFORM pg_advisory_xact_lock_shared(4711);
	WHILE NOT (SELECT is_open FROM door) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN 'through';
END $$;
CREATE FUNCTION look(words text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(4711);
	WHILE NOT (SELECT is_open FROM door) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN 'through';
END $$;
CREATE FUNCTION push(words text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect VALUES (words);
	PERFORM pg_advisory_xact_lock_shared(4711);
	LOOP
		BEGIN
			WHILE NOT (SELECT is_open FROM door) LOOP
				PERFORM pg_sleep(0.01);
			END LOOP;
			RETURN 'through';
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
EOSQL
create();

# On demand, and so many.
my $executors = q{SELECT count(*) FROM prometheus.worker WHERE role = 'executor'};
is(sql($executors), 0, 'no executor without work');
my ($task, @pids) = hold('many', 5);
is(sql($executors), 2, 'many: as many executors as may be');
is(scalar @pids, 2, 'many: two run at once');
is( sql(q{SELECT count(*) FROM prometheus.worker w JOIN pg_stat_activity a USING (pid) WHERE role = 'executor' AND a.backend_type = 'prometheus executor' AND w.state = 'busy' AND w.in_flight = 1}
	),
	2, 'many: they are shown at work');
is( sql(q{SELECT string_agg(DISTINCT task_id::text, ',') FROM prometheus.worker WHERE role = 'executor'}),
	$task, 'many: for the task');
unbar();
check_done('many', $task, 5);
cmp_ok(sql(q{SELECT count(DISTINCT pid) FROM effect WHERE words LIKE 'many %'}),
	'==', 2, 'many: two processes made all calls');
is( sql(q{SELECT string_agg(coalesce(task_id::text, 'none'), ',') FROM prometheus.worker WHERE role = 'executor'}),
	'none,none', 'many: then they are for nobody');
sql('ALTER SYSTEM SET prometheus.executors = 4');
$node->reload;
shut();
$task = submit_calls('more', 5);
wait_at_door('more', 4);
is(sql($executors), 4, 'more executors: they come');
unbar();
check_done('more', $task, 5);
sql('ALTER SYSTEM SET prometheus.executors = 2');
$node->reload;
$node->wait_for('fewer executors: those that are too many end', $executors, '2');

# All calls of a task wait, since executors are at those of another one: a cancel
# ends it at once, although nothing else happens.  The caller's statistics would
# wake it ten seconds after its last transaction; so there is less time.
my $llm = FakeLLM->new;
$node->fake_agent($llm, 'fake-tools', name => 'net');
sql(q{SELECT prometheus_set_agent('net', 'net', tools => '{enter}')});
($task, @pids) = hold('busy', 2);
my $waits = $node->submit($node->script([ map { [ 'enter', { words => "waits $_" } ] } 1 .. 3 ], 'end') . q{, 'net'});
$node->wait_for('its calls wait', q{SELECT value FROM prometheus_health() WHERE check_name = 'executors'}, '2 of 2, for 5 jobs');
sql("SELECT prometheus_cancel($waits)");
$node->wait_task($waits, 'cancelled', timeout => 8);
check_nothing('waits');
is($node->health('executors'), 'ok|2 of 2, for 2 jobs|', 'waits: its calls are wanted no more');
unbar();
check_done('busy', $task, 2);

# What only reads has written nothing while it runs, not even its verdict: it is
# in nobody's way.
shut();
$task = submit_calls('read', 1, tool => 'look');
my ($reader) = wait_at_door('read', 1);
is( sql("SELECT backend_xid IS NULL FROM pg_stat_activity WHERE pid = $reader"),
	't', 'read: no xid while it runs');
is( sql("SELECT count(*) FROM pg_locks WHERE pid = $reader AND relation = 'prometheus._era'::regclass AND mode = 'RowExclusiveLock'"),
	0, 'read: nor is an era kept from beginning');
unbar();
$node->wait_task($task, 'completed');
is( sql("SELECT string_agg(concat_ws(' ', v.stage, v.effect, s.status), ',') FROM prometheus.verdict v JOIN prometheus.step s USING (task_id, step) WHERE task_id = $task"),
	'tool allow ok', 'read: verdict and step are there in the end');
is( sql("SELECT bool_and(v.judged_at < x.opened_at) FROM prometheus.verdict v, door x WHERE v.task_id = $task AND v.step = 2"),
	't', 'read: it was judged before it ran');

# A cancel that comes when there is nothing to cancel is none for the next tool;
# one that is meant for a tool is its error.
sql(q{SELECT count(pg_cancel_backend(pid)) FROM prometheus.worker WHERE role = 'executor'});
$task = submit_calls('idle', 2);
check_done('idle', $task, 2);
($task, @pids) = hold('user', 1);
sql("SELECT pg_cancel_backend($pids[0])");
$node->wait_task($task, 'completed');
is(sql("SELECT error FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
	'canceling statement due to user request', 'user: the tool is cancelled by hand');
check_nothing('user');

# An executor is ended: once, again and again; by signal 9, once and twice.
($task, @pids) = hold('terminate', 3);
sql("SELECT pg_terminate_backend($pids[0])");
wait_at_door('terminate', 1, @pids);
unbar();
check_done('terminate', $task, 3);
is(outcomes($task), 'completed', 'terminate: one attempt');

($task, @pids) = hold('again', 1);
my @all = @pids;
foreach my $time (1 .. 3)
{
	sql("SELECT pg_terminate_backend($pids[0], 10000)");
	last if $time == 3;
	@pids = wait_at_door('again', 1, @all);
	push @all, @pids;
}
$node->wait_task($task, 'completed');
like( sql("SELECT error FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
	qr/^it could not be recorded, again and again, and nothing was changed|^the process that ran it ended, again and again; nothing was changed/,
	'again: then the tool is given up, and the task goes on');
check_nothing('again');

sub kill_at_door
{
	my ($what, $pid) = @_;
	my $log = $node->log_end;
	kill('KILL', $pid) == 1 or die "$what: could not kill $pid";
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	$node->wait_for("$what: the server is back", 'SELECT true');
	return;
}
($task, @pids) = hold('kill', 3);
kill_at_door('kill', $pids[0]);
unbar();
check_done('kill', $task, 3);
is(strikes($task), 1, 'kill: one strike');
is(outcomes($task), 'lost completed', 'kill: the task goes on in another attempt');

($task, @pids) = hold('twice', 1);
kill_at_door('twice', $pids[0]);
@pids = wait_at_door('twice', 1);
kill_at_door('twice', $pids[0]);
$node->wait_task($task, 'quarantined');
check_nothing('twice');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $task"),
	'Crashed', 'twice: a tool that crashes the server again is quarantined');
unbar();
is(sql("SELECT prometheus_retry($task)"), 't', 'twice: and may be retried by hand');
check_done('twice', $task, 1);
my @retried = ($task);

# The caller ends: by signal 9, by the administrator; while a tool stands at the
# door, or one that does not want to go.
($task, @pids) = hold('caller killed', 3);
kill_at_door('caller killed', $node->worker_pid('caller'));
unbar();
check_done('caller killed', $task, 3);
is(strikes($task), 0, 'caller killed: no strike');
foreach my $tool (qw(enter push))
{
	($task, @pids) = hold("caller $tool", 3, tool => $tool);
	my $caller = $node->worker_pid('caller');
	sql("SELECT pg_terminate_backend($caller)");
	$node->worker_pid('caller', other_than => $caller);
	$node->wait_for("caller $tool: what the one before had begun is stopped",
		"SELECT count(*) FROM prometheus.attempt WHERE task_id = $task AND outcome = 'lost'", '1');
	wait_at_door("caller $tool", 2);
	unbar();
	check_done("caller $tool", $task, 3);
	is(outcomes($task), 'lost completed', "caller $tool: the task goes on in another attempt");
}

# Between two steps everything of a task may end.
foreach my $role (qw(scheduler publisher launcher))
{
	($task, @pids) = hold($role, 2);
	my $pid = $node->worker_pid($role);
	sql("SELECT pg_terminate_backend($pid)");
	$node->worker_pid($role, other_than => $pid);
	is(join(',', wait_at_door($role, 2)), join(',', @pids), "$role ended: the tools run on");
	unbar();
	check_done($role, $task, 2);
}

# The task is not wanted any more, or too late.
foreach my $tool (qw(enter push))
{
	($task, @pids) = hold("cancel $tool", 3, tool => $tool);
	is(sql("SELECT prometheus_cancel($task, 'enough')"), 't', "cancel $tool: it is told");
	$node->wait_task($task, 'cancelled');
	$node->wait_for("cancel $tool: nobody is at the door", "SELECT count(*) FROM $standing", '0');
	check_nothing("cancel $tool");
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
		0, "cancel $tool: no step of a tool");
	unbar();
	check_done("after cancel $tool", submit_calls("after cancel $tool", 3), 3);

	shut();
	$task = submit_calls("deadline $tool", 3, tool => $tool, more => q{, timeout => '1 s'});
	$node->wait_task($task, 'failed');
	is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $task"),
		'DeadlineExceeded', "deadline $tool: the task fails");
	$node->wait_for("deadline $tool: nobody is at the door", "SELECT count(*) FROM $standing", '0');
	check_nothing("deadline $tool");
	unbar();
	check_done("after deadline $tool", submit_calls("after deadline $tool", 3), 3);
}

# Its agent is paused: what runs ends, and the next turn waits.
($task, @pids) = hold('pause', 2);
sql(q{SELECT prometheus_pause('agent:a')});
unbar();
$node->wait_task($task, 'retrying');
is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task"), 3, 'pause: the tools ended, no turn followed');
sql(q{SELECT prometheus_resume('agent:a')});
check_done('pause', $task, 2);

# Many tasks at once, and everybody ends, one after the other.
unbar();
my @tasks = map { submit_calls("storm $_", 3) } 1 .. 8;
foreach my $role (qw(executor caller executor scheduler caller launcher executor))
{
	sql("SELECT count(pg_terminate_backend(pid)) FROM prometheus.worker WHERE role = '$role'");
}
check_done("storm $_", $tasks[ $_ - 1 ], 3) foreach 1 .. 8;

# The server is stopped while tools are at the door: it need not wait for them.
foreach my $mode (qw(fast immediate))
{
	foreach my $tool (qw(enter push))
	{
		($task, @pids) = hold("$mode $tool", 3, tool => $tool);
		$node->stop($mode);
		$node->start;
		wait_at_door("$mode $tool", 2);
		unbar();
		check_done("$mode $tool", $task, 3);
		is(strikes($task), 0, "$mode $tool: no strike");
	}
}
$node->check_invariants('before the drop', all_ended => 1, retried => \@retried);

# The extension is dropped while tools are at the door; or all but.
($task) = hold('not dropped', 3);
sql('BEGIN; DROP EXTENSION prometheus; ROLLBACK');
unbar();
check_done('not dropped', $task, 3);
foreach my $tool (qw(enter push))
{
	hold("drop $tool", 3, tool => $tool);
	sql('DROP EXTENSION prometheus; DROP FUNCTION scripted(jsonb)');
	$node->wait_for("drop $tool: nobody is at the door", "SELECT count(*) FROM $standing", '0');
	check_nothing("drop $tool");
	unbar();
	create();
	check_done("after drop $tool", submit_calls("after drop $tool", 3), 3);
}

$node->check_invariants('at last', all_ended => 1);
is($node->log_count(qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing else crashed');
$node->stop;
done_testing();
