# A queue that is full: what it holds, who comes first when there is room, and
# that nobody is forgotten.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;
use Time::HiRes qw(usleep);

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\nprometheus.queue_memory = '1MB'\nprometheus.rescan_interval = '1h'\n");
$node->start;
$node->create_extension;
$node->fake_agent($llm, $_) foreach 'fake-fixed', 'fake-hang-before-headers';
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
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('moved'::text, ARRAY[4000]), 'moves')});
all_seen();
cmp_ok(sql(q{SELECT count(*) FROM prometheus.queue}), '<', 4000, 'not all have room');
sql(q{SELECT prometheus_set_agent('moves', 'echo')});
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request = 'moved' AND status <> 'completed'}, 0);
pass('tasks that were refused run when their agent gets another model');

# What waits behind a key counts as well.
my $holder = $node->submit(q{'holder', 'fake-hang-before-headers', concurrency_key => 'k'});
$node->wait_task($holder, 'running');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('behind'::text, ARRAY[4000]), concurrency_key => 'k')});
all_seen();
my $behind = sql(q{SELECT count(*) FROM prometheus.queue WHERE why ~ 'with the same'});
ok($behind > 0 && $behind < 3000, "behind a key are not more than there is room for: $behind");
sql("SELECT prometheus_cancel($holder)");
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request = 'behind' AND status <> 'completed'}, 0);
is(sql(q{SELECT count(*) FROM (SELECT started_at, lag(ended_at) OVER (ORDER BY started_at) AS before FROM prometheus.task WHERE request = 'behind') o WHERE before > started_at}),
	0, 'those that were refused run too, and one at a time');

# Also when its hints come in the turn in which the key is free.
my $most = 0;
$node->wait_task($node->submit(q{'x', 'fake-fixed', concurrency_key => 'often'}), 'completed');
for my $i (1 .. 4)
{
	my $scheduler = $node->signal_worker('STOP', 'scheduler');
	sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('often'::text, ARRAY[3000]), 'fake-fixed', concurrency_key => 'often')});
	kill('CONT', $scheduler);
	all_seen();
	my $now = sql(q{SELECT count(*) FROM prometheus.queue});
	$most = $now if $now > $most;
}
sql(q{SELECT prometheus_pause('model:fake-fixed')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'model:fake-fixed'}, 'paused');
$node->wait_for('nothing moves', q{SELECT count(*) FROM prometheus.queue WHERE status = 'running'}, 0);
cmp_ok($most, '<', 9000, "nor does it grow by what comes when the key is free: $most");
# The query reads the queue twice, and tasks may just be read again.
$node->wait_for('and none overtakes those that were refused',
	q{SELECT count(*) FROM prometheus.queue q JOIN prometheus.task t USING (task_id) WHERE request = 'often' AND q.task_id > (SELECT min(task_id) FROM prometheus.task WHERE request = 'often' AND status = 'queued' AND task_id NOT IN (SELECT task_id FROM prometheus.queue))},
	0);
sql(q{SELECT prometheus_resume('model:fake-fixed')});
sql(q{SELECT count(prometheus_cancel(task_id)) FROM prometheus.task WHERE request = 'often' AND status IN ('queued', 'running')});
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE request = 'often' AND status IN ('queued', 'running')}, 0);

# Nor when they were refused before somebody had the key.  A scan that takes long
# lets the next one come later.
sql(q{SELECT prometheus_pause()});
$node->wait_for('all is paused', q{SELECT state FROM prometheus.gate WHERE target = 'all'}, 'paused');
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE prometheus._attempt');
sql(q{SELECT prometheus_resume()});
$node->wait_for('the scan waits', q{SELECT count(*) FROM pg_locks WHERE relation = 'prometheus._attempt'::regclass AND NOT granted}, 1);
$lock->query_safe('COMMIT');
$lock->quit;
my $stopped = $node->signal_worker('STOP', 'scheduler');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('first'::text, ARRAY[3000]), 'fake-hang-before-headers', concurrency_key => 'l')});
kill('CONT', $stopped);
all_seen();
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('second'::text, ARRAY[20]), 'fake-hang-before-headers', concurrency_key => 'l')});
all_seen();
is(sql(q{SELECT count(*) FROM prometheus.queue JOIN prometheus.task USING (task_id) WHERE request = 'second'}),
	0, 'they are first, whether or not somebody had the key');
