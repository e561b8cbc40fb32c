from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from governor.errors import RecordError
from governor.telemetry.lines import LineFile

WORKER = str(Path(__file__).with_name("line_worker.py"))


def start(path: Path, name: str, count: int, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, WORKER, str(path), name, str(count), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(worker: subprocess.Popen[str]) -> tuple[int, str]:
    written, _, error = worker.communicate(timeout=60)[0].strip().partition("|")
    return int(written), error


def whole(path: Path) -> list[str]:
    lines = path.read_text().splitlines(keepends=True)
    assert all(re.fullmatch(r"\w+ \d+ x* end\n", line) for line in lines)
    return lines


def test_processes_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    workers = [start(path, f"w{number}", 300) for number in range(3)]
    assert [result(worker) for worker in workers] == [(300, "")] * 3
    assert len(whole(path)) == 900


def test_a_line_that_does_not_fit_is_taken_back_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    workers = [start(path, f"w{number}", 300, 200_000) for number in range(3)]
    results = [result(worker) for worker in workers]
    lines = whole(path)
    assert len(lines) == sum(written for written, _ in results)
    assert all(str(path) in error and "not written: the file size limit" in error for _, error in results if error)
    assert any(error for _, error in results)


def test_a_short_write_goes_on_or_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LineFile(tmp_path / "lines")
    real = os.write

    def two_bytes_while_space_lasts(fd: int, data: bytes) -> int:
        if os.fstat(fd).st_size > 8:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, data[:2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", two_bytes_while_space_lasts)
        file.append(b"four")
        with pytest.raises(RecordError, match="line not written: the disk is full"):
            file.append(b"too long")
    file.append(b"three", durable=True)
    assert list(file.lines()) == [b"four", b"three"]
    file.close()
    file.close()


def test_a_line_waits_while_another_process_writes_one(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    code = (
        "import fcntl, os, sys, time; file = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND | os.O_CREAT);"
        "fcntl.lockf(file, fcntl.LOCK_EX); os.write(file, b'half of '); print('locked', flush=True);"
        "time.sleep(0.3); os.write(file, b'a line\\n')"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    file = LineFile(path)
    file.append(b"mine")
    assert list(file.lines()) == [b"half of a line", b"mine"]
    file.close()
    other.communicate()


def test_a_full_device_is_one_clear_line() -> None:
    file = LineFile(Path("/dev/full"))
    with pytest.raises(RecordError, match="/dev/full: line not written: the disk is full: free some space"):
        file.append(b"x")
    file.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.parent.rmdir(), "its folder does not exist"),
    ],
)
def test_a_path_that_can_not_be_opened_is_one_clear_line(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "inner" / "lines"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(RecordError, match=f"lines: can't be opened: {message}"):
        LineFile(path)


def test_an_exclusive_file_keeps_other_processes_out_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    code = "import sys, pathlib, governor.telemetry.lines as t; t.LineFile(pathlib.Path(sys.argv[1]), exclusive=True)"
    command = [sys.executable, "-c", code, str(path)]
    file = LineFile(path, exclusive=True)
    assert list(file.lines()) == []
    root = Path(__file__).parents[2]
    refused = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert refused.stderr.rstrip().endswith("another process is using it: let that finish first")
    file.close()
    subprocess.run(command, cwd=root, check=True)


def test_threads_share_one_file(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: file.append(f"w {number} {'x' * number} end".encode()), range(200)))
    assert len(whole(tmp_path / "lines")) == 200
    file.close()
