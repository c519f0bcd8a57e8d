/*
 * role.h
 *	  Who may see and do what.
 */
#ifndef PROM_ROLE_H
#define PROM_ROLE_H

#define PROM_ROLE_ADMIN "prometheus_agent_admin"

extern void prom_role_init(void);

/* May the current user see what a role submitted?  Name and oid must agree. */
extern bool prom_role_may_see(const char *name, Oid oid);

/* Is the current user a superuser or a member of prometheus_agent_admin? */
extern bool prom_role_is_admin(void);

/* Raise unless prom_role_is_admin(). */
extern void prom_role_require_admin(const char *function);

#endif
