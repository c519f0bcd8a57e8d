-- What prometheus_undo() lists and reverts, and what it refuses.  A task's
-- changes are made here by hand; test/t/485_track.pl lets tools make them.
BEGIN;
SELECT plan(85);

SET LOCAL client_min_messages = error;
SET LOCAL TimeZone = 'Asia/Kolkata';

CREATE ROLE prom_test_owner;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_user TO prom_test_owner, prom_test_other;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT CREATE, USAGE ON SCHEMA public TO prom_test_owner;

CREATE FUNCTION pg_temp.new_task(ended boolean DEFAULT true) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    task bigint := prometheus_submit('x');
BEGIN
    IF ended THEN
        PERFORM set_config('role', 'none', true);
        INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
            VALUES (task, 1, task, prometheus._xid(), now(), 1, 'completed');
    END IF;
    RETURN task;
END $$;

-- Do something; in the history it is the task's.
CREATE FUNCTION pg_temp.act(task bigint, VARIADIC statements text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before bigint := (SELECT coalesce(max(version_id), 0) FROM prometheus._row_version);
    statement text;
BEGIN
    FOREACH statement IN ARRAY statements LOOP
        EXECUTE statement;
    END LOOP;
    UPDATE prometheus._row_version SET task_id = task, step = 2 WHERE version_id > before;
END $$;

-- A table as it is.
CREATE FUNCTION pg_temp.rows_of(relation regclass) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    rows text[];
BEGIN
    EXECUTE format('SELECT array_agg(x::text ORDER BY x::text COLLATE "C") FROM %s x', relation) INTO rows;
    RETURN rows;
END $$;
CREATE TEMP TABLE was (relation text, rows text[]);
CREATE FUNCTION pg_temp.remember(VARIADIC relations text[]) RETURNS bigint LANGUAGE sql AS $$
    DELETE FROM was;
    INSERT INTO was SELECT r, pg_temp.rows_of(r::regclass) FROM unnest(relations) r;
    SELECT count(*) FROM was;
$$;
CREATE FUNCTION pg_temp.is_as_before(what text) RETURNS text LANGUAGE sql AS $$
    SELECT is((SELECT array_agg(format('%s %s', relation, pg_temp.rows_of(relation::regclass)) ORDER BY relation) FROM was),
              (SELECT array_agg(format('%s %s', relation, rows) ORDER BY relation) FROM was), what);
$$;
CREATE FUNCTION pg_temp.verdicts(task bigint, dry_run boolean DEFAULT true) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s %s', verdict, n), ', ' ORDER BY verdict)
      FROM (SELECT verdict, count(*) AS n FROM prometheus_undo(task, dry_run) GROUP BY verdict) v;
$$;

CREATE TABLE customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, loud text GENERATED ALWAYS AS (upper(name)) STORED,
                       boss int REFERENCES customer);
CREATE TABLE ordered (customer int REFERENCES customer ON DELETE CASCADE ON UPDATE CASCADE, n int, at timestamptz,
                      price numeric, PRIMARY KEY (customer, n));
CREATE TABLE note (customer int REFERENCES customer ON DELETE SET NULL);
INSERT INTO customer (name, boss) VALUES ('a', 1), ('b', 1), ('c', 2), ('d', NULL);
INSERT INTO ordered SELECT c, n, '2026-01-01 10:00+00', 'NaN' FROM generate_series(1, 3) c, generate_series(1, 2) n;
SELECT count(prometheus_track(r)) FROM unnest(ARRAY['customer', 'ordered']::regclass[]) r;

-- Nothing.
SELECT pg_temp.new_task() AS task \gset
SELECT is(pg_temp.verdicts(:task), NULL, 'a task that changed nothing');
SELECT is(pg_temp.verdicts(:task, false), NULL, 'and its undo');

-- Everything at once.
SELECT pg_temp.remember('customer', 'ordered') AS n \gset
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task,
    $$DELETE FROM customer WHERE id = 3$$,
    $$UPDATE customer SET name = 'A', boss = 4 WHERE id = 1$$,
    $$INSERT INTO customer (name, boss) VALUES ('new', 1)$$,
    $$INSERT INTO ordered SELECT id, 9, now(), 1.50 FROM customer WHERE name = 'new'$$,
    $$UPDATE ordered SET n = 7 WHERE customer = 1 AND n = 1$$,
    $$UPDATE ordered SET price = 3 WHERE customer = 2 AND n = 2$$,
    $$INSERT INTO ordered VALUES (4, 99)$$,
    $$DELETE FROM ordered WHERE n = 99$$,
    $$UPDATE customer SET name = 'x' WHERE id = 4$$,
    $$UPDATE customer SET name = 'd' WHERE id = 4$$) AS acted \gset
