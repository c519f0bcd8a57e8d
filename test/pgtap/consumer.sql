-- Consumers: their functions, what they are given, and who may use them.  In one
-- transaction nothing of its own is given, so transactions are made up: the
-- events get xids of before it.
BEGIN;
SELECT plan(87);
SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_lead;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b, prom_test_lead;
GRANT prom_test_a TO prom_test_lead;
GRANT prometheus_agent_admin TO prom_test_admin;

-- An event as it would be if transaction n of this database had written it.
CREATE FUNCTION pg_temp.emitted(n int, type text, at interval DEFAULT '0', emitter text DEFAULT 'prom_test_a') RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE id bigint := prometheus_emit(type);
BEGIN
    UPDATE prometheus._event SET xid = ((1::bigint << 48) + n)::text::xid8, emitted_at = '2026-01-01 00:00+00'::timestamptz + at,
           emitter = $4, emitter_oid = $4::regrole WHERE event_id = id;
    RETURN id;
END $$;
-- A position that has seen the transactions before n, but not those.
CREATE FUNCTION pg_temp.position_is(consumer text, n int, VARIADIC running int[] DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
UPDATE prometheus._consumer SET base = format('%s:%s:%s', (1::bigint << 48) + coalesce((SELECT min(x) FROM unnest(running) x), n),
       (1::bigint << 48) + n, (SELECT string_agg(((1::bigint << 48) + x)::text, ',' ORDER BY x) FROM unnest(running) x))::pg_snapshot,
       bound = NULL, given = 0, done_at = NULL, done_id = NULL WHERE name = consumer $$;
CREATE FUNCTION pg_temp.types(consumer text, most int DEFAULT 100) RETURNS text[] LANGUAGE sql AS $$
SELECT coalesce(array_agg(type ORDER BY n), '{}') FROM prometheus_poll(consumer, most) WITH ORDINALITY
       AS e (event_id, type, task_id, agent, subject, created_at, data, caused_by, n) $$;

-- Names, types, starts.

SET LOCAL ROLE prom_test_a;
SELECT is(prometheus_create_consumer('all')::text, '', 'one for all');
SELECT throws_ok($$SELECT prometheus_create_consumer('all')$$, '42710', NULL, 'there is one of that name');
SELECT throws_ok($$SELECT prometheus_create_consumer(NULL)$$, '22004', NULL, 'no name');
SELECT throws_ok($$SELECT prometheus_create_consumer('')$$, '22023', NULL, 'an empty name');
SELECT throws_ok($$SELECT prometheus_create_consumer(repeat('x', 201))$$, '22023', NULL, 'a long name');
SELECT throws_ok($$SELECT prometheus_create_consumer('x', '{}')$$, '22023', NULL, 'no types');
SELECT throws_ok($$SELECT prometheus_create_consumer('x', '{a,NULL}')$$, '22004', NULL, 'a null among them');
SELECT throws_ok($$SELECT prometheus_create_consumer('x', array_fill('a'::text, '{101}'))$$, '22023', NULL, 'more than a hundred');
SELECT throws_ok(format('SELECT prometheus_create_consumer(''x'', ARRAY[%L])', t), '22023', NULL, 'no type: ' || t)
  FROM unnest(ARRAY['', '*.a', 'a*', 'a.*.b', '**', 'a b', '%']) AS t;
SELECT throws_ok($$SELECT prometheus_create_consumer('x', start => now() + interval '1 hour')$$, '22023', NULL, 'the future');
SELECT lives_ok(format('SELECT prometheus_create_consumer(%L, ARRAY[%L])', t, t), 'a type: ' || t)
  FROM unnest(ARRAY['*', 'shop.*', 'shop.order.*', 'task.*', 'task.completed', 'a_b']) AS t;
SELECT lives_ok($$SELECT prometheus_create_consumer('old', start => '-infinity')$$, 'from the beginning');

-- What is of which types.

RESET ROLE;
SELECT pg_temp.emitted(n::int, t) FROM unnest(ARRAY['shop', 'shop.order', 'shop.order.paid', 'shopping.order', 'a_b', 'axb'])
  WITH ORDINALITY AS x (t, n);
SELECT prometheus_replay(name, '-infinity') FROM prometheus._consumer;
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.types('all'), ARRAY['shop', 'shop.order', 'shop.order.paid', 'shopping.order', 'a_b', 'axb'], 'without types: all');
SELECT is(pg_temp.types('*'), pg_temp.types('all'), '*');
SELECT is(pg_temp.types('shop.*'), ARRAY['shop.order', 'shop.order.paid'], 'shop.*');
SELECT is(pg_temp.types('shop.order.*'), ARRAY['shop.order.paid'], 'shop.order.*');
SELECT is(pg_temp.types('a_b'), ARRAY['a_b'], 'a_b is not a pattern');
SELECT is(pg_temp.types('task.*'), '{}', 'task.*');
SELECT is(pg_temp.types('old'), pg_temp.types('all'), 'the one from the beginning');

