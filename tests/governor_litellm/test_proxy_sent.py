"""What was sent is booked, whatever failed afterwards; what never reached a model is not."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from governor.errors import BackendUnavailableError
from governor.protocols import Balance
from governor_litellm.tries import Tries
from tests.governor_litellm.proxy_app import ProxyUnderTest
from tests.governor_litellm.test_proxy_further import asking
from tests.governor_litellm.test_proxy_guards import Guarding, guarding
from tests.governor_litellm.test_proxy_hostile import PATHS
from tests.ports import free_port

__all__ = ["guarding"]
in_proxy = pytest.mark.asyncio(loop_scope="session")
BUDGET = "budget: {app: {per: total, usd: 1}}\n"


def rung(name: str, model: str, price: int = 1) -> str:
    paid = f"price: {{input: {price}, output: {2 * price}}}"
    return f"  - {{id: {name}, model: {model}, answer_tokens: 100, timeout: 20, {paid}}}\n"


async def ask_a_server_that_is_down() -> None:
    async with httpx.AsyncClient() as client:
        await client.post(f"http://127.0.0.1:{free_port()}/guard", json={})


async def judged(self: Any, data: Any, user_api_key_dict: Any, response: Any) -> Any:
    await ask_a_server_that_is_down()


async def judged_stream(self: Any, user_api_key_dict: Any, response: Any, request_data: Any) -> Any:
    held = [chunk async for chunk in response]
    await ask_a_server_that_is_down()
    for chunk in held:
        yield chunk


@in_proxy
@pytest.mark.parametrize("verify", ["", "verify: {regex: '4'}\n"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", PATHS)
async def test_a_guardrail_that_is_down_makes_no_call_free(
    proxy: ProxyUnderTest, guarding: Guarding, wire: str, stream: bool, verify: str
) -> None:
    import litellm

    guard = guarding(
        "post_call", async_post_call_success_hook=judged, async_post_call_streaming_iterator_hook=judged_stream
    )
    litellm.callbacks.insert(0, litellm.callbacks.pop(litellm.callbacks.index(guard)))  # before Governor
    app = proxy.policy(verify + BUDGET, ladder=f"ladder:\n{rung('only', 'small')}")
    proxy.default(app)
    await proxy.post(PATHS[wire], asking(wire, "Hi", stream=stream))
    await proxy.idle()
    assert proxy.upstream.seen
    assert proxy.balance(f"app:{app}").spent.calls == len(proxy.upstream.seen)


class Broken(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = b'{"error": {"message": "out of memory", "type": "t", "code": "500"}}'
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


class Restarting:
    """A model's server that refuses connections until `up`, and then fails."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Broken, bind_and_activate=False)
        self._server.server_bind()
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def up(self) -> None:
        if not self._thread.is_alive():
            self._server.server_activate()
            self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


@pytest.fixture
def restarting(proxy: ProxyUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarting]:
    """Served as the model `restarting`, with two retries."""
    from litellm import Deployment
    from litellm.proxy.proxy_server import llm_router
    from litellm.types.router import LiteLLM_Params

    assert llm_router is not None
    server = Restarting()
    reached = LiteLLM_Params(model="openai/x", api_base=f"http://127.0.0.1:{server.port}/v1", api_key="k")
    made: Any = llm_router.add_deployment(Deployment(model_name="restarting", litellm_params=reached))
    monkeypatch.setattr(llm_router, "num_retries", 2)
    monkeypatch.setattr(llm_router, "_time_to_sleep_before_retry", lambda *_, **__: 0)
    yield server
    llm_router.delete_deployment(made.model_info.id)
    server.close()


@contextmanager
def when_refused(
    proxy: ProxyUnderTest, server: Restarting, monkeypatch: pytest.MonkeyPatch
) -> Generator[None, None, None]:
    """The server comes up as soon as it has refused once."""
    desk = proxy.governor.desk
    told = type(desk).untried

    def untried(self: Any, data: Any, kind: object, error: Exception) -> None:
        told(self, data, kind, error)
        server.up()

    with monkeypatch.context() as patched:
        patched.setattr(type(desk), "untried", untried)
        yield


