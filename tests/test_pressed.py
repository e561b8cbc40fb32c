"""Engines that tell how busy they are, and backends that are told only of their own models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from governor import Governor, backends
from governor.backends import Backends, model_options
from governor.errors import PolicyError
from governor.policy import policy_from
from governor.records import Reply, Rung, Usage
from governor.testing import ScriptedBackend

LADDER = [
    {"id": "brief", "model": "vllm/q", "answer_tokens": 20},
    {"id": "long", "model": "vllm/q", "thinking_tokens": 4096, "answer_tokens": 20},
]


class Busy(ScriptedBackend):
    """A backend whose engine tells how busy it is."""

    def __init__(self, load: float | None) -> None:
        super().__init__(lambda call: Reply(text="ok", usage=Usage(5, 1), model=call.rung.model))
        self.tells = load
        self.asked: list[str] = []

    def pressure(self, rung: Rung) -> Callable[[], float] | None:
        tells = self.tells
        if tells is None:
            return None
        self.asked.append(rung.id)
        return lambda: tells


def first_rung(backend: ScriptedBackend, **context: Any) -> str:
    policy = policy_from({"version": 1, "ladder": LADDER, "dial": 0.0})
    with Governor(policy, backend=backend) as governor:
        return governor.run("Prove that there are infinitely many primes.", **context).rung


def test_a_full_engine_is_spared_and_an_idle_one_is_not() -> None:
    assert first_rung(Busy(0.0)) == "long"
    assert first_rung(Busy(1.0)) == "brief"


def test_the_dearest_rungs_engine_is_asked_once_a_step() -> None:
    backend = Busy(0.0)
    first_rung(backend)
    assert backend.asked == ["long"]


def test_a_step_that_states_its_load_is_left_alone() -> None:
    backend = Busy(1.0)
    assert first_rung(backend, state={"load": 0.0}) == "long"
    assert backend.asked == []


def test_where_nothing_tells_nothing_is_added() -> None:
    assert first_rung(Busy(None)) == "long"
    assert first_rung(ScriptedBackend(lambda _: "ok")) == "long"


def test_a_backend_is_handed_its_own_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: dict[str, Mapping[str, Any]] = {}

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> Callable[[Mapping[str, Any]], ScriptedBackend]:
            def made(models: Mapping[str, Any]) -> ScriptedBackend:
                handed[self.name] = models
                return Busy(0.5) if self.name == "vllm" else ScriptedBackend(lambda _: "ok")

            return made

    monkeypatch.setattr(backends, "_installed", lambda: {name: Entry(name) for name in ("vllm", "litellm")})
    models = {"vllm/q": {"engine": {"priority": 3}}, "openai/x": {"api_key_env": "KEY"}}
    policy = policy_from({"version": 1, "models": models, "ladder": [{"id": "a", "model": "vllm/q"}]})
    options = model_options(policy)
    both = Backends(options)
    load = both.pressure(Rung(id="a", model="vllm/q"))
    assert load is not None
    assert load() == 0.5
    assert both.pressure(Rung(id="b", model="openai/x")) is None
    assert handed["litellm"] == {"openai/x": {"api_key_env": "KEY"}}
    assert handed["vllm"]["vllm/q"]["engine"] == {
        "fallback": "error",
        "priority": 3,
        "xargs": {},
    }


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"fallbck": "stream"}, "did you mean 'fallback'?"),
        ({"fallback": "client"}, "fallback"),
        ({"repetition": {"min_count": 1}}, "min_count"),
        ({"xargs": {"a": {"b": 1}}}, "xargs"),
        ({"priority": "high"}, "priority"),
    ],
)
def test_a_mistake_in_what_is_asked_of_an_engine_has_its_place(engine: dict[str, Any], told: str) -> None:
    models = {"vllm/q": {"engine": engine}}
    with pytest.raises(PolicyError, match="models") as wrong:
        policy_from({"version": 1, "models": models, "ladder": [{"id": "a", "model": "vllm/q"}]})
    assert told in str(wrong.value)


def test_the_project_says_who_serves_vllm_models() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["governor.backends"]["vllm"]
    made = EntryPoint("vllm", value, "governor.backends").load()({})
    assert made.continues(Rung(id="a", model="vllm/q"))
    made.close()
