/*
 * sse.c
 *	  Parses server-sent events.
 *
 * Lines end in \n, \r\n or \r, wherever the network cut them; a line that
 * arrives whole is not copied.  The HTML standard drops an event that the end
 * of the stream cuts off; here it counts, because some servers omit the last
 * blank line, and a cut piece of JSON is found to be one by its reader.
 */
#include <stdlib.h>
#include <string.h>

#include "sse.h"


bool
prom_sse_looks_like(const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (strchr(" \t\r\n", bytes[i]) == NULL)
			return strchr(":die", bytes[i]) != NULL;
	return false;
}

void
prom_sse_init(PromSse *sse, PromSseHandler handler, void *arg)
{
	memset(sse, 0, sizeof(*sse));
	sse->handler = handler;
	sse->arg = arg;
	sse->state = PROM_SSE_OK;
	sse->first_line = true;
}

size_t
prom_sse_memory(const PromSse *sse)
{
	return sse->line.size + sse->data.size;
}

void
prom_sse_free(PromSse *sse)
{
	free(sse->line.data);
	free(sse->data.data);
	memset(&sse->line, 0, sizeof(sse->line));
	memset(&sse->data, 0, sizeof(sse->data));
}

/* Append to a buffer that may become max bytes long. */
static bool
append(PromSse *sse, PromSseBuffer *buffer, const char *bytes, size_t length,
	   size_t max)
{
	size_t need = buffer->length + length + 1;

	if (need > max)
	{
		sse->state = PROM_SSE_TOO_LONG;
		return false;
	}
	if (need > buffer->size)
	{
		size_t size = buffer->size ? buffer->size * 2 : 256;
		char *data;

		if (size < need)
			size = need;
		if (size > max)
			size = max;
		data = realloc(buffer->data, size);
		if (data == NULL)
		{
			sse->state = PROM_SSE_NO_MEMORY;
			return false;
		}
		buffer->data = data;
		buffer->size = size;
	}
	memcpy(buffer->data + buffer->length, bytes, length);
	buffer->length += length;
	return true;
}

/* A blank line: hand over the event, if there is one, and start the next. */
static bool
dispatch(PromSse *sse)
{
	bool more = true;

	if (sse->has_data)
	{
		sse->data.data[sse->data.length - 1] = '\0';
		more = sse->handler(sse->arg, sse->name, sse->data.data,
							sse->data.length - 1);
	}
	sse->data.length = 0;
	sse->has_data = false;
	sse->name[0] = '\0';
	if (!more)
		sse->state = PROM_SSE_STOPPED;
	return more;
}

static void
set_name(PromSse *sse, const char *value, size_t length)
{
	if (length >= sizeof(sse->name))
		length = sizeof(sse->name) - 1;
	memcpy(sse->name, value, length);
	sse->name[length] = '\0';
}

static bool
take_line(PromSse *sse, const char *line, size_t length)
{
	const char *colon;
	const char *value;
	size_t field_length;
	size_t value_length;

	if (sse->first_line)
	{
		sse->first_line = false;
		if (length >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0)
		{
			line += 3;
			length -= 3;
		}
	}
	if (length == 0)
		return dispatch(sse);
	colon = memchr(line, ':', length);
	field_length = colon ? (size_t) (colon - line) : length;
	value = colon ? colon + 1 : line + length;
	value_length = (size_t) (line + length - value);
	if (value_length > 0 && *value == ' ')
	{
		value++;
		value_length--;
	}
	if (field_length == 5 && memcmp(line, "event", 5) == 0)
		set_name(sse, value, value_length);
	else if (field_length == 4 && memcmp(line, "data", 4) == 0)
	{
		sse->has_data = true;
		return append(sse, &sse->data, value, value_length,
					  PROM_SSE_MAX_EVENT) &&
			   append(sse, &sse->data, "\n", 1, PROM_SSE_MAX_EVENT);
	}
	return true;
}

/* The end of a line was found after these bytes. */
static bool
end_line(PromSse *sse, const char *bytes, size_t length)
{
	bool more;

	if (sse->line.length == 0)
	{
		if (length > PROM_SSE_MAX_LINE)
		{
			sse->state = PROM_SSE_TOO_LONG;
			return false;
		}
		return take_line(sse, bytes, length);
	}
	if (!append(sse, &sse->line, bytes, length, PROM_SSE_MAX_LINE))
		return false;
	more = take_line(sse, sse->line.data, sse->line.length);
	sse->line.length = 0;
	return more;
}

PromSseState
prom_sse_feed(PromSse *sse, const char *bytes, size_t length)
{
	const char *end = bytes + length;
	const char *start = bytes;
	const char *at;

	if (sse->state != PROM_SSE_OK || length == 0)
		return sse->state;
	if (sse->after_cr && *start == '\n')
		start++;
	sse->after_cr = false;
	for (at = start; at < end; at++)
	{
		if (*at != '\n' && *at != '\r')
			continue;
		if (!end_line(sse, start, (size_t) (at - start)))
			return sse->state;
		if (*at == '\r')
		{
			if (at + 1 == end)
				sse->after_cr = true;
			else if (at[1] == '\n')
				at++;
		}
		start = at + 1;
	}
	if (start < end)
		append(sse, &sse->line, start, (size_t) (end - start),
			   PROM_SSE_MAX_LINE);
	return sse->state;
}

PromSseState
prom_sse_end(PromSse *sse)
{
	if (sse->state != PROM_SSE_OK)
		return sse->state;
	if (sse->line.length > 0 && !end_line(sse, "", 0))
		return sse->state;
	dispatch(sse);
	return sse->state;
}
