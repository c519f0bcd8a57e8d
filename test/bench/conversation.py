"""A conversation on disk, beside the same one of LangGraph's checkpointer."""

import json
import random

import table
from cluster import until_idle
from peers import Peers

TURNS = 200
LENGTH = 1100
RELATIONS = """
SELECT c.oid::regclass::text, pg_total_relation_size(c.oid)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname %s
 ORDER BY 1
"""


def turns():
    """What the user says: of as many different words as people use, and none of it twice."""
    choice = random.Random(7)
    words = ["".join(choice.choices("etaoinshrdlucmfwyp", k=choice.randint(2, 9))) for _ in range(4000)]
    said = []
    for n in range(TURNS):
        text = "%d:" % n
        while len(text) < LENGTH:
            text += " " + choice.choices(words, weights=[1 / (i + 1) for i in range(len(words))])[0]
        said.append(text[:LENGTH])
    return said


def sizes(db, schema):
    db.ask("VACUUM FREEZE")
    db.ask("CHECKPOINT")
    return {name: float(size) for name, size in db.ask(RELATIONS % schema)}


def ours(server, model, said):
    """Bytes on disk, of WAL, and by relation."""
    db = server.connect("conversation")
    db.ask("SELECT prometheus_set_model('echoes', 'openai', '%s', 'fake-echo')" % model.url)
    db.ask("SELECT prometheus_set_agent('echoes', 'echoes')")
    db.ask("CALL prometheus_ask('warm', 'echoes')")
    before = sizes(db, "= 'prometheus'")
    wal = db.value("SELECT pg_current_wal_insert_lsn()")
    for text in said:
        task_id = db.value("SELECT prometheus_submit('%s', 'echoes', conversation => 'c')" % text)
        db.ask("SELECT prometheus_wait(%s)" % task_id)
    until_idle(db)
    written = db.number("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % wal)
    answered = db.number("SELECT count(*) FROM prometheus.task AS t WHERE t.conversation = 'c'"
                         " AND prometheus_result(t.task_id) = t.request")
    if answered != TURNS:
        raise AssertionError("%d answers, not %d" % (answered, TURNS))
    after = sizes(db, "= 'prometheus'")
    db.close()
    grown = {name: size - before[name] for name, size in after.items() if size > before[name]}
    return sum(grown.values()), written, grown


def as_state(server, said):
    """All that was said, saved as a state after each turn; bytes on disk, of WAL, and of the values."""
    db = server.connect("conversation")
    before = sizes(db, "= 'prometheus'")
    wal = db.value("SELECT pg_current_wal_insert_lsn()")
    messages = []
    for text in said:
        messages += [{"role": role, "content": text} for role in ("user", "assistant")]
        db.ask("SELECT prometheus_save_state('talk', '%s')" % json.dumps({"messages": messages}))
    written = db.number("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % wal)
    values = db.number("SELECT sum(bytes) FROM prometheus_state_history('talk', max_rows => %d)" % TURNS)
    after = sizes(db, "= 'prometheus'")
    db.close()
    return after["prometheus._state"] - before["prometheus._state"], written, values


def langgraph(server, peer, said):
    """The same, in a database of its own, without what the empty tables take."""
    admin = server.connect("postgres")
    admin.ask("CREATE DATABASE langgraph")
    db = server.connect("langgraph")
    path = server.directory + "/conversation.json"
    with open(path, "w") as file:
        json.dump(said, file)
    try:
        wal = db.value("SELECT pg_current_wal_insert_lsn()")
        messages = int(peer.run("langgraph", path, timeout=600))
        written = db.number("SELECT pg_current_wal_insert_lsn() - '%s'::pg_lsn" % wal)
        if messages != 2 * TURNS:
            raise AssertionError("%d messages, not %d" % (messages, 2 * TURNS))
        return sum(sizes(db, "= 'public'").values()), written
    finally:
        db.close()
        admin.ask("DROP DATABASE langgraph WITH (FORCE)")
        admin.close()


def conversation(server, model):
    said = turns()
    content = 2 * sum(len(text) for text in said)
    server.start(databases="bench")
    server.create("conversation")
    server.start(databases="conversation")
    on_disk, wal, grown = ours(server, model, said)
    saved, saved_wal, values = as_state(server, said)
    peer = Peers(server, "langgraph")
    reason = peer.install()
    name, floors = "", [[], []]
    if not reason:
        name, floors = "LangGraph", [[size / 1e6] for size in langgraph(server, peer, said)]
    table.row("conversation of %d turns, on disk" % TURNS, [on_disk / 1e6], "MB", name, floors[0], ("<", 2))
    table.row("  WAL of it", [wal / 1e6], "MB", name, floors[1])
    table.note("content %.2f MB; %s" % (content / 1e6, ", ".join(
        "%s %d kB" % (relation.rpartition(".")[2], size / 1e3)
        for relation, size in sorted(grown.items(), key=lambda item: -item[1]) if size >= 20000)))
    table.row("  all of it as a state, saved at each turn", [saved / 1e6], "MB", name, floors[0], ("<", 2))
    table.row("    WAL of it", [saved_wal / 1e6], "MB", name, floors[1])
    table.note("the values: %.1f MB" % (values / 1e6))
    if reason:
        table.note("LangGraph: %s, left out" % reason)
