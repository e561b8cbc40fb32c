"""A proxy under Python 3.11 outlives what crashes its interpreter (cpython issue 148891)."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys

import pytest

from governor_litellm.garbage import keep_contexts
from tests.governor_litellm.proxy_process import environment

COLLECTED_AMID_SET = """
import gc
from contextvars import ContextVar

names = [ContextVar(f"name{number}") for number in range(40)]

class Stream:
    def __init__(self):
        self.itself = self

    def __del__(self):
        for name in names:
            name.set(object())

for name in names:
    name.set(object())
gc.disable()
for number in range(10_000):
    gc.collect(0)
    Stream()
    gc.set_threshold(1 + number % 12)
    gc.enable()
    names[number % 40].set(object())
    gc.disable()
print("whole")
"""
KEPT = "from governor_litellm.garbage import keep_contexts\nkeep_contexts()\n"


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_finalizers_that_set_context_variables_kill_no_process_that_keeps_its_contexts() -> None:
    done = ran(KEPT + COLLECTED_AMID_SET)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 collects no garbage amid ContextVar.set")
def test_without_that_the_interpreter_dies() -> None:
    """Nine times in ten. If it no longer does, governor_litellm.garbage can go."""
    assert any(ran(COLLECTED_AMID_SET).returncode == -signal.SIGSEGV for _ in range(10))


def test_contexts_are_kept_once_and_only_where_they_must_be() -> None:
    before = list(gc.callbacks)
    keep_contexts()
    once = list(gc.callbacks)
    keep_contexts()
    try:
        assert gc.callbacks == once
        assert any("governor_litellm.garbage" in str(getattr(one, "__module__", "")) for one in once) == (
            sys.version_info < (3, 12)
        )
    finally:
        gc.callbacks[:] = before
