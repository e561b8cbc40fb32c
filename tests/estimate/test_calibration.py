"""The file of a calibration: the same bytes, the same forecasts, and nothing else is taken for one."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from governor.errors import CalibrationError
from governor.estimate import calibration as module
from governor.estimate.calibration import load_calibration, save_calibration, to_bytes
from governor.learn.fit import fit
from tests.learn.learnable import fitted, told_by_words


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(stored: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in stored.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_meta(**changed: Any) -> bytes:
    """The file with another `meta.json`, its digest made to fit."""
    stored = members(to_bytes(fitted()))
    meta = json.loads(stored.pop("meta.json")) | changed | {"digest": ""}
    meta["digest"] = module._digest(meta, stored)
    return packed({**stored, "meta.json": json.dumps(meta).encode()})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    save_calibration(fitted(), tmp_path / "c.npz")
    found = load_calibration(tmp_path / "c.npz")
    assert len(found.digest) == 64
    same(found, fitted())
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


def same(found: Any, wanted: Any) -> None:
    for field in fields(wanted):
        here, there = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(there, np.ndarray):
            assert here.dtype == there.dtype
            assert np.array_equal(here, there, equal_nan=True), field.name
        elif is_dataclass(there):
            same(here, there)
        elif field.name != "digest":
            assert here == there, field.name


def test_a_file_from_before_familiar_questions_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.npz").write_bytes(first_of_this_version())
    found = load_calibration(tmp_path / "c.npz")
    assert found.familiar is None
    same(found, replace(fitted(), familiar=None))


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert to_bytes(fit(told_by_words())) == to_bytes(fitted())
    assert to_bytes(fit(told_by_words(), seed=1)) != to_bytes(fitted())


def test_it_holds_no_pickle_and_no_text_of_a_question() -> None:
    stored = members(to_bytes(fitted()))
    assert {name.rpartition(".")[2] for name in stored} == {"npy", "json"}
    for content in (content for name, content in stored.items() if name.endswith(".npy")):
        assert np.load(io.BytesIO(content), allow_pickle=False).dtype != np.object_
    assert b"integrate" not in b"".join(stored.values())


def flipped(at: float) -> bytes:
    content = bytearray(to_bytes(fitted()))
    content[int(at * len(content))] ^= 1
    return bytes(content)


def pickled() -> bytes:
    """An array of objects, which numpy would have to unpickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=np.object_), allow_pickle=True)
    stored = members(to_bytes(fitted())) | {"base_rate.npy": buffer.getvalue()}
    meta = json.loads(stored.pop("meta.json")) | {"digest": ""}
    meta["digest"] = module._digest(meta, stored)
    return packed({**stored, "meta.json": json.dumps(meta).encode()})


def without(name: str) -> bytes:
    stored = members(to_bytes(fitted()))
    del stored[name]
    meta = json.loads(stored.pop("meta.json")) | {"digest": ""}
    meta["digest"] = module._digest(meta, stored)
    return packed({**stored, "meta.json": json.dumps(meta).encode()})


def first_of_this_version(*kept: str) -> bytes:
    """A file that says nothing of familiar questions but what is `kept`."""
    stored = members(to_bytes(fitted()))
    meta = json.loads(stored.pop("meta.json")) | {"digest": ""}
    meta = {name: value for name, value in meta.items() if not name.startswith("familiar.") or name in kept}
    stored = {name: raw for name, raw in stored.items() if not name.startswith("familiar.") or name in kept}
    meta["digest"] = module._digest(meta, stored)
    return packed({**stored, "meta.json": json.dumps(meta).encode()})


def changed_array() -> bytes:
    stored = members(to_bytes(fitted()))
    content = bytearray(stored["base_rate.npy"])
    content[-1] ^= 1
    return packed(stored | {"base_rate.npy": bytes(content)})


def foreign() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: flipped(0.5), "damaged"),
        (changed_array, "was changed after it was written (its digest differs): fit it anew"),
        (foreign, "not a calibration, or damaged"),
        (lambda: packed({"meta.json": b'{"format": "another"}'}), "is no calibration of compute-governor"),
        (lambda: packed({"meta.json": b"[1, 2]"}), "not a calibration"),
        (lambda: packed({"meta.json": b"[" * 100_000}), "not a calibration"),
        (lambda: with_meta(version=2), "version 2, this Governor reads version 1"),
        (pickled, "not a calibration, or damaged"),
        (lambda: without("base_rate.npy"), "not a calibration, or damaged"),
        (lambda: without("text.weight.npy"), "not a calibration, or damaged"),
        (lambda: without("familiar.centre.npy"), "not a calibration, or damaged"),
        (lambda: first_of_this_version("familiar.unseen"), "not a calibration, or damaged"),
        (lambda: first_of_this_version("familiar.whitening.npy"), "not a calibration, or damaged"),
        (lambda: to_bytes(fitted())[:-2000], "damaged"),
        (lambda: to_bytes(fitted())[:100], "damaged"),
        (lambda: b"", "not a calibration"),
        (lambda: b"PK\x03\x04 and more", "not a calibration"),
        (lambda: pickle.dumps({"version": 1}), "not a calibration"),
        (lambda: packed({"bomb.npy": b"\0" * (module.LARGEST + 1)}), "holds more than any calibration does"),
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path: Path, content: Callable[[], bytes], said: str) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content())
    with pytest.raises(CalibrationError) as refused:
        load_calibration(path)
    told = str(refused.value)
    assert told.startswith(f"{path}: ")
    assert said in told
    assert "\n" not in told
    assert len(told) < 400 + len(str(path))


def test_an_absent_and_a_giant_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CalibrationError, match=r"none\.npz: can't be read .*; make one with: governor fit"):
        load_calibration(tmp_path / "none.npz")
    save_calibration(fitted(), tmp_path / "c.npz")
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(CalibrationError, match=r"c\.npz: "):
        load_calibration(tmp_path / "c.npz")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "c.npz").mkdir()
    with pytest.raises(CalibrationError, match=r"c\.npz: can't be written"):
        save_calibration(fitted(), tmp_path / "c.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


def test_places_are_by_name() -> None:
    assert fitted().places(("high", "low")) == [1, 0]
    assert fitted().places(("low", "other")) is None
