"""One `solve`: orders of convergence, layers, precision, failures, and what compiles when."""

import inspect
from functools import partial

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af
from attnflow.observables import cosine_gap, energy, mean_cosine, order_parameter
from attnflow.theory import gram as gram_theory

X0 = af.sphere.uniform(jr.key(0), 8, 3)
TS = jnp.linspace(0.0, 2.0, 5)

# ------------------------------------------------------------------------------------------- methods


@pytest.fixture(scope="module")
def exact():
    return af.solve(af.sa(2.0), X0, TS, method=dfx.Dopri8(), rtol=1e-13, atol=1e-14).xs


@pytest.mark.parametrize("method", [dfx.Euler(), dfx.Heun(), dfx.Bosh3()], ids=type)
def test_convergence_order(method, exact):
    """Tolerance 0.2 separates neighbouring orders; of Tsit5 rounding leaves no clean slope."""
    steps = np.array([0.2, 0.1, 0.05, 0.025])
    runs = [af.solve(af.sa(2.0), X0, TS, method=method, dt=dt) for dt in steps]
    errors = [float(jnp.abs(run.xs[-1] - exact[-1]).max()) for run in runs]
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(order - method.order(None)) < 0.2
    assert [int(run.stats["num_steps"]) for run in runs] == [10, 20, 40, 80]


@pytest.mark.parametrize("rtol", [1e-5, 1e-8])
def test_adaptive_error_follows_the_tolerance(rtol, exact):
    """Some ten steps, each within rtol, on a flow that contracts or stretches little: below 30 rtol."""
    run = af.solve(af.sa(2.0), X0, TS, rtol=rtol, atol=rtol / 100)
    error = float(jnp.abs(run.xs - exact).max())
    assert 1e-4 * rtol < error < 30 * rtol


def test_particles_follow_the_gram_equation(exact):
    """THEORY 0.4: G' = M + M^T - (r_i + r_j) G, M = AG, an oracle that shares no code."""
    oracle = gram_theory.gram(np.asarray(TS), np.asarray(X0 @ X0.T), beta=2.0)
    np.testing.assert_allclose(jnp.einsum("tia,tja->tij", exact, exact), oracle, atol=1e-11)


# -------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_layer_map_is_the_gram_map(eta):
    oracle = gram_theory.gram_post_ln(np.asarray(X0 @ X0.T), steps=20, eta=eta, beta=2.0)
    ts = eta * jnp.arange(21)
    run = af.solve(af.sa(2.0), X0, ts, method=af.LayerMap(), dt=eta)
    np.testing.assert_allclose(jnp.einsum("tia,tja->tij", run.xs, run.xs), oracle, atol=1e-13)
    assert run.stats["num_steps"] == 20


def test_layer_map_of_pre_ln_adds_what_is_seen():
    flow = af.sa(2.0, norm=af.norms.pre_ln)
    x = 2 * X0
    run = af.solve(flow, x, jnp.arange(6.0), method=af.LayerMap(), dt=1.0)
    for layer in range(6):
        np.testing.assert_allclose(run.xs[layer], x, atol=1e-13)
        x = x + af.Attention(2.0)(af.sphere.normalize(x))


def test_layers_contract_more_slowly_than_the_flow():
    """THEORY 0.2: log(1 + eta)/eta = 0.95310180 at eta = .1; the gap has e^(-20) left to bend it."""
    x0 = af.sphere.normalize(X0[:5] + jnp.array([2.0, 0, 0]))
    ts, observe = jnp.array([0.0, 10.0, 14.0]), {"gap": cosine_gap}
    run = af.solve(af.sa(3.0), x0, ts, method=af.LayerMap(), dt=0.1, observe=observe)
    gap = run.observed["gap"]
    rate = float(jnp.log(gap[1] / gap[2])) / (2 * 4.0)
    assert abs(rate - np.log(1.1) / 0.1) < 1e-8
    assert abs(rate - 0.95310180) < 1.5e-8


