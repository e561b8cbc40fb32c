from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.learn.chart import Chart, Method, page, short_names, ticks
from governor.learn.frontier import Deployed, Fixed

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Refuses what is not well nested; keeps every tag, attribute and word."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def chart(title: str = "made up", rungs: tuple[str, ...] = ("small", "middle", "large")) -> Chart:
    fixed = Fixed(rungs, np.array([1.0, 3.0, 10.0]), np.array([0.4, 0.45, 0.8]))
    methods = (
        Method("tfidf", np.array([1.0, 4.0, 10.0]), np.array([0.4, 0.7, 0.8]), figures={"c98": "0.80", "area": "+6.0"}),
        Method("governor", np.array([4.0]), np.array([0.85]), Deployed(0.99, 0.55), {"c98": "0.37", "brier": "0.1"}),
    )
    return Chart(title, "n = 300 questions, 5 folds, median of 5 seeds, verifier none", "USD", fixed, methods)


def plot(text: str) -> ElementTree.Element:
    found = re.search(r'<svg class="plot".*?</svg>', text, re.DOTALL)
    assert found
    return ElementTree.fromstring(found.group())


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def test_the_page_is_whole_and_loads_nothing_from_elsewhere() -> None:
    text = page(chart())
    read = Page(text)
    assert not {tag for tag, _ in read.tags} & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?:|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in read.tags


def test_axes_caption_and_figures_say_what_is_shown() -> None:
    said = Page(page(chart())).words
    for words in ("cost per item (USD)", "10", "correct (%)", "small", "governor", "+6.0", "0.37", "80.0"):
        assert words in said
    assert "n = 300 questions, 5 folds, median of 5 seeds, verifier none" in said
    assert said.count("-") == 2, "tfidf has no Brier score, governor no area"


def test_every_name_is_escaped() -> None:
    evil = '<script>alert("1")</script>&'
    made = chart(evil, (evil, "b", "c"))
    named = Method(evil, np.array([1.0]), np.array([0.5]), Deployed(1.0, 1.0), {evil: evil})
    read = Page(page(Chart(evil, evil, evil, made.rungs, (named,))))
    assert "script" not in [tag for tag, _ in read.tags]
    assert read.words.count(evil) >= 7
    assert plot(page(made)) is not None


def test_rungs_and_curves_stand_where_their_figures_say() -> None:
    drawn = plot(page(chart()))
    small, middle, large = (numbers(circle, "cx", "cy") for circle in drawn.iter("circle"))
    assert (middle[0] - small[0]) / (large[0] - small[0]) == pytest.approx(2 / 9, abs=0.01)
    assert (small[1] - middle[1]) / (small[1] - large[1]) == pytest.approx(1 / 8, abs=0.01)
    lines = [line.attrib["points"].split() for line in drawn.iter("polyline")]
    hull, tfidf, governor = ([tuple(map(float, xy.split(","))) for xy in line] for line in lines)
    assert hull[:2] == [tuple(small), tuple(large)], "middle lies under the line"
    assert len(tfidf) == 4, "three vertices and the right edge"
    assert governor[1][1] < large[1], "better than the best rung is drawn above it"
    assert governor[-1][1] == governor[1][1], "flat after its maximum"


def test_the_deployed_dial_is_marked_where_it_cost_and_kept() -> None:
    drawn = plot(page(chart()))
    (square,) = drawn.iter("rect")
    x, y = numbers(square, "x", "y")
    small, _, large = (numbers(circle, "cx", "cy") for circle in drawn.iter("circle"))
    assert x + 5 == pytest.approx(small[0] + (5.5 - 1.0) / 9.0 * (large[0] - small[0]), abs=0.2)
    assert y + 5 == pytest.approx(small[1] + (0.792 - 0.4) / 0.4 * (large[1] - small[1]), abs=0.2)


@given(st.lists(st.tuples(st.floats(0.0, 1e4), st.floats(0.0, 1.0)), min_size=1, max_size=12))
def test_everything_is_drawn_inside_and_no_two_names_overlap(points: list[tuple[float, float]]) -> None:
    both = np.array(points)
    rungs = Fixed(tuple(f"rung {at}" for at in range(len(points))), both[:, 0], both[:, 1])
    drawn = plot(page(Chart("t", "c", "tokens", rungs, (Method("m", both[:, 0] * 2, both[:, 1]),))))
    for circle in drawn.iter("circle"):
        x, y = numbers(circle, "cx", "cy")
        assert 0 <= x <= 720
        assert 0 <= y <= 440
    names = [text for text in drawn.iter("text") if text.get("class") == "halo"]
    spans = [(*span(text), float(text.attrib["y"])) for text in names]
    assert len(spans) == len(points)
    meeting = [abs(a[2] - b[2]) for at, a in enumerate(spans) for b in spans[:at] if a[0] < b[1] and b[0] < a[1]]
    assert all(gap >= 20.0 - 0.11 for gap in meeting)


def span(text: ElementTree.Element) -> tuple[float, float]:
    """The columns a name takes, at 9 units a letter: more than it is drawn with."""
    x, width = float(text.attrib["x"]), 9.0 * len(text.text or "")
    return (x - width, x) if text.get("text-anchor") == "end" else (x, x + width)


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e6))
def test_ticks_are_round_few_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 7
    slack = 1e-6 * width + 1e-9
    assert all(low - slack <= tick <= low + width + slack for tick in found)
    assert np.diff(found) == pytest.approx(np.diff(found)[0], rel=1e-3)


def test_names_are_cut_to_what_tells_them_apart() -> None:
    assert short_names(("o4-mini:low", "o4-mini:high")) == ["low", "high"]
    assert short_names(("gpt-4o", "gpt-4o-mini")) == ["gpt-4o", "gpt-4o-mini"]
    assert short_names(("a/b:", "a/b:x")) == ["a/b:", "a/b:x"]


def test_small_costs_are_written_per_thousand_items() -> None:
    made = chart()
    cheap = Fixed(made.rungs.rungs, made.rungs.cost / 1e5, made.rungs.accuracy)
    said = Page(page(Chart("t", "c", "USD", cheap, ()))).words
    assert said.count("cost per 1,000 items (USD)") == 2
    assert "0.1" in said
