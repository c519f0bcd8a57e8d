/*
 * What people read.  Each is a security_barrier view: a row is seen by the
 * role that submitted the task or owns the agent, by roles that have that
 * role, and by members of prometheus_agent_admin; agents and models are for
 * all to read.  Look-ups are by LATERAL and LIMIT 1, which stays an index scan
 * whatever is joined: filter by task_id.
 *
 * Every fact passes prometheus._seen(): under prometheus.as_of it must have
 * been there then.  What another fact could only follow (its task, its
 * attempt, the version that is pinned) need not be asked about again, and who
 * may see a row is decided by what is now.  A thing that is set was set first
 * as version 1, and whose snapshot is older than that sees nothing of it; its
 * newest version that is seen is found by the index of marks.
 */
CREATE VIEW prometheus._visible_task WITH (security_barrier) AS
SELECT t.*
  FROM prometheus._task t
 WHERE prometheus._may_see(t.submitter, t.submitter_oid)
    OR t.agent = ANY (ARRAY(
       SELECT n.name FROM prometheus._agent n
        WHERE prometheus._may_see(n.owner, n.owner_oid)));
COMMENT ON VIEW prometheus._visible_task IS
    'The tasks that the reader may see: what the other views are made of.';

-- Over the table itself, so that its order is that of an index: the newest
-- ten of a million tasks are read in a millisecond.
CREATE VIEW prometheus.task WITH (security_barrier) AS
SELECT t.task_id,
       CASE WHEN e.ended_at IS NOT NULL THEN o.outcome
            WHEN a.attempt > coalesce(o.attempt, 0) THEN 'running'
            WHEN r.attempt >= o.attempt THEN 'queued'
            WHEN o.outcome = 'waiting' THEN 'waiting'
            WHEN o.outcome IS NOT NULL THEN 'retrying'
            ELSE 'queued' END AS status,
       t.agent,
       t.mode,
       CASE WHEN r.attempt >= o.attempt THEN 0 ELSE coalesce(o.attempts, 0) END
           + CASE WHEN a.attempt > coalesce(o.attempt, 0) THEN 1 ELSE 0 END
           AS attempts,
       t.submitted_at,
       (SELECT f.started_at FROM prometheus._attempt f
         WHERE f.task_id = t.task_id AND prometheus._seen(f.xid)
         ORDER BY f.attempt LIMIT 1) AS started_at,
       e.ended_at,
       e.ended_at - t.submitted_at AS duration,
       s.tokens_in,
       s.tokens_out,
       s.cost,
       t.submitter,
       t.conversation,
       t.parent_id,
       replace(t.trace_id::text, '-', '') AS trace_id,
       t.request,
       CASE WHEN o.outcome = 'completed'
            THEN (SELECT s.answer FROM prometheus._step s
                   WHERE s.task_id = t.task_id AND s.step = o.step)
            END AS result,
       CASE WHEN r.attempt >= o.attempt THEN NULL ELSE o.error END AS error,
       CASE WHEN r.attempt >= o.attempt THEN NULL ELSE o.error_type END
           AS error_type,
       t.metadata
  FROM prometheus._task t
  LEFT JOIN LATERAL (
       SELECT x.attempt, x.attempts, x.outcome, x.step, x.ended_at,
              x.error, x.error_type
         FROM prometheus._outcome x
        WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
        ORDER BY x.attempt DESC LIMIT 1) o ON true
  LEFT JOIN LATERAL (
       SELECT x.attempt
         FROM prometheus._attempt x
        WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
        ORDER BY x.attempt DESC LIMIT 1) a ON true
  LEFT JOIN LATERAL (
       SELECT x.attempt
         FROM prometheus._retry x
        WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
        ORDER BY x.attempt DESC LIMIT 1) r ON true
  LEFT JOIN LATERAL (
       SELECT o.ended_at
        WHERE o.outcome NOT IN ('retry', 'waiting', 'lost')
          AND o.attempt > coalesce(r.attempt, 0)) e ON true
  LEFT JOIN LATERAL (
       SELECT sum(x.tokens_in)::bigint AS tokens_in,
              sum(x.tokens_out)::bigint AS tokens_out,
              sum(x.cost) AS cost
         FROM prometheus._step x
        WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)) s ON true
 WHERE prometheus._seen(t.xid)
   AND (prometheus._may_see(t.submitter, t.submitter_oid)
        OR t.agent = ANY (ARRAY(
           SELECT n.name FROM prometheus._agent n
            WHERE prometheus._may_see(n.owner, n.owner_oid))))
 ORDER BY t.task_id DESC;
COMMENT ON VIEW prometheus.task IS
    'Every task that you may see, the newest first: what was asked, where it is, what came of it.';
COMMENT ON COLUMN prometheus.task.task_id IS 'What prometheus_submit() returned.';
COMMENT ON COLUMN prometheus.task.status IS
    'queued, running (an attempt is open), waiting, retrying (will be tried again); the ends: completed, failed, vetoed, cancelled, quarantined.';
COMMENT ON COLUMN prometheus.task.agent IS 'The agent that was asked.';
COMMENT ON COLUMN prometheus.task.mode IS 'The pipeline: fast.';
COMMENT ON COLUMN prometheus.task.attempts IS
    'Attempts used up or open; not those that a rate limit (429), the end of a kept connection or the end of a process cut short.';
COMMENT ON COLUMN prometheus.task.submitted_at IS 'When prometheus_submit() was called.';
COMMENT ON COLUMN prometheus.task.started_at IS 'When its first attempt began; null: not yet.';
COMMENT ON COLUMN prometheus.task.ended_at IS 'When it ended; null: not yet.';
COMMENT ON COLUMN prometheus.task.duration IS 'From the submit to the end.';
COMMENT ON COLUMN prometheus.task.tokens_in IS 'Tokens of all prompts, as the providers counted them; null: not reported.';
COMMENT ON COLUMN prometheus.task.tokens_out IS 'Tokens of all replies, as the providers counted them; null: not reported.';
COMMENT ON COLUMN prometheus.task.cost IS 'Tokens times the prices of the models, in the unit of the prices; null: not known.';
COMMENT ON COLUMN prometheus.task.submitter IS 'The role that submitted it.';
COMMENT ON COLUMN prometheus.task.conversation IS 'Tasks of its submitter and agent with the same one share a history; null: none.';
COMMENT ON COLUMN prometheus.task.parent_id IS 'The task that delegated it; null: none.';
COMMENT ON COLUMN prometheus.task.trace_id IS 'The trace of the task: 32 hexadecimal digits (W3C Trace Context).';
COMMENT ON COLUMN prometheus.task.request IS 'What was asked.';
COMMENT ON COLUMN prometheus.task.result IS 'The answer; null unless completed.';
COMMENT ON COLUMN prometheus.task.error IS 'Why the last attempt did not succeed, or the reason of a cancel.';
COMMENT ON COLUMN prometheus.task.error_type IS 'The kind of that error; README lists them.';
COMMENT ON COLUMN prometheus.task.metadata IS 'The submitter''s own json object.';

