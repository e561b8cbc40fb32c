"""What a part of the ledger benchmark found: tables for a person, and claims that hold or don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence that must hold: what was measured, and what it is held against.

    `machine` says that it depends on the machine and on who else uses it: a throughput, a percentile of waiting.
    """

    text: str
    measured: str
    target: str
    met: bool
    machine: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Figures as text, ready to print; `note` says how they were taken."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def markdown(self) -> str:
        """As a Markdown table under its title."""
        lines = [_row(self.head), _row(["---"] * len(self.head)), *map(_row, self.rows)]
        return "\n".join([f"### {self.title}", "", *([self.note, ""] if self.note else []), *lines])


@dataclass(frozen=True, slots=True)
class Report:
    """The tables and claims of one part, or of all."""

    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(self.tables + other.tables, self.claims + other.claims)

    def failed(self, *, machine: bool = True) -> tuple[Claim, ...]:
        """The claims that don't hold; without `machine` those of the machine are left aside."""
        return tuple(claim for claim in self.claims if not claim.met and (machine or not claim.machine))

    @property
    def markdown(self) -> str:
        """Tables, then the claims that hold on every machine, then those of this one."""
        always = [claim for claim in self.claims if not claim.machine]
        here = [claim for claim in self.claims if claim.machine]
        kinds = (("Claims, on any machine", always), ("Claims of this machine, busy or idle as it is", here))
        verdicts = [_verdicts(title, claims) for title, claims in kinds if claims]
        return "\n\n".join(table.markdown for table in (*self.tables, *verdicts))


def _verdicts(title: str, claims: Sequence[Claim]) -> Table:
    rows = tuple((claim.text, claim.measured, claim.target, "yes" if claim.met else "**NO**") for claim in claims)
    return Table(title, ("claim", "measured", "target", "met"), rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
