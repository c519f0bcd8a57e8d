/*
 * batch.c
 *	  Memories whose embeddings are asked for together.
 *
 * They are found by an index of those that were not given one, some at a time;
 * whether one is there meanwhile is looked up for each.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "batch.h"
#include "embedded.h"
#include "encoding.h"
#include "fact.h"
#include "step.h"
#include "xact.h"

/* Memories that are looked at together. */
#define LOOKED_AT 500

#define BARE_TEXT PROM_EMBEDDED_TEXT("l.content")
#define BARE_HASH PROM_EMBEDDED_HASH("$4", "l.owner", "l.content")

/* What is not asked for is neither read nor hashed. */
static PromStatement walk_statement = {
	"SELECT l.memory_id, l.version, d.text, d.hash,"
	" d.hash IS NOT NULL AND EXISTS (SELECT FROM prometheus._embedding v"
	"   WHERE v.hash = d.hash)"
	" FROM (SELECT m.memory_id, m.version, m.owner, m.kind, m.expires_at,"
	"   m.content"
	"   FROM prometheus._memory m WHERE m.agent = $1"
	"     AND (m.memory_id, m.version) > ($2, $3)"
	"     AND NOT m.forgotten AND m.embedding IS NULL"
	"   ORDER BY m.memory_id, m.version LIMIT $6) l"
	" LEFT JOIN LATERAL (SELECT " BARE_TEXT " AS text, " BARE_HASH " AS hash"
	"   WHERE (l.expires_at IS NULL OR l.expires_at > $5)"
	"   AND NOT EXISTS (SELECT FROM prometheus._memory n"
	"     WHERE n.memory_id = l.memory_id AND n.version > l.version)"
	"   AND NOT EXISTS (SELECT FROM prometheus._memory_embedding e"
	"     WHERE e.memory_id = l.memory_id AND e.kind = l.kind"
	"       AND e.space = $4 AND (e.error IS NOT NULL OR EXISTS (SELECT"
	"         FROM prometheus._embedding v WHERE v.hash = e.hash)))"
	"   OFFSET 0) d ON true"
	" ORDER BY l.memory_id, l.version",
	6,
	{TEXTOID, INT8OID, INT8OID, TEXTOID, TIMESTAMPTZOID, INT8OID},
	NULL,
};

bool
prom_batch_read(PromBatch *batch, const char *agent, const char *space,
				PromPlace *place, int most, TimestampTz now)
{
	MemoryContext before = MemoryContextSwitchTo(batch->context);
	Datum values[6];
	bool more;
	uint64 row;

	values[0] = CStringGetTextDatum(agent);
	values[1] = Int64GetDatum(place->memory_id);
	values[2] = Int64GetDatum(place->version);
	values[3] = CStringGetTextDatum(space);
	values[4] = TimestampTzGetDatum(now);
	values[5] = Int64GetDatum(LOOKED_AT);
	batch->n = 0;
	batch->before = *place;
	prom_statement_run(&walk_statement, values, NULL, true);
	for (row = 0; row < SPI_processed && batch->n < most; row++)
	{
		PromBare *bare = &batch->bare[batch->n];

		place->memory_id = prom_row_int64(row, 1);
		place->version = prom_row_int64(row, 2);
		if (prom_row_isnull(row, 3))
			continue;
		bare->memory_id = place->memory_id;
		bare->text = prom_row_text(row, 3);
		bare->hash = prom_row_text(row, 4);
		bare->is_made = prom_row_bool(row, 5);
		batch->n++;
	}
	more = row < SPI_processed || SPI_processed == LOOKED_AT;
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(before);
	return more;
}

void
prom_batch_write_made(PromBatch *batch, const char *space)
{
	int n = 0;

	for (int i = 0; i < batch->n; i++)
	{
		const PromBare *bare = &batch->bare[i];

		if (bare->is_made)
			prom_embedded_add_memory(bare->memory_id, space, bare->hash, NULL);
		else
			batch->bare[n++] = *bare;
	}
	batch->n = n;
}

