"""`Governor.astream` as a contender: a policy with a budget of answer tokens, a model whose stream says its usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from itertools import count
from typing import cast

from benchmarks.ledger_contenders import MAX_TOKENS, STEP, Model, Served
from governor import Governor, Reply, Usage
from governor.errors import BackendRequestError
from governor.ledger import open_ledger
from governor.ledger.redis_store import AsyncRedisLedger
from governor.policy import Policy, policy_from
from governor.protocols import Delta, Ledger
from governor.records import Call, Rung


def policy(budget: int) -> Policy:
    """A tenant may have so many answer tokens, for good."""
    return policy_from(
        {
            "version": 1,
            "app": "streams",
            "ladder": [{"id": "only", "model": "made/up", "answer_tokens": MAX_TOKENS}],
            "budget": {
                "tenant": {"answer_tokens": budget, "per": "total"},
                "streams": {"quantile": 0.95, "step": STEP},
            },
            "backtrack": {"max_attempts": 1},
        }
    )


class Counted:
    """A Backend over the scripted model, every piece of which says what the call has come to."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.asked: dict[str, tuple[str, int]] = {}
        """Tenant, and tokens that the model would make, by the step's id."""

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        tenant, length = self.asked[call.step_id]
        most = min(length, call.rung.max_tokens)
        async with aclosing(self._model.tokens(tenant, most)) as tokens:
            async for made in tokens:
                yield Delta("tok ", usage=Usage(output_tokens=made))
        reason = "length" if most == call.rung.max_tokens else "stop"
        yield Reply(text="tok " * most, finish_reason=reason, usage=Usage(output_tokens=most))

    async def acall(self, call: Call) -> Reply:
        raise BackendRequestError("this model only streams", model=call.rung.model, sent=False)

    def call(self, call: Call) -> Reply:
        return asyncio.run(self.acall(call))

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        yield self.call(call)

    def counts(self, rung: Rung) -> bool:
        return True

    def continues(self, rung: Rung) -> bool:
        return False

    def close(self) -> None:
        """Nothing to let go of."""


class Governed:
    """One replica of a program that streams through Governor."""

    def __init__(self, model: Model, uri: str, budget: int, replica: int) -> None:
        self._awaited = AsyncRedisLedger(uri) if uri.startswith("redis") else None
        self._backend = Counted(model)
        ledger = cast("Ledger", self._awaited) if self._awaited else open_ledger(uri)  # `adrive` awaits what it gives
        self._governor = Governor(policy(budget), backend=self._backend, ledger=ledger)
        self._ids = (f"{replica}-{number}" for number in count())

    async def warm(self, lengths: Sequence[int]) -> None:
        """Its forecasts are those of the rules."""

    async def serve(self, tenant: str, length: int) -> Served:
        step = next(self._ids)
        self._backend.asked[step] = tenant, length
        stream = self._governor.astream("Go on.", id=step, tenant=tenant)
        tokens = 0
        async for _ in stream:
            tokens += 1
        del self._backend.asked[step]
        outcome = stream.outcome
        if outcome is None or outcome.status == "error":
            raise RuntimeError(f"a stream ended with an error: {outcome.error if outcome else 'no outcome'}")
        return Served(tokens, outcome.refusal.kind if outcome.refusal and not tokens else "")

    async def close(self) -> None:
        if self._awaited:
            await self._awaited.close()
        else:
            self._governor.close()
