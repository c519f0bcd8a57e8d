/*
 * fault.h
 *	  Places where a test lets a process die, fail, or stop the server.
 *
 * Compiled in with -DPROM_FAULTS (make FAULTS=1) only; else they are nothing.
 * src/README.md has them in its drawings.
 */
#ifndef PROM_FAULT_H
#define PROM_FAULT_H

#ifdef PROM_FAULTS
#define PROM_FAULT(point) prom_fault_reach(point)

/* The setting prometheus.fault. */
extern void prom_fault_define(void);
extern void prom_fault_reach(const char *point);
#else
#define PROM_FAULT(point) ((void) 0)
#endif

#endif
