"""Graphs that are governed, and that go back to the step that is to blame when a later one fails."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from langchain_core.runnables import Runnable
from langchain_core.runnables.config import RunnableConfig, ensure_config
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from governor.facade import Governor
from governor.policy import Policy
from governor.telemetry.spans import rewind_name, run_name
from governor_langgraph.blame import Back
from governor_langgraph.patch import patch as patched
from governor_langgraph.place import RUN_KEY
from governor_langgraph.source import Source
from governor_langgraph.trail import TRAIL_KEY, Trail
from governor_langgraph.wrapped import GoBack, GovernedNode, governor_of

BRANCH_KEY = "governor_branch"
"""Under `configurable`, and so in the metadata of each checkpoint: the branch it lies on; absent on the first."""

_NO_SOURCES: Mapping[str, Source] = {}
_END: Final = object()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One stretch of a run: from its beginning, or from a rewind, to its end or to the next rewind."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    input: Any
    config: RunnableConfig
    trail: Trail

    def after(self, back: Back) -> _Turn:
        """The stretch that begins at a checkpoint: the graph's state is what it was there."""
        branch = f"{len(self.trail.past.backs)}: {back.branch}"
        place = {"checkpoint_ns": "", "checkpoint_id": back.checkpoint, BRANCH_KEY: branch}
        chosen = {**self.config.get("configurable", {}), **place}
        return replace(self, input=None, config={**self.config, "configurable": chosen})


class GovernedGraph(Runnable[Any, Any]):
    """A compiled graph whose nodes are governed; used like it, and everything else asked of it goes to it.

    Where a node's verifier rejects its result for good, or a node raises CheckFailedError, the policy's `on_fail` says
    which step is redone, on a higher rung: the run goes on from the checkpoint before that step, on a new branch.
    Without a checkpointer the run keeps checkpoints in memory until it ends.
    """

    def __init__(self, graph: CompiledStateGraph[Any, Any, Any, Any], governor: Governor) -> None:
        self.graph, self.governor, self.name = graph, governor, graph.get_name()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.graph, name)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - its name
        turn = self._begun(input, config)
        with self._traced(turn):
            while True:
                try:
                    return turn.graph.invoke(turn.input, turn.config, **kwargs)
                except GoBack as go:
                    turn = self._back(turn, go.back)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        turn = self._begun(input, config)
        with self._traced(turn):
            while True:
                try:
                    return await turn.graph.ainvoke(turn.input, turn.config, **kwargs)
                except GoBack as go:
                    turn = self._back(turn, go.back)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Chunks as the graph's own `stream` gives them. What was passed on before a rewind can't be taken back."""
        context, chunks = copy_context(), self._chunks(self._begun(input, config), kwargs)
        try:
            while (chunk := context.run(next, chunks, _END)) is not _END:
                yield chunk
        finally:
            context.run(chunks.close)

    def _chunks(self, turn: _Turn, kwargs: dict[str, Any]) -> Generator[Any, None, None]:
        with self._traced(turn):
            while True:
                try:
                    yield from turn.graph.stream(turn.input, turn.config, **kwargs)
                    return
                except GoBack as go:
                    turn = self._back(turn, go.back)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """The same for `async for`."""
        context, chunks = copy_context(), self._achunks(self._begun(input, config), kwargs)
        try:
            while True:
                chunk = await asyncio.create_task(_next(chunks), context=context)
                if chunk is _END:
                    break
                yield chunk
        finally:
            await asyncio.create_task(_closed(chunks), context=context)

    async def _achunks(self, turn: _Turn, kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        with self._traced(turn):
            while True:
                try:
                    async for chunk in turn.graph.astream(turn.input, turn.config, **kwargs):
                        yield chunk
                    return
                except GoBack as go:
                    turn = self._back(turn, go.back)

    def _begun(self, input: Any, config: RunnableConfig | None) -> _Turn:  # noqa: A002
        config = ensure_config(config)
        graph, chosen = self.graph, dict(config.get("configurable") or {})
        if not graph.checkpointer:
            graph = graph.copy({"checkpointer": InMemorySaver()})
        run = uuid.uuid4().hex
        thread = str(chosen.setdefault("thread_id", run))
        goes_on = input is None or isinstance(input, Command)
        trail = (Trail.resumed if goes_on else Trail.begun)(self.governor, thread, run)
        chosen |= {RUN_KEY: trail.past.run, TRAIL_KEY: trail}
        return _Turn(graph, input, {**config, "configurable": chosen}, trail)

    def _back(self, turn: _Turn, back: Back) -> _Turn:
        tracer = self.governor.tracer
        tracer.enter(rewind_name(back.node), {"governor.node": back.node, "governor.rewind.by": back.by})
        tracer.exit({"governor.rewind.rung": back.rung}, "")
        return turn.after(back)

    @contextmanager
    def _traced(self, turn: _Turn) -> Generator[None, None, None]:
        """One span for the whole run: what its nodes do, in whatever thread, lies below."""
        tracer, error = self.governor.tracer, ""
        tracer.enter(run_name(self.governor.policy.app), {"governor.run": turn.trail.past.run})
        try:
            yield
        except BaseException as cause:
            error = type(cause).__name__
            raise
        finally:
            tracer.exit({"governor.rewinds": len(turn.trail.past.backs)}, error)


async def _next(chunks: AsyncGenerator[Any, None]) -> Any:
    return await anext(chunks, _END)


async def _closed(chunks: AsyncGenerator[Any, None]) -> None:
    await chunks.aclose()


def govern(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    policy: Governor | Policy | str | Path,
    *,
    sources: Mapping[str, Source] = _NO_SOURCES,
    patch: bool = False,
) -> GovernedGraph:
    """Governs every node of a graph that someone else built; the graph itself stays as it is.

    `sources` says, by node, what is asked and judged where the state does not tell. `patch` lets chat models that know
    nothing of Governor take the rungs of its nodes (see governor_langgraph.patch).
    """
    if patch:
        patched()
    governor = governor_of(policy)
    nodes = {
        name: one.copy({"bound": GovernedNode(one.bound, governor, sources.get(name, Source()), _seconds(graph, one))})
        if name != START
        else one
        for name, one in graph.nodes.items()
    }
    return GovernedGraph(graph.copy({"nodes": nodes}), governor)


def _seconds(graph: CompiledStateGraph[Any, Any, Any, Any], node: Any) -> float | None:
    """The time that the graph itself grants a node."""
    timeout = getattr(node, "timeout", None)
    timeout = getattr(timeout, "run_timeout", timeout)
    seconds = getattr(timeout, "total_seconds", lambda: timeout)()
    return min((one for one in (seconds, graph.step_timeout) if one is not None), default=None)


class GovernedStateGraph(StateGraph[Any, Any, Any, Any]):
    """A StateGraph whose nodes are governed by a policy; `compile` gives a GovernedGraph."""

    def __init__(self, state_schema: Any, *, policy: Governor | Policy | str | Path, **kwargs: Any) -> None:
        super().__init__(state_schema, **kwargs)
        self.governor = governor_of(policy)

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """The compiled graph, governed."""
        return govern(super().compile(*args, **kwargs), self.governor)
