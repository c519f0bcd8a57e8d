-- Which tree of tasks an end takes along, and why, by facts with xids of their
-- own; what the export says while it is off.  What is sent is for test/t/720.
BEGIN;
SELECT plan(36);

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
CREATE FUNCTION pg_temp.tree(id bigint, base text, bound text, attempt int DEFAULT 1, slow bigint DEFAULT 0) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN is_last THEN array_to_string(task_ids, ',') || ' ' || coalesce(reason, '-') ELSE 'not yet' END
      FROM prometheus._outcome o
     CROSS JOIN LATERAL prometheus._tree(o.task_id, o.ended_at, o.event_id, base::pg_snapshot, bound::pg_snapshot, slow)
     WHERE o.task_id = id AND o.attempt = tree.attempt
$$;

-- One task.
SELECT pg_temp.task(1), pg_temp.ended(1, 10, 60);
SELECT is(pg_temp.tree(1, '5:5:', '20:20:'), '1 -', 'a task that has ended');
SELECT results_eq($$SELECT root_span, trace_id, traceparent FROM prometheus._tree(1, '2026-01-01 00:01+00', 1001, '5:5:', '20:20:', 0)$$,
    $$VALUES ('00000000000003e8', lpad('1', 32, 'a')::uuid, NULL::text)$$, 'its first span, and its trace');
SELECT is(pg_temp.tree(1, '5:5:', '20:20:', slow => 60000), '1 -', 'as long as what is slow');
SELECT is(pg_temp.tree(1, '5:5:', '20:20:', slow => 59999), '1 slow', 'longer');
SELECT is_empty($$SELECT * FROM prometheus._tree(99, now(), 1, '5:5:', '20:20:', 0)$$, 'one that is not kept any more');

-- Tried again: the last end counts, and it is an error.
SELECT pg_temp.task(2), pg_temp.ended(2, 10, 1, 'retry'), pg_temp.ended(2, 12, 2, 'completed', 2);
SELECT is(pg_temp.tree(2, '5:5:', '20:20:', 2), '2 error', 'an attempt failed');
SELECT pg_temp.task(3), pg_temp.ended(3, 10, 1, 'waiting'), pg_temp.ended(3, 12, 2, 'completed', 2);
SELECT is(pg_temp.tree(3, '5:5:', '20:20:', 2), '3 -', 'one that waited did not');
SELECT pg_temp.task(4), pg_temp.ended(4, 10, 1, 'failed');
SELECT is(pg_temp.tree(4, '5:5:', '20:20:'), '4 error', 'it failed');
INSERT INTO prometheus._retry (task_id, attempt, xid, retried_at, deadline, retried_by) VALUES (4, 1, '11', now(), now(), 'x');
SELECT is(pg_temp.tree(4, '5:5:', '20:20:'), 'not yet', 'and was retried by hand');
SELECT pg_temp.ended(4, 13, 5, 'completed', 2);
SELECT is(pg_temp.tree(4, '5:5:', '20:20:'), 'not yet', 'its end of before is not the last');
SELECT is(pg_temp.tree(4, '5:5:', '20:20:', 2), '4 error', 'but that of after is');
SELECT is(pg_temp.tree(4, '12:12:', '20:20:', 2), '4 error', 'also for who has had the one of before');
SELECT pg_temp.task(5), pg_temp.ended(5, 10, 1, 'lost');
SELECT is(pg_temp.tree(5, '5:5:', '20:20:'), 'not yet', 'one that was lost goes on');
SELECT pg_temp.task(6), pg_temp.ended(6, 10, 1, 'cancelled');
SELECT is(pg_temp.tree(6, '5:5:', '20:20:'), '6 -', 'a cancel is no error');

-- A tree: 10 delegates 11 and 12, and 12 delegates 13.
SELECT pg_temp.task(10), pg_temp.task(11, 10), pg_temp.task(12, 10), pg_temp.task(13, 12);
SELECT pg_temp.ended(11, 30, 1), pg_temp.ended(13, 31, 2), pg_temp.ended(12, 32, 3);
SELECT is(pg_temp.tree(11, '5:5:', '40:40:'), 'not yet', 'its root has not ended');
SELECT pg_temp.ended(10, 33, 4);
SELECT is(string_agg(pg_temp.tree(n, '5:5:', '40:40:'), ', ' ORDER BY n), 'not yet, not yet, not yet', 'those before the last')
  FROM unnest('{11,12,13}'::int[]) n;
