"""The stop rules written down plainly, for one reply and by its whole history: what the real ones must agree with."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from statistics import fmean, pvariance

from governor.stops.marks import ends_sentence
from governor.stops.place import HOLD
from governor.stops.settings import Stops

_MARKS = re.compile(r"<think>|</think>|<tool_call>|</tool_call>|```|\n\n")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the distribution of a token showed."""

    margin: float = math.inf
    top: float = 0.0
    spread: float = 0.0
    known: bool = True
    turning: bool = False


@dataclass(slots=True)
class Plain:
    """One reply so far."""

    stops: Stops
    temperature: float = 1.0
    room: int | None = None
    text: str = ""
    inside: bool = False
    tool: bool = False
    fence: bool = False
    depth: int = 0
    open_for: int = 0
    thought: int = 0
    made: int = 0
    sentence: bool = False
    spreads: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    hesitant: bool = False
    suspicious: bool = False
    own: list[object] = field(default_factory=list)

    def said(self, shown: Shown, length: int) -> str:
        """What the rules say before the next token."""
        stops = self.stops
        thinking = self.inside and not self.tool
        free = thinking and self.open_for == 0
        early = thinking and self.thought < stops.least
        if free and self._due(length):
            return "budget"
        if early and shown.turning:
            return "again"
        if not free or early:
            return "hold"
        if self._repeats():
            return "repeat"
        if self._low():
            return "group"
        return "margin" if self._sure(shown) else "hold"

    def has_room(self, length: int) -> bool:
        """Whether so many more tokens are within the budget, and leave the answer its reserve."""
        budget, reserve = self.stops.budget, self.stops.reserve
        beyond = self.room is not None and reserve > 0 and self.made + length > max(self.room - reserve, 0)
        return not beyond and (budget is None or self.thought + length <= budget)

    def after(self, token: str, shown: Shown, *, own: bool = True) -> None:
        """One more token."""
        before = len(_MARKS.findall(self.text))
        self.text += token
        marks = _MARKS.findall(self.text)[before:]
        counts = own and self.inside and not self.tool
        if counts:
            self.own.append(token)
            if shown.known:
                self.spreads.append(shown.spread)
                self._step(shown.top, closing="\n\n" in marks)
        self.made += 1
        self.thought += self.inside
        self._mark(marks)
        self._open(token, marks)
        self.sentence = ends_sentence(token)

    def _mark(self, marks: list[str]) -> None:
        for mark in marks:
            if mark == "<think>":
                self.inside = self.inside or not self.tool
            elif mark == "</think>":
                self.inside = False
            elif mark == "<tool_call>":
                self.inside, self.tool = False, True
            elif mark == "</tool_call>":
                self.tool = False

    def _open(self, token: str, marks: list[str]) -> None:
        if not self.inside:
            self.fence, self.depth, self.open_for = False, 0, 0
            return
        if marks.count("```") % 2:
            self.fence = not self.fence
        self.depth = max(self.depth + token.count("{") - token.count("}"), 0)
        self.open_for = self.open_for + 1 if self.fence or self.depth else 0
        if self.open_for > HOLD:
            self.fence, self.depth, self.open_for = False, 0, 0

    def _step(self, top: float, *, closing: bool) -> None:
        if not closing:
            self.step.append(top)
        elif self.step:
            self.confidences.append(math.exp(sum(self.step) / len(self.step)))
            self.step = []
            self._diagnose()

    def _diagnose(self) -> None:
        stops = self.stops
        if stops.low_confidence is None or len(self.confidences) < 2:
            return
        assert stops.high_confidence is not None
        assert stops.low_variance is not None
        assert stops.high_variance is not None
        c, v = self.confidences[-1], pvariance(self.confidences[-stops.step_window :])
        self.hesitant = c <= stops.low_confidence and v >= stops.high_variance
        self.suspicious = c >= stops.high_confidence and v <= stops.low_variance

    def _due(self, length: int) -> bool:
        stops = self.stops
        over = stops.budget is not None and self.thought + length >= stops.budget
        return over or bool(
            self.room is not None and stops.reserve and self.made + length >= max(self.room - stops.reserve, 0)
        )

    def _repeats(self) -> bool:
        stops = self.stops
        if stops.repeat is None:
            return False
        return any(
            self._has_period(p, max(p * stops.repeat, stops.repeat_tokens)) for p in range(1, stops.repeat_period + 1)
        )

    def _has_period(self, period: int, length: int) -> bool:
        end = self.own[-length:]
        return len(end) == length and end[period:] == end[:-period]

    def _low(self) -> bool:
        stops = self.stops
        full = len(self.spreads) >= stops.group_window
        return stops.group is not None and full and fmean(self.spreads[-stops.group_window :]) < stops.group

    def _sure(self, shown: Shown) -> bool:
        stops = self.stops
        if stops.margin is None or not shown.known or not self.sentence:
            return False
        if self.suspicious and self.thought < stops.few:
            return False
        wide = stops.margin if stops.wide_margin is None else stops.wide_margin
        return shown.margin <= (wide if self.hesitant else stops.margin) * self.temperature
