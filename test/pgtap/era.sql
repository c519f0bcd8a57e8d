-- The era of xids: whose it is, when it is raised, and that a copy is paused.
BEGIN;
SELECT plan(45);

SET LOCAL client_min_messages = error;

-- The parts of an xid as facts have it.
CREATE FUNCTION pg_temp.era(x xid8) RETURNS bigint LANGUAGE sql RETURN x::text::bigint >> 48;
CREATE FUNCTION pg_temp.plain(x xid8) RETURNS bigint LANGUAGE sql RETURN x::text::bigint & ((1::bigint << 48) - 1);
CREATE FUNCTION pg_temp.stored(era bigint, x xid8) RETURNS xid8 LANGUAGE sql
    RETURN ((era << 48) + x::text::bigint)::text::xid8;

CREATE FUNCTION pg_temp.highest() RETURNS integer LANGUAGE sql AS 'SELECT max(era) FROM prometheus._era';
-- What a session remembers it forgets with this, as if it were a new one.
CREATE FUNCTION pg_temp.forget() RETURNS void LANGUAGE sql
    AS 'ALTER TABLE prometheus._era SET (fillfactor = 90)';
CREATE TEMP VIEW health AS SELECT concat_ws('|', status, value, hint) AS said FROM prometheus_health() WHERE check_name = 'era';
CREATE TEMP VIEW held AS SELECT coalesce(string_agg(mode, ' '), 'none') AS mode
    FROM pg_locks WHERE relation = 'prometheus._era'::regclass AND pid = pg_backend_pid() AND mode <> 'AccessShareLock';

-- As it was installed.

SELECT results_eq('SELECT era, system_identifier, database_oid FROM prometheus._era',
    $$SELECT 1, c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()$$,
    'the first era is of this server and database');
SELECT is_empty('SELECT * FROM prometheus._gate', 'and nothing is paused');
SELECT is(said, 'ok|1', 'health: the era is ours') FROM health;
SELECT is(xid, '1'::xid8, 'the install script wrote facts that are of every era') FROM prometheus._agent WHERE name = 'default';
SELECT is(mode, 'none', 'nothing is locked by who only reads') FROM held;

SELECT is(pg_temp.era(prometheus._xid()), 1::bigint, 'xid has the era');
SELECT is(pg_temp.plain(prometheus._xid()), pg_current_xact_id()::text::bigint, 'and the transaction');
SELECT is(mode, 'RowExclusiveLock', 'who writes holds the era') FROM held;
SAVEPOINT s;
SELECT is(prometheus._xid(), pg_temp.stored(1, pg_current_xact_id()), 'a subtransaction is its transaction');
ROLLBACK TO s;

SELECT prometheus_submit('x', idempotency_key => 'k') AS task \gset
SELECT prometheus_cancel(:task);
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
VALUES (:task, 1, -1, prometheus._xid(), now(), 1, 'cancelled');
SELECT prometheus_retry(:task);
SELECT prometheus_set_model('m', 'echo');
SELECT prometheus_set_agent('a', 'm');
SELECT is(xid, prometheus._xid(), 'so do facts: ' || kind)
  FROM (SELECT '_task', xid FROM prometheus._task
        UNION ALL SELECT '_idempotency', xid FROM prometheus._idempotency
        UNION ALL SELECT '_cancel', xid FROM prometheus._cancel
        UNION ALL SELECT '_retry', xid FROM prometheus._retry
        UNION ALL SELECT '_model', xid FROM prometheus._model WHERE name = 'm'
        UNION ALL SELECT '_agent', xid FROM prometheus._agent WHERE name = 'a') AS v (kind, xid);

SELECT is(prometheus._snapshot()::text,
          (SELECT string_agg(CASE WHEN part ~ '\d' THEN ((1::bigint << 48) + part::bigint)::text ELSE part END, '' ORDER BY n)
             FROM regexp_matches(pg_current_snapshot()::text, '\d+|\D', 'g') WITH ORDINALITY AS v (match, n), unnest(match) AS part),
          'a snapshot has the era in each of its xids');
SELECT ok(pg_visible_in_snapshot(xid, prometheus._snapshot()), 'what was written before is visible in it')
  FROM prometheus._agent WHERE name = 'default';

-- Who writes already keeps the era.

-- A row that a restore brings: of another server, or of another database.
CREATE FUNCTION pg_temp.restore(era integer, server boolean) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._era (era, foreign_rows, system_identifier, database_oid, begun_at)
    SELECT era, 0, c.system_identifier + server::int, d.oid::bigint + (NOT server)::int, now()
      FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()$$;
SELECT pg_temp.restore(1, true), pg_temp.forget();
SELECT is(pg_temp.era(prometheus._xid()), 1::bigint, 'a transaction does not change its era');
SELECT is(pg_temp.highest(), 1, 'nor does it raise it');
SELECT is(said, 'warning|1, of another database; all tasks will be paused|This is a copy: the next submit or its scheduler begins a new era.',
    'health: it will be raised') FROM health;

