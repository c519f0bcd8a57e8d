# The publisher dies, or fails, at each point of a pass of retention: of each
# tree all is there or nothing, and what goes was written for the audit; of rows
# the newest version is always there.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $audited = 0;
my $days = 100;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# One begins at once when the setting has changed; a server that is
# falling takes none.  Shorter each time, or the horizon would stay where it is.
sub begin_pass
{
	$days--;
	$node->psql('postgres', "ALTER SYSTEM SET prometheus.retention = '${days}d'");
	$node->psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

$node->init(restart_after_crash => 1, conf => "prometheus.retention = 0\nprometheus.max_crashes = 100\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;

sql(q{CREATE TABLE kept (id int PRIMARY KEY, n int); SELECT prometheus_track('kept'); INSERT INTO kept SELECT i, 0 FROM generate_series(1, 20) i});
my $newest = q{SELECT count(*) FROM kept FULL JOIN (SELECT DISTINCT ON (key) key::int AS id, fields FROM prometheus._row_version ORDER BY key, version_id DESC) v
	USING (id) WHERE kept.n IS DISTINCT FROM v.fields[2]::int};
my @points = slurp_file('src/fault.c') =~ /^\t\{"(retention-[a-z-]+)", /mg;
cmp_ok(scalar @points, '>', 3, 'there are points');
foreach my $fault (map { ("$_:die", "$_:error") } @points)
{
	my ($point) = split /:/, $fault;

	# Trees of two, of age.
	my $n = sql(q{SELECT count(*) FROM (SELECT prometheus_submit('x', depends_on => ARRAY[prometheus_submit('x')]) FROM generate_series(1, 20) OFFSET 0) x});
	$node->wait_for("$fault: all have ended", 'SELECT count(*) FROM prometheus.task WHERE ended_at IS NULL', 0);
	sql('UPDATE kept SET n = n + 1; DELETE FROM kept WHERE id = (SELECT min(id) FROM kept)');
	sql('SELECT prometheus_mark()');
	sql(qq{UPDATE prometheus._row_version SET changed_at = changed_at - interval '200 days' WHERE changed_at > now() - interval '1 day';
		UPDATE prometheus._outcome SET ended_at = ended_at - interval '200 days' WHERE ended_at > now() - interval '1 day';
		UPDATE prometheus._mark SET at = at - interval '$days days' WHERE at > now() - interval '1 day'});
	$node->set_fault($fault);
	begin_pass();
	$node->wait_for("$fault: it has been met", 'SELECT 1', 1) until $node->fault_fired($point);
	$node->wait_for("$fault: each tree is there, or is not",
		q{SELECT count(*) FROM prometheus._task t FULL JOIN prometheus._attempt a USING (task_id) FULL JOIN prometheus._step s USING (task_id)
			FULL JOIN prometheus._outcome o USING (task_id)
			WHERE t IS NULL OR a IS NULL OR s IS NULL OR o IS NULL
			   OR NOT EXISTS (SELECT FROM prometheus._task d WHERE d.task_id <> t.task_id AND (d.depends_on @> ARRAY[t.task_id] OR t.depends_on @> ARRAY[d.task_id]))},
		0);
	$audited += 2 * $n;
	is(sql('SELECT sum(tasks) FROM prometheus.usage'), $audited, "$fault: nothing is counted twice, or not at all");
	is(sql($newest), 0, "$fault: the newest version of each row is there");
	$node->set_fault('');
	begin_pass();
	$node->wait_for("$fault: then they go", 'SELECT count(*) FROM prometheus._task', 0);
	$node->wait_for("$fault: so do versions of rows", 'SELECT count(*) - (SELECT count(*) FROM kept) FROM prometheus._row_version', 0);
	is(sql($newest), 0, "$fault: but not the newest ones");
	is(sql('SELECT sum(tasks) FROM prometheus._audit_usage'), $audited, "$fault: all are in the audit");
	is(sql('SELECT count(*) FROM prometheus.verdict'), $audited, "$fault: so are the verdicts");
	$node->check_invariants("$fault: invariants");
}
$node->stop;
done_testing();
