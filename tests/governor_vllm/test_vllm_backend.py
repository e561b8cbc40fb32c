"""Answers, counts, continuations and fallbacks over a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from governor import Governor
from governor.errors import (
    BackendError,
    BackendReplyError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
)
from governor.plan.turns import joined, unfinished
from governor.policy import policy_from
from governor.protocols import Backend, Counting, Delta, Foresighted, Pressed
from governor.records import Call, Reply, Usage
from governor.stops.phrases import BUDGET, PHRASES, REPEAT
from governor.stops.settings import Stops
from governor.stops.tokens import Token
from governor.watched import Judge
from governor_vllm.backend import VllmBackend
from governor_vllm.marks import Splitter
from governor_vllm.reply import Transcript
from tests.governor_vllm.calls import MODEL, backend, call, rung
from tests.governor_vllm.dialect import DialectServer

LONG = "Think of " + "many things " * 60  # room for a prompt that has to be read twice
BOTH = pytest.mark.parametrize("parser", [True, False])


def streamed(made: VllmBackend, asked: Call) -> tuple[list[Delta], Reply]:
    *deltas, reply = made.stream(asked)
    assert isinstance(reply, Reply)
    return [one for one in deltas if isinstance(one, Delta)], reply


def test_it_is_a_backend_of_the_one_loop(server: DialectServer) -> None:
    made: Backend = backend(server)
    assert isinstance(made, Counting)
    assert isinstance(made, Foresighted)
    assert isinstance(made, Pressed)


@BOTH
def test_a_budget_is_exact_and_the_answer_keeps_its_reserve(server: DialectServer, parser: bool) -> None:
    server.now(parser=parser)
    deltas, reply = streamed(backend(server), call())
    assert (reply.text, reply.finish_reason) == ("The answer is 42.", "stop")
    assert reply.thinking.split() == [f"w{number}" for number in range(1, 9)]
    assert reply.usage.output_tokens == 10 + 1 + 5  # the thought with its mark, a line break, the answer
    assert reply.usage.thinking_tokens <= 10
    assert "".join(one.text for one in deltas) == reply.text
    assert "".join(one.thinking for one in deltas) == reply.thinking


@BOTH
def test_every_piece_tells_what_the_call_has_come_to(server: DialectServer, parser: bool) -> None:
    server.now(parser=parser)
    deltas, reply = streamed(backend(server), call())
    counts = [one.usage.output_tokens for one in deltas if one.usage is not None]
    assert len(counts) == len(deltas)
    assert counts == sorted(counts)
    assert counts[-1] <= reply.usage.output_tokens
    assert reply.usage_known


async def test_awaited_it_is_the_same(server: DialectServer) -> None:
    made = backend(server)
    expected = made.call(call())
    items = [item async for item in made.astream(call())]
    assert isinstance(items[-1], Reply)
    assert replace(items[-1], seconds=0.0) == replace(expected, seconds=0.0)
    assert replace(await made.acall(call()), seconds=0.0) == replace(expected, seconds=0.0)


@pytest.mark.parametrize("awaited", [False, True])
@BOTH
def test_letters_that_python_takes_for_line_ends_are_letters(
    server: DialectServer, parser: bool, awaited: bool
) -> None:
    """vLLM writes them into a stream's JSON as they are."""
    answer = "".join(f"a{end}b" for end in "\u2028\u2029\u0085\v\f\x1c\x1d\x1e")
    server.now(answer=answer, parser=parser)
    made = backend(server)
    reply = asyncio.run(made.acall(call())) if awaited else made.call(call())
    assert reply.text == answer


def test_marks_that_leak_behind_a_forced_end_are_taken_off(server: DialectServer) -> None:
    server.now(leak="</think>", answer=" The answer is 42.<|endoftext|>")
    deltas, reply = streamed(backend(server), call())
    assert reply.text == "The answer is 42."
    assert "".join(one.text for one in deltas) == reply.text


def test_marks_that_leak_into_a_continuation_are_taken_off_too(server: DialectServer) -> None:
    server.now(begun=0, leak="</think></think>", answer="The answer is 42.<|endoftext|>")
    made = backend(server)
    ended_at_once = Reply(text="", thinking=" w1 w2 w3", finish_reason="length")
    mid_answer = replace(ended_at_once, text="The answer")
    for before in (ended_at_once, mid_answer):
        deltas, after = streamed(made, call(prefix=unfinished(before)))
        shown = before.text + "".join(one.text for one in deltas)
        assert shown == joined(before, after).text == "The answer is 42."


