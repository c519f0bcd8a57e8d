/*
 * superseded.c
 *	  Deletes versions of which a newer one has been there for long enough.
 *
 * A version goes when a newer one was there at the horizon, unless a task pins
 * it.  Tasks that the horizon's snapshot does not see were begun after the
 * newer one was there, so only older ones are looked at.  Policies stay: the
 * number of their rows is the version that verdicts have.
 *
 * Of a memory that was forgotten, or has expired, nothing stays when that was
 * so at the horizon.  What a model has made of a text goes when no memory has
 * it any more, and the requests for that go by their time.
 *
 * Of the rows of tracked tables the last version before the first of a task
 * that is there stays, with all after it: they are what prometheus_undo()
 * compares.  That a row was deleted is told until nothing before that is left;
 * and all of a track goes when it had ended at the horizon.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "embedded.h"
#include "superseded.h"
#include "xact.h"

/* Of a relation, in one transaction. */
#define BLOCKS 64

/* Those of which a newer one was there. */
#define DELETE_VERSIONS(relation, key, time)                   \
	"DELETE FROM prometheus." relation " x"                    \
	" WHERE x.ctid >= $3 AND x.ctid < $4"                      \
	" AND EXISTS (SELECT FROM prometheus." relation " n"       \
	"   WHERE n." key " = x." key " AND n.version > x.version" \
	"     AND n." time " < $1 AND pg_visible_in_snapshot(n.xid, $2))"

/* What attempts a have pinned, of tasks t that were there before, too. */
#define PINNED(columns, join)                                   \
	"WITH pinned AS MATERIALIZED (SELECT DISTINCT " columns     \
	" FROM prometheus._task t"                                  \
	" JOIN prometheus._attempt a ON a.task_id = t.task_id" join \
	" WHERE t.xid < pg_snapshot_xmax($2)"                       \
	"   AND pg_visible_in_snapshot(t.xid, $2)) "

/*
 * What is told of a memory goes when nothing is left of that; but who writes it
 * may see more than we do.
 */
#define MEMORY_IS_GONE                                  \
	" pg_visible_in_snapshot(x.xid, $2)"                \
	" AND NOT EXISTS (SELECT FROM prometheus._memory m" \
	"   WHERE m.memory_id = x.memory_id)"

/* The first of a name is what the views find it by. */
#define NOT_FIRST " AND x.version > 1"

#define NOT_PINNED                          \
	" AND NOT EXISTS (SELECT FROM pinned p" \
	"   WHERE p.name = x.name AND p.version = x.version)"

#define JOIN_TOOLS                                           \
	" JOIN prometheus._agent g"                              \
	"   ON g.name = t.agent AND g.version = a.agent_version" \
	" CROSS JOIN LATERAL unnest(g.tools, a.tool_versions)"   \
	"   AS v (name, version)"

/* After all versions: the end of its track. */
#define NO_NEXT "9223372036854775807"

#define ARGUMENTS \
	4, {TIMESTAMPTZOID, PG_SNAPSHOTOID, TIDOID, TIDOID}, NULL

