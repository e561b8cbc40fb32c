"""The words that end a thought, one text for each rule: a reader of the thought sees by them which rule it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HOLD: Final = 0
BUDGET: Final = 1
MARGIN: Final = 2
GROUP: Final = 3
REPEAT: Final = 4
AGAIN: Final = 5
"""Codes of what a rule says of a row: hold on, end, end as stuck (GROUP, REPEAT), or go on thinking (AGAIN)."""

NAMES: Mapping[int, str] = {BUDGET: "budget", MARGIN: "margin", GROUP: "group", REPEAT: "repeat"}
"""The rules that end a thought, as records call them."""

STUCK: frozenset[str] = frozenset({"group", "repeat"})
"""Rules that end a thought because nothing comes of it: its answer is not to be trusted."""

PHRASES: Mapping[int, str] = {
    BUDGET: "\n\nMy time to think is up, so I answer with what I have.\n",
    MARGIN: "\n\nI have thought this through, so I answer now.\n",
    GROUP: "\n\nI keep losing the thread, so I stop thinking here.\n",
    REPEAT: "\n\nI keep going round in circles, so I stop thinking here.\n",
    AGAIN: "Wait",
}
"""What is written into the thought by each rule. `Wait` is s1's (arXiv 2501.19393, section 3)."""


def ended_by(thinking: str) -> str:
    """Which rule's phrase a thought ends with; empty if none."""
    said = thinking.rstrip()
    return next((name for code, name in NAMES.items() if said.endswith(PHRASES[code].strip())), "")
