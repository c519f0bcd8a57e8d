# What prometheus_metrics() counts, and that it counts it once: whatever is
# rolled back, tried again or killed.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use PromMetrics;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->keep_sessions;
$node->init(
	restart_after_crash => 1,
	conf => "prometheus.allow_private_endpoints = on\nprometheus.metric_series = 200\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# What is counted is there a moment after it can be seen: it counts when its
# transaction has committed.
sub metrics_when
{
	my ($what, $condition) = @_;
	my $metrics;

	foreach (1 .. 200)
	{
		$metrics = PromMetrics->new($node);
		$metrics->{asked} = sql('SELECT extract(epoch FROM clock_timestamp())');
		last if $condition->($metrics);
		sql('SELECT pg_sleep(0.05)');
	}
	ok($condition->($metrics), $what) or diag($metrics->{text});
	return $metrics;
}

sub facts { return sql($_[0]) || 0; }

# Tasks.
$node->fake_agent($llm, 'fake-echo', options => '{"price_in": 3, "price_out": 15}');
$node->fake_agent($llm, 'fake-400');
$node->fake_agent($llm, 'fake-500-then-ok');
sql(q{SELECT count(prometheus_submit('t' || i)) FROM generate_series(1, 40) i});
sql(q{SELECT prometheus_submit('e', 'fake-echo')}) foreach 1 .. 3;
sql(q{SELECT prometheus_submit('r', 'fake-500-then-ok')});
sql(q{SELECT prometheus_submit('b', 'fake-400')});
my $session = PromSession->new($node, 'postgres');
$session->run(q{BEGIN; SELECT prometheus_submit('never'); SAVEPOINT s; SELECT prometheus_submit('never'); ROLLBACK TO s; SELECT prometheus_submit('never'); ROLLBACK});
$session->run(q{BEGIN; SELECT prometheus_submit('once'); SAVEPOINT s; SELECT prometheus_submit('never'); ROLLBACK TO s; SELECT prometheus_submit('once'); COMMIT});
my $first = metrics_when('all 47 tasks have ended', sub { $_[0]->total('prom_agent_tasks_ended_total') == 47 });
$first->check('the text is right');
is($first->total('prom_agent_tasks_submitted_total'), 47, 'so many were submitted, without those that were rolled back');
is($first->value('prom_agent_tasks_submitted_total', 'agent="default"'), 42, 'by agent');
is($first->value('prom_agent_tasks_ended_total', 'agent="default",outcome="completed"'), 42, 'ended');
is($first->value('prom_agent_tasks_ended_total', 'agent="fake-400",outcome="failed"'), 1, 'one failed');
is($first->value('prom_agent_attempts_ended_total', 'outcome="failed",error_type="ModelRejected"'), 1, 'by what it failed');
is($first->value('prom_agent_attempts_ended_total', 'outcome="retry",error_type="ModelUnavailable"'),
	facts(q{SELECT count(*) FROM prometheus.attempt WHERE outcome = 'retry'}), 'attempts that others followed');
is($first->total('prom_agent_task_duration_seconds_count'), 47, 'each has a duration');
is($first->total('prom_agent_queue_wait_seconds_count'), 47, 'and waited');
cmp_ok(
	abs($first->total('prom_agent_task_duration_seconds_sum') -
		  facts(q{SELECT extract(epoch FROM sum(o.ended_at - greatest(t.submitted_at, t.run_at))) FROM prometheus._task t JOIN prometheus._outcome o USING (task_id) WHERE o.outcome <> 'retry'})),
	'<', 0.001, 'as long as the facts say');

# Steps and models.
is($first->total('prom_agent_step_duration_seconds_count'), facts('SELECT count(*) FROM prometheus.step'), 'as many steps as facts');
is($first->value('prom_agent_step_duration_seconds_count', 'kind="chat",status="error"'),
	facts(q{SELECT count(*) FROM prometheus.step WHERE status = 'error'}), 'those that failed');
my $call = 'gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model';
is($first->value('gen_ai_client_operation_duration_seconds_count', qq{$call="fake-echo"}), 3, 'requests');
is($first->value('gen_ai_client_operation_duration_seconds_count', qq{$call="fake-400",error_type="ModelRejected"}), 1, 'one that failed says why');
is($first->value('gen_ai_client_operation_time_to_first_chunk_seconds_count', qq{$call="fake-echo"}), 3, 'streamed replies have a first byte');
is($first->value('gen_ai_client_token_usage_sum', qq{$call="fake-echo",gen_ai_token_type="input"}),
	facts(q{SELECT sum(tokens_in) FROM prometheus.step WHERE model = 'fake-echo'}), 'tokens in, as the facts say');
is($first->value('prom_agent_tokens_total', 'model="fake-echo",type="output"'),
	facts(q{SELECT sum(tokens_out) FROM prometheus.step WHERE model = 'fake-echo'}), 'tokens out');
cmp_ok($first->value('prom_agent_cost_total', 'model="fake-echo"'), '==',
	facts(q{SELECT sum(cost) FROM prometheus.step WHERE model = 'fake-echo'}), 'and money');
my %traces = map { $_ => 1 } split /\n/, sql(q{SELECT replace(trace_id::text, '-', '') FROM prometheus._task});
is(join(' ', grep { !$traces{$_} } keys %{ $first->{exemplars} }), '', 'exemplars are of traces that there are');
my $newest = sql(q{SELECT format('{trace_id="%s",span_id="%s"}', trace_id, span_id) FROM prometheus.span WHERE kind = 'client' ORDER BY ended_at DESC LIMIT 1});
like($first->{text}, qr/ # \Q$newest\E /, 'the newest request is one');

# A turn that is a function, and its tools; an executor is started for it.
sql(q{CREATE FUNCTION forty_two() RETURNS int LANGUAGE sql AS 'SELECT 42'; SELECT prometheus_set_tool('forty_two()');
	SELECT prometheus_set_agent('scripted', 'scripted', tools => '{forty_two}')});
my $task = $node->submit(q{'[[["forty_two", {}]], "done"]', 'scripted'});
$node->wait_task($task, 'completed');
my $tool = metrics_when('its steps are counted', sub { ($_[0]->value('prom_agent_step_duration_seconds_count', 'kind="tool",status="ok"') // 0) == 1 });
cmp_ok($tool->value('prom_agent_worker_starts_total', 'role="executor"'), '>=', 1, 'an executor began');
$tool = metrics_when('it was busy', sub { ($_[0]->value('prom_agent_worker_busy_seconds_total', 'role="executor"') // 0) > 0 });
$tool->check_after($first, 'nothing has become less');
cmp_ok($tool->value('prom_agent_worker_wal_bytes_total', 'role="caller"'), '>', 0, 'WAL of the caller');
cmp_ok($tool->value('prom_agent_marks_total'), '>=', 1, 'marks');

# Gates and deliveries.
$node->fake_agent($llm, 'fake-429-quota');
my $limited = $node->submit(q{'x', 'fake-429-quota'});
sql(q{SELECT prometheus_pause('model:fake-echo')});
my $gates = metrics_when('a gate was closed', sub { ($_[0]->total('prom_agent_gate_closings_total', qr/model="fake-429-quota",reason="money"/)) == 1 });
is($gates->value('prom_agent_gate_open', 'kind="model",name="fake-429-quota"'), 0, 'it is');
$gates = metrics_when('one is paused', sub { !$_[0]->value('prom_agent_gate_open', 'kind="model",name="fake-echo"') });
is($gates->value('prom_agent_gate_open', 'kind="model",name="echo"'), 1, 'another one is open');
sql("SELECT prometheus_cancel($limited); SELECT prometheus_resume('model:fake-echo')");
sql(q{CREATE FUNCTION takes(e prometheus.event) RETURNS void LANGUAGE sql AS 'SELECT';
	CREATE FUNCTION refuses(e prometheus.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
	SELECT prometheus_subscribe('takes', 'takes(prometheus.event)', types => '{shop.sold}');
	SELECT prometheus_subscribe('refuses', 'refuses(prometheus.event)', types => '{shop.sold}', max_attempts => 1)});
sql(q{SELECT prometheus_emit('shop.sold')});
my $delivered = metrics_when('an event was delivered',
	sub { ($_[0]->value('prom_agent_deliveries_total', 'kind="function",status="delivered"') // 0) == 1
		&& ($_[0]->value('prom_agent_deliveries_total', 'kind="function",status="dead"') // 0) == 1 });
is($delivered->value('prom_agent_delivery_duration_seconds_count', 'kind="function"'), 2, 'both took some time');

# Paused, it answers; a reload and new processes lose nothing.
sql('SELECT prometheus_pause()');
my $waits = $node->submit(q{'waits'});
my $paused = metrics_when('the queue', sub { $_[0]->value('prom_agent_queue_tasks', 'state="ready"') == 1 });
is($paused->value('prom_agent_gate_open', 'kind="all",name="all"'), 0, 'everything is paused');
$node->reload;
foreach my $role (qw(scheduler caller publisher))
{
	my $pid = $node->signal_worker('TERM', $role);
	$node->worker_pid($role, other_than => $pid);
}
sql('SELECT prometheus_resume()');
$node->wait_task($waits, 'completed');
my $again = metrics_when('processes began again',
	sub { $_[0]->value('prom_agent_worker_starts_total', 'role="caller"') == 2 && $_[0]->total('prom_agent_queue_tasks') == 0 });
$again->check('the text is right');
$again->check_after($paused, 'nothing has become less');

# Labels are text; and there are so many of them only.
sql(q{SELECT prometheus_set_agent(E'a "quoted\\\\ name', 'echo')});
sql(q{SELECT prometheus_submit('x', E'a "quoted\\\\ name')});
my $quoted = metrics_when('a name with everything in it', sub { ($_[0]->value('prom_agent_tasks_ended_total', 'agent="a \"quoted\\\\ name",outcome="completed"') // 0) == 1 });
$quoted->check('is escaped');
sql(q{SELECT prometheus_set_agent('other', 'echo'); SELECT prometheus_set_agent('agent ' || i, 'echo') FROM generate_series(1, 30) i});
sql(q{SELECT count(prometheus_submit('x', 'agent ' || i)) FROM generate_series(1, 30) i});
sql(q{SELECT prometheus_submit('x', 'other')});
my $tasks = facts('SELECT count(*) FROM prometheus.task');
my $many = metrics_when('more agents than have labels', sub { $_[0]->total('prom_agent_tasks_ended_total') == $tasks });
$many->check('the text is right');
is(scalar(grep { !/other/ } $many->series('prom_agent_tasks_submitted_total')), 10, 'ten have one');
cmp_ok($many->value('prom_agent_tasks_submitted_total', 'agent="other"'), '>=', 25, 'all others are one');
is($many->total('prom_agent_tasks_submitted_total'), $tasks, 'none is missing');

# Signal 9 in the middle of it: what is counted begins anew, and says so.
sql(q{SELECT count(prometheus_submit('k' || i)) FROM generate_series(1, 3000) i});
my $before = metrics_when('tasks run', sub { $_[0]->total('prom_agent_tasks_ended_total') > $tasks });
$node->signal_worker('KILL', 'caller');
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE status NOT IN ('completed', 'failed', 'cancelled')}, 0);
my $after = metrics_when('processes began', sub { ($_[0]->value('prom_agent_worker_starts_total', 'role="caller"') // 0) == 1 });
$after->check('the text is right');
$after->{begun} = 1;
$after->check_after($before, 'whatever is less began later');
is(scalar(grep { $_ <= $before->{asked} } map { values %{ $after->{values}{$_} } } grep { /_created$/ } keys %{ $after->{values} }),
	0, 'everything began after the crash');
$node->check_invariants('the facts fit together', all_ended => 1);

# Many processes at once: none of it is lost.
sql(q{SELECT count(prometheus_submit(format('[[["forty_two", {}], ["forty_two", {}]], "done"]'), 'scripted')) FROM generate_series(1, 100) i});
my $base = $after->total('prom_agent_step_duration_seconds_count', qr/kind="tool"/);
my $all = metrics_when('two hundred calls', sub { $_[0]->total('prom_agent_step_duration_seconds_count', qr/kind="tool"/) - $base == 200 });
$all->check('the text is right');

# With less room than there are series, a metric's are one.
$node->wait_for('all have ended', q{SELECT count(*) FROM prometheus.task WHERE status NOT IN ('completed', 'failed', 'cancelled')}, 0);
sql('ALTER SYSTEM SET prometheus.metric_series = 20');
$node->restart;
sql(q{SELECT count(prometheus_submit('f', 'agent ' || 1 + i % 6)) FROM generate_series(7, 30) i});
my $folded = metrics_when('a table that is full', sub { $_[0]->total('prom_agent_tasks_ended_total') == 24 });
$folded->check('the text is right');
cmp_ok($folded->value('prom_agent_metrics_folded_total'), '>', 0, 'it says how often');
is($folded->total('prom_agent_task_duration_seconds_count'), 24, 'none is missing');
is($folded->value('prom_agent_task_duration_seconds_count', 'agent="other",outcome="other"'), 24, 'they are one')
  or diag($folded->{text});

# Another database has its own, and one that is not served has what there is.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION prometheus');
my $other = PromMetrics->new($node, dbname => 'other');
$other->check('not served: the text is right');
is($other->value('prom_agent_database_served'), 0, 'not served: it says so');
is(scalar($other->series('prom_agent_tasks_submitted_total')), 0, 'not served: nothing is counted');
$node->safe_psql('other', q{SELECT prometheus_submit('x')});
is(scalar(PromMetrics->new($node, dbname => 'other')->series('prom_agent_tasks_submitted_total')), 0, 'nor when a task is submitted');

$node->stop;
done_testing();
