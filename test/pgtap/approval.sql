-- Who may decide about what, and what prometheus.approval and verdict show.
-- How tasks wait, and go on, is in t/.
BEGIN;
SELECT plan(72);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_board;
CREATE ROLE prom_test_member;
CREATE ROLE prom_test_submitter;
CREATE ROLE prom_test_user;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prometheus_agent_user TO prom_test_board, prom_test_submitter, prom_test_user;
GRANT prom_test_board TO prom_test_member;

SELECT columns_are('prometheus', 'approval', ARRAY[
    'approval_id', 'task_id', 'tool', 'arguments', 'requested_at', 'expires_at', 'decision', 'decided_by', 'note', 'decided_at', 'step',
    'policy', 'approvers', 'reasoning', 'target_hash']);
SELECT columns_are('prometheus', 'verdict', ARRAY[
    'task_id', 'step', 'stage', 'approved', 'risk_level', 'governor', 'reasoning', 'suggestions', 'policy', 'effect', 'policy_version',
    'target_hash', 'latency_ms', 'attempt', 'judged_at', 'scores']);
SELECT function_returns(f, 'void') FROM unnest(ARRAY['prometheus_approve', 'prometheus_reject']) AS f;
SELECT is_empty('TABLE prometheus.' || v, 'a fresh install has no ' || v) FROM unnest(ARRAY['approval', 'verdict']) AS v;

-- Tasks, and what they ask: by the name of the task.
CREATE TEMP TABLE made (name text PRIMARY KEY, task_id bigint, approval_id bigint, approvers text, expires_at timestamptz);
GRANT SELECT ON made TO PUBLIC;
INSERT INTO made
SELECT name, nextval('prometheus._task_id'), nextval('prometheus._fact_id'), approvers, now() + expires_in
  FROM (VALUES ('open', 'prom_test_board', interval '1 hour'), ('rejected', 'prom_test_board', '1 hour'),
               ('admin', 'prometheus_agent_admin', '1 hour'), ('own', 'prom_test_submitter', '1 hour'),
               ('gone', 'prom_test_gone', '1 hour'), ('expired', 'prom_test_board', '-1 second'),
               ('ended', 'prom_test_board', '1 hour'), ('late', 'prom_test_board', '1 hour'), ('super', 'prom_test_board', '1 hour'))
               AS v(name, approvers, expires_in);
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), now(), now() + interval '1 day', 0, 3,
       'prom_test_submitter'::regrole, 'prom_test_submitter', 'default', 'fast', gen_random_uuid(), 'request of ' || name, '{}'
  FROM made;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version, policy_version, review_ms)
SELECT task_id, 1, prometheus._xid(), now(), 1, 'echo', 1, 6, 0.25 FROM made;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
SELECT task_id, 1, nextval('prometheus._fact_id'), prometheus._xid(), now(), 0, 1,
       CASE name WHEN 'ended' THEN 'cancelled' ELSE 'waiting' END FROM made;
INSERT INTO prometheus._approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, tool, policy, approvers,
                                  approvers_oid, target_hash, reasoning, arguments)
SELECT approval_id, task_id, 1, 2, prometheus._xid(), now(), expires_at, 'wipe', 'justica.escalation', approvers,
       CASE approvers WHEN 'prom_test_gone' THEN (SELECT max(oid::bigint) + 1 FROM pg_authid)::oid
                      WHEN 'prometheus_agent_admin' THEN NULL ELSE approvers::regrole::oid END,
       repeat('0', 64), 'It cannot be undone.', '{"t": "x"}' FROM made;
INSERT INTO prometheus._verdict (task_id, attempt, step, event_id, xid, judged_at, latency_ms, approved, policy_version, stage, effect,
                                 risk_level, governor, policy, reasoning, suggestion, target_hash)
SELECT task_id, 1, 2, nextval('prometheus._fact_id'), prometheus._xid(), now(), 0.5, false, 6, 'tool', 'escalate', 'HIGH', 'JUSTICA',
       'justica.escalation', 'It cannot be undone.', 'Wait.', repeat('0', 64) FROM made;
