"""Runner V2: slots, positions and drafts on the device, through vLLM's own interface objects with CPU tensors."""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false, reportUntypedBaseClass=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.v1.sample.logits_processor import LogitsProcessor as RowProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as SlotProcessor
from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_by_fqcns

from governor.stops.settings import Stops
from governor_vllm.batch import Batch, Intake
from governor_vllm.processor import GovernorLogitsProcessor
from tests.governor_vllm.processor.served import config, params, toy_tokens
from tests.governor_vllm.toy import EOS, SIZE, THINK, VOCABULARY, WRITTEN, Expected, Request, requests, walked

LONGEST = 200


@dataclass
class Held:
    """A request in a slot: its tokens that stand, and how many of its prompt's are still to be computed."""

    request: Request
    tokens: list[int]
    expected: list[int]
    waiting: int = 0
    drafts: list[int] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        return self.tokens[len(self.request.prompt) :]

    @property
    def over(self) -> bool:
        return len(self.output) >= self.request.max_tokens or EOS in self.output


class Runner:
    """Serves requests as V2 does. `wrong` is the share of bad drafts, `preempt` the chance to lose a slot."""

    def __init__(self, slots: int, seed: int, drafts: int = 0, wrong: float = 0.3) -> None:
        self.states = LogitsProcRequestState(
            device=torch.device("cpu"),
            max_num_reqs=slots,
            vocab_size=SIZE,
            all_token_ids=_buffer(torch.zeros((slots, LONGEST), dtype=torch.int32)),
            prompt_len=_buffer(torch.zeros(slots, dtype=torch.int32)),
            prefill_len=_buffer(torch.zeros(slots, dtype=torch.int32)),
            total_len=_buffer(torch.zeros(slots, dtype=torch.int32)),
        )
        self.processor = GovernorLogitsProcessor(config(slots, drafts), self.states)
        self.rng = np.random.default_rng(seed)
        self.free = list(range(slots))
        self.held: dict[int, Held] = {}
        self.drafts, self.wrong = drafts, wrong
        self.done: dict[int, list[int]] = {}
        self.rejected = 0

    def run(self, waiting: Sequence[Request], *, preempt: float = 0.0) -> dict[int, list[int]]:
        queue = [Held(one, list(one.prompt), Expected(one).run()) for one in waiting]
        while queue or self.held:
            while queue and self.free:
                self._take(queue.pop(0))
            self.processor.apply_staged_writes()
            self._step()
            for slot, held in list(self.held.items()):
                if held.over:
                    self.done[held.request.seed] = held.output
                    self._leave(slot)
                elif not held.waiting and self.rng.random() < preempt:
                    queue.append(held)
                    self._leave(slot)
        return self.done

    def _leave(self, slot: int) -> None:
        del self.held[slot]
        self.free.append(slot)

    def _take(self, held: Held) -> None:
        slot, known = self.free.pop(), len(held.tokens)
        self.held[slot] = held
        held.waiting = int(self.rng.integers(0, 3)) if known > 1 else 0
        states: Any = self.states
        states.all_token_ids.gpu[slot, :known] = torch.tensor(held.tokens, dtype=torch.int32)
        states.prompt_len.np[slot] = len(held.request.prompt)
        states.prefill_len.np[slot] = states.total_len.np[slot] = known
        governed = self.processor.add_request(slot, params(held.request))
        assert governed is (held.request.stops is not None)

    def _step(self) -> None:
        slots = [int(slot) for slot in self.rng.permutation(list(self.held))]
        for held in self.held.values():
            held.drafts = [] if held.waiting else self._drafted(held)
        cut = int(self.rng.integers(0, len(slots) + 1))
        for chunk in (slots[:cut], slots[cut:]):
            if chunk:
                self._chunk(chunk)

    def _drafted(self, held: Held) -> list[int]:
        at = len(held.output)
        good = held.expected[at : at + int(self.rng.integers(0, self.drafts + 1))]
        return [int(self.rng.integers(SIZE)) if self.rng.random() < self.wrong else token for token in good]

    def _chunk(self, slots: list[int]) -> None:
        rows = [(slot, place) for slot in slots for place in range(len(self.held[slot].drafts) + 1)]
        plain = torch.from_numpy(np.stack([self._logits(slot, place) for slot, place in rows]))
        context = self._context(slots, rows)
        first = self.processor.apply(plain.clone(), context)
        logits = self.processor.apply(plain.clone(), context)
        assert torch.equal(first, logits)
        for row, (slot, _) in enumerate(rows):
            if self.held[slot].request.stops is None:
                assert torch.equal(logits[row], plain[row])
        best = dict(zip(rows, logits.argmax(-1).tolist(), strict=True))
        for slot in slots:
            self._verify(slot, best)

    def _logits(self, slot: int, place: int) -> NDArray[np.float32]:
        held = self.held[slot]
        return held.request.logits([*held.tokens, *held.drafts[:place]])

    def _context(self, slots: list[int], rows: list[tuple[int, int]]) -> LogitsContext:
        held = [self.held[slot] for slot, _ in rows]
        positions = [len(one.tokens) - 1 - one.waiting + place for one, (_, place) in zip(held, rows, strict=True)]
        fed = [[*one.tokens, *one.drafts][at] for one, at in zip(held, positions, strict=True)]
        return LogitsContext(
            expanded_idx_mapping=torch.tensor([slot for slot, _ in rows], dtype=torch.int32),
            idx_mapping=torch.tensor(slots, dtype=torch.int32),
            idx_mapping_np=np.array(slots, dtype=np.int32),
            expanded_local_pos=torch.tensor([place for _, place in rows], dtype=torch.int32),
            input_ids=torch.tensor(fed, dtype=torch.int32),
            pos=torch.tensor(positions, dtype=torch.int64),
            seq_lens_upper_bound_np=np.array([len(self.held[slot].tokens) for slot in slots], dtype=np.int32),
        )

    def _verify(self, slot: int, best: dict[tuple[int, int], int]) -> None:
        """Greedy verification: drafts stand as long as they are what the target would have chosen."""
        held = self.held[slot]
        if held.waiting:
            held.waiting -= 1
            return
        for place in range(len(held.drafts) + 1):
            held.tokens.append(best[slot, place])
            if held.over or place == len(held.drafts):
                break
            if held.drafts[place] != best[slot, place]:
                self.rejected += 1
                break
        states: Any = self.states
        states.all_token_ids.gpu[slot, : len(held.tokens)] = torch.tensor(held.tokens, dtype=torch.int32)
        states.total_len.np[slot] = len(held.tokens)


