"""Where a result comes from: code, machine, versions, time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attnflow

_PACKAGE = Path(__file__).resolve().parents[1]
_DISTRIBUTIONS = ("jax", "numpy")


def gather_provenance(*, device: str, dtype: str, wall_time: float) -> dict[str, Any]:
    """Record of where a result comes from, as plain JSON values.

    Args:
        device: Where it was computed, for example "cpu" or "NVIDIA H100".
        dtype: Floating-point type of the computation, for example "float64".
        wall_time: Duration of the computation in seconds, >= 0.

    Returns:
        The arguments and `attnflow`, `python`, `jax`, `numpy` (versions, None where missing),
        `commit` and `dirty` (of attnflow's own checkout; None outside one; `dirty` means that
        files of the package differ from the commit), `created` (UTC, ISO 8601).
    """
    import platform
    from datetime import UTC, datetime

    commit, dirty = _checkout()
    return {
        "attnflow": attnflow.__version__,
        "commit": commit,
        "dirty": dirty,
        "device": str(device),
        "dtype": str(dtype),
        "wall_time": float(wall_time),
        "python": platform.python_version(),
        **{name: _version(name) for name in _DISTRIBUTIONS},
        "created": datetime.now(UTC).isoformat(),
    }


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _checkout() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the repository that tracks this package, if one does."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git("rev-parse", "--verify", "HEAD")
    return commit, None if commit is None else _git("status", "--porcelain", "--", ".") != ""


def _git(*arguments: str) -> str | None:
    import subprocess

    command = ["git", "-C", str(_PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
