"""`GovernorLogitsProcessor`: stop rules inside vLLM, for both of its runners. The only module that imports vllm.

Load it with `--logits-processors governor_vllm.processor:GovernorLogitsProcessor`; it is no entry point, which would
put it into every vLLM process of the environment. A request is governed where its `vllm_xargs` say so (`governor_*`,
see `governor.stops.settings.Stops`); all others are left bit for bit. Marks other than `<think>` and `</think>` stand
in the server's `--additional-config '{"governor": {"start": ..., "end": ...}}'`.

What is forced is part of the thought's budget. Nothing is forced inside a tool call, a code fence or JSON. The words
that end a thought differ by rule (`governor.stops.phrases`), which is how the client learns which one did.
"""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor import LogitsProcessor as RowProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as SlotProcessor

from governor.stops.arrays import Array, names
from governor.stops.marks import Marks
from governor.stops.rows import Signals, Uses
from governor.stops.settings import PREFIX, Stops
from governor_vllm.batch import Batch, Intake, Needs, Order, Reading
from governor_vllm.logits import Endings, read, write
from governor_vllm.vocabulary import EVENT, LONGEST, SENTENCE_END, Vocabulary, ids_of

_LOG = logging.getLogger(__name__)
_ADDED_ANEW = (
    "with pipeline parallelism vLLM's V1 runner adds requests anew at every step: each token costs reading its whole "
    "request, and the stop rules that look back (group, steps, repeat) see nothing; "
    "use --tensor-parallel-size instead, or VLLM_USE_V2_MODEL_RUNNER=1"
)
_WINDOWS = Needs(Uses(group=True), reads=True, keeps=False)
_PENALTIES = (("presence_penalty", 0.0), ("frequency_penalty", 0.0), ("repetition_penalty", 1.0))


class GovernorLogitsProcessor(RowProcessor, SlotProcessor):  # type: ignore[misc]  # vllm's types may be absent
    """Holds one of two carriers: `_Lists` where the runner hands over lists of tokens (V1), `_Device` else (V2)."""

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool = False) -> None:
        vocabulary = _vocabulary(vllm_config)
        if isinstance(place, LogitsProcRequestState):
            self._carrier: _Lists | _Device = _Device(vocabulary, place, _drafts(vllm_config))
        else:
            if vllm_config.parallel_config.pipeline_parallel_size > 1:
                _LOG.warning(_ADDED_ANEW)
            self._carrier = _Lists(vocabulary, vllm_config.scheduler_config.max_num_seqs, torch.device(place))

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises ValueError, which becomes HTTP 400, with one line that says what to mend."""
        stops = Stops.read(sampling_params.extra_args)
        if stops is None or not stops.acts:
            return
        if flaw := _conflict(stops, sampling_params):
            raise ValueError(flaw)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """V1, before each forward pass."""
        assert isinstance(self._carrier, _Lists)
        if batch_update is not None:
            self._carrier.update(batch_update)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """V2: a request takes the slot, and whatever was there is forgotten."""
        assert isinstance(self._carrier, _Device)
        return self._carrier.add(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        """V2, before each forward pass."""
        assert isinstance(self._carrier, _Device)
        self._carrier.flush()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        """Edit the governed rows in place."""
        if isinstance(self._carrier, _Device):
            assert ctx is not None
            self._carrier.apply(logits, ctx)
        else:
            self._carrier.apply(logits)
        return logits


def _vocabulary(vllm_config: Any) -> Vocabulary:
    """The model's tokens. What loads them waits: a server that governs nothing needs no tokenizer here."""
    model = vllm_config.model_config
    if model.skip_tokenizer_init:
        raise ValueError("GovernorLogitsProcessor needs the tokenizer: start without --skip-tokenizer-init")
    stated = (vllm_config.additional_config or {}).get("governor", {})
    generation: Mapping[str, Any] = getattr(model, "try_get_generation_config", dict)()  # not every vLLM has it
    load = partial(cached_tokenizer_from_config, model_config=model)
    return Vocabulary(load, model.get_vocab_size(), Marks(**stated), ids_of(generation.get("eos_token_id")))


def _drafts(vllm_config: Any) -> int:
    speculative = vllm_config.speculative_config
    return int(speculative.num_speculative_tokens) if speculative is not None else 0


