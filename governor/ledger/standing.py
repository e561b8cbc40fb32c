"""Where a scope stands: what is left of its limits, how fast it is spent, and when it runs out at that pace.

Pure: balances and reservations come from an Auditable ledger, limits from them or from a policy, the time from whoever
asks. Figures are in the ledger's units, in the order of `sums.DIMENSIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from governor.ledger.sums import DIMENSIONS, Figures, ceilings, figures
from governor.policy.period import period_of
from governor.protocols import Balance, Reservation
from governor.records import Limit

UNITS = {
    "tokens": ("tokens", 1),
    "micros": ("usd", 1_000_000),
    "millis": ("seconds", 1_000),
    "calls": ("calls", 1),
    "input": ("input_tokens", 1),
    "thinking": ("thinking_tokens", 1),
    "answer": ("answer_tokens", 1),
}
"""What each dimension is called in a policy, and how many of the ledger's units make one of the policy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A scope at the moment `now` (seconds since the epoch), under the tightest limits that are known of it.

    `begun` is since when spend has been counted; None where neither the scope's name nor its window says so.
    """

    balance: Balance
    ceilings: tuple[int | None, ...]
    begun: float | None
    now: float
    seen: tuple[float, Figures] | None = None
    """What was spent at an earlier reading, and when that was: the pace of a scope that `begun` says nothing of."""

    def left(self, place: int) -> int | None:
        """What may still be held; below zero where spend passed the limit, None without limit."""
        ceiling, balance = self.ceilings[place], self.balance
        if ceiling is None:
            return None
        return ceiling - figures(balance.spent)[place] - figures(balance.reserved)[place]

    def pace(self, place: int) -> float | None:
        """What is spent in an hour, as a mean over the window so far, or since `seen`; None without either."""
        since, before = self.begun, 0
        if since is None and self.seen is not None:
            since, before = self.seen[0], self.seen[1][place]
        if since is None or self.now <= since:
            return None
        return max(0, figures(self.balance.spent)[place] - before) / (self.now - since) * 3600

    def runs_out(self, place: int) -> float | None:
        """When nothing is left at this pace, in seconds since the epoch.

        None where there is no limit or no pace, or where the window ends first. A sliding window forgets what it
        spends at the pace at which it is spent: it runs out only where it has.
        """
        left, pace = self.left(place), self.pace(place)
        if left is None:
            return None
        if left <= 0:
            return self.now
        if not pace or self.balance.window.sliding is not None:
            return None
        end, until = self.now + left / pace * 3600, self.balance.window.until
        return end if until is None or end < until else None


def standings(
    balances: Iterable[Balance],
    reservations: Iterable[Reservation],
    limits_on: Callable[[str], Iterable[Limit]],
    now: float,
) -> tuple[Standing, ...]:
    """How every balance stands. Limits are those of open reservations and those that `limits_on` knows of a scope."""
    held: dict[str, dict[Limit, None]] = {}
    for reservation in reservations:
        if reservation.state == "open":
            for limit in reservation.limits:
                held.setdefault(limit.scope, {})[limit] = None
    return tuple(
        Standing(
            balance=balance,
            ceilings=_tightest([*held.get(balance.scope, ()), *limits_on(balance.scope)]),
            begun=_begun(balance, now),
            now=now,
        )
        for balance in balances
    )


def _tightest(limits: Sequence[Limit]) -> tuple[int | None, ...]:
    columns = zip(*map(ceilings, limits), strict=True) if limits else [()] * len(DIMENSIONS)
    return tuple(min((one for one in column if one is not None), default=None) for column in columns)


def _begun(balance: Balance, now: float) -> float | None:
    window = balance.window
    if window.sliding is not None:
        return now - window.sliding
    period = period_of(balance.scope) if window.until is not None else None
    return None if period is None else period[1]
