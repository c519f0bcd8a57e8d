/*
 * words.c
 *	  The words by which a memory is found.
 *
 * They are those of its text, and if the agent has a language, besides what
 * that makes of them, such as stems.  Both are there, and a word of a query may
 * be either: so what was stored before the agent had that language is found.
 * The index has each word with a number before it that stands for the owner and
 * the agent: however many memories others have, they are not looked at.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "tsearch/ts_type.h"
#include "tsearch/ts_utils.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "folding.h"
#include "option.h"
#include "words.h"
#include "xact.h"

/* Letters of the number before a word. */
#define SCOPE 8

/* Characters that a word must have for others to begin with it. */
#define MIN_PREFIX 2

static Oid
language_of(const char *agent)
{
	static const char options_sql[] =
		"SELECT a.options FROM prometheus._agent a"
		" WHERE a.name OPERATOR(pg_catalog.=) $1"
		" ORDER BY a.version DESC LIMIT 1";
	Oid type = TEXTOID;
	Datum name = CStringGetTextDatum(agent);

	if (prom_execute_now(options_sql, 1, &type, &name, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._agent");
	return SPI_processed == 0
			   ? InvalidOid
			   : prom_option_language(prom_row_jsonb_or_null(0, 1));
}

/* What a language makes of a text, without accents: a list of strings. */
static List *
stems_of(Oid language, const char *text)
{
	TSVector vector = DatumGetTSVector(DirectFunctionCall2(
		to_tsvector_byid, ObjectIdGetDatum(language),
		CStringGetTextDatum(prom_folding_compose(text))));
	WordEntry *entries = ARRPTR(vector);
	List *stems = NIL;

	for (int i = 0; i < vector->size; i++)
	{
		const char *stem = prom_folding_of(
			pnstrdup(STRPTR(vector) + entries[i].pos, entries[i].len));

		if (*stem != '\0' && strlen(stem) <= PROM_FOLDING_MAX_WORD)
			stems = lappend(stems, unconstify(char *, stem));
	}
	return stems;
}

/* The words of a memory, for its row. */
PG_FUNCTION_INFO_V1(prom_words);

Datum
prom_words(PG_FUNCTION_ARGS)
{
	char *content = text_to_cstring(PG_GETARG_TEXT_PP(0));
	List *words = prom_folding_words(content, PROM_FOLDING_STORE);
	List *stems = NIL;
	Datum *values;
	Oid language;
	ListCell *cell;
	int n = 0;

	SPI_connect();
	language = language_of(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	SPI_finish();
	if (OidIsValid(language))
		stems = stems_of(language, prom_folding_beginning(content));
	values = palloc((list_length(words) + list_length(stems) + 1) *
					sizeof(Datum));
	foreach(cell, words)
		values[n++] = CStringGetTextDatum(((PromWord *) lfirst(cell))->text);
	foreach(cell, stems)
		values[n++] = CStringGetTextDatum((char *) lfirst(cell));
	PG_RETURN_DATUM(DirectFunctionCall1(
		array_to_tsvector, PointerGetDatum(construct_array(
							   values, n, TEXTOID, -1, false, TYPALIGN_INT))));
}

static void
write_scope(char *scope, Oid owner_oid, const char *agent, int length)
{
	uint32 hash = hash_combine(hash_bytes((const unsigned char *) agent,
										  length),
							   murmurhash32(owner_oid));

	snprintf(scope, SCOPE + 1, "%08x", hash);
}

/*
 * The same as the index has them.  All begin alike, so their order stays.  What
 * would be too long for a tsvector is left out.
 */
PG_FUNCTION_INFO_V1(prom_scoped);

Datum
prom_scoped(PG_FUNCTION_ARGS)
{
	TSVector words = PG_GETARG_TSVECTOR(0);
	text *agent = PG_GETARG_TEXT_PP(2);
	WordEntry *entries = ARRPTR(words);
	char scope[SCOPE + 1];
	TSVector scoped;
	WordEntry *to;
	int length = 0;
	int n = 0;

	write_scope(scope, PG_GETARG_OID(1), VARDATA_ANY(agent),
				VARSIZE_ANY_EXHDR(agent));
	for (; n < words->size && length + SCOPE + entries[n].len < MAXSTRPOS; n++)
		length += SCOPE + entries[n].len;
	scoped = palloc0(CALCDATASIZE(n, length));
	SET_VARSIZE(scoped, CALCDATASIZE(n, length));
	scoped->size = n;
	to = ARRPTR(scoped);
	length = 0;
	for (int i = 0; i < n; i++)
	{
		to[i].pos = length;
		to[i].len = SCOPE + entries[i].len;
		memcpy(STRPTR(scoped) + length, scope, SCOPE);
		memcpy(STRPTR(scoped) + length + SCOPE, STRPTR(words) + entries[i].pos,
			   entries[i].len);
		length += to[i].len;
	}
	PG_RETURN_TSVECTOR(scoped);
}

/* The part of some queries that words fit. */
PG_FUNCTION_INFO_V1(prom_share);

Datum
prom_share(PG_FUNCTION_ARGS)
{
	Datum words = PG_GETARG_DATUM(0);
	ArrayType *array = PG_GETARG_ARRAYTYPE_P(1);
	Datum *queries;
	int n;
	int fitting = 0;

	deconstruct_array(array, TSQUERYOID, -1, false, TYPALIGN_INT, &queries,
					  NULL, &n);
	for (int i = 0; i < n; i++)
		if (DatumGetBool(DirectFunctionCall2(ts_match_vq, words, queries[i])))
			fitting++;
	PG_RETURN_FLOAT8(n == 0 ? 0 : (float8) fitting / n);
}

/* A word of a query. */
typedef struct Sought
{
	const PromWord *word;
	List *stems;
	bool is_common; /* the language leaves it out */
} Sought;

/* The longest first; the same stand together. */
static int
compare_words(const ListCell *a, const ListCell *b)
{
	const PromWord *one = ((Sought *) lfirst(a))->word;
	const PromWord *other = ((Sought *) lfirst(b))->word;

	if (one->nchars != other->nchars)
		return one->nchars > other->nchars ? -1 : 1;
	return strcmp(one->text, other->text);
}

static List *
sought_of(const char *query)
{
	List *all = NIL;
	List *sought = NIL;
	const char *before = NULL;
	ListCell *cell;

	foreach(cell, prom_folding_words(query, PROM_FOLDING_SEEK))
	{
		Sought *one = palloc0(sizeof(Sought));

		one->word = lfirst(cell);
		all = lappend(all, one);
	}
	list_sort(all, compare_words);
	foreach(cell, all)
	{
		Sought *one = lfirst(cell);

		if (before == NULL || strcmp(before, one->word->text) != 0)
			sought = lappend(sought, one);
		before = one->word->text;
	}
	return sought;
}

static Sought *
find_sought(List *sought, const char *text)
{
	ListCell *cell;

	foreach(cell, sought)
		if (strcmp(((Sought *) lfirst(cell))->word->text, text) == 0)
			return lfirst(cell);
	return NULL;
}

static bool
has_digit(const char *text)
{
	return text[strcspn(text, "0123456789")] != '\0';
}

/*
 * What a language says of the words that count.  Those that it leaves out are
 * not looked for, unless there are no others.
 */
static List *
ask_language(List *sought, Oid language, const char *query)
{
	List *telling = NIL;
	ListCell *cell;

	foreach(cell, prom_folding_split(query))
	{
		const PromWord *raw = lfirst(cell);
		List *folded = prom_folding_words(raw->text, PROM_FOLDING_SEEK);
		Sought *one = NULL;

		if (list_length(folded) == 1)
			one = find_sought(sought, ((PromWord *) linitial(folded))->text);
		if (one == NULL || one->stems != NIL)
			continue;
		one->stems = stems_of(language, raw->text);
		one->is_common = one->stems == NIL && !has_digit(raw->text);
	}
	foreach(cell, sought)
		if (!((Sought *) lfirst(cell))->is_common)
			telling = lappend(telling, lfirst(cell));
	return telling == NIL ? sought : telling;
}

static void
append_word(StringInfo query, const char *scope, const char *word,
			bool is_prefix)
{
	appendStringInfo(query, "%s'%s", query->len > 0 ? " | " : "", scope);
	for (const char *c = word; *c != '\0'; c++)
	{
		if (*c == '\'' || *c == '\\')
			appendStringInfoChar(query, *c);
		appendStringInfoChar(query, *c);
	}
	appendStringInfoString(query, is_prefix ? "':*" : "'");
}

static Datum
query_of(const Sought *sought, const char *scope, bool is_prefix)
{
	StringInfoData query;
	ListCell *cell;

	initStringInfo(&query);
	append_word(&query, scope, sought->word->text,
				sought->word->is_sign ||
					(is_prefix && sought->word->nchars >= MIN_PREFIX));
	foreach(cell, sought->stems)
		append_word(&query, scope, lfirst(cell), false);
	return DirectFunctionCall1(tsqueryin, CStringGetDatum(query.data));
}

void
prom_words_of_query(const PromMemoryOwner *owner, const char *query,
					PromWords *words)
{
	Oid language = language_of(owner->agent);
	List *sought = list_truncate(sought_of(query), PROM_MAX_WORDS);
	char scope[SCOPE + 1];
	ListCell *cell;

	if (OidIsValid(language))
		sought = ask_language(sought, language, query);
	write_scope(scope, owner->oid, owner->agent, strlen(owner->agent));
	words->n = 0;
	foreach(cell, sought)
	{
		const Sought *one = lfirst(cell);
		int n = words->n++;

		words->plain[n] = query_of(one, "", false);
		words->scoped[n] = query_of(one, scope, false);
		words->plain_prefix[n] = query_of(one, "", true);
		words->scoped_prefix[n] = query_of(one, scope, true);
	}
}
