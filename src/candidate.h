/*
 * candidate.h
 *	  A function that a model wrote: whether it is one that may be tried.
 */
#ifndef PROM_CANDIDATE_H
#define PROM_CANDIDATE_H

#include "commission.h"
#include "nodes/parsenodes.h"

/* The schema of what is made, and the role that owns it and may do nothing. */
#define PROM_TOOL_SCHEMA "prometheus_tool"
#define PROM_ROLE_TOOL "prometheus_tool_owner"

typedef struct PromCandidate
{
	const char *statement;
	CreateFunctionStmt *parsed;
	const char *name; /* that the model gave the function */
} PromCandidate;

/*
 * Read the statement of a model.  Raises, with what the model is told, unless
 * it is one CREATE FUNCTION of a form that is allowed, and names nothing that
 * is not.  Nothing is looked up but types of PostgreSQL's own.
 */
extern void prom_candidate_read(PromCandidate *candidate,
								const PromCommission *commission,
								const char *statement);

/*
 * Make the function, under that name; its oid.  Raises as above unless its
 * signature is the one that was asked for and its body is of what is allowed.
 * As the role that is to own it, with a search_path of pg_catalog.
 */
extern Oid prom_candidate_make(PromCandidate *candidate,
							   const PromCommission *commission,
							   List *relations, const char *name);

/*
 * What is wrong with a statement, or NULL; nothing is left of it.  Raises what
 * says nothing of it, as a cancel.
 */
extern const char *prom_candidate_fault(const PromCommission *commission,
										const char *statement, List *relations,
										Oid owner);

#endif
