-- Somebody who may create objects where the extension is to be installed plants
-- functions and operators that fit what the script says better than the real
-- ones, and hopes that an administrator runs them.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE prom_test_attacker;
CREATE ROLE prom_test_admin;
GRANT CREATE ON SCHEMA public TO prom_test_attacker;
DROP EXTENSION prometheus;

-- Every function and operator that is planted says so when it is run.  Where
-- pg_catalog comes first only another signature helps, so pairs of types that
-- pg_catalog has an operator for are planted in the other schema only.
SET search_path = pg_catalog;
CREATE PROCEDURE public.plant(target text, everything boolean)
LANGUAGE plpgsql SET search_path = pg_catalog AS $plant$
DECLARE
    op text;
    l text;
    r text;
    result text;
    body CONSTANT text := $$LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END'$$;
    fn text;
BEGIN
    FOREACH op IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>=', '~', '!~', '+', '-', '*', '/', '||', '->', '->>'] LOOP
        result := CASE WHEN op IN ('+', '-', '*', '/', '||', '->', '->>') THEN NULL ELSE 'boolean' END;
        FOREACH l IN ARRAY ARRAY['text', 'name', 'varchar', 'int4', 'int8', 'float8', 'numeric', 'jsonb', 'oid', 'xid8',
                                 'timestamptz', 'interval', 'bool'] LOOP
            FOREACH r IN ARRAY ARRAY['text', 'name', 'varchar', 'int4', 'int8', 'float8', 'numeric', 'jsonb', 'oid', 'xid8',
                                     'timestamptz', 'interval', 'bool'] LOOP
                CONTINUE WHEN NOT everything AND to_regoperator(format('pg_catalog.%s(%s,%s)', op, l, r)) IS NOT NULL;
                EXECUTE format('CREATE FUNCTION %I.planted_%s(%s, %s) RETURNS %s %s', target,
                               md5(op), l, r, coalesce(result, l), body);
                EXECUTE format('CREATE OPERATOR %I.%s (FUNCTION = %I.planted_%s, LEFTARG = %s, RIGHTARG = %s)',
                               target, op, target, md5(op), l, r);
            END LOOP;
        END LOOP;
    END LOOP;
    FOREACH fn IN ARRAY ARRAY['format(text, text)', 'format(text, name)', 'format(text, text, text)',
                              'format(text, name, text)', 'jsonb_build_array(jsonb)', 'jsonb_build_array(text)',
                              'jsonb_build_object(text, text)', 'jsonb_build_object(text, jsonb)',
                              'jsonb_build_object(text, text, text, text)',
                              'jsonb_build_object(text, text, text, text, text, int4)',
                              'jsonb_build_object(text, text, text, text, text, text)',
                              'jsonb_build_object(text, int4, text, text, text, timestamptz)',
                              'jsonb_build_object(text, text, text, int8, text, float8)',
                              'jsonb_build_object(text, int4, text, text, text, text, text, text, text, float8)',
                              'shobj_description(oid, text)', 'pg_extension_config_dump(text, text)',
                              'left(text, int8)', 'replace(text, text, varchar)', 'sum(int4)', 'extract(varchar, interval)'] LOOP
        EXECUTE format('CREATE FUNCTION %I.%s RETURNS %s %s', target, fn,
                       CASE WHEN fn ~ '^jsonb' THEN 'jsonb' ELSE 'text' END, body);
    END LOOP;
    IF everything THEN
        FOREACH fn IN ARRAY ARRAY['jsonb_strip_nulls(jsonb)', 'pg_current_xact_id()', 'clock_timestamp()', 'now()',
                                  'left(text, int4)', 'replace(text, text, text)', 'extract(text, interval)', 'count(int4)',
                                  'int8eq(int8, int8)', 'texteq(text, text)', 'unnest(int8[])'] LOOP
            EXECUTE format('CREATE FUNCTION %I.%s RETURNS text %s', target, fn, body);
        END LOOP;
        FOREACH l IN ARRAY ARRAY['int4', 'int8', 'text', 'timestamptz', 'numeric', 'bool'] LOOP
            EXECUTE format('CREATE FUNCTION %I.planted_step(%s, %s) RETURNS %s %s', target, l, l, l, body);
            FOREACH fn IN ARRAY ARRAY['max', 'min', 'avg', 'array_agg', 'bool_or', 'bool_and'] LOOP
                EXECUTE format('CREATE AGGREGATE %I.%s(%s) (SFUNC = %I.planted_step, STYPE = %s)', target, fn, l, target, l);
            END LOOP;
        END LOOP;
        EXECUTE format('CREATE DOMAIN %I.jsonb AS pg_catalog.jsonb CHECK (false)', target);
        EXECUTE format('CREATE DOMAIN %I.text AS pg_catalog.text CHECK (false)', target);
    END IF;
