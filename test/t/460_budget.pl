# Budgets: what is reserved before a call and charged after it, also when it
# fails, is cancelled, or its process ends; and that two calls never have what
# is enough for one.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $llm = FakeLLM->new;
my $node = PromCluster->new('main');
$node->keep_sessions;
$node->init(
	conf => "prometheus.allow_private_endpoints = on\n",
	restart_after_crash => 1,
	fsync => 1);
$node->start;
$node->create_extension;
$node->create_scripted_model;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub set_budget
{
	my ($scope, $rest, $period) = @_;
	return sql(sprintf "SELECT prometheus_set_budget('%s', '%s', %s)",
		$scope, $period // 'month', $rest);
}

# The tokens of one that are spent, and that are reserved.
my $columns = q{concat_ws(' ', spent_tokens, reserved_tokens)};

sub used { return sql("SELECT $columns FROM prometheus.budget WHERE scope = '$_[0]'"); }

sub wait_used
{
	my ($scope, $used) = @_;
	$node->wait_for("of budget $scope is used: $used",
		"SELECT $columns FROM prometheus.budget WHERE scope = '$scope'", $used);
	return;
}

# The requests that the fake server has got from a model.
sub requests { return scalar grep { $_->{body}{model} eq $_[0] } @{ $llm->requests }; }

sub error_of_task { return sql("SELECT error_type || ': ' || error FROM prometheus.task WHERE task_id = $_[0]"); }

# Submit a request so many times, each when the one before it has ended; the
# last task.
sub run
{
	my ($request, $agent, $status, $times) = @_;
	my @lines = split /\n/, sql(<<"EOSQL" x ($times // 1));
SELECT prometheus_submit('$request', '$agent') AS id \\gset
SELECT :id, prometheus_wait(:id);
EOSQL

	$status //= 'completed';
	is(join(',', grep { !/^\d+\|$status$/ } @lines), '', "$agent: $status");
	return $lines[-1] =~ s/\|.*//r;
}

sub refused
{
	my ($request, $agent, $pattern, $name) = @_;
	like(error_of_task(run($request, $agent, 'failed')), $pattern, $name);
	return;
}

# An agent whose calls with the request "x" may need 105 tokens: a third of a
# token for its byte, rounded up, 4 for a message, 100 for the reply.  What they
# do need are 2.
sub agent
{
	my ($behaviour, %params) = @_;
	return $node->fake_agent($llm, $behaviour,
		options => '{"max_tokens": 100}', %params);
}

$node->count_spending;

# Twenty at once, and enough for one.  It never ends, so nothing is settled.
agent('fake-hang-before-headers', name => 'twenty');
set_budget('agent:twenty', 'tokens => 150');
sql(q{SELECT count(prometheus_submit('x', 'twenty')) FROM generate_series(1, 20)});
$node->wait_for('nineteen have failed',
	q{SELECT string_agg(DISTINCT status || ' ' || error_type, ',') || ' ' || count(*) FROM prometheus.task WHERE agent = 'twenty' AND ended_at IS NOT NULL},
	'failed BudgetExceeded 19');
$llm->wait_requests(1);
is(requests('fake-hang-before-headers'), 1, 'of twenty calls one was sent');
is(sql('SELECT count(*) FROM prometheus._call'), 1, 'and no other one recorded');
is(used('agent:twenty'), '0 105', 'it is reserved');
my $month = sql(q{SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY-MM-DD')});
is(error_of_task(sql(q{SELECT max(task_id) FROM prometheus.task WHERE status = 'failed'})),
	"BudgetExceeded: budget agent:twenty per month is used up: 0 of 150 tokens spent, 105 reserved, this call may need 105; it refills at $month 00:00:00+00",
	'the error says which budget, and when it refills');

# A cancel: nobody knows what the peer has done.
my $hanging = sql(q{SELECT task_id FROM prometheus.task WHERE status = 'running'});
sql("SELECT prometheus_cancel($hanging)");
$node->wait_task($hanging, 'cancelled');
is(used('agent:twenty'), '105 0', 'a call that was dropped is charged as reserved');
refused('x', 'twenty', qr/used up: 105 of 150 tokens spent, 0 reserved, this call may need 105;/, 'and counts');

# What was not needed can be spent.
agent('fake-echo', name => 'echoing');
set_budget('agent:echoing', 'tokens => 109');
run('x', 'echoing', 'completed', 3);
is(used('agent:echoing'), '6 0', 'three calls, each of which fitted just so');
my $refused = run('x', 'echoing', 'failed');
like(error_of_task($refused), qr/: 6 of 109 tokens spent, 0 reserved, this call may need 105;/, 'the fourth did not');
is(sql("SELECT count(*) FROM prometheus.call WHERE task_id = $refused"), 0, 'nothing was sent');
is(sql("SELECT outcome || ' ' || error_type FROM prometheus.attempt WHERE task_id = $refused"),
	'failed BudgetExceeded', 'its attempt says so');

# A budget that is raised counts from its commit, for what waits, too.
$node->pause('agent:echoing');
my $waiting = $node->submit(q{'x', 'echoing'});
set_budget('agent:echoing', 'tokens => 113');
sql(q{SELECT prometheus_resume('agent:echoing')});
$node->wait_task($waiting, 'completed');
sql("SELECT prometheus_retry($refused)");
$node->wait_task($refused, 'completed');
is(used('agent:echoing'), '10 0', 'what waited, and what was retried by hand');

# The process ends in good order; who comes after it reads the sums.
$node->signal_worker('TERM', 'caller');
refused('x', 'echoing', qr/: 10 of 113 tokens spent/, 'a new caller knows what was spent');

# Each budget that a call falls under must have room, and what one refuses is
# reserved in no other.
agent('fake-fixed', name => 'first');
sql(q{SELECT prometheus_set_agent('second', 'first');
	CREATE ROLE joe LOGIN; GRANT prometheus_agent_user TO joe;
	CREATE ROLE jim LOGIN; GRANT prometheus_agent_user TO jim});
set_budget('agent:second', 'tokens => 1000');
set_budget('model:first', 'tokens => 105');
run('x', 'first');
is(used('model:first'), '6 0', 'the model of both');
is(used('agent:second'), '0 0', 'an agent that has done nothing');
refused('x', 'second', qr/^BudgetExceeded: budget model:first per month/, 'the narrower one');
is(used('agent:second'), '0 0', 'nothing is reserved in the other');
set_budget('model:first', 'tokens => 1000');
set_budget('role:joe', 'tokens => 105');
my $joes = sql(q{SET ROLE joe; SELECT prometheus_submit('x', 'second')});
$node->wait_task($joes, 'completed');
$joes = sql(q{SET ROLE joe; SELECT prometheus_submit('x', 'second')});
$node->wait_task($joes, 'failed');
like(error_of_task($joes), qr/budget role:joe per month/, 'a submitter has his own');
my $jims = sql(q{SET ROLE jim; SELECT prometheus_submit('x', 'second')});
$node->wait_task($jims, 'completed');
is(join(', ', map { used($_) } 'role:joe', 'agent:second', 'model:first'), '6 0, 12 0, 18 0', 'the sums of all three');
is(sql(q{SET ROLE joe; SELECT string_agg(scope || ' ' || spent_tokens, ',') FROM prometheus.budget}), 'role:joe 6', 'he sees his own');

# Who is refused is told of no budget what he may not see in the view.
like(error_of_task($joes), qr/: 6 of 105 tokens spent, 0 reserved, this call may need 105; it refills at /, 'and is told how much of it is spent');
foreach my $scope ('all', 'agent:second', 'model:first')
{
	set_budget($scope, 'tokens => 7');
	$jims = sql(q{SET ROLE jim; SELECT prometheus_submit('x', 'second')});
	$node->wait_task($jims, 'failed');
	is(error_of_task($jims), "BudgetExceeded: budget $scope per month is used up: this call may need 105 tokens; it refills at $month 00:00:00+00", "$scope: who may not see it is told no numbers");
	refused('x', 'second', qr/^BudgetExceeded: budget \Q$scope\E per month is used up: \d+ of 7 tokens spent, 0 reserved/, "$scope: who may see it is told");
	sql(q{GRANT prometheus_agent_admin TO jim});
	$jims = sql(q{SET ROLE jim; SELECT prometheus_submit('x', 'second')});
	$node->wait_task($jims, 'failed');
	sql(q{REVOKE prometheus_agent_admin FROM jim});
	like(error_of_task($jims), qr/is used up: \d+ of 7 tokens spent/, "$scope: an administrator is told");
	set_budget($scope, 'tokens => 1000000');
}
set_budget('agent:second', 'tokens => 1000');
set_budget('model:first', 'tokens => 1000');
set_budget('all', 'NULL, NULL');
set_budget('all', 'tokens => 0', 'hour');
refused('x', 'first', qr/^BudgetExceeded: budget all per hour is used up: [\d,]+ of 0 tokens spent/, 'nothing for anybody');
run('x', 'default'); # echo, which uses none
set_budget('all', 'NULL, NULL', 'hour'); # off
run('x', 'first');

# Calls that fail.
my %charged = (
	'fake-500' => '0 0',
	'fake-401' => '0 0',
	'fake-429-ms-then-ok' => '2 0',
	'fake-stream-no-usage' => '105 0',
	'fake-cut-midway' => '105 0');
agent($_), set_budget("agent:$_", 'tokens => 1000') foreach keys %charged;
# A peer that closes a kept connection is asked again, so there may be two.
agent('fake-reset');
set_budget('agent:fake-reset', 'tokens => 1000');
agent('refused', url => 'http://127.0.0.1:1/v1');
set_budget('agent:refused', 'tokens => 1000');
my @failing = map { $node->submit("'x', '$_', max_attempts => 1") } 'refused', 'fake-reset', sort keys %charged;
$node->wait_task($_, [ 'failed', 'completed' ]) foreach @failing;
is(used("agent:$_"), $charged{$_}, "$_: is charged") foreach sort keys %charged;
is(used('agent:refused'), '0 0', 'no connection, no charge');
is(used('agent:fake-reset'),
	sql(q{SELECT 105 * count(*) || ' 0' FROM prometheus.call WHERE target = 'model:fake-reset' AND status = 'ambiguous'}),
	'a call without a reply is charged as reserved');

# Costs: each token of a reply costs 1, and "x" has one.
$node->fake_agent($llm, 'fake-echo', name => 'dear', options => '{"max_tokens": 100, "price_out": 1000000}');
set_budget('all', 'cost => 102.0', 'day');
run('x', 'dear', 'completed', 3);
refused('x', 'dear', qr/^BudgetExceeded: budget all per day is used up: cost 3 of 102 spent, 0 reserved, this call may cost 100;/, 'costs are counted exactly');
run('x', 'first');
is(sql(q{SELECT concat_ws(' ', spent_cost, reserved_cost) FROM prometheus.budget WHERE scope = 'all' AND period = 'day'}), '3 0', 'a model without prices costs nothing');
set_budget('all', 'NULL', 'day');

$node->check_spending('what the caller has counted is what the facts say', 'first');

# Facts of another month do not count, and those of this one do.
agent('fake-echo', name => 'old');
sql(<<'EOSQL');
CREATE TABLE old AS SELECT nextval('prometheus._task_id') AS task_id, n,
	now() - CASE n WHEN 1 THEN interval '62 days' ELSE interval '0' END AS at FROM generate_series(1, 2) n;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), at, at, 0, 3, current_user::regrole, current_user, 'old', 'fast', gen_random_uuid(), 'x', '{}' FROM old;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at) SELECT task_id, 1, prometheus._xid(), at FROM old;
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target, reserved_tokens)
SELECT nextval('prometheus._fact_id'), task_id, 1, 1, 1, prometheus._xid(), at, 'chat', 'model:old', 1000 FROM old;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT task_id, 1, nextval('prometheus._fact_id'), prometheus._xid(), at, 1, 'failed' FROM old;
EOSQL
set_budget('agent:old', 'tokens => 1105');
is(used('agent:old'), '1000 0', 'what was used two months ago does not count');
run('x', 'old');
refused('x', 'old', qr/: 1,002 of 1,105 tokens spent, 0 reserved/, 'nor for the caller');

# A model that is a function: it is asked what it used when it has ended.
sql(q{SELECT prometheus_set_model('scripted', options => '{"max_tokens": 50}');
	SELECT prometheus_set_agent('scripted', 'scripted')});
set_budget('model:scripted', 'tokens => 100');
run('["x"]', 'scripted', 'completed', 3);
refused('["x"]', 'scripted', qr/: 45 of 100 tokens spent, 0 reserved, this call may need 56;/, 'a function is charged with what it says');

# A task that calls a tool has room for its first turn only.
sql(q{SELECT prometheus_set_agent('tooled', 'scripted', tools => '{recall}')});
set_budget('model:scripted', 'tokens => 10000');
set_budget('agent:tooled', 'tokens => 80');
my $tooled = run('[[["recall", {"query": "x"}]], "end"]', 'tooled', 'failed');
like(error_of_task($tooled), qr/^BudgetExceeded: budget agent:tooled per month is used up: 15 of 80 tokens/, 'a later turn is refused, too');
is(sql("SELECT string_agg(kind || ' ' || status, ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $tooled"),
	'chat ok, tool ok', 'what was done stays');
set_budget('agent:tooled', 'tokens => 90');
sql("SELECT prometheus_retry($tooled)");
$node->wait_task($tooled, 'completed');
pass('and a retry by hand goes on from there');

# Of ten of them at once one has its turn; it waits for a lock.
sql(<<'EOSQL');
CREATE FUNCTION held(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(460);
	RETURN scripted(request);
END $$;
SELECT prometheus_set_model('held', 'function', handler => 'held(jsonb)', options => '{"max_tokens": 50}');
SELECT prometheus_set_agent('held', 'held');
EOSQL
set_budget('model:held', 'tokens => 100');
my $locker = $node->background_psql('postgres');
$locker->query_safe('SELECT pg_advisory_lock(460)');
my $submit = q{SELECT count(prometheus_submit('["x"]', 'held')) FROM generate_series(1, 10)};
sql($submit);
my $ended = q{SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (
	SELECT status, count(*) AS n FROM prometheus.task WHERE agent = 'held' GROUP BY 1) s};
$node->wait_for('nine of ten had no room', $ended, 'failed 9, running 1');
pass('of ten turns at once one has room');

# The server is killed in the turn: it is made again, and charged once.
my $caller = $node->worker_pid('caller');
kill('KILL', $caller);
$node->wait_gone($caller);
$locker->quit;
$node->wait_for('it has ended', $ended, 'completed 1, failed 9');
is(used('model:held'), '15 0', 'a turn that is made again is charged once');

# Replies that cannot be written: those of the same turn can, and what is tried
# again is reserved once.
sql(q{ALTER TABLE prometheus._step ADD CHECK (answer IS DISTINCT FROM 'poison')});
agent('fake-slow-200', name => 'slow');
set_budget('agent:echoing', 'tokens => 100000');
my @storm = split /\n/, sql(q{SELECT prometheus_submit(
	CASE WHEN n % 5 = 0 THEN 'poison' ELSE 'x' || n END,
	CASE n % 2 WHEN 0 THEN 'slow' ELSE 'echoing' END) FROM generate_series(1, 30) n});
sql(join('', map { "SELECT prometheus_cancel($storm[$_]);" } 1 .. 3));
sql(join('', map { "SELECT prometheus_wait($_);" } @storm));
$node->check_spending('the caller counts right when turns fail', 'first');

# The caller is killed during a call, and then the server: nobody knows what
# the peer has done, so what was reserved is charged, and the budget holds.
agent('fake-hang-before-headers', name => 'killed');
set_budget('agent:killed', 'tokens => 250');
my $killed = $node->submit(q{'x', 'killed'});
wait_used('agent:killed', '0 105');
$node->signal_worker('KILL', 'caller');
wait_used('agent:killed', '105 105');
pass('after the end of a caller its call is charged as reserved, and made again');
$node->stop('immediate');
$node->start;
$node->wait_task($killed, 'failed');
like(error_of_task($killed), qr/: 210 of 250 tokens spent, 0 reserved, this call may need 105;/, 'so it is after that of the server, and there is no third');
is(used('agent:killed'), '210 0', 'as its view says');
$node->check_spending('and all that was spent', 'first');

$node->check_invariants('the facts fit together', all_ended => 1, retried => [ $refused, $tooled ]);
$node->stop;
done_testing();
