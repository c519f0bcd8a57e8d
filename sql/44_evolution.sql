/*
 * Evolution: tasks that an agent is set to become better by them, and how far
 * it has come.  src/evolution.c, src/curriculum.c, src/exam.c,
 * src/generation.c.
 */
CREATE TABLE prometheus._evolution (
    task_id bigint NOT NULL,
    iteration integer NOT NULL,
    step integer NOT NULL,
    generation bigint NOT NULL,
    xid xid8 NOT NULL,
    ended_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    agent text NOT NULL,
    domain text NOT NULL,
    level integer NOT NULL,
    level_after integer NOT NULL,
    category text NOT NULL,
    skill text NOT NULL,
    request text NOT NULL,
    attempts integer NOT NULL,
    cases integer NOT NULL,
    passed integer NOT NULL,
    judged double precision,
    first_score double precision NOT NULL,
    score double precision NOT NULL,
    succeeded boolean NOT NULL,
    memory_id bigint,
    success_rate real,
    weights jsonb NOT NULL,
    proposal_id bigint NOT NULL,
    attempt_id bigint NOT NULL,
    judge_id bigint,
    PRIMARY KEY (task_id, iteration)
);
CREATE UNIQUE INDEX _evolution_generation
    ON prometheus._evolution (owner, owner_oid, agent, generation);
CREATE INDEX _evolution_domain
    ON prometheus._evolution (owner, agent, domain, generation);
COMMENT ON TABLE prometheus._evolution IS
    'The generations of agents, each written in the transaction that ends it, by the step of its task. They are kept for ever; the tasks may be gone before.';

CREATE FUNCTION prometheus._evolution_level(
    level integer, succeeded boolean, before boolean[])
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT CASE WHEN count(*) < 3 THEN level
                WHEN count(*) FILTER (WHERE s) * 10 > count(*) * 8
                THEN least(level + 1, 5)
                WHEN count(*) FILTER (WHERE s) * 10 < count(*) * 3
                THEN greatest(level - 1, 1)
                ELSE level END
      FROM unnest(before[1:4] || succeeded) s);
COMMENT ON FUNCTION prometheus._evolution_level(integer, boolean, boolean[]) IS
    'The level of the next task: of the last five at this level, three at least, one up if more than 80 % succeeded, one down if less than 30 %. before: those before the last one, the newest first.';

CREATE FUNCTION prometheus._evolution_weights(
    before jsonb, category text, succeeded boolean)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT jsonb_object_agg(w.name, jsonb_build_object(
               'tried', w.tried, 'rate', round(w.rate, 4),
               'weight', round(greatest(1 - w.rate, 0.1) / w.total, 4)))
      FROM (SELECT n.*, sum(greatest(1 - n.rate, 0.1)) OVER () AS total
              FROM (SELECT c.key AS name,
                           (c.value ->> 'tried')::bigint
                               + CASE WHEN c.key = category THEN 1 ELSE 0 END
                               AS tried,
                           CASE WHEN c.key = category
                                THEN c.rate + CASE WHEN (c.value ->> 'tried')
                                                            ::bigint < 5
                                                   THEN 0.5 ELSE 0.2 END
                                     * (CASE WHEN succeeded THEN 1 ELSE 0 END
                                        - c.rate)
                                ELSE c.rate END AS rate
                      FROM (SELECT x.key, x.value,
                                   (x.value ->> 'rate')::numeric AS rate
                              FROM jsonb_each(jsonb_build_object(
                                       category, jsonb_build_object(
                                           'tried', 0, 'rate', 0))
                                       || before) x) c) n) w);
COMMENT ON FUNCTION prometheus._evolution_weights(jsonb, text, boolean) IS
    'The weights of categories after one more generation: {"category": {"tried", "rate", "weight"}}. rate is a moving average of successes from 0, the newest for a half in the first five, then for a fifth; weight is 1 - rate, 0.1 at least, as a part of all.';

