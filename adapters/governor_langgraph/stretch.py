"""The stretches of a governed run, each one run of LangGraph: from its start, from where it is resumed or went back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables.config import RunnableConfig, ensure_config
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from governor.errors import RewindError
from governor.facade import Governor
from governor_langgraph.blame import Back
from governor_langgraph.past import Past
from governor_langgraph.place import RUN_KEY, place_of
from governor_langgraph.trail import TRAIL_KEY, Trail, rewinds, trail_of

BRANCH_KEY = "governor_branch"
"""Under `configurable`, and so in the metadata of each checkpoint: the branch it lies on; absent on the first."""


@dataclass(frozen=True, slots=True)
class Head:
    """The checkpoint that a run goes on from, or the one that `update_state` made that of.

    `latest` if the thread has no later one, `edited` if someone updated the state.
    """

    checkpoint: str
    run: str
    branch: str
    latest: bool
    edited: bool

    @classmethod
    def of(cls, base: CheckpointTuple | None, found: CheckpointTuple, latest: CheckpointTuple) -> Head:
        """What a saver told: `base` is where a run wrote last, before someone edited it."""
        base = base or found
        known: Mapping[str, Any] = base.metadata
        here = found.checkpoint["id"]
        run, branch = str(known.get(RUN_KEY) or ""), str(known.get(BRANCH_KEY) or "")
        return cls(base.checkpoint["id"], run, branch, here == latest.checkpoint["id"], base is not found)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch of a run."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    input: Any
    config: RunnableConfig
    trail: Trail

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        """Where the graph's checkpoints are; asked for only where a run goes back, which none does without."""
        saver = saver_of(self.graph)
        assert saver is not None, "a run goes back to a checkpoint"
        return saver

    def at(self, back: Back) -> RunnableConfig:
        """The place that a rewind leads to, and the branch that begins there."""
        chosen = self.config.get("configurable", {})
        place = {"checkpoint_ns": "", "checkpoint_id": back.checkpoint, BRANCH_KEY: self.trail.past.branch}
        return {**self.config, "configurable": {**chosen, **place}}

    def after(self, back: Back, kept: CheckpointTuple | None) -> Stretch:
        """The stretch that begins there: the graph's state is what it was. RewindError where it is not `kept`."""
        if kept is None:
            raise RewindError(
                f"node '{back.by}' failed, but the checkpoint before '{back.node}' is gone: the checkpointer lost or "
                "never wrote it; run with one that keeps its history"
            )
        self.trail.went(back)
        return self.again(back)

    def again(self, back: Back) -> Stretch:
        """The same where the trail knows of it already."""
        return replace(self, graph=_uncached(self.graph, back.node), input=None, config=self.at(back))


def read_head(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig | None) -> Head | None:
    """The checkpoint that a call goes on from; None where there is none."""
    saver, (wanted, last) = saver_of(graph), _addresses(graph, config)
    latest = saver.get_tuple(last) if saver else None
    found = latest if saver is None or wanted is None else saver.get_tuple(wanted)
    if saver is None or latest is None or found is None:
        return None
    base: CheckpointTuple | None = found
    while base is not None and (before := _edited(base)):
        base = saver.get_tuple(before)
    return Head.of(base, found, latest)


async def aread_head(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig | None) -> Head | None:
    """The same, awaiting."""
    saver, (wanted, last) = saver_of(graph), _addresses(graph, config)
    latest = await saver.aget_tuple(last) if saver else None
    found = latest if saver is None or wanted is None else await saver.aget_tuple(wanted)
    if saver is None or latest is None or found is None:
        return None
    base: CheckpointTuple | None = found
    while base is not None and (before := _edited(base)):
        base = await saver.aget_tuple(before)
    return Head.of(base, found, latest)


def _edited(one: CheckpointTuple) -> RunnableConfig | None:
    """What a checkpoint of `update_state` was made of; None for those of runs."""
    return one.parent_config if one.metadata.get("source") == "update" else None


