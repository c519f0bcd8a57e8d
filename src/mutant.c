/*
 * mutant.c
 *	  Lets the server make a known mistake, of which a test must take notice.
 *
 * A test that finds nothing wrong may be one that looks at nothing.  So each
 * mistake that a rule of AS OF forbids can be made on purpose: the setting
 * prometheus.mutant names it, and test/t/482_mutant.pl makes all of them.
 */
#include "postgres.h"

#ifdef PROM_FAULTS

#include "utils/guc.h"

#include "mutant.h"

static const char *const mutants[] = {
	"mark-before-snapshot", /* has a time of before its snapshot */
	"mark-not-closed",      /* answers before a later one is committed */
	"seen-unless-later",    /* also what was running then */
	"seen-if-older",        /* only what is older than all that ran then */
	"fact-of-subxact",      /* has the xid of the subtransaction */
	"version-ahead",        /* has a mark that is not written yet */
	"snapshot-unchecked",   /* answers a snapshot that is older */
};

static char *setting = NULL;

static bool
is_known(const char *name)
{
	for (int i = 0; i < lengthof(mutants); i++)
		if (strcmp(mutants[i], name) == 0)
			return true;
	return false;
}

static bool
check_mutant(char **newval, void **extra, GucSource source)
{
	return **newval == '\0' || is_known(*newval);
}

void
prom_mutant_define(void)
{
	DefineCustomStringVariable("prometheus.mutant",
							   "The mistake that this build for tests makes.",
							   NULL, &setting, "", PGC_SIGHUP, 0, check_mutant,
							   NULL, NULL);
}

bool
prom_mutant_is(const char *name)
{
	Assert(is_known(name));
	return setting != NULL && strcmp(setting, name) == 0;
}

#endif