def test_a_piece_may_end_the_thought_and_begin_the_answer() -> None:
    script = Transcript(call(), Splitter())
    script.feed({"choices": [{"delta": {"reasoning": "six sevens"}}]})
    script.feed({"choices": [{"delta": {"reasoning": " are 42", "content": "\n\nIt is"}}]})
    script.feed({"choices": [{"delta": {"content": " 42."}, "finish_reason": "stop"}]})
    reply = script.reply(0.0)
    assert (reply.thinking, reply.text) == ("six sevens are 42", "It is 42.")


@pytest.mark.parametrize("processor", [True, False])
@BOTH
def test_a_truncated_thought_is_gone_on_from_and_not_paid_again(
    server: DialectServer, parser: bool, processor: bool
) -> None:
    server.now(parser=parser, processor=processor, thought=100)
    made = backend(server)
    asked = rung(thinking_tokens=12)
    whole = made.call(call(rung=asked))
    short = replace(whole, thinking=" w1 w2 w3", text="", finish_reason="length", stopped="")
    resumed = made.call(call(rung=asked, prefix=unfinished(short)))
    body = server.asked()[-1]
    assert body["prompt"][-3:] == server.ids(" w1 w2 w3")
    both = joined(short, resumed)
    assert (both.thinking, both.text) == (whole.thinking, whole.text)
    assert resumed.usage.output_tokens == whole.usage.output_tokens - 3


@BOTH
def test_a_truncated_answer_is_gone_on_from(server: DialectServer, parser: bool) -> None:
    server.now(parser=parser)
    made = backend(server)
    first = made.call(call(rung=rung(answer_tokens=3)))
    assert first.truncated
    rest = made.call(call(rung=rung(answer_tokens=20), prefix=unfinished(first)))
    both = joined(first, rest)
    assert both.text == "The answer is 42."
    assert both.thinking == first.thinking
    assert server.asked()[-1]["max_tokens"] == 20


def test_with_tools_a_reply_is_gone_on_from_as_a_message(server: DialectServer) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    made = backend(server)
    made.call(call(prefix="The answer", tools=(tool,)))
    body = server.asked()[-1]
    assert body["messages"][-1] == {"role": "assistant", "content": "The answer"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@BOTH
def test_where_the_server_keeps_no_budget_the_stream_is_cut_and_the_answer_asked_for(
    server: DialectServer, parser: bool
) -> None:
    server.now(parser=parser, budget="ignored")
    made = backend(server, fallback="stream")
    deltas, reply = streamed(made, call(LONG))
    assert reply.thinking.split() == [f"w{number}" for number in range(1, 11)]
    assert (reply.text, reply.finish_reason) == ("The answer is 42.", "stop")
    first, second = server.asked()[-2:]
    assert second["prompt"][:-1] != first.get("prompt")
    assert reply.usage.output_tokens == 10 + 5
    assert reply.usage.input_tokens == len(server.ids(server.prompt(first))) + len(second["prompt"])
    counts = [one.usage.output_tokens for one in deltas if one.usage is not None]
    assert counts == sorted(counts)


def test_a_prompt_that_may_not_be_read_twice_ends_the_reply_and_the_loop_goes_on(server: DialectServer) -> None:
    server.now(budget="ignored", thought=400)
    short = "Hi"
    small = rung(thinking_tokens=60)
    made = backend(server, fallback="stream")
    cut = made.call(call(short, rung=small))
    assert (cut.finish_reason, cut.text, cut.usage.output_tokens) == ("length", "", 60)
    rest = made.call(call(short, rung=small, prefix=unfinished(cut)))
    assert (rest.text, rest.finish_reason) == ("The answer is 42.", "stop")
    both = joined(cut, rest)
    assert both.text == "The answer is 42."
    assert both.thinking.rstrip() == cut.thinking


def test_hanging_up_ends_the_generation(server: DialectServer) -> None:
    made = backend(server)
    made.ready(rung())
    server.hang = 0.02
    stream = made.stream(call(rung=rung(thinking_tokens=200)))
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]  # a generator, as the protocol's readers know
    made.close()
    for _ in range(100):
        if server.hung_up:
            break
        server._closing.wait(0.05)
    assert server.hung_up == 1


