"""What the sandbox holds back, shown under each way of isolation that works on the machine."""

# ruff: noqa: E501  programs under test stay on one line

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from governor.errors import SandboxError
from governor.verify import sandbox
from governor.verify.sandbox import Isolation, SandboxLimits, SandboxResult

pytestmark = pytest.mark.sandbox
LIMITS = SandboxLimits(wall_seconds=8)


@pytest.fixture(params=["bubblewrap", "namespaces"])
def way(request: pytest.FixtureRequest) -> Isolation:
    chosen: Isolation = request.param
    if not sandbox.works(chosen):
        pytest.skip(f"{chosen} does not work on this machine (not installed, or user namespaces are forbidden)")
    return chosen


def run(way: Isolation, program: str, limits: SandboxLimits = LIMITS, stdin: str = "") -> SandboxResult:
    return sandbox._run(program, stdin, limits, way)


def test_a_program_runs_with_its_input_and_output(way: Isolation) -> None:
    result = run(way, "import sys; print(sys.stdin.read().upper()); print('oops', file=sys.stderr)", stdin="h\u00e9")
    assert (result.ok, result.stdout, result.stderr, result.reason) == (True, "H\u00c9\n", "oops\n", "")
    assert result.isolation == way


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("1/0", "exit code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
    ],
)
def test_the_end_of_a_program_is_told(way: Isolation, program: str, reason: str) -> None:
    result = run(way, program)
    assert (result.ok, result.reason) == (False, reason)


