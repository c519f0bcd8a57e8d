# The scenarios that the system before this one was tested with, by their numbers,
# in SQL and with its rules; only the model is a stand-in.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(conf => "prometheus.executors = 2\n");
$node->start;
$node->keep_sessions;
$node->create_extension;
sql(<<'EOSQL');
CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b';
SELECT prometheus_set_tool('add(int, int)');
CREATE ROLE alice;
CREATE ROLE bob;
CREATE ROLE carol;
CREATE ROLE dave;
GRANT prometheus_agent_user TO alice, bob;
GRANT prometheus_agent_admin TO carol, dave;
CREATE TABLE written (statement text);
CREATE FUNCTION writes(request jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
	$$SELECT jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('finish_reason', 'stop',
		'message', jsonb_build_object('role', 'assistant', 'content', statement)))) FROM written$$;
CREATE FUNCTION studies(request jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
	$$SELECT jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('finish_reason', 'stop',
		'message', jsonb_build_object('role', 'assistant', 'content', CASE
		WHEN asked ~ '^Propose one task' THEN '{"task": "Add 2 and 3.", "criteria": "A number.", "skill": "adding", "solution": "5", "cases": [{"what": "five", "check": "answer ~ ''5''"}, {"what": "a digit", "check": "answer ~ ''^[0-9]$''"}, {"what": "its value", "check": "btrim(answer) = ''5''"}]}'
		WHEN asked ~ '^Judge an answer' THEN '{"score": 0.8, "critique": "Right.", "procedure": "Count."}'
		WHEN asked ~ 'Give three plans' THEN '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "add", "tool": "", "outcome": "a sum", "probability": 1, "risks": []}]}]}'
		WHEN asked ~ 'Look back at it' THEN '{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "Fine.", "lessons": [], "correction": ""}'
		ELSE '5' END)))) FROM (SELECT request #>> '{messages,-1,content}' AS asked) x$$;
SELECT prometheus_set_model('student', 'function', handler => 'studies(jsonb)');
SELECT prometheus_set_agent('student', 'student');
SELECT prometheus_set_model('writer', 'function', handler => 'writes(jsonb)');
SELECT prometheus_set_agent('writer', 'writer');
EOSQL
$node->fake_agent($llm, $_) foreach qw(fake-mind fake-400 fake-counsel-30);
sql(q{SELECT prometheus_set_agent('fake-mind', tools => '{add, remember, recall, save_state}')});

# Run a request in words, or the turns of its model in an array; its task.
sub run
{
	my ($request, %params) = @_;
	my $agent = $params{agent} // 'fake-mind';
	my $text = ref $request ? $node->script(@$request) : "\$r\$$request\$r\$";
	my $task = $node->submit(sprintf "%s, '%s', '%s'", $text, $agent, $params{mode} // 'fast');

	$node->wait_task($task, $params{status} // 'completed');
	return $task;
}

# Have a tool made of a function with this body, and wait; its task.
sub make
{
	my ($body, $status) = @_;

	sql("TRUNCATE written; INSERT INTO written VALUES (\$b\$CREATE FUNCTION add_numbers(a bigint, b bigint) RETURNS bigint LANGUAGE sql $body\$b\$)");
	my $task = sql(q{SET ROLE dave; SELECT prometheus_create_tool('Adds two numbers.', '[{"input": {"a": 1, "b": 1}, "output": 2}]', 'writer')});
	$node->wait_task($task, $status);
	return $task;
}

sub scenario
{
	my ($number, $name, $test) = @_;
	return subtest("$number: $name", $test);
}

sub steps
{
	return sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $_[0]");
}

scenario 1, 'a fast task tells that it came, and at last its result' => sub {
	my $task = run('Hello.');
	my $first = sql("SELECT type, data->>'request', data->>'mode' FROM prometheus.event WHERE task_id = $task ORDER BY event_id LIMIT 1");
	is($first, 'task.received|Hello.|fast', 'the first event');
	is(sql("SELECT type, data->>'result' FROM prometheus.event WHERE task_id = $task ORDER BY event_id DESC LIMIT 1"), 'task.completed|Hello.', 'the last one');
};

scenario 2, 'a task whose model fails tells so, and its caller sees it' => sub {
	my $task = run('Hello.', agent => 'fake-400', status => 'failed');
	like(sql("SELECT data->>'error' FROM prometheus.event WHERE task_id = $task AND type = 'task.failed'"), qr/HTTP 400/, 'the event has the error');
	is($node->error_of("SELECT prometheus_result($task)")->{state}, 'PM001', 'the caller sees it');
};

scenario 3, 'a state that was saved is loaded equal' => sub {
	sql(q{SELECT prometheus_save_state('keeper', '{"goal": "learn", "n": 7}')});
	is(sql(q{SELECT prometheus_state('keeper') = '{"goal": "learn", "n": 7}'}), 't', 'equal');
};

scenario 4, 'a memory that was stored is found' => sub {
	sql(q{SELECT prometheus_remember('keeper', 'The parcel went north.', 'episodic', 0.8, '{"order": 7}')});
	is(sql(q{SELECT content, metadata FROM prometheus_recall('keeper', 'parcel')}), 'The parcel went north.|{"order": 7}', 'content and metadata');
};

scenario 5, 'after a task the agent has a state' => sub {
	my $task = run('Anything.');
	is(sql("SELECT value->>'task_id' FROM prometheus.state WHERE agent = 'fake-mind' AND key = 'last_task'"), $task, 'of that task');
};

scenario 6, 'all tables are logged' => sub {
	is(sql(q{SELECT count(*) > 20, count(*) FILTER (WHERE relpersistence <> 'p') FROM pg_class WHERE relnamespace = 'prometheus'::regnamespace AND relkind = 'r'}), 't|0', 'they outlive a crash');
};

scenario 7, 'every relation is there, and its indexes' => sub {
	is(sql(q{SELECT string_agg(n, ' ') FROM unnest('{task,queue,attempt,call,step,event,span,verdict,approval,usage,agent,model,tool,policy,budget,state,memory,mark,worker,consumer,subscription,delivery,dead_letter,alert,gate}'::text[]) n WHERE to_regclass('prometheus.' || n) IS NULL}),
		'', 'relations');
	is(sql(q{SELECT string_agg(x, ' ') FROM unnest('{_task,_attempt,_call,_step,_outcome,_event,_state,_memory,_verdict}'::text[]) x
		WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = ('prometheus.' || x)::regclass AND i.indisunique AND i.indisvalid)}), '', 'indexes');
};

scenario 8, 'of a thousand memories the five most important come first' => sub {
	sql(q{SELECT count(prometheus_remember('many', 'Note ' || i, 'semantic', (i / 1000.0)::real)) FROM generate_series(1, 1000) i});
	is(sql(q{SELECT string_agg(content, ', ') FROM prometheus_recall('many', '', k => 5)}), 'Note 1000, Note 999, Note 998, Note 997, Note 996', 'the last five');
};

scenario 9, 'nested documents come back equal' => sub {
	my $nested = '{"a": [1, 2.50, {"b": [[], {}, null, true]}], "é": {"c": {"d": {"e": "x\"y\\\\z"}}}}';
	sql("SELECT prometheus_save_state('nested', \$n\$$nested\$n\$)");
	is(sql("SELECT prometheus_state('nested') = \$n\$$nested\$n\$, prometheus_state('nested') #>> '{a,1}'"), 't|2.50', 'equal');
};

scenario 10, 'two tasks at once both answer' => sub {
	my @tasks = map { $node->submit("'Task $_.', 'fake-mind'") } 1, 2;
	$node->wait_task($_, 'completed') foreach @tasks;
	is(sql("SELECT string_agg(prometheus_result(t), ' ' ORDER BY t) FROM unnest('{$tasks[0],$tasks[1]}'::bigint[]) t"), 'Task 1. Task 2.', 'each its own');
};

scenario 11, 'a generation of an evolution is recorded' => sub {
	my $task = sql(q{SET ROLE alice; SELECT prometheus_evolve('student', 1, 'sums')});
	$node->wait_task($task, 'completed');
	is(sql("SELECT concat_ws('|', generation, agent, domain, level, skill, succeeded, score, attempts, passed, cases, judged, level_after) FROM prometheus.evolution WHERE task_id = $task"),
		'1|student|sums|1|adding|t|0.8|1|3|3|0.8|1', 'what it came to');
	is(sql("SELECT data ->> 'skill_name' FROM prometheus.event WHERE type = 'evolution' AND task_id = $task"), 'adding', 'and an event');
};

scenario 12, 'a fact is shared by sessions, and not with another owner' => sub {
	sql(q{SET ROLE alice; SELECT prometheus_remember('shared', 'The gate code is blue.')});
	is(sql(q{SET ROLE alice; SELECT content FROM prometheus_recall('shared', 'gate code')}), 'The gate code is blue.', 'another session');
	is(sql(q{SET ROLE bob; SELECT count(*) FROM prometheus_recall('shared', 'gate code')}), 0, 'another owner');
};

scenario 13, 'when saving fails the answer is kept, and that is told' => sub {
	sql(q{ALTER TABLE prometheus._state ADD CONSTRAINT not_now CHECK (agent <> 'fake-mind' OR key <> 'last_task') NOT VALID});
	my $task = run('Keep me.');
	is(sql("SELECT prometheus_result($task)"), 'Keep me.', 'the answer');
	is(sql("SELECT count(*) FROM prometheus.event WHERE task_id = $task AND type = 'state.failed'"), 1, 'the failure');
	sql('ALTER TABLE prometheus._state DROP CONSTRAINT not_now');
};

scenario 14, 'recall ranks by importance' => sub {
	sql(qq{SELECT prometheus_remember('ranks', 'Snow of rank $_.', 'semantic', 0.$_)}) foreach 2, 9, 5;
	is(sql(q{SELECT string_agg(content, ' ') FROM prometheus_recall('ranks', 'snow')}), 'Snow of rank 9. Snow of rank 5. Snow of rank 2.', 'the most important first');
};

scenario 15, 'a task that calls remember leaves a state and a memory' => sub {
	my $task = run([ [ [ remember => { content => 'Whales sing.' } ] ], 'Noted.' ]);
	is(sql("SELECT content FROM prometheus.memory WHERE task_id = $task"), 'Whales sing.', 'the memory');
	is(sql("SELECT value->>'task_id' FROM prometheus.state WHERE agent = 'fake-mind' AND key = 'last_task'"), $task, 'the state');
};

my $whole = run([ [ 'I add.', [ add => { a => 2, b => 3 } ] ], 'Five.' ], mode => 'full');
scenario 16, 'the whole pipeline' => sub {
	is(steps($whole), 'review ok, recall ok, plan ok, chat ok, tool ok, chat ok, reflect ok', 'its steps');
	is(sql("SELECT prometheus_result($whole)"), 'Five.', 'its answer');
};

scenario 17, 'a vetoed task says who and why' => sub {
	sql(q{SELECT prometheus_set_policy('no poison', stage => 'task', effect => 'deny', match => '{"text": "poison"}', reason => 'Poison harms.')});
	my $task = run('Make poison.', status => 'vetoed');
	is(sql("SELECT approved, governor, policy, reasoning LIKE '%Poison harms.%' FROM prometheus.verdict WHERE task_id = $task"), 'f|policy|no poison|t', 'who and why');
	is(sql("SELECT data->>'error_type' FROM prometheus.event WHERE task_id = $task AND type = 'task.failed'"), 'GovernanceVeto', 'the event');
	is(sql("SELECT count(*) FROM prometheus.call WHERE task_id = $task"), 0, 'no model was asked');
};

scenario 18, 'low confidence of SOFIA vetoes, with her counsel' => sub {
	my $task = run('Think about it.', agent => 'fake-counsel-30', mode => 'full', status => 'vetoed');
	is(sql("SELECT approved, governor, reasoning LIKE '%Mind it.%', suggestions::text LIKE '%Do less.%' FROM prometheus.verdict WHERE task_id = $task AND NOT approved"),
		'f|SOFIA|t|t', 'counsel and a suggestion');
};

scenario 19, 'after a task no span is open' => sub {
	is(sql("SELECT count(*) >= 7, count(*) FILTER (WHERE ended_at IS NULL) FROM prometheus.span WHERE trace_id = (SELECT trace_id FROM prometheus.task WHERE task_id = $whole)"), 't|0', 'all have ended');
};

scenario 20, 'a reply with a text and a tool call keeps the text' => sub {
	is(sql("SELECT output::text LIKE '%I add.%' FROM prometheus.step WHERE task_id = $whole AND kind = 'chat' ORDER BY step LIMIT 1"), 't', 'the text');
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $whole AND kind = 'tool' AND status = 'ok'"), 1, 'and the tool was run');
};

scenario 21, 'a tool that would touch the system is refused, with the reason' => sub {
	my $task = make("RETURN length(pg_read_file('/etc/passwd'))", 'failed');
	like(sql("SELECT error FROM prometheus.task WHERE task_id = $task"), qr/forbidden function: pg_read_file/, 'the reason');
	is(sql(q{SELECT count(*) FROM prometheus.tool WHERE task_id IS NOT NULL}), 0, 'there is no tool');
};

scenario 22, 'a tool that would run dynamic code is refused, with the reason' => sub {
	my $task = make("RETURN length(query_to_xml('SELECT 1', true, true, '')::text)", 'failed');
	like(sql("SELECT error FROM prometheus.task WHERE task_id = $task"), qr/forbidden function: query_to_xml/, 'the reason');
	is(sql(q{SELECT count(*) FROM prometheus.tool WHERE task_id IS NOT NULL}), 0, 'there is no tool');
};

scenario 23, 'a safe tool is accepted, and gives 2 + 3 = 5' => sub {
	my $made = make('RETURN a + b', 'waiting');
	sql("SET ROLE carol; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $made");
	$node->wait_task($made, 'completed');
	sql(q{SELECT prometheus_set_agent('fake-mind', tools => '{add, add_numbers, remember, recall, save_state}')});
	my $task = run([ [ [ add_numbers => { a => 2, b => 3 } ] ], 'Five.' ]);
	is(join(' ', $node->told($task, 3)), '5', 'the model was told 5');
	is(sql(q{SELECT calls, succeeded FROM prometheus.tool WHERE name = 'add_numbers'}), '1|1', 'and that was counted');
};

scenario 24, 'arithmetic with a tool' => sub {
	my $task = run([ [ [ add => { a => 17, b => 25 } ] ], 'It is 42.' ]);
	is(sql("SELECT prometheus_result($task)"), 'It is 42.', 'the answer');
	is(join(' ', $node->told($task, 3)), '42', 'the model was told the sum');
};

scenario 25, 'an answer of one line' => sub {
	my $task = run('One line.');
	is(sql("SELECT prometheus_result($task)"), 'One line.', 'as it was given');
	is(steps($task), 'chat ok', 'one step');
};

scenario 26, 'remembered in one task, recalled in a later one' => sub {
	run([ [ [ remember => { content => 'The harbour freezes in March.' } ] ], 'Noted.' ]);
	my $task = run([ [ [ recall => { query => 'harbour' } ] ], 'In March.' ]);
	like(join(' ', $node->told($task, 3)), qr/The harbour freezes in March\./, 'the model was told');
};

scenario 27, 'a full task records a reflection' => sub {
	is(sql("SELECT data->>'score', data->>'critique' FROM prometheus.event WHERE task_id = $whole AND type = 'reflection'"), '0.8000|So so.', 'the event');
	is(sql("SELECT kind, importance FROM prometheus.memory WHERE task_id = $whole"), 'episodic|0.8', 'and a lesson');
};

$llm->stop;
$node->stop;
done_testing();
