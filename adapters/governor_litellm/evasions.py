"""Ways past what is held for a request, closed: limits said twice, dearer service, other models.

LiteLLM merges `extra_body` over a request, and hands fields that it does not know to the model's server as they are. A
limit may so be said once more, under its own name or another server's, where only the model sees it. What stands there
counts as if it stood in its own place, and is sent nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from governor_litellm.wires import Fields, Wire
from governor_litellm.wires.contract import extra_body, smallest

OUTPUT = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample"),
        *("max_gen_len", "max_length", "n_predict", "num_predict", "maxTokens", "maxOutputTokens", "maxTokenCount"),
    }
)
"""What servers call the most output tokens."""

CHOICES = frozenset(
    {"n", "best_of", "num_return_sequences", "num_generations", "numResults", "candidate_count", "candidateCount"}
)
"""What they call the number of answers."""

NESTS = frozenset(
    {
        *("options", "parameters", "generationConfig", "generation_config", "inferenceConfig"),
        *("textGenerationConfig", "additionalModelRequestFields"),
    }
)
"""Fields in which some servers keep such settings."""

OTHER_MODELS = frozenset({"fallbacks", "context_window_fallbacks", "content_policy_fallbacks"})
"""A client's own list of models, with settings of their own: which model answers is the policy's choice."""

CHEAP_SERVICE: Mapping[str, frozenset[str]] = {
    "service_tier": frozenset({"auto", "default", "flex", "standard_only"}),
    "speed": frozenset({"standard"}),
}
"""Services that cost what the price list says, or less; all others of their kind are taken out."""

DROPPING = "additional_drop_params"
"""Names of fields that LiteLLM is to leave out."""

_LIFTED_NEVER = frozenset({"stream", "stream_options"})
_TOLD = OUTPUT | CHOICES | NESTS | OTHER_MODELS | CHEAP_SERVICE.keys() | {DROPPING, "extra_body"}


def closed(data: Mapping[str, Any], wire: Wire) -> Fields:
    """The fields of a request that change so that nothing goes past what is held; None takes a field out.

    Empty for a request that tries nothing of the kind. UnreadableError where `extra_body` is none.
    """
    if not _TOLD & (data.keys() - wire.reads):
        return {}
    extra = extra_body(data)
    lifted = {name: value for name, value in extra.items() if name in wire.reads}
    rest = {name: value for name, value in extra.items() if name not in wire.reads | _LIFTED_NEVER}
    beside = {name: value for name, value in data.items() if name not in wire.reads and name != "extra_body"}
    changes = {name: kept for name, value in beside.items() if (kept := _kept(name, value)) is not value}
    kept_extra = _without_nones({name: _kept(name, value) for name, value in rest.items()})
    return {
        **changes,
        **({"extra_body": kept_extra or None} if kept_extra != extra else {}),
        **lifted,
        **_output({**data, **lifted}, beside, rest, wire),
        **_choices({**data, **lifted}, beside, rest, wire),
    }


def applied(data: Mapping[str, Any], changes: Fields) -> Mapping[str, Any]:
    """The request with these changes; the very same one where there are none."""
    return _without_nones({**data, **changes}) if changes else data


def _output(data: Mapping[str, Any], beside: Fields, rest: Fields, wire: Wire) -> Fields:
    """The limit of the output that is told under other names, with the request's own the smallest."""
    told = [*_named(OUTPUT, beside), *_named(OUTPUT, rest)]
    least = smallest(data.get(wire.limit), *told)
    return {wire.limit: least} if told and least is not None else {}


def _choices(data: Mapping[str, Any], beside: Fields, rest: Fields, wire: Wire) -> Fields:
    """Several answers asked for under other names are so many."""
    several = [value for value in (*_named(CHOICES, beside), *_named(CHOICES, rest)) if value not in (None, 1)]
    return {"n": data.get("n") or several[0]} if several and "n" in wire.reads else {}


def _named(names: frozenset[str], fields: Mapping[str, Any]) -> Iterator[Any]:
    """The values of fields with these names, and of those in the places where servers keep more of them."""
    for name, value in fields.items():
        if name in names:
            yield value
        elif name in NESTS and isinstance(value, Mapping):
            yield from _named(names, value)


def _kept(name: str, value: Any) -> Any:
    """What may be sent of a field; None for nothing."""
    if name in OUTPUT | CHOICES | OTHER_MODELS:
        return None
    if name in CHEAP_SERVICE:
        return value if isinstance(value, str) and value in CHEAP_SERVICE[name] else None
    if name == DROPPING:
        listed = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
        return [one for one in listed if isinstance(one, str) and one not in OUTPUT | CHOICES]
    if name in NESTS and isinstance(value, Mapping):
        return {inner: kept for inner, held in value.items() if (kept := _kept(inner, held)) is not None}
    return value


def _without_nones(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
