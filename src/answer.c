/*
 * answer.c
 *	  Holds the answer of a model against the schema of its task.
 */
#include "postgres.h"

#include "answer.h"
#include "encoding.h"
#include "schema.h"

/* A turn that calls tools is no answer. */
void
prom_answer_check(Jsonb *schema, PromReply *reply)
{
	char *mismatch = NULL;

	if (schema == NULL)
		return;
	if (reply->ok && reply->ncalls == 0)
		mismatch = prom_schema_mismatch(schema,
										prom_encoding_from_utf8(reply->answer));
	pfree(schema);
	if (mismatch == NULL)
		return;
	reply->ok = false;
	reply->error_type = "SchemaMismatch";
	reply->error =
		prom_encoding_words_to_utf8(psprintf("answer %s", mismatch));
	reply->retry = PROM_RETRY_BACKOFF;
	reply->retry_after = -1;
}