static struct
{
	const char *relation;
	PromStatement statement;
} versions[] = {
	{"_agent",
	 {PINNED("t.agent AS name, a.agent_version AS version", "")
		  DELETE_VERSIONS("_agent", "name", "set_at") NOT_FIRST NOT_PINNED,
	  ARGUMENTS}},
	{"_model",
	 {PINNED("a.model AS name, a.model_version AS version", "")
		  DELETE_VERSIONS("_model", "name", "set_at") NOT_FIRST NOT_PINNED,
	  ARGUMENTS}},
	{"_tool",
	 {PINNED("v.name, v.version", JOIN_TOOLS)
		  DELETE_VERSIONS("_tool", "name", "set_at") NOT_FIRST NOT_PINNED,
	  ARGUMENTS}},
	{"_budget",
	 {DELETE_VERSIONS("_budget", "name", "set_at") NOT_FIRST, ARGUMENTS}},
	{"_memory",
	 {DELETE_VERSIONS("_memory", "memory_id", "created_at"), ARGUMENTS}},
	/*
	 * The newest one, too, when nothing shows it any more: after those before
	 * it, which would be the newest without it.
	 */
	{"_memory",
	 {"DELETE FROM prometheus._memory x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4 AND (x.forgotten OR x.expires_at < $1)"
	  " AND x.created_at < $1 AND pg_visible_in_snapshot(x.xid, $2)"
	  " AND NOT EXISTS (SELECT FROM prometheus._memory o"
	  "   WHERE o.memory_id = x.memory_id AND o.version <> x.version)",
	  ARGUMENTS}},
	{"_memory_use",
	 {"DELETE FROM prometheus._memory_use x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4"
	  " AND (EXISTS (SELECT FROM prometheus._memory_use n"
	  "     WHERE n.memory_id = x.memory_id AND n.used_at > x.used_at"
	  "       AND n.used_at < $1 AND pg_visible_in_snapshot(n.xid, $2))"
	  "   OR" MEMORY_IS_GONE ")",
	  ARGUMENTS}},
	{"_evidence",
	 {"DELETE FROM prometheus._evidence x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4 AND" MEMORY_IS_GONE,
	  ARGUMENTS}},
	/* What nobody reads any more; who reads it has a newer snapshot. */
	{"_memory_entry",
	 {"DELETE FROM prometheus._memory_entry x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4"
	  " AND (x.entry_id < (SELECT n.first_entry"
	  "     FROM prometheus._memory_entry n"
	  "     WHERE (n.owner, n.owner_oid, n.agent, n.kind)"
	  "         = (x.owner, x.owner_oid, x.agent, x.kind)"
	  "       AND pg_visible_in_snapshot(n.xid, $2)"
	  "     ORDER BY n.entry_id DESC LIMIT 1)"
	  "   OR" MEMORY_IS_GONE ")",
	  ARGUMENTS}},
	/* Of a kind or a space that it had before, unless it has that again. */
	{"_memory_embedding",
	 {"DELETE FROM prometheus._memory_embedding x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4"
	  " AND (EXISTS (SELECT FROM prometheus._memory_embedding n"
	  "     WHERE n.memory_id = x.memory_id AND n.made_at > x.made_at"
	  "       AND n.made_at < $1 AND pg_visible_in_snapshot(n.xid, $2)"
	  "       AND (n.kind = x.kind AND x.space IS DISTINCT FROM"
	  "           (SELECT " PROM_EMBEDDED_SPACE " FROM prometheus._model m"
	  "           WHERE m.name = (SELECT a.options ->> 'embedding_model'"
	  "               FROM prometheus._agent a WHERE a.name = x.agent"
	  "               ORDER BY a.version DESC LIMIT 1)"
	  "           ORDER BY m.version DESC LIMIT 1)"
	  "         OR NOT EXISTS (SELECT"
	  "         FROM prometheus._memory m WHERE m.memory_id = x.memory_id"
	  "           AND m.kind = x.kind AND NOT EXISTS (SELECT"
	  "             FROM prometheus._memory y"
	  "             WHERE y.memory_id = m.memory_id"
	  "               AND y.version > m.version))))"
	  "   OR" MEMORY_IS_GONE ")",
	  ARGUMENTS}},
	/* What a memory has stays; that of a query can be made anew. */
	{"_embedding",
	 {"DELETE FROM prometheus._embedding x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4"
	  " AND x.made_at < $1 AND pg_visible_in_snapshot(x.xid, $2)"
	  " AND NOT EXISTS (SELECT FROM prometheus._memory_embedding e"
	  "   WHERE e.hash = x.hash)",
	  ARGUMENTS}},
	{"_embedding_call",
	 {"DELETE FROM prometheus._embedding_call x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4"
	  " AND x.ended_at < $1 AND pg_visible_in_snapshot(x.xid, $2)",
	  ARGUMENTS}},
	/*
	 * Those before the newest key frame that was there: what comes after that
	 * needs none of them.  A key frame goes after those that need it.
	 */
	{"_state",
	 {"DELETE FROM prometheus._state x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4 AND x.version > 1"
	  " AND EXISTS (SELECT FROM prometheus._state n"
	  "   WHERE (n.owner, n.owner_oid, n.agent, n.key)"
	  "       = (x.owner, x.owner_oid, x.agent, x.key)"
	  "     AND n.version > x.version AND n.base_version IS NULL"
	  "     AND n.saved_at < $1 AND pg_visible_in_snapshot(n.xid, $2))"
	  " AND (x.base_version IS NOT NULL OR x.version IS DISTINCT FROM ("
	  "   SELECT y.base_version FROM prometheus._state y"
	  "    WHERE (y.owner, y.owner_oid, y.agent, y.key)"
	  "        = (x.owner, x.owner_oid, x.agent, x.key)"
	  "      AND y.version > x.version ORDER BY y.version LIMIT 1))",
	  ARGUMENTS}},
	/* Those of one key are ordered, so the next one decides. */
	{"_row_version",
	 {"WITH ended AS MATERIALIZED (SELECT t.track_id FROM prometheus._track t"
	  "   WHERE t.event = 'ended' AND t.recorded_at < $1"
	  "     AND pg_visible_in_snapshot(t.xid, $2)),"
	  " old AS MATERIALIZED (SELECT x.ctid AS place, x.track_id, x.key,"
	  "   coalesce(n.version_id, " NO_NEXT ") AS next"
	  "   FROM prometheus._row_version x"
	  "   LEFT JOIN LATERAL (SELECT v.version_id, v.changed_at, v.xid"
	  "     FROM prometheus._row_version v"
	  "     WHERE v.track_id = x.track_id AND v.key = x.key"
	  "       AND v.version_id > x.version_id"
	  "     ORDER BY v.version_id LIMIT 1) n ON true"
	  "   WHERE x.ctid >= $3 AND x.ctid < $4 AND x.changed_at < $1"
	  "   AND CASE WHEN n.version_id IS NULL"
	  "     THEN x.track_id IN (SELECT e.track_id FROM ended e)"
	  "     ELSE n.changed_at < $1 AND pg_visible_in_snapshot(n.xid, $2) END),"
	  " pinned AS MATERIALIZED (SELECT k.track_id, k.key,"
	  "   (SELECT min(p.version_id) FROM prometheus._row_version p"
	  "     WHERE p.track_id = k.track_id AND p.key = k.key"
	  "       AND p.version_id <= k.last AND EXISTS (SELECT"
	  "         FROM prometheus._task t WHERE t.task_id = p.task_id)) AS first"
	  "   FROM (SELECT o.track_id, o.key, max(o.next) AS last FROM old o"
	  "     GROUP BY o.track_id, o.key) k)"
	  " DELETE FROM prometheus._row_version x WHERE x.ctid = ANY (ARRAY("
	  "   SELECT o.place FROM old o JOIN pinned p USING (track_id, key)"
	  "    WHERE p.first IS NULL OR o.next < p.first))",
	  ARGUMENTS}},
	{"_row_version",
	 {"DELETE FROM prometheus._row_version x"
	  " WHERE x.ctid >= $3 AND x.ctid < $4 AND x.fields IS NULL"
	  " AND x.changed_at < $1 AND pg_visible_in_snapshot(x.xid, $2)"
	  " AND NOT EXISTS (SELECT FROM prometheus._task t"
	  "   WHERE t.task_id = x.task_id)"
	  " AND NOT EXISTS (SELECT FROM prometheus._row_version o"
	  "   WHERE o.track_id = x.track_id AND o.key = x.key"
	  "     AND o.version_id < x.version_id)",
	  ARGUMENTS}},
	{"_track",
	 {"DELETE FROM prometheus._track x USING prometheus._track e"
	  " WHERE e.ctid >= $3 AND e.ctid < $4 AND e.event = 'ended'"
	  " AND e.recorded_at < $1 AND pg_visible_in_snapshot(e.xid, $2)"
	  " AND NOT EXISTS (SELECT FROM prometheus._row_version v"
	  "   WHERE v.track_id = e.track_id)"
	  " AND x.track_id = e.track_id",
	  ARGUMENTS}},
};

