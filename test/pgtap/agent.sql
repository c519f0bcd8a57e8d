-- What prometheus_set_agent() writes and refuses, and what prometheus.agent shows.
BEGIN;
SELECT plan(130);

-- No worker serves this database, and a submit says so once.
SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'agent', ARRAY[
    'name', 'model', 'mode', 'tools', 'run_as', 'owner', 'version', 'set_at', 'instructions', 'options']);
SELECT function_returns('prometheus_set_agent', 'bigint');

SELECT is(concat_ws(' ', model, mode), 'echo fast', 'there is an agent to begin with')
  FROM prometheus.agent WHERE name = 'default' AND version = 1;

-- A new one.

SELECT is(prometheus_set_agent('writer', 'echo', E'Be "brief".\n'), 1::bigint, 'the first version is 1');
SELECT is(concat_ws(' ', model, mode, owner, version, options, instructions),
          concat_ws(' ', 'echo fast', current_user, 1, '{}', E'Be "brief".\n'), 'as it was set')
  FROM prometheus.agent WHERE name = 'writer';
SELECT cmp_ok(set_at, '>=', now(), 'set_at') FROM prometheus.agent WHERE name = 'writer';
SELECT is(concat_ws(' ', xid, mark, owner_oid), concat_ws(' ', prometheus._xid(), 0, current_user::regrole::oid),
          'the fact has its transaction, mark and owner') FROM prometheus._agent WHERE name = 'writer';

-- A change keeps what is not given.

SELECT prometheus_set_model('other', 'echo');
SELECT is(prometheus_set_agent('writer', 'other'), 2::bigint, 'the next version is 2');
SELECT is(concat_ws(' ', model, mode, version, instructions), E'other fast 2 Be "brief".\n',
          'one argument changes, the others stay') FROM prometheus.agent WHERE name = 'writer';
SELECT is(prometheus_set_agent('writer', instructions => ''), 3::bigint, 'instructions empty');
SELECT is(concat_ws(' ', model, coalesce(instructions, '-')), 'other -', 'are taken away') FROM prometheus.agent WHERE name = 'writer';
SELECT is(prometheus_set_agent('writer', mode => 'fast', options => '{"roles": ["prometheus_agent_admin"]}'), 4::bigint,
          'options');
SELECT is(options, '{"roles": ["prometheus_agent_admin"]}', 'are kept') FROM prometheus.agent WHERE name = 'writer';
SELECT is(prometheus_set_agent('writer', options => '{"roles": null}'), 5::bigint, 'an option null');
SELECT is(options, '{}', 'is taken away') FROM prometheus.agent WHERE name = 'writer';
SELECT is((SELECT array_agg(version ORDER BY version) FROM prometheus._agent WHERE name = 'writer'),
          ARRAY[1, 2, 3, 4, 5]::bigint[], 'every version is there');
SELECT is((SELECT count(*) FROM prometheus.agent WHERE name = 'writer'), 1::bigint, 'the view has the newest');

SELECT is(prometheus_set_model('both', 'echo') + prometheus_set_agent('both', 'both'), 2::bigint,
          'a model and its agent in one statement');

-- Names.

SELECT is(prometheus_set_agent('my agent: "größe"', 'echo'), 1::bigint, 'any text is a name');
SELECT lives_ok($$SELECT prometheus_submit('x', 'my agent: "größe"')$$, 'and may be asked');

-- What cannot be.

SELECT throws_ok($$SELECT prometheus_set_agent('new')$$, '22004', NULL, 'a new agent needs a model');
SELECT throws_ok($$SELECT prometheus_set_agent('new', 'nothing')$$, '42704', NULL, 'model unknown');
SELECT throws_ok($$SELECT prometheus_set_agent('writer', 'nothing')$$, '42704', NULL, 'model unknown, agent known');
SELECT throws_ok($$SELECT prometheus_set_agent('new', 'echo', mode => 'slow')$$, '22023', NULL, 'mode unknown');
SELECT is(prometheus_set_agent('full', 'echo', mode => 'full'), 1::bigint, 'mode full');
SELECT throws_ok($$SELECT prometheus_set_agent('writer', '')$$, '22004', NULL, 'an agent needs its model');
SELECT throws_ok($$SELECT prometheus_set_agent('', 'echo')$$, '22023', NULL, 'name empty');
SELECT throws_ok($$SELECT prometheus_set_agent(NULL, 'echo')$$, '22023', NULL, 'name null');
SELECT throws_ok($$SELECT prometheus_set_agent(repeat('n', 201), 'echo')$$, '22023', NULL, 'name too long');
SELECT throws_ok(format($$SELECT prometheus_set_agent('new', 'echo', options => %L)$$, o), '22023', NULL, 'options ' || o)
  FROM unnest(ARRAY['[]', 'null', '{"window": 1000}', '{"roles": "x"}', '{"roles": [1]}', '{"roles": {}}',
                    '{"roles": [null]}']) AS o;
