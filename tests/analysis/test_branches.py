"""Stationary densities and their branches: equations, folds, stability and loops, by other means."""

import mpmath as mp
import numpy as np
import pytest

from attnflow.analysis.branches import branch, hysteresis, threshold, transition
from attnflow.analysis.gibbs import gibbs, kernel, needed_degree
from attnflow.meanfield.gegenbauer import basis, nodes

CASES = [("usa", 2, 4.0, 0.5), ("usa", 3, 4.0, 0.8), ("usa", 8, 2.0, 7.0), ("sa", 2, 9.0, 11.0),
         ("sa", 3, 4.0, 7.0), ("sa", 8, 1.0, 12.0), ("sa", 2, 0.0, 3.0), ("usa", 20, 0.0, 30.0)]  # fmt: skip


@pytest.mark.parametrize(("model", "d", "beta", "kappa"), CASES)
def test_density_solves_its_equation(model, d, beta, kappa):
    """The logarithm of the density is the potential of its own kernel mean, by direct summation."""
    state = gibbs(beta, kappa, d, model)
    t, weights = nodes(d, len(state.t))
    np.testing.assert_allclose(state.t, t)
    q, side = weights * state.density, np.sqrt(1 - t**2)
    turns, shares = ([-1, 1], [0.5, 0.5]) if d == 2 else nodes(d - 1, 40)
    pairs = [np.outer(t, t) + turn * np.outer(side, side) for turn in turns]
    if beta == 0:
        potential = kappa * t * (q @ t)
    else:
        smooth = (
            sum(share * np.exp(beta * pair) for share, pair in zip(shares, pairs, strict=True)) @ q
        )
        potential = kappa / beta * (smooth if model == "usa" else np.log(smooth))
    log_f = np.log(state.density) - potential
    # rounding of e^4 kappa/beta and of log K*mu where mu is 1e-10 of its height
    np.testing.assert_allclose(log_f, log_f.mean(), atol=1e-9)
    assert q.sum() == pytest.approx(1, abs=1e-13)
    assert pytest.approx(q @ t, abs=1e-13) == state.R
    assert state.R > 0.1
    modes = basis(t, len(state.modes) - 1, d).T @ q
    np.testing.assert_allclose(state.modes, modes, atol=1e-10 * np.abs(modes).max())


def test_kernel_is_the_bessel_series():
    for d, beta in ((2, 9.0), (3, 0.5), (8, 40.0), (200, 3.0)):
        mean, rates = kernel(beta, 6, d)
        with mp.workdps(30):
            nu, b = mp.mpf(d) / 2 - 1, mp.mpf(beta)
            a0 = mp.gamma(nu + 1) * (2 / b) ** nu * mp.besseli(nu, b)
            exact = [float(mp.besseli(nu + k, b) / mp.besseli(nu, b) / b) for k in range(1, 7)]
            share = float(a0 * mp.exp(-b))
        np.testing.assert_allclose(rates, exact, rtol=1e-13)
        assert mean == pytest.approx(share, rel=1e-13)


@pytest.mark.parametrize(("model", "d", "beta", "kappa"), CASES)
def test_growth_is_that_of_the_continuity_equation(model, d, beta, kappa):
    """Largest growth rate of the mean-field flow itself, differentiated by JAX at the density."""
    import jax

    from attnflow.meanfield import MeanField, Zonal

    degree = max(60, needed_degree(beta, kappa, d, model))
    state = gibbs(beta, kappa, d, model, degree=degree)
    flow = MeanField(Zonal(d, degree), beta, model, kappa=kappa)
    jacobian = np.asarray(jax.jacfwd(lambda c: flow(0.0, c))(jax.numpy.asarray(state.modes)))[
        1:, 1:
    ]
    rates = np.linalg.eigvals(jacobian).real
    # the plain Galerkin matrix is not normal: condition of its eigenvectors up to e^(potential/2)
    scale = np.exp(np.ptp(np.log(state.density)) / 2) * 1e-14 * np.abs(jacobian).max()
    assert state.growth == pytest.approx(rates.max(), abs=scale)
    assert state.unstable == 0


def test_uniform_density_grows_as_its_harmonics():
    """Rates l(l+d-2)(rate - 1/kappa), one of them positive between the thresholds of 1 and 2."""
    for model, d in (("usa", 3), ("sa", 2)):
        one, two = (threshold(4.0, d, model, mode) for mode in (1, 2))
        kappa = (one + two) / 2
        state = gibbs(4.0, kappa, d, model, start="uniform")
        assert state.R < 1e-15
        assert state.unstable == 1
        assert state.growth == pytest.approx((d - 1) * (1 / one - 1 / kappa), rel=1e-10)
        assert gibbs(4.0, two * 1.01, d, model, start="uniform").unstable == 2
        assert gibbs(4.0, one * 0.99, d, model, start="uniform").unstable == 0