CREATE VIEW prometheus.queue WITH (security_barrier) AS
SELECT q.task_id,
       q.status,
       (SELECT t.agent FROM prometheus._task t
         WHERE t.task_id = q.task_id) AS agent,
       q.priority,
       q.due_at,
       q.since,
       q.why
  FROM prometheus._queue() q;
COMMENT ON VIEW prometheus.queue IS
    'The live tasks that you submitted (administrators: all), from the scheduler''s memory: as fast at any history. What is now: not a fact.';
COMMENT ON COLUMN prometheus.queue.task_id IS 'The task.';
COMMENT ON COLUMN prometheus.queue.status IS 'queued, running or retrying.';
COMMENT ON COLUMN prometheus.queue.agent IS 'The agent that was asked.';
COMMENT ON COLUMN prometheus.queue.priority IS '-1000 to 1000, the higher first.';
COMMENT ON COLUMN prometheus.queue.due_at IS 'The earliest time of its next start.';
COMMENT ON COLUMN prometheus.queue.since IS 'Since when it has been in this state.';
COMMENT ON COLUMN prometheus.queue.why IS 'What it waits for; prometheus_why() says more.';

CREATE VIEW prometheus.attempt WITH (security_barrier) AS
SELECT t.task_id,
       k.attempt,
       o.outcome,
       a.started_at,
       o.ended_at,
       o.ended_at - a.started_at AS duration,
       o.error,
       o.error_type,
       o.next_run_at
  FROM prometheus._visible_task t
 CROSS JOIN LATERAL (
       SELECT x.attempt FROM prometheus._attempt x
        WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
       UNION
       SELECT x.attempt FROM prometheus._outcome x
        WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
       ) k
  LEFT JOIN prometheus._attempt a
       ON a.task_id = t.task_id AND a.attempt = k.attempt
          AND prometheus._seen(a.xid)
  LEFT JOIN prometheus._outcome o
       ON o.task_id = t.task_id AND o.attempt = k.attempt
          AND prometheus._seen(o.xid);
COMMENT ON VIEW prometheus.attempt IS
    'Every run of every task that you may see, and how it ended.';
COMMENT ON COLUMN prometheus.attempt.task_id IS 'The task.';
COMMENT ON COLUMN prometheus.attempt.attempt IS 'Its number, from 1.';
COMMENT ON COLUMN prometheus.attempt.outcome IS
    'completed, failed, retry, waiting, vetoed, cancelled, lost (its process ended) or quarantined; null: it is open.';
COMMENT ON COLUMN prometheus.attempt.started_at IS 'When it began; null: the task ended without it having begun.';
COMMENT ON COLUMN prometheus.attempt.ended_at IS 'When it ended.';
COMMENT ON COLUMN prometheus.attempt.duration IS 'From its beginning to its end.';
COMMENT ON COLUMN prometheus.attempt.error IS 'Why it did not succeed.';
COMMENT ON COLUMN prometheus.attempt.error_type IS 'The kind of that error; README lists them.';
COMMENT ON COLUMN prometheus.attempt.next_run_at IS 'When the next attempt is due, after retry.';

CREATE VIEW prometheus.call WITH (security_barrier) AS
SELECT c.call_id,
       c.task_id,
       c.attempt,
       c.turn,
       c.call,
       c.kind,
       c.target,
       CASE WHEN s.status = 'ok' THEN 'done'
            WHEN s.ambiguous THEN 'ambiguous'
            WHEN s.status IS NOT NULL THEN 'failed'
            WHEN o.attempt IS NOT NULL THEN 'ambiguous'
            ELSE 'open' END AS status,
       c.sent_at,
       coalesce(s.ended_at, o.ended_at) AS ended_at,
       s.http_status,
       s.request_id,
       c.reserved,
       c.reserved_tokens
  FROM prometheus._call c
 CROSS JOIN LATERAL (
       SELECT FROM prometheus._visible_task x
        WHERE x.task_id = c.task_id LIMIT 1) t
  LEFT JOIN LATERAL (
       SELECT x.status, x.ambiguous, x.ended_at, x.http_status, x.request_id
         FROM prometheus._step x
        WHERE x.task_id = c.task_id AND x.call_id = c.call_id
          AND prometheus._seen(x.xid)
        LIMIT 1) s ON true
  LEFT JOIN prometheus._outcome o
       ON o.task_id = c.task_id AND o.attempt = c.attempt
          AND prometheus._seen(o.xid)
 WHERE prometheus._seen(c.xid);
COMMENT ON VIEW prometheus.call IS
    'Every request on the network of the tasks that you may see; recorded before it is sent.';
COMMENT ON COLUMN prometheus.call.call_id IS 'Its id.';
COMMENT ON COLUMN prometheus.call.task_id IS 'The task.';
COMMENT ON COLUMN prometheus.call.attempt IS 'The attempt that sent it.';
COMMENT ON COLUMN prometheus.call.turn IS 'The turn of the conversation with the model, from 1; of a tool the one that asked for it.';
COMMENT ON COLUMN prometheus.call.call IS 'Its number in the turn: 1 is the model, tools follow; 0 and below: the attempt''s reviews by models.';
COMMENT ON COLUMN prometheus.call.kind IS 'chat (a turn of the model), review (by a model), embed (of what is to be recalled), recall (a summary of older turns), plan, reflect or tool.';
COMMENT ON COLUMN prometheus.call.target IS 'What was called: model:NAME or tool:NAME.';
COMMENT ON COLUMN prometheus.call.status IS
    'open, done, failed, or ambiguous: nobody knows whether the peer did, and billed, the work.';
COMMENT ON COLUMN prometheus.call.sent_at IS 'When the intent was recorded, just before it was sent.';
COMMENT ON COLUMN prometheus.call.ended_at IS 'When its end was recorded.';
COMMENT ON COLUMN prometheus.call.http_status IS 'The status of the response; null: none came.';
COMMENT ON COLUMN prometheus.call.request_id IS 'The provider''s id of the request.';
COMMENT ON COLUMN prometheus.call.reserved IS 'What it may cost, which budgets reserve for it; null: its model has no prices.';
COMMENT ON COLUMN prometheus.call.reserved_tokens IS 'The tokens that it may need, which budgets reserve for it: an estimate.';

