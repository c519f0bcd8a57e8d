#!/usr/bin/env python3
"""Serves what prometheus_metrics() says to a monitoring system, at
http://127.0.0.1:PORT/metrics.  PORT 0: a free one, which is printed.

    exporter.py "dbname=app user=monitor" [PORT]

The user is a member of pg_monitor, and needs nothing else.
"""

import http.server
import sys

import psycopg2

FORMATS = {
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "text": "text/plain; version=0.0.4; charset=utf-8",
}


def read_metrics(where, name):
    """In a session of its own: a server that restarts is no matter."""
    connection = psycopg2.connect(
        where, connect_timeout=5, client_encoding="utf8", application_name="exporter",
        options="-c statement_timeout=5s")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT prometheus_metrics(%s)", (name,))
            return cursor.fetchone()[0].encode()
    finally:
        connection.close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        asked = self.headers.get("Accept", "")
        name = "openmetrics" if "application/openmetrics-text" in asked else "text"
        try:
            body = read_metrics(self.server.where, name)
        except psycopg2.Error as error:
            self.log_error("%s", str(error).strip())
            self.send_error(503, explain="The database does not answer; see the exporter's own messages.")
            return
        self.send_response(200)
        self.send_header("Content-Type", FORMATS[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """What went well is not worth a line."""


def main(where, port=9187):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.where = where
    print("listening on port", server.server_port, flush=True)
    server.serve_forever()


main(*sys.argv[1:])
