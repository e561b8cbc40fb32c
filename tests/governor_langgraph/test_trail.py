"""What a run has behind it: rewound, resumed, kept and lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from governor import Governor
from governor.errors import LedgerUnavailableError
from governor.ledger import open_ledger
from governor.ledger.book import BookLedger
from governor.ledger.memory import MemoryStore
from governor.policy import policy_from
from governor.protocols import Balance, Terms
from governor.records import Step
from governor.shelf import LARGEST
from governor.testing import ScriptedBackend
from governor_langgraph.blame import Back
from governor_langgraph.past import Past
from governor_langgraph.place import Place
from governor_langgraph.trail import TRAIL_KEY, Trail, TrailWarning, rewinds, trail_of
from tests.governor_langgraph.rewinding import TO_PLAN, policy
from tests.governor_langgraph.test_past import done, made


def governor(ledger: Any = None, rules: Any = (TO_PLAN,), **more: Any) -> Governor:
    return Governor(policy_from(policy(rules, **more)), backend=ScriptedBackend([]), ledger=ledger)


def memory() -> Any:
    return open_ledger("memory://")


def test_what_is_kept_is_found_by_its_thread_and_run(tmp_path: Path) -> None:
    with governor(open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as mine:
        Trail(mine, "thread", Past("run")).walked(done("plan", 1))
        assert Trail.kept(mine, "thread", "run").past.done == (done("plan", 1),)
        assert Trail.kept(mine, "thread", "other run").past == Past("other run")
        assert Trail.kept(mine, "other thread", "run").past == Past("run")


def test_threads_of_any_length_have_trails_of_their_own() -> None:
    mine = governor(memory())
    for last in "ab":
        Trail(mine, "t" * 600 + last, Past("run")).walked(done(last, 1))
    assert [one.node for one in Trail.kept(mine, "t" * 600 + "a", "run").past.done] == ["a"]


def test_a_trail_that_ends_with_its_run_is_written_nowhere() -> None:
    ledger = memory()
    trail = Trail(governor(ledger), "thread", Past("run"), durable=False)
    trail.walked(done("plan", 1))
    trail.keep(made(1, 1), b"result")
    assert ledger.load("run:t:thread") is None
    assert trail.result(made(1, 1)) == b"result"


def test_nothing_is_written_where_no_step_can_ever_be_blamed() -> None:
    ledger = memory()
    mine = governor(ledger, rules=())
    assert not rewinds(mine.policy)
    Trail(mine, "thread", Past("run")).walked(done("plan", 1))
    assert ledger.load("run:t:thread") is None


@pytest.mark.parametrize("size", [1, LARGEST - 1, LARGEST, LARGEST + 1, 2 * LARGEST])
def test_results_of_any_size_are_kept(size: int) -> None:
    mine, result = governor(memory()), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    trail = Trail(mine, "thread", Past("run", made=(made(1, 1, ended=False),)))
    trail.keep(trail.past.made[0], result)
    other = Trail.kept(mine, "thread", "run")
    assert other.past.made[0].ended
    assert other.result(other.past.made[0]) == result


def test_a_lost_result_is_empty() -> None:
    assert Trail(governor(memory()), "thread", Past("run")).result(made(1, 1)) == b""


def test_changes_of_many_threads_are_all_kept() -> None:
    mine = governor(memory())
    trail = Trail(mine, "thread", Past("run"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: trail.walked(done("plan", at % 7, str(at))), range(64)))
    assert {one.task for one in Trail.kept(mine, "thread", "run").past.done} == {str(at) for at in range(64)}


class Down(BookLedger):
    """A store that can't be reached."""

    def load(self, key: str) -> tuple[bytes, int] | None:
        raise LedgerUnavailableError("down")


def test_a_closed_policy_stops_where_the_trail_can_t_be_kept() -> None:
    trail = Trail(governor(Down(MemoryStore(), time.time, 900.0)), "thread", Past("run"))
    with pytest.raises(LedgerUnavailableError, match="down"):
        trail.walked(done("plan", 1))
    assert trail.past == Past("run"), "what is not kept has not happened"
    with pytest.raises(LedgerUnavailableError):
        Trail.kept(governor(Down(MemoryStore(), time.time, 900.0)), "thread", "run")


