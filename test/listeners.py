"""
Sessions that LISTEN and are idle: listeners.py DIRECTORY PORT HOW_MANY.  For each
line of the input it waits until all of them have heard, and prints the least and
the most hints that one has had since the line before.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench"))

import pg

sessions = [pg.Connection(sys.argv[1], int(sys.argv[2]), "postgres", "postgres") for _ in range(int(sys.argv[3]))]
for session in sessions:
    session.ask("LISTEN prometheus_events")
print("ready", flush=True)
while sys.stdin.readline():
    heard = []
    for session in sessions:
        session.listen()
        session.ask("SELECT 1")
        heard.append(1 + len(session.notifications))
        session.notifications.clear()
    print(min(heard), max(heard), flush=True)
