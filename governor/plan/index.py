"""The planner: belief + situation -> the next attempt, or a stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from governor.estimate.chain import look_of
from governor.estimate.curves import Curves, Floats
from governor.estimate.latent import Grid, LatentBelief
from governor.plan.backtrack import Options, options, stands
from governor.plan.dial import Prices, price_at, price_keeping, price_keeping_about
from governor.plan.growing import prospect
from governor.plan.odds import Choice, Odds, choose
from governor.plan.prices import Unit, added_price, with_cache
from governor.plan.second import Hand, look, lookahead_repeats
from governor.protocols import Belief, Situation
from governor.records import Attempt, BacktrackMode, Forecast, Plan, Rung, Stop


@dataclass(frozen=True, slots=True)
class IndexPlanner:
    """Planner (governor.protocols) by the posterior verifier-aware index with two steps of lookahead.

    `z_k = (q s - L (1-q) f - lambda c) / A`: net value per acceptance. The first answer is always bought
    (an unanswered step helps nobody, whatever the dial); every further one has to be worth more than
    shipping or withholding what is held. Without a verifier (s = f = 1) that makes a one-shot router.
    `prices` says what dial and `keep` mean; None: the map set by hand.
    """

    prices: Prices | None = None

    def choose(self, belief: Belief, situation: Situation) -> Plan | Stop:
        forecasts = with_cache(belief.forecasts(situation), situation)
        over = _over(situation)
        if over:
            return Stop(reason=over, forecasts=forecasts)
        found = options(situation, forecasts)
        if not found.modes and not found.looks:
            return Stop(reason=_nothing_left(found, situation), forecasts=forecasts)
        if situation.terms.one_thought:
            return self._grown(belief, situation, forecasts, found)
        return self._weighed(belief, situation, forecasts, found)

    def _weighed(
        self, belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...], found: Options
    ) -> Plan | Stop:
        grid, unit = _grid(belief, situation, forecasts), Unit.of(forecasts, situation.terms.latency)
        odds, costs = _odds(grid, found.modes, unit.costs(forecasts), situation)
        price = self._price(belief, grid, odds, costs, situation, unit)
        price += added_price(situation.terms, situation.step.state, unit)
        hand, rungs = Hand.of(grid, situation), sorted(found.modes)
        arms: list[tuple[int, BacktrackMode]] = [*((at, found.modes[at]) for at in rungs), *found.looks]
        own = odds if len(rungs) == len(forecasts) else odds.take(rungs)
        looks = [look(at, mode, odds, grid, hand, situation, unit) for at, mode in found.looks]
        left = situation.terms.max_attempts - len(situation.attempts)
        choice = choose(own.beside(*looks), grid.weights, hand.correct, price, left)
        shown = _with_index(forecasts, arms, choice)
        best, mode = arms[choice.arm]
        if hand.held and not choice.pays:
            return Stop(reason=_why_stop(shown[best], choice, situation), forecasts=shown)
        if choice.arm >= len(rungs):
            why = _why_look(shown[best], mode, choice)
        else:
            why = _why(shown[best], mode, price, belief, first=not situation.attempts)
        return Plan(rung=situation.terms.ladder[best], mode=mode, reason=why, forecasts=shown)

    def _grown(
        self, belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...], found: Options
    ) -> Plan | Stop:
        """Budgets of one thought: begin with the least, then go on while that is worth more than the answer in hand."""
        look = look_of(belief, situation)
        at = min(found.modes)
        rung, mode = situation.terms.ladder[at], found.modes[at]
        if look is None:
            if situation.attempts or not hasattr(belief, "look"):
                return self._weighed(belief, situation, forecasts, found)
            return Plan(rung=rung, mode=mode, reason="the least budget of the thought", forecasts=forecasts)
        unit = Unit.of(forecasts, situation.terms.latency)
        price = self._thought_price(situation, unit) + added_price(situation.terms, situation.step.state, unit)
        worth = prospect(look, price, situation.terms.harm)
        said = f"worth {worth.go:.2f} against {worth.stop:.2f} for stopping"
        if not worth.pays:
            return Stop(reason=f"thinking on is not worth its price: {said}", forecasts=forecasts)
        return Plan(rung=rung, mode=mode, reason=f"thinking on is {said}", forecasts=forecasts)

    def _thought_price(self, situation: Situation, unit: Unit) -> float:
        if self.prices is not None:
            return self.prices.price(situation.terms, situation, unit.money)
        dial = situation.terms.dial
        return price_at(0.3 if dial is None else dial)

    def _price(self, belief: Belief, grid: Grid, odds: Odds, costs: Floats, situation: Situation, unit: Unit) -> float:
        if self.prices is not None:
            return self.prices.price(situation.terms, situation, unit.money)
        return _price(belief, grid, odds, costs, situation)


def _over(situation: Situation) -> str:
    """Why nothing may follow, whatever it would be worth; empty if something may."""
    terms, attempts = situation.terms, situation.attempts
    if not terms.ladder:
        return "the ladder has no rung"
    if attempts:
        verdict = attempts[-1].verdict
        if verdict is not None and verdict.decision == "accept":
            return f"accepted by {verdict.verifier or 'the verifier'}"
    if len(attempts) >= terms.max_attempts:
        return f"all {terms.max_attempts} attempts are used"
    if situation.seconds_left is not None and situation.seconds_left <= 0:
        return "the deadline has passed"
    return ""


def _nothing_left(found: Options, situation: Situation) -> str:
    if stands(situation) is not None:
        return _standing(situation)
    return f"no rung is left ({'; '.join(found.closed)})"


def _standing(situation: Situation) -> str:
    if situation.verified:
        return "the verifier is unsure, and the policy fails open: the answer stands"
    return "no verifier applies: the first answer stands"


def _grid(belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...]) -> Grid:
    """The joint belief if there is one; else each rung's own forecast, as if rungs failed independently."""
    joint: Callable[[Situation], Grid] | None = getattr(belief, "grid", None)
    if joint is not None:
        return joint(situation)
    success = np.array([[forecast.p_success] for forecast in forecasts])
    one = np.ones(1)
    return Grid(one, one, success, success)


