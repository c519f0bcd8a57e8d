-- Marks, and the setting prometheus.as_of.  Here is no publisher: the marks are
-- made by hand, with xids of nobody.
BEGIN;
SELECT plan(52);

SELECT has_table('prometheus', t, t) FROM unnest(ARRAY['_mark', '_mark_name']) AS t;
SELECT columns_are('prometheus', 'mark', ARRAY['mark_id', 'name', 'at']);
SELECT volatility_is('prometheus', f, 'stable', f || ' is stable')
  FROM unnest(ARRAY['_seen', '_seen_at']) AS f;

-- Nothing is known.

SELECT is((SELECT count(*) FROM prometheus.mark), 0::bigint, 'there are no marks');
SELECT throws_like($$SELECT prometheus._seen_at('5', '2020-01-01')$$, 'nothing is known of %: there are no marks yet'
       || '%', 'nor is anything known');
SELECT throws_ok($$SELECT prometheus_mark()$$, '55000', 'nobody writes marks: no publisher serves this database', 'and nobody writes one');
SELECT throws_ok($$SELECT prometheus_mark('')$$, '22023', NULL, 'an empty name');
SELECT throws_ok($$SELECT prometheus_mark(repeat('x', 64))$$, '22023', NULL, 'a name that is too long');
SELECT throws_ok($$SELECT prometheus_drop_mark('x')$$, '42704', 'mark "x" does not exist', 'there is none to drop');

-- The setting.

SELECT lives_ok(format('SET LOCAL prometheus.as_of = %L', v), format('as_of may be "%s"', v))
  FROM unnest(ARRAY['', 'mark:x', '2026-11-22 10:00:00+00', '2026-11-22', 'Nov 22 2026 10:00 CET', 'yesterday']) AS v;
SELECT throws_ok(format('SET LOCAL prometheus.as_of = %L', v), '22023', NULL, format('as_of may not be "%s"', v))
  FROM unnest(ARRAY['x', 'mark:', 'mark:' || repeat('x', 64), '10:00', 'infinity', '-infinity', '2026-13-01', repeat('1', 1000)]) AS v;
SELECT throws_ok('ALTER DATABASE postgres SET prometheus.as_of = ''2020-01-01''', '22023', NULL, 'not for a database');
SELECT throws_ok('ALTER ROLE postgres SET prometheus.as_of = ''2020-01-01''', '22023', NULL, 'not for a role');
SELECT throws_ok('CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET prometheus.as_of = ''2020-01-01'' AS ''SELECT 1''', '22023', NULL,
                 'not for a function');
SET LOCAL TimeZone = 'Europe/Rome';
SET LOCAL prometheus.as_of = '2020-01-01 10:00';
SELECT is(current_setting('prometheus.as_of'), '2020-01-01 10:00:00+01', 'it is kept with its zone');
SET LOCAL TimeZone = 'UTC';
SELECT is(current_setting('prometheus.as_of'), '2020-01-01 10:00:00+01', 'whatever the zone is then');
SET LOCAL prometheus.as_of = '';

-- What marks see: xids of a snapshot xmin:xmax:running.

INSERT INTO prometheus._mark (mark_id, xid, at, snapshot) VALUES
    (1, prometheus._xid(), '2020-01-01 00:00+00', '10:20:10,12,15'),
    (2, prometheus._xid(), '2020-01-02 00:00+00', '15:25:15'),
    (3, prometheus._xid(), '2020-01-03 00:00+00', '281474976710666:281474976710666:');
INSERT INTO prometheus._mark_name (mark_id, xid, owner_oid, owner, name)
SELECT 3, prometheus._xid(), oid, rolname, 'third' FROM pg_roles WHERE rolname = current_user;
SELECT results_eq('SELECT * FROM prometheus.mark ORDER BY mark_id',
                  $$VALUES (1::bigint, NULL, '2020-01-01 00:00+00'::timestamptz), (2, NULL, '2020-01-02 00:00+00'), (3, 'third', '2020-01-03 00:00+00')$$,
                  'the view shows them');