SELECT is((SELECT string_agg(concat_ws(' ', relation, key, operation, verdict), E'\n') FROM prometheus_undo(:task)),
'public.customer {"id": "3"} delete revert
public.ordered {"n": "1", "customer": "3"} delete revert
public.ordered {"n": "2", "customer": "3"} delete revert
public.customer {"id": "1"} update revert
public.customer {"id": "5"} insert revert
public.ordered {"n": "9", "customer": "5"} insert revert
public.ordered {"n": "1", "customer": "1"} delete revert
public.ordered {"n": "7", "customer": "1"} insert revert
public.ordered {"n": "2", "customer": "2"} update revert
public.ordered {"n": "99", "customer": "4"} insert and delete same
public.customer {"id": "4"} update same', 'every row once, in the order of the changes');
SELECT is((SELECT current_row || restored_row FROM prometheus_undo(:task) WHERE key = '{"id": "3"}'), NULL,
          'a row that is not there is null');
SELECT is((SELECT restored_row FROM prometheus_undo(:task) WHERE key = '{"id": "3"}'),
          '{"id": "3", "boss": "2", "loud": "C", "name": "c"}', 'what a row becomes');
SELECT is((SELECT current_row FROM prometheus_undo(:task) WHERE key = '{"n": "2", "customer": "2"}'),
          '{"n": "2", "at": "2026-01-01 10:00:00+00", "price": "3", "customer": "2"}', 'what a row is');
SELECT is((SELECT name FROM customer WHERE id = 1), 'A', 'a dry run changes nothing');
SELECT is(pg_temp.verdicts(:task, false), 'revert 9, same 2', 'the undo says what it did');
SELECT pg_temp.is_as_before('and all is as before');
SELECT is(pg_temp.verdicts(:task), 'same 2, undone 9', 'then it is undone');
SELECT is(pg_temp.verdicts(:task, false), 'same 2, undone 9', 'and there is nothing to undo');
SELECT pg_temp.is_as_before('so nothing changes');
SELECT is((SELECT count(*) FROM prometheus._row_version WHERE undoes = :task AND task_id IS NULL), 9::bigint,
          'the undo is in the history, and is no task''s');
UPDATE customer SET name = 'later' WHERE id = 1;
SELECT is(pg_temp.verdicts(:task), 'same 2, undone 9', 'what was undone may be changed');

-- A task that goes on after it was undone.
SELECT pg_temp.act(:task, $$UPDATE customer SET name = 'retried' WHERE id = 1$$) AS acted \gset
SELECT is(pg_temp.verdicts(:task), 'revert 1, same 2, undone 8', 'what it changed since');
SELECT is(pg_temp.verdicts(:task, false), 'revert 1, same 2, undone 8', 'is undone');
SELECT is((SELECT name FROM customer WHERE id = 1), 'later', 'to what it was then');

-- Settings of the session do not matter, and are kept.
SET LOCAL DateStyle = 'SQL, DMY';
SET LOCAL extra_float_digits = -3;
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.remember('ordered') AS n \gset
SELECT pg_temp.act(:task, $$UPDATE ordered SET at = '02/03/2026 04:05:06.789', price = 1e100$$) AS acted \gset
SELECT is(pg_temp.verdicts(:task, false), 'revert 6', 'under other settings');
SELECT pg_temp.is_as_before('it is the same');
SELECT is(current_setting('DateStyle'), 'SQL, DMY', 'and they stay');
RESET DateStyle;
RESET extra_float_digits;

-- Conflicts.

SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, $$UPDATE customer SET name = 'mine' WHERE id < 3$$, $$DELETE FROM ordered WHERE customer = 3$$) AS acted \gset
SELECT pg_temp.remember('customer', 'ordered') AS n \gset
SAVEPOINT s;
UPDATE customer SET name = 'theirs' WHERE id = 2;
INSERT INTO ordered VALUES (3, 1, now(), 5);
SELECT is(pg_temp.verdicts(:task), 'conflict 2, revert 2', 'what someone changed since is a conflict');
SELECT is((SELECT string_agg(key::text, ' ' ORDER BY key) FROM prometheus_undo(:task) WHERE reason ~ 'by no task'),
          '{"id": "2"} {"n": "1", "customer": "3"}', 'with a reason');
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), 'PM007', NULL, 'and nothing is undone');
SELECT is((SELECT name FROM customer WHERE id = 1), 'mine', 'not even the others');
ROLLBACK TO s;
UPDATE customer SET name = 'back' WHERE id = 2;
UPDATE customer SET name = 'mine' WHERE id = 2;
SELECT is(pg_temp.verdicts(:task), 'conflict 1, revert 3', 'also if it is as the task left it');
ROLLBACK TO s;
SELECT pg_temp.new_task() AS other \gset
SELECT pg_temp.act(:other, $$UPDATE customer SET name = 'other' WHERE id = 1$$) AS acted \gset
SELECT is((SELECT string_agg(regexp_replace(reason, ' at .*', ''), ' ') FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          format('task %s changed it', :other), 'another task''s change is one');
SELECT is(pg_temp.verdicts(:other, false), 'revert 1', 'that one can be undone');
SELECT is(pg_temp.verdicts(:task), 'conflict 1, revert 3', 'which is a change since');
ROLLBACK TO s;
SELECT pg_temp.act(:other, $$UPDATE customer SET name = 'between' WHERE id = 1$$) AS acted \gset
SELECT pg_temp.act(:task, $$UPDATE customer SET name = 'mine again' WHERE id = 1$$) AS acted \gset
SELECT is(pg_temp.verdicts(:task), 'conflict 1, revert 3', 'a change between two of the task''s is one');
ROLLBACK TO s;
ALTER TABLE customer DISABLE TRIGGER USER;
SELECT is((SELECT DISTINCT reason FROM prometheus_undo(:task) WHERE relation = 'public.customer'),
          'the tracking of the table was interrupted', 'a table that is not recorded any more');
ROLLBACK TO s;
SELECT count(prometheus_track('customer', b)) FROM unnest(ARRAY[false, true]) b;
SELECT is((SELECT DISTINCT reason FROM prometheus_undo(:task) WHERE relation = 'public.customer'),
          'the table was dropped, or is not tracked any more', 'or was recorded anew');
ROLLBACK TO s;
DROP TABLE ordered;
SELECT is(pg_temp.verdicts(:task), 'conflict 2, revert 2', 'a table that was dropped');
ROLLBACK TO s;
ALTER TABLE customer ADD extra int DEFAULT 1;
ALTER TABLE customer RENAME name TO title;
ALTER TABLE ordered DROP price;
ALTER TABLE ordered ALTER n TYPE int;
SELECT is(pg_temp.verdicts(:task, false), 'revert 4', 'a table that was altered is no conflict');
SELECT is((SELECT array_agg(c::text ORDER BY c.id) FROM customer c WHERE id < 3), ARRAY['(1,later,LATER,1,1)', '(2,b,B,1,1)'],
          'new columns stay as they are');
SELECT is((SELECT array_agg(o::text ORDER BY o.n) FROM ordered o WHERE customer = 3),
          ARRAY['(3,1,"2026-01-01 15:30:00+05:30")', '(3,2,"2026-01-01 15:30:00+05:30")'], 'dropped ones are left out');
ROLLBACK TO s;
SELECT is(pg_temp.verdicts(:task), 'revert 4', 'and without all that');

-- Foreign keys that would change other rows.

SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, $$INSERT INTO customer (name) VALUES ('guest')$$,
                          $$INSERT INTO ordered SELECT id, 1 FROM customer WHERE name = 'guest'$$) AS acted \gset
