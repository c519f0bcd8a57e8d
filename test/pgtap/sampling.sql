-- Which traces are sampled: by their ids as OpenTelemetry prescribes, and all of
-- those in which something happened.
BEGIN;
SELECT plan(72);
SET LOCAL client_min_messages = error;

-- Thresholds, and the vectors of OpenTelemetry's specification.

SELECT is(prometheus._sample_threshold(ratio), th, 'a ratio of ' || ratio) FROM (VALUES
    (1::float8, '0'), (0.5, '8'), (0.25, 'c'), (0.1, 'e666'), (0.2, 'cccd'), (0.01, 'fd70a'), (0.001, 'ffbe77'), (0.9, '199a'), (1e-9, 'fffffffbb48'),
    (0, NULL), (-1, NULL), (2, '0'), ('NaN', NULL)) AS v(ratio, th);
SELECT is(prometheus._is_sampled(id, prometheus._sample_threshold(ratio)), sampled, id || ' at ' || ratio) FROM (VALUES
    ('4bf92f3577b34da6a3ce929d0e0e4736', 0.1, false), ('4bf92f3577b34da6a3ce929d0e0e4736', 0.2, true),
    ('ffffffffffffffffff69b633813fc60c', 0.1, false), ('ffffffffffffffffff69b633813fc60c', 1, true),
    ('00000000000000000000000000000000', 1, true), ('00000000000000000000000000000001', 0.5, false),
    ('000000000000000000e6660000000000', 0.1, true), ('000000000000000000e665ffffffffff', 0.1, false),
    ('ffffffffffffffffffffffffffffffff', 0, false), ('ffffffffffffffffffffffffffffffff', 1e-9, true)) AS v(id, ratio, sampled);
SELECT is_empty($$SELECT FROM (SELECT replace(gen_random_uuid()::text, '-', '') AS id FROM generate_series(1, 1000)) x
                   WHERE prometheus._is_sampled(id, prometheus._sample_threshold(0.1)) AND NOT prometheus._is_sampled(id, prometheus._sample_threshold(0.3))$$,
                'a higher ratio only adds traces');
SELECT cmp_ok(abs(count(*) - 2000), '<', 120::bigint, 'a tenth of 20000, but for three times the deviation')
  FROM (SELECT replace(gen_random_uuid()::text, '-', '') AS id FROM generate_series(1, 20000)) x
 WHERE prometheus._is_sampled(id, prometheus._sample_threshold(0.1));

-- Tasks of traces that would be sampled (of f), or not (of 0), by their ids.

CREATE FUNCTION pg_temp.task(id bigint, trace text, outcome text DEFAULT 'completed', seconds numeric DEFAULT 1, traceparent text DEFAULT NULL,
                             parent bigint DEFAULT NULL, metadata jsonb DEFAULT '{}', ago interval DEFAULT '1 h') RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid, submitter, agent, mode,
                                  trace_id, traceparent, request, metadata, parent_id)
    VALUES ($1, $1 * 1000, prometheus._xid(), now() - $8, now(), 0, 3, current_user::regrole, current_user, 'a', 'fast',
            (lpad(to_hex($1), 18, '0') || repeat($2, 14))::uuid, $5, 'x', $7, $6);
    INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
    SELECT $1, 1, $1 * 1000 + 1, prometheus._xid(), now() - $8 + $4 * interval '1 s', 1, $3 WHERE $3 IS NOT NULL
$$;
CREATE FUNCTION pg_temp.sampled(id bigint) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', coalesce(s.decision, 'open'), s.reason, coalesce(s.th, '-')) FROM prometheus_sampling($1) s
$$;
SELECT pg_temp.task(9201, 'f'), pg_temp.task(9202, '0'), pg_temp.task(9203, '0', 'failed'), pg_temp.task(9204, '0', 'vetoed'),
       pg_temp.task(9205, '0', seconds => 301), pg_temp.task(9206, '0', metadata => '{"trace": "always"}'), pg_temp.task(9207, 'f', 'retry'),
       pg_temp.task(9208, 'f', NULL), pg_temp.task(9209, '0', 'cancelled'), pg_temp.task(9210, 'f', seconds => 3599), pg_temp.task(9211, '0'),
       pg_temp.task(9212, '0'), pg_temp.task(9213, '0'), pg_temp.task(9214, '0', seconds => 3599.5), pg_temp.task(9215, '0', 'waiting');
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status)
VALUES (9211, 1, 1, 9211900, prometheus._xid(), now(), now(), false, 'chat', 'm', 'error');
INSERT INTO prometheus._delivery (delivery_id, event_id, task_id, created_at, next_at, attempts, strikes, mark_id, status, subscription)
VALUES (9212900, 9212001, 9212, now(), now(), 8, 0, 1, 'dead', 'nobody''s');
INSERT INTO prometheus._verdict (task_id, attempt, event_id, xid, judged_at, latency_ms, approved, policy_version, stage, effect, risk_level,
                                 governor, target_hash, step)
