# What was kept for long enough goes: whole trees of tasks that have ended, and
# versions that nothing needs.  Nothing else goes, and nobody waits for it.
use strict;
use warnings FATAL => 'all';
use feature 'state';

use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PromCluster->new('main');
my @relations;
my %task;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Submit tasks, each a name and the arguments, and wait for their end.  In the
# arguments, a name in angle brackets is the id of one that was submitted before.
sub ended
{
	my @new = @_;
	foreach (@new)
	{
		my ($name, $arguments) = @$_;
		$arguments =~ s/<([a-z ]+)>/$task{$1}/g;
		$task{$name} = $node->submit($arguments);
	}
	my $ids = join ',', map { $task{ $_->[0] } } @new;
	$node->wait_for('they have ended', "SELECT count(*) FROM prometheus.task WHERE ended_at IS NOT NULL AND task_id IN ($ids)", scalar @new);
	return;
}

# Let facts of tasks be as old as that.
sub age
{
	my ($days, @names) = @_;
	my $ids = join ',', map { $task{$_} } @names;
	my $by = "- interval '$days days'";

	sql(qq{UPDATE prometheus._task SET submitted_at = submitted_at $by, deadline = deadline $by WHERE task_id IN ($ids) AND run_at IS NULL;
		UPDATE prometheus._task SET submitted_at = submitted_at $by WHERE task_id IN ($ids) AND run_at IS NOT NULL;
		UPDATE prometheus._attempt SET started_at = started_at $by WHERE task_id IN ($ids);
		UPDATE prometheus._outcome SET ended_at = ended_at $by WHERE task_id IN ($ids);
		UPDATE prometheus._step SET started_at = started_at $by, ended_at = ended_at $by WHERE task_id IN ($ids);
		UPDATE prometheus._retry SET retried_at = retried_at $by WHERE task_id IN ($ids)});
	return;
}

