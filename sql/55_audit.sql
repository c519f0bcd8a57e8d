/*
 * What stays of tasks that retention has deleted: what was judged, who decided,
 * and what was used.  Written in the transaction that deletes them
 * (src/retention.c), and kept for prometheus.retention_audit.  The xids are
 * those of the facts, so AS OF shows these rows at the same moments.
 */
CREATE TABLE prometheus._audit_verdict (
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    step integer,
    xid xid8 NOT NULL,
    judged_at timestamptz NOT NULL,
    latency_ms real,
    approved boolean NOT NULL,
    policy_version bigint NOT NULL,
    submitter_oid oid NOT NULL,
    submitter text NOT NULL,
    agent text NOT NULL,
    stage text NOT NULL,
    effect text NOT NULL,
    risk_level text NOT NULL,
    governor text NOT NULL,
    policy text,
    reasoning text,
    suggestion text,
    target_hash text NOT NULL,
    scores jsonb,
    UNIQUE NULLS NOT DISTINCT (task_id, step, attempt, stage, effect, policy,
        policy_version)
);
CREATE INDEX _audit_verdict_at ON prometheus._audit_verdict (judged_at);
COMMENT ON TABLE prometheus._audit_verdict IS
    'The verdicts on tasks that were deleted, those by rules alone included.';

CREATE TABLE prometheus._audit_approval (
    approval_id bigint NOT NULL PRIMARY KEY,
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    step integer NOT NULL,
    xid xid8 NOT NULL,
    decision_xid xid8,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_at timestamptz,
    submitter_oid oid NOT NULL,
    submitter text NOT NULL,
    agent text NOT NULL,
    tool text NOT NULL,
    policy text NOT NULL,
    approvers text NOT NULL,
    approvers_oid oid,
    target_hash text NOT NULL,
    decision text,
    decided_by text,
    note text,
    reasoning text,
    arguments text NOT NULL
);
CREATE INDEX _audit_approval_task ON prometheus._audit_approval (task_id);
CREATE INDEX _audit_approval_at ON prometheus._audit_approval (requested_at);
COMMENT ON TABLE prometheus._audit_approval IS
    'The approvals of tasks that were deleted. decision: null if there was none before the task ended.';

CREATE TABLE prometheus._audit_usage (
    first_task bigint NOT NULL,
    day date NOT NULL,
    xid xid8 NOT NULL,
    submitter_oid oid NOT NULL,
    submitter text NOT NULL,
    agent text NOT NULL,
    model text,
    tasks bigint NOT NULL,
    calls bigint NOT NULL,
    tokens_in numeric,
    tokens_out numeric,
    cost numeric,
    UNIQUE NULLS NOT DISTINCT (first_task, day, model)
);
CREATE INDEX _audit_usage_day ON prometheus._audit_usage (day);
COMMENT ON TABLE prometheus._audit_usage IS
    'What tasks that were deleted had used: a row for those that went together, of a day, agent, model and submitter; first_task is the lowest id of these, xid that of the last outcome.';
