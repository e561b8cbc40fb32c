"""The judge of benchmarks.proxy_load: what must hold of a run, from its evidence alone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import get_args

from benchmarks.ledger_report import Claim
from benchmarks.proxy_load_evidence import Evidence
from benchmarks.proxy_load_memory import MOST_SHARE, grown, judgeable
from benchmarks.proxy_load_servers import BARE, GOVERNED, MORE, TTL
from benchmarks.proxy_load_traffic import Answer
from benchmarks.proxy_load_upstream import Fault
from governor.ledger.sums import DIMENSIONS
from governor.protocols import Balance
from governor.records import Limit
from governor.telemetry.audit import audited

OUTAGE_MARGIN = 2.0
"""Seconds around an outage in which a proxy may still find, or just have found, that Redis is gone."""
LEAST_LOADED = 0.5
"""Share of the rewritings of a policy that must have served a step: some come between two looks or two steps."""
LEAST_OFFERED = 0.95
"""Share of the intended requests a second that the clients must have brought."""
_OWN_FRAME = re.compile(r'File "[^"]*/governor(_litellm)?/[^"]*", line')
_FRAME = re.compile(r'^\s+File "')
_TOLD = re.compile(r"governor failed|it was settled$|could not be read|did not call async_|could not be looked at")
_REFUSAL = "ProxyException: governor: "


class Judge:
    """Reads evidence; every figure is worked out once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @cached_property
    def answers(self) -> Sequence[Answer]:
        """Those of the governed proxies to clients that waited for them."""
        return [one for one in self.evidence.load.answers if one.proxy != BARE and not one.left]

    @cached_property
    def left(self) -> int:
        """Clients of governed proxies that went away."""
        return sum(one.left and one.proxy != BARE for one in self.evidence.load.answers)

    @cached_property
    def uncaused(self) -> Sequence[Answer]:
        """Answers that are no whole 200 and have no cause outside of the hook."""
        return [one for one in self.answers if not (one.status == HTTPStatus.OK and one.whole) and not self.cause(one)]

    def cause(self, answer: Answer) -> str:
        """Why a client got no whole answer; empty where only the hook can be to blame."""
        served = self.evidence.served.get(answer.ask.number)
        faults = served.faults if served else []
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:  # a 429 or a timeout of the upstream's is none
            return next((one for one in faults if one in ("500", "cut")), "")
        if faults:
            return faults[-1]
        if "governor: " not in answer.said:
            return ""
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and self._in_outage(answer.began, answer.seconds):
            return "redis"
        refusals = (HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.TOO_MANY_REQUESTS)
        return "budget" if answer.status in refusals and answer.ask.app in MORE else ""

    @cached_property
    def overspent(self) -> Sequence[str]:
        """Scopes that hold more than the lowest limit that any reservation named, or spent past a hold."""
        spent = {balance.scope: balance for balance in self.evidence.balances}
        limits = {(limit.scope, limit) for one in self.evidence.reservations for limit in one.limits}
        return sorted({scope for scope, limit in limits if scope in spent and _over(spent[scope], limit)})

    @cached_property
    def unsettled(self) -> Sequence[str]:
        """Reservations that were left to their lease, which books the bound: that Redis was gone is no excuse."""
        return [one.key for one in self.evidence.reservations if one.state in ("open", "expired")]

    @cached_property
    def underbooked(self) -> Sequence[str]:
        """Requests for which less is booked than the upstream served; those that left no record are one sum."""
        booked = {one.key: one.amount.tokens for one in self.evidence.reservations if one.state != "refunded"}
        steps: defaultdict[str, set[str]] = defaultdict(set)
        for record in self.evidence.records:
            number = record.get("run", "").rpartition("/")[2]  # a run is its tenant's own
            steps[number].add(record["step_id"])
        governed = {one.ask.number for one in self.evidence.load.answers if one.proxy != BARE}
        found: list[str] = []
        unknown = 0
        for number in governed & self.evidence.served.keys():
            served = self.evidence.served[number]
            if number not in steps:
                unknown += served.tokens
            elif served.tokens > sum(booked.get(step, 0) for step in steps[number]):
                found.append(number)
        recorded = set().union(*steps.values())
        if unknown > sum(tokens for key, tokens in booked.items() if key not in recorded):
            found.append("without a record")
        return found

    @cached_property
    def blunders(self) -> Sequence[str]:
        """What the proxies' logs say of defects of the hook: tracebacks that end in its code, and its own words."""
        return [line for text in self.evidence.logs.values() for line in blunders(text)]

    @cached_property
    def loaded(self) -> int:
        """How many states of the policy that was reloaded the least often have served."""
        served: defaultdict[str, set[str]] = defaultdict(set)
        for record in self.evidence.records:
            served[record["app"]].add(record["policy"])
        return min(len(served[app]) for app in MORE)

    @cached_property
    def missing(self) -> Sequence[str]:
        """What should have befallen the proxies and did not."""
        causes = Counter(map(self.cause, self.answers))
        faults = {fault for one in self.evidence.served.values() for fault in one.faults}
        climbed = any(record["kind"] == "outcome" and record["attempts"] > 1 for record in self.evidence.records)
        befell = {fault: fault in faults for fault in get_args(Fault)} | {
            "a full budget": causes["budget"] > 0,
            "a restart of Redis": bool(self.evidence.load.outages),
            "a request while Redis was gone": causes["redis"] > 0,
            "a client that left": self.left > 0,
            "an invalid policy": self.evidence.invalid > 0,
            "a second attempt": climbed,
        }
        return [name for name, here in befell.items() if not here]

    def _in_outage(self, began: float, seconds: float = 0.0) -> bool:
        return any(
            start - OUTAGE_MARGIN <= began + seconds and began <= end + OUTAGE_MARGIN
            for start, end in self.evidence.load.outages
        )