# The names of the tasks that are there.
sub there
{
	my %name = reverse %task;
	return join ' ', sort map { $name{$_} // "?$_" } split /\n/, sql('SELECT task_id FROM prometheus._task');
}

# What the audit is for: it does not change when the tasks go.
sub audit
{
	my ($role) = @_;
	return sql(join ';', "SET ROLE $role", map { "SELECT count(*) || E'\n' || coalesce(string_agg(x::text, E'\n' ORDER BY x::text), '') FROM prometheus.$_ x" } qw(verdict approval usage));
}

sub set_retention
{
	my ($value, $name) = @_;
	$name //= 'retention';
	sql("ALTER SYSTEM SET prometheus.$name = '$value'");
	sql('SELECT pg_reload_conf()');
	return;
}

# A pass, from its beginning to its end: it deletes old audit rows last.  One
# begins at once when a setting has changed.
sub wait_pass
{
	my ($what) = @_;
	state $days = 730;
	sql(q{INSERT INTO prometheus._audit_usage (first_task, day, xid, submitter_oid, submitter, agent, tasks, calls)
		VALUES (0, '2000-01-01', prometheus._xid(), 10, 'nobody', 'probe', 1, 1)});
	set_retention(++$days . 'd', 'retention_audit');
	$node->wait_for("$what: a pass", q{SELECT count(*) FROM prometheus._audit_usage WHERE agent = 'probe'}, 0);
	return;
}

$node->init(conf => "prometheus.retention = 0\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
is(sql('SHOW prometheus.retention_audit'), '730d', 'the audit is kept for two years');
sql(q{CREATE ROLE alice; GRANT prometheus_agent_user TO alice;
	CREATE ROLE bob; GRANT prometheus_agent_user TO bob;
	CREATE FUNCTION look(n int) RETURNS int LANGUAGE sql AS 'SELECT n';
	SELECT prometheus_set_tool('look(int)'), prometheus_set_model('m', 'echo');
	SELECT prometheus_set_agent('a', 'm'), prometheus_set_agent('tools', 'scripted', tools => '{look}')});

# Of age: one alone, one with tools, a tree of three, one with a key.  Of age,
# but of a tree that is not: by its child, by what it depends on.
ended(
	[ alone => q{'alone'} ],
	[ tools => $node->script([ [ 'look', { n => 1 } ] ], 'end') . ", 'tools'" ],
	[ 'tree parent' => q{'x'} ],
	[ 'tree child' => q{'x'} ],
	[ 'tree dependent' => q{'x', depends_on => ARRAY[<tree parent>]} ],
	[ key => q{'x', idempotency_key => 'old'} ],
	[ 'held by dependent' => q{'x', 'a'} ],
	[ 'held by child' => q{'x'} ],
	[ 'young parent' => q{'x', 'a'} ],
	[ 'held by parent' => q{'x', depends_on => ARRAY[<young parent>]} ],
	[ young => q{'x', idempotency_key => 'new'} ]);
$task{alice} = sql(q{SET ROLE alice; SELECT prometheus_submit('of alice')});
$node->wait_task($task{alice}, 'completed');
my @old = ('alone', 'tools', 'tree parent', 'tree child', 'tree dependent', 'key', 'alice');

# By who depends on it; and those that have not ended.
sql(q{SELECT prometheus_set_model('m', options => '{"max_concurrent": 3}'), prometheus_set_agent('a', instructions => 'two')});
sql(q{SELECT prometheus_set_agent('a', instructions => 'three')});
sql(q{SELECT prometheus_set_agent('a', instructions => 'four')});
ended([ 'young dependent' => q{'x', depends_on => ARRAY[<held by dependent>]} ]);
$task{$_} = $node->submit(q{'x', run_at => now() + interval '1 day'}) foreach 'live child', 'waits';
sql(qq{UPDATE prometheus._task SET parent_id = $task{'tree parent'}, parent_step = 1, depth = 1 WHERE task_id = $task{'tree child'};
	UPDATE prometheus._task SET parent_id = $task{'held by child'}, parent_step = 1, depth = 1 WHERE task_id = $task{'live child'}});

# It had failed, and was retried by hand: it lives.
sql(q{SELECT prometheus_pause('agent:a')});
sql(q{CREATE FUNCTION broken(jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
	SELECT prometheus_set_model('broken', 'function', handler => 'broken(jsonb)'), prometheus_set_agent('broken', 'broken')});
ended([ retried => q{'x', 'broken', max_attempts => 1} ], [ failed => q{'x', 'broken', max_attempts => 1} ]);
sql(q{SELECT prometheus_pause('agent:broken')});
is(sql("SELECT prometheus_retry($task{retried})"), 't', 'one is retried');
push @old, 'failed';

# Approvals, as the workers would write them.
sql(qq{INSERT INTO prometheus._approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, tool, policy, approvers, target_hash, arguments)
	SELECT n, id, 1, 2, prometheus._xid(), now(), now() - n * interval '1 hour', 'look', 'p', 'prometheus_agent_admin', 'h', '{}'
	  FROM unnest('{$task{alone},$task{alice},$task{young}}'::bigint[]) WITH ORDINALITY x(id, n);
	INSERT INTO prometheus._decision (approval_id, event_id, xid, decided_at, decision, decided_by)
	VALUES (2, -2, prometheus._xid(), now(), 'rejected', 'somebody')});

# Versions: of an agent that a task which stays has pinned, of one that is not
# used any more, of a budget, of memories; of a policy.
my $remembered = sql(q{SELECT prometheus_remember('a', 'to be forgotten')});
sql("SELECT prometheus_forget($remembered)");
sql(q{SELECT prometheus_remember('a', 'is kept')});
sql(q{SELECT prometheus_remember('a', 'has expired', 'resource'), prometheus_remember('a', 'expires', 'resource', ttl => '50 days'), prometheus_remember('a', 'is used')});
my $superseded = sql(q{SELECT prometheus_remember('a', 'was wrong')});
sql("SELECT prometheus_supersede_memory($superseded, 'is right')");
sql(qq{INSERT INTO prometheus._memory_use (memory_id, xid, used_at, uses) SELECT memory_id, prometheus._xid(), now() - n * interval '11 days', 9 - n FROM prometheus._memory, generate_series(1, 5) n WHERE version = 1;
	INSERT INTO prometheus._evidence (memory_id, number, xid, task_id, found_at, confidence) SELECT memory_id, n, prometheus._xid(), $task{young}, now(), 0.5 FROM prometheus._memory, generate_series(1, 2) n WHERE version = 1;
	INSERT INTO prometheus._memory_entry (owner_oid, owner, agent, kind, entry_id, first_entry, place, memory_id, xid) SELECT owner_oid, owner, agent, content, n, greatest(n, 1), 0, memory_id, prometheus._xid() FROM prometheus._memory, generate_series(1, 3) n WHERE version = 1});

# Each of them has two embeddings, one of a space of before; one text is nobody's.
sql(q{INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding) SELECT md5(content || s), s, prometheus._xid(), now() - interval '35 days', '{1}' FROM prometheus._memory, unnest('{new,old}'::text[]) s WHERE version = 1;
	INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at, owner, agent, kind, space, hash, sketch)
	SELECT memory_id, prometheus._xid(), now() - d * interval '1 day', owner, agent, kind, s, md5(content || s), '' FROM prometheus._memory, (VALUES ('new', 35), ('old', 36)) v (s, d) WHERE version = 1;
	INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding) SELECT n, 'new', prometheus._xid(), now() - n * interval '1 day', '{1}' FROM unnest('{20,40}'::int[]) n;
	INSERT INTO prometheus._embedding_call (call_id, xid, sent_at, ended_at, texts, agent, model) SELECT n, prometheus._xid(), now(), now() - n * interval '1 day', 1, 'a', 'm' FROM unnest('{20,40}'::int[]) n});

