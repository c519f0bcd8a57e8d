/*
 * commission.h
 *	  A tool that a model is to write: what it must do, and how it is tried.
 */
#ifndef PROM_COMMISSION_H
#define PROM_COMMISSION_H

#include "nodes/pg_list.h"
#include "tool.h"
#include "utils/jsonb.h"

/* What a function that is tried is called with in policies and steps. */
#define PROM_COMMISSION_TOOL "create_tool"

/* Functions of one task that are tried. */
#define PROM_MAX_CANDIDATES 3

/* Arguments of one tool. */
#define PROM_MAX_WANTED 32

/* What the values of the examples are, and so which types can hold them. */
typedef enum PromValueKind
{
	PROM_VALUE_UNKNOWN, /* only null was seen */
	PROM_VALUE_BOOLEAN,
	PROM_VALUE_INTEGER,
	PROM_VALUE_NUMBER,
	PROM_VALUE_TEXT,
	PROM_VALUE_ARRAY,
	PROM_VALUE_ANY /* an object, or of several kinds */
} PromValueKind;

/* An argument, or the result. */
typedef struct PromWanted
{
	const char *name; /* NULL: the result */
	PromValueKind kind;
	Oid type; /* exactly this one; InvalidOid: one that fits the kind */
} PromWanted;

typedef struct PromExample
{
	Jsonb *input;   /* an object */
	Jsonb *output;  /* of any kind */
	bool held_back; /* the model is not shown it */
} PromExample;

typedef struct PromCommission
{
	const char *name; /* of the tool; NULL: the model chooses */
	const char *description;
	int nwanted;
	PromWanted *wanted; /* the arguments */
	PromWanted result;
	int nexamples;
	PromExample *examples;
	List *relations; /* texts: SCHEMA.NAME, what it may read */
	bool allows_volatile;
	bool assigns; /* its agent is to have the tool */
} PromCommission;

/* Read what the task's row has. */
extern PromCommission *prom_commission_read(Jsonb *document);

/* The same of a task; NULL: it has none.  With SPI connected. */
extern PromCommission *prom_commission_find(int64 task_id);

/* Can a value of this type be one of that kind? */
extern bool prom_commission_fits(const PromWanted *wanted, Oid type);

/* The type that is recommended for it. */
extern Oid prom_commission_type(const PromWanted *wanted);

/* What the model is asked. */
extern const char *prom_commission_request(const PromCommission *commission);

/*
 * The oids of the relations.  Raises unless each is there, is the application's
 * and may be read by that role.
 */
extern List *prom_commission_relations(const PromCommission *commission,
									   Oid role);

/* The statement in what a model answered: without a fence around it. */
extern const char *prom_commission_statement(const char *answer);

/* It as the arguments of such a call, as JSON. */
extern const char *prom_commission_arguments(const char *statement);

/* What policies judge: the tool whose call the statement is. */
extern const PromTool *prom_commission_tool(void);

#endif
