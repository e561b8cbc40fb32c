"""Records on disk: one JSON line for each attempt and each outcome, schema 1 (record.schema.json).

Figures, decisions and reasons are always kept; texts of prompts and answers only where the policy allows it;
secrets never.
"""

from __future__ import annotations

import gzip
import json
import math
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from governor.errors import RecordError
from governor.records import Attempt, Forecast, Outcome, Reply, Step, Usage, Verdict, text_of
from governor.telemetry.lines import LineFile
from governor.telemetry.redact import redact_all

SCHEMA = 1
LONGEST_ERROR = 500


class RecordWarning(UserWarning):
    """A line of a record file was skipped. `path`, `line` (from 1) and `reason` say which and why."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        super().__init__(f"{path}:{line}: skipped: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordShape:
    """What every line of one file says beside its record, and which texts it may hold."""

    prompts: bool = False
    answers: bool = False
    policy_digest: str = ""
    app: str = ""


class JsonlSink:
    """A Sink that appends to a file which several processes may share.

    `prompts` and `answers` allow these texts (secrets are blanked even then). `clock` gives seconds since the
    epoch. Raises RecordError when a line can't be written whole; the file then ends with the line before.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        prompts: bool = False,
        answers: bool = False,
        policy_digest: str = "",
        app: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._shape = RecordShape(prompts=prompts, answers=answers, policy_digest=policy_digest, app=app)
        self._clock = clock
        self._file = LineFile(Path(path))

    def emit(self, step: Step, record: Attempt | Outcome) -> None:
        self._file.append(to_line(record_of(step, record, self._shape, self._clock())))

    def close(self) -> None:
        self._file.close()


def record_of(step: Step, record: Attempt | Outcome, shape: RecordShape, seconds: float) -> dict[str, Any]:
    """The JSON value of one record line, written `seconds` after the epoch. Pure."""
    line: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "attempt" if isinstance(record, Attempt) else "outcome",
        "time": rfc3339(seconds),
        "app": shape.app,
        "policy": shape.policy_digest,
        "step_id": step.id,
        "node": step.node,
        "session": step.session,
        "step_index": step.index,
    }
    line |= {name: held for name, held in (("run", step.run), ("parent", step.parent)) if held}
    line |= _attempt(record, shape) | _context(step) if isinstance(record, Attempt) else _outcome(record)
    if shape.prompts:
        line["messages"] = [dict(message) for message in step.messages]
    if shape.answers:
        line |= _texts(record.reply) | ({"answer": record.answer} if isinstance(record, Outcome) else {})
    cleaned: dict[str, Any] = redact_all(line)
    for told in (cleaned, cleaned.get("verdict") or cleaned):
        told["error"] = told["error"][:LONGEST_ERROR]  # after redaction: half a secret is not recognised
    return cleaned


def to_line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON in UTF-8; lone surrogates become escapes, foreign values their text."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "backslashreplace")


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as UTC time with milliseconds (RFC 3339)."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_records(path: str | Path, *, strict: bool = False) -> Iterator[Mapping[str, Any]]:
    """The records of a file (`.gz` is unpacked), in order.

    A line that can't be read (torn by a power cut) is skipped with a RecordWarning; `strict` raises RecordError
    instead. A missing file, or a record of a newer schema, is always a RecordError.
    """
    path = Path(path)
    for number, line in _numbered(path, strict):
        try:
            record = json.loads(line)
        except ValueError:
            _skip(path, number, "not a whole line of JSON", strict)
            continue
        if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
            _skip(path, number, "not a record", strict)
        elif record["schema"] > SCHEMA:
            raise RecordError(
                f"{path}:{number}: schema {record['schema']} is newer than {SCHEMA}: upgrade compute-governor"
            )
        else:
            yield record


def _numbered(path: Path, strict: bool) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error):
        _skip(path, number + 1, "the compressed file breaks off", strict)
    except OSError as cause:
        raise RecordError(f"{path}: can't be read: {cause.strerror or cause}") from cause


