"""The request side against a real vLLM: what is asked is what happens, counted in its own tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from governor import Governor
from governor.errors import BackendRequestError
from governor.plan.turns import joined, unfinished
from governor.policy import policy_from
from governor.records import Call, Reply, Rung
from governor_vllm.backend import VllmBackend
from governor_vllm.families import FAMILIES
from governor_vllm.load import pressure_of
from governor_vllm.marks import END, TURN_ENDS
from governor_vllm.probe import Probe, chat_tokens, completion_tokens, ended
from governor_vllm.request import COMPLETIONS, Request, Target, request_of
from tests.governor_vllm.engine_models import APART, LONG, MERGED, template
from tests.governor_vllm.engines import CONFIG, Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MODEL = "vllm/q"
PARSED = ("--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
MARKED = ("--reasoning-config", CONFIG)


def tell(figures: str) -> None:
    """What was measured, for who reads the suite's output (pytest -s)."""
    sys.stdout.write(f"{figures}\n")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GOVERNOR_ENGINE_MODELS names a folder where they were made before."""
    if kept := os.environ.get("GOVERNOR_ENGINE_MODELS"):
        return Path(kept)
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "tests.governor_vllm.engine_models", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    tell(f"\nengine model: {made.stdout.strip()}")
    return folder


def served(models: Path, name: str, opening: str, options: tuple[str, ...], *, governed: bool = True) -> Engine:
    path = models / f"{name}-{len(opening)}.jinja"
    path.write_text(template(opening), encoding="utf-8")
    return Engine(models / name, path.with_suffix(".log"), ("--chat-template", str(path), *options), governed)


@pytest.fixture(scope="module")
def engine(models: Path) -> Iterator[Engine]:
    """One-token marks, a reasoning parser, and a template that says ten tokens behind its `<think>`."""
    with served(models, "thinking", LONG, PARSED) as running:
        yield running


@pytest.fixture(scope="module")
def backend(engine: Engine) -> Iterator[VllmBackend]:
    with closing(VllmBackend({MODEL: {"api_base": engine.url, "engine": {"priority": 1}}})) as made:
        yield made


def rung(**fields: Any) -> Rung:
    given: dict[str, Any] = {"thinking_tokens": 24, "answer_tokens": 16, "temperature": 0.0, **fields}
    return Rung(id="r", model=MODEL, **given)


def call(text: str = "What is six times seven?", **fields: Any) -> Call:
    given: dict[str, Any] = {"step_id": "s", "rung": rung(), "timeout": 120, **fields}
    return Call(messages=({"role": "user", "content": text},), **given)


def tokens_of(backend: VllmBackend, asked: Call) -> list[str]:
    """The very tokens of a call's request, where the model may not end its turn before the budget is used up."""
    target, probe = parts(backend)
    request: Request = request_of(asked, target, probe)
    plain = {key: value for key, value in request.body.items() if not key.startswith("stream")}
    done = request.path == COMPLETIONS
    answer = probe.link.post(
        request.path, {**plain, "logprobs": 1 if done else True, "min_tokens": asked.rung.thinking_tokens}, 120
    )
    return completion_tokens(answer) if done else chat_tokens(answer)


def parts(backend: VllmBackend) -> tuple[Target, Probe]:
    behind = backend._engine(MODEL)
    return behind.target(), behind.probe()


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


def cut_after(backend: VllmBackend, asked: Call, tokens: int) -> Reply:
    """The reply of a stream that is left after so many tokens."""
    pieces = []
    with closing(backend.stream(asked)) as stream:  # type: ignore[type-var]  # a generator
        for piece in stream:
            assert not isinstance(piece, Reply)
            pieces.append(piece)
            if piece.usage is not None and piece.usage.output_tokens >= tokens:
                break
    usage = pieces[-1].usage
    assert usage is not None
    return Reply(text="", thinking="".join(one.thinking for one in pieces), finish_reason="length", usage=usage)


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


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


def test_32_mixed_requests_each_obey_their_own_rung(backend: VllmBackend) -> None:
    kinds: list[Call] = []
    for number in range(32):
        text = f"{'A long beginning that many prompts share. ' * 8 if number % 2 else ''}What is {number} times seven?"
        kinds.append(
            [
                call(text, rung=rung(thinking_tokens=20 + number)),
                call(text, rung=rung(effort="none", thinking_tokens=0, answer_tokens=8 + number)),
                call(text, rung=rung(effort="none", thinking_tokens=0, answer_tokens=64), response_schema=SCHEMA),
                call(text, rung=rung(thinking_tokens=20 + number), logprobs=True, seed=number),
                call(text, rung=rung(effort="none", thinking_tokens=0), tools=(TOOL,)),
                call(text, rung=rung(thinking_tokens=300)),
            ][number % 6]
        )
    begun = threading.Barrier(32)

    def run(asked: Call) -> Reply:
        begun.wait()
        return cut_after(backend, asked, 6) if asked.rung.thinking_tokens == 300 else backend.call(asked)

    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(run, kinds))
    for asked, reply in zip(kinds, replies, strict=True):
        assert reply.usage.output_tokens <= asked.rung.max_tokens
        assert reply.usage.thinking_tokens <= asked.rung.thinking_tokens
        assert bool(reply.thinking) == (asked.rung.effort != "none")
        if asked.logprobs:
            assert reply.logprobs is not None
            assert abs(len(reply.logprobs) - reply.usage.output_tokens) <= 1
        if asked.response_schema is not None and not reply.truncated:
            assert isinstance(json.loads(reply.text)["n"], int)
    with ThreadPoolExecutor(16) as pool:
        budgets = [one for one in kinds if one.rung.thinking_tokens and one.rung.thinking_tokens < 300]
        ends = list(pool.map(lambda one: ended(tokens_of(backend, one)), budgets))
    assert ends == [one.rung.thinking_tokens for one in budgets]


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
    if END not in shown:  # random weights write marks into their answers, which are read as ends of the thought
        assert shown == stream.outcome.answer


def backend_of(engine: Engine, **options: Any) -> VllmBackend:
    return VllmBackend({MODEL: {"api_base": engine.url, "engine": options}})


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