# Another one's agent has gone back to the space of before: both are of use.
sql(q{SELECT prometheus_set_model('vectors', 'openai', 'https://example.com/v1', 'old'), prometheus_remember('again', 'goes back');
	INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding) SELECT prometheus._hash('embedding', s || ' of ' || owner, content), s, prometheus._xid(), now() - interval '35 days', '{1}' FROM prometheus._memory, unnest('{new,old}'::text[]) s WHERE agent = 'again';
	INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at, owner, agent, kind, space, hash, sketch)
	SELECT memory_id, prometheus._xid(), now() - d * interval '1 day', owner, agent, kind, s, prometheus._hash('embedding', s || ' of ' || owner, content), '' FROM prometheus._memory, (VALUES ('new', 35), ('old', 36)) v (s, d) WHERE agent = 'again'});
sql(q{SELECT prometheus_set_agent('again', 'm', options => '{"embedding_model": "vectors"}')});
sql(join ';', (q{SELECT prometheus_set_agent('unused', 'm')}) x 3,
	map { "SELECT prometheus_set_budget('agent:unused', 'hour', tokens => $_)" } qw(1 2 3 NULL));
sql(q{SELECT prometheus_set_policy('justica.learning', effect => 'off')});
sql(q{SELECT prometheus_set_tool('look(int)'), prometheus_set_model('m')});
sql(join ';', map { "UPDATE prometheus.$_ SET set_at = set_at - interval '40 days'" } qw(_agent _model _tool _policy _budget));
sql(q{UPDATE prometheus._memory SET created_at = created_at - interval '40 days', expires_at = expires_at - interval '40 days'});
sql(q{SELECT prometheus_set_agent('unused', instructions => 'young')});

# States: small ones; and one whose newest version is stored by the fourth.
sql("SELECT prometheus_save_state('a', '$_')") foreach 1 .. 3;
foreach my $start (0, 1000, 2000)
{
	sql("SELECT prometheus_save_state('a', to_jsonb((SELECT string_agg(sha256((i + $start)::text::bytea)::text, '') FROM generate_series(1, 200) i)), 'long')");
	sql("SELECT prometheus_save_state('a', to_jsonb((prometheus_state('a', 'long') #>> '{}') || 'more'), 'long')") if $start > 0;
}
is(sql(q{SELECT string_agg(concat(base_version, '<', version), ' ' ORDER BY version) FROM prometheus._state WHERE key = 'long'}),
	'<1 <2 2<3 <4 4<5', 'a state is stored as changes of a key frame');
