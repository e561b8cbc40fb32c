"""compute-governor decides how much a language model may think.

    Step -> estimate -> Forecast per rung -> plan -> Plan --reserve--> call -> Reply -> verify -> Verdict
      ^                                                                                   |
      |<---------- backtrack: continue, more thinking, higher rung, with feedback --------+--> Outcome

The folders are named after the arrows. Everything heavy (pydantic, numpy, YAML) is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from governor.errors import BudgetExceededError, GovernorError, PolicyError
    from governor.facade import Governor
    from governor.policy import load_policy
    from governor.records import Amount, Attempt, Outcome, Reply, Rung, Step, Usage, Verdict
    from governor_langgraph.wrapped import node as node

__version__ = "0.1.0"

__all__ = [
    "Amount",
    "Attempt",
    "BudgetExceededError",
    "Governor",
    "GovernorError",
    "Outcome",
    "PolicyError",
    "Reply",
    "Rung",
    "Step",
    "Usage",
    "Verdict",
    "load_policy",
]

_HOME = {
    "BudgetExceededError": "governor.errors",
    "Governor": "governor.facade",
    "GovernorError": "governor.errors",
    "PolicyError": "governor.errors",
    "load_policy": "governor.policy",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first asked for (PEP 562), so that `import governor` stays cheap."""
    if name not in __all__ and name != "node":
        raise AttributeError(f"module 'governor' has no attribute '{name}'")
    from importlib import import_module

    value = _node() if name == "node" else getattr(import_module(_HOME.get(name, "governor.records")), name)
    globals()[name] = value
    return value


def _node() -> Any:
    """The decorator for nodes of graphs. It is no part of `__all__`: that must not need an extra."""
    from importlib import import_module

    from governor.errors import MissingExtraError

    try:
        return import_module("governor_langgraph.wrapped").node
    except ModuleNotFoundError as absent:
        if absent.name is not None and absent.name.partition(".")[0] in ("langgraph", "langchain_core"):
            raise MissingExtraError("governor.node", "langgraph") from absent
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "node"])
