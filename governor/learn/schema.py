"""What one row says: a recorded outcome of any source, or an attempt of Governor's own decision records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

from governor.learn.sources import json_type
from governor.records import Decision, Message, text_of

Raw: TypeAlias = dict[str, Any]

NOT_ALONE = frozenset({"continue", "feedback"})
"""Backtracks after which a reply follows from an earlier one, not from the question alone."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One recorded try of a rung at a question.

    `correct` is the label in 0..1 (a fraction is a mean over `n_samples` hidden samples), None where nobody knows;
    `verdict` is what `verifier` said, a label with that verifier's errors. Tokens are counts, money is USD; None is
    unknown. `truncated`: cut by a token limit. `sample` names repeated tries ("" where there is one). `question` is
    None where it stands on another row of the same qid or was not recorded; `messages` are the whole prompt where
    that was. `fields` is whatever else the row holds. `path` and `line` (from 1) say where it stands.
    """

    qid: str
    rung: str
    question: str | None = None
    node: str = "default"
    session: str = ""
    sample: str = ""
    correct: float | None = None
    n_samples: int = 1
    output_tokens: float | None = None
    truncated: bool = False
    input_tokens: float | None = None
    cost_usd: float | None = None
    answer_text: str | None = None
    thinking: str = ""
    verdict: Decision | None = None
    verifier: str = ""
    messages: tuple[Message, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    path: str = ""
    line: int = 0

    @property
    def label(self) -> float | None:
        """`correct`, else 1 for an accepted and 0 for a rejected answer, else None."""
        if self.correct is not None:
            return self.correct
        return {"accept": 1.0, "reject": 0.0}.get(self.verdict or "")

    @property
    def alone(self) -> bool:
        """Whether the reply answers the question itself, not feedback on an earlier reply or its cut end."""
        return self.fields.get("mode") not in NOT_ALONE

    @property
    def place(self) -> str:
        """FILE:LINE."""
        return f"{self.path}:{self.line}"

    def get(self, name: str) -> Any:
        """The value under this name as it was recorded, None where there is none."""
        return getattr(self, name) if name in _ATTRIBUTES else self.fields.get(name)


_ATTRIBUTES = frozenset({"qid", "rung", "question", "node", "session", "sample", "answer_text", "verifier"})


class BadRowError(ValueError):
    """A row can't be used: `field` holds something wrong."""

    def __init__(self, field: str, message: str, hint: str = "") -> None:
        self.field = field
        self.message = message
        self.hint = hint
        super().__init__(f"{field}: {message}")


def is_decision(raw: Mapping[str, Any]) -> bool:
    """Whether this is a line of Governor's own decision records."""
    return "schema" in raw and "kind" in raw and "qid" not in raw


def outcome_row(raw: Raw, path: str, line: int) -> Row:
    """The row of a recorded outcome (fields: docs/export.md). Raises BadRowError."""
    verdict, verifier = _verdict(raw.pop("verdict", None))
    truncated = raw.pop("truncated", None)
    if not isinstance(truncated, bool | None):
        raise BadRowError("truncated", f"must be true or false, is {_shown(truncated)}")
    return Row(
        qid=_name(raw, "qid"),
        rung=_name(raw, "rung"),
        question=_text(raw, "question"),
        node=_text(raw, "node") or "default",
        session=_text(raw, "session") or "",
        sample=_sample(raw.pop("sample", None)),
        correct=_number(raw, "correct", most=1),
        n_samples=_count(raw.pop("n_samples", None)),
        output_tokens=_number(raw, "output_tokens"),
        truncated=raw.get("finish_reason") == "length" if truncated is None else truncated,
        input_tokens=_number(raw, "input_tokens"),
        cost_usd=_number(raw, "cost_usd"),
        answer_text=_text(raw, "answer_text"),
        thinking=_text(raw, "thinking") or "",
        verdict=verdict,
        verifier=_text(raw, "verifier") or verifier,
        messages=_messages(raw),
        fields=raw,
        path=path,
        line=line,
    )


