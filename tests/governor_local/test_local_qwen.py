"""What SmolLM2 is too small for: needs the two Qwen sizes in GOVERNOR_MODELS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from governor_local import LocalBackend
from tests.governor_local.calls import ask
from tests.governor_local.conftest import present

pytestmark = [
    pytest.mark.model,
    pytest.mark.qwen,
    pytest.mark.skipif(not (present("qwen-0.5b") and present("qwen-1.5b")), reason="no Qwen sizes in GOVERNOR_MODELS"),
]


@pytest.fixture(scope="module")
def qwen() -> Iterator[LocalBackend]:
    running = LocalBackend(threads=1, slots=1)
    yield running
    running.close()


@pytest.mark.parametrize("model", ["local/qwen-0.5b", "local/qwen-1.5b"])
def test_a_sum_is_right_and_a_cut_answer_goes_on(qwen: LocalBackend, model: str) -> None:
    prompt, rung = "Tom has 7 apples and buys 5 more. How many apples has he? Explain briefly.", {"model": model}
    whole = qwen.call(ask(prompt, tokens=30, rung=rung))
    start = qwen.call(ask(prompt, tokens=10, rung=rung))
    rest = qwen.call(ask(prompt, tokens=20, rung=rung, prefix=start.text))
    assert "12" in whole.text
    assert start.text + rest.text == whole.text
