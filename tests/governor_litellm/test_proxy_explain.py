"""POST /governor/explain: what would become of a request; for the admin alone, and without any effect."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from governor_litellm.explain import Question
from tests.governor_litellm.proxy_app import ASK, MASTER, ProxyUnderTest

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROUTE = "/governor/explain"
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "small", "messages": ASK, "max_tokens": 150},
    "responses": {"model": "small", "input": "What is it?", "max_output_tokens": 150},
    "messages": {"model": "small", "messages": ASK, "max_tokens": 150},
}


@pytest.mark.parametrize("wire", BODIES)
async def test_a_request_is_explained_as_it_would_be_governed(proxy: ProxyUnderTest, wire: str) -> None:
    app = proxy.policy("verify: {regex: '42'}\nbudget: {app: {per: total, usd: 1}, tenant: {per: total, calls: 5}}\n")
    told = (await proxy.post(f"{ROUTE}?app={app}&tenant=t7&format={wire}", BODIES[wire], MASTER)).json()
    assert (told["app"], told["governed"], told["mode"]) == (app, True, "on")
    assert [(rung["id"], rung["answer_tokens"]) for rung in told["ladder"]] == [("weak", 100), ("strong", 150)]
    assert told["rung"] in ("weak", "strong")
    assert [forecast["rung"] for forecast in told["forecasts"]] == ["weak", "strong"]
    assert told["verifier"]["name"] == "regex"
    assert {one["scope"]: one["limit"] for one in told["budgets"]} == {
        f"app:{app}": {"micros": 1_000_000},
        f"tenant:{app}/t7": {"calls": 5},
    }
    assert proxy.upstream.seen == [], "nothing was called"
    assert proxy.balance(f"app:{app}").reserved.calls == 0, "nothing is held"
    assert proxy.governor.desk.folder.served[app].using == 0


async def test_it_says_where_budgets_stand(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {app: {per: total, calls: 3}}\n")
    proxy.default(app)
    assert (await proxy.chat()).status_code == 200
    told = (await proxy.post(ROUTE, BODIES["chat"], MASTER)).json()
    assert told["budgets"] == [
        {"scope": f"app:{app}", "limit": {"calls": 3}, "spent": {"calls": 1}, "reserved": {"calls": 0}}
    ]


async def test_it_is_the_admins_alone(proxy: ProxyUnderTest) -> None:
    proxy.default(proxy.policy(""))
    assert (await proxy.post(ROUTE, BODIES["chat"], "sk-alpha")).status_code == 403


@pytest.mark.parametrize(
    ("query", "body", "told"),
    [
        ("?app=nobody", BODIES["chat"], "no policy for the application 'nobody'"),
        ("?format=morse", BODIES["chat"], "format must be one of chat, responses, messages"),
        ("", {"model": "small", "messages": "no"}, "messages must be a list"),
    ],
)
async def test_a_wrong_question_is_a_400_that_says_why(proxy: ProxyUnderTest, query: str, body: Any, told: str) -> None:
    if query != "?app=nobody":
        proxy.default(proxy.policy(""))
    answered = await proxy.post(f"{ROUTE}{query}", body, MASTER)
    assert answered.status_code == 400, answered.text
    assert told in answered.text
    for served in proxy.governor.desk.folder.served.values():
        assert served.using == 0


@pytest.mark.parametrize("body", [b"[1, 2]", b"no", b"[" * 200_000])
async def test_a_body_that_is_no_object_is_a_400(proxy: ProxyUnderTest, body: bytes) -> None:
    """LiteLLM's own checks fail at such bodies before a route sees them, with errors of its own."""
    request = Request({"type": "http", "method": "POST", "path": ROUTE, "query_string": b"", "headers": []})
    request._body = body
    with pytest.raises(Exception, match="must be the JSON object") as refused:
        await Question.of(request)
    assert str(getattr(refused.value, "code", "")) == "400"


async def test_what_is_left_alone_is_said_to_be(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("")
    told = (await proxy.post(f"{ROUTE}?app={app}", {**BODIES["chat"], "n": 2}, MASTER)).json()
    assert told == {"app": app, "governed": False}


async def test_what_would_be_refused_for_having_no_bound_is_refused_here_too(proxy: ProxyUnderTest) -> None:
    app = proxy.policy("budget: {app: {per: total, calls: 5}}\n")
    asked = await proxy.post(f"{ROUTE}?app={app}", {**BODIES["chat"], "n": 2}, MASTER)
    assert asked.status_code == 400
    assert "ask for one choice" in asked.json()["error"]["message"]