my $long = sql(q{SELECT prometheus_state('a', 'long')});
sql(q{UPDATE prometheus._state SET saved_at = saved_at - interval '40 days'});
sql(q{SELECT prometheus_save_state('a', '4')});

# Rows of tracked tables; what one task did that goes, and one that stays.
sql(q{CREATE TABLE kept (id int PRIMARY KEY, words text); CREATE TABLE dropped (id int PRIMARY KEY); CREATE TABLE ended (id int PRIMARY KEY);
	INSERT INTO kept SELECT i, 'begin' FROM generate_series(1, 8) i; INSERT INTO dropped VALUES (1); INSERT INTO ended VALUES (1), (2);
	SELECT prometheus_track(t) FROM unnest('{kept,dropped,ended}'::regclass[]) t});
sub change
{
	my ($name, @statements) = @_;
	my $from = sql('SELECT max(version_id) FROM prometheus._row_version');

	sql($_) foreach @statements;
	sql("UPDATE prometheus._row_version SET task_id = $task{$name}, step = 2 WHERE version_id > $from") if defined $name;
	return;
}
change(undef, (q{UPDATE kept SET words = words || '.' WHERE id < 8}) x 2, 'DELETE FROM kept WHERE id IN (2, 3)', q{INSERT INTO kept VALUES (3, 'again')},
	q{ALTER TABLE kept ADD more text}, q{UPDATE kept SET more = 'before' WHERE id IN (4, 7)});
change('alone', q{UPDATE kept SET more = 'alone' WHERE id = 5}, 'DELETE FROM ended WHERE id = 1');
change('held by dependent', q{UPDATE kept SET more = 'held' WHERE id = 4}, 'DELETE FROM kept WHERE id = 7', q{INSERT INTO kept VALUES (9, 'held')});
change(undef, (q{UPDATE kept SET words = 'since' WHERE id IN (4, 5)}) x 2, 'DROP TABLE dropped', q{SELECT prometheus_track('ended', false)});
is(sql(q{SELECT reason FROM prometheus._track WHERE relation = 'public.dropped' AND event = 'ended'}), 'the table was dropped', 'a track ends with its table');
my $undo = "SELECT key, operation, verdict, restored_row FROM prometheus_undo($task{'held by dependent'})";
my $undone = sql($undo);
is($undone, q({"id": "4"}|update|conflict|{"id": "4", "more": "before", "words": "begin.."}
{"id": "7"}|delete|revert|{"id": "7", "more": "before", "words": "begin.."}
{"id": "9"}|insert|revert|), 'what a task changed');
sql(q{UPDATE prometheus._row_version SET changed_at = changed_at - interval '40 days';
	UPDATE prometheus._track SET recorded_at = recorded_at - interval '40 days'});
my $tracked = sql('SELECT * FROM kept ORDER BY id');

age(40, @old, 'held by dependent', 'held by child', 'held by parent', 'retried', 'waits');

# A mark saw that, long ago.
sql(q{SELECT prometheus_mark('named')});
sql(q{UPDATE prometheus._mark SET at = at - interval '35 days'});
sql(q{SELECT prometheus_forget(prometheus_remember('a', 'forgotten late'))});
sql(q{UPDATE kept SET words = 'young' WHERE id IN (1, 6); DELETE FROM kept WHERE id = 8});
my $policies = sql('SELECT count(*) FROM prometheus._policy');
my %audit = map { $_ => audit($_) } qw(postgres alice bob);
like($audit{postgres}, qr/look/, 'there is something to be audited');

# For ever; and while all is paused.
is(sql('SELECT count(*) FROM prometheus._horizon'), 0, 'for ever: there is no horizon');
sql('SELECT prometheus_pause()');
# What a publisher has done last is seen, unless it has done something else
# since: then there is another pass.
my $paused = 0;
my $end = time + $PostgreSQL::Test::Utils::timeout_default;
for (my $n = 0; !$paused && time < $end; $n++)
{
	set_retention($n % 2 == 0 ? '30d' : '29d');
	foreach (1 .. 100)
	{
		$paused = sql(q{SELECT state || ' ' || query FROM pg_stat_activity WHERE backend_type = 'prometheus publisher'}) eq 'idle moving the horizon of retention';
		last if $paused;
		usleep(10_000);
	}
}
ok($paused, 'a pass finds that all is paused');
set_retention('30d');
is(there() . sql('SELECT count(*) FROM prometheus._horizon'), join(' ', sort keys %task) . 0, 'paused: all are there');