END
$plant$;

SET ROLE prom_test_attacker;
CALL public.plant('public', false);
RESET ROLE;
SELECT count(*) > 500 AS planted FROM pg_operator WHERE oprnamespace = 'public'::regnamespace;

-- They are found without a schema, by whoever looks for what the script needs.
SET search_path = public;
SELECT float8 '1' * 1000;
SELECT jsonb_build_array('{}'::jsonb);

-- But not by the script.
CREATE EXTENSION prometheus;
SELECT d.classid::regclass, pg_describe_object(d.classid, d.objid, d.objsubid) AS uses,
       pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) AS planted
  FROM pg_depend d
 WHERE (d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (
        SELECT p.oid FROM pg_proc p WHERE p.proowner OPERATOR(pg_catalog.=) 'prom_test_attacker'::regrole::oid)
    OR d.refclassid = 'pg_operator'::regclass AND d.refobjid IN (
        SELECT o.oid FROM pg_operator o WHERE o.oprowner OPERATOR(pg_catalog.=) 'prom_test_attacker'::regrole::oid))
   AND d.classid NOT IN ('pg_operator'::regclass);
DROP EXTENSION prometheus;
SET search_path = pg_catalog;
DROP OWNED BY prom_test_attacker;

-- Now an extension that is well installed, and an administrator whose
-- search_path has the attacker's schema even before pg_catalog.
CREATE SCHEMA hostile AUTHORIZATION prom_test_attacker;
SET ROLE prom_test_attacker;
CALL public.plant('hostile', true);
RESET ROLE;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE EXTENSION prometheus SCHEMA public;
GRANT prometheus_agent_admin TO prom_test_admin;
CREATE TYPE public.pair AS (a pg_catalog.int4, b pg_catalog.text[]);
CREATE TYPE public.mood AS ENUM ('ok', 'sad');
CREATE FUNCTION public.word(word pg_catalog.text, m public.mood DEFAULT 'ok', r public.pair DEFAULT NULL) RETURNS pg_catalog.text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION public.reply(pg_catalog.jsonb) RETURNS pg_catalog.jsonb LANGUAGE sql AS 'SELECT $1';
\pset tuples_only on

