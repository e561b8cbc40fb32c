"""What an attempt of a node shows while it runs is held until its result is accepted; of a rejected one nothing is.

A node's tokens, events, custom writes and the streams of graphs inside it leave it by three ways: LangChain's streaming
handlers, the runtime's `stream_writer`, and the stream of the graph around it. Each is replaced for the attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables.config import RunnableConfig

Show: TypeAlias = Callable[[Any], None]

_RUNTIME = "__pregel_runtime"
_STREAM = "__pregel_stream"
"""LangGraph's keys under `configurable`, private there: where they are absent, nothing is replaced."""


@dataclass(slots=True)
class Held:
    """Pieces in the order in which they came, each with who would have shown it. Mutable; safe for threads.

    What the node itself writes before it has asked any model (`asked`) owes nothing to an answer: it is not held.
    """

    asked: Callable[[], bool]
    pieces: list[tuple[Show, Any]] = field(default_factory=list)

    def keep(self, show: Show, piece: Any) -> None:
        """Holds a piece."""
        self.pieces.append((show, piece))

    def pass_on(self, show: Show, piece: Any) -> None:
        """Holds a piece, or shows it at once as long as no model was asked."""
        if self.asked() or self.pieces:
            self.keep(show, piece)
        else:
            show(piece)

    def release(self) -> None:
        """Shows all that was held, once."""
        pieces, self.pieces = self.pieces, []
        for show, piece in pieces:
            show(piece)

    def configured(self, config: RunnableConfig) -> RunnableConfig:
        """The configuration with everything that shows replaced by what holds."""
        chosen = dict(config.get("configurable") or {})
        runtime, stream = runtime_of(config), chosen.get(_STREAM)
        if runtime is not None:
            chosen[_RUNTIME] = runtime.override(stream_writer=partial(self.pass_on, runtime.stream_writer))
        if stream is not None:
            chosen[_STREAM] = _Stream(self, stream)
        return {**config, "configurable": chosen, "callbacks": self._callbacks(config)}

    def _callbacks(self, config: RunnableConfig) -> Any:
        callbacks = config.get("callbacks")
        if not isinstance(callbacks, BaseCallbackManager):
            return self._handlers(callbacks or [])
        heard = callbacks.copy()
        heard.handlers = self._handlers(heard.handlers)
        heard.inheritable_handlers = self._handlers(heard.inheritable_handlers)
        return heard

    def _handlers(self, handlers: list[Any]) -> list[Any]:
        found = [self._handler(one) if _streams(one) else one for one in handlers]
        return [one for one in found if one is not None]

    def _handler(self, handler: Any) -> Any:
        """A streaming handler whose output is held; None for one of an unknown kind, which hears nothing then."""
        if callable(getattr(handler, "stream", None)):
            return _with(handler, stream=partial(self.keep, handler.stream))
        if hasattr(shown := getattr(handler, "send_stream", None), "send_nowait"):
            return _with(handler, send_stream=_Sends(self, shown))
        return None


def _with(handler: Any, **parts: Any) -> Any:
    """A handler with other parts, which shares all else with the first. Its class may say that its copy is itself."""
    made = object.__new__(type(handler))
    vars(made).update({**vars(handler), **parts})
    return made


class _Stream:
    """Stands in for a graph's stream, which the graphs inside of a node write to as well."""

    def __init__(self, held: Held, stream: Any) -> None:
        self._held, self._stream, self.modes = held, stream, stream.modes

    def __call__(self, piece: Any) -> None:
        self._held.pass_on(self._stream, piece)


class _Sends:
    """Stands in for the sending end of LangChain's event stream."""

    def __init__(self, held: Held, stream: Any) -> None:
        self._held, self._stream = held, stream

    def send_nowait(self, piece: Any) -> None:
        self._held.keep(self._stream.send_nowait, piece)


def runtime_of(config: RunnableConfig) -> Any:
    """LangGraph's runtime of a configuration; None outside of a graph."""
    return (config.get("configurable") or {}).get(_RUNTIME)


def _streams(handler: object) -> bool:
    """Whether a handler shows what comes as it comes. LangChain marks these by a private base class."""
    return any("StreamingCallbackHandler" in one.__name__ for one in type(handler).__mro__)
