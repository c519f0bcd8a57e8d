/*
 * transfer.c
 *	  One HTTP request: its checks, its options, its clocks, its end.
 *
 * No callback raises an error or touches PostgreSQL's memory: they run inside
 * libcurl, which cannot be jumped out of.
 *
 * The clocks are our own: libcurl has none for the first byte, and its
 * granularity for silence is a second.  A request's timer stands at the moment
 * it could expire at the earliest; bytes that move this later do not touch the
 * timer, it is put back when its old moment comes.
 */
#include "postgres.h"

#include <time.h>

#include "address.h"
#include "guc.h"
#include "transfer.h"

#define MAX_CONNECTION_AGE 600 /* s; certificates and addresses change */
#define MAX_HEADER_BYTES (256 * 1024)

/* Milliseconds as microseconds. */
#define US(ms) ((int64) (ms) *1000)


int64
prom_transfer_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Keep the earlier of two expiries. */
static void
earlier(int64 *due, PromHttpEnd *end, int64 other, PromHttpEnd other_end)
{
	if (other < *due)
	{
		*due = other;
		*end = other_end;
	}
}

int64
prom_transfer_expiry(const PromHttpRequest *request, PromHttpEnd *end)
{
	const PromHttpSpec *spec = &request->spec;
	int64 first_byte = request->upload_moved + US(spec->first_byte_timeout);
	int64 silence = request->last_byte + US(spec->idle_timeout);
	int64 due = request->started + US(spec->total_timeout);

	*end = PROM_HTTP_TOTAL_TIMEOUT;
	if (spec->deadline >= 0)
		earlier(&due, end, request->started + US(spec->deadline),
				PROM_HTTP_DEADLINE);
	if (request->linger_until > 0)
		earlier(&due, end, request->linger_until, PROM_HTTP_STOPPED);
	if (request->connected == 0)
		earlier(&due, end, request->started + US(spec->connect_timeout),
				PROM_HTTP_CONNECT_TIMEOUT);
	else if (request->first_byte == 0)
		earlier(&due, end, first_byte, PROM_HTTP_FIRST_BYTE_TIMEOUT);
	else if (request->received == 0)
		/* Some servers send headers at once and think afterwards. */
		earlier(&due, end, Max(first_byte, silence), PROM_HTTP_IDLE_TIMEOUT);
	else
		earlier(&due, end, silence, PROM_HTTP_IDLE_TIMEOUT);
	return due;
}

/* Something happened: the expiry may have come nearer. */
static void
reschedule(PromHttpRequest *request)
{
	PromHttpEnd end;
	int64 due = prom_transfer_expiry(request, &end);

	if (request->timer.place >= 0 && due < request->timer.due)
		prom_timer_move(&request->http->timers, &request->timer, due);
}

/* The address of this request is known: another lookup may begin. */
static void
leave_resolving(PromHttpRequest *request)
{
	if (!request->is_resolving)
		return;
	request->is_resolving = false;
	request->http->resolving--;
}

/* Plain http is never for the internet, private addresses only if allowed. */
static bool
is_allowed(PromHttpRequest *request, bool is_public)
{
	if (is_public ? !request->is_plain : prom_guc_allow_private_endpoints)
		return true;
	request->refusal = is_public
						   ? "http is for private addresses only"
						   : "private ones need prometheus.allow_private_endpoints";
	return false;
}

/*
 * When a warm connection turns out to be closed, libcurl sends the request
 * anew, on another warm one or a new one.  True: the peer may have had the
 * body, so it must not.
 */
static bool
refuse_to_resend(PromHttpRequest *request)
{
	if (request->given == 0)
		return false;
	request->why = PROM_HTTP_STALE;

	/* Of what libcurl took, no one knows here how much has left. */
	request->result.sent = request->given == request->spec.body_length;
	return true;
}

