/*
 * layout.h
 *	  The columns of a tracked table, now and at earlier times.
 */
#ifndef PROM_LAYOUT_H
#define PROM_LAYOUT_H

#include "access/transam.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

/* A row of prometheus._track, or what the next one would be. */
typedef struct PromLayout
{
	int32 number;
	Oid relid;
	FullTransactionId xid;
	int32 era; /* of it */
	TimestampTz recorded_at;
	char *event;    /* begun, altered, ended */
	char *relation; /* its qualified name */
	char *reason;   /* of an end, or NULL */
	int32 last_column;
	int n;          /* columns */
	int32 *columns; /* their numbers */
	int32 *attnums;
	char **names;
	char **types;
	int nkey;   /* 0: there is no primary key */
	int32 *key; /* numbers of its columns */
} PromLayout;

/* The columns of a table, without their numbers. */
extern void prom_layout_of(Relation relation, PromLayout *layout);

/*
 * Give them the numbers that they had before; before NULL: the first.  The era
 * is that of now; 0: not known.
 */
extern void prom_layout_number(PromLayout *layout, const PromLayout *before,
							   int32 era);

extern bool prom_layout_is_same(const PromLayout *a, const PromLayout *b);

/* Of the same columns; and, if that is asked, of types of the same name. */
extern bool prom_layout_has_same_key(const PromLayout *a, const PromLayout *b,
									 bool types);

/* The place of a column in the arrays, or -1. */
extern int prom_layout_find(const PromLayout *layout, int32 column);

/* By number, or the newest if that is 0.  False: there is none. */
extern bool prom_layout_read(const pg_uuid_t *track_id, int32 number,
							 PromLayout *layout);

/* The tracks, pg_uuid_t, of a table by its oid, earlier ones too. */
extern List *prom_layout_tracks(Oid relid);

/* Of the current transaction. */
extern int32 prom_layout_era(void);

/* Record it; its event and reason say what happened. */
extern void prom_layout_add(const pg_uuid_t *track_id,
							const PromLayout *layout);

#endif
