"""`governor replay`, and `governor certify` on the same replay: from files to figures, and every refusal in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from governor.cli import main
from governor.cli.app import app
from governor.learn.certificate import load_certificates

Run = Callable[..., Result]


def rows(questions: int, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Two rungs, of which the cheap one fails what its text calls hard."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for at in range(questions):
        hard, lucky = bool(rng.random() < 0.4), bool(rng.random() < 0.95)
        text = f"{'Prove that the theorem holds for' if hard else 'Copy the word'} number {at}, seed {seed}"
        about = {"qid": f"{'hard' if hard else 'easy'}-{seed}-{at}", "domain": "maths" if hard else "words", **more}
        found.append({**about, "question": text, "rung": "low", "correct": float(not hard), "p": 0.9 - 0.6 * hard})
        found.append({**about, "rung": "high", "correct": float(lucky), "p": 0.9})
    return found


def all_wrong(found: list[dict[str, Any]]) -> list[bool]:
    """Whether no rung is right, of each question."""
    return [not low["correct"] and not high["correct"] for low, high in zip(found[::2], found[1::2], strict=True)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in a folder with records, other records, and a ladder; quick methods only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("governor.learn.baselines.complexity_scores", lambda texts: None)
    for name, found in (("rows", rows(60)), ("other", rows(40, seed=1))):
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in found))
    Path("ladders").mkdir()
    cost = {"unit": "weight", "per_rung": {"low": 1, "high": 10}}
    Path("ladders/two.json").write_text(json.dumps({"records": "rows.jsonl", "rungs": ["high", "low"], "cost": cost}))

    def command(*options: str, word: str = "replay") -> Result:
        return CliRunner().invoke(
            app, [word, *options, *(() if word == "certify" else ("--ladder", "ladders/two.json"))]
        )

    return command


def record(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_one_json_object_of_the_ladders_own_records(run: Run) -> None:
    found = record(run("--rules", "--json"))
    assert (found["ladder"], found["n"], found["questions"]) == ("two", 60, 60)
    assert found["best_fixed"]["rung"] == "high"
    assert [*found["fixed"]] == ["high", "low"]
    assert len(found["methods"]["governor"]["frontier"]) == 41
    assert found["methods"]["governor"]["area"] > 5.0  # the rules tell a proof from a copy


def test_the_same_command_prints_the_same_bytes(run: Run) -> None:
    assert run("--rules", "--json").stdout == run("--rules", "--json").stdout


def test_a_table_for_people_and_a_drawing(run: Run) -> None:
    done = run("--rules", "--dial", "0.4", "--html", "frontier.html")
    assert done.exit_code == 0
    assert "two: 60 questions, no verifier, 1 fold seed; hull c98" in done.stdout
    assert "high (best)" in done.stdout
    assert "dial 0.4: correct" in done.stdout
    assert all(name in done.stdout for name in ("length", "tfidf", "knn", "one_shot", "governor", "dp", "oracle"))
    assert Path("frontier.html").read_text().startswith("<!doctype html>")


def test_a_verifier_and_other_records_in_place_of_the_ladders(run: Run) -> None:
    plain, checked = record(run("--rules", "--json")), record(run("--rules", "--verifier", "perfect", "--json"))
    most = [max(point[1] for point in one["methods"]["governor"]["frontier"]) for one in (plain, checked)]
    assert most[0] <= most[1] == pytest.approx(1.0 - sum(all_wrong(rows(60))) / 60, rel=1e-5)
    scored = record(run("other.jsonl", "--rules", "--verifier", "score:p", "--json"))
    assert scored["questions"] == 40
    assert scored["methods"]["dp"] is None


def test_families_stay_together_and_labels_can_be_shuffled(run: Run) -> None:
    families = record(run("--rules", "--group-by", "/^(\\w+-\\d+-\\d)/", "--json"))
    assert families["questions"] == 60
    shuffled = record(run("--rules", "--shuffle-labels", "--json"))
    assert shuffled["fixed"] == record(run("--rules", "--json"))["fixed"]
    assert shuffled["methods"]["tfidf"]["area"] < families["methods"]["tfidf"]["area"]


def test_a_policy_has_its_say(run: Run) -> None:
    Path("mine.yaml").write_text("version: 1\nextends: balanced\ndial: 0.15\nbacktrack: {max_attempts: 1}\n")
    done = run("--rules", "--policy", "mine.yaml", "--verifier", "perfect")
    assert done.exit_code == 0, done.output
    assert "dial 0.15: correct" in done.stdout
    assert "1.00 calls an item" in done.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--rules", "--verifier", "perfet"], 2, "--verifier: 'perfet' is no verifier (did you mean 'perfect'?)"),
        (["--rules", "--group-by", "famly"], 2, "--group-by: no row has a field 'famly'"),
        (
            ["--rules", "--group-by", "domain"],
            1,
            "governor: 5 folds need 5 groups of questions or more, and there are 2",
        ),
        (["--rules", "--node-field", "qid"], 2, "--node-field: 'qid' is nothing that a forecast may see"),
        (["--rules", "--calibration", "rows.jsonl"], 2, "--fit, --calibration and --rules exclude each other"),
        (["--calibration", "rows.jsonl"], 1, "rows.jsonl: "),
        (["--rules", "--policy", "none.yaml"], 2, "none.yaml"),
        (["--rules", "--html", "no/where.html"], 1, "no/where.html: can't be written"),
        (["--rules", "--cv", "1"], 2, "--cv"),
    ],
)
@pytest.mark.usefixtures("run")
def test_every_refusal_is_one_line(
    options: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["governor", "replay", "--ladder", "ladders/two.json", *options])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == code
    assert said in told
    assert len(told.splitlines()) == 1


def test_certify_rests_on_the_same_replay(run: Run) -> None:
    cost = {"unit": "weight", "per_rung": {"low": 1, "high": 10}}
    told = {"records": "held.jsonl", "rungs": ["low", "high"], "cost": cost, "verifier": {"kind": "perfect"}}
    Path("ladders/checked.json").write_text(json.dumps(told))
    Path("held.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows(120, seed=2)))
    asked = ("held.jsonl", "--ladder", "ladders/checked.json", "--risk", "0.05", "-o", "made.json", "--json")
    found = record(run(*asked, word="certify"))
    (node,) = found["nodes"]
    # a perfect verifier accepts nothing wrong, at any dial
    assert {(one["failures"], one["passed"]) for one in node["each"]} == {(0, True)}
    assert (found["ok"], node["certified"]["dial"]) == (True, 1.0)
    assert load_certificates(Path("made.json"))[0].n == node["certified"]["n"] > 59
    lost = run(*asked[:-1], "--kind", "lost-correct", "--policy", "balanced", word="certify")
    assert lost.exit_code in (0, 1)
    assert "lost-correct <= 0.05 at delta 0.05, 120 independent questions" in lost.stdout


def test_bench_writes_one_table_of_a_suite(run: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "ladders/two.json", "ladders/two.json", "--rules", "-o", "table.md"])
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    lines = Path("table.md").read_text().splitlines()
    assert lines[0].startswith("| ladder | questions | measure | random mixing | tfidf | governor |")
    assert [line.split(" | ")[2] for line in lines[2:]] == 2 * [
        "cost that keeps 98 %",
        "points over random mixing",
        "APGR",
        "CPT50",
        "CPT80",
        "kept, at cost (dial chosen beforehand)",
    ]
    assert len({line.count("|") for line in lines}) == 1
    told = record(CliRunner().invoke(app, ["bench", "ladders/two.json", "--rules", "--json"]))
    (one,) = told["ladders"]
    assert one["methods"]["governor"]["area"] == record(run("--rules", "--json"))["methods"]["governor"]["area"]
