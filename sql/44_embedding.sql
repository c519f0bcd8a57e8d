/*
 * Embeddings that models have made: of memories that came without one, in the
 * background, and of what is looked for.  src/embedder.c, src/embedded.c.
 */
CREATE TABLE prometheus._embedding (
    hash text NOT NULL,
    space text NOT NULL,
    xid xid8 NOT NULL,
    made_at timestamptz NOT NULL,
    embedding real[] NOT NULL,
    PRIMARY KEY (hash)
);
ALTER TABLE prometheus._embedding ALTER embedding SET STORAGE EXTERNAL;
COMMENT ON TABLE prometheus._embedding IS
    'What a model made of a text. space: whose embeddings can be compared with each other, the provider''s name of the model and what its extra_body adds. hash: of the space, the owner and the first 6000 characters of the text, which are what is embedded; see prometheus._hash(). Retention deletes what no memory has.';

CREATE TABLE prometheus._memory_embedding (
    memory_id bigint NOT NULL,
    xid xid8 NOT NULL,
    made_at timestamptz NOT NULL,
    owner text NOT NULL,
    agent text NOT NULL,
    kind text NOT NULL,
    space text NOT NULL,
    hash text NOT NULL,
    sketch bytea,
    error text,
    PRIMARY KEY (memory_id, kind, space)
);
CREATE INDEX _memory_embedding_sketch
    ON prometheus._memory_embedding (owner, agent, kind, space)
    INCLUDE (memory_id, sketch) WHERE sketch IS NOT NULL;
CREATE INDEX _memory_embedding_hash ON prometheus._memory_embedding (hash);
COMMENT ON TABLE prometheus._memory_embedding IS
    'That a memory, while it has this kind, has the embedding of this hash; sketch: of that, for the first look. With an error: the model will not have its text, and is not asked again.';

-- What is still without one is found by it, from a memory on.
CREATE INDEX _memory_bare ON prometheus._memory (agent, memory_id, version)
    WHERE NOT forgotten AND embedding IS NULL;
CREATE INDEX _agent_embedding ON prometheus._agent (name, version)
    WHERE options ? 'embedding_model';

CREATE TABLE prometheus._embedding_call (
    call_id bigint NOT NULL,
    xid xid8 NOT NULL,
    sent_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    tokens bigint,
    texts integer NOT NULL,
    http_status integer,
    agent text NOT NULL,
    model text NOT NULL,
    cost numeric,
    error_type text,
    error text,
    PRIMARY KEY (call_id)
);
COMMENT ON TABLE prometheus._embedding_call IS
    'A request for embeddings of memories, in the background, that has ended. Those for what a task looks for are calls and steps of the task.';

CREATE VIEW prometheus.memory_embedding WITH (security_barrier) AS
SELECT e.memory_id, e.owner, e.agent, e.space,
       (SELECT array_length(v.embedding, 1) FROM prometheus._embedding v
         WHERE v.hash = e.hash AND e.error IS NULL
           AND prometheus._seen(v.xid)) AS dimensions,
       e.made_at, e.error
  FROM prometheus._memory_embedding e
 CROSS JOIN LATERAL (SELECT m.owner, m.owner_oid, m.kind, m.forgotten
                       FROM prometheus._memory m
                      WHERE m.memory_id = e.memory_id
                        AND prometheus._seen(m.xid)
                      ORDER BY m.version DESC LIMIT 1) m
 WHERE m.kind = e.kind AND NOT m.forgotten AND prometheus._seen(e.xid)
   AND prometheus._may_see(m.owner, m.owner_oid);
COMMENT ON VIEW prometheus.memory_embedding IS
    'What memories that are yours, and are not forgotten, have from the embedding_model of their agent, now or before.';
COMMENT ON COLUMN prometheus.memory_embedding.memory_id IS 'The memory.';
COMMENT ON COLUMN prometheus.memory_embedding.owner IS 'The role whose memory it is.';
COMMENT ON COLUMN prometheus.memory_embedding.agent IS 'The agent that it is for.';
COMMENT ON COLUMN prometheus.memory_embedding.space IS 'The provider''s name of the model, and what its extra_body adds: embeddings of the same space are compared.';
COMMENT ON COLUMN prometheus.memory_embedding.dimensions IS
    'Numbers of the embedding; null: there is none.';
COMMENT ON COLUMN prometheus.memory_embedding.made_at IS 'Since when it has it.';
COMMENT ON COLUMN prometheus.memory_embedding.error IS 'Why the model will not have its text; it is not asked again. Null: it has an embedding.';

CREATE VIEW prometheus.embedding_call WITH (security_barrier) AS
SELECT c.call_id, c.agent, c.model, c.sent_at,
       prometheus._milliseconds(c.sent_at, c.ended_at) AS duration_ms,
       c.texts, c.tokens, c.cost, c.http_status, c.error_type, c.error
  FROM prometheus._embedding_call c
 WHERE prometheus._seen(c.xid);
COMMENT ON VIEW prometheus.embedding_call IS
    'Requests for embeddings of memories, in the background, until prometheus.retention after their end; for administrators. Those for what a task looks for are in prometheus.call.';
COMMENT ON COLUMN prometheus.embedding_call.call_id IS 'Its id.';
COMMENT ON COLUMN prometheus.embedding_call.agent IS 'The agent whose memories they are.';
COMMENT ON COLUMN prometheus.embedding_call.model IS 'The model, by its name here.';
COMMENT ON COLUMN prometheus.embedding_call.sent_at IS 'When it was sent.';
COMMENT ON COLUMN prometheus.embedding_call.duration_ms IS 'Milliseconds until it had ended.';
COMMENT ON COLUMN prometheus.embedding_call.texts IS 'How many memories it was for.';
COMMENT ON COLUMN prometheus.embedding_call.tokens IS 'As the provider counted them; null: not reported.';
COMMENT ON COLUMN prometheus.embedding_call.cost IS 'Tokens times price_in of the model; null: not known.';
COMMENT ON COLUMN prometheus.embedding_call.http_status IS 'The status of the response; null: none came.';
COMMENT ON COLUMN prometheus.embedding_call.error_type IS 'What kind of failure, as of steps; null: it was good.';
COMMENT ON COLUMN prometheus.embedding_call.error IS 'Why it failed, in one line.';
