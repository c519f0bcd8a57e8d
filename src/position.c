/*
 * position.c
 *	  How far a reader of facts has come.
 *
 * Neither ids nor xids are in the order of commits, so a place in such an order
 * is no position: what commits later with a lower number would be skipped, or
 * everybody waits for the slowest.  A position is a snapshot, that is, the set
 * of the transactions that were seen.  What is new at another one is what that
 * sees and this one does not.  Snapshots of one server are in a row: of any two
 * one has all that the other has.
 *
 * What is new comes in few ranges of xids, so it is found by indexes: all that
 * began later and has committed, and those that were running then.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "compat.h"
#include "era.h"
#include "position.h"

static int
compare(const void *a, const void *b)
{
	uint64 x = *(const uint64 *) a;
	uint64 y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

static void
take(PromPosition *position, int32 era_number)
{
	uint64 era = (uint64) era_number << PROM_ERA_SHIFT;
	Snapshot snapshot = GetLatestSnapshot();
	TransactionId own = GetTopTransactionIdIfAny();

	position->xip = palloc((snapshot->xcnt + 1) * sizeof(uint64));
	position->nxip = 0;
	position->xmin =
		era | U64FromFullTransactionId(prom_era_widen(snapshot->xmin));
	position->xmax =
		era | U64FromFullTransactionId(prom_era_widen(snapshot->xmax));
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		position->xip[position->nxip++] =
			era | U64FromFullTransactionId(prom_era_widen(snapshot->xip[i]));

	/* A snapshot does not have one's own among those that are running. */
	if (TransactionIdIsValid(own) &&
		TransactionIdPrecedes(own, snapshot->xmax))
	{
		uint64 xid = era | U64FromFullTransactionId(prom_era_widen(own));

		position->xip[position->nxip++] = xid;
		position->xmin = Min(position->xmin, xid);
	}
	qsort(position->xip, position->nxip, sizeof(uint64), compare);
}

void
prom_position_now(PromPosition *position)
{
	take(position, prom_era_now());
}

void
prom_position_look(PromPosition *position)
{
	take(position, prom_era_look());
}

void
prom_position_begin(PromPosition *position)
{
	memset(position, 0, sizeof(*position));
	position->xmin = position->xmax = 1;
}

/* A pg_snapshot has no form in memory that is for others: read its text. */
void
prom_position_read(Datum snapshot, PromPosition *position)
{
	char *text = OidOutputFunctionCall(F_PG_SNAPSHOT_OUT, snapshot);
	int room = 1;

	for (char *place = text; *place != '\0'; place++)
		if (*place == ',')
			room++;
	position->xip = palloc(room * sizeof(uint64));
	position->nxip = 0;
	position->xmin = strtou64(text, &text, 10);
	position->xmax = strtou64(text + 1, &text, 10);
	while (*text != '\0' && *++text != '\0')
		position->xip[position->nxip++] = strtou64(text, &text, 10);
}

char *
prom_position_text(const PromPosition *position)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":",
					 position->xmin, position->xmax);
	for (int i = 0; i < position->nxip; i++)
		if (i == 0 || position->xip[i] != position->xip[i - 1])
			appendStringInfo(&text, "%s" UINT64_FORMAT, i == 0 ? "" : ",",
							 position->xip[i]);
	return text.data;
}

static bool
sees(const PromPosition *position, uint64 xid)
{
	if (xid < position->xmin)
		return true;
	if (xid >= position->xmax)
		return false;
	return bsearch(&xid, position->xip, position->nxip, sizeof(uint64),
				   compare) == NULL;
}

bool
prom_position_precedes(const PromPosition *first, const PromPosition *second)
{
	if (first->xmax > second->xmax)
		return false;
	for (int i = 0; i < second->nxip; i++)
		if (sees(first, second->xip[i]))
			return false;
	return true;
}

/* Ranges that are being collected. */
typedef struct Ranges
{
	Datum *from;
	Datum *to;
	int n;
} Ranges;

static void
add_range(Ranges *ranges, uint64 from, uint64 to)
{
	if (from >= to)
		return;
	ranges->from[ranges->n] =
		FullTransactionIdGetDatum(FullTransactionIdFromU64(from));
	ranges->to[ranges->n++] =
		FullTransactionIdGetDatum(FullTransactionIdFromU64(to));
}

static Datum
xid_array(Datum *values, int n)
{
	return PointerGetDatum(construct_array(values, n, XID8OID, sizeof(uint64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

int
prom_position_between(const PromPosition *first, const PromPosition *second,
					  Datum *from, Datum *to)
{
	int room = first->nxip + second->nxip + 1;
	Ranges ranges = {palloc(room * sizeof(Datum)), palloc(room * sizeof(Datum)),
					 0};
	uint64 begin = first->xmax;

	for (int i = 0; i < first->nxip; i++)
		if (sees(second, first->xip[i]))
			add_range(&ranges, first->xip[i], first->xip[i] + 1);
	for (int i = 0; i < second->nxip; i++)
	{
		if (second->xip[i] < first->xmax)
			continue;
		add_range(&ranges, begin, second->xip[i]);
		begin = second->xip[i] + 1;
	}
	add_range(&ranges, begin, second->xmax);
	*from = xid_array(ranges.from, ranges.n);
	*to = xid_array(ranges.to, ranges.n);
	return ranges.n;
}

void
prom_position_cut(const PromPosition *first, const PromPosition *second,
				  uint64 xid, PromPosition *cut)
{
	cut->xmax = Max(first->xmax, Min(xid, second->xmax));
	cut->xip = palloc((first->nxip + second->nxip + 1) * sizeof(uint64));
	cut->nxip = 0;
	for (int i = 0; i < first->nxip; i++)
		if (first->xip[i] >= xid || !sees(second, first->xip[i]))
			cut->xip[cut->nxip++] = first->xip[i];
	for (int i = 0; i < second->nxip; i++)
		if (second->xip[i] >= first->xmax && second->xip[i] < cut->xmax)
			cut->xip[cut->nxip++] = second->xip[i];
	cut->xmin = cut->nxip > 0 ? cut->xip[0] : cut->xmax;
}
