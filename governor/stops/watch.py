"""The rules on the client: one reply, as it streams in, with whatever its backend tells of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from governor.stops.arrays import Array, columns, matrix
from governor.stops.group import Group, confidence
from governor.stops.margin import margin_of
from governor.stops.marks import END, START, Marks, traits
from governor.stops.phrases import NAMES
from governor.stops.place import Place, passed
from governor.stops.rows import Limits, Rules, Signals, Uses, fresh, limits_of
from governor.stops.settings import Stops
from governor.stops.tokens import Token

_WORD = re.compile(r"\s{0,32}\w{1,16}|\s{0,32}[^\w\s]|\s{1,32}")
"""A word with the blanks before it. Neither is without end: digits, blanks or Chinese may go on for ever."""
_WHOLE = re.compile(r"\s*[^\w\s]")
_BYTES_A_TOKEN = 4.0
"""Where a backend does not count its tokens: what one comes to in English."""

_RULES = Rules(np, np.asarray, anywhere=True)
_ONE, _NONE = np.ones(1), np.zeros(1)
_MARKS = Marks()  # one for all streams: its tables take longer to make than a token to read
_UNKNOWN = Signals(np.full(1, math.inf), _NONE, _NONE, _NONE, _NONE)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A token, or a word where tokens are not told, and how many tokens it stands for; no text yet: only the count."""

    text: str
    weight: float
    token: Token | None = None


class Watch:
    """Reads one reply's stream; mutable. `temperature` is the one that it is sampled at.

    The client can only end a stream: phrases and least amounts are the engine's. Being stuck is judged on thought and
    answer alike, confidence and budget on the thought. Log-probabilities must be told for the confidence rules to act.
    """

    def __init__(self, stops: Stops, *, temperature: float | None = None, marks: Marks | None = None) -> None:
        self._stops = stops
        self._marks = marks or _MARKS
        self._uses = Uses.of(stops)
        self._limits = columns(Limits, limits_of(stops, temperature=temperature)[None, :])
        self._rows = fresh(1)
        self._window: Array = np.zeros(stops.group_window)
        self._node = 0
        self._thinking = False
        self._half = ""

    @property
    def lowest(self) -> float | None:
        """The lowest group confidence so far (see `group.warm_threshold`); None before the window was full."""
        group = columns(Group, self._rows.group)
        return float(group.lowest[0]) if group.entered[0] >= self._stops.group_window else None

    @property
    def count(self) -> float:
        """Tokens of thought so far; an estimate where the backend does not count."""
        return float(columns(Place, self._rows.place).count[0])

    def read(self, text: str, *, thinking: bool, tokens: Sequence[Token] = (), made: int | None = None) -> str:
        """Take in a piece of thought or answer. The name of the rule that ends the reply here; empty if none.

        `tokens` are the piece's, where they are told; `made` is how many tokens it is, where only that is known.
        """
        if thinking is not self._thinking:
            self._turn(thinking)
        for piece in self._pieces(text, tokens, made):
            if rule := self._take(piece):
                return rule
        return ""

    def _words(self, text: str) -> list[str]:
        """The words that are whole. One that the next text may go on with is held back, so that cuts change none."""
        words = _WORD.findall(self._half + text)
        self._half = words.pop() if words and not _WHOLE.fullmatch(words[-1]) else ""
        return words

    def _turn(self, thinking: bool) -> None:
        """Thought and answer come apart: what separates them is not in the stream."""
        self._thinking, self._half = thinking, ""
        self._move(_UNKNOWN, 0, (START if thinking else END) | traits(""), _NONE, _NONE)

    def _pieces(self, text: str, tokens: Sequence[Token], made: int | None) -> Iterator[_Piece]:
        if tokens:
            yield from (_Piece(token.text, 1.0, token) for token in tokens)
            return
        count = len(text.encode("utf-8", "surrogatepass")) / _BYTES_A_TOKEN if made is None else made
        words = self._words(text) or [""]
        yield from (_Piece(word, count / len(words)) for word in words)

    def _take(self, piece: _Piece) -> str:
        signals = self._signals(piece.token)
        rule = NAMES.get(int(_RULES.said(self._limits, self._rows, signals, _NONE, self._uses)[0]), "")
        if not piece.text and piece.token is None:
            self._count(piece.weight)
            return rule
        self._node, code = self._marks.read(self._node, piece.text)
        self._move(signals, crc32(piece.text.encode("utf-8", "surrogatepass")), code, np.full(1, piece.weight), _ONE)
        return rule

    def _count(self, tokens: float) -> None:
        """Tokens of a word that is not whole yet: a budget does not wait for its end."""
        here = columns(Place, self._rows.place)
        self._rows = replace(self._rows, place=matrix(np, passed(np, here, np.full(1, tokens), here.node)))

    def _move(self, signals: Signals, token: int, code: int, generated: Array, own: Array) -> None:
        at = _RULES.window_place(self._limits, self._rows)
        leaving, entered = self._window[at], columns(Group, self._rows.group).entered
        packed, ids = np.full(1, code), np.full(1, token)
        self._rows = _RULES.after(self._limits, self._rows, signals, ids, packed, leaving, generated, own, self._uses)
        enters = columns(Group, self._rows.group).entered > entered  # what a tool call says does not
        self._window[at] = np.where(enters, signals.spread, leaving)

    def _signals(self, token: Token | None) -> Signals:
        if token is None or not token.top:
            return _UNKNOWN
        ranked = np.sort(np.array([logprob for _, logprob in token.top]))[::-1]
        ending = next((logprob for text, logprob in token.top if text.strip() == self._marks.end), -math.inf)
        return Signals(
            margin=np.full(1, margin_of(ranked[0], ending)),
            top=ranked[:1],
            spread=confidence(np, ranked[None, :], self._limits.group_top, np.arange(len(ranked))),
            known=_ONE,
            turning=_NONE,
        )
