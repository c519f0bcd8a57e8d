/*
 * contradiction.c
 *	  A memory that turned out wrong gives way to what is true.
 *
 * The old one gets a version that says by which memory it was superseded, and
 * can be brought back; the new one says in its metadata which it supersedes.
 * Identity and what is pinned were set by people: a model that was told them
 * cannot change them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "as_of.h"
#include "contradiction.h"
#include "fact.h"
#include "mark.h"
#include "role.h"
#include "xact.h"

/* Of whom it is, and what of it the new one has. */
typedef struct Old
{
	PromMemoryOwner owner;
	char *kind;
	char *content;
	bool is_fixed;
	PromMemory new;
} Old;

/*
 * What was consolidated is replaced by what has yet to prove itself, and is no
 * surer than others.
 */
static const char find_sql[] =
	"SELECT m.owner, m.owner_oid, m.agent, m.kind, m.content,"
	" m.importance::pg_catalog.float8,"
	" CASE WHEN m.kind OPERATOR(pg_catalog.<>) 'vault' THEN m.kind"
	"   WHEN m.metadata OPERATOR(pg_catalog.->>) 'consolidated_from'"
	"     OPERATOR(pg_catalog.=) 'procedural' THEN 'procedural'"
	"   ELSE 'semantic' END,"
	" (m.metadata OPERATOR(pg_catalog.-)"
	"     '{consolidated_from,confidence,source,task_id}'::pg_catalog.text[])"
	"   OPERATOR(pg_catalog.||)"
	"   pg_catalog.jsonb_build_object('supersedes', m.memory_id)"
	"   OPERATOR(pg_catalog.||) CASE WHEN $2 OPERATOR(pg_catalog.>) 0"
	"     THEN pg_catalog.jsonb_build_object('source', 'reflection',"
	"       'task_id', $2) ELSE '{}' END,"
	" m.kind OPERATOR(pg_catalog.=) 'core' OR " PROM_MEMORY_IS_PINNED
	" FROM prometheus._memory m" PROM_MEMORY_NEWEST
	"   AND NOT m.forgotten AND (m.expires_at IS NULL OR m.expires_at"
	"     OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())";

#define SUPERSEDED                                                      \
	PROM_MEMORY_ADD_VERSION("$2", "$3", "pg_catalog.clock_timestamp()", \
							"m.kind", "m.metadata",                     \
							"true, 'superseded', $4")

static const char supersede_sql[] = SUPERSEDED PROM_MEMORY_NEWEST;

/* False: there is none that is remembered. */
static bool
find(int64 memory_id, int64 task_id, Old *old)
{
	Oid types[2] = {INT8OID, INT8OID};
	Datum values[2] = {Int64GetDatum(memory_id), Int64GetDatum(task_id)};

	memset(old, 0, sizeof(*old));
	if (prom_execute_now(find_sql, 2, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	if (SPI_processed == 0)
		return false;
	old->owner.name = prom_row_text(0, 1);
	old->owner.oid = prom_row_oid(0, 2);
	old->owner.agent = prom_row_text(0, 3);
	old->kind = prom_row_text(0, 4);
	old->content = prom_row_text(0, 5);
	old->new.importance = (float4) prom_row_float8(0, 6);
	old->new.kind = prom_row_text(0, 7);
	old->new.metadata = prom_row_jsonb_or_null(0, 8);
	old->new.task_id = task_id;
	old->is_fixed = prom_row_bool(0, 9);
	return true;
}

static void
supersede(int64 memory_id, const Old *old)
{
	Oid types[4] = {INT8OID, INT8OID, INT8OID, INT8OID};
	Datum values[4] = {Int64GetDatum(memory_id),
					   Int64GetDatum(prom_mark_newest()),
					   Int64GetDatum(old->new.task_id),
					   Int64GetDatum(old->new.id)};
	char nulls[5] = "    ";

	nulls[2] = old->new.task_id == 0 ? 'n' : ' ';
	if (prom_execute_now(supersede_sql, 4, types, values, nulls, false) !=
			SPI_OK_INSERT ||
		SPI_processed == 0)
		elog(ERROR, "could not write prometheus._memory");
}

/*
 * What may be written: the new one may be in the vault, too.  It was read
 * before it was locked, and may have been consolidated since.
 */
static bool
lock(int64 memory_id, Old *old)
{
	const char *content = old->new.content;
	const char *kind;

	do
	{
		PromMemoryKey keys[] = {{old->new.kind, content},
								{old->kind, old->content},
								{"vault", content}};
		bool is_vault = strcmp(old->kind, "vault") == 0;

		kind = old->kind;
		prom_memory_lock_all(&old->owner, keys, is_vault ? 3 : 2);
		if (!find(memory_id, old->new.task_id, old))
			return false;
		old->new.content = content;
	} while (strcmp(old->kind, kind) != 0);
	return true;
}

/* The old one first: so it makes room for the new one. */
static int64
replace(int64 memory_id, Old *old)
{
	if (!lock(memory_id, old) || (old->new.task_id != 0 && old->is_fixed))
		return 0;
	old->new.id = prom_memory_known(&old->owner, &old->new);
	if (old->new.id == 0)
		old->new.id = prom_fact_next_id();
	supersede(memory_id, old);
	return prom_memory_add(&old->owner, &old->new);
}

int64
prom_contradiction_settle(const PromMemoryOwner *owner, int64 memory_id,
						  const char *content, int64 task_id)
{
	Old old;

	if (!find(memory_id, task_id, &old) || old.owner.oid != owner->oid ||
		strcmp(old.owner.name, owner->name) != 0 ||
		strcmp(old.owner.agent, owner->agent) != 0 ||
		strcmp(old.content, content) == 0 || old.is_fixed)
		return 0;
	old.new.content = content;
	return replace(memory_id, &old);
}

PG_FUNCTION_INFO_V1(prom_supersede_memory);

Datum
prom_supersede_memory(PG_FUNCTION_ARGS)
{
	int64 memory_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	char *content = PG_ARGISNULL(1) ? ""
									: text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid user = GetUserId();
	PromOwner before;
	int64 id = 0;
	Old old;

	PreventCommandDuringRecovery("prometheus_supersede_memory()");
	PreventCommandIfReadOnly("prometheus_supersede_memory()");
	prom_as_of_forbid_writing();
	SPI_connect();
	prom_role_become_owner(&before);
	if (find(memory_id, 0, &old) && old.owner.oid == user &&
		prom_role_is(old.owner.name, user))
	{
		if (strcmp(old.content, content) == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("memory %lld says the same already",
								   (long long) memory_id)));
		old.new.content = content;
		id = replace(memory_id, &old);
	}
	prom_role_restore(&before);
	SPI_finish();
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("you have no memory %lld, or it is forgotten",
						(long long) memory_id),
				 errhint("prometheus.memory has those that you have.")));
	PG_RETURN_INT64(id);
}
