-- What prometheus.task says of a task, fact by fact.  The facts are written by
-- hand, with times in seconds after the submit.
BEGIN;
SELECT plan(38);

CREATE TEMP TABLE made (name text PRIMARY KEY, task_id bigint);

CREATE FUNCTION pg_temp.submitted(name text, agent text DEFAULT 'default') RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                                  submitter_oid, submitter, agent, mode, trace_id, request, metadata)
    VALUES (nextval('prometheus._task_id'), nextval('prometheus._fact_id'), prometheus._xid(),
            '2026-01-01 00:00+00', '2026-01-02 00:00+00', 0, 3, current_user::regrole, current_user,
            $2, 'fast', '0af7651916cd43dd8448eb211c80319c', 'request of ' || $1, '{"n": 1}');
    INSERT INTO made VALUES ($1, currval('prometheus._task_id')) RETURNING task_id
$$;
CREATE FUNCTION pg_temp.began(name text, attempt integer, seconds integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
    SELECT task_id, $2, prometheus._xid(), timestamptz '2026-01-01 00:00+00' + $3 * interval '1 s', 1, 'echo', 1
      FROM made WHERE made.name = $1
$$;
CREATE FUNCTION pg_temp.did(name text, attempt integer, step integer, tokens_in bigint, tokens_out bigint,
                            cost numeric, answer text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous,
                                  kind, name, status, tokens_in, tokens_out, cost, answer)
    SELECT task_id, $3, $2, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01 00:00+00',
           '2026-01-01 00:00+00', false, 'chat', 'echo', CASE WHEN $7 IS NULL THEN 'error' ELSE 'ok' END,
           $4, $5, $6, $7
      FROM made WHERE made.name = $1
$$;
CREATE FUNCTION pg_temp.ended(name text, attempt integer, used integer, step integer, seconds integer,
                              outcome text, error_type text DEFAULT NULL, error text DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome,
                                     error_type, error)
    SELECT task_id, $2, nextval('prometheus._fact_id'), prometheus._xid(),
           timestamptz '2026-01-01 00:00+00' + $5 * interval '1 s', $3, $4, $6, $7, $8
      FROM made WHERE made.name = $1
$$;

-- What changes in the course of a task, in a line; - is null.
CREATE FUNCTION pg_temp.now_is(name text) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s, attempts %s, started %s, ended %s, duration %s, result %s, error %s %s', t.status, t.attempts,
                  coalesce(extract(epoch FROM t.started_at - t.submitted_at)::integer::text, '-'),
                  coalesce(extract(epoch FROM t.ended_at - t.submitted_at)::integer::text, '-'),
                  coalesce(extract(epoch FROM t.duration)::integer::text, '-'),
                  coalesce(t.result, '-'), coalesce(t.error_type, '-'), coalesce(t.error, '-'))
      FROM prometheus.task t JOIN made m USING (task_id) WHERE m.name = $1
$$;

SELECT columns_are('prometheus', 'task', ARRAY[
    'task_id', 'status', 'agent', 'mode', 'attempts', 'submitted_at', 'started_at', 'ended_at', 'duration',
    'tokens_in', 'tokens_out', 'cost', 'submitter', 'conversation', 'parent_id', 'trace_id', 'request', 'result', 'error', 'error_type', 'metadata']);

-- What stays as it was submitted.

SELECT lives_ok($$SELECT pg_temp.submitted('first')$$, 'a task');
SELECT is(t.agent || ' ' || t.mode, 'default fast', 'agent and mode') FROM prometheus.task t JOIN made USING (task_id);
SELECT is(t.submitted_at, '2026-01-01 00:00+00', 'submitted_at') FROM prometheus.task t JOIN made USING (task_id);
SELECT is(t.submitter, current_user::text, 'submitter') FROM prometheus.task t JOIN made USING (task_id);
SELECT is(t.trace_id, '0af7651916cd43dd8448eb211c80319c', 'trace_id') FROM prometheus.task t JOIN made USING (task_id);
SELECT is(t.request, 'request of first', 'request') FROM prometheus.task t JOIN made USING (task_id);
SELECT is(t.metadata, '{"n": 1}', 'metadata') FROM prometheus.task t JOIN made USING (task_id);

