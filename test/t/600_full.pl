# Full mode: a task remembers, plans, acts and looks back; its model is a function
# that answers by what it is asked, or a server that does the same.
use strict;
use warnings FATAL => 'all';

use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1, conf => "prometheus.executors = 2\nprometheus.max_crashes = 100\n");
$node->start;
$node->keep_sessions;
$node->create_extension;

# What it thinks of a request is in the table; what it was asked is kept.
sql(<<'EOSQL');
CREATE TABLE thought (kind text PRIMARY KEY, reply jsonb);
CREATE TABLE asked (n bigserial PRIMARY KEY, kind text, request jsonb);
CREATE FUNCTION think(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	schema text := request #>> '{response_format,json_schema,schema}';
	what text := CASE WHEN schema LIKE '%humility%' THEN 'counsel'
	                  WHEN schema LIKE '%probability%' THEN 'plan'
	                  WHEN schema LIKE '%appropriateness%' THEN 'reflect'
	                  ELSE 'chat' END;
	said jsonb := (SELECT reply FROM thought t WHERE t.kind = what);
	turn int := (SELECT count(*) FROM jsonb_array_elements(request -> 'messages') m WHERE m ->> 'role' = 'assistant');
	message jsonb;
BEGIN
	INSERT INTO asked (kind, request) VALUES (what, request);
	IF said ? 'raise' THEN
		RAISE '%', said ->> 'raise';
	END IF;
	message := CASE WHEN what = 'chat' AND said ? 'tool' AND turn = 0
		THEN jsonb_build_object('role', 'assistant', 'content', 'I look.', 'tool_calls',
			jsonb_build_array(jsonb_build_object('id', 'call_1', 'type', 'function', 'function', said -> 'tool')))
		ELSE jsonb_build_object('role', 'assistant', 'content', coalesce(said ->> 'text', said::text)) END;
	RETURN jsonb_build_object(
		'choices', jsonb_build_array(jsonb_build_object('index', 0, 'message', message,
			'finish_reason', CASE WHEN message ? 'tool_calls' THEN 'tool_calls' ELSE 'stop' END)),
		'usage', jsonb_build_object('prompt_tokens', 10, 'completion_tokens', 5));
END $$;
CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b';
SELECT prometheus_set_tool('add(int, int)');
SELECT prometheus_set_model('mind', 'function', handler => 'think(jsonb)');
SELECT prometheus_set_agent('mind', 'mind', instructions => 'You count.', mode => 'full', tools => '{add}');
INSERT INTO thought VALUES
	('counsel', '{"humility": 1, "patience": 1, "service": 1, "gentleness": 1, "prudence": 1, "courage": 1, "truthfulness": 1, "confidence": 0.9, "counsel": "Fine.", "suggestions": []}'),
	('plan', '{"plans": [
		{"approach": "conservative", "cost": 100, "steps": [
			{"action": "Add.", "tool": "add", "outcome": "5", "probability": 0.9, "risks": []},
			{"action": "Say it.", "tool": "", "outcome": "told", "probability": 0.8, "risks": [{"risk": "It is wrong.", "level": "LOW"}]}]},
		{"approach": "balanced", "cost": 50, "steps": [
			{"action": "Guess.", "tool": "", "outcome": "5", "probability": 0.5, "risks": []}]},
		{"approach": "aggressive", "cost": 10, "steps": [
			{"action": "Drop it.", "tool": "", "outcome": "gone", "probability": 1, "risks": [{"risk": "All is lost.", "level": "CRITICAL"}]}]}]}'),
	('chat', '{"text": "It is 5.", "tool": {"name": "add", "arguments": "{\"a\": 2, \"b\": 3}"}}'),
	('reflect', '{"aspects": [{"aspect": "correctness", "score": 1, "comment": "Right."}], "appropriateness": 0.5, "effectiveness": 1,
		"critique": "Well done.", "lessons": ["Two and three are five.", " "], "correction": ""}');
SELECT prometheus_remember('mind', 'You are a calculator.', 'core', 0.9);
SELECT prometheus_remember('mind', 'Once two and three were added.', 'episodic', 0.4);
SELECT prometheus_remember('mind', 'Three is a number.', 'semantic', 0.4);
SELECT prometheus_remember('other', 'Two is for another agent.', 'semantic', 0.9);
EOSQL

