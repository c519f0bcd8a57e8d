/*
 * The schema that everything but the public functions is in.  A plain CREATE:
 * a schema that somebody planted makes CREATE EXTENSION fail.
 */
\echo Use "CREATE EXTENSION prometheus" to load this file. \quit

-- What follows finds the system's functions and operators only, not better
-- matches that somebody planted in the schema chosen for the public functions.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE SCHEMA prometheus;
COMMENT ON SCHEMA prometheus IS
    'The relations of the extension prometheus: views to read; tables that begin with an underscore are its own.';
