"""The request side against a real vLLM: what is asked is what happens, counted in its own tokens."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from governor import Governor
from governor.errors import BackendRequestError
from governor.plan.turns import joined, unfinished
from governor.policy import policy_from
from governor.records import Reply
from governor_vllm.backend import VllmBackend
from governor_vllm.families import FAMILIES
from governor_vllm.load import pressure_of
from governor_vllm.marks import END, TURN_ENDS
from governor_vllm.probe import ended
from governor_vllm.request import request_of
from tests.governor_vllm.engine_calls import MODEL, backend_of, call, cut_after, parts, rung, tell, tokens_of
from tests.governor_vllm.engine_models import APART, LONG, MERGED
from tests.governor_vllm.engines import MARKED, Engine, served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def doctor(engine: Engine, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "governor", "doctor", engine.url, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_doctor_finds_all_honoured_that_governor_serve_set_up(engine: Engine) -> None:
    told = doctor(engine, "--json")
    report = json.loads(told.stdout)
    verdicts = {one["canary"]: one["verdict"] for one in report["findings"]}
    tell(json.dumps(report, indent=1))
    # The effort words are the template's to read, which this one does not.
    assert verdicts.pop("effort") == "ignored"
    # Hermes' tool parser, as most, holds calls with strict tools to a grammar.
    assert verdicts.pop("strict") == "refused"
    # It is taken; what it does to those that wait can't be seen.
    assert verdicts.pop("priority") == "unproved"
    assert set(verdicts.values()) == {"honoured"}
    assert told.returncode == 1
    assert "reasoning_effort" in doctor(engine).stdout


@pytest.mark.parametrize("tokens", [20, 33, 64])
def test_the_thought_with_its_end_has_exactly_the_tokens_of_the_rung(backend: VllmBackend, tokens: int) -> None:
    asked = call(rung=rung(thinking_tokens=tokens))
    assert ended(tokens_of(backend, asked)) == tokens
    reply = backend.call(asked)
    assert reply.thinking
    assert reply.usage.output_tokens <= asked.rung.max_tokens
    assert reply.usage.thinking_tokens <= tokens


@pytest.mark.parametrize("strict", [False, True])
def test_a_tool_that_may_be_called_costs_the_thought_none_of_its_budget(backend: VllmBackend, strict: bool) -> None:
    """vLLM holds a strict one to a grammar, beside which the processor forces nothing: vLLM's own budget stands in."""
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "add", "parameters": parameters, "strict": strict}}
    asked = call(rung=rung(thinking_tokens=33), tools=(tool,), tool_choice="auto")
    target, probe = parts(backend)
    assert ("thinking_token_budget" in request_of(asked, target, probe).body) == strict
    assert ended(tokens_of(backend, asked)) == 33
    reply = backend.call(asked)
    assert reply.thinking
    assert reply.usage.thinking_tokens <= 33


def test_no_mark_leaks_into_what_is_shown(backend: VllmBackend) -> None:
    for tokens in (20, 24, 40):
        *deltas, reply = backend.stream(call(rung=rung(thinking_tokens=tokens)))
        assert isinstance(reply, Reply)
        assert "".join(getattr(one, "text", "") for one in deltas) == reply.text
        assert END not in reply.text
        assert not reply.text.endswith(TURN_ENDS)


def test_effort_none_thinks_nothing(backend: VllmBackend) -> None:
    reply = backend.call(call(rung=rung(effort="none", thinking_tokens=0)))
    assert reply.thinking == ""
    assert reply.usage.thinking_tokens == 0


def test_a_truncated_thought_is_gone_on_from_within_its_budget(backend: VllmBackend) -> None:
    text = "Explain step by step, in great detail, how you would sort five numbers by hand. " * 6
    whole = backend.call(call(text, rung=rung(thinking_tokens=60)))
    short = cut_after(backend, call(text, rung=rung(thinking_tokens=60)), 30)
    asked = call(text, rung=rung(thinking_tokens=60), prefix=unfinished(short))
    new = ended(tokens_of(backend, asked))
    begun = len(parts(backend)[1].ids(short.thinking))  # the text may be read as fewer tokens than it was made of
    assert new == 60 - begun
    resumed = backend.call(asked)
    both = joined(short, resumed)
    assert both.thinking.startswith(short.thinking)
    again, paid = whole.usage, resumed.usage
    tell(f"\nto go on after 30 of 60 thinking tokens: {paid}; paying again: {again}")
    assert paid.thinking_tokens <= again.thinking_tokens - begun + 1
    # The engine holds the prompt and the thought in blocks of 128 tokens (on CPUs): the last one is read anew.
    assert 0 < paid.input_tokens - paid.cached_tokens < 128


def test_a_reply_that_was_cut_ends_in_the_engine(engine: Engine, backend: VllmBackend) -> None:
    cut_after(backend, call("Tell me a very long story.", rung=rung(thinking_tokens=600)), 5)
    target, probe = parts(backend)
    for _ in range(50):
        if pressure_of(probe.link.get("/metrics"), target.served.model).running == 0:
            return
        time.sleep(0.1)
    pytest.fail("the engine goes on with a request that nobody reads")


