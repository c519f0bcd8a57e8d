/*
 * What can be seen of a task while it runs.
 */
CREATE FUNCTION @extschema@.prometheus_progress(
    task_id bigint, OUT step integer, OUT kind text, OUT text text,
    OUT tokens_out bigint, OUT elapsed interval)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'prom_progress';
COMMENT ON FUNCTION @extschema@.prometheus_progress(bigint) IS
    'What a task is at while it runs, from shared memory: the step that is being made and its kind, of a reply that is streamed the text so far (its last 8 kB) and about how many tokens that is, and since when the step is under way. No row for a task that does not run. Raises undefined_object for a task that is unknown or not the caller''s.';
