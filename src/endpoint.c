/*
 * endpoint.c
 *	  Makes of a call's arguments the request to an endpoint that is a tool.
 *
 * A {placeholder} stands in the path or the query of the tool's URL, and what
 * an argument puts there stays there: all but letters, digits and -_~. is
 * percent-encoded, and what a server could take for another path (an empty
 * segment, one that is . or ..) is refused.  What no placeholder has taken is
 * the query string, or the body.
 *
 * Arguments are sent byte by byte as the model wrote them, so that no number is
 * rounded.  Policies judge them as jsonb, which keeps the last member of a
 * name, and others may keep the first: a name that is there twice is refused.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "encoding.h"
#include "endpoint.h"
#include "schema.h"
#include "text.h"
#include "url.h"

/* Bytes of a URL, before and after its placeholders are filled in. */
#define MAX_TEMPLATE 2048
#define MAX_URL 8192

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define NAME LETTERS "0123456789_-"
#define UNRESERVED LETTERS "0123456789-_~."

static bool
is_name(PromSlice key, const char *name, int length)
{
	char *text = prom_json_string(key, NULL);
	bool same = text != NULL && strlen(text) == length &&
				memcmp(text, name, length) == 0;

	free(text);
	return same;
}

/* A member of an object. */
static bool
find_member(PromSlice object, const char *name, int length, PromSlice *value)
{
	size_t position = 0;
	PromSlice key;
	PromSlice found;
	bool is_there = false;

	while (prom_json_next_member(object, &position, &key, &found))
		if (is_name(key, name, length))
		{
			*value = found;
			is_there = true;
		}
	return is_there;
}


/* Checks, when it is set. */

static pg_noreturn void
raise_url(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the url of the tool cannot be used"),
			 errdetail("%s", detail),
			 errhint("A url is such as https://api.example.com/orders/{id}?fields={fields}.")));
	pg_unreachable();
}

static void
check_method(const char *method)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH",
										  "DELETE"};

	if (method == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("an http tool must have a method")));
	for (int i = 0; i < lengthof(methods); i++)
		if (strcmp(methods[i], method) == 0)
			return;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("method \"%s\" cannot be used", method),
					errhint("The methods are GET, POST, PUT, PATCH and DELETE.")));
}

/* Is it an array with this string in it? */
static bool
has_element(PromSlice array, const char *name, int length)
{
	size_t position = 0;
	PromSlice element;

	while (prom_json_next_element(array, &position, &element))
		if (is_name(element, name, length))
			return true;
	return false;
}

/* Must the arguments have this, and is it always a scalar? */
static bool
is_required_scalar(PromSlice schema, const char *name, int length)
{
	PromSlice properties;
	PromSlice property;
	PromSlice required;
	PromSlice type;

	return prom_json_find(schema, "required", &required) &&
		   has_element(required, name, length) &&
		   prom_json_find(schema, "properties", &properties) &&
		   find_member(properties, name, length, &property) &&
		   prom_json_find(property, "type", &type) &&
		   (prom_json_is(type, "string") || prom_json_is(type, "integer") ||
			prom_json_is(type, "number") || prom_json_is(type, "boolean"));
}

static void
check_placeholders(const char *path, PromSlice schema)
{
	const char *c = path;

	for (c = path + strcspn(path, "{}"); *c != '\0'; c += strcspn(c, "{}"))
	{
		int length = strspn(c + 1, NAME);

		if (*c != '{' || length == 0 || c[length + 1] != '}')
			raise_url("A placeholder is the name of an argument in braces: letters, digits, _ and -.");
		if (!is_required_scalar(schema, c + 1, length))
			raise_url(psprintf("The schema must require \"%.*s\", and its type must be string, integer, number or boolean.",
							   length, c + 1));
		c += length + 2;
	}
}

/* Is the segment of a path, or a part of it, . or ..? */
static bool
is_dots(const char *segment, size_t length)
{
	return (length == 1 || length == 2) && segment[0] == '.' &&
		   segment[length - 1] == '.';
}