# A transaction that is open, and may tie something to a task, before the first
# pass that is not paused.
my $open = $node->background_psql('postgres');
$open->query_safe('BEGIN; SELECT pg_current_xact_id()');
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql('SELECT prometheus_resume()');
set_retention('31d');
$node->wait_for('the horizon is there', q{SELECT at < now() - interval '30 days' FROM prometheus._horizon});
is(there(), join(' ', sort keys %task), 'a transaction is open: all are there');
$open->query_safe("SELECT prometheus_submit('too late', depends_on => ARRAY[$task{young}], run_at => now() + interval '1 day')");

# Nothing is tied to what may go at any moment.
my $error = $node->error_of("SELECT prometheus_submit('x', depends_on => ARRAY[$task{'held by dependent'}])");
is($error->{state}, '55000', 'nothing can depend on a task that has ended before the horizon');
like($error->{hint}, qr/prometheus\.retention/, '... and why is said');
is($node->error_of("SELECT prometheus_retry($task{failed})")->{state}, '55000', 'nor can it be retried');
$task{'too late'} = $open->query_safe('SELECT max(task_id) FROM prometheus._task');
$open->query_safe('COMMIT');
$open->quit;

# They go, and only they.
my %left = map { $_ => 1 } keys %task;
delete @left{@old};
$node->wait_for('the old ones have gone', 'SELECT count(*) FROM prometheus._task', scalar keys %left);
wait_pass('tasks');
is(there(), join(' ', sort keys %left), 'whole trees have gone, and nothing else');
is($reader->query_safe("SELECT count(*) FROM prometheus._task WHERE task_id = $task{alone}"), 1, 'who reads sees what he saw');
$reader->query_safe('COMMIT');
$reader->quit;

# What an agent has done last is a version of its state, which has rules of its own.
@relations = split /\n/, sql(q{SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'task_id'
	WHERE relnamespace = 'prometheus'::regnamespace AND relkind = 'r' AND relname !~ '^_audit|^_state$'});
cmp_ok(scalar @relations, '>', 8, 'the relations are known');
is(sql(join ' UNION ALL ', map { "SELECT '$_' FROM prometheus.$_ x WHERE task_id NOT IN (SELECT task_id FROM prometheus._task)" } @relations),
	'', 'nothing is left behind');
is(sql('SELECT count(*) FROM prometheus._decision WHERE approval_id NOT IN (SELECT approval_id FROM prometheus._approval)'), 0, 'nor a decision');
is(audit($_), $audit{$_}, "the audit is what it was for $_") foreach sort keys %audit;
$node->check_invariants('invariants', retried => [ $task{retried} ]);

# Keys live as long as their tasks.
is(sql(q{SELECT prometheus_submit('x', idempotency_key => 'new')}), $task{young}, 'a key stays with its task');
ended([ 'key again' => q{'x', idempotency_key => 'old'} ]);
cmp_ok($task{'key again'}, '>', $task{young}, 'and goes with it');

# Versions.
is(sql(q{SELECT name || ' ' || string_agg(version::text, ',' ORDER BY version) FROM prometheus._agent WHERE name IN ('a', 'unused') GROUP BY name ORDER BY 1}),
	"a 1,4\nunused 1,3,4", 'versions of agents: the first, the newest, the one at the horizon, and what is pinned');
