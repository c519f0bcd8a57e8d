/*
 * trace.c
 *	  Reads and writes traceparents (W3C Trace Context), and says by the id of a
 *	  trace whether it is sampled.
 *
 * A trace is sampled if the last 56 bits of its id, as a number, are not below
 * a threshold, which follows from prometheus.trace_sample_ratio as
 * OpenTelemetry prescribes for consistent probability sampling: whoever
 * decides, wherever, decides the same, and a higher ratio only adds traces.  A
 * trace that others began is sampled if they say so.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "guc.h"
#include "role.h"
#include "task.h"
#include "trace.h"
#include "xact.h"

/* Bits of an id that are random, and hexadecimal digits of that. */
#define RANDOM_BITS 56
#define RANDOM_DIGITS (RANDOM_BITS / 4)

/* Digits of a threshold, but for those that are f or 0 at its begin. */
#define PRECISION 4

/* Where the parts of a traceparent are. */
#define TRACE_PLACE 3
#define FLAGS_PLACE 53
#define LENGTH (PROM_TRACEPARENT_SIZE - 1)

/* Bytes in hexadecimal, lower case; false: they are not, or all are 0. */
static bool
read_hex(const char *text, int bytes, unsigned char *out)
{
	bool any = false;

	for (int i = 0; i < 2 * bytes; i++)
	{
		int digit;

		if (text[i] >= '0' && text[i] <= '9')
			digit = text[i] - '0';
		else if (text[i] >= 'a' && text[i] <= 'f')
			digit = text[i] - 'a' + 10;
		else
			return false;
		out[i / 2] = i % 2 == 0 ? digit << 4 : out[i / 2] | digit;
		any |= digit != 0;
	}
	return any;
}

void
prom_trace_read(const char *traceparent, PromTrace *trace)
{
	const char *parent = traceparent + PROM_TRACEPARENT_PARENT;
	unsigned char parent_id[8];
	unsigned char version[1] = {0};
	unsigned char flags[1] = {0};
	size_t length = strlen(traceparent);

	if (length < LENGTH || (length > LENGTH && traceparent[LENGTH] != '-') ||
		traceparent[TRACE_PLACE - 1] != '-' ||
		parent[-1] != '-' ||
		traceparent[FLAGS_PLACE - 1] != '-' ||
		strncmp(traceparent, "ff", 2) == 0 ||
		(length > LENGTH && strncmp(traceparent, "00", 2) == 0) ||
		(!read_hex(traceparent, 1, version) &&
		 strncmp(traceparent, "00", 2) != 0) ||
		!read_hex(traceparent + TRACE_PLACE, UUID_LEN, trace->id.data) ||
		!read_hex(parent, sizeof(parent_id), parent_id) ||
		(!read_hex(traceparent + FLAGS_PLACE, 1, flags) &&
		 strncmp(traceparent + FLAGS_PLACE, "00", 2) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("traceparent is not one"),
				 errdetail("It must have the form 00-TRACE-PARENT-FLAGS of W3C Trace Context: 2, 32, 16 and 2 hexadecimal digits in lower case.")));
	trace->flags = flags[0] & (PROM_TRACE_SAMPLED | PROM_TRACE_RANDOM);
}

/* The number that is held against the threshold. */
static uint64
randomness_of(const pg_uuid_t *id)
{
	uint64 number = 0;

	for (int i = UUID_LEN - RANDOM_BITS / 8; i < UUID_LEN; i++)
		number = number << 8 | id->data[i];
	return number;
}

static int
more_precision(double part)
{
	int exponent;

	(void) frexp(part, &exponent);
	return PRECISION + Max(-exponent, 0) / 4;
}

/* What is below it is not sampled; 2 to the 56: nothing is. */
static uint64
threshold_of(double ratio)
{
	uint64 all = UINT64CONST(1) << RANDOM_BITS;
	uint64 threshold;
	int shift;

	if (!(ratio > 0))
		return all;
	if (ratio >= 1)
		return 0;
	threshold = all - (uint64) rint(ratio * (double) all);
	shift = 4 * (RANDOM_DIGITS - Min(RANDOM_DIGITS,
									 Max(more_precision(ratio),
										 more_precision(1 - ratio))));
	if (shift > 0)
		threshold += UINT64CONST(1) << (shift - 1);
	threshold >>= shift;
	threshold <<= shift;
	return threshold;
}

bool
prom_trace_is_sampled(const pg_uuid_t *id, double ratio)
{
	return randomness_of(id) >= threshold_of(ratio);
}

