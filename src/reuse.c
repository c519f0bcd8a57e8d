/*
 * reuse.c
 *	  Answers a request with the reply that an equal one has had.
 *
 * A model with the option cache has the good replies of its requests found
 * again, in their steps, by a hash of all that was sent but the key, and of who
 * submitted the task: nobody learns what others were answered, nor that they
 * asked.  What is used again is a step of its own, which says whose it was and
 * costs nothing; it is reviewed as any other, and never found itself, or a
 * reply would be renewed for ever.
 *
 * Of equal requests one is under way at a time, and the others wait for its
 * step.  If there is none, since it failed, the next of them goes.
 *
 * An answer that the policies did not allow, of the step itself or of the last
 * one that used its reply, is not used again: the model is asked anew, and what
 * it says then is the newest reply.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "encoding.h"
#include "provider/provider.h"
#include "reuse.h"
#include "xact.h"

/* Those whose requests are under way, or are about to be. */
static dlist_head leaders = DLIST_STATIC_INIT(leaders);

/* One has left since it was last asked. */
static bool has_left = false;

static void
add_word(StringInfo text, const char *word)
{
	appendBinaryStringInfo(text, word, strlen(word) + 1);
}

/* The hash of its request, and of whose it is. */
static void
set_key(PromAttempt *attempt, const PromModel *model, const PromLoaded *loaded)
{
	StringInfoData text;
	bytea *digest;

	initStringInfo(&text);
	appendStringInfoSpaces(&text, VARHDRSZ);
	add_word(&text, loaded->source.submitter);
	appendBinaryStringInfo(&text, (const char *) &loaded->source.submitter_oid,
						   sizeof(Oid));
	add_word(&text, model->api);
	add_word(&text, model->endpoint);
	add_word(&text, attempt->prompt->model);
	prom_provider_build(&text, model, attempt->prompt);
	SET_VARSIZE(text.data, text.len);
	digest = DatumGetByteaPP(
		DirectFunctionCall1(sha256_bytea, PointerGetDatum(text.data)));
	Assert(VARSIZE_ANY_EXHDR(digest) == sizeof(attempt->request_hash));
	memcpy(attempt->request_hash, VARDATA_ANY(digest),
		   sizeof(attempt->request_hash));
	attempt->has_hash = true;
	pfree(text.data);
}

/* The newest reply, if neither its own step nor the last copy was vetoed. */
static PromStatement step_statement = {
	"SELECT s.event_id, coalesce(s.calls, 0), coalesce(s.reply, s.answer), s.raw, s.finish_reason"
	" FROM (SELECT * FROM prometheus._step x"
	"  WHERE x.request_hash = $1 AND x.ended_at > $2"
	"  ORDER BY x.ended_at DESC LIMIT 1) s"
	" WHERE NOT EXISTS (SELECT 1 FROM prometheus._verdict v"
	"   WHERE v.task_id = s.task_id AND v.step = s.step"
	"   AND v.stage = 'answer' AND NOT v.approved)"
	" AND NOT EXISTS (SELECT 1 FROM (SELECT y.task_id, y.step"
	"   FROM prometheus._step y WHERE y.reused = s.event_id"
	"   ORDER BY y.event_id DESC LIMIT 1) c"
	"  JOIN prometheus._verdict v ON v.task_id = c.task_id AND v.step = c.step"
	"  WHERE v.stage = 'answer' AND NOT v.approved)",
	2,
	{BYTEAOID, TIMESTAMPTZOID},
	NULL,
};

static const char *
text_or_null(int column)
{
	const char *text = prom_row_text_or_null(0, column);

	return text == NULL ? NULL : prom_encoding_to_utf8(text);
}

/* A reply that is not too old. */
static bool
find_step(PromAttempt *attempt, const PromModel *model, PromReply *reply,
		  TimestampTz now)
{
	bytea *hash = palloc(VARHDRSZ + sizeof(attempt->request_hash));
	Datum values[2] = {
		PointerGetDatum(hash),
		TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, -model->cache)),
	};
	bool found;

	SET_VARSIZE(hash, VARHDRSZ + sizeof(attempt->request_hash));
	memcpy(VARDATA(hash), attempt->request_hash, sizeof(attempt->request_hash));
	prom_statement_run(&step_statement, values, NULL, true);
	found = SPI_processed > 0;
	if (found)
	{
		prom_reply_init(reply);
		reply->ok = true;
		attempt->reused = prom_row_int64(0, 1);
		reply->ncalls = (int) prom_row_int64(0, 2);
		reply->answer = text_or_null(3);
		reply->raw = text_or_null(4);
		reply->finish_reason = text_or_null(5);
		reply->tokens_in = reply->tokens_out = 0;
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

bool
prom_reuse_is_led(const PromAttempt *attempt)
{
	dlist_iter iter;

	dlist_foreach(iter, &leaders)
	{
		const PromAttempt *leader = dlist_container(PromAttempt, leading,
													iter.cur);

		if (memcmp(leader->request_hash, attempt->request_hash,
				   sizeof(attempt->request_hash)) == 0)
			return true;
	}
	return false;
}

PromReuse
prom_reuse_look(PromAttempt *attempt, const PromLoaded *loaded,
				PromReply *reply, TimestampTz now)
{
	const PromModel *model = prom_attempt_called(attempt);

	Assert(!attempt->leads);
	attempt->has_hash = false;
	attempt->reused = 0;
	if (model->cache == 0 || prom_provider_find(model->api) == NULL)
		return PROM_REUSE_NONE;
	set_key(attempt, model, loaded);
	if (find_step(attempt, model, reply, now))
		return PROM_REUSE_FOUND;
	if (prom_reuse_is_led(attempt))
		return PROM_REUSE_WAIT;
	attempt->leads = true;
	dlist_push_tail(&leaders, &attempt->leading);
	return PROM_REUSE_NONE;
}

void
prom_reuse_leave(PromAttempt *attempt)
{
	if (!attempt->leads)
		return;
	attempt->leads = false;
	dlist_delete(&attempt->leading);
	has_left = true;
}

bool
prom_reuse_has_left(void)
{
	bool left = has_left;

	has_left = false;
	return left;
}
