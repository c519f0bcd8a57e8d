-- What prometheus_submit() writes and refuses, and what prometheus_wait(),
-- _result() and _cancel() say of a task.
BEGIN;
SELECT plan(108);

-- No worker serves this database, and a submit says so once.
SET LOCAL client_min_messages = error;

CREATE TEMP TABLE made (name text, task_id bigint);
GRANT ALL ON made TO PUBLIC;
CREATE TEMP VIEW row AS
    SELECT m.name, t.* FROM made m JOIN prometheus._task t USING (task_id);

-- Defaults.

SELECT function_returns('prometheus_submit', 'bigint');
SELECT is(array(SELECT a FROM pg_proc p, unnest(p.proargnames) a
                 WHERE p.proname = 'prometheus_submit'
                   AND obj_description(p.oid, 'pg_proc') !~ ('\m' || a || '\M')),
          '{}', 'its comment says what each argument is for');
INSERT INTO made SELECT 'plain', prometheus_submit('hello');
SELECT is(t.agent || ' ' || t.mode || ' ' || t.status, 'default fast queued',
          'agent, mode and status of a plain submit')
  FROM prometheus.task t JOIN made USING (task_id);
SELECT is(request, 'hello', 'request is kept') FROM row;
SELECT is(priority, 0, 'priority is 0') FROM row;
SELECT is(max_attempts, 3, 'max_attempts is 3') FROM row;
SELECT is(run_at, NULL, 'run_at is null') FROM row;
SELECT is(deadline - submitted_at, interval '24 hours', 'the deadline is a day away') FROM row;
SELECT is(metadata, '{}', 'metadata is an empty object') FROM row;
SELECT is(submitter, current_user::text, 'submitter is the current user') FROM row;
SELECT is(submitter_oid, current_user::regrole::oid, 'with its oid') FROM row;
SELECT is(xid, prometheus._xid(), 'xid is the transaction') FROM row;
SELECT cmp_ok(task_id, '<', (2::numeric ^ 53)::bigint, 'the id is safe in JavaScript') FROM row;
SELECT cmp_ok(submitted_at, '>=', now(), 'submitted_at is the time of the call') FROM row;

-- Arguments.

INSERT INTO made SELECT 'nulls', prometheus_submit('x', priority => NULL, run_at => NULL,
    timeout => NULL, max_attempts => NULL, metadata => NULL, mode => NULL);
SELECT is(concat_ws(' ', priority, max_attempts, mode, metadata, deadline - submitted_at),
          '0 3 fast {} 1 day', 'a null is the default')
  FROM row WHERE name = 'nulls';

INSERT INTO made SELECT 'all', prometheus_submit('x', 'default', 'fast', -1000,
    '2100-01-01 00:00+00', 'a key', NULL, 'a', 'c', '{"type": "object"}', '2 hours', 100, NULL, '{"b": [1, null, {"c": "ü"}], "a": 0.10}');
SELECT is(concat_ws(' ', priority, max_attempts, run_at AT TIME ZONE 'UTC'),
          '-1000 100 2100-01-01 00:00:00', 'every argument by position')
  FROM row WHERE name = 'all';
SELECT is(deadline AT TIME ZONE 'UTC', '2100-01-01 02:00', 'timeout counts from a later run_at')
  FROM row WHERE name = 'all';
SELECT is(t.metadata, '{"b": [1, null, {"c": "ü"}], "a": 0.10}', 'metadata is kept')
  FROM prometheus.task t JOIN made m USING (task_id) WHERE m.name = 'all';

INSERT INTO made SELECT 'past', prometheus_submit('x', run_at => '2001-01-01', timeout => '1 hour');
SELECT is(deadline - submitted_at, interval '1 hour', 'timeout counts from now after an earlier run_at')
  FROM row WHERE name = 'past';

INSERT INTO made SELECT 'month', prometheus_submit('x', priority => 1000, max_attempts => 1,
    timeout => '1 month 1 day 1 second');
SELECT is(deadline - submitted_at, interval '31 days 1 second', 'a month is 30 days')
  FROM row WHERE name = 'month';
INSERT INTO made SELECT 'short', prometheus_submit('x', timeout => '1 microsecond');
SELECT is(deadline - submitted_at, interval '1 microsecond', 'the shortest timeout')
  FROM row WHERE name = 'short';

INSERT INTO made SELECT 'text', prometheus_submit(E'  \n\tä"''\\ {}$1%s 🜲 \n ');
SELECT is(request, E'  \n\tä"''\\ {}$1%s 🜲 \n ', 'request is kept unaltered')
  FROM row WHERE name = 'text';
