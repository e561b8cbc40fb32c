"""The hold-back window of a speculated stream: what of it may be shown, a sentence at a time."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 400
"""Characters after which text is taken as far as its last word, though no sentence has ended."""

_SENTENCE = re.compile(
    r"[.!?\u2026][\"'\u201d\u2019)\]*_`]*\s+|[\u3002\uff01\uff1f][\u201d\u300d\u300f\uff09]*|\n\s*\n"
)


class Window:
    """Mutable, made for one stream. Chunks leave it whole and in their order, once the text up to their end is cleared.

    `doubts` says why no answer that begins with a text will be accepted, or nothing. `chunks` are all that came, of
    which the first `shown` were given away; `doubt` is the first one there was, after which nothing more is.
    """

    def __init__(self, doubts: Callable[[str], str]) -> None:
        self.chunks: list[Any] = []
        self.shown = 0
        self.doubt = ""
        self._doubts = doubts
        self._ends: list[int] = []
        """Of the chunks that may be shown before the end: how much text there is with each."""
        self._open = True
        self._cleared = self._rest = ""

    def take(self, chunk: Any, text: str, *, waits: bool) -> Iterator[Any]:
        """The chunks that may be shown now that this one has come with so much text.

        One that `waits`, and all that follow it, stay until the end.
        """
        self.chunks.append(chunk)
        self._rest += text
        self._open = self._open and not waits
        if self._open:
            self._ends.append(len(self._cleared) + len(self._rest))
        end = sentence_end(self._rest) if text and self._open else 0
        if end:
            self._clear(end)
        return self._free()

    def close(self) -> None:
        """The stream has ended: the text after its last sentence may be doubted as well."""
        self.doubt = self.doubt or self._doubts(self._cleared + self._rest)

    def _clear(self, end: int) -> None:
        self.doubt = self.doubt or self._doubts(self._cleared + self._rest)
        if not self.doubt:
            self._cleared, self._rest = self._cleared + self._rest[:end], self._rest[end:]

    def _free(self) -> Iterator[Any]:
        """Chunks up to the last that is cleared, the first ones only with text.

        Each counts as shown before it is given away: from then on it can't be taken back.
        """
        free = bisect_right(self._ends, len(self._cleared))
        while self.shown < free and self._ends[free - 1]:
            self.shown += 1
            yield self.chunks[self.shown - 1]


def sentence_end(text: str) -> int:
    """Up to where whole sentences reach, else whole words of a long text; 0 where there is nothing of the kind."""
    end = max((found.end() for found in _SENTENCE.finditer(text)), default=0)
    if end or len(text) < LONGEST:
        return end
    return max(text.rfind(" "), text.rfind("\n")) + 1 or len(text)
