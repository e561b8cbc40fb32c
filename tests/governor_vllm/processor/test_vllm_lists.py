"""Runner V1: batch updates with lists of tokens, as vLLM makes them."""

# torch and vllm need an environment of their own:
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from governor.stops.phrases import BUDGET, GROUP, MARGIN
from governor.stops.settings import Stops
from governor_vllm.batch import Batch
from governor_vllm.logits import read
from governor_vllm.processor import GovernorLogitsProcessor
from governor_vllm.script import scripts_of
from tests.governor_vllm.processor.served import config, params, toy_tokens
from tests.governor_vllm.toy import END, EOS, PIECES, SIZE, THINK, VOCABULARY, Expected, Request, requests

LETTER = PIECES.index("k")
SWAP, ONE_WAY = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL


class Runner:
    """Keeps a batch as V1 does: requests come and go, rows are moved and swapped, some are preempted and resumed."""

    def __init__(self, slots: int, seed: int) -> None:
        self.processor = GovernorLogitsProcessor(config(slots), torch.device("cpu"))
        self.rng = np.random.default_rng(seed)
        self.slots = slots
        self.rows: list[tuple[Request, list[int]]] = []
        self.done: dict[int, list[int]] = {}

    def run(self, waiting: Sequence[Request], *, preempt: float = 0.0) -> dict[int, list[int]]:
        queue = [(request, list[int]()) for request in waiting]
        while queue or self.rows:
            removed, kept = self._left(queue, preempt)
            added, moved = self._filled(removed, queue), self._swapped()
            changes = removed or added or moved
            self.processor.update_state(BatchUpdate(len(self.rows), kept, added, moved) if changes else None)
            self._step()
        return self.done

    def _left(self, queue: list[tuple[Request, list[int]]], preempt: float) -> tuple[list[int], list[int]]:
        removed: list[int] = []
        for row, (request, output) in enumerate(self.rows):
            if output and (output[-1] == EOS or len(output) >= request.max_tokens):
                self.done[request.seed] = output
                removed.append(row)
            elif self.rng.random() < preempt:
                queue.append((request, list(output)))
                removed.append(row)
        return removed, list(removed)

    def _filled(self, removed: list[int], queue: list[tuple[Request, list[int]]]) -> list[Any]:
        """New requests take the rows that are free; the last rows move into those that still are."""
        added: list[Any] = []
        free = sorted(removed)
        while queue and (free or len(self.rows) < self.slots):
            request, output = queue.pop(0)
            row = free.pop(0) if free else len(self.rows)
            if row == len(self.rows):
                self.rows.append((request, output))
            else:
                self.rows[row] = (request, output)
            added.append((row, params(request), list(request.prompt), output))
        self.condensed = []
        while free:
            last = len(self.rows) - 1
            if last in free:
                free.remove(last)
                self.rows.pop()
                continue
            row = free.pop(0)
            self.rows[row] = self.rows.pop()
            self.condensed.append((last, row, ONE_WAY))
        return added

    def _swapped(self) -> list[Any]:
        moved = list(self.condensed)
        if len(self.rows) > 2 and self.rng.random() < 0.3:
            one, other = (int(row) for row in self.rng.choice(len(self.rows), 2, replace=False))
            self.rows[one], self.rows[other] = self.rows[other], self.rows[one]
            moved.append((one, other, SWAP))
        return moved

    def _step(self) -> None:
        if not self.rows:
            return
        plain = torch.from_numpy(np.stack([one.logits([*one.prompt, *output]) for one, output in self.rows]))
        logits = self.processor.apply(plain.clone())
        for row, (request, output) in enumerate(self.rows):
            if request.stops is None:
                assert torch.equal(logits[row], plain[row])
            output.append(int(logits[row].argmax()))


@pytest.fixture(autouse=True)
def _tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_tokens(monkeypatch)


@pytest.mark.parametrize("seed", range(4))
def test_each_request_goes_as_it_would_alone(seed: int) -> None:
    asked = requests(seed, 40)
    found = Runner(8, seed).run(asked)
    for request in asked:
        assert found[request.seed] == Expected(request).run(), request.stops


def test_preempted_requests_go_on_where_they_were() -> None:
    asked = [one for one in requests(5, 60) if one.stops is None or _exact(one.stops)]
    found = Runner(8, 5).run(asked, preempt=0.1)
    for request in asked:
        assert found[request.seed] == Expected(request).run(), request.stops


