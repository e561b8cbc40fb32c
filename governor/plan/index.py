"""The planner: belief + situation -> the next attempt, or a stop."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from governor.estimate.curves import Curves, Floats
from governor.estimate.latent import Grid, LatentBelief, rates
from governor.plan.backtrack import options
from governor.plan.dial import price_at, price_keeping, price_keeping_about, relative_costs
from governor.plan.odds import Choice, Odds, choose
from governor.protocols import Belief, Situation
from governor.records import Attempt, BacktrackMode, Forecast, Plan, Rung, Stop


class IndexPlanner:
    """Planner (governor.protocols) by the posterior verifier-aware index with two steps of lookahead.

    `z_k = (q s - L (1-q) f - lambda c) / A`: net value per acceptance. The first answer is always bought
    (an unanswered step helps nobody, whatever the dial); every further one has to be worth more than
    shipping or withholding what is held. Without a verifier (s = f = 1) that makes a one-shot router.
    """

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        forecasts = belief.forecasts(situation)
        over = _over(situation)
        if over:
            return Stop(reason=over, forecasts=forecasts)
        found = options(situation, forecasts)
        if not found.modes:
            return Stop(reason=f"no rung is left ({'; '.join(found.closed)})", forecasts=forecasts)
        arms = sorted(found.modes)
        grid = _grid(belief, situation, forecasts)
        odds, costs = _odds(grid, found.modes, forecasts, situation)
        price = _price(belief, grid, odds, costs, situation)
        answers = _held_answers(grid, situation)
        open_odds = odds if len(arms) == len(forecasts) else odds.take(arms)
        left = situation.terms.max_attempts - len(situation.attempts)
        choice = choose(open_odds, grid.weights, answers, price, left)
        shown = _with_index(forecasts, arms, choice)
        best = arms[choice.arm]
        if len(answers) and not choice.pays:
            return Stop(reason=_why_stop(shown[best], choice), forecasts=shown)
        mode = found.modes[best]
        return Plan(
            rung=situation.terms.ladder[best],
            mode=mode,
            reason=_why(shown[best], mode, price, belief, first=not situation.attempts),
            forecasts=shown,
        )


def _over(situation: Situation) -> str:
    """Why nothing may follow, whatever it would be worth; empty if something may."""
    terms, attempts = situation.terms, situation.attempts
    if not terms.ladder:
        return "the ladder has no rung"
    if attempts:
        verdict = attempts[-1].verdict
        if verdict is not None and verdict.decision == "accept":
            return f"accepted by {verdict.verifier or 'the verifier'}"
        if _unverified(situation) and attempts[-1].failure == "":
            return "no verifier applies: the first answer stands"
    if len(attempts) >= terms.max_attempts:
        return f"all {terms.max_attempts} attempts are used"
    if situation.seconds_left is not None and situation.seconds_left <= 0:
        return "the deadline has passed"
    return ""


def _unverified(situation: Situation) -> bool:
    return situation.sensitivity >= 1.0 and situation.false_accept >= 1.0


def _grid(belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...]) -> Grid:
    """The joint belief if there is one; else each rung's own forecast, as if rungs failed independently."""
    joint: Callable[[Situation], Grid] | None = getattr(belief, "grid", None)
    if joint is not None:
        return joint(situation)
    success = np.array([[forecast.p_success] for forecast in forecasts])
    one = np.ones(1)
    return Grid(one, one, success, success)


def _odds(
    grid: Grid, modes: dict[int, BacktrackMode], forecasts: tuple[Forecast, ...], situation: Situation
) -> tuple[Odds, Floats]:
    terms = situation.terms
    success, costs = grid.success, relative_costs(forecasts)
    going_on = [at for at, mode in modes.items() if mode == "continue"]
    if going_on:
        success, costs = success.copy(), costs.copy()
        for at in going_on:  # the thought is there already: what is left is the answer, at the answer's price
            success[at] = grid.answer[at]
            costs[at] *= _share_of_continuation(terms.ladder[at], situation.attempts[-1])
    return Odds.of(success, costs, situation.sensitivity, situation.false_accept, terms.harm), costs


