# Statements that need a database without sessions, the end of the extension,
# and an extension of another version than the library: when workers stand
# still, and that they go on by themselves.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions('postgres');
my $llm = FakeLLM->new;
my $log;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The workers of a database, as text.
sub workers
{
	my ($database) = @_;
	return sql(qq{SELECT coalesce(string_agg(pid::text, ' ' ORDER BY pid), '') FROM pg_stat_activity WHERE datname = '$database' AND backend_type ~ '^prometheus'}
	);
}

sub wait_workers
{
	my ($database, $count) = @_;
	$node->wait_for("$database has $count workers",
		qq{SELECT count(*) FROM pg_stat_activity WHERE datname = '$database' AND backend_type ~ '^prometheus'},
		$count);
	return;
}

sub is_served
{
	my ($database, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_workers($database, 3);
	return is($node->safe_psql($database, q{CALL prometheus_ask('hello')}),
		'hello', "$what: $database is served");
}

# Statements that are refused leave the workers alone.
sub refused
{
	my ($state, $statement, $role) = @_;
	my $before = workers('app');
	my $set = defined $role ? "SET SESSION AUTHORIZATION $role;" : '';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->error_of("$set $statement")->{state}, $state, "refused: $statement");
	return is(workers('app'), $before, 'its workers are left alone');
}

# Every start of a worker is a line of the server's log.
sub starts
{
	my ($database, $offset) = @_;
	return $node->log_count(
		qr/starting background worker process "prometheus \w+ of database "$database""/,
		$offset);
}

sub session
{
	return $node->background_psql('postgres', on_error_stop => 0);
}

# Let a session run a statement that will not end at once.
sub begin_statement
{
	my ($session, $statement) = @_;
	$session->query_until(qr/begun/, "\\echo begun\n$statement;\n");
	return;
}

$node->init(
	databases => [ 'app', 'renamed', '"Odd Name, x"' ],
	conf => "log_min_messages = debug1\nallow_in_place_tablespaces = on\n");
$node->start;
sql("CREATE DATABASE $_") foreach 'app', '"Odd Name, x"', 'other';
$node->create_extension($_) foreach 'app', 'Odd Name, x';
$node->fake_agent($llm, 'fake-hang-before-headers', dbname => 'app');
is_served('app', 'at first');
is_served('Odd Name, x', 'at first');

# A template, also while a request is on the network.
{
	my $other = workers('Odd Name, x');
	my $id = $node->submit("'x', 'fake-hang-before-headers'", dbname => 'app');
	$llm->wait_requests(1);
	$log = $node->log_end;
	sql('CREATE DATABASE copy1 TEMPLATE app STRATEGY wal_log');
	sql('CREATE DATABASE copy2 TEMPLATE app STRATEGY file_copy');
	sql('DROP DATABASE copy1');
	sql('DROP DATABASE copy2');
	is_served('app', 'template');
	$llm->wait_requests(2);
	$node->safe_psql('app', "SELECT prometheus_cancel($id)");
	$node->wait_task($id, 'cancelled', dbname => 'app');
	$node->check_invariants('template: invariants', dbname => 'app',
		all_ended => 1);
	is(workers('Odd Name, x'), $other,
		'template: those of another database are left alone');

	# In its own database, and when it fails.
	$node->safe_psql('app', 'CREATE DATABASE copy1 TEMPLATE app');
	is_served('app', 'template, from itself');
	my $in_app = $node->background_psql('app');
	is($node->error_of('CREATE DATABASE copy2 TEMPLATE app')->{state},
		'55006', 'template: another session is in the way');
	is_served('app', 'template, failed');
	$in_app->quit;
}

# A new name counts only if it is served.
$log = $node->log_end;
sql('ALTER DATABASE app RENAME TO away');
$node->wait_for_log(qr/database "app".* does not exist/, $log);
is(workers('away'), '', 'renamed: nobody serves it');
sql('ALTER DATABASE away RENAME TO app');
is_served('app', 'renamed back');
sql('ALTER DATABASE app RENAME TO renamed');
is_served('renamed', 'renamed to another that is served');
sql('ALTER DATABASE renamed RENAME TO app');
is_served('app', 'renamed back again');

# Not before its transaction ends.
{
	my $session = session();
	$session->query_safe('BEGIN; ALTER DATABASE app RENAME TO renamed');
	$log = $node->log_end;
	is(workers('app'), '', 'rename: no workers while it is open');
	$session->query_safe('ALTER DATABASE renamed RENAME TO away');
	$session->query_safe('ROLLBACK');
	is_served('app', 'rename rolled back');
	is(starts('app', $log), 3, 'rename rolled back: each was started once');

	my $in_app = $node->background_psql('app');
	$session->query_safe(
		'BEGIN; DO $$ BEGIN ALTER DATABASE app RENAME TO away; EXCEPTION WHEN object_in_use THEN END $$'
	);
	is_served('app', 'failed in a transaction that goes on');
	$session->query_safe('COMMIT');
	$in_app->quit;

	my $holder = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe('BEGIN; ALTER DATABASE app RENAME TO renamed');
	is(sql("SELECT pg_terminate_backend($holder)"), 't', 'the holder ends');
	is_served('app', 'the holder was terminated');
	eval { $session->quit };
}

