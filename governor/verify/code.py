"""Runs model-written Python against tests in the sandbox.

A pass is proved, never inferred from an exit status: the harness ends its report with a random token, and the
values of `function(*input)` and of `assert expression == literal` are compared out here, where the code under
test can reach neither the expected value nor the comparison. Any other test statement is executed beside the
code and can only be as honest as code that does not go looking for the harness's own frames.
"""

from __future__ import annotations

import ast
import builtins
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from governor.effects import Compute, Process
from governor.records import Call, Reply, Step, Verdict
from governor.verify import answer
from governor.verify.leaf import Leaf, accept, reject, shortened
from governor.verify.options import Options, Rates, Site, leaf, wall
from governor.verify.sandbox import SandboxLimits, SandboxResult, isolation_for, run

_MOST_SHOWN = 300


@dataclass(frozen=True, slots=True)
class PythonTest:
    """One test: `source` is run; with `compares` it is an expression and its value must equal `expected`.

    `tuples` False takes a tuple for a list, which is all that YAML and JSON can write. `shown` is for feedback.
    """

    source: str
    shown: str
    compares: bool = False
    expected: Any = None
    tuples: bool = True


@dataclass(frozen=True, slots=True)
class TestReport:
    """How the tests went: `failed` is the position of the first failure, `error` what happened there.

    With `failed` None and an `error` the code itself did not run; `output` is then its last line.
    """

    __test__ = False  # not a test itself

    total: int
    passed: int
    failed: int | None = None
    error: str = ""
    output: str = ""


