"""Task lines of `governor run`, and the outcome lines it writes.

A task is one JSON object a line: `id`, `prompt` or `messages`, and optionally `node`, `session`, `tools`, `schema`,
`verify`, `state`, `expect`, `gold`. `expect` is what `governor bench --live` grades an answer by: a text (equal after
normalising), a number, or `{regex: ...}`. `gold` is for whoever else grades the outcomes. Neither ever reaches a step.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governor.errors import Problem, TaskError
from governor.records import Outcome, Step

_TYPES: Mapping[str, tuple[type, str]] = {
    "id": (str, "a string"),
    "node": (str, "a string"),
    "session": (str, "a string"),
    "prompt": (str, "a string"),
    "messages": (list, "a list of messages"),
    "tools": (list, "a list of tools"),
    "schema": (dict, "a JSON schema"),
    "state": (dict, "an object"),
}
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_KEYS = (*_TYPES, "verify", "expect", "gold")


@dataclass(frozen=True, slots=True)
class Task:
    """One line of a task file: the step it asks for, and what is held back for grading (None if absent)."""

    step: Step
    gold: Any = None
    expect: str | float | Mapping[str, str] | None = None

    @property
    def id(self) -> str:
        """The task's id, which is its step's id."""
        return self.step.id


def read_tasks(path: Path, *, seed: int | None = None) -> tuple[Task, ...]:
    """Read a whole task file, or raise TaskError at its first bad line; nothing is run of a file with a mistake."""
    tasks: dict[str, Task] = {}
    for number, line in _lines(path):
        task = _task(path, number, line, seed)
        if task.id in tasks:
            raise _wrong(path, number, "id", f"'{task.id}' stands on an earlier line too", "ids must be unique")
        tasks[task.id] = task
    if not tasks:
        raise _wrong(path, 0, "", "the file has no tasks", "write one JSON object a line")
    return tuple(tasks.values())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on some systems begin a file with a mark
    except UnicodeDecodeError as fault:
        number = fault.object.count(b"\n", 0, fault.start) + 1
        raise _wrong(path, number, "", "not UTF-8 text", "save the file as UTF-8") from None
    except FileNotFoundError:
        raise _wrong(path, 0, "", "no such file", "--input names the tasks, one JSON object a line") from None
    except OSError as fault:
        raise _wrong(path, 0, "", f"can't be read: {fault.strerror}", "") from None
    # At line feeds alone: JSON text may hold every other character that Python takes for the end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _task(path: Path, number: int, line: str, seed: int | None) -> Task:
    raw = _object(path, number, line)
    for key in raw:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(_KEYS)}"
            raise _wrong(path, number, key, "unknown key", hint)
    for key, (kind, words) in _TYPES.items():
        if key in raw and not isinstance(raw[key], kind):
            raise _wrong(path, number, key, f"must be {words}, is {_json_type(raw[key])}", "")
    if not line.isascii() or "\\u" in line:
        _check_text(path, number, raw)
    if not raw.get("id"):
        raise _wrong(path, number, "id", "is missing", "give each task an id, so that a run can be resumed")
    if ("prompt" in raw) == ("messages" in raw):
        raise _wrong(path, number, "prompt", "give either 'prompt' or 'messages'", "exactly one of the two")
    return Task(_step(path, number, raw, seed), raw.get("gold"), _expected(path, number, raw.get("expect")))


def _expected(path: Path, number: int, found: Any) -> str | float | Mapping[str, str] | None:
    if found is None or (isinstance(found, str | int | float) and not isinstance(found, bool)):
        return found
    if not isinstance(found, dict) or set(found) != {"regex"} or not isinstance(found["regex"], str):
        hint = 'such as "Paris", 42 or {"regex": "(?i)paris"}'
        raise _wrong(path, number, "expect", "must be a text, a number or {regex: ...}", hint)
    try:
        re.compile(found["regex"])
    except re.error as fault:
        raise _wrong(path, number, "expect.regex", f"is no regular expression: {fault}", "") from None
    return found


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as fault:
        problem = Problem(f"not JSON: {fault.msg}", str(path), number, fault.colno, "", "one JSON object a line")
        raise TaskError(problem) from None
    except RecursionError:
        raise _wrong(path, number, "", "nested too deeply", "") from None
    except ValueError:
        raise _wrong(path, number, "", "a number has too many digits", "write it as a string") from None
    if not isinstance(raw, dict):
        raise _wrong(path, number, "", f"must be a JSON object, is {_json_type(raw)}", "one JSON object a line")
    return raw


def _check_text(path: Path, number: int, raw: dict[str, Any]) -> None:
    for key, value in raw.items():
        try:
            json.dumps([key, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            message = "holds half a character (a lone \\ud800 to \\udfff)"
            raise _wrong(path, number, ascii(key)[1:-1], message, "write both halves, or leave it out") from None


def _step(path: Path, number: int, raw: dict[str, Any], seed: int | None) -> Step:
    messages = raw.get("messages", [{"role": "user", "content": raw.get("prompt")}])
    for index, message in enumerate(messages):
        for field, wrong, hint in _message_problems(message):
            raise _wrong(path, number, f"messages.{index}{field}", wrong, hint)
    if not any(message.get("content") for message in messages):
        raise _wrong(path, number, "prompt" if "prompt" in raw else "messages", "is empty", "say what is to be done")
    for index, tool in enumerate(raw.get("tools", ())):
        if not isinstance(tool, dict):
            hint = 'such as {"type": "function", "function": {"name": ...}}'
            raise _wrong(path, number, f"tools.{index}", f"must be an object, is {_json_type(tool)}", hint)
    for message, hint in _schema_problems(raw.get("schema")):
        raise _wrong(path, number, "schema", message, hint)
    return Step(
        id=raw["id"],
        messages=tuple(messages),
        node=raw.get("node", "default"),
        session=raw.get("session", ""),
        tools=tuple(raw.get("tools", ())),
        response_schema=raw.get("schema"),
        state=raw.get("state", {}),
        checks=_checks(path, number, raw.get("verify")),
        seed=seed,
    )


def _message_problems(message: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(message, dict):
        yield "", f"must be an object, is {_json_type(message)}", 'such as {"role": "user", "content": "..."}'
        return
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        close = difflib.get_close_matches(str(role), _ROLES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"one of {', '.join(_ROLES)}"
        yield ".role", "is missing" if role is None else f"unknown role {role!r}", hint
    if content is not None and not isinstance(content, str | list):
        yield ".content", f"must be a string or a list of parts, is {_json_type(content)}", ""


def _schema_problems(schema: Any) -> Iterator[tuple[str, str]]:
    if schema is None:
        return
    from governor.verify import problems_of

    for _, message, hint in problems_of({"json_schema": {"schema": schema}}):
        yield message, hint


def _checks(path: Path, number: int, spec: Any) -> tuple[Mapping[str, Any], ...]:
    if spec is None:
        return ()
    from governor.verify import problems_of

    for where, message, hint in problems_of(spec):
        field = ".".join(str(part) for part in ("verify", *where))
        raise _wrong(path, number, field, message, hint)
    return tuple(spec) if isinstance(spec, list) else (spec,)


def _wrong(path: Path, number: int, field: str, message: str, hint: str) -> TaskError:
    return TaskError(Problem(message, str(path), number, 0, field, hint))


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def outcome_line(outcome: Outcome) -> dict[str, Any]:
    """An outcome as `governor run` writes it. `cost` is in USD, exact to the micro-USD; tokens are counts."""
    return {
        "id": outcome.step_id,
        "status": outcome.status,
        "answer": outcome.answer,
        "rung": outcome.rung,
        "attempts": len(outcome.attempts),
        "usage": {
            "input_tokens": outcome.usage.input_tokens,
            "output_tokens": outcome.usage.output_tokens,
            "thinking_tokens": outcome.usage.thinking_tokens,
            "verifier_tokens": outcome.verifier_usage.total_tokens,
        },
        "cost": outcome.spent.micros / 1_000_000,
        "seconds": round(outcome.seconds, 3),
        "error": outcome.error or None,
        **({"audit": True} if outcome.audit else {}),
        **({"tool_calls": _tool_calls(outcome)} if outcome.reply and outcome.reply.tool_calls else {}),
    }


def _tool_calls(outcome: Outcome) -> Sequence[Mapping[str, str]]:
    calls = outcome.reply.tool_calls if outcome.reply else ()
    return [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls]
