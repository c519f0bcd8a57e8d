/*
 * What the processes say of themselves, read from shared memory.
 */
CREATE FUNCTION prometheus._worker(
    OUT role text,
    OUT pid integer,
    OUT state text,
    OUT started_at timestamptz,
    OUT in_flight integer,
    OUT task_id bigint)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_worker';
COMMENT ON FUNCTION prometheus._worker() IS
    'The processes of prometheus for this database, for the view prometheus.worker.';

CREATE FUNCTION prometheus._queue(
    OUT task_id bigint,
    OUT status text,
    OUT priority integer,
    OUT due_at timestamptz,
    OUT since timestamptz,
    OUT why text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_queue';
COMMENT ON FUNCTION prometheus._queue() IS
    'The live tasks of this database that the caller submitted (administrators: all), for the view prometheus.queue.';

CREATE FUNCTION prometheus._installed() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_installed';
COMMENT ON FUNCTION prometheus._installed() IS
    'Tells the launcher, after the commit, that the extension is in this database.';

CREATE FUNCTION @extschema@.prometheus_version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'prom_version';
COMMENT ON FUNCTION @extschema@.prometheus_version() IS
    'The version of the library that the server has loaded.';

CREATE FUNCTION @extschema@.prometheus_health(
    OUT check_name text,
    OUT status text,
    OUT value text,
    OUT hint text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_health';
COMMENT ON FUNCTION @extschema@.prometheus_health() IS
    'Whether all is there that tasks need. status: ok, warning or error; hint: what to do.';
