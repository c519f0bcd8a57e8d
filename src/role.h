/*
 * role.h
 *	  Who may see and do what.
 */
#ifndef PROM_ROLE_H
#define PROM_ROLE_H

#include "shmem.h"

#define PROM_ROLE_ADMIN "prometheus_agent_admin"

/*
 * In a security context, beside the server's own bits: the statements are ours,
 * and as the extension's owner.
 */
#define PROM_SECURITY_OWN 0x10000

extern void prom_role_init(void);

/* May the current user see what a role submitted?  Name and oid must agree. */
extern bool prom_role_may_see(const char *name, Oid oid);

/* The same of another user. */
extern bool prom_role_shows(Oid user, const char *name, Oid oid);

/* Another number than before: what these said may be otherwise now. */
extern uint64 prom_role_changes(void);

/* Is it the role that it was?  Name and oid must agree. */
extern bool prom_role_is(const char *name, Oid oid);

/* A role as the queue keeps it, and the hash of a name that it is kept with. */
extern PromSubmitter prom_role_submitter(Oid role);
extern uint32 prom_role_hash(const char *name);

/* Has the current user that role?  Name and oid must agree. */
extern bool prom_role_is_submitter(const PromSubmitter *submitter);

/* Is the current user a superuser or a member of prometheus_agent_admin? */
extern bool prom_role_is_admin(void);

/* The same of a role.  Name and oid must agree. */
extern bool prom_role_names_admin(const char *name, Oid oid);

/* The user that prom_role_become_owner() found. */
typedef struct PromOwner
{
	Oid user;
	int context;
	int nest_level; /* of settings */
} PromOwner;

/*
 * Become the extension's owner for statements of our own, with a search_path
 * of the system's schemas.  In them every name and operator is qualified all
 * the same: that is one wall, the path another.  An error restores both by
 * itself.
 */
extern void prom_role_become_owner(PromOwner *before);
extern void prom_role_restore(const PromOwner *before);

/* Are the statements of now such ones? */
extern bool prom_role_acts_as_owner(void);

/* Raise unless prom_role_is_admin(). */
extern void prom_role_require_admin(const char *function);

#endif
