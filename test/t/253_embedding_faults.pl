# Processes die and fail at each point of making an embedding: each memory gets
# its own, once, and a task that is under way comes to its end.
#
# PROM_FAULT_POINTS=REGEX: only the points that match it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
my $round = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1, conf => "prometheus.max_crashes = 100\nprometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;
$node->fake_agent($llm, 'fake-embed', name => 'vectors');
$node->fake_agent($llm, 'fake-mind', name => 'mind');
sql(q{SELECT prometheus_set_agent('sage', 'mind', mode => 'full', options => '{"embedding_model": "vectors"}')});

# Three memories, one after another, with a fault; true: it was met.
sub run_round
{
	my ($point, $action, $nth) = @_;

	$round++;
	$node->set_fault("$point:$action:$nth");
	foreach my $n (1 .. 3)
	{
		$node->wait_for('it is remembered', "SELECT prometheus_remember('sage', 'memory $n of round $round', metadata => '{\"n\": $round}') > 0");
		$node->wait_for('the next comes alone', "SELECT count(*) FROM prometheus.memory_embedding e JOIN prometheus.memory m USING (memory_id) WHERE m.metadata ->> 'n' = '$round'", $n)
		  if $n < 3 && $nth == 1;
	}
	$node->wait_for("$point, $action: each has one", "SELECT count(*) FROM prometheus.memory_embedding e JOIN prometheus.memory m USING (memory_id) WHERE m.metadata ->> 'n' = '$round' AND e.error IS NULL AND e.dimensions = 256", 3);
	return $node->fault_fired($point);
}

my %points = slurp_file('src/fault.c') =~ /^\t\{"(embed-[a-z-]+)", (true|false)\},$/mg;
my $wanted = $ENV{PROM_FAULT_POINTS} // '.';
cmp_ok(scalar keys %points, '>=', 6, 'the points are known');
foreach my $point (grep { /$wanted/ } sort keys %points)
{
	ok(run_round($point, $_, 1), "$point, $_: the fault was met") foreach qw(die error);
	ok(run_round($point, 'die', 2), "$point, die at the second: the fault was met");
}
$node->set_fault('');
is(sql(q{SELECT count(*) FROM prometheus._memory m WHERE NOT EXISTS (SELECT FROM prometheus._memory_embedding e WHERE e.memory_id = m.memory_id)}), 0, 'none is without');
is(sql(q{SELECT count(*) - count(DISTINCT memory_id) FROM prometheus._memory_embedding}), 0, 'none has two');
is(sql(q{SELECT count(*) FROM prometheus._embedding v WHERE NOT EXISTS (SELECT FROM prometheus._memory_embedding e WHERE e.hash = v.hash)}), 0, 'and none is of nothing');

# The points of the caller, met by the call of a task for its query.
foreach my $point (grep { /$wanted/ } qw(begin-before-commit begin-after-commit before-send after-send reply-read before-record record-before-commit record-after-commit))
{
	foreach my $action (qw(die error))
	{
		$node->set_fault("$point:$action:1");
		my $task = $node->submit_to_crash("'query of $point $action', 'sage'");
		$node->wait_task($task, 'completed');
		ok($node->fault_fired($point), "$point, $action: the fault was met");
		is(sql("SELECT count(*) FILTER (WHERE kind = 'embed' AND status = 'ok') || ' ' || count(*) FILTER (WHERE kind = 'recall') FROM prometheus.step WHERE task_id = $task"),
			'1 1', '... and the task has one embedding and one recall');
	}
}
$node->set_fault('');
is($node->log_count(qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing else crashed');
$node->stop;
$llm->stop;
done_testing();
