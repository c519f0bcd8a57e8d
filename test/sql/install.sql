-- CREATE EXTENSION and DROP EXTENSION: what they make, what they leave, and
-- what stops them.
\set VERBOSITY sqlstate
\pset format unaligned
SET client_min_messages = error;

-- What is left of it.
CREATE VIEW leftover AS
    SELECT 'schema ' || nspname AS leftover FROM pg_namespace WHERE nspname ~ '^prom'
     UNION ALL
    SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE proname ~ '^_?prom'
     UNION ALL
    SELECT 'relation ' || oid::regclass FROM pg_class WHERE relnamespace NOT IN ('pg_catalog'::regnamespace,
           'information_schema'::regnamespace, 'pg_toast'::regnamespace) AND relname <> 'leftover'
     UNION ALL
    SELECT 'type ' || oid::regtype FROM pg_type WHERE typname ~ '^_?prom'
     UNION ALL
    SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ '^prom';

DROP EXTENSION prometheus;
SELECT * FROM leftover ORDER BY leftover COLLATE "C";

-- Somebody was there before.
CREATE SCHEMA prometheus;
CREATE EXTENSION prometheus;
DROP SCHEMA prometheus;

CREATE FUNCTION prometheus_version() RETURNS text LANGUAGE sql AS 'SELECT ''planted''';
CREATE EXTENSION prometheus;
DROP FUNCTION prometheus_version();

-- A role of that name that is not ours; ours is put aside meanwhile.
ALTER ROLE prometheus_agent_user RENAME TO prom_test_kept;
CREATE ROLE prometheus_agent_user;
CREATE EXTENSION prometheus;
COMMENT ON ROLE prometheus_agent_user IS 'Somebody else''s.';
CREATE EXTENSION prometheus;
-- Its owner may give it to us.
COMMENT ON ROLE prometheus_agent_user IS 'Now for prometheus.';
CREATE EXTENSION prometheus;
DROP EXTENSION prometheus;
REVOKE prometheus_agent_user FROM prometheus_agent_admin;
DROP ROLE prometheus_agent_user;
ALTER ROLE prom_test_kept RENAME TO prometheus_agent_user;
-- A role that is gone is made again.
ALTER ROLE prometheus_agent_admin RENAME TO prom_test_kept;
CREATE EXTENSION prometheus;
SELECT shobj_description('prometheus_agent_admin'::regrole, 'pg_authid');
DROP EXTENSION prometheus;
DROP ROLE prometheus_agent_admin;
ALTER ROLE prom_test_kept RENAME TO prometheus_agent_admin;

-- Not for everybody: it is not trusted.
CREATE ROLE prom_test_owner;
SELECT current_database() AS database \gset
GRANT CREATE ON DATABASE :"database" TO prom_test_owner;
GRANT CREATE ON SCHEMA public TO prom_test_owner;
SET ROLE prom_test_owner;
CREATE EXTENSION prometheus;
RESET ROLE;
DROP OWNED BY prom_test_owner;
DROP ROLE prom_test_owner;

SELECT * FROM leftover WHERE leftover !~ '^role' ORDER BY leftover COLLATE "C";

-- A transaction that is rolled back.
BEGIN;
SET LOCAL search_path = pg_temp, public;
CREATE EXTENSION prometheus SCHEMA public;
SHOW search_path;
SELECT name, version FROM prometheus.agent;
ROLLBACK;
SELECT * FROM leftover WHERE leftover !~ '^role' ORDER BY leftover COLLATE "C";

-- As it is meant.
CREATE EXTENSION prometheus;
SELECT extversion, extrelocatable, extnamespace::regnamespace FROM pg_extension WHERE extname = 'prometheus';

-- Its members, but for the types of the relations.
SELECT member
  FROM pg_depend d
  JOIN pg_extension e ON e.oid = d.refobjid
 CROSS JOIN pg_describe_object(d.classid, d.objid, 0) AS member
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'prometheus'
   AND d.classid <> 'pg_type'::regclass
 ORDER BY member COLLATE "C";

-- The columns of what is public, in order.
SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod)
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relnamespace = 'prometheus'::regnamespace AND c.relkind = 'v' AND c.relname !~ '^_'
 ORDER BY c.relname COLLATE "C", a.attnum;

-- Its functions, with their arguments and defaults.
SELECT p.proname, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
  FROM pg_proc p
  JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'prometheus'
 WHERE p.proname ~ '^prometheus_'
 ORDER BY p.proname COLLATE "C";

-- What somebody built on it keeps it, unless told otherwise.
CREATE VIEW mine AS SELECT task_id, status FROM prometheus.task;
DROP EXTENSION prometheus;
DROP EXTENSION prometheus CASCADE;
SELECT * FROM leftover WHERE leftover !~ '^role' ORDER BY leftover COLLATE "C";

-- Members cannot be dropped or moved one by one.
CREATE EXTENSION prometheus;
DROP VIEW prometheus.task;
DROP FUNCTION prometheus_version();
DROP SCHEMA prometheus;
ALTER EXTENSION prometheus SET SCHEMA pg_catalog;
DROP EXTENSION prometheus;

-- In another schema.
CREATE SCHEMA other;
CREATE EXTENSION prometheus SCHEMA other;
SELECT count(*) FROM pg_proc WHERE proname ~ '^prometheus_' AND pronamespace <> 'other'::regnamespace;
SELECT other.prometheus_submit('x', run_at => '2100-01-01') IS NOT NULL AS submitted;
SELECT status, agent, request FROM prometheus.task;
SELECT other.prometheus_set_agent('writer', 'echo');
CALL other.prometheus_ask('x', timeout => '0');
SELECT prometheus_version();
DROP SCHEMA other;
DROP EXTENSION prometheus;
DROP SCHEMA other;

-- In a schema that does not exist, twice, and in a version that does not exist.
CREATE EXTENSION prometheus SCHEMA nowhere;
CREATE EXTENSION prometheus VERSION '0.0';
CREATE EXTENSION prometheus;
CREATE EXTENSION prometheus;
CREATE EXTENSION IF NOT EXISTS prometheus;

-- New objects, used by a session that knew the old ones.
SELECT prometheus_submit('x', run_at => '2100-01-01') IS NOT NULL AS submitted;
DROP EXTENSION prometheus;
CREATE EXTENSION prometheus;
SELECT count(*) FROM prometheus.task;
SELECT prometheus_submit('y', run_at => '2100-01-01') AS task_id \gset
SELECT request FROM prometheus.task;
SELECT prometheus_wait(:task_id, '0');
SELECT prometheus_cancel(:task_id);
SELECT prometheus_set_agent('writer', 'echo');

DROP VIEW leftover;
DROP EXTENSION prometheus;
CREATE EXTENSION prometheus;
