"""A small HTTP server that speaks vLLM's dialect over a scripted model, with vLLM's lies on demand.

One word, mark or line break is one token. The model thinks `thought` tokens, says `answer`, and ends. It goes on from
whatever the prompt holds, so that a continued reply really is one.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

_TOKEN = re.compile(r"<\|\w+\|>|</?think>|\n\n|\n| ?\w+| ?[^\w\s]|.", re.DOTALL)
START, END, EOS = "<think>", "</think>", "<|im_end|>"
MODEL = "q"


@dataclass(frozen=True)
class Manner:
    """How the server behaves. `counts_from`: tokens that its budget counts too many (as a template's opening does) or,
    negative, too few (as a start mark of several tokens); `forced` is what it writes to end a thought."""

    thought: int = 30
    begun: int | None = None
    """As `thought`, where the prompt holds the beginning of one."""
    answer: str = " The answer is 42."
    budget: Literal["kept", "ignored", "refused"] = "kept"
    processor: bool = False
    acts: bool = True
    """Whether the processor finds the marks of thoughts; else it only looks at its arguments."""
    strange: Literal["taken", "refused", "refused by name"] = "taken"
    """What becomes of arguments for processors where there are none."""
    seed: bool = False
    """Whether the marks outside are those of Seed-OSS."""
    tools: Literal["free", "lax", "held", "off"] = "free"
    """Whether calls with tools that may be called are held to a grammar (`free`: strict ones), or are refused."""
    parser: bool = True
    opening: str = f"{START}\n"
    switch: bool = True
    words: bool = False
    counts: bool = True
    prefill: bool = True
    priority: bool = True
    """Whether a request's is taken: vLLM 0.32 does so whatever its scheduling policy, older ones refused it."""
    repetition: bool = True
    overrun: int = 0
    forced: str = f"\n{END}"
    leak: str = ""
    tokenizes: bool = True
    stray: str = ""
    """The data of an event that no vLLM sends, behind the first of a stream, as a gateway might."""
    untold: int = 404
    """The status of an answer to what it does not do."""
    metrics: str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"


@dataclass(frozen=True)
class Seen:
    path: str
    body: Mapping[str, Any]


@dataclass
class _Made:
    tokens: list[str] = field(default_factory=list)
    finish: str = "stop"


class RefusalError(Exception):
    """An HTTP 400."""


class DialectServer:
    """Serves until closed; `manner` may be changed while it runs."""

    def __init__(self, manner: Manner | None = None) -> None:
        self.manner = manner or Manner()
        self.seen: list[Seen] = []
        self.hung_up = 0
        self.hang = 0.0
        self.fault: tuple[int, int] | None = None
        """After how many requests one is answered by which status, as by a gateway."""
        self.falls_silent: int | None = None
        """Tokens of a stream that come at once; nothing follows them until the server is closed."""
        self.only_lives = False
        """Whether it then sends signs of life."""
        self._words: list[str] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"dialect": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def asked(self, path: str = "/v1/") -> list[Mapping[str, Any]]:
        """Bodies of the generating requests so far."""
        return [one.body for one in self.seen if one.path.startswith(path)]

    def now(self, **manner: Any) -> None:
        self.manner = replace(self.manner, **manner)

    def forget(self) -> None:
        self.seen.clear()

    def wait(self, number: int, live: Callable[[], None]) -> None:
        """As long as a slow model would take for the token of this number."""
        if self.falls_silent is not None and number > self.falls_silent:
            while not self._closing.wait(0.05):
                if self.only_lives:
                    live()
        elif self.hang:
            self._closing.wait(self.hang)

    def fail(self, after: int, status: int) -> None:
        """Answer the request after so many by this status, once."""
        self.fault = (after, status)

    def fails(self) -> int:
        """The status that is the answer to this request; 0 to answer it."""
        if self.fault is None:
            return 0
        after, status = self.fault
        self.fault = (after - 1, status) if after else None
        return 0 if after else status

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> DialectServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def ids(self, text: str) -> list[int]:
        if self.manner.seed:
            text = text.replace("seed:think>", "think>")
        with self._lock:
            found = _TOKEN.findall(text)
            self._words.extend(word for word in dict.fromkeys(found) if word not in self._words)
            return [self._words.index(word) for word in found]

    def text(self, ids: Sequence[int]) -> str:
        return "".join(self._words[one] for one in ids)

    def shown(self, text: str) -> str:
        """Text with the marks that are the model's."""
        return text.replace("think>", "seed:think>") if self.manner.seed else text

    def prompt(self, body: Mapping[str, Any]) -> str:
        """What the chat template makes of the messages."""
        manner, settings = self.manner, dict(body.get("chat_template_kwargs") or {})
        if body.get("reasoning_effort"):
            settings.setdefault("reasoning_effort", body["reasoning_effort"])
            settings.setdefault("enable_thinking", body["reasoning_effort"] != "none")
        texts = [f"<|im_start|>{one['role']}\n{one['content']}" for one in body["messages"]]
        if manner.words and "reasoning_effort" in settings:
            texts.insert(0, f"<|im_start|>system\neffort {settings['reasoning_effort']}")
        whole = f"{EOS}\n".join(texts)
        if body.get("continue_final_message"):
            return whole if manner.prefill else f"{whole}{EOS}\n"
        thinks = settings.get("enable_thinking", True) or not manner.switch
        opened = manner.opening if thinks else f"{START}\n\n{END}\n\n"
        return f"{whole}{EOS}\n<|im_start|>assistant\n{opened}"

    def made(self, prompt: str, body: Mapping[str, Any]) -> _Made:
        """What the model writes after the prompt, under the request's limits as this server keeps them."""
        if bias := body.get("logit_bias"):
            return self._looped(self.text([int(next(iter(bias)))]), body)
        made, most = _Made(), body.get("max_tokens") or 16
        begun = prompt.rpartition("<|im_start|>assistant\n")[2]
        for token in self._written(begun, *self._budget(body)):
            if token == EOS:
                return made
            if len(made.tokens) == most:
                break
            made.tokens.append(token)
        made.finish = "length"
        return made

    def _written(self, begun: str, budget: int | None, counts_prompt: bool) -> Iterator[str]:
        """The tokens that follow what was begun, for ever ending with EOS."""
        _, mark, behind = begun.rpartition(START)
        inside = bool(mark) and END not in behind
        said = len(_TOKEN.findall(behind)) if inside else 0
        thought = said if counts_prompt else 0
        opened = len(_TOKEN.findall(self.manner.opening)) - 1
        most = self.manner.thought if said <= opened or self.manner.begun is None else self.manner.begun
        if inside:
            while said < most and (budget is None or thought < budget + self.manner.overrun):
                yield f" w{said}"
                said, thought = said + 1, thought + 1
            forced = said < most
            yield from _TOKEN.findall(self.manner.forced if forced else END)
            yield from _TOKEN.findall("\n\n" + (self.manner.leak if forced else ""))
            behind = ""
        answered = begun.rpartition(END)[2].lstrip("\n") if END in begun else begun
        so_far = "" if inside else answered
        rest = self.manner.answer.strip().removeprefix(so_far.strip()) if so_far.strip() else self.manner.answer.strip()
        yield from _TOKEN.findall(rest)
        yield EOS

    def _budget(self, body: Mapping[str, Any]) -> tuple[int | None, bool]:
        """The budget of a request, and whether the prompt's thought counts: vLLM's does, the processor's does not."""
        manner, xargs = self.manner, body.get("vllm_xargs") or {}
        asked = body.get("thinking_token_budget")
        if asked is not None and manner.budget == "refused":
            raise RefusalError("thinking_token_budget is set but reasoning_config is not configured")
        if manner.processor and "governor_budget" in xargs:
            if xargs["governor_budget"] < 0:
                raise RefusalError("governor_budget must be 0 or more")
            if self._held(body):
                raise RefusalError("governor_budget: text can't be forced where structured_outputs constrain it")
            if asked is not None:
                raise RefusalError("governor_budget: the request has a thinking_token_budget too; send one of the two")
            return (int(xargs["governor_budget"]) if manner.acts else None), False
        return asked if manner.budget == "kept" else None, True

    def _held(self, body: Mapping[str, Any]) -> bool:
        """Whether vLLM makes a grammar of the request: for a schema, and for tools as its parsers do."""
        tools, choice = body.get("tools") or (), body.get("tool_choice")
        strict = any(one["function"].get("strict") for one in tools)
        may = choice == "auto" and (self.manner.tools == "held" or (strict and self.manner.tools == "free"))
        return "response_format" in body or (bool(tools) and (may or choice not in ("auto", "none")))

    def _looped(self, word: str, body: Mapping[str, Any]) -> _Made:
        rule = body.get("repetition_detection") if self.manner.repetition else None
        most = body.get("max_tokens") or 16
        length = min(most, rule["min_count"]) if rule else most
        return _Made([word] * length, "repetition" if rule and length < most else "length")

    def checked(self, body: Mapping[str, Any]) -> None:
        if body.get("model") != MODEL:
            raise RefusalError(f"The model `{body.get('model')}` does not exist.")
        if body.get("priority") and not self.manner.priority:
            raise RefusalError("Got priority 1 but Priority scheduling is not enabled.")
        if "vllm_xargs" in body and self.manner.strange != "taken":
            named = f": {body['vllm_xargs']}" if self.manner.strange == "refused by name" else ""
            raise RefusalError(f"Extra inputs are not permitted{named}")
        if body.get("tool_choice") == "auto" and self.manner.tools == "off":
            raise RefusalError('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')


def _usage(prompt: int, made: int, thoughts: int | None) -> dict[str, Any]:
    details = {"completion_tokens_details": {"reasoning_tokens": thoughts}} if thoughts is not None else {}
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made, **details}


