/*
 * peer.c
 *	  Decides for a host which of its connections to use again.
 *
 * libcurl counts whole seconds and uses a connection whose seconds are equal
 * to the limit, so every limit here errs towards a new connection.
 */
#include <stddef.h>

#include "peer.h"

/*
 * Without the peer's word: shorter than what is usual in front of models (60 s
 * and 75 s), so that ours are closed by us.
 */
#define MAX_IDLE 50

/* Given up so much before the peer would, s: for the way there. */
#define MARGIN 2


static uint32_t
hash_text(uint32_t hash, const char *text)
{
	for (; text != NULL && *text != '\0'; text++)
		hash = (hash ^ (unsigned char) *text) * 16777619u;
	return hash;
}

/* FNV-1a */
int
prom_peer_place(const char *host, const char *port)
{
	uint32_t hash = hash_text(2166136261u, host);

	return (int) (hash_text(hash ^ ':', port) % PROM_PEERS);
}

long
prom_peer_max_idle(const PromPeer *peer)
{
	long seconds = MAX_IDLE;

	if (peer->keep_alive > 0 && peer->keep_alive - MARGIN < seconds)
		seconds = peer->keep_alive - MARGIN;
	return seconds > 1 ? seconds : 1;
}

long
prom_peer_max_age(const PromPeer *peer, int64_t now, long longest)
{
	int64_t seconds = (now - peer->stale_at) / 1000000;

	if (peer->stale_at == 0 || seconds > longest)
		return longest;
	return seconds > 0 ? (long) seconds - 1 : 0;
}
