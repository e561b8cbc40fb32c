"""Governed, shadow or control: whether Governor's decision for a step is carried out or only recorded."""

from __future__ import annotations

import hashlib

from governor.protocols import Terms
from governor.records import Arm, Limit, Step


def arm_of(step: Step, terms: Terms) -> Arm:
    """Governed, shadow or control: a canary's share is stable per session (SHA-256 of app and session)."""
    if terms.mode == "on":
        return "governed"
    if terms.mode == "shadow":
        return "shadow"
    digest = hashlib.sha256(f"{terms.app}\0{step.session or step.id}".encode()).digest()
    return "governed" if int.from_bytes(digest[:8], "big") / 2**64 < terms.share else "control"


def unenforced(limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """The same scopes and windows without ceilings: shadow and control arms are counted, never refused."""
    return tuple(Limit(limit.scope, window=limit.window) for limit in limits)
