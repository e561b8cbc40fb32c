"""The state of all governed requests, in slots, and what one step of the engine does to it.

A *row* of logits predicts the token after its position. What its distribution shows is kept by position and only enters
the statistics once that token is known to stand: drafts that are rejected leave no trace, and a step that is computed
twice changes nothing. Works in numpy (runner V1: lists of tokens on the host) and torch (runner V2: all on the device).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from governor.stops import budget, group, place
from governor.stops.arrays import Array, Namespace, columns, flag, highest_so_far, index, matrix, names, width
from governor.stops.group import Group
from governor.stops.marks import END, MARK, NODE_AT, SENTENCE, START, TOOL, TOOL_END
from governor.stops.phrases import AGAIN, BUDGET
from governor.stops.place import Place
from governor.stops.rows import Limits, Rows, Rules, Signals, Uses, fresh, limits_of
from governor.stops.settings import MAX_WINDOW, Stops
from governor_vllm.script import BARE, Script, fitting, followed, next_place, scripts_of
from governor_vllm.vocabulary import LONGEST, Vocabulary

_GROUP, _STEPS, _REPEAT, _READS, _KEEPS, _ANY, _RESTS = 1, 2, 4, 8, 16, 32, 64
_WORDS = BARE + 1
_KNOWN = 6
"""Words of ours that are too many to be the model's own by chance."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the governed rows of a step need: which rules run, whether logits are read, and whether ends are masked."""

    uses: Uses
    reads: bool
    keeps: bool


@dataclass(frozen=True, slots=True)
class View:
    """Some rows of the slots, copied: the same slot may stand in several, with different drafts behind it."""

    slots: Array
    limits: Limits
    rows: Rows
    script: Array
    lengths: Array

    def shifted(self, xp: Namespace) -> View:
        """Each row's state in the place of the next one."""
        rows = Rows(*(xp.roll(getattr(self.rows, name), 1, 0) for name in names(Rows)))
        return replace(self, rows=rows, script=xp.roll(self.script, 1, 0))

    def where(self, xp: Namespace, chosen: Array, other: View) -> View:
        """These rows' state where `chosen`, the other's elsewhere; the slots are the same."""
        script = xp.where(chosen[:, None], self.script, other.script)
        return replace(self, rows=self.rows.where(xp, chosen, other.rows), script=script)


