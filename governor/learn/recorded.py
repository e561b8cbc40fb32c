"""The recorded world: answers the loop's effects for one recorded item, so that the loop itself is what is replayed.

An item is a (question, sample). The first call of a rung gets the item's own sample of it, further calls the samples
after it, in a circle; once all are used the rung is unavailable. Costs are read off the table, never off usage.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from governor.climb import Mind
from governor.drivers import drive
from governor.effects import CallModel, Effect, Now, Process, Reserve
from governor.errors import BackendRequestError
from governor.learn.costs import LOOK, mean_costs
from governor.learn.ladder import Checking, Ladder, RungCost
from governor.learn.table import Flags, Table
from governor.learn.verdicts import accepts, equal, rates
from governor.loop import govern
from governor.protocols import Reservation, Terms
from governor.records import Amount, BacktrackMode, Call, Outcome, Price, Reply, Rung, Step, Usage, Verdict

APP = "replay"

_ROOM = 1_000_000  # tokens of an answer: what a rung's cap was is not recorded

_GRANTED = Reservation(key="", amount=Amount(), state="open")
_ACCEPT = Verdict(decision="accept", verifier="recorded")
_REJECT = Verdict(decision="reject", verifier="recorded")


def rungs_of(ladder: Ladder, train: Table) -> tuple[Rung, ...]:
    """The rungs from cheap to dear by their mean cost on training questions, each named as in the ladder file.

    Every rung is a model of its own; budgets of one thought share one model and differ in thinking tokens.
    """
    order = np.argsort(mean_costs(train), kind="stable").tolist()
    return tuple(_rung(ladder, train.rungs[k], float(np.nan_to_num(train.cost[:, k]).max(initial=0.0))) for k in order)


def _rung(ladder: Ladder, name: str, longest: float) -> Rung:
    if ladder.continues:
        return Rung(id=name, model=ladder.name, thinking_tokens=math.ceil(longest), answer_tokens=0)
    price = ladder.costs[name] if ladder.unit == "usd" else RungCost()
    return Rung(
        id=name,
        model=name,
        answer_tokens=_ROOM,
        price=Price(price.input_per_million, price.output_per_million),
    )


def terms_of(ladder: Ladder, rungs: tuple[Rung, ...], base: Terms | None = None) -> Terms:
    """Terms under which nothing but the decision matters: no limit, no deadline, as many attempts as there are rungs.

    Of `base`, a policy's terms, only what decides is kept: dial, keep, harm, backtracks, attempts, difficulty.
    """
    modes: tuple[BacktrackMode, ...] = ("more",) if ladder.continues else ("more", "fresh", "again", "agree", "compare")
    if base is None:
        return Terms(
            app=APP,
            ladder=rungs,
            harm=ladder.harm,
            modes=modes,
            max_attempts=3 * len(rungs),
            one_thought=ladder.continues,
        )
    return Terms(
        app=APP,
        ladder=rungs,
        dial=base.dial,
        keep=base.keep,
        harm=base.harm,
        modes=tuple(mode for mode in modes if mode in base.modes or ladder.continues),
        max_attempts=base.max_attempts,
        difficulty=base.difficulty,
        one_thought=ladder.continues,
    )


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Recorded questions under one verifier. `accepts` (Q, K, S) are its verdicts where it decides by itself.

    `rates` are the verifier's sensitivity and false-accept rate as far as the governor knows them; `rungs` are those
    of `rungs_of`; `answered` (K,) says which rungs have recorded answers that could be compared.
    """

    table: Table
    ladder: Ladder
    rungs: tuple[Rung, ...]
    rates: tuple[float, float]
    accepts: Flags | None
    usable: Flags
    answered: Flags
    at: Mapping[str, int]
    ladders: dict[tuple[bytes, bytes], tuple[Rung, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table, ladder: Ladder, train: Table, seed: int) -> World:
        """The questions of `table`; rungs are ordered, and rates that nobody states measured, on `train`."""
        answered = np.array([any(table.answers[:, k].flat) for k in range(len(table.rungs))], dtype=np.bool_)
        return cls(
            table=table,
            ladder=ladder,
            rungs=rungs_of(ladder, train),
            rates=rates(ladder.checking, train),
            accepts=accepts(ladder.checking, table, seed),
            usable=table.usable,
            answered=answered | (ladder.checking.kind != "none"),
            at={rung: k for k, rung in enumerate(table.rungs)},
        )

    @property
    def checking(self) -> Checking:
        return self.ladder.checking

    def step(self, question: int) -> Step:
        """The question as a step. All that a forecast could read of it is the text and the node."""
        message = {"role": "user", "content": self.table.questions[question]}
        return Step(id=f"{APP}-{question}", messages=(message,), node=self.table.nodes[question])

    def offered(self, question: int) -> tuple[Rung, ...]:
        """The rungs that can be called. One whose second attempt is not recorded counts as deterministic."""
        draws = 2 if self.checking.kind == "agreement" else 1
        recorded = self.usable[question].sum(axis=1)
        once, twice = recorded >= draws, (recorded >= 2 * draws) & self.answered
        key = once.tobytes(), twice.tobytes()
        if key not in self.ladders:  # the same object for all questions alike: curves are made once a ladder
            self.ladders[key] = tuple(
                rung if twice[self.at[rung.id]] else replace(rung, temperature=0.0)
                for rung in self.rungs
                if once[self.at[rung.id]]
            )
        return self.ladders[key]

    def items(self, question: int) -> list[int]:
        """The samples of this question that any rung has."""
        found: list[int] = np.flatnonzero(self.usable[question].any(axis=0)).tolist()
        return found

    def drawn(self, question: int, rung: int, sample: int, used: Collection[int] = ()) -> int | None:
        """The next sample of a rung that this item has not used."""
        usable = self.usable[question, rung]
        circle = ((sample + turn) % usable.size for turn in range(usable.size))
        return next((s for s in circle if usable[s] and s not in used), None)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A recorded attempt that a call was answered with: rung and sample by their place in the table."""

    rung: int
    sample: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Take:
    """How an item ended: cost in the ladder's unit, whether what shipped is right, and which rungs were called."""

    cost: float
    correct: float
    accepted: bool
    rungs: tuple[int, ...]


@dataclass(slots=True)
class Stage:
    """One question, whose items are played one after the other. Mutable, owned by one `play`."""

    world: World
    question: int
    sample: int = 0
    shown: list[Shown] = field(default_factory=list)
    verdicts: int = 0

    def play(self, sample: int, step: Step, terms: Terms, mind: Mind) -> Take:
        """One item through the governor's own loop."""
        self.sample, self.shown, self.verdicts = sample, [], 0
        return self.take(drive(govern(step, terms, mind), self.perform))

    def perform(self, effect: Effect) -> Any:
        """Answer an effect. Nothing is limited, nothing recorded, and no time passes."""
        if isinstance(effect, CallModel):
            return self._answer(effect.call)
        if isinstance(effect, Reserve):
            return _GRANTED
        return 0.0 if isinstance(effect, Now) else None

    def take(self, outcome: Outcome) -> Take:
        """What the outcome cost and was worth, by the table."""
        table = self.world.table
        right = 0.0
        for one in self.shown:
            if one.reply is outcome.reply:
                right = float(table.correct[self.question, one.rung, one.sample])
        return Take(self._cost(), right, outcome.status == "accepted", tuple(one.rung for one in self.shown))

    def answer(self, one: Shown) -> str | None:
        """The recorded normalised answer."""
        found: str | None = self.world.table.answers[self.question, one.rung, one.sample]
        return found

    def _cost(self) -> float:
        table, ladder = self.world.table, self.world.ladder
        costs = [float(table.cost[self.question, one.rung, one.sample]) for one in self.shown]
        checked = ladder.checking.cost * self.verdicts
        if not ladder.continues:
            return sum(costs) + checked
        return max(costs, default=0.0) + LOOK * max(len(costs) - 1, 0) + checked

    def _answer(self, call: Call) -> Reply:
        k = self.world.at[call.rung.id]
        if self.world.ladder.continues and self._ended():
            raise BackendRequestError("the thought has ended", model=call.rung.model, sent=False)
        s = self.world.drawn(self.question, k, self.sample, {one.sample for one in self.shown if one.rung == k})
        if s is None:
            raise BackendRequestError("no further attempt is recorded", model=call.rung.model, sent=False)
        self.shown.append(Shown(k, s, self._reply(k, s)))
        return self.shown[-1].reply

    def _ended(self) -> bool:
        finished = self.world.table.finished
        return any(finished[self.question, one.rung, one.sample] for one in self.shown)

    def _reply(self, k: int, s: int) -> Reply:
        table, q = self.world.table, self.question
        tokens = table.output_tokens[q, k, s]
        ended = bool(table.finished[q, k, s]) or not self.world.ladder.continues
        return Reply(
            # What was written is not recorded, but that something was: an answer that could not be read is no silence.
            text=table.answers[q, k, s] or f"not recorded ({table.rungs[k]}, {s})",
            # A thought that was cut gave its answer all the same, so that it is whole as far as the loop goes.
            finish_reason="stop" if ended else "budget",
            usage=Usage(output_tokens=0 if np.isnan(tokens) else int(tokens)),
            model=table.rungs[k],
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """The Verifier (governor.protocols) of a stage: its verdicts are read off the table or drawn beforehand."""

    stage: Stage
    name: str = "recorded"
    needs_whole_answer: bool = True
    wants_logprobs: bool = False

    @property
    def sensitivity(self) -> float:
        return self.stage.world.rates[0]

    @property
    def false_accept(self) -> float:
        return self.stage.world.rates[1]

    def bound(self, call: Call) -> Amount:
        """Nothing is limited here."""
        del call
        return Amount()

    def verify(self, step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        """The verdict on the attempt that was shown last; agreement calls for a second one first."""
        del step, reply
        stage, first = self.stage, self.stage.shown[-1]
        stage.verdicts += 1
        if stage.world.checking.kind == "agreement":
            yield CallModel(replace(call, purpose="sample", sample=1))
            return _ACCEPT if equal(stage.answer(first), stage.answer(stage.shown[-1])) else _REJECT
        at = stage.question, first.rung, first.sample
        if stage.world.accepts is not None:
            return _ACCEPT if stage.world.accepts[at] else _REJECT
        score = float(stage.world.table.score[at])
        return Verdict(decision="unsure", verifier=self.name, score=None if np.isnan(score) else score)
