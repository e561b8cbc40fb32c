"""The rules on the client: a stream of thought and answer, with and without log-probabilities."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.stops import watch as watching
from governor.stops.place import HOLD
from governor.stops.settings import Stops
from governor.stops.tokens import Token
from governor.stops.watch import Watch

LOOP = "wait, but then it is not so. "


def token(text: str, *, ending: float | None = None, best: float = -0.1) -> Token:
    others = [(text, best), ("x", -3.0)]
    return Token(text, best, (*others, *([("</think>", ending)] if ending is not None else [])))


def read(watch: Watch, pieces: list[Token], *, thinking: bool = True) -> list[str]:
    return [watch.read(piece.text, thinking=thinking, tokens=[piece]) for piece in pieces]


def test_a_budget_ends_the_thought_once_it_is_used_up() -> None:
    watch = Watch(Stops(budget=3))
    assert read(watch, [token("a") for _ in range(5)])[:4] == ["", "", "", "budget"]
    assert watch.count >= 3


def test_a_budget_does_not_count_the_answer() -> None:
    watch = Watch(Stops(budget=3))
    assert read(watch, [token("a"), token("b")]) == ["", ""]
    assert read(watch, [token("a")] * 20, thinking=False) == [""] * 20


@pytest.mark.parametrize("thinking", [True, False])
def test_a_loop_is_stuck_in_thought_and_answer(thinking: bool) -> None:
    watch = Watch(Stops(repeat=4))
    said = [watch.read(LOOP, thinking=thinking) for _ in range(8)]
    assert "repeat" in said
    assert not any(Watch(Stops(repeat=4)).read(f"{LOOP}{n} ", thinking=thinking) for n in range(8))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_words_do_not_depend_on_how_a_text_is_cut(cuts: list[int]) -> None:
    whole, cut = Watch(Stops(repeat=4)), Watch(Stops(repeat=4))
    text, at, said = LOOP * 6, 0, []
    for length in [*cuts, len(text)]:
        said.append(cut.read(text[at : at + length], thinking=True))
        at += length
    assert ("repeat" in said) is bool(whole.read(text, thinking=True)) is True


def test_a_sure_thought_ends_at_the_next_sentence() -> None:
    watch = Watch(Stops(margin=0.1), temperature=0.0)
    sentence = [token("So", ending=-0.1), token(" it", ending=-0.1), token(" is", ending=-0.1), token(".")]
    assert read(watch, [*sentence, token(" Now", ending=-0.15)]) == ["", "", "", "", "margin"]
    assert read(Watch(Stops(margin=0.1)), [*sentence, token(" Now", ending=-0.3)])[-1] == ""
    assert read(Watch(Stops(margin=0.1)), [*sentence, token(" Now")])[-1] == "", "not among the likeliest: not known"


def test_a_wavering_trace_is_stuck_and_its_lowest_group_is_told() -> None:
    watch = Watch(Stops(group=2.0, group_window=32, group_top=2))
    assert watch.lowest is None
    firm = [token("y", best=-0.01)] * 32
    assert not any(read(watch, firm))
    assert watch.lowest == pytest.approx((0.01 + 3.0) / 2)
    assert read(watch, [token("z")])[0] == "group"


def test_a_tool_call_does_not_enter_the_group() -> None:
    """Nor does it overwrite what is in the window: that leaves it later as the value that entered."""
    watch = Watch(Stops(group=0.5, group_window=32, group_top=2))
    firm, call = [token("y", best=-0.01)] * 32, [token("<tool_call>"), *[token("x", best=-2.0)] * 40]
    assert not any(read(watch, [*firm, *call], thinking=False))
    assert not any(read(watch, [token("</tool_call>"), *[token("z", best=-0.01)] * 64], thinking=False))
    assert watch.lowest == pytest.approx((0.01 + 3.0) / 2)


def test_without_log_probabilities_confidence_rules_stay_silent() -> None:
    watch = Watch(Stops(group=100.0, group_window=32, margin=1000.0))
    assert not any(watch.read(f"word{n}. ", thinking=True) for n in range(200))


def test_counted_tokens_are_counted_and_others_estimated() -> None:
    counted, estimated = Watch(Stops(budget=1000)), Watch(Stops(budget=1000))
    for n in range(10):
        counted.read(f"word{n} and so on ", thinking=True, made=5)
        estimated.read(f"word{n} and so on ", thinking=True)
    assert counted.count == pytest.approx(50)
    assert math.isclose(estimated.count, 160 / 4, rel_tol=0.1)


ENDLESS = {
    "one digit": "0",
    "one Chinese letter": "\u54c8",
    "a pair": "ab",
    "line breaks": "\n",
    "blanks": "    ",
    "a name": "a_name_of_",
}


@pytest.mark.parametrize("named", ENDLESS)
def test_a_text_without_an_end_of_word_is_within_its_budget_and_stuck(named: str) -> None:
    counted, stuck, text = Watch(Stops(budget=300)), Watch(Stops(repeat=4)), ENDLESS[named]
    said = [counted.read(text, thinking=True, made=1) for _ in range(301)]
    assert said == [*[""] * 300, "budget"]
    assert "repeat" in [stuck.read(text, thinking=True, made=1) for _ in range(1000)]


@pytest.mark.parametrize(
    "text", ["\u7684\u4e00\u662f\u5728\u4e0d\u4e86\u6709" * 90, "".join(f"{n:x}" for n in range(700))]
)
def test_text_without_blanks_is_within_its_budget_where_tokens_are_estimated(text: str) -> None:
    watch, said = Watch(Stops(budget=300)), [""]
    while not said[-1] and len(said) <= len(text):
        said.append(watch.read(text[len(said) - 1], thinking=True))
    assert said[-1] == "budget"
    assert len(text[: len(said) - 1].encode()) == 4 * 300 + len(text[0].encode())


def test_a_fence_that_holds_one_endless_word_is_taken_for_prose() -> None:
    watch = Watch(Stops(budget=10))
    watch.read("```", thinking=True, made=1)
    said = [watch.read("0", thinking=True, made=1) for _ in range(300)]
    assert said.index("budget") == HOLD


class Counting:
    """A pattern that tells how many letters it was given."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.letters = pattern, 0

    def findall(self, text: str) -> list[str]:
        self.letters += len(text)
        found: list[str] = self.pattern.findall(text)
        return found


