"""Reads and evaluates small arithmetic expressions exactly, without `eval`.

Known: integers and decimals, one or more named variables, + - * / // % ** (also ^), parentheses, and products
written without a sign (3x, 2(x + 1)).
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

_MOST_CHARACTERS = 500
_MOST_BITS = 20_000
_MOST_EXPONENT = 1_000
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
}
_FLOATS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: math.pow,
}
_ROUNDING = 1e-12
_RESIDUE_TERMS = "residues need whole numbers with + - * and constant powers only"


class ArithmeticTextError(ValueError):
    """The text is no arithmetic expression that is known here, or its value is too large."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: `text` as it was given, `names` of the variables in it."""

    text: str
    body: ast.expr
    names: frozenset[str]

    def value(self, variables: Mapping[str, Fraction] | None = None) -> Fraction:
        """Exact value; ArithmeticTextError for an unknown variable or a huge value, ZeroDivisionError as usual."""
        return _value(self.body, variables or {})

    def residue(self, modulus: int) -> int:
        """Value modulo `modulus`, never computing the value: for integers with + - * ** only."""
        return _residue(self.body, modulus)

    def magnitude(self) -> tuple[float, float]:
        """Value in floating point, and the largest error that its rounding can have; operations as `residue`."""
        return _magnitude(self.body, absolute=False), _magnitude(self.body, absolute=True) * _ROUNDING


def parse(text: str) -> Expression:
    """Read an expression; ArithmeticTextError says what is not known in it."""
    if len(text) > _MOST_CHARACTERS:
        raise ArithmeticTextError(f"an expression may have {_MOST_CHARACTERS} characters")
    source = re.sub(r"(?<=[\d)])\s*(?=[A-Za-z(])(?![eE][-+]?\d)", "*", text.replace("^", "**").replace("\u2212", "-"))
    source = source.replace("\u00d7", "*").replace("\u00b7", "*").replace("\u00f7", "/")
    try:
        body = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as cause:
        raise ArithmeticTextError(f"not an arithmetic expression: {text!r}") from cause
    return Expression(text, body, frozenset(_names(body)))


def _names(node: ast.expr) -> set[str]:
    """Variables of the tree; raises for any node that is not arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and number != math.inf:
            return set()
        case ast.Name():
            return {node.id}
        case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
            return _names(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS or isinstance(node.op, ast.Pow):
            return _names(node.left) | _names(node.right)
        case _:
            raise ArithmeticTextError(f"'{ast.unparse(node)}' is not arithmetic")


def _value(node: ast.expr, variables: Mapping[str, Fraction]) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            return _small(Fraction(str(node.value)))
        case ast.Name():
            if node.id not in variables:
                raise ArithmeticTextError(f"'{node.id}' has no value")
            return variables[node.id]
        case ast.UnaryOp():
            inner = _value(node.operand, variables)
            return -inner if isinstance(node.op, ast.USub) else inner
        case ast.BinOp():
            left, right = _value(node.left, variables), _value(node.right, variables)
            combine = _power if isinstance(node.op, ast.Pow) else _OPERATORS[type(node.op)]
            return _small(combine(left, right))
        case _:
            raise ArithmeticTextError(f"'{ast.unparse(node)}' is not arithmetic")


def _small(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > _MOST_BITS:
        raise ArithmeticTextError("the value is too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _MOST_EXPONENT:
        raise ArithmeticTextError(f"an exponent must be a whole number up to {_MOST_EXPONENT}")
    if (base.numerator.bit_length() + base.denominator.bit_length()) * abs(exponent) > _MOST_BITS:
        raise ArithmeticTextError("the value is too large")
    return Fraction(base**exponent.numerator)


def _residue(node: ast.expr, modulus: int) -> int:
    match node:
        case ast.Constant(value=int() as number):
            return number % modulus
        case ast.UnaryOp(op=ast.USub()):
            return -_residue(node.operand, modulus) % modulus
        case ast.UnaryOp(op=ast.UAdd()):
            return _residue(node.operand, modulus)
        case ast.BinOp(op=ast.Add()):
            return (_residue(node.left, modulus) + _residue(node.right, modulus)) % modulus
        case ast.BinOp(op=ast.Sub()):
            return (_residue(node.left, modulus) - _residue(node.right, modulus)) % modulus
        case ast.BinOp(op=ast.Mult()):
            return (_residue(node.left, modulus) * _residue(node.right, modulus)) % modulus
        case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=int() as exponent)) if exponent >= 0:
            return pow(_residue(node.left, modulus), exponent, modulus)
        case _:
            raise ArithmeticTextError(_RESIDUE_TERMS)


def _magnitude(node: ast.expr, *, absolute: bool) -> float:
    """Value in floating point; `absolute` adds where the expression subtracts, for the size of rounding errors."""
    match node:
        case ast.Constant(value=int() as number):
            return _float(lambda: float(number))
        case ast.UnaryOp():
            inner = _magnitude(node.operand, absolute=absolute)
            return -inner if isinstance(node.op, ast.USub) and not absolute else inner
        case ast.BinOp() if type(node.op) in _FLOATS:
            left, right = _magnitude(node.left, absolute=absolute), _magnitude(node.right, absolute=absolute)
            kind = ast.Add if absolute and isinstance(node.op, ast.Sub) else type(node.op)
            return _float(lambda: _FLOATS[kind](left, right))
        case _:
            raise ArithmeticTextError(_RESIDUE_TERMS)


def _float(work: Callable[[], float]) -> float:
    try:
        value = work()
    except (OverflowError, ValueError) as cause:
        raise ArithmeticTextError("the value is too large") from cause
    if not math.isfinite(value):
        raise ArithmeticTextError("the value is too large")
    return value
