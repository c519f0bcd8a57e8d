/*
 * retry.c
 *	  Classifies the failures of calls to models.
 *
 * Everything is in the tables; the first row that fits decides.  Words come
 * before numbers where they mean the same with any status: a spent quota is
 * sent as 429, 402, 403 and 400 alike, and waiting does not help.
 */
#include "postgres.h"

#include "retry.h"

typedef struct WordRule
{
	const char *word; /* error.code or error.type */
	PromRetryClass verdict;
} WordRule;

typedef struct StatusRule
{
	int first;
	int last;
	PromRetryClass verdict;
} StatusRule;

typedef struct EndRule
{
	PromHttpEnd end;
	PromRetryClass verdict;
} EndRule;

#define MONEY                                    \
	{                                            \
		"ModelRejected", PROM_RETRY_MONEY, false \
	}
#define WAIT                                       \
	{                                              \
		"ModelUnavailable", PROM_RETRY_WAIT, false \
	}
#define BUSY                                          \
	{                                                 \
		"ModelUnavailable", PROM_RETRY_BACKOFF, false \
	}
#define DOWN                                         \
	{                                                \
		"ModelUnavailable", PROM_RETRY_BACKOFF, true \
	}
#define REJECTED                                 \
	{                                            \
		"ModelRejected", PROM_RETRY_NEVER, false \
	}
#define FILTERED                                 \
	{                                            \
		"ModelFiltered", PROM_RETRY_NEVER, false \
	}
#define MISCONFIGURED                                 \
	{                                                 \
		"ConfigurationError", PROM_RETRY_NEVER, false \
	}
#define UNREADABLE                                   \
	{                                                \
		"ModelUnreadable", PROM_RETRY_BACKOFF, false \
	}

/* Words that decide whatever the status is. */
static const WordRule strong_words[] = {
	{"insufficient_quota", MONEY},
	{"credit_balance_exhausted", MONEY},
	{"organization_spend_limit_exceeded", MONEY},
	{"project_spend_limit_exceeded", MONEY},
	{"organization_usage_limit_exceeded", MONEY},
	{"enforced_spend_limit_reached", MONEY},
	{"billing_hard_limit_reached", MONEY},
	{"billing_not_active", MONEY},
	{"billing_error", MONEY},
	{"exceeded_current_quota_error", MONEY},
	{"content_filter", FILTERED},
	{"content_policy_violation", FILTERED},
};

static const StatusRule statuses[] = {
	{300, 399, MISCONFIGURED}, /* a redirect, which is never followed */
	{401, 401, MISCONFIGURED},
	{402, 402, MONEY},
	{403, 403, MISCONFIGURED},
	{408, 409, BUSY},
	{429, 429, WAIT},
	{400, 499, REJECTED},
	{500, 500, DOWN},
	{502, 504, DOWN},
	{529, 529, DOWN},
	{500, 599, BUSY},
};

/* Words that decide if there is no status: an error within a 200. */
static const WordRule weak_words[] = {
	{"rate_limit_exceeded", WAIT},
	{"rate_limit_error", WAIT},
	{"slow_down", WAIT},
	{"server_error", DOWN},
	{"internal_server_error", DOWN},
	{"InternalServerError", DOWN},
	{"api_error", DOWN},
	{"overloaded_error", DOWN},
	{"server_is_overloaded", DOWN},
	{"unavailable_error", DOWN},
	{"timeout_error", DOWN},
	{"invalid_request_error", REJECTED},
	{"context_length_exceeded", REJECTED},
	{"exceed_context_size_error", REJECTED},
	{"invalid_prompt", REJECTED},
	{"model_not_found", REJECTED},
	{"not_found_error", REJECTED},
	{"BadRequestError", REJECTED},
	{"NotFoundError", REJECTED},
	{"invalid_api_key", MISCONFIGURED},
	{"authentication_error", MISCONFIGURED},
	{"permission_error", MISCONFIGURED},
};

/* No response, or none that is whole.  Each end but RUNNING is here. */
static const EndRule ends[] = {
	{PROM_HTTP_COMPLETE, UNREADABLE},
	{PROM_HTTP_STOPPED, UNREADABLE},
	{PROM_HTTP_INVALID, MISCONFIGURED},
	{PROM_HTTP_FORBIDDEN, MISCONFIGURED},
	{PROM_HTTP_UNRESOLVED, DOWN},
	{PROM_HTTP_UNREACHABLE, DOWN},
	{PROM_HTTP_UNTRUSTED, DOWN},
	{PROM_HTTP_LOST, BUSY},
	{PROM_HTTP_STALE, WAIT}, /* no sign of trouble; the next is a fresh one */
	{PROM_HTTP_CUT, UNREADABLE},
	{PROM_HTTP_GARBLED, UNREADABLE},
	{PROM_HTTP_TOO_LONG, {"ModelUnreadable", PROM_RETRY_NEVER, false}},
	{PROM_HTTP_NO_MEMORY, BUSY},
	{PROM_HTTP_CONNECT_TIMEOUT, {"ModelTimeout", PROM_RETRY_BACKOFF, true}},
	{PROM_HTTP_FIRST_BYTE_TIMEOUT, {"ModelTimeout", PROM_RETRY_BACKOFF, true}},
	{PROM_HTTP_IDLE_TIMEOUT, {"ModelTimeout", PROM_RETRY_BACKOFF, false}},
	{PROM_HTTP_TOTAL_TIMEOUT, {"ModelTimeout", PROM_RETRY_BACKOFF, true}},
	{PROM_HTTP_DEADLINE, {"DeadlineExceeded", PROM_RETRY_NEVER, false}},
};


