"""The operator's guardrails: what they made of a request goes into every call, and they see the answer that ships."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

CONTENT = frozenset({"messages", "input", "instructions", "system", "prompt", "tools", "functions"})
"""The fields that say something to a model."""

SYSTEM = frozenset({"system", "developer"})
SCREENING = "screening"


class ScreenedError(Exception):
    """Ends a second round of post-call hooks where it comes to Governor's own: guardrails come before it."""

    def __init__(self, response: Any) -> None:
        super().__init__("every hook before this one let the answer pass")
        self.response = response


def as_sent(kept: Mapping[str, Any], data: Mapping[str, Any], instruction: str | None) -> Mapping[str, Any]:
    """The client's own fields with the content that the first call had, but for the `instruction` of its rung.

    Guardrails may come after Governor and put other content in the place of what it saw. What they mask inside of it is
    masked in `kept` too.
    """
    names = [name for name in sorted(CONTENT & data.keys()) if data[name] is not kept.get(name)]
    if not names:
        return kept
    changed = {name: _uninstructed(data[name], instruction) for name in names}
    rest = {name: value for name, value in kept.items() if name not in changed}
    return {**rest, **{name: value for name, value in changed.items() if value}}


async def screened(data: Any, mark: MutableMapping[str, Any], user: Any, response: Any) -> Any:
    """An answer of a further attempt, as the guardrails and all hooks before Governor's let it pass.

    They have seen the first attempt's alone. Raises what they raise.
    """
    hooks = getattr(sys.modules.get("litellm.proxy.proxy_server"), "proxy_logging_obj", None)
    if hooks is None:
        return response
    mark[SCREENING] = True
    try:
        return await hooks.post_call_success_hook(data=data, response=response, user_api_key_dict=user)
    except ScreenedError as passed:
        return passed.response
    finally:
        del mark[SCREENING]


def _uninstructed(said: Any, instruction: str | None) -> Any:
    """A system text, its parts, or a conversation with one, as it was before the instruction was put to its end."""
    if not instruction:
        return said
    if isinstance(said, str):
        return said.removesuffix(instruction).removesuffix("\n\n") if said.endswith(instruction) else said
    if not isinstance(said, Sequence):
        return said
    if said and isinstance(said[-1], Mapping) and said[-1].get("text") == instruction:
        return list(said[:-1])
    place = next((at for at, one in enumerate(said) if isinstance(one, Mapping) and one.get("role") in SYSTEM), None)
    if place is None:
        return said
    content = _uninstructed(said[place].get("content"), instruction)
    told = [{**said[place], "content": content}] if content else []
    return [*said[:place], *told, *said[place + 1 :]]
