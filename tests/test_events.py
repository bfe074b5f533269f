"""Events: when they happen, what they leave, and when they are refused."""

from functools import partial

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import attnflow as af
from attnflow.observables import mean_cosine
from attnflow.theory import equiangular

N, BETA, RHO = 5, 1.0, 0.1
X0 = af.sphere.equiangular(N, RHO)
TS = jnp.linspace(0.0, 8.0, 33)
FINE = {"rtol": 1e-10, "atol": 1e-12}


def time_of(rho):
    """Time at which equiangular tokens have the common cosine rho: THEORY 7.2."""
    return float(equiangular.time_sa(rho, RHO, n=N, beta=BETA))


def cap_time(cosine):
    """Tokens have cosine sqrt((1 + (n - 1) rho)/n) with their mean."""
    return time_of((N * cosine**2 - 1) / (N - 1))


@pytest.fixture(scope="module")
def run():
    """Equiangular tokens until they are within the cap of cosine 0.999."""
    observe = {"rho": mean_cosine}
    return af.solve(af.sa(BETA), X0, TS, until=af.within_cap(0.999), observe=observe, **FINE)


def test_within_cap_ends_at_the_closed_form_time(run):
    """The dense output of a step of rtol = 1e-10 is of order 4: some 1e-8 in x, over a slope of 1e-3."""
    np.testing.assert_allclose(run.t_end, cap_time(0.999), atol=1e-5)
    mean = af.sphere.normalize(run.x_end.mean(axis=0))
    np.testing.assert_allclose((run.x_end @ mean).min(), 0.999, atol=1e-14)


def test_what_comes_after_the_event_is_cut(run):
    kept = int((run.t_end >= TS).sum())
    assert 1 < kept < len(TS)
    np.testing.assert_array_equal(run.ts, TS[:kept])
    assert run.xs.shape == (kept, N, N)
    assert run.observed["rho"].shape == (kept,)
    assert jnp.isfinite(run.xs).all()
    oracle = equiangular.cosine_sa(np.asarray(run.ts), RHO, n=N, beta=BETA)
    np.testing.assert_allclose(run.observed["rho"], oracle, atol=1e-8)


def test_another_cap_compiles_nothing_and_is_met_sooner(run):
    sooner = af.solve(
        af.sa(BETA),
        X0,
        TS,
        until=af.within_cap(0.9),
        observe={"rho": mean_cosine},
        **FINE,
    )
    np.testing.assert_allclose(sooner.t_end, cap_time(0.9), atol=1e-6)


def test_stationary_ends_at_that_speed():
    flow = af.sa(BETA)
    run = af.solve(flow, X0, TS, until=af.stationary(0.05), **FINE)
    speed = lambda x: jnp.linalg.norm(flow(0.0, x), axis=1).max()
    np.testing.assert_allclose(speed(run.x_end), 0.05, rtol=1e-10)
    assert all(speed(x) > 0.05 for x in run.xs)
    assert run.t_end < 8


def test_an_event_that_never_happens_changes_nothing(run):
    until, observe = af.within_cap(0.999), {"rho": mean_cosine}
    whole = af.solve(af.sa(BETA), X0, TS / 4, until=until, observe=observe, **FINE)
    assert whole.t_end == 2.0 < run.t_end
    np.testing.assert_array_equal(whole.ts, TS / 4)
    np.testing.assert_allclose(whole.xs[::4], run.xs[:9], atol=1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_an_event_is_located_whatever_its_scale(scale):
    run = af.solve(af.sa(BETA), X0, TS, until=partial(time_left, scale))
    np.testing.assert_allclose(run.t_end, 1.2345, rtol=1e-15 * 4)


def time_left(scale, t, x, velocity):
    return scale * (1.2345 - t)


def test_events_work_in_float32():
    x0 = X0.astype(jnp.float32)
    run = af.solve(af.sa(BETA), x0, TS, until=af.within_cap(0.9))
    assert run.t_end.dtype == run.xs.dtype == jnp.float32
    np.testing.assert_allclose(run.t_end, cap_time(0.9), atol=1e-3)


def test_events_of_ones_own_see_every_axis_of_a_reduced_run():
    """d > n runs in the span of the tokens; the event is still told d coordinates."""
    x0 = af.sphere.uniform(jr.key(1), 3, 8)
    w = af.sphere.normalize(x0.sum(axis=0))
    level = float((x0 @ w).min()) + 0.05
    until = lambda t, x, velocity: level - (x @ w).min() + 0 * velocity.sum() * w.sum()
    run = af.solve(af.sa(BETA), x0, TS, until=until, **FINE)
    np.testing.assert_allclose((run.x_end @ w).min(), level, atol=1e-14)


def test_an_event_of_weighted_tokens_sees_the_tokens():
    state = af.WeightedTokens(X0, jnp.full(N, 1 / N))
    run = af.solve(af.FisherRaoFlow(BETA), state, TS, until=af.within_cap(0.9))
    mean = af.sphere.normalize(run.x_end.x.mean(axis=0))
    np.testing.assert_allclose((run.x_end.x @ mean).min(), 0.9, atol=1e-14)


def test_an_event_that_holds_at_the_start_is_refused():
    close = af.sphere.equiangular(N, 0.99)
    with pytest.raises(ValueError, match="`until` must not hold at the start, but its margin"):
        af.solve(af.sa(BETA), close, TS, until=af.within_cap(0.9))
    with pytest.raises(ValueError, match="`until` must not hold at the start"):
        af.solve(af.sa(BETA), close, TS, until=af.stationary(1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: af.within_cap(1.0), "cosine > -1 and cosine < 1, but cosine=1"),
        (lambda: af.within_cap(float("nan")), "but cosine=nan"),
        (lambda: af.stationary(0.0), "speed > 0, but speed=0"),
        (lambda: af.stationary(float("inf")), "`speed` must be finite"),
    ],
)
def test_bad_events_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
