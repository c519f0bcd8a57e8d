/*
 * Traces and usage, read from the facts about tasks.  A span has the id of the
 * fact that it is made of, so it keeps it: a task and a step that of their
 * event, a call its own, all from one sequence.
 */
CREATE VIEW prometheus._peer WITH (security_barrier) AS
SELECT m.name,
       m.version,
       CASE m.api WHEN 'openai-responses' THEN 'openai'
                  WHEN 'gemini' THEN 'gcp.gemini'
                  ELSE m.api END AS provider,
       coalesce(m.model, m.name) AS model,
       m.options,
       m.endpoint || CASE m.api
           WHEN 'openai' THEN '/chat/completions'
           WHEN 'openai-responses' THEN '/responses'
           WHEN 'anthropic' THEN '/messages'
           WHEN 'gemini' THEN
               CASE WHEN coalesce(m.model, m.name) LIKE '%/%' THEN '/'
                    ELSE '/models/' END || coalesce(m.model, m.name) ||
               CASE WHEN m.options ->> 'stream' = 'false'
                    THEN ':generateContent'
                    ELSE ':streamGenerateContent' END
           END AS url,
       btrim(substring(m.endpoint, '://([[][^]]*[]]|[^/:]+)'), '[]')
           AS address,
       coalesce(
           substring(m.endpoint, '://(?:[[][^]]*[]]|[^/:]+):([0-9]{1,5})'),
           CASE WHEN m.endpoint ~* '^https:' THEN '443'
                WHEN m.endpoint ~* '^http:' THEN '80' END)::integer AS port
  FROM prometheus._model m;
COMMENT ON VIEW prometheus._peer IS
    'Every version of every model, with the address that its requests go to.';

/*
 * A review by rules has no fact of its own that has an id: its span has one
 * that begins with f, which those of facts never do.
 */
CREATE FUNCTION prometheus._review_id(
    event_id bigint,
    attempt integer,
    step integer,
    stage text,
    policy text,
    effect text)
RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN 'f' || substr(encode(sha256(convert_to(
        jsonb_build_array(event_id, attempt, step, stage, policy, effect)
            ::text, 'UTF8')), 'hex'), 1, 15);
COMMENT ON FUNCTION prometheus._review_id(
    bigint, integer, integer, text, text, text) IS
    'The id of the span of a review by rules: of which task (by its first event), and what.';

/*
 * What looks like a key, a password or a token, whoever wrote it.
 */
CREATE FUNCTION prometheus._redact(value text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        value,
        '-----BEGIN [A-Z ]*?PRIVATE KEY-----.*?(-----END [A-Z ]*?PRIVATE KEY-----|$)',
        '[redacted]', 'g'),
        '\m((sk|pk|rk|xox[a-z]|gh[a-z]|glpat|whsec)[-_]|AKIA|ASIA|AIza)[A-Za-z0-9_+/=-]{12,}|\meyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]{8,}',
        '[redacted]', 'g'),
        '\m((?:proxy-)?authorization["'']?\s*[:=]\s*["'']?(?:bearer|basic)|bearer)\s+[A-Za-z0-9._~+/=-]{8,}',
        '\1 [redacted]', 'gi'),
        '((?:password|passwd|pwd|secret|api[-_]?key|access[-_]?key|token)\\?["'']?\s*[:=]\s*\\?["'']?)([^\s"''\\,;&}]{3,})',
        '\1[redacted]', 'gi');
COMMENT ON FUNCTION prometheus._redact(text) IS
    'A text without what looks like a key, a password or a token.';

/*
 * What spans tell of a text of the contents, by prometheus.capture_content.
 * Not STRICT, so that they are inlined, and cost next to nothing where it is
 * off.
 */
