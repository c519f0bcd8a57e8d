-- prometheus_progress() in a database without workers; t/245_provider.pl has those with.
BEGIN;
SELECT plan(5);
SET LOCAL client_min_messages = error;

SELECT function_returns('prometheus_progress', ARRAY['bigint'], 'setof record');
CREATE TEMP TABLE made AS SELECT prometheus_submit('x') AS task_id;
SELECT is_empty('SELECT * FROM made, prometheus_progress(made.task_id)', 'what does not run shows nothing');
SELECT is_empty('SELECT * FROM prometheus_progress(NULL)', 'no task');
SELECT throws_ok('SELECT * FROM prometheus_progress(-1)', '42704', NULL, 'a task that is not there');
CREATE ROLE prom_test_user;
GRANT prometheus_agent_user TO prom_test_user;
GRANT SELECT ON made TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok('SELECT prometheus_progress(task_id) FROM made', '42704', NULL, 'somebody else''s task');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
