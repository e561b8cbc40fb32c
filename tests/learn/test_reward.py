"""The length-aware reward against groups worked by hand (formula: arXiv 2502.04463)."""

from __future__ import annotations

import inspect
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.learn.reward import length_aware_reward

SIGMOID_1 = 0.7310585786300049
"""sigmoid(1) = 1 / (1 + 1/e)."""


def ids(*lengths: int) -> list[list[int]]:
    return [[7] * length for length in lengths]


def rewards(alpha: float, lengths: tuple[int, ...], correct: list[Any], **more: Any) -> list[float | None]:
    prompts = more.pop("prompts", ["p"] * len(lengths))
    options = {name: more.pop(name) for name in ("eos_token_ids",) if name in more}
    function = length_aware_reward(alpha, **options)
    texts = ["some text"] * len(lengths)
    return function(prompts=prompts, completions=texts, completion_ids=ids(*lengths), correct=correct, **more)


def test_two_correct_answers_stand_one_deviation_from_their_mean() -> None:
    # lengths 10 and 30: mean 20, population std 10, so z = -1 and +1
    found = rewards(0.5, (10, 30, 99), [True, True, False])
    assert found == pytest.approx([1 - 0.5 * (1 - SIGMOID_1), 1 - 0.5 * SIGMOID_1, 0.0], abs=1e-7)


def test_three_correct_answers() -> None:
    # lengths 2, 4, 6: mean 4, population variance 8/3, z = -+ sqrt(3/2)
    z = math.sqrt(1.5)
    found = rewards(1.0, (2, 4, 6), [1, 1, 1])
    assert found == pytest.approx([1 - 1 / (1 + math.exp(z)), 0.5, 1 - 1 / (1 + math.exp(-z))], abs=1e-7)


def test_wrong_answers_neither_earn_nor_move_the_mean() -> None:
    alone = rewards(0.4, (10, 30), [True, True])
    assert rewards(0.4, (10, 30, 5000, 1), [True, True, False, 0.98])[:2] == alone
    assert rewards(0.4, (10, 30, 5000, 1), [True, True, False, 0.98])[2:] == [0.0, 0.0]


def test_no_correct_answer_in_the_group() -> None:
    assert rewards(0.7, (10, 20), [False, 0]) == [0.0, 0.0]


def test_one_correct_answer_has_no_spread() -> None:
    assert rewards(0.4, (123, 5), [True, False]) == [1 - 0.4 * 0.5, 0.0]


def test_equal_lengths_have_no_spread() -> None:
    assert rewards(1.0, (8, 8), [True, True]) == [0.5, 0.5]


def test_alpha_nought_rewards_correctness_alone() -> None:
    assert rewards(0.0, (1, 5000, 3), [True, True, False]) == [1.0, 1.0, 0.0]


def test_each_prompt_is_its_own_group_wherever_its_completions_stand() -> None:
    chat = [{"role": "user", "content": "hard"}]
    prompts = ["easy", chat, "easy", [{"content": "hard", "role": "user"}]]
    found = rewards(0.5, (10, 1000, 30, 3000), [True] * 4, prompts=prompts)
    short, long = 1 - 0.5 * (1 - SIGMOID_1), 1 - 0.5 * SIGMOID_1
    assert found == pytest.approx([short, short, long, long], abs=1e-7)


def test_a_truncated_answer_earns_nothing_and_does_not_count() -> None:
    assert rewards(0.4, (10, 30), [True, True], truncated=[False, True]) == [1 - 0.4 * 0.5, 0.0]


def test_an_answer_without_an_end_token_is_truncated() -> None:
    function = length_aware_reward(0.4, eos_token_ids=(2, 3))
    tokens = [[5, 6, 2], [5, 6, 7, 8], [], [5, 3, 3, 3, 3]]
    found = function(prompts=["a", "a", "a", "b"], completions=[""] * 4, completion_ids=tokens, correct=[True] * 4)
    assert found == [0.8, 0.0, 0.0, 0.8]


def test_what_is_correct_may_be_another_reward_function() -> None:
    def solved(completions: list[list[dict[str, str]]], solution: list[str], **_: Any) -> list[float | None]:
        said = [completion[0]["content"] for completion in completions]
        return [None if gold == "?" else float(text == gold) for text, gold in zip(said, solution, strict=True)]

    completions = [[{"role": "assistant", "content": text}] for text in ("4", "5", "4")]
    found = length_aware_reward(0.2, correct=solved)(
        prompts=["2+2"] * 3,
        completions=completions,
        completion_ids=ids(3, 4, 5),
        solution=["4", "4", "?"],
        trainer_state=None,
    )
    assert found == [0.9, 0.0, None]


def test_it_has_the_signature_and_the_name_that_the_trainer_needs() -> None:
    function: Any = length_aware_reward(0.25)
    assert function.__name__ == "length_aware_reward_0.25"
    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["prompts", "completions", "completion_ids", "columns"]
    assert parameters["columns"].kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be in 0\.\.1"):
        length_aware_reward(alpha)


def test_what_is_missing_is_named() -> None:
    function = length_aware_reward(0.5)
    with pytest.raises(ValueError, match="needs completion_ids"):
        function(prompts=["p"], completions=["c"], correct=[True])
    with pytest.raises(ValueError, match=r"no column 'correct' .*\(columns: gold, level\)"):
        function(prompts=["p"], completions=["c"], completion_ids=ids(1), level=[1], gold=["x"])
    with pytest.raises(ValueError, match="1 completions, but 2 are judged"):
        function(prompts=["p"], completions=["c"], completion_ids=ids(1), correct=[True, True])
    with pytest.raises(ValueError, match="1 completions, but completion_ids of 2"):
        function(prompts=["p"], completions=["c"], completion_ids=ids(1, 2), correct=[True])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), min_size=1, max_size=30), st.floats(0, 1))
def test_a_longer_correct_answer_never_earns_more_and_rewards_stay_shares(
    answers: list[tuple[int, bool]], alpha: float
) -> None:
    found = rewards(alpha, tuple(length for length, _ in answers), [right for _, right in answers])
    earned = sorted((length, value) for (length, right), value in zip(answers, found, strict=True) if right)
    assert all(value is not None and 1 - alpha - 1e-12 <= value <= 1 for _, value in earned)
    values = [value for _, value in earned if value is not None]
    assert all(first >= later for first, later in pairwise(values))
    assert all(value == 0 for (_, right), value in zip(answers, found, strict=True) if not right)
