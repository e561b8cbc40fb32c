"""Faults around a rewind: a process that is killed, a checkpointer that can't write, a store that is down."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from governor.errors import BackendTimeoutError, LedgerUnavailableError, NoAnswerError, RewindError
from governor.ledger import open_ledger
from governor.ledger.book import BookLedger
from governor.ledger.memory import MemoryStore
from governor.protocols import Auditable, Balance
from governor.testing import ScriptedBackend
from governor_langgraph.trail import TrailWarning
from tests.governor_langgraph.dying import KILLS, live
from tests.governor_langgraph.rewinding import GO, RAISED, TO_PLAN, Desk, chain, planner, script, told

THREAD: Any = {"configurable": {"thread_id": "one"}}
CALLS = 4
"""What a run without a fault asks: plan, solve, plan on the higher rung, solve."""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.governor_langgraph.dying"])


# a killed process


def lived(folder: Path, place: str = "", visit: int = 1) -> bool:
    """Whether the process came to its end; else it was killed."""
    process = PROCESSES.Process(target=live, args=(folder, place, visit))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), "it failed, in place of dying"
    return process.exitcode == 0


@pytest.fixture(scope="module", autouse=True)
def _this_checkout() -> Iterator[None]:
    """The server that processes are forked from imports what these tests do, not what else is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("faultless")
    assert lived(folder)
    assert spent(folder).spent.micros == sum(bills(folder))
    assert len(bills(folder)) == CALLS
    return state(folder)


def state(folder: Path) -> Any:
    return json.loads((folder / "state").read_text())


def bills(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "bills").read_text().split()]


def spent(folder: Path, clock: Callable[[], float] = time.time) -> Balance:
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}", clock=clock)
    try:
        return ledger.balance("app:t")
    finally:
        ledger.close()


def open_holds(folder: Path) -> int:
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    try:
        assert isinstance(ledger, Auditable)
        return sum(one.state == "open" for one in ledger.reservations())
    finally:
        ledger.close()


def branches(folder: Path) -> set[str]:
    with SqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
        return {str(one.metadata.get("governor_branch", "")) for one in saver.list(THREAD)}


def assert_unharmed(folder: Path, faultless: Any) -> None:
    """After it was resumed: the same state, one letter, one rewind, and no spend lost or doubled."""
    assert state(folder) == faultless
    assert (folder / "letters").read_text() == "ann\n"
    assert branches(folder) == {"", "1: plan on rung 1, blamed by check"}
    balance, paid = spent(folder), sum(bills(folder))
    assert balance.spent.micros <= paid <= balance.spent.micros + balance.reserved.micros
    assert open_holds(folder) <= 1, "what the killed process held, and nothing else"
    if not open_holds(folder):
        assert balance.spent.micros == paid
    later = spent(folder, lambda: time.time() + 10_000)
    assert later.spent.micros == balance.spent.micros + balance.reserved.micros, "a lease that ran out: at its bound"
    assert len(bills(folder)) <= CALLS + 1, "of what was done, only the task that died is done again"


MID_REWIND = [
    ("the note of a rewind", 1),
    ("after the note of a rewind", 1),
    ("a rewind", 1),
    ("after a rewind", 1),
    ("a checkpoint", 7),
    ("after a checkpoint", 7),
]
"""Before and after the rewind is noted, and the branch's first checkpoint (the seventh) written."""


@pytest.mark.parametrize(("place", "visit"), MID_REWIND)
def test_a_run_that_is_killed_in_mid_rewind_goes_on_from_there(
    place: str, visit: int, tmp_path: Path, faultless: Any
) -> None:
    assert not lived(tmp_path, place, visit)
    assert lived(tmp_path)
    assert_unharmed(tmp_path, faultless)
    asked = len(bills(tmp_path))
    assert asked == CALLS or "checkpoint" in place, (
        "no model is asked again; beside a write the next one may run already"
    )


def test_one_that_is_killed_twice_does_too(tmp_path: Path, faultless: Any) -> None:
    assert not lived(tmp_path, "the note of a rewind", 1)
    assert not lived(tmp_path, "after a rewind", 1)
    assert not lived(tmp_path, "after a call", 1)
    assert lived(tmp_path)
    assert state(tmp_path) == faultless


