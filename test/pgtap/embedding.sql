-- Embeddings that models make: the option, what recall does with them, and who
-- sees them.  They are written here as src/embedded.c does; how they are made is
-- in t/252.
BEGIN;
SELECT plan(40);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_other;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prometheus_agent_user TO prom_test_user, prom_test_other;

-- The option.

SET LOCAL ROLE prom_test_admin;
SELECT lives_ok($$SELECT prometheus_set_model('vectors', 'openai', 'https://example.com/v1', 'text-1')$$, 'a model');
SELECT lives_ok($$SELECT prometheus_set_agent('sage', 'echo', options => '{"embedding_model": "vectors"}')$$, 'an agent has it');
SELECT is(options ->> 'embedding_model', 'vectors', '... as an option') FROM prometheus.agent WHERE name = 'sage';
SELECT throws_ok(format($$SELECT prometheus_set_agent('sage', 'echo', options => '{"embedding_model": %s}')$$, value), '22023',
                 'option "embedding_model" has a wrong value', value || ' is no name')
  FROM (VALUES ('1'), ('""'), ('["vectors"]'), ('true'), (to_json(repeat('x', 201))::text)) v (value);
SELECT throws_ok($$SELECT prometheus_set_agent('sage', options => '{"embedding_model": "nobody"}')$$, '42704', 'model "nobody" does not exist', 'the model must be there');
SELECT throws_ok($$SELECT prometheus_set_agent('sage', options => '{"embedding_model": "echo"}')$$, '22023', 'model "echo" cannot make embeddings', '... and be of api openai');
SELECT lives_ok($$SELECT prometheus_set_model('turns', 'anthropic', 'https://example.com/v1')$$, 'one of another api');
SELECT throws_ok($$SELECT prometheus_set_agent('sage', options => '{"embedding_model": "turns"}')$$, '22023', 'model "turns" cannot make embeddings', '... has none');
SELECT lives_ok($$SELECT prometheus_set_agent('sage', instructions => 'Be wise.')$$, 'it stays when another thing is set');
SELECT is(options ->> 'embedding_model', 'vectors', 'it is still there') FROM prometheus.agent WHERE name = 'sage';
SELECT throws_ok($$SELECT prometheus_set_model('vectors', options => '{"extra_body": {"input": ["x"]}}')$$, '22023', 'extra_body must not have "input"', 'what is embedded is not for extra_body');
SELECT throws_ok($$SELECT prometheus_set_model('vectors', options => '{"extra_body": {"encoding_format": "base64"}}')$$, '22023', 'extra_body must not have "encoding_format"', 'nor is the form of numbers');
SELECT lives_ok($$SELECT prometheus_set_model('vectors', options => '{"extra_body": {"dimensions": 2}}')$$, 'dimensions are');

-- What a model has made.

SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('sage', 'Bob likes tea') AS bob \gset
SELECT prometheus_remember('sage', 'It rains') AS rain \gset
SELECT prometheus_remember('sage', 'Snow falls', 'episodic') AS snow \gset
SELECT prometheus_remember('sage', 'Given', embedding => '{0,1}') AS given \gset
RESET ROLE;
CREATE FUNCTION prom_test_make(id bigint, vector real[], space text DEFAULT 'text-1 {"dimensions": 2}') RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding)
    SELECT prometheus._hash('embedding', space || ' of ' || m.owner, m.content), space, prometheus._xid(), clock_timestamp(), vector
      FROM prometheus._memory m WHERE m.memory_id = id AND m.version = 1 ON CONFLICT DO NOTHING;
    INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at, owner, agent, kind, space, hash, sketch)
    SELECT m.memory_id, prometheus._xid(), clock_timestamp(), m.owner, m.agent, m.kind, space,
           prometheus._hash('embedding', space || ' of ' || m.owner, m.content), prometheus._sketch(vector)
      FROM prometheus._memory m WHERE m.memory_id = id ORDER BY m.version DESC LIMIT 1 $$;
SELECT prom_test_make(:bob, '{1,0}'), prom_test_make(:rain, '{1,1}'), prom_test_make(:snow, '{-1,0}') \g /dev/null

