-- What becomes of the history of a tracked table when the table is altered.
-- What is recorded of names and types is in track.sql.
BEGIN;
SELECT plan(33);

SET LOCAL client_min_messages = error;

-- The versions since they were last asked for, by their keys.
CREATE TEMP TABLE asked (version_id bigint);
INSERT INTO asked SELECT coalesce(max(version_id), 0) FROM prometheus._row_version;
CREATE FUNCTION pg_temp.news() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    said text[];
BEGIN
    SELECT array_agg(concat_ws(' ', operation, key, fields::text) ORDER BY key COLLATE "C", version_id) INTO said
      FROM prometheus._row_version WHERE version_id > (SELECT max(version_id) FROM asked);
    INSERT INTO asked SELECT coalesce(max(version_id), 0) FROM prometheus._row_version;
    RETURN said;
END $$;
-- How a track ended; null: it has not.
CREATE FUNCTION pg_temp.reason(relation regclass) RETURNS text LANGUAGE sql AS $$
    SELECT reason FROM prometheus._track WHERE relation_oid = $1 ORDER BY recorded_at DESC, layout DESC LIMIT 1
$$;

-- Values that an expression computes, of a column that keeps its type.
CREATE TABLE plain (id int PRIMARY KEY, words text, n int);
INSERT INTO plain VALUES (1, 'one', 1), (2, 'two', 2);
SELECT prometheus_track('plain');
SELECT count(pg_temp.news());
ALTER TABLE plain ALTER words TYPE text USING upper(words);
SELECT is(pg_temp.news(), '{"alter 1 {1,ONE,1}","alter 2 {2,TWO,2}"}', 'other values of the same type');
ALTER TABLE plain ALTER n TYPE int USING n * 10, ALTER words SET STORAGE EXTERNAL;
SELECT is(pg_temp.news(), '{"alter 1 {1,ONE,10}","alter 2 {2,TWO,20}"}', 'of another column');
ALTER TABLE plain ALTER words TYPE text USING words, ALTER n TYPE int USING n::int;
SELECT is(pg_temp.news(), NULL, 'values that stay as they are');
CLUSTER plain USING plain_pkey;
SELECT is(pg_temp.news(), NULL, 'rows that are written elsewhere');
ALTER TABLE plain ALTER words TYPE varchar(2) USING left(words, 2);
SELECT is(pg_temp.news(), '{"alter 1 {1,ON,10}","alter 2 {2,TW,20}"}', 'of another type');
UPDATE plain SET words = 'x' WHERE id = 1;
SELECT is(pg_temp.news(), '{"update 1 {1,x,10}"}', 'and it goes on');

-- Those of the key are how rows are known.
SELECT throws_ok($$ALTER TABLE plain ALTER id TYPE int USING id + 1$$, '55000',
                 'cannot change the primary key of table public.plain, which is tracked by prometheus',
                 'the key gets no other values');
SELECT lives_ok($$ALTER TABLE plain ALTER id TYPE int USING id$$, 'but may keep them');
ALTER TABLE plain ALTER words TYPE text;
SELECT is(pg_temp.news(), '{"alter 1 {1,x,10}","alter 2 {2,TW,20}"}', 'and others change');
SELECT current_setting('server_version_num')::int >= 170000 AS sets_expression \gset
CREATE TABLE derived (n int, id int GENERATED ALWAYS AS (n + 1) STORED PRIMARY KEY, twice int GENERATED ALWAYS AS (n * 2) STORED);
INSERT INTO derived VALUES (1);
SELECT prometheus_track('derived');
SELECT throws_ok($$ALTER TABLE derived ALTER n TYPE bigint$$, '0A000', NULL, 'what a key is generated of stays as it is');
SELECT count(pg_temp.news());
\if :sets_expression
SELECT throws_ok($$ALTER TABLE derived ALTER id SET EXPRESSION AS (n + 2)$$, '55000', NULL, 'so does how it is generated');
ALTER TABLE derived ALTER twice SET EXPRESSION AS (n * 3);
\else
SELECT pass('so does how it is generated');
ALTER TABLE derived DROP twice, ADD twice int GENERATED ALWAYS AS (n * 3) STORED;
\endif
SELECT is(pg_temp.news(), '{"alter 2 {1,2,3}"}', 'others are generated anew');

-- Through a parent, and by partitions.
CREATE TABLE parted (id int PRIMARY KEY, words text) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);
INSERT INTO parted VALUES (1, 'one');
CREATE TABLE parent (words text);
CREATE TABLE child (id int PRIMARY KEY) INHERITS (parent);
INSERT INTO child VALUES ('c', 1);
SELECT count(prometheus_track(t)) FROM unnest('{parted,child}'::regclass[]) t;
SELECT count(pg_temp.news());
ALTER TABLE parted ALTER words TYPE text USING upper(words);
SELECT is(pg_temp.news(), '{"alter 1 {1,ONE}"}', 'values of partitions');
ALTER TABLE parent ALTER words TYPE text USING upper(words);
SELECT is(pg_temp.news(), '{"alter 1 {C,1}"}', 'and of tables that inherit');

