"""What no single key shows: names that lead nowhere, settings that exclude or defeat each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from fnmatch import fnmatchcase

from governor.policy.budget import Budget, PeriodLimits, periods
from governor.policy.finding import Finding, Path, suggestion
from governor.policy.rewind import OnFail, Rewind
from governor.policy.schema import ModelSpec, Policy, Rule, RungSpec
from governor.policy.spec import shape_findings
from governor.policy.stops import StopsSpec
from governor.records import Limit


def consistency(policy: Policy) -> Iterator[Finding]:
    """Every mistake and doubt about how the policy's parts go together."""
    yield from _dial_beside_keep(policy, ())
    yield from _duplicate_ids(policy)
    for path, rung in rung_specs(policy):
        yield from _rung(rung, path, policy.models)
    yield from _unknown_rungs(policy)
    yield from _unpriced(policy)
    yield from _too_big_for_a_call(policy)
    yield from _least_over_thinking(policy)
    yield from _budget(policy.budget, ("budget",))
    yield from _unmatched_models(policy)
    for position, rule in enumerate(policy.steps):
        yield from _rule(policy, rule, ("steps", position))
    yield from _unreachable(policy)
    yield from _too_high(policy)
    yield from _shadowed_tools(policy)
    yield from _learning(policy)
    yield from shape_findings(policy)


def rung_specs(policy: Policy) -> Iterator[tuple[Path, RungSpec]]:
    """Every rung that is spelled out, with its path: the ladder's, then those of the rules."""
    for position, rung in enumerate(policy.ladder):
        yield ("ladder", position), rung
    for at, rule in enumerate(policy.steps):
        for position, entry in enumerate(rule.ladder or ()):
            if isinstance(entry, RungSpec):
                yield ("steps", at, "ladder", position), entry


def _dial_beside_keep(part: Policy | Rule, path: Path) -> Iterator[Finding]:
    if part.dial is not None and part.keep is not None:
        yield Finding((*path, "keep"), "'dial' and 'keep' exclude each other", "remove one of them")


def _duplicate_ids(policy: Policy) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, rung in rung_specs(policy):
        if rung.id in seen:
            yield Finding((*path, "id"), f"rung id '{rung.id}' is used twice", "give every rung an id of its own")
        seen.add(rung.id)


def _rung(rung: RungSpec, path: Path, models: Mapping[str, ModelSpec]) -> Iterator[Finding]:
    if not models:
        return
    model = models.get(rung.model)
    if model is None:
        hint = suggestion(rung.model, models) or f"add '{rung.model}' under 'models'"
        yield Finding((*path, "model"), f"unknown model '{rung.model}'", hint)
        return
    yield from _over_limit(rung, path, model)


def _over_limit(rung: RungSpec, path: Path, model: ModelSpec) -> Iterator[Finding]:
    total = rung.thinking_tokens + rung.answer_tokens
    at = (*path, "thinking_tokens" if rung.thinking_tokens else "answer_tokens")
    asked = f"thinking and answer are {total} tokens together"
    if model.max_output_tokens is not None and total > model.max_output_tokens:
        over = total - model.max_output_tokens
        yield Finding(at, f"{asked}, but {rung.model} gives at most {model.max_output_tokens}", f"lower it by {over}")
    elif model.context_window is not None and total >= model.context_window:
        message = f"{asked}, which leaves no room for a prompt in {rung.model}'s {model.context_window}"
        yield Finding(at, message, "lower it")


def _unknown_rungs(policy: Policy) -> Iterator[Finding]:
    own = [rung.id for rung in policy.ladder]
    if policy.baseline is not None and policy.baseline not in own:
        yield Finding(("baseline",), f"unknown rung '{policy.baseline}'", suggestion(policy.baseline, own))
    for at, rule in enumerate(policy.steps):
        for position, entry in enumerate(rule.ladder or ()):
            if isinstance(entry, str) and entry not in own:
                path = ("steps", at, "ladder", position)
                yield Finding(path, f"unknown rung '{entry}'", suggestion(entry, own))


def _unpriced(policy: Policy) -> Iterator[Finding]:
    """Rungs without a price beside rungs with one, or under a limit in USD, would pass for free."""
    rungs = list(rung_specs(policy))
    priced = [path for path, rung in rungs if _has_price(rung, policy.models)]
    if not priced and not _limits_money(policy):
        return
    for path, rung in rungs:
        if path not in priced:
            message = f"rung '{rung.id}' has no price, so its calls count as free"
            yield Finding((*path, "model"), message, "give its model a price under 'models'", "warning")


def _has_price(rung: RungSpec, models: Mapping[str, ModelSpec]) -> bool:
    model = models.get(rung.model)
    return rung.price is not None or (model is not None and model.price is not None)


