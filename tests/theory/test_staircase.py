import numpy as np
import pytest
from scipy.cluster.hierarchy import is_valid_linkage

from attnflow.theory.staircase import (
    greedy_merges,
    pairing_angle,
    pairing_flow,
    plateau_energies,
)
from attnflow.theory.two_clusters import log10_merge_time, merge_angle

FIVE = [0.0, 0.35, 0.85, 1.5, 2.3]
AUTHORS = [0.0, 0.04249034, 0.16996135, 0.33992269, 0.59486471]
WEIGHTS = np.array([0.3, 0.1, 0.25, 0.15, 0.2])


def tokens(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_printed_plateaus(printed):
    printed(greedy_merges(FIVE, model="usa").energies, ".20 .28 .36 .68 1")
    printed(greedy_merges(AUTHORS, model="usa").energies, ".20 .28 .44 .52 1")
    start = 0.5 * np.log(2000) / np.sqrt(2000) * np.array([0, 0.5, 2, 4, 7])
    printed(start, ".0 .04249034 .16996135 .33992269 .59486471")


def test_first_energy_of_the_simulated_start(printed):
    """Before a merge the closest pairs add 2 w_i w_j e^(-60 (1 - cos g)) to .20."""
    theta = np.array(FIVE)
    energy = np.exp(60 * (np.cos(theta[:, None] - theta) - 1)).mean()
    printed(energy, ".202")


def on_a_line(theta, weights):
    """Greedy rule of USA on angles within a half circle, by lists: closest neighbours, weighted mean."""
    theta, weights, merges = list(theta), list(weights), []
    while len(theta) > 1:
        k = int(np.argmin(np.diff(theta)))
        a, b = weights[k : k + 2]
        mean = (a * theta[k] + b * theta[k + 1]) / (a + b)
        merges.append((theta[k + 1] - theta[k], mean, a + b))
        theta[k : k + 2], weights[k : k + 2] = [mean], [a + b]
    return np.array(merges).T


def test_usa_on_the_circle_merges_neighbours_at_their_mean():
    rng = np.random.default_rng(0)
    theta, weights = np.sort(rng.uniform(0, 3.0, 30)), rng.dirichlet(np.ones(30))
    steps = greedy_merges(theta, model="usa", weights=weights)
    gaps, means, masses = on_a_line(theta, weights)
    np.testing.assert_allclose(steps.gaps, gaps, atol=1e-13)
    found = np.arctan2(steps.merged_x[:, 1], steps.merged_x[:, 0])
    np.testing.assert_allclose(found, means, atol=1e-13)
    np.testing.assert_allclose(steps.merged_weights, masses, rtol=1e-13)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (12, 3), (20, 7)])
@pytest.mark.parametrize("model", ["sa", "usa"])
def test_merges_form_a_tree(n, d, model):
    steps = greedy_merges(tokens(1, n, d), beta=50.0, model=model)
    sizes = np.round(steps.merged_weights * n)
    linkage = np.column_stack([steps.pairs, np.arange(1.0, n), sizes])
    assert is_valid_linkage(linkage)
    np.testing.assert_allclose(steps.merged_weights[-1], 1, rtol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(steps.merged_x, axis=1), 1, rtol=1e-14)
    assert np.all(np.diff(steps.log10_times) >= 0)
    expected = plateau_energies(steps.pairs, np.full(n, 1 / n))
    np.testing.assert_allclose(steps.energies, expected, rtol=1e-13)
    np.testing.assert_allclose(steps.energies[[0, -1]], [1 / n, 1], rtol=1e-13)


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_two_clusters_are_the_closed_equation(model):
    weights, beta = (0.8, 0.2), 7.0
    steps = greedy_merges([0.5, 1.9], beta=beta, model=model, weights=weights)
    shift = merge_angle(1.4, beta=beta, model=model, weights=weights)
    time = log10_merge_time(1.4, 1e-8, beta=beta, model=model, weights=weights)
    met = 0.5 + shift
    np.testing.assert_allclose(steps.merged_x[0], [np.cos(met), np.sin(met)], atol=1e-14)
    np.testing.assert_allclose(steps.log10_times, [time], rtol=1e-12)
    np.testing.assert_array_equal(steps.pairs, [[0, 1]])


