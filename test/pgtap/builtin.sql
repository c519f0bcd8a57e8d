-- The tools that are built in: their rows, schemas and names.  How they run is
-- in t/.
BEGIN;
SELECT plan(54);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_user;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prometheus_agent_user TO prom_test_user;
CREATE SCHEMA prom_test AUTHORIZATION prom_test_admin;

SET LOCAL ROLE prom_test_user;
SELECT results_eq(
    $$SELECT name, kind, function, tier, idempotent, version FROM prometheus.tool ORDER BY name$$,
    $$VALUES ('delegate', 'builtin', 'delegate', 'write', false, 1::bigint),
             ('query', 'builtin', 'query', 'read', false, 1::bigint),
             ('read_state', 'builtin', 'read_state', 'read', false, 1::bigint),
             ('recall', 'builtin', 'recall', 'read', false, 1::bigint),
             ('remember', 'builtin', 'remember', 'write', false, 1::bigint),
             ('save_state', 'builtin', 'save_state', 'write', false, 1::bigint)$$,
    'a fresh install has these tools');
SELECT is_empty($$SELECT name FROM prometheus.tool WHERE coalesce(description, '') !~ '\.$'$$,
                'each has a description that is a sentence');
RESET ROLE;
SELECT is((SELECT array_agg(DISTINCT t.owner) FROM prometheus.tool t),
          (SELECT ARRAY[r.rolname::text] FROM pg_extension e JOIN pg_roles r ON r.oid = e.extowner
            WHERE e.extname = 'prometheus'), 'the extension''s owner owns them');

-- Schemas.

SELECT is(prometheus._schema_mismatch((SELECT schema FROM prometheus.tool WHERE name = tool), arguments) IS NULL, fits,
          format('%s(%s)', tool, left(arguments, 50)))
  FROM (VALUES
    ('remember', '{"content": "x"}', true),
    ('remember', '{"content": "x", "kind": "vault", "importance": 1}', true),
    ('remember', '{"content": "x", "kind": null, "importance": null}', true),
    ('remember', '{}', false),
    ('remember', '{"content": 1}', false),
    ('remember', '{"content": "x", "kind": "gossip"}', false),
    ('remember', '{"content": "x", "importance": 1.5}', false),
    ('remember', '{"content": "x", "importance": -1}', false),
    ('remember', '{"content": "x", "owner": "postgres"}', false),
    ('delegate', '{"agent": "a", "request": "x"}', true),
    ('delegate', '{"request": "x"}', false),
    ('delegate', '{"agent": "a", "request": "x", "priority": 1000}', false),
    ('recall', '{"query": "x"}', true),
    ('recall', '{"query": "x", "k": 50}', true),
    ('recall', '{"query": "x", "k": null}', true),
    ('recall', '{"query": "x", "k": 0}', false),
    ('recall', '{"query": "x", "k": 51}', false),
    ('recall', '{"query": "x", "k": 1.5}', false),
    ('recall', '{"k": 1}', false),
    ('recall', '{"query": "x", "agent": "another"}', false),
    ('read_state', '{}', true),
    ('read_state', '{"key": "plan"}', true),
    ('read_state', '{"key": null}', true),
    ('read_state', '{"key": ""}', false),
    ('read_state', '{"agent": "another"}', false),
    ('save_state', '{"value": {"a": 1}}', true),
    ('save_state', '{"value": null, "key": "plan", "expected_version": 0}', true),
    ('save_state', '{}', false),
    ('save_state', '{"value": 1, "expected_version": -1}', false),
    ('save_state', '{"value": 1, "expected_version": 1.5}', false),
    ('save_state', '{"value": 1, "owner": "postgres"}', false),
    ('query', '{"sql": "SELECT 1"}', true),
    ('query', '{"sql": null}', false),
    ('query', '{"sql": ["SELECT 1"]}', false),
    ('query', '{"sql": "SELECT 1", "role": "postgres"}', false),
    ('query', '[]', false)) AS asked (tool, arguments, fits);
SELECT is((SELECT array_agg(word ORDER BY word)
             FROM prometheus.tool, jsonb_array_elements_text(schema #> '{properties,kind,enum}') AS word
            WHERE name = 'remember' AND word IS NOT NULL),
          '{core,episodic,procedural,resource,semantic,vault}'::text[], 'remember knows the kinds of memories');

-- Their names are theirs.

SET LOCAL ROLE prom_test_admin;
CREATE FUNCTION prom_test.query(sql text) RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$;
SELECT throws_ok(format('SELECT public.prometheus_set_tool(''prom_test.query(text)'', %L)', name), '42939',
                 format('tool "%s" is built in', name), name || ' cannot be set')
  FROM unnest('{remember,recall,query,delegate,read_state,save_state}'::text[]) AS name;
SELECT throws_ok($$SELECT public.prometheus_set_tool('prom_test.query(text)')$$, '42939', NULL,
                 'nor by the name of a function');
SELECT lives_ok($$SELECT public.prometheus_set_tool('prom_test.query(text)', 'Query')$$,
                'capitals make another name');
SELECT lives_ok($$SELECT public.prometheus_set_tool('prom_test.query(text)', 'my_query')$$,
                'the function can have another name');
RESET ROLE;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT public.prometheus_set_tool('prom_test.query(text)', 'query')$$, '42501', NULL,
                 'who is no administrator sets no tool');
RESET ROLE;
SELECT is((SELECT array_agg(name ORDER BY name) FROM prometheus.tool WHERE kind = 'builtin' AND version = 1),
          '{delegate,query,read_state,recall,remember,save_state}', 'they are as they were');

-- Agents.

SET LOCAL ROLE prom_test_admin;
SELECT lives_ok($$SELECT public.prometheus_set_agent('prom_test', 'echo', tools => '{remember,recall,query,my_query}')$$,
                'an agent can have them beside others');
SELECT is((SELECT tools FROM prometheus.agent WHERE name = 'prom_test'), '{remember,recall,query,my_query}',
          'in the order in which they were given');
SELECT throws_ok($$SELECT public.prometheus_set_agent('prom_test', tools => '{forget}')$$, '42704', NULL,
                 'there is none to forget');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
