"""`governor certify`: what it says, writes and refuses. The replay is scripted here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from governor.cli import certify
from governor.cli.app import app as cli
from governor.errors import CertificateError
from governor.estimate.curves import Floats
from governor.learn.certificate import file_digest, files_digest, load_certificates, policy_digest
from governor.learn.certify import Bools, group_digest
from governor.learn.evidence import Evidence
from governor.policy import load_policy

Run = Callable[..., Result]


@dataclass(frozen=True)
class Scripted:
    dials: Floats
    accepted: Bools
    correct: Bools
    best_correct: Bools
    nodes: tuple[str, ...]
    groups: tuple[str, ...]


def replayed(wrong: list[int], n: int = 200, nodes: int = 1) -> Scripted:
    """The first `wrong[d]` answers are wrong at dial d; questions take turns among the nodes."""
    correct = np.arange(n) >= np.array(wrong)[:, None]
    names = tuple("abc"[at % nodes] for at in range(n))
    best, groups = np.ones(n, dtype=np.bool_), tuple(map(str, range(n)))
    return Scripted(np.linspace(0.0, 1.0, len(wrong)), np.ones_like(correct), correct, best, names, groups)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on scripted evidence, in a folder with records, a ladder and a calibration."""
    monkeypatch.chdir(tmp_path)
    for name in ("held-out.jsonl", "ladder.json", "calibration.npz"):
        (tmp_path / name).write_text(name)
    app = typer.Typer()
    app.command("certify")(certify.certify)

    def command(found: Evidence, *options: str) -> Result:
        asked: dict[str, Any] = {}
        monkeypatch.setattr(certify, "evidence", lambda *given, **named: asked.update(named) or found)
        done = CliRunner().invoke(app, ["held-out.jsonl", "--ladder", "ladder.json", "--risk", "0.05", *options])
        assert asked.get("seed", 0) == (3 if "--seed" in options else 0)
        return done

    return command


def test_a_certified_dial_is_written_with_its_digests(run: Run) -> None:
    found = Evidence(name="shop", replayed=replayed([0, 4, 9]))
    done = run(found, "--calibration", "calibration.npz", "--policy", "balanced", "-o", "made.json")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "all nodes: dial 0.5 certified for accepted-wrong <= 0.05 at delta 0.05, 200 independent questions: "
        "4 of 200 failed (bound 4.52%); at 1 it was 9 of 200 (bound 7.72%)",
        "wrote made.json",
    ]
    (one,) = load_certificates(Path("made.json"))
    assert (one.name, one.kind, one.dials, one.n, one.failures) == ("shop", "accepted-wrong", (0.0, 0.5), 200, 4)
    assert one.policy == policy_digest(load_policy("balanced"))
    assert one.calibration == file_digest(Path("calibration.npz"))
    assert one.records == files_digest([Path("held-out.jsonl")])
    assert [path.name for path in Path().iterdir() if path.name.startswith("made")] == ["made.json"]


@pytest.mark.parametrize("name", ["calibration.npz", "held-out.jsonl"])
def test_nothing_is_certified_of_files_that_changed_meanwhile(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def replaced(*given: Any, **named: Any) -> Any:
        Path(name).write_text("fitted anew")
        return ["tested"]

    monkeypatch.setattr("governor.learn.certify.certify_replayed", replaced)
    done = run(Evidence(name="shop", replayed=replayed([0])), "--calibration", "calibration.npz")
    assert isinstance(done.exception, CertificateError)
    assert "changed while they were replayed: certify again" in str(done.exception)
    assert not Path("certificate.json").exists()


def test_the_help_names_the_policy_in_its_example() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["certify", "--help"]).stdout.split())
    assert "--risk 0.05 --policy policy.yaml" in shown
    assert "Without --policy no running governor uses the certificate." in shown


def test_without_a_policy_it_says_that_the_certificate_binds_nothing(run: Run) -> None:
    done = run(Evidence(name="shop", replayed=replayed([0])), "--kind", "lost-correct", "--seed", "3")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == (
        "wrote certificate.json (made without --policy: no running governor will use it)"
    )
    assert load_certificates(Path("certificate.json"))[0].kind == "lost-correct"


@pytest.mark.parametrize(
    ("wrong", "n", "advice"),
    [
        (0, 40, "0 of 40 failed at the safest dial 0 (bound 7.22%); about 59 questions would be needed if the same"),
        (5, 200, "5 of 200 failed at the safest dial 0 (bound 5.18%); about 234 questions"),
        (
            20,
            200,
            "no number of questions would do if the same share fails: ask for a higher --risk",
        ),
    ],
)
def test_where_nothing_can_be_certified_it_says_what_would_help(run: Run, wrong: int, n: int, advice: str) -> None:
    done = run(Evidence(name="shop", replayed=replayed([wrong, wrong], n=n)))
    assert done.exit_code == 1
    assert done.stdout.startswith("all nodes: no dial certified for accepted-wrong <= 0.05 at delta 0.05")
    assert advice in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing was written"
    assert not Path("certificate.json").exists()


def test_nothing_accepted_is_said(run: Run) -> None:
    whole = replayed([0])
    none = Scripted(whole.dials, ~whole.accepted, whole.correct, whole.best_correct, whole.nodes, whole.groups)
    done = run(Evidence(name="shop", replayed=none))
    assert done.exit_code == 1
    assert "nothing was accepted there" in done.stdout


def test_each_node_is_certified_by_itself(run: Run) -> None:
    done = run(Evidence(name="shop", replayed=replayed([0, 50], n=130, nodes=2)), "--by", "node", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["ok"], told["certificate"]) == (True, "certificate.json")
    assert [(node["node"], node["certified"]["dial"], node["units"]) for node in told["nodes"]] == [
        ("a", 0.0, 65),
        ("b", 0.0, 65),
    ]
    assert [one.node for one in load_certificates(Path("certificate.json"))] == ["a", "b"]
    assert [trial["failures"] for trial in told["nodes"][0]["each"]] == [0, 25]


def test_nodes_that_share_delta_need_more_questions(run: Run) -> None:
    found = Evidence(name="shop", replayed=replayed([0], n=130, nodes=2))
    done = run(found, "--by", "node", "--simultaneous", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["ok"], told["certificate"]) == (False, None)
    assert [(node["delta"], node["units_needed"]) for node in told["nodes"]] == [(0.025, 72), (0.025, 72)]


def test_records_that_were_fitted_on_are_refused(run: Run) -> None:
    fitted_on = frozenset(map(group_digest, ["1", "2", "199", "200"]))
    found = Evidence(name="shop", replayed=replayed([0]), fitted_on=fitted_on)
    done = run(found, "--calibration", "calibration.npz")
    assert done.exit_code == 2
    told = " ".join(done.stderr.replace("│", " ").split())
    assert "calibration.npz was fitted on 3 of these 200 questions: certify on records it never saw" in told
    assert not Path("certificate.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--risk", "0"], "must lie between 0 and 1"),
        (["--delta", "1"], "must lie between 0 and 1"),
        (["--kind", "wrong"], "'wrong' is not one of"),
        (["--calibration", "none.npz"], "does not exist"),
    ],
)
def test_wrong_usage_is_refused(run: Run, options: list[str], told: str) -> None:
    done = run(Evidence(name="shop", replayed=replayed([0])), *options)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_a_certificate_that_cannot_be_written_is_one_error(run: Run) -> None:
    done = run(Evidence(name="shop", replayed=replayed([0])), "-o", "nowhere/made.json")
    assert "nowhere/made.json: can't be written" in str(done.exception)