-- Raised.  With the lock held, this transaction may.

LOCK TABLE prometheus._era IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO prometheus._gate VALUES ('all', '2020-01-01', 'somebody', 'of the original'), ('agent:a', '2020-01-01', 'somebody', NULL);
SELECT pg_temp.forget();
SET LOCAL search_path = pg_temp, public;
CREATE ROLE prom_test_era IN ROLE prometheus_agent_user;
SET ROLE prom_test_era;
SELECT lives_ok($$SELECT public.prometheus_submit('first write')$$, 'any submitter may be the first to write');
RESET ROLE;
SELECT is(pg_temp.era(xid), 2::bigint, 'the era is raised: the same era of another server')
  FROM prometheus._task WHERE request = 'first write';
SELECT is(prometheus._xid(), pg_temp.stored(2, pg_current_xact_id()), 'and stays');
SELECT results_eq('SELECT era, foreign_rows, system_identifier, database_oid FROM prometheus._era ORDER BY era DESC LIMIT 1',
    $$SELECT 2, 1, c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()$$,
    'it is of this server and database');
SELECT results_eq('SELECT target, paused_by, paused_at > now(), reason FROM prometheus._gate ORDER BY target',
    $$VALUES ('agent:a', 'somebody', false, NULL),
             ('all', 'prometheus', true, 'this database is a copy: SELECT prometheus_resume() lets it run')$$,
    'everything is paused, because it is a copy; other gates are as they were');
SELECT is(said, 'warning|2; a copy of another database, all tasks are paused|SELECT prometheus_resume() lets them run.',
    'health: a copy waits') FROM health;
SELECT is((pg_snapshot_xmin(prometheus._snapshot())::text::bigint >> 48), 2::bigint, 'a snapshot is of the new era');
SELECT ok(pg_visible_in_snapshot(pg_temp.stored(1, '4000000000'), prometheus._snapshot()),
    'in which all of an older era is visible');
SELECT ok(NOT pg_visible_in_snapshot(prometheus._xid(), '281474976710660:281474976710670:'), 'and nothing of it in an older snapshot');

DELETE FROM prometheus._gate;
SELECT is(said, 'ok|2', 'health: resumed') FROM health;
INSERT INTO prometheus._era SELECT e.* FROM prometheus._era e, pg_control_system() c WHERE e.system_identifier = c.system_identifier;
SELECT is(pg_temp.era(prometheus._xid()), 2::bigint, 'its own eras again do not raise it');
SELECT pg_temp.forget(), pg_temp.restore(1, false);
SELECT is(pg_temp.era(prometheus._xid()), 3::bigint, 'an older era of another database does');
SELECT is(count(*)::int, 1, 'and pauses') FROM prometheus._gate WHERE target = 'all';
DELETE FROM prometheus._gate;
SELECT pg_temp.restore(7, false), pg_temp.forget();
SELECT is(pg_temp.era(prometheus._xid()), 8::bigint, 'so does a later one');
SELECT is(count(*)::int, 1, 'and pauses again') FROM prometheus._gate WHERE target = 'all';
SELECT is(pg_temp.era(prometheus._xid()), 8::bigint, 'once');
DELETE FROM prometheus._gate;

-- Facts that came without their era, or before it.

CREATE TEMP TABLE foreign_task AS SELECT * FROM prometheus._task WHERE task_id = :task;
UPDATE foreign_task SET task_id = -1, xid = pg_temp.stored(8, (pg_current_xact_id()::text::bigint + 1000000)::text::xid8);
INSERT INTO prometheus._task SELECT * FROM foreign_task;
SELECT is(said LIKE 'warning|8, of another%', true, 'health: an xid that is not given yet') FROM health;
SELECT pg_temp.forget();
SELECT is(pg_temp.era(prometheus._xid()), 9::bigint, 'an xid of the future raises the era');
UPDATE foreign_task SET task_id = -2, xid = pg_temp.stored(20, '3');
INSERT INTO prometheus._task SELECT * FROM foreign_task;
SELECT pg_temp.forget();
SELECT is(pg_temp.era(prometheus._xid()), 21::bigint, 'an era of the future, too, above that');
SELECT is(count(*)::int, 1, 'and pauses') FROM prometheus._gate WHERE target = 'all';
DELETE FROM prometheus._era;
SELECT pg_temp.forget();
SELECT is(pg_temp.era(prometheus._xid()), 21::bigint, 'eras that are gone are found in the facts');

-- What it may be, and who may ask.

SELECT throws_ok($$INSERT INTO prometheus._era VALUES (0, 0, 1, 1, now())$$, '23514', NULL, 'no era is below 1');
SELECT throws_ok($$INSERT INTO prometheus._era VALUES (32768, 0, 1, 1, now())$$, '23514', NULL, 'and none is above 32767');
SET ROLE prom_test_era;
SELECT throws_ok('SELECT prometheus._xid()', '42501', NULL, 'users may not ask for an xid');
SELECT throws_ok('SELECT prometheus._snapshot()', '42501', NULL, 'nor for a snapshot');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
