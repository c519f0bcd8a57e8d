# Export: metrics go to a collector over OTLP/HTTP, when one is not as before.
# The tests that are named T... are those of the conformance list of the
# project's notes on observability.
use strict;
use warnings FATAL => 'all';

use FakeCollector;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PromCluster->new('meter');
my $collector = FakeCollector->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub set_conf
{
	my (%settings) = @_;
	sql("ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

sub run_echo
{
	my $task = $node->submit(q{'hi'});

	$node->wait_task($task, 'completed');
	return $task;
}

# What was asked for at its place, in order.
sub metrics_requests { return grep { $_->{path} eq '/v1/metrics' } @{ $collector->requests }; }

# The points of a request: what each series is, by its name and labels.
sub points_of
{
	my ($request) = @_;
	my %points;

	foreach my $metric (map { @{ $_->{metrics} } } map { @{ $_->{scopeMetrics} } } @{ $request->{json}{resourceMetrics} })
	{
		my $data = $metric->{sum} // $metric->{histogram} // $metric->{gauge};

		foreach my $point (@{ $data->{dataPoints} })
		{
			my $labels = join ',', map { "$_->{key}=$_->{value}{stringValue}" } @{ $point->{attributes} };

			$points{"$metric->{name}\{$labels\}"} = $point;
		}
	}
	return \%points;
}

# The last request that was taken in which a series has come so far, when there
# is one after the first so many.
sub wait_point
{
	my ($name, $value, $after) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $last;

	for (;;)
	{
		my @requests = metrics_requests();

		foreach my $request (grep { $_->{status} == 200 } @requests[ ($after // 0) .. $#requests ])
		{
			my $point = points_of($request)->{$name};

			$last = $request if defined $point && ($point->{asInt} // $point->{count} // $point->{asDouble}) eq $value;
		}
		last if defined $last;
		BAIL_OUT("$name did not become $value") if time > $deadline;
		usleep(20_000);
	}
	return $last;
}

my $submitted = 'prom_agent.tasks.submitted{agent=default}';

$node->init(databases => [ 'postgres', 'latin' ],
	conf => "prometheus.trace_sample_ratio = 0\nprometheus.otlp_metrics_interval = 50ms\n");
$node->start;
$node->create_extension;
set_conf('prometheus.otlp_endpoint' => $collector->url);

# What is sent.

my $task = run_echo();
my $request = wait_point($submitted, '1');
my $points = points_of($request);
my $duration = $points->{'prom_agent.task.duration{agent=default,outcome=completed}'};
is($duration->{count}, '1', 'a histogram has one task');
is(scalar(@{ $duration->{bucketCounts} }) . ' ' . @{ $duration->{explicitBounds} }, '15 14', 'T23: one bucket more than bounds');
is($duration->{exemplars}[0]{traceId}, sql("SELECT trace_id FROM prometheus.task WHERE task_id = $task"), 'an exemplar is of its trace');
is($duration->{exemplars}[0]{asDouble}, $duration->{sum}, 'and has its value');
is(join(' | ', map { $request->{headers}{$_} // 'none' } qw(content-type content-encoding user-agent)),
	'application/json | gzip | OTel-OTLP-Exporter-C/0.1', 'T14: sent as traces are');
cmp_ok(sql('SELECT points FROM prometheus.export'), '>=', scalar keys %$points, 'points are counted');
my ($exposed) = sql('SELECT prometheus_metrics()') =~ /^prom_agent_tasks_submitted_total\{agent="default"\} (\d+)$/m;
is($exposed, '1', 'prometheus_metrics() says the same');

# Gauges.

is($points->{'prom_agent.tasks.in_flight_limit{}'}{asDouble}, sql('SHOW prometheus.max_in_flight'), 'gauges go with them');
is($points->{'prom_agent.workers{role=caller}'}{asDouble}, 1, 'and of each process');
is(scalar(grep { /^prom_agent\.server\./ } keys %$points) > 0, 1, 'and of the server');
is(scalar(grep { exists $points->{$_}{startTimeUnixNano} } grep { /^prom_agent\.(?:queue\.tasks|gate\.|server\.|workers\{)/ } keys %$points), 0, 'they have no start');

# What the receiver does.

sub after_reply
{
	my ($behaviour, $n) = @_;
	my $before = metrics_requests();

	$collector->behave($behaviour);
	run_echo();
	wait_point($submitted, $n);
	my @since = metrics_requests();

	# A gauge may have been sent meanwhile.
	@since = @since[ $before .. $#since ];
	shift @since while @since && $since[0]{status} eq '200' && ($behaviour->{status} // 200) != 200;
	return @since;
}

my @replies = after_reply({ status => 503 }, 2);
is($replies[0]{status} . ' ' . $replies[-1]{status}, '503 200', 'T16: 503 is tried again');
cmp_ok($replies[1]{at} - $replies[0]{at}, '>=', 0.5, 'T16: after a while');
isnt($replies[0]{raw}, $replies[1]{raw}, 'with the counts of then');
is(sql('SELECT metrics_error FROM prometheus.export'), '', 'and all is well again');
$collector->behave({ status => 400, body => '{"message":"no metrics here"}', times => 1000 });
run_echo();
$node->wait_for('T17: 400 is said', 'SELECT metrics_error FROM prometheus.export', 'the receiver answered HTTP 400: no metrics here');
cmp_ok(sql('SELECT rejected_points FROM prometheus.export'), '>', 0, 'T17: and counted');
$collector->behave;
run_echo();
wait_point($submitted, 4);
$collector->behave({ body => '{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"too many labels"}}', times => 1000 });
my $rejected = sql('SELECT rejected_points FROM prometheus.export');
run_echo();
$node->wait_for('T18: what it rejects is counted', "SELECT rejected_points > $rejected, (rejected_points - $rejected) % 2, metrics_error FROM prometheus.export", 't|0|too many labels');
$collector->behave;
after_reply({ how => 'cut' }, 6);
pass('T19: a response that is cut off is followed by another request');
is($node->health('export'), 'ok|0 spans|', 'traces are well meanwhile');

# Text.

sql('CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE "C"');
$node->create_extension('latin');
$node->safe_psql('latin', q{SELECT prometheus_set_agent(convert_from('\xe4df'::bytea, 'LATIN1'), 'echo')});
$task = $node->safe_psql('latin', q{SELECT prometheus_submit('x', convert_from('\xe4df'::bytea, 'LATIN1'))});
$node->wait_task($task, 'completed', dbname => 'latin');
wait_point("prom_agent.tasks.submitted{agent=\x{e4}\x{df}}", 1);
pass('T9: labels are UTF-8');

# After a restart, and a crash, series begin anew, and later.

my $before = metrics_requests();
$node->restart;
run_echo();
my $restarted = points_of(wait_point($submitted, 1, $before));
cmp_ok($restarted->{$submitted}{startTimeUnixNano}, '>', $points->{$submitted}{startTimeUnixNano}, 'T24: a restart begins anew');
$node->stop('immediate');
$before = metrics_requests();
$node->start;
run_echo();
wait_point($submitted, 1, $before);

# Paused, and off.

sql('SELECT prometheus_pause()');
my $waiting = $node->submit(q{'paused'});
sql('SELECT prometheus_resume()');
$node->wait_task($waiting, 'completed');
wait_point($submitted, 2, $before);
set_conf('prometheus.otlp_metrics_interval' => '0');
run_echo();
set_conf('prometheus.otlp_metrics_interval' => '50ms');
wait_point($submitted, 3, $before);

# A gauge alone.

$before = metrics_requests();
my $later = sql(q{SELECT prometheus_submit('later', run_at => now() + interval '1 hour')});
wait_point('prom_agent.queue.tasks{state=later}', 1, $before);
sql("SELECT prometheus_cancel($later)");
wait_point('prom_agent.queue.tasks{state=later}', 0, $before);
pass('a gauge is sent when it changes');

# All that was sent.

my %of;

foreach my $one (grep { $_->{status} == 200 } metrics_requests())
{
	my ($instance) = map { $_->{value}{stringValue} } grep { $_->{key} eq 'service.instance.id' } @{ $one->{json}{resourceMetrics}[0]{resource}{attributes} };

	push @{ $of{$instance} }, $one;
}
is(scalar keys %of, 2, 'each database is an instance');

# Without what our own processes count of themselves, and others change.
sub counts_of
{
	my $points = points_of($_[0]);

	return join ' ', map { join ' ', $_, $points->{$_}{asInt} // $points->{$_}{asDouble} // $points->{$_}{count}, $points->{$_}{startTimeUnixNano} // '' }
	  grep { !/^prom_agent\.(?:worker\.(?:busy|wal)\{|server\.|storage\.|worker_processes\.)/ } sort keys %$points;
}
my $same = 0;
foreach my $list (values %of)
{
	$same += grep { counts_of($list->[ $_ - 1 ]) eq counts_of($list->[$_]) } 1 .. $#$list;
}
is($same, 0, 'nothing is sent while nothing is counted or changes');
SKIP:
{
	my $nothing;

	skip 'node has no @opentelemetry/otlp-transformer', scalar keys %of
	  if !eval { IPC::Run::run([ 'node', '-e', q{require('@opentelemetry/otlp-transformer/build/src/generated/root.js')} ], '>&', \$nothing) };
	foreach my $instance (sort keys %of)
	{
		my $file = PostgreSQL::Test::Utils::tempdir_short . '/requests.json';
		my ($out, $err);
		my %series = map { map { $_ => 1 } keys %{ points_of($_) } } @{ $of{$instance} };

		PostgreSQL::Test::Utils::append_to_file($file, JSON::PP->new->utf8->encode([ map { $_->{json} } @{ $of{$instance} } ]));
		IPC::Run::run([ 'node', 'test/otlp_check.js', $file ], '>', \$out, '2>', \$err) or diag($err);
		is($out, 'OK ' . keys(%series) . "\n", 'T4 to T9, T13, T23, T24, T30: the official classes read every request');
	}
}
done_testing();