def _exact(stops: Stops) -> bool:
    """Rules that need nothing but the tokens to go on."""
    return not (stops.reads_confidence or stops.repeat or stops.again)


def test_a_part_of_a_prompt_changes_nothing() -> None:
    """A prompt that is computed in chunks has a row in each of them, whose token is thrown away."""
    runner = Runner(1, 0)
    request = Request(7, (THINK,), Stops(budget=5, least=5))
    runner.rows.append((request, []))
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(request), [THINK], runner.rows[0][1])], []))
    for _ in range(5):
        runner.processor.apply(torch.zeros(1, SIZE))
        runner.processor.update_state(None)
    for _ in range(5):
        runner._step()
    assert runner.rows[0][1][4] == END


@pytest.mark.parametrize("seed", range(3))
def test_long_thoughts_with_open_fences_and_braces_end_where_they_would_alone(seed: int) -> None:
    kinds = [
        *(Stops(budget=400), Stops(budget=330, phrase="so, "), Stops(reserve=250, phrase="so")),
        *(Stops(margin=0.5), Stops(margin=8.0, budget=300), Stops(margin=4.0, reserve=250)),
        *(Stops(group=least, group_window=32, group_top=5, budget=450) for least in (2.0, 2.3, 2.4, 2.5)),
        Stops(group=2.3, group_window=40, group_top=5, margin=3.0),
    ]
    asked = [Request(10_000 * seed + at, (THINK,), stops, max_tokens=700, stays=True) for at, stops in enumerate(kinds)]
    found = Runner(2, seed).run(asked)
    for request in asked:
        assert found[request.seed] == Expected(request).run(), request.stops


def looked_at(monkeypatch: pytest.MonkeyPatch, output: Sequence[int]) -> list[int]:
    """How long the output was each time that all rules of the request were asked."""
    worked: list[int] = []
    view = Batch.view

    def counted(self: Batch, slots: Any) -> Any:
        worked.append(len(output))
        return view(self, slots)

    monkeypatch.setattr(Batch, "view", counted)
    return worked


def test_a_request_that_has_but_a_budget_is_only_looked_at_until_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, output = Runner(1, 0), list[int]()
    worked = looked_at(monkeypatch, output)
    request = Request(7, (THINK,), Stops(budget=60))
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(request), [THINK], output)], []))
    while len(output) < 200:
        logits = torch.zeros(1, SIZE)
        logits[0, LETTER] = 1.0
        output.append(int(runner.processor.apply(logits)[0].argmax()))
    assert output[59] == END
    assert output[60:] == [LETTER] * 140
    words = len(scripts_of(Stops(budget=60), VOCABULARY)[BUDGET])
    assert set(worked) <= {0, *range(60 - words, 62)}, "at its begin, and while words of ours are written"


def test_a_request_that_has_but_a_margin_is_only_looked_at_where_a_sentence_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked: list[int] = []

    def counted(*given: Any) -> Any:
        worked.append(len(output))
        return read(*given)

    monkeypatch.setattr("governor_vllm.processor.read", counted)
    runner, output = Runner(1, 0), list[int]()
    request, stop = Request(7, (THINK,), Stops(margin=3.0)), PIECES.index(". ")
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(request), [THINK], output)], []))
    while len(output) < 120:
        logits = torch.zeros(1, SIZE)
        logits[0, stop if len(output) in (20, 40) else LETTER] = 5.0
        if len(output) in (21, 30):
            logits[0, END] = 4.0 if len(output) == 30 else 1.0
        if len(output) == 41:
            logits[0, END] = 4.0
        output.append(int(runner.processor.apply(logits)[0].argmax()))
    assert END not in output[:41], "sure amid a sentence, or not sure at its end"
    words = scripts_of(Stops(margin=3.0), VOCABULARY)[MARGIN]
    assert output[41 : 41 + len(words)] == list(words)
    assert {one for one in worked if one <= 41} == {0, 21, 41}


