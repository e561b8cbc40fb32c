"""Whether the hooks fire: LiteLLM skips one silently that it does not find where it looks."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from governor.errors import GovernorError

log = logging.getLogger("governor.proxy")

HOOKS = {
    "async_pre_call_hook": ("user_api_key_dict", "cache", "data", "call_type"),
    "async_pre_call_deployment_hook": ("kwargs", "call_type"),
    "async_post_call_failure_deployment_hook": ("request_data", "exception", "call_type"),
    "async_post_call_success_hook": ("data", "user_api_key_dict", "response"),
    "async_post_call_failure_hook": ("request_data", "original_exception", "user_api_key_dict", "traceback_str"),
    "async_post_call_response_headers_hook": ("data", "user_api_key_dict", "response"),
    "async_post_call_streaming_iterator_hook": ("user_api_key_dict", "response", "request_data"),
}
"""The hooks that Governor needs, and the parameters by whose names LiteLLM calls them."""

ASKING = "async_pre_call_deployment_hook"
"""The one that tells that a deployment is asked."""

OLDEST = "1.103"


class UnsupportedProxyError(GovernorError):
    """The installed LiteLLM does not call the hooks that Governor needs."""


@dataclass(slots=True)
class HookWatch:
    """Counts hooks as they fire, and those that should have."""

    seen: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def fired(self, name: str) -> None:
        self.seen[name] += 1

    def silent(self, name: str, why: str) -> None:
        """A hook should have fired and did not: requests go past Governor."""
        self.missed[name] += 1
        log.error("LiteLLM did not call %s: %s", name, why)


def check_hooks(registered: type, base: type) -> None:
    """Raise UnsupportedProxyError where a hook would be skipped, or is none that this LiteLLM knows."""
    for name, parameters in HOOKS.items():
        if name not in vars(registered):
            raise UnsupportedProxyError(f"{registered.__name__} must define {name} itself: an inherited one is skipped")
        known = getattr(base, name, None)
        if known is None or not set(parameters) <= set(inspect.signature(known).parameters):
            raise UnsupportedProxyError(
                f"LiteLLM {installed()} has no {name}({', '.join(parameters)}): Governor needs litellm >= {OLDEST}"
            )


def installed() -> str:
    """The installed LiteLLM's version."""
    try:
        return version("litellm")
    except PackageNotFoundError:
        return "(unknown)"
