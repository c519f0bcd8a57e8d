/*
 * Skills: the procedures that tasks have shown something of.  A view of
 * memories and their evidence.  src/skill.c.
 */
CREATE VIEW prometheus.skill WITH (security_barrier) AS
SELECT m.memory_id,
       m.owner,
       m.agent,
       coalesce(
           CASE WHEN jsonb_typeof(m.metadata -> 'skill') = 'string'
                THEN nullif(btrim(m.metadata ->> 'skill'), '') END,
           CASE WHEN jsonb_typeof(m.metadata -> 'name') = 'string'
                THEN nullif(btrim(m.metadata ->> 'name'), '') END,
           left(regexp_replace(
               substring(left(m.content, 500) FROM '\S+(?:\s+\S+){0,5}'),
               '\s+', ' ', 'g'), 63),
           '') AS name,
       CASE WHEN jsonb_typeof(m.metadata -> 'category') = 'string'
            THEN nullif(btrim(m.metadata ->> 'category'), '') END AS category,
       CASE WHEN jsonb_typeof(m.metadata -> 'difficulty')
                 IN ('string', 'number')
            THEN nullif(btrim(m.metadata ->> 'difficulty'), '') END
           AS difficulty,
       e.confidence AS success_rate,
       e.number AS uses,
       e.confidence > 0.8::real AS mastered,
       (SELECT min(f.created_at) FROM prometheus._memory f
         WHERE f.memory_id = m.memory_id AND prometheus._seen(f.xid))
           AS created_at,
       greatest(m.created_at, e.found_at) AS updated_at,
       m.content
  FROM prometheus._memory m
 CROSS JOIN LATERAL (
       SELECT x.number, x.confidence, x.found_at
         FROM prometheus._evidence x
        WHERE x.memory_id = m.memory_id AND prometheus._seen(x.xid)
        ORDER BY x.number DESC LIMIT 1) e
 WHERE NOT m.forgotten
   AND 'procedural' IN (m.kind,
                        CASE m.kind WHEN 'vault'
                             THEN m.metadata ->> 'consolidated_from' END)
   AND (m.expires_at IS NULL
        OR m.expires_at > coalesce(prometheus._moment(), now()))
   AND prometheus._seen(m.xid)
   AND prometheus._may_see(m.owner, m.owner_oid)
   AND NOT EXISTS (SELECT FROM prometheus._memory n
                    WHERE n.memory_id = m.memory_id
                      AND n.version > m.version
                      AND prometheus._seen(n.xid));
COMMENT ON VIEW prometheus.skill IS
    'What agents can do for you, as far as tasks have shown it: the procedures (memories of kind procedural, and those of the vault that were) that have evidence. Nothing that a person or a model says of a procedure counts.';
COMMENT ON COLUMN prometheus.skill.memory_id IS 'The procedure''s, in prometheus.memory.';
COMMENT ON COLUMN prometheus.skill.owner IS 'The role whose memory it is.';
COMMENT ON COLUMN prometheus.skill.agent IS 'The agent that has it.';
COMMENT ON COLUMN prometheus.skill.name IS 'The text skill of its metadata, else the text name, else its first six words, up to 63 characters. Not unique.';
COMMENT ON COLUMN prometheus.skill.category IS 'The text category of its metadata; null: none.';
COMMENT ON COLUMN prometheus.skill.difficulty IS 'The text or number difficulty of its metadata, as it was given; null: none.';
COMMENT ON COLUMN prometheus.skill.success_rate IS 'From 0 to 1, a moving average from 0 of the tasks that were told it and reflected on: c + a (success - c), a = 0.5 for the first five, then 0.2; a success is a score from 0.7 on.';
COMMENT ON COLUMN prometheus.skill.uses IS 'How many tasks these were.';
COMMENT ON COLUMN prometheus.skill.mastered IS 'True if success_rate is above 0.8: then it is in the vault, unless it is pinned, and until its rate is not any more.';
COMMENT ON COLUMN prometheus.skill.created_at IS 'When the oldest version that is kept was stored.';
COMMENT ON COLUMN prometheus.skill.updated_at IS 'When it was last changed or shown.';
COMMENT ON COLUMN prometheus.skill.content IS 'The procedure.';

CREATE FUNCTION @extschema@.prometheus_share_skill(
    name text,
    to_agent text,
    OUT memory_id bigint,
    OUT owner text,
    OUT from_agent text,
    OUT shared boolean,
    OUT conflict double precision)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_share_skill';
COMMENT ON FUNCTION @extschema@.prometheus_share_skill(text, text) IS
    'Gives a skill of prometheus.skill to another agent of its owner: of those of this name the caller''s own with the highest success rate; if he has none, that of the one role whose skills he may see and who has one (an administrator''s: all). The procedure is remembered for that agent as a memory of kind procedural, with the same importance and embedding, until the same time; its metadata say from where: shared_from is {"memory_id", "agent", "success_rate", "uses", "shared_at"}. Evidence does not travel: it is a skill of that agent when tasks of that agent have shown it. memory_id: what that agent has. owner: whose both are. from_agent: whose skill it was. shared: false if the agent remembers that content already; then it stays as it is. conflict: 0 to 1, the highest of similarity * |difference of the success rates| of this skill and each one of to_agent with the same name, category or content; similarity is the number of words in both divided by that of words in either (Jaccard), 1 for the same content. Above 0.5 raises object_not_in_prerequisite_state. Raises undefined_object if there is no such skill or agent, invalid_parameter_value if it is to_agent''s own, or several other roles have one.';
