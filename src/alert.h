/*
 * alert.h
 *	  What a person should look at: checks with thresholds.
 */
#ifndef PROM_ALERT_H
#define PROM_ALERT_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

/* A check that is over its threshold. */
typedef struct PromAlertFinding
{
	const char *name;
	const char *value; /* all in words */
	const char *hint;
} PromAlertFinding;

/* What is raised now, for administrators with what it is about; and of what. */
extern List *prom_alert_findings(int *nchecks);


/* The publisher's. */

/* When to look; without a transaction, unless a threshold was set. */
extern void prom_alert_begin(void);
extern TimestampTz prom_alert_due(void);
extern void prom_alert_look(void);

/* It did not work; it is tried again at the next look. */
extern void prom_alert_failed(void);

/* Facts were written: sizes are measured soon, which needs a transaction. */
extern void prom_alert_facts_changed(void);
extern TimestampTz prom_alert_measure_due(void);
extern void prom_alert_measure(void);

#endif
