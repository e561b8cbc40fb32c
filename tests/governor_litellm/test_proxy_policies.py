from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from governor.facade import Governor
from governor.ledger import open_awaited, open_ledger
from governor.policy import Policy
from governor.records import Amount
from governor_litellm.ledgers import Ledgers
from governor_litellm.models import ProxyModels, RouterBackend
from governor_litellm.policies import PolicyFolder, UnservedError

MODELS = ProxyModels(lambda: None)
RUNGS = "ladder: [{id: a, model: m}]\n"


class Closing(Governor):
    closings = 0

    def close(self) -> None:
        self.closings += 1
        super().close()


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(f"version: 1\nledger: memory://\n{RUNGS}{text}\n")


@pytest.fixture
def ledgers() -> Iterator[Ledgers]:
    opened = Ledgers(open_ledger)
    yield opened
    opened.close()


@pytest.fixture
def policies(tmp_path: Path, ledgers: Ledgers) -> PolicyFolder:
    def make(policy: Policy) -> Governor:
        ledger = ledgers.of(policy.ledger or "memory://")
        return Closing(policy, backend=RouterBackend(MODELS, policy), ledger=ledger, owns_ledger=False)

    return PolicyFolder(tmp_path, make, MODELS.checks)


def look(policies: PolicyFolder) -> None:
    """Twice: a file counts once it has looked the same twice."""
    policies.look()
    policies.look()


def test_new_changed_and_removed_files_count_from_the_next_look(policies: PolicyFolder) -> None:
    look(policies)
    assert dict(policies.served) == {}
    write(policies.folder, "a", "app: a")
    look(policies)
    before = policies.served["a"]
    look(policies)
    assert policies.served["a"] is before, "the same content is the same governor"
    write(policies.folder, "a", "app: a\ndial: 0.9")
    look(policies)
    assert policies.served["a"].policy.dial == 0.9
    assert policies.served["a"] is not before
    (policies.folder / "a.yaml").unlink()
    look(policies)
    assert dict(policies.served) == {}


def test_what_policies_extend_may_lie_in_a_folder_of_its_own(policies: PolicyFolder) -> None:
    base = policies.folder / "shared" / "base.yaml"
    base.parent.mkdir()
    base.write_text("version: 1\ndial: 0.2\n")
    write(policies.folder, "a", "app: a\nextends: shared/base.yaml")
    look(policies)
    assert not policies.errors
    assert {app: one.policy.dial for app, one in policies.served.items()} == {"a": 0.2}
    base.write_text("version: 1\ndial: 0.25\n")
    look(policies)
    assert policies.served["a"].policy.dial == 0.25


def test_requests_go_on_while_a_policy_is_opened_and_a_governor_is_closed(policies: PolicyFolder) -> None:
    write(policies.folder, "a", "app: a")
    look(policies)
    make, opening, go = policies.make, threading.Event(), threading.Event()

    def slowly(policy: Policy) -> Governor:
        opening.set()
        assert go.wait(30)
        return make(policy)

    policies.make = slowly
    write(policies.folder, "a", "app: a\ndial: 0.9")
    with ThreadPoolExecutor(2) as threads:
        looking = threads.submit(look, policies)
        assert opening.wait(30)
        asking = threads.submit(policies.enter, "a")
        try:
            served = asking.result(timeout=10)
            assert served is not None
            assert served.policy.dial != 0.9
        finally:
            go.set()
        looking.result(timeout=30)
    assert policies.served["a"].policy.dial == 0.9
    assert policies.served["a"] is not served


def test_a_replaced_governor_is_closed_behind_its_last_flight(policies: PolicyFolder, ledgers: Ledgers) -> None:
    write(policies.folder, "a", "app: a")
    look(policies)
    served = policies.enter("a")
    assert served is not None
    governor = served.governor
    assert isinstance(governor, Closing)
    write(policies.folder, "a", "app: a\ndial: 0.9")
    look(policies)
    assert governor.closings == 0
    policies.leave(served)
    assert governor.closings == 0, "requests don't wait for it"
    policies.look()
    assert governor.closings == 1
    ledgers.of("memory://").reserve("k", Amount(calls=1), ())  # the shared ledger is open still


