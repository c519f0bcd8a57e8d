# At every point of src/fault.c a process dies, fails, or stops the server, and
# whatever it was: no task is lost, none ends twice, nothing is left open.
#
# PROM_FAULT_ROUNDS=N goes on with N rounds, each of three faults chosen at
# random at one of the first hits; PROM_FAULT_SEED repeats a choice.
# PROM_FAULT_POINTS=REGEX: only the points that match it, before these rounds.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;
use Time::HiRes qw(time usleep);

use constant FAULTS_A_ROUND => 3;

my $node = PromCluster->new('main');
$node->keep_sessions;
my $llm = FakeLLM->new('--keep', 2000);
my $round = 0;
my $far = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The points, from the table in the source; true: an ERROR has a place there.
# What is deleted in a while is not for here: those of retention are in 491, those
# of deliveries in 504, those of alerts in 511, those of the export in 721, and
# those of embeddings in 253.
my %points = slurp_file('src/fault.c') =~ /^\t\{"([a-z-]+)", (true|false)\},$/mg;
my @names = grep { !/^(?:retention|deliver|distribute|alert|use|export|embed)-/ } sort keys %points;

# Reached only when a process begins or ends, or a task crashed the server.
my $at_start = qr/scan|admit|waiting|checkpoint|^worker|^launcher/;
my $at_strike = qr/^strike/;

# Reached once by a process, or once in a batch.
my $once = qr/$at_start|$at_strike|hint|^cancel|drop|give-up|park|pause|gate|read$/;

# Where the transaction of a turn of the caller fails.
my $in_turn = qr/^begin-|record|^cancel-before|give-up|park/;

# Tasks that call tools, with a function and a server as the model: the agent and
# the script.  No two calls of a task have the same words; slip fails after it has
# written; push, keyed and look are on the network.
sub tool_tasks
{
	my @calls = map { [ 'note', { words => "$round $_" } ] } 1 .. 3;
	my $slip = [ 'slip', { words => "$round slip" } ];
	my @far = map { [ $_, { words => "$round-" . $far++ } ] } qw(push keyed look);
	return (
		[ 'scripted', [ [ $calls[0], $calls[1] ], [ $slip, $calls[2] ], 'end' ] ],
		[ 'scripted', [ [ $calls[0] ], 'end' ] ],
		[ 'scripted', [ [ $far[0], $far[1] ], [ $far[2] ], 'end' ] ],
		[ 'fake-tools', [ [ $calls[0], $calls[1] ], [ $calls[2] ], 'end' ] ]);
}

# Two dozen tasks, all or none; one is cancelled.  True if that was told.
# With tasks that call tools where these matter: at the points of jobs, and
# where several faults come together.  They take twice the time.
sub submit_batch
{
	my ($with_tools) = @_;
	my $tools = join('',
		map { "SELECT prometheus_submit(" . $node->script(@{ $_->[1] }) . ", '$_->[0]')\n\tUNION ALL\n\t" }
		  $with_tools ? tool_tasks() : ());
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
	SELECT prometheus_submit('$round key ' || n, 'fake-echo', concurrency_key => 'one') FROM generate_series(1, 2) n
	UNION ALL
	SELECT prometheus_submit('$round turn ' || n, 'fake-echo', conversation => 'talk $round') FROM generate_series(1, 3) n
	UNION ALL
	SELECT prometheus_submit('$round child ' || n, depends_on => ARRAY[prometheus_submit('$round parent ' || n, 'fake-echo')]) FROM generate_series(1, 2) n
	UNION ALL
	${tools}SELECT prometheus_submit('never')) x(id)
EOSQL
	my @tasks = split /,/, $out // '';

	# Its model is one that nobody may use, before it can begin.
	$node->psql('postgres', <<"EOSQL");
SELECT prometheus_pause('model:paused'); SELECT prometheus_pause('agent:fake-echo');
BEGIN;
SELECT prometheus_set_agent('moved', 'echo');
SELECT prometheus_submit('$round moved', 'moved');
SELECT prometheus_set_agent('moved', 'paused');
COMMIT;
EOSQL
	cancel();
	resume();
	return @tasks;
}

