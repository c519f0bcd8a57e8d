/*
 * The era: which server and database the xids of facts are of.  A restore
 * brings rows along, and a copy of the database has them all; src/era.c then
 * begins the next era and pauses everything.
 */
CREATE TABLE prometheus._era (
    era integer NOT NULL CHECK (era BETWEEN 1 AND 32767),
    foreign_rows integer NOT NULL,
    database_oid oid NOT NULL,
    system_identifier bigint NOT NULL,
    begun_at timestamptz NOT NULL
);
COMMENT ON TABLE prometheus._era IS
    'Where and when each era began, and how many rows of elsewhere were here then. The xid of a fact is era << 48 | xid of the top-level transaction. No key: a dump that is restored into its own database brings the same row again.';

CREATE FUNCTION prometheus._xid() RETURNS xid8
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'prom_xid';
COMMENT ON FUNCTION prometheus._xid() IS
    'The current top-level transaction with its era, as facts have it: era << 48 | xid. Begins a new era, and pauses everything, if the facts are of another server or database.';

CREATE FUNCTION prometheus._snapshot() RETURNS pg_snapshot
    LANGUAGE c STABLE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'prom_snapshot';
COMMENT ON FUNCTION prometheus._snapshot() IS
    'The current snapshot with its era, for pg_visible_in_snapshot() with xids of facts.';

-- The first era begins here.
SELECT prometheus._xid();
