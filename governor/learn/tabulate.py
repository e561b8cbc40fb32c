"""Rows -> Table: which rows count, their label, cost, length and group."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from governor.errors import LadderError, Problem, RecordError
from governor.estimate.curves import Floats
from governor.estimate.features import BEYOND
from governor.learn.ladder import HIDDEN, Ladder, nearest
from governor.learn.schema import Row
from governor.learn.table import Flags, Table, Texts, normalised

CHARACTERS_A_TOKEN = 4.0
"""Input tokens of a question where none were reported: its characters / 4."""

_NO_CONTEXT: Mapping[str, Any] = MappingProxyType({})
_VERDICTS = {"accept": 1.0, "reject": 0.0}
_LISTED = 8


def tabulate(
    rows: Iterable[Row],
    ladder: Ladder,
    *,
    node_field: str | None = None,
    group_by: str | None = None,
    costed: bool = True,
) -> Table:
    """The outcomes of a ladder's rungs as arrays, questions in the order of their first row.

    `node_field` names the field that plays the graph node (else the row's own node). `group_by` is a field, or
    `/REGEX/` whose first group is searched in the qid; else questions of equal normalised text are one group. Left out
    are rows with the ladder's `drop` flag, and attempts that followed from an earlier reply. A question without a row
    of some rung stays, with NaN. `costed` False allows a rung that no row knows the cost of. Raises LadderError where
    the ladder does not fit the rows, RecordError where a row's score is none.
    """
    columns = _Columns(ladder, _node(node_field), _grouping(group_by))
    for row in rows:
        columns.add(row)
    _check_names(columns, ladder, node_field, group_by)
    table = columns.table()
    if costed:
        _check_costs(table, ladder)
    return table


_Of: TypeAlias = Callable[[Row], str | None]


def _node(node_field: str | None) -> _Of:
    if node_field is None:
        return lambda row: row.node
    if node_field in HIDDEN:
        raise LadderError(Problem(f"'{node_field}' is nothing that a forecast may see", field="--node-field"))
    return lambda row: _word(row.get(node_field))


def _grouping(group_by: str | None) -> _Of | None:
    if group_by is None:
        return None
    if not (len(group_by) > 1 and group_by.startswith("/") and group_by.endswith("/")):
        return lambda row: _word(row.get(group_by))
    try:
        pattern = re.compile(group_by[1:-1])
    except re.error as fault:
        raise LadderError(Problem(f"{group_by} is no regular expression: {fault}", field="--group-by")) from None
    if not pattern.groups:
        raise LadderError(Problem(f"{group_by} has no group", field="--group-by", hint="put (...) around the name"))

    def family(row: Row) -> str:
        found = pattern.search(row.qid)
        if found is None or found.group(1) is None:
            raise LadderError(Problem(f"{group_by} does not match qid '{row.qid}'", field="--group-by"))
        return found.group(1)

    return family


def _context(row: Row) -> Mapping[str, Any]:
    """What the step held beside its text, as `Step` names it; what is of another type is left out."""
    index, tools, state, beyond = (row.fields.get(name) for name in ("step_index", "tools", "state", "beyond"))
    found: dict[str, Any] = {}
    if isinstance(index, int) and index > 0:
        found["index"] = index
    if isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools) and tools:
        found["tools"] = tuple(tools)
    if isinstance(state, dict) and state:
        found["state"] = state
    if isinstance(beyond, dict) and beyond:
        found["state"] = found.get("state", {}) | {BEYOND: beyond}
    return found or _NO_CONTEXT


def _word(value: Any) -> str | None:
    return None if value is None else str(value)


@dataclass(slots=True)
class _Question:
    """What the rows of one question said of it; `index` is its place in the table, -1 until a row counts."""

    index: int = -1
    text: str | None = None
    node: str | None = None
    group: str | None = None
    context: Mapping[str, Any] = field(default_factory=lambda: _NO_CONTEXT)


@dataclass(slots=True)
class _Columns:
    """The rows that count, one array a column: a few dozen bytes a row."""

    ladder: Ladder
    node_of: _Of
    group_of: _Of | None
    questions: dict[str, _Question] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    other_rungs: dict[str, int] = field(default_factory=dict)
    counted: int = 0
    at: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    answers: list[str | None] = field(default_factory=list)
    verifiers: list[str | None] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    place: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.place = {rung: k for k, rung in enumerate(self.ladder.rungs)}

    def add(self, row: Row) -> None:
        self.names.update(row.fields)
        question = self._question(row)
        if row.rung not in self.place:
            self.other_rungs[row.rung] = self.other_rungs.get(row.rung, 0) + 1
        elif row.alone and not (self.ladder.drop and row.fields.get(self.ladder.drop)):
            if question.index < 0:
                question.index = self.counted
                self.counted += 1
            sample = self.samples.setdefault(row.sample, len(self.samples))
            self.at.extend((question.index, self.place[row.rung], sample))
            self.numbers.extend(self._numbers(row))
            self.answers.append(None if row.answer_text is None else self._one(normalised(row.answer_text)))
            self.verifiers.append(self._one(row.verifier) if row.verdict in _VERDICTS else None)

    def _question(self, row: Row) -> _Question:
        question = self.questions.get(row.qid)
        if question is None:
            question = self.questions[row.qid] = _Question()
        if question.text is None:
            question.text = row.question
        if question.node is None:
            question.node = self.node_of(row)
        question.context = question.context or _context(row)
        if question.group is None and self.group_of is not None:
            question.group = self.group_of(row)
        return question

    def _numbers(self, row: Row) -> tuple[float, ...]:
        label = row.label
        strict = self.ladder.correct_at_least
        if label is not None and strict is not None:
            label = float(label >= strict)
        return (
            _nan(label),
            row.n_samples,
            _nan(row.output_tokens),
            _nan(row.input_tokens),
            _nan(row.cost_usd),
            self._score(row),
            row.truncated,
            _nan(_VERDICTS.get(row.verdict or "")),
            row.correct is None and label is not None,
        )

    def _score(self, row: Row) -> float:
        name = self.ladder.checking.field
        value = row.fields.get(name) if name else None
        if value is None:
            return np.nan
        if isinstance(value, int | float) and 0 <= value <= 1:
            return float(value)
        raise RecordError(f"{row.place}: {name}: a verifier's score must be 0..1, is {value!r:.40}")

    def _one(self, text: str) -> str:
        """One object for equal texts: answers repeat."""
        return self.texts.setdefault(text, text)

    def table(self) -> Table:
        found = sorted((q for q in self.questions.items() if q[1].index >= 0), key=lambda item: item[1].index)
        order = sorted(self.samples, key=_natural)
        rank = np.empty(len(order), dtype=np.intp)
        rank[[self.samples[name] for name in order]] = np.arange(len(order))
        at = np.frombuffer(self.at, dtype=np.int64).reshape(-1, 3)
        cells = _Cells((at[:, 0], at[:, 1], rank[at[:, 2]]), (len(found), len(self.place), len(order)))
        numbers = np.frombuffer(self.numbers).reshape(-1, _WIDTH)
        correct, drawn, output, given, usd, score, cut, verdict, noisy = (cells.floats(column) for column in numbers.T)
        questions = tuple(question.text or "" for _, question in found)
        contexts = tuple(question.context for _, question in found)
        seen: dict[str, Any] = {} if np.isnan(verdict).all() else {"verdict": verdict, "noisy": noisy == 1.0}
        return Table(
            qids=tuple(qid for qid, _ in found),
            questions=questions,
            nodes=tuple(question.node or "default" for _, question in found),
            groups=tuple(_group(qid, question, self.group_of) for qid, question in found),
            rungs=self.ladder.rungs,
            samples=tuple(order),
            correct=correct,
            drawn_from=drawn,
            output_tokens=output,
            cost=_cost(self.ladder, questions, ~np.isnan(drawn), output, given, usd),
            score=score,
            finished=_finished(output, cut == 1.0, self.ladder.continues),
            answers=cells.texts(self.answers),
            contexts=contexts if any(contexts) else (),
            **seen,
            verifier=cells.texts(self.verifiers) if seen else None,
        )


_WIDTH = 9


@dataclass(frozen=True, slots=True)
class _Cells:
    """Where each row stands in the (Q, K, S) arrays."""

    at: tuple[npt.NDArray[np.intp], ...]
    shape: tuple[int, int, int]

    def floats(self, column: Floats) -> Floats:
        out = np.full(self.shape, np.nan)
        out[self.at] = column
        return out

    def texts(self, column: list[str | None]) -> Texts:
        out = np.full(self.shape, None, dtype=np.object_)
        out[self.at] = column
        return out


def _cost(
    ladder: Ladder, questions: tuple[str, ...], there: Flags, output: Floats, given: Floats, usd: Floats
) -> Floats:
    """Each attempt's cost in the ladder's unit; of a thought that continues, each rung's own tokens."""
    if ladder.unit == "tokens":
        return output.copy()
    if ladder.unit == "reported_usd":
        return usd
    costs = [ladder.costs[rung] for rung in ladder.rungs]
    if ladder.unit == "weight":
        weights = np.array([_nan(cost.weight) for cost in costs])
        return np.where(there, weights[:, None], np.nan)
    length = np.array([np.nan if not text else len(text) / CHARACTERS_A_TOKEN for text in questions])
    read = np.where(np.isnan(given), length[:, None, None], given)
    assumed = np.array([_nan(cost.assumed_output_tokens) for cost in costs])
    written = np.where(np.isnan(output), assumed[:, None], output)
    price_in = np.array([cost.input_per_million for cost in costs])[:, None] / 1e6
    price_out = np.array([cost.output_per_million for cost in costs])[:, None] / 1e6
    return np.where(there, read * price_in + written * price_out, np.nan)


def _finished(output: Floats, cut: Flags, continues: bool) -> Flags:
    """Where a length is whole: not marked as truncated, and below the budget + 1 of a thought that continues.

    The budget is no field: a rung's budget + 1 is its largest length, where two attempts or more share it. One
    attempt alone at the largest length is the longest thought of a rung that cut none.
    """
    finished = ~cut
    for k in range(output.shape[1]) if continues else ():
        lengths = output[:, k][~np.isnan(output[:, k])]
        if lengths.size and (lengths == lengths.max()).sum() > 1:
            finished[:, k] &= ~(output[:, k] >= lengths.max())
    return finished


def _group(qid: str, question: _Question, asked: _Of | None) -> str:
    if asked is not None:
        return f"qid {qid}" if question.group is None else question.group
    return group_of(qid, question.text)


def group_of(qid: str, text: str | None) -> str:
    """What a question may not be parted from, where nobody says otherwise: all of equal text."""
    if not text:
        return f"qid {qid}"
    return blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _check_names(columns: _Columns, ladder: Ladder, node_field: str | None, group_by: str | None) -> None:
    """Raise where a rung or a field that is asked for stands in no row at all."""
    if not columns.questions:
        raise LadderError(Problem("no rows", str(ladder.records)))
    there = set(columns.at[1::3])
    absent = next((rung for k, rung in enumerate(ladder.rungs) if k not in there), None)
    if absent is not None:
        others = columns.other_rungs
        close = nearest(absent, others, _LISTED)
        listed = [*close, *(rung for rung in sorted(others) if rung not in close)]
        more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        hint = f"not in the ladder, closest first: {', '.join(listed[:_LISTED])}{more}" if listed else ""
        raise LadderError(
            Problem(f"no row that counts has rung '{absent}'", str(ladder.records), field="rungs", hint=hint)
        )
    nodeless = all(question.node is None for question in columns.questions.values())
    groupless = group_by is not None and all(question.group is None for question in columns.questions.values())
    asked = (("drop", ladder.drop), ("verifier.field", ladder.checking.field))
    wrong = [(option, name) for option, name in asked if name and name not in columns.names]
    wrong += [("--node-field", str(node_field))] * nodeless + [("--group-by", str(group_by))] * groupless
    for option, name in wrong:
        close = nearest(name, columns.names)
        hint = f"did you mean '{close[0]}'?" if close else f"fields: {', '.join(sorted(columns.names))}"
        raise LadderError(Problem(f"no row has a field '{name}'", str(ladder.records), field=option, hint=hint))


_NO_COST: Mapping[str, str] = {
    "tokens": "no row of it has output_tokens: state weights, or USD with assumed_output_tokens",
    "usd": "no row of it has output_tokens: add assumed_output_tokens to its prices",
    "reported_usd": "no row of it has cost_usd: state prices or weights",
    "weight": "it has no weight",
}


def _check_costs(table: Table, ladder: Ladder) -> None:
    for k, rung in enumerate(table.rungs):
        if np.isnan(table.cost[:, k]).all():
            said = f"the cost of rung '{rung}' is unknown: {_NO_COST[ladder.unit]}"
            raise LadderError(Problem(said, str(ladder.records), field="cost"))


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def _natural(name: str) -> list[tuple[int, str]]:
    """seed2 before seed10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
