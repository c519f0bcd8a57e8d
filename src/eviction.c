/*
 * eviction.c
 *	  An agent's memory has a limit; who is least relevant goes.
 *
 * It is in the transaction that remembers, under the lock on these memories, so
 * there are never more than the limit.  What goes gets a version that says why,
 * and an event: nothing is lost, and it can be brought back.
 *
 * So a kind may have many times more memories that went than there are, until
 * retention deletes them.  To look at the latter only, there is a list of what
 * came into a kind (_memory_entry): all that is there is in it, from
 * first_entry of its newest row on.  It is begun when a limit first counts, and
 * anew, with what is there, when half as many have come as there may be.  The
 * ids come from a sequence under the lock on the kind, shared or not: so who
 * begins it anew, alone, misses nobody.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "agent.h"
#include "event.h"
#include "eviction.h"
#include "fact.h"
#include "mark.h"
#include "option.h"
#include "use.h"
#include "wakeup.h"
#include "xact.h"

/* Of experiences, if the agent does not say; of other kinds none. */
#define DEFAULT_LIMIT 1000

/* That come before a list is begun anew, besides half of the limit. */
#define SPARE 100

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

/* What is listed since the entry $9. */
#define LISTED                                                           \
	" FROM (SELECT DISTINCT e.memory_id FROM prometheus._memory_entry e" \
	"   WHERE e.owner OPERATOR(pg_catalog.=) $1"                         \
	"     AND e.owner_oid OPERATOR(pg_catalog.=) $2"                     \
	"     AND e.agent OPERATOR(pg_catalog.=) $3"                         \
	"     AND e.kind OPERATOR(pg_catalog.=) $4"                          \
	"     AND e.entry_id OPERATOR(pg_catalog.>=) $9) e"                  \
	" CROSS JOIN LATERAL (SELECT x.* FROM prometheus._memory x"          \
	"   WHERE x.memory_id OPERATOR(pg_catalog.=) e.memory_id"            \
	"   ORDER BY x.version DESC LIMIT 1) m"                              \
	" WHERE m.kind OPERATOR(pg_catalog.=) $4 AND NOT m.forgotten"

/* All that is there, of whatever list. */
#define STORED                                                    \
	" FROM prometheus._memory m"                                  \
	" WHERE m.owner OPERATOR(pg_catalog.=) $1"                    \
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $2"                \
	"   AND m.agent OPERATOR(pg_catalog.=) $3"                    \
	"   AND m.kind OPERATOR(pg_catalog.=) $4 AND NOT m.forgotten" \
	"   AND NOT EXISTS (SELECT FROM prometheus._memory n"         \
	"     WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id"   \
	"       AND n.version OPERATOR(pg_catalog.>) m.version)"

static const char evict_sql[] =
	"WITH living AS (SELECT m.memory_id, m.version, m.importance, m.created_at,"
	"   " PROM_MEMORY_IS_PINNED " AS pinned,"
	"   coalesce(m.expires_at OPERATOR(pg_catalog.<=) $6, false) AS expired" LISTED "),"
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

static const Oid evict_types[9] = {TEXTOID, OIDOID, TEXTOID,
								   TEXTOID, INT8OID, TIMESTAMPTZOID,
								   INT8OID, INT8OID, INT8OID};

/* The newest entry of a kind. */
static PromStatement newest_statement = {
	"SELECT e.first_entry, e.place FROM prometheus._memory_entry e"
	" WHERE e.owner OPERATOR(pg_catalog.=) $1"
	"   AND e.owner_oid OPERATOR(pg_catalog.=) $2"
	"   AND e.agent OPERATOR(pg_catalog.=) $3"
	"   AND e.kind OPERATOR(pg_catalog.=) $4"
	" ORDER BY e.entry_id DESC LIMIT 1",
	4,
	{TEXTOID, OIDOID, TEXTOID, TEXTOID},
	NULL,
};

