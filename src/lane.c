/*
 * lane.c
 *	  Keeps ready tasks apart by the gates before them, and shares fairly.
 *
 * A lane is what waits before one gate: that of a model or, while it is
 * paused, of an agent.  A closed gate holds up its own lane and no other,
 * however many tasks are in it.
 *
 * Submitters share the places fairly: each attempt costs its submitter one,
 * and a thousandth for each token, and who has used least is next.  Priority
 * orders the tasks of one submitter.  What a submitter has used counts in all
 * lanes; in each it has a share, which holds its tasks there.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "gate.h"
#include "lane.h"

typedef struct Submitter Submitter;
typedef struct Lane Lane;

typedef struct ShareKey
{
	Lane *lane;
	Submitter *submitter;
} ShareKey;

/* One submitter's tasks in one lane. */
typedef struct PromShare
{
	ShareKey key;
	pairingheap *ready;
	pairingheap_node node; /* in the lane's active, while ready is not empty */
	bool is_active;
	struct PromShare *next; /* of the same submitter */
} PromShare;

/* Who has tasks, and what they have used: a virtual time. */
struct Submitter
{
	Oid role; /* hash key */
	double spent;
	PromShare *shares;
};

struct Lane
{
	PromTarget target; /* the model; or, if it is that of an agent, that */
	bool is_agents;
	PromGate *gate; /* NULL: there is none */
	int64 length;
	pairingheap *active; /* shares that have tasks */
	uint32 assigned;     /* slots given for the gate */
	bool stalled;        /* the caller let nobody through, */
	uint32 seen;         /* when its gates had seen so many changes: */
	TimestampTz until;   /* until another, or until one opens */
	bool refused;        /* a task of it, since there was no room */
	bool reading;        /* those that were are being read */
};

/* So many of one lane have a place in a queue that is full of others. */
#define FEW 256

/*
 * What is not used is not owed later, but for so much: whose gate was closed,
 * or full, does not keep out everybody else when it opens.
 */
#define CREDIT 100

struct PromLanes
{
	PromDatabase *db;
	Lane **lanes;
	int nlanes;
	int room;
	uint32 ngates; /* when gates were looked for */
	HTAB *submitters;
	HTAB *shares;
	double now; /* the most that one who ran had spent before */
};

static int
compare(int64 a, int64 b)
{
	return a < b ? -1 : a > b;
}

int
prom_lane_order(const pairingheap_node *a, const pairingheap_node *b,
				void *arg)
{
	const PromQueueEntry *x =
		pairingheap_const_container(PromQueueNode, order, a)->entry;
	const PromQueueEntry *y =
		pairingheap_const_container(PromQueueNode, order, b)->entry;
	int64 x_rank = x->due - x->priority * USECS_PER_SEC;
	int64 y_rank = y->due - y->priority * USECS_PER_SEC;

	return x_rank != y_rank ? compare(y_rank, x_rank)
							: compare(y->task_id, x->task_id);
}

static int
spent_less(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	double x =
		pairingheap_const_container(PromShare, node, a)->key.submitter->spent;
	double y =
		pairingheap_const_container(PromShare, node, b)->key.submitter->spent;

	return x < y ? 1 : x > y ? -1
							 : 0;
}

