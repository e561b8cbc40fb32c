"""Nodes that are governed: a decorator for functions, a wrapper for nodes that are runnables already."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import Runnable
from langchain_core.runnables.config import RunnableConfig, ensure_config
from langgraph.errors import GraphBubbleUp

from governor.arm import arm_of
from governor.errors import CheckFailedError
from governor.facade import Governor
from governor.policy import Policy
from governor_langgraph.attempt import running
from governor_langgraph.blame import Back
from governor_langgraph.held import runtime_of
from governor_langgraph.place import place_of
from governor_langgraph.run import NodeRun, arun_node, begun, run_node
from governor_langgraph.source import Ask, Read, Source
from governor_langgraph.trail import trail_of

N = TypeVar("N", bound="Callable[..., Any] | Runnable[Any, Any]")
"""What LangGraph takes as a node."""


def governor_of(policy: Governor | Policy | str | Path) -> Governor:
    """The governor itself, or one for a policy, a policy file, or a shipped policy by name."""
    if isinstance(policy, Governor):
        return policy
    return Governor(policy) if isinstance(policy, Policy) else Governor.from_policy(policy)


class GoBack(GraphBubbleUp):
    """Leaves a graph so that its driver goes on from an earlier checkpoint. No retry or error handler takes it."""

    def __init__(self, back: Back) -> None:
        self.back = back
        super().__init__(back)


@contextmanager
def overseen(run: NodeRun) -> Generator[None, None, None]:
    """While a node runs in a graph that can go back: GoBack where it failed and the policy blames an earlier step."""
    trail, place = trail_of(run.config), place_of(run.config)
    if trail is None or arm_of(run.step, run.terms) != "governed":
        yield
        return
    try:
        yield
    except CheckFailedError as failed:
        back = trail.back(run.step, place, run.terms)
        if back is not None:
            raise GoBack(back) from failed
        if trail.past.backs:
            failed.add_note(f"the run went back {len(trail.past.backs)} times before")
        raise
    if run.outcome is None:
        return
    back = trail.back(run.step, place, run.terms) if run.failure else None
    if back is not None:
        raise GoBack(back)
    if not place.inner:
        trail.walked(run.done)


def _run(governor: Governor, source: Source, state: Any, config: Any, limit: float | None, body: Any) -> Any:
    if running() is not None:  # a node inside a governed node: its models take that one's rung
        return body(config)
    run = begun(governor, source, state, config, limit)
    with overseen(run):
        return run_node(run, body)


async def _arun(governor: Governor, source: Source, state: Any, config: Any, limit: float | None, body: Any) -> Any:
    if running() is not None:
        return await body(config)
    run = begun(governor, source, state, config, limit)
    with overseen(run):
        return await arun_node(run, body)


def node(
    policy: Governor | Policy | str | Path,
    *,
    ask: Ask | None = None,
    read: Read | None = None,
    seconds: float | None = None,
) -> Callable[[N], N]:
    """Makes a node's function a governed one: `@node("policy.yaml")`, or `node(governor)(function)`.

    `ask` and `read` say what is asked and what is judged where the state does not tell (see Source); `seconds` is the
    time the node may take.
    """
    governor, source = governor_of(policy), Source(ask, read)

    def governed(function: Any) -> Any:
        if isinstance(function, Runnable):
            return GovernedNode(function, governor, source, seconds)
        if _awaitable(function):

            @functools.wraps(function)
            async def awaited(state: Any, *args: Any, **kwargs: Any) -> Any:
                config = ensure_config(kwargs.get("config"))
                body = partial(_called, function, state, args, kwargs)
                return await _arun(governor, source, state, config, seconds, body)

            return awaited

        @functools.wraps(function)
        def blocking(state: Any, *args: Any, **kwargs: Any) -> Any:
            config = ensure_config(kwargs.get("config"))
            return _run(governor, source, state, config, seconds, partial(_called, function, state, args, kwargs))

        return blocking

    return governed


def _awaitable(function: Any) -> bool:
    """Whether calling it gives a coroutine: an async function, a partial of one, or an object with an async call."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - what it is, not whether


def _called(function: Any, state: Any, args: tuple[Any, ...], kwargs: dict[str, Any], config: RunnableConfig) -> Any:
    """Calls a node's function; what it takes of config, runtime and writer is the attempt's."""
    runtime = runtime_of(config)
    given = {"config": config, "runtime": runtime, "writer": getattr(runtime, "stream_writer", None)}
    mine = {name: value for name, value in given.items() if name in kwargs and value is not None}
    return function(state, *args, **{**kwargs, **mine})


class GovernedNode(Runnable[Any, Any]):
    """A node of a graph that someone else built, governed."""

    def __init__(self, inner: Runnable[Any, Any], governor: Governor, source: Source, seconds: float | None) -> None:
        self.inner, self.governor, self.source, self.seconds = inner, governor, source, seconds
        self.name = inner.get_name()

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - its name
        body = lambda quiet: self.inner.invoke(input, quiet, **kwargs)  # noqa: E731
        return _run(self.governor, self.source, input, ensure_config(config), self.seconds, body)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        body = lambda quiet: self.inner.ainvoke(input, quiet, **kwargs)  # noqa: E731
        return await _arun(self.governor, self.source, input, ensure_config(config), self.seconds, body)
