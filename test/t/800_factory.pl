# The tool factory: what a model writes becomes a tool when it has stood its
# examples and a person has approved it; nothing else does, and nothing that is
# not allowed is ever run.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;
$node->keep_sessions;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# As boss, who may decide.
sub boss { return sql("SET ROLE boss; $_[0]"); }

# What the model answers to a description: its turns in order, the last of them
# for ever.
sub says
{
	my ($description, @turns) = @_;
	my $json = JSON::PP->new->ascii->encode(\@turns);

	sql("INSERT INTO script VALUES (\$d\$$description\$d\$, \$t\$$json\$t\$)");
	return;
}

my $adding = '[{"input": {"a": 2, "b": 3}, "output": 5}, {"input": {"a": -1, "b": 1}, "output": 0}, {"input": {"a": 10, "b": 5}, "output": 15}]';

# Ask for a tool as maker; its task.
sub ask
{
	my ($description, $examples, $options, $agent) = @_;
	return sql(sprintf
		  q{SET ROLE maker; SELECT prometheus_create_tool($d$%s$d$, '%s', '%s', '%s')},
		$description, $examples // $adding, $agent // 'smith', $options // '{}');
}

# The same, and wait for a status.
sub make
{
	my ($status, @what) = @_;
	my $task = ask(@what);

	$node->wait_task($task, $status);
	return $task;
}

# The same of one that waits to be approved, and is.
sub approved
{
	my $task = make('waiting', @_);

	approve($task);
	$node->wait_task($task, 'completed');
	return $task;
}

sub approve
{
	my ($task) = @_;
	boss("SELECT prometheus_approve(approval_id, 'read') FROM prometheus.approval WHERE task_id = $task AND decision IS NULL");
	return;
}

# Why the functions of a task were not accepted, in order.
sub refusals
{
	return sql("SELECT string_agg(error, E'\\n--\\n' ORDER BY step) FROM prometheus.step WHERE task_id = $_[0] AND kind = 'tool' AND status <> 'ok'");
}

sub error_of_task
{
	return sql("SELECT concat_ws('|', status, error_type, error) FROM prometheus.task WHERE task_id = $_[0]");
}

# The functions that are there.
sub made
{
	return sql(q{SELECT coalesce(string_agg(proname, ' ' ORDER BY proname), '') FROM pg_proc WHERE pronamespace = 'prometheus_tool'::regnamespace});
}

# What the model was asked the last time.
sub asked
{
	my ($task, $step) = @_;
	return decode_json(sql("SELECT prometheus_prompt($task, $step)"))->{messages};
}

# Wait until an executor tries a function.
sub wait_for_trial
{
	$node->wait_for('a trial', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'prometheus executor' AND backend_xid IS NOT NULL}, 1);
	return;
}

# Begin again after the server was killed.
sub crash
{
	$node->stop('immediate');
	$node->start;
	return;
}

sub function
{
	my ($name, $arguments, $returns, $body) = @_;
	return "CREATE FUNCTION $name($arguments) RETURNS $returns LANGUAGE sql IMMUTABLE $body";
}

