/*
 * The export of traces to an OpenTelemetry Collector: which go, and how far it
 * is.  src/export.c.  Of trees of tasks its position is that of the consumer
 * prometheus.otlp (86_consumer.sql), which is given the ends of tasks; of spans
 * of applications it has one of its own, as that has one, a snapshot.
 */
CREATE TABLE prometheus._span_position (
    consumer text NOT NULL PRIMARY KEY,
    base pg_snapshot NOT NULL
);
COMMENT ON TABLE prometheus._span_position IS
    'How far the spans of applications are exported: those that base sees are, or were left out. One row while the export is on. Changes in place: not a fact.';

CREATE TABLE prometheus._kept_trace (
    trace_id uuid NOT NULL PRIMARY KEY,
    kept_at timestamptz NOT NULL
);
CREATE INDEX _kept_trace_kept ON prometheus._kept_trace (kept_at);
COMMENT ON TABLE prometheus._kept_trace IS
    'Traces that are exported for what has happened in them, and not by their ids: what was left out of one before that was known has been sent. While the export is on; not a fact.';

CREATE FUNCTION prometheus._tree(
    task_id bigint,
    at timestamptz,
    event_id bigint,
    base pg_snapshot,
    bound pg_snapshot)
RETURNS TABLE (
    is_last boolean,
    task_ids bigint[],
    root_span text,
    trace_id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
WITH RECURSIVE up (task_id, parent_id, level) AS (
    SELECT t.task_id, t.parent_id, 0
      FROM prometheus._task t
     WHERE t.task_id = $1
    UNION ALL
    SELECT t.task_id, t.parent_id, u.level + 1
      FROM up u
      JOIN prometheus._task t ON t.task_id = u.parent_id
), tree (task_id) AS (
    SELECT r.task_id
      FROM (SELECT u.task_id FROM up u ORDER BY u.level DESC LIMIT 1) r
    UNION ALL
    SELECT c.task_id
      FROM tree r
      JOIN prometheus._task c ON c.parent_id = r.task_id
), whole AS (
    -- Each of it has ended, and none of these ends is still to come.
    SELECT array_agg(t.task_id ORDER BY t.task_id) AS task_ids,
           bool_and(o.outcome IS NOT NULL
                    AND o.outcome NOT IN ('retry', 'waiting', 'lost')
                    AND NOT EXISTS (
                        SELECT FROM prometheus._retry r
                         WHERE r.task_id = t.task_id
                           AND r.attempt >= o.attempt)
                    AND pg_visible_in_snapshot(o.xid, $5)
                    AND (pg_visible_in_snapshot(o.xid, $4)
                         OR (o.ended_at, o.event_id) <= ($2, $3))) AS is_last
      FROM tree t
      LEFT JOIN LATERAL (
           SELECT x.attempt, x.outcome, x.ended_at, x.event_id, x.xid
             FROM prometheus._outcome x
            WHERE x.task_id = t.task_id
            ORDER BY x.attempt DESC LIMIT 1) o ON true
)
SELECT w.is_last, w.task_ids, lpad(to_hex(r.event_id), 16, '0'), r.trace_id
  FROM (SELECT u.task_id FROM up u ORDER BY u.level DESC LIMIT 1) u
  JOIN prometheus._task r ON r.task_id = u.task_id
 CROSS JOIN whole w;
END;
COMMENT ON FUNCTION prometheus._tree(
    bigint, timestamptz, bigint, pg_snapshot, pg_snapshot) IS
    'The task and all that it delegated, or that it was delegated with. is_last: they have all ended, and of their ends this one (at, event_id) is the last that a reader is given, who is between base and bound. No row: it is not kept any more.';

CREATE FUNCTION prometheus._export(
    OUT since timestamptz,
    OUT waiting_since timestamptz,
    OUT succeeded_at timestamptz,
    OUT failing_since timestamptz,
    OUT next_attempt_at timestamptz,
    OUT traces bigint,
    OUT unsampled bigint,
    OUT spans bigint,
    OUT rejected bigint,
    OUT refused bigint,
    OUT dropped bigint,
    OUT failures bigint,
    OUT error text,
    OUT points bigint,
    OUT rejected_points bigint,
    OUT metrics_error text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1
AS 'MODULE_PATHNAME', 'prom_export';
COMMENT ON FUNCTION prometheus._export() IS
    'What the view prometheus.export shows.';

CREATE VIEW prometheus.export WITH (security_barrier) AS
SELECT e.since, e.waiting_since, e.succeeded_at, e.failing_since,
       e.next_attempt_at, e.traces, e.unsampled, e.spans, e.rejected,
       e.refused, e.dropped, e.failures, e.error, e.points,
       e.rejected_points, e.metrics_error
  FROM prometheus._export() e;
COMMENT ON VIEW prometheus.export IS
    'The export of traces and metrics to an OpenTelemetry Collector, in one row; none: it is off, or you are no administrator. What is now: not a fact.';
COMMENT ON COLUMN prometheus.export.since IS 'Since when it is counted: the start of the server, or the time when the export was turned on.';
COMMENT ON COLUMN prometheus.export.waiting_since IS 'Since when a task that has ended, or a span of an application, waits to be exported; null: none does.';
COMMENT ON COLUMN prometheus.export.succeeded_at IS 'When the receiver last took something.';
COMMENT ON COLUMN prometheus.export.failing_since IS 'Since when every attempt failed; null: the last one did not.';
COMMENT ON COLUMN prometheus.export.next_attempt_at IS 'When the same spans are sent again; null: nothing waits for that.';
COMMENT ON COLUMN prometheus.export.traces IS 'Trees of tasks that were exported: a task with all that it delegated.';
COMMENT ON COLUMN prometheus.export.unsampled IS 'Those that were not, by prometheus.trace_sample_ratio or the flag of their traceparent.';
COMMENT ON COLUMN prometheus.export.spans IS 'Spans that the receiver took, those again that were sent twice.';
COMMENT ON COLUMN prometheus.export.rejected IS 'Spans that it rejected out of what it took (partial success).';
COMMENT ON COLUMN prometheus.export.refused IS 'Spans of requests that it refused, which are not sent again.';
COMMENT ON COLUMN prometheus.export.dropped IS 'Spans, or whole trees of tasks, that could not be read or written as OTLP.';
COMMENT ON COLUMN prometheus.export.failures IS 'Attempts that failed.';
COMMENT ON COLUMN prometheus.export.error IS 'What the receiver, or the network, said last of traces; null: nothing.';
COMMENT ON COLUMN prometheus.export.points IS 'Data points of metrics that the receiver took: of each series one in each request.';
COMMENT ON COLUMN prometheus.export.rejected_points IS 'Those that it rejected, or refused; the next request has the counts of then.';
COMMENT ON COLUMN prometheus.export.metrics_error IS 'What the receiver, or the network, said of the last request with metrics; null: nothing.';
