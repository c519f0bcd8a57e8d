-- The texts of errors, which no other test compares: what is wrong, the facts,
-- what to do.  Under each statement its SQLSTATE.
\set SHOW_CONTEXT never
DROP EXTENSION prometheus;
CREATE EXTENSION prometheus;

-- The first submit of a session to a database that nobody serves.
SELECT prometheus_submit('x') AS task_id;
SELECT prometheus_submit('x') AS task_id;

-- Submit.
SELECT prometheus_submit(NULL);
\echo :SQLSTATE
SELECT prometheus_submit('');
\echo :SQLSTATE
SELECT prometheus_submit('x', NULL);
\echo :SQLSTATE
SELECT prometheus_submit('x', 'nobody');
\echo :SQLSTATE
SELECT prometheus_submit('x', mode => 'slow');
\echo :SQLSTATE
SELECT prometheus_submit('x', priority => 1001);
\echo :SQLSTATE
SELECT prometheus_submit('x', priority => -1001);
\echo :SQLSTATE
SELECT prometheus_submit('x', run_at => 'infinity');
\echo :SQLSTATE
SELECT prometheus_submit('x', timeout => '0');
\echo :SQLSTATE
SELECT prometheus_submit('x', timeout => '-1 hour');
\echo :SQLSTATE
SELECT prometheus_submit('x', timeout => '170000000 years');
\echo :SQLSTATE
SELECT prometheus_submit('x', run_at => '294276-12-31', timeout => '10 days');
\echo :SQLSTATE
SELECT prometheus_submit('x', max_attempts => 0);
\echo :SQLSTATE
SELECT prometheus_submit('x', max_attempts => -1);
\echo :SQLSTATE
SELECT prometheus_submit('x', max_attempts => 101);
\echo :SQLSTATE
SELECT prometheus_submit('x', metadata => '[1]');
\echo :SQLSTATE
SELECT prometheus_submit('x', output_schema => '"object"');
\echo :SQLSTATE
SELECT prometheus_submit('x', output_schema => '{"properties": {"price": {"type": "number", "nullable": true}}}');
\echo :SQLSTATE
SELECT prometheus_submit('x', output_schema => '{"$ref": "#/$defs/price"}');
\echo :SQLSTATE
SELECT prometheus_submit(repeat('x', 1048577));
\echo :SQLSTATE
SET prometheus.max_request = '2kB';
SELECT prometheus_submit(repeat('ä', 1025));
\echo :SQLSTATE
RESET prometheus.max_request;
BEGIN READ ONLY;
SELECT prometheus_submit('x');
\echo :SQLSTATE
ROLLBACK;
CREATE ROLE prom_test_user;
GRANT prometheus_agent_user TO prom_test_user;
SELECT prometheus_set_agent('closed', 'echo', options => '{"roles": ["prometheus_agent_admin"]}');
SET ROLE prom_test_user;
SELECT prometheus_submit('x', 'closed');
\echo :SQLSTATE
RESET ROLE;

-- Wait, result, cancel.
SELECT prometheus_wait(1000);
\echo :SQLSTATE
SELECT prometheus_wait(NULL);
\echo :SQLSTATE
SELECT prometheus_wait(1, '-1 s');
\echo :SQLSTATE
SELECT prometheus_wait(1, '170000000 years');
\echo :SQLSTATE
BEGIN;
SELECT prometheus_submit('x') AS task_id;
SELECT prometheus_wait(3);
\echo :SQLSTATE
ROLLBACK;
SELECT prometheus_wait(3);
\echo :SQLSTATE
SELECT prometheus_result(1000);
\echo :SQLSTATE
SELECT prometheus_cancel(1000);
\echo :SQLSTATE
SELECT prometheus_prompt(1, 1);
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT prometheus_cancel(1);
\echo :SQLSTATE
ROLLBACK;
SET ROLE prom_test_user;
SELECT prometheus_result(1);
\echo :SQLSTATE
RESET ROLE;
-- As if workers had ended them.
BEGIN;
INSERT INTO prometheus._task
SELECT 100 + n, 1000 + n, xid, submitted_at, run_at, deadline, priority, max_attempts, submitter_oid, submitter, agent,
       mode, trace_id, request, metadata
  FROM prometheus._task, generate_series(1, 5) AS n WHERE task_id = 1;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome, error_type, error)
