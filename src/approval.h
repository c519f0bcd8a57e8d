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
	PROM_APPROVAL_REJECTED,
	PROM_APPROVAL_EXPIRED
} PromApprovalState;

/* The newest approval of one call. */
typedef struct PromApproval
{
	PromApprovalState state;
	int64 approval_id;
	const char *words; /* of what was decided: by whom, why */
} PromApproval;

/*
 * Executor: what was decided about a call.  What one person rejected stays
 * rejected, whatever the policies say since.  Else, if it was escalated, each
 * of those must approve that the policies name: verdict->policy becomes the one
 * whose approvers have not.  What has just expired is decided so, in this
 * transaction; but as long as a person's decision is not committed, it is open.
 * With SPI connected.
 */
extern void prom_approval_find(const PromPolicies *policies,
							   const PromJudged *judged, PromVerdict *verdict,
							   TimestampTz now, PromApproval *approval);

/* Ask the approvers of verdict->policy, until then at the latest. */
extern void prom_approval_add(PromFactWriter *writer, const PromJudged *judged,
							  const PromVerdict *verdict, TimestampTz until,
							  TimestampTz now);

/*
 * Caller: of n steps of a task that are to be made, leave out those that wait
 * for a person, or for a task that was delegated; when the first of these may
 * go on by itself, or is to be looked at again; at the latest at the deadline.
 * With SPI connected.
 */
extern TimestampTz prom_approval_leave_out(int64 task_id, int32 *steps, int *n,
										   TimestampTz deadline,
										   TimestampTz now);

#endif