sub adder { return function($_[0], 'a bigint, b bigint', 'bigint', 'RETURN ' . ($_[1] // 'a + b')); }

$node->init;
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE boss;
CREATE ROLE maker;
CREATE ROLE hand;
GRANT prometheus_agent_admin TO boss, maker;
GRANT hand TO maker;
CREATE TABLE script (description text, turns jsonb);
CREATE TABLE victim (word text);
INSERT INTO victim VALUES ('secret');
CREATE FUNCTION smith(request jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
	turn int;
	said jsonb;
	asked text := request #>> '{messages,-1,content}';
BEGIN
	SELECT count(*) FILTER (WHERE m ->> 'role' = 'assistant') INTO turn FROM jsonb_array_elements(request -> 'messages') m;
	SELECT s.turns -> least(turn, jsonb_array_length(s.turns) - 1) INTO said FROM script s
	 WHERE EXISTS (SELECT FROM jsonb_array_elements(request -> 'messages') m
	                WHERE m ->> 'content' ~ '^Write a function' AND position(s.description IN m ->> 'content') > 0);
	IF asked ~ 'Give three plans' THEN
		said := to_jsonb('{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "write it", "tool": "", "outcome": "a function", "probability": 1, "risks": []}]}]}'::text);
	ELSIF asked ~ 'Look back at it' THEN
		said := to_jsonb('{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "fine", "lessons": [], "correction": ""}'::text);
	END IF;
	RETURN jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('index', 0, 'finish_reason', 'stop',
		'message', jsonb_build_object('role', 'assistant', 'content', said))),
		'usage', jsonb_build_object('prompt_tokens', 10, 'completion_tokens', 5));
END $$;
SELECT prometheus_set_model('smith', 'function', handler => 'smith(jsonb)');
SET ROLE maker;
SELECT prometheus_set_agent('smith', 'smith');
SELECT prometheus_set_agent('handy', 'smith', run_as => 'hand');
SELECT prometheus_set_agent('user', 'scripted', tools => '{}');
RESET ROLE;
EOSQL

# It succeeds at once, but for a person.
says('Adds two numbers.', adder('add_numbers'));
my $task = ask('Adds two numbers.');
$node->wait_task($task, 'waiting');
is(made(), '', 'waits: there is no function');
is(sql(q{SELECT count(*) FROM prometheus.tool WHERE name = 'add_numbers'}), 0, 'waits: there is no tool');
is( boss("SELECT concat_ws('|', tool, arguments ->> 'statement', policy, reasoning) FROM prometheus.approval WHERE task_id = $task"),
	'create_tool|' . adder('add_numbers') . '|justica.creation|Creation: what a model wrote is for a person to read before it becomes a tool.',
	'waits: what is to be decided is the statement');
is( $node->error_of("SET ROLE maker; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task")->{message},
	'nobody may decide about his own task',
	'waits: who asked for it does not decide');
approve($task);
$node->wait_task($task, 'completed');
my $first = $task;
is(made(), "add_numbers_$task", 'approved: there is a function');
is(sql("SELECT prometheus_result($task)"), adder('add_numbers'), 'the result is the statement');
is($node->steps($task), '1 chat smith ok, 2 tool create_tool ok', 'its steps');
is( sql("SELECT output ->> 'content' FROM prometheus.step WHERE task_id = $task AND step = 2"),
	'tool add_numbers, version 1: 3 of 3 examples came out right', 'what came of it');
is( sql(q{SELECT concat_ws('|', kind, tier, idempotent, owner, version, task_id, calls, succeeded, retired, description) FROM prometheus.tool WHERE name = 'add_numbers'}),
	"function|read|t|maker|1|$task|0|0|f|Adds two numbers.", 'the tool');
is( sql("SELECT concat_ws('|', pg_get_userbyid(proowner), provolatile, prosecdef, obj_description(oid, 'pg_proc')) FROM pg_proc WHERE proname = 'add_numbers_$task'"),
	'prometheus_tool_owner|i|f|Adds two numbers.', q{the function is the owner's});
is( sql("SELECT string_agg(grantee::regrole::text, ' ' ORDER BY grantee::regrole::text) FROM pg_proc, aclexplode(proacl) WHERE proname = 'add_numbers_$task' AND grantee <> 0"),
	'prometheus_agent_user prometheus_tool_owner', 'nobody else may call it');
is( sql("SELECT count(*) FROM pg_proc, aclexplode(proacl) WHERE proname = 'add_numbers_$task' AND grantee = 0"),
	0, 'it is not granted to all');

# It is used.
sql(q{SET ROLE maker; SELECT prometheus_set_agent('user', tools => '{add_numbers}')});
my $use = $node->run_script('user', [ [ [ 'add_numbers', { a => 2, b => 3 } ] ], 'done' ]);
is(($node->told($use, 3))[0], '5', 'used: 2 + 3 = 5');
is(sql(q{SELECT concat_ws('|', calls, succeeded) FROM prometheus.tool WHERE name = 'add_numbers'}), '1|1', 'used: that is counted');
$use = $node->run_script('user', [ [ [ 'add_numbers', { a => 'x' } ] ], 'done' ]);
like(($node->told($use, 3))[0], qr/^Error: arguments /, 'used: with arguments that do not fit');
is(sql(q{SELECT concat_ws('|', calls, succeeded) FROM prometheus.tool WHERE name = 'add_numbers'}), '1|1', 'used: which is not its fault');

# It fails twice, is told why, and succeeds.
says('Multiplies.', 'I would rather not.', function('multiply', 'a bigint, b bigint', 'numeric', 'RETURN a + b'),
	"Here it is:\n```sql\n" . function('multiply', 'a bigint, b bigint', 'numeric', "BEGIN ATOMIC\n  SELECT a * b;\nEND") . ";\n```\n");
my $products = '[{"input": {"a": 2, "b": 3}, "output": 6}, {"input": {"a": -1, "b": 1}, "output": -1}, {"input": {"a": 7, "b": 5}, "output": 35.0000000001}]';
$task = approved('Multiplies.', $products, '{"name": "multiply"}');
is( $node->steps($task),
	'1 chat smith ok, 2 tool create_tool error, 3 chat smith ok, 4 tool create_tool error, 5 chat smith ok, 6 tool create_tool ok',
	'third time lucky: its steps');
my @refused = split /\n--\n/, refusals($task);
is($refused[0], 'syntax error at or near "I"', 'third time lucky: the first one is no statement');
is( $refused[1],
	"0 of 2 examples came out right, and 80 % must; of those that you were not shown, 0 of 1, and the same.\n"
	  . 'Of {"a": 2, "b": 3} it made 5, and should have made 6' . "\n"
	  . 'Of {"a": -1, "b": 1} it made 0, and should have made -1',
	'third time lucky: the second one adds');
my $messages = asked($task, 5);
is(scalar @$messages, 5, 'third time lucky: what was asked the third time');
is($messages->[1]{content}, 'I would rather not.', '... has the first answer');
is( $messages->[2]{content},
	"It cannot be the tool. Error: $refused[0]\nAnswer with the whole statement, as it must be.", '... why it was refused');
like($messages->[4]{content}, qr/should have made 6/, '... and why the second was');
unlike(encode_json($messages), qr/35/, '... and nothing of what is held back');

# It never succeeds.
says('Never.', adder('never', 'a - b'));
$task = make('failed', 'Never.');
like(error_of_task($task), qr/^failed\|ToolError\|none of 3 functions can be the tool; the last one: 0 of 2 examples came out right/, 'never: it fails after three');
is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'chat'"), 3, 'never: the model was asked three times');
sql("UPDATE script SET turns = to_jsonb(ARRAY['x', 'x', 'x', \$t\$" . adder('never') . "\$t\$]) WHERE description = 'Never.'");
my $retried = $task;
is(sql("SELECT prometheus_retry($task)"), 't', 'never: it is retried by hand');
$node->wait_task($task, 'waiting');
approve($task);
$node->wait_task($task, 'completed');
is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'chat'"), 4, 'never: ... and has three attempts again');

# One that has what it was shown written into it.
says('Cheats.', adder('cheat', 'CASE WHEN a = 2 THEN 5 WHEN a = -1 THEN 0 ELSE 0 END'));
$task = make('failed', 'Cheats.');
like(refusals($task), qr/^2 of 2 examples came out right, and 80 % must; of those that you were not shown, 0 of 1, and the same: it must do what is asked, and not just what was shown\.$/m,
	'cheats: it is noticed');
unlike(sql("SELECT request FROM prometheus.task WHERE task_id = $task"), qr/gives 15/, 'cheats: the third example was not shown');

# Numbers so great that a float has them all as infinite are not the same, nor
# are whole ones that differ.
says('Overflows.', function('overflows', 'a bigint, b bigint', 'numeric', 'RETURN 1e400'));
$task = make('failed', 'Overflows.');
like(refusals($task), qr/^0 of 2 examples came out right/m, 'a number beyond all floats is not any other one');
says('Overflows twice.', function('overflows2', 'a bigint', 'numeric', 'RETURN 1e400'));
$task = make('failed', 'Overflows twice.', '[{"input": {"a": 2}, "output": 2e400}]');
like(refusals($task), qr/^0 of 1 examples came out right/m, 'nor another one beyond them');
says('Numbers.', function('numbers', 'a bigint', 'bigint', 'RETURN a + 100000000001'));
$task = make('failed', 'Numbers.', '[{"input": {"a": 2}, "output": 100000000002}]');
like(refusals($task), qr/^0 of 1 examples came out right/m, 'nor is a whole number the next one');

# Errors, numbers and documents.
says('Divides.', function('divide', 'a bigint, b bigint', 'numeric', 'RETURN a::numeric / b'));
$task = make('failed', 'Divides.', '[{"input": {"a": 1, "b": 3}, "output": 0.333333333333}, {"input": {"a": 1, "b": 0}, "output": null}]');
like(refusals($task), qr/^1 of 2 examples came out right, and 80 % must\.\nOf \{"a": 1, "b": 0\} it made an error: division by zero, and should have made null$/m, 'an error is no answer');
says('Sorts.', function('sort_it', 'list jsonb', 'jsonb', q{RETURN jsonb_build_object('all', (SELECT jsonb_agg(x ORDER BY x) FROM jsonb_array_elements(list) x), 'n', jsonb_array_length(list))}));
$task = approved('Sorts.', '[{"input": {"list": [3, 1, 2]}, "output": {"n": 3.0, "all": [1, 2, 3]}}, {"input": {"list": []}, "output": {"n": 0, "all": null}}]');
is($node->steps($task), '1 chat smith ok, 2 tool create_tool ok', 'documents are compared by what they say');

# Event triggers fire as for what anybody makes, and what they do in a trial is
# taken back with it; they may refuse it.
sql(<<'EOSQL');
CREATE TABLE watched (who text);
CREATE SEQUENCE fired;
GRANT INSERT ON watched TO prometheus_tool_owner;
GRANT USAGE ON SEQUENCE fired TO prometheus_tool_owner;
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
	PERFORM nextval('public.fired');
	INSERT INTO public.watched VALUES (current_user);
END $$;
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION watch();
EOSQL
says('Is watched.', adder('watched'));
$task = approved('Is watched.');
is(sql(q{SELECT string_agg(who, ' ') FROM watched}), 'prometheus_tool_owner', 'an event trigger sees what is made');
is(sql('SELECT last_value FROM fired'), 3, 'and has seen it tried, before and after it was approved');
sql(q{ALTER TABLE watched ADD CHECK (who <> 'prometheus_tool_owner') NOT VALID});
says('Is refused.', adder('refused'));
$task = make('failed', 'Is refused.');
like(refusals($task), qr/^new row for relation "watched" violates check constraint/, 'it may refuse a function');
sql(q{DROP EVENT TRIGGER watch});

# What takes too long is stopped.
sql(q{SET ROLE maker; SELECT prometheus_set_agent('hasty', 'smith', options => '{"tool_timeout": "1s"}')});
says('Loops.', adder('loops', '(WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n FROM x) SELECT max(n) FROM x)'));
$task = make('failed', 'Loops.', undef, undef, 'hasty');
like(refusals($task), qr/^(its examples did not end within 1000 ms and were stopped|0 of 2 examples)/m, 'a loop is stopped');

# An attacker: nothing of it is ever run, and it is told what is forbidden.
my %attacks = (
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN length(pg_read_file('PG_VERSION'))} =>
	  'forbidden function: pg_read_file',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql SECURITY DEFINER RETURN a + b} =>
	  'forbidden clause: SECURITY DEFINER',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql BEGIN ATOMIC DELETE FROM public.victim; SELECT a + b; END} =>
	  'forbidden statement: DELETE',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN a + b; DROP TABLE victim} =>
	  'there are 2 statements, and one CREATE FUNCTION was asked for',
	q{DROP TABLE victim} => 'forbidden statement: DROP TABLE',
	q{DO $$ BEGIN DELETE FROM victim; END $$} => 'forbidden statement: DO',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN length(query_to_xml('DELETE FROM victim', true, true, '')::text)} =>
	  'forbidden function: query_to_xml',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN (SELECT word FROM public.victim)::bigint} =>
	  'forbidden relation: public.victim',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DELETE FROM victim'; END $$} =>
	  'forbidden language: plpgsql',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN public.prometheus_submit('x')} =>
	  'forbidden function: public.prometheus_submit',
	q{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN a + b, 'x'} => qr/^syntax error/,
	qq{CREATE FUNCTION x(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN } . '(' x 20000 => qr/./,
	q{CREATE FUNCTION query(a bigint, b bigint) RETURNS bigint LANGUAGE sql RETURN a + b} => 'tool "query" is built in');
