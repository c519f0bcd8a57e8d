/*
 * work.c
 *	  Writes what the caller has in hand: the facts of one turn.
 *
 * All works of a turn are one transaction.  If it fails, each is tried alone,
 * so that one bad row cannot hold up others; what the server cannot write just
 * now is kept and tried again; what can never be written ends its task with the
 * error.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "fault.h"
#include "guc.h"
#include "guilt.h"
#include "llm.h"
#include "route.h"
#include "schema.h"
#include "sight.h"
#include "spending.h"
#include "summary.h"
#include "work.h"
#include "worker.h"
#include "xact.h"

/*
 * What a turn may load to begin tasks: a part of network_memory.  Until the
 * commit each byte is there several times.
 */
#define TURN_BYTES ((int64) prom_guc_network_memory * 1024 / 8)

/*
 * Works in a row that cannot be written, one by one, until the rest is taken
 * not to be either.
 */
#define FAILS_ENOUGH 3

void
prom_work_name(const PromWork *work)
{
	prom_guilt_name(work->attempt.task_id, work->attempt.step);
}

void
prom_work_reach_faults(PromWork **list, int n, bool committed)
{
	for (int i = 0; i < n; i++)
	{
		switch (list[i]->stage)
		{
			case PROM_WORK_BEGIN:
			case PROM_WORK_INTEND:
				if (committed)
					PROM_FAULT("begin-after-commit");
				else
					PROM_FAULT("begin-before-commit");
				break;
			case PROM_WORK_RECORD:
			case PROM_WORK_RESULT:
				if (committed)
					PROM_FAULT("record-after-commit");
				else
					PROM_FAULT("record-before-commit");
				break;
			case PROM_WORK_CANCEL:
				if (committed)
					PROM_FAULT("cancel-after-commit");
				else
					PROM_FAULT("cancel-before-commit");
				break;
			case PROM_WORK_NONE:
			case PROM_WORK_CALL:
			case PROM_WORK_JOBS:
				break;
		}
	}
}

static void
write_items(PromWork **list, int n, TimestampTz now)
{
	PromFactWriter *writer;
	PromAttempt *begin[PROM_WORK_MOST_BEGIN];
	int count = 0;

	prom_summary_begin();
	writer = prom_fact_begin();
	for (int i = 0; i < n; i++)
	{
		switch (list[i]->stage)
		{
			case PROM_WORK_BEGIN:
				if (list[i]->failure[0] != '\0')
					prom_attempt_give_up(writer, &list[i]->attempt,
										 "ConfigurationError",
										 list[i]->failure, now);
				else
					begin[count++] = &list[i]->attempt;
				break;
			case PROM_WORK_RECORD:
				prom_work_name(list[i]);
				PROM_FAULT("before-record");
				prom_attempt_record(writer, &list[i]->attempt, now);
				break;
			case PROM_WORK_CANCEL:
				prom_work_name(list[i]);
				prom_attempt_cancel(writer, &list[i]->attempt, now);
				break;
			case PROM_WORK_INTEND:
				prom_work_name(list[i]);
				prom_errand_intend(writer, list[i]->errand, now);
				break;
			case PROM_WORK_RESULT:
				prom_work_name(list[i]);
				PROM_FAULT("before-record");
				prom_errand_record(writer, list[i]->errand, now);
				break;
			case PROM_WORK_NONE:
			case PROM_WORK_CALL:
			case PROM_WORK_JOBS:
				elog(ERROR, "nothing to write for task %lld",
					 (long long) list[i]->attempt.task_id);
		}
	}
	/* What is done for many together is blamed on none of them. */
	if (n > 1)
		prom_guilt_clear();
	if (count > 0)
		prom_attempt_begin(writer, begin, count, TURN_BYTES, now);
	if (n > 1)
		prom_guilt_clear();
	prom_fact_end(writer);
	prom_summary_save(now);
	prom_work_reach_faults(list, n, false);
}

/* Try it again in a while; its reply, if it has one, is kept. */
static void
keep_for_later(PromWork *work, TimestampTz now)
{
	if (work->stage == PROM_WORK_BEGIN)
		prom_route_leave(&work->attempt);
	work->not_before = TimestampTzPlusMilliseconds(now, PROM_WORK_WRITE_AGAIN);
}

