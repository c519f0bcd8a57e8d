# Conditions of policies: functions of users, which run as who set the policy,
# read-only and not for long, at every stage; and what counts when they fail.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The verdicts of a task, in order: step, stage, effect, policy.
sub verdicts
{
	return sql("SELECT string_agg(concat_ws(' ', coalesce(step, 0), stage, effect, policy), ', ' ORDER BY judged_at, step NULLS FIRST) FROM prometheus.verdict WHERE task_id = $_[0]"
	);
}

sub reasoning
{
	my ($task, $stage) = @_;
	return sql("SELECT reasoning FROM prometheus.verdict WHERE task_id = $task AND stage = '$stage'");
}

# Set a policy with a condition as role judge.
sub set_policy
{
	my ($name, $stage, $condition, $rest) = @_;
	return sql("SET ROLE judge; SELECT prometheus_set_policy('$name', '$stage', 'deny', 'public.$condition(jsonb)'"
		  . ($rest ? ", $rest" : '') . ')');
}

sub off { sql("SELECT prometheus_set_policy('$_', effect => 'off', condition => '-')") foreach @_; return; }

$node->init;
$node->start;
$node->create_extension;
$node->create_scripted_model;
$node->fake_agent($llm, 'fake-echo', name => 'openai');
sql(<<'EOSQL');
CREATE ROLE judge;
GRANT prometheus_agent_admin TO judge;
CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY, words text);
GRANT ALL ON note TO judge;
CREATE TABLE hidden (id int);
CREATE FUNCTION say(t text, n int DEFAULT 1) RETURNS text LANGUAGE sql AS 'SELECT t';
SELECT prometheus_set_tool('say(text, int)');
SELECT prometheus_set_agent('a', 'scripted', tools => '{say}');
CREATE FUNCTION is_bad(j jsonb) RETURNS boolean LANGUAGE sql AS
	$$SELECT coalesce(j ->> 'answer', j #>> '{arguments,t}', j ->> 'request') ~ 'bad'$$;
CREATE FUNCTION raises(j jsonb) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'cannot say' USING HINT = 'Ask again.'; END$$;
CREATE FUNCTION hangs(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true FROM pg_sleep(600)';
CREATE FUNCTION stubborn(j jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(600);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION writes(j jsonb) RETURNS boolean LANGUAGE sql AS $$INSERT INTO note (words) VALUES ('judged') RETURNING false$$;
CREATE FUNCTION writes_anyway(j jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL transaction_read_only = off;
	INSERT INTO note (words) VALUES ('judged');
	RETURN false;
END $$;
CREATE FUNCTION is_judge(j jsonb) RETURNS boolean LANGUAGE sql AS $$SELECT current_user = 'judge' AND session_user <> 'judge'$$;
CREATE FUNCTION sees_hidden(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM hidden)';
CREATE FUNCTION becomes(j jsonb) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RESET ROLE; RETURN false; END$$;
CREATE FUNCTION silent(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean';
CREATE FUNCTION given(j jsonb) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION '%', j - 'task_id' - 'submitter'; END$$;
EOSQL

# At every stage, for every kind of model.
set_policy('request', 'task', 'is_bad', q{reason => 'It is bad.', suggestion => 'Be good.'});
foreach my $agent (qw(default openai))
{
	my $task = $node->run_request('bad', 'vetoed', $agent);
	is($node->steps($task), '1 review task vetoed', "task, $agent: the review is a step");
	is(verdicts($task), '0 task deny request', "task, $agent: the verdict");
	is(sql("SELECT error FROM prometheus.task WHERE task_id = $task"), 'It is bad. Be good.', "task, $agent: the error");
	is($node->error_of("SELECT prometheus_result($task)")->{state}, 'PM002', "task, $agent: the result raises");
	$task = $node->run_request('fine', 'completed', $agent);
	like($node->steps($task), qr/^1 review task ok, 2 chat \S+ ok$/, "task, $agent: another goes on");
	is(verdicts($task), '0 task allow', "task, $agent: and has its verdict");
	is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $task"), 1, "task, $agent: in one attempt");
}
is(scalar(grep { $_->{body}{messages}[-1]{content} eq 'bad' } @{ $llm->requests }), 0, 'task: the model was not asked');
my $task = $node->run_script('a', [ [ [ 'say', { t => 'x' } ] ], 'end' ]);
is($node->steps($task), '1 review task ok, 2 chat scripted ok, 3 tool say ok, 4 chat scripted ok', 'task: reviewed once, not each turn');
off('request');

set_policy('call', 'tool', 'is_bad', q{match => '{"tool": "say"}', reason => 'It is bad.'});
$task = $node->run_script('a', [ [ [ 'say', { t => 'bad' } ], [ 'say', { t => 'x' } ] ], 'end' ]);
is($node->steps($task), '1 chat scripted ok, 2 tool say vetoed, 3 tool say ok, 4 chat scripted ok', 'tool: a call');
is(verdicts($task), '0 task allow, 2 tool deny call, 3 tool allow', 'tool: the verdicts');
off('call');

set_policy('words', 'answer', 'is_bad', q{reason => 'It is bad.'});
foreach my $agent (qw(default openai a))
{
	my $ask = sub { return $agent eq 'a' ? $node->script(@_) : $_[0] };
	my $bad = $node->run_request($agent eq 'a' ? '["bad"]' : 'bad', 'vetoed', $agent);
	like($node->steps($bad), qr/^1 chat \S+ ok, 2 review answer vetoed$/, "answer, $agent: the review is a step");
	is(verdicts($bad), '0 task allow, 1 answer deny words', "answer, $agent: the verdict");
	is(sql("SELECT concat(result, prometheus.task.error) FROM prometheus.task WHERE task_id = $bad"), 'It is bad.', "answer, $agent: there is no result");
	my $fine = $node->run_request($agent eq 'a' ? '["fine"]' : 'fine', 'completed', $agent);
	like($node->steps($fine), qr/^1 chat \S+ ok, 2 review answer ok$/, "answer, $agent: another is given");
	is(sql("SELECT prometheus_result($fine)"), 'fine', "answer, $agent: as it was") if $agent ne 'openai';
	is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $fine"), 1, "answer, $agent: in one attempt");
}
# Retried by hand, it is judged by the policies of then.
$task = $node->run_request('bad', 'vetoed');
is(sql("SELECT prometheus_retry($task)"), 't', 'answer: retried with the same policies');
$node->wait_for('it is vetoed twice',
	"SELECT count(*) FROM prometheus.attempt WHERE task_id = $task AND outcome = 'vetoed'", '2');
is(verdicts($task), '0 task allow, 1 answer deny words, 1 answer deny words', 'answer: is judged again');
set_policy('words', 'answer', 'is_bad', q{match => '{"agent": "nobody"}'});
is(sql("SELECT prometheus_retry($task)"), 't', 'answer: retried with others');
$node->wait_task($task, 'completed');
is(sql("SELECT prometheus_result($task)"), 'bad', 'answer: and allowed');
is(verdicts($task), '0 task allow, 1 answer deny words, 1 answer deny words, 1 answer allow', 'answer: the verdicts');
off('words');

# What a condition is given.
my %given = (
	task => '{"mode": "fast", "agent": "a", "stage": "task", "request": "[[[\"say\", {\"t\": \"x\"}]], \"end\"]"}',
	tool => '{"mode": "fast", "tier": "read", "tool": "say", "agent": "a", "stage": "tool", "request": "[[[\"say\", {\"t\": \"x\"}]], \"end\"]", "arguments": {"t": "x"}}',
	answer => '{"mode": "fast", "agent": "a", "stage": "answer", "answer": "end", "request": "[[[\"say\", {\"t\": \"x\"}]], \"end\"]"}');
foreach my $stage (sort keys %given)
{
	set_policy('given', $stage, 'given', q{on_error => 'warn', reason => 'Look.'});
	my $offset = $node->log_end;
	my $asked = $node->submit(q{'[[["say", {"t": "x"}]], "end"]', 'a'});
	$node->wait_task($asked, 'completed');
	is(reasoning($asked, $stage), 'Look. (its condition failed)', "given at stage $stage: what it says is not told");
	my ($seen) = slurp_file($node->logfile, $offset) =~ /condition of policy "given" failed: (\{.*\})$/m;
	is(sql("SELECT \$given\$$seen\$given\$::jsonb = '$given{$stage}'::jsonb"), 't', "given at stage $stage") or diag($seen);
	off('given');
}

# As who set the policy, read-only, and with no more rights; NULL is no.
my %as = (
	is_judge => '',
	sees_hidden => 'permission denied for table hidden',
	becomes => 'cannot set parameter "role" within security-',
	writes => 'cannot execute INSERT in a read-only transaction',
	writes_anyway => '(it wrote in a read-only transaction|cannot set transaction read-write mode)');
foreach my $name (sort keys %as)
{
	set_policy('as', 'task', $name, q{reason => 'As it is.'});
	my $offset = $node->log_end;
	my $asked = $node->run_request("as $name", 'vetoed');
	is(reasoning($asked, 'task'), 'As it is.' . ($as{$name} ? ' (its condition failed)' : ''), "condition $name: counts");
	ok($node->log_count(qr/condition of policy "as" failed: $as{$name}/, $offset), "condition $name: the log says why") if $as{$name};
}
set_policy('as', 'task', 'silent');
$node->run_request('NULL is no');
off('as');
is(sql('SELECT count(*) FROM note'), 0, 'a condition writes nothing');

# Conditions that fail, at every stage.
foreach my $stage (qw(task tool answer))
{
	foreach my $on_error (qw(deny warn allow))
	{
		set_policy('fails', $stage, 'raises', "on_error => '$on_error', reason => 'Look.'");
		my $denied = $on_error eq 'deny';
		my $asked = $node->run_script('a', [ [ [ 'say', { t => 'x' } ] ], 'end' ], $denied && $stage ne 'tool' ? 'vetoed' : 'completed');
		is(sql("SELECT concat_ws(' ', effect, policy, reasoning) FROM prometheus.verdict WHERE task_id = $asked AND stage = '$stage' ORDER BY judged_at LIMIT 1"),
			"$on_error fails Look. (its condition failed)", "raises at $stage, on_error $on_error");
		is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $asked AND status = 'vetoed'"), $denied ? 1 : 0,
			"raises at $stage, on_error $on_error: what is vetoed");
	}
}
off('fails');
foreach my $on_error (qw(deny warn))
{
	set_policy('hangs', 'task', 'hangs', "on_error => '$on_error'");
	my $offset = $node->log_end;
	my $asked = $node->run_request("hangs $on_error", $on_error eq 'deny' ? 'vetoed' : 'completed');
	is(sql("SELECT concat_ws(' ', effect, reasoning) FROM prometheus.verdict WHERE task_id = $asked"),
		qq{$on_error policy "hangs" (its condition failed)}, "hangs, on_error $on_error");
	ok($node->log_count(qr/condition of policy "hangs" failed: canceling statement/, $offset), "hangs, on_error $on_error: was stopped");
}
off('hangs');

# One that cannot be stopped ends its process, and never allows anything.
foreach my $stage (qw(task answer tool))
{
	set_policy('stubborn', $stage, 'stubborn', q{on_error => 'allow'});
	my $asked = $node->run_script('a', [ [ [ 'say', { t => 'x' } ] ], 'end' ], $stage eq 'tool' ? 'completed' : 'vetoed');
	my $error = $stage eq 'tool' ? "(SELECT error FROM prometheus.step WHERE task_id = $asked AND kind = 'tool')"
	  : "(SELECT error FROM prometheus.task WHERE task_id = $asked)";
	like(sql("SELECT $error"), qr/did not end when it was to be stopped/, "cannot be stopped, at stage $stage");
	unlike($node->steps($asked), qr/tool say ok/, "cannot be stopped, at stage $stage: the call was not made") if $stage eq 'tool';
	is(verdicts($asked), '0 task deny', 'cannot be stopped: the verdict') if $stage eq 'task';
	off('stubborn');
}
$node->run_request('now it goes on');

# A condition, or its role, that is no more.
sql(q{CREATE FUNCTION gone(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT false'});
set_policy('gone', 'task', 'gone');
$node->run_request('fine');
sql(q{CREATE OR REPLACE FUNCTION gone(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean'});
$task = $node->run_request('fine', 'vetoed');
like(reasoning($task, 'task'), qr/its condition failed/, 'changed: it is not the function that was set');
set_policy('gone', 'task', 'gone');
$node->run_request('fine');
sql('DROP FUNCTION gone(jsonb)');
$task = $node->run_request('fine', 'vetoed');
like(reasoning($task, 'task'), qr/its condition failed/, 'gone: the function');
off('gone');
set_policy('gone', 'task', 'is_bad');
sql('ALTER ROLE judge RENAME TO jury');
$task = $node->run_request('fine', 'vetoed');
like(reasoning($task, 'task'), qr/its condition failed/, 'gone: the role');
sql('ALTER ROLE jury RENAME TO judge');
$node->run_request('fine');
off('gone');

# A match whose regular expression has no end for a text: an executor gives it up
# in the end, and the caller, which has all other tasks, does so soon.
sub set_slow
{
	my ($rest) = @_;
	return sql("SELECT prometheus_set_policy('slow', $rest)");
}
my $slow = q{"text": "c(a*)(a*)(a*)(a*)\\\\4\\\\3\\\\2\\\\1b"};
my $text = 'c' . 'a' x 1001 . 'b';
my $failed = 'policy "slow" (its match failed)';
my $offset = $node->log_end;
set_slow(qq{'task', 'warn', match => '{$slow}'});
my @others = split /\n/, sql(q{SELECT prometheus_submit_many(ARRAY['one', 'two', 'three'])});
my $held = $node->submit("'$text'");
$node->wait_task($_, 'completed') foreach @others;
$node->wait_task($held, 'vetoed');
is(verdicts($held) . ' ' . reasoning($held, 'task'), "0 task deny slow $failed", 'no end: on_error counts');
is($node->steps($held), '1 review task vetoed', 'no end: an executor has tried');
is($node->steps($others[0]), '1 chat echo ok', 'no end: others need no executor');
ok($node->log_count(qr/match of policy "slow" failed: it was not found within \d+ ms/, $offset), 'no end: the log says why');
set_slow(qq{on_error => 'warn', match => '{$slow}'});
$held = $node->run_request($text);
is(verdicts($held), '0 task warn slow', 'no end: it may be a warning');
set_slow(qq{on_error => 'allow', match => '{$slow}'});
is(verdicts($node->run_request($text)), '0 task allow slow', 'no end: or nothing');
set_slow(qq{on_error => 'deny', match => '{"agent": "a", $slow}'});
is($node->steps($node->run_request($text)), '1 chat echo ok', 'no end: a text is searched only if all else fits');
sql(q{SELECT prometheus_set_policy('no', 'task', 'deny', reason => 'No.')});
set_slow(qq{match => '{$slow}'});
$held = $node->run_request($text, 'vetoed');
is($node->steps($held) . verdicts($held), '0 task deny no', 'no end: what another policy denies is denied at once');
off('no');
set_slow(qq{stage => 'tool'});
$held = $node->run_script('a', [ [ [ 'say', { t => $text } ], [ 'say', { t => 'x' } ] ], 'end' ]);
is(sql("SELECT string_agg(concat_ws(' ', status, error), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $held AND kind = 'tool'"),
	"vetoed $failed, ok", 'no end: of a call');
off('slow');

# Many at once, with others that hold nothing up.
set_policy('many', 'task', 'is_bad');
my @many = split /\n/, sql(q{SELECT prometheus_submit_many(ARRAY(SELECT CASE WHEN i % 5 = 0 THEN 'bad ' ELSE 'good ' END || i FROM generate_series(1, 100) i))});
$node->wait_for('all end', "SELECT count(*) FROM prometheus.task WHERE task_id IN (@{[ join ',', @many ]}) AND ended_at IS NULL", '0');
is( sql("SELECT string_agg(DISTINCT status || ' ' || split_part(request, ' ', 1), ',') FROM prometheus.task WHERE task_id IN (@{[ join ',', @many ]})"),
	'completed good,vetoed bad', 'many at once: each by its own');
off('many');

$task = sql('SELECT string_agg(DISTINCT task_id::text, $$,$$) FROM prometheus._retry');
$node->check_invariants('conditions', all_ended => 1, retried => [$task]);
$node->stop;
done_testing();
