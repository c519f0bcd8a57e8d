-- The horizon: nothing can be tied to what has ended before it.
BEGIN;
SELECT plan(5);
SET LOCAL client_min_messages = error;

CREATE TEMP TABLE task AS
    SELECT n, prometheus_submit('x ' || n) AS task_id FROM generate_series(1, 3) n;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT task_id, 1, -n, prometheus._xid(), now() - n * interval '1 day', 1, 'failed'
  FROM task WHERE n < 3;

SELECT lives_ok($$SELECT prometheus_submit('y', depends_on => ARRAY(SELECT task_id FROM task))$$,
                'without a horizon every task can be depended on');
INSERT INTO prometheus._horizon (at, xid, moved_at, snapshot)
VALUES (now() - interval '36 hours', prometheus._xid(), now(), prometheus._snapshot());
SELECT lives_ok($$SELECT prometheus_submit('y', depends_on => ARRAY(SELECT task_id FROM task WHERE n <> 2))$$,
                'one that has ended after it, or not yet, can be depended on');
SELECT throws_ok($$SELECT prometheus_submit('y', depends_on => ARRAY(SELECT task_id FROM task))$$, '55000', NULL,
                 'one that has ended before it cannot');
SELECT throws_ok($$SELECT prometheus_retry(task_id) FROM task WHERE n = 2$$, '55000', NULL,
                 'nor be retried');
SELECT is((SELECT prometheus_retry(task_id) FROM task WHERE n = 1), true, 'others can');

SELECT * FROM finish();
ROLLBACK;
