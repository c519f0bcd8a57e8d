# Settings that change while workers run, and settings of databases and roles
# that must not reach workers at all.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my @secrets = map { PostgreSQL::Test::Utils::tempdir_short } 1 .. 2;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub set
{
	my ($line) = @_;
	$node->append_conf('postgresql.conf', $line);
	$node->reload;
	return;
}

# Every role of a database's workers, by database.
sub served
{
	return $node->safe_psql('template1',
		q{SELECT coalesce(string_agg(x, ' ' ORDER BY x), '') FROM (SELECT datname || ':' || count(*) AS x FROM pg_stat_activity WHERE backend_type ~ '^prometheus' AND datname IS NOT NULL GROUP BY datname) x}
	);
}

sub wait_served
{
	my ($expected) = @_;
	$node->wait_for("served: $expected",
		q{SELECT coalesce(string_agg(x, ' ' ORDER BY x), '') FROM (SELECT datname || ':' || count(*) AS x FROM pg_stat_activity WHERE backend_type ~ '^prometheus' AND datname IS NOT NULL GROUP BY datname) x},
		$expected, dbname => 'template1');
	return is(served(), $expected, "served: $expected");
}

foreach my $i (0, 1)
{
	open(my $fh, '>', "$secrets[$i]/key") or die "key: $!";
	print $fh "key-of-directory-$i";
	close($fh);
	chmod(0600, "$secrets[$i]/key") or die "key: $!";
}

$node->init;
$node->start;
$node->create_extension;
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'second', '"Odd Name, x"';
$node->create_extension($_) foreach 'second', 'Odd Name, x';
is(sql(q{CALL prometheus_ask('one')}), 'one', 'one database is served');
wait_served('postgres:3');

# Databases come and go; a name may be any.
set(q{prometheus.databases = 'postgres, second, "Odd Name, x"'});
is($node->safe_psql('Odd Name, x', q{CALL prometheus_ask('odd')}),
	'odd', 'a database with an odd name');
is($node->safe_psql('second', q{CALL prometheus_ask('two')}),
	'two', 'a second database');
wait_served('Odd Name, x:3 postgres:3 second:3');
my $pid = $node->worker_pid('caller', of => 'postgres');
$node->fake_agent($llm, 'fake-hang-before-headers', dbname => 'second');
my $left = $node->submit("'left', 'fake-hang-before-headers'", dbname => 'second');
$llm->wait_requests(1);
set(q{prometheus.databases = 'postgres'});
wait_served('postgres:3');
is($node->worker_pid('caller', of => 'postgres'), $pid,
	'those of the first are left alone');
like($node->health('database', dbname => 'second'), qr/^error\|/,
	'health of the other says that it is not served');
is($node->safe_psql('second', 'SELECT count(*) FROM prometheus.queue'), 0,
	'no queue where nobody serves');
my ($rc, $out, $err) = $node->psql('second',
	q{SELECT prometheus_submit('waits'); SELECT prometheus_cancel(1)});
like($err, qr/WARNING/, 'a submit there warns');
set(q{prometheus.databases = 'second'});
wait_served('second:3');
$node->wait_for('what was submitted meanwhile runs',
	q{SELECT status FROM prometheus.task WHERE request = 'waits'},
	'completed', dbname => 'second');
$llm->wait_requests(2);
is( $node->safe_psql('second',
		"SELECT string_agg(coalesce(outcome, 'open'), ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $left"
	),
	'lost open',
	'what was on the network goes on');
$node->safe_psql('second', "SELECT prometheus_cancel($left)");
$node->wait_task($left, 'cancelled', dbname => 'second');
$node->check_invariants('second: invariants', dbname => 'second', all_ended => 1);
set(q{prometheus.databases = ''});
wait_served('');
my $log = $node->log_end;
$node->append_conf('postgresql.conf', q{prometheus.databases = 'a b, ,'});
$node->reload;
$node->wait_for_log(qr/invalid value for parameter "prometheus.databases"/, $log);
set(q{prometheus.databases = 'postgres'});
wait_served('postgres:3');

# A database that is not served can be dropped; it then is one that is missed.
$node->safe_psql('postgres', 'DROP DATABASE second');

# Where keys are, and whether private addresses are allowed.
$node->fake_agent($llm, 'fake-echo', name => 'keyed', secret => 'key');
my $error = $node->error_of(q{CALL prometheus_ask('x', 'keyed')});
is($error->{state}, 'PM001', 'no secrets_dir, no key');
like($error->{detail}, qr/ConfigurationError/, 'no secrets_dir: its kind');
foreach my $i (0, 1)
{
	set("prometheus.secrets_dir = '$secrets[$i]'");
	$node->wait_for("directory $i is set", 'SHOW prometheus.secrets_dir',
		$secrets[$i]);
	sql(q{CALL prometheus_ask('which key', 'keyed')});
	is($llm->requests->[-1]{headers}{authorization},
		"Bearer key-of-directory-$i", "the key of directory $i");
}

my $seen = $llm->stats->{requests};
set('prometheus.allow_private_endpoints = off');
$node->wait_for('private addresses are not allowed',
	'SHOW prometheus.allow_private_endpoints', 'off');
