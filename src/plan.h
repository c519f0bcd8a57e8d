/*
 * plan.h
 *	  Plans: what a model is asked for, and which of them is followed.
 */
#ifndef PROM_PLAN_H
#define PROM_PLAN_H

#include "lib/stringinfo.h"

/* The schema of the reply, as JSON. */
extern const char prom_plan_schema[];

/* The question, for tools of these names; UTF-8. */
extern const char *prom_plan_question(const char *tools);

typedef struct PromPlan
{
	const char *chosen; /* as JSON: approach, success, cost, steps */
	double success;     /* the product of its steps' probabilities */
	const char *risk;   /* a critical one that it takes; NULL: none */
} PromPlan;

/*
 * Choose from a reply that fits the schema: the likeliest to succeed of those
 * that take no critical risk; if each does, of all.
 */
extern void prom_plan_choose(const char *reply, PromPlan *plan);

#endif
