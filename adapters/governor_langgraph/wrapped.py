"""Nodes that are governed: a decorator for functions, a wrapper for nodes that are runnables already."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import Runnable
from langchain_core.runnables.config import RunnableConfig, ensure_config

from governor.facade import Governor
from governor.policy import Policy
from governor_langgraph.node import arun_node, begun, run_node
from governor_langgraph.source import Ask, Read, Source

F = TypeVar("F", bound=Callable[..., Any])


def governor_of(policy: Governor | Policy | str | Path) -> Governor:
    """The governor itself, or one for a policy, a policy file, or a shipped policy by name."""
    if isinstance(policy, Governor):
        return policy
    return Governor(policy) if isinstance(policy, Policy) else Governor.from_policy(policy)


def node(
    policy: Governor | Policy | str | Path,
    *,
    ask: Ask | None = None,
    read: Read | None = None,
    seconds: float | None = None,
) -> Callable[[F], F]:
    """Makes a node's function a governed one: `@node("policy.yaml")`, or `node(governor)(function)`.

    `ask` and `read` say what is asked and what is judged where the state does not tell (see Source); `seconds` is the
    time the node may take.
    """
    governor, source = governor_of(policy), Source(ask, read)

    def governed(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(state: Any, *args: Any, **kwargs: Any) -> Any:
                run = begun(governor, source, state, ensure_config(kwargs.get("config")), seconds)
                return await arun_node(run, lambda config: function(state, *args, **_with(kwargs, config)))

            return awaited  # type: ignore[return-value]

        @functools.wraps(function)
        def blocking(state: Any, *args: Any, **kwargs: Any) -> Any:
            run = begun(governor, source, state, ensure_config(kwargs.get("config")), seconds)
            return run_node(run, lambda config: function(state, *args, **_with(kwargs, config)))

        return blocking  # type: ignore[return-value]

    return governed


def _with(kwargs: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
    return {**kwargs, "config": config} if "config" in kwargs else kwargs


class GovernedNode(Runnable[Any, Any]):
    """A node of a graph that someone else built, governed."""

    def __init__(self, inner: Runnable[Any, Any], governor: Governor, source: Source, seconds: float | None) -> None:
        self.inner, self.governor, self.source, self.seconds = inner, governor, source, seconds
        self.name = inner.get_name()

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - its name
        run = begun(self.governor, self.source, input, ensure_config(config), self.seconds)
        return run_node(run, lambda quiet: self.inner.invoke(input, quiet, **kwargs))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        run = begun(self.governor, self.source, input, ensure_config(config), self.seconds)
        return await arun_node(run, lambda quiet: self.inner.ainvoke(input, quiet, **kwargs))
