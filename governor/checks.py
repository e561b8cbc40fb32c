"""What a policy asks that some other part can't do: the cross-checks that every loaded policy passes.

The policy part judges shape and consistency. Here the effort table and the verifiers have their say, as
findings whose paths the loader turns into lines and columns. So have the files that the policy names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from governor.backends import Backends, model_options
from governor.errors import BackendError, BackendRequestError, MissingExtraError, ModelFileError, PolicyError
from governor.learning import learned_files
from governor.plan.dialects import Dialect, dialect_for
from governor.plan.effort import hardness, problems, same_wire
from governor.policy import Check, Finding, Policy, specs, verify_check
from governor.policy.schema import RungSpec
from governor.policy.stops import StopsSpec
from governor.verify import known_verifiers, may_foresee, problems_of

Path = tuple[str | int, ...]


def policy_checks() -> tuple[Check, ...]:
    """The checks to hand to `load_policy` and `inspect_policy`."""
    return (_effort, _soft, _wires, *nameless_checks())


def nameless_checks() -> tuple[Check, ...]:
    """Those that ask nothing of the models' names, for a part that reaches models by names of its own."""
    return (verify_check(known_verifiers(), _leaf), learned_files, _shown_stops, _speculation)


def readiness(policy: Policy) -> Iterator[Finding]:
    """What the policy's models lack on this machine: an extra, a model file, a key. A further check for a run.

    Nothing is called but for a backend's own small requests, whose proof holds for all rungs of a model. A policy may
    well be checked elsewhere than it is used, so `policy_checks` are without it.
    """
    absent: set[str] = set()
    told: set[tuple[str, str]] = set()
    with closing(Backends(model_options(policy))) as backends:
        for path, spec in rungs_of(policy):
            if spec.model in absent or isinstance(_dialect(policy, spec.model), Finding):
                continue
            try:
                backends.ready(spec.rung(policy.models))
            except (BackendError, MissingExtraError, ModelFileError) as fault:
                if not isinstance(fault, BackendRequestError):
                    absent.add(spec.model)  # no rung of it can do better, and to ask again may mean to wait again
                if (spec.model, str(fault)) not in told:
                    yield Finding((*path, "model"), str(fault))
                told.add((spec.model, str(fault)))


def _effort(policy: Policy) -> Iterator[Finding]:
    """Every rung against the dialect its model speaks: unsupported knobs are errors, soft budgets are said."""
    for path, spec in rungs_of(policy):
        dialect = _dialect(policy, spec.model)
        if isinstance(dialect, Finding):
            yield dialect
            continue
        model = policy.models.get(spec.model)
        rung = spec.rung(policy.models)
        for issue in problems(
            rung,
            dialect,
            require_hard=policy.require_hard,
            max_output_tokens=model.max_output_tokens if model else None,
            context_window=model.context_window if model else None,
        ):
            yield Finding((*path, issue.field), issue.message, issue.hint, issue.severity)


def _shown_stops(policy: Policy) -> Iterator[Finding]:
    """Claims about stop thresholds, computed anew: their counts must show them."""
    for path, spec in _stops(policy):
        for at, one in enumerate(spec.certified):
            from governor.learn.binomial import at_most  # numpy: only for policies that claim something

            if at_most(one.failures, one.n, one.risk) > one.delta:
                said = f"{one.failures} of {one.n} do not show a risk of {one.risk:g} at delta {one.delta:g}"
                yield Finding((*path, "certified", at), said, "fit again: governor fit --stops")


def _speculation(policy: Policy) -> Iterator[Finding]:
    """Verifiers that a speculated stream would have nothing to ask before its end."""
    for path, spec in specs(policy) if policy.stream == "speculate" else ():
        if not may_foresee(spec):
            text = "can doubt no answer before it is whole: its streams are held back, as by stream: buffer"
            yield Finding(path, text, "such as complete, or contains with `absent`", "warning")


def _stops(policy: Policy) -> Iterator[tuple[Path, StopsSpec]]:
    """Every `stops` of the policy and where it stands."""
    if policy.stops is not None:
        yield ("stops",), policy.stops
    for at, rule in enumerate(policy.steps):
        if rule.stops is not None:
            yield ("steps", at, "stops"), rule.stops
    for path, rung in rungs_of(policy):
        if rung.stops is not None:
            yield (*path, "stops"), rung.stops


def _soft(policy: Policy) -> Iterator[Finding]:
    """One warning for all rungs whose thinking tokens the backend can't enforce."""
    soft = [(path, spec.id) for path, spec in rungs_of(policy) if _is_soft(policy, spec)]
    if soft and not policy.require_hard:
        names = ", ".join(name for _, name in soft)
        text = f"a reserve inside max_tokens here, not a cap the provider enforces (rungs {names})"
        yield Finding((*soft[0][0], "thinking_tokens"), text, "require_hard: true refuses such rungs", "warning")


def _is_soft(policy: Policy, spec: RungSpec) -> bool:
    dialect = _dialect(policy, spec.model)
    return isinstance(dialect, Dialect) and hardness(spec.rung(policy.models), dialect) == "soft"


def _wires(policy: Policy) -> Iterator[Finding]:
    """Rungs that differ in the file and end as the same request."""
    wires = {name: model.wire for name, model in policy.models.items() if model.wire}
    ladder = [spec.rung(policy.models) for spec in policy.ladder]
    if any(isinstance(_dialect(policy, rung.model), Finding) for rung in ladder):
        return
    try:
        groups = same_wire(ladder, wires)
    except PolicyError:
        return  # a rung that can't be sent at all was already said
    positions = {spec.id: position for position, spec in enumerate(policy.ladder)}
    for first, *others in groups:
        for other in others:
            text = f"rung '{other}' ends as the same wire request as '{first}'"
            yield Finding(("ladder", positions[other]), text, "remove one of the two", "warning")


def _leaf(name: str, options: Any, path: Path) -> Iterator[Finding]:
    spec = name if options is None else {name: options}
    inside = () if options is None else (name,)
    for where, message, hint in problems_of(spec):
        yield Finding((*path, *where[len(inside) :]), message, hint)


def rungs_of(policy: Policy) -> Iterator[tuple[Path, RungSpec]]:
    """Every rung that the policy spells out, and where."""
    for position, spec in enumerate(policy.ladder):
        yield ("ladder", position), spec
    for rule, own in enumerate(policy.steps):
        for position, ref in enumerate(own.ladder or ()):
            if isinstance(ref, RungSpec):
                yield ("steps", rule, "ladder", position), ref


def _dialect(policy: Policy, name: str) -> Dialect | Finding:
    model = policy.models.get(name)
    try:
        return dialect_for(name, model.wire if model else None)
    except PolicyError as error:
        (problem,) = error.problems
        return Finding(("models", name, "wire"), problem.message, problem.hint)
