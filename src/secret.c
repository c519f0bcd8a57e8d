/*
 * secret.c
 *	  Reads keys by reference and keeps them out of what others can read.
 *
 * A key is a file in prometheus.secrets_dir that only the server's user can
 * read, or a variable of the server's environment.  It is read anew for each
 * request, so that a changed key needs no restart, and is wiped afterwards.
 */
#include "postgres.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guc.h"
#include "secret.h"
#include "text.h"

/* Bytes of an error's words that are looked at. */
#define MAX_WORDS 2000

#define MAX_NAME 64
#define MAX_SECRET (64 * 1024)
#define ENV_PREFIX "env:"

/* A part of the secret as long as this is blacked out wherever it occurs. */
#define MIN_PART 8

#define BLACK "[redacted]"

/* A part of the prompt as long as this is cut out of what quotes it. */
#define MIN_QUOTE 24
#define QUOTE_STEP 8
#define CUT "[...]"


static bool
is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		   (c >= '0' && c <= '9');
}

/* How keys of the vendors begin: the length of the prefix, or 0. */
static size_t
key_prefix(const char *text)
{
	static const char *const prefixes[] = {
		"sk-",
		"sk_",
		"pk-",
		"gsk_",
		"xai-",
		"AIza",
		"hf_",
		"sess-",
		"whsec_",
		"eyJ",
	};
	int i;

	for (i = 0; i < lengthof(prefixes); i++)
		if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
			return strlen(prefixes[i]);
	return 0;
}

static bool
check_env_name(const char *name)
{
	const char *c;

	if (*name == '\0' || (*name >= '0' && *name <= '9') ||
		strlen(name) > MAX_NAME)
		return false;
	for (c = name; *c != '\0'; c++)
		if (!is_alnum(*c) && *c != '_')
			return false;
	return true;
}

bool
prom_secret_check_name(const char *ref)
{
	const char *c;

	if (ref == NULL)
		return false;
	if (strncmp(ref, ENV_PREFIX, strlen(ENV_PREFIX)) == 0)
		return check_env_name(ref + strlen(ENV_PREFIX));
	if (*ref == '\0' || *ref == '.' || strlen(ref) > MAX_NAME ||
		key_prefix(ref) > 0)
		return false;
	for (c = ref; *c != '\0'; c++)
		if (!is_alnum(*c) && *c != '_' && *c != '-' && *c != '.')
			return false;
	return true;
}

void
prom_secret_free(char *secret)
{
	if (secret == NULL)
		return;
	explicit_bzero(secret, strlen(secret));
	free(secret);
}

