-- Who sees which rows: prometheus._may_see(), and every view by it.
BEGIN;
SELECT plan(67);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_owner;
CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_lead;
CREATE ROLE prom_test_apart NOINHERIT;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b, prom_test_owner, prom_test_lead;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prom_test_a, prom_test_b TO prom_test_lead;
GRANT prom_test_a TO prom_test_apart;
-- This one inherits nothing, so it needs the rights of a user itself.
GRANT USAGE ON SCHEMA prometheus TO prom_test_apart;
GRANT SELECT ON prometheus.task, prometheus.attempt, prometheus.call, prometheus.step, prometheus.event TO prom_test_apart;
GRANT EXECUTE ON FUNCTION prometheus._may_see(text, oid), prometheus._seen(xid8),
    prometheus_submit(text, text, text, integer, timestamptz, text, bigint[], text, text, jsonb, interval, integer, text, jsonb) TO prom_test_apart;
SELECT 'prom_test_a'::regrole::oid AS a, 'prom_test_b'::regrole::oid AS b \gset

-- The predicate.

SELECT is(concat_ws(' ', provolatile, proparallel, proleakproof, proisstrict), 's s t t',
          'stable, parallel safe, leakproof, strict')
  FROM pg_proc WHERE oid = 'prometheus._may_see(text, oid)'::regprocedure;
SELECT is(prometheus._may_see('prom_test_a', :a), true, 'a superuser sees all');
SELECT is(prometheus._may_see('no such role', 1), true, 'what nobody owns any more too');
SELECT is(prometheus._may_see(NULL, 1), NULL, 'null');

SET LOCAL ROLE prom_test_a;
SELECT is(prometheus._may_see('prom_test_a', :a), true, 'one''s own');
SELECT is(prometheus._may_see('prom_test_b', :b), false, 'another''s');
SELECT is(prometheus._may_see('prom_test_a', :b), false, 'the name of one and the oid of another');
SELECT is(prometheus._may_see('prom_test_b', :a), false, 'the oid of one and the name of another');
SELECT is(prometheus._may_see('prom_test_a', 0), false, 'no oid');
SELECT is(prometheus._may_see('', :a), false, 'no name');
SELECT is(prometheus._may_see(repeat('n', 1000), :a), false, 'a name longer than any role''s');
SELECT is(prometheus._may_see('PROM_TEST_A', :a), false, 'names have case');
SET LOCAL ROLE prom_test_lead;
SELECT is(prometheus._may_see('prom_test_a', :a) AND prometheus._may_see('prom_test_b', :b), true, 'who has the role');
SET LOCAL ROLE prom_test_apart;
SELECT is(prometheus._may_see('prom_test_a', :a), false, 'who could have it, but does not inherit');
SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus._may_see('prom_test_a', :a), true, 'an administrator');
SELECT is(prometheus._may_see('no such role', 1), true, 'an administrator, whoever it was');
RESET ROLE;

-- The views.  Everybody submits a task and has it run once; one of b's is to
-- an agent that prom_test_owner owns.

INSERT INTO prometheus._agent (version, xid, mark, set_at, owner_oid, owner, name, model, mode, options)
VALUES (1, prometheus._xid(), 0, now(), 'prom_test_owner'::regrole, 'prom_test_owner', 'owned', 'echo', 'fast', '{}');
SET LOCAL ROLE prom_test_a;
SELECT prometheus_submit('of a');
SET LOCAL ROLE prom_test_b;
SELECT prometheus_submit('of b'), prometheus_submit('of b, to owned', 'owned');
RESET ROLE;
CREATE TEMP TABLE made AS SELECT task_id, request FROM prometheus._task WHERE request ~ '^of [ab]';
GRANT SELECT ON made TO PUBLIC;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at)
SELECT task_id, 1, prometheus._xid(), now() FROM made;
INSERT INTO prometheus._call (call_id, task_id, attempt, turn, call, xid, sent_at, kind, target)
SELECT nextval('prometheus._fact_id'), task_id, 1, 1, 1, prometheus._xid(), now(), 'chat', 'model:echo' FROM made;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name, status, answer)
SELECT task_id, 1, 1, nextval('prometheus._fact_id'), prometheus._xid(), now(), now(), false, 'chat', 'echo', 'ok', 'x' FROM made;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
SELECT task_id, 1, nextval('prometheus._fact_id'), prometheus._xid(), now(), 1, 1, 'completed' FROM made;

