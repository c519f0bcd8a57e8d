"""What is measured, and beside what: a server, a model server, pgbench."""

import http.client
import json
import os
import re
import subprocess
import sys
import time

import pg

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 5432
USER = "postgres"
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '%s'
shared_preload_libraries = 'prometheus'
max_worker_processes = 16
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 1h
prometheus.allow_private_endpoints = on
"""


def until(condition, what, timeout=60, pause=0.002):
    """Wait until condition() is true."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise TimeoutError("%s: not in %d s" % (what, timeout))
        time.sleep(pause)


class Server:
    def __init__(self, directory):
        self.directory = directory
        self.data = directory + "/data"
        self.settings = None
        self.run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        with open(self.data + "/postgresql.conf", "a") as conf:
            conf.write(SETTINGS % directory)

    def run(self, *command):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit("%s: %s%s" % (" ".join(command), done.stdout, done.stderr))
        return done

    def start(self, **settings):
        """Start it, or start it again if the settings are others."""
        if settings == self.settings:
            return
        self.stop()
        options = " ".join("-c prometheus.%s=%s" % item for item in settings.items())
        # Not run(): the server inherits what it is given, and a pipe would stay open.
        command = ["pg_ctl", "-s", "-w", "-D", self.data, "-l", self.directory + "/log", "-o", options, "start"]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
            sys.exit("the server does not start:\n" + open(self.directory + "/log").read()[-2000:])
        self.settings = settings

    def stop(self, mode="fast"):
        if self.settings is not None:
            self.run("pg_ctl", "-s", "-w", "-D", self.data, "-m", mode, "stop")
            self.settings = None

    def connect(self, database, options=""):
        return pg.Connection(self.directory, PORT, USER, database, options)

    def create(self, database):
        admin = self.connect("postgres")
        admin.ask("CREATE DATABASE %s" % database)
        admin.close()
        new = self.connect(database)
        new.ask("CREATE EXTENSION prometheus")
        new.ask("CREATE TABLE bench_plain (LIKE prometheus._task)")
        new.ask("ALTER TABLE bench_plain ADD PRIMARY KEY (task_id), ALTER task_id ADD GENERATED ALWAYS AS IDENTITY")
        new.close()

    def pgbench(self, database, script, clients, seconds, *more):
        """Transactions per second."""
        done = self.run("pgbench", "-h", self.directory, "-p", str(PORT), "-U", USER, "-n", "-M", "prepared",
                        "-f", "%s/%s.sql" % (HERE, script), "-c", str(clients), "-j", str(min(clients, 2)),
                        "-T", str(seconds), *more, database)
        return float(re.search(r"tps = ([0-9.]+)", done.stdout).group(1))

    def pgbench_start(self, database, script, clients, seconds, rate):
        return subprocess.Popen(["pgbench", "-h", self.directory, "-p", str(PORT), "-U", USER, "-n", "-M", "prepared",
                                 "-f", "%s/%s.sql" % (HERE, script), "-c", str(clients), "-R", str(rate),
                                 "-T", str(seconds), database],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Snapshot:
    """Another session that holds one, as a long report would; with False, none does."""

    def __init__(self, server, database, is_held=True):
        self.db = server.connect(database)
        if is_held:
            self.db.ask("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self.db.ask("SELECT count(*) FROM pg_class")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.db.close()


class Model:
    """The model server of the tests."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, os.path.dirname(HERE) + "/fake_llm.py", "--keep", "100000"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.url = "http://127.0.0.1:%d/v1" % self.port

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def reset(self):
        self.get("/reset", "POST")

    def arrivals(self):
        """(last user message, time of arrival) of each request."""
        return [(request["body"]["messages"][-1]["content"], request["at"])
                for request in self.get("/requests") if request["body"]]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def until_idle(db):
    until(lambda: db.value("SELECT count(*) FROM prometheus._queue()") == "0", "an empty queue", 120, 0.02)


def submit_many(db, count, agent, text="n"):
    """Submit in one transaction; the first and the last id, and the time of the commit."""
    db.ask("BEGIN")
    first, last = db.ask("SELECT min(id), max(id) FROM (SELECT prometheus_submit('%s' || n, '%s') AS id"
                         "  FROM generate_series(1, %d) AS n OFFSET 0) AS new" % (text, agent, count))[0]
    at = time.time()
    db.ask("COMMIT")
    return int(first), int(last), at


def until_done(db, first, last):
    """Wait until each of these tasks is completed, once; the time of the last."""
    db.ask("SELECT prometheus_wait(%d, '2 minutes')" % last)
    count = "SELECT count(*) FROM prometheus._outcome WHERE task_id BETWEEN %d AND %d AND outcome = 'completed'"
    until(lambda: int(db.value(count % (first, last))) >= last - first + 1, "all outcomes", 120, 0.05)
    if int(db.value(count % (first, last))) != last - first + 1:
        raise AssertionError("a task has two ends")
    return db.number("SELECT extract(epoch FROM max(ended_at)) FROM prometheus._outcome"
                     " WHERE task_id BETWEEN %d AND %d" % (first, last))


def prompt(model, text):
    """A request as a plain client would send it."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def ticks(pid):
    """User and system time of a process, in clock ticks."""
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def memory(pid, name):
    """A line of /proc/PID/status, in MB."""
    with open("/proc/%d/status" % pid) as status:
        return int(re.search(name + r":\s+(\d+)", status.read()).group(1)) / 1024
