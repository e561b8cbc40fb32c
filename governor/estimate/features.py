"""Step -> Features: everything that can be read off a step before any model is called."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from governor.estimate import lexicon
from governor.records import Message, Step, text_of

SCAN_HEAD = 4000
SCAN_TAIL = 2000
"""A prompt longer than both together is read at its head and its tail only: instructions stand there."""

SHORT_REPLY = 40
"""A last message below this many characters is read together with the message it answers."""

_WORD = re.compile(r"[^\W\d_]+")
# Begins with one character class, so that the search skips letters at memory speed.
_SIGN = re.compile(
    r"[0-9\u0660-\u0669\u0966-\u096f\n\\`=^<>+*×÷≤≥≠≈√∑∏∫∂±∞∈∉⊂∪∩∀∃∇→⇒≡$%?\uff1f\u061f{};\[\]|&@#~]"  # noqa: RUF001 - signs as such
    r"(?:(?<=\d)[\d.,]*(?:\s*[-+*/×÷^%]\s*\(?(?=\d))?"  # noqa: RUF001 - a number; with its operator where a number follows
    r"|(?<=\n)[ \t]*(?:[-*•](?=\s)|\d{1,2}[.)](?=\s))?"  # a line's indentation and list mark
    r"|(?<=\\)[A-Za-z]+|(?<=`)``|)"
)
_LOWER_WORDS = bytes(code | 32 if chr(code).isalpha() else 32 for code in range(128)) + bytes(128)
_OPERATOR = " \t\n-+*/×÷^%("  # noqa: RUF001 - the multiplication sign is meant
_ATTEMPTS = ("attempts", "failed_attempts", "previous_attempts", "retries")
_TOOL_ERRORS = ("tool_errors",)
_RETRIEVAL = ("retrieval_chars", "retrieved_chars", "context_chars")
_KNOWN = frozenset((*_ATTEMPTS, *_TOOL_ERRORS, *_RETRIEVAL))
_NO_STATE: Mapping[str, float] = MappingProxyType({})

BEYOND = "governor.beyond"
"""Key of `Step.state` under which a step read from records carries what `beyond` found when it was recorded."""

LONGEST_NAME = 64
"""Characters that are read of the name of a tool or of a part of the state."""

_SHORT_WORD = re.compile(r"[^\W\d][\w.:/-]{0,31}")

# Code point -> class, for one histogram over the scanned characters. 0 is "no letter".
_LATIN, _CJK, _CYRILLIC, _ARABIC, _INDIC, _OTHER, _DIGIT = range(1, 8)
_RANGES = (
    (_OTHER, 0x0370, 0x2000),
    (_LATIN, 0x41, 0x5B),
    (_LATIN, 0x61, 0x7B),
    (_LATIN, 0xC0, 0x250),
    (_LATIN, 0x1E00, 0x1F00),
    (_CYRILLIC, 0x0400, 0x0530),
    (_ARABIC, 0x0600, 0x0780),
    (_ARABIC, 0x08A0, 0x0900),
    (_ARABIC, 0xFB50, 0xFE00),
    (_ARABIC, 0xFE70, 0xFF00),
    (_INDIC, 0x0900, 0x0E00),
    (_CJK, 0x1100, 0x1200),
    (_CJK, 0x3040, 0x3100),
    (_CJK, 0x3400, 0xA000),
    (_OTHER, 0xA000, 0xAC00),
    (_CJK, 0xAC00, 0xD7B0),
    (_CJK, 0xF900, 0xFB00),
    (_CJK, 0x20000, 0x32000),
    (_DIGIT, 0x30, 0x3A),
    (_DIGIT, 0x0660, 0x066A),
    (_DIGIT, 0x0966, 0x0970),
    (_DIGIT, 0xFF10, 0xFF1A),
)
_CLASS = np.zeros(0x110000, dtype=np.uint8)
for _name, _start, _end in _RANGES:
    _CLASS[_start:_end] = _name
_ASCII_CLASS = _CLASS[:256].tobytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a step looks like, as plain numbers: counts unless said otherwise.

    Text counts are of the scanned text: the last user message, of a very long one its head and tail, and for
    a short reply the message it answers as well. `input_tokens` is an estimate over all messages and tools.
    `state` holds the numbers of `Step.state` that have no field of their own.
    """

    chars: float
    words: float
    distinct_words: float
    latin: float
    cjk: float
    cyrillic: float
    arabic: float
    indic: float
    other_letters: float
    digits: float
    numbers: float
    longest_number: float
    operations: float
    maths_signs: float
    latex: float
    fences: float
    brackets: float
    indented_lines: float
    lines: float
    list_items: float
    question_marks: float
    question_words: float
    function_words: float
    maths_words: float
    proof_words: float
    code_words: float
    build_words: float
    easy_words: float
    hard_words: float
    constraint_words: float
    sequence_words: float
    long_words: float
    short_words: float
    in_context: float
    tools: float
    schema_depth: float
    schema_fields: float
    step_index: float
    attempts: float
    tool_errors: float
    retrieval_chars: float
    messages: float
    history_chars: float
    system_chars: float
    input_tokens: float
    state: Mapping[str, float] = field(default_factory=lambda: _NO_STATE)

    @property
    def letters(self) -> float:
        """Letters of every script."""
        return self.latin + self.cjk + self.cyrillic + self.arabic + self.indic + self.other_letters