CREATE FUNCTION prometheus._captured(value text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN current_setting('prometheus.capture_content') = 'full'
                THEN CASE WHEN length(value) > 32768
                          THEN prometheus._redact(left(value, 32768))
                               || ' [cut]'
                          ELSE prometheus._redact(value) END END;
COMMENT ON FUNCTION prometheus._captured(text) IS
    'A text for a span: redacted, and its first 32768 characters; null unless prometheus.capture_content is full.';

CREATE FUNCTION prometheus._captured_bytes(value text) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN current_setting('prometheus.capture_content') <> 'off'
                THEN octet_length(value) END;
COMMENT ON FUNCTION prometheus._captured_bytes(text) IS
    'How long a text is, for a span, bytes; null if prometheus.capture_content is off.';

CREATE FUNCTION prometheus._captured_message(role text, content text)
RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN current_setting('prometheus.capture_content') = 'full'
                     AND content IS NOT NULL
                THEN jsonb_build_array(jsonb_build_object(
                     'role', role,
                     'parts', jsonb_build_array(jsonb_build_object(
                         'type', 'text',
                         'content', prometheus._captured(content)))))::text
                END;
COMMENT ON FUNCTION prometheus._captured_message(text, text) IS
    'A message as gen_ai.input.messages and gen_ai.output.messages have it, as text; null unless prometheus.capture_content is full.';

/*
 * As with prometheus.event, the SELECT around the UNION ALL keeps the barrier.
 * Nothing here may say what was asked or answered, but by the functions above,
 * nor quote an error.
 */
CREATE VIEW prometheus._every_span WITH (security_barrier) AS
SELECT s.*
  FROM (
       SELECT t.task_id,
              replace(t.trace_id::text, '-', '') AS trace_id,
              lpad(to_hex(t.event_id), 16, '0') AS span_id,
              substr(t.traceparent, 37, 16) AS parent_span_id,
              'invoke_agent ' || t.agent AS name,
              'internal' AS kind,
              t.submitted_at AS started_at,
              e.ended_at,
              CASE WHEN e.outcome = 'completed' THEN 'ok'
                   WHEN e.outcome <> 'cancelled' THEN 'error'
                   ELSE 'unset' END AS status,
              jsonb_strip_nulls(jsonb_build_object(
                  'gen_ai.operation.name', 'invoke_agent',
                  'gen_ai.provider.name', p.provider,
                  'gen_ai.agent.name', t.agent,
                  'gen_ai.agent.version', a.agent_version::text,
                  'gen_ai.conversation.id', t.conversation,
                  'gen_ai.request.model', p.model,
                  'gen_ai.usage.input_tokens', u.tokens_in,
                  'gen_ai.usage.output_tokens', u.tokens_out,
                  'gen_ai.usage.cache_read.input_tokens', u.cached_tokens,
                  'gen_ai.usage.reasoning.output_tokens',
                  u.reasoning_tokens,
                  'gen_ai.output.type',
                  CASE WHEN t.output_schema IS NOT NULL THEN 'json' END,
                  'gen_ai.input.messages',
                  prometheus._captured_message('user', t.request),
                  'gen_ai.output.messages',
                  prometheus._captured_message('assistant', w.answer),
                  'error.type',
                  CASE WHEN e.outcome NOT IN ('completed', 'cancelled')
                       THEN coalesce(e.error_type, '_OTHER') END,
                  'prometheus.request_bytes',
                  prometheus._captured_bytes(t.request),
                  'prometheus.task_id', t.task_id,
                  'prometheus.parent_task_id', t.parent_id,
                  'prometheus.attempt', a.attempt,
                  'prometheus.outcome', e.outcome,
                  'prometheus.cost', u.cost,
                  'prometheus.submitter', t.submitter)) AS attributes
         FROM prometheus._visible_task t
         LEFT JOIN LATERAL (
              SELECT x.attempt, x.agent_version, x.model, x.model_version
                FROM prometheus._attempt x
               WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
               ORDER BY x.attempt DESC LIMIT 1) a ON true
         LEFT JOIN prometheus._peer p
              ON p.name = a.model AND p.version = a.model_version
         LEFT JOIN LATERAL (
              SELECT x.attempt, x.outcome, x.step, x.ended_at, x.error_type
                FROM prometheus._outcome x
               WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)
               ORDER BY x.attempt DESC LIMIT 1) o ON true
         LEFT JOIN LATERAL (
              SELECT o.outcome, o.step, o.ended_at, o.error_type
               WHERE o.outcome NOT IN ('retry', 'waiting', 'lost')
                 AND NOT EXISTS (
                     SELECT FROM prometheus._retry x
                      WHERE x.task_id = t.task_id
                        AND x.attempt >= o.attempt
                        AND prometheus._seen(x.xid))) e ON true
         LEFT JOIN prometheus._step w
              ON w.task_id = t.task_id AND w.step = e.step
                 AND e.outcome = 'completed'
                 AND current_setting('prometheus.capture_content') = 'full'
         LEFT JOIN LATERAL (
              SELECT sum(x.tokens_in) AS tokens_in,
                     sum(x.tokens_out) AS tokens_out,
                     sum(x.cached_tokens) AS cached_tokens,
                     sum(x.reasoning_tokens) AS reasoning_tokens,
                     sum(x.cost) AS cost
                FROM prometheus._step x
               WHERE x.task_id = t.task_id AND prometheus._seen(x.xid)) u
              ON true
        WHERE prometheus._seen(t.xid)
       UNION ALL
       SELECT t.task_id,
              replace(t.trace_id::text, '-', ''),
              lpad(to_hex(s.event_id), 16, '0'),
              lpad(to_hex(t.event_id), 16, '0'),
              CASE s.kind WHEN 'tool' THEN 'execute_tool ' || s.name
                          WHEN 'embed'
                          THEN 'embeddings ' || coalesce(s.model, s.name)
                          ELSE s.kind || ' ' || coalesce(s.model, s.name) END,
              CASE WHEN s.call_id IS NULL THEN 'internal' ELSE 'client' END,
              s.started_at,
              s.ended_at,
              CASE s.status WHEN 'ok' THEN 'ok'
                            WHEN 'unknown' THEN 'unset'
                            ELSE 'error' END,
              jsonb_strip_nulls(jsonb_build_object(
                  'gen_ai.operation.name',
                  CASE s.kind WHEN 'tool' THEN 'execute_tool'
                              WHEN 'embed' THEN 'embeddings'
                              ELSE s.kind END,
                  'gen_ai.tool.name',
                  CASE s.kind WHEN 'tool' THEN s.name END,
                  'gen_ai.tool.type',
                  CASE WHEN s.kind = 'tool' AND s.call_id IS NULL
                       THEN 'function'
                       WHEN s.kind = 'tool' THEN 'extension' END,
                  'gen_ai.tool.call.arguments',
                  CASE s.kind WHEN 'tool'
                       THEN prometheus._captured(s.arguments) END,
                  'gen_ai.tool.call.result',
                  CASE s.kind WHEN 'tool'
                       THEN prometheus._captured(s.answer) END,
                  'gen_ai.output.messages',
                  CASE WHEN s.kind <> 'tool'
                       THEN prometheus._captured_message('assistant', s.answer)
                       END,
                  'gen_ai.provider.name', p.provider,
                  'gen_ai.agent.name', t.agent,
                  'gen_ai.conversation.id', t.conversation,
                  'gen_ai.request.model', s.model,
                  'gen_ai.request.max_tokens', p.options -> 'max_tokens',
                  'gen_ai.request.temperature', p.options -> 'temperature',
                  'gen_ai.usage.input_tokens', s.tokens_in,
                  'gen_ai.usage.output_tokens', s.tokens_out,
                  'gen_ai.usage.cache_read.input_tokens', s.cached_tokens,
                  'gen_ai.usage.reasoning.output_tokens',
                  s.reasoning_tokens,
                  'gen_ai.response.finish_reasons',
                  CASE WHEN s.finish_reason IS NOT NULL
                       THEN jsonb_build_array(s.finish_reason) END,
                  'gen_ai.response.time_to_first_chunk',
                  CASE WHEN p.options -> 'stream' IS DISTINCT FROM 'false'
                       THEN trim_scale(s.first_byte_ms::numeric / 1000) END,
                  'server.address', p.address,
                  'server.port', p.port,
                  'error.type',
                  CASE WHEN s.status NOT IN ('ok', 'unknown')
                       THEN coalesce(s.error_type, '_OTHER') END,
                  'prometheus.answer_bytes',
                  prometheus._captured_bytes(s.answer),
                  'prometheus.task_id', s.task_id,
                  'prometheus.attempt', s.attempt,
                  'prometheus.step', s.step,
                  'prometheus.cost', s.cost))
         FROM prometheus._step s
         JOIN prometheus._visible_task t ON t.task_id = s.task_id
         LEFT JOIN prometheus._attempt a
              ON a.task_id = s.task_id AND a.attempt = s.attempt
         LEFT JOIN prometheus._peer p
              ON p.name = CASE
                     WHEN s.kind IN ('chat', 'plan', 'reflect') THEN a.model
                     WHEN s.kind IN ('review', 'embed')
                     THEN prometheus._json(s.arguments) ->> 'model' END
                 AND p.version = CASE
                     WHEN s.kind IN ('chat', 'plan', 'reflect')
                     THEN a.model_version
                     WHEN s.kind IN ('review', 'embed')
                     THEN (prometheus._json(s.arguments)
                         ->> 'version')::bigint END
        WHERE prometheus._seen(s.xid)
       UNION ALL
       SELECT t.task_id,
              replace(t.trace_id::text, '-', ''),
              lpad(to_hex(c.call_id), 16, '0'),
              lpad(to_hex(coalesce(s.event_id, t.event_id)), 16, '0'),
              coalesce(h.method, 'POST'),
              'client',
              c.sent_at,
              coalesce(s.ended_at, o.ended_at),
              CASE WHEN s.status = 'ok' THEN 'ok'
                   WHEN s.status IS NOT NULL OR o.outcome IS NOT NULL
                   THEN 'error'
                   ELSE 'unset' END,
              jsonb_strip_nulls(jsonb_build_object(
                  'http.request.method', coalesce(h.method, 'POST'),
                  'http.response.status_code', s.http_status,
                  'url.full', p.url,
                  'url.template', h.url,
                  'server.address', coalesce(p.address, h.address),
                  'server.port', coalesce(p.port, h.port),
                  'error.type',
                  CASE WHEN s.status = 'ok' THEN NULL
                       WHEN s.http_status >= 400 THEN s.http_status::text
                       WHEN s.status IS NOT NULL
                       THEN coalesce(s.error_type, '_OTHER')
                       WHEN o.outcome IN ('lost', 'quarantined')
                       THEN 'abandoned'
                       WHEN o.outcome = 'cancelled' THEN 'cancelled'
                       WHEN o.outcome IS NOT NULL
                       THEN coalesce(o.error_type, '_OTHER') END,
                  'prometheus.task_id', c.task_id,
                  'prometheus.attempt', c.attempt,
                  'prometheus.turn', c.turn,
                  'prometheus.call', c.call,
                  'prometheus.target', c.target,
                  'prometheus.ambiguous',
                  CASE WHEN s.status = 'ok' THEN NULL
                       WHEN s.ambiguous OR s.status IS NULL
                           AND o.outcome IS NOT NULL THEN true END,
                  'prometheus.request_id', s.request_id,
                  'prometheus.connect_ms', s.connect_ms::numeric,
                  'prometheus.first_byte_ms', s.first_byte_ms::numeric))
         FROM prometheus._call c
         JOIN prometheus._visible_task t ON t.task_id = c.task_id
         LEFT JOIN prometheus._step s
              ON s.task_id = c.task_id AND s.call_id = c.call_id
                 AND prometheus._seen(s.xid)
         LEFT JOIN prometheus._outcome o
              ON o.task_id = c.task_id AND o.attempt = c.attempt
                 AND prometheus._seen(o.xid)
         LEFT JOIN prometheus._attempt a
              ON a.task_id = c.task_id AND a.attempt = c.attempt
         LEFT JOIN prometheus._peer p
              ON c.kind <> 'tool'
                 AND p.name = CASE WHEN c.kind IN ('review', 'embed')
                     THEN substr(c.target, 7)
                     ELSE a.model END
                 AND p.version = CASE
                     WHEN c.kind IN ('review', 'embed') AND s.step IS NOT NULL
                     THEN (prometheus._json(s.arguments)
                         ->> 'version')::bigint
                     WHEN c.kind NOT IN ('review', 'embed') OR p.name = a.model
                     THEN a.model_version
                     ELSE (SELECT max(m.version) FROM prometheus._model m
                            WHERE m.name = p.name
                              AND prometheus._seen(m.xid)) END
         LEFT JOIN LATERAL (
              SELECT x.method, x.url,
                     btrim(substring(x.url, '://([[][^]]*[]]|[^/:]+)'), '[]')
                         AS address,
                     coalesce(
                         substring(x.url,
                             '://(?:[[][^]]*[]]|[^/:]+):([0-9]{1,5})'),
                         CASE WHEN x.url ~* '^https:' THEN '443'
                              ELSE '80' END)::integer AS port
                FROM prometheus._agent g
                JOIN prometheus._tool x
                     ON x.name = substr(c.target, 6) AND x.version =
                        a.tool_versions[array_position(g.tools, x.name)]
               WHERE c.kind = 'tool' AND g.name = t.agent
                 AND g.version = a.agent_version LIMIT 1) h ON true
        WHERE prometheus._seen(c.xid)
       UNION ALL -- reviews by rules: of requests that they allowed, of all else
       SELECT t.task_id,
              replace(t.trace_id::text, '-', ''),
              prometheus._review_id(t.event_id, r.attempt, r.step, r.stage,
                                    r.policy, r.effect),
              lpad(to_hex(t.event_id), 16, '0'),
              'review ' || r.stage,
              'internal',
              greatest(r.started_at, t.submitted_at),
              greatest(r.started_at, t.submitted_at,
                       least(r.ended_at, o.ended_at)),
              CASE WHEN r.approved THEN 'ok'
                   WHEN r.effect = 'escalate' THEN 'unset'
                   ELSE 'error' END,
              jsonb_strip_nulls(jsonb_build_object(
                  'gen_ai.operation.name', 'review',
                  'gen_ai.agent.name', t.agent,
                  'gen_ai.guardrail.component.name', r.governor,
                  'gen_ai.guardrail.verdict.type', r.effect,
                  'gen_ai.guardrail.target.type',
                  CASE r.stage WHEN 'answer' THEN 'output' ELSE 'input' END,
                  'gen_ai.guardrail.target.subtype',
                  CASE r.stage WHEN 'tool' THEN 'tool_call' ELSE 'llm' END,
                  'gen_ai.security.policy.id', r.policy,
                  'error.type',
                  CASE WHEN NOT r.approved AND r.effect <> 'escalate'
                       THEN 'GovernanceVeto' END,
                  'prometheus.task_id', t.task_id,
                  'prometheus.attempt', r.attempt,
                  'prometheus.step', r.step,
                  'prometheus.risk_level', r.risk_level,
                  'prometheus.policy_version', r.policy_version))
         FROM prometheus._visible_task t
        CROSS JOIN LATERAL (
              SELECT a.attempt, NULL::integer AS step, 'task' AS stage,
                     true AS approved, 'allow' AS effect, 'LOW' AS risk_level,
                     'JUSTICA' AS governor, NULL AS policy, a.policy_version,
                     a.started_at,
                     a.started_at + a.review_ms * interval '1 ms' AS ended_at
                FROM prometheus._attempt a
               WHERE a.task_id = t.task_id AND a.policy_version IS NOT NULL
                 AND prometheus._seen(a.xid)
                 AND NOT EXISTS (
                     SELECT FROM prometheus._verdict x
                      WHERE x.task_id = a.task_id AND x.attempt = a.attempt
                        AND x.stage = 'task'
                        AND x.governor IN ('JUSTICA', 'policy')
                        AND prometheus._seen(x.xid))
              UNION ALL
              SELECT x.attempt, x.step, x.stage, x.approved, x.effect,
                     x.risk_level, x.governor, x.policy, x.policy_version,
                     x.judged_at - x.latency_ms * interval '1 ms', x.judged_at
                FROM prometheus._verdict x
               WHERE x.task_id = t.task_id
                 AND x.governor IN ('JUSTICA', 'policy')
                 AND prometheus._seen(x.xid)
                 AND NOT EXISTS ( -- with conditions they are a step
                     SELECT FROM prometheus._step s
                      WHERE s.task_id = x.task_id AND s.attempt = x.attempt
                        AND s.kind = 'review' AND s.name = x.stage
                        AND x.stage <> 'tool'
                        AND prometheus._seen(s.xid))) r
         LEFT JOIN prometheus._outcome o
              ON o.task_id = t.task_id AND o.attempt = r.attempt
                 AND prometheus._seen(o.xid)
       UNION ALL -- events that were pushed; what is now, so not under AS OF
       SELECT t.task_id,
              replace(t.trace_id::text, '-', ''),
              lpad(to_hex(d.delivery_id), 16, '0'),
              lpad(to_hex(coalesce(s.event_id, t.event_id)), 16, '0'),
              CASE WHEN b.url IS NULL THEN 'process ' ELSE 'send ' END
                  || d.subscription,
              CASE WHEN b.url IS NULL THEN 'consumer' ELSE 'client' END,
              d.created_at,
              d.ended_at,
              CASE d.status WHEN 'delivered' THEN 'ok'
                            WHEN 'dead' THEN 'error'
                            ELSE 'unset' END,
              jsonb_strip_nulls(jsonb_build_object(
                  'messaging.system', 'prometheus',
                  'messaging.operation.name',
                  CASE WHEN b.url IS NULL THEN 'process' ELSE 'send' END,
                  'messaging.operation.type',
                  CASE WHEN b.url IS NULL THEN 'process' ELSE 'send' END,
                  'messaging.destination.subscription.name', d.subscription,
                  'messaging.message.id', d.event_id::text,
                  'http.request.method',
                  CASE WHEN b.url IS NOT NULL THEN 'POST' END,
                  'http.response.status_code', d.http_status,
                  'error.type',
                  CASE WHEN d.status = 'dead'
                       THEN CASE WHEN d.http_status >= 400
                                 THEN d.http_status::text
                                 ELSE '_OTHER' END END,
                  'prometheus.task_id', d.task_id,
                  'prometheus.attempts', d.attempts,
                  'prometheus.delivery', d.status))
         FROM prometheus._delivery d
         JOIN prometheus._visible_task t ON t.task_id = d.task_id
         JOIN prometheus._subscription b ON b.name = d.subscription
         LEFT JOIN prometheus._step s
              ON s.task_id = d.task_id AND s.event_id = d.event_id
        WHERE prometheus._may_see(b.owner, b.owner_oid)
          AND prometheus._moment() IS NULL
       UNION ALL -- of applications
       SELECT NULL,
              replace(x.trace_id::text, '-', ''),
              lpad(to_hex(x.span_id), 16, '0'),
              lpad(to_hex(x.parent_span_id), 16, '0'),
              x.name,
              'internal',
              x.started_at,
              x.ended_at,
              x.status,
              prometheus._span_attributes(x.attributes, x.status,
                                          x.error_type, x.owner)
         FROM prometheus._span x
        WHERE prometheus._may_see(x.owner, x.owner_oid)
          AND prometheus._seen(x.xid)) s;
