"""Full mode beside fast mode: what a task takes besides the time of its model."""

import os
import statistics

import table

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
TASKS = int(os.environ.get("BENCH_FULL") or 50)
MIND = """
CREATE FUNCTION think_%(ms)d(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	schema text := request #>> '{response_format,json_schema,schema}';
	said text := CASE
		WHEN schema LIKE '%%humility%%' THEN '{"humility": 1, "patience": 1, "service": 1, "gentleness": 1, "prudence": 1, "courage": 1, "truthfulness": 1, "confidence": 0.9, "counsel": "Fine.", "suggestions": []}'
		WHEN schema LIKE '%%probability%%' THEN '{"plans": [{"approach": "balanced", "cost": 1, "steps": [{"action": "Say it.", "tool": "", "outcome": "told", "probability": 1, "risks": []}]}]}'
		WHEN schema LIKE '%%appropriateness%%' THEN '{"aspects": [], "appropriateness": 1, "effectiveness": 1, "critique": "Good.", "lessons": ["It was good."], "correction": ""}'
		ELSE 'Said.' END;
BEGIN
	IF %(ms)d > 0 THEN
		PERFORM pg_sleep(%(ms)d / 1000.0);
	END IF;
	RETURN jsonb_build_object('usage', '{"prompt_tokens": 10, "completion_tokens": 5}'::jsonb, 'choices',
		jsonb_build_array(jsonb_build_object('finish_reason', 'stop', 'message', jsonb_build_object('role', 'assistant', 'content', said))));
END $$;
SELECT prometheus_set_model('mind %(ms)d', 'function', handler => 'think_%(ms)d(jsonb)');
SELECT prometheus_set_agent('mind %(ms)d', 'mind %(ms)d')
"""
TOOK = """
SELECT extract(epoch FROM t.duration) * 1000, coalesce(s.ms, 0), s.calls
  FROM prometheus.task t CROSS JOIN LATERAL (
       SELECT sum(x.duration_ms) AS ms, count(*) AS calls
         FROM prometheus.step x WHERE x.task_id = t.task_id AND x.tokens_in > 0) s
 WHERE t.task_id = %s AND t.status = 'completed'
"""


def run(db, agent, mode):
    """Medians of tasks one after the other: own milliseconds, those of the model, and its calls."""
    own, models, calls = [], [], []
    for n in range(TASKS):
        task = db.value("SELECT prometheus_submit('Say %d.', '%s', '%s')" % (n, agent, mode))
        db.ask("SELECT prometheus_wait(%s)" % task)
        whole, model, count = db.ask(TOOK % task)[0]
        own.append(float(whole) - float(model))
        models.append(float(model))
        calls.append(int(count))
    return statistics.median(own), statistics.median(models), statistics.median(calls)


def full(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    for ms in (0, 20):
        db.ask(MIND % {"ms": ms})
        measured = {"fast": [], "full": []}
        for _ in range(ROUNDS):
            for mode in measured:
                measured[mode].append(run(db, "mind %d" % ms, mode))
        own = {mode: [of[0] for of in rounds] for mode, rounds in measured.items()}
        if [measured[mode][0][2] for mode in ("fast", "full")] != [1, 4]:
            raise AssertionError("a task has asked its model more or less than it should")
        table.row("full mode, own time of a task, model of %d ms" % ms, own["full"], "ms", "fast mode", own["fast"])
        if ms > 0:
            table.row("  the model's, of its four calls", [of[1] for of in measured["full"]], "ms")
    db.close()
