/*
 * peer.h
 *	  What is remembered of hosts: which of their connections to use again.
 *
 * A connection that was kept open may have been closed by the peer without our
 * knowing it; a request that was sent on it then may or may not have been
 * done.  So one that is likely to be closed is better not used.
 *
 * Plain C without PostgreSQL; nothing is allocated.
 */
#ifndef PROM_PEER_H
#define PROM_PEER_H

#include <stdint.h>

/* Hosts that share a place are only treated with more care than they need. */
#define PROM_PEERS 256

typedef struct PromPeer
{
	int64_t stale_at; /* us: when a kept connection last failed; 0: never */
	int keep_alive;   /* s it keeps idle connections, as it says; -1, 0: ? */
} PromPeer;

/* The place of a host and its port, which may be NULL. */
extern int prom_peer_place(const char *host, const char *port);

/* The idle time, in whole seconds, after which a connection is not used. */
extern long prom_peer_max_idle(const PromPeer *peer);

/*
 * The age, in whole seconds and at most the given one, after which a
 * connection is not used: whatever was open when one failed is suspect.  0:
 * none may be used.  now is in us, by the clock of stale_at.
 */
extern long prom_peer_max_age(const PromPeer *peer, int64_t now, long longest);

#endif
