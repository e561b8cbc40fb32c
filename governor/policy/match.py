"""Which rule of the policy a step falls under, why, and the terms it gets: pure, and made ready once per policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

from governor.policy.budget import Budget, Limits, PeriodLimits, periods
from governor.policy.period import RUN, SESSION, STEP, period_of, slides, span
from governor.policy.rewind import OnFail, ToolRule
from governor.policy.schema import Backtrack, Canary, Match, Policy, Rule, RungSpec
from governor.policy.stops import StopsSpec
from governor.protocols import Streams, Terms
from governor.records import Limit, Rung, Step

DEFAULT_DIAL = 0.3

_Condition: TypeAlias = Callable[[Step, str], bool]


@dataclass(frozen=True, slots=True)
class Paced:
    """Money of a period that is to be spread over it.

    `scope` is the ledger's for the period, `name` the same for all periods. `budget` is in micro-USD, `begun` in POSIX
    seconds, `seconds` the period's length, `weights` those of its equal slices.
    """

    name: str
    scope: str
    budget: int
    begun: float
    seconds: float
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a rule (or the policy itself, where none matches) grants, but for names and times of the step."""

    conditions: tuple[_Condition, ...]
    terms: Terms
    step: Limits | None
    session: Limits | None
    run: Limits | None
    shared: tuple[tuple[str, PeriodLimits], ...]
    models: tuple[tuple[str, tuple[PeriodLimits, ...]], ...]
    paced: tuple[tuple[str, PeriodLimits], ...]
    verify: Any
    tell: bool
    on_fail: OnFail | None


def terms_for(policy: Policy, step: Step, when: float) -> Terms:
    """What the policy grants to `step`. `when` is POSIX time in seconds; it picks the budget's UTC window.

    The limits' scopes are `step:{app}/{step.id}`, `session:{app}/{session}` and `run:{app}/{run}` (the step's id where
    it has none), `node:{app}/{node}@{window}`, `tenant:{app}/{tenant}@{window}`, `app:{app}@{window}` and, on what is
    called of one, `model:{app}/{model}@{window}` (see `period.placed`), each where the policy limits it. `continues` is
    left empty.
    """
    ready = _matching(policy, step)
    limits = _limits(ready, policy.app, step, when)
    deadline = _earlier(ready.terms.deadline, step.deadline)
    audit = audited(policy.audit, step.id)
    models = _model_limits(ready, policy.app, when)
    if not (limits or models or deadline or audit):
        return ready.terms
    return replace(ready.terms, limits=limits, models=models, deadline=deadline, audit=audit)


def paced_for(policy: Policy, step: Step, when: float) -> tuple[Paced, ...]:
    """The budgets of `step` whose spend the policy paces, at `when` (POSIX seconds)."""
    paced = _matching(policy, step).paced
    if not paced:
        return ()
    owners = _owners(policy.app, step)
    return tuple(_paced(owners[name], part, when) for name, part in paced)


def _paced(owner: str, part: PeriodLimits, when: float) -> Paced:
    limit = part.limit_at(owner, when)
    begun, ends = span(part.per, when)
    assert limit.micros is not None
    assert part.pace is not None
    return Paced(f"{owner}/{part.per}", limit.scope, limit.micros, begun, ends - begun, part.pace)


def _owners(app: str, step: Step) -> Mapping[str, str]:
    """What the scopes of each kind of owner begin with."""
    return {"node": f"node:{app}/{step.node}", "tenant": f"tenant:{app}/{step.tenant}", "app": f"app:{app}"}


def audited(share: float, step_id: str) -> bool:
    """Whether a step is one of the share that is audited: BLAKE2b of its id, so on every replica alike."""
    digest = blake2b(step_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"audit").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53 < share


def verify_for(policy: Policy, step: Step) -> Any:
    """The `verify` spec for `step`: the rule's own, else the policy's; None for no verification."""
    return _matching(policy, step).verify


def tell_for(policy: Policy, step: Step) -> bool:
    """Whether the model of `step` is told after tool results what is left of its budget."""
    return _matching(policy, step).tell


def on_fail_for(policy: Policy, step: Step) -> OnFail | None:
    """What happens when `step` fails for good: what the rule that it falls under says, None where it says nothing."""
    return _matching(policy, step).on_fail


def rule_for(policy: Policy, step: Step) -> int:
    """The place in `steps` of the rule that `step` falls under; `len(steps)` where none matches."""
    matching = _matching(policy, step)
    return next(at for at, ready in enumerate(_prepared(policy)) if ready is matching)


def tool_rule(policy: Policy, name: str) -> ToolRule:
    """The rule of the tool called `name`: that of the first glob that matches, the defaults where none does."""
    return next((rule for glob, rule in policy.tools.items() if fnmatchcase(name, glob)), _ANY_TOOL)


