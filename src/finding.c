/*
 * finding.c
 *	  Finds the memories that fit a query best.
 *
 * Not every memory that has a word of it is looked at: an agent may have a
 * hundred thousand.  Those that have a word are taken by the index of words,
 * but only so many of each, and of the most important ones those that have any.
 * So of a rare word all are found, of a frequent one the most important and
 * some others.  These are ranked exactly.
 *
 * Of embeddings the sketches of all are looked at, in an index that has them;
 * the nearest are compared exactly.  So of few all are.  Of kinds for which
 * pgvector has an index, that finds the nearest, if all embeddings were given.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "embedded.h"
#include "embedding.h"
#include "memory.h"
#include "moment.h"
#include "vector.h"
#include "words.h"
#include "xact.h"

#define MAX_FOUND 1000

/*
 * Memories that are taken by a word, roughly: at random, if more have it.  The
 * more words, the fewer of each.
 */
#define MAX_HITS 1000
#define MIN_HITS 150
#define ALL_HITS 2000

/* The most important ones of a kind. */
#define LEADERS "greatest($6, 200)"

/* Of the rankings by words and by embeddings, what is fused: at least. */
#define MIN_FUSED 200

/* So many times k that fit best are ranked with importance: at least. */
#define POOL 4
#define MIN_POOL 20

/* Those near by their sketches that are compared exactly: at least. */
#define MIN_NEAR 1000

/* Of reciprocal rank fusion: see Cormack, Clarke and Büttcher, SIGIR 2009. */
#define RANK_CONSTANT 60.0

/* A memory's version, and how well it fits. */
typedef struct Candidate
{
	int64 memory_id;
	int64 version;
	float8 similarity;
} Candidate;

typedef struct Candidates
{
	Candidate *rows; /* the best first */
	int n;
} Candidates;

/* What a statement is given. */
enum
{
	FIND_OWNER,
	FIND_OWNER_OID,
	FIND_AGENT,
	FIND_KINDS,
	FIND_NOW,
	FIND_LIMIT,
	FIND_PLAIN,
	FIND_SCOPED,
	FIND_EMBEDDING = FIND_PLAIN,
	FIND_SKETCH,
	FIND_NEAR,
	FIND_SPACE,
	FINDS
};

typedef struct Find
{
	const PromMemoryQuery *query;
	ArrayType *embedding; /* the query's, or one that is known; or NULL */
	bool has_space;       /* models make embeddings for the agent */
	Datum values[FINDS];
} Find;

/* The time by which memories are old and expire. */
static TimestampTz
now_or_then(void)
{
	const PromMoment *moment = prom_moment_current();

	return moment == NULL ? GetCurrentTimestamp() : prom_moment_time(moment);
}

#define SCORE(similarity, now)                                   \
	"(0.6::pg_catalog.float8 OPERATOR(pg_catalog.*) " similarity \
	") OPERATOR(pg_catalog.+) (0.4::pg_catalog.float8"           \
	" OPERATOR(pg_catalog.*) " PROM_MEMORY_RELEVANCE(now) ")"

#define SCORE_BY_WORDS SCORE("m.share", "$5")
#define SCORE_OF_BEST SCORE("c.similarity", "$4")
#define RELEVANCE_THEN PROM_MEMORY_RELEVANCE("$5")

/*
 * Is it to be found, now or then?  OFFSET keeps this a look-up by both columns,
 * however many versions there are.
 */
#define FITS                                                  \
	" prometheus._seen(m.xid)"                                \
	" AND (m.expires_at IS NULL"                              \
	"   OR m.expires_at OPERATOR(pg_catalog.>) $5)"           \
	" AND NOT EXISTS (SELECT FROM prometheus._memory n"       \
	"   WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id" \
	"     AND n.version OPERATOR(pg_catalog.>) m.version"     \
	"     AND prometheus._seen(n.xid) OFFSET 0)"

#define BY_IMPORTANCE                                              \
	"SELECT kinds.k, l.memory_id, l.version, l.importance,"        \
	"   l.created_at, l.words"                                     \
	" FROM (SELECT DISTINCT k FROM pg_catalog.unnest($4) k) kinds" \
	" CROSS JOIN LATERAL (SELECT m.memory_id, m.version,"          \
	"     m.importance, m.created_at, m.words"                     \
	"   FROM prometheus._memory m"                                 \
	"   WHERE m.owner OPERATOR(pg_catalog.=) $1"                   \
	"     AND m.agent OPERATOR(pg_catalog.=) $3"                   \
	"     AND m.kind OPERATOR(pg_catalog.=) kinds.k"               \
	"     AND m.owner_oid OPERATOR(pg_catalog.=) $2"               \
	"     AND NOT m.forgotten AND" FITS                            \
	"   ORDER BY m.importance DESC LIMIT " LEADERS ") l"

