/*
 * Setting agents and models: for members of prometheus_agent_admin.
 */
CREATE FUNCTION @extschema@.prometheus_set_model(
    name text,
    api text DEFAULT NULL,
    endpoint text DEFAULT NULL,
    model text DEFAULT NULL,
    secret text DEFAULT NULL,
    handler regprocedure DEFAULT NULL,
    options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_model';
COMMENT ON FUNCTION @extschema@.prometheus_set_model(
    text, text, text, text, text, regprocedure, jsonb) IS
    'Writes a new version of a model and returns its number; what is null keeps its value, an empty text takes it away. api: openai (chat completions), openai-responses, anthropic (messages), gemini (generateContent), function (the handler, a function f(jsonb) RETURNS jsonb, takes a chat completions request and gives the reply; it runs as the model''s owner with the search_path of now) or echo. secret: NAME of a file in prometheus.secrets_dir, or env:NAME; never a key. options: max_concurrent (requests at once), fallback (an array of models to be used instead), breaker_failures (5: so many in a row close its gate), cache (for so long a reply is used again for equal requests of the same role), requests_per_minute and tokens_per_minute (that may be sent, and be needed for them), max_tokens, window (tokens that prompt and answer may have together: the oldest turns of a conversation are left out), temperature, price_in, price_cached (price_in) and price_out (per million tokens), extra_body (an object whose members are added to each request, but none that requests have already), stream (true), connect_timeout (10 s), first_byte_timeout (60 s), idle_timeout (60 s), total_timeout (10 min), max_reply (16 MB); a null takes one away. Raises invalid_parameter_value for what cannot be.';

CREATE FUNCTION @extschema@.prometheus_set_agent(
    name text,
    model text DEFAULT NULL,
    instructions text DEFAULT NULL,
    mode text DEFAULT NULL,
    tools text[] DEFAULT NULL,
    run_as text DEFAULT NULL,
    options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_agent';
COMMENT ON FUNCTION @extschema@.prometheus_set_agent(
    text, text, text, text, text[], text, jsonb) IS
    'Writes a new version of an agent and returns its number; what is null keeps its value, an empty text takes it away. Its creator owns it. mode: fast (review and act) or full (recall and plan before, reflect after). tools: names of tools that its model may call ({}: none). run_as: the role that they run as (default: who submitted the task); whoever sets it must have that role, and it must not be a superuser. options: roles (an array of the roles that may submit to it; default all); for one task max_turns (20), max_tool_calls (100), max_results (1 MB of results of tools), max_tokens, max_cost, max_duration: a task that runs into one fails with LimitExceeded; tool_timeout (30 s); max_result (64 kB: more of one result is cut off); max_rows (10000 rows that one call of a tool may change, while a policy with the principle proportionality applies); summarise (true: older turns of a conversation that do not fit into the window of the model any more are summed up by it, which costs a call now and then; default false: the oldest are left out); reflect_below (0 to 1; default never: in mode full an answer whose reflection gives a lower score is answered once more, and the better one counts); memory_limit (1 to 100000 memories of an owner and each kind but core; default 1000 episodic ones and any number of the others); language (a text search configuration, of pg_catalog if it has no schema: its stems find memories, too; default none). Raises undefined_object for an unknown model, tool or language.';
