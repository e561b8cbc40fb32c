"""The state of many requests in numpy: each goes on as it would alone, under the plain rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from governor.stops.arrays import columns
from governor.stops.group import confidence
from governor.stops.marks import TOOLS, Marks
from governor.stops.place import Place
from governor.stops.settings import Stops
from governor_vllm.batch import Batch, Intake, Order, Reading
from governor_vllm.vocabulary import LONGEST, Vocabulary
from tests.governor_vllm.toy import (
    BRACED,
    END,
    EOS,
    PIECES,
    SIZE,
    THINK,
    VOCABULARY,
    WRITTEN,
    Expected,
    Request,
    Toy,
    requests,
    walked,
)


class Runner:
    """Serves requests in a few slots; a request that is over leaves its slot to the next."""

    def __init__(self, slots: int) -> None:
        self.batch = Batch(np, np.asarray, VOCABULARY, slots)
        self.held: dict[int, tuple[Request, list[int]]] = {}
        self.slots = slots

    def run(self, waiting: list[Request]) -> dict[int, list[int]]:
        done: dict[int, list[int]] = {}
        waiting = list(waiting)
        while waiting or self.held:
            for slot in range(self.slots):
                if slot not in self.held and waiting:
                    self.take(slot, waiting.pop(0))
            self.step()
            for slot, (request, output) in list(self.held.items()):
                if output[-1] == EOS or len(output) >= request.max_tokens:
                    done[request.seed] = output
                    del self.held[slot]
                    self.batch.drop(slot)
        return done

    def take(self, slot: int, request: Request) -> None:
        self.held[slot] = (request, [])
        if request.stops is not None:
            self.batch.take(slot, intake(request, []))

    def step(self, *, committed: bool = False) -> None:
        slots = np.array(
            [slot for slot, (request, _) in self.held.items() if request.stops is not None], dtype=np.int64
        )
        logits = {slot: one.logits([*one.prompt, *output]) for slot, (one, output) in self.held.items()}
        if len(slots):
            self.govern(slots, np.stack([logits[int(slot)] for slot in slots]), logits, committed)
        for slot, (_, output) in self.held.items():
            output.append(int(logits[slot].argmax()))

    def govern(
        self,
        slots: NDArray[np.int64],
        rows: NDArray[np.float32],
        logits: dict[int, NDArray[np.float32]],
        committed: bool,
    ) -> None:
        batch, needs = self.batch, self.batch.needs(slots)
        last = np.array([([0, *self.held[int(slot)][1]])[-1] for slot in slots])
        begun = np.array([len(self.held[int(slot)][1]) > 0 for slot in slots]) & (not committed)
        batch.commit(slots, last, begun, needs.uses)
        view = batch.view(slots)
        signals = batch.signals(view, reading(rows, view.limits.group_top))
        batch.keep(slots, batch.seen[slots] - 1, signals)
        carry_out(batch.order(view, signals, np.ones(len(slots), dtype=bool), needs.uses), slots, logits)


def intake(request: Request, output: list[int]) -> Intake:
    assert request.stops is not None
    tokens = np.array([*request.prompt, *output])
    return Intake(request.stops, tokens, len(request.prompt), output, request.max_tokens, 0.0)


def reading(logits: NDArray[np.float32], group_top: NDArray[np.float64]) -> Reading:
    values = logits.astype(np.float64)
    total = np.log(np.exp(values).sum(-1, keepdims=True))
    ranked = np.sort(values - total)[:, ::-1]
    spread = confidence(np, ranked, group_top, np.arange(SIZE))
    return Reading(values.argmax(-1), values.max(-1) - values[:, END], ranked[:, 0], spread)


def carry_out(order: Order, slots: NDArray[np.int64], logits: dict[int, NDArray[np.float32]]) -> None:
    tokens, any_ = VOCABULARY.endings
    for row, slot in enumerate(slots):
        if order.kept[row] and any_[order.node[row]]:
            logits[int(slot)][tokens[order.node[row]]] = -np.inf
        if order.forced[row]:
            logits[int(slot)][order.token[row]] = 1e8


@pytest.mark.parametrize("seed", range(11))
def test_each_request_goes_as_it_would_alone(seed: int) -> None:
    asked = requests(seed, 39)
    found = Runner(slots=7).run(asked)
    for request in asked:
        assert found[request.seed] == Expected(request).run(), request.stops


def test_these_requests_bring_every_rule_to_act() -> None:
    ends = {text for seed in range(11) for request in requests(seed, 39) for text in _words_in(request)}
    assert ends == {"budget", "margin", "group", "repeat", "again"}


def _words_in(request: Request) -> set[str]:
    """Which rules wrote into a request's output."""
    from governor.stops.phrases import PHRASES

    if request.stops is None:
        return set()
    output = VOCABULARY.tokenizer.decode(Expected(request).run(), skip_special_tokens=False)
    named = {1: "budget", 2: "margin", 3: "group", 4: "repeat"}
    own = {**PHRASES, 1: request.stops.phrase or PHRASES[1]}
    found = {name for code, name in named.items() if own[code] in output}
    return found | ({"again"} if request.stops.again and "Wait" in output else set())


