/*
 * lane.h
 *	  The ready tasks of a database, in a lane for each gate before them.
 */
#ifndef PROM_LANE_H
#define PROM_LANE_H

#include "lib/pairingheap.h"

#include "queue.h"

struct PromShare;
struct PromBehind;

/* Which heap an entry's order node is in. */
typedef enum PromPlace
{
	PROM_PLACE_NONE,
	PROM_PLACE_URGENT,
	PROM_PLACE_LANE, /* of its share */
	PROM_PLACE_KEY,  /* of what waits behind its key */
	PROM_PLACE_LATER
} PromPlace;

/* The scheduler's own part of an entry. */
typedef struct PromQueueNode
{
	pairingheap_node order;    /* in the heap that its place says */
	pairingheap_node deadline; /* if has_deadline: it waits, is not urgent */
	PromQueueEntry *entry;
	int32 number;
	PromPlace place;
	bool has_deadline;
	struct PromShare *share;   /* in a lane */
	struct PromBehind *behind; /* behind a key, or called from there */
} PromQueueNode;

/*
 * Which of two tasks comes first, for pairing heaps: positive if a does.
 *
 * A point of priority is worth a second of waiting.  All tasks age alike, so
 * their order does not change with time: the moment of being due, moved by
 * the priority, is all there is to compare.
 */
extern int prom_lane_order(const pairingheap_node *a,
						   const pairingheap_node *b, void *arg);

typedef struct PromLanes PromLanes;

extern PromLanes *prom_lanes_create(PromDatabase *db);

/* Put an entry that is in no heap into its lane, or take it out. */
extern void prom_lanes_add(PromLanes *lanes, PromQueueNode *node);
extern void prom_lanes_remove(PromLanes *lanes, PromQueueNode *node);

/*
 * The task that is next: of the lanes whose gates are open, that of the
 * submitter who has used least.  NULL: there is none.
 */
extern PromQueueNode *prom_lanes_first(PromLanes *lanes, TimestampTz now);

/*
 * The same task leaves its lane for a slot; the number of the gate that will
 * count it as handled, or -1.
 */
extern int32 prom_lanes_start(PromLanes *lanes, PromQueueNode *node);

/* Let a submitter have used more; its turn comes later by that. */
extern void prom_lanes_spend(PromLanes *lanes, Oid role, double cost);

/*
 * The caller let no task of this target through, when its gates had seen so
 * many changes: wait for another, or until the first of them opens (DT_NOEND:
 * none will by itself).
 */
extern void prom_lanes_stall(PromLanes *lanes, const PromTarget *target,
							 uint32 seen, TimestampTz opens);

/* The slots that were given are all back: nothing is on its way to a gate. */
extern void prom_lanes_forget_slots(PromLanes *lanes);

/* What is paused, or an option of a model, has changed. */
extern void prom_lanes_gates_changed(PromLanes *lanes);

/* How many tasks can run, as far as their gates go. */
extern int64 prom_lanes_runnable(PromLanes *lanes, TimestampTz now);

/*
 * For a queue that is full.  Would one more task of this target only wait?
 * Are there so few of it that it has a place all the same?  One was refused;
 * those that come later are too, until those that were are read; and while
 * they are.  Is it time to read them, now that so many are runnable?  It
 * begins, and has ended.
 */
extern bool prom_lanes_only_waits(PromLanes *lanes, const PromTarget *target,
								  TimestampTz now);
extern bool prom_lanes_has_few(PromLanes *lanes, const PromTarget *target);
extern void prom_lanes_refuse(PromLanes *lanes, const PromTarget *target);
extern bool prom_lanes_were_refused(PromLanes *lanes, const PromTarget *target);
extern bool prom_lanes_are_read(PromLanes *lanes, const PromTarget *target);
extern bool prom_lanes_any_refused(PromLanes *lanes);
extern bool prom_lanes_want_more(PromLanes *lanes, bool room, TimestampTz now);
extern void prom_lanes_begin_reading(PromLanes *lanes);
extern void prom_lanes_end_reading(PromLanes *lanes);

/* When the next gate opens by itself that tasks wait before. */
extern TimestampTz prom_lanes_next_moment(PromLanes *lanes, TimestampTz now);

#endif