static bool
has_dots(const char *path, size_t length, const char *separators)
{
	size_t start = 0;

	for (size_t i = 0; i <= length; i++)
		if (i == length || strchr(separators, path[i]) != NULL)
		{
			if (is_dots(path + start, i - start))
				return true;
			start = i + 1;
		}
	return false;
}

void
prom_endpoint_check(const char *method, const char *url, const char *schema)
{
	PromSlice slice;
	PromSlice type;
	const char *problem;
	const char *path;

	check_method(method);
	if (url == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("an http tool must have a url")));
	if (schema == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("an http tool must have a schema"),
						errhint("A schema is such as {\"type\": \"object\", \"properties\": {\"id\": {\"type\": \"integer\"}}, \"required\": [\"id\"]}.")));
	slice.data = schema;
	slice.length = strlen(schema);
	prom_schema_check(DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(schema))));
	if (!prom_json_find(slice, "type", &type) || !prom_json_is(type, "object"))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the schema of a tool must have \"type\": \"object\""),
						errdetail("The arguments of a call are the members of an object.")));
	problem = prom_url_problem(url);
	if (problem != NULL)
		raise_url(problem);
	if (strlen(url) > MAX_TEMPLATE)
		raise_url(psprintf("It may have %d bytes.", MAX_TEMPLATE));
	for (const char *c = url; *c != '\0'; c++)
		if ((unsigned char) *c > '~' || strchr("\"<>\\^`|#", *c) != NULL)
			raise_url("It must have ASCII letters only, without \" < > \\ ^ ` | and #; others are percent-encoded.");
	path = prom_url_host(url);
	path += strcspn(path, "/?{}");
	if (*path != '/')
		raise_url("Its host must be followed by a path, and placeholders may stand in path and query only.");
	if (has_dots(path, strcspn(path, "?"), "/"))
		raise_url("Its path must not have a . or .. in it.");
	check_placeholders(path, slice);
}


/* The request. */

static void
append_encoded(StringInfo out, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] != '\0' && strchr(UNRESERVED, text[i]) != NULL)
			appendStringInfoChar(out, text[i]);
		else
			appendStringInfo(out, "%%%02X", (unsigned char) text[i]);
}

/* A scalar as it stands in a URL, not encoded yet; any other value as JSON. */
static char *
text_of(PromSlice value)
{
	char *text;
	char *copy;

	if (prom_json_kind(value) != '"')
		return pnstrdup(value.data, value.length);
	text = prom_json_string(value, NULL);
	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	copy = pstrdup(text);
	free(text);
	return copy;
}

/* Fill in one placeholder; what speaks against its value, or NULL. */
static const char *
fill(StringInfo url, PromSlice arguments, const char *name, int length,
	 bool in_path)
{
	PromSlice value;
	char *text;

	if (!find_member(arguments, name, length, &value) ||
		strchr("{[n", prom_json_kind(value)) != NULL)
		return psprintf("have no \"%.*s\" that can stand in the URL", length,
						name);
	text = text_of(value);
	if (in_path &&
		(*text == '\0' || has_dots(text, strlen(text), "/\\")))
		return psprintf("have a \"%.*s\" that must not stand in a path",
						length, name);
	append_encoded(url, text, strlen(text));
	return NULL;
}

static const char *
fill_in(StringInfo url, const char *template, PromSlice arguments)
{
	size_t query = strcspn(template, "?");
	const char *c = template;
	const char *path;

	while (*c != '\0')
	{
		int plain = strcspn(c, "{");
		int length;
		const char *problem;

		appendBinaryStringInfo(url, c, plain);
		c += plain;
		if (*c == '\0')
			break;
		length = strcspn(++c, "}");
		problem = fill(url, arguments, c, length, c < template + query);
		if (problem != NULL)
			return problem;
		c += length + 1;
	}
	/* Two placeholders may have made dots together. */
	path = prom_url_host(url->data);
	path += strcspn(path, "/");
	if (has_dots(path, strcspn(path, "?"), "/"))
		return "make a path with . or .. in it";
	return NULL;
}

