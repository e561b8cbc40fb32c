"""Governor from the outside: run, arun, stream, astream, explain - on scripted replies, with real parts else."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from governor import Governor, Outcome, Reply, Usage
from governor.backends import Backends
from governor.errors import (
    BackendAuthError,
    BackendRequestError,
    BackendUnavailableError,
    LedgerUnavailableError,
    PolicyError,
    Refusal,
)
from governor.facade import default_ledger
from governor.ledger import open_awaited, open_ledger
from governor.policy import Policy, policy_from
from governor.protocols import Ledger
from governor.records import Amount, Call, Step
from governor.telemetry.records import JsonlSink, read_records
from governor.testing import FrozenClock, ScriptedBackend
from governor.verify import build_verifier

LADDER = [
    {"id": "low", "model": "m/small", "answer_tokens": 100, "price": {"input": 1, "output": 2}},
    {"id": "high", "model": "m/large", "answer_tokens": 100, "price": {"input": 5, "output": 10}},
]
QUESTION = "What is 12 * 17?"


def policy(**keys: Any) -> Policy:
    return policy_from({"version": 1, "app": "test", "dial": 0.1, "ladder": LADDER, **keys})


def reply(text: str, **fields: Any) -> Reply:
    return Reply(text=text, usage=Usage(20, 5), seconds=0.01, **fields)


def governed(script: Any, ledger: Ledger | None = None, **keys: Any) -> Governor:
    return Governor(policy(**keys), backend=ScriptedBackend(script), ledger=ledger or open_ledger("memory://"))


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    def one(governor: Governor, prompt: Any, **context: Any) -> Outcome:
        if request.param == "sync":
            return governor.run(prompt, **context)
        return asyncio.run(governor.arun(prompt, **context))

    return one


def test_a_rejected_answer_is_mended_by_a_higher_rung(run: Callable[..., Outcome]) -> None:
    governor = governed([reply("214"), reply("204")])
    outcome = run(governor, QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert (outcome.status, outcome.answer) == ("accepted", "204")
    assert [attempt.rung.id for attempt in outcome.attempts] == ["low", "high"]
    assert outcome.spent.micros == (20 + 5 * 2) + (20 * 5 + 5 * 10)
    assert outcome.spent.calls == 2


def test_without_a_verifier_the_first_answer_stands_unverified(run: Callable[..., Outcome]) -> None:
    outcome = run(governed([reply("204")]), QUESTION)
    assert (outcome.status, outcome.answer, len(outcome.attempts)) == ("unverified", "204", 1)


def test_a_truncated_answer_is_continued_where_the_backend_can(run: Callable[..., Outcome]) -> None:
    backend = ScriptedBackend(
        [reply("The result", finish_reason="length"), reply(" is 204.")], continues=["low", "high"]
    )
    outcome = run(Governor(policy(), backend=backend, ledger=open_ledger("memory://")), QUESTION)
    assert outcome.answer == "The result is 204."
    assert outcome.attempts[1].mode == "continue"
    assert backend.calls[1].prefix == "The result"


def test_feedback_reaches_the_next_rung(run: Callable[..., Outcome]) -> None:
    backend = ScriptedBackend([reply("214"), reply("204")])
    governor = Governor(policy(backtrack={"modes": ["feedback"]}), backend=backend, ledger=open_ledger("memory://"))
    run(governor, QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert [message["role"] for message in backend.calls[1].messages] == ["user", "assistant", "user"]
    assert "not the value of 12 * 17" in backend.calls[1].messages[-1]["content"]


def test_a_budget_that_allows_nothing_refuses(run: Callable[..., Outcome]) -> None:
    outcome = run(governed([], budget={"step": {"usd": 0.0001}, "on_exhausted": "refuse"}), QUESTION)
    assert (outcome.status, outcome.attempts) == ("refused", ())
    assert "exceeded" in outcome.error


def test_a_refused_step_says_when_to_come_again(run: Callable[..., Outcome]) -> None:
    clock = FrozenClock(time.time())
    governor = governed(
        lambda _: reply("42"),
        open_ledger("memory://", clock=clock),
        budget={"tenant": {"per": "day", "calls": 1}, "app": {"per": "total", "calls": 9}},
    )
    assert run(governor, QUESTION).refusal is None
    refusal = run(governor, QUESTION).refusal
    assert refusal is not None
    assert (refusal.kind, refusal.dimension, refusal.limit) == ("budget_exceeded", "calls", 1)
    assert refusal.scope.startswith("tenant:test/@")
    assert refusal.resets is not None
    assert refusal.resets % 86_400 == 0
    assert refusal.retry_after == refusal.resets - clock()


def test_a_tight_budget_degrades_to_a_rung_that_fits(run: Callable[..., Outcome]) -> None:
    # Room for the cheap rung's bound alone; at difficulty 1 the dear one would be chosen.
    budget = {"step": {"usd": 0.0006}, "on_exhausted": "degrade"}
    outcome = run(governed([reply("204")], budget=budget, steps=[{"difficulty": 1.0, "dial": 0}]), QUESTION)
    assert (outcome.status, outcome.rung) == ("unverified", "low")


def test_the_best_answer_so_far_ships_when_the_budget_ends(run: Callable[..., Outcome]) -> None:
    budget = {"step": {"usd": 0.0006}, "on_exhausted": "best_so_far"}
    outcome = run(governed([reply("214")], budget=budget), QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert (outcome.status, outcome.answer) == ("best_so_far", "214")


def test_a_session_budget_binds_across_steps(run: Callable[..., Outcome]) -> None:
    governor = governed(lambda call: reply("204"), budget={"session": {"calls": 2}})
    statuses = [run(governor, QUESTION, session="s1").status for _ in range(3)]
    assert statuses == ["unverified", "unverified", "refused"]
    assert run(governor, QUESTION, session="s2").status == "unverified"


def test_a_refused_key_closes_its_model_and_another_answers(run: Callable[..., Outcome]) -> None:
    script = [BackendAuthError("key refused", sent=False, model="m/small"), reply("204")]
    outcome = run(governed(script, dial=0.9), QUESTION)
    assert (outcome.status, outcome.rung) == ("unverified", "high")
    assert outcome.attempts[0].error == "BackendAuthError: key refused"


def test_when_every_model_is_down_the_outcome_is_an_error(run: Callable[..., Outcome]) -> None:
    down = lambda call: BackendUnavailableError("connection refused", sent=False)  # noqa: E731
    outcome = run(governed(down), QUESTION)
    assert outcome.status == "error"
    assert "connection refused" in outcome.error
    assert outcome.spent.micros == 0


def test_shadow_is_booked_on_windows_that_slide(run: Callable[..., Outcome]) -> None:
    ledger, sliding = open_ledger("memory://"), {"app": {"per": "day", "sliding": True, "calls": 5}}
    for mode in ("on", "shadow", "on"):
        outcome = run(governed([reply("204")], ledger, mode=mode, budget=sliding), QUESTION)
        assert (outcome.scopes, outcome.error) == (("app:test~day",), "")
    assert ledger.balance("app:test~day").spent.calls == 3


def test_shadow_records_the_decision_and_calls_the_baseline(run: Callable[..., Outcome]) -> None:
    backend = ScriptedBackend([reply("214")])
    governor = Governor(
        policy(mode="shadow", budget={"step": {"usd": 0}}), backend=backend, ledger=open_ledger("memory://")
    )
    outcome = run(governor, QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert (outcome.arm, outcome.decided, outcome.rung) == ("shadow", "low", "high")
    assert outcome.answer == "214"
    assert len(backend.calls) == 1, "a rejected answer is recorded, not mended, and no budget refuses in shadow"


def test_a_canary_governs_a_stable_share_of_sessions() -> None:
    governor = governed(lambda call: reply("204"), mode={"canary": 0.3})
    first = [governor.run(QUESTION, session=f"s{n}").arm for n in range(300)]
    again = [governor.run(QUESTION, session=f"s{n}").arm for n in range(300)]
    assert first == again
    assert 60 < first.count("governed") < 120
    assert set(first) == {"governed", "control"}


def test_several_samples_vote_and_stop_when_decided(run: Callable[..., Outcome]) -> None:
    ladder = [{"id": "vote", "model": "m/small", "answer_tokens": 10, "samples": 5}]
    backend = ScriptedBackend([reply("7"), reply("9"), reply("9"), reply("9"), reply("7")])
    governor = Governor(policy(ladder=ladder), backend=backend, ledger=open_ledger("memory://"))
    outcome = run(governor, "Pick", seed=5)
    assert outcome.answer == "9"
    assert len(backend.calls) == 4, "three of five is a majority: the fifth sample is not bought"
    assert len({call.seed for call in backend.calls}) == 4


def test_a_broken_verifier_fails_closed_or_open(run: Callable[..., Outcome]) -> None:
    check = ({"callable": f"{__name__}:explodes"},)
    closed = run(governed([reply("204")]), QUESTION, checks=check)
    opened = run(governed([reply("204")], fail="open"), QUESTION, checks=check)
    assert (closed.status, opened.status) == ("best_so_far", "unverified")
    assert "boom" in closed.error


def explodes(step: object, reply: object) -> bool:
    raise ValueError("boom")


def test_an_unverified_stream_passes_text_through_as_it_comes() -> None:
    stream = governed([reply("two hundred and four")]).stream(QUESTION)
    pieces = list(stream)
    assert "".join(pieces) == "two hundred and four"
    assert stream.outcome is not None
    assert stream.outcome.status == "unverified"


def test_a_verified_stream_shows_only_the_accepted_answer() -> None:
    stream = governed([reply("214"), reply("204")]).stream(QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert "".join(stream) == "204"


async def test_astream_does_the_same() -> None:
    stream = governed([reply("214"), reply("204")]).astream(QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert "".join([piece async for piece in stream]) == "204"
    assert stream.outcome is not None
    assert len(stream.outcome.attempts) == 2


def test_leaving_a_stream_early_settles_its_reservation() -> None:
    ledger = open_ledger("memory://")
    governor = governed([reply("one two three")], ledger=ledger, budget={"session": {"calls": 5}})
    pieces: Iterator[str] = iter(governor.stream(QUESTION, id="step", session="s"))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator, seen as the Iterator it is promised to be
    held = ledger.reservation("step")
    assert held is not None
    assert held.state == "settled"
    assert ledger.balance("session:test/s").reserved.calls == 0


async def test_cancelling_arun_settles_its_reservation() -> None:
    ledger = open_ledger("memory://")

    class Slow(ScriptedBackend):
        async def acall(self, call: Call) -> Reply:
            await asyncio.sleep(30)
            return self.call(call)

    governor = Governor(policy(budget={"step": {"calls": 5}}), backend=Slow([]), ledger=ledger)
    task = asyncio.ensure_future(governor.arun(QUESTION, id="step"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held = ledger.reservation("step")
    assert held is not None
    assert held.state == "settled"
    assert held.amount.calls == 1, "a call that was sent and never answered is booked at its bound"


def test_explain_calls_nothing_and_says_why() -> None:
    backend = ScriptedBackend([])
    governor = Governor(policy(), backend=backend, ledger=open_ledger("memory://"))
    found = governor.explain(QUESTION)
    assert [forecast.rung for forecast in found.plan.forecasts] == ["low", "high"]
    assert found.reasons
    assert backend.calls == []


def test_every_attempt_and_outcome_is_recorded_without_texts(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "records.jsonl")
    backend = ScriptedBackend([reply("214"), reply("204")])
    with Governor(policy(), backend=backend, ledger=open_ledger("memory://"), sinks=[sink]) as governor:
        governor.run(QUESTION, checks=({"arithmetic": "12 * 17"},))
    records = list(read_records(tmp_path / "records.jsonl", strict=True))
    assert [record["kind"] for record in records] == ["attempt", "attempt", "outcome"]
    assert QUESTION not in (tmp_path / "records.jsonl").read_text()


class Gone:
    """A ledger whose store can't be reached, until it can."""

    def __init__(self) -> None:
        self.inner = open_ledger("memory://")
        self.down = True

    def __getattr__(self, name: str) -> Any:
        return self._lost if self.down and name != "close" else getattr(self.inner, name)

    def _lost(self, *_: object, **__: object) -> Any:
        raise LedgerUnavailableError("the store is gone")


