"""Verified replies as distillation data: per prompt and teacher rung the shortest one known to be right."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from governor.errors import RecordError
from governor.learn.ladder import nearest
from governor.learn.schema import Row
from governor.records import Message, text_of

STRICT = 0.99
"""A reply is right from this label on: partial credit is nothing to learn from."""

SWITCH_ON = (
    "write `records: {prompts: true, answers: true}` in the policy that `governor run --records` uses, "
    "or JsonlSink(path, prompts=True, answers=True) in code"
)

Skipped: TypeAlias = Literal[
    "other_rung", "wrong", "unverified", "truncated", "follow_up", "tool_calls", "no_answer", "no_prompt"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One reply to learn from: the prompt's messages (plain text), the answer, and the thinking kept apart.

    `verified_by` is "label", or "verifier:NAME" where that verifier's acceptance is all that is known.
    """

    messages: tuple[Mapping[str, str], ...]
    answer: str
    thinking: str
    qid: str
    node: str
    rung: str
    model: str
    output_tokens: int | None
    verified_by: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The traces in the order of their prompts' first rows, then by rung; and how many rows were left out, by reason.

    A correct row that is only longer than another is in neither number.
    """

    traces: tuple[Trace, ...]
    rows: int
    skipped: Mapping[Skipped, int]


def shortest_correct(rows: Iterable[Row], teachers: Collection[str] = ()) -> Selection:
    """Per prompt and rung (of `teachers`; none given: all) the right reply with the fewest output tokens.

    Ties go to the fewer characters, then to the text that sorts first, so that the order of rows does not matter.
    Right is a label of 0.99 or more, or, without a label, a verifier's acceptance. Left out are cut replies, replies
    to feedback, and what is not plain text (tool calls, images). Raises RecordError where a teacher has no rows,
    and where nothing is left because texts were not recorded or no reply is right.
    """
    sieve = _Sieve(frozenset(teachers))
    for row in rows:
        sieve.add(row)
    return sieve.selection()


_Length: TypeAlias = tuple[float, int, str, str]
_Prompt: TypeAlias = tuple[Mapping[str, str], ...]


@dataclass(slots=True)
class _Sieve:
    """Keeps of all rows the shortest right one per qid and rung, and each qid's prompt, which may come on any row."""

    teachers: frozenset[str]
    rows: int = 0
    rungs: set[str] = field(default_factory=set)
    prompts: dict[str, _Prompt] = field(default_factory=dict)
    best: dict[tuple[str, str], tuple[_Length, Row]] = field(default_factory=dict)
    skipped: Counter[Skipped] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        self.rows += 1
        self.rungs.add(row.rung)
        if row.qid not in self.prompts:
            prompt = _prompt(row)
            if prompt:
                self.prompts[row.qid] = prompt
        reason = self._reason(row)
        if reason is not None:
            self.skipped[reason] += 1
            return
        key, length = (row.qid, row.rung), _length(row)
        if key not in self.best or length < self.best[key][0]:
            self.best[key] = length, row

    def _reason(self, row: Row) -> Skipped | None:
        if self.teachers and row.rung not in self.teachers:
            return "other_rung"
        if row.label is None:
            return "unverified"
        if row.label < STRICT:
            return "wrong"
        if row.truncated:
            return "truncated"
        if not row.alone:
            return "follow_up"
        if row.fields.get("tool_calls"):
            return "tool_calls"
        return None if (row.answer_text or "").strip() else "no_answer"

    def selection(self) -> Selection:
        self._check_teachers()
        shortest: dict[tuple[str, str], tuple[_Length, Row]] = {}
        order: dict[str, int] = {}
        for (qid, rung), found in self.best.items():
            if qid not in self.prompts:
                self.skipped["no_prompt"] += 1
                continue
            prompt = json.dumps(self.prompts[qid], sort_keys=True)
            order.setdefault(prompt, len(order))
            if (prompt, rung) not in shortest or _rank(found) < _rank(shortest[prompt, rung]):
                shortest[prompt, rung] = found
        if not shortest:
            raise RecordError(self._why_nothing())
        keys = sorted(shortest, key=lambda key: (order[key[0]], key[1]))
        traces = tuple(_trace(shortest[key][1], self.prompts[shortest[key][1].qid]) for key in keys)
        return Selection(traces, self.rows, dict(sorted(self.skipped.items())))

    def _check_teachers(self) -> None:
        for teacher in sorted(self.teachers - self.rungs):
            close = nearest(teacher, self.rungs, len(self.rungs))
            listed = [*close, *sorted(self.rungs - set(close))]
            raise RecordError(f"no row has rung '{teacher}' (rungs, closest first: {', '.join(listed) or 'none'})")

    def _why_nothing(self) -> str:
        if not self.rows:
            return "the records hold no rows"
        if self.skipped["no_answer"]:
            return f"the records hold no texts of right answers: {SWITCH_ON}"
        if self.skipped["no_prompt"]:
            return f"the records hold no texts of prompts: {SWITCH_ON}"
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.skipped.items()))
        return f"no reply of a teacher is whole and known to be right (rows: {counts})"


