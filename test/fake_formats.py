"""The formats that fake_llm.py speaks beside chat completions: Messages of Anthropic, generateContent of Google and
Responses of OpenAI.

A request becomes one in the form of chat completions, so that each behaviour answers in every format; an answer is
written in the format's own form, whole or as a stream.  As strict as the real servers are: what a request lacks, or
must not have, is an error of HTTP 400.  A turn that calls tools has something that must come back with it unchanged
(thinking with a signature, encrypted reasoning); a request without it is refused.
"""

import json
import re


class Wrong(Exception):
    """The request is refused; the text says why."""


def need(condition, text):
    if not condition:
        raise Wrong(text)


def only(value, names, where):
    for name in value:
        need(name in names.split(), "%s.%s: Extra inputs are not permitted" % (where, name))


def event(value, name=None):
    head = b"" if name is None else b"event: %s\n" % name.encode()
    return head + b"data: " + json.dumps(value).encode() + b"\n\n"


def thirds(text):
    """A text in three pieces."""
    step = len(text) // 3 + 1
    return [text[i:i + step] for i in range(0, len(text), step)]


def text_of(parts):
    return parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts)


def call(call_id, name, arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def read_arguments(one):
    try:
        arguments = json.loads(one["function"]["arguments"])
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


class Anthropic:
    """POST .../messages"""

    PATH = re.compile(r".*/messages\Z")
    REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}

    def __init__(self):
        self.sent = {}      # by the id of a call, the blocks of its turn

    def read(self, body, match, query, headers):
        only(body, "model max_tokens messages system tools tool_choice output_config thinking stop_sequences temperature"
                   " top_p top_k metadata service_tier cache_control stream", "request")
        need(headers.get("anthropic-version") == "2023-06-01", "anthropic-version: header is required")
        need(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
        need(json.dumps(body).count('"cache_control"') <= 4, "A maximum of 4 blocks with cache_control may be provided")
        messages = [{"role": "system", "content": text_of(body["system"])}] if "system" in body else []
        ids = [b["id"] for m in body["messages"] for b in m["content"] if isinstance(b, dict) and b["type"] == "tool_use"]
        need(len(ids) == len(set(ids)), "messages: `tool_use` ids must be unique")
        for at, message in enumerate(body["messages"]):
            self.read_message(messages, message, body["messages"][at - 1] if at else None)
        return {"model": body["model"], "stream": body.get("stream"), "messages": messages, "tools": body.get("tools")}

    def read_message(self, messages, message, before):
        only(message, "role content", "messages")
        need(message["role"] in ("user", "assistant"), "messages: role must be user or assistant")
        blocks = message["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        text = "".join(b["text"] for b in blocks if b["type"] == "text")
        need(all(b["text"].strip() for b in blocks if b["type"] == "text"), "messages: text content blocks must be non-empty")
        called = [b["id"] for b in blocks if b["type"] == "tool_use"]
        for block in blocks:
            if block["type"] == "tool_result":
                need(before is not None and block["tool_use_id"] in
                     [b.get("id") for b in before["content"] if isinstance(b, dict)],
                     "unexpected `tool_use_id` found in `tool_result` blocks: " + block["tool_use_id"])
                messages.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]})
            elif block["type"] == "tool_use":
                need(re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]), "tool_use.id: String should match pattern")
                need(isinstance(block["input"], dict), "tool_use.input: Input should be a valid dictionary")
        if called and called[0] in self.sent:
            need(self.sent[called[0]] == blocks, "`thinking` blocks in the latest assistant message cannot be modified")
        if message["role"] == "assistant":
            messages.append({"role": "assistant", "content": text, "tool_calls": [
                call(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]})
        elif text:
            messages.append({"role": "user", "content": text})

    def blocks(self, request, message):
        blocks = []
        calls = message.get("tool_calls") or []
        if calls:
            blocks.append({"type": "thinking", "thinking": "I need a tool.", "signature": "sig-%d==" % request.n})
        if message.get("content"):
            blocks.append({"type": "text", "text": message["content"]})
        first = len(blocks)
        blocks += [{"type": "tool_use", "id": "toolu_%d_%d" % (request.n, i), "name": one["function"]["name"],
                    "input": read_arguments(one)} for i, one in enumerate(calls)]
        if calls:
            self.sent[blocks[first]["id"]] = blocks
        return blocks

    def message(self, request, blocks, reason, usage):
        return {"id": "msg_%d" % request.n, "type": "message", "role": "assistant", "model": request.model,
                "content": blocks, "stop_reason": reason, "stop_sequence": None, "usage": usage}

    def usage(self, usage):
        return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
                "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}

    def reply(self, request, message, finish, usage):
        return self.message(request, self.blocks(request, message), self.REASONS.get(finish, finish), self.usage(usage))

    def pieces(self, request, message, finish, usage):
        blocks = self.blocks(request, message)
        usage = self.usage(usage)
        pieces = [("message_start", {"message": self.message(request, [], None, dict(usage, output_tokens=1))})]
        for index, block in enumerate(blocks):
            kind = block["type"]
            empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}[kind]
            pieces.append(("content_block_start", {"index": index, "content_block": dict(block, **empty)}))
            deltas = {
                "text": lambda: [{"type": "text_delta", "text": t} for t in thirds(block["text"])],
                "thinking": lambda: [{"type": "thinking_delta", "thinking": t} for t in thirds(block["thinking"])]
                + [{"type": "signature_delta", "signature": block["signature"]}],
                "tool_use": lambda: [{"type": "input_json_delta", "partial_json": t}
                                     for t in [""] + thirds(json.dumps(block["input"]))]}[kind]()
            pieces += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
            pieces.append(("content_block_stop", {"index": index}))
        pieces.append(("message_delta", {"delta": {"stop_reason": self.REASONS.get(finish, finish), "stop_sequence": None},
                                         "usage": {"output_tokens": usage["output_tokens"]}}))
        pieces.append(("message_stop", {}))
        return [event(dict({"type": name}, **value), name) for name, value in pieces]

    def error(self, status, message, error_type, code):
        types = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
                 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
                 529: "overloaded_error"}
        return {"type": "error", "error": {"type": types.get(status, error_type), "message": message}, "request_id": "req"}


