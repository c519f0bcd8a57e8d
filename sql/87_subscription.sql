/*
 * How subscriptions are made, and what is seen of them.
 */
CREATE FUNCTION prometheus._webhook_body(event prometheus.event) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT (@extschema@.prometheus_event_json($1)
        || jsonb_build_object(
               'timestamp', @extschema@.prometheus_event_json($1) -> 'time')
       )::text;
END;
COMMENT ON FUNCTION prometheus._webhook_body(prometheus.event) IS
    'What a webhook is sent: an event as CloudEvents have it, and its time also as timestamp, which Standard Webhooks ask for.';

CREATE FUNCTION prometheus._passes(data jsonb, filter jsonpath) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN $2 IS NULL
    OR coalesce(jsonb_path_query_first($1, $2, '{}', true), 'null')
       NOT IN ('null'::jsonb, 'false'::jsonb);
COMMENT ON FUNCTION prometheus._passes(jsonb, jsonpath) IS
    'Does a filter let an event pass? What it finds first in the data must be there, and be neither false nor null; an error finds nothing.';

CREATE VIEW prometheus.subscription WITH (security_barrier) AS
SELECT s.name,
       CASE WHEN s.disabled_at IS NULL THEN 'active' ELSE 'disabled' END
           AS state,
       s.owner,
       s.handler,
       s.url,
       c.types,
       s.filter::text AS filter,
       s.ordered,
       s.timeout_ms * interval '1 ms' AS timeout,
       s.max_attempts,
       s.breaker_failures,
       (SELECT count(*) FROM prometheus._delivery d
         WHERE d.subscription = s.name AND d.status = 'waiting') AS waiting,
       (SELECT count(*) FROM prometheus._delivery d
         WHERE d.subscription = s.name AND d.status = 'dead') AS dead,
       s.subscribed_at,
       s.disabled_at,
       s.disabled_reason
  FROM prometheus._subscription s
  JOIN prometheus._consumer c ON c.name = s.name
 WHERE prometheus._may_see(s.owner, s.owner_oid);
COMMENT ON VIEW prometheus.subscription IS
    'To whom events are pushed: the subscriptions of the roles that you have; all for administrators. What is now: not a fact. Whether its gate is open, is in prometheus.gate; how far it has come, in prometheus.consumer.';
COMMENT ON COLUMN prometheus.subscription.name IS 'As given to prometheus_subscribe().';
COMMENT ON COLUMN prometheus.subscription.state IS 'active, or disabled: nothing is delivered until prometheus_subscribe() is called again; its events wait as long as prometheus.retention keeps them.';
COMMENT ON COLUMN prometheus.subscription.owner IS 'The role that made it: it is given what that role may see, and its function runs as that role.';
COMMENT ON COLUMN prometheus.subscription.handler IS 'The function that is called, by its signature; null: a webhook.';
COMMENT ON COLUMN prometheus.subscription.url IS 'Where the webhook is sent; null: a function.';
COMMENT ON COLUMN prometheus.subscription.types IS 'The types that it is given; null: all.';
COMMENT ON COLUMN prometheus.subscription.filter IS 'What an event''s data must have, as jsonpath; null: anything.';
COMMENT ON COLUMN prometheus.subscription.ordered IS 'Events of the same subject, else of the same task, are delivered one after the other.';
COMMENT ON COLUMN prometheus.subscription.timeout IS 'How long an attempt may take.';
COMMENT ON COLUMN prometheus.subscription.max_attempts IS 'Attempts until a delivery is a dead letter.';
COMMENT ON COLUMN prometheus.subscription.breaker_failures IS
    'Failures in a row that close its gate.';
COMMENT ON COLUMN prometheus.subscription.waiting IS 'Deliveries that wait for their first attempt, or another one.';
COMMENT ON COLUMN prometheus.subscription.dead IS 'Dead letters.';
COMMENT ON COLUMN prometheus.subscription.subscribed_at IS 'When it was made, or last made anew.';
COMMENT ON COLUMN prometheus.subscription.disabled_at IS 'Since when it is disabled.';
COMMENT ON COLUMN prometheus.subscription.disabled_reason IS 'Why.';

CREATE VIEW prometheus.delivery WITH (security_barrier) AS
SELECT d.delivery_id, d.subscription, d.event_id, d.task_id, d.status,
       d.attempts, d.started_at, d.ended_at,
       d.duration_ms * interval '1 ms' AS duration,
       CASE WHEN d.status = 'waiting' THEN d.next_at END AS next_at,
       d.http_status, s.owner AS run_as, d.error, d.result, d.created_at
  FROM prometheus._delivery d
  JOIN prometheus._subscription s ON s.name = d.subscription
 WHERE prometheus._may_see(s.owner, s.owner_oid);
COMMENT ON VIEW prometheus.delivery IS
    'What came of events that were pushed to subscriptions that you may see: one row for an event and a subscription. What is now: not a fact.';
