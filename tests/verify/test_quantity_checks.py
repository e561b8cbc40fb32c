from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.verify.arithmetic import ArithmeticTextError, parse
from tests.verify.driver import judged


@pytest.mark.parametrize(
    ("spec", "text", "decision"),
    [
        ("number", "it is 4", "accept"),
        ("number", "it is four", "reject"),
        ({"number": 42}, "Answer: 42", "accept"),
        ({"number": 42}, "Answer: 42.0", "accept"),
        ({"number": 42}, "Answer: 43", "reject"),
        ({"number": 0.1}, "Answer: 1/10", "accept"),
        ({"number": "1/3"}, "Answer: 0.333", "reject"),
        ({"number": {"equals": "1/3", "tolerance": 0.001}}, "Answer: 0.333", "accept"),
        ({"number": {"equals": 1000, "relative": 0.01}}, "about 995", "accept"),
        ({"number": {"integer": True}}, "2.5", "reject"),
        ({"number": {"minimum": 0, "maximum": 10}}, "11", "reject"),
        ({"number": {"minimum": 0, "maximum": 10}}, "-1", "reject"),
        ({"number": {"minimum": 0, "maximum": 10}}, "10", "accept"),
        ({"equation": "3*x + 7 = 40"}, "x = 11", "accept"),
        ({"equation": "3*x + 7 = 40", "variable": "x"}, "x = 12", "reject"),
        ({"equation": "3x + 7 = 40"}, "Answer: 11", "accept"),
        ({"equation": "x^2 = 2"}, "1.41421356", "accept"),
        ({"equation": "x^2 = 2"}, "1.41", "reject"),
        ({"equation": "1/x = 1/x"}, "0", "reject"),
        ({"equation": "x**1000 = 2"}, "x = 12345678901234567890", "reject"),
        ({"arithmetic": "48 * 27", "check": "residues"}, "48 * 27 = 1296", "accept"),
        ({"arithmetic": "48 * 27"}, "1297", "reject"),
        ({"arithmetic": "48 * 27"}, "1296.5", "reject"),
        ({"arithmetic": "48 * 27"}, "91386", "reject"),  # 1296 + 90090: right residues, wrong size
        ({"arithmetic": "10**20 - 10**20 + 5"}, "5", "accept"),
        ({"arithmetic": "-(3 - 10) * 2^10"}, "7,168", "accept"),
        ({"arithmetic": "1/3 + 1/6", "check": "exact"}, "Answer: 1/2", "accept"),
        ({"arithmetic": "7 // 2 + 7 % 4", "check": "exact"}, "6", "accept"),
        ({"arithmetic": "2 + 2"}, "four", "reject"),
        ({"arithmetic": "2 + 2"}, "1e300", "reject"),
        ({"arithmetic": "1e3 + 2(3)", "check": "exact"}, "1006", "accept"),
    ],
)
def test_quantities(spec: Any, text: str, decision: str) -> None:
    assert judged(spec, text).decision == decision


@pytest.mark.parametrize("spec", [{"number": 4242}, {"arithmetic": "42 * 101", "check": "exact"}])
def test_feedback_never_tells_the_result(spec: Any) -> None:
    verdict = judged(spec, "Answer: 1")
    assert verdict.feedback
    assert "4242" not in verdict.feedback


@given(st.integers(2, 9999), st.integers(2, 9999), st.integers(-10_000_000, 10_000_000))
def test_residues_accept_the_right_product_and_hardly_any_other(left: int, right: int, error: int) -> None:
    spec = {"arithmetic": f"{left} * {right}"}
    assert judged(spec, str(left * right)).decision == "accept"
    if error % 90090:
        assert judged(spec, str(left * right + error)).decision == "reject"


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 99), st.sampled_from("+-*/"))
def test_expressions_have_their_exact_value(a: int, b: int, c: int, sign: str) -> None:
    exact = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b), "/": Fraction(a, b or 1)}[sign]
    text = f"(({a}) {sign} ({b or 1 if sign == '/' else b})) / {c}"
    assert parse(text).value() == exact / c


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "f(1)",
        "[1]",
        "1 if x else 2",
        "x.y",
        "'a' * 9",
        "1 <",
        "",
        "True",
        "1e999",
        "lambda: 1",
        "x := 1",
    ],
)
def test_only_arithmetic_is_read(text: str) -> None:
    with pytest.raises(ArithmeticTextError):
        parse(text)


@pytest.mark.parametrize("text", ["9**9**9", "9**9999", "2**0.5", "10**-1001", "x + 1"])
def test_huge_and_unknown_values_are_refused_at_once(text: str) -> None:
    with pytest.raises(ArithmeticTextError):
        parse(text).value()