@pytest.mark.parametrize("text", ["\n", "0"])
def test_the_work_of_an_endless_word_grows_with_its_length_alone(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    pattern, work = watching._WORD, []
    for length in (5_000, 20_000):
        monkeypatch.setattr(watching, "_WORD", counting := Counting(pattern))
        watch = Watch(Stops(budget=1_000_000))
        for _ in range(length):
            watch.read(text, thinking=True, made=1)
        work.append(counting.letters)
    assert work[1] == pytest.approx(4 * work[0], rel=0.01)
    assert work[1] < 40 * 20_000


@given(st.text(alphabet="abc\u7684_ .,\n0", max_size=400))
def test_words_of_up_to_16_letters_are_one_piece_with_their_blanks(text: str) -> None:
    """As they always were: thresholds were fitted on such pieces."""
    plain = re.findall(r"\s*\w+|\s*[^\w\s]|\s+", text)
    if all(len(one.strip()) <= 16 and len(one) - len(one.strip()) <= 32 for one in plain):
        assert watching._WORD.findall(text) == plain


@given(st.text(alphabet="a0\n .", max_size=200).map(lambda text: text + 40 * "a" + 80 * " "), st.data())
def test_long_words_are_cut_alike_however_a_text_comes(text: str, data: st.DataObject) -> None:
    at, words, watch = 0, [], Watch(Stops(repeat=4))
    while at < len(text):
        length = data.draw(st.integers(1, 60))
        words += watch._words(text[at : at + length])
        at += length
    assert [*words, watch._half] == watching._WORD.findall(text)