@pytest.mark.parametrize("threshold", [0.0, 4.0])
def test_of_a_request_that_has_but_a_group_only_the_window_goes_on(
    monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    """A threshold of 0 is never met; 4 is, once the model is unsure for long enough."""
    runner, output = Runner(1, 0), list[int]()
    worked = looked_at(monkeypatch, output)
    request = Request(7, (THINK,), Stops(group=threshold, group_window=32, group_top=2))
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(request), [THINK], output)], []))
    while len(output) < 120:
        logits = torch.zeros(1, SIZE)
        logits[0, LETTER] = 9.0 if len(output) < 50 else 1.0
        output.append(int(runner.processor.apply(logits)[0].argmax()))
    ended = output.index(scripts_of(request.stops or Stops(), VOCABULARY)[GROUP][0]) if threshold else 120
    assert set(worked) - {0} == set() if not threshold else min(set(worked) - {0}) == ended
    assert 50 < ended <= 120


@pytest.mark.parametrize(
    "stops",
    [Stops(group=4.0, group_window=32, group_top=2), Stops(group=4.0, group_window=32, group_top=2, least=1)],
    ids=["at rest", "looked at"],
)
def test_a_group_goes_on_where_the_end_is_masked_or_a_logit_is_no_number(stops: Stops) -> None:
    """`bad_words` and `min_tokens` mask the end, a broken kernel gives NaN; either once took the server down."""
    ends = {}
    for odd, tokens in (("neither", ()), ("masked", range(120)), ("no number", (40,))):
        runner, output = Runner(1, 0), list[int]()
        asked = params(Request(7, (THINK,), stops))
        runner.processor.update_state(BatchUpdate(1, [], [(0, asked, [THINK], output)], []))
        while len(output) < 120:
            logits = torch.zeros(1, SIZE)
            logits[0, LETTER] = 9.0 if len(output) < 50 else 1.0
            if len(output) in tokens:
                logits[0, END if odd == "masked" else THINK] = -torch.inf if odd == "masked" else torch.nan
            token = int(runner.processor.apply(logits)[0].argmax())
            output.append(LETTER if odd == "no number" and len(output) in tokens else token)
        ends[odd] = output.index(scripts_of(stops, VOCABULARY)[GROUP][0])
    assert 50 < ends["neither"] == ends["masked"] < 120, ends
    assert ends["no number"] - ends["neither"] in (-1, 0, 1), ends


BEYOND: Mapping[str, Stops] = {
    "a margin whose words are longer than the budget's": Stops(budget=30, phrase="so", margin=1000.0),
    "a margin in a budget without room for words": Stops(budget=3, margin=1000.0),
    "words to go on with": Stops(budget=30, phrase="so", least=30, again="Wait a bit and think"),
    "a repetition": Stops(budget=30, phrase="so", repeat=2, repeat_period=1, repeat_tokens=26),
}


@pytest.mark.parametrize("named", BEYOND)
def test_no_words_of_ours_pass_the_budget(named: str) -> None:
    """The rule is met when most of the budget is used up: its words are begun only where they still fit."""
    stops, output = BEYOND[named], list[int]()
    runner, stop = Runner(1, 0), PIECES.index(". ")
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(Request(7, (THINK,), stops)), [THINK], output)], []))
    while END not in output and len(output) < 60:
        logits = torch.zeros(1, SIZE)
        wanted = END if stops.again and len(output) >= 24 else LETTER
        if stops.margin is not None and len(output) in (0, 25):
            wanted = stop
        logits[0, wanted] = 5.0
        output.append(int(runner.processor.apply(logits)[0].argmax()))
    assert output.index(END) + 1 == stops.budget


def test_a_thought_that_is_opened_again_after_its_budget_gets_the_bare_mark() -> None:
    stops, output = Stops(budget=30, phrase="so"), list[int]()
    runner = Runner(1, 0)
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(Request(7, (THINK,), stops)), [THINK], output)], []))
    while len(output) < 80:
        logits = torch.zeros(1, SIZE)
        logits[0, THINK if len(output) in (40, 60) else LETTER] = 5.0
        output.append(int(runner.processor.apply(logits)[0].argmax()))
    assert [at for at, token in enumerate(output) if token == END] == [29, 41, 61]


