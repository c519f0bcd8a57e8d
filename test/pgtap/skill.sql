-- Skills: which procedures are, what they are called, who sees them, what marks
-- saw, and what is shared.  What tasks show of them is in t/.
BEGIN;
SELECT plan(56);

SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'skill', ARRAY['memory_id', 'owner', 'agent', 'name', 'category', 'difficulty', 'success_rate', 'uses',
    'mastered', 'created_at', 'updated_at', 'content']);

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_chief;
CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b, prom_test_chief;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prom_test_a TO prom_test_chief;

-- What tasks have shown of a memory, the newest last.
CREATE FUNCTION pg_temp.shown(memory bigint, rates real[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO prometheus._evidence (memory_id, number, xid, task_id, found_at, score, confidence)
    SELECT $1, n, prometheus._xid(), -n, now() + n * interval '1 min', 0.7, rate FROM unnest($2) WITH ORDINALITY AS r(rate, n)
$$;

SET LOCAL ROLE prom_test_a;
SELECT prometheus_remember('cook', E'Boil  the\nwater, then add the pasta and wait', 'procedural') AS pasta,
       prometheus_remember('cook', 'Fry it', 'procedural', metadata => '{"skill": " frying ", "name": "other", "category": "kitchen", "difficulty": 2}') AS fry,
       prometheus_remember('cook', 'Bake it', 'procedural', metadata => '{"skill": ["x"], "name": "baking", "category": 7, "difficulty": "hard"}') AS bake,
       prometheus_remember('cook', 'Never tried', 'procedural') AS untried,
       prometheus_remember('cook', 'Water is wet', 'semantic') AS fact,
       prometheus_remember('cook', 'Said to be one', 'vault', metadata => '{"consolidated_from": "procedural"}') AS vaulted,
       prometheus_remember('cook', 'A fact of the vault', 'vault', metadata => '{"consolidated_from": "semantic"}') AS sure,
       prometheus_remember('cook', repeat('w', 100) || ' ' || repeat('x', 100), 'procedural') AS long,
       prometheus_remember('cook', '  ', 'procedural') AS blank,
       prometheus_remember('cook', 'Eat it at once', 'procedural', ttl => '1 day') AS brief \gset
RESET ROLE;
SELECT is_empty('SELECT FROM prometheus.skill', 'a procedure that no task has shown anything of is no skill');
SELECT pg_temp.shown(:pasta, '{0.5,0.75}'), pg_temp.shown(:fry, '{0.5,0.75,0.875}'), pg_temp.shown(:bake, '{0}'),
       pg_temp.shown(:fact, '{0.75}'), pg_temp.shown(:vaulted, '{0.9}'), pg_temp.shown(:sure, '{0.95}'), pg_temp.shown(:long, '{0.8}'),
       pg_temp.shown(:blank, '{0.81}'), pg_temp.shown(:brief, '{0.5}') \gset
SELECT results_eq('SELECT memory_id, name, category, difficulty, success_rate, uses, mastered FROM prometheus.skill ORDER BY memory_id',
    format($$VALUES (%s::bigint, 'Boil the water, then add the', NULL, NULL, 0.75::real, 2, false),
                    (%s, 'frying', 'kitchen', '2', 0.875, 3, true),
                    (%s, 'baking', NULL, 'hard', 0, 1, false),
                    (%s, 'Said to be one', NULL, NULL, 0.9, 1, true),
                    (%s, repeat('w', 63), NULL, NULL, 0.8, 1, false),
                    (%s, '', NULL, NULL, 0.81, 1, true),
                    (%s, 'Eat it at once', NULL, NULL, 0.5, 1, false)$$, :pasta, :fry, :bake, :vaulted, :long, :blank, :brief),
    'procedures with evidence, by the names that they have, at their newest rates; above 0.8 they are mastered');
SELECT results_eq(format('SELECT owner, agent, content, updated_at - created_at FROM prometheus.skill WHERE memory_id = %s', :fry),
    format($$VALUES ('prom_test_a', 'cook', 'Fry it', (SELECT now() + interval '3 min' - created_at FROM prometheus.memory WHERE memory_id = %s))$$, :fry),
    'whose it is, what it says, and when it was shown');
SELECT is((SELECT uses FROM prometheus.skill WHERE memory_id = :fry),
          (SELECT max(number) FROM prometheus.memory_evidence WHERE memory_id = :fry), 'its uses are its evidence');
UPDATE prometheus._memory SET created_at = now() - interval '1 day' WHERE memory_id = :pasta;
SET LOCAL ROLE prom_test_a;
SELECT prometheus_remember('cook', E'Boil  the\nwater, then add the pasta and wait', 'procedural', importance => 0.9, metadata => '{"name": "pasta"}') \gset
SELECT results_eq(format('SELECT name, created_at, success_rate FROM prometheus.skill WHERE memory_id = %s', :pasta),
                  $$VALUES ('pasta', now() - interval '1 day', 0.75::real)$$, 'a new version is the same skill');

-- What is not there.
SELECT prometheus_forget(:bake) \gset
SELECT is_empty(format('SELECT FROM prometheus.skill WHERE memory_id = %s', :bake), 'what is forgotten is no skill');
SELECT prometheus_restore_memory(:bake) \gset
SELECT is((SELECT uses FROM prometheus.skill WHERE memory_id = :bake), 1, 'until it is brought back');
RESET ROLE;
UPDATE prometheus._memory SET expires_at = now() - interval '1 s' WHERE memory_id = :brief;
SELECT is_empty(format('SELECT FROM prometheus.skill WHERE memory_id = %s', :brief), 'nor what has expired');

-- Who sees it.
SET LOCAL ROLE prom_test_a;
SELECT is((SELECT count(*) FROM prometheus.skill), 6::bigint, 'the owner');
SET LOCAL ROLE prom_test_chief;
SELECT is((SELECT count(*) FROM prometheus.skill), 6::bigint, 'who has the owner''s role');
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT count(*) FROM prometheus.skill), 6::bigint, 'an administrator');
SET LOCAL ROLE prom_test_b;
SELECT is((SELECT count(*) FROM prometheus.skill), 0::bigint, 'and nobody else');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok('SELECT * FROM prometheus.skill', '42501', NULL, 'who is no user may not ask');
RESET ROLE;