-- From the submit to the answer, with everything that may go wrong once.

SELECT is(pg_temp.now_is('first'), 'queued, attempts 0, started -, ended -, duration -, result -, error - -', 'queued');
SELECT pg_temp.began('first', 1, 10);
SELECT is(pg_temp.now_is('first'), 'running, attempts 1, started 10, ended -, duration -, result -, error - -', 'running');
SELECT pg_temp.did('first', 1, 1, 5, NULL, NULL, NULL);
SELECT pg_temp.ended('first', 1, 1, 1, 20, 'retry', 'ModelTimeout', 'no reply');
SELECT is(pg_temp.now_is('first'),
          'retrying, attempts 1, started 10, ended -, duration -, result -, error ModelTimeout no reply',
          'retrying: the attempt is used up');
SELECT pg_temp.began('first', 2, 30);
SELECT is(pg_temp.now_is('first'),
          'running, attempts 2, started 10, ended -, duration -, result -, error ModelTimeout no reply',
          'running again: started_at stays, the open attempt counts');
SELECT pg_temp.ended('first', 2, 1, 1, 40, 'retry', 'ModelUnavailable', 'too many requests');
SELECT is(pg_temp.now_is('first'),
          'retrying, attempts 1, started 10, ended -, duration -, result -, error ModelUnavailable too many requests',
          'retrying after a rate limit: the attempt is not used up');
SELECT pg_temp.began('first', 3, 50);
SELECT pg_temp.ended('first', 3, 1, 1, 60, 'lost', NULL, 'its process ended');
SELECT is(pg_temp.now_is('first'),
          'retrying, attempts 1, started 10, ended -, duration -, result -, error - its process ended',
          'retrying after a lost attempt: not used up');
SELECT pg_temp.began('first', 4, 70);
SELECT pg_temp.ended('first', 4, 1, 1, 80, 'waiting');
SELECT is(pg_temp.now_is('first'), 'waiting, attempts 1, started 10, ended -, duration -, result -, error - -', 'waiting');
SELECT pg_temp.began('first', 5, 90);
SELECT is(pg_temp.now_is('first'), 'running, attempts 2, started 10, ended -, duration -, result -, error - -',
          'running after the wait');
SELECT pg_temp.did('first', 5, 2, 7, 11, 0.25, 'the answer');
SELECT is(pg_temp.now_is('first'), 'running, attempts 2, started 10, ended -, duration -, result -, error - -',
          'an answer without an outcome is no result');
SELECT pg_temp.ended('first', 5, 2, 2, 100, 'completed');
SELECT is(pg_temp.now_is('first'),
          'completed, attempts 2, started 10, ended 100, duration 100, result the answer, error - -', 'completed');

-- Usage: sums of what is known.

CREATE FUNCTION pg_temp.usage(name text) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s %s %s', coalesce(t.tokens_in::text, '-'), coalesce(t.tokens_out::text, '-'),
                  coalesce(t.cost::text, '-'))
      FROM prometheus.task t JOIN made m USING (task_id) WHERE m.name = $1
$$;
SELECT is(pg_temp.usage('first'), '12 11 0.25', 'an unknown number does not spoil the sum');
SELECT pg_temp.submitted('usage');
SELECT is(pg_temp.usage('usage'), '- - -', 'no step: unknown');
SELECT pg_temp.did('usage', 1, 1, NULL, NULL, NULL, 'x');
SELECT is(pg_temp.usage('usage'), '- - -', 'a step that does not know: unknown, not 0');
SELECT pg_temp.did('usage', 1, 2, 0, 0, 0, 'x');
SELECT is(pg_temp.usage('usage'), '0 0 0', 'nothing used');
SELECT pg_temp.did('usage', 1, 3, 5000000000, 6000000000, 0.000001, 'x');
SELECT pg_temp.did('usage', 1, 4, 5000000000, 6000000000, 0.0000005, 'x');
SELECT is(pg_temp.usage('usage'), '10000000000 12000000000 0.0000015', 'more than an integer holds, and cents of cents');

