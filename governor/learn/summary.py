"""Replays side by side: what is kept of each, and the one table that is made of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from governor.learn.replay import CONTROL, GOVERNOR
from governor.learn.report import Figures, Report
from governor.learn.written import rounded

Summary: TypeAlias = Mapping[str, Any]
"""Plain data of one replay, as JSON keeps it."""

MEASURES: Mapping[str, str] = {
    "c98": "cost that keeps 98 %",
    "area": "points over random mixing",
    "apgr": "APGR",
    "cpt50": "CPT50",
    "cpt80": "CPT80",
    "lead": "points at equal cost",
    "over_mixing": "the same, less mixing learned on the same folds",
    "deployed98": "kept, at cost (dial chosen beforehand)",
}
"""What a table may show, and what it calls it."""

HEAD = ("ladder", "questions", "measure", "random mixing", "tfidf", "governor", "95 %")


def summary(name: str, report: Report) -> dict[str, Any]:
    """What is kept of a replay; `name` says which rung ladder and options."""
    best, control = report.rungs.best, report.methods.get(CONTROL)
    mixing = {"c98": report.hull_share(0.98), "area": 0.0, "apgr": 0.5, "cpt50": 50.0, "cpt80": 80.0}
    found: dict[str, Any] = rounded(
        {
            "name": name,
            "ladder": report.ladder.name,
            "questions": report.questions,
            "items": report.items,
            "seeds": len(report.seeds),
            "best_fixed": report.rungs.rungs[best],
            "mixing": mixing | {"lead": None if control is None else control.lead.points},
            "methods": {name: _figures(one) for name, one in report.methods.items() if one is not None},
        }
    )
    return found


def _figures(one: Figures) -> dict[str, Any]:
    measures, kept, scores = one.measures, one.deployed, one.scores
    return {
        "c98": measures.c98,
        "c98_ci": one.intervals.c98,
        "area": measures.area,
        "area_ci": one.intervals.area,
        "area_vs_tfidf_ci": one.intervals.area_vs_rival,
        "apgr": measures.apgr,
        "cpt50": measures.cpt50,
        "cpt80": measures.cpt80,
        "lead": one.lead.points,
        "lead_ci": one.lead.interval,
        "over_mixing": None if one.over_mixing is None else one.over_mixing.points,
        "over_mixing_ci": None if one.over_mixing is None else one.over_mixing.interval,
        "deployed98": None if kept is None else [kept.accuracy_share, kept.cost],
        "brier": None if scores is None else scores.brier,
        "brier_base_rate": None if scores is None else scores.brier_base_rate,
        "ece": None if scores is None else scores.ece,
        "ece_by_chance": None if scores is None else scores.ece_by_chance,
    }


def usual_measures(report: Report) -> tuple[str, ...]:
    """What a table shows of a replay of which nothing else is asked; calls to a strong rung mean something of two."""
    calls = ("apgr", "cpt50", "cpt80") if len(report.rungs.rungs) == 2 else ()
    return ("c98", "area", *calls, "deployed98")


def markdown(rows: Iterable[tuple[Summary, Sequence[str]]]) -> str:
    """One table, a line for each measure of each replay."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_cells(found, measure)) for found, measures in rows for measure in measures]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(found: Summary, measure: str) -> list[str]:
    ours, tfidf = found["methods"][GOVERNOR], found["methods"].get("tfidf")
    return [
        str(found["name"]),
        f"{found['questions']:,}",
        MEASURES[measure],
        _shown(measure, found["mixing"].get(measure)),
        "-" if tfidf is None else _shown(measure, tfidf.get(measure)),
        f"**{_shown(measure, ours.get(measure))}**",
        _interval(measure, ours.get(f"{measure}_ci")),
    ]


_STYLE: Mapping[str, str] = {
    "c98": ".2f", "area": "+.2f", "lead": "+.2f", "over_mixing": "+.2f", "apgr": ".3f", "cpt50": ".1f", "cpt80": ".1f",
    "deployed98": ".3f",
}  # fmt: skip


def _shown(measure: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"{value[0]:.3f}, {value[1]:.2f}"
    return f"{value:{_STYLE[measure]}}"


def _interval(measure: str, value: Any) -> str:
    return "" if value is None else " to ".join(_shown(measure, end) for end in value)
