/*
 * State: versioned documents of agents.  src/state.c; frames are src/frame.c's.
 */
CREATE TABLE prometheus._state (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    base_version bigint,
    task_id bigint,
    restored_from bigint,
    saved_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    bytes integer NOT NULL,
    run integer NOT NULL,
    checksum integer NOT NULL,
    codec smallint NOT NULL,
    form smallint NOT NULL,
    owner text NOT NULL,
    agent text NOT NULL,
    key text NOT NULL,
    frame bytea NOT NULL,
    PRIMARY KEY (owner, owner_oid, agent, key, version)
);
-- zstd has compressed it already.
ALTER TABLE prometheus._state ALTER COLUMN frame SET STORAGE EXTERNAL;
CREATE INDEX _state_mark
    ON prometheus._state
    (owner, owner_oid, agent, key, mark DESC, version DESC);
CREATE INDEX _state_first
    ON prometheus._state (owner, owner_oid, agent, key) WHERE version = 1;
COMMENT ON TABLE prometheus._state IS
    'Every version of every state. frame: the value, in binary jsonb, as codec says: 0 plain, 1 zstd, 2 zstd with the document of base_version as prefix; bytes, checksum (CRC-32C) and form (the encoding of its strings; -1 - that with the other byte order) are of the document, run is how long all frames since the last key frame are together. mark: the newest mark when it was written, 0 before the first.';

CREATE FUNCTION @extschema@.prometheus_save_state(
    agent text,
    value jsonb,
    key text DEFAULT 'state',
    expected_version bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_save_state';
COMMENT ON FUNCTION @extschema@.prometheus_save_state(
    text, jsonb, text, bigint) IS
    'Writes the next version of a state of the caller and returns its number, dense from 1 for each agent and key. agent is a name and need not be set. expected_version: what the newest version must be, 0 for none; else raises PM008, whose detail has both. Waits for a transaction that has saved the same key and not ended; raises serialization_failure if the newest version is newer than the snapshot of a REPEATABLE READ transaction, program_limit_exceeded beyond prometheus.max_state, reserved_name for the key last_task, which has what the agent has done last, invalid_parameter_value for what cannot be.';

CREATE FUNCTION @extschema@.prometheus_state(
    agent text,
    key text DEFAULT 'state',
    as_of timestamptz DEFAULT NULL,
    version bigint DEFAULT NULL)
RETURNS jsonb
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_state';
COMMENT ON FUNCTION @extschema@.prometheus_state(
    text, text, timestamptz, bigint) IS
    'The value of a state of the caller: the newest, the one at a moment, or that of a version; null if there is none. as_of is answered as prometheus.as_of is, which counts if it is not given. Raises data_corrupted if what is stored is damaged, invalid_parameter_value if as_of and version are both given.';

CREATE FUNCTION @extschema@.prometheus_state_history(
    agent text,
    key text DEFAULT 'state',
    max_rows integer DEFAULT 20,
    OUT version bigint,
    OUT saved_at timestamptz,
    OUT bytes integer,
    OUT stored_bytes integer,
    OUT task_id bigint,
    OUT restored_from bigint)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 20
AS 'MODULE_PATHNAME', 'prom_state_history';
COMMENT ON FUNCTION @extschema@.prometheus_state_history(
    text, text, integer) IS
    'The newest max_rows versions of a state of the caller, the newest first. bytes: of the value as jsonb; stored_bytes: of what is on disk of it, which for most is what has changed since an earlier version. task_id: the task whose tool saved it, or whose summary it is. restored_from: the version that it is a copy of.';

CREATE FUNCTION @extschema@.prometheus_restore_state(
    agent text,
    key text DEFAULT 'state',
    to_version bigint DEFAULT NULL,
    to_time timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_restore_state';
COMMENT ON FUNCTION @extschema@.prometheus_restore_state(
    text, text, bigint, timestamptz) IS
    'Writes the value that a state of the caller had, as a version or at a moment, as its next version, and returns that. Raises undefined_object if there was none, and what prometheus_save_state() raises.';

CREATE FUNCTION @extschema@.prometheus_diff_state(
    agent text,
    from_version bigint,
    to_version bigint,
    key text DEFAULT 'state')
RETURNS jsonb
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_diff_state';
COMMENT ON FUNCTION @extschema@.prometheus_diff_state(
    text, bigint, bigint, text) IS
    'What two versions of a state of the caller differ in: {"added": {PATH: VALUE}, "changed": {PATH: {"from": VALUE, "to": VALUE}}, "removed": {PATH: VALUE}}. A path is a JSON Pointer (RFC 6901); members are compared by name, elements of arrays by place. Raises undefined_object if there is no such version.';

CREATE FUNCTION prometheus._state_value(
    owner text,
    owner_oid oid,
    agent text,
    key text,
    version bigint)
RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000
    AS 'MODULE_PATHNAME', 'prom_state_value';
COMMENT ON FUNCTION prometheus._state_value(text, oid, text, text, bigint) IS
    'The value of a version of a state, null if there is none that the current user may see.';

-- From the first version of each to its newest: histories can be long.  What
-- has the mark that is asked for was written after it (src/state.c).
CREATE VIEW prometheus.state WITH (security_barrier) AS
SELECT f.owner, f.agent, f.key, n.version,
       prometheus._state_value(f.owner, f.owner_oid, f.agent, f.key, n.version)
           AS value,
       n.saved_at, n.task_id
  FROM prometheus._state f,
       LATERAL (SELECT s.version, s.saved_at, s.task_id
                  FROM prometheus._state s
                 WHERE s.owner = f.owner
                   AND s.owner_oid = f.owner_oid
                   AND s.agent = f.agent
                   AND s.key = f.key
                   AND s.mark < prometheus._last_mark()
                   AND prometheus._seen(s.xid)
                 ORDER BY s.mark DESC, s.version DESC
                 LIMIT 1) n
 WHERE f.version = 1
   AND prometheus._may_see(f.owner, f.owner_oid);
COMMENT ON VIEW prometheus.state IS
    'The newest version of each state that is yours, or with prometheus.as_of the newest of that moment.';
COMMENT ON COLUMN prometheus.state.owner IS 'The role whose state it is.';
COMMENT ON COLUMN prometheus.state.agent IS 'The agent that it is for.';
COMMENT ON COLUMN prometheus.state.key IS 'Its name, state if nothing else was said.';
COMMENT ON COLUMN prometheus.state.version IS 'From 1.';
COMMENT ON COLUMN prometheus.state.value IS 'What was saved.';
COMMENT ON COLUMN prometheus.state.saved_at IS 'When it was saved.';
COMMENT ON COLUMN prometheus.state.task_id IS 'The task whose tool saved it, or whose summary it is; null: none.';
