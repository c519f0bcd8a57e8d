# Gates: pauses, max_concurrent, rate limits, the breaker, want of money and
# fallbacks.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->keep_sessions;
$node->init(conf => "prometheus.allow_private_endpoints = on\n");
$node->start;
$node->create_extension;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub gate
{
	my ($model, $columns) = @_;
	return sql("SELECT concat_ws(' ', $columns) FROM prometheus.gate WHERE target = 'model:$model'");
}

sub wait_closed
{
	my ($model, $reason) = @_;
	$node->wait_for("model $model is closed: $reason",
		"SELECT concat_ws(': ', state, reason) FROM prometheus.gate WHERE target = 'model:$model'", "closed: $reason");
	pass("model $model is closed: $reason");
	return;
}

# The requests that the fake server has got from a model.
sub requests { my ($model) = @_; return scalar grep { $_->{body}{model} eq $model } @{ $llm->requests }; }

sub set_options
{
	my ($model, $options) = @_;
	sql("SELECT prometheus_set_model('$model', options => '$options')");
	return;
}

# A pause of everything, of an agent, of a model; each outlives a restart.
$node->fake_agent($llm, 'fake-echo');
$node->fake_agent($llm, 'fake-fixed');
sql(q{SELECT prometheus_pause()});
$node->wait_for('the processes know of the pause', "SELECT state FROM prometheus._gates() WHERE target = 'all'", 'paused');
my $paused = $node->submit(q{'x', 'fake-echo'});
$node->wait_for('it waits', "SELECT why FROM prometheus.queue WHERE task_id = $paused", 'everything is paused');
is(sql("SELECT status FROM prometheus.task WHERE task_id = $paused"), 'queued', 'a paused task is queued');
is(sql("SELECT prometheus_wait($paused, '10 ms')"), 'queued', 'wait says so');
my $unwanted = $node->submit(q{'y', 'fake-echo'});
sql("SELECT prometheus_cancel($unwanted)");
$node->wait_task($unwanted, 'cancelled');
pass('a cancel takes effect all the same');
my $hurry = $node->submit(q{'z', timeout => '50 ms'});
$node->wait_task($hurry, 'failed');
pass('and so does a deadline');
$node->restart;
$node->wait_for('it waits still', "SELECT why FROM prometheus.queue WHERE task_id = $paused", 'everything is paused');
is(sql(q{SELECT state || ' ' || reason FROM prometheus.gate WHERE target = 'all'}), 'paused paused by ' . sql('SELECT session_user'), 'the gate');
sql(q{SELECT prometheus_pause('agent:fake-echo'); SELECT prometheus_resume()});
my $other = $node->submit(q{'o', 'fake-fixed'});
$node->wait_task($other, 'completed');
is(sql("SELECT why FROM prometheus.queue WHERE task_id = $paused"), 'agent "fake-echo" is paused', 'one agent is paused');
sql(q{SELECT prometheus_pause('model:fake-echo'); SELECT prometheus_resume('agent:fake-echo')});
$node->wait_for('its model is paused', "SELECT why FROM prometheus.queue WHERE task_id = $paused", 'model "fake-echo" is paused');
sql(q{SELECT prometheus_resume('model:fake-echo')});
$node->wait_task($paused, 'completed');
pass('resumed, it runs');

# max_concurrent: as many, and never more.
$node->fake_agent($llm, 'fake-slow-50', options => '{"max_concurrent": 3}');
sql(q{SELECT count(prometheus_submit('c' || i, 'fake-slow-50')) FROM generate_series(1, 30) i});
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE status <> 'completed' AND agent = 'fake-slow-50'}, 0);
is(sql(q{SELECT max(n) FROM (SELECT count(*) AS n FROM prometheus.attempt a JOIN prometheus.attempt b ON a.started_at >= b.started_at AND a.started_at < b.ended_at
		JOIN prometheus.task t ON t.task_id = a.task_id JOIN prometheus.task u ON u.task_id = b.task_id
		WHERE t.agent = 'fake-slow-50' AND u.agent = t.agent GROUP BY a.task_id) o}), 3, 'so the attempts say');
is(gate('fake-slow-50', 'state, in_flight, waiting, width'), 'open 0 0 3', 'the gate');
is(sql(q{SELECT max(attempts) FROM prometheus.task}), 1, 'nothing was tried twice');

# One full model holds up no other.
$node->fake_agent($llm, 'fake-hang-before-headers', options => '{"max_concurrent": 1}');
my @hanging = map { $node->submit(q{'h', 'fake-hang-before-headers'}) } 1 .. 3;
$node->wait_for('one runs', q{SELECT string_agg(status, ' ' ORDER BY task_id) FROM prometheus.queue}, 'running queued queued');
like(sql("SELECT prometheus_why($hanging[2])"), qr/^queued: model "fake-hang-before-headers" has as many requests as it may: 1 \(max_concurrent\); ready tasks of its submitter before it: 1; since /, 'why');
$node->wait_task($node->submit(q{'o', 'fake-fixed'}), 'completed');
pass('others run');
sql("SELECT prometheus_cancel($hanging[0])");
$node->wait_task($hanging[1], 'running');
pass('a place that is free is taken');
sql("SELECT prometheus_cancel(t) FROM unnest(ARRAY[$hanging[1], $hanging[2]]) t");
$node->wait_task($_, 'cancelled') foreach @hanging;

