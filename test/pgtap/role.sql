-- The two roles, and what each of them may do.
BEGIN;
SELECT plan(93);

SET LOCAL client_min_messages = error;

SELECT has_role(r) FROM unnest(ARRAY['prometheus_agent_user', 'prometheus_agent_admin']) AS r;
SELECT is_member_of('prometheus_agent_user', ARRAY['prometheus_agent_admin'], 'an administrator is a user');
SELECT ok(NOT pg_has_role('prometheus_agent_user', 'prometheus_agent_admin', 'MEMBER'), 'a user is no administrator');
SELECT ok(NOT (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls),
          rolname || ' can do nothing else')
  FROM pg_roles WHERE rolname ~ '^prometheus_agent_';
SELECT ok(shobj_description(oid, 'pg_authid') ~ '^Role of the extension prometheus: .*\.$', rolname || ' says whose it is')
  FROM pg_roles WHERE rolname ~ '^prometheus_agent_';

-- Exactly this may each of them do.

CREATE TEMP VIEW may AS
    SELECT DISTINCT grantee::regrole::text AS role, privilege_type || ' ' || what AS may
      FROM (SELECT p.oid::regprocedure::text, a.* FROM pg_proc p, aclexplode(p.proacl) a
             WHERE p.oid IN (SELECT objid FROM pg_depend WHERE classid = 'pg_proc'::regclass AND deptype = 'e'
                                AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'prometheus'))
               AND a.grantee <> p.proowner
             UNION ALL
            SELECT c.oid::regclass::text, a.* FROM pg_class c, aclexplode(c.relacl) a
             WHERE c.relnamespace = 'prometheus'::regnamespace AND a.grantee <> c.relowner
             UNION ALL
            SELECT nspname, a.* FROM pg_namespace n, aclexplode(nspacl) a
             WHERE nspname = 'prometheus' AND a.grantee <> n.nspowner) AS v(what);

