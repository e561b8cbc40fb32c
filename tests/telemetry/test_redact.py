from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.telemetry.redact import _COMPILED, PATTERNS, redact, redact_all

SECRETS = [
    ("openai or anthropic key", "key sk-proj-abcdEFGH_1234-5678xyz!", "key [redacted]!"),
    ("openai or anthropic key", "sk-ant-api03-abcdefgh12345678", "[redacted]"),
    ("bearer token", "Bearer abc.DEF-123_456/789=", "Bearer [redacted]"),
    ("authorization header", "{'Authorization': 'Bearer short'}", "{'Authorization': '[redacted]'}"),
    ("authorization header", "authorization: Basic dXNlcjpwYXNz", "authorization: [redacted]"),
    ("aws access key", "id AKIAIOSFODNN7EXAMPLE.", "id [redacted]."),
    (
        "query or field",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "aws_secret_access_key = [redacted]",
    ),
    ("query or field", "GET /v1?alt=json&key=AbC_123456&x=1 failed", "GET /v1?alt=json&key=[redacted]&x=1 failed"),
    ("query or field", '{"x-api-key": "0123456789abcdef"}', '{"x-api-key": "[redacted]"}'),
    ("query or field", "https://h/?access_token=abcdef.ghi", "https://h/?access_token=[redacted]"),
    ("query or field", "password=hunter22", "password=[redacted]"),
    (
        "pem block",
        "see -----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY----- ok",
        "see [redacted] ok",
    ),
    ("pem block", "-----BEGIN PRIVATE KEY-----\nMIIE cut off", "[redacted]"),
    ("google key", "AIza" + "S" * 35, "[redacted]"),
    ("github token", "ghp_" + "a1" * 18, "[redacted]"),
    ("hugging face token", "hf_" + "aB" * 15, "[redacted]"),
    ("slack token", "xoxb-1234567890-abc", "[redacted]"),
    ("json web token", "eyJhbGciOiJI.eyJzdWIiOi.SflKxw", "[redacted]"),
    ("url password", "redis://user:pa55@host:6379/0", "redis://[redacted]@host:6379/0"),
]

HARMLESS = [
    "sk-short and risk-averse-behaviour-of-large-models",
    "the bearer of bad news",
    "max_tokens: 4096, thinking_tokens=1024",
    "basic arithmetic; the key idea: think less",
    "http://host:8080/v1/chat?model=x",
    "token: 12345",
    "Authored by key people",
]


@pytest.mark.parametrize(("name", "text", "expected"), SECRETS)
def test_each_kind_of_secret_is_blanked(name: str, text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(redact(text)) == expected
    assert dict(zip(PATTERNS, _COMPILED, strict=True))[name].search(text)


def test_every_pattern_has_an_example() -> None:
    assert {name for name, _, _ in SECRETS} == set(PATTERNS)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=60), st.sampled_from(SECRETS), st.text(max_size=60))
def test_a_secret_is_found_wherever_it_stands(before: str, secret: tuple[str, str, str], after: str) -> None:
    name, text, _ = secret
    value = redact_all({"a": [{"b": f"{before} {text} {after}"}], "n": 1, "t": (None, True)})
    assert (value["n"], value["t"]) == (1, [None, True])
    pattern = dict(zip(PATTERNS, _COMPILED, strict=True))[name]
    found = pattern.search(text)
    assert found is not None
    secret_part = found.group()[len(found.groupdict().get("keep") or "") :]
    assert secret_part not in value["a"][0]["b"]
