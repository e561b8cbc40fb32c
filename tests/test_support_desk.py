"""The example of a support desk, its models scripted: where its tickets go, and what is redone for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from examples.support_desk.app import FOLDER, build_graph, handle
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.testing import ScriptedBackend

DOUBLE = {"id": "T-1", "text": "You charged my card twice, please refund it."}
CRASH = {"id": "T-2", "text": "Error 504 since the update."}


class Desk:
    """The desk with a model that sorts tickets by rung, and what it asked a person."""

    def __init__(self, categories: dict[str, str], **budget: Any) -> None:
        policy = load_policy(FOLDER / "policy.yaml")
        policy = policy.model_validate(
            {**policy.model_dump(exclude_unset=True), **({"budget": budget} if budget else {})}
        )
        self.backend = ScriptedBackend(
            lambda call: json.dumps({"category": categories[call.rung.id]}) if call.response_schema else "Thank you."
        )
        self.governor = Governor(policy, backend=self.backend, ledger=open_ledger("memory://"))
        self.asked: list[Any] = []
        self.graph = build_graph(self.governor)

    def take(self, ticket: dict[str, Any]) -> dict[str, Any]:
        def decide(asked: Any) -> str:
            self.asked.append(asked)
            return "approved"

        return handle(self.graph, ticket, decide)

    @property
    def sorted_on(self) -> list[str]:
        return [call.rung.id for call in self.backend.calls if call.response_schema]

    def branches(self, ticket: dict[str, Any]) -> set[str]:
        history = self.graph.get_state_history({"configurable": {"thread_id": ticket["id"]}})
        return {one.metadata["governor_branch"] for one in history if "governor_branch" in one.metadata}


def test_what_touches_money_waits_for_a_person_and_the_rest_is_sent() -> None:
    desk = Desk({"glance": "billing", "defined": "billing"})
    done = desk.take(DOUBLE)
    assert (done["decision"], done["category"]) == ("approved", "billing")
    assert [asked["ticket"] for asked in desk.asked] == ["T-1"]
    assert "refunded within five working days" in done["reply"]
    desk = Desk({"glance": "technical", "defined": "technical"})
    assert desk.take(CRASH)["decision"] == "sent"
    assert desk.asked == []


def test_a_wrong_class_is_noticed_at_the_check_and_mended_on_the_next_rung() -> None:
    desk = Desk({"glance": "account", "defined": "billing"})
    done = desk.take(DOUBLE)
    assert desk.sorted_on == ["glance", "defined"]
    assert (done["category"], done["decision"]) == ("billing", "approved")
    assert desk.branches(DOUBLE) == {"1: classify on rung 1, blamed by check"}
    booked = desk.governor.ledger.balance("session:desk-example/T-1").spent
    assert booked.calls == len(desk.backend.calls)


def test_what_no_rung_gets_right_goes_to_a_person_with_the_reason() -> None:
    desk = Desk({"glance": "account", "defined": "technical"})
    assert desk.take(DOUBLE)["decision"] == "to a person: nothing about this ticket is filed under technical"
    assert 1 <= len(desk.branches(DOUBLE)) <= 2
    assert desk.asked == []


def test_a_ticket_that_may_spend_nothing_more_goes_to_a_person() -> None:
    desk = Desk({"glance": "billing", "defined": "billing"}, session={"tokens": 10}, on_exhausted="refuse")
    assert desk.take(DOUBLE)["decision"].startswith("to a person: ")
    assert desk.backend.calls == []


@pytest.mark.parametrize("name", ["tickets.jsonl", "articles.jsonl"])
def test_its_files_hold_one_object_a_line(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert all({"id", "text"} <= set(json.loads(line)) for line in lines)