VALUES (101, 1, 2001, prometheus._xid(), now(), 1, NULL, 'failed', 'ModelRejected', 'the model refused the request'),
       (102, 1, 2002, prometheus._xid(), now(), 1, NULL, 'vetoed', 'GovernanceVeto', 'not in this database'),
       (103, 1, 2003, prometheus._xid(), now(), 1, NULL, 'cancelled', NULL, 'not needed any more'),
       (104, 1, 2004, prometheus._xid(), now(), 1, NULL, 'quarantined', 'Crashed', 'it ended the server twice'),
       (105, 1, 2005, prometheus._xid(), now(), 1, NULL, 'cancelled', NULL, NULL);
COMMIT;
SELECT prometheus_result(101);
\echo :SQLSTATE
SELECT prometheus_result(102);
\echo :SQLSTATE
SELECT prometheus_result(103);
\echo :SQLSTATE
SELECT prometheus_result(104);
\echo :SQLSTATE
SELECT prometheus_result(105);
\echo :SQLSTATE

-- Ask: where it cannot commit, and in vain.
BEGIN;
CALL prometheus_ask('x');
\echo :SQLSTATE
ROLLBACK;
DO $$
DECLARE
    answer text;
BEGIN
    CALL prometheus_ask('x', timeout => '0', answer => answer);
EXCEPTION WHEN query_canceled THEN
    RAISE NOTICE 'not reached: a block with EXCEPTION is a subtransaction';
END$$;
\echo :SQLSTATE
CREATE FUNCTION ask() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    CALL prometheus_ask('x', answer => answer);
    RETURN answer;
END$$;
SELECT ask();
\echo :SQLSTATE
DROP FUNCTION ask;
CALL prometheus_ask('');
\echo :SQLSTATE
CALL prometheus_ask('x', 'nobody');
\echo :SQLSTATE
CALL prometheus_ask('x', timeout => '-1 s');
\echo :SQLSTATE
SELECT coalesce(max(task_id), 0) AS last FROM prometheus.task WHERE task_id < 100 \gset
CALL prometheus_ask('in vain', timeout => '0');
\echo :SQLSTATE
SELECT request, status FROM prometheus.task WHERE task_id > :last AND task_id < 100;

-- States.
SELECT prometheus_save_state('a', '{"n": 1}') AS version;
SELECT prometheus_save_state('a', '{"n": 2}', expected_version => 2);
\echo :SQLSTATE
SELECT prometheus_save_state('a', '{"n": 2}', 'new', expected_version => 1);
\echo :SQLSTATE
SELECT prometheus_save_state('a', '{"n": 2}', expected_version => -1);
\echo :SQLSTATE
SELECT prometheus_save_state('a', NULL);
\echo :SQLSTATE
SELECT prometheus_save_state('', '1');
\echo :SQLSTATE
SELECT prometheus_save_state('a', '1', '');
\echo :SQLSTATE
SET prometheus.max_state = '1kB';
SELECT prometheus_save_state('a', to_jsonb(repeat('x', 1017)));
\echo :SQLSTATE
RESET prometheus.max_state;
SELECT prometheus_restore_state('a');
\echo :SQLSTATE
SELECT prometheus_restore_state('a', to_version => 2);
\echo :SQLSTATE
SELECT prometheus_diff_state('a', 1, 2);
\echo :SQLSTATE
SELECT * FROM prometheus_state_history('a', max_rows => 0);
\echo :SQLSTATE
SELECT prometheus_state('a', as_of => now(), version => 1);
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT prometheus_save_state('a', '1');
\echo :SQLSTATE
ROLLBACK;
UPDATE prometheus._state SET checksum = checksum # 1;
SELECT prometheus_state('a');
\echo :SQLSTATE
DELETE FROM prometheus._state;

