-- What prometheus_remember(), _recall() and _forget() store, find and refuse,
-- and who sees it.  The tools of the same names are in t/.
BEGIN;
SELECT plan(251);

SET LOCAL client_min_messages = error;

CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_chief;
CREATE ROLE prom_test_other;
CREATE ROLE prom_test_nobody;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT prometheus_agent_user TO prom_test_user, prom_test_other;
GRANT prom_test_user TO prom_test_chief;
GRANT prometheus_agent_user TO prom_test_chief;

SELECT columns_are('prometheus', 'memory', ARRAY[
    'memory_id', 'owner', 'agent', 'kind', 'importance', 'content', 'metadata', 'version', 'created_at',
    'expires_at', 'task_id', 'last_used_at', 'uses', 'confidence']);
SELECT function_returns('prometheus_remember', 'bigint');
SELECT function_returns('prometheus_recall', 'setof record');
SELECT function_returns('prometheus_forget', 'boolean');
SELECT function_returns('prometheus_memory_index', 'text');

-- What is stored.

SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('tidy', 'Bob likes green tea') AS bob \gset
SELECT results_eq(
    format('SELECT owner, agent, kind, importance, content, metadata, version, expires_at, task_id
              FROM prometheus.memory WHERE memory_id = %s', :bob),
    $$VALUES ('prom_test_user', 'tidy', 'semantic', 0.5::real, 'Bob likes green tea', '{}'::jsonb, 1::bigint,
              NULL::timestamptz, NULL::bigint)$$,
    'a memory with the defaults; its agent need not be set');
SELECT prometheus_remember('tidy', 'Answer in French', kind => 'core', importance => 1,
                           metadata => '{"source": "boss"}', embedding => '{0.5,1}', ttl => '1 day') AS full \gset
SELECT results_eq(
    format('SELECT kind, importance, metadata, expires_at - created_at FROM prometheus.memory WHERE memory_id = %s', :full),
    $$VALUES ('core', 1::real, '{"source": "boss"}'::jsonb, interval '1 day')$$,
    'a memory with everything');
SELECT prometheus_remember('tidy', 'The printer is on the left', 'resource') AS printer \gset
SELECT is((SELECT expires_at - created_at FROM prometheus.memory WHERE memory_id = :printer),
          interval '1 hour', 'a resource is kept for an hour');
SELECT prometheus_remember('tidy', 'The scanner is on the right', 'resource', ttl => '2 days') AS scanner \gset
SELECT is((SELECT expires_at - created_at FROM prometheus.memory WHERE memory_id = :scanner),
          interval '2 days', 'unless something else is said');
SELECT lives_ok(format('SELECT prometheus_remember(''tidy'', ''a kind'', %L)', kind), 'kind ' || kind)
  FROM unnest('{core,episodic,semantic,procedural,resource,vault}'::text[]) AS kind;
SELECT lives_ok($$SELECT prometheus_remember('tidy', 'what is null has its default', NULL, NULL, NULL, NULL, NULL)$$);
SELECT lives_ok($$SELECT prometheus_remember('tidy', 'not important', importance => 0)$$);
SELECT lives_ok($$SELECT prometheus_remember(repeat('n', 200), 'a long name')$$);

-- What is refused.

SELECT throws_ok(statement, state, NULL, what)
  FROM (VALUES
    ($$SELECT prometheus_remember('a', 'b', 'gossip')$$, '22023', 'an unknown kind'),
    ($$SELECT prometheus_remember('a', '')$$, '22023', 'nothing'),
    ($$SELECT prometheus_remember('a', NULL)$$, '22023', 'null'),
    ($$SELECT prometheus_remember('', 'b')$$, '22023', 'an agent without a name'),
    ($$SELECT prometheus_remember(NULL, 'b')$$, '22023', 'no agent'),
    ($$SELECT prometheus_remember(repeat('n', 201), 'b')$$, '22023', 'an agent with too long a name'),
    ($$SELECT prometheus_remember('a', 'b', importance => 1.01)$$, '22023', 'too important'),
    ($$SELECT prometheus_remember('a', 'b', importance => -0.01)$$, '22023', 'less than not important'),
    ($$SELECT prometheus_remember('a', 'b', importance => 'NaN')$$, '22023', 'an importance that is no number'),
    ($$SELECT prometheus_remember('a', 'b', metadata => '[]')$$, '22023', 'metadata that is no object'),
    ($$SELECT prometheus_remember('a', repeat('b ', 524289))$$, '54000', 'more than prometheus.max_request'),
    ($$SELECT * FROM prometheus_recall('a', 'b', k => 0)$$, '22023', 'to recall none'),
    ($$SELECT * FROM prometheus_recall('a', 'b', k => -1)$$, '22023', 'to recall less than none'),
    ($$SELECT * FROM prometheus_recall('a', 'b', k => 1001)$$, '22023', 'to recall more than 1000')) AS refused (statement, state, what);
SELECT throws_ok($$SELECT * FROM prometheus._memory$$, '42501', NULL, 'the table is nobody''s');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT public.prometheus_remember('a', 'b')$$, '42501', NULL, 'who is no user remembers nothing');
SELECT throws_ok($$SELECT * FROM public.prometheus_recall('a', 'b')$$, '42501', NULL, 'nor recalls anything');
SELECT throws_ok($$SELECT public.prometheus_forget(1)$$, '42501', NULL, 'nor forgets it');
RESET ROLE;

-- Words.

SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('words', content)
  FROM (VALUES ('The red fox jumps'), ('The red house'), ('A blue sea, don''t swim')) AS new (content);
SELECT results_eq(
    $$SELECT content, round(score::numeric, 3) FROM prometheus_recall('words', 'red fox')$$,
    $$VALUES ('The red fox jumps', 0.860), ('The red house', 0.560)$$,
    'who has all words of the query is before who has one; who has none is not there');
SELECT is((SELECT string_agg(content, '|') FROM prometheus_recall('words', 'FOX?')), 'The red fox jumps',
          'capitals and punctuation do not count');
