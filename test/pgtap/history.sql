-- What each mark saw: by the setting, and by the functions.  The marks and the
-- transactions are made by hand: 100 to 105, a mark after each.
BEGIN;
SELECT plan(113);

CREATE TEMP TABLE relation (name text PRIMARY KEY);
INSERT INTO relation SELECT unnest('{task,attempt,call,step,event,agent,model,tool,policy,budget,verdict,approval,memory,state,span,usage,calibration,skill,evolution}'::text[]);
GRANT SELECT ON relation TO PUBLIC;

-- Every view of facts has both; those of what is now, and of marks, have none.

SELECT set_eq($$SELECT c.relname::text FROM pg_class c
                 WHERE c.relnamespace = 'prometheus'::regnamespace AND c.relkind = 'v' AND c.relname !~ '^_|_history$'
                   AND NOT EXISTS (SELECT FROM relation WHERE name = c.relname)$$,
              ARRAY['mark', 'queue', 'gate', 'alert', 'worker', 'consumer', 'export', 'subscription', 'delivery', 'dead_letter', 'memory_version', 'memory_evidence', 'memory_embedding', 'embedding_call'], 'only these have no history');
SELECT results_eq(
    format($$SELECT attname::text, atttypid::regtype::text FROM pg_attribute
              WHERE attrelid = 'prometheus.%I'::regclass AND attnum > 2 ORDER BY attnum$$, name || '_history'),
    format($$SELECT attname::text, atttypid::regtype::text FROM pg_attribute
              WHERE attrelid = 'prometheus.%I'::regclass AND attnum > 0 ORDER BY attnum$$, name),
    format('the history of %s has its columns', name)) FROM relation;
SELECT is_empty($$SELECT relname FROM pg_class
                   WHERE relnamespace = 'prometheus'::regnamespace AND relname ~ '_history$'
                     AND pg_get_viewdef(oid) ~ '_seen\(|_last_mark\(|_moment\(|_charge|_every_span '$$, 'no history asks the setting');
SELECT is_empty($$SELECT relname FROM pg_class
                   WHERE relnamespace = 'prometheus'::regnamespace AND relkind = 'v'
                     AND relname IN (SELECT CASE name WHEN 'span' THEN '_every_span' ELSE name END FROM relation)
                     AND pg_get_viewdef(oid) !~ '_seen\('$$, 'every view asks it');

-- Facts of six transactions.

INSERT INTO prometheus._mark (mark_id, xid, at, snapshot)
SELECT n, prometheus._xid(), '2020-01-01 00:00+00'::timestamptz + (n - 1) * interval '1 day', format('%s:%s:', 99 + n, 99 + n)::pg_snapshot
  FROM generate_series(1, 8) AS n;
SELECT prometheus_set_model('priced', 'echo', options => '{"price_in": 1}') \gset
SELECT prometheus_set_agent('mine', 'priced') \gset
SET LOCAL client_min_messages = error;
SELECT prometheus_submit('what', 'mine') AS task \gset
SELECT prometheus_set_budget('all', 'day', 1000), prometheus_remember('mine', 'first', embedding => '{1,0}'), prometheus_save_state('mine', '1'),
       prometheus_set_policy('mine', 'task', 'warn', match => '{"agent": "mine"}') \gset
UPDATE prometheus._task SET xid = '100' WHERE task_id = :task;
UPDATE prometheus._agent SET xid = '100', mark = 0 WHERE name = 'mine';
UPDATE prometheus._model SET xid = '100', mark = 0 WHERE name = 'priced';
UPDATE prometheus._budget SET xid = '100', mark = 0;
UPDATE prometheus._policy SET xid = '100', mark = 0 WHERE name = 'mine';
UPDATE prometheus._memory SET xid = '100', mark = 0, created_at = '2020-01-01';
UPDATE prometheus._state SET xid = '100', mark = 0;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version, policy_version, review_ms)
VALUES (:task, 1, '101', '2020-01-02', 1, 'priced', 1, 1, 1);
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target, reserved, reserved_tokens)
VALUES (nextval('prometheus._fact_id'), :task, 1, 1, 1, '101', '2020-01-03 00:00+00', 'chat', 'model:priced', 1, 100);
SELECT prometheus_set_agent('mine', instructions => 'second') \gset
SELECT prometheus_save_state('mine', '2') \gset
UPDATE prometheus._agent SET xid = '102', mark = 2 WHERE name = 'mine' AND version = 2;
UPDATE prometheus._state SET xid = '102', mark = 2 WHERE version = 2;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, call_id, xid, started_at, ended_at, ambiguous, kind, name, status,
                              model, tokens_in, tokens_out, cost, answer)