is(sql(q{SELECT string_agg(version::text, ',' ORDER BY version) FROM prometheus._model WHERE name = 'm'}), '1,3', 'versions of models: what is pinned');
is(sql(q{SELECT string_agg(version::text, ',' ORDER BY version) FROM prometheus._tool WHERE name = 'look'}), '1,2', 'versions of tools');
is(sql(q{SELECT string_agg(version::text, ',' ORDER BY version) FROM prometheus._budget}), '1,4', 'versions of budgets');
is(sql(q{SELECT string_agg(version::text || content, ',' ORDER BY memory_id, version) FROM prometheus._memory}), '1is kept,1expires,1is used,1is right,1goes back,1forgotten late,2forgotten late',
	'versions of memories: nothing of what was forgotten, superseded or had expired at the horizon');
is(sql(q{SELECT content || ' ' || string_agg(extract(day FROM date_trunc('day', now() - used_at))::text, ',' ORDER BY used_at DESC) FROM prometheus._memory_use JOIN prometheus._memory USING (memory_id) GROUP BY content ORDER BY content}),
	"expires 11,22,33,44\nis kept 11,22,33,44\nis right 11,22,33,44\nis used 11,22,33,44", 'their uses: the newest at the horizon, and what came after it');
is(sql(q{SELECT count(*) FROM prometheus._memory_use WHERE memory_id NOT IN (SELECT memory_id FROM prometheus._memory)}), 0, 'and none of those that have gone');
is(sql(q{SELECT string_agg(DISTINCT content, ',' ORDER BY content) FROM prometheus._evidence LEFT JOIN prometheus._memory USING (memory_id)}), 'expires,is kept,is right,is used', 'nor evidence');
is(sql(q{SELECT string_agg(kind || ' ' || entry_id, ',' ORDER BY kind, entry_id) FROM prometheus._memory_entry}), 'expires 3,is kept 3,is right 3,is used 3', 'lists of memories: what nobody reads any more, and of those that have gone');
is(sql(q{SELECT string_agg(content || ' ' || space, ', ' ORDER BY content, space) FROM prometheus._memory_embedding e LEFT JOIN prometheus._memory m ON m.memory_id = e.memory_id AND m.version = 1}),
	'expires new, goes back new, goes back old, is kept new, is right new, is used new', 'nor embeddings, and none of a space of before that does not count');
is(sql(q{SELECT string_agg(coalesce(content, hash), ', ' ORDER BY hash ~ '^..$', content) FROM prometheus._embedding v LEFT JOIN (prometheus._memory_embedding e JOIN prometheus._memory m ON m.memory_id = e.memory_id AND m.version = 1) USING (hash)}),
	'expires, goes back, goes back, is kept, is right, is used, 20', 'what was made of texts that no memory has is gone, in time');
is(sql(q{SELECT string_agg(call_id::text, ',') FROM prometheus._embedding_call}), 20, 'and so are the requests');
is(sql("SELECT prometheus_restore_memory($remembered)"), 'f', 'what has gone cannot be brought back');
is(sql(q{SELECT string_agg(version::text, ',' ORDER BY version) FROM prometheus._state WHERE key = 'state'}), '1,3,4', 'versions of states');
is(sql(q{SELECT string_agg(version::text, ',' ORDER BY version) FROM prometheus._state WHERE key = 'long' AND version <> 2}), '1,4,5', '... and the key frame of one that stays');
is(sql(q{SELECT prometheus_state('a', 'long')}), $long, '... which can be read');
is(sql('SELECT count(*) FROM prometheus._policy'), $policies, 'policies stay');
is(sql(q{SELECT key || ' ' || string_agg(operation || coalesce(' ' || array_to_string(fields[2:], ' '), ''), ', ' ORDER BY version_id) FROM prometheus._row_version GROUP BY key ORDER BY 1}),
	q(1 update begin.., update young
3 insert again
4 update begin.. before, update begin.. held, update since held, update since held
5 update since alone
6 update begin.., update young
7 update begin.. before, delete
8 begin begin, delete
9 insert held), 'versions of rows: the one at the horizon, what came after it, and what an undo of a task that is there needs');
is(sql('SELECT DISTINCT relation FROM prometheus._track'), 'public.kept', 'nothing is left of a table that was dropped, or is not tracked any more');
is(sql($undo), $undone, 'the undo lists what it did before');
is(sql(q{SELECT * FROM prometheus_rows_at(NULL::kept, (SELECT at FROM prometheus._horizon)) ORDER BY id}), $tracked, 'at the horizon all rows are there');
is($node->error_of(q{SELECT * FROM prometheus_rows_at(NULL::kept, (SELECT at - interval '1 s' FROM prometheus._horizon))})->{state}, '55000', 'but not before it');
is(sql("SELECT prometheus_prompt($task{'held by dependent'}, 1) IS NOT NULL AND prometheus_trace($task{'young dependent'}) IS NOT NULL"), 't', 'what stays can be read');


