/*
 * shmem.h
 *	  What the processes of prometheus share: per database the workers, the
 *	  ring of hints, the slots of tasks that run; and who waits for a task.
 *
 * Who may touch what is in src/README.md and, in a few words, on each member.
 */
#ifndef PROM_SHMEM_H
#define PROM_SHMEM_H

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/s_lock.h"
#include "utils/dsa.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "pace.h"

/* The kinds of process; PROM_LAUNCHER is the cluster's, the rest a database's. */
typedef enum PromRole
{
	PROM_SCHEDULER,
	PROM_CALLER,
	PROM_PUBLISHER,
	PROM_EXECUTOR,
	PROM_NROLES,
	PROM_LAUNCHER = PROM_NROLES
} PromRole;

/*
 * The places of a database's processes: one for each role, and of executors,
 * which are the last, as many as prometheus.executors can be, and some that are
 * for the functions of subscriptions only: these never take one from tasks.
 */
#define PROM_MAX_EXECUTORS 32
#define PROM_HANDLER_EXECUTORS 2
#define PROM_JOB_PLACES (PROM_MAX_EXECUTORS + PROM_HANDLER_EXECUTORS)
#define PROM_NPLACES (PROM_EXECUTOR + PROM_JOB_PLACES)
#define PROM_ROLE_OF(place) ((PromRole) Min((place), PROM_EXECUTOR))

/* Room for a version of the extension, cut short if it is longer. */
#define PROM_VERSION_LENGTH 64

/* What a backend tells the scheduler when its transaction has committed. */
typedef enum PromHintKind
{
	PROM_HINT_SUBMIT, /* the hint says all of the task */
	PROM_HINT_READ,   /* read the task from its facts */
	PROM_HINT_CANCEL,
	PROM_HINT_GATES /* pauses, an agent or a model changed; of no task */
} PromHintKind;

/* Who submitted: the oid, and the hash of the name that must agree with it. */
typedef struct PromSubmitter
{
	Oid role;
	uint32 name;
} PromSubmitter;

/* Which gates a task must pass: hashes of names; 0: not known. */
typedef struct PromTarget
{
	uint32 agent;
	uint32 model;
} PromTarget;

typedef struct PromHint
{
	int64 task_id;
	TimestampTz due; /* earliest start */
	TimestampTz deadline;
	PromSubmitter submitter;
	PromTarget target;
	uint64 key;          /* hash of its concurrency key; 0: none.  With GATES
						  * of the subscription whose gate is to open */
	uint64 conversation; /* hash of submitter, agent and name; 0: none */
	int32 priority;
	PromHintKind kind;
} PromHint;

typedef struct PromRingCell
{
	pg_atomic_uint64 sequence; /* position + 1 once hint is written */
	PromHint hint;
} PromRingCell;

/*
 * Hints of many backends to one scheduler.  A producer reserves places by
 * moving head, writes, and publishes each cell by its sequence.
 */
typedef struct PromRing
{
	pg_atomic_uint64 head; /* next place to reserve */
	pg_atomic_uint64 tail; /* next place to read; scheduler only */
	pg_atomic_uint32
		overflowed; /* a hint was dropped: the table must be read */
	uint64 size;    /* a power of two */
	PromRingCell *cells;
} PromRing;

/* Bytes of the name of an agent or a model, and their gates in one database. */
#define PROM_MAX_NAME 200
#define PROM_MAX_GATES 512

/* Of these, before subscriptions, so that there are some for models. */
#define PROM_MAX_SUBSCRIPTIONS 256

/* Other gates through which tasks may go instead: a model's option fallback. */
#define PROM_MAX_FALLBACKS 8

/* What a gate stands before; ALL is always the first gate. */
typedef enum PromGateKind
{
	PROM_GATE_NONE, /* it was given back */
	PROM_GATE_ALL,
	PROM_GATE_AGENT,
	PROM_GATE_MODEL,
	PROM_GATE_SUBSCRIPTION
} PromGateKind;

