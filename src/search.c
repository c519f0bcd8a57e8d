/*
 * search.c
 *	  Looks for a regular expression in a text, and not for long.
 *
 * There are expressions that need a time without end for some texts, and the
 * text is of whoever submits.  The server's engine looks for interrupts as it
 * goes on, so a time-out of our own cancels it; that is not the time-out of
 * statements, or nobody could say whose cancel it was.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "search.h"

static TimeoutId search_timeout;
static bool is_registered = false;
static volatile bool is_over;

static void
end_search(void)
{
	is_over = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

static void
begin_timeout(int timeout)
{
	if (!is_registered)
		search_timeout = RegisterTimeout(USER_TIMEOUT, end_search);
	is_registered = true;
	is_over = false;
	enable_timeout_after(search_timeout, timeout);
}

/* It may have come just after the end. */
static void
end_timeout(void)
{
	disable_timeout(search_timeout, false);
	if (is_over)
		QueryCancelPending = false;
}

PromSearch
prom_search(text *regex, const char *in, int timeout, const char **why)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	volatile PromSearch found = PROM_SEARCH_GAVE_UP;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		begin_timeout(timeout);
		found = DatumGetBool(DirectFunctionCall2Coll(
					textregexeq, DEFAULT_COLLATION_OID, CStringGetTextDatum(in),
					PointerGetDatum(regex)))
					? PROM_SEARCH_FOUND
					: PROM_SEARCH_NOT_FOUND;
		end_timeout();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *failure;

		end_timeout();
		MemoryContextSwitchTo(context);
		failure = CopyErrorData();
		if (failure->sqlerrcode == ERRCODE_QUERY_CANCELED && !is_over)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		*why = is_over ? psprintf("it was not found within %d ms", timeout)
					   : failure->message;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return found;
}