-- What marks saw: a procedure, its first use, a new name, its second use, and
-- that it is forgotten.
INSERT INTO prometheus._mark (mark_id, xid, at, snapshot)
SELECT n, prometheus._xid(), '2020-01-01 00:00+00'::timestamptz + (n - 1) * interval '1 day', format('%s:%s:', 99 + n, 99 + n)::pg_snapshot
  FROM generate_series(1, 7) AS n;
SELECT prometheus_remember('past', 'Wash it', 'procedural') AS wash \gset
SELECT pg_temp.shown(:wash, '{0.5,0.75}'), prometheus_remember('past', 'Wash it', 'procedural', metadata => '{"name": "washing"}'),
       prometheus_forget(:wash) \gset
UPDATE prometheus._memory SET xid = (ARRAY['100', '102', '104'])[version]::xid8, mark = 0, created_at = '2020-01-01' WHERE memory_id = :wash;
UPDATE prometheus._evidence SET xid = (ARRAY['101', '103'])[number]::xid8 WHERE memory_id = :wash;
CREATE FUNCTION pg_temp.at(day int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text; other text;
BEGIN
    PERFORM set_config('prometheus.as_of', format('2020-01-0%s 12:00+00', $1), true);
    SELECT concat_ws(' ', name, success_rate, uses) INTO answer FROM prometheus.skill WHERE agent = 'past';
    PERFORM set_config('prometheus.as_of', '', true);
    SELECT concat_ws(' ', name, success_rate, uses) INTO other FROM prometheus.skill_at(format('2020-01-0%s 12:00+00', $1)::timestamptz) WHERE agent = 'past';
    RETURN CASE WHEN answer IS DISTINCT FROM other THEN concat(answer, ', but ', other) ELSE answer END;
END$$;
SELECT is(pg_temp.at(day), answer, format('AS OF day %s', day)) FROM (VALUES
    (1, NULL), (2, NULL), (3, 'Wash it 0.5 1'), (4, 'washing 0.5 1'), (5, 'washing 0.75 2'), (6, NULL)) AS v(day, answer);
SELECT results_eq($$SELECT mark_id, uses FROM prometheus.skill_history WHERE agent = 'past' ORDER BY mark_id$$,
                  'VALUES (3::bigint, 1), (4, 1), (5, 2)', 'as the history says');

-- Sharing: what the other agent then has.

SELECT prometheus_set_agent(name, 'echo') FROM unnest('{cook,baker,pupil,rival,twin}'::text[]) AS name;
CREATE FUNCTION pg_temp.refused(skill text, agent text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
    PERFORM prometheus_share_skill(skill, agent);
    RETURN 'shared';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(' ', SQLSTATE, SQLERRM, nullif(detail, ''));
END$$;
UPDATE prometheus._memory SET importance = 0.7, embedding = '{0.5,1}', expires_at = now() + interval '1 day',
       kind = 'vault', metadata = metadata || '{"consolidated_from": "procedural", "pinned": true, "source": "reflection", "task_id": 7}'
 WHERE memory_id = :fry;
SET LOCAL ROLE prom_test_a;
SELECT memory_id AS fry2, owner, from_agent, shared, conflict FROM prometheus_share_skill('frying', 'pupil') \gset
SELECT is(format('%s %s %s %s', :'owner', :'from_agent', :'shared', :'conflict'), 'prom_test_a cook t 0', 'it is shared, and nothing is against it');
SELECT results_eq(format($$SELECT owner, agent, kind, importance, content, version, task_id, round(extract(epoch FROM expires_at - now()) / 3600) FROM prometheus.memory WHERE memory_id = %s$$, :fry2),
    $$VALUES ('prom_test_a', 'pupil', 'procedural', 0.7::real, 'Fry it', 1::bigint, NULL::bigint, 24::numeric)$$, 'a procedure of the other agent, as important, for as long');
SELECT is((SELECT metadata #- '{shared_from,shared_at}' FROM prometheus.memory WHERE memory_id = :fry2),
    format('{"skill": "frying", "name": "other", "category": "kitchen", "difficulty": 2,
             "shared_from": {"memory_id": %s, "agent": "cook", "success_rate": 0.875, "uses": 3}}', :fry)::jsonb, 'which says from where it is, and nothing that is of the first');
SELECT is((SELECT (metadata #>> '{shared_from,shared_at}')::timestamptz BETWEEN now() AND clock_timestamp() FROM prometheus.memory WHERE memory_id = :fry2), true, 'and when');
SELECT is((SELECT memory_id FROM prometheus_recall('pupil', 'fry', embedding => '{0.5,1}')), :fry2::bigint, 'that agent recalls it');
SELECT is_empty($$SELECT FROM prometheus.skill WHERE agent = 'pupil'$$, 'and has yet to show it');
SELECT is_empty(format('SELECT FROM prometheus.memory_evidence WHERE memory_id = %s', :fry2), 'evidence does not travel');
SELECT results_eq($$SELECT memory_id, shared FROM prometheus_share_skill('frying', 'pupil')$$, format('VALUES (%s::bigint, false)', :fry2), 'what it remembers is not shared again');
SELECT is((SELECT version FROM prometheus.memory WHERE memory_id = :fry2), 1::bigint, 'and stays as it is');
SELECT memory_id AS said FROM prometheus_share_skill('Said to be one', 'pupil') \gset
SELECT is((SELECT metadata ->> 'skill' FROM prometheus.memory WHERE memory_id = :said), 'Said to be one', 'a name of its words stays its name');

-- Of two of one name the better one; never the agent's own.
SELECT prometheus_remember('baker', 'Heat oil, then fry it', 'procedural', metadata => '{"skill": "frying"}') AS better \gset
RESET ROLE;
SELECT pg_temp.shown(:better, '{0.5,0.75,0.875,0.9}') \gset
SET LOCAL ROLE prom_test_a;
SELECT is((prometheus_share_skill('frying', 'twin')).from_agent, 'baker', 'the one with the higher success rate');
SELECT is((prometheus_share_skill('frying', 'baker')).from_agent, 'cook', 'but not the agent''s own');
SELECT is(pg_temp.refused('baking', 'cook'), '22023 the skill "baking" is agent "cook"''s own', 'there is no other');
SELECT is(pg_temp.refused('nothing', 'pupil'), '42704 you have no skill "nothing"', 'no such skill');
SELECT is(pg_temp.refused('Never tried', 'pupil'), '42704 you have no skill "Never tried"', 'a procedure that was not shown is none');
SELECT is(pg_temp.refused('baking', 'nobody'), '42704 agent "nobody" does not exist', 'no such agent');
SELECT is(prometheus_share_skill(NULL, 'pupil'), NULL, 'null');

-- Conflicts: what the agent knows, and its success rate; of {fry, it} and
-- {fry, it, slowly} two words in three are the same.
RESET ROLE;
SELECT prometheus_set_agent('rival' || n, 'echo') FROM generate_series(1, 8) AS n;
SELECT prometheus_forget(:better) \gset
SET LOCAL ROLE prom_test_a;
CREATE TEMP TABLE rival AS
SELECT n, rate, prometheus_remember('rival' || n, content, 'procedural', metadata => metadata) AS memory_id
  FROM (VALUES (1, 'Fry it slowly', '{"skill": "frying"}'::jsonb, 0::real), (2, 'Fry it slowly', '{"skill": "frying"}', 0.25),
               (3, 'Fry it slowly', '{"category": "kitchen"}', 0), (4, 'Fry it slowly', '{"category": "garden"}', 0),
               (5, 'Fry it', '{"skill": "this"}', 0.25), (6, 'Fry it', '{"skill": "this"}', 0.375), (7, 'Never do that', '{"skill": "frying"}', 0)) AS v(n, content, metadata, rate);
RESET ROLE;
SELECT pg_temp.shown(memory_id, ARRAY[rate]) FROM rival;
SET LOCAL ROLE prom_test_a;
SELECT is(pg_temp.refused('frying', 'rival1'), format('55000 the skill "frying" conflicts with what agent "rival1" knows '
          'Its conflict score with memory %s is 0.583, more than 0.500: they are alike by 0.667, and their success rates are 0.875 and 0.000.', memory_id),
          'of the same name, alike by two thirds, and 0.875 apart: refused') FROM rival WHERE n = 1;
SELECT matches(pg_temp.refused('frying', 'rival3'), '^55000 .* 0.583, ', 'so is one of the same category');
SELECT matches(pg_temp.refused('frying', 'rival5'), '^55000 .* is 0.625, .* by 1.000, ', 'and one that says the same');
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent IN ('rival1', 'rival3', 'rival5')), 3::bigint, 'what is refused is not remembered');
SELECT is(round((prometheus_share_skill('frying', 'rival' || n)).conflict::numeric, 4), score, what)
  FROM (VALUES (2, 0.4167, 'alike by two thirds, and 0.625 apart'), (4, 0, 'of another category and name'), (6, 0.5, 'the same, and 0.5 apart: no more than the limit'),
               (7, 0, 'of the same name, with no word in common'), (8, 0, 'an agent that knows nothing')) AS v(n, score, what);
SELECT prometheus_forget(memory_id) FROM rival WHERE n = 1 \gset
SELECT is((prometheus_share_skill('frying', 'rival1')).shared, true, 'what was in the way is forgotten');

-- Of whom.
SET LOCAL ROLE prom_test_b;
SELECT is(pg_temp.refused('frying', 'twin'), '42704 you have no skill "frying"', 'nobody gives what he may not see');
SET LOCAL ROLE prom_test_chief;
SELECT is((SELECT owner || ' ' || shared FROM prometheus_share_skill('baking', 'twin')), 'prom_test_a true', 'who has the owner''s role may; it stays the owner''s');
SELECT is((SELECT owner FROM prometheus.memory WHERE agent = 'twin' AND content = 'Bake it'), 'prom_test_a', 'as the memory is');
SET LOCAL ROLE prom_test_b;
SELECT prometheus_remember('cook', 'Bake it, said b', 'procedural', metadata => '{"skill": "baking"}') AS other \gset
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT owner || ' ' || shared FROM prometheus_share_skill('baking', 'pupil')), 'prom_test_a true', 'so may an administrator');
RESET ROLE;
SELECT pg_temp.shown(:other, '{0.5}') \gset
SET LOCAL ROLE prom_test_admin;
SELECT is(pg_temp.refused('baking', 'rival8'), '22023 more than one role has a skill "baking" Two of them are "prom_test_a" and "prom_test_b".', 'of one role');
SET LOCAL ROLE prom_test_b;
SELECT is((SELECT owner FROM prometheus_share_skill('baking', 'rival8')), 'prom_test_b', 'one''s own come first');
SELECT is((SELECT string_agg(owner, ',') FROM prometheus.memory WHERE agent = 'rival8'), 'prom_test_b', 'and are no other''s');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT public.prometheus_share_skill('baking', 'twin')$$, '42501', NULL, 'who is no user may not');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
