/*
 * Approvals: what a policy escalates waits for a person.  src/approval.c.
 */
CREATE TABLE prometheus._approval (
    approval_id bigint NOT NULL PRIMARY KEY,
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    step integer NOT NULL,
    xid xid8 NOT NULL,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    tool text NOT NULL,
    policy text NOT NULL,
    approvers text NOT NULL,
    approvers_oid oid,
    target_hash text NOT NULL,
    reasoning text,
    arguments text NOT NULL
);
CREATE INDEX _approval_task ON prometheus._approval (task_id, step);
CREATE INDEX _approval_xid ON prometheus._approval (xid);
COMMENT ON TABLE prometheus._approval IS
    'A tool call that waits, or waited, for a person. target_hash: of exactly what is to be approved. approvers_oid: the role whose members decide, which counts while it has that name; null: prometheus_agent_admin.';

CREATE TABLE prometheus._decision (
    approval_id bigint NOT NULL PRIMARY KEY,
    event_id bigint NOT NULL,
    xid xid8 NOT NULL,
    decided_at timestamptz NOT NULL,
    decision text NOT NULL,
    decided_by text,
    note text
);
CREATE INDEX _decision_xid ON prometheus._decision (xid);
COMMENT ON TABLE prometheus._decision IS
    'What became of an approval: approved, rejected, or expired, whichever was committed first.';

CREATE FUNCTION @extschema@.prometheus_approve(
    approval_id bigint,
    note text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_approve';
COMMENT ON FUNCTION @extschema@.prometheus_approve(bigint, text) IS
    'Approves a tool call that waits for it (prometheus.approval); it runs, once, with exactly those arguments. For members of the policy''s approvers, never for who submitted the task. Raises undefined_object if there is no such approval, insufficient_privilege, object_not_in_prerequisite_state if it was decided, has expired, or its task has ended.';

CREATE FUNCTION @extschema@.prometheus_reject(
    approval_id bigint,
    note text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_reject';
COMMENT ON FUNCTION @extschema@.prometheus_reject(bigint, text) IS
    'Rejects a tool call that waits for approval; the model is told so, with the note, and may go another way. Raises as prometheus_approve() does.';

CREATE FUNCTION prometheus._may_approve(approvers text, approvers_oid oid)
RETURNS boolean
LANGUAGE c STABLE STRICT LEAKPROOF PARALLEL SAFE
AS 'MODULE_PATHNAME', 'prom_may_approve';
COMMENT ON FUNCTION prometheus._may_approve(text, oid) IS
    'May the current user decide what that role may? Name and oid must agree; 0: prometheus_agent_admin. For the view prometheus.approval.';
