"""Live tasks at every fixed rung and governed: what each got right, what it cost net of everything, and how surely."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from governor.climb import Mind
from governor.drivers import drive
from governor.estimate.curves import Floats
from governor.facade import Governor
from governor.learn.intervals import Interval, Resamples
from governor.ledger import open_ledger
from governor.loop import govern
from governor.policy import Policy
from governor.protocols import Backend
from governor.records import Outcome, Rung, Step
from governor.tasks import Task
from governor.verify.answer import final_answer, normal, number

GOVERNED = "governed"
FAILED = ("error", "refused")


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """What A arms, GOVERNED last, did with N tasks: `right` (A, N) 0 or 1, `cost` (A, N) USD, `failed` (A,) counts."""

    arms: tuple[str, ...]
    right: Floats
    cost: Floats
    failed: tuple[int, ...]

    @property
    def best(self) -> int:
        """The fixed rung that was most often right; of several alike the cheapest."""
        fixed = range(len(self.arms) - 1)
        return max(fixed, key=lambda arm: (self.right[arm].mean(), -self.cost[arm].mean()))


def contest(
    policy: Policy, tasks: Sequence[Task], backend: Backend, finished: Callable[[], None] = lambda: None
) -> Contest:
    """Run every task in every arm, one after the other, each arm on a ledger of its own; `finished` is told of each.

    An answer is right where it meets the task's `expect`; without one, where the verifier accepts it, whose cost then
    counts in every arm. A step that fails is wrong, and what it spent counts.
    """
    rungs = tuple(policy.rungs.values())
    found = np.zeros((2, len(rungs) + 1, len(tasks)))
    failed = [0] * (len(rungs) + 1)
    for arm, rung in enumerate((*rungs, None)):
        with closing(open_ledger("memory://")) as ledger:
            governor = Governor(policy, backend=backend, ledger=ledger)  # not closed: the backend is the caller's
            for at, task in enumerate(tasks):
                outcome = _solved(governor, task, rung)
                found[:, arm, at] = graded(outcome, task), outcome.spent.micros / 1e6
                failed[arm] += outcome.status in FAILED
                finished()
    return Contest((*(rung.id for rung in rungs), GOVERNED), found[0], found[1], tuple(failed))


def _solved(governor: Governor, task: Task, rung: Rung | None) -> Outcome:
    """Governed, or at one rung, checked only where nothing else can grade the answer."""
    perform = governor.ports().perform
    if rung is None:
        return drive(governor.process(task.step, mode="on"), perform)  # whatever share the policy governs when serving
    step: Step = replace(task.step, baseline=None)
    terms = governor.terms(step, ladder=(rung,), modes=(), max_attempts=1, mode="on")
    verifier = governor.verifier(step, terms) if task.expect is None else None
    return drive(govern(step, terms, Mind(governor.estimator, governor.planner, verifier)), perform)


def graded(outcome: Outcome, task: Task) -> bool:
    """Whether an outcome is right: see `contest`."""
    if outcome.status in FAILED:
        return False
    wanted = task.expect
    if wanted is None:
        return outcome.status == "accepted"
    if isinstance(wanted, Mapping):
        return re.search(wanted["regex"], outcome.answer) is not None
    if isinstance(wanted, str):
        return normal(final_answer(outcome.answer)) == normal(wanted)
    return number(outcome.answer) == Fraction(str(wanted))


def compared(found: Contest, seed: int = 0) -> list[dict[str, Any]]:
    """One line an arm as plain data: figures with 95 % intervals of paired bootstraps over tasks.

    `accuracy_over_best` and `cost_saved` (a share, None where the best is free) are against the best fixed rung.
    """
    means = Resamples.draw(found.right.shape[1], 2000, seed)
    right, cost = means.means(found.right), means.means(found.cost)
    best = found.best
    paid = float(found.cost[best].mean())
    return [
        {
            "arm": name,
            "accuracy": float(found.right[arm].mean()),
            "accuracy_ci": _interval(right[:, arm]),
            "cost": float(found.cost[arm].mean()),
            "accuracy_over_best": float(found.right[arm].mean() - found.right[best].mean()),
            "accuracy_over_best_ci": _interval(right[:, arm] - right[:, best]),
            "cost_saved": 1.0 - float(found.cost[arm].mean()) / paid if paid else None,
            "cost_saved_ci": _saved(cost[:, arm], cost[:, best]) if paid else None,
            "failed": found.failed[arm],
        }
        for arm, name in enumerate(found.arms)
    ]


def markdown(found: Contest) -> str:
    """The table of `compared`."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Contest) -> Iterator[str]:
    best = found.arms[found.best]
    yield f"| {found.right.shape[1]} tasks | right (95 %) | USD a task | points over {best} | cost saved | failed |"
    yield "|---|---|---|---|---|---|"
    for one in compared(found):
        right = f"{one['accuracy']:.1%}{_between(one['accuracy_ci'], 100, '.1f')}"
        over = f"{100 * one['accuracy_over_best']:+.1f}{_between(one['accuracy_over_best_ci'], 100, '+.1f')}"
        saved = "-" if one["cost_saved"] is None else f"{one['cost_saved']:.1%}{_between(one['cost_saved_ci'], 100)}"
        yield f"| {one['arm']} | {right} | {one['cost']:.4g} | {over} | {saved} | {one['failed']} |"


def _between(interval: Interval, scale: float, form: str = ".1f") -> str:
    low, high = interval
    return f" ({scale * low:{form}} to {scale * high:{form}})"


def _interval(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return float(low), float(high)


def _saved(cost: Floats, best: Floats) -> Interval:
    """Resamples in which the best rung costs nothing say nothing."""
    paid = best > 0.0
    return _interval(1.0 - cost[paid] / best[paid])
