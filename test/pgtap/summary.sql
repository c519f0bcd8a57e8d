-- What is told of a summary that could not be saved.  How they are saved is in
-- t/260_state.
BEGIN;
SELECT plan(4);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_user;
CREATE ROLE prom_test_other;
GRANT prometheus_agent_user TO prom_test_user, prom_test_other;
SET LOCAL ROLE prom_test_user;
CREATE TEMP TABLE made AS SELECT prometheus_submit('x') AS task_id;
GRANT SELECT ON made TO PUBLIC;
RESET ROLE;
INSERT INTO prometheus._state_failure (task_id, event_id, xid, failed_at, key, error)
SELECT task_id, nextval('prometheus._fact_id'), prometheus._xid(), '2026-01-01', 'last_task', 'no room' FROM made;

SET LOCAL ROLE prom_test_user;
SELECT is(data, '{"key": "last_task", "error": "no room"}', 'an event says why')
  FROM prometheus.event JOIN made USING (task_id) WHERE type = 'state.failed';
SELECT is((agent, subject, created_at, caused_by)::text, (('default', NULL, '2026-01-01'::timestamptz, NULL))::text, 'of what and when')
  FROM prometheus.event JOIN made USING (task_id) WHERE type = 'state.failed';
SELECT throws_ok($$SELECT prometheus_save_state('default', '1', 'last_task')$$, '42939', 'the key "last_task" is reserved',
                 'the key is for this alone');
SET LOCAL ROLE prom_test_other;
SELECT is_empty($$SELECT FROM prometheus.event WHERE type = 'state.failed'$$, 'others do not see it');

SELECT * FROM finish();
ROLLBACK;
