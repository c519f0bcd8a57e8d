-- Idempotency keys, traces that are taken over, and many tasks at once.
BEGIN;
SELECT plan(31);

SELECT prometheus_submit('a', idempotency_key => 'k') AS first \gset
SELECT is(prometheus_submit('a', idempotency_key => 'k'), :first::bigint, 'the same key gives the same task');
SELECT is(prometheus_submit('a', idempotency_key => 'k', priority => 5), :first::bigint, 'also with another priority');
SELECT throws_ok('SELECT prometheus_submit(''b'', idempotency_key => ''k'')', '42710', NULL, 'another request is an error');
SELECT throws_ok('SELECT prometheus_submit(''a'', idempotency_key => '''')', '22023', NULL, 'not an empty key');
SELECT throws_ok('SELECT prometheus_submit(''a'', idempotency_key => repeat(''k'', 201))', '22023', NULL, 'nor a long one');
SELECT lives_ok('SELECT prometheus_submit(''a'', idempotency_key => repeat(''k'', 200))', 'up to 200 bytes');
SELECT isnt(prometheus_submit('a'), :first::bigint, 'no key, no relation');
SELECT is(count(*)::int, 1, 'one task has the key') FROM prometheus._idempotency WHERE key = 'k';
SAVEPOINT s;
SELECT prometheus_submit('a', idempotency_key => 'rolled back') AS gone \gset
ROLLBACK TO s;
SELECT isnt(prometheus_submit('a', idempotency_key => 'rolled back'), :gone::bigint, 'a key that was rolled back is free');

-- Keys are each submitter's own.
CREATE ROLE prom_test_key IN ROLE prometheus_agent_user;
SET ROLE prom_test_key;
SELECT isnt(prometheus_submit('a', idempotency_key => 'k'), :first::bigint, 'another submitter has keys of his own');
SELECT prometheus_submit('a', idempotency_key => 'mine') AS mine \gset
RESET ROLE;
ALTER ROLE prom_test_key RENAME TO prom_test_key_gone;
CREATE ROLE prom_test_key IN ROLE prometheus_agent_user;
SET ROLE prom_test_key;
SELECT isnt(prometheus_submit('a', idempotency_key => 'mine'), :mine::bigint, 'and so has another role of his name');
RESET ROLE;

-- Many at once.
CREATE TEMP TABLE many AS
SELECT id, n FROM prometheus_submit_many(ARRAY['x', 'y', 'z']) WITH ORDINALITY AS m (id, n);
SELECT results_eq('SELECT t.request FROM many JOIN prometheus._task t ON t.task_id = id ORDER BY n',
                  $$VALUES ('x'), ('y'), ('z')$$, 'in the order of the requests');
SELECT is(array_length(array_agg(DISTINCT id), 1), 2, 'a key twice in one call is one task')
  FROM prometheus_submit_many(ARRAY['x', 'y', 'x'], idempotency_keys => ARRAY['1', '2', '1']) AS id;
SELECT throws_ok('SELECT prometheus_submit_many(ARRAY[''x'', ''y''], idempotency_keys => ARRAY[''1'', ''1''])', '42710', NULL,
                 'a key twice for two requests is an error');
SELECT throws_ok('SELECT prometheus_submit_many(ARRAY[''x''], idempotency_keys => ARRAY[''1'', ''2''])', '2202E', NULL, 'a key too many');
SELECT throws_ok('SELECT prometheus_submit_many(NULL)', '22004', NULL, 'not null');
SELECT throws_ok('SELECT prometheus_submit_many(ARRAY[''x'', NULL])', '22004', NULL, 'nor a null among them');
SELECT throws_ok('SELECT prometheus_submit_many(ARRAY[''x'', ''''])', '22023', NULL, 'nor an empty one');
SELECT is_empty('SELECT prometheus_submit_many(ARRAY[]::text[])', 'none for none');
SELECT is(count(*)::int, 1000, 'a thousand') FROM prometheus_submit_many(array_fill('x'::text, ARRAY[1000]));
SELECT is(count(DISTINCT trace_id)::int, 3, 'each with a trace of its own')
  FROM prometheus.task WHERE task_id IN (SELECT id FROM many);

-- Traces.
SELECT prometheus_submit('a', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00') AS traced \gset
SELECT is(trace_id, '0af7651916cd43dd8448eb211c80319c', 'the trace of a traceparent is taken over')
  FROM prometheus.task WHERE task_id = :traced;
SELECT throws_ok(format('SELECT prometheus_submit(''a'', traceparent => %L)', wrong), '22023', NULL,
                 'not a traceparent: ' || wrong)
  FROM (VALUES
    (''), ('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331'),
    ('00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01'),
    ('00-00000000000000000000000000000000-b7ad6b7169203331-01'),
    ('00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01'),
    ('ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'),
    ('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more'),
    ('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g'),
    ('00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01')) AS v (wrong);

SELECT * FROM finish();
ROLLBACK;