# What was paused, and what was sent where nobody may go.
sub resume
{
	$node->psql('postgres', q{SELECT prometheus_resume('agent:fake-echo')});
	$node->psql('postgres', q{SELECT prometheus_set_agent('moved', 'echo')});
	return;
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
		usleep(10_000);
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
		usleep(10_000);
	}
	$node->psql('postgres',
		"ALTER SYSTEM SET prometheus.databases = 'postgres'");
	$node->psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# Until the faults at these points are met, or all tasks have ended without it.
sub wait_for_faults
{
	my (@faults) = @_;
	my $end = time + 20;

	while (time < $end)
	{
		return 1 unless grep { !$node->fault_fired($_->[0]) } @faults;
		start_again(@faults);
		my ($rc, $out) = $node->psql('postgres',
			"SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')"
		);
		last if $rc == 0 && $out eq '0';
		usleep(20_000);
	}
	return !grep { !$node->fault_fired($_->[0]) } @faults;
}

# If a fault stops the server, start it when it has stopped; once a round.
my $started;

sub start_again
{
	my (@faults) = @_;

	return
	  if $started || !grep { $_->[1] eq 'stop' && $node->fault_fired($_->[0]) } @faults;
	$node->wait_stopped;
	$node->start;
	$started = 1;
	return;
}

# Until the server has got over so many crashes.
sub wait_for_crashes
{
	my ($what, $log, $crashes) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	usleep(10_000)
	  while $node->log_count(qr/all server processes terminated; reinitializing/,
		$log) < $crashes
	  && time < $end;
	$node->wait_for("$what: the server is back", 'SELECT true');
	return;
}

# One round: a batch of tasks, faults (point, action, hit; the server falls by
# one of them at most), and everything as it must be.  Returns how many were met.
sub run_round
{
	my (@faults) = @_;
	my $what = join(' and ',
		map { "$_->[0], $_->[1]" . ($_->[2] == 1 ? '' : ", hit $_->[2]") }
		  @faults);
	my $log = $node->log_end;
	my $begins = grep { $_->[0] =~ $at_start } @faults;
	my $strikes = grep { $_->[0] =~ $at_strike } @faults;
	my $later = grep { $_->[2] > 1 } @faults;
	my @tasks;

	$round++;
	$started = 0;
	$node->set_fault(
		join(',',
			$strikes ? 'reply-half-read:die:1' : (),
			map { join(':', @$_) } @faults));
	foreach my $try (0 .. 3)
	{
		push @tasks, submit_batch(@faults > 1 || grep { $_->[0] =~ /^job-/ } @faults);

		# New processes count anew.
		end_processes() if $begins || $try > ($later ? 1 : 0);
		$node->psql('postgres',
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type ~ '^prometheus'"
		) if $try > 1;
		last if wait_for_faults(@faults);
	}
	my @met = grep { $node->fault_fired($_->[0]) } @faults;
	start_again(@met);
	if (!$started)
	{
		my $crashes = grep { $_->[1] eq 'die' } @met;
		$crashes++ if $strikes && $node->fault_fired('reply-half-read');
		wait_for_crashes($what, $log, $crashes) if $crashes > 0;
	}
	sql("ALTER SYSTEM SET prometheus.databases = 'postgres'");
	$node->reload;

	# These may have been lost with their sessions.
	cancel();
	resume();
	check($what, @tasks);
	$node->check_spending("$what: the caller counts what was spent", 'fake-echo')
	  if !grep { $_->[1] ne 'error' || $_->[0] !~ $in_turn } @faults;
	forget() if $round % 10 == 0;
	return scalar @met;
}

# What was checked up to ten times goes, or the checks would take most of the
# time in the end.
sub forget
{
	sql('TRUNCATE prometheus._task, prometheus._attempt, prometheus._call, prometheus._step, prometheus._outcome, prometheus._cancel, prometheus._strike, prometheus._verdict, prometheus._state, prometheus._state_failure, note'
	);

	# The caller counts anew, when it has seen that it need not.
	sql(q{SELECT prometheus_set_budget('all', 'month')});
	$node->wait_task($node->submit(q{'forgotten', 'echoing'}), 'completed');
	sql('TRUNCATE prometheus._task, prometheus._attempt, prometheus._step, prometheus._outcome, prometheus._state');
	$node->count_spending;
	return;
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
		all_ended => 1, summaries => 1);
	is( sql(<<'EOSQL'), '', "$what: each as it must end, each submit whole");
