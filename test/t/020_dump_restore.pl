# Everything that happened comes along with pg_dump, and goes on from there.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $other = PromCluster->new('other');
my $llm = FakeLLM->new;
my @facts = qw(_task _attempt _call _step _outcome _cancel _model _agent);
my %views = (
	task => 'task_id',
	attempt => 'task_id, attempt',
	call => 'call_id',
	step => 'task_id, step',
	event => 'event_id',
	agent => 'name',
	model => 'name');
my %ours;

# What a view answers, or a table holds, as text.  What the install script
# inserts is inserted again, so it has another time and transaction.
sub content
{
	my ($server, $relation, $order, $dbname) = @_;
	my $row =
	  $relation =~ /model|agent/
	  ? q{to_jsonb(x) - CASE WHEN (name, version) IN (('echo', 1), ('default', 1)) THEN '{set_at,xid}'::text[] ELSE '{}' END}
	  : 'x.*';

	return $server->safe_psql($dbname,
		"SELECT $row FROM prometheus.$relation x ORDER BY "
		  . ($order // ($relation =~ /model|agent/ ? 'name, version' : 'x::text')));
}

# The restored database is as the first was.
sub check_copy
{
	my ($server, $dbname, $what) = @_;
	foreach my $relation (@facts, sort keys %views)
	{
		is(content($server, $relation, $views{$relation}, $dbname),
			$ours{$relation}, "$what: $relation");
	}
	is($server->safe_psql($dbname, 'SELECT count(*) FROM prometheus._checkpoint'),
		0, "$what: no checkpoint");
	is( $server->safe_psql($dbname,
			q{SELECT string_agg(pg_get_userbyid(extowner) || extversion, '') = current_user || prometheus_version() FROM pg_extension WHERE extname = 'prometheus'}
		),
		't', "$what: the extension is one");
	$server->check_invariants("$what: invariants", dbname => $dbname);

	# New ids are beyond all old ones; new versions follow the old ones.
	is( $server->safe_psql($dbname,
			q{SELECT prometheus_submit('new one') > (SELECT max(task_id) FROM prometheus.task WHERE request <> 'new one')}
		),
		't', "$what: a new task has a new id");
	is( $server->safe_psql($dbname,
			q{SELECT min(n.event_id) > (SELECT max(e.event_id) FROM prometheus.event e WHERE e.task_id <> n.task_id) FROM prometheus.event n JOIN prometheus.task t USING (task_id) WHERE t.request = 'new one' GROUP BY n.task_id}
		),
		't', "$what: a new event has a new id");
	is( $server->safe_psql($dbname,
			q{SELECT prometheus_set_model('fake-fixed', options => '{"max_tokens": 5}'), prometheus_set_model('echo'), prometheus_set_agent('default', instructions => 'again')}
		),
		'3|2|3', "$what: versions go on");
	return;
}

$node->init;
$node->start;
$node->create_extension;
$node->safe_psql('postgres',
	'CREATE ROLE alice LOGIN; GRANT prometheus_agent_user TO alice');
$node->fake_agent($llm, $_, instructions => 'Be brief.')
  foreach qw(fake-echo fake-fixed fake-400 fake-500-then-ok fake-429-ms-then-ok
  fake-reasoning fake-nul fake-hang-before-headers);
$node->safe_psql('postgres',
	q{SELECT prometheus_set_model('fake-fixed', options => '{"price_in": 0.15, "price_out": 0.6}');
	SELECT prometheus_set_agent('default', instructions => 'mine');}
);
my $request = q{quotes ' " \ tab	and ça va};
$node->safe_psql('postgres',
	"SELECT prometheus_submit(\$\$$request\$\$, name, metadata => '{\"n\": 1.50}') FROM prometheus.agent WHERE name <> 'fake-hang-before-headers'"
);
$node->safe_psql('postgres', q{SET ROLE alice; SELECT prometheus_submit('of alice')});
my $later = $node->submit("'later', priority => 7, run_at => now() + interval '1 hour'");
my $cancelled = $node->submit("'cancelled', run_at => now() + interval '1 hour'");
$node->safe_psql('postgres', "SELECT prometheus_cancel($cancelled, 'no more')");
$node->wait_for('all is done but what is later',
	q{SELECT string_agg(task_id::text, ',') FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')},
	$later);

# One that is open when the dump is made, and one checkpoint.
my $open = $node->submit("'open', 'fake-hang-before-headers'");
$node->wait_task($open, 'running');
my $requests = $llm->stats->{requests};
$node->append_conf('postgresql.conf', "prometheus.databases = ''\n");
$node->restart;
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM prometheus._checkpoint'),
	'>', 0, 'there is a checkpoint');
$ours{$_} = content($node, $_, $views{$_}, 'postgres') foreach @facts, keys %views;
cmp_ok(length $ours{$_}, '>', 0, "there is something in $_") foreach sort keys %ours;

# Another database of the same server.
my $dump = PostgreSQL::Test::Utils::tempdir() . "/dump";
$node->command_ok([ 'pg_dump', '-f', "$dump.sql", 'postgres' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dump.sql", 'copy' ],
	'restored by psql');
check_copy($node, 'copy', 'database');

# Another server: with its roles, in parallel.
$other->init(databases => []);
$other->start;
$node->command_ok([ 'pg_dumpall', '--roles-only', '-f', "$dump.roles" ], 'pg_dumpall');
$node->command_ok([ 'pg_dump', '-Fd', '-j2', '-f', "$dump.d", 'postgres' ],
	'pg_dump in parallel');
$other->psql('postgres', '', extra_params => [ '-q', '-f', "$dump.roles" ],
	on_error_stop => 0);
$other->command_ok(
	[ 'pg_restore', '-j2', '--exit-on-error', '-d', 'postgres', "$dump.d" ],
	'restored by pg_restore');
check_copy($other, 'postgres', 'server');
is( $other->safe_psql('postgres',
		q{SELECT string_agg(request, ',') FROM prometheus.task WHERE submitter = 'alice'}
	),
	'of alice',
	'server: the submitter is known by name');

# There, too, what is open is found and goes on, when the copy is resumed.
$node->stop;
is( $other->safe_psql('postgres',
		q{DELETE FROM prometheus._gate WHERE target = 'all' RETURNING reason}),
	'this database is a copy: SELECT prometheus_resume() lets it run',
	'server: the copy was paused');
my $log = $other->log_end;
$other->append_conf('postgresql.conf', "prometheus.databases = 'postgres'\n");
$other->restart;
$other->wait_for('server: the new task runs',
	q{SELECT status FROM prometheus.task WHERE request = 'new one'}, 'completed');
$llm->wait_requests($requests + 1);
is( $other->safe_psql('postgres',
		"SELECT string_agg(coalesce(outcome, 'open'), ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $open"
	),
	'lost open', 'server: what was open goes on');
is( $other->safe_psql('postgres',
		"SELECT status, priority, why FROM prometheus.queue WHERE task_id = $later"),
	'queued|7|is not due yet',
	'server: what is later is in the queue');
$other->safe_psql('postgres',
	"SELECT prometheus_cancel($open), prometheus_cancel($later)");
$other->wait_task($_, 'cancelled') foreach $open, $later;
$other->check_invariants('server: invariants', all_ended => 1);
is($other->log_count(qr/ (ERROR|WARNING|PANIC): /, $log), 0, 'server: nothing to warn of');
$other->stop;
$llm->stop;
done_testing();
