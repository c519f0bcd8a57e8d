/*
 * Which traces are sampled.  A trace is decided about when it is at rest: as a
 * whole, so that no parent is missing, and however long an approval took.  By
 * its class first: one with an error, a veto, a dead letter, one that took
 * long, and one whose metadata ask for it, are sampled all; of the rest so many
 * as prometheus.trace_sample_ratio says, by the id, or as who began it said.
 * The class does not depend on the id, so counts stay unbiased: th is what
 * OpenTelemetry's tracestate then says of how many others a trace stands for.
 */
CREATE FUNCTION prometheus._sample_threshold(ratio double precision)
RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'prom_sample_threshold';
COMMENT ON FUNCTION prometheus._sample_threshold(double precision) IS
    'The threshold of a ratio, as th of OpenTelemetry''s tracestate has it: 1 to 14 hexadecimal digits; a trace whose last 14 digits are not below it is sampled. Null: none is.';

CREATE FUNCTION prometheus._is_sampled(trace_id text, threshold text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(right(trace_id, 14) COLLATE "C"
                >= rpad(threshold, 14, '0') COLLATE "C", false);
COMMENT ON FUNCTION prometheus._is_sampled(text, text) IS
    'Is a trace (32 hexadecimal digits) sampled, by its id and a threshold?';

/*
 * The tasks of a task's trace: those that were submitted with it have a
 * traceparent, by which they are found; the first one has none, but is the
 * parent of another, or sent the request that a traceparent is of.
 */
CREATE FUNCTION prometheus._trace_tasks(task_id bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
WITH RECURSIVE given AS (
    SELECT t.task_id, t.trace_id, t.parent_id, t.traceparent
      FROM prometheus._task t
     WHERE t.task_id = $1
), parted AS (
    SELECT g.task_id, g.trace_id, g.parent_id, g.traceparent FROM given g
    UNION
    SELECT t.task_id, t.trace_id, t.parent_id, t.traceparent
      FROM given g
      JOIN prometheus._task t
           ON t.trace_id = g.trace_id AND t.traceparent IS NOT NULL
), whole AS (
    SELECT p.task_id, p.trace_id, p.parent_id, p.traceparent FROM parted p
    UNION
    SELECT t.task_id, t.trace_id, t.parent_id, t.traceparent
      FROM whole w
     CROSS JOIN LATERAL (
           SELECT w.parent_id AS task_id
           UNION ALL
           SELECT c.task_id FROM prometheus._call c
            WHERE c.call_id = ('x' || substr(w.traceparent, 37, 16))
                              ::bit(64)::bigint) x
      JOIN prometheus._task t
           ON t.task_id = x.task_id AND t.trace_id = w.trace_id
)
SELECT DISTINCT w.task_id FROM whole w;
END;
COMMENT ON FUNCTION prometheus._trace_tasks(bigint) IS
    'The tasks of the trace of a task; none: it is not there.';

/*
 * Over all tasks, whoever may see them: a trace is sampled or it is not.  This
 * is the one place where that is decided: for the export (src/sampler.c), and
 * for who asks.  Neither function is STRICT, so that they are inlined, and
 * planned once.
 */
CREATE FUNCTION prometheus._sampled(
    task_ids bigint[],
    trace uuid DEFAULT NULL)
RETURNS TABLE (
    trace_id text,
    ended_at timestamptz,
    reason text,
    is_certain boolean,
    is_sampled boolean,
    th text,
    by_head boolean)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
WITH task AS (
    SELECT t.task_id, t.trace_id, t.submitted_at, t.traceparent, t.metadata,
           e.ended_at, e.outcome
      FROM unnest($1) AS m (task_id)
      JOIN prometheus._task t ON t.task_id = m.task_id
      LEFT JOIN LATERAL (
           SELECT o.outcome, o.ended_at, o.attempt
             FROM prometheus._outcome o
            WHERE o.task_id = t.task_id
            ORDER BY o.attempt DESC LIMIT 1) o ON true
      LEFT JOIN LATERAL (
           SELECT o.outcome, o.ended_at
            WHERE o.outcome NOT IN ('retry', 'waiting', 'lost')
              AND NOT EXISTS (
                  SELECT FROM prometheus._retry r
                   WHERE r.task_id = t.task_id
                     AND r.attempt >= o.attempt)) e ON true
), trace AS (
    SELECT replace(coalesce(min(t.trace_id::text), $2::text), '-', '')
               AS trace_id,
           CASE WHEN bool_and(t.ended_at IS NOT NULL)
                THEN max(t.ended_at) END AS ended_at,
           bool_or(t.metadata ->> 'trace' = 'always') AS is_forced,
           bool_or(t.outcome = 'vetoed' OR EXISTS (
               SELECT FROM prometheus._verdict v
                WHERE v.task_id = t.task_id AND NOT v.approved)) AS has_veto,
           bool_or(t.outcome IN ('failed', 'quarantined') OR EXISTS (
               SELECT FROM prometheus._outcome o
                WHERE o.task_id = t.task_id
                  AND o.outcome IN ('retry', 'lost', 'failed')) OR EXISTS (
               SELECT FROM prometheus._step s
                WHERE s.task_id = t.task_id
                  AND s.status <> 'ok')) AS has_error,
           bool_or(EXISTS (
               SELECT FROM prometheus._delivery d
                WHERE d.task_id = t.task_id
                  AND d.status = 'dead')) AS has_dead_letter,
           bool_or(t.ended_at - t.submitted_at > nullif(current_setting(
               'prometheus.trace_slow'), '0')::interval) AS is_slow,
           -- as who began the trace says, if somebody else did
           (array_agg(substr(t.traceparent, 54, 2) ORDER BY t.task_id)
               FILTER (WHERE t.traceparent IS NOT NULL))[1] AS flags,
           bool_or(t.traceparent IS NULL) AS is_ours,
           prometheus._sample_threshold(current_setting(
               'prometheus.trace_sample_ratio')::double precision) AS threshold
      FROM task t
), application AS (
    SELECT bool_or(x.status = 'error') AS has_error,
           max(x.ended_at) AS ended_at,
           bool_or(x.parent_span_id IS NULL) AS has_root,
           -- the same of a trace without tasks
           (array_agg(substr(x.traceparent, 54, 2)
                      ORDER BY x.started_at, x.span_id)
               FILTER (WHERE x.traceparent IS NOT NULL))[1] AS flags
      FROM trace t
      JOIN prometheus._span x ON x.trace_id = t.trace_id::uuid
), class AS (
    SELECT t.trace_id,
           CASE WHEN t.ended_at IS NOT NULL
                THEN greatest(t.ended_at, a.ended_at) END AS ended_at,
           CASE WHEN t.is_forced THEN 'forced'
                WHEN t.has_veto THEN 'veto'
                WHEN t.has_error OR a.has_error THEN 'error'
                WHEN t.has_dead_letter THEN 'dead letter'
                WHEN t.is_slow THEN 'slow' END AS class,
           o.is_ours,
           CASE WHEN o.is_ours
                THEN prometheus._is_sampled(t.trace_id, t.threshold)
                ELSE get_bit(decode(coalesce(t.flags, a.flags), 'hex'), 0) = 1
                END AS is_sampled,
           t.threshold
      FROM trace t
     CROSS JOIN application a
     CROSS JOIN LATERAL (
           SELECT coalesce(t.is_ours, a.flags IS NULL)
                  OR coalesce(a.has_root, false) AS is_ours) o
     WHERE t.trace_id IS NOT NULL
)
SELECT c.trace_id,
       c.ended_at,
       coalesce(c.class, CASE WHEN c.is_ours THEN 'ratio' ELSE 'parent' END),
       c.class IS NOT NULL,
       c.class IS NOT NULL OR coalesce(c.is_sampled, false),
       CASE WHEN c.class IS NOT NULL THEN '0'
            WHEN c.is_ours THEN c.threshold END,
       coalesce(c.is_sampled, false)
  FROM class c;
END;
COMMENT ON FUNCTION prometheus._sampled(bigint[], uuid) IS
    'Whether tasks of one trace, with its spans of applications, are sampled as they are now; trace: it, if there are no tasks. is_certain: by what has happened, whatever comes; else by_head, by the id of the trace, or as who began it said. ended_at: null if one has not ended. No row: there are none.';

CREATE FUNCTION prometheus._task_of_trace(trace_id uuid) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
SELECT x.task_id
  FROM (SELECT t.task_id
          FROM prometheus._task t
         WHERE t.trace_id = $1 AND t.traceparent IS NOT NULL
        UNION ALL
        SELECT t.task_id
          FROM prometheus._span s
          JOIN prometheus._task t
               ON t.task_id = s.task_id AND t.trace_id = $1
         WHERE s.trace_id = $1
        UNION ALL
        SELECT t.task_id
          FROM prometheus._span s
          JOIN prometheus._call c ON c.call_id = s.parent_span_id
          JOIN prometheus._task t
               ON t.task_id = c.task_id AND t.trace_id = $1
         WHERE s.trace_id = $1) x
 LIMIT 1;
END;
COMMENT ON FUNCTION prometheus._task_of_trace(uuid) IS
    'One of the tasks of a trace: that was submitted with it, in whose tool one of its spans of applications was begun, or that sent the request that one is of; null: there is none.';

CREATE FUNCTION prometheus._omitted(
    of_task bigint,
    at timestamptz,
    event_id bigint,
    base pg_snapshot,
    bound pg_snapshot)
RETURNS TABLE (task_id bigint, root_span text)
LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT u.task_id, x.root_span
  FROM prometheus._trace_tasks($1) AS m (task_id)
  JOIN prometheus._task t ON t.task_id = m.task_id AND t.parent_id IS NULL
 CROSS JOIN LATERAL prometheus._tree(t.task_id, $2, $3, $4, $5) x
 CROSS JOIN LATERAL unnest(x.task_ids) AS u (task_id)
 WHERE x.is_last
 ORDER BY u.task_id;
END;
COMMENT ON FUNCTION prometheus._omitted(
    bigint, timestamptz, bigint, pg_snapshot, pg_snapshot) IS
    'The tasks of those trees of a task''s trace whose ends the export, which is at (at, event_id) between base and bound, has all been given; each with the first span of its tree.';

CREATE FUNCTION prometheus._omitted_spans(
    trace uuid,
    base pg_snapshot,
    part xid8,
    last_span bigint)
RETURNS SETOF prometheus._span
LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT x.*
  FROM prometheus._span x
 WHERE x.trace_id = $1
   AND (pg_visible_in_snapshot(x.xid, $2)
        OR (x.xid = $3 AND x.span_id <= $4));
END;
COMMENT ON FUNCTION prometheus._omitted_spans(
    uuid, pg_snapshot, xid8, bigint) IS
    'The spans of applications of a trace that the export has come by: it has seen base and, of what one transaction wrote (part), those up to last_span.';

CREATE FUNCTION prometheus._sample(
    task_id bigint,
    OUT trace_id text,
    OUT ended_at timestamptz,
    OUT reason text,
    OUT decision text,
    OUT th text)
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
SELECT s.trace_id,
       s.ended_at,
       s.reason,
       -- at rest: what is written a moment later is there, too
       CASE WHEN s.ended_at < statement_timestamp() - interval '2 s'
            THEN CASE WHEN s.is_sampled THEN 'keep' ELSE 'drop' END END,
       s.th
  FROM prometheus._sampled(array(SELECT prometheus._trace_tasks($1))) s;
END;
COMMENT ON FUNCTION prometheus._sample(bigint) IS
    'Whether the trace of a task is sampled, over all of its tasks and spans, whoever may see them; null: it is not there.';

CREATE FUNCTION @extschema@.prometheus_sampling(
    task_id bigint,
    OUT trace_id text,
    OUT ended_at timestamptz,
    OUT reason text,
    OUT decision text,
    OUT th text)
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'prom_sampling';
COMMENT ON FUNCTION @extschema@.prometheus_sampling(bigint) IS
    'Whether the trace that a task is a part of is sampled. reason: forced (metadata {"trace": "always"}), veto, error, dead letter or slow (prometheus.trace_slow), which are sampled all; else ratio (by prometheus.trace_sample_ratio and the id) or parent (as the traceparent says that it was begun with). decision: keep or drop; null: it is not at rest, which it is 2 s after the last of its tasks has ended (ended_at). th: the threshold for OpenTelemetry''s tracestate; null: not known, or nothing is sampled. Raises undefined_object for a task that is unknown or not the caller''s.';