/* A new connection: sees every address, before anything is sent to it. */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	PromHttpRequest *request = arg;
	int fd;

	leave_resolving(request);
	if (refuse_to_resend(request))
		return CURL_SOCKET_BAD;
	if (!is_allowed(request, prom_address_is_public(&address->addr)))
		return CURL_SOCKET_BAD;
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
				address->protocol);

	/* That we are out of descriptors is not the peer's fault. */
	if (fd < 0 && errno != EAFNOSUPPORT)
		request->why = PROM_HTTP_NO_MEMORY;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* Has it a connection from before? */
static bool
is_reused(const PromHttpRequest *request)
{
	long connects = 1;

	curl_easy_getinfo(request->easy, CURLINFO_NUM_CONNECTS, &connects);
	return connects == 0;
}

/* Was it sent on one? */
static bool
is_warm(const PromHttpRequest *request)
{
	return request->connected > 0 && is_reused(request);
}

/*
 * Has the peer closed the connection, or said something unasked?  Newer
 * versions of libcurl do not look if it was used within the last second.
 */
static bool
is_closed(const PromHttpRequest *request)
{
	curl_socket_t fd = CURL_SOCKET_BAD;
	char byte;

	if (curl_easy_getinfo(request->easy, CURLINFO_ACTIVESOCKET, &fd) !=
			CURLE_OK ||
		fd == CURL_SOCKET_BAD)
		return false;
	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
		   (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* Before each request, also on a connection from before. */
static int
on_request(void *arg, char *remote_ip, char *local_ip, int remote_port,
		   int local_port)
{
	PromHttpRequest *request = arg;

	leave_resolving(request);
	if (!is_allowed(request, prom_address_text_is_public(remote_ip)))
	{
		request->why = PROM_HTTP_FORBIDDEN;
		return CURL_PREREQFUNC_ABORT;
	}
	request->why = PROM_HTTP_RUNNING; /* another address worked */
	request->must_renew = is_reused(request) && is_closed(request);
	if (request->must_renew)
		return CURL_PREREQFUNC_ABORT;

	/* Again if a warm connection was closed before it took the body. */
	request->connected = request->upload_moved = prom_transfer_clock();
	request->given = 0;
	request->uploaded = 0;
	request->result.sent = false;
	reschedule(request);
	return CURL_PREREQFUNC_OK;
}

/* The request's body.  Were libcurl to hold all of it, it could resend it. */
static size_t
on_read(char *bytes, size_t size, size_t count, void *arg)
{
	PromHttpRequest *request = arg;
	size_t length = Min(size * count,
						request->spec.body_length - request->given);

	memcpy(bytes, request->spec.body + request->given, length);
	request->given += length;
	return length;
}

/* libcurl wants to send the body again. */
static int
on_seek(void *arg, curl_off_t offset, int origin)
{
	return refuse_to_resend(arg) ? CURL_SEEKFUNC_FAIL : CURL_SEEKFUNC_OK;
}

/* The only way to learn that the request has left. */
static int
on_progress(void *arg, curl_off_t down_total, curl_off_t down,
			curl_off_t up_total, curl_off_t up)
{
	PromHttpRequest *request = arg;

	if (up <= request->uploaded)
		return 0;
	request->uploaded = up;
	request->upload_moved = prom_transfer_clock();
	if (up >= (curl_off_t) request->spec.body_length)
		request->result.sent = true;
	return 0;
}

static void
note_bytes(PromHttpRequest *request)
{
	request->last_byte = prom_transfer_clock();
	if (request->first_byte == 0)
		request->first_byte = request->last_byte;
}

static size_t
on_header(char *line, size_t size, size_t count, void *arg)
{
	PromHttpRequest *request = arg;
	size_t length = size * count;

	note_bytes(request);
	request->header_bytes += length;
	if (request->header_bytes > MAX_HEADER_BYTES)
	{
		request->why = PROM_HTTP_TOO_LONG;
		return 0;
	}
	/* After the body there are only trailers. */
	if (request->received == 0)
	{
		PromHeaders *headers = &request->result.headers;

		prom_headers_line(headers, line, length);
		if ((*line == '\r' || *line == '\n') && headers->status >= 200 &&
			request->spec.headed != NULL)
			request->spec.headed(request->spec.arg, headers);
	}
	reschedule(request);
	return length;
}

static size_t
on_body(char *bytes, size_t size, size_t count, void *arg)
{
	PromHttpRequest *request = arg;
	size_t length = size * count;

	note_bytes(request);
	request->received += (int64) length;
	if (request->received > request->spec.max_reply)
	{
		request->why = PROM_HTTP_TOO_LONG;
		return CURL_WRITEFUNC_ERROR;
	}
	if (!request->spec.take(request->spec.arg, bytes, length))
	{
		request->why = PROM_HTTP_STOPPED;
		return CURL_WRITEFUNC_ERROR;
	}
	reschedule(request);
	return length;
}


/* Find out of the URL what the checks need; false: it cannot be used. */
static bool
check_url(PromHttpRequest *request)
{
	CURLU *url = curl_url();
	char *scheme = NULL;
	char *host = NULL;
	char *port = NULL;
	char *user = NULL;
	const char *problem = NULL;

	if (url == NULL ||
		curl_url_set(url, CURLUPART_URL, request->spec.url, 0) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) !=
			CURLUE_OK)
		problem = "the endpoint is not a URL";
	else if (curl_url_get(url, CURLUPART_USER, &user, 0) == CURLUE_OK)
		problem = "the endpoint has a user in it";
	else
	{
		request->is_plain = strcmp(scheme, "http") == 0;
		request->is_numeric = prom_address_is_numeric(host);
		request->peer = prom_peer_place(host, port);
		if (!request->is_plain && strcmp(scheme, "https") != 0)
			problem = "the endpoint must begin with https://";
		else if (request->is_plain && !prom_guc_allow_private_endpoints)
			problem = "http is for private addresses only, and these need prometheus.allow_private_endpoints";
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(user);
	curl_url_cleanup(url);
	if (problem != NULL)
		strlcpy(request->error, problem, sizeof(request->error));
	return problem == NULL;
}

static bool
add_header(PromHttpRequest *request, const char *header)
{
	struct curl_slist *list;

	/* libcurl would send a line break as it is: another header. */
	if (strpbrk(header, "\r\n") != NULL)
	{
		strlcpy(request->error, "a header has a line break",
				sizeof(request->error));
		return false;
	}
	list = curl_slist_append(request->headers, header);
	if (list == NULL)
		return false;
	request->headers = list;
	return true;
}

static bool
set_headers(PromHttpRequest *request)
{
	const PromHttpSpec *spec = &request->spec;
	const char *const *header;
	const char *accept = spec->accept;

	if (accept == NULL)
		accept = spec->stream ? "Accept: text/event-stream"
							  : "Accept: application/json";
	if ((spec->body != NULL &&
		 !add_header(request, "Content-Type: application/json")) ||
		!add_header(request, accept) ||
		!add_header(request, "Expect:")) /* else bodies over 1 MB stall */
		return false;
	for (header = request->spec.headers; *header != NULL; header++)
		if (!add_header(request, *header))
			return false;
	return true;
}

/* What every request has alike, and what keeps it from doing anything else. */
static void
set_common_options(CURL *easy, const PromHttpRequest *request)
{
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);

	/* Else dropping a request would wait for its lookup. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
					 request->is_plain ? "http" : "https");
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);

	/*
	 * Requests are few and long: with HTTP/2 one dead connection would kill
	 * many of them, and a request could not be dropped by closing it.
	 */
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 15L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "prometheus/" PROM_VERSION);

	/* A stream is not asked for compressed, but understood if it is. */
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING,
					 request->spec.stream ? "identity" : "gzip");
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 16384L);

	/* Makes it go on to a host's next address in time. */
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
					 (long) request->spec.connect_timeout);
}