SELECT is_empty($$SELECT * FROM prometheus._agent WHERE name = 'new'$$, 'what was refused left nothing');

-- Options that limit a task.

SELECT throws_ok(format($$SELECT prometheus_set_agent('new', 'echo', options => %L)$$, o), '22023',
                 format('option "%s" has a wrong value', substring(o, '\w+')), 'options ' || o)
  FROM unnest(ARRAY['{"max_turns": 0}', '{"max_turns": 1001}', '{"max_turns": 1.5}', '{"max_turns": "20"}',
                    '{"max_tool_calls": 0}', '{"max_tool_calls": 10001}', '{"max_tool_calls": true}',
                    '{"max_results": 255}', '{"max_results": 67108865}', '{"max_results": "65 MB"}',
                    '{"max_result": 255}', '{"max_result": "17 MB"}', '{"max_result": []}',
                    '{"max_tokens": 0}', '{"max_tokens": 1000000000001}', '{"max_tokens": 1e30}',
                    '{"max_rows": 0}', '{"memory_limit": 0}', '{"memory_limit": 100001}', '{"memory_limit": "10"}', '{"language": 7}', '{"max_rows": 1000000000001}', '{"max_rows": 1.5}', '{"max_rows": "1 MB"}',
                    '{"max_cost": -0.01}', '{"max_cost": 1000000.01}', '{"max_cost": "1"}',
                    '{"max_duration": 0.999}', '{"max_duration": "367 days"}', '{"max_duration": "-1 s"}',
                    '{"tool_timeout": 0.009}', '{"tool_timeout": "0"}', '{"tool_timeout": "25 h"}',
                    '{"max_vetoes": -1}', '{"max_vetoes": 1001}', '{"max_vetoes": 1.5}', '{"max_vetoes": "3"}',
                    '{"reflect_below": -0.1}', '{"reflect_below": 1.01}', '{"reflect_below": "0.5"}', '{"reflect_below": true}', '{"summarise": 1}', '{"summarise": "true"}',
                    '{"approval_timeout": 0.999}', '{"approval_timeout": "367 days"}', '{"approval_timeout": []}']) AS o;
SELECT throws_ok($$SELECT prometheus_set_agent('new', 'echo', options => '{"tool_timeout": "soon"}')$$, '22007', NULL,
                 'an interval that is none');
SELECT throws_ok($$SELECT prometheus_set_agent('new', 'echo', options => '{"language": "klingon"}')$$, '42704', NULL,
                 'a language that is none');
SELECT throws_ok($$SELECT prometheus_set_agent('new', 'echo', options => '{"language": ""}')$$, '42602', NULL, 'nor is this');
SELECT is(prometheus_set_agent('limited', 'echo', options => o), n, 'options ' || o::text)
  FROM unnest(ARRAY['{"max_turns": 1, "max_tool_calls": 1, "max_results": 256, "max_result": 256, "max_tokens": 1, "max_rows": 1, "max_cost": 0, "max_duration": 1, "tool_timeout": 0.01, "max_vetoes": 0, "approval_timeout": 1, "summary": false, "memory_limit": 1, "reflect_below": 0, "language": "pg_catalog.english", "summarise": true}',
                    '{"max_turns": 1000, "max_tool_calls": 10000, "max_results": "64 MB", "max_result": "16 MB", "max_tokens": 1000000000000, "max_rows": 1000000000000, "max_cost": 1000000, "max_duration": "366 days", "tool_timeout": "1 day", "max_vetoes": 1000, "approval_timeout": "366 days", "summary": true, "reflect_below": 1, "summarise": false}',
                    '{"max_cost": null, "max_tokens": null, "max_duration": null, "max_result": null, "max_results": null, "max_rows": null, "memory_limit": null, "reflect_below": null, "language": null, "summarise": null}']::jsonb[])
       WITH ORDINALITY AS v(o, n);
SELECT is(options, '{"max_turns": 1000, "max_tool_calls": 10000, "tool_timeout": "1 day", "max_vetoes": 1000, "approval_timeout": "366 days", "summary": true}',
          'are merged')
  FROM prometheus.agent WHERE name = 'limited';

-- Tools.

SELECT prometheus_set_tool('now()', n) FROM unnest(ARRAY['first', 'second', 'third']) AS n;
SELECT is(tools, '{}', 'an agent has no tools') FROM prometheus.agent WHERE name = 'writer';
SELECT is(prometheus_set_agent('clerk', 'echo', tools => '{third,first}'), 1::bigint, 'unless it is given some');
SELECT is(tools, '{third,first}', 'which are in that order') FROM prometheus.agent WHERE name = 'clerk';
SELECT is(prometheus_set_agent('clerk', instructions => 'Be brief.'), 2::bigint, 'they stay');
SELECT is(tools, '{third,first}', 'when others are not given') FROM prometheus.agent WHERE name = 'clerk';
SELECT is(prometheus_set_agent('clerk', tools => '{second}'), 3::bigint, 'they are replaced');
SELECT is(tools, '{second}', 'not added to') FROM prometheus.agent WHERE name = 'clerk';
SELECT throws_ok(format($$SELECT prometheus_set_agent('clerk', tools => %L)$$, t), '42704', message, 'tools ' || t)
  FROM (VALUES ('{first,nothing}', 'tool "nothing" does not exist, or is named twice'),
               ('{first,second,first}', 'tool "first" does not exist, or is named twice'),
               ('{FIRST}', 'tool "FIRST" does not exist, or is named twice'),
               ('{""}', 'tool "" does not exist, or is named twice'),
               ('{first,NULL}', 'the name of a tool is null')) AS v(t, message);
