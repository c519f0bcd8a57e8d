/*
 * Everything at a glance, of what the caller may see.
 */
CREATE FUNCTION @extschema@.prometheus_stats(
    OUT tasks bigint,
    OUT live bigint,
    OUT completed bigint,
    OUT failed bigint,
    OUT vetoed bigint,
    OUT cancelled bigint,
    OUT quarantined bigint,
    OUT error_rate double precision,
    OUT avg_duration interval,
    OUT steps bigint,
    OUT failed_steps bigint,
    OUT avg_chat interval,
    OUT avg_tool interval,
    OUT avg_review interval,
    OUT avg_other interval,
    OUT tokens_in bigint,
    OUT tokens_out bigint,
    OUT cached_tokens bigint,
    OUT cost numeric,
    OUT active_spans bigint,
    OUT waiting_spans bigint,
    OUT dropped_spans bigint)
LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
SELECT t.tasks, t.tasks - t.ended, t.completed, t.failed, t.vetoed,
       t.cancelled, t.quarantined,
       (t.failed + t.vetoed + t.quarantined)::double precision
           / nullif(t.ended, 0),
       t.avg_duration, s.steps, s.failed_steps, s.avg_chat, s.avg_tool,
       s.avg_review, s.avg_other, s.tokens_in, s.tokens_out, s.cached_tokens,
       s.cost, t.tasks - t.ended + coalesce(c.open, 0), c.waiting, c.dropped
  FROM (SELECT count(*) AS tasks,
               count(x.ended_at) AS ended,
               count(*) FILTER (WHERE x.status = 'completed') AS completed,
               count(*) FILTER (WHERE x.status = 'failed') AS failed,
               count(*) FILTER (WHERE x.status = 'vetoed') AS vetoed,
               count(*) FILTER (WHERE x.status = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE x.status = 'quarantined') AS quarantined,
               avg(x.duration) AS avg_duration
          FROM prometheus.task x) t
 CROSS JOIN (
       SELECT count(*) AS steps,
              count(*) FILTER (WHERE x.status <> 'ok') AS failed_steps,
              avg(x.duration) FILTER (WHERE x.kind = 'chat') AS avg_chat,
              avg(x.duration) FILTER (WHERE x.kind = 'tool') AS avg_tool,
              avg(x.duration) FILTER (WHERE x.kind = 'review') AS avg_review,
              avg(x.duration) FILTER (WHERE x.kind NOT IN (
                  'chat', 'tool', 'review')) AS avg_other,
              sum(x.tokens_in)::bigint AS tokens_in,
              sum(x.tokens_out)::bigint AS tokens_out,
              sum(x.cached_tokens)::bigint AS cached_tokens,
              sum(x.cost) AS cost
         FROM (SELECT y.kind, y.status, y.tokens_in, y.tokens_out,
                      y.cached_tokens, y.cost,
                      y.duration_ms * interval '1 ms' AS duration
                 FROM prometheus.step y) x) s
 CROSS JOIN prometheus._span_counts() c;
END;
COMMENT ON FUNCTION @extschema@.prometheus_stats() IS
    'Of all tasks that you may see and that are kept: how many there are, are live and have ended how; error_rate: the part of the ended ones that failed, was vetoed or quarantined; average durations of tasks, from submit to end, and of steps; tokens and cost. active_spans: live tasks, and open spans of applications in the database: 0 at rest; waiting_spans, dropped_spans: of applications, to be written, and dropped since the server''s start, null if the database is not served. It reads all tasks and steps. By day, agent and model: prometheus.usage.';
