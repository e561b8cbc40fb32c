"""Verifiers that users bring: a Python function named in the policy, or an entry point of an installed package."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from governor.effects import Compute, Process
from governor.errors import VerifierError
from governor.protocols import Verifier
from governor.records import Amount, Call, Reply, Step, Verdict
from governor.verify.foresight import doubts, foresees
from governor.verify.leaf import Leaf, accept, one_line, reject
from governor.verify.options import Options, Place, Rates, Share, Site, leaf, load

GROUP = "governor.verifiers"
_DECISIONS = {"accept", "reject", "unsure"}


class CallableOptions(Options):
    """`function` is `package.module:name`, called with (step, reply); `threshold` decides where it returns a score."""

    shorthand: ClassVar[str] = "function"
    function: Place
    threshold: Share = 0.5


def callable_(options: CallableOptions, site: Site) -> Leaf:
    """Accepts what a function of the user accepts. It returns a bool, a score, a Verdict, or an awaitable of one."""
    function = load(options.function)
    if not callable(function):
        raise VerifierError(f"'{options.function}' is not callable")

    def work(step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del call
        result: Any = yield Compute(options.function, lambda: function(step, reply))
        return as_verdict(result, options.threshold)

    return leaf("callable", options, Rates(0.95, 0.2), work, site)


def as_verdict(result: Any, threshold: float) -> Verdict:
    """What a user's function returned, as a verdict; VerifierError for anything that can't be one."""
    if isinstance(result, Verdict):
        if result.decision not in _DECISIONS:
            raise VerifierError(f"the verifier returned the decision {result.decision!r}")
        return result
    if isinstance(result, Awaitable):
        raise VerifierError("the verifier is a coroutine function: it needs the asynchronous driver")
    feedback = "The answer did not pass the check."
    if isinstance(result, bool):
        return accept() if result else reject("wrong", feedback)
    if not isinstance(result, int | float) or math.isnan(result) or not 0 <= result <= 1:
        raise VerifierError(f"the verifier returned {result!r}, not a bool, a score from 0 to 1, or a Verdict")
    return accept(float(result)) if result >= threshold else reject("wrong", feedback, float(result))


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Verifiers of installed packages by name; nothing of theirs is imported yet."""
    return {point.name: point for point in entry_points(group=GROUP)}


def third_party(name: str, options: Mapping[str, Any], site: Site) -> Verifier:
    """The verifier that an entry point makes of these options, guarded like our own.

    The entry point is a Verifier, taken as it is, or a function options -> Verifier. Raises VerifierError.
    """
    try:
        found: Any = installed()[name].load()
        made = found if isinstance(found, Verifier) and not isinstance(found, type) else found(options)
    except Exception as cause:
        raise VerifierError(f"the verifier '{name}' can't be made: {one_line(cause)}") from cause
    if not isinstance(made, Verifier):
        raise VerifierError(f"the verifier '{name}' is no Verifier but a {type(made).__name__}")
    return Guarded(made)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A foreign verifier whose breakdown becomes an unsure verdict."""

    inner: Verifier

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def sensitivity(self) -> float:
        return self.inner.sensitivity

    @property
    def false_accept(self) -> float:
        return self.inner.false_accept

    @property
    def needs_whole_answer(self) -> bool:
        return self.inner.needs_whole_answer

    @property
    def wants_logprobs(self) -> bool:
        return self.inner.wants_logprobs

    @property
    def foresees(self) -> bool:
        return foresees(self.inner)

    def doubts(self, step: Step, text: str) -> str:
        try:
            return doubts(self.inner, step, text)
        except Exception:  # noqa: BLE001  what breaks down here does so on the whole answer, and is told there
            return ""

    def bound(self, call: Call) -> Amount:
        return self.inner.bound(call)

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        try:
            return as_verdict((yield from self.inner.verify(step, call, reply)), 0.5)
        except Exception as cause:  # noqa: BLE001  whatever broke, the verdict is unsure and says so
            return Verdict(decision="unsure", verifier=self.name, error=one_line(cause))
