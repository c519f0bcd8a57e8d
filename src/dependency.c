/*
 * dependency.c
 *	  Keeps, for each task that others wait for, a list of these.
 *
 * A task that ended otherwise is left in the lists: who takes it out looks
 * whether it still waits.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "dependency.h"

/* One task that waits, in the list of the other. */
typedef struct Edge
{
	int64 task_id;
	int32 next; /* of the same parent, or free; -1: none */
} Edge;

typedef struct Parent
{
	int64 task_id; /* hash key */
	int32 first;
} Parent;

struct PromDependencies
{
	HTAB *parents;
	Edge *edges;
	int32 nedges; /* ever used */
	int32 room;
	int32 free; /* first of those that are free; -1: none */
};

PromDependencies *
prom_dependencies_create(void)
{
	PromDependencies *dependencies =
		MemoryContextAllocZero(TopMemoryContext, sizeof(PromDependencies));
	HASHCTL control = {0};

	control.keysize = sizeof(int64);
	control.entrysize = sizeof(Parent);
	control.hcxt = TopMemoryContext;
	dependencies->parents =
		hash_create("prometheus dependencies", 64, &control,
					HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dependencies->free = -1;
	return dependencies;
}

static int32
new_edge(PromDependencies *dependencies)
{
	int32 edge = dependencies->free;

	if (edge != -1)
	{
		dependencies->free = dependencies->edges[edge].next;
		return edge;
	}
	if (dependencies->nedges == dependencies->room)
	{
		Size bytes;

		dependencies->room = Max(2 * dependencies->room, 1024);
		bytes = (Size) dependencies->room * sizeof(Edge);
		dependencies->edges =
			dependencies->edges == NULL
				? MemoryContextAllocHuge(TopMemoryContext, bytes)
				: repalloc_huge(dependencies->edges, bytes);
	}
	return dependencies->nedges++;
}

void
prom_dependencies_add(PromDependencies *dependencies, int64 parent,
					  int64 task_id)
{
	bool found;
	Parent *entry = hash_search(dependencies->parents, &parent, HASH_ENTER,
								&found);
	int32 edge = new_edge(dependencies);

	dependencies->edges[edge].task_id = task_id;
	dependencies->edges[edge].next = found ? entry->first : -1;
	entry->first = edge;
}

int64
prom_dependencies_next(PromDependencies *dependencies, int64 parent)
{
	Parent *entry = hash_search(dependencies->parents, &parent, HASH_FIND,
								NULL);
	Edge *edge;
	int32 number;

	if (entry == NULL)
		return 0;
	number = entry->first;
	edge = &dependencies->edges[number];
	entry->first = edge->next;
	edge->next = dependencies->free;
	dependencies->free = number;
	if (entry->first == -1)
		hash_search(dependencies->parents, &parent, HASH_REMOVE, NULL);
	return edge->task_id;
}
