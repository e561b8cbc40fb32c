"""Stop rules from a policy into a real vLLM and back: the engine ends the thought, the governor sees by which rule."""

from __future__ import annotations

from typing import Any

import pytest

from governor import Governor, Outcome
from governor.policy import Policy, policy_from
from governor.records import Reply
from governor.stops.phrases import AGAIN, PHRASES, STUCK, ended_by
from governor_vllm.backend import VllmBackend
from tests.governor_vllm.engine_calls import MODEL, parts, tell
from tests.governor_vllm.engines import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

# Thresholds that anything passes: what is tested is the way, not what the rules are worth.
RULES: dict[str, dict[str, Any]] = {
    "budget": {"budget": 60},
    "margin": {"margin": 1000.0},
    "group": {"group": 100.0, "group_window": 32},
    "repeat": {"repeat": 3, "repeat_period": 24, "repeat_tokens": 12},
}
QUESTION = "What is six times seven?"


def policy(stops: dict[str, Any]) -> Policy:
    """A rung under the rules, and a higher one without any."""
    common = {"model": MODEL, "answer_tokens": 16, "temperature": 0.0}
    ladder = [
        {"id": "watched", "thinking_tokens": 150, "stops": stops, **common},
        {"id": "free", "thinking_tokens": 200, **common},
    ]
    return policy_from({"version": 1, "ladder": ladder, "budget": {"step": {"tokens": 2000}}})


def streamed(engine: Engine, backend: VllmBackend, stops: dict[str, Any]) -> tuple[str, Outcome]:
    """What a step under the rules shows, and how it ends; the engine runs the rules."""
    known = {MODEL: parts(backend)[0].served}
    own = VllmBackend({MODEL: {"api_base": engine.url}}, served=known)  # its governor closes it
    with Governor(policy(stops), backend=own) as governor:
        stream = governor.stream(QUESTION)
        shown = "".join(stream)
        assert stream.outcome is not None
        assert own.stops(stream.outcome.attempts[0].rung)
    return shown, stream.outcome


def first_reply(outcome: Outcome) -> Reply:
    first = outcome.attempts[0]
    assert first.rung.id == "watched"
    assert first.reply is not None
    return first.reply


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_ends_the_thought_in_the_engine_and_the_reply_says_which(
    engine: Engine, backend: VllmBackend, rule: str
) -> None:
    shown, outcome = streamed(engine, backend, RULES[rule])
    reply = first_reply(outcome)
    tell(f"\n{rule}: {reply.usage}, {reply.finish_reason}, then {[one.rung.id for one in outcome.attempts[1:]]}")
    assert (reply.stopped, ended_by(reply.thinking)) == (rule, rule)
    assert reply.usage.thinking_tokens < 150
    assert reply.usage.output_tokens > reply.usage.thinking_tokens  # the engine went on to the answer by itself
    assert reply.stuck == (rule in STUCK)
    assert not any(phrase.strip() in shown for code, phrase in PHRASES.items() if code != AGAIN)
    if rule in STUCK:
        first, second = outcome.attempts[:2]
        assert (first.failure, second.rung.id) == ("stuck", "free")


@pytest.mark.parametrize("budget", [2, 16])
def test_a_budget_without_room_for_its_words_is_known_all_the_same(
    engine: Engine, backend: VllmBackend, budget: int
) -> None:
    """The bare mark ends the thought."""
    _, outcome = streamed(engine, backend, {"budget": budget})
    reply = first_reply(outcome)
    tell(f"\nbudget {budget}: {reply.usage}")
    assert ended_by(reply.thinking) == ""
    assert reply.stopped == "budget"
    assert reply.usage.thinking_tokens <= budget


def test_a_rule_that_is_never_met_ends_nothing(engine: Engine, backend: VllmBackend) -> None:
    _, outcome = streamed(engine, backend, {"repeat": 1000})
    reply = first_reply(outcome)
    assert reply.stopped in ("", "budget")  # the rung's own
    assert reply.usage.thinking_tokens > 60
