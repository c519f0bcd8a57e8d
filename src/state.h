/*
 * state.h
 *	  The versioned states of agents.
 */
#ifndef PROM_STATE_H
#define PROM_STATE_H

#include "moment.h"
#include "utils/jsonb.h"

/* The key of who names none. */
#define PROM_STATE_KEY "state"

/* What an agent has done last; nobody else writes it. */
#define PROM_STATE_SUMMARY "last_task"

/* Whose state it is: a role, whose name and oid must agree, an agent, a key. */
typedef struct PromStateKey
{
	const char *owner;
	Oid owner_oid;
	const char *agent;
	const char *key;
} PromStateKey;

/* Any version may be the newest. */
#define PROM_STATE_ANY (-1)

typedef struct PromStateChange
{
	Jsonb *value;
	int64 expected;      /* the newest version, 0: none; or PROM_STATE_ANY */
	int64 task_id;       /* whose tool saves it, or its summary; 0: none */
	int64 restored_from; /* a version; 0: it is new */
	bool is_summary;     /* of the task */
} PromStateChange;

/*
 * Write the next version; its number.  Waits for a transaction that has
 * written one of the same key and not ended.
 */
extern int64 prom_state_save(const PromStateKey *key,
							 const PromStateChange *change);

/*
 * The value of a version, 0: of the newest, as the active snapshot sees it;
 * with a moment, of what was seen then.  NULL: there is none.
 */
extern Jsonb *prom_state_read(const PromStateKey *key, int64 version,
							  const PromMoment *moment);

#endif
