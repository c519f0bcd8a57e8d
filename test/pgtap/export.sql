-- Which tree of tasks an end takes along, by facts with xids of their
-- own; what the export says while it is off.  What is sent is for test/t/720.
BEGIN;
SELECT plan(28);

CREATE ROLE prom_test_user;
GRANT prometheus_agent_user TO prom_test_user;

-- What the transaction x wrote.
CREATE FUNCTION pg_temp.task(id bigint, parent bigint DEFAULT NULL, metadata jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid, submitter,
                                  agent, mode, trace_id, request, metadata, parent_id)
    VALUES (id, id * 1000, '1', '2026-01-01 00:00+00', 'infinity', 0, 3, current_user::regrole, current_user, 'a', 'fast',
            lpad(to_hex(id), 32, 'a')::uuid, 'x', metadata, parent)
$$;
CREATE FUNCTION pg_temp.ended(id bigint, x bigint, seconds numeric, outcome text DEFAULT 'completed', attempt int DEFAULT 1)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
    VALUES (id, attempt, id * 1000 + attempt, x::text::xid8, '2026-01-01 00:00+00'::timestamptz + seconds * interval '1 s', attempt, outcome)
$$;
-- The tree that an end takes along, for who has seen what is before base, and reads to bound.
CREATE FUNCTION pg_temp.tree(id bigint, base text, bound text, attempt int DEFAULT 1) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN is_last THEN array_to_string(task_ids, ',') ELSE 'not yet' END
      FROM prometheus._outcome o
     CROSS JOIN LATERAL prometheus._tree(o.task_id, o.ended_at, o.event_id, base::pg_snapshot, bound::pg_snapshot)
     WHERE o.task_id = id AND o.attempt = tree.attempt
$$;

-- One task.
SELECT pg_temp.task(1), pg_temp.ended(1, 10, 60);
SELECT is(pg_temp.tree(1, '5:5:', '20:20:'), '1', 'a task that has ended');
SELECT results_eq($$SELECT root_span, trace_id FROM prometheus._tree(1, '2026-01-01 00:01+00', 1001, '5:5:', '20:20:')$$,
    $$VALUES ('00000000000003e8', lpad('1', 32, 'a')::uuid)$$, 'its first span, and its trace');
SELECT is_empty($$SELECT * FROM prometheus._tree(99, now(), 1, '5:5:', '20:20:')$$, 'one that is not kept any more');

-- Tried again: the last end counts, and it is an error.
SELECT pg_temp.task(2), pg_temp.ended(2, 10, 1, 'retry'), pg_temp.ended(2, 12, 2, 'completed', 2);
SELECT is(pg_temp.tree(2, '5:5:', '20:20:', 2), '2', 'the last attempt counts');
SELECT pg_temp.task(3), pg_temp.ended(3, 10, 1, 'waiting'), pg_temp.ended(3, 12, 2, 'completed', 2);
SELECT is(pg_temp.tree(3, '5:5:', '20:20:', 2), '3', 'one that waited did not');
SELECT pg_temp.task(4), pg_temp.ended(4, 10, 1, 'failed');
SELECT is(pg_temp.tree(4, '5:5:', '20:20:'), '4', 'it failed');
INSERT INTO prometheus._retry (task_id, attempt, xid, retried_at, deadline, retried_by) VALUES (4, 1, '11', now(), now(), 'x');
SELECT is(pg_temp.tree(4, '5:5:', '20:20:'), 'not yet', 'and was retried by hand');
SELECT pg_temp.ended(4, 13, 5, 'completed', 2);
SELECT is(pg_temp.tree(4, '5:5:', '20:20:'), 'not yet', 'its end of before is not the last');
SELECT is(pg_temp.tree(4, '5:5:', '20:20:', 2), '4', 'but that of after is');
SELECT is(pg_temp.tree(4, '12:12:', '20:20:', 2), '4', 'also for who has had the one of before');
SELECT pg_temp.task(5), pg_temp.ended(5, 10, 1, 'lost');
SELECT is(pg_temp.tree(5, '5:5:', '20:20:'), 'not yet', 'one that was lost goes on');
SELECT pg_temp.task(6), pg_temp.ended(6, 10, 1, 'cancelled');
SELECT is(pg_temp.tree(6, '5:5:', '20:20:'), '6', 'a cancel is no error');

-- A tree: 10 delegates 11 and 12, and 12 delegates 13.
SELECT pg_temp.task(10), pg_temp.task(11, 10), pg_temp.task(12, 10), pg_temp.task(13, 12);
SELECT pg_temp.ended(11, 30, 1), pg_temp.ended(13, 31, 2), pg_temp.ended(12, 32, 3);
SELECT is(pg_temp.tree(11, '5:5:', '40:40:'), 'not yet', 'its root has not ended');
SELECT pg_temp.ended(10, 33, 4);
SELECT is(string_agg(pg_temp.tree(n, '5:5:', '40:40:'), ', ' ORDER BY n), 'not yet, not yet, not yet', 'those before the last')
  FROM unnest('{11,12,13}'::int[]) n;
SELECT is(pg_temp.tree(10, '5:5:', '40:40:'), '10,11,12,13', 'the last takes all');

-- Whatever the order of commits, one of them is the last that is read.
SELECT is(pg_temp.tree(10, '5:5:', '31:40:31'), 'not yet', 'the end of 13 is not committed for the reader');
SELECT is(pg_temp.tree(13, '31:40:31', '41:41:'), '10,11,12,13', 'then it is the last');
SELECT is(pg_temp.tree(12, '5:5:', '33:33:'), 'not yet', 'the end of the root is in the next window');
SELECT is(pg_temp.tree(10, '33:33:', '40:40:'), '10,11,12,13', 'and takes all');
UPDATE prometheus._outcome SET ended_at = '2026-01-01 00:00:04+00' WHERE task_id IN (10, 12);
SELECT is(pg_temp.tree(10, '5:5:', '40:40:'), 'not yet', 'at the same time the id decides: not this');
SELECT is(pg_temp.tree(12, '5:5:', '40:40:'), '10,11,12,13', 'but that');

-- What it says.
SELECT is_empty('SELECT * FROM prometheus.export', 'it is off');
SELECT results_eq($$SELECT status, value FROM prometheus_health() WHERE check_name = 'export'$$, $$VALUES ('ok', 'off')$$, 'health says so');
SELECT is(current_setting('prometheus.otlp_endpoint') || current_setting('prometheus.otlp_headers'), '', 'without settings');
SELECT throws_ok($$SELECT prometheus_create_consumer('prometheus.otlp')$$, '42939', 'the name "prometheus.otlp" is reserved', 'its name is not for others');
SET LOCAL ROLE prom_test_user;
SELECT is_empty('SELECT * FROM prometheus.export', 'others may look');
SELECT throws_ok($$SELECT * FROM prometheus._tree(1, now(), 1, '5:5:', '20:20:')$$, '42501', NULL, 'but not at trees');
SELECT throws_ok('SHOW prometheus.otlp_headers', '42501', NULL, 'nor at the names of secrets');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
