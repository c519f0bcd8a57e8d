-- What prometheus_save_state() and its like store, give back and refuse, and
-- who sees it.  Two sessions at once are in specs/, key frames, sizes and
-- moments in t/.
BEGIN;
SELECT plan(144);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_chief;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prometheus_agent_user TO prom_test_user, prom_test_other;
GRANT prom_test_user TO prom_test_chief;
GRANT prometheus_agent_user TO prom_test_chief;

SELECT columns_are('prometheus', 'state', ARRAY['owner', 'agent', 'key', 'version', 'value', 'saved_at', 'task_id']);
SELECT function_returns('prometheus_save_state', 'bigint');
SELECT function_returns('prometheus_state', 'jsonb');
SELECT function_returns('prometheus_state_history', 'setof record');
SELECT function_returns('prometheus_restore_state', 'bigint');
SELECT function_returns('prometheus_diff_state', 'jsonb');

-- Versions.

SET LOCAL ROLE prom_test_user;
SELECT is(prometheus_state('tidy'), NULL, 'there is none');
SELECT is_empty($$SELECT * FROM prometheus_state_history('tidy')$$, 'and it has no history');
SELECT is(prometheus_save_state('tidy', '{"n": 1}'), 1::bigint, 'the first version; its agent need not be set');
SELECT is(prometheus_save_state('tidy', '{"n": 2}'), 2::bigint, 'the second');
SELECT is(prometheus_state('tidy'), '{"n": 2}', 'the newest is what it is');
SELECT is(prometheus_state('tidy', version => 1), '{"n": 1}', 'the first one is still there');
SELECT is(prometheus_state('tidy', version => v), NULL, format('version %s is not', v))
  FROM unnest('{3,0,-1}'::bigint[]) AS v;
SELECT is(prometheus_save_state('tidy', '"other"', 'another key'), 1::bigint, 'each key has versions of its own');
SELECT is(prometheus_save_state('untidy', '"other"'), 1::bigint, 'and each agent');
SELECT is(prometheus_state('tidy'), '{"n": 2}', 'they have nothing to do with each other');
SELECT is(prometheus_state('tidy', NULL), '{"n": 2}', 'no key is the key "state"');
SELECT is(prometheus_state(NULL), NULL, 'no agent has no state');
SELECT results_eq(
    $$SELECT version, saved_at <= clock_timestamp(), bytes > 0, stored_bytes > 0, task_id, restored_from
        FROM prometheus_state_history('tidy')$$,
    $$VALUES (2::bigint, true, true, true, NULL::bigint, NULL::bigint), (1::bigint, true, true, true, NULL, NULL)$$,
    'a history, the newest first');
SELECT results_eq($$SELECT version FROM prometheus_state_history('tidy', max_rows => 1)$$, '{2}'::bigint[],
                  'of as many as are asked for');
SELECT is((SELECT count(*) FROM prometheus_state_history('tidy', NULL, NULL)), 2::bigint, 'null is the default');
SELECT is_empty($$SELECT * FROM prometheus_state_history(NULL)$$, 'of no agent');

-- Many in one statement, and in subtransactions.

SELECT is((SELECT array_agg(prometheus_save_state('many', to_jsonb(n)) ORDER BY n) FROM generate_series(1, 50) n),
          (SELECT array_agg(n::bigint ORDER BY n) FROM generate_series(1, 50) n), 'fifty in one statement');
SAVEPOINT lost;
SELECT is(prometheus_save_state('many', '51'), 51::bigint, 'one more');
ROLLBACK TO lost;
SELECT is(prometheus_save_state('many', '"again"'), 51::bigint, 'what was rolled back has left no gap');
SELECT is((SELECT count(prometheus_save_state('keys', '1', 'key ' || n)) FROM generate_series(1, 20000) n),
          20000::bigint, 'more keys in one transaction than there is room for locks');

-- expected_version.

SELECT is(prometheus_save_state('tidy', '{"n": 3}', expected_version => 2), 3::bigint, 'what is expected');
SELECT throws_ok($$SELECT prometheus_save_state('tidy', '4', expected_version => 2)$$, 'PM008', NULL, 'an old one');
SELECT throws_ok($$SELECT prometheus_save_state('tidy', '4', expected_version => 4)$$, 'PM008', NULL, 'one to come');
SELECT throws_ok($$SELECT prometheus_save_state('tidy', '4', expected_version => 0)$$, 'PM008', NULL,
                 '0 is for what is not there');