my $before = made();
my $n = 0;
foreach my $attack (sort keys %attacks)
{
	my $description = 'Attack ' . ++$n . '.';
	my $reason;

	says($description, $attack);
	$task = make('failed', $description);
	($reason) = split /\n--\n/, refusals($task);
	$reason =~ s/\nHint: .*//s;
	if (ref $attacks{$attack}) { like($reason, $attacks{$attack}, "attack: $reason"); }
	else { is($reason, $attacks{$attack}, 'attack: ' . substr($attack, 0, 100)); }
}
is(made(), $before, 'attack: no function was made');
is(sql('SELECT string_agg(word, \' \') FROM victim'), 'secret', 'attack: the victim is whole');
is(sql(q{SELECT count(*) FROM prometheus.approval WHERE task_id IN (SELECT task_id FROM prometheus.task WHERE request ~ 'Attack [0-9]+[.]')}),
	0, 'attack: nobody is even asked');

# What a person rejects is told to the model, and counts.
says('Rejected.', adder('rejected'));
$task = make('waiting', 'Rejected.');
for my $turn (1 .. 3)
{
	$node->wait_for("approval $turn", "SELECT count(*) FROM prometheus.approval WHERE task_id = $task", $turn);
	boss("SELECT prometheus_reject(approval_id, 'not that way') FROM prometheus.approval WHERE task_id = $task AND decision IS NULL");
}
$node->wait_task($task, 'failed');
like(error_of_task($task), qr/^failed\|ToolError\|none of 3 functions can be the tool; the last one: .*rejected by boss: not that way/, 'rejected: three times');

