"""Coalescence against quadrature, high-precision velocities, the greedy staircase, and bad input."""

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, dendrogram, fcluster, is_valid_linkage

import attnflow as af
from attnflow.coalescence import velocity


def circle(angles):
    angles = np.asarray(angles, float)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def log10_merge_time(model, beta, phi, a):
    """Two-cluster time from angle phi to a chord of 1e-8, by 30-digit quadrature in log tan(p/2)."""
    with mp.workdps(30):
        a = mp.mpf(a)
        ratio = a / (1 - a)
        s = ratio + 1 / ratio

        def slowness(u):
            p = 2 * mp.atan(mp.e**u)
            e = mp.e ** (beta * (1 - mp.cos(p)))
            return (1 + s * e + e * e) / (2 + s * e) if model == "sa" else e * mp.e**-beta

        start, end = mp.log(mp.tan(mp.mpf(phi) / 2)), mp.log(mp.tan(mp.asin(mp.mpf("5e-9"))))
        layers = [start - mp.mpf(k) / 40 for k in range(80)]
        nodes = [end, *mp.linspace(end, layers[-1], 12)[1:-1], *reversed(layers)]
        return float(mp.log10(mp.quad(slowness, nodes)))


@pytest.mark.parametrize("a", [0.5, 0.8])
@pytest.mark.parametrize("degrees", [60, 90, 120])
@pytest.mark.parametrize("beta", [1, 4, 10, 20, 50, 100, 300])
@pytest.mark.parametrize("model", ["sa", "usa"])
def test_two_clusters_meet_when_the_quadrature_says(model, beta, degrees, a):
    """rtol 1e-9 a step, a hundred steps: 1e-7 relative; asked is 1e-6."""
    phi = np.radians(degrees)
    rule = af.Attention(beta) if model == "sa" else af.UnnormalizedAttention(beta)
    tree = af.coalesce(rule, circle([0.0, phi]), weights=[a, 1 - a])
    expected = log10_merge_time(model, beta, phi, a)
    np.testing.assert_allclose(tree.log10_times, [expected], atol=1e-6 / np.log(10))


def velocity_errors(model, beta, x, w):
    """Relative errors of `velocity` and log10 of the speeds, in more digits than e^(-2 beta) needs."""
    rule = af.Attention(beta) if model == "sa" else af.UnnormalizedAttention(beta, clock="rescaled")
    direction, log_scale = velocity(rule, x, weights=w)
    errors, speeds = [], []
    with mp.workdps(60 + round(beta)):
        xs = [[mp.mpf(float(c)) for c in row] for row in x]
        dot = lambda a, b: sum(p * q for p, q in zip(a, b, strict=True))
        xs = [[c / mp.sqrt(dot(row, row)) for c in row] for row in xs]
        axes = range(x.shape[1])
        for i, xi in enumerate(xs):
            e = [
                mp.mpf(float(w[j])) * mp.e ** (beta * (dot(xi, xj) - 1)) for j, xj in enumerate(xs)
            ]
            z = sum(e) if model == "sa" else 1
            sums = [sum(e[j] * xs[j][c] for j in range(len(xs))) / z for c in axes]
            exact = [sums[c] - dot(sums, xi) * xi[c] for c in axes]
            size = mp.sqrt(dot(exact, exact))
            got = [mp.mpf(float(c)) * mp.e ** mp.mpf(float(log_scale[i])) for c in direction[i]]
            error = mp.sqrt(sum((g - v) ** 2 for g, v in zip(got, exact, strict=True)))
            errors.append(float(error / size))
            speeds.append(float(mp.log10(size)))
    return np.array(errors), np.array(speeds)


@pytest.mark.parametrize("model", ["sa", "usa"])
@pytest.mark.parametrize("beta", [4.0, 200.0, 1000.0])
def test_velocities_are_exact_relative_to_their_own_size(model, beta):
    """e^(-beta q) loses beta q eps: 1e-12 until beta q = 2000. Pairs a distance of 1e-7 apart are among them."""
    rng = np.random.default_rng(0)
    x = circle([0.0, 1e-7, 0.5, 0.5003, 1.1, 2.4, 2.4 + 1e-5])
    errors, _ = velocity_errors(model, beta, x, rng.dirichlet(np.ones(len(x))))
    assert errors.max() < 1e-12


