/*
 * codec.c
 *	  Compresses a document, alone or by what an earlier one has in common.
 *
 * Versions of one document are mostly alike.  zstd can be given an earlier one
 * as a prefix, as if it stood just before the document: what is the same is
 * then a reference, whatever the format is, and no code of ours need know what
 * has changed.  zlib could not, since it looks back 32 kB only.
 *
 * The contexts are kept: making one costs more than a small document.
 */
#include "codec.h"

#include <zstd.h>

/* A higher level costs several times as much and gains a tenth. */
#define LEVEL 3

/* Of a window: room for a prefix and a document of 64 MB each. */
#define MIN_WINDOW_LOG 10
#define MAX_WINDOW_LOG 27

/* From here on zstd's hash tables are too small to find what is far away. */
#define FAR_AWAY ((size_t) 1024 * 1024)

/* A context that has grown beyond it is not kept. */
#define MAX_KEPT ((size_t) 16 * 1024 * 1024)

static ZSTD_CCtx *packer = NULL;
static ZSTD_DCtx *unpacker = NULL;

size_t
prom_codec_bound(size_t length)
{
	return ZSTD_compressBound(length);
}

static int
window_log(size_t length)
{
	int bits = MIN_WINDOW_LOG;

	while (bits < MAX_WINDOW_LOG && ((size_t) 1 << bits) < length)
		bits++;
	return bits;
}

/* References must reach from the document's end to the prefix's begin. */
static bool
use_prefix(PromSlice document, PromSlice prefix)
{
	size_t length = document.length + prefix.length;

	return !ZSTD_isError(ZSTD_CCtx_setParameter(packer, ZSTD_c_windowLog,
												window_log(length))) &&
		   !ZSTD_isError(
			   ZSTD_CCtx_setParameter(packer,
									  ZSTD_c_enableLongDistanceMatching,
									  length > FAR_AWAY ? 1 : 0)) &&
		   !ZSTD_isError(
			   ZSTD_CCtx_refPrefix(packer, prefix.data, prefix.length));
}

size_t
prom_codec_pack(PromSlice document, PromSlice prefix, char *frame, size_t room)
{
	size_t length;

	if (packer == NULL)
		packer = ZSTD_createCCtx();
	if (packer == NULL)
		return 0;
	if (ZSTD_isError(ZSTD_CCtx_reset(packer,
									 ZSTD_reset_session_and_parameters)) ||
		ZSTD_isError(ZSTD_CCtx_setParameter(packer, ZSTD_c_compressionLevel,
											LEVEL)) ||
		(prefix.length > 0 && !use_prefix(document, prefix)))
		return 0;
	length = ZSTD_compress2(packer, frame, room, document.data,
							document.length);
	if (ZSTD_sizeof_CCtx(packer) > MAX_KEPT)
	{
		ZSTD_freeCCtx(packer);
		packer = NULL;
	}
	return ZSTD_isError(length) ? 0 : length;
}

bool
prom_codec_holds(PromSlice frame, size_t length)
{
	return ZSTD_getFrameContentSize(frame.data, frame.length) == length;
}

bool
prom_codec_unpack(PromSlice frame, PromSlice prefix, char *document,
				  size_t length)
{
	if (!prom_codec_holds(frame, length))
		return false;
	if (unpacker == NULL)
		unpacker = ZSTD_createDCtx();
	if (unpacker == NULL)
		return false;
	if (ZSTD_isError(ZSTD_DCtx_reset(unpacker,
									 ZSTD_reset_session_and_parameters)) ||
		(prefix.length > 0 &&
		 ZSTD_isError(
			 ZSTD_DCtx_refPrefix(unpacker, prefix.data, prefix.length))))
		return false;
	return ZSTD_decompressDCtx(unpacker, document, length, frame.data,
							   frame.length) == length;
}
