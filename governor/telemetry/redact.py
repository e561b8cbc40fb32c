"""Secrets out of texts, by one table of patterns. Groups named `keep` stay, so that a reader sees what was there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

PATTERNS: dict[str, str] = {
    "pem block": r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)",
    "url password": r"(?P<keep>\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+(?=@)",
    "authorization header": (
        r"(?P<keep>\bauthorization['\"]?\s*[:=]\s*['\"]?)(?!\[redacted\])"
        r"(?:(?:bearer|basic|token)\s+)?[^\s'\",;}]+"
    ),
    "bearer token": r"(?P<keep>\bbearer\s+)[\w.~+/=-]{16,}",
    "query or field": (
        r"(?P<keep>(?:[?&](?:key|sig|signature)|\b(?:[\w-]*(?:api[_-]?key|access[_-]?key|secret|password|passwd|token)))"
        r"['\"]?\s*[=:]\s*['\"]?)(?!\[redacted\])(?=[^\s'\",;&}]*[^\s'\",;&}\d.])[^\s'\",;&}]{6,}"
    ),
    "openai or anthropic key": r"\bsk-[\w-]{16,}",
    "aws access key": r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}\b",
    "google key": r"\bAIza[\w-]{35}",
    "github token": r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,})",
    "hugging face token": r"\bhf_[A-Za-z0-9]{20,}",
    "slack token": r"\bxox[abeprs]-[\w-]{10,}",
    "json web token": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
}
"""Name -> regular expression (case ignored where names are words, dots match line ends)."""

_CASELESS = {"url password", "authorization header", "bearer token", "query or field"}
_COMPILED = [
    re.compile(pattern, re.DOTALL | (re.IGNORECASE if name in _CASELESS else re.NOFLAG))
    for name, pattern in PATTERNS.items()
]
# Every pattern needs one of these; most texts have none, and this one search is all they cost.
_SUSPECT = re.compile(
    r"-----BEGIN|://|author|bearer|key|sig|secret|passw|token|sk-|A[KSGR][IPO]A|AIDA|AIza|gh[pousr]_|github_pat|hf_|xox|eyJ",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with every known kind of secret replaced by `[redacted]`."""
    if not _SUSPECT.search(text):
        return text
    for pattern in _COMPILED:
        text = pattern.sub(_blank, text)
    return text


def redact_all(value: Any) -> Any:
    """A JSON value with `redact` applied to every string in it, keys excepted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(item) for item in value]
    return value


def _blank(match: re.Match[str]) -> str:
    kept = match.groupdict().get("keep") or ""
    return f"{kept}{REDACTED}"
