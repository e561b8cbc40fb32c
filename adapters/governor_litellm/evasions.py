"""Ways past what is held for a request, closed: limits said twice, dearer service, other models, more retries.

LiteLLM merges `extra_body` over a request, and hands fields that it does not know to the model's server as they are. A
limit may so be said once more, under its own name or another server's, where only the model sees it. What stands there
counts as if it stood in its own place, and is sent nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from governor_litellm.wires import Fields, Wire
from governor_litellm.wires.contract import UnreadableError, extra_body, smallest

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

OTHER_MODELS = frozenset(
    {"fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "models", "route", "plugins"}
)
"""A client's own list of models, with settings of their own: which model answers is the policy's choice."""

RETRIES = frozenset({"num_retries", "max_retries", "retry_policy", "model_group_retry_policy", "retry_strategy"})
"""What a client may say to LiteLLM of how often a call that failed is sent again: each time may be paid for."""

OVERRIDE = "router_settings_override"
"""LiteLLM's settings of one request: a key's or a team's where it has some, else what the client sent."""

CHEAP_SERVICE: Mapping[str, frozenset[str]] = {
    "service_tier": frozenset({"auto", "default", "flex", "standard_only"}),
    "speed": frozenset({"standard"}),
    "serviceTier": frozenset(),
    "performanceConfig": frozenset(),
    "prediction": frozenset(),  # what the answer does not keep of it is paid for as output, beside the answer
}
"""Services that cost what the price list says, or less; all others of their kind are taken out."""

PLACE, ANYWHERE = "inference_geo", "global"
"""Where a model is to run: Anthropic charges more for one country. Who asks for it may have to: never left out."""

DROPPING = "additional_drop_params"
"""Names of fields that LiteLLM is to leave out, or paths to such: `.max_tokens` is one."""

_PATH = re.compile(r"[.\[\]]+")

_UNWEIGHED = frozenset(
    {
        *("previous_response_id", "conversation", "prompt", "cached_content", "cachedContent", "vector_store_ids"),
        *("search_parameters", "litellm_system_prompt", "documents", "contents", "chat_template"),
        *("systemInstruction", "system_instruction", "compaction"),
    }
)
_EDITS, _CLEARING = "context_management", "clear_"
"""Edits of the conversation, and what those are called that only leave something out of it."""

_KWARGS = "chat_template_kwargs"
_FEW_BYTES = 1000
"""Switches of a chat template; more is text."""

_MOVED = OUTPUT | CHOICES | {"messages", "input", "instructions", "system", "thinking", "reasoning", "reasoning_effort"}
"""What is sent from the request's own place alone, as a rung changes it there."""

_THOUGHT = re.compile("think|reasoning", re.IGNORECASE)
_SILENT: Mapping[str, tuple[Any, ...]] = {
    "thinking": ({"type": "disabled"}, False),
    "enable_thinking": (False,),
    "reasoning": ({"effort": "none"}, {"enabled": False}),
    "reasoning_effort": ("none",),
}
"""How it is said that no thought is wanted."""

_HARMLESS = frozenset({"effort", "summary", "generate_summary"})
"""What of `reasoning` makes no model think that a rung does not make think."""

_NEVER = frozenset({"stream", "stream_options", "model"})
_TOLD = frozenset(
    {
        *(OUTPUT | CHOICES | NESTS | OTHER_MODELS | RETRIES | CHEAP_SERVICE.keys()),
        *(PLACE, DROPPING, OVERRIDE, "extra_body"),
    }
)


def closed(data: Mapping[str, Any], wire: Wire) -> Fields:
    """The fields of a request that change so that nothing goes past what is held; None takes a field out.

    Empty for a request that tries nothing of the kind. UnreadableError for a dearer place, or a bad `extra_body`.
    """
    if not _TOLD & (data.keys() - wire.reads):
        return {}
    extra = extra_body(data)
    lifted = {name: value for name, value in extra.items() if name in wire.reads & _MOVED}
    rest = {name: value for name, value in extra.items() if name not in _NEVER and not _moves(name, value, wire)}
    beside = {name: value for name, value in data.items() if name not in wire.reads and name != "extra_body"}
    changes = {name: kept for name, value in beside.items() if (kept := _kept(name, value)) is not value}
    kept_extra = _without_nones({name: _kept(name, value) for name, value in rest.items()})
    return {
        **changes,
        **({OVERRIDE: None} if _is_the_clients(data, OVERRIDE) else {}),
        **({"extra_body": kept_extra or None} if kept_extra != extra else {}),
        **lifted,
        **_output({**data, **lifted}, beside, rest, wire),
        **_choices({**data, **lifted}, beside, rest, wire),
    }


