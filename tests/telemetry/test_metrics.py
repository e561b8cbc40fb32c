"""What OpenTelemetry is told of budgets, read with the SDK's own reader."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from governor import Governor
from governor.drivers import adrive, drive
from governor.effects import Extend, Process, Refund, Reserve, Settle
from governor.errors import BudgetExceededError, LedgerUnavailableError
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.protocols import Balance, Ledger, Reservation
from governor.records import Amount, Limit
from governor.telemetry.metrics import OtelMeter
from governor.testing import FrozenClock, ScriptedBackend

LADDER = [{"id": "low", "model": "m/s", "answer_tokens": 100, "price": {"input": 1, "output": 2}}]
LIMITS = (Limit("app:desk@2026-11-21", micros=1_000_000), Limit("session:desk/9", tokens=100))
Point = tuple[str, str, str, str]


class Metrics:
    """A provider and what it has been told: {(name, scope kind, dimension, refusal): value}."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def read(self) -> dict[Point, float]:
        data = self._reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        self.units = {metric.name: metric.unit for metric in metrics}
        points = [(metric.name, one) for metric in metrics for one in metric.data.data_points]
        return {_point(name, one.attributes): one.value for name, one in points if isinstance(one, NumberDataPoint)}

    def of(self, name: str) -> dict[tuple[str, str, str], float]:
        return {(kind, of, refusal): value for (told, kind, of, refusal), value in self.read().items() if told == name}


def _point(name: str, told: Any) -> Point:
    assert told.get("governor.app") == "desk"
    kind, of = told["governor.scope.kind"], told.get("governor.dimension", "")
    return name, kind, of, told.get("governor.refusal.kind", "")


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    made.provider.shutdown()


def governed(metrics: Metrics, ledger: Ledger, script: Any, **budget: Any) -> Governor:
    rules = policy_from({"version": 1, "app": "desk", "ladder": LADDER, "budget": budget})
    return Governor(rules, backend=ScriptedBackend(script), ledger=ledger, meter=OtelMeter("desk", metrics.provider))


async def test_a_run_is_counted_in_every_unit_for_each_kind_of_scope(metrics: Metrics) -> None:
    budget = {"session": {"tokens": 100_000}, "app": {"usd": 1, "per": "day"}}
    with governed(metrics, open_ledger("memory://"), ["two words", "three more words"], **budget) as governor:
        one, two = governor.run("Hello there", session="s"), await governor.arun("Hello there", session="s")
        found = metrics.read()
    spent = one.spent + two.spent
    for kind in ("session", "app"):
        assert found["governor.budget.spent.tokens", kind, "tokens", ""] == spent.tokens
        assert found["governor.budget.spent.input_tokens", kind, "input", ""] == spent.input
        assert found["governor.budget.spent.answer_tokens", kind, "answer", ""] == spent.answer == 5
        assert found["governor.budget.spent.calls", kind, "calls", ""] == 2
        assert found["governor.budget.spent.usd", kind, "micros", ""] == pytest.approx(spent.micros / 1e6, abs=1e-12)
        assert found["governor.budget.reserved.tokens", kind, "tokens", ""] == 0
        assert found["governor.budget.overshoot.tokens", kind, "tokens", ""] == 0
    assert found["governor.budget.expired_leases", "app", "", ""] == 0
    units = {"tokens": "{token}", "usd": "{USD}", "time": "s", "calls": "{call}", "input_tokens": "{token}"}
    assert {name: metrics.units[f"governor.budget.reserved.{name}"] for name in units} == units


def test_refusals_are_counted_by_kind_scope_and_dimension(metrics: Metrics) -> None:
    with governed(metrics, open_ledger("memory://"), [], session={"tokens": 3}, app={"calls": 9, "per": "day"}) as g:
        assert g.run("Hello there", session="s").status == "refused"
    assert metrics.of("governor.budget.refused") == {("session", "tokens", "too_large"): 1}


def performed(metrics: Metrics, ledger: Ledger, *effects: Any) -> list[Any]:
    """Each effect, or the error that it met, performed by a governor's own ports."""

    def process() -> Process[list[Any]]:
        answers: list[Any] = []
        for effect in effects:
            try:
                answers.append((yield effect))
            except (BudgetExceededError, LedgerUnavailableError) as fault:
                answers.append(fault)
        return answers

    with governed(metrics, ledger, []) as governor:
        return drive(process(), governor.ports().perform)


