"""All rules together: equal to the plain ones, step by step, whatever a reply holds."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from governor.stops.arrays import columns
from governor.stops.group import Group
from governor.stops.marks import Marks
from governor.stops.phrases import AGAIN, HOLD, NAMES
from governor.stops.rows import Limits, Rules, Signals, Uses, fresh, limits_of
from governor.stops.settings import Stops
from tests.stops.plain_stops import Plain, Shown

PIECES = (
    "<think>",
    "</think>",
    "<th",
    "ink>",
    "</th",
    "a",
    " b",
    "wait",
    ".",
    " c!\n",
    "\n\n",
    "\n",
    "```",
    "`",
    "{",
    "}",
)
TOOLS = ("<tool_call>", "</tool_call>")
RULES = Rules(np, np.asarray)
LENGTH = 3

shown = st.builds(
    Shown,
    margin=st.sampled_from([0.0, 0.05, 0.5, 3.0]),
    top=st.sampled_from([-2.0, -0.5, -0.01]),
    spread=st.integers(0, 64).map(lambda eighths: eighths / 8),
    known=st.sampled_from([True, True, True, False]),
    turning=st.booleans(),
)
replies = st.lists(st.tuples(st.sampled_from(PIECES * 3 + TOOLS), shown), max_size=120)
quadrant = st.sampled_from(
    [{}, {"low_confidence": 0.5, "high_confidence": 0.8, "low_variance": 0.01, "high_variance": 0.02, "few": 20}]
)
rules = st.builds(
    lambda budget, least, margin, group, repeat, edges, window: Stops(
        budget=budget,
        least=least if budget is None else min(least, budget),
        margin=margin,
        wide_margin=None if margin is None else margin * 10,
        group=group,
        group_window=32,
        repeat=repeat,
        repeat_period=5,
        repeat_tokens=6,
        step_window=window,
        **edges,
    ),
    budget=st.none() | st.integers(0, 60),
    least=st.sampled_from([0, 0, 10]),
    margin=st.none() | st.just(0.1),
    group=st.none() | st.just(4.0),
    repeat=st.none() | st.integers(2, 4),
    edges=quadrant,
    window=st.integers(2, 8),
)


class Carrier:
    """The rules under test, one row at a time."""

    def __init__(self, stops: Stops) -> None:
        self.rows, self.node, self.marks = fresh(1), 0, Marks()
        self.limits = columns(Limits, limits_of(stops)[None, :])
        self.uses = Uses.of(stops)
        self.window = np.zeros(stops.group_window)

    def said(self, shown: Shown) -> str:
        code = int(RULES.said(self.limits, self.rows, _signals(shown), np.full(1, float(LENGTH)), self.uses)[0])
        return {**NAMES, HOLD: "hold", AGAIN: "again"}[code]

    def after(self, text: str, shown: Shown, *, own: bool) -> None:
        signals, one = _signals(shown), np.ones(1)
        at = RULES.window_place(self.limits, self.rows)
        leaving, entered = self.window[at], self.entered
        self.node, code = self.marks.read(self.node, text)
        token = np.array([crc32(text.encode())])
        self.rows = RULES.after(
            self.limits, self.rows, signals, token, np.array([code]), leaving, one, one * own, self.uses
        )
        if self.entered > entered:
            self.window[at] = signals.spread

    @property
    def entered(self) -> float:
        """How many values the group's window has taken in."""
        return float(columns(Group, self.rows.group).entered[0])


def _signals(shown: Shown) -> Signals:
    """What is not known is no number, as of logits that are none."""
    figures = (shown.margin, shown.top, shown.spread) if shown.known else (np.nan, np.nan, np.nan)
    return Signals(*(np.array([value]) for value in (*figures, float(shown.known), float(shown.turning))))


def steps(text: str) -> list[tuple[str, Shown]]:
    return [(piece, Shown()) for piece in text.split("|")]


UNKNOWN = [("<think>", Shown()), ("a", Shown(known=False))]
SURE = [("a", Shown(top=-0.01)), ("\n\n", Shown())]
UNSURE = [("a", Shown(margin=0.5, top=-2.0)), ("\n\n", Shown()), (".", Shown(margin=0.5, top=-2.0))]
HESITATES = Stops(
    margin=0.1, wide_margin=1.0, low_confidence=0.5, high_confidence=0.8, low_variance=0.01, high_variance=0.02
)


@settings(max_examples=250, deadline=None)
@given(rules, replies, st.lists(st.booleans(), min_size=120, max_size=120))
@example(Stops(repeat=3, repeat_period=2, repeat_tokens=6), steps("<think>|a| b|a| b|a| b|a"), [True] * 120)
@example(Stops(budget=4), steps("<think>|a|```|a|a|```|a"), [True] * 120)
@example(Stops(budget=5), steps("<think>|a|<tool_call>|<think>|a|a|a|a|</tool_call>"), [True] * 120)
@example(Stops(group=4.0, group_window=32), [*UNKNOWN, *[("a", Shown(spread=1.0))] * 40], [True] * 120)
@example(HESITATES, [*UNKNOWN, *SURE, *UNSURE, *UNSURE], [True] * 120)
def test_the_rules_say_what_the_plain_ones_say(stops: Stops, reply: list[tuple[str, Shown]], own: list[bool]) -> None:
    carrier, plain = Carrier(stops), Plain(stops)
    for (piece, seen), mine in zip(reply, own, strict=False):
        assert carrier.said(seen) == plain.said(seen, LENGTH)
        carrier.after(piece, seen, own=mine)
        plain.after(piece, seen, own=mine)


def told(stops: Stops, reply: list[tuple[str, Shown]]) -> list[str]:
    carrier, found = Carrier(stops), []
    for piece, seen in reply:
        found.append(carrier.said(seen))
        carrier.after(piece, seen, own=True)
    return found


def test_each_rule_acts_where_it_should() -> None:
    sure = Shown(margin=0.05)
    assert told(Stops(margin=0.1), [("<think>", sure), ("Yes", sure), (".", sure), ("x", sure)])[2:] == [
        "hold",
        "margin",
    ]
    unsure = Shown(spread=1.0)
    assert told(Stops(group=4.0, group_window=32), [("<think>", unsure), *[("x", unsure)] * 33])[-2:] == [
        "hold",
        "group",
    ]
    looping = steps("<think>" + "|wait|but" * 13)
    assert told(Stops(repeat=4), looping)[-1] == "repeat"
    assert told(Stops(budget=LENGTH + 2), steps("<think>|a|a|a"))[-1] == "budget"
    turning = Shown(turning=True)
    assert told(Stops(least=5, again="Wait"), [("<think>", turning), ("a", turning)])[-1] == "again"


def test_nothing_ends_a_thought_inside_json_until_it_is_taken_for_prose() -> None:
    open_json = steps('<think>|{"a":' + "|x" * 257)
    said = told(Stops(budget=4), open_json)
    assert said[:257] == ["hold"] * 257
    assert said[258:] == ["budget"]
