/*
 * codec.h
 *	  Compresses a document, alone or by what an earlier one has in common.
 *
 * Plain C without PostgreSQL, but for text.h's slices.
 */
#ifndef PROM_CODEC_H
#define PROM_CODEC_H

#include "text.h"

/* How a frame holds its document; stored, so never renumbered. */
typedef enum PromCodec
{
	PROM_CODEC_PLAIN = 0,
	PROM_CODEC_ZSTD = 1, /* a zstd frame that needs nothing else */
	PROM_CODEC_DELTA = 2 /* a zstd frame that needs the same prefix again */
} PromCodec;

/* Bytes that a frame of so many bytes may need at most. */
extern size_t prom_codec_bound(size_t length);

/*
 * Compress a document, by a prefix if that has any bytes; the length of the
 * frame, or 0 if there was not enough memory or room.
 */
extern size_t prom_codec_pack(PromSlice document, PromSlice prefix,
							  char *frame, size_t room);

/* Does a frame say that its document has so many bytes? */
extern bool prom_codec_holds(PromSlice frame, size_t length);

/*
 * The document of a frame, which has exactly so many bytes.  False if it has
 * not, or the frame is damaged, or there was not enough memory.  A frame with
 * the wrong prefix may give a wrong document: who keeps it keeps a checksum.
 */
extern bool prom_codec_unpack(PromSlice frame, PromSlice prefix,
							  char *document, size_t length);

#endif
