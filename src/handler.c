/*
 * handler.c
 *	  Has a model asked that is a function.
 *
 * It runs under the rules of guard.c as who set the model, and what it gives is
 * read as the body of a chat completion, so nothing that it does can be told
 * from a reply of the network.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "act.h"
#include "answer.h"
#include "encoding.h"
#include "guard.h"
#include "handler.h"
#include "prompt.h"
#include "provider/provider.h"
#include "signature.h"
#include "step.h"
#include "xact.h"

typedef struct Asked
{
	const char *handler;
	const char *request;
	MemoryContext keep;
	char *reply; /* UTF-8; NULL: it gave NULL */
} Asked;

static void
run_handler(void *arg)
{
	Asked *asked = arg;
	Oid type = JSONBOID;
	Datum value;
	bool isnull;

	SPI_connect();
	value = DirectFunctionCall1(jsonb_in, CStringGetDatum(asked->request));
	if (SPI_execute_with_args(psprintf("SELECT %s", asked->handler), 1, &type,
							  &value, NULL, false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "the handler gave no reply");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	if (!isnull)
	{
		MemoryContext before = MemoryContextSwitchTo(asked->keep);
		Jsonb *reply = DatumGetJsonbP(value);

		asked->reply = JsonbToCString(NULL, &reply->root, VARSIZE(reply));
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
}

/* The call of a handler: its name, and $1 for its argument. */
static const char *
handler_call(const PromModel *model)
{
	const char *end = strrchr(model->handler, '(');

	return psprintf("%.*s($1)", (int) (end - model->handler), model->handler);
}

static void
fail(PromReply *reply, const char *type, PromRetry retry, const char *error)
{
	reply->ok = false;
	reply->error_type = type;
	reply->retry = retry;
	reply->error = prom_encoding_words_to_utf8(
		prom_act_clip(error, PROM_ACT_MAX_ERROR));
}

/* A prompt as a handler gets it. */
static const char *
request_of(const PromModel *model, const PromPrompt *prompt)
{
	StringInfoData body;

	initStringInfo(&body);
	prom_provider_build(&body, model, prompt);
	return prom_encoding_from_utf8(body.data);
}

/* Run the handler; its reply in UTF-8, or NULL and an error in reply. */
static const char *
ask(const PromJob *job, const PromModel *model, const PromPrompt *prompt,
	PromReply *reply)
{
	TimestampTz start = GetCurrentTimestamp();
	PromGuard guard = {.search_path = model->search_path};
	Asked asked = {.keep = CurrentMemoryContext};
	Oid function = prom_signature_find(model->handler);
	char *hash = OidIsValid(function) ? prom_signature_hash(function) : NULL;
	PromGuardEnd end;

	guard.role = prom_guard_role(model->owner, model->owner_oid);
	guard.timeout = prom_act_time_left(model->total_timeout, job, start);
	if (!OidIsValid(guard.role))
		fail(reply, "ConfigurationError", PROM_RETRY_NEVER,
			 "the role that owns the model does not exist any more");
	else if (hash == NULL || strcmp(hash, model->hash) != 0)
		fail(reply, "ConfigurationError", PROM_RETRY_NEVER,
			 psprintf("the model's function %s since it was set",
					  hash == NULL ? "was dropped" : "was changed"));
	if (reply->error != NULL)
		return NULL;
	asked.handler = handler_call(model);
	asked.request = request_of(model, prompt);
	prom_guard_run(&guard, run_handler, &asked, &end);
	if (end.ok && asked.reply != NULL)
		return prom_encoding_to_utf8(asked.reply);
	if (end.ok)
		fail(reply, "ModelUnreadable", PROM_RETRY_BACKOFF,
			 "the model's function gave NULL");
	else if (end.was_cancelled)
		fail(reply, "ModelTimeout", PROM_RETRY_BACKOFF,
			 "the model's function did not end within total_timeout");
	else
		fail(reply, "ModelUnavailable", PROM_RETRY_BACKOFF,
			 psprintf("the model's function failed: %s", end.error));
	return NULL;
}

static PromStatement chat_statement = {
	"SELECT s.status = 'ok' FROM prometheus._step s"
	" WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* Is its step there?  Only the word that it was done was lost then. */
static bool
was_asked(PromJob *job)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};

	prom_statement_run(&chat_statement, values, NULL, true);
	if (SPI_processed == 0)
		return false;
	job->chat_failed = !prom_row_bool(0, 1);
	return true;
}

PromCall *
prom_handler_ask(PromJob *job, const PromModel *model, const PromPrompt *prompt,
				 PromReply *reply)
{
	PromCall *call = NULL;
	const char *answer = NULL;

	prom_reply_init(reply);
	if (prom_act_refused(job) != NULL)
		fail(reply, "ModelUnavailable", PROM_RETRY_BACKOFF,
			 psprintf("the model's function: %s", prom_act_refused(job)));
	else
		answer = ask(job, model, prompt, reply);
	prom_act_check_wanted(job);
	if (answer != NULL)
	{
		call = prom_llm_read(answer, prompt->ntools > 0);
		*reply = *prom_llm_reply(call);
	}
	return call;
}

void
prom_act_chat(PromJob *job)
{
	PromAttempt attempt = {.task_id = job->task_id,
						   .attempt = job->attempt,
						   .step = job->step,
						   .event_id = job->event_id,
						   .sent_at = GetCurrentTimestamp()};
	PromFactWriter *writer;
	PromPromptFacts facts;
	PromReply reply;
	PromCall *call;

	if (was_asked(job))
		return;
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	facts.source.before = job->event_id;
	facts.source.step = job->step;
	call = prom_handler_ask(job, facts.model,
							prom_prompt_make(&facts.source, facts.model),
							&reply);
	prom_answer_check(facts.source.output_schema, &reply);
	attempt.model = facts.model;
	writer = prom_fact_begin();
	prom_step_add_chat(writer, &attempt, &reply, GetCurrentTimestamp());
	prom_fact_end(writer);
	job->chat_failed = !reply.ok;
	job->retry = reply.retry;
	job->tokens = prom_reply_tokens(&reply);
	if (call != NULL)
		prom_llm_free(call);
}