/* Which of the connections that are open it may use. */
static void
set_reuse(CURL *easy, const PromHttpRequest *request)
{
	const PromPeer *peer = &request->http->peers[request->peer];
	long age = prom_peer_max_age(peer, request->started, MAX_CONNECTION_AGE);

	if (age == 0 || request->spec.fresh)
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, age);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, prom_peer_max_idle(peer));
}

/* The method, and the body if there is one. */
static void
set_method(CURL *easy, PromHttpRequest *request)
{
	const PromHttpSpec *spec = &request->spec;

	if (spec->body != NULL)
	{
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
						 (curl_off_t) spec->body_length);
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(easy, CURLOPT_READDATA, request);
		curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(easy, CURLOPT_SEEKDATA, request);
	}
	else
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	if (spec->method != NULL)
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, spec->method);
}

static bool
set_options(PromHttpRequest *request)
{
	CURL *easy = curl_easy_init();

	request->easy = easy;
	if (easy == NULL)
		return false;
	set_common_options(easy, request);
	set_reuse(easy, request);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
	set_method(easy, request);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(easy, CURLOPT_XFERINFODATA, request);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, request);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, request);
	return curl_easy_setopt(easy, CURLOPT_URL, request->spec.url) == CURLE_OK;
}

bool
prom_transfer_prepare(PromHttpRequest *request)
{
	if (!check_url(request) || !set_headers(request))
	{
		request->result.end = PROM_HTTP_INVALID;
		return false;
	}
	if (!set_options(request))
	{
		request->result.end = PROM_HTTP_NO_MEMORY;
		return false;
	}
	return true;
}