def test_an_invalid_file_keeps_the_last_good_one_and_is_told_once(
    policies: PolicyFolder, caplog: pytest.LogCaptureFixture
) -> None:
    write(policies.folder, "a", "app: a")
    look(policies)
    good = policies.served["a"]
    with caplog.at_level(logging.ERROR, "governor.proxy"):
        write(policies.folder, "a", "app: a\ndail: 0.9")
        for _ in range(3):
            look(policies)
    assert policies.served["a"] is good
    assert "a.yaml:5:1" in policies.errors["a.yaml"]
    assert len(caplog.records) == 1
    write(policies.folder, "a", "app: a\ndial: 0.9")
    look(policies)
    assert dict(policies.errors) == {}
    assert policies.served["a"] is not good


def test_a_file_that_never_was_good_serves_nobody_until_it_is(policies: PolicyFolder) -> None:
    (policies.folder / "a.yaml").write_text("nonsense")
    look(policies)
    assert dict(policies.served) == {}
    assert "a.yaml" in policies.errors
    write(policies.folder, "a", "app: a")
    look(policies)
    assert set(policies.served) == {"a"}
    assert dict(policies.errors) == {}


def test_while_a_file_was_never_good_no_application_goes_without_its_policy(policies: PolicyFolder) -> None:
    write(policies.folder, "default", "app: default")
    for number, text in enumerate(("nonsense", f"version: 1\napp: a\nledger: nosuch://x\n{RUNGS}")):
        (policies.folder / "a.yaml").write_text(text)
        look(policies)
        for app in ("a", "any"):
            with pytest.raises(UnservedError, match=f"'{app}' has no policy"):
                policies.enter(app, "default")
        assert policies.enter("default", "default") is policies.served["default"], number
        (policies.folder / "a.yaml").unlink()
        policies.look()
        with pytest.raises(UnservedError):
            policies.enter("a", "default")
        policies.look()
        assert policies.enter("a", "default") is policies.served["default"], "it is meant to have none"
    write(policies.folder, "default", "app: default\ndail: 0.9")
    look(policies)
    assert policies.enter("any", "default") is policies.served["default"], "a file that was good serves as it was"


def test_a_file_is_removed_once_two_looks_missed_it(policies: PolicyFolder) -> None:
    write(policies.folder, "a", "app: a")
    look(policies)
    served, path = policies.served["a"], policies.folder / "a.yaml"
    text = path.read_text()
    path.unlink()
    policies.look()
    assert policies.served["a"] is served
    path.write_text(text)
    look(policies)
    path.unlink()
    policies.look()
    assert policies.served["a"] is served
    assert dict(policies.errors) == {}
    policies.look()
    assert dict(policies.served) == {}


def test_a_file_that_is_renamed_serves_on(policies: PolicyFolder) -> None:
    write(policies.folder, "a", "app: a")
    look(policies)
    served = policies.served["a"]
    (policies.folder / "a.yaml").rename(policies.folder / "b.yaml")
    policies.look()
    assert policies.enter("any") is None, "nobody waits for the second look"
    policies.look()
    assert policies.served["a"] is served
    assert served.path.name == "b.yaml"
    assert dict(policies.errors) == {}