CREATE VIEW prometheus.step WITH (security_barrier) AS
SELECT s.task_id,
       s.step,
       s.attempt,
       s.kind,
       s.name,
       s.status,
       s.started_at,
       prometheus._milliseconds(s.started_at, s.ended_at) AS duration_ms,
       s.model,
       s.tokens_in,
       s.tokens_out,
       s.cached_tokens,
       s.reasoning_tokens,
       s.cost,
       s.reused,
       s.finish_reason,
       s.error,
       CASE WHEN s.kind = 'tool'
            THEN jsonb_build_object(
                 'arguments', prometheus._json(s.arguments))
            WHEN s.kind = 'review' AND s.arguments IS NOT NULL
            THEN jsonb_build_object('judged', prometheus._json(s.arguments))
            WHEN s.kind = 'recall' AND s.arguments IS NOT NULL
            THEN jsonb_build_object('conversation', t.conversation)
            WHEN s.kind IN ('recall', 'embed')
            THEN jsonb_build_object('query', t.request)
            WHEN s.kind = 'reflect' THEN jsonb_build_object('about', (
                 SELECT max(y.step) FROM prometheus._step y
                  WHERE y.task_id = s.task_id AND y.step < s.step
                    AND y.kind = 'chat' AND y.status = 'ok'))
            ELSE jsonb_build_object('messages', coalesce(
                 (SELECT jsonb_agg(jsonb_build_object(
                             'role', 'tool',
                             'name', x.name,
                             'content', coalesce(x.answer, x.error))
                         ORDER BY x.step)
                    FROM prometheus._step x
                   WHERE x.task_id = s.task_id AND x.step < s.step
                     AND x.kind = 'tool'
                     AND x.step > (SELECT max(y.step) FROM prometheus._step y
                                    WHERE y.task_id = s.task_id
                                      AND y.step < s.step
                                      AND y.kind = 'chat'
                                      AND y.status = 'ok')),
                 (SELECT jsonb_build_array(jsonb_build_object(
                             'role', 'user',
                             'content', prometheus._json(x.answer)
                                        ->> 'critique'))
                    FROM prometheus._step x
                   WHERE x.task_id = s.task_id AND x.step < s.step
                     AND x.kind = 'reflect' AND x.status = 'ok'
                   LIMIT 1),
                 CASE WHEN i.instructions IS NULL THEN '[]'::jsonb
                      ELSE jsonb_build_array(jsonb_build_object(
                           'role', 'system', 'content', i.instructions)) END
                 || jsonb_build_array(jsonb_build_object(
                    'role', 'user', 'content', t.request)))) END AS input,
       CASE WHEN s.calls > 0
            THEN jsonb_build_object(
                 'content', s.answer,
                 'tool_calls', prometheus._calls(s.raw))
            WHEN s.status = 'ok' AND (s.kind = 'embed'
                 OR s.kind IN ('recall', 'plan', 'reflect')
                 AND s.arguments IS NULL)
            THEN prometheus._json(s.answer)
            WHEN s.answer IS NOT NULL
            THEN jsonb_build_object('content', s.answer)
            WHEN s.error IS NOT NULL
            THEN jsonb_strip_nulls(jsonb_build_object(
                 'error', s.error,
                 'error_type', s.error_type,
                 'http_status', s.http_status)) END AS output,
       CASE WHEN t.mode = 'full'
             AND (s.kind = 'tool' OR s.kind = 'chat' AND s.status = 'ok')
            THEN (
            SELECT m.numbers[least(cardinality(m.numbers), 1 + (
                   SELECT count(*)::integer FROM prometheus._step x
                    WHERE x.task_id = s.task_id AND x.kind = 'tool'
                      AND x.name = w.tool AND x.status = 'ok'
                      AND x.step > p.step AND x.step < w.step))]
              FROM (SELECT x.step,
                           prometheus._json(x.answer) -> 'steps' AS steps
                      FROM prometheus._step x
                     WHERE x.task_id = s.task_id AND x.step < s.step
                       AND x.kind = 'plan' AND x.status = 'ok'
                     ORDER BY x.step DESC
                     LIMIT 1) p
             CROSS JOIN LATERAL (
                   SELECT CASE WHEN s.calls > 0 THEN s.step + 1
                               ELSE s.step END AS step,
                          CASE WHEN s.kind = 'tool' THEN s.name
                               WHEN s.calls > 0
                               THEN (SELECT x.name FROM prometheus._step x
                                      WHERE x.task_id = s.task_id
                                        AND x.step = s.step + 1
                                        AND x.kind = 'tool')
                               ELSE '' END AS tool) w
             CROSS JOIN LATERAL (
                   SELECT array_agg(e.ordinality::integer
                                    ORDER BY e.ordinality) AS numbers
                     FROM jsonb_array_elements(p.steps) WITH ORDINALITY e
                    WHERE btrim(e.value ->> 'tool') = w.tool
                      AND (w.tool <> ''
                           OR e.ordinality = jsonb_array_length(p.steps))) m
            ) END AS plan_step
  FROM prometheus._visible_task t
  JOIN prometheus._step s ON s.task_id = t.task_id
  LEFT JOIN prometheus._attempt a
       ON a.task_id = s.task_id AND a.attempt = s.attempt
  LEFT JOIN LATERAL (
       SELECT x.instructions FROM prometheus._agent x
        WHERE x.name = t.agent AND x.version = a.agent_version
        LIMIT 1) i ON true
 WHERE prometheus._seen(s.xid);
COMMENT ON VIEW prometheus.step IS
    'Every step of the tasks that you may see, in order: what went in, what came out, how long, how much.';
