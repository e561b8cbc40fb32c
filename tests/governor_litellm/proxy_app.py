"""The real proxy app in this process, with Governor's hook, in front of a deterministic upstream."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import uuid
import warnings
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from governor.protocols import Balance
from tests.governor_litellm.upstream import Upstream

MASTER = "sk-" + "ab12" * 12
KEYS: Mapping[str, Mapping[str, Any]] = {
    "sk-alpha": {"metadata": {"governor_apps": ["alpha", "beta"]}},
    "sk-beta": {"metadata": {"app": "beta"}},
    "sk-team": {"metadata": {}, "team_id": "t1", "team_metadata": {"governor_apps": ["gamma"]}},
    "sk-self": {"metadata": {"app": "beta"}, "team_id": "t1", "team_metadata": {"governor_apps": ["gamma"]}},
    "sk-none": {"metadata": {}},
    "acme-7f3a": {"metadata": {}},
    "sk-one": {"metadata": {}, "max_parallel_requests": 1},
}
CONFIG = """\
model_list:
  - {{model_name: small, litellm_params: {{model: openai/small, api_base: "{url}/v1", api_key: k}}}}
  - {{model_name: large, litellm_params: {{model: openai/large, api_base: "{url}/v1", api_key: k}}}}
  - {{model_name: thinker, litellm_params: {{model: hosted_vllm/thinker, api_base: "{url}/v1", api_key: k}}}}
  - model_name: gpt
    litellm_params: {{model: openai/gpt-5-mini, api_base: "{url}/v1", api_key: k}}
    model_info: {{supports_reasoning: true}}
  - {{model_name: claude, litellm_params: {{model: anthropic/claude-sonnet-4-5, api_base: "{url}", api_key: k}}}}
  - {{model_name: opus, litellm_params: {{model: anthropic/claude-opus-4-5, api_base: "{url}", api_key: k}}}}
litellm_settings: {{num_retries: 0, callbacks: ["governor_litellm.proxy.governor"]}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{custom_auth: keys_of_tests.check}}
"""
AUTH = """\
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

MASTER, KEYS = {master!r}, {keys!r}

async def check(request, api_key):
    if api_key == MASTER:
        return UserAPIKeyAuth(api_key=api_key, user_role=LitellmUserRoles.PROXY_ADMIN)
    return UserAPIKeyAuth(api_key=api_key, user_role=LitellmUserRoles.INTERNAL_USER, **KEYS[api_key])
"""
LADDER = """\
ladder:
  - {id: weak, model: small, answer_tokens: 100, timeout: 20, price: {input: 1, output: 2}}
  - {id: strong, model: large, answer_tokens: 200, timeout: 20, price: {input: 5, output: 10}}
"""
ASK = [{"role": "user", "content": "What is it?"}]


def known(*models: str) -> str:
    """What a policy says of these models: that those whose names tell nothing do not think."""
    stated = (f"{name}: {'{wire: plain}' if name in ('small', 'large') else '{}'}" for name in dict.fromkeys(models))
    return f"models: {{{', '.join(stated)}}}\n"


@dataclass(frozen=True)
class ProxyUnderTest:
    client: httpx.AsyncClient
    upstream: Upstream
    folder: Path
    governor: Any

    def policy(self, text: str, app: str | None = None, ladder: str = LADDER) -> str:
        """Serve a policy; gives the application's name, a new one unless it is stated."""
        name = app or f"app-{uuid.uuid4().hex[:8]}"
        path = self.folder / f"{name}.yaml"
        path.write_text(f"version: 1\napp: {name}\nledger: memory://\n{ladder}{textwrap.dedent(text)}")
        self.look()
        assert name in self.governor.desk.folder.served, self.governor.desk.folder.errors
        return name

    def look(self) -> None:
        for _ in range(2):  # a file counts once it has looked the same twice
            self.governor.desk.folder.look()

    def remove(self, app: str) -> None:
        (self.folder / f"{app}.yaml").unlink()
        self.look()

    def default(self, app: str) -> None:
        """Make an application that of the keys that are bound to none."""
        settings = self.governor.desk.settings
        self.governor.desk.settings = type(settings)(
            policies=settings.policies, default=app, unknown=settings.unknown, stream=settings.stream
        )

    @contextmanager
    def without_hook(self) -> Generator[None, None, None]:
        """The bare proxy."""
        import litellm

        kept = list(litellm.callbacks)
        assert self.governor in kept
        litellm.callbacks = [one for one in kept if one is not self.governor]
        before = self.governor.watch.seen.total()
        try:
            yield
        finally:
            litellm.callbacks = kept
        assert self.governor.watch.seen.total() == before

    async def chat(self, key: str = "sk-none", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
        body = {"model": "small", "messages": ASK, **more}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    async def post(self, path: str, body: Mapping[str, Any], key: str = "sk-none", **headers: str) -> httpx.Response:
        return await self.client.post(path, json=body, headers={"authorization": f"Bearer {key}", **headers})

    def balance(self, scope: str) -> Balance:
        balance: Balance = self.governor.desk.ledgers.of("memory://").balance(scope)
        return balance

    async def idle(self) -> None:
        """Wait until no flight is open."""
        for _ in range(200):
            if not self.governor.desk.flights:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"flights are open: {self.governor.desk.flights}")


@asynccontextmanager
async def proxy_under_test(folder: Path) -> AsyncGenerator[ProxyUnderTest, None]:
    policies = folder / "policies"
    policies.mkdir()
    with Upstream() as upstream:
        (folder / "config.yaml").write_text(CONFIG.format(url=upstream.url))
        (folder / "keys_of_tests.py").write_text(AUTH.format(master=MASTER, keys=dict(KEYS)))
        os.environ |= {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": MASTER,
            "CONFIG_FILE_PATH": str(folder / "config.yaml"),
            "GOVERNOR_POLICIES": str(policies),
            "LITELLM_LOG": "ERROR",
        }
        sys.path.insert(0, str(folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LiteLLM's proxy warns throughout its own imports
            from litellm.proxy.proxy_server import app

            from governor_litellm import proxy
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://proxy", timeout=30) as client:
                yield ProxyUnderTest(client, upstream, policies, proxy.governor)
                await proxy.governor.desk.close()
