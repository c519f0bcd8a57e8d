# Gates that open by themselves while nobody looks, and what one model must not
# do to the tasks of others.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;
$node->fake_agent($llm, 'fake-fixed');

# One failure closes its gate for a second.
my $breaks = '{"breaker_failures": 1, "first_byte_timeout": "1500 ms"}';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub why_of { my ($task) = @_; return "SELECT why FROM prometheus.queue WHERE task_id = $task"; }

# Until the first-byte time-out of a task's open attempt has passed.
sub wait_timeout
{
	my ($task) = @_;
	$node->wait_for('its time is over', "SELECT clock_timestamp() > started_at + interval '1800 ms' FROM prometheus.attempt WHERE task_id = $task");
	return;
}

# A task is given to the caller, finds the gate closed, and the scheduler hears
# of it when it is open again.  The gate is closed for a second: on a machine
# that needs longer for a turn, again.
my ($first, $second, $caller, $let_through);
foreach my $try (1 .. 25)
{
	$node->fake_agent($llm, 'fake-hang-before-headers', name => "breaks $try", options => $breaks);
	$first = $node->submit("'first', 'breaks $try', max_attempts => 1");
	$node->wait_task($first, 'running');
	$llm->wait_requests(2 * $try - 1);
	$caller = $node->signal_worker('STOP', 'caller');
	$second = $node->submit("'second', 'breaks $try', max_attempts => 1");
	$node->wait_for('it has a slot', "SELECT status FROM prometheus.queue WHERE task_id = $second", 'running');
	wait_timeout($first);
	my $scheduler = $node->signal_worker('STOP', 'scheduler');
	kill('CONT', $caller);
	$node->wait_task($first, 'failed');
	$node->wait_for('the gate is open again', "SELECT state FROM prometheus.gate WHERE target = 'model:breaks $try'", 'opening');
	$let_through = sql("SELECT count(*) FROM prometheus.attempt WHERE task_id = $second");
	kill('CONT', $scheduler);
	$node->wait_task($second, 'failed');
	last if $let_through eq '0';
}
is($let_through, 0, 'it was not let through');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $second"), 'ModelTimeout', 'it is let through when its gate has opened');

# The same with a fallback that opens by itself before a model that is paused.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'other', options => $breaks);
$node->fake_agent($llm, 'fake-fixed', name => 'main', options => '{"fallback": ["other"]}');
sql(q{SELECT prometheus_pause('model:main')});
$node->wait_for('it is paused', q{SELECT state FROM prometheus.gate WHERE target = 'model:main'}, 'paused');
$first = $node->submit(q{'third', 'main', max_attempts => 1});
$node->wait_task($first, 'running');
is(sql("SELECT model FROM prometheus._attempt WHERE task_id = $first"), 'other', 'a paused model that was never used goes to its fallback');
$caller = $node->signal_worker('STOP', 'caller');
$second = $node->submit(q{'fourth', 'main', max_attempts => 1});
$node->wait_for('it has a slot', "SELECT status FROM prometheus.queue WHERE task_id = $second", 'running');
wait_timeout($first);
kill('CONT', $caller);
$node->wait_task($_, 'failed') foreach $first, $second;
pass('a fallback that has opened is used');
$node->restart;
$node->wait_task($node->submit(q{'fifth', 'main', max_attempts => 1}), 'failed');
pass('also after a restart');
sql(q{SELECT prometheus_set_model('main', options => '{"fallback": ["fake-fixed"]}')});
$node->wait_task($node->submit(q{'sixth', 'main'}), 'completed');
pass('and so is one that was added while it is paused');
sql(q{SELECT prometheus_resume('model:main')});

