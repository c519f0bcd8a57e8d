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

/* Whose memory it is; what of it is locked. */
typedef struct Found
{
	PromMemoryOwner owner;
	char *kind;
	char *known_as; /* the kind before it was consolidated */
	char *content;
} Found;

/* The kind as which a memory is known: that before it was consolidated. */
#define KNOWN_AS(m)                                            \
	"CASE WHEN " m ".kind OPERATOR(pg_catalog.=) 'vault' THEN" \
	"   coalesce(" m ".metadata OPERATOR(pg_catalog.->>)"      \
	"     'consolidated_from', 'vault') ELSE " m ".kind END"
#define M_KNOWN_AS KNOWN_AS("m")
#define S_KNOWN_AS KNOWN_AS("s")

/* Is another one s of the same kind, or was it? */
#define ALIKE                                     \
	"(s.kind OPERATOR(pg_catalog.=) m.kind"       \
	"   OR " S_KNOWN_AS " OPERATOR(pg_catalog.=)" \
	"     " M_KNOWN_AS ")"

/* False if there is none. */
static bool
find(int64 memory_id, Found *found)
{
	static const char find_sql[] =
		"SELECT m.owner, m.owner_oid, m.agent, m.kind, m.content," M_KNOWN_AS
		" FROM prometheus._memory m"
		" WHERE m.memory_id OPERATOR(pg_catalog.=) $1"
		" ORDER BY m.version DESC LIMIT 1";
	Oid type = INT8OID;
	Datum value = Int64GetDatum(memory_id);

	if (prom_execute_now(find_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	if (SPI_processed == 0)
		return false;
	found->owner.name = prom_row_text(0, 1);
	found->owner.oid = prom_row_oid(0, 2);
	found->owner.agent = prom_row_text(0, 3);
	found->kind = prom_row_text(0, 4);
	found->content = prom_row_text(0, 5);
	found->known_as = prom_row_text(0, 6);
	return true;
}

/*
 * Take its lock; again if it was consolidated before we had it.  False: it is
 * gone.
 */
static bool
lock_found(int64 memory_id, Found *found)
{
	const char *kind;

	do
	{
		PromMemoryKey keys[] = {{found->known_as, found->content},
								{found->kind, found->content}};

		kind = found->kind;
		prom_memory_lock_all(&found->owner, keys, lengthof(keys));
		if (!find(memory_id, found))
			return false;
	} while (strcmp(found->kind, kind) != 0);
	return true;
}

/* False if there is none that the caller may see. */
static bool
lock(int64 memory_id, Found *found)
{
	PromOwner before;
	bool is_there;

	prom_role_become_owner(&before);
	is_there = find(memory_id, found);
	prom_role_restore(&before);
	if (!is_there || !prom_role_may_see(found->owner.name, found->owner.oid))
		return false;
	prom_role_become_owner(&before);
	is_there = lock_found(memory_id, found);
	prom_role_restore(&before);
	return is_there;
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
	" AND NOT " PROM_MEMORY_IS_TWICE(ALIKE);

PG_FUNCTION_INFO_V1(prom_forget);

Datum
prom_forget(PG_FUNCTION_ARGS)
{
	PromOwner before;
	Found found;
	bool written = false;

	PreventCommandDuringRecovery("prometheus_forget()");
	PreventCommandIfReadOnly("prometheus_forget()");
	prom_as_of_forbid_writing();
	SPI_connect();
	if (lock(PG_GETARG_INT64(0), &found))
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
	PromOwner before;
	Found found;
	bool written = false;

	PreventCommandDuringRecovery("prometheus_restore_memory()");
	PreventCommandIfReadOnly("prometheus_restore_memory()");
	prom_as_of_forbid_writing();
	SPI_connect();
	if (lock(PG_GETARG_INT64(0), &found))
	{
		prom_role_become_owner(&before);
		written = write_version(restore_sql, PG_GETARG_INT64(0));
		if (written)
		{
			prom_wakeup_memory(PG_GETARG_INT64(0));
			prom_eviction_run(&found.owner, found.kind, PG_GETARG_INT64(0),
							  true);
		}
		prom_role_restore(&before);
	}
	SPI_finish();
	PG_RETURN_BOOL(written);
}
