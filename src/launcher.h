/*
 * launcher.h
 *	  Registers the one static process of the extension.
 */
#ifndef PROM_LAUNCHER_H
#define PROM_LAUNCHER_H

extern void prom_launcher_register(void);

#endif