def judged(evidence: Evidence, now: float) -> tuple[Claim, ...]:
    """Every promise; `now` in seconds since the epoch is when the evidence was taken."""
    judge = Judge(evidence)
    fives = [one for one in judge.uncaused if one.status >= HTTPStatus.INTERNAL_SERVER_ERROR]
    found = audited(evidence.records, evidence.balances, evidence.reservations, now + TTL, cancelled=True)
    apart = [row.scope for row in found.rows if not row.agrees]
    told = evidence.load
    offered = len(told.answers) / max(told.seconds * told.rate, 1e-9)
    return (
        _none("proxies that died", [f"{name}: exit status {code}" for name, code in evidence.died.items()]),
        _none("5xx caused by the hook", [f"{one.ask.number}: {one.status}" for one in fives]),
        _none(
            "other answers without a cause",
            [f"{one.ask.number}: {one.status}" for one in judge.uncaused if one not in fives],
        ),
        _none("scopes that passed a limit", judge.overspent),
        _none("scopes where ledger and records differ", apart),
        _none("records that do not match the ledger", [one.key for one in found.unmatched]),
        Claim(text="the ledger was proved", measured="yes" if found.agrees else "no", target="yes", met=found.agrees),
        _none("settlements lost", judge.unsettled),
        _at_most("settled without a record: clients that left", len(found.unrecorded), judge.left),
        _none("requests booked below what was served", judge.underbooked),
        _none("flights left open", [name for name, number in evidence.flights.items() for _ in range(number)]),
        _none("defects in the proxies' logs", judge.blunders),
        _least("reloads that served", judge.loaded, LEAST_LOADED * (evidence.rewritten - evidence.invalid)),
        _none("what never befell the proxies", judge.missing),
        Claim(
            text="requests brought, of those intended",
            measured=f"{offered:.2f}",
            target=f">= {LEAST_OFFERED}",
            met=offered >= LEAST_OFFERED,
            machine=True,
        ),
        *_memory(evidence),
    )


def blunders(log: str) -> Iterator[str]:
    """Lines of a proxy's log that tell of a defect of the hook."""
    lines = log.splitlines()
    last = ""
    for line in lines:
        if _TOLD.search(line):
            yield line
        if _FRAME.match(line):
            last = line
        elif last and line and not line[0].isspace():  # the error that the traceback ends with
            if _OWN_FRAME.search(last) and _REFUSAL not in line:
                yield f"{line} <- {last.strip()}"
            last = ""


def _memory(evidence: Evidence) -> Iterator[Claim]:
    samples = evidence.load.memory
    if not judgeable(samples):
        return
    for name in GOVERNED:
        own, beyond = grown(samples, name), grown(samples, name, BARE)
        yield Claim(
            text=f"memory in the second half beyond the bare proxy's, {name}",
            measured=beyond.told,
            target=f"<= {MOST_SHARE * own.mean:.1f} MiB",
            met=own.flat(beyond),
        )


def _over(balance: Balance, limit: Limit) -> bool:
    """What has no limit may pass its hold: a call's time, by the moment in which it is ended."""
    named = [name for name in DIMENSIONS if getattr(limit, name) is not None]
    return any(
        getattr(balance.spent, name) > getattr(limit, name) or getattr(balance.overshoot, name) for name in named
    )


def _none(text: str, found: Sequence[str]) -> Claim:
    shown = f"{len(found)}: {', '.join(found[:3])}" if found else "0"
    return Claim(text=text, measured=shown, target="0", met=not found)


def _at_most(text: str, measured: float, most: float) -> Claim:
    return Claim(text=text, measured=f"{measured:g}", target=f"<= {most:g}", met=measured <= most)


def _least(text: str, measured: float, least: float) -> Claim:
    return Claim(text=text, measured=f"{measured:g}", target=f">= {least:g}", met=measured >= least)