# A policy says that nobody need be asked, or that it must not be.
sql(q{SELECT prometheus_set_policy('justica.creation', effect => 'off')});
says('Unattended.', adder('unattended'));
$task = make('completed', 'Unattended.');
like(made(), qr/\bunattended_$task\b/, 'without that policy it is made at once');
sql(q{SELECT prometheus_set_policy('no_tools', 'tool', 'deny', match => '{"tool": "create_tool"}', reason => 'no tools')});
says('Denied.', adder('denied'));
$task = make('failed', 'Denied.');
like(refusals($task), qr/no tools/, 'a policy that denies it is obeyed');
unlike(made(), qr/denied/, 'and nothing is made');
sql(q{SELECT prometheus_set_policy('no_tools', effect => 'off')});
sql(q{SELECT prometheus_set_policy('no_sevens', 'answer', 'deny', match => '{"text": "7777"}', reason => 'no sevens')});
says('Sevens.', adder('sevens', 'a + b + 0 * 7777'));
$task = make('vetoed', 'Sevens.');
is($node->steps($task), '1 chat smith ok', 'what a policy forbids to answer is not tried');
says('Eights.', adder('eights', 'a + b + 0 * 8888'));
$task = make('completed', 'Eights.');
is( sql("SELECT string_agg(concat_ws(' ', step, stage, effect), ', ' ORDER BY step, stage) FROM prometheus.verdict WHERE task_id = $task"),
	'1 answer allow, 2 tool allow, task allow', 'what it allows is judged as an answer, and as a tool');
