-- prometheus_retry(): a task that ended without success may start anew.
BEGIN;
SELECT plan(17);

CREATE TEMP TABLE t (name text PRIMARY KEY, task_id bigint);
INSERT INTO t SELECT n, prometheus_submit(n, timeout => '2 hours')
  FROM unnest(ARRAY['queued', 'failed', 'completed', 'cancelled']) AS n;
CREATE FUNCTION pg_temp.id(text) RETURNS bigint
    LANGUAGE sql RETURN (SELECT task_id FROM t WHERE name = $1);

-- What the caller process would have written.
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT task_id, 1, prometheus._xid(), now(), 1, 'echo', 1 FROM t WHERE name <> 'queued';
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome, error_type, error)
SELECT task_id, 1, 1000000 + task_id, prometheus._xid(), now(), 1, name,
       CASE name WHEN 'failed' THEN 'ModelRejected' END, CASE name WHEN 'failed' THEN 'no' END
  FROM t WHERE name <> 'queued';

SELECT is(prometheus_retry(pg_temp.id('queued')), false, 'not one that has not ended');
SELECT is(prometheus_retry(pg_temp.id('completed')), false, 'not one that was completed');
SELECT throws_ok('SELECT prometheus_retry(-1)', '42704', NULL, 'not one that is not there');
SELECT is(prometheus_retry(NULL), NULL, 'null for null');

SELECT is(prometheus_retry(pg_temp.id('failed')), true, 'one that failed');
SELECT is(prometheus_retry(pg_temp.id('failed')), false, 'but only once');
SELECT is(status, 'queued', 'then it is queued') FROM prometheus.task WHERE task_id = pg_temp.id('failed');
SELECT is(attempts, 0, 'with new attempts') FROM prometheus.task WHERE task_id = pg_temp.id('failed');
SELECT is(error, NULL, 'and no error') FROM prometheus.task WHERE task_id = pg_temp.id('failed');
SELECT is(ended_at, NULL, 'and no end') FROM prometheus.task WHERE task_id = pg_temp.id('failed');
SELECT is(prometheus_result(pg_temp.id('failed')), NULL, 'its result is awaited again');
SELECT is(outcome, 'failed', 'its old attempt stays') FROM prometheus.attempt WHERE task_id = pg_temp.id('failed');
SELECT is(deadline - retried_at, interval '2 hours', 'its timeout begins anew')
  FROM prometheus._retry WHERE task_id = pg_temp.id('failed');

-- It ends again, and may be retried again.
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
VALUES (pg_temp.id('failed'), 2, prometheus._xid(), now(), 1, 'echo', 1);
SELECT is(status, 'running', 'an attempt after the retry is its attempt')
  FROM prometheus.task WHERE task_id = pg_temp.id('failed');
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome, error_type, error)
VALUES (pg_temp.id('failed'), 2, 2000000, prometheus._xid(), now(), 1, 'failed', 'ModelRejected', 'no');
SELECT is(status, 'failed', 'its new end counts') FROM prometheus.task WHERE task_id = pg_temp.id('failed');
SELECT is(prometheus_retry(pg_temp.id('failed')), true, 'and can be retried');
SELECT is(prometheus_retry(pg_temp.id('cancelled')), true, 'one that was cancelled');

SELECT * FROM finish();
ROLLBACK;