def attempt_row(raw: Raw, path: str, line: int, sample: str) -> Row:
    """The row of an attempt in Governor's decision records (docs/records.md). Raises BadRowError.

    Its label is the verdict. Where the backend reported no usage, tokens and money were booked at their bound,
    which says nothing about them: they are unknown here.
    """
    verdict, verifier = _verdict(raw.pop("verdict", None))
    messages = _messages(raw)
    usage = raw.pop("usage", None)
    if not isinstance(usage, dict):
        raise BadRowError("usage", f"must be an object, is {json_type(usage)}")
    micros = _number(raw, "micros")
    known = raw.get("usage_known") is True
    return Row(
        qid=_name(raw, "step_id"),
        rung=_name(raw, "rung"),
        question=_asked(messages),
        node=_text(raw, "node") or "default",
        session=_text(raw, "session") or "",
        sample=sample,
        output_tokens=_number(usage, "output_tokens") if known else None,
        truncated=raw.get("finish_reason") == "length",
        input_tokens=_number(usage, "input_tokens") if known else None,
        cost_usd=micros / 1e6 if known and micros is not None else None,
        answer_text=_text(raw, "answer"),
        thinking=_text(raw, "thinking") or "",
        verdict=verdict,
        verifier=verifier,
        messages=messages,
        fields=raw,
        path=path,
        line=line,
    )


def _asked(messages: tuple[Message, ...]) -> str | None:
    """The text of the last user message, as `Step.prompt` has it."""
    return next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), None)


def _name(raw: Raw, key: str) -> str:
    value = raw.pop(key, None)
    if isinstance(value, str) and value:
        return value
    if value is not None:
        raise BadRowError(key, f"must be text that is not empty, is {_shown(value)}")
    near = get_close_matches(key, raw, n=1, cutoff=0.5)
    raise BadRowError(key, "is missing", f"did you mean '{near[0]}'?" if near else "")


def _text(raw: Raw, key: str) -> str | None:
    value = raw.pop(key, None)
    if value is None or isinstance(value, str):
        return value
    raise BadRowError(key, f"must be text, is {_shown(value)}")


def _number(raw: Raw, key: str, most: float = math.inf) -> float | None:
    value = raw.pop(key, None)
    if value is None:
        return None
    if isinstance(value, int | float) and 0 <= value <= most and value < math.inf:
        return float(value)
    raise BadRowError(key, f"must be {'0 or more' if most == math.inf else f'0..{most:g}'}, is {_shown(value)}")


def _count(value: Any) -> int:
    if value is None:
        return 1
    if isinstance(value, int | float) and 1 <= value < math.inf and value == int(value):
        return int(value)
    raise BadRowError("n_samples", f"must be a whole number from 1, is {_shown(value)}")


def _sample(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and value.is_integer():  # how tables keep whole numbers where some are absent
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRowError("sample", f"must be text or a whole number, is {_shown(value)}")


def _verdict(value: Any) -> tuple[Decision | None, str]:
    decision, verifier = (value.get("decision"), value.get("verifier")) if isinstance(value, dict) else (value, "")
    if not isinstance(verifier, str | None):
        raise BadRowError("verdict.verifier", f"must be text, is {_shown(verifier)}")
    if decision is None and not isinstance(value, dict):
        return None, ""
    if decision not in get_args(Decision):
        raise BadRowError("verdict", f"must be accept, reject or unsure, is {_shown(decision)}")
    return decision, verifier or ""


def _messages(raw: Raw) -> tuple[Message, ...]:
    value = raw.pop("messages", None)
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return tuple(value)
    raise BadRowError("messages", "must be a list of chat messages")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value if len(value) <= _SHOWN else value[:_SHOWN] + '...'}'"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.15g}" if not _GIANT <= abs(value) < math.inf else "so large a number"
    return json_type(value)


_SHOWN = 40
_GIANT = 10**18
