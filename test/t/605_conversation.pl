# A conversation that is longer than its model's window: older turns are left out, or
# summed up, each once; what is sent can be shown again.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use JSON::PP qw(decode_json);
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

$node->init(restart_after_crash => 1, conf => "prometheus.executors = 2\nprometheus.max_crashes = 100\n");
$node->start;
$node->keep_sessions;
$node->create_extension;

# Its summary says which turns it has read of, in summaries too; a request is "turn N"
# and much else.
sql(<<'EOSQL');
CREATE TABLE asked (n bigserial PRIMARY KEY, is_summary boolean, request jsonb);
CREATE TABLE mood (bad boolean NOT NULL, slow boolean NOT NULL, reflects boolean NOT NULL);
INSERT INTO mood VALUES (false, false, false);
CREATE FUNCTION turns_in(request jsonb) RETURNS int[] LANGUAGE sql AS $$
	SELECT array_agg(DISTINCT r[1]::int ORDER BY r[1]::int) FROM jsonb_array_elements(request -> 'messages') m,
	       regexp_matches(m ->> 'content', 'turn (\d+)', 'g') r WHERE m ->> 'role' = 'user' $$;
CREATE FUNCTION talk(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	is_summary boolean := request -> 'messages' -> -1 ->> 'content' LIKE 'Sum up the conversation%';
	schema text := request #>> '{response_format,json_schema,schema}';
BEGIN
	IF is_summary AND (SELECT slow FROM mood) THEN
		PERFORM pg_advisory_lock_shared(605), pg_advisory_unlock_shared(605);
	END IF;
	INSERT INTO asked (is_summary, request) VALUES (is_summary, request);
	IF is_summary AND (SELECT bad FROM mood) THEN
		RAISE 'no summary';
	END IF;
	RETURN jsonb_build_object('usage', '{"prompt_tokens": 10, "completion_tokens": 5}'::jsonb, 'choices', jsonb_build_array(jsonb_build_object('finish_reason', 'stop',
		'message', jsonb_build_object('role', 'assistant', 'content', CASE
			WHEN is_summary THEN (SELECT string_agg('turn ' || t, ', ') FROM unnest(turns_in(request)) t)
			WHEN schema LIKE '%probability%' THEN '{"plans": []}'
			WHEN schema LIKE '%appropriateness%' AND (SELECT reflects FROM mood)
			THEN '{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "", "lessons": [], "correction": ""}'
			WHEN schema IS NOT NULL THEN '{}' ELSE 'I see.' END))));
END $$;
SELECT prometheus_set_model('talk', 'function', handler => 'talk(jsonb)', options => '{"window": 1000, "max_tokens": 100}');
SELECT prometheus_set_agent('talk', 'talk', instructions => 'Listen.', options => '{"summarise": true}');
SELECT prometheus_set_agent('forgets', 'talk', instructions => 'Listen.');
EOSQL

my $long = 'x' x 280;
my %turn;

sub talk
{
	my ($agent, $more) = @_;
	my $n = ++$turn{$agent};
	my $task = $node->submit("'turn $n, $long', '$agent', conversation => 'one'" . ($more // ''));
	$node->wait_task($task, 'completed');
	return $task;
}

# Which turns the last prompt of a turn has, as ranges.
sub told
{
	return sql('SELECT turns_in(request) FROM asked WHERE NOT is_summary AND request -> \'response_format\' IS NULL ORDER BY n DESC LIMIT 1');
}

sub all_of { return '{' . join(',', 1 .. $_[0]) . '}'; }

my @tasks = map { talk('forgets') } 1 .. 12;
is(sql('SELECT count(*) FROM asked WHERE is_summary'), 0, 'nothing is summed up if nobody says so');
like(told(), qr/^\{[5-9],.*,12\}$/, 'the oldest turns are left out');
sql('TRUNCATE asked');

@tasks = map { talk('talk') } 1 .. 30;
is(told(), all_of(30), 'thirty turns: all are known');
my $summaries = sql('SELECT count(*) FROM asked WHERE is_summary');
cmp_ok($summaries, '>=', 4, 'it has summed up');
cmp_ok($summaries, '<=', 6, 'but not at each turn');
is(sql(q{SELECT count(*) FROM asked WHERE length(request ->> 'messages') / 3 > 1000}), 0, 'no prompt is longer than the window');
is( sql(q{SELECT string_agg(DISTINCT count::text, ' ') FROM (SELECT count(*) FROM asked, jsonb_array_elements(request -> 'messages') m WHERE is_summary AND m ->> 'content' LIKE 'turn %' GROUP BY m ->> 'content') x}),
	1, 'each turn is summed up once');
is(sql('SELECT max(jsonb_array_length(request -> \'messages\')) < 20 FROM asked WHERE is_summary'), 't', 'of the turns that are new');
my $list = join(', ', @tasks);
is( sql("SELECT count(*), bool_and(prometheus_prompt(s.task_id, s.step) = a.request) FROM (SELECT task_id, step, row_number() OVER (ORDER BY task_id, step) FROM prometheus.step WHERE task_id IN ($list)) s JOIN (SELECT request, row_number() OVER (ORDER BY n) FROM asked) a USING (row_number)"),
	30 + $summaries . '|t', 'each prompt can be shown again');
is(sql("SELECT string_agg(DISTINCT concat_ws(' ', kind, name, status), ', ') FROM prometheus.step WHERE task_id IN ($list)"), 'chat talk ok, recall talk ok', 'a summary is a step');
is(sql("SELECT count(*) FROM prometheus.step WHERE task_id IN ($list) AND kind = 'recall' AND input = '{\"conversation\": \"one\"}' AND output ->> 'content' LIKE 'turn 1, turn 2,%'"), $summaries, 'it says of what, and what');
is(sql("SELECT sum(tokens_in) FROM prometheus.task WHERE task_id IN ($list)"), 10 * (30 + $summaries), 'it counts');

# Between two summaries a prompt begins as the one before it ended.
is( sql(q{WITH p AS (SELECT n, request -> 'messages' AS m, lag(request -> 'messages') OVER w AS before, lag(is_summary) OVER w AS after_summary FROM asked WINDOW w AS (ORDER BY n))
	SELECT count(*) > 20, bool_and((SELECT jsonb_agg(x.v ORDER BY x.i) FROM jsonb_array_elements(m) WITH ORDINALITY x(v, i) WHERE x.i <= jsonb_array_length(before)) = before)
	  FROM p WHERE before IS NOT NULL AND NOT after_summary AND m -> -1 ->> 'content' NOT LIKE 'Sum up%'}),
	't|t', 'a prompt begins with the one before');

# What cannot be summed up is left out, and the next task asks again.
sql('UPDATE mood SET bad = true');
my $failed = 0;
my $task;
until ($failed || $turn{talk} > 50)
{
	$task = talk('talk');
	$failed = sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'recall' AND status = 'error'");
}
is(sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"), 'recall error, chat ok', 'a summary fails: the task goes on');
isnt(told(), all_of($turn{talk}), 'without the oldest turns that are not summed up');
sql('UPDATE mood SET bad = false');
$task = talk('talk');
is(sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"), 'recall ok, chat ok', 'the next one asks again');
is(told(), all_of($turn{talk}), 'and nothing is lost');

# No money for a summary.
sql(q{SELECT prometheus_set_agent('talk', options => '{"summarise": false}')});
talk('talk') foreach 1 .. 8;
isnt(told(), all_of($turn{talk}), 'nothing is summed up any more');
sql(q{SELECT prometheus_set_agent('talk', mode => 'full', options => '{"summarise": true}'); SELECT prometheus_set_policy('sofia', effect => 'off')});
sql('TRUNCATE asked');
$task = talk('talk');
is(sql("SELECT string_agg(concat_ws(' ', kind, name, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"),
	'recall memory ok, recall talk ok, plan talk error, chat talk ok, reflect talk error', 'in full mode: before the plan');
talk('talk');
is(told(), all_of($turn{talk}), 'what was not summed up is, the oldest first, and known again');

# A summary is nothing that was remembered: it looks back, and what it was told before
# is what it has a say about.
sql(q{UPDATE mood SET reflects = true; SELECT prometheus_remember('talk', 'To talk in a turn, listen.', 'procedural', metadata => '{"pinned": true}')});
my $count = sql(q{SELECT count(*) FROM asked WHERE is_summary});
until (sql(q{SELECT count(*) FROM asked WHERE is_summary}) > $count || $turn{talk} > 200)
{
	$task = talk('talk');
}
is(sql("SELECT string_agg(concat_ws(' ', kind, name, status, error), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind <> 'plan'"),
	'recall memory ok, recall talk ok, chat talk ok, reflect talk ok', 'who has summed up looks back');
is(sql("SELECT count(*) FROM prometheus.memory_evidence WHERE task_id = $task"), 1, 'and shows something of what it has recalled');
is(sql('SELECT request::text LIKE \'%contradictions: which of%\' FROM asked ORDER BY n DESC LIMIT 1'), 't', 'about which it was asked');
sql('UPDATE mood SET reflects = false');

# A turn that never fits is passed over.
sql(q{SELECT prometheus_set_agent('talk', mode => 'fast', options => '{"summarise": false}')});
$long = 'y' x 3200;
talk('talk');
$long = 'x' x 280;
sql(q{SELECT prometheus_set_agent('talk', options => '{"summarise": true}')});
talk('talk') foreach 1 .. 12;
is(told() =~ tr/,//, $turn{talk} - 2, 'one turn is too long to be known');

# Killed while it sums up: that is done once.
sql(q{SELECT prometheus_set_agent('talk', mode => 'fast'); UPDATE mood SET slow = true});
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(605)');
my $waiting = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 605 AND NOT granted};
my $n = $turn{talk};
$task = $node->submit(join ', ', map { "'turn " . ++$n . ", $long$long$long', 'talk', conversation => 'one'" } 1);
my $end = 0;
while (sql("SELECT status FROM prometheus.task WHERE task_id = $task") ne 'running' || sql($waiting) eq '0')
{
	last if ++$end > 20;
	$node->wait_task($task, [ 'completed', 'running' ]);
	next if sql("SELECT status FROM prometheus.task WHERE task_id = $task") eq 'running';
	$task = $node->submit("'turn " . ++$n . ", $long', 'talk', conversation => 'one'");
}
my $log = $node->log_end;
kill('KILL', sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 605 AND NOT granted}));
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
eval { $holder->quit };
$node->wait_for('the server is back', 'SELECT true');
$node->wait_task($task, 'completed');
is(sql("SELECT string_agg(concat_ws(' ', kind, status), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"), 'recall ok, chat ok', 'killed while it sums up: that is done once');
is(told() =~ tr/,//, $n - 2, 'and nothing is lost');

# The turns that it is to sum up go before it is asked: it does without.
sql('UPDATE mood SET slow = false');
sql(<<'EOSQL');
CREATE FUNCTION busy(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_lock_shared(606), pg_advisory_unlock_shared(606);
	RETURN talk(request);
END $$;
SELECT prometheus_set_model('busy', 'function', handler => 'busy(jsonb)');
SELECT prometheus_set_agent('busy', 'busy');
EOSQL
my $summed = sql(q{SELECT s.task_id || ', ' || s.step FROM prometheus.step s JOIN prometheus.task t USING (task_id) WHERE t.agent = 'talk' AND s.kind = 'recall' AND s.name = 'talk' AND s.status = 'ok' ORDER BY s.task_id DESC LIMIT 1});
$turn{talk} = $n;
$long = 'z' x 700;
talk('talk') foreach 1 .. 2;
$holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(606)');
my @busy = map { $node->submit("'Wait.', 'busy'") } 1 .. 2;
$node->wait_for('both executors are busy', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 606 AND NOT granted}, 2);
$task = $node->submit("'turn " . ++$turn{talk} . ", $long', 'talk', conversation => 'one'");
$node->wait_for('it has begun', "SELECT count(*) FROM prometheus.attempt WHERE task_id = $task", 1);
sql("CREATE TABLE gone AS SELECT o.* FROM prometheus._outcome o JOIN prometheus._task t USING (task_id) WHERE t.agent = 'talk' AND task_id < $task;
	DELETE FROM prometheus._outcome o USING gone g WHERE g.task_id = o.task_id");
$holder->query_safe('SELECT pg_advisory_unlock(606)');
$holder->quit;
$node->wait_task($_, 'completed') foreach $task, @busy;
is(sql("SELECT string_agg(concat_ws(' ', kind, status, error), ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task"),
	'recall error the turns that it sums up are not kept any more, chat ok', 'turns that go before they are summed up: the task goes on');
my ($code, undef, $stderr) = $node->psql('postgres', "SELECT prometheus_prompt($summed)");
like($stderr, qr/ERROR:  step \d+ of task \d+ cannot be shown\s+DETAIL:  the turns that it sums up are not kept any more/, 'what cannot be made again is not shown');
sql('INSERT INTO prometheus._outcome SELECT * FROM gone');
$long = 'x' x 280;

# With a server.
my $llm = FakeLLM->new;
sql(sprintf q{SELECT prometheus_set_model('server', 'openai', '%s', 'fake-echo', options => '{"window": 1000, "max_tokens": 100}');
	SELECT prometheus_set_agent('server', 'server', instructions => 'Listen.', options => '{"summarise": true}')}, $llm->url('/v1'));
@tasks = map { talk('server') } 1 .. 12;
$list = join(', ', @tasks);
cmp_ok(sql("SELECT count(*) FROM prometheus.call WHERE kind = 'recall' AND status = 'done' AND task_id IN ($list)"), '>=', 1, 'a server sums up');
is_deeply([ map { decode_json($_) } split /\n/, sql("SELECT prometheus_prompt(task_id, step) FROM prometheus.step WHERE task_id IN ($list) ORDER BY task_id, step") ],
	[ map { $_->{body} } @{ $llm->requests } ], 'prompts are what was sent');
$llm->stop;

$node->check_invariants('all that happened', all_ended => 1);
$node->stop;
done_testing();