class Pair(BaseModel):
    """Arguments of one call (a list, or a mapping of keyword arguments) and the value that it must return."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: Any
    expected: Any


def _tests(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


class PythonTestsOptions(Options):
    """`tests` are statements such as `assert add(1, 2) == 3`, or pairs `{input, expected}` for `function`.

    `hidden: true` keeps the tests out of the feedback. `wall_seconds` limits all tests together.
    """

    shorthand: ClassVar[str] = "tests"
    tests: Annotated[tuple[str | Pair, ...], BeforeValidator(_tests), Field(min_length=1)]
    function: str = Field(default="", pattern=r"^([A-Za-z_]\w*)?$")
    hidden: bool = False
    wall_seconds: float | None = Field(default=None, gt=0, strict=False)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if not self.function and any(isinstance(test, Pair) for test in self.tests):
            raise ValueError("tests given as input and expected need the option 'function'")
        parsed_tests(self.tests, self.function)
        return self


def python_tests(options: PythonTestsOptions, site: Site) -> Leaf:
    """Accepts an answer whose code passes every test; the score is the share that it passes.

    SandboxError where there is no sandbox to run it in: at once, since no answer could ever be verified.
    """
    isolation_for(site.sandbox)
    tests = parsed_tests(options.tests, options.function)
    limits = site.sandbox
    if options.wall_seconds is not None:
        limits = replace(limits, wall_seconds=options.wall_seconds)

    def work(step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del step, call
        code = answer.find_code(reply.text)
        if code is None:
            return reject("format", "The answer holds no code. Put it in a ```python block.")
        report: TestReport = yield Compute("python_tests", partial(run_tests, code, tests, limits))
        if report.failed is None and not report.error:
            return accept(1.0)
        feedback = _feedback(report, tests, hidden=options.hidden)
        return reject("wrong", feedback, report.passed / report.total)

    return leaf("python_tests", options, Rates(0.99, 0.2), work, site, spend=wall(limits.wall_seconds + 5))


def parsed_tests(tests: Sequence[str | Pair], function: str) -> tuple[PythonTest, ...]:
    """Tests ready to run; ValueError names the one that is not Python."""
    return tuple(
        test for given in tests for test in ([_paired(given, function)] if isinstance(given, Pair) else _stated(given))
    )


def run_tests(code: str, tests: Sequence[PythonTest], limits: SandboxLimits) -> TestReport:
    """Run `code`, then each test; SandboxError when there is no sandbox and the limits ask for one."""
    token = secrets.token_hex(16)
    kinds = [{"kind": "value" if test.compares else "statement", "source": test.source} for test in tests]
    job = json.dumps({"token": token, "code": code, "tests": kinds})
    harness = Path(__file__).with_name("harness.py").read_text(encoding="utf-8")
    return _report(run(f"{harness}\n\nmain()\n", limits, stdin=job), token, tests)


def _report(result: SandboxResult, token: str, tests: Sequence[PythonTest]) -> TestReport:
    outcomes, fault = _vouched(result, token)
    if not fault and len(outcomes) != len(tests):
        fault = "the code ended the tests early"
    if fault:
        return TestReport(len(tests), 0, error=fault, output=_last_line(result.stderr))
    errors = [_error(test, outcome) for test, outcome in zip(tests, outcomes, strict=True)]
    failures = [position for position, error in enumerate(errors) if error]
    if not failures:
        return TestReport(len(tests), len(tests))
    return TestReport(len(tests), len(tests) - len(failures), failures[0], errors[failures[0]])


def _vouched(result: SandboxResult, token: str) -> tuple[list[dict[str, Any]], str]:
    """The harness's results, or why there are none that count."""
    if not result.stdout.startswith(token):
        return [], result.reason or "the code ended the program before its tests"
    try:
        report = json.loads(result.stdout[len(token) :])
        return [dict(outcome) for outcome in report["results"]], str(report["fault"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return [], "the code spoilt the test report"


def _last_line(stderr: str) -> str:
    return next((shortened(line.strip(), 200) for line in reversed(stderr.splitlines()) if line.strip()), "")


def _error(test: PythonTest, outcome: dict[str, Any]) -> str:
    """What went wrong with one test, empty if nothing did."""
    if "error" in outcome:
        return str(outcome["error"])
    if not test.compares:
        return ""
    try:
        value = decoded(outcome["value"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return "the value can't be read"
    comparable = value if test.tuples else _untupled(value)
    return "" if same(comparable, test.expected) else f"got {shortened(repr(value), 120)}"


def decoded(tagged: Any) -> Any:
    """The plain value that harness.encoder() wrote; ValueError for anything else."""
    kind, content = tagged
    match kind:
        case "scalar" if content is None or isinstance(content, bool | int | float | str):
            return content
        case "bytes":
            return bytes.fromhex(content)
        case "list":
            return [decoded(item) for item in content]
        case "tuple":
            return tuple(decoded(item) for item in content)
        case "set":
            return {decoded(item) for item in content}
        case "dict":
            return {decoded(key): decoded(item) for key, item in content}
        case _:
            raise ValueError(f"unknown kind of value: {kind!r}")


def same(value: Any, expected: Any) -> bool:
    """Equality of plain values in which floats agree within rounding (1e-9) and nothing else is bent."""
    if isinstance(value, float) or isinstance(expected, float):
        if not (isinstance(value, int | float) and isinstance(expected, int | float)):
            return False
        return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        alike = isinstance(value, list) == isinstance(expected, list) and len(value) == len(expected)
        return alike and all(map(same, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[key], expected[key]) for key in value)
    return bool(value == expected)


def _paired(pair: Pair, function: str) -> PythonTest:
    given, expected = _plain(pair.input), _plain(pair.expected)
    if isinstance(given, dict):
        arguments = f"**{given!r}"
    else:
        arguments = ", ".join(map(repr, given if isinstance(given, list) else [given]))
    source = f"{function}({arguments})"
    return PythonTest(source, f"{source} == {expected!r}", compares=True, expected=expected, tuples=False)


def _plain(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, all the way down; ValueError for what has no literal."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("inf and nan can't be test values: write an assertion")
    if value is None or isinstance(value, bool | int | float | str | bytes | set):
        return value
    raise ValueError(f"a plain value is needed, not {type(value).__name__}")


def _untupled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untupled(item) for key, item in value.items()}
    return [_untupled(item) for item in value] if isinstance(value, list | tuple) else value


def _stated(source: str) -> list[PythonTest]:
    """One test per assertion of a script of assertions alone; any other script is one test."""
    try:
        compile(source, "<test>", "exec", dont_inherit=True)
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as cause:
        raise ValueError(f"not Python: {shortened(source, 80)!r}") from cause
    if not body:
        raise ValueError("an empty test")
    if not all(isinstance(statement, ast.Assert) for statement in body):
        return [PythonTest(source, source)]
    return [_asserted(statement) for statement in body if isinstance(statement, ast.Assert)]


def _asserted(statement: ast.Assert) -> PythonTest:
    shown = ast.unparse(statement)
    match statement.test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            try:
                expected = ast.literal_eval(right)
            except (ValueError, TypeError):
                return PythonTest(shown, shown)
            return PythonTest(ast.unparse(left), shown, compares=True, expected=expected)
        case _:
            return PythonTest(shown, shown)


def _feedback(report: TestReport, tests: Sequence[PythonTest], *, hidden: bool) -> str:
    """The first failing test and what happened there; of hidden tests nothing that could carry their values."""
    if report.failed is None:
        output = f" ({report.output})" if report.output and not hidden else ""
        return f"The code does not run: {shortened(report.error, _MOST_SHOWN)}{output}"
    if hidden:
        kind = report.error.partition(":")[0]
        told = kind if hasattr(builtins, kind) else "a wrong value"  # a made-up class name could carry one out
        return f"{report.total - report.passed} of {report.total} hidden tests fail, the first with {told}."
    test = shortened(tests[report.failed].shown, _MOST_SHOWN)
    return f"This test fails: {test} -> {shortened(report.error, _MOST_SHOWN)}"
