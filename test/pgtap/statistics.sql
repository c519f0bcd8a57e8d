-- Everything at a glance.
BEGIN;
SELECT plan(8);
SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_a;
GRANT prometheus_agent_user TO prom_test_a;
CREATE FUNCTION pg_temp.stats() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', s.tasks, s.live, s.completed, s.failed, s.vetoed, s.cancelled, s.quarantined, coalesce(s.error_rate::text, '-'), s.avg_duration, s.steps,
                     s.failed_steps, s.avg_chat, s.avg_tool, coalesce(s.avg_review::text, '-'), s.avg_other, s.tokens_in, s.tokens_out, s.cached_tokens, s.cost, s.active_spans)
      FROM prometheus_stats() s
$$;
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.stats(), '0 0 0 0 0 0 0 - 0 0 - 0', 'nothing');
RESET ROLE;

INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT id, id * 1000, prometheus._xid(), '2026-01-01 00:00+00', now(), 0, 3, 'prom_test_a'::regrole, 'prom_test_a', 'a', 'fast', gen_random_uuid(), 'x', '{}'
  FROM generate_series(9301, 9306) AS id;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT id, 1, id * 1000 + 1, prometheus._xid(), '2026-01-01 00:00+00'::timestamptz + seconds * interval '1 s', 1, outcome
  FROM (VALUES (9301, 1, 'completed'), (9302, 3, 'completed'), (9303, 2, 'failed'), (9304, 2, 'vetoed'), (9305, 2, 'cancelled')) AS v(id, seconds, outcome);
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status, tokens_in, tokens_out, cached_tokens, cost)
SELECT 9301, n, 1, 9301100 + n, prometheus._xid(), '2026-01-01 00:00+00', '2026-01-01 00:00+00'::timestamptz + n * interval '1 s', false, kind, 'm', status, tokens, 1, 5, 0.5
  FROM (VALUES (1, 'chat', 'ok', 10), (2, 'tool', 'error', NULL), (3, 'chat', 'ok', 20), (4, 'plan', 'ok', 0)) AS v(n, kind, status, tokens);
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.stats(), '6 1 2 1 1 1 0 0.4 00:00:02 4 1 00:00:02 00:00:02 - 00:00:04 30 4 20 2.0 1', 'what there is');
SELECT prometheus_span_start('x') AS span \gset
SELECT is((SELECT active_spans FROM prometheus_stats()), CASE WHEN dropped_spans IS NULL THEN 1 ELSE 2 END::bigint, 'a span that is open is active') FROM prometheus_stats();
SELECT prometheus_span_end(:'span');
SELECT is((SELECT active_spans FROM prometheus_stats()), 1::bigint, 'until it ends');
RESET ROLE;
UPDATE prometheus._task SET submitter = current_user, submitter_oid = current_user::regrole WHERE task_id <> 9303;
SET LOCAL ROLE prom_test_a;
SELECT is((SELECT tasks || ' ' || failed || ' ' || error_rate FROM prometheus_stats()), '1 1 1', 'of what one may see');
RESET ROLE;
CREATE ROLE prom_test_c;
SET LOCAL ROLE prom_test_c;
SELECT throws_ok('SELECT prometheus_stats()', '42501', NULL, 'not for everybody');
RESET ROLE;
SELECT volatility_is('prometheus_stats', 'volatile');
SELECT function_returns('prometheus_stats', 'record');

SELECT * FROM finish();
ROLLBACK;
