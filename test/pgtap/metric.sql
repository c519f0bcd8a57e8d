-- What prometheus_metrics() says in a database without workers, how, and to whom.
BEGIN;
SELECT plan(25);

CREATE TEMP TABLE said AS
SELECT n, line FROM regexp_split_to_table(prometheus_metrics(), '\n') WITH ORDINALITY AS x(line, n);
CREATE TEMP TABLE older AS
SELECT n, line FROM regexp_split_to_table(prometheus_metrics(format => 'text'), '\n') WITH ORDINALITY AS x(line, n);
CREATE TEMP VIEW sample AS
SELECT substring(line, '^[a-z_]+') AS name, substring(line, '{(.*)} ') AS labels, substring(line, ' (\S+)$')::float8 AS value
  FROM said WHERE line ~ '^[a-z]';

SELECT is((SELECT string_agg(line, '|' ORDER BY n) FROM (SELECT * FROM said ORDER BY n DESC LIMIT 2) x), '# EOF|', 'it ends so');
SELECT is_empty($$SELECT line FROM said WHERE line !~ '^# (HELP|TYPE|UNIT) [a-z_]+ .|^[a-z_]+({[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*})? [0-9.e+-]+$|^# EOF$|^$'$$,
                'every line is one of the format');
SELECT is_empty($$SELECT substring(line, '^# TYPE (\S+)') FROM said WHERE line ~ '^# TYPE' GROUP BY 1 HAVING count(*) > 1$$, 'each metric is there once');
SELECT is_empty($$SELECT substring(line, '^# TYPE (\S+)') FROM said WHERE line ~ '^# TYPE'
                  EXCEPT SELECT substring(line, '^# HELP (\S+)') FROM said WHERE line ~ '^# HELP .+\.$'$$, 'and says what it means');
SELECT is_empty($$SELECT line FROM said WHERE line ~ '^# TYPE' AND line !~ '^# TYPE (prom_agent|gen_ai_client)_'$$, 'the names begin so');
SELECT is_empty($$SELECT line FROM said WHERE line ~ '^# UNIT' AND line !~ '^# UNIT \S+_(\S+) \1$'$$, 'a unit is the end of its name');
SELECT is_empty($$SELECT line FROM said WHERE line ~ '^# UNIT' AND line !~ ' (seconds|bytes|ratio|bytes_per_second)$'$$, 'units are base units');
SELECT cmp_ok((SELECT count(*) FROM said WHERE line ~ '^# TYPE \S+ (counter|gauge|histogram)$'), '>', 40::bigint, 'there are many');

SELECT is((SELECT value FROM sample WHERE name = 'prom_agent_database_served'), 0::float8, 'the database is not served');
SELECT is((SELECT value FROM sample WHERE name = 'prom_agent_in_recovery'), 0::float8, 'the server is no standby');
SELECT is((SELECT labels FROM sample WHERE name = 'prom_agent_build_info'), format('version="%s"', prometheus_version()), 'the version');
SELECT is((SELECT value FROM sample WHERE name = 'prom_agent_workers' AND labels = 'role="launcher"'), 1::float8, 'the launcher runs');
SELECT is((SELECT sum(value) FROM sample WHERE name = 'prom_agent_workers'), 1::float8, 'and nobody else');
SELECT is_empty($$SELECT * FROM sample WHERE name ~ '_total$'$$, 'nothing is counted');

SELECT is_empty($$SELECT line FROM older WHERE line ~ '# (UNIT|EOF)|_created| # '$$, 'the older format has no units, no begins and no end');
SELECT is((SELECT line FROM older WHERE line ~ '^# TYPE prom_agent_marks_t'), '# TYPE prom_agent_marks_total counter', 'but the names of samples');

SELECT throws_ok($$SELECT prometheus_metrics('xml')$$, '22023', '"xml" is not a format of metrics', 'a format that there is not');
SELECT throws_ok($$SELECT prometheus_metrics(NULL)$$, '22004', 'format must not be null', 'none');

-- README has each, with its labels as far as there are samples of it here.
\set readme `cat README.md`
CREATE TEMP TABLE described AS
SELECT n[1] AS name, btrim(m[2]) AS labels
  FROM regexp_matches(substring(:'readme' FROM '\n### Metrics\n(.*?)\n### '), '^\| (`[^|]*) \| ([^|]*)\| ', 'gn') AS m
 CROSS JOIN LATERAL regexp_matches(m[1], '`([a-z_]+)`', 'g') AS n;
SELECT set_eq('SELECT name FROM described',
              $$SELECT m[1] || CASE m[2] WHEN 'counter' THEN '_total' ELSE '' END
                  FROM said CROSS JOIN LATERAL regexp_matches(line, '^# TYPE (\S+) (\S+)') AS m$$, 'README has each metric');
SELECT is((SELECT count(*) - count(DISTINCT name) FROM described), 0::bigint, 'once');
SELECT is_empty($$SELECT s.name, s.labels, d.labels FROM sample s JOIN described d USING (name)
                   WHERE d.labels <> coalesce((SELECT string_agg(m[1], ', ') FROM regexp_matches(s.labels, '([a-z_]+)="', 'g') AS m), '')$$,
                'with its labels');

-- Who may.
CREATE ROLE prom_test_nobody;
CREATE ROLE prom_test_user;
CREATE ROLE prom_test_admin;
CREATE ROLE prom_test_monitor;
GRANT prometheus_agent_user TO prom_test_user;
GRANT prometheus_agent_admin TO prom_test_admin;
GRANT pg_monitor TO prom_test_monitor;
SET LOCAL ROLE prom_test_nobody;
SELECT throws_ok('SELECT prometheus_metrics()', '42501', NULL, 'nobody');
SET LOCAL ROLE prom_test_user;
SELECT throws_ok('SELECT prometheus_metrics()', '42501', NULL, 'who submits may not');
SET LOCAL ROLE prom_test_admin;
SELECT lives_ok('SELECT prometheus_metrics()', 'an administrator may');
SET LOCAL ROLE prom_test_monitor;
SELECT lives_ok('SELECT prometheus_metrics()', 'and who monitors the server');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