NUMBERS = tuple(name for name in Features.__slots__ if name != "state")
"""Names of the plain numbers of Features."""


def features(step: Step) -> Features:
    """Read a step once. Work is bounded: a prompt of any length costs no more than SCAN_HEAD + SCAN_TAIL characters."""
    texts = [text_of(message) for message in step.messages]
    prompt, asked = _asked(step.messages, texts)
    text, in_context = _readable(prompt, asked, step.messages, texts)
    scan = _scan(text)
    kinds = scan.kinds
    scripts = _scripts(text)
    depth, fields = _schema_shape(step.response_schema)
    state = step.state
    system = sum(len(t) for m, t in zip(step.messages, texts, strict=True) if m.get("role") in {"system", "developer"})
    total = sum(map(len, texts))
    found = Features(
        chars=float(len(prompt)),
        words=scan.words,
        distinct_words=scan.distinct,
        latin=scripts[_LATIN],
        cjk=scripts[_CJK],
        cyrillic=scripts[_CYRILLIC],
        arabic=scripts[_ARABIC],
        indic=scripts[_INDIC],
        other_letters=scripts[_OTHER],
        digits=scripts[_DIGIT],
        numbers=scan.numbers,
        longest_number=scan.longest_number,
        operations=scan.operations,
        maths_signs=kinds[lexicon.SIGN],
        latex=scan.latex,
        fences=kinds[lexicon.FENCE],
        brackets=kinds[lexicon.BRACKET],
        indented_lines=scan.indented,
        lines=scan.lines,
        list_items=scan.items,
        question_marks=kinds[lexicon.MARK],
        question_words=kinds[lexicon.QUESTION],
        function_words=kinds[lexicon.FUNCTION] + kinds[lexicon.QUESTION],
        maths_words=kinds[lexicon.MATHS],
        proof_words=kinds[lexicon.PROOF],
        code_words=kinds[lexicon.CODE],
        build_words=kinds[lexicon.BUILD],
        easy_words=kinds[lexicon.EASY],
        hard_words=kinds[lexicon.HARD],
        constraint_words=kinds[lexicon.CONSTRAINT],
        sequence_words=kinds[lexicon.SEQUENCE],
        long_words=kinds[lexicon.LONG],
        short_words=kinds[lexicon.SHORT],
        in_context=float(in_context),
        tools=float(len(step.tools)),
        schema_depth=depth,
        schema_fields=fields,
        step_index=float(step.index),
        attempts=_state_number(state, _ATTEMPTS),
        tool_errors=_state_number(state, _TOOL_ERRORS),
        retrieval_chars=_state_number(state, _RETRIEVAL),
        messages=float(len(step.messages)),
        history_chars=float(max(total - system - len(prompt), 0)),  # what asks may be a system message
        system_chars=float(system),
        input_tokens=_input_tokens(step, total, text, scripts),
        state=_other_numbers(state) if state else _NO_STATE,
    )
    return replace(found, **_recorded(state[BEYOND])) if BEYOND in state else found


