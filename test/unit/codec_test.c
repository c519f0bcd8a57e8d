/*
 * codec_test.c
 *	  Tests of codec.c.
 */
#include "postgres.h"

#include "codec.h"
#include "standin.h"

static const PromSlice nothing = {NULL, 0};

/* Words, so that it is like text: neither all the same nor random. */
static char *
make_document(size_t length, unsigned seed)
{
	static const char *const words[] = {"\"role\": ", "user", "assistant", "{",
										"}, ", "the ", "answer ", "is ", "42"};
	char *document = malloc(length + 16);
	size_t at = 0;

	while (at < length)
	{
		const char *word = words[next_random(&seed) % lengthof(words)];

		memcpy(document + at, word, strlen(word));
		at += strlen(word);
		if (next_random(&seed) % 4 == 0)
			document[at++] = (char) (' ' + next_random(&seed) % 90);
	}
	return document;
}

/* Pack and unpack; the length of the frame. */
static size_t
round_trip(PromSlice document, PromSlice prefix, const char *about)
{
	size_t room = prom_codec_bound(document.length);
	char *frame = malloc(room);
	char *again = malloc(document.length + 1);
	size_t length = prom_codec_pack(document, prefix, frame, room);
	PromSlice packed = {frame, length};

	check(length > 0, "%s is packed", about);
	check(prom_codec_unpack(packed, prefix, again, document.length) &&
			  memcmp(again, document.data, document.length) == 0,
		  "%s comes back", about);
	check(!prom_codec_unpack(packed, prefix, again, document.length + 1),
		  "%s is not longer", about);
	if (document.length > 0)
		check(!prom_codec_unpack(packed, prefix, again, document.length - 1),
			  "%s is not shorter", about);
	free(frame);
	free(again);
	return length;
}

static void
test_lengths(void)
{
	static const size_t lengths[] = {0, 1, 255, 256, 4096, 100000, 3000000};

	for (int i = 0; i < lengthof(lengths); i++)
	{
		char *document = make_document(lengths[i], 1);
		char *other = make_document(lengths[i] / 2, 2);
		PromSlice slice = {document, lengths[i]};
		PromSlice prefix = {other, lengths[i] / 2};

		round_trip(slice, nothing, "a document");
		round_trip(slice, prefix, "a document with a prefix");
		free(document);
		free(other);
	}
}

/* What is alike costs next to nothing, however far away it is. */
static void
test_gain(void)
{
	static const size_t lengths[] = {8192, 400000, 6000000};

	for (int i = 0; i < lengthof(lengths); i++)
	{
		char *document = make_document(lengths[i], 3);
		char *next = malloc(lengths[i] + 4);
		PromSlice prefix = {document, lengths[i]};
		PromSlice changed = {next, lengths[i] + 4};
		size_t alone;
		size_t delta;

		/* Something is inserted in the middle, so that all behind it moves. */
		memcpy(next, document, lengths[i] / 2);
		memcpy(next + lengths[i] / 2, "NEW!", 4);
		memcpy(next + lengths[i] / 2 + 4, document + lengths[i] / 2,
			   lengths[i] - lengths[i] / 2);
		alone = round_trip(changed, nothing, "a changed document");
		delta = round_trip(changed, prefix, "a changed document with its prefix");
		check(delta * 20 < alone, "%zu bytes: %zu with a prefix, %zu without",
			  lengths[i], delta, alone);
		free(document);
		free(next);
	}
}

/* Whatever a frame is, reading it ends, and within its room. */
static void
test_damage(void)
{
	char *document = make_document(5000, 4);
	char *other = make_document(5000, 5);
	PromSlice slice = {document, 5000};
	PromSlice prefix = {other, 5000};
	size_t room = prom_codec_bound(slice.length);
	char *frame = malloc(room);
	size_t length = prom_codec_pack(slice, prefix, frame, room);
	unsigned seed = 6;
	int begun = group_begin();

	for (int i = 0; i < 20000; i++)
	{
		size_t cut = i % 3 == 0 ? next_random(&seed) % length : length;
		char *damaged = malloc(cut + 1);
		char *to = malloc(slice.length);
		PromSlice packed = {damaged, cut};

		memcpy(damaged, frame, cut);
		for (unsigned n = next_random(&seed) % 4; n > 0 && cut > 0; n--)
			damaged[next_random(&seed) % cut] ^= (char) next_random(&seed);
		(void) prom_codec_unpack(packed, i % 2 == 0 ? prefix : nothing, to,
								 slice.length);
		if (cut < length)
			check(!prom_codec_unpack(packed, prefix, to, slice.length),
				  "what is cut off at %zu is not read", cut);
		free(damaged);
		free(to);
	}
	group_end(begun);
	check(!prom_codec_unpack(nothing, nothing, document, 1),
		  "nothing is not read");
	check(prom_codec_pack(slice, prefix, frame, 10) == 0,
		  "there must be room for a frame");
	round_trip(slice, prefix, "after that, a document");
	free(frame);
	free(document);
	free(other);
}

int
main(void)
{
	test_lengths();
	test_gain();
	test_damage();
	return report();
}
