# At every point of src/fault.c a process dies, fails, or stops the server, and
# whatever it was: no task is lost, none ends twice, nothing is left open.
#
# PROM_FAULT_ROUNDS=N goes on with N rounds of faults chosen at random, each at
# one of the first hits; PROM_FAULT_SEED repeats a choice.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my $round = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The points, from the table in the source; true: an ERROR has a place there.
my %points = slurp_file('src/fault.c') =~ /^\t\{"([a-z-]+)", (true|false)\},$/mg;
my @names = sort keys %points;

# Reached only when a process begins or ends, or a task crashed the server.
my $at_start = qr/scan|admit|waiting|checkpoint|^worker|^launcher/;
my $at_strike = qr/^strike/;

# A dozen tasks, all or none; one is cancelled.  True if that was told.
sub submit_batch
{
	# Most rounds without a back-off, which takes half a second.
	my $again = $round % 5 == 0 ? 'fake-500-then-ok' : 'fake-429-ms-then-ok';
	my (undef, $out) = $node->psql('postgres', <<"EOSQL");
SELECT string_agg(id::text, ',') FROM (
	SELECT prometheus_submit('$round echo ' || n) FROM generate_series(1, 3) n
	UNION ALL
	SELECT prometheus_submit('$round http ' || n, 'fake-echo') FROM generate_series(1, 4) n
	UNION ALL
	SELECT prometheus_submit('$round again', '$again')
	UNION ALL
	SELECT prometheus_submit('$round wait', 'fake-429-ms-then-ok')
	UNION ALL
	SELECT prometheus_submit('$round later', 'fake-echo', run_at => clock_timestamp() + interval '100 ms')
	UNION ALL
	SELECT prometheus_submit('$round hang', 'fake-hang-before-headers')
	UNION ALL
	SELECT prometheus_submit('never')) x(id)
EOSQL
	my @tasks = split /,/, $out // '';

	cancel();
	return @tasks;
}

# Only when it hangs already; but not for ever.
sub cancel
{
	my $end = time + 1;
	while (time < $end)
	{
		my ($rc, $out) = $node->psql('postgres',
			"SELECT count(*) FROM prometheus.task WHERE request ~ ' hang' AND status = 'queued'");
		last if $rc != 0 || $out eq '0';
	}
	$node->psql('postgres',
		"SELECT count(prometheus_cancel(task_id)) FROM prometheus.task WHERE request ~ ' hang' AND status IN ('queued', 'running', 'retrying')"
	);
	return;
}

# Let the database not be served for a while, and then every process end and
# begin anew.  The server may fall at any moment of it.
sub end_processes
{
	my $end = time + 5;

	$node->psql('postgres', "ALTER SYSTEM SET prometheus.databases = ''");
	$node->psql('postgres', 'SELECT pg_reload_conf()');
	while (time < $end)
	{
		my ($rc, $out) = $node->psql('postgres',
			"SELECT status FROM prometheus_health() WHERE check_name = 'database'");
		last if $rc != 0 || $out eq 'error';
	}
	$node->psql('postgres',
		"ALTER SYSTEM SET prometheus.databases = 'postgres'");
	$node->psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# Until the fault is met, or all tasks have ended without it.
sub wait_for_fault
{
	my ($point) = @_;
	my $end = time + 20;

	while (time < $end)
	{
		return 1 if $node->fault_fired($point);
		my ($rc, $out) = $node->psql('postgres',
			"SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')"
		);
		last if $rc == 0 && $out eq '0';
		usleep(20_000);
	}
	return $node->fault_fired($point);
}

# One round: a batch of tasks, a fault, and everything as it must be.
sub run_round
{
	my ($point, $action, $nth) = @_;
	my $what = "$point, $action" . ($nth == 1 ? '' : ", hit $nth");
	my $log = $node->log_end;
	my @tasks;
	my $met;

	$round++;
	$node->set_fault(
		($point =~ $at_strike ? 'reply-half-read:die:1,' : '')
		. "$point:$action:$nth");
	foreach my $try (0 .. 3)
	{
		push @tasks, submit_batch();
		end_processes() if $try > 0 || $point =~ $at_start;
		$node->psql('postgres',
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type ~ '^prometheus'"
		) if $try > 1;
		$met = wait_for_fault($point) and last;
		last if $nth > 1;
	}
	if ($met && $action eq 'stop')
	{
		$node->wait_stopped;
		$node->start;
	}
	elsif ($met && $action eq 'die')
	{
		$node->wait_for_log(qr/all server processes terminated; reinitializing/,
			$log);
		$node->wait_for("$what: the server is back", 'SELECT true');
	}
	sql("ALTER SYSTEM SET prometheus.databases = 'postgres'");
	$node->reload;

	# A cancel may have been lost with its session.
	cancel();
	check($what, @tasks);
	return $met;
}

sub check
{
	my ($what, @tasks) = @_;

	$node->wait_for("$what: all have ended, and the queue is empty",
		q{SELECT string_agg(format('%s %s', task_id, status), ', ') FROM (
			SELECT task_id, status FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying', 'waiting')
			UNION ALL SELECT task_id, 'in the queue' FROM prometheus.queue) x},
		'');
	$node->check_invariants("$what: invariants", tasks => \@tasks,
		all_ended => 1);
	is( sql(<<'EOSQL'), '', "$what: each as it must end, each submit whole");
SELECT format('%s %s: %s %s', task_id, request, status, error)
  FROM prometheus.task
 WHERE CASE WHEN request = 'never' THEN status <> 'failed'
            WHEN request ~ ' hang' THEN status <> 'cancelled'
            ELSE status <> 'completed' OR result <> request END
 UNION ALL
SELECT format('round %s: %s tasks', split_part(request, ' ', 1), count(*))
  FROM prometheus.task WHERE request <> 'never'
 GROUP BY split_part(request, ' ', 1) HAVING count(*) % 11 <> 0
EOSQL
	return;
}

$node->init(
	restart_after_crash => 1,
	conf => "prometheus.rescan_interval = '2s'\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
cmp_ok(scalar @names, '>', 40, 'the points are known');
$node->fake_agent($llm, $_)
  foreach qw(fake-echo fake-500-then-ok fake-429-ms-then-ok
  fake-hang-before-headers);

# An answer that cannot be recorded, ever.
sql(q{ALTER TABLE prometheus._step ADD CHECK (answer IS DISTINCT FROM 'never')});

foreach my $point (@names)
{
	foreach my $action (qw(die error stop))
	{
		next if $action eq 'error' && $points{$point} eq 'false';
		ok(run_round($point, $action, 1), "$point, $action: the fault was met");
	}
}

my $rounds = $ENV{PROM_FAULT_ROUNDS} // 0;
if ($rounds > 0)
{
	my $seed = srand($ENV{PROM_FAULT_SEED} // int(rand(1 << 31)));
	my $met = 0;

	note("seed $seed");
	foreach (1 .. $rounds)
	{
		my $point = $names[ rand @names ];
		my @actions = grep { $_ ne 'error' || $points{$point} eq 'true' }
		  qw(die error stop);
		$met++ if run_round($point, $actions[ rand @actions ], 1 + int(rand(6)));
	}
	note("$met of $rounds faults were met");
}

$node->set_fault('');
is($node->log_count(qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing else crashed');
$node->stop;
$llm->stop;
done_testing();