COMMENT ON VIEW prometheus._every_span IS
    'What prometheus.span shows, each with the task that it is of, by which it is found; null: of an application.';

CREATE VIEW prometheus.span WITH (security_barrier) AS
SELECT s.trace_id, s.span_id, s.parent_span_id, s.name, s.kind, s.started_at,
       s.ended_at, s.status, s.attributes
  FROM prometheus._every_span s;
COMMENT ON VIEW prometheus.span IS
    'The traces of the tasks that you may see, read from their facts: each task, its reviews, its steps, their calls, and what was pushed of its events to subscriptions that you may see; and the spans of applications (prometheus_span_start()) of the roles that you have. Ids as in W3C Trace Context, names and attributes as in the OpenTelemetry semantic conventions for generative AI, HTTP and messaging (1.41); what was asked and answered only if prometheus.capture_content says so.';
COMMENT ON COLUMN prometheus.span.trace_id IS
    'The trace: 32 hexadecimal digits (W3C Trace Context), prometheus.task.trace_id.';
COMMENT ON COLUMN prometheus.span.span_id IS
    'Its id: 16 hexadecimal digits (W3C Trace Context), unique in the database: the event_id of a task or a step, the call_id of a call, the delivery_id of a delivery; of a review by rules one that begins with f, of one of an application one that begins with 8 to f.';