/* Some blocks of a relation; false: there is none after them. */
static bool
delete_from_blocks(Oid relid, BlockNumber block, PromStatement *statement,
				   TimestampTz cutoff, Datum snapshot)
{
	Relation relation = table_open(relid, RowExclusiveLock);
	BlockNumber nblocks = RelationGetNumberOfBlocks(relation);
	ItemPointerData first;
	ItemPointerData last;
	Datum values[4];

	table_close(relation, NoLock);
	ItemPointerSet(&first, block, 0);
	ItemPointerSet(&last, block + BLOCKS, 0);
	values[0] = TimestampTzGetDatum(cutoff);
	values[1] = snapshot;
	values[2] = PointerGetDatum(&first);
	values[3] = PointerGetDatum(&last);
	prom_statement_run(statement, values, NULL, false);
	return block + BLOCKS < nblocks;
}

bool
prom_superseded_delete(PromSupersededPlace *place, TimestampTz cutoff,
					   Datum snapshot)
{
	Oid relid = get_relname_relid(versions[place->relation].relation,
								  get_namespace_oid("prometheus", false));

	if (delete_from_blocks(relid, place->block,
						   &versions[place->relation].statement, cutoff,
						   snapshot))
		place->block += BLOCKS;
	else
	{
		place->relation++;
		place->block = 0;
	}
	return place->relation < lengthof(versions);
}
