/*
 * Calibration: what plans were said to achieve, held against what came of them.
 * Read from the facts about tasks.  A reflection is about the turn before it,
 * so an answer's is the first one behind it.
 */
CREATE VIEW prometheus.calibration WITH (security_barrier) AS
SELECT b.agent,
       b.submitter,
       sum(b.tasks)::bigint AS tasks,
       (sum(b.squares) / sum(b.tasks))::double precision AS brier_score,
       (sum(b.predicted) / sum(b.tasks))::double precision AS predicted,
       (sum(b.succeeded) / sum(b.tasks))::double precision AS actual,
       jsonb_agg(jsonb_build_object(
           'from', round(b.bin / 10.0, 1),
           'to', round((b.bin + 1) / 10.0, 1),
           'tasks', b.tasks,
           'predicted', round(b.predicted / b.tasks, 4),
           'actual', round(b.succeeded::numeric / b.tasks, 4))
           ORDER BY b.bin) AS reliability
  FROM (SELECT f.agent, f.submitter, least(floor(f.predicted * 10), 9) AS bin,
               count(*) AS tasks,
               sum(f.predicted) AS predicted,
               sum(f.succeeded) AS succeeded,
               sum((f.predicted - f.succeeded) ^ 2) AS squares
          FROM (SELECT t.agent, t.submitter, p.predicted,
                       CASE WHEN o.outcome <> 'completed' THEN 0
                            WHEN s.score >= 0.7 THEN 1
                            WHEN s.score < 0.7 THEN 0 END AS succeeded
                  FROM prometheus._visible_task t
                 CROSS JOIN LATERAL (
                       SELECT (prometheus._json(x.answer) ->> 'success')
                                  ::numeric AS predicted
                         FROM prometheus._step x
                        WHERE x.task_id = t.task_id AND x.kind = 'plan'
                          AND x.status = 'ok' AND prometheus._seen(x.xid)
                        ORDER BY x.step DESC LIMIT 1) p
                 CROSS JOIN LATERAL (
                       SELECT x.attempt, x.outcome, x.step
                         FROM prometheus._outcome x
                        WHERE x.task_id = t.task_id
                          AND prometheus._seen(x.xid)
                        ORDER BY x.attempt DESC LIMIT 1) o
                  LEFT JOIN LATERAL (
                       SELECT CASE x.status WHEN 'ok'
                              THEN (prometheus._json(x.answer) ->> 'score')
                                       ::numeric END AS score
                         FROM prometheus._step x
                        WHERE x.task_id = t.task_id AND x.step > o.step
                          AND x.kind = 'reflect' AND prometheus._seen(x.xid)
                        ORDER BY x.step LIMIT 1) s ON true
                 WHERE t.mode = 'full' AND prometheus._seen(t.xid)
                   AND o.outcome IN ('completed', 'failed', 'vetoed',
                                     'quarantined')
                   AND NOT EXISTS (
                       SELECT FROM prometheus._retry r
                        WHERE r.task_id = t.task_id
                          AND r.attempt >= o.attempt
                          AND prometheus._seen(r.xid))) f
         WHERE f.succeeded IS NOT NULL
         GROUP BY 1, 2, 3) b
 GROUP BY 1, 2;
COMMENT ON VIEW prometheus.calibration IS
    'How far the plans of full mode can be believed: the success that the plan which was followed promised, held against what came of the task. Of the tasks that you may see and that have ended: 1 if completed, and its answer''s reflection scored it from 0.7 on; 0 if scored lower, failed, vetoed or quarantined. Not of those that were cancelled, or completed without a reflection: nobody knows. A task that was retried by hand counts once, by its last plan and end. What retention has deleted counts no longer. It reads all tasks of mode full.';
COMMENT ON COLUMN prometheus.calibration.agent IS 'The tasks'' agent.';
COMMENT ON COLUMN prometheus.calibration.submitter IS 'The role that submitted the tasks.';
COMMENT ON COLUMN prometheus.calibration.tasks IS 'How many tasks count.';
COMMENT ON COLUMN prometheus.calibration.brier_score IS 'The mean of (predicted - actual)^2 of the tasks, from 0 (always right and sure of it) to 1; who always says 0.5 has 0.25, who always says the mean of actual has actual (1 - actual). G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950), in the form for two outcomes that counts one of them.';
COMMENT ON COLUMN prometheus.calibration.predicted IS 'The mean of the probabilities of success that the plans promised, 0 to 1.';
COMMENT ON COLUMN prometheus.calibration.actual IS 'The part of the tasks that succeeded, 0 to 1.';
COMMENT ON COLUMN prometheus.calibration.reliability IS 'The same by what was promised, for a reliability diagram: an array of {"from", "to", "tasks", "predicted", "actual"}, one for each tenth with a task, from it up to below the next (the last one with 1); predicted and actual are means, to four places.';
