-- The evolution of agents: what is asked for, how levels and weights move, and who
-- sees generations.  What tasks make of it is in t/.
BEGIN;
SELECT plan(65);

SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'evolution', ARRAY['generation', 'agent', 'domain', 'level', 'category', 'skill', 'succeeded', 'score',
    'first_score', 'attempts', 'passed', 'cases', 'judged', 'level_after', 'memory_id', 'success_rate', 'task_id', 'iteration', 'proposal_id',
    'attempt_id', 'judge_id', 'ended_at', 'owner', 'weights', 'request']);

CREATE ROLE prom_test_a;
CREATE ROLE prom_test_b;
CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_user TO prom_test_a, prom_test_b;
GRANT prometheus_agent_admin TO prom_test_admin;
SELECT prometheus_set_agent('plain', 'echo'), prometheus_set_agent('closed', 'echo', options => '{"roles": ["prom_test_b"]}') \gset

-- Up above 80 %, down below 30 %, of the last five, and of three at least.
SELECT is(prometheus._evolution_level(2, succeeded, before::boolean[]), expected, format('level: %s and %s', succeeded, before))
  FROM (VALUES (true, '{}', 2), (true, '{t}', 2), (true, '{t,t}', 3), (true, '{t,t,t}', 3), (true, '{f,t,t,t}', 2), (true, '{t,f,t,t}', 2),
               (true, '{t,t,t,t,f}', 3), (false, '{t,t}', 2), (false, '{f}', 2), (false, '{f,f}', 1), (false, '{f,t}', 2), (false, '{f,f,t}', 1),
               (false, '{f,f,f,t}', 1), (false, '{f,f,t,t}', 2)) AS v(succeeded, before, expected);
SELECT is(prometheus._evolution_level(5, true, '{t,t}'), 5, 'there is no level above 5');
SELECT is(prometheus._evolution_level(1, false, '{f,f}'), 1, 'nor below 1');

-- Weights: a moving average of successes, and 1 less that.
SELECT is(prometheus._evolution_weights('{}', 'a', true), '{"a": {"tried": 1, "rate": 0.5, "weight": 1}}', 'weights: the first success counts for a half');
SELECT is(prometheus._evolution_weights('{"b": {"tried": 1, "rate": 0.5, "weight": 1}}', 'a', false),
          '{"a": {"tried": 1, "rate": 0, "weight": 0.6667}, "b": {"tried": 1, "rate": 0.5, "weight": 0.3333}}', 'weights: the weaker has more');