CREATE FUNCTION prom_test_recalled(query text, vector real[] DEFAULT NULL, kinds text[] DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(content, ', ' ORDER BY score DESC, memory_id DESC) FROM prometheus_recall('sage', query, kinds, 10, vector) $$;
SET LOCAL ROLE prom_test_user;
SELECT is(prom_test_recalled('', '{2,0.1}'), 'Bob likes tea, It rains, Given, Snow falls', 'made and given ones are compared together');
SELECT is(prom_test_recalled('', '{0.1,3}'), 'Given, It rains, Bob likes tea, Snow falls', '... whichever is nearest');
SELECT is(prom_test_recalled('', '{-1,0}', '{semantic}'), 'Given, It rains, Bob likes tea', 'of the kinds that are asked for');
SELECT is(prom_test_recalled('', '{-1,0}', '{episodic}'), 'Snow falls', '... and of no others');
SELECT is(prom_test_recalled('Bob likes tea'), 'Bob likes tea, It rains, Given, Snow falls', 'a query that a memory has has its embedding');
SELECT is(prom_test_recalled('bob'), 'Bob likes tea', 'another one is its words');
SELECT results_eq('SELECT memory_id, owner, agent, space, dimensions, error FROM prometheus.memory_embedding ORDER BY memory_id',
    format($$VALUES (%s::bigint, 'prom_test_user', 'sage', 'text-1 {"dimensions": 2}', 2, NULL),
                    (%s, 'prom_test_user', 'sage', 'text-1 {"dimensions": 2}', 2, NULL),
                    (%s, 'prom_test_user', 'sage', 'text-1 {"dimensions": 2}', 2, NULL)$$, :bob, :rain, :snow), 'the view has them');
SET LOCAL ROLE prom_test_other;
SELECT is_empty('SELECT FROM prometheus.memory_embedding', 'but not for others');
SELECT is(prom_test_recalled('', '{1,0}'), NULL, 'who recall nothing of it');
SELECT prometheus_remember('sage', 'Near', embedding => '{1,0}') \g /dev/null
SELECT prometheus_remember('sage', 'Far', embedding => '{-1,0}') \g /dev/null
SELECT is(prom_test_recalled('', '{1,0}'), 'Near, Far', 'their own by embeddings');
SELECT is(prom_test_recalled('bob likes tea'), 'Far, Near', 'nor can they find out what he has');
SELECT is(prom_test_recalled('Bob likes tea'), 'Far, Near', '... by asking for it');
SELECT throws_ok('SELECT FROM prometheus.embedding_call', '42501', NULL, 'requests are for administrators');
SELECT throws_ok('SELECT FROM prometheus._embedding', '42501', NULL, 'and vectors for nobody');

-- Of another space, of a kind that it had, and of what is forgotten.

SET LOCAL ROLE prom_test_user;
SELECT ok(prometheus_forget(:rain), 'one is forgotten');
SELECT is(prom_test_recalled('', '{1,1}'), 'Given, Bob likes tea, Snow falls', '... and not found');
SELECT ok(prometheus_restore_memory(:rain), 'and restored');
SELECT is(prom_test_recalled('', '{1,1}', '{semantic}'), 'It rains, Given, Bob likes tea', '... with what it had');
SELECT is(prometheus_remember('sage', 'It rains', importance => 0.6), :rain::bigint, 'it gets a newer version');
SELECT is(prom_test_recalled('', '{1,1}', '{semantic}'), 'It rains, Given, Bob likes tea', '... and keeps it');
-- One that had another kind has an embedding of each: it counts once.

SELECT prometheus_remember('sage', 'North') AS north \gset
SELECT prometheus_remember('sage', 'Northeast') AS northeast \gset
RESET ROLE;
SELECT prom_test_make(:north, '{0,-1}'), prom_test_make(:northeast, '{0.2,-1}') \g /dev/null
INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner, agent, kind, content, metadata, words)
SELECT memory_id, 2, prometheus._xid(), mark, created_at, owner_oid, importance, false, owner, agent, 'vault', content, metadata, words
  FROM prometheus._memory WHERE memory_id = :northeast;
SELECT prom_test_make(:northeast, '{0.2,-1}') \g /dev/null
SET LOCAL ROLE prom_test_user;
SELECT alike(prom_test_recalled('', '{0,-1}'), 'North, Northeast, %', 'one that was consolidated is no nearer for it');
SELECT is(prom_test_recalled('', '{0,-1}', '{vault}'), 'Northeast', '... and is found by its kind');

SET LOCAL ROLE prom_test_admin;
SELECT lives_ok($$SELECT prometheus_set_model('vectors', options => '{"extra_body": null}')$$, 'another space');

SELECT * FROM finish();
ROLLBACK;
