"""One reply per distinct request, shared by all arms of a benchmark: a paired comparison, and half the time.

Every arm is charged in full for what it asks. Only greedy requests are shared: they are the same whatever the seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from governor.protocols import Backend, Delta
from governor.records import Call, Reply, Rung
from governor.telemetry.codec import decode, encode
from governor.telemetry.lines import LineFile


class SharedReplies:
    """A Backend in front of another; replies are kept in the file `path`, one JSON line each."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self._backend = backend
        self._file = LineFile(path)
        self._replies: dict[str, Reply] = {}
        for line in self._file.lines():
            entry = json.loads(line)
            self._replies[entry["request"]] = decode(entry["reply"])

    def call(self, call: Call) -> Reply:
        """The reply drawn before for the same request, else a new one."""
        if call.rung.temperature:
            return self._backend.call(call)
        request = _digest(call)
        if request not in self._replies:
            reply = self._backend.call(call)
            self._replies[request] = reply
            self._file.append(json.dumps({"request": request, "reply": encode(reply)}).encode())
        return self._replies[request]

    async def acall(self, call: Call) -> Reply:
        """The same; benchmarks run one request at a time."""
        return self.call(call)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        """The reply as a stream of one piece."""
        yield self.call(call)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        """The same, for `async for`."""
        yield self.call(call)

    def continues(self, rung: Rung) -> bool:
        return self._backend.continues(rung)

    def close(self) -> None:
        self._file.close()
        self._backend.close()


def _digest(call: Call) -> str:
    rung = call.rung
    asked = [
        rung.model,
        rung.instruction,
        rung.max_tokens,
        rung.answer_tokens,
        [*map(dict, call.messages)],
        call.prefix,
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