CREATE FUNCTION prometheus._evolution_next(weights jsonb, categories jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT w.name
      FROM (SELECT n.name, n.place, n.tried,
                   n.weight / sum(n.weight) OVER () AS weight,
                   sum(n.tried) OVER () AS total
              FROM (SELECT c.name, c.place,
                           coalesce((weights -> c.name ->> 'tried')
                                        ::numeric, 0) AS tried,
                           greatest(1 - coalesce(
                               (weights -> c.name ->> 'rate')::numeric, 0),
                               0.1) AS weight
                      FROM jsonb_array_elements_text(categories)
                               WITH ORDINALITY c(name, place)) n) w
     ORDER BY w.weight * (w.total + 1) - w.tried DESC, w.place LIMIT 1);
COMMENT ON FUNCTION prometheus._evolution_next(jsonb, jsonb) IS
    'The category of the next task: of an array of them the one that has had the least, by its weight; of equals the first.';

CREATE FUNCTION prometheus._evolution_report(
    generations prometheus._evolution[])
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT format('%s generation%s, %s succeeded; level %s at first, %s in '
                  'the end.',
                  count(*), CASE count(*) WHEN 1 THEN '' ELSE 's' END,
                  count(*) FILTER (WHERE g.succeeded),
                  min(g.level) FILTER (WHERE g.place = 1),
                  min(g.level_after) FILTER (WHERE g.place = g.n))
           || CASE WHEN count(*) < 3 THEN ''
                   ELSE format(
                        ' In the first %s of them: first attempts scored %s '
                        'and last ones %s in the mean, at level %s. In the '
                        'last %s: %s and %s, at level %s.',
                        min(g.third),
                        round(avg(g.first_score) FILTER (WHERE g.is_first), 2),
                        round(avg(g.score) FILTER (WHERE g.is_first), 2),
                        round(avg(g.level) FILTER (WHERE g.is_first), 1),
                        min(g.third),
                        round(avg(g.first_score) FILTER (WHERE g.is_last), 2),
                        round(avg(g.score) FILTER (WHERE g.is_last), 2),
                        round(avg(g.level) FILTER (WHERE g.is_last), 1)) END
           || coalesce((SELECT ' Skills shown: ' || string_agg(
                               format('%s (success rate %s)', s.skill,
                                      round(s.success_rate::numeric, 2)), ', '
                               ORDER BY s.success_rate DESC, s.skill) || '.'
                          FROM (SELECT DISTINCT ON (k.skill) k.skill,
                                       k.success_rate
                                  FROM unnest(generations) k
                                 WHERE k.success_rate IS NOT NULL
                                 ORDER BY k.skill, k.generation DESC) s), '')
      FROM (SELECT e.succeeded, e.level, e.level_after, e.place, e.n, e.third,
                   e.place <= e.third AS is_first,
                   e.place > e.n - e.third AS is_last,
                   e.first_score::numeric, e.score::numeric
              FROM (SELECT x.*,
                           row_number() OVER (ORDER BY x.generation) AS place,
                           count(*) OVER () AS n,
                           greatest(count(*) OVER () / 3, 1) AS third
                      FROM unnest(generations) x) e) g);
COMMENT ON FUNCTION prometheus._evolution_report(prometheus._evolution[]) IS
    'What generations came to, in words: the first third of them against the last, if there are three at least.';

CREATE VIEW prometheus.evolution WITH (security_barrier) AS
SELECT e.generation,
       e.agent,
       e.domain,
       e.level,
       e.category,
       e.skill,
       e.succeeded,
       e.score,
       e.first_score,
       e.attempts,
       e.passed,
       e.cases,
       e.judged,
       e.level_after,
       e.memory_id,
       e.success_rate,
       e.task_id,
       e.iteration,
       e.proposal_id,
       e.attempt_id,
       e.judge_id,
       e.ended_at,
       e.owner,
       e.weights,
       e.request
  FROM prometheus._evolution e
 WHERE prometheus._seen(e.xid)
   AND prometheus._may_see(e.owner, e.owner_oid);