SELECT is(prometheus._evolution_weights('{"a": {"tried": 5, "rate": 0.5, "weight": 1}}', 'a', true) #> '{a,rate}', '0.6', 'weights: after five for a fifth');
SELECT is(prometheus._evolution_weights('{"a": {"tried": 9, "rate": 1, "weight": 1}, "b": {"tried": 0, "rate": 0, "weight": 1}}', 'a', true) #> '{a,weight}',
          '0.0909', 'weights: what is mastered is not forgotten');
SELECT is(prometheus._evolution_next('{}', '["x", "y"]'), 'x', 'next: the first, of equals');
SELECT is(prometheus._evolution_next('{"x": {"tried": 1, "rate": 0}}', '["x", "y"]'), 'y', 'next: the other');
SELECT is(prometheus._evolution_next('{"x": {"tried": 3, "rate": 0.9}, "y": {"tried": 3, "rate": 0}}', '["x", "y"]'), 'y', 'next: the weaker');
SELECT is(prometheus._evolution_next('{"x": {"tried": 1, "rate": 0.9}, "y": {"tried": 20, "rate": 0}}', '["x", "y"]'), 'x', 'next: but not always');
SELECT is(prometheus._evolution_next('{"gone": {"tried": 9, "rate": 0}}', '["x"]'), 'x', 'next: of those that are asked for');

-- What cannot be asked for.
SELECT throws_ok(format('SELECT prometheus_evolve(%s)', arguments), state, NULL, 'not: ' || arguments)
  FROM (VALUES ('NULL', '22004'), ($$'nobody'$$, '42704'), ($$'plain', 0$$, '22023'), ($$'plain', 101$$, '22023'), ($$'plain', -1$$, '22023'),
               ($$'plain', 1, ''$$, '22023'), ($$'plain', 1, '  '$$, '22023'), ($$'plain', 1, repeat('x', 201)$$, '22023'),
               ($$'plain', 1, 'x', '[]'$$, '22023'), ($$'plain', 1, 'x', '{"levels": 1}'$$, '22023'), ($$'plain', 1, 'x', '{"level": 0}'$$, '22023'),
               ($$'plain', 1, 'x', '{"level": 2.5}'$$, '22023'), ($$'plain', 1, 'x', '{"level": 6}'$$, '22023'), ($$'plain', 1, 'x', '{"level": "1"}'$$, '22023'),
               ($$'plain', 1, 'x', '{"categories": "a"}'$$, '22023'), ($$'plain', 1, 'x', '{"categories": []}'$$, '22023'),
               ($$'plain', 1, 'x', '{"categories": ["a", 1]}'$$, '22023'), ($$'plain', 1, 'x', '{"categories": ["a", "a"]}'$$, '22023'),
               ($$'plain', 1, 'x', '{"mode": "slow"}'$$, '22023'), ($$'plain', 1, 'x', '{"mode": 1}'$$, '22023'),
               ($$'plain', 1, 'x', '{"judge": "nobody"}'$$, '42704'), ($$'plain', 1, 'x', '{"curriculum": 7}'$$, '22023')) AS v(arguments, state);

-- Who may, and one at a time.
SET LOCAL ROLE prom_test_a;
SELECT throws_ok($$SELECT prometheus_evolve('closed')$$, '42501', NULL, 'an agent that is for others');
SELECT throws_ok($$SELECT prometheus_evolve('plain', options => '{"judge": "closed"}')$$, '42501', NULL, 'nor as a judge');
SELECT prometheus_evolve('plain', 7, 'sums', '{"level": 3, "mode": "fast"}') AS task \gset
SELECT throws_ok($$SELECT prometheus_evolve('plain')$$, '55006', NULL, 'one at a time');
SELECT results_eq(format('SELECT agent, mode, request FROM prometheus.task WHERE task_id = %s', :task),
                  $$VALUES ('plain', 'fast', 'Evolve in 7 generations, domain sums.')$$, 'a task');
RESET ROLE;
SELECT is((SELECT evolution FROM prometheus._task WHERE task_id = :task), '{"iterations": 7, "domain": "sums", "options": {"level": 3, "mode": "fast"}}', 'what it has to do');
SET LOCAL ROLE prom_test_b;
SELECT lives_ok($$SELECT prometheus_evolve('plain', 1)$$, 'of each role');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT prometheus_evolve('plain')$$, '42501', NULL, 'but not of every one');
SELECT throws_ok($$SELECT FROM prometheus.evolution$$, '42501', NULL, 'who sees none');
RESET ROLE;

-- Generations: whose they are, and their curve.
INSERT INTO prometheus._evolution (task_id, iteration, step, generation, xid, ended_at, owner_oid, owner, agent, domain, level, level_after, category,
                                   skill, request, attempts, cases, passed, first_score, score, succeeded, weights, proposal_id, attempt_id)
SELECT :task, n, 3 * n, n, prometheus._xid(), now(), 'prom_test_a'::regrole, 'prom_test_a', 'plain', 'sums', 1, 1, 'sums', E'a\033[2Jskill', 'Add.', 1, 3, 3,
       n / 50.0, n / 45.0, true, '{}', 1, 2
  FROM generate_series(1, 45) AS n;
SET LOCAL ROLE prom_test_a;
SELECT is((SELECT count(*) FROM prometheus.evolution), 45::bigint, 'the owner sees them');
SELECT matches(prometheus_evolution_report('plain'), E'^Agent plain of prom_test_a, domain sums\\n', 'the curve');
SELECT matches(prometheus_evolution_report('plain'), E'\\nThe newest 40 of 45 are shown\\.\\nFirst 15: first attempts 0\\.16, score 0\\.18, level 1\\.0\\nLast 15:  first attempts 0\\.76, score 0\\.84, level 1\\.0$', 'its ends');
SELECT doesnt_match(prometheus_evolution_report('plain'), E'\033', 'nothing that a terminal obeys');
SELECT cmp_ok((SELECT max(length(line)) FROM regexp_split_to_table(prometheus_evolution_report('plain'), E'\n') line), '<=', 80, 'it has 80 columns');
SELECT is(prometheus_evolution_report(NULL), NULL, 'the curve of none');
SET LOCAL ROLE prom_test_b;
SELECT is_empty('SELECT FROM prometheus.evolution', 'others see none of them');
SELECT matches(prometheus_evolution_report('plain'), '^Agent plain has no generations', 'nor their curve');
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT count(*) FROM prometheus.evolution), 45::bigint, 'administrators do');

SELECT finish();
ROLLBACK;
