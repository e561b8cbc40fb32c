"""Call -> keyword arguments of litellm.completion and litellm.acompletion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from governor.errors import BackendAuthError, BackendRequestError, PolicyError, Problem
from governor.plan.bounds import output_bound
from governor.plan.dialects import Dialect, dialect_for
from governor.plan.effort import allows, can_continue, merged, wire
from governor.plan.messages import messages_of
from governor.records import Call

NO_RETRIES = {"InternalServerErrorRetries": 0}
"""Zero `num_retries` gives way to an application's `litellm.num_retries`; a policy of zeros does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How one model is reached: its server, the environment variable that holds its key, and its dialect.

    Without `api_key_env` LiteLLM reads the provider's own variable (OPENAI_API_KEY, ...). `extra_body` joins each
    request's body (`chat_template_kwargs`, `vllm_xargs`, ...).
    """

    api_base: str | None = None
    api_key_env: str | None = None
    wire: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, model: str, values: Mapping[str, Any]) -> ModelOptions:
        """Options from a mapping; PolicyError names a key that is none."""
        known = {item.name for item in fields(cls)}
        strange = sorted(set(values) - known)
        if strange:
            hint = f"one of {', '.join(sorted(known))}"
            raise PolicyError(
                [Problem(f"unknown option '{key}'", field=f"models.{model}", hint=hint) for key in strange]
            )
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Target:
    """A model with its options and its row of the effort table."""

    model: str
    options: ModelOptions
    dialect: Dialect

    @classmethod
    def of(cls, model: str, options: ModelOptions) -> Target:
        """PolicyError if the options state a dialect that does not exist."""
        return cls(model, options, dialect_for(model, options.wire))

    @property
    def routed(self) -> str:
        """The model's name as LiteLLM must be given it to speak this dialect."""
        route = self.dialect.route
        return self.model if self.model.startswith(route) else route + self.model.removeprefix("openai/")

    def key(self) -> str | None:
        """The key from the stated variable; None leaves it to LiteLLM. Raises BackendAuthError if it is not set."""
        name = self.options.api_key_env
        if name is None:
            return "none" if self.options.api_base and self.model.startswith("openai/") else None
        value = os.environ.get(name)
        if not value:
            text = f"{self.model}: the environment variable {name} (api_key_env) is not set"
            raise BackendAuthError(text, model=self.model, sent=False)
        return value


def arguments(call: Call, target: Target) -> dict[str, Any]:
    """Everything but key, timeout and streaming. Raises BackendRequestError for what can't be sent as asked."""
    dialect = target.dialect
    try:
        params = wire(call.rung, dialect)
    except PolicyError as refused:
        raise BackendRequestError(f"{target.model}: {refused}", model=target.model, sent=False) from refused
    extra = merged(target.options.extra_body, params.get("extra_body", {}))
    if call.prefix:
        extra = merged(extra, _resumed(call, target))
    return {
        **params,
        "max_tokens": output_bound(call),
        "model": target.routed,
        "messages": messages_of(call, dialect),
        **_asked(call, dialect),
        **({"api_base": target.options.api_base} if target.options.api_base else {}),
        **({"extra_body": extra} if extra else {}),
        "max_retries": 0,
        "num_retries": 0,
        "retry_policy": dict(NO_RETRIES),
        "drop_params": False,
    }


def _resumed(call: Call, target: Target) -> Mapping[str, Any]:
    resume = target.dialect.continuation
    if resume is None or not can_continue(call.rung, target.dialect):
        text = f"{target.model}: a truncated reply can't be continued by {target.dialect.name} on this rung"
        raise BackendRequestError(text, model=target.model, sent=False)
    return resume.request


def _asked(call: Call, dialect: Dialect) -> dict[str, Any]:
    """Tools, schema, seed and logprobs; the last two are wishes, and only sent where they are accepted."""
    asked: dict[str, Any] = {}
    if call.tools:
        asked["tools"] = [dict(tool) for tool in call.tools]
        if call.tool_choice is not None:
            asked["tool_choice"] = call.tool_choice
    if call.response_schema is not None:
        schema = {"name": "answer", "schema": dict(call.response_schema)}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    if call.seed is not None and dialect.seed:
        asked["seed"] = call.seed
    if call.logprobs and allows(dialect.logprobs, call.rung, dialect):
        asked["logprobs"] = True
        if call.top_logprobs:
            asked["top_logprobs"] = call.top_logprobs
    return asked
