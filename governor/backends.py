"""Which backend serves a model: `local/...` and any other installed prefix go to their own, the rest to LiteLLM.

Backends are found through the entry-point group `governor.backends`; the entry's name is the model prefix.
An entry is a callable that takes the policy's `models` mapping and returns a Backend.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from governor.errors import BackendRequestError
from governor.protocols import Backend, Counting, Delta, Foresighted, Stopping
from governor.records import Call, Reply, Rung

if TYPE_CHECKING:
    from governor.policy import Policy

DEFAULT = "litellm"
_GROUP = "governor.backends"


class Backends:
    """A Backend that hands each call to the backend its model name asks for; each is made on first use.

    `models` maps model names to their options (`api_base`, `api_key_env`, ...) as the policy states them.
    """

    def __init__(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        self._models = models
        self._made: dict[str, Backend] = {}
        self._lock = threading.Lock()
        self._closed = False

    def serving(self, model: str) -> Backend:
        """The backend for a model name. Raises BackendRequestError if none is installed for it, or after `close`."""
        with self._lock:
            if self._closed:
                raise BackendRequestError(f"{model}: the backends are closed", model=model, sent=False)
            name = _name_for(model)
            if name not in self._made:
                self._made[name] = self._make(name, model)
            return self._made[name]

    def _make(self, name: str, model: str) -> Backend:
        entry = _installed().get(name)
        if entry is None:
            raise BackendRequestError(
                f"no backend is installed for model '{model}': reinstall compute-governor", model=model, sent=False
            )
        own = {model: options for model, options in self._models.items() if _name_for(model) == name}
        backend: Backend = entry.load()(own)
        return backend

    def call(self, call: Call) -> Reply:
        return self.serving(call.rung.model).call(call)

    async def acall(self, call: Call) -> Reply:
        return await self.serving(call.rung.model).acall(call)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        return self.serving(call.rung.model).stream(call)

    def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        return self.serving(call.rung.model).astream(call)

    def continues(self, rung: Rung) -> bool:
        return self.serving(rung.model).continues(rung)

    def counts(self, rung: Rung) -> bool:
        """Whether the rung's backend counts the tokens of its streams as they run."""
        backend = self.serving(rung.model)
        return isinstance(backend, Counting) and backend.counts(rung)

    def stops(self, rung: Rung) -> bool:
        """Whether the rung's server runs its stop rules itself."""
        backend = self.serving(rung.model)
        return isinstance(backend, Stopping) and backend.stops(rung)

    def ready(self, rung: Rung) -> None:
        """Raise what would keep every call of this rung from being sent, where its backend can tell."""
        backend = self.serving(rung.model)
        if isinstance(backend, Foresighted):
            backend.ready(rung)

    def pressure(self, rung: Rung) -> Callable[[], float] | None:
        """What asks how busy the rung's engine is; None where its backend can't tell."""
        # Asked at every step: a test against the protocol would take longer than the answer.
        tell: Callable[[Rung], Callable[[], float] | None] | None = getattr(self.serving(rung.model), "pressure", None)
        return None if tell is None else tell(rung)

    def close(self) -> None:
        """Close every backend that was made; later calls raise BackendRequestError."""
        with self._lock:
            self._closed = True
            while self._made:
                self._made.popitem()[1].close()


def model_options(policy: Policy) -> Mapping[str, Mapping[str, Any]]:
    """What a policy says of how its models are reached, for `Backends`."""
    asked = ("api_base", "api_key_env", "wire", "engine")
    dumped = {name: model.model_dump(include=set(asked), exclude_none=True) for name, model in policy.models.items()}
    return {name: options for name, options in dumped.items() if options}


def _name_for(model: str) -> str:
    prefix = model.partition("/")[0]
    return prefix if prefix in _installed() else DEFAULT


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """Read once: looking through all installed packages takes milliseconds, and each step asks."""
    return {entry.name: entry for entry in entry_points(group=_GROUP)}
