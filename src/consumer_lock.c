/*
 * consumer_lock.c
 *	  Lets those who use a consumer come one after the other.
 *
 * Names are unique, so a consumer has one lock, whoever owns it.  Its tag has
 * 48 bits of the name's hash.  Two names that share them wait for each other,
 * and that is all: what a consumer is, and how far, says its row, which is read
 * under the lock by its name.
 *
 * The publisher must not wait for a session.  It leaves word that it would
 * have liked to have a lock, and who lets go of one then wakes it.  That is
 * after the locks of the transaction are free, so not at its commit, when hints
 * are sent.  A prepared transaction lets go of its locks in a session that does
 * not know of them: COMMIT PREPARED tells the publisher by a hint, and after
 * ROLLBACK PREPARED the next look for what came without one finds it free.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

#include "consumer_lock.h"
#include "worker.h"

static bool holds; /* one at least, in this transaction */

static LOCKTAG
tag_of(const char *name)
{
	LOCKTAG tag;
	uint64 hash = hash_bytes_extended((const unsigned char *) name,
									  strlen(name), 0);

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId,
					   get_relname_relid("_consumer",
										 get_namespace_oid("prometheus",
														   false)),
					   (uint32) hash, (uint16) (hash >> 32));
	return tag;
}

/* What a subtransaction undoes lets go of its locks, too. */
static void
release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top,
				 void *arg)
{
	PromDatabase *db;
	uint32 waits = PROM_LOCK_WANTED;

	if (!holds || phase != RESOURCE_RELEASE_AFTER_LOCKS ||
		(is_commit && !is_top))
		return;
	if (is_top)
		holds = false;
	db = prom_shmem_database(MyDatabaseId);
	if (db != NULL &&
		pg_atomic_compare_exchange_u32(&db->consumer_lock, &waits,
									   PROM_LOCK_FREED))
		prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
}

void
prom_consumer_lock_init(void)
{
	RegisterResourceReleaseCallback(release_callback, NULL);
}

void
prom_consumer_lock(const char *name)
{
	LOCKTAG tag = tag_of(name);

	holds = true;
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

bool
prom_consumer_lock_try(const char *name)
{
	LOCKTAG tag = tag_of(name);
	uint32 unwanted = PROM_LOCK_UNWANTED;

	if (LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		return true;
	/*
	 * Who let go before he could see this has left it free.  If another one was
	 * let go meanwhile, all of them are tried again.
	 */
	(void) pg_atomic_compare_exchange_u32(&prom_my_database->consumer_lock,
										  &unwanted, PROM_LOCK_WANTED);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		   LOCKACQUIRE_NOT_AVAIL;
}

bool
prom_consumer_lock_is_freed(void)
{
	return pg_atomic_read_u32(&prom_my_database->consumer_lock) ==
		   PROM_LOCK_FREED;
}

bool
prom_consumer_lock_freed(void)
{
	uint32 freed = PROM_LOCK_FREED;

	return pg_atomic_compare_exchange_u32(&prom_my_database->consumer_lock,
										  &freed, PROM_LOCK_UNWANTED);
}