/* Why the caller closed it, last. */
typedef enum PromGateReason
{
	PROM_GATE_NEVER,
	PROM_GATE_RATE,     /* 429: for as long as the peer asked, or a back-off */
	PROM_GATE_FAILURES, /* the breaker */
	PROM_GATE_MONEY     /* quota, spend limit, 402 */
} PromGateReason;

/*
 * What may close the way to a target.  A gate is made once, under gate_lock,
 * and stays; its name does not change.  Only those of subscriptions, which the
 * caller makes, it gives back, for other subscriptions.  The scheduler writes
 * paused; the caller what has no other comment; see gate.c.
 */
typedef struct PromGate
{
	PromGateKind kind;
	uint32 hash; /* of name */
	bool paused;
	TimestampTz paused_at;      /* the scheduler's too */
	pg_atomic_uint64 until;     /* closed before it; both write: 0 is open */
	pg_atomic_uint64 held;      /* the same, so that it keeps to its rate */
	pg_atomic_uint32 width;     /* so many may be under way when it is open */
	pg_atomic_uint32 allows;    /* and so many begin, for its rate */
	pg_atomic_uint32 in_flight; /* so many are */
	pg_atomic_uint32 handled;   /* slots looked at that were given for it */
	pg_atomic_uint32 changes;   /* ends, closings, openings, pauses */
	int nfallbacks;
	uint32 fallbacks[PROM_MAX_FALLBACKS]; /* hashes of names of models */
	pg_atomic_uint32 asked;               /* how often to read options, */
	uint32 known;                         /* which were read for that */
	int64 version;                        /* of the model, whose options: */
	uint32 max_concurrent;
	int breaker_failures;
	PromGateReason reason;
	TimestampTz since; /* when it was closed last, */
	TimestampTz first; /* and when first, since it was open */
	uint32 generation; /* times it was closed */
	int failures;      /* in a row, that count */
	int closings;      /* in a row: the back-off */
	PromPace pace;     /* its rate, for the caller alone; shown in held */
	TimestampTz shown; /* and allows: what it wrote there last */
	TimestampTz held_since;
	char name[PROM_MAX_NAME + 1];
} PromGate;

/* Slot numbers from one process to one other. */
typedef struct PromPipe
{
	pg_atomic_uint64 head; /* writer only */
	pg_atomic_uint64 tail; /* reader only */
	uint64 size;           /* a power of two, more than it can ever hold */
	int32 *items;
} PromPipe;

typedef enum PromSlotState
{
	PROM_SLOT_FREE,     /* the scheduler's */
	PROM_SLOT_ASSIGNED, /* given to the caller, not yet seen by it */
	PROM_SLOT_RUNNING,  /* the caller's */
	PROM_SLOT_DONE      /* given back, result is valid */
} PromSlotState;

typedef enum PromSlotResult
{
	PROM_RESULT_COMPLETED, /* the task has ended well */
	PROM_RESULT_ENDED,     /* it has ended otherwise, or is not there */
	PROM_RESULT_LATER,     /* it goes on at due */
	PROM_RESULT_PARKED,    /* it waits before the gate of target */
	PROM_RESULT_READ       /* it is not what was believed: read its facts */
} PromSlotResult;

/*
 * A claim: one task that one process owns.  It ends with its process: no
 * lease, no heartbeat.  The state says whose the other members are.
 */
typedef struct PromSlot
{
	pg_atomic_uint32 state;  /* PromSlotState */
	pg_atomic_uint32 cancel; /* set by the scheduler at any time */
	int64 task_id;
	bool only_end;        /* it may be ended, but no attempt of it may begin */
	int32 gate;           /* that counts it as handled; -1: none */
	PromTarget target;    /* the caller says the true one, with PARKED, */
	uint32 seen;          /* how many changes its gates had seen, */
	TimestampTz opens;    /* and when the next of them opens */
	TimestampTz deadline; /* these five only for the next scheduler */
	PromSubmitter submitter;
	uint64 key;
	uint64 conversation;
	int32 priority;
	TimestampTz due; /* with LATER; 0: as it was */
	PromSlotResult result;
	int64 tokens;  /* that the attempt used */
	bool retrying; /* with both: an attempt has ended */
	bool waiting;  /* with LATER: until a person has decided */
} PromSlot;

