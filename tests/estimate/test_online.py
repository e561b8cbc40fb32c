from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from governor.errors import LedgerUnavailableError
from governor.estimate.adjusted import AdjustedBelief, joint
from governor.estimate.evidence import Evidence
from governor.estimate.latent import LatentBelief
from governor.estimate.lessons import rates_of
from governor.estimate.online import ALARMED, PENDING, LocalOnlyWarning, Online
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.plan.index import IndexPlanner
from governor.policy import load_policy
from governor.protocols import Belief, Shelf, Situation, Terms
from governor.records import Attempt, Forecast, Outcome, Plan, Price, Reply, Rung, Step, Verdict
from governor.testing import ScriptedBackend

LADDER = tuple(
    Rung(id=name, model=name, price=Price(price, price)) for name, price in (("small", 0.1), ("mid", 1.0), ("top", 5.0))
)
TERMS = Terms(app="a", ladder=LADDER)


class Normal:
    """An estimator that believes the same of every step."""

    def __init__(self, mean: float = 0.0) -> None:
        self.mean = mean

    def estimate(self, step: Step, terms: Terms) -> LatentBelief:
        return LatentBelief.normal(self.mean, 0.9, terms, reasons=("a plain request",))


@dataclass(frozen=True)
class Flat:
    """An estimator and belief without a grid."""

    p: tuple[float, ...]
    difficulty: float = 0.5
    reasons: tuple[str, ...] = ()

    def estimate(self, step: Step, terms: Terms) -> Flat:
        return self

    def forecasts(self, situation: Situation) -> tuple[Forecast, ...]:
        return tuple(
            Forecast(rung=r.id, p_success=p, p_accept=p, output_tokens=1.0, micros=1.0, seconds=1.0)
            for r, p in zip(situation.terms.ladder, self.p, strict=True)
        )

    def after(self, rung: Rung, decision: str, situation: Situation) -> Flat:
        return replace(self, p=tuple(p / 2 for p in self.p))


def step(number: int, node: str = "solve", session: str = "") -> Step:
    text = f"Find the sum of the numbers in this list: {number}, {number + 1}"
    return Step(id=f"s{number}", messages=({"role": "user", "content": text},), node=node, session=session)


def situation(asked: Step) -> Situation:
    return Situation(step=asked, terms=TERMS, sensitivity=0.98, false_accept=0.05)


def attempt(belief: Belief, asked: Step, rung: Rung, right: bool, **changes: Any) -> Attempt:
    verdict = Verdict(decision="accept" if right else "reject", verifier="v")
    made = Attempt(
        number=1,
        rung=rung,
        mode="first",
        reply=Reply(text="x"),
        verdict=verdict,
        forecasts=belief.forecasts(situation(asked)),
    )
    return replace(made, **changes)


def serve(online: Online, asked: Step, rung: Rung, right: bool, **changes: Any) -> AdjustedBelief:
    belief = online.estimate(asked, TERMS)
    made = attempt(belief, asked, rung, right, **changes)
    online.emit(asked, made)
    online.emit(asked, Outcome(step_id=asked.id, status="accepted", attempts=(made,)))
    return belief


def successes(belief: Belief, asked: Step) -> list[float]:
    return [forecast.p_success for forecast in belief.forecasts(situation(asked))]


def memory() -> Shelf:
    return cast("Shelf", open_ledger("memory://"))


# the belief


@pytest.mark.parametrize("inner", [Normal(0.7), Flat((0.2, 0.5, 0.9))])
def test_before_any_outcome_nothing_changes(inner: Normal | Flat) -> None:
    plain, belief = inner.estimate(step(1), TERMS), Online(inner).estimate(step(1), TERMS)
    assert successes(belief, step(1)) == pytest.approx(successes(plain, step(1)), abs=1e-6)
    assert belief.difficulty == pytest.approx(plain.difficulty)
    assert belief.reasons == plain.reasons


def test_failures_move_forecasts_of_like_steps_and_say_so() -> None:
    online = Online(Normal())
    for number in range(40):
        serve(online, step(number), LADDER[1], right=False)
    plain = successes(Normal().estimate(step(99), TERMS), step(99))
    like = online.estimate(step(99), TERMS)
    other = successes(online.estimate(step(98, node="other"), TERMS), step(98))
    assert successes(like, step(99))[1] < 0.15 < 0.5 < plain[1]
    assert successes(like, step(99))[1] < other[1] < plain[1]
    assert "like steps went worse than forecast" in like.reasons[0]
    assert "40 outcomes" in like.reasons[0] or "39 outcomes" in like.reasons[0]
    assert like.reasons[-1] == "a plain request"


