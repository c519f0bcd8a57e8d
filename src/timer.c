/*
 * timer.c
 *	  A binary heap of timers that live in the structures they belong to.
 */
#include <limits.h>
#include <stdlib.h>

#include "timer.h"

int
prom_timer_wait(int64_t now, int64_t until)
{
	uint64_t ms;

	if (until <= now)
		return 0;
	/* Unsigned: from the beginning of time to its end is not too far. */
	ms = ((uint64_t) until - (uint64_t) now - 1) / 1000 + 1;
	return ms < INT_MAX ? (int) ms : INT_MAX;
}

static void
put(PromTimerHeap *heap, int place, PromTimer *timer)
{
	heap->timers[place] = timer;
	timer->place = place;
}

static void
move_up(PromTimerHeap *heap, PromTimer *timer)
{
	int place = timer->place;

	while (place > 0)
	{
		int parent = (place - 1) / 2;

		if (heap->timers[parent]->due <= timer->due)
			break;
		put(heap, place, heap->timers[parent]);
		place = parent;
	}
	put(heap, place, timer);
}

static void
move_down(PromTimerHeap *heap, PromTimer *timer)
{
	int place = timer->place;

	for (;;)
	{
		int child = place * 2 + 1;

		if (child >= heap->used)
			break;
		if (child + 1 < heap->used &&
			heap->timers[child + 1]->due < heap->timers[child]->due)
			child++;
		if (heap->timers[child]->due >= timer->due)
			break;
		put(heap, place, heap->timers[child]);
		place = child;
	}
	put(heap, place, timer);
}

bool
prom_timer_add(PromTimerHeap *heap, PromTimer *timer, int64_t due)
{
	timer->place = -1;
	if (heap->used == heap->size)
	{
		int size = heap->size ? heap->size * 2 : 64;
		PromTimer **timers = realloc(heap->timers, size * sizeof(*timers));

		if (timers == NULL)
			return false;
		heap->timers = timers;
		heap->size = size;
	}
	timer->due = due;
	timer->place = heap->used++;
	move_up(heap, timer);
	return true;
}

void
prom_timer_move(PromTimerHeap *heap, PromTimer *timer, int64_t due)
{
	bool up = due < timer->due;

	timer->due = due;
	if (up)
		move_up(heap, timer);
	else
		move_down(heap, timer);
}

void
prom_timer_remove(PromTimerHeap *heap, PromTimer *timer)
{
	PromTimer *last;
	int place = timer->place;

	if (place < 0)
		return;
	timer->place = -1;
	last = heap->timers[--heap->used];
	if (last == timer)
		return;
	put(heap, place, last);
	move_up(heap, last);
	move_down(heap, last);
}

PromTimer *
prom_timer_first(const PromTimerHeap *heap)
{
	return heap->used > 0 ? heap->timers[0] : NULL;
}

void
prom_timer_free(PromTimerHeap *heap)
{
	free(heap->timers);
	heap->timers = NULL;
	heap->used = heap->size = 0;
}
