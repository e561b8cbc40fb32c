"""A governed node: each run of it is a step, whose rung every model called inside takes.

The node's function is not changed. What it returns is verified as the policy says; a rejected result is dropped and the
node runs again on a higher rung. What its models spend is reserved by each model call on the node's budgets. A node
that asks no model is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.runnables.config import RunnableConfig, var_child_runnable_config
from langgraph.errors import GraphBubbleUp, GraphInterrupt

from governor import loop
from governor.arm import arm_of, unenforced
from governor.climb import Mind, least
from governor.drivers import adrive, drive
from governor.effects import Process, Unneeded
from governor.errors import BackendError, NoAnswerError, Refusal
from governor.facade import Governor
from governor.plan.bounds import bound, over
from governor.protocols import Terms, Verifier
from governor.records import Call, Outcome, Reply, Step
from governor_langgraph.attempt import NodeAttempt, entered
from governor_langgraph.blame import Done, priced, wrong
from governor_langgraph.held import Held
from governor_langgraph.paused import pause, paused
from governor_langgraph.place import place_of
from governor_langgraph.purse import PursePlanner
from governor_langgraph.source import Source
from governor_langgraph.trail import trail_of
from governor_langgraph.watcher import ModelWatcher, watched

RERUNS = frozenset({"more", "fresh", "again", "verify"})
"""How a node may follow its last attempt: it runs anew, and only where that failed."""


class Untouched(Unneeded):
    """A node asked no model; `result` is what it returned."""

    def __init__(self, result: Any) -> None:
        self.result = result
        super().__init__()


class Left(Unneeded):
    """A node was left for the graph to go on elsewhere: an interrupt, or a command to a parent graph."""

    def __init__(self, cause: GraphBubbleUp) -> None:
        self.cause = cause
        super().__init__()


@dataclass(slots=True)
class NodeRun:
    """One run of a governed node. Mutable: it keeps what each attempt returned, which LangGraph must get unchanged.

    `asked` says that a model was asked in an attempt before, or before an interrupt; `refusal` which budget refused one
    last.
    """

    governor: Governor
    step: Step
    terms: Terms
    source: Source
    governed: bool
    verifier: Verifier | None
    config: RunnableConfig
    started: float
    watcher: ModelWatcher | None = None
    floor: int = 0
    doubt: float = 1.0
    asked: bool = False
    refusal: Refusal | None = None
    results: list[tuple[Reply, Any, Held]] = field(default_factory=list)
    outcome: Outcome | None = None

    def process(self) -> Process[Outcome]:
        """The loop of this step."""
        governor = self.governor
        planner = PursePlanner(governor.planner, lambda: self.refusal)
        mind = Mind(governor.estimator, planner, self.verifier)
        return loop.govern(self.step, replace(self.terms, call=None), mind)

    def attempt(self, call: Call) -> NodeAttempt:
        """What models are told while an attempt runs."""
        limit = least(self.step.deadline, self.terms.deadline)
        ends = None if limit is None else self.started + limit
        return NodeAttempt(self.governor, self.step, self.terms, call.rung, ends, self.governed, number=call.attempt)

    @contextmanager
    def attempting(self, call: Call) -> Generator[_Attempting, None, None]:
        """While the node's own code runs for a call of the loop."""
        attempt = self.attempt(call)
        attempting = _Attempting(self, attempt, Held(lambda: attempt.asked))
        token = var_child_runnable_config.set(attempting.config)
        try:
            with entered(attempt):
                yield attempting
        except BaseException as cause:
            if isinstance(cause, NoAnswerError) and attempt.asked:
                raise attempting.failed(cause) from cause
            attempting.held.release()  # nothing of it is rejected: it is seen as without a policy
            if isinstance(cause, GraphInterrupt) and self.governed and (attempt.asked or self.asked):
                pause(self.governor, self.config)
            if isinstance(cause, GraphBubbleUp):
                raise Left(cause) from cause
            raise
        finally:
            self.asked = self.asked or attempt.asked
            self.refusal = attempt.refusal or self.refusal
            var_child_runnable_config.reset(token)

    def judging(self, call: Call) -> Process[Outcome]:
        """A call of a verifier as a step of its own, so that it reserves what it needs as the node's models do."""
        asked = self.governor.step(call.messages, response_schema=call.response_schema, seed=call.seed)
        step, bound = self.attempt(call).within(asked)
        return self.governor.process(step, policy_checks=False, **bound)

    def shipped(self, outcome: Outcome) -> Any:
        """What the node returned in the attempt that ships. NoAnswerError where none does."""
        self.outcome = outcome
        for reply, result, held in self.results:
            if reply is outcome.reply:
                held.release()
                return result
        raise NoAnswerError(outcome)

    @property
    def failure(self) -> str:
        """Why the result that ships is wrong, as far as the node's own verifier tells; empty if it does not."""
        outcome = self.outcome
        if outcome is None or outcome.status != "best_so_far":
            return ""
        last = next((one for one in reversed(outcome.attempts) if one.rejected), None)
        return (last.verdict.feedback or "rejected") if last is not None and last.verdict is not None else ""

    @property
    def done(self) -> Done:
        """The step as its run remembers it."""
        outcome, ladder = self.outcome, [rung.id for rung in self.terms.ladder]
        assert outcome is not None, "a run that has ended has an outcome"
        verifier = self.verifier
        rates = (verifier.sensitivity, verifier.false_accept) if verifier else (1.0, 1.0)
        place = place_of(self.config)
        return Done(
            self.step.node,
            place.task,
            place.checkpoint,
            self.floor + ladder.index(outcome.rung),
            self.floor + len(ladder) - 1,
            wrong(outcome, *rates) * self.doubt,
            outcome.spent.micros if priced(self.terms) else outcome.spent.tokens,
        )


