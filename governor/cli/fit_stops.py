"""`governor fit --stops RECORDS...`: the most eager thresholds of stop rules that surely lose few right answers.

Exit codes: 0 a threshold was certified, 1 none could be (nothing is written), 2 wrong usage, records that tell nothing,
or a file that can't be written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from governor.cli.reading import BadRows, progress, refusals
from governor.errors import RecordError

if TYPE_CHECKING:
    from governor.learn.ladder import Ladder
    from governor.learn.schema import Row
    from governor.learn.stopping import Fitted, Rule

NOTHING_CERTIFIED = 1
LOOKED = ("budget", "margin")
STUCK = ("repeat", "group")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; no rule named means every rule that the records tell of."""

    records: tuple[Path, ...]
    ladder: Path | None
    rules: tuple[str, ...]
    risk: float
    delta: float
    rung: str | None
    window: int
    seed: int
    strict: bool


def fit_stops(asked: Asked, out: Path, *, as_json: bool) -> None:
    """Fit, print, and write the `stops:` block of a policy."""
    _check(asked, out)
    from governor.learn import stopping
    from governor.learn.certificate import files_digest

    bad = BadRows()
    with refusals():
        digest = files_digest(asked.records)
        rules = _rules(asked, bad, quiet=as_json)
        bad.close()
        found = stopping.fit_stops(rules, risk=asked.risk, delta=asked.delta, seed=asked.seed)
        if files_digest(asked.records) != digest:
            raise RecordError("the records changed while they were read: fit again")
        block = block_of(found, asked, digest)
        if block:
            _write(block, out)
    if as_json:
        typer.echo(json.dumps(as_record(found, out if block else None), ensure_ascii=False))
    else:
        typer.echo("\n".join([*map(in_words, found), f"wrote {out}" if block else "nothing was written"]))
    raise typer.Exit(0 if any(one.threshold is not None for one in found) else NOTHING_CERTIFIED)


def block_of(found: Sequence[Fitted], asked: Asked, digest: str) -> str:
    """The `stops:` block as YAML; empty where no key of it was certified."""
    keys = [one for one in found if one.threshold is not None and one.name in (*LOOKED, *STUCK)]
    if not keys:
        return ""
    lines = [f"# governor fit --stops, of {', '.join(repr(path.name) for path in asked.records)}", "stops:"]
    for one in keys:
        lines += [f"  {key}: {value}" for key, value in {one.name: _plain(one), **one.settings}.items()]
    proofs = (json.dumps(_proof(one, digest)) for one in keys)
    return "\n".join([*lines, "  certified:", *(f"    - {proof}" for proof in proofs)]) + "\n"


def in_words(one: Fitted) -> str:
    """What was found of one rule, in a line."""
    trials, test = one.trials, one.shown
    claim = f"a right answer lost <= {trials.risk:.3g} at delta {trials.delta:.3g}, {trials.units} independent thoughts"
    counts = f"{test.failures} lost (bound {test.bound:.2%})"
    if one.threshold is None:
        needed = trials.units_needed()
        advice = "records of more questions" if needed is None else f"about {needed} questions"
        more = f"{advice}, a higher --risk or fewer rules would be needed"
        return f"{one.name}: no threshold certified for {claim}: {counts} at {one.thresholds[0]:.6g}; {more}"
    ended = one.ended[len(trials.dials) - 1]
    said = f"{one.name}: {one.threshold:.6g} certified for {claim}: {counts}, {ended} ended early"
    return said if one.name in (*LOOKED, *STUCK) else f"{said}; no key of `stops`: the threshold of its verifier"


def as_record(found: Sequence[Fitted], written: Path | None) -> dict[str, Any]:
    """Everything that was found as plain data."""
    rules = [
        {"rule": one.name, "threshold": one.threshold, "risk": one.trials.risk, "delta": one.trials.delta,
         "units": one.trials.units, "tested": _tested(one)}
        for one in found
    ]  # fmt: skip
    return {"out": str(written) if written else None, "rules": rules}


