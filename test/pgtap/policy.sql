-- What prometheus_set_policy() writes and refuses, and what prometheus.policy
-- shows.  What policies do is in t/.
BEGIN;
SELECT plan(134);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_board;
GRANT prometheus_agent_admin TO prom_test_admin, prom_test_other;
GRANT prometheus_agent_user TO prom_test_user;
CREATE SCHEMA prom_test;
GRANT USAGE ON SCHEMA prom_test TO prom_test_admin, prom_test_other;

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

SELECT columns_are('prometheus', 'policy', ARRAY[
    'name', 'stage', 'effect', 'match', 'condition', 'reviewer', 'approvers', 'on_error', 'owner', 'version', 'set_at',
    'reason', 'suggestion']);
SELECT function_returns('prometheus_set_policy', 'bigint');
SELECT volatility_is('prometheus_set_policy', 'volatile');

-- The constitution.

SELECT results_eq($$SELECT concat_ws(' ', name, stage, effect, match) FROM prometheus.policy ORDER BY name$$, ARRAY[
    'justica.creation tool escalate {"tool": "create_tool"}',
    'justica.escalation tool escalate {"tier": "destructive"}',
    'justica.integrity tool deny {"principle": "integrity"}',
    'justica.integrity.request task deny {"principle": "integrity"}',
    'justica.learning tool allow {"principle": "learning"}',
    'justica.proportionality tool escalate {"principle": "proportionality"}',
    'justica.transparency tool deny {"principle": "transparency"}',
    'justica.transparency.request task deny {"principle": "transparency"}',
    'sofia task deny {"mode": "full"}'], 'a fresh install has the constitution');
SELECT is((SELECT count(*) FROM prometheus.policy
            WHERE version = 1 AND name LIKE 'justica.%' AND reviewer = 'rule' AND on_error = 'deny' AND condition IS NULL AND approvers IS NULL
              AND owner = current_user AND reason ~ '\.$' AND suggestion ~ '\.$'), 8::bigint,
          'which says why, and what would help');
SELECT is(concat_ws(' ', version, reviewer, condition, owner), '1 model ' || current_user, 'and counsel, of the own model')
  FROM prometheus.policy WHERE name = 'sofia';

-- A new one.

SELECT is(prometheus_set_policy('night', 'tool', 'deny'), 1::bigint, 'the first version is 1');
SELECT is(to_jsonb(p) - '{set_at}'::text[], jsonb_build_object(
    'name', 'night', 'stage', 'tool', 'effect', 'deny', 'match', '{}'::jsonb, 'condition', NULL, 'reviewer', 'rule', 'approvers', NULL,
    'on_error', 'deny', 'owner', current_user, 'version', 1, 'reason', NULL, 'suggestion', NULL), 'with defaults')
  FROM prometheus.policy p WHERE name = 'night';
SELECT cmp_ok(set_at, '>=', now(), 'set_at') FROM prometheus.policy WHERE name = 'night';
SELECT is(concat_ws(' ', xid, mark, owner_oid, options, search_path),
          concat_ws(' ', prometheus._xid(), 0, current_user::regrole::oid, '{}'),
          'the fact has its transaction, mark and owner') FROM prometheus._policy WHERE name = 'night';
SELECT lives_ok(format('SELECT prometheus_set_policy(%L, %L, %L)', 's ' || s || e, s, e), concat_ws(' ', 'stage', s, 'effect', e))
  FROM (VALUES ('task', 'deny'), ('task', 'warn'), ('task', 'allow'), ('task', 'off'), ('tool', 'escalate'), ('tool', 'warn'),
               ('answer', 'deny'), ('answer', 'off')) AS v(s, e);
SELECT lives_ok(format($$SELECT prometheus_set_policy('on error', 'tool', 'deny', on_error => %L)$$, e), 'on_error ' || e)
  FROM unnest(ARRAY['deny', 'warn', 'allow']) AS e;

-- Words that are none.

