/*
 * secret.h
 *	  Keys of model servers: read by reference, at the moment of sending.
 */
#ifndef PROM_SECRET_H
#define PROM_SECRET_H

/*
 * May this be the reference to a secret, "NAME" or "env:NAME"?  Whatever looks
 * like a key itself is refused.  NULL (no secret) is not a reference.
 */
extern bool prom_secret_check_name(const char *ref);

/*
 * Read a secret.  The result is from malloc, for prom_secret_free(); on
 * failure NULL, and error says why without the secret.
 */
extern char *prom_secret_read(const char *ref, char *error, size_t error_size);

/* Wipe and free a secret, or any other string that has one in it; or NULL. */
extern void prom_secret_free(char *secret);

/*
 * Black out, in place, what looks like a key in a line from outside, and every
 * part of the secret itself, which may be NULL.
 */
extern void prom_secret_redact(char *line, const char *secret);

/* Black out, in place, every part of the secret in a text, and no more. */
extern void prom_secret_black_out(char *text, const char *secret);

/*
 * Cut, in place, out of a line from outside what it quotes of the prompt that
 * this request's body has in it.
 */
extern void prom_secret_hide_quotes(char *line, const char *body,
									size_t body_length);

/*
 * Write what went wrong as one line, and after it the words of another for it,
 * which may be NULL, without what they tell of keys and of the prompt.  body:
 * the request's, which they may quote, or NULL.
 */
extern void prom_secret_explain(char *text, size_t size, const char *what,
								const char *words, const char *key,
								const char *body, size_t length);

#endif
