"""What the engine must know of a model's tokens: their marks, and how words are written in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from governor.stops.marks import END, MARK, NODE_AT, SENTENCE, Marks, events

EVENT, SENTENCE_END = 1, 2
"""What of a token wakes a request that rests: any one by the first (`governor.stops.marks.events`)."""

LONGEST = 128
"""Tokens of a phrase with the mark that ends the thought; what is longer is cut in front of that mark."""


class Tokenizer(Protocol):
    """The part of a tokenizer that is used."""

    eos_token_id: Any

    @property
    def all_special_ids(self) -> Sequence[int]: ...

    @property
    def max_token_id(self) -> int: ...

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one model. `size` is the width of its logits, which may pass the tokenizer's. Tables are lazy.

    `load` gives the tokenizer, and is not asked before a table is. `eos` are tokens that end a reply beside the
    tokenizer's own: those of the model's generation_config.
    """

    load: Callable[[], Tokenizer]
    size: int
    marks: Marks
    eos: tuple[int, ...] = ()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.load()

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """See `Marks.table`."""
        texts = self._texts
        return self._known.table([*texts, *[""] * (self.size - len(texts))])

    @cached_property
    def _texts(self) -> Sequence[str]:
        known = min(self.size, self.tokenizer.max_token_id + 1)  # ids may have gaps, so that they are fewer
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in range(known)]

    @cached_property
    def _known(self) -> Marks:
        """The marks that can be this model's."""
        return self.marks.among(self._texts)

    @cached_property
    def steps(self) -> tuple[memoryview, bytes]:
        """The next state, and what a token brings (EVENT and SENTENCE_END, added), at `state * size + token`.

        For single look-ups on the host, at which these are quicker than arrays.
        """
        states = (self.table >> NODE_AT).astype(np.uint16).ravel()
        brought = EVENT * events(self.table) + SENTENCE_END * ((self.table & SENTENCE) > 0)
        return states.data, brought.astype(np.uint8).tobytes()

    @cached_property
    def endings(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """For each state of the marks the tokens that would end the thought, or the reply: (states, most) and whether.

        Rows are filled up with their first token, so that writing one value to all of them is well defined.
        """
        found = [np.union1d(np.flatnonzero((row & MARK) == END), self._ends_reply) for row in self.table]
        filled = np.zeros((len(found), max(1, *(len(one) for one in found))), dtype=np.int64)
        for at, tokens in enumerate(found):
            if len(tokens):
                filled[at] = tokens[0]
                filled[at, : len(tokens)] = tokens
        return filled, np.array([len(tokens) > 0 for tokens in found])

    @cached_property
    def turns(self) -> NDArray[np.bool_]:
        """The tokens (size,) with which a turn of a prompt begins or ends: special ones, such as `<|im_end|>`.

        Marks of thoughts and tool calls are none, nor are their parts, though many tokenizers hold them as special.
        """
        special = {token for token in self.tokenizer.all_special_ids if token < self.size} | set(self._ends_reply)
        found = np.zeros(self.size, dtype=bool)
        found[[token for token in special if not self._is_of_a_mark(token)]] = True
        return found

    def _is_of_a_mark(self, token: int) -> bool:
        text = self.tokenizer.decode([token], skip_special_tokens=False).strip()
        return text != "" and any(text in mark or mark in text for mark in self.marks.words)

    @cached_property
    def end(self) -> tuple[int, ...]:
        """The mark that ends a thought, in tokens."""
        return tuple(self.tokenizer.encode(self.marks.end, add_special_tokens=False))

    @cached_property
    def longest_mark(self) -> int:
        """Characters, and so at most tokens, of the longest mark."""
        return self._known.longest

    @property
    def _ends_reply(self) -> NDArray[np.int64]:
        held = (*ids_of(self.tokenizer.eos_token_id), *self.eos)
        return np.array([token for token in held if token < self.size], dtype=np.int64)

    def closing(self, phrase: str) -> tuple[int, ...]:
        """A phrase and the end of the thought, in tokens."""
        return (*self.words(phrase)[: LONGEST - len(self.end)], *self.end)

    def words(self, phrase: str) -> tuple[int, ...]:
        """A phrase in tokens, cut in front of the first mark: where a request is checked this model's aren't known."""
        cut = min((phrase.find(mark) for mark in self.marks.words if mark in phrase), default=len(phrase))
        return tuple(self.tokenizer.encode(phrase[:cut], add_special_tokens=False)[:LONGEST])


def ids_of(stated: Any) -> tuple[int, ...]:
    """Token ids as configurations state them: none, one or several."""
    return () if stated is None else tuple(stated) if isinstance(stated, Sequence) else (stated,)
