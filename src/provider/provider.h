/*
 * provider.h
 *	  What a provider's format must be able to do; one structure for each.
 *
 * Reading happens inside libcurl's callbacks and in loops that must not lose
 * memory: it raises nothing, and all memory is from malloc.  Only the building
 * of a request uses PostgreSQL's.
 */
#ifndef PROM_PROVIDER_H
#define PROM_PROVIDER_H

#include "lib/stringinfo.h"

#include "llm.h"
#include "model.h"
#include "text.h"
#include "toolcall.h"

/* Why a reply is no turn, if it is none. */
typedef enum PromTurnProblem
{
	PROM_TURN_FINE,
	PROM_TURN_UNREADABLE,
	PROM_TURN_TOO_LONG,
	PROM_TURN_NO_MEMORY
} PromTurnProblem;

/* What a reply says, neutrally.  Strings are malloc'd, clean, or NULL. */
typedef struct PromTurn
{
	PromTurnProblem problem;
	const char *why; /* the problem in words, static */

	bool is_error; /* the reply is an error, and the next three say which */
	char *code;
	char *type;
	char *message;
	int64 retry_after; /* ms that the error asks for, -1: it does not */

	char *finish_reason; /* NULL: the turn did not come to its end */
	char *raw;           /* the turn as it was sent */
	char *answer;
	char *refusal;
	int ncalls; /* tool calls that it asks for */

	/* Of texts that were to be embedded: a row for each, malloc'd. */
	float *vectors;
	int nvectors;
	int dimensions;

	int64 tokens_in; /* -1: not reported */
	int64 tokens_out;
	int64 cached_tokens;
	int64 reasoning_tokens; /* a part of tokens_out */
} PromTurn;

typedef struct PromProvider
{
	const char *api;

	/* Write what is appended to the endpoint for this model, in UTF-8. */
	void (*add_path)(StringInfo path, const char *model, bool stream);

	/* Header lines that each request has, up to a NULL; NULL: none. */
	const char *const *headers;

	/* The start of the header that carries the key to this host. */
	const char *(*key_header)(const char *host);

	/* Write the request's body; host decides between names of one field. */
	void (*build)(StringInfo body, const PromModel *model, const char *host,
				  const PromPrompt *prompt);

	/*
	 * Paths of the members that it writes, up to a NULL, and the one that it
	 * shares with the model's extra_body; NULL: none.
	 */
	const char *const *members;
	const char *shared;

	/* Read the whole body of a good response, or of an error. */
	void (*read_body)(PromTurn *turn, PromSlice body);
	void (*read_error)(PromTurn *turn, PromSlice body);

	/* Begin to read a stream; NULL if memory is missing. */
	void *(*open_stream)(void);

	/* Read one event of it; false: no more need come. */
	bool (*read_event)(void *stream, PromSlice data);

	/* Give the texts that an event, which could be read, adds to the answer. */
	void (*event_text)(PromSlice data, PromHear hear, void *owner);

	/* Bytes it holds, and whether its own end mark has come. */
	size_t (*stream_memory)(const void *stream);
	bool (*stream_is_done)(const void *stream);

	/* Give out what it says, and free it. */
	void (*read_stream)(void *stream, PromTurn *turn);
	void (*free_stream)(void *stream);

	/* The canonical word for a reason to finish: end, tool, length, ... */
	const char *(*finish)(const char *finish_reason);

	/*
	 * Does a turn that calls tools, as it was stored, have this form?  And
	 * its calls, in order, in PostgreSQL's memory.
	 */
	bool (*is_turn)(PromSlice turn);
	void (*read_calls)(PromToolCalls *calls, PromSlice turn);
} PromProvider;

/* The provider of an api, or NULL. */
extern const PromProvider *prom_provider_find(const char *api);

/* What a prompt is sent in to a model; NULL: its api has nothing for that. */
extern const PromProvider *prom_provider_for(const PromModel *model,
											 const PromPrompt *prompt);

/* The one whose form a turn has that calls tools. */
extern const PromProvider *prom_provider_of_turn(PromSlice turn);

/*
 * The address of a model's requests and its host, malloc'd; false: there is no
 * endpoint, or it is no address.
 */
extern bool prom_provider_url(const PromProvider *provider,
							  const PromModel *model, const char *name,
							  char **url, char **host);

/* May a turn be sent as it came?  Else as what was read of it. */
extern bool prom_provider_takes_raw(const PromProvider *provider,
									const PromMessage *message);

/* Is there nothing to see in a text? */
extern bool prom_provider_is_blank(const char *text);

/* Append the name of a tool that was called, as every server takes it. */
extern void prom_provider_add_name(StringInfo body, const char *name);

/*
 * Append what the model's extra_body adds to a request: the member that the
 * provider shares, with its own members if there are any (each after a comma,
 * palloc'd, and freed here), and all others.
 */
extern void prom_provider_add_extra(StringInfo body,
									const PromProvider *provider,
									const PromModel *model, char *own);

/* Append the messages as an array in the form of chat completions, */
extern void prom_provider_add_messages(StringInfo body,
									   const PromPrompt *prompt);

/* the calls of a turn as an array in that form, */
extern void prom_provider_add_calls(StringInfo body, const PromToolCall *calls,
									int n);

/* and the tools as a member of the request, if there are any. */
extern void prom_provider_add_tools(StringInfo body, const PromPrompt *prompt);

/* Append what every format says of a tool: "name", and "description". */
extern void prom_provider_add_offer(StringInfo body,
									const PromToolOffer *tool);

/*
 * Append the body that prom_llm_start() sends; of echo, which is sent nothing,
 * the messages that it has.  Never a key: keys are only in headers.
 */
extern void prom_provider_build(StringInfo body, const PromModel *model,
								const PromPrompt *prompt);

/* What is against a turn that came to its end, and what becomes of it. */
typedef struct PromObjection
{
	const char *error_type; /* NULL: it is unreadable, */
	PromRetry retry;
	const char *what;
	const char *words; /* the provider's own, or NULL */
} PromObjection;

/*
 * False: it is an answer, or calls tools, which were offered.  finish is our
 * word for why it ended.
 */
extern bool prom_turn_objection(const PromTurn *turn, const char *finish,
								bool offered, PromObjection *objection);

extern void prom_turn_init(PromTurn *turn);
extern void prom_turn_clear(PromTurn *turn);
extern void prom_turn_set_problem(PromTurn *turn, PromTurnProblem problem,
								  const char *why);

/* The header of a key at OpenAI, and at Azure. */
extern const char *prom_provider_openai_key_header(const char *host);

/*
 * How many numbers a model's embeddings must have, by its extra_body; 0: any.
 * And are those that were read of so many texts, and as long?  Else that is the
 * turn's problem.
 */
extern int prom_embeddings_dimensions(const PromModel *model);
extern void prom_embeddings_check(PromTurn *turn, int texts, int dimensions);

/* Not found by an api: what a prompt is sent in that has texts to embed. */
extern const PromProvider prom_provider_embeddings;

extern const PromProvider prom_provider_anthropic;
extern const PromProvider prom_provider_gemini;
extern const PromProvider prom_provider_openai;
extern const PromProvider prom_provider_responses;

#endif