def _tested(one: Fitted) -> list[dict[str, Any]]:
    each = zip(one.thresholds, one.ended, one.trials.each, strict=True)
    return [{"at": at, "ended": ended} | asdict(trial) for at, ended, trial in each]


def _proof(one: Fitted, digest: str) -> dict[str, Any]:
    test, trials = one.shown, one.trials
    claim = {"rule": one.name, "at": _plain(one), "risk": trials.risk, "delta": trials.delta}
    settings = {key.removeprefix(f"{one.name}_"): value for key, value in one.settings.items()}
    return claim | {"n": test.n, "failures": test.failures, "bound": test.bound, "records": digest} | settings


def _plain(one: Fitted) -> int | float:
    """The threshold as its key takes it."""
    value = one.threshold or 0.0
    return int(value) if one.name in ("budget", "repeat") else value


def _rules(asked: Asked, bad: BadRows, *, quiet: bool) -> list[Rule]:
    from governor.learn.rows import read_rows

    names = tuple(dict.fromkeys(asked.rules)) or _told(asked)
    with progress(quiet=quiet) as counted:
        rows = list(counted(read_rows(asked.records, strict=asked.strict, on_bad=bad.tell)))
    looked, stuck = ([name for name in names if (name in STUCK) is given_up] for given_up in (False, True))
    return [*(_looked(asked, looked, rows) if looked else []), *(_stuck(asked, stuck, rows) if stuck else [])]


def _told(asked: Asked) -> tuple[str, ...]:
    """The rules that the records may tell of: budgets and the ladder's score, or else repetition."""
    if asked.ladder is None:
        return ("repeat",)
    field = _ladder(asked).checking.field
    return ("budget", *([field] if field else []))


def _looked(asked: Asked, names: Sequence[str], rows: Sequence[Row]) -> list[Rule]:
    from governor.learn.looks import read_looks
    from governor.learn.stopping import budget_rule, margin_rule, score_rule

    if asked.ladder is None:
        raise RecordError(f"{names[0]}: needs --ladder, whose rungs are budgets of one thought (continues: true)")
    looks = read_looks(rows, _ladder(asked), [name for name in names if name != "budget"], seed=asked.seed)

    def made(name: str) -> Rule:
        if name == "budget":
            return budget_rule(looks)
        return margin_rule(looks, seed=asked.seed) if name == "margin" else score_rule(looks, name, seed=asked.seed)

    return [made(name) for name in names]


def _stuck(asked: Asked, names: Sequence[str], rows: Sequence[Row]) -> list[Rule]:
    from governor.learn.stopping import group_rule, repeat_rule
    from governor.learn.thoughts import alternatives, read_thoughts

    thoughts = read_thoughts(rows, asked.rung)
    top = alternatives(thoughts)
    return [
        repeat_rule(thoughts) if name == "repeat" else group_rule(thoughts, asked.window, top, seed=asked.seed)
        for name in names
    ]


def _ladder(asked: Asked) -> Ladder:
    from governor.learn.ladder import load_ladder

    return load_ladder(asked.ladder or Path())


def _check(asked: Asked, out: Path) -> None:
    from governor.stops.settings import MAX_WINDOW, MIN_WINDOW

    if not (0.0 < asked.risk < 1.0 and 0.0 < asked.delta < 1.0):
        raise typer.BadParameter(f"--risk and --delta must lie between 0 and 1, not {asked.risk:g} and {asked.delta:g}")
    if not MIN_WINDOW <= asked.window <= MAX_WINDOW:
        raise typer.BadParameter(f"--window must be {MIN_WINDOW} to {MAX_WINDOW}, is {asked.window}")
    if out.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"-o: {out} is no YAML file (.yaml or .yml): it is a part of a policy")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"-o: there is no folder {out.parent}")


def _write(block: str, out: Path) -> None:
    whole = out.with_name(f"{out.name}.part")
    try:
        whole.write_text(block, encoding="utf-8")
        whole.replace(out)
    except OSError as fault:
        raise RecordError(f"{out}: can't be written: {fault}") from fault