SELECT is((SELECT string_agg(content, '|') FROM prometheus_recall('words', 'don''t "swim" \ & | ! :* <-> (')),
          'A blue sea, don''t swim', 'nor does what is special in a tsquery');
SELECT is((SELECT count(*) FROM prometheus_recall('words', 'zebra')), 3::bigint,
          'a query of which no word is in any finds all');
SELECT is((SELECT max(round(score::numeric, 3)) FROM prometheus_recall('words', 'zebra')), 0.260,
          'with similarity 0');
SELECT is((SELECT count(*) FROM prometheus_recall('words', query)), 3::bigint, format('the query %L finds all', query))
  FROM (VALUES (''), ('...'), (NULL)) AS q (query);
SELECT is((SELECT count(*) FROM prometheus_recall('words', 'red', k => 1)), 1::bigint, 'k is how many');
SELECT is((SELECT count(*) FROM prometheus_recall('words', 'red', k => NULL)), 2::bigint, 'and null the default');
SELECT is((SELECT count(*) FROM prometheus_recall('nowhere', 'red')), 0::bigint, 'another agent has none');
SELECT is((SELECT count(*) FROM prometheus_recall(NULL, 'red')), 0::bigint, 'nor has no agent');

-- The same content again.

SELECT prometheus_remember('twice', 'Bob likes tea', importance => 0.5, metadata => '{"a": 1}', ttl => '1 day') AS tea \gset
SELECT is(prometheus_remember('twice', 'Bob likes tea', importance => 0.4, ttl => '1 hour'), :tea::bigint, 'what is known has its id');
SELECT is((SELECT version FROM prometheus.memory WHERE memory_id = :tea), 1::bigint, 'and stays as it is, if nothing is better');
SELECT is(prometheus_remember('twice', 'Bob likes tea', importance => 0.6, metadata => '{"b": 2}', ttl => '2 days'), :tea::bigint, 'what is better too');
SELECT results_eq(
    format('SELECT version, importance, metadata, expires_at - created_at FROM prometheus.memory WHERE memory_id = %s', :tea),
    $$VALUES (2::bigint, 0.6::real, '{"a": 1, "b": 2}'::jsonb, interval '2 days')$$,
    'and is a new version: the higher importance, both metadata, the later end');
SELECT is(prometheus_remember('twice', 'Bob likes tea'), :tea::bigint, 'without an end');
SELECT is((SELECT expires_at FROM prometheus.memory WHERE memory_id = :tea), NULL, 'it has none any more');
SELECT is(prometheus_remember('twice', 'Bob likes tea', embedding => '{1}'), :tea::bigint, 'an embedding is added');
SELECT isnt(prometheus_remember('twice', 'Bob likes tea', 'core'), :tea::bigint, 'another kind is another memory');
SELECT prometheus_forget(:tea) \gset
SELECT isnt(prometheus_remember('twice', 'Bob likes tea'), :tea::bigint, 'and so is what was forgotten');
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'twice'), 2::bigint, 'that is all');

-- Kinds.

SELECT prometheus_remember('kinds', 'it is ' || kind, kind)
  FROM unnest('{core,episodic,procedural}'::text[]) AS kind;
SELECT is((SELECT string_agg(kind, ',' ORDER BY kind) FROM prometheus_recall('kinds', 'it', kinds => '{core,procedural}')),
          'core,procedural', 'only the kinds that are asked for');
SELECT is((SELECT count(*) FROM prometheus_recall('kinds', 'it', kinds => '{}')), 0::bigint, 'none of no kind');
SELECT is((SELECT count(*) FROM prometheus_recall('kinds', 'it')), 3::bigint, 'all by default');

-- Importance: of a thousand the top five are the five most important ones.

SELECT prometheus_remember('rank', format('memory number %s', n), importance => n / 1000.0)
  FROM generate_series(1, 1000) AS n;
SELECT is((SELECT string_agg(content, '|' ORDER BY score DESC) FROM prometheus_recall('rank', 'zebra')),
          'memory number 1000|memory number 999|memory number 998|memory number 997|memory number 996',
          'among equals in words the most important come first');
SELECT is((SELECT string_agg(content, '|') FROM prometheus_recall('rank', 'memory number', k => 2)),
          'memory number 1000|memory number 999', 'in this order');
SELECT is((SELECT content FROM prometheus_recall('rank', 'number 7', k => 1)), 'memory number 7',
          'a word counts more than importance');

-- A long text has more words than can be looked for.

SELECT lives_ok($$SELECT prometheus_remember('long', 'beginning ' || string_agg(md5(n::text), ' ') || ' end') FROM generate_series(1, 30000) AS n$$,
                'what has more words than a tsvector may is remembered');
SELECT is((SELECT left(content, 9) FROM prometheus_recall('long', 'beginning')), 'beginning', 'and found');
SELECT lives_ok($$SELECT * FROM prometheus_recall('long', (SELECT string_agg(md5(n::text), ' ') FROM generate_series(1, 30000) AS n))$$,
                'a query may be as long');
RESET ROLE;
SELECT is((SELECT words::text FROM prometheus._memory WHERE agent = 'words' LIMIT 1) LIKE '%:%', false, 'where a word is in it is not kept');
SET LOCAL ROLE prom_test_user;

-- Not all are looked at: of a frequent word the most important, of a rare one all.

RESET ROLE;
INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner, agent, kind,
                                content, metadata, words)
SELECT nextval('prometheus._fact_id'), 1, m.xid, m.mark, m.created_at, m.owner_oid, (n * 7 % 3000) / 3000.0, false, m.owner, 'lots',
       m.kind, c, '{}', to_tsvector('simple', c)
  FROM generate_series(1, 3000) AS n, LATERAL (SELECT format('thing %s of shelf %s', n, n % 100) AS c) AS x, prometheus._memory m
 WHERE m.agent = 'rank' AND m.content = 'memory number 1';
