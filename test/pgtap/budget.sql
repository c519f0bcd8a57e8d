-- What prometheus_set_budget() writes and refuses, and what prometheus.budget
-- makes of the facts.  What budgets do is in t/.
BEGIN;
SELECT plan(66);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_team;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prometheus_agent_user TO prom_test_user, prom_test_other;
GRANT prom_test_team TO prom_test_user;
SELECT prometheus_set_agent('a:b', 'echo'), prometheus_set_model('m', 'echo') \gset ignored_

-- The hint of the error that a statement raises.
CREATE FUNCTION pg_temp.hint_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN hint;
END
$$;

-- The limits of a budget, and its version.
CREATE FUNCTION pg_temp.limits(scope text, period text DEFAULT 'day') RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', coalesce(b.tokens::text, '-'), coalesce(b.cost::text, '-'), b.version)
      FROM prometheus.budget b WHERE b.scope = $1 AND b.period = $2
$$;

SELECT columns_are('prometheus', 'budget', ARRAY[
    'scope', 'period', 'tokens', 'cost', 'spent_tokens', 'spent_cost', 'reserved_tokens', 'reserved_cost',
    'period_start', 'refills_at', 'set_by', 'set_at', 'version']);
SELECT function_returns('prometheus_set_budget', 'bigint');
SELECT volatility_is('prometheus_set_budget', 'volatile');
SELECT is_empty('TABLE prometheus.budget', 'a fresh install has none');

-- A new one, its versions, and what is kept.

SELECT is(prometheus_set_budget('all', 'day', tokens => 1000), 1::bigint, 'the first version is 1');
SELECT is(to_jsonb(b) - '{period_start,refills_at,set_at}'::text[], jsonb_build_object(
    'scope', 'all', 'period', 'day', 'tokens', 1000, 'cost', NULL, 'spent_tokens', 0, 'spent_cost', 0, 'reserved_tokens', 0,
    'reserved_cost', 0, 'set_by', current_user, 'version', 1), 'nothing is spent') FROM prometheus.budget b;
SELECT cmp_ok(set_at, '>=', now(), 'set_at') FROM prometheus.budget;
SELECT is(concat_ws(' ', name, xid, mark, owner_oid, options, role_oid),
          concat_ws(' ', 'all per day', prometheus._xid(), 0, current_user::regrole::oid, '{}'),
          'the fact has its transaction, mark and owner') FROM prometheus._budget;
SELECT is(prometheus_set_budget('all', 'day', cost => 1.50), 2::bigint, 'the next version');
SELECT is(pg_temp.limits('all'), '1000 1.50 2', 'keeps what is not given');
SELECT is(prometheus_set_budget('all', 'day', tokens => 0), 3::bigint, 'no tokens at all');
SELECT is(pg_temp.limits('all'), '0 1.50 3', 'is a limit');
SELECT is(prometheus_set_budget('all', 'hour', 10, 2), 1::bigint, 'another period is another budget');
SELECT is(pg_temp.limits('all'), '0 1.50 3', 'and leaves the first one');
SELECT is(prometheus_set_budget('all', 'day'), 4::bigint, 'with neither limit');
SELECT is(pg_temp.limits('all'), NULL, 'it is off');
SELECT is(prometheus_set_budget('all', 'day', cost => 0), 5::bigint, 'set again');
SELECT is(pg_temp.limits('all'), '- 0 5', 'it has what is given only');
SELECT is(prometheus_set_budget('model:m', 'month'), 1::bigint, 'one that was never on');
SELECT is(pg_temp.limits('model:m', 'month'), NULL, 'is off');
SELECT is(prometheus_set_budget('agent:a:b', 'day', 9223372036854775807, 99999999999999999999.000001), 1::bigint, 'large limits');
SELECT is(pg_temp.limits('agent:a:b'), '9223372036854775807 99999999999999999999.000001 1', 'of an agent with a colon in its name');
SELECT is(prometheus_set_budget('role:prom_test_team', 'day', 1), 1::bigint, 'of a role');
SELECT is(role_oid, 'prom_test_team'::regrole::oid, 'which is known by its oid too') FROM prometheus._budget WHERE scope ~ 'role';

-- The periods, in UTC whatever the session's time zone is.

