/*
 * forgetting.c
 *	  Forgets what agents remember, and brings it back.
 *
 * Each is a version more, under the same lock as that of who remembers: so what
 * came first is clear, and the limit is kept.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "as_of.h"
#include "eviction.h"
#include "mark.h"
#include "memory.h"
#include "role.h"
#include "wakeup.h"
#include "xact.h"

/*
 * Read whose memory it is, and take its lock.  False if there is none that the
 * caller may see.
 */
static bool
lock(int64 memory_id, PromMemoryOwner *owner, char **kind)
{
	static const char find_sql[] =
		"SELECT m.owner, m.owner_oid, m.agent, m.kind, m.content"
		" FROM prometheus._memory m"
		" WHERE m.memory_id OPERATOR(pg_catalog.=) $1"
		" ORDER BY m.version DESC LIMIT 1";
	Oid type = INT8OID;
	Datum value = Int64GetDatum(memory_id);
	PromOwner before;
	char *content = NULL;

	owner->name = NULL;
	prom_role_become_owner(&before);
	if (prom_execute_now(find_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	if (SPI_processed > 0)
	{
		owner->name = prom_row_text(0, 1);
		owner->oid = prom_row_oid(0, 2);
		owner->agent = prom_row_text(0, 3);
		*kind = prom_row_text(0, 4);
		content = prom_row_text(0, 5);
	}
	prom_role_restore(&before);
	if (owner->name == NULL || !prom_role_may_see(owner->name, owner->oid))
		return false;
	prom_role_become_owner(&before);
	prom_memory_lock(owner, *kind, content);
	prom_role_restore(&before);
	return true;
}

/* Write the version that a statement makes of the newest one: was it made? */
static bool
write_version(const char *sql, int64 memory_id)
{
	Oid types[2] = {INT8OID, INT8OID};
	Datum values[2] = {Int64GetDatum(memory_id),
					   Int64GetDatum(prom_mark_newest())};

	if (prom_execute_now(sql, 2, types, values, NULL, false) != SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._memory");
	return SPI_processed > 0;
}

#define WRITE_VERSION(end)                                                \
	PROM_MEMORY_ADD_VERSION("$2", "NULL", "pg_catalog.clock_timestamp()", \
							"m.kind", "m.metadata", end)                  \
	PROM_MEMORY_NEWEST

#define FORGOTTEN WRITE_VERSION("true, 'forgotten', NULL")
#define RESTORED WRITE_VERSION("false, NULL, NULL")

static const char forget_sql[] = FORGOTTEN " AND NOT m.forgotten";

/* Not beside another one of the same content: that would be it twice. */
static const char restore_sql[] =
	RESTORED
	" AND m.forgotten AND (m.expires_at IS NULL OR m.expires_at"
	"   OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())"
	" AND NOT " PROM_MEMORY_IS_TWICE("m.kind");

PG_FUNCTION_INFO_V1(prom_forget);

Datum
prom_forget(PG_FUNCTION_ARGS)
{
	PromMemoryOwner owner;
	PromOwner before;
	char *kind;
	bool written = false;

	PreventCommandDuringRecovery("prometheus_forget()");
	PreventCommandIfReadOnly("prometheus_forget()");
	prom_as_of_forbid_writing();
	SPI_connect();
	if (lock(PG_GETARG_INT64(0), &owner, &kind))
	{
		prom_role_become_owner(&before);
		written = write_version(forget_sql, PG_GETARG_INT64(0));
		prom_role_restore(&before);
	}
	SPI_finish();
	PG_RETURN_BOOL(written);
}

PG_FUNCTION_INFO_V1(prom_restore_memory);

Datum
prom_restore_memory(PG_FUNCTION_ARGS)
{
	PromMemoryOwner owner;
	PromOwner before;
	char *kind;
	bool written = false;

	PreventCommandDuringRecovery("prometheus_restore_memory()");
	PreventCommandIfReadOnly("prometheus_restore_memory()");
	prom_as_of_forbid_writing();
	SPI_connect();
	if (lock(PG_GETARG_INT64(0), &owner, &kind))
	{
		prom_role_become_owner(&before);
		written = write_version(restore_sql, PG_GETARG_INT64(0));
		if (written)
		{
			prom_wakeup_memory(PG_GETARG_INT64(0));
			prom_eviction_run(&owner, kind, PG_GETARG_INT64(0));
		}
		prom_role_restore(&before);
	}
	SPI_finish();
	PG_RETURN_BOOL(written);
}
