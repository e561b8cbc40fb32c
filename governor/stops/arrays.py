"""What the rules need of numpy and torch: operators both have, and a matrix row as named columns."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, TypeAlias, TypeVar

Array: TypeAlias = Any
"""A numpy array or a torch tensor."""
Namespace: TypeAlias = Any
"""The module `numpy` or `torch`; used of it: asarray, concatenate, exp, maximum, minimum, stack, where."""

T = TypeVar("T")


def flag(xp: Namespace, condition: Array) -> Array:
    """Truth as 1.0 and 0.0: state is one matrix of float64, in which counts are exact too."""
    return xp.asarray(condition, dtype=xp.float64)


def index(xp: Namespace, value: Array) -> Array:
    """Whole numbers that may index another array."""
    return xp.asarray(value, dtype=xp.int64)


def highest_so_far(xp: Namespace, values: Array) -> Array:
    """The running maximum of (length,); the one thing here that the two name differently."""
    return xp.cummax(values, 0)[0] if hasattr(xp, "cummax") else xp.maximum.accumulate(values)


def columns(kind: type[T], matrix: Array) -> T:
    """The columns of `matrix` (rows, fields of `kind`) by name; views, not copies."""
    return kind(*matrix.T)


def matrix(xp: Namespace, value: Any) -> Array:
    """The inverse of `columns`."""
    return xp.stack([getattr(value, name) for name in names(value.__class__)], -1)


def width(kind: type) -> int:
    """How many columns a state has."""
    return len(names(kind))


@cache
def names(kind: type) -> tuple[str, ...]:
    """The names of a dataclass's fields; looked up once, as every token asks."""
    return tuple(one.name for one in fields(kind))
