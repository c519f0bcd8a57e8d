-- prometheus_emit(): what it takes, who sees it, what caused it.
BEGIN;
SELECT plan(69);
SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_lead;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b, prom_test_lead;
GRANT prom_test_a TO prom_test_lead;
GRANT prometheus_agent_admin TO prom_test_admin;

-- What is emitted is there, with all that it was given.

CREATE FUNCTION pg_temp.emitted(data jsonb) RETURNS prometheus.event LANGUAGE plpgsql AS $$
DECLARE id bigint := prometheus_emit('x', data); e prometheus.event;
BEGIN
    SELECT * INTO e FROM prometheus.event WHERE event_id = id;
    RETURN e;
END $$;

SET LOCAL ROLE prom_test_a;
SELECT prometheus_emit('shop.order.paid', '{"order": 7}', 'order/7') AS paid \gset
SELECT is(array[e.type, e.subject, e.data::text], ARRAY['shop.order.paid', 'order/7', '{"order": 7}'], 'type, subject and data')
  FROM prometheus.event e WHERE event_id = :paid;
SELECT is(num_nulls(task_id, agent, caused_by), 3, 'of no task, and nothing caused it') FROM prometheus.event WHERE event_id = :paid;
SELECT cmp_ok(created_at, '>=', now(), 'when it was emitted') FROM prometheus.event WHERE event_id = :paid;
SELECT prometheus_emit('x') AS x \gset
SELECT is(data, '{}', 'no data is an empty object') FROM prometheus.event WHERE event_id = :x;
SELECT is((pg_temp.emitted(NULL)).data, '{}', 'null too');
SELECT is((pg_temp.emitted(d)).data, d, 'any json: ' || d::text)
  FROM (VALUES ('[1, null]'::jsonb), ('"text"'), ('null'), ('1.50')) v (d);
SELECT lives_ok(format('SELECT prometheus_emit(%L)', t), 'a type: ' || left(t, 20))
  FROM unnest(ARRAY['a', 'A.b-c.d_9', 'tasks.done', 'my.task.done', 'my.reflection', repeat('x', 200)]) AS t;
SELECT lives_ok(format('SELECT prometheus_emit(''x'', subject => %L)', s), 'a subject')
  FROM unnest(ARRAY['a b', repeat('s', 1000), 'ä/*']) AS s;

-- What cannot be.

SELECT throws_ok(format('SELECT prometheus_emit(%L)', t), '22023', NULL, 'no type: ' || left(t, 20))
  FROM unnest(ARRAY['', '.', 'a.', '.a', 'a..b', 'a b', 'ä', 'a.*', '*', 'a/b', repeat('x', 201)]) AS t;
SELECT throws_ok(format('SELECT prometheus_emit(%L)', t), '42939', NULL, 'reserved: ' || t)
  FROM unnest(ARRAY['task.received', 'step.executed', 'task.completed', 'task.failed', 'task.cancelled', 'task.retried',
                    'task.quarantined', 'reflection', 'evolution', 'approval.requested', 'approval.decided', 'memory.evicted',
                    'state.failed', 'gate.closed', 'gate.opened', 'alert.raised', 'alert.cleared', 'tool.retired', 'prometheus.x']) AS t;
SELECT throws_ok('SELECT prometheus_emit(NULL)', '22004', NULL, 'no type at all');
SELECT throws_ok($$SELECT prometheus_emit('x', subject => '')$$, '22023', NULL, 'an empty subject');
SELECT throws_ok($$SELECT prometheus_emit('x', subject => repeat('s', 1001))$$, '22023', NULL, 'a long subject');
SELECT throws_ok($$SELECT prometheus_emit('x', to_jsonb(repeat('d', 1024 * 1024)))$$, '54000', NULL, 'long data');
SET LOCAL prometheus.as_of = '2020-01-01';
SELECT throws_ok($$SELECT prometheus_emit('x')$$, '25006', NULL, 'not under AS OF');
SET LOCAL prometheus.as_of = '';

-- Who sees it.

RESET ROLE;
CREATE FUNCTION pg_temp.sees(role text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    SELECT count(*) INTO n FROM prometheus.event WHERE type = 'shop.order.paid';
    RESET ROLE;
    RETURN n;
END $$;
SELECT is(pg_temp.sees(r), n::bigint, r || ' sees ' || n)
  FROM (VALUES ('prom_test_a', 1), ('prom_test_b', 0), ('prom_test_lead', 1), ('prom_test_admin', 1)) v (r, n);

-- Causes.

SET LOCAL ROLE prom_test_a;
SELECT throws_ok('SET prometheus.caused_by = ' || quote_literal(v), '22023', NULL, 'no id: ' || v)
  FROM unnest(ARRAY['x', '0', '-1', '1 ', '99999999999999999999']) AS v;
CREATE FUNCTION pg_temp.chain(length int) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE ids bigint[] := '{}';
BEGIN
    FOR n IN 0 .. length LOOP
        ids := ids || prometheus_emit('chain');
        PERFORM set_config('prometheus.caused_by', ids[n + 1]::text, true);
    END LOOP;
    PERFORM set_config('prometheus.caused_by', '', true);
    RETURN ids;
END $$;
SELECT pg_temp.chain(16) AS chain \gset
SELECT results_eq(format('SELECT caused_by FROM prometheus.event WHERE event_id = ANY (%L) ORDER BY created_at, event_id', :'chain'),
                  format('SELECT (%L::bigint[])[n] FROM generate_series(0, 16) AS n', :'chain'), 'each has the one before as its cause');
SELECT throws_ok('SELECT pg_temp.chain(17)', '54000', NULL, 'but no more than 16');
SET LOCAL prometheus.caused_by = '4611686018427387904';
SELECT is((pg_temp.emitted('{}')).caused_by, 4611686018427387904, 'of an event of which nothing is known');
SET LOCAL prometheus.caused_by = '';


-- Of tasks.

SELECT set_config('prometheus.caused_by', (:'chain'::bigint[])[16]::text, true);
SELECT prometheus_submit('the last') AS last \gset
SELECT is(caused_by, (:'chain'::bigint[])[16], 'a task has a cause, too') FROM prometheus.event WHERE task_id = :last;
SELECT set_config('prometheus.caused_by', (:'chain'::bigint[])[17]::text, true);
SELECT throws_ok('SELECT prometheus_submit(''too many'')', '54000', 'a task has too many causes, one behind the other', 'but no more than 16');
SELECT throws_ok('SELECT prometheus_submit_many(''{too,many}'')', '54000', NULL, 'nor have several');
SET LOCAL prometheus.caused_by = '';
SELECT prometheus_submit('none') AS none \gset
SELECT is(caused_by, NULL, 'none') FROM prometheus.event WHERE task_id = :none;
SELECT * FROM finish();
ROLLBACK;