INSERT INTO made SELECT 'blank', prometheus_submit(' ');
SELECT is(request, ' ', 'a blank is a request') FROM row WHERE name = 'blank';

SET LOCAL prometheus.max_request = '1kB';
INSERT INTO made SELECT 'full', prometheus_submit(repeat('x', 1024));
SELECT is(length(request), 1024, 'a request as long as the limit') FROM row WHERE name = 'full';
SELECT throws_ok($$SELECT prometheus_submit(repeat('x', 1025))$$, '54000', NULL, 'a request beyond the limit');
SELECT throws_ok($$SELECT prometheus_submit(repeat('ä', 513))$$, '54000', NULL, 'the limit is in bytes');
RESET prometheus.max_request;
INSERT INTO made SELECT 'long', prometheus_submit(repeat('0123456789abcdef', 65536));
SELECT is(md5(request), md5(repeat('0123456789abcdef', 65536)), 'a request of 1 MB') FROM row WHERE name = 'long';
SELECT throws_ok($$SELECT prometheus_submit(repeat('0123456789abcdef', 65536) || 'x')$$, '54000', NULL,
                 'a request of 1 MB and a byte');

SELECT throws_ok($$SELECT prometheus_submit(NULL)$$, '22004', NULL, 'request null');
SELECT throws_ok($$SELECT prometheus_submit('')$$, '22023', NULL, 'request empty');
SELECT throws_ok($$SELECT prometheus_submit('x', NULL)$$, '22004', NULL, 'agent null');
SELECT throws_ok($$SELECT prometheus_submit('x', 'nobody')$$, '42704', NULL, 'agent unknown');
SELECT throws_ok($$SELECT prometheus_submit('x', 'Default')$$, '42704', NULL, 'names of agents have case');
SELECT throws_ok($$SELECT prometheus_submit('x', mode => 'slow')$$, '22023', NULL, 'mode unknown');
SELECT isnt(prometheus_submit('x', mode => 'full'), NULL, 'mode full');
SELECT throws_ok($$SELECT prometheus_submit('x', priority => 1001)$$, '22023', NULL, 'priority too high');
SELECT throws_ok($$SELECT prometheus_submit('x', priority => -1001)$$, '22023', NULL, 'priority too low');
SELECT throws_ok(format($$SELECT prometheus_submit('x', max_attempts => %s)$$, n), '22023', NULL,
                 'max_attempts ' || n)
  FROM unnest(ARRAY[0, -1, 101, -2147483648]) AS n;
SELECT throws_ok(format($$SELECT prometheus_submit('x', timeout => %L)$$, t), '22023', NULL, 'timeout ' || t)
  FROM unnest(ARRAY['0', '-1 second', '1 day -25 hours']) AS t;
SELECT throws_ok($$SELECT prometheus_submit('x', timeout => '170000000 years')$$, '22008', NULL,
                 'a timeout beyond the last moment');
SELECT throws_ok($$SELECT prometheus_submit('x', run_at => '294276-12-31', timeout => '10 days')$$, '22008', NULL,
                 'a deadline beyond the last moment');
SELECT throws_ok(format($$SELECT prometheus_submit('x', run_at => %L)$$, t), '22023', NULL, 'run_at ' || t)
  FROM unnest(ARRAY['infinity', '-infinity']) AS t;
SELECT throws_ok(format($$SELECT prometheus_submit('x', metadata => %L)$$, j), '22023', NULL, 'metadata ' || j)
  FROM unnest(ARRAY['[]', '"text"', '1', 'null']) AS j;

-- Many, from anywhere.

SELECT is((SELECT count(DISTINCT prometheus_submit('many ' || n)) FROM generate_series(1, 1000) AS n),
          1000::bigint, 'a thousand in one statement');
SELECT is((SELECT count(*) FROM prometheus.task WHERE request LIKE 'many %' AND trace_id ~ '^[0-9a-f]{32}$'),
          1000::bigint, 'trace ids are 32 hexadecimal digits');
SELECT is((SELECT count(DISTINCT trace_id) FROM prometheus.task WHERE request LIKE 'many %'),
          1000::bigint, 'and differ');
SELECT is((SELECT count(DISTINCT event_id) FROM prometheus._task WHERE request LIKE 'many %'),
          1000::bigint, 'and so do ids of events');

