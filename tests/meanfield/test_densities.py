"""Densities against linear theory, against each other, and against the theorems they obey."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attnflow as af
from attnflow.meanfield import Circle, MeanField, Sphere, Zonal, gegenbauer
from attnflow.theory import stability

TIGHT = {"rtol": 1e-11, "atol": 1e-13}


def bump(space, height=0.3, l=1, m=0):  # noqa: E741
    modes = space.uniform
    if isinstance(space, Sphere):
        return modes.at[0, l, m].set(height)
    return modes.at[0, l].set(height) if isinstance(space, Circle) else modes.at[l].set(height)


@pytest.mark.parametrize("d", [2, 3, 8, 1000])
def test_gauss_quadrature_and_basis(d):
    t, weights = gegenbauer.nodes(d, 60)
    p, slope = gegenbauer.basis(t, 40, d), gegenbauer.slopes(t, 40, d)
    l = np.arange(41)  # noqa: E741
    bend = l * (l + d - 2)
    # Rounding of recurrences of 40 steps; gradients are orthogonal with squares l(l + d - 2).
    assert np.allclose(p.T @ (weights[:, None] * p), np.eye(41), atol=1e-13, rtol=0)
    assert np.allclose(slope.T @ (weights[:, None] * slope), np.diag(bend), atol=1e-12 * bend[-1])
    assert np.isclose(weights @ t**4, 3 / (d * (d + 2)), rtol=1e-13)


@pytest.mark.parametrize("d", [2, 3, 8, 1000])
def test_kernel_is_relative_to_rounding(d):
    for beta in (0.0, 1e-3, 1.0, 50.0, 700.0):
        degree = gegenbauer.kernel_degree(beta, d)
        rates = np.asarray(gegenbauer.kernel(beta, degree, d)[1])
        l = np.arange(degree + 1)  # noqa: E741
        expected = stability.growth_rates(l, beta=beta, d=d)
        assert np.allclose(l * (l + d - 2) * rates, expected, rtol=1e-13, atol=0)
        assert degree == 8 or rates[degree] * beta <= 1.0001e-16 < rates[degree - 1] * beta


def test_kernel_mean_against_printed_energy():
    # E(uniform) = a_0 / (2 beta), d = 2, beta = 3, printed to eight digits.
    multipliers = np.asarray(gegenbauer.multipliers(3.0, 20, 2)) * np.exp(3)
    assert multipliers[0] / 6 == pytest.approx(0.81346543, abs=5e-9)


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize(
    "space", [Circle(32), Zonal(2, 32), Zonal(3, 32), Zonal(8, 32), Sphere(32)]
)
def test_growth_rates(space, model):
    @jax.jit
    def rates(beta, kappa):
        flow = MeanField(space, beta, model, kappa=kappa)
        tangents = jnp.stack([bump(space, 1.0, k, min(k, 3)) - space.uniform for k in range(1, 11)])
        moved = jax.vmap(lambda v: jax.jvp(lambda c: flow(0, c), (space.uniform,), (v,))[1])(
            tangents
        )
        rate = (moved * tangents).reshape(10, -1).sum(axis=1)
        others = moved - rate.reshape(-1, *[1] * (moved.ndim - 1)) * tangents
        return rate, jnp.abs(others).max()

    for beta, kappa in ((0.0, np.inf), (1.0, 2.0), (4.0, np.inf), (9.0, 3.0)):
        rate, others = rates(beta, kappa)
        expected = stability.growth_rates(
            np.arange(1, 11), beta=beta, d=space.d, model=model, kappa=kappa
        )
        # Rounding of sums over some 100 nodes, times l(l + d - 2) < 200, in units of the largest rate.
        assert np.abs(rate - expected).max() < 1e-12 * max(1.0, np.abs(expected).max())
        assert others < 1e-12 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_circle_zonal_and_sphere_agree(model):
    ts = np.linspace(0, 1.0, 3)
    for wide, narrow, kappa in (
        (Circle(40), Zonal(2, 40), 3.0),
        (Sphere(32), Zonal(3, 32), 5.0),
        (Circle(40), Zonal(2, 40), np.inf),
        (Sphere(32), Zonal(3, 32), np.inf),
    ):
        runs = []
        for space in (wide, narrow):
            flow = MeanField(space, 2.0, model, kappa=kappa, clock="rescaled")
            start = 0.6 * bump(space, 0.5) + 0.4 * bump(space, 0.2, 2)
            runs.append(af.solve(flow, start, ts, method=dfx.Dopri8(), **TIGHT))
        axis = runs[0].xs[:, 0] if wide.d == 2 else runs[0].xs[:, 0, :, 0]
        # 1000 rtol: two solvers over some 100 steps; the rest of the state stays 0 by symmetry.
        assert np.abs(axis - runs[1].xs).max() < 1e-8
        assert np.abs(runs[0].xs[-1]).sum() - np.abs(axis[-1]).sum() < 1e-8
        for name, values in runs[1].observed.items():
            if name != "minimum":  # grids differ
                assert np.allclose(runs[0].observed[name], values, atol=1e-8), name


def test_rotations_of_the_sphere():
    # A bump along x is a bump along z, turned: the same order parameter and free energy.
    seen = []
    for m in (0, 1):
        flow = MeanField(Sphere(20), 2.0, "sa", kappa=5.0)
        run = af.solve(flow, bump(Sphere(20), 0.3, 1, m), np.array([0, 1.0]), **TIGHT)
        seen.append(
            [float(run.observed["free_energy"][-1]), float(flow.space.order_parameter(run.x_end))]
        )
    assert np.allclose(*seen, atol=1e-9)


def test_quadratic_system_of_modes():
    # USA on the circle: dm_k/dt = k sum_l l w_|l| m_l m_(k-l) - k^2 m_k / kappa, |l|, |k - l| <= K.
    degree, beta, kappa = 24, 2.0, 3.0
    rng = np.random.default_rng(0)
    m = np.zeros(2 * degree + 1, complex)
    decay = 0.3 * np.exp(-0.3 * np.arange(1, degree + 1))
    m[degree] = 1
    m[degree + 1 :] = decay * (rng.normal(size=(degree, 2)) @ [1, 1j])
    m[:degree] = np.conj(m[:degree:-1])
    orders = np.arange(-degree, degree + 1)
    w = np.concatenate([[0], np.asarray(gegenbauer.kernel(beta, degree, 2)[1])[1:]])
    w = w * float(gegenbauer.multipliers(beta, degree, 2)[0]) * np.exp(beta)
    expected = np.zeros(degree + 1, complex)
    for k in range(degree + 1):
        inside = np.abs(k - orders) <= degree
        l = orders[inside]  # noqa: E741
        expected[k] = k * (l * w[np.abs(l)] * m[l + degree] * m[k - l + degree]).sum()
        expected[k] -= k**2 * m[k + degree] / kappa
    state = np.sqrt(2) * np.stack([m[degree:].real, -m[degree:].imag])
    state[:, 0] = 1, 0
    flow = MeanField(Circle(degree), beta, "usa", kappa=kappa)
    got = np.asarray(flow(0.0, jnp.asarray(state)))
    got = (got[0] - 1j * got[1]) / np.sqrt(2)
    assert np.abs(got - expected).max() < 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize(("model", "kappa"), [("usa", 2.5), ("usa", np.inf), ("sa", np.inf)])
@pytest.mark.parametrize("space", [Circle(48), Zonal(5, 40), Sphere(20)])
def test_free_energy_falls_at_the_rate_of_dissipation(space, model, kappa):
    flow = MeanField(space, 1.5, model, kappa=kappa)
    modes = 0.5 * bump(space, 0.4) + 0.5 * bump(space, 0.1, 2)
    change = jax.jvp(flow.free_energy, (modes,), (flow(0.0, modes),))[1]
    # log f has a tail of its own: 0.5^20 of degree 20.
    assert float(change) == pytest.approx(-float(flow.dissipation(modes)), rel=1e-7)
    assert change < 0


def test_noise_alone_decays_exactly():
    # beta = 0 and R = 0: no drift at all, degree l decays at l(l + d - 2)/kappa.
    for space in (Circle(16), Zonal(7, 16), Sphere(8)):
        flow = MeanField(space, 0.0, "usa", kappa=2.0)
        run = af.solve(flow, bump(space, 0.2, 2), np.array([0, 0.7]), method=dfx.Dopri8(), **TIGHT)
        exact = 0.2 * np.exp(-2 * space.d / 2.0 * 0.7)
        assert np.abs(run.x_end - bump(space, exact, 2)).max() < 1e-10


def test_mass_is_exact_and_minimum_watched():
    flow = MeanField(Circle(48), 1.0, "usa", kappa=2.5)
    run = af.solve(flow, bump(Circle(48)), np.linspace(0, 60, 7))
    assert (np.asarray(run.observed["mass"]) == 1).all()
    assert (np.asarray(run.observed["minimum"]) > 0).all()
    data = run.to_xarray()
    assert data.modes.dims == ("time", "part", "degree")
    assert data.free_energy.dims == ("time",)
    assert (np.diff(run.observed["free_energy"]) <= 0).all()
    # Gibbs state at beta = 1, kappa = 2.5, printed to seven digits.
    assert float(flow.space.order_parameter(run.x_end)) == pytest.approx(0.7815843, abs=5e-8)


def test_explicit_and_implicit_agree():
    flow, start, ts = (
        MeanField(Circle(16), 1.0, "sa", kappa=2.0),
        bump(Circle(16)),
        np.array([0, 2.0]),
    )
    runs = [af.solve(flow, start, ts, method=m, **TIGHT).x_end for m in (None, dfx.Dopri8())]
    assert np.abs(runs[0] - runs[1]).max() < 1e-9


def test_collapse_ends_with_a_sentence():
    flow = MeanField(Circle(32), 4.0, "sa")
    with pytest.warns(RuntimeWarning, match="narrower than degree=32 resolves.*Take degree=64"):
        run = af.solve(flow, bump(Circle(32)), np.linspace(0, 20, 21))
    assert 1 < run.t_end < 20
    assert len(run.ts) == int(run.t_end) + 1
    assert np.isfinite(run.xs).all()


def test_rising_free_energy_is_told():
    flow = MeanField(Circle(16), 1.0, "usa", kappa=1.0)
    back = eqx.tree_at(lambda f: f.kappa, flow, jnp.asarray(1.0))
    run = af.solve(back, bump(Circle(16)), np.array([0, 0.1]))
    turned = eqx.tree_at(
        lambda r: r.observed["free_energy"], run, run.observed["free_energy"][::-1]
    )
    with pytest.warns(RuntimeWarning, match="free energy rose by"):
        flow.check_run(turned, np.array([0, 0.1]))


def test_gradients_and_vmap():
    space = Circle(16)

    def order(beta):
        flow = MeanField(space, beta, "usa", kappa=2.0)
        run = af.solve(
            flow, bump(space), np.array([0, 1.0]), adjoint=dfx.DirectAdjoint(), max_steps=200
        )
        return space.order_parameter(run.x_end)

    betas = jnp.array([0.5, 1.0])
    slope = jax.jvp(order, (1.0,), (1.0,))[1]
    step = 1e-4
    difference = float(order(1 + step) - order(1 - step)) / (2 * step)
    # Steps of 1e-4 leave 1e-8; the solver's rtol of 1e-8 leaves 1e-4.
    assert float(slope) == pytest.approx(difference, rel=1e-3)
    both = jax.vmap(order)(betas)
    assert both[1] == pytest.approx(float(order(1.0)), rel=1e-7)
    assert both[0] < both[1]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MeanField(Circle(16), 1.0, kappa=0.0), "`kappa` must satisfy kappa > 0"),
        (lambda: MeanField(Circle(16), 1.0, kappa=-1.0), "`kappa` must satisfy kappa > 0"),
        (lambda: MeanField(Circle(16), -1.0), "`beta` must satisfy beta >= 0"),
        (lambda: MeanField(Circle(16), np.nan), "`beta` must be finite"),
        (lambda: MeanField(Circle(16), 81.0), "degree >= 80.*kernel at beta=81 has 80 degrees"),
        (lambda: MeanField(Circle(16), 1.0, "softmax"), "`model` must be one of sa, usa"),
        (lambda: Zonal(1, 8), "`d` must"),
        (lambda: Zonal(1001, 8), "d <= 1000.*follow tokens with `solve`"),
        (lambda: Circle(0), "`degree` must"),
    ],
)
def test_bad_settings(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("modes", "sentence"),
    [
        (bump(Circle(16), 1.5), "must be a density, but it falls to -1.12"),
        (bump(Circle(16), np.nan), "must be finite"),
        (bump(Circle(16)) * 2, "must have mass 1, but its mass is 2"),
        (bump(Circle(16), 0.1, 16), "must be resolved by degree=16.*Take degree=32"),
        (bump(Circle(8)), "must hold modes of shape"),
    ],
)
def test_bad_starts(modes, sentence):
    with pytest.raises(ValueError, match=sentence):
        af.solve(MeanField(Circle(16), 1.0), modes, np.array([0, 1.0]))
