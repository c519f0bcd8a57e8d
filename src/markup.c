/*
 * markup.c
 *	  Makes any text a part of an HTML page, as text.
 *
 * Whoever wrote it may want to be more than read: to end the element or the
 * attribute that it is in, to turn around the direction of what comes after it,
 * or not to be seen.  What is not a plain character of ASCII becomes a
 * reference to a character, so that the page is the same in any encoding; what
 * has no form, or changes that of others, is written as what it is: [U+202E].
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "encoding.h"

/* Marks, embeddings, overrides and isolates of directions. */
static bool
changes_direction(pg_wchar c)
{
	return c == 0x061C || c == 0x200E || c == 0x200F ||
		   (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x206F);
}

/* But joiners, which emoji and Persian need, and selectors of variations. */
static bool
is_invisible(pg_wchar c)
{
	return c == 0xAD || c == 0x034F || c == 0x115F || c == 0x1160 ||
		   c == 0x180E || c == 0x200B || c == 0x2028 || c == 0x2029 ||
		   (c >= 0x2060 && c <= 0x2064) || c == 0x3164 || c == 0xFEFF ||
		   (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

static void
add_character(StringInfo page, pg_wchar c)
{
	if (c == '&' || c == '<' || c == '>' || c == '"' || c == '\'' || c == '`')
		appendStringInfo(page, "&#%u;", (unsigned int) c);
	else if (c == '\n' || c == '\t' || (c >= ' ' && c <= '~'))
		appendStringInfoChar(page, (char) c);
	else if (c == '\r')
		return;
	else if (c < 0xA0 || changes_direction(c) || is_invisible(c))
		appendStringInfo(page, "[U+%04X]", (unsigned int) c);
	else
		appendStringInfo(page, "&#%u;", (unsigned int) c);
}

PG_FUNCTION_INFO_V1(prom_markup);

Datum
prom_markup(PG_FUNCTION_ARGS)
{
	char *value = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const unsigned char *at;
	StringInfoData page;

	at = (const unsigned char *) prom_encoding_words_to_utf8(value);
	initStringInfo(&page);
	while (*at != '\0')
	{
		CHECK_FOR_INTERRUPTS();
		add_character(&page, utf8_to_unicode(at));
		at += pg_utf_mblen(at);
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(page.data, page.len));
}
