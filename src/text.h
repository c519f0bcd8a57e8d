/*
 * text.h
 *	  Text and JSON that came from outside: cleaning, and finding a value.
 *
 * Plain C without PostgreSQL.  What is returned as char * is from malloc, ends
 * with a NUL, and is NULL only if memory is missing.
 */
#ifndef PROM_TEXT_H
#define PROM_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Levels of nesting beyond which a document counts as unreadable. */
#define PROM_JSON_MAX_DEPTH 16384

/* A part of someone else's bytes. */
typedef struct PromSlice
{
	const char *data;
	size_t length;
} PromSlice;

/* The text as UTF-8 without NUL: what is neither becomes U+FFFD. */
extern char *prom_text_clean(const char *text, size_t length,
							 size_t *clean_length);

/*
 * A JSON document as text that can be stored and that json_in() accepts:
 * cleaned as above, and control characters in strings are escaped.  All other
 * bytes, escapes included, stay as they were sent.
 */
extern char *prom_text_clean_json(PromSlice json, size_t *clean_length);

/*
 * Write the text to a buffer as one clean line: control characters become
 * blanks, and what does not fit is cut between two characters.
 */
extern void prom_text_one_line(char *line, size_t size, const char *text,
							   size_t length);

/* Is this one JSON value, with nothing but blanks around it? */
extern bool prom_json_valid(PromSlice json);

/*
 * Find the value at a path, as "choices.0.message": names of members and
 * numbers of elements.  A member that occurs twice is the last one.
 */
extern bool prom_json_find(PromSlice json, const char *path, PromSlice *value);

/*
 * Walk over the members of an object or the elements of an array; *position
 * starts at 0.  False at the end, and where the text is not JSON.
 */
extern bool prom_json_next_member(PromSlice object, size_t *position,
								  PromSlice *key, PromSlice *value);
extern bool prom_json_next_element(PromSlice array, size_t *position,
								   PromSlice *value);

/* The first byte of a value, which tells its kind; '\0' if there is none. */
extern char prom_json_kind(PromSlice value);

/* Is this value, or key, a string that says just this word, unescaped? */
extern bool prom_json_is(PromSlice value, const char *word);

/* The content of a JSON string, unescaped and clean; NULL if it is none. */
extern char *prom_json_string(PromSlice value, size_t *length);

#endif
