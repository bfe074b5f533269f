"""`attnflow view`: one page to play with, of one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnflow.commands.parsing import parse

if TYPE_CHECKING:
    from attnflow.view import Color

PAGE = "view.html"


def main(argv: list[str]) -> int:
    """`attnflow view RUN`."""
    return parse(view, argv, "attnflow view")


def view(
    run: str,
    out: Path = Path("runs"),
    page: Path | None = None,
    force: bool = False,
    max_tokens: int = 20_000,
    max_frames: int = 200,
    color: Path | None = None,
) -> int:
    """Write one HTML page of a run, which opens from disk: tokens over time, clusters, energy, cosines, merges.

    Args:
        run: Name of a run, the start of a name, or a folder.
        out: Folder of all runs.
        page: File to write; view.html in the run's folder by default.
        force: Replace a page that is there.
        max_tokens: Tokens beyond which some are drawn at random.
        max_frames: Frames beyond which some are left out, evenly in log-time.
        color: Colours: .npy or .csv with a number or a word per token.
    """
    from attnflow import store
    from attnflow.view import check_page, html, thinned, write
    from attnflow.view.thinning import check_sizes

    check_sizes(max_tokens, max_frames)
    folder = store.find(out, run)
    path = folder / PAGE if page is None else page
    other = "" if page else ", --page PATH writes another"
    check_page(path, force=force, name="page", remedy=f"--force replaces it{other}.")
    scene = scene_of_run(folder)
    if color is not None:
        scene = replace(scene, colors=(column(color, scene.positions.shape[1]), *scene.colors))
    write(html(thinned(scene, max_tokens, max_frames)), path, force=force)
    print(f"page:   {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def scene_of_run(folder: Path) -> Any:
    """Scene of a stored run.

    Raises:
        ValueError: If it is of an experiment without a page, or kept no states.
    """
    from attnflow import store
    from attnflow.experiments import VIEWED, load

    name = store.read_config(folder)["experiment"]
    if name not in VIEWED:
        raise ValueError(
            f"Argument `run` must be a run of {', '.join(VIEWED)}, but {folder} is one of {name}. "
            "Its picture is figure.png."
        )
    scene = load(name).scene(store.load(folder))
    if scene is None:
        raise ValueError(
            f"Argument `run` must hold states, but {folder} kept none. Run it again with --force"
            + (" and --states." if name == "simulate" else ".")
        )
    return scene


def column(path: Path, n: int) -> Color:
    """Colour from a file of n numbers or words: .npy, or .csv of one column, with or without a heading."""
    from attnflow.view.states import color_of

    if path.suffix not in (".npy", ".csv"):
        raise ValueError(f"Argument `color` must be a .npy or .csv file, but color='{path}'.")
    try:
        values, name = _read_npy(path) if path.suffix == ".npy" else _read_csv(path, n)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"Argument `color` must be a readable {path.suffix} file of {n} values, but color='{path}': {error}."
        ) from None
    return color_of(values, n, name)


def _read_npy(path: Path) -> tuple[np.ndarray, str]:
    return np.load(path, allow_pickle=False), path.stem


def _read_csv(path: Path, n: int) -> tuple[np.ndarray, str]:
    """Column and its heading, the file's name if it has none; numbers if all are."""
    import csv

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if wide := [len(row) for row in rows if len(row) != 1]:
        raise ValueError(f"it has {wide[0]} columns, not 1")
    words, name = [row[0] for row in rows], path.stem
    if len(words) == n + 1:
        name, *words = words
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        return np.array(words), name
    whole = np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()
    return (numbers.astype(int) if whole else numbers), name
