"""The frontier as one HTML file: an inline drawing and the table it was drawn from, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

import numpy as np

from governor.estimate.curves import Floats
from governor.learn.frontier import Curve, Deployed, Fixed, envelope, hull

_WIDTH, _HEIGHT = 720.0, 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 20.0, 16.0, 56.0
_TICKS = 5
_LINE, _LETTER = 20.0, 9.5  # height of a line and width of a letter, as large as text is drawn on a phone

# After Okabe & Ito's palette, told apart without colour vision too: on light ground, on dark ground. Dashes repeat it.
_COLOURS = (
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#ff8a3d"),
    ("#009e73", "#2fc59b"),
    ("#b8588c", "#e39ac4"),
    ("#b87f00", "#f0b429"),
    ("#2a8fc4", "#8fd0f5"),
    ("#7d5ba6", "#b79be0"),
    ("#6b6b6b", "#b5b5b5"),
)
_DASHES = ("", "7 3", "2 3", "9 3 2 3")

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --faint: #6e6e73; --line: #d2d2d7; --ground: #ffffff; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { DARK --ink: #f0f0f2; --faint: #a1a1a6; --line: #424245; --ground: #1c1c1e; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--ground); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
figure { margin: 0; }
figcaption, .note { color: var(--faint); font-size: .875rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .tick { fill: var(--faint); }
.grid { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; }
.hull { stroke: var(--faint); stroke-dasharray: 4 4; }
.rung { fill: var(--ground); stroke: var(--ink); stroke-width: 1.5; }
.halo { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round; }
ul.key { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: .5rem 0; padding: 0;
  font-size: .875rem; }
ul.key svg { display: inline-block; width: 2rem; height: .75rem; vertical-align: middle; margin-right: .35rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; margin-top: 1rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--ground); }
@media (max-width: 540px) { svg.plot text { font-size: 19px; } body { padding: .75rem; } }
"""


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One method's points, (D,) mean costs and accuracies, its deployed dial, and its figures as they are printed."""

    name: str
    cost: Floats
    accuracy: Floats
    deployed: Deployed | None = None
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """What is drawn: `unit` of the costs and a `caption` that says n, folds, seeds and verifier.

    Costs of less than a tenth of a unit are written per thousand items.
    """

    title: str
    caption: str
    unit: str
    rungs: Fixed
    methods: tuple[Method, ...]

    @property
    def items(self) -> int:
        """How many items the costs are written for."""
        return 1 if float(self.rungs.cost.max()) >= 0.1 else 1000

    @property
    def cost_label(self) -> str:
        """Cost with its unit, as axes and tables name it."""
        return f"cost per {'item' if self.items == 1 else f'{self.items:,} items'} ({self.unit})"