sql(q{SELECT prometheus_set_policy('no_sevens', effect => 'off')});

# Models are asked about the answer, and about the call; what one doubts is told.
sql(<<'EOSQL');
CREATE TABLE opinion (confidence numeric);
INSERT INTO opinion VALUES (0.9);
CREATE FUNCTION counsels(request jsonb) RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER AS $$
SELECT jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('index', 0, 'finish_reason', 'stop',
	'message', jsonb_build_object('role', 'assistant', 'content', jsonb_build_object('humility', 1, 'patience', 1, 'service', 1,
	'gentleness', 1, 'prudence', 1, 'courage', 1, 'truthfulness', 1, 'confidence', CASE WHEN request #>> '{messages}' ~ 'create_tool' THEN confidence ELSE 0.9 END,
	'counsel', 'I would not.', 'suggestions', '[]'::jsonb)::text)))) FROM opinion
$$;
SELECT prometheus_set_model('counsels', 'function', handler => 'counsels(jsonb)');
SELECT prometheus_set_policy('of_answers', 'answer', 'deny', reviewer => 'model:counsels', match => '{"agent": "smith"}');
SELECT prometheus_set_policy('of_tools', 'tool', 'deny', reviewer => 'model:counsels', match => '{"agent": "smith"}');
EOSQL
says('Counselled.', adder('counselled'));
$task = make('completed', 'Counselled.');
is( $node->steps($task),
	'1 chat smith ok, 2 tool create_tool ok, 3 review of_answers ok, 4 review of_tools ok',
	'counsel: of the answer, then of the call, and then it is made');