SELECT :task, 1, 1, nextval('prometheus._fact_id'), call_id, '102', '2020-01-03', '2020-01-03', false, 'chat', 'priced', 'ok', 'priced',
       10, 20, 0.5, 'that'
  FROM prometheus._call WHERE task_id = :task;
INSERT INTO prometheus._approval (approval_id, task_id, attempt, step, xid, requested_at, expires_at, tool, policy, approvers,
                                  target_hash, arguments)
VALUES (-1, :task, 1, 2, '102', '2020-01-03', '2020-01-06', 'note', 'mine', 'prometheus_agent_admin', 'hash', '{}');
INSERT INTO prometheus._verdict (task_id, attempt, step, event_id, xid, judged_at, latency_ms, approved, policy_version, stage, effect,
                                 risk_level, governor, target_hash)
VALUES (:task, 1, 2, nextval('prometheus._fact_id'), '102', '2020-01-03', 1, false, 1, 'tool', 'escalate', 'HIGH', 'policy', 'hash');
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
VALUES (:task, 1, nextval('prometheus._fact_id'), '103', '2020-01-04', 1, 1, 'completed');
SELECT prometheus_forget(memory_id) FROM prometheus.memory \gset
UPDATE prometheus._memory SET xid = '104', mark = 4 WHERE version = 2;
INSERT INTO prometheus._decision (approval_id, event_id, xid, decided_at, decision, decided_by)
VALUES (-1, nextval('prometheus._fact_id'), '105', '2020-01-06', 'rejected', 'somebody');

-- What is asked of a view, at noon after each mark.

CREATE TEMP TABLE asked (what text, sql text, answers text[]);
INSERT INTO asked VALUES
    ('the task', 'SELECT status FROM prometheus.task', '{NULL,queued,running,running,completed,completed,completed}'),
    ('its start', 'SELECT started_at::date FROM prometheus.task', '{NULL,NULL,2020-01-02,2020-01-02,2020-01-02,2020-01-02,2020-01-02}'),
    ('its tokens', 'SELECT tokens_in FROM prometheus.task', '{NULL,NULL,NULL,10,10,10,10}'),
    ('its attempt', 'SELECT coalesce(outcome, ''open'') FROM prometheus.attempt', '{NULL,NULL,open,open,completed,completed,completed}'),
    ('its call', 'SELECT status FROM prometheus.call', '{NULL,NULL,open,done,done,done,done}'),
    ('its step', 'SELECT output ->> ''content'' FROM prometheus.step', '{NULL,NULL,NULL,that,that,that,that}'),
    ('its events', 'SELECT string_agg(type, '' '' ORDER BY event_id) FROM prometheus.event',
     '{NULL,task.received,task.received,approval.requested task.received step.executed,approval.requested task.received step.executed task.completed,approval.requested task.received step.executed task.completed,approval.requested task.received step.executed task.completed approval.decided}'),
    ('its spans', 'SELECT string_agg(kind || '' '' || status, '', '' ORDER BY kind, status) FROM prometheus.span WHERE name !~ ''POST''',
     '{NULL,"internal unset","internal ok, internal unset","client ok, internal ok, internal unset, internal unset","client ok, internal ok, internal ok, internal unset","client ok, internal ok, internal ok, internal unset","client ok, internal ok, internal ok, internal unset"}'),
    ('its verdicts', 'SELECT string_agg(stage, '' '' ORDER BY stage) FROM prometheus.verdict', '{NULL,NULL,task,task tool,task tool,task tool,task tool}'),
    ('what it used', 'SELECT calls FROM prometheus.usage', '{NULL,NULL,NULL,1,1,1,1}'),
    ('the agent', 'SELECT version FROM prometheus.agent WHERE name = ''mine''', '{NULL,1,1,2,2,2,2}'),
    ('the model', 'SELECT version FROM prometheus.model WHERE name = ''priced''', '{NULL,1,1,1,1,1,1}'),
    ('the policy', 'SELECT version FROM prometheus.policy WHERE name = ''mine''', '{NULL,1,1,1,1,1,1}'),
    ('the memory', 'SELECT content FROM prometheus.memory', '{NULL,first,first,first,first,NULL,NULL}'),
    ('the state', 'SELECT value FROM prometheus.state', '{NULL,1,1,2,2,2,2}'),
    -- what expires at the moment of a mark has
    ('the approval', 'SELECT coalesce(decision, ''open'') FROM prometheus.approval', '{NULL,NULL,NULL,open,ended,expired,rejected}'),
    -- the call was sent on the day of the third mark
    ('the budget', 'SELECT reserved_tokens || '' '' || spent_tokens FROM prometheus.budget', '{NULL,0 0,100 0,0 0,0 0,0 0,0 0}');

