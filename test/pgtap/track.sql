-- What prometheus_track() records of the rows of a table, for whom, and what
-- becomes of it when the table is altered.
BEGIN;
SELECT plan(84);

SET LOCAL client_min_messages = error;
SET LOCAL TimeZone = 'Asia/Kolkata';

CREATE ROLE prom_test_owner;
CREATE ROLE prom_test_reader;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_user TO prom_test_owner, prom_test_reader;
GRANT CREATE, USAGE ON SCHEMA public TO prom_test_owner;

-- The versions since they were last asked for.
CREATE TEMP TABLE asked (version_id bigint);
INSERT INTO asked SELECT coalesce(max(version_id), 0) FROM prometheus._row_version;
CREATE FUNCTION pg_temp.news() RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    said text[];
BEGIN
    SELECT array_agg(concat_ws(' ', operation, key, fields::text) ORDER BY version_id) INTO said
      FROM prometheus._row_version WHERE version_id > (SELECT max(version_id) FROM asked);
    INSERT INTO asked SELECT coalesce(max(version_id), 0) FROM prometheus._row_version;
    RETURN said;
END $$;

-- What can be tracked, by whom.

CREATE TABLE plain (id int PRIMARY KEY, words text);
CREATE TABLE keyless (id int UNIQUE NOT NULL);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE late (id int PRIMARY KEY DEFERRABLE);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE TEMP TABLE gone (id int PRIMARY KEY);
CREATE VIEW shown AS TABLE keyless;
CREATE MATERIALIZED VIEW kept AS TABLE keyless;
CREATE SEQUENCE counted;
CREATE FOREIGN DATA WRAPPER prom_test_wrapper;
CREATE SERVER prom_test_server FOREIGN DATA WRAPPER prom_test_wrapper;
CREATE FOREIGN TABLE far (id int) SERVER prom_test_server;
SELECT throws_ok(format('SELECT prometheus_track(%L)', name), sqlstate, NULL, name || ' is refused')
  FROM (VALUES ('keyless', '55000'), ('late', '55000'), ('unlogged', '42809'), ('gone', '42809'), ('shown', '42809'),
               ('kept', '42809'), ('counted', '42809'), ('far', '42809'), ('pg_class', '42809'),
               ('prometheus._task', '42809'), ('prometheus.task', '42809')) AS v (name, sqlstate);
SELECT throws_ok($$SELECT prometheus_track(NULL)$$, '22004', NULL, 'no table is refused');
SELECT throws_ok($$SELECT prometheus_track('plain', NULL)$$, '22004', NULL, 'neither begin nor end is refused');

SET LOCAL ROLE prom_test_owner;
CREATE TABLE theirs (id int PRIMARY KEY, words text, secret text);
INSERT INTO theirs VALUES (1, 'one', 's');
SELECT throws_ok($$SELECT prometheus_track('plain')$$, '42501', NULL, 'only its owner tracks a table');
SELECT lives_ok($$SELECT prometheus_track('theirs')$$, 'an owner tracks his table');
SELECT throws_ok($$CREATE TABLE forged (id int PRIMARY KEY);
    CREATE TRIGGER forge AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION prometheus._row_changed('x')$$,
                 '42501', NULL, 'nobody else makes such triggers');
SELECT throws_ok($$INSERT INTO prometheus._row_version SELECT * FROM prometheus._row_version$$, '42501', NULL,
                 'or writes versions');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT prometheus_track('theirs')$$, '42501', NULL, 'who is no user of prometheus tracks nothing');
SET LOCAL ROLE prom_test_reader;
SELECT throws_ok($$SELECT prometheus_track('theirs', false)$$, '42501', NULL, 'and only the owner ends it');
RESET ROLE;
SELECT is(pg_temp.news(), ARRAY['begin 1 {1,one,s}'], 'the rows that are there are recorded');
SELECT is_empty($$SELECT 1 FROM pg_trigger WHERE tgrelid = 'theirs'::regclass AND tgenabled <> 'A'$$,
                'its triggers are enabled always');

