/*
 * rate.c
 *	  Reads the headers in which providers tell their rate limits.
 *
 * OpenAI, and who speaks as it does: x-ratelimit-remaining-requests: 59 and
 * such, times as durations.  Anthropic: anthropic-ratelimit-requests-remaining,
 * times as dates.  What makes no sense is as if it had not been sent.
 */
#include <string.h>
#include <strings.h>

#include "rate.h"

/*
 * A time that is further ahead is not believed: a request that comes too early
 * is refused with one that is (Retry-After), a wrong hour would be waited for.
 */
#define LONGEST_RESET (INT64_C(60) * 60 * 1000)

/* More than this is as good as no limit, and can be added to. */
#define MOST INT64_C(1000000000000000)

#define LENGTHOF(array) ((int) (sizeof(array) / sizeof((array)[0])))

static const char *const kinds[] = {
	[PROM_RATE_REQUESTS] = "requests",
	[PROM_RATE_TOKENS] = "tokens",
	[PROM_RATE_TOKENS_IN] = "input-tokens",
	[PROM_RATE_TOKENS_OUT] = "output-tokens",
};

static const char *const whats[] = {"limit", "remaining", "reset"};

static const char openai_prefix[] = "x-ratelimit-";
static const char anthropic_prefix[] = "anthropic-ratelimit-";


