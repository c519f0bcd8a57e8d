/*
 * undo.h
 *	  What a task changed in tracked tables, and how that is reverted.
 */
#ifndef PROM_UNDO_H
#define PROM_UNDO_H

#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "compat.h"
#include "history.h"
#include "version.h"

/* A table with rows that a task changed. */
typedef struct PromUndoTable
{
	pg_uuid_t track_id;
	Oid relid;
	const char *name;
	Relation relation;    /* NULL: there is none */
	const char *problem;  /* why nothing can be reverted in it, or NULL */
	PromTracked *tracked; /* else these are there */
	PromHistory history;
	HTAB *rows;          /* PromUndoRow by their keys */
	List *references;    /* foreign keys that change who refers to a row */
	bool has_references; /* these were looked for */
} PromUndoTable;

typedef enum PromUndoVerdict
{
	PROM_UNDO_REVERT,
	PROM_UNDO_SAME,
	PROM_UNDO_UNDONE,
	PROM_UNDO_CONFLICT
} PromUndoVerdict;

/* A row that a task changed, all in all. */
typedef struct PromUndoRow
{
	PromUndoTable *table;
	char *key;
	bool was_there;    /* before the task */
	bool is_there;     /* after it */
	PromFields before; /* when it was reverted: what that came to */
	PromFields after;
	PromFields last; /* the last that it had, or will have */
	bool is_kept;    /* when it was reverted, before triggers */
	PromRowText kept;
	PromUndoVerdict verdict;
	const char *reason; /* of a conflict, or NULL */
} PromUndoRow;

/* The rows that a task changed: PromUndoRow, in the order of the changes. */
extern List *prom_undo_plan(int64 task_id, bool lock, List **tables);

/* Find the row of a key of a table; NULL: there is none. */
extern const PromUndoRow *prom_undo_find(const List *tables, Oid relid,
										 const char *key);

/*
 * Does the table have the row as the task left it, and can it be what it was?
 * Why not, or NULL.
 */
extern const char *prom_revert_compare(PromUndoRow *row, const List *tables);

/* Is it as before, in all columns that are not generated of others? */
extern bool prom_revert_is_same(const PromUndoRow *row);

/*
 * Does a row that is not of this undo, of these tables, refer to one that is to
 * be deleted, so that it would be changed as well?  Its table, or NULL.
 */
extern const char *prom_revert_find_reference(PromUndoRow *row,
											  const List *tables);

/* Revert all rows with that verdict. */
extern void prom_revert(int64 task_id, const List *rows);

/* Raise the conflicts among them. */
extern pg_noreturn void prom_undo_raise(int64 task_id, const List *rows);

#endif