-- Who changes rows needs no rights on prometheus.
GRANT INSERT ON theirs TO prom_test_nobody;
SET LOCAL ROLE prom_test_nobody;
SELECT lives_ok($$INSERT INTO theirs VALUES (2, 'two', 's')$$, 'anybody who may writes a tracked table');
RESET ROLE;
SELECT is(pg_temp.news(), ARRAY['insert 2 {2,two,s}'], 'and is recorded');

-- Who reads the history: who may read the table.
SET LOCAL ROLE prom_test_owner;
GRANT SELECT (id, words) ON theirs TO prom_test_reader;
SET LOCAL ROLE prom_test_reader;
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::theirs, now())$$, '42501', NULL, 'not who may read some columns');
SET LOCAL ROLE prom_test_owner;
GRANT SELECT ON theirs TO prom_test_reader;
SET LOCAL ROLE prom_test_reader;
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::theirs, now())$$, '55000', NULL,
                 'but who may read all (in this transaction there is no mark)');
SET LOCAL ROLE prom_test_owner;
ALTER TABLE theirs ENABLE ROW LEVEL SECURITY;
CREATE POLICY first ON theirs TO prom_test_reader USING (id = 1);
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::theirs, now())$$, '55000', NULL, 'row security does not concern the owner');
SET LOCAL ROLE prom_test_reader;
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::theirs, now())$$, '42501', NULL, 'not whom row security restricts');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::theirs, now())$$, '42501', NULL, 'nor who is no user of prometheus');
RESET ROLE;
SELECT throws_ok($$SELECT prometheus_rows_at(1, now())$$, '42809', NULL, 'a row type is wanted');
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::prometheus.task, now())$$, '42809', NULL, 'of a table');
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::theirs, NULL)$$, '22004', NULL, 'and a moment');

-- What is recorded.

CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN few AS int CHECK (VALUE < 10);
CREATE TABLE many (a int, b text, gone int, ts timestamptz, d date, i interval, f float8, r real, n numeric, by bytea,
                   m mood, p pair, s few, l text[], j jsonb, z pair[], g int GENERATED ALWAYS AS (a * 2) STORED,
                   PRIMARY KEY (b, a));
ALTER TABLE many DROP gone;
SELECT prometheus_track('many');
SELECT count(pg_temp.news());
SET LOCAL DateStyle = 'German';
SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL extra_float_digits = -10;
SET LOCAL bytea_output = 'escape';
INSERT INTO many VALUES (1, 'x, "y"', '2026-01-02 03:04:05.678901+03', '0044-03-15 BC', '1 mon -3 days 04:05:06.5',
                         0.1::float8 + 0.2, '1e-7', 1.500, '\x00ff', 'ok', '(3,"q ""r""")', 9, '{a,NULL,"NULL"}', '{"a": [1]}',
                         ARRAY[(1, NULL)::pair]),
                        (2, '', 'infinity', '-infinity', NULL, 'NaN', '-Infinity', 'NaN', '', NULL, NULL, NULL, '{}', NULL, NULL);
RESET DateStyle;
RESET IntervalStyle;
RESET extra_float_digits;
RESET bytea_output;
SELECT is(pg_temp.news(), ARRAY[
    $$insert {1,"x, \"y\""} {1,"x, \"y\"","2026-01-02 00:04:05.678901+00","0044-03-15 BC","1 mon -3 days +04:05:06.5",0.30000000000000004,1e-07,1.500,"\\x00ff",ok,"(3,\"q \"\"r\"\"\")",9,"{a,NULL,\"NULL\"}","{\"a\": [1]}","{\"(1,)\"}",2}$$,
    $$insert {2,""} {2,"",infinity,-infinity,NULL,NaN,-Infinity,NaN,"\\x",NULL,NULL,NULL,"{}",NULL,NULL,4}$$],
    'every type, whatever the settings; the key in the order of the columns');
SELECT is(current_setting('TimeZone'), 'Asia/Kolkata', 'settings are as before');

