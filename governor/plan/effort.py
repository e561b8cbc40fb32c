"""From a rung to the parameters of a request, and what is wrong with a rung before anything is sent.

`wire` is what is sent, `problems` is what `governor check` says. Both read the same rules over the one table in
`governor.plan.dialects`, so that a knob is either sent or refused, never lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from governor.errors import PolicyError, Problem
from governor.plan.dialects import EFFORTS, Dialect, Hardness, When, dialect_for
from governor.records import Rung

_NO_WIRES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with a rung on its dialect. `field` is the rung's field; an error means it can't be sent."""

    field: str
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"


def wire(rung: Rung, dialect: Dialect) -> Mapping[str, Any]:
    """LiteLLM parameters that make `rung` true on `dialect`, without model and messages.

    `max_tokens` is always thinking plus answer. Raises PolicyError for a knob that the dialect can't express.
    """
    refused = [Problem(i.message, field=i.field, hint=i.hint) for i in _knobs(rung, dialect) if i.severity == "error"]
    if refused:
        raise PolicyError(refused)
    params: dict[str, Any] = {"max_tokens": rung.max_tokens}
    if rung.temperature is not None:
        params["temperature"] = rung.temperature
    for template in _templates(rung, dialect):
        params = merged(params, _filled(template, rung))
    return params


def problems(
    rung: Rung,
    dialect: Dialect,
    *,
    require_hard: bool = False,
    max_output_tokens: int | None = None,
    context_window: int | None = None,
) -> tuple[Issue, ...]:
    """Everything wrong with `rung`, errors and warnings. Limits in tokens replace those the table knows."""
    limits = _limits(rung, max_output_tokens or dialect.max_output_tokens, context_window or dialect.context_window)
    found = [*_knobs(rung, dialect), *limits]
    if require_hard and hardness(rung, dialect) == "soft":
        text = f"thinking_tokens is only a reserve on {dialect.name}, and the policy requires a hard cap"
        found.append(Issue("thinking_tokens", text, "use a model that takes a number, or drop require_hard"))
    return tuple(found)


def hardness(rung: Rung, dialect: Dialect) -> Hardness:
    """How this rung's `thinking_tokens` acts; "none" also for a rung that gives no thinking tokens."""
    return dialect.thinking if rung.thinking_tokens else "none"


def allows(when: When, rung: Rung, dialect: Dialect) -> bool:
    """Whether a knob with this condition may be used on this rung."""
    return when == "always" or (when == "when_off" and _is_off(rung, dialect))


def can_continue(rung: Rung, dialect: Dialect) -> bool:
    """Whether a truncated reply of this rung can be resumed from its text."""
    return dialect.continuation is not None and allows(dialect.continuation.when, rung, dialect)


def same_wire(ladder: Sequence[Rung], wires: Mapping[str, str] = _NO_WIRES) -> tuple[tuple[str, ...], ...]:
    """Groups of rung ids that end as one and the same request, in ladder order.

    `wires` maps a model to its stated dialect. Rungs that can't be sent at all are in no group.
    """
    groups: dict[str, list[str]] = {}
    for rung in ladder:
        try:
            params = wire(rung, dialect_for(rung.model, wires.get(rung.model)))
        except PolicyError:
            continue
        key = json.dumps([rung.model, params, rung.instruction, rung.samples], sort_keys=True)
        groups.setdefault(key, []).append(rung.id)
    return tuple(tuple(ids) for ids in groups.values() if len(ids) > 1)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings, nested mappings joined; `second` wins."""
    result = dict(first)
    for key, value in second.items():
        mine = result.get(key)
        result[key] = merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return result


def json_body(params: Mapping[str, Any]) -> dict[str, Any]:
    """`wire`'s parameters as an OpenAI-compatible server receives them: `extra_body` opened into the body."""
    rest = {key: value for key, value in params.items() if key != "extra_body"}
    return merged(rest, params.get("extra_body", {}))


def _templates(rung: Rung, dialect: Dialect) -> Iterator[Mapping[str, Any]]:
    if rung.effort == "none":
        yield dialect.off or {}
        return
    if rung.effort is not None:
        yield dialect.effort or {}
    if rung.thinking_tokens and dialect.budget is not None:
        yield dialect.budget
    elif rung.thinking_tokens and rung.effort is None:
        yield dialect.on or {}


def _filled(template: Any, rung: Rung) -> Any:
    if isinstance(template, Mapping):
        return {key: _filled(value, rung) for key, value in template.items()}
    return {"{effort}": rung.effort, "{tokens}": rung.thinking_tokens}.get(template, template)


def _is_off(rung: Rung, dialect: Dialect) -> bool:
    if rung.effort is not None or rung.thinking_tokens:
        return rung.effort == "none"
    return not dialect.thinks_by_default


