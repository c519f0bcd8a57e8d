#!/usr/bin/env python3
"""A model server for tests, the demo and benchmarks: chat completions by script, the formats of fake_formats.py, and
embeddings (fake_embeddings.py).

    fake_llm.py [--port N] [--tls CERT KEY] [--keep N] [--stay]

It listens on 127.0.0.1 only, prints its port as one line when it is ready, and
ends when its standard input closes (not with --stay) or on SIGTERM.  How a
request is answered is chosen by its "model", so tests need no control channel
and do not disturb each other.  With "stream": true a good answer is streamed.

    fake-echo                  the last user message
    fake-fixed                 "The answer is 42."
    fake-slow-MS               the last user message, after MS milliseconds
    fake-tokens-MS             streams one word each MS milliseconds
    fake-lines                 the n-th line of the last user message at its
                               n-th request, or the last line
    fake-headers[-MS]          "ok", with the headers that the last user message
                               says, a JSON object; "in S" as a value is the time
                               in S seconds (RFC 3339); and MS milliseconds after
                               the headers
    fake-auth                  "authorized" if the key is "test-key", else 401
    fake-long-N                an answer of N bytes
    fake-counsel-N             the counsel of a reviewer, of confidence N / 100
    fake-mind[-score-N]        an agent in full mode: it answers by the schema that
                               is asked for with a plan, a reflection (of score
                               N / 100) or counsel; else as fake-tools if the
                               last user message is a list, or echoes it
    fake-mind-WHAT-HOW         the same, but a plan or reflect (WHAT) is a
                               tool call, a text, tiny numbers, never answered
                               (hang) or HTTP NNN; chat: HTTP NNN once after a turn
    fake-tools                 the last user message is a JSON list of turns, as
                               create_scripted_model() of PromCluster.pm has it
    fake-tools-lost-N[-N...]   the same, but the first request after N turns is
                               never answered
    fake-tools-fail-N          the same, but after N turns HTTP 500
    any other name without "fake-" in front: as fake-echo

    fake-NNN                   HTTP NNN with an error in OpenAI's form
    fake-NNN-then-ok[-N]       the first N (1) requests with the same last user
                               message get HTTP NNN, then it echoes
    fake-429[-FORM][-then-ok[-N]]  with Retry-After in the form seconds (0.3),
                               whole (1), date (2 s ahead), past (a date that
                               has passed), ms (retry-after-ms: 200), nonsense,
                               none; just fake-429: seconds
    fake-429-quota             429 insufficient_quota
    fake-401                   its message has a part of a key in it
    fake-402                   402 billing_error
    fake-413-html              413 with HTML
    fake-filter-400            400 with error.code content_filter
    fake-quote-prompt          400 whose message quotes the prompt
    fake-quote-key             400 whose message quotes the key
    fake-retry-true-400        400 with x-should-retry: true
    fake-retry-false-500       500 with x-should-retry: false
    fake-cut-error             500 whose body is cut off
    fake-vllm-error            400, {"object": "error", "code": 400, ...}
    fake-string-error          400, {"error": "text"}
    fake-detail-error          400, {"detail": "text"}
    fake-array-error           400, [{"error": {...}}]
    fake-int-code              400, error.code is a number
    fake-error-200             200 whose body is an error
    fake-quota-200             200 whose body is an error of money
    fake-redirect              307 to /elsewhere (which counts its requests)

    fake-html-200              200 with HTML
    fake-not-json              200 with text
    fake-no-choices            200 without a choice
    fake-no-finish             200 without finish_reason
    fake-no-body               200 with an empty body
    fake-array-content         content as a list of parts
    fake-cut-midway            a body shorter than its Content-Length
    fake-cut-json              well delimited, but half a JSON document
    fake-cut-stream            a stream that breaks off
    fake-huge-MB               a reply of so many megabytes
    fake-gzip                  a compressed reply
    fake-gzip-bomb             16 MB of JSON in 16 kB
    fake-empty                 an empty answer with finish_reason stop
    fake-refusal, fake-filter, fake-length, fake-toolcall
    fake-tool-stop             tool calls with finish_reason stop
    fake-tool-text             a tool call and a text
    fake-finish-WORD           finish_reason WORD
    fake-nul                   \\u0000 in the answer
    fake-surrogate             a lone surrogate in the answer
    fake-bad-utf8              bytes that are not UTF-8 in the answer
    fake-control               raw control characters in the answer
    fake-bigint                large numbers in unknown members
    fake-deep                  10,000 levels of nesting in an unknown member
    fake-deeper                1,000,000 levels
    fake-reasoning             unknown members that must be kept
    fake-bom                   a byte order mark before the JSON

    fake-hang-before-headers   never answers
    fake-hang-after-headers    headers only
    fake-hang-mid-body         half a body (half a stream)
    fake-falter                streams up to what has STOP in it, and no further
    fake-dribble               one byte of the body each 5 ms
    fake-late-headers-MS       headers at once, the body after MS milliseconds
    fake-reset                 closes the connection with a reset, no reply
    fake-close                 closes the connection, no reply
    fake-garbage               something that is not HTTP
    fake-long-header           1 MB of headers
    fake-close-after           answers, says keep-alive, closes the connection
    fake-close-next            answers, closes at the connection's next request
    fake-stale                 a connection's first request: as fake-echo; any
                               later one is read, and the connection closed
    fake-poison-MS             closes the connection, no reply, after MS
                               milliseconds if the last user message has POISON
                               in it; else as fake-echo

    fake-stream-FORM           streams whatever "stream" says; FORM: crlf, cr,
                               bytes (a write for each byte), comments, error
                               (in mid-stream), error-first, no-usage, no-done,
                               no-space, no-finish, cut-after-finish,
                               hang-after-done, bad-json, json (one JSON
                               document instead), toolcall, reasoning, pair (a
                               surrogate pair in two pieces), split (a character
                               in two writes), bom, long-line, text-plain, gzip

Endpoints that are tools, of any method: /tool/WORD, and whatever after it.
    echo                       what came: method, path, body
    slow/MS                    the same after MS milliseconds
    hang                       never answers; hang-once: the first on that path
    close                      closes the connection, no reply
    half, cut                  half a body, and then nothing, or the end
    status/NNN                 that status; the body says what the key was
    huge/N                     N bytes
    utf8, image, empty         text that is not UTF-8; an image; HTTP 204
    key                        the headers that came, as JSON

Receivers of webhooks: POST /hook/WORD, and whatever after it.  Each checks the
signature, of the key HOOK_KEY, and answers 401 if it is there and not right;
the body of an answer says what it was: signed or unsigned.
    ok, then an answer of HTTP 200
    slow/MS                    the same after MS milliseconds
    hang, reset                never answers; resets the connection
    status/NNN[/N]             that status, the first N times (else always);
                               302: to /elsewhere; 429, 503: Retry-After: 1

Other paths: GET /requests, a list of the requests seen (the last --keep,
10,000): {n, method, path, headers, body, at, connection}; GET /stats, counts
{requests, answered, open, max_open, dropped, connections, elsewhere}; POST
/reset forgets both; POST /hang opens a port that is never accepted from or
read from and answers {"port": N, "full": M} (the backlog of M is full).
"""