def test_money_stops_while_the_store_is_gone_unless_the_policy_has_an_emergency_cap(
    run: Callable[..., Outcome],
) -> None:
    gone: Any = Gone()
    budget: dict[str, Any] = {"app": {"per": "day", "usd": 5}}
    outcome = run(governed([reply("42")], gone, budget=budget, fail="open"), QUESTION)
    assert (outcome.status, outcome.answer) == ("error", "")
    assert "the store is gone" in outcome.error

    capped = governed([reply("42"), reply("42")], gone, budget={**budget, "emergency": {"usd": 1, "calls": 1}})
    assert run(capped, QUESTION).answer == "42"
    refused = run(capped, QUESTION)
    assert refused.status == "refused"
    assert refused.refusal == Refusal(kind="budget_exceeded", scope="emergency:test", dimension="calls", limit=1)
    gone.down = False
    capped.close()
    (booked,) = gone.inner.balances("app:test")
    assert booked.spent.calls == 1
    assert booked.reserved == Amount()


def test_what_was_spent_in_an_outage_is_booked_at_the_end_in_a_store_that_others_use_too() -> None:
    gone: Any = Gone()
    held = policy(budget={"app": {"per": "day", "usd": 5}, "emergency": {"usd": 1}})
    governor = Governor(held, backend=ScriptedBackend([reply("42")]), ledger=gone, owns_ledger=False)
    assert governor.run(QUESTION).answer == "42"
    gone.down = False
    governor.close()
    (booked,) = gone.inner.balances("app:test")
    assert booked.spent.calls == 1