SELECT set_eq($$SELECT may FROM may WHERE role = 'prometheus_agent_user'$$, ARRAY[
    'USAGE prometheus',
    'SELECT prometheus.task', 'SELECT prometheus.queue', 'SELECT prometheus.attempt', 'SELECT prometheus.call',
    'SELECT prometheus.step', 'SELECT prometheus.event', 'SELECT prometheus.agent', 'SELECT prometheus.model',
    'SELECT prometheus.tool', 'SELECT prometheus.worker', 'SELECT prometheus.gate', 'SELECT prometheus.alert', 'EXECUTE prometheus._alerts()',
    'SELECT prometheus.subscription', 'SELECT prometheus.delivery', 'SELECT prometheus.dead_letter',
    'EXECUTE prometheus_subscribe(text,regprocedure,text,text[],text,jsonpath,boolean,interval,integer,integer)',
    'EXECUTE prometheus_unsubscribe(text)', 'EXECUTE prometheus_redrive(text,text)', 'EXECUTE prometheus_discard(text,text)',
    'SELECT prometheus.span', 'SELECT prometheus.usage', 'SELECT prometheus.calibration',
    'SELECT prometheus.mark', 'EXECUTE prometheus._seen(xid8)', 'EXECUTE prometheus._seen_at(xid8,timestamp with time zone)',
    'EXECUTE prometheus._seen_in(xid8,bigint)', 'EXECUTE prometheus._last_mark()', 'EXECUTE prometheus._moment()',
    'EXECUTE prometheus._mark_at(timestamp with time zone)', 'EXECUTE prometheus._hidden_marks()',
    'SELECT prometheus.task_history', 'EXECUTE prometheus.task_at(timestamp with time zone)',
    'SELECT prometheus.attempt_history', 'EXECUTE prometheus.attempt_at(timestamp with time zone)',
    'SELECT prometheus.call_history', 'EXECUTE prometheus.call_at(timestamp with time zone)',
    'SELECT prometheus.step_history', 'EXECUTE prometheus.step_at(timestamp with time zone)',
    'SELECT prometheus.event_history', 'EXECUTE prometheus.event_at(timestamp with time zone)',
    'SELECT prometheus.agent_history', 'EXECUTE prometheus.agent_at(timestamp with time zone)',
    'SELECT prometheus.model_history', 'EXECUTE prometheus.model_at(timestamp with time zone)',
    'SELECT prometheus.tool_history', 'EXECUTE prometheus.tool_at(timestamp with time zone)',
    'SELECT prometheus.policy_history', 'EXECUTE prometheus.policy_at(timestamp with time zone)',
    'SELECT prometheus.budget_history', 'EXECUTE prometheus.budget_at(timestamp with time zone)',
    'SELECT prometheus.verdict_history', 'EXECUTE prometheus.verdict_at(timestamp with time zone)',
    'SELECT prometheus.approval_history', 'EXECUTE prometheus.approval_at(timestamp with time zone)',
    'SELECT prometheus.memory_history', 'EXECUTE prometheus.memory_at(timestamp with time zone)',
    'SELECT prometheus.skill_history', 'EXECUTE prometheus.skill_at(timestamp with time zone)',
    'SELECT prometheus.evolution_history', 'EXECUTE prometheus.evolution_at(timestamp with time zone)',
    'SELECT prometheus.state_history', 'EXECUTE prometheus.state_at(timestamp with time zone)',
    'SELECT prometheus.span_history', 'EXECUTE prometheus.span_at(timestamp with time zone)',
    'SELECT prometheus.usage_history', 'EXECUTE prometheus.usage_at(timestamp with time zone)',
    'SELECT prometheus.calibration_history', 'EXECUTE prometheus.calibration_at(timestamp with time zone)',
    'SELECT prometheus.consumer', 'EXECUTE prometheus._consumers()', 'SELECT prometheus.export', 'EXECUTE prometheus._export()',
    'EXECUTE prometheus_create_consumer(text,text[],timestamp with time zone)', 'EXECUTE prometheus_poll(text,integer)',
    'EXECUTE prometheus_ack(text,bigint)', 'EXECUTE prometheus_replay(text,timestamp with time zone)',
    'EXECUTE prometheus_drop_consumer(text)',
    'EXECUTE prometheus_emit(text,jsonb,text)', 'EXECUTE prometheus_event_json(prometheus.event)', 'EXECUTE prometheus._uri(text)',
    'EXECUTE prometheus_mark(text)', 'EXECUTE prometheus_drop_mark(text)',
    'SELECT prometheus.policy', 'SELECT prometheus.budget', 'SELECT prometheus.verdict', 'SELECT prometheus.approval', 'SELECT prometheus.memory', 'SELECT prometheus.memory_version', 'SELECT prometheus.memory_evidence', 'SELECT prometheus.memory_embedding', 'SELECT prometheus.skill', 'SELECT prometheus.evolution', 'SELECT prometheus.state',
    'EXECUTE prometheus._hash(text,text,text)', 'EXECUTE prometheus._may_approve(text,oid)',
    'EXECUTE prometheus_approve(bigint,text)', 'EXECUTE prometheus_reject(bigint,text)',
    'EXECUTE prometheus._review_id(bigint,integer,integer,text,text,text)', 'EXECUTE prometheus._redact(text)',
    'EXECUTE prometheus._captured(text)', 'EXECUTE prometheus._captured_bytes(text)', 'EXECUTE prometheus._captured_message(text,text)',
    'EXECUTE prometheus._timeline(bigint,timestamp with time zone,boolean)',
    'EXECUTE prometheus_report(bigint)', 'EXECUTE prometheus._html(text)', 'EXECUTE prometheus._report_style()', 'EXECUTE prometheus._report_class(text)',
    'EXECUTE prometheus._report_tile(text,text)', 'EXECUTE prometheus._report_said(text,text,text,text)', 'EXECUTE prometheus._report_section(text,text)',
    'EXECUTE prometheus._report_table(text[],integer,text)', 'EXECUTE prometheus._report_cells(text[],integer)',
    'EXECUTE prometheus._report_bar(numeric,numeric)', 'EXECUTE prometheus._report_talk(bigint,text,integer)',
    'EXECUTE prometheus._report_timeline(bigint,timestamp with time zone,timestamp with time zone,timestamp with time zone)',
    'EXECUTE prometheus._report_verdicts(bigint)', 'EXECUTE prometheus._report_usage(bigint)', 'EXECUTE prometheus._report_tools(bigint)',
    'EXECUTE prometheus._report_approvals(bigint)',
    'EXECUTE prometheus_span_start(text,jsonb,text)', 'EXECUTE prometheus_span_end(text,text)', 'EXECUTE prometheus_traceparent()', 'EXECUTE prometheus_sampling(bigint)', 'EXECUTE prometheus_stats()',
    'EXECUTE prometheus._span_counts()',
    'EXECUTE prometheus._bar(numeric,numeric,integer,boolean,boolean)', 'EXECUTE prometheus._columns(text)',
    'EXECUTE prometheus._cost(numeric)', 'EXECUTE prometheus._count(numeric)', 'EXECUTE prometheus._duration(numeric)',
    'EXECUTE prometheus._fold(text,integer,integer)', 'EXECUTE prometheus_trace(bigint)',
    'EXECUTE prometheus._may_see(text,oid)', 'EXECUTE prometheus._span_attributes(jsonb,text,text,text)', 'EXECUTE prometheus._json(text)', 'EXECUTE prometheus._calls(text)',
    'EXECUTE prometheus._milliseconds(timestamp with time zone,timestamp with time zone)',
    'EXECUTE prometheus._queue()', 'EXECUTE prometheus._worker()', 'EXECUTE prometheus._gates()',
    'EXECUTE prometheus_submit(text,text,text,integer,timestamp with time zone,text,bigint[],text,text,jsonb,interval,integer,text,jsonb)',
    'EXECUTE prometheus_submit_many(text[],text,text,integer,timestamp with time zone,text[],bigint[],text,text,jsonb,interval,integer,text,jsonb)',
    'EXECUTE prometheus_retry(bigint)', 'EXECUTE prometheus_why(bigint)',
    'EXECUTE prometheus_progress(bigint)',
    'EXECUTE prometheus_remember(text,text,text,real,jsonb,real[],interval)',
    'EXECUTE prometheus_recall(text,text,text[],integer,real[])', 'EXECUTE prometheus_forget(bigint)', 'EXECUTE prometheus_restore_memory(bigint)', 'EXECUTE prometheus_supersede_memory(bigint,text)', 'EXECUTE prometheus_share_skill(text,text)', 'EXECUTE prometheus_evolve(text,integer,text,jsonb)', 'EXECUTE prometheus_evolution_report(text)',
    'EXECUTE prometheus_save_state(text,jsonb,text,bigint)',
    'EXECUTE prometheus_state(text,text,timestamp with time zone,bigint)',
    'EXECUTE prometheus_state_history(text,text,integer)',
    'EXECUTE prometheus_restore_state(text,text,bigint,timestamp with time zone)',
    'EXECUTE prometheus_diff_state(text,bigint,bigint,text)',
    'EXECUTE prometheus._state_value(text,oid,text,text,bigint)',
    'EXECUTE prometheus_wait(bigint,interval)', 'EXECUTE prometheus_result(bigint)',
    'EXECUTE prometheus_prompt(bigint,integer)',
    'EXECUTE prometheus_cancel(bigint,text)', 'EXECUTE prometheus_ask(text,text,interval,text)',
    'EXECUTE prometheus_track(regclass,boolean)', 'EXECUTE prometheus_undo(bigint,boolean)',
    'EXECUTE prometheus_rows_at(anyelement,timestamp with time zone)',
    'EXECUTE prometheus_rows_at(anyelement,timestamp with time zone,jsonb)',
    'EXECUTE prometheus_version()', 'EXECUTE prometheus_health()'], 'what a user may');
