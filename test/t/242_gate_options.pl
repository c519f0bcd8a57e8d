# A gate goes by the newest options of its model, whichever version of it a task
# has begun with; and a task waits before the model that it will use.
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

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub gate
{
	my ($target, $state) = @_;
	$node->wait_for("$target is $state", "SELECT state FROM prometheus.gate WHERE target = '$target'", $state);
	return;
}

# A task is tried again on the version that let one through at a time.
$node->fake_agent($llm, 'fake-hang-before-headers', name => 'wider', options => '{"max_concurrent": 1, "first_byte_timeout": "4 s"}');
my $first = $node->submit(q{'first', 'wider'});
$node->wait_task($first, 'retrying');
$node->fake_agent($llm, 'fake-fixed', name => 'wider', options => '{"max_concurrent": 10}');
$node->wait_task($first, 'running');
my $second = $node->submit(q{'second', 'wider'});
$node->wait_task($second, 'completed');
is(sql("SELECT count(*) FROM prometheus.attempt WHERE task_id = $first AND attempt = 2 AND ended_at < (SELECT started_at FROM prometheus.task WHERE task_id = $second)"),
	0, 'another does not wait for it: ten may run');
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
$node->fake_agent($llm, 'fake-503-then-ok', name => 'stopped');
my $begun = $node->submit(q{'begun', 'stopped'});
$node->wait_task($begun, 'retrying');
sql(q{SELECT prometheus_pause('model:stopped')});
gate('model:stopped', 'paused');
sql(q{SELECT prometheus_set_model('stopped', options => '{"fallback": ["other"]}')});
@rest = map { $node->submit("'rest', 'stopped'") } 1 .. 5;
$node->wait_task($_, 'completed') foreach $begun, @rest;
pass('of one that is paused too');

# After a restart a task that is tried again waits before the model of the
# agent's version that it began with.
$node->fake_agent($llm, 'fake-503-then-ok', name => 'before');
$node->fake_agent($llm, 'fake-fixed', name => 'after');
sql(q{SELECT prometheus_set_agent('moves', 'before')});
$node->wait_task($node->submit(q{'known', 'after'}), 'completed');
my $moved = $node->submit(q{'moved', 'moves'});
$node->wait_task($moved, 'retrying');
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
