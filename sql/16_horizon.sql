/*
 * The horizon of retention: what lies before it may be gone.  src/horizon.c
 * reads it, src/retention.c moves it, and only then deletes.
 */
CREATE TABLE prometheus._horizon (
    at timestamptz NOT NULL PRIMARY KEY,
    xid xid8 NOT NULL,
    moved_at timestamptz NOT NULL,
    snapshot pg_snapshot NOT NULL
);
COMMENT ON TABLE prometheus._horizon IS
    'How far retention has come. at: tasks that ended, and versions that were superseded, before then may be gone, and AS OF below it raises. snapshot: of the mark that it is; what goes had ended, or was superseded, in it. One row, or none as long as nothing was deleted.';
