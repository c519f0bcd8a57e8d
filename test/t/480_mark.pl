# Marks: written while facts change, one by one, and AS OF by them: repeatable,
# on a standby and after a crash too.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('mark');
$node->init(
	allows_streaming => 1,
	conf => "prometheus.mark_interval = '100ms'\nmax_prepared_transactions = 4\nwal_level = replica\n");
$node->start;
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub newest { return sql('SELECT coalesce(max(mark_id), 0) FROM prometheus.mark'); }
sub now { return sql('SELECT clock_timestamp()'); }

# Wait for a mark after one, and return the newest.
sub wait_mark
{
	my ($after) = @_;
	$node->wait_for("a mark after $after",
		"SELECT max(mark_id) > $after FROM prometheus.mark");
	return newest();
}

# While facts change, and not else.

is(newest(), 0, 'a new database has no mark');
my $id = $node->submit(q{'one'});
$node->wait_task($id, 'completed');
$node->wait_for('a mark sees the end of the task',
	q{SELECT bool_and(pg_visible_in_snapshot(o.xid, m.snapshot)) FROM prometheus._outcome o, (SELECT snapshot FROM prometheus._mark ORDER BY mark_id DESC LIMIT 1) m});
my $before = newest();
my $moment = now();
$node->wait_for('time passes',
	"SELECT clock_timestamp() > '$moment'::timestamptz + interval '300 ms'");
is(newest(), $before, 'and no other comes while nothing changes');

