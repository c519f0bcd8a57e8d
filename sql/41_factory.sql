/*
 * The tool factory: functions that a model writes, which become tools when they
 * have stood their examples and a person has approved them.  src/factory.c,
 * src/workshop.c.
 */
CREATE SCHEMA prometheus_tool AUTHORIZATION prometheus_tool_owner;
COMMENT ON SCHEMA prometheus_tool IS
    'The functions that models wrote and that became tools; each has the number of the task that made it at its end.';
GRANT USAGE ON SCHEMA prometheus_tool
    TO prometheus_agent_user, prometheus_agent_admin;

INSERT INTO prometheus._policy
    (version, xid, mark, set_at, owner_oid, owner, name, stage, effect, match,
     reason, suggestion, reviewer, on_error, options)
SELECT 1, '1', 0, clock_timestamp(), r.oid, r.rolname,
       'justica.creation', 'tool', 'escalate', '{"tool": "create_tool"}',
       'Creation: what a model wrote is for a person to read before it becomes a tool.',
       'Wait for the decision.', 'rule', 'deny', '{}'
  FROM pg_catalog.pg_roles r
 WHERE r.rolname = current_user;

CREATE FUNCTION prometheus._check_function(statement text, commission jsonb)
RETURNS text
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME',
    'prom_check_function';
COMMENT ON FUNCTION prometheus._check_function(text, jsonb) IS
    'Why a function that a model wrote cannot be tried, or null; commission: what prometheus_create_tool() writes into the task, {"description", "examples", "options"}. Nothing is run, and nothing of it stays. Raises invalid_parameter_value for another document.';

CREATE FUNCTION @extschema@.prometheus_create_tool(
    description text,
    examples jsonb,
    agent text DEFAULT 'default',
    options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_create_tool';
COMMENT ON FUNCTION @extschema@.prometheus_create_tool(
    text, jsonb, text, jsonb) IS
    'Queues a task whose agent writes an SQL function that does what description says, and returns its id. examples: [{"input": {"a": 2, "b": 3}, "output": 5}, ...], 1 to 100, each with the same names in its input; they say what the arguments and the result are. What the model answers with is read, never run as it is: one CREATE FUNCTION of that signature, with a body of SQL''s standard form, of SELECT, of PostgreSQL''s own functions for numbers, texts, times, arrays, JSON, ranges and aggregates, and at most STABLE. It belongs to prometheus_tool_owner, in schema prometheus_tool. It is called with the examples, read-only and rolled back, as what the agent''s tools run as: 80 % of those that the model was shown must come out right, and of those that were held back. A policy (justica.creation) then has a person approve it, and it becomes a tool of tier read. A model has three attempts and is told why the last one failed; then the task fails with ToolError. The task''s result is the statement. options: name (of the tool; default: the model''s choice, then it must be new), arguments ({"a": "integer"}: exactly these types), returns, relations (["app.visit"]: what it may read; who asks must be allowed to, prometheus_tool_owner needs USAGE on the schema, and no column may be of a domain, a row type or a range of others), held_back (a number of examples, default a third), volatile (true: VOLATILE and such functions are allowed), assign (true: the agent gets the tool; its owner''s role is needed) and mode. Raises invalid_parameter_value for examples or options that cannot be, duplicate_object for the name of a tool that was not made so, insufficient_privilege, and as prometheus_submit() does.';

CREATE FUNCTION @extschema@.prometheus_restore_tool(
    name text,
    version bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_restore_tool';
COMMENT ON FUNCTION @extschema@.prometheus_restore_tool(text, bigint) IS
    'Writes an older version of a tool forward as its newest one, and returns its number; null: the newest once more, by which one that is retired has another chance. Raises undefined_object if there is no such version, object_not_in_prerequisite_state if its function was dropped or changed since, insufficient_privilege without its owner''s role.';
