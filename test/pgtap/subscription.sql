-- Subscriptions: who may make which, what cannot be one, and what is shown.  No
-- worker is here; t/502 and 503 have those.
BEGIN;
SELECT plan(79);
SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b;
GRANT prometheus_agent_admin TO prom_test_admin;

SELECT columns_are('prometheus', 'subscription', ARRAY['name', 'state', 'owner', 'handler', 'url', 'types', 'filter', 'ordered',
    'timeout', 'max_attempts', 'breaker_failures', 'waiting', 'dead', 'subscribed_at', 'disabled_at', 'disabled_reason']);
SELECT columns_are('prometheus', 'delivery', ARRAY['delivery_id', 'subscription', 'event_id', 'task_id', 'status', 'attempts',
    'started_at', 'ended_at', 'duration', 'next_at', 'http_status', 'run_as', 'error', 'result', 'created_at']);
SELECT columns_are('prometheus', 'dead_letter', ARRAY['subscription', 'fingerprint', 'deliveries', 'first_at', 'last_at',
    'first_event_id', 'last_event_id', 'error']);
SELECT function_returns(f, 'void') FROM unnest(ARRAY['prometheus_subscribe', 'prometheus_unsubscribe', 'prometheus_redrive', 'prometheus_discard']) AS f;

CREATE FUNCTION handler(e prometheus.event) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION secret_handler(e prometheus.event) RETURNS void LANGUAGE sql AS 'SELECT';
REVOKE EXECUTE ON FUNCTION secret_handler(prometheus.event) FROM PUBLIC;
CREATE FUNCTION no_handler(e jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION rows_handler(e prometheus.event) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two_handler(e prometheus.event, n int) RETURNS int LANGUAGE sql AS 'SELECT 1';

-- What one is.

SET LOCAL ROLE prom_test_a;
SELECT is(prometheus_subscribe('a', 'handler(prometheus.event)')::text, '', 'one to a function');
SELECT row_eq($$SELECT name, state, owner, handler, url, types, filter, ordered, timeout, max_attempts, breaker_failures, waiting, dead, disabled_reason
                  FROM prometheus.subscription$$,
    ROW('a'::text, 'active'::text, 'prom_test_a'::text, 'public.handler(prometheus.event)'::text, NULL::text, NULL::text[], NULL::text, false,
        interval '10 s', 8, 5, 0::bigint, 0::bigint, NULL::text), 'with what is usual');
SELECT lives_ok($$SELECT prometheus_subscribe('a', 'handler(prometheus.event)', types => '{task.*,x}', filter => '$.n > 1', ordered => true,
    timeout => '1 ms', max_attempts => 1, breaker_failures => 1)$$, 'again: it is changed');
SELECT row_eq($$SELECT types, filter, ordered, timeout, max_attempts, breaker_failures FROM prometheus.subscription$$,
    ROW('{task.*,x}'::text[], '($."n" > 1)'::text, true, interval '1 ms', 1, 1), 'to this');
SELECT is(count(*)::int, 1, 'it is a consumer, too') FROM prometheus.consumer WHERE name = 'a';
SELECT lives_ok($$SELECT prometheus_replay('a', '-infinity')$$, 'which can begin again');
SELECT throws_ok(s, '42809', NULL, 'but not be used as one: ' || s)
  FROM unnest(ARRAY[$$SELECT prometheus_poll('a')$$, $$SELECT prometheus_ack('a')$$, $$SELECT prometheus_drop_consumer('a')$$]) AS s;
SELECT prometheus_create_consumer('c');
SELECT throws_ok($$SELECT prometheus_subscribe('c', 'handler(prometheus.event)')$$, '42710', NULL, 'a consumer has the name');

-- No role has more than it may.

RESET ROLE;
SET LOCAL prometheus.max_subscriptions = 2;
SET LOCAL ROLE prom_test_b;
SELECT lives_ok(format('SELECT prometheus_subscribe(%L, %L)', n, 'handler(prometheus.event)'), 'b has ' || n) FROM unnest('{b1,b2}'::text[]) n;
SELECT throws_ok($$SELECT prometheus_subscribe('b3', 'handler(prometheus.event)')$$, '54000', 'role "prom_test_b" cannot have more subscriptions');
SELECT lives_ok($$SELECT prometheus_subscribe('b2', 'handler(prometheus.event)', types => '{x}')$$, 'one that it has can be changed');
SELECT throws_ok($$SET prometheus.max_subscriptions = 3$$, '42501', NULL, 'and it cannot allow itself more');
RESET ROLE;
SET LOCAL prometheus.max_subscriptions = 1;
SET LOCAL ROLE prom_test_b;
SELECT lives_ok($$SELECT prometheus_subscribe('b1', 'handler(prometheus.event)')$$, 'also when it has more than it may');
SET LOCAL ROLE prom_test_a;
SELECT throws_ok($$SELECT prometheus_subscribe('a2', 'handler(prometheus.event)')$$, '54000', NULL, 'another role has its own limit');
RESET ROLE;
GRANT prom_test_b TO prom_test_a;
SET LOCAL ROLE prom_test_a;
SELECT throws_ok($$SELECT prometheus_subscribe('b1', 'handler(prometheus.event)')$$, '54000', NULL, 'which counts what it takes over');
RESET ROLE;
REVOKE prom_test_b FROM prom_test_a;
SELECT prometheus_unsubscribe(n) FROM unnest('{b1,b2}'::text[]) n;
SET LOCAL prometheus.max_subscriptions = 64;
SET LOCAL ROLE prom_test_a;

-- What cannot be.

SELECT throws_ok(format('SELECT prometheus_subscribe(%s)', a), state, NULL, a)
  FROM (VALUES ($$NULL, 'handler(prometheus.event)'$$, '22004'), ($$'', 'handler(prometheus.event)'$$, '22023'),
               ($$repeat('n', 201), 'handler(prometheus.event)'$$, '22023'), ($$'x'$$, '22023'),
               ($$'x', 'handler(prometheus.event)', 'https://example.com/'$$, '22023'),
               ($$'x', 'handler(prometheus.event)', secret => 's'$$, '22023'),
               ($$'x', 'no_handler(jsonb)'$$, '22023'), ($$'x', 'rows_handler(prometheus.event)'$$, '22023'),
               ($$'x', 'two_handler(prometheus.event, int)'$$, '22023'), ($$'x', 'secret_handler(prometheus.event)'$$, '42501'),
               ($$'x', 'handler(prometheus.event)', types => '{}'$$, '22023'), ($$'x', 'handler(prometheus.event)', types => '{a b}'$$, '22023'),
               ($$'x', 'handler(prometheus.event)', types => '{NULL}'$$, '22004'),
               ($$'x', 'handler(prometheus.event)', timeout => '0'$$, '22023'), ($$'x', 'handler(prometheus.event)', timeout => '61 min'$$, '22023'),
               ($$'x', 'handler(prometheus.event)', timeout => NULL$$, '22004'),
               ($$'x', 'handler(prometheus.event)', max_attempts => 0$$, '22023'), ($$'x', 'handler(prometheus.event)', max_attempts => 101$$, '22023'),
               ($$'x', 'handler(prometheus.event)', breaker_failures => 0$$, '22023'),
               ($$'x', url => 'https://example.com/'$$, '42501')) AS v (a, state);
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok(format('SELECT prometheus_subscribe(%s)', a), '22023', NULL, a)
  FROM unnest(ARRAY[$$'x', url => 'example.com'$$, $$'x', url => 'https://a:b@example.com/'$$, $$'x', url => 'https://example.com/{x}'$$,
                    $$'x', url => 'https://example.com/' || repeat('x', 2000)$$,
                    $$'x', url => 'https://example.com/', secret => 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'$$]) AS a;
SELECT lives_ok($$SELECT prometheus_subscribe('hook', url => 'https://example.com/', secret => 'hook_key')$$, 'an administrator makes one to a url');
SET LOCAL prometheus.as_of = '2020-01-01';
SELECT throws_ok($$SELECT prometheus_subscribe('x', 'handler(prometheus.event)')$$, '25006', NULL, 'not under AS OF');
SET LOCAL prometheus.as_of = '';

-- Dead letters.

RESET ROLE;
INSERT INTO prometheus._delivery (delivery_id, event_id, created_at, next_at, ended_at, attempts, strikes, mark_id, status, subscription, fingerprint, error)
SELECT n, n, now(), now(), '2026-01-01'::timestamptz + n * interval '1 day', 8, 0, 0, 'dead', 'a', chr(96 + n % 2), 'error ' || n FROM generate_series(1, 3) n;
SET LOCAL ROLE prom_test_a;
SELECT results_eq($$SELECT fingerprint, deliveries, extract(day FROM first_at)::int, extract(day FROM last_at)::int, first_event_id, last_event_id, error
                      FROM prometheus.dead_letter ORDER BY fingerprint$$,
    $$VALUES ('`', 1::bigint, 3, 3, 2::bigint, 2::bigint, 'error 2'), ('a', 2, 2, 4, 1, 3, 'error 3')$$, 'dead letters by their error');
SELECT is(dead, 3::bigint, 'so says the subscription') FROM prometheus.subscription WHERE name = 'a';
SELECT is(prometheus_redrive('a', '`')::text, '', 'those of one error are redriven');
SELECT row_eq($$SELECT status, attempts, ended_at FROM prometheus.delivery WHERE delivery_id = 2$$, ROW('waiting'::text, 0, NULL::timestamptz), 'they wait again');
SELECT is(prometheus_discard('a')::text, '', 'the others are discarded');
SELECT is(string_agg(status, ' ' ORDER BY delivery_id), 'discarded waiting discarded', 'and shown') FROM prometheus.delivery;
SELECT throws_ok($$SELECT prometheus_redrive('none')$$, '42704', NULL, 'of one that is not there');

-- Whose it is.

SET LOCAL ROLE prom_test_b;
SELECT is_empty('SELECT FROM prometheus.' || v, 'another role sees nothing in ' || v) FROM unnest(ARRAY['subscription', 'delivery', 'dead_letter']) AS v;
SELECT throws_ok(s, '42501', NULL, 'and may not ' || s)
  FROM unnest(ARRAY[$$SELECT prometheus_subscribe('a', 'handler(prometheus.event)')$$, $$SELECT prometheus_unsubscribe('a')$$,
                    $$SELECT prometheus_redrive('a')$$, $$SELECT prometheus_discard('a')$$]) AS s;
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT prometheus_subscribe('n', 'handler(prometheus.event)')$$, '42501', NULL, 'nobody makes one');
SET LOCAL ROLE prom_test_admin;
SELECT lives_ok($$SELECT prometheus_pause('subscription:a'), prometheus_resume('subscription:a'), prometheus_pause('subscription:a')$$, 'an administrator pauses it');
SELECT throws_ok($$SELECT prometheus_pause('subscription:none')$$, '42704', NULL, 'but not one that is not there');
SELECT lives_ok($$SELECT prometheus_unsubscribe('a')$$, 'and removes it');
RESET ROLE;
SELECT is((SELECT count(*) FROM prometheus._subscription WHERE name = 'a') + (SELECT count(*) FROM prometheus._delivery WHERE subscription = 'a')
          + (SELECT count(*) FROM prometheus._consumer WHERE name = 'a') + (SELECT count(*) FROM prometheus._gate), 0::bigint, 'with all of it');

-- What a filter lets pass.

SELECT is(prometheus._passes(d::jsonb, f::jsonpath), passes, concat_ws(' ', f, passes))
  FROM (VALUES ('{"n": 2}', NULL, true), ('{"n": 2}', '$.n', true), ('{"n": 2}', '$.x', false), ('{"n": 2}', '$.n > 1', true), ('{"n": 2}', '$.n > 2', false),
               ('{"n": 2}', '$ ? (@.n == 2)', true), ('{"n": null}', '$.n', false), ('7', 'strict $.n', false)) AS v (d, f, passes);

SELECT * FROM finish();
ROLLBACK;