VALUES (9213, 1, 9213900, prometheus._xid(), now(), 1, false, 1, 'tool', 'escalate', 'HIGH', 'policy', 'hash', 1);
SELECT is(pg_temp.sampled(id), expected, what) FROM (VALUES
    (9201, 'keep ratio e666', 'by its id'), (9202, 'drop ratio e666', 'or not'), (9203, 'keep error 0', 'one that failed'),
    (9204, 'keep veto 0', 'one with a veto'), (9205, 'keep slow 0', 'a slow one'), (9206, 'keep forced 0', 'one whose metadata say so'),
    (9207, 'open error 0', 'one that will be tried again'), (9208, 'open ratio e666', 'one that has not ended'), (9209, 'drop ratio e666', 'one that was cancelled'),
    (9211, 'keep error 0', 'one with a step that failed'), (9212, 'keep dead letter 0', 'one with a dead letter'),
    (9213, 'keep veto 0', 'one that a person was asked about'), (9214, 'open slow 0', 'one that has only just ended'),
    (9215, 'open ratio e666', 'one that waits for a person, however long')) AS v(id, expected, what);
SELECT is((SELECT ended_at FROM prometheus_sampling(9201)), now() - interval '1 h' + interval '1 s', 'when it ended');
SELECT is((SELECT trace_id FROM prometheus_sampling(9201)), '0000000000000023f1ffffffffffffff', 'which it is');

-- A trace is its tasks, whichever is asked about: what one has, all have.

SELECT pg_temp.task(9220, '0'),
       pg_temp.task(9221, '0', 'failed', traceparent => '00-00000000000000240400000000000000-00000000008cb0e0-01', parent => 9220);
UPDATE prometheus._task SET trace_id = '00000000000000240400000000000000' WHERE task_id IN (9220, 9221);
SELECT is(array(SELECT prometheus._trace_tasks(id) ORDER BY 1), '{9220,9221}', 'a task and what it delegated are found from ' || id) FROM unnest('{9220,9221}'::bigint[]) AS id;
SELECT is(pg_temp.sampled(9220), 'keep error 0', 'with the error of the other');

-- What others began is sampled if they say so, but what happens is seen.

SELECT pg_temp.task(9230, '0', traceparent => '00-000000000000000000a0000000000000-b7ad6b7169203331-01'),
       pg_temp.task(9231, 'f', traceparent => '00-000000000000000000f0000000000000-b7ad6b7169203331-02'),
       pg_temp.task(9232, 'f', 'failed', traceparent => '00-000000000000000000f1000000000000-b7ad6b7169203331-00');
UPDATE prometheus._task SET trace_id = substr(traceparent, 4, 32)::uuid WHERE task_id BETWEEN 9230 AND 9232;
SELECT is(pg_temp.sampled(id), expected, 'of others: ' || expected) FROM (VALUES
    (9230, 'keep parent -'), (9231, 'drop parent -'), (9232, 'keep error 0')) AS v(id, expected);

-- Spans of applications belong to it.

INSERT INTO prometheus._span (span_id, xid, started_at, ended_at, owner_oid, trace_id, owner, name, status, attributes)
SELECT -1, prometheus._xid(), now(), now() - interval '10 min', 10, trace_id, 'x', 'x', 'error', '{}' FROM prometheus._task WHERE task_id = 9202;
SELECT is(pg_temp.sampled(9202), 'keep error 0', 'an error of an application is one');

-- One without tasks: by its id, or who began it; an error is one.

CREATE FUNCTION pg_temp.span(id bigint, trace text, status text DEFAULT 'ok', parent bigint DEFAULT NULL, traceparent text DEFAULT NULL, task bigint DEFAULT NULL,
                             x bigint DEFAULT 1) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._span (span_id, parent_span_id, xid, started_at, ended_at, task_id, owner_oid, trace_id, owner, name, status, traceparent, attributes)
    VALUES (id, parent, x::text::xid8, now(), now(), task, 10, trace::uuid, 'x', 'x', status, traceparent, '{}')
