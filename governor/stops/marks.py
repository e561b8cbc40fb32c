r"""Marks in generated text - thoughts, tool calls, code fences, blank lines - however it is cut into tokens.

An automaton (Aho and Corasick 1975, Efficient string matching) reads characters. Over a vocabulary it becomes a table
from (state, token) to (state, what the token completed), so that a mark that is spread over tokens, or merged with what
stands beside it (`>\n`), is found with one look-up a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from governor.stops.arrays import Array

START, END, TOOL, TOOL_END = 1, 2, 3, 4
MARK = 0b111
"""Bits of the last thought or tool mark that was completed."""
FENCE, PARAGRAPH, SENTENCE = 8, 16, 32
"""Bits: an odd number of code fences, a blank line, the end of a sentence."""
BRACES_AT, BRACES_BIAS = 6, 8
"""Four bits: braces opened less braces closed, plus the bias."""
NODE_AT = 10
"""The next state stands above these bits."""
CODE = (1 << NODE_AT) - 1

USUAL = ("<tool_call>", "</tool_call>")
TOOLS = (
    USUAL,
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),  # Kimi K2
    ("<minimax:tool_call>", "</minimax:tool_call>"),
    ("<seed:tool_call>", "</seed:tool_call>"),
    ("<longcat_tool_call>", "</longcat_tool_call>"),
    ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>"),  # DeepSeek
)
"""What opens and closes tool calls, by family."""

_STOPS = (".", "!", "?", "\n", "\u3002", "\uff01", "\uff1f")
"""Full stops, the last three of them Chinese and Japanese."""


def ends_sentence(text: str) -> bool:
    """Whether text ends where a sentence does (ThinkBrake reads its margin there)."""
    said = text.rstrip(" \"')*")
    return said.endswith(_STOPS) or text.endswith("\n")


@dataclass(frozen=True)
class Marks:
    """The automaton for one model's thought marks. Not slotted: its tables are made once, when first asked for."""

    start: str = "<think>"
    end: str = "</think>"
    tools: tuple[tuple[str, str], ...] = TOOLS

    def among(self, texts: Iterable[str]) -> Marks:
        """The same without marks of other families' tool calls, which these tokens don't hold: they'd widen its table.

        The usual ones stay: models write them in several tokens, too.
        """
        known = set(texts)
        return replace(self, tools=tuple(pair for pair in self.tools if pair == USUAL or pair[0] in known))

    def read(self, node: int, text: str) -> tuple[int, int]:
        """The state after `text`, and its code: what it completed, its braces, whether it ends a sentence."""
        code = 0
        for character in text:
            node = self._goto[node][self._classes.get(character, 0)]
            if done := self._done[node]:
                code, node = _and_then(code, done), 0
        return node, code | traits(text)

    def table(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """`table[node, token] = next node << NODE_AT | code`, for tokens with these texts; shape (nodes, tokens)."""
        goto, done = np.array(self._goto, dtype=np.int32), np.array(self._done, dtype=np.int32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        spelled = [np.array([self._classes.get(c, 0) for c in texts[at]], dtype=np.int8) for at in order]
        node = np.repeat(np.arange(len(goto), dtype=np.int32)[:, None], len(texts), axis=1)
        code = np.zeros_like(node)
        active = len(texts)
        for at in range(len(spelled[0]) if spelled else 0):
            while len(spelled[active - 1]) <= at:
                active -= 1
            letters = np.fromiter((one[at] for one in spelled[:active]), dtype=np.int8, count=active)
            after = goto[node[:, :active], letters[None, :]]
            found = done[after]
            mark = np.where(found & MARK, found & MARK, code[:, :active] & MARK)
            code[:, :active] = (((code[:, :active] ^ (found & FENCE)) | (found & PARAGRAPH)) & ~MARK) | mark
            node[:, :active] = np.where(found, 0, after)
        packed = np.empty_like(node)
        packed[:, order] = (node << NODE_AT) | code
        packed |= np.array([traits(text) for text in texts], dtype=np.int32)[None, :]
        return packed

    @property
    def words(self) -> tuple[str, ...]:
        """The marks of thoughts and tool calls."""
        return (self.start, self.end, *chain.from_iterable(self.tools))

    @property
    def longest(self) -> int:
        """Characters of the longest mark."""
        return max(map(len, self._words))

    @cached_property
    def _words(self) -> Mapping[str, int]:
        tools = {mark: code for pair in self.tools for mark, code in zip(pair, (TOOL, TOOL_END), strict=True)}
        return {self.start: START, self.end: END, **tools, "```": FENCE, "\n\n": PARAGRAPH}

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        """Characters that stand in a mark, numbered from 1; all others are 0."""
        return {character: at for at, character in enumerate(sorted(set("".join(self._words))), start=1)}

    @cached_property
    def _nodes(self) -> Mapping[str, int]:
        """What of a mark was read, numbered; "" is 0."""
        prefixes = {word[:length] for word in self._words for length in range(len(word) + 1)}
        return {prefix: at for at, prefix in enumerate(sorted(prefixes))}

    @cached_property
    def _goto(self) -> list[list[int]]:
        letters = {at: character for character, at in self._classes.items()}
        return [
            [0] + [self._longest(prefix + letters[at]) for at in range(1, len(letters) + 1)] for prefix in self._nodes
        ]

    def _longest(self, read: str) -> int:
        return next(self._nodes[read[at:]] for at in range(len(read) + 1) if read[at:] in self._nodes)

    @cached_property
    def _done(self) -> list[int]:
        return [_all(code for word, code in self._words.items() if prefix.endswith(word)) for prefix in self._nodes]


def events(table: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Of which entries of a table a place must be told: those that complete a mark or a fence, or that hold braces."""
    found: NDArray[np.bool_] = ((table & (MARK | FENCE)) > 0) | (braces_of(table) != 0)
    return found


def braces_of(packed: Array) -> Array:
    """Braces opened less braces closed, of entries of the table."""
    return ((packed >> BRACES_AT) & (2 * BRACES_BIAS - 1)) - BRACES_BIAS


def traits(text: str) -> int:
    """The part of a token's code that its text alone tells: braces, and whether it ends a sentence."""
    braces = min(max(text.count("{") - text.count("}"), -BRACES_BIAS), BRACES_BIAS - 1)
    return (braces + BRACES_BIAS) << BRACES_AT | (SENTENCE if ends_sentence(text) else 0)


def _and_then(code: int, done: int) -> int:
    mark = done & MARK or code & MARK
    return (((code ^ (done & FENCE)) | (done & PARAGRAPH)) & ~MARK) | mark


def _all(codes: Iterable[int]) -> int:
    found = 0
    for code in codes:
        found |= code
    return found
