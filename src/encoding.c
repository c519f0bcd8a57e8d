/*
 * encoding.c
 *	  Converts text between UTF-8 and the encoding of the database.
 *
 * An answer with a character that the database cannot store is still an
 * answer: that character becomes a question mark.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "encoding.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Bytes converted at once, so that the buffer is of a fixed size. */
#define PIECE 4096

/*
 * The length of a character that is none: a lead byte and what continues it,
 * or a few bytes that continue nothing.  What follows is text again.
 */
static int
broken_character(const char *text)
{
	int length = 1;

	while (((unsigned char) text[length] & 0xC0) == 0x80)
		length++;
	return length;
}

/* The length of as many whole characters as fit into limit bytes. */
static int
whole_characters(int encoding, const char *text, int length, int limit)
{
	int whole = 0;

	while (whole < length)
	{
		int next = pg_encoding_mblen(encoding, text + whole);

		if (whole + next > Min(length, limit))
			break;
		whole += next;
	}
	return whole;
}

/* Convert by proc; what cannot be becomes a question mark. */
static const char *
convert(const char *text, Oid proc, int from, int to)
{
	unsigned char piece[PIECE * MAX_CONVERSION_GROWTH + 1];
	StringInfoData result;
	int length = strlen(text);

	initStringInfo(&result);
	while (length > 0)
	{
		int whole = whole_characters(from, text, length, PIECE);
		int done;

		piece[0] = '\0';
		done = pg_do_encoding_conversion_buf(
			proc, from, to, (unsigned char *) unconstify(char *, text), whole,
			piece, sizeof(piece), true);
		appendStringInfoString(&result, (char *) piece);
		text += done;
		length -= done;

		/* It cannot be converted, or (none is whole) the last is cut off. */
		if (done < whole || whole == 0)
		{
			int skipped = broken_character(text);

			if (from != PG_UTF8)
				skipped = Min(pg_encoding_mblen(from, text), length);
			appendStringInfoChar(&result, '?');
			text += skipped;
			length -= skipped;
		}
	}
	return result.data;
}

const char *
prom_encoding_from_utf8(const char *text)
{
	int encoding = GetDatabaseEncoding();
	Oid proc;

	if (text == NULL || encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return text;
	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc))
		return pg_any_to_server(text, strlen(text), PG_UTF8);
	return convert(text, proc, PG_UTF8, encoding);
}

bool
prom_encoding_can_store(uint32 code)
{
	int encoding = GetDatabaseEncoding();
	unsigned char utf8[5] = {0};
	unsigned char stored[sizeof(utf8) * MAX_CONVERSION_GROWTH + 1];
	int length;
	Oid proc;

	if (encoding == PG_UTF8 || code < 0x80)
		return true;
	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc))
		return false;
	unicode_to_utf8(code, utf8);
	length = pg_utf_mblen(utf8);
	return pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding, utf8, length,
										 stored, sizeof(stored),
										 true) == length;
}

const char *
prom_encoding_to_utf8(const char *text)
{
	if (text == NULL)
		return NULL;
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

/* Each byte that is no UTF-8 becomes a sign that is. */
static const char *
mend_utf8(const char *text, const char *sign)
{
	int length = strlen(text);
	StringInfoData mended;

	initStringInfo(&mended);
	while (length > 0)
	{
		int next = pg_utf_mblen((const unsigned char *) text);

		if (next <= length &&
			pg_utf8_islegal((const unsigned char *) text, next))
			appendBinaryStringInfo(&mended, text, next);
		else
		{
			appendStringInfoString(&mended, sign);
			next = 1;
		}
		text += next;
		length -= next;
	}
	return mended.data;
}

const char *
prom_encoding_stored_to_utf8(const char *text)
{
	if (text != NULL && GetDatabaseEncoding() == PG_SQL_ASCII)
		return mend_utf8(text, REPLACEMENT);
	return prom_encoding_to_utf8(text);
}

const char *
prom_encoding_words_to_utf8(const char *text)
{
	int encoding = GetDatabaseEncoding();
	Oid proc;

	if (encoding == PG_UTF8)
		return text;
	if (encoding == PG_SQL_ASCII)
		return mend_utf8(text, "?");
	proc = FindDefaultConversionProc(encoding, PG_UTF8);
	return OidIsValid(proc) ? convert(text, proc, encoding, PG_UTF8)
							: mend_utf8(text, "?");
}

int
prom_encoding_clip(const char *text, int length, int limit)
{
	int encoding = GetDatabaseEncoding();

	if (encoding == PG_SQL_ASCII)
		encoding = PG_UTF8;

	/* Bytes that are no characters may seem to be longer than the text. */
	return Min(pg_encoding_mbcliplen(encoding, text, length, limit), length);
}