DO $$BEGIN PERFORM prometheus_submit('from DO'); END$$;
SELECT is((SELECT count(*) FROM prometheus.task WHERE request = 'from DO'), 1::bigint, 'in a DO block');

CREATE TEMP TABLE document (body text);
CREATE FUNCTION pg_temp.submit_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM prometheus_submit(NEW.body);
    RETURN NEW;
END$$;
CREATE TRIGGER submit AFTER INSERT ON document FOR EACH ROW EXECUTE FUNCTION pg_temp.submit_it();
INSERT INTO document VALUES ('from a trigger'), ('from a trigger');
SELECT is((SELECT count(*) FROM prometheus.task WHERE request = 'from a trigger'), 2::bigint, 'in a trigger');

-- Transactions.

SAVEPOINT s;
INSERT INTO made SELECT 'undone', prometheus_submit('undone');
SELECT is((SELECT count(*) FROM prometheus.task WHERE request = 'undone'), 1::bigint,
          'a task is seen in its own transaction');
ROLLBACK TO s;
SELECT is((SELECT count(*) FROM prometheus._task WHERE request = 'undone'), 0::bigint,
          'ROLLBACK TO SAVEPOINT takes it back');
SAVEPOINT s;
SELECT prometheus_submit('kept') AS kept \gset
RELEASE s;
SELECT is(xid, prometheus._xid(), 'xid is that of the top transaction') FROM prometheus._task WHERE task_id = :kept;

-- result and wait

SELECT is(prometheus_result(task_id), NULL, 'result of a queued task') FROM made WHERE name = 'plain';
SELECT throws_ok(format('SELECT prometheus_wait(%s)', task_id), '55000', NULL, 'wait for an uncommitted task')
  FROM made WHERE name = 'plain';
SELECT throws_ok(format('SELECT prometheus_wait(%s, ''0'')', :kept), '55000', NULL,
                 'wait for one of a released savepoint');
SELECT throws_ok($$SELECT prometheus_wait(9007199254740991)$$, '42704', NULL, 'wait for an unknown task');
SELECT throws_ok($$SELECT prometheus_wait(NULL)$$, '22004', NULL, 'wait for null');
SELECT throws_ok($$SELECT prometheus_result(9007199254740991)$$, '42704', NULL, 'result of an unknown task');
SELECT is(prometheus_result(NULL), NULL, 'result of null');

-- Tasks as if another transaction had submitted and workers had ended them.
CREATE FUNCTION pg_temp.ended(name text, outcome text, error_type text, error text, answer text)
RETURNS bigint LANGUAGE sql AS $$
    WITH task AS (
        INSERT INTO prometheus._task
        SELECT nextval('prometheus._task_id'), nextval('prometheus._fact_id'), xid, submitted_at, run_at,
               deadline, priority, max_attempts, submitter_oid, submitter, agent, mode, trace_id, $1, metadata
          FROM row WHERE row.name = 'plain'
        RETURNING task_id
    ), step AS (
        INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at,
                                      ambiguous, kind, name, status, answer)
        SELECT task_id, 1, 1, nextval('prometheus._fact_id'), prometheus._xid(), now(), now(),
               false, 'chat', 'echo', 'ok', $5 FROM task
    ), outcome AS (
        INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step,
                                         outcome, error_type, error)
        SELECT task_id, 1, nextval('prometheus._fact_id'), prometheus._xid(), now(), 1, 1, $2, $3, $4
          FROM task WHERE $2 IS NOT NULL
    )
    SELECT task_id FROM task
$$;
INSERT INTO made SELECT name, pg_temp.ended(name, outcome, error_type, error, answer)
  FROM (VALUES ('open', NULL, NULL, NULL, NULL),
               ('retry', 'retry', 'ModelTimeout', 'no reply', NULL),
               ('completed', 'completed', NULL, NULL, E'an answer\n'),
               ('silent', 'completed', NULL, NULL, ''),
               ('failed', 'failed', 'ModelRejected', 'it said no', NULL),
               ('vetoed', 'vetoed', 'GovernanceVeto', 'not here', NULL),
               ('cancelled', 'cancelled', NULL, NULL, NULL),
               ('quarantined', 'quarantined', 'Crashed', 'it killed the server twice', NULL))
       AS v(name, outcome, error_type, error, answer);

SELECT is(prometheus_wait(task_id), CASE name WHEN 'silent' THEN 'completed' ELSE name END, 'wait: ' || name)
  FROM made WHERE name IN ('completed', 'silent', 'failed', 'vetoed', 'cancelled', 'quarantined');
