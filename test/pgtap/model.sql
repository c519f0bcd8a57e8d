-- What prometheus_set_model() writes and refuses, and what prometheus.model shows.
BEGIN;
SELECT plan(125);

SELECT columns_are('prometheus', 'model', ARRAY[
    'name', 'api', 'endpoint', 'model', 'secret', 'owner', 'version', 'set_at', 'options']);
SELECT function_returns('prometheus_set_model', 'bigint');

-- What a fresh install has.
SELECT is(api, 'echo', 'there is a model to begin with') FROM prometheus.model WHERE name = 'echo' AND version = 1;

-- A new one.

SELECT is(prometheus_set_model('gpt', 'openai', 'https://api.openai.com/v1', 'gpt-5', 'OPENAI_KEY',
                               '{"max_tokens": 100, "temperature": 0.5}'), 1::bigint, 'the first version is 1');
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
                    '{"max_reply": 1023}', '{"max_reply": "1 GB"}', '{"max_reply": []}', '{"roles": ["x"]}']) AS o;
SELECT throws_ok($$SELECT prometheus_set_model('gpt', options => '{"total_timeout": "soon"}')$$, '22007', NULL,
                 'an interval that is none');
SELECT lives_ok(format($$SELECT prometheus_set_model('gpt', options => %L)$$, o), 'options ' || o)
  FROM unnest(ARRAY['{}', '{"max_tokens": 1, "temperature": 0, "price_in": 0, "price_out": 0.000001, "stream": true}',
                    '{"connect_timeout": "1 s", "first_byte_timeout": 0.5, "idle_timeout": "00:01", "total_timeout": 86400}',
                    '{"max_reply": "16 MB"}', '{"max_reply": 1024}', '{"window": 1000, "max_tokens": 5000}', '{"price_in": 1e3}']) AS o;

-- What was refused left nothing.
SELECT is_empty($$SELECT * FROM prometheus._model WHERE name = ''$$, 'a refused model is not there');
SELECT is((SELECT max(version) FROM prometheus._model), (SELECT count(*) FROM prometheus._model WHERE name = 'gpt' OR name = 'new'
           GROUP BY name ORDER BY count(*) DESC LIMIT 1), 'versions are dense');

SELECT * FROM finish();
ROLLBACK;
