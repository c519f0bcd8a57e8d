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

# Spans of applications survive whatever becomes of their transaction.

my $count = "SELECT count(*) FROM prometheus.span WHERE attributes ? 'prometheus.owner'";
sub named { return sql("SELECT string_agg(concat_ws(' ', name, status, attributes ->> 'error.type'), ', ' ORDER BY started_at) FROM prometheus.span WHERE name ~ '$_[0]'"); }
$node->psql('postgres', q{
	BEGIN;
	SELECT prometheus_span_start('order', '{"shop": 1}');
	SELECT prometheus_span_end(prometheus_span_start('order paid'));
	SELECT prometheus_span_start('order left open');
	ROLLBACK;
	SELECT prometheus_span_end(prometheus_span_start('order again'));
	SELECT prometheus_span_start('order forgotten');
	SELECT 1 / (length(prometheus_span_start('order divided')) - 55)});
$node->wait_for('the spans', $count, '6');
is(named('^order'), 'order error rollback, order paid ok, order left open error rollback, order again ok, order forgotten error abandoned, order divided error rollback',
	'how each of them ended');
is(sql(q{SELECT count(DISTINCT trace_id) FROM prometheus.span WHERE name IN ('order', 'order paid', 'order left open')}), '1', 'spans within one are of its trace');
is(sql(q{SELECT p.name FROM prometheus.span c JOIN prometheus.span p ON p.span_id = c.parent_span_id WHERE c.name = 'order paid'}), 'order', 'and parts of it');
my $killed = $node->background_psql('postgres');
$killed->query_safe("SELECT prometheus_span_start('terminated')");
is(sql('SELECT open FROM prometheus._span_counts()'), '1', 'one is open');
sql(q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE query ~ 'terminated' AND pid <> pg_backend_pid()});
eval { $killed->quit };
$node->wait_for('the span of a session that was ended', "SELECT status FROM prometheus.span WHERE name = 'terminated'", 'error');
is(sql('SELECT open FROM prometheus._span_counts()'), '0', 'at rest none is open');

$node->psql('postgres', q{SELECT prometheus_span_start('asking') \gset
	CALL prometheus_ask('["asked"]', 'a')});
$node->wait_for('the span around a question', "SELECT count(*) FROM prometheus.span WHERE name = 'asking'", '1');
is(sql(q{SELECT s.trace_id = t.trace_id FROM prometheus.span s, prometheus.task t WHERE s.name = 'asking' AND t.request = '["asked"]'}), 't',
	'what is asked meanwhile is a part of it');

# In a tool it is a part of the task, and no other task is a part of it.
sql(q{CREATE FUNCTION spans(t text) RETURNS text LANGUAGE sql VOLATILE AS
	$$SELECT prometheus_span_start('in a tool'); SELECT prometheus_traceparent()$$;
      SELECT prometheus_set_tool('spans(text)', tier => 'write'); SELECT prometheus_set_agent('a', tools => '{get,say,delegate,spans}')});
my $spanning = $node->run_script('a', [ [ [ spans => { t => 'x' } ] ], 'end' ]);
$node->wait_for('the span of a tool', "SELECT count(*) FROM prometheus.span WHERE name = 'in a tool'", '1');
is(sql("SELECT t.attributes ->> 'prometheus.task_id' FROM prometheus.span s JOIN prometheus.span t ON t.span_id = s.parent_span_id AND t.trace_id = s.trace_id WHERE s.name = 'in a tool'"),
	$spanning, 'in a tool it is a part of the task');
is(named('in a tool'), 'in a tool error abandoned', 'which does not go on after it');
is(sql("SELECT answer = '00-' || trace_id || '-' || span_id || '-03' FROM prometheus._step x, prometheus.span s WHERE s.name = 'in a tool' AND x.task_id = $spanning AND x.kind = 'tool'"),
	't', 'the tool can say so to others');

# When nobody writes them, what does not fit is dropped and counted; nobody waits.
my $publisher = $node->worker_pid('publisher');
is($node->health('spans'), 'ok|none was dropped|', 'health: none was dropped');
kill STOP => $publisher;
my $before = sql($count);
sql(q{SELECT prometheus_span_end(prometheus_span_start('many')) FROM generate_series(1, 1000)});
is(sql('SELECT waiting, dropped FROM prometheus._span_counts()'), '512|488', 'what does not fit is dropped');
like($node->health('spans'), qr/^warning\|488 of applications were dropped\|Since the server's start/, 'and health says so');
my @gauges = sql('SELECT prometheus_metrics()') =~ /^prom_agent_spans_((?:waiting|dropped) \d+)$/mg;
is_deeply([ sort @gauges ], [ 'dropped 488', 'waiting 512' ], 'as metrics do');
kill CONT => $publisher;
$node->wait_for('what did fit', $count, $before + 512);
sql(q{SELECT prometheus_span_end(prometheus_span_start('more')) FROM generate_series(1, 100)});
$node->wait_for('spans after that', $count, $before + 612);
is(sql('SELECT waiting, dropped FROM prometheus._span_counts()'), '0|488', 'and then there is room again');
like($node->health('spans'), qr/^warning\|488 of applications were dropped\|/, 'health says how many were dropped');

# The publisher is ended, and the server: what was in the ring is written.
kill TERM => $publisher;
sql(q{SELECT prometheus_span_end(prometheus_span_start('meanwhile')) FROM generate_series(1, 10)});
$node->wait_for('spans of a time without a publisher', "SELECT count(*) FROM prometheus.span WHERE name = 'meanwhile'", '10');

# They go when they were kept for long enough.
sql(q{UPDATE prometheus._span SET ended_at = ended_at - interval '8 days' WHERE name <> 'meanwhile'});
$node->append_conf('postgresql.conf', "prometheus.retention_spans = '604801 s'\n");
$node->reload;
$node->wait_for('old spans to go', $count, '10');

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
