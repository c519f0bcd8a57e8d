-- prometheus_storage(): each table once, and when something of it goes.
BEGIN;
SELECT plan(24);
SET LOCAL client_min_messages = error;

CREATE TEMP VIEW s AS SELECT * FROM prometheus_storage();
SELECT set_eq($$SELECT relation FROM s$$,
              $$SELECT relname::text FROM pg_class WHERE relnamespace = 'prometheus'::regnamespace AND relkind = 'r'$$,
              'each table');
SELECT is((SELECT count(*) - count(DISTINCT relation) FROM s), 0::bigint, 'once');
SELECT is_empty($$SELECT relation FROM s WHERE bytes <> pg_total_relation_size(('prometheus.' || relation)::regclass)$$, 'its size');
SELECT results_eq($$SELECT bytes FROM s$$, $$SELECT bytes FROM s ORDER BY bytes DESC$$, 'the largest comes first');
SELECT set_eq($$SELECT relation FROM s WHERE kept IS NULL$$, ARRAY['_alert', '_checkpoint', '_consumer', '_era', '_gate', '_horizon', '_kept_trace', '_mark_name', '_memory_entry', '_span_position', '_subscription'],
              'only bookkeeping is not kept by something');
SELECT set_eq($$SELECT relation FROM s WHERE kept = 'task'$$,
              $$SELECT relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'task_id'
                 WHERE relnamespace = 'prometheus'::regnamespace AND relkind = 'r' AND relname !~ '^_audit|^_(memory|evidence|evolution|state|row_version|event|delivery|tool|span)$'
                UNION SELECT '_decision'$$, 'all facts of tasks go with them');
SELECT is_empty($$SELECT relation FROM s WHERE horizon IS NOT NULL AND kept NOT IN ('audit', 'span')$$, 'nothing was deleted');
SELECT is_empty($$SELECT relation FROM s WHERE goes IS NOT NULL$$, 'and nothing will be');

CREATE TEMP TABLE task AS SELECT prometheus_submit('x') AS task_id;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT task_id, 1, -1, prometheus._xid(), now() - interval '10 days', 1, 'failed' FROM task;
CREATE TEMP TABLE set AS SELECT prometheus_set_agent('a', 'echo');
INSERT INTO set SELECT prometheus_set_agent('a', mode => 'fast');
UPDATE prometheus._agent SET set_at = now() - interval '20 days' WHERE name = 'a' AND version = 2;
INSERT INTO prometheus._audit_usage (first_task, day, xid, submitter_oid, submitter, agent, tasks, calls)
VALUES (-1, '2020-01-01', prometheus._xid(), 10, 'somebody', 'a', 1, 1);
INSERT INTO prometheus._horizon (at, xid, moved_at, snapshot)
VALUES ('2020-01-01 12:00+00', prometheus._xid(), now(), prometheus._snapshot());
SELECT is((SELECT goes FROM s WHERE relation = '_step'), now() + interval '20 days', 'a task goes 30 days after its end');
SELECT is((SELECT goes FROM s WHERE relation = '_agent'), now() + interval '10 days', 'a version 30 days after the next');
SELECT is((SELECT goes FROM s WHERE relation = '_audit_usage'), '2020-01-01'::timestamptz + interval '730 days', 'an audit row after two years');
SELECT is((SELECT goes FROM s WHERE relation = '_model'), NULL, 'what is the newest does not go');
SELECT is((SELECT count(*) FROM s WHERE horizon = '2020-01-01 12:00+00'),
          (SELECT count(*) FROM s WHERE kept IN ('task', 'event', 'version', 'mark')), 'the horizon is there');
SELECT is((SELECT oldest FROM s WHERE relation = '_task'), (SELECT submitted_at FROM prometheus._task ORDER BY task_id LIMIT 1), 'the oldest');

CREATE TABLE rows (id int PRIMARY KEY);
INSERT INTO rows VALUES (1), (2);
SELECT prometheus_track('rows');
SELECT is((SELECT goes FROM s WHERE relation = '_row_version'), NULL, 'rows that nobody changed stay');
DELETE FROM rows WHERE id = 1;
UPDATE prometheus._row_version SET changed_at = now() - interval '12 days' WHERE operation = 'delete';
SELECT is((SELECT goes FROM s WHERE relation = '_row_version'), now() + interval '18 days', 'their versions go as others');

SELECT prometheus_remember('a', 'stays') \gset
SELECT is((SELECT goes FROM s WHERE relation = '_memory'), NULL, 'a memory stays');
SELECT prometheus_remember('a', 'expires', ttl => '2 days') \gset
UPDATE prometheus._memory SET expires_at = now() + interval '2 days' WHERE content = 'expires';
SELECT is((SELECT goes FROM s WHERE relation = '_memory'), now() + interval '32 days', 'one that expires goes after that');
SELECT prometheus_forget(prometheus_remember('a', 'forgotten')) \gset
UPDATE prometheus._memory SET created_at = now() - interval '3 days' WHERE content = 'forgotten';
DELETE FROM prometheus._memory WHERE content = 'forgotten' AND version = 1;
SELECT is((SELECT goes FROM s WHERE relation = '_memory'), now() + interval '27 days', 'and one that was forgotten');

-- What is told of a memory goes with the last of it.
CREATE FUNCTION pg_temp.tell(said text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO prometheus._evidence (memory_id, number, xid, task_id, found_at, confidence)
	SELECT memory_id, 1, prometheus._xid(), 1, now() - interval '9 days', 1 FROM prometheus._memory WHERE content = said;
	INSERT INTO prometheus._memory_use (memory_id, xid, used_at, uses)
	SELECT memory_id, prometheus._xid(), now() - interval '9 days', 1 FROM prometheus._memory WHERE content = said $$;
SELECT pg_temp.tell('stays') \gset
SELECT is_empty($$SELECT relation FROM s WHERE relation IN ('_evidence', '_memory_use') AND goes IS NOT NULL$$, 'what is told of one that stays, too');
SELECT pg_temp.tell('expires') \gset
SELECT set_eq($$SELECT relation FROM s WHERE goes = now() + interval '32 days'$$, ARRAY['_evidence', '_memory_use'], 'with one that expires');
SELECT pg_temp.tell('forgotten') \gset
SELECT set_eq($$SELECT relation FROM s WHERE goes = now() + interval '27 days'$$, ARRAY['_memory', '_evidence', '_memory_use'], 'or that was forgotten');
INSERT INTO prometheus._memory_use SELECT memory_id, xid, now() - interval '5 days', 2 FROM prometheus._memory_use WHERE memory_id = (SELECT memory_id FROM prometheus._memory WHERE content = 'stays');
SELECT is((SELECT goes FROM s WHERE relation = '_memory_use'), now() + interval '25 days', 'a use after the next, if that is sooner');

CREATE ROLE prom_tap_user;
GRANT prometheus_agent_user TO prom_tap_user;
SET LOCAL ROLE prom_tap_user;
SELECT throws_ok('SELECT * FROM prometheus_storage()', '42501', NULL, 'it is for administrators');

SELECT * FROM finish();
ROLLBACK;
