# A queue that is full: what it holds, who comes first when there is room, and
# that nobody is forgotten.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\nprometheus.queue_memory = '1MB'\nprometheus.rescan_interval = '1h'\n");
$node->start;
$node->create_extension;
$node->fake_agent($llm, 'fake-hang-before-headers');
$node->fake_agent($llm, 'fake-fixed', name => 'moves');
$node->fake_agent($llm, 'fake-slow-200', name => 'slow', options => '{"max_concurrent": 8}');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Hints are taken in their order: when this one has run, those before it have
# been looked at.
sub all_seen
{
	$node->wait_task($node->submit(q{'seen'}), 'completed');
	return;
}

# Refused before a paused model; then their agent gets another one.
sql(q{SELECT prometheus_pause('model:moves')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'model:moves'}, 'paused');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('moved'::text, ARRAY[6000]), 'moves')});
all_seen();
cmp_ok(sql(q{SELECT count(*) FROM prometheus.queue}), '<', 6000, 'not all have room');
sql(q{SELECT prometheus_set_agent('moves', 'echo')});
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request = 'moved' AND status <> 'completed'}, 0);
pass('tasks that were refused run when their agent gets another model');

# What waits behind a key counts as well.
my $holder = $node->submit(q{'holder', 'fake-hang-before-headers', concurrency_key => 'k'});
$node->wait_task($holder, 'running');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('behind'::text, ARRAY[6000]), concurrency_key => 'k')});
all_seen();
my $behind = sql(q{SELECT count(*) FROM prometheus.queue WHERE why ~ 'with the same'});
ok($behind > 0 && $behind < 4000, "behind a key are not more than there is room for: $behind");
sql("SELECT prometheus_cancel($holder)");
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request = 'behind' AND status <> 'completed'}, 0);
is(sql(q{SELECT count(*) FROM (SELECT started_at, lag(ended_at) OVER (ORDER BY started_at) AS before FROM prometheus.task WHERE request = 'behind') o WHERE before > started_at}),
	0, 'those that were refused run too, and one at a time');

# Those that were refused come before what is new, though there is always
# something new.
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('later'::text, ARRAY[6000]), run_at => clock_timestamp() + interval '1 day')});
$node->wait_task($node->submit(q{'warm', 'slow'}), 'completed');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('old'::text, ARRAY[400]), 'slow')});
all_seen();
cmp_ok(sql(q{SELECT count(*) FROM prometheus.queue WHERE agent = 'slow'}), '<', 400, 'some have no room');
my $new = 0;
my $end = time + $PostgreSQL::Test::Utils::timeout_default;
while (time < $end && sql(q{SELECT count(*) FROM prometheus.task WHERE request = 'old' AND started_at IS NULL}) > 0)
{
	next if sql(q{SELECT count(*) FROM prometheus.queue WHERE agent = 'slow'}) > 250;
	sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('new'::text, ARRAY[30]), 'slow')});
	$new++;
}
cmp_ok($new, '>', 2, 'new ones came all the while');
is(sql(q{SELECT count(*) FROM prometheus.task WHERE request = 'new' AND started_at < (SELECT max(started_at) FROM prometheus.task WHERE request = 'old')}),
	0, 'and began when all the old ones had');
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE agent = 'slow' AND status <> 'completed'}, 0);

$node->check_invariants('invariants');
$node->stop;
done_testing();
