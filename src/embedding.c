/*
 * embedding.c
 *	  Compares embeddings: exactly, and fast by sketches of them.
 *
 * A sketch is the signs of a vector's projections on 1,024 directions, the same
 * for all vectors of a length.  The part of the signs in which two sketches
 * differ is, but for chance, their angle by a half turn, however the vectors
 * are spread (Charikar, 2002).  The directions are those of
 * two Hadamard transforms, with signs turned over as by dice before each: that
 * takes n log n additions and no table.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "port/pg_bitutils.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "embedding.h"

/* Projections of a vector. */
#define SIGNS 1024

/* A sketch is its vector's length in two bytes, and the signs. */
#define HEAD 2

/* Sums that are added to in turn, so that the compiler can do so at once. */
#define LANES 8

/*
 * What is above has lost nothing as a sum of floats, of which those below
 * FLT_MIN have fewer digits.
 */
#define MIN_NORM (FLT_MIN * 1e12)

#define VALUES(array) ((const float4 *) ARR_DATA_PTR(array))
#define LENGTH(array) (ARR_DIMS(array)[0])

/* Has it one dimension, and no nulls? */
static bool
is_vector(const ArrayType *array)
{
	return ARR_NDIM(array) == 1 && LENGTH(array) <= PROM_MAX_DIMENSIONS &&
		   !array_contains_nulls((ArrayType *) array);
}

static pg_noreturn void
refuse(const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("an embedding has a wrong value"),
					errdetail("%s", detail),
					errhint("It must be an array of 1 to %d finite numbers that are not all 0.",
							PROM_MAX_DIMENSIONS)));
	pg_unreachable();
}

void
prom_embedding_check(ArrayType *embedding)
{
	float8 norm = 0;

	if (ARR_NDIM(embedding) == 0)
		refuse("It is empty.");
	if (ARR_NDIM(embedding) > 1)
		refuse(psprintf("It has %d dimensions of an array.",
						ARR_NDIM(embedding)));
	if (LENGTH(embedding) > PROM_MAX_DIMENSIONS)
		refuse(psprintf("It has %d numbers.", LENGTH(embedding)));
	if (array_contains_nulls(embedding))
		refuse("It contains a null.");
	for (int i = 0; i < LENGTH(embedding); i++)
	{
		float8 value = VALUES(embedding)[i];

		if (isnan(value) || isinf(value))
			refuse(psprintf("Number %d is not finite.", i + 1));
		norm += value * value;
	}
	if (norm == 0)
		refuse("All its numbers are 0.");
}

/* What follows is called for each of many rows. */

/* When a sum is too large or too small for floats. */
static float8
cosine_of_doubles(const float4 *a, const float4 *b, int n)
{
	float8 dot = 0;
	float8 norm_a = 0;
	float8 norm_b = 0;

	for (int i = 0; i < n; i++)
	{
		dot += (float8) a[i] * b[i];
		norm_a += (float8) a[i] * a[i];
		norm_b += (float8) b[i] * b[i];
	}
	return dot / sqrt(norm_a * norm_b);
}

static float8
sum_of(const float4 *lanes)
{
	float8 sum = 0;

	for (int lane = 0; lane < LANES; lane++)
		sum += lanes[lane];
	return sum;
}

static float8
cosine(const float4 *a, const float4 *b, int n)
{
	float4 dot[LANES] = {0};
	float4 norm_a[LANES] = {0};
	float4 norm_b[LANES] = {0};
	float8 all_a;
	float8 all_b;
	int whole = n - n % LANES;

	for (int i = 0; i < whole; i += LANES)
		for (int lane = 0; lane < LANES; lane++)
		{
			dot[lane] += a[i + lane] * b[i + lane];
			norm_a[lane] += a[i + lane] * a[i + lane];
			norm_b[lane] += b[i + lane] * b[i + lane];
		}
	for (int i = whole; i < n; i++)
	{
		dot[0] += a[i] * b[i];
		norm_a[0] += a[i] * a[i];
		norm_b[0] += b[i] * b[i];
	}
	all_a = sum_of(norm_a);
	all_b = sum_of(norm_b);
	if (!(all_a > MIN_NORM && all_a < FLT_MAX && all_b > MIN_NORM &&
		  all_b < FLT_MAX))
		return cosine_of_doubles(a, b, n);
	return sum_of(dot) / sqrt(all_a * all_b);
}

