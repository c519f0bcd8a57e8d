/*
 * Tracked tables: every version of their rows, as of any moment, and the undo
 * of what a task changed.  src/README.md says how; src/track.c, version.c,
 * history.c, undo.c.
 */
CREATE SEQUENCE prometheus._row_version_id;
COMMENT ON SEQUENCE prometheus._row_version_id IS
    'Ids of versions of rows. Not cached: a version is numbered while its row is locked, so those of one key are in their order.';

CREATE TABLE prometheus._track (
    track_id uuid NOT NULL,
    layout integer NOT NULL,
    last_column integer NOT NULL,
    relation_oid oid NOT NULL,
    xid xid8 NOT NULL,
    recorded_at timestamptz NOT NULL,
    event text NOT NULL,
    relation text NOT NULL,
    reason text,
    columns integer[] NOT NULL,
    attnums integer[] NOT NULL,
    names text[] NOT NULL,
    types text[] NOT NULL,
    key integer[] NOT NULL,
    PRIMARY KEY (track_id, layout)
);
COMMENT ON TABLE prometheus._track IS
    'A tracked table began to be recorded, was altered, or is recorded no more. track_id: the argument of its triggers, so it comes along with the table through renames and dumps. columns: numbers that stay theirs for ever, last_column the highest ever given; key: those of the primary key.';

CREATE TABLE prometheus._row_version (
    track_id uuid NOT NULL,
    version_id bigint NOT NULL,
    xid xid8 NOT NULL,
    changed_at timestamptz NOT NULL,
    task_id bigint,
    undoes bigint,
    step integer,
    layout integer NOT NULL,
    operation text NOT NULL,
    key text COLLATE "C" NOT NULL,
    fields text[],
    PRIMARY KEY (track_id, key, version_id)
);
-- Not partial: its condition would be compiled anew for each row.
CREATE INDEX _row_version_task ON prometheus._row_version (task_id);
COMMENT ON TABLE prometheus._row_version IS
    'A row of a tracked table as it has been since: after an insert, update or delete (no fields), at the begin of tracking, or since the table was altered. The highest version_id of a key is the newest. fields: the values'' texts, in the order of that layout''s columns. task_id, step: the tool call that changed it; undoes: the task that prometheus_undo() took back with it. Retention keeps what an undo of a task that is there needs.';

CREATE FUNCTION prometheus._row_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'prom_row_changed';
COMMENT ON FUNCTION prometheus._row_changed() IS
    'Records the versions of a tracked table''s rows. Its argument is the track_id. Only prometheus_track() makes such triggers.';

CREATE FUNCTION @extschema@.prometheus_track(
    relation regclass,
    enable boolean DEFAULT true)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_track';
COMMENT ON FUNCTION @extschema@.prometheus_track(regclass, boolean) IS
    'Records every version of the rows of a table from now on, for prometheus_rows_at() and prometheus_undo(); enable false ends that, and the versions stay. Of a partitioned table: all its partitions of now. Versions are kept for prometheus.retention after a newer one. For the table''s owner. Waits for who writes the table, and keeps writers out until the transaction ends. Of one that is tracked: begins anew only if recording was interrupted. Raises wrong_object_type for what is no permanent table of a user, object_not_in_prerequisite_state without a primary key that is checked at once.';

CREATE FUNCTION @extschema@.prometheus_rows_at(
    relation anyelement,
    moment timestamptz)
RETURNS SETOF anyelement
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_rows_at';
COMMENT ON FUNCTION @extschema@.prometheus_rows_at(anyelement, timestamptz) IS
    'The rows that a tracked table had at that moment, in the table''s columns of now: SELECT * FROM prometheus_rows_at(NULL::my_table, now() - interval ''1 hour''). What was committed at the last mark before the moment; the same until it is before the horizon of prometheus.retention. For who may SELECT all columns of the table and is not subject to its row security. Columns added since are null; values of columns whose type has changed are converted through their text. Raises object_not_in_prerequisite_state for a table that is not tracked, or was not at that moment, and for a moment before the horizon.';

CREATE FUNCTION @extschema@.prometheus_rows_at(
    relation anyelement,
    moment timestamptz,
    key jsonb)
RETURNS SETOF anyelement
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
AS 'MODULE_PATHNAME', 'prom_rows_at';
COMMENT ON FUNCTION @extschema@.prometheus_rows_at(
    anyelement, timestamptz, jsonb) IS
    'The row of a primary key that a tracked table had at that moment, if it had one, by the index: SELECT * FROM prometheus_rows_at(NULL::my_table, now() - interval ''1 hour'', ''{"id": 7}''). key: an object of the primary key''s columns, as prometheus_undo() tells them. Otherwise as without a key. Raises invalid_parameter_value for another key.';

CREATE FUNCTION @extschema@.prometheus_undo(
    task_id bigint,
    dry_run boolean DEFAULT true)
RETURNS TABLE (
    relation text,
    key jsonb,
    operation text,
    verdict text,
    reason text,
    current_row jsonb,
    restored_row jsonb)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_undo';
COMMENT ON FUNCTION @extschema@.prometheus_undo(bigint, boolean) IS
    'What a task''s tools changed in tracked tables, a line for each row, and what would become of it: verdict revert, same (nothing is left to revert), undone (it was undone before) or conflict (reason says why). With dry_run false the rows to revert are reverted, by ordinary statements of the caller, or nothing at all: PM007 if there is a conflict. Values are texts. For who submitted the task and for prometheus_agent_admin, with SELECT on the tables, and INSERT, UPDATE, DELETE as needed. Raises undefined_object for a task that is unknown or not the caller''s, object_not_in_prerequisite_state for one that has not ended (with dry_run false).';