def told_state(state: Mapping[str, Any]) -> dict[str, float | str]:
    """What is read of a step's state: finite numbers, truth values as 0 or 1, lists as their length, and short words.

    A word begins with a letter, has 32 characters at most and no blank. Reading what was read changes nothing.
    """
    found: dict[str, float | str] = {}
    for name, value in state.items():
        told = value if isinstance(value, str) and _SHORT_WORD.fullmatch(value) else _number(value)
        if told is not None and len(str(name)) <= LONGEST_NAME:
            found[str(name)] = told
    return found


def tool_names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the tools on offer, in OpenAI's shape or plain; "" for one without."""
    return [str(tool.get("function", tool).get("name", ""))[:LONGEST_NAME] for tool in tools]


def beyond(step: Step, asked: str) -> dict[str, float]:
    """The numbers of `features` by which a step differs from what records tell of it beside these.

    That is one message with the text `asked`, the tools' names, the state and the index: earlier messages, schemas of
    tools and of the answer leave nothing but these numbers.
    """
    if len(step.messages) == 1 and not step.tools and not step.response_schema and asked == text_of(step.messages[0]):
        return {}
    alone = replace(
        step,
        messages=({"role": "user", "content": asked},),
        tools=tuple({"name": name} for name in tool_names(step.tools)),
        response_schema=None,
        state=told_state(step.state),
    )
    here, there = features(step), features(alone)
    both = ((name, getattr(here, name), getattr(there, name)) for name in NUMBERS)
    return {name: number for name, number, other in both if number != other}


def _recorded(found: object) -> dict[str, Any]:
    """The numbers that `beyond` gave, as far as they are that."""
    if not isinstance(found, Mapping):
        return {}
    numbers = {name: _number(value) for name, value in found.items() if name in NUMBERS}
    return {name: number for name, number in numbers.items() if number is not None and number >= 0}


