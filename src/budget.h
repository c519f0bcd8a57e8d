/*
 * budget.h
 *	  What calls of models may use up in a period.
 */
#ifndef PROM_BUDGET_H
#define PROM_BUDGET_H

#include "setting.h"

extern const PromSettingKind prom_budget_kind;

/* The name in "agent:NAME" and such; NULL: it is not of that kind. */
extern const char *prom_budget_name_in(const char *scope, const char *kind);

#endif