def test_forecasts_grid_and_bayes_agree_with_each_other() -> None:
    online = Online(Normal(0.4))
    for number in range(30):
        serve(online, step(number, session="s"), LADDER[number % 3], right=number % 2 == 0)
    asked = step(99, session="s")
    belief: AdjustedBelief = online.estimate(asked, TERMS)
    for _ in range(2):
        grid = belief.grid(situation(asked))
        assert grid.weights.sum() == pytest.approx(1.0)
        assert (grid.success <= grid.answer + 1e-12).all()
        assert successes(belief, asked) == pytest.approx((grid.success @ grid.weights).tolist())
        correct = grid.answer[1]
        moved = grid.weights * (correct * 0.02 + (1 - correct) * 0.95)
        later = belief.after(LADDER[1], "reject", situation(asked))
        assert later.grid(situation(asked)).weights == pytest.approx(moved / moved.sum())
        assert later.difficulty > belief.difficulty
        assert all(
            after < before for after, before in zip(successes(later, asked), successes(belief, asked), strict=True)
        )
        belief = later


def test_a_cut_reply_or_an_unsure_verdict_leaves_the_weights() -> None:
    asked = step(1)
    belief = Online(Normal()).estimate(asked, TERMS)
    assert belief.after(LADDER[0], "unsure", situation(asked)) is belief
    cut = belief.after(LADDER[0], "truncated", situation(asked))
    assert np.array_equal(cut.grid(situation(asked)).weights, belief.grid(situation(asked)).weights)
    assert cut.forecasts(situation(asked))[0].output_tokens > belief.forecasts(situation(asked))[0].output_tokens


def test_the_planner_takes_it() -> None:
    asked = step(1)
    for inner in (Normal(), Flat((0.2, 0.5, 0.9))):
        belief = Online(inner).estimate(asked, TERMS)
        plan = IndexPlanner().choose(belief, situation(asked))
        assert isinstance(plan, Plan)
        assert plan.rung in LADDER


# what outcomes teach


def test_a_cut_reply_is_a_failure_and_a_fault_or_an_unsure_verdict_is_nothing() -> None:
    for changes, taught in (
        ({"reply": Reply(text="x", finish_reason="length"), "verdict": None}, 1.0),
        ({"verdict": Verdict(decision="unsure", verifier="v")}, 0.0),
        ({"reply": None, "verdict": None}, 0.0),
        ({"forecasts": ()}, 0.0),
        ({}, 1.0),
    ):
        online = Online(Normal())
        serve(online, step(1), LADDER[0], right=True, **cast("dict[str, Any]", changes))
        assert online.evidence.count == taught, changes


def test_without_a_verifier_a_verdict_teaches_nothing() -> None:
    online, asked = Online(Normal()), step(1)
    belief = online.estimate(asked, TERMS)
    bare = belief.forecasts(Situation(step=asked, terms=TERMS))
    serve(online, asked, LADDER[0], right=False, forecasts=bare)
    assert online.evidence.count == 0.0


def test_rates_are_read_off_the_forecasts() -> None:
    asked = step(1)
    forecasts = Normal().estimate(asked, TERMS).forecasts(situation(asked))
    assert rates_of(forecasts) == pytest.approx((0.98, 0.05))
    assert rates_of(forecasts[:1]) is None
    assert rates_of(()) is None


def test_an_outcome_counts_once_and_only_for_a_step_that_was_begun() -> None:
    online, asked = Online(Normal()), step(1)
    serve(online, asked, LADDER[0], right=True)
    belief = Normal().estimate(asked, TERMS)
    again = Outcome(step_id=asked.id, status="accepted", attempts=(attempt(belief, asked, LADDER[0], True),))
    online.emit(asked, again)
    assert online.evidence.count == 1.0
    for number in range(PENDING + 1):
        online.estimate(step(number), TERMS)
    online.emit(step(0), replace(again, step_id="s0"))
    assert online.evidence.count == 1.0
    online.emit(step(1), again)
    assert online.evidence.count > 1.9


