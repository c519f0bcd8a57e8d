#!/usr/bin/env bash
# Shows what prometheus does: a private server, a model, tasks, failures, a
# worker that ends in the middle.  Every answer on the screen is the server's,
# and what is said of it is checked: the exit status tells.
#
# The models are test/fake_llm.py, unless PROMETHEUS_LLM_URL (the base of a
# chat completions API, such as https://api.example.com/v1) and
# PROMETHEUS_LLM_MODEL name a real one; its key, if it needs one, is
# PROMETHEUS_LLM_KEY, which reaches the server by its environment and goes
# nowhere else.  KEEP=1 leaves the server running and says how to stop it.
#
# Called by "make demo", which builds and installs first.
set -euo pipefail
cd "$(dirname "$0")"

readonly patience=60	# seconds that anything may take
url=${PROMETHEUS_LLM_URL:-}
real=${url:+yes}
keep=${KEEP:-}
[ "$keep" != 0 ] || keep=
model_pid=
checks=0

die() { echo "demo: $*" >&2; exit 1; }

[ -z "$real" ] || [ -n "${PROMETHEUS_LLM_MODEL:-}" ] ||
	die "PROMETHEUS_LLM_URL is set, PROMETHEUS_LLM_MODEL is not"

# A server that stays must not be in the copy of the tree, which goes; and the
# path of a socket is short.
if [ -z "$keep" ] && [ ${#PWD} -lt 70 ]; then
	dir=$(mktemp -d "$PWD/demo.XXXXXX")
else
	dir=$(mktemp -d /tmp/prometheus.XXXXXX)
fi
export PGHOST=$dir PGPORT=5432 PGUSER=postgres PGDATABASE=demo
export PGOPTIONS="-c statement_timeout=$((patience + 30))s"

stop()
{
	local status=$?
	trap - EXIT
	case $status in
		0 | 130 | 143) ;;
		*)	[ ! -f "$dir/log" ] || tail -n 20 "$dir/log" >&2 ;;
	esac
	if [ -n "$keep" ] && [ -f "$dir/stop" ]; then
		echo
		echo "to look around   psql -h $dir -p $PGPORT -U $PGUSER $PGDATABASE"
		echo "to stop it       sh $dir/stop"
	else
		[ ! -f "$dir/data/postmaster.pid" ] ||
			pg_ctl -s -D "$dir/data" -m immediate stop || true
		[ -z "$model_pid" ] || kill "$model_pid" 2>/dev/null || true
		rm -rf "$dir"
	fi
	exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What the visitor sees: 80 columns, never two empty lines.

bold='' dim='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'
fi
readonly rule=------------------------------------------------------------------------------
section=0
empty=

put() # TEXT [COLOUR]
{
	local line
	while IFS= read -r line; do
		[ -n "$line" ] || [ -z "$empty" ] || continue
		empty=yes
		[ -z "$line" ] || empty=
		echo "${2:-}$line${2:+$plain}"
	done < <(fold -s -w 80 <<<"$1" | sed 's/ *$//')
}

heading()
{
	section=$((section + 1))
	local title="$section  $1 "
	put ""
	put "$title${rule:${#title}}" "$bold"
	put ""
}

comment()
{
	put ""
	put "$*" "$dim"
}

# Give psql one statement and print what comes of it.
readonly mark=$'\001'
execute()
{
	local line
	printf '%s\n\\echo %s\n' "$1" "$mark" >&"${PSQL[1]}"
	while IFS= read -r -t $((patience + 60)) line <&"${PSQL[0]}"; do
		[ "$line" != "$mark" ] || return 0
		case $line in
			ERROR:* | FATAL:* | WARNING:*) put "$line" "$red" ;;
			*) put "$line" ;;
		esac
	done
	die "psql ended, or gave no answer in time"
}

# Show the statements of the standard input and run them, all in one session.
run()
{
	local line statement='' prompt='demo=#'
	put ""
	while IFS= read -r line; do
		echo "$dim$prompt$plain $bold$line$plain"
		empty=
		statement+=$line$'\n'
		prompt='demo-#'
		case $line in
			*\; | *\\gset | \\*)
				execute "$statement"
				statement='' prompt='demo=#' ;;
		esac
	done
}

# What is not shown.

ask() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

same() # WHAT EXPECTED GOT
{
	[ "$3" = "$2" ] || die "$1: expected \"$2\", got \"$3\""
	checks=$((checks + 1))
}

check() { same "$1" "$2" "$(ask "$3")"; } # WHAT EXPECTED STATEMENT

