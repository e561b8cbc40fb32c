"""What pydantic reports, in the words of a person who writes YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from governor.policy.finding import Finding, Path, suggestion
from governor.policy.json_schema import keys_at
from governor.policy.scalars import FORMS

KEY_ERRORS = ("extra_forbidden",)
"""Errors whose culprit is the key, not its value."""

_SYNONYMS = {
    "budget_tokens": "thinking_tokens",
    "completion_tokens": "answer_tokens",
    "max_tokens": "answer_tokens",
    "max_completion_tokens": "answer_tokens",
    "name": "id",
    "cost": "usd",
    "reasoning": "effort",
    "reasoning_effort": "effort",
    "rules": "steps",
    "nodes": "steps",
    "rungs": "ladder",
    "system": "instruction",
    "time": "seconds",
    "verifier": "verify",
    "n": "samples",
}
"""What the same thing is called elsewhere, for names too unlike to be taken for slips."""


def findings_of(error: ValidationError) -> list[Finding]:
    """Every mistake that pydantic found, one finding each, without those that only follow from another."""
    found: list[Finding] = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # pydantic counts only the valid items; the invalid ones have their own errors
        path = path_of(detail)
        found.append(Finding(path, *_words(detail, path)))
    misspelt = {(finding.path[:-1], finding.hint) for finding in found}
    return [
        finding
        for finding in found
        if not (finding.message.startswith("missing key") and (finding.path[:-1], _meant(finding.path[-1])) in misspelt)
    ]


def _meant(key: str | int) -> str:
    return f"did you mean '{key}'?"


def path_of(detail: ErrorDetails) -> Path:
    """Where the error is, without the tags of unions."""
    return tuple(part for part in detail["loc"] if not (isinstance(part, str) and part.startswith("<")))


def _words(detail: ErrorDetails, path: Path) -> tuple[str, str]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key '{path[-1]}'", _key_hint(str(path[-1]), path[:-1])
    if kind == "missing":
        return f"missing key '{path[-1]}'", _MISSING.get(str(path[-1]), f"add '{path[-1]}:'")
    if kind == "literal_error":
        return _choice(value, context)
    if kind == "value_error":
        return f"{context['error']}", ""
    if kind == "string_pattern_mismatch":
        return f"{FORMS[context['pattern']]}, not {shown(value)}", ""
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{detail['msg']}, not {shown(value)}", ""
    return f"must be {expected(context)}, not {shown(value)}", _value_hint(kind, value)


_MISSING = {
    "version": "add 'version: 1' at the top",
    "ladder": "list at least one rung, or extend a policy that has some",
}

_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_type": lambda _: "true or false",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "string_type": lambda _: "text",
    "string_too_short": lambda _: "text that is not empty",
    "string_too_long": lambda context: f"at most {context['max_length']} characters long",
    "greater_than": lambda context: f"more than {_number(context['gt'])}",
    "greater_than_equal": lambda context: f"at least {_number(context['ge'])}",
    "less_than": lambda context: f"less than {_number(context['lt'])}",
    "less_than_equal": lambda context: f"at most {_number(context['le'])}",
    "too_short": lambda context: f"a list of at least {context['min_length']}",
    "tuple_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping (key: value)",
    "mapping_type": lambda _: "a mapping (key: value)",
    "model_type": lambda _: "a mapping (key: value)",
    "mode": lambda _: "on, shadow or {canary: SHARE}",
    "rung": lambda _: "a rung's id, or a rung",
    "periods": lambda _: "a mapping with a period (per: day), or a list of these",
    "globs": lambda _: "a glob, or a list of globs",
}


def _key_hint(key: str, parent: Sequence[str | int]) -> str:
    known = keys_at(parent)
    synonym = _SYNONYMS.get(key.lower().replace("-", "_"))
    if synonym in known:
        return _meant(str(synonym))
    hint = suggestion(key, known)
    if not hint.startswith("did you mean") and len(parent) > 0 and key in keys_at(()):
        return f"'{key}' belongs at the top of the policy"
    return hint


def _choice(value: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
    listed = " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)
    message = f"must be {listed}, not {shown(value)}"
    hint = suggestion(value, choices) if isinstance(value, str) else ""
    return message, hint if hint.startswith("did you mean") else ""


def _value_hint(kind: str, value: Any) -> str:
    if value is None:
        return "give a value, or remove the key"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return _number_hint(value)
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if kind == "bool_type" and isinstance(value, str):
        return _BOOLEANS.get(value.lower(), "")
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes"
    return ""


_YES, _NO = ("yes", "on", "true", "y"), ("no", "off", "false", "n")
_BOOLEANS: dict[str, str] = {**dict.fromkeys(_YES, "write true"), **dict.fromkeys(_NO, "write false")}


def _number_hint(text: str) -> str:
    bare = text.strip().lower().replace(",", "").replace("$", "").replace("_", "")
    factor = {"k": 1000, "m": 1_000_000}.get(bare[-1:], 1)
    try:
        number = float(bare if factor == 1 else bare[:-1]) * factor
    except ValueError:
        return ""
    return f"write {_number(number)}, without quotes or units"


def _number(value: float) -> str:
    return f"{value:.15g}" if abs(value) < _EXACT else repr(value)


def shown(value: Any) -> str:
    """A value in a message: short, and in YAML's words."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value if len(value) <= _SHOWN else value[:_SHOWN] + '...'}'"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return "so large a number" if isinstance(value, int) and abs(value) > _GIANT else _number(value)


_SHOWN = 40
_EXACT = 10**15
_GIANT = 10**18
