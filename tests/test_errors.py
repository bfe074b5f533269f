"""Bad input gets one sentence: what, the value, the remedy; before any work starts."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attnflow as af
from attnflow import errors
from attnflow.analysis import clusters

X0 = af.sphere.polygon(5, 3)
TS = jnp.linspace(0.0, 1.0, 3)


def refused(call, *parts):
    """The call raises a `ValueError` of one line in our voice that holds every part."""
    with pytest.raises(ValueError, match="must") as caught:
        call()
    message = str(caught.value)
    assert message.startswith("Argument `")
    assert message.endswith((".", "?"))
    assert "\n" not in message
    for part in parts:
        assert part in message


SOLVE = {
    "a flow that is none": ({"flow": 3}, "`flow` must be a function", "flow=3"),
    "an overflowing flow": ({"flow": af.usa(1000.0)}, "beta=1000", "clock='rescaled'"),
    "NaN": ({"x0": X0.at[1, 0].set(jnp.nan)}, "must be finite", "1 of 5 rows", "x0[1]"),
    "inf": ({"x0": X0.at[2:, 0].set(jnp.inf)}, "must be finite", "3 of 5 rows", "x0[2]"),
    "a zero row": ({"x0": X0.at[3].set(0.0)}, "a direction in every row", "1 rows", "x0[3]"),
    "non-unit rows": ({"x0": 2 * X0}, "unit vectors", "off by 1.0e+00", "`sphere.normalize(x0)`"),
    "d = 1": ({"x0": X0[:, :1]}, "shape (n, d)", "d >= 2", "x0.shape=(5, 1)"),
    "one axis": ({"x0": X0[0]}, "shape (n, d)", "x0.shape=(3,)"),
    "no tokens": ({"x0": X0[:0]}, "n >= 1", "x0.shape=(0, 3)"),
    "whole numbers": ({"x0": jnp.eye(3, dtype=int)}, "x0.dtype=int64", "np.asarray(x0, float)"),
    "complex numbers": ({"x0": X0 + 0j}, "x0.dtype=complex128"),
    "a list": ({"x0": [[1.0, 0.0]]}, "x0.dtype=None", "np.asarray(x0, float)"),
    "a string": ({"x0": "tokens"}, "shape (n, d)", "x0.shape=()"),
    "idle weights": ({"x0": af.WeightedTokens(X0, jnp.full(5, 0.2))}, "must be an array"),
    "missing weights": ({"flow": af.FisherRaoFlow(1.0)}, "must be `WeightedTokens"),
    "wrong weights": (
        {"flow": af.FisherRaoFlow(1.0), "x0": af.WeightedTokens(X0, jnp.ones(5))},
        "`x0.weights` must sum to 1", "its sum is 5",
    ),
    "equal times": ({"ts": [0, 1, 1]}, "increase strictly", "ts[1]=1 and ts[2]=1", "np.unique"),
    "falling times": ({"ts": [1.0, 0.0]}, "ts[0]=1 and ts[1]=0"),
    "one time": ({"ts": [0.0]}, "at least two times", "ts.shape=(1,)"),
    "a final time": ({"ts": 2.0}, "at least two times", "ts.shape=()"),
    "NaN times": ({"ts": [0.0, np.nan]}, "`ts` must be finite"),
    "times equal in float32": (
        {"x0": X0.astype(jnp.float32), "ts": [0.0, 1.0, 1.0 + 1e-9]}, "ts[1]=1 and ts[2]=1",
    ),
    "a negative step": ({"dt": -0.1}, "dt > 0, but dt=-0.1"),
    "a zero step": ({"dt": 0.0}, "dt > 0, but dt=0.0"),
    "a NaN step": ({"dt": np.nan}, "`dt` must be finite, but dt=nan"),
    "a step in words": ({"dt": "small"}, "`dt` must be a number, but dt='small'"),
    "no tolerance": ({"rtol": 0.0}, "rtol > 0, but rtol=0.0"),
    "a negative tolerance": ({"atol": -1e-3}, "atol >= 0, but atol=-0.001"),
    "broken steps": ({"max_steps": 2.5}, "`max_steps` must be a whole number >= 1", "max_steps=2.5"),
    "no steps": ({"max_steps": 0}, "max_steps=0"),
    "a method by name": ({"method": "tsit5"}, "a solver like `diffrax.Tsit5()`", "method='tsit5'"),
    "a method's class": ({"method": dfx.Heun}, "a solver like `diffrax.Tsit5()`"),
    "a method with no step": ({"method": dfx.Euler()}, "`dt` must be a step, as Euler", "dt=None"),
    "layers of no size": ({"method": af.LayerMap()}, "`dt` must be a step, as LayerMap", "dt=None"),
    "broken layers": ({"method": af.LayerMap(), "dt": 0.3}, "whole numbers of layers", "but ts[2]=1."),
    "layers of no flow": (
        {"flow": lambda t, x, args: x, "method": af.LayerMap(), "dt": 0.5}, "a method `layer`", "Flow(",
    ),
    "one observable": ({"observe": af.observables.energy}, "a dict of functions", "{'name': function}"),
    "an observable's value": ({"observe": {"R": 1.0}}, "`observe['R']` must be a function"),
    "an event's value": ({"until": 0.999}, "`until` must be a function, but until=0.999"),
}  # fmt: skip


@pytest.mark.parametrize("case", SOLVE)
def test_solve_refuses(case, untyped):
    changes, *parts = SOLVE[case]
    call = {"flow": af.sa(1.0), "x0": X0, "ts": TS, **changes}
    flow, x0, ts = (call.pop(name) for name in ("flow", "x0", "ts"))
    refused(lambda: af.solve(flow, x0, ts, **call), *parts)


def test_the_traveller_norms_accept_any_nonzero_tokens():
    """Pre-LN moves radii: only the direction of a token must exist."""
    errors.check_tokens(3 * X0, unit=False)
    refused(lambda: errors.check_tokens(0 * X0, unit=False), "5 rows are zero")


def test_tokens_known_only_under_jit_are_checked_by_shape():
    checked = jax.jit(lambda x: errors.check_tokens(x) or x)
    np.testing.assert_array_equal(checked(2 * X0), 2 * X0)
    refused(lambda: jax.jit(lambda x: errors.check_tokens(x))(X0[:, :1]), "shape (n, d)")


@pytest.mark.parametrize(
    ("value", "options", "part"),
    [
        (-1.0, {"low": 0.0}, "must satisfy x >= 0, but x=-1.0."),
        (0.0, {"low": 0.0, "open_low": True}, "must satisfy x > 0, but x=0.0."),
        (2.0, {"high": 1.0}, "must satisfy x <= 1, but x=2.0."),
        (1.0, {"low": 0.0, "high": 1.0, "open_high": True}, "x >= 0 and x < 1, but x=1.0."),
        (np.nan, {}, "must satisfy not be NaN"),
        (np.nan, {"low": 0.0}, "but x=nan."),
        (np.array([0.5, 3.0]), {"high": 1.0, "remedy": "Divide."}, "x=[0.5 3. ]. Divide."),
        ("many", {"low": 0.0}, "must be a number, but x='many'."),
    ],
)
def test_check_between(value, options, part):
    refused(lambda: errors.check_between(value, "x", **options), part)


def test_what_is_in_range_passes():
    errors.check_between(np.array([0.0, 1.0]), "x", 0.0, 1.0)
    errors.check_finite(np.zeros(3), "x")
    errors.check_increasing([0, 1, 2.5])
    errors.check_count(np.int64(3), "n", low=3)
    errors.check_weights(jnp.array([[0.5, 0.5], [0.0, 1.0]]), 2)
    errors.check_shape(1.0, "x", (), (3,))
    errors.check_choice("sa", "flow", af.FLOWS)


def test_unknown_names_list_the_known_and_suggest_the_nearest():
    known = ", ".join(sorted(af.FLOWS))
    refused(
        lambda: errors.check_choice("casual", "flow", af.FLOWS),
        f"must be one of {known}, but flow='casual'. Did you mean 'causal'?",
    )
    refused(lambda: errors.check_choice("xyzzy", "flow", af.FLOWS), "but flow='xyzzy'.")


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "3", None])
def test_counts_are_whole_numbers(value):
    refused(lambda: errors.check_count(value, "n"), "`n` must be a whole number >= 1, but n=")


@pytest.mark.parametrize(
    ("weights", "part"),
    [
        (jnp.ones(3) / 3, "must have shape (4,), one weight a token, but weights.shape=(3,)"),
        (jnp.array([0.5, 0.5, 0.5, -0.5]), "weights >= 0"),
        (jnp.array([0.5, 0.5, 0.5, np.nan]), "must be finite"),
        (jnp.array([1.0, 1.0, 1.0, 1.0]), "its sum is 4. Pass `weights / weights.sum()`."),
    ],
)
def test_weights(weights, part):
    refused(lambda: errors.check_weights(weights, 4), part)


def test_shapes():
    refused(
        lambda: errors.check_shape(np.ones(3), "x", (2,)), "must have shape (2,), but x.shape=(3,)."
    )
    refused(
        lambda: errors.check_shape(np.ones(3), "x", (), (2, 2)),
        "be one number or have shape (2, 2)",
    )


def test_long_values_are_shortened_to_one_line():
    refused(lambda: errors.check_finite(np.full((9, 9), np.nan), "x"), "must be finite, but x=[[")
    refused(lambda: errors.check_finite(np.full(10_000, np.nan), "x"), "x=[nan nan ... nan nan].")


def test_memory_is_estimated_before_it_is_taken():
    errors.check_memory(1, "a byte")
    needed = 4 * errors.available_memory()
    with pytest.raises(MemoryError, match=r"everything needs about .* GiB are free\. Take fewer"):
        errors.check_memory(needed, "everything")


@pytest.mark.parametrize("value", ["1", "many", [None, "x"], {}, 1j, 10**400, [[1.0], [2.0, 3.0]]])
def test_what_is_no_number_is_refused_in_one_line(value):
    refused(lambda: errors.check_finite(value, "x"), "`x` must be a number, but x=")
    refused(lambda: errors.check_between(value, "x", 0.0, 1.0), "`x` must be a number, but x=")


@pytest.mark.parametrize("value", [[1.0, 2.0], [[1.0], [2.0, 3.0]], {}, -(10**400)])
def test_counts_show_any_value_in_one_line(value):
    refused(lambda: errors.check_count(value, "n"), "`n` must be a whole number >= 1, but n=")


FOUND = {
    "tokens beyond memory": (lambda: af.sphere.polygon(10**12, 10**6), MemoryError, "needs about"),
    "a Gram matrix beyond memory": (lambda: af.sphere.equiangular(10**8, 0.5), MemoryError, "needs about"),
    "cosines for a cosine": (lambda: af.sphere.equiangular(3, []), ValueError, "`rho` must be one number"),
    "concentrations": (
        lambda: af.sphere.vmf(jax.random.key(0), 2, 3, concentration=[1.0, 2.0]), ValueError,
        "`concentration` must be one number",
    ),
    "spreads": (
        lambda: af.sphere.clusters(jax.random.key(0), 4, 3, k=2, spread=[]), ValueError, "`spread` must be one number",
    ),
    "cosines to link at": (
        lambda: clusters.cluster_labels(np.asarray(X0), cosine=[0.5, 0.5]), ValueError, "`cosine` must be one number",
    ),
    "a product beyond floats": (
        lambda: af.Attention(40.0, 1e308, 1e308), ValueError, "`beta * query * key` must be finite",
    ),
    "lists of betas": (
        lambda: af.MultiHead([af.Attention([1.0, 2.0])] * 2)(X0), ValueError, "`beta` must be one number",
    ),
    "turns for a spread": (
        lambda: af.sphere.clusters(jax.random.key(0), 4, 3, k=2, spread=1e200), ValueError, "spread <= 100",
    ),
    "more tokens than floats": (lambda: af.sphere.equiangular(10**400, 0.5), MemoryError, "needs about"),
    "ragged betas": (
        lambda: af.QKVAttention([[1.0, 0.0], [0.0]], 1.0, 1.0, 1.0), ValueError, "`beta` must be a number",
    ),
    "ragged weights": (
        lambda: af.Attention(1.0, weights=[[1.0, 0.0], [0.0]])(X0), ValueError, "`weights` must be a number",
    ),
    "accuracies": (
        lambda: af.coalesce(af.Attention(2.0), X0, rtol=[]), ValueError, "`rtol` must be one number",
    ),
    "widths": (lambda: af.mean_shift.blur(X0, []), ValueError, "`beta` must be one number"),
    "final times": (lambda: af.log_times([], 5), ValueError, "`t_max` must be one number"),
    "save times beyond memory": (lambda: af.log_times(1.0, 10**15), MemoryError, "needs about"),
    "cosines of an event": (lambda: af.within_cap([]), ValueError, "`cosine` must be one number"),
    "speeds of an event": (lambda: af.stationary([]), ValueError, "`speed` must be one number"),
    "a number in words": (lambda: af.Attention("1"), ValueError, "`beta` must be a number, but beta='1'"),
    "a number beyond floats": (lambda: af.Attention(10**400), ValueError, "`beta` must be finite"),
    "a matrix in words": (lambda: af.Attention(1.0, "2"), ValueError, "`query` must be a number, but query='2'"),
    "rates for a rate": (
        lambda: af.FisherRaoFlow(1.0, [])(0.0, af.WeightedTokens(X0, jnp.full(5, 0.2))), ValueError,
        "`rate` must be one number",
    ),
    "rows of two lengths": (
        lambda: af.sphere.hemisphere_test([[1.0, 0.0], [0.0]]), ValueError, "rows of x differ in length",
    ),
    "betas of noise": (
        lambda: af.solve_sde(af.sa([]), X0, TS, kappa=4.0, dt=0.1, key=jax.random.key(0)), ValueError,
        "`beta` must be one number",
    ),
    "betas to cluster at": (
        lambda: af.AttentionClustering(beta=()).fit(np.asarray(X0)), ValueError, "`beta` must be one number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_what_fuzzing_found_is_a_sentence(case, untyped):
    call, kind, part = FOUND[case]
    with pytest.raises(kind, match=r"Argument|GiB") as caught:
        call()
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_whole_numbers_beyond_64_bits_are_numbers():
    seen = af.Attention(1.0, 2**70, 2.0**-70)(X0)
    np.testing.assert_allclose(seen, af.Attention(1.0)(X0), rtol=1e-14)
    np.testing.assert_array_equal(af.mean_shift.blur(X0, 2**70), af.mean_shift.blur(X0, 2.0**70))
    traj = af.solve(af.sa(1.0), X0, [0.0, 2.0**63], method=af.LayerMap(), dt=2**63)
    assert np.isfinite(traj.xs).all()
