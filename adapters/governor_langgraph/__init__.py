"""LangGraph and LangChain under Governor: governed nodes, chat models, agents, and graphs that go back to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from governor.errors import CheckFailedError, NoAnswerError, UngovernedModelError
    from governor_langgraph.chat import GovernedChat
    from governor_langgraph.langchain_backend import LangChainBackend
    from governor_langgraph.middleware import GovernorMiddleware
    from governor_langgraph.wrapped import node

__all__ = [
    "CheckFailedError",
    "GovernedChat",
    "GovernorMiddleware",
    "LangChainBackend",
    "NoAnswerError",
    "UngovernedModelError",
    "node",
]

_HOME = {
    "CheckFailedError": "governor.errors",
    "GovernedChat": "governor_langgraph.chat",
    "GovernorMiddleware": "governor_langgraph.middleware",
    "LangChainBackend": "governor_langgraph.langchain_backend",
    "NoAnswerError": "governor.errors",
    "UngovernedModelError": "governor.errors",
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
