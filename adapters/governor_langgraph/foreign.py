"""How a rung is told to a LangChain chat model that is not Governor's own: the keyword arguments of its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel

from governor.errors import PolicyError, UngovernedModelError
from governor.plan.dialects import dialect_for
from governor.plan.effort import merged, wire
from governor.policy import Policy
from governor.records import Call, Rung
from governor_langgraph.chat import BackendChat

OPENAI_KNOBS = frozenset({"max_tokens", "temperature", "reasoning_effort", "extra_body"})
ANTHROPIC_KNOBS = frozenset({"max_tokens", "temperature", "thinking", "output_config"})


def settings(model: BaseChatModel, rung: Rung, policy: Policy) -> dict[str, Any]:
    """What `model.bind(**settings)` takes to be called on `rung`; nothing for a model that Governor governs itself.

    The rung's model has to be this one: it is not named here. UngovernedModelError for a class that is not known to
    take a rung, or a rung that its provider can't be told, unless the policy says `ungoverned: pass`.
    """
    if isinstance(model, BackendChat):
        return {}
    told = _told_how(model)
    if told is None:
        return _ungoverned(model, rung, policy, "")
    facts = policy.models.get(rung.model)
    try:
        return told(wire(rung, dialect_for(rung.model, facts.wire if facts else None)))
    except (PolicyError, _UntoldError) as why:
        return _ungoverned(model, rung, policy, str(why))


def named(model: BaseChatModel, rung: Rung) -> dict[str, Any]:
    """The argument by which a model is called under the name of a rung's; nothing where that is its own.

    UngovernedModelError where the rung's model is another provider's than the one that this class asks.
    """
    provider, _, name = rung.model.rpartition("/")
    own = str(getattr(model, "model_name", None) or getattr(model, "model", ""))
    if own in (name, rung.model):
        return {}
    told = _told_how(model)
    if told is not None and provider in _PROVIDERS[told]:
        return {"model": name}
    raise UngovernedModelError(
        f"{type(model).__name__} ('{own}') can't be called as '{rung.model}', the model of rung '{rung.id}'. "
        "Use governor_langgraph.GovernedChat in its place, or give the step a ladder of its own model"
    )


def asking(model: BaseChatModel, call: Call, *, streamed: bool) -> dict[str, Any]:
    """What one call is told beside its rung, where the model's class takes it: its time limit and its seed."""
    told = _told_how(model)
    limit = {"timeout": call.timeout} if told else {}
    if told not in (_openai, _openai_own):
        return limit
    seed = {"seed": call.seed} if call.seed is not None else {}
    usage = {"stream_usage": True} if streamed else {}  # left to itself it asks OpenAI's own servers alone
    strict = {"strict": True} if call.tools and call.response_schema is not None else {}  # OpenAI's client insists
    return {**limit, **seed, **usage, **strict}


class _UntoldError(ValueError):
    """A class of chat models has no argument for a parameter."""


def _openai(params: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenAI's client has no argument for travels in the body."""
    known = {name: value for name, value in params.items() if name in OPENAI_KNOBS}
    strange = {name: value for name, value in params.items() if name not in OPENAI_KNOBS}
    return {**known, "extra_body": merged(known.get("extra_body", {}), strange)} if strange else known


def _openai_own(params: Mapping[str, Any]) -> dict[str, Any]:
    """The classes for OpenAI's own servers keep the limit under its later name; both names at once are refused."""
    told = _openai(params)
    return {"max_completion_tokens": told.pop("max_tokens"), **told}


def _anthropic(params: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(params)
    if "reasoning_effort" in told:
        told["output_config"] = {"effort": told.pop("reasoning_effort")}
        told.setdefault("thinking", {"type": "adaptive"})  # the word is read by models that think so
    strange = sorted(set(told) - ANTHROPIC_KNOBS)
    if strange:
        raise _UntoldError(f"it has no argument for {', '.join(strange)}")
    return told


_Told: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]
_KNOWN: Mapping[str, _Told] = {
    "BaseChatOpenAI": _openai,
    "ChatOpenAI": _openai_own,
    "AzureChatOpenAI": _openai_own,
    "ChatAnthropic": _anthropic,
}
"""Base classes by name, because importing them would ask for their packages."""

_OPENAI_LIKE = frozenset({"", "openai", "azure", "hosted_vllm", "openrouter"})
_PROVIDERS: Mapping[_Told, frozenset[str]] = {
    _openai: _OPENAI_LIKE,
    _openai_own: _OPENAI_LIKE,
    _anthropic: frozenset({"", "anthropic"}),
}
"""The providers in LiteLLM's names that a class can ask under another model's name."""


def _told_how(model: BaseChatModel) -> _Told | None:
    return next((_KNOWN[one.__name__] for one in type(model).__mro__ if one.__name__ in _KNOWN), None)


def _ungoverned(model: BaseChatModel, rung: Rung, policy: Policy, why: str) -> dict[str, Any]:
    if policy.ungoverned == "pass":
        return {}
    asked = [f"{rung.max_tokens} tokens", *([f"effort '{rung.effort}'"] if rung.effort else [])]
    reason = f": {why}" if why else ""
    raise UngovernedModelError(
        f"{type(model).__name__} can't be told rung '{rung.id}' ({', '.join(asked)}){reason}. "
        "Use governor_langgraph.GovernedChat in its place, or set `ungoverned: pass` in the policy"
    )