SELECT is(prometheus_save_state('tidy', '4', 'new', expected_version => 0), 1::bigint, 'which is then there');
SELECT throws_ok($$SELECT prometheus_save_state('tidy', '4', 'newer', expected_version => 1)$$, 'PM008', NULL,
                 'and has no version 1 before');
SELECT is(prometheus_state('tidy'), '{"n": 3}', 'what failed has changed nothing');

-- Values come back as they are: small ones, and so long that they are compressed.

RESET ROLE;
CREATE TEMP TABLE value (n int GENERATED ALWAYS AS IDENTITY, value jsonb);
GRANT SELECT ON value TO prom_test_user;
INSERT INTO value (value) SELECT v::jsonb FROM unnest(ARRAY[
    'null', 'true', '0', '-0.10', '1e-300', '12345678901234567890123456789.0000', '""', '"\u00e9\ud83d\ude00"', '[]',
    '{}', '[[]]', '{"": {"": ""}}', '{"b": 1, "a": 2, "aa": 3, "b": 4}', '[null, {"a": [false, 1.50]}]',
    '"quotes \" and \\ and \t"', '{"a/b~c": 1}']) AS v;
INSERT INTO value (value) VALUES
    (to_jsonb(repeat('x', 100000))), (to_jsonb(repeat('é€😀', 10000))), ((repeat('[', 2000) || repeat(']', 2000))::jsonb),
    ((repeat('{"a": ', 2000) || '1' || repeat('}', 2000))::jsonb);
INSERT INTO value (value) SELECT jsonb_object_agg('key ' || n, md5(n::text)) FROM generate_series(1, 3000) n;
INSERT INTO value (value) SELECT jsonb_agg(n * 1.10) FROM generate_series(1, 5000) n;
SET LOCAL ROLE prom_test_user;
SELECT is(prometheus_save_state('values', value, 'k'), n::bigint, 'saved: ' || left(value::text, 40))
  FROM (SELECT * FROM value ORDER BY n) AS v;
SELECT ok(prometheus_state('values', 'k', version => n)::text = value::text, 'to the last zero: ' || left(value::text, 40))
  FROM value ORDER BY n;
SELECT is(prometheus_state('values', 'k', version => 1), 'null'::jsonb, 'the null of json is a value');

-- What is refused.

SELECT throws_ok(statement, state, NULL, what)
  FROM (VALUES
    ($$SELECT prometheus_save_state('a', NULL)$$, '22023', 'no value'),
    ($$SELECT prometheus_save_state(NULL, '1')$$, '22023', 'no agent'),
    ($$SELECT prometheus_save_state('', '1')$$, '22023', 'an agent without a name'),
    ($$SELECT prometheus_save_state(repeat('n', 201), '1')$$, '22023', 'an agent with too long a name'),
    ($$SELECT prometheus_save_state('a', '1', '')$$, '22023', 'a key without a name'),
    ($$SELECT prometheus_save_state('a', '1', repeat('n', 201))$$, '22023', 'one with too long a name'),
    ($$SELECT prometheus_save_state('a', '1', expected_version => -1)$$, '22023', 'a version below 0'),
    ($$SELECT * FROM prometheus_state_history('a', max_rows => 0)$$, '22023', 'a history of nothing'),
    ($$SELECT * FROM prometheus_state_history('a', max_rows => -1)$$, '22023', 'or less'),
    ($$SELECT prometheus_restore_state('tidy')$$, '22023', 'to restore nothing'),
    ($$SELECT prometheus_restore_state('tidy', to_version => 1, to_time => now())$$, '22023', 'to restore two things'),
    ($$SELECT prometheus_state('tidy', as_of => now(), version => 1)$$, '22023', 'two moments'),
    ($$SELECT prometheus_restore_state(NULL, to_version => 1)$$, '22023', 'to restore it of no agent'),
    ($$SELECT prometheus_restore_state('tidy', to_version => 9)$$, '42704', 'to restore a version that is not there'),
    ($$SELECT prometheus_restore_state('nothing', to_version => 1)$$, '42704', 'or a state'),
    ($$SELECT prometheus_diff_state('tidy', 1, 9)$$, '42704', 'the difference from what is not there'),
    ($$SELECT prometheus_diff_state('tidy', 0, 1)$$, '42704', 'nor could be'),
    ($$SELECT * FROM prometheus._state$$, '42501', 'the table is nobody''s')) AS refused (statement, state, what);