SELECT format('%s %s: %s %s', task_id, request, status, error)
  FROM prometheus.task
 WHERE CASE WHEN request = 'never' THEN status <> 'failed'
            WHEN request ~ ' hang' THEN status <> 'cancelled'
            WHEN agent IN ('scripted', 'fake-tools')
            THEN status <> 'completed' OR result <> 'end'
            ELSE status <> 'completed' OR result <> request END
 UNION ALL
SELECT format('round %s: %s tasks', substring(request FROM '[0-9]+'), count(*))
  FROM prometheus.task WHERE request <> 'never' AND request !~ ' moved'
 GROUP BY substring(request FROM '[0-9]+')
HAVING count(*) <> CASE WHEN count(*) FILTER (WHERE agent IN ('scripted', 'fake-tools')) > 0
       THEN count(*) FILTER (WHERE agent IN ('scripted', 'fake-tools')) / 4 * 24
       ELSE count(*) / 20 * 20 END
 UNION ALL
SELECT format('%s: %s steps of tools and %s effects of "%s"', task_id, steps, notes, words)
  FROM (SELECT task_id, input -> 'arguments' ->> 'words' AS words, count(*) FILTER (WHERE status = 'ok') AS steps
          FROM prometheus.step WHERE kind = 'tool' AND name IN ('note', 'slip') GROUP BY 1, 2) s
  FULL JOIN (SELECT task_id, words, count(*) AS notes FROM note GROUP BY 1, 2) n USING (task_id, words)
 WHERE coalesce(steps, 0) <> coalesce(notes, 0) OR steps > 1
 UNION ALL
SELECT format('%s: %s calls of tools', task_id, array_agg(name ORDER BY step))
  FROM prometheus.step s JOIN prometheus.task t USING (task_id)
 WHERE kind = 'tool' AND t.status = 'completed' GROUP BY task_id
HAVING array_agg(name ORDER BY step) NOT IN ('{note}', '{note,note,slip,note}', '{note,note,note}', '{push,keyed,look}')
 UNION ALL
SELECT format('%s began before its parent %s had ended', c.request, p.request)
  FROM prometheus._task d JOIN prometheus.task c USING (task_id)
  JOIN prometheus.task p ON p.task_id = d.depends_on[1]
 WHERE c.started_at < p.ended_at
 UNION ALL
SELECT format('%s and %s ran at the same time', x.task_id, y.task_id)
  FROM prometheus._task t JOIN prometheus.task x USING (task_id)
  JOIN prometheus._task u ON u.conversation = t.conversation AND u.agent = t.agent
  JOIN prometheus.task y ON y.task_id = u.task_id
 WHERE x.task_id <> y.task_id AND x.started_at <= y.started_at AND y.started_at < x.ended_at
EOSQL
	check_far($what);
	return;
}

