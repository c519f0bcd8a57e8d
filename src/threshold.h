/*
 * threshold.h
 *	  Limits of alerts, in the words of settings: '10 GB', '5 min', '90 %'.
 */
#ifndef PROM_THRESHOLD_H
#define PROM_THRESHOLD_H

/* What a number is, and its unit. */
typedef enum PromMeasure
{
	PROM_MEASURE_BYTES,
	PROM_MEASURE_RATE, /* bytes per second */
	PROM_MEASURE_TIME, /* seconds */
	PROM_MEASURE_PERCENT,
	PROM_MEASURE_COUNT
} PromMeasure;

/* False: the text is none of that kind. */
extern bool prom_threshold_read(PromMeasure measure, const char *text,
								double *limit);

/* What it must look like, in one sentence. */
extern const char *prom_threshold_form(PromMeasure measure);

/* A number in words, palloc'd: "1.5 GB", "12 min". */
extern char *prom_threshold_words(PromMeasure measure, double number);

#endif