RESET ROLE;
SET LOCAL prometheus.max_state = '1kB';
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_save_state('a', to_jsonb(repeat('x', 1024)))$$, '54000', NULL,
                 'more than prometheus.max_state');
SELECT throws_ok($$SET prometheus.max_state = '2kB'$$, '42501', NULL, 'which is not for everybody');
RESET ROLE;
RESET prometheus.max_state;
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok(statement, '42501', NULL, 'who is no user: ' || statement)
  FROM unnest(ARRAY[$$SELECT public.prometheus_save_state('a', '1')$$, $$SELECT public.prometheus_state('a')$$,
                    $$SELECT * FROM public.prometheus_state_history('a')$$,
                    $$SELECT public.prometheus_restore_state('a', to_version => 1)$$,
                    $$SELECT public.prometheus_diff_state('a', 1, 1)$$, $$SELECT * FROM prometheus.state$$]) AS statement;
RESET ROLE;

-- Going back is going on.

SET LOCAL ROLE prom_test_user;
SELECT is(prometheus_restore_state('tidy', to_version => 1), 4::bigint, 'to the first version, as the fourth');
SELECT is(prometheus_state('tidy'), '{"n": 1}', 'it has its value');
SELECT results_eq($$SELECT version, restored_from FROM prometheus_state_history('tidy', max_rows => 2)$$,
                  $$VALUES (4::bigint, 1::bigint), (3::bigint, NULL::bigint)$$, 'and says where it is from');
SELECT is(prometheus_state('tidy', version => 3), '{"n": 3}', 'nothing is lost');

-- Differences.

SELECT prometheus_save_state('diff', v.value, v.key)
  FROM (VALUES ('{"same": [1, {"x": null}], "gone": {"y": 2}, "list": [1, 2, 3], "kind": {"a": 1}, "a/b~c": 1, "n": 1.0}'::jsonb, 'state'),
               ('{"same": [1, {"x": null}], "new": [4], "list": [1, 5], "kind": [1], "a/b~c": 2, "n": 1.00}', 'state'),
               ('1', 'scalar'), ('"1"', 'scalar'), ('[1]', 'scalar'), ('[1, [2, {"z": false}]]', 'array'),
               ('[1, [3, {"z": true}], "more"]', 'array')) AS v (value, key);
SELECT is(prometheus_diff_state('diff', 1, 2),
    '{"added": {"/new": [4]},
      "changed": {"/list/1": {"from": 2, "to": 5}, "/kind": {"from": {"a": 1}, "to": [1]}, "/a~1b~0c": {"from": 1, "to": 2}},
      "removed": {"/gone": {"y": 2}, "/list/2": 3}}', 'of objects');
SELECT is(prometheus_diff_state('diff', 2, 1),
    '{"added": {"/gone": {"y": 2}, "/list/2": 3},
      "changed": {"/list/1": {"from": 5, "to": 2}, "/kind": {"from": [1], "to": {"a": 1}}, "/a~1b~0c": {"from": 2, "to": 1}},
      "removed": {"/new": [4]}}', 'and the other way round');
SELECT is(prometheus_diff_state('diff', 1, 1), '{"added": {}, "changed": {}, "removed": {}}', 'of a version and itself');
SELECT is(prometheus_diff_state('diff', 1, 2, 'scalar'),
          '{"added": {}, "changed": {"": {"from": 1, "to": "1"}}, "removed": {}}', 'of scalars: the whole has changed');
SELECT is(prometheus_diff_state('diff', 1, 3, 'scalar'),
          '{"added": {}, "changed": {"": {"from": 1, "to": [1]}}, "removed": {}}', 'of a scalar and an array of it');
SELECT is(prometheus_diff_state('diff', 1, 2, 'array'),
          '{"added": {"/2": "more"}, "changed": {"/1/0": {"from": 2, "to": 3}, "/1/1/z": {"from": false, "to": true}}, "removed": {}}',
          'of arrays, by place');
SELECT is((prometheus_diff_state('values', 19, 20, 'k') -> 'changed') ? '', true, 'of deep ones');
SELECT is(prometheus_diff_state('diff', NULL, 1), NULL, 'of nothing');

-- Others.

