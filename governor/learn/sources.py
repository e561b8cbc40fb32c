"""The files that hold rows: JSON lines, plain or gzip, and Parquet; told apart by their first bytes."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from governor.errors import MissingExtraError, RecordError

BATCH = 4096
"""Parquet rows decoded at once."""

Found: TypeAlias = "dict[str, Any] | str"
"""A row as it is written, or why there is none."""


def objects(path: Path) -> Iterator[tuple[int, Found]]:
    """Every row of a file with its line (Parquet: row) number from 1, one at a time.

    Raises RecordError where the file can't be read at all, MissingExtraError where Parquet can't be.
    """
    try:
        with path.open("rb") as file:
            yield from _parquet(path) if _start(file) == b"PAR1" else _lines(file)
    except OSError as cause:
        raise RecordError(f"{path}: can't be read: {cause.strerror or cause}") from cause


def _start(file: BinaryIO) -> bytes:
    start = file.read(4)
    file.seek(0)
    return start


def _lines(file: BinaryIO) -> Iterator[tuple[int, Found]]:
    packed = _start(file)[:2] == b"\x1f\x8b"
    lines: Iterable[bytes] = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=file))) if packed else file
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parsed(line if number > 1 else line.removeprefix(b"\xef\xbb\xbf"))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield number + 1, "the compressed file breaks off"


def _parsed(line: bytes) -> Found:
    try:
        raw = json.loads(line)
    except UnicodeDecodeError:
        return "not UTF-8 text"
    except RecursionError:
        return "nested too deeply"
    except ValueError as fault:
        return f"not a whole line of JSON: {getattr(fault, 'msg', 'a number has too many digits')}"
    if isinstance(raw, dict):
        return raw
    return f"must be one JSON object a line, is {json_type(raw)}"


def _parquet(path: Path) -> Iterator[tuple[int, Found]]:
    try:
        parquet = import_module("pyarrow.parquet")
        invalid = import_module("pyarrow").ArrowException
    except ImportError:
        raise MissingExtraError("reading Parquet", "learn") from None
    try:
        with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            batches = file.iter_batches(batch_size=BATCH)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except invalid as cause:
        raise RecordError(f"{path}: not a whole Parquet file: {str(cause).splitlines()[0]}") from cause


_JSON_TYPES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


def json_type(value: Any) -> str:
    """What a JSON value is, in words."""
    return "null" if value is None else _JSON_TYPES.get(type(value), type(value).__name__)
