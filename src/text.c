/*
 * text.c
 *	  Cleans text that came from outside and finds values in JSON.
 *
 * A reply's turn must be kept as it was sent: parsers that build trees lose
 * large integers, the order of members, escapes.  So a value is found as a
 * range of the bytes received.  The scanner checks what it passes over, is
 * lenient only about control characters inside strings, and needs no stack
 * for nesting: a bit a level tells objects from arrays.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define REPLACEMENT "\xEF\xBF\xBD"
#define REPLACEMENT_LENGTH 3

/* Where a scan of one value is. */
typedef struct Scan
{
	const char *at;
	const char *end;
	int depth;
	unsigned char objects[PROM_JSON_MAX_DEPTH / 8]; /* a bit a level */
} Scan;


/*
 * How many bytes from here are one valid character (*valid), or else are to
 * become one replacement character: the longest start of a valid one.
 */
static size_t
character_length(const unsigned char *text, size_t length, bool *valid)
{
	unsigned char lowest = 0x80;
	unsigned char highest = 0xBF;
	size_t need;
	size_t i;

	*valid = false;
	if (text[0] < 0x80)
	{
		*valid = text[0] != '\0';
		return 1;
	}
	if (text[0] < 0xC2 || text[0] > 0xF4)
		return 1;
	need = text[0] < 0xE0 ? 2 : (text[0] < 0xF0 ? 3 : 4);
	if (text[0] == 0xE0)
		lowest = 0xA0;
	else if (text[0] == 0xED)
		highest = 0x9F;
	else if (text[0] == 0xF0)
		lowest = 0x90;
	else if (text[0] == 0xF4)
		highest = 0x8F;
	for (i = 1; i < need; i++)
	{
		if (i >= length || text[i] < lowest || text[i] > highest)
			return i;
		lowest = 0x80;
		highest = 0xBF;
	}
	*valid = true;
	return need;
}

/* Clean into a buffer, or only count if it is NULL; returns the length. */
static size_t
clean_into(char *buffer, const char *text, size_t length)
{
	size_t from = 0;
	size_t to = 0;

	while (from < length)
	{
		bool valid;
		size_t n = character_length((const unsigned char *) text + from,
									length - from, &valid);
		size_t m = valid ? n : REPLACEMENT_LENGTH;

		if (buffer != NULL)
			memcpy(buffer + to, valid ? text + from : REPLACEMENT, m);
		from += n;
		to += m;
	}
	return to;
}

char *
prom_text_clean(const char *text, size_t length, size_t *clean_length)
{
	size_t n = clean_into(NULL, text, length);
	char *clean = malloc(n + 1);

	if (clean == NULL)
		return NULL;
	clean_into(clean, text, length);
	clean[n] = '\0';
	if (clean_length != NULL)
		*clean_length = n;
	return clean;
}

/* As clean_into(), but control characters between quotes become \u00XX. */
static size_t
clean_json_into(char *buffer, PromSlice json)
{
	static const char hex[] = "0123456789abcdef";
	bool quoted = false;
	size_t from = 0;
	size_t to = 0;

	while (from < json.length)
	{
		const char *text = json.data + from;
		char escape[6] = {'\\', 'u', '0', '0'};
		const char *put = text;
		bool valid;
		size_t n = character_length((const unsigned char *) text,
									json.length - from, &valid);
		size_t m = n;

		if (!valid)
		{
			put = REPLACEMENT;
			m = REPLACEMENT_LENGTH;
		}
		else if (quoted && (unsigned char) *text < 0x20)
		{
			escape[4] = hex[(*text >> 4) & 15];
			escape[5] = hex[*text & 15];
			put = escape;
			m = sizeof(escape);
		}
		else if (quoted && *text == '\\' && from + 1 < json.length &&
				 (text[1] == '"' || text[1] == '\\'))
			n = m = 2;
		else if (*text == '"')
			quoted = !quoted;
		if (buffer != NULL)
			memcpy(buffer + to, put, m);
		from += n;
		to += m;
	}
	return to;
}