/* Has a placeholder taken this argument? */
static bool
is_taken(const char *template, const char *name)
{
	const char *found = strchr(template, '{');
	size_t length = strlen(name);

	for (; found != NULL; found = strchr(found + 1, '{'))
		if (strncmp(found + 1, name, length) == 0 && found[length + 1] == '}')
			return true;
	return false;
}

static void
append_parameter(StringInfo url, const char *name, PromSlice value)
{
	char *text;

	if (prom_json_kind(value) == 'n')
		return;
	text = text_of(value);
	appendStringInfoChar(url, strchr(url->data, '?') == NULL ? '?' : '&');
	append_encoded(url, name, strlen(name));
	appendStringInfoChar(url, '=');
	append_encoded(url, text, strlen(text));
	pfree(text);
}

/* An array is a parameter for each of its elements. */
static void
append_parameters(StringInfo url, const char *name, PromSlice value)
{
	size_t position = 0;
	PromSlice element;

	if (prom_json_kind(value) != '[')
		append_parameter(url, name, value);
	else
		while (prom_json_next_element(value, &position, &element))
			append_parameter(url, name, element);
}

static bool
has_body(const PromTool *tool)
{
	return strcmp(tool->method, "GET") != 0 &&
		   strcmp(tool->method, "DELETE") != 0;
}

/* What no placeholder has taken. */
static void
append_others(const PromTool *tool, PromSlice arguments, StringInfo url,
			  StringInfo body)
{
	bool in_body = has_body(tool);
	size_t position = 0;
	PromSlice key;
	PromSlice value;

	while (prom_json_next_member(arguments, &position, &key, &value))
	{
		char *name = text_of(key);

		if (is_taken(tool->url, name))
			continue;
		if (!in_body)
			append_parameters(url, name, value);
		else
		{
			if (body->len > 1)
				appendStringInfoChar(body, ',');
			appendBinaryStringInfo(body, key.data, key.length);
			appendStringInfoChar(body, ':');
			appendBinaryStringInfo(body, value.data, value.length);
		}
		pfree(name);
	}
}

const char *
prom_endpoint_make(const PromTool *tool, const char *arguments,
				   PromEndpointRequest *request)
{
	PromSlice slice = {arguments, strlen(arguments)};
	StringInfoData url;
	StringInfoData body;
	const char *problem;

	initStringInfo(&url);
	problem = fill_in(&url, tool->url, slice);
	if (problem != NULL)
		return problem;
	initStringInfo(&body);
	appendStringInfoChar(&body, '{');
	append_others(tool, slice, &url, &body);
	appendStringInfoChar(&body, '}');
	if (url.len > MAX_URL)
		return psprintf("make a URL that is longer than %d bytes", MAX_URL);
	request->url = url.data;
	request->body = has_body(tool) ? body.data : NULL;
	return NULL;
}

/* Members of all objects of a document, by the colons between them. */
static int
count_members(const char *json)
{
	bool in_string = false;
	int n = 0;

	for (; *json != '\0'; json++)
		if (*json == '"')
			in_string = !in_string;
		else if (*json == '\\' && in_string)
			json++;
		else if (*json == ':' && !in_string)
			n++;
	return n;
}

static int
count_keys(Jsonb *jsonb)
{
	JsonbIterator *iterator = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue value;
	int n = 0;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
		if (token == WJB_KEY)
			n++;
	return n;
}

const char *
prom_endpoint_problem(const PromTool *tool, const char *arguments)
{
	const char *problem = prom_schema_unreadable(arguments);
	PromEndpointRequest request;
	Jsonb *jsonb;

	if (problem != NULL)
		return problem;
	problem = prom_schema_mismatch(
		DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum(tool->schema))),
		arguments);
	if (problem != NULL)
		return problem;
	jsonb = DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(arguments)));
	if (count_members(arguments) != count_keys(jsonb))
		return "have the same member twice";
	return prom_endpoint_make(tool, prom_encoding_to_utf8(arguments), &request);
}
