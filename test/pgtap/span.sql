-- What prometheus.span and prometheus.usage make of the facts, and how
-- prometheus_trace() draws them.  Ids and times are fixed, so that whole texts
-- can be compared; what is still open began so many hours ago.
BEGIN;
SELECT plan(159);

SET LOCAL TimeZone = 'UTC';
CREATE TEMP TABLE base (task_id bigint PRIMARY KEY, at timestamptz NOT NULL);

CREATE FUNCTION pg_temp.submitted(id bigint, agent text, traceparent text DEFAULT NULL,
                                  at timestamptz DEFAULT '2026-01-01 00:00+00') RETURNS void LANGUAGE sql AS $$
    INSERT INTO base VALUES ($1, $4);
    INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid,
                                  submitter, agent, mode, trace_id, traceparent, request, metadata)
    VALUES ($1, $1 * 1000, prometheus._xid(), $4, $4 + interval '1 day', 0, 3, current_user::regrole, current_user, $2,
            'fast', coalesce(substr($3, 4, 32), lpad(to_hex($1), 32, 'a'))::uuid, $3, 'the request', '{"key": "the metadata"}')
$$;
CREATE FUNCTION pg_temp.began(id bigint, attempt integer, seconds numeric) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
    SELECT task_id, $2, prometheus._xid(), at + $3 * interval '1 s', 2, 'gpt', 1 FROM base WHERE task_id = $1
$$;
CREATE FUNCTION pg_temp.sent(id bigint, attempt integer, call integer, seconds numeric) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
    SELECT $1 * 1000 + 100 * $2 + $3, task_id, $2, 1, $3, prometheus._xid(), at + $4 * interval '1 s', 'chat', 'model:gpt'
      FROM base WHERE task_id = $1
$$;
CREATE FUNCTION pg_temp.did(id bigint, attempt integer, step integer, call integer, began numeric, ended numeric,
                            status text DEFAULT 'ok', http_status integer DEFAULT 200, tokens_in bigint DEFAULT NULL,
                            tokens_out bigint DEFAULT NULL, cost numeric DEFAULT NULL, error_type text DEFAULT NULL,
                            error text DEFAULT NULL, ambiguous boolean DEFAULT false, model text DEFAULT 'gpt-4o-mini')
RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, tokens_in, tokens_out,
                                  cached_tokens, reasoning_tokens, http_status, ambiguous, connect_ms, first_byte_ms, kind, name,
                                  status, model, cost, finish_reason, request_id, error_type, error, answer, raw)
    SELECT task_id, $3, $2, $1 * 1000 + 10 + $3, $1 * 1000 + 100 * $2 + $4, prometheus._xid(), at + $5 * interval '1 s',
           at + $6 * interval '1 s', $9, $10, $9 / 2, $10 / 3, $8, $14, 1.2, 345.6, 'chat', 'gpt', $7, $15, $11,
           CASE $7 WHEN 'ok' THEN 'stop' END, 'req_' || $3, $12, $13, CASE $7 WHEN 'ok' THEN 'the answer' END, 'the raw reply'
      FROM base WHERE task_id = $1
$$;
CREATE FUNCTION pg_temp.ended(id bigint, attempt integer, step integer, seconds numeric, outcome text,
                              error_type text DEFAULT NULL, error text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome, error_type, error)
    SELECT task_id, $2, $1 * 1000 + 50 + $2, prometheus._xid(), at + $4 * interval '1 s', $2, $3, $5, $6, $7
      FROM base WHERE task_id = $1
$$;


SELECT prometheus_set_model('gpt', 'openai', 'https://api.example.com/v1', 'gpt-4o-mini',
                            options => '{"max_tokens": 500, "temperature": 0.5}');

