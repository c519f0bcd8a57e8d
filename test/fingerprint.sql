-- Prints one sorted line for each thing that the extension owns or implies, so
-- that two databases made in different ways (installed, updated, restored) can
-- be compared with diff.  Names come out qualified: the databases must have the
-- extension in the same schema.  An empty output is an error, not a match.
\set ext prometheus
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
SET search_path = pg_catalog;

WITH members AS (
    SELECT d.classid, d.objid
      FROM pg_depend d
      JOIN pg_extension e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass
       AND d.deptype = 'e'
       AND e.extname = :'ext'
),
rels AS (
    SELECT c.*
      FROM pg_class c
      JOIN members m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
),
lines(line) AS (
    SELECT 'member ' || pg_describe_object(classid, objid, 0)
      FROM members
    UNION ALL
    SELECT format('schema %s %s %s', n.nspname, n.nspacl,
                  obj_description(n.oid, 'pg_namespace'))
      FROM pg_namespace n
      JOIN members m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
    UNION ALL
    SELECT format('function %s %s %s %s', p.oid::regprocedure,
                  CASE p.prokind WHEN 'a' THEN 'aggregate'
                                 ELSE md5(pg_get_functiondef(p.oid)) END,
                  p.proacl, obj_description(p.oid, 'pg_proc'))
      FROM pg_proc p
      JOIN members m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    UNION ALL
    SELECT format('type %s %s %s %s %s', t.oid::regtype, t.typtype,
                  t.typbasetype::regtype, t.typacl,
                  obj_description(t.oid, 'pg_type'))
      FROM pg_type t
      JOIN members m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
    UNION ALL
    SELECT format('relation %s %s %s %s %s %s %s', r.oid::regclass, r.relkind,
                  r.relpersistence, r.relrowsecurity, r.reloptions, r.relacl,
                  obj_description(r.oid, 'pg_class'))
      FROM rels r
    UNION ALL
    SELECT format('column %s.%s #%s %s %s %s %s %s %s %s', r.oid::regclass,
                  a.attname,
                  row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum),
                  format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  a.attidentity, a.attgenerated, a.attacl,
                  pg_get_expr(ad.adbin, ad.adrelid),
                  col_description(r.oid, a.attnum))
      FROM rels r
      JOIN pg_attribute a
        ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef ad
        ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
    UNION ALL
    SELECT format('constraint %s %s %s', c.conrelid::regclass, c.conname,
                  pg_get_constraintdef(c.oid))
      FROM pg_constraint c
      JOIN rels r ON r.oid = c.conrelid
    UNION ALL
    SELECT format('domain constraint %s %s %s', c.contypid::regtype, c.conname,
                  pg_get_constraintdef(c.oid))
      FROM pg_constraint c
      JOIN members m ON m.classid = 'pg_type'::regclass AND m.objid = c.contypid
    UNION ALL
    SELECT 'index ' || pg_get_indexdef(i.indexrelid)
      FROM pg_index i
      JOIN rels r ON r.oid = i.indrelid
    UNION ALL
    SELECT format('statistics %s', pg_get_statisticsobjdef(s.oid))
      FROM pg_statistic_ext s
      JOIN rels r ON r.oid = s.stxrelid
    UNION ALL
    SELECT 'trigger ' || pg_get_triggerdef(t.oid)
      FROM pg_trigger t
      JOIN rels r ON r.oid = t.tgrelid
     WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('sequence %s %s', s.seqrelid::regclass,
                  to_jsonb(s) - 'seqrelid')
      FROM pg_sequence s
      JOIN rels r ON r.oid = s.seqrelid
    UNION ALL
    SELECT format('view %s %s', r.oid::regclass, md5(pg_get_viewdef(r.oid)))
      FROM rels r
     WHERE r.relkind IN ('v', 'm')
    UNION ALL
    SELECT format('dumped %s %s', c.oid::regclass, x.cond)
      FROM pg_extension e,
           unnest(e.extconfig, e.extcondition) AS x(rel, cond)
      JOIN pg_class c ON c.oid = x.rel
     WHERE e.extname = :'ext'
)
SELECT line FROM lines ORDER BY line COLLATE "C";