SELECT set_eq($$SELECT may FROM may WHERE role = 'prometheus_agent_admin'
                EXCEPT SELECT may FROM may WHERE role = 'prometheus_agent_user'$$, ARRAY[
    'EXECUTE prometheus_set_model(text,text,text,text,text,regprocedure,jsonb)',
    'EXECUTE prometheus_set_agent(text,text,text,text,text[],text,jsonb)',
    'EXECUTE prometheus_set_tool(regprocedure,text,text,text,boolean)',
    'EXECUTE prometheus_set_http_tool(text,text,text,jsonb,text,text,text,boolean)',
    'EXECUTE prometheus_create_tool(text,jsonb,text,jsonb)', 'EXECUTE prometheus_restore_tool(text,bigint)',
    'EXECUTE prometheus_set_policy(text,text,text,regprocedure,jsonb,text,text,text,text,text)',
    'EXECUTE prometheus_set_budget(text,text,bigint,numeric)', 'EXECUTE prometheus_set_alert(text,text)',
    'EXECUTE prometheus_pause(text)', 'EXECUTE prometheus_resume(text)', 'EXECUTE prometheus_storage()',
    'EXECUTE prometheus_memory_index(text,text,integer,name)', 'SELECT prometheus.embedding_call',
    'EXECUTE prometheus_metrics(text)'], 'what an administrator may besides');
