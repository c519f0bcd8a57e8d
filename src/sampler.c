/*
 * sampler.c
 *	  Which traces are exported, as prometheus._sampled() decides.
 *
 * A trace may have many trees of tasks, which go one by one.  Over all of it is
 * decided once in a request; what is then certain holds for the rest of them,
 * and what is not, for a tree that has nothing in it by which it would be.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "sampler.h"
#include "trace.h"
#include "xact.h"

typedef struct Decision
{
	pg_uuid_t trace_id;
	bool is_certain;
	bool is_sampled;
	bool has_threshold;
	char threshold[PROM_TRACE_THRESHOLD_SIZE];
} Decision;

struct PromSampler
{
	HTAB *known;
};

static PromStatement tasks_statement = {
	"SELECT pg_catalog.array_agg(t.task_id)"
	" FROM prometheus._trace_tasks($1) t (task_id)",
	1,
	{INT8OID},
	NULL,
};

static PromStatement sampled_statement = {
	"SELECT s.is_certain, s.is_sampled, s.th FROM prometheus._sampled($1) s",
	1,
	{INT8ARRAYOID},
	NULL,
};

PromSampler *
prom_sampler_begin(void)
{
	PromSampler *sampler = palloc(sizeof(PromSampler));
	HASHCTL control = {
		.keysize = sizeof(pg_uuid_t),
		.entrysize = sizeof(Decision),
		.hcxt = CurrentMemoryContext,
	};

	sampler->known = hash_create("prometheus sampler", 256, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return sampler;
}

/* As these tasks are. */
static void
look(Datum tasks, Decision *decision)
{
	const char *threshold;

	prom_statement_run(&sampled_statement, &tasks, NULL, false);
	if (SPI_processed == 0)
		return;
	decision->is_certain = prom_row_bool(0, 1);
	decision->is_sampled = prom_row_bool(0, 2);
	threshold = prom_row_text_or_null(0, 3);
	decision->has_threshold = threshold != NULL;
	if (threshold != NULL)
		strlcpy(decision->threshold, threshold, sizeof(decision->threshold));
	SPI_freetuptable(SPI_tuptable);
}

/* All that there is of the trace; the tree, if it went meanwhile. */
static Datum
find_tasks(int64 task_id, Datum tree)
{
	Datum value = Int64GetDatum(task_id);
	Datum tasks;
	bool isnull;

	prom_statement_run(&tasks_statement, &value, NULL, false);
	tasks = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	return isnull ? tree : tasks;
}

bool
prom_sampler_decide(PromSampler *sampler, const pg_uuid_t *trace_id,
					Datum tasks, int64 task_id, const char **trace_state)
{
	Decision *known = hash_search(sampler->known, trace_id, HASH_FIND, NULL);
	Decision decision = {.trace_id = *trace_id};

	if (known == NULL)
		look(find_tasks(task_id, tasks), &decision);
	else if (!known->is_certain)
		look(tasks, &decision);
	if (known == NULL || decision.is_certain)
	{
		known = hash_search(sampler->known, trace_id, HASH_ENTER, NULL);
		*known = decision;
	}
	*trace_state = known->has_threshold
					   ? psprintf("ot=th:%s", known->threshold)
					   : NULL;
	return known->is_sampled;
}
