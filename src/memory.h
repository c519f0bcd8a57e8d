/*
 * memory.h
 *	  What agents remember.
 */
#ifndef PROM_MEMORY_H
#define PROM_MEMORY_H

#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* Whose memory it is: a role, whose name and oid must agree, and an agent. */
typedef struct PromMemoryOwner
{
	const char *name;
	Oid oid;
	const char *agent;
} PromMemoryOwner;

typedef struct PromMemory
{
	const char *content;
	const char *kind;
	float4 importance;
	Jsonb *metadata;      /* NULL: {} */
	ArrayType *embedding; /* of real; NULL: none */
	Interval *ttl;        /* NULL: the kind's */
	int64 task_id;        /* whose tool stores it; 0: none */
	bool once;            /* one that is there stays as it is */
	int64 id;             /* of one that is not there; 0: the next */
} PromMemory;

/*
 * How much a memory m matters at a time, 0 to 1, by its age or since it was
 * used: an expression for statements.  Written OPERATOR(), all bind alike:
 * hence the parentheses.  Of ages that exp() has no number for, or that are
 * none since a clock was set, the nearest counts.
 */
#define PROM_MEMORY_RELEVANCE(now) PROM_MEMORY_RELEVANCE_OF(now, "m.created_at")
#define PROM_MEMORY_RELEVANCE_OF(now, used_at)                              \
	"((0.7::pg_catalog.float8 OPERATOR(pg_catalog.*)"                       \
	" m.importance::pg_catalog.float8) OPERATOR(pg_catalog.+)"              \
	" (0.3::pg_catalog.float8 OPERATOR(pg_catalog.*)"                       \
	" pg_catalog.exp(least(0::pg_catalog.float8, greatest((-700)"           \
	"::pg_catalog.float8, (-0.1)::pg_catalog.float8 OPERATOR(pg_catalog.*)" \
	" (pg_catalog.date_part('epoch', " now " OPERATOR(pg_catalog.-)"        \
	" " used_at ") OPERATOR(pg_catalog./)"                                  \
	" 86400::pg_catalog.float8))))))"

/*
 * A version more of a memory m, as it is but for what is given, the last of it
 * forgotten, reason and superseded_by; what follows FROM _memory m is the
 * statement's.
 */
#define PROM_MEMORY_ADD_VERSION(mark, task, now, kind, metadata, end)       \
	"INSERT INTO prometheus._memory (memory_id, version, xid, mark,"        \
	" task_id, created_at, expires_at, owner_oid, importance, owner,"       \
	" agent, kind, content, metadata, words, embedding, forgotten, reason," \
	" superseded_by)"                                                       \
	" SELECT m.memory_id, m.version OPERATOR(pg_catalog.+) 1,"              \
	" prometheus._xid(), greatest(" mark ", m.mark), " task ", " now ","    \
	" m.expires_at, m.owner_oid, m.importance, m.owner, m.agent, " kind "," \
	" m.content, " metadata ", m.words, m.embedding, " end                  \
	" FROM prometheus._memory m"

/* Its newest version, where $1 is the id. */
#define PROM_MEMORY_NEWEST                                      \
	" WHERE m.memory_id OPERATOR(pg_catalog.=) $1"              \
	"   AND m.version OPERATOR(pg_catalog.=) (SELECT n.version" \
	"     FROM prometheus._memory n"                            \
	"     WHERE n.memory_id OPERATOR(pg_catalog.=) $1"          \
	"     ORDER BY n.version DESC LIMIT 1)"

/* Another memory s of the same content as m, and such, is remembered. */
#define PROM_MEMORY_IS_TWICE(such)                                \
	"EXISTS (SELECT FROM prometheus._memory s"                    \
	"   WHERE s.owner OPERATOR(pg_catalog.=) m.owner"             \
	"     AND s.owner_oid OPERATOR(pg_catalog.=) m.owner_oid"     \
	"     AND s.agent OPERATOR(pg_catalog.=) m.agent"             \
	"     AND " such                                              \
	"     AND s.memory_id OPERATOR(pg_catalog.<>) m.memory_id"    \
	"     AND pg_catalog.md5(s.content) OPERATOR(pg_catalog.=)"   \
	"       pg_catalog.md5(m.content)"                            \
	"     AND s.content OPERATOR(pg_catalog.=) m.content"         \
	"     AND NOT s.forgotten"                                    \
	"     AND s.version OPERATOR(pg_catalog.=) (SELECT x.version" \
	"       FROM prometheus._memory x"                            \
	"       WHERE x.memory_id OPERATOR(pg_catalog.=) s.memory_id" \
	"       ORDER BY x.version DESC LIMIT 1))"

/* Has a memory m the metadata by which it is left as it is? */
#define PROM_MEMORY_IS_PINNED \
	"m.metadata OPERATOR(pg_catalog.@>) '{\"pinned\": true}'"

/*
 * Let nobody else write an owner's memory of that content and kind until the
 * end of the transaction; if their number has a limit, none of that kind.
 * Several are locked in one order; after others, only one of the vault may be.
 */
typedef struct PromMemoryKey
{
	const char *kind;
	const char *content;
} PromMemoryKey;

extern void prom_memory_lock(const PromMemoryOwner *owner, const char *kind,
							 const char *content);
extern void prom_memory_lock_all(const PromMemoryOwner *owner,
								 const PromMemoryKey *keys, int n);

/* Is a kind locked so that nobody else writes any of it? */
extern bool prom_memory_is_locked_alone(const PromMemoryOwner *owner,
										const char *kind);

/*
 * A worker's transaction that waited in vain for who remembers the same for an
 * agent remembers nothing more: it may be the caller's, for which all wait.
 */
#define PROM_MEMORY_LOCK_TIMEOUT "100ms"

extern bool prom_memory_may_wait(void);
extern void prom_memory_failed(const ErrorData *failure);

/*
 * The id of what is remembered of this content and kind already, or of what its
 * task was told; 0: nothing is.  It is locked.
 */
extern int64 prom_memory_known(const PromMemoryOwner *owner,
							   const PromMemory *memory);

/*
 * Store one, unless it is there; its id.  One of the same content and kind gets
 * a new version if this one is more important, has other metadata or lasts
 * longer.  What its task was told as a memory is left as it is.  That a task
 * finds a fact again is evidence for it.  As the extension's owner, with SPI
 * connected.  Raises for what cannot be.
 */
extern int64 prom_memory_add(const PromMemoryOwner *owner,
							 const PromMemory *memory);

/* Raise unless there is such a kind. */
extern void prom_memory_check_kind(const char *kind);

/* What is looked for: words, an embedding, or both. */
typedef struct PromMemoryQuery
{
	const char *text;     /* may be empty */
	ArrayType *embedding; /* of real; NULL: none */
	ArrayType *kinds;     /* of text; NULL: all */
	int32 k;
} PromMemoryQuery;

/*
 * Find the k that fit best, as rows of SPI_tuptable: memory_id, kind, content,
 * importance, score, metadata, created_at.
 */
extern void prom_memory_find(const PromMemoryOwner *owner,
							 const PromMemoryQuery *query);

#endif
