/*
 * idempotency.c
 *	  Lets one key of one submitter stand for one task.
 *
 * A key is a row of its own, unique for submitter and key: a second
 * transaction waits for the first, and then has its task.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "idempotency.h"
#include "role.h"
#include "task.h"
#include "xact.h"

static const char insert_sql[] =
	"INSERT INTO prometheus._idempotency"
	" (submitter, submitter_oid, key, task_id, xid)"
	" VALUES ($1, $2, $3, $4, prometheus._xid())"
	" ON CONFLICT (submitter, submitter_oid, key) DO NOTHING";

/* The task that has the key, and whether it is the same request. */
static const char read_sql[] =
	"SELECT i.task_id, t.request OPERATOR(pg_catalog.=) $4"
	" AND t.agent OPERATOR(pg_catalog.=) $5"
	" AND t.mode OPERATOR(pg_catalog.=) $6"
	" AND coalesce(t.depends_on, '{}') OPERATOR(pg_catalog.=) coalesce($7, '{}')"
	" AND coalesce(t.output_schema, 'null') OPERATOR(pg_catalog.=)"
	" coalesce($8, 'null')"
	" FROM prometheus._idempotency i JOIN prometheus._task t"
	" ON t.task_id OPERATOR(pg_catalog.=) i.task_id"
	" WHERE i.submitter OPERATOR(pg_catalog.=) $1"
	" AND i.submitter_oid OPERATOR(pg_catalog.=) $2"
	" AND i.key OPERATOR(pg_catalog.=) $3";

static void
check_key(const char *key)
{
	if (*key == '\0' || strlen(key) > PROM_MAX_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an idempotency key must have 1 to %d bytes",
						PROM_MAX_KEY)));
}

/* The task that has the key already; raises if it is another request. */
static int64
read_claim(const char *key, const Datum *claim, const Datum *task,
		   const char *request)
{
	Oid types[8] = {TEXTOID, OIDOID, TEXTOID, TEXTOID,
					TEXTOID, TEXTOID, INT8ARRAYOID, JSONBOID};
	Datum values[8] = {claim[0], claim[1], claim[2],
					   CStringGetTextDatum(request), task[TASK_AGENT],
					   task[TASK_MODE], task[TASK_DEPENDS_ON],
					   task[TASK_OUTPUT_SCHEMA]};
	char nulls[8];
	int64 task_id;

	/* The last two are pointers, NULL where there is nothing. */
	for (int i = 0; i < 8; i++)
		nulls[i] = i >= 6 && DatumGetPointer(values[i]) == NULL ? 'n' : ' ';
	if (prom_execute_now(read_sql, 8, types, values, nulls, true) !=
			SPI_OK_SELECT ||
		SPI_processed == 0)
		elog(ERROR, "could not read prometheus._idempotency");
	task_id = prom_row_int64(0, 1);
	if (!prom_row_bool(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("idempotency key \"%s\" was used for another request",
						key),
				 errdetail("Task %lld has it, with another request, agent, mode, output_schema or depends_on.",
						   (long long) task_id),
				 errhint("Use a key of its own for each request.")));
	return task_id;
}

int64
prom_idempotency_claim(PromFactWriter *writer, const char *key, int64 task_id,
					   const Datum *task, const char *request)
{
	Oid types[4] = {TEXTOID, OIDOID, TEXTOID, INT8OID};
	Datum values[4];
	PromOwner owner;

	check_key(key);
	values[0] = task[TASK_SUBMITTER];
	values[1] = task[TASK_SUBMITTER_OID];
	values[2] = CStringGetTextDatum(key);
	values[3] = Int64GetDatum(task_id);
	SPI_connect();
	prom_role_become_owner(&owner);
	if (SPI_execute_with_args(insert_sql, 4, types, values, NULL, false, 0) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._idempotency");
	if (SPI_processed == 0)
	{
		/* It may be a task of this very call. */
		prom_fact_flush(writer);
		task_id = read_claim(key, values, task, request);
	}
	prom_role_restore(&owner);
	SPI_finish();
	return task_id;
}
