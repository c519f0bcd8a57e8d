"""Events: emitting beside NOTIFY, until a listener hears of it, and how fast consumers read."""

import os
import time

import table

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
EVENTS = int(os.environ.get("BENCH_EVENTS") or 1000000)
BATCH = 1000


def consume(db, consumer):
    """Read all that there is, a transaction a batch; how many, and seconds."""
    count, begun = 0, time.time()
    while True:
        db.ask("BEGIN")
        given = len(db.ask("SELECT * FROM prometheus_poll('%s', %d)" % (consumer, BATCH)))
        db.ask("SELECT prometheus_ack('%s')" % consumer)
        db.ask("COMMIT")
        count += given
        if given == 0:
            return count, time.time() - begun


def emitting(server, db):
    rates = {"emit": [], "plain": [], "notify": []}
    listener = server.connect("bench")
    for _ in range(ROUNDS):
        for script in rates:
            if script == "notify":
                listener.ask("LISTEN bench")
            rates[script].append(server.pgbench("bench", script, 16, 3))
        listener.ask("UNLISTEN bench")
    listener.close()
    table.row("emit, 16 clients", rates["emit"], "/s", "plain INSERT", rates["plain"])
    table.row("  the same, beside a NOTIFY", rates["emit"], "/s", "INSERT + NOTIFY", rates["notify"], (">", 2.5), "ratio")


def hearing(server, probe):
    hints, notifies = [], []
    for _ in range(ROUNDS):
        hints.append(probe(server, "emit", "prometheus_events", 1000)[1])
        notifies.append(probe(server, "notify", "bench", 1000)[1])
    for percent, goal in ((50, 3), (99, 8)):
        table.row("emit -> LISTEN, 1,000/s, p%d" % percent, [table.percentile(heard, percent) for heard in hints], "ms",
                  "INSERT + NOTIFY", [table.percentile(heard, percent) for heard in notifies], ("<", goal))


def reading(db):
    """From the first of many events, and the end of them."""
    db.ask("SELECT prometheus_create_consumer('all', start => '-infinity')")
    for _ in range(0, EVENTS, 1000):
        db.ask("SELECT count(prometheus_emit('bench.many', '{\"n\": 1}')) FROM generate_series(1, 1000)")
    count, seconds = consume(db, "all")
    table.row("events consumed, %d a transaction" % BATCH, [count / seconds], "/s")
    times, buffers = [], []
    for _ in range(50):
        db.ask("SELECT prometheus_emit('bench.one')")
        plan = [line for line, in db.ask("EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM prometheus_poll('all')")]
        buffers += [sum(int(word.split("=")[1]) for word in line.split() if word.startswith(("hit=", "read=")))
                    for line in plan if "Buffers" in line][:1]
        times.append(float(plan[-1].split()[2]))
        db.ask("SELECT prometheus_ack('all')")
    table.row("a poll with %d events behind it" % count, [table.percentile(times, 50)], "ms")
    table.row("  pages that it reads", [table.percentile(buffers, 50)], "")


def events(server, probe):
    server.start(databases="bench")
    db = server.connect("bench")
    emitting(server, db)
    hearing(server, probe)
    reading(db)
    db.close()
