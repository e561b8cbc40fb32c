"""The load of streams, and what each way to keep a budget makes of it, one token after the other without waiting."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from benchmarks import ledger_contenders
from benchmarks.ledger_contenders import BUSY, MAX_TOKENS, ByHand, Contender, CountAfterwards, FullBound, Model
from benchmarks.ledger_load import Load, Run, Tally, length
from benchmarks.ledger_streams import Result, booked

BUDGET = 6_000


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_contenders, "TICK", 0.0)


async def crowd(contender: Contender, lengths: list[int]) -> tuple[int, int]:
    """Tokens delivered, and streams cut, with 32 clients that ask again at once."""
    asked, tokens, cut = list(lengths), 0, 0

    async def client() -> None:
        nonlocal tokens, cut
        while asked:
            wanted = asked.pop()
            while (served := await contender.serve("acme", wanted)).refused == BUSY:  # noqa: ASYNC110 - as clients do: nothing tells them when
                await asyncio.sleep(0)
            tokens += served.tokens
            cut += not served.refused and served.tokens < wanted

    await asyncio.gather(*(client() for _ in range(32)))
    await contender.close()
    return tokens, cut


def through(kind: Callable[[Model, str, int, int], Contender], folder: Path) -> tuple[int, int]:
    """Delivered and cut; what was made, delivered and booked is the same."""
    model, uri = Model(), f"sqlite:///{folder}/ledger.db"
    rng = random.Random(3)
    tokens, cut = asyncio.run(crowd(kind(model, uri, BUDGET, 0), [length(rng) for _ in range(150)]))
    assert tokens == model.made["acme"] == booked(uri, "acme")
    return tokens, cut


def test_held_by_hand_the_budget_is_used_up_and_not_passed(tmp_path: Path) -> None:
    tokens, cut = through(ByHand, tmp_path)
    assert BUDGET - ByHand.LEAST < tokens <= BUDGET
    assert cut <= 3


def test_with_the_full_bound_held_nobody_is_cut_and_a_rest_stays(tmp_path: Path) -> None:
    tokens, cut = through(FullBound, tmp_path)
    assert BUDGET - MAX_TOKENS < tokens <= BUDGET
    assert cut == 0


def test_counting_afterwards_passes_the_budget(tmp_path: Path) -> None:
    tokens, cut = through(CountAfterwards, tmp_path)
    assert tokens > 1.5 * BUDGET
    assert cut == 0


def test_a_stream_that_is_left_makes_nothing_more() -> None:
    async def left() -> int:
        model = Model()
        tokens = model.tokens("acme", 100)
        await anext(aiter(tokens))
        await tokens.aclose()
        return model.made["acme"]

    assert asyncio.run(left()) == 1


def test_requests_are_for_several_budgets_of_log_normal_answers() -> None:
    load = Load()
    lengths = load.arrivals("tenant0")
    assert lengths == Load().arrivals("tenant0") != load.arrivals("tenant1")
    assert 0 <= sum(lengths) - 5 * 20_000 < MAX_TOKENS
    assert 130 < median(lengths) < 170
    assert 1 <= min(lengths) <= max(lengths) <= MAX_TOKENS


def test_results_tell_the_worst_tenant_and_the_mean() -> None:
    over = Tally(made=110, delivered=110, streams=3, truncated=1, booked=110)
    under = Tally(made=90, delivered=80, streams=1, refused=4, booked=85)
    result = Result.of([Run({"a": over, "b": under}, 1.0, 3.0)], 100)
    assert (result.overshoot, result.share_over) == (10, 0.1)
    assert (result.usable, result.least_usable) == (0.9, 0.8)
    assert (result.truncated, result.refused, result.misbooked, result.seconds) == (0.5, 2.0, 5, 2.0)


def test_tallies_of_replicas_add_up() -> None:
    whole = Tally(made=1, waits=2)
    whole.add(Tally(made=10, delivered=5, waits=1))
    assert whole == Tally(made=11, delivered=5, waits=3)
