"""What a node is asked and what it says, read from a graph's state without knowing the application."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.types import Command
from pydantic import BaseModel

from governor.records import Message, Reply
from governor_langgraph.messages import messages_of, reply_of

Ask: TypeAlias = Callable[[Any], str | Sequence[Message]]
Read: TypeAlias = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Source:
    """How a step is made of a node's state, and a reply of what the node returned.

    `ask` gives the prompt or messages by which difficulty is estimated and answers are judged (default: the state's
    `messages`, else its values as JSON), `read` the text that is judged (default: the last message that was returned,
    else a single text, else the values as JSON).
    """

    ask: Ask | None = None
    read: Read | None = None

    def messages(self, state: Any) -> tuple[Message, ...]:
        """What is asked, as chat messages."""
        asked = self.ask(state) if self.ask else _asked(state)
        return ({"role": "user", "content": asked},) if isinstance(asked, str) else tuple(asked)

    def reply(self, result: Any) -> Reply:
        """What is judged of a result, without its usage."""
        if self.read:
            return Reply(text=self.read(result))
        said = _last_message(result)
        return Reply(text=_text(result)) if said is None else reply_of(said, None)


def _asked(state: Any) -> Sequence[Message] | str:
    found = values_of(state).get("messages")
    if isinstance(found, list) and found and all(isinstance(one, BaseMessage) for one in found):
        return messages_of(found)
    return _text(state)


def _last_message(result: Any) -> AIMessage | None:
    found = result if isinstance(result, BaseMessage) else values_of(result).get("messages")
    last = found[-1] if isinstance(found, list) and found else found
    return last if isinstance(last, AIMessage) else None


def values_of(state: Any) -> Mapping[str, Any]:
    """The channels of a state or update, whatever it is written as; none of anything else."""
    if isinstance(state, Command):
        return values_of(state.update)
    if isinstance(state, Mapping):
        return state
    if isinstance(state, BaseModel):
        return dict(state)
    return asdict(state) if is_dataclass(state) and not isinstance(state, type) else {}


def _text(state: Any) -> str:
    if isinstance(state, str):
        return state
    values = values_of(state)
    if len(values) == 1 and isinstance(only := next(iter(values.values())), str):
        return only
    return json.dumps(dict(values) if values else state, default=str, ensure_ascii=False)