# What was sent to tools on the network, beside what the steps say of it.
sub check_far
{
	my ($what) = @_;
	my (%sent, %keys, @wrong);

	foreach my $request (grep { $_->{path} =~ m{^/tool/} } @{ $llm->requests })
	{
		my (undef, undef, undef, $name, $words) = split m{/}, $request->{path};
		$sent{"$name $words"}++;
		$keys{"$name $words"}{ $request->{headers}{'idempotency-key'} // '' } = 1;
	}
	my @steps = split /\n/, sql(<<"EOSQL");
SELECT name || ' ' || (input -> 'arguments' ->> 'words') || '|' || status FROM prometheus.step
 WHERE kind = 'tool' AND name IN ('push', 'keyed', 'look') AND input -> 'arguments' ->> 'words' ~ '^$round-'
EOSQL
	foreach my $step (@steps)
	{
		my ($call, $status) = split /\|/, $step;
		my $sent = $sent{$call} // 0;

		push @wrong, "$call: $status, sent $sent times"
		  if $status !~ ($call =~ /^push/ ? qr/^(?:ok|unknown)$/ : qr/^ok$/)
		  || $call =~ /^push/ && $sent > 1
		  || $status eq 'ok' && $sent < 1;
		push @wrong, "$call: several keys" if $call =~ /^keyed/ && keys %{ $keys{$call} } > 1;
	}
	is(join(', ', @wrong), '', "$what: tools on the network") if @steps;
	return;
}

$node->init(
	restart_after_crash => 1,
	conf =>
	  "prometheus.rescan_interval = '500ms'\nprometheus.max_crashes = 100\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
plan skip_all => 'by hand 310 does it all'
  if $main::half && defined($ENV{PROM_FAULT_POINTS} // $ENV{PROM_FAULT_ROUNDS});
cmp_ok(scalar @names, '>', 40, 'the points are known');
$node->fake_agent($llm, $_)
  foreach qw(fake-echo fake-500-then-ok fake-429-ms-then-ok
  fake-hang-before-headers fake-tools);

my $schema = '{"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"]}';
sql(sprintf q{SELECT prometheus_set_http_tool('%s', 'POST', '%s', '%s', 'Sends words.', tier => '%s', idempotent => %s)},
	$_->[0], $llm->url("/tool/echo/$_->[0]/{words}"), $schema, $_->[1], $_->[2])
  foreach [ 'push', 'write', 'false' ], [ 'keyed', 'write', 'true' ], [ 'look', 'read', 'false' ];

# A tool asks the process that runs it for its task.
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE TABLE note (task_id bigint, words text);
CREATE FUNCTION note(words text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO note SELECT w.task_id, words FROM prometheus.worker w
	 WHERE w.pid = pg_backend_pid();
$$;
CREATE FUNCTION slip(words text) RETURNS void LANGUAGE plpgsql AS
$$BEGIN PERFORM note(words); RAISE EXCEPTION 'slipped'; END$$;
SELECT prometheus_set_tool('note(text)', tier => 'write'), prometheus_set_tool('slip(text)', tier => 'write'),
       prometheus_set_agent('scripted', 'scripted', tools => '{note,slip,push,keyed,look}'),
       prometheus_set_agent('fake-tools', 'fake-tools', tools => '{note,slip}');
EOSQL

sql(q{SELECT prometheus_set_agent('echoing', 'echo')});
$node->count_spending;
sql(q{SELECT prometheus_set_model('paused', 'echo'); SELECT prometheus_set_agent('moved', 'echo')});

# An answer that cannot be recorded, ever.
sql(q{ALTER TABLE prometheus._step ADD CHECK (answer IS DISTINCT FROM 'never')});

# Not an empty pattern: that is the last one that matched.
my $wanted = $ENV{PROM_FAULT_POINTS} // '.';
my @fixed = grep { /$wanted/ } @names;

# Each of 310 and 311 takes every other point; by hand 310 takes all.  To die,
# which makes the server reset itself, is tried at each; by hand the others too,
# else one of them in turn at every other point.
our $half;
my $by_hand = $ENV{PROM_FAULT_POINTS} // $ENV{PROM_FAULT_ROUNDS};
@fixed = @fixed[ grep { $_ % 2 == ($half // 0) } 0 .. $#fixed ] unless defined $by_hand;
my @others = ('stop', undef, 'error', undef);
foreach my $i (0 .. $#fixed)
{
	my $point = $fixed[$i];

	foreach my $action (qw(die error stop))
	{
		next if $action eq 'error' && $points{$point} eq 'false';
		next unless $action eq 'die' || defined $by_hand || $action eq ($others[ $i % 4 ] // '');
		ok(run_round([ $point, $action, 1 ]),
			"$point, $action: the fault was met");
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
		my @points = @names;
		my @faults;
		my $falls = 0;

		while (@faults < FAULTS_A_ROUND)
		{
			my $point = splice(@points, int(rand @points), 1);
			my @actions = $points{$point} eq 'true' ? ('error') : ();

			# Strikes come with a fault at this point.
			my $strikes = qr/$at_strike|^reply-half-read/;
			@points = grep { $_ !~ $strikes } @points if $point =~ $strikes;
			push @actions, 'die', 'stop' unless $falls;
			next unless @actions;
			my $action = $actions[ rand @actions ];
			$falls ||= $action ne 'error';
			push @faults,
			  [ $point, $action, $point =~ $once ? 1 : 1 + int(rand(4)) ];
		}
		my $now = run_round(@faults);
		$met += $now;
		note(join(' and ', map { "@$_" } @faults) . ": $now were met");
	}
	my $all = $rounds * FAULTS_A_ROUND;
	note("$met of $all faults were met");
}

$node->set_fault('');
is($node->log_count(qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing else crashed');
$node->stop;
$llm->stop;
done_testing();
1;