@pytest.mark.parametrize("start", ["threshold", "ordered"])
def test_continuation_passes_the_fold(start):
    """beta = 4 on the circle: back from kappa_c to the fold, around it, and on; or the same way back."""
    curve = branch(4.0, (0.3, 0.6), 2, "usa", start=start)
    along = slice(None, None, -1 if start == "ordered" else 1)
    kappa, order, fold, unstable = (
        a[along] for a in (curve.kappa, curve.R, curve.fold, curve.unstable)
    )
    at = int(fold.argmax())
    assert fold.sum() == 1
    assert kappa[at] == pytest.approx(0.38706899595, abs=1e-10)
    assert order[at] == pytest.approx(0.547127950, abs=1e-8)
    assert kappa[0] == pytest.approx(threshold(4.0, 2, "usa"), rel=1e-12)
    assert kappa[-1] == pytest.approx(0.6, rel=1e-12)
    assert order[0] < 1e-12
    assert np.all(np.diff(order) > 0)
    assert np.all(np.diff(kappa[: at + 1]) < 0)
    assert np.all(np.diff(kappa[at:]) > 0)
    assert np.all(unstable[1:at] == 1)
    assert np.all(unstable[at + 1 :] == 0)
    np.testing.assert_allclose(curve.beta, 4.0)


def test_fold_is_where_a_rate_vanishes():
    curve = branch(4.0, (0.3, 0.9), 3, "usa")
    assert abs(curve.growth[curve.fold][0]) < 1e-8 * np.abs(curve.growth).max()


@pytest.mark.parametrize(("d", "beta"), [(2, 4.0), (3, 3.0)])
def test_free_energy_falls_by_the_entropy_along_a_branch(d, beta):
    r"""dF/dkappa = -entropy/kappa^2: F is stationary in the density, so only kappa counts."""
    curve = branch(beta, (0.3, 2.0), d, "usa")
    share = nodes(d, len(curve.t))[1]
    f = curve.density
    entropy = (f * np.log(f)) @ share
    # trapezoidal rule in s = 1/kappa, dF = entropy ds, on steps of 0.05: relative error 1e-3
    gain = np.cumsum((entropy[1:] + entropy[:-1]) / 2 * np.diff(1 / curve.kappa))
    np.testing.assert_allclose(curve.free_energy[1:], gain, atol=2e-3 * np.abs(gain).max())


def test_softmax_orders_continuously():
    for d, beta in ((2, 9.0), (3, 4.0), (8, 2.0)):
        kappa_c = threshold(beta, d)
        curve = branch(beta, (0.5 * kappa_c, 1.5 * kappa_c), d)
        assert not curve.fold.any()
        assert np.all(curve.unstable == 0)
        assert np.all(np.diff(curve.kappa) > -1e-12 * kappa_c)
        assert curve.kappa[0] == pytest.approx(kappa_c, rel=1e-12)


def test_branches_in_beta_and_in_kappa_agree():
    """At kappa = 0.5 the branch of (USA) in beta folds; there the one in kappa folds too."""
    curve = branch((2.5, 5.0), 0.5, 2, "usa")
    (beta,) = curve.beta[curve.fold]
    across = branch(float(beta), (0.3, 0.7), 2, "usa")
    assert across.kappa[across.fold][0] == pytest.approx(0.5, abs=1e-9)
    assert curve.R[curve.fold][0] == pytest.approx(across.R[across.fold][0], abs=1e-6)
    assert threshold(float(curve.beta[0]), 2, "usa") == pytest.approx(0.5, rel=1e-10)
    back = branch((0.0, 4.0), 4.0, 2, start="ordered")  # softmax: order is strongest at beta = 0
    assert back.R[0] == pytest.approx(gibbs(0.0, 4.0, 2).R, abs=1e-10)
    assert threshold(float(back.beta[-1]), 2) == pytest.approx(4.0, rel=1e-10)


def test_branch_of_the_second_mode():
    """Two caps: even, so R = 0 all along, and unstable to one cap winning."""
    curve = branch(4.0, (0.3, 0.9), 2, "usa", mode=2)
    assert curve.kappa[0] == pytest.approx(threshold(4.0, 2, "usa", 2), rel=1e-12)
    assert curve.R.max() < 1e-12
    assert curve.modes[-1, 2] > 0.5
    assert np.all(curve.unstable >= 1)


