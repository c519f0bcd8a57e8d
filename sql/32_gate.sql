/*
 * Gates: what may close the way to all tasks, to an agent's, or to a model.
 * What is paused is in a table, since it must outlive a restart; the rest is
 * in shared memory (src/gate.c).
 */
CREATE TABLE prometheus._gate (
    target text NOT NULL PRIMARY KEY,
    paused_at timestamptz NOT NULL,
    paused_by text NOT NULL,
    reason text
);
COMMENT ON TABLE prometheus._gate IS
    'What is paused now: all, agent:NAME or model:NAME. Changes in place: not a fact, not dumped.';
