"""What the export of traces costs tasks, and how fast it is beside its receiver."""

import http.client
import http.server
import os
import threading
import time

import table
from cluster import submit_many, ticks, until, until_done, until_idle

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
TASKS = int(os.environ.get("BENCH_TRACED") or 10000)
HERTZ = os.sysconf("SC_CLK_TCK")


class Receiver:
    """It takes all, and keeps the requests as they came."""

    def __init__(self):
        self.bodies = bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server.server_address[1]

    def replay(self, bodies):
        """Send the same requests, one after the other, as a plain client; seconds."""
        client = http.client.HTTPConnection("127.0.0.1", self.port)
        at = time.monotonic()
        for body in bodies:
            client.request("POST", "/v1/traces", body,
                           {"Content-Type": "application/json", "Content-Encoding": "gzip"})
            client.getresponse().read()
        taken = time.monotonic() - at
        client.close()
        return taken


def switch(db, endpoint):
    db.ask("ALTER SYSTEM SET prometheus.otlp_endpoint = '%s'" % endpoint)
    db.ask("SELECT pg_reload_conf()")
    until(lambda: (db.value("SELECT count(*) FROM prometheus.export") == "1") == (endpoint != ""), "the export to turn")


def exported(db):
    """Wait until nothing waits; the spans so far."""
    until(lambda: db.value("SELECT lag = 0 AND waiting_since IS NULL FROM prometheus.consumer, prometheus.export"
                           " WHERE name = 'prometheus.otlp'") == "t", "the end of the export", 300, 0.01)
    return int(db.value("SELECT spans FROM prometheus.export"))


def caller_of(db):
    return int(until(lambda: db.ask("SELECT pid FROM prometheus.worker WHERE role = 'caller'"), "the caller")[0][0])


def drain(db, is_on):
    """Tasks a second, and the caller's time on the processor for each until all of it is exported, us."""
    caller = caller_of(db)
    before = ticks(caller)
    first, last, at = submit_many(db, TASKS, "default", "What is to be done about number ")
    end = until_done(db, first, last)
    if is_on:
        exported(db)
    return TASKS / (end - at), (ticks(caller) - before) / HERTZ / TASKS * 1e6


def export_again(db, receiver, since):
    """Spans a second of all that has ended since, by us and by a plain client; the caller's time for each, us."""
    caller = caller_of(db)
    spans = exported(db)
    before = ticks(caller)
    receiver.bodies.clear()
    at = time.monotonic()
    db.ask("SELECT prometheus_replay('prometheus.otlp', '%s')" % since)
    spans = exported(db) - spans
    taken = time.monotonic() - at
    used = ticks(caller) - before
    return spans / taken, spans / receiver.replay(list(receiver.bodies)), used / HERTZ / spans * 1e6


def traced(server, model):
    receiver = Receiver()
    url = "http://127.0.0.1:%d" % receiver.port
    server.start(databases="bench", trace_sample_ratio="1", otlp_metrics_interval="0")
    db = server.connect("bench")
    until_idle(db)
    rates, costs, speeds = {False: [], True: []}, {False: [], True: []}, []
    drain(db, False)
    for _ in range(ROUNDS):
        for is_on in (False, True):
            switch(db, url if is_on else "")
            since = db.value("SELECT clock_timestamp()")
            rate, cost = drain(db, is_on)
            rates[is_on].append(rate)
            costs[is_on].append(cost)
        speeds.append(export_again(db, receiver, since))
    switch(db, "")
    db.ask("ALTER SYSTEM RESET prometheus.otlp_endpoint")
    table.row("drain of %s tasks, traced" % table.number(TASKS), rates[True], "/s", "the same untraced", rates[False])
    table.row("  the caller's CPU of a task, export and all", costs[True], "us", "the same untraced", costs[False])
    ours, floors, used = zip(*speeds)
    table.row("  export of spans that wait", ours, "/s", "a plain client", floors, (">", 10000))
    table.row("  the caller's CPU of a span", used, "us")
    receiver.server.shutdown()
    db.close()
