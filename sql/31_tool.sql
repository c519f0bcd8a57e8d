/*
 * Tools: functions and HTTP endpoints that models may have called.
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
    function text,
    method text,
    url text,
    secret text,
    task_id bigint,
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
    'Every version of every tool. kind: function, http or builtin. function: its signature, every name qualified; method, url, secret: of http; hash: of its definition when it was set; task_id: the task that made it. mark: the newest mark when it was written, 0 before the first.';

CREATE FUNCTION prometheus._json(document text) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_json';
COMMENT ON FUNCTION prometheus._json(text) IS
    'A text that a model wrote, as json; as a json string if it is not valid json. Never raises.';

CREATE FUNCTION prometheus._calls(turn text) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_calls';
COMMENT ON FUNCTION prometheus._calls(text) IS
    'The tool calls of a turn as a model of any format sent it, in the form of chat completions.';

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

CREATE FUNCTION @extschema@.prometheus_set_http_tool(
    name text,
    method text DEFAULT NULL,
    url text DEFAULT NULL,
    schema jsonb DEFAULT NULL,
    description text DEFAULT NULL,
    tier text DEFAULT 'read',
    secret text DEFAULT NULL,
    idempotent boolean DEFAULT false)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_http_tool';
COMMENT ON FUNCTION @extschema@.prometheus_set_http_tool(
    text, text, text, jsonb, text, text, text, boolean) IS
    'Makes an HTTP endpoint a tool that prometheus_set_agent() can give to agents; writes a new version of it and returns its number. method: GET, POST, PUT, PATCH or DELETE. url: https (http at private addresses, which need prometheus.allow_private_endpoints), with a {name} in path or query for arguments, which the schema must require as string, integer, number or boolean; what no placeholder takes is the query of GET and DELETE, else the JSON body. schema: a JSON Schema of type object that the arguments must fit. description: what models are told. tier: read, write, or destructive (what cannot be undone); it says what becomes of a call whose end nobody knows. secret: where the key is that is sent as Authorization: Bearer, NAME or env:NAME; never a key. idempotent: the endpoint obeys Idempotency-Key, so that a call may be sent again. On a name that exists, what is null keeps its value, and an empty text takes it away. Raises invalid_parameter_value or null_value_not_allowed for what cannot be, insufficient_privilege without the role of its owner.';