@pytest.mark.parametrize("awaited", [False, True])
def test_a_deadline_ends_a_call_with_what_it_used(server: DialectServer, awaited: bool) -> None:
    seconds = count()
    made = VllmBackend({MODEL: {"api_base": server.url}}, clock=lambda: float(next(seconds)))
    late = call(rung=rung(thinking_tokens=200), timeout=20)
    with pytest.raises(BackendTimeoutError, match="within 20 s") as fault:
        asyncio.run(made.acall(late)) if awaited else made.call(late)
    made.close()
    assert fault.value.usage is not None
    assert 0 < fault.value.usage.output_tokens < 20


@pytest.mark.parametrize("lives", [False, True])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_deadline_ends_the_wait_for_a_server_that_fell_silent(
    server: DialectServer, awaited: bool, lives: bool
) -> None:
    made = backend(server)
    made.ready(rung())
    server.falls_silent, server.only_lives = 7, lives
    late = call(rung=rung(thinking_tokens=200), timeout=1)
    with pytest.raises(BackendTimeoutError, match=r"within 1 s|in time") as fault:
        asyncio.run(made.acall(late)) if awaited else made.call(late)
    assert fault.value.usage is not None
    assert fault.value.usage.output_tokens == 7


def test_faults_say_whether_anything_was_sent(server: DialectServer) -> None:
    nowhere = VllmBackend({MODEL: {"api_base": "http://127.0.0.1:9/v1"}})
    with pytest.raises(BackendUnavailableError, match="is it running") as absent:
        nowhere.call(call())
    assert absent.value.sent is False
    made = backend(server)
    made.close()
    with pytest.raises(BackendUnavailableError, match="closed"):
        made.call(call())


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    ("stray", "kind", "told"),
    [
        ('{"error": "boom"}', BackendUnavailableError, "HTTP 500: boom"),
        ('{"error": {"message": "boom", "code": "too_long"}}', BackendUnavailableError, "HTTP 500: boom"),
        ('{"error": {"message": "boom", "code": "400"}}', BackendRequestError, "HTTP 400: boom"),
        ('{"error": {"message": null}}', BackendUnavailableError, "HTTP 500: None"),
        ("null", BackendReplyError, "another shape"),
        ('"pong"', BackendReplyError, "another shape"),
        ('{"choices": 3}', BackendReplyError, "another shape"),
        ('{"choices": [{"delta": "x"}]}', BackendReplyError, "another shape"),
        ('{"choices": [], "usage": {"completion_tokens": "x"}}', BackendReplyError, "another shape"),
        (
            '{"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": null}]}}]}',
            BackendReplyError,
            "another shape",
        ),
        ('{"choices": [{"del', BackendReplyError, "no JSON"),
    ],
)
def test_a_strange_event_is_one_fault_that_knows_what_was_used(
    server: DialectServer, stray: str, kind: type[BackendError], told: str, awaited: bool
) -> None:
    made = backend(server)
    made.ready(rung())
    server.now(stray=stray)
    with pytest.raises(kind, match=rf"^vllm/q: .*{told}") as fault:
        asyncio.run(made.acall(call())) if awaited else made.call(call())
    assert "\n" not in str(fault.value)
    assert fault.value.usage is not None
    assert fault.value.usage.output_tokens > 0


@pytest.mark.parametrize("stray", [" ", '{"error": null, "choices": []}', "{}"])
def test_an_event_that_says_nothing_is_passed_over(server: DialectServer, stray: str) -> None:
    server.now(stray=stray)
    assert backend(server).call(call()).text == "The answer is 42."


