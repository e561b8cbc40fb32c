"""The journal of a run: what was paid for is written down, so that a killed run goes on without paying again.

The same loop is driven again from its start. Effects that were answered before are answered from the journal, in
order; the first that was not goes to the world. A call that was sent but never answered is thrown into the loop
as an interrupted call, which books it at its bound. Lines (JSON, one an event):

    {"journal": 1, "policy": "DIGEST"}                                        the first line
    {"step": ID, "at": 4, "effect": "call", "what": [...]}                    a call is about to be sent
    {"step": ID, "at": 4, "effect": "call", "what": [...], "ok": {...}}       its reply; "no": its error
    {"step": ID, "closing": {...}}                                            about to be settled with this total
    {"step": ID, "void": 4}                                                   forget what stands at 4 and after
    {"step": ID, "end": true}                                                 its outcome is safe elsewhere

Durability: each line is one write, which survives the death of the process. A power cut may lose the last lines;
`durable=True` waits for the disk before each call is sent and each total is settled.
Answers stand here in full, since they are replayed: the file is readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from governor.effects import (
    CallModel,
    Compute,
    Effect,
    Emit,
    Enter,
    Exit,
    Extend,
    Now,
    Process,
    Refund,
    Reserve,
    Settle,
)
from governor.errors import BackendUnavailableError, BudgetExceededError, LedgerError, RecordError
from governor.protocols import Reservation
from governor.records import Amount, Call
from governor.telemetry.codec import Unrecordable, decode, decode_error, encode, encode_error
from governor.telemetry.holds import Holds
from governor.telemetry.lines import LineFile

VERSION = 1
_BEGINNING = b'{"journal":'
Perform: TypeAlias = Callable[[Effect], Any]
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
class _History:
    """What the journal holds of one step: its latest line at each position, and its closing totals."""

    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    closings: list[Amount] = field(default_factory=list)

    def apply(self, line: dict[str, Any]) -> None:
        if "closing" in line:
            self.closings.append(decode(line["closing"]))
        elif "void" in line:
            self.lines = {at: kept for at, kept in self.lines.items() if at < line["void"]}
        else:
            self.lines[line["at"]] = line


class Journal:
    """An append-only file beside a run's output. `open` starts or resumes it; one process at a time."""

    def __init__(self, file: LineFile, path: Path, *, durable: bool) -> None:
        self._file = file
        self._path = path
        self._durable = durable
        self._histories: dict[str, _History] = {}

    @classmethod
    def open(cls, path: str | Path, *, policy_digest: str = "", durable: bool = False) -> Journal:
        """Read what former runs left in `path`, which is made if it is absent.

        Raises RecordError where it belongs to another policy, is no journal, is in use, or can't be written.
        """
        where = Path(path)
        file = LineFile(where, exclusive=True, mode=0o600)
        try:
            journal = cls(file, where, durable=durable)
            if not journal._load(policy_digest):
                file.append(_json({"journal": VERSION, "policy": policy_digest}))
        except BaseException:
            file.close()
            raise
        return journal

    def performer(self, step_id: str, perform: Perform) -> Perform:
        """`perform` with a memory: effects of this step that were answered before are answered as they were.

        `perform` may return awaitables or be a coroutine function; so does the result then. Ledger effects go
        through it too, under keys that keep every booking single. Raises RecordError where the journal can't be
        written, or where the step now asks for another call than the one that was paid for at this place.
        """
        step = _Step(self, step_id, self._histories.setdefault(step_id, _History()))
        if inspect.iscoroutinefunction(perform):
            return lambda effect: _await(step.process(effect), perform)
        return lambda effect: _run(step.process(effect), perform)

    def finish(self, step_id: str) -> None:
        """Note that the step's outcome is safe elsewhere: its lines are not needed again."""
        self.append(step_id, {"end": True})

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def append(self, step_id: str, line: dict[str, Any], *, durable: bool = False) -> None:
        """Write one line of a step and remember it."""
        self._file.append(_json({"step": step_id} | line), durable=durable and self._durable)
        self._apply(step_id, line)

    def diverged(self, step_id: str, at: int, now: str, before: str) -> NoReturn:
        """Raise the error of a step that no longer asks for what was paid for."""
        raise RecordError(
            f"{self._path}: step '{step_id}' does not match its journal any more (event {at} was {before}, now {now}): "
            "its task or the program has changed; start afresh with another output file"
        )

    def _apply(self, step_id: str, line: dict[str, Any]) -> None:
        if "end" in line:
            self._histories.pop(step_id, None)
        else:
            self._histories.setdefault(step_id, _History()).apply(line)

    def _load(self, policy_digest: str) -> bool:
        """Whether the file had a first line. Torn lines are passed over: their write was never confirmed."""
        found = False
        for raw in self._file.lines():
            try:
                line = json.loads(raw)
            except ValueError:
                line = None
            if line is None and (raw.startswith(_BEGINNING) or _BEGINNING.startswith(raw)):
                continue  # the first line itself was torn
            if not found:
                self._check_header(line, policy_digest)
                found = True
            elif isinstance(line, dict):
                self._apply(line.pop("step"), line)
        return found

    def _check_header(self, line: Any, policy_digest: str) -> None:
        version = line.get("journal") if isinstance(line, dict) else None
        if version is None:
            raise RecordError(f"{self._path}: not a journal: move it away, or choose another output file")
        if version != VERSION:
            raise RecordError(f"{self._path}: journal version {version}, known is {VERSION}: upgrade compute-governor")
        if line["policy"] != policy_digest:
            raise RecordError(
                f"{self._path}: begun under another policy (digest {line['policy']}, now {policy_digest}): "
                "finish with that policy, or start afresh with another output file"
            )


