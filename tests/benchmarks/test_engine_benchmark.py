from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.engine import (
    CARRIED,
    GROUP,
    LEAST,
    REACHED,
    TURNS,
    Against,
    Bench,
    Contender,
    Pair,
    Run,
    Server,
    ShortError,
    check,
    compared,
    contenders,
    rate,
    table,
)
from governor_vllm.link import Link

TOKENS = 100


def run(bare: float, **shares: float) -> Run:
    """A run with this rate without the processor, and these shares of it; all others are as fast."""
    return {name: Against(bare, shares.get(name.replace(" ", "_"), 1.0), 9) for name in LEAST}


def usage(made: int, thought: int) -> dict[str, Any]:
    return {"completion_tokens": made, "completion_tokens_details": {"reasoning_tokens": thought}}


def contender(name: str) -> Contender:
    return next(one for one in contenders(TOKENS) if one.name == name)


def test_shares_are_taken_within_a_run_so_that_a_slow_one_weighs_no_more() -> None:
    runs = [run(200.0, group=0.96), run(20.0, group=0.97), run(210.0, group=0.98)]
    found = {one.name: one for one in compared(runs)}
    group = found[GROUP].share
    assert group.median == pytest.approx(0.97)
    assert group.low + 1e-9 >= 0.96
    assert group.low <= group.median <= group.high
    assert group.high <= 0.98 + 1e-9


def test_limits_differ_for_budgets_and_confidence_rules() -> None:
    runs = [run(200.0, budget_carried=0.97, group=0.97)]
    verdicts = {one.name: one.passed for one in compared(runs)}
    assert not verdicts[CARRIED]
    assert verdicts[GROUP]
    text = table("a model", runs, compared(runs), dict.fromkeys(LEAST, 0.0004))
    assert text.count("**FAIL**") == 1
    assert "| budget carried | 0.970 (0.970 to 0.970) | 0.98 | **FAIL** | 400 µs | 1.00% |" in text


class Clock:
    """Which of the servers runs; each answers a token every `STEP` seconds that it ran."""

    STEP = 0.002

    def __init__(self) -> None:
        self.going = threading.Event()
        self.ran: list[str] = []

    def pause(self) -> None:
        self.going.clear()

    def resume(self) -> None:
        self.going.set()


class Asked(Link):
    """Writes as long as its processes run."""

    def __init__(self, asked: list[Any], processes: Clock) -> None:
        super().__init__("http://nowhere")
        self.asked, self.processes = asked, processes

    def _replied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(body.get("vllm_xargs"))
        budget = (body.get("vllm_xargs") or {}).get("governor_budget", body["max_tokens"])
        thought = body["max_tokens"] if budget >= body["max_tokens"] else budget - 1
        return usage(body["max_tokens"], thought)

    def post(self, path: str, body: Mapping[str, Any], seconds: float = 0.0) -> Any:
        return {"usage": self._replied(body)}

    @contextmanager
    def events(self, path: str, body: Mapping[str, Any], seconds: float) -> Generator[Generator[Any, None, None]]:
        yield self._written(body)

    def _written(self, body: Mapping[str, Any]) -> Generator[Any, None, None]:
        for made in range(1, body["max_tokens"] + 1):
            assert self.processes.going.wait(5.0)
            time.sleep(Clock.STEP)
            yield {"usage": {"completion_tokens": made}}
        yield {"usage": self._replied(body)}


def test_the_servers_run_by_turns_and_slices_are_compared_side_by_side() -> None:
    bare, loaded, clocks = list[Any](), list[Any](), (Clock(), Clock())
    servers = [Server(clock, Asked(asked, clock)) for clock, asked in zip(clocks, (bare, loaded), strict=True)]
    found = Bench(servers[0], servers[1], TOKENS, slice=0.15).run()
    assert set(found) == set(LEAST) == {one.name for one in contenders(TOKENS)}
    assert len(bare) == len(loaded) == len(LEAST) * TURNS * 8
    assert {rules is None for rules in bare} == {True}
    assert len([rules for rules in loaded if rules]) == (len(LEAST) - 1) * TURNS * 8
    assert not any(clock.going.is_set() for clock in clocks), "both stand still in the end"
    assert all(0.1 < one.share < 10.0 and one.slices for one in found.values())


def test_a_slice_is_measured_where_all_write_and_no_step_was_begun_before_it() -> None:
    events = [(0.1 * count, count) for count in range(1, 41)]
    assert rate(events, 1.0, 3.0, 100) == pytest.approx(8 / 0.1)
    slow = [*events, *((4.0 + 0.2 * more, 40 + more) for more in range(1, 41))]
    assert rate(slow, 4.1, 8.0, 100) == pytest.approx(8 / 0.2), "a slice's own pace"
    jump = [(1.0, 20), (1.01, 21), *((1.1 + 0.1 * more, 22 + more) for more in range(10))]
    assert rate(jump, 0.5, 3.0, 100) == pytest.approx(8 / 0.1), "what was under way before it does not count"
    assert rate(events, 1.0, 1.35, 100) is None, "too few"
    assert rate(events, 0.0, 0.95, 100) is None, "not all write yet"
    assert rate(events, 3.0, 4.1, 40) is None, "some may have ended"


def test_without_slices_that_tell_anything_there_is_no_figure() -> None:
    with pytest.raises(ShortError, match="more --tokens"):
        Against.of([])
    assert Against.of([Pair(10.0, 9.0), Pair(20.0, 19.0), Pair(5.0, 5.0)]) == Against(10.0, 0.95, 3)


def test_a_reply_of_another_length_is_not_counted() -> None:
    check(usage(TOKENS, TOKENS), contender(CARRIED), TOKENS)
    check(usage(TOKENS, TOKENS // 2 - 1), contender(REACHED), TOKENS)
    with pytest.raises(ShortError, match="99 tokens"):
        check(usage(99, 99), contender(CARRIED), TOKENS)
    with pytest.raises(ShortError, match="40 of them thought"):
        check(usage(TOKENS, 40), contender(GROUP), TOKENS)
