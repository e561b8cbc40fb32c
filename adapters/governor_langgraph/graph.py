"""Graphs that are governed, and that go back to the step that is to blame when a later one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, Final

from langchain_core.runnables import Runnable
from langchain_core.runnables.config import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from governor.errors import RewindError
from governor.facade import Governor
from governor.policy import Policy
from governor.telemetry.spans import rewind_name, run_name
from governor_langgraph.blame import Back
from governor_langgraph.patch import patch as patched
from governor_langgraph.source import Source
from governor_langgraph.stretch import Stretch, aread_head, begun, goes_on, read_head, saver_of, undriven
from governor_langgraph.trail import rewinds
from governor_langgraph.wrapped import GoBack, GovernedNode, governor_of

_NO_SOURCES: Mapping[str, Source] = {}
_END: Final = object()


class GovernedGraph(Runnable[Any, Any]):
    """A compiled graph whose nodes are governed; used like it, and everything else asked of it goes to it.

    Where a node's verifier rejects its result for good, or a node raises CheckFailedError, the policy's `on_fail` says
    which step is redone, on a higher rung: the run goes on from the checkpoint before that step, on a new branch.
    Without a checkpointer the run keeps checkpoints in memory until it ends. RewindError where it can't go back.
    """

    def __init__(self, graph: CompiledStateGraph[Any, Any, Any, Any], governor: Governor) -> None:
        self.graph, self.governor, self.name = graph, governor, graph.get_name()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "graph":
            raise AttributeError(name)
        return getattr(self.graph, name)

    def copy(self, update: dict[str, Any] | None = None) -> GovernedGraph:
        """The same with some attributes of the compiled graph replaced."""
        return GovernedGraph(self.graph.copy(update), self.governor)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - its name
        if undriven(self.graph, self.governor, input, config):
            return self.graph.invoke(input, config, **kwargs)
        turn, kwargs = self._begun(input, config), self._checked(kwargs)
        with self._traced(turn):
            while True:
                result = None
                with suppress(GoBack):
                    result = turn.graph.invoke(turn.input, turn.config, **kwargs)
                back = turn.trail.wanted()
                if back is None:
                    return result
                turn = self._back(turn, back)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        if undriven(self.graph, self.governor, input, config):
            return await self.graph.ainvoke(input, config, **kwargs)
        turn, kwargs = await self._abegun(input, config), self._checked(kwargs)
        with self._traced(turn):
            while True:
                result = None
                with suppress(GoBack):
                    result = await turn.graph.ainvoke(turn.input, turn.config, **kwargs)
                back = turn.trail.wanted()
                if back is None:
                    return result
                turn = await self._aback(turn, back)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Chunks as the graph's own `stream` gives them. What was passed on before a rewind can't be taken back."""
        if undriven(self.graph, self.governor, input, config):
            yield from self.graph.stream(input, config, **kwargs)
            return
        context, chunks = copy_context(), self._chunks(self._begun(input, config), self._checked(kwargs))
        try:
            while (chunk := context.run(next, chunks, _END)) is not _END:
                yield chunk
        finally:
            context.run(chunks.close)

    def _chunks(self, turn: Stretch, kwargs: dict[str, Any]) -> Generator[Any, None, None]:
        with self._traced(turn):
            back: Back | None = None
            while True:
                turn = self._back(turn, back) if back else turn
                with suppress(GoBack):
                    yield from turn.graph.stream(turn.input, turn.config, **kwargs)
                back = turn.trail.wanted()
                if back is None:
                    return

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """The same for `async for`."""
        if undriven(self.graph, self.governor, input, config):
            async for chunk in self.graph.astream(input, config, **kwargs):
                yield chunk
            return
        context, chunks = copy_context(), self._achunks(await self._abegun(input, config), self._checked(kwargs))
        try:
            while (chunk := await asyncio.create_task(_next(chunks), context=context)) is not _END:
                yield chunk
        finally:
            await asyncio.create_task(_closed(chunks), context=context)

    async def _achunks(self, turn: Stretch, kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        with self._traced(turn):
            back: Back | None = None
            while True:
                turn = await self._aback(turn, back) if back else turn
                with suppress(GoBack):
                    async for chunk in turn.graph.astream(turn.input, turn.config, **kwargs):
                        yield chunk
                back = turn.trail.wanted()
                if back is None:
                    return

    # What every Runnable has, and would answer without knowing of nodes and channels:

    def get_graph(self, *args: Any, **kwargs: Any) -> Any:
        return self.graph.get_graph(*args, **kwargs)

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        return self.graph.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        return self.graph.get_output_schema(config)

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        return self.graph.get_input_jsonschema(config)

    def get_output_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        return self.graph.get_output_jsonschema(config)

    def _begun(self, input: Any, config: RunnableConfig | None) -> Stretch:  # noqa: A002
        head = read_head(self.graph, config) if goes_on(input) else None
        return begun(self.graph, self.governor, input, config, head)

    async def _abegun(self, input: Any, config: RunnableConfig | None) -> Stretch:  # noqa: A002
        head = await aread_head(self.graph, config) if goes_on(input) else None
        return begun(self.graph, self.governor, input, config, head)

    def _checked(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments for LangGraph. RewindError for those under which no checkpoint is there to go back to."""
        if not rewinds(self.governor.policy):
            return kwargs
        if saver_of(self.graph) is None:
            return {name: value for name, value in kwargs.items() if name not in ("durability", "checkpoint_during")}
        if kwargs.get("durability") == "exit" or kwargs.get("checkpoint_during") is False:
            raise RewindError(
                "durability 'exit' keeps no checkpoint to go back to, as on_fail asks: use 'async' or 'sync'"
            )
        return kwargs

    def _back(self, turn: Stretch, back: Back) -> Stretch:
        return self._told(turn.after(back, turn.saver.get_tuple(turn.at(back))), back)

    async def _aback(self, turn: Stretch, back: Back) -> Stretch:
        return self._told(turn.after(back, await turn.saver.aget_tuple(turn.at(back))), back)

    def _told(self, turn: Stretch, back: Back) -> Stretch:
        tracer = self.governor.tracer
        tracer.enter(rewind_name(back.node), {"governor.node": back.node, "governor.rewind.by": back.by})
        tracer.exit({"governor.rewind.rung": back.rung}, "")
        return turn

    @contextmanager
    def _traced(self, turn: Stretch) -> Generator[None, None, None]:
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
