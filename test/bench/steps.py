"""Tasks of five durable steps that act: a scripted model, an SQL tool that writes, rules, a budget."""

import os

import table
from cluster import submit_many, until_done

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
TASKS = int(os.environ.get("BENCH_STEPS") or 2000)
AGENT = """
CREATE TABLE ledger (who text, turn int);
CREATE FUNCTION enter(who text, turn int) RETURNS text LANGUAGE sql
BEGIN ATOMIC
	INSERT INTO ledger VALUES (who, turn);
	SELECT 'entered';
END;
CREATE FUNCTION two_turns(request jsonb) RETURNS jsonb LANGUAGE sql STABLE
RETURN (
	SELECT jsonb_build_object('choices', jsonb_build_array(jsonb_build_object(
		'finish_reason', CASE WHEN turn < 2 THEN 'tool_calls' ELSE 'stop' END,
		'message', CASE WHEN turn < 2 THEN jsonb_build_object('role', 'assistant', 'content', NULL,
			'tool_calls', jsonb_build_array(jsonb_build_object('id', 'call_' || turn, 'type', 'function', 'function',
				jsonb_build_object('name', 'enter', 'arguments', jsonb_build_object('who', 'bench', 'turn', turn)::text))))
		ELSE '{"role": "assistant", "content": "done"}'::jsonb END)),
		'usage', '{"prompt_tokens": 20, "completion_tokens": 10}'::jsonb)
	  FROM (SELECT count(*) AS turn FROM jsonb_array_elements(request -> 'messages') AS m
	         WHERE m ->> 'role' = 'assistant') AS t);
SELECT prometheus_set_tool('enter(text, int)', tier => 'write');
SELECT prometheus_set_model('scripted', 'function', handler => 'two_turns(jsonb)');
SELECT prometheus_set_agent('clerk', 'scripted', tools => '{enter}')
"""
BUDGET = "SELECT prometheus_set_budget('agent:clerk', 'day', tokens => %s)"


def steps(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    db.ask(AGENT)
    rates = {False: [], True: []}
    wal, written = [], 0
    for _ in range(ROUNDS):
        for has_budget in rates:
            db.ask(BUDGET % ("1000000000000" if has_budget else "NULL"))
            first, last, at = submit_many(db, TASKS, "clerk")
            start = db.value("SELECT pg_current_wal_insert_lsn()")
            rates[has_budget].append(TASKS / (until_done(db, first, last) - at))
            wal.append(db.number("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % start) / TASKS)
            written += 2 * TASKS
    if db.number("SELECT count(*) FROM ledger") != written:
        raise AssertionError("an effect is missing or double")
    table.row("tasks of 5 steps: chat, tool, chat, tool, chat", rates[False], "/s")
    table.row("  with a budget", rates[True], "/s", "none", rates[False], (">", 0.8), "ratio")
    table.row("  WAL of a task, its submit apart", wal, "B")
    db.close()
