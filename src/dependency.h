/*
 * dependency.h
 *	  Which tasks wait for the end of which others.
 */
#ifndef PROM_DEPENDENCY_H
#define PROM_DEPENDENCY_H

typedef struct PromDependencies PromDependencies;

extern PromDependencies *prom_dependencies_create(void);

/* A task waits for the end of another. */
extern void prom_dependencies_add(PromDependencies *dependencies, int64 parent,
								  int64 task_id);

/*
 * Take out one task that waits for the end of another, which has ended; 0:
 * there is none any more.
 */
extern int64 prom_dependencies_next(PromDependencies *dependencies,
									int64 parent);

#endif
