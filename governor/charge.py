"""What calls cost: tokens by kind, micro-USD, calls and seconds, added up exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from governor.errors import BackendError
from governor.plan.bounds import bound, output_bound
from governor.records import Amount, Call, Reply, Usage


@dataclass(frozen=True, slots=True)
class Charge:
    """What a stretch of work used: tokens, micro-USD, calls, seconds.

    `unknown` are output tokens that nobody reported: thought or answer, so that they count as both.
    """

    usage: Usage = Usage()
    micros: int = 0
    calls: int = 0
    seconds: float = 0.0
    unknown: int = 0

    def __add__(self, other: Charge) -> Charge:
        return Charge(
            self.usage + other.usage,
            self.micros + other.micros,
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.unknown + other.unknown,
        )

    def __sub__(self, earlier: Charge) -> Charge:
        mine, theirs = self.usage, earlier.usage
        return Charge(
            Usage(
                mine.input_tokens - theirs.input_tokens,
                mine.output_tokens - theirs.output_tokens,
                mine.thinking_tokens - theirs.thinking_tokens,
                mine.cached_tokens - theirs.cached_tokens,
                mine.written_tokens - theirs.written_tokens,
            ),
            self.micros - earlier.micros,
            self.calls - earlier.calls,
            self.seconds - earlier.seconds,
            self.unknown - earlier.unknown,
        )

    @property
    def amount(self) -> Amount:
        """The same in the ledger's dimensions; milliseconds are rounded up."""
        used = self.usage
        return Amount(
            tokens=used.total_tokens,
            micros=self.micros,
            millis=math.ceil(self.seconds * 1000),
            calls=self.calls,
            input=used.input_tokens,
            thinking=used.thinking_tokens + self.unknown,
            answer=used.answer_tokens,
        )


def charge(call: Call, answer: Reply | BackendError, output: int | None = None) -> Charge:
    """What one call cost: as reported; at its bound where usage is unknown; nothing if it was never sent.

    `output` is how many tokens the call could come to where that is less than its bound.
    """
    if isinstance(answer, BackendError) and not answer.sent:
        return Charge(seconds=answer.seconds)
    usage = answer.usage
    if usage is None or (isinstance(answer, Reply) and not answer.usage_known):
        return at_bound(call, answer.seconds, output)
    if answer.spent is not None:
        return Charge(usage, answer.spent.micros, answer.spent.calls, answer.seconds)
    return Charge(usage, call.rung.price.micros(usage), 1, answer.seconds)


def at_bound(call: Call, seconds: float, output: int | None = None) -> Charge:
    """The most that one call can have cost."""
    output = output_bound(call) if output is None else output
    most = bound(call, output)
    return Charge(Usage(most.input, output), most.micros, 1, seconds, unknown=output)
