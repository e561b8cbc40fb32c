"""A replay's report as JSON, as a chart, and as rows for a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from governor.learn.chart import Chart
from governor.learn.chart import Method as Drawn
from governor.learn.frontier import Deployed
from governor.learn.replay import GOVERNOR, Detail
from governor.learn.report import Figures, Report
from governor.learn.routing import DIALS

_DIGITS = 6


def as_record(report: Report) -> dict[str, Any]:
    """One JSON object, its keys in a fixed order, numbers to six significant digits, null for what there is not."""
    rungs, best = report.rungs, report.rungs.best
    record = {
        "ladder": report.ladder.name,
        "n": report.items,
        "questions": report.questions,
        "fixed": {
            rung: {"accuracy": accuracy, "cost": cost}
            for rung, accuracy, cost in zip(rungs.rungs, rungs.accuracy.tolist(), rungs.cost.tolist(), strict=True)
        },
        "best_fixed": {
            "rung": rungs.rungs[best],
            "accuracy": float(rungs.accuracy[best]),
            "cost": float(rungs.cost[best]),
        },
        "hull": [[*point] for point in zip(report.hull.cost.tolist(), report.hull.accuracy.tolist(), strict=True)],
        "hull_c98": report.hull_share(0.98),
        "hull_c100": report.hull_share(1.0),
        "governor": GOVERNOR,
        "methods": {name: None if one is None else _method(name, one, report) for name, one in report.methods.items()},
    }
    found: dict[str, Any] = rounded(record)
    return found


def _method(name: str, figures: Figures, report: Report) -> dict[str, Any]:
    measures, intervals, scores = figures.measures, figures.intervals, figures.scores
    return {
        "frontier": _frontier(name, figures, report),
        "c98": measures.c98,
        "c98_ci": intervals.c98,
        "c100": measures.c100,
        "c100_ci": intervals.c100,
        "area": measures.area,
        "area_ci": intervals.area,
        "area_vs_tfidf_ci": intervals.area_vs_rival,
        "deployed98": _deployed(figures.deployed),
        "apgr": measures.apgr,
        "cpt50": measures.cpt50,
        "cpt80": measures.cpt80,
        "brier": None if scores is None else scores.brier,
        "ece": None if scores is None else scores.ece,
        "us_per_decision": report.microseconds if name == GOVERNOR else None,
    }


def _frontier(name: str, figures: Figures, report: Report) -> list[list[float]]:
    """Mean cost and accuracy at each dial; the governor's point at the dial of interest in its place among them."""
    cost, accuracy = figures.spread.cost.mean(axis=1).tolist(), figures.spread.accuracy.mean(axis=1).tolist()
    points = [list(point) for point in zip(cost, accuracy, DIALS.tolist(), strict=True)]
    if name == GOVERNOR and report.detail is not None and report.detail.dial not in DIALS:
        points.append([report.detail.cost, report.detail.accuracy, report.detail.dial])
    return sorted(points, key=lambda point: point[2])


def _deployed(kept: Deployed | None) -> dict[str, float] | None:
    return None if kept is None else {"accuracy_share": kept.accuracy_share, "cost": kept.cost}


def rounded(value: Any) -> Any:
    """Plain data with every number to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [*map(rounded, value)] if isinstance(value, list | tuple) else value


def rows(report: Report) -> dict[str, dict[str, str]]:
    """The figures of each method as text, by column; methods that can't be had are left out.

    Shares of strong calls mean something where there are two rungs, and stand there alone.
    """
    two = len(report.rungs.rungs) == 2
    return {name: _row(one, calls=two) for name, one in report.methods.items() if one is not None}


def _row(figures: Figures, *, calls: bool) -> dict[str, str]:
    measures, intervals, kept, scores = figures.measures, figures.intervals, figures.deployed, figures.scores
    low, high = intervals.area
    shares = {
        "APGR": _share(measures.apgr, 3),
        "CPT50": _share(measures.cpt50, 1),
        "CPT80": _share(measures.cpt80, 1),
    }
    return {
        "c98": _share(measures.c98),
        "c100": _share(measures.c100),
        "area": f"{measures.area:+.2f}",
        "95 %": f"{low:+.2f} to {high:+.2f}",
        "kept": _share(None if kept is None else kept.accuracy_share, 3),
        "at cost": _share(None if kept is None else kept.cost),
        **(shares if calls else {}),
        "Brier": _share(None if scores is None else scores.brier, 3),
        "ECE": _share(None if scores is None else scores.ece, 3),
    }


def _share(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def in_detail(detail: Detail) -> str:
    """The governor at the dial of interest, in a line."""
    return (
        f"dial {detail.dial:g}: correct {detail.accuracy:.3f} for {detail.cost:.4g} an item, "
        f"{detail.accepted:.1%} accepted by the verifier, {detail.calls:.2f} calls an item"
    )


def chart(report: Report) -> Chart:
    """The frontier of every method."""
    told = rows(report)
    drawn = tuple(
        Drawn(name, one.spread.cost.mean(axis=1), one.spread.accuracy.mean(axis=1), one.deployed, told[name])
        for name, one in report.methods.items()
        if one is not None
    )
    return Chart(report.ladder.name, caption(report), report.ladder.unit, report.rungs, drawn)


def caption(report: Report) -> str:
    """What was replayed, in a line."""
    checking = report.ladder.checking
    words = {
        "none": "no verifier",
        "perfect": "a perfect verifier",
        "simulated": f"a simulated verifier ({checking.sensitivity:g}, {checking.false_accept:g})",
        "score": f"the score {checking.field}",
        "agreement": "agreement of two samples",
    }[checking.kind]
    items = "" if report.items == report.questions else f" ({report.items:,} items)"
    seeds = f"{len(report.seeds)} fold seed{'s' * (len(report.seeds) > 1)}"
    return f"{report.questions:,} questions{items}, {words}, {seeds}; hull c98 {_share(report.hull_share(0.98))}"
