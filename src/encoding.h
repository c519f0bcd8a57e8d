/*
 * encoding.h
 *	  Text between the network, which is UTF-8, and the database.
 */
#ifndef PROM_ENCODING_H
#define PROM_ENCODING_H

/* In the database's encoding; what it lacks becomes "?".  NULL for NULL. */
extern const char *prom_encoding_from_utf8(const char *text);

/* Has the database's encoding this character, by its code point? */
extern bool prom_encoding_can_store(uint32 code);

/* In UTF-8; raises if the text is not of the database's encoding. */
extern const char *prom_encoding_to_utf8(const char *text);

/*
 * The same of what others have stored.  In a database with SQL_ASCII that may
 * be any bytes: those that are no UTF-8 become U+FFFD.
 */
extern const char *prom_encoding_stored_to_utf8(const char *text);

/* The same for words that are only shown: never raises, but writes "?". */
extern const char *prom_encoding_words_to_utf8(const char *text);

/*
 * The length of the whole characters that fit into limit bytes.  In a database
 * with SQL_ASCII they are those of UTF-8, in which they may be sent.
 */
extern int prom_encoding_clip(const char *text, int length, int limit);

#endif