/* Open the file of a secret; -1 and why if it may not be used. */
static int
open_file(const char *name, struct stat *st, char *error, size_t error_size)
{
	char path[MAXPGPATH];
	int fd;

	if (prom_guc_secrets_dir == NULL || *prom_guc_secrets_dir == '\0')
	{
		snprintf(error, error_size, "secret \"%s\" cannot be read: "
									"prometheus.secrets_dir is not set",
				 name);
		return -1;
	}
	if (snprintf(path, sizeof(path), "%s/%s", prom_guc_secrets_dir, name) >=
		(int) sizeof(path))
	{
		snprintf(error, error_size, "secret \"%s\" cannot be read: "
									"the path is too long",
				 name);
		return -1;
	}
	/* Neither a link to somewhere else nor a pipe that would block. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
	{
		snprintf(error, error_size, "could not open secret \"%s\": %s", name,
				 errno == ELOOP ? "it is a symbolic link" : strerror(errno));
		return -1;
	}
	if (fstat(fd, st) != 0)
		snprintf(error, error_size, "could not check secret \"%s\": %s", name,
				 strerror(errno));
	else if (!S_ISREG(st->st_mode))
		snprintf(error, error_size, "secret \"%s\" is not a regular file",
				 name);
	else if (st->st_uid != geteuid() && st->st_uid != 0)
		snprintf(error, error_size, "secret \"%s\" must be owned by the "
									"server's user or root",
				 name);
	else if ((st->st_mode & (S_IRWXG | S_IRWXO)) != 0)
		snprintf(error, error_size, "secret \"%s\" can be read by others: "
									"its mode is %04o, it must be 0600 or 0400",
				 name,
				 (unsigned) (st->st_mode & 07777));
	else if (st->st_size > MAX_SECRET)
		snprintf(error, error_size, "secret \"%s\" is longer than %d bytes",
				 name, MAX_SECRET);
	else
		return fd;
	close(fd);
	return -1;
}

static char *
read_file(const char *name, char *error, size_t error_size)
{
	struct stat st;
	char *text;
	size_t length = 0;
	int fd = open_file(name, &st, error, error_size);

	if (fd < 0)
		return NULL;
	text = malloc((size_t) st.st_size + 1);
	while (text != NULL && length < (size_t) st.st_size)
	{
		ssize_t n = read(fd, text + length, (size_t) st.st_size - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		length += (size_t) n;
	}
	close(fd);
	if (text == NULL || length < (size_t) st.st_size)
	{
		snprintf(error, error_size, "could not read secret \"%s\"", name);
		if (text != NULL)
			explicit_bzero(text, length);
		free(text);
		return NULL;
	}
	text[length] = '\0';
	if (strlen(text) != length)
	{
		snprintf(error, error_size, "secret \"%s\" has a zero byte", name);
		explicit_bzero(text, length);
		free(text);
		return NULL;
	}
	return text;
}

char *
prom_secret_read(const char *ref, char *error, size_t error_size)
{
	char *secret;
	size_t length;
	const unsigned char *c;

	if (!prom_secret_check_name(ref))
	{
		/* It may be a key: not a byte of it. */
		snprintf(error, error_size, "the secret is not a valid reference");
		return NULL;
	}
	if (strncmp(ref, ENV_PREFIX, strlen(ENV_PREFIX)) == 0)
	{
		const char *value = getenv(ref + strlen(ENV_PREFIX));

		secret = value != NULL ? strdup(value) : NULL;
		if (secret == NULL)
			snprintf(error, error_size, "secret \"%s\" is not in the "
										"server's environment",
					 ref);
	}
	else
		secret = read_file(ref, error, error_size);
	if (secret == NULL)
		return NULL;
	length = strlen(secret);
	while (length > 0 &&
		   (secret[length - 1] == '\n' || secret[length - 1] == '\r'))
		secret[--length] = '\0';
	for (c = (const unsigned char *) secret; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			break;
	if (length > 0 && *c == '\0')
		return secret;
	snprintf(error, error_size, length == 0 ? "secret \"%s\" is empty" : "secret \"%s\" has a byte that no header can have", ref);
	prom_secret_free(secret);
	return NULL;
}


/* How long is the piece of the secret that this text starts with? */
static size_t
secret_part(const char *text, const char *secret)
{
	size_t longest = 0;
	const char *start;

	for (start = secret; *start != '\0'; start++)
	{
		size_t n = 0;

		while (start[n] != '\0' && start[n] == text[n])
			n++;
		if (n > longest)
			longest = n;
	}
	/* A short secret is one only as a whole. */
	return longest >= MIN_PART || secret[longest] == '\0' ? longest : 0;
}

/* Bytes up to the next blank, quote or the like. */
static size_t
token_length(const char *text)
{
	return strcspn(text, " \t\"'`,;()<>{}[]");
}

static bool
has_digit_or_star(const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if ((text[i] >= '0' && text[i] <= '9') || text[i] == '*')
			return true;
	return false;
}

/*
 * How many bytes here look like a key?  sk-..., key-..., key_..., Bearer ...,
 * prefixes of other vendors, and words with stars in the middle of them.
 */