SET LOCAL ROLE prom_test_user;
SELECT is((SELECT string_agg(content, ',') FROM prometheus_recall('lots', 'thing', k => 2)),
          'thing 857 of shelf 57,thing 1714 of shelf 14', 'the most important of those with a frequent word');
SELECT is((SELECT content FROM prometheus_recall('lots', 'thing 3000', k => 1)), 'thing 3000 of shelf 0',
          'and the least important one with a rare word');
SELECT is((SELECT count(*) FROM prometheus_recall('lots', 'shelf 77', k => 30) WHERE content LIKE '% 77'), 30::bigint,
          'and all that have a word that some have');

-- Words: parts of names, accents, scripts without blanks, beginnings.

SELECT prometheus_remember('words of', content) FROM unnest(ARRAY['Das Café in der Straße hat schöne Äpfel', 'Łódź и ещё кафе',
    '東京都庁は新宿にあります', 'Call item-7 on v1.2.3 via foo@bar.com/path_x', '서울에서 만나요', 'crème brûlée', 'ＡＢＣ ½', '🙂 smile']) AS content;
SELECT is((SELECT content FROM prometheus_recall('words of', query, k => 1) WHERE score > 0.5), content, query)
  FROM (VALUES
    ('cafe', 'Das Café in der Straße hat schöne Äpfel'), ('CAFÉ', 'Das Café in der Straße hat schöne Äpfel'),
    (U&'cafe\0301', 'Das Café in der Straße hat schöne Äpfel'), ('strasse', 'Das Café in der Straße hat schöne Äpfel'),
    ('apf', 'Das Café in der Straße hat schöne Äpfel'), ('lodz', 'Łódź и ещё кафе'), ('еще', 'Łódź и ещё кафе'),
    ('東京', '東京都庁は新宿にあります'), ('都庁', '東京都庁は新宿にあります'), ('宿', '東京都庁は新宿にあります'),
    ('す', '東京都庁は新宿にあります'), ('7', 'Call item-7 on v1.2.3 via foo@bar.com/path_x'),
    ('3', 'Call item-7 on v1.2.3 via foo@bar.com/path_x'), ('bar.com', 'Call item-7 on v1.2.3 via foo@bar.com/path_x'),
    ('path', 'Call item-7 on v1.2.3 via foo@bar.com/path_x'), ('x', 'Call item-7 on v1.2.3 via foo@bar.com/path_x'),
    ('서울', '서울에서 만나요'), ('creme', 'crème brûlée'), ('abc', 'ＡＢＣ ½'), ('2', 'ＡＢＣ ½'), ('🙂', '🙂 smile'),
    ('smi', '🙂 smile')) AS found (query, content);
SELECT is((SELECT max(score) < 0.5 FROM prometheus_recall('words of', query)), true, 'no word of any: ' || query)
  FROM unnest(ARRAY['zebra', '京新', U&'\200B', '-- !!', 's']) AS query;

-- Marks on marks would be put in order for a minute, and no interrupt heard.

SET LOCAL statement_timeout = '20s';
SELECT lives_ok($$SELECT prometheus_remember('long', 'a' || repeat(U&'\0E48', 20000) || repeat(U&'\0E38', 20000) || ' marked')$$, 'many marks');
SELECT is((SELECT left(content, 1) FROM prometheus_recall('long', 'marked', k => 1)), 'a', 'and a word after them');
RESET statement_timeout;

-- A language: what was stored before is found, and after it is another.

SELECT prometheus_remember('tongue', 'The cats were running') AS cats \gset
SELECT is((SELECT score > 0.5 FROM prometheus_recall('tongue', 'barking')), false, 'another word');
RESET ROLE;
SELECT prometheus_set_agent('tongue', 'echo', options => '{"language": "english"}') \gset
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('tongue', 'A dog barks at the café') AS dog \gset
SELECT is((SELECT memory_id FROM prometheus_recall('tongue', query, k => 1) WHERE score > 0.85), id::bigint, 'in English: ' || query)
  FROM (VALUES ('barking', :dog), ('dogs', :dog), ('the dogs', :dog), ('cafés', :dog), ('cats', :cats), ('running cats', :cats),
               ('the', :dog)) AS found (query, id);
RESET ROLE;
SELECT prometheus_set_agent('tongue', options => '{"language": "pg_catalog.german"}') \gset
SET LOCAL ROLE prom_test_user;
SELECT is((SELECT memory_id FROM prometheus_recall('tongue', query, k => 1) WHERE score > 0.85), id::bigint, 'in German: ' || query)
  FROM (VALUES ('barks', :dog), ('cats', :cats)) AS found (query, id);
RESET ROLE;
CREATE TEXT SEARCH CONFIGURATION public.passing (COPY = pg_catalog.simple);
SELECT prometheus_set_agent('tongue', options => '{"language": "public.passing"}') \gset
DROP TEXT SEARCH CONFIGURATION public.passing;
SET LOCAL ROLE prom_test_user;
SELECT is((SELECT memory_id FROM prometheus_recall('tongue', 'cats', k => 1)), :cats::bigint, 'a language that is gone is none');

-- Embeddings that are none, wherever they are given.

SELECT throws_ok(format(statement, embedding), '22023', 'an embedding has a wrong value', format(statement, left(embedding, 30)))
  FROM unnest(ARRAY[$$SELECT prometheus_remember('a', 'b', embedding => %L)$$, $$SELECT * FROM prometheus_recall('a', 'b', embedding => %L)$$]) AS statement,
       unnest(ARRAY['{}', '{NaN}', '{1,Infinity}', '{-Infinity}', '{0,0}', '{1,NULL}', '{{1,2},{3,4}}', array_fill(1, '{16385}')::text]) AS embedding;