class Gemini:
    """POST .../models/MODEL:generateContent, and :streamGenerateContent?alt=sse"""

    PATH = re.compile(r".*/models/([^/:]+):(generateContent|streamGenerateContent)\Z")
    REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
    SKIP = "skip_thought_signature_validator"

    def __init__(self):
        self.sent = {}      # by the signature, the parts of its turn

    def read(self, body, match, query, headers):
        only(body, "contents systemInstruction tools toolConfig generationConfig safetySettings cachedContent", "request")
        need("key=" not in query, "the key belongs in a header")
        stream = match.group(2) == "streamGenerateContent"
        need(not stream or query == "alt=sse", "alt=sse: needed for server-sent events")
        messages = []
        if "systemInstruction" in body:
            messages.append({"role": "system", "content": text_of(body["systemInstruction"]["parts"])})
        for at, content in enumerate(body["contents"]):
            self.read_content(messages, content, body["contents"][at - 1]["parts"] if at else [])
        tools = [f for tool in body.get("tools", ()) for f in tool["functionDeclarations"]]
        return {"model": match.group(1), "stream": stream, "messages": messages, "tools": tools or None}

    def read_content(self, messages, content, before):
        need(content["role"] in ("user", "model"), "contents: role must be user or model")
        parts = content["parts"]
        need(parts, "contents.parts: must not be empty")
        calls = [part for part in parts if "functionCall" in part]
        responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
        text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
        if calls:
            signature = calls[0].get("thoughtSignature")
            need(signature, "Function call is missing a thought_signature in functionCall parts")
            need(signature == self.SKIP or self.sent.get(signature) == parts, "Thought signature is not valid")
        if content["role"] == "model":
            messages.append({"role": "assistant", "content": text, "tool_calls": [
                call("call_%d" % i, part["functionCall"]["name"], part["functionCall"].get("args", {}))
                for i, part in enumerate(calls)]})
            return
        if responses:
            asked = [part["functionCall"] for part in before if "functionCall" in part]
            need([(one.get("id"), one["name"]) for one in asked] == [(r.get("id"), r["name"]) for r in responses],
                 "function response parts must be those of the function call parts of the turn before")
            messages += [{"role": "tool", "tool_call_id": one["id"],
                          "content": r["response"].get("output", r["response"].get("error"))}
                         for one, r in zip(messages[-1]["tool_calls"], responses)]
        else:
            messages.append({"role": "user", "content": text})

    def parts(self, request, message):
        parts = []
        calls = message.get("tool_calls") or []
        if calls:
            parts.append({"text": "I need a tool.", "thought": True})
        if message.get("content"):
            parts.append({"text": message["content"]})
        parts += [{"functionCall": {"name": one["function"]["name"], "args": read_arguments(one)}} for one in calls]
        if calls:
            signature = "sig-%d==" % request.n
            parts[-len(calls)]["thoughtSignature"] = signature
            self.sent[signature] = parts
        return parts

    def response(self, request, parts, reason, usage):
        candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if reason is not None:
            candidate["finishReason"] = reason
        return {"candidates": [candidate], "modelVersion": request.model, "responseId": "r-%d" % request.n,
                "usageMetadata": {"promptTokenCount": usage["prompt_tokens"],
                                  "candidatesTokenCount": usage["completion_tokens"] - 1, "thoughtsTokenCount": 1,
                                  "totalTokenCount": usage["total_tokens"], "cachedContentTokenCount": 0}}

    def reply(self, request, message, finish, usage):
        return self.response(request, self.parts(request, message), self.REASONS.get(finish, finish), usage)

    def pieces(self, request, message, finish, usage):
        pieces = []
        for part in self.parts(request, message):
            texts = thirds(part["text"]) if "text" in part else [None]
            pieces += [[part if text is None else dict(part, text=text)] for text in texts]
        last = len(pieces) - 1
        return [event(self.response(request, parts, self.REASONS.get(finish, finish) if i == last else None, usage))
                for i, parts in enumerate(pieces)]

    def error(self, status, message, error_type, code):
        names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
                 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
        return {"error": {"code": status, "message": message, "status": names.get(status, "UNKNOWN")}}