SAVEPOINT s;
SELECT is(pg_temp.verdicts(:task), 'revert 2', 'rows that refer to each other go together');
INSERT INTO note SELECT id FROM customer WHERE name = 'guest';
SELECT is((SELECT string_agg(concat_ws(' ', relation, reason), '') FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          'public.customer a row of note refers to it, and would be changed with it', 'somebody else''s that refers is a conflict');
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), 'PM007', NULL, 'and is not changed');
ROLLBACK TO s;
INSERT INTO ordered SELECT id, 2 FROM customer WHERE name = 'guest';
SELECT is(pg_temp.verdicts(:task), 'conflict 1, revert 1', 'also in a tracked table');
ROLLBACK TO s;
INSERT INTO customer (name, boss) SELECT 'guest of guest', id FROM customer WHERE name = 'guest';
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '23503', NULL, 'a key that only forbids, forbids');
SELECT isnt((SELECT id FROM customer WHERE name = 'guest'), NULL, 'and nothing is half done');
ROLLBACK TO s;
DELETE FROM customer WHERE name = 'guest';
SELECT is(pg_temp.verdicts(:task), 'conflict 2', 'what was deleted since is a conflict');
ROLLBACK TO s;

-- Triggers.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER keep BEFORE DELETE ON ordered FOR EACH ROW EXECUTE FUNCTION keep();
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '09000', NULL, 'a trigger that keeps a row');
ROLLBACK TO s;
CREATE FUNCTION count_statements() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM set_config('prom_test.path', current_setting('search_path'), true); RETURN NULL; END$$;
CREATE TRIGGER tell AFTER DELETE ON ordered FOR EACH STATEMENT EXECUTE FUNCTION count_statements();
SELECT is(pg_temp.verdicts(:task, false), 'revert 2', 'triggers of statements');
SELECT is(current_setting('prom_test.path'), current_setting('search_path'), 'run with the caller''s settings');
ROLLBACK TO s;

