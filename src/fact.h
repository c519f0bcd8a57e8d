/*
 * fact.h
 *	  The one writer of facts about tasks, and of versions of states.
 */
#ifndef PROM_FACT_H
#define PROM_FACT_H

#include "access/attnum.h"
#include "access/transam.h"
#include "utils/snapshot.h"

typedef enum PromFactKind
{
	PROM_FACT_TASK,
	PROM_FACT_ATTEMPT,
	PROM_FACT_CALL,
	PROM_FACT_STEP,
	PROM_FACT_OUTCOME,
	PROM_FACT_CANCEL,
	PROM_FACT_STRIKE,
	PROM_FACT_VERDICT,
	PROM_FACT_APPROVAL,
	PROM_FACT_STATE,
	PROM_FACT_TRACK,
	PROM_FACT_ROW_VERSION,
	PROM_FACT_EVENT,
	PROM_NFACTS
} PromFactKind;

/*
 * The columns of each relation in the order of the arrays given to
 * prom_fact_add(); fact.c has their names.  xid is filled in by the writer.
 */
enum
{
	TASK_ID,
	TASK_EVENT_ID,
	TASK_SUBMITTED_AT,
	TASK_RUN_AT,
	TASK_DEADLINE,
	TASK_PRIORITY,
	TASK_MAX_ATTEMPTS,
	TASK_SUBMITTER_OID,
	TASK_SUBMITTER,
	TASK_AGENT,
	TASK_MODE,
	TASK_TRACE_ID,
	TASK_TRACEPARENT,
	TASK_REQUEST,
	TASK_METADATA,
	TASK_DEPENDS_ON,
	TASK_CONCURRENCY_KEY,
	TASK_CONVERSATION,
	TASK_OUTPUT_SCHEMA,
	TASK_PARENT_ID,
	TASK_PARENT_STEP,
	TASK_DEPTH,
	TASK_COLUMNS
};

enum
{
	ATTEMPT_TASK_ID,
	ATTEMPT_ATTEMPT,
	ATTEMPT_STARTED_AT,
	ATTEMPT_AGENT_VERSION,
	ATTEMPT_MODEL,
	ATTEMPT_MODEL_VERSION,
	ATTEMPT_TOOL_VERSIONS,
	ATTEMPT_POLICY_VERSION,
	ATTEMPT_REVIEW_MS,
	ATTEMPT_COLUMNS
};

enum
{
	CALL_ID,
	CALL_TASK_ID,
	CALL_ATTEMPT,
	CALL_TURN,
	CALL_CALL,
	CALL_SENT_AT,
	CALL_KIND,
	CALL_TARGET,
	CALL_RESERVED,
	CALL_RESERVED_TOKENS,
	CALL_STEP,
	CALL_COLUMNS
};

enum
{
	STEP_TASK_ID,
	STEP_STEP,
	STEP_ATTEMPT,
	STEP_EVENT_ID,
	STEP_CALL_ID,
	STEP_STARTED_AT,
	STEP_ENDED_AT,
	STEP_TOKENS_IN,
	STEP_TOKENS_OUT,
	STEP_CACHED_TOKENS,
	STEP_HTTP_STATUS,
	STEP_AMBIGUOUS,
	STEP_CONNECT_MS,
	STEP_FIRST_BYTE_MS,
	STEP_KIND,
	STEP_NAME,
	STEP_STATUS,
	STEP_MODEL,
	STEP_COST,
	STEP_FINISH_REASON,
	STEP_REQUEST_ID,
	STEP_ERROR_TYPE,
	STEP_ERROR,
	STEP_ANSWER,
	STEP_RAW,
	STEP_CALLS,
	STEP_ARGUMENTS,
	STEP_COLUMNS
};

enum
{
	OUTCOME_TASK_ID,
	OUTCOME_ATTEMPT,
	OUTCOME_EVENT_ID,
	OUTCOME_ENDED_AT,
	OUTCOME_ATTEMPTS,
	OUTCOME_STEP,
	OUTCOME_NEXT_RUN_AT,
	OUTCOME_OUTCOME,
	OUTCOME_ERROR_TYPE,
	OUTCOME_ERROR,
	OUTCOME_COLUMNS
};

enum
{
	CANCEL_TASK_ID,
	CANCEL_REQUESTED_AT,
	CANCEL_REQUESTED_BY,
	CANCEL_REASON,
	CANCEL_COLUMNS
};

enum
{
	STRIKE_TASK_ID,
	STRIKE_ATTEMPT,
	STRIKE_STRUCK_AT,
	STRIKE_COLUMNS
};

