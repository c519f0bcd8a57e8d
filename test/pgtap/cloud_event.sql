-- prometheus_event_json(): CloudEvents 1.0, field by field.
BEGIN;
SELECT plan(5);

SELECT prometheus_emit('shop.order.paid', '{"order": 7}', 'order/7') AS paid \gset
SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT is(prometheus_event_json(e) - 'time', jsonb_build_object(
           'specversion', '1.0', 'id', :'paid', 'source', '/prometheus/' || current_database(), 'type', 'shop.order.paid',
           'subject', 'order/7', 'datacontenttype', 'application/json', 'data', '{"order": 7}'::jsonb), 'an emitted event')
  FROM prometheus.event e WHERE event_id = :paid;
SELECT ok(prometheus_event_json(e) ->> 'time' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$'
          AND (prometheus_event_json(e) ->> 'time')::timestamptz = created_at, 'its time is of RFC 3339')
  FROM prometheus.event e WHERE event_id = :paid;
SELECT is(prometheus_event_json(ROW(5, 'task.received', 6, 'mine', NULL, '2026-01-01 00:00+00', '{"a": null}', 4)::prometheus.event),
          jsonb_build_object('specversion', '1.0', 'id', '5', 'source', '/prometheus/' || current_database(), 'type', 'task.received',
          'time', '2026-01-01T00:00:00.000000Z', 'datacontenttype', 'application/json', 'data', '{"a": null}'::jsonb,
          'taskid', '6', 'agent', 'mine', 'causedby', '4'), 'one of a task; a null in its data stays');
SELECT is(prometheus._uri('A-z_0.9~ ä/ß'), 'A-z_0.9~%20%C3%A4%2F%C3%9F', 'names in the source');
SELECT is(prometheus_event_json(NULL), NULL, 'none');

SELECT * FROM finish();
ROLLBACK;
