/*
 * setting.c
 *	  Writes and reads versions of named things.
 *
 * Setting writes a new version, dense from 1, under a lock of that name held
 * to the end of the transaction; the newest version is what counts.  The
 * functions run as the caller, who must be a member of the admin role, and
 * become the extension's owner only around their own statements, in which
 * every name and operator is qualified.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "mark.h"
#include "setting.h"
#include "shmem.h"

/* Columns of every kind, before its own: $1 to $5 of an insertion. */
#define COMMON 5

static MemoryContext kept_context = NULL;
static uint64 generation = 1;
static int nkept;

void
prom_setting_check(const PromSettingKind *kind, const char *function,
				   const char *name)
{
	prom_role_require_admin(function);
	PreventCommandDuringRecovery(psprintf("%s()", function));
	PreventCommandIfReadOnly(psprintf("%s()", function));
	if (name == NULL || *name == '\0' || strlen(name) > PROM_MAX_NAME)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the name of %s must have 1 to %d bytes",
							   kind->called, PROM_MAX_NAME)));
}

Oid
prom_setting_relation(const PromSettingKind *kind)
{
	return get_relname_relid(kind->table,
							 get_namespace_oid("prometheus", false));
}

bool
prom_setting_may_act_as_owner(const PromSetting *setting)
{
	char *now = GetUserNameFromId(setting->owner_oid, true);

	if (superuser_arg(setting->before.user))
		return true;
	return now != NULL && strcmp(now, setting->owner) == 0 &&
		   has_privs_of_role(setting->before.user, setting->owner_oid);
}

