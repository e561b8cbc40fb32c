"""What clients get where Governor itself can't say what holds for their requests."""

from __future__ import annotations

from typing import Any

import pytest

from governor_litellm.admission import Arrival
from tests.governor_litellm.proxy_app import ProxyUnderTest
from tests.governor_litellm.test_proxy_calls import VERIFIED, WIRES, body

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("path", WIRES)
async def test_where_a_policy_can_not_be_read_nobody_goes_on_without_one(proxy: ProxyUnderTest, path: str) -> None:
    own = proxy.policy(VERIFIED)
    proxy.default(own)
    bad = proxy.folder / "beta.yaml"
    bad.write_text("version: 1\napp: beta\nledger: memory://\nladder: [{id: a, model: nowhere}]\n")
    proxy.look()
    refused = await proxy.post(path, body(path), key="sk-beta")
    assert (refused.status_code, proxy.upstream.seen) == (503, [])
    assert "'beta' has no policy" in refused.text
    answered = await proxy.post(path, body(path), key="sk-none")
    assert (answered.status_code, answered.headers["x-governor-app"]) == (200, own), "it has a good one of its own"
    proxy.default("nothing")
    assert (await proxy.post(path, body(path), key="sk-none")).status_code == 503
    proxy.default(own)
    bad.unlink()
    proxy.look()
    answered = await proxy.post(path, body(path), key="sk-beta")
    assert answered.headers["x-governor-app"] == own, "it is meant to have none"


@pytest.mark.parametrize("mode", ["shadow", "on"])
async def test_an_error_of_governors_own_is_none_of_a_request_in_shadow(
    proxy: ProxyUnderTest, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("a bug")

    proxy.default(proxy.policy(f"mode: {mode}\n"))
    monkeypatch.setattr(Arrival, "request", breaks)
    answered = await proxy.chat(max_tokens=7)
    if mode == "shadow":
        assert (answered.status_code, len(proxy.upstream.seen)) == (200, 1)
    else:
        assert (answered.status_code, len(proxy.upstream.seen)) == (503, 0)