SELECT throws_ok(format($$SELECT prometheus_set_agent('clerk', tools => %L)$$, t), '54000',
                 'tools must be an array of at most 128 names', 'tools ' || left(t, 10))
  FROM unnest(ARRAY['{{first},{second}}', (SELECT array_agg('t' || i)::text FROM generate_series(1, 129) AS i)]) AS t;
SELECT prometheus_set_tool('now()', 't' || i) FROM generate_series(1, 128) AS i;
SELECT is(prometheus_set_agent('clerk', tools => (SELECT array_agg('t' || i ORDER BY i) FROM generate_series(1, 128) AS i)), 4::bigint,
          'as many as there may be');
SELECT is(tools[128] || cardinality(tools), 't128128', 'are all there') FROM prometheus.agent WHERE name = 'clerk';
SELECT is(prometheus_set_agent('clerk', tools => '[2:3]={first,second}'), 5::bigint, 'an array that does not begin at 1');
SELECT is(tools[3], 'second', 'is one, too') FROM prometheus.agent WHERE name = 'clerk';
SELECT is(prometheus_set_agent('clerk', tools => '{}'), 6::bigint, 'an empty array');
SELECT is(tools, '{}', 'takes them away') FROM prometheus.agent WHERE name = 'clerk';
SELECT is(prometheus_set_tool('now()', 'both')::int + prometheus_set_agent('both', tools => '{both}')::int, 3,
          'a tool and its agent in one statement');

-- The role that its tools run as.

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_writer;
CREATE ROLE prom_test_super SUPERUSER;
GRANT prometheus_agent_admin TO prom_test_admin, prom_test_other;
GRANT prom_test_writer TO prom_test_admin;
SELECT is(run_as, NULL, 'tools run as who submits') FROM prometheus.agent WHERE name = 'clerk';
SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus_set_agent('clerk', run_as => 'prom_test_writer'), 7::bigint, 'unless it is given a role');
SELECT is(run_as, 'prom_test_writer', 'which is there') FROM prometheus.agent WHERE name = 'clerk';
RESET ROLE;
SELECT is(run_as_oid, 'prom_test_writer'::regrole::oid, 'with its oid') FROM prometheus._agent WHERE name = 'clerk' AND version = 7;
SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus_set_agent('clerk'), 8::bigint, 'it stays');
SELECT is(run_as, 'prom_test_writer', 'when none is given') FROM prometheus.agent WHERE name = 'clerk';
SELECT is(prometheus_set_agent('self', 'echo', run_as => 'prom_test_admin'), 1::bigint, 'one may give his own');
SELECT throws_ok(format($$SELECT prometheus_set_agent('clerk', run_as => %L)$$, r), state, message, 'run_as ' || r)
  FROM (VALUES ('no such role', '42704', 'role "no such role" does not exist'),
               ('prom_test_super', '42501', 'an agent must not run as superuser "prom_test_super"'),
               ('prom_test_other', '42501', 'permission denied to run an agent as role "prom_test_other"')) AS v(r, state, message);
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_agent('clerk', instructions => 'Do evil.')$$, '42501',
                 'permission denied to run an agent as role "prom_test_writer"', 'who does not have the role may change nothing');
SELECT throws_ok($$SELECT prometheus_set_agent('clerk', tools => '{first}')$$, '42501', NULL, 'no tool');
SELECT throws_ok($$SELECT prometheus_set_agent('clerk', run_as => 'prom_test_writer')$$, '42501', NULL, 'nor give it again');
SELECT is(prometheus_set_agent('clerk', run_as => ''), 9::bigint, 'but take it away');
SELECT is(run_as, NULL, 'then it has none') FROM prometheus.agent WHERE name = 'clerk';
RESET ROLE;
SELECT is(run_as_oid, NULL, 'and no oid') FROM prometheus._agent WHERE name = 'clerk' AND version = 9;
SELECT throws_ok($$SELECT prometheus_set_agent('clerk', run_as => current_user)$$, '42501', NULL,
                 'not even a superuser lets a model be one');
SELECT is(prometheus_set_agent('clerk', run_as => 'prom_test_other'), 10::bigint, 'a superuser may give any other');
SELECT is_empty($$SELECT * FROM prometheus._agent WHERE name = 'new'$$, 'what was refused left nothing');

SELECT * FROM finish();
ROLLBACK;
