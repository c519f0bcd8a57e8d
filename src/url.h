/*
 * url.h
 *	  URLs that administrators give.
 */
#ifndef PROM_URL_H
#define PROM_URL_H

/*
 * Why no request could go to this URL, as a sentence that does not quote it;
 * NULL: it can be used.  Query and fragment are not looked at.
 */
extern const char *prom_url_problem(const char *url);

/* What follows the scheme of a URL that can be used: host, port, path. */
extern const char *prom_url_host(const char *url);

#endif