def test_layers_keep_their_step_at_large_times_in_float32():
    """t1 - t0 would be off by 1e-3 of eta at t = 1000; the largest eta seen is kept as the state."""

    class Recorder(eqx.Module):
        def __call__(self, t, y, args=None):
            return jnp.ones_like(y)

        def layer(self, t, y, eta):
            return jnp.maximum(y, jnp.abs(eta / 0.1 - 1))

    ts = jnp.array([0.0, 1000.0])
    run = af.solve(Recorder(), jnp.zeros((), jnp.float32), ts, method=af.LayerMap(), dt=0.1)
    assert run.x_end < 3e-7
    assert run.stats["num_steps"] == 10_000


# ----------------------------------------------------------------------------------- on the sphere


def test_repulsion_stays_on_the_sphere_where_the_naive_field_leaves_it():
    """THEORY 0.1: beta = 50, V = -I: norm errors of the naive field grow by 1.99e4 in t = 5.

    That is e^(2 * 5 I_1(50)/I_0(50)) = e^9.8995. The solver's own errors grow as much: rtol = 1e-12.
    """
    x0, ts = (1 + 1e-8) * af.sphere.polygon(100), jnp.array([0.0, 5.0])
    flow = af.sa(50.0, value=-1.0)

    def naive(t, x, args):
        return af.sphere.project(x, flow.attention(x))

    def norm_error(run):
        return jnp.abs(jnp.linalg.norm(run.x_end, axis=1) - 1).max()

    growth = norm_error(af.solve(naive, x0, ts, rtol=1e-12, atol=1e-14)) / 1e-8
    np.testing.assert_allclose(growth, 1.99e4, rtol=2e-3)
    bare = af.solve(lambda t, x, args: flow(t, x), x0, ts)
    np.testing.assert_allclose(norm_error(bare), 1e-8, rtol=1e-6)


def test_repelling_tokens_part_and_stay_unit():
    x0 = af.sphere.normalize(X0 + jnp.array([2.0, 0, 0]))
    run = af.solve(af.sa(5.0, value=-1.0), x0, 5 * TS)
    assert order_parameter(run.x_end) < 0.5 * order_parameter(x0)
    np.testing.assert_allclose(jnp.linalg.norm(run.xs, axis=-1), 1, atol=1e-12)


# ---------------------------------------------------------------------------------- what is returned


def test_observables_are_those_of_the_states():
    observe = {"rho": mean_cosine, "E": partial(energy, beta=2.0), "near": count_of_near}
    full = af.solve(af.sa(2.0), X0, TS, observe=observe)
    lean = af.solve(af.sa(2.0), X0, TS, observe=observe, states=False)
    assert lean.xs is None
    np.testing.assert_allclose(full.xs[0], X0, atol=1e-15)
    np.testing.assert_allclose(full.xs[-1], full.x_end, atol=1e-15)
    for name, function in observe.items():
        np.testing.assert_array_equal(full.observed[name], lean.observed[name])
        np.testing.assert_allclose(full.observed[name], jax.vmap(function)(full.xs), rtol=1e-14)
    assert (jnp.diff(full.observed["E"]) > 0).all()
    assert jnp.issubdtype(full.observed["near"].dtype, jnp.integer)
    np.testing.assert_array_equal(full.ts, TS)
    assert full.t_end == 2.0


def count_of_near(x):
    return jnp.sum(x @ x.T > 0.5)


def test_to_xarray_labels_every_axis():
    state = af.WeightedTokens(X0, jnp.full(8, 1 / 8))
    observe = {"heights": lambda x, w: x @ (w @ x)}
    run = af.solve(af.FisherRaoFlow(2.0), state, TS, observe=observe)
    data = run.to_xarray()
    assert data.tokens.dims == ("time", "token", "axis")
    assert data.weights.dims == ("time", "token")
    assert data.heights.dims == ("time", "heights_1")
    np.testing.assert_array_equal(data.time, TS)
    assert data.attrs["num_steps"] == int(run.stats["num_steps"]) > 0
    np.testing.assert_allclose(data.weights.sum("token"), 1, atol=1e-14)
    energies = jax.vmap(energy, (0, None, 0))(run.xs, 2.0, run.weights)
    assert (jnp.diff(energies) > 0).all()