@dataclass(frozen=True, slots=True)
class Reading:
    """What rows of logits show (rows,), in float64 but for `best`, the likeliest token; see `Signals`."""

    best: Array
    margin: Array
    top: Array
    spread: Array


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to rows of logits: the token to force where `forced`, no end of thought where `kept`."""

    token: Array
    forced: Array
    kept: Array
    node: Array


@dataclass(frozen=True, slots=True)
class Intake:
    """A request that takes a slot: all its `tokens` so far (length,), the first `prompt` of them the prompt's.

    `tail` are the last ones that were generated, on the host; () where none were. `room` is its `max_tokens`.
    """

    stops: Stops
    tokens: Array
    prompt: int
    tail: Sequence[int] = ()
    room: int | None = None
    temperature: float | None = None


class Batch:
    """Slots of requests. `drafts` is the most tokens that a step may hold beside the committed one.

    `made` turns numpy arrays into the namespace's. Slots that hold no governed request are left alone.
    """

    def __init__(
        self,
        xp: Namespace,
        made: Callable[[NDArray[np.generic]], Array],
        vocabulary: Vocabulary,
        slots: int,
        drafts: int = 0,
    ) -> None:
        self.xp = xp
        self.rules = Rules(xp, made)
        self.vocabulary = vocabulary
        self._made = made
        self._ring = drafts + 2
        self._table = made(vocabulary.table)
        self._turns = made(vocabulary.turns)
        self._rows = Rows(*(made(getattr(fresh(slots), name)) for name in names(Rows)))
        self._limits = made(np.repeat(limits_of(Stops())[None, :], slots, axis=0))
        self._script = made(np.zeros((slots, width(Script))))
        self._words = made(np.zeros((slots, _WORDS, LONGEST), dtype=np.int64))
        self._lengths = made(np.zeros((slots, _WORDS)))
        self._signals = made(np.zeros((slots, self._ring, width(Signals))))
        self._window: Array | None = None
        self._slots = slots
        self._governed = made(np.zeros(slots, dtype=bool))
        self._needs = np.zeros(slots, dtype=np.int64)
        self.seen = made(np.zeros(slots, dtype=np.int64))

    def take(self, slot: int, request: Intake) -> None:
        """A request takes a slot: nothing of the last one stays.

        What is open (a thought, a tool call, a fence) is found again from its tokens, and amidst which words of ours it
        was interrupted from its tail. The confidence rules begin with an empty window.
        """
        xp, at, stops = self.xp, self._made(np.array([slot])), request.stops
        scripts = scripts_of(stops, self.vocabulary)
        self._set(at, request, scripts)
        self._needs[slot] = _bits(stops)
        row = self._fresh_row()
        if len(request.tokens):
            row = replace(row, place=matrix(xp, self._place_after(request.tokens, request.prompt)))
        self._rows.put(at, row)
        self._script[at] = matrix(xp, self._resumed(at, columns(Place, row.place), interrupted(scripts, request.tail)))
        self.seen[at] = self._made(np.array([len(request.tokens)]))

    def _set(self, at: Array, request: Intake, scripts: Mapping[int, Sequence[int]]) -> None:
        """What stays the same as long as the request is in its slot."""
        words, lengths = np.zeros((1, _WORDS, LONGEST), dtype=np.int64), np.zeros((1, _WORDS))
        for kind, tokens in scripts.items():
            words[0, kind, : len(tokens)] = tokens
            lengths[0, kind] = len(tokens)
        limits = limits_of(request.stops, room=request.room, temperature=request.temperature)
        self._limits[at] = self._made(limits[None, :])
        self._words[at], self._lengths[at] = self._made(words), self._made(lengths)
        self._signals[at] = self._made(np.zeros((1, self._ring, width(Signals))))
        self._governed[at] = self._made(np.array([True]))
        if request.stops.group is not None and self._window is None:
            self._window = self._made(np.zeros((self._slots, MAX_WINDOW)))

    def drop(self, slot: int) -> None:
        """The slot holds no governed request any more."""
        self._governed[self._made(np.array([slot]))] = self._made(np.array([False]))
        self._needs[slot] = 0

    def _resumed(self, at: Array, here: Place, written: Mapping[int, int]) -> Script:
        """The words that were being written. Those of a budget are known by being due, others by enough of them.

        Words are begun where nothing is open, so that what looks like ours in a fence of the model's is its own.
        """
        xp, none = self.xp, 0.0 * here.count
        due, other = written.get(BUDGET, 0), max(written, key=lambda kind: written[kind] * (kind != BUDGET), default=0)
        limits = columns(Limits, self._limits[at])
        length = self._lengths[at, BUDGET]
        was_due = budget.due(here.count - due, here.made - due, limits.budget, limits.room, length)
        is_due = flag(xp, was_due & (here.inside > 0) & (here.open_for <= due)) * (due > 0)
        known = written.get(other, 0) >= _KNOWN
        return Script(
            kind=xp.where(is_due > 0, none + BUDGET, none + other * known),
            written=xp.where(is_due > 0, none + due, none + written.get(other, 0) * known),
        )

    def needs(self, slots: NDArray[np.integer]) -> Needs:
        """What the governed ones among these slots need; told on the host, without asking the device."""
        bits = int(np.bitwise_or.reduce(self._needs[slots])) if len(slots) else 0
        uses = Uses(bool(bits & _GROUP), bool(bits & _STEPS), bool(bits & _REPEAT))
        return Needs(uses, bool(bits & _READS), bool(bits & _KEEPS))

    def governs(self, slots: NDArray[np.integer]) -> bool:
        """Whether any of these slots holds a governed request (host)."""
        return bool(self._needs[slots].any())

    def governed(self, slots: Array) -> Array:
        """The same for each slot, on the device."""
        return self._governed[slots]

    def view(self, slots: Array) -> View:
        """The committed state of some slots."""
        limits = columns(Limits, self._limits[slots])
        return View(slots, limits, self._rows.at(slots), self._script[slots], self._lengths[slots])

    def commit(self, slots: Array, tokens: Array, active: Array, uses: Uses) -> None:
        """One more token stands in each slot that is `active`; the slots are distinct."""
        view = self.view(slots)
        signals = columns(Signals, self._signals[slots, (self.seen[slots] - 1) % self._ring])
        later, counted = self._later(view, signals, tokens, uses)
        if uses.group and self._window is not None:
            at = self.rules.window_place(view.limits, view.rows)
            entering = counted & active & (signals.known > 0)
            self._window[slots, at] = self.xp.where(entering, signals.spread, self._window[slots, at])
        now = later.where(self.xp, active, view)
        self._rows.put(slots, now.rows)
        self._script[slots] = now.script
        self.seen[slots] = self.seen[slots] + index(self.xp, active)

    def skip(self, slots: Array, tokens: Array, nodes: Array) -> None:
        """So many tokens without an event stand in the slots, of which nothing but the place is kept (see `rests`)."""
        here = columns(Place, self._rows.place[slots])
        self._rows.place[slots] = matrix(self.xp, place.passed(self.xp, here, tokens, nodes))
        self.seen[slots] = self.seen[slots] + tokens

    def can_rest(self, slots: NDArray[np.integer]) -> bool:
        """Whether any of these slots holds a request with nothing but a budget, a margin and a group (host)."""
        return bool((self._needs[slots] & _RESTS).any())

    def rests(self, slots: NDArray[np.integer], view: View, order: Order) -> NDArray[np.float64]:
        """How many more tokens (rows,) may come, as long as they bring no event, until there is something to do.

        That is known of requests with nothing but a budget, a margin, for which the end of a sentence is an event too,
        and a group, whose window goes on (see `slide`); 0 for others, and where words are written. For numpy only.
        """
        here, limits = columns(Place, view.rows.place), view.limits
        left = np.minimum(limits.budget - here.count, limits.room - here.made) - view.lengths[:, BUDGET]
        idle = ((self._needs[slots] & _RESTS) > 0) & (columns(Script, view.script).kind == 0) & ~order.forced
        found: NDArray[np.float64] = np.where(here.inside > 0, left.clip(0.0), np.inf)
        return np.where(idle, found, 0.0)

    def windowed(self, slots: NDArray[np.integer], view: View) -> list[bool]:
        """Of which rows that rest the group's window goes on: those inside a thought. For numpy only."""
        found: list[bool] = (
            ((self._needs[slots] & _GROUP) > 0) & (columns(Place, view.rows.place).inside > 0)
        ).tolist()
        return found

    def slide(self, slots: Array, positions: Array) -> Array:
        """The windows one token later, of rows that rest; whether they are low now.

        What the tokens' distributions showed was kept at `positions`.
        """
        xp, limits = self.xp, columns(Limits, self._limits[slots])
        signals = columns(Signals, self._signals[slots, positions % self._ring])
        window, held = columns(Group, self._rows.group[slots]), self._windows
        at = group.next_place(xp, window, limits.group_window)
        leaving = held[slots, at]
        now = group.entered(xp, window, signals.spread, leaving, limits.group_window, signals.known)
        held[slots, at] = xp.where(signals.known > 0, signals.spread, leaving)
        self._rows.group[slots] = matrix(xp, now)
        return group.low(now, limits.group_window, limits.group)

    def shown(self, slots: Array, positions: Array, reading: Reading) -> None:
        """Keep what distributions showed of rows that rest."""
        self.keep(slots, positions, _told(self.xp, reading, flag(self.xp, 0 * slots)))

    def group_top(self, slots: Array) -> Array:
        """Over how many alternatives the group's confidence of each row is taken."""
        return columns(Limits, self._limits[slots]).group_top

    @property
    def _windows(self) -> Array:
        assert self._window is not None, "made with the first request that has a group"
        return self._window

    def nodes(self, view: View) -> list[int]:
        """The states of the marks in which rows are."""
        found: list[int] = place.node(self.xp, columns(Place, view.rows.place)).tolist()
        return found

    def later(self, view: View, signals: Signals, tokens: Array, uses: Uses) -> View:
        """The rows if `tokens` followed: the committed state stays as it is."""
        return self._later(view, signals, tokens, uses)[0]

    def keep(self, slots: Array, positions: Array, signals: Signals) -> None:
        """Keep what distributions showed until the token that follows each position stands."""
        self._signals[slots, positions % self._ring] = matrix(self.xp, signals)

    def order(self, view: View, signals: Signals, active: Array, uses: Uses) -> Order:
        """What is to be done to rows of logits; nothing where not `active`."""
        xp, here = self.xp, columns(Place, view.rows.place)
        kind = self._kind(view, signals, uses)
        early = (here.inside > 0) & (here.count < view.limits.least)
        return Order(
            token=self._word(view, kind),
            forced=active & (kind > 0),
            kept=active & early & ((kind == 0) | (kind == AGAIN)),
            node=place.node(xp, here),
        )

    def signals(self, view: View, reading: Reading | None) -> Signals:
        """What the rules are told of rows of logits; None: they were not read."""
        xp, here = self.xp, columns(Place, view.rows.place)
        if reading is None:
            nothing = 0.0 * here.count
            return Signals(nothing, nothing, nothing, nothing, nothing)
        ends = (self._table[place.node(xp, here), reading.best] & MARK) == END
        turning = flag(xp, ends & (view.lengths[:, AGAIN] > 0))
        return _told(xp, reading, turning)

    def _later(self, view: View, signals: Signals, tokens: Array, uses: Uses) -> tuple[View, Array]:
        """The rows one token later, and in which of them the token counts for the confidence rules."""
        xp, here = self.xp, columns(Place, view.rows.place)
        kind = self._kind(view, signals, uses)
        obeyed = (kind > 0) & (tokens == self._word(view, kind))
        script = followed(xp, columns(Script, view.script), kind, obeyed, view.lengths[_all(xp, view), index(xp, kind)])
        packed = self._table[place.node(xp, here), tokens]
        own = flag(xp, ~obeyed)
        leaving = 0.0 * own
        if uses.group and self._window is not None:
            leaving = self._window[view.slots, self.rules.window_place(view.limits, view.rows)]
        rows = self.rules.after(view.limits, view.rows, signals, tokens, packed, leaving, 0.0 * own + 1.0, own, uses)
        counted = ~obeyed & (here.inside > 0) & (here.tool == 0)
        return replace(view, rows=rows, script=matrix(xp, script)), counted

    def _kind(self, view: View, signals: Signals, uses: Uses) -> Array:
        """Whose words come next: those that are being written, else what the rules say."""
        xp, limits, here = self.xp, view.limits, columns(Place, view.rows.place)
        running = columns(Script, view.script).kind
        said = self.rules.said(limits, view.rows, signals, view.lengths[:, BUDGET], uses)
        length = view.lengths[_all(xp, view), said]
        fits = (here.count + length <= limits.budget) & (here.made + length <= limits.room)
        return xp.where(running > 0, index(xp, running), fitting(xp, said, fits))

    def _word(self, view: View, kind: Array) -> Array:
        at = next_place(self.xp, columns(Script, view.script), kind)
        return self._words[view.slots, index(self.xp, kind), at]

    def _fresh_row(self) -> Rows:
        return Rows(*(self._made(getattr(fresh(1), name)) for name in names(Rows)))

    def _place_after(self, tokens: Array, prompt: int) -> Place:
        """The place (1,) behind tokens that were not watched one by one.

        What users write may open a thought or a tool call and leave it so. In the prompt the end of a turn ends both,
        and a thought that begins there ends a tool call.
        """
        xp, tokens = self.xp, tokens.clip(0, self.vocabulary.size - 1)  # prompts may hold placeholders
        packed = self._packed(tokens)
        at = self._made(np.arange(1, len(tokens) + 1))
        mark, asked = packed & MARK, at <= prompt
        turn = self._turns[tokens] & asked

        def latest(found: Array) -> Array:
            return highest_so_far(xp, at * found)

        called = latest(mark == TOOL)
        tool = called > latest((mark == TOOL_END) | turn | ((mark == START) & asked))
        started = latest((mark == START) & ~tool)
        inside = started > xp.maximum(latest((mark == END) | turn), called)
        was = xp.concatenate([inside[:1] & False, inside[:-1]], 0)
        since = inside[-1] & (at >= (at * (inside & ~was)).max())
        fence, depth, open_for = place.left_open(xp, packed, at, since)
        values = Place(
            node=packed[-1] >> NODE_AT,
            inside=inside[-1],
            tool=tool[-1],
            fence=fence,
            depth=depth,
            open_for=open_for,
            sentence=(packed[-1] & SENTENCE) > 0,
            count=(was & (at > prompt)).sum(),
            made=(at > prompt).sum(),
        )
        return Place(*(flag(xp, getattr(values, name)).reshape(1) for name in names(Place)))

    def _packed(self, tokens: Array) -> Array:
        """Each token's entry in the table, read from the tokens before it that could be part of a mark."""
        node = index(self.xp, 0 * tokens)
        packed = node + 0
        for back in range(min(self.vocabulary.longest_mark, len(tokens)) - 1, -1, -1):
            packed[back:] = index(self.xp, self._table[node[back:], tokens[: len(tokens) - back]])
            node = packed >> NODE_AT
        return packed


