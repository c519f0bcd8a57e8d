/*
 * step.h
 *	  The steps of an attempt, of which only chat is built.
 */
#ifndef PROM_STEP_H
#define PROM_STEP_H

#include "attempt.h"
#include "fact.h"

/* The step of a reply, good or not; of echo too, which has no call. */
extern void prom_step_add_chat(PromFactWriter *writer,
							   const PromAttempt *attempt,
							   const PromReply *reply, TimestampTz now);

#endif
