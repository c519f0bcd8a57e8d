/*
 * finding.c
 *	  Finds the memories that fit a query best.
 *
 * Not every memory that has a word of it is looked at: an agent may have a
 * hundred thousand.  Those that have a word are taken by the index of words,
 * but only so many of each, and of the most important ones those that have any.
 * So of a rare word all are found, of a frequent one the most important and
 * some others.  These are ranked exactly.  The owner is compared so that these
 * two indexes are used, and no other.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "memory.h"
#include "moment.h"
#include "xact.h"

#define MAX_FOUND 1000

/* Words of a query that count: the longest, which tell most. */
#define MAX_WORDS "32"

/*
 * Memories that are taken by a word, roughly: at random, if more have it.  The
 * more words, the fewer of each.
 */
#define MAX_HITS 1000
#define MIN_HITS 300
#define ALL_HITS 2000

/* The most important ones of a kind. */
#define LEADERS "greatest($6, 300)"

/* The time by which memories are old and expire. */
static TimestampTz
now_or_then(void)
{
	const PromMoment *moment = prom_moment_current();

	return moment == NULL ? GetCurrentTimestamp() : prom_moment_time(moment);
}

#define RELEVANCE PROM_MEMORY_RELEVANCE("$7")

/* Is it to be found, now or then? */
#define FITS                                                  \
	" NOT m.forgotten AND prometheus._seen(m.xid)"            \
	" AND (m.expires_at IS NULL"                              \
	"   OR m.expires_at OPERATOR(pg_catalog.>) $7)"           \
	" AND NOT EXISTS (SELECT FROM prometheus._memory n"       \
	"   WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id" \
	"     AND n.version OPERATOR(pg_catalog.>) m.version"     \
	"     AND prometheus._seen(n.xid))"

#define BY_WORD                                                   \
	"SELECT m.memory_id, m.version FROM prometheus._memory m"     \
	" WHERE m.words OPERATOR(pg_catalog.@@) w.w"                  \
	"   AND pg_catalog.concat(m.owner) OPERATOR(pg_catalog.=) $1" \
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $2"                \
	"   AND pg_catalog.concat(m.agent) OPERATOR(pg_catalog.=) $3" \
	"   AND m.kind OPERATOR(pg_catalog.=) ANY ($5) AND" FITS

#define BY_IMPORTANCE                                              \
	"SELECT l.memory_id, l.version, l.words"                       \
	" FROM (SELECT DISTINCT k FROM pg_catalog.unnest($5) k) kinds" \
	" CROSS JOIN LATERAL (SELECT m.memory_id, m.version, m.words"  \
	"   FROM prometheus._memory m"                                 \
	"   WHERE m.owner OPERATOR(pg_catalog.=) $1"                   \
	"     AND m.agent OPERATOR(pg_catalog.=) $3"                   \
	"     AND m.kind OPERATOR(pg_catalog.=) kinds.k"               \
	"     AND m.owner_oid OPERATOR(pg_catalog.=) $2 AND" FITS      \
	"   ORDER BY m.importance DESC LIMIT " LEADERS ") l"

#define BEST                                                         \
	" SELECT m.memory_id, m.kind, m.content, m.importance,"          \
	" ((0.6::pg_catalog.float8 OPERATOR(pg_catalog.*) m.similarity)" \
	"   OPERATOR(pg_catalog.+) (0.4::pg_catalog.float8"              \
	"   OPERATOR(pg_catalog.*) " RELEVANCE "))"                      \
	"   ::pg_catalog.float4 AS score,"                               \
	" m.metadata, m.created_at FROM ranked m"                        \
	" ORDER BY 5 DESC, m.memory_id DESC LIMIT $6"

/*
 * Similarity is the part of the query's words that a memory has.  If enough of
 * the most important ones have all of them, no others are looked for.
 */
static const char by_words_sql[] =
	"WITH leaders AS MATERIALIZED (" BY_IMPORTANCE "),"
	" hits AS MATERIALIZED (SELECT h.memory_id, h.version"
	"   FROM pg_catalog.unnest($8::pg_catalog.tsquery[]) w"
	"   CROSS JOIN LATERAL (" BY_WORD ") h"
	"   WHERE (SELECT pg_catalog.count(*) FROM leaders l"
	"     WHERE l.words OPERATOR(pg_catalog.@@) $9::pg_catalog.tsquery)"
	"     OPERATOR(pg_catalog.<) $6),"
	" taken AS (SELECT h.memory_id, h.version FROM hits h"
	"   UNION SELECT l.memory_id, l.version FROM leaders l"
	"     WHERE l.words OPERATOR(pg_catalog.@@) $4::pg_catalog.tsquery),"
	" ranked AS (SELECT m.*, (SELECT pg_catalog.count(*)"
	"     FROM pg_catalog.unnest($8::pg_catalog.tsquery[]) w"
	"     WHERE m.words OPERATOR(pg_catalog.@@) w)"
	"     OPERATOR(pg_catalog./)"
	"     pg_catalog.cardinality($8)::pg_catalog.float8 AS similarity"
	"   FROM taken t JOIN prometheus._memory m"
	"     ON m.memory_id OPERATOR(pg_catalog.=) t.memory_id"
	"       AND m.version OPERATOR(pg_catalog.=) t.version)" BEST;

