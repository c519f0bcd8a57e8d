/*
 * track.c
 *	  Begins and ends the tracking of a table.
 *
 * A tracked table has two triggers of ours, on rows and on TRUNCATE.  Nobody
 * but this file makes them: their function is granted to nobody, so nobody can
 * forge versions.  They are enabled ALWAYS: also what replication applies, or a
 * session with session_replication_role, changes the rows.  What becomes of a
 * tracked table that is altered is in alteration.c.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "era.h"
#include "extension.h"
#include "role.h"
#include "track.h"
#include "version.h"
#include "xact.h"

/* What is a table of a user, whose rows stay. */
static void
check_table(Relation relation)
{
	const char *name = RelationGetRelationName(relation);
	const char *problem = NULL;
	Oid relid = RelationGetRelid(relation);

	if (!prom_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(relation->rd_rel->relkind), name);
	if (relation->rd_rel->relkind != RELKIND_RELATION)
		problem = "it is no table";
	else if (IsCatalogRelation(relation) ||
			 RelationGetNamespace(relation) ==
				 get_namespace_oid("prometheus", false))
		problem = "it is a table of the system";
	else if (relation->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		problem = "it is temporary or unlogged";
	else if (OidIsValid(getExtensionOfObject(RelationRelationId, relid)))
		problem = "it belongs to an extension";
	if (problem != NULL)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" cannot be tracked: %s", name, problem)));
}

static void
check_key(Relation relation, const PromLayout *layout)
{
	if (layout->nkey == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" cannot be tracked: it has no primary key that is checked at once",
						RelationGetRelationName(relation)),
				 errdetail("Rows are known by their primary key; neither REPLICA IDENTITY nor a deferrable key will do."),
				 errhint("ALTER TABLE ... ADD PRIMARY KEY.")));
}


/* Triggers. */

static void
create_trigger(Relation relation, const char *name, bool row, int16 timing,
			   int16 events, char *track_id)
{
	CreateTrigStmt *statement = makeNode(CreateTrigStmt);
	ObjectAddress trigger;
	ObjectAddress extension;
	PromExtension found;

	statement->trigname = pstrdup(name);
	statement->relation = makeRangeVar(
		get_namespace_name(RelationGetNamespace(relation)),
		pstrdup(RelationGetRelationName(relation)), -1);
	statement->funcname = list_make2(makeString("prometheus"),
									 makeString("_row_changed"));
	statement->args = list_make1(makeString(track_id));
	statement->row = row;
	statement->timing = timing;
	statement->events = events;
	trigger = CreateTriggerFiringOn(statement, NULL,
									RelationGetRelid(relation), InvalidOid,
									InvalidOid, InvalidOid,
									prom_version_function(), InvalidOid, NULL,
									false, false, TRIGGER_FIRES_ALWAYS);

	/* DROP EXTENSION takes it along, without CASCADE. */
	if (!prom_extension_find(&found))
		elog(ERROR, "extension \"%s\" does not exist", PROM_EXTENSION);
	ObjectAddressSet(extension, ExtensionRelationId, found.oid);
	recordDependencyOn(&trigger, &extension, DEPENDENCY_AUTO_EXTENSION);
}

/*
 * As a superuser: the function is granted to nobody, and the user owns the
 * table, as has been checked.  No code of a user runs.
 */
static void
create_triggers(Relation relation, const pg_uuid_t *track_id)
{
	char *text = DatumGetCString(
		DirectFunctionCall1(uuid_out, UUIDPGetDatum(track_id)));
	Oid user;
	int context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   context | SECURITY_LOCAL_USERID_CHANGE);
	create_trigger(relation, PROM_VERSION_ROW_TRIGGER, true,
				   TRIGGER_TYPE_AFTER,
				   TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE |
					   TRIGGER_TYPE_DELETE,
				   text);
	create_trigger(relation, PROM_VERSION_TRUNCATE_TRIGGER, false,
				   TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_TRUNCATE, text);
	SetUserIdAndSecContext(user, context);
	CommandCounterIncrement();
}

/* Who drops triggers may not have the table open. */
static Relation
drop_triggers(Relation relation)
{
	Oid function = prom_version_function();
	Oid relid = RelationGetRelid(relation);
	TriggerDesc *triggers = relation->trigdesc;
	ObjectAddresses *objects = new_object_addresses();

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		ObjectAddress trigger;

		if (triggers->triggers[i].tgfoid != function)
			continue;
		ObjectAddressSet(trigger, TriggerRelationId,
						 triggers->triggers[i].tgoid);
		add_exact_object_address(&trigger, objects);
	}
	table_close(relation, NoLock);
	performMultipleDeletions(objects, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	free_object_addresses(objects);
	CommandCounterIncrement();
	return table_open(relid, NoLock);
}


/* Begin and end. */

/* Is what its triggers do recorded as it should be? */
static bool
is_recorded(Relation relation)
{
	pg_uuid_t track_id;

	return prom_version_track_id(relation, &track_id) &&
		   prom_version_is_whole(relation) &&
		   prom_version_tracked(relation)->records;
}

/* A table out of a dump has the track of another one, which goes on. */
void
prom_track_end(Relation relation, const pg_uuid_t *track_id,
			   const char *reason)
{
	PromLayout before;
	PromLayout layout;

	if (!prom_layout_read(track_id, 0, &before) ||
		strcmp(before.event, "ended") == 0)
		return;
	prom_layout_of(relation, &layout);
	prom_layout_number(&layout, &before, prom_layout_era());
	if (layout.era == before.era && layout.relid != before.relid)
		return;
	layout.event = "ended";
	layout.reason = pstrdup(reason);
	prom_layout_add(track_id, &layout);
}

