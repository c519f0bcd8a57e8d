-- What prometheus_set_tool() and prometheus_set_http_tool() write and refuse,
-- the schema that is made of a signature, what prometheus.tool shows, and what
-- prometheus._json() makes of what models write.  How tools run is in t/.
BEGIN;
SELECT plan(246);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_user;
GRANT prometheus_agent_admin TO prom_test_admin, prom_test_other;
GRANT prometheus_agent_user TO prom_test_user;
CREATE SCHEMA prom_test;
GRANT USAGE ON SCHEMA prom_test TO prom_test_admin, prom_test_other;

SELECT columns_are('prometheus', 'tool', ARRAY[
    'name', 'kind', 'function', 'tier', 'idempotent', 'owner', 'version', 'set_at', 'description', 'schema', 'method', 'url', 'secret',
    'task_id', 'calls', 'succeeded', 'retired']);
SELECT function_returns('prometheus_set_tool', 'bigint');
SELECT is_empty($$SELECT name FROM prometheus.tool WHERE kind <> 'builtin'$$, 'a fresh install has none but those that are built in');

-- A function with these arguments becomes a tool: its schema.
CREATE FUNCTION pg_temp.schema_of(arguments text, result text DEFAULT '') RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    made jsonb;
BEGIN
    EXECUTE format('CREATE FUNCTION prom_test.f(%s) %s LANGUAGE plpgsql AS ''BEGIN END''', arguments, result);
    PERFORM public.prometheus_set_tool((SELECT oid FROM pg_proc WHERE proname = 'f' AND pronamespace = 'prom_test'::regnamespace),
                                       'schema');
    SELECT schema INTO made FROM prometheus.tool WHERE name = 'schema';
    DROP FUNCTION prom_test.f;
    RETURN made;
END
$$;
-- The schema of one argument of this type.
CREATE FUNCTION pg_temp.schema_of_type(type text) RETURNS jsonb LANGUAGE sql AS
    $$SELECT pg_temp.schema_of('a ' || type, 'RETURNS void') #> '{properties,a}'$$;
-- The hint of the error that a statement raises.
CREATE FUNCTION pg_temp.hint_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN hint;
END
$$;

-- Types.

CREATE TYPE prom_test.mood AS ENUM ('ok', 'very "sad"', '');
CREATE TYPE prom_test.unborn AS ENUM ();
CREATE TYPE prom_test.place AS (x int, gone text, "The Name" text);
ALTER TYPE prom_test.place DROP ATTRIBUTE gone;
CREATE TYPE prom_test.nothing AS ();
CREATE TABLE prom_test.visit (visit_id bigint NOT NULL, at prom_test.place, moods prom_test.mood[], places prom_test.place[]);
CREATE DOMAIN prom_test.natural AS int CHECK (VALUE >= 0);
CREATE DOMAIN prom_test.small AS prom_test.natural CHECK (VALUE < 10);
CREATE DOMAIN prom_test.feeling AS prom_test.mood;
CREATE DOMAIN prom_test.route AS prom_test.place[];
CREATE DOMAIN prom_test.home AS prom_test.place;

