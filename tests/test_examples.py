"""Every example runs as its first lines say, on a real local model, and is short enough to be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from governor.checks import policy_checks
from governor.policy import load_policy

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
LAST_LINES = {
    "quickstart.py": r"accepted: ",
    "own_verifier.py": "accepted after ",
    "governed_agent.py": "answer: ",
    "langgraph_node.py": "accepted: ",
    "shared_budget.py": "spent ",
    "async_stream.py": "unverified on direct, ",
    "plan_solve_check.py": "planned 5 things: ",
    "map_reduce.py": "3 reviews: ",
    "structured_extraction.py": "order: ",
    "human_approval.py": "decision: yes, ",
}


def test_each_example_is_known_here() -> None:
    assert {path.name for path in EXAMPLES} == set(LAST_LINES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert any(line.strip().startswith(f"python examples/{path.name}") for line in lines[:6])


@pytest.mark.parametrize("path", [*EXAMPLES, FOLDER / "support_desk" / "app.py"], ids=lambda path: path.stem)
def test_an_example_says_what_it_needs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    said = re.search(r"^pip install -e '\.\[([a-z,]+)\]'; governor models pull (\S+) ", text, re.MULTILINE)
    assert said
    imported = {
        name for name in ("langgraph", "langchain") if re.search(rf"^from (?:governor_)?{name}\b", text, re.MULTILINE)
    }
    assert set(said.group(1).split(",")) == imported | {"local"}
    assert said.group(2) == "smollm2-135m"


# Those of examples/proxy name models of its proxy; tests/governor_litellm/test_proxy_example.py checks them.
POLICIES = [path for path in sorted(FOLDER.rglob("*.yaml")) if FOLDER / "proxy" not in path.parents]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_an_example_policy_has_no_mistake(path: Path) -> None:
    assert load_policy(path, checks=policy_checks()).rungs


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_prints_little(path: Path, tmp_path: Path) -> None:
    lines = printed(path, tmp_path)
    assert lines[-1].startswith(LAST_LINES[path.name])
    assert len(lines) <= 12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
def test_the_support_desk_takes_every_ticket_to_an_end(tmp_path: Path) -> None:
    *tickets, spent = printed(FOLDER / "support_desk" / "app.py", tmp_path)
    assert [line[:4] for line in tickets] == ["T-1:", "T-2:", "T-3:", "T-4:"]
    assert all(
        re.match(r"T-\d: (approved T-\d|sent|to a person: .+) \(\d+ tokens, [0-2] rewinds\)$", line) for line in tickets
    )
    assert re.match(r"T-4: to a person: nothing about this ticket .+ [12] rewinds\)$", tickets[-1])
    tokens = [int(found) for line in (*tickets, spent) for found in re.findall(r"(\d+) tokens", line)]
    assert sum(tokens[:-1]) == tokens[-1]


def printed(path: Path, folder: Path) -> list[str]:
    """The lines that an example prints, run elsewhere with this very checkout."""
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=folder, env=paths, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