COMMENT ON COLUMN prometheus.step.task_id IS 'The task.';
COMMENT ON COLUMN prometheus.step.step IS 'Its number in the task, from 1.';
COMMENT ON COLUMN prometheus.step.attempt IS 'The attempt that made it.';
COMMENT ON COLUMN prometheus.step.kind IS 'review (by policies with conditions, or by a model), embed (of what is to be recalled, by a model), recall (of memories, or of older turns of the conversation, summed up by a model), plan, chat (a turn of the model), tool (a call of a tool) or reflect (a look back at the answer).';
COMMENT ON COLUMN prometheus.step.name IS 'What was called: the model''s name in prometheus.model, or the tool''s; of a review the stage, or the policy that asked a model.';
COMMENT ON COLUMN prometheus.step.status IS 'ok, error, vetoed or unknown.';
COMMENT ON COLUMN prometheus.step.started_at IS 'When it began.';
COMMENT ON COLUMN prometheus.step.duration_ms IS 'How long it took, milliseconds.';
COMMENT ON COLUMN prometheus.step.model IS 'The provider''s name of the model.';
COMMENT ON COLUMN prometheus.step.tokens_in IS 'Tokens of the prompt, the cached ones included; null: not reported.';
COMMENT ON COLUMN prometheus.step.tokens_out IS 'Tokens of the reply, those of reasoning included; null: not reported.';
COMMENT ON COLUMN prometheus.step.cached_tokens IS 'Tokens of the prompt that came from the provider''s cache; null: not reported.';
COMMENT ON COLUMN prometheus.step.reasoning_tokens IS 'Tokens of the reply that the model thought with; null: not reported.';
COMMENT ON COLUMN prometheus.step.cost IS 'Tokens times prices; null: not known.';
COMMENT ON COLUMN prometheus.step.reused IS 'The event_id of the step of an equal request whose reply was used, for nothing; null: it was asked for.';
COMMENT ON COLUMN prometheus.step.finish_reason IS 'The provider''s own word for why the reply ended.';
COMMENT ON COLUMN prometheus.step.error IS 'Why it did not succeed.';
COMMENT ON COLUMN prometheus.step.input IS 'The messages that are new in a turn: instructions and request, or the results of tools, or the critique of an answer that is to be better; of a tool: its arguments; of a review by a model: what it was about, and which model; of a recall: the query, or the conversation that is summed up; of a reflection: the step of the answer that it is about. prometheus_prompt(task_id, step) shows the whole, with history and results.';
COMMENT ON COLUMN prometheus.step.output IS 'What came out: content, tool_calls (in the form of chat completions, whatever the model''s), or error; of recall, plan and reflect what was found or thought.';
COMMENT ON COLUMN prometheus.step.plan_step IS 'The step of the task''s plan (mode full) that it serves, from 1, by the names of tools: the first call of a tool serves the first plan step that names the tool, the next one after a good call the next such, if there is one; a turn serves what its first call does, the answer the last plan step if that names no tool. Null: not known.';

/*
 * The SELECT around the UNION ALL is not idle.  Without it the planner takes
 * the view apart, its barrier with it, and a condition on the output of a step
 * is asked before anybody has asked who may see the step.
 */
CREATE VIEW prometheus.event WITH (security_barrier) AS
SELECT e.*
  FROM (
       SELECT t.event_id,
              'task.received' AS type,
              t.task_id,
              t.agent,
              NULL::text AS subject,
              t.submitted_at AS created_at,
              jsonb_build_object(
                  'agent', t.agent,
                  'request', t.request,
                  'mode', t.mode) AS data,
              t.caused_by
         FROM prometheus._visible_task t
        WHERE prometheus._seen(t.xid)
       UNION ALL
       SELECT s.event_id,
              CASE WHEN s.kind = 'reflect' AND s.status = 'ok'
                   THEN 'reflection' ELSE 'step.executed' END,
              s.task_id, t.agent, NULL, s.ended_at,
              CASE WHEN s.kind = 'reflect' AND s.status = 'ok'
                   THEN (SELECT jsonb_build_object(
                                    'score', r.said -> 'score',
                                    'critique', r.said -> 'critique',
                                    'correction', r.said -> 'correction')
                           FROM prometheus._json(s.answer) AS r(said))
                   ELSE jsonb_build_object(
                       'step', s.step,
                       'kind', s.kind,
                       'name', s.name,
                       'output', left(coalesce(s.answer, s.error), 200),
                       'duration_ms',
                       prometheus._milliseconds(s.started_at, s.ended_at))
                   END,
              t.caused_by
         FROM prometheus._step s
         JOIN prometheus._visible_task t ON t.task_id = s.task_id
        WHERE prometheus._seen(s.xid)
       UNION ALL
       SELECT o.event_id,
              CASE o.outcome
                  WHEN 'completed' THEN 'task.completed'
                  WHEN 'retry' THEN 'task.retried'
                  WHEN 'cancelled' THEN 'task.cancelled'
                  WHEN 'quarantined' THEN 'task.quarantined'
                  ELSE 'task.failed' END,
              o.task_id, t.agent, NULL, o.ended_at,
              CASE o.outcome
                  WHEN 'completed' THEN jsonb_build_object(
                      'result',
                      (SELECT r.answer FROM prometheus._step r
                        WHERE r.task_id = o.task_id AND r.step = o.step),
                      'steps', (SELECT count(*) FROM prometheus._step r
                                 WHERE r.task_id = o.task_id
                                   AND prometheus._seen(r.xid)),
                      'duration_ms',
                      prometheus._milliseconds(t.submitted_at, o.ended_at))
                  WHEN 'retry' THEN jsonb_build_object(
                      'attempt', o.attempt,
                      'error', o.error,
                      'next_run_at', o.next_run_at)
                  WHEN 'cancelled' THEN jsonb_build_object('reason', o.error)
                  ELSE jsonb_build_object(
                      'error', o.error,
                      'error_type', o.error_type,
                      'failed_at_step', o.step) END,
              t.caused_by
         FROM prometheus._outcome o
         JOIN prometheus._visible_task t ON t.task_id = o.task_id
        WHERE o.outcome NOT IN ('lost', 'waiting') AND prometheus._seen(o.xid)
       UNION ALL
       SELECT a.approval_id, 'approval.requested', a.task_id, t.agent, NULL,
              a.requested_at,
              jsonb_build_object(
                  'approval_id', a.approval_id,
                  'tool', a.tool,
                  'arguments', prometheus._json(a.arguments),
                  'approvers', a.approvers,
                  'expires_at', a.expires_at,
                  'reasoning', a.reasoning),
              t.caused_by
         FROM prometheus._approval a
         JOIN prometheus._visible_task t ON t.task_id = a.task_id
        WHERE prometheus._seen(a.xid)
       UNION ALL
       SELECT d.event_id, 'approval.decided', a.task_id, t.agent, NULL,
              d.decided_at,
              jsonb_build_object(
                  'approval_id', a.approval_id,
                  'tool', a.tool,
                  'decision', d.decision,
                  'decided_by', d.decided_by,
                  'note', d.note),
              a.approval_id
         FROM prometheus._decision d
         JOIN prometheus._approval a ON a.approval_id = d.approval_id
        CROSS JOIN LATERAL (
              SELECT t.agent
                FROM prometheus._visible_task t
               WHERE t.task_id = a.task_id
               LIMIT 1) t
        WHERE prometheus._seen(d.xid)
       UNION ALL
       SELECT f.event_id, 'state.failed', f.task_id, t.agent, NULL,
              f.failed_at,
              jsonb_build_object('key', f.key, 'error', f.error),
              t.caused_by
         FROM prometheus._state_failure f
         JOIN prometheus._visible_task t ON t.task_id = f.task_id
        WHERE prometheus._seen(f.xid)
       UNION ALL
       SELECT x.event_id, x.type, x.task_id, x.agent, x.subject, x.emitted_at,
              x.data, x.caused_by
         FROM prometheus._event x
         LEFT JOIN LATERAL (
              SELECT t.task_id
                FROM prometheus._visible_task t
               WHERE t.task_id = x.task_id
               LIMIT 1) t ON true
        WHERE prometheus._seen(x.xid)
          AND (t.task_id IS NOT NULL
               OR prometheus._may_see(x.emitter, x.emitter_oid))) e;
