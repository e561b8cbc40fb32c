"""Reading and writing rows of logits."""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false
from __future__ import annotations

import pytest
import torch

from governor_vllm.batch import Order
from governor_vllm.logits import Endings, likeliest, write


@pytest.mark.parametrize("width", [5, 64, 1280, 1281, 1344, 5000, 49_153])
def test_the_likeliest_are_those_of_topk(width: int) -> None:
    logits = torch.randn(7, width, generator=torch.Generator().manual_seed(width))
    logits[3, 1:] = -torch.inf
    logits[4] = 0.0
    assert torch.equal(likeliest(logits, 20), logits.topk(min(20, width), -1).values)


def test_only_what_is_ordered_is_written() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf], [torch.nan, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, -torch.inf]])
    before = logits.clone()
    endings = Endings(torch.tensor([[1, 1], [2, 3]]), torch.tensor([True, True]))
    order = Order(
        token=torch.tensor([0, 0, 3]),
        forced=torch.tensor([True, False, True]),
        kept=torch.tensor([False, False, True]),
        node=torch.tensor([0, 1, 1]),
    )
    write(logits, torch.tensor([0, 1, 2]), order, endings)
    assert logits[0].tolist() == [1e8, 1.0, 2.0, -torch.inf]
    assert torch.equal(logits[1, 1:], before[1, 1:])
    assert logits[1, 0].isnan()
    assert logits[2].tolist() == [0.0, 1.0, -torch.inf, -torch.inf], "masked before, so not forced"