/* Texts that are kept of replies under way, and the last bytes of each. */
#define PROM_TAILS 64
#define PROM_TAIL_BYTES 8192

/* Of a sight that has none: there was no text, or it had to give it up. */
#define PROM_TAIL_NEVER (-1)
#define PROM_TAIL_LOST (-2)

/*
 * What the task in a slot is at, and the newest text of a reply.  The caller
 * writes; changes is odd meanwhile.  See sight.c.
 */
typedef struct PromSight
{
	pg_atomic_uint32 changes;
	pg_atomic_uint32 wanted; /* a reader misses the text */
	int64 task_id;           /* 0: nothing runs in the slot */
	uint64 serial;           /* of the step */
	TimestampTz since;
	int32 step;
	int32 tail; /* which, if that has the serial */
	char kind[8];
} PromSight;

typedef struct PromTail
{
	pg_atomic_uint32 changes;
	pg_atomic_uint64 looked_at; /* readers: when, last */
	uint64 serial;              /* of the step whose text it is; 0: free */
	uint64 bytes;               /* that have come */
	char text[PROM_TAIL_BYTES]; /* a ring of the last of them */
} PromTail;

typedef enum PromCallerState
{
	PROM_CALLER_NONE,
	PROM_CALLER_WAITING, /* it is there and may not touch slots yet */
	PROM_CALLER_READY    /* set by the scheduler when the slots are clean */
} PromCallerState;

/* A process.  Written by itself, and by the launcher while pid is 0. */
typedef struct PromWorker
{
	pid_t pid;    /* 0: none */
	Latch *latch; /* of that process; NULL: none */
	TimestampTz started_at;
	TimestampTz left_at; /* since when there has been none */
	pg_atomic_uint32 in_flight;
	bool busy;
} PromWorker;

/* Bytes of an error of a job, in the database's encoding. */
#define PROM_JOB_ERROR 400

typedef enum PromJobState
{
	PROM_JOB_NONE,  /* the caller may give one */
	PROM_JOB_GIVEN, /* the caller may take it back, the executor may begin */
	PROM_JOB_BEGUN, /* the executor's */
	PROM_JOB_DONE,  /* committed, or not needed any more */
	PROM_JOB_FAILED /* nothing of it is there: its process ended */
} PromJobState;

typedef enum PromJobKind
{
	PROM_JOB_TOOL,    /* one tool call of a turn */
	PROM_JOB_CHAT,    /* a turn of a model of api "function" */
	PROM_JOB_REVIEW,  /* by policies with conditions */
	PROM_JOB_COUNSEL, /* by a model of api "function" */
	PROM_JOB_RECALL,  /* what is remembered that fits a request */
	PROM_JOB_THINK,   /* a PromThought of a model of api "function" */
	PROM_JOB_DELIVER  /* an event, to the function of a subscription */
} PromJobKind;

/* Why a job is not to be run any more, but its step is to say so. */
typedef enum PromJobRefusal
{
	PROM_JOB_RUN,
	PROM_JOB_OVERDUE, /* it did not end when it was to be stopped */
	PROM_JOB_LOST     /* its process ended, or could not write, too often */
} PromJobRefusal;

/*
 * What an executor is to do.  All that is needed for it is in the facts; the
 * state says whose the other members are, and moves by compare-and-exchange.
 */
typedef struct PromJob
{
	pg_atomic_uint32 state;  /* PromJobState */
	pg_atomic_uint32 cancel; /* the caller does not want it any more */
	PromJobKind kind;
	PromJobRefusal refusal;
	int64 task_id;
	int32 attempt;
	int32 step;           /* that it makes */
	int32 about;          /* that a counsel is about; or what to think of */
	int64 event_id;       /* of the step of a chat: in the caller's order */
	int64 delivery_id;    /* with PROM_JOB_DELIVER */
	TimestampTz deadline; /* of the task */
	/* What the executor says. */
	bool overdue;               /* with FAILED */
	bool chat_failed;           /* with DONE */
	bool send;                  /* with DONE: the request may be sent */
	bool asks;                  /* of a tool: a model is to review it first */
	int delivered;              /* with DONE: PromDelivered */
	int64 tokens;               /* that a chat or a counsel took */
	int retry;                  /* with chat_failed: PromRetry */
	char error[PROM_JOB_ERROR]; /* with FAILED, or empty */
} PromJob;

