/*
 * delta.c
 *	  Puts the pieces of a streamed message together.
 *
 * The rules are those of OpenAI's own client, for whatever members there are,
 * so that members nobody here knows (reasoning, signatures) survive: strings
 * are joined, objects merged, elements of arrays found by their "index".  Two
 * things differ: what identifies (id, type, role, index) is replaced, since
 * some servers repeat it in each piece, and numbers are replaced, not added.
 *
 * Text is kept as it was sent, escapes included: a surrogate pair that two
 * pieces share is whole again when they are joined, and no number is read.  A
 * value stays one range of bytes until a second piece for it comes.
 */
#include <stdlib.h>
#include <string.h>

#include "provider/delta.h"

#define MAX_NODES 65536
#define MAX_MEMBERS 512 /* they are searched one by one */
#define MAX_DEPTH 32
#define MAX_INDEX 1023

typedef enum NodeKind
{
	NODE_RAW,    /* any value, as it came */
	NODE_STRING, /* the inside of a string, still escaped */
	NODE_OBJECT,
	NODE_ARRAY
} NodeKind;

typedef struct Node
{
	NodeKind kind;
	struct Node *next;  /* sibling */
	struct Node *first; /* children */
	struct Node *last;
	int children;
	int index;     /* of an array's element; -1: it had none */
	PromSlice key; /* of a member, with its quotes; malloc'd */
	char *text;    /* of a value or string */
	size_t length; /* of text */
	size_t size;   /* of text, allocated */
} Node;

struct PromDelta
{
	Node *root;
	size_t memory;
	int nodes;
	PromDeltaState state;
};

/* Text under construction. */
typedef struct Output
{
	char *data; /* NULL: only count */
	size_t length;
} Output;

static bool merge_value(PromDelta *delta, Node *node, PromSlice value,
						int depth);


static bool
fail(PromDelta *delta, PromDeltaState state)
{
	delta->state = state;
	return false;
}

static Node *
new_node(PromDelta *delta, NodeKind kind, PromSlice key)
{
	Node *node;

	if (delta->nodes >= MAX_NODES)
	{
		fail(delta, PROM_DELTA_TOO_MUCH);
		return NULL;
	}
	node = calloc(1, sizeof(Node));
	if (node != NULL && key.length > 0)
	{
		char *copy = malloc(key.length);

		if (copy == NULL)
		{
			free(node);
			node = NULL;
		}
		else
			node->key.data = memcpy(copy, key.data, key.length);
	}
	if (node == NULL)
	{
		fail(delta, PROM_DELTA_NO_MEMORY);
		return NULL;
	}
	node->key.length = key.length;
	node->kind = kind;
	node->index = -1;
	delta->nodes++;
	delta->memory += sizeof(Node) + key.length;
	return node;
}

/* Free what a node holds: its text and, to MAX_DEPTH at most, its children. */
static void
clear_node(PromDelta *delta, Node *node)
{
	while (node->first != NULL)
	{
		Node *child = node->first;

		node->first = child->next;
		clear_node(delta, child);
		delta->memory -= sizeof(Node) + child->key.length;
		delta->nodes--;
		free((char *) child->key.data);
		free(child);
	}
	delta->memory -= node->size;
	free(node->text);
	node->text = NULL;
	node->length = node->size = 0;
	node->last = NULL;
	node->children = 0;
}

PromDelta *
prom_delta_create(void)
{
	PromDelta *delta = calloc(1, sizeof(PromDelta));
	PromSlice none = {"", 0};

	if (delta == NULL)
		return NULL;
	delta->root = new_node(delta, NODE_OBJECT, none);
	if (delta->root == NULL)
	{
		free(delta);
		return NULL;
	}
	return delta;
}

void
prom_delta_free(PromDelta *delta)
{
	if (delta == NULL)
		return;
	clear_node(delta, delta->root);
	free(delta->root);
	free(delta);
}

bool
prom_delta_is_empty(const PromDelta *delta)
{
	return delta->root->first == NULL;
}

size_t
prom_delta_memory(const PromDelta *delta)
{
	return delta->memory + sizeof(PromDelta);
}

static bool
append_text(PromDelta *delta, Node *node, const char *text, size_t length)
{
	size_t need = node->length + length;

	if (need > node->size)
	{
		size_t size = node->size * 2 > need ? node->size * 2 : need;
		char *grown = realloc(node->text, size ? size : 1);

		if (grown == NULL)
			return fail(delta, PROM_DELTA_NO_MEMORY);
		delta->memory += size - node->size;
		node->text = grown;
		node->size = size;
	}
	if (length > 0)
		memcpy(node->text + node->length, text, length);
	node->length = need;
	return true;
}

