/*
 * memory_lock.c
 *	  Who may write memories: of one content, or of a kind, one at a time.
 *
 * DESIGN
 *
 * There is a lock for each kind of an owner and agent, and for its contents.
 * Where there is a limit, who writes has the first for himself; else he shares
 * it, and has that of the content: so a limit that is set meanwhile counts for
 * who comes later, when they have ended.  All take them in the order of their
 * numbers: a kind before its contents, and the vault, where memories of other
 * kinds go, last.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "eviction.h"
#include "memory.h"
#include "role.h"

/* Of the numbers of locks. */
#define OF_CONTENT 0x4000
#define OF_VAULT 0x8000
#define HASH_MASK 0x3FFF

/* Contents share so many: the server's table of locks is not without end. */
#define CONTENT_LOCKS 1024

static uint16
lock_number(const PromMemoryOwner *owner, const char *kind, const char *content)
{
	const char *key = psprintf("%s\n%s\n%s", owner->name, owner->agent, kind);
	uint32 hash = hash_bytes((const unsigned char *) key, strlen(key));
	uint16 number = strcmp(kind, "vault") == 0 ? OF_VAULT : 0;

	if (content != NULL)
	{
		hash += hash_bytes((const unsigned char *) content, strlen(content)) %
				CONTENT_LOCKS;
		number |= OF_CONTENT;
	}
	return number | ((hash ^ (hash >> 16)) & HASH_MASK);
}

/* Two of one number are of one owner: nobody can hold up another so. */
static void
set_tag(const PromMemoryOwner *owner, uint16 number, LOCKTAG *tag)
{
	Oid relid = get_relname_relid("_memory",
								  get_namespace_oid("prometheus", false));

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, relid, owner->oid, number);
}

static void
take_lock(const PromMemoryOwner *owner, uint16 number, LOCKMODE mode)
{
	LOCKTAG tag;

	set_tag(owner, number, &tag);
	LockDatabaseObject(tag.locktag_field2, tag.locktag_field3,
					   tag.locktag_field4, mode);
}

/*
 * For oneself, or, if there is no limit, with others; and so until the end of
 * the transaction: two that share it would wait for each other.
 */
static void
lock_kind(const PromMemoryOwner *owner, const char *kind)
{
	uint16 number = lock_number(owner, kind, NULL);
	LOCKTAG tag;

	set_tag(owner, number, &tag);
	if (prom_lock_held_by_me(&tag, ShareLock) ||
		prom_lock_held_by_me(&tag, ExclusiveLock))
		return;
	if (prom_eviction_limit(owner->agent, kind) < 0)
	{
		take_lock(owner, number, ShareLock);
		if (prom_eviction_limit(owner->agent, kind) < 0)
			return;
		/* One was set while it was waited for. */
		LockRelease(&tag, ShareLock, false);
	}
	take_lock(owner, number, ExclusiveLock);
}

bool
prom_memory_is_locked_alone(const PromMemoryOwner *owner, const char *kind)
{
	LOCKTAG tag;

	set_tag(owner, lock_number(owner, kind, NULL), &tag);
	return prom_lock_held_by_me(&tag, ExclusiveLock);
}

typedef struct Lock
{
	uint16 number;
	bool is_of_content;
	const PromMemoryKey *key;
} Lock;

static int
compare_numbers(const void *a, const void *b)
{
	return ((const Lock *) a)->number - ((const Lock *) b)->number;
}

void
prom_memory_lock_all(const PromMemoryOwner *owner, const PromMemoryKey *keys,
					 int n)
{
	Lock *locks = palloc(2 * n * sizeof(Lock));

	for (int i = 0; i < 2 * n; i++)
	{
		locks[i].key = &keys[i / 2];
		locks[i].is_of_content = i % 2 != 0;
		locks[i].number = lock_number(owner, locks[i].key->kind,
									  locks[i].is_of_content
										  ? locks[i].key->content
										  : NULL);
	}
	qsort(locks, 2 * n, sizeof(Lock), compare_numbers);
	for (int i = 0; i < 2 * n; i++)
		if (!locks[i].is_of_content)
			lock_kind(owner, locks[i].key->kind);
		else if (!prom_memory_is_locked_alone(owner, locks[i].key->kind))
			take_lock(owner, locks[i].number, ExclusiveLock);
	pfree(locks);
}

void
prom_memory_lock(const PromMemoryOwner *owner, const char *kind,
				 const char *content)
{
	PromMemoryKey key = {kind, content};

	prom_memory_lock_all(owner, &key, 1);
}

/* The transaction that waited in vain. */
static FullTransactionId gave_up;

bool
prom_memory_may_wait(void)
{
	return !FullTransactionIdIsValid(gave_up) ||
		   !FullTransactionIdEquals(gave_up, GetTopFullTransactionIdIfAny());
}

void
prom_memory_failed(const ErrorData *failure)
{
	if (failure->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		failure->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
		gave_up = GetTopFullTransactionIdIfAny();
}