COMMENT ON COLUMN prometheus.span.parent_span_id IS
    'The span that it is a part of: of a call its step (its task, if no step was recorded), of a step and of a review its task, of a delivery the task or step whose event it is, of a task the one in the traceparent that it was submitted with; null: the root of its trace.';
COMMENT ON COLUMN prometheus.span.name IS
    'As OpenTelemetry names it: invoke_agent AGENT, chat MODEL, review MODEL, execute_tool TOOL; of a call the method, POST; review STAGE (by rules); of a delivery process or send (a webhook) and the SUBSCRIPTION; of an application as it was given.';
COMMENT ON COLUMN prometheus.span.kind IS
    'OpenTelemetry SpanKind: internal, client (it is, or makes, a request on the network), or consumer (a function was given an event).';
COMMENT ON COLUMN prometheus.span.started_at IS
    'When the task was submitted, the step begun, the request sent, the event taken for the subscription.';
COMMENT ON COLUMN prometheus.span.ended_at IS
    'When it ended; null: it is open. A call of which no reply was recorded ends with its attempt.';
COMMENT ON COLUMN prometheus.span.status IS
    'ok, error (attributes has error.type), or unset: it is open, was cancelled, or nobody knows.';
COMMENT ON COLUMN prometheus.span.attributes IS
    'By the names of the OpenTelemetry semantic conventions, what is prometheus''s own by prometheus.NAME; README lists them. time_to_first_chunk in seconds, connect_ms and first_byte_ms (from the start of the request) in milliseconds, cost in the unit of the prices.';