static size_t
key_length(const char *text)
{
	size_t token = token_length(text);
	size_t i;

	if (key_prefix(text) > 0 && token > key_prefix(text))
		return token;
	if (pg_strncasecmp(text, "bearer", 6) == 0 && text[6] != '\0' &&
		strchr("-_ ", text[6]) != NULL)
	{
		size_t rest = token_length(text + 7);

		return rest >= 6 && has_digit_or_star(text + 7, rest) ? 7 + rest : 0;
	}
	if (pg_strncasecmp(text, "key", 3) == 0 && text[3] != '\0' &&
		strchr("-_ =:", text[3]) != NULL)
	{
		size_t from = 4 + strspn(text + 4, " ");
		size_t rest = token_length(text + from);

		return rest >= 6 && has_digit_or_star(text + from, rest)
				   ? from + rest
				   : 0;
	}
	for (i = 0; i + 2 < token; i++)
		if (memcmp(text + i, "***", 3) == 0)
			return token;
	return 0;
}

/* With vendors, also what looks like one of their keys. */
static void
black_out(char *line, const char *secret, bool vendors)
{
	char *from = line;
	char *to = line;
	bool in_word = false;

	while (*from != '\0')
	{
		size_t n = 0;

		if (secret != NULL && *secret != '\0')
			n = secret_part(from, secret);
		if (n == 0 && !in_word && vendors)
			n = key_length(from);
		if (n == 0)
		{
			in_word = is_alnum(*from) || *from == '_' || *from == '-';
			*to++ = *from++;
			continue;
		}
		/* Never longer than what it hides, so it can be done in place. */
		memcpy(to, BLACK, Min(n, strlen(BLACK)));
		to += Min(n, strlen(BLACK));
		from += n;
		in_word = false;
	}
	*to = '\0';
}

void
prom_secret_redact(char *line, const char *secret)
{
	black_out(line, secret, true);
}

void
prom_secret_black_out(char *text, const char *secret)
{
	black_out(text, secret, false);
}


/* Where the prompt begins in a body, whatever its format; NULL: nowhere. */
static const char *
find_prompt(const char *body, size_t body_length)
{
	static const char *const starts[] = {
		"\"messages\"", "\"tools\"", "\"system\"", "\"input\"",
		"\"contents\"", "\"systemInstruction\""};
	const char *first = NULL;

	for (int i = 0; i < lengthof(starts); i++)
	{
		const char *start = memmem(body, body_length, starts[i],
								   strlen(starts[i]));

		if (start != NULL && (first == NULL || start < first))
			first = start;
	}
	return first;
}

/*
 * Looks for every QUOTE_STEP-th part of the line in the body, after what comes
 * before the prompt there, and lets what it finds grow in both directions.
 */
void
prom_secret_hide_quotes(char *line, const char *body, size_t body_length)
{
	const char *end = body + body_length;
	const char *prompt = find_prompt(body, body_length);
	size_t at = 0;

	while (prompt != NULL && strlen(line + at) >= MIN_QUOTE)
	{
		const char *quote = memmem(prompt, (size_t) (end - prompt), line + at,
								   MIN_QUOTE);
		size_t before = 0;
		size_t after = MIN_QUOTE;

		if (quote == NULL)
		{
			at += QUOTE_STEP;
			continue;
		}
		while (before < at && quote - before > prompt &&
			   line[at - before - 1] == *(quote - before - 1))
			before++;
		while (line[at + after] != '\0' && quote + after < end &&
			   line[at + after] == quote[after])
			after++;
		at -= before;
		memcpy(line + at, CUT, strlen(CUT));
		memmove(line + at + strlen(CUT), line + at + before + after,
				strlen(line + at + before + after) + 1);
		at += strlen(CUT);
	}
}

void
prom_secret_explain(char *text, size_t size, const char *what,
					const char *words, const char *key, const char *body,
					size_t length)
{
	char line[MAX_WORDS];
	size_t used;

	prom_text_one_line(text, size, what, strlen(what));
	used = strlen(text);
	if (words == NULL || *words == '\0' || used + 8 >= size)
		return;
	prom_text_one_line(line, sizeof(line), words, strlen(words));
	prom_secret_redact(line, key);
	if (body != NULL)
		prom_secret_hide_quotes(line, body, length);
	memcpy(text + used, ": ", 2);
	used += 2;
	prom_text_one_line(text + used, size - used, line, strlen(line));
}
