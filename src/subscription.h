/*
 * subscription.h
 *	  To whom events are pushed.
 */
#ifndef PROM_SUBSCRIPTION_H
#define PROM_SUBSCRIPTION_H

/* For prometheus_health(): what there is, and what a person should see to. */
typedef struct PromSubscriptions
{
	int n;
	const char *disabled; /* names, or NULL; of others' only how many */
	long long dead;       /* dead letters */
	const char *dead_of;  /* the subscriptions that have them, or NULL */
	const char *holding;  /* those for which retention waits, or NULL */
	const char *lagging;  /* those whose oldest delivery is late, or NULL */
} PromSubscriptions;

/*
 * In an executor: the function of this one is about to run.  And has it, since
 * then, removed that?
 */
extern void prom_subscription_runs(const char *name);
extern bool prom_subscription_removed_itself(void);

/* May the current user see the subscription of this name? */
extern bool prom_subscription_shows(const char *name);

extern void prom_subscription_look(PromSubscriptions *found);

#endif
