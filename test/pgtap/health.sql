-- What prometheus_health() says in a database without workers, and how.
BEGIN;
SELECT plan(14);

CREATE TEMP VIEW h AS SELECT * FROM prometheus_health();

SELECT is((SELECT array_agg(check_name) FROM h),
          ARRAY['library', 'extension', 'era', 'tracked tables', 'subscriptions', 'retention', 'dead letters', 'consumers', 'launcher', 'database', 'max_worker_processes', 'secrets', 'export', 'notification queue', 'archiving', 'backup', 'alerts'],
          'the checks, each once, in order');
SELECT is_empty($$SELECT * FROM h WHERE status NOT IN ('ok', 'warning', 'error')$$, 'status is ok, warning or error');
SELECT is_empty($$SELECT * FROM h WHERE check_name IS NULL OR coalesce(value, '') = ''$$, 'every check has a value');
SELECT is_empty($$SELECT * FROM h WHERE (status = 'ok') <> (hint IS NULL) AND check_name <> 'backup'$$, 'whatever is not ok has a hint');

SELECT is(status, 'ok', 'the library is loaded') FROM h WHERE check_name = 'library';
SELECT is(value, 'version ' || prometheus_version(), 'in this version') FROM h WHERE check_name = 'library';
SELECT is(status || ' ' || value, 'ok version ' || prometheus_version(), 'the objects are of that version') FROM h WHERE check_name = 'extension';
SELECT is(status, 'ok', 'the launcher runs') FROM h WHERE check_name = 'launcher';
SELECT is(status, 'error', 'the database is not served') FROM h WHERE check_name = 'database';
SELECT ok(position(quote_literal(current_database()) in hint) > 0, 'and the hint has the line that serves it')
  FROM h WHERE check_name = 'database';
SELECT is(status, 'ok', 'there is room for the workers') FROM h WHERE check_name = 'max_worker_processes';
SELECT is(status, 'ok', 'no secrets_dir is no fault') FROM h WHERE check_name = 'secrets';

SELECT is(status || ' ' || value, 'ok off', 'no archive is no fault') FROM h WHERE check_name = 'archiving';
SELECT ok(status = 'ok' AND value = 'unknown' AND hint ~ 'archive_mode', 'without one nothing is known of backups, and that is said')
  FROM h WHERE check_name = 'backup';

SELECT * FROM finish();
ROLLBACK;
