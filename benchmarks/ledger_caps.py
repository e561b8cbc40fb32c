"""Fifty calls of $0.50 at once against a session's cap of $1.00: two may be sent, on every store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import reduce

from benchmarks.ledger_crew import ready, together
from benchmarks.ledger_report import Claim, Report, Table
from benchmarks.ledger_stores import every_store
from governor import Governor, Outcome, Reply, Usage
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.protocols import Delta
from governor.records import Call, Rung

CALLS = 50
PROCESSES = 5
ALLOWED = 2
CAP_MICROS = 1_000_000
CALL_SECONDS = 0.1

POLICY = {
    "version": 1,
    "app": "caps",
    "models": {"made/up": {"price": {"input": 0, "output": 500}}},  # 1,000 tokens are $0.50
    "ladder": [{"id": "only", "model": "made/up", "answer_tokens": 1000}],
    "budget": {"session": {"usd": 1.0}},
    "backtrack": {"max_attempts": 1},
}


class Paid:
    """A Backend whose every call costs all it may, and counts those that reach it."""

    sent = 0

    async def acall(self, call: Call) -> Reply:
        self.sent += 1
        await asyncio.sleep(CALL_SECONDS)
        return Reply(text="done", usage=Usage(output_tokens=call.rung.max_tokens))

    def call(self, call: Call) -> Reply:
        return asyncio.run(self.acall(call))

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        yield self.call(call)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        yield await self.acall(call)

    def continues(self, rung: Rung) -> bool:
        return False

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True, slots=True)
class Rush:
    """How one rush on a session ended: calls that were sent, steps refused by kind, and micro-USD booked at the end."""

    sent: int
    refused: Counter[str]
    micros: int

    def beside(self, other: Rush) -> Rush:
        """The two of them together; whoever looked last saw what was booked."""
        return Rush(self.sent + other.sent, self.refused + other.refused, max(self.micros, other.micros))


def rush(_place: int, uri: str, calls: int) -> Rush:
    """One process's share."""
    backend = Paid()
    with Governor(policy_from(POLICY), backend=backend, ledger=open_ledger(uri)) as governor:
        ready()
        outcomes = asyncio.run(_all_at_once(governor, calls))
        booked = governor.ledger.balance("session:caps/one").spent.micros
    return Rush(backend.sent, Counter(one.refusal.kind for one in outcomes if one.refusal), booked)


async def _all_at_once(governor: Governor, calls: int) -> list[Outcome]:
    return await asyncio.gather(*(governor.arun("Go on.", session="one") for _ in range(calls)))


def rushed(uri: str) -> Rush:
    """All calls at once: in one process where the store is its memory, else over five."""
    processes = 1 if uri == "memory://" else PROCESSES
    return reduce(Rush.beside, together(processes, rush, uri, CALLS // processes))


def measure(rounds: int) -> Report:
    """So many rushes on every store."""
    with every_store() as stores:
        found = {name: [rushed(fresh()) for _ in range(rounds)] for name, fresh in stores.items() if fresh}
    rows = tuple(_row(name, rushes) for name, rushes in found.items())
    absent = tuple((f"{name} (no server is installed)", *"-----") for name, fresh in stores.items() if fresh is None)
    note = (
        f"{CALLS} calls of $0.50 at once through `Governor.arun`, one session with a cap of $1.00; over {PROCESSES} "
        f"processes (memory: in one), {rounds} times each."
    )
    head = ("store", "sent", "refused: busy", "refused: spent", "refused: other", "booked")
    return Report((Table("Caps", head, rows + absent, note),), tuple(_claim(*one) for one in found.items()))


def _row(name: str, rushes: list[Rush]) -> tuple[str, ...]:
    kinds = sum((one.refused for one in rushes), Counter[str]())
    other = kinds.total() - kinds["budget_busy"] - kinds["budget_exceeded"]
    booked = ", ".join(f"${micros / 1e6:.2f}" for micros in sorted({one.micros for one in rushes}))
    return name, _sent(rushes), str(kinds["budget_busy"]), str(kinds["budget_exceeded"]), str(other), booked


def _claim(name: str, rushes: list[Rush]) -> Claim:
    met = all((one.sent, one.refused.total(), one.micros) == (ALLOWED, CALLS - ALLOWED, CAP_MICROS) for one in rushes)
    return Claim(text=f"calls sent of {CALLS}, {name}", measured=_sent(rushes), target=f"exactly {ALLOWED}", met=met)


def _sent(rushes: list[Rush]) -> str:
    return ", ".join(str(sent) for sent in sorted({one.sent for one in rushes}))
