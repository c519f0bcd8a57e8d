/*
 * history.h
 *	  Reads versions of the rows of a tracked table in its columns of now.
 */
#ifndef PROM_HISTORY_H
#define PROM_HISTORY_H

#include "utils/rel.h"

#include "layout.h"

/* A row, by the columns that the table has now. */
typedef struct PromFields
{
	char **values; /* NULL: null */
	bool *known;   /* false: the table had no such column then */
	bool *retyped; /* it had another type */
} PromFields;

typedef struct PromHistory
{
	Relation relation;
	pg_uuid_t track_id;
	PromLayout now;    /* the table's columns */
	PromLayout newest; /* what was recorded last */
	List *maps;        /* of layouts that were read */
	void *inputs;      /* of values, by column */
} PromHistory;

/* What is known of a track, of this table; false: nothing. */
extern bool prom_history_open(Relation relation, const pg_uuid_t *track_id,
							  PromHistory *history);

/* The fields of a version. */
extern void prom_history_fields(PromHistory *history, int32 layout,
								Datum array, PromFields *fields);

/* A value of a column of now; checked: the type's constraints hold for it. */
extern Datum prom_history_value(PromHistory *history, int column, char *text,
								bool checked);

/* Raise unless the current user may read every row of the table. */
extern void prom_history_check_access(Relation relation);

#endif
