/*
 * storage.c
 *	  Says what the relations of the extension take, and what will go when.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"

#include "role.h"

PG_FUNCTION_INFO_V1(prom_storage);

/* prometheus._storage, for administrators. */
Datum
prom_storage(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PromOwner before;

	prom_role_require_admin("prometheus_storage()");
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	prom_role_become_owner(&before);
	if (SPI_execute("SELECT * FROM prometheus._storage s"
					" ORDER BY s.bytes DESC, s.relation",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._storage");
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	prom_role_restore(&before);
	SPI_finish();
	return (Datum) 0;
}
