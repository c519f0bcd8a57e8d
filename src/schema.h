/*
 * schema.h
 *	  JSON Schema: what an answer, or an argument, must look like.
 *
 * schema.c reads schemas and says what is wrong with them, pattern.c their
 * patterns; document.c looks through a document, and mismatch.c holds it
 * against one; strict.c knows one rule book more.
 */
#ifndef PROM_SCHEMA_H
#define PROM_SCHEMA_H

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "regex/regex.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/* Levels of schemas within schemas, and steps of $ref and allOf in a row. */
#define PROM_SCHEMA_MAX_DEPTH 64

/* Bytes, and schemas within it: one that is read takes far more memory. */
#define PROM_SCHEMA_MAX_BYTES (1024 * 1024)
#define PROM_SCHEMA_MAX_SCHEMAS 10000

/* Digits of a document's number on each side of its point. */
#define PROM_SCHEMA_MAX_DIGITS 400

/* Raise unless this is a schema that can be obeyed to the letter. */
extern void prom_schema_check(Jsonb *schema);

/*
 * How a text (in the encoding of the database) fails to be JSON that fits, as
 * one palloc'd line: "at /items/3/price: is a string, must be a number".  NULL
 * if it fits; then it can also be cast to jsonb.  No text makes it raise, if
 * the schema passed prom_schema_check().
 */
extern char *prom_schema_mismatch(Jsonb *schema, const char *answer);

/*
 * Has so much time gone into mismatches since the last rest that what is not
 * urgent should wait?  Never before the first of them.
 */
extern bool prom_schema_is_tired(void);
extern void prom_schema_rest(void);

/* Does a schema that passed obey the rules of OpenAI's strict mode? */
extern bool prom_schema_is_strict(Jsonb *schema);

/*
 * A JSON text in the encoding of the database, with a sign for each escape of a
 * character that jsonb cannot have; palloc'd.
 */
extern const char *prom_schema_mend(const char *text);


/* What those files share. */

/* Types of JSON, as bits; a whole number is of the last two. */
#define PROM_JSON_NULL 0x01
#define PROM_JSON_BOOLEAN 0x02
#define PROM_JSON_OBJECT 0x04
#define PROM_JSON_ARRAY 0x08
#define PROM_JSON_STRING 0x10
#define PROM_JSON_NUMBER 0x20
#define PROM_JSON_INTEGER 0x40
#define PROM_JSON_NTYPES 7

/* The name of the type that is 1 << bit. */
extern const char *const prom_json_type_names[PROM_JSON_NTYPES];

/* A place in a document, from the inside to the root, which is NULL. */
typedef struct PromPlace
{
	const struct PromPlace *parent;
	const char *name; /* of a member; NULL: an element */
	int length;       /* of the name */
	int index;        /* of the element */
} PromPlace;

/* Append a place as a JSON pointer on one line, shortened if it is long. */
extern void prom_place_write(StringInfo line, const PromPlace *place);

typedef struct PromSchema PromSchema;

typedef struct PromSchemaList
{
	int n;
	PromSchema **schemas;
} PromSchemaList;

/* Members in the order of jsonb: by length, then by bytes. */
typedef struct PromSchemaMember
{
	const char *name;
	int length;
	PromSchema *schema;
} PromSchemaMember;

typedef struct PromSchemaMembers
{
	int n;
	PromSchemaMember *members;
} PromSchemaMembers;

typedef struct PromSchemaPattern
{
	const char *text;
	int length;
	regex_t *regex; /* NULL: not compiled yet */
	int width;      /* arcs and colours: what a character costs at most */
} PromSchemaPattern;

/* A schema that was read.  Pointers are NULL, and counts -1, if not set. */
struct PromSchema
{
	bool is_boolean; /* true or false, and nothing else */
	bool boolean;

	int types; /* 0: any */
	int nvalues;
	JsonbValue *values; /* of enum */
	JsonbValue *constant;

	PromSchemaMembers properties;
	int nrequired;
	JsonbValue *required;
	PromSchema *additional;

	PromSchema *items; /* all but those of prefix */
	PromSchemaList prefix;
	int min_items;
	int max_items;
	bool unique;

	int min_length;
	int max_length;
	PromSchemaPattern *pattern;

	Numeric minimum;
	Numeric maximum;
	Numeric above; /* exclusiveMinimum */
	Numeric below; /* exclusiveMaximum */
	Numeric multiple_of;

	PromSchemaList all;
	PromSchemaList any;
	PromSchemaList one;
	PromSchema * not ;
	PromSchema *target; /* of $ref */

	/* For reading only. */
	PromSchema *next;
	const PromPlace *place;
	int level; /* of objects around it */
	int nkeywords;
	bool is_strict;     /* each keyword is one of strict mode */
	bool is_additional; /* it is under additionalProperties */
	JsonbValue *ref;
	PromSchemaMembers defs;
	PromSchemaMembers definitions;
	int height; /* steps of $ref, allOf, ... below it; -1: being counted */
};

/*
 * Read a schema into the current memory context; raises as _check() does.
 * known: it passed before, so patterns need not be tried.
 */
extern PromSchema *prom_schema_read(Jsonb *json, bool known);

/* Why jsonb_in() would raise for a text, or take too long; or NULL. */
extern const char *prom_schema_unreadable(const char *text);

/* The schema of a member, or NULL. */
extern PromSchema *prom_schema_member(const PromSchemaMembers *members,
									  const char *name, int length);

/* The pattern, compiled into the current memory context; NULL: no memory. */
extern regex_t *prom_schema_regex(PromSchemaPattern *pattern);

/*
 * What speaks against a pattern, or NULL.  *compile_ms is what was spent on
 * those before it, and then on it too.
 */
extern const char *prom_schema_pattern_problem(PromSchemaPattern *pattern,
											   double *compile_ms);

/* SQL's prometheus._json(text): what a model wrote, as jsonb. */
extern Datum prom_json(PG_FUNCTION_ARGS);

#endif