def test_threads_that_begin_together_share_one_store(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def slowly(url: str) -> Ledger:
        opened.append(url)
        time.sleep(0.05)
        return open_ledger(url)

    monkeypatch.setattr("governor.facade.open_ledger", slowly)
    governor = Governor(policy(), backend=ScriptedBackend([]))
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: governor.ledger, range(8)))
    assert len({id(store) for store in stores}) == len(opened) == 1


def test_closing_frees_everything_once_whatever_fails() -> None:
    closed: list[str] = []

    class Part:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            if self.name == "sink":
                raise OSError("disk full")

    parts: Any = Part
    governor = Governor(policy(), backend=parts("backend"), ledger=parts("ledger"), sinks=[parts("sink")])
    with pytest.raises(OSError, match="disk full"):
        governor.close()
    governor.close()
    assert sorted(closed) == ["backend", "ledger", "sink"]


def test_a_verifier_is_built_once_for_all_steps_without_checks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []

    def counting(spec: Any, **options: Any) -> Any:
        built.append(spec)
        return build_verifier(spec, **options)

    monkeypatch.setattr("governor.facade.build_verifier", counting)
    governor = governed(lambda _: reply("204"), verify="complete")
    for _ in range(3):
        governor.run(QUESTION)
    governor.run(QUESTION, checks=({"arithmetic": "12 * 17"},))
    assert len(built) == 2


