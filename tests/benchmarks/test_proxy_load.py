"""The judge of the load benchmark must find every kind of bad result; the short form is the benchmark itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ledger_report import Claim
from benchmarks.proxy_load_evidence import Evidence, Load
from benchmarks.proxy_load_judge import blunders, judged
from benchmarks.proxy_load_memory import MOST_SHARE, grown, judgeable
from benchmarks.proxy_load_servers import BARE, GOVERNED, MORE, Policies
from benchmarks.proxy_load_traffic import APPS, Answer, Ask, asks
from benchmarks.proxy_load_upstream import SHARES, Served, Upstream
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import load_policy
from governor.records import Amount, Limit
from governor.testing import FrozenClock
from tests.governor_litellm.proxy_process import ROOT, environment

NOW = 1_000_000.0
OUTAGE = (NOW + 100.0, NOW + 102.0)


def ask(number: str = "r1", app: str = "open", *, stream: bool = True, leaving: Any = "") -> Ask:
    return Ask(number, app, "chat", stream, leaving)


def answer(number: str = "r1", status: int = 200, began: float = NOW, **more: Any) -> Answer:
    asked = more.pop("ask", ask(number))
    return Answer(asked, GOVERNED[0], began, 0.1, status, whole=status == 200, **more)


FINE = (
    answer("r1"),
    answer("r2", 500),
    answer("r3", 429),
    answer("r4", 408),
    answer("r5", 503, OUTAGE[0], said="governor: the ledger can't be reached"),
    answer("r6", 402, said="governor: budget", ask=ask("r6", "poor")),
    answer("r7", 0, ask=ask("r7", leaving="before")),
    replace(answer("r8"), whole=False),
)
SERVED = {
    "r1": Served(30, 1),
    "r2": Served(0, 1, ["500"]),
    "r3": Served(0, 1, ["429"]),
    "r4": Served(30, 1, ["hang"]),
    "r8": Served(22, 1, ["cut"]),
}


def line(kind: str, step: str, app: str, run: str, policy: str, **more: Any) -> Mapping[str, Any]:
    """A record line with what the judge and the audit read of it."""
    base = {"schema": 1, "kind": kind, "time": "1970-01-12T13:46:40.000Z", "app": app, "policy": policy}
    return {**base, "step_id": step, "run": run and f"a-key/{run}", "session": "", "node": "default", **more}


def spent(tokens: int) -> Mapping[str, int]:
    return {"tokens": tokens, "micros": tokens, "millis": 100, "calls": 1, "input": 20, "thinking": 0, "answer": 10}


def step(name: str, run: str, tokens: int = 30, *, app: str = "open", policy: str = "d1") -> list[Mapping[str, Any]]:
    """An attempt and the outcome of it, booked on the application's scope."""
    usage = {"input_tokens": 20, "output_tokens": tokens - 20, "thinking_tokens": 0, "cached_tokens": 0}
    attempt = line("attempt", name, app, run, policy, usage=usage, micros=tokens, calls=1, seconds=0.1, verdict=None)
    outcome = line(
        "outcome",
        name,
        app,
        run,
        policy,
        attempts=2 if run == "r8" else 1,
        spent=spent(tokens),
        scopes=[f"app:{app}"],
        usage=usage,
        verifier_usage=dict.fromkeys(usage, 0),
        micros=tokens,
    )
    return [attempt, outcome]


def books(**settled: int) -> tuple[Any, Any]:
    """Balances and reservations of a ledger that settled these steps; 0 leaves one open until its lease runs out."""
    clock = FrozenClock(NOW)
    ledger: Any = open_ledger("memory://", clock=clock)
    for name, tokens in settled.items():
        ledger.reserve(name, Amount(tokens=100, micros=100), (Limit("app:open", micros=1_000),))
        if tokens:
            ledger.settle(name, Amount(**spent(tokens)))
    clock.advance(901.0)
    return ledger.balances(), ledger.reservations()


def evidence(**changed: Any) -> Evidence:
    """What a run leaves in which all is well, but for what is changed."""
    balances, reservations = books(s1=30, s4=30, s8=30)
    records = [*step("s1", "r1"), *step("s4", "r4"), *step("s8", "r8")]
    records += [dict(one) | {"scopes": []} for app in MORE if app != "open" for one in step(f"of {app}", "", app=app)]
    load = Load(50.0, 8.0, 1.0, changed.pop("answers", FINE), (OUTAGE,), changed.pop("memory", ()))
    usual: dict[str, Any] = {
        "load": load,
        "served": SERVED,
        "records": records,
        "balances": balances,
        "reservations": reservations,
        "flights": dict.fromkeys(GOVERNED, 0),
        "logs": dict.fromkeys(GOVERNED, ""),
        "rewritten": 3,
        "invalid": 1,
    }
    return Evidence(**usual | changed)