-- The requests of the tasks that a view lets one see.
CREATE FUNCTION pg_temp.sees(view text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    seen text;
BEGIN
    EXECUTE format('SELECT string_agg(request, ''; '' ORDER BY request) FROM made
                     WHERE task_id IN (SELECT task_id FROM prometheus.%I)', view) INTO seen;
    RETURN seen;
END$$;

CREATE TEMP VIEW v AS SELECT unnest(ARRAY['task', 'attempt', 'call', 'step', 'event']) AS view;
GRANT SELECT ON v TO PUBLIC;
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.sees(view), 'of a', 'the submitter sees his own in ' || view) FROM v;
SELECT is(count(*), 3::bigint, 'and nothing else of events') FROM prometheus.event;
SET LOCAL ROLE prom_test_b;
SELECT is(pg_temp.sees(view), 'of b; of b, to owned', 'so does another, in ' || view) FROM v;
SET LOCAL ROLE prom_test_owner;
SELECT is(pg_temp.sees(view), 'of b, to owned', 'the owner of an agent sees its tasks in ' || view) FROM v;
SET LOCAL ROLE prom_test_lead;
SELECT is(pg_temp.sees(view), 'of a; of b; of b, to owned', 'who has both roles sees both, in ' || view) FROM v;
SET LOCAL ROLE prom_test_apart;
SELECT is(pg_temp.sees(view), NULL, 'who does not inherit sees nothing in ' || view) FROM v;
SET LOCAL ROLE prom_test_admin;
SELECT is(pg_temp.sees(view), 'of a; of b; of b, to owned', 'an administrator sees all in ' || view) FROM v;
RESET ROLE;
SELECT task_id AS task_a FROM made WHERE request = 'of a' \gset
SELECT task_id AS task_owned FROM made WHERE request = 'of b, to owned' \gset

-- The functions, by the same rule.

SET LOCAL ROLE prom_test_b;
SELECT throws_ok(format('SELECT prometheus_%s(%s)', f, :task_a), '42704', NULL, f || ' does not know another''s task')
  FROM unnest(ARRAY['result', 'cancel']) AS f;
SET LOCAL ROLE prom_test_owner;
SELECT is(prometheus_result(:task_owned), 'x', 'the owner of an agent reads the result');
SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus_cancel(:task_a), false, 'an administrator may cancel what others submitted');
RESET ROLE;

-- Memberships and names that change are seen at once.

SET LOCAL ROLE prom_test_b;
SELECT is(prometheus._may_see('prom_test_a', :a), false, 'not before GRANT');
RESET ROLE;
GRANT prom_test_a TO prom_test_b;
SET LOCAL ROLE prom_test_b;
SELECT is(prometheus._may_see('prom_test_a', :a), true, 'after it');
RESET ROLE;
REVOKE prom_test_a FROM prom_test_b;
SET LOCAL ROLE prom_test_b;
SELECT is(prometheus._may_see('prom_test_a', :a), false, 'and not after REVOKE');
RESET ROLE;
ALTER ROLE prom_test_a RENAME TO prom_test_renamed;
SET LOCAL ROLE prom_test_renamed;
SELECT is(prometheus._may_see('prom_test_a', :a), false, 'a role with another name is another role');
SELECT is(pg_temp.sees('task'), NULL, 'and sees nothing of what it was');
RESET ROLE;
ALTER ROLE prom_test_renamed RENAME TO prom_test_a;
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.sees('task'), 'of a', 'until it has its name again');
RESET ROLE;

-- A SECURITY DEFINER function counts as its owner.

CREATE FUNCTION pg_temp.submit_for_me(request text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    'SELECT public.prometheus_submit(request)';
ALTER FUNCTION pg_temp.submit_for_me(text) OWNER TO prom_test_a;
SET LOCAL ROLE prom_test_b;
SELECT pg_temp.submit_for_me('of a wrapper') AS wrapped \gset
SELECT is((SELECT count(*) FROM prometheus.task WHERE task_id = :wrapped), 0::bigint, 'who called it does not see the task');
RESET ROLE;
SELECT is(submitter, 'prom_test_a', 'its owner submitted it') FROM prometheus._task WHERE task_id = :wrapped;

-- The option "roles" of an agent: who may submit to it.
SELECT throws_ok($$SELECT prometheus_set_agent('typo', 'echo', options => '{"roles": ["no such role"]}')$$, '42704', NULL, 'a role that is not there is a slip');

SELECT prometheus_set_agent('closed', 'echo', options => '{"roles": ["prom_test_a"]}');
SELECT prometheus_set_agent('shut', 'echo', options => '{"roles": []}');
SET LOCAL ROLE prom_test_a;
SELECT lives_ok($$SELECT prometheus_submit('x', 'closed')$$, 'a role in the list');
SELECT throws_ok($$SELECT prometheus_submit('x', 'shut')$$, '42501', NULL, 'an empty list');
SET LOCAL ROLE prom_test_b;
SELECT throws_ok($$SELECT prometheus_submit('x', 'closed')$$, '42501', NULL, 'a role that is not in it');
SET LOCAL ROLE prom_test_lead;
SELECT lives_ok($$SELECT prometheus_submit('x', 'closed')$$, 'a member of one that is');
SET LOCAL ROLE prom_test_apart;
SELECT throws_ok($$SELECT prometheus_submit('x', 'closed')$$, '42501', NULL, 'a member that does not inherit');
SET LOCAL ROLE prom_test_admin;
SELECT lives_ok($$SELECT prometheus_submit('x', 'shut')$$, 'an administrator, whatever the list');
RESET ROLE;
SELECT prometheus_set_agent('closed', options => '{"roles": null}');
SET LOCAL ROLE prom_test_b;
SELECT lives_ok($$SELECT prometheus_submit('x', 'closed')$$, 'everybody, when the option is taken away');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
