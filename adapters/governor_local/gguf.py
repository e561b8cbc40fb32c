"""What a GGUF file says of itself, and whether it is whole.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from governor.errors import ModelFileError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata that is not an array (licence, architecture, context length, chat template ...), by key."""

    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def licence(self) -> str:
        """As the file states it; the empty string where it states none."""
        return str(self.metadata.get("general.license", ""))

    @property
    def context_length(self) -> int | None:
        """Tokens the model was trained to hold, None where the file does not say."""
        length = self.metadata.get(f"{self.metadata.get('general.architecture')}.context_length")
        return length if isinstance(length, int) else None

    @property
    def chat_template(self) -> str:
        """Jinja source; the empty string for base models, which were never taught to chat."""
        return str(self.metadata.get("tokenizer.chat_template", ""))


def read_header(path: Path) -> Header:
    """Read the metadata and check that every tensor begins inside the file.

    A file that lost only the end of its last tensor passes: that is llama.cpp's to notice when it loads.
    Raises ModelFileError for a file that is unreadable, not a GGUF, of an unknown version, or cut short.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise ModelFileError(f"{path} is not a GGUF model file")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(_Cursor(data, len(MAGIC)), path)
    except OSError as fault:
        raise ModelFileError(f"{path} can't be read: {fault.strerror or fault}") from fault
    except (struct.error, IndexError, UnicodeDecodeError, KeyError, OverflowError) as fault:
        raise ModelFileError(f"{path} is damaged or cut short: pull or copy it again") from fault


class _Cursor:
    """A reading position in mapped bytes; reading past the end raises IndexError or struct.error."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data = data
        self.position = position

    def number(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self.data, self.position)
        self.position += struct.calcsize(layout)
        return value

    def skip(self, size: int) -> None:
        self.position += size
        if self.position > len(self.data):
            raise IndexError(self.position)

    def string(self) -> str:
        size = self.number("<Q")
        start = self.position
        self.skip(size)
        return self.data[start : self.position].decode()


def _parse(cursor: _Cursor, path: Path) -> Header:
    version = cursor.number("<I")
    if version not in _VERSIONS:
        raise ModelFileError(f"{path} is GGUF version {version}; {' and '.join(map(str, _VERSIONS))} can be read")
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    metadata = {key: value for key, value in _pairs(cursor, pairs) if value is not None}
    last = max((_tensor_offset(cursor) for _ in range(tensors)), default=0)
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if cursor.position + -cursor.position % alignment + last >= len(cursor.data):
        raise IndexError(last)
    return Header(metadata)


def _pairs(cursor: _Cursor, count: int) -> Iterator[tuple[str, Any]]:
    for _ in range(count):
        key = cursor.string()
        yield key, _value(cursor, cursor.number("<I"))


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == _STRING:
        return cursor.string()
    if kind != _ARRAY:
        return cursor.number(_SCALARS[kind])
    _skip_array(cursor)
    return None


def _skip_array(cursor: _Cursor) -> None:
    kind, count = cursor.number("<I"), cursor.number("<Q")
    if kind in _SCALARS:
        cursor.skip(count * struct.calcsize(_SCALARS[kind]))
        return
    if kind != _STRING:
        raise KeyError(kind)  # nested arrays are allowed by the format and written by nobody
    unpack, data, position = struct.Struct("<Q").unpack_from, cursor.data, cursor.position
    for _ in range(count):  # vocabularies: 150,000 strings, so no method calls in here
        position += 8 + unpack(data, position)[0]
    cursor.position = position
    cursor.skip(0)


def _tensor_offset(cursor: _Cursor) -> int:
    cursor.string()
    dimensions = cursor.number("<I")
    cursor.skip(8 * dimensions + 4)
    offset: int = cursor.number("<Q")
    return offset
