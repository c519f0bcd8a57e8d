-- Rules that hold for every object of the extension.  A new object is covered
-- without a line here; an exception is named in the list of its rule.
BEGIN;
SELECT plan(28);

CREATE TEMP VIEW member AS
    SELECT d.classid, d.objid
      FROM pg_depend d
      JOIN pg_extension e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass
       AND d.deptype = 'e'
       AND e.extname = 'prometheus';

CREATE TEMP VIEW fn AS
    SELECT p.*, p.oid::regprocedure::text AS signature, l.lanname,
           coalesce(p.proconfig::text, '') ~ 'search_path=pg_catalog, pg_temp'
               AS path_is_fixed
      FROM pg_proc p
      JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
      JOIN pg_language l ON l.oid = p.prolang;

-- Sequences of identity columns belong to their tables.
CREATE TEMP VIEW rel AS
    SELECT c.*
      FROM pg_class c
      JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
     WHERE NOT EXISTS (
           SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
              AND d.deptype = 'i' AND c.relkind = 'S');

CREATE TEMP VIEW col AS
    SELECT r.relname, a.attrelid, a.attname, a.atttypid, a.atttypmod, a.attnotnull
      FROM rel r
      JOIN pg_attribute a
        ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE r.relkind = 'r';

-- A rule that looks at nothing proves nothing.
SELECT cmp_ok((SELECT count(*) FROM fn), '>', 0::bigint, 'there are functions');
SELECT cmp_ok((SELECT count(*) FROM rel), '>', 0::bigint, 'there are relations');

-- Comments.

SELECT is_empty(
    $$SELECT signature FROM fn WHERE obj_description(oid, 'pg_proc') IS NULL$$,
    'every function has a comment');

SELECT is_empty(
    $$SELECT relname FROM rel WHERE obj_description(oid, 'pg_class') IS NULL$$,
    'every table, view and sequence has a comment');

SELECT is_empty(
    $$SELECT r.relname, a.attname FROM rel r
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
       WHERE r.relkind = 'v' AND r.relname !~ '^_' AND col_description(r.oid, a.attnum) IS NULL$$,
    'every column of a public view has a comment');

SELECT cmp_ok((SELECT count(*) FROM pg_settings WHERE name LIKE 'prometheus.%'), '>', 0::bigint,
              'there are settings');
SELECT is_empty(
    $$SELECT name, short_desc FROM pg_settings
       WHERE name LIKE 'prometheus.%' AND short_desc !~ '\.$'$$,
    'every setting has a description that is a sentence');

-- Names.

SELECT is_empty(
    $$SELECT signature FROM fn
       WHERE CASE WHEN pronamespace = 'prometheus'::regnamespace
                  THEN proname !~ '^_' AND proname !~ '_at$'
                  ELSE proname !~ '^prometheus_' END$$,
    'a public function is prometheus_NAME, an internal one prometheus._NAME');

SELECT is_empty(
    $$SELECT signature FROM fn
       WHERE pronargs > 0 AND coalesce('' = ANY (proargnames), true)
         AND pronamespace <> 'prometheus'::regnamespace$$,
    'every argument of a public function has a name');

SELECT is_empty(
    $$SELECT relname FROM rel
       WHERE relnamespace <> 'prometheus'::regnamespace$$,
    'every relation is in the schema prometheus');

-- Safety.

SELECT is_empty(
    $$SELECT signature FROM fn
       WHERE NOT path_is_fixed
         AND (prosecdef OR lanname NOT IN ('c', 'internal') AND prosqlbody IS NULL)$$,
    'a function that looks up names by search_path fixes it');

SELECT set_eq(
    $$SELECT signature FROM fn WHERE prosecdef$$,
    ARRAY[]::text[],
    'SECURITY DEFINER are only these functions');

SELECT set_eq(
    $$SELECT signature FROM fn, aclexplode(coalesce(proacl, acldefault('f', proowner)))
       WHERE grantee = 0$$,
    ARRAY[]::text[],
    'everybody may execute only these functions');

SELECT is_empty(
    $$SELECT relname FROM rel, aclexplode(relacl) WHERE grantee = 0
      UNION ALL
      SELECT nspname FROM pg_namespace, aclexplode(nspacl)
       WHERE nspname = 'prometheus' AND grantee = 0$$,
    'nothing else is granted to everybody');

SELECT is_empty(
    $$SELECT relname, grantee::regrole FROM rel, aclexplode(relacl)
       WHERE (relkind <> 'v' OR relname ~ '^_') AND grantee <> relowner$$,
    'tables and sequences are granted to nobody');

