"""Writing a run: under a hidden name first, then by one rename, so that it is whole or absent."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attnflow.store import checkpoints
from attnflow.store.files import acquire, digest_tree, sync, sync_tree, told
from attnflow.store.identity import canonical, hash_of, input_digests
from attnflow.store.runs import FORMAT, SAVING, read_config

if TYPE_CHECKING:
    import xarray

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_RESERVED = ("config.json", "result.zarr")

Figures = Mapping[str, bytes] | Callable[[Path], object]


def check_writable(root: Path | str = "runs") -> None:
    """Make `root` ready, before any work: create it, prove it writable, clear what died in it.

    Raises:
        OSError: When it is no folder or cannot be written.
    """
    root = Path(root)
    try:
        with _workshop(root) as workshop:
            (workshop / "probe").write_bytes(b"probe")
    except OSError as error:
        raise told(
            error,
            f"Argument `root` must be a writable folder, but root={str(root)!r}: {error.strerror}. "
            f"Name another one.",
        ) from error
    clean_leftovers(root)


def save(
    folder: Path | str,
    experiment: str,
    config: Any,
    dataset: "xarray.Dataset",
    *,
    provenance: Mapping[str, Any],
    figures: Figures = MappingProxyType({}),
    force: bool = False,
) -> Path:
    """Write a finished run and forget its checkpoints.

    All of it is written and flushed to the disk under a hidden name in the same root; one rename
    makes it visible. Killed at any moment, it leaves no run or a whole one. When another process
    has saved this run meanwhile, ours is dropped, unless `force`: then the old run is moved
    aside, ours takes its name, and the old one is deleted; a crash between the two moves is
    completed by the next `clean_leftovers` or `check_writable`.

    Args:
        folder: Folder of the run, from `folder_of(experiment, config, root)`.
        experiment: Name of the experiment.
        config: Frozen dataclass, see `canonical`.
        dataset: Result: numbers, booleans and strings.
        provenance: JSON values, from `gather_provenance`.
        figures: File names and contents, or a function that writes files into a folder it is given.
        force: Replace a run that is there.

    Returns:
        `folder`, where a whole run now is.

    Raises:
        ValueError: When the dataset or provenance is no plain data, a figure's name is no file
            name, or an input file has changed since `folder` was named.
        FileExistsError: When something that is not this run is in the way.
        OSError: When it cannot be written, for example because the disk is full; nothing is left.
    """
    from attnflow.store.dataset import storable, write_dataset

    folder = Path(folder)
    record = _record(folder, experiment, config, provenance)
    plain = storable(dataset)
    if not callable(figures):
        _check_figures(figures)
    try:
        with _workshop(folder.parent) as workshop:
            new = workshop / "new" / folder.name
            new.mkdir(parents=True)
            write_dataset(plain, new / "result.zarr")
            if callable(figures):
                figures(new)
            else:
                for name, content in figures.items():
                    (new / name).write_bytes(content)
            digest, size = digest_tree(new / "result.zarr")
            record["result"] = {"sha256": digest, "bytes": size}
            (new / "config.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
            sync_tree(new)
            _publish(new, folder, record["hash"], force=force)
    except FileExistsError:
        raise
    except OSError as error:
        raise told(
            error,
            f"Run {folder.name} could not be written to {folder.parent}: "
            f"{error.strerror or error}. Nothing of it is left there.",
        ) from error
    checkpoints.drop_checkpoints(folder.parent / checkpoints.PARTIAL / folder.name)
    return folder


def clean_leftovers(root: Path | str = "runs") -> list[Path]:
    """Clear what dead processes left under `root`; what a live one is writing stays.

    A replacement that was cut between its two renames is completed. Checkpoints stay, unless
    their run has been saved since.

    Returns:
        Hidden folders that were removed.
    """
    root = Path(root)
    leftovers = [*root.glob(f"{SAVING}*"), *root.glob(f"{checkpoints.PARTIAL}/*")]
    return [leftover for leftover in leftovers if _clear(leftover)]


def _record(
    folder: Path, experiment: str, config: Any, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Content of config.json, but for the result's digest."""
    plain, inputs = canonical(config), input_digests(config)
    digest = hash_of(experiment, plain, inputs)
    prefix, _, named = folder.name.rpartition("-")
    if prefix != experiment or not named or not digest.startswith(named):
        files = ", ".join(f"`{name}`" for name in inputs)
        remedy = f"If the file of {files} changed while it was used, run again." if files else ""
        raise ValueError(
            f"Argument `folder` must be folder_of(experiment, config), but folder={folder.name!r} "
            f"and the config gives {experiment}-{digest[:8]}. {remedy}".rstrip()
        )
    try:
        provenance = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Argument `provenance` must hold JSON values, but: {error}. Use `gather_provenance`."
        ) from error
    return {
        "format": FORMAT,
        "experiment": experiment,
        "hash": digest,
        "config": plain,
        "inputs": inputs,
        "provenance": provenance,
    }


