from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from governor.errors import MissingExtraError, VerifierError
from governor.verify import maths
from governor.verify.maths import MathsWorker
from tests.verify.driver import built, judged

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def worker() -> Iterator[MathsWorker]:
    pytest.importorskip("math_verify", reason="the extra 'maths' is not installed")
    worker = MathsWorker()
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("reference", "given", "equal"),
    [
        ("1/2", "0.5", True),
        (r"\frac{1}{2}", "1/2", True),
        ("x^2 + 2x + 1", "(x+1)^2", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        ("3", "x = 3", True),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        ("7", "8", False),
        ("1/3", "0.333", False),
        ("7", "no idea", False),
        ("7", "$$$ \\frac{", False),
    ],
)
def test_equivalence(worker: MathsWorker, reference: str, given: str, equal: bool) -> None:
    assert worker.equal(reference, given, 5.0) is equal


def test_one_process_serves_until_it_runs_out_of_time(worker: MathsWorker) -> None:
    assert worker.equal("1", "1", 5.0)
    first = worker.pid
    assert worker.equal("2", "2", 5.0)
    assert worker.pid == first
    started = time.monotonic()
    with pytest.raises(VerifierError, match=r"took over 0\.5 s"):
        worker.equal("2", ENDLESS, 0.5)
    assert time.monotonic() - started < 3
    assert worker.pid is None
    assert first is not None
    assert not Path(f"/proc/{first}").exists()
    assert worker.equal("3", "3", 5.0)
    assert worker.pid not in {None, first}


def test_a_worker_that_dies_is_replaced(worker: MathsWorker) -> None:
    assert worker.equal("1", "1", 5.0)
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert worker.equal("1", "1", 5.0)


def test_a_worker_that_can_t_work_is_an_error() -> None:
    broken = MathsWorker([sys.executable, "-c", "print('what?'); input()"])
    with pytest.raises(VerifierError, match="without an answer"):
        broken.equal("1", "1", 5.0)
    broken.close()


def test_a_reference_that_says_nothing_is_the_verifier_s_fault(worker: MathsWorker) -> None:
    with pytest.raises(VerifierError, match="reference is no mathematical expression"):
        worker.equal("", "1", 5.0)


def test_the_worker_ends_with_its_parent() -> None:
    pytest.importorskip("math_verify", reason="the extra 'maths' is not installed")
    program = (
        "import threading, time\n"
        "from governor.verify.maths import MathsWorker\n"
        "worker = MathsWorker()\nworker.equal('1', '1', 5)\nprint(worker.pid, flush=True)\n"
        f"worker.equal('1', {ENDLESS!r}, 60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    time.sleep(0.3)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert _ended(pid)


def _ended(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("So it is \\boxed{\\frac{2}{4}}", "accept"),
        ("Answer: 0.5", "accept"),
        ("Answer: 0.4", "reject"),
        ("", "reject"),
    ],
)
def test_the_verifier(worker: MathsWorker, text: str, decision: str) -> None:
    del worker
    verdict = judged({"maths": "1/2"}, text)
    assert verdict.decision == decision
    assert "1/2" not in verdict.feedback


def test_a_comparison_without_end_is_unsure(worker: MathsWorker) -> None:
    del worker
    assert judged({"maths": "1"}, "Answer: 1").decision == "accept"
    verdict = judged({"maths": "2", "wall_seconds": 0.5}, f"Answer: {ENDLESS}")
    assert (verdict.decision, "took over" in verdict.error) == ("unsure", True)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        return None

    monkeypatch.setattr(maths, "find_spec", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'compute-governor\[maths\]'"):
        built({"maths": "1/2"})
    verdict = judged({"maths": "1/2"}, "Answer: 1/2", fail="open")
    assert verdict.decision == "unsure"
    assert "maths" in verdict.error
