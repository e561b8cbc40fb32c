"""Runs a Python program that nobody vouches for.

Two ways of isolation count as *sandboxed*, tried in this order: bubblewrap, and namespaces made by our own
launcher (namespace.py). Both show the program read-only system folders and the interpreter, a bounded scratch
folder in memory, no network, no `/proc` and no process but its own; whatever it starts dies with it. Resource
limits alone are *unsandboxed* and refused unless `SandboxLimits.allow_unsandboxed` says otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import IO, Any, Literal

from governor.errors import SandboxError

Isolation = Literal["bubblewrap", "namespaces", "unsandboxed"]

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108  inside the jail, where it is private
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# systemd's range for dynamic users: nobody's files, and inside the ids that containers map.
_SPARE_USERS = range(61184, 65520)
_PROBE = "print('inside')"
_PROBE_SECONDS = 5.0
_LATE = "time limit of"

# Runs inside the jail, before anything untrusted: limits, then root is given up, then the program is read.
_PRELUDE = """
import json, os, resource, sys
limits = json.loads(sys.argv[1])
for name, value in limits["resources"].items():
    number = getattr(resource, name)
    most = resource.getrlimit(number)[1]
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(number, (value, value))
if limits["user"] and os.getuid() == 0:
    os.setgroups([])
    os.setresgid(*[limits["user"]] * 3)
    os.setresuid(*[limits["user"]] * 3)
sys.argv = ["program"]
size = int(sys.stdin.buffer.readline())
program = compile(sys.stdin.buffer.read(size), "<program>", "exec")
exec(program, {"__name__": "__main__", "__builtins__": __builtins__})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one run may use. `memory_bytes` and `cpu_seconds` hold per process, `wall_seconds` for everything.

    `scratch_bytes` bounds the writable folder as a whole, `file_bytes` one file, `output_bytes` what is kept
    of each output stream. `allow_unsandboxed` accepts bare resource limits where no sandbox is to be had.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 8
    memory_bytes: int = 1 << 30
    scratch_bytes: int = 64 << 20
    file_bytes: int = 16 << 20
    processes: int = 32
    open_files: int = 64
    output_bytes: int = 256 << 10
    allow_unsandboxed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxResult:
    """How a run ended. `ok` is the exit status alone, which the program controls: it proves nothing about tests.

    `reason` is empty when `ok`, else one phrase such as "exit code 1", "killed by SIGXCPU" or "time limit of 2 s".
    """

    ok: bool
    stdout: str
    stderr: str
    reason: str
    seconds: float
    isolation: Isolation


def run(program: str, limits: SandboxLimits, *, stdin: str = "") -> SandboxResult:
    """Run Python source in a new process under `limits`; `stdin` is what the program can read there.

    Raises SandboxError when no sandbox works here and the limits don't allow to do without.
    """
    return _run(program, stdin, limits, isolation_for(limits))


def isolation_for(limits: SandboxLimits) -> Isolation:
    """How a program will be kept apart under `limits`; SandboxError where they ask for a sandbox and there is none."""
    isolation = available()
    if isolation is None and not limits.allow_unsandboxed:
        raise SandboxError(
            "no sandbox for untrusted code: install bubblewrap, permit user namespaces, "
            "or set sandbox: {allow_unsandboxed: true} to run it with resource limits only"
        )
    return isolation or "unsandboxed"


def available() -> Isolation | None:
    """The first way of isolation that works on this machine, None if none does; tried until that is known."""
    try:
        return _first()
    except TimeoutError:
        return None


@functools.cache
def _first() -> Isolation | None:
    """Raises TimeoutError, which is not kept, where a way may work: a busy moment must not decide for good."""
    ways: tuple[Isolation, ...] = ("bubblewrap", "namespaces")
    unknown = False
    for way in ways:
        found = works(way)
        if found:
            return way
        unknown |= found is None
    if unknown:
        raise TimeoutError
    return None


def works(way: Isolation) -> bool | None:
    """Whether a trivial program runs under this way of isolation; None if it could not be run to its end."""
    if not sys.platform.startswith("linux") or (way == "bubblewrap" and which("bwrap") is None):
        return False
    try:
        result = _run(_PROBE, "", SandboxLimits(wall_seconds=_PROBE_SECONDS), way)
    except OSError:
        return None
    if result.reason.startswith(_LATE):
        return None
    return result.ok and result.stdout == "inside\n"


