# Alerts: raised and cleared on a server where all of it really happens, kept
# over a restart, and looked for without a statement.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('alert');
my $llm = FakeLLM->new;
my $wal = PostgreSQL::Test::Utils::tempdir_short;

$node->init(
	allows_streaming => 1,
	conf => <<"EOCONF");
autovacuum = off
checkpoint_timeout = 1d
archive_mode = on
archive_command = 'true'
max_prepared_transactions = 2
EOCONF
$node->start;
$node->keep_sessions;
$node->create_extension;
$node->create_scripted_model;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Set a threshold, which lets the publisher look at once, until an alert has been
# raised, or cleared, so often; what the newest of these events says.
sub alert
{
	my ($name, $threshold, $type, $times) = @_;
	my $events =
	  "FROM prometheus.event WHERE type = 'alert.$type' AND subject = '$name'";

	$times //= 1;
	$node->wait_for("$name is $type",
		"SELECT (SELECT count(*) >= $times $events) OR prometheus_set_alert('$name', '$threshold') = 0");
	is( sql("SELECT count(*) $events"), $times, "$name is $type, once");
	return sql("SELECT data ->> 'what' $events ORDER BY event_id DESC LIMIT 1");
}

sub raised { return alert($_[0], $_[1], 'raised', $_[2]); }
sub cleared { return alert($_[0], $_[1], 'cleared', $_[2]); }
sub set { sql("ALTER SYSTEM SET $_[0]"); $node->reload; return; }

# WAL: since the last checkpoint, kept by a slot, not yet with who streams it.
# What an administrator sees, and the fields of both events.
my $receiver = IPC::Run::start(
	[ 'pg_receivewal', '-d', $node->connstr('postgres'), '-D', $wal, '-n', '--synchronous' ],
	'<', \undef, '>', \my $received, '2>', \my $said);
$node->wait_for('WAL is streamed',
	'SELECT count(flush_lsn) FROM pg_stat_replication', '1');
my $sender = sql('SELECT pid FROM pg_stat_replication');
$receiver->signal('STOP');
sql(q{SELECT pg_create_physical_replication_slot('keeps', true)});
sql(q{SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1000000))) FROM generate_series(1, 12)});
raised('wal_since_checkpoint', '6 MB');
is(raised('wal_kept_by_slots', '6 MB'), 'slot "keeps"', 'by which slot');
is(raised('replica_lag', '6 MB'), "sent by process $sender", 'who streams it');
like( sql(q{SELECT concat_ws(' ', status, value, threshold, since IS NOT NULL, what) FROM prometheus.alert WHERE name = 'wal_kept_by_slots'}),
	qr/^raised 1[1-9](\.\d)? MB 6 MB t slot "keeps"$/, 'the view says so');
like($node->health('alert wal_kept_by_slots'),
	qr/^warning\|1[1-9](\.\d)? MB; the threshold is 6 MB; slot "keeps"\|.*drop the slot/,
	'and health, and what to do');
is( sql(q{SELECT concat_ws(' ', task_id, agent, data ->> 'name', data ->> 'threshold', data ->> 'value' ~ '^1[1-9].* MB$', (SELECT a.hint = e.data ->> 'hint' FROM prometheus.alert a WHERE a.name = e.subject)) FROM prometheus.event e WHERE type = 'alert.raised' AND subject = 'wal_kept_by_slots'}),
	'wal_kept_by_slots 6 MB t t', 'what the event tells');
$receiver->signal('CONT');
sql(q{SELECT pg_drop_replication_slot('keeps'); CHECKPOINT});
cleared($_, '6 MB') foreach 'wal_since_checkpoint', 'wal_kept_by_slots', 'replica_lag';
is( sql(q{SELECT count(*) FROM prometheus.event c JOIN prometheus.event r ON r.event_id = c.caused_by AND r.type = 'alert.raised' AND r.subject = c.subject
		WHERE c.type = 'alert.cleared' AND c.data ->> 'name' = c.subject AND c.data ->> 'threshold' = '6 MB' AND c.data ? 'value' AND (c.data ->> 'seconds')::numeric > 0
		AND (c.data ->> 'raised_at')::timestamptz BETWEEN r.created_at - interval '5 s' AND c.created_at}),
	3, 'which are told again when they are cleared, with how long that was');

