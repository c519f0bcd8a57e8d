/*
 * http.c
 *	  Runs HTTP requests with libcurl, thousands at a time.
 *
 * All sockets are in one private epoll descriptor, which the process has in
 * its WaitEventSet; libcurl's one timer is a number.  Nothing here waits, and
 * no wake-up costs more than the requests that have something to do.
 *
 * libcurl resolves names in threads, and a thread may be started by almost any
 * call: all signals are blocked around them, so that the thread inherits that
 * and no handler of the server ever runs in it.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "access/xact.h"

#include "guc.h"
#include "transfer.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "libcurl 7.87 or later is needed: before, a lookup can block the process"
#endif

/* Idle connections that are kept, of all hosts. */
#define MAX_CONNECTIONS 4096

/* Lookups at once: each is a thread, and name servers drop floods. */
#define MAX_RESOLVING 8

/* Events handled by one drive, so that the process's loop stays quick. */
#define EVENTS_AT_ONCE 256

#define MAX_WAIT 1000000 /* us, while anything is in flight */


/*
 * Block every signal that a handler could get: threads started until
 * restore_signals() have them blocked for ever.
 */
static void
block_signals(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	sigprocmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	sigprocmask(SIG_SETMASK, saved, NULL);
}


static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	PromHttp *http = arg;
	struct epoll_event event = {0};
	int op = known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (what == CURL_POLL_REMOVE)
	{
		if (known != NULL)
			epoll_ctl(http->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		curl_multi_assign(http->multi, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	event.data.fd = fd;
	if (epoll_ctl(http->epoll_fd, op, fd, &event) != 0 &&
		(errno == EEXIST || errno == ENOENT))
		epoll_ctl(http->epoll_fd,
				  op == EPOLL_CTL_ADD ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd,
				  &event);
	curl_multi_assign(http->multi, fd, http);
	return 0;
}

static int
on_timer(CURLM *multi, long timeout, void *arg)
{
	PromHttp *http = arg;

	http->curl_due = -1;
	if (timeout >= 0)
		http->curl_due = prom_transfer_clock() + (int64) timeout * 1000;
	return 0;
}

/*
 * Thousands of connections need as many descriptors, and the soft limit is
 * often 1024.  The server and libcurl use poll and epoll, which do not mind.
 */
static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_cur < limit.rlim_max)
	{
		limit.rlim_cur = Min(limit.rlim_max, 65536);
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

PromHttp *
prom_http_create(void)
{
	const curl_version_info_data *version;
	PromHttp *http;
	sigset_t saved;
	bool ok;

	block_signals(&saved);
	ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	restore_signals(&saved);
	version = curl_version_info(CURLVERSION_NOW);
	if (!ok || version->version_num < 0x075700 ||
		(version->features & CURL_VERSION_ASYNCHDNS) == 0 ||
		(version->features & CURL_VERSION_SSL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use libcurl %s", version->version),
				 errdetail("It must be 7.87 or later, with TLS and with an asynchronous resolver.")));
	raise_descriptor_limit();
	http = calloc(1, sizeof(PromHttp));
	if (http != NULL)
		http->multi = curl_multi_init();
	if (http == NULL || http->multi == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (http->epoll_fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not create an epoll descriptor: %m")));
	http->memory_limit = (size_t) prom_guc_network_memory * 1024;
	http->curl_due = -1;
	dlist_init(&http->waiting);
	dlist_init(&http->ended);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS,
					  (long) MAX_CONNECTIONS);
	return http;
}

void
prom_http_destroy(PromHttp *http)
{
	sigset_t saved;

	Assert(http->in_flight == 0);
	block_signals(&saved);
	curl_multi_cleanup(http->multi);
	curl_global_cleanup();
	restore_signals(&saved);
	close(http->epoll_fd);
	prom_timer_free(&http->timers);
	free(http);
}

/* Give a request to libcurl; false: it would not take it. */
static bool
add_to_multi(PromHttpRequest *request)
{
	if (curl_multi_add_handle(request->http->multi, request->easy) != CURLM_OK)
		return false;
	request->is_added = true;
	if (!request->is_numeric)
	{
		request->is_resolving = true;
		request->http->resolving++;
	}
	return true;
}

/* Start those that waited for a free lookup. */
static void
add_waiting(PromHttp *http)
{
	while (!dlist_is_empty(&http->waiting) &&
		   http->resolving < MAX_RESOLVING)
	{
		PromHttpRequest *request =
			dlist_container(PromHttpRequest, link,
							dlist_pop_head_node(&http->waiting));

		request->is_listed = false;
		if (!add_to_multi(request))
			prom_transfer_finish(request, PROM_HTTP_NO_MEMORY);
	}
}

/* Let it go, or wait for a free lookup. */
static bool
let_go(PromHttpRequest *request)
{
	PromHttp *http = request->http;

	if (request->is_numeric || http->resolving < MAX_RESOLVING)
		return add_to_multi(request);
	request->is_listed = true;
	dlist_push_tail(&http->waiting, &request->link);
	return true;
}

/* Set a request's timer, and let it go. */
static bool
begin(PromHttpRequest *request)
{
	PromHttpEnd end;

	return prom_timer_add(&request->http->timers, &request->timer,
						  prom_transfer_expiry(request, &end)) &&
		   let_go(request);
}

PromHttpRequest *
prom_http_start(PromHttp *http, const PromHttpSpec *spec)
{
	PromHttpRequest *request = calloc(1, sizeof(PromHttpRequest));
	sigset_t saved;

	if (request == NULL)
		return NULL;
	request->http = http;
	request->spec = *spec;
	request->timer.place = -1;
	request->result.connect_ms = -1;
	request->result.first_byte_ms = -1;
	request->result.detail = request->error;
	prom_headers_reset(&request->result.headers);
	request->started = prom_transfer_clock();
	block_signals(&saved);
	if (prom_transfer_prepare(request) && !begin(request))
		request->result.end = PROM_HTTP_NO_MEMORY;
	if (request->result.end != PROM_HTTP_RUNNING)
		prom_transfer_release(request);
	restore_signals(&saved);
	if (request->result.end == PROM_HTTP_RUNNING)
		http->in_flight++;
	return request;
}

static void
collect_ended(PromHttp *http)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left)) != NULL)
	{
		PromHttpRequest *request = NULL;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
						  (char **) &request);
		if (!request->must_renew)
		{
			prom_transfer_finish(request, prom_transfer_end(request, code));
			continue;
		}
		prom_transfer_renew(request);
		if (!let_go(request))
			prom_transfer_finish(request, PROM_HTTP_NO_MEMORY);
	}
}


