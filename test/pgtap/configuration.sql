-- What setting a model and setting an agent have in common: who may, who owns
-- the result, and what becomes of it when a transaction is undone.
BEGIN;
SELECT plan(42);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_admin TO prom_test_admin, prom_test_other;
GRANT prometheus_agent_user TO prom_test_user;

-- Who may.

SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_model('echo', 'echo')$$, '42501', NULL, 'a user may not set a model');
SELECT throws_ok($$SELECT prometheus_set_agent('default')$$, '42501', NULL, 'nor an agent');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT prometheus_set_model('echo', 'echo')$$, '42501', NULL, 'nor may anybody else');
SELECT throws_ok($$SELECT prometheus_set_agent('default')$$, '42501', NULL, 'either');
RESET ROLE;
-- EXECUTE is not enough.
GRANT EXECUTE ON FUNCTION prometheus_set_model(text, text, text, text, text, regprocedure, jsonb),
    prometheus_set_agent(text, text, text, text, text[], text, jsonb) TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_model('echo', 'echo')$$, '42501', NULL, 'a granted EXECUTE makes no administrator');
SELECT throws_ok($$SELECT prometheus_set_agent('default')$$, '42501', NULL, 'of agents neither');

SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus_set_model('mine', 'echo'), 1::bigint, 'an administrator may set a model');
SELECT is(prometheus_set_agent('mine', 'mine'), 1::bigint, 'and an agent');
SELECT is(current_user::text, 'prom_test_admin', 'and is afterwards who he was');
SELECT throws_ok('SELECT * FROM prometheus._model', '42501', NULL, 'with no more rights than before');
SELECT throws_ok($$SELECT prometheus_set_model('mine', 'wrong')$$, '22023', NULL, 'a setting that fails');
SELECT is(current_user::text, 'prom_test_admin', 'gives nobody''s rights away');
SELECT throws_ok('SELECT * FROM prometheus._model', '42501', NULL, 'none at all');

-- Who owns it.

SELECT is(owner, 'prom_test_admin', 'the creator owns a model') FROM prometheus.model WHERE name = 'mine';
SELECT is(owner, 'prom_test_admin', 'and an agent') FROM prometheus.agent WHERE name = 'mine';
SET LOCAL ROLE prom_test_other;
SELECT is(prometheus_set_model('mine'), 2::bigint, 'another administrator may change a model');
SELECT is(prometheus_set_agent('mine'), 2::bigint, 'and an agent');
SELECT is(owner, 'prom_test_admin', 'the model keeps its owner') FROM prometheus.model WHERE name = 'mine';
SELECT is(owner, 'prom_test_admin', 'the agent keeps its owner') FROM prometheus.agent WHERE name = 'mine';
RESET ROLE;
SELECT is(owner_oid, 'prom_test_admin'::regrole::oid, 'and its oid') FROM prometheus._agent WHERE name = 'mine' AND version = 2;

CREATE FUNCTION pg_temp.set_for_me(name text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    'SELECT public.prometheus_set_agent(name, ''echo'')';
ALTER FUNCTION pg_temp.set_for_me(text) OWNER TO prom_test_admin;
SET LOCAL ROLE prom_test_user;
SELECT is(pg_temp.set_for_me('wrapped'), 1::bigint, 'a SECURITY DEFINER function sets as its owner');
RESET ROLE;
SELECT is(owner, 'prom_test_admin', 'who is then the owner') FROM prometheus.agent WHERE name = 'wrapped';

-- Transactions.

SAVEPOINT s;
SELECT is(prometheus_set_model('mine'), 3::bigint, 'a version in a savepoint');
SELECT is(prometheus_set_agent('mine', instructions => 'undone'), 3::bigint, 'of an agent too');
SELECT is(instructions, 'undone', 'is seen in it') FROM prometheus.agent WHERE name = 'mine';
SELECT lives_ok($$SELECT prometheus_set_agent('undone', 'echo')$$, 'a new agent');
SELECT lives_ok($$SELECT prometheus_submit('x', 'undone')$$, 'can be asked at once');
ROLLBACK TO s;
SELECT is(instructions, NULL, 'but not after ROLLBACK TO SAVEPOINT') FROM prometheus.agent WHERE name = 'mine';
SELECT throws_ok($$SELECT prometheus_submit('x', 'undone')$$, '42704', NULL, 'and what was new is unknown');
SELECT is(prometheus_set_model('mine'), 3::bigint, 'the version is taken again');
SELECT is(prometheus_set_agent('mine'), 3::bigint, 'of the agent too');
SELECT is((SELECT array_agg(version ORDER BY version) FROM prometheus._agent WHERE name = 'mine'), ARRAY[1, 2, 3]::bigint[],
          'so versions are dense');
SELECT is((SELECT count(DISTINCT xid) FROM prometheus._agent WHERE name = 'mine'), 1::bigint,
          'xid is that of the top transaction');

SELECT throws_ok($$INSERT INTO prometheus._agent SELECT * FROM prometheus._agent WHERE name = 'mine' AND version = 1$$,
                 '23505', NULL, 'a version cannot be written twice');
SELECT throws_ok($$INSERT INTO prometheus._model SELECT * FROM prometheus._model WHERE name = 'mine' AND version = 1$$,
                 '23505', NULL, 'of a model neither');

-- The views are to be read.

SET LOCAL ROLE prom_test_admin;
SELECT throws_ok($$UPDATE prometheus.agent SET owner = 'prom_test_other' WHERE name = 'mine'$$, '55000', NULL,
                 'an administrator may not write to the view');
SELECT throws_ok($$INSERT INTO prometheus.model (name) VALUES ('x')$$, '55000', NULL, 'of models neither');
SELECT throws_ok($$DELETE FROM prometheus.agent$$, '55000', NULL, 'nor delete');
RESET ROLE;

-- Read-only transactions.

SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT throws_ok($$SELECT prometheus_set_model('mine')$$, '25006', NULL, 'no model is set when read-only');
SELECT throws_ok($$SELECT prometheus_set_agent('mine')$$, '25006', NULL, 'nor an agent');
SELECT is(current_user::text, session_user::text, 'the caller is who he was');
ROLLBACK TO s;
SELECT is(prometheus_set_agent('mine'), 4::bigint, 'and then again');

SELECT * FROM finish();
ROLLBACK;
