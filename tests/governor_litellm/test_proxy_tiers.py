"""The proxy in front of two sizes of a real model: what the small one knows it answers, and the large one the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from governor.ledger import open_ledger
from governor_local.registry import find_model, list_models
from tests.governor_litellm.model_servers import llama_server
from tests.governor_litellm.proxy_app import AUTH, MASTER
from tests.governor_litellm.proxy_process import proxy_process, ready

pytestmark = [pytest.mark.slow, pytest.mark.qwen, pytest.mark.timeout(300)]
CONFIG = """\
model_list:
  - {{model_name: small, litellm_params: {{model: openai/qwen-0.5b, api_base: "{small}/v1", api_key: k}}}}
  - {{model_name: large, litellm_params: {{model: openai/qwen-1.5b, api_base: "{large}/v1", api_key: k}}}}
litellm_settings: {{num_retries: 0}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{custom_auth: keys_of_tests.check}}
"""
POLICY = """\
version: 1
app: {app}
ledger: {ledger}
dial: 0.5
ladder:
  - {{id: small, model: small, answer_tokens: 24, temperature: 0, timeout: 60, price: {{input: 1, output: 2}}}}
  - {{id: large, model: large, answer_tokens: 24, temperature: 0, timeout: 60, price: {{input: 3, output: 6}}}}
backtrack: {{modes: [fresh]}}
verify: {{regex: '^\\s*{answer}\\s*$'}}
budget: {{app: {{per: total, usd: 1}}}}
"""
TASKS = {"easy": ("6 * 7", 42), "hard": ("13 * 17", 221)}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The proxy's URL, and its ledger."""
    pytest.importorskip("litellm_enterprise", reason="the proxy needs the extra 'proxy'")
    if not {"qwen-0.5b", "qwen-1.5b"} <= {model.name for model in list_models() if model.state == "present"}:
        pytest.skip("the two Qwen sizes are not in GOVERNOR_MODELS")
    folder = tmp_path_factory.mktemp("tiers")
    ledger = f"sqlite:///{folder / 'budget.db'}"
    (folder / "policies").mkdir()
    for app, (_, answer) in TASKS.items():
        (folder / "policies" / f"{app}.yaml").write_text(POLICY.format(app=app, ledger=ledger, answer=answer))
    keys = {f"sk-{app}": {"metadata": {"app": app}} for app in TASKS}
    (folder / "keys_of_tests.py").write_text(AUTH.format(master=MASTER, keys=keys))
    with ExitStack() as stack:
        small, large = (stack.enter_context(llama_server(find_model(name))) for name in ("qwen-0.5b", "qwen-1.5b"))
        (folder / "litellm.yaml").write_text(CONFIG.format(small=small, large=large))
        url = stack.enter_context(proxy_process(folder, folder / "log", LITELLM_MASTER_KEY=MASTER))
        ready(url, folder / "log")
        yield url, ledger


@pytest.mark.parametrize(("app", "rungs"), [("easy", ["small"]), ("hard", ["small", "large"])])
def test_the_large_model_is_paid_for_where_the_small_one_fails(
    proxy: tuple[str, str], app: str, rungs: list[str]
) -> None:
    openai: Any = pytest.importorskip("openai")
    (url, ledger), (product, answer) = proxy, TASKS[app]
    ask = [{"role": "user", "content": f"What is {product}? Answer with the number alone."}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=f"sk-{app}", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model="small", messages=ask)
    assert raw.parse().choices[0].message.content.strip() == str(answer)
    assert (raw.headers["x-governor-rung"], raw.headers["x-governor-attempts"]) == (rungs[-1], str(len(rungs)))
    assert raw.parse().usage.total_tokens == int(raw.headers["x-governor-tokens"])
    with closing(open_ledger(ledger)) as books:
        spent = books.balance(f"app:{app}").spent
    assert (spent.tokens, spent.micros) == (
        int(raw.headers["x-governor-tokens"]),
        int(raw.headers["x-governor-micro-usd"]),
    )
    assert spent.calls == len(rungs)
