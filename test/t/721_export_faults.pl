# Processes die around the export of traces, and the server stops: each span is
# exported, however often.
use strict;
use warnings FATAL => 'all';

use FakeCollector;
use PromCluster;
use Test::More;

my $node = PromCluster->new('export');
my $collector = FakeCollector->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1, fsync => 1,
	conf => "prometheus.trace_sample_ratio = 1\nprometheus.otlp_interval = 10ms\nprometheus.otlp_metrics_interval = 0\nprometheus.otlp_endpoint = '" . $collector->url . "'\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
$node->wait_for('it is turned on', 'SELECT count(*) FROM prometheus.export', 1);

# The spans of tasks that are exported, and how many requests had the first.
sub exported
{
	my ($tasks) = @_;
	my %wanted = map { $_ => 1 } split /\n/, sql("SELECT span_id FROM prometheus.span WHERE trace_id IN (SELECT trace_id FROM prometheus.task WHERE task_id IN ($tasks))");
	my %taken = map { $_->{spanId} => 1 } $collector->spans;
	my ($one) = sort keys %wanted;
	my $times = grep { grep { $_->{spanId} eq $one } FakeCollector::spans_of($_) } @{ $collector->requests };

	return (scalar(keys %wanted) . ' of which ' . grep({ $taken{$_} } keys %wanted), $times);
}

my $round = 0;

# The receiver has it before the position is moved: then it is sent again.
foreach my $fault (
	'export-in-read:die:1', 'export-in-read:error:1', 'export-in-readahead:die:1', 'export-in-readahead:error:1', 'export-before-commit:die:1', 'export-before-commit:error:1', 'export-before-commit:die:2',
	'export-before-commit:error:2', 'export-after-commit:die:1', 'export-after-commit:die:2', 'export-before-send:die:1', 'export-before-send:error:1',
	'export-after-send:die:1', 'export-answered:die:1', 'export-before-commit:stop:2', 'export-answered:stop:1', 'export-after-send:stop:1')
{
	my ($point, $action, $nth) = split /:/, $fault;

	$round++;
	$node->set_fault($fault);
	my $tasks = sql("SELECT string_agg(id::text, ',') FROM prometheus_submit_many(array_fill('$round'::text, ARRAY[20])) id");
	if ($action eq 'stop')
	{
		$node->wait_stopped;
		$node->start;
	}
	$node->wait_for("$fault: all have ended", "SELECT count(*) FROM prometheus.task WHERE task_id IN ($tasks) AND status = 'completed'", 20);
	$node->wait_for("$fault: it was met", "SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f = 'prometheus.fault.$point'");
	$node->wait_for("$fault: all is exported", q{SELECT lag = 0 AND waiting_since IS NULL FROM prometheus.consumer, prometheus.export WHERE name = 'prometheus.otlp'});
	my ($exported) = exported($tasks);
	is($exported, '60 of which 60', "T21: $fault: nothing is lost");
}

# Of one task it is known when what was met.
foreach my $case ([ 'export-answered:die:1', 2 ], [ 'export-before-commit:die:2', 2 ], [ 'export-after-commit:die:2', 1 ])
{
	my ($fault, $times) = @$case;

	$node->set_fault($fault);
	my $task = $node->submit_to_crash(q{'one'});
	$node->wait_task($task, 'completed');
	$node->wait_for("$fault: it was met", "SELECT count(*) > 0 FROM pg_ls_dir('.') f WHERE f LIKE 'prometheus.fault.%'");
	$node->wait_for("$fault: it is exported", q{SELECT lag = 0 AND waiting_since IS NULL FROM prometheus.consumer, prometheus.export WHERE name = 'prometheus.otlp'});
	is(join(' ', exported($task)), "3 of which 3 $times", "T21: $fault: sent so often");
}
$node->check_invariants('after all', all_ended => 1);
done_testing();
