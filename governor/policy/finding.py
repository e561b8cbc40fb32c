"""What a check says about a policy, before it is known where in which file that stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from governor.policy.schema import Policy

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the top of the policy: `("ladder", 0, "effort")` is `ladder[0].effort`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake (`error`) or doubt (`warning`) about the value at `path`; `hint` says how to mend it."""

    path: Path
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"


Check: TypeAlias = Callable[["Policy"], Iterable[Finding]]
"""A cross-check that another part brings to `load_policy`: pure, and given a policy of the right shape."""


def dotted(path: Sequence[str | int]) -> str:
    """`("ladder", 0, "effort")` as a person writes it: `ladder[0].effort`."""
    return "".join(_joints(path)).removeprefix(".")


def _joints(path: Sequence[str | int]) -> Iterator[str]:
    for part in path:
        yield f"[{part}]" if isinstance(part, int) else f".{part}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, else the whole list where it is short."""
    names = list(dict.fromkeys(known))
    plain = {_plain(name): name for name in names}
    near = get_close_matches(_plain(word), plain, n=5, cutoff=0.6)
    if near:  # swapped letters ("dail") are the likelier slip among equally near names
        best = max(near, key=lambda name: sorted(name) == sorted(_plain(word)))
        return f"did you mean '{plain[best]}'?"
    if names and len(names) <= _LIST_AT_MOST:
        return f"known: {', '.join(names)}"
    return ""


_LIST_AT_MOST = 12


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