import argparse
import asyncio
import base64
import collections
import email.utils
import gzip
import hashlib
import hmac
import json
import math
import os
import re
import signal
import socket
import ssl
import sys
import time

import fake_embeddings
import fake_formats

ANSWER = "The answer is 42."
REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized",
           402: "Payment Required", 403: "Forbidden", 404: "Not Found", 413: "Payload Too Large",
           429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}
HOOK_KEY = b"a key of the tests, 32 bytes long"
JSON = b"application/json"
SSE = b"text/event-stream"


class State:
    """What the server has seen since its start or the last /reset."""

    def __init__(self, keep):
        self.requests = collections.deque(maxlen=keep)
        self.open = 0
        self.connections = 0
        self.hanging = []
        self.reset()

    def reset(self):
        self.requests.clear()
        self.count = 0
        self.answered = 0
        self.dropped = 0
        self.elsewhere = 0
        self.max_open = self.open
        self.attempts = collections.Counter()


STATE = None
BEHAVIOURS = []


def behaviour(pattern):
    """Register an answer for the models whose names match."""
    def register(function):
        BEHAVIOURS.append((re.compile(pattern + r"\Z"), function))
        return function
    return register


class Request:
    __slots__ = ("method", "path", "headers", "raw", "at", "connection", "n", "body", "model", "stream", "keep_alive",
                 "form", "extra", "embeds")

    def last_user(self):
        if self.embeds:
            return json.dumps(self.body["input"])
        for message in reversed(self.body.get("messages", ())):
            if message.get("role") == "user":
                content = message.get("content")
                return content if isinstance(content, str) else json.dumps(content)
        return ""

    def as_json(self):
        try:
            body = json.loads(self.raw) if self.raw else None
        except ValueError:
            body = self.raw.decode("latin-1")
        seen = {"n": self.n, "method": self.method, "path": self.path, "headers": self.headers,
                "body": body, "at": self.at, "connection": self.connection}
        if self.path.startswith("/hook/"):
            seen["raw"] = self.raw.decode()
        return seen


