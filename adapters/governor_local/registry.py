"""Model name -> file: find it, pull it, list what there is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from governor.errors import ModelFileError
from governor_local.catalog import KNOWN, PREFIX, Known, cache_folder, model_files, search_folders
from governor_local.download import Progress, fetch, record_beside, sha256_of
from governor_local.gguf import read_header

_BY_NAME = {known.name: known for known in KNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One usable or pullable model.

    `path` is None and `bytes` 0 while it is absent. `digest` says what its content can be checked against:
    `known` (shipped here), `recorded` (taken from the hub when it was pulled) or `unknown`. `licence` is
    what the catalog or the file itself states, the empty string where neither does.
    """

    name: str
    path: Path | None
    bytes: int
    state: Literal["present", "absent", "damaged"]
    digest: Literal["known", "recorded", "unknown"]
    licence: str
    pullable: bool


def find_model(name: str) -> Path:
    """The file for `name`: a known name, the stem of a file in the search folders, or a path to a .gguf file.

    A leading `local/` is dropped. Raises ModelFileError if there is no such file (naming near misses, or the
    command that pulls it), or if it is not a whole GGUF file.
    """
    name = name.removeprefix(PREFIX)
    path = _named_path(name) if _looks_like_path(name) else _named_file(name)
    _check(path, _BY_NAME.get(name))
    return path


def pull(name: str, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Get a known model into `folder` (default: the cache folder) and check it against its digest.

    A file that is there and right is left alone. The file appears whole or not at all; a connection to the hub
    that breaks off is taken up again where it broke. `progress` is called with bytes so far and bytes in all (None:
    unknown). Raises ModelFileError for an unknown name, no network, a refusing index, a full disk or a wrong digest.
    """
    known = _BY_NAME.get(name.removeprefix(PREFIX))
    if known is None:
        raise ModelFileError(f"no model '{name}' to pull: {_hint(name, pullable_names())}")
    if known.origin == "none":
        raise ModelFileError(
            f"'{known.name}' can't be pulled: put {known.file} into {cache_folder()} or $GOVERNOR_MODELS"
        )
    target = (folder or cache_folder()) / known.file
    if target.is_file() and _is_right(target, known):
        return target
    return fetch(known, target, progress or (lambda done, total: None))


def pullable_names() -> list[str]:
    """The names that `pull` takes."""
    return [known.name for known in KNOWN if known.origin != "none"]


def list_models() -> tuple[ModelFile, ...]:
    """The known models, present or not, and then every other model file of the search folders, by name."""
    found = model_files()
    known = [_listed(entry.name, found.pop(Path(entry.file).stem, None), entry) for entry in KNOWN]
    return (*known, *(_listed(stem, path, None) for stem, path in sorted(found.items())))


def _listed(name: str, path: Path | None, known: Known | None) -> ModelFile:
    licence = known.licence if known else ""
    state: Literal["present", "absent", "damaged"] = "present" if path else "absent"
    if path is not None:
        try:
            licence = licence or read_header(path).licence
            _check_size(path, known)
        except ModelFileError:
            state = "damaged"
    recorded = path is not None and _record(path)
    return ModelFile(
        name=name,
        path=path,
        bytes=path.stat().st_size if path else 0,
        state=state,
        digest="known" if known and known.sha256 else "recorded" if recorded else "unknown",
        licence=licence,
        pullable=known is not None and known.origin != "none",
    )


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith(".gguf")


def _named_path(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelFileError(f"no model file {path}")
    return path


def _named_file(name: str) -> Path:
    known, found = _BY_NAME.get(name), model_files()
    path = found.get(Path(known.file).stem if known else name)
    if path is not None:
        return path
    if known is None:
        raise ModelFileError(f"no local model '{name}': {_hint(name, [*_BY_NAME, *found])}")
    if known.origin == "none":
        folders = " or ".join(str(folder) for folder in search_folders())
        raise ModelFileError(f"local model '{name}' is absent: put {known.file} into {folders}")
    raise ModelFileError(f"local model '{name}' is absent: governor models pull {name}")


def _check(path: Path, known: Known | None) -> None:
    _check_size(path, known)
    if not read_header(path).chat_template:
        raise ModelFileError(f"{path} is a base model without a chat template: choose its instruct version")


def _check_size(path: Path, known: Known | None) -> None:
    size, expected = path.stat().st_size, (known and known.bytes) or _record(path).get("bytes")
    if expected and size != expected:
        mend = f"governor models pull {known.name}" if known else "copy it again"
        raise ModelFileError(f"{path} has {size:,} of {expected:,} bytes: {mend}")


def _is_right(path: Path, known: Known) -> bool:
    expected = known.sha256 or _record(path).get("sha256")
    return expected is not None and sha256_of(path) == expected


def _record(path: Path) -> dict[str, Any]:
    """What was recorded beside the file when it was pulled; empty if nothing (legible) was."""
    try:
        record = json.loads(record_beside(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _hint(name: str, names: list[str]) -> str:
    close = get_close_matches(name.lower(), names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there is {', '.join(names)}"