static const PromRetryClass *
find_word(const WordRule *rules, int count, const PromFailure *failure)
{
	int i;

	for (i = 0; i < count; i++)
		if ((failure->code && strcmp(failure->code, rules[i].word) == 0) ||
			(failure->type && strcmp(failure->type, rules[i].word) == 0))
			return &rules[i].verdict;
	return NULL;
}

static const PromRetryClass *
find_status(int status)
{
	int i;

	for (i = 0; i < lengthof(statuses); i++)
		if (status >= statuses[i].first && status <= statuses[i].last)
			return &statuses[i].verdict;
	return NULL;
}

static const PromRetryClass *
find_end(PromHttpEnd end)
{
	int i;

	for (i = 0; i < lengthof(ends); i++)
		if (ends[i].end == end)
			return &ends[i].verdict;
	return &ends[0].verdict;
}

/* An error inside a response that began well. */
static const PromRetryClass *
find_inner(const PromFailure *failure)
{
	static const PromRetryClass unknown = BUSY;
	const PromRetryClass *verdict =
		find_word(weak_words, lengthof(weak_words), failure);

	if (verdict == NULL && failure->code != NULL)
		verdict = find_status(atoi(failure->code));
	return verdict != NULL ? verdict : &unknown;
}

PromRetryClass
prom_retry_classify(const PromFailure *failure)
{
	const PromRetryClass *found =
		find_word(strong_words, lengthof(strong_words), failure);
	PromRetryClass verdict;

	if (found != NULL)
		return *found;
	if (failure->status >= 300)
		found = find_status(failure->status);
	else if (failure->is_inner)
		found = find_inner(failure);
	if (found == NULL)
		found = find_end(failure->end);
	verdict = *found;
	if (failure->status >= 300)
	{
		/* The peer's own word on retrying is better than our guess. */
		if (failure->should_retry == 1 && verdict.retry == PROM_RETRY_NEVER)
			verdict.retry = PROM_RETRY_BACKOFF;
		if (failure->should_retry == 0 && verdict.retry != PROM_RETRY_MONEY)
			verdict.retry = PROM_RETRY_NEVER;
	}
	if (failure->begun && failure->end == PROM_HTTP_TOTAL_TIMEOUT)
		verdict.counts_for_breaker = false;
	return verdict;
}

const char *
prom_retry_text(PromHttpEnd end)
{
	static const char *const texts[] = {
		[PROM_HTTP_RUNNING] = "call did not end",
		[PROM_HTTP_COMPLETE] = "model server's reply cannot be read",
		[PROM_HTTP_STOPPED] = "model server's reply cannot be read",
		[PROM_HTTP_INVALID] = "model cannot be called",
		[PROM_HTTP_FORBIDDEN] = "model server's address is not allowed",
		[PROM_HTTP_UNRESOLVED] = "could not resolve the model server's name",
		[PROM_HTTP_UNREACHABLE] = "could not connect to the model server",
		[PROM_HTTP_UNTRUSTED] = "could not set up TLS with the model server",
		[PROM_HTTP_LOST] = "model server closed the connection without a reply",
		[PROM_HTTP_STALE] = "model server closed a kept connection without a reply",
		[PROM_HTTP_CUT] = "model server's reply was cut off",
		[PROM_HTTP_GARBLED] = "model server's reply is not HTTP",
		[PROM_HTTP_TOO_LONG] = "model server's reply is longer than max_reply",
		[PROM_HTTP_NO_MEMORY] = "not enough memory for the call",
		[PROM_HTTP_CONNECT_TIMEOUT] = "no connection to the model server within connect_timeout",
		[PROM_HTTP_FIRST_BYTE_TIMEOUT] = "no reply from the model server within first_byte_timeout",
		[PROM_HTTP_IDLE_TIMEOUT] = "model server fell silent for idle_timeout",
		[PROM_HTTP_TOTAL_TIMEOUT] = "no complete reply from the model server within total_timeout",
		[PROM_HTTP_DEADLINE] = "the deadline passed during a call to the model",
	};

	return texts[end];
}
