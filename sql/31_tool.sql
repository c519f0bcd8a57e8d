/*
 * Tools: functions that models may have called.
 */
CREATE TABLE prometheus._tool (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    set_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    function text NOT NULL,
    search_path text NOT NULL,
    hash text NOT NULL,
    description text,
    tier text NOT NULL,
    idempotent boolean NOT NULL,
    schema jsonb NOT NULL,
    options jsonb NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX _tool_mark ON prometheus._tool (name, mark DESC, version DESC);
COMMENT ON TABLE prometheus._tool IS
    'Every version of every tool. kind: function or builtin. function: its signature, every name qualified; hash: of its definition when it was set. mark: the newest mark when it was written, 0 before the first.';

CREATE FUNCTION prometheus._json(document text) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_json';
COMMENT ON FUNCTION prometheus._json(text) IS
    'A text that a model wrote, as json; as a json string if it is not valid json. Never raises.';

CREATE FUNCTION @extschema@.prometheus_set_tool(
    function regprocedure,
    name text DEFAULT NULL,
    description text DEFAULT NULL,
    tier text DEFAULT 'read',
    idempotent boolean DEFAULT false)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_tool';
COMMENT ON FUNCTION @extschema@.prometheus_set_tool(
    regprocedure, text, text, text, boolean) IS
    'Makes a function a tool that prometheus_set_agent() can give to agents; writes a new version of it and returns its number. name: what models call it (default: the function''s); description: what they are told (default: the function''s comment). Their arguments must fit a JSON Schema made from the signature. tier: read (runs in a read-only transaction), write, or destructive (what cannot be undone). It runs as the agent''s run_as or the submitter, with the search_path of now; if the function is changed, it is refused until it is set again, by its owner. On a name that exists, what is null keeps its value. Raises feature_not_supported for arguments or a result that JSON cannot say, insufficient_privilege without EXECUTE on the function or, on a name that exists, without its owner''s role.';