$$;
CREATE FUNCTION pg_temp.sampled(trace text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', s.is_sampled, s.reason, coalesce(s.th, '-'), s.by_head, s.is_certain) FROM prometheus._sampled('{}', trace::uuid) s
$$;
SELECT pg_temp.span(-11, repeat('f', 32)), pg_temp.span(-12, repeat('1', 32)), pg_temp.span(-13, repeat('2', 32), 'error'), pg_temp.span(-14, repeat('3', 32), parent => -99),
       pg_temp.span(-15, repeat('4', 32), parent => 1, traceparent => '00-44444444444444444444444444444444-b7ad6b7169203331-01'),
       pg_temp.span(-16, repeat('5', 32), parent => 1, traceparent => '00-55555555555555555555555555555555-b7ad6b7169203331-00'),
       pg_temp.span(-17, repeat('e', 32), 'error');
SELECT is(pg_temp.sampled(repeat(trace, 32)), expected, what) FROM (VALUES
    ('f', 't ratio e666 t f', 'a span alone: by its id'), ('1', 'f ratio e666 f f', 'or not'), ('2', 't error 0 f t', 'one with an error'),
    ('3', 'f ratio e666 f f', 'one whose root is open'), ('4', 't parent - t f', 'one that others want'), ('5', 'f parent - f f', 'or not'),
    ('e', 't error 0 t t', 'one with an error, and by its id'), ('a', 'f ratio e666 f f', 'one that is not known')) AS v(trace, expected, what);

-- From a span to the tasks of its trace.

SELECT is(prometheus._task_of_trace(repeat('f', 32)::uuid), NULL, 'a trace without tasks');
SELECT is(prometheus._task_of_trace('000000000000000000a0000000000000'), 9230::bigint, 'one that tasks were submitted with');
SELECT pg_temp.task(9240, '6'), pg_temp.span(-20, '00000000000000241866666666666666', task => 9240);
SELECT is(prometheus._task_of_trace('00000000000000241866666666666666'), 9240::bigint, 'one that a task began, in whose tool there is a span');
SELECT pg_temp.task(9241, '6'), pg_temp.span(-21, '00000000000000241966666666666666', parent => 9241007);
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target) VALUES (9241007, 9241, 1, 1, 1, prometheus._xid(), now(), 'x', 'x');
SELECT is(prometheus._task_of_trace('00000000000000241966666666666666'), 9241::bigint, 'or that a request of it is of');
SELECT pg_temp.span(-22, '000000000000002419aaaaaaaaaaaaaa', task => 9241);
SELECT is(prometheus._task_of_trace('000000000000002419aaaaaaaaaaaaaa'), NULL, 'but not a task of another');

-- What was left out: trees whose ends have come by, and spans.

SELECT pg_temp.task(9251, '0', traceparent => '00-000000000000000000b0000000000000-b7ad6b7169203331-00'),
       pg_temp.task(9252, '0', NULL, traceparent => '00-000000000000000000b0000000000000-b7ad6b7169203331-00'),
       pg_temp.task(9253, '0', traceparent => '00-000000000000000000b0000000000000-b7ad6b7169203331-00', seconds => 2);
UPDATE prometheus._task SET trace_id = substr(traceparent, 4, 32)::uuid WHERE task_id BETWEEN 9251 AND 9253;
UPDATE prometheus._outcome SET xid = task_id::text::xid8 WHERE task_id BETWEEN 9251 AND 9253;
CREATE FUNCTION pg_temp.omitted(base text, bound text, at timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(task_id || ' ' || root_span, ', ') FROM prometheus._omitted(9252, at, 1, base::pg_snapshot, bound::pg_snapshot)
$$;
SELECT is(pg_temp.omitted('9251:9251:', '9300:9300:', '-infinity'), NULL, 'nothing has come by');
SELECT is(pg_temp.omitted('9252:9252:', '9300:9300:', '-infinity'), '9251 00000000008d28b8', 'what the position sees has; what has not ended, not');
SELECT is(pg_temp.omitted('9251:9251:', '9300:9300:', now() - interval '1 h' + interval '1.5 s'), '9251 00000000008d28b8', 'what was given of a window has');
SELECT is(pg_temp.omitted('9300:9300:', '9300:9300:', '-infinity'), '9251 00000000008d28b8, 9253 00000000008d3088', 'all has');
SELECT pg_temp.span(-30, '000000000000000000b0000000000000', x => 50), pg_temp.span(-29, '000000000000000000b0000000000000', x => 60),
       pg_temp.span(-28, '000000000000000000b0000000000000', x => 60), pg_temp.span(-27, '000000000000000000b0000000000000', x => 70);
SELECT is(array(SELECT span_id FROM prometheus._omitted_spans('000000000000000000b0000000000000', '55:55:', '60', -29) ORDER BY 1), '{-30,-29}', 'so have spans');
SELECT is(array(SELECT span_id FROM prometheus._omitted_spans('000000000000000000b0000000000000', '60:80:60', '0', 0) ORDER BY 1), '{-30,-27}', 'by their transactions');

-- Who may ask.

CREATE ROLE prom_test_a;
GRANT prometheus_agent_user TO prom_test_a;
SELECT throws_ok('SELECT prometheus_sampling(0)', '42704', NULL, 'no such task');
SET LOCAL ROLE prom_test_a;
SELECT throws_ok('SELECT prometheus_sampling(9201)', '42704', NULL, 'none of another''s');
SELECT throws_ok('SELECT prometheus._sample(9201)', '42501', NULL, 'nor by another way');
SELECT throws_ok($$SELECT * FROM prometheus._sampled('{9201}')$$, '42501', NULL, 'nor by a third');
RESET ROLE;
UPDATE prometheus._task SET submitter = 'prom_test_a', submitter_oid = 'prom_test_a'::regrole WHERE task_id = 9220;
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.sampled(9220), 'keep error 0', 'a trace is sampled whoever asks');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
