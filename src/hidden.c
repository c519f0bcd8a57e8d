/*
 * hidden.c
 *	  Finds characters in a text that no reader sees and every model reads.
 *
 * Few of them are of use: the zero-width joiner in emoji and in Persian, a
 * selector after an emoji, the tags in a flag of a region, a byte order mark.
 * Those come one by one, and what is hidden needs many.
 */
#include "postgres.h"

#include "common/string.h"
#include "mb/pg_wchar.h"

#include "encoding.h"
#include "hidden.h"

/* Characters without width in a row that hide something. */
#define ENOUGH 8

/* Tags after a flag: a region has at most six, and an end. */
#define MAX_FLAG 7

static bool
is_tag(pg_wchar c)
{
	return c >= 0xE0000 && c <= 0xE007F;
}

/* Joiners, marks, invisible operators, and selectors of variations. */
static bool
has_no_width(pg_wchar c)
{
	return (c >= 0x200B && c <= 0x200F) || (c >= 0x2060 && c <= 0x2064) ||
		   (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xE0100 && c <= 0xE01EF) ||
		   c == 0xAD || c == 0x180E || c == 0xFEFF;
}

const char *
prom_hidden_in(const char *text)
{
	const unsigned char *at;
	int tags_left = 0;
	int run = 0;

	if (pg_is_ascii(text))
		return NULL;
	at = (const unsigned char *) prom_encoding_words_to_utf8(text);
	for (; *at != '\0'; at += pg_utf_mblen(at))
	{
		pg_wchar c = utf8_to_unicode(at);

		if (is_tag(c) && tags_left-- <= 0)
			return "tag characters";
		if (c == 0x1F3F4)
			tags_left = MAX_FLAG;
		else if (!is_tag(c) || c == 0xE007F)
			tags_left = 0;
		if (c == 0x202D || c == 0x202E)
			return "an override of the direction of text";
		run = has_no_width(c) ? run + 1 : 0;
		if (run >= ENOUGH)
			return "a run of characters without width";
	}
	return NULL;
}