def test_the_second_attempt_is_compared_with_what_was_believed_of_it_then() -> None:
    """A rejection lowers what is expected of the next rung: its failure is then no surprise, and teaches less."""
    shifts: list[float] = []
    for first in (True, False):
        online, asked = Online(Normal()), step(1)
        belief = online.estimate(asked, TERMS)
        attempts = [attempt(belief, asked, LADDER[1], right=False)]
        if not first:
            after = belief.after(LADDER[0], "reject", situation(asked)).after(LADDER[0], "reject", situation(asked))
            attempts = [attempt(after, asked, LADDER[1], right=False, number=2)]
        online.emit(asked, Outcome(step_id=asked.id, status="unverified", attempts=tuple(attempts)))
        shifts.append(successes(online.estimate(asked, TERMS), asked)[1])
    assert shifts[0] < shifts[1]


# sessions


def test_a_session_that_goes_badly_looks_harder_and_others_do_not() -> None:
    online = Online(Normal())
    for number in range(6):
        serve(online, step(number, node=f"n{number}", session="bad"), LADDER[2], right=False)
    assert online.session("bad").mean > 0.3
    hard = online.estimate(step(50, node="new", session="bad"), TERMS)
    fresh = online.estimate(step(51, node="new", session="fresh"), TERMS)
    assert hard.difficulty > fresh.difficulty + 0.05
    assert any("harder than they looked" in reason for reason in hard.reasons)
    assert not any("session" in reason for reason in fresh.reasons)


def test_a_session_follows_to_another_replica() -> None:
    shelf = memory()
    one, two = Online(Normal(), shelf=shelf), Online(Normal(), shelf=shelf)
    for number in range(6):
        serve(one, step(number, session="moves"), LADDER[2], right=False)
    one.close()
    two.estimate(step(50, session="moves"), TERMS)
    two.flush()
    assert two.session("moves").mean == pytest.approx(one.session("moves").mean)
    serve(two, step(51, session="moves"), LADDER[2], right=False)
    two.flush()
    one.flush()
    serve(one, step(52, session="moves"), LADDER[2], right=False)
    one.flush()
    assert one.session("moves").precision > two.session("moves").precision > 0.0


# the loop


def test_a_governor_learns_through_its_sinks() -> None:
    policy = load_policy("balanced")
    online = Online(Normal())
    backend = ScriptedBackend(lambda call: "order 4471")
    governor = Governor(policy, backend=backend, ledger=open_ledger("memory://"), estimator=online, sinks=[online])
    with governor:
        for number in range(12):
            outcome = governor.run(f"Extract the order number {number}", checks=({"regex": "order 44"},), node="n")
            assert outcome.status == "accepted"
        assert online.evidence.count > 11.0
        assert any("better than forecast" in reason for reason in governor.explain("Extract it", node="n").reasons)


# drift


@dataclass(frozen=True)
class Doubling:
    """Wealth that doubles with every outcome, whatever it is: an alarm at the tenth."""

    value: float = 1.0

    def after(self, outcome: float, expected: float) -> Doubling:
        assert 0.0 <= expected <= 1.0
        return Doubling(2.0 * self.value)


def test_drift_raises_an_alarm_that_widens_says_so_and_ends() -> None:
    online = Online(Normal(-3.0), wealth=Doubling)
    for number in range(9):
        serve(online, step(number), LADDER[2], right=True)
    assert not online.alarmed
    counted = online.evidence.count
    serve(online, step(9), LADDER[2], right=True)
    assert online.alarmed == ("top",)
    assert online.evidence.count < 0.5 * counted  # what was learned before counts less from here on
    number = 10
    asked = step(number, node="elsewhere")
    alarmed = online.estimate(asked, TERMS)
    assert alarmed.reasons[0] == "forecasts of top drifted from outcomes: held less sure"
    online._alarms = {}
    calm = online.estimate(asked, TERMS)
    assert abs(successes(alarmed, asked)[2] - 0.5) < abs(successes(calm, asked)[2] - 0.5)
    assert successes(alarmed, asked)[0] == pytest.approx(successes(calm, asked)[0], abs=0.005)
    online._alarms = {"top": ALARMED}
    online._wealth = Flatline
    for later in range(ALARMED):
        serve(online, step(1000 + later), LADDER[2], right=later % 2 == 0)
    assert not online.alarmed


@dataclass(frozen=True)
class Flatline:
    value: float = 1.0

    def after(self, outcome: float, expected: float) -> Flatline:
        return self


# sharing


