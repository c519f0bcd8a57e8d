"""Changes of tracked tables beside those of others, and of periods, if Debian's postgresql-NN-periods is there."""

import os
import statistics

import table

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
CHANGES = 4000
ROWS = 1000
STATE = "jsonb_build_object('n', 0, 'words', (SELECT string_agg(md5(j::text), '') FROM generate_series(1, 25) AS j))"
CHANGE = "UPDATE %s SET state = jsonb_set(state, '{n}', to_jsonb((state ->> 'n')::int + 1))"
ONE_BY_ONE = "DO $$BEGIN FOR i IN 1..%d LOOP " + CHANGE + " WHERE id = i %% %d + 1; COMMIT; END LOOP; END$$"


def on_cpu(pid):
    """Time that a process was on a processor, microseconds."""
    with open("/proc/%d/schedstat" % pid) as stat:
        return int(stat.read().split()[0]) / 1000


def measure(db, pid, statement, changes):
    """Microseconds on the processor, and bytes of WAL, for each change."""
    wal = db.value("SELECT pg_current_wal_insert_lsn()")
    before = on_cpu(pid)
    db.ask(statement)
    spent = on_cpu(pid) - before
    written = float(db.value("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % wal))
    return spent / changes, written / changes


def make(db, name, track):
    db.ask("CREATE TABLE %s (id int PRIMARY KEY, state jsonb)" % name)
    db.ask("INSERT INTO %s SELECT i, %s FROM generate_series(1, %d) AS i" % (name, STATE, ROWS))
    for statement in track:
        db.ask(statement % name)


def tracked(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    pid = db.number("SELECT pg_backend_pid()")
    names = {"untracked": (), "tracked": ("SELECT prometheus_track('%s')",)}
    if db.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'periods'") == "1":
        db.ask("CREATE EXTENSION periods CASCADE")
        names["periods"] = ("SELECT periods.add_system_time_period('%s')",
                            "SELECT periods.add_system_versioning('%s')")
    for name, track in names.items():
        make(db, name, track)
    db.ask("SET synchronous_commit = off")
    db.ask("VACUUM ANALYZE")
    single = {name: [] for name in names}
    many = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            single[name].append(measure(db, pid, ONE_BY_ONE % (CHANGES, name, ROWS), CHANGES))
            many[name].append(measure(db, pid, CHANGE % name, ROWS))
    for what, rounds in (("a tracked UPDATE of a row", single), ("one of %d rows, each" % ROWS, many)):
        for name in names:
            if name != "tracked":
                table.row(what, [cpu for cpu, _ in rounds["tracked"]], "us CPU", name,
                          [cpu for cpu, _ in rounds[name]], ("<", 0.5) if name == "periods" else None, "ratio")
        table.row("  WAL", [statistics.median(wal for _, wal in rounds["tracked"])], "bytes", "untracked",
                  [statistics.median(wal for _, wal in rounds["untracked"])])
    db.ask("SELECT prometheus_mark()")
    changes = db.number("SELECT count(*) FROM prometheus._row_version")
    rows = "EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM prometheus_rows_at(NULL::tracked, clock_timestamp())"
    plan = [line[0] for line in db.ask(rows)]
    table.row("rows_at: %d rows, %s versions" % (ROWS, table.number(changes)),
              [float(plan[-1].split()[2])], "ms")
    db.ask("RESET synchronous_commit")
    for name in names:
        db.ask("DROP TABLE %s CASCADE" % name)
    db.close()
