#!/usr/bin/env python3
"""A receiver of OTLP/HTTP in JSON that misbehaves on request.

    fake_collector.py [--tls CERT KEY]

It listens on 127.0.0.1 only, prints its port as one line when it is ready, and
ends when its standard input closes.  POST /PREFIX/v1/traces, or v1/metrics, is answered
by the next behaviour that was asked for, or 200 {}.

POST /behave takes a JSON list of these, each an object of

    status, headers, body      the response (200, none, {})
    how: "cut"                 it says more than it sends, and closes
         "close"               it closes without a response
         "hang"                it never answers
         "long"                a body of 5 MB
    times                      so often (1)

GET /requests is a JSON list of the POSTs: when, path, headers, the body as it
was decoded ("raw": as text; "json"), and the status that was answered (0: none).
"""
import argparse
import gzip
import json
import os
import socketserver
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

LOCK = threading.Lock()
BEHAVIOURS = []
REQUESTS = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=None, length=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def do_GET(self):
        with LOCK:
            body = json.dumps(REQUESTS).encode()
        self.reply(200, body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/behave":
            with LOCK:
                wanted = json.loads(body)
                if not wanted:
                    BEHAVIOURS.clear()
                for one in wanted:
                    BEHAVIOURS.extend([one] * one.pop("times", 1))
            self.reply(200, b"{}")
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        with LOCK:
            behaviour = BEHAVIOURS.pop(0) if BEHAVIOURS else {}
            how = behaviour.get("how")
            status = behaviour.get("status", 200)
            REQUESTS.append({
                "at": time.monotonic(), "path": self.path, "raw": body.decode(), "json": json.loads(body),
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "status": 0 if how in ("cut", "close", "hang") else status})
        self.behave(behaviour, how, status)

    def behave(self, behaviour, how, status):
        self.close_connection = how is not None
        if how == "hang":
            time.sleep(3600)
        elif how == "cut":
            self.reply(status, b'{"partial', length=1000)
        elif how == "long":
            self.reply(status, b" " * (5 * 1024 * 1024))
        elif how != "close":
            self.reply(status, behaviour.get("body", "{}").encode(), behaviour.get("headers"))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", nargs=2)
    arguments = parser.parse_args()
    server = Server(("127.0.0.1", 0), Handler)
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
