"""Checkpoints of a long run: bit-exact arrays, the last two kept, one process at a time."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnflow.store.files import acquire, owner, sync, told

if TYPE_CHECKING:
    import numpy

PARTIAL = ".partial"
_FORMAT = 1
_PART = "part-"
_KEPT = 2
_KINDS = "biufcU"
_PATIENCE = 1.0


@dataclass(frozen=True)
class Checkpoint:
    """Saved state of one unfinished run, held by this process; `claim` makes it."""

    folder: Path

    def save(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Keep the state after `step`: whole or not at all, in place of later and much older ones.

        Args:
            step: Progress, >= 0, in the caller's own unit.
            arrays: Name and value; booleans, integers, floats, complex numbers, strings of any
                shape. JAX arrays are fetched.

        Raises:
            ValueError: For a negative step or another dtype (a typed JAX key has
                `jax.random.key_data`).
            OSError: When it cannot be written, for example because the disk is full; the
                checkpoints before it remain.
        """
        self._write(self.folder / f"{step:012d}.npz", step, arrays)
        steps = checkpoint_files(self.folder)
        earlier = [other for other in steps if _step(other) < step]
        later = [other for other in steps if _step(other) > step]
        for other in earlier[: 1 - _KEPT] + later:
            other.unlink()

    def keep(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Keep a part of the result up to `step`, which checkpoints from then on need not repeat.

        Call it before `save` of the same step. Arguments and errors are those of `save`.
        """
        self._write(self.folder / f"{_PART}{step:012d}.npz", step, arrays)

    def kept(self) -> list[dict[str, "numpy.ndarray"]]:
        """Parts up to the latest whole checkpoint, in order of their steps.

        Raises:
            RuntimeError: If one is damaged.
        """
        found = self.load()
        last = -1 if found is None else found[0]
        try:
            parts = [_read(path) for path in sorted(self.folder.glob(f"{_PART}*.npz"))]
        except _DamagedError as damage:
            raise RuntimeError(
                f"A part of the run in {self.folder} is damaged ({damage}). Run it again without --resume."
            ) from None
        return [arrays for step, arrays in parts if step <= last]

    def _write(self, path: Path, step: int, arrays: Mapping[str, Any]) -> None:
        """Write one file, whole or not at all."""
        import numpy as np

        if step < 0:
            raise ValueError(f"Argument `step` must be >= 0, but step={step}.")
        members: dict[str, Any] = {
            f"array.{name}": _plain_array(name, value) for name, value in arrays.items()
        }
        members |= {"format": np.int64(_FORMAT), "step": np.int64(step)}
        members["sha256"] = np.frombuffer(_digest(members), dtype=np.uint8)
        temporary = self.folder / "unfinished"
        try:
            with temporary.open("wb") as file:
                np.savez(file, **members)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(self.folder)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise told(
                error,
                f"The checkpoint of step {step} could not be written to {self.folder}: "
                f"{error.strerror}. The one before it is intact; free some space and resume.",
            ) from error

    def load(self) -> tuple[int, dict[str, "numpy.ndarray"]] | None:
        """Latest whole checkpoint as (step, arrays), to the same bits; None where there is none.

        A damaged file is passed over, with a warning that names it.
        """
        for path in reversed(checkpoint_files(self.folder)):
            try:
                return _read(path)
            except _DamagedError as damage:
                warnings.warn(
                    f"Checkpoint {path} is damaged ({damage}); going on from the one before it, "
                    f"or from the start.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return None

    def drop(self) -> None:
        """Forget all checkpoints: the run will start from the beginning."""
        drop_checkpoints(self.folder)


@contextmanager
def claim(folder: Path | str) -> Iterator[Checkpoint]:
    """Hold a run for this process alone, and give access to its checkpoints.

    They live in <root>/.partial/<name>/, survive any death of the process, and vanish when the
    run is saved.

    Args:
        folder: Folder of the run, as `folder_of` names it.

    Raises:
        BlockingIOError: When another process computes the same run; the message has its number.
        OSError: When the root cannot be written.
    """
    folder = Path(folder)
    partial = folder.parent / PARTIAL / folder.name
    try:
        lock = _acquire(partial)
    except OSError as error:
        raise told(error, f"Cannot hold {partial} for a run: {error.strerror}.") from error
    if lock is None:
        raise BlockingIOError(
            f"Run {folder.name} is being computed by {owner(partial / 'lock')}. "
            f"Wait for it, or end it and try again."
        )
    try:
        yield Checkpoint(partial)
    finally:
        if not checkpoint_files(partial):
            remove_partial(partial)
        os.close(lock)


def checkpoint_files(partial: Path) -> list[Path]:
    """Checkpoints of a run by increasing step."""
    return sorted(partial.glob("[0-9]*.npz"), key=_step)


def drop_checkpoints(partial: Path) -> None:
    """Delete the checkpoints of a run, and its parts; the folder and its lock stay."""
    for path in [*checkpoint_files(partial), *partial.glob(f"{_PART}*.npz")]:
        path.unlink(missing_ok=True)


def remove_partial(partial: Path) -> None:
    """Delete what is left of an unfinished run, whose lock the caller holds; the lock goes last."""
    with suppress(OSError):
        for path in partial.iterdir():
            if path.name != "lock":
                path.unlink()
        (partial / "lock").unlink()
        partial.rmdir()
        partial.parent.rmdir()


def _step(path: Path) -> int:
    return int(path.stem)


class _DamagedError(Exception):
    """Why a checkpoint cannot be trusted."""


def _acquire(partial: Path) -> int | None:
    """Lock of a run. A cleaner may have it for a moment, so a refusal counts after a second."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(FileNotFoundError):
            partial.mkdir(parents=True, exist_ok=True)
            lock = acquire(partial / "lock")
            if lock is not None or time.monotonic() > deadline:
                return lock
            time.sleep(0.02)


def _plain_array(name: str, value: Any) -> "numpy.ndarray":
    import numpy as np

    try:
        array = np.asarray(value)
    except TypeError as error:
        raise ValueError(
            f"Argument `arrays` must hold NumPy arrays, but arrays[{name!r}] is a "
            f"{type(value).__name__}. For a typed JAX key pass `jax.random.key_data(key)`."
        ) from error
    if array.dtype.kind not in _KINDS:
        raise ValueError(
            f"Argument `arrays` must hold booleans, numbers or strings, "
            f"but arrays[{name!r}].dtype={array.dtype}."
        )
    return array


def _digest(members: Mapping[str, Any]) -> bytes:
    """SHA-256 of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(members):
        array = members[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _read(path: Path) -> tuple[int, dict[str, "numpy.ndarray"]]:
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise _DamagedError(str(error) or type(error).__name__) from error
    digest = members.pop("sha256", np.zeros(0)).tobytes()
    if digest != _digest(members):
        raise _DamagedError("its checksum does not fit")
    if members["format"] != _FORMAT:
        raise _DamagedError(f"it has format {members['format']}, this attnflow reads {_FORMAT}")
    arrays = {name[6:]: array for name, array in members.items() if name.startswith("array.")}
    return int(members["step"]), arrays
