"""Finished runs: does one exist, what does it hold, which ones are there."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnflow.store.files import digest_tree, told
from attnflow.store.identity import is_run_name

if TYPE_CHECKING:
    import xarray

FORMAT = 1
SAVING = ".saving-"
_PATIENCE = 3.0


@dataclass(frozen=True)
class RunInfo:
    """One line of a list of runs: `size` in bytes, `problem` why the run cannot be read."""

    folder: Path
    experiment: str
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    problem: str = ""

    @property
    def name(self) -> str:
        """Name of the folder, <experiment>-<hash>."""
        return self.folder.name


def exists(folder: Path | str) -> bool:
    """Whether a finished run is there.

    Raises:
        ValueError: When something is there that is no whole, readable run: damaged, written by a
            newer attnflow, or a foreign folder in the way.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        return False
    read_config(folder)
    _result_of(folder)
    return True


def read_config(folder: Path | str) -> dict[str, Any]:
    """Content of a run's config.json.

    Returns:
        `format`, `experiment`, `hash` (64 hex digits), `config` (canonical: tuples are lists,
        infinities "inf"), `inputs` (digests of input files), `result` (digest and bytes of
        result.zarr) and `provenance`.

    Raises:
        FileNotFoundError: When there is no such folder.
        ValueError: When it is no run, its config.json is corrupt, or a newer attnflow wrote it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"There is no run {folder}. `attnflow list` shows those there are.")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no run: it holds no config.json. Move it out of the way.")
    try:
        record = json.loads((folder / "config.json").read_bytes())
    except OSError as error:
        raise told(error, f"{folder}/config.json cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(_damaged(folder, f"config.json is no JSON ({error})")) from error
    version = record.get("format") if isinstance(record, dict) else None
    version = version if type(version) is int else 0
    if version > FORMAT:
        raise ValueError(
            f"Run {folder} was written by a newer attnflow (format {version}; this one reads "
            f"{FORMAT}). Upgrade: pip install --upgrade attnflow."
        )
    if version != FORMAT or not _is_complete(record):
        raise ValueError(_damaged(folder, "config.json lacks entries of a run"))
    return record


def load(folder: Path | str) -> "xarray.Dataset":
    """Result of a run, in memory, checked against the digest that was taken when it was saved.

    A run that another process replaces meanwhile is read again: the answer is one whole run.

    Raises:
        FileNotFoundError: When there is no such folder.
        ValueError: When it is no run, is damaged, or a newer attnflow wrote it.
    """
    folder = Path(folder)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        before = _identity(folder)
        try:
            dataset = _read_whole(folder, read_config(folder))
        except (OSError, ValueError):
            if _identity(folder) == before and not _is_being_replaced(folder):
                raise
        else:
            if _identity(folder) == before:
                return dataset
        time.sleep(0.01)
    raise OSError(
        f"Run {folder} is being replaced. Try again; a replacement that was killed is completed by "
        f"the next `attnflow run`."
    )


def list_runs(root: Path | str = "runs") -> list[RunInfo]:
    """Runs under `root`, oldest first; foreign folders and unfinished runs are left out.

    Reads one small JSON file per run. A damaged run, or one of a newer attnflow, is listed with
    its `problem`. A `root` that does not exist holds no runs.
    """
    infos = [_info(folder) for folder in _run_folders(Path(root))]
    return sorted(infos, key=lambda info: (str(info.provenance.get("created", "")), info.name))


def find(root: Path | str, name: str) -> Path:
    """Folder of the run that is meant by a name, the start of a name or of a hash, or a path.

    Raises:
        ValueError: When no run or several runs fit; the nearest names are in the message.
    """
    folders = {folder.name: folder for folder in _run_folders(Path(root))}
    if name in folders:
        return folders[name]
    if name and _holds_config(Path(name)):
        return Path(name)
    wanted = Path(name).name
    fits = [run for run in folders if wanted and run.startswith(wanted)]
    fits = fits or [run for run in folders if wanted and _hash(run).startswith(wanted)]
    if len(fits) == 1:
        return folders[fits[0]]
    if fits:
        raise ValueError(
            f"Argument `run` must name one run, but run={name!r} fits {len(fits)}: "
            f"{_some(sorted(fits))}. Give more letters."
        )
    raise ValueError(f"Argument `run` must name a run, but run={name!r}. {_near(wanted, folders)}")


def _read_whole(folder: Path, record: dict[str, Any]) -> "xarray.Dataset":
    from attnflow.store.dataset import read_dataset

    result = _result_of(folder)
    if digest_tree(result)[0] != record["result"]["sha256"]:
        raise ValueError(_damaged(folder, "result.zarr is not what was saved"))
    try:
        return read_dataset(result)
    except Exception as error:
        raise ValueError(_damaged(folder, f"result.zarr cannot be read ({error})")) from error


def _identity(folder: Path) -> tuple[int, bytes] | None:
    """What tells a folder from one that comes in its place."""
    try:
        return folder.stat().st_ino, (folder / "config.json").read_bytes()
    except OSError:
        return None


def _is_being_replaced(folder: Path) -> bool:
    return any(folder.parent.glob(f"{SAVING}*/old/{folder.name}"))


def _result_of(folder: Path) -> Path:
    result = folder / "result.zarr"
    if not (result / "zarr.json").is_file():
        raise ValueError(_damaged(folder, "it has no result.zarr"))
    return result


def _is_complete(record: dict[str, Any]) -> bool:
    kinds = {"experiment": str, "hash": str, "config": dict, "result": dict, "provenance": dict}
    whole = all(isinstance(record.get(key), kind) for key, kind in kinds.items())
    return whole and record["result"].keys() >= {"sha256", "bytes"}


def _damaged(folder: Path, reason: str) -> str:
    return f"Run {folder} is damaged: {reason}. Delete the folder and run it again."


def _run_folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if is_run_name(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise told(
            error,
            f"Argument `root` must be a readable folder, but root={str(root)!r}: {error.strerror}.",
        ) from error
    return [root / name for name in names if (root / name / "config.json").is_file()]


def _info(folder: Path) -> RunInfo:
    try:
        record = read_config(folder)
    except (OSError, ValueError) as error:
        return RunInfo(folder, folder.name.rpartition("-")[0], problem=str(error))
    size, experiment = record["result"]["bytes"], record["experiment"]
    return RunInfo(folder, experiment, record["config"], record["provenance"], size)


def _hash(name: str) -> str:
    return name.rpartition("-")[2]


def _holds_config(folder: Path) -> bool:
    """Whether there is such a folder, with a config.json; no name is too long to ask."""
    try:
        return (folder / "config.json").is_file()
    except OSError:
        return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _near(name: str, folders: dict[str, Path]) -> str:
    from difflib import get_close_matches

    if not folders:
        return "There are no runs yet. Start one: attnflow run simulate."
    near = get_close_matches(name, folders, n=3, cutoff=0.5)
    return f"Did you mean {_some(near)}?" if near else f"Known: {_some(sorted(folders))}."
