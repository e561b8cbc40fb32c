# ruff: noqa: E501  programs under test stay on one line
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import SandboxError
from governor.records import Verdict
from governor.verify import code, sandbox
from governor.verify.code import Pair, decoded, parsed_tests, run_tests, same
from governor.verify.harness import encoder
from governor.verify.sandbox import SandboxLimits
from tests.verify.driver import STEP, Driver, built, call_of, judged, reply

pytestmark = pytest.mark.sandbox
RIGHT = "def add(a, b):\n    return a + b\n"
TESTS = ["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'", "assert add(2, 2) > 3"]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def needs_sandbox() -> None:
    if sandbox.available() is None:
        pytest.skip("neither bubblewrap nor namespaces work on this machine")


def verdict_of(program: str, tests: Any = TESTS, **options: Any) -> Verdict:
    limits = SandboxLimits(wall_seconds=5)
    return judged({"python_tests": {"tests": tests, **options}}, f"```python\n{program}\n```", sandbox=limits)


def test_right_code_is_accepted() -> None:
    verdict = verdict_of(RIGHT)
    assert (verdict.decision, verdict.score, verdict.feedback) == ("accept", 1.0, "")
    assert verdict.seconds == 1.0  # one tick of the driver's clock


def test_wrong_code_hears_of_the_first_failing_test() -> None:
    verdict = verdict_of("def add(a, b):\n    return a - b if a == 1 else a + b\n")
    assert (verdict.decision, verdict.failure) == ("reject", "wrong")
    assert verdict.score == pytest.approx(2 / 3)
    assert verdict.feedback == "This test fails: assert add(1, 2) == 3 -> got -1"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("def add(a, b): return undefined", "NameError: name 'undefined' is not defined"),
        ("def add(a, b: return", "SyntaxError"),
        ("while True: pass", "time limit of 1 s"),
        ("x = [0] * 10**10", "MemoryError"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 1))", "does not run"),
        ("def plus(a, b): return a + b", "name 'add' is not defined"),
    ],
)
def test_broken_code_hears_why(program: str, said: str) -> None:
    limit = {"wall_seconds": 1} if said.startswith("time limit") else {}
    verdict = verdict_of(program, **limit)
    assert verdict.decision == "reject"
    assert said in verdict.feedback


@pytest.mark.parametrize(
    "cheat",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "print('ok'); print('passed'); import os; os._exit(0)",
        "def add(a, b):\n    import os; os._exit(0)",
        "def add(a, b):\n    raise SystemExit(0)",
        "class Same:\n    def __eq__(self, other): return True\n    def __gt__(self, other): return True\n"
        "def add(a, b): return Same()",
        "class Out:\n    def __eq__(self, other): raise SystemExit(0)\ndef add(a, b): return Out()",
        "class Int(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef add(a, b): return Int(0)",
        "class Text(str):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef add(a, b): return Text('')",
        "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {})\ndef add(a, b): return 0",
        "import builtins\nbuiltins.exec = builtins.eval = lambda *a, **k: 3\ndef add(a, b): return 0",
        "import builtins\nbuiltins.type = lambda *a: int\nbuiltins.isinstance = lambda *a: True\ndef add(a, b): return 0",
        "import builtins\nbuiltins.BaseException = builtins.Exception = ZeroDivisionError\ndef add(a, b): return 0",
        'import json\njson.dumps = lambda *a, **k: \'{"fault": "", "results": [{}, {}, {}]}\'\ndef add(a, b): return 0',
        "import os\nos.write = lambda *a: 0\nos._exit = lambda *a: None\ndef add(a, b): return 0",
        'import os\nfor fd in range(64):\n    try: os.write(fd, b\'{"fault": "", "results": [{}, {}, {}]}\')\n'
        "    except OSError: pass\ndef add(a, b): return 0",
        "import os\nif os.fork(): os._exit(0)\ndef add(a, b): return 0",
        "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0",
        "import signal, os\nos.kill(os.getpid(), signal.SIGKILL)",
        "import threading, os\nthreading.Timer(0, os._exit, [0]).start()\nimport time; time.sleep(1)",
        "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)",
    ],
)
def test_a_faked_pass_is_no_pass(cheat: str) -> None:
    assert verdict_of(cheat, wall_seconds=3).decision == "reject"


def test_what_the_code_prints_is_no_report() -> None:
    loud = f"import sys\nprint('x' * 100_000)\nsys.stderr.write('y' * 100_000)\n{RIGHT}"
    assert verdict_of(loud).decision == "accept"