SELECT throws_ok(format($$SELECT prometheus_set_policy('new', stage => %L, effect => %L, on_error => %L, reviewer => %L)$$, s, e, o, r),
                 state, message, message)
  FROM (VALUES
    (NULL, 'deny', NULL, NULL, '22023', 'a policy must have its stage'),
    ('', 'deny', NULL, NULL, '22023', 'a policy must have its stage'),
    ('tool', NULL, NULL, NULL, '22023', 'a policy must have its effect'),
    ('plan', 'deny', NULL, NULL, '22023', 'stage "plan" does not exist'),
    ('TOOL', 'deny', NULL, NULL, '22023', 'stage "TOOL" does not exist'),
    ('tool', 'forbid', NULL, NULL, '22023', 'effect "forbid" does not exist'),
    ('tool', 'deny ', NULL, NULL, '22023', 'effect "deny " does not exist'),
    ('tool', 'deny', 'ignore', NULL, '22023', 'on_error "ignore" does not exist'),
    ('tool', 'deny', 'off', NULL, '22023', 'on_error "off" does not exist'),
    ('tool', 'deny', 'escalate', NULL, '22023', 'on_error "escalate" does not exist'),
    ('task', 'escalate', NULL, NULL, '22023', 'only a tool call can be escalated'),
    ('answer', 'escalate', NULL, NULL, '22023', 'only a tool call can be escalated'),
    ('tool', 'deny', NULL, 'sofia', '22023', 'reviewer "sofia" does not exist'),
    ('tool', 'deny', NULL, 'Model', '22023', 'reviewer "Model" does not exist'),
    ('tool', 'deny', NULL, 'model:', '42704', 'model "" does not exist'),
    ('tool', 'deny', NULL, 'model:gone', '42704', 'model "gone" does not exist'),
    ('tool', 'deny', NULL, 'model:echo', '22023', 'model "echo" cannot review'),
    ('tool', 'allow', NULL, 'model', '22023', 'a model as reviewer needs an effect for its doubts'),
    ('task', 'escalate', NULL, 'model', '22023', 'only a tool call can be escalated')) AS v(s, e, o, r, state, message);
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_policy('new', 'plan', 'deny')$$), 'It is one of: task, tool, answer.',
          'with a hint which stages there are');
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_policy('new', 'tool', 'forbid')$$), 'It is one of: off, allow, warn, escalate, deny.',
          'and which effects');
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_policy('new', 'tool', 'deny', on_error => 'ignore')$$),
          'It is one of: allow, warn, deny.', 'and only what on_error may be');
SELECT throws_ok(format('SELECT prometheus_set_policy(%s, ''tool'', ''deny'')', n), '22023', NULL, 'name ' || left(n, 20))
  FROM unnest(ARRAY['NULL', '''''', 'repeat(''n'', 201)']) AS n;
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'escalate', approvers => 'prom_test_nobody')$$, '42704',
                 'role "prom_test_nobody" does not exist', 'approvers that do not exist');

-- What must fit.