-- Polls and acknowledgements.

SELECT is(pg_temp.types('all', 2), ARRAY['shop', 'shop.order'], 'two of them');
SELECT is(pg_temp.types('all', 3), ARRAY['shop', 'shop.order', 'shop.order.paid'], 'not acknowledged: they come again');
SELECT is(prometheus_ack('all'), 3::bigint, 'all of the last poll');
SELECT is(prometheus_ack('all'), 0::bigint, 'and once only');
SELECT is(pg_temp.types('all'), ARRAY['shopping.order', 'a_b', 'axb'], 'the rest');
SELECT event_id AS second FROM prometheus.event WHERE type = 'a_b' \gset
SELECT event_id AS first FROM prometheus.event WHERE type = 'shopping.order' \gset
SELECT event_id AS gone FROM prometheus.event WHERE type = 'shop' \gset
SELECT is(prometheus_ack('all', :second), 2::bigint, 'up to one of them, and with it');
SELECT throws_ok(format('SELECT prometheus_ack(''all'', %s)', :first), '22023', NULL, 'not one that was acknowledged');
SELECT throws_ok(format('SELECT prometheus_ack(''all'', %s)', :gone), '22023', NULL, 'nor one of a poll before');
SELECT throws_ok('SELECT prometheus_ack(''all'', 0)', '22023', NULL, 'nor what is none');
SELECT is(pg_temp.types('all'), ARRAY['axb'], 'what is left');
SELECT is(prometheus_ack('all'), 1::bigint, 'the last');
SELECT is(pg_temp.types('all'), '{}', 'nothing is left');
SELECT is(prometheus_ack('all'), 0::bigint, 'and nothing to acknowledge');
SELECT throws_ok('SELECT prometheus_poll(''all'', ' || n || ')', '22023', NULL, 'max_events ' || n) FROM unnest('{0,-1,100001}'::int[]) AS n;
SELECT is((SELECT count(*) FROM prometheus_poll('old', NULL)), 6::bigint, 'max_events null');

-- The order is that of time, and then of ids; what was running comes when it
-- has ended, though others that began later were given.

RESET ROLE;
SELECT pg_temp.position_is('all', 100, 50, 60);
SELECT pg_temp.emitted(50, 'ran.early', '3 s'), pg_temp.emitted(55, 'seen', '4 s'), pg_temp.emitted(101, 'new.late', '9 s'),
       pg_temp.emitted(102, 'new.soon', '1 s'), pg_temp.emitted(103, 'new.same', '1 s') \gset
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.types('all'), ARRAY['new.soon', 'new.same', 'ran.early', 'new.late'], 'what the position has not seen');
SELECT is(prometheus_ack('all'), 4::bigint, 'acknowledged');
SELECT is(pg_temp.types('all'), '{}', 'and gone');
RESET ROLE;
SELECT is((SELECT count(*) FROM prometheus._consumer WHERE pg_visible_in_snapshot(prometheus._xid(), base)), 0::bigint,
          'no position has seen this transaction');

-- Whose they are.