CREATE FUNCTION pg_temp.id_of(text) RETURNS bigint LANGUAGE sql AS $$SELECT approval_id FROM made WHERE name = $1$$;
CREATE FUNCTION pg_temp.approve(text) RETURNS text LANGUAGE sql AS $$SELECT format('SELECT prometheus_approve(%s)', pg_temp.id_of($1))$$;
CREATE FUNCTION pg_temp.reject(text) RETURNS text LANGUAGE sql AS $$SELECT format('SELECT prometheus_reject(%s)', pg_temp.id_of($1))$$;
-- The hint of the error that a statement raises.
CREATE FUNCTION pg_temp.hint_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN hint;
END
$$;

-- What is no approval.

SELECT throws_ok('SELECT ' || f || '(NULL)', '22004', 'the approval is null', f || ' null')
  FROM unnest(ARRAY['prometheus_approve', 'prometheus_reject']) AS f;
SELECT throws_ok(format('SELECT %s(%s)', f, n), '42704', format('approval %s does not exist', n), f || ' ' || n)
  FROM unnest(ARRAY['prometheus_approve', 'prometheus_reject']) AS f, unnest(ARRAY[0, -1, 9223372036854775807]) AS n;
SELECT is(pg_temp.hint_of('SELECT prometheus_approve(0)'),
          'SELECT * FROM prometheus.approval WHERE decision IS NULL lists what is open.', 'with a hint where they are');
SELECT throws_ok(format('SELECT prometheus_approve(%s)', (SELECT task_id FROM made WHERE name = 'open')), '42704', NULL, 'a task is none');

-- Who may.

SET LOCAL ROLE prom_test_submitter;
SELECT throws_ok(pg_temp.approve(name), '42501', 'nobody may decide about his own task', 'the submitter may not approve: ' || name)
  FROM unnest(ARRAY['open', 'own']) AS name;
SELECT throws_ok(pg_temp.reject('own'), '42501', 'nobody may decide about his own task', 'nor reject');
SELECT is(pg_temp.hint_of(pg_temp.approve('open')), 'Members of role "prom_test_board" may, but not who submitted the task.',
          'with a hint who may');
SELECT is((SELECT count(*) FROM prometheus.approval), 9::bigint, 'but he sees what his tasks wait for');
SET LOCAL ROLE prom_test_user;
SELECT throws_ok(pg_temp.approve('open'), '42501', 'permission denied to decide about this call', 'a user may not');
SELECT throws_ok(pg_temp.reject('open'), '42501', 'permission denied to decide about this call', 'nor reject');
SELECT is(pg_temp.hint_of(pg_temp.approve('admin')), 'Members of role "prometheus_agent_admin" may, but not who submitted the task.',
          'with the same hint');
SELECT is_empty('TABLE prometheus.approval', 'and sees none');
SELECT is_empty('TABLE prometheus.verdict', 'nor a verdict');
SET LOCAL ROLE prom_test_board;
SELECT throws_ok(pg_temp.approve('admin'), '42501', 'permission denied to decide about this call', 'an approver of another policy may not');
SELECT throws_ok(pg_temp.approve('gone'), '42501', NULL, 'nobody may if the role of approvers is gone');
RESET ROLE;
CREATE ROLE prom_test_gone IN ROLE prometheus_agent_user;
SET LOCAL ROLE prom_test_gone;
SELECT throws_ok(pg_temp.approve('gone'), '42501', NULL, 'nor one that has its name since');
SELECT is_empty('TABLE prometheus.approval', 'who does not see it');
RESET ROLE;
ALTER ROLE prom_test_gone RENAME TO prom_test_other;
ALTER ROLE prom_test_board RENAME TO prom_test_gone;
SET LOCAL ROLE prom_test_gone;
SELECT throws_ok(pg_temp.approve('open'), '42501', NULL, 'nor the one that it was, by another name');
SELECT is_empty('TABLE prometheus.approval', 'who does not see it either');
RESET ROLE;
ALTER ROLE prom_test_gone RENAME TO prom_test_board;
SET LOCAL ROLE prom_test_board;
SELECT is((SELECT string_agg(m.name, ' ' ORDER BY m.name) FROM prometheus.approval JOIN made m USING (approval_id)),
          'ended expired late open rejected super', 'an approver sees what he may decide about');