@dataclass(frozen=True, slots=True)
class _Scale:
    """From costs and accuracies to the drawing's coordinates."""

    low: tuple[float, float]
    high: tuple[float, float]

    def x(self, cost: float) -> float:
        share = (cost - self.low[0]) / (self.high[0] - self.low[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, accuracy: float) -> float:
        share = (accuracy - self.low[1]) / (self.high[1] - self.low[1])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def page(chart: Chart) -> str:
    """The whole file, as text; every name in it is escaped."""
    title = escape(chart.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"<figure>\n{_drawing(chart)}\n{_key(chart)}\n<figcaption>{escape(chart.caption)}</figcaption>\n</figure>\n"
        f'<div class="scroll">\n{_table(chart)}\n</div>\n'
        '<p class="note">Curves are upper envelopes of each method and the fixed rungs; between two points items are '
        "mixed at random. A filled square is what the dial deployed for 98 % kept.</p>\n</body>\n</html>\n"
    )


def _style() -> str:
    light, dark = ("".join(f"--c{at}: {pair[side]}; " for at, pair in enumerate(_COLOURS)) for side in (0, 1))
    return _STYLE.replace("LIGHT", light).replace("DARK", dark)


def _drawing(chart: Chart) -> str:
    scale = _scale_of(chart)
    parts = [_axes(scale, chart), _line(hull(chart.rungs.cost, chart.rungs.accuracy), scale, 'class="curve hull"')]
    for at, method in enumerate(chart.methods):
        parts.append(_line(envelope(chart.rungs, method.cost, method.accuracy), scale, _stroke(at)))
    parts.append(_rungs(chart.rungs, scale))
    parts += [_square(chart, at, scale) for at, method in enumerate(chart.methods) if method.deployed]
    label = escape(f"Accuracy against cost in {chart.unit}: {chart.title}")
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return f'<svg class="plot" viewBox="{box}" role="img" aria-label="{label}">\n' + "\n".join(parts) + "\n</svg>"


def _scale_of(chart: Chart) -> _Scale:
    """Costs from 0 to a little past the dearest rung, accuracies from the least rung to the best point on a curve."""
    high = float(chart.rungs.cost.max())
    within = [method.accuracy[method.cost <= high] for method in chart.methods]
    reached = np.concatenate([chart.rungs.accuracy, *within])
    least, most = float(chart.rungs.accuracy.min()), float(reached.max())
    room = max(most - least, 0.02) * 0.08
    return _Scale((0.0, least - room), ((high or 1.0) * 1.06, most + room))


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers within the range."""
    raw = (high - low) / _TICKS
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * (1.0 - 1e-9))
    first = ceil(low / step - 1e-9)
    return [round(at * step, 12) for at in range(first, floor(high / step + 1e-9) + 1)]


def _axes(scale: _Scale, chart: Chart) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for accuracy in ticks(scale.low[1], scale.high[1]):
        y = scale.y(accuracy)
        parts.append(f'<line class="grid" x1="{_LEFT:g}" y1="{y:.1f}" x2="{right:g}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{accuracy * 100:g}</text>'
        )
    for cost in ticks(scale.low[0], scale.high[0] * chart.items):
        x = scale.x(cost / chart.items)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP:g}" x2="{x:.1f}" y2="{bottom:g}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 20:g}" text-anchor="middle">{cost:g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 8:g}" text-anchor="middle">{escape(chart.cost_label)}</text>')
    parts.append(
        f'<text transform="translate(18 {(_TOP + bottom) / 2:g}) rotate(-90)" text-anchor="middle">correct (%)</text>'
    )
    return "\n".join(parts)


def _line(curve: Curve, scale: _Scale, look: str) -> str:
    """A curve from its first vertex to the right edge: flat after its maximum."""
    inside = curve.cost <= scale.high[0]
    points = [(scale.x(x), scale.y(y)) for x, y in zip(curve.cost[inside], curve.accuracy[inside], strict=True)]
    last = float(np.interp(scale.high[0], curve.cost, curve.accuracy))
    points.append((scale.x(scale.high[0]), scale.y(last)))
    return f'<polyline {look} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _stroke(at: int) -> str:
    dash = _DASHES[at // len(_COLOURS) % len(_DASHES)] or ("" if at % 2 == 0 else _DASHES[1])
    return f'class="curve" style="stroke: {_colour(at)}" stroke-dasharray="{dash or "none"}"'


def _colour(at: int) -> str:
    return f"var(--c{at % len(_COLOURS)})"


def _square(chart: Chart, at: int, scale: _Scale) -> str:
    kept, best = chart.methods[at].deployed, chart.rungs.best
    if kept is None:
        return ""
    cost, accuracy = kept.cost * float(chart.rungs.cost[best]), kept.accuracy_share * float(chart.rungs.accuracy[best])
    x, y = scale.x(min(cost, scale.high[0])), scale.y(min(max(accuracy, scale.low[1]), scale.high[1]))
    what = escape(f"{chart.methods[at].name}, deployed for 98 %: kept {kept.accuracy_share:.3f} at {kept.cost:.3f}")
    place = f'x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"'
    return f'<rect {place} style="fill: {_colour(at)}"><title>{what}</title></rect>'


def _rungs(rungs: Fixed, scale: _Scale) -> str:
    """Circles, and names beside them on the side where there is room, apart from each other."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    names = short_names(rungs.rungs)
    for at in np.argsort(rungs.cost, kind="stable").tolist():
        x, y = scale.x(float(rungs.cost[at])), scale.y(float(rungs.accuracy[at]))
        width, left = _LETTER * len(names[at]), x > _WIDTH * 0.6
        start = x - 9.0 - width if left else x + 9.0
        line = _free_line(start, start + width, y, taken)
        taken.append((start, start + width, line))
        anchor, shift = ("end", -9.0) if left else ("start", 9.0)
        parts.append(f'<circle class="rung" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        text = escape(names[at])
        parts.append(f'<text class="halo" x="{x + shift:.1f}" y="{line:.1f}" text-anchor="{anchor}">{text}</text>')
    return "\n".join(parts)


def short_names(names: Sequence[str]) -> list[str]:
    """Names without what all of them begin with, up to a colon or a slash; whole where one would be left empty."""
    starts = [names[0][: at + 1] for at, letter in enumerate(names[0]) if letter in ":/"]
    shared = [start for start in starts if all(name.startswith(start) for name in names)]
    short = [name.removeprefix(max(shared, key=len, default="")) for name in names]
    return short if all(short) else list(names)


def _free_line(start: float, end: float, y: float, taken: Sequence[tuple[float, float, float]]) -> float:
    """The baseline nearest to just below `y`, within the drawing, where these columns hold no other name."""
    others = [line for other_start, other_end, line in taken if start < other_end and other_start < end]
    steps = [_LINE * (0.9 + 0.5 * step * sign) for step in range(60) for sign in (1, -1)]
    inside = (y + step for step in steps if _TOP + _LINE <= y + step <= _HEIGHT - _BOTTOM - 2)
    return next((line for line in inside if all(abs(line - other) >= _LINE for other in others)), y)


def _key(chart: Chart) -> str:
    looks = [("fixed rungs mixed at random", 'class="curve hull"')]
    looks += [(method.name, _stroke(at)) for at, method in enumerate(chart.methods)]
    sample = '<svg viewBox="0 0 32 12" aria-hidden="true"><line {look} x1="0" y1="6" x2="32" y2="6"/></svg>'
    items = "".join(f"<li>{sample.format(look=look)}{escape(name)}</li>" for name, look in looks)
    return f'<ul class="key">{items}</ul>'


def _table(chart: Chart) -> str:
    """Fixed rungs first, then every method with the figures it came with; a dash where it has none."""
    names = list(dict.fromkeys(name for method in chart.methods for name in method.figures))
    rungs = [
        f"<tr><td>{escape(name)}</td><td>{cost * chart.items:.4g}</td><td>{100 * accuracy:.1f}</td></tr>"
        for name, cost, accuracy in zip(chart.rungs.rungs, chart.rungs.cost, chart.rungs.accuracy, strict=True)
    ]
    methods = [_row(method.name, [method.figures.get(name, "-") for name in names]) for method in chart.methods]
    first = f"<tr><th>fixed rung</th><th>{escape(chart.cost_label)}</th><th>correct (%)</th></tr>"
    second = "<tr><th>method</th>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"
    return f"<table>{first}{''.join(rungs)}</table>\n<table>{second}{''.join(methods)}</table>"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