-- 9001: tried twice, completed, in somebody's trace.
SELECT pg_temp.submitted(9001, 'support', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'),
       pg_temp.began(9001, 1, 0.0125), pg_temp.sent(9001, 1, 1, 0.0125),
       pg_temp.did(9001, 1, 1, 1, 0.0125, 0.824, 'error', 503, error_type => 'ModelUnavailable',
                   error => 'model server answered HTTP 503: try again'),
       pg_temp.ended(9001, 1, 1, 0.824, 'retry', 'ModelUnavailable', 'model server answered HTTP 503: try again'),
       pg_temp.began(9001, 2, 1.266), pg_temp.sent(9001, 2, 1, 1.266),
       pg_temp.did(9001, 2, 2, 1, 1.266, 3.42, 'ok', 200, 310, 42, 0.0000717),
       pg_temp.ended(9001, 2, 2, 3.42, 'completed');
-- 9002: queued.
SELECT pg_temp.submitted(9002, 'support', at => now() - interval '2 h');
-- 9003: running, after an attempt whose process ended.
SELECT pg_temp.submitted(9003, 'support', at => now() - interval '100 min'),
       pg_temp.began(9003, 1, 600), pg_temp.sent(9003, 1, 1, 600),
       pg_temp.ended(9003, 1, NULL, 1800, 'lost', NULL, 'the process that ran it ended'),
       pg_temp.began(9003, 2, 1800), pg_temp.sent(9003, 2, 1, 1800);
-- 9004: failed.
SELECT pg_temp.submitted(9004, 'support'),
       pg_temp.began(9004, 1, 0.001), pg_temp.sent(9004, 1, 1, 0.001),
       pg_temp.did(9004, 1, 1, 1, 0.001, 0.002, 'error', 400, error_type => 'ModelRejected', error => 'no such model'),
       pg_temp.ended(9004, 1, 1, 0.002, 'failed', 'ModelRejected', 'no such model');
-- 9005: cancelled while its request was on the network, a day later.
SELECT pg_temp.submitted(9005, 'support', at => '2026-01-01 23:58:30+00'),
       pg_temp.began(9005, 1, 60), pg_temp.sent(9005, 1, 1, 60),
       pg_temp.ended(9005, 1, NULL, 150, 'cancelled', NULL, 'no need');
-- 9006: cancelled before it began.
SELECT pg_temp.submitted(9006, 'support'), pg_temp.ended(9006, 1, NULL, 7200, 'cancelled');
-- 9007: to be tried again.
SELECT pg_temp.submitted(9007, 'support', at => now() - interval '1000 min'),
       pg_temp.began(9007, 1, 6000), pg_temp.sent(9007, 1, 1, 6000),
       pg_temp.did(9007, 1, 1, 1, 6000, 18000, 'error', NULL, error_type => 'ModelTimeout',
                   error => 'no byte came in time', ambiguous => true),
       pg_temp.ended(9007, 1, 1, 18000, 'retry', 'ModelTimeout', 'no byte came in time');
-- 9008: everything is long, and some of it wants to do more than be read.
SELECT pg_temp.submitted(9008, repeat('agent ', 30)),
       pg_temp.began(9008, 1, 1), pg_temp.sent(9008, 1, 1, 1),
       pg_temp.did(9008, 1, 1, 1, 1, 200000, 'error', 200, 123456789, 98765, 1234.5678, 'ModelUnreadable',
                   E'\x1b[2J\x07' || U&'\202E' || repeat(E'an error\n of many\twords ', 30), model => repeat('model-', 30)),
       pg_temp.ended(9008, 1, 1, 200000, 'failed', 'ModelUnreadable', repeat('x', 500));
-- 9009: without a network.
SELECT pg_temp.submitted(9009, 'default'), pg_temp.began(9009, 1, 0.000431),
       pg_temp.did(9009, 1, 1, NULL, 0.000431, 0.000431, 'ok', NULL, 0, 0, model => 'echo'),
       pg_temp.ended(9009, 1, 1, 0.000431, 'completed');
UPDATE prometheus._attempt SET model = 'echo', agent_version = 1 WHERE task_id = 9009;
UPDATE prometheus._step SET connect_ms = NULL, first_byte_ms = NULL WHERE task_id = 9009;
-- 9010: failed, and was retried by hand.
SELECT pg_temp.submitted(9010, 'support'),
       pg_temp.began(9010, 1, 1), pg_temp.sent(9010, 1, 1, 1),
       pg_temp.did(9010, 1, 1, 1, 1, 4, 'error', 401, error_type => 'ConfigurationError', error => 'wrong key'),
       pg_temp.ended(9010, 1, 1, 4, 'failed', 'ConfigurationError', 'wrong key'),
       pg_temp.began(9010, 2, 20), pg_temp.sent(9010, 2, 1, 20),
       pg_temp.did(9010, 2, 2, 1, 20, 22, 'ok', 200, 12345, 5, 0.01, model => repeat(U&'\6A21\578B', 10)),
       pg_temp.ended(9010, 2, 2, 22, 'completed');
INSERT INTO prometheus._retry (task_id, attempt, xid, retried_at, deadline, retried_by)
VALUES (9010, 1, prometheus._xid(), '2026-01-01 00:00:19+00', '2026-01-02 00:00:19+00', current_user);
-- 9011: failed, was retried by hand, and has not begun again.
SELECT pg_temp.submitted(9011, 'support', at => now() - interval '4 h'), pg_temp.began(9011, 1, 3600),
       pg_temp.ended(9011, 1, NULL, 7200, 'vetoed', 'GovernanceVeto', 'not here');
INSERT INTO prometheus._retry (task_id, attempt, xid, retried_at, deadline, retried_by)
VALUES (9011, 1, prometheus._xid(), now(), now() + interval '1 day', current_user);
-- 9012: a plan of later versions: two turns, a tool that nobody knows the end of.
SELECT pg_temp.submitted(9012, 'support', at => '2026-01-01 23:59:50+00'), pg_temp.began(9012, 1, 0),
       pg_temp.sent(9012, 1, 1, 0), pg_temp.sent(9012, 1, 2, 8),
       pg_temp.did(9012, 1, 1, 1, 0, 8, 'ok', 200, 1000, 10, 0.5), pg_temp.did(9012, 1, 2, 2, 8, 9, 'ok', 200, 1100, 20, 0.75),
       pg_temp.did(9012, 1, 3, NULL, 9, 19, 'unknown', NULL), pg_temp.did(9012, 1, 4, NULL, 19, 20, 'vetoed', NULL),
       pg_temp.ended(9012, 1, 4, 20, 'quarantined');

CREATE TEMP VIEW span AS
    SELECT s.*, (s.attributes ->> 'prometheus.task_id')::bigint AS task_id FROM prometheus.span s
     WHERE (s.attributes ->> 'prometheus.task_id')::bigint BETWEEN 9001 AND 9012;

SELECT columns_are('prometheus', 'span', ARRAY[
    'trace_id', 'span_id', 'parent_span_id', 'name', 'kind', 'started_at', 'ended_at', 'status', 'attributes']);
SELECT columns_are('prometheus', 'usage', ARRAY[
    'day', 'agent', 'model', 'submitter', 'tasks', 'calls', 'tokens_in', 'tokens_out', 'cost']);

-- Ids, parents and times.

SELECT is(count(*), count(DISTINCT span_id), 'ids differ') FROM span;
SELECT is_empty($$SELECT * FROM span WHERE span_id !~ '^[0-9a-f]{16}$' OR span_id ~ '^0+$'
                     OR trace_id !~ '^[0-9a-f]{32}$' OR parent_span_id !~ '^[0-9a-f]{16}$'$$, 'as W3C Trace Context has them');
SELECT is_empty($$SELECT s.* FROM span s JOIN prometheus.task t USING (task_id) WHERE s.trace_id <> t.trace_id$$,
                'each is in the trace of its task');
SELECT results_eq($$SELECT name, span_id, parent_span_id FROM span WHERE task_id = 9001 ORDER BY started_at, span_id$$,
    $$VALUES ('invoke_agent support', '0000000000895828', 'b7ad6b7169203331'),
             ('chat gpt-4o-mini', '0000000000895833', '0000000000895828'),
             ('POST', '000000000089588d', '0000000000895833'),
             ('chat gpt-4o-mini', '0000000000895834', '0000000000895828'),
             ('POST', '00000000008958f1', '0000000000895834')$$,
    'a task is a part of the span that it was submitted with, a step of the task, a call of the step');
SELECT is(trace_id, '0af7651916cd43dd8448eb211c80319c', 'and all of them of that trace') FROM span WHERE name = 'POST' AND task_id = 9001 LIMIT 1;
SELECT is_empty($$SELECT * FROM span WHERE name ~ '^invoke' AND task_id > 9001 AND parent_span_id IS NOT NULL$$,
                'without one a task is the root');
SELECT is_empty($$SELECT * FROM span s WHERE name !~ '^invoke'
                     AND NOT EXISTS (SELECT FROM span p WHERE p.trace_id = s.trace_id AND p.span_id = s.parent_span_id)$$,
                'every other parent is there, in the same trace');
SELECT is_empty($$SELECT * FROM span s JOIN span p ON p.span_id = s.parent_span_id
                   WHERE s.started_at < p.started_at OR s.ended_at > p.ended_at
                      OR s.ended_at IS NULL AND p.ended_at IS NOT NULL$$, 'each is within the time of its parent');
SELECT is_empty('SELECT * FROM span WHERE ended_at < started_at', 'and ends after it began');
SELECT is(parent_span_id, '0000000000895ff8', 'a call that no step tells of is a part of the task')
  FROM span WHERE task_id = 9003 AND name = 'POST' AND ended_at IS NOT NULL;
SELECT is(array_agg(DISTINCT kind || ' ' || split_part(name, ' ', 1) ORDER BY kind || ' ' || split_part(name, ' ', 1)),
          ARRAY['client POST', 'client chat', 'internal chat', 'internal invoke_agent'], 'kinds') FROM span;
SELECT is(kind, 'internal', 'a step without a call is internal') FROM span WHERE name = 'chat echo';

-- Statuses and ends.

CREATE FUNCTION pg_temp.ends(id bigint) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s %s %s', split_part(name, ' ', 1), CASE WHEN ended_at IS NULL THEN 'open' ELSE status END,
                             coalesce(attributes ->> 'error.type', '-')), ', ' ORDER BY started_at, span_id)
      FROM span WHERE task_id = $1
