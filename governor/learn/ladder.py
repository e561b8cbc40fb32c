"""A ladder file: which rungs of which records are compared, what they cost, and how their answers are verified."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from governor.errors import LadderError, Problem
from governor.learn.sources import json_type

CostUnit = Literal["tokens", "usd", "weight", "reported_usd"]
CheckingKind = Literal["none", "perfect", "simulated", "score", "agreement"]

HIDDEN = frozenset(
    {"qid", "source", "difficulty_label", "gold", "correct", "trace_tokens", "prefix_tokens", "n_samples"}
)
"""Fields that no forecast and no verifier may see: they are labels, or known only afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungCost:
    """What one rung costs: a constant `weight`, or USD per million tokens (`assumed_output_tokens` where unknown)."""

    weight: float | None = None
    input_per_million: float = 0.0
    output_per_million: float = 0.0
    assumed_output_tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """How recorded answers are verified.

    `none`; `perfect` (the label itself); `simulated` by `sensitivity` P(accept | correct) and `false_accept`
    P(accept | wrong); `score` (the row's `field`, calibrated on training folds only); `agreement` of two samples.
    Both rates are 1 where no verdict is given or they must be fitted. `cost` per verdict, in the ladder's unit.
    """

    kind: CheckingKind = "none"
    sensitivity: float = 1.0
    false_accept: float = 1.0
    field: str = ""
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What is measured: rungs in the file's order (which means nothing: cost decides).

    `correct_at_least` makes a strict label of `correct`. `continues`: the rungs are budgets of one thought. `drop`
    names a flag whose rows are left out. `harm` is the loss of a wrong accepted answer.
    """

    name: str
    records: Path
    rungs: tuple[str, ...]
    unit: CostUnit
    costs: Mapping[str, RungCost] = field(default_factory=dict)
    correct_at_least: float | None = None
    continues: bool = False
    checking: Checking = Checking()
    drop: str = ""
    harm: float = 0.0


def load_ladder(path: str | Path) -> Ladder:
    """Read a ladder file (JSON). `records` is resolved in the folder above the one that the file stands in.

    Raises LadderError at the first mistake, naming file and field.
    """
    path = Path(path)
    top = _Section(str(path), _document(path), "")
    top.only("name", "records", "rungs", "cost", "correct_at_least", "continues", "verifier", "drop", "harm")
    rungs = _rungs(top)
    unit, costs = _costs(top.section("cost"), rungs)
    continues = top.flag("continues")
    if continues and unit != "tokens":
        raise top.wrong("continues", f"counts the tokens of one thought, and cost.unit is {unit}", "use tokens")
    strict = top.number("correct_at_least", None, most=1)
    if strict == 0:
        raise top.wrong("correct_at_least", "must be more than 0: every answer would be correct")
    return Ladder(
        name=top.text("name", path.stem),
        records=path.absolute().parent.parent / top.text("records"),
        rungs=rungs,
        unit=unit,
        costs=costs,
        correct_at_least=strict,
        continues=continues,
        checking=_checking(top.section("verifier")) if "verifier" in top.raw else Checking(),
        drop=top.text("drop", ""),
        harm=top.number("harm", 0.0) or 0.0,
    )


def checking_of(words: str) -> Checking:
    """What `--verifier` says: none, perfect, agreement, SENSITIVITY,FALSE_ACCEPT or score:FIELD. Raises LadderError."""
    if words in _PLAIN:
        return _PLAIN[words]
    kind, colon, name = words.partition(":")
    if colon and kind == "score":
        return _scored(_Section("--verifier", {"field": name}, ""), 0.0)
    try:
        sensitivity, false_accept = (float(part) for part in words.split(","))
    except ValueError:
        near = nearest(words, _PLAIN)
        hint = f"did you mean '{near[0]}'?" if near else f"{', '.join(_PLAIN)}, score:FIELD, or rates such as 0.99,0.2"
        raise LadderError(Problem(f"'{words}' is no verifier", field="--verifier", hint=hint)) from None
    rates = {"sensitivity": sensitivity, "false_accept": false_accept}
    return _simulated(_Section("--verifier", rates, ""), 0.0)


def nearest(word: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The `count` known names nearest to a misspelt one, closest first; fewer where they are too unlike."""
    return get_close_matches(word, sorted(known), n=count, cutoff=0.5)


_PLAIN: Mapping[str, Checking] = {
    "none": Checking(),
    "perfect": Checking(kind="perfect", sensitivity=1.0, false_accept=0.0),
    "agreement": Checking(kind="agreement"),
}