SET LOCAL TimeZone = 'Asia/Kolkata';
SELECT count(prometheus_set_budget('all', p, 1)) FROM unnest('{hour,day,month}'::text[]) p \gset ignored_
SELECT is(b.period_start, date_trunc(p, now(), 'UTC'), p || ': begins')
  FROM unnest('{hour,day,month}'::text[]) p JOIN prometheus.budget b ON b.scope = 'all' AND b.period = p;
SELECT is(b.refills_at AT TIME ZONE 'UTC', (b.period_start AT TIME ZONE 'UTC') + ('1 ' || p)::interval, p || ': ends')
  FROM unnest('{hour,day,month}'::text[]) p JOIN prometheus.budget b ON b.scope = 'all' AND b.period = p;
RESET TimeZone;

-- What cannot be.

SELECT throws_ok(format('SELECT prometheus_set_budget(%L, %L, %s)', s, p, rest), state, message, concat_ws(' ', s, p, rest))
  FROM (VALUES (NULL, 'day', '1', '22023', 'a budget must have its scope'),
               ('', 'day', '1', '22023', 'a budget must have its scope'),
               ('everything', 'day', '1', '22023', 'scope "everything" does not exist'),
               ('All', 'day', '1', '22023', 'scope "All" does not exist'),
               ('tool:x', 'day', '1', '22023', 'scope "tool:x" does not exist'),
               ('agent', 'day', '1', '22023', 'scope "agent" does not exist'),
               ('agent:', 'day', '1', '22023', 'the name of a budget must have 1 to 200 bytes'),
               ('agent:' || repeat('x', 201), 'day', '1', '22023', 'the name of a budget must have 1 to 200 bytes'),
               ('agent:nobody', 'day', '1', '42704', 'agent "nobody" does not exist'),
               ('model:nobody', 'day', '1', '42704', 'model "nobody" does not exist'),
               ('role:prom_test_nobody', 'day', '1', '42704', 'role "prom_test_nobody" does not exist'),
               ('all', NULL, '1', '22023', 'a budget must have its period'),
               ('all', 'week', '1', '22023', 'period "week" does not exist'),
               ('all', 'day', '-1', '22023', 'tokens must not be negative'),
               ('all', 'day', 'NULL, -0.01', '22023', 'cost must be a number, and not negative'),
               ('all', 'day', $$NULL, 'NaN'$$, '22023', 'cost must be a number, and not negative'),
               ('all', 'day', $$NULL, 'Infinity'$$, '22023', 'cost must be a number, and not negative'))
       AS v(s, p, rest, state, message);
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_budget('x', 'day', 1)$$), 'It is all, agent:NAME, role:NAME or model:NAME.',
          'the hint lists the scopes');
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_budget('all', 'x', 1)$$), 'It is hour, day or month.', 'and the periods');
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_budget('model:x', 'day', 1)$$), 'SELECT name FROM prometheus.model lists them.',
          'and where the models are');
SELECT is_empty($$SELECT * FROM prometheus._budget WHERE scope !~ '^(all|agent:a:b|role:prom_test_team|model:m)$'$$,
                'what was refused left nothing');
SELECT throws_ok($$INSERT INTO prometheus._budget SELECT * FROM prometheus._budget WHERE name = 'all per day' AND version = 1$$,
                 '23505', NULL, 'a version is written once');

-- What the facts come to: tasks of two agents, submitters and models.

DELETE FROM prometheus._budget;
SELECT count(prometheus_set_budget(s, 'hour', 1, 1))
  FROM unnest('{all,agent:a:b,model:m,role:prom_test_user,role:prom_test_team}'::text[]) s \gset ignored_
CREATE TEMP TABLE made AS
    SELECT nextval('prometheus._task_id') AS task_id, n, r.oid AS submitter_oid, r.rolname AS submitter,
           CASE WHEN n IN (2, 3) THEN 'default' ELSE 'a:b' END AS agent,
           CASE WHEN n = 4 THEN 'other' ELSE 'm' END AS model,
           CASE n WHEN 12 THEN statement_timestamp() - interval '1 hour'
                  WHEN 16 THEN statement_timestamp() + interval '1 hour' ELSE statement_timestamp() END AS at
      FROM generate_series(1, 16) n
      JOIN pg_roles r ON r.rolname = CASE WHEN n = 3 THEN 'prom_test_user' ELSE 'prom_test_other' END;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts,
                              submitter_oid, submitter, agent, mode, trace_id, request, metadata)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), at, at, 0, 3,
       CASE WHEN n = 15 THEN 1 ELSE submitter_oid END, CASE WHEN n = 15 THEN 'prom_test_user' ELSE submitter END,
       agent, 'fast', gen_random_uuid(), 'x', '{}'
  FROM made;
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target, reserved, reserved_tokens)
SELECT -n, task_id, 1, 1, 1, prometheus._xid(), at, 'chat', CASE WHEN n = 13 THEN 'tool:t' ELSE 'model:' || model END,
       1000 * n, 100000 * n
  FROM made WHERE n <> 14;