SELECT is_empty('SELECT * FROM prometheus.task JOIN made USING (task_id)', 'and not the tasks themselves');
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok(pg_temp.approve('open'), '42501', 'permission denied to decide about this call',
                 'nor an administrator if the approvers are others');
SELECT is((SELECT count(*) FROM prometheus.approval), 9::bigint, 'who sees all');
SELECT lives_ok(pg_temp.approve('admin'), 'but may without them');
SELECT is(current_user::text, 'prom_test_admin', 'with no more rights than before');
SELECT throws_ok('SELECT * FROM prometheus._decision', '42501', NULL, 'nor after');
SET LOCAL ROLE prom_test_member;
SELECT lives_ok(format($$SELECT prometheus_approve(%s, 'Go on.')$$, pg_temp.id_of('open')), 'a member of the approvers');
SELECT is(concat_ws('|', decision, decided_by, note), 'approved|prom_test_member|Go on.', 'is named') FROM prometheus.approval
 WHERE approval_id = pg_temp.id_of('open');
SELECT lives_ok(format($$SELECT prometheus_reject(%s, 'Not this.')$$, pg_temp.id_of('rejected')), 'or rejects it');
SELECT is(concat_ws('|', decision, decided_by, note), 'rejected|prom_test_member|Not this.', 'with a note') FROM prometheus.approval
 WHERE approval_id = pg_temp.id_of('rejected');
SELECT is(current_user::text, 'prom_test_member', 'and stays who he is');
RESET ROLE;
SELECT lives_ok(pg_temp.reject('super'), 'a superuser may');
SELECT cmp_ok(decided_at, '>=', now(), 'decided_at') FROM prometheus.approval WHERE approval_id = pg_temp.id_of('super');

-- Once.

SELECT throws_ok(s, '55000', 'the approval was approved already', 'approved: ' || s)
  FROM unnest(ARRAY[pg_temp.approve('open'), pg_temp.reject('open')]) AS s;
SELECT throws_ok(s, '55000', 'the approval was rejected already', 'rejected: ' || s)
  FROM unnest(ARRAY[pg_temp.approve('rejected'), pg_temp.reject('rejected')]) AS s;
SELECT throws_ok(s, '55000', 'the approval has expired', 'expired: ' || s)
  FROM unnest(ARRAY[pg_temp.approve('expired'), pg_temp.reject('expired')]) AS s;
SELECT is(concat_ws('|', decision, coalesce(decided_by, '-'), coalesce(note, '-')), 'expired|-|-', 'what has expired says so')
  FROM prometheus.approval WHERE approval_id = pg_temp.id_of('expired');
SELECT throws_ok(s, '55000', 'the approval is of a task that has ended', 'ended: ' || s)
  FROM unnest(ARRAY[pg_temp.approve('ended'), pg_temp.reject('ended')]) AS s;
INSERT INTO prometheus._decision (approval_id, event_id, xid, decided_at, decision)
SELECT approval_id, nextval('prometheus._fact_id'), prometheus._xid(), now(), 'expired' FROM made WHERE name = 'late';
SELECT throws_ok(pg_temp.approve('late'), '55000', 'the approval has expired', 'expired on record');
SELECT throws_ok($$INSERT INTO prometheus._decision SELECT * FROM prometheus._decision LIMIT 1$$, '23505', NULL,
                 'a decision cannot be written twice');

-- Notes.

SELECT throws_ok(format($$SELECT %s(%s, repeat('n', 1001))$$, f, pg_temp.id_of('own')), '54000', 'note is too long', f || ': a note too long')
  FROM unnest(ARRAY['prometheus_approve', 'prometheus_reject']) AS f;