@pytest.mark.parametrize("theta", [[0.0, 0.4, 1.9], [1.9, 0.0, 0.4]])
def test_waits_start_when_both_clusters_exist(theta):
    """Two close tokens, then the merged pair and the third, whose wait adds to the first."""
    beta = 20.0
    steps = greedy_merges(theta, beta=beta)
    first = log10_merge_time(0.4, 1e-8, beta=beta, weights=(1 / 3, 1 / 3))
    second = log10_merge_time(1.7, 1e-8, beta=beta, weights=(2 / 3, 1 / 3))
    np.testing.assert_allclose(steps.log10_times[0], first, rtol=1e-12)
    # 10^first shifts log10 T by 1e-8; unequal masses meet at 0.2 all the same, being two equals
    np.testing.assert_allclose(10 ** steps.log10_times[1], 10**first + 10**second, rtol=1e-10)


def test_a_rotation_turns_the_merges():
    x, turn = tokens(2, 9, 4), np.linalg.qr(tokens(3, 4, 4))[0]
    plain, turned = greedy_merges(x, beta=30.0), greedy_merges(x @ turn, beta=30.0)
    np.testing.assert_array_equal(plain.pairs, turned.pairs)
    np.testing.assert_allclose(plain.merged_x @ turn, turned.merged_x, atol=1e-12)


def test_clock_shifts_log_times_by_beta():
    theta, beta = [0.0, 0.3, 1.2], 25.0
    physical = greedy_merges(theta, beta=beta, model="usa").log10_times
    rescaled = greedy_merges(theta, beta=beta, model="usa", clock="rescaled").log10_times
    np.testing.assert_allclose(rescaled - physical, beta / np.log(10), rtol=1e-12)


def test_stationary_and_trivial_starts():
    pair = greedy_merges([[1.0, 0.0], [-1.0, 0.0]], beta=3.0)
    assert pair.pairs.shape == (0, 2) and pair.merged_x.shape == (0, 2)
    np.testing.assert_array_equal(pair.energies, [0.5])
    assert greedy_merges([1.0]).energies.shape == (1,)
    both = greedy_merges([0.3, 0.3, 2.0], beta=3.0)
    assert both.log10_times[0] == -np.inf and np.isfinite(both.log10_times[1])
    assert np.isnan(greedy_merges(FIVE).log10_times).all()


def test_sa_at_zero_temperature_meets_at_squared_masses():
    steps = greedy_merges([0.0, 1.0], weights=(0.8, 0.2))
    met = np.arctan2(steps.merged_x[0, 1], steps.merged_x[0, 0])
    np.testing.assert_allclose(met, 0.04 / 0.68, rtol=1e-13)


def test_plateau_energies_of_any_tree():
    energies = plateau_energies([[0, 2], [1, 5], [3, 4], [6, 7]], WEIGHTS)
    groups = [
        [[0], [1], [2], [3], [4]], [[0, 2], [1], [3], [4]], [[0, 1, 2], [3], [4]],
        [[0, 1, 2], [3, 4]], [[0, 1, 2, 3, 4]],
    ]  # fmt: skip
    expected = [sum(WEIGHTS[group].sum() ** 2 for group in level) for level in groups]
    np.testing.assert_allclose(energies, expected, rtol=1e-14)
    np.testing.assert_allclose(plateau_energies(np.zeros((0, 2)), [1.0]), [1])


def test_printed_pairing(printed):
    printed(np.cos(pairing_angle(0.7, np.arccos(0.2))), ".92207884")