SELECT lives_ok($$SELECT prometheus_remember('long', 'vector', embedding => array_fill(1, '{16384}')::real[])$$, 'the longest');
SELECT is((SELECT content FROM prometheus_recall('long', '', k => 1, embedding => array_fill(1, '{16384}')::real[])), 'vector', 'is found');
RESET ROLE;
SELECT is(round(prometheus._cosine(a, b)::numeric, 6), cosine, format('the cosine of %s and %s', a, b))
  FROM (VALUES ('{1,0}'::real[], '{1,0}'::real[], 1.0), ('{1,0}', '{0,1}', 0), ('{1,0}', '{-2,0}', -1), ('{1,1}', '{1,0}', 0.707107),
               ('{1,2,3,4,5,6,7,8,9}', '{9,8,7,6,5,4,3,2,1}', 0.578947), ('{3e38,3e38}', '{3e38,3e38}', 1),
               ('{1e-40,0}', '{1e-40,1e-40}', 0.707107), ('{3e-23,1e-23}', '{3e12,1e12}', 1),
               ('{3e18,1e18}', '{3e-20,1e-20}', 1), ('{1}', '{1,2}', NULL), ('{1,2}', '{{1,2}}', NULL),
               ('{0,0}', '{1,1}', NULL)) AS pair (a, b, cosine);
SELECT is(prometheus._sketch_distance(prometheus._sketch('{1,2,3}'), prometheus._sketch('{2,4,6}')), 0, 'a sketch is of a direction');
SELECT is(prometheus._sketch_distance(prometheus._sketch('{1,2,3}'), prometheus._sketch('{1,2}')), NULL, 'and of a length');
SELECT ok(abs(prometheus._sketch_distance(prometheus._sketch(a), prometheus._sketch(b)) / 1024.0 - acos(prometheus._cosine(a, b)) / pi()) < 0.06,
          format('the sketches of %s and %s differ as much as their directions', a, b))
  FROM (VALUES ('{1,0,0}'::real[], '{0,1,0}'::real[]), ('{1,1,1}', '{1,1,2}'), ('{1,2,3}', '{3,-2,1}'), ('{1,0}', '{-1,0}'),
               ('{5,6,7,8}', '{8,7,6,5}')) AS pair (a, b);

-- Words and embeddings together: by the sum of 1 / (60 + place).

SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('both', 'alpha', embedding => '{0,0,1}'), prometheus_remember('both', 'alpha beta', embedding => '{1,1,0}'),
       prometheus_remember('both', 'gamma', embedding => '{1,0,0}'), prometheus_remember('both', 'of no vector');
CREATE FUNCTION pg_temp.both(query text, embedding real[], kinds text[] DEFAULT NULL, k int DEFAULT 5) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(content || ' ' || round(score::numeric, 2), ', ' ORDER BY score DESC) FROM prometheus_recall('both', query, kinds, k, embedding)$$;
SELECT is(pg_temp.both('', '{1,0,0}'), 'gamma 0.86, alpha beta 0.66, alpha 0.46', 'the nearest first');
SELECT is(pg_temp.both('', '{0,0,-1}'), 'gamma 0.86, alpha beta 0.66, alpha 0.46', 'the opposite last; of equals the newer first');
SELECT is(pg_temp.both('alpha beta', '{1,0,0}'), 'alpha beta 0.86, alpha 0.66, gamma 0.46', 'two places count more than one');
SELECT is(pg_temp.both('alpha beta', '{1,0,0}', k => 1), 'alpha beta 0.86', 'the best');
SELECT is(pg_temp.both('vector', '{0.1,0,1}'), 'of no vector 0.86, alpha 0.86, gamma 0.56, alpha beta 0.41',
          'of equal places both; what has no vector counts by its words');
SELECT is(pg_temp.both('zebra', '{1,0,0}'), 'gamma 0.86, alpha beta 0.66, alpha 0.46', 'no word: by the vector');
SELECT is(pg_temp.both('alpha beta', '{1,0}'), pg_temp.both('alpha beta', NULL), 'none of this length: by words');
SELECT is(pg_temp.both('', '{1,0}'), pg_temp.both('', NULL), 'or by importance');
SELECT is(pg_temp.both('alpha beta', NULL), 'alpha beta 0.86, alpha 0.56', 'by words only');
SELECT is(pg_temp.both('alpha', '{1,0,0}', '{core}'), NULL, 'only the kinds that are asked for');
SET LOCAL ROLE prom_test_other;
SELECT prometheus_remember('both', 'alpha beta of another', embedding => '{1,0,0}');
SET LOCAL ROLE prom_test_user;
SELECT is(pg_temp.both('alpha beta', '{1,0,0}'), 'alpha beta 0.86, alpha 0.66, gamma 0.46', 'what another has changes nothing');
SELECT prometheus_forget((SELECT memory_id FROM prometheus.memory WHERE agent = 'both' AND content = 'gamma'));
SELECT is(pg_temp.both('', '{1,0,0}'), 'alpha beta 0.86, alpha 0.56', 'what is forgotten is not near');

-- Of many those that are exactly the nearest; what does not count any more is in nobody's way.

RESET ROLE;
SELECT setseed(0.5);
INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner, agent, kind,
                                content, metadata, words, embedding)
SELECT nextval('prometheus._fact_id'), 1, m.xid, m.mark, m.created_at, m.owner_oid, 0.5, false, m.owner, 'near',
       m.kind, 'vector ' || n, '{}', '', ARRAY(SELECT random() - 0.3 FROM generate_series(1, 20) WHERE n > 0)
  FROM generate_series(1, 4000) AS n, prometheus._memory m
 WHERE m.agent = 'rank' AND m.content = 'memory number 1';
SELECT embedding AS one, memory_id AS id FROM prometheus._memory WHERE agent = 'near' AND content = 'vector 77' \gset
SET LOCAL ROLE prom_test_user;
SELECT array_agg(memory_id ORDER BY score DESC) AS found FROM prometheus_recall('near', '', k => 3, embedding => :'one') \gset
RESET ROLE;
SELECT is(:'found'::bigint[], (SELECT (array_agg(memory_id ORDER BY prometheus._cosine(embedding, :'one') DESC))[:3] FROM prometheus._memory WHERE agent = 'near'),
          'the nearest of 4,000');
INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner, agent, kind,
                                content, metadata, words, embedding)
