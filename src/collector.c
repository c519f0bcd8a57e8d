/*
 * collector.c
 *	  Sends one request to an OpenTelemetry Collector, and reads its response.
 *
 * The settings are read for each request, and so are the secrets, which are
 * wiped when it has ended.  What a receiver says is cut to one line without
 * them.
 */
#include "postgres.h"

#include "collector.h"
#include "guc.h"
#include "secret.h"
#include "text.h"

#define CONNECT_TIMEOUT 10000       /* ms */
#define MAX_REPLY (4 * 1024 * 1024) /* bytes; a longer one is refused */
#define MAX_KEPT (64 * 1024)        /* of it that are looked at */
#define MAX_LINE (64 * 1024 + 256)  /* of a header: a secret, and its name */

/* What it sends itself. */
static const char *const own_headers[] = {
	"accept", "accept-encoding", "connection", "content-encoding",
	"content-length", "content-type", "expect", "host", "transfer-encoding",
	"user-agent"};

struct PromPost
{
	PromHttp *http;
	PromHttpRequest *request; /* NULL: never begun */
	char *packed;             /* the body with gzip; NULL: as it is */
	size_t held;              /* bytes charged to the engine */
	int nsecrets;
	char *secrets[PROM_COLLECTOR_HEADERS];
	char *bytes; /* of the response */
	size_t length;
	bool has_ended;
	int64 retry_after;
	PromOtlpReply reply;
};


/* Headers. */

/* One of the list: "NAME=SECRET" with blanks around. */
typedef struct Header
{
	char name[64];
	char secret[72];
} Header;

static bool
copy_part(char *to, size_t size, const char *from, const char *end)
{
	while (from < end && *from == ' ')
		from++;
	while (from < end && end[-1] == ' ')
		end--;
	if (from == end || (size_t) (end - from) >= size)
		return false;
	memcpy(to, from, end - from);
	to[end - from] = '\0';
	return true;
}

static bool
is_header_name(const char *name)
{
	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					 "0123456789-_") != strlen(name))
		return false;
	for (int i = 0; i < lengthof(own_headers); i++)
		if (pg_strcasecmp(name, own_headers[i]) == 0)
			return false;
	return true;
}

/* The next one; *list goes on behind it.  Why it is none, or NULL. */
static const char *
next_header(const char **list, Header *header)
{
	const char *end = *list + strcspn(*list, ",");
	const char *equals = *list + strcspn(*list, "=");

	if (equals >= end ||
		!copy_part(header->name, sizeof(header->name), *list, equals) ||
		!copy_part(header->secret, sizeof(header->secret), equals + 1, end))
		return "It must be a list of NAME=SECRET separated by commas.";
	if (!is_header_name(header->name))
		return "The name of a header has letters, digits and -, and is not one that is sent anyway.";
	if (!prom_secret_check_name(header->secret))
		return "Each header has the name of a secret, a file in prometheus.secrets_dir or env:NAME, never the value itself.";
	*list = *end == '\0' ? end : end + 1;
	return NULL;
}

const char *
prom_collector_headers_problem(const char *list)
{
	Header header;
	int n = 0;

	while (list[strspn(list, " ")] != '\0')
	{
		const char *problem = next_header(&list, &header);

		if (problem != NULL)
			return problem;
		if (++n > PROM_COLLECTOR_HEADERS)
			return "There may be 8 headers.";
	}
	return NULL;
}

/* The lines of all headers, from malloc; false: the reply says why not. */
static bool
make_headers(PromPost *post, char **lines, int *n)
{
	const char *list = prom_guc_otlp_headers == NULL ? ""
													 : prom_guc_otlp_headers;
	Header header;

	while (list[strspn(list, " ")] != '\0' && *n < PROM_COLLECTOR_HEADERS &&
		   next_header(&list, &header) == NULL)
	{
		char *secret = prom_secret_read(header.secret, post->reply.message,
										sizeof(post->reply.message));
		size_t size;

		if (secret == NULL)
			return false;
		post->secrets[post->nsecrets++] = secret;
		size = strlen(header.name) + strlen(secret) + 3;
		lines[*n] = malloc(size);
		if (lines[*n] == NULL)
			return false;
		snprintf(lines[*n], size, "%s: %s", header.name, secret);
		(*n)++;
	}
	return true;
}


/* The end. */

/* No response, or none that is whole. */
static const char *
words_of(PromHttpEnd end)
{
	switch (end)
	{
		case PROM_HTTP_FORBIDDEN:
			return "the receiver's address is not allowed";
		case PROM_HTTP_UNRESOLVED:
			return "the receiver's name could not be resolved";
		case PROM_HTTP_UNTRUSTED:
			return "TLS with the receiver could not be set up";
		case PROM_HTTP_UNREACHABLE:
		case PROM_HTTP_CONNECT_TIMEOUT:
			return "there was no connection to the receiver";
		case PROM_HTTP_FIRST_BYTE_TIMEOUT:
		case PROM_HTTP_IDLE_TIMEOUT:
		case PROM_HTTP_TOTAL_TIMEOUT:
		case PROM_HTTP_DEADLINE:
			return "there was no response within prometheus.otlp_timeout";
		case PROM_HTTP_TOO_LONG:
			return "the response is longer than 4 MB";
		case PROM_HTTP_NO_MEMORY:
			return "there was not enough memory: prometheus.network_memory is used up";
		case PROM_HTTP_INVALID:
			return "prometheus.otlp_endpoint cannot be used";
		case PROM_HTTP_GARBLED:
			return "the response is not HTTP";
		default:
			return "the receiver closed the connection";
	}
}

