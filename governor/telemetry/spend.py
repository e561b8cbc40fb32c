"""What record lines say was spent, a step at a time: its outcomes, and its attempts re-added beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from governor.ledger.admission import NOTHING
from governor.ledger.sums import DIMENSIONS, GRAINS
from governor.policy.period import window_of
from governor.records import Amount

ALWAYS = DIMENSIONS[:4]
"""What every outcome's line states; tokens by kind came later."""

_RECOUNTED = ("tokens", "micros", "calls")
"""What attempts state exactly; their seconds are rounded."""


@dataclass(frozen=True, slots=True)
class Ending:
    """One outcome: what was settled, on which scopes (None: not stated), and when its line was written."""

    spent: Amount
    scopes: tuple[str, ...] | None
    time: float
    by_kind: bool
    """Whether tokens are stated by kind."""


@dataclass(slots=True)
class Spend:
    """One step of the records. Mutable while it is read; an id that was used anew has several endings."""

    key: str
    endings: list[Ending] = field(default_factory=list)
    recounted: Amount = NOTHING
    broken: str = ""
    """Why a line of it could not be read."""
    parent: str = ""
    """The step that it is a part of: what it spent is told there too, and booked there unless it states scopes."""

    @property
    def apart(self) -> str:
        """What is wrong with its lines: unreadable, or attempts that don't come to what its outcome says."""
        if self.broken or not self.endings:
            return self.broken
        said = sum((ending.spent for ending in self.endings), NOTHING)
        pairs = [(name, getattr(self.recounted, name), getattr(said, name)) for name in _RECOUNTED]
        words = [f"{count} {name} where its outcome says {told}" for name, count, told in pairs if count != told]
        return f"its attempts come to {', '.join(words)}" if words else ""


@dataclass(slots=True)
class Told:
    """All steps by id, in the order of the records."""

    steps: dict[str, Spend] = field(default_factory=dict)
    attempts: int = 0
    outcomes: int = 0


def told_by(records: Iterable[Mapping[str, Any]]) -> Told:
    """Read attempts and outcomes. A line that stands twice, but for its time, counts once: resumed runs do that."""
    told, seen = Told(), set[bytes]()
    for record in records:
        digest = _digest(record)
        if record.get("kind") not in ("attempt", "outcome") or digest in seen:
            continue
        seen.add(digest)
        key = str(record.get("step_id"))
        step = told.steps.setdefault(key, Spend(key))
        step.parent = str(record.get("parent") or step.parent)
        try:
            if record["kind"] == "attempt":
                step.recounted += _of_attempt(record)
                told.attempts += 1
            else:
                step.endings.append(_ending(record))
                told.outcomes += 1
                for share in record.get("shares", ()):
                    _add_share(told, key, record, share)
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            step.broken = f"its {record['kind']} can't be read ({type(fault).__name__}: {fault})"
    return told


def _add_share(told: Told, key: str, record: Mapping[str, Any], share: Mapping[str, Any]) -> None:
    """What a step spent of one model with a budget: under the key of the reservation that it was booked with."""
    part = told.steps.setdefault(f"{key}#{share['model']}", Spend(f"{key}#{share['model']}"))
    ending = _ending({**record, **share})
    part.endings.append(ending)
    part.recounted += ending.spent


def _ending(record: Mapping[str, Any]) -> Ending:
    stated, scopes = record["spent"], record.get("scopes")
    return Ending(
        spent=Amount(**{name: int(stated[name]) for name in DIMENSIONS if name in stated or name in ALWAYS}),
        scopes=None if scopes is None else tuple(map(str, scopes)),
        time=datetime.fromisoformat(record["time"]).timestamp(),
        by_kind=all(name in stated for name in DIMENSIONS),
    )


def _of_attempt(record: Mapping[str, Any]) -> Amount:
    checked: Mapping[str, Any] = record["verdict"] or {"usage": {}, "micros": 0, "calls": 0}
    usages = record["usage"], checked["usage"]
    return Amount(
        tokens=sum(usage.get("input_tokens", 0) + usage.get("output_tokens", 0) for usage in usages),
        micros=record["micros"] + checked["micros"],
        calls=record["calls"] + checked["calls"],
    )


def kept(scope: str) -> float:
    """Seconds for which a ledger keeps a policy's scope at least after its last booking."""
    window = window_of(scope)
    if window.sliding is not None:
        return window.sliding * (1 + 2 / GRAINS)
    return float("inf") if window.idle is None else window.idle


def _digest(record: Mapping[str, Any]) -> bytes:
    text = json.dumps({name: value for name, value in record.items() if name != "time"}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
