# Proportionality: how many rows one call of a tool may change, whichever way it
# changes them.
use strict;
use warnings FATAL => 'all';

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
	return split /\n--\n/,
	  sql("SELECT string_agg(concat_ws(' ', status, coalesce(error, output ->> 'content')), E'\\n--\\n' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'");
}

# In a text that only a tool reads, as it is coded.
sub coded { return [ 'coded', { a => unpack('H*', $_[0]) } ]; }

sub veto
{
	my ($rows, $limit) = @_;
	return "vetoed Proportionality: it would change every row of a table, or more rows than its agent may. ($rows rows, and max_rows is $limit) Say which rows are meant, and take fewer of them in one call.";
}

$node->init(conf => "prometheus.executors = 1\n");
$node->start;
$node->create_extension;
$node->create_scripted_model;
sql(<<'EOSQL');
CREATE ROLE clerk;
CREATE ROLE other;
CREATE ROLE person;
GRANT prometheus_agent_user TO clerk, other;
GRANT prometheus_agent_admin TO person;
GRANT CREATE ON SCHEMA public TO clerk;
SET ROLE clerk;
CREATE TABLE work (id int UNIQUE);
CREATE TABLE big (id int, seen bigint);
INSERT INTO big SELECT generate_series(1, 2000);
CREATE TABLE large AS TABLE big;
ANALYZE big, large;
CREATE SEQUENCE ran;
CREATE TABLE ruled (id int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO work SELECT generate_series(1, 101);
CREATE TABLE watched (id int);
CREATE FUNCTION add_work() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO work SELECT generate_series(1, 101); RETURN NULL; END$$;
CREATE TRIGGER t AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION add_work();
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child SELECT 1 FROM generate_series(1, 101);
INSERT INTO child SELECT 2 FROM generate_series(1, 99);
CREATE FUNCTION few(id int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN id <= 5; END$$;
CREATE FUNCTION coded(a text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE convert_from(decode(a, 'hex'), 'UTF8'); RETURN 'done'; END$$;
CREATE FUNCTION plain(sql text) RETURNS text LANGUAGE plpgsql AS $$BEGIN EXECUTE sql; RETURN 'done'; END$$;
CREATE FUNCTION loops(n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		INSERT INTO work VALUES (10 * i), (10 * i + 1);
	END LOOP;
	RETURN 'done';
END $$;
CREATE FUNCTION catches() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	FOR i IN 1 .. 5 LOOP
		BEGIN
			INSERT INTO work SELECT generate_series(100 * i + 1, 100 * i + 40);
		EXCEPTION WHEN OTHERS THEN
			said := concat_ws(', ', said, SQLSTATE || ' ' || SQLERRM);
		END;
	END LOOP;
	RETURN said;
END $$;
CREATE FUNCTION lies() RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'a lie' USING ERRCODE = 'PM006'; END$$;
RESET ROLE;
SELECT prometheus_set_tool(f::regprocedure, tier => 'write') FROM unnest(ARRAY['coded(text)', 'plain(text)', 'loops(int)', 'catches()', 'lies()']) f;
SELECT prometheus_set_agent(name, 'scripted', run_as => 'clerk', options => options || '{"max_vetoes": 1000}', tools => '{coded,plain,loops,catches,lies}')
  FROM (VALUES ('a', '{"max_rows": 100}'::jsonb), ('one', '{"max_rows": 1}'), ('default', '{}')) x (name, options);
EOSQL

# Each way to change rows: as many as it may, and one more.  What is done is
# taken back by the next.
my @cases = (
	[ 'INSERT', 'INSERT INTO work SELECT generate_series(1, %d)', 'TRUNCATE work' ],
	[ 'UPDATE', 'UPDATE big SET seen = 1 WHERE id <= %d', 'UPDATE big SET seen = NULL WHERE id <= 50' ],
	[ 'MERGE', 'MERGE INTO big b USING (SELECT generate_series(1, %d) AS id) s ON b.id = s.id WHEN MATCHED THEN UPDATE SET seen = 2 WHEN NOT MATCHED THEN DO NOTHING', 'SELECT 1' ],
	[ 'WITH', 'WITH u AS (UPDATE big SET seen = 3 WHERE id <= %d RETURNING 1) SELECT count(*) FROM u', 'SELECT 1' ],
	[ 'WITH twice', 'WITH u AS (UPDATE big SET seen = 3 WHERE id <= 50), i AS (INSERT INTO work SELECT generate_series(51, %d)) SELECT 1', 'TRUNCATE work' ],
	[ 'WITH, MERGE by main', 'WITH u AS (UPDATE big SET seen = 3 WHERE id <= 50) MERGE INTO work w USING (SELECT generate_series(51, %d) AS id) s ON w.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id)', 'TRUNCATE work' ],
	[ 'DELETE', 'WITH i AS (INSERT INTO big SELECT 3000 + generate_series(1, %d - 50)) DELETE FROM big WHERE id <= 50', 'INSERT INTO big SELECT generate_series(1, 50)' ],
	[ 'within DO', 'DO $x$BEGIN INSERT INTO work SELECT generate_series(1, %d); END$x$', 'TRUNCATE work' ]);
my @calls = map { (coded(sprintf $_->[1], 101), coded(sprintf $_->[1], 100), coded($_->[2])) } @cases;
my @told = told('a', @calls);
foreach my $i (0 .. $#cases)
{
	is($told[ 3 * $i ], veto(101, 100), "$cases[$i][0]: one row too many");
	is($told[ 3 * $i + 1 ], 'ok done', "$cases[$i][0]: as many as it may");
	is($told[ 3 * $i + 2 ], 'ok done', "$cases[$i][0]: another call counts anew");
}
is(sql('SELECT count(*) FROM work'), 0, 'what was too much is not there');

# What follows from a change counts as well.
is_deeply([ told('a', coded('INSERT INTO ruled VALUES (1)'), coded('INSERT INTO watched VALUES (1)'), coded('DELETE FROM parent WHERE id = 1'), coded('DELETE FROM parent WHERE id = 2')) ],
	[ (veto(102, 100)) x 3, 'ok done' ],
	'rules, triggers and foreign keys that cascade');
is(sql('SELECT count(*) FROM child'), 101, 'a call that is refused is undone, with all that followed');
is((told('a', coded('WITH i AS (INSERT INTO work SELECT g % 5 FROM generate_series(1, 300) g ON CONFLICT DO NOTHING) SELECT 1')))[0], 'ok done', 'rows that are in conflict are not changed');
sql('TRUNCATE work');

# Many small statements; and who catches the error has not done it.
is_deeply([ told('a', [ 'loops', { n => 50 } ], [ 'loops', { n => 51 } ]) ], [ 'ok done', 'error duplicate key value violates unique constraint "work_id_key"' . "\nDetail: Key (id)=(10) already exists." ], 'a loop, and an error of its own');
sql('TRUNCATE work');
is((told('a', [ 'loops', { n => 51 } ]))[0], veto(102, 100), 'a loop: the sum counts');
is((told('a', [ 'catches', {} ]))[0],
	'ok ' . join(', ', map { "PM006 a tool must not change so many rows: $_ rows, and max_rows is 100" } 120, 160, 200),
	'who catches it goes on with the same sum');
is(sql('SELECT count(*) FROM work'), 80, 'and has changed no more than it may');
is((told('a', [ 'lies', {} ]))[0], 'error a lie', 'a tool that raises the same');
sql('TRUNCATE work');

# Far too many by estimate are refused before anything is done; a smaller
# estimate is not believed.
is_deeply([ told('a', coded(q{UPDATE large SET seen = nextval('ran')}), coded(q{WITH u AS (UPDATE large SET seen = nextval('ran') RETURNING 1) SELECT count(*) FROM u}), coded('TRUNCATE large'), coded('DELETE FROM big WHERE few(id)'), coded('EXPLAIN UPDATE big SET seen = 1'), coded('EXPLAIN ANALYZE DELETE FROM big WHERE id <= 106')) ],
	[ (veto('by estimate 2000', 100)) x 2, veto(2000, 100), 'ok done', 'ok done', veto(101, 100) ], 'estimates');
is(sql('SELECT is_called FROM ran'), 'f', 'nothing was run');
is(sql('SELECT count(*) FROM large'), 2000, 'nothing else was changed');

# Reading is not counted, nor are our own statements.
is_deeply([ told('one', coded('SELECT * FROM big'), coded('SELECT id FROM big WHERE id < 500 FOR UPDATE'), coded(q{SELECT prometheus_remember('one', g::text) FROM generate_series(1, 5) g}), coded('INSERT INTO work VALUES (1)'), coded('INSERT INTO work VALUES (2), (3)')) ],
	[ ('ok done') x 4, veto(2, 1) ], 'what is counted');
is_deeply([ told('default', coded('INSERT INTO work SELECT generate_series(2, 10001)'), coded('DELETE FROM work WHERE id > 1'), coded('INSERT INTO work SELECT generate_series(2, 10002)')) ],
	[ ('ok done') x 2, veto(10001, 10000) ], 'the default');

# The verdict, and the policy that it is by.
my $task = run_calls('one', coded('INSERT INTO work VALUES (2), (3)'));
is( sql("SELECT concat_ws('|', s.status, v.approved, v.risk_level, v.governor, v.effect, v.policy, v.reasoning) FROM prometheus.step s JOIN prometheus.verdict v USING (task_id, step) WHERE task_id = $task AND kind = 'tool'"),
	'vetoed|f|CRITICAL|JUSTICA|deny|justica.proportionality|Proportionality: it would change every row of a table, or more rows than its agent may. (2 rows, and max_rows is 1)',
	'the verdict says who and why');
my $two = coded('UPDATE work SET id = id WHERE id IN (1, 4); INSERT INTO work VALUES (2), (3)');
sub status { return join(' ', map { (split)[0] } told(@_)); }
sub set_policy { return sql("SELECT prometheus_set_policy('justica.proportionality', $_[0])"); }
set_policy(q{match => '{"principle": "proportionality", "agent": "a"}'});
is(status('one', $two), 'ok', 'lifted for other agents');
sql('DELETE FROM work WHERE id > 1');
set_policy(q{match => '{"principle": "proportionality"}', effect => 'off'});
is(status('one', $two), 'ok', 'lifted');
sql('DELETE FROM work WHERE id > 1');

# What a person approved by its text is done; another call is not.
set_policy(q{effect => 'escalate'});
$task = sql('SET ROLE other; SELECT prometheus_submit(' . $node->script([ [ 'plain', { sql => 'DELETE FROM big' } ], $two ], 'end') . q{, 'one')});
$node->wait_task($task, 'waiting');
sql("SET ROLE person; SELECT prometheus_approve(approval_id) FROM prometheus.approval WHERE task_id = $task");
$node->wait_task($task, 'completed');
is(sql("SELECT string_agg(status, ' ' ORDER BY step) FROM prometheus.step WHERE task_id = $task AND kind = 'tool'"), 'ok vetoed', 'what a person approved');
is(sql('SELECT count(*) FROM big'), 0, 'was done');

$node->check_invariants('at last', all_ended => 1);
$node->stop;
done_testing();
