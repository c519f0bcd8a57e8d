-- What prometheus_create_tool() takes and refuses, which functions that a model
-- wrote may be tried (prometheus._check_function()), and what
-- prometheus_restore_tool() writes.  How they are tried is in t/800_factory.pl.
BEGIN;
SELECT no_plan();

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_user;
GRANT prometheus_agent_admin TO prom_test_admin, prom_test_other;
GRANT prometheus_agent_user TO prom_test_user;
CREATE SCHEMA prom_test;
GRANT USAGE ON SCHEMA prom_test TO prom_test_admin, prom_test_other, prometheus_tool_owner;
CREATE TABLE prom_test.visit (visit_id bigint, place text, secret text);
CREATE TABLE prom_test.hidden (word text);
CREATE VIEW prom_test.visited AS SELECT place FROM prom_test.visit;
CREATE SEQUENCE prom_test.counter;
GRANT SELECT ON prom_test.visit, prom_test.visited TO prom_test_admin;

-- What others made, with names that look harmless.
CREATE FUNCTION prom_test.abs(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION prom_test.lower(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN EXECUTE $1; RETURN $1; END$$;
CREATE FUNCTION prom_test.plus(bigint, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE OPERATOR prom_test.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = prom_test.plus);
CREATE OPERATOR prom_test.< (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_catalog.int8lt);
CREATE AGGREGATE prom_test.sum(bigint) (SFUNC = prom_test.plus, STYPE = bigint);
CREATE DOMAIN prom_test.checked AS text CHECK (prom_test.lower(VALUE) IS NOT NULL);
CREATE TYPE prom_test.pair AS (x bigint, y bigint);
CREATE CAST (bigint AS prom_test.pair) WITH INOUT;

-- What is wrong with a statement, for a function f(a bigint) RETURNS text.
CREATE FUNCTION pg_temp.fault(statement text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT prometheus._check_function(statement, jsonb_build_object('description', 'x',
        'examples', '[{"input": {"a": 1}, "output": "x"}]'::jsonb, 'options', options))
$$;
-- The same of an expression, and of statements.
CREATE FUNCTION pg_temp.expression(body text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.fault(format('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN (%s)', body), options)
$$;
CREATE FUNCTION pg_temp.body(body text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.fault(format('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql BEGIN ATOMIC %s; END', body), options)
$$;

-- The form of the statement.

SELECT is(pg_temp.fault(s), fault, s) FROM (VALUES
    ('SELECT 1', 'forbidden statement: SELECT'),
    ('DROP TABLE prometheus._task', 'forbidden statement: DROP TABLE'),
    ($$DO 'BEGIN END'$$, 'forbidden statement: DO'),
    ('ALTER ROLE prometheus_tool_owner SUPERUSER', 'forbidden statement: ALTER ROLE'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN $1::text; DROP SCHEMA public CASCADE',
     'there are 2 statements, and one CREATE FUNCTION was asked for'),
    ('', 'there are 0 statements, and one CREATE FUNCTION was asked for'),
    ('I cannot do that.', 'syntax error at or near "I"'),
    ('CREATE OR REPLACE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN $1::text', 'forbidden clause: OR REPLACE'),
    ('CREATE PROCEDURE f(a bigint) LANGUAGE sql BEGIN ATOMIC SELECT 1; END', 'forbidden statement: CREATE PROCEDURE'),
    ('CREATE FUNCTION public.f(a bigint) RETURNS text LANGUAGE sql RETURN $1::text', 'its name must have no schema before it'),
    ('CREATE FUNCTION pg_catalog.lower(a bigint) RETURNS text LANGUAGE sql RETURN $1::text', 'its name must have no schema before it'),
    ($$CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql AS 'SELECT pg_read_file(''/etc/passwd'')'$$,
     'its body must be RETURN with an expression, or BEGIN ATOMIC ... END, and no string'),
    ($$CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'$$, 'forbidden language: plpgsql'),
    ($$CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE c AS 'libc', 'system'$$, 'forbidden language: c'),
    ($$CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE internal AS 'pg_read_file'$$, 'forbidden language: internal'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql VOLATILE RETURN $1::text', 'forbidden clause: VOLATILE'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql SECURITY DEFINER RETURN $1::text', 'forbidden clause: SECURITY DEFINER'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql LEAKPROOF RETURN $1::text', 'forbidden clause: LEAKPROOF'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql SET search_path = public RETURN $1::text', 'forbidden clause: SET'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql SET role = postgres RETURN $1::text', 'forbidden clause: SET'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql COST 0.0001 RETURN $1::text', 'forbidden clause: COST'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql SUPPORT pg_catalog.text_starts_with_support RETURN $1::text',
     'forbidden clause: SUPPORT'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql WINDOW RETURN $1::text', 'forbidden clause: WINDOW'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql TRANSFORM FOR TYPE text RETURN $1::text', 'forbidden clause: TRANSFORM'),
    ('CREATE FUNCTION f(a bigint) RETURNS SETOF text LANGUAGE sql ROWS 5 RETURN $1::text', 'forbidden clause: SETOF'),
    ('CREATE FUNCTION f(a bigint) RETURNS TABLE (b text) LANGUAGE sql RETURN $1::text',
     'its arguments must be IN, and what it returns is said by RETURNS'),
    ('CREATE FUNCTION f(a bigint, OUT b text) LANGUAGE sql RETURN $1::text',
     'its arguments must be IN, and what it returns is said by RETURNS'),
    ('CREATE FUNCTION f(VARIADIC a bigint[]) RETURNS text LANGUAGE sql RETURN $1::text',
     'its arguments must be IN, and what it returns is said by RETURNS'),
    ($$CREATE FUNCTION f(a bigint DEFAULT pg_sleep(9)::text::bigint) RETURNS text LANGUAGE sql RETURN $1::text$$,
     'forbidden clause: DEFAULT'),
    ('CREATE FUNCTION f(bigint) RETURNS text LANGUAGE sql RETURN $1::text', 'each of its arguments must have a name'),
    ('CREATE FUNCTION f(b bigint) RETURNS text LANGUAGE sql RETURN $1::text', 'no argument b was asked for'),
    ('CREATE FUNCTION f() RETURNS text LANGUAGE sql RETURN 1::text', 'it has 0 arguments, and 1 were asked for'),
    ('CREATE FUNCTION f(a bigint, b text) RETURNS text LANGUAGE sql RETURN $1::text', 'it has 2 arguments, and 1 were asked for'),
    ('CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql RETURN $1',
     'its argument a is of type text, which cannot be; bigint was asked for'),
    ('CREATE FUNCTION f(a regclass) RETURNS text LANGUAGE sql RETURN $1',
     'its argument a is of type regclass, which cannot be; bigint was asked for'),
    ('CREATE FUNCTION f(a bigint) RETURNS bigint LANGUAGE sql RETURN $1', 'it returns bigint, which cannot be the result; text was asked for'),
    ('CREATE FUNCTION f(a bigint) RETURNS trigger LANGUAGE sql RETURN $1', 'it returns trigger, which cannot be the result; text was asked for'),
    ('CREATE FUNCTION f(a prom_test.pair) RETURNS text LANGUAGE sql RETURN 1', 'forbidden type: prom_test.pair'),
    ('CREATE FUNCTION f(a prom_test.visit.visit_id%TYPE) RETURNS text LANGUAGE sql RETURN 1',
     'forbidden type: prom_test.visit.visit_id%TYPE'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql BEGIN ATOMIC END', 'its body has no statement'),
    ('CREATE FUNCTION f(a bigint) LANGUAGE sql RETURN 1', 'it must say RETURNS'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql', 'it has no body'),
    (repeat(' ', 65536) || 'SELECT 1', 'it has more than 65536 bytes')) v (s, fault);

-- Statements in the body.

SELECT is(pg_temp.body(s), fault, s) FROM (VALUES
    ('INSERT INTO prom_test.visit VALUES (1)', 'forbidden statement: INSERT'),
    ('UPDATE prom_test.visit SET place = NULL', 'forbidden statement: UPDATE'),
    ('DELETE FROM prom_test.visit', 'forbidden statement: DELETE'),
    ('DELETE FROM prom_test.visit RETURNING place', 'forbidden statement: DELETE'),
    ('MERGE INTO prom_test.visit v USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE', 'forbidden statement: MERGE'),
    ('WITH x AS (DELETE FROM prom_test.visit RETURNING place) SELECT place FROM x', 'forbidden statement: DELETE'),
    ($$SELECT x FROM (WITH y AS (INSERT INTO prom_test.visit VALUES (1) RETURNING place) SELECT place AS x FROM y) z$$,
     'forbidden statement: INSERT'),
    ('DROP TABLE prom_test.visit', 'forbidden statement: DROP TABLE'),
    ('TRUNCATE prom_test.visit', 'forbidden statement: TRUNCATE TABLE'),
    ('CREATE TABLE x AS SELECT 1', 'forbidden statement: CREATE TABLE AS'),
    ($$COPY prom_test.visit TO PROGRAM 'sh'$$, 'forbidden statement: COPY'),
    ($$DO 'BEGIN END'$$, 'forbidden statement: DO'),
    ('CALL public.prometheus_ask(NULL)', 'forbidden statement: CALL'),
    ('SET ROLE postgres', 'forbidden statement: SET'),
    ('RESET ALL', 'forbidden statement: RESET'),
    ('GRANT prometheus_agent_admin TO prometheus_tool_owner', 'forbidden statement: GRANT ROLE'),
    ('EXECUTE x', 'forbidden statement: EXECUTE'),
    ('PREPARE x AS SELECT 1', 'forbidden statement: PREPARE'),
    ('LISTEN x', 'forbidden statement: LISTEN'),
    ('NOTIFY x', 'forbidden statement: NOTIFY'),
    ('LOCK TABLE prom_test.visit', 'forbidden statement: LOCK TABLE'),
    ('EXPLAIN ANALYZE SELECT 1', 'forbidden statement: EXPLAIN'),
    ('SELECT 1::text; DELETE FROM prom_test.visit; SELECT 1::text', 'forbidden statement: DELETE'),
    ('SELECT 1::text INTO x', 'forbidden statement: SELECT INTO')) v (s, fault);

-- Relations.

SELECT is(pg_temp.body(s), fault, s) FROM (VALUES
    ('SELECT request FROM prometheus._task', 'forbidden relation: prometheus._task'),
    ('SELECT request FROM prometheus.task', 'forbidden relation: prometheus.task'),
    ('SELECT secret FROM prom_test.visit', 'forbidden relation: prom_test.visit'),
    ('SELECT rolpassword FROM pg_authid', 'forbidden relation: pg_catalog.pg_authid'),
    ('SELECT rolpassword FROM pg_catalog.pg_authid', 'forbidden relation: pg_catalog.pg_authid'),
    ('SELECT usename::text FROM pg_shadow', 'forbidden relation: pg_catalog.pg_shadow'),
    ('SELECT setting FROM pg_settings LIMIT 1', 'forbidden relation: pg_catalog.pg_settings'),
    ('SELECT query FROM pg_stat_activity', 'forbidden relation: pg_catalog.pg_stat_activity'),
    ('SELECT table_name::text FROM information_schema.tables', 'forbidden relation: information_schema.tables'),
    ('SELECT x.place FROM (SELECT * FROM prom_test.visit) x', 'forbidden relation: prom_test.visit'),
    ('SELECT place FROM prom_test.visited', 'forbidden relation: prom_test.visited'),
    ('TABLE prom_test.hidden', 'forbidden relation: prom_test.hidden'),
    ('SELECT (SELECT word FROM prom_test.hidden LIMIT 1)', 'forbidden relation: prom_test.hidden'),
    ('SELECT 1::text WHERE EXISTS (SELECT FROM prom_test.hidden)', 'forbidden relation: prom_test.hidden'),
    ('SELECT 1::text ORDER BY (SELECT word FROM prom_test.hidden)', 'forbidden relation: prom_test.hidden'),
    ('SELECT 1::text LIMIT (SELECT count(*) FROM prom_test.hidden)', 'forbidden relation: prom_test.hidden'),
    ('SELECT string_agg(x::text, (SELECT word FROM prom_test.hidden)) FROM generate_series(1, 2) x', 'forbidden relation: prom_test.hidden'),
    ('WITH x AS (SELECT word FROM prom_test.hidden) SELECT word FROM x', 'forbidden relation: prom_test.hidden'),
    ('SELECT ''a'' UNION SELECT word FROM prom_test.hidden', 'forbidden relation: prom_test.hidden'),
    ('VALUES ((SELECT word FROM prom_test.hidden))', 'forbidden relation: prom_test.hidden'),
    ('SELECT last_value::text FROM prom_test.counter', 'forbidden relation: prom_test.counter'),
    ('SELECT relname::text FROM pg_class TABLESAMPLE system (1)', 'forbidden relation: pg_catalog.pg_class'),
    -- An error would say what is there.
    ('SELECT (SELECT word FROM prom_test.hidden)::integer::text', 'forbidden relation: prom_test.hidden')) v (s, fault);

-- Functions, and what calls them.

SELECT is(pg_temp.expression(s), fault, s) FROM (VALUES
    ($$pg_read_file('/etc/passwd')$$, 'forbidden function: pg_read_file'),
    ($$pg_catalog.pg_read_file('/etc/passwd')$$, 'forbidden function: pg_read_file'),
    ($$"pg_read_file"(U&'\002fetc/passwd')$$, 'forbidden function: pg_read_file'),
    ($$pg_read_binary_file('/etc/passwd')::text$$, 'forbidden function: pg_read_binary_file'),
    ($$array_to_string(ARRAY(SELECT pg_ls_dir('.')), ',')$$, 'forbidden function: pg_ls_dir'),
    ($$(SELECT s.size::text FROM pg_stat_file('PG_VERSION') s)$$, 'forbidden function: pg_stat_file'),
    ('pg_sleep(1000)::text', 'forbidden function: pg_sleep'),
    ('pg_backend_pid()::text', 'forbidden function: pg_backend_pid'),
    ('pg_terminate_backend(a::integer)::text', 'forbidden function: pg_terminate_backend'),
    ('pg_reload_conf()::text', 'forbidden function: pg_reload_conf'),
    ('pg_advisory_lock(a)::text', 'forbidden function: pg_advisory_lock'),
    ('pg_notify(''x'', ''y'')::text', 'forbidden function: pg_notify'),
    ('txid_current()::text', 'forbidden function: txid_current'),
    ($$set_config('role', 'postgres', false)$$, 'forbidden function: set_config'),
    ($$current_setting('data_directory')$$, 'forbidden function: current_setting'),
    ($$query_to_xml('DROP TABLE x', true, true, '')::text$$, 'forbidden function: query_to_xml'),
    ($$table_to_xml('pg_authid', true, true, '')::text$$, 'forbidden function: table_to_xml'),
    ($$database_to_xml(true, true, '')::text$$, 'forbidden function: database_to_xml'),
    ($$lo_import('/etc/passwd')::text$$, 'forbidden function: lo_import'),
    ('lo_get(1)::text', 'forbidden function: lo_get'),
    ('lo_from_bytea(0, '''')::text', 'forbidden function: lo_from_bytea'),
    ($$nextval('prom_test.counter')::text$$, 'forbidden function: nextval'),
    ($$currval('prom_test.counter')::text$$, 'forbidden function: currval'),
    ('lastval()::text', 'forbidden function: lastval'),
    ('version()', 'forbidden function: version'),
    ('inet_server_addr()::text', 'forbidden function: inet_server_addr'),
    ('pg_get_functiondef(1)', 'forbidden function: pg_get_functiondef'),
    ($$pg_get_viewdef('prometheus.task')$$, 'forbidden function: pg_get_viewdef'),
    ($$has_table_privilege('pg_authid', 'SELECT')::text$$, 'forbidden function: has_table_privilege'),
    ($$obj_description(1, 'pg_class')$$, 'forbidden function: obj_description'),
    ($$(SELECT s.word FROM ts_stat('SELECT 1') s)$$, 'forbidden function: ts_stat'),
    ($$pg_input_is_valid('1', 'regclass')::text$$,
     'forbidden function: pg_input_is_valid'),
    ('current_user::text', 'forbidden function: current_user'),
    ('session_user::text', 'forbidden function: session_user'),
    ('current_schema::text', 'forbidden function: current_schema'),
    ('current_catalog::text', 'forbidden function: current_catalog'),
    ('pg_collation_for(a::text)', 'forbidden function: pg_collation_for'),
    ('random()::text', 'forbidden function: random'),
    ('clock_timestamp()::text', 'forbidden function: clock_timestamp'),
    ('gen_random_uuid()::text', 'forbidden function: gen_random_uuid'),
    ('setseed(1)::text', 'forbidden function: setseed'),
    -- Behind other words.
    ($$coalesce(NULL, pg_read_file('x'))$$, 'forbidden function: pg_read_file'),
    ($$CASE WHEN a < 0 THEN pg_read_file('x') ELSE '' END$$, 'forbidden function: pg_read_file'),
    ($$(ARRAY[pg_read_file('x')])[1]$$, 'forbidden function: pg_read_file'),
    ($$(ROW(1, pg_read_file('x')))::text$$, 'forbidden function: pg_read_file'),
    ($$greatest('', pg_read_file('x'))$$, 'forbidden function: pg_read_file'),
    ($$format('%s', pg_read_file('x'))$$, 'forbidden function: pg_read_file'),
    ($$upper(pg_read_file(VARIADIC filename => ARRAY['x']))$$, 'forbidden function: pg_read_file'),
    ($$(a = ANY (ARRAY[length(pg_read_file('x'))]))::text$$, 'forbidden function: pg_read_file'),
    ($$((1, pg_read_file('x')) < (2, ''))::text$$, 'forbidden function: pg_read_file'),
    ($$(SELECT y FROM (VALUES (pg_read_file('x'))) v (y))$$, 'forbidden function: pg_read_file'),
    ($$(SELECT y FROM LATERAL pg_read_file('x') y)$$, 'forbidden function: pg_read_file'),
    ($$(SELECT y FROM ROWS FROM (pg_read_file('x')) y)$$, 'forbidden function: pg_read_file'),
    ($$(SELECT sum(x) OVER (ORDER BY length(pg_read_file('x'))) FROM generate_series(1, 2) x LIMIT 1)::text$$,
     'forbidden function: pg_read_file'),
    ($$(SELECT string_agg(x::text, '' ORDER BY pg_read_file('x')) FROM generate_series(1, 2) x)$$, 'forbidden function: pg_read_file'),
    ($$(SELECT string_agg(x::text, '') FILTER (WHERE pg_read_file('x') = '') FROM generate_series(1, 2) x)$$,
     'forbidden function: pg_read_file'),
    ($$(SELECT max(x)::text FROM generate_series(1, 2) x HAVING pg_read_file('x') = '')$$, 'forbidden function: pg_read_file'),
    ($$(SELECT 'x' FROM generate_series(1, 2) x JOIN generate_series(1, 2) y ON pg_read_file('x') = '')$$,
     'forbidden function: pg_read_file'),
    ($$(SELECT x::text FROM generate_series(1, length(pg_read_file('x'))) x)$$, 'forbidden function: pg_read_file'),
    ($$(SELECT DISTINCT ON (pg_read_file('x')) 'x' FROM generate_series(1, 2))$$, 'forbidden function: pg_read_file'),
    ($$(WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + length(pg_read_file('x')) FROM x) SELECT n::text FROM x)$$,
     'forbidden function: pg_read_file'),
    ($$(SELECT ntile(length(pg_read_file('x'))) OVER ())::text$$, 'forbidden function: pg_read_file'),
    -- Of others.
    ('prom_test.abs(a)::text', 'forbidden function: prom_test.abs'),
    ($$prom_test.lower('DROP TABLE x')$$, 'forbidden function: prom_test.lower'),
    ('public.prometheus_submit(''x'')::text', 'forbidden function: public.prometheus_submit'),
    ('public.prometheus_approve(a)::text', 'forbidden function: public.prometheus_approve'),
    ('prometheus._xid()::text', 'forbidden function: prometheus._xid'),
    ('(SELECT prom_test.sum(x) FROM generate_series(1, 2) x)::text', 'forbidden function: prom_test.sum'),
    ('(a OPERATOR(prom_test.+) 1)::text', 'forbidden operator: prom_test.+'),
    ('(a OPERATOR(prom_test.<) ANY (ARRAY[1]))::text', 'forbidden operator: prom_test.<'),
    ('(SELECT x::text FROM generate_series(1, a) x ORDER BY x USING OPERATOR(prom_test.<) LIMIT 1)', 'forbidden operator: prom_test.<'),
    ('(a OPERATOR(prom_test.<) ANY (SELECT 1))::text', 'forbidden operator: prom_test.<'),
    -- Types.
    ($$'pg_authid'::regclass::text$$, 'forbidden type: regclass'),
    ($$('pg_' || 'authid')::regclass::text$$, 'forbidden type: regclass'),
    ($$'pg_read_file'::regproc::text$$, 'forbidden type: regproc'),
    ($$'postgres'::regrole::text$$, 'forbidden type: regrole'),
    ($$to_regclass('pg_authid')::text$$, 'forbidden function: to_regclass'),
    ('a::oid::text', 'forbidden type: oid'),
    ('a::oid::regclass::text', 'forbidden type: oid'),
    ($$'1'::xid::text$$, 'forbidden type: xid'),
    ($$'x'::name::text$$, 'forbidden type: name'),
    ($$'<a/>'::xml::text$$, 'forbidden type: xml'),
    ('xmlelement(name x)::text', 'forbidden expression: XML'),
    ($$(xpath('/a', '<a/>'))[1]::text$$, 'forbidden function: xpath'),
    ($$xmlparse(document '<a/>')::text$$, 'forbidden expression: XML'),
    ($$(SELECT y FROM xmltable('/a' PASSING '<a/>' COLUMNS y text PATH 'b'))$$, 'forbidden expression: XMLTABLE or JSON_TABLE'),
    ($$'1'::money::text$$, 'forbidden type: money'),
    ($$'x'::prom_test.checked$$, 'forbidden type: prom_test.checked'),
    ('a::prom_test.pair::text', 'forbidden type: prom_test.pair'),
    ($$'{}'::prom_test.visit::text$$, 'forbidden type: prom_test.visit'),
    ($$(jsonb_populate_record(NULL::prom_test.checked, '{}'))::text$$, 'forbidden function: jsonb_populate_record'),
    -- A function that is written as a column.
    ($$(SELECT v.pg_typeof FROM (SELECT 1) v)::text$$, 'forbidden type: regtype'),
    ($$to_tsvector('x')::text$$, 'forbidden function: to_tsvector'),
    ($$'x'::tsvector::text$$, 'forbidden type: tsvector'),
    ($$regclass('pg_authid')::text$$, 'forbidden function: regclass'),
    ($$'{pg_authid}'::regclass[]::text$$, 'forbidden type: regclass[]'),
    -- Itself, which is not there when its body is read.
    ('f(a)', 'forbidden function: f')) v (s, fault);

SELECT is(pg_temp.body(s), fault, s) FROM (VALUES
    ('SELECT x::text FROM generate_series(1, 2) x FOR UPDATE', 'forbidden clause: FOR UPDATE or FOR SHARE'),
    ('SELECT x::text FROM (SELECT 1 AS x FOR SHARE) y', 'forbidden clause: FOR UPDATE or FOR SHARE'),
    ('SELECT x::text FROM prom_test.visit x', 'forbidden relation: prom_test.visit')) v (s, fault);

-- What may be.

SELECT is(pg_temp.fault(s), NULL, s) FROM (VALUES
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN a::text'),
    ('CREATE FUNCTION f(a integer) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN a::text'),
    ('CREATE FUNCTION f(a numeric) RETURNS text STABLE LANGUAGE sql RETURNS NULL ON NULL INPUT RETURN a::text;'),
    ('CREATE FUNCTION f(a bigint) RETURNS text RETURN a::text'),
    ('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql SECURITY INVOKER NOT LEAKPROOF RETURN a::text'),
    (E'```sql\nCREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN a::text;\n```\n'),
    (E'Here it is:\n```\n-- the number\nCREATE FUNCTION f(a bigint) RETURNS text\nLANGUAGE sql RETURN a::text\n```\nIt gives a text.'),
    ('CREATE FUNCTION f(a bigint) RETURNS date LANGUAGE sql RETURN date ''2026-01-01'' + a::integer'),
    ('CREATE FUNCTION f(a double precision) RETURNS varchar LANGUAGE sql RETURN sqrt(a)::numeric(10, 2)::varchar(20)')) v (s);

SELECT is(pg_temp.expression(s), NULL, s) FROM (VALUES
    ('(a + 2 * a - a / 3 % 5)::text'),
    ('abs(round(a::numeric / 3, 2))::text'),
    ($$upper(trim(both ' ' from 'x')) || lower('Y')$$),
    ($$substring('abc' from 2 for 1) || overlay('abc' placing 'x' from 1) || position('b' in 'abc')$$),
    ($$regexp_replace('abc', '[a-b]+', 'x', 'g')$$),
    ($$CASE WHEN a IN (1, 2, 3) THEN 'few' WHEN a BETWEEN 4 AND 9 THEN 'some' ELSE 'many' END$$),
    ($$to_char(timestamptz '2026-01-01' AT TIME ZONE 'UTC' + interval '1 day', 'YYYY')$$),
    ($$extract(year from date '2026-01-01')::text || date_trunc('month', now())::date$$),
    ($$(current_date - date '2000-01-01')::text || localtime$$),
    ($$jsonb_build_object('a', a, 'b', ARRAY[a])::text$$),
    ($$('{"a": [1, 2]}'::jsonb -> 'a' ->> 0) || jsonb_path_query_array('[1]', '$[*] ? (@ > 0)')$$),
    ($$('{"a": 1}'::jsonb)['a']::text$$),
    ($$array_to_string(ARRAY(SELECT x * x FROM generate_series(1, a) x), ',')$$),
    ($$(SELECT string_agg(w, ' ' ORDER BY n DESC) FROM regexp_split_to_table('a b', ' ') WITH ORDINALITY AS s (w, n))$$),
    ($$(SELECT sum(x) FILTER (WHERE x > 1)::text FROM unnest(ARRAY[1, 2, 3]) x)$$),
    ($$(SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x)::text FROM generate_series(1, 5) x)$$),
    ($$(SELECT string_agg(r::text, '') FROM (SELECT rank() OVER (PARTITION BY x % 2 ORDER BY x DESC) r FROM generate_series(1, 5) x) y)$$),
    ($$(WITH RECURSIVE f (n, x) AS (VALUES (1, 1::numeric) UNION ALL SELECT n + 1, x * (n + 1) FROM f WHERE n < a)
        SELECT max(x)::text FROM f)$$),
    ($$(SELECT x::text FROM (VALUES (1), (2)) v (x) UNION ALL SELECT 'y' ORDER BY 1 LIMIT 1 OFFSET 1)$$),
    ($$(SELECT count(*)::text FROM (VALUES (1, 'a'), (2, 'b')) v (x, y) GROUP BY GROUPING SETS ((x), ()) LIMIT 1)$$),
    ($$(int4range(1, a::integer) * int4range(2, 9))::text$$),
    ($$coalesce(nullif(a, 0), greatest(1, 2))::text || (a IS DISTINCT FROM 1)::text || (a > ALL (ARRAY[1]))::text$$),
    ($$((1, 2) < (1, a))::text || (ROW(1, 2) = ROW(1, a))::text$$),
    ($$encode(sha256('x'::bytea), 'hex') || md5('x')$$),
    ($$(inet '10.0.0.1' << inet '10.0.0.0/8')::text$$),
    ($$format('%s %L', a, 'x') || 'é' COLLATE "C"$$),
    ($$(SELECT key || value FROM jsonb_each_text('{"a": "b"}'))$$),
    ($$make_interval(days => 3)::text$$),
    ($$(SELECT x.a::text FROM (SELECT a) x)$$)) v (s);

SELECT is(pg_temp.body('SELECT 1::text; SELECT a::text'), NULL, 'several statements');

-- What the options allow.

SELECT is(pg_temp.body('SELECT place FROM prom_test.visit LIMIT 1', '{"relations": ["prom_test.visit"]}'), NULL,
    'a relation that was named');
SELECT is(pg_temp.body('SELECT v::text FROM prom_test.visit v LIMIT 1', '{"relations": ["prom_test.visit"]}'),
    'forbidden type: prom_test.visit', '... but not its row as a whole');
SELECT is(pg_temp.body('SELECT tableoid::text FROM prom_test.visit LIMIT 1', '{"relations": ["prom_test.visit"]}'),
    'forbidden type: oid', '... nor what the system has of it');
SELECT is(pg_temp.body('SELECT word FROM prom_test.hidden, prom_test.visit', '{"relations": ["prom_test.visit"]}'),
    'forbidden relation: prom_test.hidden', '... nor another');
SELECT is(pg_temp.body('SELECT place FROM prom_test.visit TABLESAMPLE system (1)', '{"relations": ["prom_test.visit"]}'),
    'forbidden clause: TABLESAMPLE', '... nor a sample');
SELECT is(pg_temp.body('SELECT place FROM prom_test.visit FOR UPDATE', '{"relations": ["prom_test.visit"]}'),
    'forbidden clause: FOR UPDATE or FOR SHARE', '... nor a lock');
SELECT is(pg_temp.body('DELETE FROM prom_test.visit', '{"relations": ["prom_test.visit"]}'),
    'forbidden statement: DELETE', '... nor to write');
SELECT is(pg_temp.fault('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN translate(''a'', ''a'', ''b'')'),
    'forbidden function: translate', 'nor what cannot be stopped');
-- A text that becomes the type of a column is converted when the body is
-- analyzed, before it is known what may be: nobody's code may run by that.
CREATE FUNCTION prom_test.spy(text) RETURNS boolean LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'run as %', current_user; END$$;
CREATE DOMAIN prom_test.spied AS text CHECK (prom_test.spy(VALUE));
CREATE DOMAIN prom_test.spied_list AS prom_test.spied[];
CREATE TYPE prom_test.spied_pair AS (x prom_test.spied, y bigint);
CREATE TYPE prom_test.spied_range AS RANGE (subtype = prom_test.spied, subtype_opclass = text_ops);
CREATE TYPE prom_test.mood AS ENUM ('glad', 'sad');
CREATE TABLE prom_test.of_domain (place text, x prom_test.spied);
CREATE TABLE prom_test.of_array (place text, x prom_test.spied[]);
CREATE TABLE prom_test.of_list (place text, x prom_test.spied_list);
CREATE TABLE prom_test.of_pair (place text, x prom_test.spied_pair);
CREATE TABLE prom_test.of_pairs (place text, x prom_test.spied_pair[]);
CREATE TABLE prom_test.of_range (place text, x prom_test.spied_range);
CREATE TABLE prom_test.of_row (place text, x prom_test.of_domain);
CREATE TABLE prom_test.of_plain (place text, x prom_test.mood, y prom_test.mood[], z oid, w xml, v int4multirange);
ALTER TABLE prom_test.of_plain ADD gone prom_test.spied;
ALTER TABLE prom_test.of_plain DROP gone;
SELECT throws_ok(format('SELECT pg_temp.body(%L, %L)', format('SELECT place FROM prom_test.%s WHERE %s IS NOT NULL', name, expression),
              jsonb_build_object('relations', jsonb_build_array('prom_test.' || name))), '22023',
          format('relation "prom_test.%s" has a column of type %s, which a tool cannot read', name, type), name || ': ' || expression)
  FROM (VALUES
    ('of_domain', $$coalesce(ARRAY[x], '{y}')$$, 'prom_test.spied'),
    ('of_array', $$coalesce(x, '{y}')$$, 'prom_test.spied[]'),
    ('of_list', $$coalesce(x, '{y}')$$, 'prom_test.spied_list'),
    ('of_pair', $$coalesce(x, '(y,1)')$$, 'prom_test.spied_pair'),
    ('of_pairs', $$coalesce(x, '{"(y,1)"}')$$, 'prom_test.spied_pair[]'),
    ('of_range', $$coalesce(x, '[y,z]')$$, 'prom_test.spied_range'),
    ('of_row', $$coalesce(x, '(y,z)')$$, 'prom_test.of_domain')) v (name, expression, type);
SELECT is(pg_temp.body('SELECT place FROM prom_test.of_plain', '{"relations": ["prom_test.of_plain"]}'), NULL,
    'types that have no code of others do no harm');
SELECT is(pg_temp.fault('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql VOLATILE RETURN random()::text', '{"volatile": true}'),
    NULL, 'it may, if it is asked for');
SELECT is(pg_temp.fault('CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql VOLATILE RETURN pg_sleep(9)::text', '{"volatile": true}'),
    'forbidden function: pg_sleep', '... but not any of them');
SELECT is(pg_temp.expression('a::text', '{"name": "g"}'), 'its name must be g', 'a name');
SELECT is(pg_temp.expression('a::text', '{"arguments": {"a": "integer"}}'),
    'its argument a is of type bigint, which cannot be; integer was asked for', 'a type');
SELECT is(pg_temp.expression('a::text', '{"returns": "date"}'),
    'it returns text, which cannot be the result; date was asked for', 'the type of the result');

SELECT is_empty($$SELECT FROM pg_proc WHERE pronamespace = 'prometheus_tool'::regnamespace$$, 'nothing is left of any');

-- The owner may do nothing.

SELECT results_eq($$SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication
                      FROM pg_roles WHERE rolname = 'prometheus_tool_owner'$$,
    'VALUES (false, false, false, false, false, false)', 'prometheus_tool_owner has no attribute');
SELECT is_empty($$SELECT FROM pg_auth_members WHERE member = 'prometheus_tool_owner'::regrole
                      AND roleid <> 0 AND current_setting('server_version_num')::int < 160000$$, 'it is in no role');
SELECT ok(NOT has_schema_privilege('prometheus_tool_owner', 'prometheus', 'USAGE'), 'it may not use schema prometheus');
SELECT schema_owner_is('prometheus_tool', 'prometheus_tool_owner');
SELECT ok(NOT has_schema_privilege('prom_test_admin', 'prometheus_tool', 'CREATE'), 'nobody else makes anything there');

-- Asking.

SET LOCAL ROLE prom_test_admin;
PREPARE ask AS SELECT public.prometheus_create_tool('Adds two numbers.', $1, 'default', $2);
SELECT lives_ok($$EXECUTE ask('[{"input": {"a": 2, "b": 3}, "output": 5}]', '{"name": "add_numbers"}')$$, 'a tool is asked for');
SELECT throws_ok($$SELECT public.prometheus_create_tool(NULL, '[]')$$, '22004', 'a tool must have a description');
SELECT throws_ok($$SELECT public.prometheus_create_tool('x', NULL)$$, '22004', 'a tool must have examples');
SELECT throws_ok(format('SELECT public.prometheus_create_tool(%L, ''[]'')', repeat('x', 4097)), '54000',
    'the description of a tool is too long');
SELECT throws_ok($$SELECT public.prometheus_create_tool('x', jsonb_build_array(jsonb_build_object('input', '{}'::jsonb, 'output', repeat('x', 1100000))))$$,
    '54000', 'the examples are too long');
SELECT throws_ok($$SELECT public.prometheus_create_tool('x', '[{"input": {}, "output": 1}]', 'nobody')$$, '42704',
    'agent "nobody" does not exist');

SELECT throws_ok(format('EXECUTE ask(%L, ''{}'')', examples), '22023', 'the examples cannot be used', examples) FROM (VALUES
    ('{}'), ('[]'), ('3'), ('[3]'), ('[{}]'), ('[{"input": {"a": 1}}]'), ('[{"input": 3, "output": 3}]'),
    ('[{"input": {"a": 1}, "output": 3, "more": 4}]'),
    ('[{"input": {"a": 1}, "output": 3}, {"input": {"b": 1}, "output": 3}]'),
    ('[{"input": {"a": 1}, "output": 3}, {"input": {"a": 1, "b": 1}, "output": 3}]'),
    ('[{"input": {"a b": 1}, "output": 3}]'), ('[{"input": {"": 1}, "output": 3}]'), ('[{"input": {"1": 1}, "output": 3}]'),
    (jsonb_build_array(jsonb_build_object('input', (SELECT jsonb_object_agg('a' || n, n) FROM generate_series(1, 33) n), 'output', 1))::text),
    ((SELECT jsonb_agg('{"input": {}, "output": 1}'::jsonb)::text FROM generate_series(1, 101)))) v (examples);

SELECT throws_ok(format($$EXECUTE ask('[{"input": {"a": 2}, "output": 5}, {"input": {"a": 3}, "output": 5}]', %L)$$, options),
                 code, message, options) FROM (VALUES
    ('[]', '22023', 'options must be a json object'),
    ('{"nmae": "x"}', '22023', 'option "nmae" does not exist'),
    ('{"name": 3}', '22023', 'option "name" cannot be used'),
    ('{"name": "query"}', '42939', 'tool "query" is built in'),
    ('{"name": "create_tool"}', '42939', 'tool "create_tool" is built in'),
    ('{"name": "a b"}', '22023', '"a b" cannot be the name of a tool'),
    ('{"volatile": 1}', '22023', 'option "volatile" cannot be used'),
    ('{"assign": "yes"}', '22023', 'option "assign" cannot be used'),
    ('{"held_back": 2}', '22023', 'option "held_back" cannot be used'),
    ('{"held_back": -1}', '22023', 'option "held_back" cannot be used'),
    ('{"held_back": 1e30}', '22023', 'option "held_back" cannot be used'),
    ('{"held_back": true}', '22023', 'option "held_back" cannot be used'),
    ('{"arguments": ["integer"]}', '22023', 'option "arguments" cannot be used'),
    ('{"arguments": {"a": 3}}', '22023', 'option "arguments" cannot be used'),
    ('{"arguments": {"b": "integer"}}', '22023', 'option "arguments" cannot be used'),
    ('{"arguments": {"a": "regclass"}}', '22023', 'type regclass cannot be asked for'),
    ('{"arguments": {"a": "no_such_type"}}', '42704', 'type "no_such_type" does not exist'),
    ('{"returns": "void"}', '22023', 'type void cannot be asked for'),
    ('{"returns": "-"}', '22023', 'type - cannot be asked for'),
    ('{"mode": "slow"}', '22023', 'mode "slow" does not exist'),
    ('{"relations": "prom_test.visit"}', '22023', 'option "relations" cannot be used'),
    ('{"relations": [3]}', '22023', 'option "relations" cannot be used'),
    ('{"relations": ["visit"]}', '22023', '"visit" cannot be a relation that a tool reads'),
    ('{"relations": ["prometheus._task"]}', '22023', '"prometheus._task" cannot be a relation that a tool reads'),
    ('{"relations": ["pg_catalog.pg_authid"]}', '22023', '"pg_catalog.pg_authid" cannot be a relation that a tool reads'),
    ('{"relations": ["information_schema.tables"]}', '22023', '"information_schema.tables" cannot be a relation that a tool reads'),
    ('{"relations": ["prom_test.nothing"]}', '42P01', 'relation "prom_test.nothing" does not exist'),
    ('{"relations": ["prom_test.hidden"]}', '42501', 'permission denied for relation "prom_test.hidden"')) v (options, code, message);

RESET ROLE;
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT public.prometheus_create_tool('x', '[{"input": {}, "output": 1}]', 'default', '{"assign": true}')$$,
    '42501', 'permission denied for agent "default"', 'nobody gives another one''s agent a tool');
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT public.prometheus_create_tool('x', '[{"input": {}, "output": 1}]')$$, '42501', NULL,
    'who is no administrator has no tools made');
RESET ROLE;

-- A document that prometheus_create_tool() has not made.
SELECT throws_ok(format('SELECT prometheus._check_function(%L, %L)', 'CREATE FUNCTION f(a bigint) RETURNS text LANGUAGE sql RETURN $1::text', d),
    '22023', message, d) FROM (VALUES
    ('null', 'the commission cannot be used'),
    ('7', 'the commission cannot be used'),
    ('[]', 'the commission cannot be used'),
    ('["description"]', 'the commission cannot be used'),
    ('{}', 'the commission cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}, "output": "x"}]}', 'the commission cannot be used'),
    ('{"description": 1, "examples": [{"input": {"a": 1}, "output": "x"}], "options": {}}', 'the commission cannot be used'),
    ('{"examples": [{"input": {"a": 1}, "output": "x"}], "options": {}}', 'the commission cannot be used'),
    ('{"description": "x", "examples": "x", "options": {}}', 'the commission cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}, "output": "x"}], "options": null}', 'the commission cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}, "output": "x"}], "options": []}', 'options must be a json object'),
    ('{"description": "x", "examples": {}, "options": {}}', 'the examples cannot be used'),
    ('{"description": "x", "examples": [], "options": {}}', 'the examples cannot be used'),
    ('{"description": "x", "examples": [1], "options": {}}', 'the examples cannot be used'),
    ('{"description": "x", "examples": [{"input": 1, "output": "x"}], "options": {}}', 'the examples cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}}], "options": {}}', 'the examples cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}, "output": "x"}], "options": {"relations": 1}}', 'option "relations" cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}, "output": "x"}], "options": {"arguments": 1}}', 'option "arguments" cannot be used'),
    ('{"description": "x", "examples": [{"input": {"a": 1}, "output": "x"}], "options": {"held_back": "1"}}', 'option "held_back" cannot be used')) v (d, message);

-- What the model is asked.

SELECT alike(t.request, '%' || part || '%', part) FROM prometheus.task t, (VALUES
    ('Adds two numbers.'), ('CREATE FUNCTION add_numbers(a bigint, b bigint) RETURNS bigint'), ('{"a": 2, "b": 3} gives 5')) v (part);
SELECT ok(public.prometheus_create_tool('Counts.', (SELECT jsonb_agg(jsonb_build_object('input', jsonb_build_object('text', 'x' || n, 'factor', n / 2.0),
           'output', jsonb_build_array(n))) FROM generate_series(1, 6) n), options => '{"relations": ["prom_test.visit"]}') > 0, 'another one is asked for');
CREATE FUNCTION pg_temp.request() RETURNS text LANGUAGE sql AS 'SELECT request FROM prometheus.task ORDER BY task_id DESC LIMIT 1';
SELECT alike(pg_temp.request(), '%a_name_of_your_choice(text text, factor numeric) RETURNS jsonb%', 'kinds of values, over all examples');
SELECT alike(pg_temp.request(), '%catalogue but prom_test.visit (%', 'what it may read');
SELECT is((SELECT array_agg(n) FROM generate_series(1, 6) n WHERE pg_temp.request() LIKE format('%%"x%s"%%', n)), ARRAY[1, 2, 4, 5],
    'a third of the examples is not shown');

-- Restoring.

CREATE FUNCTION prom_test.one() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 1;
CREATE FUNCTION prom_test.two() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 2;
GRANT EXECUTE ON FUNCTION prom_test.one(), prom_test.two() TO prom_test_admin;
SET LOCAL ROLE prom_test_admin;
SELECT is(public.prometheus_set_tool('prom_test.one()', 'prom_test_tool', 'one'), 1::bigint, 'a tool');
SELECT is(public.prometheus_set_tool('prom_test.two()', 'prom_test_tool', 'two', 'write'), 2::bigint, '... in a second version');
SELECT is(public.prometheus_restore_tool('prom_test_tool', 1), 3::bigint, 'the first one is restored');
SELECT results_eq($$SELECT function, description, tier FROM prometheus.tool WHERE name = 'prom_test_tool'$$,
    $$VALUES ('prom_test.one()', 'one', 'read')$$, '... whole');
SELECT is(public.prometheus_restore_tool('prom_test_tool'), 4::bigint, 'the newest one, once more');
SELECT throws_ok($$SELECT public.prometheus_restore_tool('prom_test_tool', 9)$$, '42704', 'tool "prom_test_tool" has no version 9');
SELECT throws_ok($$SELECT public.prometheus_restore_tool('prom_test_none')$$, '42704', 'tool "prom_test_none" does not exist');
SELECT throws_ok($$SELECT public.prometheus_restore_tool(NULL)$$, '22023', NULL, 'a name is needed');
SELECT throws_ok($$SELECT public.prometheus_restore_tool('query')$$, '42939', 'tool "query" is built in');
SELECT throws_ok($$SELECT public.prometheus_create_tool('x', '[{"input": {}, "output": 1}]', options => '{"name": "prom_test_tool"}')$$,
    '42710', 'tool "prom_test_tool" exists, and was not made by a task');
RESET ROLE;
CREATE OR REPLACE FUNCTION prom_test.two() RETURNS integer LANGUAGE sql IMMUTABLE RETURN 3;
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok($$SELECT public.prometheus_restore_tool('prom_test_tool', 2)$$, '55000', 'version 2 of tool "prom_test_tool" cannot be restored');
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT public.prometheus_restore_tool('prom_test_tool', 1)$$, '42501', 'permission denied for tool "prom_test_tool"');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
