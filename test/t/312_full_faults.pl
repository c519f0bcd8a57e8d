# Processes die at each point of a task in full mode, now at its first thought and
# now at a later one: it comes to its answer, everything in it is there once, and so
# is what it has learned.
#
# PROM_FAULT_POINTS=REGEX: only the faults that match it.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = PromCluster->new('main');
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1, conf => "prometheus.max_crashes = 100\nprometheus.rescan_interval = '500ms'\n");
$node->start;
$node->keep_sessions;
$node->create_extension;
plan skip_all => 'the library was built without FAULTS=1'
  unless $node->has_faults;

# A function and a server, which think that their first answer is not good enough.
# Their tools write; the function's lesson is about its task alone.
sql(<<'EOSQL');
CREATE TABLE note (task_id bigint);
CREATE FUNCTION note() RETURNS text LANGUAGE sql AS $$
	INSERT INTO note SELECT w.task_id FROM prometheus.worker w WHERE w.pid = pg_backend_pid();
	SELECT 'noted' $$;
CREATE FUNCTION think(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	schema text := request #>> '{response_format,json_schema,schema}';
	turns int := (SELECT count(*) FROM jsonb_array_elements(request -> 'messages') m WHERE m ->> 'role' = 'assistant');
	message jsonb := '{"role": "assistant"}';
BEGIN
	message := message || CASE
		WHEN schema LIKE '%humility%' THEN jsonb_build_object('content', '{"humility": 1, "patience": 1, "service": 1, "gentleness": 1, "prudence": 1, "courage": 1, "truthfulness": 1, "confidence": 0.9, "counsel": "Fine.", "suggestions": []}')
		WHEN schema LIKE '%probability%' THEN jsonb_build_object('content', '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "Note.", "tool": "note", "outcome": "noted", "probability": 1, "risks": []}]}]}')
		WHEN schema LIKE '%appropriateness%' THEN jsonb_build_object('content', jsonb_build_object(
			'aspects', '[]'::jsonb, 'appropriateness', turns / 10.0, 'effectiveness', turns / 10.0, 'critique', 'So so.', 'correction', '',
			'lessons', jsonb_build_array('Of ' || (SELECT m ->> 'content' FROM jsonb_array_elements(request -> 'messages') m WHERE m ->> 'content' LIKE 'full %')))::text)
		WHEN turns = 0 THEN jsonb_build_object('content', '', 'tool_calls', '[{"id": "c", "type": "function", "function": {"name": "note", "arguments": "{}"}}]'::jsonb)
		ELSE jsonb_build_object('content', 'Answer ' || turns) END;
	RETURN jsonb_build_object('usage', '{"prompt_tokens": 10, "completion_tokens": 5}'::jsonb, 'choices',
		jsonb_build_array(jsonb_build_object('message', message, 'finish_reason', CASE WHEN message ? 'tool_calls' THEN 'tool_calls' ELSE 'stop' END)));
END $$;
SELECT prometheus_set_tool('note()', tier => 'write');
SELECT prometheus_set_model('function', 'function', handler => 'think(jsonb)');
EOSQL
sql(sprintf q{SELECT prometheus_set_model('server', 'openai', '%s', 'fake-mind-score-70')}, $llm->url('/v1'));
sql(qq{SELECT prometheus_set_agent('$_', '$_', mode => 'full', tools => '{note}', options => '{"reflect_below": 0.9}')}) foreach qw(function server);
$node->count_spending;

my %steps = (
	function => 'recall memory, plan function, chat function, tool note, chat function, reflect function, chat function, reflect function',
	server => 'recall memory, plan server, chat server, tool note, chat server, reflect server, chat server, reflect server');
my %result = (function => 'Answer 2', server => 'You have looked back');
my $round = 0;

sub run_round
{
	my ($fault, $agent) = @_;
	my ($point, $action) = split /:/, $fault;
	my $what = "$agent, $fault";
	my $log = $node->log_end;

	$round++;
	$node->set_fault($fault);
	my $request = $agent eq 'server' ? $node->script([ [ 'note', {} ] ], "round $round") : "'full $round'";
	my $task = $node->submit_to_crash("$request, '$agent'");
	$node->wait_task($task, 'completed');
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	usleep(10_000) while !$node->fault_fired($point) && time < $end;
	ok($node->fault_fired($point), "$what: it was met");
	if ($action eq 'die')
	{
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
		$node->wait_for("$what: the server is back", 'SELECT true');
	}
	like(sql("SELECT prometheus_result($task)"), qr/^$result{$agent}/, "$what: the answer");
	is(sql("SELECT string_agg(kind || ' ' || name, ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND status = 'ok' AND kind <> 'review'"),
		$steps{$agent}, "$what: each step once");
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND status <> 'ok'"), 0, "$what: and none that failed");
	is(sql("SELECT count(*) FROM note WHERE task_id = $task"), 1, "$what: its tool has written once");
	is(sql("SELECT count(*), max(version) FROM prometheus.memory WHERE content = 'Of full $round'"), '1|2', "$what: it has learned once, and again when the answer was better") if $agent eq 'function';
	is(sql("SELECT count(*) FROM prometheus.event WHERE task_id = $task AND type = 'reflection'"), 2, "$what: two events of reflections");
	$node->check_invariants("$what: invariants", all_ended => 1, summaries => 1);
	$node->check_spending("$what: the caller counts what was spent", $agent) if $action ne 'die';
	return;
}

# The points that a task passes with each of its thoughts, and how often before; the
# function's are those of jobs.
my @server = qw(begin-loaded begin-before-commit begin-after-commit before-send after-send reply-half-read reply-read
  before-record record-before-commit record-after-commit);
my @function = qw(job-before-give job-after-give job-begun job-before-commit job-after-commit job-before-take-back);
my @last = qw(in-summary before-give-back after-give-back);
my $wanted = $ENV{PROM_FAULT_POINTS} // '.';
my @faults = (
	(map { my $point = $_; map { [ 'server', "$point:die:$_" ] } 2, 5 } @server),
	(map { my $point = $_; map { [ 'function', "$point:die:$_" ] } 2, 6, 8 } @function),
	(map { my $agent = $_; map { [ $agent, "$_:die:1" ] } @last } qw(function server)),
	(map { [ 'server', "$_:error:5" ] } qw(begin-loaded begin-before-commit before-record record-before-commit)),
	(map { [ 'function', "$_:error:8" ] } qw(begin-before-commit job-begun job-before-commit job-after-commit)));
run_round($_->[1], $_->[0]) foreach grep { "@$_" =~ /$wanted/ } @faults;

$node->set_fault('');
is($node->log_count(qr/PANIC|TRAP|signal 11|signal 6/), 0, 'nothing else crashed');
$node->stop;
$llm->stop;
done_testing();
