"""What a run is told before it starts of rungs whose server does not honour them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from governor import backends
from governor.checks import readiness
from governor.errors import PolicyError, Problem
from governor.policy import policy_from
from governor_vllm.link import Link
from tests.governor_vllm.calls import MODEL
from tests.governor_vllm.dialect import DialectServer

DIRECT: dict[str, Any] = {"id": "direct", "model": MODEL}
THINK = {**DIRECT, "id": "think", "thinking_tokens": 500}
LONGER = {**DIRECT, "id": "longer", "thinking_tokens": 900}
EAGER = {**DIRECT, "id": "eager", "effort": "high"}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("vllm", "governor_vllm.backend:VllmBackend", backends._GROUP)
    monkeypatch.setattr(backends, "_installed", lambda: {"vllm": entry})


def told(address: str, *ladder: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    """Where something is told, and what."""
    problems: tuple[Problem, ...] = ()
    try:
        policy_from(
            {"version": 1, "ladder": list(ladder), "models": {MODEL: {"api_base": address}}, **more},
            checks=[readiness],
        )
    except PolicyError as refused:
        problems = refused.problems
    return [(problem.field, problem.message) for problem in problems]


def test_every_rung_of_a_model_is_held_against_its_server(server: DialectServer) -> None:
    server.now(budget="ignored")
    (budget, effort) = told(server.url, DIRECT, THINK, EAGER)
    assert budget[0] == "ladder[1].model"
    assert "the server keeps no thinking budget" in budget[1]
    assert effort[0] == "ladder[2].model"
    assert "effort high: ignored" in effort[1]


def test_a_rung_of_a_step_is_held_against_it_too(server: DialectServer) -> None:
    server.now(budget="ignored")
    (found,) = told(server.url, DIRECT, steps=[{"match": {"node": "plan"}, "ladder": ["direct", THINK]}])
    assert found[0] == "steps[0].ladder[1].model"


def test_what_is_the_same_of_all_rungs_is_told_once(server: DialectServer) -> None:
    server.now(budget="ignored")
    assert [field for field, _ in told(server.url, THINK, LONGER)] == ["ladder[0].model"]
    ((field, unreached),) = told("http://127.0.0.1:9/v1", DIRECT, THINK, LONGER)
    assert (field, "can't be reached" in unreached) == ("ladder[0].model", True)


def test_the_canaries_are_sent_once_for_all_rungs_of_a_model(server: DialectServer) -> None:
    assert told(server.url, THINK) == []
    alone = len(server.seen)
    assert told(server.url, DIRECT, THINK, LONGER) == []
    assert len(server.seen) == 2 * alone


def test_a_server_that_can_not_be_asked_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, get = [], Link.get

    def counted(link: Link, path: str, seconds: float = 10.0) -> str:
        asked.append(path)
        return get(link, path, seconds)

    monkeypatch.setattr(Link, "get", counted)
    assert len(told("http://127.0.0.1:9/v1", DIRECT, THINK, LONGER)) == 1
    assert asked == ["/v1/models"]
