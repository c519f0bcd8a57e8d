/*
 * Consumers: who reads events at his own pace.  src/consumer.c; what a position
 * is, src/position.c.
 */
CREATE TABLE prometheus._consumer (
    name text NOT NULL PRIMARY KEY,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    created_at timestamptz NOT NULL,
    types text[],
    base pg_snapshot NOT NULL,
    base_mark bigint NOT NULL,
    base_at timestamptz NOT NULL,
    bound pg_snapshot,
    bound_mark bigint,
    bound_at timestamptz,
    done_at timestamptz,
    done_id bigint,
    given_at timestamptz,
    given_id bigint,
    given integer NOT NULL,
    given_all boolean NOT NULL
);
COMMENT ON TABLE prometheus._consumer IS
    'Who reads events, and how far he has come; changed in place. All that base sees is acknowledged. Of what bound sees besides, in the order of time and id, what is not after done; what was given last goes on to given, and given_all says that there is no more of it. base_mark, bound_mark: no mark beyond it is seen by them, as far as was known.';

CREATE FUNCTION prometheus._shows(
    reader oid,
    role_name text,
    role_oid oid)
RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1
    SUPPORT prometheus._may_see_support
    AS 'MODULE_PATHNAME', 'prom_shows';
COMMENT ON FUNCTION prometheus._shows(oid, text, oid) IS
    'What prometheus._may_see() says of the current user, of another one.';

/*
 * Each branch is that of prometheus.event, but of what transactions wrote in
 * few ranges of xids: by the indexes of these alone.  What a branch makes that
 * nobody wants is not read at all.
 */
CREATE FUNCTION prometheus._occurrences(
    reader oid,
    patterns text[],
    first xid8[],
    beyond xid8[])
