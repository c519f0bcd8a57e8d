/*
 * Subscriptions: events are pushed to a function or a webhook.  How far one has
 * come is a consumer's position (sql/86_consumer.sql); each event that it is
 * given is a delivery.  src/subscription.c, src/distribution.c, src/delivery.c.
 */
CREATE TABLE prometheus._subscription (
    name text NOT NULL PRIMARY KEY,
    owner_oid oid NOT NULL,
    owner text NOT NULL,
    subscribed_at timestamptz NOT NULL,
    ordered boolean NOT NULL,
    timeout_ms bigint NOT NULL,
    max_attempts integer NOT NULL,
    breaker_failures integer NOT NULL,
    handler text,
    search_path text NOT NULL,
    url text,
    secret text,
    filter jsonpath,
    disabled_at timestamptz,
    disabled_reason text
);
COMMENT ON TABLE prometheus._subscription IS
    'To whom events are pushed; changed in place. handler: the signature of a function; url: of a webhook, whose secret is only named. Its types and its position are those of the consumer of the same name. disabled_at: nothing is delivered since then, and events wait.';

CREATE TABLE prometheus._delivery (
    delivery_id bigint NOT NULL PRIMARY KEY,
    event_id bigint NOT NULL,
    task_id bigint,
    created_at timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    struck_at timestamptz,
    duration_ms double precision,
    attempts integer NOT NULL,
    strikes integer NOT NULL,
    mark_id bigint NOT NULL,
    http_status integer,
    status text NOT NULL,
    subscription text NOT NULL,
    key text,
    fingerprint text,
    error text,
    result text,
    UNIQUE (subscription, event_id)
);
CREATE INDEX _delivery_due
    ON prometheus._delivery (subscription, next_at, delivery_id)
    WHERE status = 'waiting' AND key IS NULL;
CREATE INDEX _delivery_key
    ON prometheus._delivery (subscription, key, delivery_id)
    WHERE status = 'waiting' AND key IS NOT NULL;
CREATE INDEX _delivery_dead
    ON prometheus._delivery (subscription, fingerprint)
    WHERE status = 'dead';
CREATE INDEX _delivery_task ON prometheus._delivery (task_id)
    WHERE task_id IS NOT NULL;
CREATE INDEX _delivery_dead_task ON prometheus._delivery (task_id)
    WHERE status = 'dead' AND task_id IS NOT NULL;
CREATE INDEX _delivery_ended ON prometheus._delivery (ended_at)
    WHERE ended_at IS NOT NULL;
COMMENT ON TABLE prometheus._delivery IS
    'One event for one subscription, and what came of it; changed in place. status: waiting, delivered, dead, discarded. key: of those with the same one the first that waits is delivered. strikes: crashes of the server while its function ran. fingerprint: of errors that are the same but for their numbers. mark_id: a mark that does not see its event; retention does not go past it while it waits.';