SELECT pg_temp.emitted(7, 'of.b', '1 s', 'prom_test_b') \gset
SELECT prometheus_replay('all', '-infinity');
SET LOCAL ROLE prom_test_a;
SELECT is('of.b' = ANY (pg_temp.types('all')), false, 'the owner does not see what another emitted');
SET LOCAL ROLE prom_test_admin;
SELECT is('of.b' = ANY (pg_temp.types('all')), false, 'nor does an administrator, with it');
SELECT prometheus_create_consumer('of the admin', start => '-infinity');
SELECT is('of.b' = ANY (pg_temp.types('of the admin')), true, 'but with one of his own');
SET LOCAL ROLE prom_test_lead;
SELECT is(cardinality(pg_temp.types('all')), 11, 'who has the role may use it');
SELECT is((SELECT count(*) FROM prometheus.consumer), 8::bigint, 'and sees it');
SET LOCAL ROLE prom_test_b;
SELECT throws_ok(s, '42501', NULL, 'another may not: ' || s)
  FROM unnest(ARRAY[$$SELECT prometheus_poll('all')$$, $$SELECT prometheus_ack('all')$$,
                    $$SELECT prometheus_replay('all', '-infinity')$$, $$SELECT prometheus_drop_consumer('all')$$]) AS s;
SELECT is((SELECT count(*) FROM prometheus.consumer), 0::bigint, 'nor see it');
SELECT throws_ok(s, '42704', NULL, 'there is none: ' || s)
  FROM unnest(ARRAY[$$SELECT prometheus_poll('none')$$, $$SELECT prometheus_ack('none')$$,
                    $$SELECT prometheus_replay('none', '-infinity')$$, $$SELECT prometheus_drop_consumer('none')$$]) AS s;

-- What a role could see when a window was opened, and cannot now.

RESET ROLE;
SELECT pg_temp.emitted(8, 'of.b.late', '20 s', 'prom_test_b'), pg_temp.emitted(9, 'of.lead', '30 s', 'prom_test_lead') \gset
SET LOCAL ROLE prom_test_lead;
SELECT prometheus_create_consumer('of the lead', '{of.*,new.*}', '-infinity');
SELECT is(pg_temp.types('of the lead', 1), '{new.soon}', 'the first that a role of its owner may see');
RESET ROLE;
REVOKE prom_test_a FROM prom_test_lead;
SET LOCAL ROLE prom_test_lead;
SELECT is(pg_temp.types('of the lead'), '{of.lead}', 'who has lost the role is not given its events any more');
RESET ROLE;
GRANT prom_test_a TO prom_test_lead;
SET LOCAL ROLE prom_test_lead;
SELECT is(pg_temp.types('of the lead', 3), '{new.soon,new.same,new.late}', 'who has it again is');
SELECT event_id AS late FROM prometheus.event WHERE type = 'new.late' \gset
SELECT event_id AS other FROM prometheus.event WHERE type = 'of.lead' \gset
RESET ROLE;
GRANT prom_test_b TO prom_test_lead;
SET LOCAL ROLE prom_test_lead;
SELECT throws_ok(format('SELECT prometheus_ack(''of the lead'', %s)', :other), '22023', NULL, 'what was not given cannot be acknowledged');
SELECT is(prometheus_ack('of the lead', :late), 3::bigint, 'though more is seen, what was given can be');
SELECT is(pg_temp.types('of the lead'), '{of.b.late,of.lead}', 'and the rest comes');
RESET ROLE;
REVOKE prom_test_b FROM prom_test_lead;
SET LOCAL ROLE prom_test_lead;
SELECT is(prometheus_ack('of the lead', :other), 1::bigint, 'the last one ends the window');
SELECT is(pg_temp.types('of the lead'), '{}', 'and nothing is left');
SELECT prometheus_drop_consumer('of the lead');
RESET ROLE;
DELETE FROM prometheus._event WHERE type IN ('of.b.late', 'of.lead');

-- The view, and health.