def _limits_money(policy: Policy) -> bool:
    return any(part.usd is not None for budget in policy.budgets for _, part in budget.parts())


def _too_big_for_a_call(policy: Policy) -> Iterator[Finding]:
    ceiling = policy.budget.call.tokens if policy.budget.call else None
    for path, rung in rung_specs(policy):
        total = rung.thinking_tokens + rung.answer_tokens
        if ceiling is not None and total >= ceiling:
            message = f"rung '{rung.id}' may use {total} tokens, so that no call of it fits the limit of {ceiling}"
            yield Finding((*path, "id"), message, "raise budget.call.tokens, or lower the rung", "warning")


def _least_over_thinking(policy: Policy) -> Iterator[Finding]:
    """Stop rules that ask for more thought than a rung has for which they hold."""
    told: set[tuple[Path, str]] = set()
    for path, stops, rung in _rules_in_force(policy):
        least = stops.stops.least
        if 0 < rung.thinking_tokens < least and (path, rung.id) not in told:
            told.add((path, rung.id))
            message = f"{least} is more than the {rung.thinking_tokens} thinking tokens of rung '{rung.id}'"
            yield Finding((*path, "least"), message, "lower it, raise thinking_tokens, or give the rung its own stops")


def _rules_in_force(policy: Policy) -> Iterator[tuple[Path, StopsSpec, RungSpec]]:
    """The rungs of all ladders, each with the stop rules that hold for it and where these stand."""
    specs = {rung.id: (path, rung) for path, rung in rung_specs(policy)}
    parts: list[tuple[Path, Policy | Rule]] = [((), policy)]
    parts += [(("steps", at), rule) for at, rule in enumerate(policy.steps)]
    for path, part in parts:
        shared = (path, part.stops) if part.stops else ((), policy.stops)
        ids = [entry if isinstance(entry, str) else entry.id for entry in part.ladder or policy.ladder]
        for at, rung in (specs[one] for one in ids if one in specs):
            where, stops = (at, rung.stops) if rung.stops else shared
            if stops:
                yield (*where, "stops"), stops, rung


def _budget(budget: Budget, path: Path) -> Iterator[Finding]:
    for at, part in budget.parts():
        if part.limit("") == Limit(""):
            yield Finding((*path, *at), "limits nothing", "give tokens, usd, seconds or calls, or remove it")
        if isinstance(part, PeriodLimits) and part.per == "total" and part.sliding:
            yield Finding((*path, *at, "sliding"), "a total does not slide", "name a period, or remove it")
        if isinstance(part, PeriodLimits) and part.pace is not None:
            yield from _pace(part, part.pace, (*path, *at, "pace"))
    for name in ("app", "tenant", "node"):
        yield from _same_window(periods(getattr(budget, name)), (*path, name))
    for glob, held in budget.model.items():
        yield from _same_window(periods(held), (*path, "model", glob))
        if any(part.pace is not None for part in periods(held)):
            yield Finding((*path, "model", glob), "a model's money is not paced", "give app, tenant or node the pace")


def _unmatched_models(policy: Policy) -> Iterator[Finding]:
    """A budget of a model that no rung names: a misspelt one limits nothing."""
    models = sorted({rung.model for _, rung in rung_specs(policy)})
    budgets: list[tuple[Path, Budget]] = [(("budget",), policy.budget)]
    budgets += [(("steps", at, "budget"), rule.budget) for at, rule in enumerate(policy.steps) if rule.budget]
    for path, budget in budgets:
        for glob in budget.model:
            if not any(fnmatchcase(model, glob) for model in models):
                message = f"no rung's model matches '{glob}', so this limits nothing"
                yield Finding((*path, "model", glob), message, f"models are {', '.join(models)}", "warning")


def _pace(part: PeriodLimits, weights: tuple[float, ...], path: Path) -> Iterator[Finding]:
    if not part.usd:
        yield Finding(path, "there is no money to spread", "give usd beside it, or remove it")
    if part.sliding or part.per == "total":
        kind = "a sliding window" if part.sliding else "a total"
        yield Finding(
            path, f"{kind} has no end by which its money is to be spread", "name a period that does not slide"
        )
    if not any(weights):
        yield Finding(path, "no slice has a weight above 0", "write [1] to spread the money evenly")


def _same_window(several: tuple[PeriodLimits, ...], path: Path) -> Iterator[Finding]:
    """Two limits of one window would be one: the lower of each ceiling."""
    seen: set[tuple[str, bool]] = set()
    for position, part in enumerate(several):
        if (part.per, part.sliding) in seen:
            yield Finding(
                (*path, position, "per"), f"'{part.per}' stands twice", "put its ceilings together", "warning"
            )
        seen.add((part.per, part.sliding))


