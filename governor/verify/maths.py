"""Mathematical equivalence to a reference, judged by math-verify in a worker process with a time limit."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import queue
import subprocess
import sys
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from governor.effects import Compute, Process
from governor.errors import MissingExtraError, VerifierError
from governor.records import Call, Reply, Step, Verdict
from governor.verify import answer
from governor.verify.leaf import Leaf, decided, reject
from governor.verify.options import Options, Rates, Site, leaf, wall

_MOST_CHARACTERS = 2_000
_START_SECONDS = 60.0


class MathsOptions(Options):
    """`reference` is the right answer in LaTeX or plain notation, `wall_seconds` the limit of one comparison."""

    shorthand: ClassVar[str] = "reference"
    reference: str = Field(min_length=1, max_length=_MOST_CHARACTERS)
    wall_seconds: float = Field(default=5.0, gt=0, strict=False)


def maths(options: MathsOptions, site: Site) -> Leaf:
    """Accepts an answer that is equivalent to the reference. The feedback never tells the reference.

    Raises MissingExtraError where math-verify is not installed.
    """
    if find_spec("math_verify") is None:
        raise MissingExtraError("the verifier 'maths'", "maths")

    def work(step: Step, call: Call, reply: Reply) -> Process[Verdict]:
        del step, call
        given = answer.final_answer(reply.text)
        if not given:
            return reject("format", "The answer is empty. End with 'Answer:' and the result.")
        job = partial(shared_worker().equal, options.reference, given[:_MOST_CHARACTERS], options.wall_seconds)
        equal = yield Compute("maths", job)
        return decided(bool(equal), "wrong", "The result is not right. Check each step.")

    spend = wall(options.wall_seconds + _START_SECONDS)
    return leaf("maths", options, Rates(0.98, 0.01), work, site, spend=spend)


class MathsWorker:
    """One worker process, started at the first question, restarted after a time-out, reused in between.

    Threads may share it and take turns. It ends with the process that made it, however that ends.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        script = Path(__file__).with_name("maths_worker.py")
        self._command = command or [sys.executable, "-I", str(script)]
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._life = -1
        self._turn = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Id of the running worker process, None while there is none."""
        return None if self._process is None else self._process.pid

    def equal(self, reference: str, given: str, seconds: float) -> bool:
        """Whether both mean the same; VerifierError when that took over `seconds` or could not be told."""
        with self._turn:
            fresh = self._process is None or self._process.poll() is not None
            result = self._ask({"reference": reference, "answer": given}, seconds + (_START_SECONDS if fresh else 0))
        if "error" in result:
            raise VerifierError(f"the maths worker failed: {result['error']}")
        return bool(result["equal"])

    def close(self) -> None:
        """End the worker process; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            os.close(self._life)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _ask(self, job: dict[str, str], seconds: float) -> dict[str, Any]:
        try:
            self._send(json.dumps(job) + "\n")
            result: dict[str, Any] = json.loads(self._answers.get(timeout=seconds))
        except queue.Empty:
            self.close()
            raise VerifierError(f"the comparison took over {seconds:g} s") from None
        except (OSError, ValueError) as cause:
            self.close()
            raise VerifierError("the maths worker ended without an answer") from cause
        return result

    def _send(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def _start(self) -> None:
        theirs, self._life = os.pipe()
        # A clean environment: the algebra works on text from a model and needs no keys.
        self._process = subprocess.Popen(  # noqa: S603  a fixed command
            [*self._command, str(theirs)],
            pass_fds=[theirs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
        os.close(theirs)
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(self._process, self._answers), daemon=True).start()


def _forward(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    """Pass on what the worker writes; an empty line, which is no JSON, stands for its end."""
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):  # closed while it was read: the worker was ended on purpose
        for line in process.stdout:
            answers.put(line)
    answers.put("")


def shared_worker() -> MathsWorker:
    """The worker of this process: one for all verifiers, a new one after a fork."""
    return _worker_of(os.getpid())


@functools.cache
def _worker_of(pid: int) -> MathsWorker:
    del pid
    worker = MathsWorker()
    atexit.register(worker.close)
    return worker
