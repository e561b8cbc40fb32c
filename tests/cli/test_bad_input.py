# ruff: noqa: E501 - tables of odd inputs read best with one case a line
"""Every way to hold the command wrong: one clear line, the documented exit code, and nothing half-written.

Exit codes: 1 the work failed, 2 usage or bad input (whatever is wrong before the first task begins), 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from governor import Governor
from governor.cli import main
from governor_litellm.backend import sdk
from tests.governor_litellm.stub import Answer, StubServer, chunk, error, sse
from tests.governor_local.gguf_files import gguf_bytes
from tests.processes import interruptible

Content = str | bytes | None
"""What a file holds; None: there is no such file."""

RUN = ("run", "policy.yaml", "--input", "tasks.jsonl", "--out", "out.jsonl")
RUNG = "ladder: [{id: quick, model: openai/gpt-5-mini}]\n"
HEAD = "version: 1\n"
TASK = '{"id": "a", "prompt": "hi"}\n'
STUB = (
    HEAD
    + "models: {openai/m: {api_base: 'http://127.0.0.1:9', wire: plain}}\nladder: [{id: a, model: openai/m, timeout: 2}]\n"
)
LIMITED = HEAD + "models: {openai/gpt-5-mini: {max_output_tokens: 1000}}\n"
TESTED = "verify: {python_tests: ['assert f() == 1']}\n"


@dataclass(frozen=True)
class Bench:
    """Where a case is prepared: the current folder, and things to be undone afterwards."""

    folder: Path
    patch: pytest.MonkeyPatch
    stack: ExitStack


def nothing(_: Bench) -> None:
    """No preparation beyond the files."""


class Case(NamedTuple):
    """A refusal: what is on the disk, the command, its exit code, and a part of the one line that it prints."""

    name: str
    told: str
    policy: Content = STUB
    tasks: Content = TASK
    argv: tuple[str, ...] = RUN
    files: Mapping[str, Content] = {}
    make: Callable[[Bench], None] = nothing
    code: int = 2
    on_stdout: bool = False


def rung(fields: str, model: str = "openai/gpt-5-mini") -> str:
    return f"ladder: [{{id: a, model: {model}, {fields}}}]\n"


POLICIES = [
    Case("policy missing", "policy.yaml: no such file (`governor init` writes a starter)", None),
    Case("policy empty", "policy.yaml:1:1: the policy is empty", ""),
    Case("policy not UTF-8", "policy.yaml:2:9: the file is not UTF-8", b"version: 1\napp: caf\xe9\n"),
    Case("syntax error", "policy.yaml:2:11: not valid YAML", HEAD + "ladder: [a"),
    Case("tab", "policy.yaml:3:1: a tab begins the line", HEAD + "budget:\n\tstep: 1\n"),
    Case("duplicate key", "policy.yaml:4:1: key 'dial' stands twice", HEAD + RUNG + "dial: 0.1\ndial: 0.2\n"),
    Case("misspelt key at the top", "policy.yaml:2:1: dail: unknown key 'dail' (did you mean 'dial'?)", HEAD + "dail: 1\n" + RUNG),
    Case("misspelt key below", "policy.yaml:3:10: budget.stpe: unknown key 'stpe' (did you mean 'step'?)", HEAD + RUNG + "budget: {stpe: {usd: 1}}\n"),
    Case("misspelt key deep down", "policy.yaml:3:17: budget.step.ud: unknown key 'ud' (did you mean 'usd'?)", HEAD + RUNG + "budget: {step: {ud: 1}}\n"),
    Case("wrong type", "policy.yaml:3:7: dial: must be a number, not '0.3' (write 0.3", HEAD + RUNG + "dial: '0.3'\n"),
    Case("dial and keep", "'dial' and 'keep' exclude each other (remove one of them)", HEAD + RUNG + "dial: 0.1\nkeep: 0.9\n"),
    Case("dial out of range", "policy.yaml:3:7: dial: must be at most 1, not 1.5", HEAD + RUNG + "dial: 1.5\n"),
    Case("version 2", "this Governor reads version 1, not 2 (write 'version: 1')", "version: 2\n" + RUNG),
    Case("empty ladder", "ladder: must be a list of at least 1", HEAD + "ladder: []\n"),
    Case("duplicate rung", "ladder[1].id: rung id 'a' is used twice", HEAD + "ladder:\n  - {id: a, model: openai/m}\n  - {id: a, model: openai/n}\n"),
    Case("unknown rung in a rule", "steps[0].ladder[0]: unknown rung 'qick' (did you mean 'quick'?)", HEAD + RUNG + "steps: [{ladder: [qick]}]\n"),
    Case("over the model's limit", "1100 tokens together, but openai/gpt-5-mini gives at most 1000 (lower it by 100)", LIMITED + rung("thinking_tokens: 900, answer_tokens: 200")),
    Case("effort the dialect refuses", "effort 'xhigh' is not supported by openai/gpt-5-mini", HEAD + rung("effort: xhigh")),
    Case("temperature where it is refused", "openai/gpt-5-mini refuses temperature 0.5 (remove it)", HEAD + rung("temperature: 0.5")),
    Case("thinking on a plain model", "has no thinking to limit (set it to 0", HEAD + rung("thinking_tokens: 500", "openai/gpt-4o-mini")),
    Case("require_hard with a soft rung", "thinking_tokens is only a reserve on openai-chat", HEAD + "require_hard: true\n" + rung("effort: low, thinking_tokens: 500")),
    Case("unknown verifier", "verify[0]: unknown verifier 'compleet' (did you mean 'complete'?)", HEAD + RUNG + "verify: [compleet]\n"),
    Case("verifier with a wrong option", "'number' has no option 'equls' (did you mean 'equals'?)", HEAD + RUNG + "verify: [{number: {equls: 3}}]\n"),
    Case("bad JSON schema", "verify[0].json_schema: not a JSON Schema: $.type: 'objct'", HEAD + RUNG + "verify: [{json_schema: {type: objct}}]\n"),
    Case("bad regex", "verify[0].regex: not a regular expression", HEAD + RUNG + "verify: [{regex: '[a'}]\n"),
    Case("unknown base", "no shipped policy is called 'balancd' (did you mean 'balanced'?)", HEAD + "extends: balancd\n"),
    Case("circle of bases", "extends this file in turn (break the circle)", HEAD + "extends: ./policy.yaml\n"),
    Case("negative budget", "budget.step.usd: must be at least 0, not -1", HEAD + RUNG + "budget: {step: {usd: -1}}\n"),
    Case("unknown dialect", "wire: unknown dialect 'opnai' (did you mean 'openai-chat'?)", HEAD + RUNG + "models: {openai/gpt-5-mini: {wire: opnai}}\n"),
    Case("unknown shipped name", "no file and no shipped policy is called 'ballanced' (did you mean 'balanced'?)", argv=("run", "ballanced", *RUN[2:])),
    Case("explain an unknown name", "no shipped policy is called 'frgal' (did you mean 'frugal'?)", argv=("explain", "frgal", "hi")),
    Case("init from an unknown name", "no shipped policy is called 'frgal' (did you mean 'frugal'?)", argv=("init", "--from", "frgal")),
    Case("init over a file", "policy.yaml: exists already (overwrite it with --force)", argv=("init",)),
    Case("check a mistake", "policy.yaml:2:1: dail: unknown key 'dail'", HEAD + "dail: 1\n" + RUNG, argv=("check", "policy.yaml"), on_stdout=True),
    Case("policy is a folder", "x.yaml: is a folder, not a policy file", files={"x.yaml/y": ""}, argv=("run", "x.yaml", *RUN[2:])),
]  # fmt: skip

TASKS = [
    Case("tasks missing", "tasks.jsonl: no such file", tasks=None),
    Case("tasks are a folder", "x: can't be read: Is a directory", files={"x/y": ""}, argv=("run", "policy.yaml", "--input", "x", "--out", "out.jsonl")),
    Case("tasks empty", "tasks.jsonl: the file has no tasks", tasks="\n \n"),
    Case("tasks not UTF-8", "tasks.jsonl:2: not UTF-8 text", tasks=TASK.encode() + b'{"id": "\xe9"}\n'),
    Case("bad JSON", "tasks.jsonl:2:26: not JSON", tasks=TASK + '{"id": "b", "prompt": "x"\n'),
    Case("nested without end", "tasks.jsonl:1: nested too deeply", tasks="[" * 100_000),
    Case("a number without end", "tasks.jsonl:1: a number has too many digits", tasks=f'{{"id": "a", "prompt": "x", "gold": {"9" * 5000}}}\n'),
    Case("not an object", "tasks.jsonl:1: must be a JSON object, is a list", tasks="[1]\n"),
    Case("no id", "tasks.jsonl:1: id: is missing", tasks='{"prompt": "x"}\n'),
    Case("duplicate id", "tasks.jsonl:2: id: 'a' stands on an earlier line too", tasks=TASK + TASK),
    Case("prompt and messages", "tasks.jsonl:1: prompt: give either 'prompt' or 'messages'", tasks='{"id": "a", "prompt": "x", "messages": []}\n'),
    Case("neither", "tasks.jsonl:1: prompt: give either 'prompt' or 'messages'", tasks='{"id": "a"}\n'),
    Case("unknown key in a task", "tasks.jsonl:1: promt: unknown key (did you mean 'prompt'?)", tasks='{"id": "a", "promt": "x"}\n'),
    Case("wrong type in a task", "tasks.jsonl:1: id: must be a string, is a number", tasks='{"id": 7, "prompt": "x"}\n'),
    Case("bad verify spec", "tasks.jsonl:1: verify.number.equls: 'number' has no option 'equls'", tasks='{"id": "a", "prompt": "x", "verify": {"number": {"equls": 3}}}\n'),
    Case("empty prompt", "tasks.jsonl:1: prompt: is empty", tasks='{"id": "a", "prompt": ""}\n'),
    Case("message without a role", "tasks.jsonl:1: messages.0.role: is missing", tasks='{"id": "a", "messages": [{"content": "x"}]}\n'),
    Case("misspelt role", "messages.0.role: unknown role 'usr' (did you mean 'user'?)", tasks='{"id": "a", "messages": [{"role": "usr", "content": "x"}]}\n'),
    Case("content is a number", "messages.0.content: must be a string or a list of parts, is a number", tasks='{"id": "a", "messages": [{"role": "user", "content": 7}]}\n'),
    Case("tool is a number", "tools.0: must be an object, is a number", tasks='{"id": "a", "prompt": "x", "tools": [3]}\n'),
    Case("bad schema of a task", "tasks.jsonl:1: schema: not a JSON Schema", tasks='{"id": "a", "prompt": "x", "schema": {"type": "objct"}}\n'),
    Case("half a character", "tasks.jsonl:1: id: holds half a character", tasks='{"id": "a\\ud800", "prompt": "x"}\n'),
]  # fmt: skip


def locked(bench: Bench) -> None:
    hold = "import fcntl, sys\nfile = open('out.jsonl', 'a')\nfcntl.lockf(file, fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    bench.stack.enter_context(other)
    bench.stack.callback(other.kill)
    assert other.stdout is not None
    assert other.stdout.readline()


OUTPUTS = [
    Case("--out is a folder", "x: can't be opened: it is a folder", files={"x/y": ""}, argv=(*RUN[:-1], "x")),
    Case("--out in no folder", "no/out.jsonl: can't be opened: its folder does not exist", argv=(*RUN[:-1], "no/out.jsonl")),
    Case("--out holds other text", "out.jsonl:1: not an outcome line (remove that line, or name another --out)", files={"out.jsonl": "Dear all,"}),
    Case("--out is the task file", "tasks.jsonl:1: not an outcome line", argv=(*RUN[:-1], "tasks.jsonl")),
    Case("--out is in use", "out.jsonl: another process is using it: let that finish first", files={"out.jsonl": ""}, make=locked),
    Case("journal of another policy", "begun under another policy", files={"out.jsonl.journal": '{"journal":1,"policy":"x"}\n'}),
    Case("journal that is none", "out.jsonl.journal: not a journal: move it away", files={"out.jsonl.journal": "[]\n"}),
    Case("--records in no folder", "no/r.jsonl: can't be opened: its folder does not exist", argv=(*RUN, "--records", "no/r.jsonl")),
    Case("unknown ledger scheme", "unknown ledger scheme 'sqlit://': did you mean sqlite://?", argv=(*RUN, "--ledger", "sqlit:///x.db")),
    Case("ledger is no URI", "ledger 'x.db' is not a URI: write memory:// or sqlite:///", argv=(*RUN, "--ledger", "x.db")),
    Case("ledger is no database", "the file is not an SQLite database: choose another path", files={"l.db": "Dear all," * 200}, argv=(*RUN, "--ledger", "sqlite:///l.db")),
    Case("ledger in no folder", "its folder must exist and be writable", argv=(*RUN, "--ledger", "sqlite:///no/l.db")),
    Case("schema into no folder", "no/x: can't be written", argv=("schema", "--out", "no/x")),
]  # fmt: skip


def without(*modules: str) -> Callable[[Bench], None]:
    def block(bench: Bench) -> None:
        for module in modules:
            bench.patch.setitem(sys.modules, module, None)

    return block


def bare(bench: Bench) -> None:
    bench.patch.setattr("governor.verify.sandbox.available", lambda: None)


def local(name: str) -> str:
    return HEAD + f"ladder: [{{id: a, model: '{name}', answer_tokens: 16}}]\n"


KEYED = STUB.replace("wire: plain", "wire: plain, api_key_env: GOVERNOR_TEST_NO_SUCH_KEY")
MODELS = [
    Case("unknown local model", "policy.yaml:2:25: ladder[0].model: no local model 'smollm2': did you mean 'smollm2-135m'?", local("local/smollm2")),
    Case("local model that is absent", "local model 'qwen3-0.6b' is absent: governor models pull qwen3-0.6b", local("local/qwen3-0.6b")),
    Case("no such model file", "ladder[0].model: no model file x/m.gguf", local("local/x/m.gguf")),
    Case("no GGUF file", "ladder[0].model: m.gguf is not a GGUF model file", local("local/./m.gguf"), files={"m.gguf": "Dear all,"}),
    Case("truncated GGUF", "m.gguf is damaged or cut short: pull or copy it again", local("local/./m.gguf"), files={"m.gguf": gguf_bytes()[:150]}),
    Case("pull an unknown model", "no model 'smollm' to pull: did you mean 'smollm2-135m'?", argv=("models", "pull", "smollm")),
    Case("no xllamacpp", "a local model needs the extra 'local': pip install 'compute-governor[local]'", local("local/./m.gguf"), files={"m.gguf": gguf_bytes()}, make=without("xllamacpp")),
    Case("no litellm", "ladder[0].model: the LiteLLM backend needs the extra 'litellm': pip install", make=without("litellm")),
    Case("no langgraph", "the demo needs the extra 'langgraph': pip install 'compute-governor[langgraph]'", argv=("demo",), make=without("langgraph")),
    Case("the key's variable is not set", "the environment variable GOVERNOR_TEST_NO_SUCH_KEY (api_key_env) is not set", KEYED),
    Case("no sandbox for the policy's tests", "tasks.jsonl: task 'a': no sandbox for untrusted code: install bubblewrap", STUB + TESTED, make=bare),
    Case("no sandbox for a task's tests", "tasks.jsonl: task 'a': no sandbox for untrusted code", tasks='{"id": "a", "prompt": "x", "verify": {"python_tests": ["assert f()"]}}\n', make=bare),
]  # fmt: skip

USAGE = [
    Case("no such command", "governor: No such command 'rnu'", argv=("rnu",)),
    Case("missing argument", "governor run: Missing argument", argv=("run",)),
    Case("missing option", "governor run: Missing option '--input'", argv=("run", "balanced")),
    Case("misspelt option", "No such option: --inptu", argv=(*RUN, "--inptu", "x")),
    Case("concurrency of 0", "Invalid value for '--concurrency'", argv=(*RUN, "--concurrency", "0")),
    Case("seed that is no number", "Invalid value for '--seed'", argv=(*RUN, "--seed", "x")),
]

REFUSED = [*POLICIES, *TASKS, *OUTPUTS, *MODELS, *USAGE]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("GOVERNOR_MODELS", raising=False)
    with ExitStack() as stack:
        yield Bench(folder, monkeypatch, stack)


def governor(bench: Bench, *argv: str) -> int:
    """Run the command in this process: its exit code."""
    bench.patch.setattr(sys, "argv", ["governor", *argv])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code if isinstance(end.value.code, int) else int(end.value.code is not None)


def prepare(bench: Bench, case: Case) -> None:
    for name, content in {"policy.yaml": case.policy, "tasks.jsonl": case.tasks, **case.files}.items():
        path = bench.folder / name
        path.parent.mkdir(exist_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    case.make(bench)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(
    case: Case, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(bench, case)
    before = snapshot(bench.folder)
    code = governor(bench, *case.argv)
    out, err = capsys.readouterr()
    assert code == case.code, err
    told, silent = (out, err) if case.on_stdout else (err, out)
    about = [line for line in told.splitlines() if case.told in line]
    assert len(about) == 1, told
    assert silent == ""
    assert case.on_stdout or told == f"{about[0]}\n"
    assert "Traceback" not in told
    assert snapshot(bench.folder) == before


def test_the_table_is_long_enough() -> None:
    assert len(REFUSED) + len(SERVERS) >= 95
    assert len({case.name for case in REFUSED}) == len(REFUSED)


class Fault(NamedTuple):
    name: str
    told: str
    answer: Answer | None
    """What the server says, however often it is asked; None: there is no server."""
    final: bool = False
    """Whether another try would fail alike, so that there is none."""


GARBAGE = Answer(200, b"<html>", {"content-type": "application/json"})
SERVERS = [
    Fault("connection refused", "can't be reached: Connection refused (is it running, and is api_base right?)", None),
    Fault("hangs", "no whole answer within 2 s", Answer(hang=30)),
    Fault("garbage JSON", "the reply can't be read: Expecting value", GARBAGE),
    Fault("half a reply", "the reply can't be read: Response payload is not completed", Answer(200, b'{"id": "c', {"content-type": "application/json"}, cut=True)),
    Fault("wrong key", "the key was refused (401): unknown key", error(401, "unknown key"), final=True),
    Fault("model not there", "the request was refused (404): no model m", error(404, "no model m"), final=True),
    Fault("fails for ever", "the server failed (500): out of order", error(500, "out of order")),
    Fault("too many requests", "too many requests (429): come back", error(429, "come back", retry_after="60")),
]  # fmt: skip


@pytest.fixture(scope="session")
def litellm() -> Iterator[None]:
    """LiteLLM, imported once; and a loop for its service logger, which would otherwise make one and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdk()
    yield
    loop.close()