# Two sessions: workers come back when neither needs it without them.
{
	my ($first, $second) = (session(), session());
	$first->query_safe('BEGIN; ALTER DATABASE app RENAME TO away');
	$log = $node->log_end;
	begin_statement($second, 'CREATE DATABASE copy3 TEMPLATE app');
	$node->wait_for('the second waits for a lock',
		q{SELECT count(*) FROM pg_stat_activity WHERE query ~ '^CREATE DATABASE' AND wait_event_type = 'Lock'},
		1);
	$first->query_safe('ROLLBACK');
	$second->query_safe('SELECT 1');
	is_served('app', 'two sessions');
	is(starts('app', $log), 3, 'two sessions: each was started once');
	$_->quit foreach $first, $second;
	sql('DROP DATABASE copy3');
}

# The wait for workers that do not end can be cancelled.
{
	my $session = session();
	my $pid = $node->signal_worker('STOP', 'caller', of => 'app');
	begin_statement($session, 'DROP DATABASE app');
	$node->wait_for('it waits for the workers',
		q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'DROP DATABASE app;' AND wait_event_type = 'Extension'},
		't');
	is($session->query('SELECT 1'), '1', 'the session goes on');
	kill('CONT', $pid);
	is_served('app', 'a wait was cancelled');
	$session->quit;
}

# Another tablespace.
sql(q{CREATE TABLESPACE place LOCATION ''});
sql('ALTER DATABASE app SET TABLESPACE place');
is_served('app', 'moved');

# Who may not does not stop them.
sql('CREATE ROLE nobody; CREATE ROLE maker CREATEDB; CREATE ROLE owner');
sql('ALTER DATABASE app OWNER TO owner');
refused('42501', 'DROP DATABASE app', $_) foreach qw(nobody maker);
refused('42501', 'ALTER DATABASE app RENAME TO away', $_)
  foreach qw(nobody maker owner);
refused('42501', 'ALTER DATABASE app SET TABLESPACE pg_default', $_)
  foreach qw(nobody maker);
refused('42501', 'CREATE DATABASE new TEMPLATE app', $_)
  foreach qw(nobody maker owner);
refused('25001', 'BEGIN; DROP DATABASE app');
refused('25001', 'BEGIN; CREATE DATABASE new TEMPLATE app');
refused('25001', 'BEGIN; ALTER DATABASE app SET TABLESPACE pg_default');
refused('42P04', 'CREATE DATABASE other TEMPLATE app');
refused('42P04', 'ALTER DATABASE app RENAME TO other');
refused('', 'DROP DATABASE IF EXISTS "no such"');
refused('', 'ALTER DATABASE app CONNECTION LIMIT 100');
refused('', 'ALTER DATABASE app SET work_mem = 65536');
sql('ALTER DATABASE app IS_TEMPLATE true');
$node->safe_psql('postgres',
	'SET SESSION AUTHORIZATION maker; CREATE DATABASE copy3 TEMPLATE app');
is_served('app', 'a template is for everybody who may create');
sql('ALTER DATABASE app IS_TEMPLATE false');
sql('DROP DATABASE copy3');

# Dropped: said once; and served when there is one again.
$log = $node->log_end;
sql('DROP DATABASE "Odd Name, x"');
sql('SET SESSION AUTHORIZATION owner; DROP DATABASE IF EXISTS app');
$node->wait_for_log(qr/database "$_".* does not exist/, $log)
  foreach 'Odd Name, x', 'app';
sql('CREATE DATABASE app');
$node->create_extension('app');
is_served('app', 'made anew');
is($node->log_count(qr/database "$_".* does not exist/, $log),
	1, "dropped: that \"$_\" is missing is said once")
  foreach 'Odd Name, x', 'app';
sql('DROP DATABASE app WITH (FORCE)');
sql('CREATE DATABASE app');
is($node->log_count(qr/ (ERROR|WARNING|FATAL): .*prometheus/, $log),
	0, 'dropped: no error');

# The default template.
$node->append_conf('postgresql.conf', "prometheus.databases = 'template1, app'\n");
$node->reload;
$node->create_extension('template1');
is_served('template1', 'default template');
sql('CREATE DATABASE fresh');
is($node->safe_psql('fresh', 'SELECT count(*) FROM prometheus.task'),
	1, 'default template: it was copied');