def _asked(messages: tuple[Message, ...], texts: list[str]) -> tuple[str, int]:
    """The text that asks and its place: the last user message, else the last message with text."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].get("role") == "user" and texts[at]:
            return texts[at], at
    for at in range(len(messages) - 1, -1, -1):
        if texts[at]:
            return texts[at], at
    return "", 0


def _readable(prompt: str, asked: int, messages: tuple[Message, ...], texts: list[str]) -> tuple[str, bool]:
    if len(prompt) > SCAN_HEAD + SCAN_TAIL:
        return f"{prompt[:SCAN_HEAD]}\n{prompt[-SCAN_TAIL:]}", False
    if len(prompt) >= SHORT_REPLY:
        return prompt, False
    earlier = [
        text for message, text in zip(messages[:asked], texts, strict=False) if text and message.get("role") != "system"
    ]
    # "yes" means what it agrees to: the two messages before it, the last of them in front.
    context = "\n".join(text[-SCAN_TAIL:] for text in earlier[-2:])
    return (f"{prompt}\n{context}", True) if context else (prompt, False)


@dataclass(slots=True)
class _Scan:
    kinds: list[float]
    words: float = 0.0
    distinct: float = 0.0
    numbers: float = 0.0
    longest_number: float = 0.0
    operations: float = 0.0
    latex: float = 0.0
    lines: float = 0.0
    indented: float = 0.0
    items: float = 0.0


def _scan(text: str) -> _Scan:
    """One look at each distinct word and sign."""
    scan = _Scan([0.0] * lexicon.KINDS)
    kinds, look_up = scan.kinds, lexicon.LEXICON.get
    words = distinct = 0
    last_word = lexicon.SHORT
    for token, count in Counter(_words(text) + _SIGN.findall(f"\n{text}")).items():
        kind = look_up(token)
        if kind is not None:
            kinds[kind] += count
            if kind <= last_word:
                words += count
                distinct += 1
        elif token[0].isalpha():
            words += count
            distinct += 1
        else:
            _count_odd(scan, token, count)
    scan.words, scan.distinct = float(words), float(distinct)
    return scan


def _words(text: str) -> list[str]:
    """Lower-case words; a byte table does for ASCII in a tenth of the time what a regular expression does."""
    if text.isascii():
        return text.encode().translate(_LOWER_WORDS).decode().split()
    return _WORD.findall(text.lower())


def _count_odd(scan: _Scan, token: str, count: int) -> None:
    first = token[0]
    if first.isdigit():
        scan.numbers += count
        if not token[-1].isdigit():
            number = token.rstrip(".,")
            token = number.rstrip(_OPERATOR)
            if token != number:
                scan.operations += count
        scan.longest_number = max(scan.longest_number, float(len(token.partition(".")[0].replace(",", ""))))
    elif first == "\n":
        scan.lines += count
        if token[-1] in "-*•.)":
            scan.items += count
        elif len(token) > 2 or token[-1] == "\t":
            scan.indented += count
    elif first == "\\" and len(token) > 1:
        scan.latex += count


def _scripts(text: str) -> list[float]:
    """Characters per class; plain ASCII, the common case, needs no histogram."""
    if text.isascii():
        marks = text.encode().translate(_ASCII_CLASS)
        counts = [0.0] * (_DIGIT + 1)
        counts[_LATIN], counts[_DIGIT] = float(marks.count(_LATIN)), float(marks.count(_DIGIT))
        return counts
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    histogram: list[float] = np.bincount(_CLASS[codes], minlength=_DIGIT + 1).astype(float).tolist()
    return histogram


def _schema_shape(schema: object, depth: int = 0) -> tuple[float, float]:
    """Nesting depth and number of named fields of a JSON Schema; references are not followed."""
    if depth > 16:
        return float(depth), 0.0
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            inner = [_schema_shape(part, depth + 1) for part in properties.values()]
            return max((d for d, _ in inner), default=float(depth)), len(inner) + sum(n for _, n in inner)
        branches: list[object] = [
            part for key, part in schema.items() if key in {"items", "schema", "json_schema", "$defs"}
        ]
        for key in ("anyOf", "oneOf", "allOf"):
            branches.extend(schema.get(key, ()))
        inner = [_schema_shape(part, depth) for part in branches]
        return max((d for d, _ in inner), default=float(depth)), float(sum(n for _, n in inner))
    return float(depth), 0.0


def _state_number(state: Mapping[str, Any], names: tuple[str, ...]) -> float:
    """Their sum; a count below 0 is none."""
    found = (_number(state[name]) for name in names if name in state)
    return max(sum((number for number in found if number is not None), 0.0), 0.0)


def _other_numbers(state: Mapping[str, Any]) -> Mapping[str, float]:
    numbers = ((name, _number(value)) for name, value in state.items() if name not in _KNOWN)
    return MappingProxyType({name: number for name, number in numbers if number is not None})


def _number(value: object) -> float | None:
    """A finite number, a truth value as 0 or 1, the length of a list; None for everything else."""
    if isinstance(value, (int, float)):
        return float(value) if abs(value) < 1e300 and math.isfinite(value) else None
    return float(len(value)) if isinstance(value, (list, tuple)) else None


def _input_tokens(step: Step, total: int, text: str, scripts: list[float]) -> float:
    """About four characters a token in Latin text, one or two elsewhere (byte-pair tokenizers of 100k+ entries)."""
    share = sum(scripts[_CJK : _OTHER + 1]) / max(len(text), 1)
    chars = total
    if step.tools or step.response_schema:
        chars += len(json.dumps((step.tools, step.response_schema), default=str))
    return chars * (0.25 + 0.45 * share) + 4.0 * len(step.messages)