/*
 * By task first: it makes one row of the steps of a task and day, which then
 * count as one task, and is twice as fast as count(DISTINCT task_id).
 */
CREATE VIEW prometheus._used WITH (security_barrier) AS
SELECT s.task_id,
       (s.ended_at AT TIME ZONE 'UTC')::date AS day,
       s.model,
       1 AS tasks,
       count(s.call_id) AS calls,
       sum(s.tokens_in) AS tokens_in,
       sum(s.tokens_out) AS tokens_out,
       sum(s.cost) AS cost
  FROM prometheus._step s
 WHERE s.model IS NOT NULL -- others use none
   AND prometheus._seen(s.xid)
 GROUP BY 1, 2, 3
UNION ALL
-- requests of which no reply was recorded
SELECT c.task_id, (o.ended_at AT TIME ZONE 'UTC')::date, p.model, 0, 1,
       NULL, NULL, NULL
  FROM prometheus._outcome o
  JOIN prometheus._call c
       ON c.task_id = o.task_id AND c.attempt = o.attempt
  LEFT JOIN prometheus._attempt a
       ON a.task_id = c.task_id AND a.attempt = c.attempt
  LEFT JOIN prometheus._peer p
       ON c.kind <> 'tool'
          AND p.name = CASE WHEN c.kind IN ('review', 'embed')
              THEN substr(c.target, 7)
              ELSE a.model END
          AND p.version = CASE
              WHEN c.kind NOT IN ('review', 'embed') OR p.name = a.model
              THEN a.model_version
              ELSE (SELECT max(m.version) FROM prometheus._model m
                     WHERE m.name = p.name
                       AND prometheus._seen(m.xid)) END
 WHERE o.outcome NOT IN ('completed', 'retry')
   AND prometheus._seen(o.xid)
   AND c.kind <> 'tool'
   AND NOT EXISTS (
       SELECT FROM prometheus._step s
        WHERE s.task_id = c.task_id AND s.call_id = c.call_id
          AND prometheus._seen(s.xid));
COMMENT ON VIEW prometheus._used IS
    'What each task has used, by day and model; read from its steps and calls.';

-- The SELECT around the UNION ALL is not idle: see prometheus.event.
CREATE VIEW prometheus.usage WITH (security_barrier) AS
SELECT u.day,
       u.agent,
       u.model,
       u.submitter,
       sum(u.tasks)::bigint AS tasks,
       sum(u.calls)::bigint AS calls,
       sum(u.tokens_in)::bigint AS tokens_in,
       sum(u.tokens_out)::bigint AS tokens_out,
       sum(u.cost) AS cost
  FROM (
       SELECT x.day, t.agent, x.model, t.submitter, x.tasks, x.calls,
              x.tokens_in, x.tokens_out, x.cost
         FROM prometheus._used x
         JOIN prometheus._visible_task t ON t.task_id = x.task_id
       UNION ALL -- by tasks that were deleted
       SELECT x.day, x.agent, x.model, x.submitter, x.tasks, x.calls,
              x.tokens_in, x.tokens_out, x.cost
         FROM prometheus._audit_usage x
        WHERE prometheus._seen(x.xid)
          AND (prometheus._may_see(x.submitter, x.submitter_oid)
           OR x.agent = ANY (ARRAY(
              SELECT n.name FROM prometheus._agent n
               WHERE prometheus._may_see(n.owner, n.owner_oid))))) u
 GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW prometheus.usage IS
    'What the tasks that you may see have used, by day, agent, model and submitter; read from their steps and calls, and of those that were deleted since, for prometheus.retention_audit.';
COMMENT ON COLUMN prometheus.usage.day IS 'The day, in UTC, on which the steps ended.';
COMMENT ON COLUMN prometheus.usage.agent IS 'The tasks'' agent.';
COMMENT ON COLUMN prometheus.usage.model IS 'The provider''s name of the model.';
COMMENT ON COLUMN prometheus.usage.submitter IS 'The role that submitted the tasks.';
COMMENT ON COLUMN prometheus.usage.tasks IS
    'Tasks with a step of that day and model. One that goes on over midnight is counted on both days.';
COMMENT ON COLUMN prometheus.usage.calls IS
    'Requests sent on the network, also those of which no reply was recorded: these on the day on which their attempt ended.';
COMMENT ON COLUMN prometheus.usage.tokens_in IS 'Tokens of all prompts, as the providers counted them; null: not reported.';
COMMENT ON COLUMN prometheus.usage.tokens_out IS 'Tokens of all replies, as the providers counted them; null: not reported.';
COMMENT ON COLUMN prometheus.usage.cost IS 'Tokens times the prices of the models, in the unit of the prices; null: not known.';

/*
 * A task as text.  This file is ASCII, so that the extension can be made in a
 * database of any encoding; signs beyond ASCII are for UTF8 only.
 */
