"""Replies that stop rules end: what is booked, what the loop makes of it, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from governor import Governor, Reply, Usage
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.protocols import Backend, Delta
from governor.records import Call, Outcome, Rung
from governor.stops.phrases import PHRASES, REPEAT
from governor.stops.settings import Stops
from governor.stops.tokens import Token
from governor.telemetry.metrics import OtelMeter
from governor.testing import ScriptedBackend
from governor.watched import Watched, doubted

LADDER = [
    {"id": "low", "model": "m/small", "thinking_tokens": 400, "answer_tokens": 100, "price": {"output": 1}},
    {"id": "high", "model": "m/large", "thinking_tokens": 400, "answer_tokens": 100, "price": {"output": 50}},
]
LOOP = "wait, but then it is not so. "
WHOLE = Reply(text="204", usage=Usage(20, 5))


class Thinking(ScriptedBackend):
    """Streams the words of a thought as they come, the first reply's as a loop without an end."""

    left = 0

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        reply = self.call(call)
        words = reply.thinking.split(" ")
        for at, word in enumerate(words, start=1):
            self.left = len(words) - at
            usage = Usage(20, at) if self.counts(call.rung) else None
            tokens = (Token(f"{word} ", -0.1, ((f"{word} ", -0.1), ("</think>", -0.15))),) if call.top_logprobs else ()
            yield Delta(thinking=f"{word} ", usage=usage, tokens=tokens)
        yield Delta(text=reply.text, usage=reply.usage if self.counts(call.rung) else None)
        yield reply

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        for piece in self.stream(call):
            yield piece


def looping(words: int = 3000) -> Reply:
    return Reply(text="17", thinking=(LOOP * words)[: words * 5].strip(), usage=Usage(20, words))


def governed(
    script: Any, *, counted: tuple[str, ...] = (), continues: tuple[str, ...] = (), **keys: Any
) -> tuple[Governor, Thinking]:
    backend = Thinking(script, counted=counted, continues=continues)
    policy = policy_from({"version": 1, "app": "test", "dial": 0.9, "ladder": LADDER, **keys})
    return Governor(policy, backend=backend, ledger=open_ledger("memory://")), backend


@pytest.fixture(params=["run", "arun", "stream", "astream"])
def answered(request: pytest.FixtureRequest) -> Any:
    def one(governor: Governor) -> Outcome:
        question = "What is 12 * 17?"
        if request.param == "run":
            return governor.run(question)
        if request.param == "arun":
            return asyncio.run(governor.arun(question))
        if request.param == "stream":
            stream = governor.stream(question)
            assert "".join(stream) == "204"
            assert stream.outcome is not None
            return stream.outcome

        async def collect() -> Outcome:
            stream = governor.astream(question)
            assert "".join([piece async for piece in stream]) == "204"
            assert stream.outcome is not None
            return stream.outcome

        return asyncio.run(collect())

    return one


def test_a_stuck_reply_is_ended_rejected_and_followed_by_a_higher_rung(answered: Any) -> None:
    governor, backend = governed([looping(), WHOLE], counted=("low", "high"), stops={"repeat": 4})
    outcome = answered(governor)
    first, second = outcome.attempts
    assert (first.reply.finish_reason, first.reply.stopped) == ("stuck", "repeat")
    assert (first.failure, first.rejected, first.shippable) == ("stuck", True, False)
    assert (second.rung.id, outcome.answer) == ("high", "204")
    assert len(backend.calls) == 2


def test_only_what_was_read_is_booked_where_the_backend_counts() -> None:
    governor, _ = governed([looping(), WHOLE], counted=("low",), stops={"repeat": 4})
    first = governor.run("why").attempts[0]
    assert first.reply is not None
    assert first.reply.usage_known
    assert 24 <= first.usage.output_tokens < 100


def test_a_backend_that_does_not_count_is_booked_at_the_calls_bound() -> None:
    governor, _ = governed([looping(), WHOLE], stops={"repeat": 4})
    first = governor.run("why").attempts[0]
    assert first.usage.output_tokens == 500


def test_no_verifier_may_accept_what_is_stuck() -> None:
    governor, _ = governed([looping(), WHOLE], stops={"repeat": 4}, verify={"regex": "."})
    assert [attempt.failure for attempt in governor.run("why").attempts] == ["stuck", ""]


