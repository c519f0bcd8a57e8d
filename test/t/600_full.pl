# Full mode: a task remembers, plans, acts and looks back; its model is a function
# that answers by what it is asked, or a server that does the same.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP qw(decode_json);
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(databases => [ 'postgres', 'ascii' ], restart_after_crash => 1, conf => "prometheus.executors = 2\nprometheus.max_crashes = 100\n");
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
	turn int := (SELECT count(*) FROM jsonb_array_elements(request -> 'messages') WITH ORDINALITY x(m, i) WHERE m ->> 'role' = 'assistant'
		AND i > (SELECT max(y.i) FROM jsonb_array_elements(request -> 'messages') WITH ORDINALITY y(m, i) WHERE y.m ->> 'role' = 'user'));
	message jsonb;
BEGIN
	INSERT INTO asked (kind, request) VALUES (what, request);
	IF said ? 'again' AND request::text LIKE '%looked back at your answer above%' THEN
		said := said -> 'again';
	END IF;
	IF said ? 'raise' THEN
		RAISE '%', said ->> 'raise';
	END IF;
	message := CASE WHEN what = 'chat' AND said ? 'tool' AND turn = 0
		THEN jsonb_build_object('role', 'assistant', 'content', 'I look.', 'tool_calls',
			jsonb_build_array(jsonb_build_object('id', 'call_1', 'type', 'function', 'function', said -> 'tool')))
		ELSE jsonb_build_object('role', 'assistant', 'content', coalesce(said ->> 'text', (said - 'again')::text)) END;
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
		"critique": "Well done.", "lessons": ["Two and three are five.", " ", "Three is a number."], "correction": ""}');
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
is(sql("SELECT string_agg(concat(kind, ' ', plan_step), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind IN ('chat', 'tool')"),
	'chat 1, tool 1, chat 2', 'the steps of the plan that each later one serves');
is(output($task, 'plan', 'success'), '0.7200', 'the probabilities of its steps multiply');
is( sql("SELECT string_agg((m ->> 'role') || ' ' || split_part(m ->> 'content', ' ', CASE m ->> 'role' WHEN 'system' THEN 2 ELSE 3 END), ', ' ORDER BY i) FROM asked, jsonb_array_elements(request -> 'messages') WITH ORDINALITY x(m, i) WHERE n = (SELECT min(n) FROM asked WHERE kind = 'chat')"),
	'system count., user remember, user that, user two', 'the prompt: instructions, memories, plan, request');
is(sql("SELECT count(*) FROM asked WHERE kind = 'chat' AND request::text LIKE '%calculator%' AND request::text LIKE '%conservative%' AND request::text NOT LIKE '%another agent%'"),
	2, 'each turn has memories and plan');
is(output($task, 'reflect', 'score'), '0.8000', 'the score: 0.4 appropriateness and 0.6 effectiveness');
is(sql("SELECT kind, importance, task_id = $task FROM prometheus.memory WHERE content = 'Two and three are five.'"), 'episodic|0.8|t', 'a lesson is remembered');
is(sql("SELECT count(*) FROM prometheus.memory WHERE task_id = $task"), 1, 'an empty one is not, nor what it recalled as a fact');
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
# 0.72, 0.72 and 0.7 were promised, and each was scored 0.8: (0.28^2 + 0.28^2 + 0.3^2) / 3.
is(sql("SELECT tasks, round(brier_score::numeric, 6), round(predicted::numeric, 6), actual, jsonb_array_length(reliability) FROM prometheus.calibration WHERE agent = 'mind'"),
	'3|0.082267|0.713333|1|1', 'what plans promised is held against what came of them');

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

think_of(chat => '{"text": "It is 5."}');