@dataclass(slots=True)
class _Attempting:
    """One attempt of a run, from its start to its reply."""

    run: NodeRun
    attempt: NodeAttempt
    held: Held
    began: float = field(default_factory=time.monotonic)
    config: RunnableConfig = field(init=False)
    """What the node is called with: where a verifier may reject the result, nothing of it is shown before."""

    def __post_init__(self) -> None:
        run = self.run
        silent = run.governed and run.verifier is not None
        config = self.held.configured(run.config) if silent else run.config
        self.config = watched(config, run.watcher) if run.watcher else config

    def reply(self, result: Any) -> Reply:
        """The reply that a result comes to; Untouched where there was nothing to govern."""
        attempt = self.attempt
        if not (attempt.asked or self.run.asked):
            raise Untouched(result)
        reply = replace(
            self.run.source.reply(result),
            usage=attempt.usage,
            usage_known=True,
            seconds=time.monotonic() - self.began,
            spent=attempt.spent,
        )
        self.run.results.append((reply, result, self.held))
        return reply

    def failed(self, fault: NoAnswerError) -> BackendError:
        """A model inside gave no answer: a failed attempt, and the loop decides what follows."""
        attempt, seconds = self.attempt, time.monotonic() - self.began
        return BackendError(
            str(fault), model=attempt.rung.model, usage=attempt.usage, seconds=seconds, spent=attempt.spent
        )


def begun(governor: Governor, source: Source, state: Any, config: RunnableConfig, limit: float | None) -> NodeRun:
    """A run of the node that `config` names, on this state; `limit` is the seconds that the graph grants it."""
    place = place_of(config)
    step = governor.step(
        source.messages(state),
        node=place.node,
        session=place.session,
        run=place.run,
        tenant=place.tenant,
        index=place.index,
        deadline=limit,
    )
    granted = callable_terms(governor.terms(step, nested=True))
    trail = trail_of(config)
    redone = trail.past.redone(place) if trail else None
    floor = min(redone.rung, len(granted.ladder) - 1) if redone else 0
    modes = tuple(one for one in granted.modes if one in RERUNS)
    granted = replace(granted, ladder=granted.ladder[floor:], modes=modes, continues=frozenset())
    governed = arm_of(step, granted) == "governed"
    if not governed:
        granted = unbound(granted)
    return NodeRun(
        governor,
        step,
        granted,
        source,
        governed,
        governor.verifier(step, granted),
        config,
        time.monotonic(),
        ModelWatcher(place.node, governor.policy.ungoverned) if governed else None,
        floor,
        redone.doubt if redone else 1.0,
        governed and paused(governor, config),
    )


def callable_terms(terms: Terms) -> Terms:
    """The terms without the rungs whose answer alone passes the limit of a call; as they are if that leaves none.

    What a node is asked says nothing of what its models will be: each call of theirs is held to that limit by itself.
    """
    if terms.call is None:
        return terms
    limit = replace(terms.call, millis=None)
    ladder = tuple(rung for rung in terms.ladder if not over(bound(Call(step_id="", rung=rung, messages=())), limit))
    return replace(terms, ladder=ladder or terms.ladder)


def unbound(terms: Terms) -> Terms:
    """In shadow and control arms nothing of ours may refuse or end a model call."""
    models = tuple((model, unenforced(limits)) for model, limits in terms.models)
    return replace(terms, limits=unenforced(terms.limits), models=models, call=None, deadline=None)


def run_node(run: NodeRun, body: Callable[[RunnableConfig], Any]) -> Any:
    """Runs a node to what it returns, blocking."""
    ports = run.governor.ports()

    def answer(call: Call) -> Reply:
        if call.purpose == "judge":
            return judged(call, drive(run.judging(call), ports.perform))
        with run.attempting(call) as attempting:
            return attempting.reply(body(attempting.config))

    with passed_on() as passed:
        passed.result = run.shipped(drive(run.process(), replace(ports, call=answer).perform))
    return passed.result


async def arun_node(run: NodeRun, body: Callable[[RunnableConfig], Awaitable[Any]]) -> Any:
    """The same, awaiting."""
    ports = run.governor.async_ports()

    async def answer(call: Call) -> Reply:
        if call.purpose == "judge":
            return judged(call, await adrive(run.judging(call), ports.perform))
        with run.attempting(call) as attempting:
            return attempting.reply(await body(attempting.config))

    with passed_on() as passed:
        passed.result = run.shipped(await adrive(run.process(), replace(ports, call=answer).perform))
    return passed.result


@dataclass(slots=True)
class _Passed:
    result: Any = None


@contextmanager
def passed_on() -> Generator[_Passed, None, None]:
    """What ends a run early leaves it as it came: what an untouched node returned, or an interrupt of the graph."""
    passed = _Passed()
    try:
        yield passed
    except Untouched as untouched:
        passed.result = untouched.result
    except Left as left:
        raise left.cause from None


def judged(call: Call, outcome: Outcome) -> Reply:
    """The reply of a call that was a step of its own; BackendError where it has none."""
    if outcome.reply is None:
        why = outcome.error or outcome.reason
        spent, model = outcome.spent, call.rung.model
        raise BackendError(why, model=model, usage=outcome.usage, seconds=outcome.seconds, spent=spent)
    return replace(outcome.reply, usage=outcome.usage, spent=outcome.spent)
