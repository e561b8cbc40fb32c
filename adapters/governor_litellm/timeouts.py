"""Time limits of single requests, as few different ones as can be.

LiteLLM keeps a provider's client, and with it the open connections, for each time limit (BerriAI/litellm,
`llms/openai/common_utils.py`, `get_openai_client_cache_key`): a limit of its own for every request would cost every
request a connection of its own, and a TLS handshake.
"""

from __future__ import annotations

import math

DIGITS = 2
"""Of a time limit that is not the usual one: 90 different ones from 1 s to 10 s, and 90 more to 100 s."""


def steady(seconds: float, usual: float, *, guarded: bool = False) -> float:
    """`usual` where there are that many `seconds`, else these in two digits, rounded down: never more than there are.

    Of a request that is `guarded`, which something else ends when they are over, rounded up: it has all of them.
    """
    if seconds >= usual or seconds <= 0:
        return min(seconds, usual)
    step = 10.0 ** (math.floor(math.log10(seconds)) + 1 - DIGITS)
    if guarded:
        return min(max(math.ceil(seconds / step) * step, seconds), usual)
    return min(math.floor(seconds / step) * step, seconds)