def _knobs(rung: Rung, dialect: Dialect) -> Iterator[Issue]:
    yield from _effort_word(rung, dialect)
    yield from _thinking_number(rung, dialect)
    yield from _reserve(rung, dialect)
    yield from _temperature(rung, dialect)


def _effort_word(rung: Rung, dialect: Dialect) -> Iterator[Issue]:
    word = rung.effort
    if word is None:
        return
    if word == "none" and word not in dialect.efforts and dialect.thinking != "none":
        least = next(iter(dialect.efforts), "")
        hint = f"the least it takes is effort '{least}'" if least else f"give thinking_tokens: {dialect.min_thinking}"
        yield Issue("effort", f"thinking can't be switched off on {rung.model}", hint)
    elif word not in dialect.efforts:
        yield Issue(
            "effort", f"effort '{word}' is not supported by {rung.model} ({dialect.name})", _nearest(word, dialect)
        )
    elif dialect.template_words and word != "none":
        text = f"effort '{word}' acts only if the served chat template reads reasoning_effort"
        yield Issue("effort", text, "measure it, or use thinking_tokens", "warning")


def _nearest(word: str, dialect: Dialect) -> str:
    words = [w for w in dialect.efforts if w != "none"]
    if not words and dialect.budget is not None:
        return f"it takes a number: thinking_tokens of at least {dialect.min_thinking}"
    if not words:
        return "remove it, or state the server's dialect with wire"
    if word not in EFFORTS:
        close = get_close_matches(word, dialect.efforts, n=1)
        return f"did you mean '{close[0]}'?" if close else f"one of {', '.join(dialect.efforts)}"
    rank = EFFORTS.index(word)
    return f"the nearest is '{min(words, key=lambda w: abs(EFFORTS.index(w) - rank))}'"


def _thinking_number(rung: Rung, dialect: Dialect) -> Iterator[Issue]:
    tokens, most = rung.thinking_tokens, dialect.max_thinking
    if not tokens:
        return
    if dialect.thinking == "none":
        hint = "set it to 0, or state the server's dialect with wire"
        yield Issue("thinking_tokens", f"{rung.model} ({dialect.name}) has no thinking to limit", hint)
    elif rung.effort == "none":
        yield Issue(
            "thinking_tokens", "effort 'none' switches thinking off, so thinking_tokens is unused", "set it to 0"
        )
    elif dialect.budget is not None and tokens < dialect.min_thinking:
        text = f"{tokens} is under the least thinking budget of {rung.model}, {dialect.min_thinking}"
        yield Issue("thinking_tokens", text, f"give at least {dialect.min_thinking}, or 0 for none")
    elif dialect.budget is not None and most is not None and tokens > most:
        yield Issue(
            "thinking_tokens", f"{tokens} is over the largest thinking budget of {rung.model}", f"at most {most}"
        )


def _reserve(rung: Rung, dialect: Dialect) -> Iterator[Issue]:
    """Thoughts without a reserve, and a reserve without thoughts."""
    thinks = rung.effort not in (None, "none") or (rung.effort is None and dialect.thinks_by_default)
    if thinks and not rung.thinking_tokens:
        text = "thoughts would eat the answer reserve: this rung thinks but has thinking_tokens 0"
        yield Issue("thinking_tokens", text, "reserve tokens for thinking", "warning")
    idle = dialect.on is None and dialect.budget is None and not dialect.thinks_by_default
    if rung.thinking_tokens and rung.effort is None and dialect.thinking == "soft" and idle:
        text = f"{rung.model} does not think unless told to, so thinking_tokens would be unused"
        yield Issue("effort", text, "give an effort, such as 'low'")


def _temperature(rung: Rung, dialect: Dialect) -> Iterator[Issue]:
    value = rung.temperature
    if value is None or value == 1:
        return
    if not allows(dialect.temperature, rung, dialect):
        while_on = " while it thinks" if dialect.temperature == "when_off" else ""
        yield Issue("temperature", f"{rung.model} refuses temperature {value:g}{while_on}", "remove it")
    elif dialect.cautious and value < 1:
        text = f"temperature {value:g} under 1 can make {rung.model} loop"
        yield Issue("temperature", text, "leave it at 1", "warning")


def _limits(rung: Rung, most: int | None, window: int | None) -> Iterator[Issue]:
    asked = f"thinking_tokens + answer_tokens = {rung.max_tokens}"
    if most is not None and rung.max_tokens > most:
        yield Issue(
            "answer_tokens", f"{asked} is over the model's output limit of {most}", f"lower them to {most} in sum"
        )
    if window is not None and rung.max_tokens >= window:
        yield Issue("answer_tokens", f"{asked} leaves no room for the prompt in a window of {window}", "lower them")