/* End what has expired, and put back what only might have. */
static void
expire(PromHttp *http)
{
	int64 now = prom_transfer_clock();
	PromTimer *timer;

	while ((timer = prom_timer_first(&http->timers)) != NULL &&
		   timer->due <= now)
	{
		PromHttpRequest *request =
			(PromHttpRequest *) ((char *) timer -
								 offsetof(PromHttpRequest, timer));
		PromHttpEnd end;
		int64 due = prom_transfer_expiry(request, &end);

		if (due > now)
			prom_timer_move(&http->timers, timer, due);
		else
			prom_transfer_finish(request, end);
	}
}

static void
handle_events(PromHttp *http)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int n = epoll_wait(http->epoll_fd, events, EVENTS_AT_ONCE, 0);
	int running;
	int i;

	for (i = 0; i < n; i++)
	{
		int mask = 0;

		if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			mask |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			mask |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			mask |= CURL_CSELECT_ERR;
		curl_multi_socket_action(http->multi, events[i].data.fd, mask,
								 &running);
	}
}

/* Let libcurl do what is due by its own timer. */
static void
handle_timer(PromHttp *http)
{
	int running;

	if (http->curl_due < 0 || http->curl_due > prom_transfer_clock())
		return;
	http->curl_due = -1;
	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

/* Older versions sometimes do not call on_timer() again. */
static void
refresh_timer(PromHttp *http)
{
	long timeout = -1;

	curl_multi_timeout(http->multi, &timeout);
	on_timer(http->multi, timeout, http);
}

void
prom_http_drive(PromHttp *http)
{
	sigset_t saved;

	/* A snapshot held over the network would hold back vacuum everywhere. */
	Assert(!IsTransactionState());
	http->woken = false;
	block_signals(&saved);
	handle_events(http);
	handle_timer(http);
	collect_ended(http);
	expire(http);
	add_waiting(http);
	refresh_timer(http);
	restore_signals(&saved);
	while (!dlist_is_empty(&http->ended))
	{
		PromHttpRequest *request =
			dlist_container(PromHttpRequest, link,
							dlist_pop_head_node(&http->ended));

		request->is_listed = false;
		request->spec.done(request->spec.arg);
	}
}

long
prom_http_timeout(PromHttp *http)
{
	int64 due = -1;
	int64 now;

	if (http->woken || !dlist_is_empty(&http->ended))
		return 0;
	if (prom_timer_first(&http->timers) != NULL)
		due = prom_timer_first(&http->timers)->due;
	if (http->curl_due >= 0 && (due < 0 || http->curl_due < due))
		due = http->curl_due;
	if (due < 0)
		return -1;
	now = prom_transfer_clock();
	if (due <= now)
		return 0;
	return (long) ((Min(due - now, MAX_WAIT) + 999) / 1000);
}

int
prom_http_fd(const PromHttp *http)
{
	return http->epoll_fd;
}

int
prom_http_in_flight(const PromHttp *http)
{
	return http->in_flight;
}

const PromHttpResult *
prom_http_result(const PromHttpRequest *request)
{
	return &request->result;
}

void
prom_http_wake(PromHttp *http)
{
	http->woken = true;
}

void
prom_http_free(PromHttpRequest *request)
{
	struct curl_slist *header;
	sigset_t saved;

	if (request->result.end == PROM_HTTP_RUNNING)
		request->http->in_flight--;
	block_signals(&saved);
	prom_transfer_release(request);
	restore_signals(&saved);
	for (header = request->headers; header != NULL; header = header->next)
		explicit_bzero(header->data, strlen(header->data));
	curl_slist_free_all(request->headers);
	free(request);
}


/* Memory. */

size_t
prom_http_memory(const PromHttp *http)
{
	return http->memory;
}

void
prom_http_set_memory_limit(PromHttp *http, size_t bytes)
{
	http->memory_limit = bytes;
}

bool
prom_http_charge(PromHttp *http, size_t bytes)
{
	if (bytes > http->memory_limit ||
		http->memory > http->memory_limit - bytes)
		return false;
	http->memory += bytes;
	return true;
}

void
prom_http_uncharge(PromHttp *http, size_t bytes)
{
	Assert(http->memory >= bytes);
	http->memory -= bytes;
}