def test_inputs_and_expected_values() -> None:
    pairs = [{"input": [1, 2], "expected": 3}, {"input": {"a": [1], "b": [2]}, "expected": [1, 2]}]
    assert verdict_of(RIGHT, pairs, function="add").decision == "accept"
    assert verdict_of("def add(a, b): return (1, 2) if a == [1] else 3", pairs, function="add").decision == "accept"
    assert "add(1, 2) == 3 -> got 4" in verdict_of("def add(a, b): return 4", pairs, function="add").feedback


def test_a_script_of_several_statements_is_one_test() -> None:
    script = "total = 0\nfor n in range(3):\n    total = add(total, n)\nassert total == 3"
    assert verdict_of(RIGHT, script).decision == "accept"
    assert "AssertionError" in verdict_of("def add(a, b): return 0", script).feedback


@pytest.mark.parametrize(
    "leak",
    [
        "def add(a, b): return 0",
        "def add(a, b): raise ValueError(f'got {a} and {b}')",
        "def add(a, b): raise type(f'Got{a}And{b}', (Exception,), {})()",
        "import os\ndef add(a, b):\n    os.write(2, f'{a} {b}'.encode())\n    os._exit(1)",
    ],
)
def test_hidden_tests_leak_nothing(leak: str) -> None:
    verdict = verdict_of(leak, ["assert add(8191, 127) == 8318"], hidden=True)
    assert verdict.decision == "reject"
    assert verdict.feedback
    assert not any(value in verdict.feedback for value in ("8191", "127", "8318"))


def test_the_expected_value_is_not_inside_the_sandbox() -> None:
    snoop = (
        "import gc, sys\n"
        "def seen(wanted):\n"
        "    frame, texts = sys._getframe(1), []\n"
        "    while frame:\n"
        "        texts += [repr(frame.f_locals), repr(frame.f_code.co_consts)]\n"
        "        frame = frame.f_back\n"
        "    texts += [thing for thing in gc.get_objects() if type(thing) is str]\n"
        "    return sum(wanted in text for text in texts)\n"
        "def add(a, b): return [seen(str(2 * a + 2 * b - a - b)), seen(str(b)) > 0]\n"
    )
    report = run_tests(snoop, parsed_tests(("assert add(4000, 4242) == 8242",), ""), SandboxLimits(wall_seconds=5))
    assert report.error == "got [0, True]"


def test_without_a_sandbox_the_verdict_is_unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise SandboxError("no sandbox for untrusted code")

    monkeypatch.setattr(code, "run", refuse)
    verdict = verdict_of(RIGHT)
    assert (verdict.decision, verdict.error) == ("unsure", "SandboxError: no sandbox for untrusted code")


def test_an_answer_without_code_is_rejected_without_running_anything() -> None:
    driver = Driver()
    verdict = driver.run(built({"python_tests": TESTS}), reply(" "))
    assert (verdict.failure, driver.computed) == ("format", [])


def test_the_bound_is_the_wall_limit() -> None:
    bound = built({"python_tests": TESTS, "wall_seconds": 3}).bound(call_of(STEP))
    assert (bound.tokens, bound.calls, bound.millis) == (0, 0, 8000)


@given(PLAIN)
def test_plain_values_come_back_as_they_went(value: Any) -> None:
    assert same(decoded(encoder()(value)), value)


@pytest.mark.parametrize("value", [object(), type("Int", (int,), {})(3), [lambda: 1], {1: range(3)}, 1j])
def test_other_objects_are_not_encoded(value: Any) -> None:
    with pytest.raises(TypeError, match="plain value"):
        encoder()(value)


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (0.1 + 0.2, 0.3, True),
        ([0.1 + 0.2], [0.3], True),
        (1, 1.0, True),
        ((1,), [1], False),
        ({"a": 1.0000000000001}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        ("1", 1.0, False),
        (1.1, 1.0, False),
    ],
)
def test_equality_bends_for_rounding_only(value: Any, expected: Any, equal: bool) -> None:
    assert same(value, expected) is equal


@pytest.mark.parametrize("bad", ["x =", "", "(" * 300, "await f()"])
def test_tests_that_are_no_python_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"not Python|empty test"):
        parsed_tests((bad,), "")


def test_pairs_must_be_plain() -> None:
    with pytest.raises(ValueError, match="plain value"):
        parsed_tests((Pair(input=[object()], expected=1),), "f")
