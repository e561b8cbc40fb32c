"""SmolLM2 behind OpenAI's API: llama.cpp's own server, and one that makes tool calls."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

from governor.records import Call, Reply, Rung
from governor_local import LocalBackend
from governor_local.schema_tools import SchemaTools


@contextmanager
def llama_server(model: Path) -> Generator[str, None, None]:
    """The URL of llama.cpp's server: chat completions, whole and streamed, JSON Schema, and responses."""
    xllamacpp: Any = import_module("xllamacpp")  # its types leave out what it has
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_parallel, parameters.n_ctx, parameters.port = 2, 4096, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    yield server.listening_address
    del server


@contextmanager
def tool_server(model: str) -> Generator[str, None, None]:
    """The URL of a server that calls tools: so small a model does so only where its answers are held to a schema."""
    local = LocalBackend(threads=1)
    handler = type("_Bound", (_Handler,), {"backend": SchemaTools(local), "model": model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        local.close()


class _Handler(BaseHTTPRequestHandler):
    backend: SchemaTools  # both of the subclass that each server makes
    model: str

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reply = self.backend.call(_call(body, self.model))
        if body.get("stream"):
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in _events(reply)) + "data: [DONE]\n\n"
            self._send("text/event-stream", text)
        else:
            self._send("application/json", json.dumps(_whole(reply)))

    def _send(self, kind: str, text: str) -> None:
        raw = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test output clean."""


def _call(body: Mapping[str, Any], model: str) -> Call:
    most = body.get("max_tokens") or body.get("max_completion_tokens") or 64
    return Call(
        step_id="served",
        rung=Rung(id="served", model=model, answer_tokens=most, temperature=0.0),
        messages=tuple(body["messages"]),
        tools=tuple(body.get("tools") or ()),
        tool_choice=body.get("tool_choice"),
    )


def _message(reply: Reply) -> dict[str, Any]:
    calls = [
        {"index": place, "id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for place, one in enumerate(reply.tool_calls)
    ]
    return {"role": "assistant", "content": reply.text or None, **({"tool_calls": calls} if calls else {})}


def _whole(reply: Reply) -> dict[str, Any]:
    choice = {"index": 0, "message": _message(reply), "finish_reason": reply.finish_reason}
    return {**_base("chat.completion"), "choices": [choice], "usage": _usage(reply)}


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    base = _base("chat.completion.chunk")
    yield {**base, "choices": [{"index": 0, "delta": _message(reply), "finish_reason": None}]}
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}]}
    yield {**base, "choices": [], "usage": _usage(reply)}


def _base(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "served"}


def _usage(reply: Reply) -> dict[str, int]:
    given, made = reply.usage.input_tokens, reply.usage.output_tokens
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
