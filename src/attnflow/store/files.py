"""Files that survive a crash: durable writes, locks that die with their process, a folder's digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def told(error: OSError, sentence: str) -> OSError:
    """Error of the same kind and number whose text is one sentence."""
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    retold = kind(sentence)
    retold.errno = error.errno
    return retold


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Wait until everything below a folder is on the disk, the folder itself last."""
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(path, name))
        sync(Path(path))


def digest_tree(folder: Path) -> tuple[str, int]:
    """SHA-256 of the names, sizes and bytes of all files below a folder, and their size in bytes.

    Files count in the order of their relative names, so a missing, added, shortened or changed
    file changes the digest. O(bytes) time, one block of memory.
    """
    digest, total = hashlib.sha256(), 0
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(files):
        if files[name].is_file():
            size = files[name].stat().st_size
            digest.update(f"{name}\0{size}\0".encode())
            with files[name].open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            total += size
    return digest.hexdigest(), total


def acquire(path: Path) -> int | None:
    """Descriptor that holds the lock on a file until it is closed; None when someone else has it.

    The kernel drops the lock when its process ends, however it ends. The file is created where
    it is missing, and holds the number of the process that took the lock.

    Raises:
        FileNotFoundError: When the folder is gone.
    """
    import fcntl

    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                os.truncate(fd, 0)
                os.write(fd, str(os.getpid()).encode())
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def owner(path: Path) -> str:
    """Words for the process that holds a lock: "process 4711", or "another process"."""
    try:
        pid = path.read_text()
    except OSError:
        pid = ""
    return f"process {pid}" if pid.isdecimal() else "another process"


def _is_at(fd: int, path: Path) -> bool:
    """Whether the locked file still has its name: a cleaner may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