def test_a_budget_cuts_the_thought_and_the_answer_is_asked_for() -> None:
    thought = Reply(text="17", thinking="one two three four five six seven eight", usage=Usage(20, 9))
    governor, backend = governed(
        [thought, Reply(text="204", usage=Usage(30, 2))], counted=("low",), continues=("low",), stops={"budget": 4}
    )
    outcome = governor.run("why")
    assert [attempt.mode for attempt in outcome.attempts] == ["first", "continue"]
    assert outcome.attempts[0].reply is not None
    assert (outcome.attempts[0].reply.stopped, outcome.attempts[0].failure) == ("budget", "truncated")
    assert backend.calls[1].prefix == "<think>\none two three four five </think>\n\n"
    assert (outcome.answer, outcome.rung) == ("204", "low")


def test_confidence_rules_ask_for_what_they_read_and_nobody_sees_it() -> None:
    thought = Reply(text="17", thinking="So it is. Or maybe not", usage=Usage(20, 9))
    governor, backend = governed([thought, WHOLE], stops={"margin": 0.1})
    first = governor.run("why").attempts[0].reply
    assert first is not None
    assert (first.stopped, first.thinking, first.logprobs) == ("margin", "So it is. Or ", None)
    assert (backend.calls[0].logprobs, backend.calls[0].top_logprobs) == (True, 20)


def test_rungs_without_rules_are_called_as_ever() -> None:
    backend = Thinking([looping(), looping()])
    call = Call(step_id="s", rung=Rung(id="low", model="m"), messages=())
    assert Watched(backend).call(call) == looping()
    assert list(Watched(backend).stream(call))[-1] == looping()
    assert not isinstance(governed([WHOLE])[0].backend, Watched)


def test_a_whole_reply_is_doubted_by_its_repetitions_alone() -> None:
    reply = Reply(text=LOOP * 20, finish_reason="stop", usage=Usage(20, 90))
    judged = doubted(reply, Stops(repeat=4, budget=1))
    assert (judged.stopped, judged.finish_reason, judged.text) == ("repeat", "stuck", reply.text)
    assert doubted(reply, Stops(budget=1)) is reply
    assert doubted(WHOLE, Stops(repeat=4)) is WHOLE


class Engine(Thinking):
    """A server that runs the rules itself, and tells by its words."""

    def stops(self, rung: Rung) -> bool:
        return True


def test_what_the_engine_ended_is_known_by_its_words() -> None:
    ended = Reply(text="17", thinking=LOOP * 20 + PHRASES[REPEAT], usage=Usage(20, 90))
    backend = Engine([ended])
    rung = Rung(id="low", model="m", stops=Stops(repeat=4))
    reply = Watched(backend).call(Call(step_id="s", rung=rung, messages=()))
    assert (reply.stopped, reply.finish_reason, reply.text) == ("repeat", "stuck", "17")


def test_what_the_inner_backend_can_is_passed_on() -> None:
    inner: Backend = Thinking([], counted=("low",), continues=("low",))
    watched = Watched(inner)
    low, high = Rung(id="low", model="m"), Rung(id="high", model="m")
    assert (watched.counts(low), watched.counts(high)) == (True, False)
    assert (watched.continues(low), watched.continues(high)) == (True, False)
    assert not watched.stops(low)
    watched.ready(low)
    watched.close()
    assert isinstance(inner, ScriptedBackend)
    assert inner.closed


def test_ends_are_counted_by_rule() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    policy = policy_from({"version": 1, "app": "desk", "dial": 0.9, "ladder": LADDER, "stops": {"repeat": 4}})
    meter = OtelMeter("desk", provider)
    with Governor(
        policy, backend=Thinking([looping(), WHOLE]), ledger=open_ledger("memory://"), meter=meter
    ) as governor:
        governor.run("why")
        data = reader.get_metrics_data()
    assert data is not None
    made = [one for each in data.resource_metrics for scope in each.scope_metrics for one in scope.metrics]
    points = [point for one in made if one.name == "governor.thought.stopped" for point in one.data.data_points]
    told = {"governor.stop.rule": "repeat", "governor.app": "desk"}
    assert [(dict(point.attributes or {}), getattr(point, "value", None)) for point in points] == [(told, 1)]
    provider.shutdown()
