"""Hot reload: the last good policy, whatever state the file is in."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from governor.errors import PolicyError
from governor.policy import PolicyWatcher


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def text(dial: float, tail: str = "") -> str:
    return f"version: 1\nladder: [{{id: a, model: m}}]\ndial: {dial}\n{tail}"


def looks(watcher: PolicyWatcher, clock: Clock, times: int = 2) -> float | None:
    """The dial served after this many looks at the files."""
    for _ in range(times):
        clock.now += 1
        watcher.current()
    return watcher.current().dial


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text(0.1))
    return path


def test_a_change_is_served_once_it_has_settled(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, clock=clock)
    assert looks(watcher, clock) == 0.1
    path.write_text(text(0.25))
    assert watcher.current().dial == 0.1
    assert looks(watcher, clock, 1) == 0.1
    assert looks(watcher, clock, 1) == 0.25


def test_a_file_that_is_rewritten_once_an_interval_is_served_all_the_same(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, interval=1, clock=clock)
    served = set[float | None]()
    for quarter in range(1, 81):
        clock.now = quarter / 4
        if quarter % 4 == 0:
            path.write_text(text(round(0.1 + quarter / 1000, 3)))
        served.add(watcher.current().dial)
    assert len(served) > 10


def test_an_unchanged_file_is_read_no_more(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, clock=clock)
    looks(watcher, clock)
    served = watcher.current()
    looks(watcher, clock, 5)
    assert watcher.current() is served


def test_files_are_looked_at_once_an_interval(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, interval=10, clock=clock)
    path.write_text(text(0.25))
    clock.now = 9.9
    for _ in range(5):
        assert watcher.current().dial == 0.1
    assert looks(watcher, clock, 30) == 0.25


def test_a_broken_file_keeps_the_last_good_policy_and_tells_once(path: Path, clock: Clock) -> None:
    told: list[PolicyError] = []
    watcher = PolicyWatcher(path, clock=clock, on_error=told.append)
    path.write_text("version: 1\nladder: [{id: a, mo")
    assert looks(watcher, clock, 5) == 0.1
    assert watcher.error is not None
    assert watcher.error.problems[0].line == 2
    assert told == [watcher.error]
    path.write_text(text(0.4))
    assert looks(watcher, clock) == 0.4
    assert watcher.error is None


def test_a_file_that_vanishes_keeps_the_last_good_policy(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, clock=clock)
    path.unlink()
    assert looks(watcher, clock) == 0.1
    assert watcher.error is not None
    assert "no such file" in str(watcher.error)
    path.write_text(text(0.2))
    assert looks(watcher, clock) == 0.2


def test_a_rename_over_the_file_is_seen(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, clock=clock)
    looks(watcher, clock)
    before = path.stat()
    other = path.with_name("new.yaml")
    other.write_text(text(0.2))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert other.stat().st_size == before.st_size
    other.rename(path)
    assert looks(watcher, clock) == 0.2


def test_the_files_it_extends_are_watched_too(path: Path, clock: Clock) -> None:
    base = path.with_name("base.yaml")
    base.write_text(text(0.3))
    path.write_text("version: 1\nextends: base.yaml\n")
    watcher = PolicyWatcher(path, clock=clock)
    base.write_text(text(0.35))
    assert looks(watcher, clock) == 0.35
    base.write_text(text(7))
    assert looks(watcher, clock) == 0.35
    assert watcher.error is not None
    assert watcher.error.problems[0].file == str(base)


def test_a_new_base_is_watched_even_while_it_is_broken(path: Path, clock: Clock) -> None:
    watcher = PolicyWatcher(path, clock=clock)
    base = path.with_name("base.yaml")
    path.write_text("version: 1\nextends: base.yaml\n")
    assert looks(watcher, clock, 3) == 0.1
    base.write_text(text(0.6))
    assert looks(watcher, clock, 3) == 0.6


def test_the_first_load_must_succeed(path: Path) -> None:
    path.write_text("version: 1\n")
    with pytest.raises(PolicyError, match="missing key 'ladder'"):
        PolicyWatcher(path)


def test_no_half_written_file_is_ever_served(path: Path, clock: Clock) -> None:
    """A writer truncates and writes in pieces, each a valid policy of its own, while two threads read.

    The writer's clock passes faster than the interval between whole files, slower within one. Every fifth file stays
    until it is served: between two of them it may be gone before a slow machine has read it.
    """
    tail = "".join(f"# padding {n}\n" for n in range(50))
    path.write_text(text(0.01, tail + "harm: 1\n"))
    done = threading.Event()
    served: set[tuple[float | None, float]] = set()
    watcher = PolicyWatcher(path, clock=clock)

    def settle(seconds: float) -> None:
        clock.now += seconds
        done.wait(0.006)  # longer than a tick of the file system's clock

    def write() -> None:
        for n in range(2, 30):
            with path.open("w") as file:
                for piece in (text(n / 100), tail):
                    file.write(piece)
                    file.flush()
                    settle(0.4)
                file.write(f"harm: {n}\n")
            settle(1.1)
            settle(1.1)
            patience = time.monotonic() + 10
            while n % 5 == 0 and (n / 100, n) not in served and time.monotonic() < patience:
                settle(1.1)
        done.set()

    def read() -> None:
        while not done.is_set():
            policy = watcher.current()
            served.add((policy.dial, policy.harm))

    threads = [threading.Thread(target=target) for target in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(n / 100, float(n)) for n in range(5, 30, 5)} <= served
    assert all(dial is not None and harm == round(dial * 100) for dial, harm in served), served