# A rate limit is everybody's: Retry-After closes the gate for all.
$node->fake_agent($llm, 'fake-429-whole-then-ok');
my $first = $node->submit(q{'r1', 'fake-429-whole-then-ok'});
wait_closed('fake-429-whole-then-ok', 'the provider asked to wait');
sql(q{SELECT count(prometheus_submit('r1', 'fake-429-whole-then-ok')) FROM generate_series(1, 5)});
$node->wait_for('all completed', q{SELECT count(*) FROM prometheus.task WHERE agent = 'fake-429-whole-then-ok' AND status = 'completed'}, 6);
is(requests('fake-429-whole-then-ok'), 7, 'only the first was refused: the others waited');
is(sql(q{SELECT max(attempts) FROM prometheus.task WHERE agent = 'fake-429-whole-then-ok'}), 1, 'and no attempt was used up by it');
is(gate('fake-429-whole-then-ok', 'state, failures'), 'open 0', 'the gate is open again');

# The breaker: failures in a row, then one probe.
$node->fake_agent($llm, 'fake-503', options => '{"breaker_failures": 3}');
sql(q{SELECT count(prometheus_submit('b' || i, 'fake-503', max_attempts => 100)) FROM generate_series(1, 20) i});
wait_closed('fake-503', 'calls failed in a row');
my $closed = gate('fake-503', 'since');
$node->wait_for('it was closed again', qq{SELECT since > '$closed' FROM prometheus.gate WHERE target = 'model:fake-503'});
is(sql(qq{SELECT count(*) FROM prometheus.call c JOIN prometheus.gate g ON g.target = c.target
		WHERE g.target = 'model:fake-503' AND c.sent_at > '$closed' AND c.sent_at <= g.since}), 1, 'one probe, and no other call until it is back');
is(gate('fake-503', 'width'), 1, 'the next one is a probe again');

# It is repaired: a new version of the model opens the gate.
sql(q{SELECT prometheus_set_model('fake-503', model => 'fake-fixed')});
sql(q{SELECT count(prometheus_cancel(task_id)) FROM prometheus.task WHERE agent = 'fake-503' AND status IN ('queued', 'retrying', 'running')});
my $repaired = $node->submit(q{'repaired', 'fake-503'});
$node->wait_task($repaired, 'completed');
is(gate('fake-503', 'state'), 'open', 'the gate is open');

# 400 says nothing about the model's health.
$node->fake_agent($llm, 'fake-400', options => '{"breaker_failures": 1}');
$node->wait_task($node->submit(q{'bad', 'fake-400'}), 'failed');
is(gate('fake-400', 'state, failures'), 'open 0', 'a bad request does not close it');

# Want of money: a person must act, and can.
foreach my $money ([ 'fake-402', 'HTTP 402' ], [ 'fake-429-quota', 'exceeded your current quota' ], [ 'fake-quota-200', 'no money' ])
{
	my ($name, $error) = @$money;
	$node->fake_agent($llm, $name);
	my $poor = $node->submit(qq{'m', '$name'});
	wait_closed($name, 'the provider asks for money');
	is(sql("SELECT concat_ws(' ', status, attempts, error_type) FROM prometheus.task WHERE task_id = $poor"), 'retrying 0 ModelRejected', "$name: the task waits, without an attempt used up");
	like(sql("SELECT error FROM prometheus.task WHERE task_id = $poor"), qr/$error/, "$name: the error");
	cmp_ok(gate($name, "extract(epoch FROM until - since)::int"), '>=', 60, "$name: for a minute at first");
	is($node->log_count(qr/WARNING:  model "$name" is closed until/), 1, "$name: the log warns");
	like($node->health('gates'), qr/^warning\|.*model:$name/, "$name: and so does health");
	sql("SELECT prometheus_resume('model:$name')");
	$node->wait_for('it was tried again', "SELECT count(*) FROM prometheus.attempt WHERE task_id = $poor", 2);
	wait_closed($name, 'the provider asks for money');
	cmp_ok(gate($name, "extract(epoch FROM until - since)::int"), '>=', 120, "$name: then twice as long");
	sql("SELECT prometheus_set_model('$name', model => 'fake-fixed')");
	$node->wait_for('its versions are pinned', "SELECT count(*) FROM prometheus.attempt WHERE task_id = $poor", 3);
	sql("SELECT prometheus_cancel($poor)");
	$node->wait_task($poor, 'cancelled');
}

