# Everything that happened comes along with pg_dump, and goes on from there.
use strict;
use warnings FATAL => 'all';

use FakeLLM;
use PostgreSQL::Test::Utils;
use PromAnswers qw(answers);
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
my $other = PromCluster->new('other');
my $llm = FakeLLM->new;
my @facts;
my %views = (
	task => 'task_id',
	attempt => 'task_id, attempt',
	call => 'call_id',
	step => 'task_id, step',
	event => 'event_id',
	agent => 'name',
	model => 'name',
	state => 'agent, key',
	tool => 'name');
my %ours;
my $fingerprint;
my $retried;

# What the extension is: objects, definitions, comments, grants.
sub fingerprint_of
{
	my ($server, $dbname) = @_;
	my ($out, $err) = run_command(
		[ 'psql', '-X', '-q', '-d', $server->connstr($dbname), '-f',
			'test/fingerprint.sql' ]);

	is($err, '', "fingerprint of $dbname: no error");
	return $out;
}

# What a view answers, or a table holds, as text.  What the install script
# inserts is inserted again, so it has another time and transaction.
sub content
{
	my ($server, $relation, $order, $dbname) = @_;
	my $row =
	  $relation =~ /model|agent|tool|policy/
	  ? q{to_jsonb(x) - CASE WHEN version = 1 AND (name IN ('echo', 'default', 'sofia') OR name LIKE 'justica.%' OR to_jsonb(x) ->> 'kind' = 'builtin')
		THEN '{set_at,xid}'::text[] ELSE '{}' END}
	  : 'x.*';

	return $server->safe_psql($dbname,
		"SELECT $row FROM prometheus.$relation x ORDER BY "
		  . ($order // ($relation =~ /model|agent|tool|policy/ ? 'name, version' : 'x::text')));
}

# The restored database is as the first was.
sub check_copy
{
	my ($server, $dbname, $what) = @_;
	foreach my $relation (@facts, sort keys %views)
	{
		is(content($server, $relation, $views{$relation}, $dbname),
			$ours{$relation}, "$what: $relation");
	}
	is($server->safe_psql($dbname, 'SELECT count(*) FROM prometheus._checkpoint'),
		0, "$what: no checkpoint");
	is(fingerprint_of($server, $dbname),
		$fingerprint, "$what: objects, comments and grants");
	is( $server->safe_psql($dbname,
			q{SELECT string_agg(pg_get_userbyid(extowner) || extversion, '') = current_user || prometheus_version() FROM pg_extension WHERE extname = 'prometheus'}
		),
		't', "$what: the extension is one");
	$server->check_invariants("$what: invariants", dbname => $dbname,
		retried => [$retried]);

	# A consumer goes on where it was: three events of a batch were acknowledged.
	my $read = q{SELECT count(*) FROM prometheus_poll('reader', 1000); SELECT prometheus_ack('reader')};
	my @read = split /\n/, $server->safe_psql($dbname, "$read; $read; $read");
	is("@read[0, 2] @read[4, 5]", "@read[1, 3] 0 0", "$what: a consumer is given what it has not read");
	is($read[0] + $read[2], $ours{unread}, "$what: all of that, and no more");

	# New ids are beyond all old ones; new versions follow the old ones.
	is( $server->safe_psql($dbname,
			q{SELECT prometheus_submit('new one') > (SELECT max(task_id) FROM prometheus.task WHERE request <> 'new one')}
		),
		't', "$what: a new task has a new id");
	is( $server->safe_psql($dbname,
			q{SELECT min(n.event_id) > (SELECT max(e.event_id) FROM prometheus.event e WHERE e.task_id <> n.task_id) FROM prometheus.event n JOIN prometheus.task t USING (task_id) WHERE t.request = 'new one' GROUP BY n.task_id}
		),
		't', "$what: a new event has a new id");
	is( $server->safe_psql($dbname,
			q{SELECT prometheus_set_model('fake-fixed', options => '{"max_tokens": 5}'), prometheus_set_model('echo'), prometheus_set_agent('default', instructions => 'again'), prometheus_set_tool('tools.feel(tools.mood, int, text[])')}
		),
		'3|2|3|2', "$what: versions go on");
	is(answers($server, 'dumped', dbname => $dbname), $ours{dumped}, "$what: AS OF marks of before the dump");
	return;
}

# What a task of the clerk's did, and what its tools said.
sub tool_steps
{
	my ($server, $task_id) = @_;
	$server->wait_task($task_id, 'completed');
	return $server->safe_psql('postgres',
		"SELECT name, status, coalesce(output ->> 'content', error) FROM prometheus.step WHERE task_id = $task_id AND kind = 'tool' ORDER BY step"
	);
}

$node->init;
$node->start;
$node->create_extension;
my $installed = fingerprint_of($node, 'postgres');
$node->safe_psql('postgres',
	'CREATE ROLE alice LOGIN; GRANT prometheus_agent_user TO alice');
$node->safe_psql('postgres',
	q{GRANT SELECT ON prometheus._task TO alice;
	REVOKE EXECUTE ON FUNCTION prometheus_version() FROM prometheus_agent_user});
$fingerprint = fingerprint_of($node, 'postgres');
cmp_ok(() = $fingerprint =~ /\n/g, '>', 100, 'the fingerprint says something');
isnt($fingerprint, $installed, 'it shows what was granted and revoked');
$node->fake_agent($llm, $_, instructions => 'Be brief.')
  foreach qw(fake-echo fake-fixed fake-400 fake-500-then-ok fake-429-ms-then-ok
  fake-reasoning fake-nul fake-hang-before-headers);
$node->safe_psql('postgres',
	q{SELECT prometheus_set_model('fake-fixed', options => '{"price_in": 0.15, "price_out": 0.6}');
	SELECT prometheus_set_agent('default', instructions => 'mine');}
);
# A model that is a function, which calls each of its tools once; one writes.
$node->safe_psql('postgres', q{CREATE ROLE clerk;
	CREATE SCHEMA tools;
	GRANT USAGE ON SCHEMA tools TO clerk;
	CREATE TABLE tools.notes (note text PRIMARY KEY);
	GRANT INSERT ON tools.notes TO clerk;
	CREATE TYPE tools.mood AS ENUM ('good', 'bad');
	SET search_path = tools, public;
	CREATE FUNCTION tools.note(note text) RETURNS text LANGUAGE sql AS
		'INSERT INTO notes VALUES (note) RETURNING current_user::text';
	CREATE FUNCTION tools.feel(mood tools.mood, n int DEFAULT 1, VARIADIC words text[] DEFAULT '{}') RETURNS tools.mood
		LANGUAGE sql BEGIN ATOMIC SELECT mood; END;
	COMMENT ON FUNCTION tools.note(text) IS 'Writes it down.';
	CREATE FUNCTION tools.script(request jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('finish_reason', 'stop', 'message',
			CASE WHEN request #>> '{messages,-1,role}' = 'tool' THEN '{"role": "assistant", "content": "done"}'
			ELSE jsonb_build_object('role', 'assistant', 'tool_calls', jsonb_build_array(
				jsonb_build_object('id', 'a', 'type', 'function', 'function', jsonb_build_object('name', 'note',
					'arguments', jsonb_build_object('note', request #>> '{messages,-1,content}')::text)),
				'{"id": "b", "type": "function", "function": {"name": "feel", "arguments": "{\"mood\": \"bad\"}"}}'::jsonb)) END)))
	$$;
	SELECT prometheus_set_tool('note(text)', tier => 'write'), prometheus_set_tool('feel(mood, int, text[])'),
		prometheus_set_model('script', 'function', handler => 'script(jsonb)');
	SELECT prometheus_set_agent('clerk', 'script', tools => '{note,feel}', run_as => 'clerk', options => '{"max_turns": 3}')});
my $request = q{quotes ' " \ tab	and ça va};
$node->safe_psql('postgres',
	"SELECT prometheus_submit(\$\$$request\$\$, name, metadata => '{\"n\": 1.50}') FROM prometheus.agent WHERE name <> 'fake-hang-before-headers'"
);
$node->safe_psql('postgres', q{SET ROLE alice; SELECT prometheus_submit('of alice')});
my $later = $node->submit("'later', priority => 7, run_at => now() + interval '1 hour'");
my $cancelled = $node->submit("'cancelled', run_at => now() + interval '1 hour'");
$node->safe_psql('postgres', "SELECT prometheus_cancel($cancelled, 'no more')");
$node->submit(q{'with a key', idempotency_key => 'k'});
$node->wait_for('all is done but what is later',
	q{SELECT string_agg(task_id::text, ',') FROM prometheus.task WHERE status IN ('queued', 'running', 'retrying')},
	$later);

is( tool_steps($node,
		$node->safe_psql('postgres', q{SELECT task_id FROM prometheus.task WHERE agent = 'clerk'})),
	"note|ok|clerk\nfeel|ok|bad", 'tools were called');

# By hand, and by a crash: only with faults there is one (320).
$retried = $node->safe_psql('postgres',
	q{SELECT task_id FROM prometheus.task WHERE agent = 'fake-400'});
$node->safe_psql('postgres', "SELECT prometheus_retry($retried)");
$node->wait_for('it has failed again',
	"SELECT string_agg(outcome, ' ') FROM prometheus.attempt WHERE task_id = $retried",
	'failed failed');
$node->safe_psql('postgres',
	"INSERT INTO prometheus._strike (task_id, attempt, xid, struck_at) VALUES ($later, 1, pg_current_xact_id(), now())");

# One that is open when the dump is made, and one checkpoint.
my $open = $node->submit("'open', 'fake-hang-before-headers'");
$node->wait_task($open, 'running');
my $requests = $llm->stats->{requests};
$node->safe_psql('postgres', q{SELECT prometheus_mark('dumped')});
$node->append_conf('postgresql.conf', "prometheus.databases = ''\n");
$node->restart;
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM prometheus._checkpoint'),
	'>', 0, 'there is a checkpoint');

# Every table of ours but what is true of one server only (test 165 has more of
# eras): a new one must be dumped, too.
# What a person decided about, as the workers and he would write it.
$node->safe_psql('postgres', <<'EOSQL');
SELECT prometheus_emit('shop.order', '{"n": 1}', 'order/1');
INSERT INTO prometheus._span (span_id, xid, started_at, ended_at, owner_oid, trace_id, owner, name, status, attributes)
SELECT -1, prometheus._xid(), now(), now(), 10, '0af7651916cd43dd8448eb211c80319c', 'somebody', 'an order', 'ok', '{"n": 1.50}';
INSERT INTO prometheus._span_position (consumer, base) VALUES ('prometheus.otlp', prometheus._snapshot());
INSERT INTO prometheus._kept_trace (trace_id, kept_at) VALUES ('4bf92f35-77b3-4da6-a3ce-929d0e0e4736', now());
SELECT prometheus_create_consumer('reader', start => '-infinity');
INSERT INTO prometheus._subscription (name, owner_oid, owner, subscribed_at, ordered, timeout_ms, max_attempts, breaker_failures,
                                      handler, search_path, filter, disabled_at, disabled_reason)
SELECT 'pushed', 10, 'somebody', now(), true, 1000, 8, 5, 'public.f(prometheus.event)', 'public', '$.n > 1', now(), 'no reason';
INSERT INTO prometheus._delivery (delivery_id, event_id, created_at, next_at, attempts, strikes, mark_id, status, subscription, key)
SELECT -1, -1, now(), now(), 2, 0, 0, 'waiting', 'pushed', 'subject x';
SELECT count(*) FROM prometheus_poll('reader', 5);
SELECT prometheus_ack('reader', (SELECT event_id FROM prometheus_poll('reader', 5) OFFSET 2 LIMIT 1));
SELECT prometheus_remember('default', 'The sky is blue.');
SELECT prometheus_set_agent('limited', 'echo', options => '{"memory_limit": 2}');
SELECT prometheus_remember('limited', 'thing ' || n) FROM generate_series(1, 3) n;
SELECT prometheus_supersede_memory(prometheus_remember('default', 'The sky is red.'), 'The sky is blue at noon.');
INSERT INTO prometheus._memory_use (memory_id, xid, used_at, uses)
SELECT memory_id, prometheus._xid(), '2000-01-01', 1 FROM prometheus.memory;
INSERT INTO prometheus._evidence (memory_id, number, xid, task_id, found_at, score, confidence)
SELECT memory_id, 1, prometheus._xid(), 1, '2000-01-01', 1, 0.5 FROM prometheus.memory;
INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding) VALUES ('h', 's', prometheus._xid(), '2000-01-01', '{1,2}');
INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at, owner, agent, kind, space, hash, sketch)
SELECT memory_id, prometheus._xid(), '2000-01-01', owner, agent, kind, 's', 'h', prometheus._sketch('{1,2}') FROM prometheus.memory;
INSERT INTO prometheus._embedding_call (call_id, xid, sent_at, ended_at, texts, agent, model) VALUES (1, prometheus._xid(), '2000-01-01', '2000-01-02', 1, 'a', 'm');
INSERT INTO prometheus._evolution (task_id, iteration, step, generation, xid, ended_at, owner_oid, owner, agent, domain, level, level_after, category,
	skill, request, attempts, cases, passed, first_score, score, succeeded, weights, proposal_id, attempt_id)
VALUES (1, 1, 3, 1, prometheus._xid(), now(), 'postgres'::regrole, 'postgres', 'default', 'sums', 1, 1, 'sums', 'adding', 'Add.', 1, 3, 3, 1, 1, true, '{}', 1, 1);
SELECT prometheus_save_state('default', jsonb_build_object('n', n, 'text', repeat(md5('x'), 100))) FROM generate_series(1, 3) n;
INSERT INTO prometheus._approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, tool, policy,
                                  approvers, target_hash, arguments)
SELECT -1, min(task_id), 1, 2, prometheus._xid(), now(), now() + '1 day', 'note', 'justica.escalation',
       'prometheus_agent_admin', 'hash', '{"note": "x"}'
  FROM prometheus._task;
INSERT INTO prometheus._state_failure (task_id, event_id, xid, failed_at, key, error)
SELECT min(task_id), -3, prometheus._xid(), now(), 'last_task', 'somehow' FROM prometheus._task;
INSERT INTO prometheus._decision (approval_id, event_id, xid, decided_at, decision, decided_by)
SELECT -1, -2, prometheus._xid(), now(), 'rejected', 'somebody';
SELECT prometheus_set_policy('justica.escalation', effect => 'off');
SELECT prometheus_set_budget('all', 'day', tokens => 1000000);
SELECT prometheus_set_alert('wal_rate', '200 MB/s');
INSERT INTO prometheus._horizon (at, xid, moved_at, snapshot)
SELECT '2000-01-01', prometheus._xid(), now(), prometheus._snapshot();
INSERT INTO prometheus._audit_usage (first_task, day, xid, submitter_oid, submitter, agent, tasks, calls)
SELECT -1, '2000-01-01', prometheus._xid(), 10, 'somebody', 'gone', 1, 1;
INSERT INTO prometheus._audit_verdict (task_id, attempt, xid, judged_at, approved, policy_version, submitter_oid, submitter,
                                       agent, stage, effect, risk_level, governor, target_hash)
SELECT -1, 1, prometheus._xid(), now(), true, 1, 10, 'somebody', 'gone', 'task', 'allow', 'LOW', 'JUSTICA', 'hash';
INSERT INTO prometheus._audit_approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, submitter_oid,
                                        submitter, agent, tool, policy, approvers, target_hash, arguments)
