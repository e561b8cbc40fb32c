"""Stop rules on replies of a real model with log-probabilities: equal to the plain ones, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from governor.protocols import Delta
from governor.records import Rung
from governor.stops.settings import Stops
from governor.stops.tokens import Token
from governor.stops.watch import Watch
from governor.watched import Watched
from governor_local import LocalBackend
from tests.governor_local.calls import RAIN, STORY, ask
from tests.stops.plain_stops import Plain, Shown

pytestmark = pytest.mark.model

SETTINGS = {
    "repeat": Stops(repeat=3, repeat_period=24, repeat_tokens=12),
    "group": Stops(group=4.8, group_window=32, group_top=20),
    "margin": Stops(
        margin=2.0,
        wide_margin=6.0,
        low_confidence=0.6,
        high_confidence=0.6,
        low_variance=0.001,
        high_variance=0.001,
        few=200,
    ),
}
PROMPTS = (RAIN, STORY, "Write the word la a hundred times.", "Write five short paragraphs about the sea.")


def recorded(backend: LocalBackend, prompt: str) -> list[Token]:
    """A reply's tokens. The model knows no thinking, so one of its alternatives stands for the end of a thought."""
    call = ask(prompt, tokens=220, seed=7, logprobs=True, top_logprobs=20)
    told = [token for piece in backend.stream(call) if isinstance(piece, Delta) for token in piece.tokens]
    return [replace(one, top=(*one.top[:4], ("</think>", one.top[4][1]), *one.top[5:])) for one in told]


def shown(token: Token) -> Shown:
    ranked = sorted((logprob for _, logprob in token.top), reverse=True)
    return Shown(ranked[0] - token.top[4][1], ranked[0], -sum(ranked) / len(ranked))


def test_rules_on_recorded_replies_are_the_plain_ones(backend: LocalBackend) -> None:
    acted: set[str] = set()
    for prompt in PROMPTS:
        tokens = recorded(backend, prompt)
        assert len(tokens) > 30
        assert all(len(token.top) == 20 and token.logprob <= 0.0 for token in tokens)
        for stops in SETTINGS.values():
            acted |= agreed(stops, tokens)
    assert acted == {"", *SETTINGS}


def agreed(stops: Stops, tokens: Sequence[Token]) -> set[str]:
    """What both said, token by token."""
    watch, plain, acted = Watch(stops), Plain(stops, inside=True), set[str]()
    for token in tokens:
        said = plain.said(shown(token), 0)
        acted.add("" if said == "hold" else said)
        assert watch.read(token.text, thinking=True, tokens=[token]) == ("" if said == "hold" else said)
        plain.after(token.text, shown(token))
    return acted


def test_a_reply_that_goes_round_in_circles_is_ended(backend: LocalBackend) -> None:
    rung = Rung(id="r", model="local/smollm2-135m", answer_tokens=400, temperature=0.0, stops=Stops(repeat=4))
    call = replace(ask("Write the word la a hundred times."), rung=rung)
    reply = Watched(backend).call(call)
    assert (reply.stopped, reply.finish_reason, reply.usage_known) == ("repeat", "stuck", True)
    assert 24 <= reply.usage.output_tokens < 400