SELECT is(prometheus_wait(task_id, NULL), 'completed', 'wait without a limit') FROM made WHERE name = 'completed';
SELECT is(prometheus_wait(task_id, '0'), CASE name WHEN 'open' THEN 'queued' ELSE 'retrying' END,
          'wait that ends before the task: ' || name)
  FROM made WHERE name IN ('open', 'retry');
SELECT throws_ok(format('SELECT prometheus_wait(%s, ''-1 s'')', task_id), '22023', NULL, 'wait: a negative timeout')
  FROM made WHERE name = 'open';
SELECT is(prometheus_result(task_id), CASE name WHEN 'completed' THEN E'an answer\n' WHEN 'silent' THEN '' END,
          'result: ' || name)
  FROM made WHERE name IN ('open', 'retry', 'completed', 'silent');
SELECT throws_ok(format('SELECT prometheus_result(%s)', m.task_id), v.state, v.message, 'result: ' || v.name)
  FROM made m
  JOIN (VALUES ('failed', 'PM001', 'it said no'), ('vetoed', 'PM002', 'not here'),
               ('cancelled', 'PM003', 'cancelled'), ('quarantined', 'PM004', 'it killed the server twice'))
       AS v(name, state, message) USING (name);

-- cancel

SELECT is(prometheus_cancel(task_id, 'no need'), true, 'cancel of an own uncommitted task')
  FROM made WHERE name = 'plain';
SELECT is(c.reason || ' ' || c.requested_by, 'no need ' || current_user, 'who asked, and why')
  FROM prometheus._cancel c JOIN made USING (task_id) WHERE made.name = 'plain';
SELECT is(xid, prometheus._xid(), 'in which transaction') FROM prometheus._cancel;
SELECT is(prometheus_cancel(task_id), true, 'cancel without a reason: ' || name)
  FROM made WHERE name IN ('open', 'retry');
SELECT is(status, 'queued', 'a request to cancel is not yet the end')
  FROM prometheus.task t JOIN made m USING (task_id) WHERE m.name = 'open';
SELECT is(prometheus_cancel(task_id), false, 'cancel after the end: ' || name)
  FROM made WHERE name IN ('completed', 'failed', 'cancelled');
SELECT is((SELECT count(*) FROM prometheus._cancel), 3::bigint, 'which writes nothing');
SELECT throws_ok($$SELECT prometheus_cancel(9007199254740991)$$, '42704', NULL, 'cancel of an unknown task');
SELECT is(prometheus_cancel(NULL), NULL, 'cancel of null');

-- ask, where it cannot commit

SELECT throws_ok($$CALL prometheus_ask('x')$$, '25000', NULL, 'ask in a transaction block');
SELECT throws_ok($$DO 'DECLARE a text; BEGIN CALL prometheus_ask(''x'', answer => a); END'$$, '25000', NULL, 'ask in a DO block');

-- output_schema

INSERT INTO made SELECT 'schema', prometheus_submit('x', output_schema => '{"type": "object", "properties": {"a": {"$ref": "#"}}}');
SELECT is(output_schema, '{"type": "object", "properties": {"a": {"$ref": "#"}}}', 'a schema is kept') FROM row WHERE name = 'schema';
SELECT is(output_schema, NULL, 'none is null') FROM row WHERE name = 'plain';
SELECT throws_ok($$SELECT prometheus_submit('x', output_schema => '{"properties": {"a": {"nullable": true}}}')$$, '22023',
                 'JSON schema has a keyword that is not supported at #/properties/a/nullable', 'a schema that cannot be obeyed');
SELECT throws_ok($$SELECT prometheus_submit('x', output_schema => 'null')$$, '22023', NULL, 'a schema that is none');
SELECT throws_ok($$SELECT prometheus_submit_many(ARRAY['x'], output_schema => '{"type": "strin"}')$$, '22023', NULL, 'many with such a schema');
SELECT throws_ok(format('SELECT prometheus_submit(%L, output_schema => %L)', 'x', jsonb_build_object('title', repeat('x', 1048577))),
                 '54000', NULL, 'a schema that is too long');

-- A transaction that must not write: the last, since it stays so.

SET TRANSACTION READ ONLY;
SELECT throws_ok($$SELECT prometheus_submit('x')$$, '25006', NULL, 'submit when read-only');
SELECT throws_ok($$SELECT prometheus_cancel(1)$$, '25006', NULL, 'cancel when read-only');

SELECT * FROM finish();
ROLLBACK;