/*
 * Similarity is the part of the query's words that a memory has.  If enough of
 * the most important ones have all of them, no others are looked for; nor if
 * there are no others, and not by a word that a fourth of some of them have: of
 * the memories that have it, some of those are as good as some others.  Who has
 * another version is only asked of the best, until there are enough.  The
 * owner is compared so that the index of words is used.
 */
static const char by_words_sql[] =
	"WITH leaders AS MATERIALIZED (SELECT l.*,"
	"   prometheus._share(l.words, $7) AS share"
	"   FROM (" BY_IMPORTANCE ") l),"
	" few AS MATERIALIZED (SELECT l.words FROM leaders l"
	"   WHERE l.memory_id OPERATOR(pg_catalog.%) 8 OPERATOR(pg_catalog.=) 0)"
	" SELECT m.memory_id, m.version, b.share FROM ("
	"   SELECT m.memory_id, m.version, m.share,"
	"     (" SCORE_BY_WORDS ")::pg_catalog.float4 AS score"
	"   FROM (SELECT h.* FROM ROWS FROM (pg_catalog.unnest($7),"
	"       pg_catalog.unnest($8)) w (plain, scoped)"
	"     CROSS JOIN LATERAL (SELECT m.memory_id, m.version, m.importance,"
	"         m.created_at, prometheus._share(m.words, $7) AS share"
	"       FROM prometheus._memory m"
	"       WHERE prometheus._scoped(m.words, m.owner_oid, m.agent)"
	"           OPERATOR(pg_catalog.@@) w.scoped AND NOT m.forgotten"
	"         AND pg_catalog.concat(m.owner) OPERATOR(pg_catalog.=) $1"
	"         AND m.owner_oid OPERATOR(pg_catalog.=) $2"
	"         AND pg_catalog.concat(m.agent) OPERATOR(pg_catalog.=) $3"
	"         AND m.kind OPERATOR(pg_catalog.=) ANY ($4) OFFSET 0) h"
	"     WHERE EXISTS (SELECT FROM leaders l GROUP BY l.k"
	"         HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>=) " LEADERS ")"
	"       AND ((SELECT 4 OPERATOR(pg_catalog.*) pg_catalog.count(*)"
	"           FROM few f WHERE f.words OPERATOR(pg_catalog.@@) w.plain)"
	"             OPERATOR(pg_catalog.<) greatest(100,"
	"               (SELECT pg_catalog.count(*) FROM few))"
	"         OR (SELECT pg_catalog.count(*) FROM leaders l"
	"           WHERE l.share OPERATOR(pg_catalog.>) 0::pg_catalog.float8)"
	"             OPERATOR(pg_catalog.<) $6)"
	"       AND (SELECT pg_catalog.count(*) FROM leaders l"
	"         WHERE l.share OPERATOR(pg_catalog.=) 1::pg_catalog.float8)"
	"           OPERATOR(pg_catalog.<) $6"
	"     UNION SELECT l.memory_id, l.version, l.importance, l.created_at,"
	"         l.share FROM leaders l"
	"       WHERE l.share OPERATOR(pg_catalog.>) 0::pg_catalog.float8) m"
	"   ORDER BY score DESC, m.memory_id DESC OFFSET 0) b"
	" JOIN prometheus._memory m ON m.memory_id OPERATOR(pg_catalog.=) b.memory_id"
	"   AND m.version OPERATOR(pg_catalog.=) b.version"
	" WHERE" FITS " ORDER BY b.score DESC, b.memory_id DESC LIMIT $6";

static PromStatement by_words_statement = {
	by_words_sql,
	8,
	{TEXTOID, OIDOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID, INT8OID,
	 TSQUERYARRAYOID, TSQUERYARRAYOID},
	NULL,
};

