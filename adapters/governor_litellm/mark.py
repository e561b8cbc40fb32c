"""What the hooks note beside a request, in a bucket that LiteLLM carries along from hook to hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARK = "governor"
"""Where a request carries what the hooks know of it, in the bucket that LiteLLM keeps beside it."""

BUCKETS = ("litellm_metadata", "metadata")
"""Where the proxy may keep what it knows of a request."""


def mark_of(data: Any) -> dict[str, Any] | None:
    """What was noted beside a request; None where the pre-call hook never saw it."""
    for name in BUCKETS:
        bucket = data.get(name) if isinstance(data, Mapping) else None
        mark = bucket.get(MARK) if isinstance(bucket, Mapping) else None
        if isinstance(mark, dict):
            return mark
    return None


def unmark(data: Mapping[str, Any]) -> None:
    """Take out what a client wrote where our notes go."""
    for name in BUCKETS:
        bucket = data.get(name)
        if isinstance(bucket, dict):
            bucket.pop(MARK, None)