@pytest.mark.parametrize("lost", ["gone", "a file", "another one"])
def test_a_folder_that_is_gone_takes_no_policy_with_it(
    policies: PolicyFolder, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    policies.folder = policies.folder / "own"
    policies.folder.mkdir()
    write(policies.folder, "a", "app: a")
    look(policies)
    served = policies.served["a"]
    away = policies.folder.rename(policies.folder.parent / "away")
    if lost == "a file":
        policies.folder.touch()
    elif lost == "another one":  # what is left where its file system is no longer mounted
        policies.folder.mkdir()
    with caplog.at_level(logging.ERROR, "governor.proxy"):
        for _ in range(4):
            policies.look()
    assert policies.served["a"] is served
    assert list(policies.errors) == [str(policies.folder)]
    assert len(caplog.records) == 1
    if lost == "a file":
        policies.folder.unlink()
    elif lost == "another one":
        policies.folder.rmdir()
    away.rename(policies.folder)
    look(policies)
    assert policies.served["a"] is served
    assert dict(policies.errors) == {}


def test_a_folder_that_was_never_read_is_no_look(policies: PolicyFolder) -> None:
    policies.folder = policies.folder / "none"
    policies.look()
    assert not policies.looked
    assert list(policies.errors) == [str(policies.folder)]


def test_a_file_that_takes_anothers_application_keeps_its_own(policies: PolicyFolder) -> None:
    for name in ("a", "b"):
        write(policies.folder, name, f"app: {name}")
    look(policies)
    kept = dict(policies.served)
    for name, other in (("b", "a"), ("a", "b")):
        write(policies.folder, name, f"app: {other}\ndial: 0.9")
        look(policies)
        assert dict(policies.served) == kept
        assert f"has a policy already, in {other}.yaml" in policies.errors[f"{name}.yaml"]
        write(policies.folder, name, f"app: {name}")
        look(policies)
        assert dict(policies.errors) == {}
    for name, other in (("b", "a"), ("a", "b")):
        write(policies.folder, name, f"app: {other}\ndial: 0.9")
    look(policies)
    assert {app: one.path.name for app, one in policies.served.items()} == {"a": "b.yaml", "b": "a.yaml"}
    assert dict(policies.errors) == {}


def test_a_file_whose_new_application_can_not_be_opened_keeps_its_own(policies: PolicyFolder) -> None:
    write(policies.folder, "a", "app: a")
    look(policies)
    kept = dict(policies.served)
    (policies.folder / "a.yaml").write_text(f"version: 1\napp: b\nledger: nosuch://x\n{RUNGS}")
    look(policies)
    assert dict(policies.served) == kept
    assert "nosuch" in policies.errors["a.yaml"]


def test_two_files_for_one_application_are_a_mistake(policies: PolicyFolder, caplog: pytest.LogCaptureFixture) -> None:
    write(policies.folder, "a", "app: x\ndial: 0.1")
    write(policies.folder, "b", "app: x\ndial: 0.9")
    with caplog.at_level(logging.ERROR, "governor.proxy"):
        for _ in range(3):
            look(policies)
    assert policies.served["x"].policy.dial == 0.1
    assert "has a policy already, in a.yaml" in policies.errors["b.yaml"]
    assert len(caplog.records) == 1
    assert policies.enter("any") is None, "it is known whose the second one is"


def test_files_of_editors_are_no_policies(policies: PolicyFolder) -> None:
    write(policies.folder, "a", "app: a")
    write(policies.folder, "._a", "app: b")
    (policies.folder / ".#a.yaml").symlink_to("somebody@somewhere")
    look(policies)
    assert (set(policies.served), dict(policies.errors)) == ({"a"}, {})
    assert policies.enter("any") is None


def test_a_store_that_can_not_be_opened_is_told(policies: PolicyFolder, caplog: pytest.LogCaptureFixture) -> None:
    text = f"version: 1\napp: a\nledger: nosuch://x\n{RUNGS}"
    (policies.folder / "a.yaml").write_text(text)
    with caplog.at_level(logging.ERROR):
        look(policies)
        look(policies)
    assert dict(policies.served) == {}
    assert "nosuch" in policies.errors["a.yaml"]
    assert (len(caplog.records), policies.failed, policies.loaded) == (1, 1, 0), "it is told once"


def test_ledgers_are_shared_by_uri(ledgers: Ledgers) -> None:
    assert ledgers.of("memory://") is ledgers.of("memory://")
    assert set(ledgers.opened) == {"memory://"}


async def test_a_redis_ledger_is_awaited_too_and_closed_with_the_rest() -> None:
    pytest.importorskip("redis")
    opened = Ledgers(open_ledger, open_awaited)
    assert opened.awaited("memory://") is None
    assert opened.awaited("redis://h/0") is opened.awaited("redis://h/0") is not None
    await opened.aclose()
    assert opened.opened == {}