sql(q{SELECT count(prometheus_cancel(task_id)) FROM prometheus.task WHERE request IN ('first', 'second') AND status IN ('queued', 'running')});
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE request IN ('first', 'second') AND status IN ('queued', 'running')}, 0);

# Nobody who waits for a key can run, but one that comes can.
sql(q{SELECT prometheus_set_agent('stopped', 'echo'); SELECT prometheus_pause('agent:stopped')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'agent:stopped'}, 'paused');
$holder = $node->submit(q{'holder', 'fake-hang-before-headers', concurrency_key => 'j'});
$node->wait_task($holder, 'running');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('stopped'::text, ARRAY[4000]), 'stopped', concurrency_key => 'j')});
my @free = map { $node->submit("'free', concurrency_key => 'j'") } 1 .. 3;
all_seen();
sql("SELECT prometheus_cancel($holder)");
$node->wait_task($_, 'completed') foreach @free;
pass('tasks of another agent have a place behind a key');
is(sql("SELECT bool_and(x.ended_at <= y.started_at) FROM prometheus.task x, prometheus.task y WHERE x.task_id = $free[0] AND y.task_id = $free[1] OR x.task_id = $free[1] AND y.task_id = $free[2]"),
	't', 'in their order');
sql(q{SELECT prometheus_resume('agent:stopped')});
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request = 'stopped' AND status <> 'completed'}, 0);

# Those that were refused come before what is new, though there is always
# something new.
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('later'::text, ARRAY[4000]), run_at => clock_timestamp() + interval '1 day')});
$node->wait_task($node->submit(q{'warm', 'slow'}), 'completed');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('old'::text, ARRAY[400]), 'slow')});
all_seen();
cmp_ok(sql(q{SELECT count(*) FROM prometheus.queue WHERE agent = 'slow'}), '<', 400, 'some have no room');
my $new = 0;
my $end = time + $PostgreSQL::Test::Utils::timeout_default;
while (time < $end && sql(q{SELECT count(*) FROM prometheus.task WHERE request = 'old' AND started_at IS NULL}) > 0)
{
	usleep(20_000);
	next if sql(q{SELECT count(*) FROM prometheus.queue WHERE agent = 'slow'}) > 250 ||
	  sql(q{SELECT count(*) FROM prometheus.task WHERE request = 'new' AND status <> 'completed'}) > 300;
	sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('new'::text, ARRAY[30]), 'slow')});
	$new++;
}
cmp_ok($new, '>', 2, 'new ones came all the while');
is(sql(q{SELECT count(*) FROM prometheus.task WHERE request = 'new' AND started_at < (SELECT max(started_at) FROM prometheus.task WHERE request = 'old')}),
	0, 'and began when all the old ones had');
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE agent = 'slow' AND status <> 'completed'}, 0);

# A turn that was refused is not overtaken by one that comes as the turn before
# it ends.
my @turns = ($node->submit(q{'turn', 'fake-hang-before-headers', conversation => 'v'}));
$node->wait_task($turns[0], 'running');
push @turns, map { $node->submit("'turn', 'fake-hang-before-headers', conversation => 'v'") } 1 .. 2;
all_seen();
is(sql("SELECT count(*) FROM prometheus.queue WHERE task_id = $turns[2]"), 0, 'it has no room');
my $scheduler = $node->signal_worker('STOP', 'scheduler');
$node->fake_agent($llm, 'fake-fixed', name => 'fake-hang-before-headers');
sql("SELECT prometheus_cancel($_)") foreach @turns[0, 1];
push @turns, $node->submit(q{'turn', 'fake-hang-before-headers', conversation => 'v'});
kill('CONT', $scheduler);
$node->wait_task($_, 'completed') foreach @turns[2, 3];
is(sql("SELECT x.ended_at <= y.started_at FROM prometheus.task x, prometheus.task y WHERE x.task_id = $turns[2] AND y.task_id = $turns[3]"),
	't', 'and is first all the same');

$node->check_invariants('invariants');
$node->stop;
done_testing();
