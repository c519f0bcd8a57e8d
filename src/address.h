/*
 * address.h
 *	  Which network addresses are public.
 *
 * Plain C without PostgreSQL.
 */
#ifndef PROM_ADDRESS_H
#define PROM_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/*
 * Is this an address of the public internet?  Not loopback, private, shared,
 * link-local (which has the clouds' metadata), multicast or reserved; an IPv6
 * address that stands for an IPv4 one is what that one is.
 */
extern bool prom_address_is_public(const struct sockaddr *address);

/* The same of an address in text; false for what is none. */
extern bool prom_address_text_is_public(const char *text);

/* Is this text an address, and not a name?  IPv6 with or without brackets. */
extern bool prom_address_is_numeric(const char *host);

#endif