class _Handler(BaseHTTPRequestHandler):
    dialect: DialectServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms until its head is acknowledged

    def do_GET(self) -> None:
        if status := self.dialect.fails():
            self._send(status, b"overloaded")
            return
        pages = {
            "/v1/models": json.dumps({"data": [{"id": MODEL, "max_model_len": 2048}]}),
            "/version": json.dumps({"version": "0.32.0"}),
            "/metrics": self.dialect.manner.metrics,
        }
        page = pages.get(self.path)
        self._send(200 if page is not None else 404, (page or "{}").encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        self.dialect.seen.append(Seen(self.path, body))
        if status := self.dialect.fails():
            self._send(status, b"overloaded")
            return
        try:
            self._answer(body)
        except RefusalError as refusal:
            fault = {"message": str(refusal), "type": "BadRequestError", "code": 400}
            self._send(400, json.dumps({"error": fault}).encode())

    def _answer(self, body: Mapping[str, Any]) -> None:
        if not self.dialect.manner.tokenizes and self.path.endswith("tokenize"):
            self._send(self.dialect.manner.untold, b'{"detail": "Not Found"}')
            return
        self.dialect.checked(body)
        if self.path == "/tokenize":
            text = body["prompt"] if "prompt" in body else self.dialect.prompt(body)
            self._json({"tokens": self.dialect.ids(text), "count": len(self.dialect.ids(text))})
        elif self.path == "/detokenize":
            self._json({"prompt": self.dialect.shown(self.dialect.text(body["tokens"]))})
        else:
            self._generated(body)

    def _generated(self, body: Mapping[str, Any]) -> None:
        chat = self.path.endswith("/chat/completions")
        text = self.dialect.prompt(body) if chat else self.dialect.text(body["prompt"])
        made, asked = self.dialect.made(text, body), len(self.dialect.ids(text))
        before = text.rpartition("<|im_start|>assistant\n")[2]
        inside = START in before and END not in before.rpartition(START)[2]
        pieces = _pieces(made.tokens, inside=inside, parsed=chat and self.dialect.manner.parser)
        shown = self.dialect.shown
        made.tokens = [shown(token) for token in made.tokens]
        pieces = [(shown(thought), shown(said)) for thought, said in pieces]
        if not body.get("stream"):
            self._json(_whole(body, made, pieces, asked, chat=chat))
            return
        self._stream(body, made, pieces, asked, chat=chat)

    def _stream(
        self, body: Mapping[str, Any], made: _Made, pieces: list[tuple[str, str]], asked: int, *, chat: bool
    ) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        told = bool((body.get("stream_options") or {}).get("continuous_usage_stats")) and self.dialect.manner.counts
        try:
            for number, piece in enumerate(pieces, start=1):
                self.dialect.wait(number, self._lives)
                usage = {"usage": _usage(asked, number, None)} if told else {}
                if any(piece):
                    self._event({"choices": [_choice(piece, chat=chat)], **usage})
                if number == 1 and self.dialect.manner.stray:
                    self.wfile.write(f"data: {self.dialect.manner.stray}\n\n".encode())
            self._event({"choices": [{**_choice(("", ""), chat=chat), "finish_reason": made.finish}]})
            thoughts = sum(1 for thought, _ in pieces if thought) if self.dialect.manner.parser and chat else None
            self._event({"choices": [], "usage": _usage(asked, len(pieces), thoughts)})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.dialect.hung_up += 1

    def _lives(self) -> None:
        self.wfile.write(b": still here\n\n")

    def _event(self, event: Mapping[str, Any]) -> None:
        """As vLLM's pydantic writes it: every letter as it is, but for those that JSON forbids."""
        self.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test output clean."""


def _pieces(tokens: list[str], *, inside: bool, parsed: bool) -> list[tuple[str, str]]:
    """(thought, answer) of each token; a parser swallows the marks."""
    pieces: list[tuple[str, str]] = []
    for token in tokens:
        if parsed and token == END:
            inside = False
            pieces.append(("", ""))
        else:
            pieces.append((token, "") if parsed and inside else ("", token))
    return pieces


def _choice(piece: tuple[str, str], *, chat: bool) -> dict[str, Any]:
    thought, text = piece
    if not chat:
        return {"index": 0, "text": text, "finish_reason": None}
    delta = {"reasoning": thought} if thought else {"content": text}
    return {"index": 0, "delta": delta, "finish_reason": None}


def _whole(
    body: Mapping[str, Any], made: _Made, pieces: list[tuple[str, str]], asked: int, *, chat: bool
) -> dict[str, Any]:
    thought, text = ("".join(part) for part in zip(*pieces, strict=True)) if pieces else ("", "")
    choice: dict[str, Any] = {"index": 0, "finish_reason": made.finish}
    if chat:
        choice["message"] = {"role": "assistant", "content": text or None, "reasoning": thought or None}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": token, "logprob": -0.1} for token in made.tokens]}
    else:
        choice["text"] = text
        if body.get("logprobs"):
            choice["logprobs"] = {"tokens": made.tokens, "token_logprobs": [-0.1] * len(made.tokens)}
    return {"choices": [choice], "usage": _usage(asked, len(made.tokens), None)}
