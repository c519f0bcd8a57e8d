-- What plans promised, held against what came of the tasks: which tasks count,
-- the numbers, who sees them, and what marks saw.  The numbers are computed by
-- hand.
BEGIN;
SELECT plan(34);

SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'calibration', ARRAY['agent', 'submitter', 'tasks', 'brier_score', 'predicted', 'actual', 'reliability']);
SELECT is_empty('SELECT FROM prometheus.calibration', 'nothing at first');

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_chief;
CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b, prom_test_chief;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prom_test_a TO prom_test_chief;

CREATE FUNCTION pg_temp.task(id bigint, agent text, submitter text, mode text DEFAULT 'full') RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid, submitter, agent,
                                  mode, trace_id, request, metadata)
    VALUES ($1, $1 * 1000, prometheus._xid(), now(), now() + interval '1 day', 0, 3, $3::regrole, $3, $2, $4,
            lpad(to_hex($1), 32, 'c')::uuid, 'do it', '{}')
$$;
CREATE FUNCTION pg_temp.step(task bigint, step int, kind text, answer text, status text DEFAULT 'ok') RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status, answer)
    VALUES ($1, $2, 1, $1 * 1000 + 10 + $2, prometheus._xid(), now(), now(), false, $3, 'm', $5, CASE WHEN $5 = 'ok' THEN $4 END)
$$;
CREATE FUNCTION pg_temp.ended(task bigint, outcome text, step int DEFAULT NULL, attempt int DEFAULT 1) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
    VALUES ($1, $4, $1 * 1000 + 900 + $4, prometheus._xid(), now(), $4, $3, $2)
$$;
-- One that planned, answered in step 2 and reflected in step 3.
CREATE FUNCTION pg_temp.done(id bigint, agent text, submitter text, promised numeric, score numeric) RETURNS void LANGUAGE sql AS $$
    SELECT pg_temp.task($1, $2, $3);
    SELECT pg_temp.step($1, 1, 'plan', format('{"approach": "balanced", "success": %s, "steps": []}', $4));
    SELECT pg_temp.step($1, 2, 'chat', 'the answer');
    SELECT pg_temp.step($1, 3, 'reflect', format('{"score": %s}', $5));
    SELECT pg_temp.ended($1, 'completed', 2);
