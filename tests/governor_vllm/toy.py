"""A model of a few tokens whose next one is a fixed function of the last ones, and what the rules should make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from governor.stops.arrays import names
from governor.stops.marks import MARK, START, Marks
from governor.stops.phrases import AGAIN, BUDGET, GROUP, MARGIN, REPEAT
from governor.stops.place import HOLD, Place, moved
from governor.stops.settings import Stops
from governor_vllm.script import BARE, scripts_of
from governor_vllm.vocabulary import Vocabulary
from tests.stops.plain_stops import Plain, Shown

_MARKS = Marks()
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
PIECES = (
    *(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "```",
        "\n\n",
        "\n",
        ". ",
        ".",
        ",",
        " ",
        "{",
        "}",
        "<",
        "/",
        ">",
        "_",
    ),
    *(">\n", "</", "think", "Wait", "I", "M", "'"),
    *_LETTERS,
)
EOS = len(PIECES)
SIZE = len(PIECES) + 4
"""Wider than the tokenizer, as served models' logits are."""
THINK, END = PIECES.index("<think>"), PIECES.index("</think>")


class Toy:
    """The tokenizer: the longest piece first."""

    eos_token_id = EOS
    all_special_ids: Sequence[int] = (THINK, END, EOS)
    max_token_id = EOS

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return "".join(PIECES[token] if token < EOS else "" for token in token_ids)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        found: list[int] = []
        while text:
            piece = max((one for one in PIECES if text.startswith(one)), key=len)
            found.append(PIECES.index(piece))
            text = text[len(piece) :]
        return found


VOCABULARY = Vocabulary(Toy, SIZE, _MARKS)


BRACED = Vocabulary(Toy, SIZE, Marks(start="{"))
"""Whose thoughts begin within a brace."""

_RUN = st.tuples(
    st.sampled_from([*map(PIECES.index, ("```", "{", "}") * 5), *range(PIECES.index("```")), EOS]),
    st.sampled_from([0, 0, 1, HOLD - 2, HOLD - 1, HOLD]),
)
WRITTEN = st.lists(_RUN.map(lambda run: [run[0], *[PIECES.index("k")] * run[1]]), max_size=8).map(
    lambda runs: [token for run in runs for token in run]
)
"""Tokens that open and close, with letters behind them: as many as they are held open for, too."""


def walked(vocabulary: Vocabulary, tokens: Sequence[int], prompt: int) -> list[float]:
    """The place behind tokens, taken one by one, where the first `prompt` are the prompt's."""
    here = Place(*(np.zeros(1) for _ in names(Place)))
    for at, token in enumerate(tokens):
        asked = at < prompt
        packed = vocabulary.table[int(here.node[0]), [token]]
        if asked and vocabulary.turns[token]:
            here = replace(here, inside=0 * here.inside, tool=0 * here.tool)
        if asked and packed[0] & MARK == START:
            here = replace(here, tool=0 * here.tool)
        here = moved(np, here, packed, np.array([float(not asked)]))
    return [float(getattr(here, name)[0]) for name in names(Place)]


