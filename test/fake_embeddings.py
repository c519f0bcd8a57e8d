"""What fake_llm.py answers at .../embeddings: vectors of words, so that texts with the same words are near each other,
and so are those with words of the same meaning (MEANINGS).  A model's behaviour of another name is as for a chat: its
errors, its delays; where it would answer, it answers with embeddings.

    fake-embed                 embeddings, of 256 numbers or of "dimensions"
    fake-embed-slow-MS         the same, after MS milliseconds
    fake-embed-long-N          HTTP 400 if a text has more than N characters
    fake-embed-poison          HTTP 500 if a text has POISON in it
    fake-embed-WHAT            a reply that is none: few, many, twice (an index), noindex, nodata, base64, ragged, zero,
                               empty, huge (1e400), nan, word, null
"""

import asyncio
import hashlib
import json
import re

MEANINGS = [{"dog", "hound", "puppy"}, {"cat", "kitten", "tomcat"}, {"car", "automobile", "vehicle"},
            {"drinks", "beverage", "sips"}, {"sea", "ocean"}, {"boat", "ship", "vessel"}]
BEHAVIOUR = re.compile(r"fake-embed(?:-(slow|long)-(\d+)|-(\w+))?\Z")


def place_of(word, n):
    for number, words in enumerate(MEANINGS):
        if word in words:
            word = "meaning %d" % number
    digest = hashlib.md5(word.encode()).digest()
    return int.from_bytes(digest[:4], "big") % n, 1 if digest[4] & 1 else -1


def vector_of(text, n):
    vector = [0.001] * n
    for word in re.findall(r"\w+", text.lower()):
        place, sign = place_of(word, n)
        vector[place] += sign
    return vector


def texts_of(body):
    """Raises ValueError if it is no request for embeddings."""
    texts = body.get("input")
    if isinstance(texts, str):
        texts = [texts]
    if not texts or not all(isinstance(t, str) and t for t in texts):
        raise ValueError("'$.input' is invalid")
    if body.get("encoding_format") != "float":
        raise ValueError("encoding_format must be float here")
    for name in body:
        if name not in ("input", "model", "encoding_format", "dimensions", "user"):
            raise ValueError("Unknown parameter: '%s'" % name)
    return texts


def reply(body):
    texts = texts_of(body)
    n = body.get("dimensions", 256)
    tokens = sum(len(t) // 4 + 1 for t in texts)
    return {"object": "list", "model": body["model"],
            "data": [{"object": "embedding", "index": i, "embedding": vector_of(t, n)} for i, t in enumerate(texts)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def spoil(value, what):
    """A reply that is none, as text."""
    data = value["data"]
    first = data[0]
    if what == "few":
        data.pop()
    elif what == "many":
        data.append(dict(first, index=len(data)))
    elif what == "twice":
        for one in data:
            one["index"] = 0
        data.append(dict(first))
    elif what == "noindex":
        del first["index"]
    elif what == "nodata":
        del value["data"]
    elif what == "base64":
        first["embedding"] = "AACAPwAAAEA="
    elif what == "ragged":
        data.append(dict(first, index=len(data), embedding=[1.0]))
    elif what == "zero":
        first["embedding"] = [0] * 256
    elif what == "empty":
        first["embedding"] = []
    elif what == "null":
        first["embedding"][0] = None
    elif what == "word":
        first["embedding"][0] = "1.0"
    text = json.dumps(value)
    if what in ("huge", "nan"):
        text = text.replace("0.001", {"huge": "1e400", "nan": "NaN"}[what], 1)
    return text.encode()


async def after(connection, body, ms):
    await asyncio.sleep(ms / 1000)
    connection.send_json(reply(body))


def answer(connection, request):
    """Answer; False: it is a behaviour as for a chat."""
    match = BEHAVIOUR.match(request.model)
    try:
        texts = texts_of(request.body)
    except ValueError as wrong:
        connection.send_error(400, str(wrong))
        return True
    if not match:
        return False
    form, number, what = match.groups()
    if form == "slow":
        connection.task = asyncio.ensure_future(after(connection, request.body, int(number)))
    elif form == "long" and max(len(t) for t in texts) > int(number):
        connection.send_error(400, "This model's maximum context length is %s tokens." % number, code="context_length_exceeded")
    elif what == "poison" and any("POISON" in t for t in texts):
        connection.send_error(500, "error as asked for", "server_error")
    elif what and what != "poison":
        connection.send_body(spoil(reply(request.body), what))
    else:
        connection.send_json(reply(request.body))
    return True
