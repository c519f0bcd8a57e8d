/*
 * frame.h
 *	  What is stored of a version of a state.
 */
#ifndef PROM_FRAME_H
#define PROM_FRAME_H

#include "utils/jsonb.h"

typedef struct PromFrame
{
	int64 version;
	int64 base_version; /* the key frame that it needs; 0: it is one */
	int32 bytes;        /* of the document */
	int32 run;          /* of the frames since the key frame, with this one */
	int32 checksum;     /* of the document */
	int16 codec;        /* a PromCodec */
	int16 form;         /* how the document is to be read */
	bytea *data;
} PromFrame;

/* The bytes of a document, as states count them. */
extern Size prom_frame_bytes(const Jsonb *value);

/*
 * Fill in a frame for a value.  newest, if there is one, is that of the version
 * before, and key its key frame; both may be NULL.
 */
extern void prom_frame_encode(PromFrame *frame, const Jsonb *value,
							  const PromFrame *newest, const PromFrame *key);

/* The value of a frame; key: of its base_version.  NULL: it is damaged. */
extern Jsonb *prom_frame_decode(const PromFrame *frame, const PromFrame *key);

#endif