-- Those without a step have not ended, or (11) their process has.
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, http_status,
                              ambiguous, kind, name, status, tokens_in, tokens_out, cost)
SELECT task_id, 1, 1, nextval('prometheus._fact_id'), CASE WHEN n <> 14 THEN -n END, prometheus._xid(), at, at, http_status,
       ambiguous, 'chat', 'm', status, tokens_in, tokens_out, cost
  FROM made JOIN (VALUES (1, 200, false, 'ok', 3, 4, 0.5),
                         (2, 200, false, 'ok', 10, 20, NULL),
                         (3, 200, false, 'ok', 100, 200, 2),
                         (4, 200, false, 'error', 1000, 2000, 4),
                         (5, 500, false, 'error', NULL, NULL, NULL),
                         (6, NULL, false, 'error', NULL, NULL, NULL),
                         (7, NULL, true, 'error', NULL, NULL, NULL),
                         (8, 200, true, 'error', 1, 1, 1),
                         (9, 200, false, 'ok', NULL, NULL, NULL),
                         (13, 200, false, 'ok', NULL, NULL, NULL),
                         (14, NULL, false, 'ok', 10000, 20000, 8))
       AS v(n, http_status, ambiguous, status, tokens_in, tokens_out, cost) USING (n);
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT task_id, 1, nextval('prometheus._fact_id'), prometheus._xid(), at, 1, 'lost' FROM made WHERE n IN (11, 12);

SELECT results_eq($$SELECT agent || ' ' || model, tokens, cost, is_open FROM prometheus._charge JOIN made USING (agent, submitter, model)
                     WHERE n = 1 AND tokens < 10 ORDER BY tokens DESC$$,
                  $$VALUES ('a:b m', 7::numeric, 0.5, false), ('a:b m', 0, NULL, false), ('a:b m', 0, NULL, false)$$,
                  'a call is charged with its usage, and one that did no work with nothing');
SELECT is((SELECT concat_ws(' ', spent_tokens, spent_cost, reserved_tokens, reserved_cost) FROM prometheus.budget WHERE scope = s),
          expected, s)
  FROM (VALUES ('all', '3533337 35014.5 2500000 25000'),
               ('agent:a:b', '3533007 35012.5 2500000 25000'),
               ('model:m', '3530337 35010.5 2500000 25000'),
               ('role:prom_test_user', '300 2 0 0'),
               ('role:prom_test_team', '0 0 0 0')) AS v(s, expected);

-- Whatever a peer says of itself.
UPDATE prometheus._step SET tokens_in = 9223372036854775807, tokens_out = 9223372036854775807 WHERE call_id = -3;
SELECT is(spent_tokens, 9223372036854775807, 'more than can be counted') FROM prometheus.budget WHERE scope = 'role:prom_test_user';

-- Who may see and set them.

SET LOCAL ROLE prom_test_user;
SELECT results_eq('SELECT scope FROM prometheus.budget ORDER BY 1', ARRAY['role:prom_test_team', 'role:prom_test_user'],
                  'a user sees those of his roles');
SELECT throws_ok($$SELECT prometheus_set_budget('all', 'day', 1)$$, '42501', 'permission denied for function prometheus_set_budget',
                 'and sets none');
RESET ROLE;
GRANT EXECUTE ON FUNCTION prometheus_set_budget TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_budget('all', 'day', 1)$$, '42501', NULL, 'a granted EXECUTE makes no administrator');
SET LOCAL ROLE prom_test_other;
SELECT is_empty('TABLE prometheus.budget', 'another user sees none of these');
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT count(*) FROM prometheus.budget), 5::bigint, 'an administrator sees all');
SELECT is(prometheus_set_budget('all', 'hour', 7), 2::bigint, 'and sets them');
SELECT is(set_by, 'prom_test_admin', 'in his own name') FROM prometheus.budget WHERE scope = 'all';
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
