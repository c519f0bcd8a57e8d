/*
 * setting.h
 *	  Named things that are set (agents, models, tools): their next version is
 *	  written under a lock of the name, their versions are kept by workers.
 */
#ifndef PROM_SETTING_H
#define PROM_SETTING_H

#include "fmgr.h"
#include "role.h"
#include "utils/jsonb.h"
#include "xact.h"

#define PROM_SETTING_COLUMNS 12

/* A relation of versions, and the columns that are the thing's own. */
typedef struct PromSettingKind
{
	const char *called; /* "a model" */
	const char *table;
	const char *columns; /* as in SELECT */
	const char *places;  /* of their new values, from $6 on */
	int ncolumns;
} PromSettingKind;

/* The new version of a thing, and the role that is to be restored. */
typedef struct PromSetting
{
	const PromSettingKind *kind;
	const char *name;
	PromOwner before;
	bool exists;                         /* else there is no version */
	int64 version;                       /* the newest; 0: none */
	int64 mark;                          /* of the newest; it never falls */
	char *columns[PROM_SETTING_COLUMNS]; /* of the newest, as text */
	Oid owner_oid;
	char *owner;
	Jsonb *options;
} PromSetting;

/*
 * For a function that sets: check that the caller is an administrator, may
 * write here, and gave a usable name.
 */
extern void prom_setting_check(const PromSettingKind *kind,
							   const char *function, const char *name);

/*
 * Lock the name to the end of the transaction, become the extension's owner,
 * and read the newest version.
 */
extern void prom_setting_begin(PromSetting *setting,
							   const PromSettingKind *kind, const char *name);

/* Be the caller again, without a new version. */
extern void prom_setting_leave(PromSetting *setting);

/* The columns of another version, as text; false: there is none. */
extern bool prom_setting_read(const PromSetting *setting, int64 version,
							  char **texts);

/* The relation of its versions. */
extern Oid prom_setting_relation(const PromSettingKind *kind);

/*
 * May the caller act as the owner of a thing that is there?  Name and oid of
 * that role must agree, or he is a superuser.
 */
extern bool prom_setting_may_act_as_owner(const PromSetting *setting);

/* The options of before with the new ones; a null takes one away. */
extern Jsonb *prom_setting_merge(const PromSetting *setting, Jsonb *given);

/*
 * Insert the next version, whose number is the result, and be the caller
 * again.  texts are the new values of the thing's own columns.
 */
extern int64 prom_setting_end(PromSetting *setting, char **texts,
							  Jsonb *options);

/* A text that was not given keeps its value, an empty one takes it away. */
extern char *prom_setting_text(FunctionCallInfo fcinfo, int n, char *otherwise);
extern Jsonb *prom_setting_jsonb(FunctionCallInfo fcinfo, int n);

/*
 * The search_path that is in force now, for functions that are to run later:
 * pg_catalog first, pg_temp last, and no name that depends on who runs them.
 */
extern char *prom_setting_search_path(void);

/*
 * Versions of one kind of thing in a process.  statement reads one by name and
 * version, make() makes it of the row that was found, in the current context;
 * it begins with a PromVersion.
 */
typedef struct PromVersion
{
	const char *name;
	int64 version; /* dense, from 1 */
} PromVersion;

typedef struct PromVersions
{
	PromStatement statement;
	void *(*make)(const char *name, int64 version);
	List *kept;
	uint64 generation; /* of kept: what was before a forgetting is gone */
} PromVersions;

/*
 * A version from those that are kept: they are facts and never change.  In a
 * worker's transaction with SPI connected; raises if there is none.  Good
 * until prom_versions_forget().
 */
extern const void *prom_version_get(PromVersions *versions, const char *name,
									int64 version);

/*
 * The same for a backend, which keeps none: in the current memory context,
 * and by a snapshot that the caller has made the active one.
 */
extern void *prom_version_read(PromVersions *versions, const char *name,
							   int64 version);

/* Forget all that are kept, when they are many and nobody holds one. */
extern void prom_versions_forget(void);
extern int prom_versions_kept(void);

#endif
