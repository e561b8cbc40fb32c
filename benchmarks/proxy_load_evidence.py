"""What a run of benchmarks.proxy_load leaves behind to be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.proxy_load_traffic import Answer
from benchmarks.proxy_load_upstream import Served
from governor.protocols import Balance, Reservation


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients saw. Rates are in requests a second, moments in seconds since the epoch, memory in MiB.

    `capacity` is what the closed loop reached, `rate` what was intended for `seconds`, `outages` when Redis was gone.
    """

    capacity: float
    rate: float
    seconds: float
    answers: Sequence[Answer]
    outages: Sequence[tuple[float, float]]
    memory: Sequence[tuple[float, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The load beside what servers, records and ledger say of it, once all is quiet.

    In `reservations` and `balances` the leases of what was left open have run out. `flights` are those that each proxy
    still holds, `rewritten` and `invalid` count rewritings of the policies.
    """

    load: Load
    served: Mapping[str, Served]
    records: Sequence[Mapping[str, Any]]
    balances: Sequence[Balance]
    reservations: Sequence[Reservation]
    flights: Mapping[str, int]
    logs: Mapping[str, str]
    rewritten: int
    invalid: int
    died: Mapping[str, int] = field(default_factory=dict)
    """Exit statuses of proxies that did not live to the end."""
