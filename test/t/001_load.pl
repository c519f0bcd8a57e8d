# How the library is loaded, and how the launcher finds what it is to serve:
# late loading, databases and extensions that come, go and come again, and too
# few places for all of it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use PromMetrics;
use Test::More;

# Every start of a worker is a line of the server's log.
sub starts
{
	my ($node, $database, $offset) = @_;
	return $node->log_count(
		qr/starting background worker process "prometheus \w+ of database "$database""/,
		$offset);
}

sub ask
{
	my ($node, $dbname) = @_;
	return $node->safe_psql($dbname, "CALL prometheus_ask('hello')");
}

sub serve
{
	my ($node, $databases) = @_;
	$node->safe_psql('postgres',
		"ALTER SYSTEM SET prometheus.databases = '$databases'");
	$node->reload;
	return;
}

# Longer than the launcher would wait before it starts again what ended at once.
sub wait_a_while
{
	my ($node) = @_;
	my $end = $node->safe_psql('postgres', q{SELECT now() + interval '1.5 s'});
	$node->wait_for('a while has passed', "SELECT now() > '$end'");
	return;
}

# Not preloaded.
{
	my $node = PromCluster->new('late');
	$node->init(databases => [], conf => "shared_preload_libraries = ''\n");
	$node->start;
	$node->create_extension;

	my ($rc, $out, $err) = $node->psql('postgres',
		"SELECT prometheus_submit('x'); SELECT prometheus_submit('y')");
	my ($x, $y) = split /\n/, $out;
	is($rc, 0, 'late: a submit works');
	is(scalar(() = $err =~ /WARNING/g), 1, 'late: one warning a session');
	like($err, qr/HINT:.*shared_preload_libraries = 'prometheus'/,
		'late: the warning has the line to add');
	like($node->health('library'),
		qr/^error\|.*shared_preload_libraries = 'prometheus'/,
		'late: health says so');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM prometheus_health()'),
		1, 'late: health says nothing else');
	PromMetrics->new($node)->check('late: metrics are what there is');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM prometheus.worker}),
		0, 'late: no worker');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM prometheus.queue}),
		0, 'late: no queue');
	is($node->safe_psql('postgres', "SELECT prometheus_wait($x, '1 ms')"),
		'queued', 'late: a wait ends at its time-out');
	is($node->safe_psql('postgres', "SELECT prometheus_result($x) IS NULL"),
		't', 'late: no result');
	is($node->safe_psql('postgres', "SELECT prometheus_cancel($x, 'not now')"),
		't', 'late: a cancel is recorded');
	is($node->error_of("CALL prometheus_ask('z', timeout => '1 ms')")->{state},
		'57014', 'late: an ask ends at its time-out');
	is($node->log_count(qr/PANIC|FATAL|terminated by signal/), 0,
		'late: nothing crashed');

	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'prometheus'\nprometheus.databases = 'postgres'\n");
	$node->restart;
	$node->wait_task($y, 'completed');
	$node->wait_task($x, 'cancelled');
	$node->check_invariants('late: tasks of before have run',
		tasks => [ $x, $y ]);
	$node->stop;
}

