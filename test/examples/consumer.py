#!/usr/bin/env python3
"""Reads the events of a consumer, each exactly once: what is done with them is in
the transaction that acknowledges them.

    consumer.py "dbname=app" NAME
"""

import select
import sys

import psycopg2


def handle(cursor, event_id, kind, data):
    """What is to be done with an event, in this database."""
    cursor.execute("INSERT INTO handled (event_id, type) VALUES (%s, %s)", (event_id, kind))


def drain(connection, consumer):
    """A batch is a transaction, until there are no more events."""
    events = True
    while events:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT event_id, type, data FROM prometheus_poll(%s)", (consumer,))
            events = cursor.fetchall()
            for event in events:
                handle(cursor, *event)
            cursor.execute("SELECT prometheus_ack(%s)", (consumer,))


def main(where, consumer):
    listener = psycopg2.connect(where)
    listener.autocommit = True
    listener.cursor().execute("LISTEN prometheus_events")
    connection = psycopg2.connect(where)
    while True:
        drain(connection, consumer)
        # A hint says that there may be something; one may be lost.
        select.select([listener], [], [], 30)
        listener.poll()
        listener.notifies.clear()


main(*sys.argv[1:])
