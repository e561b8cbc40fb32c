"""LangGraph and LangChain under Governor: governed nodes, chat models, agents, and graphs that go back to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from governor.errors import CheckFailedError, NoAnswerError, UngovernedModelError
    from governor_langgraph.chat import GovernedChat
    from governor_langgraph.graph import GovernedGraph, GovernedStateGraph, govern
    from governor_langgraph.langchain_backend import LangChainBackend
    from governor_langgraph.middleware import GovernorMiddleware
    from governor_langgraph.source import Source
    from governor_langgraph.wrapped import node

__all__ = [
    "CheckFailedError",
    "GovernedChat",
    "GovernedGraph",
    "GovernedStateGraph",
    "GovernorMiddleware",
    "LangChainBackend",
    "NoAnswerError",
    "Source",
    "UngovernedModelError",
    "govern",
    "node",
]

_HOME = {
    "CheckFailedError": "governor.errors",
    "GovernedChat": "governor_langgraph.chat",
    "GovernedGraph": "governor_langgraph.graph",
    "GovernedStateGraph": "governor_langgraph.graph",
    "GovernorMiddleware": "governor_langgraph.middleware",
    "LangChainBackend": "governor_langgraph.langchain_backend",
    "NoAnswerError": "governor.errors",
    "Source": "governor_langgraph.source",
    "UngovernedModelError": "governor.errors",
    "govern": "governor_langgraph.graph",
    "node": "governor_langgraph.wrapped",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first asked for (PEP 562): LangChain's agents alone take seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'governor_langgraph' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
