/*
 * standin.h
 *	  For programs that test parts of the extension without a server: what of
 *	  the server these parts use, and a few helpers of tests.
 */
#ifndef PROM_STANDIN_H
#define PROM_STANDIN_H

extern int tests_passed;
extern int tests_failed;

/* Count a test; what it is about is printed if it failed. */
extern void check(bool ok, const char *format, ...) pg_attribute_printf(2, 3);

/* Are both strings, or NULL, equal?  Prints them if not. */
extern void check_text(const char *got, const char *want, const char *about);

/* Tests of the same thing with many inputs count as one, if all passed. */
extern int group_begin(void);
extern void group_end(int begun);

/* Print the counts as "N passed, N failed"; the status to exit with. */
extern int report(void);

/* A small generator of numbers that are the same in each run. */
extern unsigned next_random(unsigned *seed);

#endif
