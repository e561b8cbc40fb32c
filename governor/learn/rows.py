"""Recorded outcomes from files, one at a time: of any source, and Governor's own decision records."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from governor.errors import Problem, RecordError
from governor.learn.schema import BadRowError, Raw, Row, attempt_row, is_decision, outcome_row
from governor.learn.sources import Found, objects
from governor.telemetry.records import SCHEMA, RecordWarning

__all__ = ["Row", "read_rows"]


def read_rows(
    paths: str | Path | Iterable[str | Path],
    *,
    strict: bool = False,
    on_bad: Callable[[Problem], None] | None = None,
) -> Iterator[Row]:
    """The rows of one or more files in their order, streaming: what is kept is a few bytes a row, to find repetitions.

    Files are JSON lines (plain or gzip) or Parquet (extra `learn`), whatever they are called. Of Governor's decision
    records every attempt is a row; outcomes say nothing that their attempts don't, and a line that a resumed run
    wrote again counts once. A bad row is skipped and told to `on_bad` (None: a RecordWarning); `strict` raises
    RecordError instead. A file that can't be read, or of a newer schema, always raises RecordError.
    """
    reader = _Reader(strict, on_bad or _warn)
    for path in [paths] if isinstance(paths, str | Path) else paths:
        yield from reader.rows(Path(path))


def _warn(problem: Problem) -> None:
    reason = str(Problem(problem.message, field=problem.field, hint=problem.hint))
    warnings.warn(RecordWarning(Path(problem.file), problem.line, reason), stacklevel=4)


class _Reader:
    """Reads several files as one: rows must be unique, and a qid's text the same, over all of them."""

    def __init__(self, strict: bool, on_bad: Callable[[Problem], None]) -> None:
        self._strict = strict
        self._on_bad = on_bad
        self._seen: set[bytes] = set()
        self._texts: dict[bytes, bytes] = {}
        self._tries: dict[bytes, int] = {}

    def rows(self, path: Path) -> Iterator[Row]:
        name = str(path)
        for number, found in objects(path):
            try:
                row = self._row(found, name, number)
            except BadRowError as fault:
                self._bad(Problem(fault.message, name, number, field=fault.field, hint=fault.hint))
            else:
                if row is not None:
                    yield row

    def _bad(self, problem: Problem) -> None:
        if self._strict:
            raise RecordError(str(problem))
        self._on_bad(problem)

    def _row(self, found: Found, name: str, number: int) -> Row | None:
        if isinstance(found, str):
            raise BadRowError("", found)
        if is_decision(found):
            return self._attempt(found, name, number)
        row = outcome_row(found, name, number)
        self._unique(row)
        self._same_text(row)
        return row

    def _attempt(self, raw: Raw, name: str, number: int) -> Row | None:
        schema = raw["schema"]
        if not isinstance(schema, int):
            raise BadRowError("schema", "must be a whole number")
        if schema > SCHEMA:
            raise RecordError(f"{name}:{number}: schema {schema} is newer than {SCHEMA}: upgrade compute-governor")
        if raw["kind"] not in ("attempt", "outcome"):
            raise BadRowError("kind", "must be attempt or outcome")
        if raw["kind"] == "outcome" or self._repeated(raw):
            return None
        tries = _digest(str(raw.get("step_id")), str(raw.get("rung")))
        row = attempt_row(raw, name, number, sample=str(self._tries.get(tries, 0)))
        self._tries[tries] = self._tries.get(tries, 0) + 1
        return row

    def _repeated(self, raw: Raw) -> bool:
        line = json.dumps({key: value for key, value in raw.items() if key != "time"}, sort_keys=True, default=str)
        return not self._add(_digest(line))

    def _unique(self, row: Row) -> None:
        if not self._add(_digest(row.qid, row.rung, row.sample)):
            sample = f", sample '{row.sample}'" if row.sample else ""
            hint = "" if row.sample else "number repeated tries in a field 'sample'"
            raise BadRowError("qid", f"'{row.qid}' has an earlier row on rung '{row.rung}'{sample}", hint)

    def _add(self, key: bytes) -> bool:
        before = len(self._seen)
        self._seen.add(key)
        return len(self._seen) > before

    def _same_text(self, row: Row) -> None:
        if row.question is not None:
            text = _digest(row.question)
            if self._texts.setdefault(_digest(row.qid), text) != text:
                raise BadRowError("question", f"differs from an earlier text of qid '{row.qid}'", "give it its own qid")


def _digest(*parts: str) -> bytes:
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=10).digest()
