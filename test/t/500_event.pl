# Emitted events beside those of tasks: what a tool emits is its task's, AS OF,
# retention, and the hints to listeners.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PromCluster;
use Test::More;

my $node = PromCluster->new('event');

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(conf => "prometheus.mark_interval = '50ms'\nmax_prepared_transactions = 2\nprometheus.retention = 0\nmax_connections = 200\nwal_level = replica\nmax_wal_senders = 1\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE clerk;
GRANT prometheus_agent_user TO alice, bob, clerk;
CREATE FUNCTION tell(n int) RETURNS bigint LANGUAGE sql AS
	$$SELECT set_config('prometheus.caused_by', '1', true); SELECT prometheus_emit('shop.told', jsonb_build_object('n', n), 'n/' || n)$$;
CREATE FUNCTION ask(n int) RETURNS bigint LANGUAGE sql AS $$SELECT prometheus_submit('asked')$$;
CREATE FUNCTION look(n int) RETURNS bigint LANGUAGE sql AS $$SELECT prometheus_emit('shop.looked')$$;
SELECT prometheus_set_tool('tell(int)', tier => 'write'), prometheus_set_tool('ask(int)', tier => 'write'), prometheus_set_tool('look(int)');
SELECT prometheus_set_agent('teller', 'scripted', tools => '{tell, look, ask}', run_as => 'clerk');
EOSQL

# In a tool.

my $script = $node->script([ [ 'tell', { n => 7 } ], [ 'look', { n => 1 } ], [ 'ask', { n => 2 } ] ], 'told');
my $order = sql(q{SELECT prometheus_emit('order')});
my $task = sql("SET ROLE alice; SET prometheus.caused_by = $order; SELECT prometheus_submit($script, 'teller')");
$node->wait_task($task, 'completed');
is($node->steps($task), '1 chat scripted ok, 2 tool tell ok, 3 tool look error, 4 tool ask ok, 5 chat scripted ok',
	'a tool emits, but not one of tier read');
is( sql(qq{SELECT e.task_id = $task, e.agent, e.subject, e.data, e.caused_by = t.event_id
		FROM prometheus.event e, prometheus._task t WHERE e.type = 'shop.told' AND t.task_id = $task}),
	't|teller|n/7|{"n": 7}|t', 'it is of the task, whose first event causes it');
is(sql("SET ROLE $_; SELECT count(*) FROM prometheus.event WHERE type = 'shop.told'"),
	$_ eq 'bob' ? 0 : 1, "seen by $_") foreach qw(alice bob clerk);
is(sql(q{SELECT count(*) FROM prometheus.event WHERE type = 'shop.looked'}), 0, 'what failed emitted nothing');

# What a task is because of is written into it, and what its tool does is because
# of the task, one cause further.
is( sql(qq{SELECT string_agg(DISTINCT type, ' ' ORDER BY type) || ', all: ' || bool_and(caused_by = $order) FROM prometheus.event WHERE task_id = $task AND type ~ '^(task|step)'}),
	'step.executed task.completed task.received, all: true', 'its events say so');
is( sql(qq{SELECT t.causes, e.depth, a.causes, a.caused_by = t.event_id FROM prometheus._task t, prometheus._event e, prometheus._task a
		WHERE t.task_id = $task AND e.task_id = $task AND a.request = 'asked'}), '1|2|2|t', 'so many causes, one behind the other');
sql(q{SELECT prometheus_create_consumer('ends', '{task.completed}', '-infinity')});
my $next = sql("SELECT set_config('prometheus.caused_by', p.event_id::text, false) FROM prometheus_poll('ends') p WHERE p.task_id = $task; SELECT prometheus_submit('next')");
$next =~ s/.*\n//s;
is(sql("SELECT causes FROM prometheus._task WHERE task_id = $next"), 2, 'so has a task that is submitted because of an end that was polled');

# AS OF.

my $mark = sql(q{SELECT prometheus_mark('told')});
my $rest = sql(q{SELECT prometheus_emit('shop.later')});
is( sql(q{SET prometheus.as_of = 'mark:told'; SELECT string_agg(type, ' ') FROM prometheus.event WHERE type ~ '^shop'}),
	'shop.told', 'AS OF a mark');
is( sql(q{SELECT string_agg(e.type, ' ') FROM prometheus.mark m, prometheus.event_at(m.at) e WHERE m.name = 'told' AND e.type ~ '^shop'}),
	'shop.told', 'event_at()');
is( sql(qq{SELECT string_agg(type, ' ') FROM prometheus.event_history WHERE mark_id = $mark AND type ~ '^shop'}),
	'shop.told', 'event_history');

# Hints: whoever commits an event, and nobody who does not.

my $listener = $node->background_psql('postgres', on_error_stop => 0);
my $hint = qr/Asynchronous notification "prometheus_events" received from server/;
my $until = sub {
	my ($what) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $out = '';
	while (time < $end)
	{
		$out .= $listener->query('SELECT 1');
		return pass("a hint: $what") if $out =~ $hint;
	}
	return fail("a hint: $what");
};
$node->wait_for('all is told', q{SELECT state = 'idle' FROM prometheus.worker WHERE role = 'publisher'});
$listener->query('LISTEN prometheus_events');
sql(q{SELECT prometheus_emit('shop.hint')});
$until->('an event was emitted');
sql(q{BEGIN; SELECT prometheus_emit('shop.hint'); PREPARE TRANSACTION 'hint'});
sql(q{COMMIT PREPARED 'hint'});
$until->('by a prepared transaction');
$listener->quit;

# Many listeners, and none of them costs who emits: each transaction of a burst,
# while the publisher is not there, gives no hint of its own.
my ($in, $out) = ('', '');
my $listeners = IPC::Run::start([ 'python3', 'test/listeners.py', $node->host, $node->port, 150 ],
	'<', \$in, '>', \$out, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
my $heard = sub {
	my ($what) = @_;
	$out = '';
	$in .= "$what\n";
	$listeners->pump until $out =~ /\n/;
	return $out =~ s/\n//r;
};
$listeners->pump until $out =~ /ready/;
$node->wait_for('all is told', q{SELECT state = 'idle' FROM prometheus.worker WHERE role = 'publisher'});
$node->signal_worker('STOP', 'publisher');
is(sql(q{SELECT count(prometheus_emit('shop.stopped'));} x 100), join("\n", (1) x 100), 'without a publisher');
$node->signal_worker('CONT', 'publisher');
is($heard->('burst'), '1 1', 'a burst is one hint for each of 150 listeners');

# Who keeps the lock that NOTIFY takes (its commit waits for a replica that is not
# there) holds up the hint, and nobody else.
sql(q{ALTER SYSTEM SET synchronous_commit = 'local'; ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
my $notifier = $node->background_psql('postgres');
$notifier->query_until(qr/begun/, "\\echo begun\nSET synchronous_commit = on; BEGIN; CREATE TABLE something (); NOTIFY something; COMMIT;\n");
$node->wait_for('it keeps the lock', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ '^COMMIT'}, 1);
is(sql(q{SELECT count(*) FROM pg_locks WHERE classid = 'pg_database'::regclass AND objid = 0 AND granted}), 1, 'that of NOTIFY');
is(sql(q{SELECT count(prometheus_emit('shop.stopped'));} x 20), join("\n", (1) x 20), 'emitting goes on');
is(sql(q{SELECT count(prometheus_submit('x'))}), 1, 'so does submitting');
sql(q{ALTER SYSTEM RESET synchronous_commit; ALTER SYSTEM RESET synchronous_standby_names});
$node->reload;
is($heard->('lock') =~ /^[12] [12]$/, 1, 'and then all hear of it');
$notifier->quit;
IPC::Run::kill_kill($listeners, grace => 0);

# Retention: an event goes after its time, what a tool emitted with its task.

$node->wait_for('all is marked',
	q{SELECT pg_visible_in_snapshot((SELECT max(xid::text::bigint)::text::xid8 FROM prometheus._event), (SELECT snapshot FROM prometheus._mark ORDER BY mark_id DESC LIMIT 1))});
sql("UPDATE prometheus._outcome SET ended_at = now() + interval '1 day' WHERE task_id = $task");
sql(q{ALTER SYSTEM SET prometheus.retention = '1s'});
$node->reload;
$node->wait_for('events go', qq{SELECT count(*) FROM prometheus.event WHERE event_id = $rest OR type = 'shop.stopped'}, 0);
is(sql(q{SELECT count(*) FROM prometheus.event WHERE type = 'shop.told'}), 1, 'but not of a task that stays');
sql("UPDATE prometheus._outcome SET ended_at = now() - interval '1 day' WHERE task_id = $task");
$node->wait_for('and with it', q{SELECT count(*) FROM prometheus._event}, 0);

$node->stop;
done_testing();
