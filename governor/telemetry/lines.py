"""Files of whole lines: a line is written in one piece or not at all, by any number of processes."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from governor.errors import RecordError

if sys.platform != "win32":
    import fcntl

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file size limit is reached",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "its folder does not exist",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "its folder is a file",
}


class LineFile:
    """Appends whole lines to `path`. One `write` a line, under a file lock; what fits only in part is taken back.

    A torn last line (a power cut; a process dies whole or not at all within one write) is ended before the first
    line is added, so that this one stands alone; until then the file is left as it is. `exclusive` keeps other
    processes out for as long as the file is open. Raises RecordError.
    """

    def __init__(self, path: Path, *, exclusive: bool = False, mode: int = 0o666) -> None:
        self._path = path
        self._exclusive = exclusive
        self._lock = Lock()
        with self._explained("can't be opened"):
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
        self._mended = False
        try:
            if exclusive:
                self._claim()
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes, *, durable: bool = False) -> None:
        """Write `line` (without its end) whole, or raise RecordError and leave the file as it was.

        `durable` also waits until the disk has it; a written line survives the process's death without.
        """
        rest = line + b"\n"
        with self._lock, self._alone(), self._explained("line not written"):
            if not self._mended:
                self._end_torn_line()
                self._mended = True
            status = os.fstat(self._file)
            try:
                while rest:  # a second write only after a short one, and mostly to learn what is wrong
                    rest = rest[os.write(self._file, rest) :]
            except BaseException:
                if stat.S_ISREG(status.st_mode):
                    os.ftruncate(self._file, status.st_size)
                raise
            if durable:
                os.fsync(self._file)

    def lines(self) -> Iterator[bytes]:
        """Every line of the file, without its end."""
        # Through the same descriptor: closing another one of this file would drop this process's lock.
        os.lseek(self._file, 0, os.SEEK_SET)
        with os.fdopen(self._file, "rb", closefd=False) as reader:
            for line in reader:
                yield line.rstrip(b"\n")

    def close(self) -> None:
        """Let go of the file; closing twice does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _end_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def _claim(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                raise RecordError(f"{self._path}: another process is using it: let that finish first") from cause

    @contextmanager
    def _alone(self) -> Generator[None, None, None]:
        """Keeps other processes from appending, so that taking back a torn line can't take theirs."""
        if self._exclusive or sys.platform == "win32":
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    @contextmanager
    def _explained(self, what: str) -> Generator[None, None, None]:
        try:
            yield
        except OSError as cause:
            reason = _REASONS.get(cause.errno or 0) or cause.strerror or str(cause)
            raise RecordError(f"{self._path}: {what}: {reason}") from cause
