/*
 * frame.c
 *	  Makes frames of the versions of a state, and reads them.
 *
 * DESIGN
 *
 * A version is stored as a frame.  A *key frame* needs nothing else.  A *delta*
 * is compressed with the document of the last key frame as zstd's prefix, and
 * of nothing but that one, so that a version is read by two frames at most,
 * however many there are.  A document of less than 256 bytes, and one that zstd
 * does not make shorter, is stored as it is.
 *
 * A delta grows with what has changed since its key frame.  A new key frame is
 * made when all deltas since the last one would together be longer than that
 * is.  If a document changes by about the same each time, that is the distance
 * at which key frames and deltas together are shortest.  And one is made when a
 * delta is not even half as long as a key frame would be: then the document has
 * become another one.
 *
 * What is compressed is the binary form of jsonb, without its length.  As text
 * it would have to be parsed at each read, which takes several times as long as
 * to read and unpack it.  That form is the same in all versions of PostgreSQL
 * and on all machines of the same byte order.  Its strings are in the encoding
 * of the database, and by them its keys are sorted; so the frame says which
 * that was, and in a database of another one it is read by way of the text.
 * The checksum is of the document, so it finds damage of either frame before
 * anybody follows what the document says of its own inside.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "port/pg_crc32c.h"
#include "utils/fmgrprotos.h"

#include "codec.h"
#include "compat.h"
#include "frame.h"

/* Shorter documents are not compressed. */
#define MIN_PACKED 256

/* A form is an encoding's number; of the other byte order it is -1 - that. */
#ifdef WORDS_BIGENDIAN
#define FORM_OF(encoding) (-1 - (encoding))
#else
#define FORM_OF(encoding) (encoding)
#endif

static PromSlice
document_of(const Jsonb *value)
{
	PromSlice document = {VARDATA(value), VARSIZE(value) - VARHDRSZ};

	return document;
}

static PromSlice
data_of(const PromFrame *frame)
{
	PromSlice data = {VARDATA_ANY(frame->data), VARSIZE_ANY_EXHDR(frame->data)};

	return data;
}

static int32
checksum_of(PromSlice document)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, document.data, document.length);
	FIN_CRC32C(crc);
	return (int32) crc;
}

Size
prom_frame_bytes(const Jsonb *value)
{
	return document_of(value).length;
}

/* As it was stored, in whatever form; NULL: it is damaged. */
static Jsonb *
read_document(const PromFrame *frame, PromSlice prefix)
{
	PromSlice data = data_of(frame);
	Jsonb *value;
	bool ok = true;

	/* It may be damage that says so: nothing is asked for that is not there. */
	if (frame->bytes < (int32) sizeof(uint32) ||
		(Size) frame->bytes > MaxAllocSize - VARHDRSZ ||
		(frame->codec == PROM_CODEC_PLAIN
			 ? data.length != (size_t) frame->bytes
			 : !prom_codec_holds(data, frame->bytes)))
		return NULL;
	value = palloc(VARHDRSZ + frame->bytes);
	SET_VARSIZE(value, VARHDRSZ + frame->bytes);
	if (frame->codec == PROM_CODEC_PLAIN)
		memcpy(VARDATA(value), data.data, data.length);
	else
		ok = prom_codec_unpack(data, prefix, VARDATA(value), frame->bytes);
	if (ok && checksum_of(document_of(value)) == frame->checksum)
		return value;
	pfree(value);
	return NULL;
}

/* The document of a key frame; NULL: it is none, or damaged. */
static Jsonb *
read_key(const PromFrame *key)
{
	PromSlice none = {NULL, 0};

	if (key == NULL || key->base_version != 0 ||
		(key->codec != PROM_CODEC_PLAIN && key->codec != PROM_CODEC_ZSTD))
		return NULL;
	return read_document(key, none);
}

static bytea *
pack(PromSlice document, PromSlice prefix)
{
	size_t room = prom_codec_bound(document.length);
	bytea *data = palloc(VARHDRSZ + room);
	size_t length = prom_codec_pack(document, prefix, VARDATA(data), room);

	if (length == 0)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY),
						errmsg("out of memory"),
						errdetail("A state of %zu bytes could not be compressed.",
								  document.length)));
	SET_VARSIZE(data, VARHDRSZ + length);
	return data;
}

