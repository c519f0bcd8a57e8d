/*
 * mutant.h
 *	  Known mistakes that a test must notice.
 *
 * Compiled in with -DPROM_FAULTS (make FAULTS=1) only; else nobody makes them.
 */
#ifndef PROM_MUTANT_H
#define PROM_MUTANT_H

#ifdef PROM_FAULTS
#define PROM_MUTANT(name) prom_mutant_is(name)

/* The setting prometheus.mutant. */
extern void prom_mutant_define(void);
extern bool prom_mutant_is(const char *name);
#else
#define PROM_MUTANT(name) false
#endif

#endif