/* Make the node this value, whatever it was. */
static bool
set_value(PromDelta *delta, Node *node, PromSlice value)
{
	clear_node(delta, node);
	node->kind = NODE_RAW;
	return append_text(delta, node, value.data, value.length);
}

/* Add a child; elements with an index stay in its order, before the others. */
static bool
add_child(PromDelta *delta, Node *parent, Node *child)
{
	Node **place = &parent->first;

	if (parent->kind == NODE_OBJECT && parent->children >= MAX_MEMBERS)
	{
		free((char *) child->key.data);
		free(child);
		return fail(delta, PROM_DELTA_TOO_MUCH);
	}
	if (child->index < 0)
		place = parent->last != NULL ? &parent->last->next : &parent->first;
	else
		while (*place != NULL && (*place)->index >= 0 &&
			   (*place)->index < child->index)
			place = &(*place)->next;
	child->next = *place;
	*place = child;
	if (child->next == NULL)
		parent->last = child;
	parent->children++;
	return true;
}

static Node *
find_member(Node *object, PromSlice key)
{
	Node *child;

	for (child = object->first; child != NULL; child = child->next)
		if (child->key.length == key.length &&
			memcmp(child->key.data, key.data, key.length) == 0)
			return child;
	return NULL;
}

static bool
merge_members(PromDelta *delta, Node *object, PromSlice piece, int depth)
{
	PromSlice key;
	PromSlice value;
	size_t position = 0;

	while (prom_json_next_member(piece, &position, &key, &value))
	{
		Node *child = find_member(object, key);

		if (child != NULL)
		{
			if (!merge_value(delta, child, value, depth + 1))
				return false;
			continue;
		}
		child = new_node(delta, NODE_RAW, key);
		if (child == NULL || !add_child(delta, object, child) ||
			!set_value(delta, child, value))
			return false;
	}
	return true;
}

/* The "index" of an array's element, or -1. */
static int
element_index(PromSlice element)
{
	PromSlice value;
	int index = 0;
	size_t i;

	if (prom_json_kind(element) != '{' ||
		!prom_json_find(element, "index", &value) || value.length > 4)
		return -1;
	for (i = 0; i < value.length; i++)
	{
		if (value.data[i] < '0' || value.data[i] > '9')
			return -1;
		index = index * 10 + (value.data[i] - '0');
	}
	return index <= MAX_INDEX ? index : -1;
}

static bool
merge_elements(PromDelta *delta, Node *array, PromSlice piece, int depth)
{
	PromSlice none = {"", 0};
	PromSlice value;
	size_t position = 0;

	while (prom_json_next_element(piece, &position, &value))
	{
		int index = element_index(value);
		Node *child = index >= 0 ? array->first : NULL;

		while (child != NULL && child->index != index)
			child = child->index >= 0 ? child->next : NULL;
		if (child != NULL)
		{
			if (!merge_value(delta, child, value, depth + 1))
				return false;
			continue;
		}
		child = new_node(delta, NODE_RAW, none);
		if (child == NULL)
			return false;
		child->index = index;
		if (!add_child(delta, array, child) ||
			!set_value(delta, child, value))
			return false;
	}
	return true;
}

/* Open a raw object, array or string, so that it can be added to. */
static bool
open_node(PromDelta *delta, Node *node, int depth)
{
	PromSlice value = {node->text, node->length};
	char kind = node->length > 0 ? node->text[0] : '\0';
	bool ok;

	if (node->kind != NODE_RAW)
		return true;
	if (kind == '"')
	{
		node->kind = NODE_STRING;
		memmove(node->text, node->text + 1, node->length - 2);
		node->length -= 2;
		return true;
	}
	/* The text is read while children are made of it, then freed. */
	delta->memory -= node->size;
	node->text = NULL;
	node->length = node->size = 0;
	if (kind == '{')
	{
		node->kind = NODE_OBJECT;
		ok = merge_members(delta, node, value, depth);
	}
	else
	{
		node->kind = NODE_ARRAY;
		ok = merge_elements(delta, node, value, depth);
	}
	free((char *) value.data);
	return ok;
}

/* What the node is, as the first byte of its JSON. */
static char
node_kind(const Node *node)
{
	switch (node->kind)
	{
		case NODE_STRING:
			return '"';
		case NODE_OBJECT:
			return '{';
		case NODE_ARRAY:
			return '[';
		case NODE_RAW:
			break;
	}
	return node->length > 0 ? node->text[0] : 'n';
}

