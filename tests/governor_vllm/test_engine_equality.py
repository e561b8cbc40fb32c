"""Requests that nobody governs get the tokens that they get from a server without the processor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from governor_vllm.link import Link
from governor_vllm.request import CHAT
from tests.governor_vllm.engine_calls import tell
from tests.governor_vllm.engine_models import LONG
from tests.governor_vllm.engines import PARSED, Engine, served

Tokens = tuple[int, ...]

MANY = 32
GAP = 0.02  # seconds between arrivals, so that each run's come alike
LEAST_CHANCE = 0.01
TEXTS = tuple(f"Why is {number} a {'good' if number % 3 else 'poor'} answer?" for number in range(MANY))
WITHOUT, WITH = (0, 3, 4, 7, 8), (1, 2, 5, 6, 9)  # turns: A B B A A B B A A B


@pytest.fixture(scope="module")
def bare(models: Path) -> Iterator[Engine]:
    """The server of `engine` without the processor."""
    with served(models, "thinking", LONG, (*PARSED, "--scheduling-policy", "priority"), governed=False) as running:
        yield running


def tokens(link: Link, number: int, salt: str) -> Tokens:
    """What one request gets: every other one greedily, the others drawn by a seed of their own.

    The salt keeps runs from reading each other's cache: what is read from it is computed in other batches.
    """
    drawn: dict[str, Any] = {"temperature": 1.0, "seed": number} if number % 2 else {"temperature": 0.0}
    body = {"model": "q", "messages": [{"role": "user", "content": TEXTS[number]}], "max_tokens": 32, **drawn}
    answer = link.post(CHAT, {**body, "ignore_eos": True, "return_token_ids": True, "cache_salt": salt}, 120)
    return tuple(answer["choices"][0]["token_ids"])


def at_once(engine: Engine, salt: str) -> list[Tokens]:
    """What 32 requests get that come one shortly after the other."""
    link, begun = Link(engine.url), threading.Barrier(MANY)

    def one(number: int) -> Tokens:
        begun.wait()
        time.sleep(GAP * number)
        return tokens(link, number, salt)

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(one, range(MANY)))


def apart(runs: Sequence[Sequence[Tokens]]) -> NDArray[np.int64]:
    """In how many requests each two runs differ."""
    return np.array([[sum(a != b for a, b in zip(one, other, strict=True)) for other in runs] for one in runs])


def surplus(distances: NDArray[np.int64], group: Sequence[int]) -> float:
    """How much further runs of the group are from the others, on average, than the others are from each other."""
    others = [run for run in range(len(distances)) if run not in group]
    across = mean(int(distances[one, other]) for one in group for other in others)
    return across - mean(int(distances[one, other]) for one, other in combinations(others, 2))


def chance(distances: NDArray[np.int64], group: Sequence[int]) -> float:
    """The share of all divisions of the runs whose surplus is at least the group's (an exact permutation test).

    Where the processor changes nothing runs with it are runs like any other, and this is p or less with probability p,
    however much batches make runs differ.
    """
    found = surplus(distances, group)
    divisions = list(combinations(range(len(distances)), len(group)))
    return mean(surplus(distances, one) >= found - 1e-9 for one in divisions)


def test_the_rule_finds_one_request_that_always_differs_and_no_fault_in_noise() -> None:
    same = [[(number,) for number in range(MANY)] for _ in range(10)]
    assert chance(apart(same), WITH) == 1.0
    for run in WITH:
        same[run][5] = (-1,)
    assert chance(apart(same), WITH) < LEAST_CHANCE
    for run in (*WITH, *WITHOUT):
        same[run][7] = (run,)  # one that differs between any two runs hides nothing
    assert chance(apart(same), WITH) < LEAST_CHANCE
    random = np.random.default_rng(0)
    noisy = [[(int(random.integers(2)),) for _ in range(MANY)] for _ in range(10)]
    assert chance(apart(noisy), WITH) > LEAST_CHANCE


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_one_at_a_time_the_tokens_are_the_same(engine: Engine, bare: Engine) -> None:
    with_it, without = ([tokens(Link(one.url), number, "alone") for number in range(8)] for one in (engine, bare))
    assert with_it == without
    assert len(set(without)) > 1


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_at_32_they_differ_no_more_than_two_runs_without_it(engine: Engine, bare: Engine) -> None:
    runs = [at_once(engine if turn in WITH else bare, f"turn {turn}") for turn in range(len(WITH) + len(WITHOUT))]
    distances = apart(runs)
    between = [int(distances[one, other]) for one in WITHOUT for other in WITH]
    within = [int(distances[one, other]) for one, other in combinations(WITHOUT, 2)]
    found = chance(distances, WITH)
    tell(f"\nof 32 replies differ: {within} between runs without, {between} between with and without; p = {found:.3f}")
    assert found >= LEAST_CHANCE