class Connection(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self):
        self.buffer = b""
        self.request = None     # being answered
        self.task = None
        self.timer = None
        self.doomed = False     # closes at the next request
        self.answered = 0

    def connection_made(self, transport):
        self.transport = transport
        STATE.connections += 1
        self.number = STATE.connections
        STATE.open += 1
        STATE.max_open = max(STATE.max_open, STATE.open)

    def connection_lost(self, exc):
        STATE.open -= 1
        if self.request is not None:
            STATE.dropped += 1
            self.request = None
        if self.timer:
            self.timer.cancel()
        if self.task:
            self.task.cancel()

    def data_received(self, data):
        if self.doomed:
            return self.transport.close()
        self.buffer = self.buffer + data if self.buffer else data
        if self.request is None:
            self.next_request()

    def next_request(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if len(self.buffer) < end + 4 + length:
            return
        request = Request()
        request.form = None
        request.extra = ()
        request.method, request.path, _ = lines[0].split(" ", 2)
        request.headers = headers
        request.raw = self.buffer[end + 4:end + 4 + length]
        self.buffer = self.buffer[end + 4 + length:]
        request.at = time.time()
        request.connection = self.number
        request.keep_alive = headers.get("connection", "").lower() != "close"
        self.request = request
        self.handle(request)

    def handle(self, request):
        path = request.path.partition("?")[0]
        if path == "/requests":
            return self.send_json([r.as_json() for r in STATE.requests])
        if path == "/stats":
            return self.send_json({"requests": STATE.count, "answered": STATE.answered, "open": STATE.open,
                                   "max_open": STATE.max_open, "dropped": STATE.dropped,
                                   "connections": STATE.connections, "elsewhere": STATE.elsewhere})
        if path == "/reset":
            STATE.reset()
            return self.send_json({})
        if path == "/hang":
            return self.send_json(open_hanging_port())
        STATE.count += 1
        request.n = STATE.count
        STATE.requests.append(request)
        if path == "/elsewhere":
            STATE.elsewhere += 1
        if path.startswith("/hook/"):
            return self.answer_hook(request, path.split("/")[2:])
        if path.startswith("/tool/"):
            return self.answer_tool(request, path.split("/")[2:])
        request.form, match = fake_formats.find(path)
        request.embeds = path.endswith("/embeddings")
        if request.method != "POST" or not (request.form or request.embeds or path.endswith("/chat/completions")):
            return self.send_error(404, "no such path", "not_found_error")
        try:
            request.body = json.loads(request.raw)
            if request.form:
                request.body = request.form.read(request.body, match, request.path.partition("?")[2], request.headers)
            request.model = request.body["model"]
            request.stream = bool(request.body.get("stream"))
        except fake_formats.Wrong as wrong:
            return self.send_error(400, str(wrong))
        except (ValueError, KeyError, TypeError):
            return self.send_error(400, "the request is not a JSON object with a model", "invalid_request_error")
        if not (request.embeds and fake_embeddings.answer(self, request)):
            self.answer(request)

    def answer_hook(self, request, words):
        """A receiver of webhooks: its path says how it behaves."""
        what = words[0]
        signed = check_signature(request)
        STATE.attempts[request.path] += 1
        if signed is False:
            return self.send_body(b"wrong signature", 401, b"text/plain")
        text = b"unsigned" if signed is None else b"signed"
        if what == "hang":
            return
        if what == "reset":
            return self.close(abort=True)
        if what == "slow":
            self.timer = asyncio.get_running_loop().call_later(
                int(words[1]) / 1000, self.send_body, text, 200, b"text/plain")
            return
        if what == "status" and (len(words) == 2 or STATE.attempts[request.path] <= int(words[2])):
            extra = {302: ["Location: /elsewhere"], 429: ["Retry-After: 1"], 503: ["Retry-After: 1"]}
            return self.send_body(text, int(words[1]), b"text/plain", extra.get(int(words[1]), []))
        self.send_body(text, 200, b"text/plain")

    def answer_tool(self, request, words):
        """An endpoint that is a tool: its path says how it behaves."""
        what = words[0]
        STATE.attempts[request.path] += 1
        if what == "hang" or (what == "hang-once" and STATE.attempts[request.path] == 1):
            return
        if what == "close":
            return self.close()
        if what == "half":
            return self.write(self.head(200, JSON, 100) + b"{")
        if what == "cut":
            self.write(self.head(200, JSON, 100) + b"{")
            return self.close()
        if what == "status":
            status = int(words[1])
            extra = {302: ["Location: /elsewhere"], 503: ["Retry-After: 7"]}.get(status, [])
            body = ("status %d, you sent %s" % (status, request.headers.get("authorization"))).encode()
            return self.send_body(body, status, b"text/plain", extra)
        if what == "huge":
            return self.send_body(b"x" * int(words[1]), 200, b"text/plain; charset=utf-8")
        if what == "utf8":
            return self.send_body(b"a\xffb\x00c\xc3\xa9", 200, b"text/plain")
        if what == "image":
            return self.send_body(b"\x89PNG", 200, b"image/png")
        if what == "empty":
            return self.send_body(b"", 204, JSON)
        if what == "key":
            return self.send_body(json.dumps(request.headers).encode(), 200, b"application/problem+json")
        if what == "slow":
            self.timer = asyncio.get_running_loop().call_later(int(words[1]) / 1000, self.send_tool, request)
            return
        self.send_tool(request)

    def send_tool(self, request):
        body = request.raw.decode()
        self.send_body(("%s %s %s" % (request.method, request.path, body)).strip().encode(), 200, b"text/plain")

    def answer(self, request):
        model = request.model
        if model == "fake-echo" or not model.startswith("fake-"):
            return self.send_answer(request.last_user())
        for pattern, function in BEHAVIOURS:
            match = pattern.match(model)
            if match:
                result = function(self, request, *match.groups())
                if result is not None:
                    self.task = asyncio.ensure_future(result)
                return
        self.send_error(404, "The model `%s` does not exist" % model, "invalid_request_error", "model_not_found")

    # Sending.

    def write(self, data):
        self.transport.write(data)

    def finished(self):
        """The answer is complete: on to the next request."""
        request, self.request, self.task, self.timer = self.request, None, None, None
        self.answered += 1
        STATE.answered += 1
        if request is not None and not request.keep_alive:
            self.transport.close()
        elif self.buffer:
            self.next_request()

    def close(self, abort=False):
        """Break off."""
        self.request = None
        if abort:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.transport.abort()
        else:
            self.transport.close()

    def head(self, status, content_type, length, extra=()):
        lines = ["HTTP/1.1 %d %s" % (status, REASONS.get(status, "Status")),
                 "Content-Type: %s" % content_type.decode(), "x-request-id: req-%d" % getattr(self.request, "n", 0),
                 "Transfer-Encoding: chunked" if length is None else "Content-Length: %d" % length]
        lines.extend(extra)
        lines.extend(getattr(self.request, "extra", ()))
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def send_body(self, body, status=200, content_type=JSON, extra=()):
        self.write(self.head(status, content_type, len(body), extra) + body)
        self.finished()

    def send_json(self, value, status=200, extra=()):
        if not hasattr(self.request, "n"):
            self.request.n = 0
        self.send_body(json.dumps(value).encode(), status, JSON, extra)

    def send_error(self, status, message, error_type="invalid_request_error", code=None, extra=()):
        if not hasattr(self.request, "n"):
            self.request.n = 0
        if self.request.form:
            return self.send_json(self.request.form.error(status, message, error_type, code), status, extra)
        self.send_json({"error": {"message": message, "type": error_type, "param": None, "code": code}}, status, extra)

    def send_answer(self, text, **more):
        if self.request.embeds:
            return self.send_json(fake_embeddings.reply(self.request.body))
        if self.request.stream:
            self.write(self.head(200, SSE, None) + chunk(stream_of(self.request, text, **more)) + b"0\r\n\r\n")
        else:
            body = completion(self.request, text, **more)
            self.write(self.head(200, JSON, len(body)) + body)
        self.finished()

    async def trickle(self, pieces, pause, last=b"0\r\n\r\n"):
        """Send a stream piece by piece."""
        self.write(self.head(200, SSE, None))
        for piece in pieces:
            self.write(chunk(piece))
            await asyncio.sleep(pause)
        self.write(last)
        self.finished()


def check_signature(request):
    """As Standard Webhooks say; None: there is no signature."""
    signatures = request.headers.get("webhook-signature")
    if signatures is None:
        return None
    signed = b".".join([request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.raw])
    digest = base64.b64encode(hmac.new(HOOK_KEY, signed, hashlib.sha256).digest()).decode()
    recent = abs(time.time() - int(request.headers["webhook-timestamp"])) < 300
    return recent and any(hmac.compare_digest("v1," + digest, s) for s in signatures.split())


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def usage_of(request, text):
    # As on real servers, tokens are a few bytes each.
    tokens_in = sum(len(str(m.get("content") or "")) for m in request.body.get("messages", ())) // 4 + 1
    tokens_out = len(text or "") // 4 + 1
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 1}}


