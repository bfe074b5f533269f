import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import attnflow as af
from attnflow.claims import gaussian as claims
from attnflow.theory.gaussian import (
    KINDS,
    attention_map,
    blow_up_time,
    closed_path,
    path,
    velocity,
)

MEAN, COVARIANCE = (
    np.array([0.4, -0.3, 0.2]),
    np.array([[0.5, 0.1, 0.0], [0.1, 0.3, -0.1], [0.0, -0.1, 0.4]]),
)
WEIGHTS = {
    "query": np.array([[1.0, 0.3, 0.1], [0.0, 0.8, -0.4]]),
    "key": np.array([[0.9, 0.0, 0.5], [-0.2, 1.1, 0.3]]),
    "value": np.array([[0.5, 0.4, 0.0], [-0.3, -0.6, 0.2], [0.1, 0.0, 0.7]]),
}
B = 0.7 * WEIGHTS["query"].T @ WEIGHTS["key"]


def test_softmax_is_the_printed_formula():
    v = WEIGHTS["value"]
    dm, spread = velocity(MEAN, COVARIANCE, beta=0.7, **WEIGHTS)
    np.testing.assert_allclose(dm, v @ (np.eye(3) + COVARIANCE @ B.T) @ MEAN, rtol=1e-13)
    half = v @ COVARIANCE @ B.T @ COVARIANCE
    np.testing.assert_allclose(spread, half + half.T, rtol=1e-13, atol=1e-16)


def test_l2_is_the_printed_formula():
    """A(x) = (S^-1 + beta)^-1 (S^-1 m + beta x) for Q = K = V = I, and the mean grows by itself."""
    offset, slope = attention_map(MEAN, COVARIANCE, kind="l2", beta=0.7)
    inverse = np.linalg.inv(COVARIANCE)
    c = np.linalg.inv(inverse + 0.7 * np.eye(3))
    np.testing.assert_allclose(offset, c @ inverse @ MEAN, rtol=1e-13)
    np.testing.assert_allclose(slope, 0.7 * c, rtol=1e-13, atol=1e-16)
    dm, spread = velocity(MEAN, COVARIANCE, kind="l2", beta=0.7)
    np.testing.assert_allclose(dm, MEAN, rtol=1e-13)
    np.testing.assert_allclose(
        spread, 0.7 * (c @ COVARIANCE + COVARIANCE @ c), rtol=1e-13, atol=1e-16
    )


def test_linear_and_l2_with_all_weights():
    """V (S + m m^T) B^T x; keys weigh by e^(-beta |Ky|^2/2), which adds beta K^T K to S^-1."""
    offset, slope = attention_map(MEAN, COVARIANCE, kind="linear", beta=0.7, **WEIGHTS)
    second = COVARIANCE + np.outer(MEAN, MEAN)
    np.testing.assert_allclose(slope, WEIGHTS["value"] @ second @ B.T, rtol=1e-13, atol=1e-16)
    np.testing.assert_array_equal(offset, 0)
    offset, slope = attention_map(MEAN, COVARIANCE, kind="l2", beta=0.7, **WEIGHTS)
    inverse = np.linalg.inv(COVARIANCE)
    tilted = inverse + 0.7 * WEIGHTS["key"].T @ WEIGHTS["key"]
    back = tilted @ np.linalg.inv(WEIGHTS["value"])
    np.testing.assert_allclose(back @ offset, inverse @ MEAN, rtol=1e-13)
    np.testing.assert_allclose(back @ slope, B.T, atol=1e-15)


def test_sinkhorn_couples_by_the_scores():
    """The inverse covariance of (x, y) has the block -B off its diagonal, and both marginals."""
    slope = attention_map(
        MEAN, COVARIANCE, kind="sinkhorn", beta=0.7, query=WEIGHTS["query"], key=WEIGHTS["key"]
    )[1]
    cross = (slope @ COVARIANCE).T
    joint = np.block([[COVARIANCE, cross], [cross.T, COVARIANCE]])
    np.testing.assert_allclose(np.linalg.inv(joint)[:3, 3:], -B, atol=1e-14)
    assert np.linalg.eigvalsh(joint)[0] > 0


