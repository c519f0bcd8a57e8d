/*
 * Events that are emitted: those that no other fact tells of.  src/event.c.
 */
CREATE TABLE prometheus._event (
    event_id bigint NOT NULL PRIMARY KEY,
    task_id bigint,
    caused_by bigint,
    xid xid8 NOT NULL,
    emitted_at timestamptz NOT NULL,
    depth integer NOT NULL,
    emitter_oid oid NOT NULL,
    emitter text NOT NULL,
    agent text,
    type text NOT NULL,
    subject text,
    data jsonb NOT NULL
);
CREATE INDEX _event_xid ON prometheus._event (xid);
CREATE INDEX _event_task ON prometheus._event (task_id)
    WHERE task_id IS NOT NULL;
CREATE INDEX _event_caused_by ON prometheus._event (caused_by)
    WHERE caused_by IS NOT NULL;
COMMENT ON TABLE prometheus._event IS
    'The events that prometheus_emit() was given. task_id, agent: of the task whose tool emitted it. depth: how many causes it has, one behind the other.';

CREATE FUNCTION @extschema@.prometheus_emit(
    type text,
    data jsonb DEFAULT '{}',
    subject text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_emit';
COMMENT ON FUNCTION @extschema@.prometheus_emit(text, jsonb, text) IS
    'Emits an event in the current transaction and returns its id. type: words of letters, digits, _ and - with dots between them, 200 bytes at most; the first word may not be one of the runtime''s own (task, step, approval, reflection, evolution, memory, state, gate, alert, prometheus). data: any json, as long as prometheus.max_request at most. subject: what it is about, 1 to 1000 bytes; events of one subject stay in their order. It is caused by the task whose tool emits it, else by the event that the setting prometheus.caused_by says. Seen by your role and those that have it, by who may see the task, and by administrators. Raises invalid_parameter_value, reserved_name, null_value_not_allowed, program_limit_exceeded (data too long, or 16 causes one behind the other: a loop).';
