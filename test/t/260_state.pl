# States over many versions: what they take on disk, that each comes back, also
# from a dump and in another encoding; many who save at once; the tools; moments.
use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');
$node->keep_sessions;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The versions that are not what was saved.
sub differ
{
	my ($dbname) = @_;
	return $node->safe_psql($dbname,
		"SELECT count(*) || ' of ' || count(*) FILTER (WHERE hash_of(v.value) IS DISTINCT FROM k.hash)
		   FROM kept k, LATERAL prometheus._state_value('postgres', (SELECT oid FROM pg_roles WHERE rolname = 'postgres'), k.agent, 'state', k.version) AS v(value)");
}

$node->init;
$node->start;
$node->create_extension;
sql(<<'EOSQL');
-- A state that grows, one that goes on changing, and one that is now this, now
-- that: 200 versions each, and beside them hashes of what was saved.
CREATE TABLE kept (agent text, version bigint, hash text);
CREATE FUNCTION hash_of(value jsonb) RETURNS text LANGUAGE sql AS $$SELECT md5(convert_to(value::text, 'UTF8'))$$;
CREATE FUNCTION words(n int, seed int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT string_agg(substr('éaouiänrtslmdkpqvz', 1 + w % 18, 1) || left(md5(w::text), 2 + w % 7), ' ')
	  FROM (SELECT hashint4extended(i, seed) & 1073741823 FROM generate_series(1, n) i) AS x(h),
	       LATERAL (SELECT (h % 3000 * (h / 3000 % 3000) / 3000)::int) AS y(w)
$$;
CREATE FUNCTION save(name text, v jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO kept SELECT name, prometheus_save_state(name, v), hash_of(v)
$$;
DO $$
DECLARE
	messages jsonb := '[]';
BEGIN
	FOR i IN 1..200 LOOP
		messages := messages || jsonb_build_array(
			jsonb_build_object('role', 'user', 'content', words(25, i), 'id', md5(i::text)),
			jsonb_build_object('role', 'assistant', 'content', words(100, -i), 'tokens', i * 7 % 1000 / 10.0));
		PERFORM save('growing', jsonb_build_object('messages', messages, 'scratch', words(30, i * 3),
			'plan', jsonb_build_object('step', i, 'goal', words(20, i / 10))));
		PERFORM save('bounded', jsonb_build_object('step', i, 'notes', words(800, i / 50), 'last', words(5, i),
			'todo', (SELECT jsonb_agg(words(10, n)) FROM generate_series(i / 10, i / 10 + 20) n)));
		PERFORM save('torn', CASE WHEN i % 50 < 25 THEN jsonb_build_object('text', words(500, i / 25), 'n', i)
			ELSE (SELECT jsonb_object_agg(n + i / 50, md5(n::text || i / 25)) FROM generate_series(1, 200) n) || jsonb_build_object('n', i) END);
	END LOOP;
END $$;
EOSQL

# What it takes.
sub ratio
{
	return sql("SELECT round(sum(bytes) / sum(stored_bytes)::numeric, 1) FROM prometheus_state_history('$_[0]', max_rows => 1000)");
}
cmp_ok(ratio('growing'), '>=', 15, 'a state that grows is kept in a fifteenth');
cmp_ok(ratio('bounded'), '>=', 10, 'one that changes here and there in a tenth');
cmp_ok(ratio('torn'), '>=', 10, 'and one that becomes another');
cmp_ok(
	sql(q{SELECT sum(bytes) / pg_total_relation_size('prometheus._state') FROM prometheus._state}),
	'>=', 10, 'the whole table is a tenth of what was saved');
is( sql(q{SELECT sum(stored_bytes) = sum(pg_column_size(frame)) FROM prometheus._state,
		LATERAL (SELECT h.stored_bytes FROM prometheus_state_history(_state.agent, max_rows => 1000) h WHERE h.version = _state.version) h}),
	't', 'stored_bytes is what is on disk');
is( sql(q{SELECT count(*) FROM prometheus._state s LEFT JOIN prometheus._state b ON b.agent = s.agent AND b.version = s.base_version
		WHERE s.base_version IS NOT NULL AND (b.version IS NULL OR b.base_version IS NOT NULL)}),
	'0', 'each needs one key frame, and that none');
is(sql(q{SELECT count(*) FROM prometheus._state WHERE agent = 'torn' AND base_version IS NULL AND version % 25 = 0}),
	'8', 'what has become another document begins with a key frame');
is(differ('postgres'), '600 of 0', 'each version is what was saved');

# A damaged key frame does not keep anybody from saving.
sql(q{SELECT prometheus_save_state('broken', prometheus_state('bounded', version => n)) FROM generate_series(1, 2) n});
sql(q{UPDATE prometheus._state SET frame = substr(frame, 1, length(frame) - 10) WHERE agent = 'broken' AND version = 1});
foreach my $version (1, 2)
{
	my $error = $node->error_of("SELECT prometheus_state('broken', version => $version)");
	is($error->{state}, 'XX001', "version $version is damaged by the same byte");
	like("$error->{message} $error->{detail}", qr/^version $version of state "state" of agent "broken" .*role "postgres"/,
		'and it says so');
}
is(sql(q{SELECT prometheus_save_state('broken', prometheus_state('bounded', version => 3))}), '3', 'the next one is saved');
is(sql(q{SELECT prometheus_state('broken') = prometheus_state('bounded', version => 3)}), 't', 'and read');
sql(q{DELETE FROM prometheus._state WHERE agent = 'broken'});

# Many at once.
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/save.sql", <<'EOSQL');
\set k random(1, 3)
SELECT prometheus_save_state('busy', to_jsonb(repeat('x', 500) || :client_id), 'key ' || :k);
EOSQL
append_to_file("$dir/count.sql", "SELECT add_one();\n");
sql(<<'EOSQL');
SELECT prometheus_save_state('busy', '0', 'counter');
CREATE FUNCTION add_one() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	old record;
BEGIN
	LOOP
		SELECT version, value INTO old FROM prometheus.state WHERE agent = 'busy' AND key = 'counter';
		BEGIN
			RETURN prometheus_save_state('busy', to_jsonb(old.value::int + 1), 'counter', old.version);
		EXCEPTION WHEN SQLSTATE 'PM008' THEN
			NULL;
		END;
	END LOOP;
END $$;
EOSQL
$node->command_ok([ 'pgbench', '-n', '-c', 8, '-j', 2, '-t', 50, '-f', "$dir/save.sql\@4", '-f', "$dir/count.sql\@1",
		'--random-seed=1', 'postgres' ], 'eight save at once');
is( sql(q{SELECT bool_and(n = last AND first = 1) AND sum(n) FILTER (WHERE key <> 'counter') > 200
		FROM (SELECT key, count(*), max(version), min(version) FROM prometheus._state WHERE agent = 'busy' GROUP BY key) v(key, n, last, first)}),
	't', 'versions are dense');
is(sql(q{SELECT value::text::int = version - 1 AND version > 20 FROM prometheus.state WHERE key = 'counter'}),
	't', 'nobody wrote over what he had not read');

# The tools: the submitter's states of the agent.
$node->create_scripted_model;
sql(q{CREATE ROLE alice; GRANT prometheus_agent_user TO alice;
	SELECT prometheus_set_agent('keeper', 'scripted', tools => '{read_state,save_state}')});

sub told
{
	my ($role, @calls) = @_;
	my $task = sql("SET ROLE $role; SELECT prometheus_submit("
		  . $node->script((map { [$_] } @calls), 'done') . ", 'keeper')");
	$node->wait_task($task, 'completed');
	return ($task,
		map { $_->{content} } grep { $_->{role} eq 'tool' }
		  @{ decode_json(sql("SELECT prometheus_prompt($task, max(step)) FROM prometheus.step WHERE task_id = $task"))->{messages} });
}
my ($task, @told) = told('alice',
	[ 'read_state', {} ],
	[ 'save_state', { value => { open => [7] } } ],
	[ 'read_state', {} ],
	[ 'save_state', { value => 'a plan', key => 'plan', expected_version => 0 } ],
	[ 'save_state', { value => 'another', key => 'plan', expected_version => 0 } ],
	[ 'read_state', { key => 'plan' } ],
	[ 'save_state', { value => undef, key => 'plan' } ]);
is_deeply(
	\@told,
	[   'there is no state "state" yet',
		'saved as version 1',
		'{"open": [7]}',
		'saved as version 1',
		$told[4],
		'"a plan"',
		'saved as version 2' ],
	'a model reads and saves states');
like($told[4], qr/version/, 'and is told that there is another version');
is( sql(q{SELECT string_agg(concat_ws(' ', owner, agent, key, version, value, task_id), ', ' ORDER BY key) FROM prometheus.state WHERE agent = 'keeper' AND key <> 'last_task'}),
	"alice keeper plan 2 null $task, alice keeper state 1 {\"open\": [7]} $task",
	'they are those of the submitter, and say which task saved them');
is(sql(q{SET ROLE alice; SELECT prometheus_state('keeper')}), '{"open": [7]}', 'who reads them, too');
(undef, @told) = told('postgres', [ 'read_state', {} ]);
is_deeply(\@told, ['there is no state "state" yet'], 'others have others');

# What an agent has done last, for whom.
sub last_task { return sql("SET ROLE alice; SELECT " . ($_[1] // 'value') . " FROM prometheus.state WHERE agent = '$_[0]' AND key = 'last_task'"); }
sub ask { my $asked = sql("SET ROLE alice; SELECT prometheus_submit($_[1], '$_[0]')"); $node->wait_task($asked, 'completed'); return $asked; }
my $first = ask('default', q{repeat('é', 300)});
is(last_task('default', q{concat_ws(' ', version, task_id, value - 'ended_at')}),
	qq{1 $first {"steps": 1, "result": "@{['é' x 200]}", "request": "@{['é' x 200]}", "task_id": $first, "attempts": 1, "tokens_in": 0, "tokens_out": 0}},
	'the agent knows what it has done');
is(last_task('default', q{(value ->> 'ended_at')::timestamptz = (SELECT ended_at FROM prometheus.task t WHERE t.task_id = state.task_id)}), 't', '... and when');
is(sql(q{SELECT count(*) FROM prometheus.state WHERE key = 'last_task' AND agent = 'default' AND owner <> 'alice'}), '0', 'of whom');
is(last_task('keeper', q{value ->> 'steps'}), sql("SELECT count(*) FROM prometheus.step WHERE task_id = $task"), 'with tools');
sql(q{SELECT prometheus_mark('one')});
sql(q{SET ROLE alice; SELECT prometheus_submit_many(array_fill('again'::text, ARRAY[300]))});
$node->wait_for('all have ended', 'SELECT count(*) FROM prometheus.task WHERE ended_at IS NULL', 0);
is(sql(q{SELECT version = n AND version BETWEEN 2 AND 301 AND value ->> 'request' = 'again'
		FROM prometheus.state s, LATERAL (SELECT count(*) FROM prometheus._state x WHERE x.key = s.key AND x.agent = s.agent) AS c(n)
		WHERE key = 'last_task' AND agent = 'default'}), 't', 'many: the last of each transaction');
is( sql(q{SET ROLE alice; SELECT prometheus_state('default', 'last_task', as_of => (SELECT at FROM prometheus.mark WHERE name = 'one')) ->> 'task_id'}),
	$first, 'what it was at a moment');
foreach my $save (q{prometheus_save_state('default', '1', 'last_task')}, q{prometheus_restore_state('default', 'last_task', 1)})
{
	is($node->error_of("SET ROLE alice; SELECT $save")->{state}, '42939', "nobody else writes it: $save");
}
sql(q{SELECT prometheus_set_agent('quiet', 'echo', options => '{"summary": false}')});
ask('quiet', q{'x'});
is(last_task('quiet'), '', 'it can be switched off');

# If it cannot be saved, the answer stands.
sql(q{ALTER TABLE prometheus._state ADD CONSTRAINT not_now CHECK (agent <> 'default' OR key <> 'last_task') NOT VALID});
my $unsaved = ask('default', q{'answer me'});
is(sql("SELECT prometheus_result($unsaved)"), 'answer me', 'the answer stands');
is(sql("SELECT concat_ws(' ', agent, task_id, data ->> 'key', data ->> 'error') FROM prometheus.event WHERE type = 'state.failed'"),
	qq{default $unsaved last_task new row for relation "_state" violates check constraint "not_now"}, 'and an event says why');
my $other = ask('keeper', $node->script('fine'));
is(last_task('keeper', 'task_id'), $other, 'another one is saved');
sql(q{ALTER TABLE prometheus._state DROP CONSTRAINT not_now});
$unsaved = ask('default', q{'now'});
is(last_task('default', 'task_id'), $unsaved, 'and the next one is');

# Or not even made.  The statement is looked at anew when a table of its is.
sql(q{ALTER FUNCTION pg_catalog.jsonb_strip_nulls RENAME TO not_now});
sql(q{ANALYZE prometheus._agent});
$unsaved = ask('default', q{'and me'});
is(sql("SELECT prometheus_result($unsaved)"), 'and me', 'the answer stands, too');
is(sql("SELECT data ->> 'error' FROM prometheus.event WHERE type = 'state.failed' AND task_id = $unsaved"),
	'function jsonb_strip_nulls(jsonb) does not exist', 'and an event says why');
sql(q{ALTER FUNCTION pg_catalog.not_now RENAME TO jsonb_strip_nulls});
$unsaved = ask('default', q{'then'});
is(last_task('default', 'task_id'), $unsaved, 'and the next one is saved');

# Moments: before it was there, between two versions, and after.
sql(q{SELECT prometheus_mark('before')});
sql(q{SELECT prometheus_save_state('past', to_jsonb(n)) FROM generate_series(1, 2) n});
sql(q{SELECT prometheus_mark('between')});
sql(q{SELECT prometheus_save_state('past', to_jsonb(n)) FROM generate_series(3, 500) n});
sql(q{SELECT prometheus_mark('after')});
sub at { return "(SELECT at FROM prometheus.mark WHERE name = '$_[0]')"; }
sub check_past
{
	my ($dbname, $what) = @_;
	is( $node->safe_psql($dbname,
			"SELECT concat_ws(' ', coalesce(prometheus_state('past', as_of => @{[at('before')]})::text, 'none'), prometheus_state('past', as_of => @{[at('between')]}),
				prometheus_state('past', as_of => @{[at('after')]}))"),
		'none 2 500', "$what: as it was at a moment");
	is( $node->safe_psql($dbname,
			q{SET prometheus.as_of = 'mark:between';
			SELECT concat_ws(' ', prometheus_state('past'), coalesce(prometheus_state('past', version => 3)::text, 'none'), (SELECT value FROM prometheus.state WHERE agent = 'past'),
				(SELECT string_agg(version::text, ',') FROM prometheus_state_history('past')))}),
		'2 none 2 2,1', "$what: by the setting");
	is($node->safe_psql($dbname, q{SET prometheus.as_of = 'mark:before'; SELECT count(*) FROM prometheus.state WHERE agent = 'past'}),
		'0', "$what: before it was there");
	return;
}
check_past('postgres', 'here');
is($node->error_of(q{SET prometheus.as_of = 'mark:between'; SELECT prometheus_save_state('past', '1')})->{state},
	'25006', 'nobody writes in the past');
is($node->error_of(q{SET prometheus.as_of = 'mark:between'; SELECT prometheus_restore_state('past', to_version => 1)})->{state},
	'25006', 'nor restores anything there');
is(sql("SELECT prometheus_restore_state('past', to_time => @{[at('between')]})"), '501', 'but what was there can be restored');
is(sql(q{SELECT concat_ws(' ', version, restored_from, prometheus_state('past')) FROM prometheus_state_history('past', max_rows => 1)}),
	'501 2 2', 'as what is to be now');
is($node->error_of("SELECT prometheus_restore_state('past', to_time => @{[at('before')]})")->{state}, '42704', 'not what was not there');

# Another database, and one of another encoding.
$node->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", 'postgres' ], 'pg_dump');
foreach my $encoding (qw(UTF8 LATIN1))
{
	my $dbname = lc "copy_$encoding";
	$node->safe_psql('postgres',
		"CREATE DATABASE $dbname TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/dump.sql", $dbname ],
		"restored in $encoding");
	is(differ($dbname), '600 of 0', "$encoding: each version is what was saved");
	check_past($dbname, $encoding);
	is( $node->safe_psql($dbname,
			q{SELECT prometheus_save_state('growing', prometheus_state('growing', version => 200))}),
		'201', "$encoding: versions go on");
	is( $node->safe_psql($dbname,
			q{SELECT prometheus_state('growing') = prometheus_state('growing', version => 200)}),
		't', "$encoding: with the key frames of before");
}

$node->check_invariants('at the end', all_ended => 1);
$node->stop;
done_testing();