void
prom_setting_begin(PromSetting *setting, const PromSettingKind *kind,
				   const char *name)
{
	Oid relid = prom_setting_relation(kind);
	uint32 hash = hash_bytes((const unsigned char *) name, strlen(name));
	MemoryContext context = CurrentMemoryContext;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	HeapTuple row;
	TupleDesc desc;
	bool isnull;

	memset(setting, 0, sizeof(*setting));
	setting->kind = kind;
	setting->name = name;
	LockDatabaseObject(relid, hash, 0, ShareUpdateExclusiveLock);
	SPI_connect();
	prom_role_become_owner(&setting->before);
	if (prom_execute_now(
			psprintf("SELECT version, owner_oid, owner, options, %s, mark FROM prometheus.%s"
					 " WHERE name OPERATOR(pg_catalog.=) $1 ORDER BY version DESC LIMIT 1",
					 kind->columns, kind->table),
			1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus.%s", kind->table);
	if (SPI_processed == 0)
		return;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	setting->exists = true;
	setting->version = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	setting->owner_oid = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	setting->owner = MemoryContextStrdup(context, SPI_getvalue(row, desc, 3));
	setting->options = DatumGetJsonbPCopy(SPI_getbinval(row, desc, 4, &isnull));
	for (int i = 0; i < kind->ncolumns; i++)
	{
		char *text = SPI_getvalue(row, desc, COMMON + i);

		setting->columns[i] = text == NULL ? NULL
										   : MemoryContextStrdup(context, text);
	}
	setting->mark = DatumGetInt64(
		SPI_getbinval(row, desc, COMMON + kind->ncolumns, &isnull));
}

void
prom_setting_leave(PromSetting *setting)
{
	SPI_finish();
	prom_role_restore(&setting->before);
}

bool
prom_setting_read(const PromSetting *setting, int64 version, char **texts)
{
	Oid types[2] = {TEXTOID, INT8OID};
	Datum values[2] = {CStringGetTextDatum(setting->name),
					   Int64GetDatum(version)};

	if (prom_execute_now(
			psprintf("SELECT %s FROM prometheus.%s"
					 " WHERE name OPERATOR(pg_catalog.=) $1"
					 "   AND version OPERATOR(pg_catalog.=) $2",
					 setting->kind->columns, setting->kind->table),
			2, types, values, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus.%s", setting->kind->table);
	if (SPI_processed == 0)
		return false;
	for (int i = 0; i < setting->kind->ncolumns; i++)
		texts[i] = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
								i + 1);
	return true;
}

Jsonb *
prom_setting_merge(const PromSetting *setting, Jsonb *given)
{
	Jsonb *base = setting->options;
	Oid types[2] = {JSONBOID, JSONBOID};
	Datum values[2];
	bool isnull;

	if (base == NULL)
		base = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	if (given == NULL)
		return base;
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a json object")));
	values[0] = JsonbPGetDatum(base);
	values[1] = JsonbPGetDatum(given);
	if (SPI_execute_with_args(
			"SELECT pg_catalog.jsonb_strip_nulls($1 OPERATOR(pg_catalog.||) $2)",
			2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not merge options");
	return DatumGetJsonbPCopy(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1, &isnull));
}

int64
prom_setting_end(PromSetting *setting, char **texts, Jsonb *options)
{
	const PromSettingKind *kind = setting->kind;
	Oid types[COMMON + PROM_SETTING_COLUMNS] = {INT8OID, OIDOID, TEXTOID,
												TEXTOID, JSONBOID};
	Datum values[COMMON + PROM_SETTING_COLUMNS];
	char nulls[COMMON + PROM_SETTING_COLUMNS];
	Oid owner = setting->exists ? setting->owner_oid : setting->before.user;
	const char *owner_name = setting->owner;

	if (!setting->exists)
		owner_name = GetUserNameFromId(setting->before.user, false);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int64GetDatum(setting->version + 1);
	values[1] = ObjectIdGetDatum(owner);
	values[2] = CStringGetTextDatum(owner_name);
	values[3] = CStringGetTextDatum(setting->name);
	values[4] = JsonbPGetDatum(options);
	for (int i = 0; i < kind->ncolumns; i++)
	{
		types[COMMON + i] = TEXTOID;
		nulls[COMMON + i] = texts[i] == NULL ? 'n' : ' ';
		values[COMMON + i] = texts[i] == NULL ? (Datum) 0
											  : CStringGetTextDatum(texts[i]);
	}
	if (SPI_execute_with_args(
			psprintf("INSERT INTO prometheus.%s"
					 " (version, xid, mark, set_at, owner_oid, owner, name, options, %s)"
					 " VALUES ($1, prometheus._xid(), %lld,"
					 " pg_catalog.clock_timestamp(), $2, $3, $4, $5, %s)",
					 kind->table, kind->columns,
					 (long long) Max(prom_mark_newest(), setting->mark),
					 kind->places),
			COMMON + kind->ncolumns, types, values, nulls, false,
			0) != SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus.%s", kind->table);
	prom_setting_leave(setting);
	return setting->version + 1;
}

char *
prom_setting_text(FunctionCallInfo fcinfo, int n, char *otherwise)
{
	char *given;

	if (PG_ARGISNULL(n))
		return otherwise;
	given = text_to_cstring(PG_GETARG_TEXT_PP(n));
	return *given == '\0' ? NULL : given;
}

Jsonb *
prom_setting_jsonb(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

/* Not pg_catalog, which is first by itself: objects would be made in it. */
char *
prom_setting_search_path(void)
{
	List *schemas = fetch_search_path(false);
	StringInfoData path;
	ListCell *cell;

	initStringInfo(&path);
	foreach(cell, schemas)
	{
		char *name = get_namespace_name(lfirst_oid(cell));

		/* The temporary schema of this session is not that of another one. */
		if (name != NULL && strcmp(name, "pg_catalog") != 0 &&
			!isAnyTempNamespace(lfirst_oid(cell)))
			appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	list_free(schemas);
	return path.data;
}


/* Versions that are kept. */

/*
 * Exactly one row, or an error.  Not read-only in a worker: a version that
 * came after the transaction's snapshot is there too.
 */
static void
read_row(PromVersions *versions, const char *name, int64 version,
		 bool read_only)
{
	Datum values[2] = {CStringGetTextDatum(name), Int64GetDatum(version)};

	prom_statement_run(&versions->statement, values, NULL, read_only);
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("\"%s\" has no version %lld", name,
							   (long long) version)));
}

void *
prom_version_read(PromVersions *versions, const char *name, int64 version)
{
	read_row(versions, name, version, true);
	return versions->make(name, version);
}

const void *
prom_version_get(PromVersions *versions, const char *name, int64 version)
{
	ListCell *cell;
	MemoryContext before;
	void *made;

	if (versions->generation != generation)
		versions->kept = NIL;
	versions->generation = generation;
	foreach(cell, versions->kept)
	{
		const PromVersion *kept = lfirst(cell);

		if (kept->version == version && strcmp(kept->name, name) == 0)
			return kept;
	}
	read_row(versions, name, version, false);
	if (kept_context == NULL)
		kept_context = AllocSetContextCreate(TopMemoryContext,
											 "prometheus settings",
											 ALLOCSET_SMALL_SIZES);
	before = MemoryContextSwitchTo(kept_context);
	made = versions->make(name, version);
	versions->kept = lappend(versions->kept, made);
	nkept++;
	MemoryContextSwitchTo(before);
	return made;
}

void
prom_versions_forget(void)
{
	if (kept_context != NULL)
		MemoryContextReset(kept_context);
	generation++;
	nkept = 0;
}

int
prom_versions_kept(void)
{
	return nkept;
}
