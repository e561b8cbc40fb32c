"""Checks of an answer that is a number: range and reference, substitution into an equation, claimed arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from governor.records import Reply, Step, Verdict
from governor.verify import answer
from governor.verify.arithmetic import ArithmeticTextError, Expression, parse
from governor.verify.leaf import Leaf, accept, decided, pure, reject
from governor.verify.options import Options, Rates, Site, leaf

# 90090 classes: a wrong result that is not a near copy of the right one passes about once in 90,000.
_MODULI = (7, 9, 10, 11, 13)
_MAGNITUDE = 0.01
_NO_NUMBER = "The answer holds no number. End with 'Answer:' and the number alone."


def _exact(value: Any) -> Any:
    """A YAML number or a text such as 3/4 as an exact fraction; 0.1 is one tenth."""
    if isinstance(value, Fraction):
        return value
    found = answer.numbers(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else []
    if len(found) != 1:
        raise ValueError("write one number")
    return found[0]


Exact = Annotated[Fraction, BeforeValidator(_exact)]


class NumberOptions(Options):
    """`equals` within `tolerance` (absolute) or `relative`, `minimum`, `maximum`, `integer`; none: any number."""

    shorthand: ClassVar[str] = "equals"
    equals: Exact | None = None
    tolerance: Exact = Field(default=Fraction(0), ge=0)
    relative: Exact = Field(default=Fraction(1, 10**9), ge=0)
    minimum: Exact | None = None
    maximum: Exact | None = None
    integer: bool = False

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


def number(options: NumberOptions, site: Site) -> Leaf:
    """Accepts an answer whose number is what the options ask for. The feedback never tells `equals`."""

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        found = answer.number(reply.text)
        if found is None:
            return reject("format", _NO_NUMBER)
        complaint = _complaint(options, found)
        return decided(not complaint, "wrong", complaint)

    rates = Rates(0.99, 0.7 if options.equals is None else 0.01)
    return leaf("number", options, rates, pure(check), site)


def _complaint(options: NumberOptions, found: Fraction) -> str:
    if options.integer and found.denominator != 1:
        return "The answer must be a whole number."
    if options.minimum is not None and found < options.minimum:
        return f"The answer must be at least {_shown(options.minimum)}."
    if options.maximum is not None and found > options.maximum:
        return f"The answer must be at most {_shown(options.maximum)}."
    if options.equals is not None and not close(found, options.equals, options.tolerance, options.relative):
        return "The number is not right. Check each step of the calculation."
    return ""


def close(found: Fraction, wanted: Fraction, tolerance: Fraction, relative: Fraction) -> bool:
    """Whether two exact numbers agree within an absolute or a relative tolerance."""
    return abs(found - wanted) <= max(tolerance, relative * abs(wanted))


def _shown(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


def _read(text: str) -> Expression:
    try:
        return parse(text)
    except ArithmeticTextError as cause:
        raise ValueError(str(cause)) from cause


class EquationOptions(Options):
    """`equation` with one `=`, in one `variable` (named only where the equation has several letters)."""

    shorthand: ClassVar[str] = "equation"
    equation: str
    variable: str = ""
    tolerance: Exact = Field(default=Fraction(1, 10**6), ge=0)

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        left, right = self.sides
        names = left.names | right.names
        if not names:
            raise ValueError("the equation has no variable")
        if names != {self.unknown}:
            raise ValueError(f"only one variable can be checked, the equation has: {', '.join(sorted(names))}")
        return self

    @property
    def sides(self) -> tuple[Expression, Expression]:
        """Both sides, parsed."""
        parts = self.equation.split("=")
        if len(parts) != 2:
            raise ValueError("an equation has exactly one '='")
        return _read(parts[0]), _read(parts[1])

    @property
    def unknown(self) -> str:
        """The variable that the answer is a value of."""
        left, right = self.sides
        return self.variable or min(left.names | right.names, default="")


def equation(options: EquationOptions, site: Site) -> Leaf:
    """Accepts an answer that solves the equation, by substitution; the solution itself is never computed."""
    left, right = options.sides
    unknown = options.unknown

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        found = answer.number(reply.text)
        if found is None:
            return reject("format", _NO_NUMBER)
        try:
            values = left.value({unknown: found}), right.value({unknown: found})
        except (ArithmeticTextError, ZeroDivisionError):
            return reject("wrong", f"{unknown} can't have that value in {options.equation}.")
        solved = close(values[0], values[1], options.tolerance, options.tolerance)
        return decided(solved, "wrong", f"Put into {options.equation}, that value of {unknown} does not fit.")

    return leaf("equation", options, Rates(0.98, 0.01), pure(check), site)


class ArithmeticOptions(Options):
    """`expression` whose whole result the answer claims; `check: residues` never computes the result itself."""

    shorthand: ClassVar[str] = "expression"
    expression: str
    check: Literal["residues", "exact"] = "residues"

    @field_validator("expression")
    @classmethod
    def _reads(cls, text: str) -> str:
        if _read(text).names:
            raise ValueError(f"an expression without variables is needed, not {text!r}")
        return text

    @model_validator(mode="after")
    def _computable(self) -> Self:
        try:
            _checker(self)
        except ZeroDivisionError as cause:
            raise ValueError("the expression divides by zero") from cause
        return self


def arithmetic(options: ArithmeticOptions, site: Site) -> Leaf:
    """Accepts a claimed result that agrees with the expression."""
    right = _checker(options)

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        found = answer.number(reply.text)
        if found is None:
            return reject("format", _NO_NUMBER)
        return accept() if right(found) else reject("wrong", f"That is not the value of {options.expression}.")

    rates = Rates(0.99, 0.02 if options.check == "residues" else 0.005)
    return leaf("arithmetic", options, rates, pure(check), site)


def _checker(options: ArithmeticOptions) -> Callable[[Fraction], bool]:
    expression = _read(options.expression)
    if options.check == "exact":
        value = expression.value()
        return lambda found: close(found, value, Fraction(0), Fraction(1, 10**9))
    residues = {modulus: expression.residue(modulus) for modulus in _MODULI}
    size, error = expression.magnitude()
    slack = abs(size) * _MAGNITUDE + error + 0.5

    def agrees(found: Fraction) -> bool:
        if found.denominator != 1 or abs(found - Fraction(size)) > slack:
            return False
        return all(found.numerator % modulus == residue for modulus, residue in residues.items())

    return agrees
