-- What roles may do and see, in sessions as they would have them.  The tables
-- of rights are in test/pgtap/role.sql, the rules of seeing in visibility.sql.
\set VERBOSITY sqlstate
SET client_min_messages = error;
CREATE ROLE prom_test_outsider;
CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_group;
CREATE ROLE prom_test_lead;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b, prom_test_lead;
GRANT prom_test_a, prom_test_b TO prom_test_lead;
GRANT prometheus_agent_admin TO prom_test_admin;

-- Without any role of ours: nothing.
SET ROLE prom_test_outsider;
SELECT prometheus_submit('x');
CALL prometheus_ask('x');
SELECT prometheus_wait(1);
SELECT prometheus_result(1);
SELECT prometheus_cancel(1);
SELECT prometheus_set_model('m', 'echo');
SELECT prometheus_set_agent('a', 'echo');
SELECT prometheus_set_tool('now()');
SELECT prometheus_version();
SELECT * FROM prometheus_health();
TABLE prometheus.task;
TABLE prometheus.queue;
TABLE prometheus.event;
TABLE prometheus.agent;
TABLE prometheus.tool;
TABLE prometheus._task;

-- Two users, each with a task.
SET ROLE prom_test_a;
SELECT prometheus_submit('of a') AS task_a \gset
SET ROLE prom_test_b;
SELECT prometheus_submit('of b') AS task_b \gset
RESET ROLE;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at)
SELECT id, 1, prometheus._xid(), now() FROM unnest(ARRAY[:task_a, :task_b]) AS id;
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
SELECT -id, id, 1, 1, 1, prometheus._xid(), now(), 'chat', 'model:echo' FROM unnest(ARRAY[:task_a, :task_b]) AS id;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, ambiguous, kind, name,
                              status, answer)
SELECT id, 1, 1, -1 - 2 * id, -id, prometheus._xid(), now(), now(), false, 'chat', 'echo', 'ok', 'answer to ' || request
  FROM unnest(ARRAY[:task_a, :task_b]) AS id JOIN prometheus._task ON task_id = id;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
SELECT id, 1, -2 - 2 * id, prometheus._xid(), now(), 1, 1, 'completed' FROM unnest(ARRAY[:task_a, :task_b]) AS id;

CREATE FUNCTION seen() RETURNS TABLE (view text, requests text) LANGUAGE sql AS $$
    SELECT 'task', string_agg(request, ', ' ORDER BY request) FROM prometheus.task
     UNION ALL
    SELECT 'attempt', string_agg(request, ', ' ORDER BY request) FROM prometheus.attempt JOIN prometheus.task USING (task_id)
     UNION ALL
    SELECT 'attempt, rows', count(*)::text FROM prometheus.attempt
     UNION ALL
    SELECT 'call, rows', count(*)::text FROM prometheus.call
     UNION ALL
    SELECT 'step', string_agg(output ->> 'content', ', ' ORDER BY output) FROM prometheus.step
     UNION ALL
    SELECT 'event', string_agg(type || ' ' || coalesce(data ->> 'request', data ->> 'result', ''), ', '
                               ORDER BY type, data)
      FROM prometheus.event WHERE type <> 'step.executed'
$$;

SET ROLE prom_test_a;
SELECT * FROM seen();
SELECT prometheus_wait(:task_a), prometheus_result(:task_a), prometheus_cancel(:task_a);
SELECT prometheus_wait(:task_b);
SELECT prometheus_result(:task_b);
SELECT prometheus_cancel(:task_b);

SET ROLE prom_test_b;
SELECT * FROM seen();

-- Who has both roles sees both, an administrator sees all.
SET ROLE prom_test_lead;
SELECT * FROM seen() WHERE view = 'task';
SELECT prometheus_result(:task_a);
SELECT prometheus_result(:task_b);
SET ROLE prom_test_admin;
SELECT * FROM seen();
SELECT prometheus_result(:task_b);

-- A group may submit as one: its members see what any of them submitted.
RESET ROLE;
GRANT prometheus_agent_user TO prom_test_group;
GRANT prom_test_group TO prom_test_a, prom_test_b;
SET ROLE prom_test_group;
SELECT prometheus_submit('of the group') IS NOT NULL AS submitted;
SET ROLE prom_test_a;
SELECT * FROM seen() WHERE view = 'task';
SET ROLE prom_test_b;
SELECT * FROM seen() WHERE view = 'task';
RESET ROLE;
REVOKE prom_test_group FROM prom_test_a, prom_test_b;

-- A barrier holds: a cheap function of the reader's sees only his rows.
SET ROLE prom_test_a;
CREATE FUNCTION pg_temp.leak(text) RETURNS boolean COST 0.0000001 LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'saw: %', $1;
    RETURN true;
