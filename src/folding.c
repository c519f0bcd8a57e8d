/*
 * folding.c
 *	  Makes words of a text: runs of letters and digits, small, without accents.
 *
 * The parser of text search knows addresses, numbers with signs and tags, and
 * depends on the locale; who looks for a part of one finds nothing.  Here all
 * that is not a letter or a digit divides words.  A script that puts no blanks
 * between words is cut into pairs of characters, and the last one of a run.
 * In another encoding than UTF-8, only ASCII is told apart, and accents stay.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "common/unicode_norm.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/formatting.h"

#include "encoding.h"
#include "folding.h"

/* Characters beyond ASCII that are normalized at once. */
#define MAX_PIECE 64

typedef struct Range
{
	pg_wchar first;
	pg_wchar last;
} Range;

/* Accents, points and vowel signs that may be left out. */
static const Range marks[] = {
	{0x0300, 0x036F},
	{0x0483, 0x0487},
	{0x0591, 0x05BD},
	{0x05BF, 0x05BF},
	{0x05C1, 0x05C2},
	{0x05C4, 0x05C5},
	{0x05C7, 0x05C7},
	{0x0610, 0x061A},
	{0x064B, 0x065F},
	{0x0670, 0x0670},
	{0x06D6, 0x06DC},
	{0x06DF, 0x06E4},
	{0x06E7, 0x06E8},
	{0x06EA, 0x06ED},
	{0x1AB0, 0x1AFF},
	{0x1DC0, 0x1DFF},
	{0x20D0, 0x20FF},
	{0xFE20, 0xFE2F},
};

/* What is not seen, and divides nothing. */
static const Range invisible[] = {
	{0x00AD, 0x00AD},
	{0x200B, 0x200F},
	{0x202A, 0x202E},
	{0x2060, 0x2064},
	{0xFE00, 0xFE0F},
	{0xFEFF, 0xFEFF},
};

/* Blanks and punctuation beyond ASCII. */
static const Range dividers[] = {
	{0x0080, 0x00A9},
	{0x00AB, 0x00B1},
	{0x00B4, 0x00B4},
	{0x00B6, 0x00B8},
	{0x00BB, 0x00BB},
	{0x00BF, 0x00BF},
	{0x00D7, 0x00D7},
	{0x00F7, 0x00F7},
	{0x055A, 0x055F},
	{0x0589, 0x058A},
	{0x05BE, 0x05BE},
	{0x05C0, 0x05C0},
	{0x05C3, 0x05C3},
	{0x05F3, 0x05F4},
	{0x060C, 0x060D},
	{0x061B, 0x061F},
	{0x066A, 0x066D},
	{0x06D4, 0x06D4},
	{0x0964, 0x0965},
	{0x0E2F, 0x0E2F},
	{0x0E5A, 0x0E5B},
	{0x104A, 0x104F},
	{0x1360, 0x1368},
	{0x1680, 0x1680},
	{0x17D4, 0x17DA},
	{0x2000, 0x200A},
	{0x2010, 0x2029},
	{0x202F, 0x205F},
	{0x2190, 0x23FF},
	{0x2500, 0x257F},
	{0x3000, 0x3004},
	{0x3008, 0x3020},
	{0x3030, 0x3030},
	{0x303D, 0x303F},
	{0x30FB, 0x30FB},
	{0xFF5F, 0xFF65},
};

/* Scripts that put no blanks between words, or add to them. */
static const Range signs[] = {
	{0x0E00, 0x0EFF},
	{0x1000, 0x109F},
	{0x1780, 0x17FF},
	{0x3005, 0x3007},
	{0x3040, 0x30FF},
	{0x3105, 0x312F},
	{0x31F0, 0x31FF},
	{0x3400, 0x4DBF},
	{0x4E00, 0x9FFF},
	{0xAC00, 0xD7A3},
	{0xF900, 0xFAFF},
	{0x20000, 0x3FFFF},
};