$$;
SELECT is(pg_temp.ends(id), expected, 'statuses: ' || what)
  FROM (VALUES
    (9001, 'invoke_agent ok -, chat error ModelUnavailable, POST error 503, chat ok -, POST ok -', 'retried and completed'),
    (9002, 'invoke_agent open -', 'queued'),
    (9003, 'invoke_agent open -, POST error abandoned, POST open -', 'lost and running'),
    (9004, 'invoke_agent error ModelRejected, chat error ModelRejected, POST error 400', 'failed'),
    (9005, 'invoke_agent unset -, POST error cancelled', 'cancelled'),
    (9006, 'invoke_agent unset -', 'cancelled before it began'),
    (9007, 'invoke_agent open -, chat error ModelTimeout, POST error ModelTimeout', 'retrying'),
    (9009, 'invoke_agent ok -, chat ok -', 'without a network'),
    (9010, 'invoke_agent ok -, chat error ConfigurationError, POST error 401, chat ok -, POST ok -', 'retried by hand'),
    (9011, 'invoke_agent open -', 'open again'),
    (9012, 'invoke_agent error _OTHER, chat ok -, POST ok -, chat ok -, POST ok -, chat unset -, chat error _OTHER', 'others'))
    AS v(id, expected, what);
SELECT is_empty($$SELECT * FROM span WHERE ended_at IS NULL AND status <> 'unset'$$, 'what is open is unset');
SELECT is_empty($$SELECT * FROM span WHERE (status = 'error') <> (attributes ? 'error.type')$$, 'an error has its type, and only an error');
SELECT is(ended_at, '2026-01-02 00:01+00', 'a call that was dropped ends with its attempt') FROM span WHERE task_id = 9005 AND name = 'POST';

-- Attributes, exactly; none of them is what was asked or answered.

