from __future__ import annotations

import json
from pathlib import Path

import pytest

from governor.errors import ModelFileError
from governor_local.catalog import KNOWN, RECOMMENDED, cache_folder
from governor_local.registry import ModelFile, find_model, list_models, pull, pullable_names
from tests.governor_local.gguf_files import write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GOVERNOR_MODELS", raising=False)
    return tmp_path / "cache" / "compute-governor" / "models"


def listed(name: str) -> ModelFile:
    return next(model for model in list_models() if model.name == name)


def test_the_cache_folder_honours_xdg(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/compute-governor/models"


def test_a_file_is_found_by_its_stem(cache: Path) -> None:
    path = write_gguf(cache / "mine.gguf")
    assert find_model("mine") == find_model("local/mine") == path


def test_a_file_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "elsewhere" / "mine.gguf")
    monkeypatch.chdir(tmp_path)
    assert find_model(f"local/{path}") == path
    assert find_model("elsewhere/mine.gguf") == Path("elsewhere/mine.gguf")


def test_an_alias_finds_its_file(cache: Path) -> None:
    path = write_gguf(cache / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
    assert find_model("qwen-0.5b") == path


def test_the_users_own_folder_comes_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(cache / "mine.gguf")
    own = write_gguf(tmp_path / "own" / "mine.gguf")
    other = write_gguf(cache / "other.gguf")
    monkeypatch.setenv("GOVERNOR_MODELS", str(tmp_path / "own"))
    assert find_model("mine") == own
    assert find_model("other") == other


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("smolm2-135m", "did you mean 'smollm2-135m'"),
        ("gpt-9", "there is smollm2-135m, qwen3-0.6b"),
        ("smollm2-135m", "governor models pull smollm2-135m"),
        ("qwen-1.5b", "put qwen2.5-coder-1.5b-instruct-q4_k_m.gguf into"),
        ("./nowhere/x.gguf", "no model file nowhere/x.gguf"),
    ],
)
def test_what_is_not_there_is_told_with_the_way_to_mend_it(name: str, told: str) -> None:
    with pytest.raises(ModelFileError, match=told) as caught:
        find_model(name)
    assert "\n" not in str(caught.value)


def test_a_base_model_is_refused(cache: Path) -> None:
    write_gguf(cache / "base.gguf", {"tokenizer.chat_template": ""})
    with pytest.raises(ModelFileError, match="base model without a chat template"):
        find_model("base")


def test_a_known_file_of_another_size_is_refused_and_listed_as_damaged(cache: Path) -> None:
    write_gguf(cache / "smollm2-135m-instruct-q4_1.gguf")
    with pytest.raises(ModelFileError, match="of 98,362,432 bytes: governor models pull smollm2-135m"):
        find_model("smollm2-135m")
    assert listed("smollm2-135m").state == "damaged"


def test_a_recorded_file_of_another_size_is_refused(cache: Path) -> None:
    path = write_gguf(cache / "Qwen3-0.6B-Q8_0.gguf")
    path.with_name(path.name + ".json").write_text(json.dumps({"bytes": 7, "sha256": "0" * 64}))
    with pytest.raises(ModelFileError, match=r"of 7 bytes: governor models pull qwen3-0\.6b"):
        find_model("qwen3-0.6b")
    assert listed("qwen3-0.6b").digest == "recorded"


def test_the_list_shows_known_models_first_and_then_what_else_is_there(cache: Path) -> None:
    mine = write_gguf(cache / "mine.gguf", {"general.license": "mit"})
    (cache / "broken.gguf").write_bytes(b"nothing")
    models = list_models()
    assert [model.name for model in models] == [*(known.name for known in KNOWN), "broken", "mine"]
    assert listed("mine") == ModelFile(
        name="mine",
        path=mine,
        bytes=mine.stat().st_size,
        state="present",
        digest="unknown",
        licence="mit",
        pullable=False,
    )
    assert listed("broken").state == "damaged"
    assert (listed(RECOMMENDED).state, listed(RECOMMENDED).digest) == ("absent", "unknown")


def test_no_digest_is_shipped_for_a_file_that_was_never_seen() -> None:
    shipped = {known.name for known in KNOWN if known.sha256}
    assert shipped == {"smollm2-135m"}


@pytest.mark.parametrize(
    ("name", "told"), [("qwen-0.5b", "can't be pulled"), ("smollm", "did you mean 'smollm2-135m'")]
)
def test_what_can_not_be_pulled_is_told(name: str, told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        pull(name)
    assert "qwen-0.5b" not in pullable_names()
