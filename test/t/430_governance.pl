# Governance: policies judge requests, tool calls and answers; a veto says who
# and why and what would help, and ends nothing but what it is about.
use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(sha256_hex);
use FakeLLM;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;
my $llm = FakeLLM->new;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The verdicts of a task, in order: step, stage, effect, risk, policy.
sub verdicts
{
	return sql("SELECT string_agg(concat_ws(' ', coalesce(step, 0), stage, effect, risk_level, policy), ', ' ORDER BY judged_at, step NULLS FIRST) FROM prometheus.verdict WHERE task_id = $_[0]"
	);
}

sub error_of_task { return sql("SELECT error FROM prometheus.task WHERE task_id = $_[0]"); }

sub set_policy
{
	my ($name, $rest) = @_;
	return sql("SELECT prometheus_set_policy('$name', $rest)");
}

sub off { set_policy($_, q{effect => 'off', condition => '-'}) foreach @_; return; }

# SHA-256 of texts, each with its length before it.
sub hash_of { return sha256_hex(join('', map { pack('Q>', length) . $_ } @_)); }

$node->init;
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE joe LOGIN;
GRANT prometheus_agent_user TO joe;
CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY, words text);
CREATE FUNCTION write(words text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO note (words) VALUES (words) RETURNING id';
CREATE FUNCTION say(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION run(sql text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; RETURN 'done'; END$$;
CREATE FUNCTION wipe(t text) RETURNS text LANGUAGE sql AS $$DELETE FROM note WHERE words = t; SELECT 'wiped'$$;
CREATE FUNCTION hold() RETURNS text LANGUAGE sql AS $$SELECT 'held' FROM (SELECT pg_advisory_xact_lock(430)) x$$;
SELECT prometheus_set_tool('say(text)'), prometheus_set_tool('hold()');
SELECT prometheus_set_tool(f::regprocedure, tier => 'write') FROM unnest(ARRAY['write(text)', 'run(text)']) f;
SELECT prometheus_set_tool('wipe(text)', tier => 'destructive');
SELECT prometheus_set_agent('a', 'scripted', tools => '{write,say,run,wipe,hold}');
EOSQL
my $write = [ 'write', { words => 'x' } ];
my $drop = [ 'run', { sql => 'DROP TABLE note' } ];
my $integrity = 'Integrity: an agent must not change prometheus itself, the catalogues, roles or the schema, nor reach outside the database.';

# Every tool step has the verdict of exactly what ran.
my @ran = ([ 'write', '{"words":   "x"}' ], [ 'say', '{"t": "\u00fc"}' ], [ 'say', '{"t": "\u00fc" }' ], [ 'run', '{"sql": "SELECT 1"}' ]);
my $task = $node->run_script('a', [ [ @ran[ 0 .. 2 ] ], [ $ran[3] ], 'end' ]);
my @hashes = map { hash_of('tool', 'a', $_->[1], $_->[0], sql("SELECT hash FROM prometheus._tool WHERE name = '$_->[0]'")) } @ran;
is( sql("SELECT string_agg(concat_ws(' ', step, name, target_hash), ',' ORDER BY step) FROM prometheus.step LEFT JOIN prometheus.verdict USING (task_id, step) WHERE task_id = $task AND kind = 'tool'"
	),
	join(',', map { "$_->[0] $_->[1] $_->[2]" } ([ 2, 'write', $hashes[0] ], [ 3, 'say', $hashes[1] ], [ 4, 'say', $hashes[2] ], [ 6, 'run', $hashes[3] ])),
	'verdict: of every call, with the hash of what ran');
isnt($hashes[1], $hashes[2], 'verdict: a blank more is another call');
is( sql("SELECT string_agg(DISTINCT concat_ws(' ', stage, approved, risk_level, governor, effect, policy, reasoning), ',') FROM prometheus.verdict WHERE task_id = $task"
	),
	'task t LOW JUSTICA allow,tool t LOW JUSTICA allow', 'verdict: allowed');
is( sql("SELECT count(*) FROM prometheus.verdict WHERE task_id = $task AND policy_version = (SELECT count(*) FROM prometheus._policy) AND latency_ms >= 0 AND latency_ms < 60000 AND attempt = 1 AND judged_at IS NOT NULL"
	),
	5, 'verdict: version and latency, of the request too');
is( sql("SELECT target_hash = prometheus._hash('task', 'a', request) FROM prometheus.verdict JOIN prometheus.task USING (task_id) WHERE task_id = $task AND stage = 'task'"
	),
	't', 'verdict: the hash of the request');
set_policy('counts', q{'answer', 'off'});
$task = $node->run_script('a', [ [$write], 'end' ]);
is( sql("SELECT count(DISTINCT policy_version) || ' ' || bool_and(policy_version = (SELECT count(*) FROM prometheus._policy)) FROM prometheus.verdict WHERE task_id = $task"
	),
	'1 true', 'verdict: the version is one more after a policy was set');

# A veto of a request, and that nothing else is vetoed with it.
my $joe = [ connstr => $node->connstr('postgres') . ' user=joe' ];
my $harmful = $node->safe_psql('postgres', q{SELECT prometheus_submit('DROP TABLE users')}, @$joe);
my $harmless = $node->safe_psql('postgres', q{SELECT prometheus_submit('Explain what DROP TABLE users does')}, @$joe);
$node->wait_task($harmful, 'vetoed');
$node->wait_task($harmless, 'completed');
my $why = 'Integrity: the request is itself a statement that would change roles, the schema, or all of a table. (DROP TABLE) '
  . 'Say what is to be reached, not how; or run the statement yourself.';
is(error_of_task($harmful), $why, 'veto: the error says why, and what would help');
is( sql("SELECT concat_ws(' ', status, error_type, attempts, result) FROM prometheus.task WHERE task_id = $harmful"),
	'vetoed GovernanceVeto 0', 'veto: the task');
my $error = $node->error_of("SELECT prometheus_result($harmful)");
is($error->{state}, 'PM002', 'veto: the result raises');
like("$error->{message} " . ($error->{detail} // ''), qr/\Q$why\E/, 'veto: with the same words');
like(sql("SELECT prometheus_why($harmful)"), qr/vetoed.*\Q$why\E/s, 'veto: prometheus_why()');
is( sql("SELECT data FROM prometheus.event WHERE task_id = $harmful AND type = 'task.failed'"),
	sql("SELECT jsonb_build_object('error', error, 'error_type', 'GovernanceVeto', 'failed_at_step', NULL) FROM prometheus.task WHERE task_id = $harmful"),
	'veto: the event');
is( sql("SELECT concat_ws('|', step, stage, approved, risk_level, governor, effect, policy, reasoning, suggestions) FROM prometheus.verdict WHERE task_id = $harmful"
	),
	'task|f|CRITICAL|JUSTICA|deny|justica.integrity.request|Integrity: the request is itself a statement that would change roles, the schema, or all of a table. (DROP TABLE)|Say what is to be reached, not how; or run the statement yourself.',
	'veto: the verdict says who');
is($node->steps($harmful), '', 'veto: no step');
is(sql("SELECT prometheus_retry($harmful)"), 't', 'veto: retried by hand');
$node->wait_for('it is judged again',
	"SELECT count(*) FROM prometheus.attempt WHERE task_id = $harmful AND outcome = 'vetoed'", '2');
is(verdicts($harmful), join(', ', ('0 task deny CRITICAL justica.integrity.request') x 2), 'veto: by a verdict of its own');

# A tool call that is vetoed is told, and another way may be gone.
$task = $node->run_script('a', [ [ $drop, $write ], [$write], 'end' ]);
is( $node->steps($task),
	'1 chat scripted ok, 2 tool run vetoed, 3 tool write ok, 4 chat scripted ok, 5 tool write ok, 6 chat scripted ok',
	'tool veto: the rest of the turn, and the next, go on');
is(($node->told($task, 4))[0],
	"Vetoed: $integrity (DROP TABLE) Ask for a function that does just what is needed, made a tool by an administrator.",
	'tool veto: the model is told why, and what would help');
is( sql("SELECT concat_ws('|', approved, risk_level, governor, policy, target_hash) FROM prometheus.verdict WHERE task_id = $task AND step = 2"),
	'f|CRITICAL|JUSTICA|justica.integrity|'
	  . hash_of('tool', 'a', '{"sql": "DROP TABLE note"}', 'run', sql(q{SELECT hash FROM prometheus._tool WHERE name = 'run'})),
	'tool veto: the verdict');
is(sql(q{SELECT to_regclass('note')}), 'note', 'tool veto: it did not run');

# Up to a limit.
foreach my $case ([ 'a', 3 ], [ 'two', 2 ], [ 'zero', 0 ])
{
	my ($agent, $max) = @$case;
	sql("SELECT prometheus_set_agent('$agent', 'scripted', tools => '{run,write}', options => '{\"max_vetoes\": $max}')")
	  if $agent ne 'a';
	$task = $node->run_script($agent, [ ([$drop]) x $max, [$write], 'end' ]);
	is(sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task AND status = 'vetoed'"),
		$max, "max_vetoes $max: as many may be vetoed");
	$task = $node->run_script($agent, [ ([$drop]) x ($max + 1), [$write], 'end' ], 'vetoed');
	is(sql("SELECT string_agg(DISTINCT status, ',') || count(*) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
		'vetoed' . ($max + 1), "max_vetoes $max: one more ends the task");
	like(error_of_task($task), qr/^@{[ $max + 1 ]} tool calls? w\w+ not allowed, the last one: \Q$integrity\E/,
		"max_vetoes $max: it says why");
	is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $task"), 'GovernanceVeto', "max_vetoes $max: a veto");
	$node->run_script($agent, [ [$write], 'end' ]);
}

# The strongest effect counts; among equals the first by name.
my $match = q{match => '{"tool": "write"}'};
set_policy('o.1', "'tool', 'allow', $match");
set_policy('o.2', "'tool', 'warn', $match, reason => 'Mind it.'");
set_policy('o.3', "'tool', 'escalate', $match");
set_policy('o.4', "'tool', 'deny', $match, reason => 'Not now.', suggestion => 'Later.'");
set_policy('o.5', "'tool', 'deny', $match");
$task = $node->run_script('a', [ [$write], 'end' ]);
is(verdicts($task), '0 task allow LOW, 2 tool deny CRITICAL o.4', 'order: deny before escalate');
is(($node->told($task, 3))[0], 'Vetoed: Not now. Later.', 'order: with its words');
is(sql("SELECT governor FROM prometheus.verdict WHERE task_id = $task AND step = 2"), 'policy', 'order: the governor is a policy');
off('o.4');
$task = $node->run_script('a', [ [$write], 'end' ]);
is(verdicts($task), '0 task allow LOW, 2 tool deny CRITICAL o.5', 'order: the next one');
is(($node->told($task, 3))[0], 'Vetoed: policy "o.5"', 'order: without words it is named');
off('o.5');
$task = $node->run_script('a', [ [$write], 'end' ], 'waiting');
is(verdicts($task), '0 task allow LOW, 2 tool escalate HIGH o.3', 'order: escalate before warn');
off('o.3');
sql("SELECT prometheus_cancel($task)");
$task = $node->run_script('a', [ [$write], 'end' ]);
is(verdicts($task), '0 task allow LOW, 2 tool warn MEDIUM o.2', 'order: warn before allow');
is(sql("SELECT approved || ' ' || reasoning FROM prometheus.verdict WHERE task_id = $task AND step = 2"), 'true Mind it.',
	'order: which is noted, and runs');
off('o.2');
$task = $node->run_script('a', [ [$write], 'end' ]);
is(verdicts($task), '0 task allow LOW, 2 tool allow LOW o.1', 'order: allow');
$task = $node->run_script('a', [ [ [ 'wipe', { t => 'nothing' } ] ], 'end' ], 'waiting');
is(verdicts($task), '0 task allow LOW, 2 tool escalate HIGH justica.escalation', 'order: what is destructive is escalated');
sql("SELECT prometheus_cancel($task)");

# Destructive tools without a policy that escalates them, and that allows them.
off('justica.escalation', 'o.1');
set_policy('o.6', q{'tool', 'allow', match => '{"tool": "wipe"}'});
sql(q{INSERT INTO note (words) VALUES ('kept')});
foreach my $allowed (1, 0)
{
	off('o.6') unless $allowed;
	$task = $node->run_script('a', [ [ [ 'wipe', { t => 'kept' } ] ], 'end' ]);
	is(($node->told($task, 3))[0], 'Vetoed: a destructive tool needs a policy that escalates it to a person',
		"destructive, not escalated, allowed $allowed: is denied");
	like(verdicts($task), qr/2 tool deny CRITICAL/, "destructive, not escalated, allowed $allowed: the verdict");
}
is(sql(q{SELECT count(*) FROM note WHERE words = 'kept'}), 1, 'destructive, not escalated: did not run');
set_policy('justica.escalation', q{effect => 'escalate'});

# What a match asks for: tool calls that fit, and some that do not.
sql(q{SELECT prometheus_set_agent('b', 'scripted', tools => '{write,say}')});
my $say = [ 'say', { t => 'hello', } ];
foreach my $case (
	[ '{"tool": "write"}', $write, $say ],
	[ '{"tool": ["nope", "write"]}', $write, $say ],
	[ '{"tier": "read"}', $say, $write ],
	[ '{"arguments": {"words": "x"}}', $write, [ 'write', { words => 'y' } ] ],
	[ '{"arguments": {"words": "x"}, "tool": "write"}', $write, $say ],
	[ '{"text": "(?i)HEL+O"}', $say, $write ],
	[ '{"agent": "a"}', $write, undef ],
	[ '{"agent": ["b", "a"], "mode": "fast", "submitter": "' . sql('SELECT current_user') . '"}', $write, undef ],
	[ '{}', $write, undef ],
	[ '{"agent": "b"}', undef, $write ],
	[ '{"submitter": "joe"}', undef, $write ],
	[ '{"mode": "full"}', undef, $write ],
	[ '{"tool": []}', undef, $write ],
	[ '{"tool": "writ"}', undef, $write ],
	[ '{"tool": "Write"}', undef, $write ],
	[ '{"text": "^x$"}', undef, $write ])
{
	my ($wanted, $denied, $allowed) = @$case;
	set_policy('match', "'tool', 'deny', match => '$wanted'");
	# An empty match keeps the one of before.
	set_policy('match any', q{'tool', 'deny'}) if $wanted eq '{}';
	$task = $node->run_script('a', [ [ grep { defined } $denied, $allowed ], 'end' ]);
	is( sql("SELECT string_agg(name || ' ' || status, ', ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"),
		join(', ', $denied ? "$denied->[0] vetoed" : (), $allowed ? "$allowed->[0] ok" : ()),
		"match $wanted");
	off('match');
	off('match any') if $wanted eq '{}';
}

# Arguments that are no JSON fit no arguments, and the call fails as ever.
set_policy('match', q{'tool', 'deny', match => '{"arguments": {}}'});
$task = $node->run_script('a', [ [ [ 'say', '{"t": ' ], [ 'nope', '{}' ], [ 'say', '{"t": "x"}' ] ], 'end' ]);
is( $node->steps($task),
	'1 chat scripted ok, 2 tool say error, 3 tool nope error, 4 tool say vetoed, 5 chat scripted ok',
	'arguments that cannot be read, and a tool that is none');
is(sql("SELECT count(*) FROM prometheus.verdict WHERE task_id = $task AND step = 3"), 0, 'what is no tool is not judged');
off('match');

# The newest policies count, also for a task that runs.
my $session = $node->background_psql('postgres');
$session->query_safe('SELECT pg_advisory_lock(430)');
$task = $node->submit($node->script([ $write, [ 'hold', {} ] ], [$write], 'end') . q{, 'a'});
$node->wait_for('the tool waits', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, '1');
set_policy('now', q{'tool', 'deny', match => '{"tool": "write"}'});
$session->query_safe('SELECT pg_advisory_unlock(430)');
$session->quit;
$node->wait_task($task, 'completed');
is( $node->steps($task),
	'1 chat scripted ok, 2 tool write ok, 3 tool hold ok, 4 chat scripted ok, 5 tool write vetoed, 6 chat scripted ok',
	'a policy set in the middle of a task counts from the next call on');
is( sql("SELECT b.policy_version - a.policy_version FROM prometheus.verdict a JOIN prometheus.verdict b USING (task_id) WHERE task_id = $task AND a.step = 2 AND b.step = 5"
	),
	1, 'and its version is in the verdict');
off('now');

# A request that is allowed with a warning, and has to wait before its gate.
set_policy('warns', q{'task', 'warn', match => '{"text": "careful"}', reason => 'Be careful.'});
$node->fake_agent($llm, 'fake-echo', name => 'paused');
sql(q{SELECT prometheus_pause('model:paused')});
$task = $node->submit(q{'careful', 'paused'});
$node->wait_for('it waits before its gate', "SELECT why ~ 'paused' FROM prometheus.queue WHERE task_id = $task");
sql(q{SELECT prometheus_resume('model:paused')});
$node->wait_task($task, 'completed');
is(verdicts($task), '0 task warn MEDIUM warns', 'a request that waited before its gate has one verdict');
off('warns');

# Answers, of every kind of model.
set_policy('no cats', q{'answer', 'deny', match => '{"text": "cat"}', reason => 'No cats.', suggestion => 'Try dogs.'});
$node->fake_agent($llm, 'fake-echo', name => 'openai', options => '{"stream": false}');
$node->fake_agent($llm, 'fake-echo', name => 'streamed', options => '{"stream": true}');
foreach my $agent (qw(default a openai streamed))
{
	my $ask = sub { return $agent eq 'a' ? $node->script($_[0]) : "'$_[0]'" };
	my %tasks = map { ($_ => $node->submit($ask->($_) . ", '$agent'")) } 'a cat', 'a dog';

	$node->wait_task($tasks{'a cat'}, 'vetoed');
	$node->wait_task($tasks{'a dog'}, 'completed');
	is(error_of_task($tasks{'a cat'}), 'No cats. Try dogs.', "answer, $agent: the veto");
	is($node->error_of("SELECT prometheus_result($tasks{'a cat'})")->{state}, 'PM002', "answer, $agent: there is no result");
	is(sql("SELECT result FROM prometheus.task WHERE task_id = $tasks{'a cat'}"), '', "answer, $agent: nor in the view");
	is(verdicts($tasks{'a cat'}), '0 task allow LOW, 1 answer deny CRITICAL no cats', "answer, $agent: the verdict");
	is(verdicts($tasks{'a dog'}), '0 task allow LOW, 1 answer allow LOW', "answer, $agent: and of one that is allowed");
	is(sql("SELECT prometheus_result($tasks{'a dog'}) IS NOT NULL"), 't', "answer, $agent: another is given");
	is(sql("SELECT attempts FROM prometheus.task WHERE task_id = $tasks{'a dog'}"), 1, "answer, $agent: in one attempt");
}
is( sql("SELECT target_hash = prometheus._hash('answer', 'default', 'a cat') FROM prometheus.verdict JOIN prometheus.task USING (task_id) WHERE stage = 'answer' AND NOT approved AND agent = 'default'"
	),
	't', 'answer: the hash of it');
$task = $node->run_script('a', [ [$say], 'cat' ], 'vetoed');
is(verdicts($task), '0 task allow LOW, 2 tool allow LOW, 3 answer deny CRITICAL no cats', 'answer: after tools');
set_policy('no cats', q{effect => 'warn'});
my $warned = $node->run_request('cat');
is(verdicts($warned), '0 task allow LOW, 1 answer warn MEDIUM no cats', 'answer: a warning');
is(sql("SELECT prometheus_retry($task)"), 't', 'answer: retried by hand');
$node->wait_task($task, 'completed');
is(sql("SELECT prometheus_result($task)"), 'cat', 'answer: and allowed by the policies of then');
off('no cats');

my @retried = sql('SELECT string_agg(DISTINCT task_id::text, $$,$$) FROM prometheus._retry');
$node->check_invariants('governance', all_ended => 1, retried => \@retried);
$node->stop;
done_testing();