CREATE FUNCTION prometheus._duration(seconds numeric) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN (SELECT round(r.number, r.digits) || ' ' || r.unit
              FROM (SELECT u.*,
                           CASE WHEN u.place = 1 THEN 0
                                WHEN u.number < 9.995 THEN 2
                                WHEN u.number < 99.95 THEN 1
                                ELSE 0 END AS digits
                      FROM (VALUES
                           (1, seconds * 1000000, 1000,
                            CASE getdatabaseencoding() WHEN 'UTF8' THEN
                                convert_from(decode('c2b5', 'hex'), 'UTF8')
                            ELSE 'u' END || 's'),
                           (2, seconds * 1000, 1000, 'ms'),
                           (3, seconds, 60, 's'),
                           (4, seconds / 60, 60, 'min'),
                           (5, seconds / 3600, 24, 'h'),
                           (6, seconds / 86400, NULL, 'd'))
                           AS u(place, number, below, unit)) r
             WHERE round(r.number, r.digits) < r.below OR r.below IS NULL
             ORDER BY r.place LIMIT 1);
COMMENT ON FUNCTION prometheus._duration(numeric) IS
    'Seconds for people: three digits and the unit that suits.';

CREATE FUNCTION prometheus._count(number numeric) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT round(r.number, r.digits) || r.unit
              FROM (SELECT u.*,
                           CASE WHEN u.place = 1 THEN 0
                                WHEN u.number < 9.995 THEN 2
                                WHEN u.number < 99.95 THEN 1
                                ELSE 0 END AS digits
                      FROM (VALUES (1, number, 10000, ''),
                                   (2, number / 1000, 1000, 'k'),
                                   (3, number / 1000000, 1000, 'M'),
                                   (4, number / 1000000000, NULL, 'G'))
                           AS u(place, number, below, unit)) r
             WHERE round(r.number, r.digits) < r.below OR r.below IS NULL
             ORDER BY r.place LIMIT 1);
COMMENT ON FUNCTION prometheus._count(numeric) IS
    'A number of tokens for people: up to four digits, or three and k, M or G.';

CREATE FUNCTION prometheus._cost(cost numeric) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN cost = 0 THEN '0'
                WHEN cost < 0.00000005 THEN '<0.0000001'
                ELSE trim_scale(round(cost,
                     least(7, greatest(2, 2 - floor(log(cost))))::integer))
                     ::text END;
COMMENT ON FUNCTION prometheus._cost(numeric) IS
    'A cost for people: three digits, or to the hundredth.';

CREATE FUNCTION prometheus._columns(value text) RETURNS integer
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN CASE getdatabaseencoding() WHEN 'UTF8'
                THEN length(value) + length(regexp_replace(value,
                     $re$[^\u1100-\u115f\u2600-\u27bf\u2b00-\u2bff$re$
                     || $re$\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7a3$re$
                     || $re$\uf900-\ufaff\ufe10-\ufe6f\uff00-\uff60$re$
                     || $re$\uffe0-\uffe6\U0001f000-\U0001faff$re$
                     || $re$\U00020000-\U0003fffd]+$re$,
                     '', 'g'))
                ELSE octet_length(value) END;
COMMENT ON FUNCTION prometheus._columns(text) IS
    'The columns of a terminal that a text takes, at most; East Asian characters and emoji take two.';

CREATE FUNCTION prometheus._fold(value text, columns integer, lines integer)
RETURNS text[]
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_utf8 CONSTANT boolean := getdatabaseencoding() = 'UTF8';
    rest text := left(value, 4 * columns * lines);
    mark text := '...';
    folded text[] := '{}';
    line text;
BEGIN
    -- Nothing that moves the cursor or the direction of writing.
    rest := regexp_replace(rest, '[[:cntrl:][:space:]]+', ' ', 'g');
    IF is_utf8 THEN
        mark := chr(8230);
        rest := regexp_replace(rest,
            $re$[\u0080-\u00a0\u00ad\u061c\u200b-\u200f\u2028-\u202f$re$
            || $re$\u2060-\u206f\ufeff\U000e0000-\U000e0fff]+$re$,
            ' ', 'g');
    END IF;
    rest := btrim(rest);
    WHILE prometheus._columns(rest) > columns LOOP
        line := left(rest, columns + 1);
        IF cardinality(folded) = lines - 1 THEN
            line := left(line, columns - length(mark));
            WHILE prometheus._columns(line) > columns - length(mark) LOOP
                line := left(line, -1);
            END LOOP;
            RETURN folded || (rtrim(line) || mark);
        END IF;
        WHILE prometheus._columns(rtrim(line)) > columns LOOP
            line := left(line, -1);
        END LOOP;
        -- At a blank, unless that is far off.
        IF length(substring(line, '^(.*) ')) * 2 > length(line) THEN
            line := substring(line, '^(.*) ');
        END IF;
        folded := folded || rtrim(line);
        rest := ltrim(substr(rest, length(line) + 1));
    END LOOP;
    RETURN folded || rest;
END
$$;
COMMENT ON FUNCTION prometheus._fold(text, integer, integer) IS
    'A text in lines of so many columns, and so many lines; what does not fit is cut off.';

CREATE FUNCTION prometheus._bar(
    first numeric,
    last numeric,
    columns integer,
    is_wait boolean,
    is_open boolean)
RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_utf8 CONSTANT boolean := getdatabaseencoding() = 'UTF8';
    blanks CONSTANT integer :=
        least(greatest(floor(first * columns), 0), columns - 1);
    -- in eighths of a column
    size integer := greatest(round((least(last, 1) * columns - blanks) * 8), 1);
    bar text;
BEGIN
    IF (last - first) * columns * 8 < 1 THEN
        size := 1;
    END IF;
    IF is_utf8 AND NOT is_wait THEN
        bar := repeat(chr(9608), size / 8);
        IF size % 8 > 0 THEN
            bar := bar || chr(9616 - size % 8);
        END IF;
    ELSE
        size := greatest(round(size / 8.0), 1);
        IF NOT is_utf8 THEN
            bar := repeat(CASE WHEN is_wait THEN '.' ELSE '#' END, size);
        ELSE
            bar := repeat(chr(9617), size);
        END IF;
    END IF;
    IF is_open THEN
        bar := left(bar, -1) || '>';
    END IF;
    RETURN rpad(repeat(' ', blanks) || bar, columns);
END
$$;
COMMENT ON FUNCTION prometheus._bar(
    numeric, numeric, integer, boolean, boolean) IS
    'A bar from first to last, as parts of 1, in so many columns; light if it is a wait, an arrow if it is open.';

