/*
 * JSON Schema: src/schema.c says which keywords are obeyed, src/mismatch.c
 * holds answers against them.
 */
CREATE FUNCTION prometheus._schema_mismatch(schema jsonb, answer text)
RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'prom_mismatch';
COMMENT ON FUNCTION prometheus._schema_mismatch(jsonb, text) IS
    'How an answer fails to fit an output_schema, as the error of a task says it after "answer"; null: it fits. Raises invalid_parameter_value for a schema that prometheus_submit() would refuse. For superusers, to try schemas and old answers.';
