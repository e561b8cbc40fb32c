"""Finds the answer in what a model wrote: final answer, number, JSON value, code.

Every function takes any text whatever and never raises; None means that there is nothing of the kind.
"""

# ruff: noqa: RUF001  words for "answer" are written in their own scripts
from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MOST_CHARACTERS = 200_000
_MOST_STARTS = 200
_MOST_DIGITS = 1_000
_MOST_EXPONENT = 400

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_TAG_BEGUN = re.compile(r"<(?:t(?:h(?:i(?:n(?:k(?:i(?:ng?)?)?)?)?)?)?)?\Z", re.IGNORECASE)
_MARKER = re.compile(
    r"(?:\b(?:final\s+)?answer\b|\bantwort\b|\br[ée]ponse\b|\brespuesta\b|\bresposta\b|\brisposta\b|\bответ\b|答案|答え|정답)"
    r"\W{0,4}?(?:\bis\b|\bist\b|\best\b|\bes\b|\bé\b|\bè\b|是|は|[:=：])\s*[:=：]?|####(?=\s*[-+$]?\.?\d)",
    re.IGNORECASE,
)
# Possessive quantifiers keep these linear on hostile text.
_FENCE = re.compile(
    r"^[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]*+)[^\n]*+\n(.*?)(?:^[ \t]*+\1|\Z)", re.DOTALL | re.MULTILINE
)
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])(?P<sign>[-+\u2212]))?(?<!\w)(?<!\w\.)(?:"
    r"\\[dt]?frac\{(?P<top>\d+)\}\{(?P<bottom>\d+)\}"
    r"|(?:(?P<whole>\d+)[ \t]+)?(?P<numerator>\d+)[ \t]*/[ \t]*(?P<denominator>\d+)"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE](?P<exponent>[-+]?\d+))?"
    r")"
)
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])(\d+),(\d{1,2}|\d{4,})(?![\d,])")
_GROUPING = re.compile(r"(?<=\d)(?:\\[,!;]|\{,\}|[_\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_CODE_START = re.compile(r"^(?:def|class|import|from|async def|@\w)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value found in a text; the wrapper tells a found null from nothing found."""

    value: Any


def visible(text: str) -> str:
    """The text without thoughts that a model wrote between `<think>` tags, closed or cut off."""
    thoughtless = _THOUGHT.sub("", text)
    return _THOUGHT_END.sub("", thoughtless).strip()


def settled(text: str) -> str:
    """What `visible` says of every text that begins with this one and ends no thought that it has not begun."""
    return visible(_TAG_BEGUN.sub("", text))


def final_answer(text: str) -> str:
    r"""The last `\boxed{}`, else what follows the last "Answer:" (or "####"), else the last line."""
    text = visible(text)[-MOST_CHARACTERS:]
    return marked_answer(text) or _plain(_last_line(text))


def marked_answer(text: str) -> str | None:
    """The answer that the text itself marks as such, None where it marks none."""
    text = visible(text)[-MOST_CHARACTERS:]
    boxed = _boxed(text)
    if boxed is not None:
        return _plain(boxed)
    markers = list(_MARKER.finditer(text))
    if not markers:
        return None
    # A marker may stand alone on its line, with the answer on the next.
    rest = text[markers[-1].end() :].lstrip(" \t*_:\r\n")
    return _plain(rest.split("\n", 1)[0]) or None


def number(text: str) -> Fraction | None:
    """The number that the text gives as its answer: the first in a marked answer, else the last of all."""
    marked = marked_answer(text)
    found = numbers(marked) if marked else []
    if found:
        return found[0]
    found = numbers(visible(text))
    return found[-1] if found else None


def numbers(text: str) -> list[Fraction]:
    r"""All numbers in the text, exactly: 1,234.5 and 12,5 and 1e-3 and 3/4 and 1 3/4 and \frac{3}{4}.

    Digits inside a word (H2O) are no number; a minus right after a word character or bracket is an operator,
    one before a blank a list's dash. Numbers of absurd length or exponent are left out.
    """
    text = _DECIMAL_COMMA.sub(r"\1.\2", _GROUPING.sub("", text[-MOST_CHARACTERS:]))
    found = (_value(match) for match in _NUMBER.finditer(text))
    return [value for value in found if value is not None]


def find_json(text: str) -> Json | None:
    """The JSON value that the text holds: all of it, else a fenced one, else the longest object or array."""
    text = visible(text)[:MOST_CHARACTERS]
    fenced = [body for _, body in _fences(text)]
    for candidate in (text, *fenced):
        found = strict_json(candidate.strip())
        if found is not None:
            return found
    return _embedded(text)


def strict_json(text: str) -> Json | None:
    """The value of a text that is JSON and nothing else (no NaN, no Infinity)."""
    try:
        return Json(_DECODER.decode(text))
    except (ValueError, RecursionError):
        return None


def find_code(text: str, language: str = "python") -> str | None:
    """The code in the text: all fences of the language (else all fences) in order, else the text itself.

    Prose before the first definition or import of a text without fences is left out.
    """
    text = visible(text)[:MOST_CHARACTERS]
    fences = _fences(text)
    named = [body for name, body in fences if name.lower() in {language, language[:2], f"{language}3"}]
    if fences:
        return "\n\n".join(named or [body for _, body in fences])
    start = _CODE_START.search(text)
    return text[start.start() if start else 0 :] or None


def normal(text: str) -> str:
    """Text for comparison: NFKC, case folded, white space collapsed, quotes and end punctuation stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" \t\"'`*_.,;:!?()[]{}$")


def _plain(text: str) -> str:
    """One answer without Markdown emphasis, code ticks, maths dollars and a final full stop."""
    stripped = text.strip().strip("*_`").strip()
    stripped = stripped.removesuffix(".").strip().strip("*_`$").strip()
    return stripped.removeprefix("\\(").removesuffix("\\)").strip()


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` with balanced braces."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin, depth = start + len("\\boxed{"), 1
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return None


def _fences(text: str) -> list[tuple[str, str]]:
    return [(match[2], match[3]) for match in _FENCE.finditer(text)]


def _value(match: re.Match[str]) -> Fraction | None:
    size = _size(match) if len(match[0]) <= _MOST_DIGITS else None
    return -size if size is not None and match["sign"] not in {None, "+"} else size


def _size(match: re.Match[str]) -> Fraction | None:
    top, bottom = match["top"] or match["numerator"], match["bottom"] or match["denominator"]
    if top is not None:
        part = Fraction(int(top), int(bottom)) if int(bottom) else None
        return part + int(match["whole"] or 0) if part is not None else None
    exponent = match["exponent"] or "0"
    # Fraction("1e999999999") would fill the memory: the exponent is bounded before it is used.
    if len(exponent) > 5 or abs(int(exponent)) > _MOST_EXPONENT:
        return None
    return Fraction(match["decimal"].replace(",", "")) * Fraction(10) ** int(exponent)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _embedded(text: str) -> Json | None:
    """The longest object or array that stands anywhere in the text; of equals, the last."""
    best: Json | None = None
    longest = position = 0
    for _ in range(_MOST_STARTS):
        starts = [start for start in (text.find("{", position), text.find("[", position)) if start >= 0]
        if not starts:
            break
        start = min(starts)
        try:
            value, position = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        if position - start >= longest:
            best, longest = Json(value), position - start
    return best
