"""How often an agent's model may still ask for each tool in this run, and what becomes of calls beyond that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentState
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels.untracked_value import UntrackedValue

from governor.policy import Policy, tool_rule

_SUMMARY = "lc_source"
"""LangChain's mark on messages that no person wrote."""


class CountedState(AgentState[Any]):
    """What an agent remembers of its tools' calls, because messages may be summarised away.

    `governor_begun` lives as long as one invocation: where it is absent, a run begins or is resumed.
    """

    governor_calls: NotRequired[Annotated[dict[str, int], PrivateStateAttr]]
    governor_begun: NotRequired[Annotated[bool, UntrackedValue, PrivateStateAttr]]


def counted(state: Mapping[str, Any]) -> Mapping[str, int]:
    """How often each tool was asked for in this run, by name; a new question begins a new run."""
    messages: Sequence[AnyMessage] = state.get("messages") or ()
    asked = isinstance(messages[-1] if messages else None, HumanMessage)
    if asked and not state.get("governor_begun"):
        return {}
    return state.get("governor_calls") or {}


def calls_left(policy: Policy, names: Iterable[str], so_far: Mapping[str, int]) -> dict[str, int]:
    """Calls that are left of each tool whose number the policy limits."""
    limits = {name: tool_rule(policy, name).max_calls for name in names} if policy.tools else {}
    return {name: max(0, most - so_far.get(name, 0)) for name, most in limits.items() if most is not None}


def unanswerable(message: AIMessage, left: Mapping[str, int]) -> Iterator[ToolMessage]:
    """Answers to the tool calls that may not be carried out: beyond what is left, or with broken arguments."""
    seen: Counter[str] = Counter()
    for call in message.tool_calls:
        name = call["name"]
        seen[name] += 1
        if seen[name] > left.get(name, seen[name]):
            yield _refused(name, call["id"], f"The tool {name} may not be called again: do without it.")
    for broken in message.invalid_tool_calls:
        name = broken["name"] or "unknown"
        yield _refused(name, broken["id"], f"The call of {name} could not be read: {broken['error']}")


def _refused(name: str, call: str | None, text: str) -> ToolMessage:
    return ToolMessage(content=text, name=name, tool_call_id=call or "", status="error")


def carried_out(message: AIMessage, refused: Sequence[ToolMessage]) -> Counter[str]:
    """How often each tool is called now."""
    without = {one.tool_call_id for one in refused}
    return Counter(call["name"] for call in message.tool_calls if call["id"] not in without)


def tool_features(messages: Sequence[AnyMessage]) -> dict[str, int]:
    """What the messages since the last question tell of tools: how many calls, how many of them failed."""
    since: list[AnyMessage] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage) and _SUMMARY not in message.additional_kwargs:
            break
        since.append(message)
    return {
        "tool_calls": sum(len(one.tool_calls) for one in since if isinstance(one, AIMessage)),
        "tool_errors": sum(one.status == "error" for one in since if isinstance(one, ToolMessage)),
    }
