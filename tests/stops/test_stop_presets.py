"""Published thresholds: each is a valid setting, says where it was read, and stands in the docs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from governor.stops.presets import MEASURED, PRESETS, Name
from governor.stops.settings import Stops

PAGE = (Path(__file__).parents[2] / "docs" / "stops.md").read_text(encoding="utf-8")
EDGES = ("low_confidence", "high_confidence", "low_variance", "high_variance")


def test_every_name_has_a_preset() -> None:
    assert set(PRESETS) == set(get_args(Name))


@pytest.mark.parametrize("name", PRESETS)
def test_it_is_a_setting_with_a_source_for_every_key(name: Name) -> None:
    preset = PRESETS[name]
    assert {key: getattr(Stops(**preset.values), key) for key in preset.values} == preset.values
    told = ", ".join(keys for keys, _ in preset.sources).replace("the four edges", ", ".join(EDGES))
    assert set(told.split(", ")) == set(preset.values)
    assert all("arXiv" in source for _, source in preset.sources)
    assert str(preset).endswith(f"({MEASURED})")


@pytest.mark.parametrize("name", PRESETS)
def test_the_page_tells_its_figures(name: Name) -> None:
    assert MEASURED in PAGE
    (row,) = (line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1])
    for key, value in PRESETS[name].values.items():
        assert f"{value:g}".removeprefix("0") in row, key