# AS OF begins at the horizon.
is($node->error_of("SET prometheus.as_of = '@{[ sql(q{SELECT at - interval '1 second' FROM prometheus._horizon}) ]}'; SELECT count(*) FROM prometheus.task")->{state},
	'55000', 'AS OF: nothing is known of what was before the horizon');
is(sql(q{SET prometheus.as_of = 'mark:named'; SELECT count(*) FROM prometheus.agent WHERE name IN ('a', 'unused')}), 2, 'AS OF: at the horizon all is there');
is(sql(q{SET prometheus.as_of = 'mark:named'; SELECT string_agg(name || version, ' ' ORDER BY name) FROM prometheus.agent WHERE name IN ('a', 'unused')}),
	'a4 unused4', 'AS OF: in the versions of then');
is(sql(q{SELECT count(*) FROM prometheus._mark WHERE at < (SELECT at FROM prometheus._horizon)}), 0, 'marks of before have gone');

# A server that starts finds what lives.
my $queue = q{SELECT string_agg(task_id::text, ' ' ORDER BY task_id) FROM prometheus.queue};
my $live = sql($queue);
$node->restart;
$node->wait_for('a start finds the same', $queue, $live);

# Two that read as of then: by one snapshot, and by a new one each time.
my $then = q{SELECT count(*), md5(string_agg(x::text, ',' ORDER BY x::text)) FROM prometheus.task x};
my ($old, $new) = map {
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe("BEGIN ISOLATION LEVEL $_; SET LOCAL prometheus.as_of = 'mark:named'");
	$session;
} 'REPEATABLE READ', 'READ COMMITTED';
my $seen = $old->query_safe($then);
is($new->query_safe($then), $seen, 'AS OF: two read the same');

# What a budget counts now stays, however short retention is.
sql(q{SELECT prometheus_set_budget('all', 'day', tokens => 1000000)});
set_retention('1s');
wait_pass('budget');
is(sql(q{SELECT at < now() - interval '1 day' FROM prometheus._horizon}), 't', 'the current period of a budget stays');
is(sql(q{SELECT count(*) FROM prometheus.task WHERE task_id = } . $task{'key again'}), 1, '... and the tasks of it');
sql(q{SELECT prometheus_set_budget('all', 'day', tokens => NULL)});
$node->wait_for('without it they go', 'SELECT count(*) FROM prometheus._task WHERE task_id = ' . $task{'key again'}, 0);
is(sql(q{SELECT count(*) FROM prometheus.task WHERE status IN ('queued', 'retrying', 'running')}), 4, 'what lives stays');
$node->wait_for('a row has one version, which is the newest', q{SELECT string_agg(key || ' ' || array_to_string(fields[2:], ' '), ', ' ORDER BY key) FROM prometheus._row_version},
	sql(q{SELECT string_agg(concat_ws(' ', id, words, more), ', ' ORDER BY id) FROM kept}));

like($node->error_of(q{SET prometheus.as_of = 'mark:named'; SELECT count(*) FROM prometheus.task})->{message}, qr/is not kept any more/,
	'AS OF: a mark with a name is there, but not what it saw');
is($old->query_safe($then), $seen, 'AS OF: a snapshot of before has it all');
$new->query($then);
like($new->{stderr}, qr/is not kept any more/, 'AS OF: one of after knows that it is gone');
$_->quit foreach $old, $new;

# A horizon does not move back.
my $horizon = sql('SELECT at FROM prometheus._horizon');
set_retention('100d');
wait_pass('longer');
cmp_ok(sql("SELECT at >= '$horizon' FROM prometheus._horizon"), 'eq', 't', 'the horizon does not move back');