char *
prom_text_clean_json(PromSlice json, size_t *clean_length)
{
	size_t n = clean_json_into(NULL, json);
	char *clean = malloc(n + 1);

	if (clean == NULL)
		return NULL;
	clean_json_into(clean, json);
	clean[n] = '\0';
	if (clean_length != NULL)
		*clean_length = n;
	return clean;
}

void
prom_text_one_line(char *line, size_t size, const char *text, size_t length)
{
	size_t from = 0;
	size_t to = 0;

	while (from < length)
	{
		bool valid;
		unsigned char first = (unsigned char) text[from];
		size_t n = character_length((const unsigned char *) text + from,
									length - from, &valid);
		size_t m = valid ? n : REPLACEMENT_LENGTH;

		if (to + m >= size)
			break;
		if (valid && (first < 0x20 || first == 0x7F))
			line[to] = ' ';
		else
			memcpy(line + to, valid ? text + from : REPLACEMENT, m);
		from += n;
		to += m;
	}
	line[to] = '\0';
}


static void
skip_blanks(Scan *scan)
{
	while (scan->at < scan->end &&
		   (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' ||
			*scan->at == '\t'))
		scan->at++;
}

static bool
is_at(const Scan *scan, char c)
{
	return scan->at < scan->end && *scan->at == c;
}

static bool
is_digit(const Scan *scan)
{
	return scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9';
}

/* The value of four hexadecimal digits, or -1. */
static int
hex4(const char *text, const char *end)
{
	int value = 0;
	int i;

	if (end - text < 4)
		return -1;
	for (i = 0; i < 4; i++)
	{
		char c = text[i];

		if (c >= '0' && c <= '9')
			value = value * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			value = value * 16 + (c - 'A' + 10);
		else
			return -1;
	}
	return value;
}

static bool
skip_string(Scan *scan)
{
	if (!is_at(scan, '"'))
		return false;
	scan->at++;
	while (scan->at < scan->end)
	{
		char c = *scan->at++;

		if (c == '"')
			return true;
		if (c != '\\')
			continue;
		if (scan->at >= scan->end)
			return false;
		c = *scan->at++;
		if (c == 'u')
		{
			if (hex4(scan->at, scan->end) < 0)
				return false;
			scan->at += 4;
		}
		else if (c == '\0' || strchr("\"\\/bfnrt", c) == NULL)
			return false;
	}
	return false;
}

static bool
skip_digits(Scan *scan)
{
	if (!is_digit(scan))
		return false;
	while (is_digit(scan))
		scan->at++;
	return true;
}

static bool
skip_number(Scan *scan)
{
	if (is_at(scan, '-'))
		scan->at++;
	if (is_at(scan, '0'))
		scan->at++;
	else if (!skip_digits(scan))
		return false;
	if (is_at(scan, '.'))
	{
		scan->at++;
		if (!skip_digits(scan))
			return false;
	}
	if (is_at(scan, 'e') || is_at(scan, 'E'))
	{
		scan->at++;
		if (is_at(scan, '+') || is_at(scan, '-'))
			scan->at++;
		if (!skip_digits(scan))
			return false;
	}
	return true;
}

static bool
skip_word(Scan *scan, const char *word)
{
	size_t length = strlen(word);

	if ((size_t) (scan->end - scan->at) < length ||
		memcmp(scan->at, word, length) != 0)
		return false;
	scan->at += length;
	return true;
}

static bool
skip_scalar(Scan *scan)
{
	if (scan->at >= scan->end)
		return false;
	switch (*scan->at)
	{
		case '"':
			return skip_string(scan);
		case 't':
			return skip_word(scan, "true");
		case 'f':
			return skip_word(scan, "false");
		case 'n':
			return skip_word(scan, "null");
		default:
			return skip_number(scan);
	}
}

/* A key and its colon, and the blanks after each. */
static bool
skip_key(Scan *scan)
{
	skip_blanks(scan);
	if (!skip_string(scan))
		return false;
	skip_blanks(scan);
	if (!is_at(scan, ':'))
		return false;
	scan->at++;
	skip_blanks(scan);
	return true;
}

static bool
in_object(const Scan *scan)
{
	int level = scan->depth - 1;

	return (scan->objects[level / 8] >> (level % 8)) & 1;
}