PromLanes *
prom_lanes_create(PromDatabase *db)
{
	PromLanes *lanes = MemoryContextAllocZero(TopMemoryContext,
											  sizeof(PromLanes));
	HASHCTL control = {0};

	lanes->db = db;
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Submitter);
	control.hcxt = TopMemoryContext;
	lanes->submitters = hash_create("prometheus submitters", 64, &control,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	control.keysize = sizeof(ShareKey);
	control.entrysize = sizeof(PromShare);
	lanes->shares = hash_create("prometheus shares", 64, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return lanes;
}

/* Gates are made by the caller when it first needs them: look again. */
static void
find_gates(PromLanes *lanes)
{
	uint32 n = pg_atomic_read_u32(&lanes->db->ngates);

	if (n == lanes->ngates)
		return;
	lanes->ngates = n;
	for (int i = 0; i < lanes->nlanes; i++)
	{
		Lane *lane = lanes->lanes[i];

		if (lane->gate != NULL)
			continue;
		lane->gate = prom_gate_by_hash(lanes->db, PROM_GATE_MODEL,
									   lane->target.model);
		if (lane->gate != NULL)
			lane->assigned = pg_atomic_read_u32(&lane->gate->handled);
	}
}

static Lane *
new_lane(PromLanes *lanes, const PromTarget *target, bool is_agents)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	Lane *lane = palloc0(sizeof(Lane));

	lane->target = *target;
	lane->is_agents = is_agents;
	lane->active = pairingheap_allocate(spent_less, NULL);
	lane->gate = is_agents
					 ? prom_gate_by_hash(lanes->db, PROM_GATE_AGENT,
										 target->agent)
					 : prom_gate_by_hash(lanes->db, PROM_GATE_MODEL,
										 target->model);
	if (lane->gate != NULL)
		lane->assigned = pg_atomic_read_u32(&lane->gate->handled);
	if (lanes->nlanes == lanes->room)
	{
		lanes->room = Max(2 * lanes->room, 16);
		lanes->lanes = lanes->lanes == NULL
						   ? palloc(lanes->room * sizeof(Lane *))
						   : repalloc(lanes->lanes,
									  lanes->room * sizeof(Lane *));
	}
	lanes->lanes[lanes->nlanes++] = lane;
	MemoryContextSwitchTo(before);
	return lane;
}

/* The lane of a target; one that is new may be made. */
static Lane *
find_lane(PromLanes *lanes, const PromTarget *target, bool make)
{
	bool is_agents = prom_gate_is_paused(lanes->db, PROM_GATE_AGENT,
										 target->agent);

	for (int i = 0; i < lanes->nlanes; i++)
	{
		Lane *lane = lanes->lanes[i];

		if (lane->is_agents == is_agents &&
			(is_agents ? lane->target.agent == target->agent
					   : lane->target.model == target->model))
			return lane;
	}
	return make ? new_lane(lanes, target, is_agents) : NULL;
}

static Submitter *
find_submitter(PromLanes *lanes, Oid role)
{
	bool found;
	Submitter *submitter = hash_search(lanes->submitters, &role, HASH_ENTER,
									   &found);

	if (!found)
	{
		submitter->spent = 0;
		submitter->shares = NULL;
	}
	return submitter;
}

static PromShare *
find_share(PromLanes *lanes, Lane *lane, Submitter *submitter)
{
	ShareKey key = {lane, submitter};
	bool found;
	PromShare *share = hash_search(lanes->shares, &key, HASH_ENTER, &found);

	if (!found)
	{
		MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

		share->ready = pairingheap_allocate(prom_lane_order, NULL);
		share->is_active = false;
		share->next = submitter->shares;
		submitter->shares = share;
		MemoryContextSwitchTo(before);
	}
	return share;
}

static bool
has_tasks(const Submitter *submitter)
{
	for (PromShare *share = submitter->shares; share != NULL;
		 share = share->next)
		if (share->is_active)
			return true;
	return false;
}

void
prom_lanes_add(PromLanes *lanes, PromQueueNode *node)
{
	Lane *lane = find_lane(lanes, &node->entry->target, true);
	Submitter *submitter = find_submitter(lanes, node->entry->submitter.role);
	PromShare *share = find_share(lanes, lane, submitter);

	node->place = PROM_PLACE_LANE;
	node->share = share;
	pairingheap_add(share->ready, &node->order);
	lane->length++;
	if (share->is_active)
		return;
	/*
	 * Who has been away begins where the others are: what was not used then
	 * is not owed now.
	 */
	if (!has_tasks(submitter))
		submitter->spent = Max(submitter->spent, lanes->now);
	share->is_active = true;
	pairingheap_add(lane->active, &share->node);
}

void
prom_lanes_remove(PromLanes *lanes, PromQueueNode *node)
{
	PromShare *share = node->share;
	Lane *lane = share->key.lane;

	pairingheap_remove(share->ready, &node->order);
	lane->length--;
	if (pairingheap_is_empty(share->ready))
	{
		share->is_active = false;
		pairingheap_remove(lane->active, &share->node);
	}
	node->place = PROM_PLACE_NONE;
	node->share = NULL;
}