SELECT is(attributes, expected::jsonb, 'attributes of ' || what)
  FROM span JOIN (VALUES
    ('0000000000895828', 'a task', format('{"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": "support", "gen_ai.agent.version": "2", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 310, "gen_ai.usage.output_tokens": 42, "gen_ai.usage.cache_read.input_tokens": 155,
        "gen_ai.usage.reasoning.output_tokens": 14,
        "prometheus.task_id": 9001, "prometheus.attempt": 2, "prometheus.outcome": "completed",
        "prometheus.cost": 0.0000717, "prometheus.submitter": %s}', to_json(current_user::text))),
    ('0000000000895834', 'a step', '{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": "support", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.request.max_tokens": 500,
        "gen_ai.request.temperature": 0.5, "gen_ai.usage.input_tokens": 310, "gen_ai.usage.output_tokens": 42,
        "gen_ai.usage.cache_read.input_tokens": 155, "gen_ai.usage.reasoning.output_tokens": 14, "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.3456, "server.address": "api.example.com", "server.port": 443,
        "prometheus.task_id": 9001, "prometheus.attempt": 2, "prometheus.step": 2, "prometheus.cost": 0.0000717}'),
    ('0000000000895833', 'a step that failed', '{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": "support", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.request.max_tokens": 500,
        "gen_ai.request.temperature": 0.5, "gen_ai.response.time_to_first_chunk": 0.3456,
        "server.address": "api.example.com", "server.port": 443, "error.type": "ModelUnavailable",
        "prometheus.task_id": 9001, "prometheus.attempt": 1, "prometheus.step": 1}'),
    ('00000000008958f1', 'a call', '{"http.request.method": "POST", "http.response.status_code": 200,
        "url.full": "https://api.example.com/v1/chat/completions", "server.address": "api.example.com", "server.port": 443,
        "prometheus.task_id": 9001, "prometheus.attempt": 2, "prometheus.turn": 1, "prometheus.call": 1,
        "prometheus.target": "model:gpt", "prometheus.request_id": "req_2", "prometheus.connect_ms": 1.2,
        "prometheus.first_byte_ms": 345.6}'),
    ('000000000089605d', 'a call that was lost', '{"http.request.method": "POST",
        "url.full": "https://api.example.com/v1/chat/completions", "server.address": "api.example.com", "server.port": 443,
        "error.type": "abandoned", "prometheus.ambiguous": true, "prometheus.task_id": 9003, "prometheus.attempt": 1,
        "prometheus.turn": 1, "prometheus.call": 1, "prometheus.target": "model:gpt"}'),
    ('0000000000895c10', 'a task that has not begun', format('{"gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "support", "prometheus.task_id": 9002, "prometheus.submitter": %s}',
        to_json(current_user::text))),
    ('0000000000897773', 'a step without a call', '{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "echo",
        "gen_ai.agent.name": "default", "gen_ai.request.model": "echo", "gen_ai.usage.input_tokens": 0,
        "gen_ai.usage.output_tokens": 0, "gen_ai.usage.cache_read.input_tokens": 0, "gen_ai.usage.reasoning.output_tokens": 0,
        "gen_ai.response.finish_reasons": ["stop"], "prometheus.task_id": 9009, "prometheus.attempt": 1,
        "prometheus.step": 1}')) AS v(span_id, what, expected) USING (span_id);
SELECT is_empty($$SELECT * FROM span WHERE span::text ~ 'the (request|answer|raw reply|metadata|process)|wrong key|no need|many words'$$,
                'no content and no text of an error');
SELECT is_empty($$SELECT * FROM span, jsonb_each(attributes) AS a WHERE a.value = 'null'$$, 'what is not known is not there');

-- Where requests go.
SELECT prometheus_set_model('at ' || url, 'openai', url) FROM (VALUES
    ('https://[2001:db8::1]:8443/v1'), ('http://127.0.0.1:11434/v1'), ('http://[::1]'), ('HTTPS://EXAMPLE.com')) AS v(url);
SELECT is(p.address || ' ' || p.port || ' ' || p.url, expected, expected)
  FROM prometheus._peer p JOIN (VALUES
    ('at https://[2001:db8::1]:8443/v1', '2001:db8::1 8443 https://[2001:db8::1]:8443/v1/chat/completions'),
    ('at http://127.0.0.1:11434/v1', '127.0.0.1 11434 http://127.0.0.1:11434/v1/chat/completions'),
    ('at http://[::1]', '::1 80 http://[::1]/chat/completions'),
    ('at HTTPS://EXAMPLE.com', 'EXAMPLE.com 443 HTTPS://EXAMPLE.com/chat/completions')) AS v(name, expected) USING (name)
 ORDER BY p.name;
SELECT is(p.provider || coalesce(p.address, '') || coalesce(p.url, '') || coalesce(p.port, 0), 'echo0', 'echo has no address')
  FROM prometheus._peer p WHERE name = 'echo';

-- Usage.

SELECT results_eq(
    $$SELECT day, agent::text, left(model, 12), tasks, calls, tokens_in, tokens_out, cost FROM prometheus.usage
       WHERE day < '2026-01-10' AND submitter = current_user ORDER BY 1, 2, 3$$,
    format($$VALUES ('2026-01-01'::date, 'default', 'echo', 1::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::numeric),
             ('2026-01-01', 'support', 'gpt-4o-mini', 4, 6, 2410, 72, 1.2500717),
             ('2026-01-01', 'support', %L, 1, 1, 12345, 5, 0.01),
             ('2026-01-02', 'support', 'gpt-4o-mini', 1, 1, NULL, NULL, NULL),
             ('2026-01-03', %L, 'model-model-', 1, 1, 123456789, 98765, 1234.5678)$$,
           left(repeat(U&'\6A21\578B', 10), 12), repeat('agent ', 30)), 'usage');

-- Pictures.

SELECT is(prometheus_trace(9001), $t$task 9001 · support · completed in 3.42 s
  310 tokens in, 42 out · cost 0.0000717
                     0                     3.42 s     time    in   out      cost
queued               ░                             12.5 ms
attempt 1: retry     ██████▊                        812 ms
  chat gpt-4o-mini   ██████▊                        812 ms
    POST 503         ██████▊                        812 ms
  ModelUnavailable: model server answered HTTP 503: try again
back-off                   ░░░░                     442 ms
attempt 2: completed           ██████████████████   2.15 s
  chat gpt-4o-mini             ██████████████████   2.15 s   310    42 0.0000717
    POST 200                   ██████████████████   2.15 s$t$, 'a picture: retried and completed');
SELECT is(prometheus_trace(9002), $t$task 9002 · support · queued for 2.00 h
       0                                                         2.00 h     time
queued ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░>   2.00 h$t$, 'a picture: queued');
SELECT is(prometheus_trace(9003), $t$task 9003 · support · running for 1.67 h
                   0                                             1.67 h     time
queued             ░░░░░                                                10.0 min
attempt 1: lost         ██████████▋                                     20.0 min
  POST ambiguous        ██████████▋                                     20.0 min
  the process that ran it ended
attempt 2: running                ████████████████████████████████████>   1.17 h
  POST                            ████████████████████████████████████>   1.17 h$t$, 'a picture: lost and running');
SELECT is(prometheus_trace(9004), $t$task 9004 · support · failed after 2.00 ms
                   0                                            2.00 ms     time
queued             ░░░░░░░░░░░░░░░░░░░░░░░░░░                            1.00 ms
attempt 1: failed                            ██████████████████████████  1.00 ms
  chat gpt-4o-mini                           ██████████████████████████  1.00 ms
    POST 400                                 ██████████████████████████  1.00 ms
  ModelRejected: no such model$t$, 'a picture: failed');
SELECT is(prometheus_trace(9005), $t$task 9005 · support · cancelled after 2.50 min
                     0                                         2.50 min     time
queued               ░░░░░░░░░░░░░░░░░░░░                               1.00 min
attempt 1: cancelled                     ██████████████████████████████ 1.50 min
  POST ambiguous                         ██████████████████████████████ 1.50 min
  no need$t$, 'a picture: cancelled on the network');
SELECT is(prometheus_trace(9006), $t$task 9006 · support · cancelled after 2.00 h
          0                                                      2.00 h     time
queued    ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   2.00 h
cancelled                                                             ▏     0 µs$t$, 'a picture: cancelled before it began');
SELECT is(prometheus_trace(9007), $t$task 9007 · support · retrying for 16.7 h
                   0                                             16.7 h     time
queued             ░░░░░                                                  1.67 h
attempt 1: retry        ██████████▋                                       3.33 h
  chat gpt-4o-mini      ██████████▋                                       3.33 h
    POST ambiguous      ██████████▋                                       3.33 h
  ModelTimeout: no byte came in time
back-off                          ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░>   11.7 h$t$, 'a picture: in a back-off');
SELECT is(prometheus_trace(9008), $t$task 9008 · agent agent agent agent agent agent agent age… · failed after 2.31 d
  123M tokens in, 98.8k out · cost 1234.57
                           0                 2.31 d     time    in   out    cost
queued                     ░                          1.00 s
attempt 1: failed          ████████████████████████   2.31 d
  chat model-model-model-… ████████████████████████   2.31 d  123M 98.8k 1234.57
    POST 200               ████████████████████████   2.31 d
    [2J  an error of many words an error of many words an error of many words an
    error of many words an error of many words an error of many words an error
    of many words an error of many words an error of many words an error of man…
  ModelUnreadable: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…$t$, 'a picture: everything is long');
SELECT is(prometheus_trace(9009), $t$task 9009 · default · completed in 431 µs · 0 tokens in, 0 out
                     0                               431 µs     time    in   out
queued               ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   431 µs
attempt 1: completed                                      ▏     0 µs
  chat echo                                               ▏     0 µs     0     0$t$, 'a picture: without a network, in no time');
SELECT is(prometheus_trace(9010), $t$task 9010 · support · completed in 22.0 s · 12.3k tokens in, 5 out · cost 0.01
                           0                    22.0 s     time    in   out cost
queued                     ░                             1.00 s
attempt 1: failed           ███▉                         3.00 s
  chat gpt-4o-mini          ███▉                         3.00 s
    POST 401                ███▉                         3.00 s
  ConfigurationError: wrong key
retried by hand                ░░░░░░░░░░░░░░░░░░░░░     16.0 s
attempt 2: completed                               ███   2.00 s
  chat 模型模型模型模型模…                         ███   2.00 s 12.3k     5 0.01
    POST 200                                       ███   2.00 s$t$, 'a picture: retried by hand and completed');
SELECT is(prometheus_trace(9011), $t$task 9011 · support · queued for 4.00 h
                  0                                              4.00 h     time
queued            ░░░░░░░░░░░░░                                           1.00 h
attempt 1: vetoed              █████████████▌                             1.00 h
  GovernanceVeto: not here
retried by hand                             ░░░░░░░░░░░░░░░░░░░░░░░░░░>   2.00 h$t$, 'a picture: retried by hand and not begun');
SELECT is(prometheus_trace(9012), $t$task 9012 · support · quarantined after 20.0 s
  2100 tokens in, 30 out · cost 1.25
                       0                        20.0 s     time    in   out cost
attempt 1: quarantined ███████████████████████████████   20.0 s
  chat gpt-4o-mini     ████████████▍                     8.00 s  1000    10  0.5
    POST 200           ████████████▍                     8.00 s
  chat gpt-4o-mini                 ██                    1.00 s  1100    20 0.75
    POST 200                       ██                    1.00 s
  chat gpt-4o-mini                  ████████████████▌    10.0 s
  chat gpt-4o-mini                                  ██   1.00 s$t$, 'a picture: turns and other ends');

SELECT is_empty($$SELECT * FROM generate_series(9001, 9012) AS id, regexp_split_to_table(prometheus_trace(id), '\n') AS line
                   WHERE prometheus._columns(line) > 80 OR line ~ '[[:cntrl:]]|\s$'$$,
                'no line is longer than 80 columns, ends in blanks or moves the cursor');
SELECT is_empty($$SELECT * FROM generate_series(9001, 9012) AS id
                   WHERE prometheus_trace(id) ~ 'the (request|answer|raw reply|metadata)'$$, 'no content');
SELECT is(prometheus_trace(NULL), NULL, 'null');

-- A submit of this very moment, and clocks that disagree.
SELECT pg_temp.submitted(9020, 'support', at => clock_timestamp() + interval '1 min'), pg_temp.began(9020, 1, -3),
       pg_temp.ended(9020, 1, NULL, -2, 'lost');
SELECT matches(prometheus_trace(9020), '^task 9020', 'a clock that was set back');

-- Who has not that task gets the error of prometheus_result().
CREATE FUNCTION pg_temp.error_of(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
BEGIN
    EXECUTE 'SELECT ' || call;
    RETURN NULL;
EXCEPTION WHEN undefined_object THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN message || ' / ' || detail;
END$$;
SELECT throws_ok('SELECT prometheus_trace(0)', '42704', NULL, 'no such task');
SELECT is(pg_temp.error_of('prometheus_trace(0)'), pg_temp.error_of('prometheus_result(0)'), 'as prometheus_result() says it');

-- Numbers for people.

SELECT is(prometheus._duration(seconds), expected, 'a duration: ' || expected)
  FROM (VALUES (0, '0 µs'), (0.000001, '1 µs'), (0.000999, '999 µs'), (0.001, '1.00 ms'), (0.0099949, '9.99 ms'),
               (0.009995, '10.0 ms'), (0.09995, '100 ms'), (0.9994, '999 ms'), (0.9995, '1.00 s'), (59.94, '59.9 s'),
               (59.96, '1.00 min'), (3599, '1.00 h'), (86399, '1.00 d'), (864000000, '10000 d')) AS v(seconds, expected);
SELECT is(prometheus._count(number), expected, 'a number: ' || expected)
  FROM (VALUES (0, '0'), (9999, '9999'), (10000, '10.0k'), (99949, '99.9k'), (999499, '999k'), (999500, '1.00M'),
               (12345678, '12.3M'), (1e12, '1000G')) AS v(number, expected);
SELECT is(prometheus._cost(cost), expected, 'a cost: ' || expected)
  FROM (VALUES (0, '0'), (1e-9, '<0.0000001'), (0.00000005, '0.0000001'), (0.0000102, '0.0000102'), (0.012345, '0.0123'),
               (0.5, '0.5'), (12, '12'), (1234.5678, '1234.57')) AS v(cost, expected);
SELECT is(prometheus._columns(value), expected, 'columns of ' || value)
  FROM (VALUES ('', 0), ('abc', 3), ('µ█…', 3), ('模型', 4), ('한글', 4), ('🙂', 2), ('ａ', 2)) AS v(value, expected);
SELECT is(prometheus._fold(value, 10, lines), expected::text[], 'in lines: ' || to_json(value))
  FROM (VALUES ('', 1, '{""}'), ('0123456789', 1, '{0123456789}'), ('0123456789a', 1, '{012345678…}'),
               ('0123456789a', 2, '{0123456789,a}'), ('one two three four', 2, '{"one two",three four}'),
               ('one two three four five', 2, '{"one two","three fou…"}'), ('模型模型模型', 1, '{模型模型…}'),
               (E' a\n\tb\r ', 1, '{"a b"}')) AS v(value, lines, expected);
SELECT is(prometheus._bar(first, last, 8, is_wait, is_open), expected, 'a bar: ' || expected)
  FROM (VALUES (0, 1, false, false, '████████'), (0, 0.5, false, false, '████    '), (0.5, 1, true, false, '    ░░░░'),
               (0, 0, false, false, '▏       '), (1, 1, false, false, '       ▏'), (0.25, 0.28125, false, false, '  ▎     '),
               (0.5, 1, false, true, '    ███>'), (1, 1, true, true, '       >'), (-1, 2, false, false, '████████'))
       AS v(first, last, is_wait, is_open, expected);

-- Who sees what.

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b;
UPDATE prometheus._task SET submitter = 'prom_test_a', submitter_oid = 'prom_test_a'::regrole WHERE task_id <> 9005;
UPDATE prometheus._task SET submitter = 'prom_test_b', submitter_oid = 'prom_test_b'::regrole WHERE task_id IN (9001, 9005);
-- Whatever it is shown it keeps, and the planner thinks that it costs nothing.
CREATE FUNCTION pg_temp.keep(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    PERFORM set_config('prom_test.seen', current_setting('prom_test.seen') || value, true);
    RETURN true;
END$$;
SET LOCAL prom_test.seen = '';

SET LOCAL ROLE prom_test_b;
SELECT results_eq('SELECT attributes ->> ''prometheus.task_id'', count(*) FROM prometheus.span GROUP BY 1 ORDER BY 1',
    $$VALUES ('9001', 5::bigint), ('9005', 2)$$, 'spans of one''s own tasks');
SELECT is((SELECT count(*) FROM prometheus.span WHERE pg_temp.keep(name || attributes::text)), 7::bigint, 'and no others');
SELECT unalike(current_setting('prom_test.seen'), '%9004%', 'not to a function in a condition either');
SELECT results_eq('SELECT day, submitter, tasks, calls, tokens_in FROM prometheus.usage ORDER BY 1',
    $$VALUES ('2026-01-01'::date, 'prom_test_b', 1::bigint, 2::bigint, 310::bigint), ('2026-01-02', 'prom_test_b', 0, 1, NULL)$$,
    'usage of one''s own tasks');
SELECT is((SELECT count(*) FROM prometheus.usage WHERE pg_temp.keep(agent || submitter)), 2::bigint, 'and no other');
SELECT unalike(current_setting('prom_test.seen'), '%prom_test_a%', 'not to a function in a condition either');
SELECT matches(prometheus_trace(9001), '^task 9001 ', 'a picture of one''s own');
SELECT throws_ok('SELECT prometheus_trace(9004)', '42704', NULL, 'none of another''s');
SELECT is(pg_temp.error_of('prometheus_trace(9004)'), pg_temp.error_of('prometheus_result(9004)'), 'as prometheus_result() says it');
SELECT throws_ok('SELECT * FROM prometheus._peer', '42501', NULL, 'the addresses of models are not read by themselves');
SET LOCAL ROLE prom_test_a;
SELECT throws_ok('SELECT prometheus_trace(9001)', '42704', NULL, 'nor the other way');
SELECT matches(prometheus_trace(9004), '^task 9004 ', 'but one''s own');
RESET ROLE;

SELECT throws_ok($$DELETE FROM prometheus.span$$, '55000', NULL, 'spans are to read');
SELECT throws_ok($$UPDATE prometheus.usage SET cost = 0$$, '55000', NULL, 'usage is to read');

-- Tools.

SELECT pg_temp.submitted(9013, 'clerk', at => '2025-01-01 00:00+00'), pg_temp.began(9013, 1, 0), pg_temp.sent(9013, 1, 1, 0),
       pg_temp.did(9013, 1, 1, 1, 0, 2, tokens_in => 10, tokens_out => 5), pg_temp.did(9013, 1, 2, NULL, 2, 3, model => NULL),
       pg_temp.did(9013, 1, 3, NULL, 3, 4, 'error', NULL, error_type => 'ToolError', error => 'division by zero', model => NULL);
UPDATE prometheus._step SET kind = 'tool', name = 'add', finish_reason = NULL, request_id = NULL, connect_ms = NULL,
                            first_byte_ms = NULL, raw = NULL
 WHERE task_id = 9013 AND step > 1;
CREATE TEMP VIEW tool AS
    SELECT * FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '9013' AND name ~ 'tool' ORDER BY started_at;
SELECT results_eq('SELECT name, kind, status, parent_span_id FROM tool',
    $$VALUES ('execute_tool add', 'internal', 'ok', '0000000000898708'), ('execute_tool add', 'internal', 'error', '0000000000898708')$$,
    'a tool is a part of the task');
SELECT is((SELECT count(*) FROM tool WHERE attributes @> '{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"}'), 2::bigint,
          'says what it is');
SELECT is_empty($$SELECT * FROM tool WHERE attributes ?| '{gen_ai.provider.name,gen_ai.request.model,server.address}'$$,
                'and nothing of a model');
SELECT results_eq($$SELECT tasks, calls, tokens_in, tokens_out FROM prometheus.usage WHERE agent = 'clerk'$$,
    'VALUES (1::bigint, 1::bigint, 10::bigint, 5::bigint)', 'usage is of models');
SELECT matches(prometheus_trace(9013), E'\n  tool add .*\n +division by zero', 'a picture: a tool that failed');

-- Reviews by rules: of a request by its attempt, of others by their verdicts.

SELECT pg_temp.submitted(9014, 'clerk', at => '2025-02-01 00:00+00'), pg_temp.began(9014, 1, 1), pg_temp.began(9014, 2, 3),
       pg_temp.ended(9014, 1, NULL, 2, 'retry'), pg_temp.ended(9014, 2, NULL, 3, 'vetoed', 'GovernanceVeto', 'no');
UPDATE prometheus._attempt SET policy_version = 3, review_ms = 250 WHERE task_id = 9014 AND attempt = 1;
INSERT INTO prometheus._verdict (task_id, attempt, step, event_id, xid, judged_at, latency_ms, approved, policy_version, stage, effect,
                                 risk_level, governor, policy, target_hash)
SELECT 9014, 2, step, 9014500 + n, prometheus._xid(), '2025-02-01 00:00:05+00', 500, effect = 'allow', 3, stage, effect, 'HIGH', governor,
       'the policy', 'hash'
  FROM (VALUES (1, NULL::int, 'task', 'deny', 'policy'), (2, 1, 'tool', 'escalate', 'JUSTICA'), (3, 2, 'tool', 'allow', 'JUSTICA'),
               (4, 3, 'answer', 'deny', 'SOFIA'), (5, NULL, 'answer', 'allow', 'policy'))
       AS v(n, step, stage, effect, governor);
-- with conditions it is a step
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status)
VALUES (9014, 9, 2, 9014600, prometheus._xid(), '2025-02-01 00:00:03+00', '2025-02-01 00:00:03+00', false, 'review', 'answer', 'ok');
SELECT results_eq($$SELECT name, status, to_char(started_at, 'SS.MS'), to_char(ended_at, 'SS.MS'), attributes ->> 'prometheus.attempt',
                           attributes ->> 'gen_ai.guardrail.verdict.type', attributes ->> 'error.type' FROM prometheus.span
                     WHERE attributes ->> 'prometheus.task_id' = '9014' AND name ~ '^review' ORDER BY 5, 6, 1$$,
    $$VALUES ('review task', 'ok', '01.000', '01.250', '1', 'allow', NULL),
             ('review tool', 'ok', '04.500', '04.500', '2', 'allow', NULL),
             ('review task', 'error', '04.500', '04.500', '2', 'deny', 'GovernanceVeto'),
             ('review tool', 'unset', '04.500', '04.500', '2', 'escalate', NULL),
             ('review answer', 'ok', '03.000', '03.000', '2', NULL, NULL)$$, 'reviews');
SELECT is((SELECT attributes - 'prometheus.policy_version' FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '9014'
            AND attributes ->> 'gen_ai.guardrail.verdict.type' = 'deny'),
    '{"gen_ai.operation.name": "review", "gen_ai.agent.name": "clerk", "gen_ai.guardrail.component.name": "policy",
      "gen_ai.guardrail.verdict.type": "deny", "gen_ai.guardrail.target.type": "input", "gen_ai.guardrail.target.subtype": "llm",
      "gen_ai.security.policy.id": "the policy", "error.type": "GovernanceVeto", "prometheus.task_id": 9014, "prometheus.attempt": 2,
      "prometheus.risk_level": "HIGH"}'::jsonb, 'what one says');
SELECT is((SELECT count(*) || ' ' || count(DISTINCT span_id) FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '9014'), '6 6',
          'each has its own id');
SELECT is_empty($$SELECT FROM prometheus.span WHERE name ~ '^review t' AND (span_id !~ '^f[0-9a-f]{15}$' OR parent_span_id <> '0000000000898af0')
                     AND attributes ->> 'prometheus.task_id' = '9014'$$, 'that no fact can have; they are parts of the task');

-- Events that were pushed.

SELECT prometheus_create_consumer('pushed');
INSERT INTO prometheus._subscription (name, owner_oid, owner, subscribed_at, ordered, timeout_ms, max_attempts, breaker_failures, search_path, url)
SELECT name, role::regrole, role, now(), false, 1, 1, 1, '', url
  FROM (VALUES ('pushed', 'prom_test_a', NULL), ('hooked', current_user, 'https://example.com/?key=hidden')) AS v(name, role, url);
INSERT INTO prometheus._delivery (delivery_id, event_id, task_id, created_at, next_at, ended_at, attempts, strikes, mark_id, http_status, status,
                                  subscription, error)
VALUES (9013900, 9013011, 9013, '2025-01-01 00:00:02+00', now(), '2025-01-01 00:00:03+00', 1, 0, 1, NULL, 'delivered', 'pushed', NULL),
       (9013901, 9013051, 9013, '2025-01-01 00:00:04+00', now(), '2025-01-01 00:00:05+00', 8, 0, 1, 503, 'dead', 'hooked', 'hidden'),
       (9013902, 9013000, 9013, '2025-01-01 00:00:04+00', now(), NULL, 2, 0, 1, NULL, 'waiting', 'hooked', NULL);
CREATE TEMP VIEW pushed AS SELECT * FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '9013' AND attributes ? 'messaging.system';
SELECT results_eq($$SELECT name, kind, status, parent_span_id, ended_at IS NULL, attributes ->> 'error.type', attributes ->> 'http.request.method'
                      FROM pushed ORDER BY span_id$$,
    $$VALUES ('process pushed', 'consumer', 'ok', '0000000000898713', false, NULL, NULL),
             ('send hooked', 'client', 'error', '0000000000898708', false, '503', 'POST'),
             ('send hooked', 'client', 'unset', '0000000000898708', true, NULL, 'POST')$$, 'deliveries are parts of what the event tells of');
SELECT is_empty($$SELECT FROM pushed WHERE pushed::text ~ 'hidden'$$, 'no address of a webhook and no error');
GRANT SELECT ON pushed TO PUBLIC;
UPDATE prometheus._task SET submitter = 'prom_test_a', submitter_oid = 'prom_test_a'::regrole WHERE task_id = 9013;
SET LOCAL ROLE prom_test_a;
SELECT set_eq($$SELECT name FROM prometheus.span WHERE attributes ->> 'prometheus.task_id' = '9013' AND attributes ? 'messaging.system'$$,
              ARRAY['process pushed'], 'but those to subscriptions of others');
RESET ROLE;
UPDATE prometheus._subscription SET owner = 'prom_test_b', owner_oid = 'prom_test_b'::regrole WHERE name = 'hooked';
SET LOCAL ROLE prom_test_b;
SELECT is_empty($$SELECT FROM prometheus.span WHERE attributes ? 'messaging.system'$$, 'and of tasks of others');
RESET ROLE;

-- What is redacted.

SELECT is(prometheus._redact(value), expected, 'redacted: ' || expected) FROM (VALUES
    ('my key is sk-proj-abcdefgh12345678.', 'my key is [redacted].'),
    ('ghp_0123456789abcdefghij', '[redacted]'), ('AKIA0123456789ABCDEF', '[redacted]'),
    ('Authorization: Bearer abc.def-123456', 'Authorization: Bearer [redacted]'),
    ('bearer 0123456789abcdef', 'bearer [redacted]'),
    ('{"password": "hunter2", "user": "me"}', '{"password": "[redacted]", "user": "me"}'),
    ('api_key=0123abc&q=1', 'api_key=[redacted]&q=1'),
    (E'-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nbye', E'[redacted]\nbye'),
    ('eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc', '[redacted]'),
    ('skateboarding_is_not_a_key', 'skateboarding_is_not_a_key'),
    ('tokens: 12, a bearer of news', 'tokens: 12, a bearer of news'), ('', '')) AS v(value, expected);
SET LOCAL prometheus.capture_content = full;
SELECT is(length(prometheus._captured(repeat('x', 40000))), 32768 + 6, 'what is long is cut');
SELECT is(prometheus._captured(NULL), NULL, 'nothing is nothing');
SET LOCAL prometheus.capture_content = metadata;
SELECT is(prometheus._captured('x'), NULL, 'with their lengths contents are not told');
SELECT is(prometheus._captured_bytes('µx'), 3, 'these are');
SET LOCAL prometheus.capture_content = off;
SELECT is(prometheus._captured_bytes('x'), NULL, 'or not');

SELECT * FROM finish();
ROLLBACK;