/* Without words, or if none is in any. */
static const char by_importance_sql[] =
	"SELECT m.memory_id, m.version, 0::pg_catalog.float8"
	" FROM (" BY_IMPORTANCE ") l JOIN prometheus._memory m"
	"   ON m.memory_id OPERATOR(pg_catalog.=) l.memory_id"
	"     AND m.version OPERATOR(pg_catalog.=) l.version"
	" ORDER BY " RELEVANCE_THEN " DESC, m.memory_id DESC LIMIT $6";

static PromStatement by_importance_statement = {
	by_importance_sql,
	6,
	{TEXTOID, OIDOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID, INT8OID},
	NULL,
};

/* The sketches of embeddings that were given, and those that were made. */
#define GIVEN                                                  \
	"SELECT m.memory_id, m.version, m.kind,"                   \
	"   prometheus._sketch_distance(m.sketch, $8) AS distance" \
	" FROM prometheus._memory m"                               \
	" WHERE m.owner OPERATOR(pg_catalog.=) $1"                 \
	"   AND m.agent OPERATOR(pg_catalog.=) $3"                 \
	"   AND m.kind OPERATOR(pg_catalog.=) ANY ($4)"            \
	"   AND NOT m.forgotten AND m.embedding IS NOT NULL"
#define MADE                                        \
	"SELECT e.memory_id, NULL::pg_catalog.int8,"    \
	"   e.kind,"                                    \
	"   prometheus._sketch_distance(e.sketch, $8)"  \
	" FROM prometheus._memory_embedding e"          \
	" WHERE e.owner OPERATOR(pg_catalog.=) $1"      \
	"   AND e.agent OPERATOR(pg_catalog.=) $3"      \
	"   AND e.kind OPERATOR(pg_catalog.=) ANY ($4)" \
	"   AND e.space OPERATOR(pg_catalog.=) $10"     \
	"   AND e.sketch IS NOT NULL"

/* Of those, the nearest s. */
#define NEAREST(sketches)                          \
	" FROM (SELECT d.memory_id, d.version, d.kind" \
	"   FROM (" sketches " OFFSET 0) d"            \
	"   WHERE d.distance IS NOT NULL"              \
	"   ORDER BY d.distance, d.memory_id DESC LIMIT $9) s"

/* How near they are. */
#define COSINE_OF_GIVEN                                               \
	"SELECT m.version, prometheus._cosine(m.embedding, $7) AS cosine" \
	" FROM prometheus._memory m"                                      \
	" WHERE m.memory_id OPERATOR(pg_catalog.=) s.memory_id"           \
	"   AND m.version OPERATOR(pg_catalog.=) s.version"               \
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $2 AND" FITS
/*
 * A memory has it while it has that kind, and none that was given.  It may have
 * others of the kinds that it had: only that of its kind counts.
 */
#define COSINE_OF_MADE                                      \
	"SELECT m.version, prometheus._cosine(v.embedding, $7)" \
	" FROM prometheus._memory m"                            \
	" JOIN prometheus._memory_embedding e"                  \
	"   ON e.memory_id OPERATOR(pg_catalog.=) m.memory_id"  \
	"     AND e.kind OPERATOR(pg_catalog.=) m.kind"         \
	"     AND e.space OPERATOR(pg_catalog.=) $10"           \
	"     AND prometheus._seen(e.xid)"                      \
	" JOIN prometheus._embedding v"                         \
	"   ON v.hash OPERATOR(pg_catalog.=) e.hash"            \
	" WHERE s.version IS NULL"                              \
	"   AND m.memory_id OPERATOR(pg_catalog.=) s.memory_id" \
	"   AND m.kind OPERATOR(pg_catalog.=) s.kind"           \
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $2"          \
	"   AND NOT m.forgotten AND m.embedding IS NULL AND" FITS

/* Each row is one that is near; the last column is null if it does not fit. */
#define FOUND "SELECT s.memory_id, coalesce(f.version, 0), f.cosine"
#define NEAREST_FIRST " ORDER BY f.cosine DESC NULLS LAST, s.memory_id DESC"
#define BY_COSINE(sketches, cosines) \
	FOUND NEAREST(sketches) " LEFT JOIN LATERAL (" cosines ") f ON true" NEAREST_FIRST

static const char by_embedding_sql[] = BY_COSINE(GIVEN, COSINE_OF_GIVEN);

#define GIVEN_OR_MADE GIVEN " UNION ALL " MADE
#define COSINE_OF_EITHER COSINE_OF_GIVEN " UNION ALL " COSINE_OF_MADE

