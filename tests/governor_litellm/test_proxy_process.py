"""`governor proxy` as a process, driven by the official clients."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.governor_litellm.proxy_app import CONFIG, LADDER, MASTER
from tests.governor_litellm.proxy_process import command, environment, proxy_process, ready
from tests.governor_litellm.upstream import STRONG, Upstream

POLICY = f"version: 1\napp: default\nledger: memory://\n{LADDER}verify: {{regex: '42|Oslo|answer'}}\n"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
ASK: Any = [{"role": "user", "content": "What is it?"}]


def laid_out(folder: Path, url: str) -> Path:
    (folder / "policies").mkdir()
    (folder / "policies" / "default.yaml").write_text(POLICY)
    lines = CONFIG.format(url=url).replace(', callbacks: ["governor_litellm.proxy.governor"]', "").splitlines()
    (folder / "litellm.yaml").write_text("\n".join(line for line in lines if "custom_auth" not in line))
    return folder


def test_a_missing_key_folder_or_policy_is_said_in_one_line(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "http://127.0.0.1:1")

    def told(*more: str, **environ: str) -> tuple[int, str]:
        done = subprocess.run(
            command(folder, *more), env=environment(**environ), capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr

    assert told() == (
        1,
        "governor: the proxy has no master key, so that anyone could use it: set LITELLM_MASTER_KEY to a long random "
        "value that begins with sk-\n",
    )
    (folder / "policies" / "bad.yaml").write_text("version: 1\nladdder: []\n")
    code, text = told(LITELLM_MASTER_KEY=MASTER)
    assert code == 2
    assert "bad.yaml:2:1" in text
    code, text = told("--policies", str(folder / "none"), LITELLM_MASTER_KEY=MASTER)
    assert (code, "no such folder" in text) == (2, True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Upstream]]:
    pytest.importorskip("litellm_enterprise", reason="the proxy needs the extra 'proxy'")
    with Upstream() as upstream:
        folder = laid_out(tmp_path_factory.mktemp("served"), upstream.url)
        with proxy_process(folder, folder / "log", LITELLM_MASTER_KEY=MASTER) as url:
            ready(url, folder / "log")
            yield url, upstream


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_official_clients_are_governed_unchanged(served: tuple[str, Upstream]) -> None:
    openai = pytest.importorskip("openai")
    url, upstream = served
    with openai.OpenAI(base_url=f"{url}/v1", api_key=MASTER, max_retries=0) as client:
        answered = client.chat.completions.create(model="small", messages=ASK)
        assert (answered.choices[0].message.content, answered.usage.total_tokens) == (STRONG, 80)
        raw = client.chat.completions.with_raw_response.create(model="small", messages=ASK)
        assert raw.headers["x-governor-rung"] == "strong"
        pieces = client.chat.completions.create(model="small", messages=ASK, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices).strip() == STRONG
        asked: Any = [{"role": "user", "content": "usetool Oslo"}]
        called = client.chat.completions.create(model="small", messages=asked, tools=[TOOL])
        assert called.choices[0].message.tool_calls[0].function.name == "weather"
        response = client.responses.create(model="small", input="What is it?")
        assert response.output_text == STRONG
        with client.responses.stream(model="small", input="What is it?") as stream:
            kinds = [event.type for event in stream]
        assert kinds[-1] == "response.completed"
    upstream.reset()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_async_client_is_too(served: tuple[str, Upstream]) -> None:
    openai = pytest.importorskip("openai")
    url, _ = served
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=MASTER, max_retries=0) as client:
        answered = await client.chat.completions.create(model="small", messages=ASK)
        assert answered.choices[0].message.content == STRONG
        stream = await client.chat.completions.create(model="small", messages=ASK, stream=True)
        text = "".join([one.choices[0].delta.content or "" async for one in stream if one.choices])
        assert text.strip() == STRONG
        schema = {"name": "a", "schema": {"type": "object", "properties": {}}}
        asked = {"type": "json_schema", "json_schema": schema}
        shaped = await client.chat.completions.create(model="large", messages=ASK, response_format=asked)
        assert shaped.choices[0].message.content


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_anthropics_client_is_too(served: tuple[str, Upstream]) -> None:
    anthropic = pytest.importorskip("anthropic")
    url, _ = served
    with anthropic.Anthropic(base_url=url, api_key=MASTER, max_retries=0) as client:
        answered = client.messages.create(model="small", max_tokens=90, messages=ASK)
        assert answered.content[0].text == STRONG
        assert (answered.usage.input_tokens, answered.usage.output_tokens) == (40, 40)
        with client.messages.stream(model="small", max_tokens=90, messages=ASK) as stream:
            assert stream.get_final_text().strip() == STRONG
        with pytest.raises(anthropic.APIStatusError):
            anthropic.Anthropic(base_url=url, api_key="sk-wrong", max_retries=0).messages.create(
                model="small", max_tokens=90, messages=ASK
            )
    status = httpx.get(f"{url}/governor/status", headers={"authorization": f"Bearer {MASTER}"}).json()
    assert status["flights"] == 0
    assert status["missed_hooks"] == {}
    assert json.dumps(status).count("sk-") == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_clients_that_go_away_leave_nothing_open(served: tuple[str, Upstream]) -> None:
    url, upstream = served
    asked = {"model": "large", "messages": [{"role": "user", "content": "slow answer"}], "stream": True}
    headers = {"authorization": f"Bearer {MASTER}", "x-governor-node": "shown"}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, headers=headers) as stream:
        assert stream.status_code == 200
    hanging = {"model": "large", "messages": [{"role": "user", "content": "hang answer"}]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=hanging, headers=headers, timeout=0.5)
    ends = time.monotonic() + 30
    while (status := httpx.get(f"{url}/governor/status", headers=headers).json())["flights"]:
        assert time.monotonic() < ends, status
        time.sleep(0.1)
    assert status["missed_hooks"] == {}
    assert len(upstream.seen) >= 2
