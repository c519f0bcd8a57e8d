-- What prometheus_pause(), _resume() and _why() write, say and refuse in a
-- database without workers; t/ has those with.
BEGIN;
SELECT plan(31);
SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'gate', ARRAY['target', 'state', 'reason', 'since', 'until', 'in_flight', 'waiting', 'width', 'failures']);
SELECT function_returns('prometheus_pause', ARRAY['text'], 'void');
SELECT function_returns('prometheus_resume', ARRAY['text'], 'void');
SELECT is_empty('TABLE prometheus.gate', 'nothing is known of gates');

SELECT lives_ok('SELECT prometheus_pause()', 'everything is paused');
SELECT is(concat_ws(' ', target, state, reason), 'all paused paused by ' || session_user, 'so it says')
  FROM prometheus.gate;
SELECT ok(since <= clock_timestamp() AND until IS NULL, 'since when, and without an end') FROM prometheus.gate;
SELECT lives_ok('SELECT prometheus_pause(''all'')', 'twice is once');
SELECT is(count(*)::int, 1, 'one gate') FROM prometheus.gate;
SELECT lives_ok('SELECT prometheus_pause(''agent:default''), prometheus_pause(''model:echo'')', 'an agent, a model');
SELECT set_eq('SELECT target FROM prometheus.gate WHERE state = ''paused''', ARRAY['all', 'agent:default', 'model:echo'], 'all three');
SELECT lives_ok('SELECT prometheus_resume()', 'everything is resumed');
SELECT set_eq('SELECT target FROM prometheus.gate', ARRAY['agent:default', 'model:echo'], 'but what was paused by itself');
SELECT lives_ok('SELECT prometheus_resume(''agent:default''), prometheus_resume(''model:echo'')', 'these too');
SELECT is_empty('TABLE prometheus.gate', 'nothing is paused');
SELECT lives_ok('SELECT prometheus_resume(''model:echo'')', 'what is not paused may be resumed');

SELECT throws_ok('SELECT prometheus_pause(NULL)', '22004', NULL, 'no target');
SELECT throws_ok('SELECT prometheus_pause(''everything'')', '22023', NULL, 'another target');
SELECT throws_ok('SELECT prometheus_pause('''')', '22023', NULL, 'an empty one');
SELECT throws_ok('SELECT prometheus_pause(''agent:'')', '42704', NULL, 'an agent without a name');
SELECT throws_ok('SELECT prometheus_pause(''agent:nobody'')', '42704', NULL, 'an agent that is not there');
SELECT throws_ok('SELECT prometheus_resume(''model:nothing'')', '42704', NULL, 'a model that is not there');

-- It is the transaction's.
SAVEPOINT before;
SELECT prometheus_pause();
ROLLBACK TO before;
SELECT is_empty('TABLE prometheus.gate', 'rolled back: not paused');

-- Who may.
CREATE ROLE prom_test_user;
GRANT prometheus_agent_user TO prom_test_user;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_admin TO prom_test_admin;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok('SELECT prometheus_pause()', '42501', NULL, 'a user may not pause');
SELECT throws_ok('SELECT prometheus_resume()', '42501', NULL, 'nor resume');
SELECT is_empty('TABLE prometheus.gate', 'but may look');
SET LOCAL ROLE prom_test_admin;
SELECT lives_ok('SELECT prometheus_pause()', 'an administrator may');
RESET ROLE;

-- Why.
CREATE TEMP TABLE made AS SELECT prometheus_submit('x') AS task_id;
SELECT matches(prometheus_why(task_id), '^queued: nothing runs it; ', 'nobody serves this database') FROM made;
SELECT throws_ok('SELECT prometheus_why(-1)', '42704', NULL, 'a task that is not there');
SELECT is(prometheus_why(NULL), NULL, 'no task');
GRANT SELECT ON made TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok('SELECT prometheus_why(task_id) FROM made', '42704', NULL, 'somebody else''s task');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
