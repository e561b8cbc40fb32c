"""The backend on a real model: SmolLM2-135M."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from governor import Governor
from governor.errors import (
    BackendReplyError,
    BackendRequestError,
    BackendTimeoutError,
    BackendUnavailableError,
    MissingExtraError,
    ModelFileError,
)
from governor.ledger import open_ledger
from governor.policy import policy_from
from governor.protocols import Backend, Delta, Pressed
from governor.records import Amount, Reply
from governor_local import LocalBackend
from governor_local.engine import Chunk, Engine, Item, Options, _Generation, available_threads
from governor_local.registry import find_model
from governor_local.wire import request_of
from tests.governor_local.calls import RAIN, STORY, ask

pytestmark = pytest.mark.model

THINKING_TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.reasoning_content %}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{%- else %}{{ '<think>\\n' }}{%- endif %}{%- endif %}"
)
"""Gives SmolLM2 the thinking frame of Qwen3: the model does not reason, but the server's cap must hold all the same."""

TOOL_TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{{ m.content or '' }}"
    "{%- for call in m.tool_calls or [] %}"
    '{{ \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{%- endfor %}"
    "{{ '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Gives it the tool calls of Hermes and Qwen."""


CHUNK = {"choices": [{"index": 0, "delta": {"content": "on"}, "finish_reason": None}]}


def generating() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "governor-local"]


