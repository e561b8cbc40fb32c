"""`governor fit --stops`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from governor.checks import nameless_checks
from governor.cli.app import app
from governor.errors import PolicyError
from governor.policy import load_policy
from governor.records import Attempt, Reply, Rung, Step, Usage, Verdict
from governor.stops.settings import Stops
from governor.telemetry.records import RecordShape, record_of, to_line

Run = Callable[..., Result]
LADDER = {"records": "r", "rungs": ["b0", "b100", "full"], "cost": {"unit": "tokens"}, "continues": True}
LOOP = "wait, but then it is not so, or is it? "


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    score = {"verifier": {"kind": "score", "field": "p_top"}}
    Path("ladder.json").write_text(json.dumps(LADDER | score), encoding="utf-8")
    return lambda *words: CliRunner().invoke(app, ["fit", "--stops", *words], catch_exceptions=False)


def written(rows: list[dict[str, Any]], name: str = "records.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def budgets(questions: int) -> list[dict[str, Any]]:
    """One of ten is only right in the end, and not sure before; the others are right and sure from 100 tokens on."""
    rows: list[dict[str, Any]] = []
    for at in range(questions):
        slow = at % 10 == 0
        for rung, tokens, right in (("b0", 1, False), ("b100", 101, not slow), ("full", 500, True)):
            sure = 0.6 + 0.001 * (at % 7) if not right or slow else 0.9 + 0.001 * (at % 7)
            row = {"qid": f"q{at}", "rung": rung, "output_tokens": tokens, "correct": float(right), "p_top": sure}
            rows.append(row)
    return rows


def thoughts(questions: int, looping: int, right: bool = False) -> list[dict[str, Any]]:
    said = [LOOP * 9] * looping + ["so"] * (questions - looping)
    return [
        {"qid": f"q{at}", "rung": "r", "correct": float(right or at >= looping), "thinking": text}
        for at, text in enumerate(said)
    ]


def policy_of(block: str) -> Stops | None:
    path = Path("policy.yaml")
    path.write_text("version: 1\nladder: [{id: a, model: m}]\n" + Path(block).read_text(encoding="utf-8"))
    found = load_policy(path, checks=nameless_checks()).stops
    return found.stops if found else None


def test_what_it_writes_is_a_policys_block_with_its_proof(run: Run) -> None:
    result = run(written(thoughts(100, 10)), "-o", "stops.yaml")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(
        "repeat: 2 certified for a right answer lost <= 0.05 at delta 0.05, 100 independent"
    )
    assert "0 lost (bound 2.95%), 10 ended early" in result.output
    assert policy_of("stops.yaml") == Stops(repeat=2)


def test_a_loop_that_was_right_in_the_end_holds_the_threshold_back(run: Run) -> None:
    result = run(written(thoughts(100, 30, right=True)))
    assert result.exit_code == 0, result.output
    repeat = policy_of("stops.yaml")
    assert repeat is not None
    assert repeat.repeat == 12, "nine rounds were right"


def test_governors_own_records_tell_of_repetition_with_their_verdicts_as_labels(run: Run) -> None:
    lines = []
    for at in range(100):
        looping = at < 10
        verdict = Verdict(decision="reject" if looping else "accept", verifier="v")
        reply = Reply(text="4", thinking=LOOP * 9 if looping else "so", stopped="repeat" if at == 99 else "")
        attempt = Attempt(
            number=1, rung=Rung(id="r", model="m"), mode="first", reply=reply, verdict=verdict, usage=Usage(1, 1)
        )
        step = Step(id=f"s{at}", messages=({"role": "user", "content": f"question {at}"},))
        lines.append(to_line(record_of(step, attempt, RecordShape(prompts=True, answers=True), 1.7e9)))
    Path("own.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    result = run("own.jsonl")
    assert result.exit_code == 0, result.output
    assert "99 independent thoughts: 0 lost" in result.output, "what a rule ended is no whole thought"
    assert policy_of("stops.yaml") == Stops(repeat=2)


def test_bad_rows_are_told_and_skipped(run: Run) -> None:
    path = Path(written(budgets(100)))
    path.write_text(path.read_text(encoding="utf-8") + '{"qid": 1}\n', encoding="utf-8")
    result = run(str(path), "--ladder", "ladder.json", "--rule", "budget", "--risk", "0.3")
    assert result.exit_code == 0
    assert "records.jsonl:301: qid: must be text" in result.stderr
    assert run(str(path), "--ladder", "ladder.json", "--strict").exit_code == 2


def test_a_budget_is_certified_and_a_score_is_told(run: Run) -> None:
    found = run(written(budgets(400)), "--ladder", "ladder.json", "--risk", "0.3", "--json")
    assert found.exit_code == 0, found.output
    budget, score = json.loads(found.output)["rules"]
    assert (budget["rule"], budget["threshold"], budget["risk"]) == ("budget", 100.0, 0.15)
    assert [one["failures"] for one in budget["tested"]] == [40, 400]
    assert score["rule"] == "p_top"
    assert 0.65 < score["threshold"] <= 0.9
    assert policy_of("stops.yaml") == Stops(budget=100)


def test_a_score_alone_writes_nothing(run: Run) -> None:
    result = run(written(budgets(400)), "--ladder", "ladder.json", "--rule", "p_top")
    assert result.exit_code == 0, result.output
    assert "no key of `stops`: the threshold of its verifier" in result.output
    assert result.output.endswith("nothing was written\n")
    assert not Path("stops.yaml").exists()


def test_groups_are_written_with_their_window_and_as_many_alternatives_as_were_recorded(run: Run) -> None:
    def rows(at: int) -> dict[str, Any]:
        top = [{"token": "a", "logprob": -0.01 * at}, {"token": "b", "logprob": -1.0}]
        tokens = [{"token": "a", "logprob": -0.1, "top_logprobs": top}] * 33
        return {"qid": f"q{at}", "rung": "r", "correct": float(at > 9), "logprobs": {"content": tokens}}

    result = run(written([rows(at) for at in range(120)]), "--rule", "group", "--window", "32", "--risk", "0.2")
    assert result.exit_code == 0, result.output
    found = policy_of("stops.yaml")
    assert found is not None
    assert (found.group_window, found.group_top) == (32, 2)
    assert found.group is not None
    assert 0.5 < found.group < 0.9


def test_where_tokens_tell_unlike_numbers_of_alternatives_the_fewest_are_read(run: Run) -> None:
    """A third one here and there, the sampled token for one, changes neither the threshold nor what is written."""

    def rows(at: int, third: bool) -> dict[str, Any]:
        top = [{"token": "a", "logprob": -0.01 * at}, {"token": "b", "logprob": -1.5}]
        more = [*top, {"token": "c", "logprob": -9.0}] if third else top
        told = [{"token": "a", "logprob": -0.1, "top_logprobs": one} for one in (top, more, [])]
        return {"qid": f"q{at}", "rung": "r", "correct": float(at > 9), "logprobs": told * 20}

    words = ("--rule", "group", "--window", "32", "--risk", "0.2")
    written_of = []
    for third in (False, True):
        assert run(written([rows(at, third) for at in range(120)]), *words).exit_code == 0
        written_of.append(policy_of("stops.yaml"))
    assert written_of[0] == written_of[1]
    assert written_of[0] is not None
    assert written_of[0].group_top == 2


def test_what_a_threshold_was_measured_with_stands_beside_it_and_in_its_proof(run: Run) -> None:
    assert run(written(thoughts(100, 10))).exit_code == 0
    block = Path("stops.yaml").read_text(encoding="utf-8")
    assert "  repeat: 2\n  repeat_period: 32\n  repeat_tokens: 24\n" in block
    assert '"period": 32, "tokens": 24}' in block
    Path("stops.yaml").write_text(block.replace("repeat_tokens: 24", "repeat_tokens: 1"), encoding="utf-8")
    with pytest.raises(PolicyError, match="repeat was certified with repeat_tokens 24, and here stands 1"):
        policy_of("stops.yaml")


def test_a_rule_named_twice_is_one_rule(run: Run) -> None:
    result = run(written(thoughts(100, 10)), "--rule", "repeat", "--rule", "repeat", "--json")
    assert [one["risk"] for one in json.loads(result.output)["rules"]] == [0.05]
    assert policy_of("stops.yaml") == Stops(repeat=2)


def test_where_nothing_can_be_certified_nothing_is_written(run: Run) -> None:
    result = run(written(budgets(20)), "--ladder", "ladder.json", "--rule", "budget")
    assert result.exit_code == 1
    assert "budget: no threshold certified" in result.output
    assert "2 lost (bound 28.26%) at 100; records of more questions, a higher --risk or fewer rules" in result.output
    assert not Path("stops.yaml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "no reply here has a label and a recorded thought"),
        (("--rule", "budget"), "budget: needs --ladder"),
        (("--ladder", "ladder.json", "--rule", "p_tip"), "no row of the ladder's rungs has the field 'p_tip'"),
        (("--ladder", "ladder.json", "--rule", "correct"), "correct: is a label, or known only afterwards"),
        (("--risk", "1"), "--risk and --delta must lie between 0 and 1, not 1 and 0.05"),
        (("--window", "8"), "--window must be 32 to 4096, is 8"),
        (("-o", "stops.npz"), "stops.npz is no YAML file"),
        (("-o", "absent/stops.yaml"), "there is no folder absent"),
        (("--node-field", "domain"), "--node-field says nothing to --stops"),
    ],
)
def test_what_it_can_not_use_is_told_in_one_line(run: Run, words: tuple[str, ...], told: str) -> None:
    result = run(written(budgets(20)), *words)
    assert result.exit_code == 2
    assert told in result.output
    assert not Path("stops.yaml").exists()
