/*
 * agent.h
 *	  Named configuration: agents, and the models that they use.
 */
#ifndef PROM_AGENT_H
#define PROM_AGENT_H

#include "model.h"

/* One version of an agent. */
typedef struct PromAgent
{
	const char *name;
	int64 version;
	const char *model;
	const char *mode;
	const char *instructions; /* NULL: none */
} PromAgent;

/*
 * A version of an agent or a model, from a cache: versions are facts and
 * never change.  In a worker's transaction with SPI connected; raises if
 * there is no such version.  Good until prom_agent_forget().
 */
extern const PromAgent *prom_agent_version(const char *name, int64 version);
extern const PromModel *prom_model_version(const char *name, int64 version);

/*
 * The same for a backend, which has no cache: in the current memory context,
 * and by a snapshot that the caller has made the active one.
 */
extern PromAgent *prom_agent_read(const char *name, int64 version);
extern PromModel *prom_model_read(const char *name, int64 version);

/* Empty the cache, when it is big and nobody holds one of its versions. */
extern void prom_agent_forget(void);
extern int prom_agent_cached(void);

#endif
