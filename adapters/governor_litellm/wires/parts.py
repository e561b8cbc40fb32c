"""Parts of a conversation that only name what a model reads: files, sound and video that lie elsewhere.

A picture costs a model so much and no more, wherever it lies. How long a file is nobody knows before it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from mimetypes import guess_type
from typing import Any

from governor.plan.bounds import parts_of
from governor.records import Message

PICTURES = frozenset({"image", "image_url", "input_image", "computer_screenshot"})
REFERENCES = frozenset(
    {
        *("file_id", "file_url", "file_uri", "file_data", "url", "uri"),
        *("image_url", "video_url", "audio_url", "document_url"),
    }
)
"""Under which names a part says where it lies; some take there what they hold itself too."""

_TOLD = ("format", "mime_type", "content_type")
_FILES = ("video/", "audio/", "text/", "application/pdf")
"""What LiteLLM carries to some models from the place of a picture as well, where it is told or named so."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def referred(messages: Sequence[Message]) -> str:
    """The name by which the first part that is no picture says where it lies; empty where there is none."""
    parts = (part for message in messages for part in parts_of(message.get("content")))
    return next((name for part in parts for name in _places(part)), "")


def _places(part: Mapping[str, Any]) -> Iterator[str]:
    """A part says it itself, or in what it holds under its type or as its source."""
    kind = str(part.get("type"))
    for held in (part, part.get(kind), part.get("source")):
        told = [(name, held[name]) for name in sorted(REFERENCES & held.keys())] if isinstance(held, Mapping) else ()
        yield from (name for name, place in told if _outside(name, place) and not _picture(kind, held, place))


def _outside(name: str, place: Any) -> bool:
    """Whether what stands under such a name lies elsewhere: neither empty, nor the data itself."""
    if not isinstance(place, str) or place.startswith("data:"):
        return False
    return bool(_URL.match(place)) if name == "file_data" else bool(place)


def _picture(kind: str, held: Any, place: str) -> bool:
    """Whether it is a picture, as far as can be told from here."""
    told = (str(held.get(name)) for name in _TOLD)
    guessed = guess_type(re.split("[?#]", place)[0])[0] or ""
    return kind in PICTURES and not any(one.startswith(_FILES) for one in (*told, guessed))
