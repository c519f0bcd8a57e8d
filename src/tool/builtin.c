/*
 * builtin.c
 *	  Finds the tools that are built in, and what they have in common.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "tool/builtin.h"

static const PromBuiltin *const builtins[] = {
	&prom_builtin_delegate,
	&prom_builtin_remember,
	&prom_builtin_recall,
	&prom_builtin_query,
	&prom_builtin_read_state,
	&prom_builtin_save_state,
};

const PromBuiltin *
prom_builtin_find(const char *name)
{
	for (int i = 0; i < lengthof(builtins); i++)
		if (strcmp(builtins[i]->name, name) == 0)
			return builtins[i];
	return NULL;
}

static JsonbValue *
member(const PromBuiltinCall *call, const char *name)
{
	return getKeyJsonValueFromContainer(&call->arguments->root, name,
										strlen(name), NULL);
}

char *
prom_builtin_text(const PromBuiltinCall *call, const char *name)
{
	JsonbValue *value = member(call, name);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

Datum
prom_builtin_numeric(const PromBuiltinCall *call, const char *name,
					 bool *isnull)
{
	JsonbValue *value = member(call, name);

	*isnull = value == NULL || value->type != jbvNumeric;
	return *isnull ? (Datum) 0 : NumericGetDatum(value->val.numeric);
}

Jsonb *
prom_builtin_value(const PromBuiltinCall *call, const char *name)
{
	JsonbValue *value = member(call, name);

	return value == NULL ? NULL : JsonbValueToJsonb(value);
}

bool
prom_builtin_add_row(PromBuiltinCall *call, HeapTuple row, TupleDesc desc)
{
	MemoryContext before = MemoryContextSwitchTo(call->keep);
	bool isnull;
	Datum value = SPI_getbinval(row, desc, 1, &isnull);
	Jsonb *jsonb = isnull ? NULL : DatumGetJsonbP(value);

	appendStringInfoString(&call->result, call->is_rows ? "," : "[");
	call->is_rows = true;
	if (jsonb == NULL)
		appendStringInfoString(&call->result, "null");
	else
		(void) JsonbToCString(&call->result, &jsonb->root, VARSIZE(jsonb));
	MemoryContextSwitchTo(before);
	return call->result.len <= call->max_result;
}
