-- What prometheus.step says of the checkpoints of a task.
BEGIN;
SELECT plan(36);

CREATE TEMP TABLE made AS
    SELECT nextval('prometheus._task_id') AS task_id;

-- Instructions are those of the version that the attempt pinned.
SELECT prometheus_set_agent('writer', 'echo');
SELECT prometheus_set_agent('writer', instructions => E'Be brief.\n"Always".');
SELECT prometheus_set_agent('writer', instructions => 'Be long.');

INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01 00:00+00', '2026-01-02 00:00+00',
       0, 3, current_user::regrole, current_user, 'writer', 'fast', gen_random_uuid(), E'Say "hi"\n', '{}'
  FROM made;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT task_id, n, prometheus._xid(), '2026-01-01 00:00+00', CASE n WHEN 4 THEN NULL ELSE n END, 'echo', 1
  FROM made, generate_series(1, 4) AS n;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, tokens_in,
                              tokens_out, cached_tokens, reasoning_tokens, http_status, ambiguous, connect_ms, first_byte_ms,
                              kind, name, status, model, cost, finish_reason, request_id, error_type, error, answer, raw)
SELECT task_id, step, attempt, nextval('prometheus._fact_id'), NULL, prometheus._xid(), '2026-01-01 00:00:00+00',
       timestamptz '2026-01-01 00:00:00+00' + took::interval, tokens_in, tokens_out, cached,
       reasoning, http_status, false, 1, 2,
       'chat', 'echo', status, model, cost, finish_reason, 'req', error_type, error, answer, 'raw'
  FROM made, (VALUES
    (1, 1, '1.5 s', 10::bigint, 20::bigint, 5::bigint, 8::bigint, 200, 'ok', 'gpt', 0.5, 'stop', NULL, NULL, E'hi "you"\n'),
    (2, 2, '0', NULL, NULL, NULL, NULL, 429, 'error', NULL, NULL, NULL, 'ModelUnavailable', 'too many requests', NULL),
    (3, 3, '0.25 ms', NULL, NULL, NULL, NULL, NULL, 'error', NULL, NULL, NULL, 'ModelTimeout', 'no reply', NULL),
    (4, 4, '1 h', NULL, NULL, NULL, NULL, NULL, 'ok', NULL, NULL, 'length', NULL, NULL, ''),
    (5, 4, '0', NULL, NULL, NULL, NULL, 200, 'vetoed', NULL, NULL, NULL, NULL, 'not here', NULL),
    (6, 4, '0', NULL, NULL, NULL, NULL, NULL, 'unknown', NULL, NULL, NULL, NULL, NULL, NULL),
    (7, 9, '0', NULL, NULL, NULL, NULL, 200, 'error', NULL, NULL, NULL, 'ModelFiltered', 'filtered', 'half of an ans'))
    AS v(step, attempt, took, tokens_in, tokens_out, cached, reasoning, http_status, status, model, cost, finish_reason,
         error_type, error, answer);

CREATE TEMP VIEW s AS SELECT s.* FROM prometheus.step s JOIN made USING (task_id);

SELECT columns_are('prometheus', 'step', ARRAY[
    'task_id', 'step', 'attempt', 'kind', 'name', 'status', 'started_at', 'duration_ms', 'model', 'tokens_in',
    'tokens_out', 'cached_tokens', 'reasoning_tokens', 'cost', 'reused', 'finish_reason', 'error', 'input', 'output',
    'plan_step']);

SELECT is(concat_ws(' ', attempt, kind, name, status, model, tokens_in, tokens_out, cached_tokens,
                    reasoning_tokens, cost, finish_reason), '1 chat echo ok gpt 10 20 5 8 0.5 stop', 'a step that says everything')
  FROM s WHERE step = 1;
SELECT is(error, NULL, 'ok: no error') FROM s WHERE step = 1;
SELECT is(started_at, '2026-01-01 00:00+00', 'started_at') FROM s WHERE step = 1;
SELECT ok(num_nulls(model, tokens_in, tokens_out, cached_tokens, reasoning_tokens, cost, finish_reason) = 7, 'what was not reported is null')
  FROM s WHERE step = 2;
SELECT is(array_agg(status ORDER BY step), ARRAY['ok', 'error', 'error', 'ok', 'vetoed', 'unknown', 'error'], 'statuses')
  FROM s;
SELECT is(error, 'too many requests', 'error') FROM s WHERE step = 2;

SELECT is(duration_ms, ms, 'duration_ms ' || ms)
  FROM s JOIN (VALUES (1, 1500::float8), (2, 0), (3, 0.25), (4, 3600000)) AS v(step, ms) USING (step);

SELECT is(input, expected::jsonb, what)
  FROM s JOIN (VALUES
    (1, '{"messages": [{"role": "user", "content": "Say \"hi\"\n"}]}', 'input without instructions'),
    (2, '{"messages": [{"role": "system", "content": "Be brief.\n\"Always\"."}, {"role": "user", "content": "Say \"hi\"\n"}]}',
     'input with instructions'),
    (3, '{"messages": [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Say \"hi\"\n"}]}',
     'input of a newer version'),
    (4, '{"messages": [{"role": "user", "content": "Say \"hi\"\n"}]}', 'input when no version was pinned'),
    (7, '{"messages": [{"role": "user", "content": "Say \"hi\"\n"}]}', 'input when the attempt is not there'))
    AS v(step, expected, what) USING (step);

