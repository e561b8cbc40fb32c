"""Writes tiny GGUF files: a header with metadata, tensor entries, and zeros for data."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

TEMPLATE = "{{ messages }}"


def gguf_bytes(metadata: Mapping[str, str | int] | None = None, *, tensors: int = 2, version: int = 3) -> bytes:
    own: dict[str, str | int] = {"general.architecture": "tiny", "tiny.context_length": 64}
    pairs = own | {"tokenizer.chat_template": TEMPLATE} | dict(metadata or {})
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs) + 2)
    for key, value in pairs.items():
        kind = struct.pack("<I", 8) + _string(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        head += _string(key) + kind
    head += _string("tokenizer.tokens") + struct.pack("<IIQ", 9, 8, 3) + _string("a") + _string("bc") + _string("")
    head += _string("tokenizer.scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12)
    for index in range(tensors):
        head += _string(f"t{index}") + struct.pack("<IQIQ", 1, 8, 0, 32 * index)
    return head + bytes(-len(head) % 32) + bytes(32 * tensors)


def write_gguf(path: Path, metadata: Mapping[str, str | int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(metadata))
    return path


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
