/*
 * answer.h
 *	  Holds the answer of a model against the schema of its task.
 */
#ifndef PROM_ANSWER_H
#define PROM_ANSWER_H

#include "llm.h"
#include "utils/jsonb.h"

/*
 * A good reply whose answer does not fit fails, as SchemaMismatch, and keeps
 * its answer.  schema may be NULL, and is freed: it may have 1 MB, and a turn
 * may need a thousand.
 */
extern void prom_answer_check(Jsonb *schema, PromReply *reply);

#endif
