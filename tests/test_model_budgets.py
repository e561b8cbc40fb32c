"""Budgets of single models: whatever step calls one, a judge included, and nothing of what others use."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governor import Governor, Reply, Usage
from governor.drivers import drive
from governor.effects import Effect
from governor.errors import PolicyError
from governor.ledger import open_ledger
from governor.policy import Policy, limits_on, policy_from
from governor.policy.consistency import consistency
from governor.protocols import Auditable, Ledger
from governor.records import Amount, Call, Limit, Outcome
from governor.telemetry.audit import audited
from governor.telemetry.journal import Journal
from governor.telemetry.records import JsonlSink, read_records
from governor.telemetry.restore import restored
from governor.testing import ScriptedBackend

LARGE = "model:test/m/large"
APP = "app:test"
LADDER = [
    {"id": "low", "model": "m/small", "answer_tokens": 100, "price": {"input": 1, "output": 1}},
    {"id": "high", "model": "m/large", "answer_tokens": 100, "price": {"input": 10, "output": 10}},
]
QUESTION = "What is 12 * 17?"


def policy(**keys: Any) -> Policy:
    budget = {"app": {"usd": 5, "per": "total"}, "model": {"m/large": {"calls": 2, "per": "total"}}}
    budget |= keys.pop("budget", {})
    return policy_from({"version": 1, "app": "test", "ladder": LADDER, "budget": budget, **keys})


def governed(script: Any, ledger: Ledger | None = None, **keys: Any) -> Governor:
    return Governor(policy(**keys), backend=ScriptedBackend(script), ledger=ledger or open_ledger("memory://"))


def answer(call: Call) -> Reply:
    """The large model is right."""
    return Reply(text="204" if call.rung.model == "m/large" else "200", usage=Usage(20, 5))


def test_what_a_model_may_cost_holds_over_steps() -> None:
    ledger = open_ledger("memory://")
    governor = governed(answer, ledger, ladder=LADDER[1:])
    outcomes = [governor.run(QUESTION) for _ in range(3)]
    assert [one.status for one in outcomes] == ["unverified", "unverified", "refused"]
    assert outcomes[2].refusal is not None
    assert (outcomes[2].refusal.scope, outcomes[2].refusal.kind) == (LARGE, "budget_exceeded")
    assert (ledger.balance(LARGE).spent.calls, ledger.balance(LARGE).reserved) == (2, Amount())


def test_a_step_goes_on_with_another_model_where_the_policy_says_so() -> None:
    governor = governed(answer, dial=0.0, budget={"on_exhausted": "degrade"})
    checked = {"checks": ({"arithmetic": "12 * 17"},)}
    rungs = [[one.rung.id for one in governor.run(QUESTION, **checked).attempts] for _ in range(4)]
    assert sum("high" in one for one in rungs) == 2
    assert "low" in rungs[-1]
    assert "high" not in rungs[-1]


def test_only_what_is_called_of_the_model_is_booked_on_it() -> None:
    ledger = open_ledger("memory://")
    outcome = governed(answer, ledger, dial=0.1).run(QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert [one.rung.id for one in outcome.attempts] == ["low", "high"]
    part, whole = ledger.balance(LARGE).spent, ledger.balance(APP).spent
    assert (part.calls, part.tokens, part.micros) == (1, 25, 250)
    assert (whole.calls, whole.tokens, whole.micros) == (2, 50, 275)
    assert [(one.model, one.spent, one.scopes) for one in outcome.shares] == [("m/large", part, (LARGE,))]


def test_a_judges_calls_count_and_are_not_made_without_room() -> None:
    ledger = open_ledger("memory://")

    def script(call: Call) -> Reply:
        return Reply(text='{"correct": true}' if call.purpose == "judge" else "200", usage=Usage(20, 5))

    governor = governed(script, ledger, verify=[{"judge": "high"}], ladder=LADDER, dial=0.9, fail="open")
    outcomes = [governor.run(QUESTION) for _ in range(3)]
    assert sum(one.purpose == "judge" for one in _calls(governor)) == 2
    assert ledger.balance(LARGE).spent.calls == 2
    verdict = outcomes[2].attempts[0].verdict
    assert verdict is not None
    assert "over the budget of m/large" in verdict.error


def test_the_first_glob_that_matches_limits_each_model_by_itself() -> None:
    budget = {"model": {"m/l*": {"calls": 1, "per": "total"}, "*": {"calls": 2, "per": "day"}}}
    made = policy(budget=budget)
    assert limits_on(made, LARGE) == (Limit(LARGE, calls=1),)
    assert [limit.calls for limit in limits_on(made, "model:test/m/small@2026-11-21")] == [2]
    assert limits_on(made, "model:test/m/small") == ()


def test_a_stream_ends_where_its_models_budget_does() -> None:
    ledger = open_ledger("memory://")
    budget = {"model": {"m/large": {"answer_tokens": 60, "per": "total"}}, "streams": {"quantile": 0.1, "step": 8}}
    governor = governed([], ledger, ladder=LADDER[1:], budget=budget, backtrack={"max_attempts": 1})
    governor.backend = ScriptedBackend([Reply(text=" ".join(["so"] * 90), usage=Usage(20, 90))], counted=["high"])
    stream = governor.stream(QUESTION)
    assert len("".join(stream).split()) == 60
    assert stream.outcome is not None
    assert stream.outcome.refusal is not None
    assert stream.outcome.refusal.scope == LARGE
    assert (ledger.balance(LARGE).spent.answer, ledger.balance(LARGE).overshoot) == (60, Amount())


def test_in_shadow_it_is_counted_and_refuses_nothing() -> None:
    ledger = open_ledger("memory://")
    governor = governed(answer, ledger, ladder=LADDER[1:], mode="shadow")
    assert [governor.run(QUESTION).status for _ in range(4)] == ["unverified"] * 4
    assert ledger.balance(LARGE).spent.calls == 4


def test_the_audit_and_a_rebuilding_know_of_it(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'b.db'}")
    assert isinstance(ledger, Auditable)
    sink = JsonlSink(tmp_path / "r.jsonl", app="test")
    governor = Governor(policy(dial=0.1), backend=ScriptedBackend(answer), ledger=ledger, sinks=[sink])
    for number in range(3):
        governor.run(QUESTION, id=f"s{number}", checks=({"arithmetic": "12 * 17"},))
    records = list(read_records(tmp_path / "r.jsonl"))
    found = audited(records, ledger.balances(), ledger.reservations(), time.time())
    assert found.agrees, found
    assert {row.scope: row.steps for row in found.rows if row.scope in (LARGE, APP)} == {LARGE: 2, APP: 3}
    books = {one.scope: one.spent for one in restored(records, time.time()).balances}
    assert books == {scope: ledger.balance(scope).spent for scope in (LARGE, APP)}
    governor.close()


@pytest.mark.parametrize("stop", range(2, 24, 1))
def test_a_run_that_was_killed_and_resumed_books_each_call_once(stop: int, tmp_path: Path) -> None:
    """Killed before any one of its effects; what was in flight then is booked at its bound, on both."""

    class Killed(BaseException):
        pass

    ledger = open_ledger("memory://")
    governor = governed(answer, ledger, ladder=LADDER[1:])

    def life(last: int | None) -> Outcome:
        left = last

        def perform(effect: Effect) -> Any:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Killed
            return governor.ports().perform(effect)

        journal = Journal.open(tmp_path / "j")
        try:
            process = governor.process(governor.step(QUESTION, id="s", checks=({"arithmetic": "12 * 17"},)))
            return drive(process, journal.performer("s", perform))
        finally:
            journal.close()

    try:
        life(stop)
    except Killed:
        outcome = life(None)
        assert outcome.status in ("accepted", "best_so_far", "error", "refused")
    part, whole = ledger.balance(LARGE), ledger.balance(APP)
    assert (part.spent.tokens, part.spent.micros, part.spent.calls) == (
        whole.spent.tokens,
        whole.spent.micros,
        whole.spent.calls,
    )
    assert part.reserved == whole.reserved == Amount()
    for balance in (part, whole):  # the milliseconds of a killed life's verifier were held by nobody
        assert replace(balance.overshoot, millis=0) == Amount()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"per": "day"}, "limits nothing"),
        ({"usd": 1, "per": "day", "pace": [1]}, "a model's money is not paced"),
        ({"usd": 1, "per": "total", "sliding": True}, "a total does not slide"),
    ],
)
def test_mistakes_are_told(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        policy(budget={"model": {"m/large": limits}})


def test_a_glob_that_matches_no_model_is_told() -> None:
    budget = {"model": {"m/lrage": {"usd": 1, "per": "day"}, "m/l*": {"usd": 1, "per": "day"}}}
    (found,) = [one for one in consistency(policy(budget=budget)) if "matches" in one.message]
    assert (found.message, found.path, found.severity) == (
        "no rung's model matches 'm/lrage', so this limits nothing",
        ("budget", "model", "m/lrage"),
        "warning",
    )


def _calls(governor: Governor) -> list[Call]:
    backend = governor.backend
    assert isinstance(backend, ScriptedBackend)
    return backend.calls