void
prom_batch_clear(PromBatch *batch)
{
	batch->n = 0;
	MemoryContextReset(batch->context);
}


/* What is asked. */

PromPrompt *
prom_batch_new_prompt(const PromModel *model, int n)
{
	PromPrompt *prompt = palloc0(sizeof(PromPrompt));
	PromMessage *messages = palloc0(n * sizeof(PromMessage));

	for (int i = 0; i < n; i++)
		messages[i].role = "user";
	prompt->messages = messages;
	prompt->nmessages = n;
	prompt->embeds = true;
	prompt->model = prom_encoding_to_utf8(
		model->model != NULL ? model->model : model->name);
	return prompt;
}

PromPrompt *
prom_batch_prompt(const PromBatch *batch, const PromModel *model)
{
	PromPrompt *prompt = prom_batch_new_prompt(model, batch->n);

	for (int i = 0; i < batch->n; i++)
		((PromMessage *) prompt->messages)[i].text =
			prom_encoding_words_to_utf8(batch->bare[i].text);
	return prompt;
}


/* What is answered. */

bool
prom_batch_is_refused(const PromReply *reply)
{
	return !reply->ok && reply->retry == PROM_RETRY_NEVER &&
		   (reply->http_status == 400 || reply->http_status == 413 ||
			reply->http_status == 422);
}

static PromStatement call_statement = {
	"INSERT INTO prometheus._embedding_call (call_id, xid, sent_at, ended_at,"
	" tokens, texts, http_status, agent, model, cost, error_type, error)"
	" VALUES ($1, prometheus._xid(), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
	11,
	{INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT4OID, INT4OID,
	 TEXTOID, TEXTOID, NUMERICOID, TEXTOID, TEXTOID},
	NULL,
};

static Datum
text_or_null(const char *text, char *null)
{
	*null = text == NULL ? 'n' : ' ';
	return text == NULL ? (Datum) 0
						: CStringGetTextDatum(prom_encoding_from_utf8(text));
}

static void
add_call(const PromBatchCall *call, int n, TimestampTz now)
{
	const PromReply *reply = call->reply;
	char nulls[12] = "           ";
	Datum values[11];
	bool isnull;

	values[0] = Int64GetDatum(prom_fact_next_id());
	values[1] = TimestampTzGetDatum(call->sent_at);
	values[2] = TimestampTzGetDatum(now);
	values[3] = Int64GetDatum(reply->tokens_in);
	nulls[3] = reply->tokens_in < 0 ? 'n' : ' ';
	values[4] = Int32GetDatum(n);
	values[5] = Int32GetDatum(reply->http_status);
	nulls[5] = reply->http_status == 0 ? 'n' : ' ';
	values[6] = CStringGetTextDatum(call->agent);
	values[7] = CStringGetTextDatum(call->model->name);
	values[8] = prom_step_cost(call->model, reply->tokens_in, -1, -1, &isnull);
	nulls[8] = isnull ? 'n' : ' ';
	values[9] = text_or_null(reply->error_type, &nulls[9]);
	values[10] = text_or_null(reply->error, &nulls[10]);
	prom_statement_run(&call_statement, values, nulls, false);
}

/* One that is refused alone is not asked for again. */
void
prom_batch_record(const PromBatch *batch, const PromBatchCall *call,
				  TimestampTz now)
{
	const PromReply *reply = call->reply;

	for (int i = 0; reply->ok && i < batch->n; i++)
	{
		const PromBare *bare = &batch->bare[i];

		prom_embedded_add(call->space, bare->hash,
						  prom_embedded_array(
							  reply->vectors + (size_t) i * reply->dimensions,
							  reply->dimensions));
		prom_embedded_add_memory(bare->memory_id, call->space, bare->hash,
								 NULL);
	}
	if (prom_batch_is_refused(reply) && batch->n == 1)
		prom_embedded_add_memory(batch->bare[0].memory_id, call->space,
								 batch->bare[0].hash,
								 prom_encoding_from_utf8(reply->error));
	add_call(call, batch->n, now);
}
