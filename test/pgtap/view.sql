-- The plans of the views over many rows: one task is found by indexes alone,
-- whoever asks, whatever the planner knows of the tables; and the same as of
-- then, by generic plans, and where everything may be done in parallel.
BEGIN;
SELECT plan(105);

-- 20,000 tasks that ended, each with an attempt, a call, a step and an outcome.
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT 1000000 + n, 4 * n, prometheus._xid(), now(), now() + interval '1 day', 0, 3, current_user::regrole, current_user,
       'default', 'fast', gen_random_uuid(), 'request ' || n, '{}'
  FROM generate_series(1, 20000) AS n;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT 1000000 + n, 1, prometheus._xid(), now(), 1, 'echo', 1 FROM generate_series(1, 20000) AS n;
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
SELECT 4 * n + 1, 1000000 + n, 1, 1, 1, prometheus._xid(), now(), 'chat', 'model:echo' FROM generate_series(1, 20000) AS n;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, ambiguous, kind, name,
                              status, answer)
SELECT 1000000 + n, 1, 1, 4 * n + 2, 4 * n + 1, prometheus._xid(), now(), now(), false, 'chat', 'echo', 'ok', 'answer ' || n
  FROM generate_series(1, 20000) AS n;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
SELECT 1000000 + n, 1, 4 * n + 3, prometheus._xid(), now(), 1, 1, 'completed' FROM generate_series(1, 20000) AS n;

CREATE ROLE prom_test_user;
GRANT prometheus_agent_user TO prom_test_user;

-- The relations that a query reads from one end to the other, or is thought to
-- read many rows of, and functions that are no part of its plan.  There are few
-- agents and models, whose newest versions are looked up in any way.
CREATE FUNCTION pg_temp.scans(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    explained jsonb;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO explained;
    RETURN (SELECT string_agg(DISTINCT coalesce(node ->> 'Relation Name', node ->> 'Function Name'), ', ')
              FROM jsonb_path_query(explained, 'strict $.**') AS node
             WHERE node ->> 'Node Type' IN ('Seq Scan', 'Bitmap Heap Scan', 'Sample Scan')
               AND node ->> 'Relation Name' NOT IN ('_agent', '_model')
               AND (node ->> 'Node Type' = 'Seq Scan' OR (node ->> 'Plan Rows')::float8 > 100)
                OR node ->> 'Function Name' ~ '_at$');
END$$;

CREATE TEMP TABLE query (what text, sql text);
GRANT SELECT ON query TO PUBLIC;
INSERT INTO query VALUES
    ('one task', 'SELECT * FROM prometheus.task WHERE task_id = 1000007'),
    ('the status of a task', 'SELECT status FROM prometheus.task WHERE task_id = 1000007'),
    ('some tasks', 'SELECT * FROM prometheus.task WHERE task_id IN (1000007, 1000008, 1000009)'),
    ('the attempts of a task', 'SELECT * FROM prometheus.attempt WHERE task_id = 1000007'),
    ('the calls of a task', 'SELECT * FROM prometheus.call WHERE task_id = 1000007'),
    ('one call', 'SELECT * FROM prometheus.call WHERE call_id = 41'),
    ('the steps of a task', 'SELECT * FROM prometheus.step WHERE task_id = 1000007 ORDER BY step'),
    ('the events of a task', 'SELECT * FROM prometheus.event WHERE task_id = 1000007 ORDER BY event_id'),
    ('the steps of tasks of a query',
     'SELECT s.* FROM unnest(ARRAY[1000007, 1000008]::bigint[]) AS u(id)
       CROSS JOIN LATERAL (SELECT * FROM prometheus.step s WHERE s.task_id = u.id OFFSET 0) s'),
    ('the answer of a task', 'SELECT result FROM prometheus.task WHERE task_id = 1000007');

SELECT is(pg_temp.scans('SELECT * FROM prometheus.task WHERE request = ''x'''), '_task', 'a scan is noticed');

-- Before the tables were analyzed.
SELECT is(pg_temp.scans(sql), NULL, what || ', without statistics') FROM query;
SET LOCAL ROLE prom_test_user;
SELECT is(pg_temp.scans(sql), NULL, what || ', without statistics, for a user') FROM query;
RESET ROLE;

-- And after.
ANALYZE prometheus._task, prometheus._attempt, prometheus._call, prometheus._step, prometheus._outcome;
INSERT INTO query VALUES ('what an event has caused', 'SELECT * FROM prometheus.event WHERE caused_by = 7');
SELECT is(pg_temp.scans(sql), NULL, what) FROM query;
SET LOCAL ROLE prom_test_user;
SELECT is(pg_temp.scans(sql), NULL, what || ', for a user') FROM query;
RESET ROLE;

-- As of then: there are many marks, and many versions of a state.
INSERT INTO prometheus._mark (mark_id, xid, at, snapshot)
SELECT n, prometheus._xid(), '2020-01-01 00:00+00'::timestamptz + n * interval '1 minute', '100:100:'
  FROM generate_series(1, 20000) AS n;
INSERT INTO prometheus._state (version, xid, mark, saved_at, owner_oid, bytes, run, checksum, codec, form, owner, agent, key, frame)
SELECT n, prometheus._xid(), n, now(), 'prom_test_user'::regrole, 1, 1, 1, 0, 0, 'prom_test_user', 'often', 'often', ''
  FROM generate_series(1, 20000) AS n;
ANALYZE prometheus._mark, prometheus._state;
INSERT INTO query VALUES
    ('a state', 'SELECT version FROM prometheus.state WHERE agent = ''often'' AND key = ''often''');
ALTER TABLE query ADD past text;
UPDATE query SET past = regexp_replace(sql, 'prometheus\.([a-z]+)', 'prometheus.\1_at(''2020-01-02 12:00+00'')', 'g');

-- The same by a plan that is made for any task.
CREATE FUNCTION pg_temp.generic_scans(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    EXECUTE 'PREPARE generic (bigint) AS ' || replace(query, '1000007', '$1');
    found := pg_temp.scans('EXECUTE generic (1000007)');
    DEALLOCATE generic;
    RETURN found;
END$$;
SET LOCAL plan_cache_mode = force_generic_plan;

SET LOCAL ROLE prom_test_user;
SELECT is(pg_temp.scans(past), NULL, what || ', at a moment') FROM query;
SELECT is(pg_temp.generic_scans(past), NULL, what || ', at a moment, by a generic plan') FROM query;
SELECT is(pg_temp.generic_scans(sql), NULL, what || ', by a generic plan') FROM query;
SET LOCAL prometheus.as_of = '2020-01-02 12:00+00';
SELECT is(pg_temp.generic_scans(sql), NULL, what || ', as of a moment, by a generic plan') FROM query;
SET LOCAL prometheus.as_of = '';

SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL min_parallel_index_scan_size = 0;
RESET ROLE;
SELECT isnt(pg_temp.scans('SELECT count(*) FROM prometheus._task WHERE prometheus._seen(xid)'), NULL, 'a scan is noticed in a parallel plan');
SET LOCAL ROLE prom_test_user;
SELECT is(pg_temp.generic_scans(past), NULL, what || ', in parallel') FROM query;
RESET ROLE;

-- The views say the same of one as of all.
SELECT is((SELECT count(*) FROM prometheus.task WHERE status = 'completed' AND result = 'answer ' || task_id - 1000000
                                                  AND task_id > 1000000), 20000::bigint, 'all have their answers');

SELECT * FROM finish();
ROLLBACK;
