"""Governor: wires the parts together. `run` / `arun` for outcomes, `stream` / `astream` for text as it comes."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from governor.aside import asks_a_server
from governor.backends import Backends, model_options
from governor.checks import policy_checks
from governor.climb import Mind
from governor.drivers import Ports, adrive, async_ports, drive, sync_ports
from governor.effects import Process
from governor.learning import Learning
from governor.ledger import open_ledger
from governor.ledger.standby import StandbyLedger, standby
from governor.ledger.threaded import ThreadedLedger
from governor.loop import govern
from governor.pacer import Pacer
from governor.plan.bounds import bound
from governor.policy import has_stops, load_policy, paced_for, terms_for, verify_for
from governor.protocols import (
    AwaitedLedger,
    Backend,
    Counting,
    Estimator,
    Ledger,
    Planner,
    Pressed,
    Sink,
    Situation,
    Terms,
    Tracer,
    Verifier,
)
from governor.records import Limit, Message, Outcome, Plan, Step, Stop
from governor.streaming import AsyncStream, Stream
from governor.telemetry.metrics import Meter, OtelMeter
from governor.telemetry.spans import OtelTracer
from governor.verify import SandboxLimits, build_verifier
from governor.verify.measured import Measured
from governor.watched import Watched

if TYPE_CHECKING:
    from governor.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What Governor would do with a step, and why; nothing is called for it."""

    terms: Terms
    difficulty: float
    reasons: tuple[str, ...]
    plan: Plan | Stop
    sensitivity: float
    false_accept: float
    verifier: str
    verdicts: int = 0
    """Labelled verdicts that the verifier's rates were counted on; 0 where they are assumed."""

    @property
    def record(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {
            "app": self.terms.app,
            "matched": self.terms.reason,
            "difficulty": round(self.difficulty, 3),
            "because": list(self.reasons),
            "verifier": {
                "name": self.verifier,
                "sensitivity": round(self.sensitivity, 3),
                "false_accept": round(self.false_accept, 3),
                "verdicts": self.verdicts,
            },
            "dial": self.terms.dial,
            "keep": self.terms.keep,
            "rung": self.plan.rung.id if isinstance(self.plan, Plan) else None,
            "reason": self.plan.reason,
            "forecasts": [asdict(forecast) for forecast in self.plan.forecasts],
        }


class Governor:
    """Runs steps under one policy. Safe for many threads and tasks; `close()` or `with` frees its backends.

    `owns_ledger=False`: the ledger that is given is others' too, and `close` leaves it open. `awaited` is another way
    to the same store, by which awaited runs book: never closed here, and left aside under `budget.emergency`.
    An `estimator` or `planner` that is given takes the place of what the policy's calibration and `online` would make.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        backend: Backend | None = None,
        ledger: Ledger | None = None,
        owns_ledger: bool = True,
        awaited: AwaitedLedger | None = None,
        sinks: Sequence[Sink] = (),
        tracer: Tracer | None = None,
        estimator: Estimator | None = None,
        planner: Planner | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.backend: Backend = backend or Backends(model_options(policy))
        if has_stops(policy):
            self.backend = Watched(self.backend)
        self._pressure = self.backend.pressure if isinstance(self.backend, Pressed) else None
        self._ledger = ledger
        self._owns_ledger = owns_ledger
        self._awaited = awaited if policy.budget.emergency is None else None
        self._threaded: ThreadedLedger | None = None
        self._standby: StandbyLedger | None = None
        self._sinks = tuple(sinks)
        self.tracer: Tracer = tracer or OtelTracer()
        self._meter = meter or OtelMeter(policy.app)
        self._learning = Learning(policy, lambda: self.ledger)
        self._pacer = Pacer(lambda: self.ledger)
        self._estimator = estimator
        self.planner = planner or self._learning.planner
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._verifiers: dict[tuple[int, str], Verifier | None] = {}

    @classmethod
    def from_policy(cls, source: str | Path, **parts: Any) -> Governor:
        """Load a policy file (or a shipped policy by name) and wire it. Raises PolicyError with every mistake."""
        return cls(load_policy(source, checks=policy_checks()), **parts)

    def step(self, prompt: str | Sequence[Message] | Step, **context: Any) -> Step:
        """Make a Step of a prompt or messages. `context` are Step's fields; `id` is made up if it is not given."""
        if isinstance(prompt, Step):
            return replace(prompt, **context) if context else prompt
        messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
        return Step(id=context.pop("id", None) or uuid.uuid4().hex, messages=messages, **context)

    def process(
        self, step: Step, *, granted: Terms | None = None, policy_checks: bool = True, **terms: Any
    ) -> Process[Outcome]:
        """The loop for one step, not yet driven. `terms` override the policy's terms for this one step.

        `granted` takes the place of the policy's. Without `policy_checks` only the step's own checks judge its answers.
        """
        if granted is None:
            granted = self.terms(step, **terms)
        elif terms:
            granted = replace(granted, **terms)
        granted = self._cuttable(granted)
        verifier = self.verifier(step, granted, policy_checks=policy_checks)
        if granted.streamed and verifier is not None and verifier.needs_whole_answer:
            granted = replace(granted, streamed=False)  # nothing is shown before it is accepted
        return govern(self._pressed(step, granted), granted, Mind(self.estimator, self.planner, verifier))

    def _pressed(self, step: Step, terms: Terms) -> Step:
        """The step with the load of the dearest rung's engine, where the caller states none and the engine tells."""
        if "load" in step.state or self._pressure is None:
            return step
        load = self._pressure(terms.ladder[-1])
        return step if load is None else replace(step, state={**step.state, "load": load})

    def _cuttable(self, terms: Terms) -> Terms:
        """The terms with the rungs whose streams can be cut where a budget ends, if the step is streamed."""
        backend = self.backend
        if not terms.streamed or not isinstance(backend, Counting):
            return terms
        rungs = frozenset(rung.id for rung in terms.ladder if rung.samples == 1 and backend.counts(rung))
        return replace(terms, streams=replace(terms.streams, rungs=rungs))

    def ports(self) -> Ports:
        """Ports for `drive`."""
        return self._metered(sync_ports)

    def async_ports(self) -> Ports:
        """Ports for `adrive`."""
        ports = self._metered(async_ports)
        awaited = self._awaited or self._in_threads(self.ledger)
        return ports if awaited is None else replace(ports, ledger=awaited)

    def _in_threads(self, ledger: Ledger) -> ThreadedLedger | None:
        """The awaited way to a ledger that may hold up an event loop; None where it answers at once."""
        if not asks_a_server(ledger):
            return None
        with self._lock:
            if self._threaded is None:
                self._threaded = ThreadedLedger(ledger)
            return self._threaded

    def _metered(self, ports: Callable[[Backend, Ledger, tuple[Sink, ...], Tracer], Ports]) -> Ports:
        ledger = self.ledger
        if isinstance(self._meter, OtelMeter):
            self._meter.observe(ledger)
        made = ports(self.backend, ledger, (*self._sinks, self._learning), self.tracer)
        return replace(made, meter=self._meter)

    def run(self, prompt: str | Sequence[Message] | Step, **context: Any) -> Outcome:
        """Govern one step, blocking. Refusals and failures are outcomes; only misuse raises."""
        return drive(self.process(self.step(prompt, **context)), self.ports().perform)

    async def arun(self, prompt: str | Sequence[Message] | Step, **context: Any) -> Outcome:
        """Govern one step. A cancellation leaves after the reservation is settled."""
        return await adrive(self.process(self.step(prompt, **context)), self.async_ports().perform)

    def stream(self, prompt: str | Sequence[Message] | Step, **context: Any) -> Stream:
        """Text as it comes where nothing has to be verified first, else at acceptance; `.outcome` afterwards."""
        step = self.step(prompt, **context)
        return Stream(self.backend, lambda: self.process(step, streamed=True), self.ports().perform)

    def astream(self, prompt: str | Sequence[Message] | Step, **context: Any) -> AsyncStream:
        """Like `stream`, for `async for`."""
        step = self.step(prompt, **context)
        return AsyncStream(self.backend, lambda: self.process(step, streamed=True), self.async_ports().perform)

    def explain(
        self, prompt: str | Sequence[Message] | Step, *, granted: Terms | None = None, **context: Any
    ) -> Explanation:
        """Forecast, index and reason for a step, without calling any model; `granted` as in `process`."""
        step = self.step(prompt, **context)
        terms = granted or self.terms(step)
        verifier = self.verifier(step, terms)
        belief = self.estimator.estimate(step, terms)
        situation = Situation(
            step=step,
            terms=terms,
            sensitivity=verifier.sensitivity if verifier else 1.0,
            false_accept=verifier.false_accept if verifier else 1.0,
        )
        return Explanation(
            terms=terms,
            difficulty=belief.difficulty,
            reasons=belief.reasons,
            plan=self.planner.choose(belief, situation),
            sensitivity=situation.sensitivity,
            false_accept=situation.false_accept,
            verifier=verifier.name if verifier else "none",
            verdicts=verifier.verdicts if isinstance(verifier, Measured) else 0,
        )

    def feedback(self, outcome: Outcome | str, correct: bool, best_correct: bool | None = None) -> bool:
        """Say whether a step's answer was right: an outcome, or the id of a step that this process ran lately.

        `best_correct` says the same of the best rung's answer to it, where that was asked. A step that was drawn for an
        audit counts for the certificate; with `online` any label teaches the forecasts. Which steps are labelled must
        not depend on their being right. Returns whether it counted for either. Raises FeedbackError where the step
        is not known or was labelled already, LedgerError where an audit can't be kept.
        """
        return self._learning.feedback(outcome, correct, best_correct)

    @property
    def estimator(self) -> Estimator:
        """The one given, else what the policy's calibration and `online` make."""
        return self._estimator or self._learning.estimator

    @property
    def ledger(self) -> Ledger:
        """The budget store: the one given, else the policy's `ledger`, else a default (see `default_ledger`)."""
        with self._lock:  # two threads that open two stores would spend every limit twice
            if self._ledger is None:
                self._ledger = open_ledger(self.policy.ledger or default_ledger(self.policy))
            cap = emergency_cap(self.policy)
            if cap is not None and not isinstance(self._ledger, StandbyLedger):
                self._ledger = self._standby = standby(self._ledger, cap)
            return self._ledger

    def close(self) -> None:
        """Free backends, sinks and the store, whichever of them fails to; a second time does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with ExitStack() as freed:
            if isinstance(self._meter, OtelMeter):
                freed.callback(self._meter.close)
            if self._ledger is not None and self._owns_ledger:
                freed.callback(self._ledger.close)
            elif self._standby is not None:  # its store is others', what it owes there is ours
                freed.callback(self._standby.pay)
            if self._threaded is not None:
                freed.callback(self._threaded.end)
            for sink in self._sinks:
                freed.callback(sink.close)
            freed.callback(self._learning.close)
            freed.callback(self.backend.close)

    def __enter__(self) -> Governor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def terms(self, step: Step, **overrides: Any) -> Terms:
        """What the policy grants a step now; `overrides` replace single terms.

        A certificate's ruling sets the dial, and the spend of a paced budget, read off the ledger, its shadow price.
        """
        now = self._clock()
        terms = terms_for(self.policy, step, now)
        if overrides:
            terms = replace(terms, **overrides)
        terms = self._learning.ruled(step, terms)
        continues = frozenset(rung.id for rung in terms.ladder if self.backend.continues(rung))
        paced = () if "mu" in overrides else paced_for(self.policy, step, now)
        mu = self._pacer.mu(paced, terms.ladder, now) if paced else terms.mu
        unchanged = continues == terms.continues and mu == terms.mu  # a copy of so many fields costs as much as a rule
        return terms if unchanged else replace(terms, continues=continues, mu=mu)

    def verifier(self, step: Step, terms: Terms, *, policy_checks: bool = True) -> Verifier | None:
        """The step's verifier: the policy's and the step's own checks; None where neither has any.

        Its rates are the measured ones of the step's node, where the calibration has any; the step's own checks were
        not part of what was measured.
        """
        spec = verify_for(self.policy, step) if policy_checks else None
        if step.checks:
            return self._built(spec, step, terms)
        key = (id(spec), terms.fail)  # the policy keeps its specs alive
        if key not in self._verifiers:
            self._verifiers[key] = self._built(spec, step, terms)
        return self._learning.measured(self._verifiers[key], step.node)

    def _built(self, spec: Any, step: Step, terms: Terms) -> Verifier | None:
        return build_verifier(
            spec,
            checks=step.checks,
            judge_rungs=self.policy.rungs,
            sandbox=_sandbox_limits(self.policy),
            fail=terms.fail,
            bound=bound,
        )


def default_ledger(policy: Policy) -> str:
    """Where a policy without `ledger` books spend.

    A limit per application, tenant or node must hold across processes, so it needs a file: SQLite in the user's state
    folder (XDG_STATE_HOME). Limits of steps and sessions alone end with the process, and stay in memory.
    """
    if not any(budget.shared for budget in policy.budgets):
        return "memory://"
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "compute-governor"
    home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home / f'{policy.app}.db'}"


def emergency_cap(policy: Policy) -> Limit | None:
    """Up to what a process may stand in for a store that is down; None where it may not."""
    emergency = policy.budget.emergency
    return None if emergency is None else emergency.limit(f"emergency:{policy.app}")


def _sandbox_limits(policy: Policy) -> SandboxLimits:
    wanted = policy.sandbox
    return SandboxLimits(
        wall_seconds=wanted.wall_seconds,
        cpu_seconds=math.ceil(wanted.cpu_seconds),
        memory_bytes=wanted.memory_mb << 20,
        allow_unsandboxed=wanted.allow_unsandboxed,
    )