$node->check_event_fields('alert.raised', 'alert.cleared');
$receiver->signal('TERM');
eval { $receiver->finish };

# The archiver.
set(q{archive_command = 'false'});
sql(q{SELECT pg_switch_wal()});
$node->wait_for('archiving fails',
	'SELECT failed_count > 0 FROM pg_stat_archiver');
like(raised('archive_failures', '0'), qr/^segment [0-9A-F]{24}$/, 'which segment');
set(q{archive_command = 'true'});
cleared('archive_failures', '0');

# Transactions: one that has a snapshot, one that is prepared.
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_backend_pid()');
is(raised('oldest_snapshot', '200ms'), "process $pid", 'which process');
$session->quit;
cleared('oldest_snapshot', '200ms');
sql(q{BEGIN; CREATE TABLE forgotten (); PREPARE TRANSACTION 'forgotten'});
is(raised('oldest_prepared', '1 ms'), 'transaction "forgotten"', 'which one');
sql(q{ROLLBACK PREPARED 'forgotten'});
cleared('oldest_prepared', '1 ms');

# A task that does not run, since its model is paused.
sql(q{SELECT prometheus_pause('model:echo')});
my $task = $node->submit(q{'waits'});
is(raised('oldest_due', '1 ms'), "task $task", 'which task');
is(raised('gates_closed', '1 ms'), 'model:echo', 'which gate');

# No other role is told of alerts, but that there are some.
sql(q{CREATE ROLE someone; GRANT prometheus_agent_user TO someone});
is( sql(q{SET ROLE someone; SELECT count(*) FROM prometheus.event WHERE type ~ '^alert'}),
	0, 'events are for administrators');
is( sql(q{SET ROLE someone; SELECT status, what IS NULL FROM prometheus.alert WHERE name = 'gates_closed'}),
	'raised|t', 'users see what is raised, not what it is about');

