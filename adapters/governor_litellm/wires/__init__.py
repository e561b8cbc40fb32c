"""The three request formats that are governed, each behind one interface.

contract.py    Wire: what a format has to tell and to do
chat.py        /v1/chat/completions
responses.py   /v1/responses
messages.py    /v1/messages
parts.py       what of a conversation lies elsewhere
items.py       the output of a response, as its stream builds it up
sse.py         server-sent events in raw bytes
"""

from __future__ import annotations

from collections.abc import Mapping

from governor_litellm.wires.chat import ChatWire
from governor_litellm.wires.contract import Asking, Chunks, Fields, UnreadableError, Wire
from governor_litellm.wires.messages import MessagesWire
from governor_litellm.wires.responses import ResponsesSocket, ResponsesWire

WIRES: Mapping[str, Wire] = {wire.call_type: wire for wire in (ChatWire(), ResponsesWire(), MessagesWire())}
"""By LiteLLM's call type; a call of any other type is left alone."""

UNGOVERNED: Mapping[str, Wire] = {wire.call_type: wire for wire in (ResponsesSocket(),)}
"""The formats where they come in such a way that nothing can be governed: no way past a budget."""

__all__ = ["UNGOVERNED", "WIRES", "Asking", "Chunks", "Fields", "UnreadableError", "Wire"]