def _odds(grid: Grid, modes: dict[int, BacktrackMode], costs: Floats, situation: Situation) -> tuple[Odds, Floats]:
    terms = situation.terms
    success = grid.success
    going_on = [at for at, mode in modes.items() if mode == "continue"]
    if going_on:
        success, costs = success.copy(), costs.copy()
        for at in going_on:  # the thought is there already: what is left is the answer, at the answer's price
            success[at] = grid.answer[at]
            costs[at] *= _share_of_continuation(terms.ladder[at], situation.attempts[-1])
    repeat = lookahead_repeats(grid, situation, [at for at in modes if at not in going_on])
    seen, passed = grid.looks or (situation.sensitivity, situation.false_accept)
    return Odds.of(success, costs, seen, passed, terms.harm, repeat), costs


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
        most = terms.max_attempts
        return price_keeping_about(terms.keep, known, costs, grid.prior, seen, terms.harm, most, odds.repeat)
    return price_keeping(terms.keep, odds, grid.weights, terms.max_attempts)


def _with_index(
    forecasts: tuple[Forecast, ...], arms: Sequence[tuple[int, BacktrackMode]], choice: Choice
) -> tuple[Forecast, ...]:
    """The forecasts with the index of each rung's best arm."""
    indices: dict[int, float] = {}
    for (at, _), index in zip(arms, choice.index.tolist(), strict=True):
        indices[at] = max(index, indices.get(at, index))
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


def _why_look(chosen: Forecast, mode: BacktrackMode, choice: Choice) -> str:
    return f"{chosen.rung} by '{mode}' {_LOOKS[mode]}: worth {choice.worth:.2f} against {choice.stop:.2f} for stopping"


def _why_stop(best: Forecast, choice: Choice, situation: Situation) -> str:
    standing = f"{_standing(situation)}; " if stands(situation) is not None else ""
    if math.isinf(choice.worth):
        return f"{standing}at dial 1 no second attempt is worth its price"
    odds = f"{best.rung} has P(correct) {best.p_success:.2f} for {_cost(best)}"
    return (
        f"{standing}nothing more is worth its price: {odds}, "
        f"worth {choice.worth:.2f} against {choice.stop:.2f} for stopping"
    )


_LOOKS = {
    "again": "draws a second sample",
    "agree": "draws a second sample to compare with the first",
    "verify": "has the answer judged once more",
}
