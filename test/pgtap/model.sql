-- What prometheus_set_model() writes and refuses, and what prometheus.model shows.
BEGIN;
SELECT plan(199);

SELECT columns_are('prometheus', 'model', ARRAY[
    'name', 'api', 'endpoint', 'model', 'secret', 'handler', 'owner', 'version', 'set_at', 'options']);
SELECT function_returns('prometheus_set_model', 'bigint');

-- What a fresh install has.
SELECT is(api, 'echo', 'there is a model to begin with') FROM prometheus.model WHERE name = 'echo' AND version = 1;

-- A new one.

SELECT is(prometheus_set_model('gpt', 'openai', 'https://api.openai.com/v1', 'gpt-5', 'OPENAI_KEY',
                               options => '{"max_tokens": 100, "temperature": 0.5}'), 1::bigint, 'the first version is 1');
SELECT is(concat_ws(' ', api, endpoint, model, secret, owner, version, options),
          concat_ws(' ', 'openai https://api.openai.com/v1 gpt-5 OPENAI_KEY', current_user, 1,
                    '{"max_tokens": 100, "temperature": 0.5}'), 'as it was set')
  FROM prometheus.model WHERE name = 'gpt';
SELECT cmp_ok(set_at, '>=', now(), 'set_at') FROM prometheus.model WHERE name = 'gpt';
SELECT is(concat_ws(' ', xid, mark, owner_oid), concat_ws(' ', prometheus._xid(), 0, current_user::regrole::oid),
          'the fact has its transaction, mark and owner') FROM prometheus._model WHERE name = 'gpt';

-- A change keeps what is not given.

SELECT is(prometheus_set_model('gpt', model => 'gpt-6'), 2::bigint, 'the next version is 2');
SELECT is(concat_ws(' ', api, endpoint, model, secret, version, options),
          'openai https://api.openai.com/v1 gpt-6 OPENAI_KEY 2 {"max_tokens": 100, "temperature": 0.5}',
          'one argument changes, the others stay') FROM prometheus.model WHERE name = 'gpt';
SELECT is(prometheus_set_model('gpt'), 3::bigint, 'a version without a change');
SELECT is(prometheus_set_model('gpt', options => '{"temperature": null, "stream": false}'), 4::bigint, 'options');
SELECT is(options, '{"max_tokens": 100, "stream": false}', 'options are merged, a null takes one away')
  FROM prometheus.model WHERE name = 'gpt';
SELECT is(prometheus_set_model('gpt', options => NULL), 5::bigint, 'options null');
SELECT is(options, '{"max_tokens": 100, "stream": false}', 'keeps them') FROM prometheus.model WHERE name = 'gpt';
SELECT is(prometheus_set_model('gpt', endpoint => 'https://example.com/v1///'), 6::bigint, 'an endpoint with slashes');
SELECT is(endpoint, 'https://example.com/v1', 'is kept without the last') FROM prometheus.model WHERE name = 'gpt';
SELECT is(prometheus_set_model('gpt', model => '', secret => ''), 7::bigint, 'empty texts');
SELECT is(concat_ws(' ', api, endpoint, coalesce(model, '-'), coalesce(secret, '-')),
          'openai https://example.com/v1 - -', 'take away what they are given for') FROM prometheus.model WHERE name = 'gpt';
SELECT throws_ok($$SELECT prometheus_set_model('gpt', endpoint => '')$$, '22004', NULL, 'but not an endpoint that is needed');
SELECT throws_ok($$SELECT prometheus_set_model('gpt', '')$$, '22004', NULL, 'nor the api');
SELECT is((SELECT array_agg(version ORDER BY version) FROM prometheus._model WHERE name = 'gpt'),
          ARRAY[1, 2, 3, 4, 5, 6, 7]::bigint[], 'every version is there');
SELECT is((SELECT count(*) FROM prometheus.model WHERE name = 'gpt'), 1::bigint, 'the view has the newest');
SELECT is(model, 'gpt-5', 'an old one is as it was') FROM prometheus._model WHERE name = 'gpt' AND version = 1;