sql(q{UPDATE opinion SET confidence = 0.1});
says('Doubted.', adder('doubted'));
$task = make('failed', 'Doubted.');
like(refusals($task), qr/I would not/, 'counsel: a doubt is told');
unlike(made(), qr/doubted/, 'counsel: and nothing is made');
sql(q{SELECT prometheus_set_policy('of_answers', effect => 'off'), prometheus_set_policy('of_tools', effect => 'off')});

# Of a model on the network.
$node->fake_agent($llm, 'fake-fixed', name => 'far');
sql(sprintf q{SELECT prometheus_set_agent('far', options => '{"max_turns": 2}')});
$task = make('failed', 'Far away.', undef, undef, 'far');
like(refusals($task), qr/^syntax error at or near /, 'network: what is answered is tried');
like(error_of_task($task), qr/^failed\|LimitExceeded\|max_turns/, 'network: limits of the agent hold');

# Of one that answers with the request.
$task = make('failed', 'An echo.', undef, undef, 'default');
like(error_of_task($task), qr/^failed\|ToolError\|none of 3 functions .*syntax error at or near "Write"/, 'echo writes no tool');

# Names, versions, and whose they are.
says('Other name.', adder('add_numbers'));
$task = make('failed', 'Other name.');
like(refusals($task), qr/^there is a tool "add_numbers" already/, 'a name that was not asked for must be new');
says('Adds well.', adder('add_numbers', 'b + a'));
$task = make('completed', 'Adds well.', undef, '{"name": "add_numbers"}');
is(sql(q{SELECT concat_ws('|', version, function) FROM prometheus.tool WHERE name = 'add_numbers'}),
	"2|prometheus_tool.add_numbers_$task(bigint,bigint)", 'one that was asked for is a new version');