$error = $node->error_of(q{CALL prometheus_ask('x', 'keyed')});
is($error->{state}, 'PM001', 'a private address is refused');
like($error->{message}, qr/prometheus.allow_private_endpoints/,
	'with a clear error');
like($error->{detail}, qr/ConfigurationError/, 'and its kind');
is($llm->stats->{requests}, $seen, 'nothing was sent');
$node->fake_agent($llm, 'fake-echo', name => 'by name',
	url => 'http://localhost:' . $llm->port . '/v1');
like($node->error_of(q{CALL prometheus_ask('x', 'by name')})->{message},
	qr/prometheus.allow_private_endpoints/,
	'a name of a private address is refused');
$node->fake_agent($llm, 'fake-echo', name => 'by tls',
	url => 'https://localhost:' . $llm->port . '/v1');
like($node->error_of(q{CALL prometheus_ask('x', 'by tls')})->{message},
	qr/address is not allowed: .*prometheus.allow_private_endpoints/, 'and over TLS');
is($llm->stats->{requests}, $seen, 'nothing was sent to it either');
set('prometheus.allow_private_endpoints = on');
$node->wait_for('private addresses are allowed',
	'SHOW prometheus.allow_private_endpoints', 'on');
is(sql(q{CALL prometheus_ask('allowed', 'keyed')}),
	'allowed', 'a private address is allowed again');
$node->fake_agent($llm, 'fake-echo', name => 'public', url => 'http://8.8.8.8/v1');
like($node->error_of(q{CALL prometheus_ask('x', 'public')})->{message},
	qr/address is not allowed: http is for private addresses only/,
	'but no public one without TLS');
is(sql(q{CALL prometheus_ask('allowed', 'by name')}),
	'allowed', 'and a name of one');

# What is set for a database and its roles is for sessions.
sql(<<'EOSQL');
DO $$
DECLARE
	setting text;
	owner text := current_user;
BEGIN
	FOREACH setting IN ARRAY ARRAY[
		'default_transaction_read_only = on',
		'default_transaction_isolation = serializable',
		'default_transaction_deferrable = on',
		'search_path = evil, pg_catalog',
		'statement_timeout = 1',
		'lock_timeout = 1',
		'idle_in_transaction_session_timeout = 1',
		'session_replication_role = replica',
		'synchronous_commit = off',
		'row_security = on',
		'client_encoding = latin1',
		'datestyle = ''sql, dmy''',
		'intervalstyle = sql_standard',
		'timezone = ''Asia/Kathmandu''',
		'bytea_output = escape',
		'extra_float_digits = -15',
		'standard_conforming_strings = off',
		'enable_indexscan = off',
		'default_table_access_method = heap',
		'log_min_messages = debug1',
		'client_min_messages = debug5',
		'plan_cache_mode = force_custom_plan',
		'work_mem = ''64kB''']
	LOOP
		EXECUTE format('ALTER DATABASE postgres SET %s', setting);
		EXECUTE format('ALTER ROLE %I SET %s', owner, setting);
		EXECUTE format('ALTER ROLE %I IN DATABASE postgres SET %s', owner, setting);
	END LOOP;
END $$;
EOSQL

sub session
{
	my ($query) = @_;
	my ($rc, $out, $err) = $node->psql(
		'postgres',
		'',
		connstr => $node->connstr('postgres')
		  . " options='-c default_transaction_read_only=off -c statement_timeout=30s -c lock_timeout=0 -c client_min_messages=warning -c idle_in_transaction_session_timeout=0 -c session_replication_role=origin'",
		extra_params => [ '-c', $query ]);
	die "$query: $err" if $rc != 0;
	return $out;
}

# Objects that a careless search_path would find first.
session('CREATE SCHEMA evil');
session($_)
  foreach
  q{CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$},
  q{CREATE FUNCTION evil.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$},
  q{CREATE FUNCTION evil.int8eq_evil(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$},
  q{CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.int8eq_evil)};
$log = $node->log_end;
$node->restart;
my $ids =
  session(q{SELECT string_agg(public.prometheus_submit('n' || n, CASE n % 2 WHEN 0 THEN 'default' ELSE 'keyed' END)::text, ',') FROM generate_series(1, 50) n});
is( session("SELECT count(*) FROM pg_catalog.unnest('{$ids}'::bigint[]) AS u(id) WHERE public.prometheus_wait(id) = 'completed'"
	),
	50, 'hostile settings: all have run');
is( session(q{SELECT count(*) FROM prometheus.task WHERE request ~ '^n[0-9]+$' AND result = request}
	),
	50, 'hostile settings: all have their answer');
is(session(q{CALL public.prometheus_ask('asked', 'keyed')}),
	'asked', 'hostile settings: an ask answers');
$node->stop;
$node->start;
is(session(q{CALL public.prometheus_ask('again', 'keyed')}),
	'again', 'hostile settings: an ask answers after a clean stop');
is( session(q{SELECT count(*) > 0 FROM prometheus._checkpoint}),
	't', 'hostile settings: a checkpoint was written');
is($node->log_count(qr/ (ERROR|WARNING|PANIC): /, $log), 0,
	'hostile settings: nothing failed');
$node->stop;
$llm->stop;
done_testing();
