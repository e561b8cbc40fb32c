"""What Governor's logits processor costs a vLLM server on the CPU: output tokens a second of 8 concurrent requests.

    .venv-vllm/bin/python -m benchmarks.engine [--runs 10] [--tokens 128] [--models FOLDER] [--json]

Run it in the environment that `make engine` makes; 40 minutes, 8 GB of memory. In every run two new servers of one
model stand up side by side, with the processor and without, begun in the other order each time: what memory a process
happens to get stays with it, and makes two alike differ by a percent or two. Cores are shared out as vLLM itself does
it: one is left to what is not the model.

In a turn both servers are sent the same 8 requests, all of which are made to write the same number of tokens, and then
run by slices of .3 seconds: while one runs, all processes of the other stand still (SIGSTOP). So the two are
compared within the same second of a machine that may change its speed, and neither takes anything from the other. One
of the 8 answers is streamed; a slice's throughput is that of the tokens between its first and its last event, from the
moment at which all 8 write until one has ended. No rule but that of `budget reached` is ever met; that the thoughts
really lasted as long as they should is checked in each answer's usage.

A run is two turns of each contender. Its share is the median over slices of the throughput with the processor by that
of the bare server's slice beside it. What is printed is the median over runs, and a 95 % percentile bootstrap over runs
(10,000 resamples, seed 0). Exit status 1 where a median is below its limit. Beside it stands what the processor's own
calls take of a step (see engine_step). Where nobody is governed they take nothing: how far that row is from 1 tells how
much of the others' distance is the machine's.

The model is SmolLM2-135M, where its file and the converter are at hand, else two small layers of random weights, whose
step is so short that the processor's share of it says little about any real model; the table's first line tells which.
Client and servers share the machine: take figures while it is idle.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.proxy import Figure
from governor_vllm.link import Link
from governor_vllm.request import CHAT
from tests.governor_vllm.engine_models import LONG, make
from tests.governor_vllm.engines import PARSED, served

AT_ONCE = 8
TURNS = 2
"""Turns of one contender in a run."""
SLICE = 0.3
"""Seconds that one server runs while the other one stands still."""
EDGE = 8
"""Tokens of a reply, at either end, at which not all 8 may be writing."""
STALE = 2
"""First events of a slice: of steps that were under way when the server was made to stand still."""
FEWEST = 3
"""Events that tell a slice's throughput."""
AS_SERVED = ("--scheduling-policy", "priority", "--enable-prompt-tokens-details")
"""What `governor serve` adds beside the processor."""
OWN_CORE = {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
"""The model's threads leave a core to the engine's other processes, as is vLLM's default."""
PATIENCE = 600.0
LOADED, CARRIED, REACHED, MARGIN, GROUP = "nobody governed", "budget carried", "budget reached", "margin", "group"
LEAST: Mapping[str, float] = {LOADED: 0.98, CARRIED: 0.98, REACHED: 0.98, MARGIN: 0.95, GROUP: 0.95}
"""Least share of the bare server's throughput."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Rules that all 8 requests carry, and for how many tokens each then `thinks`, the end of thought included."""

    name: str
    thinks: int
    rules: Mapping[str, Any] = field(default_factory=dict)


def contenders(tokens: int) -> tuple[Contender, ...]:
    """All of them, for replies of so many tokens. The thresholds are those that no token meets."""
    return (
        Contender(LOADED, tokens),
        Contender(CARRIED, tokens, {"governor_budget": 4 * tokens}),
        Contender(REACHED, tokens // 2, {"governor_budget": tokens // 2}),
        Contender(MARGIN, tokens, {"governor_margin": 0.0}),
        Contender(GROUP, tokens, {"governor_group": 0.0, "governor_group_window": 32}),
    )


class ShortError(Exception):
    """A reply was not what was to be measured."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Output tokens a second of two slices that lie side by side."""

    bare: float
    loaded: float


@dataclass(frozen=True, slots=True)
class Against:
    """A contender against the bare server in one run: medians over `slices` pairs."""

    bare: float
    """The bare server's tokens a second."""
    share: float
    slices: int

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Against:
        """Raises ShortError where no two slices lie side by side."""
        if not pairs:
            raise ShortError("the replies are too short to be compared by slices: ask for more --tokens")
        shares = [pair.loaded / pair.bare for pair in pairs]
        return cls(statistics.median(pair.bare for pair in pairs), statistics.median(shares), len(pairs))


Run = Mapping[str, Against]
"""One run: each contender against the bare server."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A contender against the bare server, and whether it keeps its limit."""

    name: str
    share: Figure

    @property
    def passed(self) -> bool:
        return self.share.median >= LEAST[self.name]


def compared(runs: Sequence[Run]) -> list[Compared]:
    """Every contender."""
    return [Compared(name, Figure.of([run[name].share for run in runs])) for name in LEAST]


def check(usage: Mapping[str, Any], contender: Contender, tokens: int) -> None:
    """Raises ShortError where a reply, or its thought, has another length than it should."""
    made = int(usage["completion_tokens"])
    thought = int((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
    whole = contender.thinks == tokens
    if made != tokens or thought != (tokens if whole else contender.thinks - 1):  # a mark is no token of the thought
        raise ShortError(f"{contender.name}: {made} tokens, {thought} of them thought, where {tokens} were to be made")


class Pausable(Protocol):
    """A server's processes."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One of the two."""

    processes: Pausable
    link: Link

    def slice(self, seconds: float) -> tuple[float, float]:
        """Let it run for so long; from when to when."""
        self.processes.resume()
        begun = time.perf_counter()
        time.sleep(seconds)
        ended = time.perf_counter()
        self.processes.pause()
        return begun, ended


Events = Sequence[tuple[float, int]]
"""When so many tokens of a reply had come."""


def rate(events: Events, begun: float, ended: float, tokens: int) -> float | None:
    """Tokens a second of all 8 in a slice, of which the `events` of one reply tell; None where they tell too little."""
    inside = [(at, count) for at, count in events if begun <= at <= ended][STALE:]
    whole = [(at, count) for at, count in inside if EDGE <= count <= tokens - EDGE]
    if len(whole) < FEWEST:
        return None
    (first, few), (last, many) = whole[0], whole[-1]
    return AT_ONCE * (many - few) / (last - first)


@dataclass(frozen=True, slots=True)
class Bench:
    """The two servers, both standing still, and how much is asked of them."""

    bare: Server
    loaded: Server
    tokens: int
    slice: float = SLICE

    def run(self) -> Run:
        """Every contender's turns."""
        return {one.name: self._against(one) for one in contenders(self.tokens)}

    def warm(self) -> None:
        """A turn of every contender."""
        for contender in contenders(self.tokens):
            self._turn(contender, [self.bare, self.loaded])

    def _against(self, contender: Contender) -> Against:
        both, pairs = [self.bare, self.loaded], list[Pair]()
        for _ in range(TURNS):
            pairs += self._turn(contender, both)
            both.reverse()
        return Against.of(pairs)

    def _turn(self, contender: Contender, both: Sequence[Server]) -> list[Pair]:
        """8 replies of each server, by slices; the pairs of these that tell something."""
        ungoverned = Contender("no processor", self.tokens)
        slices: dict[Server, list[tuple[float, float]]] = {server: [] for server in both}
        with ThreadPoolExecutor(2 * AT_ONCE) as pool:
            asked = {one: self._asked(pool, one, ungoverned if one is self.bare else contender) for one in both}
            try:
                while not any(watched.done() for watched, _ in asked.values()):
                    for server in both:
                        slices[server].append(server.slice(self.slice))
            finally:
                for server in both:
                    server.processes.resume()
            events = {server: watched.result() for server, (watched, _) in asked.items()}
            for _, others in asked.values():
                for other in others:
                    other.result()
        for server in both:
            server.processes.pause()
        rates = [[rate(events[one], *cut, self.tokens) for cut in slices[one]] for one in (self.bare, self.loaded)]
        return [Pair(bare, loaded) for bare, loaded in zip(*rates, strict=True) if bare and loaded]

    def _asked(
        self, pool: ThreadPoolExecutor, server: Server, contender: Contender
    ) -> tuple[Future[Events], list[Future[None]]]:
        """8 requests on their way, of which the first is streamed."""
        bodies = [self._body(contender, number) for number in range(AT_ONCE)]
        watched = pool.submit(self._watched, server.link, bodies[0], contender)
        return watched, [pool.submit(self._whole, server.link, body, contender) for body in bodies[1:]]

    def _watched(self, link: Link, body: Mapping[str, Any], contender: Contender) -> Events:
        events, usage = list[tuple[float, int]](), dict[str, Any]()
        counting = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        with link.events(CHAT, {**body, **counting}, PATIENCE) as stream:
            for event in stream:
                usage = event.get("usage") or usage
                events.append((time.perf_counter(), int(usage.get("completion_tokens") or 0)))
        check(usage, contender, self.tokens)
        return events

    def _whole(self, link: Link, body: Mapping[str, Any], contender: Contender) -> None:
        check(link.post(CHAT, body, PATIENCE)["usage"], contender, self.tokens)

    def _body(self, contender: Contender, number: int) -> dict[str, Any]:
        question = {"role": "user", "content": f"Explain step by step how you would sort {number + 3} numbers by hand."}
        rules = {"vllm_xargs": dict(contender.rules)} if contender.rules else {}
        length = {"max_tokens": self.tokens, "ignore_eos": True, "temperature": 0.0}
        return {"model": "q", "messages": [question], **length, **rules}


def measured(models: Path, runs: int, tokens: int) -> list[Run]:
    """So many runs, every second one on servers that were begun in the other order."""
    return [_on_new_servers(models, tokens, number, runs) for number in range(runs)]


def _on_new_servers(models: Path, tokens: int, number: int, runs: int) -> Run:
    """One run, after turns that are not counted: they warm the servers, and the processor makes its tables."""
    print(f"run {number + 1} of {runs} ...", file=sys.stderr, flush=True)
    with ExitStack() as block:
        servers: dict[bool, Server] = {}
        for governed in (True, False) if number % 2 else (False, True):
            options = PARSED if governed else (*PARSED, *AS_SERVED)
            engine = served(models, "thinking", LONG, options, governed=governed, environment=OWN_CORE)
            block.enter_context(engine)
            block.callback(engine.resume)
            servers[governed] = Server(engine, block.enter_context(closing(Link(engine.url))))
            engine.pause()
        bench = Bench(servers[False], servers[True], tokens)
        bench.warm()
        return bench.run()


def told_model(models: Path) -> str:
    """What the servers serve."""
    config = json.loads((models / "thinking" / "config.json").read_text(encoding="utf-8"))
    layers, width, words = (config[key] for key in ("num_hidden_layers", "hidden_size", "vocab_size"))
    known = "SmolLM2-135M" if (layers, width) == (30, 576) else "random weights"
    return f"{known}: {layers} layers of {width}, {words:,} tokens"


def own(models: Path, tokens: int) -> dict[str, float]:
    """Seconds that the processor itself takes for a step of all rows, by contender."""
    from benchmarks.engine_step import own_seconds

    model = models / "thinking"
    return {one.name: own_seconds(model, one.rules, AT_ONCE, one.thinks, 8 * tokens) for one in contenders(8 * tokens)}


def table(model: str, runs: Sequence[Run], found: Sequence[Compared], taken: Mapping[str, float]) -> str:
    """As Markdown. `taken` are the processor's own seconds for a step."""
    bare = statistics.median(one.bare for run in runs for one in run.values())
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    lines = [
        f"{model}; {len(runs)} runs; no processor: {bare:.0f} tokens/s with {AT_ONCE} at once; "
        f"{os.cpu_count()} processors, load {load}",
        "",
        "| all rows | throughput of the server without it | at least | | its own calls a step | of a step |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        share, verdict = one.share, "pass" if one.passed else "**FAIL**"
        told = f"{share.median:.3f} ({share.low:.3f} to {share.high:.3f})"
        seconds = taken[one.name]
        calls = f"{seconds * 1e6:.0f} µs | {seconds * bare / AT_ONCE:.2%}"
        lines.append(f"| {one.name} | {told} | {LEAST[one.name]} | {verdict} | {calls} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="runs that are counted (default 10)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each reply (default 128)")
    parser.add_argument("--models", type=Path, help="folder with `thinking`, made before by tests.governor_vllm")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models: Path = arguments.models or Path(folder)
        if arguments.models is None:
            make(models)
        runs, model = measured(models, arguments.runs, arguments.tokens), told_model(models)
        taken = own(models, arguments.tokens)
    found = compared(runs)
    passed = all(one.passed for one in found)
    if arguments.json:
        rows = {one.name: asdict(one.share) | {"passed": one.passed} for one in found}
        rates = [{name: asdict(one) for name, one in run.items()} for run in runs]
        told = {"model": model, "runs": rates, "governed": rows, "own_seconds": taken, "passed": passed}
        print(json.dumps(told))
    else:
        print(table(model, runs, found, taken))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