def _check_figures(figures: Mapping[str, bytes]) -> None:
    for name in figures:
        if not name or Path(name).name != name or name.startswith(".") or name in _RESERVED:
            raise ValueError(
                f"Argument `figures` must have file names as keys, but one is {name!r}. "
                f'Write for example "figure.pdf".'
            )


@contextmanager
def _workshop(root: Path) -> Iterator[Path]:
    """Hidden folder of this process under `root`, locked while in use and cleared in the end."""
    while True:
        workshop = root / f"{SAVING}{_token()}"
        workshop.mkdir(parents=True)
        with suppress(FileNotFoundError):
            lock = acquire(workshop / "lock")
            if lock is not None:
                break
    try:
        yield workshop
    finally:
        _settle(workshop)
        os.close(lock)


def _publish(new: Path, folder: Path, digest: str, *, force: bool) -> None:
    """Give the whole run `new` its final name; an existing one of the same hash wins or yields."""
    old = new.parents[1] / "old" / folder.name
    while not _rename(new, folder):
        if not force:
            _check_same(folder, digest)
            return
        _check_replaceable(folder)
        old.parent.mkdir(exist_ok=True)
        _remove(old)
        with suppress(FileNotFoundError):
            folder.rename(old)
    sync(folder.parent)


def _rename(source: Path, target: Path) -> bool:
    """Rename a folder, unless something has the name already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _OCCUPIED:
            return False
        raise
    return True


def _check_same(folder: Path, digest: str) -> None:
    """Raise `FileExistsError` unless the folder holds a run with this hash."""
    try:
        found = read_config(folder)["hash"]
    except (OSError, ValueError) as error:
        raise FileExistsError(f"The result could not be stored: {error}") from error
    if found != digest:
        raise FileExistsError(
            f"The result could not be stored: {folder} holds another config with the same name. "
            f"Name the folder by `folder_of` and run again."
        )


def _check_replaceable(folder: Path) -> None:
    """Raise `FileExistsError` for something that is no run: `force` deletes runs only."""
    if os.path.lexists(folder) and not (folder / "config.json").is_file():
        raise FileExistsError(
            f"The result could not be stored: {folder} is in the way and is no run. "
            f"Move it elsewhere."
        )


def _clear(leftover: Path) -> bool:
    """Remove one leftover whose process is dead; say whether it is gone."""
    try:
        lock = acquire(leftover / "lock")
    except OSError:
        return False
    if lock is None:
        return False
    try:
        if leftover.name.startswith(SAVING):
            _settle(leftover)
        elif _is_stale(leftover):
            checkpoints.remove_partial(leftover)
    finally:
        os.close(lock)
    return not leftover.exists()


def _settle(workshop: Path) -> None:
    """Finish a replacement that was cut in two, then remove the workshop.

    Both a new and an old run in it mean: the new one is whole, and the name was set free for it.
    When the name cannot be given back, everything stays for the next attempt. The lock goes last:
    until then nobody else touches the folder.
    """
    import shutil

    for old in workshop.glob("old/*"):
        new, folder = workshop / "new" / old.name, workshop.parent / old.name
        if new.exists() and not os.path.lexists(folder) and not _restore(folder, new, old):
            return
    _remove(workshop / "old")
    _remove(workshop / "new")
    shutil.rmtree(workshop, ignore_errors=True)


def _restore(folder: Path, *copies: Path) -> bool:
    """Give the first copy that can be moved the free name `folder`; say whether it is taken now."""
    for copy in copies:
        with suppress(OSError):
            _rename(copy, folder)
            return True
    return False


def _is_stale(partial: Path) -> bool:
    """Whether an unfinished run holds nothing that a later run can use."""
    files = checkpoints.checkpoint_files(partial)
    if not files:
        return True
    saved = partial.parents[1] / partial.name / "config.json"
    with suppress(OSError):
        return saved.stat().st_mtime_ns >= files[-1].stat().st_mtime_ns
    return False


def _remove(folder: Path) -> None:
    """Delete a folder; after a failed write Zarr's threads may go on writing into it for a moment."""
    import shutil

    for pause in (0.0, 0.02, 0.1, 0.5):
        time.sleep(pause)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _token() -> str:
    return f"{os.getpid()}-{time.time_ns():x}"