def within(seconds: float, wanted: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not wanted() and time.monotonic() < end:
        time.sleep(0.01)
    return wanted()


def idle_within(seconds: float) -> bool:
    return within(seconds, lambda: not generating())


class Pieces:
    """Tells when a generation has handed over ten pieces, and has a clock that may then be an hour ahead."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.come = threading.Event()
        self.makes_late = False
        self._count = 0
        self._take = _Generation.take
        patch.setattr(_Generation, "take", lambda run, chunk: self._seen(run, chunk))
        for module in ("backend", "engine"):
            patch.setattr(f"governor_local.{module}.time", self)

    def monotonic(self) -> float:
        return time.monotonic() + (3_600 if self.makes_late and self.come.is_set() else 0)

    def _seen(self, run: _Generation, chunk: Chunk) -> bool:
        stopped = self._take(run, chunk)
        self._count += 1
        if self._count == 10:
            self.come.set()
        return stopped


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Pieces:
    return Pieces(monkeypatch)


def test_a_local_backend_is_a_backend(backend: LocalBackend) -> None:
    served: Backend = backend
    assert served.continues(ask("Hi").rung)


def test_a_reply_has_text_end_and_exact_usage(backend: LocalBackend) -> None:
    reply = backend.call(ask("Say hello.", tokens=60))
    assert reply.text
    assert reply.finish_reason == "stop"
    assert reply.model == "local/smollm2-135m"
    assert reply.usage_known
    assert 25 < reply.usage.input_tokens < 45  # two words in SmolLM2's chat template
    assert 0 < reply.usage.output_tokens < 60
    assert 0 < reply.seconds < 60


@pytest.mark.parametrize("budget", [1, 2, 7, 33])
def test_the_output_limit_cuts_at_the_token(backend: LocalBackend, budget: int) -> None:
    reply = backend.call(ask(STORY, tokens=budget))
    assert (reply.usage.output_tokens, reply.finish_reason, reply.truncated) == (budget, "length", True)


def test_greedy_calls_repeat_themselves(backend: LocalBackend) -> None:
    assert len({backend.call(ask(RAIN)).text for _ in range(3)}) == 1


def test_seeds_choose_the_sample(backend: LocalBackend) -> None:
    def sampled(seed: int) -> str:
        return backend.call(ask(STORY, tokens=20, seed=seed, rung={"temperature": 1.0})).text

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_parallel_calls_give_what_each_gives_alone(backend: LocalBackend) -> None:
    prompts = [RAIN, STORY, "List ten fruits.", "Count to fifty."]
    alone = {prompt: backend.call(ask(prompt, tokens=30)).text for prompt in prompts}
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda prompt: backend.call(ask(prompt, tokens=30)).text, prompts))
    assert together == [alone[prompt] for prompt in prompts]


def test_logprobs_are_natural_logs_of_the_chosen_tokens(backend: LocalBackend) -> None:
    call = ask("What is the capital of France?", tokens=12, logprobs=True)
    reply, plain = backend.call(call), backend.call(replace(call, logprobs=False))
    assert plain.logprobs is None
    assert reply.text == plain.text
    assert reply.logprobs is not None
    assert len(reply.logprobs) in (reply.usage.output_tokens, reply.usage.output_tokens - 1)  # the end mark has none
    assert all(value <= 0 for value in reply.logprobs)
    assert min(reply.logprobs) < -0.01


@pytest.mark.parametrize("cut", [5, 13, 30])
def test_a_cut_answer_is_gone_on_from_token_by_token(backend: LocalBackend, cut: int) -> None:
    whole = backend.call(ask(RAIN, tokens=60))
    start = backend.call(ask(RAIN, tokens=cut))
    rest = backend.call(ask(RAIN, tokens=60 - cut, prefix=start.text))
    assert start.truncated
    assert start.text + rest.text == whole.text
    assert start.usage.output_tokens + rest.usage.output_tokens == whole.usage.output_tokens
    assert rest.usage.cached_tokens >= rest.usage.input_tokens - 2  # nothing is paid twice


def test_a_schema_binds_the_answer(backend: LocalBackend) -> None:
    properties = {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 99}}
    schema = {"type": "object", "properties": properties, "required": ["name", "age"], "additionalProperties": False}
    person = json.loads(backend.call(ask("Invent a person.", tokens=100, response_schema=schema)).text)
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


def test_a_tool_call_that_is_no_json_is_no_reply(smollm2: str) -> None:
    function = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    backend = LocalBackend({smollm2: {"chat_template": TOOL_TEMPLATE}}, threads=1, slots=1)
    tools = ({"type": "function", "function": function},)
    with pytest.raises(BackendReplyError, match="does not match the expected") as caught:
        backend.call(ask("Weather in Paris?", tokens=60, tools=tools, prefix="<tool_call>\n"))
    backend.close()
    assert caught.value.usage is not None
    assert caught.value.usage.output_tokens > 0


def test_a_stream_ends_with_the_reply_its_deltas_add_up_to(backend: LocalBackend) -> None:
    *deltas, reply = backend.stream(ask(RAIN))
    assert isinstance(reply, Reply)
    assert len(deltas) > 10
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == reply.text


def test_every_piece_says_how_many_tokens_it_came_to(backend: LocalBackend) -> None:
    *deltas, reply = backend.stream(ask(RAIN))
    counts = [delta.usage.output_tokens for delta in deltas if isinstance(delta, Delta) and delta.usage is not None]
    assert isinstance(reply, Reply)
    assert len(counts) == len(deltas)
    assert counts == sorted(set(counts))  # each piece is at least one token more
    assert counts[-1] <= reply.usage.output_tokens <= counts[-1] + 1  # the mark of the end is one too


@pytest.mark.parametrize("most", [200, 260])
def test_a_governed_stream_ends_exactly_where_its_budget_does(backend: LocalBackend, smollm2: str, most: int) -> None:
    rung = {"id": "small", "model": smollm2, "answer_tokens": 400}
    budget = {"app": {"answer_tokens": most, "per": "total"}, "streams": {"quantile": 0.1, "step": 16}}
    policy = policy_from({"version": 1, "app": "cut", "ladder": [rung], "budget": budget})
    ledger = open_ledger("memory://")
    stream = Governor(policy, backend=backend, ledger=ledger).stream(STORY)
    text = "".join(stream)
    outcome = stream.outcome
    assert outcome is not None
    assert outcome.reply is not None
    assert (outcome.reply.finish_reason, outcome.reply.usage.output_tokens) == ("length", most)
    assert text == outcome.answer
    assert (ledger.balance("app:cut").spent.answer, ledger.balance("app:cut").overshoot) == (most, Amount())
    assert outcome.usage.input_tokens > 0
    assert idle_within(5)  # the server generates no further
    whole = backend.call(ask(STORY, tokens=400))
    assert whole.text.startswith(text)


async def test_async_calls_run_side_by_side_and_equal_the_sync_ones(backend: LocalBackend) -> None:
    calls = [ask(prompt, tokens=20) for prompt in (RAIN, STORY, "List ten fruits.")]
    replies = await asyncio.gather(*(backend.acall(call) for call in calls))
    assert [reply.text for reply in replies] == [backend.call(call).text for call in calls]
    streamed = [item async for item in backend.astream(calls[0])]
    assert "".join(item.text for item in streamed[:-1]) == replies[0].text


def test_a_deadline_ends_the_call_and_the_generation(backend: LocalBackend, pieces: Pieces) -> None:
    pieces.makes_late = True
    with pytest.raises(BackendTimeoutError, match=r"local/smollm2-135m: no whole answer within 900 s") as caught:
        backend.call(ask(STORY, tokens=3000, timeout=900))
    assert caught.value.sent
    assert caught.value.usage is not None
    assert 0 < caught.value.usage.output_tokens < 100
    assert idle_within(5)


async def test_an_async_deadline_does_the_same(backend: LocalBackend, pieces: Pieces) -> None:
    pieces.makes_late = True
    with pytest.raises(BackendTimeoutError):
        await backend.acall(ask(STORY, tokens=3000, timeout=900))
    assert await asyncio.to_thread(idle_within, 5)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_deadline_ends_a_call_that_has_nothing_yet(backend: LocalBackend, awaited: bool) -> None:
    late = ask(STORY, tokens=3000, timeout=0.001)
    with pytest.raises(BackendTimeoutError, match=r"within 0\.001 s"):
        asyncio.run(backend.acall(late)) if awaited else backend.call(late)
    assert idle_within(5)


async def test_a_cancelled_call_stops_generating(backend: LocalBackend, pieces: Pieces) -> None:
    task = asyncio.create_task(backend.acall(ask(STORY, tokens=3000)))
    assert await asyncio.to_thread(pieces.come.wait, 60)
    assert generating()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle_within, 5)


@pytest.mark.parametrize("ticks", range(7))
async def test_a_cancellation_that_meets_a_chunk_is_not_lost(ticks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, left = asyncio.get_running_loop(), asyncio.Event()

    class Talking:
        """An engine that never ends; a chunk and, so many turns of the loop later, the cancellation."""

        @contextmanager
        def generation(
            self, body: object, deliver: Callable[[object], None], deadline: float
        ) -> Generator[None, None, None]:
            def later(turns: int) -> None:
                if turns:
                    loop.call_soon(later, turns - 1)
                else:
                    task.cancel()

            loop.call_later(0.01, deliver, CHUNK)
            loop.call_later(0.01, later, ticks)
            try:
                yield
            finally:
                left.set()

    backend = LocalBackend(threads=1)
    monkeypatch.setattr(backend._engines, "get", lambda name: Talking())
    task = asyncio.create_task(backend.acall(ask("Hi", tokens=3000, timeout=2)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()


def test_a_stream_left_half_read_stops_generating(backend: LocalBackend) -> None:
    stream: Iterator[Delta | Reply] = backend.stream(ask(STORY, tokens=3000))
    assert isinstance(next(stream), Delta)
    del stream
    assert idle_within(5)


def test_a_call_without_a_free_slot_waits_for_one_or_for_its_deadline(smollm2: str) -> None:
    backend = LocalBackend(threads=1, slots=1)
    backend.load(smollm2)
    stream = backend.stream(ask(STORY, tokens=3000))
    next(stream)
    with pytest.raises(BackendTimeoutError):
        backend.call(ask("Hi", tokens=2, timeout=0.3))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(backend.call, ask("Hi", tokens=2))
        time.sleep(0.3)
        assert not waiting.done()
        del stream
        assert waiting.result().usage.output_tokens == 2
    backend.close()
    assert not generating()


def test_a_prompt_over_the_context_is_refused_with_both_numbers(backend: LocalBackend) -> None:
    with pytest.raises(BackendRequestError, match=r"the prompt has 5\d\d\d tokens and the context 4096") as caught:
        backend.call(ask("word " * 5000))
    assert not caught.value.sent


def test_a_request_the_server_refuses_is_told(backend: LocalBackend) -> None:
    with pytest.raises(BackendRequestError, match="unrecognized type") as caught:
        backend.call(ask("Hi", response_schema={"type": "nonsense"}))
    assert not caught.value.sent
    assert caught.value.seconds > 0
    with pytest.raises(BackendRequestError):
        backend.call(replace(ask("Hi"), messages=({"content": "no role"},)))


def test_the_context_that_is_stated_holds(smollm2: str) -> None:
    backend = LocalBackend({smollm2: {"context_window": 256}}, threads=1, slots=1)
    reply = backend.call(ask(STORY, tokens=1000))
    backend.close()
    assert reply.truncated
    assert reply.usage.total_tokens == 256


def test_a_context_beyond_the_models_own_is_refused(smollm2: str) -> None:
    backend = LocalBackend({smollm2: {"context_window": 10_000}})
    with pytest.raises(ModelFileError, match="holds 8192 tokens: a context_window of 10000 is too much"):
        backend.call(ask("Hi"))


def test_a_thought_is_capped_and_kept_apart(smollm2: str) -> None:
    backend = LocalBackend({"smollm2-135m": {"chat_template": THINKING_TEMPLATE}}, threads=1, slots=1)
    question = "What is 2+3? Explain."
    for budget in (10, 30):
        reply = backend.call(ask(question, tokens=20, thinking=budget))
        assert reply.thinking
        assert "think>" not in reply.thinking + reply.text
        assert 0 < reply.usage.thinking_tokens <= budget
    without = backend.call(ask(question, tokens=20))
    assert (without.thinking, without.usage.thinking_tokens) == ("", 0)
    whole = backend.call(ask(question, tokens=-20, thinking=60))
    start = backend.call(ask(question, tokens=-40, thinking=60))
    rest = backend.call(ask(question, tokens=-40, thinking=60, prefix=f"<think>\n{start.thinking}"))
    assert start.text == rest.text == ""
    assert start.thinking + rest.thinking == whole.thinking
    backend.close()


def test_a_model_is_loaded_once_however_many_ask(smollm2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    class Counted(Engine):
        def __init__(self, path: Path, options: Options) -> None:
            loaded.append(path)
            super().__init__(path, options)

    monkeypatch.setattr("governor_local.backend.Engine", Counted)
    backend = LocalBackend(threads=1)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: backend.call(ask("Hi", tokens=2)), range(4)))
    assert len(replies) == 4
    assert loaded == [find_model(smollm2)]
    assert backend.load(smollm2) == 0.0
    backend.close()


def test_closing_stops_what_runs_and_refuses_what_comes(smollm2: str) -> None:
    backend = LocalBackend(threads=1, slots=2)
    backend.load(smollm2)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(backend.call, ask(STORY, tokens=3000)) for _ in range(4)]
        assert within(60, lambda: len(generating()) == 4)
        backend.close()
        for future in running:
            with pytest.raises(BackendUnavailableError, match="shut down"):
                future.result()
    assert not generating()
    backend.close()
    with pytest.raises(BackendUnavailableError, match="closed") as caught:
        backend.call(ask("Hi"))
    assert not caught.value.sent


def test_a_generations_own_thread_may_close_its_engine(smollm2: str) -> None:
    """As the collector does there, when it finds a backend that was left with a stream half-read."""
    engine = Engine(find_model(smollm2), Options(threads=1))
    received: SimpleQueue[Item] = SimpleQueue()

    def deliver(item: Item) -> None:
        if isinstance(item, dict):
            engine.close()
        received.put(item)

    with engine.generation(request_of(ask(STORY, tokens=3000)), deliver, time.monotonic() + 60):
        assert isinstance(received.get(timeout=30), dict)
        end = received.get(timeout=30)
    assert isinstance(end, BackendUnavailableError)
    assert idle_within(5)
    assert engine._server is None


def test_an_engine_that_fails_to_close_keeps_none_of_the_others_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Failing:
        ready_seconds = 0.0

        def __init__(self, name: str, options: Options) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            raise RuntimeError(self.name)

    monkeypatch.setattr("governor_local.backend.Engine", Failing)
    monkeypatch.setattr("governor_local.backend.find_model", str)
    backend = LocalBackend()
    for name in ("one", "other"):
        backend.load(name)
    with pytest.raises(RuntimeError):
        backend.close()
    assert sorted(closed) == ["one", "other"]


def test_a_file_that_lost_its_last_byte_is_refused_when_it_is_loaded(smollm2: str, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    shutil.copyfile(find_model(smollm2), path)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1)
    with pytest.raises(ModelFileError, match="can't be loaded: damaged"):
        LocalBackend(threads=1).call(ask("Hi", rung={"model": f"local/{path}"}))


def test_an_unknown_model_is_told_with_what_there_is() -> None:
    with pytest.raises(ModelFileError, match="did you mean 'smollm2-135m'"):
        LocalBackend().call(ask("Hi", rung={"model": "local/smollm-135m"}))


def test_without_the_server_the_extra_is_named(smollm2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtraError, match=r"compute-governor\[local\]"):
        LocalBackend().load(smollm2)


def test_threads_come_from_the_environment_and_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVERNOR_THREADS", "3")
    assert available_threads() == 3
    monkeypatch.setenv("GOVERNOR_THREADS", "many")
    with pytest.raises(ModelFileError, match="GOVERNOR_THREADS is 'many'"):
        available_threads()
    monkeypatch.delenv("GOVERNOR_THREADS")
    assert 1 <= available_threads() <= 8


def test_loading_a_model_is_not_taken_for_telling_how_busy_it_is() -> None:
    with closing(LocalBackend()) as backend:
        assert not isinstance(backend, Pressed)