CREATE FUNCTION pg_temp.seen_at(at timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(x::text, ' ' ORDER BY x)
      FROM unnest('{9,10,11,12,13,15,19,20,24,25,281474976710665,281474976710666}'::xid8[]) AS x
     WHERE prometheus._seen_at(x, at) $$;
SELECT is(pg_temp.seen_at('2020-01-01 00:00+00'), '9 11 13 19', 'at the moment of a mark');
SELECT is(pg_temp.seen_at('2020-01-01 23:59:59.999999+00'), '9 11 13 19', 'until the next one');
SELECT is(pg_temp.seen_at('2020-01-02 00:00+00'), '9 10 11 12 13 19 20 24', 'which sees more');
SELECT throws_like($$SELECT pg_temp.seen_at('2019-12-31 23:59:59+00')$$, 'nothing is known of %', 'nothing before the first');
SELECT throws_like($$SELECT pg_temp.seen_at('2020-01-03 00:00+00')$$, 'what was seen at % cannot be said yet',
                   'nothing at the last: others may come at that moment');
SELECT throws_like($$SELECT pg_temp.seen_at(now() + '1 hour'::interval)$$, '% is in the future', 'nothing of the future');

CREATE FUNCTION pg_temp.seen() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(x::text, ' ' ORDER BY x)
      FROM unnest('{9,10,11,12,13,15,19,20,24,25,281474976710665,281474976710666}'::xid8[]) AS x
     WHERE prometheus._seen(x) $$;
SELECT is(pg_temp.seen(), '9 10 11 12 13 15 19 20 24 25 281474976710665 281474976710666', 'all is seen without the setting');
SET LOCAL prometheus.as_of = '2020-01-01 12:00+00';
SELECT is(pg_temp.seen(), '9 11 13 19', 'and with it, what was seen then');
SET LOCAL prometheus.as_of = 'mark:third';
SELECT is(pg_temp.seen(), '9 10 11 12 13 15 19 20 24 25 281474976710665', 'a mark by its name, with an era: what is of an older one');
SET LOCAL prometheus.as_of = 'mark:fourth';
SELECT throws_ok('SELECT pg_temp.seen()', '42704', 'mark "fourth" does not exist', 'a name of no mark');

-- A cursor shows the moment at which it was opened.

SET LOCAL prometheus.as_of = '2020-01-01 12:00+00';
DECLARE past CURSOR FOR SELECT count(*) FILTER (WHERE prometheus._seen('20')) FROM generate_series(1, 2) GROUP BY generate_series;
SET LOCAL prometheus.as_of = '';
DECLARE today CURSOR FOR SELECT prometheus._seen('20') FROM generate_series(1, 2);
CREATE FUNCTION pg_temp.fetch(name refcursor) RETURNS text LANGUAGE plpgsql AS $$
DECLARE got text; BEGIN FETCH name INTO got; RETURN got; END $$;
SELECT is(pg_temp.fetch('past'), '0', 'after RESET, a cursor of then');
SET LOCAL prometheus.as_of = '2020-01-02 12:00+00';
SELECT is(pg_temp.fetch('past'), '0', 'and after another SET');
SET LOCAL prometheus.as_of = '2020-01-01 12:00+00';
SELECT is(pg_temp.fetch('today'), 'true', 'a cursor of now');

-- Nothing is written meanwhile.

SELECT throws_ok(s, '25006', 'cannot write while prometheus.as_of is set', s)
  FROM unnest(ARRAY[$$SELECT prometheus_submit('x')$$, $$SELECT prometheus_remember('a', 'x')$$, $$SELECT prometheus_set_agent('a', 'echo')$$,
                    $$SELECT prometheus_mark()$$, $$SELECT prometheus_drop_mark('third')$$]) AS s;
SET LOCAL prometheus.as_of = '';

-- Names: of who gave them.

CREATE ROLE prom_test_other;
GRANT prometheus_agent_user TO prom_test_other;
SET LOCAL ROLE prom_test_other;
SELECT throws_ok($$SELECT prometheus_drop_mark('third')$$, '42501', 'permission denied for mark "third"', 'not of others');
RESET ROLE;
SELECT lives_ok($$SELECT prometheus_drop_mark('third')$$, 'a name is dropped');
SELECT results_eq('SELECT name FROM prometheus.mark WHERE mark_id = 3', 'VALUES (NULL::text)', 'the mark stays');

SELECT * FROM finish();
ROLLBACK;