-- Every end, and ends before a beginning.

SELECT pg_temp.submitted(o), pg_temp.began(o, 1, 1),
       pg_temp.did(o, 1, 1, NULL, NULL, NULL, 'text of a step'),
       pg_temp.ended(o, 1, 1, 1, 2, o, 'Kind', 'why')
  FROM unnest(ARRAY['failed', 'vetoed', 'cancelled', 'quarantined']) AS o;
SELECT is(pg_temp.now_is(o), o || ', attempts 1, started 1, ended 2, duration 2, result -, error Kind why',
          'ended: ' || o || ', with no result')
  FROM unnest(ARRAY['failed', 'vetoed', 'cancelled', 'quarantined']) AS o;

SELECT pg_temp.submitted('unbegun'), pg_temp.ended('unbegun', 1, 0, NULL, 3, 'cancelled', NULL, 'no need');
SELECT is(pg_temp.now_is('unbegun'),
          'cancelled, attempts 0, started -, ended 3, duration 3, result -, error - no need', 'cancelled before it began');
SELECT pg_temp.submitted('overdue'),
       pg_temp.began('overdue', 1, 1), pg_temp.ended('overdue', 1, 1, NULL, 2, 'retry', 'ModelTimeout', 'no reply'),
       pg_temp.ended('overdue', 2, 1, NULL, 3, 'failed', 'DeadlineExceeded', 'too late');
SELECT is(pg_temp.now_is('overdue'),
          'failed, attempts 1, started 1, ended 3, duration 3, result -, error DeadlineExceeded too late',
          'failed between two attempts');
SELECT pg_temp.submitted('silent'), pg_temp.began('silent', 1, 1), pg_temp.did('silent', 1, 1, NULL, NULL, NULL, ''),
       pg_temp.ended('silent', 1, 1, 1, 1, 'completed');
SELECT is(pg_temp.now_is('silent'), 'completed, attempts 1, started 1, ended 1, duration 1, result , error - -',
          'an empty answer is an answer');
SELECT pg_temp.submitted('wordy'), pg_temp.began('wordy', 1, 1), pg_temp.did('wordy', 1, 1, NULL, NULL, NULL, 'first'),
       pg_temp.did('wordy', 1, 2, NULL, NULL, NULL, 'second'), pg_temp.did('wordy', 1, 3, NULL, NULL, NULL, 'third'),
       pg_temp.ended('wordy', 1, 1, 2, 1, 'completed');
SELECT is(pg_temp.now_is('wordy'), 'completed, attempts 1, started 1, ended 1, duration 1, result second, error - -',
          'the result is the answer of the step that the outcome names');

-- A task is one row, and its facts cannot be written twice.

SELECT is((SELECT count(*) FROM prometheus.task), (SELECT count(*) FROM prometheus._task), 'one row a task');
SELECT throws_ok($$SELECT pg_temp.ended('first', 5, 2, 2, 200, 'failed')$$, '23505', NULL, 'two outcomes of an attempt');
SELECT throws_ok($$SELECT pg_temp.began('first', 5, 200)$$, '23505', NULL, 'two starts of an attempt');
SELECT throws_ok($$SELECT pg_temp.did('first', 5, 2, 1, 1, 1, 'x')$$, '23505', NULL, 'two steps with a number');

-- An agent that is no more: a task does not need it.
SELECT pg_temp.submitted('orphan', 'an agent that nobody set');
SELECT is(pg_temp.now_is('orphan'), 'queued, attempts 0, started -, ended -, duration -, result -, error - -',
          'a task of an unknown agent is seen');

-- The queue is the scheduler's, and none serves this database.
SELECT columns_are('prometheus', 'queue', ARRAY['task_id', 'status', 'agent', 'priority', 'due_at', 'since', 'why']);
SELECT is_empty('TABLE prometheus.queue', 'no scheduler, no queue');

SELECT * FROM finish();
ROLLBACK;