SELECT is_empty($$SELECT may FROM may WHERE role = 'prometheus_agent_user'
                  EXCEPT SELECT may FROM may WHERE role = 'prometheus_agent_admin'$$, 'an administrator may all of the first');
SELECT set_eq($$SELECT role, may FROM may WHERE role NOT IN ('prometheus_agent_user', 'prometheus_agent_admin')$$,
              $$VALUES ('pg_monitor', 'EXECUTE prometheus_metrics(text)')$$, 'nobody else has a grant');

-- And it is so.

CREATE ROLE prom_test_nobody;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_user TO prom_test_user;
GRANT prometheus_agent_admin TO prom_test_admin;

SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok('SELECT * FROM prometheus.' || v, '42501', NULL, 'nobody reads ' || v)
  FROM unnest(ARRAY['task', 'queue', 'attempt', 'call', 'step', 'event', 'agent', 'model', 'tool', 'policy', 'budget',
                    'verdict', 'approval', 'state', 'worker']) AS v;
SELECT throws_ok(s, '42501', NULL, 'nobody: ' || s)
  FROM unnest(ARRAY[$$SELECT prometheus_submit('x')$$, $$SELECT prometheus_wait(1)$$, $$SELECT prometheus_result(1)$$,
                    $$SELECT prometheus_cancel(1)$$, $$SELECT prometheus_approve(1)$$, $$SELECT prometheus_reject(1)$$, $$CALL prometheus_ask('x')$$, $$SELECT prometheus_version()$$,
                    $$SELECT * FROM prometheus_health()$$, $$SELECT prometheus._may_see('x', 1)$$,
                    $$SELECT prometheus._installed()$$, $$SELECT prometheus_track('pg_class')$$,
                    $$SELECT prometheus_undo(1)$$]) AS s;

SET LOCAL ROLE prom_test_user;
SELECT lives_ok('SELECT * FROM prometheus.' || v, 'a user reads ' || v)
  FROM unnest(ARRAY['task', 'queue', 'attempt', 'call', 'step', 'event', 'agent', 'model', 'tool', 'policy', 'budget',
                    'verdict', 'approval', 'state', 'worker']) AS v;
SELECT lives_ok($$SELECT prometheus_submit('x')$$, 'and submits');
SELECT throws_ok($$SELECT prometheus._installed()$$, '42501', NULL, 'but does not say that the extension is there');

SET LOCAL ROLE prom_test_admin;
SELECT throws_ok('SELECT * FROM prometheus.' || v, '42501', NULL, 'not even an administrator reads ' || v)
  FROM unnest(ARRAY['_task', '_attempt', '_call', '_step', '_outcome', '_cancel', '_strike', '_model', '_tool', '_agent',
                    '_policy', '_budget', '_charge', '_state', '_state_failure', '_verdict', '_approval', '_decision', '_checkpoint', '_era',
                    '_visible_task', '_task_id', '_fact_id', '_mark', '_mark_name', '_every_mark',
                    '_track', '_row_version', '_row_version_id', '_threshold', '_alert', '_memory', '_memory_entry', '_memory_entry_id', '_memory_use', '_evidence']) AS v;
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
