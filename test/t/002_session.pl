# Statements that go to a psql that stays (PromSession.pm) end as those that
# have one of their own, and find nothing of those before them.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $pid = 'SELECT pg_backend_pid()';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The same of both kinds: status, output, messages without their lines.
sub results
{
	return map {
		my ($rc, $out, $err) = $node->psql('postgres', $_);
		$err =~ s/^psql:<stdin>:\d+: //mg;
		[ $rc, $out, $err ];
	} 'SELECT 1; SELECT NULL, 2', "SELECT 1;\n\n-- none", q{SELECT E'a\nb'}, q{SELECT 'é'}, '',
	  'SELECT 1; SELECT 1/0; SELECT 2', 'SELECT 1; SELEC',
	  q{DO $$BEGIN RAISE NOTICE 'said'; END$$; SELECT 3},
	  'BEGIN; SELECT 1; ROLLBACK', 'BEGIN; SELECT 1/0; COMMIT', 'SELECT (1', "SELECT '1",
	  "SELECT repeat('x', 200000)";
}

$node->init(databases => []);
$node->start;
my @own = results();
isnt(sql($pid), sql($pid), 'each has a session of its own');
$node->keep_sessions;
is_deeply([ results() ], \@own, 'a session that stays: the same results');
is(sql($pid), my $first = sql($pid), 'they have one session');

sql(q{SET work_mem = '1MB'; SET ROLE pg_monitor; CREATE TEMP TABLE t (); PREPARE p AS SELECT 1; SELECT pg_advisory_lock(1)});
is(sql($pid), $first, 'what changes a session does not end it');
is( sql(q{SELECT concat_ws(' ', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), (SELECT count(*) FROM pg_prepared_statements), to_regclass('t'), current_user = session_user, current_setting('work_mem') = '1MB')}),
	'0 0 t f', 'but nothing of it is left');

sql('CREATE TABLE kept (); BEGIN; CREATE TABLE lost ()');
isnt(sql($pid), $first, 'an open transaction ends it');
is(sql(q{SELECT concat_ws(' ', to_regclass('kept'), to_regclass('lost'))}), 'kept', 'and is rolled back');
ok(!eval { sql('SELECT 1; SELECT 1/0'); 1 } && $@ =~ /division by zero/, 'an error is told');

my $now = sql($pid);
my $other = $node->background_psql('postgres');
$other->query_safe("SELECT pg_terminate_backend($now, 10000)");
$other->quit;
isnt(sql($pid), $now, 'one that was ended is replaced');
sql(q{ALTER DATABASE postgres SET work_mem = '2MB'});
is(sql('SHOW work_mem'), '2MB', 'settings of a database are those of the next');
sql(q{ALTER SYSTEM SET prometheus.executors = 7});
$node->reload;
is(sql('SHOW prometheus.executors'), '7', 'and so are those of the server');
$node->stop('smart');
is(($node->psql('postgres', 'SELECT 1'))[0], 2, 'there is no server');
ok(!eval { sql('SELECT 1'); 1 }, 'and that is an error');
$node->start;
is(sql('SELECT 1'), '1', 'until there is one');
$node->stop;
done_testing();
