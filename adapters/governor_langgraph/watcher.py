"""Chat models inside a governed node that do not take its rung are found, never left in silence."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import RunnableConfig

from governor.errors import UngovernedModelError

GOVERNED_TYPE = "compute-governor"
"""What chat models of this package are called among LangChain's model types (`_llm_type`)."""

_told: ContextVar[bool] = ContextVar("governor_langgraph.told", default=False)


class UngovernedModelWarning(UserWarning):
    """A chat model inside a governed node went on as if there were no policy, because the policy says `pass`."""


@contextmanager
def told() -> Generator[None, None, None]:
    """While a model is called that was told its rung in its own words."""
    token = _told.set(True)
    try:
        yield
    finally:
        _told.reset(token)


def was_told() -> bool:
    """Whether the model that is being called was told its rung."""
    return _told.get()


class ModelWatcher(BaseCallbackHandler):
    """UngovernedModelError where a model starts that nobody told the rung; under `ungoverned: pass` a warning."""

    raise_error = True
    run_inline = True

    def __init__(self, node: str, ungoverned: str) -> None:
        self.node, self.ungoverned = node, ungoverned

    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        """LangChain calls it before the model is asked."""
        asked: Mapping[str, Any] = kwargs.get("invocation_params") or {}
        if asked.get("_type") != GOVERNED_TYPE and not was_told():
            self._found(str((serialized or {}).get("name") or asked.get("_type") or "a chat model"))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """The same for models that complete texts: none of them takes a rung."""
        self._found(str((serialized or {}).get("name") or "a completion model"))

    def _found(self, model: str) -> None:
        text = f"node '{self.node}' calls {model}, which does not take the node's rung"
        if self.ungoverned == "pass":
            warnings.warn(f"{text}: it is neither limited nor booked", UngovernedModelWarning, stacklevel=2)
            return
        mend = (
            "use GovernedChat in its place, govern the graph with patch=True, or set `ungoverned: pass` in the policy"
        )
        raise UngovernedModelError(f"{text}: {mend}")


def watched(config: RunnableConfig, watcher: ModelWatcher) -> RunnableConfig:
    """The configuration with the watcher among its handlers, for everything below."""
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        heard = callbacks.copy()
        heard.add_handler(watcher, inherit=True)
        return {**config, "callbacks": heard}
    return {**config, "callbacks": [*(callbacks or ()), watcher]}