SELECT throws_ok(format($$SELECT prometheus_set_policy('new', 'tool', 'deny', match => %L)$$, m), state, message, 'match ' || m)
  FROM (VALUES
    ('[]', '22023', 'the match of a policy must be a json object'),
    ('["tool"]', '22023', 'the match of a policy must be a json object'),
    ('null', '22023', 'the match of a policy must be a json object'),
    ('"tool"', '22023', 'the match of a policy must be a json object'),
    ('{"colour": "red"}', '22023', 'a match has no "colour"'),
    ('{"Tool": "x"}', '22023', 'a match has no "Tool"'),
    ('{"tool": 1}', '22023', '"tool" in the match of a policy must be a text or an array of texts'),
    ('{"tool": null}', '22023', '"tool" in the match of a policy must be a text or an array of texts'),
    ('{"tool": {"a": "b"}}', '22023', '"tool" in the match of a policy must be a text or an array of texts'),
    ('{"agent": ["a", 1]}', '22023', '"agent" in the match of a policy must be a text or an array of texts'),
    ('{"tier": [["read"]]}', '22023', '"tier" in the match of a policy must be a text or an array of texts'),
    ('{"submitter": true}', '22023', '"submitter" in the match of a policy must be a text or an array of texts'),
    ('{"mode": [null]}', '22023', '"mode" in the match of a policy must be a text or an array of texts'),
    ('{"arguments": "x"}', '22023', '"arguments" in the match of a policy must be an object'),
    ('{"arguments": ["x"]}', '22023', '"arguments" in the match of a policy must be an object'),
    ('{"text": 1}', '22023', '"text" in the match of a policy must be a regular expression'),
    ('{"text": ["a"]}', '22023', '"text" in the match of a policy must be a regular expression'),
    ('{"text": "a("}', '2201B', 'invalid regular expression: parentheses () not balanced'),
    ('{"principle": 1}', '22023', '"principle" in the match of a policy must be the name of a principle'),
    ('{"principle": ["integrity"]}', '22023', '"principle" in the match of a policy must be the name of a principle'),
    ('{"principle": "beauty"}', '22023', 'principle "beauty" does not exist')) AS v(m, state, message);
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_policy('new', 'tool', 'deny', match => '{"colour": "red"}')$$),
          'It may have agent, submitter, mode, tool, tier, arguments, text and principle.', 'with a hint what it can have');
SELECT is_empty($$SELECT * FROM prometheus._policy WHERE name = 'new'$$, 'what was refused left nothing');
SELECT lives_ok(format($$SELECT prometheus_set_policy('match', 'tool', 'deny', match => %L)$$, m), 'match ' || m)
  FROM unnest(ARRAY[
    '{"agent": "a", "tool": ["x", "y"], "tier": "write", "submitter": ["joe"], "mode": "fast"}', '{"tool": []}',
    '{"text": "(?i)^drop\\s"}', '{"arguments": {"a": {"b": [1]}}}', '{"arguments": {}}', '{"principle": "transparency"}']) AS m;

-- Conditions.

CREATE FUNCTION prom_test.is_late(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION prom_test.secret(j jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
REVOKE EXECUTE ON FUNCTION prom_test.secret(jsonb) FROM PUBLIC;
CREATE FUNCTION prom_test.no_json(j json) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION prom_test.no_bool(j jsonb) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE FUNCTION prom_test.nothing() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION prom_test.two(j jsonb, k jsonb DEFAULT NULL) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION prom_test.many(j jsonb) RETURNS SETOF boolean LANGUAGE sql AS 'SELECT true';
CREATE PROCEDURE prom_test.procedure(j jsonb) LANGUAGE sql AS 'SELECT true';
CREATE AGGREGATE prom_test.every_one(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);

SELECT throws_ok(format($$SELECT prometheus_set_policy('new', 'tool', 'deny', 'prom_test.%s')$$, f), '22023',
                 NULL, 'condition ' || f)
  FROM unnest(ARRAY['no_json(json)', 'no_bool(jsonb)', 'nothing()', 'two(jsonb, jsonb)', 'many(jsonb)', 'procedure(jsonb)',
                    'every_one(jsonb)']) AS f;
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_policy('new', 'tool', 'deny', 'prom_test.no_json(json)')$$),
          'A condition is a function f(jsonb) RETURNS boolean of what is judged.', 'with a hint what it is');
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'deny', 'prom_test.gone(jsonb)')$$, '42883', NULL,
                 'a condition that is not there');
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'deny', 4294967295::regprocedure)$$, '42883', NULL, 'nor by its oid');
SET LOCAL search_path = prom_test, public;
SELECT is(public.prometheus_set_policy('late', 'tool', 'deny', 'is_late(jsonb)'), 1::bigint, 'a condition');
RESET search_path;
SELECT is(condition, 'prom_test.is_late(pg_catalog.jsonb)', 'is kept as its signature') FROM prometheus.policy WHERE name = 'late';
SELECT is(search_path, 'prom_test, public, pg_temp', 'with the path of then') FROM prometheus._policy WHERE name = 'late';

