/*
 * option.h
 *	  The options of models and agents: a json object with known names.
 */
#ifndef PROM_OPTION_H
#define PROM_OPTION_H

#include "agent.h"
#include "utils/jsonb.h"

/* Raise unless every option is known and has a fitting value. */
extern void prom_option_check_model(Jsonb *options);
extern void prom_option_check_agent(Jsonb *options);

/* Raise unless requests to this api may have what extra_body adds. */
extern void prom_option_check_extra_body(Jsonb *options, const char *api);

/* Fill in what the options say, and the defaults of the others. */
extern void prom_option_read_model(Jsonb *options, PromModel *model);
extern void prom_option_read_agent(Jsonb *options, PromAgent *agent);

/* Of an agent's options, memory_limit; -1: not set. */
extern int64 prom_option_memory_limit(Jsonb *options);

/* The name of its embedding_model; NULL: none. */
extern char *prom_option_embedding_model(Jsonb *options);

/* The text search configuration of its language; InvalidOid: none, or gone. */
extern Oid prom_option_language(Jsonb *options);

#endif
