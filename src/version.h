/*
 * version.h
 *	  The versions of the rows of tracked tables.
 */
#ifndef PROM_VERSION_H
#define PROM_VERSION_H

#include "access/htup.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "fact.h"
#include "layout.h"

/* The triggers of a tracked table; 0 sorts before those of others. */
#define PROM_VERSION_ROW_TRIGGER "0_prometheus_track"
#define PROM_VERSION_TRUNCATE_TRIGGER "0_prometheus_truncate"

/* One that can be recorded. */
typedef struct PromTracked
{
	Oid relid;    /* the key of the hash */
	bool valid;   /* false: look again */
	bool records; /* false: its facts are not of this table, or it ended */
	pg_uuid_t track_id;
	PromLayout layout;
	FmgrInfo *outputs; /* functions that make texts, by column */
	int *key;          /* places of the primary key's columns */
	bool has_settings; /* the texts depend on settings */
	MemoryContext context;
} PromTracked;

/* A row as texts, in the order of the layout. */
typedef struct PromRowText
{
	char **values; /* NULL: null */
	char *key;
} PromRowText;

extern void prom_version_init(void);

/* The track_id of a table's triggers; false: it has none of ours. */
extern bool prom_version_track_id(Relation relation, pg_uuid_t *track_id);

/* Are both triggers there, and enabled always? */
extern bool prom_version_is_whole(Relation relation);

/* Does one of them not run when anybody changes a row? */
extern bool prom_version_is_disabled(Relation relation);

/* The function of our triggers. */
extern Oid prom_version_function(void);

/* What is known of a table with our triggers. */
extern PromTracked *prom_version_tracked(Relation relation);

/*
 * Texts of values are made and read between these, under settings that make
 * them the same whoever asks.
 */
extern int prom_version_texts_begin(void);
extern void prom_version_texts_end(int nest_level);

/* The texts of a row, or of its key alone, in the current memory context. */
extern void prom_version_texts(PromTracked *tracked, HeapTuple tuple,
							   TupleDesc desc, bool only_key,
							   PromRowText *row);

/* A key, of the texts of its columns in their order. */
extern char *prom_version_key(char **texts, int n);

/* Add a version; row without values: it is deleted. */
extern void prom_version_add(PromFactWriter *writer, PromTracked *tracked,
							 const char *operation, const PromRowText *row);

/* Add one for each row that the table has now; of a table that is locked. */
extern void prom_version_add_all(Relation relation, PromTracked *tracked,
								 const char *operation);

/* Whose changes they are from now on; 0: no task's. */
extern void prom_version_set_task(int64 task_id, int32 step);

/* The task whose job this process runs; 0: none. */
extern int64 prom_version_task(void);

/* The task that is being undone; 0: none. */
extern void prom_version_set_undone(int64 task_id);

#endif
