/*
 * model.h
 *	  What the caller must know of a model to send it a request.
 */
#ifndef PROM_MODEL_H
#define PROM_MODEL_H

/* Numbers that an embedding may have. */
#define PROM_MAX_DIMENSIONS 16384

/*
 * One version of a model, as prometheus_set_model() stored it.  Every string
 * is NUL-terminated, in the database's encoding, and lives as long as the
 * structure.
 */
typedef struct PromModel
{
	const char *name;        /* what users call it; these two first: */
	int64 version;           /* see PromVersion */
	const char *api;         /* the format of requests, "function" or "echo" */
	const char *endpoint;    /* base URL, no trailing slash; NULL: none */
	const char *model;       /* the provider's name of it; NULL = name */
	const char *secret;      /* "NAME", "env:NAME" or NULL; never a key */
	const char *handler;     /* of api function: its signature, else NULL */
	const char *hash;        /* of its definition when it was set */
	const char *search_path; /* that the handler runs with, */
	const char *owner;       /* as this role, while name and oid agree */
	Oid owner_oid;
	int max_tokens;          /* -1: not sent */
	int window;              /* tokens of a prompt and its answer; -1: none */
	const char *temperature; /* decimal text, sent as it is; NULL: not sent */
	const char *price_in;    /* decimal, per million tokens; NULL: not known */
	const char *price_out;
	const char *price_cached;  /* of what the provider had; NULL: price_in */
	const char *extra_body;    /* members of each request, an object in UTF-8 */
	bool stream;               /* ask for server-sent events */
	int connect_timeout;       /* ms: name, connection and TLS */
	int first_byte_timeout;    /* ms: request sent until the first byte */
	int idle_timeout;          /* ms: silence between two bytes of the body */
	int total_timeout;         /* ms: the whole request */
	int64 max_reply;           /* bytes of the (decoded) body */
	int max_concurrent;        /* requests at once; 0: no limit */
	int breaker_failures;      /* in a row that close its gate */
	int64 requests_per_minute; /* that may be sent; 0: no limit */
	int64 tokens_per_minute;   /* that they may need; 0: no limit */
	int64 cache;               /* ms that replies are used again; 0: never */
	int nfallbacks;
	const char **fallbacks; /* models to be used instead, in that order */
} PromModel;

#endif