# What it was told is judged by how the task ends.
sub run_as
{
	my ($agent, $request, $more) = @_;
	sql('TRUNCATE asked');
	my $id = $node->submit("'$request', '$agent'" . ($more // ''));
	$node->wait_task($id, 'completed');
	return $id;
}
sub reflect
{
	my ($score, $more) = @_;
	think_of(reflect => qq({"aspects": [], "appropriateness": $score, "effectiveness": $score, "critique": "So it went.", "lessons": [], "correction": "") . ($more // '') . '}');
}
sub memory { return sql("SELECT prometheus_remember('$_[0]', '$_[1]', '$_[2]', metadata => '" . ($_[3] // '{}') . "')"); }
sub evidence { return sql("SELECT string_agg(concat_ws(' ', number, score, confidence), ', ' ORDER BY number) FROM prometheus.memory_evidence WHERE memory_id = $_[0]"); }

sql(q{SELECT prometheus_set_agent('prover', 'mind', mode => 'full')});
reflect(1);
run_as('prover', 'How to add?');
is(sql(q{SELECT count(*) FROM asked WHERE request::text LIKE '%contradictions%'}), 0, 'who was told nothing is not asked what of it was wrong');
my $fingers = memory('prover', 'To add, count on fingers.', 'procedural');
my $pinned = memory('prover', 'To add, ask somebody.', 'procedural', '{"pinned": true}');
run_as('prover', 'How to add?') foreach 1 .. 2;
sql(q{SELECT prometheus_mark('before the third')});
is(sql("SELECT kind, confidence FROM prometheus.memory WHERE memory_id = $fingers"), 'procedural|0.75', 'its success rate after two successes');
$task = run_as('prover', 'How to add?');
is(evidence($fingers), '1 1 0.5, 2 1 0.75, 3 1 0.875', 'a moving average of successes');
is(sql("SELECT string_agg(concat_ws(' ', version, kind, task_id = $task, metadata), ', ' ORDER BY version) FROM prometheus.memory_version WHERE memory_id = $fingers"),
	'1 procedural {}, 2 vault t {"consolidated_from": "procedural"}', 'a procedure that succeeds is consolidated');
is(sql("SELECT kind, confidence FROM prometheus.memory WHERE memory_id = $pinned"), 'procedural|0.875', 'what is pinned stays');
is(sql("SET prometheus.as_of = 'mark:before the third'; SELECT kind, confidence FROM prometheus.memory WHERE memory_id = $fingers"), 'procedural|0.75', 'AS OF: it was not yet');
$task = run_as('prover', 'How to add?');
is(output($task, 'recall', 'vault'), qq([{"content": "To add, count on fingers.", "memory_id": $fingers}]), 'it is told from the vault');
is(evidence($fingers), '1 1 0.5, 2 1 0.75, 3 1 0.875, 4 1 0.9375', 'what comes of that counts');
is(sql("SELECT count(*) FROM prometheus.memory_version WHERE memory_id = $fingers"), 2, 'and it is consolidated once');
is(memory('prover', 'To add, count on fingers.', 'procedural'), $fingers, 'and is not remembered as a procedure again');
my $mixed = memory('prover', 'To add, guess.', 'procedural');
foreach my $score (0.69, 0.7, 1, 0, 1, 1, 0)
{
	reflect($score);
	run_as('prover', 'How to add?');
}
is(evidence($mixed), '1 0.69 0, 2 0.7 0.5, 3 1 0.75, 4 0 0.375, 5 1 0.6875, 6 1 0.75, 7 0 0.6', 'a success is a score from 0.7 on; the first five count for a half');
$task = $node->submit(q{'How to add?', 'prover', mode => 'fast'});
$node->wait_task($task, 'completed');
is(sql("SELECT count(*) FROM prometheus.memory_evidence WHERE memory_id = $mixed"), 7, 'a task that was told nothing shows nothing');
is(sql(q{SELECT string_agg(concat_ws(' ', name, success_rate, uses, mastered), ', ' ORDER BY memory_id) FROM prometheus.skill WHERE agent = 'prover'}),
	'To add, count on fingers. 0.55833596 11 f, To add, ask somebody. 0.55833596 11 f, To add, guess. 0.6 7 f', 'its skills: what tasks have shown of procedures');
is(sql("SELECT string_agg(concat_ws(' ', version, kind, metadata), ', ' ORDER BY version) FROM prometheus.memory_version WHERE memory_id = $fingers"),
	'1 procedural {}, 2 vault {"consolidated_from": "procedural"}, 3 procedural {}', 'what was mastered, and fails, is a procedure again');
sql(q{SELECT prometheus_set_agent('slow', 'mind', mode => 'full')});
my $waits = memory('slow', 'To add, wait.', 'procedural');
foreach my $score (0, 0, 0, 1, 1, 1)
{
	reflect($score);
	run_as('slow', 'How to add?');
}
is(sql("SELECT kind, confidence FROM prometheus.memory WHERE memory_id = $waits"), 'procedural|0.8', 'at a success rate of 0.8, and not above, it is not consolidated');
is(sql("SELECT success_rate, mastered FROM prometheus.skill WHERE memory_id = $waits"), '0.8|f', 'nor mastered');

# A skill that is shared is told to the other agent's tasks, and begins anew.
sql(q{SELECT prometheus_set_agent('pupil', 'mind', mode => 'full')});
my $shared = sql(q{SELECT memory_id FROM prometheus_share_skill('To add, count on fingers.', 'pupil')});
is(evidence($shared), '', 'what the one agent has shown is not evidence of the other');
reflect(1);
$task = run_as('pupil', 'How to add?');
is(output($task, 'recall', 'procedural'), qq([{"content": "To add, count on fingers.", "memory_id": $shared}]), 'the other agent is told it');
is(sql(q{SELECT success_rate, uses, mastered FROM prometheus.skill WHERE agent = 'pupil'}), '0.5|1|f', 'and its own tasks show it');

# What it was told and has turned out wrong is superseded, and nothing else.
my $identity = memory('doubter', 'You add.', 'core');
my $wrong = memory('doubter', 'Adam adds with fingers.', 'semantic', '{"source": "boss", "confidence": 0.8}');
my $fixed = memory('doubter', 'Adam adds slowly.', 'semantic', '{"pinned": true}');
my $untold = memory('prover', 'Adam adds with toes.', 'semantic');
sql(q{SELECT prometheus_set_agent('doubter', 'mind', mode => 'full'); SELECT prometheus_mark('before the doubt')});
my $contradict = sub { return join ', ', map { qq({"memory_id": $_->[0], "fact": "$_->[1]"}) } @_; };
reflect(0.4, ', "contradictions": [' . $contradict->([ $identity, 'You subtract.' ], [ $fixed, 'Adam is fast.' ], [ $untold, 'Adam has no toes.' ],
		[ '1e30', 'Too much.' ], [ -1, 'Too little.' ], [ $wrong, ' ' ], [ $wrong, 'Adam adds in his head.' ], [ $wrong, 'Adam cannot add.' ]) . ']');
$task = run_as('doubter', 'Does Adam add?');
is(sql(q{SELECT count(*) FROM asked WHERE kind = 'reflect' AND request::text LIKE '%contradictions: which of%' AND request #> '{response_format,json_schema,schema,required}' ? 'contradictions'}), 1, 'it is asked what was wrong');
is(sql("SELECT prometheus_prompt($task, s.step) = (SELECT request FROM asked WHERE kind = 'reflect') FROM prometheus.step s WHERE task_id = $task AND kind = 'reflect'"), 't', '... which can be shown again');
my $right = sql(q{SELECT memory_id FROM prometheus.memory WHERE content = 'Adam adds in his head.'});
is(sql("SELECT agent, kind, importance, metadata = jsonb_build_object('source', 'reflection', 'task_id', $task, 'supersedes', $wrong), task_id = $task FROM prometheus.memory WHERE memory_id = $right"),
	'doubter|semantic|0.5|t|t', 'what is true instead');
is(sql("SELECT version, forgotten, superseded_by = $right, task_id = $task FROM prometheus.memory_version WHERE memory_id = $wrong ORDER BY version DESC LIMIT 1"), '2|superseded|t|t', 'what was wrong says by what it is superseded');
is(sql(q{SELECT string_agg(content, ' ' ORDER BY memory_id) FROM prometheus.memory WHERE agent = 'doubter'}), 'You add. Adam adds slowly. Adam adds in his head.', 'identity and what is pinned are not for a model to change');
is(sql("SELECT version FROM prometheus.memory WHERE memory_id = $untold"), 1, 'nor what it was not told');
is(sql("SET prometheus.as_of = 'mark:before the doubt'; SELECT content FROM prometheus_recall('doubter', 'fingers', k => 1)"), 'Adam adds with fingers.', 'AS OF: it was believed');
is(sql("SELECT jsonb_array_length(output -> 'contradictions') FROM prometheus.step WHERE task_id = $task AND kind = 'reflect'"), 8, 'the step says what it contradicted');
reflect(1);
$task = run_as('doubter', 'Does Adam add?');
like(output($task, 'recall', 'semantic'), qr/in his head/, 'the next task is told the truth');
unlike(output($task, 'recall', 'semantic'), qr/fingers/, 'and not what was wrong');
is(sql("SELECT prometheus_restore_memory($wrong)"), 't', 'a person can bring it back');
reflect(1, ', "contradictions": [{"memory_id": "' . $wrong . '", "fact": "x"}]');
$task = run_as('doubter', 'Does Adam add?');
is(sql("SELECT status FROM prometheus.step WHERE task_id = $task AND kind = 'reflect'"), 'error', 'what does not fit the schema is no reflection');
is(sql("SELECT version, forgotten FROM prometheus.memory_version WHERE memory_id = $wrong ORDER BY version DESC LIMIT 1"), '3|', '... and changes nothing');

# A fact is surer when tasks find it that do not know of each other.
sql(q{SELECT prometheus_set_agent('finder', 'mind', tools => '{remember}')});
my $found = q{SELECT kind || ' ' || coalesce(confidence::text, '-') FROM prometheus.memory WHERE content = 'The sky is blue.'};
think_of(chat => '{"text": "Ok.", "tool": {"name": "remember", "arguments": "{\"content\": \"The sky is blue.\", \"importance\": 0.6}"}}');
my $trace = ", traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'";
run_as('finder', 'Look.', $trace);
is(sql($found), 'semantic -', 'who finds it first is no evidence');
run_as('finder', 'Look.', $trace);
memory('finder', 'The sky is blue.', 'semantic');
is(sql($found), 'semantic -', 'nor is who is of the same trace, or a person');
run_as('finder', 'Look.');
is(sql($found), 'semantic 0.8', 'another task: half of the doubt is gone');
run_as('finder', 'Look.');
is(sql($found), 'semantic 0.9', '... and half of the rest');
run_as('finder', 'Look.');
is(sql($found), 'vault 0.95', 'above 0.9 it is consolidated');
run_as('finder', 'Look.');
is(sql($found), 'vault 0.95', 'once');
is(sql(q{SELECT count(*) FROM prometheus.memory WHERE agent = 'finder'}), 1, 'and stays one memory');
memory('finder', 'The sea is blue.', 'semantic', '{"confidence": 0.5}');
think_of(chat => '{"text": "Ok.", "tool": {"name": "remember", "arguments": "{\"content\": \"The sea is blue.\", \"importance\": 0.9}"}}');
run_as('finder', 'Look.');
is(sql(q{SELECT confidence FROM prometheus.memory WHERE content = 'The sea is blue.'}), '0.75', 'it begins with the confidence of its metadata');
memory('finder', 'The sand is blue.', 'semantic', '{"confidence": 1e-100}');
think_of(chat => '{"text": "Ok.", "tool": {"name": "remember", "arguments": "{\"content\": \"The sand is blue.\", \"importance\": 0.9}"}}');
run_as('finder', 'Look.');
is(sql(q{SELECT confidence FROM prometheus.memory WHERE content = 'The sand is blue.'}), '0.5', '... even if that is no number of a real');
think_of(chat => '{"text": "It is 5."}');

# The same with a server: what it was sent can be shown again, each task a model
# of its own.
my $llm = FakeLLM->new;
my $mind = sub {
	my ($name, %params) = @_;
	my $behaviour = $params{behaviour} // "fake-$name";
	sql(sprintf q{SELECT prometheus_set_model('%s', 'openai', '%s', '%s', options => '%s');
		SELECT prometheus_set_agent('%s', '%s', mode => 'full', tools => '{add, wipe}', options => '%s')},
		$name, $llm->url($params{path} // '/v1'), $behaviour, $params{model} // '{}', $name, $name, $params{agent} // '{}');
	return $name;
};
sql(q{CREATE FUNCTION wipe() RETURNS text LANGUAGE sql AS $$ SELECT 'wiped' $$;
	SELECT prometheus_set_tool('wipe()', tier => 'destructive')});
my $turns = $node->script([ 'I look.', [ 'add', { a => 2, b => 3 } ] ], 'Five.');

foreach my $stream ('false', 'true')
{
	my $name = $mind->("mind-score-7$stream", behaviour => 'fake-mind-score-70', model => "{\"stream\": $stream, \"window\": 2500, \"max_tokens\": 100}");
	for my $turn (1 .. 3)
	{
		my $before = @{ $llm->requests };
		my $long = 'x' x 900;
		$task = $node->submit("'\"$long\"', '$name', conversation => 'talk', output_schema => '{\"type\": \"string\", \"maxLength\": 2000}'");
		$node->wait_task($task, 'completed');
		my @new = @{ $llm->requests };
		splice @new, 0, $before;
		# the review's request is another's
		shift @new;
		my @steps = map { decode_json($_) } split /\n/,
		  sql("SELECT prometheus_prompt($task, step) FROM prometheus.step WHERE task_id = $task AND kind IN ('plan', 'chat', 'reflect') ORDER BY step");
		is_deeply(\@steps, [ map { $_->{body} } @new ], "stream $stream, turn $turn of a conversation: prompts are what was sent");
	}
	is(sql("SELECT count(*), max(importance) FROM prometheus.memory WHERE agent = '$name'"), '1|0.7', 'the lesson of all three is one memory');
	$task = $node->submit("$turns, '$name'");
	$node->wait_task($task, 'completed');
	is(sql("SELECT prometheus_result($task)"), 'Five.', "stream $stream: with a tool");
	is(steps($task), "review sofia ok, recall memory ok, plan $name ok, chat $name ok, tool add ok, chat $name ok, reflect $name ok", 'its steps');
}

# Another round with a server: what is sent can be
# shown again, and of two answers that are as good the second one counts.
my $again = $mind->('mind-again', behaviour => 'fake-mind-score-70', agent => '{"reflect_below": 0.8}');
my $before = @{ $llm->requests };
$task = $node->submit("$turns, '$again'");
$node->wait_task($task, 'completed');
my @sent = grep { $_->{body}{model} eq 'fake-mind-score-70' } @{ $llm->requests }[ $before .. $#{ $llm->requests } ];
shift @sent;
is_deeply([ map { decode_json($_) } split /\n/, sql("SELECT prometheus_prompt($task, step) FROM prometheus.step WHERE task_id = $task AND kind IN ('plan', 'chat', 'reflect') ORDER BY step") ],
	[ map { $_->{body} } @sent ], 'another round: prompts are what was sent');
is(steps($task), "review sofia ok, recall memory ok, plan $again ok, chat $again ok, tool add ok, chat $again ok, reflect $again ok, chat $again ok, reflect $again ok", 'its steps');
like(sql("SELECT result FROM prometheus.task WHERE task_id = $task"), qr/^You have looked back at your answer above/, 'the second answer of a model that repeats what it is told');

# A memory of which not every byte is a character, where any are stored.
sql(q{CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'});
$node->create_extension('ascii');
$node->fake_agent($llm, 'fake-mind-score-70', name => 'ascii', dbname => 'ascii');
$node->safe_psql('ascii', q{SELECT prometheus_set_agent('ascii', mode => 'full'), prometheus_remember('ascii', E'caf\351 and \303\251')});
$task = $node->submit(q{'Is there a caf?', 'ascii'}, dbname => 'ascii');
$node->wait_task($task, 'completed', dbname => 'ascii');
is($node->safe_psql('ascii', "SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"), 'review ok, recall ok, plan ok, chat ok, reflect ok', 'SQL_ASCII: all is thought');
is(scalar(grep { $_->{body}{model} eq 'fake-mind-score-70' && grep { ($_->{content} // '') =~ /caf\x{FFFD} and \x{E9}/ } @{ $_->{body}{messages} } } @{ $llm->requests }), 3, 'SQL_ASCII: a byte that is no character is told as U+FFFD');

# What cannot be thought, by a server.
my %bad = (
	'mind-plan-tool' => 'plan %1$s error, chat %1$s ok, reflect %1$s ok',
	'mind-plan-text' => 'plan %1$s error, chat %1$s ok, reflect %1$s ok',
	'mind-plan-tiny' => 'plan %1$s ok, chat %1$s ok, reflect %1$s ok',
	'mind-plan-400' => 'plan %1$s error, chat %1$s ok, reflect %1$s ok',
	'mind-plan-500' => 'plan %1$s error, plan %1$s error, chat %1$s ok, reflect %1$s ok',
	'mind-reflect-tool' => 'plan %1$s ok, chat %1$s ok, reflect %1$s error',
	'mind-reflect-tiny' => 'plan %1$s ok, chat %1$s ok, reflect %1$s ok',
	'mind-reflect-429' => 'plan %1$s ok, chat %1$s ok, reflect %1$s error',
	'mind-reflect-500' => 'plan %1$s ok, chat %1$s ok, reflect %1$s error');
my %tasks = map { $_ => $node->submit(sprintf q{'Think.', '%s', max_attempts => 2}, $mind->($_)) } sort keys %bad;
foreach my $name (sort keys %tasks)
{
	$node->wait_task($tasks{$name}, 'completed');
	is( sql("SELECT string_agg(concat_ws(' ', kind, name, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $tasks{$name} AND kind IN ('plan', 'chat', 'reflect')"),
		sprintf($bad{$name}, $name), $name);
	is(sql("SELECT prometheus_result($tasks{$name})"), 'Think.', "$name: the answer");
}

# Cancelled while it looks back, and a deadline that passes meanwhile, of a server
# and of a function; with rules for answers too: the answer stands.
my $about = sub { return sql("SELECT string_agg(DISTINCT error, '|') FROM prometheus.step WHERE kind = 'reflect' AND status = 'error' AND task_id IN (" . join(',', @_) . ')'); };
my $hanging = $mind->('mind-reflect-hang');
think_of(plan => '{"plans": []}');
sql(<<'EOSQL');
CREATE FUNCTION forever(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF request #>> '{response_format,json_schema,schema}' LIKE '%appropriateness%' THEN
		PERFORM pg_advisory_lock_shared(601);
	END IF;
	RETURN think(request);
END $$;
SELECT prometheus_set_model('forever', 'function', handler => 'forever(jsonb)');
SELECT prometheus_set_agent('forever', 'forever', mode => 'full');
EOSQL
my $forever = $node->background_psql('postgres');
$forever->query_safe('SELECT pg_advisory_lock(601)');
my $waiting = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 601 AND NOT granted};
my $late = $node->submit("'Late.', '$hanging', timeout => '4 seconds'");
my $slow = $node->submit("'Late.', 'forever', timeout => '4 seconds'");
$node->wait_task($_, 'completed') foreach $late, $slow;
is(sql("SELECT prometheus_result($late), prometheus_result($slow)"), 'Late.|It is 5.', 'the deadline passes while they look back: the answers stand');
is(sql("SELECT count(*) FROM prometheus.step WHERE task_id IN ($late, $slow) AND kind = 'reflect' AND status = 'error'"), 2, 'and there is nothing to learn');
foreach my $rules ('off', 'deny')
{
	sql(qq{SELECT prometheus_set_policy('no secrets', stage => 'answer', effect => '$rules', match => '{"text": "secret"}', reason => 'It is secret.')});
	my @cancelled = ($node->submit("'Cancel me.', '$hanging'"), $node->submit("'Cancel me.', 'forever'"));
	$node->wait_for("rules $rules: it looks back", "SELECT count(*) FROM prometheus.call WHERE kind = 'reflect' AND status = 'open' AND task_id = $cancelled[0]", 1);
	$node->wait_for("rules $rules: and the function's", $waiting, 1);
	is(sql("SELECT prometheus_cancel($_)"), 't', "rules $rules: cancelled while it looks back") foreach @cancelled;
	$node->wait_task($_, 'completed') foreach @cancelled;
	is(sql("SELECT prometheus_result($cancelled[0]), prometheus_result($cancelled[1])"), 'Cancel me.|It is 5.', "rules $rules: the answers stand");
	is($about->(@cancelled), 'the task was cancelled', 'the step says why there is no reflection');
	is(sql("SELECT status, reserved_tokens > 0 FROM prometheus.call WHERE kind = 'reflect' AND task_id = $cancelled[0]"), 'ambiguous|t', 'what was dropped may have been billed');
	is(sql("SELECT prometheus_retry($cancelled[0])"), 'f', 'and nothing to be tried again');
}
sql(q{SELECT prometheus_set_policy('no secrets', effect => 'off')});

# It fails while the task looks back at the answer of its last attempt.
sql(<<'EOSQL');
CREATE SEQUENCE tries;
CREATE FUNCTION twice(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF request #>> '{response_format,json_schema,schema}' LIKE '%appropriateness%'
	   OR request -> 'response_format' IS NULL AND nextval('tries') = 1 THEN
		RAISE 'not now';
	END IF;
	RETURN think(request);
END $$;
SELECT prometheus_set_model('twice', 'function', handler => 'twice(jsonb)');
SELECT prometheus_set_agent('twice', 'twice', mode => 'full');
EOSQL
$task = $node->submit(q{'Last try.', 'twice', max_attempts => 2});
$node->wait_task($task, 'completed');
is(sql("SELECT attempts, result FROM prometheus.task WHERE task_id = $task"), '2|It is 5.', 'its attempts are used up when it looks back: the answer stands');
like($about->($task), qr/not now/, 'the step has the error');

# The server crashes while it looks back, as often as it may.
sql('ALTER SYSTEM SET prometheus.max_crashes = 1');
$node->reload;
$task = $node->submit(q{'Crash.', 'forever'});
$node->wait_for('it looks back and waits', $waiting, 1);
my $crashed = $node->log_end;
kill('KILL', sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 601 AND NOT granted}));
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $crashed);
eval { $forever->quit };
$node->wait_for('the server is back', 'SELECT true');
$node->wait_task($task, 'completed');
is(sql("SELECT prometheus_result($task)"), 'It is 5.', 'the server crashed while it looked back: the answer stands');
is($about->($task), 'the server crashed once while it worked on this task', 'the step says so');
sql('ALTER SYSTEM SET prometheus.max_crashes = 100');
$node->reload;

# The model of its fallbacks; a limit that its thoughts use up; a person.
sql(sprintf q{SELECT prometheus_set_model('broken', 'openai', '%s', 'fake-503', options => '{"fallback": ["mind-plan-tiny"]}');
	SELECT prometheus_set_agent('broken', 'broken', mode => 'full')}, $llm->url('/v1'));
my $fallen = $node->submit(q{'Fall back.', 'broken', max_attempts => 3});
my $spent_up = $node->submit(sprintf q{'Spend.', '%s'}, $mind->('mind-score-1', agent => '{"max_tokens": 20}'));
my $asks = $node->submit($node->script([ [ 'wipe', {} ] ], 'Wiped.') . ", 'mind-plan-tiny'");
$again = $node->submit("$turns, '" . $mind->('mind-chat-500') . q{', max_attempts => 1});
$node->wait_task($fallen, 'completed');
is(sql("SELECT string_agg(kind || ' ' || name, ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $fallen AND kind IN ('plan', 'chat', 'reflect') AND status = 'ok'"),
	'plan mind-plan-tiny, chat mind-plan-tiny, reflect mind-plan-tiny', 'it thinks with its fallback');
$node->wait_task($spent_up, 'failed');
is(sql("SELECT error_type, left(error, 10) FROM prometheus.task WHERE task_id = $spent_up"), 'LimitExceeded|max_tokens', 'thoughts count for its limits');
$node->wait_task($again, 'failed');
sql("SELECT prometheus_retry($again)");
$node->wait_task($again, 'completed');
is(sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $again AND kind <> 'review'"),
	'recall ok, plan ok, chat ok, tool ok, chat error, recall ok, plan ok, chat ok, reflect ok', 'retried by hand: it plans anew and goes on');
my @planned = grep { $_->{body}{model} eq 'fake-mind-chat-500' && $_->{body}{response_format} && grep { $_->{tool_calls} } @{ $_->{body}{messages} } } @{ $llm->requests };
ok(@planned > 0 && !(grep { !$_->{body}{tools} } @planned), 'who sees calls of tools is told of the tools');
$node->wait_task($asks, 'waiting');
sql(q{CREATE ROLE boss; GRANT prometheus_agent_admin TO boss; SET ROLE boss; SELECT prometheus_approve(approval_id, 'yes') FROM prometheus.approval WHERE decision IS NULL; RESET ROLE});
$node->wait_task($asks, 'completed');
is(sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $asks AND kind <> 'review'"),
	'recall ok, plan ok, chat ok, tool ok, chat ok, reflect ok', 'a person is asked once, and nothing is thought twice');

# Rules for answers: before anything is learned, and once.
sql(q{SELECT prometheus_set_policy('no secrets', stage => 'answer', effect => 'deny', match => '{"text": "secret"}', reason => 'It is secret.')});
foreach my $agent ('mind-plan-tiny', 'mind')
{
	think_of(chat => '{"text": "A secret."}');
	$task = $node->submit("'A secret.', '$agent'");
	$node->wait_task($task, 'vetoed');
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'reflect'"), 0, "$agent: a vetoed answer is not looked back at");
	think_of(chat => '{"text": "It is 5."}');
	$task = $node->submit("'All said.', '$agent'");
	$node->wait_task($task, 'completed');
	is(sql("SELECT count(*) FROM prometheus.verdict WHERE task_id = $task AND stage = 'answer'"), 1, "$agent: an answer is judged once");
}
sql(q{SELECT prometheus_set_policy('no secrets', effect => 'off')});
$llm->stop;

# What it remembers cannot be read in time: it goes on without.
sql(q{SELECT prometheus_set_agent('mind', options => '{"tool_timeout": 0.2}')});
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; LOCK TABLE prometheus._memory');
$task = $node->submit("'Remember.', 'mind'");
$node->wait_for('it has done without', "SELECT error FROM prometheus.step WHERE task_id = $task AND kind = 'recall'", 'nothing was found within tool_timeout');
$reader->quit;
$node->wait_task($task, 'completed');
sql(q{SELECT prometheus_set_agent('mind', options => '{"tool_timeout": null}')});
my $longest = sql(q{SELECT string_agg(md5(n::text), ' ') FROM generate_series(1, 30000) AS n});
$task = $node->submit("'$longest', 'mind'");
$node->wait_task($task, 'completed');
is(sql("SELECT status, output #>> '{core,0,content}' FROM prometheus.step WHERE task_id = $task AND kind = 'recall'"), 'ok|You are a calculator.',
	'a request with more words than can be looked for');

# Killed while it thinks, at each of its thoughts: it goes on.
think_of(plan => '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "Say it.", "tool": "", "outcome": "told", "probability": 1, "risks": []}]}]}');
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
# A budget that is used up while it answers leaves no reflection, and the answer.
sql(q{INSERT INTO thought VALUES ('slow', '{"of": "plan that was chosen"}')});
my $lock = $node->background_psql('postgres');
$lock->query_safe('SELECT pg_advisory_lock(600)');
$task = $node->submit("'Poor.', 'mind'");
$node->wait_for('it is about to answer', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}, 1);
sql(q{SELECT prometheus_set_budget('all', 'month', 0)});
$lock->quit;
$node->wait_task($task, 'completed');
is(sql("SELECT status, error LIKE 'budget all per month is used up%' FROM prometheus.step WHERE task_id = $task AND kind = 'reflect'"), 'error|t', 'no money for a reflection');
is(sql("SELECT prometheus_result($task)"), 'It is 5.', 'and the answer stands');
sql(q{SELECT prometheus_set_budget('all', 'month', 1000000000); DELETE FROM thought WHERE kind = 'slow'});

# Paused when it has its answer: it waits, and holds nothing; its deadline or a
# cancel ends it with the answer, and else it looks back when it may go on.
sql(q{INSERT INTO thought VALUES ('slow', '{"of": "plan that was chosen"}')});
foreach my $target ('all', 'agent:mind')
{
	$lock = $node->background_psql('postgres');
	$lock->query_safe('SELECT pg_advisory_lock(600)');
	my $timeout = $target eq 'all' ? '8 seconds' : '1 day';
	my @tasks = ($node->submit("'Paused.', 'mind', timeout => '$timeout'"), $node->submit("'Paused.', 'mind'"));
	$node->wait_for("$target: two are about to answer", q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}, 2);
	$node->pause($target);
	$lock->quit;
	$node->wait_for("$target: they have answered, and wait",
		"SELECT count(*) FROM prometheus.task WHERE task_id IN ($tasks[0], $tasks[1]) AND status IN ('retrying', 'completed')", 2);
	sql("SELECT prometheus_cancel($tasks[0])") if $target ne 'all';
	$node->wait_task($tasks[0], 'completed');
	is($about->($tasks[0]), $target eq 'all' ? 'the deadline of its task has passed' : 'the task was cancelled', "$target paused: its answer stands");
	push @tasks, $node->submit("'Never begun.', 'mind'");
	is(sql("SELECT status FROM prometheus.task WHERE task_id = $tasks[1]"), 'retrying', "$target paused: the other waits to look back");
	sql("SELECT prometheus_cancel($_)") foreach @tasks[1, 2];
	$node->wait_task($tasks[1], 'completed');
	$node->wait_task($tasks[2], 'cancelled');
	is(sql("SELECT prometheus_result($tasks[1])"), 'It is 5.', "$target paused: cancelled, and the answer stands");
	sql("SELECT prometheus_resume('$target')");
}
think_of(reflect => '{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "Good.", "lessons": [], "correction": ""}');
$lock = $node->background_psql('postgres');
$lock->query_safe('SELECT pg_advisory_lock(600)');
$task = $node->submit("'Paused.', 'mind'");
$node->wait_for('it is about to answer', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}, 1);
$node->pause('all');
$lock->quit;
$node->wait_task($task, 'retrying');
sql("SELECT prometheus_resume()");
$node->wait_task($task, 'completed');
is(sql("SELECT string_agg(kind || ' ' || status, ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind <> 'review'"),
	'recall ok, plan ok, chat ok, reflect ok', 'resumed: it looks back, and nothing is done twice');
sql(q{DELETE FROM thought WHERE kind = 'slow'});

# Another round, and just one, for an answer that is not good enough.
think_of(plan => '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "Say it.", "tool": "", "outcome": "told", "probability": 1, "risks": []}]}]}');
sql(q{SELECT prometheus_set_agent('again', 'mind', instructions => 'You count.', mode => 'full', tools => '{add}', options => '{"reflect_below": 0.8}')});
my $reflection = sub {
	my ($score, $critique, $again) = @_;
	my $reply = qq("aspects": [], "appropriateness": $score, "effectiveness": $score, "critique": "$critique", "lessons": [], "correction": "It is six.");
	return "{$reply" . (defined $again ? ', "again": ' . $again : '') . '}';
};
my $rounds = sub {
	my ($chat, $scores, %params) = @_;
	my $agent = $params{agent} // 'again';
	think_of(chat => $chat);
	think_of(reflect => $reflection->($scores->[0], 'Poor.', defined $scores->[1] ? ($scores->[1] =~ /raise/ ? $scores->[1] : $reflection->($scores->[1], 'Better.')) : undef));
	sql('TRUNCATE asked');
	my $id = $node->submit("'Again.', '$agent'" . ($params{submit} // ''));
	$node->wait_task($id, $params{status} // 'completed');
	return join '|', sql("SELECT coalesce(result, error) FROM prometheus.task WHERE task_id = $id"),
	  sql("SELECT string_agg(concat_ws(' ', kind, nullif(status, 'ok')), ' ' ORDER BY step) FROM prometheus.step WHERE task_id = $id AND kind <> 'review' AND name <> 'memory'");
};
my $five = '{"text": "Five.", "again": {"text": "Six."}}';
is($rounds->($five, [ 0.9, 0.1 ]), 'Five.|plan chat reflect', 'good enough: one round');
is($rounds->($five, [ 0.8, 0.1 ]), 'Five.|plan chat reflect', 'as good as it must be: one round');
is($rounds->($five, [ 0.7, 0.75 ]), 'Six.|plan chat reflect chat reflect', 'not good enough: the second answer, which is not good enough either, and no third');
is( sql("SELECT string_agg((m ->> 'role') || ' ' || (m ->> 'content'), ' / ' ORDER BY i) FROM asked, jsonb_array_elements(request -> 'messages') WITH ORDINALITY x(m, i) WHERE n = (SELECT max(n) FROM asked WHERE kind = 'chat') AND i > (SELECT max(y.i) FROM jsonb_array_elements(request -> 'messages') WITH ORDINALITY y(m, i) WHERE y.m ->> 'content' = 'Again.')"),
	'assistant Five. / user You have looked back at your answer above, and it is not good enough. Answer the request again, as a whole and without a word of this message; call tools if that helps. What you found: Poor.
What should have been answered instead: It is six.', 'it is told what it answered, and what is wrong with that');
is( sql("SELECT string_agg(m ->> 'content', ' / ' ORDER BY i) FROM asked, jsonb_array_elements(request -> 'messages') WITH ORDINALITY x(m, i) WHERE n = (SELECT max(n) FROM asked) AND m ->> 'role' = 'assistant'"),
	'Five. / Six.', 'and looks back at the second one');
my ($id) = sql(q{SELECT max(task_id) FROM prometheus.task WHERE request = 'Again.'});
is( sql("SELECT bool_and(prometheus_prompt($id, s.step) = a.request) FROM (SELECT step, row_number() OVER (ORDER BY step) FROM prometheus.step WHERE task_id = $id AND kind IN ('plan', 'chat', 'reflect')) s JOIN (SELECT request, row_number() OVER (ORDER BY n) FROM asked WHERE kind <> 'counsel') a USING (row_number)"),
	't', 'each prompt can be shown again');
is(sql("SELECT string_agg(data->>'score', ' ' ORDER BY event_id) FROM prometheus.event WHERE task_id = $id AND type = 'reflection'"), '0.7000 0.7500', 'there is an event of each');
is(sql("SELECT input #>> '{messages,0,content}' FROM prometheus.step WHERE task_id = $id AND kind = 'chat' ORDER BY step DESC LIMIT 1"), 'Poor.', 'the step shows what was new');
is(sql("SELECT tokens_in, tokens_out FROM prometheus.task WHERE task_id = $id"), '60|30', 'all of it counts');
is(sql("SELECT value->>'result' FROM prometheus.state WHERE agent = 'again' AND key = 'last_task'"), 'Six.', 'what it has done last is the better answer');
is($rounds->($five, [ 0.7, 0.7 ]), 'Six.|plan chat reflect chat reflect', 'both are as good: the second one');
is($rounds->($five, [ 0.7, 0.6 ]), 'Five.|plan chat reflect chat reflect', 'the second one is worse: the first');
is($rounds->($five, [ 0.7, '{"raise": "no"}' ]), 'Five.|plan chat reflect chat reflect error', 'nobody knows how good the second one is: the first');
is($rounds->('{"text": "Five.", "again": {"raise": "no"}}', [ 0.7 ]), 'Five.|plan chat reflect chat error', 'there is no second one: the first');
my $tool = '{"text": "Five.", "again": {"text": "Six.", "tool": {"name": "add", "arguments": "{\"a\": 2, \"b\": 4}"}}}';
is($rounds->($tool, [ 0.7, 0.8 ]), 'Six.|plan chat reflect chat tool chat reflect', 'it may call tools');
my $serves = sub { return sql("SELECT string_agg(concat(kind, ' ', plan_step), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = (SELECT max(task_id) FROM prometheus.task WHERE request = 'Again.') AND kind <> 'review' AND name <> 'memory'"); };
foreach my $plan (
	[ '"add" "add" ""', 'plan , chat 1, tool 1, chat 3, reflect , chat 2, tool 2, chat 3, reflect ' ],
	[ '"add"', 'plan , chat 1, tool 1, chat , reflect , chat 1, tool 1, chat , reflect ' ],
	[ '"" "wipe" "none"', 'plan , chat , tool , chat , reflect , chat , tool , chat , reflect ' ])
{
	think_of(plan => '{"plans": [{"approach": "balanced", "cost": 1, "steps": [' . join(', ', map { qq({"action": "Do.", "tool": $_, "outcome": "done", "probability": 1, "risks": []}) } split / /, $plan->[0]) . ']}]}');
	$rounds->('{"text": "Five.", "tool": {"name": "add", "arguments": "{\"a\": 2, \"b\": 3}"}, "again": {"text": "Six.", "tool": {"name": "add", "arguments": "{\"a\": 2, \"b\": 4}"}}}', [ 0.7, 0.8 ]);
	is($serves->(), $plan->[1], "a plan whose steps call $plan->[0]: which of them is served");
	is(sql("SELECT string_agg(s ->> 'step', ' ' ORDER BY i) FROM prometheus.step, jsonb_array_elements(output -> 'steps') WITH ORDINALITY x(s, i) WHERE task_id = (SELECT max(task_id) FROM prometheus.task WHERE request = 'Again.') AND kind = 'plan'"),
		join(' ', 1 .. split(/ /, $plan->[0])), 'its steps are numbered');
}
sql(q{SELECT prometheus_set_agent('again', options => '{"max_turns": 2}')});
is($rounds->($tool, [ 0.7, 0.8 ]), 'Five.|plan chat reflect chat tool', 'within its limits: else the first');
sql(q{SELECT prometheus_set_agent('again', options => '{"max_turns": 1}')});
is($rounds->($tool, [ 0.7, 0.8 ]), 'Five.|plan chat reflect', 'with no turn left: the first');
sql(q{SELECT prometheus_set_agent('again', options => '{"max_turns": null}')});
sql(q{SELECT prometheus_set_policy('no six', stage => 'answer', effect => 'deny', match => '{"text": "Six"}', reason => 'No six.')});
is($rounds->($five, [ 0.7, 0.9 ]), 'Five.|plan chat reflect chat', 'the second one is not allowed: the first');
is(sql("SELECT string_agg(approved::text, ' ' ORDER BY step) FROM prometheus.verdict JOIN prometheus.task USING (task_id) WHERE task_id = (SELECT max(task_id) FROM prometheus.task WHERE request = 'Again.') AND stage = 'answer'"),
	'true false', 'and there is a verdict of each');
sql(q{SELECT prometheus_set_policy('no six', effect => 'off')});
sql(q{SELECT prometheus_set_policy('no five', stage => 'answer', effect => 'deny', match => '{"text": "Five"}', reason => 'No five.')});
is($rounds->($five, [ 0.7, 0.9 ], status => 'vetoed'), 'No five.|plan chat', 'the first one is not allowed: vetoed');
sql(q{SELECT prometheus_set_policy('no five', effect => 'off')});
is($rounds->($five, [ 0.1, 0.9 ], submit => ", mode => 'fast'"), 'Five.|chat', 'fast mode has no such rounds');
is($rounds->('{"text": "5", "again": {"text": "six"}}', [ 0.1, 0.9 ], submit => q{, output_schema => '{"type": "integer"}'}),
	'5|plan chat reflect chat error', 'the second one does not fit the schema: the first');

# Whatever is asked costs: of the task, of its budgets, and of its limits.
think_of(plan => '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "Say it.", "tool": "", "outcome": "told", "probability": 1, "risks": []}]}]}');
sql(q{SELECT prometheus_set_model('mind', options => '{"price_in": 1, "price_out": 2}'); SELECT prometheus_set_budget('agent:again', 'month', cost => 1)});
is($rounds->($five, [ 0.7, 0.8 ]), 'Six.|plan chat reflect chat reflect', 'a model that has its price');
is( sql("SELECT cost, (SELECT count(*) FROM prometheus.step s WHERE s.task_id = t.task_id AND s.cost = 0.00002), (SELECT spent_cost FROM prometheus.budget WHERE scope = 'agent:again') FROM prometheus.task t WHERE task_id = (SELECT max(task_id) FROM prometheus.task WHERE request = 'Again.')"),
	'0.00012|6|0.00012', 'counsel, plan, two turns and two reflections are paid, each once');
sql(q{SELECT prometheus_set_agent('again', options => '{"max_cost": 0.00007}')});
is($rounds->($five, [ 0.7, 0.8 ]), 'Five.|plan chat reflect', 'they count for max_cost: no money for a second round');
sql(q{SELECT prometheus_set_agent('again', options => '{"max_cost": 0.00003}')});
is($rounds->($five, [ 0.7, 0.8 ], status => 'failed'), 'max_cost: the task has cost more than 0.00003|plan', 'nor for an answer');
sql(q{SELECT prometheus_set_agent('again', options => '{"max_cost": null}'); SELECT prometheus_set_model('mind', options => '{"price_in": null, "price_out": null}')});

# It is to end in the second round: by a cancel, a deadline, a budget, a crash.
foreach my $of ('Poor.', 'Six.')
{
	foreach my $end (qw(cancel pause kill budget))
	{
		next if $end eq 'budget' && $of eq 'Six.';
		think_of(chat => $five);
		think_of(reflect => $reflection->(0.7, 'Poor.', $reflection->(0.9, 'Better.')));
		sql("INSERT INTO thought VALUES ('slow', '{\"of\": \"$of\"}')") if $end ne 'budget';
		sql(q{INSERT INTO thought VALUES ('slow', '{"of": "appropriateness"}')}) if $end eq 'budget';
		my $holder = $node->background_psql('postgres');
		$holder->query_safe('SELECT pg_advisory_lock(600)');
		my $what = "$end at $of";
		$task = $node->submit("'Again.', 'again'");
		$node->wait_for("$what: it waits", q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}, 1);
		if ($end eq 'cancel')
		{
			sql("SELECT prometheus_cancel($task)");
		}
		elsif ($end eq 'pause')
		{
			$node->pause('all');
			$holder->quit;
			$node->wait_task($task, $of eq 'Six.' ? 'completed' : 'retrying');
			sql('SELECT prometheus_resume()');
		}
		elsif ($end eq 'budget')
		{
			sql(q{SELECT prometheus_set_budget('all', 'month', 0)});
			$holder->quit;
		}
		else
		{
			my $log = $node->log_end;
			kill('KILL', sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}));
			$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
			eval { $holder->quit };
			$node->wait_for("$what: the server is back", 'SELECT true');
			sql(q{DELETE FROM thought WHERE kind = 'slow'});
		}
		$node->wait_task($task, 'completed');
		eval { $holder->quit };
		sql(q{DELETE FROM thought WHERE kind = 'slow'; SELECT prometheus_set_budget('all', 'month', 1000000000)});
		is(sql("SELECT prometheus_result($task)"), $end =~ /cancel|budget/ ? 'Five.' : 'Six.', "$what: the answer");
		is( sql("SELECT string_agg(kind, ' ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND status = 'ok' AND kind <> 'review' AND name <> 'memory'"),
			$end =~ /cancel|budget/ ? ($of eq 'Six.' ? 'plan chat reflect chat' : 'plan chat reflect') : 'plan chat reflect chat reflect',
			"$what: nothing is done twice");
	}
}

# It cannot go on in the second round, when no attempt is open: the first answer.
sql(q{INSERT INTO thought VALUES ('slow', '{"of": "Poor."}')});
think_of(chat => '{"text": "Five.", "again": {"text": "Six.", "tool": {"name": "add", "arguments": "{\"a\": 2, \"b\": 4}"}}}');
think_of(reflect => $reflection->(0.7, 'Poor.', $reflection->(0.9, 'Better.')));
foreach my $why ('limit', 'policy')
{
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(600)');
	sql(q{SELECT prometheus_set_agent('again', options => '{"max_duration": "3 s"}')}) if $why eq 'limit';
	$task = $node->submit("'Again.', 'again'");
	$node->wait_for("$why: it waits", q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 600 AND NOT granted}, 1);
	$node->pause('all');
	$holder->quit;
	$node->wait_task($task, 'retrying');
	sql(q{SELECT prometheus_set_policy('none', stage => 'task', effect => 'deny', match => '{"agent": "again"}', reason => 'No.')}) if $why eq 'policy';
	$node->wait_for('the limit is over', "SELECT clock_timestamp() > started_at + interval '3 seconds' FROM prometheus.task WHERE task_id = $task", 't') if $why eq 'limit';
	sql(q{SELECT prometheus_resume()});
	$node->wait_task($task, 'completed');
	is(sql("SELECT result, attempts FROM prometheus.task WHERE task_id = $task"), 'Five.|1', "$why: the first answer stands");
	is(sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $task AND started_at IS NOT NULL"), 'retry completed', "$why: in an attempt of its own");
	sql(q{SELECT prometheus_set_agent('again', options => '{"max_duration": null}')});
	sql(q{SELECT prometheus_set_policy('none', effect => 'off')}) if $why eq 'policy';
}
sql(q{DELETE FROM thought WHERE kind = 'slow'});
think_of(chat => '{"text": "It is 5."}');

foreach my $of (qw(probability appropriateness))
{
	think_of(reflect => qq({"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "Good.", "lessons": ["Patience: $of."], "correction": ""}));
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
	is(sql("SELECT count(*) FROM prometheus.memory WHERE task_id = $task AND kind = 'episodic'"), 1, "killed at $of: one lesson");
}

$node->check_invariants('all that happened', retried => [$again]);
$node->stop;
done_testing();
