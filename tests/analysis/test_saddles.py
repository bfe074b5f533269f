from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnflow import flows, sphere
from attnflow.analysis.saddles import (
    energy_hessian,
    energy_spectrum,
    log10_speeds,
    rotation_modes,
    saddle,
    tangent_frames,
)
from attnflow.observables import energy
from attnflow.theory.stationary import polygon_rate, stationary_grams


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tokens(rng, n, d):
    x = rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def masses(rng, n):
    w = rng.uniform(0.5, 2, n)
    return w / w.sum()


def polygon(n):
    t = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def simplex(n):
    """Corners of the regular simplex, on the sphere of R^n."""
    x = np.eye(n) - 1 / n
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rates(state):
    return state.signs * 10.0**state.log10_rates


def move(x, frames, u):
    """Tokens at tangent coordinates u; normalizing is a geodesic to second order."""
    return sphere.normalize(x + jnp.einsum("ir,ira->ia", u.reshape(frames.shape[:2]), frames))


def energy_at(u, x, frames, beta, w):
    return energy(move(x, frames, u), beta, w)


HESSIAN, GRADIENT = jax.jit(jax.hessian(energy_at)), jax.jit(jax.grad(energy_at))


def at_rest(x, beta, w):
    frames = tangent_frames(x)
    return jnp.zeros(frames.shape[0] * frames.shape[1]), x, frames, jnp.asarray(beta), w


# ----------------------------------------------------------------------------------------- hessian


@pytest.mark.parametrize("beta", [-1.5, 0.0, 0.5, 6.0])
@pytest.mark.parametrize("d", [2, 3, 5])
def test_hessian_is_that_of_the_energy_along_geodesics(rng, d, beta):
    """At any configuration. Automatic second derivatives of e^beta are good to some 1e-13 of it."""
    x, w = tokens(rng, 4, d), masses(rng, 4)
    expected = HESSIAN(*at_rest(x, beta, w))
    got = energy_hessian(x, beta, w)
    matrix = got.matrix * 10**got.log10_scale
    atol = 1e-13 * np.exp(abs(beta)) / min(1, abs(beta) or 1)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(got.matrix.shape, (4 * (d - 1), 4 * (d - 1)))