RETURNS TABLE (
    at timestamptz,
    event_id bigint,
    task_id bigint,
    wanted boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT e.at, e.event_id, e.task_id,
       e.type LIKE ANY ($2)
       AND (prometheus._shows($1, e.emitter, e.emitter_oid)
            OR prometheus._shows($1, e.submitter, e.submitter_oid)
            OR e.agent = ANY (ARRAY(
               SELECT n.name FROM prometheus._agent n
                WHERE prometheus._shows($1, n.owner, n.owner_oid))))
  FROM unnest($3, $4) AS r (first, beyond)
 CROSS JOIN LATERAL (
       SELECT t.submitted_at AS at, t.event_id, t.task_id,
              'task.received' AS type, t.agent, t.submitter, t.submitter_oid,
              NULL::text AS emitter, NULL::oid AS emitter_oid
         FROM prometheus._task t
        WHERE t.xid >= r.first AND t.xid < r.beyond
          AND 'task.received' LIKE ANY ($2)
       UNION ALL
       SELECT s.ended_at, s.event_id, s.task_id,
              CASE WHEN s.kind = 'reflect' AND s.status = 'ok'
                   THEN 'reflection' ELSE 'step.executed' END, t.agent,
              t.submitter, t.submitter_oid, NULL, NULL
         FROM prometheus._step s
         JOIN prometheus._task t ON t.task_id = s.task_id
        WHERE s.xid >= r.first AND s.xid < r.beyond
          AND CASE WHEN s.kind = 'reflect' AND s.status = 'ok'
                   THEN 'reflection' ELSE 'step.executed' END LIKE ANY ($2)
       UNION ALL
       SELECT o.ended_at, o.event_id, o.task_id,
              CASE o.outcome
                  WHEN 'completed' THEN 'task.completed'
                  WHEN 'retry' THEN 'task.retried'
                  WHEN 'cancelled' THEN 'task.cancelled'
                  WHEN 'quarantined' THEN 'task.quarantined'
                  ELSE 'task.failed' END,
              t.agent, t.submitter, t.submitter_oid, NULL, NULL
         FROM prometheus._outcome o
         JOIN prometheus._task t ON t.task_id = o.task_id
        WHERE o.xid >= r.first AND o.xid < r.beyond
          AND o.outcome NOT IN ('lost', 'waiting')
          AND ('task.completed' LIKE ANY ($2)
               OR 'task.retried' LIKE ANY ($2)
               OR 'task.cancelled' LIKE ANY ($2)
               OR 'task.quarantined' LIKE ANY ($2)
               OR 'task.failed' LIKE ANY ($2))
       UNION ALL
       SELECT a.requested_at, a.approval_id, a.task_id, 'approval.requested',
              t.agent, t.submitter, t.submitter_oid, NULL, NULL
         FROM prometheus._approval a
         JOIN prometheus._task t ON t.task_id = a.task_id
        WHERE a.xid >= r.first AND a.xid < r.beyond
          AND 'approval.requested' LIKE ANY ($2)
       UNION ALL
       SELECT d.decided_at, d.event_id, a.task_id, 'approval.decided',
              t.agent, t.submitter, t.submitter_oid, NULL, NULL
         FROM prometheus._decision d
         JOIN prometheus._approval a ON a.approval_id = d.approval_id
         JOIN prometheus._task t ON t.task_id = a.task_id
        WHERE d.xid >= r.first AND d.xid < r.beyond
          AND 'approval.decided' LIKE ANY ($2)
       UNION ALL
       SELECT f.failed_at, f.event_id, f.task_id, 'state.failed',
              t.agent, t.submitter, t.submitter_oid, NULL, NULL
         FROM prometheus._state_failure f
         JOIN prometheus._task t ON t.task_id = f.task_id
        WHERE f.xid >= r.first AND f.xid < r.beyond
          AND 'state.failed' LIKE ANY ($2)
       UNION ALL
       SELECT x.emitted_at, x.event_id, x.task_id, x.type, t.agent,
              t.submitter, t.submitter_oid, x.emitter, x.emitter_oid
         FROM prometheus._event x
         LEFT JOIN prometheus._task t ON t.task_id = x.task_id
        WHERE x.xid >= r.first AND x.xid < r.beyond
       ) e;
END;
COMMENT ON FUNCTION prometheus._occurrences(
    oid, text[], xid8[], xid8[]) IS
    'The events that transactions of these ranges wrote; wanted: those whose type is LIKE a pattern and that a role may see. Of those of tasks that nobody wants some are left out.';

CREATE FUNCTION prometheus._events(event_ids bigint[], task_ids bigint[])
RETURNS SETOF prometheus.event
LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT e.event_id, e.type, e.task_id, e.agent, e.subject, e.created_at, e.data,
       e.caused_by
  FROM unnest($1, $2) WITH ORDINALITY AS c (event_id, task_id, n)
 CROSS JOIN LATERAL (
       SELECT v.event_id, v.type, v.task_id, v.agent, v.subject, v.created_at,
              v.data, v.caused_by
         FROM prometheus.event v
        WHERE v.task_id = c.task_id AND v.event_id = c.event_id
       UNION ALL
       SELECT x.event_id, x.type, x.task_id, x.agent, x.subject, x.emitted_at,
              x.data, x.caused_by
         FROM prometheus._event x
        WHERE c.task_id IS NULL AND x.event_id = c.event_id
       ) e
 ORDER BY c.n;
END;
COMMENT ON FUNCTION prometheus._events(bigint[], bigint[]) IS
    'The events of these ids, and of these tasks (null: none), in this order.';

CREATE FUNCTION prometheus._consumers(
    OUT name text,
    OUT owner text,
    OUT types text[],
    OUT created_at timestamptz,
    OUT acknowledged_at timestamptz,
    OUT lag bigint,
    OUT behind interval)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'prom_consumers';
COMMENT ON FUNCTION prometheus._consumers() IS
    'What the view prometheus.consumer shows.';

CREATE VIEW prometheus.consumer WITH (security_barrier) AS
SELECT c.name, c.owner, c.types, c.created_at, c.acknowledged_at, c.lag,
       c.behind
  FROM prometheus._consumers() c;
COMMENT ON VIEW prometheus.consumer IS
    'Who reads events, and how far he is: the consumers of the roles that you have; all for administrators. What is now: not a fact.';
COMMENT ON COLUMN prometheus.consumer.name IS 'As given to prometheus_create_consumer().';
COMMENT ON COLUMN prometheus.consumer.owner IS 'The role that made it: it is given what that role may see.';
COMMENT ON COLUMN prometheus.consumer.types IS 'The types that it is given; null: all.';
COMMENT ON COLUMN prometheus.consumer.created_at IS 'When it was made.';
COMMENT ON COLUMN prometheus.consumer.acknowledged_at IS 'All that was committed at that moment is acknowledged.';
COMMENT ON COLUMN prometheus.consumer.lag IS 'Events that are not acknowledged, at least: counted among the first 10000 that were written after its position; null on a standby.';
COMMENT ON COLUMN prometheus.consumer.behind IS 'From acknowledged_at to the newest mark, that is, to when facts changed last; zero if that was before.';

CREATE FUNCTION @extschema@.prometheus_create_consumer(
    name text,
    types text[] DEFAULT NULL,
    start timestamptz DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_create_consumer';
COMMENT ON FUNCTION @extschema@.prometheus_create_consumer(
    text, text[], timestamptz) IS
    'Makes a consumer of events, which prometheus_poll() then gives, of what is committed from now on; with start, of all that the last mark at or before it does not see (-infinity: of all that is kept). name: 1 to 200 bytes. types: as in prometheus.event, 100 at most; shop.* stands for all that begin with shop. and * for all. It is given what its owner, the caller, may see. Raises duplicate_object, invalid_parameter_value, null_value_not_allowed.';

CREATE FUNCTION @extschema@.prometheus_poll(
    consumer text,
    max_events integer DEFAULT 100)
RETURNS SETOF prometheus.event
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'prom_poll';
COMMENT ON FUNCTION @extschema@.prometheus_poll(text, integer) IS
    'Gives the next events of a consumer, max_events (1 to 100000) at most, and the same again until they are acknowledged; none: there are no more. Nothing is skipped, whatever the order of commits; events of a task, and of a subject, come in their order. Other readers of the consumer wait until this transaction ends. Raises undefined_object, insufficient_privilege, invalid_parameter_value; object_not_in_prerequisite_state if its owner is not the role that it was.';

CREATE FUNCTION @extschema@.prometheus_ack(
    consumer text,
    event_id bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_ack';
COMMENT ON FUNCTION @extschema@.prometheus_ack(text, bigint) IS
    'Acknowledges the events that the last prometheus_poll() gave, up to this one and with it (null: all), and returns how many these are. In the transaction that has polled and does the work, each event has its effect in this database exactly once. Raises as prometheus_poll() does, and invalid_parameter_value if the event is not one of them.';

CREATE FUNCTION @extschema@.prometheus_replay(name text, start timestamptz)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_replay';
COMMENT ON FUNCTION @extschema@.prometheus_replay(text, timestamptz) IS
    'Lets a consumer begin again, or go ahead, as if it were made with that start. Raises as prometheus_poll() does.';

CREATE FUNCTION @extschema@.prometheus_drop_consumer(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_drop_consumer';
COMMENT ON FUNCTION @extschema@.prometheus_drop_consumer(text) IS
    'Removes a consumer; the events stay. Raises as prometheus_poll() does.';