def test_no_network_not_even_to_this_machine(way: Isolation) -> None:
    connect = (
        "import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.stdin.read())), timeout=2)\nprint('in')"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", int(port)), timeout=2):
            result = run(way, connect, stdin=port)
    assert not result.ok
    assert "in\n" not in result.stdout
    assert "refused" in result.stderr or "unreachable" in result.stderr


@pytest.mark.parametrize("place", ["/usr", "", "/etc", "/dev", sys.prefix, sys.base_prefix])
def test_nothing_outside_the_scratch_folder_can_be_written(way: Isolation, place: str) -> None:
    place = f"{place}/governor-probe"
    result = run(way, f"open({place!r}, 'w')")
    assert not result.ok
    assert "Read-only" in result.stderr or "Permission" in result.stderr
    assert not Path(place).exists()


def test_the_scratch_folder_is_its_own_bounded_and_gone_afterwards(way: Isolation) -> None:
    before = set(Path("/tmp").iterdir())
    program = "import os, tempfile\nprint(os.getcwd())\nopen('a', 'w').write('x')\nprint(tempfile.mkdtemp())\nopen('/tmp/b', 'w')"
    result = run(way, program)
    assert result.ok, result.stderr
    assert result.stdout.startswith("/tmp\n/tmp/")
    assert not {path for path in set(Path("/tmp").iterdir()) - before if path.name in {"a", "b"}}
    small = SandboxLimits(scratch_bytes=1 << 20)
    filler = "for n in range(9):\n    open(f'/tmp/{n}', 'wb').write(b'x' * 400_000)"
    assert "No space left" in run(way, filler, small).stderr


def test_files_of_the_person_who_runs_governor_are_not_there(way: Isolation, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    places = [
        str(secret),
        str(Path(__file__)),
        str(Path.home() / ".bashrc"),
        "/etc/passwd",
        "/etc/shadow",
        "/proc/1",
    ]
    result = run(way, f"import os\nprint([place for place in {places!r} if os.path.exists(place)])")
    assert result.stdout == "[]\n"


def test_no_secret_of_the_environment_is_readable(way: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    program = (
        "import os, glob\n"
        "print(dict(os.environ))\n"
        f"for place in ['/proc/self/environ', '/proc/{os.getpid()}/environ', *glob.glob('/proc/*/environ')]:\n"
        "    try:\n        print(open(place).read())\n    except OSError as cause:\n        print(cause)\n"
    )
    result = run(way, program)
    assert result.ok, result.stderr
    assert "No such file" in result.stdout
    assert "sk-very-secret" not in result.stdout
    assert "API_KEY" not in result.stdout


def test_other_processes_can_be_neither_seen_nor_signalled(way: Isolation) -> None:
    program = f"import os\nprint(os.getpid(), os.getppid())\nos.kill({os.getpid()}, 0)"
    result = run(way, program)
    assert "No such process" in result.stderr
    assert max(map(int, result.stdout.split())) < 10


def daemon(label: str) -> str:
    return (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(60)', '{label}'])\n"
        "    os._exit(0)\n"
        "time.sleep(0.3)\nprint('parent done')"
    )


def test_daemons_die_with_the_program(way: Isolation) -> None:
    label = f"governor-daemon-{time.time_ns()}"
    result = run(way, daemon(label))
    assert result.stdout == "parent done\n"
    assert result.seconds < 5
    assert _gone(label)


def test_limits_alone_don_t_stop_daemons() -> None:
    label = f"governor-daemon-{time.time_ns()}"
    assert run("unsandboxed", daemon(label)).ok
    (left,) = _processes(label)
    os.kill(int(Path(left).parent.name), signal.SIGKILL)
    assert _gone(label)


def test_daemons_die_with_a_program_that_runs_out_of_time(way: Isolation) -> None:
    label = f"governor-daemon-{time.time_ns()}"
    program = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(60)', '{label}'])\n"
        "while True: pass"
    )
    result = run(way, program, SandboxLimits(wall_seconds=1))
    assert result.reason == "time limit of 1 s"
    assert result.seconds < 3
    assert _gone(label)


def test_the_jail_dies_with_the_process_that_made_it(way: Isolation) -> None:
    label = f"governor-orphan-{time.time_ns()}"
    inner = f"import os, sys\nos.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(60)', '{label}'])"
    outer = (
        "from governor.verify import sandbox\n"
        f"sandbox._run({inner!r}, '', sandbox.SandboxLimits(wall_seconds=50), {way!r})"
    )
    owner = subprocess.Popen([sys.executable, "-c", outer], cwd=Path(__file__).parents[2])
    try:
        assert _wait_for(lambda: bool(_processes(label)))
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert _gone(label)


def test_cpu_time_is_limited(way: Isolation) -> None:
    result = run(way, "while True: pass", SandboxLimits(wall_seconds=8, cpu_seconds=1))
    assert not result.ok
    assert result.reason in {"killed by SIGXCPU", "killed by SIGKILL"}
    assert result.seconds < 6


def test_memory_is_limited(way: Isolation) -> None:
    assert "MemoryError" in run(way, "x = bytearray(10**9)", SandboxLimits(memory_bytes=300 << 20)).stderr


def test_file_size_open_files_and_processes_are_limited(way: Isolation) -> None:
    big = run(way, "open('big', 'wb').write(b'x' * 3_000_000)", SandboxLimits(file_bytes=1 << 20))
    assert "File too large" in big.stderr or big.reason == "killed by SIGXFSZ"
    many = run(way, "f = [open('/dev/null') for _ in range(100)]", SandboxLimits(open_files=20))
    assert "Too many open files" in many.stderr
    bomb = "import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0: time.sleep(9)\n        n += 1\nexcept OSError as e: print(n, e)"
    stopped = run(way, bomb, SandboxLimits(processes=8, wall_seconds=5))
    assert "Resource temporarily unavailable" in stopped.stdout
    assert int(stopped.stdout.split()[0]) <= 8


def test_privileges_can_t_be_won_back(way: Isolation) -> None:
    program = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for call in (lambda: os.setuid(0) if os.getuid() else 1 / 0, lambda: os.chroot('/tmp')):\n"
        "    try:\n        call()\n        print('won')\n    except OSError:\n        print('held')\n"
        "print(libc.mount(b'none', b'/usr', None, 4096 | 32, None), libc.umount2(b'/usr', 2))\n"
    )
    assert run(way, program).stdout == "held\nheld\n-1 -1\n"


def test_output_is_capped_and_never_blocks(way: Isolation) -> None:
    result = run(way, "print('x' * 5_000_000)", SandboxLimits(output_bytes=1000))
    assert result.ok
    assert result.stdout == "x" * 1000


def test_the_packages_of_this_environment_can_be_imported(way: Isolation) -> None:
    assert run(way, "import pydantic; print('there')").stdout == "there\n"


def test_a_program_that_leaves_its_input_unread_is_no_trouble(way: Isolation) -> None:
    assert run(way, "print('done')", stdin="x" * 1_000_000).ok


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fails(_: Isolation) -> bool:
        return False

    monkeypatch.setattr(sandbox, "works", fails)
    sandbox._first.cache_clear()
    yield
    sandbox._first.cache_clear()


@pytest.mark.usefixtures("no_sandbox")
def test_without_a_sandbox_code_is_refused_unless_that_is_allowed() -> None:
    with pytest.raises(SandboxError, match="install bubblewrap"):
        sandbox.run("print(1)", LIMITS)
    result = sandbox.run("import os; print(os.environ)", SandboxLimits(wall_seconds=5, allow_unsandboxed=True))
    assert (result.ok, result.isolation) == (True, "unsandboxed")
    assert "API" not in result.stdout
    spinning = SandboxLimits(wall_seconds=1, allow_unsandboxed=True)
    assert sandbox.run("while True: pass", spinning).reason == "time limit of 1 s"


def test_a_way_that_does_not_start_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: SandboxLimits) -> list[str]:
        return ["/bin/false"]

    def absent(_: str) -> None:
        return None

    monkeypatch.setitem(sandbox._COMMANDS, "namespaces", broken)
    assert not sandbox.works("namespaces")
    monkeypatch.setattr(sandbox, "which", absent)
    assert not sandbox.works("bubblewrap")