def broken(found: Evidence) -> dict[str, Claim]:
    """The promises that do not hold."""
    return {claim.text: claim for claim in judged(found, NOW) if not claim.met}


def test_a_run_in_which_every_error_has_its_cause_keeps_all_promises() -> None:
    assert broken(evidence()) == {}


@pytest.mark.parametrize(
    ("seen", "promise"),
    [
        (answer("r9", 500), "5xx caused by the hook"),
        (answer("r3", 500), "5xx caused by the hook"),  # of a 429 no 500 may come
        (answer("r9", 500, OUTAGE[0], said="governor: the ledger"), "5xx caused by the hook"),
        (answer("r9", 503, NOW, said="governor: the ledger"), "5xx caused by the hook"),  # no outage then
        (answer("r9", 503, OUTAGE[0], said="what is this"), "5xx caused by the hook"),
        (answer("r9", 0), "other answers without a cause"),
        (answer("r9", 429), "other answers without a cause"),
        (replace(answer("r9"), whole=False), "other answers without a cause"),
    ],
)
def test_an_answer_without_a_cause_is_found(seen: Answer, promise: str) -> None:
    assert set(broken(evidence(answers=(*FINE, seen)))) == {promise}
    bare = replace(seen, proxy=BARE)  # nobody's fault but LiteLLM's
    assert broken(evidence(answers=(*FINE, bare))) == {}


def test_a_scope_that_passed_its_limit_is_found() -> None:
    clock = FrozenClock(NOW)
    ledger: Any = open_ledger("memory://", clock=clock)
    ledger.reserve("s1", Amount(micros=100), (Limit("app:open", micros=100),))
    ledger.settle("s1", Amount(micros=101))
    found = broken(evidence(balances=ledger.balances(), reservations=ledger.reservations()))
    assert found["scopes that passed a limit"].measured == "1: app:open"


def test_a_settlement_that_differs_or_is_lost_is_found() -> None:
    balances, reservations = books(s1=31, s4=30, s8=30)
    found = broken(evidence(balances=balances, reservations=reservations))
    assert "records that do not match the ledger" in found
    balances, reservations = books(s1=0, s4=30, s8=30)
    found = broken(evidence(balances=balances, reservations=reservations))
    assert found["settlements lost"].measured.startswith("1")


def test_no_lease_may_run_out_even_where_redis_was_gone() -> None:
    balances, reservations = books(s1=30, s4=30, s8=30, s5=0)
    late = [{**one, "time": "1970-01-12T13:48:20.500Z"} for one in step("s5", "r5", 30)]
    kept = evidence()
    found = broken(replace(kept, balances=balances, reservations=reservations, records=[*kept.records, *late]))
    assert found["settlements lost"].measured == "1: s5"


def test_a_proxy_that_died_is_found() -> None:
    assert broken(evidence(died={BARE: -11}))["proxies that died"].measured == f"1: {BARE}: exit status -11"


def test_what_was_settled_without_a_record_must_have_had_a_client_that_left() -> None:
    balances, reservations = books(s1=30, s4=30, s8=30, gone=30)
    once = evidence(balances=balances, reservations=reservations)
    assert broken(once) == {}
    balances, reservations = books(s1=30, s4=30, s8=30, gone=30, too=30)
    twice = evidence(balances=balances, reservations=reservations)
    assert set(broken(twice)) == {"settled without a record: clients that left"}


def test_less_than_was_served_may_not_be_booked() -> None:
    found = broken(evidence(served={**SERVED, "r1": Served(31, 1)}))
    assert found["requests booked below what was served"].measured == "1: r1"
    without = broken(evidence(served={**SERVED, "r7": Served(1, 1)}))
    assert without["requests booked below what was served"].measured == "1: without a record"


def test_flights_reloads_and_faults_that_never_came_are_found() -> None:
    assert "flights left open" in broken(evidence(flights={GOVERNED[0]: 1, GOVERNED[1]: 0}))
    assert "reloads that served" in broken(evidence(rewritten=100))
    quiet = {number: Served(one.tokens, one.calls) for number, one in SERVED.items()}
    assert broken(evidence(served=quiet))["what never befell the proxies"].measured == "4: 429, 500, hang"
    usual = evidence()
    late = replace(usual, load=replace(usual.load, rate=2 * usual.load.rate))
    assert set(broken(late)) == {"requests brought, of those intended"}


OWN = """Traceback (most recent call last):
  File "/x/litellm/proxy/utils.py", line 1, in a
    b()
  File "/x/adapters/governor_litellm/flight.py", line 2, in b
    raise KeyError
KeyError: 'x'
"""