END$$;
\set VERBOSITY terse
SET client_min_messages = notice;
SELECT count(*) FROM prometheus.task WHERE pg_temp.leak(request);
SELECT count(*) FROM prometheus.step WHERE pg_temp.leak(output ->> 'content');
SELECT count(*) FROM prometheus.attempt WHERE pg_temp.leak(attempt::text);
SELECT count(*) FROM prometheus.call WHERE pg_temp.leak(target);
SELECT count(*) FROM prometheus.event WHERE type = 'task.received' AND pg_temp.leak(data ->> 'request');
SELECT count(*) FROM prometheus.event WHERE type = 'step.executed' AND pg_temp.leak(data ->> 'output');
SELECT count(*) FROM prometheus.event WHERE type = 'task.completed' AND pg_temp.leak(data ->> 'result');
SET client_min_messages = error;
\set VERBOSITY sqlstate
-- An error in a condition says nothing about others' rows.
SELECT count(*) FROM prometheus.task WHERE 1 / (CASE request WHEN 'of b' THEN 0 ELSE 1 END) = 1;

-- No table is to be read or written, whatever a user tries.
TABLE prometheus._task;
TABLE prometheus._agent;
TABLE prometheus._tool;
TABLE prometheus._visible_task;
INSERT INTO prometheus._cancel VALUES (1, '1', now(), 'x', NULL);
INSERT INTO prometheus.task (task_id) VALUES (1);
UPDATE prometheus.event SET type = 'x';
DELETE FROM prometheus.agent;
SELECT nextval('prometheus._task_id');
SELECT prometheus_set_model('m', 'echo');
SELECT prometheus_set_agent('a', 'echo');
SELECT prometheus_set_tool('now()');
CREATE TABLE prometheus.mine ();

-- What an administrator sets is there for users, read-only.
SET ROLE prom_test_admin;
SELECT prometheus_set_model('m', 'openai', 'https://example.com/v1', secret => 'KEY');
SELECT prometheus_set_agent('a', 'm', options => '{"roles": ["prom_test_a"]}');
SELECT prometheus_set_agent('default', instructions => 'Be brief.');
SELECT prometheus_set_tool('now()', 'clock');
SELECT prometheus_set_agent('a', tools => '{clock}', run_as => 'prom_test_admin');
SELECT prometheus_set_agent('a', run_as => 'prom_test_a');
SELECT prometheus_set_agent('a', run_as => '');
TABLE prometheus._model;
SET ROLE prom_test_a;
SELECT name, api, endpoint, secret, owner FROM prometheus.model WHERE name = 'm';
SELECT name, model, tools, run_as, owner, options FROM prometheus.agent WHERE name = 'a';
SELECT name, function, tier, owner FROM prometheus.tool;
SELECT prometheus_submit('to a, by a', 'a') IS NOT NULL AS submitted;
SET ROLE prom_test_b;
SELECT prometheus_submit('to a, by b', 'a');
-- The owner of an agent sees its tasks, even if he is no administrator any more.
RESET ROLE;
REVOKE prometheus_agent_admin FROM prom_test_admin;
GRANT prometheus_agent_user TO prom_test_admin;
SET ROLE prom_test_admin;
SELECT * FROM seen() WHERE view = 'task';
SELECT prometheus_set_agent('a');

-- A function that runs as its owner counts as its owner.
RESET ROLE;
CREATE FUNCTION ask_for_others(request text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp AS 'SELECT prometheus_submit(request)';
ALTER FUNCTION ask_for_others(text) OWNER TO prom_test_b;
SET ROLE prom_test_outsider;
SELECT ask_for_others('of b, for an outsider') AS wrapped \gset
SELECT prometheus_result(:wrapped);
RESET ROLE;
SELECT submitter FROM prometheus.task WHERE task_id = :wrapped;

-- Who is dropped and made again is another.
CREATE ROLE prom_test_again;
GRANT prometheus_agent_user TO prom_test_again;
SET ROLE prom_test_again;
SELECT prometheus_submit('of the first') IS NOT NULL AS submitted;
RESET ROLE;
DROP ROLE prom_test_again;
CREATE ROLE prom_test_again;
GRANT prometheus_agent_user TO prom_test_again;
SET ROLE prom_test_again;
SELECT * FROM seen() WHERE view = 'task';
RESET ROLE;

DROP FUNCTION ask_for_others, seen;
DROP OWNED BY prom_test_a;
DROP EXTENSION prometheus;
DROP ROLE prom_test_outsider, prom_test_a, prom_test_b, prom_test_group, prom_test_lead, prom_test_admin, prom_test_again;
CREATE EXTENSION prometheus;
