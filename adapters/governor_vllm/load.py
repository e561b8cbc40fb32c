"""How busy an engine is, 0 idle to 1 full, and what of it an application feels by its priority."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from governor.errors import BackendError, MissingExtraError
from governor_vllm.link import Link

EVERY = 1.0
"""Seconds between two looks: steps that come closer together share one."""

STALE = 10.0
"""Seconds after which an answer is forgotten where no newer one comes; then the engine counts as idle."""

LEAST, MOST = -9, 9
"""Priorities that differ in what they feel; others count as the nearest of these."""

_PATIENCE = 0.5  # seconds: a price is not worth a longer wait
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
_SAMPLE = re.compile(r"^vllm:(?P<gauge>\w+)(?:\{(?P<labels>[^}]*)\})?\s+(?P<value>\S+)", re.MULTILINE)
_NAME = re.compile(r'(?:^|,)\s*model_name="(?P<model>[^"]*)"')


@dataclass(frozen=True, slots=True)
class Pressure:
    """One look at an engine: requests that run and wait, and the share of the key-value cache in use."""

    running: float = 0.0
    waiting: float = 0.0
    cache: float = 0.0

    @property
    def load(self) -> float:
        """The scarcer of the two: cache in use, or the share of all requests that have to wait."""
        held = self.running + self.waiting
        queue = self.waiting / held if held > 0 else 0.0
        return min(1.0, max(0.0, self.cache, queue))


def pressure_of(page: str, model: str = "") -> Pressure:
    """Read from a Prometheus page. Replicas behind one address: their requests add up, their caches are averaged."""
    running, waiting, cache = _gauges(page, model)
    return Pressure(sum(running), sum(waiting), sum(cache) / len(cache) if cache else 0.0)


def tells(page: str, model: str = "") -> bool:
    """Whether a page tells of this model's queue."""
    running, waiting, _ = _gauges(page, model)
    return bool(running and waiting)


def pressed(load: float, priority: int) -> float:
    """What of `load` an application of this priority feels, 0 to 1.

    Priority 9 feels nearly all of it, 0 (the default) what is over a half, -9 only what is over 0.95: as an engine
    fills, those that matter least give way first, each a little at a time, and at 1 everybody does.
    """
    deaf = 0.5 - min(max(priority, LEAST), MOST) / 20
    return max(0.0, (load - deaf) / (1.0 - deaf))


class Gauge:
    """Looks at one engine's `/metrics` at most once in EVERY seconds. Safe for many threads.

    A server that can't be asked, or tells nothing, counts as idle: a price must not fail a step.
    """

    def __init__(self, link: Link, model: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._model = model
        self._clock = clock
        self._lock = threading.Lock()
        self._load = 0.0
        self._asked = self._told = float("-inf")

    def read(self) -> float:
        """The engine's load, 0 to 1."""
        with self._lock:
            now = self._clock()
            if now - self._asked >= EVERY:
                self._asked = now
                self._look(now)
            return self._load if now - self._told <= STALE else 0.0

    def _look(self, now: float) -> None:
        try:
            page = self._link.get("/metrics", _PATIENCE)
        except (BackendError, MissingExtraError):
            return  # the last answer holds until it is stale
        self._load, self._told = pressure_of(page, self._model).load, now


def _gauges(page: str, model: str) -> tuple[list[float], ...]:
    """The values of each gauge that speak of a model, by default of all.

    vLLM names its gauges by the first of a model's names: another, or an adapter's, is served by the only engine there
    is, and of several nobody can tell which.
    """
    samples = list(_samples(page))
    names = {name for _, name, _ in samples if name}
    of_all = not model or (model not in names and len(names) == 1)
    mine = [(gauge, value) for gauge, name, value in samples if of_all or name in (model, "")]
    return tuple([value for gauge, value in mine if gauge == wanted] for wanted in _GAUGES)


def _samples(page: str) -> Iterator[tuple[str, str, float]]:
    """(gauge, model's name if it has one, value)."""
    for found in _SAMPLE.finditer(page):
        if found["gauge"] not in _GAUGES:
            continue
        name = _NAME.search(found["labels"] or "")
        try:
            yield found["gauge"], name["model"] if name else "", float(found["value"])
        except ValueError:
            continue