$$;
CREATE FUNCTION pg_temp.brier(agent text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s %s %s %s', tasks, round(brier_score::numeric, 6), round(predicted::numeric, 6), round(actual::numeric, 6)), ', ' ORDER BY submitter)
      FROM prometheus.calibration c WHERE c.agent = $1
$$;

-- (0.9 - 1)^2, (0.8 - 0)^2, (1 - 1)^2, (0.25 - 0)^2: 0.01, 0.64, 0, 0.0625; their mean 0.178125.
SELECT pg_temp.done(9201, 'four', 'prom_test_a', 0.9, 0.7);
SELECT pg_temp.done(9202, 'four', 'prom_test_a', 0.8, 0.6999);
SELECT pg_temp.done(9203, 'four', 'prom_test_a', 1, 1);
SELECT pg_temp.done(9204, 'four', 'prom_test_a', 0.25, 0);
SELECT is(pg_temp.brier('four'), '4 0.178125 0.737500 0.500000', 'a Brier score by hand: a success is a score from 0.7 on');
SELECT is((SELECT reliability FROM prometheus.calibration WHERE agent = 'four'), '[
    {"from": 0.2, "to": 0.3, "tasks": 1, "predicted": 0.25, "actual": 0},
    {"from": 0.8, "to": 0.9, "tasks": 1, "predicted": 0.8, "actual": 0},
    {"from": 0.9, "to": 1.0, "tasks": 2, "predicted": 0.95, "actual": 1}]'::jsonb, 'by tenths: 0.8 is in that from 0.8 on, 1 in the last');
SELECT is((SELECT sum((b ->> 'tasks')::int) FROM prometheus.calibration, jsonb_array_elements(reliability) AS b WHERE agent = 'four'), 4::bigint,
          'each task in one');

-- Always right, and always wrong.
SELECT pg_temp.done(9205, 'oracle', 'prom_test_a', 1, 1), pg_temp.done(9206, 'oracle', 'prom_test_a', 0, 0);
SELECT is(pg_temp.brier('oracle'), '2 0.000000 0.500000 0.500000', 'right and sure: 0');
SELECT pg_temp.done(9207, 'liar', 'prom_test_a', 1, 0), pg_temp.done(9208, 'liar', 'prom_test_a', 0, 1);
SELECT is(pg_temp.brier('liar'), '2 1.000000 0.500000 0.500000', 'wrong and sure: 1');
SELECT pg_temp.done(9209, 'coin', 'prom_test_a', 0.5, 0), pg_temp.done(9210, 'coin', 'prom_test_a', 0.5, 1);
SELECT is(pg_temp.brier('coin'), '2 0.250000 0.500000 0.500000', 'a coin: 0.25');

-- How it ended.
SELECT pg_temp.task(9220 + n, outcome, 'prom_test_a'), pg_temp.step(9220 + n, 1, 'plan', '{"success": 0.75}'), pg_temp.ended(9220 + n, outcome)
  FROM unnest('{failed,vetoed,quarantined,cancelled,retry,waiting,lost}'::text[]) WITH ORDINALITY AS o(outcome, n);
SELECT is(pg_temp.brier(outcome), '1 0.562500 0.750000 0.000000', outcome || ' is no success')
  FROM unnest('{failed,vetoed,quarantined}'::text[]) AS outcome;
SELECT is(pg_temp.brier(outcome), NULL, outcome || ' does not count')
  FROM unnest('{cancelled,retry,waiting,lost}'::text[]) AS outcome;
SELECT pg_temp.task(9230, 'runs', 'prom_test_a'), pg_temp.step(9230, 1, 'plan', '{"success": 0.75}');
SELECT is(pg_temp.brier('runs'), NULL, 'nor does one that runs');

-- Who did not plan, or was not looked back at.
SELECT pg_temp.task(9231, 'no plan', 'prom_test_a'), pg_temp.step(9231, 1, 'plan', NULL, 'error'), pg_temp.step(9231, 2, 'chat', 'x'),
       pg_temp.step(9231, 3, 'reflect', '{"score": 1}'), pg_temp.ended(9231, 'completed', 2);
SELECT is(pg_temp.brier('no plan'), NULL, 'without a plan nothing was promised');
SELECT pg_temp.task(9232, 'unjudged', 'prom_test_a'), pg_temp.step(9232, 1, 'plan', '{"success": 0.9}'), pg_temp.step(9232, 2, 'chat', 'x'),
       pg_temp.ended(9232, 'completed', 2);
SELECT pg_temp.task(9233, 'unjudged', 'prom_test_a'), pg_temp.step(9233, 1, 'plan', '{"success": 0.9}'), pg_temp.step(9233, 2, 'chat', 'x'),
       pg_temp.step(9233, 3, 'reflect', NULL, 'error'), pg_temp.ended(9233, 'completed', 2);
SELECT is(pg_temp.brier('unjudged'), NULL, 'an answer that nobody looked back at is neither right nor wrong');

-- Two rounds: the reflection counts that is about the answer which is given.
SELECT pg_temp.task(t, agent, 'prom_test_a'), pg_temp.step(t, 1, 'plan', '{"success": 0.9}'), pg_temp.step(t, 2, 'chat', 'x'),
       pg_temp.step(t, 3, 'reflect', format('{"score": %s}', one)), pg_temp.step(t, 4, 'chat', 'y'),
       pg_temp.step(t, 5, 'reflect', format('{"score": %s}', two)), pg_temp.ended(t, 'completed', answer)
  FROM (VALUES (9234, 'better', 0.5, 0.8, 4), (9235, 'worse', 0.75, 0.2, 2)) AS v(t, agent, one, two, answer);
SELECT is(pg_temp.brier('better'), '1 0.010000 0.900000 1.000000', 'the second answer, by the second look');
SELECT is(pg_temp.brier('worse'), '1 0.010000 0.900000 1.000000', 'the first one stands, by the first look');
SELECT pg_temp.task(9236, 'unseen', 'prom_test_a'), pg_temp.step(9236, 1, 'plan', '{"success": 0.9}'), pg_temp.step(9236, 2, 'chat', 'x'),
       pg_temp.step(9236, 3, 'reflect', '{"score": 0.8}'), pg_temp.step(9236, 4, 'chat', 'y'), pg_temp.step(9236, 5, 'reflect', NULL, 'error'),
       pg_temp.ended(9236, 'completed', 4);
SELECT is(pg_temp.brier('unseen'), NULL, 'a look at another answer says nothing of this one');

-- Retried by hand.
SELECT pg_temp.task(9240, 'again', 'prom_test_a'), pg_temp.step(9240, 1, 'plan', '{"success": 0.9}'), pg_temp.ended(9240, 'failed');
SELECT is(pg_temp.brier('again'), '1 0.810000 0.900000 0.000000', 'one that failed');
INSERT INTO prometheus._retry (task_id, attempt, xid, retried_at, deadline, retried_by) VALUES (9240, 1, prometheus._xid(), now(), now(), 'x');
SELECT is(pg_temp.brier('again'), NULL, 'and is tried again has no end');
SELECT pg_temp.step(9240, 2, 'plan', '{"success": 0.5}'), pg_temp.step(9240, 3, 'chat', 'x'), pg_temp.step(9240, 4, 'reflect', '{"score": 0.9}'),
       pg_temp.ended(9240, 'completed', 3, 2);
SELECT is(pg_temp.brier('again'), '1 0.250000 0.500000 1.000000', 'it counts once, by its last plan and end');

-- Who sees what.
SELECT pg_temp.done(9250, 'four', 'prom_test_b', 0.5, 1);
SET LOCAL ROLE prom_test_a;
SELECT is((SELECT string_agg(submitter, ',') FROM prometheus.calibration WHERE agent = 'four'), 'prom_test_a', 'one''s own');
SET LOCAL ROLE prom_test_chief;
SELECT is((SELECT string_agg(submitter, ',') FROM prometheus.calibration WHERE agent = 'four'), 'prom_test_a', 'those of a role that one has');
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT string_agg(submitter || ' ' || tasks, ',' ORDER BY submitter) FROM prometheus.calibration WHERE agent = 'four'),
          'prom_test_a 4,prom_test_b 1', 'an administrator all, each apart');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok('SELECT * FROM prometheus.calibration', '42501', NULL, 'nobody none');