-- Models.
SET ROLE prom_test_user;
SELECT prometheus_set_model('m', 'echo');
\echo :SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION prometheus_set_model TO prom_test_user;
SET ROLE prom_test_user;
SELECT prometheus_set_model('m', 'echo');
\echo :SQLSTATE
RESET ROLE;
SELECT prometheus_set_model(NULL, 'echo');
\echo :SQLSTATE
SELECT prometheus_set_model('', 'echo');
\echo :SQLSTATE
SELECT prometheus_set_model(repeat('n', 201), 'echo');
\echo :SQLSTATE
SELECT prometheus_set_model('m');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'telepathy');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'echo', 'https://example.com');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'function');
\echo :SQLSTATE
CREATE FUNCTION reply(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SELECT prometheus_set_model('m', 'echo', handler => 'reply(jsonb)');
\echo :SQLSTATE
DROP FUNCTION reply;
SELECT prometheus_set_model('m', 'function', handler => 'jsonb_typeof(jsonb)');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'function', handler => 'jsonb_concat(jsonb, jsonb)');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'ftp://example.com');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https:///v1');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://me:secret@example.com/v1');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com/v1?key=secret');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com /v1');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com:99999/v1');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', secret => 'sk-0123456789');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', secret => '../key');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '[]');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"colour": "red"}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"max_tokens": "many"}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"max_tokens": 0}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"temperature": 11}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"stream": "yes"}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"total_timeout": "2 days"}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"total_timeout": true}');
\echo :SQLSTATE
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"max_reply": "1 GB"}');
\echo :SQLSTATE
\set SHOW_CONTEXT errors
SELECT prometheus_set_model('m', 'openai', 'https://example.com', options => '{"total_timeout": "soon"}');
\echo :SQLSTATE
\set SHOW_CONTEXT never
BEGIN READ ONLY;
SELECT prometheus_set_model('m', 'echo');
\echo :SQLSTATE
ROLLBACK;

-- Agents.
SET ROLE prom_test_user;
SELECT prometheus_set_agent('a', 'echo');
\echo :SQLSTATE
RESET ROLE;
SELECT prometheus_set_agent('', 'echo');
\echo :SQLSTATE
SELECT prometheus_set_agent('a');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'nothing');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', mode => 'slow');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', options => '{"window": 1000}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', options => '{"max_turns": 0}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', options => '{"max_duration": "0.5 s"}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', options => '{"roles": "me"}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', tools => '{nothing}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', tools => '{NULL}');
\echo :SQLSTATE
CREATE ROLE prom_test_super SUPERUSER;
SELECT prometheus_set_agent('a', 'echo', run_as => 'prom_test_super');
\echo :SQLSTATE
DROP ROLE prom_test_super;
SELECT prometheus_set_agent('a', 'echo', run_as => 'prom_test_nobody');
\echo :SQLSTATE
GRANT prometheus_agent_admin TO prom_test_user;
SET ROLE prom_test_user;
SELECT prometheus_set_agent('a', 'echo', run_as => 'prometheus_agent_user');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', run_as => 'pg_monitor');
\echo :SQLSTATE
RESET ROLE;
SELECT prometheus_set_agent('a', 'echo', options => '{"embedding_model": 1}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', options => '{"embedding_model": "nobody"}');
\echo :SQLSTATE
SELECT prometheus_set_agent('a', 'echo', options => '{"embedding_model": "echo"}');
\echo :SQLSTATE

-- Evolution.
SELECT prometheus_evolve(NULL);
\echo :SQLSTATE
SELECT prometheus_evolve('nobody');
\echo :SQLSTATE
SELECT prometheus_evolve('default', 101);
\echo :SQLSTATE
SELECT prometheus_evolve('default', 0);
\echo :SQLSTATE
SELECT prometheus_evolve('default', domain => '');
\echo :SQLSTATE
SELECT prometheus_evolve('default', options => '[]');
\echo :SQLSTATE
SELECT prometheus_evolve('default', options => '{"levels": 1}');
\echo :SQLSTATE
SELECT prometheus_evolve('default', options => '{"level": 6}');
\echo :SQLSTATE
SELECT prometheus_evolve('default', options => '{"categories": []}');
\echo :SQLSTATE
SELECT prometheus_evolve('default', options => '{"judge": 1}');
\echo :SQLSTATE
SELECT prometheus_evolve('default', 1) > 0 AS evolves;
SELECT prometheus_evolve('default');
\echo :SQLSTATE