static bytea *
copy(PromSlice document)
{
	bytea *data = palloc(VARHDRSZ + document.length);

	memcpy(VARDATA(data), document.data, document.length);
	SET_VARSIZE(data, VARHDRSZ + document.length);
	return data;
}

/* A frame that needs nothing else. */
static void
encode_key(PromFrame *frame, PromSlice document)
{
	PromSlice none = {NULL, 0};

	frame->base_version = 0;
	frame->run = 0;
	if (document.length >= MIN_PACKED)
	{
		frame->codec = PROM_CODEC_ZSTD;
		frame->data = pack(document, none);
		if (VARSIZE_ANY_EXHDR(frame->data) < document.length)
			return;
		pfree(frame->data);
	}
	frame->codec = PROM_CODEC_PLAIN;
	frame->data = copy(document);
}

/* False: the key frame is damaged, or there were enough deltas of it. */
static bool
encode_delta(PromFrame *frame, PromSlice document, const PromFrame *newest,
			 const PromFrame *key)
{
	int64 key_length = VARSIZE_ANY_EXHDR(key->data);
	Jsonb *base = key->bytes < MIN_PACKED ? NULL : read_key(key);
	int64 run;

	if (base == NULL)
		return false;
	frame->data = pack(document, document_of(base));
	pfree(base);
	run = newest->run + (int64) VARSIZE_ANY_EXHDR(frame->data);
	if (run > key_length)
	{
		pfree(frame->data);
		return false;
	}
	frame->codec = PROM_CODEC_DELTA;
	frame->base_version = key->version;
	frame->run = (int32) run;
	return true;
}

/* Is a delta so long that a key frame may be less than twice as long? */
static bool
is_long(const PromFrame *delta, const PromFrame *key)
{
	double expected = (double) VARSIZE_ANY_EXHDR(key->data) / key->bytes *
					  delta->bytes;

	return 2 * (double) VARSIZE_ANY_EXHDR(delta->data) > expected;
}

void
prom_frame_encode(PromFrame *frame, const Jsonb *value, const PromFrame *newest,
				  const PromFrame *key)
{
	PromSlice document = document_of(value);
	PromFrame delta;

	frame->bytes = (int32) document.length;
	frame->checksum = checksum_of(document);
	frame->form = (int16) FORM_OF(GetDatabaseEncoding());
	delta = *frame;
	if (document.length < MIN_PACKED || newest == NULL || key == NULL ||
		!encode_delta(&delta, document, newest, key))
		encode_key(frame, document);
	else if (!is_long(&delta, key))
		*frame = delta;
	else
	{
		encode_key(frame, document);
		if (VARSIZE_ANY_EXHDR(frame->data) / 2 >
			VARSIZE_ANY_EXHDR(delta.data))
			*frame = delta;
	}
}

/* From another encoding, or as it is. */
static Jsonb *
convert(const PromFrame *frame, Jsonb *value)
{
	char *text;

	if (frame->form == FORM_OF(GetDatabaseEncoding()))
		return value;
	if (FORM_OF(0) != (frame->form < 0 ? -1 : 0))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("version %lld of the state was written on a machine of another byte order",
						(long long) frame->version),
				 errhint("Read it on such a machine, and save it here.")));
	if (!PG_VALID_BE_ENCODING(FORM_OF(frame->form)))
		return NULL;
	text = JsonbToCString(NULL, &value->root, VARSIZE(value));
	text = pg_any_to_server(text, strlen(text), FORM_OF(frame->form));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

Jsonb *
prom_frame_decode(const PromFrame *frame, const PromFrame *key)
{
	PromSlice prefix = {NULL, 0};
	Jsonb *base = NULL;
	Jsonb *value;

	if (frame->codec != PROM_CODEC_DELTA && frame->codec != PROM_CODEC_ZSTD &&
		frame->codec != PROM_CODEC_PLAIN)
		return NULL;
	if ((frame->codec == PROM_CODEC_DELTA) != (frame->base_version != 0))
		return NULL;
	if (frame->codec == PROM_CODEC_DELTA)
	{
		base = read_key(key);
		if (base == NULL)
			return NULL;
		prefix = document_of(base);
	}
	value = read_document(frame, prefix);
	if (base != NULL)
		pfree(base);
	return value == NULL ? NULL : convert(frame, value);
}
