"""Gradients through a run, batches of runs, and runs in the span of their tokens."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af
from attnflow.kernels import dense
from attnflow.observables import mean_cosine
from attnflow.theory import equiangular, gram

X0 = af.sphere.uniform(jr.key(0), 4, 3)
WIDE = af.sphere.uniform(jr.key(5), 4, 20)
TARGET = jr.normal(jr.key(1), WIDE.shape)
TS = jnp.array([0.0, 1.0])


def score(x0, beta, **numerics):
    """A generic number of the final tokens; d > n, so that x0 enters through its span too."""
    return jnp.sum(TARGET * af.solve(af.sa(beta), af.sphere.normalize(x0), TS, **numerics).x_end)


# ---------------------------------------------------------------------------------------- gradients


@pytest.fixture(scope="module")
def finite_differences():
    """Central differences of a fixed-step run along TARGET and in beta: errors h^2 and eps/h, 1e-10."""
    h = 1e-5
    run = jax.jit(lambda x0, beta: score(x0, beta, dt=0.05))
    in_beta = (run(WIDE, 2.0 + h) - run(WIDE, 2.0 - h)) / (2 * h)
    in_x0 = (run(WIDE + h * TARGET, 2.0) - run(WIDE - h * TARGET, 2.0)) / (2 * h)
    return float(in_x0), float(in_beta)


def test_reverse_mode_gradients(finite_differences):
    """The adaptive run is another approximation of the same flow: both err by 1e-7 or less."""
    in_x0, in_beta = jax.grad(score, argnums=(0, 1))(WIDE, 2.0)
    np.testing.assert_allclose(jnp.sum(in_x0 * TARGET), finite_differences[0], atol=1e-6)
    np.testing.assert_allclose(in_beta, finite_differences[1], atol=1e-6)
    assert min(map(abs, finite_differences)) > 0.01


def test_forward_mode_gradients(finite_differences):
    run = jax.jit(lambda *where: score(*where, dt=0.05, adjoint=dfx.ForwardMode()))
    for tangent, expected in zip(
        [(TARGET, 0.0), (0 * TARGET, 1.0)], finite_differences, strict=True
    ):
        got = jax.jvp(run, (WIDE, 2.0), tangent)[1]
        np.testing.assert_allclose(got, expected, atol=1e-8)


def test_gradients_reach_every_parameter_of_a_flow():
    """Q, K, V and norms that move radii: against central differences along one direction."""

    @eqx.filter_jit
    def run(values):
        query, key, value = values
        flow = af.sa(1.5, query=query, key=key, value=value, norm=af.norms.pre_ln)
        return jnp.sum(TARGET[:, :3] * af.solve(flow, X0, TS, dt=0.1).x_end)

    values = jr.normal(jr.key(2), (3, 3, 3)) / 2
    direction = jr.normal(jr.key(3), values.shape)
    h = 1e-5
    expected = (run(values + h * direction) - run(values - h * direction)) / (2 * h)
    got = jnp.sum(eqx.filter_grad(run)(values) * direction)
    np.testing.assert_allclose(got, expected, rtol=1e-7)


# ------------------------------------------------------------------------------------------- batches


def test_vmap_over_starts_and_betas_is_the_loop():
    """One batch shares its steps with nobody: each run keeps its own step control."""
    betas, keys = jnp.array([0.5, 2.0, 4.0]), jr.split(jr.key(4), 2)
    ts = jnp.linspace(0.0, 3.0, 4)

    def run(beta, key):
        x0 = af.sphere.uniform(key, 4, 3)
        return af.solve(af.sa(beta), x0, ts, observe={"rho": mean_cosine})

    batch = jax.vmap(jax.vmap(run, (None, 0)), (0, None))(betas, keys)
    assert batch.xs.shape == (3, 2, 4, 4, 3)
    for i, beta in enumerate(betas):
        for j, key in enumerate(keys):
            single = run(beta, key)
            np.testing.assert_allclose(batch.xs[i, j], single.xs, atol=1e-13)
            np.testing.assert_allclose(
                batch.observed["rho"][i, j], single.observed["rho"], atol=1e-13
            )
            assert batch.stats["num_steps"][i, j] == single.stats["num_steps"]


def test_vmap_over_an_event_keeps_each_runs_time():
    """Under vmap nothing can be cut: what comes after the event is marked by inf."""
    betas, x0 = jnp.array([0.5, 2.0]), af.sphere.equiangular(4, 0.2)
    ts, until = jnp.linspace(0.0, 6.0, 7), af.within_cap(0.99)
    batch = jax.vmap(lambda beta: af.solve(af.sa(beta), x0, ts, until=until))(betas)
    for i, beta in enumerate(betas):
        end = equiangular.time_sa((4 * 0.99**2 - 1) / 3, 0.2, n=4, beta=float(beta))
        np.testing.assert_allclose(batch.t_end[i], end, atol=1e-4)
        np.testing.assert_array_equal(batch.ts[i], jnp.where(ts < end, ts, jnp.inf))


# --------------------------------------------------------------------------------------------- spans


FLOWS = {
    "heads, pre-LN": af.Flow(
        af.MultiHead([af.Attention(1.0), af.Attention(2.0, value=-0.5)]), af.norms.pre_ln
    ),
    "fisher-rao": af.FisherRaoFlow(2.0),
}


@pytest.mark.parametrize("name", FLOWS)
def test_runs_in_the_span_are_exact(name):
    """The solver controls coordinates of another frame, so runs agree to its tolerance."""
    flow = FLOWS[name]
    assert flow.isotropic
    state = af.WeightedTokens(WIDE, jnp.full(4, 1 / 4)) if name == "fisher-rao" else WIDE
    observe = {"first": first_coordinate}
    runs = [
        af.solve(flow, state, TS, observe=observe, reduce=reduce, rtol=1e-10, atol=1e-12)
        for reduce in (True, False)
    ]
    np.testing.assert_allclose(runs[0].xs, runs[1].xs, atol=2e-9)
    assert jnp.abs(runs[0].xs[-1] - WIDE).max() > 0.05
    np.testing.assert_array_equal(runs[0].observed["first"], runs[0].xs[:, 0, 0])


def test_a_masked_and_repulsive_run_in_the_span_follows_the_gram_equation():
    ts = np.array([0.0, 1.0])
    oracle = gram.gram(ts, np.asarray(WIDE @ WIDE.T), beta=2.0, mask="causal", value=-1.0)
    run = af.solve(af.causal(2.0, value=-1.0), WIDE, ts, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(run.x_end @ run.x_end.T, oracle[-1], atol=2e-9)
    np.testing.assert_allclose(run.x_end @ jnp.linalg.pinv(WIDE) @ WIDE, run.x_end, atol=1e-12)


def first_coordinate(x, *weights):
    return x[0, 0]


def test_a_run_in_the_span_never_touches_d_coordinates():
    """What the kernel sum is given while the run is traced: (n, d) once, to check the start."""
    shapes = []

    def watched(q, k, v, beta, **options):
        shapes.append(q.shape)
        return dense(q, k, v, beta, **options)

    flow = af.sa(2.0, kernel_sum=watched)
    run = af.solve(flow, WIDE, TS)
    assert run.xs.shape == (2, 4, 20)
    assert shapes[0] == (4, 20)
    assert len(shapes) > 1
    assert set(shapes[1:]) == {(4, 4)}
