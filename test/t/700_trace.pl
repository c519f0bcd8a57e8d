# Traces: what is sent says which span it belongs to, whoever is asked; what the
# spans of a task are, from its request to the webhook that hears of its end.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP;
use PromCluster;
use Test::More;

my $node = PromCluster->new('trace');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The traceparents that came with requests for a path.
sub traceparents
{
	my ($path) = @_;
	return map { $_->{headers}{traceparent} } grep { $_->{path} =~ m{^\Q$path\E} } @{ $llm->requests };
}

$node->init(conf => "prometheus.trace_sample_ratio = 1\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
my $url = $llm->url('/v1');
sql(qq{SELECT prometheus_set_model('tools', 'openai', '$url', 'fake-tools', options => '{"temperature": 0.5}')});
sql(sprintf q{SELECT prometheus_set_http_tool('get', 'GET', '%s/{id}', '{"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}')},
	$llm->url('/tool/echo'));
sql(<<'EOSQL');
CREATE FUNCTION say(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
SELECT prometheus_set_tool('say(text)');
SELECT prometheus_set_agent('a', 'tools', tools => '{get,say,delegate}');
CREATE FUNCTION hear(event prometheus.event) RETURNS void LANGUAGE sql AS '';
SELECT prometheus_subscribe('heard', handler => 'hear(prometheus.event)', types => '{task.completed}');
EOSQL
sql(sprintf q{SELECT prometheus_subscribe('hooked', url => '%s', types => '{task.completed,step.executed}')}, $llm->url('/hook/ok'));

# A trace of its own.

my $task = $node->run_script('a', [ [ [ get => { id => 'x' } ], [ say => { t => 'y' } ] ], 'done' ]);
my $trace = sql("SELECT trace_id FROM prometheus.task WHERE task_id = $task");
my @calls = split /\n/, sql("SELECT lpad(to_hex(call_id), 16, '0') FROM prometheus.call WHERE task_id = $task AND kind = 'chat' ORDER BY sent_at");
is_deeply([ traceparents('/v1') ], [ map { "00-$trace-$_-03" } @calls ], 'a model is told the span of its call');
is_deeply([ traceparents('/tool') ], [ sql("SELECT '00-$trace-' || lpad(to_hex(call_id), 16, '0') || '-03' FROM prometheus.call WHERE task_id = $task AND kind = 'tool'") ],
	'an endpoint that is a tool is, too');
$node->wait_for('the webhooks', "SELECT count(*) FROM prometheus.delivery WHERE task_id = $task AND status = 'delivered'", '6');
is_deeply([ sort(traceparents('/hook')) ],
	[ split /\n/, sql("SELECT '00-$trace-' || lpad(to_hex(delivery_id), 16, '0') || '-03' FROM prometheus.delivery WHERE task_id = $task AND subscription = 'hooked' ORDER BY 1") ],
	'and a webhook of its delivery');
is(sql("SELECT count(*) FROM prometheus.span WHERE trace_id = '$trace' AND span_id = ANY ('{" . join(',', map { substr $_, 36, 16 } traceparents('/')) . "}')"),
	scalar @{ $llm->requests }, 'all these spans are there');

is(sql("SELECT string_agg(DISTINCT concat_ws(' ', name, kind, status), ', ') FROM prometheus.span WHERE trace_id = '$trace'"),
	join(', ', 'GET client ok', 'POST client ok', 'chat fake-tools client ok', 'execute_tool get client ok', 'execute_tool say internal ok',
		'invoke_agent a internal ok', 'process heard consumer ok', 'review task internal ok', 'review tool internal ok', 'send hooked client ok'),
	'what the spans of a task are');
is(sql("SELECT count(*) FROM prometheus.span s WHERE trace_id = '$trace' AND NOT EXISTS (SELECT FROM prometheus.span p WHERE p.span_id = s.parent_span_id)"), '1',
	'each but the first has its parent among them');
is(sql("SELECT count(*) || ' ' || count(DISTINCT span_id) FROM prometheus.span WHERE trace_id = '$trace'"), '17 17', 'no id is there twice');
is(sql("SELECT count(*) FROM prometheus.span s JOIN prometheus.span p ON p.span_id = s.parent_span_id
         WHERE s.trace_id = '$trace' AND s.name !~ '^(process|send)' AND (s.started_at < p.started_at OR s.ended_at > p.ended_at OR s.ended_at < s.started_at)"), '0',
	'each is within the time of its parent');
is(sql("SELECT string_agg(DISTINCT attributes ->> 'gen_ai.request.temperature', ',') FROM prometheus.span WHERE trace_id = '$trace'"), '0.5', 'the temperature');
is(sql("SELECT count(*) FROM prometheus.span WHERE trace_id = '$trace' AND ended_at IS NULL"), '0', 'after a task no span is open');

# A part of another's.

my $foreign = '0af7651916cd43dd8448eb211c80319c';
foreach my $flags (qw(00 01 03))
{
	my $parent = "00-$foreign-b7ad6b7169203331-$flags";
	my $other = $node->submit($node->script("flags $flags") . ", 'a', traceparent => '$parent'");

	$node->wait_task($other, 'completed');
	my $call = sql("SELECT lpad(to_hex(call_id), 16, '0') FROM prometheus.call WHERE task_id = $other");
	is((traceparents('/v1'))[-1], "00-$foreign-$call-$flags", "the trace of the submit goes on, with its flags $flags");
	is(sql("SELECT parent_span_id FROM prometheus.span WHERE name ~ 'invoke' AND attributes ->> 'prometheus.task_id' = '$other'"), 'b7ad6b7169203331',
		'and the task is a part of the span that it says');
}
is(sql("SELECT parent_span_id IS NULL FROM prometheus.span WHERE trace_id = '$trace' AND name ~ 'invoke'"), 't', 'else a task has no parent');

# What is delegated.

my $parent = $node->run_script('a', [ [ [ delegate => { agent => 'a', request => '["child"]' } ] ], 'parent' ]);
my $child = sql("SELECT task_id FROM prometheus.task WHERE parent_id = $parent");
is(sql("SELECT c.trace_id = p.trace_id FROM prometheus.task c, prometheus.task p WHERE c.task_id = $child AND p.task_id = $parent"), 't',
	'a task that is delegated is of the same trace');
is(sql("SELECT p.attributes ->> 'prometheus.task_id' FROM prometheus.span c JOIN prometheus.span p ON p.span_id = c.parent_span_id
         WHERE c.name ~ 'invoke' AND c.attributes ->> 'prometheus.task_id' = '$child'"), $parent, 'and its parent is the one that did');
like(sql("SELECT prometheus_trace($parent)"), qr/^  chat fake-tools .*\n    POST 200 .*\n    task $child a  .* \d+ +\d+$/m, 'it is drawn below the turn that asked for it');

# Contents.

my $secret = 'sk-proj-0123456789abcdefghijkl';
my $told = $node->run_script('a', [ [ [ say => { t => "the key is $secret" } ] ], "it is $secret" ]);
sub attributes { return sql("SET prometheus.capture_content = $_[0]; SELECT attributes FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '$told'"); }
unlike(attributes('off'), qr/the key is|it is/, 'contents are not told');
unlike(attributes('metadata'), qr/the key is|it is/, 'nor with their lengths,');
like(attributes('metadata'), qr/"prometheus.answer_bytes": 36\b/, 'which are');
my $full = attributes('full');
like($full, qr/the key is \[redacted\]/, 'if they are to be told they are,');
like($full, qr/"gen_ai.output.messages": "\[\{\\"role\\": \\"assistant\\", \\"parts\\": \[\{\\"type\\": \\"text\\", \\"content\\": \\"it is \[redacted\]\\"/, 'in the form of OpenTelemetry,');
unlike($full, qr/0123456789abcdef/, 'without what looks like a key');
is($node->error_of('SET ROLE prometheus_agent_admin; SET prometheus.capture_content = full')->{state}, '42501', 'which is not for everybody to say');

$node->stop;
done_testing();
