/*
 * The schema that everything but the public functions is in.  A plain CREATE:
 * a schema that somebody planted makes CREATE EXTENSION fail.
 */
\echo Use "CREATE EXTENSION prometheus" to load this file. \quit

CREATE SCHEMA prometheus;
COMMENT ON SCHEMA prometheus IS
    'The relations of the extension prometheus: views to read; tables that begin with an underscore are its own.';
