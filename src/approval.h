/*
 * approval.h
 *	  Tool calls that wait for a person.
 */
#ifndef PROM_APPROVAL_H
#define PROM_APPROVAL_H

#include "judge.h"

typedef enum PromApprovalState
{
	PROM_APPROVAL_NONE, /* nobody was asked about exactly this */
	PROM_APPROVAL_OPEN,
	PROM_APPROVAL_APPROVED,
	PROM_APPROVAL_REFUSED /* rejected or expired */
} PromApprovalState;

/* The newest approval of one call. */
typedef struct PromApproval
{
	PromApprovalState state;
	int64 approval_id;
	const char *words; /* with APPROVED and REFUSED: who, when, why */
} PromApproval;

/*
 * Executor: what was decided about a call that was escalated.  One that has
 * just expired is decided so, in this transaction.  With SPI connected.
 */
extern void prom_approval_find(const PromJudged *judged,
							   const PromVerdict *verdict, TimestampTz now,
							   PromApproval *approval);

/* Ask for one that expires after so many ms. */
extern void prom_approval_add(PromFactWriter *writer, const PromJudged *judged,
							  const PromVerdict *verdict, int64 timeout,
							  TimestampTz now);

/*
 * Caller: of n steps of a task that are to be made, leave out those that wait
 * for a person, or for a task that was delegated; when the first of these may
 * go on by itself, at the latest at the deadline.  With SPI connected.
 */
extern TimestampTz prom_approval_leave_out(int64 task_id, int32 *steps, int *n,
										   TimestampTz deadline,
										   TimestampTz now);

#endif