def test_what_works_is_tried_once_and_used() -> None:
    sandbox._first.cache_clear()
    found = sandbox.available()
    if found is None:
        pytest.skip("neither bubblewrap nor namespaces work on this machine")
    assert sandbox.run("print('hello')", LIMITS).isolation == found
    assert sandbox._first.cache_info().misses == 1


@pytest.fixture
def unasked() -> Iterator[None]:
    sandbox._first.cache_clear()
    yield
    sandbox._first.cache_clear()


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([None, None, True], [None, "bubblewrap", "bubblewrap"]),
        ([None, False, False, True], [None, "namespaces", "namespaces"]),
        ([None, True], ["namespaces", "namespaces"]),
        ([False, False], [None, None]),
    ],
)
def test_only_what_is_certain_is_kept(
    answers: list[bool | None], found: list[Isolation | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(answers)
    monkeypatch.setattr(sandbox, "works", lambda way: next(asked))
    assert [sandbox.available() for _ in found] == found
    assert list(asked) == []


def test_a_way_that_takes_too_long_may_work_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: SandboxLimits) -> list[str]:
        return ["/bin/sh", "-c", "sleep 60"]

    monkeypatch.setattr(sandbox, "_PROBE_SECONDS", 0.1)
    monkeypatch.setitem(sandbox._COMMANDS, "namespaces", slow)
    assert sandbox.works("namespaces") is None


@pytest.mark.parametrize("ends", [True, False])
def test_a_program_that_has_ended_is_not_late_because_nobody_looked(ends: bool) -> None:
    program = "print('done')" if ends else "import time; print('on', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        if ends:
            process.wait()
        (out, _), in_time = sandbox._exchange(process, b"", time.monotonic() - 1, 100)
        process.kill()
    assert (bytes(out), in_time) == ((b"done\n", True) if ends else (b"", False))


def _processes(label: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"\0{label}\0" in entry.read_text(errors="replace"):
                found.append(str(entry))
        except OSError:
            continue  # it ended while we looked
    return found


def _wait_for(condition: object, seconds: float = 8.0) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _gone(label: str) -> bool:
    return _wait_for(lambda: not _processes(label), 3.0)