COMMENT ON VIEW prometheus.event IS
    'What happened to the tasks that you may see, read from their facts, and what was emitted by roles that you have or by tools of these tasks. In no order: sort by created_at, event_id.';
COMMENT ON COLUMN prometheus.event.event_id IS 'Its id; ids are not in the order of commits.';
COMMENT ON COLUMN prometheus.event.type IS
    'task.received, step.executed, reflection, task.completed, task.failed, task.cancelled, task.retried, task.quarantined, approval.requested, approval.decided, state.failed, memory.evicted, evolution, tool.retired, or what prometheus_emit() was given.';
COMMENT ON COLUMN prometheus.event.task_id IS 'The task; of an emitted event the one whose tool emitted it; null: none.';
COMMENT ON COLUMN prometheus.event.agent IS 'The task''s agent, or the one whose memory it was.';
COMMENT ON COLUMN prometheus.event.subject IS 'What an emitted event is about; null for events of tasks.';
COMMENT ON COLUMN prometheus.event.created_at IS 'When it happened.';
COMMENT ON COLUMN prometheus.event.data IS 'Its fields; README lists them for each type. Of an emitted event what it was given.';
COMMENT ON COLUMN prometheus.event.caused_by IS 'The event that caused it, if that is known; of a task''s events, the one that it was submitted because of.';

CREATE VIEW prometheus.agent WITH (security_barrier) AS
SELECT f.name, a.model, a.mode, coalesce(a.tools, '{}') AS tools, a.run_as,
       a.owner, a.version, a.set_at,
       a.instructions, a.options
  FROM prometheus._agent f
 CROSS JOIN LATERAL (
       SELECT x.*
         FROM prometheus._agent x
        WHERE x.name = f.name AND x.mark <= prometheus._last_mark()
          AND prometheus._seen(x.xid)
        ORDER BY x.mark DESC, x.version DESC LIMIT 1) a
 WHERE f.version = 1;
COMMENT ON VIEW prometheus.agent IS 'The newest version of each agent.';
COMMENT ON COLUMN prometheus.agent.name IS 'What prometheus_submit() is given.';
COMMENT ON COLUMN prometheus.agent.model IS 'The name of its model in prometheus.model.';
COMMENT ON COLUMN prometheus.agent.mode IS 'The mode of its tasks unless a submit says otherwise.';
COMMENT ON COLUMN prometheus.agent.tools IS 'The names of the tools in prometheus.tool that its model may call.';
COMMENT ON COLUMN prometheus.agent.run_as IS 'The role that its tools run as; null: who submitted the task.';
COMMENT ON COLUMN prometheus.agent.owner IS 'The role that made it.';
COMMENT ON COLUMN prometheus.agent.version IS 'From 1, one more with each prometheus_set_agent().';
COMMENT ON COLUMN prometheus.agent.set_at IS 'When this version was set.';
COMMENT ON COLUMN prometheus.agent.instructions IS 'The system message of its prompts.';
COMMENT ON COLUMN prometheus.agent.options IS 'As given to prometheus_set_agent().';

CREATE VIEW prometheus.model WITH (security_barrier) AS
SELECT f.name, m.api, m.endpoint, m.model, m.secret, m.handler, m.owner,
       m.version,
       m.set_at, m.options
  FROM prometheus._model f
 CROSS JOIN LATERAL (
       SELECT x.*
         FROM prometheus._model x
        WHERE x.name = f.name AND x.mark <= prometheus._last_mark()
          AND prometheus._seen(x.xid)
        ORDER BY x.mark DESC, x.version DESC LIMIT 1) m
 WHERE f.version = 1;
COMMENT ON VIEW prometheus.model IS 'The newest version of each model.';
COMMENT ON COLUMN prometheus.model.name IS 'What prometheus_set_agent() is given.';
COMMENT ON COLUMN prometheus.model.api IS 'The format of requests: openai, openai-responses, anthropic, gemini, function or echo.';
COMMENT ON COLUMN prometheus.model.endpoint IS 'The base address of the API.';
COMMENT ON COLUMN prometheus.model.model IS 'The provider''s name of it; null: the same name.';
COMMENT ON COLUMN prometheus.model.secret IS 'Where its key is: NAME or env:NAME; never a key.';
COMMENT ON COLUMN prometheus.model.handler IS 'Of api function: the function that is asked.';
COMMENT ON COLUMN prometheus.model.owner IS 'The role that made it.';
COMMENT ON COLUMN prometheus.model.version IS 'From 1, one more with each prometheus_set_model().';
COMMENT ON COLUMN prometheus.model.set_at IS 'When this version was set.';
COMMENT ON COLUMN prometheus.model.options IS 'As given to prometheus_set_model().';

CREATE VIEW prometheus.tool WITH (security_barrier) AS
SELECT f.name, t.kind, t.function, t.tier, t.idempotent, t.owner, t.version,
       t.set_at, t.description, t.schema, t.method, t.url, t.secret,
       t.task_id, u.calls, u.succeeded, r.retired
  FROM prometheus._tool f
 CROSS JOIN LATERAL (
       SELECT x.*
         FROM prometheus._tool x
        WHERE x.name = f.name AND x.mark <= prometheus._last_mark()
          AND prometheus._seen(x.xid)
        ORDER BY x.mark DESC, x.version DESC LIMIT 1) t
  LEFT JOIN LATERAL (
       SELECT count(*) AS calls,
              count(*) FILTER (WHERE s.status = 'ok') AS succeeded
         FROM prometheus._step s
        WHERE s.name = t.name AND s.tool_version = t.version
          AND prometheus._seen(s.xid)) u ON t.task_id IS NOT NULL
  LEFT JOIN LATERAL (
       SELECT count(*) >= 10
              AND 2 * count(*) FILTER (WHERE n.status = 'ok') < count(*)
              AS retired
         FROM (SELECT s.status
                 FROM prometheus._step s
                WHERE s.name = t.name AND s.tool_version = t.version
                  AND prometheus._seen(s.xid)
                ORDER BY s.event_id DESC LIMIT 20) n) r
       ON t.task_id IS NOT NULL
 WHERE f.version = 1;