SELECT m.memory_id, 1 + n, m.xid, m.mark, m.created_at, m.owner_oid, m.importance, n = 1500, m.owner, m.agent,
       m.kind, m.content, '{}', '', m.embedding
  FROM generate_series(1, 1500) AS n, prometheus._memory m
 WHERE m.memory_id = :id;
SET LOCAL ROLE prom_test_user;
SELECT array_agg(memory_id ORDER BY score DESC) AS found FROM prometheus_recall('near', '', k => 3, embedding => :'one') \gset
RESET ROLE;
SELECT is(:'found'::bigint[], (SELECT (array_agg(memory_id ORDER BY prometheus._cosine(embedding, :'one') DESC))[:3] FROM prometheus._memory WHERE agent = 'near' AND memory_id <> :id),
          'but for what was forgotten');

-- How often others have a word does not matter.

INSERT INTO prometheus._memory (memory_id, version, xid, mark, created_at, owner_oid, importance, forgotten, owner, agent, kind,
                                content, metadata, words)
SELECT nextval('prometheus._fact_id'), 1, m.xid, m.mark, m.created_at,
       CASE WHEN n > 1000 THEN 'prom_test_other'::regrole::oid ELSE m.owner_oid END, n / 10000.0, false,
       CASE WHEN n > 1000 THEN 'prom_test_other' ELSE m.owner END, 'crowd',
       m.kind, 'of ' || n, '{}', CASE WHEN n <= 50 OR n > 1000 THEN 'crowd' ELSE '' END::tsvector
  FROM generate_series(1, 8000) AS n, prometheus._memory m
 WHERE m.agent = 'rank' AND m.content = 'memory number 1';
SET LOCAL ROLE prom_test_user;
SELECT is((SELECT count(*) FROM prometheus_recall('crowd', 'crowd', k => 50) WHERE score > 0.6), 50::bigint,
          'all that have a word that many others have');
RESET ROLE;
DELETE FROM prometheus._memory WHERE agent IN ('both', 'near', 'crowd');
SET LOCAL ROLE prom_test_user;

-- Age: ten days take 0.12 * (1 - 1/e) from the score.

SELECT prometheus_remember('age', 'old news') AS old \gset
SELECT prometheus_remember('age', 'new news') AS new \gset
RESET ROLE;
UPDATE prometheus._memory SET created_at = created_at - interval '10 days' WHERE memory_id = :old;
SET LOCAL ROLE prom_test_user;
SELECT results_eq(
    $$SELECT content, round(score::numeric, 3) FROM prometheus_recall('age', 'news')$$,
    $$VALUES ('new news', 0.860), ('old news', 0.784)$$,
    'the newer comes first');

-- What has expired.

SELECT prometheus_remember('ttl', 'short lived', ttl => '1 minute') AS short \gset
SELECT is((SELECT count(*) FROM prometheus_recall('ttl', 'lived')), 1::bigint, 'it is there in its time');
RESET ROLE;
UPDATE prometheus._memory SET expires_at = now() - interval '1 second' WHERE memory_id = :short;
SET LOCAL ROLE prom_test_user;
SELECT is((SELECT count(*) FROM prometheus_recall('ttl', 'lived')), 0::bigint, 'and after it is not recalled');
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'ttl'), 0::bigint, 'nor shown');

-- Others.

SET LOCAL ROLE prom_test_other;
SELECT is((SELECT count(*) FROM prometheus_recall('words', 'red')), 0::bigint, 'nobody recalls what is another''s');
SELECT is((SELECT count(*) FROM prometheus.memory), 0::bigint, 'nor sees it');
SELECT is(prometheus_forget(:bob), false, 'nor forgets it');
SET LOCAL ROLE prom_test_chief;
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'words'), 3::bigint, 'who has the role sees it');
SELECT is((SELECT count(*) FROM prometheus_recall('words', 'red')), 0::bigint, 'but recalls his own');
SET LOCAL ROLE prom_test_admin;
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'words'), 3::bigint, 'an administrator sees all');

-- Forgetting.

SET LOCAL ROLE prom_test_user;
SELECT is(prometheus_forget(:bob), true, 'it is forgotten');
SELECT is(prometheus_forget(:bob), false, 'and cannot be forgotten twice');
SELECT is((SELECT count(*) FROM prometheus_recall('tidy', 'green tea', k => 1000) WHERE memory_id = :bob), 0::bigint,
          'it is not recalled any more');
SELECT is((SELECT count(*) FROM prometheus.memory WHERE memory_id = :bob), 0::bigint, 'nor shown');
SELECT is(prometheus_forget(-1), false, 'what was never there');
SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus_forget(:full), true, 'an administrator may forget it');
RESET ROLE;
SELECT results_eq(
    format('SELECT version, forgotten, content FROM prometheus._memory WHERE memory_id = %s ORDER BY version', :bob),
    $$VALUES (1::bigint, false, 'Bob likes green tea'), (2::bigint, true, 'Bob likes green tea')$$,
    'that is a version more');

-- Bringing back.

SET LOCAL ROLE prom_test_other;
SELECT is(prometheus_restore_memory(:bob), false, 'another''s is not brought back');
SET LOCAL ROLE prom_test_user;
SELECT is(prometheus_restore_memory(:bob), true, 'what was forgotten comes back');
SELECT is(prometheus_restore_memory(:bob), false, 'once');
SELECT is(prometheus_restore_memory(-1), false, 'what was never there does not');
SELECT results_eq(format('SELECT version, content FROM prometheus.memory WHERE memory_id = %s', :bob),
                  $$VALUES (3::bigint, 'Bob likes green tea')$$, 'as a new version');