SELECT is(pg_temp.schema_of_type(type), expected::jsonb, 'type ' || type)
  FROM (VALUES
    ('smallint', '{"type": "integer", "minimum": -32768, "maximum": 32767}'),
    ('int', '{"type": "integer", "minimum": -2147483648, "maximum": 2147483647}'),
    ('bigint', '{"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807}'),
    ('numeric', '{"type": "number"}'),
    ('real', '{"type": "number"}'),
    ('float8', '{"type": "number"}'),
    ('boolean', '{"type": "boolean"}'),
    ('text', '{"type": "string"}'),
    ('varchar(10)', '{"type": "string"}'),
    ('"char"', '{"type": "string"}'),
    ('name', '{"type": "string"}'),
    ('uuid', '{"type": "string", "format": "uuid"}'),
    ('date', '{"type": "string", "format": "date"}'),
    ('time', '{"type": "string", "format": "time"}'),
    ('timestamp', '{"type": "string", "format": "date-time"}'),
    ('timestamptz', '{"type": "string", "format": "date-time"}'),
    ('interval', '{"type": "string", "description": "such as 2 days 3 hours"}'),
    ('bytea', '{"type": "string"}'),
    ('inet', '{"type": "string"}'),
    ('int4range', '{"type": "string"}'),
    ('regclass', '{"type": "string"}'),
    ('int2vector', '{"type": "array", "items": {"type": ["integer", "null"], "minimum": -32768, "maximum": 32767}}'),
    ('json', '{}'),
    ('jsonb', '{}'),
    ('boolean[]', '{"type": "array", "items": {"type": ["boolean", "null"]}}'),
    ('text[][]', '{"type": "array", "items": {"type": ["string", "null"]}}'),
    ('jsonb[]', '{"type": "array", "items": {}}'),
    ('int[]', '{"type": "array", "items": {"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647}}'),
    ('prom_test.mood', '{"type": "string", "enum": ["ok", "very \"sad\"", ""]}'),
    ('prom_test.mood[]', '{"type": "array", "items": {"type": ["string", "null"], "enum": ["ok", "very \"sad\"", "", null]}}'),
    ('prom_test.unborn', '{"type": "string"}'),
    ('prom_test.nothing', '{"type": "object", "properties": {}, "additionalProperties": false}'),
    ('prom_test.place', '{"type": "object", "additionalProperties": false, "properties": {
        "x": {"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647},
        "The Name": {"type": ["string", "null"]}}}'),
    ('prom_test.visit', '{"type": "object", "additionalProperties": false, "properties": {
        "visit_id": {"type": ["integer", "null"], "minimum": -9223372036854775808, "maximum": 9223372036854775807},
        "at": {"type": ["object", "null"], "additionalProperties": false, "properties": {
            "x": {"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647},
            "The Name": {"type": ["string", "null"]}}},
        "moods": {"type": ["array", "null"], "items": {"type": ["string", "null"], "enum": ["ok", "very \"sad\"", "", null]}},
        "places": {"type": ["array", "null"], "items": {"type": ["object", "null"], "additionalProperties": false, "properties": {
            "x": {"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647},
            "The Name": {"type": ["string", "null"]}}}}}}'),
    ('prom_test.natural', '{"type": "integer", "minimum": -2147483648, "maximum": 2147483647}'),
    ('prom_test.small', '{"type": "integer", "minimum": -2147483648, "maximum": 2147483647}'),
    ('prom_test.feeling', '{"type": "string", "enum": ["ok", "very \"sad\"", ""]}'),
    ('prom_test.small[]', '{"type": "array", "items": {"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647}}'))
    AS v(type, expected);
SELECT is(pg_temp.schema_of_type('prom_test.route'), pg_temp.schema_of_type('prom_test.place[]'), 'a domain over an array');
SELECT is(pg_temp.schema_of_type('prom_test.home'), pg_temp.schema_of_type('prom_test.place'), 'a domain over a row');
SELECT is(pg_temp.schema_of_type('prom_test.visit[]') #> '{items,properties}', pg_temp.schema_of_type('prom_test.visit') -> 'properties',
          'an array of rows of a table');

DO $$
BEGIN
    EXECUTE (SELECT format('CREATE TYPE prom_test.many AS ENUM (%s)', string_agg(quote_literal(i), ',')) FROM generate_series(1, 200) i);
    EXECUTE (SELECT format('CREATE TYPE prom_test.too_many AS ENUM (%s)', string_agg(quote_literal(i), ',')) FROM generate_series(1, 201) i);
    CREATE TYPE prom_test.level0 AS (inner_most int);
    FOR i IN 1 .. 8 LOOP
        EXECUTE format('CREATE TYPE prom_test.level%s AS (down prom_test.level%s)', i, i - 1);
    END LOOP;
END
$$;
SELECT is(jsonb_array_length(pg_temp.schema_of_type('prom_test.many') -> 'enum'), 200, 'labels are listed');
SELECT is(pg_temp.schema_of_type('prom_test.too_many'), '{"type": "string"}', 'but not if they are too many');
SELECT ok(pg_temp.schema_of_type('prom_test.level7')::text ~ 'inner_most', 'rows in rows');
SELECT throws_ok($$SELECT pg_temp.schema_of_type('prom_test.level8')$$, '54000', 'type integer is nested too deeply', 'not without end');
SELECT throws_ok($$SELECT pg_temp.schema_of_type('prom_test.level7[]')$$, '54000', 'type integer is nested too deeply',
                 'an array counts');

-- Arguments.

SELECT is(pg_temp.schema_of('', 'RETURNS int'), '{"type": "object", "properties": {}, "required": [], "additionalProperties": false}',
          'no arguments');
SELECT is(pg_temp.schema_of('b bool, a text', 'RETURNS int'),
          '{"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}, "required": ["b", "a"],
            "additionalProperties": false}', 'those that must be given, in order');
SELECT is(pg_temp.schema_of(arguments, result) - '{type,additionalProperties}'::text[], expected::jsonb, 'arguments ' || arguments)
  FROM (VALUES
    ('a bool, b bool DEFAULT true, c text DEFAULT NULL', 'RETURNS int',
     '{"required": ["a"], "properties": {"a": {"type": "boolean"}, "b": {"type": ["boolean", "null"]}, "c": {"type": ["string", "null"]}}}'),
    ('m prom_test.mood DEFAULT ''ok''', 'RETURNS int',
     '{"required": [], "properties": {"m": {"type": ["string", "null"], "enum": ["ok", "very \"sad\"", "", null]}}}'),
    ('j jsonb DEFAULT NULL, l text[] DEFAULT ''{}'', r prom_test.nothing DEFAULT NULL', 'RETURNS int',
     '{"required": [], "properties": {"j": {}, "l": {"type": ["array", "null"], "items": {"type": ["string", "null"]}},
       "r": {"type": ["object", "null"], "properties": {}, "additionalProperties": false}}}'),
    ('a bool, VARIADIC rest text[]', 'RETURNS int',
     '{"required": ["a", "rest"], "properties": {"a": {"type": "boolean"},
       "rest": {"type": "array", "items": {"type": ["string", "null"]}}}}'),
    ('VARIADIC rest text[] DEFAULT ''{}''', 'RETURNS int',
     '{"required": [], "properties": {"rest": {"type": ["array", "null"], "items": {"type": ["string", "null"]}}}}'),
    ('bool, text', 'RETURNS int',
     '{"required": ["arg1", "arg2"], "properties": {"arg1": {"type": "boolean"}, "arg2": {"type": "string"}}}'),
    ('OUT o int, bool, named text, OUT p int, text DEFAULT NULL', '',
     '{"required": ["arg1", "named"], "properties": {"arg1": {"type": "boolean"}, "named": {"type": "string"},
       "arg3": {"type": ["string", "null"]}}}'),
    ('a bool, INOUT b text', '', '{"required": ["a", "b"], "properties": {"a": {"type": "boolean"}, "b": {"type": "string"}}}'),
    ('a bool, OUT b text, c bool DEFAULT false', '',
     '{"required": ["a"], "properties": {"a": {"type": "boolean"}, "c": {"type": ["boolean", "null"]}}}'),
    ('a bool', 'RETURNS TABLE (b int, c int)', '{"required": ["a"], "properties": {"a": {"type": "boolean"}}}'),
    ('"The ""Größe"", \ or so" text, "A" text, a text', 'RETURNS int',
     '{"required": ["The \"Größe\", \\ or so", "A", "a"], "properties": {"The \"Größe\", \\ or so": {"type": "string"},
       "A": {"type": "string"}, "a": {"type": "string"}}}'))
    AS v(arguments, result, expected);

