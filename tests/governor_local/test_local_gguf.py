from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governor.errors import ModelFileError
from governor_local.gguf import read_header
from tests.governor_local.gguf_files import TEMPLATE, gguf_bytes

WHOLE = gguf_bytes({"general.license": "apache-2.0"})
# One file is rewritten per example; nothing else of the function-scoped folder is reused.
FILE_PER_EXAMPLE = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_a_header_states_licence_context_and_template(tmp_path: Path) -> None:
    header = read_header(written(tmp_path, WHOLE))
    assert (header.licence, header.context_length, header.chat_template) == ("apache-2.0", 64, TEMPLATE)


def test_a_header_may_state_none_of_it(tmp_path: Path) -> None:
    content = gguf_bytes({"general.architecture": "other", "tokenizer.chat_template": ""}, tensors=1)
    header = read_header(written(tmp_path, content))
    assert (header.licence, header.context_length, header.chat_template) == ("", None, "")


@FILE_PER_EXAMPLE
@given(cut=st.integers(0, len(WHOLE) - 33))
def test_a_file_that_ends_before_its_last_tensor_begins_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ModelFileError, match=r"not a GGUF|damaged or cut short"):
        read_header(written(tmp_path, WHOLE[:cut]))


@FILE_PER_EXAMPLE
@given(seed=st.integers(0, 2**32))
def test_noise_in_a_header_is_read_or_refused_but_never_crashes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(WHOLE)
    for _ in range(chance.randint(1, 6)):
        content[chance.randrange(8, len(content))] = chance.randrange(256)
    path = written(tmp_path, bytes(content))
    told = ""
    try:
        read_header(path)
    except ModelFileError as fault:
        told = str(fault)
    assert not told or told.startswith(str(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "not a GGUF"), (b"<html>", "not a GGUF"), (b"GGUF", "damaged"), (gguf_bytes(version=9), "GGUF version 9")],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason) as caught:
        read_header(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelFileError, match="can't be read"):
            read_header(path)