def test_an_open_policy_goes_on_with_what_it_remembers() -> None:
    trail = Trail(governor(Down(MemoryStore(), time.time, 900.0), fail="open"), "thread", Past("run"))
    with pytest.warns(TrailWarning, match="run 'run': its trail is not kept: down"):
        trail.walked(done("plan", 1))
    assert trail.past.done == (done("plan", 1),)


class Speechless(BookLedger):
    """A store that can't say what is left."""

    def balance(self, scope: str) -> Balance:
        raise LedgerUnavailableError("down")


def speechless(fail: str, budget: dict[str, Any]) -> tuple[Trail, Terms]:
    """The trail of a run with a step behind it, and what its failing step is granted."""
    ledger = Speechless(MemoryStore(), time.time, 900.0)
    mine = governor(ledger, fail=fail, budget={"app": {"per": "total", **budget}})
    return Trail(mine, "thread", Past("run", (done("plan", 1),))), mine.terms(failing(3)[0])


def test_an_open_policy_goes_back_though_the_store_can_t_say_what_is_left() -> None:
    trail, terms = speechless("open", {"tokens": 10_000})
    with pytest.warns(TrailWarning, match="run 'run': what is left of its budgets is not known: down"):
        back = trail.back(*failing(3), terms)
    assert back is not None
    assert back.node == "plan"


def test_nothing_is_done_again_under_a_money_limit_that_nobody_can_read() -> None:
    trail, terms = speechless("open", {"usd": 1})
    with pytest.warns(TrailWarning, match="not known: down"):
        assert trail.back(*failing(3), terms) is None


def test_a_closed_policy_stops_where_the_store_can_t_say_what_is_left() -> None:
    trail, terms = speechless("closed", {"tokens": 10_000})
    with pytest.raises(LedgerUnavailableError, match="down"):
        trail.back(*failing(3), terms)


class Awaited(BookLedger):
    """A store whose values are awaited, as that of AsyncRedisLedger."""

    async def load(self, key: str) -> Any:  # type: ignore[override]
        raise AssertionError("never awaited")

    async def save(self, key: str, value: bytes, version: int, *, ttl: float | None = None) -> Any:  # type: ignore[override]
        raise AssertionError("never awaited")


def test_a_store_that_must_be_awaited_keeps_no_trail() -> None:
    trail = Trail(governor(Awaited(MemoryStore(), time.time, 900.0)), "thread", Past("run"))
    trail.walked(done("plan", 1))
    assert trail.past.done == (done("plan", 1),)


def failing(at: int) -> tuple[Step, Place]:
    return Step(id="s", messages=(), node="check"), Place("check", checkpoint=f"{at:02}", task="check:x")


def test_only_steps_of_earlier_supersteps_are_blamed() -> None:
    trail = Trail(governor(), "thread", Past("run", (done("plan", 3),)))
    assert trail.back(*failing(3)) is None
    back = trail.back(*failing(4))
    assert back == Back("check", "plan", "03", 1, 0.5)
    assert trail.wanted() == back


def test_the_furthest_rewind_is_taken_and_the_others_are_with_it() -> None:
    trail = Trail(governor(), "thread", Past("run"))
    far, near = Back("check", "plan", "01", 1), Back("check", "solve", "02", 1)
    trail.failed += [near, far]
    assert trail.wanted() == far
    trail.went(far)
    assert (trail.wanted(), trail.past.backs) == (None, (far,))


def test_a_rule_s_rewinds_are_used_up() -> None:
    trail = Trail(governor(), "thread", Past("run", (done("plan", 1),)))
    for _ in range(2):
        back = trail.back(*failing(5))
        assert back is not None
        trail.went(back)
        trail.walked(done("plan", 1))
    assert trail.back(*failing(5)) is None


def test_a_step_without_a_rule_blames_none() -> None:
    trail = Trail(governor(rules=()), "thread", Past("run", (done("plan", 1),)))
    assert trail.back(*failing(5)) is None


def test_it_is_found_in_a_configuration() -> None:
    trail = Trail(governor(), "thread", Past("run"))
    assert trail_of({"configurable": {TRAIL_KEY: trail}}) is trail
    assert trail_of({"configurable": {TRAIL_KEY: "else"}}) is None
    assert trail_of({}) is None