def chat_lines(traces: Iterable[Trace]) -> Iterator[bytes]:
    """One JSON line a trace, in TRL's conversational language-modelling format: `messages`, and columns of facts.

    The thinking stands in the last message as `reasoning_content`, which chat templates such as Qwen3's read, and
    is "" where there is none, so that every line has the same columns and types.
    """
    for trace in traces:
        reply = {"role": "assistant", "content": trace.answer, "reasoning_content": trace.thinking}
        facts = ("qid", "node", "rung", "model", "output_tokens", "verified_by")
        line: dict[str, Any] = {"messages": [*trace.messages, reply]}
        line |= {name: getattr(trace, name) for name in facts}
        yield json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def write_whole(path: Path, lines: Iterable[bytes], sources: Sequence[Path] = ()) -> int:
    """Write a file that is either whole or not there, whatever interrupts; gives the number of lines.

    An earlier file is replaced at the very end. Raises RecordError where it can't be written, or is one of `sources`.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise RecordError(f"{path}: is not a regular file")
    if any(source.resolve() == target for source in sources):
        raise RecordError(f"{path}: is one of the records that are read: name another file")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    count = 0
    try:
        with part.open("wb") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as cause:
        raise RecordError(f"{path}: can't be written: {cause.strerror or cause}") from cause
    finally:
        part.unlink(missing_ok=True)
    return count


def _length(row: Row) -> _Length:
    tokens = float("inf") if row.output_tokens is None else row.output_tokens
    answer = row.answer_text or ""
    return tokens, len(row.thinking) + len(answer), answer, row.thinking


def _rank(found: tuple[_Length, Row]) -> tuple[_Length, str]:
    return found[0], found[1].qid


def _prompt(row: Row) -> _Prompt:
    """The messages as plain text; empty where there are none, or where one is more than text."""
    if not row.messages:
        return ({"role": "user", "content": row.question},) if row.question else ()
    return tuple(map(_plain, row.messages)) if all(map(_is_plain, row.messages)) else ()


def _plain(message: Message) -> Mapping[str, str]:
    return {"role": str(message["role"]), "content": text_of(message)}


def _is_plain(message: Message) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in parts)
    return texts and message.get("role") in _ROLES and not message.get("tool_calls")


_ROLES = ("system", "developer", "user", "assistant")


def _trace(row: Row, prompt: _Prompt) -> Trace:
    return Trace(
        messages=prompt,
        answer=row.answer_text or "",
        thinking=row.thinking,
        qid=row.qid,
        node=row.node,
        rung=row.rung,
        model=str(row.fields.get("model") or ""),
        output_tokens=None if row.output_tokens is None else round(row.output_tokens),
        verified_by="label" if row.correct is not None else f"verifier:{row.verifier}",
    )
