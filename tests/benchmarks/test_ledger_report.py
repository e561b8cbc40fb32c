"""What the ledger benchmark prints, and which claims count."""

from __future__ import annotations

from benchmarks.ledger_report import Claim, Report, Table

HELD = Claim(text="overshoot", measured="0 tokens", target="0 tokens", met=True)
SLOW = Claim(text="memory: operations/s", measured="9", target=">= 10", met=False, machine=True)
OVER = Claim(text="usable", measured="98 %", target=">= 99 %", met=False)


def test_claims_of_the_machine_can_be_left_aside() -> None:
    report = Report(claims=(HELD,)) + Report(claims=(SLOW, OVER))
    assert report.failed() == (SLOW, OVER)
    assert report.failed(machine=False) == (OVER,)


def test_it_prints_tables_then_claims_of_either_kind() -> None:
    report = Report((Table("Caps", ("store", "sent"), (("memory", "2"),), "Five times."),), (SLOW, HELD))
    assert report.markdown.split("\n\n") == [
        "### Caps",
        "Five times.",
        "| store | sent |\n| --- | --- |\n| memory | 2 |",
        "### Claims, on any machine",
        "| claim | measured | target | met |\n| --- | --- | --- | --- |\n| overshoot | 0 tokens | 0 tokens | yes |",
        "### Claims of this machine, busy or idle as it is",
        "| claim | measured | target | met |\n| --- | --- | --- | --- |\n| memory: operations/s | 9 | >= 10 | **NO** |",
    ]
