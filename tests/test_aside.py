"""Work that a step need not wait for: in a thread only where it would hold up an event loop, a piece at a time."""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass

import pytest

from governor.aside import Aside, Threads

SAID: ContextVar[str] = ContextVar("said", default="")


@dataclass
class Store:
    remote: bool = True


@pytest.mark.parametrize("store", [None, object(), Store(remote=False)])
async def test_what_answers_at_once_is_asked_at_once(store: object) -> None:
    asked: list[int] = []
    Aside(store)(lambda: asked.append(threading.get_ident()))
    assert asked == [threading.get_ident()]


def test_without_an_event_loop_a_server_is_asked_at_once_too_and_errors_are_the_caller_s() -> None:
    asked, aside = list[int](), Aside(Store())
    with pytest.raises(ValueError, match="broken"):
        aside(broken)
    aside(lambda: asked.append(threading.get_ident()))
    assert asked == [threading.get_ident()]


async def test_in_an_event_loop_nobody_waits_and_what_comes_meanwhile_is_left_out() -> None:
    aside, go, done = Aside(Store()), threading.Event(), list[str]()
    SAID.set("by the step")

    def slow() -> None:
        assert go.wait(10)
        done.append(SAID.get())

    aside(slow)
    aside(lambda: done.append("meanwhile"))
    assert not done
    go.set()
    await again(aside, "later", done)
    assert done[:2] == ["by the step", "later"]


async def test_a_defect_is_told_and_the_next_piece_runs(caplog: pytest.LogCaptureFixture) -> None:
    aside, done = Aside(Store()), list[str]()
    aside(broken)
    await again(aside, "next", done)
    assert "ValueError: broken" in caplog.text


async def test_where_no_thread_can_be_had_it_is_left_out_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aside, done = Aside(Store()), list[str]()
    with monkeypatch.context() as patched:
        patched.setattr(Threads, "submit", none)
        aside(lambda: done.append("never"))
    assert "for want of a thread" in caplog.text
    await again(aside, "next", done)
    assert done[0] == "next"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    threads = Threads(1, "of a test")
    assert threads.submit(os.getpid).result(10) == os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(0 if threads.submit(os.getpid).result(10) == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    threads.end()
    assert threads.submit(os.getpid).result(10) == os.getpid(), "who comes late gets a new one"
    threads.end()


async def again(aside: Aside, word: str, done: list[str]) -> None:
    """Give a piece that says `word`, until it was said: what is left out is due again."""
    async with asyncio.timeout(10):
        while word not in done:
            aside(lambda: done.append(word))
            await asyncio.sleep(0.01)


def none(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def broken() -> None:
    raise ValueError("broken")
