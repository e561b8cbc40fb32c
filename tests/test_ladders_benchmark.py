"""`benchmarks.ladders`: rows are measured once, written whole, and put into the README's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ladders
from benchmarks.ladders import BEGIN, BESIDE, CLAIMS, END, SHUFFLED, calibration, into_readme, run, table


def found(name: str, area: float = 2.0) -> dict[str, Any]:
    figures = {
        "c98": 0.5, "c98_ci": [0.4, 0.6], "area": area, "area_ci": [1.0, 3.0], "lead": 1.0, "lead_ci": [0.5, 1.5],
        "apgr": 0.7, "cpt50": 25.0, "cpt80": 55.0, "deployed98": [0.981, 0.8],
        "brier": 0.2, "brier_base_rate": 0.21, "ece": 0.02, "ece_by_chance": 0.015,
    }  # fmt: skip
    mixing = {"c98": 0.9, "area": 0.0, "apgr": 0.5, "cpt50": 50.0, "cpt80": 80.0}
    methods = {"tfidf": figures, "governor": figures}
    return {"name": name, "questions": 1200, "seeds": 5, "mixing": mixing, "methods": methods}


def test_every_row_has_a_file_of_its_own_and_every_ladder_is_shuffled() -> None:
    rows = (*CLAIMS, *BESIDE, *SHUFFLED)
    assert len({row.file for row in rows}) == len(rows)
    assert {row.ladder for row in SHUFFLED} == {row.ladder for row in rows}
    assert len(SHUFFLED) == 9


def test_what_is_there_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    class Pool:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, work: object, row: ladders.Row, seeds: int) -> Done:
            assert (work, seeds) == (ladders.measured, 5)
            measured.append(row.name)
            return Done({**found(row.name), "minutes": 0.1})

    class Done:
        def __init__(self, result: dict[str, Any]) -> None:
            self.result = lambda: result

    monkeypatch.setattr(ladders, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(ladders, "as_completed", list)
    there, missing, *_ = CLAIMS
    (tmp_path / there.file).write_text(json.dumps(found(there.name)))
    run([there, missing], tmp_path, 5, 2)
    assert measured == [missing.name]
    assert json.loads((tmp_path / missing.file).read_text())["name"] == missing.name
    assert not list(tmp_path.glob("*.part"))


def test_the_table_takes_its_place_and_nothing_else_changes(tmp_path: Path) -> None:
    for row in CLAIMS[:1]:
        (tmp_path / row.file).write_text(json.dumps(found(row.name)))
    text = table(CLAIMS, tmp_path)
    assert text.splitlines()[2:] == [
        "| reasoninggym | 1,200 | cost that keeps 98 % | 0.90 | 0.50 | **0.50** | 0.40 to 0.60 |",
        "| reasoninggym | 1,200 | points over random mixing | +0.00 | +2.00 | **+2.00** | +1.00 to +3.00 |",
    ]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    into_readme(readme, text)
    into_readme(readme, text)
    assert readme.read_text() == f"before\n{BEGIN}\n{text}{END}\nafter\n"
    assert "| reasoninggym | 0.020 | 0.015 | 0.200 | 0.210 | 0.981 | 0.800 |" in calibration(CLAIMS, tmp_path)


def test_a_readme_without_a_place_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="has no place for the table"):
        into_readme(readme, "table")
    assert readme.read_text() == "no marks"
