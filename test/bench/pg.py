"""PostgreSQL's protocol in little: enough to ask, and to hear notifications."""

import collections
import socket
import struct
import time


class Error(Exception):
    def __init__(self, fields):
        super().__init__("%s: %s" % (fields.get("C"), fields.get("M")))
        self.sqlstate = fields.get("C")


class Connection:
    """A session over a socket in a directory; all values are text or None."""

    def __init__(self, directory, port, user, database, options=""):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect("%s/.s.PGSQL.%d" % (directory, port))
        self.buffer = bytearray()
        self.notifications = collections.deque()    # (time.time() of arrival, channel, payload)
        words = ["user", user, "database", database, "application_name", "bench", "options", options]
        body = struct.pack("!I", 196608) + b"".join(w.encode() + b"\0" for w in words) + b"\0"
        self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self.answer()

    def close(self):
        self.socket.close()

    def message(self):
        """The next message: its type and its body."""
        while True:
            if len(self.buffer) >= 5:
                length = struct.unpack_from("!I", self.buffer, 1)[0]
                if len(self.buffer) > length:
                    kind, body = self.buffer[:1], bytes(self.buffer[5:length + 1])
                    del self.buffer[:length + 1]
                    return bytes(kind), body
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self.buffer += data

    def heard(self, body):
        channel, payload = body[4:].split(b"\0")[:2]
        self.notifications.append((time.time(), channel.decode(), payload.decode()))

    def answer(self):
        """Read up to the server being ready; the rows of the last statement."""
        rows, error = [], None
        while True:
            kind, body = self.message()
            if kind == b"D":
                rows.append(row_of(body))
            elif kind == b"T":
                rows = []
            elif kind == b"E":
                error = Error({f[:1].decode(): f[1:].decode() for f in body.split(b"\0") if f})
                if error.sqlstate == "57P03":
                    raise error
            elif kind == b"A":
                self.heard(body)
            elif kind == b"Z":
                if error:
                    raise error
                return rows
            elif kind == b"R" and body[:4] != b"\0\0\0\0":
                raise ConnectionError("the server wants a password")

    def ask(self, statement):
        statement = statement.encode()
        self.socket.sendall(b"Q" + struct.pack("!I", len(statement) + 5) + statement + b"\0")
        return self.answer()

    def value(self, statement):
        return self.ask(statement)[0][0]

    def number(self, statement):
        return float(self.value(statement) or 0)

    def listen(self):
        """Wait for the next notification."""
        while not self.notifications:
            kind, body = self.message()
            if kind == b"A":
                self.heard(body)
        return self.notifications.popleft()


def row_of(body):
    row, at = [], 2
    for _ in range(struct.unpack_from("!H", body)[0]):
        length = struct.unpack_from("!i", body, at)[0]
        at += 4
        if length < 0:
            row.append(None)
        else:
            row.append(body[at:at + length].decode())
            at += length
    return tuple(row)
