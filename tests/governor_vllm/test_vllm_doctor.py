"""`governor doctor` and `governor serve` as a person meets them."""

from __future__ import annotations

import itertools
import json
import shlex
import stat
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from governor.cli.app import app
from governor_vllm.families import family_of
from governor_vllm.launch import PROCESSOR, launch
from tests.governor_vllm.dialect import DialectServer


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_the_doctor_prints_what_is_honoured_and_what_to_change(
    server: DialectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    server.now(budget="ignored")
    shown = run("doctor", server.url)
    assert shown.exit_code == 1
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.split()}
    assert lines["budget"].split()[1] == "ignored"
    assert "--reasoning-config" in shown.stdout
    assert lines["xargs"].split()[1] == "ignored"
    assert "--logits-processors" in shown.stdout
    assert lines["counts"].split()[1] == "honoured"
    assert lines["priority"].split()[1] == "unproved"
    assert "--scheduling-policy priority" in lines["priority"]
    assert shown.stdout.startswith(f"{server.url}: q, version 0.32.0, window 2048")


def test_nothing_lost_in_silence_is_exit_code_0(server: DialectServer) -> None:
    server.now(processor=True, words=True, budget="refused")
    shown = run("doctor", server.url, "--json", "--model", "q")
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert (report["model"], report["context_window"]) == ("q", 2048)
    budget = next(one for one in report["findings"] if one["canary"] == "budget")
    assert budget["verdict"] == "refused"
    assert budget["change"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["http://127.0.0.1:9/v1"], "http://127.0.0.1:9 can't be reached"),
        (["not an address"], "can't be reached"),
        (["http://127.0.0.1:9/v1", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
    ],
)
def test_a_server_that_can_not_be_asked_is_one_line_and_exit_code_2(arguments: list[str], told: str) -> None:
    shown = run("doctor", *arguments)
    assert shown.exit_code == 2
    assert told in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert shown.stdout == ""


def test_a_fault_that_passes_is_one_line_of_the_doctor(server: DialectServer) -> None:
    server.fail(7, 503)
    shown = run("doctor", server.url)
    assert shown.exit_code == 2
    assert shown.stderr == f"{server.url}: HTTP 503: overloaded\n"


def test_the_command_has_the_processor_and_the_familys_parsers() -> None:
    command = launch("Qwen/Qwen3-8B", ["--port", "8001"]).command
    assert command[:3] == ("vllm", "serve", "Qwen/Qwen3-8B")
    assert command[-2:] == ("--port", "8001")
    pairs = dict(itertools.pairwise(command))
    assert pairs["--logits-processors"] == PROCESSOR
    assert pairs["--reasoning-parser"] == "qwen3"
    assert pairs["--tool-call-parser"] == "hermes"
    assert pairs["--scheduling-policy"] == "priority"
    assert "--enable-auto-tool-choice" in command


def test_what_is_stated_is_not_stated_again() -> None:
    stated = ["--reasoning-parser", "deepseek_r1", "--scheduling_policy=fcfs"]
    command = launch("Qwen/Qwen3-8B", stated).command
    assert command.count("--reasoning-parser") == 1
    assert "--scheduling-policy" not in command