-- A sum that a trigger keeps would be reverted twice.
CREATE FUNCTION sum_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE customer SET name = (SELECT count(*) FROM ordered WHERE customer = 4) WHERE id = 4;
    RETURN NULL;
END $$;
CREATE TRIGGER sum_up AFTER INSERT OR DELETE ON ordered FOR EACH ROW EXECUTE FUNCTION sum_up();
SELECT pg_temp.act(:task, $$INSERT INTO ordered VALUES (4, 1)$$) AS acted \gset
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), 'PM007', NULL, 'what a trigger changes again');
SELECT is((SELECT name FROM customer WHERE id = 4), '1', 'stays as it is');
ROLLBACK TO s;

-- Values that only one row may have.
CREATE TABLE booked (id int PRIMARY KEY, name text UNIQUE, during int4range, CHECK (name <> ''), EXCLUDE USING gist (during WITH &&));
INSERT INTO booked VALUES (1, 'a', '[1,5)'), (2, 'b', '[5,9)'), (3, 'c', '[9,12)'), (4, 'd', '[12,15)');
SELECT prometheus_track('booked');
SELECT pg_temp.remember('booked') AS n \gset
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, $$UPDATE booked SET name = 'x', during = '[30,31)' WHERE id = 1$$,
                          $$UPDATE booked SET name = 'a', during = '[1,5)' WHERE id = 2$$,
                          $$UPDATE booked SET name = 'b', during = '[5,9)' WHERE id = 3$$,
                          $$DELETE FROM booked WHERE id = 4$$,
                          $$INSERT INTO booked VALUES (5, 'd', '[12,15)')$$) AS acted \gset
SAVEPOINT s;
SELECT is(pg_temp.verdicts(:task, false), 'revert 5', 'values that went from row to row');
SELECT pg_temp.is_as_before('go back');
ROLLBACK TO s;
INSERT INTO booked VALUES (6, 'c', '[50,51)');
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '23505', NULL, 'one that somebody has taken since');
ROLLBACK TO s;
INSERT INTO booked VALUES (6, 'e', '[9,10)');
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '23P01', NULL, 'also of an exclusion constraint');
ROLLBACK TO s;
ALTER TABLE booked ADD CHECK (name <> 'd') NOT VALID;
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '23514', NULL, 'a constraint that is new');
ROLLBACK TO s;
SELECT is(pg_temp.verdicts(:task), 'revert 5', 'and nothing is half done');
SELECT pg_temp.act(:task, $$UPDATE booked SET name = 't' WHERE id = 2$$, $$UPDATE booked SET name = 'a' WHERE id = 1$$,
                          $$UPDATE booked SET name = 'x' WHERE id = 2$$) AS acted \gset
SELECT is(pg_temp.verdicts(:task, false), 'revert 5', 'it may have changed them more than once');
SELECT pg_temp.is_as_before('in whatever order');