def test_sinkhorn_slope(printed):
    """In one dimension, (c/s) with c = (-1 + sqrt(1 + 4 beta^2 s^2))/(2 beta).

    The sheet prints .402310287595; 25 digits say ...596955, so eleven digits are compared.
    """
    with mp.workdps(25):
        twice = 2 * mp.mpf("0.8") * mp.mpf("0.6")
        exact = float((mp.sqrt(1 + twice**2) - 1) / twice)
    slope = attention_map([0.0], [[0.6]], kind="sinkhorn", beta=0.8)[1][0, 0]
    assert slope == pytest.approx(exact, rel=1e-15)
    printed(slope, ".40231028760")


@pytest.mark.parametrize("kind", KINDS)
def test_linear_in_the_limit_of_small_scores(kind):
    """All kinds spread a centred Gaussian alike to first order: S' = V S B^T S + S B S V^T."""
    beta = 1e-6
    reference = velocity(0 * MEAN, COVARIANCE, beta=beta, **WEIGHTS)[1]
    spread = velocity(0 * MEAN, COVARIANCE, kind=kind, beta=beta, **WEIGHTS)[1]
    # the next order is beta S relative to this one
    np.testing.assert_allclose(spread, reference, atol=3 * beta * np.abs(reference).max())


@pytest.mark.parametrize("kind", KINDS)
def test_velocity_commutes_with_change_of_basis(kind):
    """x -> Rx with R orthogonal carries mean, covariance and weights along."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = {name: WEIGHTS[name] @ rotation.T for name in ("query", "key")}
    dm, spread = velocity(MEAN, COVARIANCE, kind=kind, beta=0.7, **WEIGHTS)
    turned_m, turned_spread = velocity(
        rotation @ MEAN, rotation @ COVARIANCE @ rotation.T, kind=kind, beta=0.7,
        value=rotation @ WEIGHTS["value"] @ rotation.T, **turned,
    )  # fmt: skip
    np.testing.assert_allclose(turned_m, rotation @ dm, atol=1e-15)
    np.testing.assert_allclose(turned_spread, rotation @ spread @ rotation.T, atol=1e-15)


@pytest.mark.parametrize("value", [1.0, -1.0, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_closed_paths_solve_the_equations(kind, value):
    ts = np.linspace(0.7, 1.9, 5)
    mean = 0 * MEAN if kind == "linear" else MEAN
    solved = path(ts, mean, COVARIANCE, kind=kind, beta=0.5, value=value)
    closed = closed_path(ts, mean, COVARIANCE, kind=kind, beta=0.5, value=value)
    for got, want in zip(solved, closed, strict=True):
        # ten steps at rtol 1e-12 or fewer, amplified by the growth of S
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_paths_far_out(kind):
    """Tiny and large variances, long times: the path composed of two halves is the path."""
    for size in (1e-8, 1.0, 1e4):
        for value, span in ((-1.0, 300.0), (1.0, 40.0)):
            end = blow_up_time([[size]], kind=kind, beta=2.0, value=value)
            ts = np.array([0.0, 0.5, 1.0]) * min(span, 0.5 * end)
            whole = closed_path(ts, [0.0], [[size]], kind=kind, beta=2.0, value=value)[1]
            half = closed_path(ts[:2], [0.0], whole[1], kind=kind, beta=2.0, value=value)[1]
            # rounding of exponents up to 2 * 300 and their square
            np.testing.assert_allclose(half[1], whole[2], rtol=1e-12)


def test_lines(printed):
    means, covariances = closed_path([0, 1.5], [1.0], [[0.5]], beta=0.4)
    printed([covariances[-1, 0, 0], means[-1, 0]], "1.25 7.0861726")
    means, covariances = closed_path([0, 2], [0.3], [[0.5]], beta=0.4, value=-1.0)
    printed([covariances[-1, 0, 0], means[-1, 0]], ".2777777778 .0302618893")


def test_repelled_gaussians_shrink_like_one_over_time():
    """S -> I/(2 beta t), whatever the start; under the other kinds exponentially or alike."""
    t = 1e6
    covariance = closed_path([0, t], MEAN, COVARIANCE, beta=0.5, value=-1.0)[1][-1]
    np.testing.assert_allclose(covariance * t, np.eye(3), atol=1e-5)  # 1/(2 beta s t)


def test_time_of_blow_up():
    end = blow_up_time([[0.5]], beta=0.4)
    assert end == pytest.approx(2.5, rel=1e-15)
    assert blow_up_time([[0.5]], beta=0.4, value=-1.0) == np.inf
    assert blow_up_time([[0.5]], beta=0.4, kind="l2") == np.inf
    assert blow_up_time([[0.5]], beta=0.0) == np.inf
    share = 1e-6
    for find in (path, closed_path):
        spread = find([1.0, 1.0 + end * (1 - share)], [0.3], [[0.5]], beta=0.4)[1]
        assert spread[-1, 0, 0] == pytest.approx(0.5 / share, rel=1e-5)  # 1e-11 over the share
        with pytest.raises(
            ValueError, match=r"must end before the Gaussian blows up at t=3\.5, but"
        ):
            find([1.0, 2.0, 3.5], [0.3], [[0.5]], beta=0.4)
    with pytest.raises(ValueError, match=r"before the Gaussian blows up at t=2\.5"):
        path([0, 1, 40], [0.0], [[0.5]], beta=0.4, kind="linear")
    assert np.isfinite(path([0, 40], [0.0], [[0.5]], beta=0.4, kind="l2")[1]).all()


def test_weighted_tokens_are_the_model_of_sinkhorn():
    """With equal weights the flow of the claims is that of `SinkhornAttention`."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(40, 2)))
    attention = af.SinkhornAttention(0.3, *map(jnp.asarray, claims.WEIGHTS.values()))
    weights = jnp.full(40, 1 / 40)
    seen = claims._sinkhorn(weights, 0.3, *map(jnp.asarray, claims.WEIGHTS.values()), 0.0, x)
    np.testing.assert_allclose(seen, attention(x), atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: velocity([0, 0], [[1, 0.5], [0.4, 1]], beta=1.0), "`covariance` must be symmetric"),
        (lambda: velocity([0, 0], [[1, 2], [2, 1]], beta=1.0), "be positive definite"),
        (lambda: velocity([0, 0], [[1, 1], [1, 1]], beta=1.0), "be positive definite"),
        (lambda: velocity([0, 0], [1, 1], beta=1.0), r"`covariance` must have shape \(2, 2\)"),
        (lambda: velocity([0, 0], [[np.nan]], beta=1.0), "`covariance` must be finite"),
        (lambda: velocity([0, 0, 0], np.eye(2), beta=1.0), r"`mean` must have shape \(2,\)"),
        (lambda: velocity([0, 0], np.eye(2), beta=-1.0), "`beta` must be"),
        (lambda: velocity([0, 0], np.eye(2), beta=1.0, kind="l1"), "Did you mean 'l2'"),
        (lambda: velocity([0, 0], np.eye(2), beta=1.0, value=np.eye(3)), "`value` must have shape"),
        (lambda: velocity([0, 0], np.eye(2), beta=1.0, query=[[1, 0]]), "`query` must have shape"),
        (lambda: velocity([0, 0], np.eye(2), beta=np.ones(1)), "`beta` must have shape"),
        (lambda: attention_map([0], [[0]], beta=1.0), "be positive definite"),
        (lambda: path([0, 0], [0], [[1]], beta=1.0), "`ts` must increase strictly"),
        (lambda: closed_path([0, 1], [0], [[1]], beta=0.0), "`beta` must be finite and > 0"),
        (lambda: closed_path([0, 1], [1], [[1]], beta=0.1, kind="linear"), "Use `path`"),
        (lambda: closed_path([0, 1], [1], [[1]], beta=0.1, value=np.eye(1)), "`value` must have"),
        (lambda: blow_up_time([[1]], beta=0.1, kind="soft"), "`kind` must be one of"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
