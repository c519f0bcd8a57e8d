-- What prometheus.event makes of the facts: each type, with exactly its fields.
BEGIN;
SELECT plan(31);

CREATE TEMP TABLE made (name text PRIMARY KEY, task_id bigint);
INSERT INTO made
SELECT name, nextval('prometheus._task_id')
  FROM unnest(ARRAY['completed', 'failed', 'vetoed', 'cancelled', 'quarantined', 'queued']) AS name;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01 00:00+00', '2026-01-02 00:00+00',
       0, 3, current_user::regrole, current_user, 'default', 'fast', gen_random_uuid(), E'Say "hi"\n', '{}'
  FROM made;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, http_status, ambiguous,
                              kind, name, status, error_type, error, answer)
SELECT task_id, step, step, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01 00:00:10+00',
       timestamptz '2026-01-01 00:00:10+00' + step * interval '1.5 s', 200, false, 'chat', 'gpt', status, error_type,
       error, answer
  FROM made JOIN (VALUES
    ('completed', 1, 'error', 'ModelTimeout', 'no reply', NULL),
    ('completed', 2, 'ok', NULL, NULL, repeat('long ', 50)),
    ('failed', 1, 'error', 'ModelRejected', 'it said no', NULL),
    ('vetoed', 1, 'unknown', NULL, NULL, NULL)) AS v(name, step, status, error_type, error, answer) USING (name);
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, next_run_at, outcome,
                                 error_type, error)
SELECT task_id, attempt, nextval('prometheus._fact_id'), prometheus._xid(),
       timestamptz '2026-01-01 00:01:00+00' + attempt * interval '1 s', attempt, step, next_run_at::timestamptz, outcome,
       error_type, error
  FROM made JOIN (VALUES
    ('completed', 1, 1, '2026-01-01 00:02+00', 'retry', 'ModelTimeout', 'no reply'),
    ('completed', 2, 1, NULL, 'lost', NULL, 'its process ended'),
    ('completed', 3, 1, NULL, 'waiting', NULL, NULL),
    ('completed', 4, 2, NULL, 'completed', NULL, NULL),
    ('failed', 1, 1, NULL, 'failed', 'ModelRejected', 'it said no'),
    ('vetoed', 1, NULL, NULL, 'vetoed', 'GovernanceVeto', 'not here'),
    ('cancelled', 1, NULL, NULL, 'cancelled', NULL, NULL),
    ('quarantined', 1, NULL, NULL, 'quarantined', 'Crashed', 'it killed the server twice'))
    AS v(name, attempt, step, next_run_at, outcome, error_type, error) USING (name);

CREATE TEMP VIEW e AS SELECT m.name, e.* FROM prometheus.event e JOIN made m USING (task_id);

SELECT columns_are('prometheus', 'event', ARRAY[
    'event_id', 'type', 'task_id', 'agent', 'subject', 'created_at', 'data', 'caused_by']);
SELECT is((SELECT array_agg(type ORDER BY created_at, event_id) FROM e WHERE name = 'completed'),
          ARRAY['task.received', 'step.executed', 'step.executed', 'task.retried', 'task.completed'],
          'the events of a task, in order; lost and waiting are none');
SELECT is((SELECT array_agg(name || ' ' || type ORDER BY name, created_at, event_id) FROM e WHERE name <> 'completed'),
          ARRAY['cancelled task.received', 'cancelled task.cancelled',
                'failed task.received', 'failed step.executed', 'failed task.failed',
                'quarantined task.received', 'quarantined task.quarantined',
                'queued task.received',
                'vetoed task.received', 'vetoed step.executed', 'vetoed task.failed'],
          'and of the others');

SELECT is(data, '{"agent": "default", "request": "Say \"hi\"\n", "mode": "fast"}', 'data of task.received')
  FROM e WHERE type = 'task.received' AND name = 'queued';
SELECT is(data, '{"step": 1, "kind": "chat", "name": "gpt", "output": "no reply", "duration_ms": 1500}',
          'data of step.executed: the error for want of an answer')
  FROM e WHERE type = 'step.executed' AND name = 'completed' AND data ->> 'step' = '1';
SELECT is(data, jsonb_build_object('step', 2, 'kind', 'chat', 'name', 'gpt', 'output', repeat('long ', 40),
                                   'duration_ms', 3000), 'data of step.executed: a short output')
  FROM e WHERE type = 'step.executed' AND name = 'completed' AND data ->> 'step' = '2';
SELECT is(data, '{"step": 1, "kind": "chat", "name": "gpt", "output": null, "duration_ms": 1500}',
          'data of step.executed: nothing came out')
  FROM e WHERE type = 'step.executed' AND name = 'vetoed';
SELECT is(data, jsonb_build_object('result', repeat('long ', 50), 'steps', 2, 'duration_ms', 64000),
          'data of task.completed: the whole result, from the submit')
  FROM e WHERE type = 'task.completed';
SELECT is(data - 'next_run_at', '{"attempt": 1, "error": "no reply"}', 'data of task.retried')
  FROM e WHERE type = 'task.retried';
SELECT is((data ->> 'next_run_at')::timestamptz, '2026-01-01 00:02+00', 'and when')
  FROM e WHERE type = 'task.retried';
SELECT is(data, '{"error": "it said no", "error_type": "ModelRejected", "failed_at_step": 1}', 'data of task.failed')
  FROM e WHERE type = 'task.failed' AND name = 'failed';
SELECT is(data, '{"error": "not here", "error_type": "GovernanceVeto", "failed_at_step": null}',
          'data of task.failed after a veto, before the first step')
  FROM e WHERE type = 'task.failed' AND name = 'vetoed';