is(sql(q{SET ROLE maker; SELECT prometheus_restore_tool('add_numbers', 1)}), 3, 'the first version is restored');
is(sql(q{SELECT function FROM prometheus.tool WHERE name = 'add_numbers'}), "prometheus_tool.add_numbers_$first(bigint,bigint)", '... with its function');
$use = $node->run_script('user', [ [ [ 'add_numbers', { a => 20, b => 3 } ] ], 'done' ]);
is(($node->told($use, 3))[0], '23', '... and is used');
is( $node->error_of(q{SET ROLE boss; SELECT prometheus_create_tool('x', '[{"input": {}, "output": 1}]', options => '{"name": "add_numbers"}')})->{message},
	'permission denied for tool "add_numbers"', q{another one's tool is not made anew});

# The agent gets it, and it runs as that agent's role.
says('Assigned.', adder('assigned'));
$task = make('completed', 'Assigned.', undef, '{"assign": true}', 'handy');
is(sql(q{SELECT array_to_string(tools, ',') FROM prometheus.agent WHERE name = 'handy'}), 'assigned', 'assigned: the agent has it');
is(sql("SELECT has_function_privilege('hand', 'prometheus_tool.assigned_$task(bigint,bigint)', 'EXECUTE') AND has_schema_privilege('hand', 'prometheus_tool', 'USAGE')"),
	't', 'assigned: its role may call it');
sql(q{SET ROLE maker; SELECT prometheus_set_agent('user_as', 'scripted', tools => '{assigned}', run_as => 'hand')});
$use = $node->run_script('user_as', [ [ [ 'assigned', { a => 1, b => 1 } ] ], 'done' ]);
is(($node->told($use, 3))[0], '2', 'assigned: ... and does');

# Relations.
sql(q{CREATE SCHEMA app; CREATE TABLE app.visit (place text, secret text); INSERT INTO app.visit VALUES ('here', 'x'), ('there', 'y'), ('here', 'z');
	GRANT USAGE ON SCHEMA app TO maker, prometheus_tool_owner; GRANT SELECT ON app.visit TO maker});
says('Counts visits.', "CREATE FUNCTION visits(place text) RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM app.visit v WHERE v.place = visits.place)",
	"CREATE FUNCTION visits(place text) RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM app.visit v WHERE v.place = \$1)");
$task = make('completed', 'Counts visits.', '[{"input": {"place": "here"}, "output": 2}, {"input": {"place": "x"}, "output": 0}]', '{"relations": ["app.visit"]}');
like(made(), qr/visits_$task/, 'relations: what was named is read');
sql(q{REVOKE SELECT ON app.visit FROM maker});
says('Counts later.', "CREATE FUNCTION visits2(place text) RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM app.visit v WHERE v.place = \$1)");
is( $node->error_of(q{SET ROLE maker; SELECT prometheus_create_tool('Counts later.', '[{"input": {"place": "here"}, "output": 2}]', 'smith', '{"relations": ["app.visit"]}')})->{message},
	'permission denied for relation "app.visit"', 'relations: only what who asks may read');

# In full mode there is a look back, at the answer.
sql(q{SELECT prometheus_set_policy('sofia', effect => 'off')});
says('In full.', adder('in_full', 'a - b'), adder('in_full'));
$task = make('completed', 'In full.', undef, '{"mode": "full"}');
is( $node->steps($task),
	'1 recall memory ok, 2 plan smith ok, 3 chat smith ok, 4 tool create_tool error, 5 chat smith ok, 6 tool create_tool ok, 7 reflect smith ok',
	'in full mode it is planned, and looked back at');
is( join(' ', map { $_->{role} } @{ asked($task, 7) }),
	'user user user assistant user assistant user', 'in full mode: what the look back is told is the answer, once');

says('Counts no more.', 'x', "CREATE FUNCTION visits3(place text) RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM app.visit v WHERE v.place = \$1)");
sql(q{GRANT SELECT ON app.visit TO maker; SELECT prometheus_pause()});
$task = ask('Counts no more.', '[{"input": {"place": "here"}, "output": 2}]', '{"relations": ["app.visit"]}');
sql(q{REVOKE SELECT ON app.visit FROM maker; SELECT prometheus_resume()});
$node->wait_task($task, 'failed');
like(refusals($task), qr/^permission denied for relation "app.visit"$/m, 'relations: ... at the time when it is tried');

# Who asked may set tools no more.
sql(q{CREATE ROLE former; GRANT prometheus_agent_user, prometheus_agent_admin TO former; SELECT prometheus_pause()});
says('Of a former one.', adder('former'));
$task = sql("SET ROLE former; SELECT prometheus_create_tool('Of a former one.', '$adding', 'smith')");
sql(q{REVOKE prometheus_agent_admin FROM former; SELECT prometheus_resume()});
$node->wait_task($task, 'failed');
like(refusals($task), qr/^permission denied/m, 'who may set tools no more has none made');
unlike(made(), qr/former/, '... nor a function left');

# Cancelled while it waits.
sql(q{SELECT prometheus_set_policy('justica.creation', effect => 'escalate')});
says('Cancelled.', adder('cancelled'));
$task = make('waiting', 'Cancelled.');
sql("SELECT prometheus_cancel($task)");
$node->wait_task($task, 'cancelled');
unlike(made(), qr/cancelled/, 'cancelled: nothing is made');

# Cancelled while its examples run.
sql(q{SET ROLE maker; SELECT prometheus_set_agent('slow', 'smith', options => '{"tool_timeout": "300s"}')});
my $slow = '(SELECT count(*) FROM generate_series(1, 100000000000) x) * 0 + a + b';
says('Slow.', adder('slow', $slow));
$task = ask('Slow.', undef, undef, 'slow');
wait_for_trial();
sql("SELECT prometheus_cancel($task)");
$node->wait_task($task, 'cancelled');
is($node->steps($task), '1 chat smith ok', 'cancelled: the trial has no step');

# The server is killed while its examples run, and while it waits.
$task = ask('Slow.', undef, undef, 'slow');
wait_for_trial();
crash();
is(made() =~ /slow/ ? 1 : 0, 0, 'crash: nothing is left of the trial');
wait_for_trial();
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'prometheus executor' AND backend_xid IS NOT NULL});
wait_for_trial();
is($node->steps($task), '1 chat smith ok', 'crash: nor of one whose process ended; the model is not asked again');
sql("SELECT prometheus_cancel($task)");
$node->wait_task($task, 'cancelled');
says('Twice.', adder('twice'));
$task = make('waiting', 'Twice.');
crash();
$node->wait_task($task, 'waiting');
is(sql("SELECT count(*) FROM prometheus.approval WHERE task_id = $task"), 1, 'crash: what waits is not asked again');
approve($task);
$node->wait_task($task, 'completed');
is($node->steps($task), '1 chat smith ok, 2 tool create_tool ok', 'crash: and it goes on');
like(made(), qr/\btwice_$task\b/, 'crash: and is made');