/* Without words, or if none is in any. */
static const char by_importance_sql[] =
	"WITH leaders AS MATERIALIZED (" BY_IMPORTANCE "),"
	" ranked AS (SELECT m.*, 0 AS similarity"
	"   FROM leaders t JOIN prometheus._memory m"
	"     ON m.memory_id OPERATOR(pg_catalog.=) t.memory_id"
	"       AND m.version OPERATOR(pg_catalog.=) t.version)" BEST;

/* Any of the words, each, and all. */
static const char words_sql[] =
	"SELECT pg_catalog.string_agg(x.w, ' | '),"
	" pg_catalog.array_agg(x.w), pg_catalog.string_agg(x.w, ' & '),"
	" pg_catalog.count(*)"
	" FROM (SELECT pg_catalog.quote_literal(w) AS w"
	"   FROM pg_catalog.unnest(pg_catalog.tsvector_to_array("
	"     pg_catalog.to_tsvector('pg_catalog.simple',"
	"       pg_catalog.left($1, " PROM_MEMORY_MAX_WORDS ")))) w"
	"   ORDER BY pg_catalog.length(w) DESC, w LIMIT " MAX_WORDS ") x";

static ArrayType *
all_kinds(void)
{
	Datum names[] = {
		CStringGetTextDatum("core"), CStringGetTextDatum("episodic"),
		CStringGetTextDatum("semantic"), CStringGetTextDatum("procedural"),
		CStringGetTextDatum("resource"), CStringGetTextDatum("vault")};

	return construct_array(names, lengthof(names), TEXTOID, -1, false,
						   TYPALIGN_INT);
}

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
find(const char *sql, int nargs, Datum *values)
{
	Oid types[9] = {TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTARRAYOID,
					INT8OID, TIMESTAMPTZOID, TEXTARRAYOID, TEXTOID};

	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
}

void
prom_memory_find(const PromMemoryOwner *owner, const char *query,
				 ArrayType *kinds, int32 k)
{
	Oid type = TEXTOID;
	Datum values[9];
	int nwords = 0;
	int nest_level;

	if (k < 1 || k > MAX_FOUND)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("k must be from 1 to %d", MAX_FOUND)));
	values[3] = CStringGetTextDatum(query);
	if (SPI_execute_with_args(words_sql, 1, &type, &values[3], NULL, true, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read the words of a query");
	if (!prom_row_isnull(0, 1))
	{
		nwords = prom_row_int64(0, 4);
		values[3] = CStringGetTextDatum(prom_row_text(0, 1));
		values[7] = PointerGetDatum(prom_row_array_or_null(0, 2));
		values[8] = CStringGetTextDatum(prom_row_text(0, 3));
	}
	SPI_freetuptable(SPI_tuptable);
	values[0] = CStringGetTextDatum(owner->name);
	values[1] = ObjectIdGetDatum(owner->oid);
	values[2] = CStringGetTextDatum(owner->agent);
	values[4] = PointerGetDatum(kinds == NULL ? all_kinds() : kinds);
	values[5] = Int64GetDatum(k);
	values[6] = TimestampTzGetDatum(now_or_then());
	nest_level = NewGUCNestLevel();
	set_local("enable_seqscan", "off");
	set_local("enable_hashjoin", "off");
	set_local("enable_mergejoin", "off");
	set_local("jit", "off");
	set_local("max_parallel_workers_per_gather", "0");
	if (nwords > 0)
	{
		int hits = Max(k, Min(MAX_HITS, Max(MIN_HITS, ALL_HITS / nwords)));

		set_local("gin_fuzzy_search_limit", psprintf("%d", hits));
		find(by_words_sql, 9, values);
	}
	if (nwords == 0 || SPI_processed == 0)
		find(by_importance_sql, 7, values);
	AtEOXact_GUC(true, nest_level);
}
