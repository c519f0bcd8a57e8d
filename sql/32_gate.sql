/*
 * Gates: what may close the way to all tasks, to an agent's, or to a model.
 * What is paused is in a table, since it must outlive a restart; the rest is
 * in shared memory (src/gate.c).
 */
CREATE TABLE prometheus._gate (
    target text NOT NULL PRIMARY KEY,
    paused_at timestamptz NOT NULL,
    paused_by text NOT NULL,
    reason text
);
COMMENT ON TABLE prometheus._gate IS
    'What is paused now: all, agent:NAME, model:NAME or subscription:NAME. Changes in place: not a fact, not dumped.';

CREATE FUNCTION prometheus._gates(
    OUT target text,
    OUT state text,
    OUT reason text,
    OUT since timestamptz,
    OUT until timestamptz,
    OUT in_flight integer,
    OUT waiting bigint,
    OUT width integer,
    OUT failures integer)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_gates';
COMMENT ON FUNCTION prometheus._gates() IS
    'The gates of this database as its workers know them, for the view prometheus.gate.';

CREATE FUNCTION @extschema@.prometheus_pause(target text DEFAULT 'all')
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_pause';
COMMENT ON FUNCTION @extschema@.prometheus_pause(text) IS
    'After the commit, lets no attempt begin: of any task (all), of the tasks of an agent (agent:NAME), or with a model (model:NAME; its fallbacks are used); or lets no delivery begin to a subscription (subscription:NAME). What runs goes on; cancels and deadlines take effect. Outlives a restart. Raises undefined_object for an unknown agent, model or subscription, invalid_parameter_value for another target.';

CREATE FUNCTION @extschema@.prometheus_resume(target text DEFAULT 'all')
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_resume';
COMMENT ON FUNCTION @extschema@.prometheus_resume(text) IS
    'Takes prometheus_pause() of the same target back; the gate of a model or a subscription that failures, a rate limit or want of money closed is opened too. Raises as prometheus_pause() does.';

CREATE FUNCTION @extschema@.prometheus_why(task_id bigint) RETURNS text
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_why';
COMMENT ON FUNCTION @extschema@.prometheus_why(bigint) IS
    'What a task waits for, and since when: a time, tasks that it depends on, a key, a gate, its order. Raises undefined_object for a task that is unknown or not the caller''s.';