class Responses:
    """POST .../responses"""

    PATH = re.compile(r".*/responses\Z")

    def __init__(self):
        self.sent = {}      # by the call's id, the reasoning before it

    def read(self, body, match, query, headers):
        only(body, "model input instructions tools tool_choice parallel_tool_calls text max_output_tokens reasoning include"
                   " store temperature stream", "request")
        need(body.get("store") is False, "store: these tests keep nothing at the provider")
        need(not body["model"].startswith("gpt-4") or "include" not in body,
             "Encrypted content is not supported with this model.")
        messages = []
        reasoning = None
        for item in body["input"]:
            kind = item.get("type", "message")
            if kind == "reasoning":
                reasoning = item
            elif kind == "function_call":
                need(self.sent.get(item["call_id"], reasoning) == reasoning,
                     "Item 'function_call' was provided without its required 'reasoning' item")
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(
                    call(item["call_id"], item["name"], json.loads(item["arguments"])))
            elif kind == "function_call_output":
                need(any(one["id"] == item["call_id"] for m in messages for one in m.get("tool_calls", ())),
                     "No tool call found for function call output with call_id " + item["call_id"])
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
            else:
                messages.append({"role": item["role"], "content": text_of(item["content"])})
        need(all("function" not in tool for tool in body.get("tools", ())), "tools[0].function: Unknown parameter")
        return {"model": body["model"], "stream": body.get("stream"), "messages": messages, "tools": body.get("tools")}

    def items(self, request, message):
        items = []
        calls = message.get("tool_calls") or []
        if calls:
            items.append({"type": "reasoning", "id": "rs_%d" % request.n, "summary": [],
                          "encrypted_content": "secret-%d==" % request.n})
        if message.get("content"):
            items.append({"type": "message", "id": "msg_%d" % request.n, "role": "assistant", "status": "completed",
                          "content": [{"type": "output_text", "text": message["content"], "annotations": []}]})
        for i, one in enumerate(calls):
            call_id = "call_%d_%d" % (request.n, i)
            self.sent[call_id] = items[0]
            items.append({"type": "function_call", "id": "fc_%d_%d" % (request.n, i), "call_id": call_id,
                          "name": one["function"]["name"], "arguments": one["function"]["arguments"],
                          "status": "completed"})
        return items

    def response(self, request, items, finish, usage):
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish)
        return {"id": "resp_%d" % request.n, "object": "response", "created_at": int(request.at), "model": request.model,
                "status": "completed" if reason is None else "incomplete", "error": None,
                "incomplete_details": None if reason is None else {"reason": reason}, "output": items,
                "usage": {"input_tokens": usage["prompt_tokens"], "input_tokens_details": {"cached_tokens": 0},
                          "output_tokens": usage["completion_tokens"],
                          "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": usage["total_tokens"]}}

    def reply(self, request, message, finish, usage):
        return self.response(request, self.items(request, message), finish, usage)

    def pieces(self, request, message, finish, usage):
        items = self.items(request, message)
        whole = self.response(request, items, finish, usage)
        pieces = [{"type": "response.created", "response": dict(whole, status="in_progress", output=[], usage=None)}]
        for index, item in enumerate(items):
            pieces.append({"type": "response.output_item.added", "output_index": index,
                           "item": dict(item, status="in_progress",
                                        **({"content": []} if item["type"] == "message" else {}))})
            if item["type"] == "message":
                part = item["content"][0]
                place = {"item_id": item["id"], "output_index": index, "content_index": 0}
                pieces.append({"type": "response.content_part.added", **place, "part": dict(part, text="")})
                pieces += [{"type": "response.output_text.delta", **place, "delta": text} for text in thirds(part["text"])]
                pieces.append({"type": "response.output_text.done", **place, "text": part["text"]})
                pieces.append({"type": "response.content_part.done", **place, "part": part})
            pieces.append({"type": "response.output_item.done", "output_index": index, "item": item})
        pieces.append({"type": "response." + whole["status"], "response": whole})
        return [event(dict(piece, sequence_number=n), piece["type"]) for n, piece in enumerate(pieces)]

    def error(self, status, message, error_type, code):
        return {"error": {"message": message, "type": error_type, "param": None, "code": code}}


FORMATS = [Anthropic(), Gemini(), Responses()]


def find(path):
    """The format of requests to this path, and the match; None: it is none."""
    for form in FORMATS:
        match = form.PATH.match(path)
        if match:
            return form, match
    return None, None