await() # WHAT EXPECTED COMMAND...
{
	local what=$1 expected=$2 end=$((SECONDS + patience))
	shift 2
	until [ "$("$@")" = "$expected" ]; do
		[ $SECONDS -lt $end ] || die "$what: not in $patience s"
	done
}

# What the model server says of itself: an expression over what it has seen.
model_saw() # PATH EXPRESSION
{
	python3 -c '
import json, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
seen = json.load(opener.open(sys.argv[1]))
print(eval("(" + sys.argv[2] + ")"))' "${url%/v1}/$1" "$2"
}

# The servers.

# How to stop what stays; who does it may be another user, root even, which
# pg_ctl refuses.
write_stop()
{
	cat >"$dir/stop" <<-STOP
		kill -INT $(head -n 1 "$dir/data/postmaster.pid") $model_pid
		while [ -f '$dir/data/postmaster.pid' ]; do sleep 0.1; done
		rm -rf '$dir'
	STOP
}

start_model()
{
	local port='' end=$((SECONDS + patience))
	cp fake_llm.py fake_embeddings.py fake_formats.py "$dir"
	: >"$dir/port"
	if [ -n "$keep" ]; then
		setsid python3 "$dir/fake_llm.py" --stay </dev/null >"$dir/port" 2>"$dir/log" &
	else
		# it ends with its input, which nobody else holds
		mkfifo "$dir/hold"
		exec 9<>"$dir/hold"
		python3 "$dir/fake_llm.py" <"$dir/hold" >"$dir/port" 2>"$dir/log" 9>&- &
	fi
	model_pid=$!
	until read -r port <"$dir/port"; do
		kill -0 "$model_pid" 2>/dev/null || die "the model server ended"
		[ $SECONDS -lt $end ] || die "the model server does not start"
	done
	url=http://127.0.0.1:$port/v1
	export PROMETHEUS_LLM_KEY=test-key
}

start_server()
{
	initdb -D "$dir/data" -U "$PGUSER" -A trust -N >"$dir/initdb" 2>&1 ||
		die "initdb failed: $(cat "$dir/initdb")"
	cat >>"$dir/data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$dir'
		port = $PGPORT
		shared_preload_libraries = 'prometheus'
		max_worker_processes = 16
		prometheus.databases = 'demo'
	CONF
	# A model on this machine or in its network must be allowed.
	case $url in
		http:*)	echo "prometheus.allow_private_endpoints = on" >>"$dir/data/postgresql.conf" ;;
	esac
	echo "CREATE DATABASE demo" |
		postgres --single -D "$dir/data" postgres >>"$dir/initdb" 2>&1
	(
		[ -z "$keep" ] || trap '' HUP INT
		pg_ctl -s -w -D "$dir/data" -l "$dir/log" start 9>&-
	) || die "the server does not start"
	[ -z "$keep" ] || write_stop
}

put "prometheus: AI agents in PostgreSQL" "$bold"
put ""
[ -n "$real" ] || start_model
start_server
coproc PSQL { exec psql -Xq -P footer=off -P null=- 2>&1; }

# The scenario.

put "server  $(ask "SELECT split_part(version(), ' (', 1)"), a private one, on a socket in a temporary directory"
if [ -n "$real" ]; then
	put "model   $PROMETHEUS_LLM_MODEL at $url"
else
	put "model   test/fake_llm.py, a stand-in that answers by script"
fi

heading "The first thing to type"
run <<'SQL'
CREATE EXTENSION prometheus;
CALL prometheus_ask('hello');
SQL
comment "A fresh install has an agent that echoes, so that this answers at once."
check "the first answer" hello "SELECT result FROM prometheus.task"

heading "A model and an agent"
secret=
[ -z "${PROMETHEUS_LLM_KEY:-}" ] || secret=",
    secret => 'env:PROMETHEUS_LLM_KEY'"
run <<SQL
SELECT prometheus_set_model('house', api => 'openai', endpoint =>
    '$url', model => '${PROMETHEUS_LLM_MODEL:-fake-slow-100}'$secret);
SELECT prometheus_set_agent('support', model => 'house',
    instructions => 'Answer in one short sentence.');
SQL
[ -z "$secret" ] || comment "Each change makes a version. A key is never in the database, only its place."
check "the model is version 1" 1 "SELECT version FROM prometheus.model WHERE name = 'house'"
if [ -n "$real" ]; then
	run <<-SQL
		SELECT prometheus_set_model('locked', api => 'openai', endpoint =>
		    '$url', model => '$PROMETHEUS_LLM_MODEL',
		    secret => 'env:NO_SUCH_KEY');
		SELECT count(prometheus_set_agent(agent, model => model))
		  FROM (VALUES ('unlucky', 'locked'), ('writer', 'house'),
		       ('thinker', 'house')) AS new (agent, model);
	SQL