# Preloaded; databases and extensions come one by one.
{
	my $node = PromCluster->new('main');
	my $llm = FakeLLM->new;
	my $log;

	$node->init(databases => [], conf => "log_min_messages = debug1\n");
	$node->start;
	$node->worker_pid('launcher');
	is( $node->safe_psql(
			'postgres',
			"SELECT string_agg(backend_type, ',') FROM pg_stat_activity WHERE backend_type ~ 'prometheus'"
		),
		'prometheus launcher',
		'no database: only a launcher');

	$node->create_extension;
	my (undef, undef, $err) =
	  $node->psql('postgres', "SELECT prometheus_submit('before')");
	my ($line) = $err =~ /^HINT:  (.*)$/m;
	is(scalar(() = $err =~ /WARNING/g), 1, 'not served: a submit warns');
	like($node->health('database'), qr/^error\|.*ALTER SYSTEM/,
		'not served: health says so');
	$node->safe_psql('postgres', join("\n", split(/(?<=;) /, $line)));
	is(ask($node, 'postgres'), 'hello', 'the line of the hint is enough');
	$node->wait_task(1, 'completed');
	is($node->health('database'), 'ok|postgres is served|', 'health is content');
	is( $node->safe_psql(
			'postgres',
			q{SELECT string_agg(check_name || ' ' || status, ', ') FROM prometheus_health() WHERE status <> 'ok'}
		),
		'',
		'all of health is content');

	# One that is not there, one without the extension.
	$node->safe_psql('postgres', 'CREATE DATABASE second');
	$log = $node->log_end;
	my @pids = map { $node->worker_pid($_, of => 'postgres') }
	  qw(scheduler caller publisher);
	serve($node, 'postgres, later');
	$node->wait_for_log(qr/database "later".* does not exist/, $log);
	serve($node, 'postgres, later, second');
	$node->wait_for_log(
		qr/starting background worker process "prometheus scheduler of database "second""/,
		$log);
	wait_a_while($node);
	is($node->log_count(qr/database "later".* does not exist/, $log), 1,
		'that it is missing is logged once');
	is(starts($node, 'second', $log), 1, 'no extension: looked once');
	is( $node->safe_psql(
			'postgres',
			"SELECT count(*) FROM pg_stat_activity WHERE datname = 'second'"),
		0, 'no extension: no worker stays');
	$node->safe_psql('postgres', 'CREATE DATABASE later');
	$node->create_extension('later');
	is(ask($node, 'later'), 'hello', 'a database that came later is served');
	$node->create_extension('second');
	is(ask($node, 'second'), 'hello', 'an extension that came later is served');
	is_deeply(
		[
			map { $node->worker_pid($_, of => 'postgres') }
			  qw(scheduler caller publisher)
		],
		\@pids,
		'the workers of the first database were left alone');
	is( $node->safe_psql(
			'postgres',
			"SELECT string_agg(d, ' ' ORDER BY d) FROM (SELECT datname || count(*) AS d FROM pg_stat_activity WHERE backend_type ~ 'prometheus' AND datname IS NOT NULL GROUP BY datname) x"
		),
		'later3 postgres3 second3',
		'three databases, three workers each');
	is($node->log_count(qr/ (ERROR|WARNING): /, $log), 0,
		'nothing failed on the way');

	# A rolled back CREATE EXTENSION is none.
	$node->safe_psql('postgres', 'CREATE DATABASE fourth');
	$log = $node->log_end;
	serve($node, 'postgres, fourth');
	$node->wait_for('the others are not served any more',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname IN ('later', 'second')");
	$node->safe_psql('fourth', 'BEGIN; CREATE EXTENSION prometheus; ROLLBACK');
	$node->create_extension('fourth');
	is(ask($node, 'fourth'), 'hello', 'rolled back, then created');

	# DROP EXTENSION in the middle of requests, and again.
	$log = $node->log_end;
	$node->fake_agent($llm, 'fake-hang-before-headers');
	$node->safe_psql('postgres',
		"SELECT prometheus_submit('n' || n, 'fake-hang-before-headers') FROM generate_series(1, 5) n"
	);
	$node->safe_psql('postgres',
		"SELECT prometheus_submit('later', run_at => now() + interval '1 hour')");
	$llm->wait_requests(5);
	my $session = $node->background_psql('postgres');
	$session->query_safe("SELECT prometheus_submit('cached')");
	$node->safe_psql('postgres', 'DROP EXTENSION prometheus');
	$node->create_extension;
	$node->fake_agent($llm, 'fake-echo');
	is(ask($node, 'postgres'), 'hello', 'dropped and created: answers');
	my $id = $session->query_safe("SELECT prometheus_submit('again', 'fake-echo')");
	$session->quit;
	$node->wait_task($id, 'completed');
	$node->wait_for('the old requests are dropped',
		'SELECT sum(in_flight) FROM prometheus.worker', '0');
	is($llm->stats->{dropped}, 5, 'the old requests were dropped');
	$node->check_invariants('dropped and created: invariants',
		all_ended => 1);
	is($node->log_count(qr/ (ERROR|WARNING): /, $log), 0,
		'dropped and created: no error');
	cmp_ok(starts($node, 'postgres', $log), '<=', 7,
		'dropped and created: no loop of starts');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM prometheus.queue'),
		0, 'dropped and created: nothing is left of the old queue');

	# Dropped for good: everyone leaves at the next work, and nobody comes back.
	$node->safe_psql('fourth',
		"SELECT prometheus_submit('x', run_at => now() + interval '1 s')");
	$log = $node->log_end;
	$node->safe_psql('fourth', 'DROP EXTENSION prometheus');
	$node->wait_for('the caller has left',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'fourth' AND backend_type = 'prometheus caller'"
	);
	wait_a_while($node);
	is(ask($node, 'postgres'), 'hello', 'the other database is served on');
	cmp_ok(starts($node, 'fourth', $log), '<=', 1, 'dropped: nobody came back');
	is($node->log_count(qr/ (ERROR|WARNING): /, $log), 0, 'dropped: no error');
	$node->stop;
	$llm->stop;
}

# Too few places.
{
	my $node = PromCluster->new('small');
	$node->init(
		databases => [ 'postgres', 'second', 'third' ],
		conf => "max_worker_processes = 4\nmax_logical_replication_workers = 0\n"
		  . "prometheus.max_databases = 2\n");
	$node->start;
	$node->wait_for_log(qr/WARNING:  database "third" is not served/);
	$node->wait_for_log(qr/HINT:.*restart/);
	$node->create_extension;
	is(ask($node, 'postgres'), 'hello', 'as many as there is room for');
	$node->safe_psql('postgres', 'CREATE DATABASE second');
	$node->create_extension('second');
	$node->wait_for_log(
		qr/WARNING:  could not start the prometheus scheduler of database "second"/);
	$node->wait_for_log(qr/HINT:.*max_worker_processes/);
	like($node->health('max_worker_processes'), qr/^warning\|.*16/,
		'health says that there are too few');
	like($node->health('scheduler', dbname => 'second'), qr/^error\|/,
		'health says what does not run');
	is(ask($node, 'postgres'), 'hello', 'the first database is not disturbed');

	serve($node, 'second');
	is(ask($node, 'second'), 'hello', 'they start when there is room');
	my %logged;
	$logged{$_}++
	  foreach slurp_file($node->logfile) =~ /WARNING:  (could not start .*)/g;
	is_deeply([ grep { $_ > 1 } values %logged ],
		[], 'that there was none is logged once for each');
	$node->stop;
}

done_testing();
