"""A deterministic model server for three request formats: what it answers depends on the request alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

WEAK, STRONG = "41 is it", "42 is it"
LOOP = "so it goes round "
HANG = 3.0
TELLS = {
    "tellsfine": "All is well. It comes to 42. That is all there is to say.",
    "tellsearly": "This is bad. It comes to 42. That is all there is to say.",
    "tellslate": "All is well. It is bad though. That is all there is to say.",
    "tellswrong": "All is well. It comes to 41. That is all there is",
    "tellsend": "All is well. It comes to 42 which is bad",
}
"""What a weak model answers that is asked for it by this word."""


CALLED: Mapping[str, Mapping[str, Any]] = {
    "custom_tool_call": {"name": "shell", "input": "ls -l"},
    "shell_call": {"action": {"commands": ["ls"], "timeout_ms": 1, "max_output_length": 10}},
    "local_shell_call": {"action": {"type": "exec", "command": ["ls"], "env": {}}},
    "apply_patch_call": {"operation": {"type": "delete_file", "path": "x"}},
    "computer_call": {"action": {"type": "screenshot"}, "pending_safety_checks": []},
}
"""Calls of tools that a client runs, in a response."""


def texts(body: Mapping[str, Any]) -> str:
    return json.dumps([body.get(name) for name in ("messages", "input", "system", "instructions")])


def answer(body: Mapping[str, Any]) -> str:
    """A large model, or a small one that thinks hard, is right; what is asked to is repeated."""
    effort = str(body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort"))
    strong = "large" in str(body.get("model")) or "opus" in str(body.get("model")) or effort == "high"
    told = next((text for word, text in TELLS.items() if word in texts(body)), WEAK)
    return STRONG if strong else LOOP * 40 if "loops" in texts(body) else told


def thought(body: Mapping[str, Any]) -> str:
    """What is thought before the answer, by a model that ponders."""
    weak = not any(name in str(body.get("model")) for name in ("large", "opus"))
    return " ".join(f"t{number}." for number in range(60)) if weak and "ponders" in texts(body) else ""


def usage(body: Mapping[str, Any]) -> tuple[int, int, int]:
    """Input, output and thinking tokens."""
    return 20, 30 if "large" in str(body.get("model")) else 10, 4


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class Upstream:
    """Words in the request make it misbehave: fail500, fail400, fail429, hang, cut, breaks, slow, usetool, nousage.

    unfinished: a stream of chat ends after its last word, as if that were all. afterwards: it fails after its end.

    caches: of a message's input, more was written to the provider's cache, and some read from it.
    compacts: the provider first wrote the conversation of a message anew, which its iterations alone tell.
    custom: the tool that it calls is a custom one. halves: the event that ends a message comes in two pieces.
    Words of CALLED: it calls such a tool, of responses alone.

    Of the weak models alone: loops (the answer has no end to speak of), ponders (it thinks first), those of TELLS.
    merged: an answer with "though" comes in two pieces, which are cut there.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.peers: list[int] = []
        """The client's port of each request: the same for requests on one connection."""
        self.keeps = False
        """Whether connections stay open after whole answers."""
        self.cut_off = 0
        """Streams whose reader went away."""
        self.finished = 0
        """Streams of which all is sent but the last piece, or that too."""
        self.hang = HANG
        """Seconds for which it hangs where a request makes it."""
        self.hung = 0
        """Requests that hung to the end."""
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("_Bound", (_Handler,), {"upstream": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def reset(self) -> None:
        self.seen.clear()
        self.paths.clear()
        self.headers.clear()
        self.peers.clear()
        self.cut_off = self.finished = self.hung = 0
        self.hang = HANG

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def whole(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if path.endswith("/responses"):
        return _response(body)
    return _message(body) if path.endswith("/messages") else _chat(body)


def _chat(body: Mapping[str, Any]) -> dict[str, Any]:
    given, made, thought = usage(body)
    message: dict[str, Any] = {"role": "assistant", "content": answer(body)}
    finish = "stop"
    if body.get("tools") and "usetool" in texts(body):
        name = body["tools"][0]["function"]["name"]
        told = answer(body) if any(word in texts(body) for word in TELLS) else None
        message |= {"content": told, "tool_calls": [_custom() if "custom" in texts(body) else _tool(name)]}
        finish = "tool_calls"
    if body.get("functions") and "usetool" in texts(body):
        message |= {"content": None, "function_call": _tool(body["functions"][0]["name"])["function"]}
        finish = "function_call"
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [{"token": "4", "logprob": -0.1, "bytes": [52], "top_logprobs": []}]}
    choices = [{**choice, "index": index} for index in range(body.get("n") or 1)]
    counts = {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "completion_tokens_details": {"reasoning_tokens": thought},
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body.get("model")}
    return {**base, "choices": choices, **({} if "nousage" in texts(body) else {"usage": counts})}


def _tool(name: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city": "Oslo"}'}}


def _custom() -> dict[str, Any]:
    return {"id": "call_1", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}}


def _response(body: Mapping[str, Any]) -> dict[str, Any]:
    given, made, thought = usage(body)
    counts = {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": given + made,
    }
    part = {"type": "output_text", "text": answer(body), "annotations": []}
    output: list[dict[str, Any]] = [
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    ]
    if body.get("tools") and "usetool" in texts(body):
        call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": body["tools"][0]["name"]}
        output = [{**call, "arguments": '{"city": "Oslo"}', "status": "completed"}]
    for kind in CALLED.keys() & set(texts(body).replace('"', " ").split()):
        output = [{"type": kind, "id": "ct_1", "call_id": "call_1", "status": "completed", **CALLED[kind]}]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body.get("model"),
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        **({} if "nousage" in texts(body) else {"usage": counts}),
    }


def _message(body: Mapping[str, Any]) -> dict[str, Any]:
    given, made, _ = usage(body)
    content: list[dict[str, Any]] = [{"type": "text", "text": answer(body)}]
    stop = "end_turn"
    if body.get("tools") and "usetool" in texts(body):
        content = [{"type": "tool_use", "id": "toolu_1", "name": body["tools"][0]["name"], "input": {"city": "Oslo"}}]
        stop = "tool_use"
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": given, "output_tokens": made} | _cached(body) | _compacted(body),
    }