else
	run <<-SQL
		SELECT count(prometheus_set_model('for ' || agent, 'openai',
		    '$url', model))
		  FROM (VALUES ('unlucky', 'fake-401'), ('busy', 'fake-429-then-ok-2'),
		       ('shaky', 'fake-503-then-ok'), ('writer', 'fake-slow-60000'),
		       ('thinker', 'fake-slow-1000')) AS new (agent, model);
		SELECT count(prometheus_set_agent(substr(name, 5), model => name))
		  FROM prometheus.model WHERE name LIKE 'for %';
	SQL
	comment "The stand-in answers as a model's name tells it: 100 ms late, with HTTP 401 ..."
fi

heading "Tasks are part of your transaction"
run <<'SQL'
CREATE TABLE ticket (id int PRIMARY KEY, body text, task bigint);
BEGIN;
INSERT INTO ticket SELECT n, body, prometheus_submit(body, 'support')
  FROM (VALUES (1, 'Where is my parcel?'), (2, 'May I return a hat?'),
       (3, 'Is it blue?')) AS new (n, body);
COMMIT;
BEGIN;
SELECT prometheus_submit('Refund everybody.', 'support');
ROLLBACK;
SELECT id, prometheus_wait(task) FROM ticket;
SELECT id, status, left(result, 32) AS result, tokens_in, tokens_out,
       duration::interval(3)
  FROM ticket JOIN prometheus.task ON task_id = task ORDER BY id;
SQL
comment "The refund was rolled back: there is no such task, and no model heard of it."
check "three tickets are answered" 3 \
	"SELECT count(*) FROM ticket JOIN prometheus.task ON task_id = task
	  WHERE status = 'completed' AND result <> ''"
check "there are no other tasks" 4 "SELECT count(*) FROM prometheus.task"
if [ -z "$real" ]; then
	check "the answers are to the questions" t \
		"SELECT bool_and(result = body) FROM ticket JOIN prometheus.task ON task_id = task"
	same "what the model server saw" "(3, 0, {'Bearer test-key'})" \
		"$(model_saw requests 'len(seen), sum("Refund" in str(r) for r in seen),
			{r["headers"]["authorization"] for r in seen}')"
fi

heading "What happened: events and steps"
run <<'SQL'
LISTEN prometheus_events;
SELECT prometheus_submit('Is it really blue?', 'support') AS task \gset
SELECT prometheus_wait(:task);
UNLISTEN prometheus_events;
SELECT to_char(created_at, 'HH24:MI:SS.MS') AS at, type,
       left((data - 'agent' - 'mode' - 'kind')::text, 44) AS data
  FROM prometheus.event WHERE task_id = :task ORDER BY created_at;
SELECT step, kind, name, status, round(duration_ms) AS ms,
       tokens_in AS "in", tokens_out AS out,
       left(output ->> 'content', 30) AS answer
  FROM prometheus.step WHERE task_id = :task;
SQL
comment "The hint wakes who listens; what happened is rows, to be read when one likes."
check "the events of a task" "task.received task.completed" \
	"SELECT (array_agg(type ORDER BY created_at, event_id))[1] || ' ' ||
	        (array_agg(type ORDER BY created_at DESC, event_id DESC))[1]
	   FROM prometheus.event WHERE task_id = (SELECT max(task_id) FROM prometheus.task)"

heading "A failure is a failure, with its reason"
run <<'SQL'
SELECT prometheus_submit('Are you there?', 'unlucky') AS task \gset
SELECT prometheus_wait(:task);
SELECT prometheus_result(:task);
\echo :LAST_ERROR_SQLSTATE
SQL
check "the task failed, with a reason" t \
	"SELECT status = 'failed' AND error <> '' AND error_type <> '' AND result IS NULL
	   FROM prometheus.task WHERE agent = 'unlucky'"
same "what its result raises" PM001 "$(psql -XAtq 2>/dev/null <<-'SQL' || true
	SELECT prometheus_result(task_id) FROM prometheus.task WHERE agent = 'unlucky';
	\echo :LAST_ERROR_SQLSTATE