@dataclass(frozen=True)
class Request:
    """What is asked, by whom it is governed (None: by nobody), and how it would go on by itself."""

    seed: int
    prompt: tuple[int, ...]
    stops: Stops | None
    max_tokens: int = 120
    stays: bool = False
    """Whether it thinks on and on, and seldom says anything but letters."""

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Of the token after `tokens`."""
        lingers = self.stops is not None and (self.stops.group is not None or self.stops.repeat is not None)
        key = [self.seed, 0 if lingers else len(tokens) // 4, *(tokens[-2:])]
        logits = np.random.default_rng(key).normal(0.0, 2.0, SIZE).astype(np.float32)
        logits[END] += -4.0 if lingers else 2.5
        if self.stays:
            logits[[END, *range(PIECES.index("a"))]] -= 4.0
            logits[EOS] -= 20.0
        logits[[EOS, *range(EOS, SIZE)]] -= 4.0
        return logits


@dataclass
class Expected:
    """The request carried out with the plain rules, one token after the other."""

    request: Request
    output: list[int] = field(default_factory=list)

    def run(self) -> list[int]:
        request, stops = self.request, self.request.stops or Stops()
        plain, scripts, script = self._begun(stops), scripts_of(stops, VOCABULARY), list[int]()
        while len(self.output) < request.max_tokens and EOS not in self.output:
            logits = request.logits([*request.prompt, *self.output])
            shown = self._shown(plain, stops, logits)
            if request.stops is not None and not script:
                kind = {"budget": BUDGET, "margin": MARGIN, "group": GROUP, "repeat": REPEAT, "again": AGAIN}
                said = plain.said(shown, len(scripts[BUDGET]))
                script = list(scripts[kind[said]]) if said in kind else []
                if not plain.has_room(len(script)):
                    script = list(scripts[BARE]) if said == "budget" else []
            forced = bool(script)
            if not forced and plain.inside and plain.thought < stops.least:
                logits[[t for t in range(SIZE) if t == EOS or self._ends(plain, t)]] = -np.inf
            token = script.pop(0) if forced else int(logits.argmax())
            self.output.append(token)
            plain.after(text(token), shown, own=not forced)
        return self.output

    def _begun(self, stops: Stops) -> Plain:
        plain = Plain(stops, room=self.request.max_tokens)
        for token in self.request.prompt:
            plain.after(text(token), Shown(), own=False)
        plain.made = plain.thought = 0
        return plain

    def _shown(self, plain: Plain, stops: Stops, logits: NDArray[np.float32]) -> Shown:
        values = logits.astype(np.float64)
        total = math.log(np.exp(values).sum())
        return Shown(
            margin=float(logits.max() - logits[END]),
            top=float(values.max() - total),
            spread=float(-(np.sort(values)[::-1][: stops.group_top] - total).mean()),
            turning=stops.again is not None and self._ends(plain, int(logits.argmax())),
        )

    def _ends(self, plain: Plain, token: int) -> bool:
        return _MARKS.read(0, plain.text + text(token))[1] & 7 == 2 and "</think>" in (plain.text + text(token))[-10:]


def text(token: int) -> str:
    return PIECES[token] if token < EOS else ""


def requests(seed: int, count: int) -> list[Request]:
    """Requests of all kinds, governed and not, thinking from the prompt on or only later."""
    rng = np.random.default_rng(seed)
    made: list[Request] = []
    for number in range(count):
        kinds: list[dict[str, Any] | None] = [
            None,
            {"budget": int(rng.integers(0, 90))},
            {"budget": 40, "phrase": "so, "},
            {"margin": 0.6},
            {"group": 9.0, "group_window": 32, "group_top": 5},
            {"repeat": 2, "repeat_period": 4, "repeat_tokens": 3},
            {"least": int(rng.integers(5, 30)), "again": "Wait"},
            {"least": 12, "budget": 50},
            {"budget": 64, "phrase": "so", "margin": 0.6},
            {"budget": 20, "phrase": "so", "repeat": 2, "repeat_period": 4, "repeat_tokens": 3},
            {"budget": 30, "phrase": "so", "least": 30, "again": "Wait a bit"},
            {"reserve": int(rng.integers(5, 30)), "phrase": "so"},
            {
                "margin": 0.3,
                "wide_margin": 2.0,
                "low_confidence": 0.3,
                "high_confidence": 0.31,
                "low_variance": 0.0005,
                "high_variance": 0.001,
                "few": 10,
            },
        ]
        chosen = kinds[number % len(kinds)]
        start = [(THINK,), (THINK, 30, 31), (), (5, THINK, END, 3), (THINK, 30, 7)][int(rng.integers(5))]
        prompt = (*(int(token) for token in rng.integers(20, EOS, int(rng.integers(1, 12)))), *start)
        made.append(Request(seed * 1000 + number, prompt, None if chosen is None else Stops(**chosen)))
    return made