void
prom_rates_reset(PromRate *rates)
{
	int i;

	for (i = 0; i < PROM_NRATES; i++)
		rates[i] = (PromRate){-1, -1, -1, -1};
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A whole number, cut to MOST; -1 if the text is anything else. */
static int64_t
read_count(const char *text)
{
	int64_t value = 0;

	if (*text == '\0')
		return -1;
	for (; is_digit(*text); text++)
		if (value < MOST)
			value = value * 10 + (*text - '0');
	if (*text != '\0')
		return -1;
	return value < MOST ? value : MOST;
}

/* A number and its fraction, as millionths; -1: there is none. */
static int64_t
read_millionths(const char **text)
{
	int64_t scale = 1000000;
	int64_t value = 0;
	bool digits = false;

	for (; is_digit(**text); (*text)++)
	{
		digits = true;
		if (value < MOST / 1000000)
			value = value * 10 + (**text - '0');
	}
	if (value > MOST / 1000000)
		value = MOST / 1000000;
	value *= scale;
	if (**text == '.')
		for ((*text)++; is_digit(**text); (*text)++)
		{
			digits = true;
			scale /= 10;
			value += scale * (**text - '0');
		}
	return digits ? value : -1;
}

/* Nanoseconds of a unit of time that a text begins with; 0: it has none. */
static int64_t
read_unit(const char **text)
{
	static const struct
	{
		const char *name;
		int64_t ns;
	} units[] = {
		{"ms", 1000000},
		{"us", 1000},
		{"\xC2\xB5s", 1000}, /* the micro sign, and the letter mu */
		{"\xCE\xBCs", 1000},
		{"ns", 1},
		{"h", INT64_C(3600000000000)},
		{"m", INT64_C(60000000000)},
		{"s", 1000000000},
	};
	int i;

	for (i = 0; i < LENGTHOF(units); i++)
	{
		size_t length = strlen(units[i].name);

		if (strncmp(*text, units[i].name, length) == 0)
		{
			*text += length;
			return units[i].ns;
		}
	}
	return 0;
}

int64_t
prom_rate_read_duration(const char *text)
{
	const char *begin = text;
	int64_t ns = 0;

	if (*text == '\0')
		return -1;
	while (*text != '\0')
	{
		bool first = text == begin;
		int64_t millionths = read_millionths(&text);
		int64_t unit;

		if (millionths < 0)
			return -1;
		unit = *text == '\0' && first ? 1000000000 : read_unit(&text);
		if (unit == 0 ||
			(double) millionths * (double) unit / 1e12 > LONGEST_RESET)
			return -1;
		ns += unit >= 1000000 ? millionths * (unit / 1000000)
							  : millionths * unit / 1000000;
		if (ns / 1000000 > LONGEST_RESET)
			return -1;
	}
	return (ns + 999999) / 1000000;
}

/* Two or four digits, and what must follow them; -1: they are not there. */
static int
read_digits(const char **text, int n, const char *then)
{
	int value = 0;
	int i;

	for (i = 0; i < n; i++, (*text)++)
	{
		if (!is_digit(**text))
			return -1;
		value = value * 10 + (**text - '0');
	}
	if (*then == '\0')
		return value;
	if (**text == '\0' || strchr(then, **text) == NULL)
		return -1;
	(*text)++;
	return value;
}

/* Days from the epoch to a date, by the proleptic Gregorian calendar. */
static int64_t
days_to(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year; /* years begin in March */
	int64_t era = y / 400;
	int64_t of_era = y - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year -
		   719468;
}

/* The offset from UTC that a time ends with, seconds; false: it has none. */
static bool
read_offset(const char *text, int *offset)
{
	int sign = *text == '-' ? -1 : 1;
	int hours;
	int minutes;

	*offset = 0;
	if (*text == 'Z' || *text == 'z')
		return text[1] == '\0';
	if (*text != '+' && *text != '-')
		return false;
	text++;
	hours = read_digits(&text, 2, ":");
	if (hours < 0 || hours > 23)
		return false;
	minutes = read_digits(&text, 2, "");
	if (minutes < 0 || minutes > 59 || *text != '\0')
		return false;
	*offset = sign * (hours * 3600 + minutes * 60);
	return true;
}

int64_t
prom_rate_read_date(const char *text)
{
	/* Year, month, day, hour, minute, second; each with what follows it. */
	static const struct
	{
		int digits;
		const char *then;
		int min;
		int max;
	} parts[] = {
		{4, "-", 1970, 9999},
		{2, "-", 1, 12},
		{2, "Tt ", 1, 31},
		{2, ":", 0, 23},
		{2, ":", 0, 59},
		{2, "", 0, 60},
	};
	int at[LENGTHOF(parts)];
	int64_t ms = 0;
	int offset;
	int i;

	for (i = 0; i < LENGTHOF(parts); i++)
	{
		at[i] = read_digits(&text, parts[i].digits, parts[i].then);
		if (at[i] < parts[i].min || at[i] > parts[i].max)
			return -1;
	}
	if (*text == '.')
	{
		int scale = 1000;

		text++;
		if (!is_digit(*text))
			return -1;
		for (; is_digit(*text); text++)
		{
			scale /= 10;
			ms += scale * (*text - '0');
		}
	}
	if (!read_offset(text, &offset))
		return -1;
	return ms + 1000 * (days_to(at[0], at[1], at[2]) * 86400 + at[3] * 3600 +
						at[4] * 60 + at[5] - offset);
}

int64_t
prom_rate_reset_in(const PromRate *rate, int64_t date)
{
	int64_t ms = rate->reset_ms;

	if (ms < 0 && rate->reset_at >= 0)
		ms = rate->reset_at - date * 1000;
	return ms < 0 || ms > LONGEST_RESET ? -1 : ms;
}

static void
take(PromRate *rate, const char *what, const char *value)
{
	if (strcmp(what, "limit") == 0)
		rate->limit = read_count(value);
	else if (strcmp(what, "remaining") == 0)
		rate->remaining = read_count(value);
	else
	{
		rate->reset_ms = prom_rate_read_duration(value);
		rate->reset_at = prom_rate_read_date(value);
	}
}

/* Is a name these two words with a hyphen between them? */
static bool
is_pair(const char *name, const char *first, const char *second)
{
	size_t length = strlen(first);

	return strncasecmp(name, first, length) == 0 && name[length] == '-' &&
		   strcasecmp(name + length + 1, second) == 0;
}

bool
prom_rates_header(PromRate *rates, const char *name, const char *value)
{
	bool is_openai = strncasecmp(name, openai_prefix,
								 sizeof(openai_prefix) - 1) == 0;
	int kind;
	int i;

	if (is_openai)
		name += sizeof(openai_prefix) - 1;
	else if (strncasecmp(name, anthropic_prefix,
						 sizeof(anthropic_prefix) - 1) == 0)
		name += sizeof(anthropic_prefix) - 1;
	else
		return false;
	for (kind = 0; kind < PROM_NRATES; kind++)
		for (i = 0; i < LENGTHOF(whats); i++)
			if (is_openai ? is_pair(name, whats[i], kinds[kind])
						  : is_pair(name, kinds[kind], whats[i]))
				take(&rates[kind], whats[i], value);
	return true;
}