typedef enum PromMarkState
{
	PROM_MARK_FREE,   /* a session may ask */
	PROM_MARK_ASKED,  /* the publisher's */
	PROM_MARK_MADE,   /* mark_id is valid */
	PROM_MARK_TAKEN,  /* there is another one of that name */
	PROM_MARK_REFUSED /* it could not be written */
} PromMarkState;

/*
 * Marks, and what is asked of the publisher, which writes them.  A name is
 * asked for by one session at a time.
 */
typedef struct PromMarks
{
	pg_atomic_uint32 changed;  /* facts were written since the newest one */
	pg_atomic_uint32 asked;    /* a session waits for one */
	pg_atomic_uint32 relation; /* whose newest one it is; 0: not known */
	pg_atomic_uint64 newest;
	pg_atomic_uint64 changed_at;    /* when changed was set */
	pg_atomic_uint64 failing_since; /* 0: the last one could be written */
	ConditionVariable made;         /* there is a new one, or an answer */
	LWLock *lock;                   /* guards the rest */
	PromMarkState state;
	uint64 number; /* of the question */
	int64 mark_id;
	Oid role;               /* that asks */
	char name[NAMEDATALEN]; /* empty: none is wanted */
} PromMarks;

/* The sizes of a day, one an hour, and the one before it. */
#define PROM_MAX_SIZES 25

typedef struct PromSize
{
	TimestampTz at;
	int64 bytes;
} PromSize;

/* Dead letters that are counted. */
#define PROM_MAX_DEAD 10000

/* A budget's scope and period. */
#define PROM_MAX_BUDGET (PROM_MAX_NAME + 32)

/*
 * What alerts are judged by that cannot be seen at a moment.  mutex guards what
 * has no other comment; the publisher writes what does not say who does.
 */
typedef struct PromVitals
{
	pg_atomic_uint32 asked;   /* a threshold was set: look at once */
	pg_atomic_uint32 readers; /* a consumer or a dead letter has changed */
	slock_t mutex;
	double wal_rate;        /* bytes per second; negative: not known */
	int64 archive_failures; /* before those in a row; negative: not known */
	int nsizes;
	PromSize sizes[PROM_MAX_SIZES]; /* the newest is the last */
	double spent;                   /* the caller: percent; of the budget */
	TimestampTz refills_at;         /* that is nearest to its limit, and */
	char budget[PROM_MAX_BUDGET];   /* its name; empty: not known */
	bool readers_known;             /* the next four are */
	TimestampTz unread_since;       /* DT_NOEND: nothing is unread, by */
	char reader[PROM_MAX_NAME + 1]; /* the consumer that is furthest behind */
	int64 dead;                     /* letters, up to PROM_MAX_DEAD */
	char dead_of[PROM_MAX_NAME + 1];
	TimestampTz stuck_since; /* jobs, without an executor; 0: none */
} PromVitals;

/* Of the export of traces: what is counted, of a request or since a time. */
typedef struct PromExportCount
{
	int64 traces;
	int64 unsampled;
	int64 spans;
	int64 rejected;
	int64 refused;
	int64 dropped;
} PromExportCount;

#define PROM_EXPORT_ERROR 300

/* How the export is; written by the caller, under mutex. */
typedef struct PromExported
{
	pg_atomic_uint32 asked; /* caller: the position may be another one */
	pg_atomic_uint32 spans; /* of applications, written since it looked */
	slock_t mutex;
	bool is_on;
	bool rests;              /* nothing waits, for sure */
	TimestampTz since;       /* it is counted */
	TimestampTz waits_since; /* these may be 0: never, or not */
	TimestampTz succeeded_at;
	TimestampTz failing_since;
	TimestampTz next_attempt_at;
	PromExportCount count;
	int64 failures;
	char error[PROM_EXPORT_ERROR];
	int64 points; /* of metrics, that were taken, */
	int64 rejected_points;
	char metrics_error[PROM_EXPORT_ERROR]; /* and what was said last */
} PromExported;