def test_hysteresis_loop():
    """Every density from the one before: up the uniform one to kappa_c, down the ordered one to the fold."""
    found = transition(4.0, 2)
    kappas = np.linspace(0.38, 0.42, 9)
    up, down = hysteresis(4.0, kappas, 2, "usa")
    assert np.all(up[kappas < found.kappa_c] == 0)
    assert np.all(down[kappas < found.kappa_sn] == 0)
    upper = kappas > found.kappa_c
    np.testing.assert_allclose(up[upper], down[upper], atol=1e-12)
    curve = branch(4.0, (0.3, 0.5), 2, "usa")
    stable = slice(int(curve.fold.argmax()), None)
    inside = kappas > found.kappa_sn
    # linear interpolation between points 0.05 apart, near a square root
    expected = np.interp(kappas[inside], curve.kappa[stable], curve.R[stable])
    np.testing.assert_allclose(down[inside], expected, atol=0.01)
    assert not np.array_equal(up, down)


def test_transition_of_many_dimensions():
    found = transition(3.0, 8)
    assert 0 < found.kappa_sn < found.kappa_t < found.kappa_c
    state = gibbs(3.0, found.kappa_t, 8, "usa")
    assert abs(state.free_energy) < 1e-9
    assert pytest.approx(found.jump, rel=1e-9) == state.R
    assert gibbs(3.0, found.kappa_sn * (1 - 1e-4), 8, "usa").R < 1e-12


def test_start_of_ones_own():
    """Newton's method finds the unstable density between the two stable ones."""
    curve = branch(4.0, (0.3, 0.5), 2, "usa")
    at = int(curve.fold.argmax()) // 2
    state = gibbs(4.0, float(curve.kappa[at]), 2, "usa", start=curve.modes[at] * 1.0)
    assert pytest.approx(curve.R[at], abs=1e-10) == state.R
    assert state.unstable == 1


def test_precision_is_that_of_numpy():
    """Also where JAX is in single precision."""
    import jax

    with jax.enable_x64(False):
        assert pytest.approx(0.759607097894678, abs=1e-13) == gibbs(2.0, 1.5, 2, "usa").R


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gibbs(1.0, 0.0, 2), "kappa > 0, but kappa=0.0"),
        (lambda: gibbs(1.0, np.nan, 2), "`kappa` must be finite"),
        (lambda: gibbs(-1.0, 1.0, 2), "beta >= 0"),
        (lambda: gibbs(101.0, 1.0, 2), "beta <= 100"),
        (lambda: gibbs(1.0, 1.0, 1), "`d` must be a whole number >= 2"),
        (lambda: gibbs(1.0, 1.0, 257), "d <= 256"),
        (lambda: gibbs(1.0, 1.0, 2, "us"), "Did you mean 'usa'"),
        (lambda: gibbs(9.0, 1e3, 2, "usa"), "more than degree=1000"),
        (lambda: gibbs(4.0, 2.0, 2, "usa", degree=24), "Take degree="),
        (lambda: gibbs(4.0, 2.0, 2, "usa", degree=5), "degree >= "),
        (lambda: gibbs(1.0, 3.0, 2, start="uniforme"), "`start` must be one of"),
        (lambda: gibbs(1.0, 3.0, 2, start=np.array([1, 0, 0.3])), "stays at R = 0"),
        (lambda: gibbs(1.0, 3.0, 2, start=np.array([2.0, 0.1])), "mass 1"),
        (lambda: gibbs(1.0, 3.0, 2, start=np.ones((2, 2))), "shape"),
        (lambda: branch(1.0, 2.0, 2), "one number and one pair"),
        (lambda: branch((1.0, 2.0), (1.0, 2.0), 2), "one number and one pair"),
        (lambda: branch(1.0, (3.0, 2.0), 2), "kappa"),
        (lambda: branch(1.0, (-1.0, 2.0), 2), "kappa > 0"),
        (lambda: branch(1.0, (3.0, 4.0), 2), "must hold the threshold of mode 1, 2.24019"),
        (lambda: branch((0.0, 1.0), 4.0, 2), "must hold the threshold of mode 1"),
        (lambda: branch(1.0, (1.0, 2.0), 2, start="ordered"), "must reach an ordered density"),
        (lambda: branch(1.0, (1.0, 3.0), 2, mode=0), "`mode` must be a whole number >= 1"),
        (lambda: transition(2.0, 2), "order sets in continuously at kappa=1.25736"),
        (lambda: hysteresis(4.0, np.array([0.5, 0.4]), 2, "usa"), "`kappas` must increase strictly"),
        (lambda: hysteresis(4.0, np.array([0.4, 0.5]), 2, "usa", kick=0.0), "kick > 0"),
    ],
)  # fmt: skip
def test_bad_input(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()
