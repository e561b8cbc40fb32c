"""Time limits of requests: never more than there is, and so few different ones that connections are kept."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import BackendTimeoutError
from governor.records import Call, Rung
from governor_litellm import LiteLLMBackend
from governor_litellm.backend import Attempt
from governor_litellm.request import ModelOptions, Target
from governor_litellm.retries import RetryPolicy
from governor_litellm.timeouts import steady
from tests.governor_litellm.proxy_app import ProxyUnderTest
from tests.governor_litellm.stub import Answer, StubServer

SECONDS = st.floats(1e-3, 1e5)
LEFT = (59.98, 59.95, 59.91, 59.87, 59.7)
"""Of a step's 60 s when calls are made a little later each time."""
RUNG = Rung(id="r", model="openai/m", timeout=600.0)
EAGER = RetryPolicy(first=0.01, longest=0.01, jitter=0.0)


@given(seconds=SECONDS, usual=SECONDS)
def test_it_is_never_more_than_there_is_and_hardly_less(seconds: float, usual: float) -> None:
    given = steady(seconds, usual)
    assert 0.9 * min(seconds, usual) < given <= min(seconds, usual)


@given(seconds=SECONDS, usual=SECONDS)
def test_what_is_ended_anyway_never_has_less_than_there_is(seconds: float, usual: float) -> None:
    given = steady(seconds, usual, guarded=True)
    assert min(seconds, usual) <= given <= usual
    assert given < 1.11 * seconds or given == usual <= seconds


@pytest.mark.parametrize("guarded", [False, True])
@given(usual=SECONDS)
def test_what_there_is_anyway_is_given_whole(guarded: bool, usual: float) -> None:
    assert steady(usual, usual, guarded=guarded) == steady(2 * usual, usual, guarded=guarded) == usual


@pytest.mark.parametrize("guarded", [False, True])
def test_different_ones_are_few(guarded: bool) -> None:
    given = {steady(number / 1000, 600.0, guarded=guarded) for number in range(10_000, 100_000)}
    assert len(given) <= 91
    assert {steady(left, 600.0, guarded=guarded) for left in LEFT} == {60.0 if guarded else 59.0}


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_none_left_is_none_given(left: float) -> None:
    assert steady(left, 600.0) == left


def call(seconds: float) -> Call:
    return Call(step_id="s", rung=RUNG, messages=({"role": "user", "content": "hi"},), timeout=seconds)


def of(server: StubServer) -> LiteLLMBackend:
    return LiteLLMBackend({"openai/m": {"wire": "plain", "api_base": server.url}}, retries=EAGER)


def test_a_calls_first_request_has_all_of_its_time_and_a_later_one_what_is_left() -> None:
    now = [100.0]
    options = ModelOptions.read("openai/m", {"wire": "plain", "api_base": "http://127.0.0.1:1"})
    attempt = Attempt(call(600.0), Target.of("openai/m", options), RetryPolicy(clock=lambda: now[0]))
    given = []
    for later in (0.01, 100.0, 95.0):
        now[0] += later
        given.append(attempt.keywords(stream=False, guarded=False)["timeout"])
    assert given == [600.0, 490.0, 390.0]


def test_calls_of_a_step_with_a_deadline_share_a_connection() -> None:
    with StubServer(keeps=True) as server:
        ours = of(server)
        for seconds in LEFT:
            ours.call(call(seconds))
        peers = [seen.peer for seen in server.seen]
    assert len(peers) == len(LEFT)
    assert len(set(peers)) == 1


@pytest.mark.asyncio(loop_scope="session")
async def test_awaited_calls_of_a_step_with_a_deadline_share_a_connection() -> None:
    with StubServer(keeps=True) as server:
        ours = of(server)
        for seconds in LEFT:
            await ours.acall(call(seconds))
        peers = [seen.peer for seen in server.seen]
    assert len(peers) == len(LEFT)
    assert len(set(peers)) == 1


def test_a_request_that_ran_into_its_limit_is_not_sent_again_in_what_rounding_left() -> None:
    with StubServer([Answer(hang=5.0)]) as server:
        with pytest.raises(BackendTimeoutError, match=r"within 1\.9 s"):
            of(server).call(call(1.99))
        assert len(server.seen) == 1


async def test_an_awaited_one_has_all_of_its_time_and_is_not_sent_again() -> None:
    began = time.monotonic()
    with StubServer([Answer(hang=5.0)]) as server:
        with pytest.raises(BackendTimeoutError, match=r"within 1\.49 s"):
            await of(server).acall(call(1.49))
        assert time.monotonic() - began >= 1.49
        assert len(server.seen) == 1


@pytest.mark.asyncio(loop_scope="session")
async def test_a_proxys_requests_with_a_deadline_share_a_connection(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy("deadline: 15\nverify: {regex: '42'}\n"))
    upstream = proxy.upstream
    await proxy.chat()  # what is imported on first use takes of the deadline
    upstream.reset()
    upstream.keeps = True
    try:
        for _ in range(4):
            assert (await proxy.chat()).headers["x-governor-attempts"] == "2"
    finally:
        upstream.keeps = False
    assert len(upstream.peers) == 8
    assert len(set(upstream.peers[0::2])) == len(set(upstream.peers[1::2])) == 1, "one for each model"