/*
 * Memories without an embedding, which models of their agents are to make; see
 * embedder.c.  The first three are atomic, the rest is the caller's, under
 * mutex, and of an agent whose model fails now.
 */
typedef struct PromEmbeddings
{
	pg_atomic_uint32 wanted; /* caller: there is an agent with a model */
	pg_atomic_uint32 asked;  /* agents or models are others: read them */
	pg_atomic_uint64 from;   /* the lowest id that may be without */
	slock_t mutex;
	int failing; /* agents */
	char agent[PROM_MAX_NAME + 1];
	char error[PROM_EXPORT_ERROR];
} PromEmbeddings;

/*
 * Memories that were recalled, by their ids: each belongs to one set.  See
 * use.c.
 */
#define PROM_USE_SETS 512
#define PROM_USE_PLACES 8

typedef struct PromUse
{
	int64 memory_id; /* 0: none */
	TimestampTz used_at;
	TimestampTz written_at; /* 0: never */
	int64 uses;             /* that are not written yet */
} PromUse;

typedef struct PromUseSet
{
	slock_t mutex; /* guards the rest */
	PromUse uses[PROM_USE_PLACES];
} PromUseSet;

typedef struct PromUses
{
	pg_atomic_uint32 changed; /* something was noted: the publisher is told */
	pg_atomic_uint32 crowded; /* a set had no place */
	PromUseSet sets[PROM_USE_SETS];
} PromUses;

/* The locks of consumers' names, for which the publisher does not wait. */
typedef enum PromConsumerLock
{
	PROM_LOCK_UNWANTED,
	PROM_LOCK_WANTED, /* it found one taken */
	PROM_LOCK_FREED   /* and since then one was let go */
} PromConsumerLock;

/* Spans of applications that wait to be written. */
#define PROM_SPANS 512

/*
 * Bytes of a span's name, of its attributes as jsonb and as text, and others
 * with NUL.
 */
#define PROM_SPAN_NAME 200
#define PROM_SPAN_ATTRIBUTES 2000
#define PROM_SPAN_ATTRIBUTES_TEXT 8000
#define PROM_SPAN_ERROR_TYPE 16
#define PROM_SPAN_TRACEPARENT 56

typedef enum PromSpanStatus
{
	PROM_SPAN_UNSET,
	PROM_SPAN_OK,
	PROM_SPAN_ERROR
} PromSpanStatus;

typedef struct PromSpanRecord
{
	pg_uuid_t trace_id;
	uint64 span_id;
	uint64 parent_id; /* 0: none */
	TimestampTz started_at;
	TimestampTz ended_at;
	int64 task_id; /* in whose tool it was begun; 0: in none */
	Oid owner;
	PromSpanStatus status;
	bool is_counted; /* in open, of the ring; of one that is not, no trace */
	NameData owner_name;
	char error_type[PROM_SPAN_ERROR_TYPE];   /* empty: none */
	char traceparent[PROM_SPAN_TRACEPARENT]; /* that was given; or empty */
	char name[PROM_SPAN_NAME + 1];
	char attributes[PROM_SPAN_ATTRIBUTES]; /* jsonb */
} PromSpanRecord;

typedef struct PromSpanCell
{
	pg_atomic_uint64 sequence; /* position + 1 once record is written */
	PromSpanRecord record;
} PromSpanCell;

/* From many sessions to the publisher; see span.c. */
typedef struct PromSpanRing
{
	pg_atomic_uint64 head;    /* next place to reserve */
	pg_atomic_uint64 tail;    /* next place to read; publisher only */
	pg_atomic_uint64 dropped; /* records for which there was no room */
	pg_atomic_uint32 open;    /* spans that have not ended */
	PromSpanCell *cells;      /* PROM_SPANS of them */
} PromSpanRing;