static Relation
begin_tracking(Relation relation)
{
	pg_uuid_t track_id;
	PromLayout layout;

	prom_layout_of(relation, &layout);
	check_key(relation, &layout);
	if (prom_version_track_id(relation, &track_id))
	{
		relation = drop_triggers(relation);
		prom_track_end(relation, &track_id, "it was begun anew");
	}
	track_id = *DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	prom_layout_number(&layout, NULL, prom_layout_era());
	layout.event = "begun";
	prom_layout_add(&track_id, &layout);
	create_triggers(relation, &track_id);
	prom_version_add_all(relation, prom_version_tracked(relation), "begin");
	return relation;
}

/* Under a lock that keeps writers out, so that no row is forgotten. */
static void
track(Oid relid, bool enable)
{
	Relation relation = table_open(relid, ShareRowExclusiveLock);
	pg_uuid_t track_id;
	bool has_triggers;

	check_table(relation);
	has_triggers = prom_version_track_id(relation, &track_id);
	if (enable && !is_recorded(relation))
		relation = begin_tracking(relation);
	else if (!enable && has_triggers)
	{
		relation = drop_triggers(relation);
		prom_track_end(relation, &track_id, "prometheus_track(..., false)");
	}
	table_close(relation, NoLock);
}

/* A partitioned table has no rows of its own. */
static void
track_partitions(Oid relid, bool enable)
{
	List *partitions = find_all_inheritors(relid, ShareRowExclusiveLock, NULL);
	ListCell *cell;

	if (!prom_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
	foreach(cell, partitions)
		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_PARTITIONED_TABLE)
			track(lfirst_oid(cell), enable);
}

PG_FUNCTION_INFO_V1(prom_track);

Datum
prom_track(PG_FUNCTION_ARGS)
{
	Oid relid;
	bool enable;

	PreventCommandDuringRecovery("prometheus_track()");
	PreventCommandIfReadOnly("prometheus_track()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("relation and enable must not be null")));
	relid = PG_GETARG_OID(0);
	enable = PG_GETARG_BOOL(1);
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		track_partitions(relid, enable);
	else
		track(relid, enable);
	PG_RETURN_VOID();
}


/* Health. */

int
prom_track_count(StringInfo interrupted)
{
	static const char tracked_sql[] =
		"WITH t AS (SELECT t.tgrelid, pg_catalog.min(pg_catalog.convert_from("
		"pg_catalog.substr(t.tgargs, 1, 36), 'SQL_ASCII'))"
		"::pg_catalog.uuid AS track_id, pg_catalog.count(*) FILTER (WHERE"
		" t.tgenabled OPERATOR(pg_catalog.=) 'A') AS enabled"
		" FROM pg_catalog.pg_trigger t"
		" WHERE t.tgfoid OPERATOR(pg_catalog.=) $1 GROUP BY t.tgrelid),"
		" n AS (SELECT DISTINCT ON (n.track_id) n.*,"
		" n.xid OPERATOR(pg_catalog.>=) ($2::pg_catalog.text)"
		"::pg_catalog.xid8 AS is_of_now,"
		" pg_catalog.max(n.recorded_at) OVER (PARTITION BY n.relation_oid)"
		" AS last_at FROM prometheus._track n ORDER BY n.track_id, n.layout DESC)"
		" SELECT c.oid::pg_catalog.regclass::pg_catalog.text,"
		" t.tgrelid IS NOT NULL AND t.enabled OPERATOR(pg_catalog.=) 2"
		" AND n.event OPERATOR(pg_catalog.<>) 'ended'"
		" AND (n.relation_oid OPERATOR(pg_catalog.=) c.oid OR NOT n.is_of_now)"
		" FROM t FULL JOIN n USING (track_id)"
		" JOIN pg_catalog.pg_class c"
		" ON c.oid OPERATOR(pg_catalog.=) coalesce(t.tgrelid, n.relation_oid)"
		" WHERE t.tgrelid IS NOT NULL"
		" OR (n.event OPERATOR(pg_catalog.<>) 'ended'"
		" OR n.reason OPERATOR(pg_catalog.=) '" PROM_TRACK_BARED "')"
		" AND n.is_of_now"
		" AND n.recorded_at OPERATOR(pg_catalog.=) n.last_at"
		" AND NOT EXISTS (SELECT FROM t u"
		" WHERE u.tgrelid OPERATOR(pg_catalog.=) c.oid)"
		" ORDER BY 1";
	Oid types[2] = {OIDOID, TEXTOID};
	Datum values[2];
	PromEra era;
	PromOwner owner;
	int n = 0;

	prom_era_read(&era);
	values[0] = ObjectIdGetDatum(prom_version_function());
	values[1] = CStringGetTextDatum(
		psprintf(UINT64_FORMAT, (uint64) era.era << PROM_ERA_SHIFT));
	SPI_connect();
	prom_role_become_owner(&owner);
	if (SPI_execute_with_args(tracked_sql, 2, types, values, NULL, true, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._track");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		if (!prom_row_isnull(i, 2) && prom_row_bool(i, 2))
			n++;
		else
			appendStringInfo(interrupted, "%s%s",
							 interrupted->len > 0 ? ", " : "",
							 prom_row_text(i, 1));
	}
	prom_role_restore(&owner);
	SPI_finish();
	return n;
}