#define ADD_ENTRIES(first, place)                                          \
	"INSERT INTO prometheus._memory_entry (owner, owner_oid, agent, kind," \
	" entry_id, first_entry, place, memory_id, xid)"                       \
	" SELECT $1, $2, $3, $4,"                                              \
	" pg_catalog.nextval("                                                 \
	"   'prometheus._memory_entry_id'::pg_catalog.regclass),"              \
	" " first ", " place ", m.memory_id, prometheus._xid()"

static const char enter_sql[] =
	ADD_ENTRIES("$9", "$5") " FROM (SELECT $7 AS memory_id) m";
static const char relist_sql[] = ADD_ENTRIES("$5", "0") LISTED;
static const char list_sql[] = ADD_ENTRIES("$9", "0") STORED;

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

/* A kind of memories, and the list of what came into it. */
typedef struct Kind
{
	const PromMemoryOwner *owner;
	const char *name;
	int64 first; /* 0: there is no list */
	int64 place; /* since it was begun */
} Kind;

static void
read_newest(Kind *kind)
{
	Datum values[4] = {CStringGetTextDatum(kind->owner->name),
					   ObjectIdGetDatum(kind->owner->oid),
					   CStringGetTextDatum(kind->owner->agent),
					   CStringGetTextDatum(kind->name)};

	kind->first = kind->place = 0;
	prom_statement_run_now(&newest_statement, values);
	if (SPI_processed > 0)
	{
		kind->first = prom_row_int64(0, 1);
		kind->place = prom_row_int64(0, 2);
	}
}

/* Run a statement about a kind, with $5, $7 and $9. */
static void
run(const char *sql, const Kind *kind, int64 number, int64 memory_id,
	int64 first, int expected)
{
	Datum values[9] = {CStringGetTextDatum(kind->owner->name),
					   ObjectIdGetDatum(kind->owner->oid),
					   CStringGetTextDatum(kind->owner->agent),
					   CStringGetTextDatum(kind->name),
					   Int64GetDatum(number),
					   TimestampTzGetDatum(GetCurrentTimestamp()),
					   Int64GetDatum(memory_id),
					   Int64GetDatum(prom_mark_newest()),
					   Int64GetDatum(first)};

	if (prom_execute_now(sql, lengthof(values), (Oid *) evict_types, values,
						 NULL, false) != expected)
		elog(ERROR, "could not write prometheus._memory");
}

static void
evict(const Kind *kind, int64 limit, int64 spared)
{
	SPITupleTable *evicted;
	uint64 n;

	run(evict_sql, kind, limit, spared, kind->first, SPI_OK_SELECT);
	n = SPI_processed;
	evicted = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		SPI_tuptable = evicted;
		SPI_processed = n;
		tell(kind->owner, kind->name, prom_row_int64(i, 1),
			 prom_row_float8(i, 2));
	}
	if (n > 0)
		prom_wakeup_publisher();
}

void
prom_eviction_run(const PromMemoryOwner *owner, const char *kind_name,
				  int64 entered, bool spares)
{
	Kind kind = {.owner = owner, .name = kind_name};
	int64 limit = prom_eviction_limit(owner->agent, kind_name);
	/* One that was set meanwhile counts from the next on. */
	bool counts = limit >= 0 && prom_memory_is_locked_alone(owner, kind_name);

	read_newest(&kind);
	if (kind.first != 0)
		run(enter_sql, &kind, ++kind.place, entered, kind.first, SPI_OK_INSERT);
	if (!counts)
		return;
	if (kind.first == 0)
	{
		kind.first = prom_fact_next_entry();
		run(list_sql, &kind, 0, entered, kind.first, SPI_OK_INSERT);
	}
	evict(&kind, limit, spares ? entered : 0);
	if (kind.place > limit / 2 + SPARE)
		run(relist_sql, &kind, prom_fact_next_entry(), entered, kind.first,
			SPI_OK_INSERT);
}