# Who prefers a fallback that is full goes on, and stalls nobody.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'full', options => '{"max_concurrent": 1}');
$node->fake_agent($llm, 'fake-503-then-ok', name => 'idle', options => '{"fallback": ["full"]}');
my $occupies = $node->submit(q{'occupies', 'full'});
$node->wait_task($occupies, 'running');
my @idle = map { $node->submit("'idle $_', 'idle'") } 1 .. 5;
$node->wait_task($_, 'completed') foreach @idle;
pass('a fallback that is full is passed over');

# Many short closings, and every task comes through.
$node->fake_agent($llm, 'fake-429-ms-then-ok', name => "limited $_") foreach 1 .. 4;
sql(q{SELECT count(prometheus_submit('limited ' || n || ' ' || i, 'limited ' || n)) FROM generate_series(1, 4) n, generate_series(1, 12) i});
$node->wait_for('all have come through', q{SELECT count(*) FROM prometheus.task WHERE request ~ 'limited' AND status = 'completed'}, 48);
pass('after many short closings every task has come through');

# More tasks for one model than there is room for: it is open, and full.
$node->append_conf('postgresql.conf', "prometheus.queue_memory = '1MB'");
$node->restart;
$node->wait_task($occupies, 'running');
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('many'::text, ARRAY[6000]), 'full')});
$node->wait_for('the queue is full', q{SELECT count(*) BETWEEN 1000 AND 5000 FROM prometheus.queue});
$node->wait_task($node->submit(q{'beside'}), 'completed');
pass('a full model keeps nobody out');
my $hurry = $node->submit(q{'hurry', 'full', timeout => '1 s'});
my $unwanted = $node->submit(q{'unwanted', 'full'});
is(sql("SELECT count(*) FROM prometheus.queue WHERE task_id IN ($hurry, $unwanted)"), 0, 'there is no room for these');
sql("SELECT prometheus_cancel($unwanted)");
$node->wait_task($unwanted, 'cancelled');
$node->wait_task($hurry, 'failed');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $hurry"), 'DeadlineExceeded', 'but their ends come');

# The same while everything is paused; and nothing is read over and over.
sql(q{SELECT prometheus_pause()});
my $late = $node->submit(q{'late', timeout => '1 s'});
$node->wait_task($late, 'failed');
my $scans = "SELECT value FROM prometheus_health() WHERE check_name ~ 'scan'";
my $before = sql($scans);
$node->wait_for('three seconds have passed', "SELECT clock_timestamp() > ended_at + interval '3 s' FROM prometheus.task WHERE task_id = $late");
cmp_ok(sql($scans) - $before, '<', 3, 'live tasks are not read in a loop');
sql(q{SELECT prometheus_set_agent('full', 'echo'); SELECT prometheus_resume()});
sql("SELECT prometheus_cancel($occupies)");
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request = 'many' AND status = 'completed'}, 6000);
pass('and all run in the end');

# When there are no more gates, only who needs another one fails.
$node->append_conf('postgresql.conf', "prometheus.queue_memory = '64MB'");
$node->restart;
$node->wait_task($node->submit(q{'opens its gate', 'fake-fixed'}), 'completed');
sql(q{SELECT count(prometheus_set_model('gate ' || i, 'echo')), count(prometheus_pause('model:gate ' || i)) FROM generate_series(1, 520) i});
$node->wait_for('all gates are made', q{SELECT count(*) FROM prometheus._gates()}, 512);
$node->fake_agent($llm, 'fake-echo', name => 'one more');
sql(q{SELECT count(prometheus_submit('one more ' || i, 'one more')), count(prometheus_submit('innocent ' || i, 'fake-fixed')) FROM generate_series(1, 20) i});
$node->wait_for('the innocent complete', q{SELECT count(*) FROM prometheus.task WHERE request ~ 'innocent' AND status = 'completed'}, 20);
$node->wait_for('the others fail', q{SELECT count(*) FROM prometheus.task WHERE request ~ 'one more' AND status = 'failed' AND error_type = 'ConfigurationError' AND error = 'too many models are in use'}, 20);
pass('no more gates: who needs one fails, and no other');

$node->stop;
done_testing();