CREATE FUNCTION pg_temp.as_of(sql text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE answers text[]; answer text;
BEGIN
    FOR day IN 1 .. 7 LOOP
        PERFORM set_config('prometheus.as_of', format('2020-01-%s 12:00+00', day), true);
        EXECUTE sql INTO answer;
        answers := answers || answer;
    END LOOP;
    PERFORM set_config('prometheus.as_of', '', true);
    RETURN answers;
END$$;
SELECT is(pg_temp.as_of(sql), answers, 'by the setting: ' || what) FROM asked;

-- The functions say the same, of all columns and at every mark.

CREATE FUNCTION pg_temp.differs(relation text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE moment timestamptz; mine text; theirs text; different text; compared int := 0;
BEGIN
    FOR day IN 1 .. 7 LOOP
        moment := format('2020-01-%s 12:00+00', day);
        PERFORM set_config('prometheus.as_of', '', true);
        EXECUTE format('SELECT string_agg(x::text, chr(10) ORDER BY x::text) FROM prometheus.%I($1) x', relation || '_at') INTO mine USING moment;
        PERFORM set_config('prometheus.as_of', moment::text, true);
        EXECUTE format('SELECT string_agg(x::text, chr(10) ORDER BY x::text) FROM prometheus.%I x', relation) INTO theirs;
        IF mine IS DISTINCT FROM theirs THEN
            different := format('%s: %s, not %s', moment, mine, theirs);
        END IF;
        compared := compared + (mine IS NOT NULL)::int;
    END LOOP;
    PERFORM set_config('prometheus.as_of', '', true);
    RETURN coalesce(different, compared || ' were there');
END$$;
SELECT is(pg_temp.differs(name),
          CASE WHEN name IN ('agent', 'model', 'tool', 'policy') THEN 7 -- those of the install script always
               WHEN name IN ('attempt', 'call', 'verdict') THEN 5 WHEN name IN ('step', 'approval', 'usage') THEN 4
               WHEN name = 'memory' THEN 4 WHEN name IN ('calibration', 'skill', 'evolution') THEN 0 -- see their own
               ELSE 6 END || ' were there', name || '_at says what the setting does')
  FROM relation;
SELECT results_eq(format('SELECT mark_id, status FROM prometheus.task_history WHERE task_id = %s ORDER BY 1', :task),
                  $$VALUES (2::bigint, 'queued'), (3, 'running'), (4, 'running'), (5, 'completed'), (6, 'completed'), (7, 'completed'), (8, 'completed')$$,
                  'the history of a task');
SELECT results_eq(
    format($$SELECT now.status, past.status FROM prometheus.task now JOIN prometheus.task_at('2020-01-03 12:00+00') past USING (task_id) WHERE task_id = %s$$, :task),
    $$VALUES ('completed', 'running')$$, 'now and then in one query');
SELECT is((SELECT count(*) FROM prometheus.task_at(NULL)), 0::bigint, 'at no moment there is nothing');
SELECT throws_like($$SELECT * FROM prometheus.task_at('2019-01-01')$$, 'nothing is known of %', 'nor before the first, which is an error');
SELECT throws_like($$SELECT * FROM prometheus.task_at(now() + interval '1 day')$$, '% is in the future', 'nor in the future');

-- Who may see what is the same as now.

CREATE ROLE prom_test_reader;
GRANT prometheus_agent_user TO prom_test_reader;
SET LOCAL ROLE prom_test_reader;
SELECT lives_ok(format('SELECT * FROM prometheus.%I(''2020-01-05 12:00+00'')', name || '_at'), 'a user may call ' || name || '_at')
  FROM relation;
SELECT is((SELECT count(*) FROM prometheus.task_at('2020-01-05 12:00+00')), 0::bigint, 'he sees no task of others');
SELECT is((SELECT count(*) FROM prometheus.task_history), 0::bigint, 'at no mark');
SELECT is((SELECT count(*) FROM prometheus.agent_at('2020-01-05 12:00+00') WHERE name = 'mine'), 1::bigint, 'and agents');
RESET ROLE;

-- Plans: the functions are inlined, and what is asked for is found by indexes.

CREATE FUNCTION pg_temp.plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text; lines text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP lines := lines || line || chr(10); END LOOP;
    RETURN lines;
END$$;
-- Other names, and many versions of one.
INSERT INTO prometheus._agent (version, xid, mark, set_at, owner_oid, owner, name, model, mode, options)
SELECT n, '100', n / 100, now(), current_user::regrole, current_user, 'often', 'echo', 'fast', '{}' FROM generate_series(1, 20000) AS n;
ANALYZE prometheus._agent;
SELECT matches(pg_temp.plan_of($$SELECT * FROM prometheus.agent_at('2020-01-03 12:00+00') WHERE name = 'often'$$),
               'Index Scan using _agent_mark', 'an agent then: by the index of marks');
SELECT doesnt_match(pg_temp.plan_of($$SELECT * FROM prometheus.agent_at('2020-01-03 12:00+00') WHERE name = 'often'$$),
                    'Seq Scan|Sort|agent_at', 'and nothing else');
SELECT matches(pg_temp.plan_of($$SELECT * FROM prometheus.agent WHERE name = 'often'$$), 'Index Scan using _agent_mark', 'an agent now');
SELECT doesnt_match(pg_temp.plan_of($$SELECT * FROM prometheus.agent WHERE name = 'often'$$), 'Seq Scan|Sort', 'and nothing else');
SELECT matches(pg_temp.plan_of(format($$SELECT * FROM prometheus.task_at('2020-01-03 12:00+00') WHERE task_id = %s$$, :task)),
               'Index Scan using _task_pkey', 'a task then: by its id');
SELECT doesnt_match(pg_temp.plan_of(format($$SELECT * FROM prometheus.task_at('2020-01-03 12:00+00') WHERE task_id = %s$$, :task)),
                    'Function Scan on task_at', 'the function is inlined');

-- What is now, and what writes.

SET LOCAL prometheus.as_of = '2020-01-03 12:00+00';
SELECT throws_ok('SELECT * FROM prometheus.' || v, '55000', NULL, v || ' is about what is now')
  FROM unnest(ARRAY['queue', 'gate', 'worker']) AS v;
SELECT throws_ok(format('SELECT prometheus_%s(%s)', f, :task), '55000', NULL, f || ' is about what is now')
  FROM unnest(ARRAY['wait', 'why']) AS f;
SELECT throws_ok(s, '25006', NULL, s || ' writes')
  FROM unnest(ARRAY[format('SELECT prometheus_cancel(%s)', :task), format('SELECT prometheus_retry(%s)', :task), 'SELECT prometheus_forget(1)', 'SELECT prometheus_restore_memory(1)', $$SELECT prometheus_supersede_memory(1, 'x')$$, $$SELECT prometheus_share_skill('x', 'y')$$,
                    'SELECT prometheus_approve(-1)', $$SELECT prometheus_pause()$$, $$SELECT prometheus_resume()$$,
                    $$SELECT prometheus_set_model('priced')$$, $$SELECT prometheus_set_policy('mine')$$,
                    $$SELECT prometheus_set_budget('all', 'day')$$]) AS s;
SELECT is(prometheus_result(:task), NULL, 'the result is that of then');
SELECT is((SELECT content FROM prometheus_recall('mine', 'first')), 'first', 'so are memories');
SELECT is((SELECT content FROM prometheus_recall('mine', '', embedding => '{1,1}')), 'first', 'also by their vectors');
SELECT throws_ok(format('SELECT prometheus_prompt(%s, 1)', :task), '42704', NULL, 'and steps');
SET LOCAL prometheus.as_of = '';
SELECT is(prometheus_result(:task), 'that', 'and without the setting, of now');

SELECT * FROM finish();
ROLLBACK;
