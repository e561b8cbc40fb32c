"""Which dial holds a risk? Learn-then-Test over dials, from safe to thrifty, with exact binomial bounds.

Source: Angelopoulos, Bates, Candès, Jordan & Lei (2021), "Learn then Test", arXiv 2110.01052: fixed-sequence testing
(section 2.3) with binomial p-values. Dials are tested in an order fixed beforehand, each at the full level delta, and
testing ends with the first that fails: P(any dial that passed has a true risk above `risk`) <= delta, whatever the
shape of the risk over dials, if items are independent draws of what will be served and no item was fitted on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats
from governor.learn.binomial import at_most, trials_needed, upper_bound

Bools: TypeAlias = npt.NDArray[np.bool_]

Kind: TypeAlias = Literal["accepted-wrong", "lost-correct"]
"""Which risk: P(wrong | accepted), or P(the governed answer is wrong and the best rung's is right)."""


class Replayed(Protocol):
    """How Q recorded questions would have ended under each of D dials.

    An answer that was shipped though no verdict accepted it, and an abstention, are not accepted.
    """

    @property
    def dials(self) -> Floats:
        """(D,), strictly rising: safe to thrifty."""
        ...

    @property
    def accepted(self) -> Bools:
        """(D, Q): whether an answer was accepted."""
        ...

    @property
    def correct(self) -> Bools:
        """(D, Q): whether what was shipped is right."""
        ...

    @property
    def best_correct(self) -> Bools:
        """(Q,): whether the best fixed rung is right."""
        ...

    @property
    def nodes(self) -> tuple[str, ...]:
        """(Q,): the graph node of each question."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """(Q,): questions of one group depend on each other and are one unit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One dial put to the test: `failures` among the `n` items that count, and the upper bound on its risk."""

    dial: float
    n: int
    failures: int
    bound: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """The dials of one node ("" = all nodes together) in the order tested; only the last may have failed.

    `units` is the number of independent items, of which a trial may count some only.
    """

    node: str
    kind: Kind
    risk: float
    delta: float
    units: int
    each: tuple[Trial, ...]

    @property
    def certified(self) -> Trial | None:
        """The thriftiest dial that holds the risk; None where not even the safest was shown to."""
        return next((trial for trial in reversed(self.each) if trial.passed), None)

    @property
    def dials(self) -> tuple[float, ...]:
        """Every dial that passed, rising."""
        return tuple(trial.dial for trial in self.each if trial.passed)

    def units_needed(self) -> int | None:
        """About how many items would certify the safest dial at the share of failures it had.

        None where no number would, because it fails too often or nothing was accepted.
        """
        safest = self.each[0]
        if not safest.n:
            return None
        needed = trials_needed(safest.failures / safest.n, self.risk, self.delta)
        return None if needed is None else -(-needed * self.units // safest.n)


def certify(dials: Floats, losses: Floats, *, risk: float, delta: float) -> tuple[Trial, ...]:
    """Test dials (D,), strictly rising, until one fails. `losses` (D, n) are 0, 1, or NaN for what doesn't count.

    Columns must be independent of each other. ValueError for other shapes and values.
    """
    _check(dials, losses, risk, delta)
    trials: list[Trial] = []
    for dial, row in zip(dials.tolist(), losses, strict=True):
        counted = row[~np.isnan(row)]
        trials.append(_trial(dial, counted.size, int(counted.sum()), risk, delta))
        if not trials[-1].passed:
            break
    return tuple(trials)


def certify_replayed(
    replayed: Replayed,
    kind: Kind,
    *,
    risk: float,
    delta: float,
    by_node: bool = False,
    simultaneous: bool = False,
    seed: int = 0,
) -> tuple[Trials, ...]:
    """Test all questions together, or each node by itself (Mondrian), nodes in alphabetical order.

    Each node is tested at `delta`: one node's certificate fails to hold with that probability. `simultaneous`
    shares delta among the nodes (Bonferroni), so that with probability 1 - delta all hold. Of each group one
    question, drawn by `seed`, is counted: the risk is then that of a random question of a random group.
    """
    names = (by_node and sorted(set(replayed.nodes))) or [""]
    level = delta / len(names) if simultaneous else delta
    lost = losses(replayed, kind)
    return tuple(_tested(name, replayed, lost, kind, risk, level, seed) for name in names)


def losses(replayed: Replayed, kind: Kind) -> Floats:
    """(D, Q): 1 for a failure, 0 for none, NaN where a question doesn't count (accepted-wrong: not accepted)."""
    wrong = ~replayed.correct
    if kind == "lost-correct":
        return (wrong & replayed.best_correct).astype(np.float64)
    return np.where(replayed.accepted, wrong.astype(np.float64), np.nan)


def one_per_group(groups: Iterable[str], seed: int = 0) -> npt.NDArray[np.intp]:
    """Positions of one random member of each group, rising."""
    names = np.array(list(groups), dtype=np.str_)
    order = np.random.default_rng(seed).permutation(names.size)
    _, first = np.unique(names[order], return_index=True)
    return np.sort(order[first]).astype(np.intp)


def group_digest(group: str) -> str:
    """BLAKE2b-64 (hex) of a group's name: how a calibration remembers what it was fitted on."""
    return blake2b(group.encode(), digest_size=8).hexdigest()


def overlap(groups: Iterable[str], fitted_on: Collection[str]) -> int:
    """How many questions belong to groups that a calibration was fitted on (its digests)."""
    return sum(group_digest(group) in fitted_on for group in groups)


def _tested(node: str, replayed: Replayed, lost: Floats, kind: Kind, risk: float, delta: float, seed: int) -> Trials:
    members = [at for at, name in enumerate(replayed.nodes) if node in ("", name)]
    kept = np.array(members, dtype=np.intp)[one_per_group((replayed.groups[at] for at in members), seed)]
    trials = certify(replayed.dials, lost[:, kept], risk=risk, delta=delta)
    return Trials(node=node, kind=kind, risk=risk, delta=delta, units=kept.size, each=trials)


def _trial(dial: float, n: int, failures: int, risk: float, delta: float) -> Trial:
    passed = at_most(failures, n, risk) <= delta
    return Trial(dial=dial, n=n, failures=failures, bound=upper_bound(failures, n, delta), passed=passed)


def _check(dials: Floats, lost: Floats, risk: float, delta: float) -> None:
    if not (0.0 < risk < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(f"risk and delta must lie between 0 and 1, not {risk} and {delta}")
    if dials.ndim != 1 or not dials.size or lost.shape != (dials.size, lost.shape[-1]):
        raise ValueError(f"{dials.shape} dials do not fit {lost.shape} losses")
    if not (np.all(np.diff(dials) > 0.0) and dials[0] >= 0.0 and dials[-1] <= 1.0):
        raise ValueError("dials must rise strictly, from 0 to 1 at most")
    if not np.all(np.isnan(lost) | (lost == 0.0) | (lost == 1.0)):
        raise ValueError("losses must be 0, 1 or NaN")
