/*
 * Budgets: what calls of models may use up in an hour, a day or a month.  Who
 * decides about a call is the caller, by counters in its memory; they are read
 * from these facts.  src/budget.c, src/spending.c.
 */
CREATE TABLE prometheus._budget (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    set_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    period text NOT NULL,
    tokens bigint,
    cost numeric,
    role_oid oid,
    set_by text NOT NULL,
    options jsonb NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX _budget_mark
    ON prometheus._budget (name, mark DESC, version DESC);
COMMENT ON TABLE prometheus._budget IS
    'Every version of every budget; without tokens and cost it is off. name: its scope and period in words. role_oid: of a role, which counts while it has that name. mark: the newest mark when it was written, 0 before the first.';

/*
 * What a call is charged with.  One that has not ended, of which nobody knows
 * whether it was billed, or whose reply says nothing of usage, is charged with
 * its reservation; what no peer has worked on costs nothing.  Sums of what
 * peers report may be too large for bigint.  The look-ups are by LATERAL and
 * LIMIT 1, as in all views: index scans, however few calls are asked for.
 */
CREATE VIEW prometheus._charge WITH (security_barrier) AS
SELECT c.sent_at AS charged_at,
       t.agent,
       t.submitter,
       t.submitter_oid,
       substr(c.target, 7) AS model,
       CASE WHEN a.as_reserved THEN c.reserved_tokens::numeric
            ELSE coalesce(s.tokens_in::numeric + s.tokens_out, 0) END
           AS tokens,
       CASE WHEN a.as_reserved THEN c.reserved
            WHEN s.tokens_in IS NOT NULL AND s.tokens_out IS NOT NULL
            THEN s.cost END AS cost,
       s.ambiguous IS NULL AND o.attempt IS NULL AS is_open
  FROM prometheus._call c
 CROSS JOIN LATERAL (
       SELECT x.agent, x.submitter, x.submitter_oid
         FROM prometheus._task x
        WHERE x.task_id = c.task_id
        LIMIT 1) t
  LEFT JOIN LATERAL (
       SELECT x.ambiguous, x.tokens_in, x.tokens_out, x.cost, x.http_status
         FROM prometheus._step x
        WHERE x.task_id = c.task_id AND x.call_id = c.call_id
          AND prometheus._seen(x.xid)
        LIMIT 1) s ON true
  LEFT JOIN LATERAL (
       SELECT x.attempt
         FROM prometheus._outcome x
        WHERE s.ambiguous IS NULL
          AND x.task_id = c.task_id AND x.attempt = c.attempt
          AND prometheus._seen(x.xid)
        LIMIT 1) o ON true
 CROSS JOIN LATERAL (
       SELECT coalesce(s.ambiguous, true)
              OR s.http_status BETWEEN 200 AND 299
                 AND (s.tokens_in IS NULL OR s.tokens_out IS NULL)
              AS as_reserved) a
 WHERE c.target LIKE 'model:%' AND prometheus._seen(c.xid)
UNION ALL
SELECT s.started_at, t.agent, t.submitter, t.submitter_oid,
       CASE s.kind WHEN 'review' THEN prometheus._json(s.arguments) ->> 'model'
            ELSE s.name END,
       coalesce(s.tokens_in, 0)::numeric + coalesce(s.tokens_out, 0),
       s.cost, false
  FROM prometheus._step s
 CROSS JOIN LATERAL (
       SELECT x.agent, x.submitter, x.submitter_oid
         FROM prometheus._task x
        WHERE x.task_id = s.task_id
        LIMIT 1) t
 WHERE s.call_id IS NULL AND (s.tokens_in > 0 OR s.tokens_out > 0)
   AND prometheus._seen(s.xid);
COMMENT ON VIEW prometheus._charge IS
    'What each call of a model is charged with, and each turn of a function that is one; is_open: it is only reserved.';

CREATE FUNCTION @extschema@.prometheus_set_budget(
    scope text,
    period text,
    tokens bigint DEFAULT NULL,
    cost numeric DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_budget';
COMMENT ON FUNCTION @extschema@.prometheus_set_budget(
    text, text, bigint, numeric) IS
    'Writes a new version of a budget and returns its number; it counts from the commit on, with all that was used before in the same period. scope: all, agent:NAME, role:NAME (tasks that this role submitted) or model:NAME. period: hour, day or month, of UTC. tokens: in and out; cost: in the unit of the models'' prices. The one that is null keeps its value; with both null the budget is off. Each call of a model must fit into every budget that it falls under: what it may need is reserved before it is sent (a token for each 3 bytes of the prompt, and the model''s max_tokens or 1,000), what it did need is charged when it has ended. A task whose call does not fit ends as failed, BudgetExceeded. Raises undefined_object for an unknown agent, role or model, invalid_parameter_value for what cannot be.';
