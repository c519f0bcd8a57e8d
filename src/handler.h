/*
 * handler.h
 *	  A model that is a function.
 */
#ifndef PROM_HANDLER_H
#define PROM_HANDLER_H

#include "llm.h"
#include "shmem.h"

/*
 * Ask a model that is a function.  reply, which may be a failure, lives as long
 * as the call that is returned; NULL: there is none to be freed.
 */
extern PromCall *prom_handler_ask(PromJob *job, const PromModel *model,
								  const PromPrompt *prompt, PromReply *reply);

/* A job: the next turn of such a model.  See prom_act(). */
extern void prom_act_chat(PromJob *job);

#endif
