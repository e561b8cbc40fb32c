"""Grading by held-back answers. Only reports use this: no verifier, forecast or policy ever sees a gold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from governor.verify.answer import final_answer, find_code, find_json, normal, number
from governor.verify.sandbox import SandboxLimits
from governor.verify.sandbox import run as run_sandboxed


def correct(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether an answer matches its gold: `{"number": n}`, `{"text": t}`, `{"json": v}` or `{"tests": [...]}`."""
    ((kind, wanted),) = gold.items()
    return _GRADERS[kind](answer, wanted)


def _number(answer: str, wanted: float) -> bool:
    return number(answer) == Fraction(str(wanted))


def _text(answer: str, wanted: str) -> bool:
    given = normal(final_answer(answer))
    return normal(wanted) in {given, normal(given.partition(" ")[0])}  # "No. Fish can't fly." answers "no"


def _json(answer: str, wanted: Any) -> bool:
    found = find_json(answer)
    return found is not None and bool(found.value == wanted)


def _tests(answer: str, wanted: list[str]) -> bool:
    code = find_code(answer)
    return code is not None and run_sandboxed("\n".join([code, *wanted]), SandboxLimits()).ok


_GRADERS: Mapping[str, Callable[[str, Any], bool]] = {"number": _number, "text": _text, "json": _json, "tests": _tests}
