/*
 * Governance: policies say what may be done; a verdict is what they said of one
 * thing.  src/policy.c, src/judge.c.
 */
CREATE TABLE prometheus._policy (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    set_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    stage text NOT NULL,
    effect text NOT NULL,
    condition text,
    hash text,
    search_path text,
    match jsonb NOT NULL,
    reason text,
    suggestion text,
    reviewer text NOT NULL,
    approvers text,
    approvers_oid oid,
    on_error text NOT NULL,
    options jsonb NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX _policy_mark
    ON prometheus._policy (name, mark DESC, version DESC);
COMMENT ON TABLE prometheus._policy IS
    'Every version of every policy. mark: the newest mark when it was written, 0 before the first.';

CREATE TABLE prometheus._verdict (
    task_id bigint NOT NULL,
    attempt integer NOT NULL,
    step integer,
    event_id bigint NOT NULL,
    xid xid8 NOT NULL,
    judged_at timestamptz NOT NULL,
    latency_ms real NOT NULL,
    approved boolean NOT NULL,
    policy_version bigint NOT NULL,
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
COMMENT ON TABLE prometheus._verdict IS
    'What the policies said of a request, a tool call or an answer; scores: by a model. That a request was allowed by rules alone is told by its attempt (review_ms, policy_version) and has no row.';

CREATE FUNCTION prometheus._hash(stage text, agent text, what text)
RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_hash';
COMMENT ON FUNCTION prometheus._hash(text, text, text) IS
    'What target_hash of a verdict is for a request: SHA-256 over stage, agent and request, each with its length (8 bytes, big-endian) before it.';

CREATE FUNCTION @extschema@.prometheus_set_policy(
    name text,
    stage text DEFAULT NULL,
    effect text DEFAULT NULL,
    condition regprocedure DEFAULT NULL,
    match jsonb DEFAULT NULL,
    reason text DEFAULT NULL,
    suggestion text DEFAULT NULL,
    reviewer text DEFAULT NULL,
    approvers text DEFAULT NULL,
    on_error text DEFAULT 'deny')
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_policy';
COMMENT ON FUNCTION @extschema@.prometheus_set_policy(
    text, text, text, regprocedure, jsonb, text, text, text, text, text) IS
    'Writes a new version of a policy and returns its number; it counts from the commit on, also for tasks that run. What is null keeps its value; an empty text takes it away, ''-'' the condition, {} the match; on_error is deny unless it is given. stage: task (the request), tool (a tool call) or answer. effect: deny, escalate (a person must approve a tool call first), warn (it is noted), allow, or off; deny counts before escalate, that before the others. It applies if all of match fits (agent, tool, tier, submitter, mode: a text or an array of texts; arguments: contained in the tool''s; text: a regular expression, found in request, arguments or answer; principle: integrity, proportionality, transparency or learning, the rules of JUSTICA; what a tool executes is held against integrity, and the rows that it changes against the agent''s max_rows, whatever the arguments are) and condition, a function f(jsonb) RETURNS boolean of the thing judged, is true; it runs read-only as the policy''s owner. on_error: deny, warn or allow if the condition fails, or the text cannot be searched within 1 s. reviewer: rule, or a model that is asked about what the rules have allowed: model (that of the agent which is reviewed) or model:NAME; then effect (deny, escalate or warn) is that of a confidence below 0.4, and there is no condition. approvers: the role whose members may approve (default prometheus_agent_admin), as long as it is the same one; never who submitted. reason and suggestion are told to model and user. Raises invalid_parameter_value for what cannot be, undefined_object for a model or role that does not exist.';

-- The constitution: what JUSTICA forbids, and what she asks a person about.
INSERT INTO prometheus._policy
    (version, xid, mark, set_at, owner_oid, owner, name, stage, effect, match,
     reason, suggestion, reviewer, on_error, options)
SELECT 1, '1', 0, clock_timestamp(), r.oid, r.rolname,
       p.name, p.stage, p.effect, p.match::jsonb, p.reason, p.suggestion,
       'rule', 'deny', '{}'
  FROM pg_catalog.pg_roles r, (VALUES
       ('justica.integrity', 'tool', 'deny', '{"principle": "integrity"}',
        'Integrity: an agent must not change prometheus itself, the catalogues, roles or the schema, nor reach outside the database.',
        'Ask for a function that does just what is needed, made a tool by an administrator.'),
       ('justica.integrity.request', 'task', 'deny',
        '{"principle": "integrity"}',
        'Integrity: the request is itself a statement that would change roles, the schema, or all of a table.',
        'Say what is to be reached, not how; or run the statement yourself.'),
       ('justica.transparency', 'tool', 'deny',
        '{"principle": "transparency"}',
        'Transparency: the arguments contain what cannot be seen.',
        'Write the arguments in plain characters.'),
       ('justica.transparency.request', 'task', 'deny',
        '{"principle": "transparency"}',
        'Transparency: the request contains what cannot be seen.',
        'Remove invisible characters from the request.'),
       ('justica.proportionality', 'tool', 'escalate',
        '{"principle": "proportionality"}',
        'Proportionality: it would change every row of a table, or more rows than its agent may.',
        'Say which rows are meant, and take fewer of them in one call.'),
       ('justica.escalation', 'tool', 'escalate',
        '{"tier": "destructive"}',
        'Escalation: what cannot be undone is for a person to decide.',
        'Wait for the decision, or go a way that can be undone.'),
       ('justica.learning', 'tool', 'allow', '{"principle": "learning"}',
        'Learning: a veto is remembered, so that the agent is told next time.',
        'Switch this policy off to have no such memories.'))
       AS p (name, stage, effect, match, reason, suggestion)
 WHERE r.rolname = current_user;

-- Counsel: a model that reviews requests, in mode full.
INSERT INTO prometheus._policy
    (version, xid, mark, set_at, owner_oid, owner, name, stage, effect, match,
     reviewer, on_error, options)
SELECT 1, '1', 0, clock_timestamp(), r.oid, r.rolname, 'sofia',
       'task', 'deny', '{"mode": "full"}', 'model', 'deny', '{}'
  FROM pg_catalog.pg_roles r
 WHERE r.rolname = current_user;