PG_FUNCTION_INFO_V1(prom_cosine);

Datum
prom_cosine(PG_FUNCTION_ARGS)
{
	ArrayType *a = PG_GETARG_ARRAYTYPE_P(0);
	ArrayType *b = PG_GETARG_ARRAYTYPE_P(1);
	float8 value;

	if (!is_vector(a) || !is_vector(b) || LENGTH(a) != LENGTH(b))
		PG_RETURN_NULL();
	value = cosine(VALUES(a), VALUES(b), LENGTH(a));
	if (isnan(value))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(value);
}

/* A bit as thrown by dice, the same everywhere (splitmix64). */
static bool
throw_dice(uint64 n)
{
	n = (n + 1) * UINT64CONST(0x9E3779B97F4A7C15);
	n = (n ^ (n >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	n = (n ^ (n >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return (n ^ (n >> 31)) & 1;
}

/* Turn signs over, then replace n values by their sums with all signs. */
static void
transform(float4 *values, int n, int round)
{
	for (int i = 0; i < n; i++)
		if (throw_dice((uint64) round * PROM_MAX_DIMENSIONS + i))
			values[i] = -values[i];
	for (int half = 1; half < n; half *= 2)
		for (int start = 0; start < n; start += 2 * half)
			for (int i = start; i < start + half; i++)
			{
				float4 a = values[i];
				float4 b = values[i + half];

				values[i] = a + b;
				values[i + half] = a - b;
			}
}

bytea *
prom_embedding_sketch(const ArrayType *embedding)
{
	int length = LENGTH(embedding);
	int n = Max(SIGNS, pg_nextpower2_32(length));
	float4 *values = palloc0(n * sizeof(float4));
	bytea *sketch = palloc0(VARHDRSZ + HEAD + SIGNS / BITS_PER_BYTE);
	unsigned char *signs = (unsigned char *) VARDATA(sketch) + HEAD;
	float4 largest = FLT_MIN;

	/* So that no sum is too large. */
	for (int i = 0; i < length; i++)
		largest = Max(largest, fabsf(VALUES(embedding)[i]));
	for (int i = 0; i < length; i++)
		values[i] = VALUES(embedding)[i] / largest;
	transform(values, n, 0);
	transform(values, n, 1);
	for (int i = 0; i < SIGNS; i++)
		if (values[i] > 0)
			signs[i / BITS_PER_BYTE] |= 1 << (i % BITS_PER_BYTE);
	SET_VARSIZE(sketch, VARHDRSZ + HEAD + SIGNS / BITS_PER_BYTE);
	VARDATA(sketch)
	[0] = (char) (length >> 8);
	VARDATA(sketch)
	[1] = (char) length;
	pfree(values);
	return sketch;
}

PG_FUNCTION_INFO_V1(prom_sketch);

Datum
prom_sketch(PG_FUNCTION_ARGS)
{
	ArrayType *embedding = PG_GETARG_ARRAYTYPE_P(0);

	if (!is_vector(embedding))
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(prom_embedding_sketch(embedding));
}

PG_FUNCTION_INFO_V1(prom_sketch_distance);

Datum
prom_sketch_distance(PG_FUNCTION_ARGS)
{
	bytea *a = PG_GETARG_BYTEA_PP(0);
	bytea *b = PG_GETARG_BYTEA_PP(1);
	int length = VARSIZE_ANY_EXHDR(a);
	int distance = 0;

	if (length != VARSIZE_ANY_EXHDR(b) || length < HEAD ||
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), HEAD) != 0)
		PG_RETURN_NULL();
	for (int i = HEAD; i + sizeof(uint64) <= length; i += sizeof(uint64))
	{
		uint64 word_a;
		uint64 word_b;

		memcpy(&word_a, VARDATA_ANY(a) + i, sizeof(uint64));
		memcpy(&word_b, VARDATA_ANY(b) + i, sizeof(uint64));
		distance += pg_popcount64(word_a ^ word_b);
	}
	PG_RETURN_INT32(distance);
}