def test_queue_and_cache_are_felt(engine: Engine, backend: VllmBackend) -> None:
    gauge = backend._engine(MODEL).gauge
    assert gauge.read() < 0.1
    busy = [call(f"Number {number}", rung=rung(thinking_tokens=150)) for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(backend.call, one) for one in busy]
        most = 0.0
        while not all(one.done() for one in waiting):
            most = max(most, gauge.read())
            time.sleep(0.3)
    tell(f"\nload with 40 requests on 16 places: {most:.2f}")
    assert most > 0.3


def test_a_policy_runs_on_it_within_its_budget(engine: Engine, backend: VllmBackend) -> None:
    ladder = [
        {"id": name, "model": MODEL, "thinking_tokens": tokens, "answer_tokens": 16, "temperature": 0.0}
        for name, tokens in (("brief", 20), ("long", 48))
    ]
    policy = policy_from({"version": 1, "ladder": ladder, "budget": {"step": {"tokens": 600}}})
    with Governor(policy, backend=backend_of(engine)) as governor:
        outcome = governor.run("What is six times seven?")
        stream = governor.stream("What is six times seven?")
        shown = "".join(stream)
    assert outcome.spent.tokens <= 600
    assert stream.outcome is not None
    assert stream.outcome.spent.tokens <= 600
    assert shown == stream.outcome.answer


LISTED = """
import json
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
print(json.dumps([ReasoningParserManager.list_registered(), ToolParserManager.list_registered()]))
"""


def test_parsers_of_every_family_are_vllms() -> None:
    listed = subprocess.run([sys.executable, "-c", LISTED], capture_output=True, text=True, check=True)
    reasoning, tools = json.loads(listed.stdout.splitlines()[-1])
    assert {one.reasoning for one in FAMILIES if one.reasoning} <= set(reasoning)
    assert {one.tools for one in FAMILIES if one.tools} <= set(tools)


def test_marks_of_several_tokens_are_kept_to_the_token(models: Path) -> None:
    """A start mark of several tokens in the prompt lets vLLM run over by one token less: Governor asks for less."""
    with served(models, "stock", APART, MARKED) as engine, closing(backend_of(engine)) as backend:
        target, _ = parts(backend)
        tell(f"\n{target.served.findings['budget'].seen}")
        assert target.served.engine is not None
        assert not target.served.parses
        for tokens in (20, 40):
            asked = call(rung=rung(thinking_tokens=tokens))
            assert ended(tokens_of(backend, asked)) == tokens
            reply = backend.call(asked)
            assert END not in reply.thinking + reply.text
            assert reply.thinking
        text = "Explain step by step, in great detail, how you would sort five numbers by hand."
        short = cut_after(backend, call(text, rung=rung(thinking_tokens=60)), 30)
        again = call(text, rung=rung(thinking_tokens=60), prefix=unfinished(short))
        new = ended(tokens_of(backend, again))
        assert new == 60 - len(parts(backend)[1].ids(short.thinking))


def test_marks_that_the_tokenizer_merges_are_found_by_the_processor(models: Path) -> None:
    """vLLM never finds the start mark, and answers 200 to a budget that it does not keep."""
    with served(models, "stock", MERGED, MARKED) as engine, closing(backend_of(engine)) as backend:
        target, _ = parts(backend)
        assert target.served.findings["budget"].verdict == "ignored"
        assert target.served.findings["governed"].verdict == "honoured"
        for tokens in (20, 40):
            assert ended(tokens_of(backend, call(rung=rung(thinking_tokens=tokens)))) == tokens


def test_without_the_processor_they_are_found_out_and_the_thought_is_cut_from_here(models: Path) -> None:
    with served(models, "stock", MERGED, MARKED, governed=False) as engine:
        with closing(backend_of(engine)) as strict:
            with pytest.raises(BackendRequestError, match="keeps no thinking budget") as refused:
                strict.ready(rung())
            assert "\n" not in str(refused.value)
        with closing(backend_of(engine, fallback="stream")) as backend:
            reply = backend.call(call("Tell me about many things, one after the other. " * 12, rung=rung()))
            tell(f"cut from here: {reply.usage}, {reply.finish_reason}")
            assert reply.thinking
            assert reply.text or reply.truncated  # cut there, if reading the prompt again might pass what is held
            assert 24 <= reply.usage.output_tokens <= 24 + 16
        again = doctor(engine)
        assert again.returncode == 1
        assert "ignored" in again.stdout


def test_without_a_parser_or_marks_a_budget_is_refused(models: Path) -> None:
    with served(models, "thinking", LONG, (), governed=False) as engine, closing(backend_of(engine)) as backend:
        assert parts(backend)[0].served.findings["budget"].verdict == "refused"
        with pytest.raises(BackendRequestError, match=r"--reasoning-parser"):
            backend.ready(rung())
