/*
 * Summaries: what an agent has done last is a state of it.  src/summary.c.
 */
CREATE TABLE prometheus._state_failure (
    task_id bigint NOT NULL,
    event_id bigint NOT NULL,
    xid xid8 NOT NULL,
    failed_at timestamptz NOT NULL,
    key text NOT NULL,
    error text NOT NULL,
    PRIMARY KEY (task_id, event_id)
);
CREATE INDEX _state_failure_xid ON prometheus._state_failure (xid);
COMMENT ON TABLE prometheus._state_failure IS
    'A task was completed, and its summary could not be saved as the state of that key.';