def _conflict(stops: Stops, params: SamplingParams) -> str:
    """Why a request can't be governed so; empty if it can."""
    key = next(iter(stops.args()))
    if params.structured_outputs is not None:
        return f"{key}: text can't be forced where structured_outputs constrain it; send one of the two"
    if params.allowed_token_ids is not None:
        return f"{key}: text can't be forced where allowed_token_ids constrain it; send one of the two"
    if stops.budget is not None and params.thinking_token_budget is not None:
        return f"{PREFIX}budget: the request has a thinking_token_budget too; send one of the two"
    if stops.reads_confidence:
        for name, neutral in _PENALTIES:
            if getattr(params, name) != neutral:
                return f"{key}: confidence can't be read from logits that {name} has changed; leave one of the two out"
        if params.logit_bias:
            return f"{key}: confidence can't be read from logits that logit_bias has changed; leave one of the two out"
    return next((f"{PREFIX}{name}: must hold no mark such as {mark}" for name, mark in _marks_in(stops)), "")


def _marks_in(stops: Stops) -> list[tuple[str, str]]:
    held = (("phrase", stops.phrase), ("again", stops.again))
    return [(name, mark) for name, text in held for mark in Marks().words if text is not None and mark in text]


def _governing(params: SamplingParams) -> Stops | None:
    stops = Stops.read(params.extra_args)
    return stops if stops is not None and stops.acts else None


@dataclass(slots=True)
class _Request:
    """A governed request of runner V1: its slot, and its tokens as the runner extends them.

    It rests until its output is `wakes` long: until then its first `looked` tokens are known to have brought nothing
    that it `heeds`, and the marks to be in the state `node`. 0: it doesn't rest. `kept` is how long its output was when
    its distribution was last read while it rests, for the window of its group; None: it has no window to go on.
    """

    slot: int
    prompt: Sequence[int]
    output: Sequence[int]
    heeds: int = EVENT
    wakes: float = 0.0
    looked: int = 0
    node: int = 0
    kept: int | None = None


