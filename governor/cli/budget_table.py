"""Budgets as a person reads them: money in USD, times in UTC, what must not be in red."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from governor.ledger.standing import Standing
    from governor.records import Amount, Window
    from governor.telemetry.audit import Audit, Row

WIDTH = 150
"""Columns of a table that goes to no terminal."""

LISTED = 40
"""Scopes that agree are listed one by one up to this many."""

_MONEY, _MILLIS = 1, 2  # places in the order of dimensions


def console() -> Console:
    """Where tables are printed."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def figure(value: float, place: int) -> str:
    """A figure of the ledger in the policy's unit: USD exact to the micro-unit, seconds, counts."""
    if place == _MONEY:
        return usd(round(value))
    return f"{value / 1000:,.3f} s" if place == _MILLIS else f"{round(value):,}"


def usd(micros: int) -> str:
    """Micro-USD as USD, exact: $0.05, $1,200.000001, -$3.00."""
    whole, part = divmod(abs(micros), 1_000_000)
    digits = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}${whole:,}.{digits}"


def moment(seconds: float) -> str:
    """A moment in UTC, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def window(found: Window) -> str:
    """Which spend counts."""
    if found.sliding is not None:
        return f"last {_length(found.sliding)}"
    if found.until is not None:
        return f"until {moment(found.until)}"
    return "total"


def _length(seconds: float) -> str:
    for unit, width in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= width and seconds % width == 0:
            return f"{seconds / width:g} {unit}"
    return f"{seconds:g} s"


def shown(standing: Standing) -> list[int]:
    """The places of the dimensions worth a line: limited, overshot, or, where no limit is known, tokens and money."""
    from governor.ledger.sums import figures

    balance = standing.balance
    over, used = figures(balance.overshoot), figures(balance.spent + balance.reserved)
    limited = [place for place, ceiling in enumerate(standing.ceilings) if ceiling is not None or over[place]]
    return limited or [place for place in (_MONEY, 0) if used[place]] or [0]


def budget_table(standings: Iterable[Standing]) -> Table:
    """A line for each dimension of each scope."""
    from rich.table import Column, Table

    names = ("spent", "reserved", "left", "pace an hour", "runs out", "expired", "overshoot")
    right = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table(
        Column("scope", overflow="fold"), Column("window", no_wrap=True), "of", *right, box=None, pad_edge=False
    )
    for standing in standings:
        for line, place in enumerate(shown(standing)):
            table.add_row(*_cells(standing, place, first=line == 0))
    return table


def _cells(standing: Standing, place: int, *, first: bool) -> Iterator[Text | str]:
    from rich.text import Text

    from governor.ledger.standing import UNITS
    from governor.ledger.sums import DIMENSIONS, figures

    balance = standing.balance
    yield Text(balance.scope if first else "")
    yield window(balance.window) if first else ""
    yield UNITS[DIMENSIONS[place]][0]
    yield figure(figures(balance.spent)[place], place)
    yield figure(figures(balance.reserved)[place], place)
    yield Text(left(standing, place), style="" if (standing.left(place) or 1) > 0 else "yellow")
    pace = standing.pace(place)
    yield "" if pace is None else figure(pace, place)
    yield runs_out(standing, place)
    yield str(balance.expired) if first else ""
    over = figures(balance.overshoot)[place]
    yield Text(figure(over, place), style="bold red") if over else Text("0")


def left(standing: Standing, place: int) -> str:
    """What is left of which limit; empty where none is known."""
    rest, ceiling = standing.left(place), standing.ceilings[place]
    return "" if rest is None or ceiling is None else f"{figure(rest, place)} of {figure(ceiling, place)}"


def runs_out(standing: Standing, place: int) -> str:
    """When it runs out at the present pace; `lasts` where the window ends first."""
    when = standing.runs_out(place)
    if when is None:
        return "lasts" if standing.left(place) is not None and standing.pace(place) is not None else ""
    return "now" if when <= standing.now else moment(when) if when - standing.now < 3.2e9 else "lasts"


def line(standing: Standing, place: int) -> str:
    """One dimension of a scope in one line of text, for logs."""
    from governor.ledger.standing import UNITS
    from governor.ledger.sums import DIMENSIONS, figures

    balance = standing.balance
    told = [
        f"spent {figure(figures(balance.spent)[place], place)}",
        f"reserved {figure(figures(balance.reserved)[place], place)}",
        f"left {left(standing, place) or '-'}",
        f"runs out {runs_out(standing, place) or '-'}",
        f"expired {balance.expired}",
        f"overshoot {figure(figures(balance.overshoot)[place], place)}",
    ]
    return f"{balance.scope} {UNITS[DIMENSIONS[place]][0]}: {', '.join(told)}"


def audit_table(found: Audit) -> tuple[Table, int]:
    """A line for each dimension of each scope that differs, and of the first ones that agree; how many are left out."""
    from rich.table import Column, Table
    from rich.text import Text

    names = ("outcomes", "records", "expired", "ledger", "difference")
    right = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table(Column("scope", overflow="fold"), "of", *right, box=None, pad_edge=False)
    agreeing = [row for row in found.rows if row.agrees and not row.scope.startswith("step:")][:LISTED]
    listed = [row for row in found.rows if not row.agrees or row in agreeing]
    for row in listed:
        for number, cells in enumerate(_audit_lines(row)):
            first = (Text(row.scope), cells[0], str(row.steps)) if number == 0 else ("", cells[0], "")
            table.add_row(*first, *cells[1:-1], Text(cells[-1], style="" if cells[-1] == "0" else "bold red"))
    return table, len(found.rows) - len(listed)


def _audit_lines(row: Row) -> Iterator[Sequence[str]]:
    from governor.ledger.standing import UNITS
    from governor.ledger.sums import DIMENSIONS, figures

    if row.ledger is None:
        yield "", "", "", "forgotten", "0"
        return
    columns = [figures(one) for one in (row.records, row.expired, row.ledger, row.difference)]
    places = [place for place, name in enumerate(DIMENSIONS) if name in row.compared and any(c[place] for c in columns)]
    for place in places or [0]:
        *cells, apart = (column[place] for column in columns)
        yield UNITS[DIMENSIONS[place]][0], *(figure(one, place) for one in cells), _signed(apart, place)


def _signed(value: int, place: int) -> str:
    if value == 0:
        return "0"
    text = f"{value:,} ms" if place == _MILLIS else figure(value, place)
    return text if value < 0 else f"+{text}"


def changes(before: Amount, after: Amount) -> list[str]:
    """What a person changed, a dimension a line."""
    from governor.ledger.standing import UNITS
    from governor.ledger.sums import DIMENSIONS, figures

    pairs = zip(figures(before), figures(after), strict=True)
    return [
        f"{UNITS[DIMENSIONS[place]][0]} {figure(one, place)} -> {figure(two, place)}"
        for place, (one, two) in enumerate(pairs)
        if one != two
    ]
