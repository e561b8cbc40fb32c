"""What Governor's logits processor costs a vLLM server on the CPU: output tokens a second of 8 concurrent requests.

    .venv-vllm/bin/python -m benchmarks.engine [--runs 10] [--tokens 64] [--models FOLDER] [--json]

Run it in the environment that `make engine` makes; an hour, 8 GB of memory. Two servers of one model stand up side by
side, one with the processor and one without, and for the second half of the runs two new ones, begun in the other
order: what memory a process happens to get stays with it. In every run each contender meets the bare server in four
visits: bare, contender, contender, bare. A visit is three turns, after a rest: a worker that has nothing more to do
spins on a core for a second, which would be the other server's. A turn is 8 requests at once, all of which are made to
write the same number of tokens: nothing ends them before, and no rule but that of `budget reached` is ever met. That
the thoughts really lasted as long as they should is checked in each answer's usage.

Throughput is the tokens of a turn by the seconds of a run's quickest of six (what else a machine does can only make
turns slower, and a virtual one may work at two speeds), and a contender's is taken as a share of the bare server's
between whose visits it had its own. What is printed is the median over runs, and a 95 % percentile bootstrap over runs
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.proxy import Figure
from governor_vllm.link import Link
from governor_vllm.request import CHAT
from tests.governor_vllm.engine_models import LONG, make
from tests.governor_vllm.engines import PARSED, served

AT_ONCE = 8
TURNS = 3
"""Turns of one visit."""
REST = 1.5
"""Seconds before a visit, in which the other server's worker comes to rest."""
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


@dataclass(frozen=True, slots=True)
class Pair:
    """Output tokens a second without the processor and with it, in turns that alternate."""

    bare: float
    loaded: float

    @property
    def share(self) -> float:
        return self.loaded / self.bare


Run = Mapping[str, Pair]
"""One run: each contender against the bare server."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A contender against the bare server, and whether it keeps its limit."""

    name: str
    share: Figure

    @property
    def passed(self) -> bool:
        return self.share.median >= LEAST[self.name]


class ShortError(Exception):
    """A reply was not what was to be measured."""


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


@dataclass(frozen=True, slots=True)
class Bench:
    """The two servers, and how much is asked of them."""

    bare: Link
    loaded: Link
    tokens: int
    rest: float = REST

    def run(self) -> Run:
        """Every contender's turns."""
        return {one.name: self._pair(one) for one in contenders(self.tokens)}

    def _pair(self, contender: Contender) -> Pair:
        ungoverned = Contender("no processor", self.tokens)
        turns: dict[Link, list[float]] = {self.bare: [], self.loaded: []}
        for link in (self.bare, self.loaded, self.loaded, self.bare):
            time.sleep(self.rest)
            asked = ungoverned if link is self.bare else contender
            turns[link] += [self._turn(link, asked) for _ in range(TURNS)]
        made = AT_ONCE * self.tokens
        return Pair(made / min(turns[self.bare]), made / min(turns[self.loaded]))

    def _turn(self, link: Link, contender: Contender) -> float:
        """Seconds for 8 replies at once."""
        bodies = [self._body(contender, number) for number in range(AT_ONCE)]
        begun = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda body: link.post(CHAT, body, PATIENCE), bodies))
        seconds = time.perf_counter() - begun
        for answer in answers:
            check(answer["usage"], contender, self.tokens)
        return seconds

    def _body(self, contender: Contender, number: int) -> dict[str, Any]:
        question = {"role": "user", "content": f"Explain step by step how you would sort {number + 3} numbers by hand."}
        rules = {"vllm_xargs": dict(contender.rules)} if contender.rules else {}
        length = {"max_tokens": self.tokens, "ignore_eos": True, "temperature": 0.0}
        return {"model": "q", "messages": [question], **length, **rules}


def measured(models: Path, runs: int, tokens: int) -> list[Run]:
    """So many runs, half of them on servers that were begun in the other order."""
    first = runs - runs // 2
    return _on_servers(models, first, tokens) + _on_servers(models, runs - first, tokens, loaded_first=True)


def _on_servers(models: Path, runs: int, tokens: int, *, loaded_first: bool = False) -> list[Run]:
    """Runs on two new servers, after one that is not counted: it warms them, and the processor makes its tables."""
    if not runs:
        return []
    with ExitStack() as servers:
        links: dict[bool, Link] = {}
        for governed in (loaded_first, not loaded_first):
            options = PARSED if governed else (*PARSED, "--scheduling-policy", "priority")
            server = servers.enter_context(served(models, "thinking", LONG, options, governed=governed))
            links[governed] = servers.enter_context(closing(Link(server.url)))
        bench, found = Bench(links[False], links[True], tokens), list[Run]()
        for number in range(runs + 1):
            print(f"run {number} of {runs} ..." if number else "warming ...", file=sys.stderr, flush=True)
            found.append(bench.run())
    return found[1:]


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
    bare = statistics.median(pair.bare for run in runs for pair in run.values())
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
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each reply (default 64)")
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
        rates = [{name: asdict(pair) for name, pair in run.items()} for run in runs]
        told = {"model": model, "runs": rates, "governed": rows, "own_seconds": taken, "passed": passed}
        print(json.dumps(told))
    else:
        print(table(model, runs, found, taken))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