CREATE TABLE public.tracked (id int PRIMARY KEY, words pg_catalog.text, number pg_catalog.int4, tags pg_catalog.text[]);
INSERT INTO public.tracked VALUES (1, 'one', 1, '{a}');
ALTER TABLE public.tracked OWNER TO prom_test_admin;
SET ROLE prom_test_admin;
SET client_min_messages = error;
SET search_path = hostile, public, pg_catalog;
-- Here an operator is the attacker's.
SELECT 1 = 1;
SELECT prometheus_set_model('m', 'openai', 'https://example.com/v1', 'x', 'KEY', options => '{"max_tokens": 5, "price_in": 1, "max_reply": "1 MB", "idle_timeout": "1 s"}');
SELECT prometheus_set_model('m', options => '{"max_tokens": null}');
SELECT prometheus_set_tool('public.word(pg_catalog.text, public.mood, public.pair)', 'word', 'Says it.', 'write', true);
SELECT prometheus_set_tool('public.word(pg_catalog.text, public.mood, public.pair)', 'word', tier => 'read');
SELECT prometheus_set_model('f', 'function', handler => 'public.reply(pg_catalog.jsonb)');
SELECT prometheus_set_model('f', handler => 'public.reply(pg_catalog.jsonb)', options => '{"price_in": 1}');
SELECT prometheus_set_agent('b', 'f', tools => '{word}', run_as => 'prom_test_admin');
SELECT prometheus_set_agent('b', instructions => 'Be brief.');
SELECT prometheus_set_agent('a', 'm', 'Be brief.', 'fast', options => '{"roles": ["prometheus_agent_user"]}');
SELECT prometheus_set_agent('a', options => '{"roles": null}');
SELECT prometheus_submit('before') AS before \gset
SELECT prometheus_submit('x', 'a', 'fast', 1, '2100-01-01', 'k', ARRAY[:before], 'key', 'talk', '{"type": "string", "pattern": "^a"}', '1 day', 2, NULL, '{"a": 1}') AS task_id \gset
-- The same key and request: the same task.
SELECT prometheus_submit('x', 'a', 'fast', 1, '2100-01-01', 'k', ARRAY[:before], 'key', 'talk', '{"type": "string", "pattern": "^a"}', '1 day', 2, NULL, '{"a": 1}') OPERATOR(pg_catalog.=) :task_id;
SELECT prometheus_why(:task_id);
SELECT prometheus_prompt(:task_id, 1);
SELECT prometheus_trace(:task_id) OPERATOR(pg_catalog.~) 'task';
SELECT prometheus_retry(:task_id);
-- A task that has failed.
RESET ROLE;
INSERT INTO prometheus._outcome (task_id, attempt, event_id, xid, ended_at, attempts, outcome)
SELECT :before, 1, 0, pg_catalog.pg_current_xact_id(), pg_catalog.now(), 1, 'failed';
SET ROLE prom_test_admin;
SELECT prometheus_retry(:before);
SELECT status FROM prometheus.task WHERE task_id OPERATOR(pg_catalog.=) :before;
SELECT prometheus_pause('model:m'), prometheus_pause();
SELECT target, state FROM prometheus.gate ORDER BY target;
SELECT prometheus_resume('model:m'), prometheus_resume();
SELECT prometheus_wait(:task_id, '0');
SELECT prometheus_result(:task_id);
SELECT prometheus_cancel(:task_id, 'no need');
CALL prometheus_ask('x', timeout => '0');
SELECT prometheus_track('public.tracked');
UPDATE public.tracked SET words = 'two', number = 2;
SELECT verdict FROM prometheus_undo(:task_id);
SELECT prometheus_rows_at(NULL::public.tracked, '2020-01-01');
SELECT prometheus_track('public.tracked', false);
SELECT prometheus_create_consumer('c', '{shop.*}'), prometheus_create_consumer('old', start => '-infinity');
SET prometheus.caused_by = '1';
SELECT prometheus_emit('shop.order', '{"a": 1}', 's') AS event_id \gset
RESET prometheus.caused_by;
SELECT name, lag OPERATOR(pg_catalog.>) 0 FROM prometheus.consumer;
SELECT type, data FROM prometheus_poll('c', 10);
SELECT prometheus_ack('c', :event_id), prometheus_ack('c');
SELECT prometheus_event_json(e) OPERATOR(pg_catalog.->>) 'type' FROM prometheus_poll('old') e WHERE type OPERATOR(pg_catalog.=) 'shop.order';
SELECT prometheus_replay('c', '2020-01-01');
SELECT prometheus_drop_consumer('c'), prometheus_drop_consumer('old');
SELECT prometheus_span_start('span', '{"a": 1}') AS span \gset
SELECT prometheus_traceparent() OPERATOR(pg_catalog.=) :'span' AS is_current;
SELECT prometheus_span_end(:'span');
SELECT reason FROM prometheus_sampling(:task_id);
SELECT tasks OPERATOR(pg_catalog.>) 0 AS has_tasks FROM prometheus_stats();
SELECT pg_catalog.length(prometheus_trace(:task_id)) OPERATOR(pg_catalog.>) 0 AS is_drawn;
SELECT pg_catalog.length(prometheus_report(:task_id)) OPERATOR(pg_catalog.>) 0 AS is_a_page;
SELECT pg_catalog.count(attributes) OPERATOR(pg_catalog.>) 0 AS has_spans FROM prometheus.span;
SELECT pg_catalog.count(attributes) OPERATOR(pg_catalog.>=) 0 AS has_history FROM prometheus.span_history;
SELECT prometheus._redact('password=secret'), prometheus._html('<b>');
SELECT prometheus_version();
SELECT status FROM prometheus.task WHERE task_id OPERATOR(pg_catalog.=) :task_id;
SELECT status FROM prometheus.queue;
SELECT outcome FROM prometheus.attempt;
SELECT status FROM prometheus.call;
SELECT output FROM prometheus.step;
SELECT data FROM prometheus.event ORDER BY created_at;
SELECT name, options FROM prometheus.agent ORDER BY name;
SELECT name, options FROM prometheus.model ORDER BY name;
SELECT name, "schema" FROM prometheus.tool;
SELECT prometheus._json('no json');
SELECT role FROM prometheus.worker;
SELECT check_name FROM prometheus_health();
SELECT prometheus._may_see('prom_test_admin', 'prom_test_admin'::regrole);

RESET ROLE;
SET search_path = public, pg_catalog;
SET client_min_messages = warning;
DROP EXTENSION prometheus;
DROP OWNED BY prom_test_attacker CASCADE;
DROP TABLE public.tracked;
DROP PROCEDURE public.plant;
DROP FUNCTION public.word, public.reply;
DROP TYPE public.mood, public.pair;
DROP ROLE prom_test_attacker, prom_test_admin;
CREATE EXTENSION prometheus;