bool
prom_http_url(const char *base, const char *path, char **url, char **host)
{
	CURLU *parsed = curl_url();
	char *old_path = NULL;
	char *new_path = NULL;
	char *text = NULL;
	char *name = NULL;
	bool ok;

	*url = *host = NULL;
	ok = parsed != NULL &&
		 curl_url_set(parsed, CURLUPART_URL, base, 0) == CURLUE_OK &&
		 curl_url_get(parsed, CURLUPART_PATH, &old_path, 0) == CURLUE_OK;
	if (ok)
	{
		size_t length = strlen(old_path);
		size_t path_length = strcspn(path, "?");

		while (length > 0 && old_path[length - 1] == '/')
			length--;
		new_path = malloc(length + path_length + 1);
		if (new_path != NULL)
		{
			memcpy(new_path, old_path, length);
			memcpy(new_path + length, path, path_length);
			new_path[length + path_length] = '\0';
		}
		ok = new_path != NULL &&
			 curl_url_set(parsed, CURLUPART_PATH, new_path, 0) == CURLUE_OK &&
			 (path[path_length] == '\0' ||
			  curl_url_set(parsed, CURLUPART_QUERY, path + path_length + 1,
						   CURLU_APPENDQUERY) == CURLUE_OK) &&
			 curl_url_get(parsed, CURLUPART_URL, &text, 0) == CURLUE_OK &&
			 curl_url_get(parsed, CURLUPART_HOST, &name, 0) == CURLUE_OK;
	}
	if (ok)
	{
		*url = strdup(text);
		*host = strdup(name);
	}
	free(new_path);
	curl_free(old_path);
	curl_free(text);
	curl_free(name);
	curl_url_cleanup(parsed);
	return *url != NULL && *host != NULL;
}

void
prom_transfer_renew(PromHttpRequest *request)
{
	curl_multi_remove_handle(request->http->multi, request->easy);
	curl_easy_setopt(request->easy, CURLOPT_FRESH_CONNECT, 1L);
	request->is_added = request->must_renew = false;
	request->error[0] = '\0'; /* libcurl's words for our refusal */
}

void
prom_transfer_release(PromHttpRequest *request)
{
	PromHttp *http = request->http;

	prom_timer_remove(&http->timers, &request->timer);
	leave_resolving(request);
	if (request->is_listed)
		dlist_delete(&request->link);
	request->is_listed = false;
	if (request->is_added)
		curl_multi_remove_handle(http->multi, request->easy);
	request->is_added = false;
	if (request->easy != NULL)
		curl_easy_cleanup(request->easy);
	request->easy = NULL;
}

