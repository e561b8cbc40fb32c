from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import BackendTimeoutError, BackendUnavailableError
from governor.records import Amount, Reply, ToolCall, Usage
from governor.verify.samples import mean_probability, settled, vote
from tests.verify.driver import RUNG, STEP, Driver, built, call_of, judged, reply

YES, NO = reply("Answer: 42"), reply("Answer: 41")


@pytest.mark.parametrize(
    ("samples", "decision", "asked", "score"),
    [
        ([YES, YES], "accept", 2, 1.0),
        ([YES, NO, YES], "accept", 3, 0.75),
        ([NO, NO, NO], "reject", 3, 0.25),
        ([NO, YES, NO, NO], "reject", 4, 0.4),
        ([NO, YES, NO, YES], "accept", 4, 0.6),
    ],
)
def test_agreement_stops_as_soon_as_the_majority_is_settled(
    samples: list[Reply], decision: str, asked: int, score: float
) -> None:
    driver = Driver(samples)
    verdict = driver.run(built({"agreement": 4}), YES)
    assert (verdict.decision, len(driver.calls)) == (decision, asked)
    assert verdict.score == pytest.approx(score)
    assert verdict.failure == ("" if decision == "accept" else "disagreement")
    assert verdict.usage == Usage(10 * asked, 4 * asked)
    assert (verdict.calls, verdict.micros, verdict.seconds) == (asked, 18 * asked, 0.5 * asked)
    assert "41" not in verdict.feedback


def test_samples_are_hot_seeded_apart_and_of_the_same_rung() -> None:
    driver = Driver([NO, NO, NO, NO])
    driver.run(built({"agreement": {"samples": 4, "share": 0.9, "temperature": 0.8}}), NO)
    assert {call.purpose for call in driver.calls} == {"sample"}
    assert {call.rung.temperature for call in driver.calls} == {0.8}
    assert [call.sample for call in driver.calls] == [1, 2, 3, 4]
    assert len({call.seed for call in driver.calls} | {5}) == 5
    assert all((call.rung.id, call.messages) == (RUNG.id, STEP.messages) for call in driver.calls)


def test_a_hotter_rung_stays_hot() -> None:
    driver = Driver([YES])
    call = call_of(STEP, replace(RUNG, temperature=1.2))
    driver.run(built({"agreement": 1}), YES, call=call)
    assert driver.calls[0].rung.temperature == 1.2


def test_a_failed_sample_leaves_the_verdict_unsure_and_is_paid_for() -> None:
    lost = BackendTimeoutError("no answer", sent=True, usage=None, seconds=3.0)
    driver = Driver([NO, lost])
    verdict = driver.run(built({"agreement": 4}), YES)
    most = built({"agreement": 1}).bound(call_of(STEP))
    assert (verdict.decision, verdict.error) == ("unsure", "BackendTimeoutError: no answer")
    assert verdict.usage.total_tokens == 14 + most.tokens
    assert (verdict.micros, verdict.calls, verdict.seconds) == (18 + most.micros, 2, 3.5)


def test_a_sample_that_was_never_sent_costs_nothing() -> None:
    verdict = Driver([BackendUnavailableError("refused", sent=False)]).run(built({"agreement": 4}), YES)
    assert (verdict.decision, verdict.calls, verdict.usage) == ("unsure", 0, Usage())


def test_no_samples_are_bought_for_an_answer_that_is_none() -> None:
    for given_reply, failure in ((reply(""), "empty"), (reply("cut", finish_reason="length"), "truncated")):
        driver = Driver()
        assert driver.run(built({"agreement": 4}), given_reply).failure == failure
        assert driver.calls == []


def test_the_bound_covers_every_sample() -> None:
    one, four = (built({"agreement": n}).bound(call_of(STEP)) for n in (1, 4))
    assert four == one + one + one + one
    assert one.tokens > RUNG.max_tokens + len(STEP.prompt)
    assert (one.calls, one.millis) == (1, 120_000)
    fixed = built({"agreement": 3}, bound=lambda call: Amount(tokens=7, calls=1))
    assert fixed.bound(call_of(STEP)) == Amount(tokens=21, calls=3)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("Answer: 42", "So it is \\boxed{42}", True),
        ("Answer: 1,000", "1000.0", True),
        ("Answer: 42 apples", "Answer: 42", True),
        ("Answer: Paris.", "Answer: **paris**", True),
        ('{"a": 1, "b": 2}', '```json\n{"b": 2, "a": 1}\n```', True),
        ('{"a": 1}', '{"a": 2}', False),
        ("Answer: yes", "Answer: no", False),
        ("1/2", "Answer: 0.5", True),
    ],
)
def test_votes(left: str, right: str, equal: bool) -> None:
    assert (vote(reply(left)) == vote(reply(right))) is equal


def test_tool_calls_vote_by_name_and_arguments() -> None:
    def called(arguments: str) -> Reply:
        return reply("", tool_calls=(ToolCall(id="x", name="f", arguments=arguments),))

    assert vote(called('{"a": 1, "b": 2}')) == vote(called('{"b":2,"a":1}'))
    assert vote(called('{"a": 1}')) != vote(called('{"a": 2}'))
    assert vote(called("broken")) == vote(called("broken"))


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0, 0.99))
def test_stopping_early_never_changes_the_decision(votes: list[bool], share: float) -> None:
    total = len(votes)
    final = sum(votes) > share * total
    for cast in range(1, total + 1):
        agreeing = sum(votes[:cast])
        if settled(agreeing, cast, total, share):
            assert (agreeing > share * total) == final
    assert settled(sum(votes), total, total, share)


@pytest.mark.parametrize(
    ("spec", "logprobs", "decision"),
    [
        ({"confidence": 0.8}, (-0.1, -0.1), "accept"),
        ({"confidence": 0.8}, (-0.1, -1.0), "reject"),
        ({"confidence": 0.8, "window": 1}, (-0.1, -0.3, -0.1), "reject"),
        ({"confidence": 0.8, "window": 3}, (-0.1, -0.3, -0.1), "accept"),
        ({"confidence": 0.8, "window": 99}, (-0.1, -0.1), "accept"),
        ({"confidence": 0.8}, None, "unsure"),
        ({"confidence": 0.8}, (), "unsure"),
        ({"confidence": 0.8}, (math.nan,), "unsure"),
        ({"confidence": 0.0}, (-math.inf,), "accept"),
        ({"confidence": 0.1}, (-math.inf, 0.0), "reject"),
        ({"confidence": 1.0}, (1e-9, 0.0), "accept"),
    ],
)
def test_confidence(spec: Any, logprobs: tuple[float, ...] | None, decision: str) -> None:
    verdict = judged(spec, reply("x", logprobs=logprobs))
    assert verdict.decision == decision
    assert built(spec).wants_logprobs
    assert verdict.score is None or 0 <= verdict.score <= 1


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=30), st.integers(1, 40))
def test_the_window_s_probability_is_the_least_of_all_windows(logprobs: list[float], window: int) -> None:
    size = min(window, len(logprobs))
    slow = min(sum(logprobs[i : i + size]) / size for i in range(len(logprobs) - size + 1))
    assert mean_probability(logprobs, window) == pytest.approx(math.exp(slow), rel=1e-6, abs=1e-9)
