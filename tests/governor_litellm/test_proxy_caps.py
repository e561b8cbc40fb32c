from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from governor.plan.dialects import EFFORTS, Dialect, dialect_for
from governor.records import Rung
from governor_litellm.caps import Caps, capped, held

LADDER = (
    Rung(id="low", model="m", effort="low", thinking_tokens=1000, answer_tokens=500),
    Rung(id="high", model="m", effort="high", thinking_tokens=8000, answer_tokens=800),
)
PLAIN = (Rung(id="a", model="m", answer_tokens=500), Rung(id="b", model="n", answer_tokens=800))


def vllm(_: Rung) -> Dialect:
    return dialect_for("hosted_vllm/m")


def test_without_limits_the_ladder_stays() -> None:
    assert capped(LADDER, Caps(), vllm) == LADDER


def test_answers_are_shortened_and_rungs_without_room_left_out() -> None:
    assert [(r.id, r.answer_tokens) for r in capped(LADDER, Caps(max_tokens=1400), vllm)] == [("low", 400)]
    assert [(r.id, r.answer_tokens) for r in capped(PLAIN, Caps(max_tokens=7), vllm)] == [("a", 7), ("b", 7)]


def test_an_effort_word_leaves_out_what_thinks_harder() -> None:
    assert [r.id for r in capped(LADDER, Caps(effort="medium"), vllm)] == ["low"]
    assert [r.id for r in capped(LADDER, Caps(thinking=0), vllm)] == ["low"]


def test_who_wants_no_thought_gets_none() -> None:
    def gpt(_: Rung) -> Dialect:
        return dialect_for("openai/gpt-5.1")

    hard, plain = Rung(id="a", model="m", effort="high"), Rung(id="b", model="m", thinking_tokens=0)
    assert capped([hard, plain], Caps(thinking=0), vllm) == (replace(plain, effort="none"),), "vLLM's would think"
    assert [r.effort for r in capped(LADDER, Caps(thinking=0), vllm)] == ["none"]
    assert [r.effort for r in capped(LADDER, Caps(thinking=0), gpt)] == ["none"]
    assert capped(PLAIN, Caps(thinking=0), lambda _: dialect_for("openai/gpt-4o")) == PLAIN


def test_a_rung_without_a_word_takes_the_clients_where_its_model_would_think() -> None:
    def gpt(_: Rung) -> Dialect:
        return dialect_for("openai/gpt-5-mini")

    rung = Rung(id="a", model="gpt", thinking_tokens=100)
    assert capped([rung], Caps(effort="low"), gpt)[0].effort == "low"


def test_where_nothing_fits_the_least_rung_is_cut_to_size() -> None:
    (only,) = capped(LADDER, Caps(max_tokens=5, effort="none"), vllm)
    assert (only.id, only.max_tokens, only.thinking_tokens, only.effort) == ("low", 5, 0, "none")


@given(
    max_tokens=st.none() | st.integers(1, 20_000),
    effort=st.none() | st.sampled_from(EFFORTS),
    thinking=st.none() | st.integers(0, 10_000),
    ladder=st.lists(
        st.builds(
            Rung,
            id=st.uuids().map(str),
            model=st.just("m"),
            effort=st.none() | st.sampled_from(EFFORTS),
            thinking_tokens=st.integers(0, 9000),
            answer_tokens=st.integers(1, 9000),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_no_rung_ever_passes_what_the_client_allows(
    max_tokens: int | None, effort: str | None, thinking: int | None, ladder: list[Rung]
) -> None:
    fitting = capped(ladder, Caps(max_tokens, effort, thinking), vllm)
    assert fitting
    known = {rung.id: rung for rung in ladder}
    for rung in fitting:
        assert max_tokens is None or rung.max_tokens <= max_tokens
        assert thinking is None or rung.thinking_tokens <= thinking
        assert thinking != 0 or rung.effort == "none"
        assert rung.max_tokens <= known[rung.id].max_tokens
        assert effort is None or rung.effort is None or EFFORTS.index(rung.effort) <= EFFORTS.index(effort)


def test_what_is_asked_for_in_any_case_is_held() -> None:
    assert held(Rung(id="a", model="m", answer_tokens=3), 16).max_tokens == 16
    assert held(Rung(id="a", model="m", thinking_tokens=10, answer_tokens=3), 16).max_tokens == 16
    assert held(Rung(id="a", model="m", answer_tokens=40), 16).max_tokens == 40


def test_of_a_word_that_is_no_effort_nothing_is_kept() -> None:
    assert Caps(effort="x" * 100_000) == Caps(effort="")
    ladder = (Rung(id="a", model="m", effort="low"), Rung(id="b", model="m"))
    assert capped(ladder, Caps(effort="strange"), vllm) == capped(ladder, Caps(effort=""), vllm)