def test_a_policy_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"no-such\.yaml") as caught:
        Governor.from_policy(tmp_path / "no-such.yaml")
    assert "\n" not in str(caught.value)


def test_backends_are_not_made_again_after_closing() -> None:
    backends = Backends({})
    backends.close()
    with pytest.raises(BackendRequestError, match="closed"):
        backends.serving("m/small")


def test_a_step_can_be_sent_to_another_process() -> None:
    step = Step(id="s", messages=({"role": "user", "content": "x"},))
    assert pickle.loads(pickle.dumps(step)) == step


def test_an_application_limit_lives_in_a_file_even_where_only_a_rule_states_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    daily = {"app": {"per": "day", "usd": 1}}
    for limited in (policy(budget=daily), policy(steps=[{"match": {"node": "n"}, "budget": daily}])):
        assert default_ledger(limited) == f"sqlite:///{tmp_path / 'compute-governor' / 'test.db'}"
    assert default_ledger(policy(budget={"step": {"usd": 1}})) == "memory://"


async def test_with_an_emergency_budget_the_ledger_that_stands_in_books() -> None:
    pytest.importorskip("redis")
    budget = {"app": {"per": "day", "usd": 1}, "emergency": {"usd": 1}}
    awaited = open_awaited("redis://127.0.0.1:1/0")
    store = open_ledger("memory://")
    backend = ScriptedBackend([reply("204")])
    with Governor(policy(budget=budget), backend=backend, ledger=store, awaited=awaited) as governor:
        assert (await governor.arun(QUESTION)).answer == "204"
        (booked,) = governor.ledger.balances("app:test")  # type: ignore[attr-defined]  # a StandbyStore is Auditable
        assert booked.spent.calls == 1
