from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.engine import (
    CARRIED,
    GROUP,
    LEAST,
    REACHED,
    TURNS,
    Bench,
    Contender,
    Pair,
    Run,
    ShortError,
    check,
    compared,
    contenders,
    table,
)
from governor_vllm.link import Link

TOKENS = 100


def run(bare: float, **shares: float) -> Run:
    """A run with this rate without the processor, and these shares of it; all others are as fast."""
    return {name: Pair(bare, bare * shares.get(name.replace(" ", "_"), 1.0)) for name in LEAST}


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


class Asked(Link):
    """Answers at once with replies of the length that was asked for."""

    def __init__(self, asked: list[tuple[str, Any]]) -> None:
        super().__init__("http://nowhere")
        self.asked = asked

    def post(self, path: str, body: Mapping[str, Any], seconds: float = 0.0) -> Any:
        self.asked.append((self.root, body.get("vllm_xargs")))
        budget = (body.get("vllm_xargs") or {}).get("governor_budget", body["max_tokens"])
        thought = body["max_tokens"] if budget >= body["max_tokens"] else budget - 1
        return {"usage": usage(body["max_tokens"], thought)}


def test_each_contender_has_its_turns_between_two_of_the_bare_server() -> None:
    bare, loaded = list[Any](), list[Any]()
    found = Bench(Asked(bare), Asked(loaded), TOKENS, rest=0.0).run()
    assert set(found) == set(LEAST) == {one.name for one in contenders(TOKENS)}
    assert len(bare) == len(loaded) == len(LEAST) * 2 * TURNS * 8
    assert {rules for _, rules in bare} == {None}
    governed = [rules for _, rules in loaded if rules]
    assert len(governed) == (len(LEAST) - 1) * 2 * TURNS * 8
    assert all(pair.bare > 0 and pair.loaded > 0 for pair in found.values())


def test_a_reply_of_another_length_is_not_counted() -> None:
    check(usage(TOKENS, TOKENS), contender(CARRIED), TOKENS)
    check(usage(TOKENS, TOKENS // 2 - 1), contender(REACHED), TOKENS)
    with pytest.raises(ShortError, match="99 tokens"):
        check(usage(99, 99), contender(CARRIED), TOKENS)
    with pytest.raises(ShortError, match="40 of them thought"):
        check(usage(TOKENS, 40), contender(GROUP), TOKENS)
