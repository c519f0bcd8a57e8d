/*
 * extension.h
 *	  What the catalogue of a database says about the extension, and how that
 *	  goes with the library that is loaded.
 */
#ifndef PROM_EXTENSION_H
#define PROM_EXTENSION_H

#include "shmem.h"

#define PROM_EXTENSION "prometheus" /* its name */

typedef struct PromExtension
{
	Oid oid;
	Oid owner;
	char version[PROM_VERSION_LENGTH]; /* of the SQL objects */
} PromExtension;

/* What a worker's transaction finds. */
typedef enum PromPresence
{
	PROM_ABSENT,        /* no such extension in this database */
	PROM_OTHER_VERSION, /* its objects are not those of this library */
	PROM_OTHER,         /* made anew, or another role's: reconnect */
	PROM_PRESENT
} PromPresence;

/* Notice, from now on, when a session changes or drops it. */
extern void prom_extension_init(void);

/* False: it is not in this database. */
extern bool prom_extension_find(PromExtension *found);

/* Is an object a part of it? */
extern bool prom_extension_has(Oid class, Oid object);

/* The role that owns the extension; InvalidOid: it is not in this database. */
extern Oid prom_extension_owner(void);

/* For a worker: is it there, and the same as always?  Until the end of the
 * transaction it then is not dropped. */
extern PromPresence prom_extension_presence(PromExtension *found);

/* The version of the installed files; NULL: there are none. */
extern char *prom_extension_files(void);

/* What to do about objects of another version than the library's. */
extern const char *prom_extension_advice(const char *version,
										 const char *files);

#endif
