"""Rows of a benchmark that can be resumed: one JSON line a task and arm, in the file that its --out names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def kept(path: Path) -> Iterator[dict[str, Any]]:
    """Every row that is there; none where there is no file yet."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def by_arm(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows by arm and task."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in kept(path):
        rows.setdefault(row["arm"], {})[row["id"]] = row
    return rows
