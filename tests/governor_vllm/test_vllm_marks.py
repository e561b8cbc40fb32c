from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from governor_vllm.marks import END, START, TURN_ENDS, Answer, Splitter

PLAIN = st.text(st.characters(exclude_characters="<"), max_size=12)
CUTS = st.lists(st.integers(1, 9), max_size=30)


def pieces(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces of these sizes, the rest in one."""
    found = []
    for size in sizes:
        found.append(text[:size])
        text = text[size:]
    return [*found, text]


def split(text: str, sizes: list[int], *, inside: bool = False) -> tuple[str, str]:
    splitter = Splitter(inside)
    parts = [*map(splitter.feed, pieces(text, sizes)), splitter.close()]
    return "".join(thought for thought, _ in parts), "".join(answer for _, answer in parts)


def cleaned(text: str, sizes: list[int]) -> str:
    answer = Answer()
    return "".join([*map(answer.feed, pieces(text, sizes)), answer.close()])


@given(PLAIN, PLAIN, CUTS)
def test_thought_and_answer_come_apart_however_the_text_is_cut(thought: str, answer: str, sizes: list[int]) -> None:
    thought = thought.lstrip("\n")
    assert split(f"{START}{thought}{END}{answer}", sizes)[1] == answer
    assert split(f"{thought}{END}{answer}", sizes, inside=True) == (thought, answer)


@given(PLAIN, CUTS)
def test_a_thought_that_does_not_end_is_all_thought(thought: str, sizes: list[int]) -> None:
    assert split(thought, sizes, inside=True) == (thought, "")


@given(st.text(max_size=20), CUTS)
def test_a_text_that_opens_no_thought_is_all_answer(text: str, sizes: list[int]) -> None:
    text = f"x{text}"
    assert split(text, sizes) == ("", text)


def test_what_looks_like_a_mark_and_is_none_is_not_lost() -> None:
    assert split("1 < 2 </thin", [1] * 12, inside=True) == ("1 < 2 </thin", "")
    assert split("<thin", [1] * 5) == ("", "<thin")


@given(st.integers(0, 130), CUTS)
def test_blanks_without_an_end_are_shown_however_the_text_is_cut(blanks: int, sizes: list[int]) -> None:
    """Some may stand before a thought; held back for ever, a reply of nothing else would be seen by no rule."""
    text = "\n" * blanks
    thought, answer = split(f"{text}{START}I think{END}So", sizes)
    assert (thought, answer) in [("I think", "So"), ("", f"{text}{START}I think{END}So")]
    assert (thought == "") is (blanks > 64)
    splitter = Splitter()
    assert any(splitter.feed("\n")[1] for _ in range(66))


@given(PLAIN.filter(str.strip), st.lists(st.sampled_from(TURN_ENDS), max_size=2), CUTS)
def test_marks_that_leak_around_an_answer_are_taken_off(text: str, ends: list[str], sizes: list[int]) -> None:
    text = f"a{text}"
    assert cleaned(f"\n{END}\n\n{text}{''.join(ends)}", sizes) == text
    assert cleaned(text + "".join(ends), sizes) == text


@given(st.sampled_from(TURN_ENDS), CUTS)
def test_a_mark_inside_an_answer_stays(mark: str, sizes: list[int]) -> None:
    text = f"It ends with {mark}, and then some"
    assert cleaned(text, sizes) == text


def test_an_answer_that_goes_on_keeps_what_only_a_new_one_loses() -> None:
    answer = Answer(begun=True)
    assert answer.feed("\n\nand so on</think><|im_end|>") + answer.close() == "\n\nand so on</think>"


def test_the_beginning_of_a_mark_at_the_very_end_stays() -> None:
    assert cleaned("Is 1 <|im_e", [1] * 11) == "Is 1 <|im_e"
