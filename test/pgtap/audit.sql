-- What is left of tasks that were deleted is seen by those who saw the tasks.
BEGIN;
SELECT plan(13);
CREATE ROLE prom_tap_one;
CREATE ROLE prom_tap_two;
CREATE ROLE prom_tap_boss;
GRANT prometheus_agent_user TO prom_tap_one, prom_tap_two;
GRANT prometheus_agent_admin TO prom_tap_boss;

INSERT INTO prometheus._audit_verdict (task_id, attempt, xid, judged_at, latency_ms, approved, policy_version,
    submitter_oid, submitter, agent, stage, effect, risk_level, governor, target_hash)
VALUES (-1, 1, prometheus._xid(), now(), 0.5, true, 3, 'prom_tap_one'::regrole, 'prom_tap_one', 'gone', 'task', 'allow',
        'LOW', 'JUSTICA', 'hash');
INSERT INTO prometheus._audit_approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at,
    submitter_oid, submitter, agent, tool, policy, approvers, target_hash, arguments)
VALUES (-1, -1, 1, 2, prometheus._xid(), now(), now() - interval '1 hour', 'prom_tap_one'::regrole, 'prom_tap_one', 'gone',
        'wipe', 'p', 'prometheus_agent_admin', 'hash', '{"n": 1}'),
       (-2, -1, 1, 3, prometheus._xid(), now(), now() + interval '1 hour', 'prom_tap_one'::regrole, 'prom_tap_one', 'gone',
        'wipe', 'p', 'prometheus_agent_admin', 'hash', '{}');
INSERT INTO prometheus._audit_usage (first_task, day, xid, submitter_oid, submitter, agent, model, tasks, calls,
    tokens_in, tokens_out, cost)
VALUES (-1, '2020-01-01', prometheus._xid(), 'prom_tap_one'::regrole, 'prom_tap_one', 'gone', 'm', 1, 2, 3, 4, 0.5),
       (-2, '2020-01-01', prometheus._xid(), 'prom_tap_one'::regrole, 'prom_tap_one', 'gone', 'm', 1, 2, 3, 4, NULL),
       (-3, '2020-01-01', prometheus._xid(), 'prom_tap_two'::regrole, 'prom_tap_two', 'gone', 'm', 1, 1, 1, 1, NULL);

SET ROLE prom_tap_one;
SELECT results_eq($$SELECT task_id, stage, approved, policy_version, attempt FROM prometheus.verdict$$,
                  $$VALUES (-1::bigint, 'task', true, 3::bigint, 1)$$, 'a verdict');
SELECT results_eq($$SELECT approval_id, arguments::text, decision FROM prometheus.approval ORDER BY 1$$,
                  $$VALUES (-2::bigint, '{}', 'ended'), (-1, '{"n": 1}', 'expired')$$, 'approvals');
SELECT results_eq($$SELECT tasks, calls, tokens_in, tokens_out, cost FROM prometheus.usage$$,
                  $$VALUES (2::bigint, 4::bigint, 6::bigint, 8::bigint, 0.5)$$, 'usage is summed up');
SET ROLE prom_tap_two;
SELECT is_empty($$SELECT FROM prometheus.verdict$$, 'another does not see the verdict');
SELECT is_empty($$SELECT FROM prometheus.approval$$, 'nor the approvals');
SELECT results_eq($$SELECT tasks FROM prometheus.usage$$, $$VALUES (1::bigint)$$, 'but his own usage');
SET ROLE prom_tap_boss;
SELECT results_eq($$SELECT count(*) FROM prometheus.verdict$$, $$VALUES (1::bigint)$$, 'an administrator sees the verdict');
SELECT results_eq($$SELECT count(*) FROM prometheus.approval$$, $$VALUES (2::bigint)$$, 'the approvals');
SELECT results_eq($$SELECT submitter, tasks FROM prometheus.usage ORDER BY 1$$,
                  $$VALUES ('prom_tap_one', 2::bigint), ('prom_tap_two', 1)$$, 'and all usage');
SELECT throws_ok($$SELECT prometheus_approve(-2)$$, '42704', NULL, 'what is gone cannot be approved');

-- Together with what is there.
RESET ROLE;
SET LOCAL client_min_messages = error;
SELECT lives_ok($$SELECT prometheus_submit('x')$$, 'a task');
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status,
    model, tokens_in)
SELECT max(task_id), 1, 1, -9, prometheus._xid(), '2020-01-01 12:00+00', '2020-01-01 12:00+00', false, 'chat', 'm', 'ok', 'm', 5
  FROM prometheus._task;
INSERT INTO prometheus._audit_usage (first_task, day, xid, submitter_oid, submitter, agent, model, tasks, calls, tokens_in)
SELECT -4, '2020-01-01', prometheus._xid(), r.oid, r.rolname, 'default', 'm', 2, 1, 10 FROM pg_roles r WHERE rolname = current_user;
SELECT results_eq($$SELECT tasks, tokens_in FROM prometheus.usage WHERE agent = 'default'$$,
                  $$VALUES (3::bigint, 15::bigint)$$, 'usage of both is one row');
SELECT is((SELECT count(*) FROM prometheus.usage WHERE agent = 'gone'), 2::bigint, 'and others are others');

SELECT * FROM finish();
ROLLBACK;
