"""What a verifier can tell of an answer that has only begun."""

from __future__ import annotations

from governor.protocols import Foreseeing, Verifier
from governor.records import Step


def foresees(verifier: Verifier) -> bool:
    """Whether it can ever doubt an answer before it is whole."""
    return isinstance(verifier, Foreseeing) and verifier.foresees


def doubts(verifier: Verifier, step: Step, text: str) -> str:
    """Why no answer that begins with `text` is accepted; empty while one may be."""
    return verifier.doubts(step, text) if isinstance(verifier, Foreseeing) and verifier.foresees else ""