def completion(request, text, finish="stop", message=None, **top):
    if message is None:
        message = {"role": "assistant", "content": text, "refusal": None}
    if request.form:
        return json.dumps(request.form.reply(request, message, finish, usage_of(request, text))).encode()
    return json.dumps(dict({"id": "chatcmpl-%d" % request.n, "object": "chat.completion", "created": int(request.at),
                            "model": request.model,
                            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
                            "usage": usage_of(request, text)}, **top)).encode()


def raw_completion(request, message, finish=b'"stop"'):
    """A completion whose message is given as bytes."""
    return (b'{"id":"chatcmpl-%d","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
            b'"finish_reason":%s,"message":%s}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'
            % (request.n, finish, message))


def event(value):
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def piece(request, delta, finish=None):
    return event({"id": "chatcmpl-%d" % request.n, "object": "chat.completion.chunk", "created": int(request.at),
                  "model": request.model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def raw_piece(delta, finish=b"null"):
    return event(b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}'
                 % (delta, finish))


def last_pieces(request, text, finish="stop", usage=True, done=True):
    pieces = [piece(request, {}, finish)]
    if usage:
        pieces.append(event({"id": "chatcmpl-%d" % request.n, "object": "chat.completion.chunk", "choices": [],
                             "usage": usage_of(request, text)}))
    if done:
        pieces.append(b"data: [DONE]\n\n")
    return pieces


def words_of(text):
    return re.findall(r"\S+\s*|\s+", text) or [""]


def pieces_of(request, text, finish="stop", usage=True, done=True, deltas=None, message=None):
    if request.form:
        return request.form.pieces(request, message or {"content": text}, finish, usage_of(request, text))
    if deltas is None:
        deltas = [{"role": "assistant", "content": ""}]
        # Long answers in few pieces, so that the server does not slow down what it measures.
        words = words_of(text)
        step = max(1, len(words) // 64)
        deltas += [{"content": "".join(words[i:i + step])} for i in range(0, len(words), step)]
    return [piece(request, delta) for delta in deltas] + last_pieces(request, text, finish, usage, done)


def stream_of(request, text, finish="stop", message=None, **_):
    deltas = None
    if message is not None:
        deltas = [message]
    return b"".join(pieces_of(request, text, finish, deltas=deltas, message=message))


def open_hanging_port():
    """A port that completes no request, and one whose backlog is full: it completes no connection."""
    quiet = socket.socket()
    quiet.bind(("127.0.0.1", 0))
    quiet.listen(1000)
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(full.getsockname())
        STATE.hanging.append(client)
    STATE.hanging += [quiet, full]
    return {"port": quiet.getsockname()[1], "full": full.getsockname()[1]}


# Good answers.

@behaviour("fake-fixed")
def fixed(c, r):
    c.send_answer(ANSWER)


@behaviour(r"fake-slow-(\d+)")
def slow(c, r, ms):
    c.timer = asyncio.get_running_loop().call_later(int(ms) / 1000, lambda: c.send_answer(r.last_user()))


@behaviour(r"fake-tokens-(\d+)")
async def tokens(c, r, ms):
    await c.trickle(pieces_of(r, r.last_user()), int(ms) / 1000)


@behaviour("fake-lines")
def lines(c, r):
    text = r.last_user().split("\n")
    key = (r.model, r.last_user())
    STATE.attempts[key] += 1
    c.send_answer(text[min(STATE.attempts[key], len(text)) - 1])


@behaviour("fake-auth")
def auth(c, r):
    key = r.headers.get("authorization", "")
    if key == "Bearer test-key" or r.headers.get("api-key") == "test-key":
        c.send_answer("authorized")
    else:
        c.send_error(401, "Incorrect API key provided: %s" % key.replace("Bearer ", ""), code="invalid_api_key")


@behaviour(r"fake-counsel-(\d+)")
def counsel(c, r, hundredths):
    virtues = "humility patience service gentleness prudence courage truthfulness".split()
    said = {virtue: 0.8 for virtue in virtues}
    said.update(confidence=int(hundredths) / 100, counsel="Mind it.", suggestions=["Do less."])
    c.send_answer(json.dumps(said))


@behaviour(r"fake-long-(\d+)")
def long_answer(c, r, size):
    c.send_answer("word " * (int(size) // 5) + "x" * (int(size) % 5))


# Errors by status.

def retry_after(form):
    now = time.time()
    return {"seconds": ["Retry-After: 0.3"], "whole": ["Retry-After: 1"],
            "date": ["Date: " + email.utils.formatdate(now, usegmt=True),
                     "Retry-After: " + email.utils.formatdate(now + 2, usegmt=True)],
            "past": ["Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"],
            "ms": ["retry-after-ms: 200", "Retry-After: 5"],
            "nonsense": ["Retry-After: soon, I hope"], "none": []}[form]


def is_served(r, times):
    """Has this request been made often enough to be answered?"""
    key = (r.model, r.last_user())
    STATE.attempts[key] += 1
    return STATE.attempts[key] > int(times or 1)


@behaviour(r"fake-429(?:-(seconds|whole|date|past|ms|nonsense|none))?(?:-(then-ok)(?:-(\d+))?)?")
def rate_limit(c, r, form, then, times):
    if then and is_served(r, times):
        return c.send_answer(r.last_user())
    c.send_error(429, "Rate limit reached for requests", "requests", "rate_limit_exceeded",
                 retry_after(form or "seconds"))


@behaviour("fake-429-quota")
def quota(c, r):
    c.send_error(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota")


@behaviour("fake-401")
def unauthorized(c, r):
    c.send_error(401, "Incorrect API key provided: sk-proj-1234567890abcdefghijklmnop1234. You can find your key "
                 "at the usual place.", code="invalid_api_key")


@behaviour("fake-402")
def billing(c, r):
    c.send_error(402, "Insufficient balance", "billing_error")


@behaviour("fake-413-html")
def too_large(c, r):
    c.send_body(b"<html><head><title>413 Request Entity Too Large</title></head></html>", 413, b"text/html")


@behaviour("fake-filter-400")
def filter_400(c, r):
    c.send_error(400, "The prompt was filtered", None, "content_filter")


@behaviour("fake-quote-prompt")
def quote_prompt(c, r):
    c.send_error(400, "Invalid content: '%s' is not acceptable here" % r.last_user())


@behaviour("fake-quote-key")
def quote_key(c, r):
    key = r.headers.get("authorization", "").replace("Bearer ", "")
    c.send_error(400, "Bad key %s, or as we write it %s...%s in header Authorization: Bearer %s"
                 % (key, key[:10], key[-4:], key))


@behaviour("fake-retry-true-400")
def retry_true(c, r):
    c.send_error(400, "try again", extra=["x-should-retry: true"])


@behaviour("fake-retry-false-500")
def retry_false(c, r):
    c.send_error(500, "do not try again", "server_error", extra=["x-should-retry: false"])


@behaviour("fake-cut-error")
def cut_error(c, r):
    c.write(c.head(500, JSON, 1000) + b'{"error":{"message":"cut off')
    c.close()


@behaviour("fake-vllm-error")
def vllm_error(c, r):
    c.send_json({"object": "error", "message": "vLLM says no", "type": "BadRequestError", "param": None, "code": 400}, 400)


@behaviour("fake-string-error")
def string_error(c, r):
    c.send_json({"error": "just a string"}, 400)


@behaviour("fake-detail-error")
def detail_error(c, r):
    c.send_json({"detail": "just a detail"}, 400)


@behaviour("fake-array-error")
def array_error(c, r):
    c.send_json([{"error": {"code": 400, "message": "in an array", "status": "INVALID_ARGUMENT"}}], 400)


@behaviour("fake-int-code")
def int_code(c, r):
    c.send_json({"error": {"code": 400, "message": "llama.cpp says no", "type": "invalid_request_error"}}, 400)


@behaviour("fake-error-200")
def error_200(c, r):
    c.send_json({"error": {"message": "inner trouble", "type": "server_error", "code": 500}})


@behaviour("fake-quota-200")
def quota_200(c, r):
    c.send_json({"error": {"message": "no money", "type": "insufficient_quota", "code": "insufficient_quota"}})


@behaviour("fake-redirect")
def redirect(c, r):
    host = r.headers.get("host", "127.0.0.1")
    c.send_body(b"", 307, b"text/plain", ["Location: http://%s/elsewhere" % host])


@behaviour(r"fake-(\d\d\d)(?:-(then-ok)(?:-(\d+))?)?")
def status_error(c, r, status, then, times):
    if then and is_served(r, times):
        return c.send_answer(r.last_user())
    status = int(status)
    c.send_error(status, "error %d as asked for" % status, "server_error" if status >= 500 else "invalid_request_error")


# Replies that are none.

@behaviour("fake-html-200")
def html_200(c, r):
    c.send_body(b"<!DOCTYPE html><html><body>Welcome to the proxy</body></html>", 200, b"text/html; charset=utf-8")


@behaviour("fake-not-json")
def not_json(c, r):
    c.send_body(b"this is not { json")


@behaviour("fake-no-choices")
def no_choices(c, r):
    c.send_json({"id": "x", "object": "chat.completion", "choices": []})


@behaviour("fake-no-finish")
def no_finish(c, r):
    c.send_body(raw_completion(r, b'{"role":"assistant","content":"x"}', b"null"))


@behaviour("fake-no-body")
def no_body(c, r):
    c.send_body(b"")


@behaviour("fake-cut-midway")
def cut_midway(c, r):
    body = completion(r, ANSWER)
    c.write(c.head(200, JSON, len(body) * 2) + body[:len(body) // 2])
    c.close()


@behaviour("fake-cut-json")
def cut_json(c, r):
    body = completion(r, ANSWER)
    c.send_body(body[:len(body) // 2])


@behaviour("fake-cut-stream")
def cut_stream(c, r):
    pieces = pieces_of(r, ANSWER)
    c.write(c.head(200, SSE, None) + chunk(b"".join(pieces[:3])))
    c.close()


@behaviour(r"fake-huge-(\d+)")
async def huge(c, r, mb):
    start, end = raw_completion(r, b'{"role":"assistant","content":"@"}').split(b"@")
    block = b"all work and no play " * 49932
    c.write(c.head(200, JSON, len(start) + int(mb) * len(block) + len(end)) + start)
    for _ in range(int(mb)):
        c.write(block)
        await asyncio.sleep(0)
        while c.transport.get_write_buffer_size() > 4 << 20:
            await asyncio.sleep(0.002)
    c.write(end)
    c.finished()


@behaviour("fake-gzip")
def gzipped(c, r):
    if "gzip" not in r.headers.get("accept-encoding", ""):
        return c.send_error(400, "gzip was not asked for")
    c.send_body(gzip.compress(completion(r, r.last_user())), extra=["Content-Encoding: gzip"])


@behaviour("fake-gzip-bomb")
def gzip_bomb(c, r):
    start, end = raw_completion(r, b'{"role":"assistant","content":"@"}').split(b"@")
    c.send_body(gzip.compress(start + b"x" * (16 << 20) + end), extra=["Content-Encoding: gzip"])


# Turns of other kinds.

TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_row", "arguments": "{\"id\":7}"}}


@behaviour("fake-array-content")
def array_content(c, r):
    c.send_answer("", message={"role": "assistant", "content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hidden"}]},
        {"type": "text", "text": "The answer "}, {"type": "text", "text": "is 42."}]})


@behaviour("fake-empty")
def empty(c, r):
    c.send_answer("")


@behaviour("fake-refusal")
def refusal(c, r):
    c.send_answer("", message={"role": "assistant", "content": None, "refusal": "I cannot help with that."})


@behaviour("fake-filter")
def content_filter(c, r):
    c.send_answer("The", finish="content_filter")


@behaviour("fake-length")
def length(c, r):
    c.send_answer("The answer", finish="length")


@behaviour("fake-toolcall")
def toolcall(c, r):
    c.send_answer("", finish="tool_calls", message={"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]})


@behaviour("fake-tool-stop")
def tool_stop(c, r):
    c.send_answer("", finish="stop", message={"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]})


@behaviour("fake-tool-text")
def tool_text(c, r):
    c.send_answer("", finish="tool_calls", message={"role": "assistant", "content": "Looking.", "tool_calls": [TOOL_CALL]})


def turns_before(r):
    return sum(m.get("role") == "assistant" for m in r.body["messages"])


def turn_of(r):
    """What the script in the last user message says now."""
    script = json.loads(r.last_user())
    turn = turns_before(r)
    said = script[min(turn, len(script) - 1)]
    if isinstance(said, dict):
        return dict({"role": "assistant"}, **said)
    if isinstance(said, str):
        return {"role": "assistant", "content": said}
    text = said[0] if isinstance(said[0], str) else None
    calls = [c for c in said if isinstance(c, list)]
    return {"role": "assistant", "content": text, "tool_calls": [
        {"id": "call_%d_%d" % (turn + 1, i + 1), "type": "function", "function": {
            "name": name, "arguments": a if isinstance(a, str) else json.dumps(a)}}
        for i, (name, a) in enumerate(calls)]}


async def send_turn(c, r, message):
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    if r.stream:
        return await c.trickle(pieces_of(r, message.get("content"), finish, deltas=deltas_of(message), message=message), 0)
    c.send_answer(message.get("content"), finish=finish, message=message)


def deltas_of(message):
    """A message in pieces, its tool calls mixed with each other."""
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in words_of(message.get("content") or "")]
    calls = message.get("tool_calls", ())
    for i, call in enumerate(calls):
        function = dict(call["function"], arguments="")
        deltas.append({"tool_calls": [dict(call, index=i, function=function)]})
    pieces = [(at, i, call["function"]["arguments"][at:at + 7])
              for i, call in enumerate(calls) for at in range(0, len(call["function"]["arguments"]), 7)]
    deltas += [{"tool_calls": [{"index": i, "function": {"arguments": text}}]} for _, i, text in sorted(pieces)]
    return deltas


@behaviour(r"fake-tools(?:-lost((?:-\d+)+)|-fail-(\d+))?")
async def tools(c, r, lost, fail):
    turn = str(turns_before(r))
    if fail and int(turn) >= int(fail):
        return c.send_error(500, "The server had an error", "server_error")
    key = (r.model, r.last_user(), turn)
    STATE.attempts[key] += 1
    if lost and turn in lost.split("-") and STATE.attempts[key] == 1:
        await forever()
    await send_turn(c, r, turn_of(r))


def thought_of(r, tiny, score):
    """What a request asks a mind, and what it says; nothing if that is a turn."""
    wants = lambda name: re.search(rb'"%s":\s*\{' % name, r.raw)
    number = "1e-400" if tiny else "0.9"
    step = '{"action": "Do it.", "tool": "", "outcome": "done", "probability": %s, "risks": []}' % number
    if wants(b"humility"):
        virtues = "humility patience service gentleness prudence courage truthfulness confidence".split()
        return "counsel", json.dumps(dict(dict.fromkeys(virtues, 0.9), counsel="Fine.", suggestions=[]))
    if wants(b"probability"):
        return "plan", ('{"plans": [{"approach": "balanced", "cost": 1, "steps": [%s]}]}'
                        % ", ".join([step] * (60 if tiny else 1)))
    if wants(b"appropriateness"):
        said = {"aspects": [], "appropriateness": score / 100, "effectiveness": score / 100, "critique": "So so.",
                "lessons": ["Say it of %s." % r.model], "correction": "Say more."}
        return "reflect", json.dumps(said).replace(str(score / 100), number if tiny else str(score / 100))
    return "chat", None


@behaviour(r"fake-mind(?:-(plan|reflect|chat)-(hang|tool|text|tiny|\d\d\d))?(?:-score-(\d+))?")
async def mind(c, r, what, how, score):
    asked, said = thought_of(r, how == "tiny", int(score or 80))
    turns = sum(m.get("role") == "assistant" for m in r.body["messages"])
    failed = what == asked and (what != "chat" or turns == 1 and not is_served(r, 1))
    if failed and how == "hang":
        await forever()
    if failed and how.isdigit():
        return c.send_error(int(how), "error %s as asked for" % how, "server_error", extra=["Retry-After: 1"])
    if failed and how == "text":
        return c.send_answer("I do not think.")
    message = {"role": "assistant", "content": said or r.last_user()}
    if failed and how == "tool":
        message = {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}]}
    elif said is None and r.last_user().startswith("["):
        message = turn_of(r)
    await send_turn(c, r, message)


@behaviour(r"fake-finish-(\w+)")
def finish_word(c, r, word):
    c.send_answer(ANSWER, finish=word)


# Text that is hard to keep.

def send_message(c, r, message):
    """Send a message given as bytes, streamed or not."""
    if r.stream:
        c.write(c.head(200, SSE, None) + chunk(raw_piece(message) + b"".join(last_pieces(r, ANSWER))) + b"0\r\n\r\n")
        c.finished()
    else:
        c.send_body(raw_completion(r, message))


@behaviour("fake-nul")
def nul(c, r):
    send_message(c, r, b'{"role":"assistant","content":"a\\u0000b"}')


@behaviour("fake-surrogate")
def surrogate(c, r):
    send_message(c, r, b'{"role":"assistant","content":"a\\ud800b \\ud83d\\ude00"}')


@behaviour("fake-bad-utf8")
def bad_utf8(c, r):
    send_message(c, r, b'{"role":"assistant","content":"a\xff\xc3(b\xed\xa0\x80 caf\xc3\xa9"}')


@behaviour("fake-control")
def control(c, r):
    send_message(c, r, b'{"role":"assistant","content":"a\tb\x01c"}')


@behaviour("fake-bigint")
def bigint(c, r):
    send_message(c, r, b'{"role":"assistant","content":"ok","id":18446744073709551616,"price":0.10,"far":1e400,'
                 b'"n":-9223372036854775809}')


@behaviour("fake-deep(er)?")
def deep(c, r, deeper):
    levels = 1000000 if deeper else 10000
    r.stream = False
    send_message(c, r, b'{"role":"assistant","content":"ok","deep":' + b"[" * levels + b"]" * levels + b"}")


@behaviour("fake-reasoning")
def reasoning(c, r):
    send_message(c, r, b'{"role":"assistant","content":"ok","reasoning_content":"I think \\"so\\" \\/ \\u00e9",'
                 b'"reasoning_details":[{"type":"encrypted","data":"AbC+/=="}],"x":{"y":[1,2.50,null]}}')


@behaviour("fake-bom")
def bom(c, r):
    c.send_body(b"\xef\xbb\xbf" + completion(r, ANSWER))


# Slow, silent and broken peers.

async def forever():
    await asyncio.sleep(86400)


@behaviour("fake-hang-before-headers")
async def hang_before(c, r):
    await forever()


@behaviour("fake-hang-after-headers")
async def hang_after(c, r):
    c.write(c.head(200, SSE if r.stream else JSON, None))
    await forever()


@behaviour("fake-hang-mid-body")
async def hang_mid(c, r):
    if r.stream:
        c.write(c.head(200, SSE, None) + chunk(b"".join(pieces_of(r, ANSWER)[:3])))
    else:
        body = completion(r, ANSWER)
        c.write(c.head(200, JSON, len(body)) + body[:len(body) // 2])
    await forever()


@behaviour("fake-falter")
async def falter(c, r):
    c.write(c.head(200, SSE, None))
    for one in pieces_of(r, r.last_user()):
        if b"STOP" in one:
            await forever()
        c.write(chunk(one))


@behaviour("fake-dribble")
async def dribble(c, r):
    body = completion(r, r.last_user())
    c.write(c.head(200, JSON, len(body)))
    for i in range(len(body)):
        c.write(body[i:i + 1])
        await asyncio.sleep(0.005)
    c.finished()


@behaviour(r"fake-late-headers-(\d+)")
async def late(c, r, ms):
    c.write(c.head(200, SSE if r.stream else JSON, None))
    await asyncio.sleep(int(ms) / 1000)
    body = stream_of(r, ANSWER) if r.stream else completion(r, ANSWER)
    c.write(chunk(body) + b"0\r\n\r\n")
    c.finished()


@behaviour("fake-reset")
def reset(c, r):
    c.close(abort=True)


@behaviour("fake-close")
def close(c, r):
    c.close()


@behaviour("fake-garbage")
def garbage(c, r):
    c.write(b"220 mail.example.com ESMTP ready\r\n")
    c.close()


@behaviour("fake-long-header")
def long_header(c, r):
    c.send_body(completion(r, ANSWER), extra=["X-Filler-%d: %s" % (i, "x" * 8000) for i in range(128)])


@behaviour("fake-close-after")
def close_after(c, r):
    c.send_answer(r.last_user())
    c.transport.close()


@behaviour("fake-close-next")
def close_next(c, r):
    c.send_answer(r.last_user())
    c.doomed = True


def header_value(value):
    """As it is, or a time in so many seconds, which is not before it."""
    if not value.startswith("in "):
        return value
    at = time.time() + float(value[3:])
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(at)))


@behaviour(r"fake-headers(?:-(\d+))?")
async def with_headers(c, r, ms):
    r.extra = ["%s: %s" % (name, header_value(value)) for name, value in json.loads(r.last_user()).items()]
    if ms is None:
        return c.send_answer("ok")
    pieces = pieces_of(r, "ok")
    c.write(c.head(200, SSE, None) + chunk(pieces[0]))
    await asyncio.sleep(int(ms) / 1000)
    c.write(chunk(b"".join(pieces[1:])) + b"0\r\n\r\n")
    c.finished()


@behaviour("fake-stale")
def stale(c, r):
    if c.answered == 0:
        c.send_answer(r.last_user())
    else:
        c.close()


@behaviour(r"fake-poison-(\d+)")
async def poison(c, r, ms):
    if "POISON" not in r.last_user():
        return c.send_answer(r.last_user())
    await asyncio.sleep(int(ms) / 1000)
    c.close()


# Streams.

@behaviour(r"fake-stream-([a-z-]+)")
async def stream(c, r, form):
    text = r.last_user() or ANSWER
    pieces = pieces_of(r, text)
    whole = b"".join(pieces)
    finish = pieces[:-2]
    broken = event({"error": {"message": "overloaded", "type": "overloaded_error", "code": None}})
    forms = {
        "crlf": lambda: [whole.replace(b"\n", b"\r\n")],
        "cr": lambda: [whole.replace(b"\n", b"\r")],
        "bytes": lambda: [whole[i:i + 1] for i in range(len(whole))],
        "comments": lambda: [b": keep-alive\n\n" + p for p in pieces],
        "error": lambda: pieces[:2] + [broken],
        "error-first": lambda: [broken],
        "no-usage": lambda: pieces_of(r, text, usage=False),
        "no-done": lambda: pieces_of(r, text, done=False),
        "no-space": lambda: [whole.replace(b"data: ", b"data:")],
        "no-finish": lambda: pieces[:-3] + pieces[-1:],
        "bad-json": lambda: pieces[:2] + [b'data: {"choices":[{"index":0,"delta":{"content":\n\n'] + pieces[-3:],
        "bom": lambda: [b"\xef\xbb\xbf" + whole],
        "long-line": lambda: [b"data: " + b"x" * (2 << 20)],
        "pair": lambda: [raw_piece(b'{"role":"assistant","content":"a\\ud83d"}'), raw_piece(b'{"content":"\\ude00b"}')]
        + last_pieces(r, text),
        "split": lambda: split_character(r),
        "reasoning": lambda: reasoning_pieces(r),
        "toolcall": lambda: tool_pieces(r),
    }
    if form in forms:
        return await c.trickle(forms[form](), 0)
    if form == "json":
        return c.send_body(completion(r, text))
    if form == "text-plain":
        c.write(c.head(200, b"text/plain", len(whole)) + whole)
        return c.finished()
    if form == "gzip":
        return c.send_body(gzip.compress(whole), 200, SSE, ["Content-Encoding: gzip"])
    if form == "cut-after-finish":
        c.write(c.head(200, SSE, None) + chunk(b"".join(finish)))
        return c.close()
    if form == "hang-after-done":
        c.write(c.head(200, SSE, None) + chunk(whole))
        return await forever()
    c.send_error(404, "no such form of a stream", code="model_not_found")


def split_character(r):
    whole = raw_piece(b'{"role":"assistant","content":"caf\xc3\xa9 \xf0\x9f\x98\x80"}') + b"".join(last_pieces(r, ANSWER))
    at = whole.index(b"\xa9")
    return [whole[:at], whole[at:at + 4], whole[at + 4:]]


def reasoning_pieces(r):
    return [raw_piece(b'{"role":"assistant","content":null,"reasoning_content":"I "}'),
            raw_piece(b'{"reasoning_content":"think","big":18446744073709551616}'),
            raw_piece(b'{"content":"o","x":{"y":"a"}}'),
            raw_piece(b'{"content":"k","x":{"y":"b","z":1.50}}')] + last_pieces(r, ANSWER)


def tool_pieces(r):
    def call(index, **more):
        return {"tool_calls": [dict({"index": index}, **more)]}
    deltas = [{"role": "assistant", "content": None},
              call(0, id="call_1", type="function", function={"name": "get_row", "arguments": ""}),
              call(1, id="call_2", type="function", function={"name": "get_col", "arguments": ""}),
              call(0, function={"arguments": "{\"id\":"}), call(1, function={"arguments": "{}"}),
              call(0, function={"arguments": "7}"})]
    return pieces_of(r, "", "tool_calls", deltas=deltas)


# Running.

async def serve(options):
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
    server = await loop.create_server(Connection, "127.0.0.1", options.port, backlog=4096, ssl=context)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, done.set)
    if not options.stay:
        def at_input():
            if not os.read(0, 4096):
                loop.remove_reader(0)
                done.set()
        try:
            loop.add_reader(0, at_input)
        except (OSError, PermissionError):
            pass                # a file: it never closes
    print(server.sockets[0].getsockname()[1], flush=True)
    await done.wait()
    server.close()


def raise_descriptor_limit():
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 65536 else 65536, hard))


def main():
    global STATE
    parser = argparse.ArgumentParser(description="A model server for tests; see the top of the file.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--keep", type=int, default=10000, help="requests remembered")
    parser.add_argument("--stay", action="store_true", help="do not end with standard input")
    options = parser.parse_args()
    STATE = State(options.keep)
    raise_descriptor_limit()
    try:
        asyncio.run(serve(options))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
