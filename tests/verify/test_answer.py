from __future__ import annotations

import json
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.verify import answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("Answer: 42", "42"),
        ("**Answer:** 42.", "42"),
        ("The final answer is **42**.", "42"),
        ("Answer: 1\nNo, wait.\nAnswer: 2", "2"),
        ("Answer:\n  Paris", "Paris"),
        (r"so \boxed{\frac{1}{2}} it is. Answer: 3", r"\frac{1}{2}"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{never closed", r"\boxed{never closed"),
        ("He has 3.\n#### 18", "18"),
        ("#### Conclusion\nIt is blue", "It is blue"),
        ("<think>Answer: 7</think>\nIt is 8", "It is 8"),
        ("forgot the tag</think>It is 8", "It is 8"),
        ("<think>Answer: 7, but the thought never", ""),
        ("Antwort: sieben", "sieben"),
        ("答案是42", "42"),
        ("La respuesta es 12", "12"),
        ("", ""),
        ("$x = 4$", "x = 4"),
    ],
)
def test_the_final_answer_is_found(text: str, final: str) -> None:
    assert answer.final_answer(text) == final


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234.50", ["1234.5"]),
        ("12,5 km", ["12.5"]),
        ("1 2/3 cups", ["5/3"]),
        (r"-\frac{3}{4}", ["-3/4"]),
        ("1e-3 and 2E2", ["0.001", "200"]),
        ("\u22125", ["-5"]),
        ("3-5", ["3", "5"]),
        ("f(2)-5", ["2", "5"]),
        ("- 5 apples", ["5"]),
        ("H2O and GPT4", []),
        ("1\u202f234\u202f567", ["1234567"]),
        (r"1{,}234 or 1\,234", ["1234", "1234"]),
        ("$.5", ["0.5"]),
        ("1e999999999", []),
        ("9" * 5000, []),
        ("1/0", []),
        ("a, b", []),
    ],
)
def test_numbers_are_read_exactly(text: str, values: list[str]) -> None:
    assert answer.numbers(text) == [Fraction(value) for value in values]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("First 3, then 4, so 12", 12),
        ("Answer: 5 apples and 3 pears", 5),
        ("Answer: none of the 4\n", 4),
        ("48 * 27 = 1296", 1296),
        ("no number", None),
    ],
)
def test_the_answer_s_number(text: str, value: int | None) -> None:
    assert answer.number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here you are:\n```json\n{"a": 1}\n```\nBye', {"a": 1}),
        ("~~~\n[1, 2]\n~~~", [1, 2]),
        ('It is {"a": {"b": "}"}} as asked', {"a": {"b": "}"}}),
        ('{broken and then {"a": 1}', {"a": 1}),
        ('[1] or rather {"long": "er"}', {"long": "er"}),
        ('```json\n{"cut": 1', None),
        ("null", None),
        ('{"a": NaN}', None),
        ("set notation {1, 2}", None),
    ],
)
def test_json_is_found_in_fences_and_prose(text: str, value: Any) -> None:
    found = answer.find_json(text)
    if text == "null":
        assert found == answer.Json(None)
    else:
        assert (found.value if found else None) == value


@given(JSON, st.text(alphabet=" abc.\n", max_size=20))
def test_any_json_value_survives_a_fence(value: Any, prose: str) -> None:
    text = f"{prose}\n```json\n{json.dumps(value)}\n```\n{prose}"
    assert answer.find_json(text) == answer.Json(value)


@given(st.text(alphabet='{}[]",:0123456789eE+-.ntf`~\\\n <>/abc', max_size=300))
def test_no_text_breaks_the_extraction(text: str) -> None:
    found = answer.find_json(text)
    assert found is None or json.dumps(found.value)
    assert isinstance(answer.final_answer(text), str)
    assert all(isinstance(value, Fraction) for value in answer.numbers(text))
    assert answer.find_code(text) is None or answer.find_code(text)


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 200_000,
        "{" * 200_000,
        '{"a":' * 50_000,
        "`" * 200_000,
        "```" + "a" * 200_000,
        "<think>" * 30_000,
        "</think>" * 30_000,
        " " * 200_000,
        "1 " * 100_000,
        "1" * 200_000,
        "1," * 100_000,
        "Answer" * 40_000,
        "\\boxed{" * 30_000,
    ],
    ids=lambda text: text[:9].strip() or "blank",
)
def test_hostile_text_takes_no_time(hostile: str) -> None:
    started = time.perf_counter()
    for find in (answer.find_json, answer.find_code, answer.final_answer, answer.number, answer.visible):
        find(hostile)
    assert time.perf_counter() - started < 20, "a pattern that backtracks would take hours"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Sure:\n```python\nx = 1\n```\nand\n```\n$ run\n```", "x = 1\n"),
        ("```py\na = 1\n```\n```python3\nb = 2\n```", "a = 1\n\n\nb = 2\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("Here is it:\ndef f():\n    return 1", "def f():\n    return 1"),
        ("```python\ndef f(): return '''\n  ```\n'''\n", "def f(): return '''\n"),
        ("   ", None),
    ],
)
def test_code_is_found(text: str, code: str | None) -> None:
    assert answer.find_code(text) == code
