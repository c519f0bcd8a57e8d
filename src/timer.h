/*
 * timer.h
 *	  Thousands of moments, of which the earliest is wanted.
 *
 * Plain C without PostgreSQL.
 */
#ifndef PROM_TIMER_H
#define PROM_TIMER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How long to wait from one moment to another, both in microseconds: in ms,
 * rounded up, 0 if that is over, and never more than an int holds, however far
 * apart they are.
 */
extern int prom_timer_wait(int64_t now, int64_t until);

/* Part of the structure it wakes up.  due is changed by the functions only. */
typedef struct PromTimer
{
	int64_t due; /* in whatever unit, on whatever clock */
	int place;   /* in the heap; -1: not in it */
} PromTimer;

/* A heap, the earliest timer first; all zero is an empty one. */
typedef struct PromTimerHeap
{
	PromTimer **timers;
	int used;
	int size;
} PromTimerHeap;

/* False: memory is missing. */
extern bool prom_timer_add(PromTimerHeap *heap, PromTimer *timer, int64_t due);
extern void prom_timer_move(PromTimerHeap *heap, PromTimer *timer,
							int64_t due);

/* Nothing happens if it is not in the heap. */
extern void prom_timer_remove(PromTimerHeap *heap, PromTimer *timer);

/* The earliest, or NULL. */
extern PromTimer *prom_timer_first(const PromTimerHeap *heap);
extern void prom_timer_free(PromTimerHeap *heap);

#endif