class _Step:
    """One drive of one step's loop: as it went before, as far as that is written down, and live from there."""

    def __init__(self, journal: Journal, step_id: str, history: _History) -> None:
        self._journal = journal
        self._id = step_id
        self._former = dict(history.lines)
        self._holds = Holds(history.closings)
        self._at = 0
        self._last_now: float | None = None
        self._clock_shift: float | None = None
        self._recording = True
        self._closing_noted = False

    def process(self, effect: Effect) -> Process[Any]:
        """Answers one effect of the loop by asking for none, one or several."""
        if isinstance(effect, Enter | Exit):
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
                return self._holds.remember(effect)
            return (yield from self._perform(at, effect, self._holds.reserve(effect)))
        if isinstance(effect, Extend):
            return self._holds.remember(effect)
        if "ok" not in line:
            raise _interrupted(effect)
        if isinstance(effect, Now):
            self._last_now = line["ok"]
        return decode(line["ok"])

    def _live(self, at: int, effect: Recorded) -> Process[Any]:
        if isinstance(effect, Reserve):
            self._note(at, effect)
            return (yield from self._perform(at, effect, self._holds.reserve(effect)))
        if isinstance(effect, Extend):
            return (yield from self._perform(at, effect, self._holds.extend(effect)))
        if isinstance(effect, CallModel):
            self._note(at, effect)
            return (yield from self._perform(at, effect, self._call(at, effect)))
        return (yield from self._perform(at, effect, _only(effect)))

    def _call(self, at: int, effect: CallModel) -> Process[Any]:
        try:
            yield from self._holds.take_up()
        except LedgerError:
            self._journal.append(self._id, {"void": at})  # refused before it was sent
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
        total = self._holds.closing(effect)
        if total is not None and not self._closing_noted:
            self._journal.append(self._id, {"closing": encode(total)}, durable=True)
            self._closing_noted = True
        return (yield from self._holds.close(effect))

    def _shifted(self, seconds: float) -> float:
        """A step's clock stands still while its process is dead: a monotonic clock begins anew with each boot."""
        if self._clock_shift is None:
            self._clock_shift = 0.0 if self._last_now is None else self._last_now - seconds
        return seconds + self._clock_shift

    def _note(self, at: int, effect: Recorded, **result: Any) -> None:
        if self._recording:
            line = {"at": at, "effect": _NAMES[type(effect)], "what": _what(effect)} | result
            self._journal.append(self._id, line, durable=isinstance(effect, CallModel) and not result)

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
            now = f"{_NAMES[type(effect)]} {_what(effect)}"
            self._journal.diverged(self._id, at, now, f"{line['effect']} {line['what']}")
        self._journal.append(self._id, {"void": at})
        self._former = {place: kept for place, kept in self._former.items() if place < at}

    def _paid_for_later(self) -> bool:
        """Whether former lives sent calls that this one has not come to yet."""
        return any(place >= self._at and line["effect"] == "call" for place, line in self._former.items())


def _run(process: Process[Any], perform: Perform) -> Any:
    """Run a process to its end; from the first awaitable answer on, inside a coroutine."""
    try:
        effect = next(process)
        while True:
            try:
                answer = perform(effect)
            except BaseException as error:  # noqa: BLE001 - thrown on, cancellation included
                effect = process.throw(error)
                continue
            if inspect.isawaitable(answer):
                return _await(process, perform, answer)
            effect = process.send(answer)
    except StopIteration as end:
        return end.value


async def _await(process: Process[Any], perform: Perform, first: Awaitable[Any] | None = None) -> Any:
    try:
        effect = next(process) if first is None else None
        while True:
            try:
                answer = first if effect is None else perform(effect)
                answer = await answer if inspect.isawaitable(answer) else answer
            except BaseException as error:  # noqa: BLE001 - thrown on, cancellation included
                effect = process.throw(error)
            else:
                effect = process.send(answer)
    except StopIteration as end:
        return end.value


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


def _json(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode()
