"""The store: names of runs, configs and their hashes."""

from __future__ import annotations

import json
import tempfile
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from attnflow import store
from attnflow.errors import check_choice
from fuzz.values import Target, choice, odd

NAMES = st.one_of(
    st.text(max_size=12),
    choice(
        "../x",
        "/etc",
        "a/b",
        "simulate-",
        "simulate-0123abcd",
        ".",
        "..",
        "~",
        "a\nb",
        "ü",
        "a" * 300,
    ),
)
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                choice("format", "experiment", "hash", "config", "result", "provenance"),
                inner,
                max_size=6,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    choice(b'{"format": 99}', b'{"format": 1}', b"[" * 100_000, b'{"format": 1e400}'),
)


def fingerprint(experiment: Any, value: Any) -> None:
    config = make_dataclass("Config", [("field", Any)], frozen=True)(value)
    first = store.fingerprint(experiment, config)
    assert len(first) == 64 and first == store.fingerprint(experiment, config)
    folder = store.folder_of(experiment, config, "runs")
    assert folder.parent == Path("runs") and folder.name.startswith(f"{experiment}-")
    assert json.loads(json.dumps(store.canonical(config), allow_nan=False)) == store.canonical(
        config
    )


def find(name: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        store.find(root, name)
    raise AssertionError("found a run where there is none")


def damaged(content: bytes) -> None:
    """A run folder with anything in its config.json is listed, with its problem, and cannot be loaded."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "simulate-0123abcd"
        folder.mkdir()
        (folder / "config.json").write_bytes(content)
        (run,) = store.list_runs(root)
        try:
            store.read_config(folder)
        except ValueError:
            assert run.problem and "\n" not in run.problem, run.problem
        try:
            store.load(folder)
        except ValueError as error:
            text = str(error).replace(root, "")
            assert "\n" not in text and text.endswith("."), text
        else:
            raise AssertionError("loaded a run that is none")


def choose(value: Any) -> None:
    check_choice(value, "value", ("one", "two"))


TARGETS = {
    "store.fingerprint": Target(
        fingerprint,
        {"experiment": choice("simulate", "a_b-c", "x1"), "value": odd},
        bad={"experiment": NAMES, "value": None},
    ),
    "store.find": Target(find, {"name": NAMES}, 0.7, {"name": None}),
    "store, damaged runs": Target(damaged, {"content": CONTENTS}, 1.5, {"content": None}),
    "errors.check_choice": Target(choose, {"value": choice("one", "two")}, 0.3),
}
