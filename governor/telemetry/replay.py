"""One step under the journal: answered as it went before, as far as that is written down, and live from there.

A process (see governor.effects) for each effect of the loop: what it yields goes to the world, what it returns to
the loop. Nothing here touches a file; lines are handed to `append`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from governor.effects import (
    CallModel,
    Compute,
    Cut,
    Effect,
    Emit,
    Enter,
    Exit,
    Extend,
    Now,
    Process,
    Refund,
    Reserve,
    Resume,
    Settle,
)
from governor.errors import BackendUnavailableError, BudgetExceededError, LedgerError, RecordError
from governor.protocols import Reservation
from governor.records import Amount, Call
from governor.telemetry.codec import Unrecordable, decode, decode_error, encode, encode_error
from governor.telemetry.holds import Holds

Line: TypeAlias = dict[str, Any]
Recorded: TypeAlias = Now | Reserve | Extend | CallModel | Compute | Emit

_NAMES: dict[type[Any], str] = {
    Now: "now",
    Reserve: "reserve",
    Extend: "extend",
    CallModel: "call",
    Compute: "compute",
    Emit: "emit",
}


@dataclass(slots=True)
class History:
    """What the journal holds of one step: its latest line at each position, and its closing totals.

    A step has a reservation of its own, under "", and one under its key for each model with a budget.
    """

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    closings: dict[str, list[Amount]] = field(default_factory=dict)

    def apply(self, line: dict[str, Any]) -> None:
        if "closing" in line:
            self.closings.setdefault(line.get("key", ""), []).append(decode(line["closing"]))
        elif "void" in line:
            self.lines = {at: kept for at, kept in self.lines.items() if at < line["void"]}
        else:
            self.lines[line["at"]] = line


class Append(Protocol):
    """Writes one line of the step, waiting for the disk where it is told to and the journal is durable."""

    def __call__(self, line: Line, *, durable: bool = False) -> None: ...


class Replay:
    """One drive of one step's loop."""

    def __init__(self, step_id: str, history: History, append: Append) -> None:
        self._id = step_id
        self._append = append
        self._former = dict(history.lines)
        self._closings = history.closings
        self._books: dict[str, Holds] = {}
        self._at = 0
        self._last_now: float | None = None
        self._clock_shift: float | None = None
        self._recording = True
        self._closing_noted: set[str] = set()

    def process(self, effect: Effect) -> Process[Any]:
        """Answers one effect of the loop by asking for none, one or several."""
        if isinstance(effect, Enter | Exit | Resume | Cut):
            return (yield effect)
        if isinstance(effect, Settle | Refund):
            return (yield from self._close(effect))
        at = self._at
        line = self._former.get(at)
        if line is not None and not _is_of(line, effect):
            if self._paid_for_later() and isinstance(effect, Now | Compute | Emit):
                return (yield effect)  # the loop cleans up: it was stopped before it had caught up with its former life
            self._forget_from(at, effect, line)
            line = None
        self._at = at + 1
        if line is None:
            return (yield from self._live(at, effect))
        return (yield from self._again(at, effect, line))

    def _again(self, at: int, effect: Recorded, line: dict[str, Any]) -> Process[Any]:
        if "no" in line:
            raise decode_error(line["no"])
        if isinstance(effect, Reserve):
            # Under the limits of then: a resumed step stays in the period in which it began.
            effect = Reserve(effect.key, effect.amount, decode(line["what"]))
            if "ok" in line:
                return self._holds(effect.key).remember(effect)
            return (yield from self._perform(at, effect, self._holds(effect.key).reserve(effect)))
        if isinstance(effect, Extend):
            return self._holds(effect.key).remember(effect)
        if "ok" not in line:
            raise _interrupted(effect)
        if isinstance(effect, Now):
            self._last_now = line["ok"]
        return decode(line["ok"])

    def _live(self, at: int, effect: Recorded) -> Process[Any]:
        if isinstance(effect, Reserve):
            self._note(at, effect)
            return (yield from self._perform(at, effect, self._holds(effect.key).reserve(effect)))
        if isinstance(effect, Extend):
            return (yield from self._perform(at, effect, self._holds(effect.key).extend(effect)))
        if isinstance(effect, CallModel):
            self._note(at, effect)
            return (yield from self._perform(at, effect, self._call(at, effect)))
        return (yield from self._perform(at, effect, _only(effect)))

    def _call(self, at: int, effect: CallModel) -> Process[Any]:
        try:
            for holds in self._books.values():
                yield from holds.take_up()
        except LedgerError:
            self._append({"void": at})  # refused before it was sent
            raise
        return (yield effect)

    def _perform(self, at: int, effect: Recorded, process: Process[Any]) -> Process[Any]:
        try:
            result = yield from process
        except Exception as error:
            self._note_error(at, effect, error)
            raise
        except BaseException:
            # Cancelled: what the loop does to end the step is no part of how it goes on when taken up again.
            self._recording = False
            raise
        if isinstance(effect, Now):
            result = self._shifted(result)
        self._note_result(at, effect, result)
        return result

    def _close(self, effect: Settle | Refund) -> Process[Any]:
        if self._paid_for_later():
            # Stopped before it had caught up: the reservation waits for the next life, or for its lease.
            spent = effect.spent if isinstance(effect, Settle) else Amount()
            return Reservation(key=effect.key, amount=spent, state="open")
        total = self._holds(effect.key).closing(effect)
        if total is not None and effect.key not in self._closing_noted:
            of = {} if effect.key == self._id else {"key": effect.key}
            self._append({"closing": encode(total), **of}, durable=True)
            self._closing_noted.add(effect.key)
        return (yield from self._holds(effect.key).close(effect))

    def _holds(self, key: str) -> Holds:
        if key not in self._books:
            self._books[key] = Holds(self._closings.get("" if key == self._id else key, ()))
        return self._books[key]

    def _shifted(self, seconds: float) -> float:
        """A step's clock stands still while its process is dead: a monotonic clock begins anew with each boot."""
        if self._clock_shift is None:
            self._clock_shift = 0.0 if self._last_now is None else self._last_now - seconds
        return seconds + self._clock_shift

    def _note(self, at: int, effect: Recorded, **result: Any) -> None:
        if self._recording:
            line = {"at": at, "effect": _NAMES[type(effect)], "what": _what(effect)} | result
            self._append(line, durable=isinstance(effect, CallModel) and not result)

    def _note_result(self, at: int, effect: Recorded, result: Any) -> None:
        """What has no exact JSON form is left out; only work that may be done again (Compute) can have none."""
        if isinstance(effect, Reserve | Extend | Emit):
            result = None
        try:
            form = encode(result)
        except Unrecordable:
            if not isinstance(effect, Compute):
                raise
            return
        self._note(at, effect, ok=form)

    def _note_error(self, at: int, effect: Recorded, error: Exception) -> None:
        if isinstance(effect, CallModel) and isinstance(error, BudgetExceededError):
            return
        try:
            form = encode_error(error)
        except Unrecordable:
            return  # not an answer of model or ledger: it is asked again, a sent call counts as interrupted
        self._note(at, effect, no=form)

    def _forget_from(self, at: int, effect: Recorded, line: dict[str, Any]) -> None:
        """The loop took another way. Where nothing paid for lies on the old one, the old one is void."""
        if self._paid_for_later():
            raise RecordError(
                f"step '{self._id}' does not match its journal any more (event {at} was {line['effect']} "
                f"{line['what']}, now {_NAMES[type(effect)]} {_what(effect)}): its task or the program has changed; "
                "start afresh with another output file"
            )
        self._append({"void": at})
        self._former = {place: kept for place, kept in self._former.items() if place < at}

    def _paid_for_later(self) -> bool:
        """Whether former lives sent calls that this one has not come to yet."""
        return any(place >= self._at and line["effect"] == "call" for place, line in self._former.items())


def _only(effect: Effect) -> Process[Any]:
    return (yield effect)


def _is_of(line: dict[str, Any], effect: Recorded) -> bool:
    """Whether a line was written for this effect; a reservation's limits may name another period by now."""
    name = _NAMES[type(effect)]
    return bool(line["effect"] == name and (name == "reserve" or line["what"] == _what(effect)))


def _interrupted(effect: Recorded) -> Exception:
    model = effect.call.rung.model if isinstance(effect, CallModel) else ""
    return BackendUnavailableError(
        "interrupted: the process was stopped while this call was under way", model=model, sent=True, usage=None
    )


def _what(effect: Recorded) -> Any:
    """What tells this effect from others at the same place."""
    match effect:
        case CallModel(call):
            return [call.rung.id, call.purpose, call.attempt, call.sample, _digest(call)]
        case Compute(name, _):
            return name
        case Reserve(_, _, limits):
            return encode(limits)
        case _:
            return None


def _digest(call: Call) -> str:
    text = json.dumps([call.messages, call.prefix], default=str, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