def test_replicas_add_up_what_they_saw() -> None:
    shelf = memory()
    replicas = [Online(Normal(), shelf=shelf, every=5) for _ in range(3)]
    alone = Online(Normal())
    for number in range(45):
        serve(replicas[number % 3], step(number), LADDER[number % 3], right=number % 4 == 0)
        serve(alone, step(number), LADDER[number % 3], right=number % 4 == 0)
    for replica in replicas * 2:
        replica.flush()
    assert len({replica.evidence.to_bytes() for replica in replicas}) == 1
    assert replicas[0].evidence.count == pytest.approx(alone.evidence.count, rel=0.02)
    asked = step(99)
    shared, single = (successes(it.estimate(asked, TERMS), asked) for it in (replicas[0], alone))
    assert shared == pytest.approx(single, abs=0.08)


class Broken:
    """A shelf that can be switched off."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.down, self.asked = shelf, True, 0

    def load(self, key: str) -> tuple[bytes, int] | None:
        self.asked += 1
        if self.down:
            raise LedgerUnavailableError("ledger x.db: the disk is full: free some space")
        return self.shelf.load(key)

    def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> bool:
        return self.shelf.save(key, value, version, ttl=ttl)


def test_a_shelf_that_is_down_stops_nothing_is_said_and_loses_nothing() -> None:
    shelf = Broken(memory())
    with pytest.warns(LocalOnlyWarning, match="this replica's own: ledger x.db: the disk is full"):
        online = Online(Normal(), shelf=shelf, every=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, not at every step
        for number in range(60):
            serve(online, step(number), LADDER[1], right=False)
    assert "the disk is full" in online.problem
    belief = online.estimate(step(99), TERMS)
    assert successes(belief, step(99))[1] < 0.2
    assert any("this replica's own" in reason for reason in belief.reasons)
    assert shelf.asked < 8  # 30 turns, most left out
    shelf.down = False
    online.close()
    assert online.problem == ""
    found = shelf.load("online:default")
    assert found is not None
    assert Evidence.from_bytes(found[0]).count == pytest.approx(online.evidence.count)
    assert online.evidence.count > 58


def test_a_shelf_with_rubbish_on_it_is_left_alone_and_said() -> None:
    shelf = memory()
    shelf.save("online:default", b"rubbish", 0)
    with pytest.warns(LocalOnlyWarning, match="learned state can't be read"):
        online = Online(Normal(), shelf=shelf)
    serve(online, step(1), LADDER[0], right=False)
    assert online.evidence.count == 1.0
    found = shelf.load("online:default")
    assert found is not None
    assert found[0] == b"rubbish"


def test_names_keep_applications_apart() -> None:
    shelf = memory()
    one = Online(Normal(), shelf=shelf, name="one")
    serve(one, step(1), LADDER[0], right=False)
    one.close()
    assert Online(Normal(), shelf=shelf, name="two").evidence.count == 0.0
    assert Online(Normal(), shelf=shelf, name="one").evidence.count == 1.0


WORKER = """
import sys
from tests.estimate.test_online import LADDER, Normal, serve, step
from governor.estimate.online import Online
from governor.facade import Governor
from governor.ledger import open_ledger
online = Online(Normal(), shelf=open_ledger(sys.argv[1]), every=3)
for number in range(40):
    serve(online, step(number, session="shared"), LADDER[number % 3], right=number % 4 == 0)
online.close()
if sys.argv[2] == "wait":
    sys.stdin.read()
    online.flush()
