/*
 * document.c
 *	  Looks through a text for all that jsonb_in() raises for, or is slow with.
 *
 * It sorts the members of an object, and those of a hostile one can be in an
 * order that takes it a time that is quadratic in their number, in which no
 * signal stops it.
 *
 * What is only shown need not be right: there a sign is put in its place.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "encoding.h"
#include "schema.h"
#include "text.h"

/* Of a document: bytes, levels. */
#define MAX_DOCUMENT (1024 * 1024)
#define MAX_LEVELS 128

/* Members of an object; of all objects the sum of their squares. */
#define MAX_MEMBERS 10000
#define MAX_SQUARES ((int64) MAX_MEMBERS * MAX_MEMBERS)

#define HEX_DIGITS "0123456789abcdefABCDEF"

/* Pass over a number; false if it is out of range. */
static bool
pass_number(const char **at)
{
	const char *p = *at;
	int64 whole = 0;
	int64 fraction = 0;
	int exponent = 0;
	int sign = 1;

	if (*p == '-')
		p++;
	for (; isdigit((unsigned char) *p); p++)
		whole++;
	if (*p == '.')
		for (p++; isdigit((unsigned char) *p); p++)
			fraction++;
	if (*p == 'e' || *p == 'E')
	{
		p++;
		if (*p == '-' || *p == '+')
			sign = *p++ == '-' ? -1 : 1;
		for (; isdigit((unsigned char) *p); p++)
			exponent = Min(exponent * 10 + (*p - '0'),
						   10 * PROM_SCHEMA_MAX_DIGITS);
	}
	*at = p;
	return whole + sign * exponent <= PROM_SCHEMA_MAX_DIGITS &&
		   fraction - sign * exponent <= PROM_SCHEMA_MAX_DIGITS &&
		   whole + fraction <= 2 * PROM_SCHEMA_MAX_DIGITS;
}

static int
read_hex4(const char *text)
{
	int value = 0;

	for (int i = 0; i < 4; i++)
	{
		char c = pg_ascii_tolower((unsigned char) text[i]);

		value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
	}
	return value;
}

/* Pass over an escape \u, which is valid; false if it cannot be stored. */
static bool
pass_unicode(const char **at)
{
	pg_wchar code = read_hex4(*at + 2);

	*at += 6;
	if (is_utf16_surrogate_first(code))
	{
		pg_wchar low = (*at)[0] == '\\' && (*at)[1] == 'u'
						   ? read_hex4(*at + 2)
						   : 0;

		if (!is_utf16_surrogate_second(low))
			return false;
		*at += 6;
		code = surrogate_pair_to_codepoint(code, low);
	}
	return code != 0 && !is_utf16_surrogate_second(code) &&
		   prom_encoding_can_store(code);
}

/* Pass over a string, which is valid but for control characters. */
static const char *
pass_string(const char **at)
{
	const char *p = *at + 1;

	while (*p != '"')
	{
		if ((unsigned char) *p < 0x20)
			return "is not JSON";
		if (p[0] == '\\' && p[1] == 'u')
		{
			if (!pass_unicode(&p))
				return "has a character that jsonb cannot store";
		}
		else
			p += *p == '\\' ? 2 : 1;
	}
	*at = p + 1;
	return NULL;
}

/* Members that were seen, by the colons before their values. */
typedef struct Members
{
	int64 squares; /* of the numbers of members of all objects */
	int counts[MAX_LEVELS + 1];
} Members;

/* One more in the object at this level; false if it is one too many. */
static bool
count_member(Members *members, int level)
{
	/* The sum of 1, 3, 5, ... is a square. */
	members->squares += 2 * members->counts[level]++ + 1;
	return members->squares <= MAX_SQUARES;
}

/* What jsonb_in() would raise for, or take long for; or NULL. */
const char *
prom_schema_unreadable(const char *text)
{
	PromSlice json = {text, strlen(text)};
	Members members = {0};
	int level = 0;
	const char *problem = NULL;

	if (json.length > MAX_DOCUMENT)
		return "is longer than 1 MB";
	if (!prom_json_valid(json))
		return "is not JSON";
	while (*text != '\0' && problem == NULL)
	{
		switch (*text)
		{
			case '"':
				problem = pass_string(&text);
				break;
			case '{':
			case '[':
				text++;
				if (++level > MAX_LEVELS)
					problem = "is nested too deeply";
				else
					members.counts[level] = 0;
				break;
			case '}':
			case ']':
				text++;
				level--;
				break;
			case ':':
				text++;
				if (members.counts[level] == MAX_MEMBERS)
					problem = "has an object with more than 10000 members";
				else if (!count_member(&members, level))
					problem = "has too many objects with thousands of members";
				break;
			default:
				if (*text != '-' && !isdigit((unsigned char) *text))
					text++;
				else if (!pass_number(&text))
					problem = "has a number with too many digits";
		}
	}
	return problem;
}

const char *
prom_schema_mend(const char *text)
{
	const char *sign = GetDatabaseEncoding() == PG_UTF8 ? "\xEF\xBF\xBD" : "?";
	StringInfoData mended;

	initStringInfo(&mended);
	while (*text != '\0')
	{
		const char *end = text + strcspn(text, "\\");
		bool can = true;

		appendBinaryStringInfo(&mended, text, end - text);
		text = end;
		if (*text == '\0')
			break;
		if (text[1] == 'u' && strspn(text + 2, HEX_DIGITS) >= 4)
			can = pass_unicode(&end);
		else
			end += text[1] == '\0' ? 1 : 2;
		if (can)
			appendBinaryStringInfo(&mended, text, end - text);
		else
			appendStringInfoString(&mended, sign);
		text = end;
	}
	return mended.data;
}