static const char by_any_sql[] = BY_COSINE(GIVEN_OR_MADE, COSINE_OF_EITHER);

static PromStatement by_embedding_statement = {
	by_embedding_sql,
	9,
	{TEXTOID, OIDOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID, INT8OID,
	 FLOAT4ARRAYOID, BYTEAOID, INT8OID},
	NULL,
};

/* The same for an agent for which models make embeddings. */
static PromStatement by_any_statement = {
	by_any_sql,
	10,
	{TEXTOID, OIDOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID, INT8OID,
	 FLOAT4ARRAYOID, BYTEAOID, INT8OID, TEXTOID},
	NULL,
};

static const char best_sql[] =
	"SELECT m.memory_id, m.kind, m.content, m.importance,"
	" (" SCORE_OF_BEST ")::pg_catalog.float4 AS score,"
	" m.metadata, m.created_at"
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
	"   pg_catalog.unnest($3)) c (memory_id, version, similarity)"
	" JOIN prometheus._memory m"
	"   ON m.memory_id OPERATOR(pg_catalog.=) c.memory_id"
	"     AND m.version OPERATOR(pg_catalog.=) c.version"
	" ORDER BY 5 DESC, m.memory_id DESC LIMIT $5";

static PromStatement best_statement = {
	best_sql,
	5,
	{INT8ARRAYOID, INT8ARRAYOID, FLOAT8ARRAYOID, TIMESTAMPTZOID, INT8OID},
	NULL,
};

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

