/*
 * address.c
 *	  Knows which network addresses are public, and which a server must not
 *	  be talked into calling.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "address.h"

typedef struct Range4
{
	uint32_t network;
	int bits;
} Range4;

/* The registry of special-purpose IPv4 addresses, and multicast. */
static const Range4 special4[] = {
	{0x00000000, 8},  /* this network */
	{0x0A000000, 8},  /* private */
	{0x64400000, 10}, /* shared by a carrier's customers */
	{0x7F000000, 8},  /* loopback */
	{0xA9FE0000, 16}, /* link-local, metadata of clouds */
	{0xAC100000, 12}, /* private */
	{0xC0000000, 24}, /* protocol assignments, metadata of one cloud */
	{0xC0000200, 24}, /* documentation */
	{0xC0586300, 24}, /* relays to IPv6 */
	{0xC0A80000, 16}, /* private */
	{0xC6120000, 15}, /* benchmarks */
	{0xC6336400, 24}, /* documentation */
	{0xCB007100, 24}, /* documentation */
	{0xE0000000, 3},  /* multicast, reserved, broadcast */
};

/* The metadata and wire addresses of a cloud that uses public ones. */
static const uint32_t metadata4[] = {
	0xA83F8110, /* 168.63.129.16 */
};


static bool
is_public4(uint32_t address)
{
	size_t i;

	for (i = 0; i < sizeof(special4) / sizeof(special4[0]); i++)
		if (((address ^ special4[i].network) >> (32 - special4[i].bits)) == 0)
			return false;
	for (i = 0; i < sizeof(metadata4) / sizeof(metadata4[0]); i++)
		if (address == metadata4[i])
			return false;
	return true;
}

static uint32_t
read4(const unsigned char *bytes)
{
	return (uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 |
		   (uint32_t) bytes[2] << 8 | bytes[3];
}

static bool
is_public6(const unsigned char *a)
{
	static const unsigned char zero[12];
	static const unsigned char mapped[12] = {[10] = 0xFF, [11] = 0xFF};
	static const unsigned char nat64[12] = {0x00, 0x64, 0xFF, 0x9B};

	if (memcmp(a, zero, 12) == 0 || memcmp(a, mapped, 12) == 0 ||
		memcmp(a, nat64, 12) == 0)
		return is_public4(read4(a + 12)); /* :: and ::1 are 0/8 here */
	if (a[0] == 0x20 && a[1] == 0x02)
		return is_public4(read4(a + 2)); /* 6to4 */
	if ((a[0] & 0xE0) != 0x20)
		return false; /* all that is public is in 2000::/3 */
	if (a[0] == 0x20 && a[1] == 0x01 && (a[2] & 0xFE) == 0)
		return false; /* protocols, tunnels */
	if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0D && a[3] == 0xB8)
		return false; /* documentation */
	return true;
}

bool
prom_address_is_public(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
	{
		struct sockaddr_in in;

		memcpy(&in, address, sizeof(in));
		return is_public4(ntohl(in.sin_addr.s_addr));
	}
	if (address->sa_family == AF_INET6)
	{
		struct sockaddr_in6 in6;

		memcpy(&in6, address, sizeof(in6));
		return is_public6(in6.sin6_addr.s6_addr);
	}
	return false;
}

bool
prom_address_text_is_public(const char *text)
{
	struct in_addr in;
	struct in6_addr in6;

	if (inet_pton(AF_INET, text, &in) == 1)
		return is_public4(ntohl(in.s_addr));
	if (inet_pton(AF_INET6, text, &in6) == 1)
		return is_public6(in6.s6_addr);
	return false;
}

bool
prom_address_is_numeric(const char *host)
{
	struct in_addr in;

	/* A name cannot have a colon or a bracket. */
	return strpbrk(host, ":[") != NULL || inet_pton(AF_INET, host, &in) == 1;
}