async def failed(proxy: ProxyUnderTest, wire: str, stream: bool) -> Balance:
    """What is booked of a request to the restarting server, all of whose tries fail."""
    app = proxy.policy(BUDGET, ladder=f"ladder:\n{rung('only', 'restarting')}")
    proxy.default(app)
    answered = await proxy.post(PATHS[wire], asking(wire, "Hi", stream=stream))
    assert answered.status_code == 500, answered.text
    await proxy.idle()
    return proxy.balance(f"app:{app}")


@in_proxy
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", PATHS)
async def test_a_retry_that_reached_the_model_is_booked_though_the_first_try_was_refused(
    proxy: ProxyUnderTest, restarting: Restarting, monkeypatch: pytest.MonkeyPatch, wire: str, stream: bool
) -> None:
    with when_refused(proxy, restarting, monkeypatch):
        balance = await failed(proxy, wire, stream)
    assert balance.spent.calls == 1


@in_proxy
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", PATHS)
async def test_a_server_that_refused_every_try_costs_nothing(
    proxy: ProxyUnderTest, restarting: Restarting, wire: str, stream: bool
) -> None:
    balance = await failed(proxy, wire, stream)
    assert (balance.spent.calls, balance.spent.micros, balance.reserved.micros) == (0, 0, 0)


@in_proxy
@pytest.mark.parametrize("comes_up", [False, True])
@pytest.mark.parametrize("wire", PATHS)
async def test_so_it_is_with_a_call_that_governor_makes(
    proxy: ProxyUnderTest, restarting: Restarting, monkeypatch: pytest.MonkeyPatch, wire: str, comes_up: bool
) -> None:
    ladder = f"ladder:\n{rung('a', 'small')}{rung('b', 'restarting', 5)}"
    app = proxy.policy(f"{BUDGET}verify: {{regex: '42'}}\nbacktrack: {{max_attempts: 2}}\n", ladder=ladder)
    proxy.default(app)
    with when_refused(proxy, restarting, monkeypatch) if comes_up else nullcontext():
        answered = await proxy.post(PATHS[wire], asking(wire, "Hi"))
    await proxy.idle()
    assert answered.headers["x-governor-attempts"] == "2", answered.text
    assert proxy.balance(f"app:{app}").spent.calls == len(proxy.upstream.seen) + comes_up
    assert not proxy.governor.models.further, "nothing is kept of a call that is over"


def test_a_call_within_another_is_no_try_more() -> None:
    told = Tries()
    told.begin("anthropic_messages")
    told.begin("acompletion")
    told.failed(error := refusal(), "acompletion")
    told.failed(error, "anthropic_messages")
    assert told.sent() is False


def refusal() -> Exception:
    """As a client raises it, on top of the system's own."""
    try:
        try:
            raise ConnectionRefusedError
        except OSError as refused:
            raise httpx.ConnectError("refused") from refused
    except httpx.ConnectError as error:
        return error


def beside(earlier: Exception, error: Exception) -> Exception:
    """An error that was raised where an earlier one was being handled."""
    try:
        try:
            raise RuntimeError("the first try") from earlier
        except RuntimeError:
            raise error from None
    except type(error) as raised:
        return raised


@pytest.mark.parametrize(
    ("tries", "sent"),
    [
        ([], False),
        ([None], True),
        ([refusal()], False),
        ([refusal(), None], True),
        ([refusal(), refusal()], False),
        ([BackendUnavailableError("the server failed", model="m"), refusal()], True),
    ],
)
def test_a_call_was_sent_if_any_try_may_have_been(tries: list[Exception | None], sent: bool) -> None:
    told = Tries()
    for error in tries:
        told.begin()
        if error is not None:
            told.failed(error)
    assert told.sent() is sent


def test_what_an_earlier_try_failed_with_does_not_explain_a_later_one() -> None:
    first = refusal()
    for later, sent in ((ValueError("no JSON"), True), (refusal(), False)):
        told = Tries(begun=2)
        told.failed(first)
        told.failed(beside(first, later))
        assert told.sent() is sent