COMMENT ON VIEW prometheus.tool IS 'The newest version of each tool.';
COMMENT ON COLUMN prometheus.tool.name IS 'What models call it, and prometheus_set_agent() is given.';
COMMENT ON COLUMN prometheus.tool.kind IS 'function, http or builtin.';
COMMENT ON COLUMN prometheus.tool.function IS 'The function that is called, by its signature; null: none.';
COMMENT ON COLUMN prometheus.tool.tier IS 'read (runs in a read-only transaction), write, or destructive.';
COMMENT ON COLUMN prometheus.tool.idempotent IS 'May be called twice with the effect of once.';
COMMENT ON COLUMN prometheus.tool.owner IS 'The role that made it.';
COMMENT ON COLUMN prometheus.tool.version IS 'From 1, one more with each prometheus_set_tool().';
COMMENT ON COLUMN prometheus.tool.set_at IS 'When this version was set.';
COMMENT ON COLUMN prometheus.tool.description IS 'What models are told of it.';
COMMENT ON COLUMN prometheus.tool.schema IS 'The JSON Schema that the arguments must fit.';
COMMENT ON COLUMN prometheus.tool.method IS 'Of http: the method of its requests.';
COMMENT ON COLUMN prometheus.tool.url IS 'Of http: where they go, with a {name} for arguments.';
COMMENT ON COLUMN prometheus.tool.secret IS 'Of http: where its key is: NAME or env:NAME; never a key.';
COMMENT ON COLUMN prometheus.tool.task_id IS 'The task that made it (prometheus_create_tool()); null: none did, and then the next three are null.';
COMMENT ON COLUMN prometheus.tool.calls IS 'Calls of this version whose arguments fitted, as long as their tasks are kept.';
COMMENT ON COLUMN prometheus.tool.succeeded IS 'Those of them that ended without an error.';
COMMENT ON COLUMN prometheus.tool.retired IS 'It is not called any more: of the last 20 of its calls, or at least 10, less than half succeeded. prometheus_restore_tool() gives it another chance.';

CREATE VIEW prometheus.policy WITH (security_barrier) AS
SELECT f.name, p.stage, p.effect, p.match, p.condition, p.reviewer,
       p.approvers, p.on_error, p.owner, p.version, p.set_at, p.reason,
       p.suggestion
  FROM prometheus._policy f
 CROSS JOIN LATERAL (
       SELECT x.*
         FROM prometheus._policy x
        WHERE x.name = f.name AND x.mark <= prometheus._last_mark()
          AND prometheus._seen(x.xid)
        ORDER BY x.mark DESC, x.version DESC LIMIT 1) p
 WHERE f.version = 1;
COMMENT ON VIEW prometheus.policy IS
    'The newest version of each policy: what counts now. Those named justica.* are the constitution.';
COMMENT ON COLUMN prometheus.policy.name IS 'Its name.';
COMMENT ON COLUMN prometheus.policy.stage IS 'What it judges: task (the request), tool (a tool call) or answer.';
COMMENT ON COLUMN prometheus.policy.effect IS 'deny, escalate (a person must approve), warn, allow, or off.';
COMMENT ON COLUMN prometheus.policy.match IS 'What must fit for it to apply.';
COMMENT ON COLUMN prometheus.policy.condition IS 'The function that must be true as well.';
COMMENT ON COLUMN prometheus.policy.reviewer IS 'Who judges: rule.';
COMMENT ON COLUMN prometheus.policy.approvers IS 'The role whose members may approve what it escalates; null: prometheus_agent_admin.';
COMMENT ON COLUMN prometheus.policy.on_error IS 'Its effect if the condition fails: deny, warn or allow.';
COMMENT ON COLUMN prometheus.policy.owner IS 'The role that made it, as which the condition runs.';
COMMENT ON COLUMN prometheus.policy.version IS 'From 1, one more with each prometheus_set_policy().';
COMMENT ON COLUMN prometheus.policy.set_at IS 'When this version was set.';
COMMENT ON COLUMN prometheus.policy.reason IS 'Why, as model and user are told.';
COMMENT ON COLUMN prometheus.policy.suggestion IS 'What would help, as they are told.';

CREATE VIEW prometheus.budget WITH (security_barrier) AS
SELECT b.scope,
       b.period,
       b.tokens,
       b.cost,
       least(u.spent_tokens, 9223372036854775807)::bigint AS spent_tokens,
       u.spent_cost,
       least(u.reserved_tokens, 9223372036854775807)::bigint
           AS reserved_tokens,
       u.reserved_cost,
       p.starts_at AS period_start,
       p.refills_at,
       b.set_by,
       b.set_at,
       b.version
  FROM prometheus._budget f
 CROSS JOIN LATERAL (
       SELECT x.*
         FROM prometheus._budget x
        WHERE x.name = f.name AND x.mark <= prometheus._last_mark()
          AND prometheus._seen(x.xid)
        ORDER BY x.mark DESC, x.version DESC LIMIT 1) b
 CROSS JOIN LATERAL (
       SELECT coalesce(prometheus._moment(), statement_timestamp()) AS now) w
 CROSS JOIN LATERAL (
       SELECT date_trunc(b.period, w.now, 'UTC') AS starts_at,
              (date_trunc(b.period, w.now AT TIME ZONE 'UTC')
               + ('1 ' || b.period)::interval) AT TIME ZONE 'UTC'
                  AS refills_at) p
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(c.tokens) FILTER (WHERE NOT c.is_open), 0)
                  AS spent_tokens,
              coalesce(sum(c.cost) FILTER (WHERE NOT c.is_open), 0)
                  AS spent_cost,
              coalesce(sum(c.tokens) FILTER (WHERE c.is_open), 0)
                  AS reserved_tokens,
              coalesce(sum(c.cost) FILTER (WHERE c.is_open), 0)
                  AS reserved_cost
         FROM prometheus._charge c
        WHERE c.charged_at >= p.starts_at AND c.charged_at < p.refills_at
          AND CASE split_part(b.scope, ':', 1)
              WHEN 'agent' THEN c.agent = substr(b.scope, 7)
              WHEN 'model' THEN c.model = substr(b.scope, 7)
              WHEN 'role' THEN c.submitter = substr(b.scope, 6)
                               AND c.submitter_oid = b.role_oid
              ELSE true END) u
 WHERE f.version = 1
   AND (b.tokens IS NOT NULL OR b.cost IS NOT NULL)
   AND prometheus._may_see(substr(b.scope, 6), coalesce(b.role_oid, '0'));
COMMENT ON VIEW prometheus.budget IS
    'The budgets that are set, and how much of each is used in the current period: hours, days and months of UTC. All of them for administrators, those of their roles for others. Computed from the facts, so it is right when nothing runs; turns of models of api function that are under way are not in it.';
