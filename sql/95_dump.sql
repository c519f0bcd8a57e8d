/*
 * What pg_dump takes along: every fact, and the sequences of their ids.  Not
 * checkpoints (they are of one server), nor lists of memories, which are begun
 * anew, and not what this script inserted.
 * One statement each: several in one SELECT update the same tuple.
 */
SELECT pg_catalog.pg_extension_config_dump('prometheus._era', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._mark', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._mark_name', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._horizon', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._task', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._attempt', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._call', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._step', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._outcome', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._cancel', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._retry', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._idempotency', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._strike', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._verdict', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._approval', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._decision', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._event', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._span', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._span_position', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._kept_trace', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._consumer', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._subscription', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._delivery', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._model', 'WHERE NOT (name = ''echo'' AND version = 1)');
SELECT pg_catalog.pg_extension_config_dump('prometheus._tool', 'WHERE kind <> ''builtin''');
SELECT pg_catalog.pg_extension_config_dump('prometheus._memory', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._memory_use', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._evidence', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._embedding', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._memory_embedding', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._embedding_call', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._evolution', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._state', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._state_failure', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._policy', 'WHERE NOT ((name LIKE ''justica.%'' OR name = ''sofia'') AND version = 1)');
SELECT pg_catalog.pg_extension_config_dump('prometheus._budget', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._threshold', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._agent', 'WHERE NOT (name = ''default'' AND version = 1)');
SELECT pg_catalog.pg_extension_config_dump('prometheus._audit_verdict', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._audit_approval', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._audit_usage', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._track', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._row_version', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._row_version_id', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._task_id', '');
SELECT pg_catalog.pg_extension_config_dump('prometheus._fact_id', '');

-- After the commit the workers may begin.
SELECT prometheus._installed();