def test_tracebacks_that_end_in_the_hook_are_found_and_refusals_are_none() -> None:
    assert len(list(blunders(OWN))) == 1
    theirs = OWN.replace("/x/litellm", "/x/governor").replace("governor_litellm", "litellm")
    assert list(blunders(theirs)) == []
    refused = OWN.replace("KeyError: 'x'", "litellm.proxy._types.ProxyException: governor: no budget is left")
    assert list(blunders(refused)) == []
    assert len(list(blunders("governor failed (fail: closed)\n"))) == 1
    assert "defects in the proxies' logs" in broken(evidence(logs={GOVERNED[0]: OWN}))


def sizes(each: float, beyond: float, seconds: float = 1800.0) -> list[Any]:
    """Samples of proxies that grow by so many MiB a minute, with a saw that no line should see."""
    return [
        (
            NOW + at,
            {name: 400.0 + at / 60 * (each + (beyond if name != BARE else 0.0)) + at % 7 for name in (BARE, *GOVERNED)},
        )
        for at in range(int(seconds))
    ]


def test_growth_is_that_of_the_second_half_beyond_the_bare_proxy() -> None:
    samples = sizes(1.0, 0.5)
    own, beyond = grown(samples, GOVERNED[0]), grown(samples, GOVERNED[0], BARE)
    assert own.estimate == pytest.approx(22.5, abs=0.5)
    assert own.low < 22.5 < own.high
    assert beyond.estimate == pytest.approx(7.5, abs=0.1)


def test_memory_that_grows_is_found_and_a_short_run_is_not_judged() -> None:
    allowed = MOST_SHARE * 400 / 15
    assert broken(evidence(memory=sizes(5.0, 0.5 * allowed))) == {}
    assert len(broken(evidence(memory=sizes(0.0, 1.5 * allowed)))) == 2
    assert not judgeable(sizes(0.0, 9.0, seconds=300.0))


def test_the_same_seed_brings_the_same_requests_in_the_stated_shares() -> None:
    first, again = (list(islice(asks("r", 1, aborts=True), 4_000)) for _ in range(2))
    assert first == again
    assert first != list(islice(asks("r", 2, aborts=True), 4_000))
    for app, share in APPS.items():
        assert sum(one.app == app for one in first) / 4_000 == pytest.approx(share, abs=0.03)
    assert 0.02 < sum(bool(one.leaving) for one in first) / 4_000 < 0.06
    assert not any(one.leaving for one in islice(asks("c", 1, aborts=False), 500))


async def told(upstream: Upstream, number: str, *, stream: bool) -> bytes:
    """What comes of one call of the small model."""
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        content = [{"role": "user", "content": f"request {number}"}]
        body = json.dumps({"model": "small", "messages": content, "stream": stream}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        writer.write_eof()
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
    return said


async def test_the_upstream_fails_by_lot_and_counts_what_it_served(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(1)
    assert b"is it" in await told(upstream, "c1", stream=False)
    assert upstream.served["c1"] == Served(30, 1)
    assert b"[DONE]" in await told(upstream, "c2", stream=True)
    assert upstream.served["c2"] == Served(30, 1)
    monkeypatch.setattr("benchmarks.proxy_load_upstream.SHARES", dict.fromkeys(SHARES, 0.0) | {"cut": 1.0})
    assert b"[DONE]" not in await told(upstream, "r1", stream=True)
    assert upstream.served["r1"] == Served(23, 1, ["cut"])
    monkeypatch.setattr("benchmarks.proxy_load_upstream.SHARES", dict.fromkeys(SHARES, 0.0) | {"429": 1.0})
    assert (await told(upstream, "r2", stream=False)).startswith(b"HTTP/1.1 429 ")
    assert upstream.served["r2"] == Served(0, 1, ["429"])


def test_one_rewriting_in_seven_can_not_be_used_and_the_others_differ(tmp_path: Path) -> None:
    policies = Policies(tmp_path, "memory://")
    digests = set()
    for _ in range(6):
        policies.write()
        for app in MORE:
            with Governor(load_policy(tmp_path / f"{app}.yaml")) as governor:
                digests.add(governor.policy.digest)
    assert len(digests) == 6 * len(MORE)
    policies.write()
    assert (policies.written, policies.invalid) == (7, 1)
    assert (tmp_path / "checked.yaml").read_text() == "ladder: ["


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_minutes_of_load_keep_every_promise() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed (apt-get install redis-server)")
    if importlib.util.find_spec("litellm_enterprise") is None:
        pytest.skip("the proxy needs the extra 'proxy'")
    command = [sys.executable, "-m", "benchmarks.proxy_load", "--minutes", "1.2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    always = [claim for claim in told["claims"] if not claim["machine"]]
    assert always
    assert [claim for claim in always if not claim["met"]] == [], done.stderr