/* Put before what the receiver said, if anything, what has happened. */
static void
explain(PromPost *post, const char *what, const char *words)
{
	char line[2 * PROM_OTLP_MESSAGE];

	snprintf(line, sizeof(line), "%s%s%s", what,
			 words == NULL || *words == '\0' ? "" : ": ",
			 words == NULL ? "" : words);
	for (int i = 0; i < post->nsecrets; i++)
		prom_secret_redact(line, post->secrets[i]);
	prom_text_one_line(post->reply.message, sizeof(post->reply.message), line,
					   strlen(line));
}

/* All but the reply. */
static void
strip(PromPost *post)
{
	if (post->request != NULL)
		prom_http_free(post->request);
	post->request = NULL;
	prom_http_uncharge(post->http, post->held);
	post->held = 0;
	free(post->packed);
	post->packed = NULL;
	free(post->bytes);
	post->bytes = NULL;
	while (post->nsecrets > 0)
		prom_secret_free(post->secrets[--post->nsecrets]);
}

static void
post_done(void *arg)
{
	PromPost *post = arg;
	const PromHttpResult *result = prom_http_result(post->request);
	PromSlice body = {post->bytes == NULL ? "" : post->bytes, post->length};
	PromOtlpReply reply;
	char what[64];

	prom_otlp_read_reply(result->end, result->headers.status, body, &reply);
	post->reply = reply;
	post->retry_after = prom_headers_retry_after(&result->headers);
	if (reply.verdict == PROM_OTLP_ACCEPTED)
		explain(post, reply.message, NULL);
	else if (result->end == PROM_HTTP_COMPLETE)
	{
		snprintf(what, sizeof(what), "the receiver answered HTTP %d",
				 result->headers.status);
		explain(post, what, reply.message);
	}
	else
		explain(post, words_of(result->end), result->detail);
	strip(post);
	post->has_ended = true;
}

/* It cannot be sent now. */
static void
fail_to_start(PromPost *post)
{
	post->reply.verdict = PROM_OTLP_AGAIN;
	if (post->reply.message[0] == '\0')
		strlcpy(post->reply.message, words_of(PROM_HTTP_NO_MEMORY),
				sizeof(post->reply.message));
	strip(post);
	post->has_ended = true;
	prom_http_wake(post->http);
}


/* Sending. */

/* Inside libcurl.  What is more than is looked at is read, and not kept. */
static bool
take_bytes(void *arg, const char *bytes, size_t length)
{
	PromPost *post = arg;

	length = Min(length, MAX_KEPT - post->length);
	if (post->bytes == NULL)
		post->bytes = malloc(MAX_KEPT);
	if (post->bytes == NULL)
		return false;
	memcpy(post->bytes + post->length, bytes, length);
	post->length += length;
	return true;
}

static void
send_post(PromPost *post, const char *url, char **lines, const char *body,
		  size_t length)
{
	int timeout = prom_guc_otlp_timeout;
	PromHttpSpec spec = {
		.url = url,
		.headers = (const char *const *) lines,
		.body = body,
		.body_length = length,
		.connect_timeout = Min(CONNECT_TIMEOUT, timeout),
		.first_byte_timeout = timeout,
		.idle_timeout = timeout,
		.total_timeout = timeout,
		.deadline = -1,
		.max_reply = MAX_REPLY,
		.take = take_bytes,
		.done = post_done,
		.arg = post,
	};

	if (prom_guc_otlp_compression == PROM_COMPRESSION_GZIP)
	{
		post->packed = prom_otlp_gzip(body, length, &spec.body_length);
		spec.body = post->packed;
	}
	if (spec.body != NULL &&
		prom_http_charge(post->http, spec.body_length + MAX_KEPT))
	{
		post->held = spec.body_length + MAX_KEPT;
		post->request = prom_http_start(post->http, &spec);
	}
	if (post->request == NULL)
		fail_to_start(post);
	else if (prom_http_result(post->request)->end != PROM_HTTP_RUNNING)
	{
		post_done(post);
		prom_http_wake(post->http);
	}
}

PromPost *
prom_post_start(PromHttp *http, const char *path, const char *body,
				size_t length)
{
	PromPost *post = calloc(1, sizeof(PromPost));
	char *lines[PROM_COLLECTOR_HEADERS + 3] = {NULL};
	int n = 0;
	int nown;
	char *url = NULL;
	char *host = NULL;

	if (post == NULL)
		return NULL;
	post->http = http;
	post->retry_after = -1;
	if (make_headers(post, lines, &n) &&
		prom_http_url(prom_guc_otlp_endpoint, path, &url, &host))
	{
		nown = n;
		lines[nown++] = "User-Agent: OTel-OTLP-Exporter-C/" PROM_VERSION;
		if (prom_guc_otlp_compression == PROM_COMPRESSION_GZIP)
			lines[nown++] = "Content-Encoding: gzip";
		send_post(post, url, lines, body, length);
	}
	else
		fail_to_start(post);
	for (int i = 0; i < n; i++)
		prom_secret_free(lines[i]);
	free(url);
	free(host);
	return post;
}

const PromOtlpReply *
prom_post_reply(const PromPost *post)
{
	return post->has_ended ? &post->reply : NULL;
}

int64
prom_post_retry_after(const PromPost *post)
{
	return post->retry_after;
}

void
prom_post_free(PromPost *post)
{
	strip(post);
	free(post);
}