/*
 * Tasks that have a slot and that the caller has not looked at.  It counts
 * them as in flight before it counts them as handled, so none is missed.  A
 * scheduler that ended may have given some for a gate that we do not know of.
 */
static uint32
on_their_way(Lane *lane)
{
	uint32 handled = pg_atomic_read_u32(&lane->gate->handled);

	if ((int32) (lane->assigned - handled) < 0)
		lane->assigned = handled;
	pg_read_barrier();
	return lane->assigned - handled;
}

/* May a task of this lane be given to the caller now? */
static bool
admits(PromLanes *lanes, Lane *lane, TimestampTz now)
{
	PromGate *gate = lane->gate;

	if (lane->length == 0)
		return false;
	if (gate == NULL)
		return true;
	if (lane->is_agents)
		return !gate->paused;
	if (lane->stalled && now < lane->until &&
		prom_gate_changes(lanes->db, gate) == lane->seen &&
		!prom_gate_is_asked(lanes->db, gate))
		return false;
	lane->stalled = false;
	return prom_gate_admits(lanes->db, gate, on_their_way(lane), now);
}

static PromShare *
first_share(Lane *lane)
{
	return pairingheap_container(PromShare, node,
								 pairingheap_first(lane->active));
}

PromQueueNode *
prom_lanes_first(PromLanes *lanes, TimestampTz now)
{
	find_gates(lanes);
	if (lanes->db->gates[0].paused)
		return NULL;
	for (;;)
	{
		PromShare *best = NULL;
		PromQueueNode *node;

		for (int i = 0; i < lanes->nlanes; i++)
		{
			PromShare *share;

			if (!admits(lanes, lanes->lanes[i], now))
				continue;
			share = first_share(lanes->lanes[i]);
			if (best == NULL ||
				share->key.submitter->spent < best->key.submitter->spent)
				best = share;
		}
		if (best == NULL)
			return NULL;
		node = pairingheap_container(PromQueueNode, order,
									 pairingheap_first(best->ready));
		if (find_lane(lanes, &node->entry->target, true) == best->key.lane)
			return node;
		/* Its agent was paused, or is no more. */
		prom_lanes_remove(lanes, node);
		prom_lanes_add(lanes, node);
	}
}

int32
prom_lanes_start(PromLanes *lanes, PromQueueNode *node)
{
	Lane *lane = node->share->key.lane;
	Submitter *submitter = node->share->key.submitter;
	double lost = Max(lanes->now - CREDIT - submitter->spent, 0);

	lanes->now = Max(lanes->now, submitter->spent + lost);
	prom_lanes_remove(lanes, node);
	prom_lanes_spend(lanes, submitter->role, lost + 1);
	if (lane->gate == NULL)
		return -1;
	lane->assigned++;
	return (int32) (lane->gate - lanes->db->gates);
}

void
prom_lanes_spend(PromLanes *lanes, Oid role, double cost)
{
	Submitter *submitter = find_submitter(lanes, role);
	PromShare *share;

	/* The heaps must not see it change. */
	for (share = submitter->shares; share != NULL; share = share->next)
		if (share->is_active)
			pairingheap_remove(share->key.lane->active, &share->node);
	submitter->spent += cost;
	for (share = submitter->shares; share != NULL; share = share->next)
		if (share->is_active)
			pairingheap_add(share->key.lane->active, &share->node);
}

void
prom_lanes_stall(PromLanes *lanes, const PromTarget *target, uint32 seen,
				 TimestampTz opens)
{
	Lane *lane = find_lane(lanes, target, false);

	find_gates(lanes);
	if (lane == NULL || lane->gate == NULL || lane->is_agents)
		return;
	lane->until = opens;
	lane->seen = seen;
	lane->stalled = true;
}