def _rule(policy: Policy, rule: Rule, path: Path) -> Iterator[Finding]:
    yield from _dial_beside_keep(rule, path)
    if rule.budget is not None:
        yield from _budget(rule.budget, (*path, "budget"))
    if rule.on_fail is not None:
        yield from _on_fail(rule.on_fail, rule, (*path, "on_fail"))
    least, most = rule.match.min_prompt_chars, rule.match.max_prompt_chars
    if least is not None and most is not None and least > most:
        message = f"no prompt has at least {least} and at most {most} characters"
        yield Finding((*path, "match", "max_prompt_chars"), message, "swap the two")
    ids = [entry if isinstance(entry, str) else entry.id for entry in rule.ladder or ()]
    for position, rung in enumerate(ids):
        if rung in ids[:position] and isinstance((rule.ladder or ())[position], str):
            yield Finding((*path, "ladder", position), f"rung '{rung}' stands twice in this ladder", "remove one")
    if ids and policy.baseline is not None and policy.baseline not in ids:
        message = f"the baseline '{policy.baseline}' is not in this ladder; its top rung '{ids[-1]}' takes its place"
        yield Finding((*path, "ladder"), message, f"add '{policy.baseline}' if shadow mode must call it", "warning")


def _on_fail(part: OnFail, rule: Rule, path: Path) -> Iterator[Finding]:
    to = part.backtrack.to if part.backtrack else None
    if part.blame is not None and to is not None:
        yield Finding((*path, "blame"), "'backtrack.to' and 'blame' exclude each other", "remove one of them")
    elif part.blame is None and to is None:
        at = (*path, "backtrack") if part.backtrack else path
        yield Finding(at, "does not say what to go back to", "give 'backtrack: {to: NODE}', or 'blame: auto'")
    if to is not None and rule.match.node in (to, (to,)):
        hint = "name an earlier node; 'backtrack' of the rule says how a step is tried again"
        yield Finding((*path, "backtrack", "to"), f"'{to}' is the node of this rule itself", hint)


def _too_high(policy: Policy) -> Iterator[Finding]:
    """Whatever node a rewind goes back to, its ladder is one of the policy's."""
    ladders: list[Sized] = [policy.ladder, *(rule.ladder for rule in policy.steps if rule.ladder)]
    above = max(map(len, ladders)) - 1
    for at, rule in enumerate(policy.steps):
        rewind = rule.on_fail.rewind if rule.on_fail else Rewind()
        if "rung" in rewind.model_fields_set and rewind.rung > above:
            message = f"no ladder has more than {above} rungs above its first: a rewind ends on the top rung"
            yield Finding(("steps", at, "on_fail", "backtrack", "rung"), message, f"write {above}", "warning")


def _shadowed_tools(policy: Policy) -> Iterator[Finding]:
    """A name whose calls an earlier glob takes all."""
    globs = list(policy.tools)
    for position, later in enumerate(globs):
        for earlier in globs[:position]:
            if earlier == "*" or (not set("*?[") & set(later) and fnmatchcase(later, earlier)):
                message = f"is never used: '{earlier}' stands before it and matches first"
                yield Finding(("tools", later), message, "move it up", "warning")
                break


def _unreachable(policy: Policy) -> Iterator[Finding]:
    for position, rule in enumerate(policy.steps[:-1]):
        if not rule.match.model_dump(exclude_defaults=True):
            message = f"matches every step, so that steps[{position + 1}] and later are never used"
            yield Finding(("steps", position), message, "move it to the end", "warning")
            return


def _learning(policy: Policy) -> Iterator[Finding]:
    """What is set for a certificate without one, and what a certificate can't speak of."""
    parts: list[Policy | Rule] = [policy, *policy.steps]
    if policy.certificate is None:
        if "safe_dial" in policy.model_fields_set:
            yield Finding(("safe_dial",), "is used only beside a certificate", "add 'certificate: FILE'", "warning")
        if policy.audit and not policy.online:
            message = "labels teach nothing: there is neither a certificate nor 'online: true'"
            yield Finding(("audit",), message, "add one of them", "warning")
        return
    if policy.online:
        message = "the certificate speaks of forecasts that stand still: with recalibration only audits hold the risk"
        yield Finding(("online",), message, "remove it, or label what 'audit' draws", "warning")
    if policy.calibration is None and any(part.keep is not None for part in parts):
        message = "a certificate speaks of dials, and without a calibration none is known for 'keep': safe_dial is used"
        yield Finding(("certificate",), message, "give a calibration, or a dial", "warning")