/* Run in a transaction; the error, or NULL.  The error has been logged. */
static ErrorData *
try_transaction(PromWork **list, int n, const char *error_type,
				const char *error, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile failure = NULL;

	PG_TRY();
	{
		if (!prom_worker_xact_begin("recording and beginning tasks"))
			proc_exit(0);
		SPI_connect();
		MemoryContextSwitchTo(context);
		prom_spending_begin(now);
		if (n == 1)
			prom_work_name(list[0]);
		if (error == NULL)
			write_items(list, n, now);
		else
		{
			PromFactWriter *writer;

			prom_summary_begin();
			writer = prom_fact_begin();
			prom_attempt_give_up(writer, &list[0]->attempt, error_type, error,
								 now);
			prom_fact_end(writer);
			prom_summary_save(now);
			PROM_FAULT("give-up-before-commit");
		}
		SPI_finish();
		prom_guilt_clear(); /* a full disk is not its fault */
		prom_xact_commit();
		prom_spending_end(true);
	}
	PG_CATCH();
	{
		prom_guilt_clear();
		MemoryContextSwitchTo(context);
		failure = CopyErrorData();
		prom_xact_abort();
		prom_spending_end(false);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return failure;
}

/*
 * An errand that can never be written: its step says so, or its task ends.
 * False: it is kept.
 */
static bool
give_up_errand(PromWork *work, const ErrorData *failure, TimestampTz now)
{
	PromErrand *errand = work->errand;
	bool written = false;

	if (work->stage == PROM_WORK_RESULT &&
		failure->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
	{
		ErrorData *again;

		errand->problem = failure->message;
		again = try_transaction(&work, 1, NULL, NULL, now);
		errand->problem = NULL;
		if (again != NULL && prom_xact_is_transient(again->sqlerrcode))
		{
			keep_for_later(work, now);
			return false;
		}
		written = again == NULL;
	}
	errand->next = PROM_ERRAND_END;
	if (!written && failure->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
		strlcpy(work->task->failure, failure->message,
				sizeof(work->task->failure));
	return true;
}

/* One work alone: true if it was written, false if it is kept. */
static bool
write_alone(PromWork *work, TimestampTz now)
{
	ErrorData *failure = try_transaction(&work, 1, NULL, NULL, now);
	bool begins = work->stage == PROM_WORK_BEGIN;

	if (failure == NULL)
		return true;
	if (prom_xact_is_transient(failure->sqlerrcode))
	{
		keep_for_later(work, now);
		return false;
	}
	if (work->errand != NULL)
		return give_up_errand(work, failure, now);
	if (failure->sqlerrcode == ERRCODE_UNIQUE_VIOLATION)
	{
		/* Another owner was first: read again what is true. */
		work->attempt.next = PROM_NEXT_LATER;
		work->attempt.due =
			TimestampTzPlusMilliseconds(now, PROM_WORK_WRITE_AGAIN);
		work->attempt.retrying = true;
		return true;
	}
	failure = try_transaction(&work, 1,
							  begins ? "ConfigurationError" : "ModelUnreadable",
							  failure->message, now);
	if (failure == NULL)
		return true;
	keep_for_later(work, now);
	return false;
}

/*
 * The transaction of all works failed: each alone, so that one cannot hold up
 * the others.  How many were written; they come first now.
 */
static int
write_each(PromWork **list, int n, bool general, TimestampTz now)
{
	int written = 0;
	int failed = general ? FAILS_ENOUGH : 0;

	for (int i = 0; i < n; i++)
	{
		if (failed >= FAILS_ENOUGH)
			keep_for_later(list[i], now);
		else if (write_alone(list[i], now))
		{
			list[written++] = list[i];
			failed = 0;
		}
		else
			failed++;
	}
	return written;
}

int
prom_work_write(PromWork **list, int n, TimestampTz now)
{
	ErrorData *failure;

	prom_schema_rest();
	failure = try_transaction(list, n, NULL, NULL, now);
	if (failure == NULL)
		return n;
	/* It must get further than to the one that failed. */
	prom_schema_rest();
	return write_each(list, n, prom_xact_is_general(failure->sqlerrcode), now);
}

/* Bytes of a reply are read for a work, or (NULL) have been. */
static void
blame(void *owner)
{
	if (owner == NULL)
		prom_guilt_clear();
	else
		prom_work_name(owner);
}

/* More of a reply has come. */
static void
hear(void *owner, const char *text, size_t length)
{
	const PromWork *work = owner;

	prom_sight_hear(work->attempt.slot, text, length);
}

/* The headers of a reply have come. */
static void
take_headers(void *owner, const PromHeaders *headers)
{
	PromWork *work = owner;

	prom_route_heard(&work->attempt, headers, GetCurrentTimestamp());
}

void
prom_work_hear_replies(void)
{
	prom_llm_blame = blame;
	prom_llm_heard = hear;
	prom_llm_headed = take_headers;
}

TimestampTz
prom_work_joined_until(const PromWork *works)
{
	TimestampTz until = DT_NOEND;

	for (int i = 0; i < prom_guc_max_in_flight; i++)
		if (works[i].joins)
			until = Min(until, works[i].not_before);
	return until;
}