class _Lists:
    """Runner V1: lists of tokens on the host, so state is numpy; one short step for each governed row.

    A request that has but a budget rests until that is near, one with a margin until a sentence ends, one with a group
    until its window is low: of each token no more is looked up than whether it is an event, one that opens or closes
    something, and nothing goes on but the window. What it slept through is then taken in at once.
    """

    def __init__(self, vocabulary: Vocabulary, slots: int, device: torch.device) -> None:
        self._batch: Batch | None = None
        self._vocabulary = vocabulary
        self._slots = slots
        self._device = device
        self._endings: Endings | None = None
        self._free = list(range(slots))
        self._requests: dict[int, _Request] = {}
        self._steps = (memoryview(b""), b"")
        self._blind = False

    def update(self, change: BatchUpdate) -> None:
        """In vLLM's order: removed, added, moved."""
        for row in change.removed:
            self._forget(row)
        for row, params, prompt, output in change.added:
            self._forget(row)
            if (stops := _governing(params)) is not None:
                self._requests[row] = self._begun(stops, params, prompt or (), output)
        for one, other, direction in change.moved:
            first, second = self._requests.pop(one, None), self._requests.pop(other, None)
            if first is not None:
                self._requests[other] = first
            if direction is MoveDirectionality.SWAP and second is not None:
                self._requests[one] = second
            elif second is not None:
                self._free.append(second.slot)

    def _forget(self, row: int) -> None:
        request = self._requests.pop(row, None)
        if request is not None:
            self._free.append(request.slot)

    def _begun(self, stops: Stops, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]) -> _Request:
        tokens, slot = np.array([*prompt, *output], dtype=np.int64), self._free.pop()
        intake = Intake(stops, tokens, len(prompt), output[-LONGEST:], params.max_tokens, params.temperature)
        self._made().take(slot, intake)
        return _Request(slot, prompt, output, EVENT | SENTENCE_END if stops.margin is not None else EVENT)

    def _made(self) -> Batch:
        """The state, made for the first governed request: the table of all tokens takes a second or so."""
        if self._batch is None:
            self._batch = Batch(np, np.asarray, self._vocabulary, self._slots)
            self._endings = Endings.on(self._device, self._vocabulary.endings)
            self._steps = self._vocabulary.steps
        return self._batch

    def apply(self, logits: torch.Tensor) -> None:
        batch = self._batch
        if not self._requests or batch is None:
            return
        resting = self._resting(batch)
        rows = sorted(self._requests.keys() - resting)
        self._follow(batch, logits, sorted(row for row in resting if self._requests[row].kept is not None))
        if not rows:
            return
        slots = np.array([self._requests[row].slot for row in rows])
        needs = batch.needs(slots)
        self._wake(batch, rows)
        while self._commit(batch, rows, slots, needs):
            pass
        view = batch.view(slots)
        reading = self._read(logits, rows, view.limits.group_top, needs) if needs.reads else None
        signals = batch.signals(view, reading)
        batch.keep(slots, batch.seen[slots] - 1, signals)
        order = batch.order(view, signals, np.ones(len(rows), dtype=bool), needs.uses)
        if order.forced.any() or order.kept.any():
            write(logits, torch.tensor(rows, device=self._device), self._moved(order), self._endings)
        if batch.can_rest(slots):
            rests, windowed = batch.rests(slots, view, order).tolist(), batch.windowed(slots, view)
            self._lay(batch, rows, rests, batch.nodes(view), windowed)

    def _resting(self, batch: Batch) -> set[int]:
        """The rows that rest. Windows that go on take in what was kept of the token before."""
        resting = {row for row, request in self._requests.items() if self._rests(request)}
        later = [(row, one) for row, one in self._requests.items() if one.kept is not None and one.looked > one.kept]
        if later:
            slots = np.array([request.slot for _, request in later])
            positions = np.array([len(request.prompt) + (request.kept or 0) - 1 for _, request in later])
            for (row, request), low in zip(later, batch.slide(slots, positions).tolist(), strict=True):
                request.kept = request.looked
                if low:
                    resting.discard(row)
        return resting

    def _follow(self, batch: Batch, logits: torch.Tensor, rows: Sequence[int]) -> None:
        """Keep what the rows' distributions show, for their windows."""
        if not rows:
            return
        requests = [self._requests[row] for row in rows]
        slots = np.array([request.slot for request in requests])
        reading = self._read(logits, rows, batch.group_top(slots), _WINDOWS)
        batch.shown(slots, np.array([len(one.prompt) + one.looked - 1 for one in requests]), reading)

    def _rests(self, request: _Request) -> bool:
        """Whether there is still nothing to do for a request: its new tokens are looked at one by one."""
        output = request.output
        if len(output) >= request.wakes:
            return False
        nodes, brought = self._steps
        while request.looked < len(output):
            token = output[request.looked]
            at = request.node * self._vocabulary.size + token
            if token < 0 or brought[at] & request.heeds:
                return False
            request.node = nodes[at]
            request.looked += 1
        return True

    def _wake(self, batch: Batch, rows: Sequence[int]) -> None:
        """Take in at once what those of the rows that rested have slept through."""
        rested = [request for row in rows if (request := self._requests[row]).wakes]
        if rested:
            slots = np.array([request.slot for request in rested])
            stand = np.array([len(request.prompt) + request.looked for request in rested])
            batch.skip(slots, stand - batch.seen[slots], np.array([request.node for request in rested]))

    def _lay(
        self,
        batch: Batch,
        rows: Sequence[int],
        rests: Sequence[float],
        nodes: Sequence[int],
        windowed: Sequence[bool],
    ) -> None:
        """Let rows rest for which there is nothing to do for so many tokens."""
        for row, rest, node, window in zip(rows, rests, nodes, windowed, strict=True):
            request = self._requests[row]
            request.looked, request.node = int(batch.seen[request.slot]) - len(request.prompt), node
            request.wakes = request.looked + rest if rest else 0.0
            request.kept = request.looked if rest and window else None

    def _commit(self, batch: Batch, rows: Sequence[int], slots: Array, needs: Needs) -> bool:
        """Take in the next token of every request that has one."""
        behind = [self._next(batch, row) for row in rows]
        active = np.array([token >= 0 for token in behind])
        if active.any():
            batch.commit(slots, np.array(behind).clip(0), active, needs.uses)
        return bool(active.any())

    def _next(self, batch: Batch, row: int) -> int:
        """The token after those that were seen; -1 if there is none."""
        request = self._requests[row]
        at = int(batch.seen[request.slot]) - len(request.prompt)
        if at >= len(request.output):
            return -1
        if request.output[at] < 0 and not self._blind:
            self._blind = True
            _LOG.error("the engine hides output tokens from processors: load governor_vllm by --logits-processors")
        return request.output[at]

    def _read(self, logits: torch.Tensor, rows: Sequence[int], group_top: Array, needs: Needs) -> Reading:
        governed = logits if len(rows) == len(logits) else logits[rows]
        tops = torch.from_numpy(group_top).to(self._device)
        shown = read(governed, self._vocabulary.end[0], tops, needs)
        return Reading(*(getattr(shown, name).cpu().numpy() for name in names(Reading)))

    def _moved(self, order: Order) -> Order:
        return Order(*(torch.from_numpy(getattr(order, name)).to(self._device) for name in names(Order)))