-- Keys that are equal and have another text.
CREATE TABLE amount (n numeric PRIMARY KEY, words text);
INSERT INTO amount VALUES (1, 'one'), (2, 'two'), (3, 'three');
SELECT prometheus_track('amount');
SELECT pg_temp.remember('amount') AS n \gset
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, 'UPDATE amount SET n = 1.0 WHERE n = 1', 'DELETE FROM amount WHERE n = 2') AS acted \gset
SAVEPOINT s;
SELECT is(pg_temp.verdicts(:task, false), 'revert 3', 'a key that got another text');
SELECT pg_temp.is_as_before('gets its text again');
ROLLBACK TO s;
INSERT INTO amount VALUES (2.0, 'theirs');
SELECT is((SELECT concat_ws(' ', key, reason) FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          '{"n": "2"} a row with that key is in the table', 'one that somebody has taken since');
ROLLBACK TO s;
UPDATE amount SET n = 1.00 WHERE n = 1;
SELECT is((SELECT string_agg(concat_ws(' ', key, regexp_replace(reason, ' at .*,', '')), ', ') FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          '{"n": "1"} a row with that key is in the table, {"n": "1.0"} it was changed by no task', 'or changed');
ROLLBACK TO s;

-- What nobody can set, and what is generated.
CREATE FUNCTION derive(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TABLE counted (id int PRIMARY KEY, n int, seq int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (derive(n)) STORED);
INSERT INTO counted SELECT i, i FROM generate_series(1, 3) i;
SELECT prometheus_track('counted');
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, 'UPDATE counted SET seq = DEFAULT WHERE id = 1', 'DELETE FROM counted WHERE id = 2',
                          'UPDATE counted SET n = 30 WHERE id = 3',
                          $$CREATE OR REPLACE FUNCTION derive(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3'$$,
                          'UPDATE counted SET n = 3 WHERE id = 3') AS acted \gset
SELECT is((SELECT string_agg(concat_ws(' ', key ->> 'id', verdict, reason), ', ' ORDER BY key) FROM prometheus_undo(:task)),
          '1 conflict column "seq" is an identity that is always generated, 2 revert, 3 same', 'an identity cannot be set back');
UPDATE prometheus._row_version SET task_id = NULL WHERE task_id = :task AND key = '1';
SELECT is((SELECT restored_row ->> 'twice' FROM prometheus_undo(:task, false) WHERE operation = 'delete'), '6',
          'an undo tells what is generated now');
SELECT is((SELECT c::text FROM counted c WHERE id = 2), '(2,2,2,6)', 'but a row that is inserted has it');

-- Columns that got another type, or other values, since.
CREATE TABLE typed (id int PRIMARY KEY, n int, words text);
INSERT INTO typed VALUES (1, 1, 'one'), (2, 2, 'two');
SELECT prometheus_track('typed');
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, $$UPDATE typed SET n = 10, words = '100' WHERE id = 1$$, $$DELETE FROM typed WHERE id = 2$$) AS acted \gset
SAVEPOINT s;
ALTER TABLE typed ALTER n TYPE numeric(10, 2);
SELECT is(pg_temp.verdicts(:task, false), 'revert 2', 'another type with the same values');
SELECT is(pg_temp.rows_of('typed'), '{"(1,1.00,one)","(2,2.00,two)"}', 'has the values of before');
ROLLBACK TO s;
ALTER TABLE typed ALTER n TYPE text USING 'n' || n;
SELECT is((SELECT concat_ws(' ', key ->> 'id', reason) FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          '1 column "n" has another value than was recorded', 'another type with other values is a conflict');
ROLLBACK TO s;
ALTER TABLE typed ALTER n TYPE int USING n * 2;
SELECT is((SELECT concat_ws(' ', key ->> 'id', reason) FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          '1 column "n" has another value than was recorded', 'so are other values of the same type');
ROLLBACK TO s;
ALTER TABLE typed ALTER words TYPE int USING words::int;
SELECT is((SELECT string_agg(concat_ws(' ', key ->> 'id', reason), ', ' ORDER BY key) FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          '1 column "words" has a type now that its earlier value does not fit, '
          '2 column "words" has a type now that its earlier value does not fit', 'a type for which the earlier value is none');
ROLLBACK TO s;
ALTER TABLE typed ALTER n TYPE bigint;
SELECT pg_temp.act(:task, 'UPDATE typed SET n = 11 WHERE id = 1') AS acted \gset
SELECT is((SELECT concat_ws(' ', key ->> 'id', reason) FROM prometheus_undo(:task) WHERE verdict = 'conflict'),
          '1 column "n" got another type while the task changed the row', 'and one between two changes of the task');
ROLLBACK TO s;

-- A trigger before it changes what is written.
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.words := 'touched'; RETURN NEW; END$$;
CREATE TRIGGER touch BEFORE UPDATE ON typed FOR EACH ROW EXECUTE FUNCTION touch();
SELECT is((SELECT string_agg(restored_row::text, ', ' ORDER BY key) FROM prometheus_undo(:task, false)),
          '{"n": "1", "id": "1", "words": "touched"}, {"n": "2", "id": "2", "words": "two"}', 'the undo tells what it came to');

-- Partitions, and tables that have another name by now.
CREATE TABLE split (id int, region text, n int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE split_a PARTITION OF split FOR VALUES IN ('a');
CREATE TABLE split_b (n int, gone int, region text NOT NULL, id int NOT NULL);
ALTER TABLE split_b DROP gone;
ALTER TABLE split ATTACH PARTITION split_b FOR VALUES IN ('b');
INSERT INTO split VALUES (1, 'a', 1), (2, 'a', 2), (3, 'b', 3);
SELECT prometheus_track('split');
SELECT pg_temp.remember('split') AS n \gset
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, $$UPDATE split SET region = 'b' WHERE id = 1$$, $$UPDATE split SET n = 30 WHERE id = 3$$,
                          $$DELETE FROM split WHERE id = 2$$, $$INSERT INTO split VALUES (4, 'b', 4)$$) AS acted \gset
CREATE SCHEMA elsewhere;
ALTER TABLE split_a RENAME TO "Split";
ALTER TABLE "Split" SET SCHEMA elsewhere;
SELECT is((SELECT string_agg(concat_ws(' ', relation, key, operation, verdict), ', ') FROM prometheus_undo(:task)),
          'elsewhere."Split" {"id": "1", "region": "a"} delete revert, public.split_b {"id": "1", "region": "b"} insert revert, '
          'public.split_b {"id": "3", "region": "b"} update revert, elsewhere."Split" {"id": "2", "region": "a"} delete revert, '
          'public.split_b {"id": "4", "region": "b"} insert revert', 'rows of partitions, by the names of now');
SELECT is(pg_temp.verdicts(:task, false), 'revert 5', 'and the way between them');
SELECT pg_temp.is_as_before('is undone');
SELECT is(pg_temp.verdicts(:task), 'undone 5', 'in each of them');

-- Who may.

SET LOCAL ROLE prom_test_owner;
CREATE TABLE theirs (id int PRIMARY KEY, words text);
INSERT INTO theirs VALUES (1, 'one'), (2, 'two');
SELECT prometheus_track('theirs');
SELECT pg_temp.new_task() AS task \gset
SELECT pg_temp.act(:task, $$UPDATE theirs SET words = 'x'$$) AS acted \gset
SET LOCAL ROLE prom_test_other;
SELECT throws_ok(format('SELECT prometheus_undo(%s)', :task), '42704', NULL, 'not who did not submit the task');
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok(format('SELECT prometheus_undo(%s)', :task), '42501', NULL, 'not even an administrator who may not read the table');
SET LOCAL ROLE prom_test_owner;
GRANT SELECT ON theirs TO prom_test_admin;
SET LOCAL ROLE prom_test_admin;
SELECT is(pg_temp.verdicts(:task), 'revert 2', 'one who may lists its rows');
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '42501', NULL, 'but changes them only if he may');
SET LOCAL ROLE prom_test_owner;
GRANT UPDATE ON theirs TO prom_test_admin;
SET LOCAL ROLE prom_test_admin;
SELECT is(pg_temp.verdicts(:task, false), 'revert 2', 'and if he may, he may');
SET LOCAL ROLE prom_test_owner;
SELECT is(pg_temp.rows_of('theirs'), ARRAY['(1,one)', '(2,two)'], 'it is undone');
SELECT is(pg_temp.verdicts(:task), 'undone 2', 'who submitted the task sees that');
SELECT throws_ok($$SELECT prometheus_undo(NULL)$$, '22004', NULL, 'a task is wanted');
SELECT throws_ok($$SELECT prometheus_undo(-1)$$, '42704', NULL, 'one that is there');
SELECT pg_temp.new_task(false) AS task \gset
SELECT is(pg_temp.verdicts(:task), NULL, 'one that has not ended can be looked at');
SELECT throws_ok(format('SELECT prometheus_undo(%s, false)', :task), '55000', NULL, 'but not undone');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