def interrupted(scripts: Mapping[int, Sequence[int]], tail: Sequence[int]) -> Mapping[int, int]:
    """How many of each rule's words `tail` ends with, where it ends amidst them."""
    found: dict[int, int] = {}
    for kind, words in scripts.items():
        for written in range(min(len(words) - 1, len(tail)), 0, -1):
            if list(tail[-written:]) == list(words[:written]):
                found[kind] = written
                break
    return found


def _told(xp: Namespace, reading: Reading, turning: Array) -> Signals:
    """What a reading tells: nothing where a logit is no number, all else where the end of thought is masked."""
    known = flag(xp, reading.margin == reading.margin)
    return Signals(reading.margin, reading.top, reading.spread, known, turning)


def _all(xp: Namespace, view: View) -> Array:
    """0, 1, ... for the rows of a view."""
    return (index(xp, 0 * view.slots) + 1).cumsum(0) - 1


def _bits(stops: Stops) -> int:
    uses = Uses.of(stops)
    reads = stops.reads_confidence or stops.again is not None
    rules = _GROUP * uses.group | _STEPS * uses.steps | _REPEAT * uses.repeat
    rests = not (uses.steps or uses.repeat) and stops.least == 0 and stops.again is None
    return _ANY | rules | _READS * reads | _KEEPS * (stops.least > 0) | _RESTS * rests
