#!/usr/bin/env python3
"""Measures; run.sh says what and how.  Each part prints its rows of the table."""

import asyncio
import bisect
import json
import os
import random
import signal
import socket
import statistics
import sys
import threading
import time

import pg
import table
from cluster import (HERE, Model, Server, Snapshot, memory, prompt, submit_many, ticks, until, until_done,
                     until_idle)
from conversation import conversation
from events import events as measure_events
from full import full
from marks import marks
from peers import NAMES, Peers
from recall import recall
from steps import steps
from traced import traced
from tracked import tracked

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
IDLE = int(os.environ.get("BENCH_IDLE") or 30)
HISTORY = int(os.environ.get("BENCH_HISTORY") or 1000000)
BLOCKED = int(os.environ.get("BENCH_BLOCKED") or 100000)
BLOCKED_BY = (os.environ.get("BENCH_BLOCKED_BY") or "time task").replace(",", " ").split()
JOBS = int(os.environ.get("BENCH_JOBS") or 10000)
SOAK = int(os.environ.get("BENCH_SOAK") or 0)
PARTS = []


def part(function):
    PARTS.append(function)
    return function


def script_text(name):
    with open("%s/%s.sql" % (HERE, name)) as script:
        return script.read()


def progress(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def set_agent(db, model, name, provider):
    """An agent of that name whose model answers as provider says."""
    db.ask("SELECT prometheus_set_model('%s', 'openai', '%s', '%s')" % (name, model.url, provider))
    db.ask("SELECT prometheus_set_agent('%s', '%s')" % (name, name))


def worker(db, role):
    return int(db.value("SELECT coalesce(max(pid), 0) FROM prometheus.worker WHERE role = '%s'" % role))


def new_worker(db, role, before):
    """Wait for another process in this role; its id."""
    until(lambda: worker(db, role) not in (0, before), "a new " + role)
    return worker(db, role)


def in_flight(db, count):
    until(lambda: db.value("SELECT in_flight FROM prometheus.worker WHERE role = 'caller'") == str(count),
          "%d requests in flight" % count)


def worker_flies(db):
    return db.value("SELECT in_flight > 0 FROM prometheus.worker WHERE role = 'scheduler'") == "t"


@part
def submit(server, model):
    server.start(databases="bench")
    for database, when in (("quiet", "no scheduler"), ("bench", "workers draining")):
        db = server.connect(database)
        listener = server.connect(database)
        rates = {"submit": [], "plain": [], "notify": []}
        left = []
        for _ in range(ROUNDS):
            for script in rates:
                if script == "notify":
                    listener.ask("LISTEN bench")
                rates[script].append(server.pgbench(database, script, 16, 3))
                if script == "submit" and database == "bench":
                    left.append(int(db.value("SELECT count(*) FROM prometheus._queue()")))
                    until_idle(db)
                if script == "notify":
                    listener.ask("UNLISTEN bench")
        table.row("submit, 16 clients, %s" % when, rates["submit"], "/s", "plain INSERT", rates["plain"],
                  (">", 0.7), "ratio")
        table.row("  the same, beside a NOTIFY", rates["submit"], "/s", "INSERT + NOTIFY", rates["notify"],
                  (">", 2.5), "ratio")
        if left:
            table.row("  not yet done at the end of the load", left, "tasks")
        db.close()
        listener.close()


def drain_once(db, server, count):
    first, last, at = submit_many(db, count, "default", "What is to be done about number ")
    start = db.value("SELECT pg_current_wal_insert_lsn()")
    end = until_done(db, first, last)
    wal = db.number("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % start)
    return first, last, count / (end - at), wal / count


def copy_rate(db, first, last):
    """Tasks per second of writing the same rows into such tables, in one transaction."""
    names = ("_attempt", "_call", "_step", "_outcome")
    for name in names:
        db.ask("DROP TABLE IF EXISTS copy%s; CREATE TABLE copy%s (LIKE prometheus.%s INCLUDING INDEXES)"
               % (name, name, name))
    at = time.time()
    db.ask("BEGIN;" + "".join("INSERT INTO copy%s SELECT * FROM prometheus.%s WHERE task_id BETWEEN %d AND %d;"
                              % (name, name, first, last) for name in names) + "COMMIT")
    return (last - first + 1) / (time.time() - at)


@part
def drain(server, model):
    for settings, what, count, goal in (
            ({"databases": "bench"}, "drain of 50,000 echo tasks, grouped", 50000, 15000),
            ({"databases": "bench", "max_in_flight": "1"}, "drain of 5,000, one per commit", 5000, 3500)):
        server.start(**settings)
        db = server.connect("bench")
        until_idle(db)
        rates, floors, wal = [], [], []
        for _ in range(ROUNDS):
            first, last, rate, bytes_each = drain_once(db, server, count)
            rates.append(rate)
            wal.append(bytes_each)
            if "max_in_flight" in settings:
                floors.append(server.pgbench("bench", "plain", 1, 3))
            else:
                floors.append(copy_rate(db, first, last))
        table.row(what, rates, "/s", "INSERT, 1 client" if "max_in_flight" in settings else "INSERT SELECT of it",
                  floors, (">", goal))
        table.row("  WAL of a task, its submit apart", wal, "B")
        db.close()


def dead_rows(db):
    """Rows of prometheus that were updated, deleted or left by a failed transaction."""
    db.ask("SELECT pg_stat_clear_snapshot()")
    return db.number("SELECT sum(n_dead_tup + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
                     " WHERE schemaname = 'prometheus'")


@part
def snapshot(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    until_idle(db)
    before = dead_rows(db)
    rates = {False: [], True: []}
    for _ in range(ROUNDS):
        for is_held in rates:
            with Snapshot(server, "bench", is_held):
                drain_once(db, server, JOBS)
                rates[is_held].append(drain_once(db, server, JOBS)[2])
    table.row("drain of %s while a snapshot is held" % table.number(JOBS), rates[True], "/s", "none is held",
              rates[False], (">", 0.95), "ratio")
    until(lambda: db.number("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = 'prometheus._outcome'::regclass")
          >= 4 * ROUNDS * JOBS, "the statistics of it")
    table.row("  rows that died of it, of all its tables", [dead_rows(db) - before], "", goal=("<", 1))
    db.close()


BLOCKED_SQL = {
    "time": ("due in a day", "run_at => now() + '1 day'"),
    "task": ("waiting for one that is due in a day", "depends_on => ARRAY[%s]::bigint[]"),
}


@part
def blocked(server, model):
    """Beside another database of the same server, in which nothing is blocked."""
    for by in BLOCKED_BY:
        what, argument = BLOCKED_SQL[by]
        server.start(databases="bench")
        server.create("blocked")
        server.start(databases="bench,blocked", queue_memory="1GB")
        busy, free = server.connect("blocked"), server.connect("bench")
        if by == "task":
            argument %= busy.value("SELECT prometheus_submit('Not yet', run_at => now() + '1 day')")
        busy.ask("SELECT count(prometheus_submit('Not yet ' || n, %s)) FROM generate_series(1, %d) AS n"
                 % (argument, BLOCKED))
        until(lambda: int(busy.value("SELECT count(*) FROM prometheus._queue()")) >= BLOCKED, "all of them", 120, 0.1)
        rates = {free: [], busy: []}
        for _ in range(ROUNDS):
            for db, measured in rates.items():
                measured.append(drain_once(db, server, JOBS)[2])
        table.row("drain of %s beside %s" % (table.number(JOBS), table.number(BLOCKED)), rates[busy], "/s",
                  "none is blocked", rates[free], (">", 0.95), "ratio")
        table.note("which are " + what)
        for db in rates:
            db.close()
        server.start(databases="bench")
        admin = server.connect("postgres")
        admin.ask("DROP DATABASE blocked WITH (FORCE)")
        admin.close()


def our_rates(server, settings, is_held):
    """Of no-op tasks that one transaction submitted; the second of two drains."""
    server.start(databases="bench", **settings)
    db = server.connect("bench")
    until_idle(db)
    with Snapshot(server, "bench", is_held):
        drain_once(db, server, JOBS)
        rate = drain_once(db, server, JOBS)[2]
    db.close()
    return rate


@part
def peers(server, model):
    """No-op jobs that were there before, by queues from npm in the same server."""
    server.start(databases="bench")
    others = Peers(server)
    progress("installing graphile-worker and pg-boss")
    reason = others.install()
    if reason:
        table.note("graphile-worker and pg-boss: %s, left out" % reason)
        return
    cases = (("graphile", "one per commit", {"max_in_flight": "1"}), ("graphile-batched", "grouped", {}),
             ("pg-boss", "grouped", {}))
    for is_held in (False, True):
        for system, how, settings in cases:
            rates, floors = [], []
            for _ in range(ROUNDS):
                rates.append(our_rates(server, settings, is_held))
                floors.append(others.drain(system, JOBS, is_held))
            table.row("%sdrain of %s, %s" % ("  snapshot held: " if is_held else "", table.number(JOBS), how), rates,
                      "/s", NAMES[system], floors, (">", 1), "ratio")


@part
def latency(server, model):
    """From submitted_at, which is before the task is written, to the model server."""
    server.start(databases="bench")
    db = server.connect("bench")
    set_agent(db, model, "quick", "fake-fixed")
    plain = script_text("plain")
    bare = socket.create_connection(("127.0.0.1", model.port))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ids, commits, sends, returned = {}, [], {}, {}
    for warm in range(20):
        db.ask("CALL prometheus_ask('warm', 'quick')")
    model.reset()
    for n in range(600):
        time.sleep(random.uniform(0.01, 0.02))
        text = "sample %d" % n
        task_id = db.value("SELECT prometheus_submit('%s', 'quick')" % text)
        returned[text] = time.time()
        ids[text] = task_id
        if n % 3 == 0:
            time.sleep(random.uniform(0.01, 0.02))
            at = time.perf_counter()
            db.ask(plain)
            commits.append((time.perf_counter() - at) * 1000)
            sends["bare %d" % n] = time.time()
            bare.sendall(prompt("fake-fixed", "bare %d" % n))
            bare.recv(65536)
    until_idle(db)
    arrived = dict(model.arrivals())
    submitted = {str(task_id): float(at) for task_id, at in db.ask(
        "SELECT task_id, extract(epoch FROM submitted_at) FROM prometheus._task WHERE request LIKE 'sample %'"
        " AND agent = 'quick'")}
    times = [(arrived[text] - submitted[ids[text]]) * 1000 for text in ids]
    after = [(arrived[text] - returned[text]) * 1000 for text in ids]
    network = [(arrived[text] - at) * 1000 for text, at in sends.items()]
    for percent, goal in ((50, 0.8), (99, 3)):
        floor = 2 * table.percentile(commits, percent) + table.percentile(network, percent)
        table.row("submit -> request at the model, p%d" % percent, [table.percentile(times, percent)], "ms",
                  "2 commits + bare request", [floor], ("<", goal))
    table.note("after submit's commit returned: p50 %.2f, p99 %.2f ms; a commit alone: p50 %.2f, p99 %.2f ms; "
               "a bare request: p50 %.2f, p99 %.2f ms" % tuple(
                   table.percentile(values, percent) for values in (after, commits, network) for percent in (50, 99)))
    db.close()
    bare.close()


async def bare_requests(port, count, provider):
    """The same requests by the plainest of clients; seconds."""
    async def one(reader, writer, n):
        writer.write(prompt(provider, "bare %d" % n))
        await reader.read(65536)
        writer.close()
    at = time.time()
    connections = await asyncio.gather(*[asyncio.open_connection("127.0.0.1", port) for _ in range(count)])
    await asyncio.gather(*[one(reader, writer, n) for n, (reader, writer) in enumerate(connections)])
    return time.time() - at


@part
def flight(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    set_agent(db, model, "fifth", "fake-slow-200")
    set_agent(db, model, "second", "fake-slow-1000")
    times, floors = [], []
    for _ in range(ROUNDS + 2):
        first, last, at = submit_many(db, 20, "fifth")
        times.append(until_done(db, first, last) - at)
        floors.append(0.2)
    table.row("20 tasks of 200 ms", times, "s", "the model's", floors, ("<", 0.4))

    times, floors, peak, anonymous = [], [], [], []
    for _ in range(ROUNDS):
        before = worker(db, "caller")
        db.ask("SELECT pg_terminate_backend(%d)" % before)
        pid = new_worker(db, "caller", before)
        db.ask("CALL prometheus_ask('warm')")
        first, last, at = submit_many(db, 1000, "second")
        highest = 0
        until(lambda: worker_flies(db), "the first tasks")
        while worker_flies(db):
            highest = max(highest, memory(pid, "RssAnon"))
            time.sleep(0.01)
        times.append(until_done(db, first, last) - at)
        anonymous.append(highest)
        peak.append(memory(pid, "VmHWM"))
        floors.append(asyncio.run(bare_requests(model.port, 1000, "fake-slow-1000")))
    table.row("1,000 tasks of 1 s", times, "s", "a bare asyncio client", floors, ("<", 1.3))
    table.row("  the caller's peak, VmHWM", peak, "MB", goal=("<", 100))
    table.row("  of it its own, RssAnon", anonymous, "MB")
    model.reset()
    submit_many(db, 100, "second")
    until(lambda: model.get("/stats")["requests"] == 100, "100 requests at the model")
    looks, end = [], time.monotonic() + 0.5
    while time.monotonic() < end:
        looks.append(db.number("SELECT count(backend_xmin) FROM prometheus.worker JOIN pg_stat_activity USING (pid)"))
    table.row("snapshots held with 100 requests in flight", [max(looks)], "", goal=("<", 1))
    table.note("the most that any of %d looks found, in all workers" % len(looks))
    until_idle(db)
    db.close()


@part
def idle(server, model):
    server.stop()
    # A scheduler looks once for tasks without a hint after others' transactions:
    # after a second instead of 30, and during the measurement nothing ends.
    server.start(databases="bench", rescan_interval="1000")
    db = server.connect("bench")
    until(lambda: db.value("SELECT max(written_at) > pg_postmaster_start_time() FROM prometheus._checkpoint") == "t",
          "the checkpoint after the start", 60, 0.2)
    workers = {role: int(pid) for role, pid in db.ask("SELECT role, pid FROM prometheus.worker")}
    admin = server.connect("postgres")
    admin.ask("ALTER SYSTEM SET autovacuum = off")
    admin.ask("SELECT pg_reload_conf()")
    db.close()
    admin.ask("BEGIN")

    def counts():
        admin.ask("SELECT pg_stat_clear_snapshot()")
        return [float(value) for value in admin.ask(
            "SELECT xact_commit + xact_rollback, (SELECT sum(wal_records) FROM pg_stat_wal), blks_hit + blks_read"
            "  FROM pg_stat_database WHERE datname = 'bench'")[0]]

    progress("doing nothing for %d s" % IDLE)
    # A process that has gone to rest sends its counts up to ten seconds later.
    time.sleep(12)
    before, used = counts(), {role: ticks(pid) for role, pid in workers.items()}
    time.sleep(IDLE)
    after = counts()
    used = {role: ticks(pid) - used[role] for role, pid in workers.items()}
    table.row("idle for %d s: transactions" % IDLE, [after[0] - before[0]], "", goal=("<", 1))
    table.row("  CPU of all workers", [sum(used.values()) * 1000 / os.sysconf("SC_CLK_TCK")], "ms", goal=("<", IDLE))
    table.note("by process: %s; WAL records of the server: %d" % (
        ", ".join("%s %d" % item for item in used.items()), after[1] - before[1]))
    admin.ask("COMMIT")
    admin.ask("ALTER SYSTEM RESET autovacuum")
    admin.ask("SELECT pg_reload_conf()")
    admin.close()


def twenty_in_flight(db, model, agent):
    # One that ends in the second of its start is started again with a delay.
    until(lambda: db.value("SELECT now() - started_at > '2 s' FROM prometheus.worker WHERE role = 'caller'") == "t",
          "a caller that has lived for a while")
    until_idle(db)
    model.reset()
    first, last, _ = submit_many(db, 20, agent)
    in_flight(db, 20)
    until(lambda: model.get("/stats")["requests"] == 20, "20 requests at the model")
    return first, last


def arrivals_after(model, at):
    times = sorted((when - at) * 1000 for _, when in model.arrivals() if when > at)
    if len(times) != 20:
        raise AssertionError("%d requests were repeated, not 20" % len(times))
    return times


@part
def kill(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    set_agent(db, model, "second", "fake-slow-1000")
    set_agent(db, model, "patient", "fake-slow-3000")
    firsts, lasts = [], []
    for _ in range(ROUNDS + 2):
        first, last = twenty_in_flight(db, model, "second")
        pid = worker(db, "caller")
        at = time.time()
        os.kill(pid, signal.SIGTERM)
        until_done(db, first, last)
        times = arrivals_after(model, at)
        firsts.append(times[0])
        lasts.append(times[-1])
    table.row("caller ended -> its 20 tasks at the model", lasts, "ms", goal=("<", 50))
    table.row("  the first of them", firsts, "ms")

    lasts, floors = [], []
    for _ in range(ROUNDS):
        db.ask("CHECKPOINT")
        first, last = twenty_in_flight(db, model, "patient")
        pid = worker(db, "caller")
        db.ask("CHECKPOINT")
        at = time.time()
        os.kill(pid, signal.SIGKILL)
        db.close()
        until(lambda: not os.path.exists("/proc/%d" % pid), "the end of the caller")
        db = until(lambda: connected(server), "the server's return")
        floors.append((time.time() - at) * 1000)
        until_done(db, first, last)
        lasts.append(arrivals_after(model, at)[-1])
    table.row("caller killed by 9 -> its 20 tasks at the model", lasts, "ms", "server accepts again", floors,
              ("<", 1000))
    table.row("  after the server accepts again", [last - floor for last, floor in zip(lasts, floors)], "ms")
    db.close()


def connected(server):
    try:
        db = server.connect("bench")
        db.ask("SELECT 1")
        return db
    except (OSError, pg.Error):
        return None


class Listener(threading.Thread):
    """Hears, and remembers when."""

    def __init__(self, db, channel):
        super().__init__(daemon=True)
        self.db = db
        self.heard = []
        db.ask("LISTEN %s" % channel)

    def run(self):
        try:
            while True:
                self.heard.append(self.db.listen())
        except (OSError, ValueError):
            pass


def probe(server, script, channel, rate):
    """
    Milliseconds that commits take, and from them to what a listener hears of
    them, under a load of so many a second.
    """
    load = server.pgbench_start("bench", script, 4, 6, rate)
    db = server.connect("bench")
    listener = Listener(server.connect("bench"), channel)
    listener.start()
    statement = script_text(script)
    commits, took = [], []
    time.sleep(0.5)
    while load.poll() is None and len(commits) < 400:
        time.sleep(random.uniform(0.005, 0.015))
        begun = time.time()
        task_id = db.ask(statement)[0][0]
        commits.append((time.time(), task_id))
        took.append((commits[-1][0] - begun) * 1000)
    load.wait()
    db.ask("NOTIFY %s, 'end'" % channel)
    until(lambda: any(payload == "end" for _, _, payload in listener.heard), "the last notification")
    listener.db.socket.shutdown(socket.SHUT_RDWR)
    listener.join()
    db.close()
    if script == "notify":
        heard = {payload: at for at, _, payload in listener.heard}
        return took, [max(0, heard[task_id] - at) * 1000 for at, task_id in commits]
    # A hint has no content: the first that comes after the commit tells of it.
    times = [at for at, _, payload in listener.heard if payload != "end"]
    return took, [(times[bisect.bisect(times, at)] - at) * 1000 for at, _ in commits if at < times[-1]]


@part
def listen(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    hints, notifies = [], []
    for _ in range(ROUNDS):
        hints.append(probe(server, "submit", "prometheus_events", 1000))
        until_idle(db)
        notifies.append(probe(server, "notify", "bench", 1000))
    for percent, goal in ((50, 3), (99, 8)):
        table.row("commit -> LISTEN, 1,000 tasks/s, p%d" % percent,
                  [table.percentile(heard, percent) for _, heard in hints], "ms", "INSERT + NOTIFY",
                  [table.percentile(heard, percent) for _, heard in notifies], ("<", goal))
    for percent in (50, 99):
        table.row("  the submit itself, p%d" % percent, [table.percentile(took, percent) for took, _ in hints], "ms",
                  "INSERT + NOTIFY", [table.percentile(took, percent) for took, _ in notifies])
    db.close()


@part
def events(server, model):
    measure_events(server, probe)


HISTORY_SQL = """
SET synchronous_commit = off;
INSERT INTO prometheus._task (task_id, event_id, xid, submitted_at, deadline, priority, max_attempts, submitter_oid,
       submitter, agent, mode, trace_id, request, metadata)
SELECT n, n * 4, prometheus._xid(), now() - '2 days'::interval, now() - '1 day'::interval, 0, 3, 10,
       'postgres', 'default', 'fast', 'a81bc81b-dead-4e5d-abff-90865d1e13b1', 'What is to be done about ' || n, '{}'
  FROM generate_series(1, %(n)d) AS n;
INSERT INTO prometheus._attempt (task_id, attempt, xid, started_at, agent_version, model, model_version)
SELECT task_id, 1, xid, submitted_at, 1, 'echo', 1 FROM prometheus._task;
INSERT INTO prometheus._step (task_id, step, attempt, event_id, xid, started_at, ended_at, ambiguous, kind, name,
       status, model, finish_reason, answer)
SELECT task_id, 1, 1, task_id * 4 + 1, xid, submitted_at, submitted_at, false, 'chat', 'echo', 'ok', 'echo', 'stop',
       request FROM prometheus._task;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, step, outcome)
SELECT task_id, 1, task_id * 4 + 2, xid, submitted_at, 1, 1, 'completed' FROM prometheus._task;
SELECT setval('prometheus._task_id', %(n)d);
SELECT setval('prometheus._fact_id', %(n)d * 4 + 4)
"""


def boot(server, database, mode):
    """Seconds from the server's start to the start of a task that was queued before it."""
    server.start(databases="''")
    db = server.connect(database)
    task_id = db.value("SELECT prometheus_submit('Are you up?')")
    db.close()
    server.stop(mode)
    server.start(databases=database)
    db = server.connect(database)
    db.ask("SELECT prometheus_wait(%s)" % task_id)
    seconds = db.number("SELECT extract(epoch FROM started_at - pg_postmaster_start_time())"
                        "  FROM prometheus._attempt WHERE task_id = %s" % task_id)
    db.close()
    return seconds


@part
def history(server, model):
    server.stop()
    server.start(databases="''")
    for database in ("history", "young"):
        server.create(database)
    progress("writing %d tasks of history" % HISTORY)
    db = server.connect("history")
    db.ask(HISTORY_SQL % {"n": HISTORY})
    for database in ("history", "young"):
        live = server.connect(database)
        live.ask("SELECT count(prometheus_submit('Later ' || n, run_at => now() + '1 h'))"
                 "  FROM generate_series(1, 10000) AS n")
        live.ask("VACUUM ANALYZE")
        live.close()
    db.ask("CHECKPOINT")
    db.close()

    first = boot(server, "history", "fast")
    boot(server, "young", "fast")
    times, floors = [], []
    for _ in range(ROUNDS):
        times.append(boot(server, "history", "fast"))
        floors.append(boot(server, "young", "fast"))
    table.row("boot, %s tasks of history, 10,000 live" % table.number(HISTORY), times, "s", "no history", floors,
              ("<", 0.5))
    table.row("  the first time, without a checkpoint fact", [first], "s")

    server.start(databases="history")
    db = server.connect("history")
    until(lambda: db.value("SELECT count(*) FROM prometheus._queue()") == "10000", "10,000 live tasks")
    cases = (("queue by status", "SELECT status, count(*) FROM prometheus.queue GROUP BY status", 10),
             ("queue, whole", "SELECT * FROM prometheus.queue", None))
    for what, statement, goal in cases:
        times = []
        for _ in range(30):
            at = time.perf_counter()
            db.ask(statement)
            times.append((time.perf_counter() - at) * 1000)
        table.row("  prometheus.%s" % what, times[5:], "ms", goal=goal and ("<", goal))
    views, tables = [], []
    db.ask("PREPARE of_table (bigint) AS SELECT * FROM prometheus._task WHERE task_id = $1")
    db.ask("PREPARE of_view (bigint) AS SELECT * FROM prometheus.task WHERE task_id = $1")
    for _ in range(500):
        n = random.randint(1, HISTORY)
        for name, times in (("of_table", tables), ("of_view", views)):
            at = time.perf_counter()
            db.ask("EXECUTE %s(%d)" % (name, n))
            times.append((time.perf_counter() - at) * 1000)
    table.row("  one task of prometheus.task, by id", [statistics.median(views)], "ms", "one row of the table",
              [statistics.median(tables)])
    db.close()


def document(n, length=100000):
    """A document of about that many bytes, in which a little changes with n."""
    words = random.Random(1)
    vocabulary = ["".join(words.choices("etaoinshrdlu", k=words.randint(2, 9))) for _ in range(2000)]
    messages, size = [], 0
    while size < length:
        text = " ".join(words.choices(vocabulary, weights=range(2000, 0, -1), k=words.randint(20, 200)))
        messages.append({"role": "assistant", "content": text, "tokens": len(text) // 4})
        size += len(text) + 60
    return json.dumps({"step": n, "plan": "go on with %d" % (n * 7919), "messages": messages})


def timed(db, statement):
    at = time.perf_counter()
    db.ask(statement)
    return (time.perf_counter() - at) * 1000


def execution(db, statement):
    """Milliseconds in the server; the least of some, since a probe is shorter than any disturbance."""
    plan = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement
    return min(json.loads(db.value(plan))[0]["Execution Time"] for _ in range(20))


@part
def state(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    db.ask("CREATE TABLE plain_state (n int PRIMARY KEY, value jsonb)")
    saves, inserts, loads, selects = [], [], [], []
    for n in range(100 * ROUNDS):
        text = document(n)
        saves.append(timed(db, "SELECT prometheus_save_state('bench', '%s')" % text))
        inserts.append(timed(db, "INSERT INTO plain_state VALUES (%d, '%s')" % (n, text)))
        loads.append(timed(db, "SELECT prometheus_state('bench')"))
        selects.append(timed(db, "SELECT value FROM plain_state WHERE n = %d" % n))
    for what, measured, floor, floors in (("save of a state of 100 kB", saves, "INSERT of it", inserts),
                                          ("load of it", loads, "SELECT of it", selects)):
        table.row(what, [statistics.median(measured)], "ms", floor, [statistics.median(floors)], ("<", 1.3), "ratio")
    for versions in (10, 1000, 100000):
        save = "SELECT count(prometheus_save_state('past', to_jsonb(n), 'of %d')) FROM generate_series(1, %d) AS n"
        db.ask(save % (versions, versions // 2))
        db.ask("SELECT prometheus_mark('half of %d')" % versions)
        db.ask(save % (versions, versions - versions // 2))
        db.ask("SELECT prometheus_mark('all of %d')" % versions)
        at = db.value("SELECT at FROM prometheus.mark WHERE name = 'half of %d'" % versions)
        read = "SELECT prometheus_state('past', 'of %d', as_of => '%s')" % (versions, at)
        if db.value(read) != str(versions // 2):
            raise AssertionError("AS OF shows another version")
        table.row("  AS OF half of %s versions, execution" % table.number(versions), [execution(db, read)], "ms",
                  "a row by its key", [execution(db, "SELECT n FROM plain_state WHERE n = 1")], ("<", 0.1))
    db.ask("DROP TABLE plain_state")
    db.close()


part(steps)
part(full)
part(tracked)
part(traced)
part(conversation)
part(marks)
part(recall)


def soak_minute(server, db, rate, seconds):
    """A while at that many tasks a second; what is to stay as it is."""
    first = int(db.value("SELECT last_value FROM prometheus._task_id"))
    load = server.pgbench_start("bench", "submit", 8, seconds, rate)
    load.wait()
    until_idle(db)
    p50, p99 = db.ask("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)"
                      " FROM (SELECT extract(epoch FROM o.ended_at - t.submitted_at) * 1000 AS ms"
                      "  FROM prometheus._task t JOIN prometheus._outcome o USING (task_id) WHERE t.task_id > %d) x" % first)[0]
    values = {"latency p50": float(p50), "latency p99": float(p99)}
    for role in ("scheduler", "caller", "publisher"):
        values["memory of the " + role] = memory(worker(db, role), "RssAnon")
    values["dead rows"] = dead_rows(db)
    return values


@part
def soak(server, model):
    """Half of what it can, for BENCH_SOAK minutes: is the last third as the first?"""
    if SOAK == 0:
        return
    server.start(databases="bench")
    db = server.connect("bench")
    until_idle(db)
    rate = int(server.pgbench("bench", "submit", 16, 10) / 2)
    until_idle(db)
    minutes = []
    for minute in range(SOAK):
        minutes.append(soak_minute(server, db, rate, 60))
        progress("soak, minute %d: %s" % (minute + 1, minutes[-1]))
    third = max(SOAK // 3, 1)
    for what in minutes[0]:
        early = [values[what] for values in minutes[:third]]
        late = [values[what] for values in minutes[-third:]]
        unit = "ms" if "latency" in what else "MB" if "memory" in what else ""
        if what == "dead rows":
            table.row("soak: rows that died", [minutes[-1][what] - minutes[0][what]], "", goal=("<", 1))
        else:
            table.row("soak at %d/s: %s" % (rate, what), late, unit, "the first third", early, ("<", 1.2), "ratio")
    db.close()


def main():
    wanted = os.environ.get("BENCH", "").replace(",", " ").split() or [function.__name__ for function in PARTS]
    unknown = set(wanted) - {function.__name__ for function in PARTS}
    if unknown:
        sys.exit("bench: no such part: %s; there are %s"
                 % (" ".join(unknown), " ".join(function.__name__ for function in PARTS)))
    began = time.monotonic()
    server, model = Server(sys.argv[1]), Model()
    try:
        server.start(databases="''")
        for database in ("quiet", "bench"):
            server.create(database)
        server.start(databases="bench")
        db = server.connect("bench")
        print("%s\n%d CPUs, load %.2f, shared_buffers %s, fsync %s (%s), %d round(s)\n" % (
            db.value("SELECT split_part(version(), ' (', 1) || ', prometheus ' || prometheus_version()"),
            os.cpu_count(), os.getloadavg()[0], db.value("SHOW shared_buffers"), db.value("SHOW fsync"),
            db.value("SHOW wal_sync_method"), ROUNDS))
        db.close()
        table.head()
        for function in PARTS:
            if function.__name__ in wanted:
                function(server, model)
        print("\nload %.2f at the end; %d s" % (os.getloadavg()[0], time.monotonic() - began))
    finally:
        server.stop("immediate")
        model.stop()


if __name__ == "__main__":
    main()
