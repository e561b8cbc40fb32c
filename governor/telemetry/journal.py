"""The journal of a run: what was paid for is written down, so that a killed run goes on without paying again.

The same loop is driven again from its start. Effects that were answered before are answered from the journal, in
order; the first that was not goes to the world. A call that was sent but never answered is thrown into the loop
as an interrupted call, which books it at its bound. Lines (JSON, one an event):

    {"journal": 1, "policy": "DIGEST"}                                        the first line
    {"step": ID, "at": 4, "effect": "call", "what": [...]}                    a call is about to be sent
    {"step": ID, "at": 4, "effect": "call", "what": [...], "ok": {...}}       its reply; "no": its error
    {"step": ID, "closing": {...}}                                            about to be settled with this total
    {"step": ID, "closing": {...}, "key": KEY}                                the same of a model with its own budget
    {"step": ID, "void": 4}                                                   forget what stands at 4 and after
    {"step": ID, "end": true}                                                 its outcome is safe elsewhere

Durability: each line is one write, which survives the death of the process. A power cut may lose the last lines;
`durable=True` waits for the disk before each call is sent and each total is settled.
Answers stand here in full, since they are replayed: the file is readable by its owner alone.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from governor.effects import Effect, Process
from governor.errors import RecordError
from governor.telemetry.lines import LineFile
from governor.telemetry.replay import History, Line, Replay

VERSION = 1
_BEGINNING = b'{"journal":'
Perform: TypeAlias = Callable[[Effect], Any]


class Journal:
    """An append-only file beside a run's output. `open` starts or resumes it; one process at a time."""

    def __init__(self, file: LineFile, path: Path, *, durable: bool) -> None:
        self._file = file
        self._path = path
        self._durable = durable
        self._histories: dict[str, History] = {}

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
        history = self._histories.setdefault(step_id, History())
        replay = Replay(step_id, history, partial(self._append, step_id))
        if inspect.iscoroutinefunction(perform):
            return lambda effect: _await(replay.process(effect), perform)
        return lambda effect: _run(replay.process(effect), perform)

    def finish(self, step_id: str) -> None:
        """Note that the step's outcome is safe elsewhere: its lines are not needed again."""
        self._append(step_id, {"end": True})

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _append(self, step_id: str, line: Line, *, durable: bool = False) -> None:
        self._file.append(_json({"step": step_id} | line), durable=durable and self._durable)
        self._apply(step_id, line)

    def _apply(self, step_id: str, line: Line) -> None:
        if "end" in line:
            self._histories.pop(step_id, None)
        else:
            self._histories.setdefault(step_id, History()).apply(line)

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


def _json(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode()
