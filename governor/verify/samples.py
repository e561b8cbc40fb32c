"""Checks that ask how sure the model is: agreement between samples of the same rung, and token probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

from pydantic import Field

from governor.effects import CallModel, Process
from governor.records import Amount, Call, Reply, Step, Verdict
from governor.verify import answer
from governor.verify.leaf import Bound, Leaf, accept, decided, pure, reject, unsure
from governor.verify.options import Options, Rates, Share, Site, leaf

# A prime far from usual seeds: samples of neighbouring steps must not share theirs.
_SEED_STRIDE = 1_000_003


class AgreementOptions(Options):
    """`samples` more answers at most, `share` of all votes that the answer must pass, sampling `temperature`."""

    shorthand: ClassVar[str] = "samples"
    samples: int = Field(default=4, ge=1, le=64)
    share: float = Field(default=0.5, ge=0, lt=1, strict=False)
    temperature: float = Field(default=0.7, gt=0, le=2, strict=False)


def agreement(options: AgreementOptions, site: Site) -> Leaf:
    """Accepts an answer that more than `share` of all samples give; stops as soon as that is settled.

    The reply itself is the first vote. Self-consistency: Wang et al., arXiv 2203.11171; stopping early:
    Li et al., arXiv 2401.10480 (here exact: only when no further vote could change the decision).
    """

    def work(step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del step
        if reply.truncated:
            return reject("truncated", "The answer was cut off by its length limit.")
        own = vote(reply)
        if own is None:
            return reject("empty", "The answer is empty.")
        total = options.samples + 1
        agreeing = cast = 1
        for number in range(1, total):
            if settled(agreeing, cast, total, options.share):
                break
            sample: Reply = yield CallModel(sample_call(call, number, options.temperature))
            cast += 1
            agreeing += vote(sample) == own
        feedback = f"{cast - agreeing} of {cast - 1} further attempts came to another answer. Check each step."
        return decided(agreeing > options.share * total, "disagreement", feedback, agreeing / cast)

    return leaf("agreement", options, Rates(0.9, 0.3), work, site, spend=_samples_bound(options, site.bound))


def settled(agreeing: int, cast: int, total: int, share: float) -> bool:
    """Whether the votes still to come can't change if the agreeing are more than `share` of the total."""
    return agreeing > share * total or agreeing + (total - cast) <= share * total


def sample_call(call: Call, number: int, temperature: float) -> Call:
    """One more try at the same call, at a sampling temperature and with a seed of its own."""
    hot = max(temperature, call.rung.temperature or 0.0)
    return replace(
        call,
        purpose="sample",
        sample=number,
        rung=replace(call.rung, temperature=hot),
        seed=((call.seed or 0) + number * _SEED_STRIDE) % 2**31,
        logprobs=False,
        hold=True,
    )


def vote(reply: Reply) -> str | None:
    """What a reply answers, in a form in which equal answers are equal; None for no answer, or a part of one."""
    if reply.tool_calls:
        return json.dumps([[call.name, _canonical(call.arguments)] for call in reply.tool_calls])
    return None if reply.truncated else _vote_of(reply.text)


@lru_cache(maxsize=256)  # every further sample is compared with those before
def _vote_of(text: str) -> str | None:
    found = answer.find_json(text)
    if found is not None and isinstance(found.value, dict | list):
        return json.dumps(found.value, sort_keys=True)
    final = answer.final_answer(text)
    figures = answer.numbers(final)
    if len(figures) == 1 and answer.marked_answer(text) is not None:
        return str(figures[0])
    return _number_or_text(final) or None


def _number_or_text(final: str) -> str:
    words = answer.normal(final)
    figures = answer.numbers(words)
    bare = len(figures) == 1 and not any(letter.isalpha() for letter in words)
    return str(figures[0]) if bare else words


def _canonical(arguments: str) -> str:
    found = answer.strict_json(arguments)
    return arguments if found is None else json.dumps(found.value, sort_keys=True)


def _samples_bound(options: AgreementOptions, bound: Bound) -> Bound:
    def spend(call: Call) -> Amount:
        calls = (sample_call(call, number, options.temperature) for number in range(1, options.samples + 1))
        return sum(map(bound, calls), Amount())

    return spend


class ConfidenceOptions(Options):
    """`threshold` for the mean token probability; with `window`, for the least sure window of so many tokens."""

    shorthand: ClassVar[str] = "threshold"
    threshold: Share
    window: int | None = Field(default=None, ge=1)


def confidence(options: ConfidenceOptions, site: Site) -> Leaf:
    """Accepts a reply whose geometric mean token probability reaches the threshold; unsure without logprobs.

    The windowed form is the lowest group confidence of DeepConf (arXiv 2508.15260) on the chosen tokens.
    """

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        if not reply.logprobs:
            return unsure("the backend reported no token probabilities")
        sure = mean_probability(reply.logprobs, options.window)
        if math.isnan(sure):
            return unsure("the backend reported token probabilities that are no numbers")
        if sure >= options.threshold:
            return accept(sure)
        return reject("wrong", "The answer was given without confidence. Work it out step by step.", sure)

    return leaf("confidence", options, Rates(0.8, 0.4), pure(check), site, wants_logprobs=True)


def mean_probability(logprobs: Sequence[float], window: int | None = None) -> float:
    """Exp of the mean log probability, of the whole or of the least sure `window` tokens in a row."""
    # Some backends report +1e-9 or so for certainty, and -inf for what they rounded to zero.
    usable = [min(0.0, value) if value > -1e9 else -1e9 for value in logprobs]
    if any(math.isnan(value) for value in logprobs):
        return math.nan
    size = min(window or len(usable), len(usable))
    total = lowest = math.fsum(usable[:size])
    for leaving, entering in zip(usable, usable[size:], strict=False):
        total += entering - leaving
        lowest = min(lowest, total)
    return math.exp(min(0.0, lowest / size))