def test_what_is_held_is_counted_until_it_is_closed(metrics: Metrics) -> None:
    ledger = open_ledger("memory://")
    ten, five = Amount(tokens=10, micros=2_000_000 // 4), Amount(tokens=5)
    performed(metrics, ledger, Reserve("a", ten, LIMITS), Extend("a", five), Reserve("b", five, LIMITS))
    assert metrics.of("governor.budget.reserved.tokens") == {(kind, "tokens", ""): 20 for kind in ("app", "session")}
    assert metrics.of("governor.budget.reserved.usd")["app", "micros", ""] == 0.5


def test_closing_frees_and_a_second_closing_counts_nothing(metrics: Metrics) -> None:
    ledger, ten = open_ledger("memory://"), Amount(tokens=10)
    closing = (Settle("a", Amount(tokens=7)), Settle("a", Amount(tokens=7)), Refund("b"), Refund("b"))
    performed(metrics, ledger, Reserve("a", ten, LIMITS), Reserve("b", ten, LIMITS), *closing)
    assert metrics.of("governor.budget.reserved.tokens")["app", "tokens", ""] == 0
    assert metrics.of("governor.budget.spent.tokens")["app", "tokens", ""] == 7
    assert metrics.of("governor.budget.overshoot.tokens")["app", "tokens", ""] == 0


def test_a_settlement_beyond_its_hold_is_overshoot(metrics: Metrics) -> None:
    ledger = open_ledger("memory://")
    performed(metrics, ledger, Reserve("a", Amount(tokens=10), LIMITS), Settle("a", Amount(tokens=13, calls=1)))
    assert metrics.of("governor.budget.overshoot.tokens")["session", "tokens", ""] == 3
    assert metrics.of("governor.budget.overshoot.calls")["session", "calls", ""] == 1
    assert ledger.balance("session:desk/9").overshoot == Amount(tokens=3, calls=1)


def test_a_step_that_nothing_limits_is_counted_too(metrics: Metrics) -> None:
    with governed(metrics, open_ledger("memory://"), ["two words"]) as governor:
        outcome = governor.run("Hello")
    assert metrics.of("governor.budget.spent.tokens") == {("none", "tokens", ""): outcome.spent.tokens}


class Broken:
    """A ledger that fails to settle."""

    def __init__(self) -> None:
        inner = open_ledger("memory://")
        self.reserve, self.extend, self.refund = inner.reserve, inner.extend, inner.refund
        self.reservation, self.balance, self.close = inner.reservation, inner.balance, inner.close

    def settle(self, key: str, spent: Amount) -> Reservation:
        raise LedgerUnavailableError("the disk is full")


def test_a_hold_that_could_not_be_settled_is_no_longer_this_process_s(metrics: Metrics) -> None:
    answers = performed(metrics, Broken(), Reserve("a", Amount(tokens=10), LIMITS), Settle("a", Amount(tokens=7)))
    assert isinstance(answers[-1], LedgerUnavailableError)
    assert metrics.of("governor.budget.reserved.tokens")["app", "tokens", ""] == 0
    assert metrics.of("governor.budget.spent.tokens")["app", "tokens", ""] == 0


def test_expired_leases_are_read_from_the_store_of_this_application_alone(metrics: Metrics) -> None:
    clock = FrozenClock()
    ledger = open_ledger("memory://", clock=clock, ttl=60)
    for number, scope in enumerate(("app:desk@2026-11-21", "app:desk@2026-11-21", "app:desk2", "session:desk/1")):
        ledger.reserve(f"k{number}", Amount(calls=1), [Limit(scope)])
    clock.advance(61)
    with governed(metrics, ledger, []) as governor:
        governor.ports()
        assert metrics.of("governor.budget.expired_leases") == {("app", "", ""): 2}
    assert metrics.of("governor.budget.expired_leases") == {}, "a closed governor asks its ledger no more"


class Awaiting:
    """A ledger whose operations are awaited, over one that is not."""

    def __init__(self) -> None:
        self.inner = open_ledger("memory://")

    async def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], *, sent: bool = True) -> Reservation:
        return self.inner.reserve(key, amount, limits, sent=sent)

    async def settle(self, key: str, spent: Amount) -> Reservation:
        return self.inner.settle(key, spent)

    async def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        raise AssertionError("a callback can't await")

    async def reservations(self, prefix: str = "") -> tuple[Reservation, ...]:
        raise AssertionError("a callback can't await")

    async def reset(self, scope: str, spent: Amount = Amount()) -> Balance:
        raise AssertionError("a callback can't await")

    def close(self) -> None:
        self.inner.close()


async def test_a_ledger_that_is_awaited_is_counted_alike(metrics: Metrics) -> None:
    def process() -> Process[str]:
        yield Reserve("a", Amount(tokens=10), LIMITS)
        yield Settle("a", Amount(tokens=9))
        try:
            yield Reserve("b", Amount(tokens=92), LIMITS)
        except BudgetExceededError as refusal:
            return refusal.kind
        return "admitted"

    ledger: Any = Awaiting()
    with governed(metrics, ledger, []) as governor:
        assert await adrive(process(), governor.async_ports().perform) == "budget_exceeded"
        found = metrics.read()
    assert found["governor.budget.spent.tokens", "session", "tokens", ""] == 9
    assert found["governor.budget.refused", "session", "tokens", "budget_exceeded"] == 1


def test_two_governors_share_their_instruments(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    ledger = open_ledger("memory://")
    for _ in range(2):
        with governed(metrics, ledger, ["one"], app={"calls": 9, "per": "total"}) as governor:
            governor.run("Hello")
    assert metrics.of("governor.budget.spent.calls") == {("app", "calls", ""): 2}
    assert caplog.text == ""


def test_nothing_of_it_needs_the_sdk() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from governor.telemetry import metrics\n"
        "print('opentelemetry' in sys.modules)\n"
        "from governor.effects import Reserve; from governor.protocols import Reservation\n"
        "from governor.records import Amount\n"
        "held = Reservation(key='k', amount=Amount(1), state='open')\n"
        "metrics.OtelMeter('a').booked(Reserve('k', Amount(1), ()), held)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")