@pytest.mark.slow
@pytest.mark.parametrize("place", [f"{when}{kill}" for kill in KILLS for when in ("", "after ")])
def test_killed_anywhere_a_run_loses_and_doubles_nothing(place: str, tmp_path: Path, faultless: Any) -> None:
    """At every visit of every place, until there is none left to die at."""
    visits = 0
    while True:
        folder = tmp_path / str(visits)
        folder.mkdir()
        if lived(folder, place, visits + 1):
            break
        visits += 1
        assert lived(folder)
        letter_in_doubt = faultless != state(folder)
        if letter_in_doubt:  # killed after the letter was sent, before that was noted: it is not sent again
            (doubtful,) = [text for kind, text in state(folder)["messages"] if kind == "ToolMessage"]
            assert "broke off: whether it took effect is unknown" in doubtful
            letters = folder / "letters"
            assert not letters.exists() or letters.read_text() == "ann\n"
            assert place.endswith("a note of the trail")
            continue
        assert_unharmed(folder, faultless)
    assert visits, "the place is one that a run comes by"


# a checkpointer that can't write


class Failing(InMemorySaver):
    """Fails where it should write the checkpoints with these numbers."""

    def __init__(self, *numbers: int, always: bool = False) -> None:
        super().__init__()
        self.numbers, self.always, self.puts = numbers, always, 0

    def put(self, *args: Any, **kwargs: Any) -> Any:
        self.puts += 1
        if self.always or self.puts in self.numbers:
            raise OSError("disk full")
        return super().put(*args, **kwargs)


def test_a_checkpointer_that_never_writes_ends_the_run_as_it_would_without_us() -> None:
    desk = Desk.made()
    with pytest.raises(OSError, match="disk full"):
        planner(desk, checkpointer=Failing(always=True)).invoke(GO, THREAD, durability="sync")
    assert desk.asked == []


@pytest.mark.parametrize("number", range(2, 9))
def test_after_a_write_that_failed_a_run_goes_on_to_the_same_state(number: int) -> None:
    desk = Desk.made()
    graph = planner(desk, checkpointer=Failing(number))
    with pytest.raises(OSError, match="disk full"):
        graph.invoke(GO, THREAD, durability="sync")
    assert told(graph.invoke(None, THREAD, durability="sync")) == RAISED
    assert desk.governor.ledger.balance("x").reserved.calls == 0
    assert len(desk.asked) <= CALLS + 1


@pytest.mark.parametrize("number", range(2, 9))
def test_writes_that_fail_behind_the_run_s_back_do_not_change_where_it_ends(number: int) -> None:
    """LangGraph writes beside the next step, and drops the error of a write while another leaves the run."""
    desk = Desk.made()
    graph = planner(desk, checkpointer=Failing(number))
    try:
        state = graph.invoke(GO, THREAD, durability="async")
    except (OSError, RewindError):
        state = graph.invoke(None, THREAD, durability="async")
    assert told(state) == RAISED
    assert len(desk.asked) <= CALLS + 2


def test_a_checkpoint_that_is_lost_is_told_where_a_run_would_go_back_to_it() -> None:
    class Forgetful(InMemorySaver):
        def get_tuple(self, config: Any) -> Any:
            return None if config["configurable"].get("checkpoint_id") else super().get_tuple(config)

    with pytest.raises(RewindError, match="the checkpoint before 'plan' is gone"):
        planner(Desk.made(), checkpointer=Forgetful()).invoke(GO, THREAD)


# a ledger that is down


class Shaky(BookLedger):
    """A store whose values can't be reached while it is `down`."""

    down = False

    def __init__(self) -> None:
        super().__init__(MemoryStore(), time.time, 900.0)

    def load(self, key: str) -> tuple[bytes, int] | None:
        if self.down:
            raise LedgerUnavailableError("the store is down")
        return super().load(key)


def test_under_a_closed_policy_a_run_stops_that_could_not_be_gone_on_with_and_goes_on_later() -> None:
    ledger = Shaky()
    desk = Desk.made(ledger=ledger)
    graph = planner(desk, checkpointer=InMemorySaver())
    ledger.down = True
    with pytest.raises(LedgerUnavailableError, match="the store is down"):
        graph.invoke(GO, THREAD)
    ledger.down = False
    assert told(graph.invoke(None, THREAD)) == RAISED
    assert desk.asked == ["plan low", "plan low", "solve low", "plan mid", "solve low"]


