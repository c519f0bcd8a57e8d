/*
 * Marks: what a transaction saw at a moment, for AS OF.  src/mark.c writes
 * them, src/moment.c finds them and asks what they see.
 */
CREATE TABLE prometheus._mark (
    mark_id bigint NOT NULL PRIMARY KEY,
    xid xid8 NOT NULL,
    at timestamptz NOT NULL,
    snapshot pg_snapshot NOT NULL
);
CREATE INDEX _mark_at ON prometheus._mark (at);
COMMENT ON TABLE prometheus._mark IS
    'A snapshot, with the era of its xids, and the time just after it was taken. Written by the publisher alone, so both grow with mark_id, which is dense from 1. Rows are never changed.';

CREATE TABLE prometheus._mark_name (
    mark_id bigint NOT NULL,
    xid xid8 NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL PRIMARY KEY
);
COMMENT ON TABLE prometheus._mark_name IS
    'The names that were given to marks and not dropped.';

CREATE FUNCTION prometheus._seen_support(internal) RETURNS internal
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'prom_seen_support';
COMMENT ON FUNCTION prometheus._seen_support(internal) IS
    'Tells the planner that prometheus._seen() and its like let nearly every row pass.';

CREATE FUNCTION prometheus._seen(xid xid8) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1
    SUPPORT prometheus._seen_support
    AS 'MODULE_PATHNAME', 'prom_seen';
COMMENT ON FUNCTION prometheus._seen(xid8) IS
    'True if a fact of that transaction is seen at the moment that the setting prometheus.as_of says; without it always.';

CREATE FUNCTION prometheus._seen_at(xid xid8, at timestamptz) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1
    SUPPORT prometheus._seen_support
    AS 'MODULE_PATHNAME', 'prom_seen_at';
COMMENT ON FUNCTION prometheus._seen_at(xid8, timestamptz) IS
    'True if a fact of that transaction is seen at that moment. Raises if nobody can say for ever what was seen then.';

CREATE FUNCTION prometheus._seen_in(xid xid8, mark_id bigint) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1
    SUPPORT prometheus._seen_support
    AS 'MODULE_PATHNAME', 'prom_seen_in';
COMMENT ON FUNCTION prometheus._seen_in(xid8, bigint) IS
    'True if a mark sees a fact of that transaction.';

CREATE FUNCTION prometheus._last_mark() RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'prom_last_mark';
COMMENT ON FUNCTION prometheus._last_mark() IS
    'The mark of prometheus.as_of: versions that are seen then have it or an older one. Without the setting the highest number.';

CREATE FUNCTION prometheus._moment() RETURNS timestamptz
    LANGUAGE c STABLE PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'prom_moment';
COMMENT ON FUNCTION prometheus._moment() IS
    'The time of the mark of prometheus.as_of; null: it is not set.';

CREATE FUNCTION prometheus._mark_at(at timestamptz) RETURNS bigint
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1
    AS 'MODULE_PATHNAME', 'prom_mark_at';
COMMENT ON FUNCTION prometheus._mark_at(timestamptz) IS
    'The mark that answers for a moment. Raises if nobody can say for ever what was seen then.';

CREATE FUNCTION prometheus._hidden_marks(
    OUT mark_id bigint,
    OUT at timestamptz)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1
AS 'MODULE_PATHNAME', 'prom_hidden_marks';
COMMENT ON FUNCTION prometheus._hidden_marks() IS
    'The marks that are committed, but after the snapshot of the statement.';

CREATE VIEW prometheus._every_mark WITH (security_barrier) AS
SELECT m.mark_id, m.at FROM prometheus._mark m
 WHERE m.at >= coalesce((SELECT max(h.at) FROM prometheus._horizon h),
                        '-infinity')
UNION ALL
SELECT h.mark_id, h.at FROM prometheus._hidden_marks() h;
COMMENT ON VIEW prometheus._every_mark IS
    'The marks that can answer for a moment: all that are committed now, from the horizon on.';

CREATE VIEW prometheus.mark WITH (security_barrier) AS
SELECT m.mark_id, n.name, m.at
  FROM prometheus._mark m
  LEFT JOIN prometheus._mark_name n ON n.mark_id = m.mark_id;
COMMENT ON VIEW prometheus.mark IS
    'The moments that AS OF can show: at each of them a mark was written, about every prometheus.mark_interval while facts change.';
COMMENT ON COLUMN prometheus.mark.mark_id IS 'Its number, from 1.';
COMMENT ON COLUMN prometheus.mark.name IS 'As given to prometheus_mark(); null: none.';
COMMENT ON COLUMN prometheus.mark.at IS 'From then on, until the next one, AS OF shows what it saw.';

CREATE FUNCTION @extschema@.prometheus_mark(name text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_mark';
COMMENT ON FUNCTION @extschema@.prometheus_mark(text) IS
    'Lets the publisher write a mark now, in a transaction of its own, whatever becomes of the caller''s, and returns its number. AS OF can be asked for it by its name (1 to 63 bytes), which is kept until prometheus_drop_mark(). What the caller has not committed is not in it. A name also makes a restore point of the server, if wal_level is not minimal. Raises duplicate_object for a name that is taken, object_not_in_prerequisite_state if no mark is written within 5 s.';

CREATE FUNCTION @extschema@.prometheus_drop_mark(name text) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'prom_drop_mark';
COMMENT ON FUNCTION @extschema@.prometheus_drop_mark(text) IS
    'Makes the name of a mark free; the mark stays. For who named it and for administrators. Raises undefined_object for a name that no mark has.';
