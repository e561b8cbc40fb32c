"""What a server honours, as its canaries showed, and what a rung may therefore ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from governor_vllm.marks import END, START

Verdict = Literal["honoured", "ignored", "refused", "unproved"]
"""`ignored` is the dangerous one: the server says yes and does nothing. `unproved`: the canary could not tell."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one canary showed: what was seen, and what on the server would change it."""

    canary: str
    verdict: Verdict
    seen: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """A thinking budget that acts: one of b ends the thought, mark included, after b + `extra` generated tokens.

    `extra` holds all that vLLM counts otherwise: the tokens that the prompt's template puts behind `<think>` count
    (negative), the forced end comes on top (positive), and a start mark of several tokens runs over by one less.
    `prompt`: a thought that the prompt has begun counts too. `least`: the shortest thought, mark included, that can be
    asked for.
    """

    extra: int
    prompt: bool = True
    least: int = 1

    def asked(self, tokens: int, begun: int = 0) -> int:
        """The budget to send so that thought and mark together are `tokens`, `begun` of which stand in the prompt."""
        return max(0, tokens - self.extra - (0 if self.prompt else begun))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model of one server. `findings` are by the canary's name, in the order they were made."""

    model: str
    window: int = 0
    version: str = ""
    findings: Mapping[str, Finding] = field(default_factory=dict)
    engine: Budget | None = None
    """vLLM's own `thinking_token_budget`, where it acts."""
    processor: Budget | None = None
    """Governor's logits processor, where it is loaded and acts."""
    opens: bool = False
    """Whether the chat template itself opens the thought at the end of the prompt."""
    marks: tuple[str, str] = (START, END)
    """Around the model's thoughts."""
    parses: bool = False
    """Whether thoughts come apart from the answer (a reasoning parser)."""
    end_tokens: int = 1
    """Tokens of the mark that ends a thought."""

    @property
    def usual(self) -> bool:
        """Whether its thoughts stand between the marks that this side reads and writes."""
        return self.marks == (START, END)

    def honours(self, canary: str) -> bool:
        """Whether the canary of this name was honoured."""
        found = self.findings.get(canary)
        return found is not None and found.verdict == "honoured"

    def takes(self, canary: str) -> bool:
        """Whether it was honoured, or the canary could not tell."""
        found = self.findings.get(canary)
        return found is not None and found.verdict in ("honoured", "unproved")

    def refuses(self, canary: str) -> bool:
        """Whether the server said no to the canary of this name."""
        found = self.findings.get(canary)
        return found is not None and found.verdict == "refused"

    def why(self, canary: str) -> str:
        """What the canary showed and what would change it, for an error."""
        found = self.findings.get(canary)
        if found is None:
            return f"'{canary}' was not tried"
        change = f"; {found.change}" if found.change else ""
        return f"{found.verdict}: {found.seen}{change}"