-- Tools.
SELECT prometheus_set_tool(NULL);
\echo :SQLSTATE
SELECT prometheus_set_tool('now()', 'my tool');
\echo :SQLSTATE
SELECT prometheus_set_tool('now()', tier => 'admin');
\echo :SQLSTATE
SELECT prometheus_set_tool('now()', description => repeat('n', 4097));
\echo :SQLSTATE
SELECT prometheus_set_tool('max(int)');
\echo :SQLSTATE
SELECT prometheus_set_tool('array_append(anycompatiblearray, anycompatible)');
\echo :SQLSTATE
SELECT prometheus_set_tool('int4out(int)');
\echo :SQLSTATE
SELECT prometheus_set_tool('now()', 'clock');
SET ROLE prom_test_user;
SELECT prometheus_set_tool('pg_read_file(text)');
\echo :SQLSTATE
SELECT prometheus_set_tool('now()', 'clock');
\echo :SQLSTATE
RESET ROLE;
REVOKE prometheus_agent_admin FROM prom_test_user;

-- The installation.
DROP EXTENSION prometheus;
CREATE SCHEMA prometheus;
CREATE EXTENSION prometheus;
\echo :SQLSTATE
DROP SCHEMA prometheus;
ALTER ROLE prometheus_agent_user RENAME TO prom_test_kept;
CREATE ROLE prometheus_agent_user;
CREATE EXTENSION prometheus;
\echo :SQLSTATE
DROP ROLE prometheus_agent_user;
ALTER ROLE prom_test_kept RENAME TO prometheus_agent_user;
CREATE EXTENSION prometheus;

-- Events and consumers.
SELECT prometheus_emit('shop order');
\echo :SQLSTATE
SELECT prometheus_emit('task.done');
\echo :SQLSTATE
SELECT prometheus_emit('shop.order', to_jsonb(repeat('x', 2000000)));
\echo :SQLSTATE
DO $$
DECLARE id bigint;
BEGIN
    FOR n IN 1 .. 20 LOOP
        PERFORM set_config('prometheus.caused_by', coalesce(id::text, ''), true);
        id := prometheus_emit('shop.round');
    END LOOP;
EXCEPTION WHEN program_limit_exceeded THEN
    RAISE NOTICE '%', SQLERRM;
END $$;
SELECT prometheus_create_consumer('c', '{shop.*}');
SELECT prometheus_create_consumer('c');
\echo :SQLSTATE
SELECT prometheus_create_consumer('d', '{*.order}');
\echo :SQLSTATE
SELECT prometheus_create_consumer('d', start => now() + interval '1 hour');
\echo :SQLSTATE
SELECT prometheus_poll('d');
\echo :SQLSTATE
SELECT prometheus_poll('c', 0);
\echo :SQLSTATE
SELECT prometheus_ack('c', 1);
\echo :SQLSTATE
SET prometheus.as_of = '2020-01-01';
SELECT * FROM prometheus.consumer;
\echo :SQLSTATE
RESET prometheus.as_of;
SET prometheus.caused_by = 'x';
\echo :SQLSTATE
SELECT prometheus_drop_consumer('c');

-- Settings.
SET prometheus.no_such_setting = 1;
\echo :SQLSTATE
ALTER SYSTEM SET prometheus.databases = 'a,,b';
\echo :SQLSTATE
ALTER SYSTEM SET prometheus.databases = '"a';
\echo :SQLSTATE
ALTER SYSTEM SET prometheus.secrets_dir = 'secrets';
\echo :SQLSTATE
ALTER SYSTEM SET prometheus.ring_size = 1000;
\echo :SQLSTATE
-- These texts are PostgreSQL's and not the same in each of its versions.
\set VERBOSITY sqlstate
SET prometheus.max_request = '300MB';
SET prometheus.max_request = 'big';
SET prometheus.databases = 'postgres';
SET prometheus.ring_size = 128;
ALTER SYSTEM SET prometheus.max_databases = 0;
ALTER SYSTEM SET prometheus.rescan_interval = '10ms';
ALTER SYSTEM SET prometheus.allow_private_endpoints = 'perhaps';
SET ROLE prom_test_user;
SET prometheus.max_request = '1MB';
RESET ROLE;

DROP ROLE prom_test_user;