void
prom_lanes_forget_slots(PromLanes *lanes)
{
	for (int i = 0; i < lanes->nlanes; i++)
	{
		Lane *lane = lanes->lanes[i];

		lane->stalled = false;
		if (lane->gate != NULL)
			lane->assigned = pg_atomic_read_u32(&lane->gate->handled);
	}
}

void
prom_lanes_gates_changed(PromLanes *lanes)
{
	for (int i = 0; i < lanes->nlanes; i++)
	{
		Lane *lane = lanes->lanes[i];

		lane->stalled = false;
		if (!lane->is_agents || lane->gate == NULL || lane->gate->paused)
			continue;
		while (lane->length > 0)
		{
			PromQueueNode *node =
				pairingheap_container(PromQueueNode, order,
									  pairingheap_first(
										  first_share(lane)->ready));

			prom_lanes_remove(lanes, node);
			prom_lanes_add(lanes, node);
		}
	}
}

static bool
is_closed(PromLanes *lanes, const Lane *lane, TimestampTz now)
{
	return lanes->db->gates[0].paused ||
		   (lane->gate != NULL && !prom_gate_is_open(lane->gate, now));
}

/* Tasks that may be under way through its gate when it is open. */
static int64
width_of(const Lane *lane)
{
	if (lane->gate == NULL || lane->is_agents)
		return PG_INT64_MAX;
	return pg_atomic_read_u32(&lane->gate->width);
}

int64
prom_lanes_runnable(PromLanes *lanes, TimestampTz now)
{
	int64 runnable = 0;

	for (int i = 0; i < lanes->nlanes; i++)
		if (!is_closed(lanes, lanes->lanes[i], now))
		{
			int64 width = width_of(lanes->lanes[i]);

			runnable += Min(lanes->lanes[i]->length, width);
		}
	return runnable;
}

bool
prom_lanes_only_waits(PromLanes *lanes, const PromTarget *target,
					  TimestampTz now)
{
	const Lane *lane = find_lane(lanes, target, true);

	return is_closed(lanes, lane, now) || lane->length >= width_of(lane);
}

bool
prom_lanes_has_few(PromLanes *lanes, const PromTarget *target)
{
	return find_lane(lanes, target, true)->length < FEW;
}

void
prom_lanes_refuse(PromLanes *lanes, const PromTarget *target)
{
	find_lane(lanes, target, true)->refused = true;
}

bool
prom_lanes_were_refused(PromLanes *lanes, const PromTarget *target)
{
	return find_lane(lanes, target, true)->refused;
}

bool
prom_lanes_are_read(PromLanes *lanes, const PromTarget *target)
{
	return find_lane(lanes, target, true)->reading;
}

bool
prom_lanes_any_refused(PromLanes *lanes)
{
	for (int i = 0; i < lanes->nlanes; i++)
		if (lanes->lanes[i]->refused)
			return true;
	return false;
}

bool
prom_lanes_want_more(PromLanes *lanes, bool room, TimestampTz now)
{
	for (int i = 0; i < lanes->nlanes; i++)
	{
		const Lane *lane = lanes->lanes[i];
		int64 width = width_of(lane);

		if (lane->refused && !is_closed(lanes, lane, now) &&
			(lane->length <= Min(width, FEW) / 2 ||
			 (room && lane->length < width)))
			return true;
	}
	return false;
}

void
prom_lanes_begin_reading(PromLanes *lanes)
{
	for (int i = 0; i < lanes->nlanes; i++)
	{
		lanes->lanes[i]->reading = lanes->lanes[i]->refused;
		lanes->lanes[i]->refused = false;
	}
}

void
prom_lanes_end_reading(PromLanes *lanes)
{
	for (int i = 0; i < lanes->nlanes; i++)
		lanes->lanes[i]->reading = false;
}

TimestampTz
prom_lanes_next_moment(PromLanes *lanes, TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < lanes->nlanes; i++)
	{
		const Lane *lane = lanes->lanes[i];

		if ((lane->length > 0 || lane->refused) && lane->gate != NULL)
		{
			TimestampTz opens = prom_gate_opens_next(lanes->db, lane->gate,
													 now);

			next = Min(next, opens);
		}
	}
	return next;
}