-- Statements within the statement, while its rows are not what its columns say.
CREATE FUNCTION busy(words text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SET LOCAL prom_test.busy = 1';
    CREATE TEMP TABLE IF NOT EXISTS busy (id int PRIMARY KEY);
    RETURN length(words);
END $$;
UPDATE plain SET words = repeat('x', id * 100);
SELECT count(pg_temp.news());
ALTER TABLE plain ALTER words TYPE int USING busy(words);
SELECT is(pg_temp.news(), '{"alter 1 {1,100,10}","alter 2 {2,200,20}"}', 'a function that runs statements');
DO $$
BEGIN
    ALTER TABLE plain ADD said text DEFAULT 'here';
    UPDATE plain SET said = 'there' WHERE id = 2;
    BEGIN
        ALTER TABLE plain ADD gone text DEFAULT 'x';
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        UPDATE plain SET said = 'again' WHERE id = 2;
    END;
END $$;
SELECT is(pg_temp.news(), '{"alter 1 {1,100,10,here}","alter 2 {2,200,20,here}","update 2 {2,200,20,there}","update 2 {2,200,20,again}"}',
          'statements of a block, one of which fails');

-- Rows that are changed before the statement has ended.
CREATE FUNCTION fill_up() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE plain SET said = 'filled' WHERE id = 1;
END $$;
CREATE EVENT TRIGGER fill_up ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION fill_up();
ALTER TABLE plain ADD more int DEFAULT 7;
DROP EVENT TRIGGER fill_up;
SELECT is((SELECT array_agg(x) FROM unnest(pg_temp.news()) x WHERE x ~ '^alter'),
          '{"alter 1 {1,100,10,filled,7}","alter 2 {2,200,20,again,7}"}', 'an event trigger that changes rows');
UPDATE plain SET more = 8 WHERE id = 2;
SELECT is(pg_temp.news(), '{"update 2 {2,200,20,again,8}"}', 'and it goes on');

-- Other names of schemas.
CREATE SCHEMA here;
CREATE TYPE here.mood AS ENUM ('sad', 'ok');
CREATE TABLE here.moods (m here.mood PRIMARY KEY);
INSERT INTO here.moods VALUES ('ok');
SELECT prometheus_track('here.moods');
SELECT count(pg_temp.news());
ALTER SCHEMA here RENAME TO there;
SELECT is((SELECT relation || types::text FROM prometheus._track WHERE relation_oid = 'there.moods'::regclass ORDER BY layout DESC LIMIT 1),
          'there.moods{there.mood}', 'another name of the schema');
SELECT lives_ok($$ALTER TABLE there.moods ADD words text$$, 'makes no other key of it');
SELECT is(pg_temp.news(), NULL, 'and no other rows');

-- Triggers of ours that are dropped, or do not run always, leave holes.
DROP TRIGGER "0_prometheus_truncate" ON plain;
SELECT is(pg_temp.reason('plain'), 'its trigger was dropped', 'who drops one trigger ends the track');
TRUNCATE plain;
SELECT is(pg_temp.news(), NULL, 'whatever the other one could tell');
SELECT prometheus_track('plain');
SELECT is(pg_temp.reason('plain'), NULL, 'it begins anew');
DROP TRIGGER "0_prometheus_track" ON plain;
DROP TRIGGER "0_prometheus_truncate" ON plain;
SELECT is(pg_temp.reason('plain'), 'its trigger was dropped', 'or both');
SELECT matches((SELECT value FROM prometheus_health() WHERE check_name = 'tracked tables'), 'not recorded any more: public.plain$', 'health says so');
SELECT prometheus_track('plain');
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER "1_another" AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE plain ADD FOREIGN KEY (id) REFERENCES parted;
SELECT is(pg_temp.reason('plain'), NULL, 'other triggers do no harm');
CREATE OR REPLACE TRIGGER "0_prometheus_track" AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT is(pg_temp.reason('plain'), 'its trigger was dropped', 'one that replaces ours does');
DROP TRIGGER "0_prometheus_track" ON plain;
ALTER TABLE plain DROP CONSTRAINT plain_id_fkey;
SELECT prometheus_track('plain');
ALTER TABLE plain ENABLE TRIGGER ALL;
SELECT is(pg_temp.reason('plain'), 'its trigger was disabled', 'triggers that do not run for what replication applies');
SELECT prometheus_track('plain');
SELECT is(pg_temp.reason('plain'), NULL, 'it begins anew');

-- A table out of a dump of one table has the track of that one.
CREATE TABLE twin (LIKE plain INCLUDING ALL);
SELECT format('CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON twin FOR EACH ROW EXECUTE FUNCTION prometheus._row_changed(%L)', track_id)
  FROM prometheus._track WHERE relation_oid = 'plain'::regclass ORDER BY recorded_at DESC LIMIT 1 \gexec
SELECT prometheus_track('twin', false);
SELECT is(pg_temp.reason('plain'), NULL, 'the end of a copy is not that of the table');
INSERT INTO plain (id, n) VALUES (5, 5);
SELECT is(cardinality(pg_temp.news()), 1, 'which goes on');
SELECT is((SELECT value FROM prometheus_health() WHERE check_name = 'tracked tables'), '5', 'health has no more to say');

SELECT * FROM finish();
ROLLBACK;
