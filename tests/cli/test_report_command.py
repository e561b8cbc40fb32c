"""`governor report`: what it prints, as a table and as JSON, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from governor.cli.app import app
from tests.learn.test_arms import attempt, forecast, line, verdict

Run = Callable[..., Result]
CANARY = [
    row
    for n in range(80)
    for arm, micros in (("governed", 50), ("control", 200))
    for row in (
        line(f"{arm}{n}", arm, micros=micros + n % 5, node="plan" if n % 2 else "check"),
        attempt(f"{arm}{n}", verdict=verdict()),
    )
]
SHADOW = [
    line("s", "shadow", decided="low"),
    attempt("s", forecasts=[forecast("low", 10, 0.6, 0.75), forecast("top", 100, 0.9, 0.9)]),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "records.jsonl"

    def command(records: list[dict[str, Any]], *options: str) -> Result:
        times = {"schema": 1, "time": "2026-11-22T10:00:00Z"}
        path.write_text("".join(json.dumps(one | times) + "\n" for one in records))
        return CliRunner().invoke(app, ["report", str(path), *options])

    return command


def test_the_arms_of_a_canary_stand_side_by_side(run: Run) -> None:
    shown = run(CANARY)
    assert shown.exit_code == 0, shown.output
    cells = {row[:22].strip(): row[22:].split() for row in shown.stdout.splitlines()}
    assert cells["sessions"] == ["80", "80"]
    assert " ".join(cells["USD per 1,000 steps"]).endswith("74.3 % saved (74.1 to 74.4)")
    assert "+0.0 points" in shown.stdout
    assert "Forecast" not in shown.stdout


def test_a_group_has_a_table_of_its_own(run: Run) -> None:
    shown = run(CANARY, "--by", "node")
    assert [row for row in shown.stdout.splitlines() if row in ("all steps", "plan", "check")] == [
        "all steps",
        "check",
        "plan",
    ]


def test_json_says_the_same(run: Run) -> None:
    told = json.loads(run(CANARY, "--json").stdout)["groups"][""]
    assert told["arms"]["control"]["steps"] == 80
    assert told["saved"]["micros"]["value"] == pytest.approx(1 - 52 / 202)
    low, high = told["saved"]["micros"]["interval"]
    assert low < told["saved"]["micros"]["value"] < high
    assert told["gained"]["accepted"]["value"] == 0.0
    assert told["promise"] is None


def test_shadow_records_promise_and_say_that_it_is_a_forecast(run: Run) -> None:
    shown = run(SHADOW)
    assert "Forecast for 1 shadow steps, not measured:" in shown.stdout
    assert "65.0% of the baseline's cost saved" in shown.stdout
    assert "first answers right: 60.0% in 1 steps; the baseline's: 90.0%" in shown.stdout
    assert "No interval where there are fewer than 30 sessions." in shown.stdout
    assert json.loads(run(SHADOW, "--json").stdout)["groups"][""]["promise"]["governed"] == 35


def test_shares_by_other_verifiers_are_not_compared(run: Run) -> None:
    other = [
        row | {"verdict": verdict(verifier="judge")} if "g" in row["step_id"] and "verdict" in row else row
        for row in CANARY
    ]
    shown = run(other)
    assert "Accepted shares are not compared" in shown.stdout
    assert json.loads(run(other, "--json").stdout)["groups"][""]["gained"]["accepted"] is None


@pytest.mark.parametrize(
    ("records", "options", "said"),
    [
        ([], (), "no outcome"),
        ([attempt("a")], (), "no outcome"),
        ([line("a", parent="b")], (), "1 parts of other steps"),
        ([line("a")], ("--since", "2027-01-01"), "no outcome"),
        ([line("a")], ("--since", "soon"), "is no moment"),
    ],
)
def test_what_there_is_nothing_to_say_of_is_one_line(
    run: Run, records: list[dict[str, Any]], options: tuple[str, ...], said: str
) -> None:
    refused = run(records, *options)
    assert refused.exit_code == 2
    assert said in refused.output
    assert "Traceback" not in refused.output