/* Letters that Unicode does not take apart. */
static const struct
{
	pg_wchar letter;
	const char *as;
} letters[] = {
	{0x00C6, "ae"},
	{0x00D0, "d"},
	{0x00D8, "o"},
	{0x00DE, "th"},
	{0x00DF, "ss"},
	{0x00E6, "ae"},
	{0x00F0, "d"},
	{0x00F8, "o"},
	{0x00FE, "th"},
	{0x0110, "d"},
	{0x0111, "d"},
	{0x0126, "h"},
	{0x0127, "h"},
	{0x0131, "i"},
	{0x0138, "q"},
	{0x0141, "l"},
	{0x0142, "l"},
	{0x014A, "n"},
	{0x014B, "n"},
	{0x0152, "oe"},
	{0x0153, "oe"},
	{0x0166, "t"},
	{0x0167, "t"},
	{0x1E9E, "ss"},
};

typedef enum Class
{
	DIVIDER,
	LETTER,
	SIGN
} Class;

/* Those of a table are in order. */
static bool
is_in(const Range *ranges, int n, pg_wchar c)
{
	int low = 0;

	while (low < n)
	{
		int middle = (low + n) / 2;

		if (c > ranges[middle].last)
			low = middle + 1;
		else if (c < ranges[middle].first)
			n = middle;
		else
			return true;
	}
	return false;
}

#define IS_IN(ranges, c) is_in((ranges), lengthof(ranges), (c))

static Class
class_of(pg_wchar c)
{
	if (c < 0x80)
		return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
					   (c >= 'A' && c <= 'Z')
				   ? LETTER
				   : DIVIDER;
	if (IS_IN(dividers, c))
		return DIVIDER;
	return IS_IN(signs, c) ? SIGN : LETTER;
}

static bool
is_utf8(void)
{
	return GetDatabaseEncoding() == PG_UTF8;
}

static bool
is_ascii(const char *text)
{
	for (; *text != '\0'; text++)
		if (IS_HIGHBIT_SET(*text))
			return false;
	return true;
}

static pg_wchar *
wide(const char *text)
{
	int length = strlen(text);
	pg_wchar *wide = palloc((length + 1) * sizeof(pg_wchar));

	(void) pg_mb2wchar_with_len(text, wide, length);
	return wide;
}

static void
append(StringInfo text, pg_wchar c)
{
	unsigned char utf8[MAX_MULTIBYTE_CHAR_LEN + 1];

	(void) unicode_to_utf8(c, utf8);
	appendBinaryStringInfo(text, (char *) utf8, pg_utf_mblen(utf8));
}

static char *
narrow(const pg_wchar *wide)
{
	StringInfoData text;

	initStringInfo(&text);
	for (; *wide != 0; wide++)
		append(&text, *wide);
	return text.data;
}

static const char *
spelt(pg_wchar c)
{
	if (c >= letters[0].letter)
		for (int i = 0; i < lengthof(letters); i++)
			if (letters[i].letter == c)
				return letters[i].as;
	return NULL;
}

/*
 * The server's own, in pieces: it puts a run of marks in order in a time that
 * grows with its square, and hears no interrupt meanwhile.
 */
static pg_wchar *
normalize(UnicodeNormalizationForm form, const pg_wchar *c)
{
	StringInfoData all;

	initStringInfo(&all);
	while (*c != 0)
	{
		pg_wchar piece[MAX_PIECE + 1];
		pg_wchar *normal = piece;
		int n = 0;

		do
			piece[n++] = *c++;
		while (*c >= 0x80 && n < MAX_PIECE);
		piece[n] = 0;
		if (n > 1 || piece[0] >= 0x80)
			normal = unicode_normalize(form, piece);
		for (n = 0; normal[n] != 0; n++)
			continue;
		appendBinaryStringInfo(&all, (char *) normal, n * sizeof(pg_wchar));
		if (normal != piece)
			pfree(normal);
	}
	appendBinaryStringInfo(&all, (const char *) c, sizeof(pg_wchar));
	return (pg_wchar *) all.data;
}