SELECT -1, -1, 1, 2, prometheus._xid(), now(), now(), 10, 'somebody', 'gone', 'x', 'x', 'x', 'hash', '{}';
SELECT prometheus_track('tools.notes');
SELECT prometheus_track('tools.notes', false);
EOSQL

# How far the export is is no fact: a caller with none removes it.
@facts = split /\n/, $node->safe_psql('postgres',
	q{SELECT relname FROM pg_class WHERE relnamespace = 'prometheus'::regnamespace AND relkind = 'r' AND relname NOT IN ('_alert', '_checkpoint', '_era', '_gate', '_memory_entry', '_kept_trace', '_span_position') ORDER BY 1});
cmp_ok(scalar @facts, '>', 8, 'the facts are known');
$ours{$_} = content($node, $_, $views{$_}, 'postgres') foreach @facts, keys %views;
$ours{unread} = $node->safe_psql('postgres', 'SELECT count(*) - 3 FROM prometheus.event');
$ours{dumped} = answers($node, 'dumped');
cmp_ok(length $ours{$_}, '>', 0, "there is something in $_") foreach sort keys %ours;

# Another database of the same server.
my $dump = PostgreSQL::Test::Utils::tempdir() . "/dump";
$node->command_ok([ 'pg_dump', '-f', "$dump.sql", 'postgres' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok(
	[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dump.sql", 'copy' ],
	'restored by psql');
check_copy($node, 'copy', 'database');
$node->safe_psql('copy', q{SELECT prometheus_remember('limited', 'thing 4', importance => 0.6)});
is($node->safe_psql('copy', q{SELECT count(*), count(*) FILTER (WHERE content = 'thing 4') FROM prometheus.memory WHERE agent = 'limited'}),
	'2|1', 'database: memories that are restored count');

# In parallel, and in one transaction, from one file.
sub facts_of
{
	my ($dbname) = @_;
	return $node->safe_psql($dbname, join ' UNION ALL ', map { "SELECT '$_', md5(string_agg((to_jsonb(x) - '{set_at,xid}'::text[])::text, ',' ORDER BY to_jsonb(x) - '{set_at,xid}'::text[])) FROM prometheus.$_ x" } @facts);
}
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dump.c", 'postgres' ], 'pg_dump -Fc');
foreach my $how ([ 'parallel', '-j4' ], [ 'transaction', '--single-transaction' ])
{
	$node->safe_psql('postgres', "CREATE DATABASE $how->[0]");
	$node->command_ok([ 'pg_restore', '--exit-on-error', $how->[1], '-d', $how->[0], "$dump.c" ], "restored with $how->[1]");
	is(facts_of($how->[0]), facts_of('postgres'), "$how->[0]: every fact");
	is(answers($node, 'dumped', dbname => $how->[0]), $ours{dumped}, "$how->[0]: AS OF");
}

# A dump of the schema has nothing, unless it is to have the extension.
$node->command_ok([ 'pg_dump', '-n', 'prometheus', '-f', "$dump.n", 'postgres' ], 'pg_dump -n');
unlike(slurp_file("$dump.n"), qr/^(COPY|INSERT|CREATE) /m, '-n: there is nothing in it');
$node->command_ok([ 'pg_dump', '-n', 'prometheus', '-e', 'prometheus', '-f', "$dump.e", 'postgres' ], 'pg_dump -n -e');
$node->safe_psql('postgres', 'CREATE DATABASE with_extension');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dump.e", 'with_extension' ], '-n -e: restored');
is(facts_of('with_extension'), facts_of('postgres'), '-n -e: every fact');
is(answers($node, 'dumped', dbname => 'with_extension'), $ours{dumped}, '-n -e: AS OF');

# Another server: with its roles, in parallel.
$other->init(databases => []);
$other->start;
$node->command_ok([ 'pg_dumpall', '--roles-only', '-f', "$dump.roles" ], 'pg_dumpall');
$node->command_ok([ 'pg_dump', '-Fd', '-j2', '-f', "$dump.d", 'postgres' ],
	'pg_dump in parallel');
# So that no role has the oid that it had.
$other->safe_psql('postgres', 'CREATE ROLE first');
$other->psql('postgres', '', extra_params => [ '-q', '-f', "$dump.roles" ],
	on_error_stop => 0);
$other->command_ok(
	[ 'pg_restore', '-j2', '--exit-on-error', '-d', 'postgres', "$dump.d" ],
	'restored by pg_restore');
check_copy($other, 'postgres', 'server');
is( $other->safe_psql('postgres',
		q{SELECT string_agg(request, ',') FROM prometheus.task WHERE submitter = 'alice'}
	),
	'of alice',
	'server: the submitter is known by name');

# There, too, what is open is found and goes on, when the copy is resumed.
$node->stop;
is( $other->safe_psql('postgres',
		q{DELETE FROM prometheus._gate WHERE target = 'all' RETURNING reason}),
	'this database is a copy: SELECT prometheus_resume() lets it run',
	'server: the copy was paused');
my $log = $other->log_end;
$other->append_conf('postgresql.conf', "prometheus.databases = 'postgres'\n");
$other->restart;
$other->wait_for('server: the new task runs',
	q{SELECT status FROM prometheus.task WHERE request = 'new one'}, 'completed');
$llm->wait_requests($requests + 1);
is( $other->safe_psql('postgres',
		"SELECT string_agg(coalesce(outcome, 'open'), ' ' ORDER BY attempt) FROM prometheus.attempt WHERE task_id = $open"
	),
	'lost open', 'server: what was open goes on');
is( $other->safe_psql('postgres',
		"SELECT status, priority, why FROM prometheus.queue WHERE task_id = $later"),
	'queued|7|is not due yet',
	'server: what is later is in the queue');

# The functions are the same ones.  The role is not known to be the same one: who
# has it must say so.
is( tool_steps($other, $other->submit("'here', 'clerk'")),
	"note|error|the role that it is to run as does not exist any more\n"
	  . 'feel|error|the role that it is to run as does not exist any more',
	'server: nothing runs as a role of another oid');
$other->safe_psql('postgres', q{SELECT prometheus_set_agent('clerk', run_as => 'clerk')});
is(tool_steps($other, $other->submit("'here', 'clerk'")),
	"note|ok|clerk\nfeel|ok|bad", 'server: tools are called when it is set again');
is($other->safe_psql('postgres', q{SELECT count(*) FROM tools.notes WHERE note = 'here'}),
	1, 'server: and do what they do');
$other->safe_psql('postgres',
	"SELECT prometheus_cancel($open), prometheus_cancel($later)");
$other->wait_task($_, 'cancelled') foreach $open, $later;
$other->check_invariants('server: invariants', all_ended => 1,
	retried => [$retried]);
is($other->log_count(qr/ (ERROR|WARNING|PANIC): /, $log), 0, 'server: nothing to warn of');
$other->stop;
$llm->stop;
done_testing();
