-- What prometheus.alert shows and prometheus_set_alert() takes, in a database
-- without workers; t/510_alert.pl raises and clears.
BEGIN;
SELECT plan(44);
SET LOCAL client_min_messages = error;

SELECT columns_are('prometheus', 'alert', ARRAY['name', 'status', 'value', 'threshold', 'since', 'what', 'number', 'hint']);
SELECT function_returns('prometheus_set_alert', ARRAY['text', 'text'], 'bigint');
SELECT results_eq('SELECT name, threshold FROM prometheus.alert', $$VALUES
    ('wal_since_checkpoint', 2 * (SELECT setting::int FROM pg_settings WHERE name = 'max_wal_size') || ' MB'),
    ('wal_rate', '100 MB/s'), ('wal_kept_by_slots', '10 GB'), ('archive_failures', '2'), ('replica_lag', '1 GB'),
    ('oldest_snapshot', '1 h'), ('oldest_prepared', '10 min'), ('oldest_due', '15 min'), ('gates_closed', '15 min'),
    ('model_money', '0'), ('consumer_lag', '1 h'), ('dead_letters', '0'), ('export_lag', '15 min'), ('marks_late', '30 s'), ('workers_missing', '30 s'), ('worker_processes', '100 %'),
    ('storage_size', '100 GB'), ('storage_growth', '10 GB'), ('budget_spent', '90 %')$$, 'every check, with its default');
SELECT is_empty($$SELECT * FROM prometheus.alert WHERE status <> 'ok' OR since IS NOT NULL$$, 'none is raised');
SELECT is_empty($$SELECT * FROM prometheus.alert WHERE coalesce(hint, '') !~ '\.$' OR (value IS NULL) <> (number IS NULL)$$,
                'each says what to do, and a value is in words and a number');
SELECT set_eq($$SELECT name FROM prometheus.alert WHERE value IS NULL$$,
    ARRAY['wal_rate', 'oldest_due', 'gates_closed', 'model_money', 'consumer_lag', 'dead_letters', 'export_lag', 'marks_late', 'workers_missing', 'storage_size', 'storage_growth', 'budget_spent'],
    'what needs workers is not known without them');
SELECT results_eq($$SELECT status, value FROM prometheus_health() WHERE check_name = 'alerts'$$, $$VALUES ('ok', 'none of 19 is raised')$$, 'health says so');

-- Thresholds.
CREATE FUNCTION pg_temp.threshold(text) RETURNS text LANGUAGE sql AS $$SELECT threshold || ' ' || status FROM prometheus.alert WHERE name = $1$$;
SELECT is(prometheus_set_alert('wal_since_checkpoint', '0'), 1::bigint, 'the first version');
SELECT is(pg_temp.threshold('wal_since_checkpoint'), '0 raised', 'whoever looks sees what is over it');
SELECT ok(number > 0 AND value ~ '^[0-9.]+ (B|[kMGT]B)$' AND since IS NULL, 'by how much; but nobody raised it')
  FROM prometheus.alert WHERE name = 'wal_since_checkpoint';
SELECT ok(status = 'warning' AND value ~ '^[0-9.]+ (B|[kMGT]B); the threshold is 0$' AND hint ~ 'checkpoint', 'health has a row of it')
  FROM prometheus_health() WHERE check_name = 'alert wal_since_checkpoint';
SELECT is_empty($$SELECT FROM prometheus_health() WHERE check_name = 'alerts'$$, 'instead of the one that all is well');
SELECT is(prometheus_set_alert('wal_since_checkpoint', ' off '), 2::bigint, 'the second version');
SELECT is(pg_temp.threshold('wal_since_checkpoint'), 'off off', 'it is off');
SELECT is(prometheus_set_alert('wal_since_checkpoint', '1.5 TB'), 3::bigint, 'a third one');
SELECT is(pg_temp.threshold('wal_since_checkpoint'), '1.5 TB ok', 'in other units');
SELECT prometheus_set_alert('wal_since_checkpoint', 'default'), prometheus_set_alert('oldest_due', '0'), prometheus_set_alert('oldest_due', NULL);
SELECT is(pg_temp.threshold('wal_since_checkpoint'), 2 * (SELECT setting::int FROM pg_settings WHERE name = 'max_wal_size') || ' MB ok', 'the default again');
SELECT is(pg_temp.threshold('oldest_due'), '15 min ok', 'null is the default, too');

SELECT lives_ok(format('SELECT prometheus_set_alert(%L, %L)', n, t), format('%s: %s', n, t))
  FROM (VALUES ('wal_rate', '64 MB/s'), ('wal_rate', '64MB'), ('oldest_due', '90s'), ('oldest_due', '0'), ('budget_spent', '75.5'),
               ('budget_spent', '75%'), ('archive_failures', '10'), ('storage_size', '1000')) v(n, t);
SELECT throws_ok(format('SELECT prometheus_set_alert(%L, %L)', n, t), '22023', NULL, format('not %s: %s', n, t))
  FROM (VALUES ('wal_rate', '5 min'), ('oldest_due', '90'), ('oldest_due', '5 MB'), ('budget_spent', '90 MB'), ('archive_failures', '1.5'),
               ('archive_failures', '-1'), ('storage_size', 'much'), ('storage_size', ''), ('storage_size', 'NaN')) v(n, t);
SELECT throws_ok($$SELECT prometheus_set_alert('nothing', '1')$$, '42704', 'alert "nothing" does not exist', 'an alert that is not there');
SELECT throws_ok($$SELECT prometheus_set_alert(NULL, '1')$$, '22023', NULL, 'none');

-- Who may.
CREATE ROLE prom_test_user;
GRANT prometheus_agent_user TO prom_test_user;
CREATE ROLE prom_test_admin;
GRANT prometheus_agent_admin TO prom_test_admin;
SELECT prometheus_set_alert('oldest_snapshot', '0');
CREATE TABLE number (n int);
INSERT INTO number VALUES (1);
SET LOCAL ROLE prom_test_user;
SELECT throws_ok($$SELECT prometheus_set_alert('oldest_due', '1 min')$$, '42501', NULL, 'a user sets none');
SELECT ok(status = 'raised' AND what IS NULL, 'but sees what is raised, not by whom') FROM prometheus.alert WHERE name = 'oldest_snapshot';
SET LOCAL ROLE prom_test_admin;
SELECT lives_ok($$SELECT prometheus_set_alert('oldest_due', '1 min')$$, 'an administrator may');
SELECT is(what, 'process ' || pg_backend_pid(), 'and is told who') FROM prometheus.alert WHERE name = 'oldest_snapshot';
RESET ROLE;
SELECT is(count(*)::int, 1, 'who set it is known') FROM prometheus._threshold WHERE name = 'oldest_due' AND set_by = 'prom_test_admin';

-- What is now is not what was.
SET LOCAL prometheus.as_of = '2020-01-01 00:00:00+00';
SELECT throws_ok('SELECT * FROM prometheus.alert', '55000', NULL, 'not under prometheus.as_of');
SELECT throws_ok($$SELECT prometheus_set_alert('oldest_due', '1 min')$$, '25006', NULL, 'nor is it set there');

SELECT * FROM finish();
ROLLBACK;