COMMENT ON COLUMN prometheus.budget.scope IS 'Which calls fall under it: all, agent:NAME, role:NAME (of the tasks that this role submitted) or model:NAME.';
COMMENT ON COLUMN prometheus.budget.period IS 'hour, day or month.';
COMMENT ON COLUMN prometheus.budget.tokens IS 'The limit, tokens in and out; null: none.';
COMMENT ON COLUMN prometheus.budget.cost IS 'The limit, in the unit of the models'' prices; null: none.';
COMMENT ON COLUMN prometheus.budget.spent_tokens IS 'Tokens of the calls that have ended; of those of which nobody knows (ambiguous), what was reserved.';
COMMENT ON COLUMN prometheus.budget.spent_cost IS 'What they cost; calls of a model without prices cost nothing.';
COMMENT ON COLUMN prometheus.budget.reserved_tokens IS 'Tokens that the calls under way may need.';
COMMENT ON COLUMN prometheus.budget.reserved_cost IS 'What they may cost.';
COMMENT ON COLUMN prometheus.budget.period_start IS 'When the current period began: calls recorded since then count.';
COMMENT ON COLUMN prometheus.budget.refills_at IS 'When the next one begins.';
COMMENT ON COLUMN prometheus.budget.set_by IS 'The role that set this version.';
COMMENT ON COLUMN prometheus.budget.set_at IS 'When.';
COMMENT ON COLUMN prometheus.budget.version IS 'From 1, one more with each prometheus_set_budget().';

-- The SELECT around the UNION ALL is not idle: see prometheus.event.
CREATE VIEW prometheus.verdict WITH (security_barrier) AS
SELECT v.*
  FROM (
       SELECT x.task_id,
              x.step,
              x.stage,
              x.approved,
              x.risk_level,
              x.governor,
              x.reasoning,
              x.suggestion AS suggestions,
              x.policy,
              x.effect,
              x.policy_version,
              x.target_hash,
              x.latency_ms,
              x.attempt,
              x.judged_at,
              x.scores
         FROM prometheus._verdict x
         JOIN prometheus._visible_task t ON t.task_id = x.task_id
        WHERE prometheus._seen(x.xid)
       UNION ALL
       SELECT a.task_id, NULL, 'task', true, 'LOW', 'JUSTICA', NULL, NULL, NULL,
              'allow', a.policy_version,
              prometheus._hash('task', t.agent, t.request), a.review_ms,
              a.attempt, a.started_at, NULL
         FROM prometheus._attempt a
         JOIN prometheus._visible_task t ON t.task_id = a.task_id
        WHERE a.policy_version IS NOT NULL
          AND prometheus._seen(a.xid)
          AND NOT EXISTS (SELECT FROM prometheus._verdict x
                           WHERE x.task_id = a.task_id
                             AND x.attempt = a.attempt
                             AND prometheus._seen(x.xid)
                             AND x.stage = 'task'
                             AND x.governor IN ('JUSTICA', 'policy'))
       UNION ALL -- of tasks that were deleted
       SELECT x.task_id, x.step, x.stage, x.approved, x.risk_level, x.governor,
              x.reasoning, x.suggestion, x.policy, x.effect, x.policy_version,
              x.target_hash, x.latency_ms, x.attempt, x.judged_at, x.scores
         FROM prometheus._audit_verdict x
        WHERE prometheus._seen(x.xid)
          AND (prometheus._may_see(x.submitter, x.submitter_oid)
           OR x.agent = ANY (ARRAY(
              SELECT n.name FROM prometheus._agent n
               WHERE prometheus._may_see(n.owner, n.owner_oid))))) v;
COMMENT ON VIEW prometheus.verdict IS
    'What the policies said of every request, tool call and answer of the tasks that you may see; also of those that were deleted since, for prometheus.retention_audit.';
COMMENT ON COLUMN prometheus.verdict.task_id IS 'The task.';
COMMENT ON COLUMN prometheus.verdict.step IS 'The step that it is about; null: the request.';
COMMENT ON COLUMN prometheus.verdict.stage IS 'What was judged: task, tool or answer.';
COMMENT ON COLUMN prometheus.verdict.approved IS 'It was allowed; else denied, or a person was asked (effect escalate).';
COMMENT ON COLUMN prometheus.verdict.risk_level IS 'LOW, MEDIUM, HIGH or CRITICAL: by the effect; of a model by its confidence, from 0.7, 0.4, 0.2 and 0 on.';
COMMENT ON COLUMN prometheus.verdict.governor IS 'JUSTICA (the constitution, or nothing applied), policy, or of a model SOFIA (policies named sofia...) or model:NAME.';
COMMENT ON COLUMN prometheus.verdict.reasoning IS 'Why.';
COMMENT ON COLUMN prometheus.verdict.suggestions IS 'What would help.';
COMMENT ON COLUMN prometheus.verdict.policy IS 'The policy that decided; null: none applied.';
COMMENT ON COLUMN prometheus.verdict.effect IS 'What it said: allow, warn, escalate or deny.';
COMMENT ON COLUMN prometheus.verdict.policy_version IS 'How many versions of policies had been set: which of them were asked.';
COMMENT ON COLUMN prometheus.verdict.target_hash IS 'SHA-256 of exactly what was judged; of a request see prometheus._hash().';
COMMENT ON COLUMN prometheus.verdict.latency_ms IS 'How long that took, milliseconds.';
COMMENT ON COLUMN prometheus.verdict.attempt IS 'The attempt for which it was judged.';
COMMENT ON COLUMN prometheus.verdict.judged_at IS 'When.';
COMMENT ON COLUMN prometheus.verdict.scores IS 'What a model scored, from 0 to 1: confidence, and humility, patience, service, gentleness, prudence, courage, truthfulness; null: no model was asked, or it failed.';

