"""32 requests of every kind at once against a real vLLM: each obeys its own parameters, and none disturbs another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from jsonschema import validate

from governor.records import Call, Reply
from governor.stops.phrases import AGAIN, GROUP, PHRASES
from governor_vllm.backend import VllmBackend
from governor_vllm.load import pressure_of
from governor_vllm.marks import END
from governor_vllm.probe import PATIENCE, Probe, ended
from governor_vllm.request import CHAT, COMPLETIONS
from tests.governor_vllm.engine_calls import call, cut_after, parts, rung, tokens_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MANY, SLOTS = 32, 16
SCHEMA = {
    "type": "object",
    "properties": {"word": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
    "required": ["word", "sure"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
OFF = {"enable_thinking": False}
SHARED = "A long beginning that many prompts share. " * 24
WINDOW = 32
FORCED = tuple(phrase.strip() for code, phrase in PHRASES.items() if code != AGAIN)
ENDLESS: Mapping[str, Any] = {"ignore_eos": True, "logprobs": True}

Answer = Mapping[str, Any]
Check = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as clients send it, and what its client relies on."""

    body: Mapping[str, Any]
    check: Check
    path: str = CHAT
    leave_after: int | None = None
    """Hang up after so many events of its stream."""

    def sent(self, probe: Probe) -> Answer | None:
        """The answer; None for one that is left."""
        body = {"model": probe.model, **self.body}
        if self.leave_after is None:
            answer: Answer = probe.link.post(self.path, body, PATIENCE)
            return answer
        with probe.link.events(self.path, {**body, "stream": True}, PATIENCE) as events, closing(events):
            for _ in zip(events, range(self.leave_after), strict=False):
                pass
        return None