SELECT is((SELECT memory_id FROM prometheus_recall('tidy', 'green tea', k => 1)), :bob::bigint, 'it is recalled');
SELECT is(prometheus_forget(:bob), true, 'it can be forgotten again');
SELECT prometheus_remember('tidy', 'Bob likes green tea') AS anew \gset
SELECT is(prometheus_restore_memory(:bob), false, 'but does not come back beside the same content');
SELECT prometheus_forget(:anew), prometheus_forget(:scanner) \gset
RESET ROLE;
UPDATE prometheus._memory SET expires_at = now() - interval '1 second' WHERE memory_id = :scanner;
SELECT is(prometheus_restore_memory(:scanner), false, 'what has expired does not');
SET LOCAL ROLE prom_test_admin;
SELECT is(prometheus_restore_memory(:bob), true, 'an administrator may bring it back');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT public.prometheus_restore_memory(1)$$, '42501', NULL, 'who is no user may not');
RESET ROLE;

-- The limit.

SELECT prometheus_set_agent('few', 'echo', options => '{"memory_limit": 3}') \gset
SET LOCAL ROLE prom_test_user;
CREATE FUNCTION pg_temp.few(of text) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(content, ',' ORDER BY content) FROM prometheus.memory WHERE agent = 'few' AND kind = of$$;
SELECT prometheus_remember('few', 'm' || n, importance => n / 10.0) FROM generate_series(1, 5) AS n;
SELECT is(pg_temp.few('semantic'), 'm3,m4,m5', 'the least important are evicted');
SELECT prometheus_remember('few', 'm0', importance => 0);
SELECT is(pg_temp.few('semantic'), 'm3,m4,m5', 'be it the new one');
SELECT prometheus_remember('few', 'm4', importance => 0.45);
SELECT is(pg_temp.few('semantic'), 'm3,m4,m5', 'a new version of one is none more');
SELECT prometheus_remember('few', 'c' || n, 'core') FROM generate_series(1, 5) AS n;
SELECT is(pg_temp.few('core'), 'c1,c2,c3,c4,c5', 'what it is has no limit');
SELECT prometheus_remember('few', 'p' || n, 'vault', importance => 0, metadata => '{"pinned": true}') FROM generate_series(1, 4) AS n;
SELECT prometheus_remember('few', 'v' || n, 'vault', importance => 1) FROM generate_series(1, 2) AS n;
SELECT is(pg_temp.few('vault'), 'p1,p2,p3,p4', 'what is pinned is never evicted, and counts');
SELECT prometheus_remember('few', 'r' || n, 'resource', importance => n / 10.0) FROM generate_series(1, 3) AS n;
RESET ROLE;
UPDATE prometheus._memory SET expires_at = now() - interval '1 second' WHERE content = 'r3' AND agent = 'few';
UPDATE prometheus._memory SET created_at = created_at - interval '30 days' WHERE content = 'm5' AND agent = 'few';
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('few', 'r0', 'resource', importance => 0);
SELECT is(pg_temp.few('resource'), 'r0,r1,r2', 'what has expired goes first');
SELECT prometheus_remember('few', 'm6', importance => 0.6);
SELECT is(pg_temp.few('semantic'), 'm3,m4,m6', '30 days weigh as much as 0.41 of importance');
SELECT results_eq(
    $$SELECT data ->> 'kind', data ->> 'agent', agent, subject = 'memory/' || (data ->> 'memory_id'), data ->> 'relevance', task_id
        FROM prometheus.event WHERE type = 'memory.evicted' ORDER BY event_id LIMIT 2$$,
    $$VALUES ('semantic', 'few', 'few', true, '0.3700', NULL::bigint), ('semantic', 'few', 'few', true, '0.4400', NULL)$$,
    'an event tells of it');
\set readme `cat README.md`
SELECT is((SELECT string_agg(f, ', ' ORDER BY f) FROM jsonb_object_keys((SELECT data FROM prometheus.event WHERE type = 'memory.evicted' LIMIT 1)) f),
          (SELECT string_agg(f, ', ' ORDER BY f) FROM regexp_split_to_table(substring(:'readme' FROM '\| `memory.evicted` \| ([^|]*) \|'), ', ') f),
          'with the fields that README has');
SELECT (data ->> 'memory_id')::bigint AS m1 FROM prometheus.event WHERE type = 'memory.evicted' ORDER BY event_id LIMIT 1 \gset
SELECT is(prometheus_restore_memory(:m1), true, 'what was evicted comes back');
SELECT is(pg_temp.few('semantic'), 'm1,m4,m6', 'and another one goes for it');
SET LOCAL ROLE prom_test_other;
SELECT is_empty($$SELECT FROM prometheus.event WHERE type = 'memory.evicted'$$, 'others do not see that');
SELECT prometheus_remember('few', 'x');
SELECT is((SELECT count(*) FROM prometheus.memory), 1::bigint, 'and have a limit of their own');
RESET ROLE;
SELECT results_eq($$SELECT DISTINCT reason FROM prometheus._memory WHERE forgotten ORDER BY 1$$,
                  $$VALUES ('evicted'), ('forgotten')$$, 'each version says why it was forgotten');
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('many', 's' || n) FROM generate_series(1, 1002) AS n;
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'many'), 1002::bigint, 'any number of facts, if nothing is said');
RESET ROLE;
UPDATE prometheus._memory SET kind = 'episodic' WHERE agent = 'many';
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('many', 'one more', 'episodic');
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'many'), 1000::bigint, 'and a thousand experiences');
RESET ROLE;

-- What was evicted is not looked at, however much of it there is.

SELECT prometheus_set_agent('flow', 'echo', options => '{"memory_limit": 20}') \gset
SET LOCAL ROLE prom_test_user;
SELECT count(prometheus_remember('flow', 'f' || n, importance => 0.5)) FROM generate_series(1, 600) AS n;
SELECT is((SELECT count(*) FROM prometheus.memory WHERE agent = 'flow'), 20::bigint, 'of six hundred twenty are there');
RESET ROLE;
CREATE FUNCTION pg_temp.fetched() RETURNS bigint LANGUAGE sql AS
$$SELECT sum(pg_stat_get_xact_tuples_fetched(indexrelid))::bigint FROM pg_index WHERE indrelid = 'prometheus._memory'::regclass$$;
ANALYZE prometheus._memory;
SELECT pg_temp.fetched() AS fetched \gset
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('flow', 'one more') \gset
RESET ROLE;
SELECT cmp_ok(pg_temp.fetched() - :fetched, '<', 300::bigint,
              'one more reads few rows');
