"""Jails a command in Linux namespaces without any outside program; run as a script: `namespace.py CONFIG COMMAND...`.

The launcher leaves the network, process, mount, IPC, host-name and cgroup namespaces, builds an empty root that
holds read-only views of the allowed folders and a bounded `/tmp`, and runs the command below a process 1 of its
own: when that one ends, the kernel kills whatever the command left behind (pid_namespaces(7)). An ordinary user
also enters a user namespace (user_namespaces(7)); root needs none, and the command gives up root by itself.
Only the standard library is used, because this file runs outside any package.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

_NEW_NS, _NEW_CGROUP, _NEW_UTS, _NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2
_AT_FDCWD, _AT_RECURSIVE, _MNT_DETACH = -100, 0x8000, 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture (Linux 5.12)
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if part is None else part.encode() for part in (source, target, kind, data)]
    flag_word = ctypes.c_ulong(flags)
    _checked(_libc.mount(encoded[0], encoded[1], encoded[2], flag_word, encoded[3]), f"mount {target}")


def _seal(target: str, *, recursive: bool) -> None:
    """Make a mount read-only; submounts too, which a plain remount would leave writable."""
    attributes = _MountAttributes(attr_set=_ATTR_RDONLY | _ATTR_NOSUID)
    flags = _AT_RECURSIVE if recursive else 0
    size = ctypes.sizeof(attributes)
    call = (_SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, ctypes.byref(attributes), size)
    _checked(_libc.syscall(*call), f"mount_setattr {target}")


def _die_with_parent() -> None:
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")


def _leave_namespaces() -> None:
    user, group = os.geteuid(), os.getegid()
    flags = _NEW_NS | _NEW_CGROUP | _NEW_UTS | _NEW_IPC | _NEW_PID | _NEW_NET
    _checked(_libc.unshare(flags | (_NEW_USER if user else 0)), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def _bind(path: str) -> None:
    """Show one folder, device or symbolic link of the old root at the same place in the new one."""
    old = Path("/old" + path)
    if old.is_symlink():
        Path(path).symlink_to(old.readlink())
        return
    (Path(path) if old.is_dir() else Path(path).parent).mkdir(parents=True, exist_ok=True)
    if not old.is_dir():
        Path(path).touch()
    _mount(str(old), path, None, _MS_BIND | _MS_REC)
    if old.is_dir():
        _seal(path, recursive=True)


def _build_root(folders: list[str], devices: list[str], scratch_bytes: int) -> None:
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")  # noqa: S108  any folder would do: it becomes the new root
    Path("/tmp/old").mkdir()  # noqa: S108  inside that new root
    os.chdir("/tmp")  # noqa: S108  as above
    _checked(_libc.syscall(_SYS_PIVOT_ROOT[platform.machine()], b".", b"old"), "pivot_root")
    os.chdir("/")
    for scratch in ("/tmp", "/dev/shm"):  # noqa: S108  both are private to the jail and vanish with it
        Path(scratch).mkdir(parents=True)
        _mount("tmpfs", scratch, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=1777,size={scratch_bytes}")
    for path in [*folders, *devices]:
        _bind(path)
    _checked(_libc.umount2(b"/old", _MNT_DETACH), "umount2")
    Path("/old").rmdir()
    _seal("/", recursive=False)


def _wait(child: int) -> int:
    """Reap everything until `child` ends; its exit code, or 128 plus its signal."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _in_child(work: Any) -> int:
    """Fork; the child does `work` and never returns; the parent gets the child's exit code."""
    child = os.fork()
    if child:
        return _wait(child)
    try:
        work()
    except OSError as cause:
        os.write(2, f"sandbox: {cause}\n".encode())
    finally:
        os._exit(125)


def _run(command: list[str]) -> None:
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    os.chdir("/tmp")  # noqa: S108  the jail's own scratch folder
    os.execv(command[0], command)  # noqa: S606  a fixed interpreter without a shell is the point


def _first_process(config: dict[str, Any], command: list[str]) -> None:
    _die_with_parent()
    _build_root(config["folders"], config["devices"], config["scratch_bytes"])
    os._exit(_in_child(lambda: _run(command)))


def main(config: dict[str, Any], command: list[str]) -> int:
    """Run `command` jailed; its exit code, or 125 when the jail can't be built."""
    _die_with_parent()
    if os.getppid() != config["parent"]:
        return 125
    try:
        _leave_namespaces()
    except OSError as cause:
        sys.stderr.write(f"sandbox: {cause}\n")
        return 125
    return _in_child(lambda: _first_process(config, command))


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