/*
 * What a task did and waited for, a row each, in the order in which it is
 * drawn: below a step its calls, what it delegated and its error.
 */
CREATE FUNCTION prometheus._timeline(
    task_id bigint,
    submitted_at timestamptz,
    has_ended boolean)
RETURNS TABLE (
    place bigint[],
    indent integer,
    kind text,
    name text,
    status text,
    started_at timestamptz,
    ended_at timestamptz,
    tokens_in bigint,
    tokens_out bigint,
    cost numeric,
    error text)
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE attempt AS (
    SELECT a.attempt, a.outcome, a.started_at, a.ended_at,
           coalesce(a.started_at, a.ended_at) AS at, a.error,
           concat_ws(': ', a.error_type, a.error) AS reason
      FROM prometheus.attempt a
     WHERE a.task_id = _timeline.task_id
), pause AS (
    -- before each attempt, and after the last
    SELECT a.attempt,
           CASE coalesce(lag(a.outcome) OVER before, '')
                WHEN '' THEN 'queued'
                WHEN 'retry' THEN 'back-off'
                WHEN 'waiting' THEN 'waiting'
                WHEN 'lost' THEN 'restart'
                ELSE 'retried by hand' END AS name,
           coalesce(lag(a.ended_at) OVER before,
                    _timeline.submitted_at) AS started_at,
           a.at AS ended_at
      FROM (TABLE attempt
            UNION ALL
            SELECT 2147483647, NULL, NULL, NULL, NULL, NULL, NULL
             WHERE NOT has_ended
               AND NOT EXISTS (SELECT FROM attempt b
                                WHERE b.ended_at IS NULL)) a
    WINDOW before AS (ORDER BY a.attempt)
), step AS (
    SELECT s.step, s.attempt, s.kind, s.name, s.status, s.model,
           s.started_at,
           s.started_at + s.duration_ms * interval '1 ms' AS ended_at,
           s.tokens_in, s.tokens_out, s.cost, s.error,
           row_number() OVER (PARTITION BY s.attempt, s.started_at
                                  ORDER BY s.step) AS place
      FROM prometheus.step s
     WHERE s.task_id = _timeline.task_id
), call AS (
    SELECT c.attempt, c.turn, c.call, c.status, c.http_status,
           c.sent_at, c.ended_at, s.step
      FROM (SELECT k.*,
                   row_number() OVER (PARTITION BY k.attempt, k.sent_at
                                          ORDER BY k.turn, k.call)
                       AS place
              FROM prometheus.call k
             WHERE k.task_id = _timeline.task_id) c
      LEFT JOIN step s
           ON s.attempt = c.attempt AND s.started_at = c.sent_at
              AND s.ended_at = c.ended_at AND s.place = c.place
), child AS (
    SELECT t.task_id, t.agent, t.status, t.submitted_at, t.ended_at,
           t.tokens_in, t.tokens_out, t.cost, ARRAY[t.task_id] AS path
      FROM prometheus.task t
     WHERE t.parent_id = _timeline.task_id
    UNION ALL
    -- LIMIT, or the view would be read as a whole
    SELECT t.task_id, t.agent, t.status, t.submitted_at, t.ended_at,
           t.tokens_in, t.tokens_out, t.cost, c.path || t.task_id
      FROM child c
     CROSS JOIN LATERAL (
           SELECT x.* FROM prometheus.task x
            WHERE x.parent_id = c.task_id LIMIT 1000) t
), item AS (
    SELECT ARRAY[p.attempt, 0]::bigint[] AS place, 0 AS indent,
           'wait' AS kind, p.name, NULL AS status, p.started_at,
           p.ended_at, NULL::bigint AS tokens_in,
           NULL::bigint AS tokens_out, NULL::numeric AS cost,
           NULL AS error
      FROM pause p
     WHERE p.started_at IS DISTINCT FROM p.ended_at
    UNION ALL
    SELECT ARRAY[a.attempt, 1]::bigint[], 0, 'attempt',
           CASE WHEN a.started_at IS NULL THEN a.outcome
                ELSE format('attempt %s: %s', a.attempt,
                            coalesce(a.outcome, 'running')) END,
           a.outcome, a.at, a.ended_at, NULL, NULL, NULL, NULL
      FROM attempt a
    UNION ALL
    SELECT ARRAY[s.attempt, 2, s.step, 0]::bigint[], 2, s.kind,
           s.kind || ' ' || coalesce(s.model, s.name), s.status,
           s.started_at, s.ended_at, s.tokens_in, s.tokens_out,
           s.cost, NULL
      FROM step s
    UNION ALL
    SELECT ARRAY[c.attempt, 2, coalesce(c.step, 2147483647), 1,
                 c.turn, c.call]::bigint[],
           CASE WHEN c.step IS NULL THEN 2 ELSE 4 END, 'call',
           'POST' || CASE WHEN c.status = 'ambiguous'
                          THEN ' ' || concat_ws(' ', c.http_status,
                                                c.status)
                          WHEN c.http_status IS NOT NULL
                          THEN ' ' || c.http_status
                          WHEN c.status = 'failed'
                          THEN ' failed' ELSE '' END,
           c.status, c.sent_at, c.ended_at, NULL, NULL, NULL, NULL
      FROM call c
    UNION ALL
    -- behind what it was submitted by
    SELECT ARRAY[a.attempt, 2, coalesce(s.step, 0), 3] || c.path,
           least(2 + 2 * cardinality(c.path), 12), 'task',
           'task ' || c.task_id || ' ' || c.agent
               || CASE WHEN c.status = 'completed' THEN ''
                       ELSE ': ' || c.status END,
           c.status, c.submitted_at, c.ended_at, c.tokens_in,
           c.tokens_out, c.cost, NULL
      FROM child c
      JOIN child r ON r.task_id = c.path[1]
     CROSS JOIN LATERAL (
           SELECT max(x.attempt) AS attempt FROM attempt x
            WHERE x.started_at <= r.submitted_at) a
     CROSS JOIN LATERAL (
           SELECT max(x.step) AS step FROM step x
            WHERE x.attempt = a.attempt
              AND x.started_at <= r.submitted_at) s
    UNION ALL
    SELECT ARRAY[s.attempt, 2, s.step, 2]::bigint[], 4, 'error',
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, s.error
      FROM step s
     WHERE s.error IS NOT NULL
       AND NOT EXISTS (SELECT FROM attempt a
                        WHERE a.attempt = s.attempt
                          AND a.error = s.error)
    UNION ALL
    SELECT ARRAY[a.attempt, 3]::bigint[], 2, 'error', NULL, NULL,
           NULL, NULL, NULL, NULL, NULL, a.reason
      FROM attempt a
     WHERE a.reason <> ''
)
SELECT r.place, r.indent, r.kind, r.name, r.status, r.started_at, r.ended_at,
       r.tokens_in, r.tokens_out, r.cost, r.error
  FROM item r
 ORDER BY r.place
