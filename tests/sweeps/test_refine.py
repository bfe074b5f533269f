"""Refinement finds a transition that is known, and looks nowhere else."""

import json

import numpy as np
import pytest
from scipy.optimize import brentq

from attnflow.sweeps import draw, product, refine, sweep
from attnflow.theory import long_context

TINY = {
    "ns": (4,), "layer_count": 2, "resolution": 2, "random_n": 8, "densities": (1.0,),
    "random_gammas": (1.0,), "seeds": 2, "escape_ns": (4,), "escape_gammas": (2.5,), "layers": 1,
}  # fmt: skip


@pytest.fixture
def how(tmp_path):
    return {"out": tmp_path / "runs", "progress": False}


def test_the_collapse_of_a_layer_is_found_where_theory_has_it(how):
    """Real layers at gamma: their output cosine passes 0.8 where C_n does, near 1 / (1 - rho)."""
    n, rho, threshold = 256, 0.5, 0.8
    points = product("long-context", gamma_max=[1.0, 2.0, 3.0, 4.0], layer_ns=(n,), rho=rho, **TINY)
    outcome = "layer_cosine@branch=attention"
    data = refine(
        "long-context", points, "gamma_max", outcome, threshold=threshold, levels=4, **how
    )
    cosine = lambda g: long_context.output_cosine(rho, n=n, beta=long_context.logit_scale(g, n))
    root = brentq(lambda g: float(cosine(g)) - threshold, 0.5, 4)
    [[[low, high]]] = json.loads(data.attrs["transition"])
    assert low <= root <= high and high - low == 1 / 16
    assert data.sizes["gamma_max"] == 4 + 4 and abs(root - 1 / (1 - rho)) < 0.5
    np.testing.assert_allclose(
        data.layer_cosine.sel(branch="attention").isel(layer_gamma=-1, layer_n=0),
        cosine(data.gamma_max.values),
        atol=1e-10,
    )


def test_whole_numbers_end_at_neighbours(toy, how):
    points = product("toy", n=[1, 9], seed=range(3))
    data = refine("toy", points, "n", "total", threshold=5.0, levels=9, **how)
    cells = json.loads(data.attrs["transition"])
    assert cells and all(high - low == 1 for ((low, high),) in cells)
    totals = data.total.transpose("n", "seed").values
    for ((low, high),) in cells:
        sides = [totals[data.n.values.tolist().index(v)] >= 5 for v in (low, high)]
        assert (sides[0] != sides[1]).any()


def test_categories_need_no_threshold(toy, how):
    data = refine("toy", product("toy", beta=[0.0, 4]), "beta", "kind", levels=6, **how)
    [[[low, high]]] = json.loads(data.attrs["transition"])
    offset = np.random.default_rng(0).normal(size=3).mean()
    assert low <= 2 - offset <= high and high - low == 4 / 2**6
    assert data.sizes["beta"] == 2 + 6


def test_two_axes_are_refined_along_a_line(toy, how):
    """kind changes at beta = 2 - mean of normals: a line across the plane of (beta, slow)."""
    points = product("toy", beta=[0.0, 2.0, 4.0], slow=[0.0, 1e-6])
    data = refine("toy", points, ("beta", "slow"), "kind", levels=2, **how)
    offset = np.random.default_rng(0).normal(size=3).mean()
    cells = json.loads(data.attrs["transition"])
    assert len(cells) == 4 and all(low <= 2 - offset <= high for (low, high), _ in cells)
    # 6 points; one cell of two gives 5 more, then two of its four, side by side, give 9 more
    assert data.total.dims == ("task",) and data.sizes["task"] == 6 + 5 + 9
    assert draw(data, "total").axes[0].collections


def test_no_change_is_no_more_points(toy, how):
    points = product("toy", beta=[0.0, 1.0], seed=range(2))
    data = refine("toy", points, "beta", "total", threshold=1e6, **how)
    assert json.loads(data.attrs["transition"]) == [] and data.sizes["beta"] == 2
    assert sweep("toy", points, **how).total.identical(data.total)


def test_failures_are_on_no_side(toy, how, tmp_path):
    points = product("toy", beta=[1.0, 2.0, 3.0], mode="fails", folder=str(tmp_path))
    data = refine("toy", points, "beta", "kind", levels=1, **how)
    assert data.reason.values[-1] and json.loads(data.attrs["transition"]) == [[[1.5, 2.0]]]
    data = refine("toy", points, "beta", "total", threshold=0.0, levels=1, **how)
    assert json.loads(data.attrs["transition"]) == []
    points = product("toy", beta=[3.0, 4.0], mode="fails", folder=str(tmp_path))
    with pytest.raises(ValueError, match=r"All 2 runs failed.*no such number"):
        refine("toy", points, "beta", "kind", **how)


@pytest.mark.parametrize(
    ("axes", "outcome", "message"),
    [
        ("seed", "total", "over two values or more"),
        ("mode", "total", "fields of numbers"),
        (("beta", "beta"), "total", "one field or two"),
        ("bta", "total", "mean beta"),
        ("beta", "total", "`threshold`"),
        ("beta", "totl", "Did you mean 'total'"),
    ],
)
def test_what_cannot_be_refined_is_one_sentence(toy, how, untyped, axes, outcome, message):
    points = product("toy", beta=[0.0, 1.0], mode=["a", "b"])
    with pytest.raises(ValueError, match=message):
        refine("toy", points, axes, outcome, **how)


def test_levels_and_designs_are_checked(toy, how, untyped):
    points = product("toy", beta=[0.0, 1.0])
    with pytest.raises(ValueError, match="`levels`"):
        refine("toy", points, "beta", "kind", levels=0, **how)
    points = [toy.Config(beta=0.0, seed=0), toy.Config(beta=1.0, seed=1)]
    with pytest.raises(ValueError, match="product design"):
        refine("toy", points, "beta", "kind", **how)
