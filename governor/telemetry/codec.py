"""Results of effects as JSON and back, exactly: replies, errors, verdicts, plain values, registered dataclasses.

What comes back equals what went in. Whatever can't promise that is Unrecordable; the journal then lets the work
be done again.
"""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from governor import errors
from governor.errors import BackendError, BudgetExceededError
from governor.records import Amount, Limit, Reply, ToolCall, Usage, Verdict, Window

T = TypeVar("T")


class Unrecordable(Exception):  # noqa: N818 - not a fault: it says that a value has no exact JSON form
    """A value of a type that the codec does not know."""


_CLASSES: dict[str, type[Any]] = {}


def recordable(cls: type[T]) -> type[T]:
    """Let values of this dataclass be recorded; its fields must be recordable too. Usable as a decorator."""
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    if _CLASSES.setdefault(cls.__name__, cls) is not cls:
        raise ValueError(f"another class named {cls.__name__} is recordable already")
    return cls


for _cls in (Amount, Limit, Reply, ToolCall, Usage, Verdict, Window):
    recordable(_cls)


def encode(value: Any) -> Any:
    """The JSON form of a value; Unrecordable if it has none."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item) for item in value]
    if kind is tuple:
        return {"": "tuple", "items": [encode(item) for item in value]}
    if kind is dict and "" not in value and all(type(key) is str for key in value):
        return {key: encode(item) for key, item in value.items()}
    if _CLASSES.get(kind.__name__) is kind:
        return {"": kind.__name__} | {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    raise Unrecordable(kind.__name__)


def decode(form: Any) -> Any:
    """The value of a JSON form made by `encode`."""
    if isinstance(form, list):
        return [decode(item) for item in form]
    if not isinstance(form, dict):
        return form
    values = {key: decode(item) for key, item in form.items() if key != ""}
    name = form.get("")
    if name is None:
        return values
    return tuple(values["items"]) if name == "tuple" else _CLASSES[name](**values)


def encode_error(error: BaseException) -> Any:
    """The JSON form of a BackendError or BudgetExceededError; Unrecordable for any other."""
    if isinstance(error, BackendError):
        return {
            "error": _known_name(type(error)),
            "message": str(error),
            "model": error.model,
            "sent": error.sent,
            "usage": encode(error.usage),
            "seconds": error.seconds,
            "spent": encode(error.spent),
        }
    if isinstance(error, BudgetExceededError):
        return {
            "error": "BudgetExceededError",
            "scope": error.scope,
            "dimension": error.dimension,
            "limit": error.limit,
            "asked": error.asked,
            "left": encode(error.left),
            "kind": error.kind,
            "resets": error.resets,
            "retry_after": error.retry_after,
            "others": error.others,
        }
    raise Unrecordable(type(error).__name__)


def decode_error(form: dict[str, Any]) -> Exception:
    """The error of a JSON form made by `encode_error`."""
    left = form.get("left")
    if isinstance(left, dict) and "input" not in left:  # a journal of before tokens were limited by kind
        form = {**form, "left": {**left, **dict.fromkeys(("input", "thinking", "answer"), sys.maxsize)}}
    values = {key: decode(item) for key, item in form.items() if key != "error"}
    if form["error"] == "BudgetExceededError":
        return BudgetExceededError(**values)
    kind: type[BackendError] = getattr(errors, form["error"])
    return kind(values.pop("message"), **values)


def _known_name(kind: type[BaseException]) -> str:
    """An adapter's own subclass comes back as the nearest error of governor.errors."""
    names: list[str] = [base.__name__ for base in kind.__mro__ if getattr(errors, base.__name__, None) is base]
    return names[0]
