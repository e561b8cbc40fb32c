from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from governor.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendReplyError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
)
from governor.records import Call, Reply, Rung
from governor_litellm import LiteLLMBackend
from governor_litellm.faults import KINDS, fault, line
from governor_litellm.retries import RetryPolicy, retry_after
from tests.governor_litellm.stub import Answer, StubServer, as_json, error
from tests.ports import refused_port

QUICK = RetryPolicy(first=0.01, longest=0.05, jitter=0.01)
ONCE = RetryPolicy(first=100, longest=100)
PROVIDERS = [
    "openai/m",
    "hosted_vllm/m",
    "anthropic/claude-3-5-haiku",
    "gemini/gemini-2.5-flash",
    "deepseek/deepseek-v4-pro",
]
JSON = {"content-type": "application/json"}
UNREADABLE = {
    "garbage": Answer(200, b"{not json", JSON),
    "html": Answer(200, b"<html>", {"content-type": "text/html"}),
    "other json": as_json({"hello": 1}),
    "null": as_json(None),
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    set_keys(monkeypatch)


def set_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC", "GEMINI", "DEEPSEEK"):
        monkeypatch.setenv(f"{name}_API_KEY", "test-key")


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """A process's first calls import LiteLLM and its providers, which takes longer than what is timed here."""
    with pytest.MonkeyPatch.context() as patched:
        set_keys(patched)
        for model in PROVIDERS:
            with StubServer([error(400)]) as stub, pytest.raises(BackendError):
                send(stub.url, model)


def send(
    url: str, model: str = "openai/m", timeout: float = 5.0, retries: RetryPolicy = QUICK, **options: Any
) -> Reply:
    ours = LiteLLMBackend({model: {"api_base": url}}, retries=retries, **options)
    return ours.call(request(model, timeout))


async def asend(url: str, model: str = "openai/m", *, within: float = 5.0, retries: RetryPolicy = QUICK) -> Reply:
    ours = LiteLLMBackend({model: {"api_base": url}}, retries=retries)
    return await ours.acall(request(model, within))


def request(model: str, timeout: float) -> Call:
    return Call(
        step_id="s", rung=Rung(id="r", model=model), messages=({"role": "user", "content": "hi"},), timeout=timeout
    )


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_recovers_is_asked_exactly_as_often_as_needed(server: StubServer, model: str) -> None:
    server.then(error(500), error(503), error(429))
    assert send(server.url, model).text == "ok"
    assert len(server.seen) == 4


async def test_the_async_path_retries_alike(server: StubServer) -> None:
    server.then(error(500), error(503), error(429))
    assert (await asend(server.url)).text == "ok"
    assert len(server.seen) == 4


def test_retry_after_is_waited_for(server: StubServer) -> None:
    server.then(error(429, retry_after="0.4"))
    slept: list[float] = []
    send(server.url, timeout=60, sleep=slept.append)
    assert (slept, len(server.seen)) == ([0.4], 2)


def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once(server: StubServer) -> None:
    server.then(error(429, retry_after="60"))
    slept: list[float] = []
    with pytest.raises(BackendRateLimitError) as caught:
        send(server.url, sleep=slept.append)
    assert (slept, len(server.seen), caught.value.sent) == ([], 1, True)
    assert caught.value.seconds < 1


def test_retries_never_sleep_past_the_deadline(server: StubServer) -> None:
    server.then(*[error(500)] * 60)
    now = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    policy = RetryPolicy(first=0.5, longest=8.0, jitter=0.0, clock=lambda: now[0])
    with pytest.raises(BackendUnavailableError) as caught:
        send(server.url, timeout=20.0, retries=policy, sleep=sleep)
    assert slept == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert len(server.seen) == 6
    assert caught.value.seconds == sum(slept) == 15.5


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_hangs_is_left_at_the_deadline(server: StubServer, model: str) -> None:
    server.then(Answer(hang=60))
    with pytest.raises(BackendTimeoutError):
        send(server.url, model, timeout=0.5)
    assert not server.hung
    assert len(server.seen) < 2, "it is not asked again; on a busy machine it may not have been asked yet"


async def test_the_async_path_leaves_at_the_deadline_too(server: StubServer) -> None:
    server.then(Answer(hang=60))
    with pytest.raises(BackendTimeoutError) as caught:
        await asend(server.url, within=0.5)
    assert not server.hung
    assert caught.value.sent


async def test_cancellation_passes_through(server: StubServer) -> None:
    server.then(Answer(hang=5))
    task = asyncio.create_task(asend(server.url))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("model", PROVIDERS)
async def test_a_refused_connection_was_certainly_not_sent(model: str) -> None:
    with refused_port() as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(BackendUnavailableError) as caught:
            send(url, model, retries=ONCE)
        assert caught.value.sent is False
        with pytest.raises(BackendUnavailableError) as caught:
            await asend(url, model, retries=ONCE)
    assert (caught.value.sent, caught.value.model) == (False, model)


def test_a_call_that_once_reached_the_server_stays_sent() -> None:
    server = StubServer([error(500)])

    def sleep(_: float) -> None:
        server.close()

    with pytest.raises(BackendUnavailableError) as caught:
        send(server.url, timeout=0.5, retries=RetryPolicy(first=0.2, longest=0.2, jitter=0.0), sleep=sleep)
    assert caught.value.sent is True


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("model", PROVIDERS)
def test_an_unreadable_reply_is_said_to_be_one_and_not_bought_again(
    server: StubServer, model: str, answer: Answer
) -> None:
    server.then(answer)
    with pytest.raises(BackendReplyError) as caught:
        send(server.url, model)
    assert (len(server.seen), caught.value.sent) == (1, True)


@pytest.mark.parametrize("answer", [as_json({"id": "x", "choices": []}), Answer(200, b'{"id":', JSON, cut=True)])
def test_no_choices_and_half_a_body_are_unreadable(server: StubServer, answer: Answer) -> None:
    server.then(answer)
    with pytest.raises(BackendReplyError):
        send(server.url)
    assert len(server.seen) == 1


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BackendRequestError), (401, BackendAuthError), (403, BackendAuthError), (404, BackendRequestError)],
)
def test_refusals_are_final(server: StubServer, model: str, status: int, kind: type[BackendError]) -> None:
    server.then(error(status))
    with pytest.raises(kind) as caught:
        send(server.url, model)
    assert (len(server.seen), caught.value.sent, caught.value.model) == (1, True, model)
    assert "\n" not in str(caught.value)


