# Integrity holds where a statement is run, not only where its text was read: of
# pieces, coded, within other functions, by a role that could do it.
use strict;
use warnings FATAL => 'all';

use MIME::Base64;
use PromCluster;
use Test::More;

my $node = PromCluster->new('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Call tools, all in one turn; the task.
sub run_calls
{
	my ($agent, @calls) = @_;
	my $task = $node->submit($node->script(\@calls, 'end') . ", '$agent'");

	$node->wait_task($task, 'completed');
	return $task;
}

# What became of each call: the status of its step, and what the model was told.
sub told
{
	my $task = run_calls(@_);
	return map { [ split /\|/, $_, 2 ] } split /\n--\n/,
	  sql("SELECT string_agg(concat_ws('|', status, coalesce(error, output ->> 'content')), E'\\n--\\n' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'");
}

# A statement in two pieces, neither of which is one.
sub in_pieces
{
	my ($tool, $statement) = @_;
	my $at = int(length($statement =~ s/[^A-Za-z_].*//sr) / 2);

	$at = length("SELECT * FROM prom") if $statement =~ /^SELECT/;
	return [ $tool, { a => substr($statement, 0, $at), b => substr($statement, $at) } ];
}

sub coded { return [ 'coded', { a => encode_base64($_[0], '') } ]; }

$node->init(conf => "prometheus.executors = 1\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE clerk;
CREATE ROLE other;
GRANT prometheus_agent_user TO clerk;
GRANT CREATE ON SCHEMA public TO clerk;
GRANT EXECUTE ON FUNCTION pg_read_file(text), pg_ls_dir(text) TO clerk;
SET ROLE clerk;
CREATE TABLE victim (id int, words text);
INSERT INTO victim VALUES (1, 'kept');
CREATE TABLE work (id int, words text);
CREATE MATERIALIZED VIEW summary AS SELECT count(*) AS n FROM work;
CREATE FUNCTION pieces(a text, b text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE a || b; RETURN 'done'; END$$;
CREATE FUNCTION coded(a text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE convert_from(decode(a, 'base64'), 'UTF8'); RETURN 'done'; END$$;
CREATE FUNCTION atomic(a text, b text) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT pieces(a, b); END;
CREATE FUNCTION within(a text, b text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE format('DO %L', 'BEGIN PERFORM pieces(' || quote_literal(a) || ',' || quote_literal(b) || '); END'); RETURN 'done'; END$$;
CREATE FUNCTION looks(a text, b text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE a || b; RETURN 'done'; END$$;
CREATE FUNCTION drops() RETURNS text LANGUAGE sql AS $$DROP TABLE victim; SELECT 'done'$$;
CREATE FUNCTION catches(a text, b text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO work VALUES (1, 'before');
	EXECUTE a || b;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION fails(a text, b text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM catches(a, b);
	RAISE EXCEPTION 'of its own';
END $$;
CREATE FUNCTION lies() RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'a lie' USING ERRCODE = 'PM005'; END$$;
CREATE FUNCTION first_writes(a text, b text) RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO work VALUES (2, 'undone'); EXECUTE a || b; RETURN 'done'; END$$;
RESET ROLE;
CREATE FUNCTION definer(a text, b text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN EXECUTE a || b; RETURN 'done'; END$$;
CREATE PROCEDURE proceed() LANGUAGE sql AS $$INSERT INTO work VALUES (3, 'called')$$;
SELECT prometheus_set_tool(f::regprocedure, tier => 'write') FROM unnest(ARRAY['pieces(text, text)', 'coded(text)', 'atomic(text, text)', 'within(text, text)', 'drops()', 'catches(text, text)', 'fails(text, text)', 'lies()', 'first_writes(text, text)', 'definer(text, text)']) f;
SELECT prometheus_set_tool('looks(text, text)');
SELECT prometheus_set_agent('a', 'scripted', run_as => 'clerk', options => '{"max_vetoes": 1000, "max_tool_calls": 10000}',
    tools => '{pieces,coded,atomic,within,looks,drops,catches,fails,lies,first_writes,definer,query,remember,recall}');
SELECT prometheus_set_agent('super', 'scripted', options => '{"max_vetoes": 1000}', tools => '{pieces,coded,query,remember,recall}');
EOSQL
my $victims = 'SELECT string_agg(words, $$,$$) FROM victim';

# A role that may do it all: what was tried, and what is told of it.
my $integrity = 'Integrity: an agent must not change prometheus itself, the catalogues, roles or the schema, nor reach outside the database.';
my $advice = 'Ask for a function that does just what is needed, made a tool by an administrator.';
my @own = (
	[ 'DROP TABLE victim', 'DROP TABLE' ],
	[ 'ALTER TABLE victim ADD COLUMN x int', 'ALTER TABLE' ],
	[ 'ALTER TABLE victim RENAME TO v', 'ALTER TABLE' ],
	[ 'CREATE TABLE evil (a int)', 'CREATE TABLE' ],
	[ 'CREATE TABLE evil AS SELECT 1', 'CREATE TABLE AS' ],
	[ 'EXPLAIN ANALYZE CREATE TABLE evil AS SELECT 1', 'CREATE TABLE AS' ],
	[ 'CREATE INDEX ON victim (id)', 'CREATE INDEX' ],
	[ 'CREATE VIEW evil AS SELECT 1', 'CREATE VIEW' ],
	[ 'CREATE OR REPLACE FUNCTION drops() RETURNS text LANGUAGE sql AS $$SELECT 1$$', 'CREATE FUNCTION' ],
	[ 'CREATE TRIGGER evil AFTER INSERT ON victim EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'CREATE TRIGGER' ],
	[ 'CREATE RULE evil AS ON INSERT TO victim DO INSTEAD NOTHING', 'CREATE RULE' ],
	[ 'CREATE CAST (text AS xml) WITHOUT FUNCTION', 'CREATE CAST' ],
	[ 'CREATE SCHEMA evil', 'CREATE SCHEMA' ],
	[ 'COMMENT ON TABLE victim IS $$evil$$', 'COMMENT' ],
	[ 'GRANT ALL ON victim TO PUBLIC', 'GRANT' ],
	[ 'REVOKE ALL ON victim FROM clerk', 'REVOKE' ],
	[ 'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC', 'ALTER DEFAULT PRIVILEGES' ],
	[ 'ALTER TABLE victim OWNER TO other', 'ALTER TABLE' ],
	[ 'DROP OWNED BY clerk', 'DROP OWNED' ],
	[ 'ALTER ROLE clerk SET work_mem = 1024', 'ALTER ROLE' ],
	[ 'REINDEX TABLE victim', 'REINDEX' ],
	[ 'CLUSTER victim', 'CLUSTER' ],
	[ 'CHECKPOINT', 'CHECKPOINT' ],
	[ q{LOAD 'plpgsql'}, 'LOAD' ],
	[ q{SECURITY LABEL ON TABLE victim IS 'evil'}, 'SECURITY LABEL' ],
	[ q{COPY victim TO '/dev/null'}, 'COPY of a file' ],
	[ q{COPY victim FROM PROGRAM 'false'}, 'COPY PROGRAM' ],
	[ q{SELECT * FROM prometheus.task WHERE pg_read_file('x') IS NULL}, 'pg_read_file()' ],
	[ q{SELECT * FROM prometheus.task, pg_ls_dir('.')}, 'pg_ls_dir()' ],
	[ q{SELECT * FROM prometheus.task WHERE pg_terminate_backend(1)}, 'pg_terminate_backend()' ],
	[ q{DO $do$BEGIN EXECUTE 'DROP' || ' TABLE victim'; END$do$}, 'DROP TABLE' ]);

my $before = $node->catalogue;
foreach my $tool (qw(pieces atomic within definer))
{
	my @told = told('a', map { in_pieces($tool, $_->[0]) } @own);
	is(scalar @told, scalar @own, "$tool: every case was told");
	is("@{ $told[$_] }", "vetoed $integrity ($own[$_][1]) $advice", "$tool: $own[$_][0]") foreach 0 .. $#own;
}
is_deeply([ told('a', coded('DROP TABLE victim'), [ 'drops', {} ], in_pieces('looks', q{SELECT * FROM prometheus.task, pg_ls_dir('.')})) ],
	[ map { [ 'vetoed', "$integrity ($_) $advice" ] } 'DROP TABLE', 'DROP TABLE', 'pg_ls_dir()' ],
	'coded; in a body; by what may only read');

# What only a superuser may, as one.
my @super = (
	[ 'CREATE ROLE evil', 'CREATE ROLE' ],
	[ 'ALTER ROLE clerk SUPERUSER', 'ALTER ROLE' ],
	[ 'DROP ROLE other', 'DROP ROLE' ],
	[ 'GRANT prometheus_agent_admin TO clerk', 'GRANT ROLE' ],
	[ 'CREATE EXTENSION dblink', 'CREATE EXTENSION' ],
	[ 'DROP EXTENSION prometheus', 'DROP EXTENSION' ],
	[ 'CREATE EVENT TRIGGER evil ON ddl_command_end EXECUTE FUNCTION evil()', 'CREATE EVENT TRIGGER' ],
	[ 'CREATE LANGUAGE evil HANDLER plpgsql_call_handler', 'CREATE LANGUAGE' ],
	[ 'ALTER SYSTEM SET prometheus.executors = 1', 'ALTER SYSTEM' ],
	[ 'ALTER DATABASE postgres SET work_mem = 1024', 'ALTER DATABASE' ],
	[ q{UPDATE pg_catalog.pg_proc SET prosrc = '' WHERE proname = 'drops'}, 'a change of pg_proc' ],
	[ q{DELETE FROM pg_class WHERE relname = 'victim'}, 'a change of pg_class' ],
	[ q{WITH d AS (UPDATE pg_authid SET rolsuper = true RETURNING *) SELECT * FROM d}, 'a change of pg_authid' ],
	[ q{UPDATE pg_settings SET setting = 'off' WHERE name = 'fsync'}, 'a change of pg_settings' ],
	[ 'SELECT * FROM prometheus._model', '_model' ],
	[ 'SELECT * FROM prometheus.task, pg_authid', 'pg_authid' ],
	[ 'SELECT * FROM prometheus.task, pg_file_settings', 'pg_file_settings' ],
	[ 'INSERT INTO prometheus._decision SELECT * FROM prometheus._decision', 'a change of _decision' ],
	[ 'UPDATE prometheus._step SET error = NULL', 'a change of _step' ],
	[ 'DELETE FROM prometheus._verdict', 'a change of _verdict' ],
	[ 'TRUNCATE prometheus._verdict', 'a change of _verdict' ],
	[ 'LOCK TABLE prometheus._task', 'a lock of _task' ],
	[ 'LOCK TABLE pg_class', 'a lock of pg_class' ],
	[ 'COPY prometheus._task TO STDOUT', '_task' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_set_policy('justica.integrity', effect => 'off') = 0}, 'prometheus_set_policy()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_set_tool('drops()') = 0}, 'prometheus_set_tool()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_set_agent('a', run_as => '') = 0}, 'prometheus_set_agent()' ],
	[ q{SELECT * FROM prometheus.task, pg_create_restore_point('x')}, 'pg_create_restore_point()' ],
	[ q{SELECT * FROM prometheus.task, pg_logical_emit_message(true, 'x', 'y')}, 'pg_logical_emit_message()' ],
	[ q{SELECT * FROM prometheus.task, pg_backup_start('x')}, 'pg_backup_start()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_approve(1) IS NULL}, 'prometheus_approve()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_pause() IS NULL}, 'prometheus_pause()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_create_tool('x', '[]') = 0}, 'prometheus_create_tool()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_restore_tool('x') = 0}, 'prometheus_restore_tool()' ],
	[ q{SELECT * FROM prometheus.task WHERE prometheus_track('work', false) IS NULL}, 'prometheus_track()' ],
	[ q{SELECT * FROM prometheus.task, prometheus_undo(1, false)}, 'prometheus_undo()' ]);
{
	my @told = told('super', map { in_pieces('pieces', $_->[0]) } @super);
	is(scalar @told, scalar @super, 'superuser: every case was told');
	# COPY to a client is refused before anything is looked at.
	is("@{ $told[$_] }",
		$super[$_][0] =~ /STDOUT/ ? 'error cannot COPY to/from client in PL/pgSQL' : "vetoed $integrity ($super[$_][1]) $advice",
		"superuser: $super[$_][0]")
	  foreach 0 .. $#super;
}
is($node->catalogue, $before, 'nothing was changed');
is(sql($victims), 'kept', 'the victim is as it was');

# What a tool did before is undone, and its verdict says who forbade what.
my $task = run_calls('a', in_pieces('first_writes', 'DROP TABLE victim'));
is( sql("SELECT concat_ws('|', s.status, s.error, v.approved, v.risk_level, v.governor, v.effect, v.policy, v.reasoning, v.suggestions) FROM prometheus.step s JOIN prometheus.verdict v USING (task_id, step) WHERE task_id = $task AND kind = 'tool'"),
	"vetoed|$integrity (DROP TABLE) $advice|f|CRITICAL|JUSTICA|deny|justica.integrity|$integrity (DROP TABLE)|$advice",
	'a step that is vetoed, and the verdict that says why');
is(sql(q{SELECT count(*) FROM work WHERE words = 'undone'}), 0, 'the call is undone as a whole');

# A tool may catch the error, and has done nothing; or raise another.
is_deeply([ told('a', in_pieces('catches', 'DROP TABLE victim'), in_pieces('fails', 'DROP TABLE victim'), [ 'lies', {} ]) ],
	[ [ 'ok', 'PM005 a tool must not do this: DROP TABLE' ], [ 'error', 'of its own' ], [ 'error', 'a lie' ] ],
	'who catches it goes on; a veto is no error of the tool\'s own');
is(sql(q{SELECT count(*) FROM work WHERE words = 'before'}), 0, 'what was before it in the block is undone');

# More than max_vetoes end the task, as vetoes of the text do.
sql(q{SELECT prometheus_set_agent('few', 'scripted', run_as => 'clerk', tools => '{pieces}', options => '{"max_vetoes": 1}')});
$task = $node->submit($node->script([ map { in_pieces('pieces', 'DROP TABLE victim') } 1, 2 ], 'end') . q{, 'few'});
$node->wait_task($task, 'vetoed');
is(sql("SELECT error_type FROM prometheus.task WHERE task_id = $task"), 'GovernanceVeto', 'they count as vetoes');

# What is harmless goes on working: statements, and our own functions.
my @harmless = (
	q{INSERT INTO work VALUES (4, 'inserted')},
	q{UPDATE work SET words = 'updated' WHERE id = 4},
	q{DELETE FROM work WHERE id = 4},
	q{MERGE INTO work w USING (SELECT 5 AS id) s ON w.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged')},
	'TRUNCATE work',
	'CALL proceed()',
	q{DO $do$BEGIN INSERT INTO work VALUES (6, 'done'); END$do$},
	'REFRESH MATERIALIZED VIEW summary',
	'ANALYZE work',
	'LOCK TABLE work IN SHARE MODE',
	q{SET LOCAL work_mem = '1MB'},
	'SHOW work_mem',
	'RESET work_mem',
	q{NOTIFY work, 'done'},
	'SET CONSTRAINTS ALL IMMEDIATE',
	'EXPLAIN ANALYZE SELECT * FROM work',
	q{SELECT set_config('my.own', 'x', true)},
	'SELECT * FROM prometheus.task',
	'SELECT * FROM prometheus.queue',
	'SELECT rolname FROM pg_roles',
	'SELECT * FROM pg_stat_activity',
	q{SELECT query_to_xml('SELECT 1', true, true, '')},
	q{SELECT prometheus_submit('by a tool', idempotency_key => 'once')},
	q{SELECT prometheus_cancel(prometheus_submit('by a tool'))},
	q{SELECT prometheus_remember('a', 'The sky is blue.')},
	q{SELECT prometheus_recall('a', 'sky')},
	q{SELECT prometheus_forget(prometheus_remember('a', 'x'))},
	q{SELECT prometheus_retry(task_id), prometheus_trace(task_id), prometheus_why(task_id), prometheus_result(task_id) FROM prometheus.task WHERE status = 'completed'});
foreach my $agent (qw(a super))
{
	my @told = told($agent, map { coded($_) } @harmless);
	is(scalar @told, scalar @harmless, "$agent: every harmless one was told");
	is("@{ $told[$_] }", 'ok done', "$agent: $harmless[$_]") foreach 0 .. $#harmless;
	my @built = told($agent, [ 'remember', { content => 'Water is wet.' } ], [ 'recall', { query => 'water' } ],
		[ 'query', { sql => 'SELECT count(*) > 0 AS seen FROM prometheus.agent' } ]);
	is(join(' ', map { $_->[0] } @built), 'ok ok ok', "$agent: those that are built in");
}
is(sql(q{SELECT string_agg(words, ',' ORDER BY id) FROM work}), 'called,done', 'and was done');

# A temporary table is the server's to refuse.
like((told('a', in_pieces('pieces', 'CREATE TEMP TABLE t (a int)')))[0][1],
	qr/^cannot create temporary table within security-restricted operation/, 'temporary tables');

# It is in force as the policy says, whatever the arguments are: for some tools
# only, if a function says so, or not at all.
my @tried = (in_pieces('pieces', 'CREATE TABLE made_1 (a int)'), coded('CREATE TABLE made_2 (a int)'));
sub status_of_tried { return join(' ', map { $_->[0] } told('a', @tried)); }
sub set_integrity { return sql("SELECT prometheus_set_policy('justica.integrity', $_[0])"); }
my $undo = 'DROP TABLE IF EXISTS made_1, made_2';

set_integrity(q{match => '{"principle": "integrity", "tool": ["pieces", "x"]}'});
is(status_of_tried(), 'vetoed ok', 'lifted for other tools');
sql($undo);
set_integrity(q{match => '{"principle": "integrity", "agent": "b"}'});
is(status_of_tried(), 'ok ok', 'lifted for other agents');
sql($undo);
set_integrity(q{match => '{"principle": "integrity", "tier": ["read"]}'});
is(status_of_tried(), 'ok ok', 'lifted for another tier');
sql($undo);
set_integrity(q{match => '{"principle": "transparency"}'});
is(status_of_tried(), 'ok ok', 'another principle');
sql($undo);
sql(q{CREATE FUNCTION is_pieces(judged jsonb) RETURNS boolean LANGUAGE sql AS $$SELECT judged ->> 'tool' = 'pieces'$$});
set_integrity(q{match => '{"principle": "integrity"}', condition => 'is_pieces(jsonb)'});
is(status_of_tried(), 'vetoed ok', 'lifted where its condition does not hold');
sql($undo);
set_integrity(q{effect => 'warn', condition => '-'});
is(status_of_tried(), 'ok ok', 'a warning forbids nothing');
sql($undo);
set_integrity(q{effect => 'off'});
is(status_of_tried(), 'ok ok', 'lifted');
is_deeply([ told('a', coded(q{DO $$BEGIN RAISE EXCEPTION 'own words' USING ERRCODE = 'PM005'; END$$})) ],
	[ [ 'error', 'own words' ] ], 'lifted: a tool that raises what a refusal raises');
sql($undo);

# Escalated: a person is asked of what can be read, and has then allowed it; what
# could not be read is not done.
set_integrity(q{effect => 'escalate'});
is(status_of_tried(), 'vetoed vetoed', 'escalated: what nobody was asked about is not done');
sql('CREATE ROLE person; GRANT prometheus_agent_admin TO person; GRANT prometheus_agent_user TO other');
$task = sql('SET ROLE other; SELECT prometheus_submit(' . $node->script([ [ 'pieces', { a => 'CREATE TABLE made_1 (a int)', b => '' } ] ], 'end') . q{, 'a')});
$node->wait_task($task, 'waiting');
sql("SET ROLE person; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task");
$node->wait_task($task, 'completed');
is(sql("SELECT string_agg(status, ',') FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"), 'ok', 'escalated: what was approved is done');
is(sql(q{SELECT to_regclass('made_1')}), 'made_1', 'escalated: it is there');
sql($undo);
set_integrity(q{effect => 'deny'});
is(status_of_tried(), 'vetoed vetoed', 'in force again');

$node->check_invariants('at last', all_ended => 1);
$node->stop;
done_testing();
