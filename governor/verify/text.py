"""Checks of the answer as text: complete, regex, choice, contains."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from governor.records import Reply, Step, Verdict
from governor.verify import answer
from governor.verify.leaf import Leaf, accept, decided, pure, reject
from governor.verify.options import Options, Rates, Site, Texts, leaf
from governor.verify.refusal import refuses

_MOST_MATCHED = 20_000


class CompleteOptions(Options):
    """`refusals: false` lets apologies pass, as in customer support; `min_chars` counts visible characters."""

    shorthand: ClassVar[str] = "min_chars"
    refusals: bool = True
    min_chars: int = Field(default=1, ge=1)


def complete(options: CompleteOptions, site: Site) -> Leaf:
    """Accepts a reply that was not cut off, says something, and does not decline."""

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        text = _printable(answer.visible(reply.text))
        if reply.truncated:
            return reject("truncated", "The answer was cut off by its length limit. Answer more briefly.")
        if reply.finish_reason == "content_filter":
            return reject("refusal", "The answer was withheld by a content filter.")
        if not reply.tool_calls and len(text) < options.min_chars:
            return reject("empty", "The answer is empty or too short. Give the answer itself.")
        if options.refusals and not reply.tool_calls and refuses(text):
            return reject("refusal", "The question was declined. Answer it as well as you can.")
        return accept()

    def doubt(step: Step, text: str) -> bool:
        return not step.tools and refuses(_printable(answer.settled(text)))

    rates = Rates(0.99, 0.95)
    return leaf("complete", options, rates, pure(check), site, doubt=doubt if options.refusals else None)


def _printable(text: str) -> str:
    """Text without zero-width characters, which would make an empty answer look full."""
    return re.sub("[\u200b-\u200f\u2060\ufeff\u00ad]", "", text).strip()


class RegexOptions(Options):
    """`on: answer` looks at the final answer only; `max_chars` bounds the work of a slow pattern."""

    shorthand: ClassVar[str] = "pattern"
    pattern: str
    mode: Literal["fullmatch", "search"] = "search"
    on: Literal["text", "answer"] = "text"
    ignore_case: bool = False
    max_chars: int = Field(default=_MOST_MATCHED, ge=1)
    feedback: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as cause:
            raise ValueError(f"not a regular expression: {cause}") from cause
        return pattern


def regex(options: RegexOptions, site: Site) -> Leaf:
    """Accepts text that matches a pattern."""
    pattern = re.compile(options.pattern, re.IGNORECASE if options.ignore_case else 0)
    matches = pattern.fullmatch if options.mode == "fullmatch" else pattern.search
    feedback = options.feedback or f"The answer must match the pattern {options.pattern}"

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        text = answer.final_answer(reply.text) if options.on == "answer" else answer.visible(reply.text)
        return decided(matches(text[: options.max_chars]) is not None, "format", feedback)

    def doubt(step: Step, text: str) -> bool:
        del step
        seen = answer.settled(text)
        return len(seen) >= options.max_chars and matches(seen[: options.max_chars]) is None

    beginning = options.on == "text" and options.max_chars < _MOST_MATCHED
    return leaf("regex", options, Rates(0.99, 0.6), pure(check), site, doubt=doubt if beginning else None)


class ChoiceOptions(Options):
    """`options` are the words one of which the answer must be; a single letter counts only as a capital."""

    shorthand: ClassVar[str] = "options"
    options: Texts


def choice(options: ChoiceOptions, site: Site) -> Leaf:
    """Accepts an answer that settles on one of the options."""
    listed = ", ".join(options.options)

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        chosen = chosen_option(reply.text, options.options)
        return decided(chosen is not None, "format", f"End with 'Answer:' and exactly one of: {listed}")

    return leaf("choice", options, Rates(0.99, 0.6), pure(check), site)


def chosen_option(text: str, options: tuple[str, ...]) -> str | None:
    """The option that the text settles on: the first in a marked answer, else the last mentioned."""
    final = answer.final_answer(text)
    for option in options:
        if answer.normal(final) == answer.normal(option):
            return option
    marked = answer.marked_answer(text)
    if marked:
        return _mention(marked, options, last=False)
    return _mention(answer.visible(text)[-answer.MOST_CHARACTERS :], options, last=True)


def _mention(text: str, options: tuple[str, ...], *, last: bool) -> str | None:
    """The first or last option in the text; where one option is part of another, the longer counts."""
    longest_first = sorted(options, key=len, reverse=True)
    # "a" is a word in English: as an option a letter must stand as it is written.
    words = (
        f"((?-i:{re.escape(option)}))" if len(option) == 1 else f"({re.escape(option)})" for option in longest_first
    )
    found = list(re.finditer(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", text, re.IGNORECASE))
    return longest_first[(found[-1 if last else 0].lastindex or 1) - 1] if found else None


class ContainsOptions(Options):
    """`text` must all occur (`mode: any`: one of them), `absent` must not."""

    shorthand: ClassVar[str] = "text"
    text: Texts
    mode: Literal["all", "any"] = "all"
    absent: tuple[str, ...] = Field(default=(), strict=False)
    ignore_case: bool = True


def contains(options: ContainsOptions, site: Site) -> Leaf:
    """Accepts text in which the wanted words occur and the unwanted do not."""

    def folded(text: str) -> str:
        return text.casefold() if options.ignore_case else text

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        text = folded(answer.visible(reply.text))
        missing = [wanted for wanted in options.text if folded(wanted) not in text]
        unwanted = [word for word in options.absent if folded(word) in text]
        enough = not missing or (options.mode == "any" and len(missing) < len(options.text))
        if not enough:
            return reject("format", f"The answer must mention: {', '.join(missing)}")
        return decided(not unwanted, "format", f"The answer must not mention: {', '.join(unwanted)}")

    def doubt(step: Step, text: str) -> bool:
        del step
        seen = folded(answer.settled(text))
        return any(folded(word) in seen for word in options.absent)

    return leaf("contains", options, Rates(0.98, 0.5), pure(check), site, doubt=doubt if options.absent else None)
