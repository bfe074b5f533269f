"""Fast sums on the circle and on S²: against all pairs, against their bound, against derivatives."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af
from attnflow.kernels import cheapest, dense, fast, fourier, harmonics, host, to_accuracy, torus
from attnflow.kernels.spaces import CIRCLE, SPHERE, modes_needed, tail

SUMS = {2: fourier, 3: harmonics}
SPACES = {2: CIRCLE, 3: SPHERE}
BETAS = (0.1, 1.0, 9.0, 81.0, 1000.0)
N = 1200


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def tokens(name, d, n=N):
    """Unit tokens in an awkward place."""
    rng = np.random.default_rng(7)
    noise, centre = rng.normal(size=(n, d)), unit(rng.normal(size=d))
    pole = np.eye(d)[-1]
    first = (np.arange(n) < n // 2)[:, None]
    return {
        "uniform": lambda: unit(noise),
        "broad": lambda: unit(centre + 0.3 * noise),
        "tight": lambda: unit(centre + 1e-3 * noise),
        "tight at a pole": lambda: unit(pole + 1e-3 * noise),
        "antipodal": lambda: unit(np.where(first, centre, -centre) + 1e-2 * noise),
        "antipodal at the poles": lambda: unit(np.where(first, pole, -pole) + 1e-2 * noise),
        "lone": lambda: np.vstack([unit(centre + 0.05 * noise[1:]), unit(noise[0] - 3 * centre)]),
        "lone opposite": lambda: np.vstack([unit(centre + 0.05 * noise[1:]), -centre]),
        "poles and all else": lambda: np.vstack([pole, -pole, unit(noise[2:])]),
        "duplicates": lambda: np.repeat(unit(noise[: n // 8]), 8, axis=0),
    }[name]()


CONFIGURATIONS = (
    "uniform", "broad", "tight", "tight at a pole", "antipodal", "antipodal at the poles", "lone",
    "lone opposite", "poles and all else", "duplicates",
)  # fmt: skip


def velocities(x, mean):
    return mean - (x * mean).sum(axis=1, keepdims=True) * x


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_velocity_and_log_partition_equal_those_of_all_pairs(name, beta, d):
    x = jnp.asarray(tokens(name, d))
    mean, log_z = SUMS[d](x, x, x, beta)
    exact, exact_log_z = dense(x, x, x, beta)
    v, exact_v = velocities(x, mean), velocities(x, exact)
    largest = np.linalg.norm(exact_v, axis=1).max()
    assert np.abs(v - exact_v).max() <= 1e-10 * largest
    assert np.abs(log_z - exact_log_z).max() <= 1e-9


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("name", ["one point", "two poles"])
def test_equal_tokens_stand_still(name, d):
    pole = np.eye(d)[-1]
    x = np.tile(pole, (N, 1))
    if name == "two poles":
        x[::3] *= -1
    x = jnp.asarray(x)
    mean, log_z = SUMS[d](x, x, x, 81.0)
    assert np.abs(velocities(x, np.asarray(mean))).max() < 1e-13
    np.testing.assert_allclose(log_z, dense(x, x, x, 81.0)[1], atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("accuracy", [1e-2, 1e-4, 1e-7, 1e-10, None])
def test_stated_bound_is_never_exceeded(accuracy, beta, d):
    """Of every row, those of a lone token far from a crowd too; and it is no more than 10^4 times the error."""
    space = SPACES[d]
    for name in CONFIGURATIONS:
        x = tokens(name, d)
        z = np.empty(len(x))

        def write(part, values, z=z):
            z[part] = values[0].real

        columns = np.column_stack([np.ones(len(x)), x])
        norm = host._transform(space, x, x, beta, columns, accuracy, write)
        bound = host.row_bound(space, beta, accuracy, z, norm, len(x))
        y = jnp.asarray(x)
        exact = np.asarray(dense(y, y, y[:, :0], beta)[1]) - beta
        error = np.abs(z - np.exp(exact)) / np.abs(z)
        rounding = beta * 2e-16  # of the scores of `dense`
        assert (error <= bound + rounding).all(), (name, (error / bound).max())


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("accuracy", [1e-3, 1e-6, 1e-10])
def test_asked_accuracy_is_kept_in_every_row(accuracy, beta, d):
    for name in CONFIGURATIONS:
        x = jnp.asarray(tokens(name, d))
        mean, log_z = SUMS[d](x, x, x, beta, accuracy=accuracy)
        exact, exact_log_z = dense(x, x, x, beta)
        assert np.abs(mean - exact).max() <= accuracy, name
        assert np.abs(log_z - exact_log_z).max() <= accuracy, name


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("accuracy", [1e-3, 1e-6, 1e-9, None])
def test_uniform_tokens_need_no_sum_over_all_pairs(accuracy, beta, d, monkeypatch):
    """Else an accuracy would be kept, and cost a thousand times as much."""
    if accuracy is not None:
        assert accuracy > host.finest(SPACES[d], beta)
    direct = []
    monkeypatch.setattr(host, "_direct_rows", lambda rows, *_: direct.extend(rows))
    x = jnp.asarray(tokens("uniform", d, 20_000))
    jax.block_until_ready(SUMS[d](x, x, x, beta, accuracy=accuracy))
    assert not direct


def test_rows_that_cannot_be_fast_are_counted_in_a_warning(monkeypatch):
    x = jnp.asarray(tokens("broad", 3, 100))
    monkeypatch.setattr(host, "MANY", 1000)
    host._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"100 of 100 rows .* 1e\+04 pairs are summed"):
        mean, _ = jax.block_until_ready(harmonics(x, x, x, -30.0))
    np.testing.assert_allclose(mean, dense(x, x, x, -30.0)[0], atol=1e-13)


def rows_of(x, beta, rows):
    """Means and log Z of some rows, by all pairs in NumPy."""
    scores = beta * x[rows] @ x.T
    top = scores.max(axis=1, keepdims=True)
    e = np.exp(scores - top)
    z = e.sum(axis=1, keepdims=True)
    return e @ x / z, (np.log(z) + top)[:, 0]


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("accuracy", [1e-6, 1e-10, None])
def test_many_tokens_and_a_lonely_one(accuracy, d):
    """In several parts; and the sum of the last token is 1 where that of the others is near n."""
    n = 40_000
    assert len(torus.parts(n, 100)) == 4
    x = tokens("lone opposite", d, n)
    y = jnp.asarray(x)
    rows = np.r_[0 : n - 1 : 1000, n - 1]
    mean, log_z = SUMS[d](y, y, y, 81.0, accuracy=accuracy)
    exact, exact_log_z = rows_of(x, 81.0, rows)
    assert np.abs(np.asarray(mean)[rows] - exact).max() <= (accuracy or 1e-11)
    assert np.abs(np.asarray(log_z)[rows] - exact_log_z).max() <= (accuracy or 1e-11)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("beta", [-9.0, 0.0, 5.0, 300.0])
@pytest.mark.parametrize("p", [0, 1, 4, 5])
def test_any_payload_weights_and_other_queries(p, beta, d):
    rng = np.random.default_rng(3)
    k, q = (jnp.asarray(unit(rng.normal(size=(n, d)))) for n in (300, 200))
    v = jnp.asarray(rng.normal(size=(300, p)) * 10.0 ** np.arange(-2, p - 2))
    w = jnp.asarray(rng.uniform(size=300) ** 4)
    for weights in (None, w):
        for queries in (k, q):
            mean, log_z = SUMS[d](queries, k, v, beta, weights=weights)
            exact, exact_log_z = dense(queries, k, v, beta, weights=weights)
            size = np.abs(v).max(axis=0, initial=0)
            assert (np.abs(mean - exact) <= 1e-10 * size).all()
            np.testing.assert_allclose(log_z, exact_log_z, atol=1e-10)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("beta", [-2.0, 3.0])
def test_derivatives_equal_those_of_all_pairs(beta, d):
    rng = np.random.default_rng(4)
    k, q = (jnp.asarray(unit(rng.normal(size=(n, d)))) for n in (9, 7))
    v, w = jnp.asarray(rng.normal(size=(9, 2))), jnp.asarray(rng.uniform(0.5, 1, size=9))

    def number(kernel_sum, q, k, v, beta, w):
        mean, log_z = kernel_sum(q, k, v, beta, weights=w)
        return jnp.sin(mean).sum() + (log_z**2).sum()

    arguments = (q, k, v, beta, w)
    for derivative in (jax.grad, jax.jacfwd):
        fast_one, exact = (
            derivative(lambda *a, s=s: number(s, *a), argnums=(0, 1, 2, 3, 4))(*arguments)
            for s in (SUMS[d], dense)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), fast_one, exact)
    own = lambda s: jax.hessian(lambda x: number(s, x, x, x, beta, None))(k)
    np.testing.assert_allclose(own(SUMS[d]), own(dense), atol=1e-10)


@pytest.mark.parametrize("d", [2, 3])
def test_runs_under_vmap_and_jit(d):
    x = jnp.asarray(tokens("broad", d, 50))
    betas = jnp.array([0.5, 7.0])
    each = lambda s: jax.jit(jax.vmap(lambda beta: s(x, x, x, beta)[0]))(betas)
    np.testing.assert_allclose(each(SUMS[d]), each(dense), atol=1e-12)
    slope = lambda s: jax.vmap(jax.grad(lambda beta: s(x, x, x, beta)[0][0, 0]))(betas)
    np.testing.assert_allclose(slope(SUMS[d]), slope(dense), atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
def test_same_bits_whatever_the_threads(d, monkeypatch):
    x = jnp.asarray(unit(np.random.default_rng(0).normal(size=(60_000, d))))
    results = []
    for count in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(count))
        torus._pool.cache_clear()
        results.append(SUMS[d](x, x, x, 30.0))
    torus._pool.cache_clear()
    for mean, log_z in results[1:]:
        assert np.array_equal(mean, results[0][0])
        assert np.array_equal(log_z, results[0][1])


@pytest.mark.parametrize("d", [2, 3])
def test_half_precision_of_double(d):
    x = jnp.asarray(tokens("broad", d), jnp.float32)
    mean, log_z = SUMS[d](x, x, x, 9.0)
    exact, exact_log_z = dense(*[jnp.asarray(x, float)] * 3, 9.0)
    assert mean.dtype == log_z.dtype == jnp.float32
    assert np.abs(mean - exact).max() < 2e-6
    assert np.abs(log_z - exact_log_z).max() < 2e-6


@pytest.mark.parametrize("beta", [0.3, 9.0, 81.0, 1e4])
def test_tail_bounds_the_series_it_cuts(beta):
    from scipy.special import ive

    for cut in (5, 21, 75, 301):
        series = 2 * ive(np.arange(cut + 1, cut + 3000), beta).sum()
        assert series <= tail(beta, cut) * (1 + 1e-12)
    cut = modes_needed(CIRCLE, beta, 1e-10)
    assert tail(beta, cut) <= 1e-10 < tail(beta, cut - 2)


# ------------------------------------------------------------------------------------------- solve


def test_a_million_pairs_too_many_is_summed_fast():
    assert cheapest(100, 3, 9.0) is dense
    assert cheapest(100_000, 3, 81.0) is harmonics
    assert cheapest(100_000, 2, 81.0) is fourier
    assert cheapest(100_000, 4, 81.0) is dense
    assert cheapest(100_000, 3, float("inf")) is dense
    assert cheapest(20_000, 3, 1e6) is dense  # modes cost more than pairs


def test_solve_says_which_sum_it_took(key):
    x = af.sphere.uniform(key, 8000, 3)
    flow = af.sa(9.0)
    trajectory = af.solve(flow, x, jnp.array([0.0, 0.5]), rtol=1e-6)
    assert trajectory.stats["kernel_sum"] == "harmonics"
    slow = af.solve(af.sa(9.0, kernel_sum="dense"), x, jnp.array([0.0, 0.5]), rtol=1e-6)
    assert slow.stats["kernel_sum"] == "dense"
    np.testing.assert_allclose(trajectory.xs, slow.xs, atol=1e-11)
    assert trajectory.to_xarray().attrs["kernel_sum"] == "harmonics"


def test_gradient_through_a_run(key):
    x = af.sphere.uniform(key, 12, 3)

    def last(beta, kernel_sum):
        flow = af.sa(beta, kernel_sum=kernel_sum)
        return af.solve(flow, x, jnp.array([0.0, 1.0])).xs[-1, :, 0].sum()

    own, exact = (jax.grad(last)(2.0, name) for name in ("harmonics", "dense"))
    np.testing.assert_allclose(own, exact, rtol=1e-9)


# --------------------------------------------------------------------------------------- bad input


def test_masks_have_no_modes():
    x = jnp.asarray(tokens("broad", 3, 10))
    with pytest.raises(ValueError, match="`mask` must be None for `harmonics`"):
        harmonics(x, x, x, 1.0, mask=af.kernels.causal)


def test_other_dimensions_are_refused(untyped):
    x = jnp.asarray(tokens("broad", 3, 10))
    with pytest.raises(ValueError, match=r"shape \(n, 2\) for `fourier`, but q.shape=\(10, 3\)"):
        fourier(x, x, x, 1.0)


def test_accuracy_beyond_the_dtype_is_refused():
    x = jnp.asarray(tokens("broad", 3, 10))
    with pytest.raises(ValueError, match=r"accuracy=1e-09.*float32 gives no more"):
        harmonics(*[x.astype(jnp.float32)] * 3, 1.0, accuracy=1e-9)
    with pytest.raises(ValueError, match=r"accuracy=1e-15.*Use `dense`"):
        harmonics(x, x, x, 1.0, accuracy=1e-15)
    with pytest.raises(ValueError, match=r"`accuracy` .*accuracy=1e-11.*Use `dense`"):
        harmonics(x, x, x, 1000.0, accuracy=1e-11)
    assert cheapest(10**5, 3, 1000.0, accuracy=1e-11) is dense
    assert cheapest(10**5, 3, 1000.0, accuracy=1e-10) is harmonics


def test_modes_that_do_not_fit_are_refused():
    x = jnp.asarray(tokens("broad", 3, 10))
    with pytest.raises(MemoryError, match=r"beta = 1e\+09 needs \d+ modes on the sphere, .* GiB"):
        harmonics(x, x, x, 1e9)


@pytest.mark.parametrize("d", [2, 3])
def test_nan_stays_nan(d):
    x = jnp.asarray(tokens("broad", d, 10)).at[3, 0].set(jnp.nan)
    mean, log_z = SUMS[d](x, x, x, 1.0)
    assert np.isnan(mean).all()
    assert np.isnan(log_z).all()


def test_tokens_off_the_sphere_are_summed_over_all_pairs():
    x = 1.5 * jnp.asarray(tokens("broad", 3, 40))
    host._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"The keys are not unit vectors .*all 1.6e\+03 pairs"):
        mean, log_z = jax.block_until_ready(harmonics(x, x, x, 2.0))
    exact, exact_log_z = dense(x, x, x, 2.0)
    np.testing.assert_allclose(mean, exact, atol=1e-14)
    np.testing.assert_allclose(log_z, exact_log_z, atol=1e-13)


def test_a_low_accuracy_does_not_make_tokens_unit():
    """A length of 1 + 1e-4 moves the scores by beta times that, far beyond the accuracy."""
    x = (1 + 1e-4) * jnp.asarray(tokens("broad", 3, 41))
    host._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="The keys are not unit vectors"):
        _, log_z = jax.block_until_ready(harmonics(x, x, x, 81.0, accuracy=1e-3))
    np.testing.assert_allclose(log_z, dense(x, x, x, 81.0)[1], atol=1e-12)


def test_without_finufft_all_pairs_are_summed_and_one_warning_names_the_cost(monkeypatch):
    x = jnp.asarray(tokens("broad", 3, 30))
    monkeypatch.setattr(fast, "available", lambda: False)
    fast.tell_missing.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"all 9e\+02 pairs .* pip install finufft") as warned:
        for _ in range(2):
            mean, _ = harmonics(x, x, x, 2.0)
    assert len(warned) == 1
    np.testing.assert_allclose(mean, dense(x, x, x, 2.0)[0], atol=1e-14)


def test_a_failing_finufft_is_replaced(monkeypatch):
    import finufft

    def fail(*_, **__):
        raise RuntimeError("no threads")

    x = jnp.asarray(tokens("broad", 3, 31))
    monkeypatch.setattr(finufft, "Plan", fail)
    host._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"finufft failed \(no threads\): all 9.6e\+02 pairs"):
        mean, _ = jax.block_until_ready(harmonics(x, x, x, 2.0))
    np.testing.assert_allclose(mean, dense(x, x, x, 2.0)[0], atol=1e-14)


def test_a_kernel_sum_at_an_accuracy_is_one_object():
    assert to_accuracy(harmonics, 1e-6) is to_accuracy(harmonics, 1e-6)
    assert af.kernels.name_of(to_accuracy(harmonics, 1e-6)) == "harmonics (accuracy=1e-06)"


def test_keys_are_reproducible():
    x = af.sphere.uniform(jr.key(1), 20_000, 3)
    assert np.array_equal(harmonics(x, x, x, 81.0)[0], harmonics(x, x, x, 81.0)[0])