def _run(program: str, stdin: str, limits: SandboxLimits, isolation: Isolation) -> SandboxResult:
    source = program.encode()
    payload = b"%d\n%b%b" % (len(source), source, stdin.encode())
    # A jail brings its own scratch folder, so that nothing stays on disk even if this process is killed.
    bare = isolation == "unsandboxed"
    with tempfile.TemporaryDirectory(prefix="governor-") if bare else contextlib.nullcontext("/") as folder:
        command = _COMMANDS[isolation](limits) + _python(limits, isolation)
        environment = _ENVIRONMENT | ({"HOME": folder, "TMPDIR": folder} if bare else {})
        process = subprocess.Popen(  # noqa: S603  the command is ours; untrusted text only goes through the pipe
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        return _supervise(process, payload, limits, isolation)


def _python(limits: SandboxLimits, isolation: Isolation) -> list[str]:
    resources = {
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
    }
    user = 0
    if isolation != "unsandboxed":
        # Outside a namespace this limit would count all processes of the person who runs Governor.
        resources["RLIMIT_NPROC"] = limits.processes
        user = secrets.choice(_SPARE_USERS)
    return [sys.executable, "-I", "-c", _PRELUDE, json.dumps({"resources": resources, "user": user})]


def _folders() -> list[str]:
    """What the program may see: the system's libraries and this interpreter with its packages."""
    prefixes = {os.path.realpath(prefix) for prefix in (sys.base_prefix, sys.base_exec_prefix)}
    prefixes |= {sys.prefix, sys.exec_prefix, sys.base_prefix}
    system = [path for path in _SYSTEM if Path(path).exists()]
    outside = sorted(path for path in prefixes if not path.startswith("/usr/") and path != "/usr")
    return [*system, *outside]


def _bubblewrap(limits: SandboxLimits) -> list[str]:
    command = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # Root keeps just enough to give up root in the prelude: RLIMIT_NPROC does not bind the real root.
    command += ["--unshare-user"] if os.geteuid() else ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for scratch in ("/tmp", "/dev/shm"):  # noqa: S108  both are private to the jail and vanish with it
        command += ["--perms", "1777", "--size", str(limits.scratch_bytes), "--tmpfs", scratch]
    for folder in _folders():
        path = Path(folder)
        for parent in reversed(path.parents[:-1]):  # bubblewrap would make them readable by root alone
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--symlink", str(path.readlink()), folder] if path.is_symlink() else ["--ro-bind", folder, folder]
    for device in _DEVICES:
        command += ["--dev-bind", device, device]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp", "--"]  # noqa: S108  inside the jail


def _namespaces(limits: SandboxLimits) -> list[str]:
    config = {
        "parent": os.getpid(),
        "folders": _folders(),
        "devices": _DEVICES,
        "scratch_bytes": limits.scratch_bytes,
    }
    launcher = Path(__file__).with_name("namespace.py")
    return [sys.executable, "-I", "-S", str(launcher), json.dumps(config)]


def _bare(_: SandboxLimits) -> list[str]:
    return []


_COMMANDS: dict[Isolation, Callable[[SandboxLimits], list[str]]] = {
    "bubblewrap": _bubblewrap,
    "namespaces": _namespaces,
    "unsandboxed": _bare,
}


def _supervise(
    process: subprocess.Popen[bytes], payload: bytes, limits: SandboxLimits, isolation: Isolation
) -> SandboxResult:
    started = time.monotonic()
    try:
        outputs, in_time = _exchange(process, payload, started + limits.wall_seconds, limits.output_bytes)
    finally:
        _kill(process)
    reason = _reason(process.returncode) if in_time else f"{_LATE} {limits.wall_seconds:g} s"
    return SandboxResult(
        ok=not reason,
        stdout=outputs[0].decode(errors="replace"),
        stderr=outputs[1].decode(errors="replace"),
        reason=reason,
        seconds=time.monotonic() - started,
        isolation=isolation,
    )


def _reason(code: int) -> str:
    if code == 0:
        return ""
    number = -code if code < 0 else code - 128
    known = {int(known) for known in signal.Signals}
    return f"killed by {signal.Signals(number).name}" if number in known else f"exit code {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group; in a sandbox the kernel ends what has left the group, too."""
    with contextlib.suppress(ProcessLookupError):  # everything had ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _exchange(
    process: subprocess.Popen[bytes], payload: bytes, deadline: float, keep: int
) -> tuple[Sequence[bytearray], bool]:
    """Feed stdin and collect both outputs until the main process ends; False when the deadline came first.

    A process left behind may hold the pipes open for ever, so the end of the main process decides, not
    the end of its output. Whoever was kept from looking until the deadline looks once more. Output past `keep` bytes
    is read and dropped.
    """
    outputs = (bytearray(), bytearray())
    with selectors.DefaultSelector() as selector:
        for pipe, event, data in _channels(process, outputs):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event, data)
        view = memoryview(payload)
        while True:
            late = time.monotonic() >= deadline  # before the look, so that it counts
            ended = process.poll() is not None
            if late and not ended:
                return outputs, False
            ready = selector.select(0 if ended else min(0.02, max(0.0, deadline - time.monotonic())))
            for key, _ in ready:
                view = _transfer(selector, key, view, keep)
            if ended and (late or not any(isinstance(key.data, bytearray) for key, _ in ready)):
                return outputs, True


def _channels(
    process: subprocess.Popen[bytes], outputs: tuple[bytearray, bytearray]
) -> list[tuple[IO[bytes], int, bytearray | None]]:
    pipes = (process.stdin, process.stdout, process.stderr)
    roles = ((selectors.EVENT_WRITE, None), (selectors.EVENT_READ, outputs[0]), (selectors.EVENT_READ, outputs[1]))
    return [(pipe, event, data) for pipe, (event, data) in zip(pipes, roles, strict=True) if pipe is not None]


def _transfer(selector: selectors.BaseSelector, key: selectors.SelectorKey, view: memoryview, keep: int) -> memoryview:
    """Move what one pipe can take or give now; the rest of stdin's payload is returned."""
    pipe: Any = key.fileobj
    if key.data is None:
        try:
            view = view[os.write(key.fd, view[:65536]) :]
        except BrokenPipeError:
            view = view[:0]
        if not view:
            selector.unregister(pipe)
            pipe.close()
        return view
    chunk = os.read(key.fd, 65536)
    key.data.extend(chunk[: max(0, keep - len(key.data))])
    if not chunk:
        selector.unregister(pipe)
    return view
