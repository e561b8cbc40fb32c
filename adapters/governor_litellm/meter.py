"""OpenTelemetry metrics of the proxy itself, read when they are collected; those of budgets are governor.telemetry's.

    governor.proxy.policies         applications that are served now                    gauge
    governor.proxy.policy_errors    files of the folder that can't be used as they are  gauge
    governor.proxy.policy_loads     loads of a file, by governor.result: ok, failed     counter
    governor.proxy.flights          governed requests that are open                     up-down counter
    governor.proxy.owed             reservations that wait for their store to be closed up-down counter
    governor.proxy.missed_hooks     hooks that should have fired, by governor.hook      counter

Without an SDK in the process nothing is read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from governor_litellm.desk import Desk

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

Reading = Callable[[Desk], Iterable[tuple[int, dict[str, str]]]]


def observe(desk: Desk, provider: MeterProvider | None = None) -> None:
    """Tell of a desk for as long as it lives, on the global meter provider or the one given."""
    from opentelemetry.metrics import get_meter

    meter = get_meter("governor", meter_provider=provider)
    seen = weakref.ref(desk)
    meter.create_observable_gauge(
        "governor.proxy.policies", [_reader(seen, _policies)], "{policy}", "Applications that are served now."
    )
    meter.create_observable_gauge(
        "governor.proxy.policy_errors", [_reader(seen, _errors)], "{file}", "Policy files that can't be used."
    )
    meter.create_observable_counter(
        "governor.proxy.policy_loads", [_reader(seen, _loads)], "{load}", "Loads of a policy file, by their result."
    )
    meter.create_observable_up_down_counter(
        "governor.proxy.flights", [_reader(seen, _flights)], "{request}", "Governed requests that are open."
    )
    meter.create_observable_up_down_counter(
        "governor.proxy.owed", [_reader(seen, _owed)], "{reservation}", "Reservations that wait for their store."
    )
    meter.create_observable_counter(
        "governor.proxy.missed_hooks", [_reader(seen, _missed)], "{call}", "Hooks that LiteLLM should have called."
    )


def _reader(seen: weakref.ref[Desk], reading: Reading) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        desk = seen()
        return [] if desk is None else [Observation(number, told) for number, told in reading(desk)]

    return read


def _policies(desk: Desk) -> Iterable[tuple[int, dict[str, str]]]:
    yield len(desk.folder.served) if desk.folder is not None else 0, {}


def _errors(desk: Desk) -> Iterable[tuple[int, dict[str, str]]]:
    yield len(desk.folder.errors) if desk.folder is not None else 0, {}


def _loads(desk: Desk) -> Iterable[tuple[int, dict[str, str]]]:
    if desk.folder is not None:
        yield desk.folder.loaded, {"governor.result": "ok"}
        yield desk.folder.failed, {"governor.result": "failed"}


def _flights(desk: Desk) -> Iterable[tuple[int, dict[str, str]]]:
    yield len(desk.flights), {}


def _owed(desk: Desk) -> Iterable[tuple[int, dict[str, str]]]:
    yield desk.ledgers.owed, {}


def _missed(desk: Desk) -> Iterable[tuple[int, dict[str, str]]]:
    yield from ((number, {"governor.hook": name}) for name, number in dict(desk.watch.missed).items())