# A tool that fails too often is retired, until it is restored.
sql(q{SELECT prometheus_set_policy('justica.creation', effect => 'off')});
says('Halves.', function('halves', 'a bigint', 'bigint', 'RETURN 10 / a'));
$task = make('completed', 'Halves.', '[{"input": {"a": 2}, "output": 5}]');
sql(q{SET ROLE maker; SELECT prometheus_set_agent('user', tools => '{halves}', options => '{"max_tool_calls": 100}')});
$use = $node->run_script('user', [ [ (map { [ 'halves', { a => 0 } ] } 1 .. 5), (map { [ 'halves', { a => 1 } ] } 1 .. 4) ], 'done' ]);
is(sql(q{SELECT concat_ws('|', calls, succeeded, retired) FROM prometheus.tool WHERE name = 'halves'}), '9|4|f', 'retired: not by nine calls');
$use = $node->run_script('user', [ [ [ 'halves', { a => 0 } ] ], [ [ 'halves', { a => 1 } ] ], 'done' ]);
is(sql(q{SELECT concat_ws('|', calls, succeeded, retired) FROM prometheus.tool WHERE name = 'halves'}), '10|4|t', 'retired: by the tenth');
is( sql(q{SELECT concat_ws('|', agent, subject, data) FROM prometheus.event WHERE type = 'tool.retired'}),
	'user|tool/halves|{"tool": "halves", "calls": 10, "version": 1, "succeeded": 4}', 'retired: there is an event');
is(sql(q{SET ROLE maker; SELECT count(*) FROM prometheus.event WHERE type = 'tool.retired'}), 1, 'retired: ... which who made it sees');
$node->check_event_fields('tool.retired');
is( ($node->told($use, 5))[1],
	'Error: tool "halves" is retired: of its last 10 calls, 4 succeeded; prometheus_restore_tool() gives it another chance',
	'retired: it is not called, and says so');
is(sql(q{SET ROLE maker; SELECT prometheus_restore_tool('halves')}), 2, 'retired: it is restored');
$use = $node->run_script('user', [ [ [ 'halves', { a => 1 } ] ], 'done' ]);
is(($node->told($use, 3))[0], '10', 'retired: ... and has another chance');
is(sql(q{SELECT concat_ws('|', version, calls, succeeded, retired) FROM prometheus.tool WHERE name = 'halves'}), '2|1|1|f', 'retired: ... which is counted anew');

# All of it is in a dump.
sql(q{SELECT prometheus_set_policy('justica.creation', effect => 'escalate')});
my $tools = sql(q{SELECT string_agg(concat_ws(' ', name, version, function, task_id, calls, succeeded), E'\n' ORDER BY name) FROM prometheus.tool});
my $functions = made();
my $file = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '-f', $file, '-d', $node->connstr('postgres') ], 'pg_dump');
sql('CREATE DATABASE copy');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr('copy') ], 'restore');
is( $node->safe_psql('copy', q{SELECT string_agg(concat_ws(' ', name, version, function, task_id, calls, succeeded), E'\n' ORDER BY name) FROM prometheus.tool}),
	$tools, 'dump: the tools are there');
is( $node->safe_psql('copy', q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'prometheus_tool'::regnamespace}),
	$functions, 'dump: their functions are there');
is( $node->safe_psql('copy', q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'prometheus_tool'::regnamespace AND pg_get_userbyid(proowner) <> 'prometheus_tool_owner'}),
	0, q{dump: and are the owner's});
is( $node->safe_psql('copy', q{SELECT count(*) FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE pronamespace = 'prometheus_tool'::regnamespace AND grantee = 0}),
	0, 'dump: and not granted to all');
is( $node->safe_psql('copy', q{SET ROLE maker; SELECT prometheus_restore_tool('add_numbers', 2)}), 4, 'dump: and are what they were');

is( $node->safe_psql('copy', q{SELECT has_schema_privilege('hand', 'prometheus_tool', 'USAGE')}), 't', 'dump: and the role of an agent may use them');

# The extension goes when the functions may, too.
like($node->error_of('DROP EXTENSION prometheus')->{message}, qr/because other objects depend on it/, 'drop: functions keep it');

$node->check_invariants('invariants', retried => [$retried]);
$node->stop;
done_testing();
