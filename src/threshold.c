/*
 * threshold.c
 *	  Reads the limits of alerts, and says numbers in the same words.
 */
#include "postgres.h"

#include <math.h>

#include "utils/guc.h"

#include "threshold.h"

/* A text without what it ends with, if it does, and the space before that. */
static char *
without(const char *text, const char *end)
{
	size_t length = strlen(text);
	size_t ending = strlen(end);

	if (length < ending || strcmp(text + length - ending, end) != 0)
		return pstrdup(text);
	length -= ending;
	while (length > 0 && text[length - 1] == ' ')
		length--;
	return pnstrdup(text, length);
}

static bool
has_letters(const char *text)
{
	for (; *text != '\0'; text++)
		if ((*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z'))
			return true;
	return false;
}

bool
prom_threshold_read(PromMeasure measure, const char *text, double *limit)
{
	bool valid = false;

	switch (measure)
	{
		case PROM_MEASURE_BYTES:
			valid = parse_real(text, limit, GUC_UNIT_BYTE, NULL);
			break;
		case PROM_MEASURE_RATE:
			valid = parse_real(without(text, "/s"), limit, GUC_UNIT_BYTE, NULL);
			break;
		case PROM_MEASURE_TIME:
			/* Without a unit everybody would mean another one. */
			valid = parse_real(text, limit, GUC_UNIT_MS, NULL) &&
					(has_letters(text) || *limit == 0);
			*limit /= 1000;
			break;
		case PROM_MEASURE_PERCENT:
			valid = parse_real(without(text, "%"), limit, 0, NULL);
			break;
		case PROM_MEASURE_COUNT:
			valid = parse_real(text, limit, 0, NULL) && floor(*limit) == *limit;
			break;
	}
	return valid && isfinite(*limit) && *limit >= 0;
}

const char *
prom_threshold_form(PromMeasure measure)
{
	switch (measure)
	{
		case PROM_MEASURE_BYTES:
			return "It is an amount of bytes, as in '10 GB' (B, kB, MB, GB, TB).";
		case PROM_MEASURE_RATE:
			return "It is bytes per second, as in '100 MB/s' (B, kB, MB, GB, TB).";
		case PROM_MEASURE_TIME:
			return "It is a time, as in '5 min' (us, ms, s, min, h, d).";
		case PROM_MEASURE_PERCENT:
			return "It is a percentage, as in '90 %'.";
		case PROM_MEASURE_COUNT:
			break;
	}
	return "It is a whole number, as in '3'.";
}

typedef struct Unit
{
	double size; /* in that of the next smaller one */
	const char *name;
} Unit;

/* In the greatest unit of which there is one at least. */
static char *
in_units(double number, const Unit *units, int n, const char *end)
{
	int i = 0;

	for (; i < n - 1 && number >= units[i + 1].size; i++)
		number /= units[i + 1].size;
	return psprintf("%.*f %s%s",
					number < 100 && number != floor(number) ? 1 : 0, number,
					units[i].name, end);
}

char *
prom_threshold_words(PromMeasure measure, double number)
{
	static const Unit bytes[] = {
		{1, "B"}, {1024, "kB"}, {1024, "MB"}, {1024, "GB"}, {1024, "TB"}};
	static const Unit times[] = {
		{1, "ms"}, {1000, "s"}, {60, "min"}, {60, "h"}, {24, "d"}};

	switch (measure)
	{
		case PROM_MEASURE_BYTES:
			return in_units(number, bytes, lengthof(bytes), "");
		case PROM_MEASURE_RATE:
			return in_units(number, bytes, lengthof(bytes), "/s");
		case PROM_MEASURE_TIME:
			return in_units(1000 * number, times, lengthof(times), "");
		case PROM_MEASURE_PERCENT:
			return psprintf("%.0f %%", number);
		case PROM_MEASURE_COUNT:
			break;
	}
	return psprintf("%.0f", number);
}