SELECT prometheus_track('plain');
INSERT INTO plain SELECT i, 'w' || i FROM generate_series(1, 3) i;
SELECT is(pg_temp.news(), ARRAY['insert 1 {1,w1}', 'insert 2 {2,w2}', 'insert 3 {3,w3}'], 'each row of a statement');
INSERT INTO plain VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET words = excluded.words;
SELECT is(pg_temp.news(), ARRAY['update 1 {1,again}'], 'an upsert');
MERGE INTO plain USING (VALUES (1), (9)) v (id) ON v.id = plain.id
    WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'merged');
SELECT is(pg_temp.news(), ARRAY['delete 1', 'insert 9 {9,merged}'], 'a merge');
UPDATE plain SET id = id - 1 WHERE id < 9;
SELECT is(pg_temp.news(), ARRAY['delete 2', 'insert 1 {1,w2}', 'delete 3', 'insert 2 {2,w3}'], 'keys that move');
SAVEPOINT s;
UPDATE plain SET words = 'lost';
ROLLBACK TO s;
SELECT is(pg_temp.news(), NULL, 'what was rolled back is not recorded');
UPDATE plain SET words = repeat('x', 100000) WHERE id = 9;
SELECT is((SELECT length(fields[2]) FROM prometheus._row_version ORDER BY version_id DESC LIMIT 1), 100000, 'a long value');
SELECT count(pg_temp.news());
UPDATE plain SET id = 10 WHERE id = 9;
SELECT is((SELECT array_agg(operation || ' ' || key || ' ' || length(fields[2]) ORDER BY version_id)
             FROM prometheus._row_version WHERE version_id > (SELECT max(version_id) FROM asked) AND fields IS NOT NULL),
          ARRAY['insert 10 100000'], 'and one that was not written again');
SELECT count(pg_temp.news());
TRUNCATE plain;
SELECT is(pg_temp.news(), ARRAY['delete 1', 'delete 2', 'delete 10'], 'TRUNCATE deletes every row');
SET LOCAL session_replication_role = replica;
INSERT INTO plain VALUES (1, 'applied');
RESET session_replication_role;
SELECT is(pg_temp.news(), ARRAY['insert 1 {1,applied}'], 'what replication applies is recorded');

-- A row that a trigger changes again has its last version, whatever its name.
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.words !~ '!' THEN
        UPDATE plain SET words = NEW.words || '!' WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER " first" AFTER INSERT OR UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO plain VALUES (2, 'two');
SELECT is((pg_temp.news())[1], 'update 2 {2,two!}', 'a trigger that comes before ours');
DROP TRIGGER " first" ON plain;
CREATE TRIGGER last AFTER INSERT OR UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO plain VALUES (3, 'three');
SELECT is((SELECT fields::text FROM prometheus._row_version WHERE key = '3' ORDER BY version_id DESC LIMIT 1),
          '{3,three!}', 'and one that comes after');
DROP TRIGGER last ON plain;
SELECT count(pg_temp.news());
-- One that is deleted, or has another key, and is there again when that is told.
CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO plain VALUES (OLD.id, 'back');
    RETURN NULL;
END $$;
CREATE TRIGGER "01_back" AFTER DELETE OR UPDATE OF id ON plain FOR EACH ROW WHEN (OLD.words <> 'gone') EXECUTE FUNCTION back();
INSERT INTO plain VALUES (41, 'gone'), (42, 'here'), (43, 'gone'), (44, 'here');
SELECT count(pg_temp.news());
DELETE FROM plain WHERE id BETWEEN 41 AND 43;
SELECT is(pg_temp.news(), '{"delete 41","insert 42 {42,back}","delete 43"}', 'a row that comes back when it is deleted');
UPDATE plain SET id = 45 WHERE id = 44;
SELECT is(pg_temp.news(), '{"insert 44 {44,back}","insert 45 {45,here}"}', 'or when its key changes');
DELETE FROM plain WHERE id = 42;
UPDATE plain SET words = 'gone' WHERE id >= 42;
DROP TRIGGER "01_back" ON plain;
DELETE FROM plain WHERE id >= 42;
SELECT is((pg_temp.news())[5:], '{"delete 45","delete 44","delete 42"}', 'and it can go');

