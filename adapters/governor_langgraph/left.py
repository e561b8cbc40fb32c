"""What is left of a step's budgets, told to the model after tool results: models that know it plan their tools by it.

Liu et al. 2025, "Budget-Aware Tool-Use Enables Effective Agent Scaling" (arXiv:2511.17006).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, cast

from governor.errors import LedgerError
from governor.facade import Governor
from governor.ledger.sums import DIMENSIONS
from governor.policy import tell_for
from governor.protocols import Terms
from governor.records import Message, Step

log = logging.getLogger("governor")
_SAID = {
    "tokens": "{:,} tokens",
    "micros": "${:.4f}",
    "calls": "{:,} model calls",
    "input": "{:,} input tokens",
    "thinking": "{:,} thinking tokens",
    "answer": "{:,} answer tokens",
}


def left_of(governor: Governor, terms: Terms) -> Mapping[str, int]:
    """The least that any limit leaves, by dimension, open reservations counted as spent; without what is unlimited.

    TypeError where the ledger is awaited, as where a budget is paced.
    """
    least: dict[str, int] = {}
    for limit in terms.limits:
        balance: Any = governor.ledger.balance(limit.scope)
        if inspect.isawaitable(balance):
            cast("Coroutine[Any, Any, Any]", balance).close()
            raise TypeError("`budget.tell` needs a ledger that answers at once, not an awaited one")
        for name in DIMENSIONS:
            ceiling = getattr(limit, name)
            if ceiling is not None and name in _SAID:
                room = max(0, ceiling - getattr(balance.spent, name) - getattr(balance.reserved, name))
                least[name] = min(room, least.get(name, room))
    return least


def with_left(governor: Governor, terms: Terms, step: Step) -> tuple[Message, ...]:
    """A step's messages, the last of which says what is left if it is a tool's result and the policy wants it said."""
    messages = step.messages
    if not messages or messages[-1].get("role") != "tool" or not tell_for(governor.policy, step):
        return messages
    try:
        left = left_of(governor, terms)
    except LedgerError as fault:  # what it means that the store is down, the step's reservation and `fail` say
        log.warning("a step is not told what is left of its budgets: %s", fault)
        return messages
    if not left:
        return messages
    said = ", ".join(_SAID[name].format(number / 1e6 if name == "micros" else number) for name, number in left.items())
    return *messages[:-1], {**messages[-1], "content": _appended(messages[-1].get("content"), f"[Budget left: {said}]")}


def _appended(content: Any, text: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if content else text
