# Tools: what a model asks for is called as it asked, in its order, and it is
# told what came of it, over turns; within the limits of its agent.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Submit a script to an agent and wait for the end; the task.
sub run_script
{
	my ($agent, $turns, %params) = @_;
	my $task = $node->submit($node->script(@$turns) . ", '$agent'");

	$node->wait_task($task, $params{status} // 'completed');
	return $task;
}

# The messages that a step sent to the model.
sub messages_of
{
	my ($task, $step) = @_;
	my $prompt = sql("SELECT prometheus_prompt($task, $step)");
	return @{ decode_json($prompt)->{messages} };
}

# What the model was told of its calls before a step: [id, content].
sub told
{
	my ($task, $step) = @_;
	return map { [ $_->{tool_call_id}, $_->{content} ] }
	  grep { $_->{role} eq 'tool' } messages_of($task, $step);
}

sub steps
{
	return sql("SELECT string_agg(concat_ws(' ', step, kind, name, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $_[0]"
	);
}

# The type of a task's error, and what it begins with up to a colon.
sub error_of_task
{
	return sql("SELECT concat_ws(' ', error_type, substring(error from '^max_[a-z_]+(?=: )')) FROM prometheus.task WHERE task_id = $_[0]"
	);
}

sub count_notes { return sql(q{SELECT count(*) FROM note}); }

$node->init;
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY, words text);
CREATE TYPE mood AS ENUM ('sad', 'so "so"');
CREATE TYPE place AS (x int, y numeric);
CREATE TYPE area AS (name text, at place);
CREATE DOMAIN digit AS int CHECK (VALUE BETWEEN 0 AND 9);
CREATE FUNCTION add(a int, b int DEFAULT 3) RETURNS int LANGUAGE sql AS 'SELECT a + b';
CREATE FUNCTION big(n bigint) RETURNS bigint LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION exact(n numeric) RETURNS numeric LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION words(w text[]) RETURNS text LANGUAGE sql AS $$SELECT array_to_string(w, '|', 'NULL')$$;
CREATE FUNCTION total(VARIADIC n int[]) RETURNS bigint LANGUAGE sql AS 'SELECT sum(x) FROM unnest(n) x';
CREATE FUNCTION feel(m mood) RETURNS mood LANGUAGE sql AS 'SELECT m';
CREATE FUNCTION where_is(a area) RETURNS place LANGUAGE sql AS 'SELECT (a.at).x + 1, (a.at).y';
CREATE FUNCTION half(d digit) RETURNS numeric LANGUAGE sql AS 'SELECT d / 2.0';
CREATE FUNCTION count_to(n int) RETURNS SETOF int LANGUAGE sql AS 'SELECT generate_series(1, n)';
CREATE FUNCTION people(n int) RETURNS TABLE (id int, name text) LANGUAGE sql AS $$SELECT i, 'p' || i FROM generate_series(1, n) i$$;
CREATE FUNCTION two(OUT a int, OUT b text) LANGUAGE sql AS $$SELECT 1, 'x'$$;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION unknown() RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION say(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION same(j jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT j';
CREATE FUNCTION later(d date, after interval DEFAULT interval '1 day') RETURNS date LANGUAGE sql AS 'SELECT (d + after)::date';
CREATE FUNCTION "a b"("select" text, int) RETURNS text LANGUAGE sql AS 'SELECT $1 || $2';
CREATE FUNCTION much(n int) RETURNS text LANGUAGE sql AS $$SELECT repeat('ü', n)$$;
CREATE FUNCTION write(words text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO note (words) VALUES (words) RETURNING id';
SELECT prometheus_set_tool(f::regprocedure) FROM unnest(ARRAY['add(int, int)', 'big(bigint)',
	'exact(numeric)', 'words(text[])', 'total(int[])', 'feel(mood)', 'where_is(area)', 'half(digit)',
	'count_to(int)', 'people(int)', 'two()', 'nothing()', 'unknown()', 'say(text)', 'same(jsonb)', 'later(date, interval)',
	'much(int)']) f;
SELECT prometheus_set_tool('"a b"(text, int)', 'a-b');
SELECT prometheus_set_tool('write(text)', tier => 'write');
EOSQL
my $tools = sql(q{SELECT array_agg(name ORDER BY name) FROM prometheus.tool});
sql("SELECT prometheus_set_agent('a', 'scripted', tools => '$tools')");

# A call, and what the model is told; a pattern: it is an error.
my @calls = (
	[ 'add', '{"a": 2, "b": 5}', '7' ],
	[ 'add', '{"a": 2}', '5' ],
	[ 'add', '{"a": 2, "b": null}', '5' ],
	[ 'add', { a => -4 }, '-1' ],
	[ 'big', '{"n": 9223372036854775807}', '9223372036854775807' ],
	[ 'big', '{"n": -9007199254740993}', '-9007199254740993' ],
	[ 'exact', '{"n": 0.1}', '0.1' ],
	[ 'exact', '{"n": 12345678901234567890.123456789012345678}', '12345678901234567890.123456789012345678' ],
	[ 'exact', '{"n": 1.500}', '1.500' ],
	[ 'words', '{"w": ["a", "b c", null, "\"d\"", "{}"]}', 'a|b c|NULL|"d"|{}' ],
	[ 'words', '{"w": []}', '' ],
	[ 'total', '{"n": [1, 2, 39]}', '42' ],
	[ 'feel', '{"m": "so \"so\""}', 'so "so"' ],
	[ 'where_is', '{"a": {"name": "home", "at": {"x": 1, "y": 2.50}}}', '{"x": 2, "y": 2.50}' ],
	[ 'where_is', '{"a": {"at": {}}}', '{"x": null, "y": null}' ],
	[ 'half', '{"d": 9}', '4.5000000000000000' ],
	[ 'count_to', '{"n": 3}', '[1,2,3]' ],
	[ 'count_to', '{"n": 0}', '[]' ],
	[ 'count_to', '{"n": 120}', '[' . join(',', 1 .. 120) . ']' ],
	[ 'people', '{"n": 2}', '[{"id": 1, "name": "p1"},{"id": 2, "name": "p2"}]' ],
	[ 'two', '{}', '{"a": 1, "b": "x"}' ],
	[ 'nothing', '{}', 'null' ],
	[ 'nothing', '', 'null' ],
	[ 'unknown', " \n", 'null' ],
	[ 'say', '{"t": "a \"b\" \\\\ \u00fc"}', 'a "b" \ ' . "\x{fc}" ],
	[ 'say', '{"t": ""}', '' ],
	[ 'same', '{"j": "text"}', 'text' ],
	[ 'same', '{"j": [1, {"a": null}]}', '[1, {"a": null}]' ],
	[ 'same', '{"j": 1.0}', '1.0' ],
	[ 'later', '{"d": "2024-02-28"}', '2024-02-29' ],
	[ 'later', '{"d": "2024-02-28", "after": "2 days"}', '2024-03-01' ],
	[ 'a-b', '{"select": "x", "arg2": 7}', 'x7' ],
	[ 'write', '{"words": "kept"}', '1' ],

	# What goes wrong is told, and is no end.
	[ 'no_tool', '{}', qr/^Error: there is no tool "no_tool"; the tools are a-b, add, / ],
	[ '', '{}', qr/^Error: there is no tool "";/ ],
	[ 'add', '{"a": ', qr/^Error: arguments / ],
	[ 'add', 'two and two', qr/^Error: arguments / ],
	[ 'add', '[2]', qr/^Error: arguments / ],
	[ 'add', '{}', qr/^Error: arguments .*"?a"?/ ],
	[ 'add', '', qr/^Error: arguments .*"?a"?/ ],
	[ 'add', '{"a": null}', qr/^Error: arguments / ],
	[ 'add', '{"a": "2"}', qr/^Error: arguments / ],
	[ 'add', '{"a": 2.5}', qr/^Error: arguments / ],
	[ 'add', '{"a": 2147483648}', qr/^Error: arguments / ],
	[ 'add', '{"a": 2, "c": 1}', qr/^Error: arguments .*c/ ],
	[ 'add', '{"a": 2147483647, "b": 1}', qr/^Error: integer out of range/ ],
	[ 'words', '{"w": "a"}', qr/^Error: arguments / ],
	[ 'feel', '{"m": "glad"}', qr/^Error: arguments / ],
	[ 'where_is', '{"a": {"at": {"z": 1}}}', qr/^Error: arguments / ],
	[ 'half', '{"d": 10}', qr/^Error: value for domain digit violates/ ],
	[ 'later', '{"d": "tomorrow or so"}', qr/./ ],
	[ 'say', '{"t": "a\u0000b"}', qr/./ ],
	[ 'people', '{"n": "x"}', qr/^Error: arguments / ]);
my $ncalls = scalar @calls;

# All in one turn, with a text beside them.
my $json = JSON::PP->new->ascii;
my $task = run_script('a', [ [ 'Let me see.', map { [ @$_[ 0, 1 ] ] } @calls ], 'done' ]);
my $last = $ncalls + 2;
my @told = told($task, $last);
my @status = split /\n/,
  sql("SELECT name || ' ' || status FROM prometheus.step WHERE task_id = $task AND kind = 'tool' ORDER BY step");
is(scalar @told, $ncalls, 'every call has its result in the next prompt');
foreach my $i (0 .. $ncalls - 1)
{
	my ($tool, $arguments, $expected) = @{ $calls[$i] };
	my $name = sprintf '%s(%s)', $tool,
	  ref $arguments ? $json->encode($arguments) : $arguments;
	my $ok = ref $expected eq 'Regexp' ? 'error' : 'ok';

	is($told[$i][0], 'call_1_' . ($i + 1), "$name: in its place");
	if ($ok eq 'error') { like($told[$i][1], $expected, "$name: is refused"); }
	else { is($told[$i][1], $expected, "$name: what the model is told"); }
	is($status[$i], "$tool $ok", "$name: $ok");
}
is( sql("SELECT output ->> 'content' FROM prometheus.step WHERE task_id = $task AND step = 1"
	),
	'Let me see.',
	'the text beside the calls is kept');
my ($assistant) = grep { $_->{role} eq 'assistant' } messages_of($task, $last);
is($assistant->{content}, 'Let me see.', 'and is in the next prompt');
is(sql("SELECT prometheus_result($task)"), 'done', 'the answer');
is(sql('SELECT string_agg(words, $$,$$) FROM note'), 'kept', 'the effect is there once');
is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $task"), 1, 'one attempt');
is( sql("SELECT input -> 'arguments' FROM prometheus.step WHERE task_id = $task AND name = 'big' ORDER BY step LIMIT 1"
	),
	'{"n": 9223372036854775807}',
	'arguments are shown as they came');
is( sql("SELECT tokens_in, tokens_out FROM prometheus.task WHERE task_id = $task"),
	'20|10', 'tokens of both turns');
$node->check_invariants('one turn of many calls', all_ended => 1);

# Over turns: the n-th sees the results of all before it.
$task = run_script('a',
	[ [ [ 'add', { a => 1 } ] ], [ [ 'say', { t => 'x' } ], [ 'add', { a => 2 } ] ], [ [ 'nope', {} ] ], 'end' ]);
is( steps($task),
	'1 chat scripted ok, 2 tool add ok, 3 chat scripted ok, 4 tool say ok, 5 tool add ok, '
	  . '6 chat scripted ok, 7 tool nope error, 8 chat scripted ok',
	'turns: the steps');
is_deeply(
	[ map { [ $_->{role}, $_->{content} ] } (messages_of($task, 8))[ 1 .. 7 ] ],
	[   [ 'assistant', undef ], [ 'tool', '4' ], [ 'assistant', undef ],
		[ 'tool', 'x' ], [ 'tool', '5' ], [ 'assistant', undef ],
		[ 'tool', (told($task, 8))[3][1] ] ],
	'turns: all of them in the last prompt');
is(scalar messages_of($task, 3), 3, 'turns: the second prompt has the first only');

# Long results are cut, at a character; those of sets too.
sql(q{SELECT prometheus_set_agent('short', 'scripted', tools => '{much,count_to,say}', options => '{"max_result": "1kB"}')});
$task = run_script('short',
	[ [ [ 'much', { n => 512 } ], [ 'much', { n => 513 } ], [ 'say', { t => 'x' . "\x{fc}" x 600 } ], [ 'count_to', { n => 100000 } ] ], 'end' ]);
@told = map { $_->[1] } told($task, 6);
my $cut = qr/\n\[cut: the first \d+ bytes; ask for less\]\z/;
is($told[0], "\x{fc}" x 512, 'cut: what just fits is whole');
like($told[1], qr/^\x{fc}{512}$cut/, 'cut: what is longer is not');
like($told[2], qr/^x\x{fc}{511}$cut/, 'cut: not within a character');
like($told[3], qr/^\[1,2,3,.{1,1020}$cut/, 'cut: a set');

# What providers do with ids and arguments.
my $call = sub {
	my ($id, $name, $arguments) = @_;
	return { defined $id ? (id => $id) : (), type => 'function',
		function => { name => $name, defined $arguments ? (arguments => $arguments) : () } };
};
$task = run_script(
	'a',
	[   {   content => 'odd',
			tool_calls => [
				$call->(undef, 'say', '{"t": "a"}'),
				$call->('x', 'say', '{"t": "b"}'),
				$call->('x', 'say', '{"t": "c"}'),
				$call->('', 'say', { t => 'd' }),
				$call->('y', 'nothing', undef),
				$call->('z', 'nothing', '') ] },
		'end' ]);
@told = told($task, 8);
is_deeply([ map { $_->[1] } @told ], [qw(a b c d null null)], 'odd: the results');
my %ids = map { ($_->[0] => 1) } @told;
is(scalar keys %ids, 6, 'odd: every call has an id of its own');
($assistant) = grep { $_->{role} eq 'assistant' } messages_of($task, 8);
is_deeply([ map { $_->{id} } @{ $assistant->{tool_calls} } ],
	[ map { $_->[0] } @told ],
	'odd: the model is told of the same ids');
is_deeply(
	[ map { decode_json($_->{function}{arguments}) } @{ $assistant->{tool_calls} } ],
	[ { t => 'a' }, { t => 'b' }, { t => 'c' }, { t => 'd' }, {}, {} ],
	'odd: and of arguments that are strings of JSON');

# A tool of someone else's name is not the agent's.
sql(q{SELECT prometheus_set_agent('few', 'scripted', tools => '{say}'); SELECT prometheus_set_agent('none', 'scripted')});
$task = run_script('few', [ [ [ 'add', { a => 1 } ], [ 'say', { t => 'x' } ] ], 'end' ]);
is( steps($task),
	'1 chat scripted ok, 2 tool add error, 3 tool say ok, 4 chat scripted ok',
	'a tool that the agent does not have is none');
$task = run_script('none', [ [ [ 'say', { t => 'x' } ] ], 'end' ], status => 'failed');
is(error_of_task($task), 'ModelUnreadable',
	'an agent without tools: a reply that calls one cannot be used');

# Over HTTP, streamed and not: ten turns.
foreach my $stream (qw(false true))
{
	my $name = "http $stream";
	sql(sprintf q{SELECT prometheus_set_model('%1$s', 'openai', '%2$s', 'fake-tools', options => '{"stream": %3$s}');
		SELECT prometheus_set_agent('%1$s', '%1$s', 'Use tools.', tools => '%4$s')},
		$name, $llm->url('/v1'), $stream, $tools);
	my $seen = @{ $llm->requests };
	my @turns = map {
		[ "Turn $_.", [ 'add', { a => $_, b => 0 } ], [ 'exact', qq({"n": $_.10}) ], [ 'no_tool', {} ] ]
	} 1 .. 9;

	$task = run_script($name, [ @turns, 'the end' ]);
	is(sql("SELECT prometheus_result($task)"), 'the end', "$name: the answer");
	my @bodies = map { $_->{body} } @{ $llm->requests }[ $seen .. $#{ $llm->requests } ];
	is(scalar @bodies, 10, "$name: ten requests");
	foreach my $turn (1 .. 10)
	{
		is_deeply(
			decode_json(sql('SELECT prometheus_prompt(' . $task . ', ' . (4 * $turn - 3) . ')'))->{messages},
			$bodies[ $turn - 1 ]{messages},
			"$name, turn $turn: prometheus_prompt() shows what was sent");
	}
	my $body = $bodies[-1];
	is_deeply(
		[ map { $_->{content} } grep { $_->{role} eq 'tool' && $_->{tool_call_id} =~ /_[12]$/ } @{ $body->{messages} } ],
		[ map { ($_, "$_.10") } 1 .. 9 ],
		"$name: the results, exactly");
	is_deeply(
		[ map { $_->{content} } grep { $_->{role} eq 'assistant' } @{ $body->{messages} } ],
		[ map { "Turn $_." } 1 .. 9 ],
		"$name: what the model said beside its calls");
	my ($add) = grep { $_->{function}{name} eq 'add' } @{ $body->{tools} };
	is_deeply([ sort keys %{ $add->{function}{parameters}{properties} } ],
		[qw(a b)], "$name: the tools are offered");
	is(sql("SELECT count(*) FROM prometheus.call WHERE task_id = $task AND status = 'done'"),
		10, "$name: ten calls");
	is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $task"), 1, "$name: one attempt");
}

# Limits: the option, the turns that go beyond it, and those that do not.
sql(q{SELECT prometheus_set_model('dear', 'function', handler => 'scripted(jsonb)', options => '{"price_in": 1000000}')});
sql(q{CREATE FUNCTION rest() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1.01)'; SELECT prometheus_set_tool('rest()')});
my $note = [ 'write', { words => 'x' } ];
my @limits = (
	[ 'max_turns', 2, [ [$note] ], [ [$note], 'end' ] ],
	[ 'max_tool_calls', 3, [ [ $note, $note ] ], [ [ $note, $note ], [$note], 'end' ] ],
	[ 'max_tool_calls', 1, [ [ [ 'say', {} ], [ 'nope', {} ] ] ], [ [ [ 'say', {} ] ], 'end' ] ],
	[ 'max_results', 256, [ [ [ 'much', { n => 64 } ], [ 'say', { t => ('x' x 129) } ] ], 'end' ],
		[ [ [ 'much', { n => 64 } ], [ 'say', { t => ('x' x 128) } ] ], 'end' ] ],
	[ 'max_tokens', 30, [ [$note] ], [ [$note], 'end' ] ],
	[ 'max_cost', 19.9, [ [$note] ], [ [$note], 'end' ] ],
	[ 'max_duration', '1s', [ [ [ 'rest', {} ] ], 'end' ], [ [$note], 'end' ] ]);
foreach my $limit (@limits)
{
	my ($option, $value, $too_much, $enough) = @$limit;
	my $options = $json->encode({ $option => $value });

	sql("SELECT prometheus_set_agent('$option', 'dear', tools => '{write,say,much,rest}', options => '$options')");
	$task = run_script($option, $enough);
	is(sql("SELECT prometheus_result($task)"), 'end', "$option $value: enough");
	$task = run_script($option, $too_much, status => 'failed');
	is(error_of_task($task), "LimitExceeded $option", "$option $value: too much");
	is($node->error_of("SELECT prometheus_result($task)")->{state},
		'PM001', "$option $value: the result raises");
}

# What a limit stopped goes on after its last good step; calls of a turn that
# was refused are made then, and those of before are not made again.
sql('TRUNCATE note');
sql(q{SELECT prometheus_set_agent('tight', 'scripted', tools => '{write}', options => '{"max_tool_calls": 3}')});
$task = run_script('tight', [ [ $note, $note ], [ $note, $note ], 'end' ], status => 'failed');
is(count_notes(), 2, 'limit: the first turn has its effects, the second none');
is(sql("SELECT prometheus_retry($task)"), 't', 'limit: retried by hand');
$node->wait_task($task, 'completed');
is(count_notes(), 4, 'limit: the calls that were left are made');
$task = run_script('tight', [ [ $note, $note, $note, $note ], 'end' ], status => 'failed');
is(sql("SELECT prometheus_retry($task)"), 't', 'limit: retried with the same limit');
$node->wait_task($task, 'failed');
$node->wait_for('it has failed twice',
	"SELECT count(*) FROM prometheus.attempt WHERE task_id = $task AND outcome = 'failed'", '2');
is(count_notes(), 4, 'limit: nothing is called');
sql(q{SELECT prometheus_set_agent('tight', options => '{"max_tool_calls": 4}')});
is(sql("SELECT prometheus_retry($task)"), 't', 'limit: retried with a higher one');
$node->wait_task($task, 'completed');
is(count_notes(), 8, 'limit: now they are made');
is( steps($task),
	'1 chat scripted ok, 2 tool write ok, 3 tool write ok, 4 tool write ok, 5 tool write ok, 6 chat scripted ok',
	'limit: the steps');
my @retried = sql('SELECT string_agg(DISTINCT task_id::text, $$,$$) FROM prometheus._retry');

# Models that are functions and fail.
sql(<<'EOSQL');
CREATE SEQUENCE tries;
CREATE FUNCTION flaky(r jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO note (words) VALUES ('tried');
	IF nextval('tries') < 3 THEN
		RAISE EXCEPTION 'not now' USING HINT = 'Later.';
	END IF;
	RETURN '{"choices": [{"finish_reason": "stop", "message": {"content": "at last"}}]}';
END $$;
CREATE FUNCTION silent(r jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION nonsense(r jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '{"choices": "none"}'::jsonb$$;
CREATE FUNCTION bare(r jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '"text"'::jsonb$$;
CREATE FUNCTION refuses(r jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '{"error": {"message": "no", "type": "server_error"}}'::jsonb$$;
CREATE FUNCTION slow(r jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '1'::jsonb FROM pg_sleep(600)$$;
CREATE FUNCTION stubborn(r jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(600);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION gone(r jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT r';
SELECT prometheus_set_model(f, 'function', handler => (f || '(jsonb)')::regprocedure),
       prometheus_set_agent(f, f)
  FROM unnest(ARRAY['flaky', 'silent', 'nonsense', 'bare', 'refuses', 'gone', 'slow', 'stubborn']) f;
SELECT prometheus_set_model(f, options => '{"total_timeout": "100ms"}') FROM unnest(ARRAY['slow', 'stubborn']) f;
DROP FUNCTION gone(jsonb);
EOSQL
$task = $node->submit(q{'x', 'flaky'});
$node->wait_task($task, 'completed');
is(sql("SELECT prometheus_result($task)"), 'at last', 'a function that fails is asked again');
is( sql("SELECT string_agg(concat_ws(' ', status, error), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"
	),
	q{error the model's function failed: not now
Hint: Later., error the model's function failed: not now
Hint: Later., ok}, 'each time is a step');
is(sql(q{SELECT count(*) FROM note WHERE words = 'tried'}), 1, 'what it did and failed is undone');
my %failures = (
	silent => 'ModelUnreadable',
	nonsense => 'ModelUnreadable',
	bare => 'ModelUnreadable',
	refuses => 'ModelUnavailable',
	gone => 'ConfigurationError',
	slow => 'ModelTimeout',
	stubborn => 'ModelUnavailable');
my %failed = map { ($_ => $node->submit("'x', '$_', max_attempts => 1")) } sort keys %failures;
foreach my $name (sort keys %failures)
{
	$node->wait_task($failed{$name}, 'failed');
	is(error_of_task($failed{$name}), $failures{$name}, "a function that is $name");
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $failed{$name} AND status = 'error'"),
		1, "$name: its step");
}

# A tool is what it was when it was set.
sub told_of
{
	my ($tool, $arguments) = @_;
	my $made = run_script('a', [ [ [ $tool, $arguments ] ], 'end' ]);
	return (told($made, 3))[0][1];
}
my $changed = 'Error: the function of tool "say" was changed since it was set as one';
my $body = q{LANGUAGE sql AS 'SELECT upper(t)'};
foreach my $change (
	"CREATE OR REPLACE FUNCTION say(t text) RETURNS text $body",
	'ALTER FUNCTION say(text) SECURITY DEFINER',
	'ALTER FUNCTION say(text) SET search_path = public',
	q{CREATE OR REPLACE FUNCTION say(t text DEFAULT 'y') RETURNS text SECURITY DEFINER SET search_path = public } . $body)
{
	sql($change);
	is(told_of('say', { t => 'x' }), $changed, "$change: refused");
	sql(q{SELECT prometheus_set_tool('say(text)')});
	is(told_of('say', { t => 'x' }), 'X', "$change: until it is set again");
}
sql(q{COMMENT ON FUNCTION say(text) IS 'says'; ALTER FUNCTION say(text) COST 7});
is(told_of('say', { t => 'x' }), 'X', 'other properties do not count');
sql('DROP FUNCTION say(text)');
is(told_of('say', { t => 'x' }),
	'Error: the function of tool "say" was dropped since it was set as one',
	'one that was dropped');
sql("CREATE FUNCTION say(t text, u text DEFAULT '') RETURNS text LANGUAGE sql AS 'SELECT t'");
is(told_of('say', { t => 'x' }),
	'Error: the function of tool "say" was dropped since it was set as one',
	'one of the same name is another');
sql("DROP FUNCTION say(text, text); CREATE FUNCTION say(t text DEFAULT 'y') RETURNS text SECURITY DEFINER SET search_path = public $body");
is(told_of('say', { t => 'x' }), 'X', 'the same again is the same');

# A task keeps the versions that it began with, by what it has called as well.
sql(<<"EOSQL");
CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	CREATE OR REPLACE FUNCTION say(t text DEFAULT 'y') RETURNS text SECURITY DEFINER SET search_path = public LANGUAGE sql AS 'SELECT reverse(t)';
	PERFORM prometheus_set_tool('say(text)');
END \$\$;
SELECT prometheus_set_tool('change()', tier => 'write');
SELECT prometheus_set_policy('justica.integrity', effect => 'off');
SELECT prometheus_set_agent('a', tools => '{say,change}');
EOSQL
$task = run_script('a', [ [ [ 'change', {} ] ], [ [ 'say', { t => 'ab' } ] ], 'end' ]);
is((told($task, 5))[1][1], $changed, 'set again meanwhile: not what the task was offered');
is(told_of('say', { t => 'ab' }), 'ba', 'set again: for new tasks');
is(sql(q{SELECT pronamespace::regnamespace FROM pg_proc WHERE proname = 'say'}),
	'public', 'what a tool makes is in the schema of its search_path');

$node->check_invariants('after tools', all_ended => 1, retried => \@retried);
$node->stop;
$llm->stop;
done_testing();
