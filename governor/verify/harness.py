"""Runs inside the sandbox: model-written code first, then its tests, then one report vouched for by a token.

This file is sent as source text, never imported there. The model's code shares the interpreter, so nothing here
is trusted blindly: `value` tests send back what the code computed, to be compared outside where the expected
value stays, and the report only counts with the token at its head. Names used after the model's code has run
are bound beforehand, because that code may replace any builtin.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

_MOST_CHARACTERS = 20_000
_MOST_DEPTH = 50


def encoder() -> Callable[[Any], Any]:
    """A function value -> tagged JSON value for plain data; TypeError for anything else.

    Only exact builtin types pass: an object whose `__eq__` always agrees has no encoding.
    """
    kind, fail, text, listed = type, TypeError, str, list
    scalars = (int, float, str, bool, kind(None))
    sequences: dict[Any, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "set"}
    mapping, binary, as_hex, items = dict, bytes, bytes.hex, dict.items

    def encode(value: Any, depth: int = 0) -> Any:
        exact = kind(value)
        if depth > _MOST_DEPTH:
            raise fail("the value is nested too deeply")
        if exact in scalars:
            return ["scalar", value]
        if exact in sequences:
            return [sequences[exact], [encode(item, depth + 1) for item in listed(value)]]
        if exact is mapping:
            return ["dict", [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in items(value)]]
        if exact is binary:
            return ["bytes", as_hex(value)]
        raise fail("a plain value is needed, not an object of type " + text(exact.__name__))

    return encode


def main() -> None:
    """Read the job from stdin, run it, write `token + JSON` to what was stdout, and leave at once.

    Job: `{"token", "code", "tests": [{"kind": "value" | "statement", "source"}]}`. The report is
    `{"fault", "results": [{"value"?, "error"?}]}`, with `fault` set when the code itself could not be run.
    """
    job = json.loads(sys.stdin.buffer.read())
    token, report, leave, write = job["token"].encode(), os.dup(1), os._exit, os.write
    os.dup2(2, 1)  # what the code prints can't reach the report
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    encode, dumps, length, execute, evaluate = encoder(), json.dumps, len, exec, eval
    # Wide enough for SystemExit in an `__eq__`; bound now, so that it can't be replaced.
    anything, fail, name_of = BaseException, ValueError, type
    compiled = [_compiled(test) for test in job["tests"]]
    space: dict[str, Any] = {"__name__": "solution", "__builtins__": __builtins__}
    results: list[dict[str, Any]] = []
    fault = ""

    def blame(cause: BaseException) -> str:
        try:
            return f"{name_of(cause).__name__}: {cause}".strip(": ")[:500]
        except anything:
            return "an exception that can't be shown"

    def outcome(kind: str, program: Any) -> dict[str, Any]:
        if kind != "value":
            execute(program, space)
            return {}
        value = encode(evaluate(program, space))
        if length(dumps(value)) > _MOST_CHARACTERS:
            raise fail("the value is too long to compare")
        return {"value": value}

    try:
        execute(compile(job["code"], "<answer>", "exec"), space)
    except anything as cause:
        fault = blame(cause)
    for kind, program in [] if fault else compiled:
        try:
            results.append(outcome(kind, program))
        except anything as cause:
            results.append({"error": blame(cause)})
    write(report, token + dumps({"fault": fault, "results": results}).encode())
    leave(0)


def _compiled(test: dict[str, str]) -> tuple[str, Any]:
    mode = "eval" if test["kind"] == "value" else "exec"
    return test["kind"], compile(test["source"], "<test>", mode)
