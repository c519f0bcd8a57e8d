/*
 * What users do with tasks.  All run as the caller: the library checks what
 * must be checked and writes the facts itself (src/task.c, src/result.c).
 */
CREATE FUNCTION @extschema@.prometheus_submit(
    request text,
    agent text DEFAULT 'default',
    mode text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    depends_on bigint[] DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    conversation text DEFAULT NULL,
    output_schema jsonb DEFAULT NULL,
    timeout interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    traceparent text DEFAULT NULL,
    metadata jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_submit';
COMMENT ON FUNCTION @extschema@.prometheus_submit(
    text, text, text, integer, timestamptz, text, bigint[], text, text, jsonb,
    interval, integer, text, jsonb) IS
    'Queues a task in the current transaction and returns its id; it runs after the commit. mode: fast (review, act) or full (review, recall of memories, plan, act, reflection), by default the agent''s. priority -1000 to 1000: a point is worth a second of waiting; not before run_at; failed with DeadlineExceeded after timeout (default 1 day, from the later of now and run_at); max_attempts 1 to 100 (default 3). The same idempotency_key of the same submitter gives the first task''s id, or duplicate_object if request, agent, mode, output_schema or depends_on are others. depends_on: tasks that must end first; one that did not complete cancels this one (not with metadata {"on_failure": "run"}), their results are given to it as data. concurrency_key: of the tasks of this database with the same one only one runs at a time. conversation: the tasks of one submitter and agent with the same one run one after the other, each with those before as history. output_schema: a JSON Schema; an answer that does not fit is a failed attempt (SchemaMismatch). traceparent (W3C Trace Context): the trace that the task is a part of. Raises undefined_object for an unknown agent or dependency, object_not_in_prerequisite_state for a dependency that ended too long ago (prometheus.retention), program_limit_exceeded for a request beyond prometheus.max_request, or with 16 causes one behind the other (prometheus.caused_by): a loop.';

CREATE FUNCTION @extschema@.prometheus_submit_many(
    requests text[],
    agent text DEFAULT 'default',
    mode text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    idempotency_keys text[] DEFAULT NULL,
    depends_on bigint[] DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    conversation text DEFAULT NULL,
    output_schema jsonb DEFAULT NULL,
    timeout interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    traceparent text DEFAULT NULL,
    metadata jsonb DEFAULT '{}')
RETURNS SETOF bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_submit_many';
COMMENT ON FUNCTION @extschema@.prometheus_submit_many(
    text[], text, text, integer, timestamptz, text[], bigint[], text, text,
    jsonb, interval, integer, text, jsonb) IS
    'Queues a task for each request, all alike, as prometheus_submit() does, and returns the ids in the order of the requests. Raises array_subscript_error if there is not one idempotency key (null: none) for each request.';

CREATE FUNCTION @extschema@.prometheus_wait(
    task_id bigint,
    timeout interval DEFAULT '1 minute')
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_wait';
COMMENT ON FUNCTION @extschema@.prometheus_wait(bigint, interval) IS
    'Waits until the task has ended and returns its status, or the status that it has when timeout is over (null: no limit). Raises object_not_in_prerequisite_state for a task of the current transaction, undefined_object for one that is unknown or not the caller''s.';

CREATE FUNCTION @extschema@.prometheus_result(task_id bigint) RETURNS text
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_result';
COMMENT ON FUNCTION @extschema@.prometheus_result(bigint) IS
    'The answer of a completed task, null if it has not ended. Raises the task''s error if it ended otherwise: PM001 failed, PM002 vetoed, PM003 cancelled, PM004 quarantined.';

CREATE FUNCTION @extschema@.prometheus_cancel(
    task_id bigint,
    reason text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_cancel';
COMMENT ON FUNCTION @extschema@.prometheus_cancel(bigint, text) IS
    'Asks for the end of a task; true if that was recorded before its end. A request on the network is dropped after the commit. Raises undefined_object for a task that is unknown or not the caller''s.';

CREATE FUNCTION @extschema@.prometheus_retry(task_id bigint) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_retry';
COMMENT ON FUNCTION @extschema@.prometheus_retry(bigint) IS
    'Lets a task that ended without success be tried again, with new attempts, a new deadline (its timeout from now) and the newest versions of agent and model; true. False for one that was completed, has not ended, or was retried already. Its old attempts stay. Raises object_not_in_prerequisite_state for a task that ended too long ago (prometheus.retention).';

CREATE PROCEDURE @extschema@.prometheus_ask(
    request text,
    agent text DEFAULT 'default',
    timeout interval DEFAULT '1 minute',
    INOUT answer text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'prom_ask';
COMMENT ON PROCEDURE @extschema@.prometheus_ask(text, text, interval, text) IS
    'Submits a task, commits, waits and gives the answer; raises as prometheus_result() does, and query_canceled after timeout (the task goes on). Not in a transaction block.';