@pytest.mark.parametrize("d", [2, 3])
def test_velocities_of_metastable_states_from_fast_to_1e_minus_200(d, key):
    """On every plateau of a run, the speeds the clock is built on."""
    tree = af.coalesce(af.Attention(300.0), np.asarray(af.sphere.uniform(key, 12, d)))
    found = []
    for plateau in tree.plateaus(0.5):
        moment = tree.at(log10_t=plateau.log10_middle)
        errors, speeds = velocity_errors("sa", 300.0, moment.x, moment.weights)
        assert errors.max() < 1e-12, plateau
        found.extend(speeds)
    assert min(found) < -200
    assert max(found) > -4


@pytest.fixture(scope="module")
def ring():
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 64)
    return af.coalesce(af.Attention(60.0), circle(angles))


def test_the_tree_is_a_scipy_linkage(ring):
    assert ring.status == "collapsed"
    assert is_valid_linkage(ring.linkage)
    assert (np.diff(ring.linkage[:, 2]) >= 0).all()
    assert cophenet(ring.linkage).shape == (64 * 63 // 2,)
    assert len(dendrogram(ring.linkage, no_plot=True)["leaves"]) == 64
    for k in (1, 3, 10):
        flat = fcluster(ring.linkage, k, "maxclust")
        pairs = set(zip(flat, ring.labels(k), strict=True))
        assert len(pairs) == len(set(flat)) == k


def test_energy_rises_and_weights_are_kept(ring):
    assert (np.diff(ring.history.energies) >= -1e-12).all()
    np.testing.assert_allclose(ring.merged_weights[-1], 1.0, rtol=1e-13)
    np.testing.assert_allclose(ring.energies[-1], 1.0, rtol=1e-12)


def test_the_same_bits_each_time(ring):
    again = af.coalesce(af.Attention(60.0), ring.x0)
    np.testing.assert_array_equal(again.log10_times, ring.log10_times)
    np.testing.assert_array_equal(again.pairs, ring.pairs)


@pytest.mark.parametrize(("n", "d", "beta"), [(64, 2, 60.0), (64, 3, 60.0), (200, 2, 200.0)])
def test_merge_times_do_not_depend_on_the_tolerances(n, d, beta, key):
    """Every one of them: asked is 1e-4 of log10 t."""
    x = np.asarray(af.sphere.uniform(key, n, d))
    tree = af.coalesce(af.Attention(beta), x)
    finer = af.coalesce(af.Attention(beta), x, rtol=0.5e-9, merge_tol=0.5e-8)
    assert tree.status == "collapsed"
    np.testing.assert_array_equal(finer.pairs, tree.pairs)
    np.testing.assert_allclose(finer.log10_times, tree.log10_times, atol=1e-4)


def test_merging_errs_by_the_square_of_its_distance(key):
    """Two decades per decade in the last position, which remembers every merge; asked: a factor of 30."""
    x = np.asarray(af.sphere.uniform(key, 24, 3))
    ends = [
        af.coalesce(af.Attention(30.0), x, merge_tol=tol, rtol=1e-11).x_end[0]
        for tol in (1e-8, 1e-3, 1e-2)
    ]
    fine, coarse = (np.abs(end - ends[0]).max() for end in ends[1:])
    assert 1e-13 < fine < coarse / 30


def test_matrix_products_and_differences_agree(key):
    """Products err by eps/4e-6 of the speed; what the tolerance of merging changes is its square."""
    x = np.asarray(af.sphere.uniform(key, 20, 20))
    products, differences = (
        af.coalesce(af.Attention(16.0), x, merge_tol=tol) for tol in (1e-3, 0.999e-3)
    )
    late = differences.log10_times > 2
    assert late.sum() >= 5
    np.testing.assert_array_equal(products.pairs[late], differences.pairs[late])
    np.testing.assert_allclose(products.log10_times[late], differences.log10_times[late], atol=1e-7)
    np.testing.assert_allclose(products.x_end, differences.x_end, atol=1e-7)


def test_a_moment_is_what_solve_reaches(ring):
    moment = ring.at(5.0)
    run = af.solve(af.sa(60.0), ring.x0, jnp.array([0.0, 5.0]), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(moment.x[moment.labels], run.x_end, atol=1e-6)
    late = ring.at(log10_t=float(ring.log10_times[-1]) - 0.1)
    assert len(late.x) == 2
    np.testing.assert_array_equal(np.unique(late.labels), [0, 1])


@pytest.mark.parametrize(
    ("angles", "levels"),
    [
        ((0, 0.35, 0.85, 1.5, 2.3), (0.20, 0.28, 0.36, 0.68, 1)),
        (0.5 * 0.16996135 * np.array([0, 0.5, 2, 4, 7]), (0.20, 0.28, 0.44, 0.52, 1)),
    ],
)
def test_the_staircase_is_the_greedy_one(angles, levels):
    """Plateau energies sum alpha_k^2, to what tokens a gap g apart still add, e^(-beta (1 - cos g))."""
    tree = af.coalesce(af.UnnormalizedAttention(2000.0, clock="rescaled"), circle(angles))
    np.testing.assert_allclose(tree.energies[1:], levels[1:], atol=5e-3)


def test_time_beyond_the_largest_float():
    tree = af.coalesce(af.Attention(1000.0), circle([0.0, 2.0]))
    assert tree.log10_times[0] > 308
    assert np.isinf(tree.times[0])
    assert is_valid_linkage(tree.linkage)


def test_t_max_ends_the_run_there():
    tree = af.coalesce(af.Attention(10.0), circle([0.0, 1.0, 2.5]), t_max=50.0)
    assert tree.status == "t_max"
    np.testing.assert_allclose(tree.log10_t_end, np.log10(50.0), rtol=1e-12)
    assert np.isinf(tree.linkage[-1, 2])
    moment = af.coalesce(af.Attention(10.0), circle([0.0, 1.0, 2.5])).at(50.0)
    np.testing.assert_allclose(moment.x, tree.x_end, atol=1e-7)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_regular_polygons_are_stationary_until_kicked(n):
    x = circle(2 * np.pi * np.arange(n) / n)
    assert af.coalesce(af.Attention(3.0), x).status == "stationary"
    kicked = af.coalesce(af.Attention(3.0), x, perturb=1e-6, seed=1)
    assert kicked.status == "collapsed"
    assert kicked.stats["kicks"] >= 1


def test_coincident_tokens_merge_at_the_start():
    tree = af.coalesce(af.Attention(3.0), circle([0.0, 0.0, 1.0]))
    assert tree.log10_times[0] == -np.inf
    assert tree.heights[0] == 0
    np.testing.assert_allclose(tree.merged_weights[0], 2 / 3)


def test_a_single_token_is_one_cluster():
    tree = af.coalesce(af.Attention(3.0), circle([0.3]))
    assert tree.status == "collapsed"
    assert tree.linkage.shape == (0, 4)


def test_more_dimensions_than_tokens_change_nothing(key):
    """The run in the span follows the same Gram matrix; rotating rounds at 1e-16."""
    x = np.asarray(af.sphere.uniform(key, 6, 6))
    wide = np.concatenate([x, np.zeros((6, 14))], axis=1)
    narrow, lifted = (af.coalesce(af.Attention(8.0), tokens) for tokens in (x, wide))
    np.testing.assert_allclose(narrow.log10_times, lifted.log10_times, atol=1e-7)
    np.testing.assert_allclose(lifted.x_end[0], [*narrow.x_end[0], *np.zeros(14)], atol=1e-7)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": [0.5, 0.6]}, "sum to 1"),
        ({"weights": [1.5, -0.5]}, "weights >= 0"),
        ({"weights": [1.0, 0.0]}, "weights > 0"),
        ({"merge_tol": 0.5}, "merge_tol <= 0.01"),
        ({"merge_tol": 0.0}, "merge_tol >= 1e-09"),
        ({"rtol": 1.0}, "rtol <= 0.001"),
        ({"t_max": 0.0}, "t_max > 0"),
        ({"attention": af.Attention(2.0, value=-1.0)}, "attention.value > 0"),
        ({"attention": af.Attention(-2.0)}, "attention.beta >= 0"),
        ({"attention": af.Attention(2.0, mask=af.kernels.causal)}, "no mask"),
        ({"attention": af.Attention(2.0, value=jnp.eye(2))}, "one number"),
        ({"attention": af.HardmaxAttention()}, "HardmaxAttention"),
        ({"x0": np.eye(2, dtype=np.float32)}, "float64"),
        ({"x0": 2 * np.eye(2)}, "unit vectors"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence, untyped):
    arguments = {"attention": af.Attention(2.0), "x0": np.eye(2)} | change
    with pytest.raises(ValueError, match=sentence) as caught:
        af.coalesce(**arguments)
    assert "\n" not in str(caught.value)


def test_moments_of_a_busy_time_are_those_of_a_plain_solve(key):
    """Many merges at nearly one time: each token is where a plain solve puts it, whichever merged first."""
    x0 = af.sphere.uniform(key, 200, 3)
    tree = af.coalesce(af.Attention(60.0), np.asarray(x0, float))
    log10_t = tree.log10_times[48] + 1e-6
    traj = af.solve(af.sa(60.0), x0, np.array([0.0, 10**log10_t]), rtol=1e-7, atol=1e-9)
    moment = tree.at(log10_t=log10_t)
    np.testing.assert_allclose(moment.x[moment.labels], traj.xs[1], atol=1e-5)
