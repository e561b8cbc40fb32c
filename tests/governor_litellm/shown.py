"""What a client's reader is shown of a stream, without ids and times in which any number may stand."""

from __future__ import annotations

import json
import re
from typing import Any


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def said(path: str, text: str) -> str:
    found = events(text)
    if path.endswith("responses"):
        return "".join(one["delta"] for one in found if one["type"] == "response.output_text.delta").strip()
    if path.endswith("messages"):
        return "".join(one["delta"].get("text", "") for one in found if one["type"] == "content_block_delta").strip()
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in found if one["choices"]).strip()


def words(text: str) -> set[str]:
    """What stands in a response as a word of its own: its ids are random letters, and may hold any short one."""
    return set(re.findall(r"[\w+/=-]+", text))