enum
{
	VERDICT_TASK_ID,
	VERDICT_ATTEMPT,
	VERDICT_STEP,
	VERDICT_EVENT_ID,
	VERDICT_JUDGED_AT,
	VERDICT_LATENCY_MS,
	VERDICT_APPROVED,
	VERDICT_POLICY_VERSION,
	VERDICT_STAGE,
	VERDICT_EFFECT,
	VERDICT_RISK_LEVEL,
	VERDICT_GOVERNOR,
	VERDICT_POLICY,
	VERDICT_REASONING,
	VERDICT_SUGGESTION,
	VERDICT_TARGET_HASH,
	VERDICT_SCORES,
	VERDICT_COLUMNS
};

enum
{
	APPROVAL_ID,
	APPROVAL_TASK_ID,
	APPROVAL_ATTEMPT,
	APPROVAL_STEP,
	APPROVAL_REQUESTED_AT,
	APPROVAL_EXPIRES_AT,
	APPROVAL_TOOL,
	APPROVAL_POLICY,
	APPROVAL_APPROVERS,
	APPROVAL_APPROVERS_OID,
	APPROVAL_TARGET_HASH,
	APPROVAL_REASONING,
	APPROVAL_ARGUMENTS,
	APPROVAL_COLUMNS
};

enum
{
	STATE_VERSION,
	STATE_MARK,
	STATE_BASE_VERSION,
	STATE_TASK_ID,
	STATE_RESTORED_FROM,
	STATE_SAVED_AT,
	STATE_OWNER_OID,
	STATE_BYTES,
	STATE_RUN,
	STATE_CHECKSUM,
	STATE_CODEC,
	STATE_FORM,
	STATE_OWNER,
	STATE_AGENT,
	STATE_KEY,
	STATE_FRAME,
	STATE_COLUMNS
};

enum
{
	TRACK_ID,
	TRACK_LAYOUT,
	TRACK_LAST_COLUMN,
	TRACK_RELATION_OID,
	TRACK_RECORDED_AT,
	TRACK_EVENT,
	TRACK_RELATION,
	TRACK_REASON,
	TRACK_COLUMN_IDS,
	TRACK_ATTNUMS,
	TRACK_NAMES,
	TRACK_TYPES,
	TRACK_KEY,
	TRACK_COLUMNS
};

enum
{
	ROW_VERSION_TRACK_ID,
	ROW_VERSION_ID,
	ROW_VERSION_CHANGED_AT,
	ROW_VERSION_TASK_ID,
	ROW_VERSION_UNDOES,
	ROW_VERSION_STEP,
	ROW_VERSION_LAYOUT,
	ROW_VERSION_OPERATION,
	ROW_VERSION_KEY,
	ROW_VERSION_FIELDS,
	ROW_VERSION_COLUMNS
};

enum
{
	EVENT_ID,
	EVENT_TASK_ID,
	EVENT_CAUSED_BY,
	EVENT_EMITTED_AT,
	EVENT_DEPTH,
	EVENT_EMITTER_OID,
	EVENT_EMITTER,
	EVENT_AGENT,
	EVENT_TYPE,
	EVENT_SUBJECT,
	EVENT_DATA,
	EVENT_COLUMNS
};

#define PROM_FACT_MAX_COLUMNS STEP_COLUMNS

typedef struct PromFactWriter PromFactWriter;

/*
 * A writer for the rest of the current transaction, in a memory context of
 * its own under the current one.  An error needs no clean-up.
 */
extern PromFactWriter *prom_fact_begin(void);

/* Add a row; it is in the table after prom_fact_end() at the latest. */
extern void prom_fact_add(PromFactWriter *writer, PromFactKind kind,
						  const Datum *values, const bool *nulls);
extern void prom_fact_end(PromFactWriter *writer);

/* A value that may be missing. */
extern Datum prom_fact_text(const char *text, bool *isnull);

/* Put what was added so far into the tables, where statements see it. */
extern void prom_fact_flush(PromFactWriter *writer);

/* The next id of a task, and of an event or a call. */
extern int64 prom_fact_next_task_id(void);
extern int64 prom_fact_next_id(void);

/* The next id of a version of a row, while that row is locked. */
extern int64 prom_fact_next_row_version(void);

/* The relation of a kind of facts; InvalidOid if the extension is not there. */
extern Oid prom_fact_relation(PromFactKind kind);

/* The same, or an error; and the numbers of its columns, in the order above. */
extern Oid prom_fact_require(PromFactKind kind, const AttrNumber **columns);

#endif