SELECT cmp_ok((SELECT count(*) FROM prometheus._memory_entry WHERE agent = 'flow' AND entry_id >= (SELECT first_entry FROM prometheus._memory_entry WHERE agent = 'flow' ORDER BY entry_id DESC LIMIT 1)), '<', 140::bigint,
              'and the list of what came is short');
-- While there is no limit more come, and some go.
SELECT prometheus_set_agent('flow', options => '{"memory_limit": null}') \gset
SET LOCAL ROLE prom_test_user;
SELECT count(prometheus_remember('flow', 'g' || n, importance => 0.6)) FROM generate_series(1, 50) AS n;
SELECT prometheus_forget((SELECT memory_id FROM prometheus.memory WHERE content = 'g1')) \gset
SELECT prometheus_restore_memory((SELECT min(memory_id) FROM prometheus.memory_version WHERE content = 'f1')) \gset
RESET ROLE;
SELECT prometheus_set_agent('flow', options => '{"memory_limit": 30}') \gset
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('flow', 'last', importance => 0.7) \gset
SELECT results_eq($$SELECT count(*), count(*) FILTER (WHERE content ~ '^(g|last)') FROM prometheus.memory WHERE agent = 'flow'$$, 'VALUES (30::bigint, 30::bigint)',
                  'what came while there was no limit counts when there is one');
RESET ROLE;

-- Last use, as the publisher writes it.

SELECT is(last_used_at, NULL, 'a memory that was never recalled'), is(uses, 0::bigint, 'has no uses'), is(confidence, NULL, 'nor a confidence')
  FROM prometheus.memory WHERE memory_id = :full;
SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('few', 'u' || n, 'procedural', importance => 0.3) FROM generate_series(1, 3) AS n;
RESET ROLE;
UPDATE prometheus._memory SET created_at = created_at - interval '30 days' WHERE content ~ '^u' AND agent = 'few';
INSERT INTO prometheus._memory_use (memory_id, xid, used_at, uses)
SELECT m.memory_id, prometheus._xid(), now() - ago, n FROM prometheus._memory m, (VALUES (interval '20 days', 1), (interval '1 day', 3)) AS u (ago, n)
 WHERE m.content = 'u1' AND m.agent = 'few';
SET LOCAL ROLE prom_test_user;
SELECT results_eq($$SELECT now() - last_used_at, uses FROM prometheus.memory WHERE content = 'u1' AND agent = 'few'$$,
                  $$VALUES (interval '1 day', 3::bigint)$$, 'the newest row says when it was used, and how often');
SELECT prometheus_remember('few', 'u4', 'procedural', importance => 0.4);
SELECT is(pg_temp.few('procedural'), 'u1,u3,u4', 'what was used lately stays: the oldest of the others goes');
SELECT prometheus_remember('few', 'u5', 'procedural', importance => 0.4);
SELECT prometheus_remember('few', 'u6', 'procedural', importance => 0.4);
SELECT is(pg_temp.few('procedural'), 'u4,u5,u6', 'and goes when others are more relevant');
SELECT cmp_ok((SELECT abs((data ->> 'relevance')::float8 - (0.7 * 0.3 + 0.3 * exp(-0.1))) FROM prometheus.event WHERE type = 'memory.evicted' ORDER BY event_id DESC LIMIT 1),
          '<', 0.005::float8, 'relevance: 0.7 importance + 0.3 exp(-0.1 days since the last use)');
RESET ROLE;

-- What is superseded.

SET LOCAL ROLE prom_test_user;
SELECT prometheus_remember('wrong', 'Bob likes coffee', importance => 0.8, metadata => '{"source": "boss", "pinned": true, "confidence": 0.9}') AS coffee \gset
SELECT prometheus_supersede_memory(:coffee, 'Bob likes tea') AS tea, prometheus_forget(:scanner) \gset
SELECT results_eq($$SELECT memory_id, kind, importance, content, metadata, version FROM prometheus.memory WHERE agent = 'wrong'$$,
    format($$VALUES (%s::bigint, 'semantic', 0.8::real, 'Bob likes tea', '{"pinned": true, "supersedes": %s}'::jsonb, 1::bigint)$$, :tea, :coffee),
    'what is true takes the place of what is not, with what is not about its source');
SELECT results_eq($$SELECT memory_id, version, content, forgotten, superseded_by FROM prometheus.memory_version WHERE agent = 'wrong' ORDER BY 1, 2$$,
    format($$VALUES (%1$s::bigint, 1::bigint, 'Bob likes coffee', NULL, NULL), (%1$s, 2, 'Bob likes coffee', 'superseded', %2$s::bigint), (%2$s, 1, 'Bob likes tea', NULL, NULL)$$, :coffee, :tea),
    'all versions can be seen');
SELECT is((SELECT string_agg(content, ',') FROM prometheus_recall('wrong', 'Bob')), 'Bob likes tea', 'it is not recalled any more');
SELECT throws_ok(format('SELECT prometheus_supersede_memory(%s, %s)', id, content), state, NULL, what)
  FROM (VALUES (:coffee::text, $$'Bob likes milk'$$, '42704', 'what is superseded is not superseded again'),
               (:scanner::text, $$'Bob likes milk'$$, '42704', 'nor what is forgotten'),
               ('-1', $$'x'$$, '42704', 'nor what was never there'),
               ('NULL', $$'x'$$, '42704', 'nor nothing'),
               (:tea::text, $$'Bob likes tea'$$, '22023', 'by itself'),
               (:tea::text, $$''$$, '22023', 'by nothing'),
               (:tea::text, 'NULL', '22023', 'by null'),
               (:tea::text, $$repeat('b ', 524289)$$, '54000', 'by too much')) AS r (id, content, state, what);