static void
fill_times(PromHttpRequest *request)
{
	PromHttpResult *result = &request->result;

	result->total_ms = (prom_transfer_clock() - request->started) / 1000.0;
	if (request->connected > 0)
	{
		result->connect_ms = 0;
		if (!is_warm(request))
			result->connect_ms =
				(request->connected - request->started) / 1000.0;
	}
	if (request->first_byte > 0)
		result->first_byte_ms =
			(request->first_byte - request->started) / 1000.0;
}

/* What this request tells about its host's connections. */
static void
note_peer(const PromHttpRequest *request, PromHttpEnd end)
{
	PromPeer *peer = &request->http->peers[request->peer];

	if (end == PROM_HTTP_STALE)
		peer->stale_at = prom_transfer_clock();
	if (request->result.headers.status != 0)
		peer->keep_alive = request->result.headers.keep_alive;
}

void
prom_transfer_finish(PromHttpRequest *request, PromHttpEnd end)
{
	PromHttp *http = request->http;
	curl_off_t uploaded = 0;

	if (request->connected > 0 &&
		curl_easy_getinfo(request->easy, CURLINFO_SIZE_UPLOAD_T,
						  &uploaded) == CURLE_OK &&
		uploaded >= (curl_off_t) request->spec.body_length)
		request->result.sent = true;
	if (end == PROM_HTTP_STALE)
		request->error[0] = '\0'; /* libcurl's words for our refusal */
	else if (end == PROM_HTTP_FORBIDDEN && request->refusal != NULL)
		request->result.detail = request->refusal;
	fill_times(request);
	note_peer(request, end);
	prom_transfer_release(request);
	request->result.end = end;
	http->in_flight--;
	dlist_push_tail(&http->ended, &request->link);
	request->is_listed = true;
}

/* An error of libcurl while the connection was made or lost. */
static PromHttpEnd
connection_end(const PromHttpRequest *request, CURLcode code)
{
	switch (code)
	{
		case CURLE_COULDNT_RESOLVE_HOST:
			return PROM_HTTP_UNRESOLVED;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
			return PROM_HTTP_UNTRUSTED;
		case CURLE_GOT_NOTHING:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
			if (request->first_byte > 0)
				return PROM_HTTP_CUT;
			if (request->connected == 0)
				return PROM_HTTP_UNREACHABLE;
			return is_warm(request) ? PROM_HTTP_STALE : PROM_HTTP_LOST;
		case CURLE_OPERATION_TIMEDOUT:
			return request->connected > 0 ? PROM_HTTP_TOTAL_TIMEOUT
										  : PROM_HTTP_CONNECT_TIMEOUT;
		default:
			if (request->first_byte > 0)
				return PROM_HTTP_GARBLED;
			return request->refusal != NULL ? PROM_HTTP_FORBIDDEN
											: PROM_HTTP_UNREACHABLE;
	}
}

PromHttpEnd
prom_transfer_end(const PromHttpRequest *request, CURLcode code)
{
	if (request->why != PROM_HTTP_RUNNING)
		return request->why;
	switch (code)
	{
		case CURLE_OK:
			return PROM_HTTP_COMPLETE;
		case CURLE_PARTIAL_FILE:
			return PROM_HTTP_CUT;
		case CURLE_OUT_OF_MEMORY:
			return PROM_HTTP_NO_MEMORY;
		case CURLE_URL_MALFORMAT:
			return PROM_HTTP_INVALID;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_WRITE_ERROR:
			return PROM_HTTP_GARBLED;
		default:
			return connection_end(request, code);
	}
}

void
prom_http_linger(PromHttpRequest *request, int ms)
{
	request->linger_until = prom_transfer_clock() + US(ms);
	reschedule(request);
}
