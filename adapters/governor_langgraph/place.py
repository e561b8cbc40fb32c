"""Where in a graph a call stands: which node of which run of which thread, read from LangChain's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RUN_KEY = "governor_run"
"""Under `configurable`: the name of one run of a graph, the same after each rewind."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a graph in one of its runs. Outside of a graph the node is "default" and the rest empty."""

    node: str = "default"
    session: str = ""
    run: str = ""
    tenant: str = ""
    index: int = 0
    checkpoint: str = ""
    """Id of the checkpoint before it; inside a subgraph of that before the outermost graph's step. Later ones are
    greater."""
    task: str = ""
    """Names this one task, the tasks around it first; the same when it runs again from the same checkpoint."""

    @property
    def inner(self) -> bool:
        """Whether it lies inside a subgraph."""
        return "|" in self.task


def place_of(config: Mapping[str, Any]) -> Place:
    """The place that a configuration tells: thread, run and tenant from `configurable`, the rest from metadata."""
    metadata: Mapping[str, Any] = config.get("metadata") or {}
    chosen: Mapping[str, Any] = config.get("configurable") or {}
    return Place(
        node=str(metadata.get("langgraph_node") or "default"),
        session=str(chosen.get("thread_id") or ""),
        run=str(chosen.get(RUN_KEY) or config.get("run_id") or ""),
        tenant=str(chosen.get("tenant") or ""),
        index=int(metadata.get("langgraph_step") or 0),
        checkpoint=str((chosen.get("checkpoint_map") or {}).get("") or ""),
        task=str(metadata.get("langgraph_checkpoint_ns") or ""),
    )