my $steps = q{SELECT string_agg(concat_ws(' ', kind, name, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = %s};
sub steps { return sql(sprintf $steps, $_[0]); }
sub output { return sql("SELECT output->>'$_[2]' FROM prometheus.step WHERE task_id = $_[0] AND kind = '$_[1]'"); }
sub run
{
	my ($request, $status) = @_;
	sql('TRUNCATE asked');
	my $task = $node->submit("'$request', 'mind'");
	$node->wait_task($task, $status // 'completed');
	return $task;
}
sub think_of
{
	my ($kind, $reply) = @_;
	sql("UPDATE thought SET reply = \$r\$$reply\$r\$ WHERE kind = '$kind'");
}

my $task = run('What is two plus three?');
is(sql("SELECT prometheus_result($task)"), 'It is 5.', 'the answer');
is(steps($task), 'review sofia ok, recall memory ok, plan mind ok, chat mind ok, tool add ok, chat mind ok, reflect mind ok', 'its steps');
is(sql("SELECT string_agg(kind, ' ' ORDER BY n) FROM asked"), 'counsel plan chat chat reflect', 'what the model was asked');
is( sql("SELECT output #>> '{core,0,content}', output #>> '{episodic,0,content}', output #>> '{semantic,0,content}', output #> '{semantic,1}' FROM prometheus.step WHERE task_id = $task AND kind = 'recall'"),
	'You are a calculator.|Once two and three were added.|Three is a number.|', 'what it remembered: of its own agent');
is(output($task, 'plan', 'approach'), 'conservative', 'the plan that is likeliest to succeed, of those without a critical risk');
is(output($task, 'plan', 'success'), '0.7200', 'the probabilities of its steps multiply');
is( sql("SELECT string_agg((m ->> 'role') || ' ' || split_part(m ->> 'content', ' ', CASE m ->> 'role' WHEN 'system' THEN 2 ELSE 3 END), ', ' ORDER BY i) FROM asked, jsonb_array_elements(request -> 'messages') WITH ORDINALITY x(m, i) WHERE n = (SELECT min(n) FROM asked WHERE kind = 'chat')"),
	'system count., user remember, user that, user two', 'the prompt: instructions, memories, plan, request');
is(sql("SELECT count(*) FROM asked WHERE kind = 'chat' AND request::text LIKE '%calculator%' AND request::text LIKE '%conservative%' AND request::text NOT LIKE '%another agent%'"),
	2, 'each turn has memories and plan');
is(output($task, 'reflect', 'score'), '0.8000', 'the score: 0.4 appropriateness and 0.6 effectiveness');
is(sql("SELECT kind, importance, task_id = $task FROM prometheus.memory WHERE content = 'Two and three are five.'"), 'episodic|0.8|t', 'a lesson is remembered');
is(sql("SELECT count(*) FROM prometheus.memory WHERE task_id = $task"), 1, 'and an empty one is not');
is(sql("SELECT data->>'score', data->>'critique', data ? 'correction' FROM prometheus.event WHERE task_id = $task AND type = 'reflection'"),
	'0.8000|Well done.|t', 'the event of it');
is(sql("SELECT count(*) FROM prometheus.event WHERE task_id = $task AND type = 'step.executed' AND data->>'kind' IN ('recall', 'plan', 'reflect')"), 2, 'what it recalled and planned are steps');
is(sql("SELECT tokens_in, tokens_out FROM prometheus.task WHERE task_id = $task"), '50|25', 'all that was asked counts');
is( sql("SELECT bool_and(prometheus_prompt($task, s.step) = a.request) FROM (SELECT step, row_number() OVER (ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind IN ('plan', 'chat', 'reflect')) s JOIN (SELECT request, row_number() OVER (ORDER BY n) FROM asked WHERE kind <> 'counsel') a USING (row_number)"),
	't', 'each prompt can be shown again');
is(sql("SELECT count(*) FROM prometheus.span WHERE trace_id = (SELECT trace_id FROM prometheus.task WHERE task_id = $task) AND name IN ('plan mind', 'reflect mind', 'recall memory')"), 3, 'each has a span');

# What it learned is recalled next time.
$task = run('What are two and three?');
like(output($task, 'recall', 'episodic'), qr/Two and three are five/, 'the lesson is recalled');

# Each plan has a critical risk: the likeliest is followed, and that is told.
think_of(plan => '{"plans": [{"approach": "aggressive", "cost": 1, "steps": [{"action": "Drop it.", "tool": "", "outcome": "gone", "probability": 0.7, "risks": [{"risk": "All is lost.", "level": "CRITICAL"}]}]}]}');
$task = run('Drop it.');
is(output($task, 'plan', 'approach'), 'aggressive', 'a critical risk in each plan: it is followed');
is(sql("SELECT approved, risk_level, governor, reasoning LIKE '%All is lost.%' FROM prometheus.verdict WHERE task_id = $task AND risk_level = 'CRITICAL'"),
	't|CRITICAL|JUSTICA|t', 'and flagged');

# What cannot be thought is done without.
foreach my $bad ('{"text": "I do not plan."}', '{"plans": []}', '{"raise": "no plan"}')
{
	think_of(plan => $bad);
	$task = run('No plan.');
	is(steps($task), 'review sofia ok, recall memory ok, plan mind error, chat mind ok, tool add ok, chat mind ok, reflect mind ok', "a plan that is $bad");
}
foreach my $bad ('{"text": "Great."}', '{"raise": "no thought"}')
{
	think_of(reflect => $bad);
	$task = run('No thought.');
	is(steps($task), 'review sofia ok, recall memory ok, plan mind error, chat mind ok, tool add ok, chat mind ok, reflect mind error', "a reflection that is $bad");
	is(sql("SELECT prometheus_result($task)"), 'It is 5.', 'the answer stands');
	is(sql("SELECT count(*) FROM prometheus.event WHERE task_id = $task AND type = 'reflection'"), 0, 'and there is no event of it');
}

# Fast mode does none of it.
$task = $node->submit(q{'Fast.', 'mind', mode => 'fast'});
$node->wait_task($task, 'completed');
is(steps($task), 'chat mind ok, tool add ok, chat mind ok', 'fast mode');

# A budget that is used up by the answer leaves no reflection, and the answer.
sql(q{SELECT prometheus_set_model('mind', options => '{"price_in": 1, "price_out": 1}')});
think_of(chat => '{"text": "It is 5."}');
$task = run('Poor.');
my $spent = sql("SELECT tokens_in + tokens_out FROM prometheus.task WHERE task_id = $task");
cmp_ok($spent, '>', 0, 'it used tokens');

# Killed while it thinks, at each of its thoughts: it goes on.
think_of(plan => '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "Say it.", "tool": "", "outcome": "told", "probability": 1, "risks": []}]}]}');
think_of(reflect => '{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "Good.", "lessons": ["Patience."], "correction": ""}');
sql(<<'EOSQL');
CREATE FUNCTION slowly(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM thought WHERE kind = 'slow' AND request::text LIKE '%' || (reply ->> 'of') || '%') THEN
		PERFORM pg_advisory_lock_shared(600), pg_advisory_unlock_shared(600);
	END IF;
	RETURN think(request);
END $$;
SELECT prometheus_set_model('mind', handler => 'slowly(jsonb)');
EOSQL
foreach my $of (qw(probability appropriateness))
{
	sql("INSERT INTO thought VALUES ('slow', '{\"of\": \"$of\"}')");
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(600)');
	$task = $node->submit("'Slowly, $of.', 'mind'");
	$node->wait_for("$of: it waits", q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}, 1);
	my $log = $node->log_end;
	kill('KILL', sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}));
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	eval { $holder->quit };
	$node->wait_for("$of: the server is back", 'SELECT true');
	sql("DELETE FROM thought WHERE kind = 'slow'");
	$node->wait_task($task, 'completed');
	is(sql("SELECT string_agg(kind, ' ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND status = 'ok' AND kind <> 'review'"),
		'recall plan chat reflect', "killed at $of: each is done once");
	is(sql("SELECT prometheus_result($task)"), 'It is 5.', "killed at $of: the answer");
	is(sql("SELECT count(*) FROM prometheus.memory WHERE task_id = $task"), 1, "killed at $of: one lesson");
}

$node->check_invariants('postgres') if $node->can('check_invariants');
$node->stop;
done_testing();