SQL
)"
if [ -z "$real" ]; then
	comment "The message is the provider's, without the key that it quoted."
	check "no part of a key is told" "ConfigurationError,f" \
		"SELECT concat_ws(',', error_type, error LIKE '%sk-proj%')
		   FROM prometheus.task WHERE agent = 'unlucky'"

	heading "A model that is busy or broken is asked again"
	run <<-'SQL'
		SELECT agent, prometheus_submit('Anyone?', agent)
		  FROM unnest('{busy,shaky}'::text[]) AS agent;
		SELECT agent, prometheus_wait(task_id), prometheus_result(task_id)
		  FROM prometheus.task WHERE agent IN ('busy', 'shaky');
		SELECT t.agent, a.attempt, a.outcome, left(a.error, 30) AS error,
		       (next_run_at - a.ended_at)::interval(2) AS "again in"
		  FROM prometheus.attempt a JOIN prometheus.task t USING (task_id)
		 WHERE t.agent IN ('busy', 'shaky') ORDER BY t.agent, a.attempt;
	SQL
	comment "When is the model's word (Retry-After), or else ours (back-off)."
	check "the attempts" "busy retry,retry,completed; shaky retry,completed" \
		"SELECT string_agg(agent || ' ' || outcomes, '; ' ORDER BY agent)
		   FROM prometheus.task t JOIN LATERAL (
		        SELECT string_agg(outcome, ',' ORDER BY attempt) AS outcomes
		          FROM prometheus.attempt a WHERE a.task_id = t.task_id) a ON true
		  WHERE agent IN ('busy', 'shaky') AND status = 'completed'"
	check "a rate limit uses up no attempt" "1,2" \
		"SELECT string_agg(attempts::text, ',' ORDER BY agent)
		   FROM prometheus.task WHERE agent IN ('busy', 'shaky')"
fi

heading "Cancelled in flight"
run <<'SQL'
SELECT prometheus_submit('Write a long book.', 'writer') AS task \gset
SQL
await "the request is on the network" t ask \
	"SELECT EXISTS (SELECT FROM prometheus.call WHERE status = 'open')
	    AND (SELECT in_flight = 1 FROM prometheus.worker WHERE role = 'caller')"
run <<'SQL'
SELECT q.task_id, q.status, q.why, c.target AS call, c.status
  FROM prometheus.queue q JOIN prometheus.call c USING (task_id);
SELECT prometheus_cancel(:task, 'The reader left.');
SELECT prometheus_wait(:task);
SELECT status, error, duration::interval(3)
  FROM prometheus.task WHERE task_id = :task;
SQL
if [ -z "$real" ]; then
	comment "The connection was cut: the model's server, too, has stopped."
	check "the task is cancelled, with its reason" "cancelled, The reader left." \
		"SELECT status || ', ' || error FROM prometheus.task WHERE agent = 'writer'"
	await "the request is dropped" 1 model_saw stats 'seen["dropped"]'
fi

heading "A worker ends in the middle"
tasks=20
[ -z "$real" ] || tasks=3
run <<SQL
SELECT count(prometheus_submit(format('What is %s + 1?', n), 'thinker'))
  FROM generate_series(1, $tasks) AS n;
SQL
await "the requests are on the network" t ask \
	"SELECT in_flight ${real:+> 0 OR in_flight} = $tasks FROM prometheus.worker WHERE role = 'caller'"
check "no snapshot is held meanwhile" 0 \
	"SELECT count(backend_xmin) FROM prometheus.worker JOIN pg_stat_activity USING (pid)"
run <<'SQL'
SELECT role, pid, in_flight, backend_xmin
  FROM prometheus.worker JOIN pg_stat_activity USING (pid);
SELECT pg_terminate_backend(pid)
  FROM prometheus.worker WHERE role = 'caller';
SELECT status, count(*)
  FROM (SELECT prometheus_wait(task_id) AS status
          FROM prometheus.task WHERE agent = 'thinker') AS ended
 GROUP BY status;
SELECT outcome, count(*),
       to_char(min(a.started_at), 'MI:SS.MS') AS started,
       to_char(max(a.ended_at), 'MI:SS.MS') AS ended,
       min(a.error) AS why
  FROM prometheus.attempt a JOIN prometheus.task USING (task_id)
 WHERE agent = 'thinker' GROUP BY outcome ORDER BY started;
SQL
comment "A new caller sent again what was lost with the old one: each task has one" \
	"answer. And while requests are under way, no snapshot (xmin) holds up VACUUM."
check "all tasks are completed" "$tasks" \
	"SELECT count(*) FROM prometheus.task WHERE agent = 'thinker' AND status = 'completed'"
check "each has one answer and one end" "$tasks,1,1" \
	"SELECT concat_ws(',', count(*), max(answers), max(ends))
	   FROM prometheus.task t
	   JOIN LATERAL (SELECT count(*) AS answers FROM prometheus.step s
	                  WHERE s.task_id = t.task_id AND s.status = 'ok') s ON true
	   JOIN LATERAL (SELECT count(*) AS ends FROM prometheus.attempt a
	                  WHERE a.task_id = t.task_id AND a.outcome = 'completed') a ON true
	  WHERE agent = 'thinker'"