def address(server: StubServer | None) -> str:
    return server.url if server else "http://127.0.0.1:9"


THEIRS = (
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields':DeprecationWarning"),
)


def their_warnings(test: Any) -> Any:
    """Lets pass what LiteLLM's own lazily imported modules warn of."""
    for mark in THEIRS:
        test = mark(test)
    return test


@their_warnings
@pytest.mark.usefixtures("litellm")
@pytest.mark.parametrize("fault", SERVERS, ids=lambda fault: fault.name)
def test_a_server_fault_is_an_outcome_and_one_line(
    fault: Fault, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    server = bench.stack.enter_context(StubServer([fault.answer] * 50)) if fault.answer else None
    prepare(bench, Case(fault.name, fault.told, STUB.replace("http://127.0.0.1:9", address(server))))
    code = governor(bench, *RUN)
    out, err = capsys.readouterr()
    assert code == 1
    assert out == "tasks 1, done_earlier 0, error 1\n"
    assert err.startswith("a: error: ")
    assert err.count("\n") == 1
    # The last try of a fault that is retried may be under way when the time is up: then that is what is said.
    late = "" if fault.final else "no whole answer within 2 s"
    assert fault.told in err or (late and late in err)
    assert "openai/m: " in err
    lines = (bench.folder / "out.jsonl").read_text().splitlines()
    (outcome,) = map(json.loads, lines)
    assert (outcome["id"], outcome["status"], outcome["answer"]) == ("a", "error", "")
    assert fault.told in outcome["error"] or (late and late in outcome["error"])
    assert "\n" not in outcome["error"]
    assert not (bench.folder / "out.jsonl.journal").exists()
    assert not fault.final or (server is not None and len(server.seen) == 1)


@their_warnings
@pytest.mark.usefixtures("litellm")
def test_a_stream_that_breaks_off_is_an_error_that_names_model_and_cause(bench: Bench) -> None:
    server = bench.stack.enter_context(StubServer([sse(chunk({"content": "Hel"}), done=False, cut=True)] * 50))
    prepare(bench, Case("stream", "", STUB.replace("http://127.0.0.1:9", server.url)))
    with Governor.from_policy("policy.yaml") as governed:
        stream = governed.stream("hi")
        assert "".join(stream) == "Hel"
    assert stream.outcome is not None
    assert stream.outcome.status == "error"
    assert "openai/m: the reply can't be read: peer closed connection" in stream.outcome.attempts[0].error


SCRIPTED = """
import resource
from governor import facade
from governor.cli import main
from governor.testing import ScriptedBackend

facade.Backends = lambda models: ScriptedBackend(lambda call: "word " * 500)
"""
FULL = SCRIPTED + "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\nmain()"
ROOMY = SCRIPTED + "main()"
ENDLESS = """
import asyncio
from governor import facade
from governor.cli import main
from governor.testing import ScriptedBackend

class Endless(ScriptedBackend):
    async def acall(self, call):
        print("called", flush=True)
        await asyncio.sleep(60)

facade.Backends = lambda models: Endless([])
main()
"""


def command(program: str) -> list[str]:
    return [sys.executable, "-c", program, *RUN, "--ledger", "memory://", "--concurrency", "1"]


def test_a_full_disk_leaves_whole_lines_and_the_same_command_goes_on(bench: Bench) -> None:
    tasks = "".join(json.dumps({"id": f"t{n}", "prompt": "hi"}) + "\n" for n in range(12))
    prepare(bench, Case("disk full", "", tasks=tasks))
    full = subprocess.run(command(FULL), capture_output=True, text=True, timeout=60, check=False)
    assert full.returncode == 1, full.stderr
    assert "line not written: the file size limit is reached" in full.stderr
    assert full.stderr.count("\n") == 1
    text = (bench.folder / "out.jsonl").read_text()
    assert text.endswith("\n")
    assert 0 < len([json.loads(line) for line in text.splitlines()]) < 12
    more = subprocess.run(command(ROOMY), capture_output=True, text=True, timeout=60, check=False)
    assert more.returncode == 0, more.stderr
    lines = (bench.folder / "out.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(f"t{n}" for n in range(12))


def test_ctrl_c_is_130_and_one_line(bench: Bench) -> None:
    prepare(bench, Case("interrupted", ""))
    running = subprocess.Popen(
        command(ENDLESS), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "called\n"
        time.sleep(0.1)
        os.kill(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors.splitlines() == ["the same command goes on from here", "interrupted"]
    assert (bench.folder / "out.jsonl").read_text() == ""
