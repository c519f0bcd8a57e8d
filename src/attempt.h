/*
 * attempt.h
 *	  One run of a task: how it starts, and how it ends.
 */
#ifndef PROM_ATTEMPT_H
#define PROM_ATTEMPT_H

#include "agent.h"
#include "counsel.h"
#include "fact.h"
#include "guilt.h"
#include "job.h"
#include "llm.h"
#include "shmem.h"
#include "trace.h"
#include "utils/timestamp.h"

/* What is to be done with an attempt once the turn's transaction committed. */
typedef enum PromAttemptNext
{
	PROM_NEXT_SEND,   /* send the request */
	PROM_NEXT_TOOLS,  /* have the pending tool calls made */
	PROM_NEXT_CHAT,   /* have a model asked that is a function */
	PROM_NEXT_REVIEW, /* have the request or the answer judged */
	PROM_NEXT_RECALL, /* have what is remembered looked for */
	PROM_NEXT_GO_ON,  /* in the next turn: its model calls tools */
	PROM_NEXT_ENDED,  /* the task has ended */
	PROM_NEXT_LATER,  /* the task goes on at due */
	PROM_NEXT_PARKED, /* it waits before the gate of target */
	PROM_NEXT_READ,   /* it waits for other tasks: read it anew */
	PROM_NEXT_JOIN,   /* an equal request is under way: after its end */
	PROM_NEXT_AGAIN   /* in another turn: this one is full */
} PromAttemptNext;

/* What a call asks, if it is no turn and no review. */
typedef enum PromThought
{
	PROM_THOUGHT_NONE,
	PROM_THOUGHT_SUMMARY,
	PROM_THOUGHT_PLAN,
	PROM_THOUGHT_REFLECT,
	PROM_THOUGHT_EMBED /* for its recall; see query.c */
} PromThought;

/* Of a call's need, the gate that it goes through */
typedef enum PromRateUse
{
	PROM_USE_NONE,  /* knows nothing */
	PROM_USE_TAKEN, /* has it counted, and it is not sent yet */
	PROM_USE_SENT,  /* waits for the headers of its reply */
	PROM_USE_HEARD  /* has had them */
} PromRateUse;

/*
 * Tool calls whose reviews are noted at once; further ones ask again when these
 * have been reviewed.
 */
#define PROM_MAX_ASKING 16

