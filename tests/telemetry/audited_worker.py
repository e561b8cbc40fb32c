"""A journaled run of a few steps that dies without a word at its nth call (0: never): `audited_worker.py FOLDER N`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from governor import Governor, Reply, Usage
from governor.drivers import drive
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.records import Call, Step
from governor.telemetry.journal import Journal
from governor.telemetry.records import JsonlSink
from governor.testing import ScriptedBackend

RUNG = {"answer_tokens": 100, "price": {"input": 1, "output": 2}}
RULES = {
    "version": 1,
    "app": "desk",
    "dial": 0.1,
    "ladder": [{"id": "low", "model": "m/s", **RUNG}, {"id": "high", "model": "m/l", **RUNG}],
    "budget": {"session": {"usd": 1}, "app": {"per": "total", "usd": 5}},
}


def run(folder: Path, dies_at: int) -> None:
    calls = 0

    def answer(call: Call) -> Reply:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            os._exit(9)
        return Reply(text="204" if call.rung.id == "high" else "214", usage=Usage(30, 9, 2), seconds=0.25)

    governor = Governor(
        policy_from(RULES),
        backend=ScriptedBackend(answer),
        ledger=open_ledger(f"sqlite:///{folder}/b.db"),
        sinks=[JsonlSink(folder / "r.jsonl")],
    )
    journal = Journal.open(folder / "journal")
    for number in range(3):
        messages = ({"role": "user", "content": "What is 12 * 17?"},)
        step = Step(id=f"s-{number}", messages=messages, session="9", checks=({"arithmetic": "12 * 17"},))
        drive(governor.process(step), journal.performer(step.id, governor.ports().perform))
    journal.close()
    governor.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