def _buffer(held: torch.Tensor) -> Any:
    return SimpleNamespace(gpu=held, np=held.numpy())


@pytest.fixture(autouse=True)
def _tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_tokens(monkeypatch)


def check(found: dict[int, list[int]], asked: Sequence[Request]) -> None:
    for request in asked:
        assert found[request.seed] == Expected(request).run(), request.stops


@pytest.mark.parametrize("seed", range(3))
def test_slots_are_recycled(seed: int) -> None:
    asked = requests(seed, 30)
    check(Runner(6, seed).run(asked), asked)


@pytest.mark.parametrize(("seed", "wrong"), [(0, 0.0), (1, 0.3), (2, 0.9)])
def test_drafts_change_nothing_whether_they_stand_or_not(seed: int, wrong: float) -> None:
    asked, runner = requests(seed, 30), Runner(6, seed, drafts=3, wrong=wrong)
    check(runner.run(asked), asked)
    assert (runner.rejected > 0) is (wrong > 0)


def test_preempted_requests_go_on_where_they_were() -> None:
    asked = [
        one
        for one in requests(4, 60)
        if one.stops is None or not (one.stops.reads_confidence or one.stops.repeat or one.stops.again)
    ]
    check(Runner(6, 4, drafts=2).run(asked, preempt=0.1), asked)


class Waits(TorchDispatchMode):  # type: ignore[misc]  # torch's types may be absent
    """Refuses what would make the host wait for a device: reading a value, or a shape that depends on values."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in self.FORBIDDEN), func
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_no_device() -> None:
    asked = requests(2, 20)
    runner = Runner(20, 2, drafts=2)
    apply = runner.processor.apply

    def watched(logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        with Waits():
            return apply(logits, ctx)

    runner.processor.apply = watched  # type: ignore[method-assign]
    check(runner.run(asked), asked)
    with pytest.raises(AssertionError), Waits():
        torch.ones(2).nonzero()


@given(written=WRITTEN, prompt=st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_a_request_that_comes_back_is_placed_as_if_it_had_been_watched_and_no_device_is_asked(
    written: list[int], prompt: int
) -> None:
    tokens = [THINK, *written]
    batch = Batch(torch, torch.from_numpy, VOCABULARY, 1)
    with Waits():
        batch.take(0, Intake(Stops(budget=90), torch.tensor(tokens), prompt))
    assert batch.view(torch.tensor([0])).rows.place[0].tolist() == walked(VOCABULARY, tokens, prompt)


def test_both_loaders_take_the_class() -> None:
    loaded = _load_v2_logitsprocs_by_fqcns(["governor_vllm.processor:GovernorLogitsProcessor"])
    assert loaded == [GovernorLogitsProcessor]
    assert issubclass(GovernorLogitsProcessor, RowProcessor)
    assert issubclass(GovernorLogitsProcessor, SlotProcessor)


def test_a_slot_that_was_governed_is_left_alone_by_the_next_request() -> None:
    runner = Runner(1, 0)
    asked = [Request(1, (0, 30), Stops(budget=5, least=5)), Request(2, (0, 30), None)]
    check(runner.run(asked), asked)
    batch = runner.processor._carrier._batch
    assert batch is not None
    assert not batch.governs(np.array([0]))
