-- What prometheus.attempt says of the runs of a task.
BEGIN;
SELECT plan(16);

CREATE TEMP TABLE made AS
    SELECT nextval('prometheus._task_id') AS task_id;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01 00:00+00', '2026-01-02 00:00+00',
       0, 3, current_user::regrole, current_user, 'default', 'fast', gen_random_uuid(), 'x', '{}'
  FROM made;

SELECT columns_are('prometheus', 'attempt', ARRAY[
    'task_id', 'attempt', 'outcome', 'started_at', 'ended_at', 'duration', 'error', 'error_type', 'next_run_at']);
SELECT is_empty('SELECT a.* FROM prometheus.attempt a JOIN made USING (task_id)', 'not begun: no attempt');

INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT task_id, n, prometheus._xid(), timestamptz '2026-01-01 00:00+00' + n * interval '1 min', 1, 'echo', 1
  FROM made, generate_series(1, 9) AS n;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, next_run_at, outcome,
                                 error_type, error)
SELECT task_id, n, nextval('prometheus._fact_id'), prometheus._xid(),
       timestamptz '2026-01-01 00:00+00' + n * interval '1 min 1 s', n, NULL,
       CASE outcome WHEN 'retry' THEN timestamptz '2026-01-01 01:00+00' END, outcome, error_type, error
  FROM made, (VALUES (1, 'retry', 'ModelTimeout', 'no reply'),
                     (2, 'waiting', NULL, NULL),
                     (3, 'lost', NULL, 'its process ended'),
                     (4, 'failed', 'ModelRejected', 'it said no'),
                     (5, 'vetoed', 'GovernanceVeto', 'not here'),
                     (6, 'cancelled', NULL, 'no need'),
                     (7, 'quarantined', 'Crashed', 'it killed the server twice'),
                     (8, 'completed', NULL, NULL),
                     -- 9 is open; 10 ended before it began
                     (10, 'cancelled', NULL, NULL)) AS v(n, outcome, error_type, error);

CREATE FUNCTION pg_temp.line(n integer) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s, started %s, ended %s, duration %s, error %s %s, next %s', coalesce(a.outcome, 'open'),
                  coalesce(to_char(a.started_at AT TIME ZONE 'UTC', 'MI:SS'), '-'),
                  coalesce(to_char(a.ended_at AT TIME ZONE 'UTC', 'MI:SS'), '-'),
                  coalesce(to_char(a.duration, 'MI:SS'), '-'), coalesce(a.error_type, '-'), coalesce(a.error, '-'),
                  coalesce(to_char(a.next_run_at AT TIME ZONE 'UTC', 'HH24:MI'), '-'))
      FROM prometheus.attempt a JOIN made USING (task_id) WHERE a.attempt = $1
$$;

SELECT is(pg_temp.line(n), expected, expected)
  FROM (VALUES (1, 'retry, started 01:00, ended 01:01, duration 00:01, error ModelTimeout no reply, next 01:00'),
               (2, 'waiting, started 02:00, ended 02:02, duration 00:02, error - -, next -'),
               (3, 'lost, started 03:00, ended 03:03, duration 00:03, error - its process ended, next -'),
               (4, 'failed, started 04:00, ended 04:04, duration 00:04, error ModelRejected it said no, next -'),
               (5, 'vetoed, started 05:00, ended 05:05, duration 00:05, error GovernanceVeto not here, next -'),
               (6, 'cancelled, started 06:00, ended 06:06, duration 00:06, error - no need, next -'),
               (7, 'quarantined, started 07:00, ended 07:07, duration 00:07, error Crashed it killed the server twice, next -'),
               (8, 'completed, started 08:00, ended 08:08, duration 00:08, error - -, next -'),
               (9, 'open, started 09:00, ended -, duration -, error - -, next -'),
               (10, 'cancelled, started -, ended 10:10, duration -, error - -, next -')) AS v(n, expected);

SELECT is((SELECT array_agg(attempt ORDER BY attempt) FROM prometheus.attempt JOIN made USING (task_id)),
          ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 'each attempt is one row');
SELECT is((SELECT count(*) FROM prometheus.attempt WHERE task_id IN (SELECT task_id FROM made)), 10::bigint,
          'in whatever way they are asked for');
SELECT throws_ok($$UPDATE prometheus.attempt SET outcome = 'completed'$$, '55000', NULL, 'a view to read');
SELECT throws_ok($$DELETE FROM prometheus.attempt$$, '55000', NULL, 'and not to delete from');

SELECT * FROM finish();
ROLLBACK;
