/*
 * handler.h
 *	  A model that is a function.
 */
#ifndef PROM_HANDLER_H
#define PROM_HANDLER_H

#include "shmem.h"

/* A job: the next turn of such a model.  See prom_act(). */
extern void prom_act_chat(PromJob *job);

#endif
