"""
Recall beside the plainest search of the same texts: a GIN index and ts_rank, and a scan with the exact cosine.
All is in memory, so what counts is time on the processor, whatever else the machine does.
"""

import random
import statistics

import table
from tracked import on_cpu

SIZES = (1000, 10000, 100000)
ROUNDS = 3
QUERIES = 15
DIMENSIONS = 384
BEFORE = {1000: "4.5..15", 10000: "145", 100000: "863"}    # ms, of the system before this one
K = 5

# Words as frequent as in a language: w1 is in most memories, w9000 in few.
FILL = """
CREATE TABLE bench_memory AS
SELECT n, string_agg('w' || floor(exp(random() * 9.2))::int, ' ') || ' id' || n AS content
  FROM generate_series(1, %(n)d) AS n, generate_series(1, 40) AS word GROUP BY n;
ALTER TABLE bench_memory ADD words tsvector, ADD embedding real[];
UPDATE bench_memory SET words = to_tsvector('simple', content),
  embedding = ARRAY(SELECT random() + random() + random() - 1.5 FROM generate_series(1, %(dimensions)d) WHERE n > 0);
CREATE INDEX ON bench_memory USING gin (words);
SELECT prometheus_remember('bench %(n)d', 'the first', 'core');
INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner,
                                agent, kind, content, metadata, words, embedding)
SELECT nextval('prometheus._fact_id'), 1, m.xid, m.mark, now() - random() * interval '60 days', m.owner_oid,
       random(), false, m.owner, m.agent, (array['episodic', 'semantic', 'procedural', 'vault'])[1 + b.n %% 4],
       b.content, '{}', prometheus._words(b.content, m.agent), b.embedding
  FROM prometheus._memory m, bench_memory b WHERE m.agent = 'bench %(n)d';
"""

# The same memories, for another agent, whose embeddings a model has made.
MADE = """
INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner,
                                agent, kind, content, metadata, words)
SELECT nextval('prometheus._fact_id'), 1, m.xid, m.mark, m.created_at, m.owner_oid, m.importance, false, m.owner,
       'made %(n)d', m.kind, m.content, '{}', m.words
  FROM prometheus._memory m WHERE m.agent = 'bench %(n)d' AND m.embedding IS NOT NULL;
INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding)
SELECT prometheus._hash('embedding', 'vectors of ' || current_user, b.content), 'vectors', prometheus._xid(), now(), b.embedding
  FROM bench_memory b ON CONFLICT DO NOTHING;
INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at, owner, agent, kind, space, hash, sketch)
SELECT m.memory_id, m.xid, now(), m.owner, m.agent, m.kind, 'vectors', v.hash, prometheus._sketch(v.embedding)
  FROM prometheus._memory m JOIN prometheus._embedding v ON v.hash = prometheus._hash('embedding', 'vectors of ' || m.owner, m.content)
 WHERE m.agent = 'made %(n)d';
SELECT prometheus_set_model('vectors', 'openai', 'https://localhost/v1'),
       prometheus_set_agent('made %(n)d', 'echo', options => '{"embedding_model": "vectors"}');
"""

OURS = "SELECT * FROM prometheus_recall('bench %d', '%s', k => %d)"
OURS_BOTH = "SELECT * FROM prometheus_recall('%s %d', '%s', k => %d, embedding => '%s')"
PLAIN = ("SELECT *, ts_rank(words, q) FROM (SELECT n, content, words FROM bench_memory) b, to_tsquery('simple', '%s') q"
         " WHERE words @@ q ORDER BY 5 DESC LIMIT %d")
PLAIN_VECTOR = "SELECT n, content FROM bench_memory ORDER BY prometheus._cosine(embedding, '%s') DESC LIMIT %d"


def some(low, high, count):
    return ["w%d" % random.randint(low, high) for _ in range(count)]


KINDS = {
    "a rare word": lambda n: ["id%d" % random.randint(1, n)],
    "a word that one in ten has": lambda n: some(35, 45, 1),
    "a word that most have": lambda n: some(1, 3, 1),
    "three words": lambda n: some(5, 5000, 3),
    "a sentence of 15": lambda n: some(1, 20, 6) + some(20, 1000, 6) + some(1000, 9000, 3),
}


def spent(db, statement):
    """Milliseconds on the processor."""
    before = on_cpu(db.pid)
    db.ask(statement)
    return (on_cpu(db.pid) - before) / 1000


def both(db, pairs):
    """Medians of ours and of the floor, in turn."""
    times = [(spent(db, ours), spent(db, plain)) for ours, plain in pairs]
    return [statistics.median(values) for values in zip(*times)]


def measure(db, n, what, goal, pairs):
    rounds = [both(db, pairs()) for _ in range(ROUNDS)]
    ours, plain = zip(*rounds)
    table.row("%s memories: %s" % (table.number(n), what), ours, "ms CPU", "plain search", plain, goal)


def recall(server, model):
    server.start(databases="bench")
    db = server.connect("bench")
    db.pid = db.number("SELECT pg_backend_pid()")
    db.ask("SET max_parallel_workers_per_gather = 0")
    db.ask("SELECT setseed(0.5)")
    random.seed(5)
    for n in SIZES:
        db.ask(FILL % {"n": n, "dimensions": DIMENSIONS})
        db.ask("VACUUM ANALYZE prometheus._memory")
        db.ask("VACUUM ANALYZE bench_memory")
        for what, words in KINDS.items():
            def of_words():
                queries = [words(n) for _ in range(QUERIES)]
                return [(OURS % (n, " ".join(query), K), PLAIN % (" | ".join(query), K)) for query in queries]
            measure(db, n, what, ("<", 10), of_words)

        def of_vectors(agent="bench"):
            vectors = [row[0] for row in db.ask("SELECT embedding FROM bench_memory ORDER BY random() LIMIT %d"
                                                % QUERIES)]
            return [(OURS_BOTH % (agent, n, " ".join(some(5, 5000, 3)), K, vector), PLAIN_VECTOR % (vector, K))
                    for vector in vectors]
        measure(db, n, "three words, embedding", ("<", 100), of_vectors)
        db.ask(MADE % {"n": n})
        db.ask("VACUUM ANALYZE prometheus._memory")
        db.ask("VACUUM ANALYZE prometheus._embedding")
        db.ask("VACUUM ANALYZE prometheus._memory_embedding")
        measure(db, n, "the same, made by a model", ("<", 100), lambda: of_vectors("made"))
        table.note("all in %s ms in the system before this one; the embedding has %d numbers, its plain search is a scan"
                   % (BEFORE[n], DIMENSIONS))
        db.ask("DROP TABLE bench_memory")
    db.close()