def test_metrics_weigh_tokens_by_mass_and_partition_function(rng):
    x, w, beta = tokens(rng, 5, 3), masses(rng, 5), 2.0
    z = np.exp(beta * x @ x.T) @ w
    plain = energy_hessian(x, beta, w)
    for metric, mass in (("usa", w), ("sa", w * z)):
        got = energy_hessian(x, beta, w, metric=metric)
        root = np.repeat(np.sqrt(mass), 2)
        expected = plain.matrix / root / root[:, None] * 10 ** (plain.log10_scale - got.log10_scale)
        np.testing.assert_allclose(got.matrix, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("x", [polygon(5), simplex(4)], ids=["polygon", "simplex"])
def test_eigenvalues_are_those_of_the_linearized_flow(x, model):
    """Jacobian of the simulated field in tangent coordinates, rotations (zeros) included."""
    flow, frames = getattr(flows, model)(1.5), tangent_frames(x)

    velocity = lambda u: jnp.einsum("ira,ia->ir", frames, flow(0.0, move(x, frames, u))).ravel()
    jacobian = jax.jacfwd(velocity)(jnp.zeros(frames.shape[0] * frames.shape[1]))
    expected = np.sort(np.linalg.eigvals(jacobian).real)[::-1]
    got = energy_spectrum(x, 1.5, metric=model)
    values = np.concatenate([got.eigenvalues * 10**got.log10_scale, np.zeros(got.rotations)])
    np.testing.assert_allclose(np.sort(values)[::-1], expected, rtol=0, atol=1e-12)


def test_hessian_is_symmetric_under_rotations_and_permutations(rng):
    x, w = tokens(rng, 5, 3), masses(rng, 5)
    turn, order = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.permutation(5)
    for metric in ("plain", "usa", "sa"):
        one = energy_hessian(x, 3.0, w, metric=metric)
        two = energy_hessian((x @ turn)[order], 3.0, w[order], metric=metric)
        np.testing.assert_allclose(one.log10_scale, two.log10_scale, rtol=0, atol=1e-14)
        values = np.linalg.eigvalsh(one.matrix)
        np.testing.assert_allclose(values, np.linalg.eigvalsh(two.matrix), rtol=0, atol=one.error)


@pytest.mark.parametrize("d", [2, 3, 6])
def test_frames_are_orthonormal_bases_of_the_tangent_spaces(rng, d):
    x = np.concatenate([tokens(rng, 4, d), np.eye(d)[:1], -np.eye(d)[:1]])
    rows = np.concatenate([x[:, None], tangent_frames(x)], axis=1)
    np.testing.assert_allclose(
        rows @ rows.swapaxes(1, 2), np.stack([np.eye(d)] * 6), rtol=0, atol=1e-15 * d
    )


@pytest.mark.parametrize(
    ("d", "span", "expected"), [(2, 2, 1), (3, 1, 2), (3, 2, 3), (4, 2, 5), (5, 5, 10)]
)
def test_rotations_are_counted_without_those_that_move_no_token(rng, d, span, expected):
    x = np.pad(tokens(rng, 6, span), ((0, 0), (0, d - span)))
    modes = rotation_modes(x)
    assert len(modes) == expected
    np.testing.assert_allclose(modes @ modes.T, np.eye(expected), rtol=0, atol=1e-14)
    gradient = GRADIENT(*at_rest(x, 2.0, np.full(6, 1 / 6)))
    np.testing.assert_allclose(modes @ gradient, 0, rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------- known saddle points


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize(("n", "beta"), [(3, -0.8), (3, 1.0), (5, 4.0), (8, 20.0), (6, 300.0)])
def test_polygons_have_the_exact_rates_within_the_stated_error(n, beta, model):
    exact = np.sort([float(polygon_rate(m, n=n, beta=beta, model=model)) for m in range(1, n)])[
        ::-1
    ]
    got = energy_spectrum(polygon(n), beta, metric=model)
    assert got.rotations == 1
    scaled = exact * 10**-got.log10_scale
    # The oracle's own rounding, 1e-16 beta of e^beta, only counts where e^beta is not cancelled.
    slack = 4e-16 * (1 + abs(beta)) * np.abs(scaled).max()
    assert np.abs(got.eigenvalues - scaled).max() <= got.error + slack
    assert got.error < 1e-9 * np.abs(scaled).max()
    state = saddle(polygon(n), beta, model=model)
    assert state.certified
    assert state.escape == (exact > 0).sum()


def test_a_square_at_beta_1000_has_rates_of_ten_to_the_minus_431():
    """Neighbours at 90 degrees: rates 2 beta e^-beta (1 - cos(pi m / 2)), the rest e^-1000 smaller."""
    state = saddle(polygon(4), 1000.0)
    assert (state.certified, state.escape, state.rotations) == (True, 3, 1)
    expected = np.log10([4000, 2000, 2000]) - 1000 * np.log10(np.e)
    np.testing.assert_allclose(state.log10_rates, expected, rtol=0, atol=1e-12 * 1000)


@pytest.mark.parametrize("d", [2, 4])
def test_consensus_attracts_at_rate_one(rng, d):
    u = tokens(rng, 1, d)
    state = saddle(np.repeat(u, 6, axis=0), 5.0, masses(rng, 6))
    assert (state.escape, state.undetermined, state.clusters) == (0, 0, 1)
    assert state.certified
    assert state.rotations == d - 1
    assert len(state.signs) == 5 * (d - 1)
    np.testing.assert_allclose(rates(state), -1, rtol=1e-14)
    spectrum = energy_spectrum(np.repeat(u, 6, axis=0), 5.0)
    np.testing.assert_allclose(spectrum.eigenvalues * 10**spectrum.log10_scale, -1, rtol=1e-13)


@pytest.mark.parametrize("beta", [0.0, 0.69, 0.7, 1.0, 20.0, 1000.0])
def test_antipodal_clusters_turn_and_the_lighter_one_may_tear(beta):
    r"""Three axes to turn about, and a light cluster that the far one pulls apart.

    Near phi = pi, phi' = -sin(phi) (2 + sE)/(1 + sE + E^2), E = e^{2 beta}, s = 4.25 for 8 + 2 tokens.
    Inside a cluster of mass A the rate has the sign of (1 - A) e^{-beta} - A e^beta: beta = log(4)/2.
    """
    x = np.array([[1.0, 0, 0, 0]] * 8 + [[-1.0, 0, 0, 0]] * 2)
    state = saddle(x, beta)
    torn = beta < np.log(4) / 2
    assert (state.escape, state.rotations, state.clusters) == (6 if torn else 3, 3, 2)
    assert (state.certified, state.undetermined) == (True, 0)
    e = np.exp(-2 * beta)  # one power of E in the denominator is in the logarithm
    log_rate = np.log((2 * e + 4.25) / (e**2 + 4.25 * e + 1)) - 2 * beta
    np.testing.assert_allclose(
        state.log10_rates[:3], log_rate / np.log(10), rtol=0, atol=1e-14 * (9 + beta)
    )
    inside = rates(state)[3:]
    z = np.array([0.2 + 0.8 * e, 0.8 + 0.2 * e])
    expected = np.repeat((np.array([0.8, 0.2]) * e - [0.2, 0.8]) / z, [3, 21])
    np.testing.assert_allclose(inside, expected, rtol=0, atol=1e-13)


def test_simplex_leaves_its_hyperplane_at_the_equiangular_rate():
    r"""From rho' = 2 e^{beta rho}(1-rho)((n-1)rho+1)/(e^beta+(n-1)e^{beta rho}), height ~ sqrt((n-1)rho+1)."""
    n, beta = 4, 2.0
    pull = np.exp(-beta * n / (n - 1))
    expected = n * pull / (1 + (n - 1) * pull)
    assert np.abs(rates(saddle(simplex(n), beta)) - expected).min() < 1e-13


def test_known_stationary_states_are_recognized():
    for gram in stationary_grams(6).values():
        values, vectors = np.linalg.eigh(gram)
        x = vectors * np.sqrt(np.where(values > 1e-12, values, 0))
        assert saddle(x, 2.0).certified


# ------------------------------------------------------------------------------------- certificate


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize(("n", "d"), [(5, 2), (4, 4)])
def test_rates_inside_clusters_are_those_of_the_whole_hessian(rng, n, d, model):
    """Coincident tokens: clusters and insides together have the spectrum of all tokens."""
    x = (polygon(n) if d == 2 else simplex(n))[[0, *range(n), 1, 1]]
    weights = np.ones(n + 3)
    weights[[0, 1]], weights[[2, -1, -2]] = [0.3, 0.7], [0.2, 0.5, 0.3]
    for beta in (0.7, 12.0):
        state = saddle(x, beta, weights / n, model=model)
        whole = energy_spectrum(x, beta, weights / n, metric=model)
        assert state.certified
        expected = whole.eigenvalues * 10**whole.log10_scale
        atol = 10 * whole.error * 10**whole.log10_scale
        np.testing.assert_allclose(rates(state), expected, rtol=1e-12, atol=atol)


@pytest.mark.parametrize(
    "x",
    [np.repeat(polygon(5), 2, axis=0), np.repeat([[1.0, 0, 0], [-1.0, 0, 0]], [8, 2], axis=0)],
    ids=["polygon", "antipodal"],
)
@pytest.mark.parametrize("beta", [0.3, 3.0])
def test_directions_of_escape_grow_at_their_rates(x, beta):
    """The flow at rest, linearized along each direction, is its rate times the direction."""
    state, flow = saddle(x, beta), flows.sa(beta)
    assert len(state.directions) == state.escape > 0
    for rate, move in zip(rates(state), state.directions, strict=False):
        np.testing.assert_allclose(np.linalg.norm(move), 1, rtol=1e-14)
        _, change = jax.jvp(lambda x: flow(0.0, x), (jnp.asarray(x),), (jnp.asarray(move),))
        np.testing.assert_allclose(change, rate * move, rtol=0, atol=1e-13)


@pytest.mark.parametrize("beta", [2.0, 30.0, 1000.0])
def test_slow_is_not_stationary(beta):
    """Two clusters at 90 degrees move at e^-beta; their forces do not cancel."""
    state = saddle(np.eye(2), beta)
    assert not state.certified
    np.testing.assert_allclose(state.residual, 1, rtol=1e-15)


def test_rates_have_known_signs_only_near_the_critical_point(rng):
    """Half-way spectra: a small push leaves signs certain, a large one does not."""
    exact = saddle(polygon(5), 4.0)
    for push, signs_known in ((1e-11, True), (1e-2, False)):
        t = 2 * np.pi * np.arange(5) / 5 + push * rng.normal(size=5)
        state = saddle(np.stack([np.cos(t), np.sin(t)], axis=1), 4.0)
        assert state.certified == signs_known
        assert (state.undetermined == 0) == signs_known
        if signs_known:
            np.testing.assert_allclose(rates(state), rates(exact), rtol=0, atol=1e-9)


def test_forces_may_be_asked_to_cancel_better_than_signs_need():
    state = saddle(polygon(5), 4.0, tol=1e-300)
    assert (state.undetermined, state.certified) == (0, False)


def test_the_ring_of_three_is_marginal_at_its_threshold():
    """Rates 0 at beta = -2/3: undetermined, not a sign of rounding."""
    state = saddle(polygon(3), -2 / 3)
    assert (state.undetermined, state.certified) == (2, False)


def test_scales_too_far_apart_are_said_so():
    """Two close pairs at beta = 100: rates between them lie below rounding of those inside."""
    t = np.array([0, 0.3, np.pi, np.pi + 0.3])
    state = saddle(np.stack([np.cos(t), np.sin(t)], axis=1), 100.0)
    assert state.undetermined > 0
    assert not state.certified


# ------------------------------------------------------------------------------------------- speed


def exact_log10_speeds(x, beta, w, model):
    """The textbook formula, projected at the end, in 500 digits."""
    getcontext().prec = 500
    rows = [[Decimal(float(a)) for a in row] for row in x]
    lengths = [sum(a * a for a in row).sqrt() for row in rows]
    rows = [[a / length for a in row] for row, length in zip(rows, lengths, strict=True)]
    dot = lambda a, b: sum(p * q for p, q in zip(a, b, strict=True))
    logs = []
    for here in rows:
        kernel = [
            Decimal(float(m)) * (Decimal(beta) * dot(here, there)).exp()
            for m, there in zip(w, rows, strict=True)
        ]
        y = [
            sum(k * there[a] for k, there in zip(kernel, rows, strict=True))
            for a in range(len(here))
        ]
        along = dot(here, y)
        speed = dot(*[[b - along * a for a, b in zip(here, y, strict=True)]] * 2).sqrt()
        logs.append(float((speed / (sum(kernel) if model == "sa" else 1)).log10()))
    return logs


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("beta", [5.0, 60.0, 400.0])
def test_speeds_keep_their_digits_far_below_rounding(rng, beta, model):
    """Inputs are unit to rounding, so log10 errs by 1e-16 (beta + d), and d of each norm."""
    x, w = tokens(rng, 5, 3), masses(rng, 5)
    expected = exact_log10_speeds(x, beta, w, model)
    np.testing.assert_allclose(
        log10_speeds(x, beta, w, model=model), expected, rtol=0, atol=1e-15 * (beta + 9)
    )
    assert beta < 400 or model == "usa" or min(expected) < -17


def test_speeds_of_two_clusters_at_beta_1000():
    """theta_1' = sin(phi) / (1 + (a_1/a_2) E), E = e^{beta(1 - cos phi)}, far below 1e-308."""
    phi, a = 1.4, np.array([0.7, 0.3])
    x = np.array([[1.0, 0.0]] * 2 + [[np.cos(phi), np.sin(phi)]])
    got = log10_speeds(x, 1000.0, np.array([0.3, 0.4, 0.3]))
    log_e = 1000 * (1 - np.cos(phi))
    first = np.log(np.sin(phi) * a[1] / a[0]) - log_e
    second = np.log(np.sin(phi) * a[0] / a[1]) - log_e
    assert first / np.log(10) < -308
    np.testing.assert_allclose(got, np.array([first, first, second]) / np.log(10), rtol=1e-13)


def test_tokens_at_rest_have_no_speed():
    np.testing.assert_array_equal(log10_speeds(np.eye(2)[[0, 0]], 3.0), [-np.inf] * 2)
    np.testing.assert_array_equal(log10_speeds(np.array([[1.0, 0], [-1.0, 0]]), 3.0), [-np.inf] * 2)


# -------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: saddle(2 * x, 1.0), "`x` must hold unit vectors"),
        (lambda x: saddle(x, np.nan), "`beta` must be finite"),
        (lambda x: saddle(x, -400.0), "`beta` must satisfy beta >= -300"),
        (lambda x: saddle(x, 1.0, np.array([1.0, 0.0])), "Leave out tokens of weight 0"),
        (lambda x: saddle(x, 1.0, np.array([0.5, 0.6])), "`weights` must sum to 1"),
        (lambda x: saddle(x, 1.0, model="plain"), "`model` must be one of sa, usa"),
        (lambda x: saddle(x, 1.0, merge_tol=0.1), "`merge_tol`"),
        (lambda x: saddle(x, 1.0, tol=0.0), "`tol`"),
        (lambda x: energy_hessian(x, 1.0, metric="z"), "`metric` must be one of plain, sa, usa"),
        (lambda x: energy_spectrum(x, 1.0, metric="z"), "`metric`"),
        (lambda x: log10_speeds(x, 1.0, model="z"), "`model`"),
        (lambda x: rotation_modes(x[0]), "`x` must have shape"),
        (lambda x: tangent_frames(x[:, :1]), "d >= 2"),
    ],
)
def test_bad_arguments(untyped, call, words):
    with pytest.raises(ValueError, match=words):
        call(np.eye(2))