# Who reads events, and does not; a subscription that cannot. The consumer has
# not acknowledged what it was given; at the end there is nothing new for it.
sql(q{SELECT prometheus_create_consumer('reader', '{read}')});
sql(q{SELECT prometheus_emit('read')});
is(sql(q{SELECT count(*) FROM prometheus_poll('reader')}), 1, 'it is given one');
is(raised('consumer_lag', '1 ms'), 'consumer "reader"', 'which consumer');
like($node->health('alert consumer_lag'), qr/^warning\|.*; the threshold is 1 ms; consumer "reader"\|.*acknowledge/, 'and health, and what to do');
sql(q{SELECT prometheus_ack('reader')});
$node->wait_for('it has read all', q{SELECT count(*) = 0 AND (SELECT number = 0 FROM prometheus.alert WHERE name = 'consumer_lag') OR prometheus_set_alert('consumer_lag', '1 ms') = 0 FROM prometheus_poll('reader')});
cleared('consumer_lag', '1 h');
sql(q{CREATE FUNCTION fails(e prometheus.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END';
	SELECT prometheus_subscribe('fails', 'fails(prometheus.event)', types => '{read}', max_attempts => 1), prometheus_emit('read')});
is(raised('dead_letters', '0'), 'subscription "fails"', 'whose letter');
sql(q{SELECT prometheus_discard('fails')});
cleared('dead_letters', '0');
sql(q{SELECT prometheus_unsubscribe('fails'), prometheus_drop_consumer('reader')});

# A process that is missing, for its launcher does not start it.
my $launcher = $node->signal_worker('STOP', 'launcher');
$node->wait_gone($node->signal_worker('TERM', 'caller'));
is(raised('workers_missing', '1 ms'), 'caller', 'which process');
kill('CONT', $launcher) == 1 or die "could not continue $launcher: $!";
cleared('workers_missing', '1 ms');

# Or an executor, which nobody misses before there is something for it.
sql(q{SELECT prometheus_set_agent('scripted', 'scripted')});
$launcher = $node->signal_worker('STOP', 'launcher');
my $stuck = $node->submit($node->script('done') . q{, 'scripted'});
is(raised('workers_missing', '1 ms', 2), 'executor', 'an executor, too');
kill('CONT', $launcher) == 1 or die "could not continue $launcher: $!";
cleared('workers_missing', '1 ms', 2);
$node->wait_task($stuck, 'completed');
raised('worker_processes', '10 %');
cleared('oldest_due', 'off');

# What is raised outlives a restart.
my $since = sql(q{SELECT since FROM prometheus.alert WHERE name = 'gates_closed'});
$node->restart;
is( sql(q{SELECT since FROM prometheus.alert WHERE name = 'gates_closed' AND status = 'raised'}),
	$since, 'it is raised still');
cleared('worker_processes', '100 %');
raised('gates_closed', '1 ms');
sql(q{SELECT prometheus_resume('model:echo')});
$node->wait_task($task, 'completed');
cleared('gates_closed', '1 ms');

# Money: a budget nearly spent, a provider that asks for some.
sql(q{SELECT prometheus_set_budget('all', 'day', 1500)});
$node->run_script('scripted', ['done']);
is(raised('budget_spent', '0.5 %'), 'all per day', 'which budget');
is(sql(q{SET ROLE someone; SELECT a.status, num_nulls(a.value, a.number, a.what), h.value FROM prometheus.alert a, prometheus_health() h WHERE a.name = 'budget_spent' AND h.check_name = 'alert budget_spent'}),
	'raised|3|not shown; the threshold is 0.5 %', 'how much is spent is for administrators');
like($node->health('alert budget_spent'), qr/^warning\|\d+ %; .*; all per day\|/, 'who see it');
sql(q{SELECT prometheus_set_budget('all', 'day', 1000000)});
$node->run_script('scripted', ['done']);
cleared('budget_spent', '0.5 %');
$node->fake_agent($llm, 'fake-402');
my $poor = $node->submit(q{'asks for money', 'fake-402'});
is(raised('model_money', '0'), 'model:fake-402', 'which model');
sql("SELECT prometheus_cancel($poor); SELECT prometheus_pause('model:fake-402')");
$node->wait_task($poor, 'cancelled');
sql(q{SELECT prometheus_resume('model:fake-402')});
cleared('model_money', '0');

# Sizes, and what is off.
raised('storage_size', '100 kB');
cleared('storage_size', 'off');
is(sql(q{SELECT status FROM prometheus.alert WHERE name = 'storage_size'}),
	'off', 'what is off is not raised');
is( sql(q{SELECT string_agg(name, ' ') FROM prometheus.alert WHERE status = 'raised'}),
	'', 'nothing is raised any more');

# Nothing of it needs a statement: at a reload the publisher looks at once.
$node->keep_sessions('template1');
sub watch { return $node->safe_psql('template1', $_[0]); }
sub looks
{
	return watch(q{SELECT string_agg(format('%s %s', pid, state_change), ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type ~ '^prometheus' AND datname = 'postgres'});
}
$node->wait_for('the first checkpoint and the last mark are written',
	q{SELECT max(written_at) > pg_postmaster_start_time() AND (SELECT number = 0 FROM prometheus.alert WHERE name = 'marks_late') FROM prometheus._checkpoint});
$node->wait_for('nobody is in the database',
	q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND backend_type !~ '^prometheus' OR backend_type ~ '^prometheus' AND state <> 'idle'},
	'0', dbname => 'template1');
my $before = looks();
$node->reload;
my $end = watch(q{SELECT now() + interval '1 s'});
$node->wait_for('a while has passed', "SELECT now() > '$end'", 't', dbname => 'template1');
is(looks(), $before, 'the publisher looks without a statement');

# But for a session that was ended on purpose, which may say so.
is($node->log_count(qr/ (?:FATAL|PANIC):  (?!terminating connection due to administrator command)/), 0, 'nothing failed');
$node->stop;
$llm->stop;
done_testing();