def test_tokens_that_are_none_are_a_fault_of_the_reply(server: DialectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = backend(server)
    made.ready(rung())
    for answer in ({"tokens": ["a"]}, {}, None):
        monkeypatch.setattr("governor_vllm.link.Link.post", lambda *_, answer=answer: answer)
        with pytest.raises(BackendReplyError, match=r"^vllm/q: .*another shape"):
            made.call(call(prefix="The answer"))


def test_what_is_known_is_not_asked_again(server: DialectServer) -> None:
    made = backend(server)
    made.call(call())
    before = len(server.seen)
    made.call(call())
    made.ready(rung())
    assert len(server.seen) == before + 1
    assert made.continues(rung())
    assert made.counts(rung())


def policy(server: DialectServer, **more: Any) -> Mapping[str, Any]:
    ladder = [
        {"id": name, "model": MODEL, "thinking_tokens": n, "answer_tokens": 20} for name, n in (("s", 4), ("l", 12))
    ]
    models = {MODEL: {"api_base": server.url, "engine": {"fallback": "stream"}}}
    return {"version": 1, "ladder": ladder, "models": models, **more}


def test_a_policy_reaches_a_vllm_model(server: DialectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from governor import backends

    entry = EntryPoint("vllm", "governor_vllm.backend:VllmBackend", backends._GROUP)
    monkeypatch.setattr(backends, "_installed", lambda: {"vllm": entry})
    with Governor(policy_from(policy(server))) as governor:
        outcome = governor.run("What is six times seven?")
        stream = governor.stream("What is six times seven?")
        shown = "".join(stream)
    assert (outcome.status, outcome.answer) == ("unverified", "The answer is 42.")
    assert shown == "The answer is 42."
    assert stream.outcome is not None
    assert outcome.usage == stream.outcome.usage


def test_a_step_whose_budget_ends_inside_the_stream_is_cut_at_that_token(server: DialectServer) -> None:
    made = backend(server)
    made.ready(rung())
    asked = len(server.ids(server.prompt({"messages": [{"role": "user", "content": LONG}]})))
    limits = {"step": {"thinking_tokens": 40, "tokens": 2000}}
    wanted = policy(server, budget=limits, backtrack={"modes": []}, dial=0)
    with Governor(policy_from(wanted), backend=made) as governor:
        stream = governor.stream(LONG)
        assert json.dumps("".join(stream))
    assert stream.outcome is not None
    assert stream.outcome.usage.input_tokens == asked
    assert stream.outcome.usage.output_tokens <= 2000


def test_a_reply_that_breaks_off_is_a_fault_with_its_usage() -> None:
    script = Transcript(call(), Splitter())
    script.feed({"choices": [{"delta": {"content": "The"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})
    with pytest.raises(BackendReplyError, match="broke off after 1 tokens") as fault:
        script.reply(0.1)
    assert fault.value.usage == Usage(5, 1)


def test_a_model_without_resumption_is_not_gone_on_from(server: DialectServer) -> None:
    made = VllmBackend({"vllm/gpt-oss-20b": {"api_base": server.url}})
    assert not made.continues(rung(model="vllm/gpt-oss-20b"))
    with pytest.raises(BackendRequestError, match="serves no model 'gpt-oss-20b'"):
        made.ready(rung(model="vllm/gpt-oss-20b"))


def test_a_model_with_other_marks_is_not_gone_on_from_and_its_answer_not_lost(server: DialectServer) -> None:
    server.now(seed=True, parser=False)
    made = backend(server)
    assert made.call(call()).text.endswith("The answer is 42.")
    assert not made.continues(rung())


def test_a_rule_of_the_engine_is_known_by_its_words(server: DialectServer) -> None:
    server.now(forced=f"{PHRASES[REPEAT]}</think>", processor=True)
    stuck = backend(server).call(call(rung=rung(thinking_tokens=40)))
    assert (stuck.stopped, stuck.finish_reason) == ("repeat", "stuck")
    server.now(forced=f"{PHRASES[BUDGET]}</think>")
    over = backend(server).call(call(rung=rung(thinking_tokens=40)))
    assert (over.stopped, over.finish_reason, over.text) == ("budget", "stop", "The answer is 42.")


@BOTH
@pytest.mark.parametrize(
    ("manner", "engine", "thought", "stopped"),
    [
        ({"processor": True}, {}, 100, "budget"),
        ({"processor": True}, {}, 9, ""),
        ({}, {}, 100, "budget"),
        ({}, {}, 9, ""),
        ({"budget": "ignored"}, {"fallback": "stream"}, 100, "budget"),
        ({"budget": "ignored"}, {"fallback": "stream"}, 9, ""),
        ({"budget": "ignored"}, {"fallback": "prompt"}, 20, ""),
    ],
)
def test_a_budget_that_has_no_room_for_its_words_is_known_by_the_tokens_of_the_thought(
    server: DialectServer, parser: bool, manner: dict[str, Any], engine: dict[str, Any], thought: int, stopped: str
) -> None:
    """Eight words fit in, with the line break and the mark. `thought` counts the line break of the prompt."""
    server.now(parser=parser, **manner)
    made = backend(server, **engine)
    made.ready(rung())
    server.now(thought=thought)
    whole = made.call(call(LONG))
    assert (whole.stopped, whole.finish_reason, whole.text) == (stopped, "stop", "The answer is 42.")
    resumed = made.call(call(LONG, prefix=unfinished(replace(whole, thinking=" w1 w2 w3", text="", stopped=""))))
    assert (resumed.stopped, resumed.finish_reason) == (stopped, "stop")
    answered = made.call(call(LONG, prefix=unfinished(replace(whole, text="The answer", stopped=""))))
    assert answered.stopped == "", "the thought was over before this call"


def test_the_budget_of_the_stop_rules_is_known_so_too(server: DialectServer) -> None:
    server.now(processor=True)
    made = backend(server)
    made.ready(rung())
    assert made.call(call(rung=rung(thinking_tokens=40, stops=Stops(budget=5)))).stopped == "budget"
    server.now(thought=4)
    assert made.call(call(rung=rung(thinking_tokens=40, stops=Stops(budget=5)))).stopped == ""


def test_a_reply_without_a_thought_was_ended_by_no_budget(server: DialectServer) -> None:
    server.now(processor=True, opening="", parser=False)
    asked = rung(thinking_tokens=0, stops=Stops(budget=0))
    assert backend(server).call(call(rung=asked)).stopped == ""


def test_a_loop_that_the_engine_ended_is_stuck() -> None:
    script = Transcript(call(), Splitter())
    script.feed({"choices": [{"delta": {"content": "a a a a"}, "finish_reason": "repetition"}]})
    assert script.reply(0.1).stuck


def test_the_likeliest_tokens_are_told_where_they_are_asked_for() -> None:
    script = Transcript(call(logprobs=True, top_logprobs=2), Splitter())
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -2.0}]
    told = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": top}]}
    delta = script.feed({"choices": [{"delta": {"content": "a"}, "logprobs": told}]})
    assert delta is not None
    assert delta.tokens == (Token("a", -0.1, (("a", -0.1), ("b", -2.0))),)
    plain = Transcript(call(logprobs=True, top_logprobs=2), Splitter(inside=True))
    plainly = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": -2.0}]}
    again = plain.feed({"choices": [{"text": "a", "logprobs": plainly}]})
    assert again is not None
    assert again.tokens == delta.tokens


def piece(token: str, shown: str, made: int, kind: str = "reasoning") -> dict[str, Any]:
    told = {"content": [{"token": token, "logprob": -0.1, "top_logprobs": [{"token": token, "logprob": -0.1}]}]}
    usage = {"prompt_tokens": 5, "completion_tokens": made}
    return {"choices": [{"delta": {kind: shown}, "logprobs": told}], "usage": usage}


def test_tokens_without_a_text_of_their_own_are_told_with_the_next() -> None:
    """A part of a letter, and what may become a mark: rules that read tokens count them all."""
    script = Transcript(call(logprobs=True, top_logprobs=2), Splitter(inside=True))
    assert script.feed(piece("\ufffd", "", 1)) is None
    assert script.feed(piece("\ufffd", "", 2)) is None
    letter = script.feed(piece("\U0001f600", "\U0001f600", 3))
    assert script.feed(piece("<", "<", 4, "content")) is None
    mark = script.feed(piece(" b", " b", 5, "content"))
    assert letter is not None
    assert mark is not None
    assert [one.text for one in letter.tokens] == ["\ufffd", "\ufffd", "\U0001f600"]
    assert [one.text for one in mark.tokens] == ["<", " b"]
    assert script.logprobs == [-0.1] * 5


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_budget_beside_a_confidence_rule_counts_letters_of_several_tokens(parts: int) -> None:
    script, judge, made = (
        Transcript(call(logprobs=True, top_logprobs=2), Splitter()),
        Judge(Stops(budget=30, margin=0)),
        0,
    )
    rule = ""
    while not rule and made < 200:
        made += 1
        delta = script.feed(piece("\ufffd", "" if made % parts else "\u9f98", made))
        rule = judge.rule(delta) if delta is not None else ""
    assert rule == "budget"
    assert made == 30 + parts - 30 % parts, "at the first letter behind it"