my %writers = (
	'an agent is set' => q{SELECT prometheus_set_agent('mine', 'echo')},
	'a memory is stored' => q{SELECT prometheus_remember('mine', 'x')},
	'a budget is set' => q{SELECT prometheus_set_budget('all', 'day', 1000000)},
	'a prepared transaction is committed' =>
	  q{BEGIN; SELECT prometheus_remember('mine', 'y'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'});
foreach my $what (sort keys %writers)
{
	$before = newest();
	sql($writers{$what});
	cmp_ok(wait_mark($before), '>', $before, "a mark comes when $what");
}
is( sql(q{SELECT count(*) FROM (SELECT mark_id, at, lag(at) OVER w AS at_before, lag(mark_id) OVER w AS id_before FROM prometheus.mark WINDOW w AS (ORDER BY mark_id)) m WHERE at <= at_before OR mark_id <> id_before + 1}),
	0, 'they are dense, and their times grow');

# The column mark of versions.

my $known = sql(q{SELECT prometheus_mark()});
sql(q{SELECT prometheus_set_agent('mine', instructions => 'newer')});
cmp_ok(sql(q{SELECT mark FROM prometheus._agent WHERE name = 'mine' ORDER BY version DESC LIMIT 1}),
	'>=', $known, 'a version has the newest mark');

# Names.

my $named = sql(q{SELECT prometheus_mark('before')});
is(sql(q{SELECT mark_id FROM prometheus.mark WHERE name = 'before'}), $named, 'a mark has a name');
is($node->error_of(q{SELECT prometheus_mark('before')})->{state}, '42710', 'which no other may have');
sql(q{BEGIN; SELECT prometheus_mark('kept'); ROLLBACK});
is(sql(q{SELECT count(*) FROM prometheus.mark WHERE name = 'kept'}), 1, 'it stays when the caller rolls back');
sql(q{SELECT prometheus_drop_mark('kept')});
is(sql(q{SELECT prometheus_mark('kept') > 0}), 't', 'a name that was dropped is free');
cmp_ok($node->log_count(qr/restore point "before" created/), '==', 1, 'a name is a restore point');
is(sql(q{BEGIN; SELECT prometheus_remember('mine', 'mine'); SELECT prometheus_mark('without'); COMMIT; SELECT count(*) FROM prometheus._memory m, prometheus._mark k JOIN prometheus._mark_name n USING (mark_id) WHERE m.content = 'mine' AND n.name = 'without' AND pg_visible_in_snapshot(m.xid, k.snapshot)}) =~ /\n0$/ ? 1 : 0,
	1, 'what the caller has not committed is not in it');

# Sessions that ask at the same time, and one that gives up.

$node->signal_worker('STOP', 'publisher');
my @asking = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 3;
$asking[$_]->query_until(qr/asking/, "\\echo asking\nSELECT prometheus_mark('many $_');\n\\echo done $_\n") foreach 0 .. 2;
$node->wait_for('all of them wait',
	q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%prometheus_mark(''many%' AND pid <> pg_backend_pid() AND wait_event_type = 'Extension'}, '3');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%''many 1''%' AND pid <> pg_backend_pid()});
$node->signal_worker('CONT', 'publisher');
$node->wait_for('the others have their marks', q{SELECT count(*) >= 2 FROM prometheus.mark WHERE name LIKE 'many%'});
$_->quit foreach @asking;
pass('sessions that ask at the same time, and one that gives up');

# The end of the publisher, and of the server.

$moment = now();
sql(q{SELECT prometheus_remember('mine', 'before the end')});
wait_mark(newest() - 1);
my $seen = "SELECT count(*) FILTER (WHERE prometheus._seen_at(xid, '%s')), count(*) FROM prometheus._memory";
is(sql(sprintf $seen, $moment), '3|4', 'AS OF a moment');
$before = newest();
my $pid = $node->signal_worker('TERM', 'publisher');
$node->worker_pid('publisher', other_than => $pid);
is(sql(sprintf $seen, $moment), '3|4', 'when its publisher has ended');
$node->stop('immediate');
$node->start;
$node->worker_pid('publisher');
is(sql(sprintf $seen, $moment), '3|4', 'and after a crash');
sql(q{SELECT prometheus_remember('mine', 'after the end')});
cmp_ok(wait_mark($before), '>', $before, 'their numbers go on');
is( sql(q{SELECT count(*) FROM (SELECT at, lag(at) OVER (ORDER BY mark_id) AS at_before FROM prometheus.mark) m WHERE at <= at_before}),
	0, 'and their times');

# A moment that no mark closes is closed on request, of an idle server too.
$node->wait_for('all is marked',
	q{SELECT max(at) > (SELECT max(created_at) FROM prometheus._memory) FROM prometheus.mark});
$moment = now();
is(sql(sprintf $seen, $moment), '5|5', 'a moment just now');
is(sql(sprintf $seen, $moment), '5|5', 'and again');

is( $node->error_of(q{SELECT prometheus._seen_at('1', now() + interval '1 minute')})->{state},
	'55000', 'not the future');
like( $node->error_of(q{SELECT prometheus._seen_at('1', '2020-01-01')})->{message},
	qr/^nothing is known of 2020-01-01/, 'nor what was before the first');

# Statements that are prepared, and parallel ones.
my ($first, $second) = split /\n/,
  sql(q{SELECT m.at FROM prometheus.mark m WHERE name IN ('before', 'without') ORDER BY mark_id});
is( sql(qq{PREPARE p AS SELECT count(*) FROM prometheus.memory;
	SET plan_cache_mode = force_generic_plan;
	SET prometheus.as_of = '$first'; EXECUTE p;
	SET prometheus.as_of = '$second'; EXECUTE p;
	SET prometheus.as_of = 'mark:before'; EXECUTE p;
	RESET prometheus.as_of; EXECUTE p}),
	"2\n2\n2\n5", 'a prepared statement goes by the setting');
sql(q{SELECT count(*) FROM prometheus_submit_many(ARRAY(SELECT 'x' FROM generate_series(1, 3000)))});
$node->wait_for('all are done',
	q{SELECT count(*) FROM prometheus._outcome WHERE outcome = 'completed'}, '3001');
sql(q{ANALYZE; SELECT prometheus_mark('parallel')});
sql(q{SELECT count(*) FROM prometheus_submit_many(ARRAY(SELECT 'y' FROM generate_series(1, 3000)))});
my $parallel = q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SET TimeZone = 'Asia/Tokyo';};
my $count = q{SELECT count(*) FROM prometheus._task WHERE prometheus._seen(xid)};
like(sql("$parallel EXPLAIN $count"), qr/Parallel Seq Scan/, 'a plan is parallel');
is(sql("$parallel SET prometheus.as_of = 'mark:parallel'; SET parallel_leader_participation = off; $count; SET prometheus.as_of = '$first'; $count"),
	"3001\n1", 'and parallel workers see the same');

# A transaction whose snapshot is older.
my $old = $node->background_psql('postgres', on_error_stop => 0);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql(q{SELECT prometheus_remember('mine', 'later')});
my $later = sql(q{SELECT prometheus_mark()});
$moment = now();
$old->query("SELECT prometheus._seen_at('1', '$moment')");
like($old->{stderr}, qr/snapshot of this transaction is older/, 'a snapshot that is older than the moment');
$old->quit;

# Marks that cannot be written: once in the log, until they can.
sql(q{ALTER TABLE prometheus._mark ADD CONSTRAINT none CHECK (mark_id < 0) NOT VALID});
sql(q{SELECT prometheus_emit('unmarked')});
$node->wait_for('some could not be written', q{SELECT number > 2.5 FROM prometheus.alert WHERE name = 'marks_late'});
is($node->log_count(qr/violates check constraint "none"/), 1, 'that is logged once');
sql(q{ALTER TABLE prometheus._mark DROP CONSTRAINT none});
sql(q{SELECT prometheus_mark()});
is($node->log_count(qr/the publisher can write marks again/), 1, 'and that it is over');
cmp_ok(($node->log_count(qr/It could not [2-9]\d* times in a row/)), '==', 1, 'and how often it could not');

# A standby: what is replicated, and no snapshot of its own.
$node->backup('b');
my $standby = PromCluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
my $open = $node->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT prometheus_remember('mine', 'open')});
sql(q{SELECT prometheus_remember('mine', 'done')});
sql(q{SELECT prometheus_mark()});
$moment = now();
sql(q{SELECT prometheus_mark()});
$open->query_safe('COMMIT');
$open->quit;
sql(q{SELECT prometheus_mark()}); # or the publisher writes one of itself, later
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', sprintf $seen, $moment), '7|8', 'a standby does not show what was open at the moment');
is(sql(sprintf $seen, $moment), '7|8', 'nor does the primary');
like( ($standby->psql('postgres', 'SELECT prometheus._seen_at(\'1\', clock_timestamp())'))[2],
	qr/cannot be said yet/, 'a standby waits for the next mark in vain');
is($standby->error_of('SELECT prometheus_mark()')->{state}, '25006', 'and writes none');

$standby->stop;
$node->stop;
done_testing();