-- Keys that are too long for an index are known by their hash.
CREATE TABLE wide (k text PRIMARY KEY);
SELECT prometheus_track('wide');
SELECT count(pg_temp.news());
INSERT INTO wide VALUES (repeat('a', 2000));
SELECT is((pg_temp.news())[1], format('insert sha256:%s {%s}', encode(sha256(convert_to(k, 'UTF8')), 'hex'), k), 'a long key')
  FROM wide;

-- Foreign keys.
CREATE TABLE child (id int PRIMARY KEY REFERENCES plain ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO child VALUES (1), (2);
SELECT prometheus_track('child');
SELECT count(pg_temp.news());
UPDATE plain SET id = 5 WHERE id = 1;
DELETE FROM plain WHERE id = 2;
SELECT is(pg_temp.news(), ARRAY['delete 1', 'insert 5 {5,applied}', 'delete 1', 'insert 5 {5}', 'delete 2', 'delete 2'],
          'what foreign keys change is recorded');

-- Partitions are tables of their own.
CREATE TABLE parted (id int PRIMARY KEY, words text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 (words text, gone int, id int NOT NULL);
ALTER TABLE part2 DROP gone;
ALTER TABLE parted ATTACH PARTITION part2 FOR VALUES FROM (10) TO (20);
SELECT prometheus_track('parted');
INSERT INTO parted VALUES (1, 'a'), (11, 'b');
UPDATE parted SET id = 12 WHERE id = 1;
TRUNCATE parted;
SELECT is(pg_temp.news(), ARRAY['insert 1 {1,a}', 'insert 11 {b,11}', 'delete 1', 'insert 12 {a,12}', 'delete 11', 'delete 12'],
          'the partitions of a table');
SELECT throws_ok($$SELECT prometheus_rows_at(NULL::parted, now())$$, '42809', NULL, 'are asked for by themselves');
SELECT lives_ok($$CREATE TABLE part3 PARTITION OF parted FOR VALUES FROM (20) TO (30)$$, 'new ones can be made');

-- Children of a table are not.
CREATE TABLE heir () INHERITS (plain);
INSERT INTO heir VALUES (77, 'heir');
SELECT is(pg_temp.news(), NULL, 'a table that inherits is another one');
DROP TABLE heir;

-- Begin and end.
SELECT prometheus_track('plain');
SELECT is(pg_temp.news(), NULL, 'a tracked table is tracked already');
SELECT prometheus_track('plain', false);
UPDATE plain SET words = 'unseen';
SELECT is(pg_temp.news(), NULL, 'the end is the end');
SELECT is_empty($$SELECT 1 FROM pg_trigger WHERE tgrelid = 'plain'::regclass AND tgname ~ 'prometheus'$$,
                'without a trigger');
SELECT lives_ok($$SELECT prometheus_track('plain', false)$$, 'and may be said twice');
SELECT prometheus_track('plain');
SELECT is(cardinality(pg_temp.news()), 2, 'the next begin records all rows anew');

-- DDL.
CREATE FUNCTION pg_temp.layout(relation text) RETURNS text LANGUAGE sql AS
    $$SELECT concat_ws(' ', event, t.relation, names::text, columns::text)
        FROM prometheus._track t WHERE relation_oid = $1::regclass ORDER BY recorded_at DESC, layout DESC LIMIT 1$$;
SELECT is(pg_temp.layout('plain'), 'begun public.plain {id,words} {1,2}', 'the columns are recorded');
ALTER TABLE plain RENAME words TO said;
SELECT is(pg_temp.layout('plain'), 'altered public.plain {id,said} {1,2}', 'a new name of a column');
ALTER TABLE plain DROP said;
ALTER TABLE plain ADD said text;
SELECT is(pg_temp.layout('plain'), 'altered public.plain {id,said} {1,3}', 'another column of the same name is another one');
SELECT is(pg_temp.news(), NULL, 'and changes no row');
CREATE SCHEMA other;
ALTER TABLE plain SET SCHEMA other;
ALTER TABLE other.plain RENAME TO "Plain";
SELECT is(pg_temp.layout('other."Plain"'), 'altered other."Plain" {id,said} {1,3}', 'another name of the table');
ALTER TABLE other."Plain" ADD n int DEFAULT 7;
SELECT is(cardinality(pg_temp.news()), 2, 'a column with a default changes all rows');
ALTER TABLE other."Plain" ALTER n TYPE text USING 'n' || n;
SELECT is((SELECT array_agg(x ORDER BY x) FROM unnest(pg_temp.news()) x), ARRAY['alter 3 {3,NULL,n7}', 'alter 5 {5,NULL,n7}'],
          'another type does');
UPDATE other."Plain" SET said = 'here' WHERE id = 5;
SELECT is(pg_temp.news(), ARRAY['update 5 {5,here,n7}'], 'and it goes on');
SELECT throws_ok($$ALTER TABLE child DROP CONSTRAINT child_pkey$$, '55000', NULL, 'the primary key may not go');
SELECT throws_ok($$ALTER TABLE child ALTER id TYPE bigint$$, '55000', NULL, 'nor get another type');
SELECT throws_ok($$ALTER TABLE child DROP id$$, '55000', NULL, 'nor lose a column');
CREATE TABLE moods (m mood PRIMARY KEY, p pair);
SELECT count(prometheus_track('moods'));
ALTER TYPE mood RENAME TO temper;
ALTER TYPE pair RENAME ATTRIBUTE b TO c;
ALTER TYPE temper ADD VALUE 'glad';
ALTER TYPE pair SET SCHEMA other;
SELECT is((SELECT types::text FROM prometheus._track WHERE relation = 'public.moods' ORDER BY layout DESC LIMIT 1),
          '{public.temper,other.pair}', 'a type may get another name, that of the key too');
INSERT INTO moods VALUES ('sad', (1, 'x'));
SELECT is(pg_temp.news(), ARRAY['insert sad {sad,"(1,x)"}'], 'and all is recorded');
SELECT count(prometheus_track('moods', false));
SELECT throws_ok($$ALTER TABLE wide SET UNLOGGED$$, '55000', NULL, 'the table may not become unlogged');
SELECT lives_ok($$ALTER TABLE child RENAME id TO child_id$$, 'a column of it may get another name');
INSERT INTO child VALUES (3) ON CONFLICT DO NOTHING;
SELECT count(pg_temp.news());
SELECT is((SELECT value FROM prometheus_health() WHERE check_name = 'tracked tables'), '7', 'health counts them');
ALTER TABLE child DISABLE TRIGGER USER;
SELECT is((SELECT reason FROM prometheus._track WHERE relation = 'public.child' AND event = 'ended'),
          'its trigger was disabled', 'who disables the trigger ends it');
SELECT is((SELECT status || ' ' || value FROM prometheus_health() WHERE check_name = 'tracked tables'),
          'warning 6; not recorded any more: public.child', 'health says so');
ALTER TABLE child ENABLE ALWAYS TRIGGER "0_prometheus_track", ENABLE ALWAYS TRIGGER "0_prometheus_truncate";
DELETE FROM child;
SELECT is(pg_temp.news(), NULL, 'and it does not go on by itself, with a hole');
SELECT prometheus_track('child');
SELECT is((SELECT status || ' ' || value FROM prometheus_health() WHERE check_name = 'tracked tables'), 'ok 7',
          'but when it is begun anew');
DROP TRIGGER "0_prometheus_track" ON child;
SELECT is((SELECT status || ' ' || value FROM prometheus_health() WHERE check_name = 'tracked tables'),
          'warning 6; not recorded any more: public.child', 'health knows of a trigger that was dropped');
SELECT lives_ok($$DROP TABLE child$$, 'a tracked table can be dropped');
SELECT is((SELECT status || ' ' || value FROM prometheus_health() WHERE check_name = 'tracked tables'), 'ok 6',
          'and is forgotten by health');
SELECT cmp_ok((SELECT count(*) FROM prometheus._row_version JOIN prometheus._track USING (track_id, layout)
                WHERE relation = 'public.child'), '>', 0::bigint, 'its versions stay');
SELECT lives_ok($$DROP EXTENSION prometheus$$, 'the triggers are no obstacle to DROP EXTENSION');
SELECT is_empty($$SELECT 1 FROM pg_trigger WHERE tgname ~ 'prometheus'$$, 'which takes them along');

SELECT * FROM finish();
ROLLBACK;
