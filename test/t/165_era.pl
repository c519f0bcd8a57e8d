# A copy of a database spends nothing until somebody says so: a restored dump,
# a copy by CREATE DATABASE, facts that are restored into a database in use.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $other = PromCluster->new('other');
my $dumps = PostgreSQL::Test::Utils::tempdir();
my $conf = "prometheus.rescan_interval = '100ms'\n";
my $waits = 'a copy of another database, all tasks are paused|SELECT prometheus_resume() lets them run.';
my $warning = qr/WARNING:  database "(\w+)" is a copy: all its tasks are paused\n.*DETAIL:  .*\n.*HINT:  SELECT prometheus_resume\(\) lets them run\./;

sub sql { return $other->safe_psql($_[1] // 'postgres', $_[0]); }

# The tasks of a database that are live, in its facts and in its queue.
sub live
{
	return sql(q{SELECT coalesce(string_agg(request, ',' ORDER BY request), '') FROM prometheus.task WHERE ended_at IS NULL}, @_);
}

sub wait_queue
{
	my ($expected, $what, $dbname) = @_;
	$other->wait_for("$what: the queue has them",
		q{SELECT coalesce(string_agg(t.request, ',' ORDER BY t.request), '') FROM prometheus.queue q JOIN prometheus.task t USING (task_id)},
		$expected, dbname => $dbname);
	return;
}

# Two more scans after everything was in the queue: enough for anything to run.
sub nothing_runs
{
	my ($expected, $what, $dbname) = @_;
	$dbname //= 'postgres';
	my $scans = q{SELECT value::int FROM prometheus_health() WHERE check_name = 'scans of the task table'};
	my $before;

	wait_queue($expected, $what, $dbname);
	$before = sql($scans, $dbname);
	$other->wait_for("$what: the table is read again",
		"SELECT txid_current() > 0 AND ($scans) > $before + 2",
		't', dbname => $dbname);
	is(sql(q{SELECT DISTINCT status FROM prometheus.task WHERE ended_at IS NULL}, $dbname),
		'queued', "$what: tasks are queued");
	is(sql(q{SELECT count(*) FROM prometheus._attempt WHERE xid >= (SELECT (max(era)::bigint << 48)::text::xid8 FROM prometheus._era)}, $dbname),
		0, "$what: nothing runs");
	return;
}

sub resume
{
	my ($dbname) = @_;
	sql('SELECT prometheus_resume()', $dbname);
	return;
}

sub serve
{
	my ($databases) = @_;
	$other->append_conf('postgresql.conf', "prometheus.databases = '$databases'\n");
	$other->restart;
	return;
}

sub all_have_ended
{
	my ($what, $dbname) = @_;
	$other->wait_for("$what: everything runs",
		'SELECT count(*) FROM prometheus.task WHERE ended_at IS NULL', 0, dbname => $dbname);
	$other->check_invariants("$what: invariants", all_ended => 1, dbname => $dbname);
	return;
}

# A task as a restore brings it: its xid looks older than any checkpoint.
sub restore_old
{
	my ($task_id, $request) = @_;
	sql(qq{INSERT INTO prometheus._task
		SELECT $task_id, $task_id, '281474976710659', submitted_at, run_at, deadline, priority, max_attempts, submitter_oid,
		       submitter, agent, mode, trace_id, '$request', metadata FROM prometheus._task WHERE request = 'shop 2'});
	return;
}

# A database with something that has ended and something that has not.
sub make_source
{
	my ($dbname, $first, $name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $dbname") if $dbname ne 'postgres';
	$node->create_extension($dbname);
	$node->safe_psql($dbname, <<"EOSQL");
SELECT setval('prometheus._task_id', $first), setval('prometheus._fact_id', $first);
SET client_min_messages = error;
SELECT count(prometheus_submit('$name ' || n)) FROM generate_series(1, 3) n;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT min(task_id), 1, $first, prometheus._xid(), now(), 0, 'cancelled' FROM prometheus._task;
EOSQL
	return;
}

$node->init(databases => []);
$node->start;
make_source('postgres', 1, 'live');
make_source('shop', 100000, 'shop');
is($node->health('era'), 'ok|1|', 'the first: the era is ours');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dumps/all", 'postgres' ], 'pg_dump');
$node->command_ok([ 'pg_dump', '-a', '-f', "$dumps/data", 'shop' ], 'pg_dump of data only');
$node->stop;

# Restored into another server, in a database that is served meanwhile.
$other->init(conf => $conf);
$other->start;
my $log = $other->log_end;
$other->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'postgres', "$dumps/all" ], 'restored');
$other->wait_for('restore: the scheduler raises the era',
	q{SELECT count(*) FROM prometheus._gate}, 1);
is($other->health('era'), "warning|2; $waits", 'restore: health says that it is a copy');
like(slurp_file($other->logfile, $log), $warning, 'restore: so does the log');
my $paused = sql(q{SET client_min_messages = error; SELECT prometheus_submit('while paused')});
nothing_runs('live 2,live 3,while paused', 'restore');
is($other->log_count($warning, $log), 1, 'restore: it is said once');
$other->restart;
nothing_runs('live 2,live 3,while paused', 'restore and restart');
resume('postgres');
all_have_ended('restore, resumed');
is(sql("SELECT status FROM prometheus.task WHERE task_id = $paused"), 'completed', 'restore: what was submitted meanwhile too');
is($other->health('era'), 'ok|2|', 'restore, resumed: health is content');
is( sql(q{SELECT string_agg(DISTINCT (xid::text::bigint >> 48)::text, ' ') FROM prometheus._task WHERE request ~ 'live'}),
	1, 'restore: old facts are of the old era');
is( sql(q{SELECT string_agg(DISTINCT (xid::text::bigint >> 48)::text, ' ') FROM (SELECT xid FROM prometheus._task WHERE request = 'while paused' UNION ALL SELECT xid FROM prometheus._attempt UNION ALL SELECT xid FROM prometheus._step) x}),
	2, 'restore: new ones are of the new one');

# A start reads what the checkpoint names and what came after it, in this era.
my $hidden = sql(q{SELECT prometheus_submit('later', run_at => now() + interval '1 year')});
my $listed = sql(q{SELECT prometheus_submit('later, too', run_at => now() + interval '1 year')});
serve('');
is( sql(q{SELECT (pg_snapshot_xmin(snapshot)::text::bigint >> 48) || ' ' || eras || ' ' || waits FROM prometheus._checkpoint ORDER BY checkpoint_id DESC LIMIT 1}),
	'2 3 false', 'the checkpoint is of this era');
sql("UPDATE prometheus._checkpoint SET live = array_remove(live, $hidden)");
sql(q{SET client_min_messages = error; SELECT prometheus_submit('without a hint')});
serve('postgres');
$other->wait_for('checkpoint: what came after it is found',
	q{SELECT status FROM prometheus.task WHERE request = 'without a hint'}, 'completed');
$other->wait_for('checkpoint: it was used',
	q{SELECT string_agg(task_id::text, ' ') FROM prometheus.queue}, $listed);

# A copy by CREATE DATABASE, of a database in use: the first write pauses it.
sql(q{SELECT prometheus_create_consumer('reader')});
sql('CREATE DATABASE copy TEMPLATE postgres');
sql('CREATE DATABASE clone TEMPLATE postgres');
is( $other->health('era', dbname => 'copy'),
	'warning|2, of another database; all tasks will be paused|This is a copy: the next submit or its scheduler begins a new era.',
	'copy: health says what will be');
is( $other->safe_psql('copy', 'SELECT count(lag) FROM prometheus.consumer; SELECT max(era) FROM prometheus._era'),
	"1\n2", 'copy: who only reads begins no era');
my ($rc, $out, $err) = $other->psql('copy', q{SELECT prometheus_submit('in the copy')});
like($err, qr/WARNING:  database "copy" is a copy/, 'copy: the first submit warns');
is($other->health('era', dbname => 'copy'), "warning|3; $waits", 'copy: health says that it is one');
is($other->health('era'), 'ok|2|', 'copy: the original is none');
serve('postgres, copy, clone');
nothing_runs('in the copy,later,later, too', 'copy', 'copy');
resume('copy');
$other->wait_for('copy, resumed: it runs', q{SELECT status FROM prometheus.task WHERE request = 'in the copy'}, 'completed', dbname => 'copy');

# ... and without a write, its scheduler does.
$other->wait_for('clone: it is paused', q{SELECT count(*) FROM prometheus._gate}, 1, dbname => 'clone');
is($other->health('era', dbname => 'clone'), "warning|3; $waits", 'clone: health says that it is a copy');
wait_queue('later,later, too', 'clone', 'clone');
serve('postgres');
sql('DROP DATABASE clone');
sql('DROP DATABASE copy');

# Facts of another database, restored after there is a checkpoint of one that
# runs: they are found, and paused.
sql('DELETE FROM prometheus._checkpoint');
$other->restart;
sql("SELECT prometheus_cancel($listed), prometheus_cancel($hidden)");
all_have_ended('before the data');
$other->restart;
$other->worker_pid('scheduler');
is( sql(q{SELECT eras || ' ' || cardinality(live) FROM prometheus._checkpoint ORDER BY checkpoint_id DESC LIMIT 1}),
	'3 0', 'data: there is a checkpoint');
$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dumps/data", 'postgres' ], 'data restored');
$other->wait_for('data: it is paused', q{SELECT count(*) FROM prometheus._gate}, 1);
is($other->health('era'), "warning|3; $waits", 'data: health says so');
nothing_runs('shop 2,shop 3', 'data');

# A restore may go on while a checkpoint is written: what comes after it, and
# looks older, is found when the copy is resumed.
serve('');
is( sql(q{SELECT eras || ' ' || waits FROM prometheus._checkpoint ORDER BY checkpoint_id DESC LIMIT 1}),
	'5 true', 'data: there is a checkpoint of the time while it is paused');
restore_old(200000, 'shop 4');
sql('SELECT prometheus_resume()');
serve('postgres');
all_have_ended('data, resumed');
is(sql(q{SELECT string_agg(request || ' ' || status, ',' ORDER BY request) FROM prometheus.task WHERE request ~ 'shop'}),
	'shop 1 cancelled,shop 2 completed,shop 3 completed,shop 4 completed', 'data, resumed: each runs');
is($other->health('era'), 'ok|3|', 'data, resumed: health is content');

# A dump of this very database pauses nothing, and is found all the same.
serve('');
is(sql('SELECT bool_or(waits) FROM prometheus._checkpoint WHERE checkpoint_id = (SELECT max(checkpoint_id) FROM prometheus._checkpoint)'),
	'f', 'own data: there is a checkpoint');
sql('INSERT INTO prometheus._era SELECT * FROM prometheus._era WHERE era = 3');
restore_old(200001, 'shop 5');
serve('postgres');
all_have_ended('own data');
is($other->health('era'), 'ok|3|', 'own data: health is content');
is($other->log_count(qr/ (ERROR|PANIC): /, $log), 0, 'no error');
$other->stop;
done_testing();
