"""The same tasks governed, always at the bottom rung and always at the top rung, through the same graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from governor.climb import Mind
from governor.drivers import drive
from governor.effects import Process
from governor.facade import Governor
from governor.loop import govern
from governor.records import Outcome, Rung, Step
from governor.tasks import Task
from governor_demo.grade import correct
from governor_demo.graph import build_graph


@dataclass(slots=True)
class Tally:
    """Running sums of one arm; `accuracy` is None before the first task is graded."""

    name: str
    right: int = 0
    micros: int = 0
    output_tokens: int = 0
    verifier_tokens: int = 0
    seconds: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    grades: list[bool] = field(default_factory=list)

    def add(self, outcome: Outcome, grade: bool) -> None:
        """Count one graded outcome."""
        self.outcomes.append(outcome)
        self.grades.append(grade)
        self.right += grade
        self.micros += outcome.spent.micros
        self.output_tokens += outcome.usage.output_tokens
        self.verifier_tokens += outcome.verifier_usage.total_tokens
        self.seconds += outcome.seconds

    @property
    def accuracy(self) -> float | None:
        """Share of graded tasks whose answer is right."""
        return self.right / len(self.outcomes) if self.outcomes else None

    def record(self) -> dict[str, float | int | None]:
        """The sums as JSON numbers; cost is in the policy's price unit per million, that is micro-units."""
        return {
            "accuracy": self.accuracy,
            "cost": self.micros,
            "output_tokens": self.output_tokens,
            "verifier_tokens": self.verifier_tokens,
            "seconds": round(self.seconds, 3),
        }


def fixed(governor: Governor, rung: Rung) -> Callable[[Step], Outcome]:
    """Solve every step at one rung, unverified: what an application without Governor does."""

    def process(task: Step) -> Process[Outcome]:
        step = replace(task, id=f"{task.id}@{rung.id}")  # its own key in the ledger: the task runs once per arm
        terms = governor.terms(step, ladder=(rung,), modes=(), max_attempts=1, mode="on")
        return govern(step, terms, Mind(governor.estimator, governor.planner, None))

    return lambda step: drive(process(step), governor.ports().perform)


def solved(
    solve: Callable[[Step], Outcome], tasks: Sequence[Task], tally: Tally
) -> Iterator[tuple[Task, Outcome, bool]]:
    """Run tasks through the graph one by one, adding each to `tally`, which stays usable when interrupted."""
    graph = build_graph(solve)
    for task in tasks:
        outcome: Outcome = graph.invoke({"task": task.step})["outcome"]
        grade = correct(outcome.answer, task.gold)
        tally.add(outcome, grade)
        yield task, outcome, grade