def test_a_global_retry_setting_of_litellm_does_not_multiply(
    server: StubServer, litellm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "num_retries", 3)
    server.then(*[error(500)] * 9)
    with pytest.raises(BackendUnavailableError):
        send(server.url, retries=ONCE)
    assert len(server.seen) == 1


def test_the_key_never_shows(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "quite-secret-value")
    server.then(error(401, "wrong key quite-secret-value and sk-abcdefghijklmnop1234"))
    ours = LiteLLMBackend({"openai/m": {"api_base": server.url, "api_key_env": "MY_KEY"}})
    with pytest.raises(BackendAuthError) as caught:
        ours.call(request("openai/m", 5))
    assert "quite-secret" not in str(caught.value)
    assert "sk-abc" not in str(caught.value)
    assert caught.value.__suppress_context__


def exported(litellm: Any) -> set[str]:
    spaces = (vars(litellm), vars(litellm.exceptions))
    classes = [item for space in spaces for item in space.values() if isinstance(item, type)]
    mine = [item for item in classes if issubclass(item, Exception) and item.__module__.startswith("litellm")]
    return {item.__name__ for item in mine}


def test_every_exception_that_litellm_exports_is_mapped(litellm: Any) -> None:
    assert exported(litellm) - set(KINDS) == set()
    assert set(KINDS) - exported(litellm) == set()


@pytest.mark.parametrize(
    ("make", "kind", "sent"),
    [
        (lambda x: x.UnsupportedParamsError(message="no"), BackendRequestError, False),
        (lambda x: x.ContextWindowExceededError(message="no", model="m", llm_provider="p"), BackendRequestError, True),
        (lambda x: x.ServiceUnavailableError(message="no", model="m", llm_provider="p"), BackendUnavailableError, True),
        (lambda x: ModuleNotFoundError("No module named 'mcp'"), BackendRequestError, False),
        (lambda x: ZeroDivisionError("odd"), BackendReplyError, True),
    ],
)
def test_single_mappings(litellm: Any, make: Callable[[Any], Exception], kind: type[BackendError], sent: bool) -> None:
    told = fault(make(litellm.exceptions), model="m", seconds=1.5)
    assert (type(told), told.sent, told.seconds, told.model) == (kind, sent, 1.5, "m")


def test_retry_after_takes_seconds_and_dates() -> None:
    def asked(value: str) -> float | None:
        return retry_after(error_with({"retry-after": value}))

    def error_with(headers: dict[str, str]) -> Exception:
        told = Exception()
        told.response = SimpleNamespace(headers=headers)  # type: ignore[attr-defined]
        return told

    later = asked(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert asked("7") == 7.0
    assert asked("-1") == 0.0
    assert later is not None
    assert 25 < later <= 30
    assert asked("soon") is None
    assert retry_after(Exception()) is None


def test_long_errors_become_one_short_line() -> None:
    assert line(ValueError("a" * 900 + "\nb")) == "a" * 400
    assert line(ValueError("")) == "ValueError"


def test_a_module_that_litellm_lacks_is_named(litellm: Any) -> None:
    wrapped = litellm.APIConnectionError(message="OpenAIException", model="m", llm_provider="openai")
    wrapped.__cause__ = ModuleNotFoundError("No module named 'mcp'")
    told = fault(wrapped, model="m", seconds=0.0)
    assert isinstance(told, BackendRequestError)
    assert "No module named 'mcp'" in str(told)
    assert told.sent is False