$$;
COMMENT ON FUNCTION prometheus._timeline(bigint, timestamptz, boolean) IS
    'What a task that you may see did and waited for; its submit, and whether it has ended, are given. kind: wait, attempt, that of a step, call, task (that it delegated), or error (a text alone). ended_at: null if it is open.';

CREATE FUNCTION @extschema@.prometheus_trace(task_id bigint) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    width CONSTANT integer := 80;
    whole record;
    line record;
    until timestamptz;
    seconds numeric;
    columns integer;  -- of the bars
    title text;
    usage text;
    numbers text;
    piece text;
    dot text := ', ';
    lines text[] := '{}';
BEGIN
    SELECT t.status, t.agent, t.submitted_at, t.ended_at, t.tokens_in,
           t.tokens_out, t.cost
      INTO whole
      FROM prometheus.task t
     WHERE t.task_id = prometheus_trace.task_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task % does not exist', task_id
            USING ERRCODE = 'undefined_object',
                  DETAIL = 'There is none, or you may not see it.';
    END IF;
    IF getdatabaseencoding() = 'UTF8' THEN
        dot := ' ' || chr(183) || ' ';
    END IF;
    until := coalesce(whole.ended_at,
                      greatest(clock_timestamp(), whole.submitted_at));
    seconds := extract(epoch FROM until - whole.submitted_at);

    -- What it is and where it is, and what it has used if that fits in.
    title := dot || whole.status
        || CASE WHEN whole.ended_at IS NULL THEN ' for '
                WHEN whole.status = 'completed' THEN ' in '
                ELSE ' after ' END
        || prometheus._duration(seconds);
    piece := 'task ' || task_id || dot;
    title := piece || (prometheus._fold(
        whole.agent, width - length(piece) - length(title), 1))[1] || title;
    usage := concat_ws(dot,
        CASE WHEN coalesce(whole.tokens_in, whole.tokens_out) IS NOT NULL
             THEN coalesce(prometheus._count(whole.tokens_in), '?')
                  || ' tokens in, '
                  || coalesce(prometheus._count(whole.tokens_out), '?')
                  || ' out' END,
        'cost ' || prometheus._cost(whole.cost));
    IF usage = '' THEN
        lines := ARRAY[title];
    ELSIF prometheus._columns(title || dot || usage) <= width THEN
        lines := ARRAY[title || dot || usage];
    ELSE
        lines := ARRAY[title, '  ' || usage];
    END IF;

    FOR line IN
        SELECT r.indent, n.name, r.kind = 'wait' AS is_wait, r.error,
               extract(epoch FROM r.started_at - whole.submitted_at)
                   AS first,
               extract(epoch FROM coalesce(r.ended_at, until)
                                  - whole.submitted_at) AS last,
               r.ended_at IS NULL AS is_open,
               coalesce(prometheus._count(r.tokens_in), '') AS tokens_in,
               coalesce(prometheus._count(r.tokens_out), '') AS tokens_out,
               coalesce(prometheus._cost(r.cost), '') AS cost,
               max(r.indent + prometheus._columns(n.name)) OVER () AS names,
               max(CASE WHEN r.cost IS NOT NULL
                        THEN greatest(length(prometheus._cost(r.cost)), 4) END)
                   OVER () AS costs,
               bool_or(coalesce(r.tokens_in, r.tokens_out) IS NOT NULL)
                   OVER () AS has_tokens
          FROM prometheus._timeline(task_id, whole.submitted_at,
                                    whole.ended_at IS NOT NULL) r
         CROSS JOIN LATERAL (
               SELECT (prometheus._fold(r.name, 26 - r.indent, 1))[1]) n (name)
         ORDER BY r.place
    LOOP
        IF columns IS NULL THEN
            columns := width - line.names - 10;
            numbers := '';
            IF line.has_tokens THEN
                columns := columns - 12;
                numbers := '    in   out';
            END IF;
            IF line.costs IS NOT NULL THEN
                columns := columns - line.costs - 1;
                numbers := numbers || lpad('cost', line.costs + 1);
            END IF;
            lines := lines || (repeat(' ', line.names) || ' 0'
                || lpad(prometheus._duration(seconds), columns - 1)
                || '     time' || numbers);
        END IF;
        IF line.name IS NULL THEN
            FOREACH piece IN ARRAY
                prometheus._fold(line.error, width - line.indent, 3)
            LOOP
                lines := lines || (repeat(' ', line.indent) || piece);
            END LOOP;
            CONTINUE;
        END IF;
        numbers := '';
        IF line.has_tokens THEN
            numbers := lpad(line.tokens_in, 6) || lpad(line.tokens_out, 6);
        END IF;
        IF line.costs IS NOT NULL THEN
            numbers := numbers || lpad(line.cost, line.costs + 1);
        END IF;
        lines := lines || rtrim(
            repeat(' ', line.indent) || line.name
            || repeat(' ', line.names - line.indent
                           - prometheus._columns(line.name) + 1)
            || prometheus._bar(coalesce(line.first / nullif(seconds, 0), 0),
                               coalesce(line.last / nullif(seconds, 0), 0),
                               columns, line.is_wait, line.is_open)
            || lpad(prometheus._duration(
                   greatest(line.last - line.first, 0)), 9)
            || numbers);
    END LOOP;
    RETURN array_to_string(lines, chr(10));
END
$$;
COMMENT ON FUNCTION @extschema@.prometheus_trace(bigint) IS
    'A task as a picture of at most 80 columns: each wait, attempt, step and call in the time from the submit to the end (or now), with how long it took, tokens and cost, and why it did not succeed; tasks that it delegated are a bar each, below what they were submitted by, and their tokens and cost are not part of its own. Raises undefined_object for a task that is unknown or not the caller''s.';