COMMENT ON COLUMN prometheus.delivery.delivery_id IS 'Its id.';
COMMENT ON COLUMN prometheus.delivery.subscription IS 'To whom.';
COMMENT ON COLUMN prometheus.delivery.event_id IS 'Which event.';
COMMENT ON COLUMN prometheus.delivery.task_id IS 'The event''s task; null: none.';
COMMENT ON COLUMN prometheus.delivery.status IS 'waiting (for its first attempt, or another one), delivered, dead (a dead letter), or discarded.';
COMMENT ON COLUMN prometheus.delivery.attempts IS 'Attempts that counted: not those that were told to come later (429).';
COMMENT ON COLUMN prometheus.delivery.started_at IS 'When the last attempt began.';
COMMENT ON COLUMN prometheus.delivery.ended_at IS 'When it was delivered, given up or discarded.';
COMMENT ON COLUMN prometheus.delivery.duration IS 'How long the last attempt took.';
COMMENT ON COLUMN prometheus.delivery.next_at IS 'When it is due.';
COMMENT ON COLUMN prometheus.delivery.http_status IS 'Of the last response of a webhook.';
COMMENT ON COLUMN prometheus.delivery.run_as IS 'The role that the function runs as.';
COMMENT ON COLUMN prometheus.delivery.error IS 'Why the last attempt failed.';
COMMENT ON COLUMN prometheus.delivery.result IS 'What the function returned, or the webhook was answered, up to 1,000 bytes.';
COMMENT ON COLUMN prometheus.delivery.created_at IS 'When the event was taken for the subscription.';

CREATE VIEW prometheus.dead_letter WITH (security_barrier) AS
SELECT d.subscription,
       d.fingerprint,
       count(*) AS deliveries,
       min(d.ended_at) AS first_at,
       max(d.ended_at) AS last_at,
       min(d.event_id) AS first_event_id,
       max(d.event_id) AS last_event_id,
       (array_agg(d.error ORDER BY d.ended_at DESC))[1] AS error
  FROM prometheus._delivery d
  JOIN prometheus._subscription s ON s.name = d.subscription
 WHERE d.status = 'dead' AND prometheus._may_see(s.owner, s.owner_oid)
 GROUP BY d.subscription, d.fingerprint;
COMMENT ON VIEW prometheus.dead_letter IS
    'Deliveries that were given up, by subscription and error. What is now: not a fact. prometheus_redrive() delivers them again, prometheus_discard() takes them away.';
COMMENT ON COLUMN prometheus.dead_letter.subscription IS 'To whom.';
COMMENT ON COLUMN prometheus.dead_letter.fingerprint IS 'Of the error: the same for errors that differ in their numbers only.';
COMMENT ON COLUMN prometheus.dead_letter.deliveries IS 'How many.';
COMMENT ON COLUMN prometheus.dead_letter.first_at IS 'When the first of them was given up.';
COMMENT ON COLUMN prometheus.dead_letter.last_at IS 'When the last of them was.';
COMMENT ON COLUMN prometheus.dead_letter.first_event_id IS 'The lowest id of their events.';
COMMENT ON COLUMN prometheus.dead_letter.last_event_id IS 'The highest.';
COMMENT ON COLUMN prometheus.dead_letter.error IS 'The error of the last of them.';

CREATE FUNCTION @extschema@.prometheus_subscribe(
    name text,
    handler regprocedure DEFAULT NULL,
    url text DEFAULT NULL,
    types text[] DEFAULT NULL,
    secret text DEFAULT NULL,
    filter jsonpath DEFAULT NULL,
    ordered boolean DEFAULT false,
    timeout interval DEFAULT '10 s',
    max_attempts integer DEFAULT 8,
    breaker_failures integer DEFAULT 5)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_subscribe';
COMMENT ON FUNCTION @extschema@.prometheus_subscribe(
    text, regprocedure, text, text[], text, jsonpath, boolean, interval,
    integer, integer) IS
    'Pushes events that are committed from now on, and that its owner, the caller, may see, to a function f(prometheus.event) or to a webhook. handler: runs as the owner, in a transaction with the record that it was delivered; an error is tried again. url: https (http at private addresses, which need prometheus.allow_private_endpoints), for administrators; signed as Standard Webhooks say with secret, which names where whsec_... is: NAME or env:NAME. types: as in prometheus.event; shop.* stands for all that begin with shop. and * for all. filter: a jsonpath over the data, which must find something other than false and null. ordered: events of the same subject, else of the same task, one after the other. timeout: of an attempt, 1 ms to 1 hour. max_attempts: 1 to 100, until it is a dead letter. breaker_failures: 1 to 1000 in a row close its gate. On a name that exists all of this is replaced, but its position and what waits stay, and it is enabled. Raises invalid_parameter_value, null_value_not_allowed, insufficient_privilege, duplicate_object (a consumer has the name), program_limit_exceeded (prometheus.max_subscriptions of the caller, or 256 of all).';

CREATE FUNCTION @extschema@.prometheus_unsubscribe(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_unsubscribe';
COMMENT ON FUNCTION @extschema@.prometheus_unsubscribe(text) IS
    'Removes a subscription and its deliveries; what its function does just then is rolled back, unless it was the function that called this. The events stay. Raises undefined_object, insufficient_privilege.';

CREATE FUNCTION @extschema@.prometheus_redrive(
    name text,
    fingerprint text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_redrive';
COMMENT ON FUNCTION @extschema@.prometheus_redrive(text, text) IS
    'Delivers the dead letters of a subscription again, those of one fingerprint or all, with all their attempts. Raises as prometheus_unsubscribe() does.';

CREATE FUNCTION @extschema@.prometheus_discard(
    name text,
    fingerprint text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_discard';
COMMENT ON FUNCTION @extschema@.prometheus_discard(text, text) IS
    'Takes the dead letters of a subscription away, those of one fingerprint or all: they stay in prometheus.delivery as discarded. Raises as prometheus_unsubscribe() does.';
