/*
 * hidden.h
 *	  Finds characters in a text that no reader sees and every model reads.
 */
#ifndef PROM_HIDDEN_H
#define PROM_HIDDEN_H

/* What is hidden in a text of the server encoding; NULL: nothing. */
extern const char *prom_hidden_in(const char *text);

#endif
