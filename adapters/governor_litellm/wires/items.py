"""The output of a response, as the events of its stream build it up, and the events that close what is open of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_PARTS = {"content_part": "content", "reasoning_summary_part": "summary"}
_TEXTS = {
    "output_text": ("content", "text"),
    "refusal": ("content", "refusal"),
    "reasoning_text": ("content", "text"),
    "reasoning_summary_text": ("summary", "text"),
}
_INDEX = {"content": "content_index", "summary": "summary_index"}
_PART_OF = {field: name for name, field in _PARTS.items()}
_GIVEN = {"function_call_arguments": "arguments", "custom_tool_call_input": "input"}
"""Under which name a call holds what such events add to it."""


class Items:
    """Mutable. Events are given as JSON would hold them; those that say nothing of the output are skipped."""

    def __init__(self) -> None:
        self._items: dict[int, dict[str, Any]] = {}
        self._open: set[int] = set()
        self._closed: set[tuple[int, str, int]] = set()
        """Parts that have ended, by item, field and place."""
        self._number = -1

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items so far; one that has not ended is incomplete."""
        return [
            {**item, **({"status": "incomplete"} if at in self._open and "status" in item else {})}
            for at, item in sorted(self._items.items())
        ]

    def next_number(self) -> int:
        """The sequence number of an event that is added to the stream."""
        self._number += 1
        return self._number

    def take(self, kind: str, event: Mapping[str, Any]) -> None:
        self._number = max(self._number + 1, int(event.get("sequence_number") or 0))
        at, (name, _, verb) = int(event.get("output_index") or 0), kind.removeprefix("response.").rpartition(".")
        if name == "output_item":
            self._items[at] = dict(event.get("item") or {})
            (self._open.add if verb == "added" else self._open.discard)(at)
        elif name in _PARTS:
            self._part(at, _PARTS[name], event, ended=verb == "done")
        elif name in _TEXTS and verb == "delta":
            field, key = _TEXTS[name]
            part = self._at(at, field, int(event.get(_INDEX[field]) or 0))
            part[key] = (part.get(key) or "") + str(event.get("delta") or "")
        elif name in _GIVEN and verb == "delta":
            item, key = self._items.setdefault(at, {}), _GIVEN[name]
            item[key] = (item.get(key) or "") + str(event.get("delta") or "")

    def closing(self) -> Iterator[dict[str, Any]]:
        """The events that end what is open, innermost first."""
        for at in sorted(self._open):
            item = self._items[at]
            place = {"item_id": item.get("id") or "", "output_index": at}
            for field in ("summary", "content"):
                for number, part in enumerate(item.get(field) or ()):
                    if (at, field, number) not in self._closed:
                        yield from self._ended({**place, _INDEX[field]: number}, field, part)
            for name, key in _GIVEN.items():
                if name == f"{item.get('type')}_{key}":
                    yield self._event(f"{name}.done", place, **{key: item.get(key) or ""})
            yield self._event("output_item.done", {"output_index": at}, item={**item, "status": "incomplete"})

    def _ended(self, place: Mapping[str, Any], field: str, part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kind = "reasoning_summary_text" if field == "summary" else str(part.get("type"))
        if kind in _TEXTS:
            key = _TEXTS[kind][1]
            yield self._event(f"{kind}.done", place, **{key: part.get(key) or ""})
        yield self._event(f"{_PART_OF[field]}.done", place, part=dict(part))

    def _event(self, kind: str, place: Mapping[str, Any], **told: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", **place, **told, "sequence_number": self.next_number()}

    def _part(self, at: int, field: str, event: Mapping[str, Any], *, ended: bool) -> None:
        number = int(event.get(_INDEX[field]) or 0)
        self._at(at, field, number).update(event.get("part") or {})
        if ended:
            self._closed.add((at, field, number))

    def _at(self, at: int, field: str, number: int) -> dict[str, Any]:
        """The part in this place, made where an event named it before it was added."""
        item = self._items.setdefault(at, {})
        parts = item[field] = list(item.get(field) or ())
        parts += [{} for _ in range(number + 1 - len(parts))]
        parts[number] = dict(parts[number])
        part: dict[str, Any] = parts[number]
        return part
