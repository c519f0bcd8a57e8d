/*
 * extension.c
 *	  Finds the extension in the catalogue, keeps it there for a transaction,
 *	  and compares its version with the library's.
 *
 * Three things have a version: the library, which the server loaded when it
 * started; the files that are installed now; and the objects in a database.
 * Workers run statements on objects of exactly their own version.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "extension.h"
#include "wakeup.h"
#include "xact.h"

static object_access_hook_type previous_hook = NULL;

static void
read_tuple(Relation relation, HeapTuple tuple, PromExtension *found)
{
	Form_pg_extension extension = (Form_pg_extension) GETSTRUCT(tuple);
	bool isnull;
	Datum version = heap_getattr(tuple, Anum_pg_extension_extversion,
								 RelationGetDescr(relation), &isnull);

	found->oid = extension->oid;
	found->owner = extension->extowner;
	text_to_cstring_buffer(DatumGetTextPP(version), found->version,
						   sizeof(found->version));
}

/* By the catalogue of extensions: a schema of that name could be anyone's. */
bool
prom_extension_find(PromExtension *found)
{
	Relation relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool is_there;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(PROM_EXTENSION));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1,
							  &key);
	tuple = systable_getnext(scan);
	is_there = HeapTupleIsValid(tuple);
	if (is_there)
		read_tuple(relation, tuple, found);
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return is_there;
}

bool
prom_extension_has(Oid class, Oid object)
{
	PromExtension found;

	return prom_extension_find(&found) &&
		   getExtensionOfObject(class, object) == found.oid;
}

Oid
prom_extension_owner(void)
{
	PromExtension found;

	return prom_extension_find(&found) ? found.owner : InvalidOid;
}

/*
 * DROP EXTENSION locks the extension before anything in it, so whoever has
 * this lock finds all of it, and who must wait for it finds nothing.
 */
PromPresence
prom_extension_presence(PromExtension *found)
{
	static Oid mine = InvalidOid;

	if (!OidIsValid(mine))
	{
		if (!prom_extension_find(found))
			return PROM_ABSENT;
		mine = found->oid;
	}
	LockDatabaseObject(ExtensionRelationId, mine, 0, AccessShareLock);
	if (!prom_extension_find(found))
		return PROM_ABSENT;
	if (strcmp(found->version, PROM_VERSION) != 0)
		return PROM_OTHER_VERSION;
	if (found->oid != mine || found->owner != GetUserId())
		return PROM_OTHER;
	return PROM_PRESENT;
}

char *
prom_extension_files(void)
{
	static PromStatement statement =
		{"SELECT default_version FROM pg_catalog.pg_available_extensions()"
		 " WHERE name OPERATOR(pg_catalog.=) '" PROM_EXTENSION "'",
		 0,
		 {0},
		 NULL};
	MemoryContext context = CurrentMemoryContext;
	char *version = NULL;

	SPI_connect();
	MemoryContextSwitchTo(context);
	prom_statement_run(&statement, NULL, NULL, true);
	if (SPI_processed > 0)
		version = prom_row_text_or_null(0, 1);
	SPI_finish();
	return version;
}

const char *
prom_extension_advice(const char *version, const char *files)
{
	if (files == NULL)
		return "The extension's files are not installed: install them again.";
	if (strcmp(files, PROM_VERSION) == 0)
		return "Run in that database: ALTER EXTENSION prometheus UPDATE;";
	if (strcmp(files, version) == 0)
		return "Restart the server, so that it loads the installed library.";
	return "Restart the server, so that it loads the installed library, and run in that database: ALTER EXTENSION prometheus UPDATE;";
}

static void
access_hook(ObjectAccessType access, Oid class, Oid object, int column,
			void *arg)
{
	char *name;

	if (previous_hook)
		previous_hook(access, class, object, column, arg);
	if (class != ExtensionRelationId ||
		(access != OAT_DROP && access != OAT_POST_ALTER))
		return;
	name = get_extension_name(object);
	if (name != NULL && strcmp(name, PROM_EXTENSION) == 0)
		prom_wakeup_extension();
}

void
prom_extension_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = access_hook;
}