class _Section:
    """One object of a ladder file, and errors that say where in it."""

    def __init__(self, file: str, raw: Mapping[str, Any], prefix: str) -> None:
        self.file = file
        self.raw = raw
        self.prefix = prefix

    def wrong(self, key: str, message: str, hint: str = "") -> LadderError:
        return LadderError(Problem(message, self.file, field=f"{self.prefix}{key}", hint=hint))

    def only(self, *known: str) -> None:
        for key in self.raw:
            if key not in known:
                near = nearest(key, known)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
                raise self.wrong(key, "unknown field", hint)

    def section(self, key: str) -> _Section:
        return _Section(self.file, self._typed(key, dict, "an object"), f"{self.prefix}{key}.")

    def text(self, key: str, default: str | None = None) -> str:
        if key not in self.raw and default is not None:
            return default
        value: str = self._typed(key, str, "text")
        if not value:
            raise self.wrong(key, "must not be empty")
        return value

    def flag(self, key: str) -> bool:
        return bool(self._typed(key, bool, "true or false")) if key in self.raw else False

    def number(self, key: str, default: float | None, most: float = math.inf) -> float | None:
        if key not in self.raw and default is None:
            return None
        value = self.raw.get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most and value < math.inf:
            return float(value)
        shown = value if isinstance(value, int | float) and not isinstance(value, bool) else json_type(value)
        raise self.wrong(key, f"must be a number {'from 0' if most == math.inf else f'in 0..{most:g}'}, is {shown}")

    def rate(self, key: str) -> float:
        if key not in self.raw:
            raise self.wrong(key, "is missing")
        return self.number(key, 0.0, most=1) or 0.0

    def word(self, key: str, known: Sequence[str]) -> str:
        value = self.text(key)
        if value not in known:
            near = nearest(value, known)
            hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(known)}"
            raise self.wrong(key, f"'{value}' is unknown", hint)
        return value

    def _typed(self, key: str, kind: type, words: str) -> Any:
        if key not in self.raw:
            raise self.wrong(key, "is missing")
        if not isinstance(self.raw[key], kind):
            raise self.wrong(key, f"must be {words}, is {json_type(self.raw[key])}")
        return self.raw[key]


def _document(path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
            raise LadderError(Problem("stands here twice", str(path), field=twice))
        return found

    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except OSError as cause:
        raise LadderError(Problem(f"can't be read: {cause.strerror or cause}", str(path))) from None
    except json.JSONDecodeError as fault:
        raise LadderError(Problem(f"not JSON: {fault.msg}", str(path), fault.lineno, fault.colno)) from None
    except (ValueError, RecursionError):
        raise LadderError(Problem("not JSON text in UTF-8", str(path))) from None
    if not isinstance(raw, dict):
        raise LadderError(Problem(f"must be one JSON object, is {json_type(raw)}", str(path)))
    return raw


def _rungs(top: _Section) -> tuple[str, ...]:
    rungs = top.raw.get("rungs")
    if not isinstance(rungs, list) or not all(isinstance(rung, str) and rung for rung in rungs):
        raise top.wrong("rungs", "must be a list of names" if "rungs" in top.raw else "is missing")
    twice = next((rung for at, rung in enumerate(rungs) if rung in rungs[:at]), None)
    if twice is not None:
        raise top.wrong("rungs", f"'{twice}' stands there twice")
    if len(rungs) < _FEWEST:
        raise top.wrong("rungs", "must hold two names or more: there is nothing to choose")
    return tuple(rungs)


_FEWEST = 2


def _costs(cost: _Section, rungs: tuple[str, ...]) -> tuple[CostUnit, Mapping[str, RungCost]]:
    cost.only("unit", "per_rung")
    unit: Any = cost.word("unit", get_args(CostUnit))
    if unit in ("tokens", "reported_usd"):
        if "per_rung" in cost.raw:
            raise cost.wrong("per_rung", f"means nothing where the unit is {unit}", "remove it")
        return unit, {}
    per_rung = cost.section("per_rung")
    per_rung.only(*rungs)
    price = _weight if unit == "weight" else _price
    return unit, {rung: price(per_rung, rung) for rung in rungs}


def _weight(per_rung: _Section, rung: str) -> RungCost:
    if rung not in per_rung.raw:
        raise per_rung.wrong(rung, "is missing")
    return RungCost(weight=per_rung.number(rung, 0.0))


def _price(per_rung: _Section, rung: str) -> RungCost:
    price = per_rung.section(rung)
    price.only("input_per_million", "output_per_million", "assumed_output_tokens")
    for key in ("input_per_million", "output_per_million"):
        if key not in price.raw:
            raise price.wrong(key, "is missing")
    return RungCost(
        input_per_million=price.number("input_per_million", 0.0) or 0.0,
        output_per_million=price.number("output_per_million", 0.0) or 0.0,
        assumed_output_tokens=price.number("assumed_output_tokens", None),
    )


def _checking(verifier: _Section) -> Checking:
    kind = verifier.word("kind", get_args(CheckingKind))
    own = {"simulated": ("sensitivity", "false_accept"), "score": ("field",)}.get(kind, ())
    verifier.only("kind", "cost", *own)
    cost = verifier.number("cost", 0.0) or 0.0
    if kind == "simulated":
        return _simulated(verifier, cost)
    if kind == "score":
        return _scored(verifier, cost)
    return replace(_PLAIN[kind], cost=cost)


def _simulated(verifier: _Section, cost: float) -> Checking:
    sensitivity, false_accept = verifier.rate("sensitivity"), verifier.rate("false_accept")
    if false_accept > sensitivity:
        said = (
            f"{false_accept:g} is more than the sensitivity {sensitivity:g}: wrong answers would be the likelier ones"
        )
        raise verifier.wrong("false_accept", said, "swap the two?")
    return Checking(kind="simulated", sensitivity=sensitivity, false_accept=false_accept, cost=cost)


def _scored(verifier: _Section, cost: float) -> Checking:
    name = verifier.text("field")
    if name in HIDDEN:
        raise verifier.wrong("field", f"'{name}' is nothing that a verifier could see")
    return Checking(kind="score", field=name, cost=cost)
