"""A policy's say in a replay: what it grants each recorded question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from governor.policy import Check, Policy, load_policy, terms_for
from governor.protocols import Terms
from governor.records import Step


@dataclass(frozen=True, slots=True)
class Granted:
    """Step -> the policy's terms; the world of a replay keeps of them what decides (`recorded.terms_of`)."""

    policy: Policy

    @classmethod
    def by(cls, source: str | Path, checks: Sequence[Check] = ()) -> Granted:
        """Of a file or a shipped policy. Raises PolicyError."""
        return cls(load_policy(source, checks=checks))

    def __call__(self, step: Step) -> Terms:
        return terms_for(self.policy, step, 0.0)
