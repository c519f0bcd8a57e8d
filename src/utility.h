/*
 * utility.h
 *	  Lets statements that need a database without sessions have it.
 */
#ifndef PROM_UTILITY_H
#define PROM_UTILITY_H

extern void prom_utility_init(void);

#endif
