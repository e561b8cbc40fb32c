"""How a thought stands in the text that a reply goes on from: `<think>`, the thought, `</think>`, the answer.

The marks of Qwen3, DeepSeek-R1 and their kin; chat templates and reasoning parsers read them.
"""

from __future__ import annotations

OPEN, SHUT = "<think>\n", "</think>"


def written(thinking: str, text: str) -> str:
    """Thought and answer as one text; with an empty answer the thought stays open."""
    if not thinking:
        return text
    return f"{OPEN}{thinking}{SHUT}\n\n{text}" if text else f"{OPEN}{thinking}"


def closed(thinking: str) -> str:
    """A thought that is over, with the answer still to come."""
    return f"{OPEN}{thinking}{SHUT}\n\n"


def read(whole: str) -> tuple[str, str]:
    """Thought and answer of one text; a text that opens no thought is all answer."""
    if not whole.startswith(OPEN):
        return "", whole
    thinking, _, text = whole.removeprefix(OPEN).partition(SHUT)
    return thinking, text.lstrip("\n")


def is_open(prefix: str) -> bool:
    """Whether the text to go on from ends inside a thought."""
    return prefix.lstrip().startswith(OPEN.strip()) and SHUT not in prefix
