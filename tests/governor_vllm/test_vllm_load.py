from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor import Governor
from governor.policy import policy_from
from governor_vllm.link import Link
from governor_vllm.load import EVERY, STALE, Gauge, Pressure, pressed, pressure_of, tells
from tests.governor_vllm.calls import MODEL, backend
from tests.governor_vllm.dialect import DialectServer

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="q"} 6.0
vllm:num_requests_running{engine="1",model_name="q"} 2.0
vllm:num_requests_running{engine="0",model_name="other"} 50.0
vllm:num_requests_waiting{engine="0",model_name="q"} 24.0
vllm:kv_cache_usage_perc{engine="0",model_name="q"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="q"} 0.9
vllm:num_requests_waiting_by_reason{engine="0",model_name="q"} 99.0
"""
PRIORITIES = st.integers(-20, 20)
LOADS = st.floats(0, 1)


def test_a_page_is_read_for_one_model_over_its_replicas() -> None:
    found = pressure_of(PAGE, "q")
    assert found == Pressure(running=8, waiting=24, cache=found.cache)
    assert found.cache == pytest.approx(0.7)
    assert found.load == 0.75
    assert pressure_of("up 1\n") == Pressure()
    assert pressure_of("").load == 0.0


def test_an_alias_or_an_adapter_has_the_load_of_its_engine() -> None:
    """vLLM labels its gauges with the first of its names alone."""
    alone = PAGE.replace('model_name="other"', 'model_name="q"')
    assert pressure_of(alone, "alias") == pressure_of(alone, "q")
    assert tells(alone, "alias")
    assert pressure_of(PAGE, "alias") == Pressure(), "whose engine it is can't be told among two"
    assert not tells(PAGE, "alias")


def test_a_page_tells_of_a_model_where_it_has_both_of_its_queues() -> None:
    assert tells(PAGE, "q")
    assert not tells(PAGE, "other"), "nobody says how many wait there"
    assert tells("vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n", "q")
    assert not tells("# HELP vllm:num_requests_running\n# HELP vllm:num_requests_waiting\n", "q")


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_load_lies_between_idle_and_full(running: float, waiting: float, cache: float) -> None:
    assert 0.0 <= Pressure(running, waiting, cache).load <= 1.0


@given(LOADS, LOADS, PRIORITIES, PRIORITIES)
def test_more_load_is_never_felt_less_and_a_higher_number_never_less(
    load: float, more: float, priority: int, later: int
) -> None:
    low, high = sorted((load, more))
    first, last = sorted((priority, later))
    assert pressed(low, first) <= pressed(high, first) <= pressed(high, last) <= 1.0
    assert pressed(1.0, first) == 1.0
    assert pressed(0.0, first) == 0.0


def test_steps_that_come_together_share_one_look(server: DialectServer) -> None:
    now = [100.0]
    gauge = Gauge(Link(server.url), clock=lambda: now[0])
    server.now(metrics="vllm:kv_cache_usage_perc 0.5\n")
    assert gauge.read() == 0.5
    server.now(metrics="vllm:kv_cache_usage_perc 0.9\n")
    assert gauge.read() == 0.5
    now[0] += EVERY
    assert gauge.read() == 0.9


def test_a_server_that_can_not_be_asked_counts_as_idle_once_its_last_answer_is_old(server: DialectServer) -> None:
    now = [100.0]
    link = Link(server.url)
    gauge = Gauge(link, clock=lambda: now[0])
    server.now(metrics="vllm:kv_cache_usage_perc 0.9\n")
    assert gauge.read() == 0.9
    link.root = "http://127.0.0.1:9"
    now[0] += EVERY
    assert gauge.read() == 0.9
    now[0] += STALE
    assert gauge.read() == 0.0


def rung_chosen(server: DialectServer, priority: int, waiting: int) -> str:
    """What a step of an application of this priority is answered by, with so many requests waiting beside ten."""
    server.now(metrics=f"vllm:num_requests_running 10\nvllm:num_requests_waiting {waiting}\n")
    ladder = [
        {"id": name, "model": MODEL, "thinking_tokens": tokens, "answer_tokens": 20}
        for name, tokens in (("brief", 4), ("medium", 64), ("long", 1024))
    ]
    models = {MODEL: {"price": {"output": 1}}}
    policy = policy_from({"version": 1, "ladder": ladder, "models": models, "dial": 0.05})
    with Governor(policy, backend=backend(server, priority=priority)) as governor:
        return governor.run("Prove that the square root of two is irrational, step by step.").rung


def test_under_overload_the_least_important_applications_give_way_first_and_by_degrees(server: DialectServer) -> None:
    order = ("brief", "medium", "long")
    table = {
        priority: [order.index(rung_chosen(server, priority, waiting)) for waiting in (0, 8, 30, 90, 10_000)]
        for priority in (9, 0, -9)
    }
    for falling in table.values():
        assert falling == sorted(falling, reverse=True)
        assert falling[-1] == 0
    assert all(low <= high for low, high in zip(table[9], table[0], strict=True))
    assert all(low <= high for low, high in zip(table[0], table[-9], strict=True))
    assert sum(table[9]) < sum(table[0]) < sum(table[-9])