class Kinds:
    """A request of each kind, by its number."""

    def __init__(self, probe: Probe) -> None:
        self.called = probe.ids('<tool_call>\n{"name": "add", ')
        self.prompt = probe.rendered([{"role": "user", "content": "Add one and two."}])
        self.end = str(probe.ids(END)[0])

    def all(self) -> list[Callable[[int], Asked]]:
        return [
            self.ungoverned, self.budget, self.stuck, self.tool, self.amid_tool, self.schema,
            self.several, self.logprobs, self.cached, self.aborted,
        ]  # fmt: skip

    def ungoverned(self, number: int) -> Asked:
        tokens = 60 + number

        def check(answer: Answer) -> None:
            (choice,) = answer["choices"]
            assert choice["finish_reason"] == "length"
            assert len(said(choice)) == tokens
            text = "".join(said(choice))
            assert END not in text
            assert not any(phrase in text for phrase in FORCED)

        return Asked(chat(number, max_tokens=tokens, **ENDLESS), check)

    def budget(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            assert ended(said(answer["choices"][0])) == 20 + number

        return Asked(self.thinking(number, {"governor_budget": 20 + number}), check)

    def stuck(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            tokens = said(answer["choices"][0])
            after = "".join(tokens[WINDOW : ended(tokens)])
            assert after == PHRASES[GROUP] + END

        return Asked(self.thinking(number, {"governor_group": 100.0, "governor_group_window": WINDOW}), check)

    def tool(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            (choice,) = answer["choices"]
            if choice["finish_reason"] != "length":  # random weights may fill a string up to max_tokens
                (made,) = choice["message"]["tool_calls"]
                assert made["function"]["name"] == "add"
                json.loads(made["function"]["arguments"])

        how = {"max_tokens": 120, "tools": [TOOL], "tool_choice": "required", "thinking_token_budget": 20 + number}
        return Asked(chat(number) | how, check)

    def amid_tool(self, number: int) -> Asked:
        """A tool call that was begun in the thought when the budget ran out: nothing is forced into it."""

        def check(answer: Answer) -> None:
            text = answer["choices"][0]["text"]
            assert answer["usage"]["completion_tokens"] == 40
            assert END not in text
            assert not any(phrase in text for phrase in FORCED)

        body = {"prompt": [*self.prompt, *self.called], "temperature": 0.0, "max_tokens": 40, "ignore_eos": True}
        limit = {"governor_budget": 4 + number % 3}
        return Asked({**body, "skip_special_tokens": False, "vllm_xargs": limit}, check, COMPLETIONS)

    def schema(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            (choice,) = answer["choices"]
            assert choice["finish_reason"] == "stop"
            validate(json.loads(choice["message"]["content"]), SCHEMA)

        shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        return Asked(chat(number, max_tokens=100, response_format=shape, chat_template_kwargs=OFF), check)

    def several(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            choices = answer["choices"]
            assert [one["index"] for one in choices] == [0, 1, 2]
            assert [ended(said(one)) for one in choices] == [20 + number] * 3
            assert len({"".join(said(one)[: 20 + number]) for one in choices}) > 1

        body = self.thinking(number, {"governor_budget": 20 + number})
        return Asked({**body, "n": 3, "temperature": 1.0, "seed": number}, check)

    def logprobs(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            told = answer["choices"][0]["logprobs"]["content"]
            assert len(told) == answer["usage"]["completion_tokens"] == 16
            for one in told:
                values = [other["logprob"] for other in one["top_logprobs"]]
                assert len(values) == 5
                assert values == sorted(values, reverse=True)
                assert one["logprob"] == values[0] <= 0.0

        return Asked(chat(number, max_tokens=16, top_logprobs=5, **ENDLESS), check)

    def cached(self, number: int) -> Asked:
        def check(answer: Answer) -> None:
            assert ended(said(answer["choices"][0])) == 20 + number
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= 128

        return Asked(self.thinking(number, {"governor_budget": 20 + number}, SHARED), check)

    def aborted(self, number: int) -> Asked:
        """Its budget would end the thought soon after it is left: the slot's next request must not feel that."""
        body = self.thinking(number, {"governor_budget": 60})
        return Asked({**body, "max_tokens": 300}, unanswered, leave_after=6)

    def thinking(self, number: int, rules: Mapping[str, Any], text: str = "") -> dict[str, Any]:
        """Its end is nothing that the model itself chooses; a rule that reads confidence takes no bias beside it."""
        bias = {} if "governor_group" in rules else {self.end: -100.0}
        return chat(number, text, max_tokens=80, vllm_xargs=dict(rules), logit_bias=bias, **ENDLESS)


def chat(number: int, text: str = "", **settings: Any) -> dict[str, Any]:
    question = {"role": "user", "content": f"{text}What is {number} times seven?"}
    return {"messages": [question], "temperature": 0.0, **settings}


def said(choice: Mapping[str, Any]) -> list[str]:
    return [str(one["token"]) for one in choice["logprobs"]["content"]]


def unanswered(answer: Answer) -> None:
    pytest.fail(f"a request that was left got an answer: {answer}")


def together(probe: Probe, asked: Sequence[Asked]) -> list[Answer | None]:
    """All of them at the same moment."""
    begun = threading.Barrier(len(asked))

    def one(request: Asked) -> Answer | None:
        begun.wait()
        return request.sent(probe)

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(one, asked))


def idle(probe: Probe) -> None:
    """Until nothing runs any more."""
    for _ in range(100):
        if pressure_of(probe.link.get("/metrics"), probe.model).running == 0:
            return
        time.sleep(0.1)
    pytest.fail("the engine goes on with requests that nobody reads")


def test_32_mixed_requests_each_obey_their_own_parameters(backend: VllmBackend) -> None:
    _, probe = parts(backend)
    kinds = Kinds(probe)
    alone = kinds.ungoverned(7)
    before = alone.sent(probe)
    kinds.cached(0).sent(probe)  # what the others find in the cache
    makers = kinds.all()
    asked = [makers[number % len(makers)](number) for number in range(MANY)]
    for request, answer in zip(asked, together(probe, asked), strict=True):
        assert (answer is None) == (request.leave_after is not None)
        if answer is not None:
            request.check(answer)
    idle(probe)
    # These come where governed requests were, some of which were left amid their thought.
    later = [kinds.ungoverned(number) for number in range(SLOTS)]
    for request, answer in zip(later, together(probe, later), strict=True):
        assert answer is not None
        request.check(answer)
    after = alone.sent(probe)
    assert before is not None
    assert after is not None
    assert said(after["choices"][0]) == said(before["choices"][0])


def test_32_mixed_calls_each_obey_their_own_rung(backend: VllmBackend) -> None:
    kinds: list[Call] = []
    for number in range(MANY):
        text = f"{SHARED[:300] if number % 2 else ''}What is {number} times seven?"
        kinds.append(
            [
                call(text, rung=rung(thinking_tokens=20 + number)),
                call(text, rung=rung(effort="none", thinking_tokens=0, answer_tokens=8 + number)),
                call(text, rung=rung(effort="none", thinking_tokens=0, answer_tokens=100), response_schema=SCHEMA),
                call(text, rung=rung(thinking_tokens=20 + number), logprobs=True, seed=number),
                call(text, rung=rung(answer_tokens=150), tools=(TOOL,), tool_choice="required"),
                call(text, rung=rung(thinking_tokens=300)),
            ][number % 6]
        )
    begun = threading.Barrier(MANY)

    def run(asked: Call) -> Reply:
        begun.wait()
        return cut_after(backend, asked, 6) if asked.rung.thinking_tokens == 300 else backend.call(asked)

    with ThreadPoolExecutor(MANY) as pool:
        replies = list(pool.map(run, kinds))
    for asked, reply in zip(kinds, replies, strict=True):
        assert reply.usage.output_tokens <= asked.rung.max_tokens
        assert reply.usage.thinking_tokens <= asked.rung.thinking_tokens
        assert bool(reply.thinking) == (asked.rung.effort != "none")
        if asked.logprobs:
            assert reply.logprobs is not None
            assert abs(len(reply.logprobs) - reply.usage.output_tokens) <= 1
        if asked.response_schema is not None:
            validate(json.loads(reply.text), SCHEMA)
        if asked.tools and not reply.truncated:
            for made in reply.tool_calls:
                json.loads(made.arguments)
    with ThreadPoolExecutor(SLOTS) as pool:
        budgets = [one for one in kinds if not one.tools and one.rung.thinking_tokens in range(1, 300)]
        ends = list(pool.map(lambda one: ended(tokens_of(backend, one)), budgets))
    assert ends == [one.rung.thinking_tokens for one in budgets]