@pytest.mark.parametrize("budget", [0, 1, 2, 5, 40, 90])
def test_the_end_is_part_of_the_budget(budget: int) -> None:
    request = Request(3, (END - 1,), Stops(budget=budget, least=budget), max_tokens=120)
    output = Runner(1).run([request])[3]
    assert output.index(END) + 1 == max(budget, 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_request_that_comes_back_is_where_it_was(seed: int) -> None:
    """Preempted and resumed at every step, in the midst of our words too: budgets, marks and the reserve survive it."""
    for request in requests(seed, 39):
        stops = request.stops
        if stops is None or stops.reads_confidence or stops.repeat or stops.again:
            continue  # these begin with an empty window, or with too few words to be known by
        runner, expected = Runner(1), Expected(request).run()
        output: list[int] = []
        while len(output) < len(expected):
            runner.batch.take(0, intake(request, output))
            runner.held[0] = (request, output)
            runner.step(committed=True)
        assert output == expected, stops


def test_phrases_of_any_length_fit_the_table() -> None:
    closing = VOCABULARY.closing("z" * 400)
    assert len(closing) == LONGEST
    assert closing[-1] == END


@pytest.mark.parametrize("mark", ["<I>", "</I>", "<tool_call>"])
def test_a_phrase_is_cut_in_front_of_a_mark_that_only_the_server_knows(mark: str) -> None:
    known = Vocabulary(Toy, SIZE, Marks("<I>", "</I>"))
    assert known.closing(f"so, {mark} and </I> on") == (*known.words("so, "), *known.end)
    assert known.words(f"{mark}Wait") == ()
    assert len(known.words("so, ")) == 4


def test_tokens_behind_a_gap_are_read_too() -> None:
    """Ids that no token has make the highest one more than the number of tokens."""

    class Gapped(Toy):
        max_token_id = SIZE - 1

        def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
            (token,) = token_ids
            return "<think>" if token == SIZE - 1 else super().decode(token_ids, skip_special_tokens=False)

    table = Vocabulary(Gapped, SIZE, Marks()).table
    assert table[0, SIZE - 1] == table[0, THINK]


@pytest.mark.parametrize("pair", TOOLS[1:])
def test_nothing_is_forced_into_a_tool_call_by_the_marks_of_its_family(pair: tuple[str, str]) -> None:
    """These are two of the model's tokens; the table of a model without them has none of theirs."""
    named = dict(zip((PIECES.index("y"), PIECES.index("z")), pair, strict=True))

    class Family(Toy):
        def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
            (token,) = token_ids
            return named.get(token) or super().decode(token_ids, skip_special_tokens=skip_special_tokens)

    family, (opens, _) = Vocabulary(Family, SIZE, Marks()), named
    assert len(VOCABULARY.table) < len(family.table)
    for vocabulary, inside in ((VOCABULARY, 1), (family, 0)):
        batch = Batch(np, np.asarray, vocabulary, 1)
        batch.take(0, Intake(Stops(budget=1), np.array([THINK, opens, LETTER]), 1))
        here = columns(Place, batch.view(np.array([0])).rows.place)
        assert (here.inside[0], here.tool[0]) == (inside, 1 - inside)


def test_a_request_without_known_tokens_thinks_of_nothing() -> None:
    """A prompt of embeddings has none."""
    batch = Batch(np, np.asarray, VOCABULARY, 1)
    batch.take(0, Intake(Stops(budget=1), np.array([], dtype=np.int64), 0))
    assert not batch.view(np.array([0])).rows.place.any()


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BRACED], ids=["usual", "braced"])
@given(written=WRITTEN, prompt=st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_a_request_that_comes_back_is_placed_as_if_it_had_been_watched(
    vocabulary: Vocabulary, written: list[int], prompt: int
) -> None:
    """A fence or brace that was open for too long stays what it was taken for, one that is still open its age."""
    tokens = [*Toy().encode(vocabulary.marks.start, add_special_tokens=False), *written]
    batch = Batch(np, np.asarray, vocabulary, 1)
    batch.take(0, Intake(Stops(budget=90), np.array(tokens), prompt))
    assert batch.view(np.array([0])).rows.place[0].tolist() == walked(vocabulary, tokens, prompt)


TOOL, TURN, LETTER, BRACE = PIECES.index("<tool_call>"), EOS, PIECES.index("k"), PIECES.index("{")


@pytest.mark.parametrize(
    ("output", "phrase", "forced"),
    [
        (["```", "a", "s"], "so, ", None),
        (["{", "a", "s"], "so, ", None),
        (["a", "a", "s"], "so, ", "o"),
        (["a", "a", "{"], "{}, ", "}"),
        (["a", "{", "{"], "{}, ", None),
    ],
)
def test_a_letter_in_a_fence_is_no_begun_word_of_ours(output: list[str], phrase: str, forced: str | None) -> None:
    batch, tokens = Batch(np, np.asarray, VOCABULARY, 1), [PIECES.index(one) for one in output]
    batch.take(0, Intake(Stops(budget=7, phrase=phrase), np.array([THINK, *tokens]), 1, tokens))
    view, slots = batch.view(np.array([0])), np.array([0])
    needs = batch.needs(slots)
    order = batch.order(view, batch.signals(view, None), np.array([True]), needs.uses)
    assert (PIECES[order.token[0]] if order.forced[0] else None) == forced


@pytest.mark.parametrize(
    ("prompt", "output", "inside", "tool", "depth"),
    [
        ([TOOL, LETTER, THINK], [], 1, 0, 0),
        ([TOOL, LETTER, TURN], [], 0, 0, 0),
        ([TOOL, LETTER, TURN], [THINK, LETTER], 1, 0, 0),
        ([THINK, LETTER, TURN, LETTER], [], 0, 0, 0),
        ([THINK, BRACE, TURN, LETTER, THINK], [], 1, 0, 0),
        ([TURN, THINK, BRACE, LETTER], [], 1, 0, 1),
        ([TOOL], [THINK], 0, 1, 0),
        ([THINK], [TOOL, THINK], 0, 1, 0),
        ([THINK, BRACE], [TURN], 1, 0, 1),
    ],
)
def test_what_a_prompt_leaves_open_ends_with_its_turn_or_where_the_thought_begins(
    prompt: list[int], output: list[int], inside: int, tool: int, depth: int
) -> None:
    """Tokens that are generated end no turn: these go on as `place.moved` takes them."""
    batch = Batch(np, np.asarray, VOCABULARY, 1)
    batch.take(0, Intake(Stops(budget=90), np.array([*prompt, *output]), len(prompt)))
    here = columns(Place, batch.view(np.array([0])).rows.place)
    assert (here.inside[0], here.tool[0], here.depth[0], here.open_for[0] > 0) == (inside, tool, depth, depth > 0)


def test_special_tokens_are_turns_unless_they_are_of_a_mark() -> None:
    """The tokenizer's, and those that end a reply."""
    other, last = PIECES.index("z"), SIZE - 1

    class Special(Toy):
        all_special_ids = (THINK, END, TOOL, PIECES.index("</"), other, 10**6)

    assert np.flatnonzero(Vocabulary(Special, SIZE, Marks(), (last,)).turns).tolist() == [other, EOS, last]


def test_placeholders_in_a_prompt_are_no_tokens() -> None:
    batch = Batch(np, np.asarray, VOCABULARY, 1)
    batch.take(0, Intake(Stops(budget=1), np.array([-1, 10**6, THINK]), 3))
    assert batch.view(np.array([0])).rows.place[0, 1] == 1.0