def _addresses(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig | None
) -> tuple[RunnableConfig | None, RunnableConfig]:
    """The checkpoint that a call names, if it names one, and the thread's latest."""
    chosen = chosen_of(graph, config)
    last = {"thread_id": str(chosen.get("thread_id")), "checkpoint_ns": chosen.get("checkpoint_ns", "")}
    named = chosen.get("checkpoint_id")
    return ({"configurable": {**last, "checkpoint_id": named}} if named else None), {"configurable": last}


def goes_on(input: Any) -> bool:  # noqa: A002 - LangChain's name
    """Whether a call goes on with what its thread did last, in place of beginning anew."""
    return input is None or isinstance(input, Command)


def saver_of(graph: CompiledStateGraph[Any, Any, Any, Any]) -> BaseCheckpointSaver[Any] | None:
    """The checkpointer of a graph; None where it has none of its own."""
    return graph.checkpointer if isinstance(graph.checkpointer, BaseCheckpointSaver) else None


def chosen_of(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig | None) -> dict[str, Any]:
    """What is configured, of the graph and of the call."""
    bound: Mapping[str, Any] = graph.config or {}
    return {**(bound.get("configurable") or {}), **((config or {}).get("configurable") or {})}


def undriven(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    governor: Governor,
    input: Any,  # noqa: A002
    config: RunnableConfig | None,
) -> bool:
    """Whether LangGraph alone runs a call: as a part of another graph, or because it refuses it anyway.

    RewindError for a part of a graph that is not governed, where nobody could go back.
    """
    outer = ensure_config(config)
    if place_of(outer).task:
        if rewinds(governor.policy) and trail_of(outer) is None:
            raise RewindError(
                f"the governed graph '{graph.get_name()}' is a node of a graph that can't go back: govern the outer "
                "graph, or use a policy without on_fail here"
            )
        return True
    if not graph.checkpointer:
        return goes_on(input)  # there is nothing to go on with
    return saver_of(graph) is None or "thread_id" not in chosen_of(graph, config)


def begun(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    governor: Governor,
    input: Any,  # noqa: A002
    config: RunnableConfig | None,
    head: Head | None,
) -> Stretch:
    """The first stretch of a call; `head` is what it goes on from, None where it begins anew."""
    saver = saver_of(graph)
    if saver is None and rewinds(governor.policy):
        # What may not be written to a database may yet be in a state: of these pickles are kept, for this run alone.
        graph = graph.copy({"checkpointer": InMemorySaver(serde=JsonPlusSerializer(pickle_fallback=True))})
    run = (head.run if head else "") or uuid.uuid4().hex
    chosen = chosen_of(graph, config)
    thread = str(chosen.get("thread_id") or run)
    resumed = head is not None and bool(head.run)
    trail = Trail.kept(governor, thread, run) if resumed else Trail(governor, thread, Past(run), saver is not None)
    own = {**((config or {}).get("configurable") or {}), RUN_KEY: run, TRAIL_KEY: trail, "thread_id": thread}
    turn = Stretch(graph, input, {**(config or {}), "configurable": own}, trail)
    return turn if head is None else _resumed(turn, head)


def _resumed(turn: Stretch, head: Head) -> Stretch:
    """Where a run goes on: on its last branch, which it may have died before it was begun."""
    trail = turn.trail
    if not head.latest:
        trail.change(lambda past: past.before(head.checkpoint))
    elif not head.edited and _number(head.branch) < len(trail.past.backs):
        back = trail.past.backs[-1]
        trail.change(lambda past: past.before(back.checkpoint))
        return turn.again(back)
    else:
        trail.change(lambda past: past.resumed(head.checkpoint))
    if not head.branch:
        return turn
    return replace(
        turn, config={**turn.config, "configurable": {**turn.config.get("configurable", {}), BRANCH_KEY: head.branch}}
    )


def _number(branch: str) -> int:
    return int(branch.partition(":")[0] or 0)


def _uncached(graph: CompiledStateGraph[Any, Any, Any, Any], name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph with a node that is redone for the same state, and so must not find its old result in a cache."""
    node = graph.nodes[name]
    if node.cache_policy is None:
        return graph
    return graph.copy({"nodes": {**graph.nodes, name: node.copy({"cache_policy": None})}})
