/*
 * consumer.h
 *	  Consumers of events.
 */
#ifndef PROM_CONSUMER_H
#define PROM_CONSUMER_H

#include "lib/stringinfo.h"

/*
 * How many there are; names of those are added whose position is behind the
 * newest mark by more than so many seconds.
 */
extern int prom_consumer_count(int seconds, StringInfo late);

#endif