/* Plans that use the indexes, and are kept; whatever the session has set. */
static void
set_planner(void)
{
	static const char *const settings[][2] = {
		{"enable_seqscan", "off"},
		{"enable_indexscan", "on"},
		{"enable_indexonlyscan", "on"},
		{"enable_bitmapscan", "on"},
		{"enable_nestloop", "on"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"plan_cache_mode", "force_generic_plan"},
		{"jit", "off"},
		{"max_parallel_workers_per_gather", "0"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		set_local(settings[i][0], settings[i][1]);
}

/* The rows of a statement, up to the first without a similarity. */
static Candidates
read_candidates(int limit)
{
	Candidates found = {0};

	found.rows = palloc(Max(SPI_processed, 1) * sizeof(Candidate));
	while (found.n < SPI_processed && found.n < limit &&
		   !prom_row_isnull(found.n, 3))
	{
		Candidate *row = &found.rows[found.n];

		row->memory_id = prom_row_int64(found.n, 1);
		row->version = prom_row_int64(found.n, 2);
		row->similarity = prom_row_float8(found.n, 3);
		found.n++;
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static Datum
query_array(Datum *values, int n)
{
	return PointerGetDatum(
		construct_array(values, n, TSQUERYOID, -1, false, TYPALIGN_INT));
}

/* By whole words; if none is in any, by beginnings of words. */
static Candidates
find_by_words(Find *find, PromWords *words, int limit)
{
	int hits = Max(find->query->k,
				   Min(MAX_HITS, Max(MIN_HITS, ALL_HITS / words->n)));
	Candidates found;

	set_local("gin_fuzzy_search_limit", psprintf("%d", hits));
	find->values[FIND_LIMIT] = Int64GetDatum(limit);
	find->values[FIND_PLAIN] = query_array(words->plain, words->n);
	find->values[FIND_SCOPED] = query_array(words->scoped, words->n);
	prom_statement_run(&by_words_statement, find->values, NULL, false);
	found = read_candidates(limit);
	if (found.n > 0)
		return found;
	find->values[FIND_PLAIN] = query_array(words->plain_prefix, words->n);
	find->values[FIND_SCOPED] = query_array(words->scoped_prefix, words->n);
	prom_statement_run(&by_words_statement, find->values, NULL, false);
	return read_candidates(limit);
}

static Candidates
find_by_importance(Find *find, int limit)
{
	find->values[FIND_LIMIT] = Int64GetDatum(limit);
	prom_statement_run(&by_importance_statement, find->values, NULL, false);
	return read_candidates(limit);
}

/*
 * What is near and does not fit (an older version, or of no such role any more)
 * is in the way of others: then more are looked at.
 */
static Candidates
find_by_sketch(Find *find, int limit)
{
	ArrayType *embedding = find->embedding;

	find->values[FIND_LIMIT] = Int64GetDatum(limit);
	find->values[FIND_EMBEDDING] = PointerGetDatum(embedding);
	find->values[FIND_SKETCH] =
		PointerGetDatum(prom_embedding_sketch(embedding));
	for (int64 near = Max(MIN_NEAR, limit);; near *= 10)
	{
		Candidates found;
		bool are_all;

		find->values[FIND_NEAR] = Int64GetDatum(near);
		prom_statement_run(find->has_space ? &by_any_statement
										   : &by_embedding_statement,
						   find->values, NULL, false);
		are_all = SPI_processed < near;
		found = read_candidates(limit);
		if (are_all || found.n == limit)
			return found;
	}
}

static int
compare_ids(const void *a, const void *b)
{
	int64 one = ((const Candidate *) a)->memory_id;
	int64 other = ((const Candidate *) b)->memory_id;

	return one < other ? -1 : one > other;
}

/* The best first; of equals the newer one. */
static int
compare_fits(const void *a, const void *b)
{
	float8 one = ((const Candidate *) a)->similarity;
	float8 other = ((const Candidate *) b)->similarity;

	if (one != other)
		return one > other ? -1 : 1;
	return compare_ids(b, a);
}

static void
append(Candidates *found, const Candidates *more)
{
	if (found->rows == NULL)
		found->rows = palloc((more->n + 1) * sizeof(Candidate));
	else
		found->rows = repalloc(found->rows, (found->n + more->n + 1) *
												sizeof(Candidate));
	memcpy(found->rows + found->n, more->rows, more->n * sizeof(Candidate));
	found->n += more->n;
}

static bool
is_among(const char *kind, char **kinds, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

/* The nearest of the kinds that have an index, and which have none. */
static Candidates
find_by_index(Find *find, const PromMemoryOwner *owner, int limit,
			  ArrayType **others)
{
	ArrayType *embedding = find->embedding;
	Candidates found = {0};
	Datum *kinds;
	bool *nulls;
	char **done;
	int nkinds;
	int ndone = 0;
	int nothers = 0;

	deconstruct_array(DatumGetArrayTypeP(find->values[FIND_KINDS]), TEXTOID, -1,
					  false, TYPALIGN_INT, &kinds, &nulls, &nkinds);
	done = palloc((nkinds + 1) * sizeof(char *));
	for (int i = 0; i < nkinds; i++)
	{
		PromVectorKey key = {owner, NULL, ARR_DIMS(embedding)[0]};

		if (nulls[i])
			continue;
		key.kind = TextDatumGetCString(kinds[i]);
		if (is_among(key.kind, done, ndone))
			continue;
		done[ndone++] = (char *) key.kind;
		if (prom_vector_find(&key, embedding, FITS, find->values[FIND_NOW],
							 limit))
		{
			Candidates near = read_candidates(limit);

			append(&found, &near);
		}
		else
			kinds[nothers++] = kinds[i];
	}
	*others = construct_array(kinds, nothers, TEXTOID, -1, false, TYPALIGN_INT);
	return found;
}

static Candidates
find_by_embedding(Find *find, const PromMemoryOwner *owner, int limit)
{
	Datum kinds = find->values[FIND_KINDS];
	ArrayType *others;
	Candidates found = {0};

	/* An index does not have what models have made. */
	if (!find->has_space)
		found = find_by_index(find, owner, limit, &others);
	if (found.n == 0)
		return find_by_sketch(find, limit);
	if (ARR_NDIM(others) > 0)
	{
		Candidates rest;

		find->values[FIND_KINDS] = PointerGetDatum(others);
		rest = find_by_sketch(find, limit);
		find->values[FIND_KINDS] = kinds;
		append(&found, &rest);
	}
	qsort(found.rows, found.n, sizeof(Candidate), compare_fits);
	found.n = Min(found.n, limit);
	return found;
}

static void
add_ranks(Candidates *fused, const Candidates *ranked)
{
	for (int i = 0; i < ranked->n; i++)
	{
		Candidate *row = &fused->rows[fused->n++];

		*row = ranked->rows[i];
		row->similarity = 1 / (RANK_CONSTANT + i + 1);
	}
}

/* One row of each memory, whose similarity is the sum. */
static void
sum_up(Candidates *fused)
{
	int n = 0;

	qsort(fused->rows, fused->n, sizeof(Candidate), compare_ids);
	for (int i = 0; i < fused->n; i++)
	{
		if (n > 0 && fused->rows[n - 1].memory_id == fused->rows[i].memory_id)
			fused->rows[n - 1].similarity += fused->rows[i].similarity;
		else
			fused->rows[n++] = fused->rows[i];
	}
	fused->n = n;
}

/*
 * The best of both rankings; similarity becomes the place among them, from 1,
 * the best, downwards in equal steps.
 */
static Candidates
fuse(const Candidates *by_words, const Candidates *by_embedding, int limit)
{
	Candidates fused = {0};
	float8 before = 0;
	float8 place = 1;

	fused.rows = palloc((by_words->n + by_embedding->n + 1) *
						sizeof(Candidate));
	add_ranks(&fused, by_words);
	add_ranks(&fused, by_embedding);
	sum_up(&fused);
	qsort(fused.rows, fused.n, sizeof(Candidate), compare_fits);
	fused.n = Min(fused.n, limit);
	for (int i = 0; i < fused.n; i++)
	{
		if (fused.rows[i].similarity != before)
			place = 1 - (float8) i / fused.n;
		before = fused.rows[i].similarity;
		fused.rows[i].similarity = place;
	}
	return fused;
}

static void
select_best(const Candidates *found, Datum now, int32 k)
{
	int n = found->n;
	int64 *ids = palloc((n + 1) * sizeof(int64));
	int64 *versions = palloc((n + 1) * sizeof(int64));
	Datum *similarities = palloc((n + 1) * sizeof(Datum));
	Datum values[5];

	for (int i = 0; i < n; i++)
	{
		ids[i] = found->rows[i].memory_id;
		versions[i] = found->rows[i].version;
		similarities[i] = Float8GetDatum(found->rows[i].similarity);
	}
	values[0] = PointerGetDatum(prom_int8_array(ids, n));
	values[1] = PointerGetDatum(prom_int8_array(versions, n));
	values[2] = PointerGetDatum(construct_array(similarities, n, FLOAT8OID,
												sizeof(float8), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[3] = now;
	values[4] = Int64GetDatum(k);
	prom_statement_run(&best_statement, values, NULL, false);
}

static void
find_and_select(Find *find, const PromMemoryOwner *owner, PromWords *words)
{
	const PromMemoryQuery *query = find->query;
	bool fuses = find->embedding != NULL;
	int limit = fuses ? Max(MIN_FUSED, POOL * query->k) : query->k;
	Candidates found = {0};

	if (words->n > 0)
		found = find_by_words(find, words, limit);
	if (fuses)
	{
		Candidates near = find_by_embedding(find, owner, limit);

		if (near.n > 0)
			found = fuse(&found, &near, Max(MIN_POOL, POOL * query->k));
	}
	if (found.n == 0)
		found = find_by_importance(find, query->k);
	select_best(&found, find->values[FIND_NOW], query->k);
}

/* What a model has made of the same text is as good as what is given. */
static void
find_embedding(Find *find, const PromMemoryOwner *owner)
{
	const PromMemoryQuery *query = find->query;
	PromEmbedded embedded;

	find->embedding = query->embedding;
	find->has_space = prom_embedded_read(owner->agent, owner->name, query->text,
										 &embedded);
	if (!find->has_space)
		return;
	find->values[FIND_SPACE] = CStringGetTextDatum(embedded.space);
	if (find->embedding == NULL && *query->text != '\0')
		find->embedding = embedded.embedding;
}

void
prom_memory_find(const PromMemoryOwner *owner, const PromMemoryQuery *query)
{
	Find find = {.query = query};
	PromWords words;
	int nest_level;

	if (query->k < 1 || query->k > MAX_FOUND)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("k must be from 1 to %d", MAX_FOUND)));
	if (query->embedding != NULL)
		prom_embedding_check(query->embedding);
	prom_words_of_query(owner, query->text, &words);
	find.values[FIND_OWNER] = CStringGetTextDatum(owner->name);
	find.values[FIND_OWNER_OID] = ObjectIdGetDatum(owner->oid);
	find.values[FIND_AGENT] = CStringGetTextDatum(owner->agent);
	find.values[FIND_KINDS] = PointerGetDatum(
		query->kinds == NULL ? all_kinds() : query->kinds);
	find.values[FIND_NOW] = TimestampTzGetDatum(now_or_then());
	nest_level = NewGUCNestLevel();
	set_planner();
	find_embedding(&find, owner);
	find_and_select(&find, owner, &words);
	AtEOXact_GUC(true, nest_level);
}