class _Device:
    """Runner V2: tokens, positions and state on the device; nothing is read back."""

    def __init__(self, vocabulary: Vocabulary, states: LogitsProcRequestState, drafts: int) -> None:
        self._vocabulary = vocabulary
        self._states = states
        self._drafts = drafts
        self._batch: Batch | None = None
        self._endings: Endings | None = None
        self._staged: dict[int, tuple[Stops, SamplingParams] | None] = {}
        self._held: set[int] = set()

    def add(self, slot: int, params: SamplingParams) -> bool:
        stops = _governing(params)
        if stops is not None:
            self._staged[slot] = (stops, params)
            self._held.add(slot)
        elif slot in self._held:
            self._staged[slot] = None
            self._held.discard(slot)
        return stops is not None

    def flush(self) -> None:
        """Write what was staged; the runner's own buffers are written before."""
        for slot, request in self._staged.items():
            if request is None:
                self._made().drop(slot)
            else:
                self._begin(slot, *request)
        self._staged.clear()

    def _begin(self, slot: int, stops: Stops, params: SamplingParams) -> None:
        states = self._states
        known, prompt = int(states.prefill_len.np[slot]), int(states.prompt_len.np[slot])
        tokens = states.all_token_ids.gpu[slot, :known].long()
        # Only of a request that comes back after preemption is anything read back, once.
        tail = tokens[max(prompt, known - LONGEST) :].tolist() if known > prompt else ()
        self._made().take(slot, Intake(stops, tokens, prompt, tail, params.max_tokens, params.temperature))

    def _made(self) -> Batch:
        """The state, made for the first governed request: the table of all tokens takes a second or so."""
        if self._batch is None:
            states = self._states
            self._batch = Batch(torch, self._to_device, self._vocabulary, states.max_num_reqs, self._drafts)
            self._endings = Endings.on(states.device, self._vocabulary.endings)
        return self._batch

    def _to_device(self, held: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(held).to(self._states.device, non_blocking=True)

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> None:
        batch = self._batch
        if batch is None or not batch.governs(ctx.idx_mapping_np):
            return
        needs = batch.needs(ctx.idx_mapping_np)
        self._commit(batch, ctx.idx_mapping.long(), needs)
        slots, local = ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos.long()
        total = self._states.total_len.gpu[slots]
        # A prompt that is only partly computed has a row too, before the last token that stands.
        active = batch.governed(slots) & (ctx.pos == total - 1 + local)
        view = batch.view(slots)
        reading = read(logits, self._vocabulary.end[0], view.limits.group_top, needs) if needs.reads else None
        signals = batch.signals(view, reading)
        for place in range(1, self._behind(logits, ctx) + 1):
            before = Signals(*(getattr(signals, name).roll(1, 0) for name in names(Signals)))
            later = batch.later(view.shifted(torch), before, ctx.input_ids.long(), needs.uses)
            view = later.where(torch, local == place, view)
            signals = batch.signals(view, reading)
        batch.keep(slots, ctx.pos.long(), signals)
        rows = torch.arange(len(logits), device=logits.device)
        write(logits, rows, batch.order(view, signals, active, needs.uses), self._endings if needs.keeps else None)

    def _commit(self, batch: Batch, slots: torch.Tensor, needs: Needs) -> None:
        """Take in the tokens that stand since the last step: at most all drafts and one."""
        states = self._states
        total = states.total_len.gpu[slots]
        for _ in range(self._drafts + 1):
            seen = batch.seen[slots]
            active = batch.governed(slots) & (seen < total)
            tokens = states.all_token_ids.gpu[slots, seen.clip(0, states.all_token_ids.gpu.shape[1] - 1)]
            batch.commit(slots, tokens.long().clip(0), active, needs.uses)

    def _behind(self, logits: torch.Tensor, ctx: LogitsContext) -> int:
        """How many drafts a row may stand behind; told on the host."""
        return self._drafts if len(logits) > len(ctx.idx_mapping_np) else 0
