"""`Governor.astream` as a contender: a policy with a budget of answer tokens, a model whose stream says its usage.

What it knows of lengths beforehand is what `governor fit` learned from the records of a hundred earlier answers.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import count
from pathlib import Path
from typing import cast

from benchmarks.ledger_contenders import MAX_TOKENS, STEP, Model, Served
from governor import Governor, Reply, Usage
from governor.errors import BackendRequestError
from governor.ledger import open_ledger
from governor.ledger.redis_store import AsyncRedisLedger
from governor.policy import Policy, policy_from
from governor.protocols import Delta, Ledger
from governor.records import Call, Rung


def policy(budget: int, calibration: Path | None = None) -> Policy:
    """A tenant may have so many answer tokens, for good."""
    learned = {"calibration": str(calibration)} if calibration else {}
    return policy_from(
        {
            "version": 1,
            **learned,
            "app": "streams",
            "ladder": [{"id": "only", "model": "made/up", "answer_tokens": MAX_TOKENS}],
            "budget": {
                "tenant": {"answer_tokens": budget, "per": "total"},
                "streams": {"quantile": 0.95, "step": STEP},
            },
            "backtrack": {"max_attempts": 1},
        }
    )


def prompt(number: object) -> str:
    """A question that tells nothing of its answer's length."""
    return f"Go on with story {number}."


def fitted(folder: Path, lengths: Sequence[int]) -> Path:
    """A calibration that `governor fit` made of answers of these lengths; every other one was right."""
    records, out = folder / "records.jsonl", folder / "calibration.npz"
    known = {"rung": "only"}
    rows = (
        known | {"qid": f"q{at}", "question": prompt(f"q{at}"), "correct": at % 2, "output_tokens": tokens}
        for at, tokens in enumerate(lengths)
    )
    records.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [sys.executable, "-m", "governor", "fit", str(records), "-o", str(out), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


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
        self._folder = Path(tempfile.mkdtemp(prefix="governor-streams-"))
        self._made = partial(Governor, backend=self._backend, ledger=ledger)
        self._governor = self._made(policy(budget))
        self._budget = budget
        self._ids = (f"{replica}-{number}" for number in count())

    async def warm(self, lengths: Sequence[int]) -> None:
        """Learns from records of answers of these lengths."""
        learned = await asyncio.to_thread(fitted, self._folder, lengths)
        self._governor = self._made(policy(self._budget, learned))

    async def serve(self, tenant: str, length: int) -> Served:
        step = next(self._ids)
        self._backend.asked[step] = tenant, length
        stream = self._governor.astream(prompt(step), id=step, tenant=tenant)
        tokens = 0
        async for _ in stream:
            tokens += 1
        del self._backend.asked[step]
        outcome = stream.outcome
        if outcome is None or outcome.status == "error":
            raise RuntimeError(f"a stream ended with an error: {outcome.error if outcome else 'no outcome'}")
        return Served(tokens, outcome.refusal.kind if outcome.refusal and not tokens else "")

    async def close(self) -> None:
        shutil.rmtree(self._folder)
        if self._awaited:
            await self._awaited.close()
        else:
            self._governor.close()
