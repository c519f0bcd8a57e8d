/*
 * endpoint.h
 *	  What an HTTP endpoint that is a tool is sent: a URL and a body.
 */
#ifndef PROM_ENDPOINT_H
#define PROM_ENDPOINT_H

#include "tool.h"

/*
 * Raise unless requests can be made so: a method, in capitals, and a URL whose
 * {placeholders} are required scalar properties of the schema.
 */
extern void prom_endpoint_check(const char *method, const char *url,
								const char *schema);

/* A request as it is sent, in UTF-8 and in the current memory context. */
typedef struct PromEndpointRequest
{
	const char *url;
	const char *body; /* NULL: none */
} PromEndpointRequest;

/*
 * Make the request of a call whose arguments, JSON in UTF-8, fit the tool's
 * schema.  Why it cannot be made, as the end of a sentence that begins with
 * "arguments"; or NULL.
 */
extern const char *prom_endpoint_make(const PromTool *tool,
									  const char *arguments,
									  PromEndpointRequest *request);

/*
 * The same for arguments that a model wrote, in the database's encoding: do
 * they fit, and could the request be made?
 */
extern const char *prom_endpoint_problem(const PromTool *tool,
										 const char *arguments);

#endif