SELECT lives_ok(format('SELECT pg_temp.schema_of(%L, %L)', arguments, result), 'result ' || arguments || result)
  FROM (VALUES ('', 'RETURNS void'), ('', 'RETURNS SETOF text'), ('', 'RETURNS prom_test.place'), ('', 'RETURNS SETOF prom_test.visit'),
               ('OUT a int, OUT b int', ''), ('OUT a int, OUT b int', 'RETURNS SETOF record'), ('', 'RETURNS jsonb'),
               ('', 'RETURNS prom_test.mood[]'), ('', 'RETURNS prom_test.small')) AS v(arguments, result);

-- What JSON cannot say.

SELECT throws_ok(format('SELECT pg_temp.schema_of(%L, ''RETURNS int'')', 'a ' || type), '0A000',
                 'an argument of type ' || type || ' cannot be given in JSON', 'an argument of type ' || type)
  FROM unnest(ARRAY['anyelement', 'anyarray', 'anyenum', 'record']) AS type;
SELECT throws_ok($$SELECT prometheus_set_tool('concat("any")')$$, '0A000', 'an argument of type "any" cannot be given in JSON', 'VARIADIC "any"');
SELECT throws_ok($$SELECT prometheus_set_tool('int4in(cstring)')$$, '0A000', 'an argument of type cstring cannot be given in JSON', 'cstring');
SELECT is(pg_temp.hint_of($$SELECT pg_temp.schema_of('a anyelement', 'RETURNS int')$$),
          'Write a function whose arguments have types of their own.', 'with a hint');