-- Two in one statement, and names.

SELECT is((SELECT array_agg(prometheus_set_model(n, 'echo')) FROM unnest(ARRAY['a', 'b', 'a', 'a']) AS n),
          ARRAY[1, 1, 2, 3]::bigint[], 'many in one statement');
SELECT is(prometheus_set_model('A', 'echo'), 1::bigint, 'names have case');
SELECT is(prometheus_set_model('my model: "größe"', 'echo'), 1::bigint, 'any text is a name');
SELECT is(prometheus_set_model(repeat('n', 200), 'echo'), 1::bigint, 'a name of 200 bytes');
SELECT throws_ok(format('SELECT prometheus_set_model(%L, ''echo'')', n), '22023', NULL, 'a name that cannot be: ' || left(n, 3))
  FROM unnest(ARRAY['', repeat('n', 201), repeat('ü', 101)]) AS n;
SELECT throws_ok($$SELECT prometheus_set_model(NULL, 'echo')$$, '22023', NULL, 'a name that is null');

-- What cannot be.

SELECT throws_ok($$SELECT prometheus_set_model('new')$$, '22004', NULL, 'a new model needs an api');
SELECT throws_ok($$SELECT prometheus_set_model('new', 'telepathy')$$, '22023', NULL, 'api unknown');
SELECT throws_ok($$SELECT prometheus_set_model('new', '')$$, '22004', NULL, 'api empty');
SELECT throws_ok($$SELECT prometheus_set_model('new', 'openai')$$, '22004', NULL, 'openai needs an endpoint');
SELECT throws_ok($$SELECT prometheus_set_model('new', 'echo', 'https://example.com')$$, '22023', NULL, 'echo has no endpoint');
SELECT throws_ok($$SELECT prometheus_set_model('new', 'echo', secret => 'KEY')$$, '22023', NULL, 'echo has no secret');
SELECT throws_ok(format($$SELECT prometheus_set_model('new', 'openai', %L)$$, e), '22023', NULL, 'endpoint ' || to_json(e))
  FROM unnest(ARRAY['example.com', 'ftp://example.com', 'file:///etc/passwd', 'https:example.com', 'https://',
                    'https:///v1', 'https://:443/v1', 'https://me@example.com', 'https://me:pass@example.com/v1',
                    'https://example.com/v1?api-version=1', 'https://example.com/#v1', 'https://example.com/a b',
                    ' https://example.com', E'https://example.com/\r\nHost: other', E'https://example.com\x7f',
                    'https://example.com:0/v1', 'https://example.com:65536', 'https://example.com:/v1', 'https://example.com:v1',
                    'https://[::1]v1', 'https://[::1]:99999999999999999999/v1']) AS e;
SELECT lives_ok(format($$SELECT prometheus_set_model('new', 'openai', %L)$$, e), 'endpoint ' || e)
  FROM unnest(ARRAY['https://example.com', 'HTTPS://EXAMPLE.COM/v1', 'http://127.0.0.1:11434/v1', 'http://localhost/v1',
                    'https://[::1]:8443/v1', 'https://example.com/a@b/v1', 'https://example.com:65535', 'https://[::1]/v1:1']) AS e;
SELECT throws_ok(format($$SELECT prometheus_set_model('new', 'openai', 'https://example.com', secret => %L)$$, s), '22023',
                 NULL, 'secret ' || to_json(left(s, 20)))
  FROM unnest(ARRAY['sk-proj-0123456789', '../other', '/etc/passwd', '.hidden', 'a/b', 'env:', 'env:1', 'env:A-B',
                    'file:KEY', 'a b', repeat('n', 65), 'Bearer x', E'KEY\n']) AS s;
SELECT lives_ok(format($$SELECT prometheus_set_model('new', 'openai', 'https://example.com', secret => %L)$$, s), 'secret ' || s)
  FROM unnest(ARRAY['KEY', 'openai.key', 'my-key_2', 'env:OPENAI_API_KEY', 'env:_x']) AS s;

