"""The policies that come with Governor: where they are, and what they are called."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@lru_cache(maxsize=1)
def shipped_folder() -> Path:
    """The folder of the ready policies: inside an installed package, beside it in a checkout."""
    installed = _PACKAGE / "_policies"
    return installed if installed.is_dir() else _PACKAGE.parent / "policies"


def shipped_names() -> list[str]:
    """Names that `load_policy` and `extends` take, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def shipped_path(name: str) -> Path | None:
    """The file of a shipped policy, None where there is no policy of that name."""
    return shipped_folder() / f"{name}.yaml" if name in shipped_names() else None