SELECT throws_ok(format('SELECT pg_temp.schema_of('''', %L)', 'RETURNS ' || result), '0A000',
                 'the result of function prom_test.f() has no type of its own', 'RETURNS ' || result)
  FROM unnest(ARRAY['record', 'SETOF record', 'trigger', 'event_trigger']) AS result;
SELECT throws_ok($$SELECT prometheus_set_tool('int4out(int)')$$, '0A000', 'the result of function int4out(integer) has no type of its own',
                 'a result of type cstring');
SELECT throws_ok($$SELECT prometheus_set_tool('array_append(anycompatiblearray, anycompatible)')$$, '0A000',
                 'the result of function array_append(anycompatiblearray,anycompatible) has no type of its own', 'a polymorphic result');
SELECT throws_ok($$SELECT pg_temp.schema_of('a int, OUT b int, OUT c anyelement', '')$$, '42P13', NULL, 'which cannot be without such an argument');
SELECT throws_ok($$SELECT pg_temp.schema_of('int, arg1 int', 'RETURNS int')$$, '0A000', 'two arguments would be named "arg1"',
                 'an argument that is named as another one would be');
SELECT is(pg_temp.hint_of($$SELECT pg_temp.schema_of('arg2 int, int', 'RETURNS int')$$), 'Write a function whose arguments have names.',
          'with a hint, too');
SELECT lives_ok($$SELECT pg_temp.schema_of('arg1 int, int', 'RETURNS int')$$, 'unless it is that one');

-- What is no function.

CREATE PROCEDURE prom_test.procedure(a int) LANGUAGE plpgsql AS 'BEGIN END';
SELECT throws_ok(format('SELECT prometheus_set_tool(%L)', f), '42809', f || ' is not a plain function', f)
  FROM unnest(ARRAY['prom_test.procedure(integer)', 'max(integer)', 'row_number()']) AS f;
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_tool('max(int)')$$), 'Procedures, aggregates and window functions cannot be tools.',
          'with a hint as well');
SELECT throws_ok($$SELECT prometheus_set_tool(NULL)$$, '22004', 'a tool must have a function', 'function null');
SELECT throws_ok($$SELECT prometheus_set_tool('-')$$, '22004', 'a tool must have a function', 'no function');
SELECT throws_ok($$SELECT prometheus_set_tool(4294967295::regprocedure, 'x')$$, '42883', 'function with OID 4294967295 does not exist',
                 'a function that is not there');
SELECT throws_ok($$SELECT prometheus_set_tool('nothing()')$$, '42883', NULL, 'nor by its name');

-- A new one.

CREATE FUNCTION prom_test.add(a int, b int DEFAULT 3) RETURNS int LANGUAGE sql AS 'SELECT a + b';
CREATE FUNCTION prom_test.add(a text) RETURNS text LANGUAGE sql AS 'SELECT a';
SELECT is(prometheus_set_tool('prom_test.add(int, int)'), 1::bigint, 'the first version is 1');
SELECT is(concat_ws(' ', name, function, tier, idempotent, owner, version, coalesce(description, '-')),
          concat_ws(' ', 'add prom_test.add(integer,integer) read f', current_user, '1 -'), 'of the function''s name, tier read')
  FROM prometheus.tool WHERE name = 'add';
SELECT is(schema #>> '{required}', '["a"]', 'with the schema') FROM prometheus.tool WHERE name = 'add';
SELECT cmp_ok(set_at, '>=', now(), 'set_at') FROM prometheus.tool WHERE name = 'add';
SELECT is(concat_ws(' ', xid, mark, owner_oid, options), concat_ws(' ', prometheus._xid(), 0, current_user::regrole::oid, '{}'),
          'the fact has its transaction, mark and owner') FROM prometheus._tool WHERE name = 'add';

COMMENT ON FUNCTION prom_test.add(text) IS E'Says "it".\nAgain.';
SELECT is(prometheus_set_tool('prom_test.add(text)', 'say', tier => 'write', idempotent => true), 1::bigint, 'another name');
SELECT is(concat_ws(' ', name, function, tier, idempotent, description), E'say prom_test.add(pg_catalog.text) write t Says "it".\nAgain.',
          'described by the function''s comment') FROM prometheus.tool WHERE name = 'say';
SELECT is(prometheus_set_tool('prom_test.add(int, int)', 'drop_all', 'Drops it.', 'destructive'), 1::bigint, 'the third tier');
SELECT is(concat_ws(' ', tier, description), 'destructive Drops it.', 'with a description of its own')
  FROM prometheus.tool WHERE name = 'drop_all';

-- A change keeps what is null.

SELECT is(prometheus_set_tool('prom_test.add(int, int)', 'say', tier => 'destructive'), 2::bigint, 'the next version is 2');
SELECT is(concat_ws(' ', function, tier, idempotent, description),
          E'prom_test.add(integer,integer) destructive f Says "it".\nAgain.', 'another function, and what it is told to be')
  FROM prometheus.tool WHERE name = 'say';
SELECT is(schema -> 'required', '["a"]', 'and its schema') FROM prometheus.tool WHERE name = 'say';
SELECT is(prometheus_set_tool('prom_test.add(text)', 'say', 'Says it.', NULL, true), 3::bigint, 'a description');
SELECT is(concat_ws(' ', tier, idempotent, description), 'destructive t Says it.', 'is changed, the tier was kept')
  FROM prometheus.tool WHERE name = 'say';
SELECT is(prometheus_set_tool('prom_test.add(text)', 'say', NULL, '', NULL), 4::bigint, 'an empty tier');
SELECT is(concat_ws(' ', tier, idempotent, description), 'read t Says it.', 'is read; the rest was kept')
  FROM prometheus.tool WHERE name = 'say';
SELECT is(prometheus_set_tool('prom_test.add(text)', 'say', ''), 5::bigint, 'an empty description');
SELECT is(description, E'Says "it".\nAgain.', 'is the function''s comment again') FROM prometheus.tool WHERE name = 'say';
SELECT is((SELECT array_agg(version ORDER BY version) FROM prometheus._tool WHERE name = 'say'), ARRAY[1, 2, 3, 4, 5]::bigint[],
          'every version is there');
SELECT is((SELECT count(*) FROM prometheus.tool WHERE name = 'say'), 1::bigint, 'the view has the newest');
SELECT is(function, 'prom_test.add(integer,integer)', 'an old one is as it was') FROM prometheus._tool WHERE name = 'say' AND version = 2;

-- What is kept to find the function again, and to know it.

CREATE FUNCTION prom_test."Odd ""name""("(prom_test.place, prom_test.mood[], text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA "Odd";
SET LOCAL search_path = pg_temp, "Odd", prom_test, nowhere, pg_catalog, public;
SELECT is(prometheus_set_tool('"Odd ""name""("(place, mood[], text)', 'odd'), 1::bigint, 'a function with odd names');
SET LOCAL search_path = public;
SELECT is(function, 'prom_test."Odd ""name""("(prom_test.place,prom_test.mood[],pg_catalog.text)', 'its signature has every schema')
  FROM prometheus.tool WHERE name = 'odd';
SELECT is(search_path, '"Odd", prom_test, public, pg_temp', 'the path of then: without the system, what is temporary last')
  FROM prometheus._tool WHERE name = 'odd';
SELECT is(count(DISTINCT hash), 1::bigint, 'the same function has the same hash') FROM prometheus._tool
 WHERE name = 'say' AND version IN (1, 3, 4);
SELECT is(count(DISTINCT hash), 2::bigint, 'another one another') FROM prometheus._tool WHERE name = 'say';
-- Its name, its comment and, if it does not run as its owner, its owner may change.
CREATE TEMP TABLE change (n serial, statement text, is_another boolean, hash text);
INSERT INTO change (statement, is_another) VALUES
    ('SELECT 1', NULL),
    ('CREATE OR REPLACE FUNCTION prom_test.add(a text) RETURNS text LANGUAGE sql AS ''SELECT a || a''', true),
    ('COMMENT ON FUNCTION prom_test.add(text) IS ''Says more.''', false),
    ('ALTER FUNCTION prom_test.add(text) OWNER TO prom_test_admin', false),
    ('ALTER FUNCTION prom_test.add(text) SECURITY DEFINER', true),
    ('ALTER FUNCTION prom_test.add(text) OWNER TO prom_test_other', true),
    ('ALTER FUNCTION prom_test.add(text) SET search_path = prom_test', true),
    ('ALTER FUNCTION prom_test.add(text) RENAME TO say', false),
    ('CREATE OR REPLACE FUNCTION prom_test.say(a text DEFAULT ''x'') RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = prom_test AS ''SELECT a || a''', true),
    ('DROP FUNCTION prom_test.say; CREATE FUNCTION prom_test.say(a text) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT $1; END', true),
    ('CREATE OR REPLACE FUNCTION prom_test.say(a text) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT $1 || ''''; END', true);
DO $$
DECLARE
    made change;
BEGIN
    FOR made IN SELECT * FROM change ORDER BY n LOOP
        EXECUTE made.statement;
        PERFORM prometheus_set_tool(coalesce(to_regprocedure('prom_test.add(text)'), to_regprocedure('prom_test.say(text)')), 'hash');
        UPDATE change SET hash = (SELECT hash FROM prometheus._tool WHERE name = 'hash' ORDER BY version DESC LIMIT 1) WHERE n = made.n;
    END LOOP;
END
$$;
SELECT is(c.hash <> before.hash, c.is_another, CASE WHEN c.is_another THEN 'changed by ' ELSE 'unchanged by ' END || c.statement)
  FROM change c JOIN change before ON before.n = c.n - 1 ORDER BY c.n;

-- Names.

SELECT is(prometheus_set_tool('now()', n), 1::bigint, 'name ' || n)
  FROM unnest(ARRAY['A', 'a', '0', 'get_time-2', '-', repeat('n', 64)]) AS n;
SELECT is(prometheus_set_tool('now()', ''), 1::bigint, 'an empty name');
SELECT is(function, 'pg_catalog.now()', 'is the function''s') FROM prometheus.tool WHERE name = 'now';
SELECT throws_ok(format('SELECT prometheus_set_tool(''now()'', %L)', n), '22023', format('"%s" cannot be the name of a tool', n),
                 'name ' || to_json(left(n, 5)))
  FROM unnest(ARRAY['my tool', 'größe', 'a.b', E'a\n', '"a"', ' ', repeat('n', 65)]) AS n;
SELECT throws_ok($$SELECT prometheus_set_tool('now()', repeat('n', 201))$$, '22023', 'the name of a tool must have 1 to 200 bytes',
                 'a name that nothing can have');
SELECT throws_ok($$SELECT prometheus_set_tool('prom_test."Odd ""name""("(prom_test.place, prom_test.mood[], text)')$$, '22023',
                 '"Odd "name"(" cannot be the name of a tool', 'the name of a function');
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_tool('now()', 'my tool')$$),
          'prometheus_set_tool(''my_function(int)'', name => ''my_tool'') gives it another one.', 'with a hint what to do');

-- Tiers and descriptions.

SELECT throws_ok(format($$SELECT prometheus_set_tool('now()', 'new', tier => %L)$$, t), '22023', format('tier "%s" does not exist', t),
                 'tier ' || t)
  FROM unnest(ARRAY['admin', 'READ', 'read ']) AS t;
SELECT is(pg_temp.hint_of($$SELECT prometheus_set_tool('now()', 'new', tier => 'admin')$$),
          'The tiers are read, write and destructive (what cannot be undone).', 'with a hint which there are');
SELECT throws_ok($$SELECT prometheus_set_tool('now()', 'new', repeat('n', 4097))$$, '54000', 'the description of a tool is too long',
                 'a description too long');
SELECT is_empty($$SELECT * FROM prometheus._tool WHERE name = 'new'$$, 'what was refused left nothing');
SELECT is(prometheus_set_tool('now()', 'new', repeat('n', 4096)), 1::bigint, 'a long description');

-- Who may.

CREATE FUNCTION prom_test.secret() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION prom_test.secret() FROM PUBLIC;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_tool('now()')$$, '42501', 'permission denied for function prometheus_set_tool', 'not a user');
RESET ROLE;
GRANT EXECUTE ON FUNCTION prometheus_set_tool TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_tool('now()')$$, '42501', NULL, 'a granted EXECUTE makes no administrator');
SELECT isnt_empty('TABLE prometheus.tool', 'but a user reads what there is');
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok($$SELECT prometheus_set_tool('prom_test.secret()')$$, '42501', 'permission denied for function prom_test.secret()',
                 'a function that the administrator may not execute');
SELECT is(prometheus_set_tool('now()', 'mine'), 1::bigint, 'an administrator may');
SELECT is(owner, 'prom_test_admin', 'and owns it') FROM prometheus.tool WHERE name = 'mine';
SELECT throws_ok('SELECT * FROM prometheus._tool', '42501', NULL, 'with no more rights than before');
SELECT throws_ok($$SELECT prometheus_set_tool('now()', 'mine', tier => 'x')$$, '22023', NULL, 'a setting that fails');
SELECT is(current_user::text, 'prom_test_admin', 'gives nobody''s rights away');
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_tool('now()', 'mine')$$, '42501', 'permission denied for tool "mine"',
                 'another administrator may not put a function in its place');
RESET ROLE;
SELECT is(prometheus_set_tool('now()', 'mine'), 2::bigint, 'a superuser may');
SELECT is(owner, 'prom_test_admin', 'and the owner stays') FROM prometheus.tool WHERE name = 'mine';
GRANT prom_test_admin TO prom_test_other;
SET LOCAL ROLE prom_test_other;
SELECT is(prometheus_set_tool('now()', 'mine'), 3::bigint, 'and who has the owner''s role');
RESET ROLE;
ALTER ROLE prom_test_admin RENAME TO prom_test_renamed;
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_tool('now()', 'mine')$$, '42501', 'permission denied for tool "mine"',
                 'but not when the owner''s oid is of another name');
RESET ROLE;
SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT throws_ok($$SELECT prometheus_set_tool('now()')$$, '25006', 'cannot execute prometheus_set_tool() in a read-only transaction',
                 'none is set when read-only');
ROLLBACK TO s;
SELECT throws_ok($$INSERT INTO prometheus._tool SELECT * FROM prometheus._tool WHERE name = 'mine' AND version = 1$$,
                 '23505', NULL, 'a version cannot be written twice');

-- HTTP endpoints.

CREATE FUNCTION pg_temp.set_http(method text DEFAULT 'GET', url text DEFAULT 'https://api.example.com/a/{id}?b={b-1}',
                                 schema jsonb DEFAULT '{"type": "object", "properties": {"id": {"type": "integer"}, "b-1": {"type": "string"}},
                                                        "required": ["id", "b-1"]}')
RETURNS bigint LANGUAGE sql AS $$SELECT prometheus_set_http_tool('fetch', method, url, schema)$$;
SELECT function_returns('prometheus_set_http_tool', 'bigint');
SELECT is(pg_temp.set_http(), 1::bigint, 'an endpoint becomes a tool');
SELECT is(prometheus_set_http_tool('fetch', 'POST', tier => 'write', secret => 'env:KEY', description => 'Fetches.', idempotent => true), 2::bigint,
          'what is not given is kept');
SELECT results_eq($$SELECT kind, function, tier, idempotent, description, method, url, secret, schema ->> 'type' FROM prometheus.tool WHERE name = 'fetch'$$,
    $$VALUES ('http', NULL::text, 'write', true, 'Fetches.', 'POST', 'https://api.example.com/a/{id}?b={b-1}', 'env:KEY', 'object')$$, 'and is shown');
SELECT is(prometheus_set_http_tool('fetch', secret => '', description => '', tier => NULL, idempotent => NULL), 3::bigint, 'an empty text takes it away');
SELECT results_eq($$SELECT tier, idempotent, description, secret FROM prometheus.tool WHERE name = 'fetch'$$,
    $$VALUES ('write', true, NULL::text, NULL::text)$$, 'null keeps tier and idempotent');
SELECT is(prometheus_set_tool('now()', 'fetch', tier => NULL), 4::bigint, 'it becomes a function');
SELECT results_eq($$SELECT kind, function, tier, method, url, secret FROM prometheus.tool WHERE name = 'fetch'$$,
    $$VALUES ('function', 'pg_catalog.now()', 'write', NULL::text, NULL::text, NULL::text)$$, 'with nothing of the endpoint');
SELECT throws_ok($$SELECT prometheus_set_http_tool('fetch', 'GET', 'https://a/b')$$, '22004', 'an http tool must have a schema',
                 'a function''s schema is not kept for an endpoint');
SELECT is(pg_temp.set_http(), 5::bigint, 'and an endpoint again');

SELECT throws_ok(format('SELECT pg_temp.set_http(method => %L)', method), '22023', format('method "%s" cannot be used', method), 'method ' || method)
  FROM unnest(ARRAY['get', 'HEAD', 'GET X']) method;
SELECT throws_ok(format('SELECT pg_temp.set_http(url => %L)', url), '22023', 'the url of the tool cannot be used', 'url ' || url)
  FROM unnest(ARRAY['ftp://a/b', 'a/b', 'https://', 'https:///b', 'https://me:key@a/b', 'https://a:99999/b', 'https://a', 'https://a?x={id}',
                    'https://{id}.a/b', 'https://a:{id}/b', '{id}://a/b', 'https://a/{nope}', 'https://a/{}', 'https://a/{id', 'https://a/id}',
                    'https://a/{id {id}}', 'https://a/b#c', 'https://a/b c', 'https://a/../{id}', 'https://a/./b', E'https://a/b\\c', 'https://a/ü',
                    'https://a/' || repeat('x', 3000)]) url;
SELECT throws_ok(format('SELECT pg_temp.set_http(schema => %L)', schema), '22023', NULL, 'schema ' || schema)
  FROM unnest(ARRAY['{"type": "array"}', '{}', 'true', '{"type": "object"}', '{"type": "object", "nonsense": 1}',
                    '{"type": "object", "properties": {"id": {"type": "integer"}, "b-1": {"type": "string"}}, "required": ["id"]}',
                    '{"type": "object", "properties": {"id": {"type": "object"}, "b-1": {"type": "string"}}, "required": ["id", "b-1"]}',
                    '{"type": "object", "properties": {"id": {"type": ["integer", "null"]}, "b-1": {"type": "string"}}, "required": ["id", "b-1"]}']) schema;
SELECT throws_ok($$SELECT prometheus_set_http_tool('fetch', secret => 'sk-123')$$, '22023', 'the secret is not the name of one', 'a key is not a secret''s name');
SELECT throws_ok($$SELECT prometheus_set_http_tool('fetch', tier => 'x')$$, '22023', 'tier "x" does not exist', 'an unknown tier');
SELECT throws_ok($$SELECT prometheus_set_http_tool('a b', 'GET', 'https://a/b', '{"type": "object"}')$$, '22023', NULL, 'a bad name');
SELECT throws_ok($$SELECT prometheus_set_http_tool('query', 'GET', 'https://a/b', '{"type": "object"}')$$, '42939', NULL, 'a name of one that is built in');
SELECT throws_ok($$SELECT prometheus_set_http_tool('none', url => 'https://a/b', schema => '{"type": "object"}')$$, '22004', 'an http tool must have a method', 'no method');
SELECT throws_ok($$SELECT prometheus_set_http_tool('none', 'GET', schema => '{"type": "object"}')$$, '22004', 'an http tool must have a url', 'no url');
SELECT is(version, 5::bigint, 'what fails writes nothing') FROM prometheus.tool WHERE name = 'fetch';
GRANT EXECUTE ON FUNCTION prometheus_set_http_tool TO prom_test_user;
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_http_tool('mine2', 'GET', 'https://a/b', '{"type": "object"}')$$, '42501', NULL, 'administrators only');
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_http_tool('fetch', 'GET', 'https://a/b')$$, '42501', 'permission denied for tool "fetch"', 'only who has its owner''s role');
RESET ROLE;

-- What models write, as json.

SELECT is(prometheus._json(document), expected::jsonb, 'json ' || to_json(document))
  FROM (VALUES
    ('{"a": [1, "b", null, true]}', '{"a": [1, "b", null, true]}'),
    (' 1.5e3 ', '1500'),
    ('"\ud83d\ude00"', '"😀"'),
    ('null', 'null'),
    ('', '""'),
    ('hello', '"hello"'),
    ('{"a": 1', '"{\"a\": 1"'),
    ('[1,]', '"[1,]"'),
    ('NaN', '"NaN"'),
    ('1e400000', '"1e400000"'),
    ('{"a": 1e-99999999999}', '"{\"a\": 1e-99999999999}"'),
    ('"\u0000"', '"\"\\u0000\""'),
    ('"\ud800"', '"\"\\ud800\""'),
    (E'"\t"', '"\"\t\""'),
    (E'\x01', '"\u0001"')) AS v(document, expected);
SELECT is(jsonb_typeof(prometheus._json(repeat('[', n) || repeat(']', n))), kind, n || ' arrays in one another are ' || kind)
  FROM (VALUES (50, 'array'), (100000, 'string')) AS v(n, kind);
SELECT is(jsonb_typeof(prometheus._json(repeat('[', 100000))), 'string', 'arrays without end');
SELECT is(length(prometheus._json(format('"%s"', repeat('x', 2000000))) #>> '{}'), 2000002, 'too long: a string of it');
SELECT is(prometheus._json(NULL), NULL, 'null for null');

SELECT * FROM finish();
ROLLBACK;
