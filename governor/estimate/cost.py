"""What a rung's reply is expected to cost: money at its price, and a rough time."""

from __future__ import annotations

from governor.records import Rung

_SECONDS_FIRST = 0.5
_TOKENS_PER_SECOND = 60.0
_CHARACTERS_PER_TOKEN = 4.0


def expected_micros(rung: Rung, input_tokens: float, output_tokens: float) -> float:
    """Micro-USD of all samples: each is asked the whole prompt, `output_tokens` are of all together."""
    asked = input_tokens + len(rung.instruction or "") / _CHARACTERS_PER_TOKEN
    return asked * max(rung.samples, 1) * rung.price.input + output_tokens * rung.price.output


def expected_seconds(rung: Rung, output_tokens: float) -> float:
    """Seconds until the last of `output_tokens`, at most what the rung's timeout allows each sample."""
    return min(_SECONDS_FIRST + output_tokens / _TOKENS_PER_SECOND, rung.timeout * max(rung.samples, 1))
