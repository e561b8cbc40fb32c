"""What a client says of sampling and of an answer's form, and which models take it.

A wish changes how likely a text is: a model that does not know it answers as well without it. A demand changes what the
client gets, and is never dropped: a rung that can't meet it is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from governor.plan.dialects import Dialect
from governor.plan.effort import allows
from governor.records import Rung
from governor_litellm.backend import sdk

WISHES = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed"})
DEMANDS = frozenset({"stop", "logprobs", "top_logprobs"})
FORCED = "tool_choice"
"""Stands among a request's demands where it forces a tool on the model."""

_NEUTRAL = ("temperature", "top_p")
"""Of these, 1 is what every model does without them."""

_SAME = {"stop_sequences": "stop"}
"""What other formats call a demand."""

_FREE = ("auto", "none", "allowed_tools")


def lacking(model: str) -> frozenset[str]:
    """What LiteLLM refuses of a chat request to this model, as LiteLLM names it; nothing where it does not know it."""
    litellm = sdk()
    try:
        name, provider, *_ = litellm.get_llm_provider(model)
        taken = litellm.get_supported_openai_params(name, provider)
    except Exception:  # noqa: BLE001 - of a model that it does not know it raises errors of many kinds
        taken = None
    return frozenset() if taken is None else (WISHES | DEMANDS).difference(taken)


def cooled(rung: Rung, dialect: Dialect, data: Mapping[str, Any]) -> dict[str, Any]:
    """The client's wishes are dropped where the rung's model would refuse the request for them."""
    dropped = [name for name in dialect.lacks & WISHES if data.get(name) is not None]
    dropped += [name for name in dialect.lacks & DEMANDS if data.get(name) is not None and not data[name]]
    if not allows(dialect.temperature, rung, dialect):
        dropped += [name for name in _NEUTRAL if data.get(name) not in (None, 1)]
        dropped += ["top_k"] if data.get("top_k") is not None else []
    return dict.fromkeys(sorted(dropped))


def demands(data: Mapping[str, Any], tool_choice: Any) -> frozenset[str]:
    """What a request asks for that no model may leave out."""
    said = {_SAME.get(name, name) for name in (*DEMANDS, *_SAME) if data.get(name)}
    return frozenset(said | {FORCED} if _forces(tool_choice) else said)


def able(ladder: tuple[Rung, ...], spoken: Mapping[str, Dialect], asked: frozenset[str]) -> tuple[Rung, ...]:
    """The rungs whose models take what is asked for; all where none does: the model itself will then say so.

    `spoken` are the dialects by the rungs' models.
    """
    if not asked:
        return ladder
    return tuple(rung for rung in ladder if _takes(rung, spoken[rung.model], asked)) or ladder


def _takes(rung: Rung, dialect: Dialect, asked: frozenset[str]) -> bool:
    if asked & dialect.lacks or (FORCED in asked and not allows(dialect.forces, rung, dialect)):
        return False
    return "logprobs" not in asked or dialect.logprobs != "when_off" or allows("when_off", rung, dialect)


def _forces(choice: Any) -> bool:
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return isinstance(kind, str) and kind not in _FREE