_ANY_TOOL = ToolRule()


def _matching(policy: Policy, step: Step) -> _Ready:
    rules = _prepared(policy)
    prompt = step.prompt if len(rules) > 1 else ""  # the last one has no conditions
    for ready in rules:
        if all(condition(step, prompt) for condition in ready.conditions):
            return ready
    raise AssertionError("the last entry has no conditions")


def _limits(ready: _Ready, app: str, step: Step, when: float) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    if ready.step is not None:
        limits.append(ready.step.limit(f"step:{app}/{step.id}", STEP))
    if ready.session is not None:
        limits.append(ready.session.limit(f"session:{app}/{step.session or step.id}", SESSION))
    if ready.run is not None:
        limits.append(ready.run.limit(f"run:{app}/{step.run or step.id}", RUN))
    owners = _owners(app, step)
    limits += [part.limit_at(owners[name], when) for name, part in ready.shared]
    return tuple(limits)


def _model_limits(ready: _Ready, app: str, when: float) -> tuple[tuple[str, tuple[Limit, ...]], ...]:
    return tuple(
        (model, tuple(part.limit_at(f"model:{app}/{model}", when) for part in parts)) for model, parts in ready.models
    )


def limits_on(policy: Policy, scope: str) -> tuple[Limit, ...]:
    """Every limit that the policy, or a rule of it, sets on a scope of whatever step and time; windows are left out.

    A rule's limit holds for that rule's steps alone; the scope may be booked on by others too.
    """
    found: dict[Limit, None] = {}
    for ready in _prepared(policy):
        for name, part in (("step", ready.step), ("session", ready.session), ("run", ready.run)):
            if part is not None and scope.startswith(f"{name}:{policy.app}/"):
                found[part.limit(scope)] = None
        for model, parts in ready.models:
            for part in parts:
                if _falls_on(f"model:{policy.app}/{model}", part, scope, whole=True):
                    found[part.limit(scope)] = None
        for name, part in ready.shared:
            if _falls_on(f"{name}:{policy.app}", part, scope, whole=name == "app"):
                found[part.limit(scope)] = None
    return tuple(found)


def _falls_on(owner: str, part: PeriodLimits, scope: str, *, whole: bool) -> bool:
    """Whether a shared limit names its sums so (see `period.placed`); `whole`: the owner has no name behind it."""
    if not scope.startswith(owner):
        return False
    rest = scope[len(owner) :]
    if part.per == "total":
        return rest == "" if whole else rest.startswith("/") and period_of(scope) is None and not slides(scope)
    if part.sliding:
        return rest == f"~{part.per}" if whole else rest.startswith("/") and rest.endswith(f"~{part.per}")
    known = period_of(scope)
    return known is not None and known[0] == part.per and rest.startswith("@" if whole else "/")


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


@lru_cache(maxsize=64)
def _prepared(policy: Policy) -> tuple[_Ready, ...]:
    rules = [_ready(policy, rule, f"steps[{position}]") for position, rule in enumerate(policy.steps)]
    return (*rules, _ready(policy, Rule(), ""))


def _ready(policy: Policy, rule: Rule, name: str) -> _Ready:
    budget = _over(policy.budget, rule.budget)
    shared = tuple((name, part) for name in ("node", "tenant", "app") for part in periods(getattr(budget, name)))
    return _Ready(
        conditions=tuple(_conditions(rule.match)),
        terms=_terms(policy, rule, budget, _reason(rule.match, name)),
        step=_untimed(budget.step),
        session=budget.session,
        run=budget.run,
        shared=shared,
        models=tuple((model, parts) for model in _models(policy) if (parts := budget.of_model(model))),
        paced=tuple((name, part) for name, part in shared if part.pace is not None),
        verify=rule.verify if "verify" in rule.model_fields_set else policy.verify,
        tell=budget.tell,
        on_fail=rule.on_fail,
    )


def _models(policy: Policy) -> list[str]:
    """Every model that a step may call, a judge's included."""
    return list(dict.fromkeys(rung.model for rung in policy.rungs.values()))


def _over(base: Any, own: Budget | Backtrack | None) -> Any:
    """The policy's budget or backtrack, with the keys that the rule gives in place of its own."""
    if own is None:
        return base
    return base.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


