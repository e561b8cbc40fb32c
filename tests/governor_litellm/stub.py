"""A local HTTP server that records what LiteLLM really sends and misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "completion_tokens_details": {"reasoning_tokens": 3},
    "prompt_tokens_details": {"cached_tokens": 2},
}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    peer: int
    """The client's port: the same for requests on one connection."""


@dataclass(frozen=True)
class Answer:
    """One scripted response. `hang` waits before anything is sent; `cut` promises more bytes than it sends."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: float = 0.0
    cut: bool = False


def chat(content: str | None = "ok", **extra: Any) -> Answer:
    """A chat completion; `usage` and `finish_reason` may be overridden, other keys go into the message."""
    usage = extra.pop("usage", USAGE)
    choice: dict[str, Any] = {"index": 0, "finish_reason": extra.pop("finish_reason", "stop")}
    if "logprobs" in extra:
        choice["logprobs"] = extra.pop("logprobs")
    choice["message"] = {"role": "assistant", "content": content, **extra}
    return as_json(
        {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        | ({"usage": usage} if usage else {})
    )


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"content-type": "application/json", **headers})


def error(status: int, message: str = "no", **headers: str) -> Answer:
    return as_json({"error": {"message": message, "type": "t", "code": str(status)}}, status, **headers)


def sse(*events: Mapping[str, Any] | str, done: bool = True, cut: bool = False) -> Answer:
    """A stream of server-sent events; without `done` it ends as if the server had died."""
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    if done:
        lines.append("data: [DONE]\n\n")
    return Answer(200, "".join(lines).encode(), {"content-type": "text/event-stream"}, cut=cut)


def chunk(delta: Mapping[str, Any], finish: str | None = None, **extra: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **extra}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def usage_chunk() -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": USAGE}


ANTHROPIC = as_json(
    {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "ok"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 5},
    }
)
GEMINI = as_json(
    {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "ok"}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12},
        "modelVersion": "m",
    }
)
RESPONSES = as_json(
    {
        "id": "r1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [
            {
                "id": "o1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "ok", "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 12,
        },
    }
)


def usual(path: str) -> Answer:
    """What a healthy server says on this path."""
    if "messages" in path:
        return ANTHROPIC
    if "generateContent" in path:
        return GEMINI
    return RESPONSES if path.endswith("/responses") else chat()


class StubServer:
    """Answers with the scripted answers in order, then as a healthy server. With `keeps` connections stay open."""

    def __init__(self, script: Iterable[Answer] = (), *, keeps: bool = False) -> None:
        self.script = deque(script)
        self.seen: list[Seen] = []
        self.keeps = keeps
        self.hung = 0
        """Answers that hung to the end."""
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def body(self) -> Mapping[str, Any]:
        """Body of the last request."""
        return self.seen[-1].body

    def then(self, *answers: Answer) -> StubServer:
        self.script.extend(answers)
        return self

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> StubServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else a body waits 40 ms until its head is acknowledged

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                path = self.path.partition("?")[0]
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.seen.append(Seen(path, headers, json.loads(raw or b"{}"), self.client_address[1]))
                self._send(stub.script.popleft() if stub.script else usual(path))

            def _send(self, answer: Answer) -> None:
                if answer.hang:
                    if stub._closing.wait(answer.hang):
                        self.close_connection = True
                        return
                    stub.hung += 1
                self.send_response(answer.status)
                self.close_connection = not stub.keeps
                if self.close_connection:
                    self.send_header("connection", "close")  # else a client may send its next one into a closed one
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-length", str(len(answer.body) + 100 * answer.cut))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Keep the test output clean."""

        return Handler
