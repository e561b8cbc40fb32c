"""The random histories of `ledger_machine` over every store that needs no server."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from tests.contracts.ledger_machine import LedgerMachine


class SqliteMachine(LedgerMachine):
    uri = "sqlite:///{}/ledger.db"

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open_again()
        self.last = None


TestMemoryMachine = LedgerMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