SET LOCAL ROLE prom_test_a;
SELECT results_eq($$SELECT owner, types, lag FROM prometheus.consumer WHERE name IN ('all', 'shop.*') ORDER BY name$$,
                  $$VALUES ('prom_test_a', NULL::text[], 11::bigint), ('prom_test_a', '{shop.*}', 2)$$, 'owner, types, lag');
SELECT throws_ok($$SELECT prometheus_replay('all', NULL)$$, '22004', NULL, 'replay from nowhere');
SET LOCAL prometheus.as_of = '2026-01-01';
SELECT throws_ok('SELECT * FROM prometheus.consumer', '55000', NULL, 'it is about now');
SELECT throws_ok($$SELECT prometheus_poll('all')$$, '25006', NULL, 'and a poll writes');
SET LOCAL prometheus.as_of = '';
SELECT is(status || ' ' || value, 'ok 9', 'health counts them') FROM prometheus_health() WHERE check_name = 'consumers';
RESET ROLE;
UPDATE prometheus._consumer SET base_at = now() - interval '2 hours' WHERE name = 'all';
INSERT INTO prometheus._mark (mark_id, xid, at, snapshot) VALUES (1, prometheus._xid(), now(), prometheus._snapshot());
SELECT is(status || ' ' || value, 'warning 9; more than an hour behind: all', 'and names those that are late')
  FROM prometheus_health() WHERE check_name = 'consumers';
SELECT cmp_ok(behind, '>=', interval '2 hours', 'and the view says how far') FROM prometheus.consumer WHERE name = 'all';

-- Of what is written behind its position a part is looked at, so that the view
-- is quick for who reads what is rare.

SELECT pg_temp.emitted(200, 'often') AS id \gset
INSERT INTO prometheus._event SELECT id + 1000000 + n, task_id, caused_by, xid, emitted_at, depth, emitter_oid, emitter, agent, type, subject, data
  FROM prometheus._event e, generate_series(1, 10000) AS n, LATERAL (SELECT e.event_id AS id) x WHERE e.type = 'often';
SELECT pg_temp.emitted(300, 'rare') AS id \gset
SELECT prometheus_create_consumer('rare', '{rare}', '-infinity'), prometheus_create_consumer('often', '{often}', '-infinity');
UPDATE prometheus._consumer SET base = (SELECT format('%s:%s:', x, x)::pg_snapshot FROM (SELECT (1::bigint << 48) + 200) AS s (x)) WHERE name IN ('rare', 'often');
SELECT results_eq($$SELECT name, lag FROM prometheus.consumer WHERE name IN ('often', 'rare') ORDER BY name$$,
                  $$VALUES ('often', 10000::bigint), ('rare', 0)$$, 'lag is counted among ten thousand');
SELECT prometheus_drop_consumer(name) FROM unnest('{often,rare}'::text[]) AS name;
DELETE FROM prometheus._event WHERE type IN ('often', 'rare');

-- A start is the last mark at or before it.

UPDATE prometheus._mark SET at = '2020-01-01', snapshot = format('%s:%s:', (1::bigint << 48) + 102, (1::bigint << 48) + 102)::pg_snapshot;
SELECT prometheus_replay('all', '2021-01-01');
SELECT is(pg_temp.types('all'), ARRAY['new.soon', 'new.same'], 'replay from a mark on');
SELECT prometheus_replay('all', '2019-01-01');
SELECT is(cardinality(pg_temp.types('all')), 11, 'before the first mark: from the beginning');

-- Another role of that name.

UPDATE prometheus._consumer SET owner_oid = 'prom_test_b'::regrole WHERE name = 'all';
SELECT throws_ok($$SELECT prometheus_poll('all')$$, '55000', NULL, 'the owner is not the role that it was');
SELECT is((SELECT lag FROM prometheus.consumer WHERE name = 'all'), NULL, 'nobody knows what it would be given');
SELECT lives_ok($$SELECT prometheus_drop_consumer('all')$$, 'but it can be dropped');
SELECT is((SELECT count(*) FROM prometheus._consumer WHERE name = 'all'), 0::bigint, 'and is gone');

SELECT * FROM finish();
ROLLBACK;