-- Reviewers.

SELECT lives_ok($$SELECT prometheus_set_model('elder', 'openai', 'https://example.com/v1')$$, 'a model');
SELECT is(prometheus_set_policy('counsel', 'tool', 'escalate', reviewer => 'model:elder'), 1::bigint, 'that reviews');
SELECT is(prometheus_set_policy('counsel', effect => e), v, 'effect ' || e)
  FROM (VALUES ('off', 2::bigint), ('warn', 3), ('deny', 4)) AS x(e, v);
SELECT is(reviewer, 'model:elder', 'stays the reviewer') FROM prometheus.policy WHERE name = 'counsel';
SELECT throws_ok($$SELECT prometheus_set_policy('counsel', condition => 'prom_test.is_late(jsonb)')$$, '0A000',
                 'a policy whose reviewer is a model has no condition', 'no condition');
SELECT is(prometheus_set_policy('counsel', reviewer => 'rule', condition => 'prom_test.is_late(jsonb)'), 5::bigint, 'but a rule has one');
SELECT is(prometheus_set_policy('counsel', reviewer => 'model', condition => '-'), 6::bigint, 'the own model');
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_policy('new', 'tool', 'deny', reviewer => 'sofia')$$),
          'It is rule, model (that of the agent which is reviewed), or model:NAME.', 'with a hint what it can be');

-- Versions.

SELECT is(prometheus_set_policy('kept', 'tool', 'escalate', 'prom_test.is_late(jsonb)', '{"tool": "x"}', 'Why.', 'What.', 'rule',
                                'prom_test_board', 'warn'), 1::bigint, 'all arguments');
SELECT is(prometheus_set_policy('kept', on_error => NULL), 2::bigint, 'the next version');
SELECT results_eq($$SELECT DISTINCT stage, effect, condition, search_path, match, reason, suggestion, reviewer, approvers, on_error
                      FROM prometheus._policy WHERE name = 'kept'$$,
                  $$VALUES ('tool', 'escalate', 'prom_test.is_late(pg_catalog.jsonb)', 'public, pg_temp', '{"tool": "x"}'::jsonb,
                            'Why.', 'What.', 'rule', 'prom_test_board', 'warn')$$, 'keeps what is not given');
SELECT is(array_agg(DISTINCT approvers_oid), ARRAY['prom_test_board'::regrole::oid], 'and which role the approvers are')
  FROM prometheus._policy WHERE name = 'kept';
SELECT is(prometheus_set_policy('kept', effect => 'off', reason => '', approvers => '', match => '{"tool": "y"}', condition => '-'),
          3::bigint, 'a value, and none');
SELECT is(to_jsonb(p) - '{set_at,owner}'::text[],
          '{"name": "kept", "stage": "tool", "effect": "off", "condition": null, "match": {"tool": "y"}, "reason": null,
            "suggestion": "What.", "reviewer": "rule", "approvers": null, "on_error": "deny", "version": 3}',
          'are changed; on_error is deny unless said otherwise')
  FROM prometheus.policy p WHERE name = 'kept';
SELECT is(prometheus_set_policy('kept', match => '{}'), 4::bigint, 'a match can be taken away');
SELECT is(match, '{}', 'and is empty then') FROM prometheus.policy WHERE name = 'kept';
SELECT is(approvers_oid, NULL, 'no approvers, no role') FROM prometheus._policy WHERE name = 'kept' AND version = 3;
SELECT is(search_path, NULL, 'no condition, no path') FROM prometheus._policy WHERE name = 'kept' AND version = 3;
SELECT throws_ok($$SELECT prometheus_set_policy('kept', 'task', 'escalate')$$, '22023', NULL, 'what is kept must fit what is changed');
SELECT is((SELECT count(*) FROM prometheus.policy WHERE name = 'kept'), 1::bigint, 'the view has the newest only');
SELECT is(prometheus_set_policy('justica.escalation', effect => 'off'), 2::bigint, 'the constitution can be changed');
SELECT is(match, '{"tier": "destructive"}', 'and keeps the rest') FROM prometheus.policy WHERE name = 'justica.escalation';
SELECT throws_ok($$INSERT INTO prometheus._policy SELECT * FROM prometheus._policy WHERE name = 'kept' AND version = 1$$,
                 '23505', NULL, 'a version cannot be written twice');

