-- Skills: which procedures are, what they are called, who sees them, and what
-- marks saw.  What tasks show of them is in t/.
BEGIN;
SELECT plan(21);

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

SELECT * FROM finish();
ROLLBACK;