SELECT lives_ok(format($$SELECT prometheus_approve(%s, repeat('n', 1000))$$, pg_temp.id_of('own')), 'a long note');
SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT throws_ok(pg_temp.approve('gone'), '25006', 'cannot execute prometheus_approve() in a read-only transaction', 'read-only');
ROLLBACK TO s;

-- What is seen.

SELECT is(to_jsonb(a) - '{approval_id,task_id,requested_at,expires_at,decided_at,decided_by}'::text[],
          jsonb_build_object('tool', 'wipe', 'arguments', '{"t": "x"}'::jsonb, 'decision', 'approved', 'note', NULL, 'step', 2,
                             'policy', 'justica.escalation', 'approvers', 'prometheus_agent_admin', 'reasoning', 'It cannot be undone.',
                             'target_hash', repeat('0', 64)), 'prometheus.approval')
  FROM prometheus.approval a WHERE approval_id = pg_temp.id_of('admin');
SELECT results_eq($$SELECT to_jsonb(v) - '{task_id,judged_at,target_hash,scores}'::text[] FROM prometheus.verdict v JOIN made m USING (task_id)
                     WHERE m.name = 'open' ORDER BY step NULLS FIRST$$, ARRAY[
    '{"step": null, "stage": "task", "approved": true, "risk_level": "LOW", "governor": "JUSTICA", "reasoning": null, "suggestions": null,
      "policy": null, "effect": "allow", "policy_version": 6, "latency_ms": 0.25, "attempt": 1}',
    '{"step": 2, "stage": "tool", "approved": false, "risk_level": "HIGH", "governor": "JUSTICA", "reasoning": "It cannot be undone.",
      "suggestions": "Wait.", "policy": "justica.escalation", "effect": "escalate", "policy_version": 6, "latency_ms": 0.5,
      "attempt": 1}']::jsonb[], 'prometheus.verdict: what was asked, and the request, which rules allowed');
SELECT is(target_hash, prometheus._hash('task', 'default', 'request of open'), 'whose hash is computed')
  FROM prometheus.verdict v JOIN made m USING (task_id) WHERE m.name = 'open' AND step IS NULL;
SELECT results_eq($$SELECT type, data FROM prometheus.event JOIN made m USING (task_id)
                     WHERE m.name = 'rejected' AND type ~ '^approval' ORDER BY type$$,
    format($$VALUES ('approval.decided', %L::jsonb), ('approval.requested', %L)$$,
           jsonb_build_object('approval_id', approval_id, 'tool', 'wipe', 'decision', 'rejected', 'decided_by', 'prom_test_member',
                              'note', 'Not this.'),
           jsonb_build_object('approval_id', approval_id, 'tool', 'wipe', 'arguments', '{"t": "x"}'::jsonb, 'approvers', approvers,
                              'expires_at', expires_at, 'reasoning', 'It cannot be undone.')), 'events')
  FROM made WHERE name = 'rejected';
SELECT is(caused_by, approval_id, 'the decision is because of what was asked')
  FROM prometheus.event JOIN made m USING (task_id) WHERE m.name = 'rejected' AND type = 'approval.decided';
SELECT throws_ok(format('DELETE FROM prometheus.%I', v), '55000', NULL, v || ' is to be read')
  FROM unnest(ARRAY['approval', 'verdict']) AS v;

-- Hashes.

SELECT is(prometheus._hash('task', 'a', 'b'),
          encode(sha256('\x00000000000000047461736b'::bytea || '\x000000000000000161'::bytea || '\x000000000000000162'::bytea), 'hex'),
          'texts with their lengths');
SELECT isnt(prometheus._hash('task', 'ab', 'c'), prometheus._hash('task', 'a', 'bc'), 'what is whose counts');
SELECT is(prometheus._hash('task', 'a', NULL), NULL, 'null for null');
SELECT is(prometheus._hash('task', 'a', 'é'),
          encode(sha256('\x00000000000000047461736b'::bytea || '\x000000000000000161'::bytea || '\x0000000000000002c3a9'::bytea), 'hex'),
          'lengths are of bytes');

SELECT * FROM finish();
ROLLBACK;
