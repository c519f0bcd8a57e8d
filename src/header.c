/*
 * header.c
 *	  Reads a reply's headers: the few that matter, and those with care.
 *
 * Retry-After is read here and not by libcurl, which rounds fractions, gives
 * negative delays for dates that have passed, and does not know the variants
 * in milliseconds.  What makes no sense is as if it had not been sent.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>

#include "header.h"

#define MAX_RETRY_AFTER (INT64_C(7) * 24 * 60 * 60 * 1000)

/* Headers that name the request, the best first. */
static const char *const request_id_names[] = {
	"x-request-id",
	"request-id",
	"apim-request-id",
};
#define N_REQUEST_ID_NAMES \
	((int) (sizeof(request_id_names) / sizeof(request_id_names[0])))


void
prom_headers_reset(PromHeaders *headers)
{
	memset(headers, 0, sizeof(*headers));
	headers->request_id_rank = 1000;
	headers->keep_alive = -1;
	headers->should_retry = -1;
	headers->retry_after_ms = -1;
	headers->retry_at = -1;
	headers->date = -1;
	prom_rates_reset(headers->rates);
}

int64_t
prom_headers_read_delay(const char *text, int64_t scale)
{
	int64_t value = 0;
	bool digits = false;

	for (; *text >= '0' && *text <= '9'; text++)
	{
		digits = true;
		if (value < MAX_RETRY_AFTER)
			value = value * 10 + (*text - '0');
	}
	if (value > MAX_RETRY_AFTER)
		value = MAX_RETRY_AFTER;
	value *= scale;
	if (*text == '.')
		for (text++; *text >= '0' && *text <= '9'; text++)
		{
			digits = true;
			scale /= 10;
			value += scale * (*text - '0');
		}
	return digits && *text == '\0' ? value : -1;
}

/* The epoch's second a date header means, or -1. */
static int64_t
read_date(const char *text)
{
	time_t at;

	/* Dates begin with a day's name; the parser would take much else. */
	if (!((*text >= 'A' && *text <= 'Z') || (*text >= 'a' && *text <= 'z')))
		return -1;
	at = curl_getdate(text, NULL);
	return at < 0 ? -1 : (int64_t) at;
}

static void
take_request_id(PromHeaders *headers, int rank, const char *value)
{
	const char *c;

	if (rank >= headers->request_id_rank || *value == '\0' ||
		strlen(value) >= sizeof(headers->request_id))
		return;
	for (c = value; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~')
			return;
	memcpy(headers->request_id, value, strlen(value) + 1);
	headers->request_id_rank = rank;
}

static void
take_content_type(PromHeaders *headers, const char *value)
{
	size_t i;

	for (i = 0; i < sizeof(headers->content_type) - 1; i++)
	{
		char c = value[i];

		if (c == '\0' || c == ';' || c == ' ')
			break;
		headers->content_type[i] =
			(char) (c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
	}
	headers->content_type[i] = '\0';
}

static void
take_retry_after(PromHeaders *headers, const char *value)
{
	int64_t ms = prom_headers_read_delay(value, 1000);

	/* retry-after-ms, read before or after, is more exact */
	if (ms >= 0 && headers->retry_after_ms < 0)
		headers->retry_after_ms = ms;
	else if (ms < 0)
		headers->retry_at = read_date(value);
}

/* "timeout=5, max=100", in any order. */
static void
take_keep_alive(PromHeaders *headers, const char *value)
{
	static const char name[] = "timeout=";

	while (*value != '\0')
	{
		if (strncasecmp(value, name, sizeof(name) - 1) == 0)
		{
			int seconds = atoi(value + sizeof(name) - 1);

			if (seconds > 0)
				headers->keep_alive = seconds;
			return;
		}
		value += strcspn(value, ",");
		value += strspn(value, ", \t");
	}
}

static void
take_header(PromHeaders *headers, const char *name, const char *value)
{
	int i;

	if (strcasecmp(name, "content-type") == 0)
		take_content_type(headers, value);
	else if (strcasecmp(name, "retry-after") == 0)
		take_retry_after(headers, value);
	else if (strcasecmp(name, "retry-after-ms") == 0)
	{
		int64_t ms = prom_headers_read_delay(value, 1);

		if (ms >= 0)
			headers->retry_after_ms = ms;
	}
	else if (strcasecmp(name, "x-should-retry") == 0)
	{
		if (strcasecmp(value, "true") == 0)
			headers->should_retry = 1;
		else if (strcasecmp(value, "false") == 0)
			headers->should_retry = 0;
	}
	else if (strcasecmp(name, "keep-alive") == 0)
		take_keep_alive(headers, value);
	else if (strcasecmp(name, "date") == 0)
		headers->date = read_date(value);
	else if (!prom_rates_header(headers->rates, name, value))
		for (i = 0; i < N_REQUEST_ID_NAMES; i++)
			if (strcasecmp(name, request_id_names[i]) == 0)
				take_request_id(headers, i, value);
}

void
prom_headers_line(PromHeaders *headers, const char *line, size_t length)
{
	char copy[512]; /* a longer line is none of those that matter */
	char *colon;
	char *value;

	while (length > 0 && (line[length - 1] == '\n' ||
						  line[length - 1] == '\r' ||
						  line[length - 1] == ' ' ||
						  line[length - 1] == '\t'))
		length--;
	if (length >= sizeof(copy) || memchr(line, '\0', length) != NULL)
		return;
	memcpy(copy, line, length);
	copy[length] = '\0';
	if (strncmp(copy, "HTTP/", 5) == 0)
	{
		value = strchr(copy, ' ');
		prom_headers_reset(headers);
		headers->status = value != NULL ? atoi(value) : 0;
		return;
	}
	colon = strchr(copy, ':');
	if (colon == NULL)
		return;
	*colon = '\0';
	value = colon + 1;
	while (*value == ' ' || *value == '\t')
		value++;
	take_header(headers, copy, value);
}

int64_t
prom_headers_retry_after(const PromHeaders *headers)
{
	int64_t ms = headers->retry_after_ms;

	if (ms < 0 && headers->retry_at >= 0)
	{
		/* The peer's own clock, if it is known: ours may be wrong. */
		int64_t now = headers->date >= 0 ? headers->date
										 : (int64_t) time(NULL);

		ms = headers->retry_at > now ? (headers->retry_at - now) * 1000 : 0;
	}
	return ms > MAX_RETRY_AFTER ? MAX_RETRY_AFTER : ms;
}