COMMENT ON VIEW prometheus.evolution IS
    'How agents became better, or did not: the generations of prometheus_evolve(), each of a task that was proposed, attempted and verified. Of those that you had evolve, or may see. They stay when retention has deleted the tasks.';
COMMENT ON COLUMN prometheus.evolution.generation IS 'Its number, from 1, of this owner and agent.';
COMMENT ON COLUMN prometheus.evolution.agent IS 'The agent.';
COMMENT ON COLUMN prometheus.evolution.domain IS 'The domain that its tasks are of.';
COMMENT ON COLUMN prometheus.evolution.level IS 'The difficulty that was asked for, 1 to 5.';
COMMENT ON COLUMN prometheus.evolution.category IS 'The category that was asked for: of the option categories, else the domain.';
COMMENT ON COLUMN prometheus.evolution.skill IS 'The ability that the task takes, as it was proposed.';
COMMENT ON COLUMN prometheus.evolution.succeeded IS 'score is 0.7 or more.';
COMMENT ON COLUMN prometheus.evolution.score IS 'Of its last attempt, 0 to 1: passed / cases * judged.';
COMMENT ON COLUMN prometheus.evolution.first_score IS 'The same of its first attempt, of which nobody had said what was wrong: by this agents are compared with themselves.';
COMMENT ON COLUMN prometheus.evolution.attempts IS 'Attempts, 1 to 3; another one only below 0.7.';
COMMENT ON COLUMN prometheus.evolution.passed IS 'Test cases that the last answer passed.';
COMMENT ON COLUMN prometheus.evolution.cases IS 'Test cases.';
COMMENT ON COLUMN prometheus.evolution.judged IS 'The score of the judge, 0 to 1; null: the answer passed no case, and nobody was asked.';
COMMENT ON COLUMN prometheus.evolution.level_after IS 'The level of the next task of this domain.';
COMMENT ON COLUMN prometheus.evolution.memory_id IS 'The procedure that was learned by it, or that had been for this skill and was told to the attempt; null: none.';
COMMENT ON COLUMN prometheus.evolution.success_rate IS 'Of that procedure, afterwards, 0 to 1: see prometheus.skill; null: none.';
COMMENT ON COLUMN prometheus.evolution.task_id IS 'The task of prometheus_evolve().';
COMMENT ON COLUMN prometheus.evolution.iteration IS 'Which of its generations, from 1.';
COMMENT ON COLUMN prometheus.evolution.proposal_id IS 'The task that proposed it.';
COMMENT ON COLUMN prometheus.evolution.attempt_id IS 'The task that was the last attempt.';
COMMENT ON COLUMN prometheus.evolution.judge_id IS 'The task that judged that; null: none.';
COMMENT ON COLUMN prometheus.evolution.ended_at IS 'When it was recorded.';
COMMENT ON COLUMN prometheus.evolution.owner IS 'The role that had the agent evolve; its memories are meant.';
COMMENT ON COLUMN prometheus.evolution.weights IS 'By category {"tried", "rate", "weight"}: generations, a moving average of successes as that of skills, and the part of the next tasks that it is to have, 1 - rate and 0.1 at least.';
COMMENT ON COLUMN prometheus.evolution.request IS 'The task.';

CREATE FUNCTION @extschema@.prometheus_evolve(
    agent text,
    iterations integer DEFAULT 10,
    domain text DEFAULT 'general',
    options jsonb DEFAULT '{}')
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_evolve';
COMMENT ON FUNCTION @extschema@.prometheus_evolve(
    text, integer, text, jsonb) IS
    'Queues a task in which the agent is set so many tasks, 1 to 100, and learns by them; returns its id. For each generation a model proposes a task at the agent''s level, with test cases; the agent attempts it, three times at most, as in a task of its own; its answer must pass the cases, and a model judges it without knowing whose it is. The score is the share of the cases passed times the judge''s; a success from 0.7 on. prometheus.evolution has what came of each, and an event evolution says so. Each of these is a task of the caller with this one as its parent: with the budgets, reviews and limits of its agent. options: categories (an array of 1 to 20 names, default the domain: the weaker the agent is in one, the more of it), curriculum and judge (the agents that propose and that judge, default this one; better others), mode (of the attempts, fast or full; default full, in which it recalls what it has learned), level (1 to 5, to begin with; default where it stands in the domain). The result is a text that says what was measured. It ends as failed if three proposals in a row cannot be used, or what fails is not the agent''s (BudgetExceeded, ModelUnavailable, ...); prometheus_retry() then goes on. Raises object_in_use if the agent is already evolving for the caller, invalid_parameter_value, and as prometheus_submit() does.';