# Fallbacks.
$node->fake_agent($llm, 'fake-500', options => '{"breaker_failures": 2, "fallback": ["nobody", "fake-fixed"]}');
my $saved = $node->submit(q{'f', 'fake-500'});
$node->wait_task($saved, 'completed');
is(sql("SELECT string_agg(model, ' ' ORDER BY attempt) FROM prometheus._attempt WHERE task_id = $saved"), 'fake-500 fake-fixed', 'the second attempt goes to the fallback');
sql(q{SELECT prometheus_pause('model:fake-fixed'); SELECT prometheus_pause('model:fake-500')});
my $both = $node->submit(q{'i', 'fake-500'});
$node->wait_for('it waits', "SELECT why FROM prometheus.queue WHERE task_id = $both", 'model "fake-500" is paused');
sql(q{SELECT prometheus_resume('model:fake-fixed')});
$node->wait_task($both, 'completed');
pass('and runs when one of them may');
sql(q{SELECT prometheus_resume('model:fake-500')});
$node->fake_agent($llm, 'fake-429-quota', options => '{"fallback": ["fake-fixed"]}');
my $rich = $node->submit(q{'j', 'fake-429-quota'});
$node->wait_task($rich, 'completed');
is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $rich"), 1, 'want of money goes to the fallback too');
my $direct = $node->submit(q{'k', 'fake-429-quota'});
$node->wait_task($direct, 'completed');
is(sql("SELECT string_agg(model, ' ' ORDER BY attempt) FROM prometheus._attempt WHERE task_id = $direct"), 'fake-fixed', 'a closed gate sends to the fallback at once');

# The caller ends: what was in flight does not count for ever.
set_options('fake-hang-before-headers', '{"max_concurrent": 2}');
@hanging = map { $node->submit(q{'h', 'fake-hang-before-headers'}) } 1 .. 4;
$node->wait_for('two run', q{SELECT string_agg(status, ' ' ORDER BY task_id) FROM prometheus.queue}, 'running running queued queued');
foreach my $role ('caller', 'scheduler')
{
	my $pid = $node->worker_pid($role);
	$node->signal_worker('TERM', $role);
	$node->worker_pid($role, other_than => $pid);
	$node->wait_for('two run again', q{SELECT count(*) FILTER (WHERE status = 'running') || ' ' || count(*) FROM prometheus.queue}, '2 4');
	$node->wait_for("after the end of the $role two are in flight", q{SELECT in_flight FROM prometheus.gate WHERE target = 'model:fake-hang-before-headers'}, 2);
	pass("after the end of the $role");
}
sql("SELECT prometheus_cancel(task_id) FROM prometheus.queue");
$node->wait_task($_, 'cancelled') foreach @hanging;
$node->wait_for('none is in flight', q{SELECT sum(in_flight) FROM prometheus.gate}, 0);

# An agent that waits for a paused model is sent to another.
sql(q{SELECT prometheus_set_model('elsewhere', 'echo'); SELECT prometheus_set_agent('moves', 'elsewhere'); SELECT prometheus_pause('model:elsewhere')});
my $moves = $node->submit(q{'m', 'moves'});
$node->wait_for('it waits', "SELECT why FROM prometheus.queue WHERE task_id = $moves", 'model "elsewhere" is paused');
sql(q{SELECT prometheus_set_agent('moves', 'echo')});
$node->wait_task($moves, 'completed');
pass('its tasks follow');

# More tasks before a closed gate than the queue has room for, and more that
# depend on one of them.
$node->append_conf('postgresql.conf', "prometheus.queue_memory = '1MB'\nprometheus.rescan_interval = '1s'");
$node->restart;
sql(q{SELECT prometheus_pause('agent:fake-echo'); SELECT prometheus_set_agent('fake-echo', 'echo')});
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('before'::text, ARRAY[4000]), 'fake-echo')});
my $last = $node->submit(q{'last', 'fake-echo'});
sql(qq{SELECT count(*) FROM prometheus_submit_many(array_fill('after'::text, ARRAY[4000]), 'default', depends_on => ARRAY[$last])});
$node->wait_for('the queue is full', q{SELECT count(*) BETWEEN 1000 AND 4000 FROM prometheus.queue});
sql(q{SELECT count(*) FROM prometheus_submit_many(array_fill('beside'::text, ARRAY[1000]))});
$node->wait_for('others run', q{SELECT count(*) FROM prometheus.task WHERE status = 'completed' AND request = 'beside'}, 1000);
pass('many before one gate hold up nobody else');
$node->wait_for('and hold no place', q{SELECT in_flight FROM prometheus.worker WHERE role = 'scheduler'}, 0);
is(sql(q{SELECT count(*) FROM prometheus.task WHERE request IN ('before', 'after', 'last') AND status <> 'queued'}), 0, 'and all of them wait');
sql(q{SELECT prometheus_resume('agent:fake-echo')});
$node->wait_for('all have run', q{SELECT count(*) FROM prometheus.task WHERE request IN ('before', 'after', 'last') AND status = 'completed'}, 8001);
pass('and all run when the gate is open');
$node->wait_for('nothing is left', q{SELECT count(*) FROM prometheus.queue}, 0);

$node->stop;
done_testing();