SELECT is(pg_temp.tree(10, '5:5:', '40:40:'), '10,11,12,13 -', 'the last takes all');

-- Whatever the order of commits, one of them is the last that is read.
SELECT is(pg_temp.tree(10, '5:5:', '31:40:31'), 'not yet', 'the end of 13 is not committed for the reader');
SELECT is(pg_temp.tree(13, '31:40:31', '41:41:'), '10,11,12,13 -', 'then it is the last');
SELECT is(pg_temp.tree(12, '5:5:', '33:33:'), 'not yet', 'the end of the root is in the next window');
SELECT is(pg_temp.tree(10, '33:33:', '40:40:'), '10,11,12,13 -', 'and takes all');
UPDATE prometheus._outcome SET ended_at = '2026-01-01 00:00:04+00' WHERE task_id IN (10, 12);
SELECT is(pg_temp.tree(10, '5:5:', '40:40:'), 'not yet', 'at the same time the id decides: not this');
SELECT is(pg_temp.tree(12, '5:5:', '40:40:'), '10,11,12,13 -', 'but that');

-- Why.
SELECT pg_temp.task(20), pg_temp.task(21, 20, '{"trace": "always"}'), pg_temp.ended(21, 30, 1), pg_temp.ended(20, 31, 2);
SELECT is(pg_temp.tree(20, '5:5:', '40:40:'), '20,21 always', 'one of them is to be traced');
SELECT pg_temp.task(22, NULL, '{"trace": "never"}'), pg_temp.ended(22, 30, 1);
SELECT is(pg_temp.tree(22, '5:5:', '40:40:'), '22 -', 'another word is none');
SELECT pg_temp.task(23), pg_temp.ended(23, 30, 1);
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status)
VALUES (23, 1, 1, 23500, '29', now(), now(), false, 'tool', 't', 'error');
SELECT is(pg_temp.tree(23, '5:5:', '40:40:'), '23 error', 'a step failed');
UPDATE prometheus._step SET status = 'unknown' WHERE task_id = 23;
SELECT is(pg_temp.tree(23, '5:5:', '40:40:'), '23 -', 'nobody knows whether it did');
INSERT INTO prometheus._verdict (event_id, task_id, attempt, step, xid, judged_at, latency_ms, approved, policy_version, stage, effect, risk_level, governor, target_hash)
VALUES (23900, 23, 1, 1, '29', now(), 0, false, 1, 'tool', 'escalate', 'HIGH', 'JUSTICA', 'x');
SELECT is(pg_temp.tree(23, '5:5:', '40:40:'), '23 veto', 'a person was asked');
SELECT pg_temp.task(24), pg_temp.ended(24, 30, 1);
INSERT INTO prometheus._delivery (delivery_id, event_id, task_id, created_at, next_at, attempts, strikes, mark_id, status, subscription)
VALUES (1, 24001, 24, now(), now(), 1, 0, 0, 'dead', 's');
SELECT is(pg_temp.tree(24, '5:5:', '40:40:'), '24 dead letter', 'a dead letter');

-- What it says.
SELECT is_empty('SELECT * FROM prometheus.export', 'it is off');
SELECT results_eq($$SELECT status, value FROM prometheus_health() WHERE check_name = 'export'$$, $$VALUES ('ok', 'off')$$, 'health says so');
SELECT is(current_setting('prometheus.otlp_endpoint') || current_setting('prometheus.otlp_headers'), '', 'without settings');
SELECT throws_ok($$SELECT prometheus_create_consumer('prometheus.otlp')$$, '42939', 'the name "prometheus.otlp" is reserved', 'its name is not for others');
SET LOCAL ROLE prom_test_user;
SELECT is_empty('SELECT * FROM prometheus.export', 'others may look');
SELECT throws_ok($$SELECT * FROM prometheus._tree(1, now(), 1, '5:5:', '20:20:', 0)$$, '42501', NULL, 'but not at trees');
SELECT throws_ok('SHOW prometheus.otlp_headers', '42501', NULL, 'nor at the names of secrets');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
