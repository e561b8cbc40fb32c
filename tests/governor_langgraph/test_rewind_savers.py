"""Rewinds on every checkpointer that LangGraph brings: in memory, SQLite and PostgreSQL, blocking and awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from governor.errors import CheckFailedError
from governor_langgraph.graph import GovernedGraph
from tests.governor_langgraph.rewinding import Desk, State, chain, check
from tests.postgres_servers import PostgresServer, server_folder

THREAD: Any = {"configurable": {"thread_id": "one"}}
GO: State = {"log": []}
NAMES = ["", "1: plan on rung 1, blamed by check"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    pytest.importorskip("langgraph.checkpoint.postgres", reason="needs langgraph-checkpoint-postgres")
    programs = server_folder()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    server = PostgresServer(programs)
    yield server
    server.stop()


def address(server: PostgresServer) -> str:
    return f"postgresql://governor@127.0.0.1:{server.port}/postgres"


@contextmanager
def saver_of(
    kind: str, folder: Path, request: pytest.FixtureRequest
) -> Generator[BaseCheckpointSaver[Any], None, None]:
    if kind == "memory":
        yield InMemorySaver()
        return
    if kind == "sqlite":
        from langgraph.checkpoint.sqlite import SqliteSaver

        with SqliteSaver.from_conn_string(str(folder / "graph.db")) as lite:
            yield lite
        return
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(address(request.getfixturevalue("postgres"))) as saver:
        saver.setup()
        saver.delete_thread("one")
        yield saver


@asynccontextmanager
async def asaver_of(
    kind: str, folder: Path, request: pytest.FixtureRequest
) -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
    if kind == "memory":
        yield InMemorySaver()
        return
    if kind == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(folder / "graph.db")) as lite:
            yield lite
        return
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    async with AsyncPostgresSaver.from_conn_string(address(request.getfixturevalue("postgres"))) as saver:
        await saver.setup()
        await saver.adelete_thread("one")
        yield saver


def approve(state: Any) -> State:
    return {"log": [f"approved: {interrupt(state['plan'])}"]}


def build(desk: Desk, saver: Any, *, asynchronous: bool = False) -> GovernedGraph:
    """A subgraph that plans, a check that blames it, and a human after both."""
    make = desk.anode if asynchronous else desk.node
    inner = chain(("think", make("think")), ("plan", make("plan"))).compile()
    graph = chain(("plan", inner), ("check", check), ("approve", approve))
    return desk.govern(graph.compile(checkpointer=saver))


LOG = ["think: think good mid", "plan: plan good mid", "check: fine", "approved: yes"]
ASKED = ["think low", "plan low", "think mid", "plan mid"]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_a_run_goes_back_and_is_resumed_on_its_new_branch(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with saver_of(kind, tmp_path, request) as saver:
        desk = Desk.made()
        graph = build(desk, saver)
        assert graph.invoke(GO, THREAD)["__interrupt__"][0].value == "plan good mid"
        assert graph.invoke(Command(resume="yes"), THREAD)["log"] == LOG
        assert desk.asked == ASKED
        history = list(graph.get_state_history(THREAD))
        names = [str((one.metadata or {}).get("governor_branch", "")) for one in reversed(history)]
        assert list(dict.fromkeys(names)) == NAMES
        assert len({(one.metadata or {})["governor_run"] for one in history}) == 1
        assert [one for one in history if one.values.get("plan") == "plan bad low"], "the failed branch is still told"


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_awaited_it_does_the_same(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    async with asaver_of(kind, tmp_path, request) as saver:
        desk = Desk.made()
        graph = build(desk, saver, asynchronous=True)
        assert (await graph.ainvoke(GO, THREAD))["__interrupt__"][0].value == "plan good mid"
        *_, last = [state async for state in graph.astream(Command(resume="yes"), THREAD, stream_mode="values")]
        assert last["log"] == LOG
        assert desk.asked == ASKED
        history = [one async for one in graph.aget_state_history(THREAD)]
        names = [str((one.metadata or {}).get("governor_branch", "")) for one in reversed(history)]
        assert list(dict.fromkeys(names)) == NAMES


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_rewinds_are_used_up_over_resumptions(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rule = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan", "max": 1}}}
    with saver_of(kind, tmp_path, request) as saver:
        desk = Desk.made([rule], needs={"plan": "high"})
        graph = desk.govern(chain(("plan", desk.node("plan")), ("check", check)).compile(checkpointer=saver))
        for _ in range(2):
            with pytest.raises(CheckFailedError, match="plan bad mid") as failed:
                graph.invoke(GO if not desk.asked else None, THREAD)
            assert failed.value.__notes__[0] == "the run went back 1 times before"
        assert desk.asked == ["plan low", "plan mid"]