def test_a_budget_that_a_fence_held_up_writes_no_words_beyond_it() -> None:
    stops, output = Stops(budget=40, phrase="so"), list[int]()
    runner, fence = Runner(1, 0), PIECES.index("```")
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(Request(7, (THINK,), stops)), [THINK], output)], []))
    while len(output) < 80:
        logits = torch.zeros(1, SIZE)
        logits[0, fence if len(output) in (2, 50) else LETTER] = 5.0
        output.append(int(runner.processor.apply(logits)[0].argmax()))
    assert output.index(END) == 51, "as soon as the fence closes, and nothing but the mark"


def test_what_was_masked_stays_masked() -> None:
    runner = Runner(1, 0)
    request = Request(7, (THINK,), Stops(budget=1))
    runner.processor.update_state(BatchUpdate(1, [], [(0, params(request), [THINK], [])], []))
    logits = torch.zeros(1, SIZE)
    logits[0, END] = -torch.inf
    before = logits.clone()
    assert torch.equal(runner.processor.apply(logits), before)


@pytest.mark.parametrize(("eos", "masked"), [(None, []), (LETTER, [LETTER]), ([LETTER, 30], [LETTER, 30])])
def test_until_least_no_token_at_which_the_server_ends_a_reply_is_let_through(eos: Any, masked: list[int]) -> None:
    processor = GovernorLogitsProcessor(config(1, eos=eos), torch.device("cpu"))
    asked = params(Request(7, (THINK,), Stops(least=5)))
    processor.update_state(BatchUpdate(1, [], [(0, asked, [THINK], [])], []))
    logits = processor.apply(torch.zeros(1, SIZE))
    assert logits[0].isneginf().nonzero().flatten().tolist() == sorted({END, EOS, *masked})


@pytest.mark.parametrize("stages", [1, 2])
def test_rules_that_pipeline_stages_forget_are_told_of_at_the_start(
    stages: int, caplog: pytest.LogCaptureFixture
) -> None:
    GovernorLogitsProcessor(config(1, stages=stages), torch.device("cpu"))
    told = [one.message for one in caplog.records]
    assert len(told) == stages - 1
    assert all("--tensor-parallel-size" in one for one in told)


def test_without_governed_requests_nothing_is_made() -> None:
    runner = Runner(4, 0)
    runner.run([Request(seed, (3, 4), None) for seed in range(6)])
    assert runner.processor._carrier._batch is None
    assert "tokenizer" not in vars(runner.processor._carrier._vocabulary)


def test_a_server_without_a_tokenizer_is_told_so_at_the_start() -> None:
    with pytest.raises(ValueError, match="start without --skip-tokenizer-init"):
        GovernorLogitsProcessor(config(1, unread=True), torch.device("cpu"))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (SamplingParams(extra_args={"governor_budget": -5}), "governor_budget: -5 is not within"),
        (
            SamplingParams(extra_args={"governor_budget": 5}, structured_outputs=StructuredOutputsParams(regex="a")),
            "governor_budget: text can't be forced where structured_outputs constrain it",
        ),
        (
            SamplingParams(extra_args={"governor_least": 5}, allowed_token_ids=[1]),
            "governor_least: text can't be forced where allowed_token_ids constrain it",
        ),
        (
            SamplingParams(extra_args={"governor_budget": 5}, thinking_token_budget=7),
            "governor_budget: the request has a thinking_token_budget too",
        ),
        (
            SamplingParams(extra_args={"governor_margin": 0.1}, presence_penalty=1.5),
            "governor_margin: confidence can't be read from logits that presence_penalty has changed",
        ),
        (
            SamplingParams(extra_args={"governor_group": 17.0}, logit_bias={1: 2.0}),
            "governor_group: confidence can't be read from logits that logit_bias has changed",
        ),
        (
            SamplingParams(extra_args={"governor_budget": 5, "governor_phrase": "so </think>"}),
            "governor_phrase: must hold no mark such as </think>",
        ),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(params: SamplingParams, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        GovernorLogitsProcessor.validate_params(params)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(structured_outputs=StructuredOutputsParams(regex="a")),
        SamplingParams(extra_args={"other": 1}, presence_penalty=1.0),
        SamplingParams(extra_args={"governor_budget": 5}, presence_penalty=1.0),
        SamplingParams(extra_args={"governor_margin": 0.1}, temperature=0.6),
    ],
)
def test_what_can_be_passes(params: SamplingParams) -> None:
    GovernorLogitsProcessor.validate_params(params)
