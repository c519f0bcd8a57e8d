/*
 * transfer.h
 *	  The inside of the HTTP engine, for http.c and transfer.c only.
 */
#ifndef PROM_TRANSFER_H
#define PROM_TRANSFER_H

#include <curl/curl.h>

#include "lib/ilist.h"

#include "http.h"
#include "peer.h"
#include "timer.h"

struct PromHttp
{
	CURLM *multi;
	int epoll_fd;
	int in_flight;
	size_t memory;
	size_t memory_limit;
	bool woken;
	int64 curl_due; /* us; -1: libcurl waits for sockets only */

	dlist_head waiting; /* not yet given to libcurl: lookups are full */
	int resolving;      /* given to it, address not yet known */
	dlist_head ended;   /* done is still to be called */

	PromTimerHeap timers; /* of all requests in flight */
	PromPeer peers[PROM_PEERS];
};

struct PromHttpRequest
{
	PromHttp *http;
	CURL *easy; /* NULL: ended, or never begun */
	struct curl_slist *headers;
	PromHttpSpec spec; /* url and headers are not valid later */
	PromHttpResult result;
	dlist_node link; /* in waiting or ended */
	bool is_listed;  /* in one of them */
	bool is_added;   /* to the multi handle */
	bool is_resolving;
	bool must_renew;     /* its connection is closed, nothing was sent yet */
	bool is_numeric;     /* the host needs no lookup */
	bool is_plain;       /* http, not https */
	int peer;            /* its host's place in the engine's peers */
	const char *refusal; /* of an address of the host, static; or NULL */
	PromHttpEnd why;     /* the reason a callback gave up, or RUNNING */
	size_t header_bytes;
	int64 received; /* bytes of the body */
	size_t given;   /* bytes of the request's body that libcurl took */
	curl_off_t uploaded;

	/* us of prom_transfer_clock(); 0: has not happened */
	int64 started;
	int64 connected;
	int64 upload_moved; /* when the request last got further */
	int64 first_byte;
	int64 last_byte;
	int64 linger_until;

	PromTimer timer;
	char error[CURL_ERROR_SIZE];
};

/* us of a clock that never jumps */
extern int64 prom_transfer_clock(void);

/* When this request expires if nothing more happens, and as what. */
extern int64 prom_transfer_expiry(const PromHttpRequest *request,
								  PromHttpEnd *end);

/* Check the request and make libcurl's handle; false: result.end says why. */
extern bool prom_transfer_prepare(PromHttpRequest *request);

/* What libcurl's verdict on a request means. */
extern PromHttpEnd prom_transfer_end(const PromHttpRequest *request,
									 CURLcode code);

/*
 * The request has ended: close what it has open, which drops the connection
 * if it was under way, and fill in the result.
 */
extern void prom_transfer_finish(PromHttpRequest *request, PromHttpEnd end);
extern void prom_transfer_release(PromHttpRequest *request);

/* Take it from libcurl, to be given to it again for a new connection. */
extern void prom_transfer_renew(PromHttpRequest *request);

#endif