def _share_of_continuation(rung: Rung, last: Attempt) -> float:
    """Cost of going on, as a share of a whole new call: the cut reply is read again, only the answer is written."""
    written = max(last.usage.output_tokens, 1)
    asked = max(last.usage.input_tokens, 1)
    anew = asked * rung.price.input + rung.max_tokens * rung.price.output
    going_on = (asked + written) * rung.price.input + rung.answer_tokens * rung.price.output
    return min(going_on / anew, 1.0) if anew > 0 else rung.answer_tokens / max(rung.max_tokens, 1)


def _price(belief: Belief, grid: Grid, odds: Odds, costs: Floats, situation: Situation) -> float:
    terms = situation.terms
    if terms.keep is None:
        return price_at(0.3 if terms.dial is None else terms.dial)
    seen = (situation.sensitivity, situation.false_accept)
    known: Curves | None = belief.curves if isinstance(belief, LatentBelief) else None
    if known is not None and known.ladder == terms.ladder:
        # From the belief before any verdict: a rejection must not change what a unit of cost is worth.
        return price_keeping_about(terms.keep, known, costs, grid.prior, seen, terms.harm, terms.max_attempts)
    return price_keeping(terms.keep, odds, grid.weights, terms.max_attempts)


def _held_answers(grid: Grid, situation: Situation) -> Floats:
    """P(correct | difficulty) of every answer in hand: of a rejected one what the verifier's misses leave."""
    ids = [rung.id for rung in situation.terms.ladder]
    rows: list[Floats] = []
    for attempt in (one for one in situation.attempts if one.shippable):
        if attempt.rung.id not in ids:
            continue
        correct = grid.answer[ids.index(attempt.rung.id)]
        if attempt.verdict is not None and attempt.verdict.decision == "reject":
            seen, passed = rates(situation)
            kept = correct * (1.0 - seen)
            reject = kept + (1.0 - correct) * (1.0 - passed)
            correct = np.divide(kept, reject, out=np.zeros_like(kept), where=reject > 0)
        rows.append(correct)
    return np.array(rows) if rows else np.empty((0, grid.weights.size))


def _with_index(forecasts: tuple[Forecast, ...], arms: list[int], choice: Choice) -> tuple[Forecast, ...]:
    indices = dict(zip(arms, choice.index.tolist(), strict=True))
    return tuple(
        Forecast(
            rung=old.rung,
            p_success=old.p_success,
            p_accept=old.p_accept,
            output_tokens=old.output_tokens,
            micros=old.micros,
            seconds=old.seconds,
            index=indices.get(at, 0.0),
        )
        for at, old in enumerate(forecasts)
    )


def _cost(forecast: Forecast) -> str:
    if forecast.micros >= 0.5:
        return f"about {forecast.micros:,.0f} micro-USD"
    return f"about {forecast.output_tokens:,.0f} tokens"


def _why(chosen: Forecast, mode: BacktrackMode, price: float, belief: Belief, *, first: bool) -> str:
    odds = f"P(correct) {chosen.p_success:.2f} for {_cost(chosen)}"
    because = f"difficulty {belief.difficulty:.2f}"
    if first and belief.reasons:
        because += f" ({belief.reasons[0]})"
    if math.isinf(price):
        return f"{chosen.rung} is the cheapest admissible rung: {odds} at {because}"
    how = "" if first else f" by '{mode}'"
    return f"{chosen.rung}{how} has the best worth, index {chosen.index:.2f}: {odds} at {because}"


def _why_stop(best: Forecast, choice: Choice) -> str:
    if math.isinf(choice.worth):
        return "at dial 1 no second attempt is worth its price"
    return (
        f"nothing more is worth its price: {best.rung} has P(correct) {best.p_success:.2f} for {_cost(best)}, "
        f"worth {choice.worth:.2f} against {choice.stop:.2f} for stopping"
    )
