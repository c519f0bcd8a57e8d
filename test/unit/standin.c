/*
 * standin.c
 *	  The functions of the server that the parts under test use, as simple as
 *	  can be, and the counting of tests.
 */
#include "postgres.h"

#include <stdarg.h>

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "utils/json.h"

#include "guc.h"
#include "standin.h"

bool prom_guc_allow_private_endpoints = true;
int prom_guc_network_memory = 262144;
char *prom_guc_secrets_dir = NULL;

int tests_passed = 0;
int tests_failed = 0;

sigjmp_buf *PG_exception_stack = NULL;
ErrorContextCallback *error_context_stack = NULL;


void
check(bool ok, const char *format, ...)
{
	va_list args;

	if (ok)
	{
		tests_passed++;
		return;
	}
	tests_failed++;
	fputs("not ok: ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void
check_text(const char *got, const char *want, const char *about)
{
	bool ok = got == want ||
			  (got != NULL && want != NULL && strcmp(got, want) == 0);

	check(ok, "%s: got <%s>, want <%s>", about, got ? got : "(null)",
		  want ? want : "(null)");
}

int
group_begin(void)
{
	return tests_passed;
}

void
group_end(int begun)
{
	if (tests_passed > begun)
		tests_passed = begun + 1;
}

int
report(void)
{
	printf("%d passed, %d failed\n", tests_passed, tests_failed);
	return tests_failed > 0 || tests_passed == 0;
}

unsigned
next_random(unsigned *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}


bool
IsTransactionState(void)
{
	return false;
}

bool
errstart(int elevel, const char *domain)
{
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return true;
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *fmt, ...)
{
	fprintf(stderr, "error: %s\n", fmt);
	return 0;
}

int
errdetail(const char *fmt, ...)
{
	return 0;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	abort();
}

void
pg_re_throw(void)
{
	abort();
}

void
ExceptionalCondition(const char *conditionName,
#if PG_VERSION_NUM < 160000
					 const char *errorType,
#endif
					 const char *fileName, int lineNumber)
{
	fprintf(stderr, "%s:%d: %s\n", fileName, lineNumber, conditionName);
	abort();
}

void *
palloc(Size size)
{
	return malloc(size);
}

void *
repalloc(void *pointer, Size size)
{
	return realloc(pointer, size);
}

char *
pstrdup(const char *in)
{
	return strdup(in);
}

char *
pnstrdup(const char *in, Size len)
{
	return strndup(in, len);
}

char *
psprintf(const char *fmt, ...)
{
	char buffer[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(buffer, sizeof(buffer), fmt, args);
	va_end(args);
	return strdup(buffer);
}

void
pfree(void *pointer)
{
	free(pointer);
}

void
initStringInfo(StringInfo str)
{
	str->data = calloc(1, 64);
	str->len = 0;
	str->maxlen = 64;
	str->cursor = 0;
}

void
appendBinaryStringInfo(StringInfo str,
#if PG_VERSION_NUM < 160000
					   const char *data,
#else
					   const void *data,
#endif
					   int datalen)
{
	if (str->len + datalen + 1 > str->maxlen)
	{
		str->maxlen = 2 * (str->len + datalen + 1);
		str->data = realloc(str->data, (size_t) str->maxlen);
	}
	memcpy(str->data + str->len, data, (size_t) datalen);
	str->len += datalen;
	str->data[str->len] = '\0';
}

void
appendStringInfoString(StringInfo str, const char *s)
{
	appendBinaryStringInfo(str, s, (int) strlen(s));
}

void
appendStringInfoChar(StringInfo str, char ch)
{
	appendBinaryStringInfo(str, &ch, 1);
}

void
appendStringInfo(StringInfo str, const char *fmt, ...)
{
	char buffer[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(buffer, sizeof(buffer), fmt, args);
	va_end(args);
	appendStringInfoString(str, buffer);
}

void
escape_json(StringInfo buf, const char *str)
{
	appendStringInfoChar(buf, '"');
	for (; *str != '\0'; str++)
	{
		if (*str == '"' || *str == '\\')
			appendStringInfoChar(buf, '\\');
		if ((unsigned char) *str < ' ')
			appendStringInfo(buf, "\\u%04x", *str);
		else
			appendStringInfoChar(buf, *str);
	}
	appendStringInfoChar(buf, '"');
}
