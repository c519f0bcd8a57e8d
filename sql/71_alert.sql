/*
 * Alerts: what a person should look at.  src/alert.c has the checks; here is
 * what they are set to, and what is raised.
 */
CREATE TABLE prometheus._threshold (
    version bigint NOT NULL,
    xid xid8 NOT NULL,
    mark bigint NOT NULL,
    set_at timestamptz NOT NULL,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    threshold text,
    set_by text NOT NULL,
    options jsonb NOT NULL,
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE prometheus._threshold IS
    'Every version of every threshold that was set: in words, off, or null, which is the default. mark: the newest mark when it was written, 0 before the first.';

CREATE TABLE prometheus._alert (
    name text NOT NULL PRIMARY KEY,
    event_id bigint NOT NULL,
    raised_at timestamptz NOT NULL
);
COMMENT ON TABLE prometheus._alert IS
    'What is raised now, and by which event. Changes in place: not a fact, not dumped.';

CREATE FUNCTION prometheus._alerts(
    OUT name text,
    OUT status text,
    OUT value text,
    OUT threshold text,
    OUT since timestamptz,
    OUT what text,
    OUT number double precision,
    OUT hint text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20
AS 'MODULE_PATHNAME', 'prom_alerts';
COMMENT ON FUNCTION prometheus._alerts() IS
    'Judges every check by its threshold, as of now, for the view prometheus.alert.';

CREATE FUNCTION @extschema@.prometheus_set_alert(
    name text,
    threshold text)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_set_alert';
COMMENT ON FUNCTION @extschema@.prometheus_set_alert(text, text) IS
    'Writes a new version of an alert''s threshold and returns its number; it holds from the commit on. threshold: an amount with its unit, as in 10 GB, 100 MB/s, 5 min, 90 %, 3 (the kind is that of the default in prometheus.alert); off: it is never raised; null or default: the default. What is above its threshold is raised (event alert.raised), and cleared (alert.cleared) at nine tenths of it, a count at the threshold itself. Raises undefined_object for an unknown name, invalid_parameter_value for what is no threshold of it.';

CREATE VIEW prometheus.alert WITH (security_barrier) AS
SELECT a.name, a.status, a.value, a.threshold, a.since, a.what, a.number,
       a.hint
  FROM prometheus._alerts() a;
COMMENT ON VIEW prometheus.alert IS
    'What a person should look at: every check with its value now and its threshold. What is now: not a fact.';
COMMENT ON COLUMN prometheus.alert.name IS 'What prometheus_set_alert() is given.';
COMMENT ON COLUMN prometheus.alert.status IS 'ok, raised or off.';
COMMENT ON COLUMN prometheus.alert.value IS 'What it is now, in words with a unit; null: nobody can say, or it does not apply here; then an alert stays as it is. Of budget_spent for administrators only.';
COMMENT ON COLUMN prometheus.alert.threshold IS 'Above this it is raised, in words with a unit; off: never.';
COMMENT ON COLUMN prometheus.alert.since IS 'When the publisher raised it, by an event alert.raised; null: it is not raised, or was not noticed yet.';
COMMENT ON COLUMN prometheus.alert.what IS 'What the value is of: a slot, a process, a task, a gate, a budget; for administrators only.';
COMMENT ON COLUMN prometheus.alert.number IS 'The value as a number: bytes, bytes per second, seconds, percent, or how many.';
COMMENT ON COLUMN prometheus.alert.hint IS 'What to do.';