# The audit goes as well, in its time.
cmp_ok(sql('SELECT count(*) FROM prometheus.verdict'), '>', 5, 'there is an audit');
set_retention('1s', 'retention_audit');
$node->wait_for('the audit goes', 'SELECT (SELECT count(*) FROM prometheus._audit_verdict) + (SELECT count(*) FROM prometheus._audit_approval) + (SELECT count(*) FROM prometheus._audit_usage)', 0);
is($node->log_count(qr/ (ERROR|PANIC): .*(?:retention|lock)/), 0, 'no error');

# An undo that is not committed; one that was planned; and a lock that lasts.
set_retention(0);
ended([ reverted => q{'x'} ], [ planned => q{'x'} ]);
change('reverted', q{UPDATE kept SET more = 'reverted' WHERE id = 6});
change('planned', q{UPDATE kept SET more = 'planned' WHERE id = 1});
my $rows = q{SELECT string_agg(concat_ws(' ', id, words, more), ', ' ORDER BY id) FROM kept};
my ($undoer, $planner, $locker) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 3;
$undoer->query_safe("BEGIN; SELECT prometheus_undo($task{reverted}, false)");
my $plan = "SELECT key, verdict, restored_row FROM prometheus_undo($task{planned})";
my $planned = sql($plan);
like($planned, qr/revert/, 'an undo is planned');
my $seen_task = "SELECT count(*) FROM prometheus.task WHERE task_id = $task{planned}";
is($planner->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; $seen_task"), 1, '... by one who sees the task for long');
# The pass that begins then is the last one before the undo ends.
$node->wait_for('a mark after them that is old enough', "SELECT EXISTS (SELECT FROM prometheus._mark WHERE at < clock_timestamp() - interval '1 s' AND at > (SELECT max(ended_at) FROM prometheus._outcome WHERE task_id IN ($task{reverted}, $task{planned})))");
set_retention('1s');
$node->wait_for('the horizon passes them', "SELECT at > (SELECT max(ended_at) FROM prometheus._outcome WHERE task_id IN ($task{reverted}, $task{planned})) FROM prometheus._horizon");
$locker->query_safe("BEGIN; SELECT FROM prometheus._step WHERE task_id = $task{planned} FOR KEY SHARE");
is(sql("SELECT count(*) FROM prometheus._task WHERE task_id IN ($task{reverted}, $task{planned})"), 2, 'they stay while the undo is open');
$undoer->query_safe('COMMIT');
$node->wait_for_log(qr/ERROR:  canceling statement due to lock timeout/);
$task{meanwhile} = $node->submit(q{'meanwhile'});
$node->wait_task($task{meanwhile}, 'completed');
is(sql("SELECT count(*) FROM prometheus._step JOIN prometheus._outcome USING (task_id) JOIN prometheus._task USING (task_id) WHERE task_id IN ($task{reverted}, $task{planned})"),
	2, 'a lock: retention gives up, and nobody waits for it');
is(sql($plan), $planned, '... and all of the task is there');
$locker->query_safe('COMMIT');
set_retention('2s');
$node->wait_for('it goes on', "SELECT count(*) FROM prometheus._task WHERE task_id IN ($task{reverted}, $task{planned})", 0);
my $now = sql($rows);
like($now, qr/^1 young planned, .*6 young, /, 'the undo that was committed has been done');
is($planner->query_safe($seen_task), 1, 'who sees the task still sees it');
$planner->query($plan =~ s/\)$/, false)/r);
like($planner->{stderr}, qr/does not exist/, '... but the undo that was planned is refused');
$_->quit foreach $undoer, $planner, $locker;
is(sql($rows), $now, '... and has changed nothing');
$node->wait_for('of each row the newest version stays', q{SELECT string_agg(concat_ws(' ', key, array_to_string(fields[2:], ' ')), ', ' ORDER BY key) FROM prometheus._row_version}, $now);
is($node->log_count(qr/ (ERROR|PANIC): .*(?:retention|lock)/), $node->log_count(qr/ERROR: .*lock timeout/), 'no other error');
$node->stop;
done_testing();