-- Options.

SELECT throws_ok(format($$SELECT prometheus_set_model('gpt', options => %L)$$, o), '22023', NULL, 'options ' || o)
  FROM unnest(ARRAY['[]', '"text"', '1', 'null', '{"colour": "red"}', '{"Max_tokens": 1}', '{"": 1}', '{"stream": "true"}',
                    '{"stream": 1}', '{"max_tokens": 0}', '{"max_tokens": 1.5}', '{"max_tokens": "100"}',
                    '{"max_tokens": 3000000000}', '{"temperature": -0.1}', '{"temperature": 11}', '{"temperature": "0"}',
                    '{"price_in": -1}', '{"price_out": "1"}', '{"total_timeout": 0}', '{"total_timeout": "0"}',
                    '{"idle_timeout": "2 days"}', '{"connect_timeout": true}', '{"connect_timeout": "-1 s"}',
                    '{"window": 999}', '{"window": 100000001}', '{"window": "8 kB"}', '{"window": 1000.5}',
                    '{"requests_per_minute": 0}', '{"requests_per_minute": 1.5}', '{"requests_per_minute": "60"}', '{"requests_per_minute": 10000001}',
                    '{"tokens_per_minute": 0}', '{"tokens_per_minute": -1}', '{"tokens_per_minute": 1000000000001}', '{"tokens_per_minute": true}',
                    '{"cache": 0}', '{"cache": true}', '{"cache": "400 days"}', '{"cache": "-1 s"}',
                    '{"max_reply": 1023}', '{"max_reply": "1 GB"}', '{"max_reply": []}', '{"roles": ["x"]}']) AS o;
SELECT throws_ok($$SELECT prometheus_set_model('gpt', options => '{"total_timeout": "soon"}')$$, '22007', NULL,
                 'an interval that is none');
SELECT lives_ok(format($$SELECT prometheus_set_model('gpt', options => %L)$$, o), 'options ' || o)
  FROM unnest(ARRAY['{}', '{"max_tokens": 1, "temperature": 0, "price_in": 0, "price_out": 0.000001, "stream": true}',
                    '{"connect_timeout": "1 s", "first_byte_timeout": 0.5, "idle_timeout": "00:01", "total_timeout": 86400}',
                    '{"max_reply": "16 MB"}', '{"max_reply": 1024}', '{"window": 1000, "max_tokens": 5000}', '{"price_in": 1e3}',
                    '{"requests_per_minute": 1, "tokens_per_minute": 1000000000000}', '{"requests_per_minute": null, "tokens_per_minute": null}',
                    '{"cache": "1 day"}', '{"cache": 60}', '{"cache": null}']) AS o;

SELECT throws_ok(format($$SELECT prometheus_set_model('more', %L, 'https://example.com', options => %L)$$, a, o), '22023', NULL, a || ' ' || o)
  FROM (VALUES ('openai', '{"extra_body": []}'), ('openai', '{"extra_body": 1}'), ('openai', '{"extra_body": {"stream": true}}'),
               ('openai', '{"extra_body": {"max_tokens": 5}}'), ('openai-responses', '{"extra_body": {"store": true}}'),
               ('openai-responses', '{"extra_body": {"text": {"format": {}}}}'), ('anthropic', '{"extra_body": {"system": ""}}'),
               ('anthropic', '{"extra_body": {"output_config": 1}}'), ('anthropic', '{"price_cached": -1}'),
               ('gemini', '{"extra_body": {"generationConfig": {"temperature": 1}}}'), ('gemini', '{"extra_body": {"generationConfig": "x"}}'),
               ('gemini', json_build_object('extra_body', json_build_object('x', repeat('x', 65536)))::text)) AS v (a, o);
