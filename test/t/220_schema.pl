# Answers that must fit a schema: what is sent, and what becomes of those that
# do not.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Submit to the agent, wait for the end, and say how it ended.
sub outcome_of
{
	my ($request, $agent, $schema, $status, $more) = @_;
	$more //= '';
	my $id = sql("SELECT prometheus_submit(E'$request', '$agent', output_schema => '$schema'$more)");

	$node->wait_task($id, $status);
	return ($id, sql("SELECT attempts, coalesce(result, '-'), coalesce(error_type, '-'), coalesce(error, '-') FROM prometheus.task WHERE task_id = $id"));
}

$node->init(databases => [ 'postgres', 'latin', 'ascii' ]);
$node->start;
$node->create_extension;
$node->fake_agent($llm, 'fake-lines', name => 'lines', options => '{"stream": false}');
$node->fake_agent($llm, 'fake-lines', name => 'stream');

my $strict = '{"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"], "additionalProperties": false}';
my $loose = '{"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}';

# What is sent.
my ($id, $end) = outcome_of('{"price": 1.5}', 'lines', $strict, 'completed');
is($end, '1|{"price": 1.5}|-|-', 'an answer that fits');
my $sent = $llm->requests->[-1]{body}{response_format};
is($sent->{type}, 'json_schema', 'the schema is sent');
is($sent->{json_schema}{name}, 'answer', 'with a name');
is_deeply($sent->{json_schema}{schema}, JSON::PP::decode_json($strict), 'as it was given');
is($sent->{json_schema}{strict}, JSON::PP::true, 'one that obeys the rules of strict mode is strict');

($id, $end) = outcome_of('{"price": 2, "more": []}', 'stream', $loose, 'completed');
is($end, '1|{"price": 2, "more": []}|-|-', 'an answer that fits, streamed');
$sent = $llm->requests->[-1]{body}{response_format};
is_deeply($sent->{json_schema}{schema}, JSON::PP::decode_json($loose), 'another schema is sent');
is($sent->{json_schema}{strict}, JSON::PP::false, 'and is not strict');