def _skip(path: Path, number: int, reason: str, strict: bool) -> None:
    if strict:
        raise RecordError(f"{path}:{number}: {reason}")
    warnings.warn(RecordWarning(path, number, reason), stacklevel=3)


def _attempt(attempt: Attempt, shape: RecordShape) -> dict[str, Any]:
    rung, reply = attempt.rung, attempt.reply
    return {
        "attempt": attempt.number,
        "rung": rung.id,
        "model": (reply and reply.model) or rung.model,
        "effort": rung.effort,
        "thinking_tokens": rung.thinking_tokens,
        "answer_tokens": rung.answer_tokens,
        "samples": rung.samples,
        "mode": attempt.mode,
        "reason": attempt.reason,
        "forecasts": [_forecast(forecast) for forecast in attempt.forecasts],
        "finish_reason": reply.finish_reason if reply else None,
        **({"stopped": reply.stopped} if reply and reply.stopped else {}),
        "usage_known": reply.usage_known if reply else None,
        "verdict": _verdict(attempt.verdict, shape) if attempt.verdict else None,
        "usage": _usage(attempt.usage),
        "micros": attempt.micros,
        "calls": attempt.calls,
        "seconds": _round(attempt.seconds),
        "error": attempt.error,
    }


def _context(step: Step) -> dict[str, Any]:
    """What forecasts read of a step beside the text that asks, so that what is fitted on records is what is served."""
    from governor.estimate.features import beyond, told_state, tool_names  # here: numpy is not needed to read records

    last = next((one.get("content") for one in reversed(step.messages) if one.get("role") == "user"), "")
    asked = text_of({"content": redact_all(last)})
    return {
        "tools": [{"name": name} for name in tool_names(step.tools)],
        "state": told_state(step.state),
        "beyond": beyond(step, asked),
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    seldom = ({"audit": True} if outcome.audit else {}) | (
        {"refusal": asdict(outcome.refusal)} if outcome.refusal else {}
    )
    return seldom | {
        "status": outcome.status,
        "arm": outcome.arm,
        "decided": outcome.decided,
        "rung": outcome.rung,
        "model": outcome.reply.model if outcome.reply else "",
        "attempts": len(outcome.attempts),
        "difficulty": _round(outcome.difficulty),
        "reason": outcome.reason,
        "spent": asdict(outcome.spent),
        "scopes": list(outcome.scopes),
        "shares": [asdict(share) for share in outcome.shares],
        "usage": _usage(outcome.usage),
        "verifier_usage": _usage(outcome.verifier_usage),
        "micros": outcome.spent.micros,
        "seconds": _round(outcome.seconds),
        "error": outcome.error,
    }


def _texts(reply: Reply | None) -> dict[str, Any]:
    if reply is None:
        return {}
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in reply.tool_calls]
    return {"answer": reply.text, "thinking": reply.thinking, "tool_calls": calls}


def _verdict(verdict: Verdict, shape: RecordShape) -> dict[str, Any]:
    told = {
        "decision": verdict.decision,
        "verifier": verdict.verifier,
        "score": _round(verdict.score),
        "failure": verdict.failure,
        "usage": _usage(verdict.usage),
        "micros": verdict.micros,
        "calls": verdict.calls,
        "seconds": _round(verdict.seconds),
        "error": verdict.error,
    }
    # Feedback quotes the answer it is about.
    return told | ({"feedback": verdict.feedback} if shape.answers else {})


def _forecast(forecast: Forecast) -> dict[str, Any]:
    return {
        "rung": forecast.rung,
        "p_success": _round(forecast.p_success),
        "p_accept": _round(forecast.p_accept),
        "output_tokens": _round(forecast.output_tokens, 1),
        "micros": _round(forecast.micros, 1),
        "seconds": _round(forecast.seconds, 3),
        "index": _round(forecast.index),
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "cached_tokens": usage.cached_tokens,
        "written_tokens": usage.written_tokens,
    }


def _round(value: float | None, digits: int = 4) -> float | None:
    """JSON has no infinity and no NaN: they become null."""
    return round(value, digits) if value is not None and math.isfinite(value) else None
