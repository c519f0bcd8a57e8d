/*
 * compat.h
 *	  What differs between PostgreSQL 15 and 18: all such switches are here.
 */
#ifndef PROM_COMPAT_H
#define PROM_COMPAT_H

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/dsa.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 160000
extern PGDLLEXPORT void _PG_init(void);
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* A set that lives as long as the process. */
#if PG_VERSION_NUM >= 170000
#define prom_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define prom_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

#if PG_VERSION_NUM >= 170000
#define prom_wait_event_new(name) WaitEventExtensionNew(name)
#else
#define prom_wait_event_new(name) PG_WAIT_EXTENSION
#endif

#if PG_VERSION_NUM >= 160000
#define prom_insert_index_tuples(rri, slot, estate)                         \
	ExecInsertIndexTuples((rri), (slot), (estate), false, false, NULL, NIL, \
						  false)
#define prom_guc_strdup(s) guc_strdup(ERROR, (s))
#define prom_guc_malloc(size) guc_malloc(ERROR, (size))
#define prom_guc_free(place) guc_free(place)
#else
#define prom_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, false, NULL, NIL)
#define prom_guc_strdup(s) strdup(s)
#define prom_guc_malloc(size) malloc(size)
#define prom_guc_free(place) free(place)
#endif

#if PG_VERSION_NUM >= 170000
#define prom_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode), false)
#else
#define prom_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode))
#endif

/* Is it ALTER COLUMN ... SET EXPRESSION? */
#if PG_VERSION_NUM >= 170000
#define prom_sets_expression(subtype) ((subtype) == AT_SetExpression)
#else
#define prom_sets_expression(subtype) false
#endif

/* From where on a slot keeps WAL; one that was invalidated keeps none. */
#if PG_VERSION_NUM >= 160000
#define prom_slot_keeps(slot)                                             \
	((slot)->data.invalidated == RS_INVAL_NONE ? (slot)->data.restart_lsn \
											   : InvalidXLogRecPtr)
#else
#define prom_slot_keeps(slot) ((slot)->data.restart_lsn)
#endif

/* 0: it is a time. */
#if PG_VERSION_NUM >= 160000
#define prom_decode_time(fields, types, n, kind, tm, fsec, zone)         \
	DecodeDateTime((fields), (types), (n), (kind), (tm), (fsec), (zone), \
				   &(DateTimeErrorExtra){0})
#else
#define prom_decode_time(fields, types, n, kind, tm, fsec, zone) \
	DecodeDateTime((fields), (types), (n), (kind), (tm), (fsec), (zone))
#endif

#if PG_VERSION_NUM >= 160000
#define prom_owns_database(oid, role) \
	object_ownercheck(DatabaseRelationId, (oid), (role))
#else
#define prom_owns_database(oid, role) pg_database_ownercheck((oid), (role))
#endif

#if PG_VERSION_NUM >= 160000
#define prom_owns_relation(oid, role) \
	object_ownercheck(RelationRelationId, (oid), (role))
#else
#define prom_owns_relation(oid, role) pg_class_ownercheck((oid), (role))
#endif

#if PG_VERSION_NUM >= 160000
#define prom_may_execute(oid, role)                                      \
	(object_aclcheck(ProcedureRelationId, (oid), (role), ACL_EXECUTE) == \
	 ACLCHECK_OK)
#else
#define prom_may_execute(oid, role) \
	(pg_proc_aclcheck((oid), (role), ACL_EXECUTE) == ACLCHECK_OK)
#endif

#if PG_VERSION_NUM >= 160000
#define prom_may_use_schema(oid, role)                                 \
	(object_aclcheck(NamespaceRelationId, (oid), (role), ACL_USAGE) == \
	 ACLCHECK_OK)
#else
#define prom_may_use_schema(oid, role) \
	(pg_namespace_aclcheck((oid), (role), ACL_USAGE) == ACLCHECK_OK)
#endif

/* Is it what a query is grouped by? */
#if PG_VERSION_NUM >= 180000
#define prom_range_is_group(entry) ((entry)->rtekind == RTE_GROUP)
#else
#define prom_range_is_group(entry) false
#endif

/* ExecutorCheckPerms_hook: how each relation of a query is to be used. */
#if PG_VERSION_NUM >= 160000
typedef RTEPermissionInfo PromAccess;
#define PROM_CHECK_ARGUMENTS List *range_table, List *accesses, bool raise
#define PROM_CHECK_PASSED range_table, accesses, raise
#else
typedef RangeTblEntry PromAccess;
#define PROM_CHECK_ARGUMENTS List *accesses, bool raise
#define PROM_CHECK_PASSED accesses, raise
#endif

/* One that is deferrable is none for us. */
#if PG_VERSION_NUM >= 180000
#define prom_primary_key_index(relation) \
	RelationGetPrimaryKeyIndex((relation), false)
#else
#define prom_primary_key_index(relation) RelationGetPrimaryKeyIndex(relation)
#endif

/* ExecutorRun_hook: how far a query is to be run. */
#if PG_VERSION_NUM >= 180000
#define PROM_RUN_ARGUMENTS \
	QueryDesc *query, ScanDirection direction, uint64 rows
#define PROM_RUN_PASSED query, direction, rows
#else
#define PROM_RUN_ARGUMENTS \
	QueryDesc *query, ScanDirection direction, uint64 rows, bool once
#define PROM_RUN_PASSED query, direction, rows, once
#endif

/* This process's index into an array of MaxBackends + aux entries. */
#if PG_VERSION_NUM >= 170000
#define prom_my_proc_number() ((int) MyProcNumber)
#else
#define prom_my_proc_number() ((int) MyProc->pgprocno)
#endif

/* A backend's state, by its number from 1 on, with its xid and xmin. */
#if PG_VERSION_NUM >= 160000
#define prom_backend_status(n) pgstat_get_local_beentry_by_index(n)
#else
#define prom_backend_status(n) pgstat_fetch_stat_local_beentry(n)
#endif

/* No dynamic shared area. */
#ifndef DSA_HANDLE_INVALID
#define DSA_HANDLE_INVALID ((dsa_handle) DSM_HANDLE_INVALID)
#endif

/* A worker's owner need not be allowed to log in, where that can be said. */
#if PG_VERSION_NUM >= 170000
#define PROM_CONNECT_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define PROM_CONNECT_FLAGS 0
#endif

/* It would end a worker that waits for a lock. */
#if PG_VERSION_NUM >= 170000
#define PROM_HAS_TRANSACTION_TIMEOUT
#endif

/* How many transactions with an xid have ended since the server's start. */
#if PG_VERSION_NUM >= 170000
#define prom_xact_completion_count() (TransamVariables->xactCompletionCount)
#else
#define prom_xact_completion_count() (ShmemVariableCache->xactCompletionCount)
#endif

#endif