def test_under_an_open_one_it_goes_on_and_says_so() -> None:
    ledger = Shaky()
    ledger.down = True
    desk = Desk.made(ledger=ledger, fail="open")
    with pytest.warns(TrailWarning, match="is not kept: the store is down"):
        assert told(planner(desk, checkpointer=InMemorySaver()).invoke(GO, THREAD)) == RAISED


# models and verifiers


def broken(*_: Any) -> Any:
    """A verifier with a bug."""
    raise ZeroDivisionError


@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_verifier_that_raises_is_unsure_which_is_no_failure_of_an_earlier_step(fail: str) -> None:
    verify = {"callable": {"function": "tests.governor_langgraph.test_rewind_chaos:broken"}}
    rule = {"match": {"node": "answer"}, "verify": verify, "on_fail": {"backtrack": {"to": "plan"}}}
    desk = Desk.made([rule], fail=fail)
    graph = desk.govern(chain(("plan", desk.node("plan")), ("answer", desk.node("answer"))).compile())
    assert graph.invoke(GO)["answer"] == "answer good low"
    assert desk.asked == ["plan low", "answer low"]
    (whole,) = [one for one in desk.kept.outcomes if one.node == "answer" and not one.parent]
    assert whole.attempts[-1].verdict is not None
    assert whole.attempts[-1].verdict.error.startswith("ZeroDivisionError")


async def test_a_model_that_hangs_is_given_up_and_no_earlier_step_is_blamed() -> None:
    class Hanging(ScriptedBackend):
        async def acall(self, call: Any) -> Any:
            if "answer" in str(call.messages[-1]):
                await asyncio.sleep(call.timeout)
                raise BackendTimeoutError("no answer", model=call.rung.model)
            return self.call(call)

    rule = {"match": {"node": "answer"}, "on_fail": {"backtrack": {"to": "plan"}}}
    desk = Desk.made([rule], backend=Hanging(script({})), deadline=0.3)
    graph = desk.govern(chain(("plan", desk.anode("plan")), ("answer", desk.anode("answer"))).compile())
    with pytest.raises(NoAnswerError, match="answer"):
        await asyncio.wait_for(graph.ainvoke(GO), 10)
    assert desk.asked == ["plan low"]


def test_calls_are_booked_once_whatever_branch_they_lay_on() -> None:
    desk = Desk.made([TO_PLAN], budget={"run": {"usd": 1}, "session": {"usd": 1}}, needs={"plan": "high"})
    graph = planner(desk, checkpointer=InMemorySaver())
    graph.invoke(GO, THREAD)
    (run,) = {(one.metadata or {})["governor_run"] for one in graph.get_state_history(THREAD)}
    booked = [desk.governor.ledger.balance(scope).spent.micros for scope in (f"run:t/{run}", "session:t/one")]
    assert booked == [desk.kept.micros] * 2
    assert Counter(desk.asked) == {"plan low": 1, "plan mid": 1, "plan high": 1, "solve low": 3}


async def test_a_run_that_is_cancelled_after_its_rewind_goes_on_on_the_new_branch() -> None:
    reached = asyncio.Event()

    class Slow(ScriptedBackend):
        async def acall(self, call: Any) -> Any:
            if [one for one in self.calls if one.rung.id == "mid"] and not reached.is_set():
                reached.set()
                await asyncio.sleep(30)
            return self.call(call)

    desk = Desk.made(backend=Slow(script({"plan": "mid"})), budget={"session": {"usd": 1}})
    graph = planner(desk, asynchronous=True, checkpointer=InMemorySaver())
    run = asyncio.create_task(graph.ainvoke(GO, THREAD))
    await asyncio.wait_for(reached.wait(), 10)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert told(await graph.ainvoke(None, THREAD)) == RAISED
    assert desk.asked == ["plan low", "solve low", "plan mid", "solve low"], "the call that was cancelled was not made"
    assert desk.governor.ledger.balance("session:t/one").reserved.calls == 0


def test_many_threads_share_one_graph_and_none_sees_another_s_run() -> None:
    desk = Desk.made()
    for graph in (planner(desk), planner(desk, checkpointer=InMemorySaver())):
        with ThreadPoolExecutor(8) as pool:
            configs: list[Any] = [{"configurable": {"thread_id": str(number)}} for number in range(24)]
            states = list(pool.map(lambda config, graph=graph: graph.invoke(GO, config), configs))
        assert [told(state) for state in states] == [RAISED] * 24
    assert Counter(desk.asked) == {"plan low": 48, "plan mid": 48, "solve low": 96}
