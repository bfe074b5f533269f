import hashlib
import re
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnflow import store


@dataclass(frozen=True)
class Config:
    n: int = 32
    beta: float = 9.0
    kappa: float | None = None
    betas: tuple[float, ...] = (1.0, 4.0)
    flow: Literal["sa", "usa"] = "sa"
    causal: bool = False
    tokens: str = field(default="uniform", metadata={"file": True})


def hash_with(hint: Any, value: Any) -> str:
    config = make_dataclass("OneField", [("a", hint)], frozen=True)(value)
    return store.fingerprint("simulate", config)


def test_hash_is_sha256_of_canonical_json():
    text = (
        '{"config":{"beta":9.0,"betas":[1.0,4.0],"causal":false,"flow":"sa","kappa":null,'
        '"n":32,"tokens":"uniform"},"experiment":"simulate"}'
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert store.fingerprint("simulate", Config()) == digest
    assert store.folder_of("simulate", Config(), "out") == Path("out") / f"simulate-{digest[:8]}"


@given(order=st.permutations([("n", int, 3), ("beta", float, 2.5), ("flow", str, "sa")]))
def test_order_of_fields_does_not_count(order):
    make = make_dataclass("Config", [(name, hint) for name, hint, _ in order], frozen=True)
    config = make(**{name: value for name, _, value in order})
    reference = make_dataclass(
        "Other", [("n", int, 3), ("beta", float, 2.5), ("flow", str, "sa")], frozen=True
    )()
    assert store.fingerprint("x", config) == store.fingerprint("x", reference)


@pytest.mark.parametrize(
    ("hint", "one", "other"),
    [
        (float, 1, 1.0),
        (float, -0.0, 0.0),
        (float, 0, -0.0),
        (float, np.float64(2.5), 2.5),
        (float, np.float32(0.5), 0.5),
        (float, np.int64(3), 3.0),
        (int, np.int32(7), 7),
        ("float", 1, 1.0),
        (float | None, 1, 1.0),
        (int | float, 1, 1.0),
        (tuple[float, ...], (1, -0.0), (1.0, 0)),
        (tuple[int, float], (1, 1), (1, 1.0)),
        (tuple[tuple[float, ...], ...] | None, ((1,),), ((1.0,),)),
        (str | Path, Path("a/b"), "a/b"),
    ],
)
def test_equal_values_of_a_field_agree(hint, one, other):
    assert hash_with(hint, one) == hash_with(hint, other)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_floats_agree_only_when_equal(one, other):
    assert (hash_with(float, one) == hash_with(float, other)) == (one == other)


@pytest.mark.parametrize(
    ("hint", "one", "other"),
    [
        (int | bool, 1, True),
        (Any, 1, 1.0),
        (str | int, "1", 1),
        (float | str | None, float("inf"), float("-inf")),
        (str | None, None, "None"),
        (tuple[float, ...], (), (0.0,)),
        (float, 0.1, 0.1 + 2**-56),
        (str, "ß", "ss"),
    ],
)
def test_different_values_differ(hint, one, other):
    assert hash_with(hint, one) != hash_with(hint, other)


def test_names_count():
    assert store.fingerprint("simulate", Config()) != store.fingerprint("staircase", Config())
    one, other = (make_dataclass("C", [(name, int, 1)], frozen=True)() for name in "ab")
    assert store.fingerprint("simulate", one) != store.fingerprint("simulate", other)


def test_a_file_counts_by_its_bytes(tmp_path):
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    here.write_bytes(b"1,2")
    before = store.fingerprint("simulate", Config(tokens=str(here)))
    here.rename(there)
    assert store.fingerprint("simulate", Config(tokens=str(there))) == before
    there.write_bytes(b"1,3")
    assert store.fingerprint("simulate", Config(tokens=str(there))) != before
    assert store.fingerprint("simulate", Config(tokens=str(here))) != before


def test_a_name_that_is_no_file_counts_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sa").write_text("flow is no file field")
    before = store.fingerprint("simulate", Config())
    assert store.fingerprint("simulate", Config(tokens="digits")) != before
    (tmp_path / "sa").write_text("changed")
    assert store.fingerprint("simulate", Config()) == before


def test_canonical_is_plain_json():
    config = Config(kappa=float("inf"), betas=(1, 2))
    assert store.canonical(config) == {
        "n": 32, "beta": 9.0, "kappa": "inf", "betas": [1.0, 2.0], "flow": "sa",
        "causal": False, "tokens": "uniform",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (float, float("nan"), "`config.a` must be a number, but config.a=nan"),
        (tuple[float, ...], (1.0, float("nan")), "`config.a[1]` must be a number"),
        (Any, [1, 2], "is a list. Pass a tuple"),
        (tuple[int, ...], [1, 2], "must be tuple[int, ...], but config.a=[1, 2] is a list"),
        (Any, {"b": 1}, "is a dict"),
        (Any, {1}, "is a set. Pass a tuple"),
        (Any, np.zeros(2), "is a ndarray"),
        (Any, 1j, "is a complex"),
        (Any, object, "is a type"),
        (float, "9", "must be float, but config.a='9' is a str"),
        (int, 2.5, "must be int, but config.a=2.5 is a float"),
        (int, True, "is a bool"),
        (float, True, "is a bool"),
        (float, None, "is a NoneType"),
        (float, (1.0,), "is a tuple"),
        (tuple[int, int], (1, 2, 3), "is a tuple"),
        (float, 10**400, "beyond 1.8e308"),
    ],
)
def test_what_is_no_plain_value_is_refused(hint, value, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        hash_with(hint, value)


@pytest.mark.parametrize("config", [{"n": 3}, Config, make_dataclass("Melted", [("a", int, 1)])()])
def test_only_a_frozen_dataclass_is_a_config(config):
    with pytest.raises(ValueError, match="must be a frozen dataclass instance"):
        store.fingerprint("simulate", config)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "Simulate", ".x", "a b"])
def test_bad_experiment_names_are_refused(name):
    with pytest.raises(ValueError, match="Argument `experiment` must be lower-case"):
        store.folder_of(name, Config())
