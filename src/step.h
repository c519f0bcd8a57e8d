/*
 * step.h
 *	  The steps of an attempt: turns of the model, and tool calls.
 */
#ifndef PROM_STEP_H
#define PROM_STEP_H

#include "attempt.h"
#include "fact.h"

/* What a reply counts against its submitter's share, whatever a peer says. */
extern int64 prom_reply_tokens(const PromReply *reply);

/*
 * What so many tokens (-1: not known) of a model cost; NULL if neither price
 * nor usage is known.  The cached ones are a part of tokens_in.
 */
extern Datum prom_step_cost(const PromModel *model, int64 tokens_in,
							int64 cached_tokens, int64 tokens_out,
							bool *isnull);

/*
 * Is the step of a job there?  Only the word that it was done was lost then.
 * With SPI connected.
 */
extern bool prom_step_exists(int64 task_id, int32 step);

/* The step of a reply, good or not; of echo too, which has no call. */
extern void prom_step_add_chat(PromFactWriter *writer,
							   const PromAttempt *attempt,
							   const PromReply *reply, TimestampTz now);

/*
 * A tool call that was made, or could not be.  Texts are in the database's
 * encoding.
 */
typedef struct PromToolStep
{
	int64 task_id;
	int32 attempt;
	int32 step;
	TimestampTz started_at;
	const char *name;      /* of the tool, as the model called it */
	const char *arguments; /* as the model gave them */
	const char *result;    /* NULL with an error */
	const char *error;
	const char *error_type; /* NULL: as vetoed says */
	bool vetoed;            /* with error: it was not run */
	int64 tool_version;     /* of one that a task made, if it ran; else 0 */
	bool unknown;           /* with error: nobody knows whether it was done */

	/* Of a request on the network; else 0, and the times -1. */
	int64 call_id;
	bool ambiguous;
	int http_status;
	const char *request_id; /* NULL: none */
	double connect_ms;
	double first_byte_ms;
} PromToolStep;

/* What a task in full mode found, or thought of; one of answer and error. */
typedef struct PromThoughtStep
{
	int64 task_id;
	int32 attempt;
	int32 step;
	const char *kind;
	const char *name;
	TimestampTz started_at;
	const char *arguments; /* of a summary, as JSON; else NULL */
	const char *answer;
	const char *error;
} PromThoughtStep;

/* A review by policies that took an executor. */
typedef struct PromStepReview
{
	int64 task_id;
	int32 attempt;
	int32 step;
	TimestampTz started_at;
	const char *stage; /* of the policies: the step's name */
	const char *veto;  /* NULL: allowed */
} PromStepReview;

/* A review by a model; the rest is what its reply says. */
typedef struct PromStepCounsel
{
	const char *policy; /* that asked for it: the step's name */
	const char *judged; /* what and by whom, as JSON */
	const char *veto;   /* NULL: allowed */
} PromStepCounsel;

extern void prom_step_add_counsel(PromFactWriter *writer,
								  const PromAttempt *attempt,
								  const PromStepCounsel *step,
								  const PromReply *reply, TimestampTz now);

extern void prom_step_add_thought(PromFactWriter *writer,
								  const PromThoughtStep *step,
								  TimestampTz now);

/*
 * The step of a reply that is no turn: its kind, arguments or NULL, and what it
 * says.
 */
extern void prom_step_add_reply(PromFactWriter *writer,
								const PromAttempt *attempt, const char *kind,
								const char *arguments, const char *said,
								const PromReply *reply, TimestampTz now);

extern void prom_step_add_review(PromFactWriter *writer,
								 const PromStepReview *step, TimestampTz now);

extern void prom_step_add_tool(PromFactWriter *writer, const PromToolStep *step,
							   TimestampTz now);

#endif
