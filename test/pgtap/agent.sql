-- What prometheus_set_agent() writes and refuses, and what prometheus.agent shows.
BEGIN;
SELECT plan(37);

-- No worker serves this database, and a submit says so once.
SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'agent', ARRAY[
    'name', 'model', 'mode', 'owner', 'version', 'set_at', 'instructions', 'options']);
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
SELECT throws_ok($$SELECT prometheus_set_agent('new', 'echo', mode => 'full')$$, '0A000', NULL, 'mode of a later version');
SELECT throws_ok($$SELECT prometheus_set_agent('writer', '')$$, '22004', NULL, 'an agent needs its model');
SELECT throws_ok($$SELECT prometheus_set_agent('', 'echo')$$, '22023', NULL, 'name empty');
SELECT throws_ok($$SELECT prometheus_set_agent(NULL, 'echo')$$, '22023', NULL, 'name null');
SELECT throws_ok($$SELECT prometheus_set_agent(repeat('n', 201), 'echo')$$, '22023', NULL, 'name too long');
SELECT throws_ok(format($$SELECT prometheus_set_agent('new', 'echo', options => %L)$$, o), '22023', NULL, 'options ' || o)
  FROM unnest(ARRAY['[]', 'null', '{"max_tokens": 1}', '{"roles": "x"}', '{"roles": [1]}', '{"roles": {}}',
                    '{"roles": [null]}']) AS o;
SELECT is_empty($$SELECT * FROM prometheus._agent WHERE name = 'new'$$, 'what was refused left nothing');

SELECT * FROM finish();
ROLLBACK;
