"""Standings for other tools: one object a scope, CSV, and the text that Prometheus reads.

Prometheus: its text exposition format 0.0.4; base units in the names (USD, seconds), `_total` for what only grows
(prometheus.io/docs/practices/naming). One metric a dimension, because their units differ and because tokens by kind
are part of the tokens in all: a sum over such a label would be wrong.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from governor.ledger.standing import UNITS, Standing
from governor.ledger.sums import DIMENSIONS, figures

KINDS = ("step", "session", "run", "node", "tenant", "model", "app", "emergency")
"""What a policy's scopes begin with."""


def kind_of(scope: str) -> str:
    """What kind of scope it is; `other` where no policy names it so."""
    kind, colon, _ = scope.partition(":")
    return kind if colon and kind in KINDS else "other"


def as_object(standing: Standing) -> dict[str, Any]:
    """One scope as a JSON object: exact integers in the ledger's units (micro-USD, milliseconds), moments in seconds.

    `limit`, `left`, `pace` (in an hour) and `runs_out` hold only the dimensions of which they are known.
    """
    balance, places = standing.balance, range(len(DIMENSIONS))
    return {
        "scope": balance.scope,
        "kind": kind_of(balance.scope),
        "window": asdict(balance.window),
        "spent": asdict(balance.spent),
        "reserved": asdict(balance.reserved),
        "limit": _known(standing.ceilings),
        "left": _known([standing.left(place) for place in places]),
        "pace": _known([_rounded(standing.pace(place)) for place in places]),
        "runs_out": _known([_rounded(standing.runs_out(place)) for place in places]),
        "expired": balance.expired,
        "overshoot": asdict(balance.overshoot),
    }


def _known(column: Sequence[Any]) -> dict[str, Any]:
    return {name: value for name, value in zip(DIMENSIONS, column, strict=True) if value is not None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


COLUMNS = (
    "scope",
    "kind",
    "until",
    "sliding",
    "dimension",
    "limit",
    "spent",
    "reserved",
    "left",
    "overshoot",
    "expired",
)
"""Of the CSV: a row for each dimension of each scope. What is not known is empty."""


def as_csv(standings: Iterable[Standing]) -> str:
    """A table with a first line of names (RFC 4180, but lines end in a line feed); integers in the ledger's units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for standing in standings:
        balance = standing.balance
        sums = zip(figures(balance.spent), figures(balance.reserved), figures(balance.overshoot), strict=True)
        for place, (spent, reserved, overshoot) in enumerate(sums):
            window = balance.window
            first = (balance.scope, kind_of(balance.scope), window.until, window.sliding, DIMENSIONS[place])
            limit, left = standing.ceilings[place], standing.left(place)
            writer.writerow([*first, limit, spent, reserved, left, overshoot, balance.expired])
    return text.getvalue()


def as_prometheus(standings: Iterable[Standing]) -> str:
    """The text exposition of every scope. Sums are gauges: windows end, and a person may set them."""
    known = tuple(standings)
    lines: list[str] = []
    for measure, words, read in _MEASURES:
        for place, dimension in enumerate(DIMENSIONS):
            unit, scale = UNITS[dimension]
            rows = [(one, value) for one in known if (value := read(one, place)) is not None]
            if rows:
                name = f"governor_scope_{measure}_{unit}"
                lines += [
                    f"# HELP {name} {words.format(unit.replace('_', ' ').replace('usd', 'USD'))}",
                    f"# TYPE {name} gauge",
                ]
                lines += [f"{name}{_labels(one)} {_decimal(value, scale)}" for one, value in rows]
    if known:
        name = "governor_scope_expired_leases_total"
        lines += [f"# HELP {name} Leases that ran out and were booked at their bound.", f"# TYPE {name} counter"]
        lines += [f"{name}{_labels(one)} {one.balance.expired}" for one in known]
    return "".join(f"{line}\n" for line in lines)


_MEASURES: tuple[tuple[str, str, Callable[[Standing, int], int | None]], ...] = (
    ("limit", "The tightest limit known, in {}.", lambda one, place: one.ceilings[place]),
    ("spent", "What counts as spent in the window, in {}.", lambda one, place: figures(one.balance.spent)[place]),
    ("reserved", "What open reservations hold, in {}.", lambda one, place: figures(one.balance.reserved)[place]),
    ("left", "What may still be held, in {}.", lambda one, place: one.left(place)),
    (
        "overshoot",
        "Spend beyond its hold (should be 0), in {}.",
        lambda one, place: figures(one.balance.overshoot)[place],
    ),
)


def _labels(standing: Standing) -> str:
    scope = standing.balance.scope
    escaped = scope.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{scope="{escaped}",kind="{kind_of(scope)}"}}'


def _decimal(value: int, scale: int) -> str:
    """The figure in the policy's unit, exact."""
    if scale == 1:
        return str(value)
    digits = len(str(scale)) - 1
    whole, rest = divmod(abs(value), scale)
    text = f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text