-- The SELECT around the UNION ALL is not idle: see prometheus.event.
CREATE VIEW prometheus.approval WITH (security_barrier) AS
SELECT v.*
  FROM (
       SELECT a.approval_id,
              a.task_id,
              a.tool,
              prometheus._json(a.arguments) AS arguments,
              a.requested_at,
              a.expires_at,
              coalesce(d.decision,
                       CASE WHEN a.expires_at <=
                                 coalesce(prometheus._moment(), now())
                            THEN 'expired'
                            WHEN EXISTS (
                                 SELECT FROM prometheus._outcome x
                                  WHERE x.task_id = a.task_id
                                    AND x.outcome NOT IN (
                                        'retry', 'waiting', 'lost')
                                    AND prometheus._seen(x.xid)
                                    AND NOT EXISTS (
                                        SELECT FROM prometheus._retry y
                                         WHERE y.task_id = x.task_id
                                           AND y.attempt >= x.attempt
                                           AND prometheus._seen(y.xid)))
                            THEN 'ended' END) AS decision,
              d.decided_by,
              d.note,
              d.decided_at,
              a.step,
              a.policy,
              a.approvers,
              a.reasoning,
              a.target_hash
         FROM prometheus._approval a
         LEFT JOIN prometheus._decision d
              ON d.approval_id = a.approval_id AND prometheus._seen(d.xid)
        WHERE prometheus._seen(a.xid)
          AND (prometheus._may_approve(a.approvers,
                                       coalesce(a.approvers_oid, '0'))
               OR EXISTS (SELECT FROM prometheus._visible_task t
                           WHERE t.task_id = a.task_id))
       UNION ALL -- of tasks that were deleted
       SELECT x.approval_id, x.task_id, x.tool, prometheus._json(x.arguments),
              x.requested_at, x.expires_at,
              coalesce(x.decision, CASE WHEN x.expires_at <= coalesce(
                            prometheus._moment(), now()) THEN 'expired'
                            ELSE 'ended' END),
              x.decided_by, x.note, x.decided_at, x.step, x.policy, x.approvers,
              x.reasoning, x.target_hash
         FROM prometheus._audit_approval x
        WHERE prometheus._seen(x.xid)
          AND (prometheus._may_approve(x.approvers,
                                       coalesce(x.approvers_oid, '0'))
           OR prometheus._may_see(x.submitter, x.submitter_oid)
           OR x.agent = ANY (ARRAY(
              SELECT n.name FROM prometheus._agent n
               WHERE prometheus._may_see(n.owner, n.owner_oid))))) v;
COMMENT ON VIEW prometheus.approval IS
    'Tool calls that wait, or waited, for a person: of the tasks that you may see, and those that you may decide about with prometheus_approve() and prometheus_reject(); also of tasks that were deleted since, for prometheus.retention_audit.';
COMMENT ON COLUMN prometheus.approval.approval_id IS 'Its id.';
COMMENT ON COLUMN prometheus.approval.task_id IS 'The task.';
COMMENT ON COLUMN prometheus.approval.tool IS 'The tool that is to be called.';
COMMENT ON COLUMN prometheus.approval.arguments IS 'With exactly these arguments.';
COMMENT ON COLUMN prometheus.approval.requested_at IS 'When the model asked for it.';
COMMENT ON COLUMN prometheus.approval.expires_at IS 'Until when it can be decided, at most its task''s deadline; then it counts as rejected.';
COMMENT ON COLUMN prometheus.approval.decision IS 'approved, rejected, expired, or ended: its task has; null: it is open.';
COMMENT ON COLUMN prometheus.approval.decided_by IS 'Who decided.';
COMMENT ON COLUMN prometheus.approval.note IS 'What he said; the model is told.';
COMMENT ON COLUMN prometheus.approval.decided_at IS 'When.';
COMMENT ON COLUMN prometheus.approval.step IS 'The step that the call is.';
COMMENT ON COLUMN prometheus.approval.policy IS 'The policy that escalated it.';
COMMENT ON COLUMN prometheus.approval.approvers IS 'The role whose members may decide, if it is the one that it was.';
COMMENT ON COLUMN prometheus.approval.reasoning IS 'Why a person is asked.';
COMMENT ON COLUMN prometheus.approval.target_hash IS 'SHA-256 of what is approved: tool, its definition, arguments.';

CREATE VIEW prometheus.gate WITH (security_barrier) AS
SELECT coalesce(g.target, p.target) AS target,
       CASE WHEN p.target IS NOT NULL THEN 'paused' ELSE g.state END AS state,
       CASE WHEN p.target IS NOT NULL
            THEN coalesce(p.reason, 'paused by ' || p.paused_by)
            ELSE g.reason END AS reason,
       CASE WHEN p.target IS NOT NULL THEN p.paused_at ELSE g.since END
           AS since,
       CASE WHEN p.target IS NULL THEN g.until END AS until,
       g.in_flight,
       g.waiting,
       g.width,
       g.failures
  FROM prometheus._gates() g
  FULL JOIN (
       SELECT x.target, x.paused_at, x.paused_by, x.reason
         FROM prometheus._gate x
        WHERE x.target NOT LIKE 'subscription:%'
           OR EXISTS (
              SELECT FROM prometheus._subscription s
               WHERE x.target = 'subscription:' || s.name
                 AND prometheus._may_see(s.owner, s.owner_oid))
       ) p ON p.target = g.target;
COMMENT ON VIEW prometheus.gate IS
    'What may close the way to tasks and deliveries: a pause of all, of an agent, of a model or of a subscription; a rate limit, failures or want of money of a model, failures of a subscription. Those of subscriptions only for who may see these. What is now: not a fact.';
COMMENT ON COLUMN prometheus.gate.target IS 'all, agent:NAME, model:NAME or subscription:NAME.';
COMMENT ON COLUMN prometheus.gate.state IS
    'open; paused (by a person); closed (until a moment); opening (it was closed, and widens with each good call); held (it would let more through than its rate).';
COMMENT ON COLUMN prometheus.gate.reason IS 'Why it is not open.';
COMMENT ON COLUMN prometheus.gate.since IS 'When it was paused, or closed last.';
COMMENT ON COLUMN prometheus.gate.until IS 'When one call may try it again, or its rate has room again; null: it is open, or paused.';
COMMENT ON COLUMN prometheus.gate.in_flight IS 'Requests on the network; null: no worker serves this database.';
COMMENT ON COLUMN prometheus.gate.waiting IS 'Tasks that are ready and whose agent or first model it is; all: every ready task.';
COMMENT ON COLUMN prometheus.gate.width IS 'Requests that it lets through at once when it is open: max_concurrent, or fewer while it is opening; null: no limit.';
COMMENT ON COLUMN prometheus.gate.failures IS 'Calls that failed in a row; breaker_failures of them close it.';

CREATE VIEW prometheus.worker WITH (security_barrier) AS
SELECT w.role, w.pid, w.state, w.started_at, w.in_flight, w.task_id
  FROM prometheus._worker() w;
COMMENT ON VIEW prometheus.worker IS
    'The processes of prometheus for this database. What is now: not a fact.';
COMMENT ON COLUMN prometheus.worker.role IS 'launcher, scheduler, caller, publisher or executor.';
COMMENT ON COLUMN prometheus.worker.pid IS 'Its process id, as in pg_stat_activity.';
COMMENT ON COLUMN prometheus.worker.state IS 'busy or idle.';
COMMENT ON COLUMN prometheus.worker.started_at IS 'When it started.';
COMMENT ON COLUMN prometheus.worker.in_flight IS
    'scheduler: tasks that have a place; caller: requests on the network; executor: 1 at work.';
COMMENT ON COLUMN prometheus.worker.task_id IS 'executor: the task that it works for.';