RESET ROLE;

-- What marks saw: the first two of the four tasks, then all, then what is left.
INSERT INTO prometheus._mark (mark_id, xid, at, snapshot)
SELECT n, prometheus._xid(), '2020-01-01 00:00+00'::timestamptz + (n - 1) * interval '1 day', format('%s:%s:', 99 + n, 99 + n)::pg_snapshot
  FROM generate_series(1, 4) AS n;
DELETE FROM prometheus._task WHERE task_id NOT BETWEEN 9201 AND 9204;
UPDATE prometheus._task SET xid = CASE WHEN task_id < 9203 THEN '100'::xid8 ELSE '101' END;
UPDATE prometheus._step SET xid = '100' WHERE task_id BETWEEN 9201 AND 9204;
UPDATE prometheus._outcome SET xid = CASE WHEN task_id < 9203 THEN '100'::xid8 ELSE '101' END WHERE task_id BETWEEN 9201 AND 9204;
SET LOCAL prometheus.as_of = '2020-01-01 12:00+00';
SELECT is(pg_temp.brier('four'), NULL, 'AS OF before any');
SET LOCAL prometheus.as_of = '2020-01-02 12:00+00';
SELECT is(pg_temp.brier('four'), '2 0.325000 0.850000 0.500000', 'AS OF two of them');
SET LOCAL prometheus.as_of = '2020-01-03 12:00+00';
SELECT is(pg_temp.brier('four'), '4 0.178125 0.737500 0.500000', 'AS OF all');
SET LOCAL prometheus.as_of = '';
SELECT results_eq($$SELECT tasks, brier_score FROM prometheus.calibration_history WHERE agent = 'four' ORDER BY mark_id$$,
                  'VALUES (2::bigint, 0.325::float8), (4, 0.178125), (4, 0.178125)', 'as the history says');
SELECT results_eq($$SELECT * FROM prometheus.calibration_at('2020-01-03 12:00+00') WHERE agent = 'four'$$,
                  $$SELECT * FROM prometheus.calibration WHERE agent = 'four'$$, 'and the function, of all columns');
DELETE FROM prometheus._task WHERE task_id = 9202;
SELECT is(pg_temp.brier('four'), '3 0.024167 0.716667 0.666667', 'what was deleted counts no longer');

SELECT * FROM finish();
ROLLBACK;
