/*
 * What the relations take, and what will go when.  src/storage.c.  The oldest
 * rows of facts are found by their keys, whose order is nearly that of time.
 */
CREATE VIEW prometheus._memory_end WITH (security_barrier) AS
SELECT m.memory_id,
       CASE WHEN m.forgotten THEN m.created_at ELSE m.expires_at END AS ends
  FROM prometheus._memory m
 WHERE (m.forgotten OR m.expires_at IS NOT NULL)
   AND NOT EXISTS (SELECT FROM prometheus._memory n
                    WHERE n.memory_id = m.memory_id
                      AND n.version > m.version);
COMMENT ON VIEW prometheus._memory_end IS
    'From when on memories are not recalled, which have been forgotten or expire: what is told of them goes with the last of their versions.';

CREATE VIEW prometheus._storage WITH (security_barrier) AS
SELECT c.relname::text AS relation,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint
            ELSE pg_stat_get_live_tuples(c.oid) END AS rows,
       pg_total_relation_size(c.oid) AS bytes,
       k.oldest,
       CASE WHEN k.kept = 'audit' THEN now() - s.audit
            WHEN k.kept = 'span' THEN now() - s.spans
            WHEN k.kept IN ('task', 'event', 'version', 'mark')
            THEN s.horizon END
           AS horizon,
       CASE k.kept WHEN 'task' THEN s.first_end + s.tasks
            WHEN 'event' THEN k.oldest + s.tasks
            WHEN 'mark' THEN k.oldest + s.tasks
            WHEN 'audit' THEN k.oldest + s.audit
            WHEN 'span' THEN k.oldest + s.spans
            WHEN 'version' THEN s.tasks + CASE c.relname
                 WHEN '_agent' THEN (
                      SELECT min(n.set_at) FROM prometheus._agent n
                       WHERE EXISTS (SELECT FROM prometheus._agent x
                                      WHERE x.name = n.name
                                        AND x.version < n.version))
                 WHEN '_model' THEN (
                      SELECT min(n.set_at) FROM prometheus._model n
                       WHERE EXISTS (SELECT FROM prometheus._model x
                                      WHERE x.name = n.name
                                        AND x.version < n.version))
                 WHEN '_tool' THEN (
                      SELECT min(n.set_at) FROM prometheus._tool n
                       WHERE EXISTS (SELECT FROM prometheus._tool x
                                      WHERE x.name = n.name
                                        AND x.version < n.version))
                 WHEN '_budget' THEN (
                      SELECT min(n.set_at) FROM prometheus._budget n
                       WHERE EXISTS (SELECT FROM prometheus._budget x
                                      WHERE x.name = n.name
                                        AND x.version < n.version))
                 WHEN '_memory' THEN (
                      SELECT min(CASE
                             WHEN n.forgotten OR n.version > n.first
                             THEN n.created_at
                             WHEN n.version = n.last THEN n.expires_at END)
                        FROM (SELECT x.forgotten, x.version, x.created_at,
                                     x.expires_at,
                                     min(x.version) OVER w AS first,
                                     max(x.version) OVER w AS last
                                FROM prometheus._memory x
                              WINDOW w AS (PARTITION BY x.memory_id)) n)
                 WHEN '_memory_use' THEN least(
                      (SELECT min(n.used_at) FROM prometheus._memory_use n
                        WHERE EXISTS (SELECT FROM prometheus._memory_use x
                                       WHERE x.memory_id = n.memory_id
                                         AND x.used_at < n.used_at)),
                      (SELECT min(n.ends) FROM prometheus._memory_end n
                        WHERE EXISTS (SELECT FROM prometheus._memory_use x
                                       WHERE x.memory_id = n.memory_id)))
                 WHEN '_evidence' THEN (
                      SELECT min(n.ends) FROM prometheus._memory_end n
                       WHERE EXISTS (SELECT FROM prometheus._evidence x
                                      WHERE x.memory_id = n.memory_id))
                 WHEN '_memory_embedding' THEN least(
                      (SELECT min(n.made_at)
                         FROM prometheus._memory_embedding n
                        WHERE EXISTS (
                              SELECT FROM prometheus._memory_embedding x
                               WHERE x.memory_id = n.memory_id
                                 AND x.made_at < n.made_at)),
                      (SELECT min(n.ends) FROM prometheus._memory_end n
                        WHERE EXISTS (
                              SELECT FROM prometheus._memory_embedding x
                               WHERE x.memory_id = n.memory_id)))
                 WHEN '_embedding' THEN (
                      SELECT min(n.made_at) FROM prometheus._embedding n
                       WHERE NOT EXISTS (
                             SELECT FROM prometheus._memory_embedding x
                              WHERE x.hash = n.hash))
                 WHEN '_state' THEN (
                      SELECT min(n.saved_at) FROM prometheus._state n
                       WHERE n.version > 2)
                 WHEN '_track' THEN (
                      SELECT min(n.recorded_at) FROM prometheus._track n
                       WHERE n.event = 'ended')
                 WHEN '_row_version' THEN least(
                      (SELECT min(n.changed_at) FROM prometheus._row_version n
                        WHERE n.operation <> 'insert'
                          AND n.operation <> 'begin'),
                      (SELECT min(n.recorded_at) FROM prometheus._track n
                        WHERE n.event = 'ended')) END END
           AS goes,
       k.kept
  FROM pg_class c
 CROSS JOIN LATERAL (
       SELECT nullif(current_setting('prometheus.retention'), '0')::interval
                  AS tasks,
              nullif(current_setting('prometheus.retention_audit'), '0')
                  ::interval AS audit,
              nullif(current_setting('prometheus.retention_spans'), '0')
                  ::interval AS spans,
              (SELECT max(h.at) FROM prometheus._horizon h) AS horizon,
              (SELECT o.ended_at FROM prometheus._outcome o
                WHERE o.outcome NOT IN ('retry', 'waiting', 'lost')
                ORDER BY o.task_id, o.attempt LIMIT 1) AS first_end) s
  LEFT JOIN (VALUES
       ('_task', 'task',
        (SELECT x.submitted_at FROM prometheus._task x
          ORDER BY x.task_id LIMIT 1)),
       ('_attempt', 'task',
        (SELECT x.started_at FROM prometheus._attempt x
          ORDER BY x.task_id, x.attempt LIMIT 1)),
       ('_call', 'task',
        (SELECT x.sent_at FROM prometheus._call x
          ORDER BY x.sent_at LIMIT 1)),
       ('_step', 'task',
        (SELECT x.started_at FROM prometheus._step x
          ORDER BY x.task_id, x.step LIMIT 1)),
       ('_outcome', 'task',
        (SELECT x.ended_at FROM prometheus._outcome x
          ORDER BY x.task_id, x.attempt LIMIT 1)),
       ('_verdict', 'task',
        (SELECT x.judged_at FROM prometheus._verdict x
          ORDER BY x.task_id, x.step LIMIT 1)),
       ('_approval', 'task',
        (SELECT x.requested_at FROM prometheus._approval x
          ORDER BY x.task_id, x.step LIMIT 1)),
       ('_decision', 'task',
        (SELECT x.decided_at FROM prometheus._decision x
          ORDER BY x.decided_at LIMIT 1)),
       ('_cancel', 'task',
        (SELECT x.requested_at FROM prometheus._cancel x
          ORDER BY x.requested_at LIMIT 1)),
       ('_retry', 'task',
        (SELECT x.retried_at FROM prometheus._retry x
          ORDER BY x.task_id, x.attempt LIMIT 1)),
       ('_strike', 'task',
        (SELECT x.struck_at FROM prometheus._strike x
          ORDER BY x.task_id, x.struck_at LIMIT 1)),
       ('_state_failure', 'task',
        (SELECT x.failed_at FROM prometheus._state_failure x
          ORDER BY x.task_id, x.event_id LIMIT 1)),
       ('_idempotency', 'task', NULL),
       ('_event', 'event',
        (SELECT x.emitted_at FROM prometheus._event x
          ORDER BY x.xid LIMIT 1)),
       ('_delivery', 'event',
        (SELECT x.ended_at FROM prometheus._delivery x
          WHERE x.ended_at IS NOT NULL ORDER BY x.ended_at LIMIT 1)),
       ('_agent', 'version',
        (SELECT min(x.set_at) FROM prometheus._agent x)),
       ('_model', 'version',
        (SELECT min(x.set_at) FROM prometheus._model x)),
       ('_tool', 'version',
        (SELECT min(x.set_at) FROM prometheus._tool x)),
       ('_budget', 'version',
        (SELECT min(x.set_at) FROM prometheus._budget x)),
       ('_memory', 'version',
        (SELECT min(x.created_at) FROM prometheus._memory x)),
       ('_memory_use', 'version',
        (SELECT min(x.used_at) FROM prometheus._memory_use x)),
       ('_evidence', 'version',
        (SELECT min(x.found_at) FROM prometheus._evidence x)),
       ('_memory_embedding', 'version',
        (SELECT min(x.made_at) FROM prometheus._memory_embedding x)),
       ('_embedding', 'version',
        (SELECT min(x.made_at) FROM prometheus._embedding x)),
       ('_embedding_call', 'event',
        (SELECT x.ended_at FROM prometheus._embedding_call x
          ORDER BY x.call_id LIMIT 1)),
       ('_state', 'version',
        (SELECT min(x.saved_at) FROM prometheus._state x)),
       ('_track', 'version',
        (SELECT min(x.recorded_at) FROM prometheus._track x)),
       ('_row_version', 'version',
        (SELECT min(x.changed_at) FROM prometheus._row_version x)),
       ('_policy', 'all', (SELECT min(x.set_at) FROM prometheus._policy x)),
       ('_evolution', 'all',
        (SELECT min(x.ended_at) FROM prometheus._evolution x)),
       ('_threshold', 'all',
        (SELECT min(x.set_at) FROM prometheus._threshold x)),
       ('_mark', 'mark', (SELECT min(x.at) FROM prometheus._mark x)),
       ('_audit_verdict', 'audit',
        (SELECT min(x.judged_at) FROM prometheus._audit_verdict x)),
       ('_audit_approval', 'audit',
        (SELECT min(x.requested_at) FROM prometheus._audit_approval x)),
       ('_span', 'span',
        (SELECT x.ended_at FROM prometheus._span x
          ORDER BY x.ended_at LIMIT 1)),
       ('_audit_usage', 'audit',
        (SELECT min(x.day) FROM prometheus._audit_usage x)))
       AS k (relation, kept, oldest) ON k.relation = c.relname
 WHERE c.relnamespace = 'prometheus'::regnamespace AND c.relkind = 'r';
COMMENT ON VIEW prometheus._storage IS
    'What prometheus_storage() shows.';

CREATE FUNCTION @extschema@.prometheus_storage(
    OUT relation text,
    OUT rows bigint,
    OUT bytes bigint,
    OUT oldest timestamptz,
    OUT horizon timestamptz,
    OUT goes timestamptz,
    OUT kept text)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 30
AS 'MODULE_PATHNAME', 'prom_storage';
COMMENT ON FUNCTION @extschema@.prometheus_storage() IS
    'The tables of the extension, the largest first, for administrators. rows: an estimate, of the last VACUUM or ANALYZE, else of the statistics. bytes: with indexes and TOAST. oldest: the time of the first row. horizon: what was before it may be gone; null: nothing is. goes: when something of it can be deleted at the earliest, by the settings of now; null: never, or there is nothing. kept: task (prometheus.retention after the end of its tree), event (prometheus.retention after it was emitted, by a tool with its task), version (after a newer one, unless it is pinned; of a memory also after it was forgotten or expired, with its evidence), mark (after it was written), audit (prometheus.retention_audit), span (prometheus.retention_spans after its end), all (for ever); null: bookkeeping. Raises insufficient_privilege.';
