/*
 * The facts about tasks.  Each row is inserted once, by src/fact.c, and never
 * updated; what a task is now is read from its newest facts (80_view.sql).
 * No foreign keys: they break parallel restores, and one process writes these.
 */
CREATE SEQUENCE prometheus._task_id;
COMMENT ON SEQUENCE prometheus._task_id IS
    'Ids of tasks: node << 43 | local, below 2^53.';

CREATE SEQUENCE prometheus._fact_id CACHE 64;
COMMENT ON SEQUENCE prometheus._fact_id IS
    'Ids of events and calls: node << 43 | local, below 2^53. Not in the order of commits.';

CREATE TABLE prometheus._task (
    task_id bigint NOT NULL PRIMARY KEY,
    event_id bigint NOT NULL,
    xid xid8 NOT NULL,
    submitted_at timestamptz NOT NULL,
    run_at timestamptz,
    deadline timestamptz NOT NULL,
    priority integer NOT NULL,
    max_attempts integer NOT NULL,
    submitter_oid oid NOT NULL,
    submitter text NOT NULL,
    agent text NOT NULL,
    mode text NOT NULL,
    trace_id uuid NOT NULL,
    request text NOT NULL,
    metadata jsonb NOT NULL,
    traceparent text,
    depends_on bigint[],
    concurrency_key text,
    conversation text,
    output_schema jsonb,
    parent_id bigint,
    parent_step integer,
    depth integer,
    caused_by bigint,
    causes integer,
    commission jsonb,
    evolution jsonb
);
CREATE INDEX _task_xid ON prometheus._task (xid);
CREATE INDEX _task_conversation ON prometheus._task
    (conversation, agent, submitter, task_id) WHERE conversation IS NOT NULL;
-- Those of a trace; one that begins a trace is found without.
CREATE INDEX _task_trace ON prometheus._task (trace_id)
    WHERE traceparent IS NOT NULL;
CREATE INDEX _task_parent ON prometheus._task (parent_id, parent_step)
    WHERE parent_id IS NOT NULL;
CREATE INDEX _task_caused_by ON prometheus._task (caused_by)
    WHERE caused_by IS NOT NULL;
-- The evolutions themselves, and not the tasks that they make.
CREATE INDEX _task_evolution ON prometheus._task (agent, submitter)
    WHERE evolution ? 'iterations';
-- Who depends on a task; only retention asks.
CREATE INDEX _task_depends_on ON prometheus._task USING gin (depends_on)
    WHERE depends_on IS NOT NULL;
COMMENT ON TABLE prometheus._task IS
    'A task as it was submitted: one row a task. parent_id, parent_step, depth: of one that another task delegated, by that step, so many levels deep. caused_by: the event that it was submitted because of, or its parent''s first one; causes: how many there are, one behind the other, but for those that delegated. commission: a tool that it is to make (prometheus_create_tool()). evolution: of one that evolves its agent (prometheus_evolve()), {"iterations", "domain", "options"}; of those that it makes, {"role": propose, attempt or judge}.';

CREATE TABLE prometheus._attempt (
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    xid xid8 NOT NULL,
    started_at timestamptz NOT NULL,
    agent_version bigint,
    model text,
    model_version bigint,
    tool_versions bigint[],
    policy_version bigint,
    review_ms real,
    PRIMARY KEY (task_id, attempt)
);
COMMENT ON TABLE prometheus._attempt IS
    'The start of one run of a task, with the versions of agent, model and tools (in the agent''s order) that are pinned for it; policy_version: of the policies that allowed it, by rules alone, in review_ms.';

CREATE TABLE prometheus._call (
    call_id bigint NOT NULL PRIMARY KEY,
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    turn integer NOT NULL,
    call integer NOT NULL,
    xid xid8 NOT NULL,
    sent_at timestamptz NOT NULL,
    kind text NOT NULL,
    target text NOT NULL,
    reserved numeric,
    reserved_tokens bigint,
    step integer,
    UNIQUE (task_id, attempt, turn, call)
);
CREATE INDEX _call_sent ON prometheus._call (sent_at);
COMMENT ON TABLE prometheus._call IS
    'The intent to send one request, committed before it is sent. reserved, reserved_tokens: what it may cost and need, by an estimate; what budgets reserve for it. step: that it is for.';

