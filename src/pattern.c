/*
 * pattern.c
 *	  The patterns of JSON Schemas.
 *
 * A pattern is a regular expression of PostgreSQL in collation "C", without
 * back references and lookaround: what is left takes time that is linear in
 * the length of the text, and the process that checks answers has no other
 * for a whole database.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "regex/regexport.h"
#include "utils/memutils.h"

#include "schema.h"

/*
 * Of a pattern: bytes, and states that it may need.  Of all patterns: the time
 * to compile them, which some short ones have no end of, ms.  They are compiled
 * again for each check.
 */
#define MAX_PATTERN 1000
#define MAX_STATES 1000
#define MAX_COMPILE 100

/* Processor time of this process, ms. */
static double
processor_time(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec * 1000.0 + usage.ru_utime.tv_usec / 1000.0;
}

static void
free_regex(void *regex)
{
	pg_regfree(regex);
}

/* What a step of its machine has to look at, if it was not there before. */
static int
width_of(const regex_t *regex)
{
	int width = pg_reg_getnumcolors(regex);

	for (int state = 0; state < pg_reg_getnumstates(regex); state++)
		width += pg_reg_getnumoutarcs(regex, state);
	return width;
}

/* Compile a pattern; what is wrong with it, or NULL. */
static const char *
compile(PromSchemaPattern *pattern)
{
	pg_wchar *wide = palloc(sizeof(pg_wchar) * (pattern->length + 1));
	int nwide = pg_mb2wchar_with_len(pattern->text, wide, pattern->length);
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	regex_t *regex = palloc0(sizeof(regex_t));
	char error[100];
	int code = pg_regcomp(regex, wide, nwide, REG_ADVANCED | REG_NOSUB,
						  C_COLLATION_OID);

	pfree(wide);
	if (code != REG_OKAY)
	{
		/* It may have been a signal that stopped it. */
		CHECK_FOR_INTERRUPTS();
		pg_regerror(code, regex, error, sizeof(error));
		return psprintf("is not a regular expression: %s", error);
	}

	/* Before PostgreSQL 16 it is malloc'd. */
	callback->func = free_regex;
	callback->arg = regex;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	pattern->regex = regex;
	pattern->width = width_of(regex);
	return NULL;
}

regex_t *
prom_schema_regex(PromSchemaPattern *pattern)
{
	if (pattern->regex == NULL)
		compile(pattern);
	return pattern->regex;
}

/*
 * What means another thing in ECMAScript, or nothing, than in PostgreSQL: the
 * one who wrote it is told, rather than answers refused that fit.
 */
static const char *
foreign_problem(const PromSchemaPattern *pattern)
{
	const char *text = pattern->text;
	const char *end = text + pattern->length;

	if (pattern->length >= 3 && strncmp(text, "***", 3) == 0)
		return "must not begin with \"***\"";
	if (pattern->length >= 3 && text[0] == '(' && text[1] == '?' &&
		isalpha((unsigned char) text[2]))
		return "must not begin with options, such as \"(?i)\"";
	for (; text + 1 < end; text++)
	{
		if (*text != '\\')
			continue;
		text++;
		if (*text != '\0' && strchr("bBAZmMyYx", *text) != NULL)
			return psprintf("must not use \\%c, which PostgreSQL does not read as JSON Schema does",
							*text);
	}
	return NULL;
}

const char *
prom_schema_pattern_problem(PromSchemaPattern *pattern, double *compile_ms)
{
	double before = processor_time();
	const char *problem;

	if (pattern->length > MAX_PATTERN)
		return psprintf("must not have more than %d bytes", MAX_PATTERN);
	problem = foreign_problem(pattern);
	if (problem == NULL)
		problem = compile(pattern);
	if (problem != NULL)
		return problem;
	if (pattern->regex->re_info & REG_UBACKREF)
		return "must not refer back to a part of itself";
	if (pattern->regex->re_info & REG_ULOOKAROUND)
		return "must not look ahead or behind";
	*compile_ms += processor_time() - before;
	if (pg_reg_getnumstates(pattern->regex) > MAX_STATES ||
		*compile_ms > MAX_COMPILE)
		return "is too complex";
	return NULL;
}
