"""The pages under docs/ and benchmarks/: what they list is what the code has."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from governor.checks import policy_checks
from governor.cli.app import app
from governor.errors import TaskError
from governor.facade import Governor
from governor.learn.ladder import load_ladder
from governor.learn.rows import read_rows
from governor.learn.tabulate import tabulate
from governor.plan.dialects import NAMES
from governor.policy import OnFail, Policy, Rewind, ToolRule, load_policy
from governor.policy.schema import Backtrack, Match, ModelSpec, Rule, RungSpec, Sandbox
from governor.records import BacktrackMode, Outcome, Reply, Status, ToolCall
from governor.tasks import outcome_line, read_tasks
from governor.telemetry.records import read_records
from governor.testing import ScriptedBackend
from governor.verify import known_verifiers

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}.*?$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found.group(1)


def first_column(text: str) -> list[str]:
    cells = re.findall(r"^\| (`[^|]+`) ?(?:\([^|]*\) )?\|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", path.read_text(encoding="utf-8")):
        target = path.parent / link if link else path
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor[1:] in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_the_policy_page_lists_every_key_and_no_other() -> None:
    text = page("docs/policy.md")
    assert set(first_column(section(text, "Top level"))) == keys(Policy)
    assert set(first_column(section(text, "`ladder[]`"))) == keys(RungSpec)
    assert keys(ModelSpec) <= set(re.findall(r"\w+", section(text, "`models.NAME`")))
    assert keys(Match) | keys(Rule) <= set(re.findall(r"\w+", section(text, "`steps[]`")))
    rewinding = {f"on_fail.backtrack.{key}" for key in keys(Rewind)} | {"on_fail.blame"}
    rewinding |= {f"tools.NAME.{key}" for key in keys(ToolRule)}
    assert set(first_column(section(text, "Rewinding"))) == rewinding
    assert keys(OnFail) == {"backtrack", "blame"}
    assert keys(Sandbox) | keys(Backtrack) <= set(re.findall(r"\w+", section(text, "`backtrack`")))


def test_the_policy_page_begins_with_a_policy_that_loads(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", page("docs/policy.md"), re.DOTALL)
    assert found
    path = tmp_path / "policy.yaml"
    path.write_text(found.group(1), encoding="utf-8")
    assert load_policy(path, checks=policy_checks()).steps


def test_the_effort_page_lists_every_dialect() -> None:
    assert set(first_column(page("docs/effort.md"))) == set(NAMES)


def test_the_verify_page_describes_every_verifier() -> None:
    assert sorted(re.findall(r"^### `(\w+)`", page("docs/verify.md"), re.MULTILINE)) == sorted(known_verifiers())


def test_the_verify_page_begins_with_specs_that_a_policy_takes(tmp_path: Path) -> None:
    text = page("docs/verify.md")
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    specs = [*found.group(1).splitlines(), *(f"verify: {one}" for one in re.findall(r"`(\{judge: [^`]+)`", text))]
    assert len(specs) > 4
    path = tmp_path / "policy.yaml"
    for spec in specs:
        path.write_text(f"version: 1\nladder: [{{id: top, model: m}}]\n{spec}\n", encoding="utf-8")
        assert load_policy(path, checks=policy_checks()).verify


def test_the_loop_page_lists_every_status_and_mode() -> None:
    text = page("docs/loop.md")
    assert set(first_column(section(text, "How it ends"))) == set(get_args(Status))
    assert set(first_column(section(text, "How an attempt follows another"))) == set(get_args(BacktrackMode)) - {
        "first"
    }


def test_the_loop_page_and_the_help_list_every_key_of_a_task_and_of_an_outcome(tmp_path: Path) -> None:
    told = set(first_column(section(page("docs/loop.md"), "Task and outcome lines")))
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"???": 1}\n', encoding="utf-8")
    with pytest.raises(TaskError) as refused:
        read_tasks(path)
    known = refused.value.problem.hint.removeprefix("known keys: ").split(", ")
    reply = Reply(text="", tool_calls=(ToolCall(id="1", name="f", arguments="{}"),))
    assert told == {*known, *outcome_line(Outcome(step_id="1", status="error", reply=reply, audit=True))}
    shown = CliRunner().invoke(app, ["run", "--help"]).stdout
    assert [key for key in known if key not in shown] == ["expect", "gold"]  # these are not for `run`


def test_the_replay_page_shows_a_ladder_and_records_that_fit_it(tmp_path: Path) -> None:
    records, ladder = re.findall(r"```json\n(.*?)```", page("docs/replay.md"), re.DOTALL)
    (tmp_path / "ladders").mkdir()
    (tmp_path / "ladders" / "mine.json").write_text(ladder, encoding="utf-8")
    (tmp_path / "mine.jsonl").write_text(records, encoding="utf-8")
    loaded = load_ladder(tmp_path / "ladders" / "mine.json")
    assert loaded.records == tmp_path / "mine.jsonl"
    table = tabulate(read_rows(loaded.records), loaded)
    assert table.qids == ("q1",)
    assert table.correct[0, :, 0].tolist() == [0.0, 1.0]


def test_the_code_of_the_records_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text("version: 1\napp: shop\nladder: [{id: top, model: m}]\n", encoding="utf-8")
    monkeypatch.setattr("governor.facade.Backends", lambda _: ScriptedBackend(["391", "391"]))
    written: list[Outcome] = []
    for code in re.findall(r"```python\n(.*?)```", page("docs/records.md"), re.DOTALL):
        held: dict[str, Any] = {"governor": Governor.from_policy("policy.yaml"), "write": written.append}
        exec(compile(code, "records.md", "exec"), held)  # the page is ours
    assert [outcome.answer for outcome in written] == ["391"]
    assert {(line["app"], line["policy"] != "") for line in read_records("records.jsonl")} == {("shop", True)}


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.stem)
def test_what_a_page_imports_is_there(path: Path) -> None:
    for module, names in re.findall(r"from (governor[\w.]*) import ([\w, ]+)", path.read_text(encoding="utf-8")):
        for name in names.replace(",", " ").split():
            assert hasattr(import_module(module), name), (module, name)


def test_every_benchmark_has_its_command() -> None:
    named = set(re.findall(r"python -m (benchmarks\.[a-z_]+)", page("benchmarks/README.md")))
    assert all(find_spec(name) for name in named)
    runnable = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert {name.partition(".")[2] for name in named} == runnable
