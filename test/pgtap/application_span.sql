-- Spans of applications: what they may be, whose part they are, and who sees them.
-- That they survive is in test/t/700_trace.pl.
BEGIN;
SELECT plan(53);
SET LOCAL client_min_messages = error;

CREATE FUNCTION pg_temp.trace(traceparent text) RETURNS text LANGUAGE sql AS 'SELECT substr($1, 4, 32)';
CREATE FUNCTION pg_temp.span(traceparent text) RETURNS text LANGUAGE sql AS 'SELECT substr($1, 37, 16)';
CREATE FUNCTION pg_temp.flags(traceparent text) RETURNS text LANGUAGE sql AS 'SELECT substr($1, 54)';

SELECT is(prometheus_traceparent(), NULL, 'at first a session is in no span');
SELECT prometheus_span_start('outer') AS outer \gset
SELECT matches(:'outer'::text, '^00-[0-9a-f]{32}-[89a-f][0-9a-f]{15}-0[23]$', 'a span is a traceparent');
SELECT is(prometheus_traceparent(), :'outer', 'which the session is in then');
SELECT prometheus_span_start('inner', '{"a": 1}') AS inner \gset
SELECT is(pg_temp.trace(:'inner'), pg_temp.trace(:'outer'), 'one within it is of the same trace');
SELECT isnt(pg_temp.span(:'inner'), pg_temp.span(:'outer'), 'with an id of its own');
SELECT is(prometheus_traceparent(), :'inner', 'the newest is what the session is in');
SELECT prometheus_span_start('other', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00') AS other \gset
SELECT is(pg_temp.trace(:'other'), '0af7651916cd43dd8448eb211c80319c', 'one with a traceparent is of that trace');
SELECT is(pg_temp.flags(:'other'), '00', 'and sampled if that is');
SELECT is(pg_temp.flags(prometheus_span_start('more')), '00', 'as what is within it');

-- A task is a part of it, unless it is said otherwise.

SELECT prometheus_submit('x') AS task \gset
SELECT is(trace_id, '0af7651916cd43dd8448eb211c80319c', 'a task is of the trace of the span') FROM prometheus.task WHERE task_id = :task;
SELECT is(parent_span_id, pg_temp.span(prometheus_traceparent()), 'and a part of it') FROM prometheus.span
 WHERE attributes ->> 'prometheus.task_id' = :'task' AND name ~ 'invoke';
SELECT is((SELECT count(*) FROM prometheus.task t JOIN prometheus_submit_many('{a,b}') AS m(id) ON m.id = t.task_id), 0::bigint, 'not seen by the statement itself');
SELECT is((SELECT count(DISTINCT trace_id) || ' ' || count(*) FROM (SELECT trace_id FROM prometheus.task ORDER BY task_id DESC LIMIT 3) t), '1 3', 'so are many tasks');
SELECT prometheus_submit('x', traceparent => '00-11f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01') AS task \gset
SELECT is(trace_id, '11f7651916cd43dd8448eb211c80319c', 'not one that is given another traceparent') FROM prometheus.task WHERE task_id = :task;

-- Ends, in any order.

SELECT lives_ok(format('SELECT prometheus_span_end(%L)', prometheus_traceparent()), 'the newest');
SELECT is(prometheus_traceparent(), :'other', 'then the one around it is');
SELECT lives_ok(format('SELECT prometheus_span_end(%L, ''error'')', :'outer'), 'an outer one');
SELECT is(prometheus_traceparent(), :'other', 'does not end those within it');
SELECT throws_ok(format('SELECT prometheus_span_end(%L)', :'outer'), '42704', NULL, 'no span ends twice');
SELECT throws_ok('SELECT prometheus_span_end(''00-11f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'')', '42704', NULL, 'nor one that is none');
SELECT prometheus_span_end(:'other', 'unset'), prometheus_span_end(:'inner', 'ok');
SELECT is(prometheus_traceparent(), NULL, 'in the end the session is in none');
SELECT prometheus_submit('x') AS task \gset
SELECT is(parent_span_id, NULL, 'and a task has a trace of its own') FROM prometheus.span
 WHERE attributes ->> 'prometheus.task_id' = :'task' AND name ~ 'invoke';

-- What is rolled back ends.

SAVEPOINT s;
SELECT prometheus_span_start('gone') AS gone \gset
ROLLBACK TO s;
SELECT is(prometheus_traceparent(), NULL, 'a span of what is rolled back has ended');
SELECT lives_ok(format('SELECT prometheus_span_end(%L, ''error'')', :'gone'), 'to end it once more does no harm');
SELECT prometheus_span_start('kept') AS kept \gset
SAVEPOINT s;
SELECT prometheus_span_start('gone') AS gone \gset
SAVEPOINT t;
RELEASE t;
ROLLBACK TO s;
SELECT is(prometheus_traceparent(), :'kept', 'but not one that was begun before');
SAVEPOINT s;
SELECT prometheus_span_start('released') AS released \gset
RELEASE s;
SELECT is(prometheus_traceparent(), :'released', 'nor one whose subtransaction has ended well');
SELECT prometheus_span_end(:'released'), prometheus_span_end(:'kept');

-- What cannot be.

SELECT throws_ok(sql, code, NULL, 'error: ' || sql) FROM (VALUES
    ('SELECT prometheus_span_start(NULL)', '22004'), ('SELECT prometheus_span_start('''')', '22023'),
    ('SELECT prometheus_span_start(repeat(''x'', 201))', '22023'), ('SELECT prometheus_span_start(''x'', ''[]'')', '22023'),
    ('SELECT prometheus_span_start(''x'', ''1'')', '22023'),
    ('SELECT prometheus_span_start(''x'', jsonb_build_object(''a'', repeat(''x'', 2000)))', '54000'),
    ('SELECT prometheus_span_start(''x'', ''{"a": 1e9000}'')', '54000'),
    ('SELECT prometheus_span_start(''x'', traceparent => ''x'')', '22023'), ('SELECT prometheus_span_start(''x'', traceparent => '''')', '22023'),
    ('SELECT prometheus_span_end(NULL)', '22004'), ('SELECT prometheus_span_end(''x'')', '22023'),
    ('SELECT prometheus_span_end(prometheus_span_start(''x''), ''good'')', '22023')) AS v(sql, code);
SELECT is(prometheus_traceparent(), NULL, 'none of these is open');
SELECT lives_ok('SELECT prometheus_span_end(prometheus_span_start(repeat(''x'', 200), NULL))', 'the longest name, no attributes');
SELECT lives_ok('SELECT prometheus_span_end(prometheus_span_start(''x'', jsonb_build_object(''a'', repeat(''x'', 1900))))', 'long attributes');
SELECT throws_ok('SELECT prometheus_span_start(''x'') FROM generate_series(1, 65)', '54000', NULL, 'there is a limit to open ones');
SELECT is(prometheus_traceparent(), NULL, 'and the error has ended them');

-- How they are shown.

SELECT columns_are('prometheus', '_span', ARRAY['span_id', 'parent_span_id', 'xid', 'started_at', 'ended_at', 'task_id', 'owner_oid', 'trace_id', 'owner', 'name',
    'status', 'error_type', 'traceparent', 'attributes']);
CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b;
INSERT INTO prometheus._span (span_id, parent_span_id, xid, started_at, ended_at, owner_oid, trace_id, owner, name, status, error_type, attributes)
SELECT (-id)::bigint, parent, prometheus._xid(), '2026-01-01 00:00+00', '2026-01-01 00:01+00', owner::regrole, 'cccc651916cd43dd8448eb211c80319c', owner, name, status, type, attributes::jsonb
  FROM (VALUES (1, NULL::bigint, 'prom_test_a', 'order', 'ok', NULL, '{"shop.id": 7}'),
               (2, -1, 'prom_test_a', 'pay', 'error', 'rollback', '{}'),
               (3, 255, 'prom_test_a', 'tell', 'error', NULL, '{"error.type": "NoPhone"}'),
               (4, 255, 'prom_test_b', 'secret', 'unset', NULL, '{}')) AS v(id, parent, owner, name, status, type, attributes);
SET LOCAL ROLE prom_test_a;
SELECT results_eq($$SELECT span_id, parent_span_id, name, kind, status, attributes FROM prometheus.span
                     WHERE trace_id = 'cccc651916cd43dd8448eb211c80319c' ORDER BY span_id DESC$$,
    $$VALUES ('ffffffffffffffff', NULL, 'order', 'internal', 'ok', '{"shop.id": 7, "prometheus.owner": "prom_test_a"}'::jsonb),
             ('fffffffffffffffe', 'ffffffffffffffff', 'pay', 'internal', 'error', '{"error.type": "rollback", "prometheus.owner": "prom_test_a"}'),
             ('fffffffffffffffd', '00000000000000ff', 'tell', 'internal', 'error', '{"error.type": "NoPhone", "prometheus.owner": "prom_test_a"}')$$,
    'one''s own, with their errors');
SELECT throws_ok('SELECT * FROM prometheus._span', '42501', NULL, 'by the view only');
SELECT throws_ok('DELETE FROM prometheus._span', '42501', NULL, 'and they are nobody''s to change');
SELECT lives_ok('SELECT prometheus_span_end(prometheus_span_start(''x''))', 'every user has some');
SET LOCAL ROLE prom_test_b;
SELECT is((SELECT array_agg(name) FROM prometheus.span WHERE trace_id = 'cccc651916cd43dd8448eb211c80319c'), '{secret}', 'none of another''s');
RESET ROLE;
CREATE ROLE prom_test_c;
SET LOCAL ROLE prom_test_c;
SELECT throws_ok('SELECT prometheus_span_start(''x'')', '42501', NULL, 'nobody else has any');
SELECT throws_ok('SELECT prometheus_span_end(''x'')', '42501', NULL, 'nor ends any');
SELECT throws_ok('SELECT prometheus_traceparent()', '42501', NULL, 'nor asks');
RESET ROLE;
SET LOCAL prometheus.as_of = '2020-01-01';
SELECT throws_ok('SELECT count(*) FROM prometheus.span', '55000', NULL, 'AS OF holds for them');

SELECT * FROM finish();
ROLLBACK;