heading "What an agent may do"
# What a model would say, so that it is said here each time.
psql -XAtq -v ON_ERROR_STOP=1 <<'SQL'
CREATE FUNCTION clerk(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	calls constant jsonb[] := ARRAY[
		jsonb_build_object('name', 'look_up', 'arguments', '{"ticket": 1}'),
		jsonb_build_object('name', 'run', 'arguments', '{"statement": "drop /* all */ table ticket"}'),
		jsonb_build_object('name', 'refund', 'arguments', '{"ticket": 1}')];
	turn int := (SELECT count(*) FROM jsonb_array_elements(request -> 'messages') m WHERE m ->> 'role' = 'assistant');
	said jsonb := jsonb_build_object('role', 'assistant', 'content', 'Ticket 1 is refunded.');
BEGIN
	IF turn < 3 THEN
		said := jsonb_build_object('role', 'assistant', 'content', NULL, 'tool_calls', jsonb_build_array(
			jsonb_build_object('id', 'call_' || turn, 'type', 'function', 'function', calls[turn + 1])));
	END IF;
	RETURN jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('message', said,
		'finish_reason', CASE WHEN turn < 3 THEN 'tool_calls' ELSE 'stop' END)));
END $$;
SQL
run <<'SQL'
CREATE TABLE refund (ticket int PRIMARY KEY);
CREATE FUNCTION look_up(ticket int) RETURNS text LANGUAGE sql STABLE
    AS 'SELECT body FROM ticket t WHERE t.id = look_up.ticket';
CREATE FUNCTION run(statement text) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN EXECUTE statement; END';
CREATE FUNCTION refund(ticket int) RETURNS text LANGUAGE sql
    AS $$INSERT INTO refund VALUES (ticket) RETURNING 'refunded'$$;
SELECT prometheus_set_tool('look_up(int)') AS look_up,
       prometheus_set_tool('run(text)', tier => 'write') AS run,
       prometheus_set_tool('refund(int)', tier => 'destructive') AS refund;
SELECT prometheus_set_model('script', 'function', handler => 'clerk(jsonb)');
SELECT prometheus_set_agent('clerk', model => 'script',
                            tools => '{look_up, run, refund}');
SELECT prometheus_submit('Refund ticket 1.', 'clerk') AS task \gset
SQL
await "the task waits for a person" waiting ask \
	"SELECT status FROM prometheus.task WHERE agent = 'clerk'"
run <<'SQL'
SELECT step, kind, name, status,
       left(coalesce(output ->> 'content', output ->> 'error'), 45) AS output
  FROM prometheus.step WHERE task_id = :task AND kind = 'tool' ORDER BY step;
SELECT tool, arguments, left(reasoning, 44) AS why FROM prometheus.approval;
SELECT approval_id AS approval FROM prometheus.approval \gset
SELECT prometheus_approve(:approval);
CREATE ROLE manager;
GRANT prometheus_agent_admin TO manager;
SET ROLE manager;
SELECT prometheus_approve(:approval, 'a good customer');
RESET ROLE;
SELECT prometheus_wait(:task), prometheus_result(:task);
SELECT stage, effect, governor, risk_level AS risk,
       left(reasoning, 30) AS reasoning
  FROM prometheus.verdict WHERE task_id = :task ORDER BY judged_at, step;
TABLE refund;
SQL
comment "A tool ran, a statement was stopped whatever its words, and what cannot be" \
	"undone was done once, after somebody else had said yes."
check "what the tools did" "ok vetoed ok, 1" \
	"SELECT string_agg(s.status, ' ' ORDER BY s.step) || ', ' || (SELECT count(*) FROM refund)
	   FROM prometheus.step s JOIN prometheus.task t USING (task_id)
	  WHERE t.agent = 'clerk' AND s.kind = 'tool'"

heading "Is all well?"
run <<'SQL'
SELECT check_name, status, value FROM prometheus_health();
SELECT status, count(*), sum(tokens_in) AS "in", sum(tokens_out) AS out
  FROM prometheus.task GROUP BY status ORDER BY count DESC;
SQL
check "health" ok "SELECT string_agg(DISTINCT status, ',') FROM prometheus_health()"
check "nothing is left in the queue" 0 "SELECT count(*) FROM prometheus.queue"

put ""
put "All as promised: $checks checks in $SECONDS s." "$bold"