-- Who may.

SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'deny')$$, '42501',
                 'permission denied for function prometheus_set_policy', 'not a user');
RESET ROLE;
GRANT EXECUTE ON FUNCTION prometheus_set_policy TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'deny')$$, '42501', NULL, 'a granted EXECUTE makes no administrator');
SELECT isnt_empty('TABLE prometheus.policy', 'but a user reads what there is');
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'deny', 'prom_test.secret(jsonb)')$$, '42501',
                 'permission denied for function prom_test.secret(jsonb)', 'a condition that the administrator may not execute');
SELECT is(prometheus_set_policy('mine', 'tool', 'deny', 'prom_test.is_late(jsonb)'), 1::bigint, 'an administrator may');
SELECT is(owner, 'prom_test_admin', 'and owns it') FROM prometheus.policy WHERE name = 'mine';
SELECT throws_ok($$SELECT prometheus_set_policy('mine', effect => 'x')$$, '22023', NULL, 'a setting that fails');
SELECT is(current_user::text, 'prom_test_admin', 'gives nobody''s rights away');
SELECT is(prometheus_set_policy('plain', 'tool', 'deny'), 1::bigint, 'one without a condition');
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_policy('mine', condition => 'prom_test.is_late(jsonb)')$$, '42501',
                 'permission denied for policy "mine"', 'another administrator may not have a condition run as its owner');
SELECT throws_ok($$SELECT prometheus_set_policy('mine', match => '{"tool": "x"}')$$, '42501', 'permission denied for policy "mine"',
                 'nor change on what it runs');
SELECT throws_ok($$SELECT prometheus_set_policy('plain', condition => 'prom_test.is_late(jsonb)')$$, '42501',
                 'permission denied for policy "plain"', 'nor give it one');
SELECT is(prometheus_set_policy('plain', effect => 'warn'), 2::bigint, 'but change one that has none');
SELECT is(owner, 'prom_test_admin', 'whose owner stays') FROM prometheus.policy WHERE name = 'plain';
SELECT throws_ok($$SELECT prometheus_set_policy('mine', effect => 'off')$$, '42501', 'permission denied for policy "mine"',
                 'nor switch off what runs as its owner');
SELECT is(prometheus_set_policy('mine', effect => 'off', condition => '-'), 2::bigint, 'unless the condition is taken away');
RESET ROLE;
SELECT is(prometheus_set_policy('mine', effect => 'deny', condition => 'prom_test.is_late(jsonb)'), 3::bigint, 'a superuser may');
GRANT prom_test_admin TO prom_test_other;
SET LOCAL ROLE prom_test_other;
SELECT is(prometheus_set_policy('mine', match => '{"tool": "x"}'), 4::bigint, 'and who has the owner''s role');
RESET ROLE;
ALTER ROLE prom_test_admin RENAME TO prom_test_renamed;
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_policy('mine', match => '{"tool": "x"}')$$, '42501', 'permission denied for policy "mine"',
                 'but not when the owner''s oid is of another name');
RESET ROLE;
SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT throws_ok($$SELECT prometheus_set_policy('new', 'tool', 'deny')$$, '25006',
                 'cannot execute prometheus_set_policy() in a read-only transaction', 'none is set when read-only');
ROLLBACK TO s;

SELECT * FROM finish();
ROLLBACK;
