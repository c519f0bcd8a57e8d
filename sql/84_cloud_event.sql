/*
 * An event in the form of CloudEvents 1.0, for who is not in this database.
 * Its integers are of 32 bits, so ids are strings.
 */
CREATE FUNCTION prometheus._uri(name text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN (SELECT string_agg(
               CASE WHEN c COLLATE "C" ~ '[A-Za-z0-9_.~-]' THEN c
                    ELSE regexp_replace(
                         upper(encode(convert_to(c, 'UTF8'), 'hex')),
                         '(..)', '%\1', 'g') END, '' ORDER BY n)
          FROM string_to_table(name, NULL) WITH ORDINALITY AS x (c, n));
COMMENT ON FUNCTION prometheus._uri(text) IS
    'A name as a part of a URI (RFC 3986): what is not a letter of ASCII, a digit or one of _.~- as % and two hexadecimal digits for each byte of UTF-8.';

CREATE FUNCTION @extschema@.prometheus_event_json(event prometheus.event)
RETURNS jsonb
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN jsonb_build_object(
           'specversion', '1.0',
           'id', (event).event_id::text,
           'source', '/prometheus/' || prometheus._uri(current_database()),
           'type', (event).type,
           'time', to_char((event).created_at AT TIME ZONE 'UTC',
                           'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'datacontenttype', 'application/json',
           'data', (event).data)
    || CASE WHEN (event).subject IS NULL THEN '{}'
            ELSE jsonb_build_object('subject', (event).subject) END
    || CASE WHEN (event).task_id IS NULL THEN '{}'
            ELSE jsonb_build_object('taskid', (event).task_id::text) END
    || CASE WHEN (event).agent IS NULL THEN '{}'
            ELSE jsonb_build_object('agent', (event).agent) END
    || CASE WHEN (event).caused_by IS NULL THEN '{}'
            ELSE jsonb_build_object('causedby', (event).caused_by::text) END;
COMMENT ON FUNCTION @extschema@.prometheus_event_json(prometheus.event) IS
    'An event in the JSON format of CloudEvents 1.0: specversion, id, source (/prometheus/DATABASE), type, time, datacontenttype, data, subject if it has one, and the extension attributes taskid, agent and causedby if it has them. Ids are strings.';
