from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import PolicyError
from governor_litellm.proxy import ProxyGovernor
from governor_litellm.settings import Settings
from governor_litellm.watch import HOOKS, HookWatch, UnsupportedProxyError, check_hooks
from governor_litellm.wires.sse import Events, blocks, written


def test_every_hook_stands_on_the_registered_class() -> None:
    assert set(HOOKS) <= set(vars(ProxyGovernor))


def test_an_inherited_hook_is_refused_at_the_start() -> None:
    class Heir(ProxyGovernor):
        """What a proxy would skip without a word."""

    with pytest.raises(UnsupportedProxyError, match="Heir must define async_pre_call_hook itself"):
        Heir(Settings())


def test_a_litellm_without_a_hook_is_refused() -> None:
    class Old:
        async def async_pre_call_hook(self, data: Any) -> None:
            """Other parameters than those by which Governor is called."""

    with pytest.raises(UnsupportedProxyError, match=r"Governor needs litellm >= 1\.103"):
        check_hooks(ProxyGovernor, Old)


def test_a_hook_that_is_skipped_is_an_error_in_log_and_status(caplog: pytest.LogCaptureFixture) -> None:
    watch = HookWatch()
    watch.silent("async_pre_call_hook", "why")
    assert watch.missed["async_pre_call_hook"] == 1
    assert "did not call async_pre_call_hook: why" in caplog.text


async def test_a_request_that_went_past_the_pre_call_hook_is_noticed(tmp_path: Path) -> None:
    hook = ProxyGovernor(Settings(policies=tmp_path))
    data = {"metadata": {}, "proxy_server_request": {"url": "http://x/v1/chat/completions?a=1"}}
    assert await hook.async_post_call_success_hook(data, None, object()) is None
    assert hook.watch.missed["async_pre_call_hook"] == 1
    other = {"metadata": {}, "proxy_server_request": {"url": "http://x/v1/embeddings"}}
    await hook.async_post_call_success_hook(other, None, object())
    assert hook.watch.missed["async_pre_call_hook"] == 1


def test_settings_are_read_once_and_told_where_they_are_wrong(tmp_path: Path) -> None:
    read = Settings.read({"GOVERNOR_POLICIES": str(tmp_path), "GOVERNOR_UNKNOWN_APP": "default"})
    assert (read.policies, read.unknown, read.stream) == (tmp_path, "default", "buffer")
    with pytest.raises(PolicyError, match="GOVERNOR_STREAM: 'speculat' is none of buffer, speculate, pass"):
        Settings.read({"GOVERNOR_STREAM": "speculat"})
    assert Settings.read({"GOVERNOR_INTERVAL": "0.25"}).interval == 0.25
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        with pytest.raises(PolicyError, match=f"GOVERNOR_INTERVAL: '{wrong}' is no number of seconds"):
            Settings.read({"GOVERNOR_INTERVAL": wrong})
    with pytest.raises(PolicyError, match="no folder"):
        Settings.read({"GOVERNOR_POLICIES": str(tmp_path / "none")})


EVENTS = st.lists(
    st.dictionaries(st.sampled_from(["type", "a", "żółć"]), st.text() | st.integers() | st.none(), min_size=1),
    min_size=1,
    max_size=6,
)


@given(events=EVENTS, cuts=st.lists(st.integers(0, 400), max_size=12))
def test_events_are_read_whole_wherever_the_bytes_were_cut(events: list[dict[str, Any]], cuts: list[int]) -> None:
    raw = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    reader = Events()
    pieces = [raw[a:b] for a, b in pairwise(places)]
    assert [event for piece in pieces for event in reader.feed(piece)] == events
    assert b"".join(blocks(raw)) == raw


def test_an_event_is_written_by_its_type() -> None:
    assert written({"type": "ping"}) == b'event: ping\ndata: {"type":"ping"}\n\n'
