"""The scalars of a policy file: texts of a form, counts, money, shares, and their ranges."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field

APP_FORM = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
RUNG_FORM = r"^[A-Za-z0-9][A-Za-z0-9._:+-]*$"
LEDGER_FORM = r"^[a-z][a-z0-9+.-]*://"
FORMS = {
    APP_FORM: "must begin with a letter or digit and hold only letters, digits, '.', '_' and '-'",
    RUNG_FORM: "must begin with a letter or digit and hold only letters, digits and any of . _ : + -",
    LEDGER_FORM: "must be a URI such as sqlite:///governor.db or memory://",
}
"""The patterns of text fields, in words."""


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError, Warning) as cause:  # re warns of ambiguous sets
        raise ValueError(f"is not a regular expression: {cause}") from cause
    return text


def _state_value(value: Any) -> Any:
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be text, a number, true or false")  # pydantic collects ValueErrors, not TypeErrors
    return value


Text: TypeAlias = Annotated[str, Field(min_length=1)]
Tokens: TypeAlias = Annotated[int, Field(ge=0, le=10_000_000)]
TokenWindow: TypeAlias = Annotated[int, Field(gt=0, le=100_000_000)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000_000_000)]
Money: TypeAlias = Annotated[float, Field(ge=0, le=1_000_000_000)]
Weight: TypeAlias = Annotated[float, Field(ge=0, le=1_000_000, strict=False)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=31_536_000)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Keep: TypeAlias = Annotated[float, Field(gt=0, le=1)]
RungId: TypeAlias = Annotated[str, Field(pattern=RUNG_FORM, max_length=64)]
Regex: TypeAlias = Annotated[Text, AfterValidator(_regex)]
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
StateValue: TypeAlias = Annotated[Any, AfterValidator(_state_value)]
VerifySpec: TypeAlias = Any
"""A verifier's name, a one-key mapping, or a list; its shape is judged in `governor.policy.spec`."""