def _terms(policy: Policy, rule: Rule, budget: Budget, reason: str) -> Terms:
    backtrack: Backtrack = _over(policy.backtrack, rule.backtrack)
    own = rule.ladder or policy.ladder
    longest = budget.call.seconds if budget.call else None
    stops = rule.stops or policy.stops
    ladder = tuple(_granted(policy.rungs[e.id if isinstance(e, RungSpec) else e], longest, stops) for e in own)
    ids = {rung.id for rung in ladder}
    dial, keep = _aim(policy, rule)
    mode = rule.mode or policy.mode
    return Terms(
        app=policy.app,
        ladder=ladder,
        dial=dial,
        keep=keep,
        harm=policy.harm if rule.harm is None else rule.harm,
        latency=1e6 * (policy.latency if rule.latency is None else rule.latency),
        call=budget.call.limit("call") if budget.call else None,
        on_exhausted=budget.on_exhausted,
        reserve=budget.reserve,
        streams=Streams(quantile=budget.streams.quantile, step=budget.streams.step),
        mode="canary" if isinstance(mode, Canary) else mode,
        share=mode.canary if isinstance(mode, Canary) else float(mode == "on"),
        fail=policy.fail,
        modes=backtrack.modes,
        max_attempts=backtrack.max_attempts,
        deadline=_earlier(policy.deadline if rule.deadline is None else rule.deadline, _step_seconds(budget)),
        baseline=policy.baseline if policy.baseline in ids else ladder[-1].id,
        difficulty=rule.difficulty,
        reason=reason,
    )


def _granted(rung: Rung, longest: float | None, stops: StopsSpec | None) -> Rung:
    """The rung as its step has it: with the stop rules, where it has none of its own, and the time limit of a call.

    A call is cut at that limit, so that the rung need not be left out.
    """
    if longest is not None and rung.timeout > longest:
        rung = replace(rung, timeout=longest)
    return rung if stops is None or rung.stops is not None else replace(rung, stops=stops.stops)


def has_stops(policy: Policy) -> bool:
    """Whether any stop rule holds anywhere."""
    if policy.stops is not None or any(rule.stops is not None for rule in policy.steps):
        return True
    return any(rung.stops is not None for rung in policy.rungs.values())


def _step_seconds(budget: Budget) -> float | None:
    return budget.step.seconds if budget.step else None


def _untimed(step: Limits | None) -> Limits | None:
    """A step's seconds are its deadline, which shortens its calls; in the ledger they would refuse them."""
    return None if step is None else step.model_copy(update={"seconds": None})


def _aim(policy: Policy, rule: Rule) -> tuple[float | None, float | None]:
    """`dial` and `keep` of the rule if it has either, else of the policy, else the default dial.

    Beside a certificate there is no default: what was certified is the dial.
    """
    for part in (rule, policy):
        if part.dial is not None or part.keep is not None:
            return part.dial, part.keep
    return (DEFAULT_DIAL if policy.certificate is None else None), None


def _conditions(match: Match) -> list[_Condition]:
    """One test per key that the match gives."""
    given = [(test, getattr(match, key)) for key, test in _TESTS.items()]
    return [test(wanted) for test, wanted in given if wanted is not None and wanted != {}]


def _node_is(globs: str | tuple[str, ...]) -> _Condition:
    patterns = (globs,) if isinstance(globs, str) else globs
    fits = re.compile("|".join(translate(pattern) for pattern in patterns)).match
    return lambda step, _: fits(step.node) is not None


def _prompt_has(pattern: str) -> _Condition:
    search = re.compile(pattern).search
    return lambda _, prompt: search(prompt) is not None


def _state_holds(wanted: Mapping[str, Any]) -> _Condition:
    return lambda step, _: all(_same(step.state.get(key), value) for key, value in wanted.items())


def _same(held: Any, wanted: Any) -> bool:
    """Equal scalars; true is not 1."""
    comparable = isinstance(held, str | int | float) and isinstance(held, bool) is isinstance(wanted, bool)
    return comparable and held == wanted


_TESTS: Mapping[str, Callable[[Any], _Condition]] = {
    "node": _node_is,
    "tools": lambda wanted: lambda step, _: bool(step.tools) is wanted,
    "schema_": lambda wanted: lambda step, _: (step.response_schema is not None) is wanted,
    "min_prompt_chars": lambda least: lambda _, prompt: len(prompt) >= least,
    "max_prompt_chars": lambda most: lambda _, prompt: len(prompt) <= most,
    "state": _state_holds,
    "prompt": _prompt_has,
}
"""A test per key of `match`, cheap ones first; each is made once per policy and given step and prompt."""


def _reason(match: Match, name: str) -> str:
    if not name:
        return "no rule of steps matches: the policy's own terms"
    given = match.model_dump(exclude_defaults=True, by_alias=True)
    why = ", ".join(f"{key} {_said(value)}" for key, value in given.items())
    return f"{name} matches {why}" if why else f"{name} matches every step"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "present" if value else "absent"
    if isinstance(value, Mapping):
        return " and ".join(f"{key}={held}" for key, held in value.items())
    if isinstance(value, tuple):
        return " or ".join(map(str, value))
    return str(value)
