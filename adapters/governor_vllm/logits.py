"""Reading rows of logits, and writing to them without touching any other value. Nothing here waits for a device."""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from governor.stops.group import confidence
from governor.stops.margin import margin_of
from governor.stops.settings import MAX_TOP
from governor_vllm.batch import Needs, Order, Reading

_BLOCK = 64
_FORCED = 1e8
"""Less than the 1e9 of vLLM's own thinking budget, which runs later and is meant to win."""


@dataclass(frozen=True, slots=True)
class Endings:
    """The tokens that would end the thought in each state of the marks (`Vocabulary.endings`), on a device."""

    tokens: torch.Tensor
    any: torch.Tensor
    """Whether there are any."""

    @classmethod
    def on(cls, device: torch.device, endings: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> Endings:
        return cls(torch.from_numpy(endings[0]).to(device), torch.from_numpy(endings[1]).to(device))


def read(logits: torch.Tensor, end: int, group_top: torch.Tensor, needs: Needs) -> Reading:
    """Read every row: its maximum and the distance of the token `end` to it, and what else the rules need.

    The step rule needs ln p_max, the group rule DeepConf's confidence over `group_top` (rows,) alternatives.
    """
    of_all = needs.uses.steps or needs.uses.group
    # What the rules read are differences, and torch's logsumexp takes twice as long on a CPU as all the logarithms.
    normal = of_all and logits.device.type == "cpu"
    if normal:
        logits = logits.log_softmax(-1)
    alternatives = likeliest(logits, MAX_TOP) if needs.uses.group else None
    highest = logits.amax(-1) if alternatives is None else alternatives[:, 0]
    # Only a row that may not end yet asks which token it is.
    best = logits.argmax(-1) if needs.keeps else torch.zeros_like(highest, dtype=torch.int64)
    margin = margin_of(highest, logits[:, end]).double()
    nothing = torch.zeros_like(margin)
    if not of_all:
        return Reading(best, margin, nothing, nothing)
    total = torch.zeros_like(highest) if normal else torch.logsumexp(logits, -1)
    top = (highest - total).double()
    if alternatives is None:
        return Reading(best, margin, top, nothing)
    logprobs = (alternatives - total[:, None]).double()
    ranks = torch.arange(logprobs.shape[-1], device=logits.device)
    return Reading(best, margin, top, confidence(torch, logprobs, group_top, ranks))


def likeliest(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` highest values of each row, falling: as `topk` gives them, with one pass over the row.

    They lie in the `count` blocks with the highest maxima, or in the rest behind the last whole block.
    """
    rows, width = logits.shape
    blocks = width // _BLOCK
    if blocks <= count:
        return logits.topk(min(count, width), -1).values
    whole = logits[:, : blocks * _BLOCK].unflatten(-1, (blocks, _BLOCK))
    chosen = _places_of_highest(whole.amax(-1), count)
    found = whole.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).reshape(rows, -1)
    return _highest(torch.cat([found, logits[:, blocks * _BLOCK :]], -1), count)


def _places_of_highest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Where the `count` highest of each row stand, in any order."""
    if values.device.type == "cpu":  # numpy's partition takes a fifth of what torch's topk does
        return torch.from_numpy(np.argpartition(values.numpy(), -count, axis=-1)[:, -count:])
    return values.topk(count, -1, sorted=False).indices


def _highest(values: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` highest of each row, falling."""
    if values.device.type == "cpu":
        among = np.partition(values.numpy(), -count, axis=-1)[:, -count:]
        return torch.from_numpy(np.sort(among, axis=-1)[:, ::-1].copy())
    return values.topk(count, -1).values


def write(logits: torch.Tensor, rows: torch.Tensor, order: Order, endings: Endings | None) -> None:
    """Carry out an order on `rows` of logits, in place: few values are written, all others stay bit for bit.

    A token that something before us has masked stays masked: its row is then left as it is. `endings` may be None
    where no row is to go on thinking.
    """
    if endings is not None:
        tokens = endings.tokens[order.node]
        masked = (order.kept & endings.any[order.node])[:, None]
        at = rows[:, None], tokens
        logits[at] = torch.where(masked, -torch.inf, logits[at])
    value = logits[rows, order.token]
    logits[rows, order.token] = torch.where(order.forced & (value > -torch.inf), _FORCED, value)
