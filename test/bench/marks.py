"""What marks take up: one a second while facts change, each of them kept."""

import os
import statistics

import table
from cluster import until_idle

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
MARKS = 1000
A_DAY = 86400


def measure(server, db, running):
    """Bytes on disk and of WAL of a mark while so many transactions run."""
    sessions = [server.connect("bench") for _ in range(running)]
    for session in sessions:
        session.ask("BEGIN; SELECT pg_current_xact_id()")
    db.ask("VACUUM FREEZE prometheus._mark")
    db.ask("CHECKPOINT")
    db.ask("SELECT prometheus_mark()")
    size = "SELECT pg_total_relation_size('prometheus._mark')"
    before = db.number(size)
    wal = db.value("SELECT pg_current_wal_insert_lsn()")
    for _ in range(MARKS):
        db.ask("SELECT prometheus_mark()")
    written = db.number("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % wal)
    grown = db.number(size) - before
    for session in sessions:
        session.close()
    return grown / MARKS, written / MARKS


def marks(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    until_idle(db)
    for running in (0, 16):
        rounds = [measure(server, db, running) for _ in range(ROUNDS)]
        for what, values in zip(("marks of a day, %d transactions run" % running, "  WAL of them"), zip(*rounds)):
            table.row(what, [value * A_DAY / 1e6 for value in values], "MB")
            table.note("%.0f bytes a mark, of which there is one a second while facts change"
                       % statistics.median(values))
    db.close()
