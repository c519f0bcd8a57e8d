/*
 * eviction.c
 *	  An agent's memory has a limit; who is least relevant goes.
 *
 * It is in the transaction that remembers, under the lock on these memories, so
 * there are never more than the limit.  What goes gets a version that says why,
 * and an event: nothing is lost, and it can be brought back.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "agent.h"
#include "event.h"
#include "eviction.h"
#include "mark.h"
#include "option.h"
#include "use.h"
#include "wakeup.h"
#include "xact.h"

/* Of experiences, if the agent does not say; of other kinds none. */
#define DEFAULT_LIMIT 1000

/* The owner may use a name that no agent has. */
int64
prom_eviction_limit(const char *agent, const char *kind)
{
	static const char options_sql[] =
		"SELECT a.options FROM prometheus._agent a"
		" WHERE a.name OPERATOR(pg_catalog.=) $1"
		" ORDER BY a.version DESC LIMIT 1";
	Oid type = TEXTOID;
	Datum name = CStringGetTextDatum(agent);
	int64 limit = -1;

	if (strcmp(kind, "core") == 0)
		return -1;
	if (prom_execute_now(options_sql, 1, &type, &name, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._agent");
	if (SPI_processed > 0)
		limit = prom_option_memory_limit(prom_row_jsonb_or_null(0, 1));
	if (limit < 0 && strcmp(kind, "episodic") == 0)
		limit = DEFAULT_LIMIT;
	return limit;
}

/*
 * What has expired goes first.  Ids are compared so that the older one goes.
 * Where a limit was lowered, a thousand go at once: it may be the caller that
 * remembers.  When each was used last is only looked up if one must go.
 */
#define RELEVANCE PROM_MEMORY_RELEVANCE_OF("$6", PROM_MEMORY_LAST_USE)

#define EVICTED                                                         \
	PROM_MEMORY_ADD_VERSION("$8", "NULL", "$6", "m.kind", "m.metadata", \
							"true, 'evicted', NULL")

static const char evict_sql[] =
	"WITH living AS (SELECT m.memory_id, m.version, m.importance, m.created_at,"
	"   " PROM_MEMORY_IS_PINNED " AS pinned,"
	"   coalesce(m.expires_at OPERATOR(pg_catalog.<=) $6, false) AS expired"
	"   FROM prometheus._memory m"
	"   WHERE m.owner OPERATOR(pg_catalog.=) $1"
	"     AND m.owner_oid OPERATOR(pg_catalog.=) $2"
	"     AND m.agent OPERATOR(pg_catalog.=) $3"
	"     AND m.kind OPERATOR(pg_catalog.=) $4 AND NOT m.forgotten"
	"     AND NOT EXISTS (SELECT FROM prometheus._memory n"
	"       WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id"
	"         AND n.version OPERATOR(pg_catalog.>) m.version)),"
	" least AS MATERIALIZED (SELECT m.memory_id, m.version,"
	"   " RELEVANCE " AS relevance"
	"   FROM living m"
	"   WHERE NOT m.pinned AND m.memory_id OPERATOR(pg_catalog.<>) $7"
	"   ORDER BY m.expired DESC, relevance, m.memory_id"
	"   LIMIT least(greatest((SELECT pg_catalog.count(*) FROM living)"
	"     OPERATOR(pg_catalog.-) $5, 0), 1000)),"
	" evicted AS (" EVICTED
	"   JOIN least l ON m.memory_id OPERATOR(pg_catalog.=) l.memory_id"
	"     AND m.version OPERATOR(pg_catalog.=) l.version)"
	" SELECT e.memory_id, e.relevance FROM least e";

static void
tell(const PromMemoryOwner *owner, const char *kind, int64 memory_id,
	 float8 relevance)
{
	char *subject = psprintf("memory/%lld", (long long) memory_id);
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"memory_id\": %lld, \"kind\": ",
					 (long long) memory_id);
	escape_json(&json, kind);
	appendStringInfoString(&json, ", \"agent\": ");
	escape_json(&json, owner->agent);
	appendStringInfo(&json, ", \"relevance\": %.4f}", relevance);
	(void) prom_event_add_of(owner, 0, "memory.evicted", json.data, subject);
}

void
prom_eviction_run(const PromMemoryOwner *owner, const char *kind, int64 spared)
{
	int64 limit = prom_eviction_limit(owner->agent, kind);
	Oid types[8] = {TEXTOID, OIDOID, TEXTOID, TEXTOID,
					INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID};
	Datum values[8];
	SPITupleTable *evicted;
	uint64 n;

	if (limit < 0)
		return;
	values[0] = CStringGetTextDatum(owner->name);
	values[1] = ObjectIdGetDatum(owner->oid);
	values[2] = CStringGetTextDatum(owner->agent);
	values[3] = CStringGetTextDatum(kind);
	values[4] = Int64GetDatum(limit);
	values[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[6] = Int64GetDatum(spared);
	values[7] = Int64GetDatum(prom_mark_newest());
	if (prom_execute_now(evict_sql, 8, types, values, NULL, false) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not write prometheus._memory");
	n = SPI_processed;
	evicted = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		SPI_tuptable = evicted;
		SPI_processed = n;
		tell(owner, kind, prom_row_int64(i, 1), prom_row_float8(i, 2));
	}
	if (n > 0)
		prom_wakeup_publisher();
}
