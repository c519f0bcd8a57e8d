/*
 * What was sent to a model.
 */
CREATE FUNCTION @extschema@.prometheus_prompt(task_id bigint, step integer)
RETURNS jsonb
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prom_prompt';
COMMENT ON FUNCTION @extschema@.prometheus_prompt(bigint, integer) IS
    'The body of the request that a step sent to its model: instructions, the turns of the conversation before, results of the tasks that it depends on, the request, and the model''s options; of an echo only the messages. It is made again from the facts, and is what was sent, but for turns of before that retention has deleted; no key is in it. Raises undefined_object for a task that is unknown or not the caller''s, a step that it has not, or a summary of turns that retention has deleted, and invalid_parameter_value for a step that sent nothing to a model.';
