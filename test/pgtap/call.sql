-- What prometheus.call says of requests on the network.
BEGIN;
SELECT plan(18);

CREATE TEMP TABLE made AS
    SELECT nextval('prometheus._task_id') AS task_id;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01 00:00+00', '2026-01-02 00:00+00',
       0, 3, current_user::regrole, current_user, 'default', 'fast', gen_random_uuid(), 'x', '{}'
  FROM made;

SELECT columns_are('prometheus', 'call', ARRAY[
    'call_id', 'task_id', 'attempt', 'turn', 'call', 'kind', 'target', 'status', 'sent_at', 'ended_at', 'http_status',
    'request_id', 'reserved', 'reserved_tokens']);

-- The numbers of calls are those of their attempts, but for the two of attempt 8.
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT task_id, n, prometheus._xid(), '2026-01-01 00:00+00', 1, 'm', 1 FROM made, generate_series(1, 8) AS n;
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target, reserved)
SELECT n, task_id, least(n, 8), CASE n WHEN 9 THEN 2 ELSE 1 END, 1, prometheus._xid(),
       timestamptz '2026-01-01 00:00+00' + n * interval '1 min', 'chat', 'model:m', CASE n WHEN 1 THEN 0.125 END
  FROM made, generate_series(1, 9) AS n;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, http_status,
                              ambiguous, kind, name, status, request_id, error_type, error, answer)
SELECT task_id, n, n, nextval('prometheus._fact_id'), n, prometheus._xid(), '2026-01-01 00:00+00',
       timestamptz '2026-01-01 00:00+00' + n * interval '1 min 1 s', http_status, ambiguous, 'chat', 'm', status,
       request_id, NULL, NULL, NULL
  FROM made, (VALUES (1, 200, false, 'ok', 'req_1'),
                     (2, 429, false, 'error', 'req_2'),
                     (3, NULL, false, 'error', NULL),
                     (4, NULL, true, 'error', NULL),
                     (5, 200, true, 'error', 'req_5'),
                     (8, 200, false, 'ok', NULL)) AS v(n, http_status, ambiguous, status, request_id);
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
SELECT task_id, n, nextval('prometheus._fact_id'), prometheus._xid(),
       timestamptz '2026-01-01 00:00+00' + n * interval '1 min 2 s', 1, NULL, outcome
  FROM made, (VALUES (1, 'completed'), (2, 'retry'), (6, 'lost'), (7, 'cancelled')) AS v(n, outcome);

CREATE FUNCTION pg_temp.line(n bigint) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s %s/%s/%s %s %s, sent %s, ended %s, %s %s, reserved %s', c.status, c.attempt, c.turn, c.call, c.kind,
                  c.target, to_char(c.sent_at AT TIME ZONE 'UTC', 'MI:SS'),
                  coalesce(to_char(c.ended_at AT TIME ZONE 'UTC', 'MI:SS'), '-'), coalesce(c.http_status::text, '-'),
                  coalesce(c.request_id, '-'), coalesce(c.reserved::text, '-'))
      FROM prometheus.call c JOIN made USING (task_id) WHERE c.call_id = $1
$$;

SELECT is(pg_temp.line(n), expected, what)
  FROM (VALUES (1, 'done 1/1/1 chat model:m, sent 01:00, ended 01:01, 200 req_1, reserved 0.125', 'done'),
               (2, 'failed 2/1/1 chat model:m, sent 02:00, ended 02:02, 429 req_2, reserved -', 'failed with a response'),
               (3, 'failed 3/1/1 chat model:m, sent 03:00, ended 03:03, - -, reserved -', 'failed without one'),
               (4, 'ambiguous 4/1/1 chat model:m, sent 04:00, ended 04:04, - -, reserved -', 'sent and never answered'),
               (5, 'ambiguous 5/1/1 chat model:m, sent 05:00, ended 05:05, 200 req_5, reserved -', 'cut off while answering'),
               (6, 'ambiguous 6/1/1 chat model:m, sent 06:00, ended 06:12, - -, reserved -', 'its process ended'),
               (7, 'ambiguous 7/1/1 chat model:m, sent 07:00, ended 07:14, - -, reserved -', 'dropped by a cancel'),
               (8, 'done 8/1/1 chat model:m, sent 08:00, ended 08:08, 200 -, reserved -', 'done, its attempt goes on'),
               (9, 'open 8/2/1 chat model:m, sent 09:00, ended -, - -, reserved -', 'open, in a second turn'))
       AS v(n, expected, what);
SELECT is((SELECT count(*) FROM prometheus.call JOIN made USING (task_id)), 9::bigint, 'each call is one row');

-- A step without a call (a model without a network) makes none.
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status)
SELECT task_id, 10, 8, nextval('prometheus._fact_id'), prometheus._xid(), now(), now(), false, 'chat', 'echo', 'ok'
  FROM made;
SELECT is((SELECT count(*) FROM prometheus.call JOIN made USING (task_id)), 9::bigint, 'no network, no call');

-- A second owner's intent fails instead of being sent.
SELECT throws_ok(format($$INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
                          VALUES (%s, %s, %s, 1, 1, prometheus._xid(), now(), 'chat', 'model:m')$$, id, task_id, attempt),
                 '23505', NULL, what)
  FROM made, (VALUES (100, 1, 'two intents for one call'), (1, 99, 'two calls with one id')) AS v(id, attempt, what);
SELECT throws_ok(format($$INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
                          VALUES (101, %s, 1, 2, 1, NULL, now(), 'chat', 'model:m')$$, task_id),
                 '23502', NULL, 'a fact without its transaction')
  FROM made;

SELECT throws_ok('DELETE FROM prometheus.call', '55000', NULL, 'a view to read');
SELECT is(call_id, 1::bigint, 'one call by its id') FROM prometheus.call WHERE call_id = 1;
SELECT is_empty('SELECT * FROM prometheus.call WHERE call_id = 0', 'none by an unknown one');

SELECT * FROM finish();
ROLLBACK;