SET LOCAL ROLE prom_test_other;
SELECT is(prometheus_state('tidy'), NULL, 'nobody reads what is another''s');
SELECT is_empty('SELECT * FROM prometheus.state', 'nor sees it');
SELECT is_empty($$SELECT * FROM prometheus_state_history('tidy')$$, 'nor how it came to be');
SELECT is(prometheus._state_value('prom_test_user', 'prom_test_user'::regrole, 'tidy', 'state', 1), NULL,
          'nor by the function of the view');
SELECT throws_ok($$SELECT prometheus_restore_state('tidy', to_version => 1)$$, '42704', NULL, 'nor restores it');
SELECT is(prometheus_save_state('tidy', '"mine"'), 1::bigint, 'but has his own of the same name');
SET LOCAL ROLE prom_test_user;
SELECT is(prometheus_state('tidy'), '{"n": 1}', 'which is another one');
SELECT results_eq(
    $$SELECT owner, agent, key, version, value, saved_at <= clock_timestamp(), task_id FROM prometheus.state
       WHERE agent IN ('tidy', 'untidy') ORDER BY agent, key$$,
    $$VALUES ('prom_test_user', 'tidy', 'another key', 1::bigint, '"other"'::jsonb, true, NULL::bigint),
             ('prom_test_user', 'tidy', 'new', 1, '4', true, NULL), ('prom_test_user', 'tidy', 'state', 4, '{"n": 1}', true, NULL),
             ('prom_test_user', 'untidy', 'state', 1, '"other"', true, NULL)$$,
    'the view has the newest of each');
SET LOCAL ROLE prom_test_chief;
SELECT is((SELECT value FROM prometheus.state WHERE agent = 'tidy' AND key = 'state'), '{"n": 1}',
          'who has the role sees it');
SELECT is(prometheus_state('tidy'), NULL, 'but reads his own');
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT array_agg(value ORDER BY owner) FROM prometheus.state WHERE agent = 'tidy' AND key = 'state'),
          ARRAY['"mine"', '{"n": 1}']::jsonb[], 'an administrator sees all');
RESET ROLE;

-- Who is made again is another.

SET LOCAL ROLE prom_test_chief;
SELECT prometheus_save_state('tidy', '"of the first"');
RESET ROLE;
DROP OWNED BY prom_test_chief;
DROP ROLE prom_test_chief;
CREATE ROLE prom_test_chief;
GRANT prometheus_agent_user TO prom_test_chief;
SET LOCAL ROLE prom_test_chief;
SELECT is(prometheus_state('tidy'), NULL, 'a role of the same name does not read it');
SELECT is(prometheus_save_state('tidy', '"of the second"'), 1::bigint, 'and has versions of its own');
RESET ROLE;

-- Damage is found, and said.

SELECT is((SELECT count(*) FROM prometheus._state WHERE agent = 'values' AND codec = 1) > 3
          AND (SELECT count(*) FROM prometheus._state WHERE agent = 'values' AND codec = 0) > 10, true,
          'small values are plain, long ones compressed');
UPDATE prometheus._state SET frame = set_byte(frame, length(frame) / 2, get_byte(frame, length(frame) / 2) # 255)
 WHERE agent = 'values' AND version IN (16, 21);
UPDATE prometheus._state SET frame = '' WHERE agent = 'values' AND version IN (14, 20);
UPDATE prometheus._state SET bytes = 1000000000 WHERE agent = 'values' AND version IN (12, 19);
UPDATE prometheus._state SET codec = 2, base_version = 16 WHERE agent = 'values' AND version = 18;
UPDATE prometheus._state SET codec = 77 WHERE agent = 'values' AND version = 17;
UPDATE prometheus._state SET form = 99 WHERE agent = 'values' AND version = 15;
UPDATE prometheus._state SET form = -7 WHERE agent = 'values' AND version = 13;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok(format('SELECT prometheus_state(''values'', ''k'', version => %s)', v), CASE v WHEN 13 THEN '0A000' ELSE 'XX001' END,
                 CASE WHEN v <> 13 THEN format('version %s of state "k" of agent "values" is damaged', v) END, 'damage of version ' || v)
  FROM unnest('{12,13,14,15,16,17,18,19,20,21}'::int[]) AS v;
SELECT is(prometheus_save_state('values', '{"well": "again"}', 'k'), 23::bigint, 'it can be saved all the same');
SELECT is(prometheus_restore_state('values', 'k', 11), 24::bigint, 'or restored');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