# Which ones are strict; the title tells them apart.
my $object = '"type": "object", "additionalProperties": false';
my @rules = (
	[ 1, qq({$object}) ],
	[ 1, qq({$object, "properties": {}, "required": []}) ],
	[ 1, qq({$object, "properties": {"a": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "x", "format": "date"}]}, "b": {"type": ["array", "null"], "items": {"type": "string", "enum": ["x"]}}}, "required": ["b", "a"]}) ],
	[ 1, qq({$object, "properties": {"a": {"\$ref": "#/\$defs/a"}, "b": {"type": "array", "items": {"\$ref": "#"}}}, "required": ["a", "b"], "\$defs": {"a": {"type": "integer", "minimum": 1}}}) ],
	[ 0, qq({}) ],
	[ 0, qq({"type": "array", "items": {"type": "string"}}) ],
	[ 0, qq({"type": ["object", "null"], "additionalProperties": false}) ],
	[ 0, qq({$object, "anyOf": [{$object}]}) ],
	[ 0, qq({"type": "object", "additionalProperties": {"type": "string"}}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "string"}}, "required": ["b"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "object"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"description": "no type"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": true}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "array"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "string", "minLength": 1}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "string", "format": "uri"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "string", "default": "x"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"\$ref": "#", "description": "x"}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"not": {"type": "null"}}}, "required": ["a"]}) ],
	[ 0, qq({$object, "properties": {"a": {"type": "integer", "enum": [) . join(', ', 1 .. 1001) . ']}}, "required": ["a"]}' ],
	[ 0, (qq({$object, "required": ["a"], "properties": {"a": ) x 11) . '{"type": "null"}' . ('}}' x 11) ]);
my $before = @{ $llm->requests };
sql(join("\n",
	map { "SELECT prometheus_submit('x', 'lines', max_attempts => 1, output_schema => '$rules[$_][1]'::jsonb || '{\"title\": \"$_\"}');" }
	  0 .. $#rules));
my @formats = map { $_->{body}{response_format}{json_schema} }
  @{ $llm->wait_requests($before + @rules) }[ $before .. $before + $#rules ];
my %is_strict = map { ($_->{schema}{title} => $_->{strict} ? 1 : 0) } @formats;
is($is_strict{$_}, $rules[$_][0], ($rules[$_][0] ? 'strict: ' : 'not strict: ') . substr($rules[$_][1], 0, 150))
  foreach 0 .. $#rules;

sql(q{CALL prometheus_ask('no schema', 'lines')});
ok(!exists $llm->requests->[-1]{body}{response_format}, 'no schema, no response_format');

# Not at once.
my $calls = @{ $llm->requests };
($id, $end) = outcome_of('{"price": "2"}\nsorry: {"price": 2}\n{"price": 3}', 'lines', $strict, 'completed');
is($end, '3|{"price": 3}|-|-', 'the third answer fits');
is(scalar @{ $llm->requests } - $calls, 3, 'three requests');
is(sql("SELECT string_agg(concat_ws('|', attempt, outcome, error_type, error, next_run_at > ended_at), E'\\n' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $id"),
	"1|retry|SchemaMismatch|answer at /price: is a string, must be a number|t\n"
	  . "2|retry|SchemaMismatch|answer is not JSON|t\n3|completed",
	'the first two are failed attempts, tried again after a while');
is(sql("SELECT string_agg(concat_ws('|', step, status, error, output ->> 'content'), E'\\n' ORDER BY step) FROM prometheus.step WHERE task_id = $id"),
	"1|error|answer at /price: is a string, must be a number|{\"price\": \"2\"}\n"
	  . "2|error|answer is not JSON|sorry: {\"price\": 2}\n3|ok|{\"price\": 3}",
	'their steps keep the answers');
is(sql("SELECT count(*) FROM prometheus._step WHERE task_id = $id AND raw IS NOT NULL AND tokens_out > 0"),
	3, 'and what came, and what it cost');

# Never.
($id, $end) = outcome_of('{"price": 2, "more": 1}', 'lines', $strict, 'failed', ', max_attempts => 2');
is($end, '2|-|SchemaMismatch|answer at /more: is not allowed', 'failed when the attempts are used up, without a result');
my (undef, undef, $error) = $node->psql('postgres', "SELECT prometheus_result($id)");
like($error, qr{answer at /more: is not allowed}, 'prometheus_result() says so');
($id, $end) = outcome_of('hello', 'lines', $strict, 'failed', ', max_attempts => 1');
is($end, '1|-|SchemaMismatch|answer is not JSON', 'failed at once if there is only one attempt');

# What an answer may not do is stop the caller.
my $pid = $node->worker_pid('caller');
foreach my $case (
	[ '[1e400000]', 'answer has a number with too many digits' ],
	[ '["\\\\u0000"]', 'answer has a character that jsonb cannot store' ],
	[ '[' x 5000 . ']' x 5000, 'answer is nested too deeply' ],
	[ '[' . join(',', (1) x 400_000) . ']', 'answer has 400000 elements, must have at most 1' ])
{
	my ($answer, $why) = @$case;
	(undef, $end) = outcome_of($answer, 'lines', '{"maxItems": 1}', 'failed', ', max_attempts => 1');
	is($end, "1|-|SchemaMismatch|$why", $why);
}
is($node->worker_pid('caller'), $pid, 'the caller lives on');

# echo, which needs no network.
($id, $end) = outcome_of('{"a": 1}', 'default', '{"required": ["a"]}', 'completed');
is($end, '1|{"a": 1}|-|-', 'echo: an answer that fits');
($id, $end) = outcome_of('{"a": 1}', 'default', '{"required": ["b"]}', 'failed', ', max_attempts => 2');
is($end, '2|-|SchemaMismatch|answer has no "b", which is required', 'echo: one that does not');
is(sql("SELECT string_agg(outcome, ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $id"),
	'retry failed', 'echo: tried again as any other');
# The schema of many holds for each.
my @many = split /\n/, sql(q{SELECT prometheus_submit_many(ARRAY['1', '"x"', '[]'], max_attempts => 1, output_schema => '{"type": ["string", "integer"]}')});
$node->wait_task($many[0], 'completed');
$node->wait_task($many[1], 'completed');
$node->wait_task($many[2], 'failed');

# Answers that take long to check do not take the caller's turn: many at once,
# of echo, that go over several turns, while others of a model end too.
sql(q{CREATE TABLE slow AS SELECT jsonb_build_object('$ref', '#/$defs/1', '$defs', jsonb_object_agg(n,
	CASE WHEN n = 30 THEN '{"type": "null"}' ELSE jsonb_build_object('anyOf', jsonb_build_array(
		jsonb_build_object('$ref', '#/$defs/' || n + 1), jsonb_build_object('$ref', '#/$defs/' || n + 1))) END)) AS schema
	FROM generate_series(1, 30) n});
my @slow = map { split /\n/ } sql(q{SELECT prometheus_submit_many(array_fill('1'::text, ARRAY[30]), max_attempts => 1, output_schema => (SELECT schema FROM slow))
	UNION ALL SELECT prometheus_submit_many(array_fill('1'::text, ARRAY[30]), 'lines', max_attempts => 1, output_schema => (SELECT schema FROM slow))});
my $slow = join(',', @slow);
$node->wait_task($_, 'failed') foreach @slow;
is(sql("SELECT string_agg(DISTINCT error, '') || count(*) FROM prometheus.task WHERE task_id IN ($slow)"),
	'answer takes too long to check60', 'answers that take long to check');
is(sql("SELECT count(*) FROM prometheus._attempt WHERE task_id IN ($slow)"), 60, 'each was begun once');
is(sql("SELECT count(DISTINCT ended_at) > 1 FROM prometheus._outcome WHERE task_id IN ($slow)"),
	't', 'not all in one turn');

# Another encoding.
sql('CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE "C"');
$node->create_extension('latin');
$node->fake_agent($llm, 'fake-lines', name => 'lines', dbname => 'latin');
foreach my $case (
	[ 'default', "chr(233)", 'NULL', 'completed', "\xC3\xA9" ],
	[ 'default', q{'"' || chr(233) || '"'}, q{'{"maxLength": 1}'}, 'completed', qq{"\xC3\xA9"} ],
	[ 'default', q{'"\u00e9"'}, q{jsonb_build_object('const', chr(233))}, 'completed', '"\u00e9"' ],
	[ 'lines', q{'"' || chr(233) || '"'}, q{jsonb_build_object('const', chr(233))}, 'completed', qq{"\xC3\xA9"} ],
	[ 'lines', q{'"\u20ac"'}, q{'{}'}, 'failed', 'answer has a character that jsonb cannot store' ])
{
	my ($agent, $request, $schema, $status, $expected) = @$case;
	$id = $node->submit("$request, '$agent', output_schema => $schema, max_attempts => 1", dbname => 'latin');
	$node->wait_task($id, $status, dbname => 'latin');
	is($node->safe_psql('latin', "SET client_encoding = 'UTF8'; SELECT coalesce(result, error) FROM prometheus.task WHERE task_id = $id"),
		$expected, "LATIN1: $agent answers $request");
}

# SQL_ASCII has no characters, but what is sent and received has: a name in an
# error is cut between two of them, and one that is none at all is shown.
sql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
$node->create_extension('ascii');
$node->fake_agent($llm, 'fake-lines', name => 'lines', dbname => 'ascii');
foreach my $case (
	[ 'default', '\303\251' ],
	[ 'lines', '\303\251' ])
{
	my ($agent, $bytes) = @$case;
	$id = $node->submit("'{\"a' || repeat(E'$bytes', 30) || '\": 1}', '$agent', output_schema => '{\"additionalProperties\": false}', max_attempts => 1", dbname => 'ascii');
	$node->wait_task($id, 'failed', dbname => 'ascii');
	is($node->safe_psql('ascii', "SELECT concat_ws('|', error_type, error) FROM prometheus.task WHERE task_id = $id"),
		"SchemaMismatch|answer at /a" . "\xC3\xA9" x 19 . '...: is not allowed',
		"SQL_ASCII: a long name in the error, $agent");
}
$id = $node->submit(q{'{}', output_schema => ('{"required": ["' || chr(233) || '"]}')::jsonb, max_attempts => 1}, dbname => 'ascii');
$node->wait_task($id, 'failed', dbname => 'ascii');
is($node->safe_psql('ascii', "SELECT concat_ws('|', error_type, error) FROM prometheus.task WHERE task_id = $id"),
	'SchemaMismatch|answer has no "?", which is required',
	'SQL_ASCII: a name that is no UTF-8 in the error');

# A stop in between: the schema is read again.
sql(q{SELECT prometheus_set_model('slow', 'openai', (SELECT endpoint FROM prometheus.model WHERE name = 'lines'), 'fake-hang-before-headers'); SELECT prometheus_set_agent('slow', 'slow')});
$calls = @{ $llm->requests };
$id = sql("SELECT prometheus_submit('{}', 'slow', output_schema => '$strict', max_attempts => 1)");
$llm->wait_requests($calls + 1);
$node->restart;
my $again = $llm->wait_requests($calls + 2)->[-1]{body};
is_deeply($again->{response_format}{json_schema}{schema}, JSON::PP::decode_json($strict), 'after a restart it is sent again');
sql("SELECT prometheus_cancel($id)");
$node->wait_task($id, 'cancelled');

$node->check_invariants('invariants', all_ended => 1);
is($node->log_count(qr/ (ERROR|PANIC): /), 1, 'the one error in the log is that of prometheus_result()');
$node->stop;
$llm->stop;
done_testing();