CREATE TABLE prometheus._step (
    task_id bigint NOT NULL,
    step integer NOT NULL,
    attempt integer NOT NULL,
    event_id bigint NOT NULL,
    call_id bigint,
    xid xid8 NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    tokens_in bigint,
    tokens_out bigint,
    cached_tokens bigint,
    reasoning_tokens bigint,
    http_status integer,
    ambiguous boolean NOT NULL,
    connect_ms real,
    first_byte_ms real,
    kind text NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    model text,
    cost numeric,
    finish_reason text,
    request_id text,
    error_type text,
    error text,
    answer text,
    raw text,
    calls integer,
    arguments text,
    reused bigint,
    request_hash bytea,
    reply text,
    tool_version bigint,
    PRIMARY KEY (task_id, step)
);
-- Good replies that may be used again: those of models with the option cache.
CREATE INDEX _step_request ON prometheus._step (request_hash, ended_at)
    WHERE request_hash IS NOT NULL;
-- Who used one of them last.
CREATE INDEX _step_reused ON prometheus._step (reused, event_id)
    WHERE reused IS NOT NULL;
CREATE INDEX _step_xid ON prometheus._step (xid);
-- What came of calls of tools that tasks have made.
CREATE INDEX _step_tool ON prometheus._step (name, tool_version, event_id)
    WHERE tool_version IS NOT NULL;
-- What functions that are models used, for the budgets; those of echo use none.
CREATE INDEX _step_used ON prometheus._step (started_at)
    WHERE call_id IS NULL AND (tokens_in > 0 OR tokens_out > 0);
COMMENT ON TABLE prometheus._step IS
    'A checkpoint of a task: a turn of the model, or a tool call, and what came of it. calls: tool calls that a turn asks for; their steps have the numbers that follow. reused: event_id of the step whose reply was used. request_hash: by what this reply is found for an equal request of the same role; reply: its own text, if answer is made from that. tool_version: of a tool that a task made, and that was called.';

CREATE TABLE prometheus._outcome (
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    event_id bigint NOT NULL,
    xid xid8 NOT NULL,
    ended_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    step integer,
    next_run_at timestamptz,
    outcome text NOT NULL,
    error_type text,
    error text,
    PRIMARY KEY (task_id, attempt)
);
CREATE INDEX _outcome_xid ON prometheus._outcome (xid);
COMMENT ON TABLE prometheus._outcome IS
    'How one attempt ended; retry, waiting and lost leave the task alive, the others end it.';

CREATE TABLE prometheus._cancel (
    task_id bigint NOT NULL,
    xid xid8 NOT NULL,
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    reason text
);
CREATE INDEX _cancel_task ON prometheus._cancel (task_id);
COMMENT ON TABLE prometheus._cancel IS
    'A request to cancel a task; it takes effect when the outcome says so.';

CREATE TABLE prometheus._retry (
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    xid xid8 NOT NULL,
    retried_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    retried_by text NOT NULL,
    PRIMARY KEY (task_id, attempt)
);
CREATE INDEX _retry_xid ON prometheus._retry (xid);
COMMENT ON TABLE prometheus._retry IS
    'A task was given new attempts and a new deadline by hand, after that attempt.';

CREATE TABLE prometheus._idempotency (
    submitter_oid oid NOT NULL,
    submitter text NOT NULL,
    key text NOT NULL,
    task_id bigint NOT NULL,
    xid xid8 NOT NULL,
    PRIMARY KEY (submitter, submitter_oid, key)
);
CREATE INDEX _idempotency_task ON prometheus._idempotency (task_id);
COMMENT ON TABLE prometheus._idempotency IS
    'The task that a submitter''s idempotency key stands for.';

CREATE TABLE prometheus._strike (
    task_id bigint NOT NULL,
    xid xid8 NOT NULL,
    attempt integer NOT NULL,
    struck_at timestamptz NOT NULL,
    PRIMARY KEY (task_id, struck_at)
);
COMMENT ON TABLE prometheus._strike IS
    'A crash of the server while the code of this very task was on the processor; written when the server is back. prometheus.max_crashes of them quarantine the task.';

CREATE TABLE prometheus._checkpoint (
    checkpoint_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    written_at timestamptz NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    waits boolean NOT NULL,
    eras bigint NOT NULL,
    snapshot pg_snapshot NOT NULL,
    live bigint[] NOT NULL
);
COMMENT ON TABLE prometheus._checkpoint IS
    'Tasks that were live in a snapshot, so that a start reads these and what came after instead of all history. The newest two are kept; not dumped. Good only where it was written, while prometheus._era has as many rows as then (eras) and a copy waits for prometheus_resume() as it did then (waits).';