SELECT throws_ok($$SELECT prometheus_set_model('more', 'echo', options => '{"extra_body": {"a": 1}}')$$, '22023', NULL, 'echo is sent nothing');
SELECT lives_ok(format($$SELECT prometheus_set_model('more', %L, 'https://example.com', options => %L)$$, a, o), a || ' ' || o)
  FROM (VALUES ('openai', '{"extra_body": {"top_p": 0.5, "metadata": {"stream": 1}}, "price_cached": 0.1}'),
               ('anthropic', '{"extra_body": {"output_config": {"effort": "low"}}}'), ('gemini', '{"extra_body": {"model": "x"}}')) AS v (a, o);
SELECT throws_ok($$SELECT prometheus_set_model('more', 'openai')$$, '22023', 'extra_body must not have "model"', 'it must fit a new api, too');
SELECT lives_ok($$SELECT prometheus_set_model('more', 'openai', options => '{"extra_body": null}')$$, 'it can be taken away');

-- Functions as models.

SET LOCAL client_min_messages = error;
CREATE SCHEMA prom_test;
CREATE FUNCTION prom_test.reply(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION prom_test.reply(text) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb($1)';
CREATE FUNCTION prom_test.named(request jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SET LOCAL search_path = prom_test, public;
SELECT is(prometheus_set_model('script', 'function', handler => 'reply(jsonb)'), 1::bigint, 'a function');
SET LOCAL search_path = public;
SELECT is(concat_ws(' ', api, handler, coalesce(endpoint, '-'), owner), concat_ws(' ', 'function prom_test.reply(pg_catalog.jsonb) -', current_user),
          'is the handler') FROM prometheus.model WHERE name = 'script';
SELECT is(search_path, 'prom_test, public, pg_temp', 'with the path of then') FROM prometheus._model WHERE name = 'script';
SELECT is(prometheus_set_model('script', model => 'x', options => '{"price_in": 1}'), 2::bigint, 'it stays');
SELECT is(handler || ' ' || search_path, 'prom_test.reply(pg_catalog.jsonb) prom_test, public, pg_temp', 'with its path')
  FROM prometheus._model WHERE name = 'script' AND version = 2;
SELECT is(prometheus_set_model('script', handler => 'prom_test.named(jsonb)'), 3::bigint, 'another one');
SELECT is(handler || ' ' || search_path, 'prom_test.named(pg_catalog.jsonb) public, pg_temp', 'has the path of now')
  FROM prometheus._model WHERE name = 'script' AND version = 3;

SELECT throws_ok($$SELECT prometheus_set_model('newer', 'function')$$, '22004', 'a model of api "function" needs a handler', 'it needs one');
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'function', handler => 0)$$, '22004', NULL, 'none is none');
SELECT throws_ok($$SELECT prometheus_set_model('script', handler => 0)$$, '22004', NULL, 'and it cannot be taken away');
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'function', 'https://example.com', handler => 'prom_test.reply(jsonb)')$$, '22023',
                 'a model of api "function" has no endpoint and no secret', 'it has no endpoint');
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'function', secret => 'KEY', handler => 'prom_test.reply(jsonb)')$$, '22023',
                 'a model of api "function" has no endpoint and no secret', 'and no secret');
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'openai', 'https://example.com', handler => 'prom_test.reply(jsonb)')$$, '22023',
                 'a model of api "openai" has no handler', 'of another api it has none');
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'echo', handler => 'prom_test.reply(jsonb)')$$, '22023',
                 'a model of api "echo" has no handler', 'of no other api');
SELECT throws_ok($$SELECT prometheus_set_model('script', 'echo')$$, '22023', 'a model of api "echo" has no handler',
                 'not even when it becomes another');
SELECT is(prometheus_set_model('script', 'echo', handler => 0), 4::bigint, 'unless it is taken away');
SELECT is(num_nulls(handler, search_path), 2, 'with its path') FROM prometheus._model WHERE name = 'script' AND version = 4;