def test_what_a_configuration_file_states_is_not_stated_again(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("reasoning_parser: deepseek_r1\nenable-auto-tool-choice: false\nport: 8001\n", encoding="utf-8")
    command = launch("Qwen/Qwen3-8B", ["--config", str(config)]).command
    assert not {"--reasoning-parser", "--enable-auto-tool-choice"} & set(command)
    assert {"--tool-call-parser", "--scheduling-policy", PROCESSOR} < set(command)
    assert launch("acme/thinker-1", ["--config", str(config)]).notes == ()
    config.write_text("a: [", encoding="utf-8")
    for unread in (config, tmp_path / "none.yaml"):
        assert "--reasoning-parser" in launch("Qwen/Qwen3-8B", ["--config", str(unread)]).command


@pytest.mark.parametrize(
    ("stated", "listed", "wanted"),
    [
        ((), "", [PROCESSOR]),
        (("--logits-processors", "a:A", "b:B"), "", ["a:A", "b:B", PROCESSOR]),
        (("--logits_processors=a:A",), "", ["a:A", PROCESSOR]),
        (("--logits-processors", PROCESSOR, "a:A"), "", [PROCESSOR, "a:A"]),
        ((), "logits-processors: [a:A, b:B]", ["a:A", "b:B", PROCESSOR]),
        ((), "logits_processors: a:A", ["a:A", PROCESSOR]),
        (("--logits-processors", "a:A"), "logits-processors: [b:B]", ["a:A", PROCESSOR]),
    ],
)
def test_the_processor_stands_behind_those_that_are_named(
    tmp_path: Path, stated: tuple[str, ...], listed: str, wanted: list[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"port: 8001\n{listed}\n", encoding="utf-8")
    command = launch("Qwen/Qwen3-8B", [*stated, "--config", str(config)]).command
    assert command.count("--logits-processors") == 1
    at = command.index("--logits-processors") + 1
    assert list(itertools.takewhile(lambda word: not word.startswith("-"), command[at:])) == wanted
    assert not any("logits_processors" in word for word in command)


def test_an_unknown_family_is_said_and_served_without_parsers() -> None:
    started = launch("acme/thinker-1")
    assert not any(word.endswith("-parser") for word in started.command)
    assert "no family is known for 'acme/thinker-1'" in started.notes[0]
    assert launch("acme/thinker-1", ["--reasoning-config={}"]).notes == ()


def test_marks_of_a_family_are_told_to_the_processor() -> None:
    command = launch("ByteDance-Seed/Seed-OSS-36B-Instruct").command
    told = json.loads(command[command.index("--additional-config") + 1])
    assert told == {"governor": {"start": "<seed:think>", "end": "</seed:think>"}}
    assert "--additional-config" not in launch("Qwen/Qwen3-8B").command
    own = launch("ByteDance-Seed/Seed-OSS-36B-Instruct", ["--additional-config", "{}"])
    assert own.command.count("--additional-config") == 1
    assert "<seed:think>" in own.notes[0]


@pytest.mark.parametrize(
    ("model", "reasoning"),
    [
        ("/models/DeepSeek-R1-Distill-Qwen-7B/", "deepseek_r1"),
        ("openai/gpt-oss-20b", "openai_gptoss"),
        ("Qwen/Qwen3-4B-Instruct-2507", ""),
        ("zai-org/GLM-4.6", "glm45"),
    ],
)
def test_families_are_known_by_name(model: str, reasoning: str) -> None:
    family = family_of(model)
    assert family is not None
    assert family.reasoning == reasoning


def without_vllm(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("sys.executable", str(folder / "elsewhere" / "python"))


def test_a_dry_run_prints_a_line_that_a_shell_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_vllm(monkeypatch, tmp_path)
    shown = run("serve", "Qwen/Qwen3-8B", "--dry-run", "--max-model-len", "4096", "--chat-template", "a b.jinja")
    assert shown.exit_code == 0
    words = shlex.split(shown.stdout)
    assert words[:3] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    assert words[-4:] == ["--max-model-len", "4096", "--chat-template", "a b.jinja"]


def test_a_dry_run_prints_what_would_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what a vLLM of another environment needs to find the processor."""
    without_vllm(monkeypatch, tmp_path)
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    words = shlex.split(run("serve", "Qwen/Qwen3-8B", "--dry-run").stdout)
    assert words[1:4] == [str(program), "serve", "Qwen/Qwen3-8B"]
    assert words[0] == "PYTHONPATH=" + launch("Qwen/Qwen3-8B", program=str(program)).environment["PYTHONPATH"]


@pytest.mark.parametrize("writable", [True, False])
def test_what_lies_beside_an_installed_governor_does_not_go_before_vllms_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writable: bool
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    installed = tmp_path / "site-packages"
    for name in ("governor_vllm", "governor", "numpy"):
        (installed / name).mkdir(parents=True)
        (installed / name / "__init__.py").touch()
    home = tmp_path / "home"
    home.mkdir() if writable else home.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr("governor_vllm.launch.find_spec", lambda name: PathFinder.find_spec(name, [str(installed)]))
    once, again = (launch("Qwen/Qwen3-8B", program="/opt/vllm/bin/vllm").environment["PYTHONPATH"] for _ in range(2))
    assert once == again
    folders = once.split(":")
    if not writable:
        assert folders == [str(installed)], "rather than not to be found"
        return
    assert [[one.name for one in Path(folder).iterdir()] for folder in folders] == [["governor_vllm"], ["governor"]]
    assert all(
        (Path(folder) / name / "__init__.py").is_file()
        for folder, name in zip(folders, ("governor_vllm", "governor"), strict=True)
    )


def test_serving_becomes_vllm_with_its_exit_code_and_finds_the_processor(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\necho "asked: $*"\necho "path: $PYTHONPATH"\nexit 7\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        [sys.executable, "-m", "governor", "serve", "Qwen/Qwen3-8B", "--port", "8001"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert done.returncode == 7, done.stderr
    assert said[0].endswith(said[1].removeprefix("asked: "))
    assert str(Path(__file__).parents[2] / "adapters") in said[2]


def test_without_vllm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_vllm(monkeypatch, tmp_path)
    shown = run("serve", "Qwen/Qwen3-8B")
    assert shown.exit_code == 2
    assert "pip install" in shown.stderr
    assert shown.stderr.count("\n") == 1