SELECT is_empty(
    $$SELECT relname FROM rel
       WHERE relkind = 'v' AND relname <> 'worker'   -- processes, not rows
         AND NOT coalesce('security_barrier=true' = ANY (reloptions), false)$$,
    'every view of rows is a security barrier');

SELECT is_empty(
    $$SELECT relname FROM rel WHERE relkind = 'v' AND pg_relation_is_updatable(oid, false) <> 0
         AND (SELECT count(*) FROM aclexplode(relacl) WHERE privilege_type <> 'SELECT' AND grantee <> relowner) > 0$$,
    'no view can be written to by others');

SELECT is_empty(
    $$SELECT signature FROM fn WHERE proleakproof AND signature NOT IN ('prometheus._may_see(text,oid)', 'prometheus._may_approve(text,oid)', 'prometheus._seen(xid8)',
                                                       'prometheus._seen_at(xid8,timestamp with time zone)', 'prometheus._seen_in(xid8,bigint)')$$,
    'only the tests of visibility are leakproof');

SELECT is_empty(
    $$SELECT rolname FROM (VALUES ('prometheus_agent_user'), ('prometheus_agent_admin')) AS v(name)
        LEFT JOIN pg_roles r ON r.rolname = v.name
       WHERE r.oid IS NULL OR rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb
          OR coalesce(shobj_description(r.oid, 'pg_authid'), '') !~ 'prometheus'$$,
    'the two roles are there, cannot log in and say whose they are');

-- Dump, restore and upgrade.

SELECT set_eq(
    $$SELECT relname::text FROM rel
       WHERE relkind IN ('r', 'S')
         AND NOT EXISTS (SELECT FROM pg_extension
                          WHERE extname = 'prometheus' AND rel.oid = ANY (extconfig))$$,
    ARRAY['_alert', '_checkpoint', '_gate', '_memory_entry', '_memory_entry_id'],
    'every table and sequence is dumped but these');

SELECT is_empty(
    $$SELECT relname, attname, format_type(atttypid, atttypmod) FROM col
       WHERE format_type(atttypid, NULL) ~ '^reg'
          OR EXISTS (SELECT FROM pg_type t WHERE t.oid = atttypid AND typtype = 'e')$$,
    'no column is of an enum or of a type that holds an oid of this cluster');

SELECT is_empty(
    $$SELECT relname FROM rel
       WHERE relkind NOT IN ('r', 'v', 'S', 'c') OR relrowsecurity OR relhassubclass
          OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = rel.oid AND contype = 'f')$$,
    'no partition, foreign key, row security or inheritance');

SELECT is_empty(
    $$SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM rel)
      UNION ALL
      SELECT ev_class::regclass, rulename FROM pg_rewrite JOIN rel ON rel.oid = ev_class
       WHERE rulename <> '_RETURN'$$,
    'no trigger and no rule: facts are written past them');

SELECT is_empty(
    $$SELECT relname FROM rel WHERE relpersistence <> 'p'$$,
    'every table and sequence is logged');

SELECT is_empty(
    $$SELECT col.relname, attname FROM col
       WHERE EXISTS (SELECT FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                      WHERE d.adrelid = col.attrelid AND a.attname = col.attname)
         AND (col.relname, attname) NOT IN (('_memory', 'sketch'))$$,
    'no column has a default: facts are written past them, but for memories');

-- Facts.

SELECT set_eq(
    $$SELECT relname::text FROM rel
       WHERE relkind = 'r'
         AND NOT EXISTS (SELECT FROM col
                          WHERE attrelid = rel.oid AND attname = 'xid'
                            AND atttypid = 'xid8'::regtype AND attnotnull)$$,
    ARRAY['_alert', '_checkpoint', '_consumer', '_delivery', '_era', '_gate', '_kept_trace', '_span_position', '_subscription'],
    'every table has the transaction that wrote the row but these');

SELECT is_empty(
    $$SELECT relname FROM rel
       WHERE relkind = 'r'
         AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = rel.oid AND indisunique)
         AND relname NOT IN ('_cancel', '_era')$$,
    'every table has a key: a fact cannot be written twice');

SELECT is_empty(
    $$SELECT relname FROM col WHERE attname = 'version'
      EXCEPT
      SELECT relname FROM col WHERE attname = 'mark' AND attnotnull$$,
    'whatever has versions has the mark of each');

SELECT * FROM finish();
ROLLBACK;
