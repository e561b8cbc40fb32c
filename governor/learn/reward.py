"""The length-aware reward for training a model to think no longer than it must.

Arora & Zanette, "Training Language Models to Reason Efficiently", arXiv 2502.04463: a correct answer earns less the
longer it is among the correct answers to the same prompt, so that hard prompts are not punished for being hard.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any, TypeAlias

Judged: TypeAlias = Sequence[bool | float | None]
Reward: TypeAlias = Callable[..., list[float | None]]
"""A reward function as TRL's GRPOTrainer calls it: `(prompts, completions, **columns) -> rewards`."""

STRICT = 0.99
"""A graded answer counts as correct from this share on."""

EPSILON = 1e-7


def length_aware_reward(
    alpha: float,
    *,
    correct: str | Callable[..., Judged] = "correct",
    truncated: str = "truncated",
    eos_token_ids: Collection[int] = (),
) -> Reward:
    """A reward function for TRL: `1[correct] * (1 - alpha * sigmoid((len - mean) / (std + 1e-7)))`.

    Mean and (population) standard deviation are over the lengths, in tokens, of the prompt's own correct answers in
    the batch; equal prompts are one group. `alpha` in 0..1 is the level of efficiency: 0 rewards correctness alone.
    `correct` is a column of booleans (or of grades: 0.99 counts), or a function in the same signature that gives
    them, such as TRL's `accuracy_reward`; None there stays None, which TRL leaves out. A truncated answer earns 0:
    one that the column `truncated` marks, or, where `eos_token_ids` are given, whose last token is none of them.
    Lengths are those of `completion_ids`, which TRL passes. Raises ValueError for a bad `alpha` and where a
    column is missing.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in 0..1, is {alpha}")

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        lengths = _lengths(completion_ids, len(completions))
        judged = _judged(correct, prompts, completions, completion_ids, columns)
        cut = _cut(columns.get(truncated), completion_ids, eos_token_ids)
        right = [_is_correct(grade) and not cut_off for grade, cut_off in zip(judged, cut, strict=True)]
        groups: dict[str, list[int]] = {}
        keys = [_key(prompt) for prompt in prompts]
        for key, length, counts in zip(keys, lengths, right, strict=True):
            if counts:
                groups.setdefault(key, []).append(length)
        scales = {key: (fmean(group), pstdev(group)) for key, group in groups.items()}
        return [
            None if grade is None else 1 - alpha * _sigmoid(length, *scales[key]) if counts else 0.0
            for key, length, counts, grade in zip(keys, lengths, right, judged, strict=True)
        ]

    reward.__name__ = f"length_aware_reward_{alpha:g}"  # what TRL calls the reward in its logs
    return reward


def _sigmoid(length: float, mean: float, std: float) -> float:
    score = (length - mean) / (std + EPSILON)
    return 1 / (1 + math.exp(-score))  # no overflow: |score| is at most the root of the group's size


def _lengths(completion_ids: Any, count: int) -> list[int]:
    if completion_ids is None:
        raise ValueError("the length-aware reward needs completion_ids: token ids of each completion, as TRL passes")
    if len(completion_ids) != count:
        raise ValueError(f"{count} completions, but completion_ids of {len(completion_ids)}")
    return [len(ids) for ids in completion_ids]


def _judged(
    correct: str | Callable[..., Judged],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Any,
    columns: Mapping[str, Any],
) -> Judged:
    if callable(correct):
        judged = correct(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
    elif correct in columns:
        judged = columns[correct]
    else:
        have = ", ".join(sorted(columns)) or "none"
        raise ValueError(f"no column '{correct}' says which completions are correct (columns: {have})")
    if len(judged) != len(completions):
        raise ValueError(f"{len(completions)} completions, but {len(judged)} are judged")
    return judged


def _cut(marked: Sequence[Any] | None, completion_ids: Any, eos_token_ids: Collection[int]) -> list[bool]:
    marks = [False] * len(completion_ids) if marked is None else [bool(mark) for mark in marked]
    if not eos_token_ids:
        return marks
    ended = [len(ids) > 0 and ids[-1] in eos_token_ids for ids in completion_ids]
    return [mark or not end for mark, end in zip(marks, ended, strict=True)]


def _is_correct(grade: float | None) -> bool:
    return grade is not None and grade >= STRICT


def _key(prompt: Any) -> str:
    """Equal prompts, equal keys: text, or a list of chat messages."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
