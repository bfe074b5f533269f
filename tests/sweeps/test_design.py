"""Designs and the words of a command line that make them."""

import re

import numpy as np
import pytest

from attnflow.commands import axes
from attnflow.sweeps import Between, product, random, zipped


def test_a_product_varies_the_last_field_fastest(toy):
    points = product("toy", beta=[1.0, 2.0], seed=range(2), n=5, ns=(3, 4))
    assert [(p.beta, p.seed) for p in points] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert {(p.n, p.ns) for p in points} == {(5, (3, 4))}


def test_tuples_in_a_list_are_values(toy):
    assert [p.ns for p in product("toy", ns=[(1,), (2, 3)])] == [(1,), (2, 3)]


def test_a_zip_goes_through_all_lists_at_once(toy):
    points = zipped("toy", beta=np.array([1.0, 2.0]), seed=[7, 8], n=4)
    assert [(p.beta, p.seed, p.n) for p in points] == [(1, 7, 4), (2, 8, 4)]
    assert all(type(p.beta) is float for p in points)


def test_random_draws_are_within_bounds_and_repeat(toy):
    draw = lambda seed: random(
        "toy", 500, sweep_seed=seed, beta=Between(0.1, 10, log=True), n=Between(2, 4), seed=[5, 9]
    )
    points = draw(1)
    assert points == draw(1) != draw(2)
    betas = np.array([p.beta for p in points])
    assert betas.min() >= 0.1 and betas.max() <= 10
    share = np.mean(betas < 1)  # half of a log axis: 4 standard errors of a share
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(500)
    assert {p.n for p in points} == {2, 3, 4} and {p.seed for p in points} == {5, 9}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: product("toy", bta=[1.0]), "Argument `bta` must be a field of toy.*mean beta"),
        (lambda: product("toi", beta=[1.0]), "Did you mean 'toy'"),
        (lambda: product("toy", seed=range(3, 3)), "at least one value.*range"),
        (lambda: product("toy", beta=[1.0, 2.0, 1.0]), "must not repeat a value, but 1.0"),
        (lambda: product("toy", beta=Between(0, 1)), "Only random designs draw"),
        (lambda: zipped("toy", beta=[1.0], seed=[1, 2]), "beta has 1, seed has 2"),
        (lambda: random("toy", 0, beta=[1.0]), "`count`"),
        (lambda: random("toy", 2, beta=Between(3, 1)), "must go up"),
        (lambda: random("toy", 2, beta=Between(0, 1, log=True)), "must be > 0 in log"),
    ],
)
def test_bad_designs_are_one_sentence(toy, untyped, make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("beta", "1 2.5 -3", [1.0, 2.5, -3.0]),
        ("beta", "4", 4.0),
        ("beta", "-1e-3", -1e-3),
        ("seed", "0:4", [0, 1, 2, 3]),
        ("seed", "0:5:2 9", [0, 2, 4, 9]),
        ("seed", "3:0:-1", [3, 2, 1]),
        ("beta", "1:3", [1.0, 2.0]),
        ("beta", "0..1/5", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("beta", "1..4/3/log", [1.0, 2.0, 4.0]),
        ("n", "1..4/9", [1, 2, 3, 4]),
        ("beta", "0.5..2", Between(0.5, 2.0)),
        ("n", "1..8/log", Between(1.0, 8.0, log=True)),
        ("ns", "1,2 3", [(1, 2), (3,)]),
        ("ns", "1,2", (1, 2)),
        ("mode", "0:4", "0:4"),
        ("mode", "a b", ["a", "b"]),
        ("dtype", "float64", "float64"),
    ],
)
def test_words_are_values_of_the_fields_type(toy, name, words, value):
    found = axes.read(toy.Config, name, words.split())
    assert found == value and repr(found)[0] == repr(value)[0]


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("seed", "4:4", "seed=4:4 is empty"),
        ("seed", "0:4:0", "step that is not 0"),
        ("seed", "", "none follows"),
        ("seed", "1.5", "`seed` must be int, but seed='1.5'"),
        ("beta", "many", "`beta` must be float, but beta='many'"),
        ("beta", "0..1/3/log", "must be > 0 in log"),
        ("beta", "0..1/0", "is empty"),
        ("dtype", "float16", "must be one of float64"),
    ],
)
def test_bad_words_are_one_sentence(toy, name, words, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        axes.read(toy.Config, name, words.split())
    assert "\n" not in str(error.value)


def test_fields_are_told_from_options(toy):
    words = ["--beta", "1", "-2", "--zip", "--t=3", "--seed=4", "5", "--out", "x"]
    assert axes.split(words, toy.Config) == (
        {"beta": ["1", "-2"], "seed": ["4", "5"]},
        ["--zip", "--t=3", "--out", "x"],
    )
    with pytest.raises(ValueError, match="twice"):
        axes.split(["--n", "1", "--n", "2"], toy.Config)


def test_no_option_has_the_name_of_a_field():
    from dataclasses import fields

    from attnflow.commands.sweep import Options
    from attnflow.experiments import EXPERIMENTS, load

    options = {field.name for field in fields(Options)}
    for name in EXPERIMENTS:
        assert not options & {field.name for field in fields(load(name).Config)}