CREATE FUNCTION @extschema@.prometheus_evolution_report(agent text)
RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
RETURN (
    SELECT coalesce(
               string_agg(
                   format(E'Agent %s of %s, domain %s\n%s%s%s\n%s', agent,
                       d.owner, left(d.domain, 40),
                       E' gen  lvl  tries  first  score  '
                       '.................... skill\n',
                       d.lines,
                       CASE WHEN d.n > 40
                            THEN format(E'\nThe newest 40 of %s are shown.',
                                        d.n) END,
                       CASE WHEN d.n < 3
                            THEN 'Too few generations to compare.'
                            ELSE format(
                                'First %s: first attempts %s, score %s, '
                                'level %s', d.third, d.first_before,
                                d.score_before, d.level_before)
                                || chr(10) || format(
                                'Last %s:  first attempts %s, score %s, '
                                'level %s', d.third, d.first_after,
                                d.score_after, d.level_after) END),
                   chr(10) || chr(10) ORDER BY d.owner, d.domain),
               format('Agent %s has no generations: SELECT '
                      'prometheus_evolve(%L) makes some.', agent, agent))
      FROM (SELECT l.owner, l.domain, count(*) AS n, min(l.third) AS third,
                   string_agg(l.line, chr(10) ORDER BY l.generation)
                       FILTER (WHERE l.age <= 40) AS lines,
                   round(avg(l.first_score) FILTER (WHERE l.place <= l.third),
                         2) AS first_before,
                   round(avg(l.score) FILTER (WHERE l.place <= l.third), 2)
                       AS score_before,
                   round(avg(l.level) FILTER (WHERE l.place <= l.third), 1)
                       AS level_before,
                   round(avg(l.first_score) FILTER (WHERE l.age <= l.third), 2)
                       AS first_after,
                   round(avg(l.score) FILTER (WHERE l.age <= l.third), 2)
                       AS score_after,
                   round(avg(l.level) FILTER (WHERE l.age <= l.third), 1)
                       AS level_after
              FROM (SELECT e.owner, e.domain, e.generation, e.level,
                           e.first_score::numeric, e.score::numeric,
                           row_number() OVER (w ORDER BY e.generation)
                               AS place,
                           row_number() OVER (w ORDER BY e.generation DESC)
                               AS age,
                           greatest(count(*) OVER w / 3, 1) AS third,
                           format('%s  %s  %s  %s  %s  %s %s',
                               lpad(e.generation::text, 4),
                               lpad(e.level::text, 3),
                               lpad(e.attempts::text, 5),
                               lpad(round(e.first_score::numeric, 2)::text, 5),
                               lpad(round(e.score::numeric, 2)::text, 5),
                               rpad(repeat('#', round(e.score * 20)::integer),
                                    20, '.'),
                               left(regexp_replace(e.skill, '[[:cntrl:]]', ' ',
                                                   'g'), 24)) AS line
                      FROM prometheus.evolution e
                     WHERE e.agent = prometheus_evolution_report.agent
                    WINDOW w AS (PARTITION BY e.owner, e.domain)) l
             GROUP BY l.owner, l.domain) d);
COMMENT ON FUNCTION @extschema@.prometheus_evolution_report(text) IS
    'The curve of an agent''s improvement, to be read in a terminal of 80 columns: of each domain, and each owner that you may see, the newest 40 generations with their score as a bar, and below it the first third of all generations against the last one: first attempts are answers of which nobody had said what was wrong.';
