/*
 * review.h
 *	  A review of a request or an answer that takes an executor.
 */
#ifndef PROM_REVIEW_H
#define PROM_REVIEW_H

#include "shmem.h"

/* A job: it is judged by policies with conditions.  See prom_act(). */
extern void prom_act_review(PromJob *job);

/* A job: it is judged by a model that is a function. */
extern void prom_act_counsel(PromJob *job);

#endif