is_served('template1', 'default template, copied');
$node->safe_psql('template1', 'DROP EXTENSION prometheus');
wait_workers('template1', 0);

# The extension ends: nobody stays, whatever is on the network.
foreach my $how ('DROP EXTENSION prometheus', 'DROP SCHEMA place CASCADE',
	'DROP OWNED BY deployer')
{
	$node->safe_psql('app', q{CREATE SCHEMA place});
	$node->safe_psql('app',
		q{CREATE ROLE deployer LOGIN SUPERUSER; GRANT ALL ON SCHEMA place TO deployer})
	  if $how =~ /^DROP EXT/;
	$node->safe_psql('app',
		'SET ROLE deployer; CREATE EXTENSION prometheus SCHEMA place');
	wait_workers('app', 3);
	my $seen = $llm->stats->{requests};
	my $dropped = $llm->stats->{dropped};
	$node->safe_psql('app', <<"EOSQL");
SET search_path = place;
SELECT prometheus_set_model('hang', 'openai', '@{[ $llm->url('/v1') ]}', 'fake-hang-before-headers');
SELECT prometheus_set_agent('hang', 'hang');
SELECT count(prometheus_submit('n' || n, 'hang')) FROM generate_series(1, 100) n;
EOSQL
	$llm->wait_requests($seen + 100);

	# Not without a commit.
	my $before = workers('app');
	$node->safe_psql('app', 'BEGIN; DROP EXTENSION prometheus; ROLLBACK');
	$node->safe_psql('app',
		'BEGIN; SAVEPOINT s; DROP EXTENSION prometheus; ROLLBACK TO s; COMMIT');
	is(workers('app'), $before, 'not dropped: the workers are left alone');
	is($llm->stats->{dropped}, $dropped, 'and so are their requests');

	$log = $node->log_end;
	$node->safe_psql('app', $how);
	wait_workers('app', 0);
	is( sql(q{SELECT string_agg(backend_type, ' ') FROM pg_stat_activity WHERE backend_type ~ '^prometheus'}
		),
		'prometheus launcher',
		"$how: only the launcher stays");
	is($llm->wait_dropped($dropped + 100), $dropped + 100, 'their requests are dropped');
	is($node->log_count(qr/ (ERROR|WARNING|FATAL|PANIC): /, $log),
		0, 'no error');
	cmp_ok(starts('app', $log), '<=', 1, 'no loop of starts');
	$node->safe_psql('app', 'DROP SCHEMA IF EXISTS place');
}

# ... and begins, again and again while tasks run.
$log = $node->log_end;
foreach my $i (1 .. 10)
{
	$node->create_extension('app');
	is($node->safe_psql('app', q{CALL prometheus_ask('hello')}),
		'hello', "made and dropped: $i");
	$node->safe_psql('app',
		q{SELECT count(prometheus_submit('n' || n)) FROM generate_series(1, 3000) n});
	$node->safe_psql('app', 'DROP EXTENSION prometheus');
}
wait_workers('app', 0);
is($node->log_count(qr/ (ERROR|WARNING|PANIC): /, $log),
	0, 'made and dropped: no error');

# Objects of another version than the library.
sub set_version
{
	my ($version) = @_;
	$node->safe_psql('app',
		"UPDATE pg_extension SET extversion = '$version' WHERE extname = 'prometheus'"
	);
	return;
}
my $stands =
  qr/LOG:  tasks of database "app" do not run: its extension is version 0\.0dummy, /;

$node->create_extension('app');
is_served('app', 'versions agree');
my $version = $node->safe_psql('app', 'SELECT prometheus_version()');
is($node->health('extension', dbname => 'app'),
	"ok|version $version|", 'versions agree: health is content');

# What was there before an update stays readable by name, whoever serves.
sub marks_of_updates
{
	return $node->safe_psql('app',
		q{SELECT string_agg(substring(name FROM '^before update of ([^,]*), '), ' ' ORDER BY mark_id) FROM prometheus.mark WHERE name ~ '^before update'});
}
$node->safe_psql('app', "ALTER EXTENSION prometheus UPDATE; ALTER EXTENSION prometheus UPDATE TO '$version'");
is(marks_of_updates(), '', 'an update to the version that it has: no mark');
is($node->error_of(q{ALTER EXTENSION prometheus UPDATE TO '0.0none'}, dbname => 'app')->{state},
	'22023', 'one that there is not');
is(marks_of_updates(), $version, 'an update: a mark with a name, by the publisher');
$log = $node->log_end;
set_version('0.0dummy');
my $id = $node->submit(q{'waits'}, dbname => 'app');
wait_workers('app', 0);
$node->wait_for_log($stands, $log);
$node->wait_for_log(
	qr/HINT:  Run in that database: ALTER EXTENSION prometheus UPDATE;/, $log);