CREATE FUNCTION prom_test.two(jsonb, jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION prom_test.rows(jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION prom_test.words(jsonb) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
CREATE FUNCTION prom_test.no_request() RETURNS jsonb LANGUAGE sql AS 'SELECT ''{}''::jsonb';
CREATE FUNCTION prom_test.of_json(json) RETURNS jsonb LANGUAGE sql AS 'SELECT $1::jsonb';
CREATE AGGREGATE prom_test.every(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
SELECT throws_ok(format($$SELECT prometheus_set_model('newer', 'function', handler => %L)$$, f), '22023',
                 format('function %s cannot be a model', f), f)
  FROM unnest(ARRAY['prom_test.reply(text)', 'prom_test.two(jsonb,jsonb)', 'prom_test.rows(jsonb)', 'prom_test.words(jsonb)',
                    'prom_test.no_request()', 'prom_test.of_json(json)', 'prom_test.every(jsonb)']) AS f;
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'function', handler => 'prom_test.nothing(jsonb)')$$, '42883', NULL, 'a function that is not there');
SELECT throws_ok($$SELECT prometheus_set_model('newer', 'function', handler => 4294967295::regprocedure)$$, '42883',
                 'function with OID 4294967295 does not exist', 'nor by its oid');

-- It runs as the model's owner.

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_other;
GRANT prometheus_agent_admin TO prom_test_admin, prom_test_other;
GRANT USAGE ON SCHEMA prom_test TO prom_test_admin, prom_test_other;
REVOKE EXECUTE ON FUNCTION prom_test.named(jsonb) FROM PUBLIC;
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok($$SELECT prometheus_set_model('theirs', 'function', handler => 'prom_test.named(jsonb)')$$, '42501',
                 'permission denied for function prom_test.named(jsonb)', 'a function that the administrator may not execute');
SELECT is(prometheus_set_model('theirs', 'function', handler => 'prom_test.reply(jsonb)'), 1::bigint, 'one that he may');
SELECT is(prometheus_set_model('plain', 'echo'), 1::bigint, 'and a model without one');
SELECT is(prometheus_set_model('theirs', options => '{"price_in": 1}'), 2::bigint, 'he may change his');
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_model('theirs', handler => 'prom_test.reply(jsonb)')$$, '42501',
                 'permission denied for model "theirs"', 'another administrator gives it no handler');
SELECT throws_ok($$SELECT prometheus_set_model('theirs', options => '{"price_in": 2}')$$, '42501', NULL, 'and changes nothing else');
SELECT throws_ok($$SELECT prometheus_set_model('plain', 'function', handler => 'prom_test.reply(jsonb)')$$, '42501', NULL,
                 'nor gives one to a model without');
SELECT is(prometheus_set_model('plain', options => '{"price_in": 2}'), 2::bigint, 'which he may change');
SELECT is(prometheus_set_model('theirs', 'echo', handler => 0), 3::bigint, 'he may take it away');
SELECT throws_ok($$SELECT prometheus_set_model('theirs', 'function', handler => 'prom_test.reply(jsonb)')$$, '42501', NULL, 'but not give it back');
RESET ROLE;
GRANT prom_test_admin TO prom_test_other;
SET LOCAL ROLE prom_test_other;
SELECT is(prometheus_set_model('theirs', 'function', handler => 'prom_test.reply(jsonb)'), 4::bigint, 'unless he has the owner''s role');
RESET ROLE;
SELECT is(owner, 'prom_test_admin', 'who stays the owner') FROM prometheus.model WHERE name = 'theirs';
ALTER ROLE prom_test_admin RENAME TO prom_test_renamed;
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_set_model('theirs')$$, '42501', NULL, 'not when the owner''s oid is of another name');
RESET ROLE;

-- What was refused left nothing.
SELECT is_empty($$SELECT * FROM prometheus._model WHERE name IN ('', 'newer')$$, 'a refused model is not there');
SELECT is((SELECT max(version) FROM prometheus._model), (SELECT count(*) FROM prometheus._model WHERE name = 'gpt' OR name = 'new'
           GROUP BY name ORDER BY count(*) DESC LIMIT 1), 'versions are dense');

SELECT * FROM finish();
ROLLBACK;