SELECT is(data, '{"reason": null}', 'data of task.cancelled') FROM e WHERE type = 'task.cancelled';
SELECT is(data, '{"error": "it killed the server twice", "error_type": "Crashed", "failed_at_step": null}',
          'data of task.quarantined')
  FROM e WHERE type = 'task.quarantined';

SELECT is(created_at, '2026-01-01 00:00+00', 'created_at of task.received') FROM e
 WHERE type = 'task.received' AND name = 'completed';
SELECT is(created_at, '2026-01-01 00:00:13+00', 'created_at of step.executed') FROM e
 WHERE type = 'step.executed' AND name = 'completed' AND data ->> 'step' = '2';
SELECT is(created_at, '2026-01-01 00:01:04+00', 'created_at of task.completed') FROM e WHERE type = 'task.completed';

-- Ids are the facts' own, so an event keeps its id.
SELECT is((SELECT count(DISTINCT event_id) FROM e), (SELECT count(*) FROM e), 'ids differ');
SELECT is(e.event_id, t.event_id, 'event_id of task.received') FROM e JOIN prometheus._task t USING (task_id)
 WHERE type = 'task.received' AND name = 'queued';
SELECT is(e.event_id, o.event_id, 'event_id of task.failed') FROM e JOIN prometheus._outcome o USING (task_id)
 WHERE type = 'task.failed' AND name = 'failed';
SELECT is(e.event_id, s.event_id, 'event_id of step.executed') FROM e JOIN prometheus._step s USING (task_id)
 WHERE type = 'step.executed' AND e.name = 'failed';
SELECT is((SELECT count(*) FROM e WHERE agent <> 'default' OR subject IS NOT NULL OR caused_by IS NOT NULL OR event_id IS NULL),
          0::bigint, 'agent is the task''s, subject and caused_by are null');

-- README's table of types and their fields is what is emitted; those of alerts,
-- gates and memories are looked at where there are some, in t/510_alert.pl,
-- t/503_webhook.pl and memory.sql, evolutions and tools in t/810_evolution.pl and
-- t/800_factory.pl.  An approval and its decision are of the task that was vetoed.
INSERT INTO prometheus._approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, tool, policy, approvers,
                                  target_hash, arguments)
SELECT nextval('prometheus._fact_id'), task_id, 1, 1, prometheus._xid(), now(), now(), 'tool', 'policy', 'somebody', '', '{}'
  FROM made WHERE name = 'vetoed';
INSERT INTO prometheus._decision (approval_id, event_id, xid, decided_at, decision)
SELECT approval_id, nextval('prometheus._fact_id'), prometheus._xid(), now(), 'rejected' FROM prometheus._approval
 WHERE task_id = (SELECT task_id FROM made WHERE name = 'vetoed');
INSERT INTO prometheus._state_failure (task_id, event_id, xid, failed_at, key, error)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), now(), 'last_task', 'somehow' FROM made WHERE name = 'vetoed';
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status, answer)
SELECT task_id, 99, 1, nextval('prometheus._fact_id'), prometheus._xid(), now(), now(), false, 'reflect', 'echo', 'ok',
       '{"score": 0.5, "critique": "Fair.", "correction": "", "lessons": []}' FROM made WHERE name = 'vetoed';
\set readme `cat README.md`
CREATE TEMP TABLE described AS
SELECT m[1] AS type, f AS field
  FROM regexp_matches(substring(:'readme' FROM '\n### Events\n(.*?)\n### '), '^\| `([a-z.]+)` \| (.*) \|$', 'gn') AS m
 CROSS JOIN LATERAL regexp_split_to_table(regexp_replace(m[2], ' \([^)]*\)', '', 'g'), ', ') AS f
 WHERE m[1] !~ '^(alert|gate|memory|evolution|tool)';
SELECT set_eq('SELECT type, field FROM described',
              'SELECT DISTINCT e.type, f FROM e CROSS JOIN LATERAL jsonb_object_keys(e.data) AS f',
              'README has each type with all its fields');
SELECT is_empty($$SELECT e.type, e.data FROM e
                   WHERE (SELECT array_agg(f ORDER BY f) FROM jsonb_object_keys(e.data) AS f)
                         <> (SELECT array_agg(d.field ORDER BY d.field) FROM described d WHERE d.type = e.type)$$,
                'each event has all fields of its type');
SELECT is((SELECT count(DISTINCT type) FROM described), 11::bigint, 'and these are all');
SELECT is(d.caused_by, a.event_id, 'a decision is caused by the request')
  FROM e d, e a WHERE d.type = 'approval.decided' AND a.type = 'approval.requested';

-- A step of 1 MB: the event has a piece of it.
UPDATE prometheus._step SET answer = repeat('ä', 500000) WHERE task_id = (SELECT task_id FROM made WHERE name = 'failed');
SELECT cmp_ok(length(data ->> 'output'), '<=', 1000, 'the output in an event is short')
  FROM e WHERE type = 'step.executed' AND name = 'failed';

SELECT is((SELECT count(*) FROM e WHERE type = 'task.completed'), 1::bigint, 'by type');
SELECT is_empty('SELECT * FROM prometheus.event WHERE task_id = 0', 'no task, no event');
SELECT throws_ok($$INSERT INTO prometheus.event (type) VALUES ('x')$$, '55000', NULL, 'a view to read');
SELECT throws_ok('DELETE FROM prometheus.event', '55000', NULL, 'and not to delete from');

SELECT * FROM finish();
ROLLBACK;