like(
	$node->health('extension', dbname => 'app'),
	qr/^error\|version 0\.0dummy, .*\|.*ALTER EXTENSION prometheus UPDATE;/,
	'other version: health says what to do');
$node->reload;
$node->wait_for_log(
	qr/(starting background worker process "prometheus scheduler of database "app"".*){2}/s,
	$log);
is($node->safe_psql('app', "SELECT status FROM prometheus.task WHERE task_id = $id"),
	'queued', 'other version: the task waits');
is($node->log_count($stands, $log), 1, 'other version: said once');
is($node->log_count(qr/ (ERROR|WARNING|FATAL|PANIC): /, $log),
	0, 'other version: no error');
cmp_ok(starts('app', $log), '<=', 2, 'other version: no loop of starts');

# A server that starts with it.
$log = $node->log_end;
$node->restart;
$node->wait_for_log($stands, $log);
wait_workers('app', 0);

$node->safe_psql('app', q{ALTER EXTENSION prometheus UPDATE TO '0.0dummy'});
is(marks_of_updates(), $version, 'the version that it has: no mark, without a publisher either');

# What ALTER EXTENSION ... UPDATE tells the launcher, the other forms do too.
set_version($version);
$node->safe_psql('app', 'CREATE FUNCTION f() RETURNS int RETURN 1');
$node->safe_psql('app', 'ALTER EXTENSION prometheus ADD FUNCTION f()');
$node->wait_task($id, 'completed', dbname => 'app');
is_served('app', 'the right version');
is($node->health('extension', dbname => 'app'),
	"ok|version $version|", 'the right version: health is content');
$node->safe_psql('app', 'ALTER EXTENSION prometheus DROP FUNCTION f()');

# An update, and one back: where the test may write files of the extension.
SKIP:
{
	my $installed = $node->config_data('--sharedir') . '/extension';
	my $directory = $installed;
	my @made;

	if ($node->safe_psql('app', 'SHOW server_version_num') >= 180000)
	{
		my $own = PostgreSQL::Test::Utils::tempdir_short;
		$directory = "$own/extension";
		mkdir $directory;
		copy($_, $directory) or die "copy: $!"
		  foreach "$installed/prometheus.control",
		  "$installed/prometheus--$version.sql";
		$node->append_conf('postgresql.conf',
			"extension_control_path = '$own:\$system'\n");
		$node->reload;
	}
	skip "$directory is not writable", 6 unless -w $directory;
	foreach my $path ("$version--0.0dummy", "0.0dummy--$version")
	{
		push @made, "$directory/prometheus--$path.sql";
		append_to_file($made[-1], "SELECT 1;\n");
	}
	$node->wait_for('the scripts are found',
		q{SELECT count(*) > 1 FROM pg_extension_update_paths('prometheus') WHERE path IS NOT NULL},
		't', dbname => 'app');
	is_served('app', 'before the update');
	$log = $node->log_end;
	$node->safe_psql('app',
		q{ALTER EXTENSION prometheus UPDATE TO '0.0dummy'});
	wait_workers('app', 0);
	$node->wait_for_log($stands, $log);
	is($node->log_count($stands, $log), 1, 'updated: said once');
	$node->safe_psql('app', 'ALTER EXTENSION prometheus UPDATE');
	is(marks_of_updates(), "$version $version 0.0dummy", 'an update: a mark, without a publisher, too');
	is( $node->safe_psql('app',
			q{SELECT format('SET prometheus.as_of = %L', 'mark:' || name) FROM prometheus.mark WHERE name ~ '^before update of 0.0dummy' \\gexec
SELECT count(*) > 0, current_setting('prometheus.as_of') ~ '^mark:before update' FROM prometheus.task}),
		't|t', 'and what was there is read as of it');
	is_served('app', 'updated again');
	is($node->log_count(qr/ (ERROR|WARNING|FATAL|PANIC): /, $log),
		0, 'updated: no error');
	unlink @made;
}
$node->stop;

# A library that is not preloaded changes nothing.
{
	my $late = PromCluster->new('late');
	$late->init(databases => [], conf => "shared_preload_libraries = ''\n");
	$late->start;
	foreach my $statement (
		'CREATE DATABASE a', 'CREATE DATABASE b TEMPLATE a',
		'ALTER DATABASE a RENAME TO c', 'DROP DATABASE c')
	{
		is( ($late->psql('postgres', '', extra_params =>
					[ '-c', q{LOAD 'prometheus'}, '-c', $statement ]))[0],
			0, "late: $statement");
	}
	$late->create_extension;
	$late->safe_psql('postgres', 'DROP EXTENSION prometheus');
	$late->stop;
}
$llm->stop;
done_testing();