/* Members that say which or what a thing is, and are not parts of a text. */
static bool
is_identity(PromSlice key)
{
	return prom_json_is(key, "index") || prom_json_is(key, "type") ||
		   prom_json_is(key, "id") || prom_json_is(key, "role");
}

/* Is the node a string with just this inside? */
static bool
says(const Node *node, const char *inside, size_t length)
{
	const char *text = node->text;
	size_t own = node->length;

	if (node->kind == NODE_RAW)
	{
		text++;
		own -= 2;
	}
	return own == length && memcmp(text, inside, length) == 0;
}

static bool
merge_value(PromDelta *delta, Node *node, PromSlice value, int depth)
{
	char have = node_kind(node);
	char get = prom_json_kind(value);

	if (get == 'n' || (get == '"' && value.length == 2 && have == '"'))
		return true;
	if (have != get || (get != '"' && get != '{' && get != '[') ||
		depth >= MAX_DEPTH || is_identity(node->key))
		return set_value(delta, node, value);
	if (get == '"' && prom_json_is(node->key, "name") &&
		says(node, value.data + 1, value.length - 2))
		return true;
	if (!open_node(delta, node, depth))
		return false;
	if (get == '"')
		return append_text(delta, node, value.data + 1, value.length - 2);
	if (get == '{')
		return merge_members(delta, node, value, depth);
	return merge_elements(delta, node, value, depth);
}

PromDeltaState
prom_delta_merge(PromDelta *delta, PromSlice piece)
{
	if (delta->state == PROM_DELTA_OK)
		merge_members(delta, delta->root, piece, 0);
	return delta->state;
}

static void
put(Output *output, const char *text, size_t length)
{
	if (output->data != NULL && length > 0)
		memcpy(output->data + output->length, text, length);
	output->length += length;
}

/*
 * Write a node; in a tool call its "index" is left out, which only places a
 * piece and which strict servers refuse in a message sent back to them.
 */
static void
write_node(Output *output, const Node *node, bool is_tool_call)
{
	bool calls = node->kind == NODE_ARRAY &&
				 prom_json_is(node->key, "tool_calls");
	bool first = true;
	const Node *child;

	switch (node->kind)
	{
		case NODE_RAW:
			put(output, node->text, node->length);
			return;
		case NODE_STRING:
			put(output, "\"", 1);
			put(output, node->text, node->length);
			put(output, "\"", 1);
			return;
		case NODE_OBJECT:
		case NODE_ARRAY:
			break;
	}
	put(output, node->kind == NODE_OBJECT ? "{" : "[", 1);
	for (child = node->first; child != NULL; child = child->next)
	{
		if (is_tool_call && prom_json_is(child->key, "index"))
			continue;
		if (!first)
			put(output, ",", 1);
		first = false;
		if (node->kind == NODE_OBJECT)
		{
			put(output, child->key.data, child->key.length);
			put(output, ":", 1);
		}
		write_node(output, child, calls);
	}
	put(output, node->kind == NODE_OBJECT ? "}" : "]", 1);
}

/* Open the tool calls, also if each came in one piece, to lose their index. */
static bool
open_tool_calls(PromDelta *delta)
{
	PromSlice key = {"\"tool_calls\"", 12};
	Node *calls = find_member(delta->root, key);
	Node *child;

	if (calls == NULL || node_kind(calls) != '[')
		return true;
	if (!open_node(delta, calls, 1))
		return false;
	for (child = calls->first; child != NULL; child = child->next)
		if (node_kind(child) == '{' && !open_node(delta, child, 2))
			return false;
	return true;
}

/* Some servers never say whose turn it is. */
static bool
add_role(PromDelta *delta)
{
	PromSlice key = {"\"role\"", 6};
	PromSlice value = {"\"assistant\"", 11};
	Node *role = find_member(delta->root, key);

	if (role != NULL)
		return node_kind(role) == '"' || set_value(delta, role, value);
	role = new_node(delta, NODE_RAW, key);
	if (role == NULL)
		return false;
	role->next = delta->root->first;
	delta->root->first = role;
	if (delta->root->last == NULL)
		delta->root->last = role;
	delta->root->children++;
	return set_value(delta, role, value);
}

char *
prom_delta_text(PromDelta *delta, size_t *length)
{
	Output output = {NULL, 0};

	write_node(&output, delta->root, false);
	output.data = malloc(output.length + 1);
	if (output.data == NULL)
		return NULL;
	output.length = 0;
	write_node(&output, delta->root, false);
	output.data[output.length] = '\0';
	*length = output.length;
	return output.data;
}

char *
prom_delta_message(PromDelta *delta, size_t *length)
{
	if (!add_role(delta) || !open_tool_calls(delta))
		return NULL;
	return prom_delta_text(delta, length);
}