SELECT is(output, expected::jsonb, what)
  FROM s JOIN (VALUES
    (1, '{"content": "hi \"you\"\n"}', 'output'),
    (2, '{"error": "too many requests", "error_type": "ModelUnavailable", "http_status": 429}', 'output of a failure'),
    (3, '{"error": "no reply", "error_type": "ModelTimeout"}', 'output of a failure without a response'),
    (4, '{"content": ""}', 'an empty answer'),
    (5, '{"error": "not here", "http_status": 200}', 'output of a veto'),
    (6, NULL, 'no output'))
    AS v(step, expected, what) USING (step);

-- A later version of the agent changes nothing about the past.
SELECT prometheus_set_agent('writer', instructions => 'Be silent.');
SELECT is(input #>> '{messages,0,content}', 'Be long.', 'input stays as it was sent') FROM s WHERE step = 3;

SELECT is((SELECT count(*) FROM s), 7::bigint, 'each step is one row');
SELECT throws_ok('DELETE FROM prometheus.step', '55000', NULL, 'a view to read');

SELECT is(output, '{"content": "half of an ans"}', 'what there was of an answer that failed')
  FROM s WHERE step = 7;

-- Turns and the tool calls that they ask for.

CREATE TEMP TABLE tooled AS
    SELECT nextval('prometheus._task_id') AS task_id;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), now(), now() + interval '1 day',
       0, 3, current_user::regrole, current_user, 'writer', 'fast', gen_random_uuid(), 'Do it.', '{}'
  FROM tooled;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT task_id, n, prometheus._xid(), now(), 2, 'echo', 1 FROM tooled, generate_series(1, 2) AS n;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status,
                              calls, arguments, answer, error_type, error, raw)
SELECT task_id, step, attempt, nextval('prometheus._fact_id'), prometheus._xid(), now(), now(), false, kind, name, status,
       calls, arguments, answer, error_type, error, raw
  FROM tooled, (VALUES
    (1, 1, 'chat', 'gpt', 'ok', 2, NULL, 'Let me see.', NULL, NULL,
     '{"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "add", "arguments": "{\"a\": 1}"}}, {"id": "y"}]}'),
    (2, 1, 'tool', 'add', 'ok', NULL, '{"a": 1}', 'one', NULL, NULL, NULL),
    (3, 1, 'tool', 'drop_it', 'error', NULL, 'not json', NULL, 'ToolError', 'arguments is not JSON', NULL),
    (4, 1, 'chat', 'gpt', 'error', NULL, NULL, NULL, 'ModelTimeout', 'no reply', NULL),
    (5, 2, 'chat', 'gpt', 'ok', 1, NULL, NULL, NULL, NULL, 'no json'),
    (6, 2, 'tool', 'add', 'ok', NULL, '{}', '', NULL, NULL, NULL),
    (7, 2, 'chat', 'gpt', 'ok', 0, NULL, 'Done.', NULL, NULL, '{"tool_calls": []}'))
    AS v(step, attempt, kind, name, status, calls, arguments, answer, error_type, error, raw);
CREATE TEMP VIEW c AS SELECT s.* FROM prometheus.step s JOIN tooled USING (task_id);

SELECT is(input, expected::jsonb, what)
  FROM c JOIN (VALUES
    (1, '{"messages": [{"role": "system", "content": "Be brief.\n\"Always\"."}, {"role": "user", "content": "Do it."}]}',
     'input of the first turn'),
    (2, '{"arguments": {"a": 1}}', 'input of a tool'),
    (3, '{"arguments": "not json"}', 'input of a tool, whatever the model wrote'),
    (4, '{"messages": [{"role": "tool", "name": "add", "content": "one"},
                       {"role": "tool", "name": "drop_it", "content": "arguments is not JSON"}]}',
     'input of the next turn: results in order'),
    (5, '{"messages": [{"role": "tool", "name": "add", "content": "one"},
                       {"role": "tool", "name": "drop_it", "content": "arguments is not JSON"}]}',
     'the same when it is tried again'),
    (7, '{"messages": [{"role": "tool", "name": "add", "content": ""}]}', 'input of the last turn: only what is new'))
    AS v(step, expected, what) USING (step);
SELECT is(output, expected::jsonb, what)
  FROM c JOIN (VALUES
    (1, '{"content": "Let me see.",
          "tool_calls": [{"id": "x", "function": {"name": "add", "arguments": "{\"a\": 1}"}}, {"id": "y"}]}',
     'output of a turn that asks for tools'),
    (3, '{"error": "arguments is not JSON", "error_type": "ToolError"}', 'output of a tool that failed'),
    (5, '{"content": null, "tool_calls": null}', 'output of a turn whose message cannot be read'),
    (7, '{"content": "Done."}', 'output of a turn that asks for none'))
    AS v(step, expected, what) USING (step);

SELECT * FROM finish();
ROLLBACK;