@pytest.mark.parametrize(("model", "rate"), [("sa", 4.25), ("usa", 1.0)])
def test_pairing_angle_solves_its_equation(model, rate):
    """cos = tanh(cs + artanh cos phi0), also at the poles; the pair never meets."""
    s, phi0 = np.linspace(0, 3, 7), 2.0
    angle = pairing_angle(s, phi0, weights=(0.8, 0.2), model=model)
    expected = np.arccos(np.tanh(rate * s + np.arctanh(np.cos(phi0))))
    np.testing.assert_allclose(angle, expected, rtol=1e-6)  # arccos near 1
    np.testing.assert_allclose(np.tan(angle / 2), np.tan(1.0) * np.exp(-rate * s), rtol=1e-13)
    assert pairing_angle(50.0, 2.0) > 0
    np.testing.assert_allclose(pairing_angle(1.0, [0.0, np.pi]), [0, np.pi], atol=1e-14)


def test_time_scale_of_forced_collisions():
    """Angle sqrt(log b / b) is passed at 1/(2c) in units of log b, up to log log b / log b; not 2/c.

    u' = -c log(b) sin u is the pairing law at s = t log b, c = 2 for equal masses.
    """
    log_b, c = 690.0, 2.0
    log_end = (np.log(log_b) - log_b) / 2
    low, high = (
        np.log(float(pairing_angle(t * log_b, 1.0))) for t in (1.01 / (2 * c), 0.98 / (2 * c))
    )
    assert low < log_end < high


@pytest.mark.parametrize("model", ["sa", "usa"])
def test_pairing_flow_solves_its_equations(model):
    """Five-point differences of step 1e-3: error h^4/30 times fifth derivatives, below 1e-8."""
    a, b = 0.8, 0.2
    x, y = tokens(4, 2, 3)
    h, s = 1e-3, 0.4
    path = pairing_flow(s + h * np.array([-2, -1, 0, 1, 2]), x, y, weights=(a, b), model=model)
    speed = np.tensordot([1, -8, 0, 8, -1], path, 1) / (12 * h)
    u, v = path[2]
    pull = (b / a, a / b) if model == "sa" else (b, a)
    np.testing.assert_allclose(speed[0], pull[0] * (v - (u @ v) * u), atol=1e-8)
    np.testing.assert_allclose(speed[1], pull[1] * (u - (u @ v) * v), atol=1e-8)
    np.testing.assert_allclose(pairing_flow(0.0, x, y)[0], [x, y], atol=1e-15)


def test_a_cluster_without_mass_does_not_pull():
    """The heavier of two stays: the law without masses has them meet half way."""
    x, y = np.eye(2)
    end = pairing_flow(0.01, x, y, weights=(1.0, 1e-3))[0]
    assert abs(end[0] @ x - 1) < 1e-9 and end[1] @ y < 0.999


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: greedy_merges([0.0, 1.0], model="causal"), "one of sa, usa"),
        (lambda: greedy_merges([0.0, 1.0], clock="rescaled"), "`clock` must be one of"),
        (lambda: greedy_merges([0.0, 1.0], beta=-1.0), "`beta` must be >= 0"),
        (lambda: greedy_merges([0.0, 1.0], phi1=0.0), "`phi1` must lie"),
        (lambda: greedy_merges([0.0, 1.0], weights=[1.0]), r"`weights` must have shape \(2,\)"),
        (lambda: greedy_merges([0.0, 1.0], weights=[0.5, 0.4]), "`weights` must sum to 1"),
        (lambda: greedy_merges([0.0, 1.0], weights=[1.0, 0.0]), "`weights` must be finite and > 0"),
        (lambda: greedy_merges(np.ones((2, 3))), "unit vectors"),
        (lambda: plateau_energies([[0, 2]], [0.5, 0.5]), "`pairs` must name clusters made before"),
        (lambda: plateau_energies([[0, -1]], [0.5, 0.5]), "`pairs` must name clusters made before"),
        (lambda: pairing_angle(-1.0, 1.0), "`s` must be"),
        (lambda: pairing_angle(1.0, 4.0), "`phi0` must lie"),
        (lambda: pairing_angle(1.0, 1.0, weights=(1.0,)), "`weights` must be two masses"),
        (lambda: pairing_flow(1.0, [1.0, 0.0], [1.0, 0.0]), "`y` must be neither"),
        (lambda: pairing_flow(1.0, [1.0, 0.0], [-1.0, 0.0]), "`y` must be neither"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