/* A task that this process has claimed.  It owns call and reservation. */
typedef struct PromAttempt
{
	int32 slot;
	int64 task_id;
	bool only_end; /* no attempt of it may begin */
	PromAttemptNext next;
	bool completed;    /* with ENDED: it ended well */
	TimestampTz due;   /* with LATER; 0: as it was */
	bool retrying;     /* with LATER and PARKED: an attempt has ended */
	bool waiting;      /* with LATER: until a person has decided */
	PromTarget target; /* with PARKED */
	uint32 seen;       /* with PARKED: changes of its gates */
	TimestampTz opens; /* with PARKED: when the next of them does */

	int64 parent_id; /* the task that waits for it; 0: none */
	PromTrace trace;
	uint64 whose;      /* a hash of its agent and submitter */
	uint16 agent;      /* its label; see metric.h */
	TimestampTz since; /* submitted, due, or retried by hand */
	int32 attempt;     /* its number; 0: not begun */
	int32 step;        /* the number of its next step */
	int32 turn;        /* and of the next turn of the model */
	int32 used;        /* attempts used up before it */
	int32 max_attempts;
	TimestampTz deadline;
	const PromModel *model; /* in the cache of agent.c */
	PromGate *gate;         /* that counts it as in flight, or NULL */
	uint32 generation;      /* of the gate when it began */
	PromNeed need;          /* of the gate's rate, for its call or turn */
	PromRateUse use;        /* and what the gate knows of that */
	int64 call_id;
	int64 event_id; /* with CHAT: of the step that it makes */
	TimestampTz sent_at;
	int64 tokens;              /* of its replies, in and out */
	int64 tokens_now;          /* of the one that this turn records */
	PromCall *call;            /* on the network, or ended and not recorded */
	PromCounsel counsel;       /* the review that call is, if it has a model */
	PromThought thought;       /* what call, or the job, asks */
	const PromModel *embedder; /* with EMBED: the model that is asked */
	bool makes_tool;           /* its answer is a function, which is tried */
	int32 judged_answer;       /* whose verdict it has written; 0: of none */
	bool thinks;               /* after its answer comes a reflection, */
	bool looks_again;          /* and perhaps another round */
	int64 until;               /* the last outcome that a summary has */
	int32 answer;              /* the step that the reflection is about */
	int32 stands;              /* the answer that it has anyway; 0: none yet */

	/* What budgets keep for its call or turn; NULL: nothing. */
	struct PromReservation *reservation;

	/* How jobs of it ended, to be told when it goes on. */
	bool chat_failed;
	PromRetry retry; /* with it */

	/* With a model that keeps replies. */
	uint8 request_hash[32]; /* of its request, and of whose it is */
	bool has_hash;
	int64 reused;       /* event of the step whose reply it has; 0: its own */
	bool leads;         /* equal requests wait for the end of this one */
	dlist_node leading; /* among all that lead */

	/* Tool calls, by their steps, about which models are to be asked. */
	int nasking;
	int32 asking[PROM_MAX_ASKING];

	/* What the policies said when it was begun. */
	int64 policy_version;
	double review_ms;

	/* From beginning to sending, in the memory of the turn. */
	int npending; /* with TOOLS: calls, and the steps that they make */
	const int32 *pending;
	const PromPrompt *prompt;
	bool has_schema; /* answers are held against one */
} PromAttempt;

/*
 * The model that its call goes to: its own, or the one that is to review, or to
 * embed.
 */
static inline const PromModel *
prom_attempt_called(const PromAttempt *attempt)
{
	if (attempt->embedder != NULL)
		return attempt->embedder;
	return attempt->counsel.model != NULL ? attempt->counsel.model
										  : attempt->model;
}

/*
 * Load the tasks of n attempts (slot and task_id are set) and begin what can
 * begin, or go on with what has begun and was with executors: afterwards next
 * says what to do with each.  When requests and prompts
 * have max_bytes, the rest is left for another turn; the first is not.  So are
 * tasks with a schema once checking answers has taken long in this turn.  In a
 * transaction with SPI connected.
 */
extern void prom_attempt_begin(PromFactWriter *writer, PromAttempt **attempts,
							   int n, int64 max_bytes, TimestampTz now);

/*
 * Record a call that has ended, and what follows from it; or, if checking
 * answers has taken long in this turn, nothing: next is then PROM_NEXT_AGAIN.
 */
extern void prom_attempt_record(PromFactWriter *writer, PromAttempt *attempt,
								TimestampTz now);

/* The same of a reply that its request need not be sent for. */
extern void prom_attempt_record_reply(PromFactWriter *writer,
									  PromAttempt *attempt, PromReply *reply,
									  TimestampTz now);

/* A job of it has ended: what is to be known of that when it goes on. */
extern void prom_attempt_take_job(PromAttempt *attempt, const PromJobEnd *end);

/* End an attempt whose request was dropped, since the task is cancelled. */
extern void prom_attempt_cancel(PromFactWriter *writer, PromAttempt *attempt,
								TimestampTz now);

/* End a task that cannot be begun or recorded: its own error is the reason. */
extern void prom_attempt_give_up(PromFactWriter *writer, PromAttempt *attempt,
								 const char *error_type, const char *error,
								 TimestampTz now);

/*
 * Record that a task crashed the server; after prometheus.max_crashes of that
 * it ends as quarantined.  A crash that was recorded already counts once.
 */
extern void prom_attempt_strike(PromFactWriter *writer,
								const PromCulprit *culprit, TimestampTz now);

#endif