/*
 * Enter an object or array.  *empty: it has ended again; else the scan is at
 * its first value.
 */
static bool
enter(Scan *scan, bool *empty)
{
	bool object = *scan->at == '{';
	unsigned char bit;

	if (scan->depth >= PROM_JSON_MAX_DEPTH)
		return false;
	bit = (unsigned char) (1 << (scan->depth % 8));
	if (object)
		scan->objects[scan->depth / 8] |= bit;
	else
		scan->objects[scan->depth / 8] &= (unsigned char) ~bit;
	scan->depth++;
	scan->at++;
	skip_blanks(scan);
	*empty = is_at(scan, object ? '}' : ']');
	if (*empty)
	{
		scan->at++;
		scan->depth--;
		return true;
	}
	return !object || skip_key(scan);
}

/*
 * After a value: leave what ends here.  True at the next value, or with
 * depth 0 after the outermost one.
 */
static bool
leave(Scan *scan)
{
	while (scan->depth > 0)
	{
		bool object = in_object(scan);

		skip_blanks(scan);
		if (is_at(scan, ','))
		{
			scan->at++;
			skip_blanks(scan);
			return !object || skip_key(scan);
		}
		if (!is_at(scan, object ? '}' : ']'))
			return false;
		scan->at++;
		scan->depth--;
	}
	return true;
}

/* Pass over one value; false if it is not JSON. */
static bool
skip_value(Scan *scan)
{
	scan->depth = 0;
	skip_blanks(scan);
	for (;;)
	{
		if (is_at(scan, '{') || is_at(scan, '['))
		{
			bool empty;

			if (!enter(scan, &empty))
				return false;
			if (!empty)
				continue;
		}
		else if (!skip_scalar(scan))
			return false;
		if (!leave(scan))
			return false;
		if (scan->depth == 0)
			return true;
	}
}

static void
scan_start(Scan *scan, PromSlice json, size_t position)
{
	scan->at = json.data + position;
	scan->end = json.data + json.length;
	scan->depth = 0;
}

bool
prom_json_valid(PromSlice json)
{
	Scan scan;

	scan_start(&scan, json, 0);
	if (!skip_value(&scan))
		return false;
	skip_blanks(&scan);
	return scan.at == scan.end;
}

char
prom_json_kind(PromSlice value)
{
	Scan scan;

	scan_start(&scan, value, 0);
	skip_blanks(&scan);
	return scan.at < scan.end ? *scan.at : '\0';
}

/*
 * Step over the opening bracket or the comma before the next item of a
 * container.  False at its end.
 */
static bool
next_item(Scan *scan, bool first, char open, char close)
{
	skip_blanks(scan);
	if (first)
	{
		if (!is_at(scan, open))
			return false;
		scan->at++;
		skip_blanks(scan);
		return !is_at(scan, close);
	}
	if (!is_at(scan, ','))
		return false;
	scan->at++;
	return true;
}

/* Pass over the next value and give its range. */
static bool
take_value(Scan *scan, PromSlice *value)
{
	skip_blanks(scan);
	value->data = scan->at;
	if (!skip_value(scan))
		return false;
	value->length = (size_t) (scan->at - value->data);
	return true;
}

bool
prom_json_next_member(PromSlice object, size_t *position, PromSlice *key,
					  PromSlice *value)
{
	Scan scan;

	scan_start(&scan, object, *position);
	if (!next_item(&scan, *position == 0, '{', '}'))
		return false;
	skip_blanks(&scan);
	key->data = scan.at;
	if (!skip_string(&scan))
		return false;
	key->length = (size_t) (scan.at - key->data);
	skip_blanks(&scan);
	if (!is_at(&scan, ':'))
		return false;
	scan.at++;
	if (!take_value(&scan, value))
		return false;
	*position = (size_t) (scan.at - object.data);
	return true;
}

bool
prom_json_next_element(PromSlice array, size_t *position, PromSlice *value)
{
	Scan scan;

	scan_start(&scan, array, *position);
	if (!next_item(&scan, *position == 0, '[', ']') ||
		!take_value(&scan, value))
		return false;
	*position = (size_t) (scan.at - array.data);
	return true;
}