def _cached(body: Mapping[str, Any]) -> dict[str, int]:
    return {"cache_creation_input_tokens": 30, "cache_read_input_tokens": 4} if "caches" in texts(body) else {}


def _compacted(body: Mapping[str, Any]) -> dict[str, Any]:
    given, made, _ = usage(body)
    first = {"type": "compaction", "input_tokens": 2000, "output_tokens": 300, "cache_read_input_tokens": 50}
    second = {"type": "message", "input_tokens": given, "output_tokens": made} | _cached(body)
    return {"iterations": [first, second]} if "compacts" in texts(body) else {}


def pieces(path: str, body: Mapping[str, Any]) -> Iterator[str]:
    """The events of a stream."""
    if path.endswith("/responses"):
        yield from _response_events(body)
    elif path.endswith("/messages"):
        yield from _message_events(body)
    else:
        yield from _chat_events(body)


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split()]


def _deltas(body: Mapping[str, Any], message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The pieces of a message of chat."""
    yield {"role": "assistant", "content": ""}
    for word in _words(thought(body)):
        yield {"reasoning_content": word}
    for word in _words(message["content"] or ""):
        yield {"content": word}
    for call in message.get("tool_calls") or ():
        yield {"tool_calls": [{"index": 0, **call}]}
    if call := message.get("function_call"):
        yield {"function_call": {"name": call["name"], "arguments": ""}}
        for word in _words(call["arguments"]):
            yield {"function_call": {"arguments": word}}
    for number in range(50 if "slow" in texts(body) else 0):
        yield {"content": f"w{number} "}


def _chat_events(body: Mapping[str, Any]) -> Iterator[str]:
    held = _chat(body)
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
    choice = held["choices"][0]
    counts, made = bool((body.get("stream_options") or {}).get("continuous_usage_stats")), 0

    def event(delta: Mapping[str, Any], finish: str | None = None) -> str:
        nonlocal made
        word = delta.get("content") or delta.get("reasoning_content")
        made += bool(word)
        told: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
        if word and body.get("logprobs"):
            told["logprobs"] = {"content": [_told(word, body)]}
        usage = {"prompt_tokens": 20, "completion_tokens": made, "total_tokens": 20 + made}
        return f"data: {json.dumps({**base, 'choices': [told], **({'usage': usage} if counts else {})})}\n\n"

    for delta in _deltas(body, choice["message"]):
        yield event(delta)
    if "unfinished" in texts(body) and not _spared(body):
        return
    yield event({}, choice["finish_reason"])
    if (body.get("stream_options") or {}).get("include_usage") and "usage" in held:
        yield f"data: {json.dumps({**base, 'choices': [], 'usage': held['usage']})}\n\n"
    if "afterwards" in texts(body):
        yield f"data: {json.dumps({'error': {'message': 'no', 'type': 'server_error', 'code': 500}})}\n\n"
    yield "data: [DONE]\n\n"


def _told(word: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A token's log-probability, and a thought's end among the likeliest in its place."""
    likely = [{"token": word, "logprob": -0.1, "bytes": None}, {"token": "</think>", "logprob": -0.15, "bytes": None}]
    return {"token": word, "logprob": -0.1, "bytes": None, "top_logprobs": likely[: body.get("top_logprobs") or 0]}


def _named(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def _response_events(body: Mapping[str, Any]) -> Iterator[str]:
    held = _response(body)
    yield _named("response.created", response={**held, "status": "in_progress", "output": [], "usage": None})
    if held["output"][0]["type"] in CALLED:
        for event in ("added", "done"):
            yield _named(f"response.output_item.{event}", output_index=0, item=held["output"][0])
        yield _named("response.completed", response=held)
        return
    at = 0
    if thinking := thought(body):
        at, place = 1, {"output_index": 0, "item_id": "rs_1", "summary_index": 0}
        item: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": []}
        yield _named("response.output_item.added", output_index=0, item=item)
        part: dict[str, Any] = {"type": "summary_text", "text": ""}
        yield _named("response.reasoning_summary_part.added", **place, part=part)
        for word in _words(thinking):
            yield _named("response.reasoning_summary_text.delta", **place, delta=word)
        yield _named("response.reasoning_summary_text.done", **place, text=thinking)
        yield _named("response.reasoning_summary_part.done", **place, part={**part, "text": thinking})
        item = {**item, "summary": [{**part, "text": thinking}]}
        yield _named("response.output_item.done", output_index=0, item=item)
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    place = {"output_index": at, "item_id": "msg_1", "content_index": 0}
    yield _named("response.output_item.added", output_index=at, item=item)
    part = {"type": "output_text", "text": "", "annotations": []}
    yield _named("response.content_part.added", **place, part=part)
    for word in _words(answer(body)):
        yield _named("response.output_text.delta", **place, delta=word)
    yield _named("response.output_text.done", **place, text=answer(body))
    yield _named("response.completed", response=held)


def _message_events(body: Mapping[str, Any]) -> Iterator[str]:
    held = _message(body)
    yield _named("message_start", message={**held, "content": [], "stop_reason": None})
    block, at = held["content"][0], 0
    if thinking := thought(body):
        yield _named("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""})
        for word in _words(thinking):
            yield _named("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": word})
        yield _named("content_block_stop", index=0)
        at = 1
    if block["type"] == "tool_use":
        yield _named("content_block_start", index=at, content_block={**block, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield _named("content_block_delta", index=at, delta=delta)
    else:
        yield _named("content_block_start", index=at, content_block={"type": "text", "text": ""})
        for word in _words(block["text"]):
            yield _named("content_block_delta", index=at, delta={"type": "text_delta", "text": word})
    yield _named("content_block_stop", index=at)
    told = {"stop_reason": held["stop_reason"], "stop_sequence": None}
    counts = {"output_tokens": held["usage"]["output_tokens"]} | _compacted(body)
    yield _named("message_delta", delta=told, usage=counts)
    yield _named("message_stop")


def _spared(body: Mapping[str, Any]) -> bool:
    """Whether only the weak model is to fail, and this is the other one."""
    return "onlyweak" in texts(body) and "large" in str(body.get("model"))


def _failure(body: Mapping[str, Any]) -> int | None:
    asked = (status for status in (400, 429, 500) if f"fail{status}" in texts(body))
    return None if _spared(body) else next(asked, None)


class _Handler(BaseHTTPRequestHandler):
    upstream: Upstream  # of the subclass that each server makes

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms until its head is acknowledged

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        path = self.path.partition("?")[0]
        self.upstream.seen.append(body)
        self.upstream.paths.append(path)
        self.upstream.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.upstream.peers.append(self.client_address[1])
        self.close_connection = True
        said = texts(body)
        status = _failure(body)
        if status:
            self._json({"error": {"message": "no", "type": "t", "code": str(status)}}, status)
            return
        if "hang" in said:
            if self.upstream.closing.wait(self.upstream.hang):
                return
            self.upstream.hung += 1
        if body.get("stream"):
            self._stream(path, body)
        else:
            self._json(whole(path, body))

    def _json(self, value: Mapping[str, Any], status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.close_connection = not self.upstream.keeps
        if self.close_connection:
            self.send_header("connection", "close")  # a client that keeps it would find it closed
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, path: str, body: Mapping[str, Any]) -> None:
        self.send_response(200)
        self.send_header("connection", "close")  # a client that keeps it would find it closed
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self._send(path, body)
        except OSError:
            self.upstream.cut_off += 1

    def _send(self, path: str, body: Mapping[str, Any]) -> None:
        said = texts(body)
        every = [*pieces(path, body)]
        if "merged" in said:
            text = "".join(every)
            every = [text[: text.index("though")], text[text.index("though") :]]
        if "halves" in said:
            at = next(at for at, piece in enumerate(every) if "message_delta" in piece)
            every[at : at + 1] = [every[at][:60], every[at][60:]]
        for number, piece in enumerate(every):
            breaks = ("cut" in said and number == 3) or ("breaks" in said and number == 8)
            if breaks and not _spared(body):
                return
            self.upstream.finished += piece is every[-1]
            raw = piece.encode()
            self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
            self.wfile.flush()
            if "slow" in said or "halves" in said:
                time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test output clean."""
