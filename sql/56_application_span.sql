/*
 * Spans of applications.  They are in the session's memory while they are open,
 * go through shared memory, and are written by the publisher: so they stay,
 * whatever becomes of the transaction that they are of.  src/span.c.
 */
CREATE TABLE prometheus._span (
    span_id bigint NOT NULL,
    parent_span_id bigint,
    xid xid8 NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    task_id bigint,
    owner_oid oid NOT NULL,
    trace_id uuid NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    error_type text,
    traceparent text,
    attributes jsonb NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);
CREATE INDEX _span_ended ON prometheus._span (ended_at);
CREATE INDEX _span_xid ON prometheus._span (xid);
COMMENT ON TABLE prometheus._span IS
    'The spans of applications that have ended. task_id: the task in whose tool it was begun; null: in none, or with a traceparent. traceparent: that one was started with; null: none. error_type: why it ended, if nobody ended it: rollback, abandoned.';

CREATE FUNCTION prometheus._span_attributes(
    attributes jsonb,
    status text,
    error_type text,
    owner text)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN attributes || jsonb_strip_nulls(jsonb_build_object(
    'error.type',
    CASE WHEN status = 'error'
         THEN coalesce(error_type, attributes ->> 'error.type', '_OTHER') END,
    'prometheus.owner', owner));
COMMENT ON FUNCTION prometheus._span_attributes(jsonb, text, text, text) IS
    'The attributes of a span of an application, as others are shown them.';

CREATE FUNCTION @extschema@.prometheus_span_start(
    name text,
    attributes jsonb DEFAULT '{}',
    traceparent text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_span_start';
COMMENT ON FUNCTION @extschema@.prometheus_span_start(text, jsonb, text) IS
    'Begins a span of this session and returns its traceparent (W3C Trace Context), which prometheus_span_end() is given. It is a part of the span in traceparent, else of the newest open one of the session, else, in a tool, of the task, else the root of a trace of its own. Tasks that the session submits meanwhile without a traceparent are a part of it. It is seen in prometheus.span a moment after its end, also if the transaction is rolled back; that ends it, if it was begun in it, as an error of type rollback, and the end of the session does as one of type abandoned. name: 1 to 200 bytes. attributes: an object of up to 2000 bytes of jsonb, and 8000 of text; error.type is the type of the error. A session may have 64 open. When more than 512 wait to be written, or the database is not served, spans are dropped. Raises invalid_parameter_value, null_value_not_allowed, program_limit_exceeded.';

CREATE FUNCTION @extschema@.prometheus_span_end(
    span text,
    status text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_span_end';
COMMENT ON FUNCTION @extschema@.prometheus_span_end(text, text) IS
    'Ends a span of this session, now, whatever becomes of the transaction. status: ok (the default), error or unset. Of one that a rollback has ended it does nothing. Raises undefined_object for a span that is not open in this session, invalid_parameter_value, null_value_not_allowed.';

CREATE FUNCTION @extschema@.prometheus_traceparent() RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_traceparent';
COMMENT ON FUNCTION @extschema@.prometheus_traceparent() IS
    'The traceparent (W3C Trace Context) of what the session is in, to be passed on to others: its newest open span, else, in a tool, the task; null: neither.';

CREATE FUNCTION prometheus._span_counts(
    OUT open bigint,
    OUT waiting bigint,
    OUT dropped bigint)
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_span_counts';
COMMENT ON FUNCTION prometheus._span_counts() IS
    'Of the spans of applications in this database: how many are open, wait to be written, and were dropped since the server''s start; null: it is not served.';
