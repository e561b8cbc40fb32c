"""What a process with a local model does at its end: exits at once, says nothing, and listens to Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.processes import interruptible

ROOT = Path(__file__).parents[2]
SILENCE = 20
"""Seconds without a word after which a process is held to hang."""
START = """
import asyncio, sys, threading, time
from governor_local import LocalBackend
from tests.governor_local.calls import STORY, ask
backend = LocalBackend(threads=1)
backend.load("smollm2-135m")
print("ready", flush=True)
"""


def started(code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "adapters")))}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", START + code]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=interruptible,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:  # waits and closes the pipes
        try:
            out, errors = process.communicate(timeout=SILENCE)
        finally:
            process.kill()  # does nothing to one that has ended
    return process.returncode, out.strip(), errors.strip()


def ended_by_ctrl_c(process: subprocess.Popen[str]) -> bool:
    code, _, errors = ended(process)
    return (code, errors.splitlines()[-1:]) == (-signal.SIGINT, ["KeyboardInterrupt"])


def said(process: subprocess.Popen[str]) -> str:
    """The next line that it says; empty if it ends first, or is silent for so long that it is killed."""
    assert process.stdout is not None
    watch = threading.Timer(SILENCE, process.kill)
    watch.start()
    try:
        return process.stdout.readline()
    finally:
        watch.cancel()


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize(
    "code",
    [
        "backend.call(ask('Hi', tokens=5))",
        "cycle = [backend]; cycle.append(cycle); backend.call(ask('Hi', tokens=5))",
        "backend.call(ask('Hi', tokens=5)); backend.close()",
        "stream = backend.stream(ask(STORY, tokens=3000)); next(stream)",
    ],
    ids=["idle", "cycle", "closed", "half-read"],
)
def test_a_process_ends_at_once_and_silently(code: str) -> None:
    process = started(code)
    assert said(process) == "ready\n"
    since = time.monotonic()
    assert ended(process) == (0, "", "")
    assert time.monotonic() - since < 10


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
def test_ctrl_c_reaches_python_while_the_model_runs() -> None:
    process = started("""
stream = backend.stream(ask(STORY, tokens=3000))
print(next(stream) and "running", flush=True)
backend.call(ask(STORY, tokens=3000))
""")
    assert [said(process) for _ in range(2)] == ["ready\n", "running\n"]
    process.send_signal(signal.SIGINT)
    assert ended_by_ctrl_c(process)


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("begins", [False, True])
def test_ctrl_c_reaches_python_while_a_generation_is_to_start(begins: bool) -> None:
    process = started(f"""
start = threading.Thread.start
def interrupted(thread):
    if thread.name == "governor-local":
        if {begins}:
            start(thread)
        raise KeyboardInterrupt
    start(thread)
threading.Thread.start = interrupted
backend.call(ask(STORY, tokens=3000))
""")
    assert said(process) == "ready\n"
    assert ended_by_ctrl_c(process)


ONE_CPU = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process is held to one CPU on Linux only")
"""There the server's own thread has mostly not run yet when its model is said to be there."""


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
@ONE_CPU
def test_ctrl_c_while_a_model_loads_ends_the_process() -> None:
    process = started("""
import os, xllamacpp
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
load = xllamacpp.Server
def told(parameters):
    print("loading", flush=True)
    return load(parameters)
xllamacpp.Server = told
backend.close()
LocalBackend(threads=1).load("smollm2-135m")
time.sleep(60)
""")
    assert [said(process) for _ in range(2)] == ["ready\n", "loading\n"]
    time.sleep(0.05)  # in mid load, if it takes longer; before or behind it, Ctrl-C ends the process too
    process.send_signal(signal.SIGINT)
    assert ended_by_ctrl_c(process)


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
@ONE_CPU
def test_a_model_that_has_just_loaded_can_be_freed() -> None:
    process = started("""
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for _ in range(3):
    backend.close()
    backend = LocalBackend(threads=1)
    backend.load("smollm2-135m")
    print("freed", flush=True)
""")
    assert [said(process) for _ in range(4)] == ["ready\n", *["freed\n"] * 3]  # however long that takes in all
    assert ended(process) == (0, "", "")


def test_importing_the_adapter_loads_nothing_heavy() -> None:
    heavy = {"xllamacpp", "huggingface_hub", "pydantic", "numpy"}
    code = f"import sys, governor_local.registry; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "adapters")))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
