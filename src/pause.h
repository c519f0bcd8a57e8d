/*
 * pause.h
 *	  What people have paused, and may resume.
 */
#ifndef PROM_PAUSE_H
#define PROM_PAUSE_H

#include "shmem.h"

/*
 * Let the gates of a database say what the table does, in a transaction with
 * SPI connected.
 */
extern void prom_pause_read(PromDatabase *db);

#endif
