# Processes die around the export of spans of applications: each that is in the
# table is exported, however often, also what was left out at first.
use strict;
use warnings FATAL => 'all';

use FakeCollector;
use PromCluster;
use Test::More;

my $node = PromCluster->new('export');
my $collector = FakeCollector->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub wait_exported
{
	my ($about) = @_;
	$node->wait_for($about, q{SELECT lag = 0 AND waiting_since IS NULL FROM prometheus.consumer, prometheus.export WHERE name = 'prometheus.otlp'});
	return;
}

$node->init(restart_after_crash => 1, fsync => 1,
	conf => "prometheus.trace_sample_ratio = 1\nprometheus.otlp_interval = 10ms\nprometheus.otlp_metrics_interval = 0\nprometheus.otlp_endpoint = '" . $collector->url . "'\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
$node->wait_for('it is turned on', 'SELECT count(*) FROM prometheus.export', 1);

# They are in the table, and on disk: a commit that waits for that came later.
sub spans_in
{
	my ($trace, $n, $flags, $status) = @_;
	sql("SELECT prometheus_span_end(prometheus_span_start('x', traceparent => '00-$trace-00f067aa0ba902b7-$flags'), '$status') FROM generate_series(1, $n)");
	$node->wait_for('they are written', 'SELECT waiting FROM prometheus._span_counts()', 0);
	sql(q{SET synchronous_commit = on; SELECT prometheus_set_agent('flushed', 'echo')});
	return;
}

# How many of a trace there are, and how many the collector has.
sub exported
{
	my ($trace) = @_;
	return sql("SELECT count(*) FROM prometheus.span WHERE trace_id = '$trace'") . ' of which ' . grep { $_->{traceId} eq $trace } $collector->spans;
}

# Let the export go on, and see that it meets the fault.
sub resume_with
{
	my ($fault) = @_;
	my ($point, $action) = split /:/, $fault;

	$node->set_fault($fault);
	$node->psql('postgres', 'SELECT prometheus_resume()');
	if ($action eq 'stop')
	{
		$node->wait_stopped;
		$node->start;
	}
	$node->wait_for("$fault: it was met", "SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.fault.$point'");
	$node->wait_for("$fault: nothing is paused", 'SELECT prometheus_resume() IS NOT NULL');
	wait_exported("$fault: all is exported");
	return;
}

my $round = 0;

foreach my $fault (
	'export-in-spans:die:1', 'export-in-spans:die:200', 'export-in-spans:error:200', 'export-before-commit:die:1', 'export-before-commit:die:5',
	'export-before-commit:error:5', 'export-after-commit:die:5', 'export-before-send:die:2', 'export-after-send:die:1', 'export-answered:die:1',
	'export-answered:die:2', 'export-answered:stop:1')
{
	my $trace = sprintf '%032x', 0xa000 + ++$round;

	sql('SELECT prometheus_pause()');
	spans_in($trace, 400, '01', 'ok') for 1 .. 2;
	resume_with($fault);
	is(exported($trace), '800 of which 800', "T21: $fault: nothing is lost");
}

# What was left out, and is sent when another one has an error.
foreach my $fault ('export-before-commit:die:1', 'export-before-commit:die:2', 'export-before-commit:die:3', 'export-after-commit:die:3', 'export-before-commit:die:5',
	'export-after-send:die:2', 'export-answered:die:1', 'export-answered:die:2', 'export-before-commit:error:3')
{
	my $trace = sprintf '%032x', 0xb000 + ++$round;

	spans_in($trace, 200, '00', 'ok');
	wait_exported("$fault: all was looked at");
	is(exported($trace), '200 of which 0', "$fault: all was left out");
	sql('SELECT prometheus_pause()');
	spans_in($trace, 1, '00', 'error');
	resume_with($fault);
	is(exported($trace), '201 of which 201', "T21, T27: $fault: all of it is exported");
}
$node->check_invariants('after all', all_ended => 1);
done_testing();
