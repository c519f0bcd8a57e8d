/*
 * strike.c
 *	  Records who crashed the server, when it is back.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "delivery.h"
#include "fault.h"
#include "guilt.h"
#include "strike.h"
#include "summary.h"
#include "worker.h"
#include "xact.h"

static void
strike(const PromCulprit *culprit, MemoryContext context)
{
	PromFactWriter *writer;
	TimestampTz now = GetCurrentTimestamp();

	if (!prom_worker_xact_begin("recording what crashed the server"))
		proc_exit(0);
	SPI_connect();
	MemoryContextSwitchTo(context);
	/* A delivery is noted by its id, below 0. */
	if (culprit->task_id < 0)
		prom_delivery_strike(-culprit->task_id, culprit->since);
	else
	{
		prom_summary_begin();
		writer = prom_fact_begin();
		prom_attempt_strike(writer, culprit, now);
		prom_fact_end(writer);
		prom_summary_save(now);
	}
	SPI_finish();
	PROM_FAULT("strike-before-commit");
	prom_xact_commit();
	PROM_FAULT("strike-after-commit");
}

/*
 * Before anything begins: who crashed the server?  What cannot be written just
 * now ends this process, which starts again; what never can is let off, or
 * nothing would begin any more.
 */
void
prom_strike_culprits(MemoryContext context)
{
	PromCulprit culprit;

	while (prom_guilt_next(&culprit))
	{
		PG_TRY();
		{
			strike(&culprit, context);
		}
		PG_CATCH();
		{
			if (prom_xact_is_transient(geterrcode()))
				PG_RE_THROW();
			prom_xact_abort();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		prom_guilt_forget(&culprit);
	}
	MemoryContextReset(context);
	prom_guilt_begin();
}