static void
set_own_flags(PromTrace *trace)
{
	trace->flags = PROM_TRACE_RANDOM;
	if (prom_trace_is_sampled(&trace->id, prom_guc_trace_sample_ratio))
		trace->flags |= PROM_TRACE_SAMPLED;
}

void
prom_trace_begin(PromTrace *trace)
{
	uint64 random[2];

	do
	{
		random[0] = pg_prng_uint64(&pg_global_prng_state);
		random[1] = pg_prng_uint64(&pg_global_prng_state);
	} while (random[0] == 0 && random[1] == 0);
	memcpy(trace->id.data, random, UUID_LEN);
	set_own_flags(trace);
}

void
prom_trace_of(const pg_uuid_t *id, const char *traceparent, PromTrace *trace)
{
	trace->id = *id;
	if (traceparent == NULL)
		set_own_flags(trace);
	else
		prom_trace_read(traceparent, trace);
}

static PromStatement trace_statement = {
	"SELECT t.trace_id, t.traceparent FROM prometheus._task t"
	" WHERE t.task_id = $1",
	1,
	{INT8OID},
	NULL,
};

bool
prom_trace_of_task(int64 task_id, PromTrace *trace)
{
	Datum value = Int64GetDatum(task_id);
	bool found;

	prom_statement_run(&trace_statement, &value, NULL, true);
	found = SPI_processed > 0;
	if (found)
		prom_trace_of(prom_row_uuid(0, 1), prom_row_text_or_null(0, 2), trace);
	SPI_freetuptable(SPI_tuptable);
	return found;
}

void
prom_trace_parent(char *traceparent, const PromTrace *trace, uint64 span_id)
{
	char id[2 * UUID_LEN + 1];

	for (int i = 0; i < UUID_LEN; i++)
		snprintf(id + 2 * i, 3, "%02x", trace->id.data[i]);
	snprintf(traceparent, PROM_TRACEPARENT_SIZE, "00-%s-%016llx-%02x", id,
			 (unsigned long long) span_id, trace->flags);
}

void
prom_trace_header(char *header, const PromTrace *trace, uint64 span_id)
{
	char traceparent[PROM_TRACEPARENT_SIZE];

	prom_trace_parent(traceparent, trace, span_id);
	snprintf(header, PROM_TRACE_HEADER_SIZE, "traceparent: %s", traceparent);
}

bool
prom_trace_threshold(double ratio, char *digits)
{
	uint64 threshold = threshold_of(ratio);
	int length = RANDOM_DIGITS;

	if (threshold == UINT64CONST(1) << RANDOM_BITS)
		return false;
	snprintf(digits, PROM_TRACE_THRESHOLD_SIZE, "%0*llx", RANDOM_DIGITS,
			 (unsigned long long) threshold);
	while (length > 1 && digits[length - 1] == '0')
		length--;
	digits[length] = '\0';
	return true;
}

PG_FUNCTION_INFO_V1(prom_sampling);

/* Of a task that the caller may see; over all of its trace, as the owner. */
Datum
prom_sampling(PG_FUNCTION_ARGS)
{
	static PromStatement statement = {
		"SELECT s.trace_id, s.ended_at, s.reason, s.decision, s.th"
		" FROM prometheus._sample($1) s",
		1,
		{INT8OID},
		NULL,
	};
	int64 task_id = PG_GETARG_INT64(0);
	Datum value = Int64GetDatum(task_id);
	MemoryContext context = CurrentMemoryContext;
	PromTaskEnd end;
	PromOwner before;
	TupleDesc desc;
	HeapTuple row;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	prom_task_end(task_id, &end);
	SPI_connect();
	prom_role_become_owner(&before);
	prom_statement_run_now(&statement, &value);
	if (SPI_processed == 0)
		elog(ERROR, "task %lld has no trace", (long long) task_id);
	MemoryContextSwitchTo(context);
	row = heap_copytuple(SPI_tuptable->vals[0]);
	prom_role_restore(&before);
	SPI_finish();
	PG_RETURN_DATUM(heap_copy_tuple_as_datum(row, BlessTupleDesc(desc)));
}

PG_FUNCTION_INFO_V1(prom_sample_threshold);

/* 1 to 14 hexadecimal digits; NULL: nothing is sampled. */
Datum
prom_sample_threshold(PG_FUNCTION_ARGS)
{
	char digits[PROM_TRACE_THRESHOLD_SIZE];

	if (!prom_trace_threshold(PG_GETARG_FLOAT8(0), digits))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(digits));
}
