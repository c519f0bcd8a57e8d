-- What prometheus.worker, prometheus.queue and prometheus_version() say in a
-- database without workers; t/ has those with.
BEGIN;
SELECT plan(10);

SELECT columns_are('prometheus', 'worker', ARRAY['role', 'pid', 'state', 'started_at', 'in_flight', 'task_id']);
SELECT is((SELECT array_agg(role) FROM prometheus.worker), ARRAY['launcher'], 'only the launcher runs');
SELECT is(w.pid, a.pid, 'its pid is that of pg_stat_activity')
  FROM prometheus.worker w, pg_stat_activity a WHERE a.backend_type = 'prometheus launcher';
SELECT ok(started_at <= now(), 'it started before') FROM prometheus.worker;
SELECT ok(state IN ('busy', 'idle'), 'it is busy or idle') FROM prometheus.worker;

SELECT is_empty('TABLE prometheus.queue', 'nothing is queued');
SELECT lives_ok('SELECT prometheus._installed()', 'the launcher can be told twice that the extension is there');

SELECT is(prometheus_version(), (SELECT default_version FROM pg_available_extensions WHERE name = 'prometheus'),
          'the library is the one that belongs to the scripts');
SELECT is(prometheus_version(), (SELECT extversion FROM pg_extension WHERE extname = 'prometheus'),
          'and to the objects in this database');
SELECT is((SELECT concat_ws(' ', provolatile, proparallel) FROM pg_proc WHERE proname = 'prometheus_version'), 's s',
          'version is stable and parallel safe');

SELECT * FROM finish();
ROLLBACK;