def test_any_state_and_vector_field_will_do():
    ts = jnp.linspace(0.0, 1.0, 3)
    scalar = af.solve(lambda t, y, args: -args * y, jnp.array(1.0), ts, args=2.0)
    np.testing.assert_allclose(scalar.xs, jnp.exp(-2 * ts), rtol=1e-7)
    pair = af.solve(lambda t, y, args: {"x": y["v"], "v": -y["x"]}, {"x": 1.0, "v": 0.0}, ts)
    np.testing.assert_allclose(pair.xs["x"], jnp.cos(ts), atol=1e-7)
    np.testing.assert_allclose(pair.x_end["v"], -jnp.sin(1.0), atol=1e-7)


@pytest.mark.parametrize("method", [None, af.LayerMap()])
def test_float32_runs_stay_float32(method):
    """Times, tolerances and parameters in double precision do not widen the run."""
    beta = jnp.asarray(np.float64(2.0))
    observe = {"rho": mean_cosine, "E": partial(energy, beta=2.0)}
    narrow = X0.astype(jnp.float32)
    dt = None if method is None else 0.5
    run = af.solve(af.sa(beta), narrow, np.asarray(TS), observe=observe, method=method, dt=dt)
    leaves = [leaf for leaf in jax.tree.leaves(run) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert len(leaves) == 6
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert not np.asarray(run.stats["num_rejected_steps"]) > 10


def test_log_times():
    ts = af.log_times(100.0, 5, t_min=0.1)
    np.testing.assert_allclose(ts, [0, 0.1, 1, 10, 100], rtol=1e-14)
    assert ts[-1] == 100
    with pytest.raises(ValueError, match=r"`t_max` must satisfy t_max > 0\.01, but t_max=0\.001"):
        af.log_times(1e-3, 5)
    with pytest.raises(ValueError, match="`count` must be a whole number >= 3"):
        af.log_times(1.0, 2)


# ----------------------------------------------------------------------------- large beta, one token


def test_beta_of_a_thousand_runs_on_the_rescaled_clock_only():
    run = af.solve(af.usa(1000.0, clock="rescaled"), X0, TS)
    assert jnp.isfinite(run.xs).all()
    with pytest.raises(ValueError, match=r"beta=1000 is not\. .* pass clock='rescaled' to `usa`"):
        af.solve(af.usa(1000.0), X0, TS)


def test_clocks_follow_one_orbit():
    """Physical time is e^(-beta) times rescaled time."""
    physical = af.solve(af.usa(4.0), X0, TS * np.exp(-4.0), rtol=1e-10, atol=1e-12)
    rescaled = af.solve(af.usa(4.0, clock="rescaled"), X0, TS, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(physical.xs, rescaled.xs, atol=1e-9)


def test_a_single_token_stays_where_it_is():
    one = X0[:1]
    run = af.solve(af.sa(5.0), one, TS, observe={"rho": mean_cosine})
    np.testing.assert_allclose(run.xs, jnp.broadcast_to(one, (5, 1, 3)), atol=1e-15)
    np.testing.assert_array_equal(run.observed["rho"], 1)


# -------------------------------------------------------------------------- failures, progress, traces


def test_too_few_steps_say_which_flow_and_how_far_and_progress_goes_to_stderr(capfd):
    sentence = (
        r"The run of Attention, beta=3 stopped at t=0\.\d+ of 2: The maximum number of solver"
    )
    with pytest.raises(RuntimeError, match=sentence):
        af.solve(af.sa(3.0), X0, TS, max_steps=3, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "%" in err


def test_new_numbers_compile_nothing():
    """The observable runs in Python at each trace, and never again."""
    traces = []

    def observe(x):
        traces.append(x.shape)
        return x[0, 0]

    def run(beta, **numerics):
        return af.solve(af.sa(beta), X0, TS, observe={"first": observe}, **numerics).xs

    first = run(1.0)
    count = len(traces)
    assert count > 0
    for other in (run(2.5), run(2), run(1.0, rtol=1e-6, atol=1e-7)):
        assert jnp.abs(other - first).max() > 1e-10
    assert len(traces) == count


def test_solve_runs_inside_jit():
    """Under jit even constants are traced; values known only then are not checked."""
    outside = af.solve(af.sa(2.0), X0, TS).xs
    inside = jax.jit(lambda: af.solve(af.sa(2.0), X0, TS).xs)()
    np.testing.assert_allclose(inside, outside, atol=1e-14)


def test_numerics_are_keyword_only():
    parameters = inspect.signature(af.solve).parameters.values()
    positional = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert positional == ["flow", "x0", "ts"]
