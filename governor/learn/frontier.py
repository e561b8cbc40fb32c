"""What cost buys which accuracy: curves through measured points, and the figures read off them.

Costs are means per item in the ladder's unit, accuracies shares in 0..1. Every curve is an upper concave envelope:
what lies between two points is reached by mixing them at random. So the curve through the fixed rungs, their *hull*,
is what any allocation must beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from governor.estimate.curves import Floats

_SLACK = 1e-12  # sums of the same figures in another order differ by this much


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Vertices of a concave curve, rising strictly in both; below the first cost it is 0, past the last it is flat."""

    cost: Floats
    accuracy: Floats

    def integral(self, low: float, high: float) -> float:
        """Exact area under the curve over cost from `low` to `high`."""
        return self._up_to(high) - self._up_to(low)

    def _up_to(self, cost: float) -> float:
        inside = int(np.searchsorted(self.cost, cost, side="right"))
        if inside == 0:
            return 0.0
        x = np.append(self.cost[:inside], cost)
        y = np.append(self.accuracy[:inside], value_at(self, cost))
        return _trapezoids(x, y)


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """Every question on the same rung: accuracy and cost of each of the K rungs, in the ladder's order."""

    rungs: tuple[str, ...]
    cost: Floats
    accuracy: Floats

    @property
    def cheapest(self) -> int:
        """Position of the rung of least cost, of the more accurate where costs are equal."""
        return int(np.lexsort((-self.accuracy, self.cost))[0])

    @property
    def best(self) -> int:
        """Position of the most accurate rung, of the cheaper where accuracies are equal."""
        return int(np.lexsort((self.cost, -self.accuracy))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The figures of one method on one ladder.

    None where a share of nothing is asked for: a best rung that is free, no gap between the cheapest and the best.
    """

    c98: float | None
    c100: float | None
    area: float
    apgr: float | None
    cpt50: float | None
    cpt80: float | None


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a dial chosen on other folds really kept: shares of the best fixed rung's accuracy and of its cost."""

    accuracy_share: float
    cost: float


def fixed(rungs: Sequence[str], cost: Floats, accuracy: Floats) -> Fixed:
    """The fixed rungs from per-question figures of shape (K, Q); NaN is not recorded and not counted."""
    return Fixed(tuple(rungs), np.nanmean(cost, axis=1), np.nanmean(accuracy, axis=1))


def best_fixed(rungs: Fixed) -> str:
    """Name of the most accurate rung, ties to the cheaper."""
    return rungs.rungs[rungs.best]


def hull(cost: Floats, accuracy: Floats) -> Curve:
    """Upper concave envelope of the points, by Andrew's monotone chain; flat after its maximum.

    Raises ValueError where there is no point.
    """
    if len(cost) == 0:
        raise ValueError("a curve needs at least one point")
    kept: list[tuple[float, float]] = []
    order = np.lexsort((-accuracy, cost))
    for x, y in zip(cost[order].tolist(), accuracy[order].tolist(), strict=True):
        if kept and y <= kept[-1][1]:
            continue
        while len(kept) > 1 and _below(kept[-2], kept[-1], x, y):
            kept.pop()
        kept.append((x, y))
    vertices = np.array(kept)
    return Curve(vertices[:, 0], vertices[:, 1])


def _trapezoids(x: Floats, y: Floats) -> float:
    return float((x[1:] - x[:-1]) @ (y[1:] + y[:-1])) / 2.0


def _below(first: tuple[float, float], middle: tuple[float, float], x: float, y: float) -> bool:
    """Whether `middle` lies on or under the line from `first` to (x, y)."""
    (x0, y0), (x1, y1) = first, middle
    return (y1 - y0) * (x - x0) <= (y - y0) * (x1 - x0)


def envelope(rungs: Fixed, cost: Floats, accuracy: Floats) -> Curve:
    """The curve of a method: the hull of its points, shape (D,), together with the fixed rungs."""
    return hull(np.concatenate((cost, rungs.cost)), np.concatenate((accuracy, rungs.accuracy)))


def value_at(curve: Curve, cost: float) -> float:
    """Accuracy that the curve reaches at this cost: 0 below its first point."""
    return float(np.interp(cost, curve.cost, curve.accuracy, left=0.0))


def c_share(curve: Curve, accuracy_target: float, best_cost: float) -> float | None:
    """Least cost at which the curve reaches the target, as a share of `best_cost`; None if it never does."""
    if accuracy_target > curve.accuracy[-1] + _SLACK or best_cost <= 0.0:
        return None
    return float(np.interp(accuracy_target, curve.accuracy, curve.cost)) / best_cost


def area_between(upper: Curve, lower: Curve, low: float, high: float) -> float:
    """100 x the mean height of `upper` over `lower`, over cost from `low` to `high`: points of accuracy."""
    if high <= low:
        return 0.0
    return 100.0 * (upper.integral(low, high) - lower.integral(low, high)) / (high - low)


def area(rungs: Fixed, cost: Floats, accuracy: Floats) -> float:
    """Points of accuracy gained over the hull of fixed rungs, on average from the cheapest to the best one's cost."""
    low, high = float(rungs.cost[rungs.cheapest]), float(rungs.cost[rungs.best])
    return area_between(envelope(rungs, cost, accuracy), hull(rungs.cost, rungs.accuracy), low, high)


def _recovered(rungs: Fixed, cost: Floats, accuracy: Floats) -> tuple[Floats, Floats] | None:
    """(share of the way from the cheapest to the best rung's cost, share of their gap in accuracy), points by cost.

    Both rungs are added as ends. Points outside 0..1 of the way are left out: those calls are not between the two.
    """
    weak, strong = rungs.cheapest, rungs.best
    way, gap = rungs.cost[strong] - rungs.cost[weak], rungs.accuracy[strong] - rungs.accuracy[weak]
    if way <= 0.0 or gap <= 0.0:
        return None
    share = np.concatenate(([0.0], (cost - rungs.cost[weak]) / way, [1.0]))
    gained = np.concatenate(([0.0], (accuracy - rungs.accuracy[weak]) / gap, [1.0]))
    between = (share >= 0.0) & (share <= 1.0)
    share, gained = share[between], gained[between]
    order = np.argsort(share, kind="stable")
    return share[order], gained[order]


def apgr(rungs: Fixed, cost: Floats, accuracy: Floats) -> float | None:
    """Average performance gap recovered: RouteLLM's measure (Ong et al., arXiv 2406.18665).

    The mean, over the share of calls to the strong model, of the share of the gap between weak and strong that is
    recovered; the trapezoid rule on the points as measured, not on their envelope, as RouteLLM's evaluation does.
    Random routing has 0.5. With two rungs of constant cost the share of cost is the share of calls; on other ladders
    cost between the cheapest and the best fixed rung takes its place. None where those two leave no gap.
    """
    points = _recovered(rungs, cost, accuracy)
    return None if points is None else _trapezoids(*points)


def cpt(percent: float, rungs: Fixed, cost: Floats, accuracy: Floats) -> float | None:
    """Call-performance threshold: the least share of strong calls, in percent, that recovers `percent` of the gap.

    RouteLLM's CPT (Ong et al., arXiv 2406.18665); shares as in `apgr`, read off lines between points as measured.
    """
    points = _recovered(rungs, cost, accuracy)
    if points is None:
        return None
    share, gained = points
    at = int(np.argmax(gained >= percent / 100.0 - _SLACK))  # the last point, the strong rung, recovers all of it
    if at == 0:
        return 100.0 * float(share[0])
    rise = (percent / 100.0 - gained[at - 1]) / (gained[at] - gained[at - 1])
    return 100.0 * float(share[at - 1] + min(float(rise), 1.0) * (share[at] - share[at - 1]))


def measure(rungs: Fixed, cost: Floats, accuracy: Floats) -> Measures:
    """Every figure of a method from its points, shape (D,), mean cost and accuracy at each dial."""
    curve, best = envelope(rungs, cost, accuracy), rungs.best
    reach, pay = float(rungs.accuracy[best]), float(rungs.cost[best])
    return Measures(
        c98=c_share(curve, 0.98 * reach, pay),
        c100=c_share(curve, reach, pay),
        area=area(rungs, cost, accuracy),
        apgr=apgr(rungs, cost, accuracy),
        cpt50=cpt(50, rungs, cost, accuracy),
        cpt80=cpt(80, rungs, cost, accuracy),
    )


def deployed(
    best: tuple[Floats, Floats],
    cost: Floats,
    accuracy: Floats,
    fold: npt.NDArray[np.intp],
    *,
    keep: float = 0.98,
    margin: float = 0.0,
    tested: npt.NDArray[np.bool_] | None = None,
) -> Deployed:
    """The dial chosen on the training folds of each fold, replayed on that fold.

    `best` is (cost, accuracy) of the best fixed rung per question, (Q,) each; `cost` and `accuracy` are (D, Q), every
    question replayed by a method that never saw it; `fold` (Q,) says which fold tests it. The dial is the cheapest
    whose accuracy on the training folds keeps `keep` of the best rung's, by `margin` standard errors of the paired
    difference; the best rung itself stands in where no dial does so at less cost. `tested` (Q,) are the questions that
    count (None: all); folds without any are trained on only.
    """
    best_cost, best_accuracy = best
    counted = np.ones(len(fold), dtype=np.bool_) if tested is None else tested
    kept = accuracy - keep * best_accuracy
    shipped, spent = best_accuracy.copy(), best_cost.copy()
    for part in np.unique(fold[counted]):
        test, train = fold == part, fold != part
        chosen = _cheapest_keeping(kept[:, train], cost[:, train], float(best_cost[train].mean()), margin)
        if chosen is not None:
            shipped[test], spent[test] = accuracy[chosen, test], cost[chosen, test]
    return deployed_as(best, spent, shipped, counted)


def deployed_as(best: tuple[Floats, Floats], cost: Floats, accuracy: Floats, tested: npt.NDArray[np.bool_]) -> Deployed:
    """Shares of the best fixed rung's accuracy and cost, all (Q,), over the questions tested; of nothing, the whole."""

    def share(part: Floats, whole: Floats) -> float:
        total = float(whole[tested].mean())
        return float(part[tested].mean()) / total if total > 0.0 else 1.0

    best_cost, best_accuracy = best
    return Deployed(share(accuracy, best_accuracy), share(cost, best_cost))


def _cheapest_keeping(kept: Floats, cost: Floats, at_most: float, margin: float) -> int | None:
    """Position of the cheapest dial that keeps enough and costs at most this; None if there is none."""
    doubt = margin * kept.std(axis=1) / np.sqrt(kept.shape[1])
    paid = np.where(kept.mean(axis=1) >= doubt, cost.mean(axis=1), np.inf)
    least = int(np.argmin(paid))
    return least if paid[least] <= at_most else None
