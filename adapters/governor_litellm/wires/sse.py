"""Server-sent events in raw bytes: whole events out of pieces that may end anywhere (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(r"\r\n|\n|\r")


class Events:
    """Feed it pieces; it gives the JSON data of each event that has become whole. Data that is no object is skipped."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def waiting(self) -> int:
        """Bytes at the end of what was fed that are no whole event yet."""
        return len(self._rest)

    def feed(self, piece: bytes) -> Iterator[Mapping[str, Any]]:
        *whole, self._rest = _BLANK.split(self._rest + piece)
        for block in whole:
            event = data_of(block)
            if event is not None:
                yield event


class Blocks:
    """Feed it pieces; it gives the events that have become whole as they stand, each with its separator."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Sequence[bytes]:
        whole, self._rest = [*blocks(self._rest + piece)], b""
        if whole and not _BLANK.search(whole[-1]):
            self._rest = whole.pop()
        return whole


def data_of(block: bytes) -> Mapping[str, Any] | None:
    """The JSON object that the `data` lines of one event hold; None where they hold none."""
    lines = _LINE.split(block.decode("utf-8", "replace"))
    text = "\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data:"))
    try:
        held = json.loads(text)
    except ValueError:
        return None
    return held if isinstance(held, dict) else None


def written(event: Mapping[str, Any]) -> bytes:
    """An event as bytes, named by its `type`."""
    return f"event: {event.get('type', 'message')}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def blocks(piece: bytes) -> Iterator[bytes]:
    """The events of a piece as they stand, separators included."""
    start = 0
    for blank in _BLANK.finditer(piece):
        yield piece[start : blank.end()]
        start = blank.end()
    if start < len(piece):
        yield piece[start:]