/* One database that is served.  lock guards what has no other comment. */
typedef struct PromDatabase
{
	Oid oid; /* InvalidOid: this entry is free, or the database not there */
	NameData name;
	/* Of its extension's objects, if not that of the library; else empty. */
	char version[PROM_VERSION_LENGTH];
	Oid owner;   /* of the extension; InvalidOid: not there, or not ours */
	bool probe;  /* launcher: look whether the extension is there */
	int holders; /* sessions whose statement needs it without workers */
	bool held;   /* launcher: no worker is left, and none is started */
	PromWorker worker[PROM_NPLACES];

	PromRing ring;
	PromPipe to_caller;               /* assigned or cancelled slots */
	PromPipe to_scheduler;            /* slots given back */
	PromSlot *slots;                  /* prometheus.max_in_flight of them */
	PromSight *sights;                /* as many */
	PromTail *tails;                  /* PROM_TAILS of them */
	pg_atomic_uint32 caller_state;    /* PromCallerState */
	pg_atomic_uint32 wanted;          /* executors: jobs given or to be given */
	pg_atomic_uint32 wanted_handlers; /* those that are for subscriptions */
	pg_atomic_uint32 consumer_lock;   /* PromConsumerLock */
	PromJob jobs[PROM_JOB_PLACES];
	pg_atomic_uint32 deliver; /* caller: there may be something to deliver */
	pg_atomic_uint32
		subscribed; /* times that subscriptions may have changed */
	pg_atomic_uint32
		changed; /* publisher: facts were written since its last look */
	pg_atomic_uint64
		rescans; /* times the scheduler read the table, start included */
	PromMarks marks;
	PromVitals vitals;
	PromExported exported;
	PromEmbeddings embeddings;
	PromSpanRing spans;
	PromUses uses;

	LWLock *gate_lock; /* guards the making of gates, and what views read */
	pg_atomic_uint32 ngates;
	PromGate *gates; /* PROM_MAX_GATES of them */

	struct PromMetrics *metrics; /* see metric.c */

	LWLock *queue_lock;   /* guards queue_dsa and what is in it */
	dsa_handle queue_dsa; /* the scheduler's queue; see queue.c */
	dsa_pointer queue_root;
} PromDatabase;

/*
 * A backend in prometheus_wait(), by its number.  It writes task_id first and
 * looks at the table then; the caller writes ended after its commit, so one
 * of the two sees the end.
 */
typedef struct PromWaiter
{
	pg_atomic_uint64 task_id; /* 0: does not wait */
	pg_atomic_uint32 ended;   /* 1: look again */
	Oid database;
	Latch *latch;
} PromWaiter;

typedef struct PromShared
{
	bool look;    /* launcher: a database that is new has the extension */
	LWLock *lock; /* entries of databases, workers */
	PromWorker launcher;
	ConditionVariable stopped; /* a database has become held */
	pg_atomic_uint32
		waiting; /* waiters that wait; 0 spares the caller a look */
	int nwaiters;
	PromWaiter *waiters;
	int ndatabases;
	PromDatabase databases[FLEXIBLE_ARRAY_MEMBER];
} PromShared;

/* NULL if the library was not in shared_preload_libraries. */
extern PromShared *prom_shared;

extern void prom_shmem_init(void);

/* The entry of a database that is served, or NULL. */
extern PromDatabase *prom_shmem_database(Oid database);

/* Set the latch of a process, if it is there. */
extern void prom_shmem_wake(PromWorker *worker);

/* Let those look who wait for one of these tasks; NULL: for any of them. */
extern void prom_shmem_wake_waiters(Oid database, const int64 *ended, int n);

/*
 * The hashes that stand for names in hints, never 0.  Two keys with the same
 * hash only wait for each other.
 */
extern uint32 prom_hash_name(const char *name);
extern uint64 prom_hash_key(const char *key);
extern uint64 prom_hash_conversation(const char *submitter, const char *agent,
									 const char *conversation);

extern bool prom_ring_push(PromRing *ring, const PromHint *hints, int n);
extern bool prom_ring_pop(PromRing *ring, PromHint *hint);

extern void prom_pipe_push(PromPipe *pipe, int32 item);
extern bool prom_pipe_pop(PromPipe *pipe, int32 *item);
extern void prom_pipe_reset(PromPipe *pipe);

/* The writer: set found[item] for what is in it and was not read yet. */
extern void prom_pipe_find(PromPipe *pipe, bool *found);

#endif
