# A gate goes by the newest options of its model, whichever version of it a task
# has begun with; and a task waits before the model that it will use.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->init(conf => "prometheus.allow_private_endpoints = on\nprometheus.rescan_interval = '1s'\nmax_prepared_transactions = 5\n");
$node->start;
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub gate
{
	my ($target, $state) = @_;
	$node->wait_for("$target is $state", "SELECT state FROM prometheus.gate WHERE target = '$target'", $state);
	return;
}

# The first attempt of a task is over, and another is to come.
sub tried_once
{
	my ($task) = @_;
	$node->wait_for("task $task was tried", "SELECT outcome FROM prometheus.attempt WHERE task_id = $task AND attempt = 1", 'retry');
	return;
}

sub is_begun
{
	my ($task, $name) = @_;
	$node->wait_for($name, "SELECT count(*) > 0 FROM prometheus._attempt WHERE task_id = $task", 't');
	pass($name);
	return;
}

# A task is tried again on the version that let one through at a time.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'wider', options => '{"max_concurrent": 1, "first_byte_timeout": "1 s"}');
my $first = $node->submit(q{'first', 'wider', max_attempts => 100});
$node->wait_task($first, 'running');
$node->fake_agent($llm, 'fake-fixed', name => 'wider', options => '{"max_concurrent": 10}');
tried_once($first);
$node->wait_task($first, 'running');
my $caller = $node->signal_worker('STOP', 'caller');
my $second = $node->submit(q{'second', 'wider'});
kill('CONT', $caller);
$node->wait_task($second, 'completed');
is(sql(q{SELECT width FROM prometheus.gate WHERE target = 'model:wider'}), 10, 'ten may run, whatever version one has begun with');
sql("SELECT prometheus_cancel($first)");
$node->wait_task($first, 'cancelled');

# A model is out of money and gets a fallback: also he who closed it goes there.
$node->fake_agent($llm, 'fake-fixed', name => 'other', options => '{"max_concurrent": 1}');
$node->fake_agent($llm, 'fake-429-quota', name => 'poor');
my $poor = $node->submit(q{'poor', 'poor', priority => 1000});
gate('model:poor', 'closed');
sql(q{SELECT prometheus_set_model('poor', options => '{"fallback": ["other"]}')});
my @rest = map { $node->submit("'rest', 'poor'") } 1 .. 5;
$node->wait_task($_, 'completed') foreach $poor, @rest;
is(sql("SELECT string_agg(DISTINCT model, ' ') FROM prometheus._attempt WHERE task_id IN ($poor, $rest[0], $rest[4]) AND attempt = (SELECT max(a.attempt) FROM prometheus._attempt a WHERE a.task_id = prometheus._attempt.task_id)"),
	'other', 'a fallback that a model got is used by all that wait for it');

# The same while it is paused.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'stopped', options => '{"first_byte_timeout": "1 s"}');
my $begun = $node->submit(q{'begun', 'stopped'});
$node->wait_task($begun, 'running');
sql(q{SELECT prometheus_pause('model:stopped')});
gate('model:stopped', 'paused');
tried_once($begun);
sql(q{SELECT prometheus_set_model('stopped', options => '{"fallback": ["other"]}')});
@rest = map { $node->submit("'rest', 'stopped'") } 1 .. 5;
$node->wait_task($_, 'completed') foreach $begun, @rest;
pass('of one that is paused too');

# A fallback that is full, and gets wider.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'wide', options => '{"max_concurrent": 1}');
$node->fake_agent($llm, 'fake-429-quota', name => 'needy', options => '{"fallback": ["wide"]}');
my @needy = ($node->submit(q{'needy', 'needy'}));
$node->wait_for('it uses the fallback', "SELECT count(*) FROM prometheus._attempt WHERE task_id = $needy[0] AND model = 'wide'", 1);
push @needy, $node->submit(q{'needy', 'needy'});
$node->wait_for('the next waits', "SELECT why ~ 'closed' FROM prometheus.queue WHERE task_id = $needy[1]", 't');
sql(q{SELECT prometheus_set_model('wide', options => '{"max_concurrent": 10}')});
is_begun($needy[1], 'a fallback that is widened is used');
sql("SELECT prometheus_cancel($_)") foreach @needy;
$node->wait_task($_, 'cancelled') foreach @needy;

# A prepared transaction gives no hint of new options; a scan finds them.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'prepared', options => '{"max_concurrent": 1}');
my @prepared = ($node->submit(q{'a', 'prepared'}));
$node->wait_task($prepared[0], 'running');
sql(q{BEGIN; SELECT prometheus_set_model('prepared', options => '{"max_concurrent": 10}'); PREPARE TRANSACTION 'options'});
sql(q{COMMIT PREPARED 'options'});
push @prepared, $node->submit(q{'b', 'prepared'});
is_begun($prepared[1], 'options of a prepared transaction are found');
sql("SELECT prometheus_cancel($_)") foreach @prepared;
$node->wait_task($_, 'cancelled') foreach @prepared;

# After a restart a task that is tried again waits before the model of the
# agent's version that it began with.
$node->fake_agent($llm, 'fake-503-then-ok', name => 'before');
$node->fake_agent($llm, 'fake-fixed', name => 'after');
sql(q{SELECT prometheus_set_agent('moves', 'before')});
$node->wait_task($node->submit(q{'known', 'after'}), 'completed');
my $moved = $node->submit(q{'moved', 'moves'});
tried_once($moved);
sql(q{SELECT prometheus_pause()});
sql(q{SELECT prometheus_set_agent('moves', 'after'); SELECT prometheus_pause('model:after')});
gate('model:after', 'paused');
my $scheduler = $node->signal_worker('TERM', 'scheduler');
$node->worker_pid('scheduler', other_than => $scheduler);
sql(q{SELECT prometheus_resume()});
$node->wait_task($moved, 'completed');
pass('a task waits before the model that it will use');

$node->check_invariants('invariants');
$node->stop;
done_testing();
