"""The planner: belief + situation -> the next attempt, or a stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from governor.estimate.agreement import Pairs, comparison, pairs_of
from governor.estimate.chain import look_of
from governor.estimate.curves import Curves, Floats
from governor.estimate.latent import Grid, LatentBelief
from governor.plan.backtrack import Options, compare_refused, look_refused, options, stands
from governor.plan.comparing import Course, Flags, Move, Prospects
from governor.plan.dial import DIAL, Prices, price_at, price_keeping, price_keeping_about
from governor.plan.growing import prospect
from governor.plan.odds import Choice, Odds, choose
from governor.plan.prices import Unit, added_price, with_cache
from governor.plan.second import Hand, compared_first, look, lookahead_repeats
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
        pairs = pairs_of(belief, situation)
        if pairs is None and (sure := self._sure(belief, situation, forecasts)) is not None:
            return sure
        found = options(situation, forecasts)
        if pairs is None:  # nothing is known of what comparing rungs would tell
            found = replace(found, looks=tuple(look for look in found.looks if look[1] != "compare"))
        if not found.modes and not found.looks:
            return Stop(reason=_nothing_left(found, situation), forecasts=forecasts)
        if situation.terms.one_thought:
            return self._grown(belief, situation, forecasts, found)
        if pairs is not None and (not situation.attempts or stands(situation) is not None):
            return self._compared(belief, pairs, situation, forecasts, found)
        return self._weighed(belief, situation, forecasts, found)

    def _sure(self, belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...]) -> Stop | None:
        """The usual end where nobody judges answers: the first one ships, a second sample being all that could follow.

        Says what `_weighed` would, without weighing what is not there. None where there is more to weigh, or it pays.
        """
        at = _alone(situation)
        if at is None:
            return None
        if look_refused(situation.terms.ladder[at], "agree", situation):
            return Stop(reason=_standing(situation), forecasts=forecasts)
        grid, unit = _grid(belief, situation, forecasts), Unit.of(forecasts, situation.terms.latency)
        price = self._price(belief, situation, forecasts, Options({}, ()), unit)
        arm = compared_first(at, float(unit.costs(forecasts)[at]), situation.terms.harm, grid)
        choice = choose(arm, grid.weights, grid.answer[at : at + 1], price, 1)
        return None if choice.pays else Stop(reason=_why_stop(forecasts[at], choice, situation), forecasts=forecasts)

    def _weighed(
        self, belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...], found: Options
    ) -> Plan | Stop:
        grid, unit = _grid(belief, situation, forecasts), Unit.of(forecasts, situation.terms.latency)
        odds, _ = _odds(grid, found.modes, unit.costs(forecasts), situation)
        price = self._price(belief, situation, forecasts, found, unit)
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
        price = self._price(belief, situation, forecasts, found, unit)
        worth = prospect(look, price, situation.terms.harm)
        said = f"worth {worth.go:.2f} against {worth.stop:.2f} for stopping"
        if not worth.pays:
            return Stop(reason=f"thinking on is not worth its price: {said}", forecasts=forecasts)
        return Plan(rung=rung, mode=mode, reason=f"thinking on is {said}", forecasts=forecasts)

    def _compared(
        self, belief: Belief, pairs: Pairs, situation: Situation, forecasts: tuple[Forecast, ...], found: Options
    ) -> Plan | Stop:
        """Nobody judges answers: one ships, or is compared with another, and that says whether to ask a third."""
        unit = Unit.of(forecasts, situation.terms.latency)
        price = self._price(belief, situation, forecasts, found, unit)
        prospects = _prospects(pairs, unit.costs(forecasts), np.array([price]), situation, found)
        if not situation.attempts:
            best = prospects.course(first=_open(found, len(forecasts))).first
            why = f"{forecasts[best].rung} is worth most: P(right) {pairs.p[best]:.2f} for {_cost(forecasts[best])}"
            return Plan(rung=situation.terms.ladder[best], mode=found.modes[best], reason=why, forecasts=forecasts)
        move = _next_move(prospects, situation)
        said = f"worth {move.worth:.2f} against {move.stop:.2f} for stopping"
        rung = situation.terms.ladder[move.rung]
        if not move.pays:
            return Stop(reason=f"{_standing(situation)}; nothing more is worth its price ({said})", forecasts=forecasts)
        asked = any(one.rung.id == rung.id for one in situation.attempts)
        mode: BacktrackMode = "agree" if asked else "compare"
        return Plan(rung=rung, mode=mode, reason=f"{rung.id} {_LOOKS[mode]}: {said}", forecasts=forecasts)

    def courses(self, belief: Belief, situation: Situation, prices: Floats) -> list[Course] | None:
        """What would be done at each of these prices (D,) where nobody judges answers; None where that is not known.

        `situation` is that before any call, and of its prices `terms` say nothing.
        """
        pairs = pairs_of(belief, situation)
        if pairs is None or situation.terms.one_thought:
            return None
        forecasts = with_cache(belief.forecasts(situation), situation)
        unit, found = Unit.of(forecasts, situation.terms.latency), options(situation, forecasts)
        added = added_price(situation.terms, situation.step.state, unit)
        prospects = _prospects(pairs, unit.costs(forecasts), prices + added, situation, found)
        may = _open(found, len(forecasts))
        return [prospects.course(at, may) for at in range(len(prices))]

    def _price(
        self, belief: Belief, situation: Situation, forecasts: tuple[Forecast, ...], found: Options, unit: Unit
    ) -> float:
        """Lambda of this step: by the map of prices, the dial, or what keeps the share asked for; and what is added."""
        terms = situation.terms
        added = added_price(terms, situation.step.state, unit)
        if self.prices is not None:
            return self.prices.price(terms, situation, unit.money) + added
        if terms.keep is None:
            return price_at(DIAL if terms.dial is None else terms.dial) + added
        grid = _grid(belief, situation, forecasts)
        odds, costs = _odds(grid, found.modes, unit.costs(forecasts), situation)
        return _price_keeping(terms.keep, belief, grid, odds, costs, situation) + added


def _alone(situation: Situation) -> int | None:
    """The rung whose answer stands, the only attempt so far, in a step that nobody judges; None where it is not so."""
    if len(situation.attempts) != 1 or situation.verified or situation.terms.one_thought or situation.redraws:
        return None
    if stands(situation) is None:
        return None
    asked = situation.attempts[0].rung.id
    return next((at for at, rung in enumerate(situation.terms.ladder) if rung.id == asked), None)


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


def _open(found: Options, rungs: int) -> Flags:
    """Which rungs may be asked now, (K,)."""
    return np.array([at in found.modes for at in range(rungs)])


def _prospects(pairs: Pairs, costs: Floats, prices: Floats, situation: Situation, found: Options) -> Prospects:
    """What comparing may come to from here: before any call, or with answers in hand."""
    terms, rungs = situation.terms, len(costs)
    if situation.attempts:
        others = np.array([(at, "compare") in found.looks for at in range(rungs)])
        same = np.array([(at, "agree") in found.looks for at in range(rungs)])
    else:
        others = np.array(
            [at in found.modes and not compare_refused(terms.ladder[at], situation) for at in range(rungs)]
        )
        again = "agree" in terms.modes and not terms.streamed
        same = np.array([again and at in found.modes and terms.ladder[at].temperature != 0 for at in range(rungs)])
    allowed = np.where(np.eye(rungs, dtype=np.bool_), same, others)
    in_hand = min(len(situation.attempts), 1 if comparison(situation.attempts) is None else 2)
    left = terms.max_attempts - len(situation.attempts) + in_hand
    return Prospects.of(pairs, costs, prices, terms.harm, allowed, others, left)


def _next_move(prospects: Prospects, situation: Situation) -> Move:
    """What to ask after the first answer, or after the first comparison; nothing after that."""
    ids = [rung.id for rung in situation.terms.ladder]
    found, standing = comparison(situation.attempts), stands(situation)
    assert standing is not None
    if found is None:
        return prospects.second(ids.index(standing.rung.id))
    move = prospects.after(ids.index(found.first), ids.index(found.second), equal=found.equal)
    answers = sum(one.shippable for one in situation.attempts)
    return move if answers <= 2 else Move(move.rung, -math.inf, move.stop)


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
    if grid.curves is not None and success is grid.success and grid.looks is None and repeat is None:
        rates = (situation.sensitivity, situation.false_accept)
        return _odds_of(grid.curves, *rates, terms.harm).costing(costs), costs
    seen, passed = grid.looks or (situation.sensitivity, situation.false_accept)
    return Odds.of(success, costs, seen, passed, terms.harm, repeat), costs


@lru_cache(maxsize=256)  # the same for every step of a ladder
def _odds_of(curves: Curves, sensitivity: float, false_accept: float, harm: float) -> Odds:
    return Odds.of(curves.success, np.zeros(len(curves.ladder)), sensitivity, false_accept, harm)


def _share_of_continuation(rung: Rung, last: Attempt) -> float:
    """Cost of going on, as a share of a whole new call: the cut reply is read again, only the answer is written."""
    written = max(last.usage.output_tokens, 1)
    asked = max(last.usage.input_tokens, 1)
    anew = asked * rung.price.input + rung.max_tokens * rung.price.output
    going_on = (asked + written) * rung.price.input + rung.answer_tokens * rung.price.output
    return min(going_on / anew, 1.0) if anew > 0 else rung.answer_tokens / max(rung.max_tokens, 1)


def _price_keeping(keep: float, belief: Belief, grid: Grid, odds: Odds, costs: Floats, situation: Situation) -> float:
    terms = situation.terms
    seen = (situation.sensitivity, situation.false_accept)
    known: Curves | None = belief.curves if isinstance(belief, LatentBelief) else None
    if known is not None and known.ladder == terms.ladder:
        # From the belief before any verdict: a rejection must not change what a unit of cost is worth.
        most = terms.max_attempts
        return price_keeping_about(keep, known, costs, grid.prior, seen, terms.harm, most, odds.repeat)
    return price_keeping(keep, odds, grid.weights, terms.max_attempts)


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
            spread=old.spread,
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
    "compare": "is asked as well, to compare answers",
    "verify": "has the answer judged once more",
}