SELECT is((SELECT version FROM prometheus.memory WHERE memory_id = :tea), 1::bigint, 'nothing of that was done');
SELECT prometheus_remember('wrong', 'Bob likes milk') AS milk \gset
SELECT is(prometheus_supersede_memory(:tea, 'Bob likes milk'), :milk::bigint, 'by what is remembered already');
SELECT results_eq($$SELECT memory_id, importance, metadata FROM prometheus.memory WHERE agent = 'wrong'$$,
    format($$VALUES (%s::bigint, 0.8::real, '{"pinned": true, "supersedes": %s}'::jsonb)$$, :milk, :tea), 'which is as important as it was');
SELECT is(prometheus_restore_memory(:coffee), true, 'what was superseded comes back');
SELECT is((SELECT string_agg(content, ',' ORDER BY content) FROM prometheus.memory WHERE agent = 'wrong'), 'Bob likes coffee,Bob likes milk',
          'beside what has superseded it');
SELECT is(forgotten, NULL, 'and nothing says that it is forgotten'), is(superseded_by, NULL, 'or by what')
  FROM prometheus.memory_version WHERE memory_id = :coffee AND version = 3;
SELECT prometheus_remember('wrong', 'Add, then divide', 'vault', metadata => '{"consolidated_from": "procedural"}') AS add \gset
SELECT prometheus_supersede_memory(:add, 'Divide, then add') AS divide \gset
SELECT results_eq(format('SELECT kind, metadata - ''supersedes'' FROM prometheus.memory WHERE memory_id = %s', :divide), $$VALUES ('procedural', '{}'::jsonb)$$,
                  'what takes the place of what was consolidated has yet to prove itself');
SELECT prometheus_remember('few', 'f' || n, 'semantic', importance => 1) FROM generate_series(1, 3) AS n;
SELECT prometheus_supersede_memory(memory_id, 'f4') FROM prometheus.memory WHERE agent = 'few' AND content = 'f1';
SELECT is(pg_temp.few('semantic'), 'f2,f3,f4', 'it takes its place under the limit, too');
SET LOCAL ROLE prom_test_other;
SELECT throws_ok(format('SELECT prometheus_supersede_memory(%s, ''x'')', :milk), '42704', NULL, 'another''s cannot be superseded');
SELECT is_empty($$SELECT FROM prometheus.memory_version WHERE owner <> 'prom_test_other'$$, 'nor seen');
SET LOCAL ROLE prom_test_chief;
SELECT throws_ok(format('SELECT prometheus_supersede_memory(%s, ''x'')', :milk), '42704', NULL, 'nor by who may see it');
SELECT is((SELECT count(*) FROM prometheus.memory_version WHERE memory_id = :coffee), 3::bigint, 'who sees its versions');
SET LOCAL ROLE prom_test_admin;
SELECT throws_ok(format('SELECT prometheus_supersede_memory(%s, ''x'')', :milk), '42704', NULL, 'nor by an administrator');
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok($$SELECT public.prometheus_supersede_memory(1, 'x')$$, '42501', NULL, 'nor by who is no user');
RESET ROLE;

-- What is known in the vault.

SELECT prometheus_remember('vaulted', 'Paris is the capital', 'vault', metadata => '{"consolidated_from": "semantic"}') AS paris \gset
SELECT prometheus_remember('vaulted', 'Rome is the capital', 'vault') AS rome \gset
SELECT is(prometheus_remember('vaulted', 'Paris is the capital', importance => 0.9), :paris::bigint, 'a fact that was consolidated is known');
SELECT results_eq(format('SELECT version, kind, importance FROM prometheus.memory WHERE memory_id = %s', :paris),
                  $$VALUES (2::bigint, 'vault', 0.9::real)$$, 'and gets the higher importance where it is');
SELECT isnt(prometheus_remember('vaulted', 'Paris is the capital', 'procedural'), :paris::bigint, 'not as another kind');
SELECT isnt(prometheus_remember('vaulted', 'Rome is the capital'), :rome::bigint, 'what was put into the vault is a memory of its own');
SELECT prometheus_forget(:paris) \gset
SELECT prometheus_remember('vaulted', 'Paris is the capital') AS anew \gset
SELECT is(prometheus_restore_memory(:paris), false, 'what was consolidated does not come back beside the same fact');
SELECT prometheus_forget(:anew) \gset
SELECT is(prometheus_restore_memory(:paris), true, 'but without it');
SELECT is(prometheus_restore_memory(:anew), false, 'beside which the fact does not');

-- Evidence.

INSERT INTO prometheus._evidence (memory_id, number, xid, task_id, found_at, score, confidence)
SELECT :milk, n, prometheus._xid(), -n, now(), 0.7, n / 4.0 FROM generate_series(1, 2) AS n;
SET LOCAL ROLE prom_test_user;
SELECT is((SELECT confidence FROM prometheus.memory WHERE memory_id = :milk), 0.5::real, 'the newest evidence counts');
SELECT results_eq('SELECT number, owner, agent, task_id, score, confidence FROM prometheus.memory_evidence ORDER BY number',
                  $$VALUES (1, 'prom_test_user', 'wrong', -1::bigint, 0.7::real, 0.25::real), (2, 'prom_test_user', 'wrong', -2, 0.7, 0.5)$$, 'all of it is shown');
SET LOCAL ROLE prom_test_other;
SELECT is_empty('SELECT FROM prometheus.memory_evidence', 'but not to others');
RESET ROLE;

-- Of ages that exp() has no number for, and of those that are none.
SELECT prometheus_remember('ages', 'ancient and future', importance => 0.5) AS ancient \gset
UPDATE prometheus._memory SET created_at = now() - interval '60 years' WHERE memory_id = :ancient;
SELECT prometheus_remember('ages', 'future only', importance => 0.5) AS future \gset
UPDATE prometheus._memory SET created_at = now() + interval '60 years' WHERE memory_id = :future;
SELECT results_eq($$SELECT memory_id, score FROM prometheus_recall('ages', 'future')$$,
                  format('VALUES (%s::bigint, 0.86::real), (%s, 0.74)', :future, :ancient), 'an age is finite, and not below 0');

SELECT * FROM finish();
ROLLBACK;
