"""Thought and answer told apart in plain text, and marks that leak into either.

A server without a reasoning parser sends `<think>`, the thought, `</think>` and the answer as one text, and so does
`/v1/completions` always. After a forced end of thinking vLLM may also let through that mark, and marks that end a turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

START, END = "<think>", "</think>"
_BLANKS = 64
"""Most that stand before a thought."""

TURN_ENDS = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
"""What ends a turn in the known chat templates."""


@dataclass(slots=True)
class Splitter:
    """Text piece by piece -> (thinking, answer) piece by piece; what may be the beginning of a mark is held back.

    `inside`: the text begins in a thought that the prompt opened.
    """

    inside: bool = False
    _held: str = ""
    _begun: bool = False

    def feed(self, piece: str) -> tuple[str, str]:
        """What the text so far shows for sure."""
        text, self._held = self._held + piece, ""
        if self.inside:
            return self._thought(text)
        return ("", text) if self._begun else self._opening(text)

    def close(self) -> tuple[str, str]:
        """The rest, once nothing more comes."""
        rest, self._held = self._held, ""
        return (rest, "") if self.inside else ("", rest)

    def _opening(self, text: str) -> tuple[str, str]:
        """The first words: a thought, if they open one."""
        bare = text.lstrip()
        if len(text) - len(bare) <= _BLANKS:  # a model may write nothing but blanks, for ever
            if bare.startswith(START):
                self.inside = True
                return self._thought(bare.removeprefix(START).lstrip("\n"))
            if START.startswith(bare):
                self._held = text
                return "", ""
        self._begun = True
        return "", text

    def _thought(self, text: str) -> tuple[str, str]:
        thought, mark, answer = text.partition(END)
        if mark:
            self.inside, self._begun = False, True
            return thought, answer
        self._held = _beginning(text, (END,))
        return text.removesuffix(self._held), ""


@dataclass(slots=True)
class Answer:
    """An answer that follows a thought, piece by piece, without marks that leak.

    In front of it that is the end of thinking, with empty lines around it; behind it, what ends a turn. `begun`: the
    text goes on with an answer.
    """

    begun: bool = False
    _held: str = ""

    def feed(self, piece: str) -> str:
        """What is surely part of the answer."""
        text, self._held = self._held + piece, ""
        if not self.begun:
            text = text.lstrip("\n")
            if END.startswith(text):  # nothing yet, or what may become the mark
                self._held = text
                return ""
            self.begun = not text.startswith(END)
            if not self.begun:
                return self.feed(text.removeprefix(END))
        self._held = _ending(text)
        return text.removesuffix(self._held)

    def close(self) -> str:
        """The rest, once nothing more comes: all but whole marks."""
        rest, self._held = self._held, ""
        return "" if not self.begun and rest == END else _unended(rest)


def _ending(text: str) -> str:
    """The end of `text` that is made of marks, the last of which may be only begun."""
    whole = text.removesuffix(_beginning(text, TURN_ENDS))
    return text[len(_unended(whole)) :]


def _unended(text: str) -> str:
    while mark := next((one for one in TURN_ENDS if text.endswith(one)), ""):
        text = text.removesuffix(mark)
    return text


def _beginning(text: str, marks: Iterable[str]) -> str:
    """The longest end of `text` that begins a mark without being one."""
    sizes = (
        size for mark in marks for size in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-size:])
    )
    return text[len(text) - max(sizes, default=0) :]
