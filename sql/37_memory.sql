/*
 * Memory: what agents remember, by words and embeddings; and what becomes of
 * it.  src/memory.c, src/use.c, src/evidence.c, src/contradiction.c.
 */
CREATE FUNCTION prometheus._cosine(a real[], b real[]) RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_cosine';
COMMENT ON FUNCTION prometheus._cosine(real[], real[]) IS
    'The cosine of the angle between two vectors, -1 to 1; null if their lengths differ, or it has none.';

CREATE FUNCTION prometheus._sketch(embedding real[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_sketch';
COMMENT ON FUNCTION prometheus._sketch(real[]) IS
    'The length of a vector and the signs of 1024 projections of it; null of what is no vector.';

CREATE FUNCTION prometheus._sketch_distance(a bytea, b bytea) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'prom_sketch_distance';
COMMENT ON FUNCTION prometheus._sketch_distance(bytea, bytea) IS
    'Signs in which two sketches differ; null if their vectors'' lengths differ.';

CREATE FUNCTION prometheus._words(content text, agent text) RETURNS tsvector
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_words';
COMMENT ON FUNCTION prometheus._words(text, text) IS
    'The words of a memory: runs of letters and digits, small and without accents, and what the agent''s option language makes of the text.';

CREATE FUNCTION prometheus._scoped(words tsvector, owner_oid oid, agent text)
RETURNS tsvector
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_scoped';
COMMENT ON FUNCTION prometheus._scoped(tsvector, oid, text) IS
    'Words as the index has them: each behind eight digits that stand for owner and agent.';

CREATE FUNCTION prometheus._share(words tsvector, queries tsquery[])
RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_share';
COMMENT ON FUNCTION prometheus._share(tsvector, tsquery[]) IS
    'The part of the queries that words match, 0 to 1.';

CREATE TABLE prometheus._memory (
    memory_id bigint NOT NULL,
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    task_id bigint,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    owner_oid oid NOT NULL,
    importance real NOT NULL,
    forgotten boolean NOT NULL,
    reason text,
    superseded_by bigint,
    owner text NOT NULL,
    agent text NOT NULL,
    kind text NOT NULL,
    content text NOT NULL,
    metadata jsonb NOT NULL,
    words tsvector NOT NULL,
    embedding real[],
    sketch bytea GENERATED ALWAYS AS (prometheus._sketch(embedding)) STORED,
    PRIMARY KEY (memory_id, version)
);
ALTER TABLE prometheus._memory ALTER embedding SET STORAGE EXTERNAL;
CREATE INDEX _memory_agent
    ON prometheus._memory (owner, agent, kind, importance DESC)
    WHERE NOT forgotten;
CREATE INDEX _memory_content
    ON prometheus._memory (pg_catalog.md5(content), owner, agent);
CREATE INDEX _memory_words ON prometheus._memory
    USING gin (prometheus._scoped(words, owner_oid, agent))
    WITH (fastupdate = off) WHERE NOT forgotten;
CREATE INDEX _memory_sketch ON prometheus._memory (owner, agent, kind)
    INCLUDE (memory_id, version, sketch)
    WHERE NOT forgotten AND embedding IS NOT NULL;
COMMENT ON TABLE prometheus._memory IS
    'Every version of every memory. forgotten: from that version on it is not recalled; reason: why, forgotten, evicted or superseded, then by the memory superseded_by. words: see prometheus._words(). sketch: of embedding, for the first look. mark: the newest mark when it was written, 0 before the first.';

-- No session has ids in stock: they are in the order in which they are taken.
CREATE SEQUENCE prometheus._memory_entry_id;
COMMENT ON SEQUENCE prometheus._memory_entry_id IS
    'The last id of what came into a kind of memories.';

CREATE TABLE prometheus._memory_entry (
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    agent text NOT NULL,
    kind text NOT NULL,
    entry_id bigint NOT NULL,
    first_entry bigint NOT NULL,
    place bigint NOT NULL,
    memory_id bigint NOT NULL,
    xid xid8 NOT NULL,
    PRIMARY KEY (owner, owner_oid, agent, kind, entry_id)
);
COMMENT ON TABLE prometheus._memory_entry IS
    'What came into kinds of memories that have, or had, a limit: new, brought back or consolidated. Of a kind all that is there has a row from first_entry of the newest row on, where a list was begun anew; place: how many came since. It is not dumped: where there is none it is begun.';

CREATE TABLE prometheus._memory_use (
    memory_id bigint NOT NULL,
    xid xid8 NOT NULL,
    used_at timestamptz NOT NULL,
    uses bigint NOT NULL,
    PRIMARY KEY (memory_id, used_at)
);
COMMENT ON TABLE prometheus._memory_use IS
    'When a memory was recalled, and how often until then: a row for its first use, then one an hour at most. The publisher writes them in batches from shared memory, where those since are lost if the server stops at once.';

CREATE TABLE prometheus._evidence (
    memory_id bigint NOT NULL,
    number integer NOT NULL,
    xid xid8 NOT NULL,
    task_id bigint NOT NULL,
    found_at timestamptz NOT NULL,
    score real,
    confidence real NOT NULL,
    PRIMARY KEY (memory_id, number)
);
CREATE INDEX _evidence_task ON prometheus._evidence (task_id);
COMMENT ON TABLE prometheus._evidence IS
    'What a task has shown of a memory. Of a procedure that the task was told: score is that of the task''s reflection, a success from 0.7 on; confidence is the success rate, a moving average that begins at 0: the newest counts 0.5 for the first five, then 0.2. Of a fact that the task found by itself, and no other task of its trace before: score is null; each time half of the doubt is taken away, which begins as 1 - confidence of the metadata, or 1 - importance. number: from 1.';

CREATE FUNCTION @extschema@.prometheus_remember(
    agent text,
    content text,
    kind text DEFAULT 'semantic',
    importance real DEFAULT 0.5,
    metadata jsonb DEFAULT '{}',
    embedding real[] DEFAULT NULL,
    ttl interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_remember';
COMMENT ON FUNCTION @extschema@.prometheus_remember(
    text, text, text, real, jsonb, real[], interval) IS
    'Stores a memory of the caller for an agent and returns its id. One of the same content and kind is not stored twice: it gets a new version if this one is more important, has other metadata (they are merged), lasts longer or has another embedding, else it stays as it is. That a task finds a fact which another one has found makes it surer: above 0.9 it is consolidated, and its kind is vault from then on. agent is a name and need not be set. kind: core, episodic, semantic, procedural, resource (forgotten after ttl, default one hour) or vault. importance 0 to 1. content 1 byte to prometheus.max_request; it is found by the words of its first 100,000 bytes. embedding: 1 to 16384 finite numbers that are not all 0; without one, the agent''s embedding_model makes it later. If the agent has more of the kind than its option memory_limit says (episodic: 1000, others: any number, core always), the least relevant are forgotten in the same transaction, with an event memory.evicted; never those whose metadata have "pinned": true. Raises invalid_parameter_value for what cannot be.';

CREATE FUNCTION @extschema@.prometheus_recall(
    agent text,
    query text,
    kinds text[] DEFAULT NULL,
    k integer DEFAULT 5,
    embedding real[] DEFAULT NULL,
    OUT memory_id bigint,
    OUT kind text,
    OUT content text,
    OUT importance real,
    OUT score real,
    OUT metadata jsonb,
    OUT created_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'prom_recall';
COMMENT ON FUNCTION @extschema@.prometheus_recall(
    text, text, text[], integer, real[]) IS
    'The k (1 to 1000) memories of the caller for an agent that fit best, of these kinds (null: all). score = 0.6 similarity + 0.4 (0.7 importance + 0.3 exp(-0.1 days since it was stored)). Without an embedding, and if none of the query is known (README: Embeddings by a model), similarity is the part of the query''s words that are in it (of the 32 longest words; capitals and accents do not matter; what the agent''s option language makes of a word counts as the word); if no memory has any, words that begin with them count; if there are none, all count with similarity 0. With an embedding, memories with one of the same length are also ranked by its cosine; both rankings are fused by reciprocal rank, the sum of 1/(60 + place) (Cormack, Clarke and Buettcher, 2009), and of the n best, up to the greater of 20 and 4 k, the similarity of the one at place p is (n - p + 1)/n. Of each word some 150 to 1000 memories that have it are looked at, and besides the greater of k and 200 most important ones of each kind: with a word that more have, the most important are found, but not all that could be. Of embeddings the 1000 nearest by a sketch of 1024 bits are compared exactly. Raises invalid_parameter_value for a wrong k or embedding (1 to 16384 finite numbers that are not all 0).';

CREATE FUNCTION @extschema@.prometheus_memory_index(
    agent text,
    kind text,
    dimensions integer,
    owner name DEFAULT current_user)
RETURNS text
LANGUAGE c STABLE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_memory_index';
COMMENT ON FUNCTION @extschema@.prometheus_memory_index(
    text, text, integer, name) IS
    'The statement that makes an index of pgvector (hnsw) for the memories of a kind that an owner has for an agent, and whose embeddings have so many numbers, 1 to 2000. Who owns the extension runs it, outside a transaction; from then on prometheus_recall() finds the nearest of them by it, if it finds enough and the agent has no embedding_model, whose embeddings it would not have. Raises undefined_object if the extension vector is not installed; invalid_parameter_value for an unknown kind or a wrong number.';

CREATE FUNCTION @extschema@.prometheus_forget(memory_id bigint) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_forget';
COMMENT ON FUNCTION @extschema@.prometheus_forget(bigint) IS
    'From now on the memory is not recalled; true. After prometheus.retention it is gone. False if there is none of this id that the caller may see, or it is forgotten already.';

CREATE FUNCTION @extschema@.prometheus_restore_memory(memory_id bigint)
RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_restore_memory';
COMMENT ON FUNCTION @extschema@.prometheus_restore_memory(bigint) IS
    'What was forgotten, evicted or superseded is recalled again, as a new version; true. What has superseded it stays. False if there is none of this id that the caller may see, it is not forgotten, has expired, or the same content is remembered under another id. If that makes too many, others are evicted.';

CREATE FUNCTION @extschema@.prometheus_supersede_memory(
    memory_id bigint, content text)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_supersede_memory';
COMMENT ON FUNCTION @extschema@.prometheus_supersede_memory(bigint, text) IS
    'A memory of the caller has turned out wrong: it is forgotten, and the content, which is true instead, remembered with the same agent, kind and importance (what was consolidated: with the kind that it had before). Returns the id of the new memory, or of the one that has this content already; prometheus.memory_version shows both. Raises undefined_object if the caller has no such memory, or it is forgotten; invalid_parameter_value if the content is its own, empty or null; program_limit_exceeded if it is too long.';

CREATE VIEW prometheus.memory WITH (security_barrier) AS
SELECT m.memory_id, m.owner, m.agent, m.kind, m.importance, m.content,
       m.metadata, m.version, m.created_at, m.expires_at, m.task_id,
       (SELECT u.used_at FROM prometheus._memory_use u
         WHERE u.memory_id = m.memory_id AND prometheus._seen(u.xid)
         ORDER BY u.used_at DESC LIMIT 1) AS last_used_at,
       coalesce((SELECT u.uses FROM prometheus._memory_use u
         WHERE u.memory_id = m.memory_id AND prometheus._seen(u.xid)
         ORDER BY u.used_at DESC LIMIT 1), 0) AS uses,
       (SELECT e.confidence FROM prometheus._evidence e
         WHERE e.memory_id = m.memory_id AND prometheus._seen(e.xid)
         ORDER BY e.number DESC LIMIT 1) AS confidence
  FROM prometheus._memory m
 WHERE NOT m.forgotten
   AND (m.expires_at IS NULL
        OR m.expires_at > coalesce(prometheus._moment(), now()))
   AND prometheus._seen(m.xid)
   AND prometheus._may_see(m.owner, m.owner_oid)
   AND NOT EXISTS (SELECT FROM prometheus._memory n
                    WHERE n.memory_id = m.memory_id
                      AND n.version > m.version
                      AND prometheus._seen(n.xid));
COMMENT ON VIEW prometheus.memory IS
    'What agents remember for you: the newest version of each memory that is not forgotten.';
COMMENT ON COLUMN prometheus.memory.memory_id IS 'Its id.';
COMMENT ON COLUMN prometheus.memory.owner IS 'The role whose memory it is.';
COMMENT ON COLUMN prometheus.memory.agent IS 'The agent that it is for.';
COMMENT ON COLUMN prometheus.memory.kind IS 'core, episodic, semantic, procedural, resource or vault.';
COMMENT ON COLUMN prometheus.memory.importance IS 'From 0 to 1.';
COMMENT ON COLUMN prometheus.memory.content IS 'What is remembered.';
COMMENT ON COLUMN prometheus.memory.metadata IS 'As it was given.';
COMMENT ON COLUMN prometheus.memory.version IS 'From 1.';
COMMENT ON COLUMN prometheus.memory.created_at IS 'When this version was stored.';
COMMENT ON COLUMN prometheus.memory.expires_at IS 'When it is forgotten by itself; null: never.';
COMMENT ON COLUMN prometheus.memory.task_id IS 'The task whose tool stored it; null: none.';
COMMENT ON COLUMN prometheus.memory.last_used_at IS 'When it was last recalled: exact the first time, then up to an hour late; null: never.';
COMMENT ON COLUMN prometheus.memory.uses IS 'How often it was recalled until then; some may be missing after a stop of the server at once.';
COMMENT ON COLUMN prometheus.memory.confidence IS 'From 0 to 1: of a procedure its success rate in tasks, of a fact how sure it is since another task found it too; null: no task has shown anything. See prometheus.memory_evidence.';

CREATE VIEW prometheus.memory_version WITH (security_barrier) AS
SELECT m.memory_id, m.version, m.owner, m.agent, m.kind, m.importance,
       m.content, m.metadata, m.created_at, m.expires_at, m.task_id,
       CASE WHEN m.forgotten THEN coalesce(m.reason, 'forgotten') END
           AS forgotten,
       m.superseded_by
  FROM prometheus._memory m
 WHERE prometheus._seen(m.xid) AND prometheus._may_see(m.owner, m.owner_oid);
COMMENT ON VIEW prometheus.memory_version IS
    'Every version of what agents remember for you, until prometheus.retention after a newer one was there or it was forgotten.';
COMMENT ON COLUMN prometheus.memory_version.memory_id IS 'Its id.';
COMMENT ON COLUMN prometheus.memory_version.version IS 'From 1; the newest counts.';
COMMENT ON COLUMN prometheus.memory_version.owner IS 'The role whose memory it is.';
COMMENT ON COLUMN prometheus.memory_version.agent IS 'The agent that it is for.';
COMMENT ON COLUMN prometheus.memory_version.kind IS 'core, episodic, semantic, procedural, resource or vault, in this version.';
COMMENT ON COLUMN prometheus.memory_version.importance IS 'From 0 to 1.';
COMMENT ON COLUMN prometheus.memory_version.content IS 'What is remembered.';
COMMENT ON COLUMN prometheus.memory_version.metadata IS 'As it was given; of what was consolidated also consolidated_from, the kind that it had.';
COMMENT ON COLUMN prometheus.memory_version.created_at IS 'When this version was stored.';
COMMENT ON COLUMN prometheus.memory_version.expires_at IS 'When it is forgotten by itself; null: never.';
COMMENT ON COLUMN prometheus.memory_version.task_id IS 'The task that stored this version; null: none.';
COMMENT ON COLUMN prometheus.memory_version.forgotten IS 'Why it is not recalled since this version: forgotten (somebody said so), evicted (memory_limit) or superseded (it was contradicted); null: it is recalled.';
COMMENT ON COLUMN prometheus.memory_version.superseded_by
    IS 'Of one that was superseded: the memory that is true instead.';

CREATE VIEW prometheus.memory_evidence WITH (security_barrier) AS
SELECT e.memory_id, e.number, m.owner, m.agent, e.task_id, e.found_at,
       e.score, e.confidence
  FROM prometheus._evidence e
 CROSS JOIN LATERAL (SELECT v.owner, v.owner_oid, v.agent
                       FROM prometheus._memory v
                      WHERE v.memory_id = e.memory_id
                      ORDER BY v.version DESC LIMIT 1) m
 WHERE prometheus._seen(e.xid) AND prometheus._may_see(m.owner, m.owner_oid);
COMMENT ON VIEW prometheus.memory_evidence IS
    'What tasks have shown of procedures and facts that are yours. A procedure whose success rate is above 0.8, and a fact whose confidence is above 0.9, is consolidated: its kind is vault from then on.';
COMMENT ON COLUMN prometheus.memory_evidence.memory_id IS 'The memory.';
COMMENT ON COLUMN prometheus.memory_evidence.number IS 'From 1; the newest counts.';
COMMENT ON COLUMN prometheus.memory_evidence.owner IS 'The role whose memory it is.';
COMMENT ON COLUMN prometheus.memory_evidence.agent IS 'The agent that it is for.';
COMMENT ON COLUMN prometheus.memory_evidence.task_id IS 'The task that has shown it.';
COMMENT ON COLUMN prometheus.memory_evidence.found_at IS 'When.';
COMMENT ON COLUMN prometheus.memory_evidence.score IS 'Of a procedure: the score of the task''s reflection, from 0 to 1, a success from 0.7 on. Of a fact null: the task found it by itself.';
COMMENT ON COLUMN prometheus.memory_evidence.confidence IS 'Of a procedure the success rate until then, a moving average from 0: c + a (success - c), a = 0.5 for the first five, then 0.2. Of a fact 1 - (1 - c) / 2, where the first c is the number confidence of its metadata, else its importance.';