def weighed(data: Mapping[str, Any], wire: Wire) -> Mapping[str, Any]:
    """The request as a model will read it, what stays in `extra_body` in the place of its own fields."""
    restated = {name: value for name, value in extra_body(data).items() if name in wire.reads}
    return {**data, **restated} if restated else data


def unweighed(data: Mapping[str, Any]) -> str:
    """The first field by which a model reads what nobody has weighed; empty where there is none."""
    return next((name for held in (data, extra_body(data)) for name in _unweighed(held)), "")


def thinks(data: Mapping[str, Any], wire: Wire) -> bool:
    """Whether what is sent as the client said it may make a model think, or hide what it thinks."""
    reasoning = data.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.keys() - _HARMLESS and reasoning not in _SILENT["reasoning"]:
        return True
    waiting: list[Mapping[str, Any]] = [{name: value for name, value in data.items() if name not in wire.reads}]
    while waiting:  # no recursion: a client's objects may be as deep as they like
        held = waiting.pop()
        if any(_THOUGHT.search(name) and value not in _SILENT.get(name, ()) for name, value in held.items()):
            return True
        waiting += (value for value in held.values() if isinstance(value, Mapping))
    return False


def applied(data: Mapping[str, Any], changes: Fields) -> Mapping[str, Any]:
    """The request with these changes; the very same one where there are none."""
    return _without_nones({**data, **changes}) if changes else data


def _unweighed(fields: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in sorted(_UNWEIGHED & fields.keys()) if fields[name])
    kwargs = fields.get(_KWARGS)
    if kwargs and len(json.dumps(kwargs, default=str)) > _FEW_BYTES:
        yield _KWARGS
    if _compacts(fields.get(_EDITS)):
        yield _EDITS


def _compacts(given: Any) -> bool:
    """Whether edits of the conversation have a model write it anew: it reads the whole once more, and is paid."""
    edits = given.get("edits") if isinstance(given, Mapping) else given
    listed = edits if isinstance(edits, list) else [edits] if edits else []
    kinds = (edit.get("type") if isinstance(edit, Mapping) else None for edit in listed)
    return not all(isinstance(kind, str) and kind.startswith(_CLEARING) for kind in kinds)


def _moves(name: str, value: Any, wire: Wire) -> bool:
    """Whether a field of `extra_body` is sent from the request's own place.

    That no thought is wanted is said there too, for servers that know the word and have no other.
    """
    silent = name == "thinking" and isinstance(value, Mapping) and value.get("type") == "disabled"
    return name in wire.reads & _MOVED and not silent


def _is_the_clients(data: Mapping[str, Any], name: str) -> bool:
    """Whether a field is as the client sent it; LiteLLM may have put something else there."""
    request = data.get("proxy_server_request")
    sent = request.get("body") if isinstance(request, Mapping) else None
    return isinstance(sent, Mapping) and data.get(name) is not None and sent.get(name) == data[name]


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
    nests = (value for name, value in fields.items() if name in NESTS and isinstance(value, Mapping))
    for held in (fields, *nests):
        yield from (value for name, value in held.items() if name in names)


def _kept(name: str, value: Any, *, nested: bool = False) -> Any:
    """What may be sent of a field; None for nothing."""
    if name in OUTPUT | CHOICES | OTHER_MODELS:
        return None
    if name in RETRIES:
        return value if value == 0 else None  # no more than the operator's, but none at all where that is wanted
    if name in CHEAP_SERVICE:
        return value if isinstance(value, str) and value in CHEAP_SERVICE[name] else None
    if name == PLACE and value not in (None, ANYWHERE):
        text = f"{PLACE} must be {ANYWHERE}: another costs more than the policy says; a model of the proxy may have it"
        raise UnreadableError(text)
    if name == DROPPING:
        listed = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
        return [one for one in listed if isinstance(one, str) and not (OUTPUT | CHOICES) & {*_PATH.split(one)}]
    if name in NESTS and isinstance(value, Mapping) and not nested:
        return {inner: kept for inner, held in value.items() if (kept := _kept(inner, held, nested=True)) is not None}
    return value


def _without_nones(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
