"""Ladder files and the words of `--verifier`: what they mean, and every mistake in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governor.errors import LadderError
from governor.learn.ladder import Checking, RungCost, checking_of, load_ladder, nearest

SHARED = Path(os.environ.get("GOVERNOR_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ladders"


def document() -> dict[str, Any]:
    return {
        "records": "rows.jsonl.gz",
        "rungs": ["low", "high"],
        "cost": {"unit": "weight", "per_rung": {"low": 0.5, "high": 2}},
        "verifier": {"kind": "simulated", "sensitivity": 0.9, "false_accept": 0.1},
    }


def saved(folder: Path, value: Any) -> Path:
    path = folder / "ladders" / "mine.json"
    path.parent.mkdir()
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_whole_ladder(tmp_path: Path) -> None:
    more = {"correct_at_least": 0.99, "drop": "flag", "harm": 0.5}
    ladder = load_ladder(saved(tmp_path, document() | more))
    assert (ladder.name, ladder.records, ladder.rungs) == ("mine", tmp_path / "rows.jsonl.gz", ("low", "high"))
    assert (ladder.unit, dict(ladder.costs)) == ("weight", {"low": RungCost(weight=0.5), "high": RungCost(weight=2.0)})
    assert (ladder.correct_at_least, ladder.drop, ladder.harm, ladder.continues) == (0.99, "flag", 0.5, False)
    assert ladder.checking == Checking(kind="simulated", sensitivity=0.9, false_accept=0.1)


def test_records_stand_above_the_ladders_folder_wherever_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved(tmp_path, document()).parent)
    assert load_ladder("mine.json").records == tmp_path / "rows.jsonl.gz"


def test_prices_and_assumed_tokens(tmp_path: Path) -> None:
    price = {"input_per_million": 0.1, "output_per_million": 4.4}
    raw = document() | {
        "cost": {"unit": "usd", "per_rung": {"low": price, "high": {**price, "assumed_output_tokens": 3000}}}
    }
    costs = load_ladder(saved(tmp_path, raw)).costs
    assert costs["low"] == RungCost(input_per_million=0.1, output_per_million=4.4)
    assert costs["high"].assumed_output_tokens == 3000


def test_a_perfect_verifier_makes_no_mistake_and_none_accepts_all(tmp_path: Path) -> None:
    perfect = load_ladder(saved(tmp_path, document() | {"verifier": {"kind": "perfect", "cost": 3}})).checking
    assert perfect == Checking(kind="perfect", sensitivity=1, false_accept=0, cost=3)
    raw = document()
    del raw["verifier"]
    (tmp_path / "ladders" / "mine.json").write_text(json.dumps(raw))
    assert load_ladder(tmp_path / "ladders" / "mine.json").checking == Checking()


Edit = Callable[[dict[str, Any]], Any]
MISTAKES: dict[str, tuple[Edit, str]] = {
    "key": (lambda d: d | {"rung": []}, "rung: unknown field (did you mean 'rungs'?)"),
    "no records": (lambda d: {k: v for k, v in d.items() if k != "records"}, "records: is missing"),
    "records": (lambda d: d | {"records": 1}, "records: must be text, is a number"),
    "empty": (lambda d: d | {"records": ""}, "records: must not be empty"),
    "rungs": (lambda d: d | {"rungs": "low"}, "rungs: must be a list of names"),
    "twice": (lambda d: d | {"rungs": ["low", "low"]}, "rungs: 'low' stands there twice"),
    "one": (lambda d: d | {"rungs": ["low"]}, "rungs: must hold two names or more: there is nothing to choose"),
    "no cost": (lambda d: {k: v for k, v in d.items() if k != "cost"}, "cost: is missing"),
    "unit": (lambda d: d | {"cost": {"unit": "token"}}, "cost.unit: 'token' is unknown (did you mean 'tokens'?)"),
    "weights": (lambda d: d | {"cost": {"unit": "weight"}}, "cost.per_rung: is missing"),
    "absent": (lambda d: d | {"cost": {"unit": "weight", "per_rung": {"low": 1}}}, "cost.per_rung.high: is missing"),
    "other": (
        lambda d: d | {"cost": {"unit": "weight", "per_rung": {"low": 1, "hihg": 1}}},
        "cost.per_rung.hihg: unknown field (did you mean 'high'?)",
    ),
    "negative": (
        lambda d: d | {"cost": {"unit": "weight", "per_rung": {"low": -1, "high": 1}}},
        "cost.per_rung.low: must be a number from 0, is -1",
    ),
    "price": (
        lambda d: d | {"cost": {"unit": "usd", "per_rung": {"low": 1, "high": 1}}},
        "cost.per_rung.low: must be an object, is a number",
    ),
    "half a price": (
        lambda d: d | {"cost": {"unit": "usd", "per_rung": {"low": {"input_per_million": 1}, "high": {}}}},
        "cost.per_rung.low.output_per_million: is missing",
    ),
    "priced tokens": (
        lambda d: d | {"cost": {"unit": "tokens", "per_rung": {}}},
        "cost.per_rung: means nothing where the unit is tokens (remove it)",
    ),
    "continues": (
        lambda d: d | {"continues": True},
        "continues: counts the tokens of one thought, and cost.unit is weight (use tokens)",
    ),
    "flag": (lambda d: d | {"continues": 1}, "continues: must be true or false, is a number"),
    "label": (lambda d: d | {"correct_at_least": 99}, "correct_at_least: must be a number in 0..1, is 99"),
    "no label": (
        lambda d: d | {"correct_at_least": 0},
        "correct_at_least: must be more than 0: every answer would be correct",
    ),
    "harm": (lambda d: d | {"harm": "0.5"}, "harm: must be a number from 0, is text"),
    "kind": (
        lambda d: d | {"verifier": {"kind": "simulate"}},
        "verifier.kind: 'simulate' is unknown (did you mean 'simulated'?)",
    ),
    "no rate": (
        lambda d: d | {"verifier": {"kind": "simulated", "sensitivity": 1}},
        "verifier.false_accept: is missing",
    ),
    "swapped": (
        lambda d: d | {"verifier": {"kind": "simulated", "sensitivity": 0.2, "false_accept": 0.9}},
        "verifier.false_accept: 0.9 is more than the sensitivity 0.2: wrong answers would be the likelier ones "
        "(swap the two?)",
    ),
    "foreign": (
        lambda d: d | {"verifier": {"kind": "perfect", "sensitivity": 1}},
        "verifier.sensitivity: unknown field (known: kind, cost)",
    ),
    "label as score": (
        lambda d: d | {"verifier": {"kind": "score", "field": "correct"}},
        "verifier.field: 'correct' is nothing that a verifier could see",
    ),
    "list": (lambda d: [d], "must be one JSON object, is a list"),
    "repeated": (lambda d: '{"harm": 0, "harm": 1}', "harm: stands here twice"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_is_one_line_with_file_and_field(case: str, tmp_path: Path) -> None:
    edit, said = MISTAKES[case]
    path = saved(tmp_path, edit(document()))
    with pytest.raises(LadderError) as refused:
        load_ladder(path)
    assert str(refused.value) == f"{path}: {said}"


def test_a_slip_in_the_json_has_its_line_and_column(tmp_path: Path) -> None:
    path = saved(tmp_path, '{"records": "r",\n "rungs": [}')
    with pytest.raises(LadderError) as refused:
        load_ladder(path)
    assert str(refused.value) == f"{path}:2:12: not JSON: Expecting value"
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(LadderError, match="not JSON text in UTF-8"):
        load_ladder(path)
    with pytest.raises(LadderError, match=r"none\.json: can't be read: No such file"):
        load_ladder(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("none", Checking()),
        ("perfect", Checking(kind="perfect", sensitivity=1, false_accept=0)),
        ("agreement", Checking(kind="agreement")),
        ("0.99,0.2", Checking(kind="simulated", sensitivity=0.99, false_accept=0.2)),
        ("score:p_top", Checking(kind="score", field="p_top")),
    ],
)
def test_the_words_of_the_verifier_option(words: str, meant: Checking) -> None:
    assert checking_of(words) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prefect", "--verifier: 'prefect' is no verifier (did you mean 'perfect'?)"),
        (
            "7",
            "--verifier: '7' is no verifier (none, perfect, agreement, score:FIELD, or rates such as 0.99,0.2)",
        ),
        ("0.9,2", "--verifier: false_accept: must be a number in 0..1, is 2.0"),
        ("nan,0", "--verifier: sensitivity: must be a number in 0..1, is nan"),
        ("score:", "--verifier: field: must not be empty"),
        ("score:gold", "--verifier: field: 'gold' is nothing that a verifier could see"),
    ],
)
def test_a_wrong_verifier_option_is_one_line(words: str, said: str) -> None:
    with pytest.raises(LadderError) as refused:
        checking_of(words)
    assert str(refused.value) == said


def test_the_nearest_names_come_closest_first() -> None:
    assert nearest("o4-mini:hihg", ["o4-mini:low", "gpt-4o", "o4-mini:high"], 3) == ["o4-mini:high", "o4-mini:low"]
    assert nearest("x", ["low", "high"]) == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded ladders are not here (GOVERNOR_DATA)")
def test_the_recorded_ladders_load() -> None:
    ladders = {path.stem: load_ladder(path) for path in sorted(SHARED.glob("*.json"))}
    assert len(ladders) >= 9
    assert all(ladder.records.is_file() for ladder in ladders.values())
    assert ladders["thinking_budgets"].continues
    assert ladders["thinking_budgets"].checking == Checking(kind="score", field="p_top")
    assert ladders["reasoninggym"].costs["o3-mini"].assumed_output_tokens == 3000