sys.stdout.write(f"{online.evidence.to_bytes().hex()} {online.session('shared')} {online.problem}")
"""


def test_two_processes_on_one_file_converge_and_lose_nothing(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/ledger.db"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WORKER, uri, "wait"]
    path = {"PYTHONPATH": f"{root}:{root / 'adapters'}"}
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=path)
        for _ in range(2)
    ]
    reader = Online(Normal(), shelf=cast("Shelf", open_ledger(uri)))

    def complete() -> bool:
        reader.flush()
        return reader.evidence.count > 78.0

    wait_until(complete)
    printed = [worker.communicate("")[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert printed[0] == printed[1]
    reader.flush()
    assert printed[0].split()[0] == reader.evidence.to_bytes().hex()
    assert 78.0 < reader.evidence.count < 80.0


def wait_until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def shipped(online: Online, asked: Step, rung: Rung, right: bool) -> None:
    """Like `serve`, but the outcome ships the answer, so that a label may follow."""
    belief = online.estimate(asked, TERMS)
    made = attempt(belief, asked, rung, right)
    online.emit(asked, Outcome(step_id=asked.id, status="accepted", attempts=(made,), reply=made.reply, rung=rung.id))


def test_a_label_counts_once_and_only_for_steps_that_are_known() -> None:
    online = Online(Normal())
    assert not online.label("nowhere", correct=True)
    shipped(online, step(1), LADDER[0], right=True)
    before = online.evidence.count
    assert online.label("s1", correct=False)
    assert online.evidence.count == pytest.approx(before + 1.0, rel=1e-3)
    assert not online.label("s1", correct=False)


def test_labels_of_accepted_answers_do_not_flatter_the_forecast() -> None:
    """Answers come out as forecast; only accepted ones are labelled, which must not look like better answers."""
    rng = np.random.default_rng(3)
    with_labels, without = Online(Normal()), Online(Normal())
    asked = step(10_000)
    p = without.estimate(asked, TERMS).forecasts(situation(asked))[0].p_success
    for number in range(600):
        correct = bool(rng.random() < p)
        accepted = bool(rng.random() < (0.98 if correct else 0.05))
        for online in (with_labels, without):
            shipped(online, step(number), LADDER[0], accepted)
        if accepted:
            assert with_labels.label(f"s{number}", correct)
    told = [online.estimate(asked, TERMS).forecasts(situation(asked))[0].p_success for online in (with_labels, without)]
    assert told == pytest.approx([p, p], abs=0.06)


def compared(online: Online, asked: Step, right: tuple[bool, bool], *, equal: bool) -> None:
    """The small rung's answer compared with the middle one's, which ships where they differ."""
    told = online.estimate(asked, TERMS).forecasts(Situation(step=asked, terms=TERMS))
    attempts = tuple(
        Attempt(
            number=number,
            rung=rung,
            mode="first" if number == 1 else "compare",
            reply=Reply(text=f"{rung.id} {number}"),
            verdict=None if number == 1 else Verdict(decision="unsure", verifier="agreement", score=float(equal)),
            forecasts=told,
        )
        for number, rung in enumerate(LADDER[:2], start=1)
    )
    ships = 0 if equal else 1
    reply = attempts[ships].reply
    online.emit(asked, Outcome(step_id=asked.id, status="unverified", attempts=attempts, reply=reply, rung="mid"))
    assert online.label(asked.id, right[ships])


def test_labels_of_compared_answers_do_not_flatter_the_rung_that_was_confirmed() -> None:
    """Answers come out as forecast; what is labelled was chosen by comparing them, which must not look like skill."""
    rng = np.random.default_rng(5)
    online, unlearned = Online(Normal()), Online(Normal())
    asked = step(10_000)
    grid = joint(unlearned.estimate(asked, TERMS).inner, Situation(step=asked, terms=TERMS))
    before = grid.success @ grid.weights
    for number in range(800):
        hardness = rng.choice(len(grid.weights), p=grid.weights)
        right = tuple(bool(rng.random() < grid.success[k, hardness]) for k in (0, 1))
        compared(online, step(number), (right[0], right[1]), equal=right[0] and right[1])
    told = [one.p_success for one in online.estimate(asked, TERMS).forecasts(Situation(step=asked, terms=TERMS))]
    assert told[:2] == pytest.approx(before[:2].tolist(), abs=0.05)


def test_labels_reach_other_replicas(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'a.db'}")
    shelf = cast("Shelf", ledger)
    online = Online(Normal(), shelf=shelf, name="x")
    for number in range(40):
        shipped(online, step(number), LADDER[0], right=True)
        online.label(f"s{number}", correct=False)
    online.close()
    other = Online(Normal(), shelf=shelf, name="x")
    ours, theirs = (
        one.estimate(step(999), TERMS).forecasts(situation(step(999)))[0].p_success for one in (online, other)
    )
    assert theirs == pytest.approx(ours, abs=1e-6)
    assert theirs < Normal().estimate(step(999), TERMS).forecasts(situation(step(999)))[0].p_success - 0.1
    ledger.close()


def test_a_second_sample_moves_recalibrated_beliefs_as_it_moves_the_inner_one() -> None:
    asked = step(1)
    belief = Online(Normal()).estimate(asked, TERMS)
    first = attempt(belief, asked, LADDER[0], right=True, verdict=Verdict(decision="unsure", verifier="none"))
    second = replace(first, number=2, mode="agree")
    at = replace(situation(asked), attempts=(first, second))
    inner = Normal().estimate(asked, TERMS)
    for word in ("agree", "disagree"):
        moved = belief.after(LADDER[0], word, at).forecasts(at)[2].p_success
        expected = inner.after(LADDER[0], word, at).forecasts(at)[2].p_success
        assert moved == pytest.approx(expected, abs=1e-6)
