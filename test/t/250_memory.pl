# What the caller needs when many long requests come at once: a turn of its
# loop loads an eighth of prometheus.network_memory, but always a task.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('memory');
$node->keep_sessions;

$node->init(conf => "prometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;

# The most memory that the caller ever had, MB.
sub peak
{
	my $pid = $node->worker_pid('caller');
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB$/m;
	return $kb / 1024;
}

# Submit so many requests of a megabyte, and wait until all have ended.
sub submit_many
{
	my ($n) = @_;
	$node->safe_psql('postgres',
		"SELECT count(*) FROM prometheus_submit_many(ARRAY(SELECT repeat(md5(i::text), 32000) FROM generate_series(1, $n) i))");
	$node->wait_for('all have ended',
		q{SELECT count(*) FROM prometheus.task WHERE status <> 'completed'}, '0');
	return;
}

$node->safe_psql('postgres', q{CALL prometheus_ask('x')});
my $before = peak();
submit_many(100);
my $needed = peak() - $before;
cmp_ok($needed, '<', 180, '100 requests of a megabyte need less than that');
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM prometheus.task WHERE result = request}),
	'101', 'and each is answered');

# Not even one fits.
$node->append_conf('postgresql.conf', "prometheus.network_memory = '4MB'\n");
$node->reload;
submit_many(8);
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM prometheus.task WHERE result = request}),
	'109', 'where not even one fits, they go one by one');

# Prompts count with all that is in them, here a result of a megabyte: a turn
# begins ten at most.
$node->append_conf('postgresql.conf', "prometheus.network_memory = '80MB'\n");
$node->reload;
$node->fake_agent($llm, 'fake-fixed');
my $parent = $node->submit(q{repeat('x', 1000000)});
$node->wait_task($parent, 'completed');
$node->safe_psql('postgres',
	"SELECT count(*) FROM prometheus_submit_many(array_fill('x'::text, '{40}'), 'fake-fixed', depends_on => '{$parent}')");
$node->wait_for('all have ended',
	q{SELECT count(*) FROM prometheus.task WHERE status <> 'completed'}, '0');
cmp_ok(
	$node->safe_psql('postgres',
		q{SELECT max(n) FROM (SELECT count(*) FROM prometheus._attempt
			WHERE model = 'fake-fixed' GROUP BY xid) AS v(n)}),
	'<=', 11, 'what a task depends on counts too');
$node->check_invariants('at the end', all_ended => 1);

$node->stop;
$llm->stop;
done_testing();