/* One step of a path: a member by its name, or an element by its number. */
static bool
find_step(PromSlice json, const char *name, size_t length, PromSlice *found)
{
	PromSlice key;
	PromSlice value;
	size_t position = 0;
	bool ok = false;

	if (prom_json_kind(json) == '[')
	{
		long wanted = strtol(name, NULL, 10);

		while (prom_json_next_element(json, &position, &value))
			if (wanted-- == 0)
			{
				*found = value;
				return true;
			}
		return false;
	}
	while (prom_json_next_member(json, &position, &key, &value))
		if (key.length == length + 2 &&
			memcmp(key.data + 1, name, length) == 0)
		{
			*found = value;
			ok = true;
		}
	return ok;
}

bool
prom_json_find(PromSlice json, const char *path, PromSlice *value)
{
	PromSlice here = json;

	for (;;)
	{
		size_t length = strcspn(path, ".");

		if (!find_step(here, path, length, &here))
			return false;
		if (path[length] == '\0')
			break;
		path += length + 1;
	}
	*value = here;
	return true;
}

bool
prom_json_is(PromSlice value, const char *word)
{
	size_t length = strlen(word);

	return value.length == length + 2 && value.data[0] == '"' &&
		   memcmp(value.data + 1, word, length) == 0;
}

/* Append a code point as UTF-8; returns its length. */
static size_t
put_code_point(char *to, uint32_t code)
{
	if (code == 0 || (code >= 0xD800 && code <= 0xDFFF))
		code = 0xFFFD;
	if (code < 0x80)
	{
		to[0] = (char) code;
		return 1;
	}
	if (code < 0x800)
	{
		to[0] = (char) (0xC0 | (code >> 6));
		to[1] = (char) (0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000)
	{
		to[0] = (char) (0xE0 | (code >> 12));
		to[1] = (char) (0x80 | ((code >> 6) & 0x3F));
		to[2] = (char) (0x80 | (code & 0x3F));
		return 3;
	}
	to[0] = (char) (0xF0 | (code >> 18));
	to[1] = (char) (0x80 | ((code >> 12) & 0x3F));
	to[2] = (char) (0x80 | ((code >> 6) & 0x3F));
	to[3] = (char) (0x80 | (code & 0x3F));
	return 4;
}

/*
 * Unescape what follows a backslash; *from moves past it.  The result is
 * never longer than the escape.
 */
static size_t
unescape(char *to, const char **from, const char *end)
{
	static const char names[] = "bfnrt";
	static const char values[] = "\b\f\n\r\t";
	char c = *(*from)++;
	const char *name = strchr(names, c);
	int high;
	int low;

	if (c != 'u')
	{
		*to = (name != NULL && c != '\0') ? values[name - names] : c;
		return 1;
	}
	high = hex4(*from, end);
	if (high < 0)
		return put_code_point(to, 0);
	*from += 4;
	if (high >= 0xD800 && high <= 0xDBFF && end - *from >= 6 &&
		(*from)[0] == '\\' && (*from)[1] == 'u')
	{
		low = hex4(*from + 2, end);
		if (low >= 0xDC00 && low <= 0xDFFF)
		{
			*from += 6;
			return put_code_point(to, 0x10000 +
										  (((uint32_t) high - 0xD800) << 10) +
										  ((uint32_t) low - 0xDC00));
		}
	}
	return put_code_point(to, (uint32_t) high);
}

char *
prom_json_string(PromSlice value, size_t *length)
{
	const char *from;
	const char *end;
	char *text;
	char *clean;
	size_t to = 0;

	if (value.length < 2 || value.data[0] != '"')
		return NULL;
	from = value.data + 1;
	end = value.data + value.length - 1;
	text = malloc(value.length);
	if (text == NULL)
		return NULL;
	while (from < end)
	{
		const char *escape = memchr(from, '\\', (size_t) (end - from));
		size_t n = (size_t) ((escape ? escape : end) - from);

		memcpy(text + to, from, n);
		to += n;
		if (escape == NULL)
			break;
		from = escape + 1;
		if (from < end)
			to += unescape(text + to, &from, end);
	}
	clean = prom_text_clean(text, to, length);
	free(text);
	return clean;
}
