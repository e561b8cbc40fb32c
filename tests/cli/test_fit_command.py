"""`governor fit`: what it writes, prints and refuses."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from governor.cli.app import app
from governor.estimate.calibration import load_calibration
from tests.learn.learnable import told_by_words

Rows = list[dict[str, Any]]
Run = Callable[..., Result]


def outcomes(questions: int = 60) -> Rows:
    """Recorded outcomes of `told_by_words`, the dear rung's rows first."""
    table = told_by_words(questions)
    return [
        {
            "qid": f"kind{at % 9}-{qid}",
            "rung": table.rungs[k],
            "question": table.questions[at],
            "correct": table.correct[at, k, 0],
            "output_tokens": 10.0 if k == 0 else 100.0,
            "finish_reason": "length" if at % 10 == 0 and k == 1 else "stop",
            "domain": f"d{at % 2}",
        }
        for at, qid in enumerate(table.qids)
        for k in (1, 0)
    ]


def written(rows: Rows, name: str = "records.jsonl.gz") -> str:
    Path(name).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return name


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *words: CliRunner().invoke(app, ["fit", *words], catch_exceptions=False)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governor.learn.heads.TREES", 5)


@pytest.mark.usefixtures("fast")
def test_it_writes_a_calibration_and_says_what_it_is_worth(run: Run) -> None:
    few = [row | {"rung": "seldom"} for row in outcomes()[:10:2]]
    done = run(written([*outcomes(), *few]), "-o", "made", "--deciles")
    assert done.exit_code == 0, done.output
    known = load_calibration("made.npz")
    assert known.rungs == ("low", "high")  # cheapest first
    out = done.stdout
    assert "Held-out forecasts" in out
    assert "Reliability" in out
    assert "low" in out
    assert "10%" in out  # of the dear rung's lengths are cut
    assert "left out for too few outcomes: seldom (5)" in out
    assert "base rate" in out
    assert out.splitlines()[-1].startswith("made.npz: 60 questions, ")
    assert [path.name for path in sorted(Path().iterdir())] == ["made.npz", "records.jsonl.gz"]


@pytest.mark.usefixtures("fast")
def test_as_json_it_is_one_object_and_the_same_seed_the_same_file(run: Run) -> None:
    records = written(outcomes())
    first = run(records, "--json")
    told = json.loads(first.stdout)
    assert (told["out"], told["questions"], told["bad_rows"], told["left_out"]) == ("calibration.npz", 60, 0, {})
    assert told["bytes"] == Path("calibration.npz").stat().st_size < 5_000_000
    assert set(told["rungs"]) == {"low", "high"}
    assert told["rungs"]["low"]["brier_base_rate"] > 0.1
    assert told["rungs"]["low"]["median_tokens"] == pytest.approx(10.0, rel=0.2)
    assert told["digest"] == load_calibration("calibration.npz").digest
    again = json.loads(run(records, "-o", "again.npz", "--json").stdout)
    assert Path("again.npz").read_bytes() == Path("calibration.npz").read_bytes()
    assert again["digest"] == told["digest"]


@pytest.mark.usefixtures("fast")
def test_a_ladder_file_names_the_rungs(run: Run) -> None:
    Path("ladder.json").write_text(
        json.dumps({"records": "x", "rungs": ["high"], "cost": {"unit": "tokens"}} | {"rungs": ["high", "low"]})
    )
    done = run(written(outcomes()), "--ladder", "ladder.json", "--node-field", "domain", "--group-by", r"/(kind\d)-/")
    assert done.exit_code == 0, done.output
    known = load_calibration("calibration.npz")
    assert known.rungs == ("high", "low")
    assert known.report["groups"] == 9


@pytest.mark.usefixtures("fast")
def test_bad_rows_are_told_once_and_refused_if_strict(run: Run) -> None:
    records = written([{"qid": "", "rung": "low"}, *outcomes()])
    done = run(records)
    assert done.exit_code == 0
    assert done.stderr.count("[skipped]") == 1
    refused = run(records, "-o", "strict.npz", "--strict")
    assert refused.exit_code == 2
    assert "records.jsonl.gz:1: qid" in refused.stderr
    assert not Path("strict.npz").exists()


@pytest.mark.usefixtures("fast")
def test_rates_of_a_verifier_are_printed(run: Run) -> None:
    rows = [
        row | {"verdict": "accept" if row["correct"] else "reject", "verifier": "tests", "node": "solve"}
        for row in outcomes()
    ]
    done = run(written(rows))
    assert "verifier, all nodes: accepts 99% of right and " in done.stdout
    assert "verifier, node solve: accepts" in done.stdout
    assert "(120 labelled verdicts)" in done.stdout


def without(rows: Rows, *names: str) -> Rows:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (outcomes(10), [], "too few outcomes: at most 10 questions with a label (rung 'high'), 20 are needed"),
        (without(outcomes(), "correct"), [], "no row has a label: 'correct', or a verdict accept or reject"),
        (without(outcomes(), "question"), [], "no row holds the text of its question"),
        ([], [], "no row holds the text"),
        (outcomes(), ["--group-by", "/kinds-(.*)/"], "--group-by: /kinds-(.*)/ does not match qid 'kind0-0'"),
        (outcomes(), ["--group-by", "domian"], "no row has a field 'domian' (did you mean 'domain'?)"),
        (outcomes(), ["--node-field", "qid"], "--node-field: 'qid' is nothing that a forecast may see"),
        (outcomes(), ["--group-by", "/(k)/"], "5 folds need 5 groups of questions or more, and there are 1"),
    ],
)
def test_records_that_allow_no_forecast_are_one_line(run: Run, rows: Rows, options: list[str], said: str) -> None:
    done = run(written(rows), *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["records.jsonl.gz"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "nowhere/made"], "there is no folder nowhere"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--ladder", "none.json"], "does not exist"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(run: Run, options: list[str], said: str) -> None:
    done = run(written([]), *options)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_record_file_is_never_written_over(run: Run, fast: None) -> None:
    records = written(outcomes())
    before = Path(records).read_bytes()
    assert run(records, "-o", records).exit_code == 0
    assert Path(records).read_bytes() == before
    assert Path(f"{records}.npz").exists()


def test_without_the_extra_it_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    done = run(written(outcomes()))
    assert done.exit_code == 2
    assert "pip install 'compute-governor[learn]'" in done.stderr