/* What each letter consists of, but for what may be left out, in one again. */
static pg_wchar *
fold(const char *text)
{
	pg_wchar *apart = normalize(UNICODE_NFKD, wide(text));
	int n = 0;
	pg_wchar *folded;

	for (pg_wchar *c = apart; *c != 0; c++)
		n++;
	folded = palloc((2 * n + 1) * sizeof(pg_wchar));
	n = 0;
	for (pg_wchar *c = apart; *c != 0; c++)
	{
		const char *as = spelt(*c);

		if (as != NULL)
			for (; *as != '\0'; as++)
				folded[n++] = *as;
		else if (!IS_IN(marks, *c) && !IS_IN(invisible, *c))
			folded[n++] = *c < 0x80 ? pg_ascii_tolower(*c) : *c;
	}
	folded[n] = 0;
	return normalize(UNICODE_NFC, folded);
}

char *
prom_folding_of(const char *word)
{
	return is_utf8() && !is_ascii(word) ? narrow(fold(word)) : pstrdup(word);
}

const char *
prom_folding_compose(const char *text)
{
	if (!is_utf8() || is_ascii(text))
		return text;
	return narrow(normalize(UNICODE_NFC, wide(text)));
}

static List *
add(List *words, StringInfo text, int nchars, bool is_sign)
{
	PromWord *word = palloc(sizeof(PromWord));
	int length = prom_encoding_clip(text->data, text->len,
									PROM_FOLDING_MAX_WORD);

	word->text = pnstrdup(text->data, length);
	word->nchars = nchars;
	word->is_sign = is_sign;
	resetStringInfo(text);
	return lappend(words, word);
}

/* Pairs of signs; alone is the last one that is stored, and an only one. */
static List *
add_signs(List *words, const pg_wchar *run, int n, PromFoldingUse use)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i + 1 < n; i++)
	{
		append(&text, run[i]);
		append(&text, run[i + 1]);
		words = add(words, &text, 2, false);
	}
	if (use == PROM_FOLDING_STORE || n == 1)
	{
		append(&text, run[n - 1]);
		words = add(words, &text, 1, true);
	}
	return words;
}

static List *
words_of(const pg_wchar *c, PromFoldingUse use)
{
	List *words = NIL;
	StringInfoData text;

	initStringInfo(&text);
	while (*c != 0)
	{
		Class class = class_of(*c);
		const pg_wchar *start = c;

		while (*c != 0 && class_of(*c) == class)
			c++;
		if (class == SIGN)
			words = add_signs(words, start, c - start, use);
		else if (class == LETTER)
		{
			for (const pg_wchar *letter = start; letter < c; letter++)
				append(&text, *letter);
			words = add(words, &text, c - start, false);
		}
	}
	return words;
}

/* Bytes beyond ASCII are of letters. */
static List *
words_of_bytes(const char *c)
{
	List *words = NIL;
	StringInfoData text;

	initStringInfo(&text);
	for (;; c++)
	{
		bool divides = !IS_HIGHBIT_SET(*c) && class_of(*c) == DIVIDER;

		if (!divides)
			appendStringInfoChar(&text, *c);
		else if (text.len > 0)
			words = add(words, &text, pg_mbstrlen(text.data), false);
		if (*c == '\0')
			return words;
	}
}

char *
prom_folding_beginning(const char *text)
{
	return pnstrdup(text, prom_encoding_clip(text, strlen(text),
											 PROM_FOLDING_MAX_TEXT));
}

List *
prom_folding_words(const char *text, PromFoldingUse use)
{
	char *begin = prom_folding_beginning(text);
	char *small = str_tolower(begin, strlen(begin), DEFAULT_COLLATION_OID);

	return is_utf8() && !is_ascii(small) ? words_of(fold(small), use)
										 : words_of_bytes(small);
}

List *
prom_folding_split(const char *text)
{
	List *words = NIL;
	const char *composed = prom_folding_compose(prom_folding_beginning(text));
	pg_wchar *c = is_utf8() ? wide(composed) : NULL;

	if (c == NULL)
		return words_of_bytes(composed);
	while (*c != 0)
	{
		StringInfoData word;
		pg_wchar *start = c;

		initStringInfo(&word);
		for (; *c != 0 && class_of(*c) == LETTER; c++)
			append(&word, *c);
		if (c > start)
			words = add(words, &word, c - start, false);
		else
			c++;
	}
	return words;
}
