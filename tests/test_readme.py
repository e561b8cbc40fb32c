"""The README: what a newcomer reads first is true of the code beside it."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

import pytest
import typer.main
from langgraph.checkpoint.memory import InMemorySaver
from typer.testing import CliRunner

from governor.checks import policy_checks
from governor.cli.app import app
from governor.facade import Governor
from governor.policy import Policy, load_policy, shipped_names
from governor.policy.budget import periods
from governor.records import Step
from governor.testing import ScriptedBackend

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


SELDOM = ("messages", "parent", "index", "baseline")
"""Fields of a step that a caller seldom gives by name."""


class State(TypedDict, total=False):
    """What flows through the README's graph."""

    question: str
    plan: str
    answer: str


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    assert "<!-- policy: tests/test_readme.py loads this block -->\n```yaml" in README
    path = tmp_path / "policy.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    return load_policy(path, checks=policy_checks())


def test_the_policy_is_about_twenty_lines_and_shows_every_part(policy: Policy) -> None:
    assert 17 <= len(block("yaml").splitlines()) <= 21
    given = policy.model_fields_set
    assert given >= {
        "version",
        "extends",
        "app",
        "dial",
        "mode",
        "fail",
        "models",
        "ladder",
        "verify",
        "steps",
        "budget",
    }
    assert "keep:" in block("yaml")
    rung_keys = set().union(*(rung.model_fields_set for rung in policy.ladder))
    assert rung_keys >= {
        *("id", "model", "effort", "thinking_tokens", "answer_tokens", "temperature", "samples", "timeout", "price")
    }
    budget = policy.budget
    assert None not in (budget.call, budget.step, budget.session, budget.app)
    shown = set().union(
        *(part.model_fields_set for part in (budget.call, budget.session, *periods(budget.app)) if part)
    )
    assert {"tokens", "usd", "seconds", "per"} <= shown
    assert budget.on_exhausted == "degrade"
    assert {"any", "then"} <= set(re.findall(r"\w+", str(policy.verify)))
    assert [set(rule.model_fields_set) >= {"match"} for rule in policy.steps] == [True, True]


def test_the_python_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert CliRunner().invoke(app, ["init"]).exit_code == 0
    monkeypatch.setattr("governor.facade.Backends", lambda _: ScriptedBackend(["4471", "It asks to cancel."]))
    exec(compile(block("python"), "README.md", "exec"), {})  # the block is ours
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["accepted", "4471"]
    assert first.split()[2] in load_policy("policy.yaml").rungs
    assert second == "It asks to cancel.accepted"


def test_every_keyword_of_a_step_that_it_names_is_one() -> None:
    named = re.search(r"as keywords a\s+step's (.*?): `Step` in", README, re.DOTALL)
    assert named
    assert set(re.findall(r"`(\w+)`", named.group(1))) == {one.name for one in fields(Step)} - set(SELDOM)


def test_the_graph_goes_back_to_the_plan_where_its_check_fails() -> None:
    rungs = [{"id": one, "model": "local/any", "answer_tokens": 50} for one in ("low", "high")]
    back = {"match": {"node": "check"}, "on_fail": {"backtrack": {"to": "plan"}}}
    policy = Policy.model_validate({"version": 1, "ladder": rungs, "dial": 1, "steps": [back]})
    backend = ScriptedBackend(["guess", "41", "think", "42"])
    held: dict[str, Any] = {
        "governor": Governor(policy, backend=backend),
        "saver": InMemorySaver(),
        "State": State,
    }
    assert "<!-- graph: tests/test_readme.py runs this block -->\n```py\n" in README
    exec(compile(block("py"), "README.md", "exec"), held)  # the block is ours
    assert held["final"] == {"question": "...", "plan": "think", "answer": "42"}
    assert [call.rung.id for call in backend.calls] == ["low", "low", "high", "low"]


def test_every_command_and_option_it_names_exists() -> None:
    spoken = re.findall(r"`(governor(?: [^`]+)?)`", README)
    typed = [part for line in block_lines() if line.startswith("governor ") for part in line.split("&&")]
    named = [shlex.split(one, comments=True) for one in (*spoken, *typed)]
    named = [words[1:] for words in named if words and words[0] == "governor" and len(words) > 1]
    assert len(named) >= 8
    for words in named:
        node: Any = typer.main.get_command(app)
        rest = list(words)
        while rest and hasattr(node, "commands"):
            assert rest[0] in node.commands, words
            node = node.commands[rest.pop(0)]
        known = {option for parameter in node.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def block_lines() -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [line for language, code in fences if not language for line in code.splitlines()]


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b(?= +#|`)", README))
    assert named >= {"demo", "test"}
    assert named <= targets


def test_every_file_it_links_or_tables_exists() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(linked) >= 7
    assert [path for path in linked if not (ROOT / path).exists()] == []
    rows = re.search(r"\| file \| the question it answers \|\n\|---\|---\|\n((?:\|.*\n)+)", README)
    assert rows
    for row in rows.group(1).splitlines():
        first, *others = re.findall(r"`([^`]+)`", row.replace("governor_", "adapters/governor_"))
        home = ROOT / first
        assert home.exists(), row
        folder = home if home.is_dir() else home.parent
        for other in (name for name in others if re.fullmatch(r"[\w/]+(\.py)?", name)):
            assert (folder / other).exists() or (ROOT / other).exists(), (row, other)


def test_every_docs_page_is_linked() -> None:
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"\]\(([^)]+)\)", README))


def test_the_extras_are_those_of_the_project() -> None:
    listed = re.search(r"Extras \([^)]+\): `([a-z ]+)`; `all` is every one but\s+`proxy`\.", README)
    assert listed
    extras = PROJECT["optional-dependencies"]
    assert listed.group(1).split() == [name for name in extras if name != "all"]
    (everything,) = extras["all"]
    assert set(re.findall(r"[a-z]+", everything.partition("[")[2])) == set(extras) - {"all", "proxy"}
    assert "compute-governor[" not in README  # on no index yet
    asked = re.findall(r"'\.\[([a-z,]+)\]'", README)
    assert asked
    assert {name for names in asked for name in names.split(",")} <= set(extras)


def test_the_ready_policies_are_all_named() -> None:
    listed = re.search(r"Ready policies: (.*?);", README, re.DOTALL)
    assert listed
    assert sorted(re.findall(r"`([a-z-]+)`", listed.group(1))) == shipped_names()


def test_init_writes_the_file_that_the_text_goes_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["init"]).exit_code == 0
    (written,) = tmp_path.glob("*.yaml")
    assert f"governor init && governor check {written.name}" in README
    assert f'Governor.from_policy("{written.name}")' in README
    assert set(re.findall(r"(?<![\w/.-])\w+\.yaml\b", README)) == {written.name}
