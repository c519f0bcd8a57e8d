/*
 * url.c
 *	  URLs that administrators give: whether requests can go there.
 *
 * What is found here is told while someone looks at it.  Where a request goes
 * is checked again, after the host's name was resolved (transfer.c).
 */
#include "postgres.h"

#include "url.h"

const char *
prom_url_host(const char *url)
{
	if (pg_strncasecmp(url, "https://", 8) == 0)
		return url + 8;
	if (pg_strncasecmp(url, "http://", 7) == 0)
		return url + 7;
	return NULL;
}

/* Is what follows the host, up to the path, nothing or a port? */
static bool
has_good_port(const char *host)
{
	const char *port = host + strcspn(host, *host == '[' ? "]" : ":/");
	long number;
	char *end;

	if (*port == ']')
		port++;
	if (*port == '/' || *port == '\0')
		return true;
	if (*port != ':' || port[1] < '0' || port[1] > '9')
		return false;
	number = strtol(port + 1, &end, 10);
	return number >= 1 && number <= 65535 && (*end == '/' || *end == '\0');
}

const char *
prom_url_problem(const char *url)
{
	const char *host = prom_url_host(url);

	if (host == NULL)
		return "It must begin with https:// (or http:// at a private address).";
	for (const char *c = url; *c != '\0'; c++)
		if ((unsigned char) *c <= ' ' || *c == 0x7f)
			return "It must not contain blanks or control characters.";
	if (*host == '\0' || *host == '/' || *host == ':')
		return "It has no host.";
	if (strcspn(host, "@") < strcspn(host, "/"))
		return "It must not contain a user name or a password.";
	if (strcspn(host, "/") > strcspn(host, "?#"))
		return NULL;
	if (!has_good_port(host))
		return "Its host may be followed by a port from 1 to 65535 and a path.";
	return NULL;
}
