"""What every leaf's options share, and what a leaf may use when it is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from governor.errors import VerifierError
from governor.records import Amount, Call, Rung
from governor.verify.leaf import Bound, Doubt, Leaf, Work
from governor.verify.sandbox import SandboxLimits

Share = Annotated[float, Field(ge=0, le=1)]


class Options(BaseModel):
    """Options of one leaf as they stand in YAML. `shorthand` takes the value of the one-key form `name: value`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)
    shorthand: ClassVar[str] = ""

    sensitivity: Share | None = None
    false_accept: Share | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What leaves may use: judge rungs by id, sandbox limits, and the price bound of a call."""

    judge_rungs: Mapping[str, Rung] = field(default_factory=dict)
    sandbox: SandboxLimits = field(default_factory=SandboxLimits)
    bound: Bound


@dataclass(frozen=True, slots=True)
class Rates:
    """Assumed P(accept | correct) and P(accept | wrong) of a leaf, until they are measured."""

    sensitivity: float
    false_accept: float


def leaf(
    name: str,
    options: Options,
    rates: Rates,
    work: Work,
    site: Site,
    *,
    spend: Bound | None = None,
    wants_logprobs: bool = False,
    needs_whole_answer: bool = True,
    doubt: Doubt | None = None,
) -> Leaf:
    """A leaf with the rates of its spec, or the assumed ones."""
    return Leaf(
        name=name,
        sensitivity=rates.sensitivity if options.sensitivity is None else options.sensitivity,
        false_accept=rates.false_accept if options.false_accept is None else options.false_accept,
        work=work,
        spend=spend or _nothing,
        wants_logprobs=wants_logprobs,
        needs_whole_answer=needs_whole_answer,
        doubt=doubt,
    )


def _nothing(_: Call) -> Amount:
    return Amount()


def wall(seconds: float) -> Bound:
    """The bound of work that costs nothing but time."""
    amount = Amount(millis=round(seconds * 1000))
    return lambda _: amount


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(value: Any) -> Any:
    """YAML scalars as text, so that `choice: [1, 2]` needs no quotes."""
    return tuple(str(item) if isinstance(item, int | float) else item for item in _listed(value))


def _place(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        raise ValueError("write it as package.module:name")
    return value


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts), Field(min_length=1)]
"""One text or a list of them; numbers are taken as text."""

Place = Annotated[str, BeforeValidator(_place)]
"""Where a Python object is, as `package.module:name`."""


def load(place: str) -> Any:
    """Import the object at `package.module:name`; VerifierError says what is missing."""
    module, _, name = place.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as cause:
        raise VerifierError(f"'{place}' can't be imported: {cause}") from cause
    return found


Make = Callable[[Any, Site], Leaf]
"""Options -> leaf. It may raise VerifierError or MissingExtraError when something it needs is absent."""
